//! Keeps a provider's signed list of nodes that must get no more grants.

use bytes::Bytes;
use farlane_model::Digest;
use farlane_units::Millis;
use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::row::{RevocationsRow, keys};
use crate::rows::Table;
use crate::{Outcome, Refusal};

/// Largest list. Source: 2000 nodes of 32 B; it goes out with every new context.
pub const MAX_REVOCATIONS_BYTES: usize = 64 * 1024;
/// Most providers of one cell.
const MAX_PROVIDERS: usize = 4096;

/// A provider's list, checked by the server that proposes this. Only a newer one replaces it, so that
/// of two that were made from the same one the second is refused, and made again from the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishRevocations {
    /// Fingerprint of its root.
    pub provider: Digest,
    /// The list that it was made from; zero for the first.
    pub after: Millis,
    /// As of when.
    pub issued: Millis,
    /// Canonical and signed.
    pub list: Bytes,
}

impl PublishRevocations {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if self.list.len() > MAX_REVOCATIONS_BYTES {
            return Err(Refusal::PayloadTooLarge {
                most: MAX_REVOCATIONS_BYTES as u64,
            });
        }
        let known = ctx.state.revocations.get(&self.provider);
        let newest = known.map_or(Millis::ZERO, |row| row.issued);
        if newest != self.after || self.issued <= newest {
            return Err(Refusal::RevocationsStale);
        }
        if known.is_none() && ctx.state.revocations.len() >= MAX_PROVIDERS {
            return Err(Refusal::TooMany {
                what: "providers".into(),
                most: MAX_PROVIDERS as u64,
            });
        }
        let row = RevocationsRow {
            issued: self.issued,
            list: self.list,
        };
        let key = keys::revocations(self.provider);
        ctx.writes.put_serde(Table::RevokedKeys, &key, &row);
        ctx.state.revocations.insert(self.provider, row);
        Ok(Outcome::Done)
    }
}
