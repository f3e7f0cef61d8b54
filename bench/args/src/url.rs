//! Servers as command lines name them: a URL, or an address and port.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::str::FromStr;

use crate::request::Request;

/// The length of a host name at most (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// `http://ADDRESS[:PORT]/PATH`, with the address to connect to.
///
/// Parsed from text it has an IP address without a zone: nothing is resolved, so nothing but the server is measured.
/// [`UnresolvedUrl`] takes names and zones, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The address and port to connect to.
    pub address: SocketAddr,
    /// The path and query, starting with `/`.
    pub path: String,
    /// The Host field.
    authority: String,
    /// The name that was resolved to the address.
    name: Option<String>,
}

/// `http://HOST[:PORT]/PATH` as it is written: the host is a name, or an IP address, which may have a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnresolvedUrl {
    host: Host,
    port: u16,
    path: String,
    authority: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    /// An IPv6 address with the interface it is to be reached by, a name or a number.
    Zoned(Ipv6Addr, String),
    Name(String),
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
    match split_authority(text)? {
        (host, Some(port)) => Ok(SocketAddr::new(parse_host(host)?.unresolved_address()?, port)),
        (_, None) => Err(format!("`{text}` has no port; write ADDRESS:PORT")),
    }
}

impl FromStr for UnresolvedUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err("https is not supported: TLS is not spoken; the URL must start with http://".to_owned());
            }
            _ => return Err("the URL must start with http://".to_owned()),
        };
        // A fragment is none of the server's business (RFC 3986, section 3.5).
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host_text, port) = split_authority(authority)?;
        let host = parse_host(host_text)?;
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the path must be printable ASCII; encode other bytes as %XX".to_owned());
        }
        // The zone means something on this machine only (RFC 6874, section 4).
        let mut authority = match &host {
            Host::Zoned(address, _) => format!("[{address}]"),
            _ => host_text.to_owned(),
        };
        if let Some(port) = port {
            authority.push_str(&format!(":{port}"));
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            host,
            port: port.unwrap_or(80),
            path: format!("{slash}{path}"),
            authority,
        })
    }
}

impl UnresolvedUrl {
    /// Returns the Host field of requests: host and port as they are written, without a zone.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the address, where the host is one and no name.
    pub fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Address(address) => Some(address),
            Host::Zoned(address, _) => Some(address.into()),
            Host::Name(_) => None,
        }
    }

    /// Returns the path and query, starting with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the URL with the address to connect to: of a name the first that the system's resolver gives, which is
    /// the one it thinks best to be reached (RFC 6724). It may wait for name servers.
    ///
    /// # Errors
    ///
    /// The name has no address, or there is no interface with the name of the zone. The error is a sentence.
    pub fn resolve(&self) -> io::Result<Url> {
        let mut name = None;
        let address = match &self.host {
            Host::Address(address) => SocketAddr::new(*address, self.port),
            Host::Zoned(address, zone) => SocketAddrV6::new(*address, self.port, 0, interface_index(zone)?).into(),
            Host::Name(host) => {
                name = Some(host.clone());
                resolve(host, self.port)?
            }
        };
        Ok(Url {
            address,
            path: self.path.clone(),
            authority: self.authority.clone(),
            name,
        })
    }
}

fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let explain = |why: &dyn fmt::Display| {
        format!("cannot resolve `{host}`: {why}; check the name (`getent ahosts {host}`) or give an address")
    };
    let mut addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| io::Error::new(error.kind(), explain(&error)))?;
    let none = || io::Error::new(ErrorKind::NotFound, explain(&"it has no address"));
    addresses.next().ok_or_else(none)
}

fn interface_index(zone: &str) -> io::Result<u32> {
    if let Ok(index) = zone.parse() {
        return Ok(index);
    }
    nix::net::if_::if_nametoindex(zone).map_err(|error| {
        let text = format!("there is no interface `{zone}`, which the address has as its zone: {error}");
        io::Error::new(ErrorKind::NotFound, text)
    })
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let UnresolvedUrl {
            host,
            port,
            path,
            authority,
        } = text.parse()?;
        Ok(Self {
            address: SocketAddr::new(host.unresolved_address()?, port),
            path,
            authority,
            name: None,
        })
    }
}

/// Splits `HOST[:PORT]`. The port is `None` where it is missing or empty.
fn split_authority(authority: &str) -> Result<(&str, Option<u16>), String> {
    if authority.contains('@') {
        return Err(format!("`{authority}` has user information, which is not sent"));
    }
    // Colons within brackets are the address's.
    let after_brackets = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = authority[after_brackets..].rfind(':').map(|at| after_brackets + at) else {
        return Ok((authority, None));
    };
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    if host.contains(':') && !host.starts_with('[') {
        return Err(not_in_brackets(authority));
    }
    if port.is_empty() {
        return Ok((host, None));
    }
    let number = port
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| port.parse::<u16>().ok())
        .flatten();
    match number {
        Some(0) => Err("port 0 cannot be connected to".to_owned()),
        Some(port) => Ok((host, Some(port))),
        None => Err(format!("`{port}` is not a port; it must be a number from 1 to 65535")),
    }
}

