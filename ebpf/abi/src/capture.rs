//! Samples of the frames that the XDP program drops or answers, for captures.

/// Octets of a frame in a sample: all headers that the program looks at, mostly.
pub const MAX_OCTETS: usize = 128;

/// Samples that a CPU takes in a jiffy (1 to 10 ms, by CONFIG_HZ), so that captures cost no more in a flood.
pub const MAX_PER_JIFFY: u64 = 64;

/// Octets of the ring of samples: room for 3,000 of them.
pub const RING_OCTETS: u32 = 512 * 1024;

/// A frame that was dropped, or answered: as it came, and as it left.
///
/// The layout is the ring's: 160 bytes, no padding. Integers are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub time: u64,
    /// Octets of the frame.
    pub length: u32,
    /// Those of them in `octets`.
    pub captured: u32,
    /// The index of the reason in [`XdpCounter::ALL`](crate::XdpCounter::ALL).
    pub counter: u32,
    /// The receive queue.
    pub queue: u32,
    /// The kernel's number of the device.
    pub ifindex: u32,
    /// 1: as it leaves; 0: as it came.
    pub is_sent: u32,
    /// Its first octets.
    pub octets: [u8; MAX_OCTETS],
}

/// Octets of a [`Sample`].
pub const SAMPLE: usize = size_of::<Sample>();

impl Sample {
    /// The sample in an entry of the ring; `None` if it is none.
    pub fn from_entry(entry: &[u8]) -> Option<Self> {
        let entry: &[u8; SAMPLE] = entry.first_chunk()?;
        let (fields, octets) = entry.split_at(SAMPLE - MAX_OCTETS);
        let (time, words) = fields.split_first_chunk::<8>()?;
        let word = |index: usize| {
            let at = index * 4;
            u32::from_ne_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]])
        };
        Some(Self {
            time: u64::from_ne_bytes(*time),
            length: word(0),
            captured: word(1),
            counter: word(2),
            queue: word(3),
            ifindex: word(4),
            is_sent: word(5),
            octets: *octets.first_chunk()?,
        })
    }

    /// The octets that were captured.
    pub fn octets(&self) -> &[u8] {
        self.octets.get(..self.captured as usize).unwrap_or(&self.octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_field_by_field() {
        assert_eq!(SAMPLE, 160);
        let mut entry = [0; SAMPLE];
        entry[..8].copy_from_slice(&1_u64.to_ne_bytes());
        for (index, word) in (2..8_u32).enumerate() {
            entry[8 + 4 * index..12 + 4 * index].copy_from_slice(&word.to_ne_bytes());
        }
        entry[32..].fill(9);
        let sample = Sample::from_entry(&entry).expect("a sample");
        let expected = Sample {
            time: 1,
            length: 2,
            captured: 3,
            counter: 4,
            queue: 5,
            ifindex: 6,
            is_sent: 7,
            octets: [9; MAX_OCTETS],
        };
        assert_eq!((sample, sample.octets()), (expected, &[9; 3][..]));
        assert_eq!(Sample::from_entry(&entry[1..]), None);
    }
}
