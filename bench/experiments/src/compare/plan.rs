//! The plan: the cases, their order, and the time each part may take.

use std::time::Duration;

use clap::ValueEnum;

use tidegate_args::UsageError;

/// A server under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Target {
    /// tidegate, on AF_XDP
    Tidegate,
    /// nginx, on the kernel's TCP
    Nginx,
    /// `tidegate-bench serve-kernel`: tidegate's application on the kernel's TCP
    ServeKernel,
}

impl Target {
    /// All of them, in the order they take turns.
    pub(super) const ALL: [Self; 3] = [Self::Tidegate, Self::Nginx, Self::ServeKernel];

    /// The name in the results and on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Nginx => "nginx",
            Self::ServeKernel => "serve-kernel",
        }
    }
}

/// A workload of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Load {
    /// As many connections as go, each with one request; --close says who ends them
    Cps,
    /// As many requests as go on connections that stay open, one at a time on each
    Rps,
    /// Requests at half of the rate serve-kernel reaches under rps, due whether or not earlier ones were answered
    Latency,
}

impl Load {
    /// All of them, in the order they are measured.
    pub(super) const ALL: [Self; 3] = [Self::Cps, Self::Rps, Self::Latency];

    /// The name in the results and on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cps => "cps",
            Self::Rps => "rps",
            Self::Latency => "latency",
        }
    }

    /// Returns the unit that is counted.
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Cps => "connections/s",
            Self::Rps | Self::Latency => "requests/s",
        }
    }

    const fn phase(self) -> Phase {
        match self {
            Self::Cps | Self::Rps => Phase::Throughput,
            Self::Latency => Phase::Latency,
        }
    }
}

/// The TCP that the client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClientKind {
    /// tidegate's engine over AF_XDP.
    Bypass,
    /// The kernel's.
    Kernel,
}

impl ClientKind {
    /// The name in the results.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Kernel => "kernel",
        }
    }
}

/// A choice of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Clients {
    /// tidegate's engine over AF_XDP
    Bypass,
    /// The kernel's TCP
    Kernel,
    /// One after the other
    Both,
}

impl Clients {
    const fn kinds(self) -> &'static [ClientKind] {
        match self {
            Self::Bypass => &[ClientKind::Bypass],
            Self::Kernel => &[ClientKind::Kernel],
            Self::Both => &[ClientKind::Bypass, ClientKind::Kernel],
        }
    }
}

/// Which frames the bare reflect receives and sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    /// Those of requests on an open connection: for each it receives it sends one, as long as a response.
    Request,
    /// Those of whole connections, as many each way as they have, and as long.
    Connection,
}

impl Shape {
    /// Both, in the order they are measured.
    pub(super) const ALL: [Self; 2] = [Self::Request, Self::Connection];
}

/// One thing that is measured, in every round again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Case {
    /// A server under load.
    Server {
        /// The workload.
        load: Load,
        /// Which client.
        client: ClientKind,
        /// The server.
        target: Target,
    },
    /// A loop that sends back what it receives through an AF_XDP socket, without TCP.
    Reflect(Shape),
}

impl Case {
    /// The name of the server in the results.
    pub(super) const fn target_name(self) -> &'static str {
        match self {
            Self::Server { target, .. } => target.name(),
            Self::Reflect(_) => "af-xdp-reflect",
        }
    }

    /// The name of the client in the results.
    pub(super) const fn client_name(self) -> &'static str {
        match self {
            Self::Server { client, .. } => client.name(),
            Self::Reflect(_) => "af-xdp",
        }
    }

    /// Returns the workload's name in the results.
    pub(super) const fn workload_name(self) -> &'static str {
        match self {
            Self::Server { load, .. } => load.name(),
            Self::Reflect(Shape::Request) => "reflect",
            Self::Reflect(Shape::Connection) => "reflect-connection",
        }
    }

    /// Returns the unit that is counted.
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Server { load, .. } => load.unit(),
            Self::Reflect(_) => "frames/s",
        }
    }

    /// All three names, for people.
    pub(super) fn title(self) -> String {
        format!(
            "{} {} ({})",
            self.target_name(),
            self.workload_name(),
            self.client_name()
        )
    }
}

