//! The client's side.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::protocol::{Reply, Request};

/// The reason why a request was not met.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be connected to.
    #[error("cannot connect to {path}: {source}{}", remedy(.source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the server broke: {0}")]
    Broken(#[from] io::Error),
    /// The server answered something else than this protocol has.
    #[error("the server answered with something unknown, perhaps of another version: {0}")]
    Unknown(#[from] serde_json::Error),
    /// The server refused.
    #[error("{0}")]
    Refused(String),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "; is `tidegate serve --control PATH` running, with this path?"
        }
        io::ErrorKind::PermissionDenied => "; it is for its owner and root alone",
        _ => "",
    }
}

/// A connection to the control socket.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`].
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(path).map_err(|source| Error::Connect {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends `request` and waits for its reply.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the server's sentence, or the connection broke.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Error> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        self.reply()
    }

    /// Waits for the next reply of a request that has several.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn reply<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match serde_json::from_str(&line)? {
            Reply::Ok(value) => Ok(serde_json::from_value(value)?),
            Reply::Error(sentence) => Err(Error::Refused(sentence)),
        }
    }

    /// Ends this side, from another thread, so that the server ends a command that goes on.
    ///
    /// # Errors
    ///
    /// The process has no descriptor left.
    pub fn end(&self) -> io::Result<End> {
        self.stream.get_ref().try_clone().map(End)
    }

    /// The octets that follow the reply of a request that is answered by more than lines, until their end.
    pub fn into_octets(self) -> impl Read {
        self.stream
    }
}

/// The end of a client's side.
#[derive(Debug)]
pub struct End(UnixStream);

impl End {
    /// Sends no more requests. What the server still has to say can be read.
    pub fn end(&self) {
        // Of a connection that is gone there is nothing to end.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn what_the_server_answers_is_what_a_call_returns() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut lines = String::new();
            for reply in ["{\"ok\":7}\n", "{\"error\":\"not now\"}\n", "{\"ok\":null}\n\n\0raw"] {
                stream.read_line(&mut lines).unwrap();
                stream.get_mut().write_all(reply.as_bytes()).unwrap();
            }
            lines
        });
        let mut client = Client::connect(&path).unwrap();
        assert_eq!(client.call::<u32>(&Request::Info).unwrap(), 7);
        let error = client.call::<u32>(&Request::Drain).unwrap_err();
        assert_eq!(error.to_string(), "not now");
        client.call::<()>(&Request::Info).unwrap();
        let mut octets = Vec::new();
        client.into_octets().read_to_end(&mut octets).unwrap();
        assert_eq!(octets, b"\n\0raw");
        let lines = server.join().unwrap();
        assert_eq!(lines.lines().nth(1), Some(r#"{"command":"drain"}"#));
    }

    #[test]
    fn nobody_at_the_socket_is_told_with_a_remedy() {
        let error = Client::connect(Path::new("/nonexistent/control"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/control") && error.contains("--control"),
            "{error}"
        );
    }
}
