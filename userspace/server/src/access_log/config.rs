//! The settings of the access log.

use std::path::PathBuf;

use serde::Deserialize;
use tidegate_tcp::config::InvalidSetting;

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AccessLogFormat {
    /// As nginx and Apache write it.
    #[default]
    Combined,
    /// A JSON object.
    Json,
}

/// The access log of HTTP: the table `[access_log]` of the configuration file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccessLogConfig {
    /// The file that is appended to; without it nothing is logged.
    pub(crate) path: Option<PathBuf>,
    /// The form of a line.
    pub(crate) format: AccessLogFormat,
    /// The fraction of all requests that is logged, chosen at random (above 0, at most 1).
    pub(crate) sample: f64,
    /// Records that may wait to be written on each shard, and those of responses under way (4 to 65,536).
    pub(crate) queue: u32,
    /// Bytes of the request line, and of each field, that are logged (16 to 16,384).
    pub(crate) max_field: u32,
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self {
            path: None,
            format: AccessLogFormat::default(),
            sample: 1.0,
            queue: 4096,
            max_field: 1024,
        }
    }
}

impl AccessLogConfig {
    /// Checks the ranges the fields' documentation states.
    ///
    /// # Errors
    ///
    /// The first key whose value is out of range.
    pub(crate) fn validate(&self) -> Result<(), InvalidSetting> {
        if self.path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(InvalidSetting::new(["path"], "path is empty; it must be a path"));
        }
        if !(self.sample > 0.0 && self.sample <= 1.0) {
            return Err(InvalidSetting::new(
                ["sample"],
                format!("sample is {}; it must be above 0 and at most 1", self.sample),
            ));
        }
        InvalidSetting::check_range("queue", self.queue, 4..=65_536)?;
        InvalidSetting::check_range("max_field", self.max_field, 16..=16_384)
    }
}
