//! What a task may ask for: bounds, and what contradicts what.
#![allow(clippy::unwrap_used)]

use farlane_model::*;
use farlane_units::{ByteCount, MilliGpu, UsdMicros};

const PYTHON: PythonVersion = PythonVersion {
    major: 3,
    minor: 12,
};

type Change = Box<dyn FnOnce(&mut TaskSpec)>;

fn spec(change: impl FnOnce(&mut TaskSpec)) -> TaskSpec {
    let code = BlobRef {
        digest: Digest([0; 32]),
        size: ByteCount(1),
    };
    let mut spec = TaskSpec::new(ProjectId::new(0, [0; 10]), code, PYTHON);
    change(&mut spec);
    spec
}

fn refused(change: impl FnOnce(&mut TaskSpec)) -> String {
    spec(change).check().unwrap_err().to_string()
}

fn globs(list: &[&str]) -> Vec<Glob> {
    list.iter().map(|one| Glob::new(*one).unwrap()).collect()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|one| (*one).to_owned()).collect()
}

fn one_of(list: &[&str]) -> Demand {
    Demand::In(texts(list))
}
fn none_of(list: &[&str]) -> Demand {
    Demand::NotIn(texts(list))
}
fn version(range: &str) -> Demand {
    Demand::Version(VersionRange::new(range).unwrap())
}

fn rules(list: Vec<(&str, Demand)>) -> Vec<LabelRule> {
    let mut rules: Vec<_> = list
        .into_iter()
        .map(|(key, demand)| LabelRule {
            key: key.to_owned(),
            demand,
        })
        .collect();
    rules.sort();
    rules
}

fn wish(direction: Direction, scope: Scope, strength: Strength) -> Affinity {
    Affinity {
        tag: "db".into(),
        direction,
        scope,
        strength,
    }
}

#[test]
fn a_full_request_comes_back_from_its_bytes_and_version_1_does_not() {
    let full = spec(|s| {
        s.resources.gpus = MilliGpu(2000);
        s.gpu.models = texts(&["A100", "H100"]);
        s.gpu.memory = Some(ByteCount::gib(40));
        s.amounts = vec![Amount::new("license", 1).unwrap()];
        s.node.regions = globs(&["eu-*"]);
        s.node.residency = globs(&["*-central"]);
        s.node.providers = vec![Digest([1; 32])];
        s.node.keep_on = vec![NodeId([2; 32])];
        s.node.max_price = Some(UsdMicros(50_000));
        s.node.max_carbon = Some(300);
        s.node.labels = rules(vec![
            ("disk", one_of(&["nvme", "ssd"])),
            ("driver", version(">=535,<600")),
            ("old", Demand::Absent),
            ("rack", Demand::Exists),
            ("zone", none_of(&["c"])),
        ]);
        s.company.tag = Some("web".into());
        s.company.spread = Some(Scope::Region);
        s.company.affinities = vec![wish(Direction::Near, Scope::Node, Strength::Preferred)];
    });
    let mut bytes = full.to_canonical();
    assert_eq!(TaskSpec::from_canonical(&bytes), Ok(full));
    bytes[0] = 1;
    assert_eq!(TaskSpec::from_canonical(&bytes), Err(BadSpec::Unreadable));
}

