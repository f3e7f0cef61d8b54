//! Response heads (RFC 9112, sections 4 and 5).

use std::fmt::{Arguments, Write};

use bytes::BytesMut;

use super::status::Status;

/// Room for a head without a long Location, in bytes.
pub(super) const HEAD_SIZE: usize = 512;

/// The Connection line of a response after which the connection ends.
pub(super) const CONNECTION_CLOSE: &str = "Connection: close\r\n";

/// Appends a head to `out`. `connection` is the Connection line or empty, `fields` are the lines after it.
pub(super) fn append(out: &mut BytesMut, status: Status, date: &str, connection: &str, fields: Arguments<'_>) {
    let status = status.text();
    // Fails only where a buffer cannot grow, and this one can.
    let _ = write!(
        out,
        "HTTP/1.1 {status}\r\nServer: tidegate\r\nDate: {date}\r\n{connection}{fields}\r\n"
    );
}
