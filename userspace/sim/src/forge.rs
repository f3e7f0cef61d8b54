//! Forged acknowledgments of SYN cookies (RFC 4987, section 3.6): someone who knows an address and port that are
//! served, but not the key, sends bare ACKs in the hope that one of them repeats a cookie and becomes a connection.
//!
//! Of guesses without timestamps one in 2^22 is right, or one in 2^29 while only strong cookies are accepted, and of
//! those with timestamps one in 2^32 ([`tidegate_abi::syn_cookie`]). So some of many millions do become connections,
//! and what is checked is that they are not more than chance explains: the expected number plus six standard deviations
//! plus one. (While the clocks of several hosts may differ, a second key is tried for half of the guesses; here there
//! is one for each.)
//!
//! Cookies that are genuine, but for another handshake or another time, are guesses too. Nearly all that are sent here
//! carry timestamps, so that none of them is expected to be accepted: it would happen with one seed in a thousand.

mod acknowledgment;
mod replay;
mod report;
mod server;

use std::net::IpAddr;

use tidegate_abi::siphash::Key;
use tidegate_abi::syn_cookie::{Accepted, ISN_TAG_BITS, STRONG_TAG_BITS, TIMESTAMP_TAG_BITS};
use tidegate_random::Random;
use tidegate_tcp::counters::Counter;

pub use self::report::Report;

use self::acknowledgment::{Acknowledgment, client_end, server_end};
use self::replay::replay;
use self::server::Server;
use crate::segment::ETHERNET_HEADER;

/// Guesses between two reports of progress.
const STEP: u64 = 1 << 16;

/// Sends `tries` guesses to a server that has `accepted` cookies, and then the genuine cookies of other handshakes and
/// times. `progress` is told of further guesses now and then.
///
/// # Errors
///
/// More guesses became connections than chance explains, one was not counted or answered as it should, a cookie was
/// accepted that must not be, or refused that must be accepted; in words.
pub fn acknowledgments(
    tries: u64,
    seed: u64,
    accepted: Accepted,
    mut progress: impl FnMut(u64),
) -> Result<Report, String> {
    let mut random = Random::new(seed.rotate_left(32) ^ 0xf0f6);
    let secret = Key(random.word(), random.word());
    let mut server = Server::new(&mut random, secret, accepted);
    let mut templates = Template::all();
    let mut report = Report {
        without_timestamps: 0,
        with_timestamps: 0,
        connections: 0,
        expected: 0.0,
        resets: 0,
        genuine: 0,
        refused: Vec::new(),
    };
    let mut done = 0;
    while done < tries {
        let step = STEP.min(tries - done);
        for number in done..done + step {
            let template = &mut templates[(number & 3) as usize];
            if template.stamped {
                report.with_timestamps += 1;
            } else {
                report.without_timestamps += 1;
            }
            template.guess(&mut random);
            server.receive(&template.frame);
        }
        done += step;
        progress(step);
    }
    report.expected = expected(report.without_timestamps, report.with_timestamps, accepted);
    report.connections = server.accepted();
    report.resets = server.count(Counter::RstsOut);
    judge(&report, &server)?;
    server.close_all();
    replay(&mut report, &mut server, secret, &mut random)?;
    Ok(report)
}

/// The number of guesses expected to be right.
fn expected(without_timestamps: u64, with_timestamps: u64, accepted: Accepted) -> f64 {
    let chance = |bits: u32| 1.0 / (1_u64 << bits) as f64;
    let with_options = if accepted == Accepted::All {
        chance(ISN_TAG_BITS)
    } else {
        0.0
    };
    without_timestamps as f64 * (chance(ISN_TAG_BITS + STRONG_TAG_BITS) + with_options)
        + with_timestamps as f64 * chance(ISN_TAG_BITS + TIMESTAMP_TAG_BITS)
}

/// The number of right guesses that chance explains when `expected` are to be expected.
fn explained(expected: f64) -> f64 {
    expected + 6.0 * expected.sqrt() + 1.0
}

fn judge(report: &Report, server: &Server) -> Result<(), String> {
    if report.connections as f64 > explained(report.expected) {
        return Err(format!(
            "{} guesses became connections, {:.2} were to be expected",
            report.connections, report.expected
        ));
    }
    let tries = report.without_timestamps + report.with_timestamps;
    // Who guesses in the server's own name is refused before the cookie is looked at.
    let refused = server.count(Counter::DropBadCookie) + server.count(Counter::DropBadSource);
    if refused + report.connections != tries {
        return Err(format!(
            "of {tries} guesses {} became connections and {refused} were counted as wrong",
            report.connections
        ));
    }
    if report.resets > server.resets_allowed() {
        return Err(format!("{} guesses were answered with RST", report.resets));
    }
    Ok(())
}

