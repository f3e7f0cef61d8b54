//! Frames: anything may be read, as a segment and as ICMP "too big"; what was read can be written and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_tcp::wire::emit::{self, Header};
use tidegate_tcp::wire::icmp::TooBig;
use tidegate_tcp::wire::options::MAX_OPTIONS;
use tidegate_tcp::wire::{FlowKey, Segment};

/// Link header, IPv6 header and the longest TCP header.
const MAX_HEADERS: usize = 22 + 40 + 60;

fuzz_target!(|frame: &[u8]| {
    let _ = TooBig::parse(frame);
    let verified = Segment::parse(frame, true);
    let Ok(segment) = Segment::parse(frame, false) else {
        assert!(verified.is_err(), "checksums made a frame readable");
        return;
    };
    assert!(segment.payload.len() <= frame.len());
    assert!(segment.length() as usize <= segment.payload.len() + 2);
    assert!(matches!(segment.link.reply().as_bytes().len(), 14 | 18 | 22));
    if let Ok(verified) = verified {
        same(&verified, &segment);
    }
    if segment.options.length() > MAX_OPTIONS || segment.payload.len() > 60_000 {
        return;
    }

    // The sender's view of the flow.
    let key = FlowKey {
        remote: segment.key.local,
        local: segment.key.remote,
        remote_port: segment.key.local_port,
        local_port: segment.key.remote_port,
    };
    let header = Header {
        seq: segment.seq,
        ack: segment.ack,
        flags: segment.flags,
        window: segment.window,
        options: segment.options,
        ecn_capable: segment.congestion_experienced,
    };
    let mut buffer = vec![0xaa; MAX_HEADERS + segment.payload.len()];
    let length = emit::frame(
        &mut buffer,
        &segment.link.reply(),
        &key,
        &header,
        segment.payload.len(),
        |text| text.copy_from_slice(segment.payload),
    );
    let again = Segment::parse(&buffer[..length], true).expect("what was written cannot be read");
    assert_eq!(again.key, segment.key);
    same(&again, &segment);
});

fn same(one: &Segment<'_>, other: &Segment<'_>) {
    assert_eq!((one.seq, one.ack), (other.seq, other.ack));
    assert_eq!((one.flags, one.window), (other.flags, other.window));
    assert_eq!(one.payload, other.payload);
    assert_eq!(one.options.mss, other.options.mss);
    assert_eq!(one.options.window_scale, other.options.window_scale);
    assert_eq!(one.options.sack_permitted, other.options.sack_permitted);
    assert_eq!(one.options.timestamps, other.options.timestamps);
    assert_eq!(one.options.sack.as_slice(), other.options.sack.as_slice());
}