/// The measurements between the start and the stop of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// A server is started, meets these clients and loads, and is stopped.
    Server(Target, Vec<(ClientKind, Load)>),
    /// The bare reflect, in both shapes.
    Reflect,
}

impl Session {
    /// For people.
    pub(super) fn title(&self) -> String {
        match self {
            Self::Server(target, loads) => {
                let loads: Vec<&str> = loads.iter().map(|(_, load)| load.name()).collect();
                format!("{} {}", target.name(), loads.join(", "))
            }
            Self::Reflect => "bare AF_XDP reflect".to_owned(),
        }
    }
}

/// Rounds of one phase take about the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// cps and rps.
    Throughput,
    /// latency, whose rate the first phase tells.
    Latency,
}

/// All targets in turn, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// Its number within its phase, from 0.
    pub(super) number: u32,
    /// The sessions of the round.
    pub(super) phase: Phase,
    /// In this order.
    pub(super) sessions: Vec<Session>,
}

impl Round {
    /// For people.
    pub(super) fn title(&self) -> String {
        let what = match self.phase {
            Phase::Throughput => "cps and rps",
            Phase::Latency => "latency",
        };
        format!("run {} of {what}", self.number + 1)
    }
}

/// The choice of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    targets: Vec<Target>,
    loads: Vec<Load>,
    clients: &'static [ClientKind],
}

impl Selection {
    /// Each target and load once, in the order of all of them.
    ///
    /// # Errors
    ///
    /// `latency` without what tells its rate.
    pub(super) fn new(targets: &[Target], loads: &[Load], clients: Clients) -> Result<Self, UsageError> {
        let selection = Self {
            targets: Target::ALL
                .into_iter()
                .filter(|target| targets.contains(target))
                .collect(),
            loads: Load::ALL.into_iter().filter(|load| loads.contains(load)).collect(),
            clients: clients.kinds(),
        };
        let has_rate = selection.has(Target::ServeKernel) && selection.loads.contains(&Load::Rps);
        if selection.loads.contains(&Load::Latency) && !has_rate {
            return Err(UsageError(
                "latency is measured at half of what serve-kernel reaches under rps, so it needs serve-kernel among \
                 --targets and rps among --workloads"
                    .to_owned(),
            ));
        }
        Ok(selection)
    }

    /// Whether `target` is measured.
    pub(super) fn has(&self, target: Target) -> bool {
        self.targets.contains(&target)
    }

    /// The targets, in the order they take turns.
    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Every case that must have been measured at least once.
    pub(super) fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for &load in &self.loads {
            for &client in self.clients {
                cases.extend(self.targets.iter().map(|&target| Case::Server { load, client, target }));
            }
        }
        if self.reflects() {
            cases.extend(Shape::ALL.map(Case::Reflect));
        }
        cases
    }

    /// All rounds in the order they are measured: A B C A B C and so on, with the bare reflect at the end of each round
    /// that counts frames.
    pub(super) fn rounds(&self, runs: u32) -> Vec<Round> {
        let mut rounds = Vec::new();
        for phase in [Phase::Throughput, Phase::Latency] {
            let sessions = self.sessions(phase);
            if sessions.is_empty() {
                continue;
            }
            rounds.extend((0..runs).map(|number| Round {
                number,
                phase,
                sessions: sessions.clone(),
            }));
        }
        rounds
    }

    fn sessions(&self, phase: Phase) -> Vec<Session> {
        let mut loads = Vec::new();
        for &client in self.clients {
            let of_phase = self.loads.iter().filter(|load| load.phase() == phase);
            loads.extend(of_phase.map(|&load| (client, load)));
        }
        if loads.is_empty() {
            return Vec::new();
        }
        let mut sessions: Vec<Session> = self
            .targets
            .iter()
            .map(|&target| Session::Server(target, loads.clone()))
            .collect();
        if phase == Phase::Throughput && self.reflects() {
            sessions.push(Session::Reflect);
        }
        sessions
    }

    /// The reflect is the limit of what tidegate can do with frames, which only the bypass client counts.
    fn reflects(&self) -> bool {
        self.has(Target::Tidegate)
            && self.clients.contains(&ClientKind::Bypass)
            && self.loads.iter().any(|load| load.phase() == Phase::Throughput)
    }
}

