//! The finding of a check, as a sentence.

use core::fmt;

use serde::{Serialize, Serializer};

/// The consequence of what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is as it should be.
    Ok,
    /// It costs speed, or something may be missed.
    Warning,
    /// Nothing can be served.
    Failure,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "FAILURE",
        })
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its consequence.
    pub severity: Severity,
    /// The subject, in a word or two.
    pub subject: &'static str,
    /// The sentence, without a full stop. A command that mends it is between backticks.
    #[serde(flatten)]
    pub sentence: Sentence,
}

/// A sentence with, between backticks, the command it recommends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence(String);

impl Sentence {
    /// The command, if it recommends one: the first.
    pub fn command(&self) -> Option<&str> {
        self.0.split('`').nth(1)
    }
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Sentence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("Sentence", 2)?;
        fields.serialize_field("sentence", &self.0)?;
        fields.serialize_field("command", &self.command())?;
        fields.end()
    }
}

impl Finding {
    /// A finding about `subject`.
    pub fn new(severity: Severity, subject: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            severity,
            subject,
            sentence: Sentence(sentence.into()),
        }
    }

    /// Something that is as it should be.
    pub fn ok(subject: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(Severity::Ok, subject, sentence)
    }

    /// Something that costs speed, or lets something be missed.
    pub fn warning(subject: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(Severity::Warning, subject, sentence)
    }

    /// Something that prevents serving.
    pub fn failure(subject: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(Severity::Failure, subject, sentence)
    }
}
