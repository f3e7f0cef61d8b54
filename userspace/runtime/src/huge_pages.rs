//! Huge pages for the tables of engines: with millions of connections nearly every look-up misses the translation cache
//! of the processor, which has to read tables of pages first, and those of huge pages stay in its caches.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tidegate_tcp::MemoryAdvisor;
use tracing::debug;

/// Asks the kernel for huge pages where it leaves that to the program (`transparent_hugepage=madvise`).
#[derive(Default)]
pub(crate) struct HugePages {
    /// Bytes that were advised.
    advised: AtomicU64,
    /// That it has none was said.
    refused: AtomicBool,
}

impl HugePages {
    /// Bytes of memory that the kernel was asked to back by huge pages since this was made.
    #[cfg(test)]
    fn advised(&self) -> u64 {
        self.advised.load(Ordering::Relaxed)
    }
}

impl MemoryAdvisor for HugePages {
    fn allocated(&self, address: usize, length: usize) {
        // SAFETY: sysconf reads nothing of this process.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })
            .unwrap_or(4096)
            .max(1);
        // Whole pages only: around them is memory of others.
        let start = address.next_multiple_of(page);
        let end = (address + length) / page * page;
        if start >= end {
            return;
        }
        // SAFETY: this advice changes no content and unmaps nothing, whatever is there.
        let result = unsafe {
            libc::madvise(
                core::ptr::without_provenance_mut(start),
                end - start,
                libc::MADV_HUGEPAGE,
            )
        };
        if result == 0 {
            self.advised.fetch_add((end - start) as u64, Ordering::Relaxed);
        } else {
            // A kernel without huge pages: it works all the same.
            let error = std::io::Error::last_os_error();
            if !self.refused.swap(true, Ordering::Relaxed) {
                debug!(%error, "the kernel has no huge pages for tables");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use tidegate_abi::siphash::Key;
    use tidegate_tcp::application::{Application, CloseReason, Stream};
    use tidegate_tcp::engine::Secrets;
    use tidegate_tcp::time::Instant;
    use tidegate_tcp::transmit::{Purpose, Transmit};
    use tidegate_tcp::wire::LinkHeader;
    use tidegate_tcp::{Config, Engine};

    use super::*;

    struct Nothing;

    impl Application for Nothing {
        type Connection = ();
        fn open<S: Stream>(&mut self, _: &mut S) {}
        fn receive<S: Stream>(&mut self, (): &mut (), _: &mut S, data: &[u8]) -> usize {
            data.len()
        }
        fn end_of_stream<S: Stream>(&mut self, (): &mut (), _: &mut S) {}
        fn writable<S: Stream>(&mut self, (): &mut (), _: &mut S) {}
        fn timeout<S: Stream>(&mut self, (): &mut (), _: &mut S) {}
        fn drain<S: Stream>(&mut self, (): &mut (), _: &mut S) {}
        fn closed(&mut self, (): (), _: CloseReason) {}
    }

    struct NoFrames;

    impl Transmit for NoFrames {
        fn reserve(&mut self, _: Purpose) -> Option<&mut [u8]> {
            None
        }
        fn commit(&mut self, _: usize) {}
    }

    fn has_huge_pages() -> bool {
        fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap_or(false)
    }

    #[test]
    fn the_tables_of_an_engine_are_advised() {
        let pages = Arc::new(HugePages::default());
        let secrets = Secrets {
            isn: Key(1, 2),
            table: Key(3, 4),
        };
        let mut engine = Engine::new(Config::default(), secrets, Nothing);
        engine.set_memory_advisor(pages.clone());
        let link = LinkHeader::new([2; 6], [4; 6], true);
        let (local, remote) = (([198, 18, 0, 1], 40_000).into(), ([198, 18, 0, 2], 80).into());
        let opened = engine.connect(Instant::from_millis(1), local, remote, &link, &mut NoFrames);
        assert!(opened.is_ok());
        let tables = engine.table_memory();
        let large = (tables.connections + tables.timers) as u64;
        assert!(large > 1 << 20, "{tables:?}");
        if has_huge_pages() {
            // All but the pages at both ends of each chunk, and what is no chunk.
            assert!(
                pages.advised() + 64 * 1024 >= large,
                "{} of {large} bytes",
                pages.advised()
            );
        }
    }

    #[test]
    fn memory_within_a_page_is_left_alone() {
        let pages = HugePages::default();
        let bytes = [0_u8; 100];
        pages.allocated(bytes.as_ptr().addr().next_multiple_of(4096) + 1, 100);
        assert_eq!(pages.advised(), 0);
    }
}
