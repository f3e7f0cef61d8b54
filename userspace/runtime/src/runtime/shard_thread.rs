//! A shard's thread.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};

use tidegate_exchange::{Exchange, Handover};
use tidegate_tcp::application::Application;

use super::Failure;
use crate::affinity;
use crate::error::Error;
use crate::report::{QueueInfo, ShardReport};
use crate::shard::{Exit, Shard};
use crate::shard_port::ShardPort;
use crate::shard_task::ShardTask;
use crate::take_over::{NewPort, Release};

/// Runs a shard to its end. What goes wrong in it is kept for [`Runtime::check`].
pub(super) fn run_shard<A, D>(shard: Shard<A, D>, info: QueueInfo, failure: &OnceLock<Failure>) -> Option<ShardReport>
where
    A: Application + 'static,
    D: ShardTask<A>,
{
    let run = || {
        if let Some(cpu) = info.cpu {
            affinity::pin(cpu)?;
        }
        run_with_ports(shard)
    };
    let what = match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(report)) => return Some(report),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("it panicked: {}", panic_message(&*panic)),
    };
    // Only the first failure is kept; the others may well follow from it.
    let _ = failure.set(Failure {
        queue: info.queue,
        what,
    });
    None
}

/// Runs a shard whose port may go to another process, and come back.
fn run_with_ports<A, D>(mut shard: Shard<A, D>) -> Result<ShardReport, Error>
where
    A: Application + 'static,
    D: ShardTask<A>,
{
    loop {
        let release = match shard.run()? {
            Exit::Stop => return Ok(shard.report()),
            Exit::Port(new) => {
                shard = with_new_port(shard, *new)?;
                continue;
            }
            Exit::Release(release) => *release,
        };
        let Release { mut port, released, .. } = release;
        port.keep_statistics(shard.report().xdp_statistics);
        let memory = port.relay();
        let alone = Handover::new(Arc::new(Exchange::new(1, 1, 1)), 0);
        let mut relayed = shard.with_port(port, memory, alone);
        // With the last of the shards all their sockets are closed.
        let _ = released.send(());
        loop {
            match relayed.run()? {
                Exit::Stop => return Ok(relayed.report()),
                // It has none.
                Exit::Release(_) => {}
                Exit::Port(new) => {
                    shard = with_new_port(relayed, *new)?;
                    break;
                }
            }
        }
    }
}

fn with_new_port<A, D, P>(shard: Shard<A, D, P>, new: NewPort) -> Result<Shard<A, D>, Error>
where
    A: Application + 'static,
    D: ShardTask<A>,
    P: ShardPort,
{
    let mut shard = shard.with_port(new.port, new.memory, new.handover);
    shard.relay(new.relays)?;
    Ok(shard)
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_by_its_message() {
        let literal: Box<dyn Any + Send> = Box::new("frames were lost");
        assert_eq!(panic_message(&*literal), "frames were lost");
        let formatted: Box<dyn Any + Send> = Box::new(format!("frame {}", 7));
        assert_eq!(panic_message(&*formatted), "frame 7");
        let other: Box<dyn Any + Send> = Box::new(7);
        assert_eq!(panic_message(&*other), "without a message");
    }
}
