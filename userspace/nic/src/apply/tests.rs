//! Applying and undoing on a device that remembers what was set.

use std::collections::BTreeMap;

use super::*;
use crate::facts::{Channels, FlowRules};
use crate::fake::Device as FakeDevice;
use crate::plan::{Wanted, plans};
use crate::setting::value_in;

mod plan_tests;

/// Settings by name; those named in `refused` cannot be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Memory {
    values: BTreeMap<String, Setting>,
    refused: Vec<String>,
    /// Those that cannot be read.
    untold: Vec<String>,
}

impl Device for Memory {
    fn current(&mut self, setting: &Setting) -> io::Result<Option<Setting>> {
        if self.untold.contains(&setting.name()) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(match setting {
            Setting::FlowRule { rule, .. } => {
                let present = self.values.get(&setting.name()).cloned();
                present.or(Some(Setting::FlowRule {
                    rule: *rule,
                    location: None,
                    present: false,
                }))
            }
            _ => self.values.get(&setting.name()).cloned(),
        })
    }

    fn set(&mut self, setting: &Setting) -> io::Result<Setting> {
        if self.refused.contains(&setting.name()) {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let mut set = setting.clone();
        match &mut set {
            Setting::FlowRule { present: false, .. } => {
                self.values.remove(&setting.name());
                return Ok(set);
            }
            Setting::FlowRule { location, .. } => *location = Some(1022),
            Setting::RssContext { table, .. } if table.is_empty() => {
                self.values.remove(&setting.name());
                return Ok(set);
            }
            Setting::RssContext { id, .. } => *id = Some(1),
            _ => {}
        }
        self.values.insert(setting.name(), set.clone());
        Ok(set)
    }

    fn flow_rules(&mut self) -> io::Result<usize> {
        Ok(self.values.keys().filter(|name| name.starts_with("rule for")).count())
    }
}

/// A device with all that can be steered, and what it has.
fn steerable() -> (Facts, Memory) {
    let mut device = FakeDevice::of("ice");
    device.features = vec![("rx-lro", true), ("rx-ntuple-filter", false)];
    let mut facts = device.facts();
    facts.flow_rules = Some(FlowRules {
        capacity: 1024,
        ..FlowRules::default()
    });
    facts.permanent_mac = Some([2, 0, 0, 0, 0, 1]);
    (facts.clone(), memory_of(&facts))
}

fn memory_of(facts: &Facts) -> Memory {
    let mut memory = Memory::default();
    for plan in plans(facts, &wanted()) {
        for change in plan.changes {
            if let Some(value) = value_in(facts, &change.before) {
                memory.values.insert(value.name(), value);
            }
        }
    }
    memory
}

fn wanted() -> Wanted {
    Wanted {
        queues: Some(2),
        cpus: vec![0, 1, 2, 3],
        listeners: vec!["198.18.0.1:80".parse().unwrap(), "[2001:2::1]:80".parse().unwrap()],
        ..Wanted::default()
    }
}

fn apply(plan: &Plan, facts: &Facts, memory: &mut Memory, directory: &Path) -> Result<Applied, Failure> {
    Applied::apply(plan, facts, memory, directory, |sentence| panic!("{sentence}"))
}

fn load(directory: &Path) -> Option<Applied> {
    Applied::load(directory, "nic0").expect("a good file")
}

#[test]
fn what_was_is_put_back_also_by_another_run() {
    let directory = tempfile::tempdir().unwrap();
    let (facts, mut memory) = steerable();
    let before = memory.clone();
    let plan = &plans(&facts, &wanted())[0];
    apply(plan, &facts, &mut memory, directory.path()).expect("all is possible");
    assert_ne!(memory, before);
    // Rules go to the context that was made.
    let rule = &memory.values["rule for 198.18.0.1:80"];
    assert!(
        matches!(
            rule,
            Setting::FlowRule {
                rule: FlowRule {
                    target: Target::Context(1),
                    ..
                },
                ..
            }
        ),
        "{rule:?}"
    );
    let error = apply(plan, &facts, &mut memory, directory.path()).expect_err("twice");
    assert!(matches!(error, Failure::AlreadyApplied { .. }), "{error}");
    let undone = load(directory.path())
        .expect("a file")
        .undo(&facts, &mut memory)
        .expect("it can be");
    assert_eq!(memory, before);
    assert_eq!(
        (undone.restored.len(), undone.left),
        (plan.changes.len(), Vec::<String>::new())
    );
    assert!(load(directory.path()).is_none());
}

#[test]
fn a_run_that_is_killed_at_any_change_can_be_undone() {
    let (facts, clean) = steerable();
    let plan = &plans(&facts, &wanted())[0];
    for made in 0..=plan.changes.len() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = clean.clone();
        let part = Plan {
            changes: plan.changes[..made].to_vec(),
            ..plan.clone()
        };
        let mut applied = apply(&part, &facts, &mut memory, directory.path()).expect("all is possible");
        // The next was written down, and perhaps not made.
        applied.state.changes.extend(plan.changes.get(made).cloned());
        applied.save().expect("a file");
        drop(applied);
        load(directory.path())
            .expect("a file")
            .undo(&facts, &mut memory)
            .expect("it can be");
        assert_eq!(memory, clean, "after {made} changes");
    }
}

