//! Arguments about the requests, and about the responses to them.

use std::time::Duration;

use tidegate_args::request::{Body, Field, Method, Request};
use tidegate_args::{UsageError, byte_size};
use tidegate_load::HttpOptions;

/// Above these arguments in the help.
const HEADING: &str = "Options of requests and responses";

/// Limits of the head of a response, in bytes.
const MIN_HEAD: u64 = 1 << 10;
const MAX_HEAD: u64 = 1 << 20;

/// The shortest timeout. The longest is that of a measurement.
pub(super) const MIN_TIMEOUT: Duration = Duration::from_millis(1);

/// Arguments of everything that makes requests.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct RequestOptions {
    /// The method of the requests (default: GET, or POST with --body)
    #[arg(long, help_heading = HEADING)]
    method: Option<Method>,
    /// A header field of the requests, 'Name: value'; may be given up to 100 times. Host, User-Agent and Connection
    /// take the place of the client's own, Content-Length is set from the body.
    #[arg(long, value_name = "FIELD", help_heading = HEADING)]
    header: Vec<Field>,
    /// The body of the requests: the text, or the content of a file, at most 256 KiB.
    #[arg(long, value_name = "TEXT|@FILE", help_heading = HEADING)]
    body: Option<Body>,
    /// The longest head of a response, and of what describes chunks, 1KiB to 1MiB (default: 64KiB)
    #[arg(long, value_name = "SIZE", value_parser = parse_max_head, help_heading = HEADING)]
    max_head: Option<usize>,
}

fn parse_max_head(text: &str) -> Result<usize, String> {
    let bytes = byte_size::parse(text)?;
    if !(MIN_HEAD..=MAX_HEAD).contains(&bytes) {
        return Err("it must be at least 1KiB and at most 1MiB".to_owned());
    }
    usize::try_from(bytes).map_err(|_| "it is more than this machine can address".to_owned())
}

impl RequestOptions {
    /// Refuses the arguments that were given: no requests are made.
    ///
    /// # Errors
    ///
    /// There are some (a usage error).
    pub(super) fn refuse(&self) -> Result<(), UsageError> {
        let given = [
            (self.method.is_some(), "--method"),
            (!self.header.is_empty(), "--header"),
            (self.body.is_some(), "--body"),
            (self.max_head.is_some(), "--max-head"),
        ];
        refuse(&given)
    }

    /// Returns the options for the client, with its defaults for what was not given.
    pub(crate) fn http(&self, timeout: Option<Duration>, requests_per_connection: Option<u32>) -> HttpOptions {
        let defaults = HttpOptions::default();
        HttpOptions {
            request: Request {
                method: self.method.clone(),
                fields: self.header.clone(),
                body: self.body.clone(),
            },
            requests_per_connection,
            timeout: timeout.unwrap_or(defaults.timeout),
            max_head: self.max_head.unwrap_or(defaults.max_head),
        }
    }
}

/// Refuses the first of some arguments that was given, where no requests are made.
pub(super) fn refuse(given: &[(bool, &str)]) -> Result<(), UsageError> {
    match given.iter().find(|(is_given, _)| *is_given) {
        None => Ok(()),
        Some((_, name)) => Err(UsageError(format!(
            "{name} is for requests and their responses, and --direction up has none; leave it out"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: RequestOptions,
    }

    fn parse(arguments: &[&str]) -> Result<HttpOptions, clap::Error> {
        let line = Line::try_parse_from(["http"].iter().chain(arguments))?;
        Ok(line.options.http(None, None))
    }

    #[test]
    fn the_defaults_are_those_of_the_client() {
        assert_eq!(parse(&[]).unwrap(), HttpOptions::default());
        // As the help says.
        assert_eq!(HttpOptions::default().max_head, 64 << 10);
    }

    #[test]
    fn what_is_given_reaches_the_request() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from a file").unwrap();
        let name = format!("@{}", file.path().display());
        let url = "http://198.18.0.1/".parse().unwrap();
        for (body, content) in [("a=b", "a=b"), (&name, "from a file"), ("", "")] {
            let http = parse(&[
                "--header", "X: 1", "--method", "PUT", "--body", body, "--header", "Y: 2",
            ])
            .unwrap();
            let text = String::from_utf8(http.request.to_bytes(&url, true)).unwrap();
            let (begin, length) = ("PUT / HTTP/1.1\r\n", content.len());
            let end = format!("X: 1\r\nY: 2\r\nContent-Length: {length}\r\n\r\n{content}");
            assert!(text.starts_with(begin) && text.ends_with(&end), "{text}");
        }
        assert_eq!(parse(&["--max-head", "1MiB"]).unwrap().max_head, 1 << 20);
    }

    #[test]
    fn what_is_wrong_is_a_usage_error() {
        for arguments in [
            ["--method", "G T"],
            ["--method", "CONNECT"],
            ["--header", "X 1"],
            ["--header", "X: a\r\nY: b"],
            ["--header", "Content-Length: 1"],
            ["--body", "@/no/such/file"],
            ["--max-head", "1023"],
            ["--max-head", "2MiB"],
            ["--max-head", "x"],
        ] {
            let error = parse(&arguments).expect_err("wrong arguments");
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{arguments:?}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
