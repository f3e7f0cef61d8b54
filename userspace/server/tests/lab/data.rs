//! Test data from a seed, and its SHA-256.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

const BLOCK: usize = 64 * 1024;

/// SplitMix64 (Steele, Lea and Flood, 2014): the same bytes from the same seed.
pub(crate) struct Random(u64);

impl Random {
    /// A generator that starts from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 1 to 1,000,000, every order of magnitude as likely as the others.
    pub(crate) fn file_size(&mut self) -> usize {
        let fraction = (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        (10_f64.powf(fraction * 6.0) as usize).clamp(1, 1_000_000)
    }

    /// `length` bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        bytes
    }

    /// Writes `length` bytes to a new file and returns their SHA-256.
    pub(crate) fn write_file(&mut self, path: &Path, length: usize) -> String {
        let file = File::create(path).unwrap_or_else(|error| panic!("creating {}: {error}", path.display()));
        let mut file = BufWriter::with_capacity(BLOCK, file);
        let mut hash = Sha256::new();
        let mut block = vec![0; BLOCK];
        let mut left = length;
        while left > 0 {
            let part = &mut block[..left.min(BLOCK)];
            self.fill(part);
            hash.update(&*part);
            file.write_all(part)
                .unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
            left -= part.len();
        }
        file.flush()
            .unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
        hex(hash.finalize())
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let random = self.next_u64().to_le_bytes();
            part.copy_from_slice(&random[..part.len()]);
        }
    }
}

/// An empty directory on disk that is removed with its guard.
pub(crate) fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("tidegate-lab-")
        .tempdir()
        .unwrap_or_else(|error| panic!("making a temporary directory: {error}"))
}

/// SHA-256 of the file at `path`, in hexadecimal.
pub(crate) fn sha256_of_file(path: &Path) -> String {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("opening {}: {error}", path.display()));
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        let length = file
            .read(&mut block)
            .unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
        if length == 0 {
            return hex(hash.finalize());
        }
        hash.update(&block[..length]);
    }
}

/// SHA-256 of `bytes`, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
