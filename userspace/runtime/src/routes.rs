//! The devices that frames leave by.

use tidegate_xsk::MAX_DEVICES;

/// By device, the one by which leaves what is to leave by it: itself, or one that takes its place, as one slave of a
/// bond does for another. And which devices are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Routes {
    by: [u8; MAX_DEVICES],
    /// 1 << device.
    gone: u8,
}

impl Default for Routes {
    /// Every device by itself.
    fn default() -> Self {
        Self {
            by: core::array::from_fn(|device| device as u8),
            gone: 0,
        }
    }
}

impl Routes {
    /// The device by which leaves what is to leave by `device`.
    #[inline]
    pub(crate) fn by(&self, device: u8) -> u8 {
        self.by[usize::from(device) % MAX_DEVICES]
    }

    /// From now on what is to leave by `device` leaves by `other`.
    pub(crate) fn set(&mut self, device: usize, other: usize) {
        self.by[device] = other as u8;
    }

    /// From now on nothing leaves by `device` itself.
    pub(crate) fn set_gone(&mut self, device: usize) {
        self.gone |= 1 << device;
    }

    /// Whether `device` is gone.
    pub(crate) fn is_gone(&self, device: usize) -> bool {
        self.gone & 1 << device != 0
    }
}
