//! What is served: content, and the metadata that describes it (RFC 9110, section 8).

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::date;
use super::files::Stamp;

/// The page served at `/` when no root is given.
pub(super) const BUILT_IN_PAGE: &[u8] = include_bytes!("built_in_page.html");

/// Where the content is.
#[derive(Debug)]
pub(super) enum Content {
    Memory(Bytes),
    /// Read while it is sent.
    File(Arc<File>),
}

/// Something that can be served, with its header fields ready to be written.
#[derive(Debug)]
pub(super) struct Representation {
    pub(super) content: Content,
    /// Length of the content in bytes.
    pub(super) length: u64,
    /// The entity tag, quotes included; it is a strong one.
    pub(super) etag: String,
    /// Last modification in seconds since 1970.
    pub(super) modified: Option<u64>,
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
    pub(super) fn of_file(name: &[u8], stamp: &Stamp, content: Content, wall: u64) -> Self {
        let modified = u64::try_from(stamp.modified).unwrap_or(0).min(wall);
        let nanos = i128::from(stamp.modified) * 1_000_000_000 + i128::from(stamp.modified_nanos);
        // Only the low 64 bits, which repeat after 584 years.
        let etag = format!("\"{:x}-{:x}\"", stamp.length, nanos as u64);
        Self::new(content, stamp.length, etag, Some(modified), content_type(name))
    }

    /// The representation of [`BUILT_IN_PAGE`], which is also what `content` is.
    pub(super) fn built_in_page(content: Content) -> Self {
        let etag = concat!("\"tidegate-", env!("CARGO_PKG_VERSION"), "\"").to_owned();
        Self::new(
            content,
            BUILT_IN_PAGE.len() as u64,
            etag,
            None,
            "text/html; charset=utf-8".to_owned(),
        )
    }

    fn new(content: Content, length: u64, etag: String, modified: Option<u64>, media_type: String) -> Self {
        let last_modified = modified.map_or_else(String::new, |at| format!("Last-Modified: {}\r\n", date::format(at)));
        let content_type = format!("Content-Type: {media_type}\r\n");
        let validators = format!("ETag: {etag}\r\n{last_modified}Accept-Ranges: bytes\r\n");
        Self {
            content,
            length,
            etag,
            modified,
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

    fn stamp(modified: i64) -> Stamp {
        Stamp {
            device: 1,
            inode: 2,
            length: 255,
            modified,
            modified_nanos: 1,
        }
    }

    fn representation(modified: i64, wall: u64) -> Representation {
        Representation::of_file(b"a.txt", &stamp(modified), Content::Memory(Bytes::new()), wall)
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
    fn the_entity_tag_has_length_and_time() {
        assert_eq!(representation(2, 10).etag, "\"ff-77359401\"");
        assert_ne!(representation(2, 10).etag, representation(3, 10).etag);
    }

    #[test]
    fn last_modified_is_neither_before_1970_nor_in_the_future() {
        assert_eq!(representation(5, 10).modified, Some(5));
        assert_eq!(representation(-5, 10).modified, Some(0));
        assert_eq!(representation(i64::MAX, 10).modified, Some(10));
    }
}
