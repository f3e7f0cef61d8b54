//! Time of the XDP program for a frame of each kind (root): one run at a time by BPF_PROG_TEST_RUN, timed by the
//! kernel, reading its clock twice included.
#![allow(missing_docs)]

#[path = "../tests/frames/mod.rs"]
#[allow(dead_code)]
mod frames;
#[path = "../tests/program/mod.rs"]
#[allow(dead_code)]
mod program;

use std::net::IpAddr;
use std::time::Duration;

use aya::TestRunOptions;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_abi::flow_filter::FlowHasher;
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::feature::{COOKIES, FLOW_FILTER};
use tidegate_abi::syn_ack::{SynAck, cookie_switch};

use frames::segment::{ACK, Segment, clients};
use program::{BUCKETS, Program};

const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;

const TEMPLATE: SynAck = SynAck {
    window: 65_535,
    mss_v4: 1460,
    mss_v6: 1440,
    window_shift: 7,
    ecn: 0,
    ms_per_jiffy: SynAck::per_jiffy(4_000_000),
};

/// Options of SYNs, as systems send them.
const SYN_OPTIONS: [(&str, &[u8]); 3] = [
    (
        "as Linux",
        &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7],
    ),
    ("as Windows", &[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2]),
    ("no options", &[]),
];

/// The time the program takes for `frame`, by the kernel's clock.
fn time(program: &Program, frame: &[u8]) -> Duration {
    let options = TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::new()
    };
    program.test_run(options).duration
}

fn family(client: IpAddr) -> &'static str {
    if client.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn xdp_program(criterion: &mut Criterion) {
    let Some(mut program) = Program::serving() else { return };
    program.set_cookie_key(0, Key(1, 2));
    program.set_syn_ack(TEMPLATE);
    program.set_flow_hasher(FlowHasher::new(
        u64::from(BUCKETS) * 7,
        core::array::from_fn(|index| !(index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    ));
    let mut group = criterion.benchmark_group("XDP program");
    group.throughput(Throughput::Elements(1));
    let mut measure = |name: String, program: &Program, frame: &[u8]| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|runs| (0..runs).map(|_| time(program, frame)).sum::<Duration>());
        });
    };
    let mut other = Segment::syn(clients()[0]).frame();
    // ARP: the program looks at nothing else.
    other[12..14].copy_from_slice(&[0x08, 0x06]);
    measure("ARP, passed".to_owned(), &program, &other);
    for client in clients() {
        let family = family(client);
        let segment = Segment {
            flags: ACK,
            ..Segment::syn(client)
        };
        measure(format!("{family} segment, redirected"), &program, &segment.frame());
        let other = Segment {
            destination_port: segment.destination_port + 1,
            ..segment
        };
        measure(format!("{family} segment, not served"), &program, &other.frame());
    }
    for (features, what) in [
        (FLOW_FILTER, "of no flow, dropped"),
        (FLOW_FILTER | COOKIES, "of no flow and no cookie, dropped"),
    ] {
        program.set_features(features);
        for client in clients() {
            let segment = Segment {
                flags: ACK,
                ..Segment::syn(client)
            };
            measure(format!("{} segment {what}", family(client)), &program, &segment.frame());
        }
    }
    // As if no bucket had had room.
    for bucket in 0..BUCKETS {
        program.set_bucket(bucket, core::array::from_fn(|word| u32::from(word == 0)));
    }
    for client in clients() {
        let segment = Segment {
            flags: ACK,
            ..Segment::syn(client)
        };
        measure(
            format!("{} segment of a known flow", family(client)),
            &program,
            &segment.frame(),
        );
    }
    for bucket in 0..BUCKETS {
        program.set_bucket(bucket, [0; 16]);
    }
    program.set_cookie_switch(0, cookie_switch::on(0));
    for client in clients() {
        for (options, octets) in SYN_OPTIONS {
            let syn = Segment {
                options: octets.to_vec(),
                ..Segment::syn(client)
            };
            measure(
                format!("{} SYN, {options}, answered with a cookie", family(client)),
                &program,
                &syn.frame(),
            );
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = xdp_program
}
criterion_main!(benches);
