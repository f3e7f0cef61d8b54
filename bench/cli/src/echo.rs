//! A stream to an echo service and back, compared by SHA-256.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use sha2::{Digest, Sha256};
use tidegate_args::byte_size;
use tidegate_args::url::parse_target;
use tidegate_random::Random;

use tidegate_load::hex;

/// The time connecting, and a stream that does not move, is waited for.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes handed to the kernel at once.
const CHUNK: usize = 64 * 1024;

/// Most bytes per connection.
const MAX_BYTES: u64 = 100_000_000_000;

/// Arguments of `tidegate-bench echo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The echo service: ADDRESS:PORT, with IPv6 addresses in brackets.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_target)]
    target: SocketAddr,
    /// Bytes to send on each connection, for example 4096, 64KiB or 100MB; at most 100GB.
    #[arg(long, default_value = "100MB", value_parser = parse_bytes)]
    bytes: u64,
    /// Connections, all at once, 1 to 256.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,
    /// Send FIN after the last byte and receive until the server does the same. Without it the connection stays open
    /// both ways until all bytes are back.
    #[arg(long)]
    half_close: bool,
    /// Seed of the bytes; each further connection takes the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let bytes = byte_size::parse(text)?;
    if (1..=MAX_BYTES).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("it must be from 1 byte to 100GB".to_owned())
    }
}

/// One direction of a connection: how many bytes went, and their hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Direction {
    bytes: u64,
    hash: [u8; 32],
}

/// Sends and receives on all connections and prints both hashes of each. True when they are equal everywhere.
///
/// # Errors
///
/// A thread could not be started. What fails on one connection is printed and makes the result false.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let start = Instant::now();
    let results = thread::scope(|scope| {
        let mut threads = Vec::new();
        for index in 0..arguments.connections {
            let thread = thread::Builder::new()
                .spawn_scoped(scope, move || exchange(arguments, index))
                .context("cannot start a thread")?;
            threads.push(thread);
        }
        Ok::<_, anyhow::Error>(
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked"))))
                .collect::<Vec<_>>(),
        )
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let mut passed = true;
    let mut total = 0;
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok((sent, received)) => {
                println!(
                    "connection {index}: sent     {:>12} bytes, SHA-256 {}",
                    sent.bytes,
                    hex(&sent.hash)
                );
                println!(
                    "connection {index}: received {:>12} bytes, SHA-256 {}",
                    received.bytes,
                    hex(&received.hash)
                );
                if sent != received {
                    println!("connection {index}: DIFFERENT");
                    passed = false;
                }
                total += received.bytes;
            }
            Err(error) => {
                println!("connection {index}: failed: {error:#}");
                passed = false;
            }
        }
    }
    println!(
        "{}: {total} bytes back in {seconds:.3} s, {:.1} MB/s",
        if passed { "equal" } else { "not equal" },
        total as f64 / 1e6 / seconds
    );
    Ok(passed)
}

fn exchange(arguments: &Arguments, index: u32) -> anyhow::Result<(Direction, Direction)> {
    let mut reader = TcpStream::connect_timeout(&arguments.target, TIMEOUT)
        .with_context(|| format!("cannot connect to {}", arguments.target))?;
    reader.set_read_timeout(Some(TIMEOUT))?;
    reader.set_write_timeout(Some(TIMEOUT))?;
    let mut writer = reader.try_clone().context("cannot duplicate the socket")?;
    let random = Random::new(arguments.seed.wrapping_add(u64::from(index)));
    thread::scope(|scope| {
        let sending = thread::Builder::new()
            .spawn_scoped(scope, move || {
                let result = send(&mut writer, random, arguments.bytes);
                let shut = match &result {
                    Ok(_) if arguments.half_close => writer.shutdown(Shutdown::Write),
                    Ok(_) => Ok(()),
                    // The receiver would wait for what cannot come any more.
                    Err(_) => writer.shutdown(Shutdown::Both),
                };
                let direction = result?;
                shut.context("cannot send FIN")?;
                Ok::<_, anyhow::Error>(direction)
            })
            .context("cannot start a thread")?;
        let limit = if arguments.half_close {
            None
        } else {
            Some(arguments.bytes)
        };
        let received = receive(&mut reader, limit);
        if received.is_err() {
            // The sender would wait for room that nobody makes; its own error is the consequence of this one.
            reader.shutdown(Shutdown::Both).ok();
        }
        let sent = sending.join().unwrap_or_else(|_| Err(anyhow!("its sender panicked")));
        let received = received?;
        Ok((sent?, received))
    })
}

fn send(stream: &mut TcpStream, mut random: Random, bytes: u64) -> anyhow::Result<Direction> {
    let mut buffer = vec![0; CHUNK];
    let mut hasher = Sha256::new();
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let chunk = &mut buffer[..length];
        random.fill(chunk);
        hasher.update(&*chunk);
        stream
            .write_all(chunk)
            .with_context(|| format!("cannot send after {} bytes", bytes - left))?;
        left -= length as u64;
    }
    Ok(Direction {
        bytes,
        hash: hasher.finalize().into(),
    })
}

/// Receives until the end of the stream, or until `limit` bytes are there.
fn receive(stream: &mut TcpStream, limit: Option<u64>) -> anyhow::Result<Direction> {
    let mut buffer = vec![0; CHUNK];
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    while limit.is_none_or(|limit| bytes < limit) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let seconds = TIMEOUT.as_secs();
                return Err(anyhow!("nothing received for {seconds} s after {bytes} bytes"));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot receive after {bytes} bytes")),
        }
    }
    Ok(Direction {
        bytes,
        hash: hasher.finalize().into(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn arguments(target: SocketAddr, half_close: bool) -> Arguments {
        Arguments {
            target,
            bytes: 300_001,
            connections: 3,
            half_close,
            seed: 7,
        }
    }

    /// An echo service that flips a bit of byte `flip` of each stream; it ends with the process.
    fn serve(flip: Option<usize>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                thread::spawn(move || {
                    let mut buffer = vec![0; 10_000];
                    let mut position = 0;
                    while let Ok(count) = stream.read(&mut buffer) {
                        if count == 0 {
                            return;
                        }
                        if let Some(flip) = flip
                            && (position..position + count).contains(&flip)
                        {
                            buffer[flip - position] ^= 1;
                        }
                        position += count;
                        if stream.write_all(&buffer[..count]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    #[test]
    fn an_echo_is_equal_with_and_without_half_close() {
        let address = serve(None);
        assert!(run(&arguments(address, true)).unwrap());
        assert!(run(&arguments(address, false)).unwrap());
    }

    #[test]
    fn one_wrong_bit_is_found() {
        assert!(!run(&arguments(serve(Some(299_999)), true)).unwrap());
    }

    #[test]
    fn a_missing_service_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(!run(&arguments(address, true)).unwrap());
    }
}
