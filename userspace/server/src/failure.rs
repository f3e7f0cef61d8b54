//! The ways in which the program ends without success.

use std::io;

use tidegate_runtime::Error;

use crate::origins::Origins;

/// An error for people: a sentence, followed by a remedy where there is one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments or the configuration file ask for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The runtime could not start, or failed.
    #[error(transparent)]
    Runtime(#[from] Error),
    /// The interface could not be prepared, or not be put back.
    #[error("{0}")]
    Nic(String),
    /// The running server could not be asked, or refuses.
    #[error(transparent)]
    Control(#[from] tidegate_control::Error),
    /// The system refused something else.
    #[error("{what}: {source}")]
    System {
        /// The step that failed.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
}

impl Failure {
    /// `error` of a runtime that was started with settings of `origins`.
    pub(crate) fn of_start(error: Error, origins: &Origins) -> Self {
        match error {
            Error::Setting { table, error } => Self::Usage(origins.locate(table, &error)),
            error => error.into(),
        }
    }

    /// The exit code: 2 for usage, 1 for all else.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Runtime(error) if error.is_usage() => 2,
            Self::Runtime(_) | Self::Nic(_) | Self::Control(_) | Self::System { .. } => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_tcp::config::InvalidSetting;

    use crate::config_source::Source;

    use super::*;

    #[test]
    fn what_the_runtime_finds_wrong_with_a_setting_is_told_with_its_place() {
        let origins = Origins::of_file(Source::new(
            "t.toml",
            "[afxdp]\nframe_size = 2048\nzero_copy = \"require\"\n",
        ));
        let error = Error::Setting {
            table: "afxdp",
            error: InvalidSetting::new(["zero_copy", "frame_size"], "no"),
        };
        let failure = Failure::of_start(error, &origins);
        assert_eq!(failure.to_string(), "t.toml:3:1: key `afxdp.zero_copy`: no");
        assert_eq!(failure.exit_code(), 2);
        let failure = Failure::of_start(Error::NoAfXdp, &origins);
        assert_eq!(failure.exit_code(), 1);
    }
}
