//! The option field of a TCP header: anything may be read, and what was read can be written and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::{MAX_OPTIONS, MAX_SACK_BLOCKS, MAX_WINDOW_SCALE};

fuzz_target!(|field: &[u8]| {
    let field = &field[..field.len().min(MAX_OPTIONS)];
    let options = Options::parse(field);
    assert!(options.window_scale.is_none_or(|shift| shift <= MAX_WINDOW_SCALE));
    assert!(options.sack.as_slice().len() <= MAX_SACK_BLOCKS);

    // Options are written padded, so what came packed tightly may take more than a header has room for.
    let mut buffer = [0xaa; 2 * MAX_OPTIONS];
    let length = options.length();
    assert_eq!(options.write(&mut buffer), length);
    assert_eq!(length % 4, 0);
    assert!(
        buffer[length..].iter().all(|&byte| byte == 0xaa),
        "written past the end"
    );
    let again = Options::parse(&buffer[..length]);
    assert_eq!(again.mss, options.mss);
    assert_eq!(again.window_scale, options.window_scale);
    assert_eq!(again.sack_permitted, options.sack_permitted);
    assert_eq!(again.timestamps, options.timestamps);
    assert_eq!(again.sack.as_slice(), options.sack.as_slice());
});
