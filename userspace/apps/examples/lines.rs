//! A service of one's own: each line is answered with its number and its length; `QUIT` ends the connection. It serves
//! until its standard input ends, and needs what `tidegate serve` needs.
//!
//!     cargo run --release --package tidegate-apps --example lines -- eth1 192.0.2.1:7000

use std::env;
use std::error::Error;
use std::io::{self, Read as _};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tidegate_runtime::{Balancers, Config, Listener, Settings, Sources, SynCookies};
use tidegate_tcp::application::{Application, CloseReason, Stream};

/// The longest line, in octets. A connection with a longer one, or with one that has no end, is reset.
const MAX_LINE: usize = 4096;

/// The time without a line after which a connection is closed.
const IDLE: Duration = Duration::from_secs(60);

/// The service; each shard has one. A connection keeps the number of its lines.
struct Lines;

impl Application for Lines {
    type Connection = u64;

    fn open<S: Stream>(&mut self, stream: &mut S) -> u64 {
        stream.set_timer(Some(IDLE));
        0
    }

    fn receive<S: Stream>(&mut self, lines: &mut u64, stream: &mut S, data: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(length) = data[taken..].iter().position(|&octet| octet == b'\n') {
            let line = data[taken..taken + length].trim_ascii_end();
            let answer = format!("{} {}\n", *lines + 1, line.len());
            // The line stays unread until there is room, which holds back a peer that does not read.
            if stream.send_space() < answer.len() {
                return taken;
            }
            stream.send_copy(answer.as_bytes());
            stream.mark_served();
            stream.set_timer(Some(IDLE));
            *lines += 1;
            taken += length + 1;
            if line == b"QUIT" {
                stream.close();
                return taken;
            }
        }
        let rest = data.len() - taken;
        if rest > MAX_LINE || rest > 0 && stream.peer_finished() {
            stream.abort();
        }
        taken
    }

    fn end_of_stream<S: Stream>(&mut self, _lines: &mut u64, stream: &mut S) {
        stream.close();
    }

    fn writable<S: Stream>(&mut self, _lines: &mut u64, _stream: &mut S) {}

    fn timeout<S: Stream>(&mut self, _lines: &mut u64, stream: &mut S) {
        stream.close();
    }

    fn drain<S: Stream>(&mut self, _lines: &mut u64, stream: &mut S) {
        stream.close();
    }

    fn closed(&mut self, _lines: u64, _reason: CloseReason) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let [_, interface, address] = &env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: lines INTERFACE ADDRESS:PORT".into());
    };
    let settings = Settings {
        interfaces: std::slice::from_ref(interface),
        afxdp: &Config::default(),
        tcp: &tidegate_tcp::Config::default(),
        syn_cookies: &SynCookies::default(),
        sources: &Sources::default(),
        balancers: &Balancers::default(),
        listeners: &[Listener {
            address: address.parse()?,
            keepalive: None,
            congestion: None,
        }],
        remotes: &[],
        opened: || Ok(()),
    };
    let mut runtime = tidegate_runtime::start(&settings, |_queue| Lines)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    runtime.drain(Duration::from_secs(5), &AtomicBool::new(false))?;
    runtime.stop()?;
    Ok(())
}
