//! What providers ask: their books, and the price of each node by them.
//!
//! Owns the use cases of books and the way from a book to the state. Leaves what a book is to `farlane-ledger`, its
//! rows to `farlane-store`, and which price an attempt is charged by to `farlane-state`.
//!
//! ```text
//! set_prices ─▶ check, revise ─▶ accounts ─┬▶ books in memory ─▶ each node's dated prices ─▶ SetPrices (the log)
//! every 5 s, leading: changed in accounts? ┘       └ differ from the state's? a date came near, a node is new
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use farlane_ledger::{CPU, Draft, MAX_ENTRIES, PriceBook, Rate, check};
use farlane_model::{Digest, NodeId, NodeSpec, WorkKind};
use farlane_state::{
    DatedPrice, EgressPrice, MAX_DATED_PRICES, Node, NodePrices, Order, SetPrices,
};
use farlane_store::{BookRow, NewBook, StoreError};
use farlane_units::{MilliUcu, Millis};
use farlane_wire::{id, v1};

use crate::{Caller, ControlError, Controller};

/// How often a leader asks accounts for books that another server changed, and nodes for prices that come near.
const TICK: Duration = Duration::from_secs(5);
/// Prices go to the state this long before their date. Source: longer than a network is without a leader, or its
/// accounts without their database.
const AHEAD: Millis = Millis(24 * 3_600_000);
/// Prices that ended this long ago are kept with those in force, for attempts whose end is told late. Source:
/// agents tell ends within their lease of 10 s, or once they are back.
const BEHIND: Millis = Millis(3_600_000);
/// Nodes of one order. Source: at 150 B a node, a seventh of an entry.
const NODES: usize = 1024;
/// Faults that one refusal names. Chosen: a screen; `farlane prices check` names all.
const FAULTS: usize = 5;

/// Books as accounts said last.
#[derive(Debug, Default)]
pub(crate) struct Books {
    revisions: Vec<(Digest, u64)>,
    books: HashMap<Digest, Arc<PriceBook>>,
}

/// What class of device a node's cores are. Its accelerators have no price yet.
pub(crate) fn device_of(_: &Node) -> &'static str {
    CPU
}

/// What one core of a node was measured to be; `None` before it was.
pub(crate) fn core_of(spec: &NodeSpec) -> Option<MilliUcu> {
    let measured = spec.measured.as_ref()?;
    let all = measured.ucu(WorkKind::Fp32).thousandths();
    Some(MilliUcu(all / u64::from(measured.cores.max(1))))
}

/// What a book says from [`BEHIND`] to [`AHEAD`] of a node whose cores were measured to be so much, and of bytes between
/// it and servers that stand at `home`; nothing of these where nobody said where that is.
fn schedule(
    book: &PriceBook,
    home: Option<&str>,
    region: &str,
    device: &str,
    core: Option<MilliUcu>,
    now: Millis,
) -> Vec<DatedPrice> {
    let from = now.saturating_sub(BEHIND);
    let mut turns = book.turns(Rate::CoreHour, from, now.saturating_add(AHEAD));
    turns.extend(book.turns(Rate::UcuHour, from, now.saturating_add(AHEAD)));
    if home.is_some() {
        turns.extend(book.turns(Rate::EgressGb, from, now.saturating_add(AHEAD)));
    }
    turns.sort_unstable();
    turns.dedup();
    let first = std::iter::once((Millis::ZERO, from));
    let bytes = |at| {
        home.map_or_else(EgressPrice::default, |home| EgressPrice {
            there: book.egress_gb(home, region, at),
            back: book.egress_gb(region, home, at),
        })
    };
    let mut held = (None, EgressPrice::default());
    let mut out = Vec::new();
    for (since, at) in first.chain(turns.into_iter().map(|at| (at, at))) {
        let (core_hour, egress) = (book.core_hour_of(region, device, core, at), bytes(at));
        if (core_hour, egress) != held {
            out.push(DatedPrice {
                since,
                core_hour,
                egress,
            });
            held = (core_hour, egress);
        }
    }
    // What held last is needed least; of what is to come, the nearest most.
    let past = out.iter().filter(|p| p.since <= now).count();
    let spare = out.len().saturating_sub(MAX_DATED_PRICES);
    out.drain(..spare.min(past.saturating_sub(1)));
    out.truncate(MAX_DATED_PRICES);
    out
}

