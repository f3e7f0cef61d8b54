//! The kernel's counters of a socket.

/// The kernel's counters of an AF_XDP socket (`XDP_STATISTICS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames dropped for other reasons than those below.
    pub rx_dropped: u64,
    /// Frames dropped because the fill ring held an invalid address.
    pub rx_invalid_descs: u64,
    /// Descriptors of the TX ring that were invalid.
    pub tx_invalid_descs: u64,
    /// Frames dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Times the fill ring was empty when a frame arrived.
    pub rx_fill_ring_empty_descs: u64,
    /// Times the TX ring was empty when the kernel looked.
    pub tx_ring_empty_descs: u64,
}

impl Statistics {
    /// The meaning of every counter, in the order of [`Self::iter`].
    pub const DESCRIPTIONS: &[&str] = &[
        "Frames dropped for other reasons than those below.",
        "Frames dropped because the fill ring held an invalid address.",
        "Descriptors of the TX ring that were invalid.",
        "Frames dropped because the RX ring was full.",
        "Times the fill ring was empty when a frame arrived.",
        "Times the TX ring was empty when the kernel looked.",
    ];

    /// Every counter's name with its value.
    pub fn iter(mut self) -> impl Iterator<Item = (&'static str, u64)> {
        self.fields().map(|(name, value)| (name, *value)).into_iter()
    }

    /// Adds all of `other`, for totals.
    pub fn merge(&mut self, other: &Self) {
        for ((_, sum), (_, value)) in self.fields().into_iter().zip(other.iter()) {
            *sum = sum.wrapping_add(value);
        }
    }

    fn fields(&mut self) -> [(&'static str, &mut u64); 6] {
        [
            ("rx_dropped", &mut self.rx_dropped),
            ("rx_invalid_descs", &mut self.rx_invalid_descs),
            ("tx_invalid_descs", &mut self.tx_invalid_descs),
            ("rx_ring_full", &mut self.rx_ring_full),
            ("rx_fill_ring_empty_descs", &mut self.rx_fill_ring_empty_descs),
            ("tx_ring_empty_descs", &mut self.tx_ring_empty_descs),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_and_added() {
        let mut sum = Statistics {
            rx_dropped: 1,
            ..Statistics::default()
        };
        sum.merge(&Statistics {
            rx_dropped: 2,
            tx_ring_empty_descs: 3,
            ..Statistics::default()
        });
        let named: Vec<_> = sum.iter().filter(|&(_, value)| value != 0).collect();
        assert_eq!(named, [("rx_dropped", 3), ("tx_ring_empty_descs", 3)]);
        assert_eq!(sum.iter().count(), 6);
    }
}
