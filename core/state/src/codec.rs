//! Hand-written framing for what is hot: orders of the path of a call and the rows of a task.
//!
//! Owns reading and writing of integers, identities and length-prefixed bytes. A reader hands out
//! slices of the one body it reads, never copies. Everything else is postcard.

use bytes::Bytes;
use farlane_model::{BlobRef, Digest, Exit, ExitKind, LostCause, Sealed};
use farlane_units::ByteCount;

/// Appends fields to a buffer.
pub(crate) trait Write {
    fn raw(&mut self, bytes: &[u8]);

    fn u8(&mut self, v: u8) {
        self.raw(&[v]);
    }
    fn u16(&mut self, v: u16) {
        self.raw(&v.to_le_bytes());
    }
    fn u32(&mut self, v: u32) {
        self.raw(&v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.raw(&v.to_le_bytes());
    }
    /// Length (at most `u32::MAX`, which an entry's bound keeps far away) and bytes.
    fn bytes(&mut self, v: &[u8]) {
        self.u32(v.len() as u32);
        self.raw(v);
    }
    fn blob(&mut self, v: &BlobRef) {
        self.raw(v.digest.as_bytes());
        self.u64(v.size.0);
    }
    fn sealed(&mut self, v: &Sealed) {
        match v {
            Sealed::Inline(bytes) => {
                self.u8(0);
                self.bytes(bytes);
            }
            Sealed::Blob(blob) => {
                self.u8(1);
                self.blob(blob);
            }
        }
    }
    fn exit(&mut self, v: &Exit) {
        let (kind, cause, detail) = exit_numbers(v.kind);
        self.u8(kind);
        self.u8(cause);
        self.u32(detail as u32);
        self.bytes(v.message.as_bytes());
    }
}

impl Write for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Reads fields from one body. Every read answers `None` once the body is short or malformed.
pub(crate) struct Reader {
    body: Bytes,
    at: usize,
}

impl Reader {
    pub fn new(body: Bytes) -> Self {
        Self { body, at: 0 }
    }
    /// Whether everything has been read: trailing bytes are refused by callers.
    pub fn is_done(&self) -> bool {
        self.at == self.body.len()
    }
    fn take(&mut self, n: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(n)?;
        let part = self.body.get(self.at..end)?;
        self.at = end;
        Some(part)
    }
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[v]| v)
    }
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    /// A slice of the body.
    pub fn bytes(&mut self) -> Option<Bytes> {
        let len = self.u32()? as usize;
        let from = self.at;
        self.take(len)?;
        Some(self.body.slice(from..from + len))
    }
    pub fn text(&mut self) -> Option<String> {
        let len = self.u32()? as usize;
        std::str::from_utf8(self.take(len)?).ok().map(str::to_owned)
    }
    /// A count of items that each take at least `least` bytes, so that no count can ask for more
    /// memory than the body pays for.
    pub fn count(&mut self, least: usize) -> Option<usize> {
        let n = self.u32()? as usize;
        (n.checked_mul(least.max(1))? <= self.body.len() - self.at).then_some(n)
    }
    pub fn digest(&mut self) -> Option<Digest> {
        self.array().map(Digest)
    }
    pub fn blob(&mut self) -> Option<BlobRef> {
        Some(BlobRef {
            digest: self.digest()?,
            size: ByteCount(self.u64()?),
        })
    }
    pub fn sealed(&mut self) -> Option<Sealed> {
        match self.u8()? {
            0 => self.bytes().map(Sealed::Inline),
            1 => self.blob().map(Sealed::Blob),
            _ => None,
        }
    }
    pub fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    pub fn exit(&mut self) -> Option<Exit> {
        let (kind, cause, detail) = (self.u8()?, self.u8()?, self.u32()? as i32);
        Some(Exit {
            kind: exit_kind(kind, cause, detail)?,
            message: self.text()?,
        })
    }
}

