//! The extent of a run: which cases it has, in which order, and how long each may take.

use std::time::Duration;

use tidegate_lab::Family;

use super::attack::Attack;
use super::plan::{Case, Contender, Limit, Offered, Selection, Subject, Target};
use super::search;

/// The time the generator takes to end.
const GENERATOR_STOP: Duration = Duration::from_millis(250);

/// The extent of the searches for scores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scoring {
    /// The number of attacks that are scored, beginning with those that are no SYNs; with IPv4 if that is measured.
    pub(super) attacks: usize,
    /// The contenders.
    pub(super) contenders: &'static [Contender],
    /// The steps of a search.
    pub(super) steps: u32,
    /// Clients of each try.
    pub(super) clients: u32,
    /// The time in which they begin.
    pub(super) window: Duration,
    /// The time those that are late are waited for.
    pub(super) tail: Duration,
}

/// The extent of a run, and the time of each part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// The rates of SYNs, in the order they are measured.
    pub(super) syn_rates: &'static [Offered],
    /// Those of other packets. The highest is added where the attack is scored.
    pub(super) rates: &'static [Offered],
    /// Those of connections.
    pub(super) connection_rates: &'static [Offered],
    /// The servers.
    pub(super) targets: &'static [Target],
    /// The number of times that the parts of the ratios are measured at the highest rate.
    pub(super) rounds_at_max: usize,
    /// The IP versions the bare XDP programs are measured with.
    pub(super) bare: &'static [Family],
    /// Scores.
    pub(super) scoring: Scoring,
    /// Clients that connect during the window.
    pub(super) clients: u32,
    /// The time the open connections run before anything counts.
    pub(super) lead_in: Duration,
    /// The time their throughput is measured before the attack.
    pub(super) before: Duration,
    /// From the begin of the attack until anything counts.
    pub(super) settle: Duration,
    /// The same beyond it for attacks that first gather connections.
    pub(super) gather: Duration,
    /// The time everything is measured.
    pub(super) window: Duration,
    /// The time clients that are late are waited for after the window, at most.
    pub(super) tail: Duration,
    /// The time it may take after the attack until new clients are served.
    pub(super) recovery: Duration,
    /// The time the responses under way on the open connections are waited for at the end.
    pub(super) finish: Duration,
    /// The time that starting and stopping a server may take, for the arithmetic of `limit`.
    pub(super) change: Duration,
    /// The time all cases together may take.
    pub(super) limit: Duration,
}

impl Scale {
    /// The whole test.
    pub(super) const FULL: Self = Self {
        syn_rates: &[
            Offered::Pps(100_000),
            Offered::Pps(500_000),
            Offered::Pps(1_000_000),
            Offered::Max,
        ],
        rates: &[Offered::Pps(1_000_000)],
        connection_rates: &[Offered::Pps(50_000)],
        targets: &Target::ALL,
        rounds_at_max: 3,
        bare: &[Family::V4, Family::V6],
        scoring: Scoring {
            attacks: usize::MAX,
            contenders: &Contender::ALL,
            steps: 6,
            clients: 1_000,
            window: Duration::from_secs(1),
            tail: Duration::from_millis(1_200),
        },
        clients: 1_000,
        lead_in: Duration::from_millis(500),
        before: Duration::from_secs(1),
        settle: Duration::from_millis(500),
        gather: Duration::from_secs(5),
        window: Duration::from_secs(4),
        tail: Duration::from_secs(20),
        recovery: Duration::from_secs(1),
        finish: Duration::from_secs(3),
        change: Duration::from_millis(1_500),
        limit: Duration::from_secs(88 * 60),
    };

