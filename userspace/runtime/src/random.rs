//! Random bytes from the kernel.

use std::fs::File;
use std::io::Read as _;

use crate::error::Error;

const SOURCE: &str = "/dev/urandom";

/// `N` random bytes, good enough for keys.
///
/// # Errors
///
/// [`Error::Io`] when the kernel's source of randomness cannot be read.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    File::open(SOURCE)
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|error| Error::io(format!("cannot read {SOURCE}"), error))?;
    Ok(bytes)
}
