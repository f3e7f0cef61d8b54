//! The client's side of each connection: requests go out, responses are found in what comes back. It is the same on
//! every transport.

use std::collections::VecDeque;
use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use slab::Slab;
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::time::Instant;
use tidegate_tcp::wire::checksum::TextSum;

use crate::body::Body;
use crate::driver::Task;
use crate::errors::{Failure, Kind};
use crate::in_flight::InFlight;
use crate::openings::{Opening, Openings};
use crate::responses::{Expected, Responses};
use crate::stats::Stats;
use crate::{Close, Direction, Workload};
use tidegate_args::url::Url;

/// Bytes that are given to the transport at once for upload; they are shared, not copied.
const FILLER: usize = 256 << 10;

/// The time the response is waited for on connections that are begun at their time and tried once.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The state of a connection: the place of its [`Record`], or one of the values below. Connections that are held
/// by the million have no record.
#[derive(Debug)]
pub(crate) struct Connection(u32);

impl Connection {
    /// It was never asked anything.
    const IDLE: u32 = u32::MAX;
    /// It was asked, and has answered; nothing more is wanted of it.
    const ANSWERED: u32 = u32::MAX - 1;
}

/// A connection with requests, now or later.
#[derive(Debug)]
struct Record<I> {
    id: I,
    responses: Responses,
    in_flight: InFlight,
    /// The time at which the server announced its end of the connection, which is waited for, as where connections
    /// close with it.
    ending_since: Option<Instant>,
    /// All is done; it only has to end.
    closing: bool,
}

impl<I> Record<I> {
    fn new(id: I) -> Self {
        Self {
            id,
            responses: Responses::default(),
            in_flight: InFlight::default(),
            ending_since: None,
            closing: false,
        }
    }

    /// Whether it can be asked, and has nothing under way.
    fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.ending_since.is_none() && !self.closing
    }
}

/// The application of one thread, on connections that `I` numbers.
#[derive(Debug)]
pub(crate) struct Requests<I> {
    workload: Workload,
    /// The time a response may take.
    response_timeout: Option<Duration>,
    /// As many requests as there are under way on a connection at most, so that several are sent at once.
    requests: Bytes,
    requests_sum: TextSum,
    request_length: usize,
    filler: Bytes,
    expected: Expected,
    pub(crate) openings: Openings<I>,
    records: Slab<Record<I>>,
    /// Connections of an open loop without a request under way, the one that has waited longest first. Some may have
    /// gone since.
    idle: VecDeque<I>,
    /// Connections that are held, in the order they were established. Some may have gone since.
    held: Vec<I>,
    pub(crate) stats: Stats,
    /// Nothing more is to be asked.
    over: bool,
    /// Connections that are to be closed rather than asked again.
    excess: u32,
    established: u32,
    closing: u32,
    under_way: u64,
    /// Established connections that ended by RST, and by time-out, in all.
    reset: u64,
    timed_out: u64,
    /// Established connections that failed since this was last asked for.
    failed: u32,
}

impl<I: Copy> Requests<I> {
    /// An application for `workload`.
    pub(crate) fn new(url: &Url, task: &Task) -> Self {
        let workload = task.workload;
        let pipeline = match workload {
            Workload::Rps { pipeline } => pipeline,
            _ => 1,
        };
        let keep_alive = !matches!(workload, Workload::Cps { close: Close::Server });
        let request = url.request(keep_alive);
        let mut stats = Stats::new();
        if workload == Workload::Hold {
            // There is no warm-up: each connection is tried once.
            stats.count_all();
        }
        let filler = match workload {
            Workload::Throughput {
                direction: Direction::Up,
            } => vec![b'x'; FILLER],
            _ => Vec::new(),
        };
        let requests = request.repeat(pipeline as usize);
        Self {
            workload,
            response_timeout: task.spread.map(|_| RESPONSE_TIMEOUT),
            requests_sum: TextSum::of(&requests),
            requests: requests.into(),
            request_length: request.len(),
            filler: filler.into(),
            expected: Expected::new(task.verify),
            openings: Openings::new(),
            records: Slab::new(),
            idle: VecDeque::new(),
            held: Vec::new(),
            stats,
            over: false,
            excess: 0,
            established: 0,
            closing: 0,
            under_way: 0,
            reset: 0,
            timed_out: 0,
            failed: 0,
        }
    }

    /// Connections that reached ESTABLISHED and are not gone.
    pub(crate) fn established(&self) -> u32 {
        self.established
    }

    /// The number of connections with something to do, now or later.
    pub(crate) fn open_connections(&self) -> u32 {
        self.established.saturating_sub(self.closing)
    }

