use super::*;

const FLOOD_V4: Flood = Flood {
    source: [0xc613_0000, 0, 0, 0],
    source_mask: [0xffff_0000, 0, 0, 0],
    target: [0xc612_0001, 0, 0, 0],
    target_mask: [u32::MAX, 0, 0, 0],
    interface: 1,
    version: 4,
    kind: kind::SYN,
    target_port: 80,
    target_mac: [2, 0, 0, 0, 0, 1],
    source_mac: [2, 0, 0, 0, 0, 2],
    reserved: 0,
};

const FLOOD_V6: Flood = Flood {
    source: [0x2001_0002, 0x0000_8000, 0, 0],
    source_mask: [u32::MAX, 0xffff_8000, 0, 0],
    target: [0x2001_0002, 0, 0, 1],
    target_mask: [u32::MAX; 4],
    version: 6,
    ..FLOOD_V4
};

const KINDS: u32 = kind::COUNT + 1;

#[test]
fn sources_stay_within_the_prefix_and_spread() {
    let mut random = Random(1);
    let mut seen = 0;
    for _ in 0..10_000 {
        let packet = ipv4(&FLOOD_V4, &mut random).expect("a packet");
        assert_eq!(packet.ip[3] >> 16, 0xc613);
        assert_eq!(packet.ip[4], 0xc612_0001);
        seen |= packet.ip[3];
        let packet = ipv6(&FLOOD_V6, &mut random).expect("a packet");
        assert_eq!((packet.ip[2], packet.ip[3] & 0xffff_8000), (0x2001_0002, 0x8000));
        assert_eq!(packet.ip[6..], FLOOD_V6.target);
    }
    assert_eq!(seen, 0xc613_ffff);
}

#[test]
fn targets_stay_within_the_prefix_and_spread() {
    let carpet_v4 = Flood {
        target: [0xc612_0100, 0, 0, 0],
        target_mask: [0xffff_ff00, 0, 0, 0],
        ..FLOOD_V4
    };
    let carpet_v6 = Flood {
        target: [0x2001_0002, 1, 0, 0],
        target_mask: [u32::MAX, u32::MAX, 0, 0],
        ..FLOOD_V6
    };
    let mut random = Random(1);
    let mut seen = [0; 3];
    for _ in 0..10_000 {
        let packet = ipv4(&carpet_v4, &mut random).expect("a packet");
        assert_eq!(packet.ip[4] & 0xffff_ff00, 0xc612_0100);
        seen[0] |= packet.ip[4];
        let packet = ipv6(&carpet_v6, &mut random).expect("a packet");
        assert_eq!(packet.ip[6..8], [0x2001_0002, 1]);
        seen[1] |= packet.ip[8];
        seen[2] |= packet.ip[9];
    }
    assert_eq!(seen, [0xc612_01ff, u32::MAX, u32::MAX]);
}

#[test]
fn addresses_outside_of_the_benchmarks_ranges_make_no_packet() {
    let mut random = Random(1);
    for flood in [
        Flood::default(),
        Flood {
            source: [0x0a00_0000, 0, 0, 0],
            ..FLOOD_V4
        },
        Flood {
            target: [0x0a00_0001, 0, 0, 0],
            ..FLOOD_V4
        },
        // From everywhere: one in 2^15 would be in the range.
        Flood {
            target_mask: [0; 4],
            ..FLOOD_V4
        },
    ] {
        assert_eq!(ipv4(&flood, &mut random), None);
    }
    for flood in [
        Flood::default(),
        Flood {
            source: [0xfd00_0000, 0, 0, 0],
            ..FLOOD_V6
        },
        Flood {
            target: [0xfd00_0000, 0, 0, 1],
            ..FLOOD_V6
        },
        Flood {
            target_mask: [u32::MAX, 0, 0, 0],
            ..FLOOD_V6
        },
    ] {
        assert_eq!(ipv6(&flood, &mut random), None);
    }
}

#[test]
fn frames_have_a_length_that_ethernet_and_the_program_allow() {
    let mut random = Random(2);
    for kind in 0..KINDS {
        for _ in 0..1000 {
            let packet = ipv4(&Flood { kind, ..FLOOD_V4 }, &mut random).expect("a packet");
            assert!((MIN_FRAME..=MAX_FRAME_V4).contains(&packet.frame_length));
            assert!(packet.frame_length >= ETHERNET_HEADER + (packet.ip[0] & 0xffff) as usize);
            let packet = ipv6(&Flood { kind, ..FLOOD_V6 }, &mut random).expect("a packet");
            assert!((MIN_FRAME..=MAX_FRAME_V6).contains(&packet.frame_length));
        }
    }
}

#[test]
fn each_kind_has_its_control_bits() {
    let mut random = Random(3);
    for (kind, bits) in [
        (kind::SYN, SYN),
        (kind::ACK, ACK),
        (kind::RST, RST),
        (kind::FIN, FIN | ACK),
        (kind::SYN_ACK, SYN | ACK),
        (kind::SYN_DATA, SYN),
    ] {
        for _ in 0..1000 {
            let packet = ipv4(&Flood { kind, ..FLOOD_V4 }, &mut random).expect("a packet");
            assert_eq!(packet.ip[2] >> 16 & 0xff, TCP);
            assert_eq!(packet.transport[3] & (FIN | SYN | RST | ACK), bits);
            assert!(packet.transport[0] >> 16 >= FIRST_PORT);
            assert_eq!(packet.transport[0] & 0xffff, 80);
        }
    }
    let flood = Flood {
        kind: kind::UDP,
        ..FLOOD_V4
    };
    let packet = ipv4(&flood, &mut random).expect("a packet");
    assert_eq!(packet.ip[2] >> 16 & 0xff, UDP);
}

