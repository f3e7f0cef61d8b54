//! Verdicts by source: prefixes that are allowed or denied ([`rules`]), and the limit of SYNs ([`rate`]).

mod rate;
mod rules;

use std::net::IpAddr;

/// The address in `text`.
fn address(text: &str) -> IpAddr {
    text.parse().expect("an IP address")
}
