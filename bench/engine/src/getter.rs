//! An HTTP client for the engine's own active open.

use bytes::Bytes;
use tidegate_tcp::application::{Application, CloseReason, Stream};

use crate::driver::served_response;
use crate::template_client::{LAST_REQUEST, REQUEST};

/// Asks for the page as soon as a connection is open, and on persistent connections again after every response. It
/// knows how long responses are and looks no further.
pub struct Getter {
    request: Bytes,
    persistent: bool,
    response_length: usize,
    responses: u64,
}

impl Getter {
    /// A client whose connections stay open (`persistent`), or are closed after a response.
    pub fn new(persistent: bool) -> Self {
        Self {
            request: Bytes::from_static(if persistent { REQUEST } else { LAST_REQUEST }),
            persistent,
            response_length: served_response(persistent).len(),
            responses: 0,
        }
    }

    /// Whole responses received.
    pub fn responses(&self) -> u64 {
        self.responses
    }

    fn ask<S: Stream>(&self, stream: &mut S) {
        stream.send(&mut self.request.clone());
    }
}

impl Application for Getter {
    /// Bytes of the response that are still to come.
    type Connection = usize;

    fn open<S: Stream>(&mut self, stream: &mut S) -> usize {
        self.ask(stream);
        self.response_length
    }

    fn receive<S: Stream>(&mut self, rest: &mut usize, stream: &mut S, data: &[u8]) -> usize {
        *rest = rest.saturating_sub(data.len());
        if *rest == 0 {
            self.responses += 1;
            if self.persistent {
                self.ask(stream);
                *rest = self.response_length;
            }
        }
        data.len()
    }

    fn end_of_stream<S: Stream>(&mut self, _: &mut usize, stream: &mut S) {
        stream.close();
    }

    fn writable<S: Stream>(&mut self, _: &mut usize, _: &mut S) {}

    fn timeout<S: Stream>(&mut self, _: &mut usize, _: &mut S) {}

    fn drain<S: Stream>(&mut self, _: &mut usize, stream: &mut S) {
        stream.close();
    }

    fn closed(&mut self, _: usize, _: CloseReason) {}
}
