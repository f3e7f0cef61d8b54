//! Request bodies (RFC 9112, sections 6 and 7): found to their end, bounded, thrown away.

use super::chunk_extension::ChunkExtension;
use super::fields::{is_text, is_token_byte};
use super::status::Status;

/// Finds the end of a body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of content that may still come.
    content_left: u64,
    /// Bytes of chunk extensions that may still come, and when the last chunk has come, bytes of the trailer section.
    overhead_left: usize,
    /// The size of `overhead_left` for the trailer section.
    max_trailers: usize,
    /// Trailer fields that may still come.
    trailer_fields_left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The number of missing bytes of a body of known length.
    Length(u64),
    /// In the hexadecimal size of a chunk.
    ChunkSize {
        value: u64,
        digits: u8,
    },
    /// In the extensions of a chunk of this size.
    ChunkExtension(u64, ChunkExtension),
    /// LF has to follow.
    ChunkLineEnd(u64),
    /// The number of missing bytes of the chunk.
    ChunkData(u64),
    /// CR has to follow.
    ChunkDataEnd,
    /// LF has to follow.
    ChunkDataLineEnd,
    /// At the start of a trailer field or of the empty line that ends the body.
    TrailerStart,
    /// In the name of a trailer field.
    TrailerName,
    /// In its value, or in white space around that.
    TrailerValue,
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
            max_trailers: 0,
            trailer_fields_left: 0,
        }
    }

    /// A chunked body of at most `max_content` bytes, with at most `max_overhead` bytes of chunk extensions, a trailer
    /// section of at most as many, and at most `max_fields` fields in it.
    pub(super) fn chunked(max_content: u64, max_overhead: usize, max_fields: usize) -> Self {
        Self {
            state: State::ChunkSize { value: 0, digits: 0 },
            content_left: max_content,
            overhead_left: max_overhead,
            max_trailers: max_overhead,
            trailer_fields_left: max_fields,
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
            (State::ChunkSize { value, digits: 1.. }, b';') => {
                self.extension(value, Some(ChunkExtension::BeforeName))?
            }
            (State::ChunkSize { value, digits: 1.. }, b' ' | b'\t') => {
                self.extension(value, Some(ChunkExtension::BeforeSemicolon))?
            }
            (State::ChunkExtension(value, extension), b'\r') if extension.is_complete() => State::ChunkLineEnd(value),
            (State::ChunkExtension(value, extension), byte) => self.extension(value, extension.next(byte))?,
            (State::ChunkLineEnd(0), b'\n') => {
                self.overhead_left = self.max_trailers;
                State::TrailerStart
            }
            (State::ChunkLineEnd(size), b'\n') => {
                self.content_left = self.content_left.checked_sub(size).ok_or(Status::ContentTooLarge)?;
                State::ChunkData(size)
            }
            (State::ChunkDataEnd, b'\r') => State::ChunkDataLineEnd,
            (State::ChunkDataLineEnd, b'\n') => State::ChunkSize { value: 0, digits: 0 },
            (
                State::TrailerStart
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerLineEnd
                | State::LastLineEnd,
                byte,
            ) => {
                let next = self.trailer(state, byte)?;
                self.spend(Status::RequestHeaderFieldsTooLarge)?;
                next
            }
            _ => return Err(Status::BadRequest),
        })
    }

    /// The state within the extensions of a chunk of `size` bytes.
    fn extension(&mut self, size: u64, place: Option<ChunkExtension>) -> Result<State, Status> {
        let place = place.ok_or(Status::BadRequest)?;
        self.spend(Status::BadRequest)?;
        Ok(State::ChunkExtension(size, place))
    }

    /// The state after one byte of the trailer section, whose fields are as those of a head.
    fn trailer(&mut self, state: State, byte: u8) -> Result<State, Status> {
        Ok(match (state, byte) {
            (State::TrailerStart, b'\r') => State::LastLineEnd,
            (State::TrailerStart, byte) if is_token_byte(byte) => {
                self.trailer_fields_left = self
                    .trailer_fields_left
                    .checked_sub(1)
                    .ok_or(Status::RequestHeaderFieldsTooLarge)?;
                State::TrailerName
            }
            (State::TrailerName, byte) if is_token_byte(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLineEnd,
            (State::TrailerValue, byte) if is_text(byte) => State::TrailerValue,
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
            let mut decoder = Decoder::chunked(100, 100, 2);
            let mut consumed = decoder.advance(&data[..split]).unwrap();
            consumed += decoder.advance(&data[consumed..]).unwrap();
            assert_eq!(consumed, CHUNKED.len(), "split at {split}");
            assert!(decoder.is_done());
        }
        let mut decoder = Decoder::chunked(100, 100, 2);
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
            b"1 \r\n",
            b"1\t\r\n",
            b"1;\r\n",
            b"1; \r\n",
            b"1;;a\r\n",
            b"1;=b\r\n",
            b"1;a=\r\n",
            b"1;a= \r\n",
            b"1;a \r\n",
            b"1;a b\r\n",
            b"1;a=b \r\n",
            b"1;a=b c\r\n",
            b"1;a=b=c\r\n",
            b"1;a=b;\r\n",
            b"1;a@b\r\n",
            b"1;\"a\"\r\n",
            b"1;a=b\"c\"\r\n",
            b"1;a=\"b\r\n",
            b"1;a=\"b\\\"\r\n",
            b"1;a=\"b\"c\r\n",
            b"1;a=\"\x7f\"\r\n",
            b"1;a=\xfc\r\n",
            b"0\r\nfield\r\n",
            b"0\r\n: value\r\n",
            b"0\r\nfield : value\r\n",
            b"0\r\nfi\xfcld: value\r\n",
            b"0\r\na: b\rc\r\n",
        ] {
            assert_eq!(
                Decoder::chunked(100, 100, 2).advance(data),
                Err(Status::BadRequest),
                "{data:?}"
            );
            assert_eq!(
                whole(&mut Decoder::chunked(100, 100, 2), data),
                Err(Status::BadRequest),
                "{data:?}"
            );
        }
    }

    #[test]
    fn extensions_have_names_and_values() {
        for line in [
            "1",
            "1;a",
            "1 ;a",
            "1\t ; a",
            "1;a;b",
            "1;a ;b",
            "1;a=b",
            "1;a = b",
            "1;a=b\t;c",
            "1;a=\"\"",
            "1;a=\"b \t;\\\"c\\\\\"",
            "1;a=\"\u{fc}\" ; b=c",
            "1;!#$%&'*+-.^_`|~09=z",
        ] {
            let data = format!("{line}\r\nx\r\n0\r\n\r\n");
            let mut decoder = Decoder::chunked(100, 100, 2);
            assert_eq!(whole(&mut decoder, data.as_bytes()), Ok(data.len()), "{line}");
            assert!(decoder.is_done(), "{line}");
        }
    }

    #[test]
    fn the_limit_of_a_trailer_section_is_exact() {
        let data = b"0\r\na: b\r\nc:\r\n\r\n";
        let trailers = data.len() - b"0\r\n".len();
        for (limit, expected) in [
            (trailers, Ok(data.len())),
            (trailers - 1, Err(Status::RequestHeaderFieldsTooLarge)),
        ] {
            assert_eq!(whole(&mut Decoder::chunked(5, limit, 2), data), expected, "{limit}");
            assert_eq!(Decoder::chunked(5, limit, 2).advance(data), expected, "{limit}");
        }
        let mut decoder = Decoder::chunked(5, 100, 2);
        assert_eq!(
            whole(&mut decoder, b"0\r\na:\r\nb:\r\nc:\r\n\r\n"),
            Err(Status::RequestHeaderFieldsTooLarge)
        );
    }

    #[test]
    fn content_extensions_and_trailers_are_bounded() {
        let mut decoder = Decoder::chunked(5, 100, 2);
        assert_eq!(decoder.advance(b"5\r\nabcde\r\n1\r\n"), Err(Status::ContentTooLarge));
        let mut decoder = Decoder::chunked(5, 100, 2);
        assert_eq!(decoder.advance(b"ffffffffffffffff\r\n"), Err(Status::ContentTooLarge));
        let mut decoder = Decoder::chunked(5, 10, 2);
        assert_eq!(decoder.advance(b"1;0123456789\r\na\r\n1;a"), Err(Status::BadRequest));
        let mut decoder = Decoder::chunked(5, 10, 2);
        assert_eq!(
            decoder.advance(b"0\r\nName: 78\r\nab: cd\r\n"),
            Err(Status::RequestHeaderFieldsTooLarge)
        );
    }
}
