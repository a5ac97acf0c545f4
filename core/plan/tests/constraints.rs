//! One node against one request: every rule, at its bounds and beyond, with its words and its smallest change.
#![allow(clippy::unwrap_used)]

use farlane_model::*;
use farlane_plan::{Lack, Site, unknown_labels};
use farlane_units::{ByteCount, MilliCpu, MilliGpu, UsdMicros};
use proptest::prelude::*;

const PYTHON: PythonVersion = PythonVersion {
    major: 3,
    minor: 11,
};
const HERE: NodeId = NodeId([1; 32]);
const OWNER: Digest = Digest([2; 32]);

/// As far as spec and region say.
fn lacks(node: &NodeSpec, region: &str, task: &TaskSpec) -> Vec<Lack> {
    Site::of(node, region).lacks(task)
}

fn gpu(model: &str, gib: u64) -> Device {
    Device {
        kind: DeviceKind::Gpu { cuda_cores: 1 },
        model: model.into(),
        memory: ByteCount::gib(gib),
        tdp_watts: 0,
        id: String::new(),
        measured: None,
    }
}

fn node() -> NodeSpec {
    let labels = [("disk", "nvme"), ("driver", "535.104"), ("zone", "b")];
    NodeSpec {
        name: "n".into(),
        cpu_model: "x".into(),
        cpus: MilliCpu(4000),
        clock_mhz: 2000,
        memory: ByteCount::gib(32),
        disk: ByteCount::gib(100),
        interpreters: [Interpreter {
            version: PYTHON,
            full: "3.11.2".into(),
        }]
        .into(),
        tier: Tier::Namespaces,
        enforced: [].into(),
        labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        price_usd_micros_core_hour: UsdMicros(40_000),
        backlog_credit: 4,
        os: "linux".into(),
        arch: "x86_64".into(),
        agent: "0".into(),
        devices: vec![gpu("NVIDIA A100-SXM4-40GB", 40), gpu("Tesla T4", 15)],
        measured: None,
        resources: vec![Amount::new("license", 2).unwrap()],
    }
}

fn site(node: &NodeSpec) -> Site<'_> {
    Site {
        node: Some(&HERE),
        provider: Some(&OWNER),
        carbon: Some(300),
        ..Site::of(node, "eu-central")
    }
}

type Change = Box<dyn Fn(&mut TaskSpec)>;

fn task(change: impl Fn(&mut TaskSpec)) -> TaskSpec {
    let code = BlobRef {
        digest: Digest([0; 32]),
        size: ByteCount(1),
    };
    let mut task = TaskSpec::new(ProjectId::new(0, [0; 10]), code, PYTHON);
    task.resources.scratch = ByteCount::ZERO;
    change(&mut task);
    task
}

fn label(key: &'static str, demand: Demand) -> Change {
    Box::new(move |t| {
        t.node.labels = vec![LabelRule {
            key: key.into(),
            demand: demand.clone(),
        }]
    })
}
fn one_of(values: &[&str]) -> Demand {
    Demand::In(values.iter().map(|v| (*v).to_owned()).collect())
}
fn range(text: &str) -> Demand {
    Demand::Version(VersionRange::new(text).unwrap())
}
fn gpus(count: u32, models: &'static [&'static str], memory: Option<u64>) -> Change {
    Box::new(move |t| {
        t.resources.gpus = MilliGpu(count);
        t.gpu.models = models.iter().map(|m| (*m).to_owned()).collect();
        t.gpu.memory = memory.map(ByteCount::gib);
    })
}
fn regions(list: &'static [&'static str]) -> Vec<Glob> {
    list.iter().map(|r| Glob::new(*r).unwrap()).collect()
}