#[test]
fn a_refusal_puts_back_what_was_set_before_it() {
    let (facts, clean) = steerable();
    let plan = &plans(&facts, &wanted())[0];
    for refused in [
        "rule for [2001:2::1]:80",
        "RSS context",
        "RSS table",
        "rx-ntuple-filter",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory {
            refused: vec![refused.to_owned()],
            ..clean.clone()
        };
        let error = apply(plan, &facts, &mut memory, directory.path()).expect_err(refused);
        assert!(error.to_string().starts_with(refused), "{error}");
        assert_eq!(memory.values, clean.values, "{refused}");
        assert!(load(directory.path()).is_none(), "{refused}");
    }
    // What the plan can do without is told, and left.
    let directory = tempfile::tempdir().unwrap();
    let mut memory = Memory {
        refused: vec!["rings".to_owned()],
        ..clean.clone()
    };
    let mut told = Vec::new();
    Applied::apply(plan, &facts, &mut memory, directory.path(), |sentence| {
        told.push(sentence)
    })
    .expect("the rest");
    assert!(
        matches!(told.as_slice(), [sentence] if sentence.starts_with("rings is left at rx 512")),
        "{told:?}"
    );
}

#[test]
fn what_somebody_has_set_since_is_left_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let (facts, mut memory) = steerable();
    let plan = &plans(&facts, &wanted())[0];
    let applied = apply(plan, &facts, &mut memory, directory.path()).expect("all is possible");
    let theirs = Setting::Rings { rx: 4096, tx: 512 };
    memory.values.insert(theirs.name(), theirs.clone());
    let undone = applied.undo(&facts, &mut memory).expect("it can be");
    assert_eq!(memory.values["rings"], theirs);
    assert!(
        undone.left.len() == 1 && undone.left[0].contains("rings: somebody has set it to rx 4096"),
        "{undone:?}"
    );
}