/// The time each part takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// The number of times each case is measured, at most.
    pub(super) runs: u32,
    /// Time before anything counts, in each case.
    pub(super) warm_up: Duration,
    /// Time that counts, in each case.
    pub(super) duration: Duration,
    /// Time that counts of each shape of the bare reflect.
    pub(super) reflect: Duration,
    /// The time that starting and stopping a server may take, until the first round has told.
    pub(super) change: Duration,
    /// The same of a client.
    pub(super) client: Duration,
    /// Attempts at a run of `latency`, at most: one in which a processor was taken away is made anew.
    pub(super) attempts: u32,
    /// The time everything together may take; `None` if there is no limit.
    pub(super) limit: Option<Duration>,
}

impl Scale {
    /// The whole comparison.
    pub(super) const FULL: Self = Self {
        runs: 5,
        warm_up: Duration::from_millis(500),
        duration: Duration::from_secs(3),
        reflect: Duration::from_secs(2),
        change: Duration::from_secs(1),
        client: Duration::from_millis(300),
        attempts: 5,
        limit: None,
    };

    /// A first look that ends within 55 s, the lab included.
    pub(super) const QUICK: Self = Self {
        runs: 3,
        warm_up: Duration::from_millis(150),
        duration: Duration::from_millis(700),
        reflect: Duration::from_millis(300),
        change: Duration::from_secs(1),
        client: Duration::from_millis(300),
        attempts: 1,
        limit: Some(Duration::from_secs(49)),
    };

    /// Returns the time of `round` if nothing is known better.
    fn expected(&self, round: &Round) -> Duration {
        round
            .sessions
            .iter()
            .map(|session| match session {
                Session::Server(_, loads) => {
                    let each = self.client + self.warm_up + self.duration;
                    self.change + each * u32::try_from(loads.len()).unwrap_or(u32::MAX)
                }
                Session::Reflect => self.change / 2 + (self.warm_up + self.reflect) * 2,
            })
            .sum()
    }
}

/// Decides whether there is time for another round.
#[derive(Debug)]
pub(super) struct Budget {
    scale: Scale,
    /// The longest round of each phase so far.
    longest: [Option<Duration>; 2],
}

impl Budget {
    /// Nothing is known about any round.
    pub(super) fn new(scale: Scale) -> Self {
        Self {
            scale,
            longest: [None; 2],
        }
    }

    /// Whether `round` will end in time if it begins now, `elapsed` after the start. The first of all always may.
    pub(super) fn allows(&self, round: &Round, elapsed: Duration) -> bool {
        let Some(limit) = self.scale.limit else { return true };
        if self.longest.iter().all(Option::is_none) {
            return true;
        }
        let expected = self.longest[round.phase as usize].unwrap_or_else(|| self.scale.expected(round));
        elapsed + expected <= limit
    }

