//! Which frames go to and fro in the bare reflect.

use tidegate_impair::ETHERNET_HEADER;
use tidegate_load::Close;
use tidegate_tcp::wire::ip::{IPV4_HEADER, IPV6_HEADER};
use tidegate_tcp::wire::tcp::TCP_HEADER;

use super::plan::Shape;

/// Octets of the longest frame, which the lab's MTU decides.
const MAX_FRAME: usize = ETHERNET_HEADER + 1500;

/// Octets of the options: timestamps (RFC 7323), which both ends of a connection with tidegate use, and those of a SYN,
/// with MSS, SACK-permitted and window scale besides. RST has none.
const TIMESTAMPS: usize = 12;
const SYN_OPTIONS: usize = 20;

/// The lengths of tidegate's frames, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    /// Of a SYN or SYN-ACK.
    syn: usize,
    /// Of what carries nothing.
    bare: usize,
    /// Of RST.
    rst: usize,
    /// Of the frame that carries the request.
    pub(super) request: usize,
    /// Of the one that carries the response.
    pub(super) response: usize,
}

impl Lengths {
    /// Those of requests and responses of so many octets, with the fields of a connection that stays open.
    pub(super) fn of(request: usize, response: usize, is_ipv4: bool) -> Self {
        let ip = if is_ipv4 { IPV4_HEADER } else { IPV6_HEADER };
        let headers = ETHERNET_HEADER + ip + TCP_HEADER;
        let frame = |octets: usize| (headers + TIMESTAMPS + octets).min(MAX_FRAME);
        Self {
            syn: headers + SYN_OPTIONS,
            bare: frame(0),
            rst: headers,
            request: frame(request),
            response: frame(response),
        }
    }

    /// The frames from the client and those from the server, of a request or of a whole connection that `close` ends.
    pub(super) fn ways(self, shape: Shape, close: Close) -> [Vec<usize>; 2] {
        let Self {
            syn,
            bare,
            rst,
            request,
            response,
        } = self;
        match (shape, close) {
            (Shape::Request, _) => [vec![request], vec![response]],
            // The acknowledgment of the SYN-ACK comes with the request, that of the request with the response.
            (Shape::Connection, Close::Client) => [vec![syn, request, bare, bare], vec![syn, response, bare]],
            (Shape::Connection, Close::Server) => [vec![syn, request, bare], vec![syn, response, bare]],
            (Shape::Connection, Close::Rst) => [vec![syn, request, rst], vec![syn, response]],
        }
    }
}

/// The frames that are sent for those that come in: for so many that many others, as evenly as it goes.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// Frames that come in before it begins anew, at least 1.
    per: usize,
    /// The lengths of those that are sent meanwhile.
    lengths: Vec<usize>,
    /// Frames that have come in.
    seen: usize,
}

impl Pattern {
    /// Frames of `lengths` for every `per` that come in.
    pub(super) fn new(per: usize, lengths: Vec<usize>) -> Self {
        Self {
            per: per.max(1),
            lengths,
            seen: 0,
        }
    }

    /// The lengths of the frames to be sent for the next one that comes in.
    #[inline]
    pub(super) fn answer(&mut self) -> &[usize] {
        let from = self.sent_for(self.seen);
        let to = self.sent_for(self.seen + 1);
        self.seen += 1;
        if self.seen == self.per {
            self.seen = 0;
        }
        &self.lengths[from..to]
    }

    /// Returns the number of frames that are sent for the first `count`.
    #[inline]
    pub(super) fn sent_for(&self, count: usize) -> usize {
        count * self.lengths.len() / self.per
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_long_as_those_of_a_connection() {
        let lengths = Lengths::of(85, 300, true);
        assert_eq!((lengths.request, lengths.response), (66 + 85, 66 + 300));
        assert_eq!(Lengths::of(85, 300, false).request, 86 + 85);
        assert_eq!(Lengths::of(85, 100_000, true).response, 1514);
        let [there, back] = lengths.ways(Shape::Connection, Close::Client);
        assert_eq!((there, back), (vec![74, 151, 66, 66], vec![74, 366, 66]));
        let [there, _] = lengths.ways(Shape::Connection, Close::Rst);
        assert_eq!(there, [74, 151, 54]);
        let count = |shape, close| lengths.ways(shape, close).map(|way| way.len());
        assert_eq!(count(Shape::Request, Close::Client), [1, 1]);
        assert_eq!(count(Shape::Connection, Close::Server), [3, 3]);
        assert_eq!(count(Shape::Connection, Close::Rst), [3, 2]);
    }

    #[test]
    fn both_ends_together_keep_as_many_frames_under_way() {
        for (there, back) in [(1, 1), (4, 3), (3, 3), (3, 2)] {
            let mut client = Pattern::new(back, (0..there).collect());
            let mut reflector = Pattern::new(there, (0..back).collect());
            for (pattern, per, lengths) in [(&mut client, back, there), (&mut reflector, there, back)] {
                for _ in 0..3 {
                    let sent: Vec<usize> = (0..per).flat_map(|_| pattern.answer().to_vec()).collect();
                    assert_eq!(sent, (0..lengths).collect::<Vec<_>>());
                }
                assert_eq!(pattern.sent_for(10 * per), 10 * lengths);
            }
        }
    }
}
