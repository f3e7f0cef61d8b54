//! The configuration of a dispatcher: libxdp's protocol, version 2, which xdp-tools speak up to 1.5.

/// The first octet of a configuration.
pub const MAGIC: u8 = 236;

/// The version of the protocol.
pub const VERSION: u8 = 2;

/// The most programs below a dispatcher.
pub const MAX_PROGRAMS: usize = 10;

/// The action by which a place without a program has the next one run; a bit that all have among their actions.
pub const CONTINUE: u32 = 31;

/// The configuration, in the kernel's order of octets.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// [`MAGIC`].
    pub magic: u8,
    /// [`VERSION`].
    pub version: u8,
    /// Programs below it.
    pub programs: u8,
    /// 1: it takes packets in several buffers, as all programs below it do.
    pub frags: u8,
    /// The actions (bits) after which the next program is run.
    pub chain_call_actions: [u32; MAX_PROGRAMS],
    /// The priorities, the lowest first.
    pub priorities: [u32; MAX_PROGRAMS],
    /// Of the flags each program would be loaded with by itself, those that concern packets in several buffers.
    pub flags: [u32; MAX_PROGRAMS],
}

impl Config {
    /// The configuration of a dispatcher without programs.
    pub const EMPTY: Self = Self {
        magic: MAGIC,
        version: VERSION,
        programs: 0,
        frags: 0,
        chain_call_actions: [0; MAX_PROGRAMS],
        priorities: [0; MAX_PROGRAMS],
        flags: [0; MAX_PROGRAMS],
    };
}

#[cfg(feature = "userspace")]
// SAFETY: `repr(C)`, integers and arrays of them, and no padding (4 + 3 * 40 = 124 bytes, alignment 4).
unsafe impl aya::Pod for Config {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_libxdp() {
        assert_eq!(size_of::<Config>(), 124);
        assert_eq!(core::mem::offset_of!(Config, programs), 2);
        assert_eq!(core::mem::offset_of!(Config, chain_call_actions), 4);
        assert_eq!(core::mem::offset_of!(Config, priorities), 44);
    }
}