fn not_in_brackets(address: &str) -> String {
    format!("`{address}` is not in brackets; IPv6 addresses go in brackets")
}

fn parse_host(host: &str) -> Result<Host, String> {
    if host.is_empty() {
        return Err("the address is missing".to_owned());
    }
    if let Some(bracketed) = host.strip_prefix('[') {
        let inner = bracketed
            .strip_suffix(']')
            .ok_or_else(|| format!("`{host}` has something wrong with its brackets; write [ADDRESS]:PORT"))?;
        let (address, zone) = match inner.split_once('%') {
            // In URLs the percent sign is written %25 (RFC 6874); the bare one is common, too.
            Some((address, zone)) => (address, Some(zone.strip_prefix("25").unwrap_or(zone))),
            None => (inner, None),
        };
        let address: Ipv6Addr = address
            .parse()
            .map_err(|_| format!("`{address}` is not an IPv6 address"))?;
        return match zone {
            None => Ok(Host::Address(address.into())),
            Some(zone) if !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Host::Zoned(address, zone.to_owned()))
            }
            Some(_) => Err(format!("`{host}` has no interface in its zone; write [fe80::1%25eth0]")),
        };
    }
    if host.contains(':') {
        return Err(not_in_brackets(host));
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Address(address.into()));
    }
    // Such a name cannot be told from an address with a mistake in it.
    let last_label = host.strip_suffix('.').unwrap_or(host).rsplit('.').next();
    if last_label.is_none_or(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(format!("`{host}` is neither an IPv4 address nor a name"));
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.len() > MAX_NAME || !host.bytes().all(is_allowed) {
        return Err(format!(
            "`{host}` is not a host name of at most {MAX_NAME} ASCII letters, digits, dots and hyphens; write others \
             as xn--"
        ));
    }
    Ok(Host::Name(host.to_owned()))
}

impl Host {
    /// The address, where nothing has to be looked up for it.
    fn unresolved_address(&self) -> Result<IpAddr, String> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::Zoned(address, zone) => Err(format!(
                "`[{address}%{zone}]` has a zone; only addresses that need none can be used"
            )),
            Self::Name(name) => Err(format!("`{name}` is not an IP address; names are not resolved")),
        }
    }
}

impl Url {
    /// Returns a GET request for this URL. With `keep_alive` false it asks the server to close the connection after the
    /// response.
    pub fn request(&self, keep_alive: bool) -> Vec<u8> {
        Request::default().to_bytes(self, keep_alive)
    }

    /// Returns the Host field of requests: host and port as they were given, without a zone.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the name that was resolved to the address, if one was.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// With the port, and the name where there is one.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "http://{name}:{}{}", self.address.port(), self.path),
            None => write!(f, "http://{}{}", self.address, self.path),
        }
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
            ("https://198.18.0.1/", "TLS is not spoken"),
            ("ftp://198.18.0.1/", "http://"),
            ("http://198.18.0.256/", "neither an IPv4 address nor a name"),
            ("http://198.18.1/", "neither an IPv4 address nor a name"),
            ("http://f\u{fc}r.example/", "xn--"),
            ("http://a b/", "host name"),
            ("http://[fe80::1%]/", "no interface"),
            ("http://[fe80::1%25]/", "no interface"),
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
    fn names_and_zones_are_looked_up() {
        let resolve = |text: &str| text.parse::<UnresolvedUrl>().unwrap().resolve();
        let url = resolve("http://localhost:8080/x").unwrap();
        assert!(url.address.ip().is_loopback(), "{url:?}");
        assert_eq!((url.address.port(), url.path.as_str()), (8080, "/x"));
        assert_eq!((url.authority(), url.name()), ("localhost:8080", Some("localhost")));
        assert_eq!(url.to_string(), "http://localhost:8080/x");
        assert_eq!(resolve("http://localhost").unwrap().authority(), "localhost");

        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        for text in [
            "http://[fe80::1%25lo]/",
            "http://[fe80::1%lo]/",
            &format!("http://[fe80::1%25{lo}]/"),
        ] {
            let url = resolve(text).unwrap();
            assert_eq!(
                url.address,
                SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, lo).into(),
                "{text}"
            );
            assert_eq!((url.authority(), url.name()), ("[fe80::1]", None), "{text}");
        }
        let url = resolve("http://[2001:2::1]:81/").unwrap();
        assert_eq!(
            (url.to_string(), url.authority()),
            ("http://[2001:2::1]:81/".to_owned(), "[2001:2::1]:81")
        );
        assert_eq!(Ok(url), "http://[2001:2::1]:81/".parse());

        // A name that cannot be (RFC 6761, section 6.4).
        for (text, why) in [
            ("http://nothing.invalid/", "cannot resolve `nothing.invalid`"),
            ("http://[fe80::1%25no-such-dev]/", "no interface `no-such-dev`"),
        ] {
            let error = resolve(text).unwrap_err().to_string();
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
            ("[fe80::1%2]:0", "port 0"),
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
