//! A connection as its application sees it.

use core::mem::take;
use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;

use super::send_state::{SendState, SendStatePool};
use super::unread::Unread;
use super::{Connection, Context, Service, Tcb, Totals};
use crate::application::{Application, ListenerId, Stream};
use crate::config::Config;
use crate::time::Instant;
use crate::wire::checksum::TextSum;

/// A tick of the engine's timers.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// The engine's [`Stream`].
pub(crate) struct Socket<'a> {
    tcb: &'a mut Tcb,
    config: &'a Config,
    totals: &'a Totals,
    send_states: &'a mut SendStatePool,
    now: Instant,
}

impl<'a> Socket<'a> {
    #[inline]
    pub(crate) fn new<T>(tcb: &'a mut Tcb, context: &'a mut Context<'_, T>) -> Self {
        Self {
            tcb,
            config: context.config,
            totals: context.totals,
            send_states: context.send_states,
            now: context.now,
        }
    }

    /// The parts of the engine needed to send something.
    #[inline]
    fn sending(&mut self) -> &mut SendState {
        self.tcb.sending.acquire(self.send_states);
        let sending = &mut *self.tcb.sending;
        if sending.send_queue.len() == 0 && sending.deadlines.user_timeout == Instant::NEVER {
            // The user timeout runs from when there is something to wait for.
            sending.begin_to_wait(self.tcb.snd_una, self.now, self.config);
        }
        sending
    }

    #[inline(always)]
    fn queue(&mut self, data: Bytes, sum: Option<TextSum>) {
        if !data.is_empty() {
            self.sending().send_queue.push(data, sum);
        }
    }

    #[inline]
    fn queue_fin(&mut self) {
        if !self.tcb.fin_queued {
            self.tcb.fin_queued = true;
            self.sending();
        }
    }
}

impl Stream for Socket<'_> {
    fn listener(&self) -> Option<ListenerId> {
        self.tcb.listener()
    }

    fn local(&self) -> SocketAddr {
        self.tcb.key.get().local()
    }

    fn peer(&self) -> SocketAddr {
        self.tcb.key.get().peer()
    }

    #[inline]
    fn now(&self) -> Instant {
        self.now
    }

    #[inline]
    fn peer_finished(&self) -> bool {
        self.tcb.fin_received
    }

    fn send_space(&self) -> usize {
        self.tcb.send_space(self.config, self.totals)
    }

    fn send(&mut self, data: &mut Bytes) -> usize {
        let count = data.len().min(self.send_space());
        self.tcb.wants_writable |= count < data.len();
        self.queue(data.split_to(count), None);
        count
    }

    #[inline(always)]
    fn send_whole(&mut self, data: &Bytes, sum: TextSum) -> bool {
        debug_assert_eq!(sum, TextSum::of(data), "the sum of another text");
        let fits = self.tcb.may_queue(data.len(), self.config, self.totals);
        if fits {
            self.queue(data.clone(), Some(sum));
        } else {
            self.tcb.wants_writable = true;
        }
        fits
    }

    fn send_copy(&mut self, data: &[u8]) -> usize {
        let count = data.len().min(self.send_space());
        // By the time the callback returns there may be room again: a full chunk takes less than it did while it grew.
        self.tcb.wants_writable |= count < data.len();
        if count > 0 {
            self.sending().send_queue.push_copy(&data[..count]);
        }
        count
    }

    #[inline]
    fn unacknowledged(&self) -> usize {
        self.tcb.queued()
    }

    fn shutdown(&mut self) {
        self.queue_fin();
    }

    #[inline]
    fn close(&mut self) {
        self.queue_fin();
        self.tcb.read_closed = true;
        if let Some(receiving) = &mut self.tcb.receiving {
            receiving.unread = Unread::default();
        }
    }

    fn abort(&mut self) {
        self.tcb.abort = true;
    }

    #[inline]
    fn mark_served(&mut self) {
        if self.tcb.service == Service::Awaited {
            self.tcb.service = Service::Begun;
        }
    }

    #[inline]
    fn set_timer(&mut self, after: Option<Duration>) {
        // In the next tick at the earliest: one that is set again and again must not keep the others waiting.
        self.tcb.deadlines.application = after.map_or(Instant::NEVER, |after| self.now + after.max(TIMER_TICK));
    }
}

impl<C> Connection<C> {
    /// Runs a callback of the application, if it knows the connection.
    pub(crate) fn call<T, R>(
        &mut self,
        context: &mut Context<'_, T>,
        callback: impl FnOnce(&mut C, &mut Socket<'_>) -> R,
    ) -> Option<R> {
        let state = self.application.as_mut()?;
        let result = callback(state, &mut Socket::new(&mut self.tcb, context));
        if !self.tcb.may_queue(1, context.config, context.totals) {
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
        if self.tcb.unread() > 0 {
            let unread = self.tcb.receiving.as_deref_mut();
            let mut unread = unread.map(|receiving| take(&mut receiving.unread)).unwrap_or_default();
            let consumed = self.call(context, |state, socket| {
                application.receive(state, socket, unread.as_slice())
            });
            if self.tcb.read_closed || self.tcb.abort {
                return;
            }
            let consumed = consumed.unwrap_or(0).min(unread.len());
            if consumed < unread.len() {
                unread.consume(consumed);
                self.tcb.receiving.get_or_insert_default().unread = unread;
            }
            if consumed > 0 && self.tcb.window_may_open(context) {
                self.tcb.ack_now = true;
            }
        }
        self.tell_end_of_stream(application, context);
    }

    /// Tells the application of the peer's FIN, once, when everything before it has been consumed.
    pub(crate) fn tell_end_of_stream<A, T>(&mut self, application: &mut A, context: &mut Context<'_, T>)
    where
        A: Application<Connection = C>,
    {
        let tcb = &self.tcb;
        if tcb.fin_received && !tcb.end_of_stream_told && tcb.unread() == 0 && !tcb.read_closed && !tcb.abort {
            self.tcb.end_of_stream_told = true;
            self.call(context, |state, socket| application.end_of_stream(state, socket));
        }
    }

    /// Tells the application that there is room to send, if it is waiting for that.
    pub(crate) fn tell_writable<A, T>(&mut self, application: &mut A, context: &mut Context<'_, T>)
    where
        A: Application<Connection = C>,
    {
        if self.tcb.wants_writable && self.tcb.is_writable(context.config, context.totals) {
            self.tcb.wants_writable = false;
            self.call(context, |state, socket| application.writable(state, socket));
            self.offer_unread(application, context);
            if !self.tcb.awaits_acknowledgment()
                && let Some(sending) = self.tcb.sending.active_mut()
            {
                // There was no more after all.
                sending.deadlines.user_timeout = Instant::NEVER;
            }
        }
    }
}
