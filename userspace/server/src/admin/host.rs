//! The hosts that requests may be for.
//!
//! A page of a stranger cannot read what another server answers to the browser it is open in, unless the name of its
//! own server becomes that of the other (DNS rebinding). The browser then sends that name, which is none of this
//! server's.

use std::net::{IpAddr, Ipv6Addr};

use hyper::Request;
use hyper::header::HOST;
use hyper::http::uri::Authority;
use tidegate_tcp::config::InvalidSetting;

/// The names that requests may be for, beside IP addresses and `localhost`.
pub(super) struct Hosts {
    /// In lower case.
    names: Vec<String>,
}

impl Hosts {
    /// Hosts of these names, which [`check_name`] has let pass.
    pub(super) fn new(names: &[String]) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase());
        Self { names: names.collect() }
    }

    /// Whether a request is for one of them. One without the field Host comes from no browser.
    pub(super) fn allow<B>(&self, request: &Request<B>) -> bool {
        let fields = request.headers().get_all(HOST).iter();
        let of_fields = fields.map(|field| Authority::try_from(field.as_bytes()).ok());
        let of_target = request.uri().authority().cloned().map(Some);
        of_fields
            .chain(of_target)
            .all(|authority| authority.is_some_and(|authority| self.has(authority.host())))
    }

    fn has(&self, host: &str) -> bool {
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match literal {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => {
                let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
                host.parse::<IpAddr>().is_ok() || name == "localhost" || self.names.contains(&name)
            }
        }
    }
}

/// Checks that `name` of the key `admin_hosts` can be a host's: letters, digits, `-`, `_` and `.`, without a port.
///
/// # Errors
///
/// Returns an error if it cannot.
pub(crate) fn check_name(name: &str) -> Result<(), InvalidSetting> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.is_empty() && !name.ends_with('.') && name.bytes().all(is_part) {
        return Ok(());
    }
    Err(InvalidSetting::new(
        ["admin_hosts"],
        format!("admin_hosts has {name:?}; it must be the name of a host, without a port, such as \"host.example\""),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(hosts: &Hosts, target: &str, fields: &[&str]) -> bool {
        let request = fields
            .iter()
            .fold(Request::get(target), |request, field| request.header(HOST, *field));
        hosts.allow(&request.body(()).unwrap())
    }

    #[test]
    fn addresses_localhost_and_names_that_are_given_are_allowed_and_others_are_not() {
        let hosts = Hosts::new(&["Metrics.example".to_owned()]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:9464",
            "[::1]:9464",
            "[2001:2::1]",
            "localhost:9464",
            "LocalHost",
            "localhost.",
            "metrics.example:80",
            "METRICS.EXAMPLE.",
        ] {
            assert!(allows(&hosts, "/metrics", &[host]), "{host}");
        }
        for host in [
            "attacker.example",
            "attacker.example:9464",
            "127.0.0.1.attacker.example",
            "localhost.attacker.example",
            "a.metrics.example",
            "[v1.attacker]",
            "",
            "a b",
        ] {
            assert!(!allows(&hosts, "/metrics", &[host]), "{host}");
        }
        assert!(!allows(&Hosts::new(&[]), "/metrics", &["metrics.example"]));
    }

    #[test]
    fn every_host_of_a_request_has_to_be_allowed() {
        let hosts = Hosts::new(&[]);
        assert!(allows(&hosts, "/", &[]));
        assert!(!allows(&hosts, "/", &["127.0.0.1", "attacker.example"]));
        assert!(!allows(&hosts, "http://attacker.example/", &["127.0.0.1"]));
        assert!(!allows(&hosts, "http://127.0.0.1/", &["attacker.example"]));
        assert!(allows(&hosts, "http://127.0.0.1/", &["127.0.0.1"]));
    }

    #[test]
    fn names_have_no_ports_and_no_wildcards() {
        for name in ["host", "host-1.example"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "host:80", "*.example", "host.", "http://host"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
