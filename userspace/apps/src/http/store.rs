//! Files as representations: from the cache, or from the disk.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_tcp::time::Instant;

use super::cache::Cache;
use super::config::Config;
use super::counters::{Counter, Counters};
use super::files::{Opened, Root, Stamp};
use super::prepared::Prepared;
use super::representation::{Content, Representation};
use super::status::Status;

/// What a path leads to.
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
}

impl Store {
    /// The files beneath `root`.
    pub(super) fn new(root: Root, config: &Config) -> Self {
        Self {
            root,
            cache: Cache::new(config.cache_bytes, config.cache_revalidate),
            index: config.index.clone(),
            cached_size: config.cache_file_limit.min(config.cache_bytes) as u64,
        }
    }

    /// What is cached and fresh for the target `/path` that nobody has parsed yet. `None` says nothing about it:
    /// parsing the target may lead to something.
    #[inline]
    pub(super) fn cached(&mut self, path: &[u8], now: Instant) -> Option<&mut Prepared> {
        self.cache.fresh_unparsed(path, now)
    }

    /// What the normalised `path` names. `wall` is the present in seconds since 1970.
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
            Err(status) => {
                self.cache.remove(path);
                return Err(status);
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
        if stamp.length > self.cached_size {
            let content = Content::File(Arc::new(file));
            let representation = Arc::new(Representation::of_file(&name, &stamp, content, wall));
            return Ok(Found::Representation(representation));
        }
        let prepared = Prepared::in_memory(read(&file, &stamp)?, |content| {
            Representation::of_file(&name, &stamp, content, wall)
        });
        let representation = Arc::clone(prepared.representation());
        let evicted = self.cache.insert(path, prepared, stamp, now);
        counters.add(Counter::CacheEvictions, evicted);
        Ok(Found::Representation(representation))
    }
}

/// Reads a file whole. One that became shorter meanwhile is being replaced: the client may try again.
fn read(file: &File, stamp: &Stamp) -> Result<Bytes, Status> {
    let mut content = vec![0; stamp.length as usize];
    file.read_exact_at(&mut content, 0)
        .map_err(|_| Status::InternalServerError)?;
    Ok(Bytes::from(content))
}
