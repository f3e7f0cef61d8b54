//! The conditions in which SYNs are answered with cookies: the `[syn_cookies]` table of the configuration file.

use core::time::Duration;
use std::path::PathBuf;

use serde::Deserialize;
use tidegate_tcp::config::InvalidSetting;

/// The mode by which SYNs are answered with cookies (RFC 4987, section 3.6) by the XDP program, not by the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum CookieMode {
    /// Never.
    Never,
    /// While a queue is under pressure.
    Auto,
    /// From the start to the end.
    Always,
}

/// SYN-cookie settings. Thresholds are per queue.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SynCookies {
    /// The mode by which SYNs are answered with cookies.
    pub mode: CookieMode,
    /// SYNs per second on a queue that turn cookies on for it (1 to 100,000,000).
    pub on_syn_rate: u32,
    /// Half-open connections of a queue's shard that turn cookies on for it, in percent of `max_half_open` (1 to 100).
    pub on_half_open: u32,
    /// Acknowledgments per second of bad cookies, on all queues, that have SYNs without timestamps answered with strong
    /// cookies, which carry no options but an MSS, and have no others accepted (1 to 100,000,000).
    pub on_bad_cookies: u32,
    /// The time for which what turned them on has to be below half of its threshold before cookies are turned off, or
    /// usual ones are made again (100 ms to 1 h).
    #[serde(with = "humantime_serde")]
    pub off_after: Duration,
    /// The time for which a key makes cookies (5 s to 1 h). Its cookies are accepted for as long again.
    #[serde(with = "humantime_serde")]
    pub rotate: Duration,
    /// A file with the secret the keys are derived from, so that several hosts accept each other's cookies; without it
    /// the secret is random.
    pub key_file: Option<PathBuf>,
}

impl Default for SynCookies {
    fn default() -> Self {
        Self {
            mode: CookieMode::Auto,
            on_syn_rate: 20_000,
            on_half_open: 50,
            on_bad_cookies: 1000,
            off_after: Duration::from_secs(10),
            rotate: Duration::from_secs(30),
            key_file: None,
        }
    }
}

impl SynCookies {
    /// Checks the ranges the fields' documentation states. The key file is read when the runtime starts.
    ///
    /// # Errors
    ///
    /// The first key whose value is out of range.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        InvalidSetting::check_range("on_syn_rate", self.on_syn_rate, 1..=100_000_000)?;
        InvalidSetting::check_range("on_half_open", self.on_half_open, 1..=100)?;
        InvalidSetting::check_range("on_bad_cookies", self.on_bad_cookies, 1..=100_000_000)?;
        let hour = Duration::from_secs(3600);
        for (key, value, least) in [
            ("off_after", self.off_after, Duration::from_millis(100)),
            ("rotate", self.rotate, Duration::from_secs(5)),
        ] {
            InvalidSetting::check_range(key, value, least..=hour)?;
        }
        Ok(())
    }

    /// The threshold of half-open connections, at a limit of `max_half_open`.
    pub(crate) fn half_open_threshold(&self, max_half_open: u32) -> u32 {
        let threshold = u64::from(max_half_open) * u64::from(self.on_half_open) / 100;
        (threshold as u32).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        let read: SynCookies = toml::from_str(text).expect("a readable table");
        let error = read.validate().expect_err(text);
        error.to_string()
    }

    #[test]
    fn the_default_is_valid_and_what_an_empty_table_gives() {
        let read: SynCookies = toml::from_str("").expect("an empty table");
        assert_eq!(read, SynCookies::default());
        read.validate().expect("a valid default");
        assert_eq!(read.half_open_threshold(16_384), 8192);
        assert_eq!(read.half_open_threshold(1), 1);
    }

    #[test]
    fn a_table_is_read() {
        let read: SynCookies =
            toml::from_str("mode = \"always\"\nrotate = \"1m\"\nkey_file = \"/etc/tidegate/cookie.key\"")
                .expect("a good table");
        assert_eq!(read.mode, CookieMode::Always);
        assert_eq!(read.rotate, Duration::from_secs(60));
        assert!(read.key_file.is_some());
        let error = toml::from_str::<SynCookies>("mode = \"sometimes\"").expect_err("no such mode");
        assert!(error.message().contains("`never`, `auto`, `always`"), "{error}");
    }

    #[test]
    fn every_limit_is_named_when_it_is_broken() {
        assert!(complaint("on_syn_rate = 0").starts_with("on_syn_rate is 0"));
        assert!(complaint("on_half_open = 0").starts_with("on_half_open is 0"));
        assert!(complaint("on_half_open = 101").starts_with("on_half_open is 101"));
        assert!(complaint("on_bad_cookies = 0").starts_with("on_bad_cookies is 0"));
        assert!(complaint("off_after = \"0s\"").starts_with("off_after is 0ns"));
        assert!(complaint("rotate = \"4s\"").starts_with("rotate is 4s"));
        assert!(complaint("rotate = \"2h\"").starts_with("rotate is 7200s"));
    }
}
