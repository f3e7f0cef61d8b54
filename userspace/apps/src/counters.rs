//! The shape of the applications' counters.

/// Defines `Counter`, what is counted, and `Counters`, the values.
macro_rules! define_counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// The events that are counted. All count from when the application was made.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Counter {
            /// All counters, in the order of their index.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name shown to people and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The event that the counter counts, in one sentence.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }

        /// The values of all counters of one application.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Counters([u64; Counter::ALL.len()]);

        impl Default for Counters {
            fn default() -> Self {
                Self([0; Counter::ALL.len()])
            }
        }

        impl Counters {
            /// The value of `counter`.
            #[inline]
            pub fn get(&self, counter: Counter) -> u64 {
                self.0[counter as usize]
            }

            /// Adds one to `counter`.
            #[inline]
            pub fn bump(&mut self, counter: Counter) {
                self.add(counter, 1);
            }

            /// Adds `amount` to `counter`.
            #[inline]
            pub fn add(&mut self, counter: Counter, amount: u64) {
                self.0[counter as usize] = self.0[counter as usize].wrapping_add(amount);
            }

            /// Adds all of `other`, for totals over shards.
            pub fn merge(&mut self, other: &Self) {
                for (sum, value) in self.0.iter_mut().zip(other.0) {
                    *sum = sum.wrapping_add(value);
                }
            }

            /// Name and value of every counter, in the order of [`Counter::ALL`].
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                Counter::ALL.iter().map(|&counter| (counter.name(), self.get(counter)))
            }
        }
    };
}

pub(crate) use define_counters;
