use super::*;

fn objectives(text: &str) -> Objectives {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// `count` latencies of 1 ms and `long` of 10 ms.
fn latencies(count: u64, long: u64) -> Latencies {
    let mut latencies = Latencies::new();
    for _ in 0..count {
        latencies.record(Duration::from_millis(1));
    }
    for _ in 0..long {
        latencies.record(Duration::from_millis(10));
    }
    latencies
}

fn finding(text: &str, latency: &Latencies, errors: u64) -> Finding {
    let connect = Latencies::new();
    let sample = Sample {
        latency,
        connect: &connect,
        errors,
        rate: 10_000.0,
    };
    objectives(text).evaluate(&sample).remove(0)
}

fn outcome(text: &str, latency: &Latencies, errors: u64) -> Outcome {
    finding(text, latency, errors).outcome
}

#[test]
fn errors_too_few_operations_could_have_had_are_not_shown() {
    let text = "errors<0.001%";
    for (operations, errors, expected) in [
        (0, 0, Outcome::NotShown),
        (1_000, 0, Outcome::NotShown),
        (299_573, 0, Outcome::NotShown),
        (299_574, 0, Outcome::Met),
        // One was seen, and so more are needed to believe it to be rare.
        (299_574, 1, Outcome::NotShown),
        (480_000, 1, Outcome::Met),
        (50_000, 1, Outcome::NotMet),
        (0, 1, Outcome::NotMet),
    ] {
        assert_eq!(
            outcome(text, &latencies(operations, 0), errors),
            expected,
            "{operations}, {errors}"
        );
    }
    let finding = finding(text, &latencies(1_000, 0), 0);
    assert_eq!(finding.needed, Some(299_574));
    assert_eq!(
        finding.to_string(),
        "errors<0.001%: not shown (0 in 1000 operations, which may by chance be too few; 299574 are needed to tell)"
    );
}

#[test]
fn a_condition_to_fail_by_is_the_opposite() {
    for (operations, errors, expected) in [
        (299_574, 0, Outcome::NotMet),
        (1_000, 0, Outcome::NotShown),
        (50_000, 1, Outcome::Met),
    ] {
        let found = outcome("errors>=0.001%", &latencies(operations, 0), errors);
        assert_eq!(found, expected, "{operations}, {errors}");
    }
    // This is about the errors there were, and needs no number of operations.
    assert_eq!(outcome("errors>0%", &latencies(1, 0), 0), Outcome::NotMet);
    assert_eq!(outcome("errors>0%", &latencies(1, 0), 1), Outcome::Met);
}

#[test]
fn percentiles_are_compared_where_there_are_enough() {
    let many = latencies(99_000, 1_000);
    for (text, expected) in [
        ("p99<2ms", Outcome::Met),
        ("p99.1<2ms", Outcome::NotMet),
        ("latency.p50<=1.001ms", Outcome::Met),
        ("p50<1ms", Outcome::NotMet),
        ("p99>2ms", Outcome::NotMet),
        ("p99.9>2ms", Outcome::Met),
        ("p99.9>=10ms", Outcome::Met),
        ("p99.99<1s", Outcome::Met),
        // One of a million is not to be had from 100,000.
        ("p99.9999<1s", Outcome::NotShown),
        ("max<10.1ms", Outcome::Met),
        ("max<9ms", Outcome::NotMet),
    ] {
        assert_eq!(outcome(text, &many, 0), expected, "{text}");
    }
}

#[test]
fn a_percentile_of_few_is_not_shown_unless_most_are_beyond() {
    let text = "p99<2ms";
    for (short, long, expected) in [
        (0, 0, Outcome::NotShown),
        (299, 0, Outcome::NotShown),
        (300, 0, Outcome::Met),
        // One of 50 is beyond by chance two times of five.
        (49, 1, Outcome::NotShown),
        (40, 10, Outcome::NotMet),
        (0, 2, Outcome::NotMet),
    ] {
        assert_eq!(outcome(text, &latencies(short, long), 0), expected, "{short}, {long}");
    }
    assert_eq!(outcome("p99>2ms", &latencies(40, 10), 0), Outcome::Met);
    assert_eq!(outcome("p99>2ms", &latencies(40, 0), 0), Outcome::NotShown);
    assert_eq!(finding(text, &latencies(40, 0), 0).needed, Some(300));
    assert_eq!(outcome("max<1s", &latencies(0, 0), 0), Outcome::NotShown);
}

#[test]
fn each_is_about_its_own_distribution_and_the_worst_decides() {
    let (latency, connect) = (latencies(0, 1_000), latencies(1_000, 0));
    let sample = Sample {
        latency: &latency,
        connect: &connect,
        errors: 0,
        rate: 9_500.0,
    };
    let all = objectives(" connect.p99 < 2ms , latency.p99<2ms,rate>=9.5k,rate<9k,errors<0.1%");
    let findings = all.evaluate(&sample);
    let outcomes: Vec<Outcome> = findings.iter().map(|finding| finding.outcome).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Met,
            Outcome::NotMet,
            Outcome::Met,
            Outcome::NotMet,
            Outcome::NotShown
        ]
    );
    assert_eq!(Finding::worst(&findings), Outcome::NotMet);
    assert_eq!(Finding::worst(&findings[4..]), Outcome::NotShown);
    assert_eq!(Finding::worst(&findings[..1]), Outcome::Met);
    assert!(all.judge_errors() && all.judge_connect() && !objectives("p99<1s").judge_errors());
    assert_eq!(
        findings[1].json(),
        json!({"condition": "latency.p99<2ms", "outcome": "not met", "observed": "10.0ms of 1000"})
    );
}

#[test]
fn what_is_written_is_what_is_shown() {
    let all = objectives("connect.p99<1ms, errors<0.001%,rate>=10000");
    assert_eq!(all.to_string(), "connect.p99<1ms,errors<0.001%,rate>=10000");
}

#[test]
fn what_is_no_objective_is_refused_with_a_reason() {
    for (text, phrase) in [
        ("", "not a condition"),
        ("p99", "not a condition"),
        ("p99=1ms", "not a condition"),
        ("p99<1ms,", "not a condition"),
        ("p99<1", "`1` is not a time"),
        ("p99<1min", "is not a time"),
        ("p99<-1ms", "is not a time"),
        ("p99<=<1ms", "is not a time"),
        ("p99<1e3ms", "is not a time"),
        ("p0<1ms", "p0 is no percentile"),
        ("p100<1ms", "p100 is no percentile"),
        ("pinf<1ms", "no figure has the name `pinf`"),
        ("first.p99<1ms", "no figure has the name `first.p99`"),
        ("average<1ms", "no figure has the name `average`"),
        ("errors<1", "is not a share"),
        ("errors<101%", "is not a share"),
        ("errors<=0%", "no run can show"),
        ("rate>10ms", "is not a number per second"),
    ] {
        let error = text.parse::<Objectives>().unwrap_err().to_string();
        assert!(error.contains(phrase), "{text}: {error}");
    }
}

#[test]
fn the_time_for_what_is_needed_follows_from_the_rate() {
    assert_eq!(time_for(300_000, 10_000.0), Duration::from_secs(30));
    assert_eq!(time_for(1, 0.0), Duration::MAX);
}
