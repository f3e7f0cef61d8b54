//! The engine counts the memory it takes for received data: scripts of userspace/tcp/tests/memory.rs, with the memory
//! of the test's thread measured after every segment.
#![allow(missing_docs)]

#[path = "../../../userspace/tcp/tests/common/readers.rs"]
mod readers;

use readers::{Readers, fill_grown_windows, hold_single_octets, send_anything};
use tidegate_engine_bench::{CountingAllocator, held_bytes};
use tidegate_tcp::Config;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Timers, lists of the engine, and the frames of the peers, which belong to the test.
const REST: usize = 32 << 10;

/// Memory of each connection for its FIN that came out of order, or its D-SACK, without any data.
const FOR_EACH: usize = 256;

/// Sends something and says after each segment; returns how long the streams are.
type Script = fn(&mut Readers, &mut dyn FnMut(&Readers)) -> usize;

/// Runs a script and then has everything read; compares what there is at any time with what there was before.
fn measure(name: &str, total: u64, count: usize, script: Script) {
    let config = Config {
        receive_bytes_total: total,
        reassembly_bytes_total: total / 2,
        receive_buffer_initial: 128 << 10,
        ..Config::default()
    };
    let mut readers = Readers::new(config, count);
    let before = held_bytes();
    let mut most = 0;
    let length = script(&mut readers, &mut |readers| {
        let taken = (held_bytes() - before).max(0) as usize;
        let counted = readers.engine.received_bytes() as usize;
        assert!(
            taken <= counted + count * FOR_EACH + REST,
            "{name}: {taken} bytes are taken and {counted} counted"
        );
        most = most.max(taken);
    });
    println!("{name}: {most} bytes at most");
    assert!(most > total as usize / 4, "{name}: {most} bytes are no pressure");
    readers.finish(length);
    let left = (held_bytes() - before).max(0) as usize;
    assert!(left <= REST, "{name}: {left} bytes are left");
}

#[test]
fn what_is_counted_is_what_is_taken() {
    measure("windows", 1 << 20, 32, |readers, mut look| {
        fill_grown_windows(readers, &mut look)
    });
    measure("octets", 1 << 20, 64, |readers, mut look| {
        hold_single_octets(readers, &mut look)
    });
    measure("anything", 1 << 18, 16, |readers, mut look| {
        send_anything(readers, 7, &mut look)
    });
}
