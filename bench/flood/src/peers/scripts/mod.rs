//! The scripts.

mod reader;
mod silent;
mod slow_head;
mod tiny_mss;

pub(super) use self::reader::Reader;
pub(super) use self::silent::Silent;
pub(super) use self::slow_head::SlowHead;
pub(super) use self::tiny_mss::TinyMss;
