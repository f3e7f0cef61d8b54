//! Frames made in the kernel: `BPF_PROG_TEST_RUN` runs the flood's program on live frames, which it redirects to the
//! interface (Linux 5.18).

use anyhow::Context;
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, TestRun, TestRunAttrs, TestRunOptions};
use tidegate_abi::traffic::{Flood, INPUT_LENGTH, MAP_FLOOD, MAP_RANDOM, PROGRAM_FLOOD, counter};

use super::object::{self, Counters};
use crate::random::RandomBytes;

/// Frames the kernel makes before it hands them over; it takes 256 at most.
const BATCH: u32 = 64;

/// What each frame is before the program has written it.
const INPUT: [u8; INPUT_LENGTH] = [0; INPUT_LENGTH];

/// The kernel's generator, set up for one flood.
pub(super) struct LiveFrames {
    ebpf: Ebpf,
    counters: Counters,
}

impl LiveFrames {
    /// Loads the program for `flood`. `None` when this kernel has no live frames.
    ///
    /// # Errors
    ///
    /// The kernel refuses the program or its maps, or to run it.
    pub(super) fn new(flood: &Flood, seed: u64) -> anyhow::Result<Option<Self>> {
        let mut ebpf = object::load()?;
        let counters = Counters::take(&mut ebpf)?;
        let mut random = RandomBytes::new(seed);
        object::set_per_cpu(&mut ebpf, MAP_RANDOM, || random.next_word())?;
        let program = object::load_program(&mut ebpf, PROGRAM_FLOOD)?;
        // Without settings the program drops what it runs on, so that nothing is sent by this.
        match run(program, 1) {
            Err(error) if is_missing(object::errno(&error)) => return Ok(None),
            result => result.context("cannot run the flood's program (BPF_PROG_TEST_RUN)")?,
        }
        object::set_only_entry(&mut ebpf, MAP_FLOOD, *flood)?;
        Ok(Some(Self { ebpf, counters }))
    }

    /// Makes and sends `count` frames, or fewer when a signal comes.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn send(&mut self, count: u32) -> anyhow::Result<()> {
        let program = self.ebpf.program(PROGRAM_FLOOD);
        let program = program.with_context(|| format!("the program {PROGRAM_FLOOD} is gone"))?;
        match run(<&Xdp>::try_from(program)?, count) {
            Err(error) if object::errno(&error) == Some(libc::EINTR) => Ok(()),
            result => result.context("cannot make frames (BPF_PROG_TEST_RUN)"),
        }
    }

    /// Frames made and sent so far. The interface may have had no room for some of them.
    pub(super) fn sent(&self) -> u64 {
        self.counters.get(counter::FRAMES)
    }
}

fn run(program: &Xdp, count: u32) -> Result<(), ProgramError> {
    program
        .test_run(TestRunOptions {
            data_in: Some(&INPUT),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        })
        .map(|_| ())
}

/// Whether this is what a kernel says that does not know live frames.
fn is_missing(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::EINVAL | libc::EOPNOTSUPP | libc::E2BIG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_without_live_frames_falls_back() {
        for errno in [libc::EINVAL, libc::EOPNOTSUPP] {
            assert!(is_missing(Some(errno)));
        }
        for errno in [libc::EPERM, libc::ENOMEM, libc::EINTR] {
            assert!(!is_missing(Some(errno)));
        }
        assert!(!is_missing(None));
    }
}