#[test]
fn what_is_out_of_its_bounds_is_named() {
    let many = |n: usize| vec![Glob::new("eu").unwrap(); n];
    let long = "x".repeat(65);
    let changes: Vec<(&str, Change)> = vec![
        ("num_gpus", Box::new(|s| s.resources.gpus = MilliGpu(1500))),
        (
            "num_gpus",
            Box::new(|s| s.resources.gpus = MilliGpu(65_000)),
        ),
        ("gpu must", Box::new(|s| s.gpu.models = vec!["--".into()])),
        (
            "gpu must",
            Box::new(|s| s.gpu.models = vec!["a".into(); 17]),
        ),
        (
            "gpu_memory",
            Box::new(|s| s.gpu.memory = Some(ByteCount::MAX)),
        ),
        ("regions", Box::new(move |s| s.node.regions = many(65))),
        ("residency", Box::new(move |s| s.node.residency = many(65))),
        (
            "providers",
            Box::new(|s| s.node.providers = vec![Digest([1; 32]); 2]),
        ),
        (
            "keep_on",
            Box::new(|s| s.node.keep_on = vec![NodeId([2; 32]), NodeId([1; 32])]),
        ),
        (
            "max_price",
            Box::new(|s| s.node.max_price = Some(UsdMicros(-1))),
        ),
        (
            "max_carbon",
            Box::new(|s| s.node.max_carbon = Some(100_001)),
        ),
        (
            "labels",
            Box::new(|s| s.node.labels = rules(vec![("a", one_of(&[]))])),
        ),
        (
            "labels",
            Box::new(|s| s.node.labels = rules(vec![("", Demand::Exists)])),
        ),
        (
            "labels",
            Box::new(|s| s.node.labels = rules(vec![("a", one_of(&["b", "a"]))])),
        ),
        (
            "labels",
            Box::new(|s| s.node.labels = rules(vec![("a", one_of(&["\n"]))])),
        ),
        ("tag", Box::new(move |s| s.company.tag = Some(long))),
        (
            "affinity",
            Box::new(|s| {
                s.company.affinities =
                    vec![wish(Direction::Near, Scope::Node, Strength::Required); 2]
            }),
        ),
        (
            "resources",
            Box::new(|s| {
                s.amounts = vec![Amount {
                    name: "a".into(),
                    amount: 0,
                }]
            }),
        ),
        (
            "resources",
            Box::new(|s| {
                s.amounts = vec![Amount {
                    name: "a b".into(),
                    amount: 1,
                }]
            }),
        ),
        (
            "resources",
            Box::new(|s| {
                s.amounts = vec![
                    Amount {
                        name: "a".into(),
                        amount: 1
                    };
                    2
                ]
            }),
        ),
        ("Python", Box::new(|s| s.node.python.major = 0)),
    ];
    for (index, (field, change)) in changes.into_iter().enumerate() {
        let said = refused(change);
        assert!(said.contains(field), "{index}: {said}");
    }
    let values: Vec<String> = (100..164).map(|n| n.to_string()).collect();
    let keys = ["a", "b", "c", "d", "e"];
    let of = |n: usize| {
        rules(
            keys[..n]
                .iter()
                .map(|k| (*k, Demand::In(values.clone())))
                .collect(),
        )
    };
    assert!(spec(|s| s.node.labels = of(4)).check().is_ok());
    assert!(refused(|s| s.node.labels = of(5)).contains("256 values in all"));
    assert!(
        Amount::new("license", MAX_AMOUNT).is_ok()
            && Amount::new("license", MAX_AMOUNT + 1).is_err()
    );
}

