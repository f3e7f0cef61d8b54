//! Notices a device that delivers nothing any more, though everything seems to be in place: frames arrive, and the XDP
//! program is not run, or what it redirects reaches no socket, or what it answers is lost. All look like an idle server
//! from within.
//!
//! Only counters are compared, of the device, of the program and of the sockets, and only those that should move
//! together: on an idle link nothing moves, and traffic of others moves the program's counters as well, since it counts
//! what it passes.

use core::time::Duration;
use std::time::Instant;

use tidegate_abi::XdpCounter;

use crate::report::ShardReport;

/// The interval of looks at the program. Most cost two readings: frames received, and the counter that moved last.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks at the program until there is one at the sockets, for which all shards are asked.
const LOOKS_PER_SOCKET_LOOK: u32 = 5;

/// Looks at which the device had received more and the program had not been run since, until it is taken not to be.
/// Some drivers bring their statistics up to date with a delay, which is one such look.
const MAX_LOOKS: u32 = 5;

/// Frames that have to have arrived meanwhile.
const MIN_FRAMES: u64 = 8;

/// Looks at the sockets at which a queue had more redirected and its socket nothing, until that is taken for a fault.
const MAX_SOCKET_LOOKS: u32 = 3;

/// Counters of what goes to the sockets.
const REDIRECTS: [XdpCounter; 6] = [
    XdpCounter::Redirect,
    XdpCounter::RedirectCookie,
    XdpCounter::RedirectNoFlow,
    XdpCounter::RedirectSyn,
    XdpCounter::RedirectTooBig,
    XdpCounter::RedirectRemote,
];

/// Looks from one attaching anew to the next, at least: it takes some devices seconds without a link.
const LOOKS_PER_REATTACHING: u32 = 60;

/// A fault of the device or of its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    /// Frames arrived, and the XDP program was run for none.
    Program {
        /// Frames received, and lost by the device, since it was run last.
        frames: u64,
        /// Whether the program is to be attached anew, which helps where a driver has forgotten it.
        reattach: bool,
    },
    /// The driver has lost nearly all SYN-ACKs with cookies that the program sent.
    Answers {
        /// Those that were sent.
        sent: u64,
        /// Those that were lost.
        lost: u64,
    },
    /// So many frames of one queue were redirected, and its socket got none; nor did the kernel count their loss.
    Socket {
        /// The queue.
        queue: u32,
        /// Frames redirected since its socket got one.
        frames: u64,
    },
}

impl Stall {
    /// A sentence about the fault of interface `name`.
    pub(crate) fn sentence(&self, name: &str, driver: Option<&str>) -> String {
        let driver = driver.map_or_else(|| "its driver".to_owned(), |driver| format!("its driver, {driver},"));
        match self {
            Self::Program { frames, .. } => format!(
                "interface {name} received {frames} frames and {driver} did not run the XDP program for them, though it \
                 is attached"
            ),
            Self::Answers { sent, lost } => format!(
                "{driver} lost {lost} of {sent} SYN-ACKs with cookies that the XDP program sent from {name}, so that no \
                 connection is made by them; the other end of a veth pair takes them with an XDP program of its own, else \
                 start tidegate with --syn-cookies never"
            ),
            Self::Socket { queue, frames } => format!(
                "{frames} frames that arrived on queue {queue} of {name} were redirected to its AF_XDP socket, and \
                 {driver} delivered none; start tidegate again, or with afxdp.zero_copy = \"never\""
            ),
        }
    }
}

/// The counters that are compared.
pub(crate) trait Counts {
    /// Frames the device received, and those it had to drop. `None` if it does not say.
    fn received(&self) -> Option<u64>;

    /// Receive queues the program counts for.
    fn queues(&self) -> u32;

    /// A counter of the program.
    fn program(&self, counter: XdpCounter, queue: u32) -> Option<u64>;

    /// Frames that the driver says it has lost of those that the program sent.
    fn answers_lost(&self) -> u64;

    /// Frames that came to the socket of each served queue, got or counted as lost by the kernel. `None` if a shard
    /// does not answer.
    fn sockets(&self) -> Option<Vec<u64>>;
}

/// Frames that came to the socket of a shard.
pub(crate) fn arrived_at_socket(shard: &ShardReport) -> u64 {
    let lost = &shard.xdp_statistics;
    [
        shard.port.rx_frames,
        lost.rx_dropped,
        lost.rx_invalid_descs,
        lost.rx_ring_full,
        lost.rx_fill_ring_empty_descs,
    ]
    .into_iter()
    .fold(0, u64::wrapping_add)
}

