//! Taking turns, and the table of what came out.

use std::time::{Duration, Instant};

use tidegate_engine_bench::Cost;

use crate::machine::Machine;

/// Something that is measured slice by slice.
pub(crate) struct Subject {
    label: String,
    work: Box<dyn FnMut() -> Cost>,
    slices: Vec<Cost>,
}

impl Subject {
    /// `work` does a piece of work, short in comparison with a slice, and says what it cost.
    pub(crate) fn new(label: &str, work: impl FnMut() -> Cost + 'static) -> Self {
        Self {
            label: label.to_owned(),
            work: Box::new(work),
            slices: Vec::new(),
        }
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    fn slice(&mut self, length: Duration) -> Cost {
        let begin = Instant::now();
        let mut cost = Cost::default();
        loop {
            cost += (self.work)();
            if begin.elapsed() >= length {
                return cost;
            }
        }
    }

    /// The slices from the fastest to the slowest; there is at least one.
    fn sorted(&self) -> Vec<Cost> {
        let mut slices = self.slices.clone();
        slices.sort_by(|a, b| a.nanos_each().total_cmp(&b.nanos_each()));
        slices
    }

    fn median(&self) -> Cost {
        let sorted = self.sorted();
        sorted[sorted.len() / 2]
    }
}

/// The turns of the subjects.
pub(crate) struct Turns {
    /// Slices of each subject, at least one.
    pub(crate) runs: u32,
    /// The length of a slice.
    pub(crate) slice: Duration,
    /// The time each subject works before its first slice.
    pub(crate) settle: Duration,
}

impl Turns {
    /// Measures all subjects.
    pub(crate) fn take(&self, subjects: &mut [Subject]) {
        for subject in &mut *subjects {
            subject.slice(self.settle);
        }
        for _ in 0..self.runs {
            for subject in &mut *subjects {
                let cost = subject.slice(self.slice);
                subject.slices.push(cost);
            }
        }
    }
}

/// Prints a line for each subject.
pub(crate) fn print(title: &str, subjects: &[Subject], machine: &Machine) {
    println!("\n{title}");
    println!(
        "  {:<44}{:>12}{:>12}{:>12}{:>9}{:>11}{:>15}{:>12}",
        "", "per second", "slowest", "fastest", "ns", "ns/segment", "cycles/segment", "allocations"
    );
    for subject in subjects {
        let (sorted, median) = (subject.sorted(), subject.median());
        let per_segment = median.nanos_per_segment();
        let cycles = machine
            .cycles(per_segment)
            .map_or_else(|| "-".to_owned(), |cycles| format!("{cycles:.0}"));
        println!(
            "  {:<44}{:>12}{:>12}{:>12}{:>9.0}{:>11.0}{:>15}{:>12.3}",
            subject.label,
            grouped(median.per_second()),
            grouped(sorted[sorted.len() - 1].per_second()),
            grouped(sorted[0].per_second()),
            median.nanos_each(),
            per_segment,
            cycles,
            median.allocations_each(),
        );
    }
}

/// Prints how many times as many operations per second `first` does as `second`, slice against slice that followed each
/// other: median, lowest and highest.
pub(crate) fn print_ratio(label: &str, first: &Subject, second: &Subject) {
    let mut ratios: Vec<f64> = first
        .slices
        .iter()
        .zip(&second.slices)
        .map(|(first, second)| first.per_second() / second.per_second())
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "  {label}: {:.2} ({:.2} to {:.2})",
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1]
    );
}

/// A whole number with a comma before every three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [
            (0.4, "0"),
            (999.0, "999"),
            (1000.0, "1,000"),
            (123_456.7, "123,457"),
            (1e9, "1,000,000,000"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn every_subject_gets_its_slices_and_the_middle_one_counts() {
        let mut micros = 10;
        let mut subjects = [Subject::new("slower every time", move || {
            micros += 10;
            std::thread::sleep(Duration::from_millis(2));
            Cost {
                time: Duration::from_micros(micros),
                operations: 1,
                segments: 1,
                allocations: 0,
            }
        })];
        let turns = Turns {
            runs: 3,
            slice: Duration::from_millis(1),
            settle: Duration::from_millis(1),
        };
        turns.take(&mut subjects);
        // The first piece was before the first slice.
        let times: Vec<u128> = subjects[0].slices.iter().map(|cost| cost.time.as_micros()).collect();
        assert_eq!(times, [30, 40, 50]);
        assert_eq!(subjects[0].median().time, Duration::from_micros(40));
    }
}
