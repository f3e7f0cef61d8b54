//! Servers as command lines name them: a URL, or an address and port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// `http://ADDRESS[:PORT]/PATH`, with an IP address: nothing is resolved, so nothing but the server is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The address and port to connect to.
    pub address: SocketAddr,
    /// The path and query, starting with `/`.
    pub path: String,
    authority: String,
}

/// Parses `ADDRESS:PORT`, with an IP address, whose zone may be given as a number.
///
/// # Errors
///
/// A phrase that names the mistake.
pub fn parse_target(text: &str) -> Result<SocketAddr, String> {
    if let Ok(target) = text.parse::<SocketAddr>()
        && target.port() != 0
    {
        return Ok(target);
    }
    parse_authority(text)?.ok_or_else(|| format!("`{text}` has no port; write ADDRESS:PORT"))
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            _ => return Err("the URL must start with http://".to_owned()),
        };
        // A fragment is none of the server's business (RFC 3986, section 3.5).
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (address, authority) = match parse_authority(authority)? {
            Some(address) => (address, authority.to_owned()),
            None => {
                let host = authority.strip_suffix(':').unwrap_or(authority);
                (SocketAddr::new(parse_host(host)?, 80), host.to_owned())
            }
        };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the path must be printable ASCII; encode other bytes as %XX".to_owned());
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            address,
            path: format!("{slash}{path}"),
            authority,
        })
    }
}

/// Returns address and port; `None` where the port is missing or empty.
fn parse_authority(authority: &str) -> Result<Option<SocketAddr>, String> {
    if authority.contains('@') {
        return Err(format!("`{authority}` has user information, which is not sent"));
    }
    // Colons within brackets are the address's.
    let after_brackets = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = authority[after_brackets..].rfind(':').map(|at| after_brackets + at) else {
        return Ok(None);
    };
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    let host = parse_host(host)?;
    if port.is_empty() {
        return Ok(None);
    }
    let number = port
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| port.parse::<u16>().ok())
        .flatten();
    match number {
        Some(0) => Err("port 0 cannot be connected to".to_owned()),
        Some(port) => Ok(Some(SocketAddr::new(host, port))),
        None => Err(format!("`{port}` is not a port; it must be a number from 1 to 65535")),
    }
}

fn parse_host(host: &str) -> Result<IpAddr, String> {
    if host.is_empty() {
        return Err("the address is missing".to_owned());
    }
    if let Some(bracketed) = host.strip_prefix('[') {
        let inner = bracketed
            .strip_suffix(']')
            .ok_or_else(|| format!("`{host}` has something wrong with its brackets; write [ADDRESS]:PORT"))?;
        if inner.contains('%') {
            return Err(format!(
                "`{host}` has a zone; only addresses that need none can be used"
            ));
        }
        return inner
            .parse::<Ipv6Addr>()
            .map(IpAddr::V6)
            .map_err(|_| format!("`{inner}` is not an IPv6 address"));
    }
    if host.contains(':') {
        return Err(format!("`{host}` is not in brackets; IPv6 addresses go in brackets"));
    }
    host.parse::<Ipv4Addr>()
        .map(IpAddr::V4)
        .map_err(|_| format!("`{host}` is not an IP address; names are not resolved"))
}

impl Url {
    /// Returns a GET request for this URL. With `keep_alive` false it asks the server to close the connection after the
    /// response.
    pub fn request(&self, keep_alive: bool) -> Vec<u8> {
        let Self { path, authority, .. } = self;
        let connection = if keep_alive { "" } else { "Connection: close\r\n" };
        format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: tidegate-bench\r\n{connection}\r\n")
            .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, address, path) in [
            ("http://198.18.0.1:8080/a?b", "198.18.0.1:8080", "/a?b"),
            ("http://198.18.0.1", "198.18.0.1:80", "/"),
            ("http://198.18.0.1:/", "198.18.0.1:80", "/"),
            ("HTTP://198.18.0.1/", "198.18.0.1:80", "/"),
            ("http://198.18.0.1?a=b", "198.18.0.1:80", "/?a=b"),
            ("http://198.18.0.1:81?a/b", "198.18.0.1:81", "/?a/b"),
            ("http://198.18.0.1/a#b", "198.18.0.1:80", "/a"),
            ("http://198.18.0.1#b", "198.18.0.1:80", "/"),
            ("http://[2001:2::1]:81/", "[2001:2::1]:81", "/"),
            ("http://[2001:2::1]/x", "[2001:2::1]:80", "/x"),
            ("http://[2001:2::1]?x", "[2001:2::1]:80", "/?x"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(
                (url.address.to_string().as_str(), url.path.as_str()),
                (address, path),
                "{text}"
            );
        }
    }

    #[test]
    fn a_wrong_url_is_told_why() {
        for (text, why) in [
            ("198.18.0.1/", "http://"),
            ("https://198.18.0.1/", "http://"),
            ("http://name/", "names are not resolved"),
            ("http:///", "missing"),
            ("http://:80/", "missing"),
            ("http://?x", "missing"),
            ("http://198.18.0.1:0x/", "`0x` is not a port"),
            ("http://198.18.0.1:+80/", "`+80` is not a port"),
            ("http://198.18.0.1:65536/", "`65536` is not a port"),
            ("http://198.18.0.1:0/", "port 0"),
            ("http://[2001:2::1]:0/", "port 0"),
            ("http://2001:2::1/", "brackets"),
            ("http://[2001:2::1/", "brackets"),
            ("http://[2001:2::1]x/", "brackets"),
            ("http://[198.18.0.1]/", "not an IPv6 address"),
            ("http://[fe80::1%25eth0]/", "zone"),
            ("http://[fe80::1%eth0]:80/", "zone"),
            ("http://user@198.18.0.1/", "user information"),
            ("http://1.1.1.1/a b", "printable ASCII"),
            ("http://1.1.1.1?\u{fc}", "printable ASCII"),
        ] {
            let error = text.parse::<Url>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn targets_need_a_port() {
        assert_eq!(parse_target("198.18.0.1:7"), Ok(([198, 18, 0, 1], 7).into()));
        for text in ["[2001:2::1]:7", "[fe80::1%2]:7"] {
            assert_eq!(parse_target(text).unwrap().to_string(), text);
        }
        for (text, why) in [
            ("198.18.0.1", "no port"),
            ("198.18.0.1:", "no port"),
            ("198.18.0.1:0", "port 0"),
            ("[fe80::1%eth0]:7", "zone"),
            ("[fe80::1%2]:0", "zone"),
            ("[2001:2::1]", "no port"),
            ("2001:2::1", "brackets"),
            ("", "no port"),
            ("name:7", "names are not resolved"),
        ] {
            let error = parse_target(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_request_asks_to_close_only_without_keep_alive() {
        let url: Url = "http://198.18.0.1:8080?x".parse().unwrap();
        let request = String::from_utf8(url.request(true)).unwrap();
        assert!(request.starts_with("GET /?x HTTP/1.1\r\nHost: 198.18.0.1:8080\r\n"));
        assert!(request.ends_with("\r\n\r\n"));
        assert!(!request.contains("close"));
        assert!(
            String::from_utf8(url.request(false))
                .unwrap()
                .ends_with("Connection: close\r\n\r\n")
        );
    }
}
