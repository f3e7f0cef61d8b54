//! The outcome of forged acknowledgments of SYN cookies.

use tidegate_abi::syn_cookie::Accepted;
use tidegate_sim::forge;

#[test]
fn guesses_open_no_more_connections_than_the_bits_allow_and_other_cookies_none() {
    for (accepted, expected) in [(Accepted::All, 0.2), (Accepted::Strong, 0.0012)] {
        let mut seen = 0;
        let report = forge::acknowledgments(1_000_001, 1, accepted, |tries| seen += tries)
            .unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(seen, 1_000_001);
        assert_eq!((report.without_timestamps, report.with_timestamps), (500_001, 500_000));
        assert!(report.expected < expected);
        assert!(report.resets > 0);
        assert_eq!(report.genuine, 20_000);
        assert_eq!(report.refused.len(), 13);
        assert!(report.refused.iter().all(|&(_, tried)| tried == 10_000));
    }
}

#[test]
fn a_seed_repeats_itself() {
    let report =
        |seed| forge::acknowledgments(1000, seed, Accepted::All, |_| {}).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(report(5), report(5));
}
