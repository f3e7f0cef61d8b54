//! Calls from other threads into the main loop, which owns the runtime.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use tidegate_control::State;
use tidegate_runtime::Report;

use crate::access_log::AccessLog;
use crate::drain::Drain;
use crate::serve::{Past, Serving};
use crate::service_counters::Published;
use crate::settings::Settings;
use crate::signals::Waker;

/// Calls that wait for the main loop.
const MAX_CALLS: usize = 64;

/// The time the main loop has to answer. It answers at once, unless it starts, stops or waits for a shard that hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The state that a call sees and changes.
pub(crate) struct MainLoop<'a> {
    /// `None` while the interfaces are gone.
    pub(crate) serving: Option<&'a mut Serving>,
    /// The counts of runtimes that are over.
    pub(crate) past: &'a Past,
    /// The progress of draining.
    pub(crate) drain: &'a mut Drain,
    /// The settings as they were given.
    pub(crate) given: &'a mut Settings,
    /// The settings, with the queues that were prepared.
    pub(crate) settings: &'a mut Settings,
    /// The access log.
    pub(crate) access_log: &'a mut AccessLog,
}

impl MainLoop<'_> {
    /// The state of the server.
    pub(crate) fn state(&self) -> State {
        match (&self.serving, &self.drain) {
            (None, _) => State::Waiting,
            (Some(_), Drain::Off) => State::Serving,
            (Some(_), _) => State::Draining,
        }
    }

    /// The counters until now, those of runtimes that are over included; `None`: nothing has been served yet.
    ///
    /// # Errors
    ///
    /// A sentence: a shard does not answer.
    pub(crate) fn counts(&self) -> Result<Option<Counts<'_>>, String> {
        match &self.serving {
            Some(serving) => {
                let report = serving.report(self.past).map_err(|error| error.to_string())?;
                Ok(Some((report, &serving.services)))
            }
            None => Ok(self.past.report.clone().map(|report| (report, &*self.past.services))),
        }
    }
}

/// The counters of the runtime, and by shard those of the services.
type Counts<'a> = (Report, &'a [Arc<Published>]);

type Call = Box<dyn FnOnce(&mut MainLoop<'_>) + Send>;

/// The error of a call that was not answered: the server stops, or is busy.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the server does not answer; it is starting, stopping, or waits for a shard that hangs")]
pub(crate) struct NotAnswered;

/// The calling side.
#[derive(Clone)]
pub(crate) struct Caller {
    calls: SyncSender<Call>,
    waker: Waker,
}

/// The main loop's side.
pub(crate) struct Calls(Receiver<Call>);

/// Both sides; `waker` ends the main loop's waiting.
pub(crate) fn calls(waker: Waker) -> (Caller, Calls) {
    let (sender, receiver) = mpsc::sync_channel(MAX_CALLS);
    (Caller { calls: sender, waker }, Calls(receiver))
}

impl Caller {
    /// Has the main loop do `call`, which must not wait for anything but shards.
    ///
    /// # Errors
    ///
    /// [`NotAnswered`]; the call may still be made later.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut MainLoop<'_>) -> T + Send + 'static,
    ) -> Result<T, NotAnswered> {
        let (answer, answered) = mpsc::sync_channel(1);
        let call = Box::new(move |main: &mut MainLoop<'_>| {
            // The caller may have given up waiting.
            let _ = answer.try_send(call(main));
        });
        self.calls.try_send(call).map_err(|_| NotAnswered)?;
        self.waker.wake();
        answered.recv_timeout(ANSWER_TIMEOUT).map_err(|_| NotAnswered)
    }
}

impl Calls {
    /// Makes the calls that wait.
    pub(crate) fn make(&self, main: &mut MainLoop<'_>) {
        self.0.try_iter().take(MAX_CALLS).for_each(|call| call(main));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::access_log::AccessLogConfig;

    #[test]
    fn a_call_wakes_the_main_loop_and_gets_its_answer() {
        let (waker, woken) = Waker::new();
        let (caller, calls) = calls(waker);
        let calling = thread::spawn(move || {
            caller.call(|main| {
                main.drain.ask();
                main.settings.interfaces.clone()
            })
        });
        woken.recv_timeout(ANSWER_TIMEOUT).unwrap();
        let (mut settings, mut drain) = (Settings::of_test(), Drain::default());
        calls.make(&mut MainLoop {
            serving: None,
            past: &Past::default(),
            drain: &mut drain,
            given: &mut settings.clone(),
            settings: &mut settings,
            access_log: &mut AccessLog::start(&AccessLogConfig::default()).unwrap(),
        });
        assert_eq!(calling.join().unwrap().unwrap(), ["eth1"]);
        assert_eq!(drain, Drain::Asked);
    }

    #[test]
    fn a_main_loop_that_is_gone_or_full_is_told_at_once() {
        let (waker, _woken) = Waker::new();
        let (caller, first) = calls(waker.clone());
        drop(first);
        assert!(caller.call(|_| ()).is_err());
        let (caller, _kept) = calls(waker);
        for _ in 0..MAX_CALLS {
            caller.calls.try_send(Box::new(|_| ())).unwrap();
        }
        assert!(caller.call(|_| ()).is_err());
    }
}