    /// Notes that `round` took so long.
    pub(super) fn note(&mut self, round: &Round, took: Duration) {
        let longest = &mut self.longest[round.phase as usize];
        *longest = Some(longest.map_or(took, |longest| longest.max(took)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything(clients: Clients) -> Selection {
        Selection::new(&Target::ALL, &Load::ALL, clients).unwrap()
    }

    #[test]
    fn the_targets_take_turns_and_latency_comes_last() {
        let rounds = everything(Clients::Bypass).rounds(2);
        let order: Vec<String> = rounds
            .iter()
            .flat_map(|round| {
                round
                    .sessions
                    .iter()
                    .map(|session| format!("{} {}", round.number, session.title()))
            })
            .collect();
        assert_eq!(
            order,
            [
                "0 tidegate cps, rps",
                "0 nginx cps, rps",
                "0 serve-kernel cps, rps",
                "0 bare AF_XDP reflect",
                "1 tidegate cps, rps",
                "1 nginx cps, rps",
                "1 serve-kernel cps, rps",
                "1 bare AF_XDP reflect",
                "0 tidegate latency",
                "0 nginx latency",
                "0 serve-kernel latency",
                "1 tidegate latency",
                "1 nginx latency",
                "1 serve-kernel latency",
            ]
        );
    }

    #[test]
    fn every_client_meets_every_target_and_load() {
        let selection = everything(Clients::Both);
        let cases = selection.cases();
        assert_eq!(cases.len(), 3 * 3 * 2 + 2);
        let mut measured = Vec::new();
        for round in selection.rounds(1) {
            for session in round.sessions {
                match session {
                    Session::Server(target, loads) => {
                        measured.extend(
                            loads
                                .iter()
                                .map(|&(client, load)| Case::Server { load, client, target }),
                        );
                    }
                    Session::Reflect => measured.extend(Shape::ALL.map(Case::Reflect)),
                }
            }
        }
        measured.sort_unstable();
        let mut expected = cases;
        expected.sort_unstable();
        assert_eq!(measured, expected);
    }

    #[test]
    fn what_is_named_twice_or_in_another_order_is_measured_once_and_in_turn() {
        let selection = Selection::new(
            &[Target::ServeKernel, Target::Tidegate, Target::ServeKernel],
            &[Load::Rps, Load::Rps],
            Clients::Bypass,
        )
        .unwrap();
        assert_eq!(selection.targets(), [Target::Tidegate, Target::ServeKernel]);
        assert_eq!(selection.cases().len(), 2 + 2);
    }

    #[test]
    fn there_is_a_reflect_only_beside_frames_of_tidegate() {
        let reflects = |targets: &[Target], clients| {
            let selection = Selection::new(targets, &[Load::Rps], clients).unwrap();
            selection.rounds(1)[0].sessions.contains(&Session::Reflect)
        };
        assert!(reflects(&[Target::Tidegate], Clients::Bypass));
        assert!(!reflects(&[Target::Tidegate], Clients::Kernel));
        assert!(!reflects(&[Target::Nginx], Clients::Bypass));
    }

    #[test]
    fn latency_needs_what_tells_its_rate() {
        for (targets, loads) in [
            (&[Target::Tidegate, Target::ServeKernel][..], &[Load::Latency][..]),
            (&[Target::Tidegate][..], &[Load::Rps, Load::Latency][..]),
        ] {
            let error = Selection::new(targets, loads, Clients::Bypass).unwrap_err();
            assert!(error.to_string().contains("needs serve-kernel"), "{error}");
        }
    }

    #[test]
    fn a_quick_run_has_time_for_three_rounds_and_for_latency() {
        let scale = Scale::QUICK;
        let mut budget = Budget::new(scale);
        let mut elapsed = Duration::ZERO;
        let mut measured = [0, 0];
        for round in everything(Clients::Bypass).rounds(scale.runs) {
            if budget.allows(&round, elapsed) {
                let took = scale.expected(&round);
                budget.note(&round, took);
                elapsed += took;
                measured[round.phase as usize] += 1;
            }
        }
        assert_eq!(measured[Phase::Throughput as usize], 3);
        assert!(measured[Phase::Latency as usize] >= 1, "{measured:?}");
        assert!(elapsed <= scale.limit.unwrap() && elapsed < Duration::from_secs(55));
    }

    #[test]
    fn what_rounds_took_counts_more_than_what_was_expected() {
        let rounds = everything(Clients::Bypass).rounds(3);
        let mut budget = Budget::new(Scale::QUICK);
        let limit = Scale::QUICK.limit.unwrap();
        assert!(budget.allows(&rounds[0], limit), "the first is always measured");
        budget.note(&rounds[0], Duration::from_secs(20));
        assert!(budget.allows(&rounds[1], limit - Duration::from_secs(20)));
        assert!(!budget.allows(&rounds[1], limit - Duration::from_secs(19)));
        assert!(Budget::new(Scale::FULL).allows(&rounds[1], limit * 100));
    }
}
