//! Representations: content, and the metadata that describes it (RFC 9110, section 8).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::date;
use super::etag::EntityTag;
use super::files::Stamp;
use super::open_files::OpenFile;

/// The page served at `/` when no root is given.
pub(super) const BUILT_IN_PAGE: &[u8] = include_bytes!("built_in_page.html");

/// The place of the content.
#[derive(Debug)]
pub(super) enum Content {
    Memory(Bytes),
    /// Read while it is sent.
    File(Arc<OpenFile>),
    /// Not to be had: its file would be one too many to be open.
    Unavailable,
}

/// Something that can be served, with its header fields ready to be written.
#[derive(Debug)]
pub(super) struct Representation {
    pub(super) content: Content,
    /// Length of the content in bytes.
    pub(super) length: u64,
    pub(super) etag: EntityTag,
    /// Last modification in seconds since 1970.
    pub(super) modified: Option<u64>,
    /// No other content had this time of modification, as far as whole seconds can tell.
    pub(super) is_modified_genuine: bool,
    /// The lines of a response with the whole content: Content-Length, Content-Type and the validators.
    pub(super) whole: String,
    /// The Content-Type line.
    pub(super) content_type: String,
    /// The lines ETag, Last-Modified and Accept-Ranges.
    pub(super) validators: String,
}

impl Representation {
    /// A file's representation. `wall` is the present in seconds since 1970: a file from the future was not modified
    /// later than now (RFC 9110, section 8.8.2.1).
    pub(super) fn of_file(name: &[u8], stamp: &Stamp, etag: EntityTag, content: Content, wall: u64) -> Self {
        let modified = u64::try_from(stamp.modified).unwrap_or(0).min(wall);
        Self {
            is_modified_genuine: stamp.has_genuine_modification_time(),
            ..Self::new(content, stamp.length, etag, Some(modified), content_type(name))
        }
    }

    /// The representation of [`BUILT_IN_PAGE`], which is also what `content` is.
    pub(super) fn built_in_page(content: Content) -> Self {
        Self::new(
            content,
            BUILT_IN_PAGE.len() as u64,
            EntityTag::fixed(concat!("tidegate-", env!("CARGO_PKG_VERSION"))),
            None,
            "text/html; charset=utf-8".to_owned(),
        )
    }

    fn new(content: Content, length: u64, etag: EntityTag, modified: Option<u64>, media_type: String) -> Self {
        let last_modified = modified.map_or_else(String::new, |at| format!("Last-Modified: {}\r\n", date::format(at)));
        let content_type = format!("Content-Type: {media_type}\r\n");
        let validators = format!("ETag: {etag}\r\n{last_modified}Accept-Ranges: bytes\r\n");
        Self {
            content,
            length,
            etag,
            modified,
            is_modified_genuine: false,
            whole: format!("Content-Length: {length}\r\n{content_type}{validators}"),
            content_type,
            validators,
        }
    }
}

/// The media type for a file name.
fn content_type(name: &[u8]) -> String {
    let guess = mime_guess::from_path(Path::new(OsStr::from_bytes(name)));
    let media_type = guess.first_raw().unwrap_or("application/octet-stream");
    if media_type.starts_with("text/") {
        format!("{media_type}; charset=utf-8")
    } else {
        media_type.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn representation(modified: i64, wall: u64) -> Representation {
        let stamp = Stamp::for_test(255, modified);
        let etag = EntityTag::of_settled(&stamp);
        Representation::of_file(b"a.txt", &stamp, etag, Content::Memory(Bytes::new()), wall)
    }

    #[test]
    fn media_types_follow_the_name() {
        for (name, expected) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a/b.TXT", "text/plain; charset=utf-8"),
            ("a.png", "image/png"),
            ("a.json", "application/json"),
            ("a.unheard-of", "application/octet-stream"),
            ("README", "application/octet-stream"),
            (".html", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(content_type(b"\xff.css"), "text/css; charset=utf-8");
    }

    #[test]
    fn last_modified_is_neither_before_1970_nor_in_the_future() {
        assert_eq!(representation(5, 10).modified, Some(5));
        assert_eq!(representation(-5, 10).modified, Some(0));
        assert_eq!(representation(i64::MAX, 10).modified, Some(10));
    }
}
