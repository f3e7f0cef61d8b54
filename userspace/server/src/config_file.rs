//! The configuration file: TOML, every key optional, unknown keys refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tidegate_tcp::config::{InvalidSetting, Keepalive};

use crate::config_source::Source;
use crate::failure::Failure;
use crate::listen::{self, Listen};
use crate::origins::Origins;

/// The longest name of an interface (`IFNAMSIZ` without the null).
const MAX_INTERFACE_NAME: usize = 15;

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
    /// Where the settings come from.
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

impl ConfigFile {
    /// Checks what the types of the keys leave open.
    ///
    /// # Errors
    ///
    /// A sentence that begins with file, line, column and key.
    fn check(&self) -> Result<(), String> {
        for (table, result) in [
            ("", self.check_top_level()),
            ("afxdp", self.afxdp.validate()),
            ("tcp", self.tcp.validate()),
            ("syn_cookies", self.syn_cookies.validate()),
            ("sources", self.sources.validate()),
            ("http", self.check_http()),
        ] {
            result.map_err(|error| self.origins.locate(table, &error))?;
        }
        // Without listeners of its own, the file is about those of the command line.
        if !self.listen.is_empty() {
            self.keepalive_of(&self.listen)?;
        }
        Ok(())
    }

    fn check_top_level(&self) -> Result<(), InvalidSetting> {
        if let Some(name) = &self.iface {
            check_interface_name(name)?;
        }
        for (key, path) in [
            ("root", self.root.as_deref()),
            ("syn_cookies.key_file", self.syn_cookies.key_file.as_deref()),
        ] {
            if path.is_some_and(|path| path.as_os_str().is_empty()) {
                return Err(InvalidSetting::new([key], format!("{key} is empty; it must be a path")));
            }
        }
        for (key, duration) in [
            ("drain", self.drain),
            ("echo.idle_timeout", self.echo.idle_timeout),
            ("discard.idle_timeout", self.discard.idle_timeout),
        ] {
            InvalidSetting::check_duration(key, duration)?;
        }
        listen::check_all(&self.listen).map_err(|message| InvalidSetting::new(["listen"], message))
    }

    fn check_http(&self) -> Result<(), InvalidSetting> {
        self.http.validate()?;
        if self.http.root.is_some() {
            return Err(InvalidSetting::new(
                ["root"],
                "root belongs to the top level of the file, before the first table",
            ));
        }
        // A request head that is not complete stays in the receive buffer.
        let (key, buffer) = if self.tcp.receive_buffer < self.tcp.receive_buffer_initial {
            ("tcp.receive_buffer", self.tcp.receive_buffer)
        } else {
            ("tcp.receive_buffer_initial", self.tcp.receive_buffer_initial)
        };
        let head = self.http.max_head;
        if head as u64 > u64::from(buffer) {
            return Err(InvalidSetting::new(
                ["max_head", key],
                format!("max_head is {head}; it must be at most {key}, which is {buffer}"),
            ));
        }
        Ok(())
    }

    /// The keepalive settings of each of `listeners`.
    ///
    /// # Errors
    ///
    /// A sentence that begins with file, line, column and key: there are settings of another listener, or they cannot be.
    pub(crate) fn keepalive_of(&self, listeners: &[Listen]) -> Result<Vec<Keepalive>, String> {
        let defaults = self.tcp.keepalive();
        let mut keepalive = vec![defaults; listeners.len()];
        for (text, own) in &self.listener {
            let index = text
                .parse::<Listen>()
                .and_then(|wanted| {
                    let found = listeners.iter().position(|listener| *listener == wanted);
                    found.ok_or_else(|| "it is about a listener that is not in `listen`".to_owned())
                })
                .map_err(|message| self.origins.locate_table(&["listener", text], &message))?;
            keepalive[index] = own.keepalive(defaults);
            keepalive[index]
                .validate()
                .map_err(|error| self.origins.locate_listener(text, &error))?;
        }
        Ok(keepalive)
    }
}

