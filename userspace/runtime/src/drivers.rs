//! The way in which sockets are bound, by the facts that are known of the interface's driver.

use tidegate_nic::drivers::driver;
use tidegate_tcp::config::InvalidSetting;
use tidegate_xsk::MultiBuffer;

use crate::config::{Config, CookieMode, LINK_HEADERS, MAX_JUMBO_MTU, MAX_MTU, XDP_PACKET_HEADROOM, ZeroCopy};
use crate::error::Error;
use crate::interface::Interface;
use crate::xdp::Attached;

/// Octets of a received frame that some devices count to its buffer: the frame check sequence.
const FCS: u32 = 4;

/// The way the sockets of an interface are to be bound: in zero-copy mode if the kernel gives it, otherwise in copy
/// mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BindPlan {
    /// The size of frames in zero-copy mode; `None`: it is not to be tried.
    pub(crate) zero_copy: Option<u32>,
    /// The size of frames in copy mode; `None`: zero-copy or nothing.
    pub(crate) copy: Option<u32>,
    /// The limits of packets of several frames, where the MTU takes them.
    pub(crate) multi_buffer: Option<MultiBuffer>,
    buffer_unit: u32,
}

impl BindPlan {
    /// The plan for `interface`, whose program is `attached`.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] when zero-copy is required and would not work as things are, or the interface's packets do
    /// not fit a frame.
    pub(crate) fn new(
        config: &Config,
        cookies: CookieMode,
        interface: &Interface,
        attached: Attached,
    ) -> Result<Self, Error> {
        let known = driver(interface.driver.as_deref());
        let copy_size = config.frame_size_for(interface.mtu);
        let zero_copy_size = config.frame_size.unwrap_or(4096);
        let mut plan = Self {
            zero_copy: Some(zero_copy_size),
            copy: Some(copy_size),
            multi_buffer: config.multi_buffer(interface.mtu),
            buffer_unit: known.buffer_unit,
        };
        match config.zero_copy {
            ZeroCopy::Never => plan.zero_copy = None,
            ZeroCopy::Require => plan.copy = None,
            ZeroCopy::Auto => {}
        }
        let reason = plan.zero_copy.and_then(|size| {
            let driver = known.name;
            let name = &interface.name;
            if known.drops_xdp_tx && cookies != CookieMode::Never {
                Some(InvalidSetting::new(
                    ["zero_copy", "syn_cookies.mode"],
                    format!(
                        "the driver of {name}, {driver}, drops what XDP programs send in zero-copy mode, so that SYN \
                         cookies would bring no connection; zero-copy needs --syn-cookies never"
                    ),
                ))
            } else if plan.multi_buffer.is_none() && interface.mtu > max_mtu(size, known.buffer_unit) {
                Some(InvalidSetting::new(
                    ["zero_copy", "frame_size"],
                    format!(
                        "the driver of {name}, {driver}, would split packets in zero-copy mode: frames of {size} bytes \
                         serve an MTU of at most {}, and that of {name} is {}; {}",
                        max_mtu(size, known.buffer_unit),
                        interface.mtu,
                        if size < 4096 {
                            "zero-copy needs frame_size = 4096"
                        } else {
                            "zero-copy needs a smaller one"
                        },
                    ),
                ))
            } else {
                None
            }
        });
        if let Some(reason) = reason {
            if plan.copy.is_none() {
                return Err(Error::in_table("afxdp")(reason));
            }
            tracing::info!("af_xdp copy is used: {reason}");
            plan.zero_copy = None;
        }
        if config.zero_copy == ZeroCopy::Auto {
            // Without a program in the driver zero-copy would not receive; without a device below it, there is none.
            if attached == Attached::Generic || interface.is_virtual {
                plan.zero_copy = None;
            }
        }
        Ok(plan)
    }

    /// The plan for sockets of one UMEM, which are all bound in one mode.
    pub(crate) fn of_all(plans: impl IntoIterator<Item = Self>) -> Option<Self> {
        let larger = |one: Option<u32>, other: Option<u32>| one.zip(other).map(|(one, other)| one.max(other));
        plans.into_iter().reduce(|one, other| Self {
            zero_copy: larger(one.zero_copy, other.zero_copy),
            copy: larger(one.copy, other.copy),
            multi_buffer: one.multi_buffer.or(other.multi_buffer),
            buffer_unit: one.buffer_unit.max(other.buffer_unit),
        })
    }

