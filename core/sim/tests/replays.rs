//! What holds of every replay: the same work, on the nodes that were there, by what they cost then.
#![allow(clippy::unwrap_used)]

use farlane_model::PolicyName;
use farlane_sim::{BadReplay, Figures, RecordedFigures, Simulation, WhatIf};
use farlane_trace::Trace;

/// A trace of two hours with these lines about nodes, kinds and tasks.
fn trace(lines: &str) -> Trace {
    let tasks = lines.matches("\"task\"").count()
        + lines
            .lines()
            .filter(|line| line.contains("\"gang\":{") || line.starts_with("{\"gang\""))
            .map(|line| line.matches("\"node\"").count())
            .sum::<usize>();
    let text = format!(
        "{{\"trace\":{{\"version\":1,\"ms\":7200000}}}}\n{{\"project\":{{\"name\":\"lab\"}}}}\n\
         {{\"region\":{{\"name\":\"eu\",\"g_kwh\":[[0,100],[3600000,300]]}}}}\n{lines}\n{{\"end\":{{\"tasks\":{tasks}}}}}\n"
    );
    Trace::read(text.as_bytes()).unwrap()
}

fn replayed(trace: &Trace, what_if: &WhatIf) -> Figures {
    let mut simulation = Simulation::replay(trace, what_if).unwrap();
    while simulation.step() {}
    simulation.figures()
}

fn task(at: u64, node: &str, from: u64, to: u64) -> String {
    format!(
        "{{\"task\":{{\"kind\":\"k\",\"submitted_ms\":{at},\"attempts\":[{{\"node\":\"{node}\",\"started_ms\":{from},\
         \"ended_ms\":{to}}}]}}}}\n"
    )
}

const ONE: &str = r#"{"node":{"name":"one","region":"eu","cores":1,"core_hour_usd_micros":[[0,3600000],[3600000,7200000]],"core_watts":10}}
{"kind":{"name":"k","project":"lab"}}
"#;

#[test]
fn what_ran_alone_costs_what_it_cost_then() {
    // A minute in the first hour, and one in the second, when a core costs twice and its grid emits three times as much.
    let text =
        ONE.to_owned() + &task(0, "one", 5, 60_005) + &task(4_000_000, "one", 4_000_001, 4_060_001);
    let trace = trace(&text);
    let figures = replayed(&trace, &WhatIf::default());
    assert_eq!((figures.submitted, figures.ended, figures.lost), (2, 2, 0));
    assert!(
        (figures.usd - (0.06 + 0.12)).abs() < 1e-9,
        "{}",
        figures.usd
    );
    // 10 W for a minute are a sixth of a Wh.
    let grams = 10.0 / 60.0 / 1000.0 * (100.0 + 300.0);
    assert!((figures.grams_co2e - grams).abs() < 1e-9);
    assert!((figures.makespan_hours - 4_060_000.0 / 3_600_000.0).abs() < 1e-9);
    assert_eq!(figures.projects[0].wait_ms_p99, 0);
    let recorded = RecordedFigures::of(&trace);
    assert_eq!((recorded.ended, recorded.projects[0].wait_ms_p50), (2, 1));
    assert_eq!(recorded.projects[0].wait_ms_p99, 5);
    let hours = [
        recorded.projects[0].core_hours,
        figures.projects[0].core_hours,
    ];
    assert!((hours[0] - hours[1]).abs() < 1e-9, "{hours:?}");
}

#[test]
fn a_run_is_as_long_as_its_node_is_slow() {
    let nodes = r#"{"node":{"name":"slow","region":"eu","cores":1,"core_ucu":0.5}}
{"node":{"name":"fast","region":"eu","cores":1,"core_ucu":2,"from_ms":1000}}
{"kind":{"name":"k","project":"lab"}}
"#;
    // The fast one came a second after the first task, and the slow one is busy with that for a minute.
    let text =
        nodes.to_owned() + &task(0, "slow", 0, 60_000) + &task(30_000, "slow", 60_000, 100_000);
    let figures = replayed(&trace(&text), &WhatIf::default());
    assert_eq!(figures.ended, 2);
    // 60 s as they were, and 40 s in a quarter of it.
    let seconds = figures.projects[0].core_hours * 3600.0;
    assert!((seconds - 70.0).abs() < 0.01, "{seconds}");
    assert!((figures.makespan_hours * 3600.0 - 60.0).abs() < 0.01);
}

#[test]
fn gangs_run_together_and_nodes_that_go_lose_what_they_ran() {
    let nodes = r#"{"node":{"name":"a","region":"eu","cores":1,"until_ms":10000}}
{"node":{"name":"b","region":"eu","cores":1}}
{"node":{"name":"c","region":"eu","cores":1,"from_ms":20000}}
{"kind":{"name":"g","project":"lab","gang":2}}
{"gang":{"kind":"g","submitted_ms":0,"members":[[{"node":"a","started_ms":1,"ended_ms":30001}],[{"node":"b","started_ms":1,"ended_ms":30001}]]}}"#;
    let figures = replayed(&trace(nodes), &WhatIf::default());
    assert_eq!((figures.submitted, figures.ended), (2, 2));
    assert_eq!(figures.lost, 1, "the other member is called back");
    // Ten seconds for nothing, ten until the third comes, and then all of it.
    assert!((figures.makespan_hours * 3600.0 - 50.0).abs() < 0.1);
}

