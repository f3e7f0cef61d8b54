//! Other settings for an engine that runs.

use super::Engine;
use crate::application::Application;
use crate::config::Config;
use crate::rate_limit::{Limited, RateLimit};
use crate::recovery::rto::Bounds;
use crate::sources::SourceLimits;

impl<A: Application> Engine<A> {
    /// Works by `config` from now on, with the connections there are as well; their timers that run, run out as they
    /// were set. Keepalive settings count for listeners that are added later, and congestion control for connections
    /// that begin later. These stay as they are, since tables were made or options negotiated by them: `mtu`, which
    /// [`Engine::set_mtu`] changes, `outer_headers`, `max_connections`, `max_half_open`, `max_time_wait`,
    /// `path_memory`, `receive_buffer`, `receive_buffer_initial`, `ecn` and `loss_detection`.
    ///
    /// # Panics
    ///
    /// If `config` does not pass [`Config::validate`].
    pub fn set_config(&mut self, config: Config) {
        if let Err(reason) = config.validate() {
            panic!("{reason}");
        }
        let before = &self.common.config;
        if config.rst_rate != before.rst_rate {
            self.rst_limit = RateLimit::new(config.rst_rate, Limited::Reset, self.secrets.isn);
            self.challenge_limit = RateLimit::new(config.rst_rate, Limited::Challenge, self.secrets.isn);
        }
        self.rto_bounds = Bounds::new(config.rto_min, config.rto_max);
        self.common.config = Config {
            mtu: before.mtu,
            outer_headers: before.outer_headers,
            max_connections: before.max_connections,
            max_half_open: before.max_half_open,
            max_time_wait: before.max_time_wait,
            path_memory: before.path_memory,
            receive_buffer: before.receive_buffer,
            receive_buffer_initial: before.receive_buffer_initial,
            ecn: before.ecn,
            loss_detection: before.loss_detection,
            ..config
        };
    }

    /// The settings it works by.
    pub fn config(&self) -> &Config {
        &self.common.config
    }

    /// The number of listeners.
    pub fn listener_count(&self) -> usize {
        self.listeners.len()
    }

    /// Limits from now on what each source may have as `limits` says. What a source is, and how many are told apart,
    /// stays as it is; connections beyond a new limit go on.
    pub fn change_source_limits(&mut self, limits: SourceLimits) {
        self.sources.change_limits(limits);
    }
}
