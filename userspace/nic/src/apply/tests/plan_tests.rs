//! The plans for devices that can do more or less.

use super::*;

fn names(plan: &Plan) -> Vec<String> {
    plan.changes
        .iter()
        .map(|change| format!("{} {}", change.after.name(), change.after.value()))
        .collect()
}

#[test]
fn queues_are_dedicated_where_the_device_can_and_shared_where_not() {
    let (facts, _) = steerable();
    let all = plans(&facts, &wanted());
    let ways: Vec<&str> = all.iter().map(|plan| plan.way.as_str()).collect();
    assert_eq!(
        ways,
        [
            "dedicated queues: 2 of 4 for tidegate, 2 for the host",
            "dedicated queues: 1 of 4 for tidegate, 3 for the host",
            "shared queues: 2 for tidegate and the host",
        ]
    );
    assert_eq!(
        names(&all[0]),
        [
            "rx-lro off",
            "rings rx 2048 tx 512",
            "rx-ntuple-filter on",
            "RSS table queues 2 to 3",
            "RSS context queues 0 to 1",
            "rule for 198.18.0.1:80 RSS context",
            "rule for [2001:2::1]:80 RSS context",
        ]
    );
    assert!(names(&all[1]).contains(&"rule for 198.18.0.1:80 queue 0".to_owned()));
    assert_eq!(
        names(&all[2]),
        [
            "rx-lro off",
            "rings rx 2048 tx 512",
            "channels combined 2",
            "RSS table queues 0 to 1"
        ]
    );
    assert!(
        all.iter()
            .all(|plan| plan.changes.iter().all(|change| !change.reason.is_empty()))
    );
    for hindered in [
        plans(
            &Facts {
                flow_rules: None,
                ..facts.clone()
            },
            &wanted(),
        ),
        plans(
            &Facts {
                flow_rules: Some(FlowRules {
                    locations: vec![3],
                    capacity: 1024,
                    any_location: false,
                }),
                ..facts.clone()
            },
            &wanted(),
        ),
        plans(
            &Facts {
                rss_table: Vec::new(),
                ..facts.clone()
            },
            &wanted(),
        ),
        plans(
            &facts,
            &Wanted {
                listeners: Vec::new(),
                ..wanted()
            },
        ),
        plans(
            &facts,
            &Wanted {
                queues: Some(4),
                ..wanted()
            },
        ),
    ] {
        assert_eq!(hindered.len(), 1, "{hindered:?}");
    }
}

#[test]
fn by_default_half_of_the_queues_are_tidegates_but_not_more_than_cpus() {
    let (facts, _) = steerable();
    for (rx_queues, cpus, queues) in [(4, 4, 2), (8, 2, 2), (3, 4, 1), (16, 4, 4)] {
        let facts = Facts {
            rx_queues,
            tx_queues: rx_queues,
            ..facts.clone()
        };
        let wanted = Wanted {
            queues: None,
            cpus: (0..cpus).collect(),
            ..wanted()
        };
        assert_eq!(
            plans(&facts, &wanted)[0].queues,
            queues,
            "{rx_queues} queues, {cpus} CPUs"
        );
    }
    // Where they are shared, as many as the driver takes a program with.
    let mut ena = FakeDevice::of("ena");
    ena.channels = Some(Channels {
        combined: 8,
        combined_max: 8,
        ..Channels::default()
    });
    let wanted = Wanted {
        queues: None,
        cpus: (0..8).collect(),
        ..Wanted::default()
    };
    let plan = &plans(&ena.facts(), &wanted)[0];
    assert!(
        plan.queues == 4 && names(plan).contains(&"channels combined 4".to_owned()),
        "{plan:?}"
    );
}

