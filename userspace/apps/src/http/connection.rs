//! One connection: requests in, responses out, in order and one at a time.
//!
//! A head that is not complete stays in the stream's receive buffer, and while a response waits for room nothing is
//! consumed, so an idle connection owns no memory and a greedy one is held back by its own receive window.

use std::mem::{self, MaybeUninit};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_tcp::application::Stream;

use super::Http;
use super::access::Entry;
use super::body::Decoder;
use super::config::{Config, MAX_HEADERS};
use super::counters::Counter;
use super::pace::Pace;
use super::request::{self, Framing, Rejection, Request};
use super::response::{After, CONTINUE, Outgoing, Progress};
use super::status::Status;

/// The time the peer is listened to after the last response when it may still be sending.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The maximum number of bytes thrown away meanwhile.
const LINGER_BYTES: usize = 4 << 20;

/// The state of one HTTP connection.
pub struct Connection {
    phase: Phase,
    /// Requests begun on this connection.
    requests: u32,
    timer: Timer,
    /// The peer sent FIN and there is nothing of it left to read.
    peer_finished: bool,
}

enum Phase {
    /// Between requests.
    Idle,
    /// Part of a head is in the receive buffer.
    Head(Head),
    /// The body of a request is being read.
    Body(Box<Upload>),
    /// A response waits for room in the send buffer.
    Respond(Box<Waiting>),
    /// The last response and FIN are on their way; what the peer still sends is thrown away.
    Linger { allowance: usize },
    /// There is nothing left to do. At the last look the peer had not acknowledged so many bytes.
    Closed { unacknowledged: usize },
}

/// A head that is not complete. Its time follows from the bytes that have come.
#[derive(Clone, Copy, Default)]
struct Head {
    /// Bytes that do not complete it.
    scanned: u32,
    /// Those that its timer is set by.
    timed: u32,
}

/// A response that waits for room.
struct Waiting {
    response: Outgoing,
    pace: Pace,
}

/// A request whose body is being read, with the response that follows it.
struct Upload {
    decoder: Decoder,
    /// Bytes read of it, and those that its timer is set by.
    read: u64,
    timed: u64,
    response: Outgoing,
}

/// The purpose of the stream's timer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Timer {
    Off,
    KeepAlive,
    Header,
    Body,
    Send,
    Linger,
}

/// The progress made with the data at hand.
struct Step {
    consumed: usize,
    /// The rest can be looked at again at once; otherwise something has to happen first.
    again: bool,
}

impl Step {
    fn again(consumed: usize) -> Self {
        Self { consumed, again: true }
    }

    fn wait(consumed: usize) -> Self {
        Self { consumed, again: false }
    }
}

impl Head {
    /// After `data` was looked at, which does not complete it.
    fn with(self, data: &[u8]) -> Self {
        Self {
            scanned: data.len() as u32,
            ..self
        }
    }
}

impl Connection {
    pub(super) fn open<S: Stream>(http: &mut Http, stream: &mut S) -> Self {
        http.counters.bump(Counter::Connections);
        let mut connection = Self {
            phase: Phase::Idle,
            requests: 0,
            timer: Timer::Off,
            peer_finished: false,
        };
        connection.set_timer(http, stream, 0);
        connection
    }

    pub(super) fn receive<S: Stream>(&mut self, http: &mut Http, stream: &mut S, data: &[u8]) -> usize {
        let requests = self.requests;
        let mut consumed = 0;
        loop {
            let rest = &data[consumed..];
            let step = match mem::replace(&mut self.phase, Phase::Idle) {
                phase @ (Phase::Idle | Phase::Head(_)) => {
                    let head = if let Phase::Head(head) = phase {
                        head
                    } else {
                        Head::default()
                    };
                    self.read_head(http, stream, rest, head)
                }
                Phase::Body(upload) => self.read_body(http, stream, rest, upload),
                phase @ Phase::Respond(_) => {
                    self.phase = phase;
                    Step::wait(0)
                }
                Phase::Linger { allowance } => self.discard(stream, rest, allowance),
                phase @ Phase::Closed { .. } => {
                    self.phase = phase;
                    Step::wait(rest.len())
                }
            };
            consumed += step.consumed;
            if !step.again || consumed == data.len() {
                break;
            }
        }
        self.set_timer(http, stream, requests);
        consumed
    }

    pub(super) fn end_of_stream<S: Stream>(&mut self, http: &mut Http, stream: &mut S) {
        self.peer_finished = true;
        if !matches!(self.phase, Phase::Respond(_) | Phase::Closed { .. }) {
            // Nothing more can come: a body under way will never be complete.
            self.close(stream);
        }
        self.set_timer(http, stream, self.requests);
    }