    /// So many connections are to be closed when all that is under way on them is answered.
    pub(crate) fn close_next(&mut self, excess: u32) {
        self.excess = excess;
    }

    /// Those of them that have done everything and only have to end.
    pub(crate) fn closing(&self) -> u32 {
        self.closing
    }

    /// Requests without an answer.
    pub(crate) fn under_way(&self) -> u64 {
        self.under_way
    }

    /// Established connections that ended by RST, and by time-out.
    pub(crate) fn ended_badly(&self) -> (u64, u64) {
        (self.reset, self.timed_out)
    }

    /// Returns the number of established connections that failed since the last call.
    pub(crate) fn take_failed(&mut self) -> u32 {
        std::mem::take(&mut self.failed)
    }

    /// The beginning of the oldest request without an answer, of every connection that has one, or the time at which
    /// the end of the connection was announced, of those that wait for it.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Instant> + '_ {
        self.records
            .iter()
            .filter(|(_, record)| !record.closing)
            .filter_map(|(_, record)| record.in_flight.oldest().or(record.ending_since))
    }

    /// The connection of an open loop that has waited longest.
    pub(crate) fn take_idle(&mut self) -> Option<I> {
        self.idle.pop_front()
    }

    /// Whether there may be a connection to be had from [`Requests::take_idle`].
    pub(crate) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Nothing more is asked; what is under way may be answered.
    pub(crate) fn stop_asking(&mut self) {
        self.over = true;
    }

    /// The body that all responses had, if they were verified.
    pub(crate) fn body(&self) -> Option<Body> {
        self.expected.body()
    }

    /// It is over: from now on nothing is asked. Returns what was found.
    pub(crate) fn end(&mut self) -> Stats {
        self.over = true;
        std::mem::replace(&mut self.stats, Stats::new())
    }

    /// The connections that were established to be held.
    pub(crate) fn held(&self) -> &[I] {
        &self.held
    }

    /// Sends the request of an open loop that was due at `due`. False if the connection is not the idle one that it
    /// was.
    pub(crate) fn ask_idle<S: Stream + ?Sized>(
        &mut self,
        connection: &mut Connection,
        stream: &mut S,
        due: Instant,
    ) -> bool {
        match self.records.get(connection.0 as usize) {
            Some(record) if record.is_idle() => {
                self.send(connection.0, stream, 1, due);
                true
            }
            _ => false,
        }
    }

    /// Closes the idle connection of an open loop. False if it is not the one that it was.
    pub(crate) fn close_idle<S: Stream + ?Sized>(&mut self, connection: &mut Connection, stream: &mut S) -> bool {
        let is_idle = self.records.get(connection.0 as usize).is_some_and(Record::is_idle);
        if is_idle {
            self.finish(connection.0);
            stream.close();
        }
        is_idle
    }

    /// Asks a connection that was held, unless it has been asked.
    pub(crate) fn ask_held<S: Stream + ?Sized>(&mut self, connection: &mut Connection, id: I, stream: &mut S) {
        if connection.0 == Connection::IDLE {
            let now = stream.now();
            connection.0 = self.records.insert(Record::new(id)) as u32;
            self.send(connection.0, stream, 1, now);
        }
    }

    /// Closes a connection that was held, whether it has answered or not.
    pub(crate) fn close_held<S: Stream + ?Sized>(&mut self, connection: &mut Connection, stream: &mut S) {
        self.finish(connection.0);
        if connection.0 == Connection::IDLE {
            connection.0 = Connection::ANSWERED;
        }
        stream.close();
    }

    fn send<S: Stream + ?Sized>(&mut self, index: u32, stream: &mut S, count: u32, begun: Instant) {
        let record = &mut self.records[index as usize];
        for _ in 0..count {
            record.in_flight.push(begun);
        }
        self.under_way += u64::from(count);
        let length = count as usize * self.request_length;
        let all_sent = if length == self.requests.len() {
            stream.send_whole(&self.requests, self.requests_sum)
        } else {
            stream.send(&mut self.requests.slice(..length)) == length
        };
        if !all_sent {
            self.fail(index, stream, Kind::Broken, "the send buffer has no room for a request");
        }
    }

    /// Begins as many requests as were answered.
    fn go_on<S: Stream>(&mut self, index: u32, stream: &mut S, count: u32, now: Instant) {
        if self.over || self.is_ending(index) {
            return;
        }
        if self.excess == 0 {
            self.send(index, stream, count, now);
        } else if self.records[index as usize].is_idle() {
            self.excess -= 1;
            self.finish(index);
            stream.close();
        }
    }

    /// Queues as much as there is room for.
    fn fill<S: Stream>(&self, stream: &mut S) {
        while !self.over && stream.send(&mut self.filler.clone()) > 0 {}
    }

    /// Counts an error and resets the connection.
    fn fail<S: Stream + ?Sized>(&mut self, index: u32, stream: &mut S, kind: Kind, detail: impl Display) {
        self.stats.error(kind, detail);
        self.failed += 1;
        self.give_up(index, stream);
    }

    fn give_up<S: Stream + ?Sized>(&mut self, index: u32, stream: &mut S) {
        if let Some(record) = self.records.get_mut(index as usize) {
            self.under_way -= record.in_flight.clear();
        }
        self.finish(index);
        stream.abort();
    }

    /// The connection only has to end.
    fn finish(&mut self, index: u32) {
        if let Some(record) = self.records.get_mut(index as usize)
            && !record.closing
        {
            record.closing = true;
            self.closing += 1;
        }
    }

    /// The server has announced that it ends the connection: requests under way on it are never answered.
    fn begin_end(&mut self, index: u32, now: Instant) {
        if let Workload::Cps { .. } | Workload::Hold = self.workload {
            return;
        }
        if let Some(record) = self.records.get_mut(index as usize) {
            self.under_way -= record.in_flight.clear();
            record.ending_since = Some(now);
            self.stats.announced_end();
        }
    }

    /// Whether further requests on the connection will be answered.
    fn is_ending(&self, index: u32) -> bool {
        self.records
            .get(index as usize)
            .is_some_and(|record| record.ending_since.is_some())
    }

    /// `count` responses are complete.
    fn answered<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S, count: u32) {
        let (index, now) = (connection.0, stream.now());
        match self.workload {
            // One that is tried once counts now, and only has to end.
            Workload::Cps { close: Close::Server } if self.response_timeout.is_some() => {
                self.stats.count(1);
                self.finish(index);
                stream.set_timer(None);
            }
            // It counts when the server has ended it.
            Workload::Cps { close: Close::Server } => {}
            Workload::Cps { close } => {
                self.stats.count(1);
                self.finish(index);
                if close == Close::Rst {
                    stream.abort();
                } else {
                    stream.close();
                }
            }
            Workload::Rps { .. } => {
                self.stats.count(u64::from(count));
                self.go_on(index, stream, count, now);
            }
            Workload::Latency { .. } => {
                self.stats.count(1);
                // What is due next is sent when this turn's segments have been read: a FIN may come with the response.
                let record = &self.records[index as usize];
                if record.ending_since.is_none() {
                    self.idle.push_back(record.id);
                }
            }
            Workload::Throughput { .. } => self.go_on(index, stream, count, now),
            Workload::Hold => {
                self.stats.count(1);
                self.records.remove(index as usize);
                connection.0 = Connection::ANSWERED;
            }
        }
    }

    /// The server's FIN has completed the oldest response; others that are awaited will not come.
    fn answered_by_end(&mut self, index: u32, now: Instant) {
        let record = &mut self.records[index as usize];
        if let Some(begun) = record.in_flight.pop() {
            self.under_way -= 1;
            self.stats.latency(now.since(begun));
        }
        self.under_way -= record.in_flight.clear();
        match self.workload {
            // It is counted where the server ends connections, or in bytes.
            Workload::Throughput { .. } => {}
            Workload::Cps { close: Close::Server } if self.response_timeout.is_none() => {}
            _ => self.stats.count(1),
        }
    }

    /// The server sent FIN on a connection with a record.
    fn ended_by_server<S: Stream>(&mut self, index: u32, stream: &mut S) {
        let record = &mut self.records[index as usize];
        match record.responses.end_of_stream(&mut self.expected) {
            Ok(false) => {}
            Ok(true) => self.answered_by_end(index, stream.now()),
            Err(Failure { kind, detail }) => return self.fail(index, stream, kind, detail),
        }
        let oldest = self.records[index as usize].in_flight.oldest();
        match (self.workload, oldest) {
            (
                Workload::Throughput {
                    direction: Direction::Up,
                },
                _,
            ) => self.fail(index, stream, Kind::ClosedEarly, "the server closed the connection"),
            (workload, None) => {
                if workload == (Workload::Cps { close: Close::Server }) && self.response_timeout.is_none() {
                    self.stats.count(1);
                }
                self.finish(index);
                stream.close();
            }
            // They were begun a moment ago, in the callback for what came before the FIN, and have not left yet. A
            // server may end a connection on which it has answered everything.
            (Workload::Rps { .. } | Workload::Throughput { .. }, Some(begun)) if begun == stream.now() => {
                self.give_up(index, stream);
            }
            _ => {
                let detail = "the server closed the connection before the response was complete";
                self.fail(index, stream, Kind::ClosedEarly, detail);
            }
        }
    }
}