/// A schedule as it reads from now on, so that two can be compared.
fn from_now(prices: &[DatedPrice], now: Millis) -> Vec<DatedPrice> {
    let past = prices.iter().filter(|p| p.since <= now).count();
    let mut out = prices[past.saturating_sub(1)..].to_vec();
    if let Some(first) = out.first_mut().filter(|_| past > 0) {
        first.since = Millis::ZERO;
        if first.core_hour.is_none() && first.egress == EgressPrice::default() {
            out.remove(0);
        }
    }
    out
}

fn view(row: &BookRow) -> v1::PriceBook {
    v1::PriceBook {
        provider: id::digest_bytes(&row.provider),
        revision: row.revision,
        changed_ms: row.changed.0,
        changed_by: row.changed_by.clone(),
        entries: row.book.entries().iter().map(Into::into).collect(),
    }
}

/// What a change of a book comes to, in words for the audit.
fn told(old: &PriceBook, new: &PriceBook) -> String {
    let gone = old.beyond(new).map(|entry| format!("- {entry}"));
    let come = new.beyond(old).map(|entry| format!("+ {entry}"));
    gone.chain(come).collect::<Vec<_>>().join("; ")
}

/// Drafts that can be a book.
///
/// *Errors*: what is wrong with them.
fn drafts(request: &v1::SetPricesRequest) -> Result<Vec<Draft>, ControlError> {
    if request.entries.len() > MAX_ENTRIES {
        return Err(ControlError::invalid(format!(
            "a book holds at most {MAX_ENTRIES} entries"
        )));
    }
    let read: Result<Vec<_>, _> = request.entries.iter().map(Draft::try_from).collect();
    let drafts = read?;
    let faults = check(&drafts);
    if faults.is_empty() {
        return Ok(drafts);
    }
    let named = faults.iter().take(FAULTS);
    let named = named.map(|f| format!("entry {}: {}", f.entry + 1, f.wrong));
    let more = match faults.len().saturating_sub(FAULTS) {
        0 => String::new(),
        n => format!("; and {n} more (`farlane prices check` names all)"),
    };
    let named = named.collect::<Vec<_>>().join("; ");
    Err(ControlError::invalid(named + &more))
}

impl Controller {
    /// Books of providers, a page of them.
    ///
    /// *Errors*: a malformed fingerprint, or accounts are away.
    pub async fn list_prices(
        &self,
        request: &v1::ListPricesRequest,
    ) -> Result<v1::ListPricesReply, ControlError> {
        let prices = self.store.prices();
        let rows = match request.provider.is_empty() {
            false => Vec::from_iter(prices.get(id::digest(&request.provider)?).await?),
            true if request.after.is_empty() => prices.list(None).await?,
            true => prices.list(Some(id::digest(&request.after)?)).await?,
        };
        Ok(v1::ListPricesReply {
            books: rows.iter().map(view).collect(),
            now_ms: self.now().0,
        })
    }

    /// Puts a book in the place of a provider's, and tells the state what holds from now on.
    ///
    /// *Errors*: faults by name, an entry for the past that was not so, a book that somebody else changed
    /// meanwhile, another server leads, or accounts are away.
    pub async fn set_prices(
        &self,
        caller: &Caller,
        request: &v1::SetPricesRequest,
    ) -> Result<v1::SetPricesReply, ControlError> {
        self.check_leads()?;
        let provider = id::digest(&request.provider)?;
        let drafts = drafts(request)?;
        let held = self.store.prices().get(provider).await?;
        let after = held.as_ref().map_or(0, |row| row.revision);
        if after != request.after {
            return Err(ControlError::PricesChanged);
        }
        let now = self.now();
        let by = caller.key.to_string();
        let old = held.map(|row| row.book).unwrap_or_default();
        let revised = old.revised(&drafts, now);
        let mut row = BookRow {
            provider,
            revision: after,
            changed: now,
            changed_by: by.clone(),
            book: revised.map_err(|why| ControlError::invalid(why.to_string()))?,
        };
        if !request.dry_run && row.book != old {
            let new = NewBook {
                provider,
                after,
                book: &row.book,
                by: &by,
                detail: &told(&old, &row.book),
            };
            let done = self.store.prices().replace(new, now).await?;
            row.revision = done.ok_or(ControlError::PricesChanged)?;
            self.read_books().await?;
            self.propose_prices().await?;
        }
        Ok(v1::SetPricesReply {
            book: Some(view(&row)),
        })
    }

