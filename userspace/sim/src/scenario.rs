//! Everything that makes one run: two hosts, what their applications do, and the link between them.

use core::fmt;
use core::time::Duration;
use std::net::SocketAddr;

use bytes::Bytes;
use tidegate_random::Random;
use tidegate_tcp::Config;
use tidegate_tcp::congestion::Algorithm;

use crate::engine_host::{EngineHost, EngineSettings};
use crate::host::{ClockStart, Host};
use crate::impairment::Impairment;
use crate::script::{Finish, Plan, Script};
use crate::segment::Endpoint;
use crate::side::Side;
use crate::smoltcp_host::{SmoltcpHost, SmoltcpSettings};

/// The TCP a host runs.
#[derive(Clone, Debug)]
pub enum Stack {
    /// The engine.
    Engine(Box<EngineSettings>),
    /// smoltcp.
    Smoltcp(SmoltcpSettings),
}

impl Stack {
    /// Whether it is the engine.
    pub fn is_engine(&self) -> bool {
        matches!(self, Self::Engine(_))
    }

    /// MTU of the host's interface in bytes, without the Ethernet header.
    pub fn mtu(&self) -> u16 {
        match self {
            Self::Engine(settings) => settings.config.mtu,
            Self::Smoltcp(settings) => settings.mtu,
        }
    }
}

/// One host.
#[derive(Clone, Debug)]
pub struct Party {
    /// Its TCP.
    pub stack: Stack,
    /// The behaviour of its application.
    pub plan: Plan,
    /// The start of its clock.
    pub clock: ClockStart,
}

impl Party {
    fn host(&self, ends: (Endpoint, Endpoint), listens: bool) -> Result<Box<dyn Host>, String> {
        let script = Script::new(self.plan.clone());
        let host: Box<dyn Host> = match &self.stack {
            Stack::Engine(settings) => Box::new(EngineHost::new(settings, self.clock, script, ends, listens)),
            Stack::Smoltcp(settings) => Box::new(SmoltcpHost::new(settings, self.clock, script, ends, listens)?),
        };
        Ok(host)
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed it was made from, and from which the link draws.
    pub seed: u64,
    /// The congestion control of every engine, where the seed did not decide.
    pub control: Option<Algorithm>,
    /// IPv6, not IPv4.
    pub ipv6: bool,
    /// Both sides open actively (RFC 9293, section 3.5, figure 7).
    pub simultaneous_open: bool,
    /// The host that opens.
    pub client: Party,
    /// The host that listens.
    pub server: Party,
    /// From client to server.
    pub to_server: Impairment,
    /// From server to client.
    pub to_client: Impairment,
}

impl Scenario {
    /// Two engines that send each other `up` and `down` bytes over a perfect link with 5 ms of delay; the client closes
    /// first.
    pub fn clean(seed: u64, ipv6: bool, up: usize, down: usize) -> Self {
        let mut random = Random::new(seed);
        let (up, down) = (random.bytes(up).into(), random.bytes(down).into());
        let mut party = |data: &Bytes, expected: &Bytes, finish| Party {
            stack: Stack::Engine(Box::new(EngineSettings {
                config: small_config(),
                secrets: random.word(),
                frame_shortage: 0,
            })),
            plan: Plan {
                finish,
                ..Plan::simple(data.clone(), expected.clone())
            },
            clock: ClockStart::At(1_000_000),
        };
        let mut link = Impairment::default();
        link.link.delay = Duration::from_millis(5);
        Self {
            seed,
            control: None,
            ipv6,
            simultaneous_open: false,
            client: party(&up, &down, Finish::AfterSending),
            server: party(&down, &up, Finish::AfterPeer),
            to_server: link.clone(),
            to_client: link,
        }
    }

    /// Gives every engine this congestion control.
    pub fn set_control(&mut self, control: Algorithm) {
        self.control = Some(control);
        for party in [&mut self.client, &mut self.server] {
            if let Stack::Engine(settings) = &mut party.stack {
                settings.config.congestion = control;
            }
        }
    }

    /// The host on `side`.
    pub fn party(&self, side: Side) -> &Party {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// Whether a side is to abort the connection.
    pub fn aborts(&self) -> bool {
        self.client.plan.abort_after.is_some() || self.server.plan.abort_after.is_some()
    }

    /// Address of client and server.
    pub fn ends(&self) -> (Endpoint, Endpoint) {
        let end = |number: u16, port| Endpoint {
            mac: [2, 0, 0, 0, 0, number as u8],
            address: if self.ipv6 {
                SocketAddr::from(([0x2001, 2, 0, 0, 0, 0, 0, number], port))
            } else {
                SocketAddr::from(([198, 18, 0, number as u8], port))
            },
        };
        (end(2, 40_000), end(1, 7))
    }

    /// The hosts: client and server.
    ///
    /// # Errors
    ///
    /// The reason a host could not be made, in words.
    pub(crate) fn hosts(&self) -> Result<[Box<dyn Host>; 2], String> {
        let (client, server) = self.ends();
        Ok([
            self.client.host((client, server), false)?,
            self.server.host((server, client), !self.simultaneous_open)?,
        ])
    }
}

/// A configuration for few connections, whose time limits are such that a link has to be dead, and not only bad, for a
/// connection to be given up.
pub fn small_config() -> Config {
    Config {
        max_connections: 8,
        max_half_open: 8,
        max_time_wait: 8,
        rto_max: Duration::from_secs(60),
        syn_ack_retries: 12,
        user_timeout: Duration::from_secs(1800),
        keepalive_idle: Duration::from_secs(120),
        keepalive_interval: Duration::from_secs(10),
        keepalive_probes: 20,
        ..Config::default()
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.simultaneous_open {
            ", simultaneous open"
        } else {
            ""
        };
        writeln!(
            f,
            "seed {}, {}{open}",
            self.seed,
            if self.ipv6 { "IPv6" } else { "IPv4" }
        )?;
        for (name, party) in [("client", &self.client), ("server", &self.server)] {
            writeln!(f, "{name}: {:?}", party.stack)?;
            writeln!(f, "{name}'s clock: {:?}", party.clock)?;
            writeln!(f, "{name}'s application: {:?}", party.plan)?;
        }
        writeln!(f, "to the server: {:?}", self.to_server)?;
        write!(f, "to the client: {:?}", self.to_client)
    }
}