#[test]
fn a_stream_of_calls_does_not_starve_a_gang() {
    let mut text = String::from(
        r#"{"node":{"name":"one","region":"eu","cores":4}}
{"project":{"name":"shop"}}
{"kind":{"name":"k","project":"lab"}}
{"kind":{"name":"g","project":"shop","gang":4}}
"#,
    );
    let member = r#"[{"node":"one","started_ms":30001,"ended_ms":31001}]"#;
    let members = [member; 4].join(",");
    // As much as fills all four cores for ten minutes, of which no two come free at once.
    for n in 0..600 {
        text += &task(n * 1000, "one", n * 1000, n * 1000 + 4000);
        if n == 30 {
            text += &format!(
                "{{\"gang\":{{\"kind\":\"g\",\"submitted_ms\":30000,\"members\":[{members}]}}}}\n"
            );
        }
    }
    let figures = replayed(&trace(&text), &WhatIf::default());
    assert_eq!(figures.ended, 604);
    let waited = figures.projects[1].wait_ms_p99;
    assert!(waited < 30_000, "{waited} ms");
}

#[test]
fn what_is_urgent_passes_what_waits_longer() {
    let mut text = ONE.to_owned() + r#"{"project":{"name":"shop"}}"#;
    text += r#"
{"kind":{"name":"now","project":"lab","priority":5}}
"#;
    for n in 0..20 {
        text += &task(0, "one", n * 60_000, n * 60_000 + 60_000);
    }
    // More than wait on the node before anybody knows how long they run.
    for _ in 0..6 {
        text += &task(120_000, "one", 1_200_000, 1_260_000).replace("\"k\"", "\"now\"");
    }
    let figures = replayed(&trace(&text), &WhatIf::default());
    assert_eq!(figures.ended, 26);
    // The last of the others waits for all of it.
    assert_eq!(figures.projects[0].wait_ms_p99, 1_500_000);
}

#[test]
fn what_fits_nowhere_ends_the_replay_and_is_counted() {
    let kind = r#"{"kind":{"name":"far","project":"lab","regions":["us-*"]}}
{"task":{"kind":"far","submitted_ms":5,"attempts":[{"node":"one","started_ms":5,"ended_ms":6}]}}
"#;
    let figures = replayed(&trace(&(ONE.to_owned() + kind)), &WhatIf::default());
    assert_eq!((figures.submitted, figures.ended), (1, 0));
}

#[test]
fn other_policies_and_weights_change_what_comes_of_it() {
    let mut text = String::from(
        r#"{"region":{"name":"us","g_kwh":[[0,900]]}}
{"node":{"name":"near","region":"eu","cores":4,"core_hour_usd_micros":[[0,900000]],"round_trip_ms":1}}
{"node":{"name":"cheap","region":"us","cores":4,"core_hour_usd_micros":[[0,9000]],"round_trip_ms":200}}
{"project":{"name":"shop","policy":"fast"}}
{"kind":{"name":"k","project":"shop"}}
"#,
    );
    for n in 0..200 {
        text += &task(n * 2000, "near", n * 2000, n * 2000 + 900);
    }
    let trace = trace(&text);
    let of = |policies| {
        let weights = vec![("shop".to_owned(), 5)];
        replayed(&trace, &WhatIf { policies, weights })
    };
    let (fast, cheap) = (
        of(vec![]),
        of(vec![(Some("shop".to_owned()), PolicyName::Cheap.prices())]),
    );
    assert!(cheap.usd < fast.usd / 10.0, "{} {}", cheap.usd, fast.usd);
    assert!(fast.projects[1].wait_ms_p50 < cheap.projects[1].wait_ms_p50);
    let every = of(vec![(None, PolicyName::Cheap.prices())]);
    assert_eq!(
        format!("{every:?}"),
        format!("{cheap:?}"),
        "one trace, one history"
    );
    let nobody = WhatIf {
        weights: vec![("nobody".to_owned(), 5)],
        ..WhatIf::default()
    };
    let refused = Simulation::replay(&trace, &nobody).err().unwrap();
    assert!(matches!(refused, BadReplay::UnknownProject { name } if name == "nobody"));
}

