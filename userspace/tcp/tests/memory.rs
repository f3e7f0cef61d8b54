//! Memory for what was received: no peer makes the engine hold more than its totals, and nothing is lost by that.
#![allow(missing_docs)]

#[path = "common/readers.rs"]
mod readers;

use std::time::Duration;

use readers::*;
use tidegate_tcp::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::wire::Flags;

const ACK: Flags = Flags::ACK;
const FIN: Flags = Flags::FIN;

fn with_total(bytes: u64) -> Config {
    Config {
        receive_bytes_total: bytes,
        reassembly_bytes_total: bytes / 4,
        max_connections: 64,
        ..Config::default()
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn grown_windows_that_are_filled_at_once_stay_within_the_total() {
    let mut readers = Readers::new(with_total(1 << 20), 32);
    let mut most = 0;
    let length = fill_grown_windows(&mut readers, &mut |readers| {
        most = readers.engine.received_bytes().max(most)
    });
    assert!(most > 1 << 19, "{most} bytes: there was no pressure");
    assert!(readers.count(Counter::DropReceiveBytesTotal) > 0);
    readers.finish(length);
}

#[test]
fn single_octets_out_of_order_stay_within_the_total_and_arrive() {
    let mut readers = Readers::new(with_total(256 << 10), 32);
    let mut most = 0;
    let length = hold_single_octets(&mut readers, &mut |readers| {
        most = readers.engine.reassembly_bytes().max(most)
    });
    assert!(most > 48 << 10, "{most} bytes");
    assert!(readers.count(Counter::DropReassemblyFull) > 0);
    readers.finish(length);
}

#[test]
fn anything_at_any_place_stays_within_the_totals_and_arrives() {
    for seed in 1..=20 {
        let total = [10_000, 100_000, 1 << 20][seed as usize % 3];
        let config = Config {
            receive_buffer_initial: 128 << 10,
            ..with_total(total)
        };
        let mut readers = Readers::new(config, 8);
        let length = send_anything(&mut readers, seed, &mut |_| {});
        // Those that have sent FIN by now do not send it again.
        readers.finish(length);
    }
}

#[test]
fn out_of_order_data_is_given_up_before_any_in_order_data_is_refused() {
    let config = Config {
        receive_buffer_initial: 256 << 10,
        reassembly_bytes_total: 64 << 10,
        ..with_total(64 << 10)
    };
    let mut readers = Readers::new(config, 1);
    for position in (100_000..160_000).step_by(FULL) {
        readers.send(0, position, FULL, ACK);
    }
    let held = readers.engine.reassembly_bytes();
    assert!(
        (40_000..=48 << 10).contains(&held),
        "the last quarter is kept free, {held} bytes"
    );
    let mut position = 0;
    while readers.engine.reassembly_bytes() > 0 {
        readers.send(0, position, 1000, ACK);
        position += 1000;
        assert_eq!(readers.count(Counter::DropReceiveBytesTotal), 0);
        assert!(
            readers.acknowledged(0) >= position - 1000,
            "every second one is acknowledged at once"
        );
    }
    assert!(position > 48_000, "{position} bytes in order");
    while readers.count(Counter::DropReceiveBytesTotal) == 0 {
        readers.send(0, position, 1000, ACK);
        position += 1000;
    }
    // What is refused is asked for again at once, by an acknowledgment of what was there before.
    assert_eq!(readers.acknowledged(0), position - 1000);
    readers.finish(170_000);
}

#[test]
fn a_fin_is_not_taken_before_the_text_it_ends() {
    let mut readers = Readers::new(with_total(4000), 1);
    readers.send(0, 0, FULL, ACK);
    readers.send(0, FULL, FULL, ACK);
    readers.send(0, 2 * FULL, FULL, FIN);
    assert_eq!(readers.count(Counter::DropReceiveBytesTotal), 1);
    assert_eq!(readers.acknowledged(0), 2 * FULL);
    readers.app().reads = true;
    readers.pass(ms(200));
    assert_eq!((readers.app().read[0], readers.app().ends), (2 * FULL, 0));
    readers.send(0, 2 * FULL, FULL, FIN);
    assert_eq!((readers.app().read[0], readers.app().ends), (3 * FULL, 1));
    assert_eq!(readers.acknowledged(0), 3 * FULL + 1);
}

#[test]
fn without_any_memory_each_connection_still_has_that_of_a_segment() {
    let mut readers = Readers::new(with_total(0), 4);
    readers.app().reads = true;
    // A request in two parts, of which the application reads nothing before it has both.
    readers.app().at_least = 1000;
    for index in 0..4 {
        readers.send(index, 0, 600, ACK);
        assert_eq!(readers.app().read[index], 0);
    }
    for index in 0..4 {
        readers.send(index, 600, 600, ACK);
        assert_eq!(readers.app().read[index], 1200);
    }
    assert_eq!(readers.engine.received_bytes(), 0);
    assert_eq!(readers.count(Counter::DropReceiveBytesTotal), 0);
    // Out of order nothing is held then.
    readers.send(0, 5000, 100, ACK);
    assert_eq!(readers.count(Counter::DropReassemblyFull), 1);
    assert_eq!(readers.engine.reassembly_bytes(), 0);
    // An application that reads all of it at once needs no memory at all.
    readers.finish(300_000);
    assert_eq!(readers.count(Counter::DropReceiveBytesTotal), 0);
}

#[test]
fn memory_goes_back_as_it_is_read() {
    let mut readers = Readers::new(with_total(1 << 20), 1);
    readers.fill(0, 60_000);
    let held = readers.engine.received_bytes();
    assert!((60_000..100_000).contains(&held), "{held} bytes");
    (readers.app().reads, readers.app().leaves) = (true, 100);
    readers.pass(ms(200));
    assert_eq!(readers.app().read[0], 60_000 - 100);
    let left = readers.engine.received_bytes();
    assert!(left <= 100 + 256, "{left} bytes for 100");
    readers.finish(60_000);
}

#[test]
fn no_window_is_promised_for_which_there_may_be_no_memory() {
    let mut readers = Readers::new(with_total(100_000), 3);
    (readers.app().reads, readers.app().ignored) = (true, 2);
    readers.fill(0, 64_000);
    readers.fill(1, 16_000);
    // Nearly all is used by connections that are not read. The third is read, and can go on, but with less at a time.
    readers.fill(2, 60_000);
    assert_eq!(readers.app().read[2], 60_000);
    assert!(
        (8 << 10..=16 << 10).contains(&readers.window(2)),
        "{}",
        readers.window(2)
    );
    // All of it is.
    readers.fill(1, 64_000);
    assert!(readers.count(Counter::DropReceiveBytesTotal) > 0);
    let mut length = 60_000;
    while length < 100_000 {
        length += FULL;
        readers.fill(2, length);
        readers.pass(ms(50));
        assert!(readers.app().read[2] + FULL > length, "it goes on, a segment at a time");
    }
    assert!((500..=1500).contains(&readers.window(2)), "{}", readers.window(2));
    readers.finish(length);
    assert!(readers.window(2) >= 16 << 10);
}

/// A connection whose window has grown.
fn grown() -> Readers {
    let mut readers = Readers::new(with_total(64 << 20), 1);
    readers.app().reads = true;
    let mut length = 0;
    while readers.window(0) < 1 << 20 {
        length += 40 * FULL;
        readers.fill(0, length);
        assert!(length < 100 << 20, "the window does not grow");
    }
    readers
}

#[test]
fn a_window_that_has_grown_shrinks_when_its_peer_was_idle() {
    let mut readers = grown();
    let grown = readers.window(0);
    readers.pass(ms(60_000));
    // What was offered is honoured; nothing is added to it.
    let mut sent = 0;
    while readers.window(0) > 64 << 10 {
        let end = readers.acknowledged(0) + 10 * FULL;
        readers.fill(0, end);
        readers.pass(ms(500));
        sent += 10 * FULL;
        assert!(sent <= 2 * grown, "the window is still of {} bytes", readers.window(0));
    }
    let end = readers.acknowledged(0) + 100_000;
    readers.finish(end);
}

#[test]
fn a_busy_window_that_has_grown_stays_large() {
    let mut readers = grown();
    for _ in 0..100 {
        let end = readers.acknowledged(0) + 40 * FULL;
        readers.fill(0, end);
        readers.pass(Duration::from_micros(100));
        assert!(readers.window(0) >= 1 << 20);
    }
}
