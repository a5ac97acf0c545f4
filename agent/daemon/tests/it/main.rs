//! A real agent with real sandboxed workers, against a control plane in this process.

#![allow(clippy::unwrap_used)]

mod network;
mod tasks;
mod work;
