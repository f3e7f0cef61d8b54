//! The configuration file: TOML, every key optional, unknown keys refused.

mod check;
mod nearest;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use core::fmt;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tidegate_tcp::config::Keepalive;
use tidegate_tcp::congestion::Algorithm;

pub(crate) use self::nearest::with_nearest;

use crate::access_log::AccessLogConfig;
use crate::config_source::Source;
use crate::failure::Failure;
use crate::listen::Listen;
use crate::log::LogConfig;
use crate::origins::Origins;

/// The time a stopping server waits for open connections unless told otherwise.
pub(crate) const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// The keys of the configuration file. `scripts/tidegate.example.toml` shows them all with their defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConfigFile {
    /// The interfaces to take frames from.
    #[serde(deserialize_with = "one_or_more")]
    pub(crate) iface: Vec<String>,
    /// The listeners.
    pub(crate) listen: Vec<Listen>,
    /// Settings of single listeners, by their text in `listen`.
    pub(crate) listener: BTreeMap<String, ListenerSettings>,
    /// The directory the http service serves; without it, the built-in page.
    pub(crate) root: Option<PathBuf>,
    /// The time a stopping server waits for open connections.
    #[serde(with = "humantime_serde")]
    pub(crate) drain: Duration,
    /// The log.
    pub(crate) log: LogConfig,
    /// The access log of the http service.
    pub(crate) access_log: AccessLogConfig,
    /// AF_XDP and the placement of shards.
    pub(crate) afxdp: tidegate_runtime::Config,
    /// The TCP engine.
    pub(crate) tcp: tidegate_tcp::config::Config,
    /// SYN cookies.
    pub(crate) syn_cookies: tidegate_runtime::SynCookies,
    /// The sources that are served.
    pub(crate) sources: tidegate_runtime::Sources,
    /// The load balancers before this host.
    pub(crate) balancers: tidegate_runtime::Balancers,
    /// The address of the admin listener; without it there is none.
    pub(crate) admin: Option<SocketAddr>,
    /// Connections of the admin listener at a time (1 to 1,024); others wait for one of them to end.
    pub(crate) admin_connections: usize,
    /// Names of hosts that requests to the admin listener may be for, beside IP addresses and `localhost`.
    pub(crate) admin_hosts: Vec<String>,
    /// The control socket.
    pub(crate) control: crate::control::Config,
    /// The privileges that the server gives up when it serves.
    pub(crate) privileges: crate::privileges::Config,
    /// The http service.
    pub(crate) http: tidegate_apps::http::Config,
    /// The echo service.
    pub(crate) echo: tidegate_apps::echo::Config,
    /// The discard service.
    pub(crate) discard: tidegate_apps::discard::Config,
    /// The origins of the settings.
    #[serde(skip)]
    pub(crate) origins: Origins,
}

/// Settings of one listener; what is not given is as in `[tcp]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListenerSettings {
    /// Idle time before the first keepalive probe; zero turns keepalive off.
    #[serde(with = "humantime_serde")]
    keepalive_idle: Option<Duration>,
    /// Time between keepalive probes.
    #[serde(with = "humantime_serde")]
    keepalive_interval: Option<Duration>,
    /// Keepalive probes without an answer before the connection is given up.
    keepalive_probes: Option<u8>,
    /// Congestion control.
    congestion: Option<Algorithm>,
}

/// The settings that a listener has, those of `[tcp]` included where it has none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfListener {
    pub(crate) keepalive: Keepalive,
    /// `None`: that of `[tcp]`.
    pub(crate) congestion: Option<Algorithm>,
}

impl ListenerSettings {
    /// These settings over `defaults`.
    pub(crate) fn over(&self, defaults: OfListener) -> OfListener {
        OfListener {
            keepalive: Keepalive {
                idle: self.keepalive_idle.unwrap_or(defaults.keepalive.idle),
                interval: self.keepalive_interval.unwrap_or(defaults.keepalive.interval),
                probes: self.keepalive_probes.unwrap_or(defaults.keepalive.probes),
            },
            congestion: self.congestion.or(defaults.congestion),
        }
    }
}

/// A string, or a list of them.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMore;

    impl<'de> Visitor<'de> for OneOrMore {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_str<E>(self, one: &str) -> Result<Self::Value, E> {
            Ok(vec![one.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            Deserialize::deserialize(SeqAccessDeserializer::new(list))
        }
    }

    deserializer.deserialize_any(OneOrMore)
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            iface: Vec::new(),
            listen: Vec::new(),
            listener: BTreeMap::new(),
            root: None,
            drain: DEFAULT_DRAIN,
            log: LogConfig::default(),
            access_log: AccessLogConfig::default(),
            afxdp: tidegate_runtime::Config::default(),
            tcp: tidegate_tcp::config::Config::default(),
            syn_cookies: tidegate_runtime::SynCookies::default(),
            sources: tidegate_runtime::Sources::default(),
            balancers: tidegate_runtime::Balancers::default(),
            admin: None,
            admin_connections: 32,
            admin_hosts: Vec::new(),
            control: crate::control::Config::default(),
            privileges: crate::privileges::Config::default(),
            http: tidegate_apps::http::Config::default(),
            echo: tidegate_apps::echo::Config::default(),
            discard: tidegate_apps::discard::Config::default(),
            origins: Origins::default(),
        }
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
///
/// A usage failure that names file, line, column and key.
pub(crate) fn load(path: &Path) -> Result<ConfigFile, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::Usage(format!(
            "cannot read the configuration file {}: {error}. Give the path of a readable file",
            path.display()
        ))
    })?;
    parse(&text, &path.display().to_string()).map_err(Failure::Usage)
}

/// Reads and checks `text`, the content of the file called `name`.
///
/// # Errors
///
/// A sentence that begins with file, line, column and key.
pub(crate) fn parse(text: &str, name: &str) -> Result<ConfigFile, String> {
    let source = Source::new(name, text);
    let file = toml::from_str::<ConfigFile>(text).map_err(|error| source.locate(&error))?;
    let file = ConfigFile {
        origins: Origins::of_file(source),
        ..file
    };
    file.check()?;
    Ok(file)
}
