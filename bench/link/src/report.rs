//! The counts of the link, as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use tidegate_impair::ImpairmentStats;

/// The names of the two directions: from the first device to the second, and back.
pub(crate) const DIRECTIONS: [&str; 2] = ["ab", "ba"];

/// The counts of one direction, in frames but for the last.
///
/// received + duplicated = sent + held + lost + over_limit + too_long + checksum_missing + refused + other_vlan
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Frames taken from the device they came in by.
    pub(crate) received: u64,
    /// Frames the device they left by took.
    pub(crate) sent: u64,
    /// Frames that the impairment dropped or changed.
    pub(crate) impaired: ImpairmentStats,
    /// Frames passed on without impairment, since the link would not work without them. They are among the sent ones.
    pub(crate) unimpaired: u64,
    /// Frames thrown away because they are longer than the MTU allows, which comes from segmentation left to a device.
    pub(crate) too_long: u64,
    /// Frames thrown away because their transport checksum was left for a device to fill in.
    pub(crate) checksum_missing: u64,
    /// Frames thrown away because too many were on their way.
    pub(crate) overflow: u64,
    /// Frames the device they were to leave by refused.
    pub(crate) refused: u64,
    /// Frames thrown away because they were without the tag of the VLAN that this end of the link is in.
    pub(crate) other_vlan: u64,
    /// Frames on their way now.
    pub(crate) held: u64,
    /// Frames the kernel dropped since they were not received in time. They are not among the received ones.
    pub(crate) overrun: u64,
    /// Microseconds that frames waited for the rate limit, until their last bit was out, all together.
    pub(crate) queue_wait_us: u64,
}

impl Counts {
    fn entries(&self) -> [(&'static str, u64); 15] {
        [
            ("received", self.received),
            ("sent", self.sent),
            ("lost", self.impaired.lost),
            ("duplicated", self.impaired.duplicated),
            ("corrupted", self.impaired.corrupted),
            ("reordered", self.impaired.reordered),
            ("over_limit", self.impaired.queue_full + self.overflow),
            ("unimpaired", self.unimpaired),
            ("too_long", self.too_long),
            ("checksum_missing", self.checksum_missing),
            ("refused", self.refused),
            ("held", self.held),
            ("overrun", self.overrun),
            ("other_vlan", self.other_vlan),
            ("queue_wait_us", self.queue_wait_us),
        ]
    }
}

/// One line for each count and direction, `link_NAME{direction="ab"} VALUE`.
pub(crate) fn text(counts: &[Counts; 2]) -> String {
    let mut text = String::new();
    let [ab, ba] = counts.map(|counts| counts.entries());
    for ((name, ab), (_, ba)) in ab.into_iter().zip(ba) {
        for (direction, value) in DIRECTIONS.into_iter().zip([ab, ba]) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "link_{name}{{direction=\"{direction}\"}} {value}");
        }
    }
    text
}

/// An object of the two directions, each an object of counts.
pub(crate) fn json(counts: &[Counts; 2]) -> Value {
    let directions = DIRECTIONS.into_iter().zip(counts).map(|(direction, counts)| {
        let entries: Map<String, Value> = counts
            .entries()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect();
        (direction.to_owned(), Value::Object(entries))
    });
    Value::Object(directions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> [Counts; 2] {
        let ab = Counts {
            received: 10,
            impaired: ImpairmentStats {
                lost: 3,
                ..ImpairmentStats::default()
            },
            ..Counts::default()
        };
        [ab, Counts::default()]
    }

    #[test]
    fn every_count_has_a_line_for_each_direction() {
        let text = text(&counts());
        assert_eq!(text.lines().count(), 30);
        assert!(text.contains("link_received{direction=\"ab\"} 10\nlink_received{direction=\"ba\"} 0\n"));
        assert!(text.contains("link_lost{direction=\"ab\"} 3\n"));
    }

    #[test]
    fn json_has_the_same_counts() {
        let json = json(&counts());
        assert_eq!(json["ab"]["received"], 10);
        assert_eq!(json["ab"]["lost"], 3);
        assert_eq!(json["ba"].as_object().unwrap().len(), 15);
    }
}
