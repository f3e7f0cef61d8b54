//! A request as a command line describes it: method, fields and body.

use std::str::FromStr;

use crate::url::Url;
use crate::usage::UsageError;

/// The length of a method at most, in bytes.
const MAX_METHOD: usize = 32;

/// Fields of a request at most.
pub const MAX_FIELDS: usize = 100;

/// The length of a field at most, in bytes.
const MAX_FIELD: usize = 8 << 10;

/// The length of a body at most, in bytes.
pub const MAX_BODY: usize = 256 << 10;

/// The fields that say where the request ends, which the client sets by itself.
const FRAMING: [&str; 2] = ["Content-Length", "Transfer-Encoding"];

/// A method (RFC 9110, section 9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(String);

/// A field of the head (RFC 9110, section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    name: String,
    value: Vec<u8>,
}

/// The content of a request, as it was given or from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body(Vec<u8>);

/// A request. By default it is a GET.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The method; without one it is POST if there is a body, else GET.
    pub method: Option<Method>,
    /// Fields that are added to those every request has, or take their place (Host, User-Agent, Connection).
    pub fields: Vec<Field>,
    /// The body.
    pub body: Option<Body>,
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_METHOD || !text.bytes().all(is_token) {
            return Err(format!(
                "a method is a token of 1 to {MAX_METHOD} characters, such as GET or POST"
            ));
        }
        if text == "CONNECT" {
            return Err("CONNECT makes a tunnel, which is not supported".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, value)) = text.split_once(':') else {
            return Err("there is no colon; write 'Name: value'".to_owned());
        };
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!(
                "`{name}` is not a field name of letters, digits and hyphens; write 'Name: value'"
            ));
        }
        if let Some(framing) = FRAMING.iter().find(|framing| framing.eq_ignore_ascii_case(name)) {
            return Err(format!("{framing} is set by the client, from the body"));
        }
        let value = value.trim_matches([' ', '\t']);
        if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(format!(
                "the value of {name} has a line break or another control character"
            ));
        }
        if text.len() > MAX_FIELD {
            return Err(format!("{name} is longer than {MAX_FIELD} bytes"));
        }
        Ok(Self {
            name: name.to_owned(),
            value: value.as_bytes().to_owned(),
        })
    }
}

impl FromStr for Body {
    type Err = String;

    /// The text itself, or with an `@` before it the content of the file of that name.
    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = match text.strip_prefix('@') {
            Some(file) => read(file).map_err(|error| format!("cannot read the file `{file}`: {error}"))?,
            None => text.as_bytes().to_owned(),
        };
        if bytes.len() > MAX_BODY {
            return Err(format!("it has more than {MAX_BODY} bytes"));
        }
        Ok(Self(bytes))
    }
}

