//! Requests and replies.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest line of a request, in octets, its end included.
pub const MAX_LINE: u64 = 65_536;

/// A request, named by its field `command`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What runs; the reply is an [`Info`].
    Info,
    /// Refuse new connections, finish the open ones, and stay. The reply, `null`, comes when that has begun.
    Drain,
}

/// The answer to a request.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The request was met; the value depends on the command.
    Ok(Value),
    /// It was not; a sentence says why.
    Error(String),
}

/// What a server is and does.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Info {
    /// The version of the program.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// The interfaces it was given.
    pub interfaces: Vec<String>,
    /// What it does.
    pub state: State,
}

/// What a server does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It accepts connections.
    Serving,
    /// It finishes the open ones, and accepts no others.
    Draining,
    /// It waits for its interfaces to come back.
    Waiting,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_are_written_as_documented() {
        for (text, request) in [
            (r#"{"command":"info"}"#, Request::Info),
            (r#"{"command":"drain"}"#, Request::Drain),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
        assert_eq!(
            serde_json::to_string(&Reply::Ok(Value::Null)).unwrap(),
            r#"{"ok":null}"#
        );
        let error = Reply::Error("no".to_owned());
        assert_eq!(serde_json::to_string(&error).unwrap(), r#"{"error":"no"}"#);
    }

    #[test]
    fn other_requests_are_refused_by_name() {
        for (text, phrase) in [
            (r#"{"command":"explode"}"#, "unknown variant `explode`"),
            (r#"{}"#, "command"),
        ] {
            let error = serde_json::from_str::<Request>(text).unwrap_err().to_string();
            assert!(error.contains(phrase), "{error}");
        }
    }
}
