//! Random keys.

use tidegate_abi::flow_filter::{FlowHasher, RANDOM_WORDS};
use tidegate_abi::siphash::Key;
use tidegate_tcp::engine::Secrets;

use crate::error::Error;
use crate::random;

/// Room for all flows that so many engines may have.
pub(super) fn flow_hasher(tcp: &tidegate_tcp::Config, engines: u32) -> Result<FlowHasher, Error> {
    let each = [tcp.max_connections, tcp.max_half_open, tcp.max_time_wait].map(u64::from);
    let bytes: [u8; RANDOM_WORDS * 8] = random::bytes()?;
    let mut numbers = [0; RANDOM_WORDS];
    for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
        *number = u64::from_ne_bytes(*bytes);
    }
    Ok(FlowHasher::new(each.iter().sum::<u64>() * u64::from(engines), numbers))
}

/// Random keys of one engine. Every engine has its own, so that the acknowledgment of a SYN-ACK tells which shard sent
/// it when a retransmitted SYN arrived on another queue than the first.
pub(super) fn secrets() -> Result<Secrets, Error> {
    let keys: [u8; 32] = random::bytes()?;
    let (mut isn, mut table) = ([0; 16], [0; 16]);
    isn.copy_from_slice(&keys[..16]);
    table.copy_from_slice(&keys[16..]);
    Ok(Secrets {
        isn: Key::from_bytes(isn),
        table: Key::from_bytes(table),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_gets_keys_of_its_own() {
        let (first, second) = (secrets().expect("keys"), secrets().expect("keys"));
        assert!(first.isn != second.isn && first.table != second.table);
        assert!(first.isn != first.table);
    }
}
