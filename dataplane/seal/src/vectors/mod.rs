//! Vectors checked in under `tests/vectors`, and the cast that the rooms' tests share.

mod known;
pub(crate) mod network;
mod ours;
