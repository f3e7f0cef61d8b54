//! The configuration file: TOML, every key optional, unknown keys refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tidegate_tcp::config::Keepalive;

use crate::failure::Failure;
use crate::listen::{self, Listen};

/// How long a stopping server waits for open connections unless told otherwise.
pub(crate) const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// The keys of the configuration file. `scripts/tidegate.example.toml` shows them all with their defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConfigFile {
    /// The interface to take frames from.
    pub(crate) iface: Option<String>,
    /// What to serve where.
    pub(crate) listen: Vec<Listen>,
    /// Settings of single listeners, by their text in `listen`.
    pub(crate) listener: BTreeMap<String, ListenerSettings>,
    /// The directory the http service serves; without it, the built-in page.
    pub(crate) root: Option<PathBuf>,
    /// How long a stopping server waits for open connections.
    #[serde(with = "humantime_serde")]
    pub(crate) drain: Duration,
    /// AF_XDP and the placement of shards.
    pub(crate) afxdp: tidegate_runtime::Config,
    /// The TCP engine.
    pub(crate) tcp: tidegate_tcp::config::Config,
    /// When SYNs are answered with cookies.
    pub(crate) syn_cookies: tidegate_runtime::SynCookies,
    /// Which sources are served.
    pub(crate) sources: tidegate_runtime::Sources,
    /// The http service.
    pub(crate) http: tidegate_apps::http::Config,
    /// The echo service.
    pub(crate) echo: tidegate_apps::echo::Config,
    /// The discard service.
    pub(crate) discard: tidegate_apps::discard::Config,
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
}

impl ListenerSettings {
    /// The keepalive settings over `defaults`.
    pub(crate) fn keepalive(&self, defaults: Keepalive) -> Keepalive {
        Keepalive {
            idle: self.keepalive_idle.unwrap_or(defaults.idle),
            interval: self.keepalive_interval.unwrap_or(defaults.interval),
            probes: self.keepalive_probes.unwrap_or(defaults.probes),
        }
    }
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            iface: None,
            listen: Vec::new(),
            listener: BTreeMap::new(),
            root: None,
            drain: DEFAULT_DRAIN,
            afxdp: tidegate_runtime::Config::default(),
            tcp: tidegate_tcp::config::Config::default(),
            syn_cookies: tidegate_runtime::SynCookies::default(),
            sources: tidegate_runtime::Sources::default(),
            http: tidegate_apps::http::Config::default(),
            echo: tidegate_apps::echo::Config::default(),
            discard: tidegate_apps::discard::Config::default(),
        }
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
///
/// A usage failure that names file, line and key.
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
/// A sentence that begins with file, line and key.
pub(crate) fn parse(text: &str, name: &str) -> Result<ConfigFile, String> {
    let file = toml::from_str::<ConfigFile>(text).map_err(|error| {
        let message = error.message().replace('\n', " ");
        match error.span() {
            Some(span) => format!("{name}, {}: {message}", Place::at(text, span.start)),
            None => format!("{name}: {message}"),
        }
    })?;
    listen::check_all(&file.listen).map_err(|error| format!("{name}, {}: {error}", Place::of(text, "", "listen")))?;
    for (table, result) in [
        ("afxdp", file.afxdp.validate().map_err(|error| error.to_string())),
        ("tcp", file.tcp.validate()),
        (
            "syn_cookies",
            file.syn_cookies.validate().map_err(|error| error.to_string()),
        ),
        ("sources", file.sources.validate().map_err(|error| error.to_string())),
        ("http", check_http(&file)),
    ] {
        // Such a sentence begins with the key it is about.
        result.map_err(|error| {
            let key = error.split_whitespace().next().unwrap_or_default();
            format!("{name}, {}: {error}", Place::of(text, table, key))
        })?;
    }
    Ok(file)
}

