//! The origins of settings, so that an error can name them.

use std::fmt::Write as _;

use tidegate_tcp::config::InvalidSetting;

use crate::config_source::Source;

/// The origins of settings: a configuration file, and arguments that win over it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    file: Option<Source>,
    /// Keys that are set by the command line, each with its argument.
    arguments: Vec<(&'static str, &'static str)>,
}

impl Origins {
    /// Settings of a file.
    pub(crate) fn of_file(source: Source) -> Self {
        Self {
            file: Some(source),
            arguments: Vec::new(),
        }
    }

    /// Notes that `argument` has set `key`, which is named with its table.
    pub(crate) fn set_by_argument(&mut self, key: &'static str, argument: &'static str) {
        self.arguments.push((key, argument));
    }

    /// `error` about keys of `table` (empty: the top level) with the place where the first of them that is set at all
    /// is set. A key with a dot is named with its table.
    pub(crate) fn locate(&self, table: &str, error: &InvalidSetting) -> String {
        let paths: Vec<Vec<&str>> = error
            .keys()
            .iter()
            .map(|key| match key.split_once('.') {
                Some((table, key)) => vec![table, key],
                None if table.is_empty() => vec![*key],
                None => vec![table, key],
            })
            .collect();
        self.locate_paths(&paths, error)
    }

    /// As [`Origins::locate`], for keys of the listener that is written `listener`, and of `[tcp]`, which has what it
    /// leaves out.
    pub(crate) fn locate_listener(&self, listener: &str, error: &InvalidSetting) -> String {
        let own = error.keys().iter().map(|key| vec!["listener", listener, key]);
        let shared = error.keys().iter().map(|key| vec!["tcp", key]);
        let paths: Vec<Vec<&str>> = own.chain(shared).collect();
        self.locate_paths(&paths, error)
    }

    /// `message` about the table at `path`.
    pub(crate) fn locate_table(&self, path: &[&str], message: &str) -> String {
        let name = shown(path);
        match self.place_of(path) {
            Some(place) => format!("{place}: table [{name}]: {message}"),
            None => format!("table [{name}]: {message}"),
        }
    }

    fn locate_paths(&self, paths: &[Vec<&str>], error: &InvalidSetting) -> String {
        for path in paths {
            let key = path.join(".");
            if let Some((_, argument)) = self.arguments.iter().find(|(set, _)| *set == key) {
                return format!("argument {argument}: {error}");
            }
            if let Some(place) = self.place_of(path) {
                return format!("{place}: key `{}`: {error}", shown(path));
            }
        }
        // All of them are defaults.
        let path = paths.first().map_or(&[][..], Vec::as_slice);
        format!("key `{}`: {error}", shown(path))
    }

    fn place_of(&self, path: &[&str]) -> Option<String> {
        self.file.as_ref()?.place_of(path)
    }
}

/// A path as TOML writes it.
fn shown(path: &[&str]) -> String {
    let mut text = String::new();
    for (index, name) in path.iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        let is_bare = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if is_bare {
            text.push_str(name);
        } else {
            let _ = write!(text, "{name:?}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_is_named_where_it_has_set_the_key() {
        let mut origins = Origins::of_file(Source::new("t.toml", "[afxdp]\nframes = 1024\nqueues = 2\n"));
        origins.set_by_argument("afxdp.queues", "--queues");
        let error = |keys: &[&'static str]| origins.locate("afxdp", &InvalidSetting::new(keys, "no"));
        assert_eq!(error(&["queues"]), "argument --queues: no");
        assert_eq!(error(&["frames", "queues"]), "t.toml:2:1: key `afxdp.frames`: no");
        assert_eq!(
            error(&["control_reserve", "frames"]),
            "t.toml:2:1: key `afxdp.frames`: no"
        );
        assert_eq!(error(&["control_reserve"]), "key `afxdp.control_reserve`: no");
        assert_eq!(
            Origins::default().locate("", &InvalidSetting::new(["tcp.mtu"], "no")),
            "key `tcp.mtu`: no"
        );
    }
}
