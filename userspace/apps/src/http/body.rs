//! Request bodies (RFC 9112, sections 6 and 7): found to their end, bounded, thrown away.

use super::status::Status;

/// Finds the end of a body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of content that may still come.
    content_left: u64,
    /// Bytes of chunk extensions and trailers that may still come.
    overhead_left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a body of known length are missing.
    Length(u64),
    /// In the hexadecimal size of a chunk.
    ChunkSize {
        value: u64,
        digits: u8,
    },
    /// In white space after the size.
    ChunkSizeEnd(u64),
    /// In the extensions of a chunk of this size.
    ChunkExtension(u64),
    /// LF has to follow.
    ChunkLineEnd(u64),
    /// So many bytes of the chunk are missing.
    ChunkData(u64),
    /// CR has to follow.
    ChunkDataEnd,
    /// LF has to follow.
    ChunkDataLineEnd,
    /// At the start of a trailer field or of the empty line that ends the body.
    TrailerStart,
    /// In a trailer field.
    Trailer,
    /// LF has to follow.
    TrailerLineEnd,
    /// LF has to follow; it is the last byte.
    LastLineEnd,
    Done,
}

impl Decoder {
    /// A body of `length` bytes (at least 1).
    pub(super) fn length(length: u64) -> Self {
        Self {
            state: State::Length(length),
            content_left: length,
            overhead_left: 0,
        }
    }

    /// A chunked body of at most `max_content` bytes, with at most `max_overhead` bytes of chunk extensions and
    /// trailers.
    pub(super) fn chunked(max_content: u64, max_overhead: usize) -> Self {
        Self {
            state: State::ChunkSize { value: 0, digits: 0 },
            content_left: max_content,
            overhead_left: max_overhead,
        }
    }

