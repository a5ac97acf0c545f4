//! The format: what is written is read again, and every fault is named with its line.
#![allow(clippy::unwrap_used)]

use farlane_model::{
    BlobRef, Digest, Glob, LabelRule, PolicyName, ProjectId, PythonVersion, TaskSpec,
};
use farlane_trace::{
    Attempt, BadTrace, End, Fault, Gang, Header, Kind, Line, MAX_LINE, Outcome, Policy, Project,
    Region, Run, Salt, Trace, VERSION,
};

/// What people write at least.
const PLAIN: [&str; 7] = [
    r#"{"trace":{"version":1,"ms":60000}}"#,
    r#"{"project":{"name":"lab"}}"#,
    r#"{"region":{"name":"eu-west","g_kwh":[[0,213],[3600000,190]]}}"#,
    r#"{"node":{"name":"rack-7","region":"eu-west","cores":8}}"#,
    r#"{"kind":{"name":"train","project":"lab","cores":2}}"#,
    r#"{"task":{"kind":"train","submitted_ms":5,"attempts":[{"node":"rack-7","started_ms":9,"ended_ms":2009}]}}"#,
    r#"{"end":{"tasks":1}}"#,
];

fn read(lines: &[&str]) -> Result<Trace, BadTrace> {
    Trace::read((lines.join("\n") + "\n").as_bytes())
}

/// With this line in the place of that one.
fn with(at: usize, line: &str) -> BadTrace {
    let mut lines = PLAIN;
    lines[at] = line;
    read(&lines).unwrap_err()
}

#[test]
fn what_people_write_is_read() {
    let trace = read(&PLAIN).unwrap();
    assert_eq!((trace.header.ms, trace.calls.len()), (60_000, 1));
    assert_eq!(
        read(&PLAIN.join("\n\n").lines().collect::<Vec<_>>()).unwrap(),
        trace
    );
    let run = Run {
        node: 0,
        started: 9,
        ended: 2009,
        outcome: Outcome::Returned,
        usd_nanos: 0,
        co2e_ng: None,
    };
    assert_eq!(trace.attempts(&trace.calls[0]), [run]);
    assert_eq!(trace.projects[0].policy.0, PolicyName::Balanced.prices());
    assert_eq!(trace.regions[0].g_kwh[1], (3_600_000, 190));
    let spec = trace.kinds[0].spec(ProjectId::from_bytes([0; 16])).unwrap();
    assert_eq!(spec.resources.cpus.0, 2000);
    assert_eq!(trace.nodes[0].interpreters(), [spec.node.python]);
}

#[test]
fn what_is_written_is_read_again() {
    let attempt = |node: &str| Attempt {
        node: node.into(),
        started_ms: 7,
        ended_ms: 12,
        outcome: Outcome::TimedOut,
        usd_nanos: 3,
        co2e_ng: Some(4),
    };
    let own = Policy(farlane_model::PolicyPrices {
        hour: farlane_units::UsdMicros(1),
        ..PolicyName::Fast.prices()
    });
    let node: Line = serde_json::from_str(PLAIN[3]).unwrap();
    let kind: Line = serde_json::from_str(
        r#"{"kind":{"name":"g","project":"p","gang":2,"gpus":1,"labels":[{"key":"disk","is":{"in":["nvme"]}},
        {"key":"spot","is":"absent"}],"policy":"green","regions":["eu-*"],"priority":-3}}"#,
    )
    .unwrap();
    let lines = [
        Line::Trace(Header {
            version: VERSION,
            begins_ms: 1_700_000_000_000,
            ms: 10,
        }),
        Line::Project(Project {
            name: "p".into(),
            weight: 3,
            policy: own,
        }),
        Line::Region(Region {
            name: "eu-west".into(),
            g_kwh: vec![(0, 1)],
        }),
        node,
        kind,
        Line::Gang(Gang {
            kind: "g".into(),
            submitted_ms: 6,
            members: vec![vec![attempt("rack-7"); 2], vec![attempt("rack-7")]],
        }),
        Line::End(End {
            tasks: 2,
            left_out: 5,
        }),
    ];
    let text: String = lines.iter().map(Line::to_json).collect();
    let again = text.lines().map(|line| serde_json::from_str(line).unwrap());
    assert_eq!(again.collect::<Vec<Line>>(), lines);
    let trace = Trace::read(text.as_bytes()).unwrap();
    assert_eq!((trace.calls.len(), trace.runs.len()), (2, 3));
    assert_eq!((trace.left_out, trace.projects[0].policy), (5, own));
    assert_eq!(trace.attempts(&trace.calls[1]).len(), 1);
}