/// Looks at one interface from time to time.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    /// `None` before the first look.
    looked_at: Option<Instant>,
    looks: u32,
    program: ProgramWatch,
    answers: AnswerWatch,
    /// By queue that is served.
    sockets: Vec<SocketWatch>,
}

impl Watchdog {
    /// Whether it is time to look.
    pub(crate) fn is_due(&self) -> bool {
        self.looked_at.is_none_or(|at| at.elapsed() >= INTERVAL)
    }

    /// Looks. A fault is told once, and again only after what stood still has moved.
    pub(crate) fn look(&mut self, counts: &impl Counts) -> Vec<Stall> {
        self.looked_at = Some(Instant::now());
        let mut stalls: Vec<Stall> = self.program.look(counts).into_iter().collect();
        self.looks += 1;
        if self.looks.is_multiple_of(LOOKS_PER_SOCKET_LOOK) {
            stalls.extend(self.answers.look(counts));
            self.look_at_sockets(counts, &mut stalls);
        }
        stalls
    }

    fn look_at_sockets(&mut self, counts: &impl Counts, stalls: &mut Vec<Stall>) {
        let Some(arrived) = counts.sockets() else { return };
        self.sockets.resize(arrived.len(), SocketWatch::default());
        for ((queue, arrived), watch) in (0..).zip(arrived).zip(&mut self.sockets) {
            let redirects: Option<Vec<u64>> = REDIRECTS
                .iter()
                .map(|&counter| counts.program(counter, queue))
                .collect();
            if let Some(redirects) = redirects
                && let Some(frames) = watch.look(redirects.into_iter().fold(0, u64::wrapping_add), arrived)
            {
                stalls.push(Stall::Socket { queue, frames });
            }
        }
    }
}

/// The part of a fault that was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    /// The program was to be attached anew.
    Reattach,
    All,
}

/// The program beside its device.
#[derive(Debug, Default)]
struct ProgramWatch {
    /// Frames received until the last look; `None` before the first.
    received: Option<u64>,
    /// Frames received until the program's counters were seen to move last.
    received_before: u64,
    /// Looks at which there were more, since then.
    looks: u32,
    /// Whether this was told, and what was to help did not.
    told: Told,
    /// Looks until the program may be attached anew.
    looks_to_reattaching: u32,
    /// The counter that was seen to move last, with its queue and value.
    moved: Option<(XdpCounter, u32, u64)>,
    /// All counters by queue, as they were when that one had not moved.
    counters: Vec<u64>,
}

impl ProgramWatch {
    fn look(&mut self, counts: &impl Counts) -> Option<Stall> {
        self.looks_to_reattaching = self.looks_to_reattaching.saturating_sub(1);
        let received = counts.received()?;
        // Some drivers begin anew when the interface is set down.
        let more = self.received.is_some_and(|before| received > before);
        let began_anew = self.received.is_none_or(|before| received < before);
        self.received = Some(received);
        if began_anew {
            self.restart(received);
        }
        if !more {
            return None;
        }
        if self.program_ran(counts)? {
            self.restart(received);
            self.told = Told::Nothing;
            return None;
        }
        self.looks += 1;
        let frames = received - self.received_before;
        if self.told == Told::All || self.looks < MAX_LOOKS || frames < MIN_FRAMES {
            return None;
        }
        let reattach = self.told == Told::Nothing && self.looks_to_reattaching == 0;
        if reattach {
            self.looks_to_reattaching = LOOKS_PER_REATTACHING;
            // If that helps, the program runs before this is told again.
            self.restart(received);
        }
        self.told = if reattach { Told::Reattach } else { Told::All };
        Some(Stall::Program { frames, reattach })
    }

    fn restart(&mut self, received: u64) {
        self.received_before = received;
        self.looks = 0;
    }

