//! Measurements by several machines at the same time: [`serve`] is on each of them, [`control`] on the one that asks,
//! and [`protocol`] between them.

mod control;
mod protocol;
mod serve;

pub(crate) use self::control::Agents;
pub(crate) use self::serve::{Arguments, run};