#[test]
fn a_spec_keeps_what_matters_and_loses_its_names() {
    let code = BlobRef {
        digest: Digest::of(b"code"),
        size: farlane_units::ByteCount(1),
    };
    let python = PythonVersion {
        major: 3,
        minor: 12,
    };
    let mut spec = TaskSpec::new(ProjectId::new(1, [1; 10]), code, python);
    spec.function = "secret_research".into();
    spec.node.labels = vec![LabelRule::equals("customer", "acme")];
    spec.node.providers = vec![Digest([4; 32])];
    spec.node.regions = vec![Glob::new("eu-*").unwrap()];
    spec.policy = Some(PolicyName::Cheap);
    let kind = Kind::of(&spec, &Digest([5; 32]), &Salt::new([6; 32]));
    let text = Line::Kind(Box::new(kind.clone())).to_json();
    for secret in ["secret", "research", "customer", "acme", "0404", "0505"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let again = kind.spec(spec.project).unwrap();
    assert_eq!(again.resources, spec.resources);
    assert_eq!(again.node.regions, spec.node.regions);
    assert_eq!((again.node.python, again.node.labels.len()), (python, 1));
    assert_eq!(kind.policy.unwrap().0, PolicyName::Cheap.prices());
}

#[test]
fn a_file_that_was_cut_is_told_wherever_it_was_cut() {
    let whole = PLAIN.join("\n") + "\n";
    // Without its last end of a line nothing is missing.
    for cut in 0..whole.len() - 1 {
        let bad = Trace::read(&whole.as_bytes()[..cut]).unwrap_err();
        let line = whole[..cut].matches('\n').count() as u64 + 1;
        let between = cut > 0 && whole.as_bytes()[cut] == b'\n';
        let line = line + u64::from(between);
        assert_eq!(bad.line, line, "cut at {cut}: {bad}");
    }
    assert!(matches!(read(&PLAIN[..6]).unwrap_err().fault, Fault::Cut));
    assert!(matches!(read(&[]).unwrap_err().fault, Fault::Cut));
    assert!(Trace::read(&whole.as_bytes()[..whole.len() - 1]).is_ok());
}

#[test]
fn every_fault_is_named_with_its_line() {
    let task = |rest: &str| format!(r#"{{"task":{{"kind":"train",{rest}}}}}"#);
    let attempt = |rest: &str| {
        task(&format!(
            r#""submitted_ms":5,"attempts":[{{"node":"rack-7",{rest}}}]"#
        ))
    };
    let node = |rest: &str| {
        format!(r#"{{"node":{{"name":"rack-7","region":"eu-west","cores":8,{rest}}}}}"#)
    };
    let kind = |rest: &str| format!(r#"{{"kind":{{"name":"train","project":"lab",{rest}}}}}"#);
    let cases: Vec<(usize, String, &str)> = vec![
        (
            0,
            r#"{"trace":{"version":2,"ms":1,"new":true}}"#.into(),
            "version 2",
        ),
        (
            0,
            r#"{"project":{"name":"lab"}}"#.into(),
            "is this file a trace?",
        ),
        (0, "seed = 1".into(), "is this file a trace?"),
        (0, r#"{"trace":{"version":1,"ms":0}}"#.into(), "ms must be"),
        (
            0,
            r#"{"trace":{"version":1,"ms":-5}}"#.into(),
            "invalid value",
        ),
        (1, PLAIN[0].into(), "begins twice"),
        (
            1,
            r#"{"project":{"name":"lab","weight":0}}"#.into(),
            "weight must be",
        ),
        (1, r#"{"project":{"name":""}}"#.into(), "name must be"),
        (
            1,
            r#"{"project":{"name":"lab","policy":"fsat"}}"#.into(),
            "did you mean \"fast\"?",
        ),
        (1, r#"{"projct":{"name":"lab"}}"#.into(), "unknown variant"),
        (
            1,
            r#"{"project":{"name":"lab","wieght":1}}"#.into(),
            "unknown field",
        ),
        (2, r#"{"region":{"name":"EU"}}"#.into(), "small letters"),
        (
            2,
            r#"{"region":{"name":"eu-west","g_kwh":[[5,1]]}}"#.into(),
            "the first at 0",
        ),
        (
            2,
            r#"{"region":{"name":"eu-west","g_kwh":[[0,9999]]}}"#.into(),
            "5000",
        ),
        (3, node(r#""core_ucu":NaN"#), "expected value"),
        (3, node(r#""core_ucu":1e999"#), "out of range"),
        (3, node(r#""core_ucu":-1"#), "core_ucu must be"),
        (
            3,
            node(r#""memory_mib":4398046511104"#),
            "memory_mib must be",
        ),
        (
            3,
            node(r#""core_hour_usd_micros":[[0,-1]]"#),
            "core_hour_usd_micros must be",
        ),
        (
            3,
            node(r#""core_hour_usd_micros":[[0,1],[0,2]]"#),
            "each later",
        ),
        (3, node(r#""until_ms":0"#), "until_ms must be"),
        (3, node(r#""tier":4"#), "tier must be"),
        (3, PLAIN[3].replace("eu-west", "mars"), "region \"mars\""),
        (4, PLAIN[4].replace("lab", "nobody"), "project \"nobody\""),
        (4, kind(r#""cores":0"#), "cores must be"),
        (4, kind(r#""gang":257"#), "gang must be"),
        (4, kind(r#""gpus":1.5"#), "gpus must be"),
        (4, kind(r#""gpu_models":["H100"]"#), "no task can ask this"),
        (4, kind(r#""regions":["a b"]"#), "region patterns"),
        (4, kind(r#""python":"three""#), "python must be"),
        (4, PLAIN[3].into(), "a node \"rack-7\" above already"),
        (
            5,
            PLAIN[5].replace("\"train\"", "\"other\""),
            "kind \"other\"",
        ),
        (5, PLAIN[5].replace("rack-7", "rack-8"), "node \"rack-8\""),
        (5, task(r#""submitted_ms":5,"attempts":[]"#), "never ran"),
        (
            5,
            task(r#""submitted_ms":60001,"attempts":[]"#),
            "within the trace",
        ),
        (
            5,
            attempt(r#""started_ms":4,"ended_ms":9"#),
            "before it was submitted",
        ),
        (5, attempt(r#""started_ms":9,"ended_ms":8"#), "backwards"),
        (
            5,
            attempt(r#""started_ms":9,"ended_ms":9e18"#),
            "invalid type",
        ),
        (
            5,
            attempt(r#""started_ms":9,"ended_ms":99999999999"#),
            "ended_ms must be",
        ),
        (
            5,
            attempt(r#""started_ms":9,"ended_ms":9,"outcome":"exploded""#),
            "unknown variant",
        ),
        (
            5,
            attempt(r#""started_ms":9,"ended_ms":9,"usd_nanos":-1"#),
            "invalid value",
        ),
        (
            5,
            PLAIN[5].replace("\"task\"", "\"gang\""),
            "unknown field `attempts`",
        ),
        (
            5,
            r#"{"gang":{"kind":"train","submitted_ms":5,"members":[]}}"#.into(),
            "gangs of 1",
        ),
        (5, "x".repeat(MAX_LINE + 1), "longer than"),
        (6, r#"{"end":{"tasks":2}}"#.into(), "2 tasks, and 1 are"),
    ];
    for (at, line, said) in cases {
        let bad = with(at, &line);
        let shown = bad.to_string();
        assert!(shown.contains(said), "{said:?} not in {shown:?}");
        assert_eq!(bad.line, at as u64 + 1, "{shown}");
        assert!(shown.starts_with(&format!("line {}: ", at + 1)));
    }
}

#[test]
fn tasks_stand_in_the_order_of_submission_and_nothing_below_the_end() {
    let early = PLAIN[5].replace("\"submitted_ms\":5", "\"submitted_ms\":4");
    let mut lines = PLAIN.to_vec();
    lines.insert(6, &early);
    let bad = read(&lines).unwrap_err();
    assert_eq!(bad.line, 7);
    assert!(matches!(bad.fault, Fault::Order { at: 4, before: 5 }));
    lines.remove(6);
    lines.push(PLAIN[5]);
    let bad = read(&lines).unwrap_err();
    assert_eq!(bad.line, 8);
    assert!(matches!(bad.fault, Fault::Beyond));
}
