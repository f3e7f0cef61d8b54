//! The control connection: messages of JSON, each behind its length, and the proof that both sides have the token.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidegate_load::hex;
use tidegate_report::format::printable;

/// The version of these messages; both sides must have the same.
pub(super) const PROTOCOL: u32 = 1;

/// The version of the program, on which the arguments and the results depend.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Octets of a message before the token is proved, at most.
const MAX_GREETING: u32 = 4 * 1024;

/// Octets of a message to an agent, at most.
const MAX_REQUEST: u32 = 64 * 1024;

/// Octets of a message of an agent, at most: histograms of two distributions take less than a megabyte.
const MAX_REPLY: u32 = 32 * 1024 * 1024;

/// Octets of a token, at least and at most.
const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 16..=1024;

/// The time in which the other side must say something, or take what is sent.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// The first message of an agent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Greeting {
    pub(super) protocol: u32,
    pub(super) version: String,
    /// A number that was never used before.
    pub(super) nonce: String,
}

/// The answer to it, of the side that has the token.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Proof {
    pub(super) protocol: u32,
    pub(super) version: String,
    /// The token and the number, hashed together.
    pub(super) proof: String,
}

/// A request to an agent.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// To get ready for a measurement with these arguments.
    Prepare(Vec<String>),
    /// To begin it after so many microseconds.
    Start(u64),
}

/// A reply of an agent.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// The token is right.
    Welcome,
    /// The measurement can begin.
    Ready,
    /// It goes on.
    Running,
    /// It is over.
    Finished(Finished),
    /// It cannot be done, and why. Wrong arguments are said to be so.
    Refused { reason: String, is_usage: bool },
}

impl Reply {
    /// The name of the message.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Welcome => "welcome",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Finished(_) => "finished",
            Self::Refused { .. } => "refused",
        }
    }
}

/// The end of a measurement.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finished {
    /// The exit code; none if a signal ended it.
    pub(super) code: Option<i32>,
    /// The report as JSON, if there is one.
    pub(super) report: Option<String>,
    /// The interval log, if there is one.
    pub(super) log: Option<String>,
    /// The last of what it said on standard error.
    pub(super) errors: String,
}

/// A secret that both sides have.
#[derive(Clone)]
pub(super) struct Token(Vec<u8>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads a token; a line break at its end is not part of it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or its token is too short or too long.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let name = file.display();
        let content = std::fs::read(file).with_context(|| format!("cannot read the token in {name}"))?;
        let token = content.trim_ascii_end();
        if !TOKEN_LENGTHS.contains(&token.len()) {
            bail!(
                "the token in {name} has {} octets; it must have {} to {}, such as `openssl rand -hex 32` makes",
                token.len(),
                TOKEN_LENGTHS.start(),
                TOKEN_LENGTHS.end()
            );
        }
        Ok(Self(token.to_vec()))
    }

    /// Returns the proof of having it, for one connection.
    fn proof(&self, nonce: &str) -> String {
        let hash = Sha256::new().chain_update(nonce).chain_update(&self.0).finalize();
        hex(&hash)
    }

    /// Returns whether `proof` is that of this token. It takes as long whichever octet differs.
    fn is_proved_by(&self, nonce: &str, proof: &str) -> bool {
        let expected = self.proof(nonce);
        expected.len() == proof.len()
            && expected
                .bytes()
                .zip(proof.bytes())
                .fold(0, |sum, (one, other)| sum | (one ^ other))
                == 0
    }
}

/// A control connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// Octets of a message that is received, at most.
    max_length: u32,
}

impl Connection {
    fn new(stream: TcpStream) -> anyhow::Result<Self> {
        stream
            .set_nodelay(true)
            .context("cannot set up the control connection")?;
        stream
            .set_write_timeout(Some(TIMEOUT))
            .context("cannot set up the control connection")?;
        Ok(Self {
            stream,
            max_length: MAX_GREETING,
        })
    }

    /// Returns the connection of an agent, once the other side has proved that it has the token.
    ///
    /// # Errors
    ///
    /// It has not, or is of another version.
    pub(super) fn greet(stream: TcpStream, token: &Token) -> anyhow::Result<Self> {
        let mut connection = Self::new(stream)?;
        let nonce = nonce()?;
        connection.send(&Greeting {
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
            nonce: nonce.clone(),
        })?;
        let proof: Proof = connection.receive()?;
        let reason = if (proof.protocol, &proof.version[..]) != (PROTOCOL, VERSION) {
            format!(
                "this agent is tidegate-bench {VERSION}, and it was asked by {:?}",
                proof.version
            )
        } else if token.is_proved_by(&nonce, &proof.proof) {
            connection.send(&Reply::Welcome)?;
            connection.max_length = MAX_REQUEST;
            return Ok(connection);
        } else {
            "the token is another one than the agent's".to_owned()
        };
        let refusal = Reply::Refused {
            reason: reason.clone(),
            is_usage: false,
        };
        connection.send(&refusal)?;
        Err(anyhow!(reason))
    }

