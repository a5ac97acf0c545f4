//! A real server on loopback TLS, with a scripted agent and client that seal as real ones do.
#![allow(clippy::unwrap_used)]

mod access;
mod ahead;
mod audits;
mod blobs;
mod cluster;
mod constraints;
mod enrolment;
mod faults;
mod heat;
mod leaders;
mod machine;
mod paths;
mod person;
mod prices;
mod projects;
mod refusals;
mod renewal;
mod spine;
mod stuck;
mod traces;
mod world;
