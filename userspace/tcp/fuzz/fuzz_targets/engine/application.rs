//! An application that does what it is told and checks every callback.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::seq::SeqNumber;

use crate::input::{Behaviour, Ending, OnTimer};
use crate::peer::text_at;

/// Octets one connection sends at most.
const MAX_SENT: usize = 100_000;

/// Times one connection sets its timer again.
const MAX_TIMERS: u8 = 8;

/// Everything that was queued on a connection.
pub struct Queued {
    pub peer: SocketAddr,
    pub text: Vec<u8>,
}

/// A connection as the application knows it.
pub struct Connection {
    /// Its place in [`App::queued`].
    queued: usize,
    /// The possible beginnings of its peer's stream: after one of the SYNs sent in its name.
    starts: Vec<SeqNumber>,
    /// Octets consumed.
    received: u32,
    /// Octets of the greeting still to be sent.
    greeting: usize,
    timers: u8,
    ended: bool,
    finished: bool,
    closed: bool,
    aborted: bool,
}

#[derive(Default)]
pub struct App {
    pub behaviour: Behaviour,
    pub queued: Vec<Queued>,
    /// The possible beginnings of streams, by peer.
    pub starts: Vec<(SocketAddr, SeqNumber)>,
    pub opened: usize,
    pub closed: usize,
}

impl App {
    fn write<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S, text: &[u8]) -> usize {
        let queued = &mut self.queued[connection.queued].text;
        let text = &text[..text.len().min(MAX_SENT - queued.len())];
        let space = stream.send_space();
        if connection.finished || connection.aborted {
            assert_eq!(space, 0, "there is room to send after the end");
        }
        let taken = stream.send_copy(text);
        assert_eq!(taken, text.len().min(space));
        queued.extend_from_slice(&text[..taken]);
        taken
    }

    fn greet<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        let text: Vec<u8> = (0..connection.greeting).map(|at| (at % 251) as u8).collect();
        let taken = self.write(connection, stream, &text);
        connection.greeting -= taken;
        if connection.greeting == 0 {
            end(self.behaviour.after_greeting, connection, stream);
        }
    }
}

fn end<S: Stream>(how: Ending, connection: &mut Connection, stream: &mut S) {
    match how {
        Ending::Stay => {}
        Ending::Shutdown => {
            stream.shutdown();
            connection.finished = true;
        }
        Ending::Close => {
            stream.close();
            connection.finished = true;
            connection.closed = true;
        }
        Ending::Abort => {
            stream.abort();
            connection.aborted = true;
        }
    }
}

impl Application for App {
    type Connection = Connection;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Connection {
        self.opened += 1;
        let peer = stream.peer();
        let starts = self.starts.iter().filter(|(whose, _)| *whose == peer);
        self.queued.push(Queued { peer, text: Vec::new() });
        let mut connection = Connection {
            queued: self.queued.len() - 1,
            starts: starts.map(|&(_, start)| start).collect(),
            received: 0,
            greeting: usize::from(self.behaviour.greeting),
            timers: 0,
            ended: false,
            finished: false,
            closed: false,
            aborted: false,
        };
        if let Some(millis) = self.behaviour.timer {
            stream.set_timer(Some(Duration::from_millis(u64::from(millis) + 1)));
        }
        self.greet(&mut connection, stream);
        connection
    }

    fn receive<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S, data: &[u8]) -> usize {
        assert!(!data.is_empty(), "nothing was offered");
        assert!(!connection.closed && !connection.aborted, "text after close or abort");
        assert!(!connection.ended, "text after the end of the stream");
        let received = connection.received;
        connection.starts.retain(|&start| {
            let at = start + received;
            data.iter()
                .enumerate()
                .all(|(index, &octet)| octet == text_at(at + index as u32))
        });
        assert!(!connection.starts.is_empty(), "text that the peer did not send there");
        let mut count = data.len();
        if let Some(appetite) = self.behaviour.appetite {
            count = count.min(usize::from(appetite));
        }
        if self.behaviour.echo && !connection.finished && self.queued[connection.queued].text.len() < MAX_SENT {
            count = self.write(connection, stream, &data[..count]);
        }
        connection.received += count as u32;
        if count > 1 {
            stream.mark_served();
        }
        if self
            .behaviour
            .abort_on
            .is_some_and(|octet| data[..count].contains(&octet))
        {
            end(Ending::Abort, connection, stream);
        }
        count
    }

    fn end_of_stream<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        assert!(!connection.ended, "the stream ended twice");
        assert!(!connection.closed && !connection.aborted, "an end after close or abort");
        assert!(stream.peer_finished());
        connection.ended = true;
        end(self.behaviour.at_end, connection, stream);
    }

    fn writable<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        assert!(!connection.finished && !connection.aborted, "writable after the end");
        assert!(stream.send_space() > 0, "writable without room");
        if connection.greeting > 0 {
            self.greet(connection, stream);
        }
    }

    fn timeout<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        assert!(!connection.aborted, "a timer after abort");
        match self.behaviour.on_timer {
            OnTimer::Nothing => {}
            OnTimer::Write(length) => {
                self.write(connection, stream, &vec![b'w'; usize::from(length)]);
                connection.timers += 1;
                if connection.timers < MAX_TIMERS {
                    stream.set_timer(Some(Duration::from_millis(u64::from(length) + 1)));
                }
            }
            OnTimer::End(how) => end(how, connection, stream),
        }
    }

    fn drain<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        assert!(!connection.aborted, "draining after abort");
        end(Ending::Close, connection, stream);
    }

    fn closed(&mut self, _: Connection, _: CloseReason) {
        self.closed += 1;
    }
}
