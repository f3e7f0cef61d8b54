//! Standard output whose reader is gone.

use std::process::{Command, Stdio};

#[test]
fn a_run_ends_as_it_should_though_nobody_reads_what_it_prints() {
    for arguments in [
        &["--seed", "1"][..],
        &["--seed", "1", "--trace"],
        &["run", "--seeds", "2"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate-sim"))
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    }
}
