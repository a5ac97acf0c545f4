//! Events on their way to accounts.
//!
//! Owns the walk along the outbox. Exactly once: SQL keeps its own mark in the transaction of the
//! rows, so an event that is offered again after a crash or a change of leader is passed over; only then
//! is it acknowledged and leaves the state. While SQL is down, events wait in the state, and from a bound on
//! (farlane-state, `MAX_OUTBOX`) no new work is taken.

use std::sync::Arc;
use std::time::Duration;

use farlane_ledger::OutboxId;
use farlane_model::NodeSpec;
use farlane_state::{AckOutbox, MAX_OUTBOX, OutboxEvent, OutboxKey, Rows, Table, Usage, keys};
use farlane_store::{NewNode, StoreError};

use crate::Controller;

/// The number of SQL among the sinks. Source: farlane-state, `AckOutbox`.
const SQL: u8 = 0;
/// Its name in the accounts themselves.
const SQL_NAME: &str = "sql";
/// How often the outbox is looked at. Accounts may lag a call by this much.
const TICK: Duration = Duration::from_millis(500);
/// Events of one transaction. Source: at 250 B an event, half a MiB.
const PAGE: usize = 2048;
/// How long to wait after SQL failed.
const PAUSE: Duration = Duration::from_secs(5);

impl Controller {
    /// Empties the outbox while this server leads, until it stops.
    pub(crate) async fn outbox_loop(self: Arc<Self>) {
        let stop = self.shutdown.requested();
        tokio::pin!(stop);
        let mut wait = TICK;
        loop {
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = TICK;
            while self.check_leads().is_ok() {
                match self.empty_page().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        let waiting = self.consensus.read(|s| s.counts().outbox);
                        tracing::warn!(%error, waiting, most = MAX_OUTBOX, "accounts lag behind: the outbox waits");
                        wait = PAUSE;
                        break;
                    }
                }
            }
        }
    }

    /// Takes one page in. True when there may be more.
    async fn empty_page(&self) -> Result<bool, StoreError> {
        let (mark, epoch) = self.consensus.read(|s| (s.sink(SQL), s.epoch()));
        // The first key is below every real one; past the mark otherwise.
        let from = mark.map_or([0; 16], |m| keys::outbox(OutboxKey { n: m.n + 1, ..m }));
        let page = self
            .consensus
            .rows()
            .scan(Table::Outbox, &from, &[0xff; 16], PAGE);
        let mut usages = Vec::with_capacity(page.len());
        let mut specs = Vec::new();
        let mut last = None;
        for (key, value) in &page {
            let Some(at) = keys::read_outbox(key) else {
                continue;
            };
            last = Some(at);
            let id = OutboxId {
                epoch,
                index: at.index,
                ordinal: at.ordinal,
                row: at.n,
            };
            match OutboxEvent::from_bytes(value) {
                Some(OutboxEvent::Attempt(usage)) => {
                    self.histories.lock().ended(usage.node, usage.exit);
                    usages.push((id, ledger_usage(usage)));
                }
                Some(OutboxEvent::Spec { digest, spec }) => specs.push((digest, spec)),
                Some(event) => self.note(event).await?,
                None => tracing::error!(?at, "an event of the outbox cannot be read"),
            }
        }
        let Some(through) = last else {
            return Ok(false);
        };
        if !specs.is_empty() {
            self.store.specs().keep(&specs).await?;
        }
        if !usages.is_empty() {
            self.store.outbox().ingest(SQL_NAME, &usages).await?;
        }
        if let Err(error) = self
            .order(vec![AckOutbox { sink: SQL, through }.into()])
            .await
        {
            tracing::debug!(%error, "the outbox will be acknowledged later");
            return Ok(false);
        }
        Ok(page.len() == PAGE)
    }

    /// What is kept once, however often it is said.
    async fn note(&self, event: OutboxEvent) -> Result<(), StoreError> {
        match event {
            OutboxEvent::Attempt(_) | OutboxEvent::Spec { .. } => Ok(()),
            OutboxEvent::Node {
                node,
                spec,
                region,
                provider,
                at,
            } => {
                let name = NodeSpec::from_canonical(&spec)
                    .map(|s| column(s.name))
                    .unwrap_or_default();
                let new = NewNode {
                    node,
                    name,
                    region,
                    provider,
                    spec: spec.to_vec(),
                };
                self.store.nodes().upsert(new, at).await
            }
            OutboxEvent::NodeGone { node, at, .. } => {
                self.store.nodes().remove(node, at).await.map(drop)
            }
            // The key's own row was written before it was revoked in the state.
            OutboxEvent::KeyRevoked { .. } => Ok(()),
        }
    }
}

/// Text as every database takes it: PostgreSQL refuses a zero in text, and one event that is refused for
/// ever would keep back all that come after it.
fn column(text: String) -> String {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}"),
        false => text,
    }
}

fn ledger_usage(usage: Usage) -> farlane_ledger::Usage {
    farlane_ledger::Usage {
        project: usage.project,
        task: usage.task,
        attempt: usage.attempt,
        node: usage.node,
        region: usage.region,
        function: column(usage.function),
        spec: usage.spec,
        rank: usage.rank,
        submitted: usage.submitted,
        started: usage.started,
        ended: usage.ended,
        cpus: usage.cpus,
        peak_memory: usage.peak_memory,
        cpu_time: usage.cpu_time,
        price: usage.price_usd_micros_core_hour,
        moved_there: usage.moved.there,
        moved_back: usage.moved.back,
        egress: usage.egress,
        emitted: usage.emitted,
        outcome: usage.exit.into(),
        last: usage.last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_postgres_would_refuse_keeps_nothing_back() {
        assert_eq!(column("train".into()), "train");
        assert_eq!(column("a\0b\0".into()), "a\u{fffd}b\u{fffd}");
    }
}
