//! The table of a bench: medians over the rounds, the bar beside each, ratios to the process pool
//! of the same round.

use std::fmt::Write;

use serde_json::Value;

use super::figures::{Bar, Figure, ROWS, Row};

/// The table of the spine: Farlane with its bars, then every other system.
pub fn spine(rounds: &[Value], names: &[String]) -> String {
    let others: Vec<&String> = names.iter().filter(|n| *n != "farlane").collect();
    let mut out = format!(
        "\n{:26}{:>10} {:8}{:>13}  {:>8}",
        "median", "farlane", "", "bar", "× pool"
    );
    for name in &others {
        let _ = write!(out, "{name:>10}");
    }
    out.push('\n');
    for row in &ROWS {
        let Some(ours) = median(values(rounds, "farlane", row)) else {
            continue;
        };
        let ratio = median(ratios(rounds, row));
        let (bar, mark) = judged(row.bar, ours, ratio);
        let ratio = ratio.map(|r| format!("{}×", short(r))).unwrap_or_default();
        let _ = write!(
            out,
            "{:26}{:>10} {:8}{bar:>11} {mark}  {ratio:>7}",
            row.label,
            short(ours),
            row.unit
        );
        for name in &others {
            let theirs = median(values(rounds, name, row))
                .map(short)
                .unwrap_or_default();
            let _ = write!(out, "{theirs:>10}");
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    for name in names {
        for fault in faults(rounds, name) {
            let _ = writeln!(out, "! {name}: {fault}");
        }
    }
    out
}

/// The table of the queue.
pub fn queue(result: &Value) -> String {
    let at = |key: &str| result[key].as_f64().unwrap_or(f64::NAN);
    let mut out = format!("\n{} tasks queued\n", result["tasks"]);
    let most = Bar::AtMost(550.0);
    let rate = Bar::AtLeast(0.8 * at("first_per_s"));
    let one = [
        ("server, peak", "peak_mb", "MB", most),
        ("  before", "empty_mb", "MB", Bar::None),
        ("  with all queued", "full_mb", "MB", Bar::None),
        ("  for each", "bytes_per_task", "B", Bar::None),
        ("submitted at first", "first_per_s", "tasks/s", Bar::None),
        ("  at last", "last_per_s", "tasks/s", rate),
    ];
    // Of three servers: resident memory, with the pages of files.
    let three = [
        ("leader, sending all", "leader_peak_mb", "MB", most),
        (
            "  of that its own",
            "leader_peak_anonymous_mb",
            "MB",
            Bar::None,
        ),
        ("  before", "before_mb", "MB", Bar::None),
        ("follower, taking it", "follower_peak_mb", "MB", most),
        ("  caught up after", "caught_up_s", "s", Bar::None),
        ("  snapshots sent", "snapshots", "", Bar::None),
        ("  of", "snapshot_file_mb", "MB", Bar::None),
        ("submitted at first", "first_per_s", "tasks/s", Bar::None),
        ("  meanwhile", "during_per_s", "tasks/s", Bar::None),
    ];
    for (label, key, unit, bar) in one {
        line(&mut out, label, at(key), unit, bar);
    }
    if result["acknowledged"] != Value::Bool(true) {
        out.push_str("! not all of them were acknowledged in time\n");
    }
    let sent = &result["snapshot"];
    if let Some(error) = sent["error"].as_str() {
        let _ = writeln!(out, "! snapshot: {error}");
    } else {
        out.push_str("with three servers, one of them new\n");
        for (label, key, unit, bar) in three {
            let figure = sent[key].as_f64().unwrap_or(f64::NAN);
            line(&mut out, label, figure, unit, bar);
        }
        if sent["acknowledged"] != Value::Bool(true) {
            out.push_str("! not all of them were acknowledged in time\n");
        }
    }
    out
}

/// The scheduler's figures, the median of all rounds.
pub fn scheduler(rounds: &[Value]) -> String {
    let median = |key: &str| {
        let mut all: Vec<f64> = rounds.iter().filter_map(|r| r[key].as_f64()).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let mut out = String::new();
    for (label, key, unit, bar) in [
        (
            "10,000 nodes, mixed",
            "placements_per_s",
            "tasks/s",
            Bar::AtLeast(50_000.0),
        ),
        (
            "  the same, applied",
            "applied_per_s",
            "tasks/s",
            Bar::AtLeast(50_000.0),
        ),
        ("  one decision, p50", "decision_p50_ms", "ms", Bar::None),
        (
            "  one decision, p99",
            "decision_p99_ms",
            "ms",
            Bar::AtMost(0.5),
        ),
        (
            "  gangs of 8",
            "gangs_per_s",
            "gangs/s",
            Bar::AtLeast(5_000.0),
        ),
        (
            "100,000 nodes, 5,000 placed",
            "round_of_5000_ms",
            "ms",
            Bar::AtMost(100.0),
        ),
        (
            "a small project's wait, p99",
            "wait_alone_ms",
            "ms",
            Bar::None,
        ),
        (
            "  beside 1,000,000 unfit",
            "wait_beside_unfit_ms",
            "ms",
            Bar::AtMost(2.0 * median("wait_alone_ms")),
        ),
        (
            "  beside 1,000,000 waiting",
            "wait_beside_waiting_ms",
            "ms",
            Bar::None,
        ),
        (
            "state and fleet a node",
            "bytes_a_node",
            "B",
            Bar::AtMost(1536.0),
        ),
    ] {
        line(&mut out, label, median(key), unit, bar);
    }
    out
}

fn line(out: &mut String, label: &str, figure: f64, unit: &str, bar: Bar) {
    let (bar, mark) = judged(bar, figure, None);
    let _ = writeln!(
        out,
        "{label:30}{:>10} {unit:8}{bar:>11} {mark}",
        short(figure)
    );
}

fn judged(bar: Bar, figure: f64, ratio: Option<f64>) -> (String, &'static str) {
    let mark = |reached: bool| if reached { "✓" } else { "✗" };
    match bar {
        Bar::AtMost(most) => (format!("≤ {}", short(most)), mark(figure <= most)),
        Bar::AtLeast(least) => (format!("≥ {}", short(least)), mark(figure >= least)),
        Bar::TimesPool(times) => (
            format!("≥ {}× pool", short(times)),
            ratio.map_or(" ", |r| mark(r >= times)),
        ),
        Bar::None => (String::new(), " "),
    }
}

fn values(rounds: &[Value], name: &str, row: &Row) -> Vec<f64> {
    rounds
        .iter()
        .filter_map(|r| find(r.get(name)?, row.figure))
        .collect()
}

fn ratios(rounds: &[Value], row: &Row) -> Vec<f64> {
    let ratio = |round: &Value| {
        let theirs = find(round.get("pool")?, row.figure)?;
        let ours = find(round.get("farlane")?, row.figure)?;
        (theirs > 0.0).then(|| ours / theirs)
    };
    rounds.iter().filter_map(ratio).collect()
}

fn find(result: &Value, figure: Figure) -> Option<f64> {
    let dig = |path: &str| {
        path.split('.')
            .try_fold(result, |value, part| value.get(part))
            .cloned()
    };
    match figure {
        Figure::At(path) => dig(path)?.as_f64(),
        Figure::Sum(path) => Some(
            dig(path)?
                .as_object()?
                .values()
                .filter_map(Value::as_f64)
                .sum(),
        ),
        Figure::Each(whole, parts) => {
            let parts = dig(parts)?.as_f64().filter(|n| *n > 0.0)?;
            Some(dig(whole)?.as_f64()? / parts)
        }
    }
}

/// Every error in a system's results, once.
fn faults(rounds: &[Value], name: &str) -> Vec<String> {
    let mut out = Vec::new();
    for result in rounds.iter().filter_map(|r| r.get(name)?.as_object()) {
        let whole = result
            .get("error")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        let parts = result
            .iter()
            .filter_map(|(key, part)| Some(format!("{key}: {}", part.get("error")?.as_str()?)));
        for fault in whole.into_iter().chain(parts) {
            if !out.contains(&fault) {
                out.push(fault);
            }
        }
    }
    out
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (half, odd) = (values.len() / 2, values.len() % 2 == 1);
    match values.len() {
        0 => None,
        _ if odd => Some(values[half]),
        _ => Some((values[half - 1] + values[half]) / 2.0),
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.9995 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::bench::figures::CPU;

    fn result(rate: f64) -> Value {
        json!({
            "throughput": {"per_s": rate, "cpu_us_per_task": {"client": 30.0, "head": 80.5}},
            "memory": {"worker": {"n": 2, "rss_mib": 30.0}},
            "echo": {"error": "no numpy"},
        })
    }

    #[test]
    fn figures_are_found_summed_and_shared_out() {
        let one = result(5.0);
        assert_eq!(find(&one, Figure::At("throughput.per_s")), Some(5.0));
        assert_eq!(find(&one, Figure::Sum(CPU)), Some(110.5));
        assert_eq!(
            find(
                &one,
                Figure::Each("memory.worker.rss_mib", "memory.worker.n")
            ),
            Some(15.0)
        );
        assert_eq!(find(&one, Figure::At("roundtrip.p50_ms")), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let rounds = [
            json!({"pool": result(10.0), "farlane": result(30.0)}),
            json!({"pool": result(100.0), "farlane": result(150.0)}),
            json!({"farlane": result(1.0)}),
        ];
        assert_eq!(ratios(&rounds, &ROWS[0]), [3.0, 1.5]);
        let text = spine(&rounds, &["pool".to_owned(), "farlane".to_owned()]);
        assert!(text.contains("≥ 2.00× pool ✓"), "{text}");
        assert!(text.contains("≤ 110 ✗"), "{text}");
        assert!(text.contains("! farlane: echo: no numpy"), "{text}");
    }

    #[test]
    fn medians_of_even_and_odd() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn a_queue_has_its_bars() {
        let text = queue(&json!({
            "tasks": 10, "acknowledged": true, "peak_mb": 600.0, "first_per_s": 100.0, "last_per_s": 85.0,
            "snapshot": {"acknowledged": false, "leader_peak_mb": 300.0, "follower_peak_mb": 551.0},
        }));
        let marks: Vec<&str> = text.lines().filter(|l| l.contains('≤')).collect();
        assert_eq!(marks.len(), 3, "{text}");
        let of = |start: &str| marks.iter().find(|l| l.starts_with(start)).unwrap();
        assert!(of("server").ends_with('✗') && of("leader").ends_with('✓'));
        assert!(of("follower").ends_with('✗'), "{text}");
        assert!(
            text.contains("≥ 80.0 ✓") && text.contains("! not all"),
            "{text}"
        );
        let text = queue(&json!({"tasks": 10, "snapshot": {"error": "no leader"}}));
        assert!(text.contains("! snapshot: no leader"), "{text}");
    }
}
