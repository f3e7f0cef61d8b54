//! A connection as its application sees it.

use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;

use super::{Connection, Context, Tcb, Totals};
use crate::application::{Application, ListenerId, Stream};
use crate::config::Config;
use crate::time::Instant;

/// The engine's [`Stream`].
pub(crate) struct Socket<'a> {
    pub(crate) tcb: &'a mut Tcb,
    pub(crate) config: &'a Config,
    pub(crate) totals: &'a Totals,
    pub(crate) now: Instant,
}

impl Stream for Socket<'_> {
    fn listener(&self) -> Option<ListenerId> {
        self.tcb.listener
    }

    fn local(&self) -> SocketAddr {
        self.tcb.key.local()
    }

    fn peer(&self) -> SocketAddr {
        self.tcb.key.peer()
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn peer_finished(&self) -> bool {
        self.tcb.fin_received
    }

    fn send_space(&self) -> usize {
        self.tcb.send_space(self.config, self.totals)
    }

    fn send(&mut self, data: &mut Bytes) -> usize {
        let count = data.len().min(self.send_space());
        self.tcb.queue(data.split_to(count), self.now);
        count
    }

    fn send_copy(&mut self, data: &[u8]) -> usize {
        let count = data.len().min(self.send_space());
        self.tcb.queue(Bytes::copy_from_slice(&data[..count]), self.now);
        count
    }

    fn unacknowledged(&self) -> usize {
        self.tcb.send_queue.len()
    }

    fn shutdown(&mut self) {
        self.tcb.fin_queued = true;
    }

    fn close(&mut self) {
        self.tcb.fin_queued = true;
        self.tcb.read_closed = true;
        self.tcb.unread = bytes::BytesMut::new();
    }

    fn abort(&mut self) {
        self.tcb.abort = true;
    }

    fn set_timer(&mut self, after: Option<Duration>) {
        self.tcb.deadlines.application = after.map_or(Instant::NEVER, |after| self.now + after);
    }
}

impl Tcb {
    fn queue(&mut self, data: Bytes, now: Instant) {
        if self.send_queue.len() == 0 {
            // The user timeout runs from when there is something to wait for.
            self.progress_at = now;
        }
        self.send_queue.push(data);
    }
}

impl<C> Connection<C> {
    /// Runs a callback of the application, if it knows the connection.
    pub(crate) fn call<T, R>(
        &mut self,
        context: &Context<'_, T>,
        callback: impl FnOnce(&mut C, &mut Socket<'_>) -> R,
    ) -> Option<R> {
        let mut socket = Socket {
            tcb: &mut self.tcb,
            config: context.config,
            totals: context.totals,
            now: context.now,
        };
        let result = callback(self.application.as_mut()?, &mut socket);
        if self.tcb.send_space(context.config, context.totals) == 0 {
            self.tcb.wants_writable = true;
        }
        Some(result)
    }

    /// Offers unread data again, tells of the end of the stream when all has been read, and reopens the window.
    pub(crate) fn offer_unread<A, T>(&mut self, application: &mut A, context: &mut Context<'_, T>)
    where
        A: Application<Connection = C>,
    {
        if self.tcb.abort || self.tcb.read_closed {
            return;
        }
        if !self.tcb.unread.is_empty() {
            let mut unread = core::mem::take(&mut self.tcb.unread);
            let consumed = self.call(context, |state, socket| application.receive(state, socket, &unread));
            if self.tcb.read_closed || self.tcb.abort {
                return;
            }
            let consumed = consumed.unwrap_or(0).min(unread.len());
            if consumed == unread.len() {
                unread = bytes::BytesMut::new();
            } else {
                bytes::Buf::advance(&mut unread, consumed);
            }
            self.tcb.unread = unread;
            if consumed > 0 && self.tcb.window_may_open(context) {
                self.tcb.ack_now = true;
            }
        }
        self.tell_end_of_stream(application, context);
    }

    /// Tells the application of the peer's FIN, once, when everything before it has been consumed.
    pub(crate) fn tell_end_of_stream<A, T>(&mut self, application: &mut A, context: &Context<'_, T>)
    where
        A: Application<Connection = C>,
    {
        let tcb = &self.tcb;
        if tcb.fin_received && !tcb.end_of_stream_told && tcb.unread.is_empty() && !tcb.read_closed && !tcb.abort {
            self.tcb.end_of_stream_told = true;
            self.call(context, |state, socket| application.end_of_stream(state, socket));
        }
    }

    /// Tells the application that there is room to send, if it is waiting for that and half of the buffer is free.
    pub(crate) fn tell_writable<A, T>(&mut self, application: &mut A, context: &mut Context<'_, T>)
    where
        A: Application<Connection = C>,
    {
        if self.tcb.wants_writable
            && self.tcb.send_space(context.config, context.totals) > 0
            && self.tcb.send_queue.len() <= self.tcb.send_limit(context.config, context.totals) / 2
        {
            self.tcb.wants_writable = false;
            self.call(context, |state, socket| application.writable(state, socket));
            self.offer_unread(application, context);
        }
    }
}
