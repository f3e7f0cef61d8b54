use super::*;

fn near(found: f64, expected: f64, tolerance: f64) -> bool {
    (found - expected).abs() <= tolerance
}

#[test]
fn centres_are_medians_or_means() {
    let of = |centre, values: &[f64]| center(centre, values.iter().copied(), &mut Vec::new());
    assert_eq!(of(Centre::Median, &[9.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(of(Centre::Median, &[9.0, 1.0, 2.0, 4.0]), Some(3.0));
    assert_eq!(of(Centre::Mean, &[0.0, 0.0, 3.0]), Some(1.0));
    assert_eq!(of(Centre::Mean, &[]), None);
}

#[test]
fn equal_values_share_their_ranks() {
    assert_eq!(ranks(&[5.0, 1.0, 5.0, 7.0, 1.0, 1.0]), [4.5, 2.0, 4.5, 6.0, 2.0, 2.0]);
    assert!(ranks(&[]).is_empty());
}

/// Those of differences by counting: of the 256 choices of signs for eight equal sizes, 2 have no minus, or only
/// such, and 18 at most one of the other sign. Those of sets from printed tables of U for 5 and 5 runs.
#[test]
fn probabilities_are_those_of_counting_and_of_the_tables() {
    let of_signs = |negative: usize| {
        let differences: [f64; 8] = std::array::from_fn(|index| if index < negative { -2.0 } else { 2.0 });
        signs(&differences, MIN_PERMUTATIONS)
    };
    let of_ranks = |old: &[f64], new: &[f64]| rank_sum(old, new, MIN_PERMUTATIONS);
    let is = |found, expected| near(found, expected, 1e-12);
    assert!(is(of_signs(0), 2.0 / 256.0));
    assert!(is(of_signs(1), 18.0 / 256.0));
    assert!(is(of_signs(7), 18.0 / 256.0));
    assert_eq!(of_signs(4), 1.0);
    let low = [1.0, 2.0, 3.0, 4.0, 5.0];
    let high = [6.0, 7.0, 8.0, 9.0, 10.0];
    assert!(is(of_ranks(&low, &high), 2.0 / 252.0));
    assert!(is(of_ranks(&high, &low), 2.0 / 252.0));
    assert!(is(of_ranks(&low[..2], &high), 2.0 / 21.0));
    assert!(is(
        of_ranks(&[1.0, 2.0, 3.0, 4.0, 7.0], &[5.0, 6.0, 8.0, 9.0, 10.0]),
        8.0 / 252.0
    ));
    assert_eq!(signs(&[0.0; 9], MIN_PERMUTATIONS), 1.0);
    assert_eq!(of_ranks(&[2.0; 9], &[2.0; 9]), 1.0);
}

/// Those of more runs than can be counted are near those of counting.
#[test]
fn samples_of_permutations_are_near_what_counting_finds() {
    let differences: Vec<f64> = (0..14).map(|index| if index < 4 { -1.0 } else { 1.0 }).collect();
    let counted = signs(&differences, MIN_PERMUTATIONS);
    assert!(near(
        counted,
        2.0 * (1.0 + 14.0 + 91.0 + 364.0 + 1_001.0) / 16_384.0,
        1e-12
    ));
    let sum: f64 = differences.iter().sum();
    let sampled = by_chance(sum.abs(), MIN_PERMUTATIONS, |random| {
        let signs = random.word();
        let sign = |index: u32| if (signs >> index) & 1 == 0 { 1.0 } else { -1.0 };
        (0..14).map(sign).sum::<f64>().abs()
    });
    assert!(near(sampled, counted, 0.05), "{sampled} {counted}");
}

#[test]
fn ranks_that_are_shared_are_counted_as_they_are() {
    for (old, new) in [
        (&[1.0, 1.0, 2.0, 3.0][..], &[2.0, 4.0, 4.0][..]),
        (&[5.0, 5.0], &[5.0, 1.0, 1.0, 1.0, 7.0]),
    ] {
        let ranks = ranks(&[old, new].concat());
        let distance = |chosen: &[f64]| (chosen.iter().sum::<f64>() - old.len() as f64 * 4.0).abs();
        let found = distance(&ranks[..old.len()]);
        let chosen = |choice: &u32| -> Vec<f64> {
            let ranks = ranks.iter().enumerate();
            ranks
                .filter(|(index, _)| (choice >> index) & 1 == 1)
                .map(|(_, rank)| *rank)
                .collect()
        };
        let choices = (0..1_u32 << 7).filter(|choice| choice.count_ones() as usize == old.len());
        let distances: Vec<f64> = choices.map(|choice| distance(&chosen(&choice))).collect();
        let reached = distances.iter().filter(|&&distance| distance >= found).count();
        let expected = reached as f64 / distances.len() as f64;
        assert!(
            near(rank_sum(old, new, MIN_PERMUTATIONS), expected, 1e-12),
            "{expected}"
        );
    }
}

/// As many as are counted, at most, have the probabilities of the binomial distribution.
#[test]
fn two_halves_of_signs_are_all_of_them() {
    let differences: Vec<f64> = (0..32).map(|index| if index < 7 { -1.0 } else { 1.0 }).collect();
    let expected = 2.0 * (0..=7).map(|negative| choices(32, negative)).sum::<f64>() / 2.0_f64.powi(32);
    assert!(
        near(signs(&differences, MIN_PERMUTATIONS), expected, 1e-12),
        "{expected}"
    );
}

/// The correction for ten figures leaves 1 in 1,000 for each.
#[test]
fn eleven_pairs_are_enough_for_ten_figures() {
    let pairs = |count| Samples::Pairs(vec![(1.0, 2.0); count]);
    let corrected = |count| 10.0 * pairs(count).compare(Centre::Median, 10).unwrap().p;
    assert!(
        corrected(11) <= ALPHA && corrected(10) > ALPHA,
        "{} {}",
        corrected(11),
        corrected(10)
    );
    assert_eq!(pairs(11).least_p(10), pairs(11).compare(Centre::Median, 10).unwrap().p);
}

#[test]
fn many_figures_are_tried_by_more_permutations() {
    for count in [1, 300, 1_000, 9_999] {
        let least = Samples::Pairs(vec![(1.0, 2.0); 40]).least_p(count);
        assert!(least * count as f64 <= ALPHA, "{count}");
    }
    for (pairs, each) in [(20, 12), (40, 100)] {
        let pairs = Samples::Pairs(vec![(1.0, 2.0); pairs]);
        let sets = Samples::Sets(vec![1.0; each], vec![2.0; each]);
        for samples in [pairs, sets] {
            let p = samples.compare(Centre::Median, 300).unwrap().p;
            assert!(p * 300.0 <= ALPHA, "{p}");
            assert!(p >= samples.least_p(300) * (1.0 - 1e-9), "{p}");
        }
    }
    assert!(Samples::Pairs(vec![(1.0, 2.0); 40]).least_p(1_000_000) * 1e6 > ALPHA);
}

#[test]
fn an_outlier_does_not_hide_what_all_other_pairs_show() {
    let mut differences = [1.0; 20];
    let without = signs(&differences, MIN_PERMUTATIONS);
    differences[7] = -1_000.0;
    let with = signs(&differences, MIN_PERMUTATIONS);
    assert!(without < 0.000_2 && with < 0.000_5, "{without} {with}");
}

#[test]
fn few_runs_cannot_be_sure() {
    let pairs = |count| Samples::Pairs(vec![(1.0, 1.0); count]).least_p(1);
    assert_eq!([pairs(0), pairs(1), pairs(5), pairs(6)], [1.0, 1.0, 0.0625, 0.031_25]);
    let sets = |old, new| Samples::Sets(vec![1.0; old], vec![1.0; new]).least_p(1);
    assert!(near(sets(4, 4), 2.0 / 70.0, 1e-12) && near(sets(2, 20), 2.0 / 231.0, 1e-12));
    assert_eq!([sets(0, 3), sets(1, 1)], [1.0, 1.0]);
    // Pairs without a difference are no evidence.
    let some = Samples::Pairs([[(1.0, 1.0); 6], [(1.0, 2.0); 6]].concat());
    assert_eq!(
        (some.least_p(1), some.least_p_of_differences(1)),
        (2.0 / 4_096.0, 0.031_25)
    );
}

/// The example of Holm's paper in the textbooks: 0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02.
#[test]
fn many_figures_need_smaller_probabilities() {
    let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
    for (found, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
        assert!(near(*found, expected, 1e-12), "{corrected:?}");
    }
    assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    assert!(holm(&[]).is_empty());
}

#[test]
fn a_change_is_one_of_ratios_within_pairs() {
    // The machine becomes twice as fast meanwhile; each new run takes a tenth more than the old one beside it.
    let pairs: Vec<(f64, f64)> = (0..12)
        .map(|index| 100.0 - 4.0 * f64::from(index))
        .map(|old| (old, old * 1.1))
        .collect();
    let change = Samples::Pairs(pairs.clone()).compare(Centre::Median, 1).unwrap();
    assert!(near(change.change.part().unwrap(), 0.1, 1e-9), "{change:?}");
    assert!(
        near(change.low.number(), 0.1, 1e-9) && near(change.high.number(), 0.1, 1e-9),
        "{change:?}"
    );
    assert!(change.p < 0.001, "{change:?}");
    // Without the pairs, that is lost in what the machine does.
    let (old, new) = pairs.into_iter().unzip();
    let change = Samples::Sets(old, new).compare(Centre::Median, 1).unwrap();
    assert!(near(change.change.part().unwrap(), 0.1, 1e-9), "{change:?}");
    assert!(change.low.number() < 0.0 && change.high.number() > 0.2, "{change:?}");
    assert!(change.p > 0.05, "{change:?}");
}

#[test]
fn what_was_zero_changes_by_its_own_unit() {
    let pairs: Vec<(f64, f64)> = (0..10).map(|_| (0.0, 3.0)).collect();
    let change = Samples::Pairs(pairs).compare(Centre::Mean, 1).unwrap();
    assert_eq!(
        (change.old, change.new, change.change),
        (0.0, 3.0, Amount::Absolute(3.0))
    );
    assert!(change.change.reaches(10.0) && change.change.part().is_none() && change.p < 0.01);
    let none = Samples::Pairs(vec![(0.0, 0.0); 10]).compare(Centre::Mean, 1).unwrap();
    assert_eq!((none.change, none.p), (Amount::Absolute(0.0), 1.0));
    assert!(!none.change.reaches(0.0));
    // Above zero it is a part of what there was.
    let some = Samples::Sets(vec![0.0, 2.0], vec![3.0, 3.0])
        .compare(Centre::Mean, 1)
        .unwrap();
    assert_eq!(some.change, Amount::Part(2.0));
    assert_eq!(Samples::Sets(vec![], vec![1.0]).compare(Centre::Median, 1), None);
}

#[test]
fn the_same_runs_have_the_same_result() {
    let samples = Samples::Sets(vec![1.0, 2.0, 3.0, 9.0, 4.0], vec![2.0, 3.0, 4.0, 5.0]);
    assert_eq!(samples.compare(Centre::Median, 1), samples.compare(Centre::Median, 1));
}
