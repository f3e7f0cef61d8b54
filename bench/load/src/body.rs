//! Verification of bodies.

use std::fmt;

use sha2::{Digest, Sha256};

/// The body of a response, as far as two are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Bytes.
    pub length: u64,
    /// The SHA-256 of all of them.
    pub sha256: [u8; 32],
}

impl Body {
    /// The body that consists of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            length: bytes.len() as u64,
            sha256: Sha256::digest(bytes).into(),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, SHA-256 {}", self.length, hex(&self.sha256))
    }
}

/// The bodies that responses have to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Any: each may have another length.
    Any,
    /// As long as the first.
    #[default]
    Length,
    /// Equal to the first.
    Alike,
    /// Equal to this one.
    Equal(Body),
}

impl Verify {
    /// Returns whether the hash of every body is compared, for which every response is waited for.
    pub fn hashes(self) -> bool {
        matches!(self, Self::Alike | Self::Equal(_))
    }
}

/// Returns `bytes` in lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_keeps_leading_zeros() {
        assert_eq!(hex(&[0x00, 0x0f, 0xa0]), "000fa0");
    }

    #[test]
    fn a_body_says_its_length_and_its_hash() {
        let text = Body::of(b"abc").to_string();
        assert!(text.starts_with("3 bytes, SHA-256 ba7816bf8f01cfea"), "{text}");
    }
}
