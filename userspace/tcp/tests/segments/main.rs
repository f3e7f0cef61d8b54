//! Scripted segments against the engine, with a clock that is turned by hand.
//!
//! One program for all of them: each that is linked takes longer than its tests.

mod acceptability;
mod active_open;
mod addresses;
mod bbr;
mod blind;
mod bounds;
mod bursts;
mod clock_jumps;
mod closing;
#[path = "../common/mod.rs"]
mod common;
mod configure;
mod congestion;
mod custom_congestion;
mod delayed_ack;
mod ecn;
mod eviction;
mod half_close;
mod half_open;
mod handshake;
mod isn;
mod keepalive;
mod latencies;
mod link;
mod listing;
mod nagle;
mod newreno;
mod next_hop;
mod observers;
mod outstanding;
mod path_mtu;
mod persist;
mod prediction;
mod psh;
mod recovery;
mod reset;
mod rto;
mod sack;
mod shared_flows;
mod source_limits;
mod states;
mod syn_cookie_checks;
mod syn_cookies;
mod syn_options;
mod time_wait;
mod timestamps;
mod transfer;
mod two_engines;
mod undo;
mod urgent;
mod user_timeout;
mod windows;
mod work_per_call;