/// A frame into which guesses are written, since making it anew would cost more than the engine does. The checksums
/// become wrong; the engine does not look at them here.
struct Template {
    frame: Vec<u8>,
    ipv4: bool,
    stamped: bool,
    /// The offset of the TCP header.
    tcp: usize,
}

impl Template {
    /// Both versions of IP, with timestamps and without.
    fn all() -> [Self; 4] {
        [(true, false), (true, true), (false, false), (false, true)].map(|(ipv4, stamped)| {
            let frame = Acknowledgment {
                client: client_end(ipv4, 0, 0),
                server: server_end(ipv4),
                seq: 0,
                ack: 0,
                timestamps: stamped.then_some((0, 0)),
            }
            .frame();
            let tcp = ETHERNET_HEADER + if ipv4 { 20 } else { 40 };
            Self {
                frame,
                ipv4,
                stamped,
                tcp,
            }
        })
    }

    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.frame[at..at + N].copy_from_slice(&bytes);
    }

    /// Another client, other numbers.
    fn guess(&mut self, random: &mut Random) {
        let word = random.word();
        let port = 1024 + (word % 60_000) as u16;
        let client = client_end(self.ipv4, word >> 16, port).address;
        match client.ip() {
            IpAddr::V4(v4) => self.put(self.tcp - 8, v4.octets()),
            IpAddr::V6(v6) => self.put(self.tcp - 32, v6.octets()),
        }
        self.put(self.tcp, client.port().to_be_bytes());
        // SEG.SEQ and SEG.ACK.
        self.put(self.tcp + 4, random.word().to_be_bytes());
        if self.stamped {
            // TSval and TSecr.
            self.put(self.tcp + 24, random.word().to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::server::EPOCH;
    use crate::segment::{ACK, View};

    #[test]
    fn what_chance_explains_follows_from_the_bits() {
        assert_eq!(expected(1 << 29, 0, Accepted::Strong), 1.0);
        assert_eq!(expected(1 << 29, 0, Accepted::All), 129.0);
        for accepted in [Accepted::All, Accepted::Strong] {
            assert_eq!(expected(0, 1 << 32, accepted), 1.0);
            assert_eq!(expected(0, 0, accepted), 0.0);
        }
        assert_eq!(explained(0.0), 1.0);
        assert_eq!(explained(4.0), 17.0);
    }

    #[test]
    fn more_connections_than_chance_explains_are_a_failure() {
        let mut random = Random::new(1);
        let secret = Key(1, 2);
        let mut server = Server::new(&mut random, secret, Accepted::All);
        let mut report = Report {
            without_timestamps: 5,
            with_timestamps: 0,
            connections: 0,
            expected: expected(5, 0, Accepted::All),
            resets: 0,
            genuine: 0,
            refused: Vec::new(),
        };
        // With the key no luck is needed.
        for number in 0..5 {
            let acknowledgment = Acknowledgment::genuine(number, secret, EPOCH, Accepted::All, &mut random);
            server.receive(&acknowledgment.frame());
        }
        report.connections = server.accepted();
        assert_eq!(report.connections, 5);
        let problem = judge(&report, &server).unwrap_err();
        assert!(problem.starts_with("5 guesses became connections"), "{problem}");
    }

    #[test]
    fn cookies_accepted_at_the_wrong_time_are_noticed() {
        let mut random = Random::new(1);
        let secret = Key(1, 2);
        let mut report = acknowledgments(4, 1, Accepted::All, |_| {}).unwrap();
        let mut server = Server::new(&mut random, secret, Accepted::All);
        server.set_epoch(secret, EPOCH + 1);
        let problem = replay(&mut report, &mut server, secret, &mut random).unwrap_err();
        assert!(problem.ends_with("an epoch early"), "{problem}");
    }

    #[test]
    fn guesses_are_segments_of_both_versions_with_and_without_timestamps() {
        let mut random = Random::new(7);
        for mut template in Template::all() {
            for _ in 0..100 {
                template.guess(&mut random);
                let view = View::read(&template.frame).unwrap();
                assert_eq!(view.destination, server_end(template.ipv4).address);
                assert_eq!(view.options.is_empty(), !template.stamped);
                assert!(view.source.port() >= 1024);
                assert_eq!(view.flags, ACK);
            }
        }
    }
}
