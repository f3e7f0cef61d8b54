//! Small cases of what shards do at the same time, in every order of their steps, and with all that the memory model
//! allows each to see of the others.

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;
use tidegate_abi::flow_filter::{FlowHash, FlowHasher, RANDOM_WORDS, handshake};

use crate::flow_filter::{Bucket, Handshake};
use crate::handover::{Exchange, Handover, Outcome};
use crate::mailbox::Mailbox;
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering, Waker};

/// Runs `case` in every order in which a thread is interrupted at most `preemptions` times, besides where it waits.
fn check(preemptions: usize, case: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(case);
}

/// A shard that takes `count` commands, and sleeps whenever there is none.
fn take_commands(mailbox: &Mailbox<u32>, count: usize) -> Vec<u32> {
    let mut taken = Vec::new();
    while taken.len() < count {
        match mailbox.take() {
            Some(command) => taken.push(command),
            None => {
                mailbox
                    .bell()
                    .sleep((), |()| mailbox.is_empty(), |()| mailbox.bell().wait());
            }
        }
    }
    taken
}

#[test]
fn no_command_leaves_a_shard_asleep() {
    check(3, || {
        let mailbox = Arc::new(Mailbox::new(Waker::new()));
        let senders = [1, 2].map(|command| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.send(command).expect("room"))
        });
        let mut taken = take_commands(&mailbox, 2);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        for sender in senders {
            sender.join().expect("it has not panicked");
        }
    });
}

/// A shard as far as hand-over is concerned.
struct Shard {
    exchange: std::sync::Arc<Exchange<u32>>,
    handover: Handover<u32>,
    mailboxes: Arc<Vec<Mailbox<()>>>,
    me: usize,
}

impl Shard {
    fn all(count: u16, room: usize, frames: usize) -> Vec<Self> {
        let exchange = std::sync::Arc::new(Exchange::new(count, room, frames));
        let mailboxes = Arc::new((0..count).map(|_| Mailbox::new(Waker::new())).collect());
        (0..count)
            .map(|me| Self {
                exchange: std::sync::Arc::clone(&exchange),
                handover: Handover::new(std::sync::Arc::clone(&exchange), me),
                mailboxes: Arc::clone(&mailboxes),
                me: usize::from(me),
            })
            .collect()
    }

    fn wake_others(&mut self) {
        let to_wake = self.handover.take_to_wake();
        for (shard, mailbox) in self.mailboxes.iter().enumerate() {
            if to_wake >> shard & 1 != 0 {
                mailbox.bell().ring();
            }
        }
    }

    fn sleep(&self) {
        let bell = self.mailboxes[self.me].bell();
        bell.sleep((), |()| !self.handover.is_waiting(), |()| bell.wait());
    }

    /// Sends `segments` to all others. Returns those that came home, and those for which there was no room.
    fn send_and_wait(mut self, segments: u32) -> (Vec<(u32, Outcome)>, u32) {
        let refused = (0..segments)
            .filter(|&segment| self.handover.send(segment, u64::MAX, 0).is_err())
            .count() as u32;
        self.wake_others();
        let mut home = Vec::new();
        while home.len() < (segments - refused) as usize {
            match self.handover.returned() {
                Some(returned) => home.push(returned),
                None => self.sleep(),
            }
        }
        (home, refused)
    }

    /// Looks at `count` segments of others, and takes in all or none.
    fn serve(mut self, count: u64, takes: bool) {
        let mut served = 0;
        while served < count {
            let segments = self.handover.serve(1, |_| takes).segments;
            self.wake_others();
            if segments == 0 {
                self.sleep();
            }
            served += segments;
        }
    }
}

#[test]
fn a_segment_visits_its_owner_and_its_frame_comes_home() {
    check(3, || {
        let mut shards = Shard::all(2, 4, 4);
        let (owner, origin) = (shards.remove(1), shards.remove(0));
        let owner = thread::spawn(move || owner.serve(2, true));
        let (home, refused) = origin.send_and_wait(2);
        assert_eq!(home, [(0, Outcome::Taken), (1, Outcome::Taken)]);
        assert_eq!(refused, 0);
        owner.join().expect("it has not panicked");
    });
}

#[test]
fn what_nobody_knows_comes_home_from_the_last_that_was_asked() {
    check(2, || {
        let mut shards = Shard::all(3, 1, 1);
        let others = [2, 1].map(|shard| {
            let shard = shards.remove(shard);
            thread::spawn(move || shard.serve(1, false))
        });
        let (home, refused) = shards.remove(0).send_and_wait(1);
        assert_eq!((home, refused), (vec![(0, Outcome::Unowned)], 0));
        for other in others {
            other.join().expect("it has not panicked");
        }
    });
}

#[test]
fn no_frame_is_lost_where_there_is_no_room() {
    check(3, || {
        let mut shards = Shard::all(2, 1, 2);
        let (owner, mut origin) = (shards.remove(1), shards.remove(0));
        // The second finds room if the first is taken out before it arrives.
        let owner = thread::spawn(move || owner.serve(1, true));
        let sent = [0, 1].map(|segment| {
            let sent = origin.handover.send(segment, u64::MAX, 0);
            origin.wake_others();
            sent
        });
        assert_eq!(sent[0], Ok(()));
        owner.join().expect("it has not panicked");
        assert_eq!(origin.handover.returned(), Some((0, Outcome::Taken)));
        assert_eq!(origin.handover.returned(), None);
        // It is at the owner, or was given back.
        let waiting = Handover::new(origin.exchange, 1).serve(2, |_| true).segments;
        assert_eq!(waiting, u64::from(sent[1].is_ok()));
    });
}

/// The memory of a bucket.
struct BucketMemory {
    words: Vec<AtomicU32>,
    count: AtomicU8,
}

