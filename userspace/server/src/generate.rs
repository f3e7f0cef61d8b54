//! Completions and man pages, made of the command line's definition.

use std::path::Path;
use std::{fs, io};

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::failure::Failure;

/// The completions for `shell`.
pub(crate) fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "tidegate", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Writes a man page of the program and one of each sub-command into `directory`, which is made.
///
/// # Errors
///
/// The directory or one of the files cannot be written.
pub(crate) fn man_pages(directory: &Path) -> Result<(), Failure> {
    let written = fs::create_dir_all(directory).and_then(|()| write(directory));
    written.map_err(|source| Failure::System {
        what: format!("cannot write man pages into {}", directory.display()),
        source,
    })
}

fn write(directory: &Path) -> io::Result<()> {
    // Long lines are the reader's to wrap.
    clap_mangen::generate_to(Arguments::command().disable_help_subcommand(true), directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_know_the_options_of_every_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = completions(shell);
            for word in ["check-config", "busy-poll", "syn-cookies"] {
                assert!(text.contains(word), "{shell}: no {word}");
            }
        }
    }

    #[test]
    fn every_sub_command_has_a_man_page() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("man1");
        man_pages(&directory).unwrap();
        for page in ["tidegate.1", "tidegate-serve.1", "tidegate-nic-undo.1"] {
            let text = fs::read_to_string(directory.join(page)).unwrap();
            assert!(text.contains(".TH ") && text.contains(".SH SYNOPSIS"), "{page}");
        }
        let text = fs::read_to_string(directory.join("tidegate-serve.1")).unwrap();
        assert!(text.contains("default: adaptive"), "{text}");
        let failure = man_pages(Path::new("/dev/null/man")).unwrap_err();
        assert!(failure.to_string().contains("/dev/null/man"), "{failure}");
    }
}
