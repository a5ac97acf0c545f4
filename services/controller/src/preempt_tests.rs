//! How much of a large network is looked at in one second.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use farlane_model::*;
use farlane_plan::{Egress, NodeView, Reservation};
use farlane_state::*;
use farlane_units::*;

use super::{MAX_LEASES, MAX_NODES, ViewCache, choose, look};

const BOOT: BootId = BootId([1; 16]);
const CORES: u32 = 4;
/// Long after all of it was submitted and placed.
const LATER: Millis = Millis(1_010_000);

pub(crate) fn id(n: usize) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    NodeId(id)
}

pub(crate) fn spec() -> NodeSpec {
    NodeSpec {
        name: "n".into(),
        cpu_model: "x".into(),
        cpus: MilliCpu(CORES * 1000),
        clock_mhz: 2000,
        memory: ByteCount::gib(64),
        disk: ByteCount::gib(64),
        interpreters: Arc::new([Interpreter {
            version: PythonVersion {
                major: 3,
                minor: 11,
            },
            full: "3.11.2".into(),
        }]),
        tier: Tier::Namespaces,
        enforced: Arc::new([]),
        labels: Arc::new([]),
        price_usd_micros_core_hour: UsdMicros(1),
        backlog_credit: 0,
        os: "linux".into(),
        arch: "x86_64".into(),
        agent: "0".into(),
        devices: vec![],
        measured: None,
        resources: vec![],
    }
}

pub(crate) fn view(n: usize, spec: &Arc<NodeSpec>) -> NodeView {
    NodeView {
        id: id(n),
        generation: 2,
        spec: spec.clone(),
        region: "us".into(),
        provider: Digest::default(),
        online: true,
        free_cpus: MilliCpu::ZERO,
        free_memory: ByteCount::gib(1),
        free_scratch: ByteCount::gib(1),
        devices: DeviceLoads::default(),
        free_amounts: Vec::new(),
        free_backlog: 0,
        backlog: 0,
        round_trip: Micros(500),
        bandwidth: None,
        egress: Egress::default(),
        price: UsdMicros(1),
        carbon: None,
        milliwatts_core: 0,
        milliwatts_gpu: 0,
        risk: Ppm(0),
        slowdown_milli: 1000,
        heat: farlane_plan::Heat::default(),
        quarantined: false,
    }
}

/// A network whose every core is taken by work of priority 0, and a task of priority 10 that waits.
pub(crate) struct Full {
    pub state: State,
    pub cache: ViewCache,
    index: u64,
    pub session: SessionId,
    project: ProjectId,
}

impl Full {
    pub fn order(&mut self, order: impl Into<Order>) -> Outcome {
        self.index += 1;
        let stamp = Stamp {
            index: self.index,
            term: 1,
            now: Millis(1_000_000),
        };
        apply(&mut self.state, stamp, 0, order.into()).outcome
    }

    pub fn submit(&mut self, first: u64, count: usize, priority: i8) {
        self.submit_as(first, count, priority, None);
    }

    fn submit_as(&mut self, first: u64, count: usize, priority: i8, gang: Option<Gang>) {
        let code = BlobRef {
            digest: Digest([0; 32]),
            size: ByteCount(1),
        };
        let python = PythonVersion {
            major: 3,
            minor: 11,
        };
        let mut task = TaskSpec::new(self.project, code, python);
        (task.priority, task.gang) = (priority, gang);
        let bytes: Bytes = task.to_canonical().into();
        let one = Submitted {
            spec: Digest::of(&bytes),
            wrapped_key: Bytes::from_static(&[5; 48]),
            payload: Sealed::Inline(Bytes::from_static(b"sealed")),
            payload_digest: Digest::default(),
            idempotency: None,
            refs: Vec::new(),
        };
        let done = self.order(SubmitBatch {
            session: self.session,
            first_seq: first,
            specs: vec![bytes],
            tasks: vec![one; count],
        });
        assert!(matches!(&done, Outcome::Submitted { refused, .. } if refused.is_empty()));
    }

    /// Another client, who submits from now on.
    pub fn open(&mut self, session: SessionId, project: ProjectId) {
        (self.session, self.project) = (session, project);
        self.order(OpenSession {
            session,
            project,
            tenant: TenantId([7; 32]),
            key: KeyId::new(1, [8; 10]),
            wrapped_session_key: Bytes::new(),
            device: Bytes::new(),
        });
        self.order(AttachGranter {
            granter: session,
            project,
            standing: false,
            device: Bytes::new(),
        });
    }