/// Reads a file, and not much more of it than a body may have.
fn read(file: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read;

    let mut bytes = Vec::new();
    std::fs::File::open(file)?
        .take(MAX_BODY as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Request {
    /// Returns the method.
    pub fn method(&self) -> &str {
        match &self.method {
            Some(Method(method)) => method,
            None if self.body.is_some() => "POST",
            None => "GET",
        }
    }

    /// Returns the number of bytes of the body, which is 0 without one.
    pub fn body_length(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.0.len())
    }

    /// Checks that the fields go together. With `keep_alive` false, the client has to set Connection itself.
    ///
    /// # Errors
    ///
    /// There are too many, two Host fields, or a Connection field where the client needs it.
    pub fn check(&self, keep_alive: bool) -> Result<(), UsageError> {
        let count = |name: &str| self.fields.iter().filter(|field| field.is(name)).count();
        if self.fields.len() > MAX_FIELDS {
            return Err(UsageError(format!("more than {MAX_FIELDS} header fields")));
        }
        if count("Host") > 1 {
            return Err(UsageError("more than one Host field".to_owned()));
        }
        if !keep_alive && count("Connection") > 0 {
            let text = "the server is to close connections, so the client sets Connection itself; leave it out";
            return Err(UsageError(text.to_owned()));
        }
        Ok(())
    }

    /// Returns the request for `url` as it is sent. With `keep_alive` false it asks the server to close the connection
    /// after the response.
    pub fn to_bytes(&self, url: &Url, keep_alive: bool) -> Vec<u8> {
        let method = self.method();
        let mut bytes = format!("{method} {} HTTP/1.1\r\n", url.path).into_bytes();
        let mut add = |name: &str, value: &[u8]| {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        };
        let given = |name: &str| self.fields.iter().find(|field| field.is(name));
        // Host is the first by good practice (RFC 9110, section 7.2).
        let host = given("Host").map_or(url.authority().as_bytes(), |field| &field.value);
        add("Host", host);
        if given("User-Agent").is_none() {
            add("User-Agent", b"tidegate-bench");
        }
        for field in self.fields.iter().filter(|field| !field.is("Host")) {
            add(&field.name, &field.value);
        }
        if !keep_alive {
            add("Connection", b"close");
        }
        // Without a body some methods say so (RFC 9110, section 8.6).
        if self.body.is_some() || matches!(method, "POST" | "PUT" | "PATCH") {
            add("Content-Length", self.body_length().to_string().as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        if let Some(Body(body)) = &self.body {
            bytes.extend_from_slice(body);
        }
        bytes
    }
}

impl Field {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Whether a byte may be part of a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(request: &Request, keep_alive: bool) -> String {
        let url = "http://198.18.0.1:8080/x?y".parse().unwrap();
        String::from_utf8(request.to_bytes(&url, keep_alive)).unwrap()
    }

    fn fields(texts: &[&str]) -> Vec<Field> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn by_default_it_is_a_get() {
        assert_eq!(
            text(&Request::default(), true),
            "GET /x?y HTTP/1.1\r\nHost: 198.18.0.1:8080\r\nUser-Agent: tidegate-bench\r\n\r\n"
        );
        assert!(text(&Request::default(), false).ends_with("tidegate-bench\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn a_body_makes_it_a_post_with_its_length() {
        let mut request = Request {
            body: Some("hello".parse().unwrap()),
            ..Request::default()
        };
        let sent = text(&request, true);
        assert!(
            sent.starts_with("POST /x?y ") && sent.ends_with("\r\nContent-Length: 5\r\n\r\nhello"),
            "{sent}"
        );
        request.method = Some("PUT".parse().unwrap());
        request.body = None;
        let sent = text(&request, true);
        assert!(
            sent.starts_with("PUT ") && sent.ends_with("\r\nContent-Length: 0\r\n\r\n"),
            "{sent}"
        );
        request.method = Some("HEAD".parse().unwrap());
        assert!(!text(&request, true).contains("Content-Length"));
    }

    #[test]
    fn fields_are_added_or_take_the_place_of_the_clients_own() {
        let request = Request {
            fields: fields(&[
                "X-A:1",
                "host:  a.example ",
                "User-Agent: other",
                "X-A: \u{fc} 2",
                "X-Empty:",
            ]),
            ..Request::default()
        };
        assert_eq!(
            text(&request, true),
            "GET /x?y HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\nUser-Agent: other\r\nX-A: \u{fc} 2\r\nX-Empty: \r\n\r\n"
        );
    }

    #[test]
    fn a_body_may_come_from_a_file_of_bounded_length() {
        let file = std::env::temp_dir().join(format!("tidegate-args-body-{}", std::process::id()));
        let name = format!("@{}", file.display());
        std::fs::write(&file, vec![0xff; MAX_BODY]).unwrap();
        let longest = name.parse::<Body>();
        std::fs::write(&file, vec![0xff; MAX_BODY + 1]).unwrap();
        let longer = name.parse::<Body>();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(longest, Ok(Body(vec![0xff; MAX_BODY])));
        assert!(longer.unwrap_err().contains("more than 262144 bytes"));
        assert!(name.parse::<Body>().unwrap_err().contains("cannot read the file"));
        assert!("x".repeat(MAX_BODY + 1).parse::<Body>().is_err());
        assert_eq!("".parse(), Ok(Body(Vec::new())));
    }

    #[test]
    fn what_would_be_no_request_is_refused() {
        for method in ["", "G T", "GET\r\n", "G\u{e9}T", "CONNECT", &"G".repeat(MAX_METHOD + 1)] {
            assert!(method.parse::<Method>().is_err(), "{method:?}");
        }
        for field in [
            "no colon",
            ": x",
            "A B: x",
            "X: a\r\nY: b",
            "X: a\0",
            "content-length: 5",
            "Transfer-Encoding: chunked",
            &format!("X: {}", "x".repeat(MAX_FIELD)),
        ] {
            assert!(field.parse::<Field>().is_err(), "{field:?}");
        }
    }

    #[test]
    fn fields_have_to_go_together() {
        let check = |texts: &[&str], keep_alive| {
            let request = Request {
                fields: fields(texts),
                ..Request::default()
            };
            request.check(keep_alive)
        };
        assert!(check(&["Host: a", "Connection: close"], true).is_ok());
        for (texts, keep_alive, why) in [
            (&["Host: a", "host: b"][..], true, "more than one Host"),
            (&["connection: x"], false, "Connection itself"),
            (&["X: y"; MAX_FIELDS + 1], true, "more than 100"),
        ] {
            let error = check(texts, keep_alive).unwrap_err().0;
            assert!(error.contains(why), "{error}");
        }
    }
}