fn check_http(file: &ConfigFile) -> Result<(), String> {
    file.http.validate()?;
    if file.http.root.is_some() {
        return Err("root belongs to the top level of the file, before the first table".to_owned());
    }
    // A request head that is not complete stays in the receive buffer.
    let buffer = file.tcp.receive_buffer_initial.min(file.tcp.receive_buffer);
    let head = file.http.max_head;
    if head as u64 > u64::from(buffer) {
        return Err(format!(
            "max_head is {head}; it must be at most tcp.receive_buffer_initial, which is {buffer}"
        ));
    }
    Ok(())
}

/// A place in a TOML text, in words.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    line: Option<usize>,
    table: String,
    key: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}, ")?;
        }
        match (self.table.as_str(), self.key.as_str()) {
            ("", "") => write!(f, "top level"),
            (table, "") => write!(f, "table [{table}]"),
            ("", key) => write!(f, "key `{key}`"),
            (table, key) => write!(f, "key `{table}.{key}`"),
        }
    }
}

impl Place {
    /// The line of byte `offset`, and the key whose entry it belongs to.
    fn at(text: &str, offset: usize) -> Self {
        let mut place = Self {
            line: None,
            table: String::new(),
            key: String::new(),
        };
        let mut start = 0;
        for (index, line) in text.split_inclusive('\n').enumerate() {
            if start > offset {
                break;
            }
            place.line = Some(index + 1);
            if let Some(table) = table_of(line) {
                place.table = table.to_owned();
                place.key.clear();
            } else if let Some(key) = key_of(line) {
                place.key = key.to_owned();
            }
            start += line.len();
        }
        place
    }

    /// The line where `key` of `table` (empty: top level) is set, if it is.
    fn of(text: &str, table: &str, key: &str) -> Self {
        let mut current = "";
        let mut found = None;
        for (index, line) in text.lines().enumerate() {
            if let Some(name) = table_of(line) {
                current = name;
            } else if current == table && key_of(line) == Some(key) {
                found = Some(index + 1);
            }
        }
        Self {
            line: found,
            table: table.to_owned(),
            key: key.to_owned(),
        }
    }
}

/// The name in a line that opens a table.
fn table_of(line: &str) -> Option<&str> {
    let (name, _) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    let name = name.trim();
    is_bare_key(name).then_some(name)
}

/// The key in a line that begins an entry.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    is_bare_key(key).then_some(key)
}

