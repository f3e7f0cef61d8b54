//! Files that are read in pieces while they are sent: a descriptor for each version of a file, however many read it.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::fast::RandomState;

use super::files::Stamp;

/// The versions that are open, by their stamps.
type Versions = HashMap<Stamp, Weak<OpenFile>, RandomState>;

/// The files one shard has open to send them. Each is there as long as somebody reads it.
#[derive(Debug)]
pub(super) struct OpenFiles {
    limit: usize,
    versions: Arc<Mutex<Versions>>,
}

/// One version of a file, open for reading.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    stamp: Stamp,
    /// As it was when it was last read from: a later one of the same content.
    latest: Mutex<Stamp>,
    /// The list that has it as long as it lives.
    versions: Arc<Mutex<Versions>>,
}

/// The reason nothing can be read of a version.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The file has another content by now.
    Changed,
    /// The file is shorter by now, or the kernel refuses.
    Failed,
}

impl OpenFiles {
    /// None yet, and never more than `limit`.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            versions: Arc::default(),
        }
    }

    /// The version of `file` that `stamp` stands for. One that is open already takes the place of `file`, which is then
    /// closed. `None` where it would be one too many.
    pub(super) fn share(&self, file: File, stamp: &Stamp) -> Option<Arc<OpenFile>> {
        let mut versions = lock(&self.versions);
        if let Some(open) = versions.get(stamp).and_then(Weak::upgrade) {
            return Some(open);
        }
        if versions.len() >= self.limit {
            return None;
        }
        let open = Arc::new(OpenFile {
            file,
            stamp: stamp.clone(),
            latest: Mutex::new(stamp.clone()),
            versions: Arc::clone(&self.versions),
        });
        versions.insert(stamp.clone(), Arc::downgrade(&open));
        Some(open)
    }
}

impl OpenFile {
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
        let mut latest = lock(&self.latest);
        if latest.may_have_other_content(&present) {
            return Err(ReadError::Changed);
        }
        *latest = present;
        Ok(length)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut versions = lock(&self.versions);
        // Its successor, if there is one, stays.
        if versions.get(&self.stamp).is_some_and(|open| open.strong_count() == 0) {
            versions.remove(&self.stamp);
        }
    }
}

/// Only one thread ever uses it; the lock is what lets its shard be made on another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::{fs, thread};

    use super::*;

    fn file() -> File {
        tempfile::tempfile().unwrap()
    }

    #[test]
    fn a_file_that_was_linked_and_then_written_to_is_another_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "one").unwrap();
        let file = File::open(&path).unwrap();
        let stamp = Stamp::of(&file).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        let open = OpenFiles::new(1).share(file, &stamp).unwrap();
        let mut buffer = [0; 3];
        let mut read = || open.read_at(&mut buffer, 0);
        // Longer than two changes of a file can have the same time.
        let settle = || thread::sleep(Duration::from_millis(50));
        settle();
        fs::hard_link(&path, directory.path().join("link")).unwrap();
        assert!(matches!(read(), Ok(3)));
        settle();
        fs::write(&path, "two").unwrap();
        let writer = File::options().write(true).open(&path).unwrap();
        writer.set_modified(modified).unwrap();
        assert!(matches!(read(), Err(ReadError::Changed)));
    }

    #[test]
    fn a_version_is_open_once_and_as_long_as_it_is_read() {
        let files = OpenFiles::new(2);
        let [one, two, three] = [1, 2, 3].map(|time| Stamp::for_test(1, time));
        let first = files.share(file(), &one).unwrap();
        let again = files.share(file(), &one).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let second = files.share(file(), &two).unwrap();
        assert!(files.share(file(), &three).is_none());
        assert!(files.share(file(), &two).is_some());
        drop(first);
        assert!(files.share(file(), &three).is_none(), "somebody still reads it");
        drop(again);
        assert!(files.share(file(), &three).is_some());
        drop(second);
        assert!(lock(&files.versions).is_empty());
    }
}
