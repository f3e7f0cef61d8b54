//! `println!` and its kin for standard streams whose reader may go away.
//!
//! Those of the standard library panic when the reader of a pipe is gone, so that a program in front of `head` ends
//! before it has written its files. These take their place by `#[macro_use] extern crate tidegate_output;`: a reader
//! that is gone wants no more, and any other failure is kept for [`finish`].
//!
//! ```
//! #[macro_use]
//! extern crate tidegate_output;
//!
//! fn main() {
//!     println!("{} requests", 7);
//!     tidegate_output::finish().expect("standard output can be written to");
//! }
//! ```
#![forbid(unsafe_code)]

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

/// The first failure to write to standard output, but for a reader that is gone.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Writes to standard output.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::to_stdout(::std::format_args!($($argument)*)) };
}

/// Writes a line to standard output.
#[macro_export]
macro_rules! println {
    () => { $crate::to_stdout(::std::format_args!("\n")) };
    ($($argument:tt)*) => {
        $crate::to_stdout(::std::format_args!("{}\n", ::std::format_args!($($argument)*)))
    };
}

/// Writes to standard error.
#[macro_export]
macro_rules! eprint {
    ($($argument:tt)*) => { $crate::to_stderr(::std::format_args!($($argument)*)) };
}

/// Writes a line to standard error.
#[macro_export]
macro_rules! eprintln {
    () => { $crate::to_stderr(::std::format_args!("\n")) };
    ($($argument:tt)*) => {
        $crate::to_stderr(::std::format_args!("{}\n", ::std::format_args!($($argument)*)))
    };
}

/// The implementation of [`print!`] and [`println!`].
pub fn to_stdout(text: Arguments<'_>) {
    keep(io::stdout().lock().write_fmt(text));
}

/// The implementation of [`eprint!`] and [`eprintln!`]. Where standard error cannot be written to, there is nobody to
/// tell.
pub fn to_stderr(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Standard output as [`print!`] has it: writing to it does not fail.
#[derive(Clone, Copy, Debug)]
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        keep(io::stdout().lock().write_all(data));
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        keep(io::stdout().lock().flush());
        Ok(())
    }
}

/// Writes what is still held back for standard output.
///
/// # Errors
///
/// Something could not be written since the program began, for another reason than that the reader is gone.
pub fn finish() -> Result<(), &'static io::Error> {
    keep(io::stdout().lock().flush());
    FAILURE.get().map_or(Ok(()), Err)
}

fn keep(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::BrokenPipe
    {
        // The first one says it.
        let _ = FAILURE.set(error);
    }
}