#[test]
fn what_is_there_fits() {
    let fits: Vec<Change> = vec![
        Box::new(|t| t.resources.cpus = MilliCpu(4000)),
        Box::new(|t| t.resources.memory = ByteCount::gib(32)),
        Box::new(|t| t.resources.scratch = ByteCount::gib(100)),
        gpus(1000, &["H100", "a100 40gb"], Some(40)),
        gpus(2000, &[], Some(15)),
        gpus(250, &["T4"], None),
        Box::new(|t| t.amounts = vec![Amount::new("license", 2).unwrap()]),
        Box::new(|t| t.node.regions = regions(&["us-*", "eu-*"])),
        Box::new(|t| t.node.residency = regions(&["*-central"])),
        Box::new(|t| t.node.keep_on = vec![HERE]),
        Box::new(|t| t.node.providers = vec![OWNER]),
        label("zone", one_of(&["a", "b"])),
        label("zone", Demand::NotIn(vec!["c".into()])),
        label("none", Demand::NotIn(vec!["c".into()])),
        label("disk", Demand::Exists),
        label("none", Demand::Absent),
        label("driver", range(">=535,<535.105")),
        Box::new(|t| t.node.tier = Tier::Namespaces),
        Box::new(|t| t.node.max_price = Some(UsdMicros(40_000))),
        Box::new(|t| t.node.max_carbon = Some(300)),
    ];
    let node = node();
    for (index, change) in fits.iter().enumerate() {
        let task = task(change);
        assert_eq!(task.check(), Ok(()), "{index}");
        assert_eq!(site(&node).lacks(&task), [], "{index}");
        assert!(site(&node).fits(&task), "{index}");
    }
}

#[test]
fn what_lacks_is_said_with_its_smallest_change() {
    let table: Vec<(Change, &str, Option<&str>)> = vec![
        (
            Box::new(|t| t.resources.cpus = MilliCpu(4001)),
            "has 4 cores, the task needs 4.001",
            Some("num_cpus 4.001 → 4"),
        ),
        (
            Box::new(|t| t.resources.memory = ByteCount::gib(64)),
            "has 32 GiB of memory, the task needs 64 GiB",
            Some("memory 64 GiB → 32 GiB"),
        ),
        (
            Box::new(|t| t.resources.scratch = ByteCount::gib(101)),
            "has 100 GiB of scratch, the task needs 101 GiB",
            Some("scratch 101 GiB → 100 GiB"),
        ),
        (
            gpus(2000, &["A100", "H100"], None),
            "has 1 NVIDIA A100-SXM4-40GB and 1 Tesla T4, the task needs 2 of A100 or H100",
            Some("num_gpus 2 → 1"),
        ),
        (
            gpus(1000, &["A100"], Some(80)),
            "has 1 NVIDIA A100-SXM4-40GB with 40 GiB and 1 Tesla T4 with 15 GiB, the task needs 1 of A100 with at least 80 GiB",
            Some("gpu_memory 80 GiB → 40 GiB"),
        ),
        (
            gpus(2000, &[], Some(20)),
            "has 1 NVIDIA A100-SXM4-40GB with 40 GiB and 1 Tesla T4 with 15 GiB, the task needs 2 GPUs with at least 20 GiB",
            Some("gpu_memory 20 GiB → 15 GiB"),
        ),
        (
            gpus(500, &["H100"], Some(16)),
            "has 1 NVIDIA A100-SXM4-40GB with 40 GiB and 1 Tesla T4 with 15 GiB, the task needs 0.5 of H100 with at least 16 GiB",
            Some("gpu H100 → NVIDIA A100-SXM4-40GB"),
        ),
        (
            gpus(3000, &["H100"], None),
            "has 1 NVIDIA A100-SXM4-40GB and 1 Tesla T4, the task needs 3 of H100",
            Some("num_gpus 3 → 0"),
        ),
        (
            Box::new(|t| t.amounts = vec![Amount::new("license", 3).unwrap()]),
            "has 2 of license, the task needs 3",
            Some("resources license 3 → 2"),
        ),
        (
            Box::new(|t| t.amounts = vec![Amount::new("tpu", 1).unwrap()]),
            "has no tpu, the task needs 1",
            Some("resources tpu 1 → 0"),
        ),
        (
            Box::new(|t| t.node.regions = regions(&["us-*", "ap-*"])),
            "is in eu-central, the task wants us-* or ap-*",
            Some("regions us-* or ap-* → or eu-central"),
        ),
        (
            Box::new(|t| t.node.residency = regions(&["eu-west"])),
            "is in eu-central, the task's data may lie in eu-west only",
            Some("residency eu-west → or eu-central"),
        ),
        (
            Box::new(|t| t.node.keep_on = vec![NodeId([9; 32])]),
            "is not the node to stay on, 090909090909",
            Some("keep_on → anywhere"),
        ),
        (
            label("disk", one_of(&["ssd"])),
            "has label disk=nvme, the task wants disk=ssd",
            Some("labels disk=ssd → or nvme"),
        ),
        (
            label("rack", one_of(&["1", "2"])),
            "has no label rack, the task wants rack=1 or 2",
            Some("labels rack=1 or 2 → without it"),
        ),
        (
            label("zone", Demand::NotIn(vec!["a".into(), "b".into()])),
            "has label zone=b, the task wants zone other than a or b",
            Some("not_labels zone → without b"),
        ),
        (
            label("rack", Demand::Exists),
            "has no label rack, the task wants rack present",
            Some("labels rack present → without it"),
        ),
        (
            label("disk", Demand::Absent),
            "has label disk=nvme, the task wants disk absent",
            Some("labels disk absent → without it"),
        ),
        (
            label("driver", range(">=550")),
            "has label driver=535.104, the task wants driver >=550",
            Some("labels driver >=550 → without it"),
        ),
        (
            label("disk", range(">=1")),
            "has label disk=nvme, the task wants disk >=1",
            Some("labels disk >=1 → without it"),
        ),
        (
            Box::new(|t| t.node.python.minor = 13),
            "has Python 3.11, the task needs 3.13",
            Some("Python 3.13 → 3.11"),
        ),
        (
            Box::new(|t| t.node.tier = Tier::UserKernel),
            "enforces sandbox tier 1, the task needs 2",
            Some("sandbox gvisor → namespaces"),
        ),
        (
            Box::new(|t| t.node.max_price = Some(UsdMicros(39_999))),
            "costs $0.040000 a core-hour, the task pays at most $0.039999",
            Some("max_price $0.039999 → $0.040000"),
        ),
        (
            Box::new(|t| t.node.max_carbon = Some(299)),
            "emits 300 g/kWh in eu-central, the task allows 299",
            Some("max_carbon 299 → 300"),
        ),
    ];
    let node = node();
    for (change, words, smaller) in &table {
        let task = task(change);
        assert_eq!(task.check(), Ok(()), "{words}");
        let lacks = site(&node).lacks(&task);
        let said: Vec<String> = lacks.iter().map(ToString::to_string).collect();
        assert_eq!(said, [*words]);
        assert_eq!(lacks[0].change().as_deref(), *smaller, "{words}");
        assert!(!site(&node).fits(&task), "{words}");
    }
    assert_eq!(Lack::Offline.change(), None);
}

