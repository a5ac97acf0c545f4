//! Codecs of bytes: a compression frame, and the value codec that cannot execute.
//!
//! Owns the frame's format and the safe encoding of values (docs/design/value-codec.md). Leaves
//! where bytes live to `farlane-transfer`, and secrecy to `farlane-seal`.

mod frame;
pub mod value;

pub use frame::{Frame, FrameError, compress, decompress, decompress_owned};
