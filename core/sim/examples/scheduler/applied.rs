//! What the state machine takes to judge and keep what was planned: orders as a leader proposes them, applied to a
//! state with every node and task in it.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use farlane_model::{
    BootId, Digest, Exit, ExitKind, KeyId, NodeId, ProjectId, Sealed, SessionId, TaskId, TenantId,
};
use farlane_plan::{Fleet, Group, NodeView, plan};
use farlane_sim::{Mix, World};
use farlane_state::{
    AttachGranter, BatchSignature, CompleteBatch, Completion, Genesis, OpenSession, Order, Outcome,
    Place, Placement, RegisterNode, State, StockPrekeys, SubmitBatch, Submitted, UpdateNode, apply,
};
use farlane_units::{ByteCount, Millis};

use crate::{input, stamp};

const BOOT: BootId = BootId([1; 16]);

struct Network {
    state: State,
    index: u64,
    session: SessionId,
    nodes: HashMap<NodeId, NodeView>,
    fleet: Fleet,
    groups: Vec<Group>,
    next_seq: u64,
}

impl Network {
    fn order(&mut self, order: impl Into<Order>) -> Outcome {
        self.index += 1;
        apply(&mut self.state, stamp(self.index), 0, order.into()).outcome
    }

    fn new(nodes: usize, kinds: usize) -> Self {
        let mut world = World::new(8, 20);
        let project = ProjectId::new(0, [0; 10]);
        let mut network = Self {
            state: State::empty(),
            index: 0,
            session: SessionId::new(1000, [1; 5]),
            nodes: HashMap::new(),
            fleet: Fleet::new(),
            groups: (0..kinds).map(|_| world.group(Mix::Mixed, 1, 0)).collect(),
            next_seq: 1,
        };
        let session = network.session;
        network.order(Genesis {
            network: Digest([1; 32]),
            epoch: 1,
            cluster_version: 1,
        });
        for _ in 0..nodes {
            network.join(world.node());
        }
        network.order(OpenSession {
            session,
            project,
            tenant: TenantId([7; 32]),
            key: KeyId::new(1, [8; 10]),
            wrapped_session_key: Bytes::new(),
            device: Bytes::new(),
        });
        network.order(AttachGranter {
            granter: session,
            project,
            standing: false,
            device: Bytes::new(),
        });
        network
    }

    fn join(&mut self, node: NodeView) {
        let spec: Bytes = node.spec.to_canonical().into();
        self.order(RegisterNode {
            node: node.id,
            record: Bytes::new(),
            spec: spec.clone(),
            region: node.region.to_string(),
            provider: node.provider,
        });
        self.order(UpdateNode {
            node: node.id,
            boot: BOOT,
            spec,
        });
        self.order(StockPrekeys {
            node: node.id,
            boot: BOOT,
            daily: Some(Bytes::from_static(b"daily")),
            one_time: Vec::new(),
        });
        self.fleet.put(node.clone());
        self.nodes.insert(node.id, node);
    }

    /// Queues `each` more tasks of every kind.
    fn submit(&mut self, each: usize) {
        for at in 0..self.groups.len() {
            let bytes: Bytes = self.groups[at].spec.to_canonical().into();
            let digest = Digest::of(&bytes);
            let task = Submitted {
                spec: digest,
                wrapped_key: Bytes::from_static(&[5; 48]),
                payload: Sealed::Inline(Bytes::from_static(b"sealed")),
                payload_digest: Digest::default(),
                idempotency: None,
                refs: Vec::new(),
            };
            let specs = match self.state.spec(&digest) {
                Some(_) => Vec::new(),
                None => vec![bytes],
            };
            let outcome = self.order(SubmitBatch {
                session: self.session,
                first_seq: self.next_seq,
                tasks: vec![task; each],
                specs,
            });
            assert!(matches!(outcome, Outcome::Submitted { .. }), "{outcome:?}");
            self.next_seq += each as u64;
        }
    }

    /// Plans and applies one order of placements: how many there were, and what applying took, seconds.
    fn round(&mut self, seed: u64) -> (usize, f64) {
        let (mut groups, mut heads) = (Vec::new(), Vec::<Vec<TaskId>>::new());
        let by_digest: HashMap<Digest, &Group> = self
            .groups
            .iter()
            .map(|group| (Digest::of(&group.spec.to_canonical()), group))
            .collect();
        for queue in self.state.waiting() {
            let group = by_digest[&queue.spec.digest];
            heads.push(queue.heads().take(2048).collect());
            groups.push(Group {
                tasks: heads[heads.len() - 1].len() as u32,
                ..(*group).clone()
            });
        }
        let (found, _) = plan(&mut self.fleet, &groups, &input(seed, 2048));
        let mut taken = vec![0; groups.len()];
        let mut placements = Vec::new();
        for a in &found.assignments {
            let from = taken[a.group];
            taken[a.group] += a.tasks as usize;
            let tasks = &heads[a.group][from..taken[a.group]];
            placements.extend(tasks.iter().map(|task| Placement {
                task: *task,
                node: a.node,
                generation: self.state.node(&a.node).unwrap().generation,
            }));
        }
        let count = placements.len();
        let order = Place {
            based_on: self.index,
            placements,
            quotes: Vec::new(),
        };
        let begin = Instant::now();
        let outcome = self.order(order);
        let applied = begin.elapsed().as_secs_f64();
        let Outcome::Placed { refused, .. } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(refused.len(), 0, "{:?}", refused.first());
        self.end_all();
        (count, applied)
    }

    /// Ends what was placed, node by node.
    fn end_all(&mut self) {
        let held: Vec<(NodeId, Vec<_>)> = self
            .nodes
            .keys()
            .map(|node| {
                (
                    *node,
                    self.state.desired(node).map(|t| t.attempt_ref()).collect(),
                )
            })
            .collect();
        for (node, attempts) in held {
            let item = |attempt| Completion {
                attempt,
                exit: Exit::plain(ExitKind::Returned),
                sealed: Some(Sealed::Inline(Bytes::from_static(b"sealed"))),
                started: Millis(0),
                ended: Millis(1),
                peak_memory: ByteCount(0),
                cpu: Millis(1),
                moved: farlane_state::Moved::NONE,
            };
            let items: Vec<Completion> = attempts.into_iter().map(item).collect();
            if items.is_empty() {
                continue;
            }
            let order = CompleteBatch {
                node,
                boot: BOOT,
                session: self.session,
                batch: self.index,
                signature: Some(BatchSignature {
                    id: [1; 16],
                    leaves: vec![1; 32 * items.len()].into(),
                    signature: Bytes::from_static(&[2; 64]),
                }),
                items,
            };
            self.order(order);
        }
    }
}

/// Placements a second through `apply`: orders of 2,048 on so many nodes.
pub fn rate(nodes: usize, rounds: u64) -> f64 {
    let mut network = Network::new(nodes, 50);
    let (mut count, mut applied) = (0, 0.0);
    for round in 0..rounds {
        network.submit(64);
        let (placed, seconds) = network.round(round);
        count += placed;
        applied += seconds;
    }
    count as f64 / applied
}
