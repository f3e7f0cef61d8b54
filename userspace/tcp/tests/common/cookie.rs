//! SYN-ACKs with cookies as the XDP program sends them, and engines that accept them.

use tidegate_abi::siphash::Key;
use tidegate_abi::syn_cookie::{self, Accepted, Addresses, Content, Keys, MSS_V4, MSS_V6, NO_WINDOW_SCALE, mss_index};
use tidegate_tcp::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::Cookies;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;

use super::{ACK, App, Rig, config};

pub const SECRET: Key = Key(7, 11);
pub const EPOCH: u64 = 58_000_000;

/// The clock of the XDP program, in milliseconds; the engine's shows something else.
pub const CLOCK: u32 = 123_456_789;

pub const V6: (&str, &str) = ("[2001:2::1]:80", "[2001:2::2]:40000");

pub fn cookies(epoch: u64) -> Cookies {
    Cookies {
        keys: Keys::new(SECRET, epoch, false),
        accepted: Accepted::All,
        shard: 0,
        shards: 1,
    }
}

/// An engine that accepts the cookies of [`EPOCH`] and the one before.
pub fn rig(limits: Config, app: App) -> Rig {
    let mut rig = Rig::new(limits, app);
    rig.engine.set_cookies(Some(cookies(EPOCH)));
    rig
}

pub fn rig_v6(app: App) -> Rig {
    let mut rig = Rig::between(config(), app, V6.0, V6.1);
    rig.engine.set_cookies(Some(cookies(EPOCH)));
    rig
}

/// The handshake of the rig's peer, whose SYN is the next it sends.
fn handshake(rig: &Rig, timestamps: bool) -> syn_cookie::Handshake {
    let (client, server) = (rig.key.local, rig.key.remote);
    let last_four = |address: [u8; 16]| {
        let [.., a, b, c, d] = address;
        [a, b, c, d]
    };
    syn_cookie::Handshake {
        addresses: if rig.key.is_v4() {
            Addresses::v4(last_four(client), last_four(server))
        } else {
            Addresses::v6(client, server)
        },
        client_port: rig.key.local_port,
        server_port: rig.key.remote_port,
        client_isn: rig.seq.0,
        timestamps,
    }
}

/// The options of the peer's SYN as a cookie holds them.
fn offered(rig: &Rig, options: Options, ecn: bool) -> syn_cookie::Options {
    let (table, default) = if rig.key.is_v4() {
        (&MSS_V4, 536)
    } else {
        (&MSS_V6, 1220)
    };
    syn_cookie::Options {
        mss_index: mss_index(table, options.mss.unwrap_or(default)),
        window_scale: options.window_scale.unwrap_or(NO_WINDOW_SCALE),
        sack_permitted: options.sack_permitted,
        ecn,
    }
}

/// The peer's SYN, with these options, is answered with a cookie of `content`.
fn answered_with(rig: &mut Rig, epoch: u64, clock: u32, options: Options, content: Content) -> SeqNumber {
    let (key, key_id) = Keys::new(SECRET, epoch, false).current();
    let cookie = syn_cookie::make(key, key_id, &handshake(rig, options.timestamps.is_some()), content);
    rig.timestamp = options.timestamps.map(|timestamps| timestamps.value);
    rig.echo = cookie.timestamp(clock);
    rig.seq += 1;
    rig.ack = SeqNumber(cookie.isn) + 1;
    SeqNumber(cookie.isn)
}

/// The peer sends a SYN with these options, and the XDP program answers it with a cookie of `epoch`, by a clock that
/// shows `clock`. What the peer sends next acknowledges that. Returns the sequence number of the SYN-ACK.
pub fn answered_at(rig: &mut Rig, epoch: u64, clock: u32, options: Options, ecn: bool) -> SeqNumber {
    let content = Content::Options(offered(rig, options, ecn));
    answered_with(rig, epoch, clock, options, content)
}

/// The same for a SYN without timestamps, which is answered with a strong cookie.
pub fn strongly_answered(rig: &mut Rig, options: Options) -> SeqNumber {
    assert_eq!(options.timestamps, None, "no strong cookie is for such a SYN");
    let content = Content::Mss(offered(rig, options, false).mss_index);
    answered_with(rig, EPOCH, CLOCK, options, content)
}

pub fn answered(rig: &mut Rig, options: Options) -> SeqNumber {
    answered_at(rig, EPOCH, CLOCK, options, false)
}

/// A connection that began with a cookie; returns the sequence number of the SYN-ACK.
#[track_caller]
pub fn connect(rig: &mut Rig, options: Options) -> SeqNumber {
    let iss = answered(rig, options);
    rig.peer(ACK, b"");
    assert_eq!(rig.count(Counter::CookieConnections), 1);
    iss
}