    /// True after the last byte of the body.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads on in `data` and returns how many bytes of it belong to the body.
    ///
    /// # Errors
    ///
    /// The status to answer with; where the body ends is unknown then.
    pub(super) fn advance(&mut self, data: &[u8]) -> Result<usize, Status> {
        let mut at = 0;
        while at < data.len() {
            let available = (data.len() - at) as u64;
            match self.state {
                State::Done => break,
                State::Length(missing) => {
                    let taken = missing.min(available);
                    at += taken as usize;
                    self.state = if taken == missing {
                        State::Done
                    } else {
                        State::Length(missing - taken)
                    };
                }
                State::ChunkData(missing) => {
                    let taken = missing.min(available);
                    at += taken as usize;
                    self.state = if taken == missing {
                        State::ChunkDataEnd
                    } else {
                        State::ChunkData(missing - taken)
                    };
                }
                state => {
                    self.state = self.step(state, data[at])?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }

    /// The state after one byte of framing. Line ends are CRLF and nothing else: where two servers disagree on a
    /// line's end, requests can be smuggled.
    fn step(&mut self, state: State, byte: u8) -> Result<State, Status> {
        Ok(match (state, byte) {
            (
                State::ChunkSize {
                    value,
                    digits: digits @ 0..16,
                },
                byte,
            ) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).ok_or(Status::BadRequest)?;
                State::ChunkSize {
                    value: (value << 4) | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (State::ChunkSize { value, digits: 1.. }, b'\r') => State::ChunkLineEnd(value),
            (State::ChunkSize { value, digits: 1.. }, b';') => State::ChunkExtension(value),
            (State::ChunkSize { value, digits: 1.. }, b' ' | b'\t') => State::ChunkSizeEnd(value),
            (State::ChunkSizeEnd(value), b'\r') => State::ChunkLineEnd(value),
            (State::ChunkSizeEnd(value), b';') => State::ChunkExtension(value),
            (State::ChunkSizeEnd(value), b' ' | b'\t') => {
                self.spend(Status::BadRequest)?;
                State::ChunkSizeEnd(value)
            }
            (State::ChunkExtension(value), b'\r') => State::ChunkLineEnd(value),
            (State::ChunkExtension(value), byte) if is_text(byte) => {
                self.spend(Status::BadRequest)?;
                State::ChunkExtension(value)
            }
            (State::ChunkLineEnd(0), b'\n') => State::TrailerStart,
            (State::ChunkLineEnd(size), b'\n') => {
                self.content_left = self.content_left.checked_sub(size).ok_or(Status::ContentTooLarge)?;
                State::ChunkData(size)
            }
            (State::ChunkDataEnd, b'\r') => State::ChunkDataLineEnd,
            (State::ChunkDataLineEnd, b'\n') => State::ChunkSize { value: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::LastLineEnd,
            // A line that continues the one before it (obs-fold).
            (State::TrailerStart, b' ' | b'\t') => return Err(Status::BadRequest),
            (State::Trailer, b'\r') => State::TrailerLineEnd,
            (State::TrailerStart | State::Trailer, byte) if is_text(byte) => {
                self.spend(Status::RequestHeaderFieldsTooLarge)?;
                State::Trailer
            }
            (State::TrailerLineEnd, b'\n') => State::TrailerStart,
            (State::LastLineEnd, b'\n') => State::Done,
            _ => return Err(Status::BadRequest),
        })
    }

    fn spend(&mut self, error: Status) -> Result<(), Status> {
        self.overhead_left = self.overhead_left.checked_sub(1).ok_or(error)?;
        Ok(())
    }
}

/// Bytes a field value or quoted string may have (RFC 9110, section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] =
        b"4\r\nWiki\r\n00B;name=\"v;w\";x\r\npedia in \r\n\r\n2 \t;y\r\n\r\n\r\n0\r\nTrailer: value\r\nOther: \r\n\r\n";

    fn whole(decoder: &mut Decoder, data: &[u8]) -> Result<usize, Status> {
        let mut at = 0;
        for byte in data {
            if decoder.is_done() {
                break;
            }
            at += decoder.advance(std::slice::from_ref(byte))?;
        }
        Ok(at)
    }

    #[test]
    fn a_length_ends_where_it_says() {
        let mut decoder = Decoder::length(5);
        assert_eq!(decoder.advance(b"ab"), Ok(2));
        assert!(!decoder.is_done());
        assert_eq!(decoder.advance(b"cdeNEXT"), Ok(3));
        assert!(decoder.is_done());
        assert_eq!(decoder.advance(b"NEXT"), Ok(0));
    }

    #[test]
    fn chunks_split_anywhere_end_at_the_same_byte() {
        let mut data = CHUNKED.to_vec();
        data.extend_from_slice(b"NEXT");
        for split in 0..data.len() {
            let mut decoder = Decoder::chunked(100, 100);
            let mut consumed = decoder.advance(&data[..split]).unwrap();
            consumed += decoder.advance(&data[consumed..]).unwrap();
            assert_eq!(consumed, CHUNKED.len(), "split at {split}");
            assert!(decoder.is_done());
        }
        let mut decoder = Decoder::chunked(100, 100);
        assert_eq!(whole(&mut decoder, &data), Ok(CHUNKED.len()));
    }

    #[test]
    fn malformed_framing_is_refused_at_every_split() {
        for data in [
            &b"\r\n"[..],
            b";\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 1\r\n",
            b"1\n",
            b"1\r\r",
            b"1\r\nab",
            b"1\r\na\n",
            b"1\r\na\rb",
            b"1;\n",
            b"1;a\x00\r\n",
            b"0\r\n\n",
            b"0\r\n\rx",
            b"0\r\na: b\n",
            b"0\r\n folded\r\n",
            b"0\r\na\x00\r\n",
            b"00000000000000000\r\n",
        ] {
            assert_eq!(
                Decoder::chunked(100, 100).advance(data),
                Err(Status::BadRequest),
                "{data:?}"
            );
            assert_eq!(
                whole(&mut Decoder::chunked(100, 100), data),
                Err(Status::BadRequest),
                "{data:?}"
            );
        }
    }

    #[test]
    fn content_extensions_and_trailers_are_bounded() {
        let mut decoder = Decoder::chunked(5, 100);
        assert_eq!(decoder.advance(b"5\r\nabcde\r\n1\r\n"), Err(Status::ContentTooLarge));
        let mut decoder = Decoder::chunked(5, 100);
        assert_eq!(decoder.advance(b"ffffffffffffffff\r\n"), Err(Status::ContentTooLarge));
        let mut decoder = Decoder::chunked(5, 10);
        assert_eq!(decoder.advance(b"1;0123456789\r\na\r\n1;a"), Err(Status::BadRequest));
        let mut decoder = Decoder::chunked(5, 10);
        assert_eq!(
            decoder.advance(b"0\r\nName: 78\r\nab: cd\r\n"),
            Err(Status::RequestHeaderFieldsTooLarge)
        );
    }
}