#[test]
fn shared_queues_are_all_that_there_are() {
    let (mut facts, _) = steerable();
    facts.flow_rules = None;
    let channels = |rx_max, tx_max| Channels {
        rx_max,
        tx_max,
        ..Channels::default()
    };
    for (channels, queues) in [
        (None, 4),
        // None of a kind that is known.
        (Some(channels(0, 0)), 4),
        (Some(channels(8, 8)), 2),
        (Some(channels(8, 1)), 1),
    ] {
        let facts = Facts {
            channels,
            ..facts.clone()
        };
        let plan = &plans(&facts, &wanted())[0];
        assert_eq!(plan.queues, queues, "{channels:?}");
        let has_change = names(plan).iter().any(|name| name.starts_with("channels"));
        assert_eq!(has_change, queues != 4, "{plan:?}");
    }
    // As many as there can be, where more are asked for.
    let many = Wanted {
        queues: Some(64),
        ..wanted()
    };
    assert_eq!(plans(&facts, &many)[0].queues, 16);
}

#[test]
fn queues_are_shared_where_rules_would_miss_segments_for_tidegate() {
    let (facts, _) = steerable();
    let all = Wanted {
        listeners: vec!["198.18.0.1:80".parse().unwrap(), "[::]:80".parse().unwrap()],
        ..wanted()
    };
    let balanced = Wanted {
        balancers: true,
        ..wanted()
    };
    for (wanted, reason) in [
        (all, "addresses that are added later"),
        (balanced, "what balancers send"),
    ] {
        let plans = plans(&facts, &wanted);
        let way = &plans[0].way;
        assert!(
            plans.len() == 1 && way.starts_with("shared queues: 2") && way.contains(reason),
            "{plans:?}"
        );
    }
    // Where there can be no rules, these are not the reason.
    let facts = Facts {
        flow_rules: None,
        ..facts
    };
    let plan = &plans(
        &facts,
        &Wanted {
            balancers: true,
            ..wanted()
        },
    )[0];
    assert_eq!(plan.way, "shared queues: 2 for tidegate and the host");
}

#[test]
fn polling_and_huge_pages_are_prepared_where_they_are_asked_for() {
    let (mut facts, _) = steerable();
    (facts.defer_hard_irqs, facts.gro_flush_timeout) = (Some(0), Some(0));
    let plain = plans(&facts, &wanted());
    assert!(
        !names(&plain[0]).iter().any(|name| name.contains("gro_flush_timeout")),
        "{plain:?}"
    );
    let asked = Wanted {
        busy_poll: true,
        huge_pages: Some((64, 0)),
        ..wanted()
    };
    for plan in plans(&facts, &asked) {
        for name in [
            "napi_defer_hard_irqs 2",
            "gro_flush_timeout 200000",
            "vm.nr_hugepages 64",
        ] {
            assert!(names(&plan).contains(&name.to_owned()), "{name}: {plan:?}");
        }
    }
    let there = Wanted {
        huge_pages: Some((64, 64)),
        ..wanted()
    };
    assert!(!names(&plans(&facts, &there)[0]).contains(&"vm.nr_hugepages 64".to_owned()));
}

#[test]
fn interrupts_go_to_the_cpu_of_their_queues_shard() {
    use crate::facts::{Irq, Napi};
    let (mut facts, _) = steerable();
    facts.rx_napi = vec![Some(8), Some(7), Some(6), None];
    facts.napi = vec![
        Napi {
            id: 7,
            irq: Some(41),
            ..Napi::default()
        },
        Napi {
            id: 8,
            irq: Some(40),
            ..Napi::default()
        },
    ];
    facts.irqs = [(40, "0-3"), (41, "3")]
        .map(|(number, cpus)| Irq {
            number,
            cpus: cpus.to_owned(),
        })
        .into();
    let wanted = Wanted {
        cpus: vec![2, 3],
        ..wanted()
    };
    let plan = &plans(&facts, &wanted)[0];
    let irqs: Vec<String> = names(plan)
        .into_iter()
        .filter(|name| name.contains("interrupt"))
        .collect();
    // That of queue 1 is there already.
    assert_eq!(irqs, ["CPUs of interrupt 40 2"]);
}