impl<I: Copy> Application for Requests<I> {
    type Connection = Connection;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Connection {
        self.established += 1;
        let now = stream.now();
        let Some(Opening { since, id }) = self.openings.take(|| stream.local()) else {
            // Too late: it was given up.
            stream.abort();
            return Connection(Connection::IDLE);
        };
        if self.over {
            stream.abort();
            return Connection(Connection::IDLE);
        }
        self.stats.connected(now.since(since));
        if self.workload == Workload::Hold {
            self.stats.step();
            self.held.push(id);
            return Connection(Connection::IDLE);
        }
        if self.response_timeout.is_some() {
            stream.set_timer(self.response_timeout);
        }
        let index = self.records.insert(Record::new(id)) as u32;
        match self.workload {
            Workload::Cps { .. } => self.send(index, stream, 1, since),
            Workload::Rps { pipeline } => self.send(index, stream, pipeline, now),
            Workload::Throughput {
                direction: Direction::Down,
            } => self.send(index, stream, 1, now),
            Workload::Throughput {
                direction: Direction::Up,
            } => self.fill(stream),
            Workload::Latency { .. } | Workload::Hold => self.idle.push_back(id),
        }
        Connection(index)
    }

    fn receive<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S, data: &[u8]) -> usize {
        let index = connection.0;
        let Some(record) = self.records.get_mut(index as usize) else {
            self.fail(index, stream, Kind::Malformed, "data on a connection without a request");
            return data.len();
        };
        if !self.filler.is_empty() {
            let detail = "data from the server; the target has to be a discard service";
            self.fail(index, stream, Kind::Malformed, detail);
            return data.len();
        }
        let taken = match record.responses.take(&mut self.expected, data) {
            Ok(taken) => taken,
            Err(Failure { kind, detail }) => {
                self.fail(index, stream, kind, detail);
                return data.len();
            }
        };
        let now = stream.now();
        for _ in 0..taken.responses {
            let Some(begun) = record.in_flight.pop() else {
                self.fail(index, stream, Kind::Malformed, "a response to no request");
                return data.len();
            };
            self.under_way -= 1;
            self.stats.latency(now.since(begun));
        }
        if matches!(self.workload, Workload::Throughput { .. }) {
            self.stats.count(taken.body);
        }
        if taken.is_last {
            self.begin_end(index, now);
        }
        if taken.responses > 0 {
            self.answered(connection, stream, taken.responses);
        }
        data.len()
    }

    fn end_of_stream<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        if self.records.contains(connection.0 as usize) {
            self.ended_by_server(connection.0, stream);
            return;
        }
        if connection.0 == Connection::IDLE {
            let detail = "the server closed a connection that was to stay open";
            self.stats.error(Kind::ClosedEarly, detail);
            self.failed += 1;
        }
        stream.close();
    }

    fn writable<S: Stream>(&mut self, _: &mut Connection, stream: &mut S) {
        if !self.filler.is_empty() {
            self.fill(stream);
        }
    }

    fn timeout<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        let detail = format!("no complete response within {} s", RESPONSE_TIMEOUT.as_secs());
        self.fail(connection.0, stream, Kind::TimedOut, detail);
    }

    fn drain<S: Stream>(&mut self, _: &mut Connection, _: &mut S) {}

    fn closed(&mut self, connection: Connection, reason: CloseReason) {
        self.established -= 1;
        let mut was_done = connection.0 == Connection::ANSWERED;
        if let Some(mut record) = self.records.try_remove(connection.0 as usize) {
            self.under_way -= record.in_flight.clear();
            self.closing -= u32::from(record.closing);
            was_done = record.closing || record.ending_since.is_some();
        }
        let (count, kind, detail) = match reason {
            CloseReason::Finished | CloseReason::Aborted | CloseReason::Evicted => return,
            CloseReason::ResetByPeer => (&mut self.reset, Kind::Reset, "the server sent RST"),
            CloseReason::TimedOut => (
                &mut self.timed_out,
                Kind::TimedOut,
                "the server does not answer any more",
            ),
        };
        *count += 1;
        if was_done {
            self.stats.unclean_end();
        } else {
            self.stats.error(kind, detail);
            self.failed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_held_is_small() {
        assert!(size_of::<Option<Connection>>() <= 16);
    }
}
