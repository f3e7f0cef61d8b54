//! The errors of a client, counted by kind.

use std::fmt::Display;
use std::io;

/// The kind of an error of a connection or a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server answered the SYN with RST.
    Refused,
    /// There is no way to the server: no route, or ICMP said so.
    Unreachable,
    /// All source ports towards the server are in use.
    NoPort,
    /// No connection came about for another reason.
    Connect,
    /// The server sent RST on an established connection.
    Reset,
    /// Nothing came back in time.
    TimedOut,
    /// The connection broke for another reason.
    Broken,
    /// The server sent FIN before the response was complete, or on a connection that was to stay open.
    ClosedEarly,
    /// The bytes that came are no HTTP response, or were not asked for.
    Malformed,
    /// The status is 4xx or 5xx, or 3xx where bodies are verified.
    Status,
    /// The body is of another length than that of the first response.
    Length,
    /// The body is not the one that was expected.
    Content,
    /// There was no complete response when the run was over.
    Unfinished,
}

impl Kind {
    /// All kinds, in the order of their index.
    pub const ALL: [Self; 13] = [
        Self::Refused,
        Self::Unreachable,
        Self::NoPort,
        Self::Connect,
        Self::Reset,
        Self::TimedOut,
        Self::Broken,
        Self::ClosedEarly,
        Self::Malformed,
        Self::Status,
        Self::Length,
        Self::Content,
        Self::Unfinished,
    ];

    /// The name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::NoPort => "no_port",
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Broken => "broken",
            Self::ClosedEarly => "closed_early",
            Self::Malformed => "malformed",
            Self::Status => "status",
            Self::Length => "length",
            Self::Content => "content",
            Self::Unfinished => "unfinished",
        }
    }

    /// Returns the kind of an error of a socket; `otherwise` if it is none of those with a kind of their own.
    pub fn of(error: &io::Error, otherwise: Self) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::AddrNotAvailable => Self::NoPort,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => otherwise,
        }
    }
}

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For counting.
    pub(crate) kind: Kind,
    /// For reading: a phrase that says what was seen.
    pub(crate) detail: String,
}

impl Failure {
    /// A failure seen as `detail`.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    /// The failure that `error` of a socket is; of the kind `otherwise` if [`Kind::of`] finds no better one.
    pub(crate) fn of(error: &io::Error, otherwise: Kind) -> Self {
        let kind = Kind::of(error, otherwise);
        if kind == Kind::NoPort {
            let detail = "no source port towards the server is free; see net.ipv4.ip_local_port_range, and for \
                          connections in TIME-WAIT net.ipv4.tcp_tw_reuse";
            return Self::new(kind, detail);
        }
        Self::new(kind, error.to_string())
    }
}

/// The number of errors of each kind, and the first one.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    counts: [u64; Kind::ALL.len()],
    first: Option<String>,
}

impl Errors {
    /// Counts one. `detail`, a phrase that says what was seen, is looked at only if it is the first.
    pub fn add(&mut self, kind: Kind, detail: impl Display) {
        self.counts[kind as usize] += 1;
        if self.first.is_none() {
            self.first = Some(detail.to_string());
        }
    }

    /// Counts as many of each kind, in the order of [`Kind::ALL`]; nothing is known of the first.
    pub(crate) fn add_counts(&mut self, counts: &[u64; Kind::ALL.len()]) {
        for (count, more) in self.counts.iter_mut().zip(counts) {
            *count += more;
        }
    }

    /// Errors of all kinds together.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Errors of `kind`.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts[kind as usize]
    }

    /// The kinds there were errors of, by name, with how many.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Kind::ALL
            .iter()
            .map(|&kind| (kind.name(), self.counts[kind as usize]))
            .filter(|&(_, count)| count > 0)
    }

    /// Returns the first error, as a phrase.
    pub fn first(&self) -> Option<&str> {
        self.first.as_deref()
    }

    /// Adds those of another run. The first stays the first.
    pub fn merge(&mut self, other: &Self) {
        self.add_counts(&other.counts);
        if self.first.is_none() {
            self.first.clone_from(&other.first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_kind_is_its_place() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{}", kind.name());
        }
    }

    #[test]
    fn errors_are_counted_by_kind_and_the_first_is_kept() {
        let mut errors = Errors::default();
        assert_eq!((errors.total(), errors.first()), (0, None));
        errors.add(Kind::Reset, "first");
        errors.add(Kind::Refused, "second");
        errors.add(Kind::Reset, "third");
        assert_eq!((errors.total(), errors.count(Kind::Reset)), (3, 2));
        assert_eq!(errors.first(), Some("first"));
        assert_eq!(errors.iter().collect::<Vec<_>>(), [("refused", 1), ("reset", 2)]);
    }

    #[test]
    fn merging_adds_the_counts() {
        let mut one = Errors::default();
        let mut other = Errors::default();
        other.add(Kind::Status, "the status is 404");
        one.merge(&other);
        one.merge(&other);
        assert_eq!(one.iter().collect::<Vec<_>>(), [("status", 2)]);
        assert_eq!(one.first(), Some("the status is 404"));
    }

    #[test]
    fn what_the_kernel_says_has_a_kind() {
        for (errno, kind) in [
            (libc::ECONNREFUSED, Kind::Refused),
            (libc::EHOSTUNREACH, Kind::Unreachable),
            (libc::ENETUNREACH, Kind::Unreachable),
            (libc::EADDRNOTAVAIL, Kind::NoPort),
            (libc::ECONNRESET, Kind::Reset),
            (libc::EPIPE, Kind::Reset),
            (libc::ETIMEDOUT, Kind::TimedOut),
            (libc::EMFILE, Kind::Connect),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(Kind::of(&error, Kind::Connect), kind, "{error}");
        }
    }
}
