//! The service as a client sees it: bytes in, bytes out.

mod access;
mod bodies;
mod descriptors;
mod errors;
mod files;
mod flow;
mod persistence;
mod prepared;
mod robustness;

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{Config, Http};
use crate::testing::{Driver, MockStream};

/// One response, as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reply {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    /// The value of a field that occurs at most once.
    fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let first = values.next();
        assert!(values.next().is_none(), "{name} occurs twice");
        first.map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Reads one response from the front of `bytes`; `head_only` after a HEAD request.
fn read_reply(bytes: &[u8], head_only: bool) -> (Reply, usize) {
    let mut storage = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut storage);
    let httparse::Status::Complete(head) = response.parse(bytes).unwrap() else {
        panic!("unfinished response: {:?}", String::from_utf8_lossy(bytes));
    };
    assert_eq!(response.version, Some(1));
    let status = response.code.unwrap();
    let fields: Vec<_> = response
        .headers
        .iter()
        .map(|field| (field.name.to_owned(), String::from_utf8(field.value.to_vec()).unwrap()))
        .collect();
    let mut reply = Reply {
        status,
        fields,
        body: Vec::new(),
    };
    if head_only || status == 304 || status < 200 {
        return (reply, head);
    }
    let length: usize = reply.field("Content-Length").unwrap().parse().unwrap();
    reply.body = bytes[head..head + length].to_vec();
    (reply, head + length)
}

/// All responses in `bytes`, none of them to a HEAD request.
fn read_replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let (reply, length) = read_reply(bytes, false);
        replies.push(reply);
        bytes = &bytes[length..];
    }
    replies
}

/// A service without a root, with a changed configuration.
fn built_in(change: impl FnOnce(&mut Config)) -> Driver<Http> {
    let mut config = Config::default();
    change(&mut config);
    Driver::new(Http::new(config).unwrap())
}

/// Feeds `bytes` and reads the responses to it.
fn exchange(driver: &mut Driver<Http>, bytes: &[u8]) -> Vec<Reply> {
    driver.feed(bytes);
    driver.acknowledge_all();
    read_replies(&driver.take_sent())
}

/// Feeds `bytes` and reads the one response to it.
fn one(driver: &mut Driver<Http>, bytes: &[u8]) -> Reply {
    let mut replies = exchange(driver, bytes);
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0)
}

/// A GET request.
fn get_request(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

/// A directory with files and a service for it.
struct Site {
    directory: TempDir,
    config: Config,
    driver: Driver<Http>,
}

const LARGE: usize = 300_000;

/// Content in which every position is recognisable.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect()
}

impl Site {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let www = directory.path().join("www");
        fs::create_dir_all(www.join("docs")).unwrap();
        fs::create_dir_all(www.join("empty dir")).unwrap();
        fs::write(directory.path().join("secret.txt"), "secret").unwrap();
        fs::write(www.join("index.html"), "the index").unwrap();
        fs::write(www.join("hello.txt"), "hello, world\n").unwrap();
        fs::write(www.join("nothing"), "").unwrap();
        fs::write(www.join("docs/index.html"), "the docs").unwrap();
        fs::write(www.join("docs/a b.txt"), "a blank").unwrap();
        fs::write(www.join("large.bin"), pattern(LARGE)).unwrap();
        let mut config = Config {
            root: Some(www),
            ..Config::default()
        };
        change(&mut config);
        let driver = Driver::new(Http::new(config.clone()).unwrap());
        Self {
            directory,
            config,
            driver,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("www").join(name)
    }

    /// A new connection, with a send buffer of `capacity` bytes, to a new service.
    fn connect(&self, capacity: usize) -> Driver<Http> {
        Driver::with_stream(Http::new(self.config.clone()).unwrap(), MockStream::new(capacity))
    }

    fn get(&mut self, target: &str) -> Reply {
        self.get_with(target, "")
    }

    fn get_with(&mut self, target: &str, fields: &str) -> Reply {
        one(&mut self.driver, &get_request(target, fields))
    }

    fn head(&mut self, target: &str, fields: &str) -> Reply {
        let request = format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        self.driver.feed(request.as_bytes());
        self.driver.acknowledge_all();
        let sent = self.driver.take_sent();
        let (reply, length) = read_reply(&sent, true);
        assert_eq!(length, sent.len(), "a response to HEAD has no content");
        reply
    }
}