/// Checks that an interface can have this name.
fn check_interface_name(name: &str) -> Result<(), InvalidSetting> {
    let possible = (1..=MAX_INTERFACE_NAME).contains(&name.len())
        && !name.contains(|c: char| c == '/' || c.is_whitespace())
        && !matches!(name, "." | "..");
    if possible {
        return Ok(());
    }
    Err(InvalidSetting::new(
        ["iface"],
        format!("iface is {name:?}, which no interface can be called; `ip link` shows the interfaces"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../scripts/tidegate.example.toml");

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

    /// The settings, without the place they come from.
    fn settings(file: ConfigFile) -> String {
        let file = ConfigFile {
            origins: Origins::default(),
            ..file
        };
        format!("{file:?}")
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        let file = parse("", "t.toml").unwrap();
        assert_eq!(settings(file), settings(ConfigFile::default()));
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
    fn errors_name_file_line_column_and_key() {
        for (text, place, phrase) in [
            ("ifcae = \"x\"\n", "1:1: key `ifcae`: ", "unknown field"),
            ("\n[afxpd]\n", "2:2: table [afxpd]: ", "unknown field"),
            ("[afxdp]\n\nqueus = 2\n", "3:1: key `afxdp.queus`: ", "unknown field"),
            ("afxdp.queus = 2\n", "1:7: key `afxdp.queus`: ", "unknown field"),
            ("afxdp = { queus = 2 }\n", "1:11: key `afxdp.queus`: ", "unknown field"),
            (
                "[afxdp]\n  frames = \"many\"\n",
                "2:3: key `afxdp.frames`: ",
                "invalid type",
            ),
            ("drain = \"soon\"\n", "1:1: key `drain`: ", ""),
            ("[tcp]\nmsl = 30\n", "2:1: key `tcp.msl`: ", "invalid type"),
            ("afxdp = 1\n", "1:1: key `afxdp`: ", "invalid type"),
            (
                "listen = [\n  \"http=1.2.3.4:80\",\n  \"http=0.0.0.0:80\",\n]\n",
                "3:3: key `listen`: ",
                "unspecified",
            ),
            (
                "iface = \"x\"\nlisten = [\"http=1.2.3.4:80\", \"echo=1.2.3.4:80\"]\n",
                "2:1: key `listen`: ",
                "same address",
            ),
            ("[tcp]\nmsl = \"1s\"\nmtu = 100\n", "3:1: key `tcp.mtu`: ", "576"),
            ("tcp.mtu = 100\n", "1:5: key `tcp.mtu`: ", "576"),
            ("[tcp] # mtu = 5\nmtu = 100\n", "2:1: key `tcp.mtu`: ", "576"),
            ("[afxdp]\nwait = \"doze\"\n", "2:1: key `afxdp.wait`: ", "adaptive"),
            (
                "[sources]\ndeny = [\n  \"192.0.2.0/24\",\n  \"198.18.0.1/15\",\n]\n",
                "4:3: key `sources.deny`: ",
                "write 198.18.0.0/15",
            ),
            ("[http]\nroot = \"/srv\"\n", "2:1: key `http.root`: ", "top level"),
            ("[tcp\n", "1:5: ", "table"),
            ("drain = \"1s\"\ndrain = \"2s\"\n", "2:1: ", "duplicate"),
            ("[tcp]\nmtu = \n", "2:7: ", ""),
        ] {
            let error = parse(text, "t.toml").unwrap_err();
            assert!(error.starts_with(&format!("t.toml:{place}")), "{text}: {error}");
            assert!(error.contains(phrase), "{text}: {error}");
            assert!(!error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn of_several_keys_the_one_at_fault_is_named_or_the_one_that_is_set() {
        for (text, place, phrase) in [
            (
                "[tcp]\nkeepalive_probes = 0\n",
                "2:1: key `tcp.keepalive_probes`: ",
                "keepalive_probes is 0",
            ),
            (
                "[tcp]\nkeepalive_idle = \"1h\"\nkeepalive_interval = \"0s\"\n",
                "3:1: key `tcp.keepalive_interval`: ",
                "keepalive_idle",
            ),
            ("[tcp]\nmsl = \"0s\"\n", "2:1: key `tcp.msl`: ", "msl is 0ns"),
            (
                "[tcp]\nuser_timeout = \"0s\"\n",
                "2:1: key `tcp.user_timeout`: ",
                "above zero",
            ),
            (
                "[tcp]\nfin_wait_2 = \"0s\"\n",
                "2:1: key `tcp.fin_wait_2`: ",
                "above zero",
            ),
            (
                "[tcp]\nrto_max = \"100ms\"\n",
                "2:1: key `tcp.rto_max`: ",
                "rto_min is 200ms and rto_max 100ms",
            ),
            (
                "[tcp]\nrto_max = \"1s\"\nrto_min = \"2s\"\n",
                "3:1: key `tcp.rto_min`: ",
                "at most rto_max",
            ),
            (
                "[afxdp]\ntx_ring = 8192\n",
                "2:1: key `afxdp.tx_ring`: ",
                "completion_ring must be at least as large",
            ),
            (
                "[afxdp]\nframes = 1024\n",
                "2:1: key `afxdp.frames`: ",
                "control_reserve is 512",
            ),
            (
                "[afxdp]\nframes = 256\ncontrol_reserve = 16\nburst = 65\n",
                "4:1: key `afxdp.burst`: ",
                "a quarter of frames",
            ),
            (
                "[afxdp]\nhuge_pages = true\nframes = 256\ncontrol_reserve = 16\n",
                "2:1: key `afxdp.huge_pages`: ",
                "2 MiB",
            ),
            (
                "[sources]\nallow = [\"::/0\"]\ndeny = [\"::/0\"]\n",
                "3:1: key `sources.deny`: ",
                "so has allow",
            ),
            (
                "[tcp]\nreceive_buffer_initial = 8192\n",
                "2:1: key `tcp.receive_buffer_initial`: ",
                "max_head is 16384",
            ),
            (
                "[tcp]\nreceive_buffer = 8192\n",
                "2:1: key `tcp.receive_buffer`: ",
                "max_head is 16384",
            ),
            (
                "[http]\nmax_head = 131072\n",
                "2:1: key `http.max_head`: ",
                "tcp.receive_buffer_initial, which is 65536",
            ),
            (
                "[http]\nmax_head = 4096\n",
                "2:1: key `http.max_head`: ",
                "max_uri is 8192",
            ),
            (
                "listen = [\"http=1.2.3.4:80\"]\n[tcp]\nkeepalive_idle = \"0s\"\nkeepalive_probes = 0\n\
                 [listener.\"http=1.2.3.4:80\"]\nkeepalive_idle = \"1s\"\n",
                "6:1: key `listener.\"http=1.2.3.4:80\".keepalive_idle`: ",
                "keepalive_probes is 0",
            ),
            (
                "listen = [\"http=1.2.3.4:80\"]\n[listener.\"http=1.2.3.4:80\"]\nkeepalive_probes = 0\n",
                "3:1: key `listener.\"http=1.2.3.4:80\".keepalive_probes`: ",
                "above zero",
            ),
            (
                "listen = [\"http=1.2.3.4:80\"]\n[listener.\"http=1.2.3.4:81\"]\n",
                "2:11: table [listener.\"http=1.2.3.4:81\"]: ",
                "not in `listen`",
            ),
        ] {
            let error = parse(text, "t.toml").unwrap_err();
            assert!(error.starts_with(&format!("t.toml:{place}")), "{text}: {error}");
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn no_duration_is_too_long_for_the_sums_it_goes_into() {
        let mut table = "";
        let mut keys = 0;
        for line in EXAMPLE.lines() {
            if let Some(name) = table_of(line) {
                table = name;
            }
            let Some((key, shown)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) else {
                continue;
            };
            if is_bare_key(key) && shown.starts_with('"') && humantime::parse_duration(shown.trim_matches('"')).is_ok()
            {
                let header = if table.is_empty() {
                    String::new()
                } else {
                    format!("[{table}]\n")
                };
                let text = format!("{header}{key} = \"584000000000years\"\n");
                let error = parse(&text, "t.toml").expect_err(&text);
                assert!(
                    error.contains(&format!("{key}`: {key} is 18"))
                        || error.contains(&format!("`: {table}.{key} is 18")),
                    "{error}"
                );
                keys += 1;
            }
        }
        assert!(keys >= 20, "only {keys} durations found in the example");
    }

    /// A value out of the range of `key`; where there is no range, of the wrong type. `shown` is the example's value.
    fn bad_value(table: &str, key: &str, shown: &str) -> String {
        let value = match (table, key) {
            ("", "iface") => "\"a/b\"",
            ("", "listen") => "[\"http=0.0.0.0:80\"]",
            ("" | "syn_cookies", "root" | "key_file") => "\"\"",
            ("afxdp", "queues") => "65",
            ("afxdp", "frames") => "2097152",
            ("afxdp", "fill_ring" | "completion_ring" | "rx_ring" | "tx_ring") => "131072",
            ("afxdp", "handover_queue") => "65537",
            ("afxdp", "burst") => "1025",
            ("afxdp", "spin" | "busy_poll") => "\"2s\"",
            (
                "afxdp" | "sources" | "http",
                "busy_poll_budget" | "control_reserve" | "syn_burst" | "keepalive_requests",
            ) => "0",
            ("afxdp", "frame_size") => "1024",
            ("tcp", "mtu") => "575",
            ("tcp", "min_path_mtu") => "1281",
            ("tcp", "max_connections" | "max_half_open" | "max_time_wait" | "keepalive_probes") => "0",
            ("tcp", "send_buffer" | "receive_buffer" | "receive_buffer_initial") => "4095",
            ("tcp", "delayed_ack") => "\"500ms\"",
            ("tcp", "rto_min" | "rto_max" | "msl" | "user_timeout" | "fin_wait_2" | "keepalive_interval") => "\"0s\"",
            ("syn_cookies", "on_syn_rate") => "100000001",
            ("syn_cookies", "on_half_open") => "101",
            ("syn_cookies", "off_after" | "rotate") => "\"2h\"",
            ("sources", "allow" | "deny") => "[\"192.0.2.1/24\"]",
            ("sources", "syn_rate") => "1000001",
            ("sources", "prefix_v4") => "33",
            ("sources", "prefix_v6") => "65",
            ("sources", "remembered") => "1023",
            ("http", "index") => "\"a/b\"",
            ("http", "max_head" | "max_uri") => "1048577",
            ("http", "max_headers") => "257",
            ("http", "header_timeout" | "body_timeout" | "keepalive_timeout") => "\"0s\"",
            ("http", "read_chunk") => "4095",
            _ if shown.starts_with('"') => "\"out of range\"",
            _ if matches!(shown, "true" | "false") => "2",
            _ => "-1",
        };
        value.to_owned()
    }

    #[test]
    fn every_key_of_the_example_is_found_when_its_value_is_wrong() {
        let mut table = "";
        let mut keys = 0;
        for (index, line) in EXAMPLE.lines().enumerate() {
            if let Some(name) = table_of(line) {
                table = name;
            }
            // Keys of listeners are those of [tcp], and have tests of their own.
            let rest = line.trim_start_matches(['#', ' ']);
            let (Some(key), false) = (key_of(rest), line.starts_with("#   ")) else {
                continue;
            };
            let shown = rest.split_once('=').map_or("", |(_, value)| value.trim());
            let wrong = format!("  {key} = {}", bad_value(table, key, shown));
            let text: String = EXAMPLE
                .lines()
                .enumerate()
                .map(|(other, line)| if other == index { &wrong } else { line })
                .fold(String::new(), |all, line| all + line + "\n");
            let error = parse(&text, "t.toml").expect_err(&wrong);
            let column = if matches!(key, "listen" | "allow" | "deny") {
                // The place of the element.
                wrong.find('[').map_or(0, |bracket| bracket + 2)
            } else {
                3
            };
            let full = if table.is_empty() {
                key.to_owned()
            } else {
                format!("{table}.{key}")
            };
            let expected = format!("t.toml:{}:{column}: key `{full}`: ", index + 1);
            assert!(error.starts_with(&expected), "{wrong}: {error}");
            keys += 1;
        }
        assert!(keys > 70, "only {keys} keys found in the example");
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
        let defaults = settings(ConfigFile::default());
        for text in [EXAMPLE.to_owned(), uncommented(EXAMPLE)] {
            let file = parse(&text, "example").unwrap();
            assert_eq!(settings(file), defaults);
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
            if field == ("http", "root") || field == ("", "listener") || field.1 == "origins" || field.0 == "origins" {
                continue;
            }
            assert!(shown.contains(&field), "{field:?} is missing from the example");
        }
        assert!(fields > 30, "only {fields} fields found in {debug}");
    }
}
