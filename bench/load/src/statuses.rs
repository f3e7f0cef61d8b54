//! Responses by the class of their status.

/// The names of the classes, in the order of their index.
const NAMES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The index of the class of a final status. What is beyond 5xx is like 5xx (RFC 9110, section 15).
pub(crate) fn class(status: u16) -> u8 {
    // At most 5, so it fits.
    (status / 100).clamp(2, 5) as u8 - 2
}

/// The number of responses of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statuses([u64; 4]);

impl Statuses {
    /// Adds responses of each class, 2xx to 5xx.
    #[inline]
    pub fn add(&mut self, classes: [u32; 4]) {
        for (count, more) in self.0.iter_mut().zip(classes) {
            *count += u64::from(more);
        }
    }

    /// Adds those of another thread.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// Returns the responses of all classes.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns the redirects, 3xx, which are not followed.
    pub fn redirects(&self) -> u64 {
        self.0[1]
    }

    /// Returns each class by name with its responses.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        NAMES.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_counted_by_class() {
        let mut statuses = Statuses::default();
        for status in [200, 204, 301, 404, 500, 599, 600, 999] {
            let mut classes = [0; 4];
            classes[usize::from(class(status))] = 1;
            statuses.add(classes);
        }
        let mut both = statuses;
        both.merge(&statuses);
        assert_eq!((both.total(), both.redirects()), (16, 2));
        assert_eq!(
            both.iter().collect::<Vec<_>>(),
            [("2xx", 4), ("3xx", 2), ("4xx", 2), ("5xx", 8)]
        );
    }
}