#[test]
fn providers_are_named_by_their_fingerprints() {
    let node = node();
    let other = task(|t| t.node.providers = vec![Digest([9; 32])]);
    let lacks = site(&node).lacks(&other);
    assert!(matches!(&lacks[..], [Lack::Provider { .. }]), "{lacks:?}");
    let change = lacks[0].change().unwrap();
    assert_eq!(change, format!("providers → or {OWNER}"));
    let unsaid = Site::of(&node, "eu-central");
    assert!(
        unsaid.fits(&other),
        "left to the granter where it is not known"
    );
}

#[test]
fn what_nobody_knows_of_carbon_does_not_satisfy_a_ceiling() {
    let node = node();
    let task = task(|t| t.node.max_carbon = Some(100_000));
    let said = lacks(&node, "eu-central", &task);
    assert_eq!(
        said[0].to_string(),
        "what the grid of eu-central emits is not known, the task allows 100000 g/kWh"
    );
    assert_eq!(said[0].change().as_deref(), Some("max_carbon → none"));
}

#[test]
fn a_machine_without_any_says_so() {
    let bare = NodeSpec {
        devices: vec![],
        interpreters: [].into(),
        ..node()
    };
    let task = task(|t| t.resources.gpus = MilliGpu(1000));
    let said: Vec<_> = site(&bare).lacks(&task);
    assert_eq!(said[0].to_string(), "has no GPU, the task needs 1 GPU");
    assert_eq!(said[0].change().as_deref(), Some("num_gpus 1 → 0"));
    assert_eq!(said[1].to_string(), "has no Python, the task needs 3.11");
    assert_eq!(said[1].change(), None);
}

#[test]
fn keys_that_no_node_has_are_named() {
    let nodes = [node(), node()];
    let rules = |list: Vec<(&str, Demand)>| {
        let all = list.into_iter().map(|(key, demand)| LabelRule {
            key: key.to_owned(),
            demand,
        });
        let all: Vec<_> = all.collect();
        task(move |t| t.node.labels = all.clone())
    };
    let task = rules(vec![
        ("disc", one_of(&["nvme"])),
        ("disk", one_of(&["none"])),
        ("drver", range(">=1")),
        ("drver", range("<2")),
        ("spot", Demand::Absent),
        ("zon", Demand::NotIn(vec!["a".into()])),
    ]);
    assert_eq!(unknown_labels(nodes.iter(), &task), ["disc", "drver"]);
    assert!(
        unknown_labels([].iter(), &task).is_empty(),
        "no nodes, nothing is known"
    );
}

