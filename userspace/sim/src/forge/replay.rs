//! Genuine cookies, sent in the place of others and at other times.

use std::net::IpAddr;

use tidegate_abi::siphash::Key;
use tidegate_random::Random;

use super::acknowledgment::{Acknowledgment, PORTS, servers};
use super::report::Report;
use super::server::{EPOCH, Server};

/// Genuine cookies sent unchanged, and as many changed in each way.
const REPLAYS: u64 = 10_000;

/// A change of what a client sends, by which its cookie is no longer its own.
type Change = fn(&mut Acknowledgment);

const CHANGES: [(&str, Change); 7] = [
    ("another client port", |it| {
        let port = it.client.address.port();
        it.client.address.set_port(port ^ 1);
    }),
    ("another client address", |it| {
        let ip = match it.client.address.ip() {
            IpAddr::V4(v4) => IpAddr::from((u32::from(v4) ^ 1).to_be_bytes()),
            IpAddr::V6(v6) => IpAddr::from((u128::from(v6) ^ 1).to_be_bytes()),
        };
        it.client.address.set_ip(ip);
    }),
    ("another server port", |it| it.server.address.set_port(PORTS[1])),
    ("another server address", |it| {
        let ipv4 = it.server.address.is_ipv4();
        it.server.address.set_ip(servers(ipv4)[1]);
    }),
    ("another sequence number", |it| it.seq = it.seq.wrapping_add(1)),
    ("another acknowledgment number", |it| it.ack = it.ack.wrapping_add(1)),
    ("timestamps changed, or added", |it| {
        it.timestamps = Some(it.timestamps.map_or((1, 1), |(value, echo)| (value, echo ^ 1)));
    }),
];

/// Sends genuine cookies: as they are, changed, and at other times than theirs.
pub(super) fn replay(report: &mut Report, server: &mut Server, secret: Key, random: &mut Random) -> Result<(), String> {
    let accepted = server.accepted_cookies();
    let other_secret = Key(random.word(), random.word());
    let mut refuse = |server: &mut Server, what, frames: &mut dyn Iterator<Item = Vec<u8>>| {
        let before = server.accepted();
        let mut tried = 0;
        for frame in frames {
            server.receive(&frame);
            tried += 1;
        }
        let accepted = server.accepted() - before;
        if accepted > 0 {
            return Err(format!("{accepted} of {tried} cookies were accepted: {what}"));
        }
        report.refused.push((what, tried));
        Ok(())
    };
    for (what, change) in CHANGES {
        let mut frames = (0..REPLAYS).map(|number| {
            let mut acknowledgment = Acknowledgment::genuine(number, secret, EPOCH, accepted, random);
            change(&mut acknowledgment);
            acknowledgment.frame()
        });
        refuse(server, what, &mut frames)?;
    }
    for (what, secret, epoch) in [
        ("two epochs old", secret, EPOCH - 2),
        ("three epochs old", secret, EPOCH - 3),
        ("an epoch early", secret, EPOCH + 1),
        ("of another secret", other_secret, EPOCH),
    ] {
        let mut frames =
            (0..REPLAYS).map(|number| Acknowledgment::genuine(number, secret, epoch, accepted, random).frame());
        refuse(server, what, &mut frames)?;
    }

    // The same ones are accepted in their epoch and the next, and from then on no longer.
    let genuine: Vec<Vec<u8>> = (0..REPLAYS)
        .map(|number| Acknowledgment::genuine(number, secret, EPOCH, accepted, random).frame())
        .collect();
    let mut accepted = 0;
    for later in 0..2 {
        server.set_epoch(secret, EPOCH + later);
        let before = server.accepted();
        for frame in &genuine {
            server.receive(frame);
        }
        let now = server.accepted() - before;
        server.close_all();
        if now != REPLAYS {
            return Err(format!(
                "{now} of {REPLAYS} genuine cookies were accepted, {later} epochs old"
            ));
        }
        accepted += now;
    }
    for (what, later) in [("replayed after two epochs", 2), ("replayed after three epochs", 3)] {
        server.set_epoch(secret, EPOCH + later);
        refuse(server, what, &mut genuine.iter().cloned())?;
    }
    report.genuine = accepted;
    Ok(())
}
