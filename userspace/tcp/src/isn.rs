//! Initial sequence numbers (RFC 6528; RFC 9293, section 3.4.1).

use tidegate_abi::siphash::Key;

use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::FlowKey;

/// F(4-tuple, secret), F being SipHash-2-4: what the numbers of a connection begin with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TupleHash(u64);

impl TupleHash {
    pub(crate) fn new(secret: Key, key: &FlowKey) -> Self {
        Self(key.secret_hash(secret))
    }

    /// ISN = M + F(4-tuple, secret): M ticks every 4 microseconds.
    pub(crate) fn initial(self, now: Instant) -> SeqNumber {
        SeqNumber(self.0 as u32) + (now.as_micros() / 4) as u32
    }

    /// The offset of a connection's timestamp clock, so that clocks of different connections cannot be compared (RFC
    /// 7323, section 7.1). It is the same for all connections of a 4-tuple, so that TIME-WAIT can tell a new one by its
    /// timestamp.
    pub(crate) fn timestamp_offset(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_time_and_differs_by_tuple_and_secret() {
        let key = FlowKey::new("198.18.0.1:80".parse().unwrap(), "198.18.0.2:1000".parse().unwrap());
        let other = FlowKey::new("198.18.0.1:80".parse().unwrap(), "198.18.0.2:1001".parse().unwrap());
        let (secret, now) = (Key(1, 2), Instant::from_millis(10));
        let hash = TupleHash::new(secret, &key);
        let isn = hash.initial(now);
        assert_eq!(hash.initial(Instant::from_millis(11)) - isn, 250);
        for changed in [TupleHash::new(secret, &other), TupleHash::new(Key(1, 3), &key)] {
            assert_ne!(changed.initial(now), isn);
            assert_ne!(changed.timestamp_offset(), hash.timestamp_offset());
        }
    }
}