    /// Returns the connection to an agent that has accepted the token.
    ///
    /// # Errors
    ///
    /// It has not, or is of another version.
    pub(super) fn introduce(stream: TcpStream, token: &Token) -> anyhow::Result<Self> {
        let mut connection = Self::new(stream)?;
        let greeting: Greeting = connection
            .receive()
            .context("it does not answer as an agent does, or is busy with another measurement")?;
        if (greeting.protocol, &greeting.version[..]) != (PROTOCOL, VERSION) {
            bail!(
                "it is tidegate-bench {:?}, and this is {VERSION:?}; both must be the same",
                greeting.version
            );
        }
        connection.send(&Proof {
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
            proof: token.proof(&greeting.nonce),
        })?;
        connection.max_length = MAX_REPLY;
        match connection.receive()? {
            Reply::Welcome => Ok(connection),
            Reply::Refused { reason, .. } => bail!(printable(&reason)),
            other => bail!("it answers the token by `{}`", other.name()),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// The other side is gone.
    pub(super) fn send(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let content = serde_json::to_vec(message).context("a message cannot be written as JSON")?;
        let length = u32::try_from(content.len()).context("a message is too long")?;
        let mut octets = length.to_be_bytes().to_vec();
        octets.extend(content);
        self.stream
            .write_all(&octets)
            .context("the control connection is broken")
    }

    /// Waits for a message.
    ///
    /// # Errors
    ///
    /// There is none in time, it is too long or not one that is expected, or the other side is gone.
    pub(super) fn receive<M: DeserializeOwned>(&mut self) -> anyhow::Result<M> {
        // For the whole message: octets that come one at a time keep nobody longer.
        let deadline = Instant::now() + TIMEOUT;
        let mut length = [0; 4];
        self.fill(&mut length, deadline)?;
        let length = u32::from_be_bytes(length);
        if length > self.max_length {
            bail!("a message of {length} octets; at most {} are accepted", self.max_length);
        }
        let mut content = vec![0; length as usize];
        self.fill(&mut content, deadline)?;
        serde_json::from_slice(&content)
            .map_err(|error| anyhow!("a message cannot be understood: {}", printable(&error.to_string())))
    }

    fn fill(&mut self, buffer: &mut [u8], deadline: Instant) -> anyhow::Result<()> {
        let late = || {
            anyhow!(
                "no whole message came over the control connection in {} s",
                TIMEOUT.as_secs()
            )
        };
        let mut filled = 0;
        while filled < buffer.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late());
            }
            self.stream
                .set_read_timeout(Some(left))
                .context("cannot set up the control connection")?;
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => bail!("the control connection was closed"),
                Ok(count) => filled += count,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Err(late()),
                    _ => return Err(error).context("the control connection is broken"),
                },
            }
        }
        Ok(())
    }
}

/// Returns a number that nobody can foresee.
fn nonce() -> anyhow::Result<String> {
    let mut octets = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut octets))
        .context("cannot read random numbers from /dev/urandom")?;
    Ok(hex(&octets))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn token(text: &str) -> Token {
        Token(text.as_bytes().to_vec())
    }

    /// Both ends of a connection.
    fn streams() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn both_sides_need_the_same_token() {
        for (own, right) in [("one token of many", true), ("another one of them", false)] {
            let (client, server) = streams();
            let agent = thread::spawn(move || Connection::greet(server, &token("one token of many")));
            let asked = Connection::introduce(client, &token(own));
            assert_eq!(agent.join().unwrap().is_ok(), right);
            match asked {
                Ok(_) => assert!(right),
                Err(error) => assert!(
                    !right && error.to_string().contains("another one than the agent's"),
                    "{error}"
                ),
            }
        }
    }

    #[test]
    fn another_version_is_told_to_both() {
        let (client, server) = streams();
        let asker = thread::spawn(move || {
            let mut connection = Connection::new(client).unwrap();
            let _: Greeting = connection.receive().unwrap();
            let proof = Proof {
                protocol: PROTOCOL,
                version: "99.0.0".to_owned(),
                proof: String::new(),
            };
            connection.send(&proof).unwrap();
            connection.receive::<Reply>().unwrap()
        });
        let error = Connection::greet(server, &token("one token of many"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("asked by \"99.0.0\""), "{error}");
        assert!(matches!(asker.join().unwrap(), Reply::Refused { reason, .. } if reason == error));

        let (client, server) = streams();
        let mut agent = Connection::new(server).unwrap();
        let greeting = Greeting {
            protocol: PROTOCOL + 1,
            version: "99.0.0".to_owned(),
            nonce: String::new(),
        };
        agent.send(&greeting).unwrap();
        let error = Connection::introduce(client, &token("one token of many"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("it is tidegate-bench \"99.0.0\""), "{error}");
    }

    #[test]
    fn messages_have_a_limit_and_must_be_understood() {
        let receive = |octets: &[u8]| {
            let (mut client, server) = streams();
            client.write_all(octets).unwrap();
            drop(client);
            Connection::new(server).unwrap().receive::<Request>()
        };
        let message = br#"{"start":5}"#;
        assert_eq!(
            receive(&[&[0, 0, 0, 11], &message[..]].concat()).unwrap(),
            Request::Start(5)
        );
        for (octets, phrase) in [
            (&[0, 0, 16, 1][..], "at most 4096 are accepted"),
            (&[0xff; 4], "at most 4096 are accepted"),
            (&[0, 0, 0, 2, b'{', b'x'], "cannot be understood"),
            (b"\0\0\0\x08{\"\x7f\x1b\":1}", "cannot be understood"),
            (&[0, 0, 0, 9, b'{'], "was closed"),
            (&[], "was closed"),
        ] {
            let error = format!("{:#}", receive(octets).unwrap_err());
            assert!(error.contains(phrase), "{phrase}: {error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn a_token_has_a_least_length() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        assert_eq!(Token::read(&file).unwrap().0, b"0123456789abcdef");
        for wrong in ["0123456789abcde\n", "", &"x".repeat(1025)] {
            std::fs::write(&file, wrong).unwrap();
            let error = Token::read(&file).unwrap_err().to_string();
            assert!(error.contains("16 to 1024"), "{error}");
        }
        assert!(Token::read(&directory.path().join("none")).is_err());
    }
}
