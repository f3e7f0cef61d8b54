//! Ratios of the results.

use tidegate_lab::Family;
use tidegate_report::Spread;

use super::super::attack::Attack;
use super::super::plan::{Contender, Limit, Target};
use super::{Measurement, Results};

/// The ratios of the results; `None` if not measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratios {
    /// SYNs that tidegate answers at the highest rate, in those that Linux answers with `tcp_syncookies` = 1.
    pub(super) answered_max_vs_linux: Option<f64>,
    /// SYNs that tidegate answers at the highest rate, in those that a bare XDP program sends back.
    pub(super) answered_max_vs_xdp_tx: Option<f64>,
    /// Packets other than SYNs that tidegate takes in at the highest rate, in those that a bare XDP program drops.
    pub(super) taken_max_vs_xdp_drop: Option<f64>,
    /// The score of tidegate in that of tidegate behind a bare filter.
    pub(super) score_vs_bare: Option<f64>,
}

impl Results {
    /// Returns the score of tidegate in that of tidegate behind a bare filter.
    pub(super) fn score_vs_bare(&self, family: Family, attack: Attack) -> Option<f64> {
        let bare = self.score(family, attack, Contender::Filtered)?;
        Some(self.score(family, attack, Contender::Plain(Target::TidegateAuto))? / bare)
    }

    /// All ratios: the median of those of the rounds, and of several attacks and IP versions that of the worst.
    pub(super) fn ratios(&self) -> Ratios {
        let syns = |row: &Measurement| row.answered_per_s;
        let linux = |family, attack| self.at_max(family, attack, Target::LinuxOnOverflow, syns);
        let transmit = |family, attack| self.bounds_of(family, attack, Limit::Transmit);
        let drop = |family, attack| self.bounds_of(family, attack, Limit::Drop);
        let others: Vec<Attack> = self
            .attacks()
            .into_iter()
            .filter(|&attack| attack != Attack::SYN)
            .collect();
        let scores = self.scores.iter();
        Ratios {
            answered_max_vs_linux: self.lowest(&[Attack::SYN], syns, linux),
            answered_max_vs_xdp_tx: self.lowest(&[Attack::SYN], syns, transmit),
            taken_max_vs_xdp_drop: self.lowest(&others, |row| row.taken_per_s, drop),
            score_vs_bare: scores
                .filter_map(|score| self.score_vs_bare(score.family, score.attack))
                .min_by(f64::total_cmp),
        }
    }

    /// The lowest ratio, over IP versions and `attacks`, of a figure of tidegate to that of others in the same round.
    fn lowest(
        &self,
        attacks: &[Attack],
        figure: fn(&Measurement) -> f64,
        others: impl Fn(Family, Attack) -> Vec<f64>,
    ) -> Option<f64> {
        let ratio = |family, attack| {
            let ours = self.at_max(family, attack, Target::TidegateAuto, figure);
            let rounds = ours.into_iter().zip(others(family, attack));
            let ratios = rounds
                .filter(|&(_, other)| other > 0.0)
                .map(|(ours, other)| ours / other);
            Spread::of(ratios).map(|spread| spread.median)
        };
        let families = self.families();
        let pairs = families
            .iter()
            .flat_map(|&family| attacks.iter().map(move |&attack| (family, attack)));
        pairs
            .filter_map(|(family, attack)| ratio(family, attack))
            .min_by(f64::total_cmp)
    }

    /// A figure of a target at the highest rate, in the order of the rounds.
    fn at_max(&self, family: Family, attack: Attack, target: Target, figure: fn(&Measurement) -> f64) -> Vec<f64> {
        let same = |row: &&Measurement| (row.family, row.attack, row.target) == (family, Some(attack), target);
        self.at_max.iter().filter(same).map(figure).collect()
    }

    /// Returns what the ratios are, and the ratios.
    pub(super) fn ratio_texts(&self) -> [(&'static str, String); 4] {
        let ratios = self.ratios();
        let text = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        [
            (
                "SYNs answered at the highest rate, tidegate auto to linux tcp_syncookies=1",
                text(ratios.answered_max_vs_linux),
            ),
            (
                "SYNs answered at the highest rate, tidegate auto to bare XDP_TX",
                text(ratios.answered_max_vs_xdp_tx),
            ),
            (
                "other packets taken in at the highest rate, tidegate auto to bare XDP_DROP, the worst attack",
                text(ratios.taken_max_vs_xdp_drop),
            ),
            (
                "highest rate that clients do not notice, tidegate auto to a bare filter before it, the worst attack",
                text(ratios.score_vs_bare),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use tidegate_report::format::three_digits;

    use super::super::super::plan::Offered;
    use super::super::samples::{report, row};
    use super::*;

    #[test]
    fn ratios_are_those_of_the_highest_rate_and_the_worse_family() {
        let ratios = report().ratios();
        // 2.4M to 0.4M with IPv4, 1.8M to 0.36M with IPv6.
        assert_eq!(ratios.answered_max_vs_linux, Some(5.0));
        // 2.4M of 3M; that of IPv6 was not measured.
        assert_eq!(ratios.answered_max_vs_xdp_tx, Some(0.8));
        // 3M of 5M; those of SYNs are another thing.
        assert_eq!(ratios.taken_max_vs_xdp_drop.map(three_digits), Some(0.6));
        assert_eq!(ratios.score_vs_bare, Some(0.75));
    }

    #[test]
    fn of_several_rounds_the_median_counts() {
        let mut report = Results::default();
        // The machine is slow in the second round, and tidegate alone in the third.
        for (tidegate, linux, bare) in [(2.0e6, 0.4e6, 4.0e6), (1.0e6, 0.2e6, 2.0e6), (1.0e6, 0.4e6, 4.0e6)] {
            report.add_row(row(Target::TidegateAuto, Family::V4, Offered::Max, tidegate));
            report.add_row(row(Target::LinuxOnOverflow, Family::V4, Offered::Max, linux));
            report.add_limit(Family::V4, Attack::SYN, Limit::Transmit, bare);
        }
        let ratios = report.ratios();
        assert_eq!(ratios.answered_max_vs_linux, Some(5.0));
        assert_eq!(ratios.answered_max_vs_xdp_tx, Some(0.5));
        let answered: Vec<f64> = report.rows.iter().map(|row| row.answered_per_s).collect();
        assert_eq!(answered, [1.0e6, 0.4e6]);
        assert_eq!(report.limit(Family::V4, Attack::SYN, Limit::Transmit), Some(4.0e6));
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let mut report = Results::default();
        let nothing = Ratios {
            answered_max_vs_linux: None,
            answered_max_vs_xdp_tx: None,
            taken_max_vs_xdp_drop: None,
            score_vs_bare: None,
        };
        assert_eq!(report.ratios(), nothing);
        report.add_row(row(Target::TidegateAuto, Family::V4, Offered::Max, 1e6));
        report.add_row(row(Target::LinuxOnOverflow, Family::V4, Offered::Max, 0.0));
        assert_eq!(report.ratios(), nothing);
        report.add_limit(Family::V4, Attack::SYN, Limit::Transmit, 0.0);
        assert_eq!(report.ratios(), nothing);
    }
}