impl BucketMemory {
    /// With room for `entries` entries.
    fn new(entries: usize) -> Arc<Self> {
        Arc::new(Self {
            words: (0..1 + entries).map(|_| AtomicU32::new(0)).collect(),
            count: AtomicU8::new(0),
        })
    }

    fn bucket(&self) -> Bucket<'_> {
        Bucket::new(&self.words, &self.count)
    }

    fn assert_empty(&self) {
        for (index, word) in self.words.iter().enumerate() {
            assert_eq!(word.load(Ordering::Relaxed), 0, "word {index}");
        }
        assert_eq!(self.count.load(Ordering::Relaxed), 0, "the count");
    }
}

fn hasher() -> FlowHasher {
    FlowHasher::new(0, [0x9e37_79b9_7f4a_7c15; RANDOM_WORDS])
}

/// Two shards have a flow each for a while, and a third one has one all the time. With room for one, two or three
/// entries.
#[test]
fn a_flow_is_seen_all_the_time_whoever_else_comes_and_goes() {
    for entries in 1..=3 {
        check(3, move || {
            let hasher = hasher();
            let flow = |number| hasher.fingerprint(hasher.v4(number, 2, 3));
            let memory = BucketMemory::new(entries);
            let standing = flow(7);
            memory.bucket().insert(standing.entry(2));
            let shards = [0, 1].map(|shard| {
                let (memory, entry) = (Arc::clone(&memory), flow(u32::from(shard)).entry(shard));
                thread::spawn(move || {
                    let bucket = memory.bucket();
                    bucket.insert(entry);
                    bucket.remove(entry);
                })
            });
            let bucket = memory.bucket();
            let owners = bucket.owners(standing);
            assert!(
                owners == 1 << 2 || owners == u64::MAX,
                "{owners:b}: lost, or somebody's who never had it"
            );
            let (count, without_room) = (
                bucket.count.load(Ordering::Acquire),
                bucket.without_room.load(Ordering::Acquire),
            );
            assert!(
                (1..=3).contains(&count) && without_room <= 2,
                "{count} counted, {without_room} without room"
            );
            for shard in shards {
                shard.join().expect("it has not panicked");
            }
            assert_eq!(bucket.owners(standing), 1 << 2);
            bucket.remove(standing.entry(2));
            memory.assert_empty();
        });
    }
}

/// The second flow of a fingerprint finds no room, and when it ends, the entry of the first goes: which from then on is
/// the one that is counted.
#[test]
fn a_flow_whose_entry_goes_with_another_of_its_fingerprint_is_still_suspected() {
    check(4, || {
        let hasher = hasher();
        let flow = hasher.fingerprint(hasher.v4(1, 2, 3));
        let memory = BucketMemory::new(1);
        memory.bucket().insert(flow.entry(1));
        let owner = thread::spawn({
            let memory = Arc::clone(&memory);
            move || {
                let bucket = memory.bucket();
                bucket.insert(flow.entry(1));
                bucket.remove(flow.entry(1));
            }
        });
        let bucket = memory.bucket();
        assert_ne!(bucket.owners(flow) & 1 << 1, 0);
        assert!(bucket.count.load(Ordering::Acquire) > 0, "it passes for empty");
        owner.join().expect("it has not panicked");
        assert_eq!(bucket.owners(flow), u64::MAX);
        bucket.remove(flow.entry(1));
        memory.assert_empty();
    });
}

/// Two shards have a flow of the same fingerprint, and each takes out its own.
#[test]
fn shards_take_out_no_entry_but_their_own() {
    check(3, || {
        let hasher = hasher();
        let flow = hasher.fingerprint(hasher.v4(1, 2, 3));
        let memory = BucketMemory::new(2);
        let shards = [0, 1].map(|shard| {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                let bucket = memory.bucket();
                bucket.insert(flow.entry(shard));
                assert_ne!(bucket.owners(flow) & 1 << shard, 0);
                bucket.remove(flow.entry(shard));
                assert_eq!(bucket.owners(flow) & 1 << shard, 0);
            })
        });
        for shard in shards {
            shard.join().expect("it has not panicked");
        }
        memory.assert_empty();
    });
}

/// The XDP program's part for an acknowledgment of a genuine cookie on `queue` (`ebpf/src/flow_filter.rs`).
fn note_cookie(slot: &AtomicU64, hash: FlowHash, queue: u32, tick: u16) {
    let entry = slot.load(Ordering::Relaxed);
    if !handshake::holds(entry, tick) {
        let _ = slot.compare_exchange(
            entry,
            handshake::entry(hash, queue, tick),
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
    }
}

/// The acknowledgment arrives on two queues at once, while the connection that had the slot long ago ends.
#[test]
fn a_handshake_has_one_owner_however_often_its_acknowledgment_arrives() {
    const TICK: u16 = 1000;
    check(4, || {
        let hasher = hasher();
        let (hash, before) = (hasher.v4(1, 2, 3), hasher.v4(4, 5, 6));
        let slot = Arc::new(AtomicU64::new(handshake::entry(before, 0, TICK - 500)));
        let queues = [0, 1].map(|queue| {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                note_cookie(&slot, hash, queue, TICK);
                Handshake { slot: &slot, hash }.owner()
            })
        });
        Handshake {
            slot: &slot,
            hash: before,
        }
        .end(0);
        let owners = queues.map(|queue| queue.join().expect("it has not panicked"));
        let last = Handshake { slot: &slot, hash }.owner();
        // None where the slot was cleared between look and entry: then the cookie's hash says whose it is.
        for owner in owners.into_iter().flatten() {
            assert_eq!(Some(owner), last, "{owners:?}");
        }
    });
}
