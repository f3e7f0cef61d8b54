//! Files as representations: from the cache, or from the disk.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_tcp::time::Instant;

use super::cache::Cache;
use super::config::Config;
use super::counters::{Counter, Counters};
use super::files::{Opened, Root, Stamp};
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
    max_age: Duration,
}

impl Store {
    /// The files beneath `root`.
    pub(super) fn new(root: Root, config: &Config) -> Self {
        Self {
            root,
            cache: Cache::new(config.cache_bytes),
            index: config.index.clone(),
            cached_size: config.cache_file_limit.min(config.cache_bytes) as u64,
            max_age: config.cache_revalidate,
        }
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
        if let Some(representation) = self.cache.fresh(path, now, self.max_age) {
            counters.bump(Counter::CacheHits);
            return Ok(Found::Representation(representation));
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
        let content = read(&file, &stamp)?;
        let size = content.len();
        let representation = Arc::new(Representation::of_file(&name, &stamp, Content::Memory(content), wall));
        let evicted = self.cache.insert(path, Arc::clone(&representation), stamp, size, now);
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