    /// These of the session's tasks, one on each of the nodes.
    pub fn place(&mut self, tasks: impl IntoIterator<Item = (u64, usize)>) {
        let place = |(seq, n)| Placement {
            task: self.session.task(seq),
            node: id(n),
            generation: 2,
        };
        let placements: Vec<_> = tasks.into_iter().map(place).collect();
        for some in placements.chunks(2048) {
            let placed = self.order(farlane_state::Place {
                based_on: 0,
                placements: some.to_vec(),
                quotes: Vec::new(),
            });
            assert!(matches!(placed, Outcome::Placed { refused, .. } if refused.is_empty()));
        }
    }

    pub fn new(nodes: usize) -> Self {
        Self::of(nodes, spec())
    }

    pub fn of(nodes: usize, spec: NodeSpec) -> Self {
        let session = SessionId::new(1000, [1; 5]);
        let mut full = Self {
            state: State::empty(),
            cache: ViewCache::default(),
            index: 0,
            session,
            project: ProjectId::new(0, [0; 10]),
        };
        full.order(Genesis {
            network: Digest([1; 32]),
            epoch: 1,
            cluster_version: 1,
        });
        full.open(session, full.project);
        let spec = Arc::new(spec);
        let bytes: Bytes = spec.to_canonical().into();
        for n in 0..nodes {
            full.order(RegisterNode {
                node: id(n),
                record: Bytes::new(),
                spec: bytes.clone(),
                region: "us".into(),
                provider: Digest::default(),
            });
            full.order(UpdateNode {
                node: id(n),
                boot: BOOT,
                spec: bytes.clone(),
            });
            full.order(StockPrekeys {
                node: id(n),
                boot: BOOT,
                daily: Some(Bytes::from_static(b"daily")),
                one_time: Vec::new(),
            });
            full.cache.fleet.put(view(n, &spec));
            let first = (n as u64) * u64::from(CORES) + 1;
            full.submit(first, CORES as usize, 0);
            let place = |seq| Placement {
                task: session.task(seq),
                node: id(n),
                generation: 2,
            };
            let placed = full.order(farlane_state::Place {
                based_on: 0,
                placements: (first..first + u64::from(CORES)).map(place).collect(),
                quotes: Vec::new(),
            });
            assert!(
                matches!(placed, Outcome::Placed { placed: CORES, .. }),
                "{placed:?}"
            );
        }
        full.submit(nodes as u64 * u64::from(CORES) + 1, 1, 10);
        full
    }
}

#[test]
fn a_look_is_bounded_and_the_next_goes_on_where_it_ended() {
    const NODES: usize = 10_000;
    let mut full = Full::new(NODES);
    let mut seen = std::collections::BTreeSet::new();
    let began = Instant::now();
    let mut looks = 0;
    while seen.len() < NODES {
        let look = look(&full.state, &mut full.cache, None, LATER).unwrap();
        let leases: usize = look.places.iter().map(|p| p.attempts.len()).sum();
        assert!(look.places.len() <= MAX_NODES && leases < MAX_LEASES + CORES as usize);
        seen.extend(look.places.iter().map(|p| p.occupied.node));
        looks += 1;
    }
    println!("a look takes {:?}", began.elapsed() / looks);
    assert_eq!(looks, 3, "three seconds for 10,000 nodes");
    // One makes way, wherever the look is.
    for _ in 0..4 {
        let look = look(&full.state, &mut full.cache, None, LATER).unwrap();
        let began = Instant::now();
        let (asked, recalled) = choose(look, &mut full.cache, LATER);
        println!("a choice takes {:?}", began.elapsed());
        assert_eq!((asked.len(), recalled.len()), (1, 0));
    }
}

#[test]
fn nothing_is_looked_at_where_nothing_waits() {
    let mut full = Full::new(8);
    let soon = Millis(1_001_000);
    assert!(
        look(&full.state, &mut full.cache, None, soon).is_none(),
        "it may find room yet"
    );
    let cancel = Cancel {
        project: ProjectId::new(0, [0; 10]),
        tasks: vec![full.session.task(8 * u64::from(CORES) + 1)],
        reason: String::new(),
    };
    full.order(cancel);
    assert!(look(&full.state, &mut full.cache, None, LATER).is_none());
}

