//! Why the program ends without success.

use std::io;

/// An error for people: a sentence, followed by a remedy where there is one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments or the configuration file ask for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The runtime could not start, or failed.
    #[error(transparent)]
    Runtime(#[from] tidegate_runtime::Error),
    /// The system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What could not be done.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
}

impl Failure {
    /// The exit code: 2 for usage, 1 for all else.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Runtime(error) if error.is_usage() => 2,
            Self::Runtime(_) | Self::System { .. } => 1,
        }
    }
}
