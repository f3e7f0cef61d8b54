//! The whole engine against four peers, a clock and an application that do whatever the input says.
//!
//! `input` is the grammar, `peer` makes segments and judges what the engine sends, `application` judges what it is
//! given, `world` turns the clock and checks the limits after every step.
#![no_main]

mod application;
mod input;
mod peer;
mod world;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: input::Input| {
    world::run(input);
});