    /// Whether any counter has moved since the last call. That of a counter which was not read in between may be said
    /// one call late.
    fn program_ran(&mut self, counts: &impl Counts) -> Option<bool> {
        if let Some((counter, queue, before)) = &mut self.moved {
            let now = counts.program(*counter, *queue)?;
            if now != *before {
                *before = now;
                return Some(true);
            }
        }
        let all = (0..counts.queues()).flat_map(|queue| XdpCounter::ALL.iter().map(move |&counter| (counter, queue)));
        let now: Vec<u64> = all
            .clone()
            .map(|(counter, queue)| counts.program(counter, queue))
            .collect::<Option<_>>()?;
        let before = core::mem::replace(&mut self.counters, now);
        let moved = all
            .zip(&self.counters)
            .enumerate()
            .find(|(index, (_, now))| before.get(*index).copied().unwrap_or(0) != **now);
        self.moved = moved
            .map(|(_, ((counter, queue), &now))| (counter, queue, now))
            .or(self.moved);
        Some(moved.is_some())
    }
}

/// What the program answers beside what the driver loses of it.
#[derive(Debug, Default)]
struct AnswerWatch {
    /// Sent and lost until the last look at which there was enough to judge by; `None` before the first.
    before: Option<(u64, u64)>,
    told: bool,
}

impl AnswerWatch {
    fn look(&mut self, counts: &impl Counts) -> Option<Stall> {
        let sent = (0..counts.queues())
            .map(|queue| counts.program(XdpCounter::TxSynCookie, queue))
            .try_fold(0, |sum: u64, sent| Some(sum.wrapping_add(sent?)))?;
        let more = self.before.map(|(before, _)| sent.wrapping_sub(before));
        // Without cookies the driver is not asked.
        if more.is_some_and(|more| more < MIN_FRAMES) {
            return None;
        }
        let lost = counts.answers_lost();
        let (sent_before, lost_before) = self.before.replace((sent, lost))?;
        let (sent, lost) = (sent.wrapping_sub(sent_before), lost.saturating_sub(lost_before));
        // Floods make rings overflow, which leaves more of them.
        let is_nearly_all = lost >= sent - sent / 10;
        let was_told = core::mem::replace(&mut self.told, is_nearly_all);
        (is_nearly_all && !was_told).then_some(Stall::Answers { sent, lost })
    }
}

/// The socket of a queue beside the program.
#[derive(Clone, Debug, Default)]
struct SocketWatch {
    redirects: u64,
    /// Redirects until the socket got a frame last.
    redirects_before: u64,
    arrived: u64,
    looks: u32,
    told: bool,
}

