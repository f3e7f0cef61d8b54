//! Files as representations: from the cache, or from the disk.

use std::borrow::Cow;
use std::fmt::Arguments;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tidegate_tcp::time::Instant;
use tracing::warn;

use super::cache::Cache;
use super::config::Config;
use super::counters::{Counter, Counters};
use super::etag::EntityTag;
use super::files::{OpenError, Opened, Root, Stamp};
use super::open_files::OpenFiles;
use super::prepared::Prepared;
use super::representation::{Content, Representation};
use super::status::Status;

/// Further attempts to read a file that changed while it was read.
const READ_RETRIES: usize = 3;

/// The minimum time between two warnings that no more files can be opened.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// The object that a path leads to.
pub(super) enum Found {
    Representation(Arc<Representation>),
    /// A directory, named without the slash that makes relative links in it work.
    Directory,
}

/// The files beneath the root, with their cache.
pub(super) struct Store {
    root: Root,
    cache: Cache,
    index: String,
    cached_size: u64,
    open_files: OpenFiles,
    /// The time of the next warning about open files, and the number of requests refused since the last.
    next_warning: Instant,
    refused: u64,
}

impl Store {
    /// The files beneath `root`.
    pub(super) fn new(root: Root, config: &Config) -> Self {
        Self {
            root,
            cache: Cache::new(config.cache_bytes, config.cache_revalidate),
            index: config.index.clone(),
            cached_size: config.cache_file_limit as u64,
            open_files: OpenFiles::new(config.max_open_files),
            next_warning: Instant::ZERO,
            refused: 0,
        }
    }

    /// Whether both have the same directory.
    pub(super) fn has_root_of(&self, other: &Self) -> bool {
        self.root.is_same(&other.root)
    }

    /// The cached and fresh content for the target `/path`, which is not parsed yet. `None` says nothing about it:
    /// parsing the target may lead to something.
    #[inline]
    pub(super) fn cached(&mut self, path: &[u8], now: Instant) -> Option<&mut Prepared> {
        self.cache.fresh_unparsed(path, now)
    }

    /// Frees files that are not cached any more and that nobody is sent any more.
    pub(super) fn forget_sent(&mut self) {
        self.cache.forget_sent();
    }

    /// The object that the normalised `path` names. `wall` is the present in seconds since 1970.
    ///
    /// # Errors
    ///
    /// The status to answer with.
    pub(super) fn find(
        &mut self,
        path: &[u8],
        now: Instant,
        wall: u64,
        counters: &mut Counters,
    ) -> Result<Found, Status> {
        if let Some(prepared) = self.cache.fresh(path, now) {
            counters.bump(Counter::CacheHits);
            return Ok(Found::Representation(Arc::clone(prepared.representation())));
        }
        let is_directory = path.is_empty() || path.ends_with(b"/");
        let name = if is_directory {
            Cow::Owned([path, self.index.as_bytes()].concat())
        } else {
            Cow::Borrowed(path)
        };
        let opened = match self.root.find(&name) {
            Ok(opened) => opened,
            Err(OpenError::Refused(status)) => {
                self.cache.remove(path);
                return Err(status);
            }
            Err(OpenError::Exhausted(errno)) => {
                if let Some(representation) = self.cache.keep(path, now) {
                    counters.bump(Counter::CacheHits);
                    counters.bump(Counter::CacheStaleHits);
                    return Ok(Found::Representation(representation));
                }
                return Err(self.refuse(now, format_args!("{errno}"), counters));
            }
        };
        let (file, stamp) = match opened {
            Opened::File(file, stamp) => (file, stamp),
            Opened::Directory => {
                self.cache.remove(path);
                return if is_directory {
                    Err(Status::Forbidden)
                } else {
                    Ok(Found::Directory)
                };
            }
        };
        if let Some(representation) = self.cache.revalidate(path, &stamp, now) {
            counters.bump(Counter::CacheHits);
            return Ok(Found::Representation(representation));
        }
        counters.bump(Counter::CacheMisses);
        if stamp.length > self.cached_size || !self.cache.may_hold(path, stamp.length) {
            return Ok(Found::Representation(self.open(&name, file, &stamp, wall)));
        }
        let (prepared, settled) = self.read_whole(path, &name, &file, stamp, wall)?;
        let representation = Arc::clone(prepared.representation());
        let evicted = self.cache.insert(path, prepared, settled, now);
        counters.add(Counter::CacheEvictions, evicted);
        Ok(Found::Representation(representation))
    }

