//! Stories of tasks, sessions and nodes, told order by order.
#![allow(clippy::unwrap_used)]

use farlane_model::ExitKind;

mod calls;
mod company;
mod devices;
mod ends;
mod fleet;
mod gangs;
mod keeping;
mod odd;
mod preemption;
mod prices;
mod quotas;
mod receipts;
mod standing;
mod submissions;
#[path = "../world/mod.rs"]
mod world;

pub const RETURNED: ExitKind = ExitKind::Returned;
pub const DAY: u64 = 24 * 3600 * 1000;
pub const HOUR: u64 = 3600 * 1000;
