//! The listeners that serve-kernel accepts.

use std::net::IpAddr;

use tidegate_apps::Listen;

/// Parses a listener, written as the server writes it. Unlike there, the address may be a loopback or the unspecified
/// one, and have a zone.
///
/// # Errors
///
/// A sentence that says what is wrong.
pub(super) fn parse(text: &str) -> Result<Listen, String> {
    let listen = text.parse::<Listen>().map_err(|error| error.to_string())?;
    let ip = listen.address.ip();
    if ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast()) {
        return Err(format!("{ip} is not the address of one machine, which TCP needs"));
    }
    Ok(listen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_one_machine_can_be_listened_on() {
        for text in [
            "http=198.18.0.1:80",
            "echo=127.0.0.1:65535",
            "discard=0.0.0.0:9",
            "http=[::]:80",
            "echo=[fe80::1%3]:7",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_listeners_say_what_is_wrong() {
        for (text, phrase) in [
            ("198.18.0.1:80", "is not SERVICE=ADDRESS:PORT"),
            ("http=198.18.0.1:0", "port 0"),
            ("http=224.0.0.1:80", "one machine"),
            ("http=[ff02::1]:80", "one machine"),
            ("http=255.255.255.255:80", "one machine"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }
}
