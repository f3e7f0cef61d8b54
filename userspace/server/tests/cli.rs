//! `docs/cli.md` against the help of the programs. `make docs` writes it anew.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");

const INTRODUCTION: &str = "\
# Command line

The help of both programs and of all their sub-commands. This file is generated: `make docs` writes it anew, and a test
(`userspace/server/tests/cli.rs`) fails when it is out of date.
";

/// The help of `program` with these sub-commands, and of all sub-commands below.
fn append_help(document: &mut String, program: &Path, commands: &[String]) {
    let output = Command::new(program)
        .args(commands)
        .arg("--help")
        // The width is that of the terminal, if there is one.
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; `make build` makes it", program.display()));
    assert!(output.status.success(), "{} {commands:?} --help", program.display());
    let help = String::from_utf8(output.stdout).expect("text");

    let name = program.file_name().expect("a file").to_string_lossy();
    let title = [&[name.into_owned()], commands].concat().join(" ");
    let level = if commands.is_empty() { "##" } else { "###" };
    *document += &format!("\n{level} `{title}`\n\n");
    for line in help.trim_end().lines() {
        *document += format!("    {line}").trim_end();
        *document += "\n";
    }

    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in listed.take_while(|line| !line.is_empty()) {
        // What is longer than a line goes on further to the right.
        let name = line.strip_prefix("  ").and_then(|line| line.split(' ').next());
        if let Some(name) = name.filter(|name| !name.is_empty() && *name != "help") {
            append_help(document, program, &[commands, &[name.to_owned()]].concat());
        }
    }
}

#[test]
fn the_document_is_the_help_of_the_programs() {
    let mut document = INTRODUCTION.to_owned();
    let tidegate = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    for program in [tidegate, &tidegate.with_file_name("tidegate-bench")] {
        append_help(&mut document, program, &[]);
    }
    if env::var_os("TIDEGATE_UPDATE_DOCS").is_some() {
        fs::write(DOCUMENT, &document).expect("docs/cli.md can be written");
    }
    let written = fs::read_to_string(DOCUMENT).unwrap_or_default();
    for (number, (written, current)) in written.lines().zip(document.lines()).enumerate() {
        assert_eq!(
            written,
            current,
            "docs/cli.md:{} is out of date; `make docs` writes it anew",
            number + 1
        );
    }
    assert!(
        written == document,
        "docs/cli.md is cut off or goes on; `make docs` writes it anew"
    );
}
