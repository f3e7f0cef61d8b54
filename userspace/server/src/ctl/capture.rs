//! `tidegate ctl capture`: what the server sends goes to a file, block by block.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tidegate_capture::pcapng::{Block, read_block};
use tidegate_capture::{Filter, FilterError};
use tidegate_control::{Client, End, Request};

use crate::failure::Failure;
use crate::output::Log;

/// Octets that are read at once.
const READ_BUFFER: usize = 256 * 1024;

/// The exit code after a second signal.
const INTERRUPTED: i32 = 130;

/// Arguments of `tidegate ctl capture`.
#[derive(Debug, Args)]
pub(crate) struct CaptureArguments {
    /// Only frames that match: host, net, port, portrange, src, dst, tcp, ip, ip6, icmp, inbound, outbound, less,
    /// greater, TCP flags, and, or, not, parentheses, as in tcpdump
    #[arg(long, value_name = "EXPR", default_value = "", hide_default_value = true, value_parser = expression)]
    filter: String,
    /// Octets of each frame; of those that XDP drops or answers never more than 128
    #[arg(long, value_name = "N", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(1..=262_144))]
    snaplen: u32,
    /// End after as many frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time; without it, with Ctrl-C
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// The file to write; `-`: standard output, for `wireshark -k -i -`
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    file: PathBuf,
}

/// A filter, as it was given: the server compiles it, and what is wrong with it is told before.
fn expression(text: &str) -> Result<String, FilterError> {
    text.parse::<Filter>().map(|_| text.to_owned())
}

/// Writes what is captured until the limits of the arguments or a signal end it, and says how many frames there are.
///
/// # Errors
///
/// The server refuses or breaks the connection, or the file cannot be written.
pub(super) fn run(mut client: Client, arguments: &CaptureArguments) -> Result<(), Failure> {
    let path = &arguments.file;
    // Before the server begins.
    let mut output = open(path).map_err(|source| cannot("write", path, source))?;
    client.call::<()>(&Request::Capture {
        filter: arguments.filter.clone(),
        snaplen: arguments.snaplen,
        count: arguments.count,
        duration_ms: arguments.duration.map(|duration| duration.as_millis() as u64),
    })?;
    let end = client.end().map_err(tidegate_control::Error::from)?;
    end_on_signal(end).map_err(|source| cannot("be interrupted while writing", path, source))?;
    let counts = copy(client.into_octets(), &mut output).map_err(|source| cannot("write", path, source))?;
    // Standard output may be the capture.
    let _ = Log.write(format!("{} frames captured, {} lost\n", counts.frames, counts.lost).as_bytes());
    Ok(())
}

fn cannot(what: &str, path: &Path, source: io::Error) -> Failure {
    Failure::System {
        what: format!("cannot {what} {}", path.display()),
        source,
    }
}

fn open(path: &Path) -> io::Result<Box<dyn Write>> {
    Ok(if path == Path::new("-") {
        // Blocks are whole as they come, so nothing is held back.
        Box::new(io::stdout().lock())
    } else {
        Box::new(File::create(path)?)
    })
}

/// Has the first signal end the capture in good order, and the second one this process.
fn end_on_signal(end: End) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for (before, _) in signals.forever().enumerate() {
            if before > 0 {
                process::exit(INTERRUPTED);
            }
            end.end();
        }
    })?;
    Ok(())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    frames: u64,
    lost: u64,
}

/// Copies blocks, and passes on what there is before it waits for more.
fn copy(input: impl Read, output: &mut impl Write) -> io::Result<Counts> {
    let mut input = BufReader::with_capacity(READ_BUFFER, input);
    let (mut block, mut waiting) = (Vec::new(), Vec::new());
    let mut counts = Counts::default();
    while let Some(kind) = read_block(&mut input, &mut block)? {
        match kind {
            Block::Packet => counts.frames += 1,
            Block::Statistics { lost } => counts.lost += lost,
            Block::Other => {}
        }
        waiting.extend_from_slice(&block);
        if input.buffer().is_empty() || waiting.len() >= READ_BUFFER {
            match output.write_all(&waiting).and_then(|()| output.flush()) {
                // The reader has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                written => written?,
            }
            waiting.clear();
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use tidegate_capture::pcapng::{Totals, Writer};

    use super::*;

    /// Takes so many octets.
    struct Pipe(usize);

    impl Write for Pipe {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(octets.len()).ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn blocks_are_copied_and_counted_and_a_reader_that_leaves_ends_it() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "").unwrap();
        let totals = Totals {
            lost: 3,
            ..Totals::default()
        };
        for interface in [0, 1] {
            writer.statistics(interface, &totals).unwrap();
        }
        let mut copied = Vec::new();
        let counts = copy(file.as_slice(), &mut copied).unwrap();
        assert_eq!((counts, copied == file), (Counts { frames: 0, lost: 6 }, true));
        copy(file.as_slice(), &mut Pipe(0)).unwrap();
        assert!(copy(&file[..file.len() - 1], &mut copied).is_err());
    }
}
