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
use crate::expected::Expected;
use crate::openings::{Opening, Openings};
use crate::record::{Connection, Record};
use crate::responses::Taken;
use crate::stats::Stats;
use crate::{Close, Direction, Plan, Workload};

/// Bytes that are given to the transport at once for upload; they are shared, not copied.
const FILLER: usize = 256 << 10;

/// The application of one thread, on connections that `I` numbers.
#[derive(Debug)]
pub(crate) struct Requests<I> {
    workload: Workload,
    /// Each connection is tried once.
    once: bool,
    /// The time a response, or the server's end of a connection, may take.
    timeout: Duration,
    /// Requests on each connection, at most.
    requests_per_connection: u32,
    /// As many requests as there are under way on a connection at most, so that several are sent at once.
    requests: Bytes,
    requests_sum: TextSum,
    request_length: usize,
    /// The last request of a connection, where it is another than the others.
    last_request: Option<(Bytes, TextSum)>,
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
    /// An application for the part of `plan` that `task` is.
    pub(crate) fn new(plan: &Plan, task: &Task) -> Self {
        let workload = task.workload.on_connections();
        let (url, http) = (&plan.url, &plan.http);
        let request = http.request.to_bytes(url, true);
        let last_request = matches!(workload, Workload::Cps { close: Close::Server }).then(|| {
            let last = http.request.to_bytes(url, false);
            let sum = TextSum::of(&last);
            (last.into(), sum)
        });
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
        let requests = request.repeat(workload.pipeline() as usize);
        Self {
            workload,
            once: task.spread.is_some(),
            timeout: http.timeout,
            requests_per_connection: plan.requests_per_connection().unwrap_or(u32::MAX),
            requests_sum: TextSum::of(&requests),
            requests: requests.into(),
            request_length: request.len(),
            last_request,
            filler: filler.into(),
            expected: Expected::new(task.verify).with_heads(http.max_head, http.request.method() == "HEAD"),
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

    /// The beginning of the oldest request without an answer, of every connection that has one, or of the wait for the
    /// server's end of the connection.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Instant> + '_ {
        self.records
            .iter()
            .filter(|(_, record)| !record.closing)
            .filter_map(|(_, record)| record.waiting_since())
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
        self.stats.note_location(self.expected.location());
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
                self.records[connection.0 as usize].progress = stream.now();
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
            connection.0 = self.records.insert(Record::new(id, now, u32::MAX)) as u32;
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
        let count = count.min(record.left);
        record.left -= count;
        for _ in 0..count {
            record.in_flight.push(begun);
        }
        self.under_way += u64::from(count);
        let length = count as usize * self.request_length;
        let all_sent = if let (0, Some((request, sum))) = (record.left, &self.last_request) {
            stream.send_whole(request, *sum)
        } else if length == self.requests.len() {
            stream.send_whole(&self.requests, self.requests_sum)
        } else {
            stream.send(&mut self.requests.slice(..length)) == length
        };
        if !all_sent {
            self.fail(index, stream, Kind::Broken, "the send buffer has no room for a request");
        }
    }

    /// Begins as many requests as were answered, as far as the connection may have more.
    fn go_on<S: Stream>(&mut self, index: u32, stream: &mut S, count: u32, now: Instant) {
        match self.records.get(index as usize) {
            Some(record) if record.ending_since.is_some() => {}
            // The ramp-down, if there is one, closes it in its turn.
            Some(record) if self.over => {
                if record.is_idle() {
                    self.idle.push_back(record.id);
                }
            }
            Some(Record { left: 1.., .. }) if self.excess == 0 => self.send(index, stream, count, now),
            _ => self.close_if_done(index, stream),
        }
    }

    /// Closes a connection that has had all its requests, or is one too many, if none is without an answer.
    fn close_if_done<S: Stream>(&mut self, index: u32, stream: &mut S) {
        if self.records[index as usize].in_flight.is_empty() {
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
            self.excess = self.excess.saturating_sub(1);
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

    /// The responses in `taken` are complete.
    fn answered<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S, taken: &Taken) {
        let (index, now) = (connection.0, stream.now());
        let hoped_for = u64::from(taken.responses - taken.failures.count_ones());
        match self.workload {
            Workload::Cps { close } | Workload::OpenCps { close, .. } => {
                self.answered_connection(index, stream, close, taken.is_last)
            }
            Workload::Rps { .. } => {
                self.stats.count(hoped_for);
                self.go_on(index, stream, taken.responses, now);
            }
            Workload::Latency { .. } => {
                self.stats.count(hoped_for);
                // What is due next is sent when this turn's segments have been read: a FIN may come with the response.
                let record = &self.records[index as usize];
                match (record.ending_since, record.left) {
                    (Some(_), _) => {}
                    (None, 0) => self.close_if_done(index, stream),
                    (None, _) => self.idle.push_back(record.id),
                }
            }
            Workload::Throughput { .. } => self.go_on(index, stream, taken.responses, now),
            Workload::Hold => {
                self.stats.count(hoped_for);
                self.records.remove(index as usize);
                connection.0 = Connection::ANSWERED;
            }
        }
    }

    /// The response that a connection of `cps` waited for is complete; `is_last` if the server ends it now.
    fn answered_connection<S: Stream>(&mut self, index: u32, stream: &mut S, close: Close, is_last: bool) {
        let now = stream.now();
        let record = &mut self.records[index as usize];
        let mut close = close;
        if record.left > 0 {
            if is_last {
                self.stats.announced_end();
            } else if self.over {
                // The ramp-down, if there is one, closes it in its turn.
                return self.idle.push_back(record.id);
            } else if self.excess == 0 {
                return self.send(index, stream, 1, now);
            } else if close == Close::Server {
                // It is asked to with the last request only.
                close = Close::Client;
            }
        }
        let record = &mut self.records[index as usize];
        let counts = u64::from(!record.failed);
        match close {
            // One that is tried once counts now, and only has to end.
            Close::Server if self.once => {
                self.stats.count(counts);
                self.finish(index);
                stream.set_timer(None);
            }
            // It counts when the server has ended it.
            Close::Server => record.answered_at = Some(now),
            Close::Client | Close::Rst => {
                self.stats.count(counts);
                self.finish(index);
                if close == Close::Rst {
                    stream.abort();
                } else {
                    stream.close();
                }
            }
        }
    }

    /// The server's FIN has completed the oldest response; others that are awaited will not come.
    fn answered_by_end(&mut self, index: u32, taken: &Taken, now: Instant) {
        let record = &mut self.records[index as usize];
        count_responses(record, &mut self.stats, &mut self.under_way, taken, now);
        self.under_way -= record.in_flight.clear();
        let is_failed = record.failed;
        match self.workload {
            // It is counted where the server ends connections, or in bytes.
            Workload::Throughput { .. } => {}
            Workload::Cps { close: Close::Server } if !self.once => {}
            Workload::Cps { .. } => self.stats.count(u64::from(!is_failed)),
            _ => self.stats.count(u64::from(taken.failures == 0)),
        }
    }

    /// The server sent FIN on a connection with a record.
    fn ended_by_server<S: Stream>(&mut self, index: u32, stream: &mut S) {
        let now = stream.now();
        let record = &mut self.records[index as usize];
        match record.responses.end_of_stream(&mut self.expected) {
            Ok(None) => {}
            Ok(Some(taken)) => self.answered_by_end(index, &taken, now),
            Err(Failure { kind, detail }) => return self.fail(index, stream, kind, detail),
        }
        let record = &self.records[index as usize];
        match (self.workload, record.in_flight.oldest()) {
            (
                Workload::Throughput {
                    direction: Direction::Up,
                },
                _,
            ) => self.fail(index, stream, Kind::ClosedEarly, "the server closed the connection"),
            (workload, None) => {
                if let Some(since) = record.answered_at.or(record.ending_since) {
                    self.stats.closed(now.since(since));
                }
                if workload == (Workload::Cps { close: Close::Server }) && !self.once {
                    self.stats.count(u64::from(!record.failed));
                }
                self.finish(index);
                stream.close();
            }
            // They were begun a moment ago, in the callback for what came before the FIN, and have not left yet. A
            // server may end a connection on which it has answered everything.
            (Workload::Rps { .. } | Workload::Throughput { .. }, Some(begun)) if begun == now => {
                self.give_up(index, stream);
            }
            _ => {
                let place = record.responses.place();
                let detail = format_args!("the server closed the connection {place}");
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
        if self.filler.is_empty() {
            stream.set_timer(Some(self.timeout));
        }
        let record = Record::new(id, now, self.requests_per_connection);
        let index = self.records.insert(record) as u32;
        match self.workload {
            Workload::Cps { .. } | Workload::OpenCps { .. } => self.send(index, stream, 1, since),
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
        if !count_responses(record, &mut self.stats, &mut self.under_way, &taken, now) {
            self.fail(index, stream, Kind::Malformed, "a response to no request");
            return data.len();
        }
        if record.responses.is_within() && (taken.responses > 0 || !taken.began_before) {
            record.first_byte = now;
        }
        if matches!(self.workload, Workload::Throughput { .. }) {
            record.progress = now;
            self.stats.count(taken.body);
        }
        if taken.is_last {
            self.begin_end(index, now);
        }
        if taken.responses > 0 {
            self.answered(connection, stream, &taken);
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

    /// The timer runs once for many requests: it is set again for what is waited for by then.
    fn timeout<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        let Some(record) = self.records.get(connection.0 as usize) else {
            return;
        };
        if record.closing {
            return;
        }
        let (now, timeout) = (stream.now(), self.timeout);
        let Some(since) = record.waiting_since().map(|since| since.max(record.progress)) else {
            return stream.set_timer(Some(timeout));
        };
        let passed = now.since(since);
        if passed < timeout {
            return stream.set_timer(Some(timeout - passed));
        }
        let within = timeout.as_secs_f64();
        let is_answered = record.in_flight.is_empty();
        let what = match self.workload {
            _ if is_answered => "no end of the connection, for which the response was the last,",
            Workload::Throughput { .. } => "nothing",
            _ => "no complete response",
        };
        let place = if is_answered {
            String::new()
        } else {
            format!(", {}", record.responses.place())
        };
        let detail = format_args!("{what} within {within} s{place}");
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

/// Counts responses on the connection of `record` by what they are. False if there was no request for one of them.
fn count_responses<I>(
    record: &mut Record<I>,
    stats: &mut Stats,
    under_way: &mut u64,
    taken: &Taken,
    now: Instant,
) -> bool {
    for response in 0..taken.responses {
        let Some(begun) = record.in_flight.pop() else {
            return false;
        };
        *under_way -= 1;
        if taken.failures >> response.min(63) & 1 == 0 {
            stats.latency(now.since(begun));
            if response == 0 && taken.began_before {
                stats.in_parts(record.first_byte.since(begun), now.since(begun));
            }
        }
    }
    stats.responses(taken.classes);
    if taken.failures != 0 {
        record.failed = true;
        for _ in 0..taken.failures.count_ones() {
            stats.error(Kind::Status, format_args!("the status is {}", taken.failed_status));
        }
    }
    true
}
