//! The share of a link that a connection gets with each congestion control.

use tidegate_sim::goodput::{self, Case};
use tidegate_tcp::Config;
use tidegate_tcp::congestion::Algorithm;

const SECONDS: usize = 10;

/// The `bbr_loss_threshold` of the draft, and the default.
const DRAFT: u8 = 2;
const DEFAULT: u8 = 5;

fn alone(algorithm: Algorithm, threshold: u8, case: &Case) -> f64 {
    let config = goodput::config(algorithm, threshold);
    let shares = goodput::shares(&[config], case, SECONDS, 1).expect("a connection");
    shares[0].0
}

fn together(first: Algorithm, second: Algorithm, threshold: u8, queue: u64) -> [f64; 2] {
    let configs = [first, second].map(|algorithm| goodput::config(algorithm, threshold));
    let case = goodput::case("", queue, |_| {});
    let shares = goodput::shares(&configs, &case, 2 * SECONDS, 1).expect("connections");
    [shares[0].0, shares[1].0]
}

#[test]
fn bbr_fills_a_link_that_loses_little() {
    for (permille, least) in [(0, 0.93), (1, 0.87), (10, 0.7)] {
        let share = alone(Algorithm::BBR, DRAFT, &goodput::lossy("", permille));
        assert!((least..=1.0).contains(&share), "{share} at {permille} permille");
    }
}

#[test]
fn bbr_gets_ten_times_as_much_as_cubic_where_a_fiftieth_is_lost() {
    let case = goodput::lossy("", 20);
    let (bbr, cubic) = (
        alone(Algorithm::BBR, DRAFT, &case),
        alone(Algorithm::CUBIC, DRAFT, &case),
    );
    assert!(bbr > 10.0 * cubic, "{bbr} and {cubic}");
}

#[test]
fn by_default_bbr_fills_a_link_that_loses_up_to_three_percent() {
    assert_eq!(Config::default().bbr_loss_threshold, DEFAULT);
    for (permille, least) in [(1, 0.95), (10, 0.88), (20, 0.88), (30, 0.87)] {
        let share = alone(Algorithm::BBR, DEFAULT, &goodput::lossy("", permille));
        assert!((least..=1.0).contains(&share), "{share} at {permille} permille");
    }
}

#[test]
fn segments_and_acknowledgments_that_overtake_each_other_are_not_taken_for_lost() {
    let case = goodput::reordering_both_ways();
    for (algorithm, threshold) in [
        (Algorithm::CUBIC, DEFAULT),
        (Algorithm::BBR, DRAFT),
        (Algorithm::BBR, DEFAULT),
    ] {
        let share = alone(algorithm, threshold, &case);
        assert!((0.9..=1.0).contains(&share), "{share} by {algorithm}");
    }
}

#[test]
fn bbr_gets_much_of_a_link_with_something_of_every_fault() {
    let case = goodput::mix_both_ways();
    let share = |algorithm, threshold| alone(algorithm, threshold, &case);
    let cubic = share(Algorithm::CUBIC, DEFAULT);
    for (threshold, least) in [(DRAFT, 0.2), (DEFAULT, 0.55), (100, 0.75)] {
        let bbr = share(Algorithm::BBR, threshold);
        assert!((least..=1.0).contains(&bbr), "{bbr} with {threshold}");
        assert!(bbr > 1.5 * cubic, "{bbr} and {cubic}");
    }
}

#[test]
fn bbr_that_tolerates_all_losses_fills_a_link_that_loses_much() {
    let share = alone(Algorithm::BBR, 100, &goodput::lossy("", 50));
    assert!(share > 0.75, "{share}");
}

#[test]
fn neither_queues_nor_reordering_keep_bbr_from_filling_a_link() {
    for case in goodput::cases() {
        if case.to_server.link.loss.is_never() && case.rate() == goodput::RATE {
            let share = alone(Algorithm::BBR, DRAFT, &case);
            assert!((0.85..=1.0).contains(&share), "{share}: {}", case.name);
        }
    }
}

#[test]
fn a_fast_link_with_a_short_round_trip_is_filled() {
    for algorithm in [Algorithm::CUBIC, Algorithm::BBR] {
        let config = goodput::config(algorithm, DEFAULT);
        let shares = goodput::shares(&[config], &goodput::fast(), 2, 1).expect("a connection");
        assert!((0.95..=1.0).contains(&shares[0].0), "{shares:?} by {algorithm}");
    }
}

#[test]
fn losses_that_are_tolerated_do_not_cost_others_their_share() {
    for queue in [60_000, 250_000] {
        let [bbr, cubic] = together(Algorithm::BBR, Algorithm::CUBIC, DEFAULT, queue);
        assert!(cubic > 0.3 && bbr > 0.3, "{bbr} and {cubic} with {queue} bytes");
    }
}

#[test]
fn connections_share_a_link() {
    for (queue, pairs) in [
        (
            60_000,
            [(Algorithm::BBR, Algorithm::BBR), (Algorithm::BBR, Algorithm::CUBIC)],
        ),
        (
            250_000,
            [(Algorithm::BBR, Algorithm::BBR), (Algorithm::BBR, Algorithm::CUBIC)],
        ),
    ] {
        for (first, second) in pairs {
            let shares = together(first, second, DRAFT, queue);
            assert!(
                shares.iter().all(|&share| share > 0.15),
                "{first} {second} {shares:?} with {queue} bytes"
            );
            assert!(
                shares.iter().sum::<f64>() > 0.85,
                "{first} {second} {shares:?} with {queue} bytes"
            );
        }
    }
}

#[test]
fn a_paced_slow_start_gets_far_with_a_queue_of_a_tenth_of_the_path() {
    let case = goodput::case("", 25_000, |_| {});
    for (algorithm, least) in [(Algorithm::RENO, 0.76), (Algorithm::CUBIC, 0.84)] {
        let share = alone(algorithm, DRAFT, &case);
        assert!((least..=1.0).contains(&share), "{share} by {algorithm}");
    }
}

#[test]
fn two_that_begin_together_fill_a_deep_queue_without_loss_and_share_alike() {
    let config = goodput::config(Algorithm::CUBIC, DRAFT);
    let case = goodput::case("", 2_500_000, |_| {});
    let shares = goodput::shares(&[config.clone(), config], &case, SECONDS, 1).expect("connections");
    for (share, again) in shares {
        assert!((0.45..=0.5).contains(&share), "{share}");
        assert_eq!(again, 0);
    }
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let case = goodput::lossy("", 10);
    let run = || goodput::shares(&[goodput::config(Algorithm::BBR, DRAFT)], &case, 3, 5);
    assert_eq!(run(), run());
}