    /// A first look that ends within three minutes. The time without which it could not is taken from the clients that
    /// are late.
    pub(super) const QUICK: Self = Self {
        syn_rates: &[Offered::Pps(500_000), Offered::Max],
        rates: &[Offered::Pps(1_000_000)],
        connection_rates: &[Offered::Pps(50_000)],
        targets: &[Target::TidegateAuto, Target::LinuxOnOverflow, Target::Nginx],
        rounds_at_max: 1,
        bare: &[Family::V4],
        scoring: Scoring {
            attacks: 1,
            contenders: &[Contender::Plain(Target::TidegateAuto), Contender::Filtered],
            steps: 4,
            clients: 250,
            window: Duration::from_millis(500),
            tail: Duration::from_millis(300),
        },
        clients: 250,
        lead_in: Duration::from_millis(200),
        before: Duration::from_millis(300),
        settle: Duration::from_millis(200),
        gather: Duration::from_millis(300),
        window: Duration::from_millis(800),
        tail: Duration::from_secs(4),
        recovery: Duration::from_millis(300),
        finish: Duration::from_millis(200),
        change: Duration::from_millis(600),
        limit: Duration::from_secs(172),
    };

    /// All cases in the order they are measured: every attack meets all subjects in turn, and each time another one is
    /// the first. The scores are last.
    pub(super) fn cases(&self, selection: &Selection) -> Vec<Case> {
        let mut cases = Vec::new();
        let mut round = 0;
        for &family in selection.families {
            for (attack, offered) in self.floods(selection) {
                let case = |subject| Case {
                    family,
                    attack,
                    offered,
                    subject,
                };
                let mut subjects = self.subjects(selection, family, attack, offered);
                let first = round % subjects.len().max(1);
                subjects.rotate_left(first);
                cases.extend(subjects.iter().copied().map(case));
                round += 1;
                if offered == Offered::Max {
                    subjects.retain(Subject::is_in_ratios);
                    for _ in 1..self.rounds_at_max {
                        cases.extend(subjects.iter().copied().map(case));
                    }
                }
            }
        }
        cases.extend(self.scores(selection));
        cases
    }

    /// The attacks with their rates, after none.
    fn floods(&self, selection: &Selection) -> Vec<(Option<Attack>, Offered)> {
        let scored = self.scored(&selection.attacks);
        let mut floods = vec![(None, Offered::Nothing)];
        for &attack in &selection.attacks {
            let (rates, is_complete) = match attack {
                Attack::SYN => (self.syn_rates, true),
                other if other.needs_connections() => (self.connection_rates, true),
                _ => (self.rates, false),
            };
            let more = (!is_complete && scored.contains(&attack)).then_some(Offered::Max);
            let all = rates.iter().copied().chain(more);
            floods.extend(all.map(|offered| (Some(attack), offered)));
        }
        floods
    }

    fn subjects(
        &self,
        selection: &Selection,
        family: Family,
        attack: Option<Attack>,
        offered: Offered,
    ) -> Vec<Subject> {
        let meets = |target: &Target| match attack {
            Some(attack) => target.meets(attack),
            // Without an attack, those that meet one.
            None => selection.attacks.iter().any(|&attack| target.meets(attack)),
        };
        let targets = self.targets.iter().copied();
        let mut subjects: Vec<Subject> = targets
            .filter(|target| meets(target) && selection.has(*target))
            .map(Subject::Server)
            .collect();
        if offered == Offered::Max && self.bare.contains(&family) {
            let transmit = (attack == Some(Attack::SYN)).then_some(Limit::Transmit);
            subjects.extend(transmit.into_iter().chain([Limit::Drop]).map(Subject::Bare));
        }
        subjects
    }

    /// Those of `attacks` that are scored.
    fn scored(&self, attacks: &[Attack]) -> Vec<Attack> {
        let mut scored = attacks.to_vec();
        scored.sort_by_key(|&attack| attack == Attack::SYN);
        scored.truncate(self.scoring.attacks);
        scored
    }

