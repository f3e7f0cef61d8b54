//! The processor time of a server while it is measured.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tidegate_lab::machine;
use tidegate_load::Window;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Looks at the processor time of a process and of those it has started, ten times a second, in a thread of its own:
/// which part of a run counts is only known when it is over.
pub(super) struct ServerCpu {
    /// Dropping it ends the thread.
    end: Sender<()>,
    thread: JoinHandle<anyhow::Result<Vec<Sample>>>,
}

/// The processor time at a moment.
type Sample = (Instant, Duration);

impl ServerCpu {
    /// Begins with process `id`.
    ///
    /// # Errors
    ///
    /// There is no such process, or no thread can be started.
    pub(super) fn watch(id: u32) -> anyhow::Result<Self> {
        let first = sample(id)
            .with_context(|| format!("cannot look at the processor time of process {id}, given by --server-pid"))?;
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("server-cpu".to_owned())
            .spawn(move || -> anyhow::Result<Vec<Sample>> {
                let mut samples = vec![first];
                loop {
                    let is_over = ended.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout);
                    samples.push(sample(id)?);
                    if is_over {
                        return Ok(samples);
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(Self { end, thread })
    }

    /// Ends it, and returns the processor time in `window`; `None` without one.
    ///
    /// # Errors
    ///
    /// The process has ended meanwhile.
    pub(super) fn finish(self, window: Option<Window>) -> anyhow::Result<Option<Duration>> {
        drop(self.end);
        let samples = self
            .thread
            .join()
            .map_err(|_| anyhow!("the thread that looked at the server's processor time panicked"))??;
        Ok(window.map(|window| at(&samples, window.end).saturating_sub(at(&samples, window.begin))))
    }
}

fn sample(id: u32) -> anyhow::Result<Sample> {
    if !machine::is_running(id) {
        return Err(anyhow!("process {id}, the server, has ended"));
    }
    Ok((Instant::now(), machine::processor_time_of_threads(id)))
}

/// The processor time at `moment`, on a line between the samples around it.
fn at(samples: &[Sample], moment: Instant) -> Duration {
    let later = samples.partition_point(|&(time, _)| time <= moment);
    let before = later.checked_sub(1).and_then(|index| samples.get(index));
    match (before, samples.get(later)) {
        (Some(&(start, used)), Some(&(end, more))) => {
            let part = (moment - start).as_secs_f64() / (end - start).as_secs_f64();
            used + more.saturating_sub(used).mul_f64(part)
        }
        (Some(&(_, used)), None) | (None, Some(&(_, used))) => used,
        (None, None) => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn time_between_two_looks_is_on_a_line() {
        let begin = Instant::now();
        let after = |millis| begin + Duration::from_millis(millis);
        let millis = Duration::from_millis;
        let samples = [
            (after(100), millis(10)),
            (after(200), millis(50)),
            (after(300), millis(50)),
        ];
        let found = [0, 100, 125, 200, 250, 300, 900].map(|moment| at(&samples, after(moment)));
        assert_eq!(found, [10, 10, 20, 50, 50, 50, 50].map(millis));
        assert_eq!(at(&[], begin), Duration::ZERO);
    }

    #[test]
    fn the_processor_time_of_a_process_is_that_of_the_window() {
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let (id, begin) = (child.id(), Instant::now());
        let cpu = ServerCpu::watch(id).unwrap();
        let without_window = ServerCpu::watch(id).unwrap().finish(None).unwrap();
        while machine::processor_time_of_threads(id) < Duration::from_millis(50) && begin.elapsed().as_secs() < 30 {}
        let window = Window {
            begin,
            end: Instant::now(),
            client_cpu: Duration::ZERO,
        };
        let used = cpu.finish(Some(window)).unwrap().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(without_window, None);
        // The samples around the begin may be those around the end.
        assert!(used >= Duration::from_millis(20), "{used:?}");
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = child.id();
        let cpu = ServerCpu::watch(id).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let error = cpu.finish(None).unwrap_err().to_string();
        assert!(error.contains("has ended"), "{error}");
        let error = ServerCpu::watch(id).err().unwrap();
        assert!(format!("{error:#}").contains("--server-pid"), "{error:#}");
    }
}
