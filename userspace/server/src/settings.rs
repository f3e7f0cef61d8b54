//! The settings of `tidegate serve`: the configuration file with the command line over it.

use std::path::PathBuf;
use std::time::Duration;

use crate::arguments::ServeArguments;
use crate::config_file::{self, ConfigFile, OfListener};
use crate::failure::Failure;
use crate::listen;
use crate::nic::state_directory;

/// Complete settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The interfaces to take frames from, at least one.
    pub(crate) interfaces: Vec<String>,
    /// The configuration file with the arguments in it: no address and port twice, and the root in `http`. To serve,
    /// there is at least one listener.
    pub(crate) config: ConfigFile,
    /// The settings of each listener.
    pub(crate) listeners: Vec<OfListener>,
    /// The time between two lines of rates.
    pub(crate) stats_interval: Option<Duration>,
    /// The configuration file, if there is one.
    pub(crate) config_file: Option<PathBuf>,
    /// Where to keep what was before the interface is prepared, if it is to be.
    pub(crate) tune: Option<PathBuf>,
    /// The arguments they were gathered by.
    arguments: ServeArguments,
}

impl Settings {
    /// Reads the configuration file the arguments name, if they do, and puts the arguments over it.
    ///
    /// # Errors
    ///
    /// A usage failure: the file is wrong, or something that must be given is not.
    pub(crate) fn gather(arguments: &ServeArguments) -> Result<Self, Failure> {
        let settings = Self::merge(file(arguments)?, arguments).map_err(Failure::Usage)?;
        if settings.config.listen.is_empty() {
            return Err(Failure::Usage(
                "nothing to serve is given. Use --listen http=ADDRESS:PORT, or the key `listen` of the configuration file"
                    .to_owned(),
            ));
        }
        Ok(settings)
    }

    /// Gathers them again: the configuration file may have changed.
    ///
    /// # Errors
    ///
    /// As for [`Settings::gather`].
    pub(crate) fn gather_again(&self) -> Result<Self, Failure> {
        Self::gather(&self.arguments)
    }

    /// As [`Settings::gather`], but there need be no listeners. `None` if no interface is given.
    ///
    /// # Errors
    ///
    /// A usage failure: the file is wrong, or an argument.
    pub(crate) fn gather_to_check(arguments: &ServeArguments) -> Result<Option<Self>, Failure> {
        let file = file(arguments)?;
        if arguments.iface.is_empty() && file.iface.is_empty() {
            return Ok(None);
        }
        Self::merge(file, arguments).map(Some).map_err(Failure::Usage)
    }

    fn merge(mut config: ConfigFile, arguments: &ServeArguments) -> Result<Self, String> {
        let interfaces = if arguments.iface.is_empty() {
            std::mem::take(&mut config.iface)
        } else {
            arguments.iface.clone()
        };
        if interfaces.is_empty() {
            return Err(
                "no interface is given. Use --iface IFACE, or the key `iface` of the configuration file; `ip link` \
                 shows the interfaces"
                    .to_owned(),
            );
        }
        if !arguments.listen.is_empty() {
            config.listen.clone_from(&arguments.listen);
        }
        listen::check_all(&config.listen)?;
        let listeners = config.settings_of(&config.listen)?;
        config.take(arguments);
        config
            .sources
            .validate()
            .map_err(|error| config.origins.locate("sources", &error))?;
        config
            .afxdp
            .validate()
            .map_err(|error| config.origins.locate("afxdp", &error))?;
        if arguments.tune && config.afxdp.take_over.is_some() {
            return Err(
                "--tune puts the interface back when the server ends, and with take_over another serves it then; \
                 prepare it with `tidegate nic apply`"
                    .to_owned(),
            );
        }
        Ok(Self {
            interfaces,
            config,
            listeners,
            stats_interval: arguments.stats_interval,
            config_file: arguments.config.clone(),
            tune: arguments.tune.then(|| state_directory(arguments.state_dir.as_deref())),
            arguments: arguments.clone(),
        })
    }
}

#[cfg(test)]
impl Settings {
    /// Those of a server of http on eth1.
    pub(crate) fn of_test() -> Self {
        let arguments = ServeArguments {
            iface: vec!["eth1".to_owned()],
            listen: vec!["http=198.18.0.1:80".parse().expect("a listener")],
            ..ServeArguments::default()
        };
        Self::gather(&arguments).expect("settings")
    }
}

/// The configuration file that the arguments name, or one without keys.
fn file(arguments: &ServeArguments) -> Result<ConfigFile, Failure> {
    match &arguments.config {
        Some(path) => config_file::load(path),
        None => Ok(ConfigFile::default()),
    }
}

