//! `tidegate-bench`: clients that load a TCP server and check what it answers.
//!
//! Both commands use the kernel's sockets, so they work against any server.

mod byte_size;
mod connection;
mod echo;
mod http_client;
mod load;
mod load_report;
mod random;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Clients that load a TCP server and check what it answers.
///
/// Exit code: 0 when everything was as it should be, 1 when something failed, 2 for wrong arguments.
#[derive(Debug, Parser)]
#[command(name = "tidegate-bench", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Request one URL over many connections, each with one request under way, and check every response.
    Load(load::Arguments),
    /// Send a pseudo-random stream to an echo service and compare the SHA-256 of what was sent and what came back.
    Echo(echo::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Load(arguments) => load::run(&arguments),
        Command::Echo(arguments) => echo::run(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tidegate-bench: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn limits_are_usage_errors() {
        for arguments in [
            &["load", "--url", "http://198.18.0.1:80/", "--connections", "10001"][..],
            &["load", "--url", "http://198.18.0.1:80/", "--connections", "0"],
            &["load", "--url", "http://198.18.0.1:80/", "--duration", "61s"],
            &["load", "--url", "https://198.18.0.1/"],
            &["echo", "--target", "198.18.0.1"],
            &["echo", "--target", "198.18.0.1:7", "--bytes", "0"],
        ] {
            let error = Arguments::try_parse_from(["tidegate-bench"].iter().chain(arguments))
                .expect_err("the arguments are out of range");
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{arguments:?}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn defaults_are_accepted() {
        for arguments in [
            &["load", "--url", "http://[2001:2::1]:80/x"][..],
            &["echo", "--target", "[2001:2::1]:7"],
        ] {
            let parsed = Arguments::try_parse_from(["tidegate-bench"].iter().chain(arguments));
            assert!(parsed.is_ok(), "{arguments:?}: {parsed:?}");
        }
    }
}
