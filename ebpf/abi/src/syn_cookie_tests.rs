extern crate std;

use std::vec::Vec;

use super::*;

const KEY: Key = Key(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
const OTHER_KEY: Key = Key(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0909);

const SERVER_V6: [u8; 16] = [0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const CLIENT_V6: [u8; 16] = [0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2];

/// `198.18.0.2:40000` to `198.18.0.1:80`.
fn v4(timestamps: bool) -> Handshake {
    Handshake {
        addresses: Addresses::v4([198, 18, 0, 2], [198, 18, 0, 1]),
        client_port: 40_000,
        server_port: 80,
        client_isn: 0x1234_5678,
        timestamps,
    }
}

/// `[2001:2::1:2]:40000` to `[2001:2::1]:443`.
fn v6(timestamps: bool) -> Handshake {
    Handshake {
        addresses: Addresses::v6(CLIENT_V6, SERVER_V6),
        client_port: 40_000,
        server_port: 443,
        client_isn: 0xfedc_ba98,
        timestamps,
    }
}

fn options(mss_index: u8, window_scale: u8, sack_permitted: bool, ecn: bool) -> Options {
    Options {
        mss_index,
        window_scale,
        sack_permitted,
        ecn,
    }
}

/// Every value the nine bits can have.
fn all_options() -> impl Iterator<Item = Options> {
    (0..1 << 9).map(Options::from_bits)
}

/// The timestamp that the client of `handshake` echoes, if it does timestamps.
fn echo(handshake: &Handshake, cookie: &Cookie, clock_ms: u32) -> Option<u32> {
    handshake.timestamps.then(|| cookie.timestamp(clock_ms))
}

/// SplitMix64, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// Made by an implementation of its own from the description at the head of this module. A change here means that hosts
/// of different versions no longer accept each other's cookies.
#[test]
fn golden_vectors() {
    for (handshake, key_id, options, isn, timestamp, timestamp_at_wrap) in [
        (
            v4(false),
            0,
            options(7, 7, true, false),
            0xba31_2fab,
            4_244_941_636,
            4_243_942_212,
        ),
        (
            v4(true),
            1,
            options(7, 7, true, false),
            0xabeb_bade,
            3_265_043_175,
            3_264_043_751,
        ),
        (
            v4(false),
            1,
            options(1, NO_WINDOW_SCALE, false, false),
            0x32e3_d3b7,
            2_284_249_878,
            2_283_250_454,
        ),
        (
            v6(false),
            1,
            options(7, 14, true, true),
            0x4970_efa1,
            3_207_506_541,
            3_206_507_117,
        ),
        (
            v6(true),
            0,
            options(5, 0, false, true),
            0xa292_6f60,
            138_806_986,
            137_807_562,
        ),
        (
            v6(true),
            1,
            options(0, NO_WINDOW_SCALE, false, false),
            0xdad5_0e62,
            2_766_301_266,
            2_765_301_842,
        ),
    ] {
        let cookie = make(KEY, key_id, &handshake, Content::Options(options));
        assert_eq!(cookie.isn, isn, "{handshake:?}");
        assert_eq!(cookie.timestamp(1_000_000), timestamp, "{handshake:?}");
        assert_eq!(cookie.timestamp(u32::MAX), timestamp_at_wrap, "{handshake:?}");
    }
}

#[test]
fn golden_keys_of_epochs() {
    for (epoch, first, second) in [
        (0, 0x98a0_d3c0_ef55_7701, 0x2fa2_d16f_0e15_bf11),
        (1, 0x8b62_d01d_7ce9_6e82, 0x16b8_78c6_50ca_b9c9),
        (58_000_000, 0x91fe_574b_00e0_1113, 0xcb6e_f5e4_0b7e_0423),
    ] {
        assert_eq!(key_of_epoch(KEY, epoch), Key(first, second), "epoch {epoch}");
    }
}

#[test]
fn every_set_of_options_comes_back_with_both_versions_with_and_without_timestamps() {
    for handshake in [v4(false), v4(true), v6(false), v6(true)] {
        for key_id in [0, 1] {
            for options in all_options() {
                let cookie = make(KEY, key_id, &handshake, Content::Options(options));
                assert_eq!(super::key_id(cookie.isn), key_id);
                let echo = echo(&handshake, &cookie, 1_000_000);
                let checked = check(KEY, &handshake, cookie.isn, echo, Accepted::All).expect("refused");
                assert_eq!(checked.options, options, "{handshake:?}");
            }
        }
    }
}

#[test]
fn whether_there_are_timestamps_is_taken_from_the_acknowledgment() {
    for stamped in [false, true] {
        let cookie = make(KEY, 0, &v4(stamped), Content::Options(options(7, 7, true, true)));
        let echo = echo(&v4(stamped), &cookie, 1_000_000);
        let claimed = v4(!stamped);
        assert!(check(KEY, &claimed, cookie.isn, echo, Accepted::All).is_some());
    }
}

#[test]
fn the_hash_is_of_the_handshake_and_not_of_the_options() {
    let hash = |handshake: &Handshake, options| {
        let cookie = make(KEY, 0, handshake, Content::Options(options));
        check(KEY, handshake, cookie.isn, None, Accepted::All)
            .expect("refused")
            .hash
    };
    let first = hash(&v4(false), options(0, 0, false, false));
    assert_eq!(first, hash(&v4(false), options(7, 14, true, true)));
    assert_ne!(first, hash(&v6(false), options(0, 0, false, false)));
}

/// The handshake with one thing changed.
fn others(handshake: &Handshake) -> Vec<Handshake> {
    let changed = |change: &dyn Fn(&mut Handshake)| {
        let mut other = *handshake;
        change(&mut other);
        other
    };
    let mut others = Vec::from([
        changed(&|other| other.client_port ^= 1),
        changed(&|other| other.server_port ^= 1),
        changed(&|other| core::mem::swap(&mut other.client_port, &mut other.server_port)),
        changed(&|other| other.client_isn ^= 1),
        changed(&|other| other.client_isn ^= 1 << 31),
    ]);
    // Every octet of both addresses counts, and which of them is whose.
    match handshake.addresses {
        Addresses::V4(addresses) => {
            others.push(changed(&|other| {
                other.addresses = Addresses::V4(addresses.rotate_left(32))
            }));
            for octet in 0..8 {
                others.push(changed(&|other| {
                    other.addresses = Addresses::V4(addresses ^ 1 << (8 * octet))
                }));
            }
        }
        Addresses::V6([a, b, c, d]) => {
            others.push(changed(&|other| other.addresses = Addresses::V6([c, d, a, b])));
            for octet in 0..32 {
                let mut addresses = [a, b, c, d];
                addresses[octet / 8] ^= 1 << (8 * (octet % 8));
                others.push(changed(&|other| other.addresses = Addresses::V6(addresses)));
            }
        }
    }
    others
}

#[test]
fn a_cookie_of_another_handshake_is_refused() {
    for handshake in [v4(false), v4(true), v6(false), v6(true)] {
        let cookie = make(KEY, 0, &handshake, Content::Options(options(7, 7, true, false)));
        let echo = echo(&handshake, &cookie, 1_000_000);
        for other in others(&handshake) {
            assert_eq!(check(KEY, &other, cookie.isn, echo, Accepted::All), None, "{other:?}");
        }
    }
}

#[test]
fn a_cookie_of_another_key_is_refused() {
    for handshake in [v4(false), v4(true), v6(false), v6(true)] {
        let cookie = make(OTHER_KEY, 0, &handshake, Content::Options(options(7, 7, true, false)));
        let echo = echo(&handshake, &cookie, 1_000_000);
        assert_eq!(
            check(KEY, &handshake, cookie.isn, echo, Accepted::All),
            None,
            "{handshake:?}"
        );
    }
}

#[test]
fn no_other_options_go_with_the_same_tag() {
    for handshake in [v4(false), v4(true), v6(false), v6(true)] {
        let cookie = make(KEY, 0, &handshake, Content::Options(options(7, 7, true, false)));
        let echo = echo(&handshake, &cookie, 1_000_000);
        for flipped in 1..1 << 9 {
            let isn = cookie.isn ^ flipped << OPTIONS_SHIFT;
            assert_eq!(
                check(KEY, &handshake, isn, echo, Accepted::All),
                None,
                "bits {flipped:#x}: {handshake:?}"
            );
        }
    }
}

#[test]
fn no_bit_of_the_isn_may_be_changed() {
    // Neither of the options nor of the key id nor of the tag.
    for handshake in [v4(false), v4(true), v6(false), v6(true)] {
        for key_id in [0, 1] {
            let cookie = make(KEY, key_id, &handshake, Content::Options(options(7, 7, true, false)));
            let echo = echo(&handshake, &cookie, 1_000_000);
            for bit in 0..32 {
                let isn = cookie.isn ^ 1 << bit;
                assert_eq!(
                    check(KEY, &handshake, isn, echo, Accepted::All),
                    None,
                    "bit {bit}: {handshake:?}"
                );
            }
        }
    }
}

#[test]
fn no_bit_of_the_tag_in_the_echo_may_be_changed_and_the_others_are_the_clocks() {
    for handshake in [v4(true), v6(true)] {
        let cookie = make(KEY, 1, &handshake, Content::Options(options(7, 7, true, false)));
        let echo = cookie.timestamp(1_000_000);
        for bit in 0..32 {
            let genuine = check(KEY, &handshake, cookie.isn, Some(echo ^ 1 << bit), Accepted::All).is_some();
            assert_eq!(genuine, bit >= TIMESTAMP_TAG_BITS, "bit {bit}");
        }
    }
}

#[test]
fn timestamps_can_neither_be_left_out_nor_added() {
    let cookie = make(KEY, 0, &v4(true), Content::Options(options(7, 7, true, false)));
    assert_eq!(check(KEY, &v4(true), cookie.isn, None, Accepted::All), None);
    let cookie = make(KEY, 0, &v4(false), Content::Options(options(7, 7, true, false)));
    for echo in 0..1 << TIMESTAMP_TAG_BITS {
        assert_eq!(check(KEY, &v4(false), cookie.isn, Some(echo), Accepted::All), None);
    }
}

/// The cookie of `epoch`, and what is echoed of it.
fn of_epoch(epoch: u64, handshake: &Handshake) -> (u32, Option<u32>) {
    let (key, key_id) = Keys::new(KEY, epoch, false).current();
    let cookie = make(key, key_id, handshake, Content::Options(options(7, 7, true, false)));
    (cookie.isn, echo(handshake, &cookie, 1_000_000))
}

#[test]
fn cookies_are_accepted_in_their_epoch_and_in_the_next_one() {
    for handshake in [v4(false), v4(true), v6(false), v6(true)] {
        // Even and odd ones, and those where the number wraps.
        for epoch in [58_000_000, 58_000_001, u64::MAX, 0] {
            let (isn, echo) = of_epoch(epoch, &handshake);
            let accepted = |later: u64, next_too| {
                let keys = Keys::new(KEY, epoch.wrapping_add(later), next_too);
                keys.check(&handshake, isn, echo, Accepted::All).is_some()
            };
            assert!(accepted(0, false) && accepted(1, false), "epoch {epoch}");
            for later in 2..10 {
                assert!(
                    !accepted(later, false) && !accepted(later, true),
                    "epoch {epoch} + {later}"
                );
            }
        }
    }
}

#[test]
fn a_cookie_of_the_next_epoch_is_accepted_only_when_clocks_may_differ() {
    for handshake in [v4(false), v4(true), v6(false), v6(true)] {
        for epoch in [58_000_000, 58_000_001, u64::MAX, 0] {
            let accepted = |ahead: u64, next_too| {
                let (isn, echo) = of_epoch(epoch.wrapping_add(ahead), &handshake);
                Keys::new(KEY, epoch, next_too)
                    .check(&handshake, isn, echo, Accepted::All)
                    .is_some()
            };
            assert!(!accepted(1, false) && accepted(1, true), "epoch {epoch}");
            assert!(!accepted(2, false) && !accepted(2, true), "epoch {epoch}");
            // The previous one is accepted beside it.
            let (isn, echo) = of_epoch(epoch.wrapping_sub(1), &handshake);
            assert!(
                Keys::new(KEY, epoch, true)
                    .check(&handshake, isn, echo, Accepted::All)
                    .is_some()
            );
        }
    }
}

#[test]
fn keys_of_epochs_differ_and_are_not_printed() {
    let mut seen = Vec::new();
    for epoch in 0..1000 {
        let Key(first, second) = key_of_epoch(KEY, epoch);
        assert!(!seen.contains(&first) && !seen.contains(&second), "epoch {epoch}");
        seen.extend([first, second]);
    }
    let printed = std::format!("{:?}", Keys::new(KEY, 7, true));
    assert!(printed.contains("Key(..)"), "{printed}");
    let Key(first, second) = key_of_epoch(KEY, 7);
    for secret in [KEY.0, KEY.1, first, second] {
        assert!(!printed.contains(&std::format!("{secret}")), "{printed}");
    }
}

#[test]
fn the_timestamp_is_one_of_the_last_second_and_never_goes_back() {
    let mut random = Random(1);
    for _ in 0..200 {
        let handshake = Handshake {
            client_isn: random.word() as u32,
            ..v4(true)
        };
        let cookie = make(KEY, 0, &handshake, Content::Options(options(7, 7, true, false)));
        // The flow's own clock, as far as it can be seen: what its timestamps are at most.
        let clock = |clock_ms: u32| clock_ms.wrapping_add(cookie.clock_offset);
        let start = random.word() as u32;
        let mut last = cookie.timestamp(start);
        for elapsed in 0..3000 {
            let now = start.wrapping_add(elapsed);
            let timestamp = cookie.timestamp(now);
            let behind = clock(now).wrapping_sub(timestamp);
            assert!(behind < 1 << TIMESTAMP_TAG_BITS, "{behind} ms behind the clock");
            assert!(
                timestamp.wrapping_sub(last) < 1 << 31,
                "goes back from {last} to {timestamp}"
            );
            last = timestamp;
        }
    }
}

#[test]
fn timestamps_go_on_over_the_wrap_of_the_clock() {
    let cookie = make(KEY, 0, &v6(true), Content::Options(options(7, 7, true, false)));
    let before = cookie.timestamp(u32::MAX - 2000);
    let mut last = before;
    for elapsed in 0..6000_u32 {
        let timestamp = cookie.timestamp((u32::MAX - 2000).wrapping_add(elapsed));
        let step = timestamp.wrapping_sub(last);
        assert!(step == 0 || step == 1 << TIMESTAMP_TAG_BITS, "a step of {step} ms");
        last = timestamp;
    }
    let passed = last.wrapping_sub(before);
    assert!((5000..7000).contains(&passed), "{passed} ms in 6 s");
}

#[test]
fn the_clocks_of_two_flows_cannot_be_compared() {
    let mut values: Vec<u32> = (0..10)
        .map(|port| {
            let handshake = Handshake {
                client_port: port,
                ..v4(true)
            };
            make(KEY, 0, &handshake, Content::Options(options(7, 7, true, false))).timestamp(1_000_000)
        })
        .collect();
    values.sort_unstable();
    assert!(values.windows(2).all(|pair| pair[1] - pair[0] > 1024), "{values:?}");
}

#[test]
fn the_mss_is_the_largest_of_the_table_that_the_client_takes() {
    for table in [MSS_V4, MSS_V6] {
        assert!(table.is_sorted() && table[0] < table[1]);
        for (index, &mss) in table.iter().enumerate() {
            let index = index as u8;
            assert_eq!(mss_index(&table, mss), index);
            assert_eq!(mss_index(&table, mss + 1), index);
            assert_eq!(mss_index(&table, mss - 1), index.saturating_sub(1));
        }
        assert_eq!(mss_index(&table, 0), 0);
        assert_eq!(mss_index(&table, u16::MAX), 7);
    }
}

/// Guesses of a cookie for one handshake: how many of `tries` hit.
fn hits(tries: u32, stamped: bool) -> u32 {
    let (mut random, handshake) = (Random(1), v4(stamped));
    let hit = |word: u64| {
        let echo = stamped.then_some((word >> 32) as u32);
        check(KEY, &handshake, word as u32, echo, Accepted::All).is_some()
    };
    (0..tries).map(|_| u32::from(hit(random.word()))).sum()
}

#[test]
fn without_timestamps_one_guess_in_four_million_hits() {
    // 2^24 tries against 22 bits: 4 are to be expected.
    let hits = hits(1 << 24, false);
    assert!((1..=16).contains(&hits), "{hits} of 2^24 guesses were right");
}

#[test]
fn with_timestamps_no_guess_of_sixteen_million_hits() {
    // 2^24 tries against 32 bits: 0.004 are to be expected.
    let hits = hits(1 << 24, true);
    assert_eq!(hits, 0, "of 2^24 guesses");
}

/// As [`golden_vectors`], of strong cookies.
#[test]
fn golden_vectors_of_strong_cookies() {
    for (handshake, key_id, mss_index, isn) in [
        (v4(false), 0, 0, 0xdf89_0f22),
        (v4(false), 0, 7, 0x2284_7f47),
        (v4(false), 1, 3, 0x5bd5_eecf),
        (v4(false), 1, 5, 0x9c59_faa2),
        (v6(false), 0, 3, 0xd902_b0b5),
        (v6(false), 0, 5, 0x1913_3f68),
        (v6(false), 1, 0, 0x7dcc_fd10),
        (v6(false), 1, 7, 0xbfeb_ac35),
    ] {
        let cookie = make(KEY, key_id, &handshake, Content::Mss(mss_index));
        assert_eq!(cookie.isn, isn, "{handshake:?}");
    }
}

#[test]
fn a_strong_cookie_brings_the_next_smaller_mss_it_knows_back_and_nothing_else() {
    for (handshake, table) in [(v4(false), MSS_V4), (v6(false), MSS_V6)] {
        let known = [table[0], table[2], table[4], table[6]];
        for mss in 0..=u16::MAX {
            let content = Content::Mss(mss_index(&table, mss));
            let key_id = u32::from(mss) & 1;
            let cookie = make(KEY, key_id, &handshake, content);
            assert_eq!(super::key_id(cookie.isn), key_id);
            for accepted in [Accepted::All, Accepted::Strong] {
                let options = check(KEY, &handshake, cookie.isn, None, accepted)
                    .expect("refused")
                    .options;
                let next_smaller = known.into_iter().rfind(|&known| known <= mss).unwrap_or(known[0]);
                assert_eq!(table[usize::from(options.mss_index)], next_smaller, "MSS {mss}");
                assert_eq!(options, Options::only_mss(options.mss_index));
            }
        }
    }
}

#[test]
fn where_strong_ones_are_accepted_no_other_is_without_timestamps() {
    for handshake in [v4(false), v4(true), v6(false), v6(true)] {
        for options in all_options() {
            let cookie = make(KEY, 1, &handshake, Content::Options(options));
            let echo = echo(&handshake, &cookie, 1_000_000);
            let checked = |accepted| check(KEY, &handshake, cookie.isn, echo, accepted).map(|checked| checked.options);
            assert_eq!(checked(Accepted::All), Some(options), "{handshake:?}");
            let with_timestamps = handshake.timestamps.then_some(options);
            assert_eq!(checked(Accepted::Strong), with_timestamps, "{handshake:?}");
        }
    }
}

#[test]
fn a_strong_cookie_has_no_timestamps() {
    for handshake in [v4(false), v6(false)] {
        let cookie = make(KEY, 0, &handshake, Content::Mss(7));
        for echo in 0..1 << TIMESTAMP_TAG_BITS {
            for accepted in [Accepted::All, Accepted::Strong] {
                assert_eq!(check(KEY, &handshake, cookie.isn, Some(echo), accepted), None);
            }
        }
    }
}

#[test]
fn a_strong_cookie_of_another_handshake_or_key_is_refused() {
    for handshake in [v4(false), v6(false)] {
        let cookie = make(KEY, 0, &handshake, Content::Mss(7));
        for accepted in [Accepted::All, Accepted::Strong] {
            for other in others(&handshake) {
                assert_eq!(check(KEY, &other, cookie.isn, None, accepted), None, "{other:?}");
            }
            assert_eq!(check(OTHER_KEY, &handshake, cookie.isn, None, accepted), None);
        }
    }
}

#[test]
fn no_bit_of_a_strong_cookie_may_be_changed() {
    for handshake in [v4(false), v6(false)] {
        for (key_id, mss_index) in [(0, 0), (0, 7), (1, 2), (1, 5)] {
            let cookie = make(KEY, key_id, &handshake, Content::Mss(mss_index));
            for bit in 0..32 {
                for accepted in [Accepted::All, Accepted::Strong] {
                    let changed = check(KEY, &handshake, cookie.isn ^ 1 << bit, None, accepted);
                    assert_eq!(changed, None, "bit {bit}: {handshake:?}");
                }
            }
        }
    }
}

/// Of the 2^9 values of the bits above the key id one goes with the rest, and of the 2^22 of those below it one goes
/// with the others: nothing is left to guess but the MSS and the key id, which makes 29 bits.
#[test]
fn of_each_part_of_a_strong_cookie_one_value_is_right() {
    for handshake in [v4(false), v6(false)] {
        let cookie = make(KEY, 1, &handshake, Content::Mss(7));
        let right = |isn| check(KEY, &handshake, isn, None, Accepted::Strong).is_some();
        let above = |bits: u32| bits << OPTIONS_SHIFT | cookie.isn & !(u32::MAX << OPTIONS_SHIFT);
        assert_eq!((0..1 << 9).filter(|&bits| right(above(bits))).count(), 1);
        let below = |bits: u32| bits | cookie.isn & !ISN_TAG;
        assert_eq!((0..1 << ISN_TAG_BITS).filter(|&bits| right(below(bits))).count(), 1);
    }
}

#[test]
fn of_strong_cookies_hardly_a_guess_of_67_million_hits() {
    // 2^26 tries against 29 bits: an eighth is to be expected, and with five bits less four.
    let (mut random, handshake) = (Random(2), v4(false));
    let hit = |isn| check(KEY, &handshake, isn, None, Accepted::Strong).is_some();
    let hits: u32 = (0..1 << 26).map(|_| u32::from(hit(random.word() as u32))).sum();
    assert!(hits <= 1, "{hits} of 2^26 guesses were right");
}

#[test]
fn the_tag_of_a_strong_cookie_is_that_of_no_options() {
    for handshake in [v4(false), v6(false)] {
        for mss_index in [0, 2, 4, 6] {
            let strong = make(KEY, 0, &handshake, Content::Mss(mss_index));
            for options in all_options() {
                let usual = make(KEY, 0, &handshake, Content::Options(options));
                assert_ne!(strong.isn & ISN_TAG, usual.isn & ISN_TAG, "{options:?}");
            }
        }
    }
}
