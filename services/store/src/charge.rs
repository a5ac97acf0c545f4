//! Usage folded by (project, node, price, minute).

use farlane_ledger::{Charge, ChargeKey, CoreTime};
use farlane_model::ProjectId;
use farlane_units::{Millis, UsdFemtos, UsdMicros};
use sqlx::{Row, query};

use crate::row::{int, number, parsed};
use crate::{MAX_PAGE, Store, StoreError};

/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;

/// The charges of a store.
#[derive(Debug, Clone, Copy)]
pub struct Charges<'a> {
    pub(crate) store: &'a Store,
}

impl Charges<'_> {
    /// Charges of `project` in minutes that begin in `from..to`, oldest first; at most [`MAX_PAGE`],
    /// so read on from the last one's minute.
    ///
    /// *Errors*: the database.
    pub async fn list(
        &self,
        project: ProjectId,
        from: Millis,
        to: Millis,
    ) -> Result<Vec<Charge>, StoreError> {
        let found = query(
            "SELECT node, price_usd_micros, minute, attempts, core_time, egress_usd_femtos FROM charges \
             WHERE project = $1 AND minute >= $2 AND minute < $3 \
             ORDER BY minute, node, price_usd_micros LIMIT $4",
        )
        .bind(project.to_string())
        .bind(int(from.0.div_ceil(MINUTE_MS)))
        .bind(int(to.0.div_ceil(MINUTE_MS)))
        .bind(i64::from(MAX_PAGE))
        .fetch_all(&self.store.pool)
        .await?;
        found
            .iter()
            .map(|r| {
                Ok(Charge {
                    key: ChargeKey {
                        project,
                        node: parsed(r, "node")?,
                        price: UsdMicros(r.try_get("price_usd_micros")?),
                        minute: number(r, "minute")?,
                    },
                    attempts: number(r, "attempts")?,
                    core_time: CoreTime(number(r, "core_time")?),
                    egress: UsdFemtos(number(r, "egress_usd_femtos")?),
                })
            })
            .collect()
    }
}
