//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;
use tidegate_control::CookieMode as CookieChoice;
use tidegate_runtime::{Attach, CookieMode, NextHop, Prefix, WaitStrategy, XdpMode};

use crate::ctl::{CaptureArguments, ConnsArguments, CountersArguments, KillArguments, TopArguments, TraceArguments};
use crate::listen::Listen;
use crate::log::LogFormat;

/// A TCP server beside the kernel: XDP steers the flows of chosen ports to AF_XDP sockets, everything else stays with
/// the kernel.
///
/// Exit code: 0 after a stop by signal, 1 for a failure, 2 for wrong arguments or configuration.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about)]
pub(crate) struct Arguments {
    /// The sub-command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve until SIGINT or SIGTERM; SIGHUP reloads the configuration, SIGUSR1 prints the counters, SIGUSR2 opens
    /// the access log anew, SIGWINCH drains.
    Serve(Box<ServeArguments>),
    /// Say whether an interface can be served as configured, and what stands in the way; exit code 0 only if it can
    Doctor(Box<DoctorArguments>),
    /// Ask a running server, and steer it.
    Ctl(CtlArguments),
    /// Show an interface, and prepare it for tidegate and back
    #[command(subcommand)]
    Nic(NicCommand),
    /// Check a configuration file and print OK or what is wrong with it.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Print completions of this command line for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write a man page of the program and one of each sub-command.
    Man {
        /// The folder to write them into, which is made.
        directory: PathBuf,
    },
}

/// Arguments of `tidegate ctl`.
#[derive(Debug, Args)]
pub(crate) struct CtlArguments {
    /// The control socket of the server, as given to `serve --control`
    #[arg(long, value_name = "PATH", default_value = "/run/tidegate/control")]
    pub(crate) control: PathBuf,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: CtlCommand,
}

/// The commands of `tidegate ctl`.
#[derive(Debug, Subcommand)]
pub(crate) enum CtlCommand {
    /// Show version, process, interfaces and state, and whether the program was replaced since.
    Info {
        /// As JSON, with the watchdog's limit.
        #[arg(long)]
        json: bool,
    },
    /// Refuse new connections, finish the open ones, and stay.
    Drain,
    /// Open the access log anew, by its name: it may have been renamed.
    Reopen,
    /// Read the configuration file again, and serve by it without losing a connection, or not at all.
    Reload,
    /// List connections with their state, like `ss -tie`
    Conns(ConnsArguments),
    /// Reset connections
    Kill(KillArguments),
    /// Print all counters
    Counters(CountersArguments),
    /// Show rates, connections, drops and peers, again every second; q quits
    Top(TopArguments),
    /// Answer SYNs with cookies: on, off, or auto while a queue is under pressure; until the next such command
    Cookies {
        /// When.
        mode: CookieChoice,
    },
    /// Log what a filter lets through, until the next such command
    LogLevel {
        /// A level such as info, or a filter such as warn,tidegate_runtime=debug
        filter: String,
    },
    /// Copy frames to a pcapng file: received, sent, and what the XDP program drops or answers
    Capture(CaptureArguments),
    /// Show segments, changes of state and drops of a peer's connections in words, a line each
    Trace(TraceArguments),
}

/// Arguments of `tidegate doctor`: those of `serve`, of which none is needed.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// The interfaces, instead of --iface (default: those of the configuration file, or a table of all)
    #[arg(value_name = "IFACE", conflicts_with = "iface")]
    pub(crate) interface: Vec<String>,
    /// Print JSON, for programs.
    #[arg(long)]
    pub(crate) json: bool,
    /// The services that would be served, and their settings.
    #[command(flatten)]
    pub(crate) serve: ServeArguments,
}