#[test]
fn a_mix_has_every_kind() {
    let mut random = Random(4);
    let flood = Flood {
        kind: kind::MIX,
        ..FLOOD_V4
    };
    let (mut datagrams, mut fragments, mut with_text) = (0, 0, 0);
    let mut bits = [0; 5];
    for _ in 0..8000 {
        let packet = ipv4(&flood, &mut random).expect("a packet");
        if packet.ip[2] >> 16 & 0xff == UDP {
            datagrams += 1;
            continue;
        }
        if packet.ip[1] & DONT_FRAGMENT == 0 {
            fragments += 1;
            continue;
        }
        if (packet.ip[0] & 0xffff) - 20 > packet.transport[3] >> 28 << 2 {
            with_text += 1;
            continue;
        }
        let found = [SYN, ACK, RST, FIN | ACK, SYN | ACK]
            .iter()
            .position(|&known| known == packet.transport[3] & (FIN | SYN | RST | ACK))
            .expect("one of the kinds");
        bits[found] += 1;
    }
    for count in [datagrams, fragments, with_text].into_iter().chain(bits) {
        assert!(
            (700..1300).contains(&count),
            "{datagrams} {fragments} {with_text} {bits:?}"
        );
    }
}

#[test]
fn syns_with_text_have_some_behind_options_that_are_whole() {
    let mut random = Random(6);
    let flood = Flood {
        kind: kind::SYN_DATA,
        ..FLOOD_V4
    };
    let mut lengths = [0; 2];
    for _ in 0..1000 {
        let packet = ipv4(&flood, &mut random).expect("a packet");
        let header = (packet.transport[3] >> 28 << 2) as usize;
        let text = (packet.ip[0] & 0xffff) as usize - 20 - header;
        match (header - 20, text) {
            (12, 12) => lengths[0] += 1,
            (20, 4) => lengths[1] += 1,
            other => panic!("{other:?}"),
        }
        assert_ne!(packet.transport[header / 4], 0);
    }
    assert!(lengths.iter().all(|&count| count > 300), "{lengths:?}");
}

#[test]
fn fragments_are_first_ones_with_a_header_and_later_ones_of_both_kinds() {
    let mut random = Random(7);
    let flood = |of| Flood {
        kind: kind::FRAGMENT,
        ..of
    };
    let mut counts = [[0; 3]; 2];
    for _ in 0..4000 {
        let v4 = ipv4(&flood(FLOOD_V4), &mut random).expect("a packet");
        assert_eq!((v4.ip[0] & 0xffff, v4.ip[2] >> 16 & 0xff), (20 + FRAGMENT, TCP));
        let (offset, more) = (v4.ip[1] & 0x1fff, v4.ip[1] & MORE_FRAGMENTS != 0);
        let v6 = ipv6(&flood(FLOOD_V6), &mut random).expect("a packet");
        assert_eq!((v6.ip[1] >> 16, v6.ip[1] >> 8 & 0xff), (8 + FRAGMENT, IPV6_FRAGMENT));
        let header = v6.transport[0];
        assert_eq!((header >> 24, header >> 16 & 0xff, header & 6), (TCP, 0, 0));
        for (family, offset, more, words) in [
            (0, offset, more, &v4.transport[..]),
            (1, (header & 0xffff) >> 3, header & 1 != 0, &v6.transport[2..]),
        ] {
            if offset == 0 {
                assert!(more);
                assert_eq!((words[0] & 0xffff, words[3] >> 28), (80, 5));
                assert!([SYN, ACK].contains(&(words[3] & (FIN | SYN | RST | ACK))));
            } else {
                assert!(8 * offset >= FRAGMENT && 8 * offset + FRAGMENT <= 0xffff);
            }
            counts[family][if offset == 0 { 0 } else { 1 + usize::from(more) }] += 1;
        }
    }
    for [first, last, within] in counts {
        assert!(
            (1800..2200).contains(&first) && last > 800 && within > 800,
            "{counts:?}"
        );
    }
}

#[test]
fn checksums_make_the_sum_zero() {
    let mut random = Random(5);
    for kind in 0..KINDS {
        for _ in 0..1000 {
            let packet = ipv4(&Flood { kind, ..FLOOD_V4 }, &mut random).expect("a packet");
            let header: u64 = packet.ip.iter().copied().map(u64::from).sum();
            assert_eq!(checksum(header), 0);
            if packet.ip[1] & DONT_FRAGMENT == 0 {
                continue;
            }
            let words: u64 = packet.transport.iter().copied().map(u64::from).sum();
            let length = (packet.ip[0] & 0xffff) - 20;
            let pseudo = u64::from(packet.ip[3])
                + u64::from(packet.ip[4])
                + u64::from(packet.ip[2] >> 16 & 0xff)
                + u64::from(length);
            assert_eq!(checksum(words + pseudo), 0);
        }
    }
}