    /// Keeps the state's prices as the books say, while this server leads.
    pub(crate) async fn price_loop(self: Arc<Self>) {
        let stop = self.shutdown.requested();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(TICK) => {}
            }
            if self.check_leads().is_err() {
                continue;
            }
            // Without accounts, what was read last goes on; a server that never read has nothing to say.
            if let Err(error) = self.read_books().await {
                tracing::debug!(%error, "price books cannot be read now");
                if self.books.lock().revisions.is_empty() {
                    continue;
                }
            }
            if let Err(error) = self.propose_prices().await {
                tracing::debug!(%error, "prices wait for the next round");
            }
        }
    }

    /// Brings the books in memory up to date with accounts.
    async fn read_books(&self) -> Result<(), StoreError> {
        let revisions = self.store.prices().revisions().await?;
        let known: HashMap<Digest, u64> = self.books.lock().revisions.iter().copied().collect();
        let changed = revisions.iter().filter(|(p, n)| known.get(p) != Some(n));
        let mut books = Vec::new();
        for (provider, _) in changed {
            if let Some(row) = self.store.prices().get(*provider).await? {
                books.push((row.provider, row.revision, Arc::new(row.book)));
            }
        }
        let mut held = self.books.lock();
        for (provider, revision, book) in books {
            held.books.insert(provider, book);
            held.revisions.retain(|(p, _)| *p != provider);
            held.revisions.push((provider, revision));
        }
        Ok(())
    }

    /// A provider's book, as read last; empty where it has none.
    pub(crate) fn book(&self, provider: &Digest) -> Arc<PriceBook> {
        self.books
            .lock()
            .books
            .get(provider)
            .cloned()
            .unwrap_or_default()
    }

    /// The prices of a node that comes in.
    pub(crate) async fn prices_of(
        &self,
        node: NodeId,
        provider: Digest,
        region: &str,
    ) -> SetPrices {
        if let Err(error) = self.read_books().await {
            tracing::debug!(%error, %node, "the node's price follows once accounts can be read");
        }
        // A machine is measured once it has joined.
        let (book, home) = (self.book(&provider), self.home());
        let prices = schedule(&book, home, region, CPU, None, self.now());
        let nodes = vec![NodePrices { node, prices }];
        SetPrices { nodes }
    }

    /// Tells the state the prices of every node of which it holds others.
    async fn propose_prices(&self) -> Result<(), ControlError> {
        let due = self.prices_due(self.now());
        for nodes in due.chunks(NODES) {
            let nodes = nodes.to_vec();
            self.order(vec![Order::SetPrices(SetPrices { nodes })])
                .await?;
        }
        Ok(())
    }

    fn prices_due(&self, now: Millis) -> Vec<NodePrices> {
        type Alike<'a> = (Digest, Arc<str>, &'a str, Option<MilliUcu>);
        let mut known: HashMap<Alike<'_>, Vec<DatedPrice>> = HashMap::new();
        self.consensus.read(|state| {
            let mut due = Vec::new();
            for node in state.nodes().filter(|n| !n.revoked) {
                let core = core_of(&node.spec);
                let key = (node.provider, node.region.clone(), device_of(node), core);
                let wanted =
                    known
                        .entry(key)
                        .or_insert_with_key(|(provider, region, device, core)| {
                            let book = self.book(provider);
                            schedule(&book, self.home(), region, device, *core, now)
                        });
                if from_now(&node.prices, now) != from_now(wanted, now) {
                    due.push(NodePrices {
                        node: node.id,
                        prices: wanted.clone(),
                    });
                }
            }
            due
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use farlane_ledger::{Entry, Scope};
    use farlane_model::Glob;
    use farlane_units::UsdMicros;

    use super::*;

    const HOUR: u64 = 3_600_000;
    const NOW: Millis = Millis(1000 * HOUR);

    fn entry(region: &str, price: i64, hours: i64, until: Option<i64>) -> Entry {
        let at = |hours: i64| Millis(NOW.0.saturating_add_signed(hours * HOUR as i64));
        Entry {
            scope: Scope {
                rate: Rate::CoreHour,
                region: Glob::new(region).unwrap(),
                target: Glob::new("*").unwrap(),
            },
            price: UsdMicros(price),
            since: at(hours),
            until: until.map(at),
        }
    }
    fn dated(hours: i64, price: Option<i64>) -> DatedPrice {
        DatedPrice {
            since: Millis(NOW.0.saturating_add_signed(hours * HOUR as i64)),
            core_hour: price.map(UsdMicros),
            egress: EgressPrice::default(),
        }
    }
    fn always(price: i64) -> DatedPrice {
        let since = Millis::ZERO;
        DatedPrice {
            since,
            ..dated(0, Some(price))
        }
    }

    #[test]
    fn a_day_to_come_and_an_hour_gone_are_told() {
        let book = PriceBook::new(vec![
            entry("*", 1, -100, None),
            entry("eu-*", 2, -1, Some(2)),
            entry("eu-*", 3, 5, Some(6)),
            entry("eu-*", 4, 30, None),
        ]);
        let schedule = |book: &PriceBook, region: &str, device: &str, now: Millis| {
            schedule(book, None, region, device, None, now)
        };
        let told = schedule(&book, "eu-west", CPU, NOW);
        let to_come = [dated(2, Some(1)), dated(5, Some(3)), dated(6, Some(1))];
        assert_eq!(told, [vec![always(2)], to_come.to_vec()].concat());
        assert_eq!(schedule(&book, "us-west", CPU, NOW), [always(1)]);
        assert_eq!(schedule(&PriceBook::default(), "eu-west", CPU, NOW), []);
        let begins = PriceBook::new(vec![entry("*", 1, 0, None)]);
        assert_eq!(schedule(&begins, "eu", CPU, NOW), [dated(0, Some(1))]);
        // Seen two hours later it is as if it had always been.
        let later = Millis(NOW.0 + 2 * HOUR);
        assert_eq!(schedule(&begins, "eu", CPU, later), [always(1)]);
    }

    #[test]
    fn units_price_cores_that_were_measured_and_turn_at_their_dates() {
        let mut unit = entry("*", 20_000, -5, None);
        let mut later = entry("*", 30_000, 3, None);
        (unit.scope.rate, later.scope.rate) = (Rate::UcuHour, Rate::UcuHour);
        let book = PriceBook::new(vec![unit, later]);
        let told = |core| schedule(&book, None, "eu", CPU, core, NOW);
        assert_eq!(told(None), []);
        assert_eq!(
            told(Some(MilliUcu(1500))),
            [always(30_000), dated(3, Some(45_000))]
        );
    }

    #[test]
    fn bytes_across_regions_have_prices_and_dates_of_their_own() {
        let mut out = entry("eu-*", 90_000, 3, None);
        out.scope.rate = Rate::EgressGb;
        let book = PriceBook::new(vec![out, entry("*", 1, -100, None)]);
        let told = |home, region| schedule(&book, home, region, CPU, None, NOW);
        let with = |dated: DatedPrice, there, back| DatedPrice {
            egress: EgressPrice {
                there: UsdMicros(there),
                back: UsdMicros(back),
            },
            ..dated
        };
        // Five cents a GB, as where no book says otherwise; then what leaves for the servers costs more.
        let usual = [
            with(always(1), 50_000, 50_000),
            with(dated(3, Some(1)), 50_000, 90_000),
        ];
        assert_eq!(told(Some("us-east"), "eu-west"), usual);
        assert_eq!(from_now(&usual, NOW), usual);
        assert_eq!(told(Some("eu-west"), "eu-west"), [always(1)]);
        assert_eq!(told(None, "eu-west"), [always(1)]);
        let none = schedule(&PriceBook::default(), Some("us"), "eu", CPU, None, NOW);
        let bytes = [with(
            DatedPrice {
                core_hour: None,
                ..always(0)
            },
            50_000,
            50_000,
        )];
        assert_eq!(
            (&none[..], &from_now(&none, NOW)[..]),
            (&bytes[..], &bytes[..])
        );
    }

    #[test]
    fn only_what_differs_from_now_on_is_proposed_again() {
        let wanted = [dated(-2, Some(1)), dated(3, None)];
        assert_eq!(from_now(&wanted, NOW), [always(1), dated(3, None)]);
        assert_eq!(
            from_now(&[always(1), dated(3, None)], NOW),
            from_now(&wanted, NOW)
        );
        let ended = Millis(NOW.0 + 3 * HOUR);
        assert_eq!(from_now(&wanted, ended), []);
        assert_eq!(
            (from_now(&[], NOW), from_now(&[dated(1, None)], NOW)),
            (vec![], vec![dated(1, None)])
        );
    }

    #[test]
    fn many_changes_in_a_day_leave_what_holds_and_the_next() {
        let each = (0..24).map(|n| entry("*", n, n, None)).collect();
        let at = Millis(NOW.0 + HOUR / 2);
        let told = schedule(&PriceBook::new(each), None, "eu", CPU, None, at);
        assert_eq!(told.len(), MAX_DATED_PRICES);
        assert_eq!((told[0], told[7]), (dated(0, Some(0)), dated(7, Some(7))));
    }
}
