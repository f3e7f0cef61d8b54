//! Test data from a seed, and its SHA-256.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tidegate_random::Random;

const BLOCK: usize = 64 * 1024;

/// Draws a number from 1 to 1,000,000, every order of magnitude as likely as the others.
pub(crate) fn file_size(random: &mut Random) -> usize {
    (10_f64.powf(random.fraction() * 6.0) as usize).clamp(1, 1_000_000)
}

/// Writes the next `length` bytes of `random` to a new file and returns their SHA-256.
pub(crate) fn write_file(random: &mut Random, path: &Path, length: usize) -> String {
    let file = File::create(path).unwrap_or_else(|error| panic!("creating {}: {error}", path.display()));
    let mut file = BufWriter::with_capacity(BLOCK, file);
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    let mut left = length;
    while left > 0 {
        let part = &mut block[..left.min(BLOCK)];
        random.fill(part);
        hash.update(&*part);
        file.write_all(part)
            .unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
        left -= part.len();
    }
    file.flush()
        .unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
    hex(hash.finalize())
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
