//! Files that are read in pieces while they are sent.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use super::files::Stamp;

/// One version of a file, open for reading.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    stamp: Stamp,
}

/// Why nothing can be read of a version.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The file has another content by now.
    Changed,
    /// The file is shorter by now, or the kernel refuses.
    Failed,
}

impl OpenFile {
    /// The version of `file` that `stamp` stands for.
    pub(super) fn new(file: File, stamp: Stamp) -> Self {
        Self { file, stamp }
    }

    /// Reads from the offset `offset`; returns how many bytes of `buffer` were filled, zero at the end of the file.
    ///
    /// # Errors
    ///
    /// The file was written to since it was opened, or cannot be read. What is in `buffer` then belongs to no version.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, ReadError> {
        let length = loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result.map_err(|_| ReadError::Failed)?,
            }
        };
        // After the reading, so that a change while it went on is seen, too.
        let present = Stamp::of(&self.file).map_err(|_| ReadError::Failed)?;
        if present.length < self.stamp.length {
            return Err(ReadError::Failed);
        }
        if self.stamp.may_have_other_content(&present) {
            return Err(ReadError::Changed);
        }
        Ok(length)
    }
}