    /// The representation of a file that is read as it is sent.
    fn open(&mut self, name: &[u8], file: File, stamp: &Stamp, wall: u64) -> Arc<Representation> {
        let etag = if stamp.is_settled(since_1970()) {
            EntityTag::of_settled(stamp)
        } else {
            EntityTag::of_unsettled(stamp)
        };
        let content = self
            .open_files
            .share(file, stamp)
            .map_or(Content::Unavailable, Content::File);
        Arc::new(Representation::of_file(name, stamp, etag, content, wall))
    }

    /// Reads a file whole, to be cached for `path`; also returns its stamp if that is settled.
    fn read_whole(
        &mut self,
        path: &[u8],
        name: &[u8],
        file: &File,
        mut stamp: Stamp,
        wall: u64,
    ) -> Result<(Prepared, Option<Stamp>), Status> {
        let before = since_1970();
        let content = read(file, &mut stamp, |length| {
            length <= self.cached_size && self.cache.may_hold(path, length)
        })?;
        let is_settled = stamp.is_settled(before);
        let etag = if is_settled {
            EntityTag::of_settled(&stamp)
        } else {
            EntityTag::of_content(&stamp, &content)
        };
        let prepared = Prepared::in_memory(content, |content| {
            Representation::of_file(name, &stamp, etag, content, wall)
        });
        Ok((prepared, is_settled.then_some(stamp)))
    }

    /// Counts a request for content that is unavailable, and returns the status to answer with.
    #[cold]
    pub(super) fn refuse_content(&mut self, now: Instant, counters: &mut Counters) -> Status {
        let reason = "http.max_open_files are being sent; they are closed when no connection reads them";
        self.refuse(now, format_args!("{reason}"), counters)
    }

    /// Counts a request for a file that cannot be opened now, logs it if that was not done lately, and returns the
    /// status to answer with.
    #[cold]
    fn refuse(&mut self, now: Instant, reason: Arguments<'_>, counters: &mut Counters) -> Status {
        counters.bump(Counter::FilesExhausted);
        self.refused += 1;
        if now >= self.next_warning {
            warn!(
                "requests for files answered with 503: {}, the last because: {reason}",
                self.refused
            );
            self.refused = 0;
            self.next_warning = now + WARNING_INTERVAL;
        }
        Status::ServiceUnavailable
    }
}

/// The wall clock. It is read here and not taken from the one for dates, whose second is too coarse.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Reads a file whose length `may_read` allows whole, in one version, whose stamp is then `stamp`. One that changes all
/// the time, or grows too large, is being replaced: the client may try again.
fn read(file: &File, stamp: &mut Stamp, mut may_read: impl FnMut(u64) -> bool) -> Result<Bytes, Status> {
    for _ in 0..=READ_RETRIES {
        if !may_read(stamp.length) {
            break;
        }
        let mut content = vec![0; stamp.length as usize];
        let result = file.read_exact_at(&mut content, 0);
        let present = Stamp::of(file).map_err(|_| Status::InternalServerError)?;
        if present == *stamp {
            return result
                .map(|()| Bytes::from(content))
                .map_err(|_| Status::InternalServerError);
        }
        *stamp = present;
    }
    Err(Status::ServiceUnavailable)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_changed_is_read_again_in_one_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "one").unwrap();
        let file = File::open(&path).unwrap();
        let mut stamp = Stamp::of(&file).unwrap();
        fs::write(&path, "three").unwrap();
        assert_eq!(
            read(&file, &mut stamp, |length| length <= 5),
            Ok(Bytes::from_static(b"three"))
        );
        assert_eq!(stamp, Stamp::of(&file).unwrap());

        fs::write(&path, "eleven").unwrap();
        assert_eq!(
            read(&file, &mut stamp, |length| length <= 5),
            Err(Status::ServiceUnavailable),
            "too large by now"
        );
        fs::write(&path, "").unwrap();
        assert_eq!(
            read(&file, &mut stamp, |length| length <= 5),
            Err(Status::ServiceUnavailable),
            "still known as too large"
        );
        assert_eq!(read(&file, &mut stamp, |length| length <= 6), Ok(Bytes::new()));
    }
}