    /// The largest MTU that a socket bound by this plan serves.
    pub(crate) fn max_mtu(&self, zero_copy: bool) -> u32 {
        if self.multi_buffer.is_some() {
            return MAX_JUMBO_MTU;
        }
        match (zero_copy, self.zero_copy, self.copy) {
            (true, Some(size), _) => max_mtu(size, self.buffer_unit),
            (_, _, Some(size)) => max_mtu(size, 1),
            _ => MAX_MTU,
        }
    }
}

/// The largest MTU with which the driver of an interface gives XDP programs packets in one buffer.
pub(crate) fn max_mtu_in_one_buffer(interface: &Interface) -> u32 {
    let known = driver(interface.driver.as_deref());
    known.max_mtu.unwrap_or(MAX_MTU).min(MAX_MTU)
}

/// The largest MTU whose packets fit a frame of `frame_size` octets, of whose room only multiples of `unit` are used.
fn max_mtu(frame_size: u32, unit: u32) -> u32 {
    let room = frame_size - XDP_PACKET_HEADROOM;
    let mtu = if unit > 1 {
        room / unit * unit - LINK_HEADERS - FCS
    } else {
        room - LINK_HEADERS
    };
    mtu.min(MAX_MTU)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(driver: Option<&str>, mtu: u32) -> Interface {
        Interface {
            name: "nic0".to_owned(),
            mtu,
            rx_queues: 2,
            tx_queues: 2,
            addresses: Vec::new(),
            driver: driver.map(str::to_owned),
            is_virtual: driver.is_none(),
        }
    }

    fn config(frame_size: Option<u32>, zero_copy: ZeroCopy) -> Config {
        Config {
            frame_size,
            zero_copy,
            ..Config::default()
        }
    }

    /// Sizes of frames in zero-copy and in copy mode.
    fn sizes(
        driver: &str,
        mtu: u32,
        frame_size: Option<u32>,
        zero_copy: ZeroCopy,
        cookies: CookieMode,
    ) -> Result<(Option<u32>, Option<u32>), Error> {
        let interface = interface(Some(driver), mtu);
        let plan = BindPlan::new(&config(frame_size, zero_copy), cookies, &interface, Attached::Native)?;
        Ok((plan.zero_copy, plan.copy))
    }

    #[test]
    fn zero_copy_takes_frames_of_4096_and_copy_the_smallest_that_do() {
        use CookieMode::Auto as Cookies;
        for driver in ["igb", "igc", "ixgbe", "i40e", "ena"] {
            let of = |mtu, size, mode| sizes(driver, mtu, size, mode, Cookies).expect("a plan");
            assert_eq!(of(1500, None, ZeroCopy::Auto), (Some(4096), Some(2048)), "{driver}");
            assert_eq!(of(3000, None, ZeroCopy::Auto), (Some(4096), Some(4096)), "{driver}");
            assert_eq!(of(1500, None, ZeroCopy::Never), (None, Some(2048)), "{driver}");
            assert_eq!(of(1500, None, ZeroCopy::Require), (Some(4096), None), "{driver}");
            assert_eq!(
                of(1500, Some(4096), ZeroCopy::Auto),
                (Some(4096), Some(4096)),
                "{driver}"
            );
        }
    }

    #[test]
    fn frames_of_2048_are_honoured_where_they_work_and_refused_where_they_do_not() {
        use CookieMode::Auto as Cookies;
        let works = sizes("i40e", 1500, Some(2048), ZeroCopy::Auto, Cookies).expect("a plan");
        assert_eq!(works, (Some(2048), Some(2048)));
        for driver in ["igb", "igc", "ixgbe"] {
            let falls_back = sizes(driver, 1500, Some(2048), ZeroCopy::Auto, Cookies).expect("a plan");
            assert_eq!(falls_back, (None, Some(2048)), "{driver}");
            let error = sizes(driver, 1500, Some(2048), ZeroCopy::Require, Cookies).expect_err(driver);
            assert!(
                error.is_usage() && error.to_string().contains("frame_size = 4096"),
                "{error}"
            );
            let Error::Setting { table, error } = error else {
                panic!("no setting is named: {error}")
            };
            assert_eq!((table, error.keys()), ("afxdp", &["zero_copy", "frame_size"][..]));
            // 3,072 octets are left of a frame of 4,096.
            let last = sizes(driver, 3046, None, ZeroCopy::Auto, Cookies).expect("a plan");
            assert_eq!(last, (Some(4096), Some(4096)), "{driver}");
            let beyond = sizes(driver, 3047, None, ZeroCopy::Auto, Cookies).expect("a plan");
            assert_eq!(beyond, (None, Some(4096)), "{driver}");
        }
    }

    #[test]
    fn virtio_net_copies_unless_cookies_are_never_sent() {
        for cookies in [CookieMode::Auto, CookieMode::Always] {
            let plan = sizes("virtio_net", 1500, None, ZeroCopy::Auto, cookies).expect("a plan");
            assert_eq!(plan, (None, Some(2048)));
            let error = sizes("virtio_net", 1500, None, ZeroCopy::Require, cookies).expect_err("no connections");
            assert!(
                error.is_usage() && error.to_string().contains("--syn-cookies never"),
                "{error}"
            );
        }
        let plan = sizes("virtio_net", 1500, None, ZeroCopy::Auto, CookieMode::Never).expect("a plan");
        assert_eq!(plan, (Some(4096), Some(2048)));
    }

    #[test]
    fn zero_copy_is_not_tried_where_there_is_no_device_or_no_program_in_its_driver() {
        let auto = config(None, ZeroCopy::Auto);
        let veth = interface(None, 1500);
        let plan = BindPlan::new(&auto, CookieMode::Auto, &veth, Attached::Native).expect("a plan");
        assert_eq!((plan.zero_copy, plan.copy), (None, Some(2048)));
        let nic = interface(Some("ice"), 1500);
        let plan = BindPlan::new(&auto, CookieMode::Auto, &nic, Attached::Generic).expect("a plan");
        assert_eq!((plan.zero_copy, plan.copy), (None, Some(2048)));
        // Who requires it hears from the kernel why not.
        let require = config(None, ZeroCopy::Require);
        let plan = BindPlan::new(&require, CookieMode::Auto, &veth, Attached::Native).expect("a plan");
        assert_eq!((plan.zero_copy, plan.copy), (Some(4096), None));
    }

    #[test]
    fn sockets_of_one_umem_have_the_mode_and_the_frames_that_all_can_have() {
        let auto = config(None, ZeroCopy::Auto);
        let plan = |driver, mtu| {
            BindPlan::new(&auto, CookieMode::Auto, &interface(driver, mtu), Attached::Native).expect("a plan")
        };
        let (igb, ice, virtio) = (
            plan(Some("igb"), 1500),
            plan(Some("ice"), 3000),
            plan(Some("virtio_net"), 1500),
        );
        let all = BindPlan::of_all([igb, ice]).expect("a plan");
        assert_eq!(
            (all.zero_copy, all.copy, all.buffer_unit),
            (Some(4096), Some(4096), 1024)
        );
        let all = BindPlan::of_all([ice, virtio]).expect("a plan");
        assert_eq!((all.zero_copy, all.copy), (None, Some(4096)));
        assert_eq!(BindPlan::of_all([igb]), Some(igb));
    }

    #[test]
    fn the_room_in_a_frame_bounds_the_mtu() {
        let plan = |driver| {
            let auto = config(None, ZeroCopy::Auto);
            BindPlan::new(&auto, CookieMode::Auto, &interface(driver, 1500), Attached::Native).expect("a plan")
        };
        assert_eq!(plan(None).max_mtu(false), 1770);
        assert_eq!(plan(Some("igb")).max_mtu(true), 3046);
        assert_eq!(plan(Some("i40e")).max_mtu(true), 3498);
        assert_eq!(plan(Some("i40e")).max_mtu(false), 1770);
    }

    #[test]
    fn above_the_mtu_of_a_page_the_kernel_says_whether_zero_copy_takes_several_frames() {
        for driver in [None, Some("igb"), Some("i40e")] {
            let jumbo = interface(driver, 9000);
            let auto = config(None, ZeroCopy::Auto);
            let plan = BindPlan::new(&auto, CookieMode::Auto, &jumbo, Attached::Native).expect("a plan");
            let zero_copy = driver.map(|_| 4096);
            assert_eq!((plan.zero_copy, plan.copy), (zero_copy, Some(4096)), "{driver:?}");
            assert!(plan.multi_buffer.is_some());
            let in_one_buffer = if driver.is_some() { 3046 } else { 3498 };
            assert_eq!(max_mtu_in_one_buffer(&jumbo), in_one_buffer);
            assert_eq!((plan.max_mtu(true), plan.max_mtu(false)), (9000, 9000));
        }
    }
}
