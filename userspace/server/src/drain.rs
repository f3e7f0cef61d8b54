//! Draining without stopping (SIGWINCH): the server goes on holding its addresses and ports, so that nobody is told by
//! a RST that they are closed, until whatever sends it connections has learned to send them elsewhere.

use std::time::{Duration, Instant};

use tidegate_runtime::Runtime;

use crate::{say, service_manager};

/// The time in which handshakes may be completed, and requests sent on them, after the last SYN was answered: that of a
/// retransmission (RFC 6298, rule 2.1), and as long again.
const HANDSHAKE_TIME: Duration = Duration::from_secs(2);

/// The progress of draining.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Drain {
    /// Nobody asked for it.
    #[default]
    Off,
    /// It was asked for, and nothing has been done yet.
    Asked,
    /// No SYN is answered, since then.
    SynsRefused(Instant),
    /// Connections are finished.
    Finishing,
    /// None is left, and that has been said.
    Done,
}

impl Drain {
    /// Begins, unless it has begun.
    pub(crate) fn ask(&mut self) {
        if *self == Self::Off {
            *self = Self::Asked;
        }
    }

    /// Begins again with another runtime, which knows nothing of it.
    pub(crate) fn begin_anew(&mut self) {
        if *self != Self::Off {
            *self = Self::Asked;
        }
    }

    /// Does what is due.
    pub(crate) fn step(&mut self, runtime: &mut Runtime) {
        match *self {
            Self::Asked => {
                say("tidegate: draining\n");
                service_manager::status("draining");
                runtime.refuse_syns();
                *self = Self::SynsRefused(Instant::now());
            }
            Self::SynsRefused(since) if since.elapsed() >= HANDSHAKE_TIME => {
                runtime.refuse_connections();
                *self = Self::Finishing;
            }
            // A shard that does not tell is left to `Runtime::check`.
            Self::Finishing if runtime.connections().is_ok_and(|open| open == 0) => {
                say("tidegate: drained\n");
                service_manager::status("drained");
                *self = Self::Done;
            }
            _ => {}
        }
    }
}