impl SocketWatch {
    /// Returns how many frames did not reach the socket, if they should have.
    fn look(&mut self, redirects: u64, arrived: u64) -> Option<u64> {
        let more = redirects > self.redirects;
        self.redirects = redirects;
        if arrived != self.arrived {
            self.arrived = arrived;
            self.redirects_before = redirects;
            self.looks = 0;
            self.told = false;
        } else if more {
            self.looks += 1;
        }
        let missing = redirects.saturating_sub(self.redirects_before);
        if self.told || self.looks < MAX_SOCKET_LOOKS || missing < MIN_FRAMES {
            return None;
        }
        self.told = true;
        Some(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUES: u32 = 2;

    /// A device, a program and sockets that count as they are told.
    #[derive(Default)]
    struct Fake {
        received: u64,
        program: [[u64; XdpCounter::COUNT as usize]; QUEUES as usize],
        sockets: [u64; QUEUES as usize],
        answers_lost: u64,
        silent: bool,
    }

    impl Fake {
        fn count(&mut self, counter: XdpCounter, queue: usize, frames: u64) {
            self.program[queue][counter as usize] += frames;
        }

        /// `frames` that go the whole way.
        fn serve(&mut self, queue: usize, frames: u64) {
            self.received += frames;
            self.count(XdpCounter::Redirect, queue, frames);
            self.sockets[queue] += frames;
        }
    }

    impl Counts for Fake {
        fn received(&self) -> Option<u64> {
            (!self.silent).then_some(self.received)
        }

        fn queues(&self) -> u32 {
            QUEUES
        }

        fn program(&self, counter: XdpCounter, queue: u32) -> Option<u64> {
            Some(self.program[queue as usize][counter as usize])
        }

        fn answers_lost(&self) -> u64 {
            self.answers_lost
        }

        fn sockets(&self) -> Option<Vec<u64>> {
            Some(self.sockets.to_vec())
        }
    }

    /// Has `change` happen before each of `looks` looks. Returns what was told.
    fn watch(watchdog: &mut Watchdog, fake: &mut Fake, looks: u32, change: impl Fn(&mut Fake, u32)) -> Vec<Stall> {
        let mut told = Vec::new();
        for look in 0..looks {
            change(fake, look);
            told.extend(watchdog.look(fake));
        }
        told
    }

    /// A watchdog that has seen frames of both queues served.
    fn serving() -> (Watchdog, Fake) {
        let (mut watchdog, mut fake) = (Watchdog::default(), Fake::default());
        let told = watch(&mut watchdog, &mut fake, 12, |fake, look| {
            fake.serve(look as usize % 2, 100)
        });
        assert_eq!(told, []);
        (watchdog, fake)
    }

    fn not_run(fake: &mut Fake, _: u32) {
        fake.received += 3;
    }

    /// Whether the program was to be attached anew, by fault that was told.
    fn reattached(told: &[Stall]) -> Vec<bool> {
        let reattached = |stall: &Stall| {
            matches!(
                stall,
                Stall::Program {
                    frames: 15..,
                    reattach: true
                }
            )
        };
        told.iter().map(reattached).collect()
    }

    #[test]
    fn a_program_that_is_not_run_is_attached_anew() {
        let (mut watchdog, mut fake) = serving();
        // One look may be lost to a counter that was not read before.
        let told = watch(&mut watchdog, &mut fake, MAX_LOOKS + 1, not_run);
        assert_eq!(reattached(&told), [true], "{told:?}");
        let sentence = told[0].sentence("nic0", Some("vmxnet3"));
        assert!(
            sentence.contains("nic0 received") && sentence.contains("vmxnet3, did not run"),
            "{sentence}"
        );
        // It helped, and then it happened again.
        let looks = LOOKS_PER_REATTACHING;
        assert_eq!(watch(&mut watchdog, &mut fake, looks, |fake, _| fake.serve(1, 5)), []);
        assert_eq!(reattached(&watch(&mut watchdog, &mut fake, 10, not_run)), [true]);
    }

    #[test]
    fn where_attaching_anew_does_not_help_that_is_told_once_more() {
        let (mut watchdog, mut fake) = serving();
        assert_eq!(
            reattached(&watch(&mut watchdog, &mut fake, 200, not_run)),
            [true, false]
        );
    }

    #[test]
    fn the_program_is_not_attached_anew_again_and_again() {
        let (mut watchdog, mut fake) = serving();
        let mut told = Vec::new();
        for _ in 0..3 {
            told.extend(watch(&mut watchdog, &mut fake, MAX_LOOKS + 1, not_run));
            watch(&mut watchdog, &mut fake, 2, |fake, _| fake.serve(0, 5));
        }
        assert_eq!(reattached(&told), [true, false, false]);
    }

    #[test]
    fn traffic_of_any_kind_is_no_fault() {
        for counter in XdpCounter::ALL {
            let (mut watchdog, mut fake) = serving();
            let told = watch(&mut watchdog, &mut fake, 40, |fake, _| {
                fake.received += 10;
                fake.count(*counter, 1, 10);
                // What is redirected arrives, or is counted by the kernel.
                fake.sockets[1] += 10;
            });
            assert_eq!(told, [], "{counter:?}");
        }
    }

    #[test]
    fn nothing_and_next_to_nothing_are_no_fault() {
        let (mut watchdog, mut fake) = serving();
        assert_eq!(watch(&mut watchdog, &mut fake, 100, |_, _| {}), []);
        // Statistics that lag behind a burst, and a few frames that nobody counted.
        assert_eq!(
            watch(&mut watchdog, &mut fake, 3, |fake, _| fake.received += 1_000_000),
            []
        );
        assert_eq!(watch(&mut watchdog, &mut fake, 100, |_, _| {}), []);
        let (mut watchdog, mut fake) = serving();
        assert_eq!(
            watch(&mut watchdog, &mut fake, MAX_LOOKS + 1, |fake, _| fake.received += 1),
            []
        );
        // Counters of the device that begin anew, or are not there.
        let (mut watchdog, mut fake) = serving();
        assert_eq!(
            watch(&mut watchdog, &mut fake, 20, |fake, look| fake.received =
                u64::from(look % 4) * 100),
            []
        );
        let (mut watchdog, mut fake) = serving();
        fake.silent = true;
        assert_eq!(watch(&mut watchdog, &mut fake, 20, |fake, _| fake.received += 100), []);
    }

    #[test]
    fn a_flood_that_ends_is_no_fault_whatever_was_read_in_between() {
        let (mut watchdog, mut fake) = serving();
        // The counters of queue 0 are not looked at while those of queue 1 move.
        let told = watch(&mut watchdog, &mut fake, 30, |fake, _| {
            fake.serve(1, 1000);
            fake.serve(0, 1000);
        });
        assert_eq!(told, []);
        assert_eq!(watch(&mut watchdog, &mut fake, 30, |fake, _| fake.serve(0, 1)), []);
    }

    #[test]
    fn a_socket_that_gets_nothing_is_told_of_with_its_queue() {
        let (mut watchdog, mut fake) = serving();
        let looks = (MAX_SOCKET_LOOKS + 1) * LOOKS_PER_SOCKET_LOOK;
        let told = watch(&mut watchdog, &mut fake, 2 * looks, |fake, _| {
            fake.serve(0, 10);
            fake.received += 10;
            fake.count(XdpCounter::RedirectSyn, 1, 10);
        });
        let [Stall::Socket { queue: 1, frames }] = told[..] else {
            panic!("{told:?}")
        };
        assert!(frames >= u64::from(MAX_SOCKET_LOOKS * LOOKS_PER_SOCKET_LOOK) * 10);
        let sentence = told[0].sentence("nic0", None);
        assert!(
            sentence.contains("on queue 1 of nic0") && sentence.contains("its driver delivered none"),
            "{sentence}"
        );
        // It gets some again, and then nothing comes.
        assert_eq!(watch(&mut watchdog, &mut fake, looks, |fake, _| fake.serve(1, 1)), []);
        assert_eq!(watch(&mut watchdog, &mut fake, looks, |_, _| {}), []);
    }

    #[test]
    fn answers_that_the_driver_loses_are_told_of_until_it_sends_some() {
        let answer = |lost_of_100: u64| {
            move |fake: &mut Fake, _: u32| {
                fake.received += 100;
                fake.count(XdpCounter::TxSynCookie, 1, 100);
                fake.answers_lost += lost_of_100;
            }
        };
        let (mut watchdog, mut fake) = serving();
        let looks = 4 * LOOKS_PER_SOCKET_LOOK;
        assert_eq!(watch(&mut watchdog, &mut fake, looks, answer(60)), [], "as in a flood");
        let told = watch(&mut watchdog, &mut fake, looks, answer(100));
        assert!(
            matches!(
                told[..],
                [Stall::Answers {
                    sent: 100..,
                    lost: 100..
                }]
            ),
            "{told:?}"
        );
        let sentence = told[0].sentence("nic0", Some("virtio_net"));
        assert!(
            sentence.contains("its driver, virtio_net, lost") && sentence.contains("from nic0"),
            "{sentence}"
        );
        assert_eq!(watch(&mut watchdog, &mut fake, looks, answer(0)), []);
        assert_eq!(watch(&mut watchdog, &mut fake, looks, answer(100)).len(), 1, "anew");
        // A client now and then.
        let (mut watchdog, mut fake) = serving();
        let told = watch(&mut watchdog, &mut fake, 6 * LOOKS_PER_SOCKET_LOOK, |fake, _| {
            fake.received += 1;
            fake.count(XdpCounter::TxSynCookie, 0, 1);
            fake.answers_lost += 1;
        });
        assert_eq!(told.len(), 1, "{told:?}");
    }

    #[test]
    fn frames_that_the_kernel_counts_as_lost_came_to_the_socket() {
        use crate::report::PortCounters;
        use tidegate_xsk::Statistics;

        let shard = ShardReport {
            port: PortCounters {
                rx_frames: 1,
                ..PortCounters::default()
            },
            xdp_statistics: Statistics {
                rx_dropped: 10,
                rx_invalid_descs: 100,
                rx_ring_full: 1000,
                rx_fill_ring_empty_descs: 10_000,
                ..Statistics::default()
            },
            ..ShardReport::default()
        };
        assert_eq!(arrived_at_socket(&shard), 11_111);
    }

    #[test]
    fn looks_are_a_second_apart() {
        let mut watchdog = Watchdog::default();
        assert!(watchdog.is_due());
        assert_eq!(watchdog.look(&Fake::default()), []);
        assert!(!watchdog.is_due());
        watchdog.looked_at = Instant::now().checked_sub(INTERVAL);
        assert!(watchdog.is_due());
    }
}
