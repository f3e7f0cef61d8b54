//! Finding and repairing loss.

pub mod rto;
