//! The engine against smoltcp over a perfect link, in both roles.

use std::time::Duration;

use tidegate_sim::check;
use tidegate_sim::scenario::{Scenario, Stack};
use tidegate_sim::smoltcp_host::SmoltcpSettings;

fn smoltcp(number: u64) -> Stack {
    Stack::Smoltcp(SmoltcpSettings {
        mtu: 1500,
        receive_buffer: if number & 1 == 0 { 16_384 } else { 262_144 },
        send_buffer: 65_535,
        delayed_ack: Some(Duration::from_millis(10)),
        nagle: number & 2 == 0,
        timestamps: number & 4 == 0,
        reno: number & 8 == 0,
        seed: number,
    })
}

#[test]
fn both_roles_over_both_ip_versions() {
    for number in 0..64 {
        let mut scenario = Scenario::clean(number, number & 16 == 0, 100_000, 150_000);
        let party = if number & 32 == 0 {
            &mut scenario.client
        } else {
            &mut scenario.server
        };
        party.stack = smoltcp(number);
        match check::run(&scenario, None) {
            Ok(report) => {
                assert_eq!(report.bytes, 250_000);
                assert!(!report.stalled, "{scenario}");
            }
            Err(failure) => panic!("{failure}"),
        }
    }
}