#[test]
fn contradictions_name_both_sides() {
    let labels = |list: Vec<(&'static str, Demand)>| refused(|s| s.node.labels = rules(list));
    let both = |one: &str, other: &str| {
        format!("{one} and {other} contradict each other: no node can satisfy both")
    };
    assert_eq!(
        labels(vec![("x", one_of(&["1"])), ("x", Demand::Absent)]),
        both("label x=1", "label x absent")
    );
    assert_eq!(
        labels(vec![("x", Demand::Exists), ("x", Demand::Absent)]),
        both("label x present", "label x absent")
    );
    assert_eq!(
        labels(vec![
            ("x", one_of(&["a", "b"])),
            ("x", none_of(&["a", "b", "c"]))
        ]),
        both("label x=a or b", "label x other than a or b or c")
    );
    assert_eq!(
        labels(vec![("v", one_of(&["1.1"])), ("v", version(">=2"))]),
        both("label v=1.1", "label v >=2")
    );
    assert_eq!(
        labels(vec![("v", version("<2")), ("v", version(">=2"))]),
        both("label v <2", "label v >=2")
    );
    assert_eq!(
        labels(vec![("v", version(">=3,<2"))]),
        both("label v >=3,<2", "label v >=3,<2")
    );
    let three = vec![
        ("v", one_of(&["1", "3"])),
        ("v", none_of(&["3"])),
        ("v", version(">=2")),
    ];
    assert_eq!(
        labels(three),
        both("label v=1 or 3", "label v other than 3 with label v >=2")
    );
    let said = refused(|s| {
        s.node.regions = globs(&["us-*", "ap-*"]);
        s.node.residency = globs(&["eu-*"]);
    });
    assert_eq!(said, both("regions us-* or ap-*", "residency eu-*"));
    let said = refused(|s| {
        s.resources.gpus = MilliGpu(2000);
        s.gpu.memory = Some(ByteCount::ZERO);
    });
    assert_eq!(said, both("gpu_memory 0", "num_gpus 2"));
    assert_eq!(
        refused(|s| s.gpu.models = texts(&["A100", "H100"])),
        both("gpu A100|H100", "num_gpus 0")
    );
    assert_eq!(
        refused(|s| s.gpu.memory = Some(ByteCount::gib(40))),
        both("gpu_memory 40 GiB", "num_gpus 0")
    );
    let wishes = |near, apart| {
        refused(|s| {
            s.company.affinities = vec![
                wish(Direction::Near, near, Strength::Required),
                wish(Direction::Apart, apart, Strength::Required),
            ]
        })
    };
    assert_eq!(
        wishes(Scope::Node, Scope::Region),
        both(
            "affinity to \"db\" in the same node",
            "anti_affinity to \"db\" in the same region"
        )
    );
    let said = refused(|s| {
        s.company.tag = Some("db".into());
        s.company.spread = Some(Scope::Node);
        s.company.affinities = vec![wish(Direction::Near, Scope::Node, Strength::Required)];
    });
    assert_eq!(
        said,
        both(
            "spread over nodes",
            "affinity to its own tag \"db\" in the same node"
        )
    );
}

#[test]
fn what_only_looks_contradictory_passes() {
    for list in [
        vec![("x", one_of(&["a", "b"])), ("x", none_of(&["a"]))],
        vec![("x", none_of(&["a"])), ("x", Demand::Absent)],
        vec![
            ("v", version(">=1")),
            ("v", version("<2")),
            ("v", one_of(&["1.5"])),
        ],
        vec![("x", one_of(&["a"])), ("y", Demand::Absent)],
    ] {
        let spec = spec(|s| s.node.labels = rules(list));
        assert_eq!(spec.check(), Ok(()), "{:?}", spec.node.labels);
    }
    let near_and_far = spec(|s| {
        s.company.affinities = vec![
            wish(Direction::Near, Scope::Region, Strength::Required),
            wish(Direction::Apart, Scope::Node, Strength::Required),
        ]
    });
    let mut sorted = near_and_far.clone();
    sorted.company.affinities.sort();
    assert_eq!(sorted.check(), Ok(()), "in its region, and on another node");
}

#[test]
fn models_are_words_of_the_drivers_name() {
    let request = |models: &[&str]| GpuRequest {
        models: texts(models),
        memory: None,
    };
    for (model, name, is) in [
        ("A100", "NVIDIA A100-SXM4-80GB", true),
        ("a100 80gb", "NVIDIA A100-SXM4-80GB", true),
        ("A10", "NVIDIA A100-SXM4-80GB", false),
        ("RTX-4090", "NVIDIA GeForce RTX 4090", true),
        ("4090 RTX", "NVIDIA GeForce RTX 4090", false),
        ("H200", "NVIDIA H200", true),
    ] {
        assert_eq!(request(&[model]).is_model(name), is, "{model} {name}");
    }
    assert!(request(&[]).is_model("anything"));
    assert!(request(&["A100", "H100"]).is_model("NVIDIA H100 80GB HBM3"));
}

#[test]
fn required_affinities_look_at_what_runs() {
    let company = Company {
        affinities: vec![
            wish(Direction::Near, Scope::Region, Strength::Required),
            wish(Direction::Apart, Scope::Node, Strength::Required),
            wish(Direction::Near, Scope::Node, Strength::Preferred),
        ],
        ..Company::default()
    };
    let at = |node, region| {
        company.allows(|tag, scope| tag == "db" && if scope == Scope::Node { node } else { region })
    };
    assert_eq!(
        [at(false, true), at(true, true), at(false, false)],
        [true, false, false]
    );
}
