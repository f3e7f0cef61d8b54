//! Initial sequence numbers (RFC 6528; RFC 9293, section 3.4.1).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::*;
use tidegate_tcp::Engine;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;

/// The sequence number of the SYN-ACK to a SYN sent now; the half-open connection is reset again.
#[track_caller]
fn initial(rig: &mut Rig) -> SeqNumber {
    rig.syn(Options::default());
    let iss = rig.one().seq;
    rig.peer(RST, b"");
    rig.nothing();
    iss
}

#[test]
fn the_same_pair_starts_higher_four_microseconds_later() {
    let mut rig = Rig::new(config(), App::default());
    let first = initial(&mut rig);
    for micros in [4_u64, 400, 1_000_000, 60_000_000] {
        let before = initial(&mut rig);
        rig.now = rig.now + Duration::from_micros(micros);
        let after = initial(&mut rig);
        assert_eq!(u64::from(after - before), micros / 4);
    }
    assert!(initial(&mut rig).after(first));
}

#[test]
fn the_clock_wraps_every_five_hours_without_a_jump() {
    // 2^32 times 4 microseconds are 4.77 hours.
    let mut rig = Rig::new(config(), App::default());
    let start = initial(&mut rig);
    for hour in 1..=12_u64 {
        rig.now = rig.now + Duration::from_secs(3600);
        let expected = (hour * 3600 * 250_000) as u32;
        assert_eq!(initial(&mut rig) - start, expected, "after {hour} hours");
    }
}

#[test]
fn an_active_open_uses_the_same_generator() {
    let mut rig = Rig::new(config(), App::default());
    let passive = initial(&mut rig);
    assert_eq!(rig.active_open().seq, passive);
}

#[test]
fn numbers_of_other_pairs_and_other_secrets_tell_nothing() {
    let mut rig = Rig::new(config(), App::default());
    let mut differences = BTreeSet::new();
    let mut last = initial(&mut rig);
    for port in 0..200 {
        rig.key.local_port = 20_000 + port;
        let next = initial(&mut rig);
        differences.insert(next - last);
        last = next;
    }
    assert_eq!(differences.len(), 200, "differences repeat");
    // They are spread over the whole space, not counted up.
    let quarters: BTreeSet<u32> = differences.iter().map(|difference| difference >> 30).collect();
    assert_eq!(quarters.len(), 4);

    let mut first = Rig::new(config(), App::default());
    let mut second = Rig::new(config(), App::default());
    second.engine = Engine::new(config(), secrets(2), App::default());
    second.engine.listen(SERVER.parse().unwrap());
    assert_ne!(initial(&mut first), initial(&mut second));
}
