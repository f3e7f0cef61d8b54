//! Arguments of the client that goes around the kernel.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tidegate_args::UsageError;
use tidegate_args::duration;
use tidegate_runtime::WaitStrategy;

use tidegate_flood::Prefix;
use tidegate_flood::neighbour::parse_mac;
use tidegate_load::Settings;

/// Above these arguments in the help.
const HEADING: &str = "Options of --client bypass";

/// Limits of the maximum segment lifetime; the longest is that of RFC 9293, with which a benchmark soon has no source
/// ports left.
const MIN_MSL: Duration = Duration::from_millis(1);
const MAX_MSL: Duration = Duration::from_secs(120);

/// Arguments that only `--client bypass` has.
#[derive(Debug, Default, clap::Args)]
pub(super) struct BypassOptions {
    /// The interface to send and receive on; needed.
    #[arg(long, value_name = "DEV", help_heading = HEADING)]
    iface: Option<String>,
    /// The client's addresses, within 198.18.0.0/15 or 2001:2::/48, which the target needs a route to (default: the
    /// interface's own)
    #[arg(long, value_name = "PREFIX", help_heading = HEADING)]
    sources: Option<Prefix>,
    /// The client's ports (default: 1024-65535)
    #[arg(long, value_name = "A-B", value_parser = parse_ports, help_heading = HEADING)]
    ports: Option<RangeInclusive<u16>>,
    /// The Ethernet address to send to (default: the target's, as the kernel resolves it)
    #[arg(long, value_name = "MAC", value_parser = parse_mac, help_heading = HEADING)]
    target_mac: Option<[u8; 6]>,
    /// The way to wait when there is nothing to do (default: spin)
    #[arg(long, value_name = "STRATEGY", value_enum, help_heading = HEADING)]
    wait: Option<WaitStrategy>,
    /// Have the frames in huge pages.
    #[arg(long, help_heading = HEADING)]
    huge_pages: bool,
    /// Maximum segment lifetime: connections the client closes first stay in TIME-WAIT for twice as long, 1ms to 2m
    /// (default: 1s)
    #[arg(
        long,
        value_name = "TIME",
        value_parser = duration::within(MIN_MSL..=MAX_MSL),
        help_heading = HEADING
    )]
    msl: Option<Duration>,
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let ports = text.split_once('-').and_then(|(first, last)| {
        let first: u16 = first.parse().ok()?;
        let last: u16 = last.parse().ok()?;
        (0 < first && first <= last).then_some(first..=last)
    });
    ports.ok_or_else(|| format!("`{text}` is not a range of ports; write it like 1024-65535"))
}

impl BypassOptions {
    /// Refuses the arguments that were given: another client was chosen.
    ///
    /// # Errors
    ///
    /// There are some (a usage error).
    pub(super) fn refuse(&self) -> Result<(), UsageError> {
        let given = [
            (self.iface.is_some(), "--iface"),
            (self.sources.is_some(), "--sources"),
            (self.ports.is_some(), "--ports"),
            (self.target_mac.is_some(), "--target-mac"),
            (self.wait.is_some(), "--wait"),
            (self.huge_pages, "--huge-pages"),
            (self.msl.is_some(), "--msl"),
        ];
        match given.into_iter().find(|&(is_given, _)| is_given) {
            None => Ok(()),
            Some((_, name)) => Err(UsageError(format!(
                "{name} is for the client that goes around the kernel; add --client bypass or leave it out"
            ))),
        }
    }

    /// Returns the settings of the client that loads `target`.
    ///
    /// # Errors
    ///
    /// There is no interface, the target has a zone, or the sources are of another IP version than it (usage errors).
    pub(super) fn settings(&self, target: SocketAddr) -> Result<Settings, UsageError> {
        let Some(interface) = self.iface.as_deref() else {
            let text = "--client bypass needs --iface DEV, the interface to send and receive on";
            return Err(UsageError(text.to_owned()));
        };
        if let SocketAddr::V6(v6) = target
            && v6.scope_id() != 0
        {
            let text = "--client bypass takes the interface from --iface; write the address without a zone";
            return Err(UsageError(text.to_owned()));
        }
        if let Some(sources) = self.sources
            && sources.is_ipv4() != target.is_ipv4()
        {
            return Err(UsageError(format!(
                "--sources {sources} and the target {target} are not of the same family; give both in IPv4 or both in IPv6"
            )));
        }
        Ok(self.settings_of(interface))
    }

    /// Says in `environment` what was chosen.
    pub(super) fn describe(&self, environment: &mut Map<String, Value>) {
        let settings = self.settings_of(self.iface.as_deref().unwrap_or_default());
        let sources = match settings.sources {
            Some(sources) => sources.to_string(),
            None => "the interface's own address".to_owned(),
        };
        let ports = format!("{}-{}", settings.ports.start(), settings.ports.end());
        let entries: [(&str, Value); 6] = [
            ("client_interface", settings.interface.into()),
            ("client_sources", sources.into()),
            ("client_ports", ports.into()),
            ("client_wait", json!(settings.wait)),
            ("client_huge_pages", settings.huge_pages.into()),
            ("client_msl_seconds", settings.msl.as_secs_f64().into()),
        ];
        environment.extend(entries.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }

    /// Returns the options that were given, and the client's defaults for the rest.
    fn settings_of(&self, interface: &str) -> Settings {
        let defaults = Settings::new(interface);
        Settings {
            interface: defaults.interface,
            sources: self.sources,
            ports: self.ports.clone().unwrap_or(defaults.ports),
            target_mac: self.target_mac,
            wait: self.wait.unwrap_or(defaults.wait),
            huge_pages: self.huge_pages,
            msl: self.msl.unwrap_or(defaults.msl),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: BypassOptions,
    }

    fn options(arguments: &[&str]) -> BypassOptions {
        let all = ["bypass", "--iface", "tgc0"].iter().chain(arguments);
        Line::try_parse_from(all).expect("the arguments are right").options
    }

    fn target() -> SocketAddr {
        "198.18.0.1:80".parse().expect("the address is right")
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let settings = options(&[]).settings(target()).unwrap();
        assert_eq!((settings.interface.as_str(), settings.sources), ("tgc0", None));
        assert_eq!((settings.ports, settings.target_mac), (1024..=65_535, None));
        assert_eq!((settings.wait, settings.huge_pages), (WaitStrategy::Spin, false));
        assert_eq!(settings.msl, Duration::from_secs(1));
    }

    #[test]
    fn what_is_given_reaches_the_client_and_the_results() {
        let options = options(&[
            "--sources",
            "198.19.0.0/24",
            "--ports",
            "2000-2000",
            "--target-mac",
            "02:54:47:00:00:01",
            "--wait",
            "busy-poll",
            "--huge-pages",
            "--msl",
            "250ms",
        ]);
        let settings = options.settings(target()).unwrap();
        assert_eq!(settings.sources, "198.19.0.0/24".parse().ok());
        assert_eq!((settings.ports, settings.wait), (2000..=2000, WaitStrategy::BusyPoll));
        assert_eq!(settings.target_mac, Some([2, 0x54, 0x47, 0, 0, 1]));
        assert!(settings.huge_pages);
        assert_eq!(settings.msl, Duration::from_millis(250));

        let mut environment = Map::new();
        options.describe(&mut environment);
        assert_eq!(environment["client_sources"], "198.19.0.0/24");
        assert_eq!(environment["client_ports"], "2000-2000");
        assert_eq!(environment["client_wait"], "busy-poll");
        assert_eq!(environment["client_msl_seconds"], 0.25);
    }
}
