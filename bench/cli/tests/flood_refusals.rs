//! Targets and sources that `tidegate-bench flood` refuses, seen from the outside.

use std::process::Command;

/// Runs a flood of SYNs with these arguments on an interface that does not exist, and returns its exit code and errors.
fn flood(arguments: &[&str]) -> (Option<i32>, String) {
    flood_of("syn", arguments)
}

fn flood_of(kind: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-bench"))
        .args(["flood", "--iface", "no-such-dev", "--kind", kind])
        .args(arguments)
        .output()
        .expect("the program runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn targets_and_sources_outside_of_the_benchmark_ranges_are_usage_errors() {
    for arguments in [
        &["--target", "192.0.2.1:80"][..],
        &["--target", "127.0.0.1:80"],
        &["--target", "198.20.0.1:80"],
        &["--target", "[2001:db8::1]:80"],
        &["--target", "[fe80::1]:80"],
        &["--target", "198.18.0.1:80", "--sources", "192.0.2.0/24"],
        &["--target", "[2001:2::1]:80", "--sources", "2001:db8::/48"],
        &["--target", "198.18.0.1:80", "--targets", "192.0.2.0/24"],
        &["--target", "198.18.0.1:80", "--targets", "198.18.0.0/14"],
        &["--target", "[2001:2::1]:80", "--targets", "2001:db8::/48"],
    ] {
        let (code, errors) = flood(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains("198.18.0.0/15"), "{arguments:?}: {errors}");
    }
}

#[test]
fn the_ranges_hold_for_every_kind() {
    for kind in [
        "syn-data",
        "fragment",
        "connect",
        "idle",
        "slow-head",
        "slow-read",
        "zero-window",
        "zero-one-window",
        "tiny-mss",
    ] {
        for arguments in [
            &["--target", "192.0.2.1:80"][..],
            &["--target", "198.18.0.1:80", "--sources", "192.0.2.0/24"],
        ] {
            let (code, errors) = flood_of(kind, arguments);
            assert_eq!(code, Some(2), "{kind} {arguments:?}: {errors}");
            assert!(errors.contains("198.18.0.0/15"), "{kind} {arguments:?}: {errors}");
        }
    }
}

#[test]
fn mapped_targets_other_families_and_long_floods_are_usage_errors() {
    for (arguments, phrase) in [
        (&["--target", "[::ffff:198.18.0.1]:80"][..], "IPv4-mapped"),
        (
            &["--target", "198.18.0.1:80", "--sources", "2001:2::/64"][..],
            "same family",
        ),
        (
            &["--target", "198.18.0.1:80", "--targets", "2001:2::/64"],
            "same family",
        ),
        (&["--target", "198.18.0.1:80", "--duration", "601s"], "at most 600 s"),
    ] {
        let (code, errors) = flood(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(phrase), "{arguments:?}: {errors}");
    }
}

#[test]
fn an_interface_that_is_not_there_is_a_failure() {
    let (code, errors) = flood(&["--target", "198.18.0.1:80"]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("no-such-dev"), "{errors}");
}