#[test]
fn what_no_longer_applies_is_named_and_nothing_is_touched() {
    let (facts, clean) = steerable();
    let plan = &plans(&facts, &wanted())[0];
    let other = Facts {
        permanent_mac: Some([2, 0, 0, 0, 0, 9]),
        ..facts.clone()
    };
    let anew = Facts {
        index: 8,
        permanent_mac: None,
        ..facts.clone()
    };
    let boot = boot_id();
    for (facts_then, facts_now, boot_id, words) in [
        (&facts, Some(&facts), "another", "the machine was started anew since"),
        (&facts, Some(&other), boot.as_str(), "is another device now"),
        (
            &Facts {
                permanent_mac: None,
                ..facts.clone()
            },
            Some(&anew),
            &boot,
            "was made anew since",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = clean.clone();
        let applied = apply(plan, facts_then, &mut memory, directory.path()).expect("all is possible");
        let after = memory.clone();
        let undone = applied.undo_if(boot_id, facts_now, &mut memory).expect("it can be");
        assert_eq!(memory, after, "{words}");
        assert!(
            undone.restored.is_empty() && undone.left.iter().all(|left| left.contains(words)),
            "{undone:?}"
        );
        assert!(load(directory.path()).is_none(), "{words}");
    }
}

#[test]
fn what_could_not_be_put_back_stays_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let (facts, clean) = steerable();
    let mut memory = clean.clone();
    let plan = &plans(&facts, &wanted())[0];
    let mut applied = apply(plan, &facts, &mut memory, directory.path()).expect("all is possible");
    applied.keep().expect("a file");
    // Without the interface, nothing is lost.
    let undone = applied.undo_without_interface(&mut memory).expect("it can be");
    assert!(undone.left.is_empty() && undone.restored.is_empty(), "{undone:?}");
    assert_eq!(undone.kept.len(), plan.changes.len());
    assert!(
        undone
            .kept
            .iter()
            .all(|kept| kept.contains("there is no interface nic0 any more")),
        "{undone:?}"
    );
    let again = load(directory.path()).expect("a file");
    assert_eq!(again.changes().len(), plan.changes.len());
    assert!(!again.is_kept(&facts), "it is half undone");
    // What is refused, and what cannot be told, is left for another time.
    memory.refused = vec!["rings".to_owned()];
    memory.untold = vec!["rule for [2001:2::1]:80".to_owned()];
    let undone = again.undo(&facts, &mut memory).expect("it can be");
    assert!(
        matches!(undone.kept.as_slice(), [rule, ntuple, rings]
            if rule.starts_with("rule for [2001:2::1]:80: it cannot be told")
                && ntuple.starts_with("rx-ntuple-filter: it is left on")
                && rings.starts_with("rings: rx 512 tx 512 was refused")),
        "{undone:?}"
    );
    let again = load(directory.path()).expect("a file");
    let names: Vec<String> = again.changes().iter().map(|change| change.after.name()).collect();
    assert_eq!(names, ["rings", "rx-ntuple-filter", "rule for [2001:2::1]:80"]);
    (memory.refused, memory.untold) = Default::default();
    let undone = again.undo(&facts, &mut memory).expect("it can be");
    assert_eq!((undone.restored.len(), undone.kept.len()), (3, 0));
    assert_eq!(memory, clean);
    assert!(load(directory.path()).is_none());
}

#[test]
fn what_was_applied_before_the_machine_was_started_anew_is_told_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (facts, mut memory) = steerable();
    let before = memory.clone();
    let plan = &plans(&facts, &wanted())[0];
    let mut applied = apply(plan, &facts, &mut memory, directory.path()).expect("all is possible");
    applied.state.boot_id = "another".to_owned();
    applied.keep().expect("a file");
    memory = before.clone();
    let mut told = Vec::new();
    let applied = Applied::apply(plan, &facts, &mut memory, directory.path(), |sentence| {
        told.push(sentence)
    })
    .expect("the other is of another boot");
    assert!(
        matches!(told.as_slice(), [sentence] if sentence.starts_with("the machine was started anew since")),
        "{told:?}"
    );
    assert_ne!(memory, before);
    applied.undo(&facts, &mut memory).expect("it can be");
    assert_eq!(memory, before);
}

#[test]
fn what_cannot_be_written_down_is_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("state");
    let (facts, mut memory) = steerable();
    let before = memory.clone();
    let plan = &plans(&facts, &wanted())[0];
    // With the first refusal that is told, the directory goes and cannot be made again.
    memory.refused = vec!["rings".to_owned()];
    let result = Applied::apply(plan, &facts, &mut memory, &below, |_| {
        fs::remove_dir_all(&below).expect("a directory");
        fs::write(&below, "").expect("a file in its place");
    });
    let error = result.expect_err("it cannot be written down");
    assert!(matches!(error, Failure::State { .. }), "{error}");
    assert_eq!(memory.values, before.values);
}

#[test]
fn rules_of_others_keep_the_feature_that_they_need() {
    let directory = tempfile::tempdir().unwrap();
    let (facts, mut memory) = steerable();
    let plan = &plans(&facts, &wanted())[0];
    let applied = apply(plan, &facts, &mut memory, directory.path()).expect("all is possible");
    let theirs = crate::setting::rule("198.18.0.9:22".parse().unwrap(), Target::Queue(3), true);
    memory.values.insert(theirs.name(), theirs);
    let undone = applied.undo(&facts, &mut memory).expect("it can be");
    assert!(
        matches!(undone.left.as_slice(), [left] if left.starts_with("rx-ntuple-filter: it is left on, since 1 rules")),
        "{undone:?}"
    );
    assert!(undone.kept.is_empty(), "{undone:?}");
    assert_eq!(memory.values["rx-ntuple-filter"].value(), "on");
    assert_eq!(memory.flow_rules().expect("a number"), 1);
}

