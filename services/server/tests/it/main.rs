//! A real server on loopback TLS, with a scripted agent and client that seal as real ones do.
#![allow(clippy::unwrap_used)]

mod cluster;
mod faults;
mod machine;
mod person;
mod refusals;
mod spine;
mod world;
