//! What changes of a live task: attempts, retries and the lease it is under.

use bytes::Bytes;
use farlane_model::SessionId;
use farlane_units::{MilliUcu, Millis, NanoGramsCo2, UsdMicros};

use crate::codec::{Reader, Write};
use crate::task::{Lease, Quoted};

/// Row of `Table::Attempts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRow {
    /// The last attempt's number.
    pub attempt: u32,
    /// Retries used up after lost workers and nodes.
    pub lost: u16,
    /// Retries used up after exceptions.
    pub raised: u16,
    /// How often it made way for more urgent work.
    pub preempted: u16,
    /// Cost of the attempts that ended.
    pub spent: UsdMicros,
    /// By those attempts; the most that can be held once nobody knows of one of them.
    pub emitted: NanoGramsCo2,
    /// While placed.
    pub lease: Option<Lease>,
}

/// Of the row's bytes. Source: 2 added GPUs and 3 quotes, 4 preemption, 5 units, before anything was shipped.
const VERSION: u8 = 5;

impl AttemptRow {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.u8(VERSION);
        out.u32(self.attempt);
        out.u16(self.lost);
        out.u16(self.raised);
        out.u16(self.preempted);
        out.u64(self.spent.0 as u64);
        out.u64(self.emitted.0);
        let Some(lease) = &self.lease else { return };
        out.u32(lease.node);
        out.u32(lease.boot);
        out.raw(&lease.granter.to_bytes());
        out.u64(lease.context);
        out.u64(lease.number);
        out.u64(lease.at.0);
        out.u8(u8::from(lease.backlog));
        out.u8(u8::from(lease.forward_secret));
        out.u64(lease.devices);
        out.u64(lease.ucu.0);
        out.u64(lease.yields.0);
        out.bytes(lease.quoted.bytes());
    }

    /// From a row's bytes.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != VERSION {
            return None;
        }
        let (attempt, lost, raised, preempted) = (r.u32()?, r.u16()?, r.u16()?, r.u16()?);
        let spent = UsdMicros(r.u64()? as i64);
        let emitted = NanoGramsCo2(r.u64()?);
        let lease = match r.is_done() {
            true => None,
            false => Some(Lease {
                node: r.u32()?,
                boot: r.u32()?,
                granter: SessionId::from_bytes(r.array()?),
                context: r.u64()?,
                number: r.u64()?,
                at: Millis(r.u64()?),
                backlog: r.flag()?,
                forward_secret: r.flag()?,
                devices: r.u64()?,
                ucu: MilliUcu(r.u64()?),
                yields: Millis(r.u64()?),
                quoted: Quoted::new(&r.bytes()?),
            }),
        };
        r.is_done().then_some(Self {
            attempt,
            lost,
            raised,
            preempted,
            spent,
            emitted,
            lease,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn survives_the_bytes() {
        let lease = Lease {
            node: 1,
            boot: 2,
            granter: SessionId::new(5, [1; 5]),
            context: 3,
            number: 4,
            at: Millis(5),
            backlog: true,
            forward_secret: false,
            devices: 6,
            ucu: MilliUcu(11),
            yields: Millis(7),
            quoted: Quoted::new(&crate::row::tests::quote()),
        };
        for lease in [None, Some(lease)] {
            let row = AttemptRow {
                attempt: 7,
                lost: 1,
                raised: 2,
                preempted: 3,
                spent: UsdMicros(8),
                emitted: NanoGramsCo2(9),
                lease,
            };
            let mut out = Vec::new();
            row.write(&mut out);
            assert_eq!(AttemptRow::from_bytes(out.clone().into()).unwrap(), row);
            out.push(0);
            assert!(AttemptRow::from_bytes(out.into()).is_none());
        }
    }
}
