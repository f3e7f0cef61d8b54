//! Wrong arguments that clap cannot see by itself.

use std::fmt;

/// A sentence about arguments that contradict each other. A program that fails with it ends with exit code 2.
#[derive(Debug)]
pub struct UsageError(
    /// The sentence.
    pub String,
);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}
