//! The lab of `scripts/lab.sh` from the outside, and what all measurements in it share: namespaces, the processes in
//! them, cores and devices, and what the kernel says of the machine.

pub(crate) mod arrangement;
pub(crate) mod children;
pub(crate) mod family;
pub(crate) mod machine;
pub(crate) mod namespaces;
pub(crate) mod progress;
