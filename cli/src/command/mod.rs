//! One file a command: its flags, its example, what it does.

pub mod agent;
pub mod cancel;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod explain;
pub mod granter;
pub mod keys;
pub mod login;
pub mod logs;
pub mod node_page;
pub mod nodes;
pub mod prices;
pub mod probe;
pub mod projects;
pub mod reference;
pub mod regions;
pub mod server;
pub mod sim;
pub mod status;
pub mod tasks;
pub mod tokens;
pub mod trace;
pub mod trust;
pub mod up;
