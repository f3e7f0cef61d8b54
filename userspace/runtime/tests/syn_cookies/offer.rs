//! Offers in the options of SYNs.

/// TSval of [`mixes`].
const TIMESTAMP: u32 = 0x0102_0304;

/// The largest shift (RFC 7323, section 2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// Options that the program looks at, padding included; it leaves alone what follows.
const MAX_OPTIONS: usize = 40;

/// Kinds of options (RFC 9293, section 3.2).
pub(crate) const END: u8 = 0;
pub(crate) const NOP: u8 = 1;

/// The offer of a SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) mss: Option<u16>,
    /// At most 14.
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    /// TSval.
    pub(crate) timestamp: Option<u32>,
    /// ECN is asked for, by the control bits, and we agree to it.
    pub(crate) ecn: bool,
}

impl Offer {
    /// Reads the options of a header. `None`: one has an impossible length.
    pub(crate) fn read(options: &[u8]) -> Option<Self> {
        let mut offer = Self::default();
        let mut rest = options;
        for _ in 0..MAX_OPTIONS {
            match *rest {
                [] | [END, ..] => break,
                [NOP, ..] => rest = &rest[1..],
                [_, length, ..] if (2..=rest.len()).contains(&usize::from(length)) => {
                    let (option, behind) = rest.split_at(usize::from(length));
                    offer.take(option);
                    rest = behind;
                }
                _ => return None,
            }
        }
        Some(offer)
    }

    /// The part of it that a strong cookie takes up.
    pub(crate) fn only_mss(self) -> Self {
        Self {
            mss: self.mss,
            ..Self::default()
        }
    }

    fn take(&mut self, option: &[u8]) {
        match *option {
            [2, 4, high, low] => self.mss = Some(u16::from_be_bytes([high, low])),
            [3, 3, shift] => self.window_scale = Some(shift.min(MAX_WINDOW_SCALE)),
            [4, 2] => self.sack_permitted = true,
            [8, 10, a, b, c, d, ..] => self.timestamp = Some(u32::from_be_bytes([a, b, c, d])),
            _ => {}
        }
    }
}

/// The options of a SYN, and what they offer.
pub(crate) struct Mix {
    pub(crate) what: &'static str,
    pub(crate) options: Vec<u8>,
    pub(crate) offer: Offer,
}

fn mix(what: &'static str, options: &[&[u8]], offer: Offer) -> Mix {
    Mix {
        what,
        options: options.concat(),
        offer,
    }
}

