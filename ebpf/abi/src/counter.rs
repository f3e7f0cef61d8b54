//! One counter for each verdict of the XDP program and each reason for it.

use crate::MAX_QUEUES;

/// Defines an enum of counters, each with a name for people and metrics, and, where a second type is named, the values
/// of all of them.
///
/// ```
/// tidegate_abi::define_counters! {
///     /// The counters of a kettle.
///     pub enum Counter {
///         /// Times it boiled.
///         Boiled = "boiled",
///     }
///
///     /// The values of one kettle.
///     pub struct Counters;
/// }
///
/// let mut counters = Counters::default();
/// counters.bump(Counter::Boiled);
/// assert_eq!(Counter::Boiled.description(), " Times it boiled.");
/// assert_eq!(counters.iter().map(|(counter, value)| (counter.name(), value)).next(), Some(("boiled", 1)));
/// ```
#[macro_export]
macro_rules! define_counters {
    (
        $(#[$meta:meta])*
        pub enum $counter:ident {
            $($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+
        }
        $($(#[$values_meta:meta])* pub struct $values:ident;)?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $counter {
            /// All counters, in the order of their index.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name shown to people and metrics, which may put the part of the program before it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The meaning, for people: the documentation of the counter, with a blank before each line.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }

        $(
            $(#[$values_meta])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $values([u64; $counter::ALL.len()]);

            impl Default for $values {
                fn default() -> Self {
                    Self([0; $counter::ALL.len()])
                }
            }

            impl $values {
                /// The value of `counter`.
                #[inline]
                pub fn get(&self, counter: $counter) -> u64 {
                    self.0[counter as usize]
                }

                /// Adds one to `counter`.
                #[inline]
                pub fn bump(&mut self, counter: $counter) {
                    self.add(counter, 1);
                }

                /// Adds `amount` to `counter`.
                #[inline]
                pub fn add(&mut self, counter: $counter, amount: u64) {
                    self.0[counter as usize] = self.0[counter as usize].wrapping_add(amount);
                }

                /// Adds all of `other`, for totals over shards.
                pub fn merge(&mut self, other: &Self) {
                    for (sum, value) in self.0.iter_mut().zip(other.0) {
                        *sum = sum.wrapping_add(value);
                    }
                }

                /// Every counter with its value, in the order of their index.
                pub fn iter(&self) -> impl Iterator<Item = ($counter, u64)> + '_ {
                    $counter::ALL.iter().map(|&counter| (counter, self.get(counter)))
                }
            }
        )?
    };
}

define_counters! {
    /// Why the XDP program decided as it did. Every frame adds one to exactly one of these; the last two are no
    /// verdicts. For people and metrics `xdp_` is put before the name.
    pub enum XdpCounter {
        /// Redirected to the AF_XDP socket of the receiving queue: TCP to a served address and port, but no SYN, of a
        /// flow that an engine has, or of any where there is no flow filter.
        Redirect = "redirect",
        /// Redirected to the AF_XDP socket of the receiving queue: TCP to a served address and port that acknowledges a
        /// genuine cookie, of a flow no engine had so far.
        RedirectCookie = "redirect_cookie",
        /// Redirected to the AF_XDP socket of the receiving queue, within `rst_rate`: TCP to a served address and port,
        /// but no SYN, of a flow no engine has.
        RedirectNoFlow = "redirect_no_flow",
        /// Redirected to the AF_XDP socket of the receiving queue: a SYN to a served address and port.
        RedirectSyn = "redirect_syn",
        /// Redirected to the AF_XDP socket of the receiving queue: ICMP "too big" about TCP from a served address and
        /// port.
        RedirectTooBig = "redirect_too_big",
        /// Redirected to the AF_XDP socket of the receiving queue: TCP from an address and port that a client of this
        /// host talks to.
        RedirectRemote = "redirect_remote",
        /// Answered: a SYN to a served address and port, by a SYN-ACK with a cookie.
        TxSynCookie = "tx_syn_cookie",
        /// Dropped: TCP to a served address and port from a prefix that is denied.
        DropSourceDenied = "drop_source_denied",
        /// Dropped: a SYN from a source that has sent more than its share.
        DropSynRate = "drop_syn_rate",
        /// Dropped: SYN together with FIN or RST, to a served address and port.
        DropSynFlags = "drop_syn_flags",
        /// Dropped: a SYN to a served address and port that a cookie would have answered, but its TCP header
        /// contradicts itself, or its IP header carries options or extension headers.
        DropSynMalformed = "drop_syn_malformed",
        /// Dropped: a SYN that a cookie would have answered, from an address or port that cannot be answered.
        DropBadSource = "drop_bad_source",
        /// Dropped: TCP to a served address and port, but no SYN, of a flow no engine has, beyond `rst_rate` or such
        /// that no RST would answer it; or ICMP "too big" about a flow no engine has.
        DropNoFlow = "drop_no_flow",
        /// Dropped: an acknowledgment to a served address and port of a flow no engine has and of no genuine cookie,
        /// beyond `rst_rate`.
        DropBadCookie = "drop_bad_cookie",
        /// Passed: for a served address and port, but no AF_XDP socket on the receiving queue.
        PassNoSocket = "pass_no_socket",
        /// Passed: TCP to an address and port that is not served.
        PassNotServed = "pass_not_served",
        /// Passed: IPv4 or IPv6, but neither TCP nor ICMP "too big" about TCP from a served address and port.
        PassNotTcp = "pass_not_tcp",
        /// Passed: IPIP or GUE with TCP to a served address and port in it, from a source that is no configured
        /// balancer.
        PassNotBalancer = "pass_not_balancer",
        /// Passed: neither IPv4 nor IPv6 (ARP among them).
        PassNotIp = "pass_not_ip",
        /// Passed: an IP fragment, the first one included. IPv6 atomic fragments are whole packets.
        PassFragment = "pass_fragment",
        /// Passed: a header was cut short or contradicts itself.
        PassMalformed = "pass_malformed",
        /// Passed: more than two VLAN tags.
        PassVlanDepth = "pass_vlan_depth",
        /// Passed: an IPv6 extension header that is not walked, or too many of them.
        PassExtensionHeader = "pass_extension_header",
        /// Passed: broadcast or multicast on the Ethernet layer.
        PassNotUnicast = "pass_not_unicast",
        /// No verdict: came from a balancer in IPIP or GUE, and is counted once more by what was in it.
        Decapsulated = "decapsulated",
        /// No verdict: dropped or answered, and missing in the captures that are on: more than 64 of a CPU in a jiffy,
        /// or who takes them is too slow.
        CaptureLost = "capture_lost",
    }
}

impl XdpCounter {
    /// Number of counters per queue.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// Entries of the counters map: every queue has a full set.
    pub const MAP_ENTRIES: u32 = Self::COUNT * MAX_QUEUES;

    /// Index of this counter for receive queue `queue` in the counters map. Queues past the last share its counters.
    #[inline(always)]
    pub const fn index(self, queue: u32) -> u32 {
        let queue = if queue < MAX_QUEUES { queue } else { MAX_QUEUES - 1 };
        queue * Self::COUNT + self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_own_index_within_the_map() {
        let mut last = None;
        for queue in 0..MAX_QUEUES {
            for counter in XdpCounter::ALL {
                let index = counter.index(queue);
                assert!(index < XdpCounter::MAP_ENTRIES);
                assert!(last.is_none_or(|last| index == last + 1));
                last = Some(index);
            }
        }
        assert_eq!(
            XdpCounter::Redirect.index(u32::MAX),
            XdpCounter::Redirect.index(MAX_QUEUES - 1)
        );
    }
}