    fn scores(&self, selection: &Selection) -> Vec<Case> {
        let mut cases = Vec::new();
        let Some(&family) = selection.families.first() else {
            return cases;
        };
        for attack in self.scored(&selection.attacks) {
            for &contender in self.scoring.contenders {
                if selection.has(contender.target()) {
                    cases.push(Case {
                        family,
                        attack: Some(attack),
                        offered: Offered::Max,
                        subject: Subject::Score(contender),
                    });
                }
            }
        }
        cases
    }

    /// Returns the time from the begin of the attack of `case` until anything counts.
    pub(super) fn settle_of(&self, case: &Case) -> Duration {
        let gathers = case.attack.is_some_and(Attack::needs_connections);
        self.settle + if gathers { self.gather } else { Duration::ZERO }
    }

    /// Returns the time of `case` if no client is late; that of a score, if all are and its search is the longest.
    pub(super) fn base(&self, case: &Case) -> Duration {
        match case.subject {
            Subject::Server(_) => {
                let measuring = self.lead_in + self.before + self.settle_of(case) + self.window + self.recovery;
                self.change + measuring + self.finish
            }
            Subject::Bare(_) => self.change / 2 + self.settle + self.window,
            Subject::Score(_) => {
                let Scoring {
                    steps, window, tail, ..
                } = self.scoring;
                self.change + (self.settle + window + tail + GENERATOR_STOP) * search::max_probes(steps)
            }
        }
    }

