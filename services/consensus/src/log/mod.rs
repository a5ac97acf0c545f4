//! The log: an append-only file in segments, one fdatasync a frame.
//!
//! Owns which entries there are, where they lie, and when they are durable. Leaves what they mean to
//! the machine, and why a plain file rather than a tree to docs/design/log-store.md.
//!
//! ```text
//! append ─▶ tail in memory (readable) ─▶ desk ─▶ writer: one frame, one write, one fdatasync ─▶ flushed
//!                                             │ full                    purge ─▶ mark, then unlink segments
//!                                             ▼
//!                                        next segment
//! ```
//! Nothing is ever overwritten: a truncation is a record of its own, so that a crash at any point
//! leaves either the log before it or the log after it.

mod desk;
mod frame;
mod index;
mod mark;
mod recover;
mod segment;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use desk::Followers;
pub(crate) use frame::{read_all as read_entries, size as entry_size, write_all as write_entries};
pub(crate) use store::LogStore;
