//! Arguments of open loops, where requests or connections are due at a fixed rate.

use clap::ValueEnum;
use tidegate_args::UsageError;
use tidegate_load::Arrival;

/// The seed where none is given.
const DEFAULT_SEED: u64 = 1;

/// The spaces between what is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Spaces {
    /// All equal.
    Constant,
    /// Exponentially distributed, as independent users make them.
    Poisson,
}

/// Arguments of an open loop.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct OpenLoop {
    /// The spaces between what is due (default: constant)
    #[arg(long, value_enum)]
    arrival: Option<Spaces>,
    /// The seed of --arrival poisson; the same one makes the same spaces (default: 1)
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl OpenLoop {
    /// The spaces that were asked for.
    ///
    /// # Errors
    ///
    /// A seed is given for spaces that are all equal (a usage error).
    pub(crate) fn arrival(&self) -> Result<Arrival, UsageError> {
        match (self.arrival, self.seed) {
            (Some(Spaces::Poisson), seed) => Ok(Arrival::Poisson {
                seed: seed.unwrap_or(DEFAULT_SEED),
            }),
            (_, Some(_)) => Err(UsageError(
                "--seed is for --arrival poisson; constant spaces have none".to_owned(),
            )),
            (_, None) => Ok(Arrival::Constant),
        }
    }

    /// Refuses the arguments that were given: there is no rate.
    ///
    /// # Errors
    ///
    /// There are some (a usage error).
    pub(super) fn refuse(&self) -> Result<(), UsageError> {
        if self.arrival.is_some() || self.seed.is_some() {
            return Err(UsageError(
                "--arrival and --seed are for connections at a rate; add --rate N or leave them out".to_owned(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tidegate_report::testing::parse;

    use super::*;

    fn arrival(arguments: &[&str]) -> Result<Arrival, UsageError> {
        parse::<OpenLoop>(arguments).unwrap().arrival()
    }

    #[test]
    fn spaces_are_equal_unless_they_are_asked_to_be_random() {
        assert_eq!(arrival(&[]).unwrap(), Arrival::Constant);
        assert_eq!(arrival(&["--arrival", "constant"]).unwrap(), Arrival::Constant);
        let poisson = |seed| Arrival::Poisson { seed };
        assert_eq!(arrival(&["--arrival", "poisson"]).unwrap(), poisson(DEFAULT_SEED));
        assert_eq!(arrival(&["--arrival", "poisson", "--seed", "7"]).unwrap(), poisson(7));
    }

    #[test]
    fn what_has_no_effect_is_refused() {
        let error = arrival(&["--seed", "7"]).unwrap_err().to_string();
        assert!(error.contains("--arrival poisson"), "{error}");
        for arguments in [&["--arrival", "constant"][..], &["--seed", "1"]] {
            assert!(parse::<OpenLoop>(arguments).unwrap().refuse().is_err(), "{arguments:?}");
        }
        parse::<OpenLoop>(&[]).unwrap().refuse().unwrap();
    }
}
