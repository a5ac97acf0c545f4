//! A real agent with real sandboxed workers, against a control plane in this process.

#![allow(clippy::unwrap_used)]

mod faults;
mod network;
mod node;
mod tasks;
mod work;
