//! A real agent with real sandboxed workers, against a control plane in this process.

#![allow(clippy::unwrap_used)]

mod calibration;
mod faults;
mod isolation;
mod network;
mod node;
mod servers;
mod service;
mod tasks;
mod way;
mod work;