#[test]
fn for_a_gang_all_of_its_room_is_made_on_the_nodes_that_are_kept_for_it() {
    let mut full = Full::new(3);
    let first = 3 * u64::from(CORES) + 2;
    let gang = Gang {
        size: 6,
        regions: GangRegions::One,
    };
    full.submit_as(first, 6, 20, Some(gang));
    let asked = |full: &mut Full| {
        let seen = look(&full.state, &mut full.cache, None, LATER);
        seen.map_or_else(Vec::new, |seen| choose(seen, &mut full.cache, LATER).0)
    };
    assert_eq!(asked(&mut full), [], "others would take what came free");
    let heads: Vec<TaskId> = (first..first + 6)
        .map(|seq| full.session.task(seq))
        .collect();
    let kept = Reservation {
        nodes: vec![id(0), id(2)],
        at: Millis(9_000_000),
    };
    full.cache.reserved.take(vec![(0, kept)], &[heads]);
    let victims = asked(&mut full);
    assert_eq!(victims.len(), 6);
    for victim in &victims {
        let node = full
            .state
            .task(victim.task)
            .unwrap()
            .placed
            .unwrap()
            .node
            .id;
        assert!(node == id(0) || node == id(2));
    }
    let outcome = full.order(Preempt { attempts: victims });
    assert_eq!(outcome, Outcome::Settled { count: 6 });
    // They are on their way: nothing more is asked.
    assert_eq!(asked(&mut full), []);
}

#[test]
fn a_gang_that_makes_way_counts_with_all_that_it_has_done() {
    let mut full = Full::new(1);
    // The four that run there end; a gang of two and two others take their place.
    let cancel = (1..=4).map(|seq| full.session.task(seq)).collect();
    full.order(Cancel {
        project: ProjectId::new(0, [0; 10]),
        tasks: cancel,
        reason: String::new(),
    });
    let gang = Gang {
        size: 2,
        regions: GangRegions::One,
    };
    full.submit_as(6, 2, 0, Some(gang));
    full.submit_as(8, 2, 0, None);
    let place = |session: SessionId, seq| Placement {
        task: session.task(seq),
        node: id(0),
        generation: 2,
    };
    let placements = (6..10).map(|seq| place(full.session, seq)).collect();
    full.order(farlane_state::Place {
        based_on: 0,
        placements,
        quotes: Vec::new(),
    });
    let seen = look(&full.state, &mut full.cache, None, LATER).unwrap();
    let holders = &seen.places[0].occupied.holders;
    let members: Vec<u32> = holders.iter().map(|h| h.members).collect();
    assert_eq!(members, [2, 2, 1, 1]);
    let (asked, _) = choose(seen, &mut full.cache, LATER);
    let asked: Vec<u64> = asked.iter().map(|a| a.task.seq()).collect();
    assert_eq!(asked, [8], "half as much is done again");
}

#[test]
fn what_waits_everywhere_is_looked_at_in_turn_and_goes_where_room_is() {
    const NODES: usize = 10_000;
    let ahead = NodeSpec {
        backlog_credit: 1,
        ..spec()
    };
    let mut full = Full::of(NODES, ahead.clone());
    let first = NODES as u64 * u64::from(CORES) + 2;
    for some in (0..NODES).step_by(500) {
        full.submit(first + some as u64, 500, 0);
    }
    let session = full.session;
    full.place((0..NODES).map(|n| (first + n as u64, n)));
    full.order(Cancel {
        project: ProjectId::new(0, [0; 10]),
        tasks: vec![session.task(first - 1)],
        reason: String::new(),
    });
    // Nowhere to go: all stay, each is looked at in its turn, and nothing more is placed behind them.
    let mut looked = std::collections::BTreeSet::new();
    while looked.len() < NODES {
        let began = Instant::now();
        let seen = look(&full.state, &mut full.cache, None, LATER).unwrap();
        assert!(seen.stuck.len() <= crate::stuck::MAX_STUCK);
        let before = looked.len();
        looked.extend(seen.stuck.iter().map(|stuck| stuck.place.occupied.node));
        assert!(looked.len() > before);
        let (_, recalled) = choose(seen, &mut full.cache, LATER);
        assert_eq!(recalled, []);
        if before == 0 {
            println!("a look at what waits on nodes takes {:?}", began.elapsed());
        }
    }
    assert_eq!(full.cache.fleet.room(), 0);
    // One node with four cores, where three have been taken since: one goes.
    full.cache.fleet.put(NodeView {
        free_cpus: MilliCpu(1000),
        ..view(NODES, &Arc::new(ahead))
    });
    let seen = look(&full.state, &mut full.cache, None, LATER).unwrap();
    let (_, recalled) = choose(seen, &mut full.cache, LATER);
    assert_eq!(recalled.len(), 1);
}
