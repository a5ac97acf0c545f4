//! The places of a trace: regions with their grids, nodes with their prices.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use farlane_ledger::{CPU, PriceBook, Rate};
use farlane_model::{Digest, NodeId, NodeSpec};
use farlane_store::{NodeRow, Span};
use farlane_trace::{Line, MAX_MS, MAX_NODES, MAX_REGIONS, Node, Region, Salt, check};
use farlane_units::Millis;

use crate::carbon::{core_milliwatts, gpu_milliwatts};
use crate::prices::core_of;
use crate::{ControlError, Controller};

const HOUR: u64 = 3_600_000;
/// Bytes of a chunk of lines. Source: a sixteenth of what one message may hold.
const CHUNK: usize = 256 << 10;
/// Most changes of one price. Source: farlane-trace, `MAX_DATED`.
const MAX_DATED: usize = 1001;

impl Controller {
    /// Lines of regions and nodes that were there in a span of time, and which nodes they are.
    pub(super) async fn places(
        &self,
        span: &Span,
        salt: &Salt,
    ) -> Result<(VecDeque<String>, HashSet<NodeId>), ControlError> {
        let mut books: HashMap<Digest, Arc<PriceBook>> = HashMap::new();
        let (mut regions, mut nodes) = (BTreeSet::new(), HashSet::new());
        let mut out = VecDeque::from([String::new()]);
        let mut after = None;
        loop {
            let page = self.store.nodes().list(after).await?;
            let Some(last) = page.last() else {
                return Ok((out, nodes));
            };
            after = Some(last.node);
            for row in page.iter().filter(|row| was_there(row, span)) {
                let Some(spec) = NodeSpec::from_canonical(&row.spec) else {
                    continue;
                };
                if nodes.len() >= MAX_NODES
                    || (regions.len() >= MAX_REGIONS && !regions.contains(&row.region))
                {
                    continue;
                }
                let book = match books.get(&row.provider) {
                    Some(known) => known.clone(),
                    None => {
                        let read = self.store.prices().get(row.provider).await?;
                        let read = Arc::new(read.map(|row| row.book).unwrap_or_default());
                        books.insert(row.provider, read.clone());
                        read
                    }
                };
                let line = Line::Node(Box::new(self.node(row, &spec, &book, span, salt)));
                let known = regions.contains(&row.region);
                let region = (!known).then(|| Line::Region(self.grid(&row.region, span)));
                let both = check(&line).and_then(|()| region.as_ref().map_or(Ok(()), check));
                if let Err(fault) = both {
                    tracing::warn!(%fault, node = %row.node, "a node is no line of a trace");
                    continue;
                }
                if let Some(region) = region {
                    regions.insert(row.region.clone());
                    add(&mut out, &region);
                }
                add(&mut out, &line);
                nodes.insert(row.node);
            }
        }
    }

    fn grid(&self, region: &str, span: &Span) -> Region {
        let begin = span.from.0 - span.from.0 % HOUR;
        let hours = (begin..span.to.0).step_by(HOUR as usize);
        let mut g_kwh: Vec<(u64, u32)> = Vec::new();
        for hour in hours {
            let Some(known) = self.carbon_at(region, Millis(hour)) else {
                continue;
            };
            let grams = known.of.0.div_ceil(1000);
            // Hours before the first that anybody knew count as it.
            let at = if g_kwh.is_empty() {
                0
            } else {
                hour.saturating_sub(span.from.0)
            };
            if g_kwh.last().is_none_or(|(_, last)| *last != grams) {
                g_kwh.push((at, grams));
            }
        }
        Region {
            name: region.to_owned(),
            g_kwh,
        }
    }

    fn node(
        &self,
        row: &NodeRow,
        spec: &NodeSpec,
        book: &PriceBook,
        span: &Span,
        salt: &Salt,
    ) -> Node {
        let core = core_of(spec);
        let ucu = core.map(|core| core.0 as f64 / 1000.0);
        let trip = self.paths.lock().of(row.node).round_trip;
        let (from_ms, until_ms) = stays(row, span);
        Node {
            region: row.region.clone(),
            provider: salt.provider(&row.provider),
            core_hour_usd_micros: prices(book, &row.region, spec, span),
            core_watts: f64::from(core_milliwatts()) / 1000.0,
            gpu_watts: f64::from(gpu_milliwatts(&spec.devices)) / 1000.0,
            round_trip_ms: trip.0 as f64 / 1000.0,
            from_ms,
            until_ms,
            ..Node::of(spec, salt.node(&row.node), ucu, salt)
        }
    }
}

fn was_there(row: &NodeRow, span: &Span) -> bool {
    row.first_seen < span.to
        && row
            .removed
            .is_none_or(|at| at > span.from && at > row.first_seen)
}

/// When it came and went, from the beginning of the span; who went after the end of all traces stays.
fn stays(row: &NodeRow, span: &Span) -> (u64, Option<u64>) {
    let since = |at: Millis| at.saturating_sub(span.from).0;
    let until = row.removed.map(since).filter(|at| *at <= MAX_MS);
    (since(row.first_seen), until)
}

/// What a core cost: by the book, else what the node says itself.
fn prices(book: &PriceBook, region: &str, spec: &NodeSpec, span: &Span) -> Vec<(u64, i64)> {
    let core = core_of(spec);
    let mut turns = vec![span.from];
    for rate in [Rate::CoreHour, Rate::UcuHour] {
        turns.extend(book.turns(rate, span.from, span.to));
    }
    turns.sort_unstable();
    turns.dedup();
    let mut out: Vec<(u64, i64)> = Vec::new();
    for at in turns {
        let named = book.core_hour_of(region, CPU, core, at);
        let price = named.unwrap_or(spec.price_usd_micros_core_hour).0.max(0);
        if out.last().is_none_or(|(_, last)| *last != price) {
            out.push((at.0 - span.from.0, price));
        }
    }
    out.truncate(MAX_DATED);
    out
}

fn add(out: &mut VecDeque<String>, line: &Line) {
    let text = line.to_json();
    match out.back_mut() {
        Some(last) if last.len() + text.len() <= CHUNK => last.push_str(&text),
        _ => out.push_back(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_removed_years_later_was_there() {
        let span = Span {
            from: Millis(1_000),
            to: Millis(2_000),
            project: None,
        };
        let row = |first_seen, removed| NodeRow {
            node: NodeId([1; 32]),
            name: String::new(),
            region: String::new(),
            provider: Digest::default(),
            spec: Vec::new(),
            first_seen: Millis(first_seen),
            changed: Millis(0),
            removed,
        };
        let of = |row: NodeRow| was_there(&row, &span).then(|| stays(&row, &span));
        assert_eq!(of(row(0, None)), Some((0, None)));
        assert_eq!(of(row(1_500, Some(Millis(1_800)))), Some((500, Some(800))));
        assert_eq!(of(row(0, Some(Millis(2_000 + MAX_MS)))), Some((0, None)));
        assert_eq!(of(row(0, Some(Millis(1_000)))), None);
        assert_eq!(of(row(2_000, None)), None);
    }
}