#[test]
fn where_channels_are_refused_all_queues_are_served() {
    let (facts, clean) = steerable();
    let plan = plans(&facts, &wanted()).pop().expect("queues are shared");
    for (refused, queues) in [("channels", 4), ("rings", 2)] {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory {
            refused: vec![refused.to_owned()],
            ..clean.clone()
        };
        let applied = Applied::apply(&plan, &facts, &mut memory, directory.path(), |_| {}).expect("the rest");
        assert_eq!(applied.queues(), queues, "{refused}");
        assert_eq!(load(directory.path()).expect("a file").queues(), queues, "{refused}");
    }
}

#[test]
fn what_is_forgotten_is_not_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let (facts, mut memory) = steerable();
    let applied = apply(&plans(&facts, &wanted())[0], &facts, &mut memory, directory.path()).expect("possible");
    let after = memory.clone();
    applied.forget().expect("a file");
    assert_eq!(memory, after);
    assert!(load(directory.path()).is_none());
}

#[test]
fn a_device_of_the_same_address_is_put_back_under_another_index() {
    let directory = tempfile::tempdir().unwrap();
    let (facts, mut memory) = steerable();
    let before = memory.clone();
    let applied = apply(&plans(&facts, &wanted())[0], &facts, &mut memory, directory.path()).expect("all is possible");
    let moved = Facts { index: 9, ..facts };
    let undone = applied.undo(&moved, &mut memory).expect("it can be");
    assert_eq!((memory, undone.left.len()), (before, 0));
}

#[test]
fn one_process_at_a_time_changes_an_interface() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("made");
    let lock = Lock::take(&below, "nic0").expect("it is free");
    let error = Lock::take(&below, "nic0").expect_err("it is not");
    assert!(
        error.to_string() == "nic0 is being served with --tune by another process",
        "{error}"
    );
    Lock::take(&below, "nic1").expect("another interface");
    drop(lock);
    Lock::take(&below, "nic0").expect("it is free again");
}

#[test]
fn what_is_to_last_is_told_from_what_a_killed_run_has_left() {
    let directory = tempfile::tempdir().unwrap();
    let (facts, mut memory) = steerable();
    let mut applied = apply(&plans(&facts, &wanted())[0], &facts, &mut memory, directory.path()).expect("possible");
    assert!(!load(directory.path()).expect("a file").is_kept(&facts));
    applied.keep().expect("a file");
    let kept = load(directory.path()).expect("a file");
    assert!(kept.is_kept(&facts));
    assert_eq!(kept.queues(), 2);
    let other = Facts {
        permanent_mac: Some([2, 0, 0, 0, 0, 9]),
        ..facts.clone()
    };
    assert!(!kept.is_kept(&other), "another device");
    applied.state.boot_id = "another".to_owned();
    applied.save().expect("a file");
    assert!(!load(directory.path()).expect("a file").is_kept(&facts), "another boot");
}

#[test]
fn what_is_about_another_namespace_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let (facts, mut memory) = steerable();
    let plan = &plans(&facts, &wanted())[0];
    let mut applied = apply(plan, &facts, &mut memory, directory.path()).expect("all is possible");
    let here = applied.state.namespace.expect("an inode");
    applied.state.namespace = Some(here + 1);
    applied.save().expect("a file");
    let error = Applied::load(directory.path(), "nic0").expect_err("of another namespace");
    assert!(error.to_string().contains("another network namespace"), "{error}");
    // Before the machine was started anew, numbers of namespaces were others.
    applied.state.boot_id = "another".to_owned();
    applied.save().expect("a file");
    assert!(load(directory.path()).is_some());
}

#[test]
fn a_file_that_is_none_of_ours_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("nic0.json"), "{").unwrap();
    let error = Applied::load(directory.path(), "nic0").expect_err("no JSON");
    assert!(
        matches!(&error, Failure::State { .. }) && error.to_string().contains("nic0.json"),
        "{error}"
    );
}
