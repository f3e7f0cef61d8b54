//! Requests and replies.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::connections::{ConnectionFilter, Sort};

/// The longest line of a request, in octets, its end included.
pub const MAX_LINE: u64 = 65_536;

/// A request, named by its field `command`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Tell version, process, interfaces and state; the reply is an [`Info`].
    Info,
    /// Refuse new connections, finish the open ones, and stay. The reply, `null`, comes when that has begun.
    Drain,
    /// Read the configuration file again, and serve by it; the reply is `null`.
    Reload,
    /// Open the access log anew; the reply is `null`.
    Reopen,
    /// Connections; the reply is [`Connections`](crate::Connections).
    Conns {
        /// The connections that are meant.
        #[serde(default)]
        filter: ConnectionFilter,
        /// The order; without it the first that are found are listed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sort: Option<Sort>,
        /// Connections to list, 0 to [`MAX_LISTED`](crate::MAX_LISTED); without it 100.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    /// Reset connections; the reply is [`Killed`](crate::Killed).
    Kill {
        /// The connections that are meant; an empty filter is refused unless `all` is true.
        #[serde(default)]
        filter: ConnectionFilter,
        /// All of them.
        #[serde(default)]
        all: bool,
    },
    /// All counters; the reply is [`Counters`](crate::Counters).
    Counters,
    /// Send the data of `tidegate ctl top`, a [`Top`](crate::Top), every interval until the client leaves.
    Top {
        /// The interval in milliseconds, 100 to 60,000.
        #[serde(default = "second")]
        interval_ms: u64,
    },
    /// Answer SYNs with cookies, or not, until the next such command; the reply is `null`.
    Cookies {
        /// When.
        mode: CookieMode,
    },
    /// Log what this filter lets through, until the next such command; the reply is `null`.
    LogLevel {
        /// A level such as `info`, or a filter such as `warn,tidegate_runtime=debug`.
        filter: String,
    },
    /// Copy frames. The reply is `null`, and pcapng follows until the connection ends, which the client has it do by
    /// ending its own side.
    Capture {
        /// The frames, as an expression of the subset of tcpdump's that the server knows; empty: all.
        #[serde(default)]
        filter: String,
        /// Octets of each frame.
        snaplen: u32,
        /// Ends it after as many frames.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
        /// Ends it after as many milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
    },
    /// Tell segments and changes of connections in words. The reply is `null`, then a text for each line, and at the
    /// end `null` again; it ends when the client ends its side, too.
    Trace {
        /// Whose: an address, a prefix, or an address and port.
        peer: String,
        /// Ends it after as many milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
    },
}

fn second() -> u64 {
    1000
}

/// The mode by which SYNs are answered with cookies.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum CookieMode {
    /// Always.
    On,
    /// Never.
    Off,
    /// While a queue is under pressure.
    Auto,
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

/// Facts of a running server.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Info {
    /// The version of the program.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// The interfaces it was given.
    pub interfaces: Vec<String>,
    /// Its state.
    pub state: State,
    /// Another file is at the path of the program it was started from, as after an upgrade.
    /// `None`: the server is of a version that does not tell.
    #[serde(default)]
    pub replaced: Option<bool>,
    /// The time after which the service manager's watchdog ends it when it tells nothing, in microseconds
    /// (`WATCHDOG_USEC`, sd_notify(3)).
    #[serde(default)]
    pub watchdog_usec: Option<u64>,
}

/// The state of a server.
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
            (r#"{"command":"reopen"}"#, Request::Reopen),
            (r#"{"command":"reload"}"#, Request::Reload),
            (r#"{"command":"counters"}"#, Request::Counters),
            (
                r#"{"command":"conns","filter":{"states":["ESTABLISHED"]},"sort":"rtt","limit":5}"#,
                Request::Conns {
                    filter: ConnectionFilter {
                        states: vec!["ESTABLISHED".to_owned()],
                        ..ConnectionFilter::default()
                    },
                    sort: Some(Sort::Rtt),
                    limit: Some(5),
                },
            ),
            (
                r#"{"command":"kill","filter":{"peer":"198.18.0.2","listener":"198.18.0.1:80"},"all":false}"#,
                Request::Kill {
                    filter: ConnectionFilter {
                        peer: Some("198.18.0.2".to_owned()),
                        listener: Some(([198, 18, 0, 1], 80).into()),
                        ..ConnectionFilter::default()
                    },
                    all: false,
                },
            ),
            (
                r#"{"command":"top","interval_ms":1000}"#,
                Request::Top { interval_ms: 1000 },
            ),
            (
                r#"{"command":"cookies","mode":"on"}"#,
                Request::Cookies { mode: CookieMode::On },
            ),
            (
                r#"{"command":"capture","filter":"port 80","snaplen":96,"count":5}"#,
                Request::Capture {
                    filter: "port 80".to_owned(),
                    snaplen: 96,
                    count: Some(5),
                    duration_ms: None,
                },
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
        assert_eq!(
            serde_json::to_string(&Reply::Ok(Value::Null)).unwrap(),
            r#"{"ok":null}"#
        );
        let error = Reply::Error("no".to_owned());
        // What may be left out.
        for (text, request) in [
            (
                r#"{"command":"conns"}"#,
                Request::Conns {
                    filter: ConnectionFilter::default(),
                    sort: None,
                    limit: None,
                },
            ),
            (r#"{"command":"top"}"#, Request::Top { interval_ms: 1000 }),
        ] {
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
        assert_eq!(serde_json::to_string(&error).unwrap(), r#"{"error":"no"}"#);
    }

    #[test]
    fn other_requests_are_refused_by_name() {
        for (text, phrase) in [
            (r#"{"command":"explode"}"#, "unknown variant `explode`"),
            (r#"{}"#, "command"),
            (r#"{"command":"kill","filter":{"port":80}}"#, "port"),
        ] {
            let error = serde_json::from_str::<Request>(text).unwrap_err().to_string();
            assert!(error.contains(phrase), "{error}");
        }
    }
}
