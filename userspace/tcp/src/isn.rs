//! Initial sequence numbers (RFC 6528; RFC 9293, section 3.4.1).

use tidegate_abi::siphash::Key;

use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::FlowKey;

/// ISN = M + F(4-tuple, secret): M ticks every 4 microseconds, F is SipHash-2-4.
pub(crate) fn initial(secret: Key, key: &FlowKey, now: Instant) -> SeqNumber {
    SeqNumber(key.secret_hash(secret) as u32) + (now.as_micros() / 4) as u32
}

/// The offset of a connection's timestamp clock, so that clocks of different connections cannot be compared (RFC 7323,
/// section 7.1). It is the same for all connections of a 4-tuple, so that TIME-WAIT can tell a new one by its timestamp.
pub(crate) fn timestamp_offset(secret: Key, key: &FlowKey) -> u32 {
    (key.secret_hash(secret) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_time_and_differs_by_tuple_and_secret() {
        let key = FlowKey::new("198.18.0.1:80".parse().unwrap(), "198.18.0.2:1000".parse().unwrap());
        let other = FlowKey::new("198.18.0.1:80".parse().unwrap(), "198.18.0.2:1001".parse().unwrap());
        let (secret, now) = (Key(1, 2), Instant::from_millis(10));
        let isn = initial(secret, &key, now);
        assert_eq!(initial(secret, &key, Instant::from_millis(11)) - isn, 250);
        assert_ne!(initial(secret, &other, now), isn);
        assert_ne!(initial(Key(1, 3), &key, now), isn);
    }
}
