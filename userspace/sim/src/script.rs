//! The behaviour of an application on its connection, and what it learns: the same for every kind of host.

use core::fmt;
use core::time::Duration;

use bytes::Bytes;

/// The time an application begins to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As soon as the connection is open.
    AtOnce,
    /// After the peer has sent all it had: half-close, then the answer.
    AfterPeer,
}

/// The time an application closes its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// After it has sent all it had.
    AfterSending,
    /// After it has sent all it had and the peer has closed its side.
    AfterPeer,
}

/// A time in which an application does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// It begins after this many bytes.
    pub after: usize,
    /// Its length.
    pub lasts: Duration,
}

/// The behaviour of an application.
#[derive(Clone)]
pub struct Plan {
    /// The bytes it sends.
    pub data: Bytes,
    /// The bytes it has to receive.
    pub expected: Bytes,
    /// Bytes it writes at a time, above zero.
    pub write_size: usize,
    /// Time between its writes; zero: as fast as they are taken.
    pub write_interval: Duration,
    /// Bytes it reads at a time, above zero.
    pub read_size: usize,
    /// Time between its reads of `read_size`; zero: as fast as data comes.
    pub read_interval: Duration,
    /// The pauses in which it does not read, in the order of bytes.
    pub pauses: Vec<Pause>,
    /// The time it begins to send.
    pub start: Start,
    /// The time it closes.
    pub finish: Finish,
    /// Aborts the connection when it has sent and received this many bytes together.
    pub abort_after: Option<usize>,
}

impl Plan {
    /// Sends `data` and reads `expected` as fast as it can, and closes after sending.
    pub fn simple(data: Bytes, expected: Bytes) -> Self {
        Self {
            data,
            expected,
            write_size: usize::MAX,
            write_interval: Duration::ZERO,
            read_size: usize::MAX,
            read_interval: Duration::ZERO,
            pauses: Vec::new(),
            start: Start::AtOnce,
            finish: Finish::AfterSending,
            abort_after: None,
        }
    }
}

impl fmt::Debug for Plan {
    // The bytes themselves say nothing that their number does not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("data", &self.data.len())
            .field("expected", &self.expected.len())
            .field("write_size", &self.write_size)
            .field("write_interval", &self.write_interval)
            .field("read_size", &self.read_size)
            .field("read_interval", &self.read_interval)
            .field("pauses", &self.pauses)
            .field("start", &self.start)
            .field("finish", &self.finish)
            .field("abort_after", &self.abort_after)
            .finish()
    }
}

/// The end of a connection for one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both sides have closed and know it.
    Finished,
    /// The peer reset it.
    Reset,
    /// This side reset it, as planned.
    Aborted,
    /// This side gave up.
    TimedOut,
    /// This side cannot go on by a fault of its own, and the engine's in no case, since only hosts that are not the
    /// engine may end so: it has something to send and runs no timer for it, or has lost what it acknowledged.
    Stalled,
}

/// An application at work.
#[derive(Clone, Debug)]
pub struct Script {
    plan: Plan,
    opened: u32,
    closed: u32,
    ending: Option<Ending>,
    sent: usize,
    write_at: Duration,
    received: usize,
    read_at: Duration,
    pauses_taken: usize,
    wrong_at: Option<usize>,
    peer_ended: bool,
    shut: bool,
    aborting: bool,
}

impl Script {
    /// An application that will follow `plan`.
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            opened: 0,
            closed: 0,
            ending: None,
            sent: 0,
            write_at: Duration::ZERO,
            received: 0,
            read_at: Duration::ZERO,
            pauses_taken: 0,
            wrong_at: None,
            peer_ended: false,
            shut: false,
            aborting: false,
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The number of times a connection was opened.
    pub fn opened(&self) -> u32 {
        self.opened
    }

    /// The number of times a connection was closed.
    pub fn closed(&self) -> u32 {
        self.closed
    }

    /// The end of the connection; `None` while it lives.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Bytes received.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Bytes given to the connection for sending.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// The position in the stream of the first byte that was not the one expected there.
    pub fn wrong_at(&self) -> Option<usize> {
        self.wrong_at
    }

    /// Whether the end of the peer's stream was read.
    pub fn peer_ended(&self) -> bool {
        self.peer_ended
    }

    /// Whether this side has closed.
    pub fn is_shut(&self) -> bool {
        self.shut
    }

    /// Whether the connection is open and not ended.
    pub fn is_open(&self) -> bool {
        self.opened > self.closed
    }

    /// The connection is open.
    pub fn open(&mut self) {
        self.opened += 1;
    }

    /// The connection is no more.
    pub fn close(&mut self, ending: Ending) {
        self.closed += 1;
        self.ending = Some(ending);
    }

    /// Data can be read; returns how much of it was.
    pub fn read(&mut self, now: Duration, data: &[u8]) -> usize {
        if now < self.read_at || self.aborting {
            return 0;
        }
        let mut count = data.len().min(self.plan.read_size);
        let pause = self.plan.pauses.get(self.pauses_taken).copied();
        if let Some(pause) = pause {
            let before_pause = pause.after.saturating_sub(self.received);
            if count >= before_pause {
                count = before_pause;
                self.pauses_taken += 1;
                self.read_at = now + pause.lasts;
            }
        }
        if count == self.plan.read_size && self.read_at <= now {
            self.read_at = now + self.plan.read_interval;
        }
        self.compare(&data[..count]);
        self.received += count;
        count
    }

    fn compare(&mut self, data: &[u8]) {
        if self.wrong_at.is_some() {
            return;
        }
        let expected = self.plan.expected.get(self.received..).unwrap_or_default();
        if expected.get(..data.len()) != Some(data) {
            let right = data
                .iter()
                .zip(expected)
                .take_while(|(is, should)| is == should)
                .count();
            self.wrong_at = Some(self.received + right);
        }
    }