impl ConfigFile {
    /// Puts arguments in the place of keys, and notes which of them can be at fault.
    fn take(&mut self, arguments: &ServeArguments) {
        let origins = &mut self.origins;
        if arguments.queues.is_some() {
            self.afxdp.queues = arguments.queues;
            origins.set_by_argument("afxdp.queues", "--queues");
        }
        self.afxdp.xdp_mode = arguments.xdp_mode.unwrap_or(self.afxdp.xdp_mode);
        self.afxdp.attach = arguments.attach.unwrap_or(self.afxdp.attach);
        self.afxdp.wait = arguments.wait.unwrap_or(self.afxdp.wait);
        self.afxdp.next_hop = arguments.next_hop.unwrap_or(self.afxdp.next_hop);
        if arguments.take_over.is_some() {
            self.afxdp.take_over.clone_from(&arguments.take_over);
            origins.set_by_argument("afxdp.take_over", "--take-over");
        }
        self.syn_cookies.mode = arguments.syn_cookies.unwrap_or(self.syn_cookies.mode);
        if arguments.cookie_key_file.is_some() {
            self.syn_cookies.key_file.clone_from(&arguments.cookie_key_file);
            origins.set_by_argument("syn_cookies.key_file", "--cookie-key-file");
        }
        self.sources.allow.extend_from_slice(&arguments.allow);
        self.sources.deny.extend_from_slice(&arguments.deny);
        for (key, argument, given) in [
            ("sources.allow", "--allow", &arguments.allow),
            ("sources.deny", "--deny", &arguments.deny),
        ] {
            if !given.is_empty() {
                origins.set_by_argument(key, argument);
            }
        }
        self.admin = arguments.admin.or(self.admin);
        self.control.path = arguments.control.clone().or(self.control.path.take());
        self.http.root = arguments.root.clone().or(self.root.take());
        self.drain = arguments.drain.unwrap_or(self.drain);
        self.log.take(arguments.log_format, arguments.verbose, arguments.quiet);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidegate_runtime::{Attach, CookieMode, NextHop, WaitStrategy, XdpMode};
    use tidegate_tcp::congestion::Algorithm;

    use super::*;

    const FILE: &str = "iface = \"eth1\"\nlisten = [\"http=198.18.0.1:80\"]\nroot = \"/srv/a\"\ndrain = \"9s\"\n\
                        [afxdp]\nqueues = 3\nxdp_mode = \"native\"\nwait = \"spin\"\n[tcp]\nnagle = false\n";

    fn file() -> ConfigFile {
        config_file::parse(FILE, "t.toml").unwrap()
    }

    #[test]
    fn the_file_alone() {
        let settings = Settings::merge(file(), &ServeArguments::default()).unwrap();
        assert_eq!(settings.interfaces, ["eth1"]);
        assert_eq!(settings.config.listen, ["http=198.18.0.1:80".parse().unwrap()]);
        assert_eq!(settings.config.http.root.as_deref(), Some(Path::new("/srv/a")));
        assert_eq!(settings.config.drain, Duration::from_secs(9));
        assert_eq!(settings.config.afxdp.queues, Some(3));
        assert_eq!(settings.config.afxdp.xdp_mode, XdpMode::Native);
        assert_eq!(settings.config.afxdp.wait, WaitStrategy::Spin);
        assert!(!settings.config.tcp.nagle);
    }

    #[test]
    fn arguments_win_over_the_file() {
        let arguments = ServeArguments {
            iface: vec!["eth2".to_owned(), "bond0".to_owned()],
            listen: vec!["echo=198.18.0.1:7".parse().unwrap()],
            root: Some("/srv/b".into()),
            queues: Some(1),
            xdp_mode: Some(XdpMode::Generic),
            attach: Some(Attach::Dispatcher),
            wait: Some(WaitStrategy::Poll),
            next_hop: Some(NextHop::Kernel),
            drain: Some(Duration::ZERO),
            ..ServeArguments::default()
        };
        let settings = Settings::merge(file(), &arguments).unwrap();
        assert_eq!(settings.interfaces, ["eth2", "bond0"]);
        assert_eq!(settings.config.listen, arguments.listen);
        assert_eq!(settings.config.http.root, arguments.root);
        assert_eq!(settings.config.drain, Duration::ZERO);
        assert_eq!(settings.config.afxdp.queues, Some(1));
        assert_eq!(settings.config.afxdp.xdp_mode, XdpMode::Generic);
        assert_eq!(settings.config.afxdp.attach, Attach::Dispatcher);
        assert_eq!(settings.config.afxdp.wait, WaitStrategy::Poll);
        assert_eq!(settings.config.afxdp.next_hop, NextHop::Kernel);
        assert!(!settings.config.tcp.nagle);
    }

    #[test]
    fn cookies_come_from_the_arguments_and_sources_from_both() {
        let text = format!(
            "{FILE}[syn_cookies]\nmode = \"never\"\nrotate = \"1m\"\nkey_file = \"/etc/a.key\"\n\
             [sources]\ndeny = [\"192.0.2.0/24\"]\n"
        );
        let file = config_file::parse(&text, "t.toml").unwrap();
        let settings = Settings::merge(file.clone(), &ServeArguments::default()).unwrap();
        assert_eq!(settings.config.syn_cookies.mode, CookieMode::Never);
        assert_eq!(
            settings.config.syn_cookies.key_file.as_deref(),
            Some(Path::new("/etc/a.key"))
        );
        let arguments = ServeArguments {
            syn_cookies: Some(CookieMode::Always),
            cookie_key_file: Some("/etc/b.key".into()),
            deny: vec!["2001:db8::/32".parse().unwrap()],
            ..ServeArguments::default()
        };
        let settings = Settings::merge(file.clone(), &arguments).unwrap();
        assert_eq!(settings.config.syn_cookies.mode, CookieMode::Always);
        assert_eq!(settings.config.syn_cookies.key_file, arguments.cookie_key_file);
        assert_eq!(settings.config.syn_cookies.rotate, Duration::from_secs(60));
        assert_eq!(settings.config.sources.deny.len(), 2);

        let contradiction = ServeArguments {
            allow: vec!["192.0.2.0/24".parse().unwrap()],
            ..ServeArguments::default()
        };
        let error = Settings::merge(file, &contradiction).unwrap_err();
        assert!(error.contains("192.0.2.0/24"), "{error}");
        // The key at fault is the one in the file, here.
        assert!(error.starts_with("t.toml:16:1: key `sources.deny`: "), "{error}");
    }

    #[test]
    fn a_listener_can_have_settings_of_its_own() {
        let text = "iface = \"eth1\"\nlisten = [\"http=198.18.0.1:80\", \"echo=198.18.0.1:7\"]\n\
                    [listener.\"echo=198.18.0.1:7\"]\nkeepalive_idle = \"60s\"\ncongestion = \"reno\"\n";
        let settings =
            Settings::merge(config_file::parse(text, "t.toml").unwrap(), &ServeArguments::default()).unwrap();
        assert_eq!(settings.listeners[0].keepalive, settings.config.tcp.keepalive());
        assert_eq!(settings.listeners[0].congestion, None);
        assert_eq!(settings.listeners[1].keepalive.idle, Duration::from_secs(60));
        assert_eq!(
            settings.listeners[1].keepalive.probes,
            settings.config.tcp.keepalive_probes
        );
        assert_eq!(settings.listeners[1].congestion, Some(Algorithm::RENO));

        // A file without listeners is about those of the command line, which replace its own.
        for (text, arguments, phrase) in [
            (
                "iface = \"eth1\"\n[listener.\"http=198.18.0.9:80\"]\n",
                ServeArguments {
                    listen: vec!["http=198.18.0.1:80".parse().unwrap()],
                    ..ServeArguments::default()
                },
                "t.toml:2:11: table [listener.\"http=198.18.0.9:80\"]: it is about a listener that is not in `listen`",
            ),
            (
                "iface = \"eth1\"\n",
                ServeArguments {
                    listen: vec!["http=198.18.0.1:80".parse().unwrap()],
                    queues: Some(65),
                    ..ServeArguments::default()
                },
                "argument --queues: queues is 65; it must be from 1 to 64",
            ),
        ] {
            let file = config_file::parse(text, "t.toml").unwrap();
            let error = Settings::merge(file, &arguments).unwrap_err();
            assert_eq!(error, phrase);
        }
    }

    #[test]
    fn interface_and_listeners_must_come_from_somewhere() {
        let mut arguments = ServeArguments::default();
        let error = Settings::merge(ConfigFile::default(), &arguments).unwrap_err();
        assert!(error.contains("--iface"), "{error}");
        assert!(Settings::gather_to_check(&arguments).unwrap().is_none());
        arguments.iface = vec!["eth0".to_owned()];
        let error = Settings::gather(&arguments).unwrap_err();
        assert!(
            error.to_string().contains("--listen") && error.exit_code() == 2,
            "{error}"
        );
        let settings = Settings::gather_to_check(&arguments).unwrap().expect("an interface");
        assert_eq!(settings.interfaces, ["eth0"]);
        let twice = "http=198.18.0.1:80".parse().unwrap();
        arguments.listen = vec![twice, twice];
        let error = Settings::merge(ConfigFile::default(), &arguments).unwrap_err();
        assert!(error.contains("same address"), "{error}");
    }
}
