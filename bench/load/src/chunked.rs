//! Finding where a body ends that comes in chunks (RFC 9112, section 7.1).

use crate::errors::{Failure, Kind};

/// The position in a body that comes in chunks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunked {
    part: Part,
    /// A line that has come in part.
    line: Vec<u8>,
    /// Bytes of the trailer section so far.
    trailers: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Part {
    /// The line with the size of a chunk and its extensions.
    #[default]
    Size,
    /// The data of a chunk, of which `left` bytes are to come.
    Data { left: u64 },
    /// The line end after that.
    DataEnd,
    /// The fields after the last chunk.
    Trailers,
}

impl Chunked {
    /// Begins with another body.
    pub(crate) fn reset(&mut self) {
        self.part = Part::Size;
        self.line.clear();
        self.trailers = 0;
    }

    /// Takes what is of this body in `bytes`, and gives its data to `data`. Returns how many bytes that were, and
    /// whether the body is complete. A line, and the trailer section, may have `max_line` bytes.
    ///
    /// # Errors
    ///
    /// The bytes are no chunks, or a line is too long.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        max_line: usize,
        mut data: impl FnMut(&[u8]),
    ) -> Result<(usize, bool), Failure> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Part::Data { left } = &mut self.part {
                // Not more than rest.len(), so it fits.
                let (here, after) = rest.split_at((*left).min(rest.len() as u64) as usize);
                data(here);
                *left -= here.len() as u64;
                if *left == 0 {
                    self.part = Part::DataEnd;
                }
                rest = after;
                continue;
            }
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                self.line.extend_from_slice(rest);
                self.check_length(self.line.len(), max_line)?;
                return Ok((bytes.len(), false));
            };
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            self.check_length(self.line.len() + line.len(), max_line)?;
            let is_last = if self.line.is_empty() {
                self.line_ends(line)?
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                let is_last = self.line_ends(&whole)?;
                whole.clear();
                self.line = whole;
                is_last
            };
            if is_last {
                return Ok((bytes.len() - rest.len(), true));
            }
        }
        Ok((bytes.len(), false))
    }

    fn check_length(&self, line: usize, max_line: usize) -> Result<(), Failure> {
        if self.trailers + line <= max_line {
            return Ok(());
        }
        Err(match self.part {
            Part::Trailers => malformed(format!("a trailer section of more than {max_line} bytes after chunks")),
            _ => malformed(format!("the line before a chunk has more than {max_line} bytes")),
        })
    }

    /// Goes on after `line`, which includes its end. True if it was the last of the body.
    fn line_ends(&mut self, line: &[u8]) -> Result<bool, Failure> {
        match self.part {
            Part::Size => {
                self.part = match size(line)? {
                    0 => Part::Trailers,
                    left => Part::Data { left },
                };
            }
            Part::Data { .. } | Part::DataEnd => {
                if line != b"\r\n" {
                    return Err(malformed("a chunk is followed by something else than a line end"));
                }
                self.part = Part::Size;
            }
            Part::Trailers if line == b"\r\n" => return Ok(true),
            Part::Trailers => {
                if !line.ends_with(b"\r\n") || !line.contains(&b':') {
                    return Err(malformed("a line of the trailer section after chunks is no field"));
                }
                self.trailers += line.len();
            }
        }
        Ok(false)
    }
}

/// The size in the line before a chunk. Extensions are skipped.
fn size(line: &[u8]) -> Result<u64, Failure> {
    match httparse::parse_chunk_size(line) {
        // What begins with anything else has no size, which httparse takes for 0.
        Ok(httparse::Status::Complete((_, size))) if line[0].is_ascii_hexdigit() => Ok(size),
        _ => {
            let begin = &line[..line.len().min(20)];
            Err(malformed(format!("`{}` is no size of a chunk", begin.escape_ascii())))
        }
    }
}

fn malformed(detail: impl Into<String>) -> Failure {
    Failure::new(Kind::Malformed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_LINE: usize = 64;

    /// The data in `text`, of which `step` bytes come at a time, and how much of it was of the body.
    fn take(text: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize)>, Failure> {
        let (mut chunked, mut data, mut used) = (Chunked::default(), Vec::new(), 0);
        for piece in text.chunks(step) {
            let (count, is_complete) = chunked.take(piece, MAX_LINE, |part| data.extend_from_slice(part))?;
            used += count;
            if is_complete {
                return Ok(Some((data, used)));
            }
            assert_eq!(count, piece.len());
        }
        Ok(None)
    }

    #[test]
    fn chunks_come_in_pieces_of_any_size() {
        for (text, data) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("3\r\nhel\r\n002\r\nlo\r\n0000\r\n\r\n", "hello"),
            ("5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n", "hello"),
            ("5 \r\nhello\r\n0\r\nA: 1\r\nB:\r\n\r\n", "hello"),
            ("A\r\n\r\n0\r\n\r\nabc\r\n0\r\n\r\n", "\r\n0\r\n\r\nabc"),
        ] {
            let followed = format!("{text}HTTP/1.1 200 OK\r\n");
            for step in 1..=followed.len() {
                let found = take(followed.as_bytes(), step).unwrap();
                assert_eq!(
                    found,
                    Some((data.as_bytes().to_owned(), text.len())),
                    "{text:?} in pieces of {step}"
                );
            }
            for length in 0..text.len() {
                assert_eq!(
                    take(&text.as_bytes()[..length], 3),
                    Ok(None),
                    "{length} bytes of {text:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let long_extension = format!("5;{}\r\n", "x".repeat(MAX_LINE));
        let long_trailers = format!("0\r\n{}\r\n", "A: 1234567890\r\n".repeat(MAX_LINE / 15 + 1));
        for text in [
            "\r\n",
            " \r\n",
            "x\r\n",
            ";a\r\n",
            "-1\r\n",
            "5\nhello\r\n",
            "5;a\nhello\r\n",
            "10000000000000000\r\n",
            "5\r\nhelloo\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhelloxx0\r\n\r\n",
            "0\r\nno field\r\n\r\n",
            &long_extension,
            &long_trailers,
        ] {
            for step in [1, 7, text.len()] {
                let kind = take(text.as_bytes(), step).map_err(|failure| failure.kind);
                assert_eq!(kind, Err(Kind::Malformed), "{text:?} in pieces of {step}");
            }
        }
    }

    #[test]
    fn one_body_after_the_other() {
        let mut chunked = Chunked::default();
        let mut count = 0;
        let mut take = |chunked: &mut Chunked| chunked.take(b"1\r\nx\r\n0\r\nA: 1\r\n\r\n", MAX_LINE, |_| count += 1);
        assert_eq!(take(&mut chunked), Ok((17, true)));
        for _ in 0..MAX_LINE {
            chunked.reset();
            assert_eq!(take(&mut chunked), Ok((17, true)));
        }
        assert_eq!(count, MAX_LINE + 1);
    }
}
