//! What the connections of an engine have in common, and no event of one of them changes.

use core::ops::Deref;

use tidegate_abi::siphash::Key;

use super::Tcb;
use crate::application::ListenerId;
use crate::config::Config;
use crate::congestion::{Algorithm, CongestionControl};
use crate::path_memory::PathMemory;

/// The settings of an engine, with those that its listeners have of their own, and what it remembers of paths.
pub(crate) struct Common {
    pub(crate) config: Config,
    /// The congestion control of each listener; `None`, or none: the configuration's.
    congestion: Vec<Option<Algorithm>>,
    /// Entered into when connections end.
    pub(crate) paths: PathMemory,
}

#[cfg(test)]
impl Default for Common {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Deref for Common {
    type Target = Config;

    #[inline]
    fn deref(&self) -> &Config {
        &self.config
    }
}

impl Common {
    /// `key` is for the hash of paths.
    pub(crate) fn keyed(config: Config, key: Key) -> Self {
        Self {
            paths: PathMemory::new(config.path_memory, key),
            congestion: Vec::new(),
            config,
        }
    }

    #[cfg(test)]
    pub(crate) fn new(config: Config) -> Self {
        Self::keyed(config, Key(1, 2))
    }

    /// Gives a listener congestion control of its own, or that of the configuration.
    pub(crate) fn set_congestion(&mut self, listener: ListenerId, algorithm: Option<Algorithm>) {
        let index = usize::from(listener.0);
        if self.congestion.len() <= index {
            self.congestion.resize(index + 1, None);
        }
        self.congestion[index] = algorithm;
    }

    /// The congestion control with which connections that `listener` accepted begin; `None`: those this side opens.
    fn congestion_of(&self, listener: Option<ListenerId>) -> Algorithm {
        listener
            .and_then(|listener| *self.congestion.get(usize::from(listener.0))?)
            .unwrap_or(self.config.congestion)
    }
}

impl Tcb {
    /// Congestion control, for what changes it.
    #[inline]
    pub(crate) fn congestion(&mut self, common: &Common) -> &mut dyn CongestionControl {
        if self.sending.congestion.is_none() {
            self.begin_congestion_control(common);
        }
        match &mut self.sending.congestion {
            Some(controller) => &mut **controller,
            None => unreachable!("it was made"),
        }
    }

    #[cold]
    #[inline(never)]
    fn begin_congestion_control(&mut self, common: &Common) {
        let mut controller = common.congestion_of(self.listener()).start(u32::from(self.mss));
        controller.configure(&common.config);
        if controller.wants_rate_samples() {
            self.sending.scoreboard.measure_rate();
        }
        if let Some(ssthresh) = self.recalled_ssthresh(common) {
            controller.recall_ssthresh(ssthresh);
        }
        self.sending.congestion = Some(controller);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_without_congestion_control_of_its_own_has_that_of_the_configuration() {
        let mut common = Common::default();
        let listeners = [None, Some(ListenerId(0)), Some(ListenerId(3)), Some(ListenerId(7))];
        let names = |common: &Common| listeners.map(|listener| common.congestion_of(listener).name());
        assert_eq!(names(&common), ["cubic"; 4]);
        common.set_congestion(ListenerId(3), Some(Algorithm::RENO));
        assert_eq!(names(&common), ["cubic", "cubic", "reno", "cubic"]);
        common.config.congestion = Algorithm::RENO;
        common.set_congestion(ListenerId(3), Some(Algorithm::CUBIC));
        assert_eq!(names(&common), ["reno", "reno", "cubic", "reno"]);
        common.set_congestion(ListenerId(3), None);
        assert_eq!(names(&common), ["reno"; 4]);
    }
}
