//! The engine over simulated links, from seeds.
//!
//! One program for all of it, since each that is linked takes as long as the simulation itself.

mod attack;
mod checks;
mod closed_output;
mod forge;
mod goodput;
mod seeds;
mod smoltcp;