#[test]
fn a_busy_hour_is_replayed_whole_and_twice_alike() {
    let mut text = String::from(
        r#"{"node":{"name":"one","region":"eu","cores":8,"core_ucu":1.2,"core_hour_usd_micros":[[0,40000]]}}
{"node":{"name":"two","region":"eu","cores":8,"core_ucu":0.8,"core_hour_usd_micros":[[0,30000]]}}
{"kind":{"name":"k","project":"lab"}}
{"kind":{"name":"g","project":"lab","gang":4,"policy":"green"}}
"#,
    );
    for n in 0..3000u64 {
        let at = n * 1000;
        text += &task(at, "one", at, at + 1 + (n * 7919) % 9000);
        if n % 50 == 0 {
            let member = format!(
                "[{{\"node\":\"two\",\"started_ms\":{at},\"ended_ms\":{}}}]",
                at + 3000
            );
            let members = [member.as_str(); 4].join(",");
            text += &format!(
                "{{\"gang\":{{\"kind\":\"g\",\"submitted_ms\":{at},\"members\":[{members}]}}}}\n"
            );
        }
    }
    let trace = trace(&text);
    let (one, two) = (
        replayed(&trace, &WhatIf::default()),
        replayed(&trace, &WhatIf::default()),
    );
    assert_eq!(one.ended, trace.calls.len() as u64);
    assert_eq!(format!("{one:?}"), format!("{two:?}"));
    assert!(
        Simulation::replay(&trace, &WhatIf::default())
            .unwrap()
            .instance()
            .is_none()
    );
}

#[test]
fn a_trace_of_nothing_is_refused() {
    let empty = trace(ONE);
    let refused = Simulation::replay(&empty, &WhatIf::default())
        .err()
        .unwrap();
    assert!(matches!(refused, BadReplay::Empty { what: "tasks" }));
}

#[test]
fn the_example_of_the_guide_is_replayed() {
    let text = include_str!("../../../examples/sim/recorded.jsonl");
    let trace = Trace::read(text.as_bytes()).unwrap();
    let figures = replayed(&trace, &WhatIf::default());
    assert_eq!(figures.ended, trace.calls.len() as u64);
    let recorded = RecordedFigures::of(&trace);
    assert_eq!((recorded.lost, recorded.unknown_co2e), (1, 0));
    // The second train waits where the first turns out to run for minutes, and is called back.
    let waited = figures.projects[0].wait_ms_p99;
    assert!((2_000..4_000).contains(&waited), "{waited} ms");
}

#[test]
fn work_beyond_all_bounds_ends_and_is_drawn_with_a_bounded_number_of_points() {
    // Ten thousand hours on a core as fast as any is; then there is only one as slow as any.
    let text = r#"{"node":{"name":"fast","region":"eu","cores":1,"core_ucu":1000000,"until_ms":1}}
{"node":{"name":"slow","region":"eu","cores":1,"core_ucu":0.001}}
{"kind":{"name":"k","project":"lab"}}
"#;
    let long = task(2, "fast", 2, 35_999_999_999) + &task(2, "fast", 2, 35_999_999_999);
    let figures = replayed(&trace(&(text.to_owned() + &long)), &WhatIf::default());
    assert_eq!((figures.ended, figures.curve.len() <= 480), (2, true));
    // A day's work of a moment.
    let moment = "{\"trace\":{\"version\":1,\"ms\":10}}\n{\"project\":{\"name\":\"lab\"}}\n\
                  {\"region\":{\"name\":\"eu\"}}\n"
        .to_owned()
        + ONE
        + &task(0, "one", 5, 86_400_005)
        + "{\"end\":{\"tasks\":1}}\n";
    let figures = replayed(&Trace::read(moment.as_bytes()).unwrap(), &WhatIf::default());
    assert!((240..=480).contains(&figures.curve.len()));
    let hours: Vec<f64> = figures.curve.iter().map(|point| point.hours).collect();
    assert!(hours.is_sorted() && hours[hours.len() - 1] > 23.0);
}

#[test]
fn what_waits_on_a_node_uses_no_core() {
    // Four calls of a minute at once, on one core that takes four ahead.
    let all: String = (0..4)
        .map(|n| task(0, "one", 60_000 * n, 60_000 * (n + 1)))
        .collect();
    let trace = trace(&(ONE.to_owned() + &all));
    let (figures, recorded) = (
        replayed(&trace, &WhatIf::default()),
        RecordedFigures::of(&trace),
    );
    for used in [figures.utilisation, recorded.utilisation] {
        assert!((0.99..=1.0).contains(&used), "{used}");
    }
    assert!(figures.curve.iter().all(|point| point.utilisation <= 1.0));
}

#[test]
fn accelerators_draw_too() {
    let node = ONE.replace(
        "\"core_watts\":10",
        "\"core_watts\":10,\"gpu_watts\":290,\"gpus\":[{\"model\":\"A100\",\"memory_mib\":40960}]",
    );
    let text = node.replace("\"project\":\"lab\"", "\"project\":\"lab\",\"gpus\":0.5")
        + &task(0, "one", 5, 60_005);
    let figures = replayed(&trace(&text), &WhatIf::default());
    // 10 W and half of 290 for a minute, where a kWh emits 100 g.
    let grams = 155.0 / 60.0 / 1000.0 * 100.0;
    let found = figures.grams_co2e;
    assert!((found - grams).abs() < 1e-9, "{found} {grams}");
}
