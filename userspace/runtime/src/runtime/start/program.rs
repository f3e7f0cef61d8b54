//! The XDP program of a runtime that starts.

use tidegate_exchange::FlowFilter;

use crate::config::Config;
use crate::error::Error;
use crate::take_over::{Earlier, Predecessor};
use crate::xdp::{Offered, ProgramSettings, Steering};

/// The XDP program, before it steers to sockets of this process.
pub(super) enum Program {
    /// On the devices.
    Attached(Box<Steering>),
    /// As another process has it on the devices.
    Offered(Box<(Predecessor, Offered)>),
}

impl Program {
    pub(super) fn new(
        predecessor: Option<Predecessor>,
        names: &[&str],
        queues: u32,
        config: &Config,
        settings: &ProgramSettings<'_>,
    ) -> Result<Self, Error> {
        let Some(predecessor) = predecessor else {
            // Attached before the sockets are bound: drivers set their queues up for AF_XDP only below a program.
            return Ok(Self::Attached(Box::new(Steering::attach(names, config, settings)?)));
        };
        predecessor.check(names, queues, settings.program())?;
        let offered = Offered::load(&predecessor, config, settings)?;
        Ok(Self::Offered(Box::new((predecessor, offered))))
    }

    pub(super) fn flow_filter(&self) -> &FlowFilter {
        match self {
            Self::Attached(steering) => steering.flow_filter(),
            Self::Offered(offered) => offered.1.flow_filter(),
        }
    }

    /// Has another process release its sockets, if there is one.
    pub(super) fn serve(
        self,
        config: &Config,
        settings: &ProgramSettings<'_>,
    ) -> Result<(Steering, Vec<Earlier>), Error> {
        match self {
            Self::Attached(steering) => Ok((*steering, Vec::new())),
            Self::Offered(offered) => {
                let (mut predecessor, offered) = *offered;
                predecessor.release()?;
                let steering = offered.take_over(&mut predecessor, config, settings)?;
                Ok((steering, predecessor.into_earlier()))
            }
        }
    }
}