    /// The peer closed its side and everything before was read.
    pub fn end_of_stream(&mut self) {
        self.peer_ended = true;
    }

    /// The piece to be written next, where there is room for `space` bytes; [`Script::wrote`] says that it was.
    pub fn next_write(&self, now: Duration, space: usize) -> Option<Bytes> {
        let may_start = self.plan.start == Start::AtOnce || self.peer_ended;
        if !may_start || self.shut || self.aborting || now < self.write_at {
            return None;
        }
        let count = (self.plan.data.len() - self.sent).min(self.plan.write_size).min(space);
        (count > 0).then(|| self.plan.data.slice(self.sent..self.sent + count))
    }

    /// `count` bytes of the last [`Script::next_write`] were taken.
    pub fn wrote(&mut self, now: Duration, count: usize) {
        self.sent += count;
        self.write_at = now + self.plan.write_interval;
    }

    /// Whether the time has come to abort; true once.
    pub fn takes_abort(&mut self) -> bool {
        let due = self
            .plan
            .abort_after
            .is_some_and(|after| self.sent + self.received >= after);
        due && !core::mem::replace(&mut self.aborting, true)
    }

    /// Whether the time has come to close; true once.
    pub fn takes_close(&mut self) -> bool {
        let done = self.sent == self.plan.data.len()
            && (self.plan.start == Start::AtOnce || self.peer_ended)
            && (self.plan.finish == Finish::AfterSending || self.peer_ended);
        done && !self.aborting && !core::mem::replace(&mut self.shut, true)
    }

    /// The time at which it wants to go on by itself, after `now`.
    pub fn wakes_at(&self, now: Duration) -> Option<Duration> {
        let write = (self.sent < self.plan.data.len() && !self.shut && self.write_at > now).then_some(self.write_at);
        let read = (self.read_at > now && !self.peer_ended).then_some(self.read_at);
        write
            .into_iter()
            .chain(read)
            .min()
            .filter(|_| self.is_open() && !self.aborting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn script(change: impl FnOnce(&mut Plan)) -> Script {
        let mut plan = Plan::simple(Bytes::from_static(b"request"), Bytes::from_static(b"response"));
        change(&mut plan);
        let mut script = Script::new(plan);
        script.open();
        script
    }

    #[test]
    fn a_wrong_byte_is_found_and_so_is_one_too_many() {
        let mut right = script(|_| {});
        assert_eq!(right.read(NOW, b"respo"), 5);
        assert_eq!(right.read(NOW, b"nse"), 3);
        assert_eq!((right.received(), right.wrong_at()), (8, None));
        right.read(NOW, b"!");
        assert_eq!(right.wrong_at(), Some(8));

        let mut wrong = script(|_| {});
        wrong.read(NOW, b"res");
        wrong.read(NOW, b"pouse");
        assert_eq!(wrong.wrong_at(), Some(5));
    }

    #[test]
    fn pauses_begin_at_their_byte_and_end_in_time() {
        let lasts = Duration::from_secs(3);
        let mut script = script(|plan| {
            plan.pauses = vec![Pause { after: 0, lasts }, Pause { after: 5, lasts }];
        });
        assert_eq!(script.read(NOW, b"response"), 0);
        assert_eq!(script.wakes_at(NOW), Some(NOW + lasts));
        assert_eq!(script.read(NOW + lasts / 2, b"response"), 0);
        assert_eq!(script.read(NOW + lasts, b"response"), 5);
        assert_eq!(script.read(NOW + lasts, b"nse"), 0);
        assert_eq!(script.read(NOW + 2 * lasts, b"nse"), 3);
        assert_eq!(script.wakes_at(NOW + 2 * lasts), None);
        assert_eq!(script.wrong_at(), None);
    }

    #[test]
    fn writes_have_their_size_and_interval() {
        let interval = Duration::from_millis(10);
        let mut script = script(|plan| {
            plan.write_size = 4;
            plan.write_interval = interval;
        });
        assert_eq!(script.next_write(NOW, 3).as_deref(), Some(&b"req"[..]));
        assert_eq!(script.next_write(NOW, 9).as_deref(), Some(&b"requ"[..]));
        script.wrote(NOW, 4);
        assert_eq!(script.next_write(NOW, 9), None);
        assert_eq!(script.wakes_at(NOW), Some(NOW + interval));
        assert!(!script.takes_close());
        assert_eq!(script.next_write(NOW + interval, 9).as_deref(), Some(&b"est"[..]));
        script.wrote(NOW + interval, 3);
        assert!(script.takes_close());
        assert!(!script.takes_close());
    }

    #[test]
    fn an_answer_waits_for_the_end_of_the_question() {
        let mut script = script(|plan| plan.start = Start::AfterPeer);
        assert_eq!(script.next_write(NOW, 100), None);
        assert!(!script.takes_close());
        script.end_of_stream();
        assert_eq!(script.next_write(NOW, 100).as_deref(), Some(&b"request"[..]));
        script.wrote(NOW, 7);
        assert!(script.takes_close());
    }

    #[test]
    fn an_abort_comes_once_and_ends_everything() {
        let mut script = script(|plan| plan.abort_after = Some(9));
        script.wrote(NOW, 7);
        assert!(!script.takes_abort());
        script.read(NOW, b"re");
        assert!(script.takes_abort());
        assert!(!script.takes_abort());
        assert!(!script.takes_close());
        assert_eq!(script.read(NOW, b"sponse"), 0);
        script.close(Ending::Aborted);
        assert_eq!((script.is_open(), script.ending()), (false, Some(Ending::Aborted)));
    }
}