    /// The time the first case of `rest` may wait for clients that are late, when all cases before it took `elapsed`.
    /// The time that the limit leaves is shared by the cases that have clients. `None` when there is no time for the
    /// case.
    pub(super) fn tail_of_first(&self, elapsed: Duration, rest: &[Case]) -> Option<Duration> {
        let first = rest.first()?;
        if elapsed + self.base(first) > self.limit {
            return None;
        }
        let needed: Duration = rest.iter().map(|case| self.base(case)).sum();
        let sharing = rest.iter().filter(|case| case.has_clients()).count();
        let spare = self.limit.saturating_sub(elapsed + needed);
        let share = spare / u32::try_from(sharing).unwrap_or(u32::MAX).max(1);
        Some(share.min(self.tail))
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn everything() -> Selection {
        Selection {
            families: &BOTH,
            attacks: Attack::value_variants().to_vec(),
            has_nginx: true,
        }
    }

    #[test]
    fn every_attack_meets_every_target_once_and_the_highest_rate_those_of_the_ratios_three_times() {
        let selection = everything();
        let cases = Scale::FULL.cases(&selection);
        let count = |family, attack, offered, subject| {
            let same = Case {
                family,
                attack,
                offered,
                subject,
            };
            cases.iter().filter(|&&case| case == same).count()
        };
        let floods = Scale::FULL.floods(&selection);
        let connections = selection.attacks.iter().filter(|attack| attack.needs_connections());
        let connections = connections.count();
        // None, four rates of SYNs, one of each that needs connections, two of each other.
        let packets = selection.attacks.len() - 1 - connections;
        assert_eq!(floods.len(), 1 + 4 + connections + 2 * packets);
        let mut servers = 0;
        for &family in &BOTH {
            for &(attack, offered) in &floods {
                for target in Target::ALL {
                    let subject = Subject::Server(target);
                    let times = match attack {
                        Some(attack) if !target.meets(attack) => 0,
                        _ if offered == Offered::Max && subject.is_in_ratios() => 3,
                        _ => 1,
                    };
                    assert_eq!(count(family, attack, offered, subject), times, "{attack:?} {target:?}");
                    servers += times;
                }
                if offered == Offered::Max {
                    let transmit = count(family, attack, offered, Subject::Bare(Limit::Transmit));
                    assert_eq!(transmit, if attack == Some(Attack::SYN) { 3 } else { 0 });
                    assert_eq!(count(family, attack, offered, Subject::Bare(Limit::Drop)), 3);
                }
            }
        }
        assert_eq!(cases.iter().filter(|case| case.has_clients()).count(), servers);
    }

    #[test]
    fn every_attack_is_scored_with_one_family_and_beside_the_ceiling() {
        let selection = everything();
        let is_score = |case: &&Case| matches!(case.subject, Subject::Score(_));
        let cases = Scale::FULL.cases(&selection);
        let scores: Vec<&Case> = cases.iter().filter(is_score).collect();
        assert_eq!(scores.len(), 3 * selection.attacks.len());
        assert!(scores.iter().all(|case| case.family == Family::V4));
        // A quick run has time for one, and that is no SYNs if there are others.
        let quick = Scale::QUICK.cases(&selection);
        let scores: Vec<&Case> = quick.iter().filter(is_score).collect();
        let subjects: Vec<Subject> = scores.iter().map(|case| case.subject).collect();
        let expected = [Contender::Plain(Target::TidegateAuto), Contender::Filtered].map(Subject::Score);
        assert_eq!(subjects, expected);
        assert!(scores.iter().all(|case| case.attack == Some(Attack::ACK)), "{scores:?}");
        let only = Selection {
            attacks: vec![Attack::SYN],
            ..selection
        };
        let quick = Scale::QUICK.cases(&only);
        assert_eq!(quick.iter().filter(is_score).count(), 2);
    }

    #[test]
    fn what_is_not_installed_is_not_measured() {
        let selection = Selection {
            has_nginx: false,
            ..everything()
        };
        for case in Scale::FULL.cases(&selection) {
            assert!(!case.title().contains("nginx"), "{}", case.title());
        }
    }

    #[test]
    fn each_target_is_first_in_some_round() {
        let cases = Scale::FULL.cases(&everything());
        for target in Target::ALL {
            let first = cases.iter().enumerate().any(|(index, case)| {
                let begins = index == 0 || cases[index - 1].offered != case.offered;
                begins && case.subject == Subject::Server(target)
            });
            assert!(first, "{target:?} is never the first");
        }
    }

    /// The time that all of `cases` take, clients that are late included.
    fn planned(scale: &Scale, cases: &[Case]) -> Duration {
        let mut elapsed = Duration::ZERO;
        for index in 0..cases.len() {
            let tail = scale
                .tail_of_first(elapsed, &cases[index..])
                .unwrap_or_else(|| panic!("no time for {:?}", cases[index]));
            elapsed += scale.base(&cases[index]);
            if cases[index].has_clients() {
                // The first retransmission of a SYN comes after a second.
                assert!(tail > Duration::from_millis(500), "{tail:?}, {:?}", cases[index]);
                elapsed += tail;
            }
        }
        elapsed
    }

    #[test]
    fn a_full_run_ends_within_90_minutes_and_a_quick_one_within_3_and_both_have_time_for_everything() {
        let quick = Selection {
            families: &[Family::V4],
            ..everything()
        };
        for (scale, selection, minutes) in [(Scale::FULL, everything(), 90), (Scale::QUICK, quick, 3)] {
            let cases = scale.cases(&selection);
            let planned = planned(&scale, &cases);
            assert!(planned <= scale.limit, "{planned:?}");
            // Building the lab, and what a case takes beyond its plan at the end.
            assert!(scale.limit + Duration::from_secs(5) < Duration::from_secs(minutes * 60));
        }
    }

    #[test]
    fn time_that_is_lost_is_taken_from_late_clients_and_then_from_cases() {
        let scale = Scale::QUICK;
        let cases = scale.cases(&everything());
        let needed: Duration = cases.iter().map(|case| scale.base(case)).sum();
        let late = scale.limit.saturating_sub(needed) + Duration::from_secs(1);
        assert_eq!(scale.tail_of_first(late, &cases), Some(Duration::ZERO));
        assert_eq!(scale.tail_of_first(scale.limit, &cases), None);
        let few = [cases[0]];
        assert_eq!(Scale::FULL.tail_of_first(Duration::ZERO, &few), Some(Scale::FULL.tail));
    }
}