fn any_demand() -> impl Strategy<Value = Demand> {
    let values =
        || prop::collection::btree_set("[a-c]", 1..3).prop_map(|s| s.into_iter().collect());
    prop_oneof![
        values().prop_map(Demand::In),
        values().prop_map(Demand::NotIn),
        Just(Demand::Exists),
        Just(Demand::Absent),
        "(>=|<|==|!=)[0-3](\\.[0-9])?".prop_map(|text| range(&text)),
    ]
}

prop_compose! {
    fn any_node()(
        cpus in 1u32..4, memory in 0u64..3, disk in 0u64..3, tier in 0u8..3, minor in 10u8..13,
        labels in prop::collection::btree_map("[xy]", "[a-c]|[0-3]\\.[0-9]", 0..3),
        cards in prop::collection::vec(("A100|H100", 1u64..3), 0..4), license in 0u32..3, price in 0i64..3,
    ) -> NodeSpec {
        NodeSpec {
            cpus: MilliCpu(cpus * 1000),
            memory: ByteCount::gib(memory),
            disk: ByteCount::gib(disk),
            tier: [Tier::Process, Tier::Namespaces, Tier::UserKernel][usize::from(tier)],
            interpreters: [Interpreter { version: PythonVersion { major: 3, minor }, full: "x".into() }].into(),
            labels: labels.into_iter().collect(),
            devices: cards.iter().map(|(model, gib)| gpu(model, *gib)).collect(),
            resources: Amount::new("license", license).into_iter().collect(),
            price_usd_micros_core_hour: UsdMicros(price),
            ..node()
        }
    }
}

prop_compose! {
    fn any_task()(
        (cpus, memory, scratch) in (1u32..4, 0u64..3, 0u64..3), tier in 0u8..3, minor in 10u8..13,
        rules in prop::collection::vec(("[xy]", any_demand()), 0..3),
        gpus in prop::sample::select(vec![0u32, 250, 1000, 2000]), model in prop::option::of("A100|H100"),
        least in prop::option::of(1u64..3), license in 0u32..3,
        (price, carbon) in (prop::option::of(0i64..3), prop::option::of(0u32..3)),
        (place, data) in (prop::option::of("eu-\\*|us-\\*"), prop::option::of("eu-\\*|\\*-west")),
        (owner, home) in (prop::option::of(0u8..2), prop::option::of(0u8..2)),
    ) -> TaskSpec {
        let globs = |g: &Option<String>| g.iter().map(|g| Glob::new(g.as_str()).unwrap()).collect();
        task(|t| {
            t.resources = Resources {
                cpus: MilliCpu(cpus * 1000),
                memory: ByteCount::gib(memory),
                scratch: ByteCount::gib(scratch),
                gpus: MilliGpu(gpus),
            };
            t.gpu.models = model.iter().cloned().collect();
            t.gpu.memory = least.map(ByteCount::gib);
            t.amounts = Amount::new("license", license).into_iter().collect();
            t.node.tier = [Tier::Process, Tier::Namespaces, Tier::UserKernel][usize::from(tier)];
            t.node.python.minor = minor;
            t.node.labels = rules.iter().map(|(key, demand)| LabelRule {
                key: key.clone(),
                demand: demand.clone(),
            }).collect();
            t.node.max_price = price.map(UsdMicros);
            t.node.max_carbon = carbon;
            t.node.regions = globs(&place);
            t.node.residency = globs(&data);
            t.node.providers = owner.iter().map(|n| Digest([*n; 32])).collect();
            t.node.keep_on = home.iter().map(|n| NodeId([*n; 32])).collect();
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]
    #[test]
    fn it_fits_exactly_where_nothing_lacks(
        node in any_node(), task in any_task(), region in "eu-west|eu-north|us-west",
        id in prop::option::of(0u8..2), owner in prop::option::of(0u8..2), carbon in prop::option::of(0u32..3),
    ) {
        let id = id.map(|n| NodeId([n; 32]));
        let owner = owner.map(|n| Digest([n; 32]));
        let site = Site { node: id.as_ref(), provider: owner.as_ref(), carbon, ..Site::of(&node, &region) };
        let lacks = site.lacks(&task);
        prop_assert_eq!(site.fits(&task), lacks.is_empty(), "{:?}", lacks);
        for lack in &lacks {
            prop_assert!(!lack.to_string().is_empty());
        }
    }
}
