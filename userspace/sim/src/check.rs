//! Runs a scenario and checks what came of it.

use core::fmt;
use core::time::Duration;

use tidegate_tcp::congestion::Algorithm;

use crate::link::LinkCounters;
use crate::scenario::Scenario;
use crate::script::{Ending, Script};
use crate::side::Side;
use crate::simulation::Simulation;
use crate::trace::Trace;

/// The measurements of a run that went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Events handled.
    pub events: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Bytes that applications received.
    pub bytes: u64,
    /// Segments sent.
    pub segments: u64,
    /// Segments that carried nothing new.
    pub retransmissions: u64,
    /// The frames of the link, both directions together.
    pub link: LinkCounters,
    /// The connection was aborted, as planned.
    pub aborted: bool,
    /// smoltcp stopped without a timer, never sent again what its peer waited for, or took a FIN without all of the
    /// text before it, so the transfer could not be completed; the engine's part was as it should be.
    pub stalled: bool,
}

/// A run that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed of the scenario.
    pub seed: u64,
    /// The congestion control of every engine, where the seed did not decide.
    pub control: Option<Algorithm>,
    /// The fault.
    pub problem: String,
    /// The scenario, in words.
    pub scenario: String,
    /// The counts.
    pub state: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.problem)?;
        for line in self.scenario.lines().chain(self.state.lines()) {
            writeln!(f, "    {line}")?;
        }
        write!(f, "    to see every segment: tidegate-sim --seed {} --trace", self.seed)?;
        match self.control {
            Some(control) => write!(f, " --control {control}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for Failure {}

/// Runs `scenario` to its end and checks that nothing went wrong.
///
/// # Errors
///
/// The fault of a run, with all that is needed to find its cause.
pub fn run(scenario: &Scenario, trace: Option<Trace>) -> Result<Report, Box<Failure>> {
    let fail = |problem, state| {
        Box::new(Failure {
            seed: scenario.seed,
            control: scenario.control,
            problem,
            scenario: scenario.to_string(),
            state,
        })
    };
    let mut simulation = Simulation::new(scenario, trace).map_err(|problem| fail(problem, String::new()))?;
    let result = simulation.run().and_then(|()| judge(scenario, &simulation));
    let traced = simulation.take_trace().map_or(Ok(()), Trace::finish);
    let traced = traced.map_err(|error| format!("the trace could not be written: {error}"));
    result
        .and_then(|report| traced.map(|()| report))
        .map_err(|problem| fail(problem, describe(&simulation)))
}

/// Checks a run that has ended.
///
/// # Errors
///
/// The first thing that is not as it should be, in words.
pub fn judge(scenario: &Scenario, simulation: &Simulation) -> Result<Report, String> {
    let scripts = Side::BOTH.map(|side| simulation.host(side).script());
    for side in Side::BOTH
        .into_iter()
        .filter(|&side| scenario.party(side).stack.is_engine())
    {
        simulation
            .check_windows(side)
            .map_err(|problem| format!("{side}: {problem}"))?;
    }
    let stalled = scripts.iter().any(|script| script.ending() == Some(Ending::Stalled));
    for (side, script) in Side::BOTH.into_iter().zip(scripts) {
        check_bytes(script).map_err(|problem| format!("{side}: {problem}"))?;
    }
    if !scenario.aborts() && !stalled {
        for side in Side::BOTH {
            let (script, peer) = (scripts[side.index()], scripts[side.other().index()]);
            check_complete(script, peer).map_err(|problem| format!("{side}: {problem}"))?;
        }
    }
    for side in Side::BOTH {
        let host = simulation.host(side);
        host.check_empty().map_err(|problem| format!("{side}: {problem}"))?;
    }
    simulation.check_frames()?;
    let mut link = simulation.link(Side::Client);
    link.merge(&simulation.link(Side::Server));
    let sum = |value: fn(&Simulation, Side) -> u64| Side::BOTH.iter().map(|&side| value(simulation, side)).sum::<u64>();
    Ok(Report {
        events: simulation.events(),
        simulated: simulation.now(),
        bytes: sum(|simulation, side| simulation.host(side).script().received() as u64),
        segments: sum(|simulation, side| simulation.sent(side).segments),
        retransmissions: sum(|simulation, side| simulation.sent(side).retransmissions),
        link,
        aborted: scenario.aborts(),
        stalled,
    })
}

/// Checks that hold for every connection, however it ended.
fn check_bytes(script: &Script) -> Result<(), String> {
    if let Some(at) = script.wrong_at() {
        return Err(format!(
            "received a wrong byte at {at} of {}",
            script.plan().expected.len()
        ));
    }
    if script.opened() > 1 {
        return Err(format!("was opened {} times", script.opened()));
    }
    if script.opened() != script.closed() {
        let (opened, closed) = (script.opened(), script.closed());
        return Err(format!("was opened {opened} times, but closed {closed} times"));
    }
    Ok(())
}

/// Checks that hold for a connection that nobody aborted.
fn check_complete(script: &Script, peer: &Script) -> Result<(), String> {
    let Some(ending) = script.ending() else {
        return Err("never reached ESTABLISHED".to_owned());
    };
    let (received, expected) = (script.received(), script.plan().expected.len());
    if received != expected {
        return Err(format!(
            "received {received} of {expected} bytes, then the connection ended: {ending:?}"
        ));
    }
    if !script.peer_ended() {
        return Err(format!(
            "was not told of the end of the peer's stream, then the connection ended: {ending:?}"
        ));
    }
    match ending {
        Ending::Finished => Ok(()),
        // The last acknowledgment of all may be lost, and again, until the peer's TIME-WAIT is over and it knows
        // nothing of the connection any more. No protocol can avoid that, so it is enough that one side knows of the
        // good end.
        Ending::Reset | Ending::TimedOut if peer.ending() == Some(Ending::Finished) => Ok(()),
        Ending::Reset | Ending::TimedOut | Ending::Aborted | Ending::Stalled => {
            Err(format!("all bytes arrived, but the connection ended: {ending:?}"))
        }
    }
}

fn describe(simulation: &Simulation) -> String {
    let mut text = format!(
        "ended after {:?} and {} events\n",
        simulation.now(),
        simulation.events()
    );
    for side in Side::BOTH {
        let host = simulation.host(side);
        let script = host.script();
        text += &format!(
            "{side}: {} of {} bytes sent, {} of {} received, {} end of stream, {}, ended: {:?}\n",
            script.sent(),
            script.plan().data.len(),
            script.received(),
            script.plan().expected.len(),
            if script.peer_ended() { "read the" } else { "no" },
            if script.is_shut() { "closed" } else { "not closed" },
            script.ending()
        );
        text += &format!("{side}'s link: {:?}\n", simulation.link(side));
        let counters: Vec<String> = host
            .counters()
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        text += &format!("{side}'s counters: {}\n", counters.join(", "));
    }
    text
}
