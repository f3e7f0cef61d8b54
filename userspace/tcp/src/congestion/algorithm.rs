//! The names of congestion control algorithms.

use core::fmt::{self, Debug};
use core::str::FromStr;

use super::{Bbr, CongestionControl, Cubic, Reno};

/// A congestion control algorithm: its name, and the way a connection begins with it.
#[derive(Clone, Copy)]
pub struct Algorithm {
    name: &'static str,
    start: fn(mss: u32) -> Box<dyn CongestionControl>,
}

impl Algorithm {
    /// RFC 5681: [`Reno`].
    pub const RENO: Self = Self::new("reno", |mss| Box::new(Reno::new(mss)));
    /// RFC 9438: [`Cubic`]. The default.
    pub const CUBIC: Self = Self::new("cubic", |mss| Box::new(Cubic::new(mss)));
    /// draft-ietf-ccwg-bbr: [`Bbr`].
    pub const BBR: Self = Self::new("bbr", |mss| Box::new(Bbr::new(mss)));

    /// The algorithms that the configuration file can name.
    pub const ALL: &'static [Self] = &[Self::RENO, Self::CUBIC, Self::BBR];

    /// An algorithm of this name, which no other has; `start` returns the state of a new connection with segments of at
    /// most `mss` bytes.
    pub const fn new(name: &'static str, start: fn(mss: u32) -> Box<dyn CongestionControl>) -> Self {
        Self { name, start }
    }

    /// The name used in configuration.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The state of a new connection with segments of at most `mss` bytes.
    pub fn start(self, mss: u32) -> Box<dyn CongestionControl> {
        (self.start)(mss)
    }
}

impl Default for Algorithm {
    fn default() -> Self {
        Self::CUBIC
    }
}

impl PartialEq for Algorithm {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Algorithm {}

impl Debug for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .iter()
            .copied()
            .find(|algorithm| algorithm.name == name)
            .ok_or_else(|| UnknownAlgorithm(name.to_owned()))
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Algorithm {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

/// A name that no [`Algorithm`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm(String);

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no congestion control {:?}; it must be one of:", self.0)?;
        for (index, algorithm) in Algorithm::ALL.iter().enumerate() {
            write!(f, "{} {algorithm}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownAlgorithm {}
