//! Link headers in use, each kept once.
//!
//! Thousands of connections share the few routers and neighbours they come through, so connections keep a number.

use std::collections::HashMap;

use crate::wire::{LinkHeader, ReceivedLink};

/// Number of a link header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkId(u16);

struct Entry {
    header: LinkHeader,
    users: u32,
}

/// The table; each user of a header holds it by [`LinkTable::acquire`] until [`LinkTable::release`].
#[derive(Default)]
pub(crate) struct LinkTable {
    entries: Vec<Entry>,
    free: Vec<u16>,
    numbers: HashMap<LinkHeader, u16>,
    /// Neighbours come in runs.
    last: u16,
}

impl LinkTable {
    /// The number of `header`; `None` when 65,536 others are in use.
    pub(crate) fn acquire(&mut self, header: &LinkHeader) -> Option<LinkId> {
        let number = match self.entries.get(usize::from(self.last)) {
            Some(entry) if entry.users > 0 && entry.header == *header => self.last,
            _ => match self.numbers.get(header) {
                Some(&number) => number,
                None => self.add(*header)?,
            },
        };
        self.entries[usize::from(number)].users += 1;
        self.last = number;
        Some(LinkId(number))
    }

    /// [`LinkTable::acquire`] of what answers a frame that came with `link`, which is not made where it is known.
    #[inline]
    pub(crate) fn acquire_reply(&mut self, link: ReceivedLink<'_>) -> Option<LinkId> {
        match self.entries.get_mut(usize::from(self.last)) {
            Some(entry) if entry.users > 0 && link.is_answered_by(&entry.header) => {
                entry.users += 1;
                Some(LinkId(self.last))
            }
            _ => self.acquire(&link.reply()),
        }
    }

    fn add(&mut self, header: LinkHeader) -> Option<u16> {
        let entry = Entry { header, users: 0 };
        let number = if let Some(number) = self.free.pop() {
            self.entries[usize::from(number)] = entry;
            number
        } else {
            let number = u16::try_from(self.entries.len()).ok()?;
            self.entries.push(entry);
            number
        };
        self.numbers.insert(header, number);
        Some(number)
    }

    /// Gives the number back.
    #[inline]
    pub(crate) fn release(&mut self, id: LinkId) {
        let entry = &mut self.entries[usize::from(id.0)];
        entry.users -= 1;
        if entry.users == 0 {
            self.numbers.remove(&entry.header);
            self.free.push(id.0);
        }
    }

    /// The header.
    #[inline]
    pub(crate) fn get(&self, id: LinkId) -> &LinkHeader {
        &self.entries[usize::from(id.0)].header
    }

    /// Headers in use.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(number: u16) -> LinkHeader {
        let [high, low] = number.to_be_bytes();
        LinkHeader::new([2, 0, 0, 0, high, low], [2; 6], true)
    }

    #[test]
    fn one_header_has_one_number_until_its_last_user_is_gone() {
        let mut links = LinkTable::default();
        let first = links.acquire(&header(1)).unwrap();
        assert_eq!(links.acquire(&header(1)), Some(first));
        let second = links.acquire(&header(2)).unwrap();
        assert_ne!(first, second);
        links.release(first);
        assert_eq!(links.get(first), &header(1));
        links.release(first);
        assert_eq!(links.len(), 1);
        let third = links.acquire(&header(3)).unwrap();
        assert_eq!(links.get(third), &header(3));
        assert_eq!(links.get(second), &header(2));
    }

    #[test]
    fn is_bounded() {
        let mut links = LinkTable::default();
        for number in 0..=u16::MAX {
            assert!(links.acquire(&header(number)).is_some());
        }
        let extra = LinkHeader::new([4; 6], [2; 6], true);
        assert!(links.acquire(&extra).is_none());
        assert!(links.acquire(&header(7)).is_some());
    }
}
