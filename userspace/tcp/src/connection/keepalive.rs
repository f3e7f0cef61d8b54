//! The keepalive settings connections were opened with, each kept once.
//!
//! A connection keeps the settings its listener had when it was accepted, whatever the listener is given later. There
//! are few different ones, so connections keep a number.

use crate::config::Keepalive;

/// Number of keepalive settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeepaliveId(u16);

/// The settings in use.
#[derive(Default)]
pub(crate) struct KeepaliveTable(Vec<Keepalive>);

impl KeepaliveTable {
    /// The number of `settings`. Those beyond 65,536 different ones, more than anybody configures during the life of an
    /// engine, count as the last of these.
    pub(crate) fn number(&mut self, settings: Keepalive) -> KeepaliveId {
        let known = self.0.iter().position(|known| *known == settings);
        let number = known.unwrap_or_else(|| {
            if self.0.len() <= usize::from(u16::MAX) {
                self.0.push(settings);
            }
            self.0.len() - 1
        });
        KeepaliveId(number as u16)
    }

    /// The settings of a number this table has given.
    pub(crate) fn get(&self, id: KeepaliveId) -> Keepalive {
        self.0[usize::from(id.0)]
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn settings(seconds: u64) -> Keepalive {
        Keepalive {
            idle: Duration::from_secs(seconds),
            interval: Duration::from_secs(1),
            probes: 3,
        }
    }

    #[test]
    fn equal_settings_have_one_number() {
        let mut table = KeepaliveTable::default();
        let (short, long) = (table.number(settings(10)), table.number(settings(7200)));
        assert_ne!(short, long);
        assert_eq!(table.number(settings(10)), short);
        assert_eq!(table.get(short), settings(10));
        assert_eq!(table.get(long), settings(7200));
        assert_eq!(table.0.len(), 2);
    }
}