/// The sub-commands of `tidegate nic`.
#[derive(Debug, Subcommand)]
pub(crate) enum NicCommand {
    /// Show what can be changed about an interface, as it is.
    Show {
        /// The interface.
        iface: String,
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Print what `apply` would change, each with its reason, and change nothing.
    Plan {
        /// The services that would be served, and their settings.
        #[command(flatten)]
        arguments: Box<NicArguments>,
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Change it: queues for tidegate alone where the driver can, offloads, rings, interrupts.
    Apply {
        /// The services that will be served, and their settings.
        #[command(flatten)]
        arguments: Box<NicArguments>,
    },
    /// Put back what `apply` changed, also after a crash.
    Undo {
        /// The interface.
        iface: String,
        /// Where `apply` has kept what was (default: /var/lib/tidegate/nic)
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
        /// Give up on what cannot be put back.
        #[arg(long)]
        forget: bool,
    },
}

/// Arguments of `tidegate nic plan` and `apply`: those of `serve`, of which none is needed.
#[derive(Debug, Args)]
pub(crate) struct NicArguments {
    /// The interface, instead of --iface
    #[arg(value_name = "IFACE", conflicts_with = "iface")]
    pub(crate) interface: String,
    /// The services that would be served, and their settings.
    #[command(flatten)]
    pub(crate) serve: ServeArguments,
}

/// Arguments of `tidegate serve`. They win over the configuration file.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServeArguments {
    /// The interface to take frames from; a bond stands for its slaves. May be given several times.
    #[arg(long)]
    pub(crate) iface: Vec<String>,
    /// Serve http, echo or discard on an address of an interface: http=ADDRESS:PORT, with IPv6 addresses in brackets;
    /// 0.0.0.0 and :: are all of their family. May be given several times.
    #[arg(long, value_name = "SERVICE=ADDRESS:PORT")]
    pub(crate) listen: Vec<Listen>,
    /// The directory http serves (default: a built-in page)
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Receive queues to serve, one thread each (default: all of the device)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) queues: Option<u32>,
    /// Place of the XDP program (default: auto)
    #[arg(long, value_name = "MODE", value_enum)]
    pub(crate) xdp_mode: Option<XdpMode>,
    /// Attach the XDP program by a bpf_link, alone, or by libxdp's dispatcher, beside others (default: link)
    #[arg(long, value_name = "WAY", value_enum)]
    pub(crate) attach: Option<Attach>,
    /// Behaviour of a thread without work (default: adaptive)
    #[arg(long, value_name = "STRATEGY", value_enum)]
    pub(crate) wait: Option<WaitStrategy>,
    /// Way of what is sent: back to where segments come from, or by the kernel's routes (default: reflect)
    #[arg(long, value_name = "WAY", value_enum)]
    pub(crate) next_hop: Option<NextHop>,
    /// Condition for answering SYNs with cookies (default: auto)
    #[arg(long, value_name = "MODE", value_enum)]
    pub(crate) syn_cookies: Option<CookieMode>,
    /// Derive the keys of SYN cookies from this file, so that hosts with the same one accept each other's (default: a
    /// random secret)
    #[arg(long, value_name = "FILE")]
    pub(crate) cookie_key_file: Option<PathBuf>,
    /// Serve sources in this prefix, beside those the configuration file allows; the longest prefix that matches
    /// decides. May be given several times.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) allow: Vec<Prefix>,
    /// Drop TCP to what is served from sources in this prefix, beside those the configuration file denies. May be given
    /// several times.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) deny: Vec<Prefix>,
    /// Time that open connections have to finish when the server stops (default: 5s)
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) drain: Option<Duration>,
    /// Take the queues over from the server that listens on this unix socket, if there is one, which keeps the
    /// connections it has; and listen there for the next.
    #[arg(long, value_name = "PATH", conflicts_with = "tune")]
    pub(crate) take_over: Option<PathBuf>,
    /// Prepare the interface as `tidegate nic apply` does, serve the queues that are tidegate's then, and put it back
    /// at the end.
    #[arg(long)]
    pub(crate) tune: bool,
    /// Where to keep what was before --tune or `tidegate nic apply` (default: /var/lib/tidegate/nic)
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Show metrics, health, an API and a dashboard by HTTP on this address of the kernel's, without authentication: a
    /// loopback one is seen by this host alone, as 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) admin: Option<SocketAddr>,
    /// Listen for `tidegate ctl` on this unix socket, which is for the owner of the process alone unless the key
    /// `control.owner` says otherwise.
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
    /// Read settings from this TOML file; arguments win over it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print a line with the current rates this often, at least 100ms.
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    pub(crate) stats_interval: Option<Duration>,
    /// Form of the log on standard error (default: text)
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// Log more to standard error; twice for even more.
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Print only errors, the line that says the server is ready, and the counters at the end.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(100) {
        return Err("it must be at least 100ms".to_owned());
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn serve(arguments: &[&str]) -> Result<ServeArguments, clap::Error> {
        let all = ["tidegate", "serve"].into_iter().chain(arguments.iter().copied());
        match Arguments::try_parse_from(all)?.command {
            Command::Serve(arguments) => Ok(*arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_mode_and_strategy_can_be_chosen() {
        for (name, mode) in [
            ("auto", XdpMode::Auto),
            ("native", XdpMode::Native),
            ("generic", XdpMode::Generic),
        ] {
            assert_eq!(serve(&["--xdp-mode", name]).unwrap().xdp_mode, Some(mode));
        }
        for (name, wait) in [
            ("poll", WaitStrategy::Poll),
            ("busy-poll", WaitStrategy::BusyPoll),
            ("spin", WaitStrategy::Spin),
            ("adaptive", WaitStrategy::Adaptive),
        ] {
            assert_eq!(serve(&["--wait", name]).unwrap().wait, Some(wait));
        }
    }

    #[test]
    fn the_next_hop_can_be_chosen() {
        for (name, way) in [("reflect", NextHop::Reflect), ("kernel", NextHop::Kernel)] {
            assert_eq!(serve(&["--next-hop", name]).unwrap().next_hop, Some(way));
        }
    }

    #[test]
    fn cookies_and_sources_can_be_chosen() {
        for (name, mode) in [
            ("never", CookieMode::Never),
            ("auto", CookieMode::Auto),
            ("always", CookieMode::Always),
        ] {
            assert_eq!(serve(&["--syn-cookies", name]).unwrap().syn_cookies, Some(mode));
        }
        let arguments = serve(&["--cookie-key-file", "/etc/tidegate/cookie.key"]).unwrap();
        assert!(arguments.cookie_key_file.is_some());
        let arguments = serve(&["--allow", "192.0.2.0/24", "--deny", "0.0.0.0/0", "--deny", "::/0"]).unwrap();
        assert_eq!((arguments.allow.len(), arguments.deny.len()), (1, 2));
    }

    #[test]
    fn listeners_add_up() {
        let arguments = serve(&["--listen", "http=198.18.0.1:80", "--listen", "echo=[2001:2::1]:7"]).unwrap();
        assert_eq!(arguments.listen.len(), 2);
    }

    #[test]
    fn a_doctor_takes_the_arguments_of_serve_and_an_interface_of_its_own() {
        let doctor = |arguments: &[&str]| {
            let all = ["tidegate", "doctor"].into_iter().chain(arguments.iter().copied());
            match Arguments::try_parse_from(all)?.command {
                Command::Doctor(arguments) => Ok(*arguments),
                other => panic!("{other:?}"),
            }
        };
        let arguments = doctor(&["eth1", "--json", "--listen", "http=198.18.0.1:80"]).unwrap();
        assert_eq!((arguments.interface, arguments.json), (vec!["eth1".to_owned()], true));
        assert_eq!(arguments.serve.listen.len(), 1);
        assert!(doctor(&[]).unwrap().interface.is_empty());
        let error: clap::Error = doctor(&["eth1", "--iface", "eth2"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for arguments in [
            &["--listen", "http=127.0.0.1:80"][..],
            &["--queues", "0"],
            &["--xdp-mode", "offload"],
            &["--wait", "sleep"],
            &["--next-hop", "default"],
            &["--syn-cookies", "sometimes"],
            &["--deny", "192.0.2.1/24"],
            &["--allow", "everybody"],
            &["--drain", "5"],
            &["--stats-interval", "1ms"],
            &["--log-format", "xml"],
            &["-v", "--quiet"],
            &["stray"],
        ] {
            let error = serve(arguments).expect_err("wrong arguments");
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }
}