/// Mixes of options as systems send them, and as nobody does.
pub(crate) fn mixes() -> Vec<Mix> {
    const MSS: [u8; 4] = [2, 4, 0x05, 0xb4];
    const SCALE: [u8; 3] = [3, 3, 7];
    const SACK: [u8; 2] = [4, 2];
    const STAMP: [u8; 10] = [8, 10, 1, 2, 3, 4, 0, 0, 0, 0];
    const PAD: [u8; 1] = [NOP];

    const NOTHING: Offer = Offer {
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamp: None,
        ecn: false,
    };
    const ONLY_MSS: Offer = Offer {
        mss: Some(1460),
        ..NOTHING
    };
    const ONLY_SCALE: Offer = Offer {
        window_scale: Some(7),
        ..NOTHING
    };
    const ONLY_SACK: Offer = Offer {
        sack_permitted: true,
        ..NOTHING
    };
    const ONLY_STAMP: Offer = Offer {
        timestamp: Some(TIMESTAMP),
        ..NOTHING
    };
    const NO_STAMP: Offer = Offer {
        window_scale: Some(7),
        sack_permitted: true,
        ..ONLY_MSS
    };
    const ALL: Offer = Offer {
        timestamp: Some(TIMESTAMP),
        ..NO_STAMP
    };
    const NO_MSS: Offer = Offer { mss: None, ..ALL };

    vec![
        mix("none", &[], NOTHING),
        mix("Linux", &[&MSS, &SACK, &STAMP, &PAD, &SCALE], ALL),
        mix(
            "Linux without timestamps",
            &[&MSS, &PAD, &PAD, &SACK, &PAD, &SCALE],
            NO_STAMP,
        ),
        mix("Windows", &[&MSS, &PAD, &SCALE, &PAD, &PAD, &SACK], NO_STAMP),
        mix("macOS", &[&MSS, &PAD, &SCALE, &PAD, &PAD, &STAMP, &SACK, &[END]], ALL),
        mix("FreeBSD", &[&MSS, &PAD, &SCALE, &SACK, &STAMP], ALL),
        mix("MSS only", &[&MSS], ONLY_MSS),
        mix("window scale only", &[&SCALE], ONLY_SCALE),
        mix("SACK-permitted only", &[&SACK], ONLY_SACK),
        mix("timestamps only", &[&STAMP], ONLY_STAMP),
        mix("window scale and room for an MSS", &[&SCALE, &PAD, &PAD], ONLY_SCALE),
        mix(
            "SACK-permitted and window scale",
            &[&SACK, &SCALE],
            Offer { mss: None, ..NO_STAMP },
        ),
        mix(
            "timestamps and window scale",
            &[&STAMP, &SCALE],
            Offer {
                sack_permitted: false,
                ..NO_MSS
            },
        ),
        mix(
            "timestamps and SACK-permitted",
            &[&STAMP, &SACK],
            Offer {
                window_scale: None,
                ..NO_MSS
            },
        ),
        mix(
            "timestamps and MSS",
            &[&STAMP, &MSS],
            Offer {
                mss: Some(1460),
                ..ONLY_STAMP
            },
        ),
        mix("all without MSS", &[&SCALE, &SACK, &STAMP], NO_MSS),
        mix("all, the other way round", &[&SCALE, &STAMP, &SACK, &MSS], ALL),
        mix("all, out of alignment", &[&PAD, &SCALE, &MSS, &PAD, &STAMP, &SACK], ALL),
        mix("all without padding", &[&MSS, &SCALE, &SACK, &STAMP], ALL),
        mix("padding only", &[&[NOP; 8]], NOTHING),
        mix("an early end", &[&MSS, &[END], &SCALE, &SACK, &STAMP], ONLY_MSS),
        mix("the end at the beginning", &[&[END], &MSS, &SCALE], NOTHING),
        mix("nonsense behind the end", &[&MSS, &[END, 2, 0, 8]], ONLY_MSS),
        mix(
            "unknown ones between",
            &[&[253, 4, 0xf9, 0x89], &MSS, &[34, 2], &SCALE, &[254, 5, 1, 2, 3], &SACK],
            NO_STAMP,
        ),
        mix("an MD5 digest before an MSS", &[&[19, 18], &[0xaa; 16], &MSS], ONLY_MSS),
        mix(
            "40 octets",
            &[&MSS, &SACK, &STAMP, &PAD, &SCALE, &[254, 20], &[0xaa; 18]],
            ALL,
        ),
        mix("40 octets of one unknown option", &[&[254, 40], &[0xaa; 38]], NOTHING),
        mix("40 octets of MSS", &[&[2_u8, 4, 0x02, 0x18].repeat(9), &MSS], ONLY_MSS),
        mix("SACK-permitted twenty times", &[&SACK.repeat(20)], ONLY_SACK),
        mix(
            "timestamps twice",
            &[&[8, 10, 9, 9, 9, 9, 9, 9, 9, 9], &STAMP],
            ONLY_STAMP,
        ),
        mix(
            "known ones of other lengths",
            &[
                &[2, 3, 5],
                &[3, 2],
                &[4, 3, 0],
                &[8, 9, 1, 2, 3, 4, 0, 0, 0],
                &[2, 6, 5, 0xb4, 0, 0],
            ],
            NOTHING,
        ),
        mix(
            "SACK blocks",
            &[&[5, 10, 0, 0, 0, 1, 0, 0, 0, 2], &PAD, &PAD, &MSS],
            ONLY_MSS,
        ),
        mix("an MSS behind 19 octets of padding", &[&[NOP; 19], &MSS], ONLY_MSS),
        mix("an MSS behind 36 octets of padding", &[&[NOP; 36], &MSS], ONLY_MSS),
    ]
}
