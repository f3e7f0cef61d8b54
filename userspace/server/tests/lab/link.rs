//! The impaired link in the middle of the lab: `tidegate-bench link`.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::process::Running;
use super::server::bench_binary;
use super::{Lab, Namespace};

/// The device in the middle that is joined to the client's.
const CLIENT_SIDE: &str = "tgm0";
/// The device in the middle that is joined to the server's.
const SERVER_SIDE: &str = "tgm1";

/// From the client to the server.
pub(crate) const TO_SERVER: &str = "ab";
/// From the server to the client.
pub(crate) const TO_CLIENT: &str = "ba";
/// Both directions.
pub(crate) const DIRECTIONS: [&str; 2] = [TO_SERVER, TO_CLIENT];

const READY_LINE: &str = "tidegate-bench link: ready";
const READY_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What the link counted, by name and direction.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkCounters(HashMap<(String, String), u64>);

impl LinkCounters {
    /// Reads the counters among `lines`, which look like `link_lost{direction="ab"} 5`; a later line of the same
    /// counter replaces an earlier one.
    pub(crate) fn parse<S: AsRef<str>>(lines: &[S]) -> Self {
        Self(lines.iter().filter_map(|line| parse_line(line.as_ref())).collect())
    }

    /// The value of `name` (without `link_`) in `direction`. A counter the link does not print is a failed test.
    pub(crate) fn get(&self, name: &str, direction: &str) -> u64 {
        match self.0.get(&(name.to_owned(), direction.to_owned())) {
            Some(value) => *value,
            None => panic!("no {name} for direction {direction} in {self:?}"),
        }
    }

    /// The sum of `name` over both directions.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        DIRECTIONS.iter().map(|direction| self.get(name, direction)).sum()
    }

    /// Fails the test unless every frame is accounted for, and none met a fate that the link was not asked for.
    pub(crate) fn expect_balance(&self) {
        for direction in DIRECTIONS {
            let get = |name| self.get(name, direction);
            let came = get("received") + get("duplicated");
            let went = get("sent") + get("held") + get("lost") + get("over_limit");
            let unwanted = get("too_long") + get("checksum_missing") + get("refused");
            assert_eq!(came, went + unwanted, "{direction}: frames do not add up in {self:?}");
            for name in ["too_long", "checksum_missing", "overrun"] {
                assert_eq!(
                    get(name),
                    0,
                    "{direction}: {name}; the lab's offloads or this machine are to blame"
                );
            }
        }
    }
}

fn parse_line(line: &str) -> Option<((String, String), u64)> {
    let (name, rest) = line.trim().strip_prefix("link_")?.split_once("{direction=\"")?;
    let (direction, value) = rest.split_once("\"}")?;
    Some(((name.to_owned(), direction.to_owned()), value.trim().parse().ok()?))
}

/// A running link. Dropping it kills it; it cannot outlive its lab.
pub(crate) struct Link<'lab> {
    process: Running,
    _lab: PhantomData<&'lab Lab>,
}

impl<'lab> Link<'lab> {
    /// Starts the link with `arguments` beside the devices, and waits until it relays. The lab must have a middle.
    pub(crate) fn start(_lab: &'lab Lab, arguments: &[&str]) -> Self {
        let mut command = Namespace::Middle.command(bench_binary());
        command.args(["link", CLIENT_SIDE, SERVER_SIDE]).args(arguments);
        let mut process = Running::start(command);
        process.wait_until_ready(READY_LINE, READY_LIMIT);
        Self {
            process,
            _lab: PhantomData,
        }
    }

    /// The counters now, asked for by SIGUSR1.
    pub(crate) fn counters(&self) -> LinkCounters {
        LinkCounters::parse(&self.process.report())
    }

    /// Stops the link by SIGTERM. It must end in time and with exit code 0; returns its last counters.
    pub(crate) fn stop(self) -> LinkCounters {
        let printed = self.process.stdout().len();
        self.process.signal(Signal::SIGTERM);
        let finished = self
            .process
            .wait(STOP_LIMIT)
            .unwrap_or_else(|problem| panic!("SIGTERM did not end the link: {problem}"))
            .expect_success();
        let lines: Vec<&str> = finished.stdout.lines().skip(printed).collect();
        LinkCounters::parse(&lines)
    }
}
