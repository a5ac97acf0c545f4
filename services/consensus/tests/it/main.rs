//! The replica as a whole: real files, real processes that are killed, real gRPC on loopback.
#![allow(clippy::unwrap_used)]

mod cluster;
mod load;
mod quiet;
mod single;
mod slow;
mod three;