fn is_bare_key(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../scripts/tidegate.example.toml");

    #[test]
    fn an_empty_file_is_all_defaults() {
        let file = parse("", "t.toml").unwrap();
        assert_eq!(format!("{file:?}"), format!("{:?}", ConfigFile::default()));
    }

    #[test]
    fn keys_are_taken() {
        let text = "iface = \"eth1\"\nlisten = [\"http=198.18.0.1:80\",\n  \"echo=[2001:2::1]:7\"]\n\
                    root = \"/srv\"\ndrain = \"1m\"\n[afxdp]\nqueues = 2\nspin = \"10us\"\n[tcp]\nmsl = \"1s\"\n";
        let file = parse(text, "t.toml").unwrap();
        assert_eq!(file.iface.as_deref(), Some("eth1"));
        assert_eq!(file.listen.len(), 2);
        assert_eq!(file.root.as_deref(), Some(Path::new("/srv")));
        assert_eq!(file.drain, Duration::from_secs(60));
        assert_eq!(file.afxdp.queues, Some(2));
        assert_eq!(file.afxdp.spin, Duration::from_micros(10));
        assert_eq!(file.tcp.msl, Duration::from_secs(1));
    }

    #[test]
    fn errors_name_file_line_and_key() {
        for (text, place, phrase) in [
            ("ifcae = \"x\"\n", "t.toml, line 1, key `ifcae`: ", "unknown field"),
            ("\n[afxpd]\n", "t.toml, line 2, table [afxpd]: ", "unknown field"),
            (
                "[afxdp]\n\nqueus = 2\n",
                "t.toml, line 3, key `afxdp.queus`: ",
                "unknown field",
            ),
            (
                "[afxdp]\nframes = \"many\"\n",
                "t.toml, line 2, key `afxdp.frames`: ",
                "invalid type",
            ),
            ("drain = \"soon\"\n", "t.toml, line 1, key `drain`: ", ""),
            (
                "listen = [\n  \"http=1.2.3.4:80\",\n  \"http=0.0.0.0:80\",\n]\n",
                "t.toml, line 3, key `listen`: ",
                "unspecified",
            ),
            (
                "iface = \"x\"\nlisten = [\"http=1.2.3.4:80\", \"echo=1.2.3.4:80\"]\n",
                "t.toml, line 2, key `listen`: ",
                "same address",
            ),
            (
                "[tcp]\nmsl = \"1s\"\nmtu = 100\n",
                "t.toml, line 3, key `tcp.mtu`: ",
                "576",
            ),
            (
                "[afxdp]\nframes = 1000\n",
                "t.toml, line 2, key `afxdp.frames`: ",
                "power of two",
            ),
            (
                "[afxdp]\nwait = \"doze\"\n",
                "t.toml, line 2, key `afxdp.wait`: ",
                "adaptive",
            ),
            (
                "[syn_cookies]\nmode = \"sometimes\"\n",
                "t.toml, line 2, key `syn_cookies.mode`: ",
                "always",
            ),
            (
                "[syn_cookies]\nrotate = \"1s\"\n",
                "t.toml, line 2, key `syn_cookies.rotate`: ",
                "5s",
            ),
            (
                "[sources]\ndeny = [\n  \"192.0.2.0/24\",\n  \"198.18.0.1/15\",\n]\n",
                "t.toml, line 4, key `sources.deny`: ",
                "write 198.18.0.0/15",
            ),
            (
                "[sources]\nallow = [\"::/0\"]\ndeny = [\"::/0\"]\n",
                "t.toml, line 3, key `sources.deny`: ",
                "allow",
            ),
            (
                "[http]\nroot = \"/srv\"\n",
                "t.toml, line 2, key `http.root`: ",
                "top level",
            ),
            (
                "[tcp]\nreceive_buffer_initial = 8192\n",
                "t.toml, key `http.max_head`: ",
                "tcp.receive_buffer_initial",
            ),
            ("[tcp\n", "t.toml, line 1, ", ""),
        ] {
            let error = parse(text, "t.toml").unwrap_err();
            assert!(error.starts_with(place), "{text}: {error}");
            assert!(error.contains(phrase), "{text}: {error}");
            assert!(!error.contains('\n'), "{text}: {error}");
        }
    }

    /// The example shows a key as `#key = value` or, where it has no default, as `# key = value`.
    fn uncommented(text: &str) -> String {
        text.lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if key_of(rest).is_some() && !rest.starts_with(' ') => rest,
                _ => line,
            })
            .fold(String::new(), |all, line| all + line + "\n")
    }

    #[test]
    fn the_example_changes_nothing_as_it_stands_or_uncommented() {
        let defaults = format!("{:?}", ConfigFile::default());
        for text in [EXAMPLE.to_owned(), uncommented(EXAMPLE)] {
            let file = parse(&text, "example").unwrap();
            assert_eq!(format!("{file:?}"), defaults);
        }
    }

    #[test]
    fn the_example_shows_every_key() {
        let mut shown = Vec::new();
        let mut table = "";
        for line in EXAMPLE.lines() {
            if let Some(name) = table_of(line) {
                table = name;
                shown.push(("", name));
            } else if let Some(key) = key_of(line.trim_start_matches(['#', ' '])) {
                shown.push((table, key));
            }
        }
        // The pretty-printed defaults have the top level indented by 4 and the tables' keys by 8.
        let debug = format!("{:#?}", ConfigFile::default());
        let mut table = "";
        let mut fields = 0;
        for line in debug.lines() {
            let Some((name, _)) = line.trim_start().split_once(": ") else {
                continue;
            };
            let field = match line.len() - line.trim_start().len() {
                4 => {
                    table = name;
                    ("", name)
                }
                8 => (table, name),
                _ => continue,
            };
            fields += 1;
            // Set by the top level's `root`; and a table for each listener that wants one.
            if field == ("http", "root") || field == ("", "listener") {
                continue;
            }
            assert!(shown.contains(&field), "{field:?} is missing from the example");
        }
        assert!(fields > 30, "only {fields} fields found in {debug}");
    }
}