/// The numbers of the wire's `ExitKind` and `LostCause`.
fn exit_numbers(kind: ExitKind) -> (u8, u8, i32) {
    match kind {
        ExitKind::Returned => (1, 0, 0),
        ExitKind::Raised => (2, 0, 0),
        ExitKind::Lost(cause) => {
            let (cause, detail) = match cause {
                LostCause::Signal(n) => (1, n),
                LostCause::ExitCode(n) => (2, n),
                LostCause::OutOfMemory => (3, 0),
                LostCause::ScratchFull => (4, 0),
                LostCause::LeaseExpired => (5, 0),
                LostCause::NodeRestarted => (6, 0),
                LostCause::NodeRemoved => (7, 0),
                LostCause::Sandbox => (8, 0),
                LostCause::GangBroken => (9, 0),
                LostCause::Preempted => (10, 0),
            };
            (3, cause, detail)
        }
        ExitKind::TimedOut => (4, 0, 0),
        ExitKind::Cancelled => (5, 0, 0),
        ExitKind::EnvFailed => (6, 0, 0),
        ExitKind::Refused => (7, 0, 0),
        ExitKind::Expired => (8, 0, 0),
        ExitKind::Infeasible => (9, 0, 0),
    }
}

fn exit_kind(kind: u8, cause: u8, detail: i32) -> Option<ExitKind> {
    Some(match kind {
        1 => ExitKind::Returned,
        2 => ExitKind::Raised,
        3 => ExitKind::Lost(match cause {
            1 => LostCause::Signal(detail),
            2 => LostCause::ExitCode(detail),
            3 => LostCause::OutOfMemory,
            4 => LostCause::ScratchFull,
            5 => LostCause::LeaseExpired,
            6 => LostCause::NodeRestarted,
            7 => LostCause::NodeRemoved,
            8 => LostCause::Sandbox,
            9 => LostCause::GangBroken,
            10 => LostCause::Preempted,
            _ => return None,
        }),
        4 => ExitKind::TimedOut,
        5 => ExitKind::Cancelled,
        6 => ExitKind::EnvFailed,
        7 => ExitKind::Refused,
        8 => ExitKind::Expired,
        9 => ExitKind::Infeasible,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn exits_survive_the_bytes() {
        let kinds = [
            ExitKind::Returned,
            ExitKind::Raised,
            ExitKind::Lost(LostCause::Signal(-9)),
            ExitKind::Lost(LostCause::ExitCode(3)),
            ExitKind::Lost(LostCause::OutOfMemory),
            ExitKind::Lost(LostCause::ScratchFull),
            ExitKind::Lost(LostCause::LeaseExpired),
            ExitKind::Lost(LostCause::NodeRestarted),
            ExitKind::Lost(LostCause::NodeRemoved),
            ExitKind::Lost(LostCause::Sandbox),
            ExitKind::Lost(LostCause::GangBroken),
            ExitKind::Lost(LostCause::Preempted),
            ExitKind::TimedOut,
            ExitKind::Cancelled,
            ExitKind::EnvFailed,
            ExitKind::Refused,
            ExitKind::Expired,
            ExitKind::Infeasible,
        ];
        for kind in kinds {
            let exit = Exit::new(kind, "why");
            let mut out = Vec::new();
            out.exit(&exit);
            let mut reader = Reader::new(out.into());
            assert_eq!(reader.exit().unwrap(), exit);
            assert!(reader.is_done());
        }
    }

    #[test]
    fn bytes_are_slices_of_the_body() {
        let mut out = Vec::new();
        out.bytes(b"payload");
        let body = Bytes::from(out);
        let read = Reader::new(body.clone()).bytes().unwrap();
        assert_eq!(read.as_ptr(), body[4..].as_ptr());
    }

    #[test]
    fn a_count_cannot_ask_for_more_than_was_paid() {
        let mut out = Vec::new();
        out.u32(u32::MAX);
        assert!(Reader::new(out.into()).count(1).is_none());
    }
}