    pub(super) fn writable<S: Stream>(&mut self, http: &mut Http, stream: &mut S) {
        match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Respond(mut waiting) => {
                let sent_before = http.counters.get(Counter::BytesSent);
                if !self.send(http, stream, &mut waiting.response) {
                    let sent = http.counters.get(Counter::BytesSent) - sent_before;
                    waiting.pace.note_given(sent);
                    self.phase = Phase::Respond(waiting);
                }
            }
            Phase::Body(mut upload) => {
                upload.response.send_interim(stream, &mut http.counters);
                self.phase = Phase::Body(upload);
            }
            phase => self.phase = phase,
        }
        self.set_timer(http, stream, self.requests);
    }

    pub(super) fn timeout<S: Stream>(&mut self, http: &mut Http, stream: &mut S) {
        self.timer = Timer::Off;
        match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => {
                http.counters.bump(Counter::KeepaliveTimeouts);
                self.close(stream);
            }
            Phase::Head(head) => self.head_is_late(http, stream, head),
            Phase::Body(upload) => self.body_is_late(http, stream, upload),
            Phase::Linger { .. } => self.close(stream),
            Phase::Respond(mut waiting) => {
                if waiting.pace.is_kept(stream, &http.config) {
                    self.phase = Phase::Respond(waiting);
                } else {
                    // Nothing is gained by keeping what it was sent.
                    http.counters.bump(Counter::SendTimeouts);
                    self.abort(stream);
                }
            }
            Phase::Closed { unacknowledged } => {
                let left = stream.unacknowledged();
                if left > 0 && (unacknowledged.saturating_sub(left) as u64) < http.config.min_sent() {
                    http.counters.bump(Counter::SendTimeouts);
                    self.abort(stream);
                } else {
                    self.phase = Phase::Closed { unacknowledged: left };
                }
            }
        }
        self.set_timer(http, stream, self.requests);
    }

    /// The time for a head is over, unless more of it has come meanwhile. The phase is [`Phase::Idle`].
    fn head_is_late<S: Stream>(&mut self, http: &mut Http, stream: &mut S, head: Head) {
        let time = http.config.head_time(head.scanned.into());
        let over = http.config.head_time(head.timed.into());
        if time > over {
            let timed = head.scanned;
            self.phase = Phase::Head(Head { timed, ..head });
            self.go_on_waiting(stream, Timer::Header, time - over);
            return;
        }
        let is_limit = time >= http.config.header_timeout;
        http.counters.bump(if is_limit {
            Counter::HeaderTimeouts
        } else {
            Counter::SlowHeaders
        });
        let access = self.refused_entry(http, stream, &[]);
        self.reject(http, stream, Status::RequestTimeout.into(), Bytes::new(), access);
    }

    /// As [`Self::head_is_late`], for a body.
    fn body_is_late<S: Stream>(&mut self, http: &mut Http, stream: &mut S, mut upload: Box<Upload>) {
        let time = http.config.body_time(upload.read);
        let over = http.config.body_time(upload.timed);
        if time > over {
            upload.timed = upload.read;
            self.phase = Phase::Body(upload);
            self.go_on_waiting(stream, Timer::Body, time - over);
            return;
        }
        let is_limit = time >= http.config.body_timeout;
        http.counters.bump(if is_limit {
            Counter::BodyTimeouts
        } else {
            Counter::SlowBodies
        });
        let Outgoing { interim, access, .. } = upload.response;
        self.reject(http, stream, Status::RequestTimeout.into(), interim, access);
    }

    /// The timer that has run out runs on.
    fn go_on_waiting<S: Stream>(&mut self, stream: &mut S, timer: Timer, after: Duration) {
        self.timer = timer;
        stream.set_timer(Some(after));
    }

    pub(super) fn drain<S: Stream>(&mut self, http: &mut Http, stream: &mut S) {
        if matches!(self.phase, Phase::Idle) {
            self.close(stream);
        }
        self.set_timer(http, stream, self.requests);
    }

    /// Answers the request at the start of `data` if its head is complete. The phase is [`Phase::Idle`].
    #[inline(always)]
    fn read_head<S: Stream>(&mut self, http: &mut Http, stream: &mut S, data: &[u8], head: Head) -> Step {
        let skipped = request::empty_lines(data);
        let data = &data[skipped..];
        if data.is_empty() || data == b"\r" {
            return Step::wait(skipped);
        }
        if request::is_surely_unfinished(data, head.scanned as usize, &http.config) && !stream.peer_finished() {
            self.phase = Phase::Head(head.with(data));
            return Step::wait(skipped);
        }
        let mut storage = [MaybeUninit::uninit(); MAX_HEADERS];
        let storage = &mut storage[..http.config.max_headers.min(MAX_HEADERS)];
        match request::parse(data, storage, &http.config) {
            Ok(None) if stream.peer_finished() => {
                let access = self.refused_entry(http, stream, data);
                self.reject(http, stream, Status::BadRequest.into(), Bytes::new(), access);
                Step::again(skipped)
            }
            Ok(None) => {
                self.phase = Phase::Head(head.with(data));
                Step::wait(skipped)
            }
            Ok(Some((length, request))) => {
                self.begin(http, stream, &request, data);
                Step::again(skipped + length)
            }
            Err(rejection) => {
                let step = self.refuse_head(http, stream, data, head, rejection);
                Step {
                    consumed: skipped + step.consumed,
                    ..step
                }
            }
        }
    }

    /// Answers the head at the start of `data`, which is no request, unless it is one of a version that is understood
    /// like another. The phase is [`Phase::Idle`].
    #[cold]
    fn refuse_head<S: Stream>(
        &mut self,
        http: &mut Http,
        stream: &mut S,
        data: &[u8],
        head: Head,
        rejection: Rejection,
    ) -> Step {
        if rejection.status == Status::HttpVersionNotSupported
            && let Some(data) = request::with_version_1_1(data, &http.config)
        {
            // With what is known of its time: the peer may send this version octet by octet.
            return self.read_head(http, stream, &data, head);
        }
        let access = self.refused_entry(http, stream, data);
        self.reject(http, stream, rejection, Bytes::new(), access);
        Step::again(0)
    }

    /// The entry in the access log of a request that cannot be answered as one, of which `data` has come.
    fn refused_entry<S: Stream>(&self, http: &mut Http, stream: &S, data: &[u8]) -> Option<Entry> {
        let access = http.access.as_mut()?;
        access.begin(stream, self.requests.saturating_add(1), data, None)
    }

    /// Answers `request`, whose head is at the start of `data`, at once or after its body.
    #[inline(always)]
    fn begin<S: Stream>(&mut self, http: &mut Http, stream: &mut S, request: &Request<'_, '_>, data: &[u8]) {
        self.requests = self.requests.saturating_add(1);
        http.counters.bump(Counter::Requests);
        let access = match &mut http.access {
            None => None,
            Some(access) => access.begin(stream, self.requests, data, Some(request)),
        };
        let decoder = match request.framing {
            Framing::Length(0) => None,
            Framing::Length(length) if length > http.config.max_body => {
                let head_only = request.method == request::Method::Head;
                let rejection = Rejection {
                    status: Status::ContentTooLarge,
                    head_only,
                };
                self.reject(http, stream, rejection, Bytes::new(), access);
                return;
            }
            Framing::Length(length) => Some(Decoder::length(length)),
            Framing::Chunked => {
                let Config {
                    max_body,
                    max_head,
                    max_headers,
                    ..
                } = http.config;
                Some(Decoder::chunked(max_body, max_head, max_headers))
            }
        };
        let persistent = request.persistent && !http.draining && self.requests < http.config.keepalive_requests;
        if decoder.is_none() {
            stream.mark_served();
        }
        if decoder.is_none()
            && let Some((cached, counters)) = http.cached_response(request, persistent, stream.now())
        {
            let after = if persistent { After::NextRequest } else { After::Close };
            let length = cached.content_length as u64;
            let rest = cached.send(stream, after, counters);
            let access = access.map(|mut access| {
                access.respond(Status::Ok, length);
                access.note_left(rest.as_ref().map_or(0, Outgoing::left));
                access
            });
            match rest {
                None => {
                    drop(access);
                    http.response_time.record(0);
                    self.finish_response(http, stream, after);
                }
                Some(rest) => self.wait(stream, Outgoing { access, ..rest }),
            }
            return;
        }
        let mut response = http.answer(request, persistent, stream.now());
        response.access = access;
        match decoder {
            None => self.start(http, stream, response),
            // The body makes no difference any more, and may never come.
            Some(_) if request.expects_continue && !response.status.is_success() => self.start(http, stream, response),
            Some(decoder) => {
                if request.expects_continue {
                    response.interim = Bytes::from_static(CONTINUE);
                    response.send_interim(stream, &mut http.counters);
                }
                // Nor does its record wait for a body that may never come, if there are many.
                response.access.take_if(|access| !access.may_wait());
                self.phase = Phase::Body(Box::new(Upload {
                    decoder,
                    read: 0,
                    timed: 0,
                    response,
                }));
            }
        }
    }

    /// Reads on in a body, and answers the request after its last byte. The phase is [`Phase::Idle`].
    fn read_body<S: Stream>(&mut self, http: &mut Http, stream: &mut S, data: &[u8], mut upload: Box<Upload>) -> Step {
        match upload.decoder.advance(data) {
            Ok(consumed) if upload.decoder.is_done() => {
                stream.mark_served();
                upload.response.complete_at = Some(Instant::now());
                self.start(http, stream, upload.response);
                Step::again(consumed)
            }
            Ok(consumed) => {
                upload.read += consumed as u64;
                self.phase = Phase::Body(upload);
                Step::wait(consumed)
            }
            Err(status) => {
                let Outgoing { interim, access, .. } = upload.response;
                self.reject(http, stream, status.into(), interim, access);
                Step::again(0)
            }
        }
    }

    /// Throws `data` away. A peer that sends that much after FIN is not going to stop. The phase is [`Phase::Idle`].
    fn discard<S: Stream>(&mut self, stream: &mut S, data: &[u8], allowance: usize) -> Step {
        match allowance.checked_sub(data.len()) {
            Some(allowance) => self.phase = Phase::Linger { allowance },
            None => self.abort(stream),
        }
        Step::wait(data.len())
    }

    /// Answers with an error after which nothing more is read, behind what is left of an interim response.
    fn reject<S: Stream>(
        &mut self,
        http: &mut Http,
        stream: &mut S,
        rejection: Rejection,
        interim: Bytes,
        access: Option<Entry>,
    ) {
        let mut response = http.reject(rejection, stream.now());
        response.interim = interim;
        response.access = access;
        self.start(http, stream, response);
    }

    /// Begins to send a response.
    fn start<S: Stream>(&mut self, http: &mut Http, stream: &mut S, mut response: Outgoing) {
        http.counters.response(response.status);
        if let Some(access) = &mut response.access {
            access.respond(response.status, response.body.left());
        }
        if !self.send(http, stream, &mut response) {
            self.wait(stream, response);
        }
    }

    /// Waits for room for what is left of a response.
    fn wait<S: Stream>(&mut self, stream: &S, mut response: Outgoing) {
        response.access.take_if(|access| !access.may_wait());
        response.complete_at.get_or_insert_with(Instant::now);
        let pace = Pace::new(stream);
        self.phase = Phase::Respond(Box::new(Waiting { response, pace }));
    }

    /// Sends what there is room for. False where some is left.
    fn send<S: Stream>(&mut self, http: &mut Http, stream: &mut S, response: &mut Outgoing) -> bool {
        let progress = response.send(stream, http.config.read_chunk, &mut http.counters);
        let left = response.left();
        if let Some(access) = &mut response.access {
            access.note_left(left);
        }
        match progress {
            Progress::Blocked => return false,
            Progress::Complete => {
                http.response_time.record(response.age());
                self.finish_response(http, stream, response.after);
            }
            Progress::Failed => {
                http.counters.bump(Counter::TruncatedFiles);
                self.abort(stream);
            }
            Progress::Changed => {
                http.counters.bump(Counter::ChangedFiles);
                self.abort(stream);
            }
        }
        true
    }

    /// Goes on after all of a response was given to the stream.
    fn finish_response<S: Stream>(&mut self, http: &Http, stream: &mut S, after: After) {
        match after {
            _ if self.peer_finished => self.close(stream),
            After::NextRequest if !http.draining => self.phase = Phase::Idle,
            After::NextRequest | After::Close => self.close(stream),
            After::Linger => {
                stream.shutdown();
                self.phase = Phase::Linger {
                    allowance: LINGER_BYTES,
                };
            }
        }
    }

    fn close<S: Stream>(&mut self, stream: &mut S) {
        stream.close();
        // The rate of what is left is taken from here on, and not from when a part of the response had its turn.
        stream.set_timer(None);
        self.timer = Timer::Off;
        let unacknowledged = stream.unacknowledged();
        self.phase = Phase::Closed { unacknowledged };
    }

    fn abort<S: Stream>(&mut self, stream: &mut S) {
        stream.abort();
        self.phase = Phase::Closed { unacknowledged: 0 };
    }

    /// Sets the timer the phase needs. It goes on running while the phase stays the same, unless requests were begun
    /// since there were `requests` of them.
    fn set_timer<S: Stream>(&mut self, http: &Http, stream: &mut S, requests: u32) {
        let timer = match self.phase {
            Phase::Idle => Timer::KeepAlive,
            Phase::Head(_) => Timer::Header,
            Phase::Body(_) => Timer::Body,
            Phase::Respond(_) => Timer::Send,
            Phase::Closed { unacknowledged: 1.. } => Timer::Send,
            // The stream itself waits for the peer's FIN.
            Phase::Closed { .. } => Timer::Off,
            Phase::Linger { .. } => Timer::Linger,
        };
        if timer == self.timer && self.requests == requests {
            return;
        }
        self.timer = timer;
        stream.set_timer(match timer {
            Timer::Off => None,
            Timer::KeepAlive => Some(http.config.keepalive_timeout),
            Timer::Header => Some(http.config.head_time(0)),
            Timer::Body => Some(http.config.body_time(0)),
            Timer::Send => Some(http.config.send_timeout),
            Timer::Linger => Some(LINGER_TIME),
        });
    }
}
