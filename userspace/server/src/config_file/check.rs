//! The checks beyond the types of the keys: ranges, and keys that contradict each other.

use tidegate_tcp::config::InvalidSetting;

use super::{ConfigFile, OfListener};
use crate::admin::check_name;
use crate::listen::{self, Listen};

/// The longest name of an interface (`IFNAMSIZ` without the null).
const MAX_INTERFACE_NAME: usize = 15;

impl ConfigFile {
    /// Checks what the types of the keys leave open.
    ///
    /// # Errors
    ///
    /// A sentence that begins with file, line, column and key.
    pub(super) fn check(&self) -> Result<(), String> {
        for (table, result) in [
            ("", self.check_top_level()),
            ("access_log", self.access_log.validate()),
            ("afxdp", self.afxdp.validate()),
            ("tcp", self.tcp.validate()),
            ("syn_cookies", self.syn_cookies.validate()),
            ("sources", self.sources.validate()),
            ("balancers", self.balancers.validate()),
            ("control", self.control.validate()),
            ("http", self.check_http()),
        ] {
            result.map_err(|error| self.origins.locate(table, &error))?;
        }
        // Without listeners of its own, the file is about those of the command line.
        if !self.listen.is_empty() {
            self.settings_of(&self.listen)?;
        }
        Ok(())
    }

    fn check_top_level(&self) -> Result<(), InvalidSetting> {
        for name in &self.iface {
            check_interface_name(name)?;
        }
        for (key, path) in [
            ("root", self.root.as_deref()),
            ("syn_cookies.key_file", self.syn_cookies.key_file.as_deref()),
            ("control.path", self.control.path.as_deref()),
            ("afxdp.take_over", self.afxdp.take_over.as_deref()),
        ] {
            if path.is_some_and(|path| path.as_os_str().is_empty()) {
                return Err(InvalidSetting::new([key], format!("{key} is empty; it must be a path")));
            }
        }
        if self.control.owner.as_deref() == Some("") {
            return Err(InvalidSetting::new(
                ["control.owner"],
                "control.owner is empty; it must be the name of a user",
            ));
        }
        for (key, duration) in [
            ("drain", self.drain),
            ("echo.idle_timeout", self.echo.idle_timeout),
            ("discard.idle_timeout", self.discard.idle_timeout),
        ] {
            InvalidSetting::check_duration(key, duration)?;
        }
        InvalidSetting::check_range("admin_connections", self.admin_connections, 1..=1024)?;
        self.admin_hosts.iter().try_for_each(|name| check_name(name))?;
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

    /// The settings of each of `listeners`.
    ///
    /// # Errors
    ///
    /// A sentence that begins with file, line, column and key: there are settings of another listener, or they cannot
    /// be.
    pub(crate) fn settings_of(&self, listeners: &[Listen]) -> Result<Vec<OfListener>, String> {
        let defaults = OfListener {
            keepalive: self.tcp.keepalive(),
            congestion: None,
        };
        let mut settings = vec![defaults; listeners.len()];
        for (text, own) in &self.listener {
            let index = text
                .parse::<Listen>()
                .and_then(|wanted| {
                    let found = listeners.iter().position(|listener| *listener == wanted);
                    found.ok_or_else(|| "it is about a listener that is not in `listen`".to_owned())
                })
                .map_err(|message| self.origins.locate_table(&["listener", text], &message))?;
            settings[index] = own.over(defaults);
            settings[index]
                .keepalive
                .validate()
                .map_err(|error| self.origins.locate_listener(text, &error))?;
        }
        Ok(settings)
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
