//! A measurement that another machine asks for.

use std::net::IpAddr;

use clap::Parser;
use tidegate_args::UsageError;
use tidegate_load::Arrival;

use super::options::Options;
use super::{Cps, Hold, Latency, Rps, Throughput};

/// The arguments of a measurement, from the name of the subcommand.
#[derive(Debug, Parser)]
#[command(name = "tidegate-bench", no_binary_name = true)]
pub(crate) enum Job {
    /// `cps`.
    Cps(Cps),
    /// `rps`.
    Rps(Rps),
    /// `latency`.
    Latency(Latency),
    /// `throughput`.
    Throughput(Throughput),
    /// `hold`.
    Hold(Hold),
}

impl Job {
    fn options(&self) -> &Options {
        match self {
            Self::Cps(arguments) => &arguments.options,
            Self::Rps(arguments) => &arguments.options,
            Self::Latency(arguments) => &arguments.options,
            Self::Throughput(arguments) => &arguments.options,
            Self::Hold(arguments) => &arguments.options,
        }
    }

    /// Returns the address that is loaded.
    ///
    /// # Errors
    ///
    /// The URL has a name, which could have another address once it is loaded.
    pub(crate) fn target(&self) -> Result<IpAddr, String> {
        let url = &self.options().url;
        url.address().ok_or_else(|| {
            format!(
                "an agent resolves no names; give the address of {} instead",
                url.authority()
            )
        })
    }

    /// Returns the seed of the spaces between what is due; `None` if these are not random.
    ///
    /// # Errors
    ///
    /// There is a seed for spaces that are not random, or such spaces without a rate (usage errors).
    pub(crate) fn seed(&self) -> Result<Option<u64>, UsageError> {
        let open_loop = match self {
            Self::Cps(arguments) if arguments.rate.is_none() => {
                return arguments.open_loop.refuse().map(|()| None);
            }
            Self::Cps(arguments) => &arguments.open_loop,
            Self::Latency(arguments) => &arguments.open_loop,
            Self::Rps(_) | Self::Throughput(_) | Self::Hold(_) => return Ok(None),
        };
        Ok(match open_loop.arrival()? {
            Arrival::Poisson { seed } => Some(seed),
            Arrival::Constant => None,
        })
    }

    /// Checks that the arguments go together.
    ///
    /// # Errors
    ///
    /// They do not (a usage error), or the target has a zone that is none.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let options = self.options();
        self.seed()?;
        options.client.build(options.url.resolve()?.address).map(drop)
    }

    /// Checks that it does nothing on the machine of an agent but measure.
    ///
    /// # Errors
    ///
    /// It writes files, or asks other agents.
    pub(crate) fn check_remote(&self) -> Result<(), String> {
        let options = self.options();
        if options.writes_files() {
            return Err("an agent writes no files; give --json and the like to the machine that asks it".to_owned());
        }
        if options.agents.are_asked() {
            return Err("an agent asks no other agents".to_owned());
        }
        Ok(())
    }
}
