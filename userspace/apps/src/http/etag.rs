//! Entity tags (RFC 9110, section 8.8.3).

use std::fmt::{self, Display, Formatter};
use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::files::Stamp;

/// The entity tag of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntityTag {
    /// Quotes included.
    opaque: String,
    is_weak: bool,
}

/// The origin of a tag besides the stamp, so that tags of different kinds are never equal.
#[derive(Hash)]
enum Basis<'a> {
    Stamp,
    Content(&'a [u8]),
    Unsettled,
}

impl EntityTag {
    /// The strong tag of a file whose stamp changes with its content.
    pub(super) fn of_settled(stamp: &Stamp) -> Self {
        Self::of_file(stamp, &Basis::Stamp, false)
    }

    /// The strong tag of `content`, which was read from a file whose stamp may stay the same while its content changes.
    pub(super) fn of_content(stamp: &Stamp, content: &[u8]) -> Self {
        Self::of_file(stamp, &Basis::Content(content), false)
    }

    /// The weak tag of a file whose stamp may stay the same while its content changes.
    pub(super) fn of_unsettled(stamp: &Stamp) -> Self {
        Self::of_file(stamp, &Basis::Unsettled, true)
    }

    /// The strong tag `opaque`, which has no quotes.
    pub(super) fn fixed(opaque: &str) -> Self {
        Self {
            opaque: format!("\"{opaque}\""),
            is_weak: false,
        }
    }

    /// Hashed, since inode numbers are nobody's business.
    fn of_file(stamp: &Stamp, basis: &Basis<'_>, is_weak: bool) -> Self {
        let hash = FixedState::with_seed(0).hash_one((stamp.version(), basis));
        Self {
            opaque: format!("\"{:x}-{hash:016x}\"", stamp.length),
            is_weak,
        }
    }

    /// The strong comparison of section 8.8.3.2 with the tag `other`, its `W/` and quotes included.
    pub(super) fn equals_strongly(&self, other: &[u8]) -> bool {
        !self.is_weak && *other == *self.opaque.as_bytes()
    }

    /// The weak comparison.
    pub(super) fn equals_weakly(&self, other: &[u8]) -> bool {
        other.strip_prefix(b"W/").unwrap_or(other) == self.opaque.as_bytes()
    }
}

impl Display for EntityTag {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let prefix = if self.is_weak { "W/" } else { "" };
        write!(formatter, "{prefix}{}", self.opaque)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_changes_with_everything_that_tells_versions_apart() {
        type Change = fn(&mut Stamp);
        let stamp = Stamp::for_test(255, 1);
        let before = EntityTag::of_settled(&stamp);
        assert!(before.to_string().starts_with("\"ff-"), "{before}");
        let changes: [Change; 7] = [
            |stamp| stamp.device += 1,
            |stamp| stamp.inode += 1,
            |stamp| stamp.length += 1,
            |stamp| stamp.modified += 1,
            |stamp| stamp.modified_nanos += 1,
            |stamp| stamp.changed += 1,
            |stamp| stamp.changed_nanos += 1,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut other = stamp.clone();
            change(&mut other);
            assert_ne!(EntityTag::of_settled(&other), before, "change {index}");
        }
    }

    #[test]
    fn a_tag_that_cannot_be_strong_equals_no_strong_one() {
        let stamp = Stamp::for_test(1, 1);
        let settled = EntityTag::of_settled(&stamp);
        let content = EntityTag::of_content(&stamp, b"a");
        let unsettled = EntityTag::of_unsettled(&stamp);
        assert_ne!(content, EntityTag::of_content(&stamp, b"b"));
        for (one, other) in [(&settled, &content), (&settled, &unsettled), (&content, &unsettled)] {
            assert!(!one.equals_weakly(other.to_string().as_bytes()), "{one} {other}");
        }
        assert!(unsettled.to_string().starts_with("W/\""));
        assert!(unsettled.equals_weakly(unsettled.to_string().as_bytes()));
        assert!(!unsettled.equals_strongly(unsettled.to_string().as_bytes()));
        assert!(!unsettled.equals_strongly(unsettled.opaque.as_bytes()));
        assert!(settled.equals_strongly(settled.opaque.as_bytes()));
        assert!(!settled.equals_strongly(format!("W/{settled}").as_bytes()));
        assert!(settled.equals_weakly(format!("W/{settled}").as_bytes()));
    }
}
