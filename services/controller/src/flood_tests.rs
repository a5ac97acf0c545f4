//! What 100,000 different requests that nobody can meet do to a project beside them.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farlane_model::*;
use farlane_state::*;
use farlane_units::*;

use crate::gather::{Waits, gather};
use crate::infeasible::hopeless;
use crate::overlay::Overlay;
use crate::preempt::tests::{spec, view};
use crate::quota::Quotas;
use crate::view::ViewCache;

const CLASSES: usize = 500;
const SPECS: u32 = 50_000;

/// A network of many classes of nodes, on which so many different tasks wait that fit none, and one that fits.
struct Flooded {
    state: State,
    cache: ViewCache,
    index: u64,
}

fn session(n: u8) -> SessionId {
    SessionId::new(1000, [n; 5])
}
fn project(n: u8) -> ProjectId {
    ProjectId::new(0, [n; 10])
}

fn task(of: u8) -> TaskSpec {
    let code = BlobRef {
        digest: Digest([0; 32]),
        size: ByteCount(1),
    };
    let python = PythonVersion {
        major: 3,
        minor: 11,
    };
    TaskSpec::new(project(of), code, python)
}

impl Flooded {
    fn order(&mut self, order: impl Into<Order>) {
        self.index += 1;
        let stamp = Stamp {
            index: self.index,
            term: 1,
            now: Millis(1_000_000),
        };
        let outcome = apply(&mut self.state, stamp, 0, order.into()).outcome;
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }

    fn open(&mut self, n: u8) {
        self.order(OpenSession {
            session: session(n),
            project: project(n),
            tenant: TenantId([7; 32]),
            key: KeyId::new(1, [8; 10]),
            wrapped_session_key: Bytes::new(),
            device: Bytes::new(),
        });
        self.order(AttachGranter {
            granter: session(n),
            project: project(n),
            standing: false,
            device: Bytes::new(),
        });
    }

    fn submit(&mut self, n: u8, specs: &[TaskSpec]) {
        let next = self.state.session(&session(n)).unwrap().next_seq;
        let bytes: Vec<Bytes> = specs.iter().map(|s| s.to_canonical().into()).collect();
        let one = |bytes: &Bytes| Submitted {
            spec: Digest::of(bytes),
            wrapped_key: Bytes::from_static(&[5; 48]),
            payload: Sealed::Inline(Bytes::from_static(b"sealed")),
            payload_digest: Digest::default(),
            idempotency: None,
            refs: Vec::new(),
        };
        let tasks = bytes.iter().map(one).collect();
        self.order(SubmitBatch {
            session: session(n),
            first_seq: next,
            specs: bytes,
            tasks,
        });
    }

    fn new(flood: u32) -> Self {
        let mut flooded = Self {
            state: State::empty(),
            cache: ViewCache::default(),
            index: 0,
        };
        flooded.order(Genesis {
            network: Digest([1; 32]),
            epoch: 1,
            cluster_version: 1,
        });
        for n in 0..CLASSES {
            let mut spec = spec();
            spec.labels = vec![("rack".to_owned(), n.to_string())].into();
            let mut view = view(n, &Arc::new(spec));
            view.free_cpus = view.spec.cpus;
            flooded.cache.fleet.put(view);
        }
        // Two floods of half as many each; the small project comes last.
        for n in [1, 2, 9] {
            flooded.open(n);
        }
        for n in [1, 2] {
            let away = |at: u32| {
                let mut spec = task(n);
                spec.resources.cpus = MilliCpu(100_000 + at);
                spec
            };
            let all: Vec<TaskSpec> = (0..flood / 2).map(away).collect();
            all.chunks(512).for_each(|some| flooded.submit(n, some));
        }
        flooded.submit(9, &[task(9)]);
        flooded
    }

    /// One round's look at what waits; whether the small project is in it.
    fn round(&mut self) -> (Duration, bool) {
        let began = Instant::now();
        let overlay = Overlay::default();
        let quotas = Quotas::of(&self.state, &overlay, &[], Millis(1_000_000));
        let waits = Waits {
            state: &self.state,
            overlay: &overlay,
            quotas: &quotas,
            now: Millis(1_000_000),
            refusals: None,
        };
        let (groups, _) = gather(waits, &[], 1000, &mut self.cache);
        let there = groups.iter().any(|g| g.spec.project == project(9));
        (began.elapsed(), there)
    }
}

#[test]
fn a_hundred_thousand_different_ones_keep_no_other_waiting() {
    let rounds = |flooded: &mut Flooded| {
        let rounds: Vec<_> = (0..64).map(|_| flooded.round()).collect();
        assert!(
            rounds.iter().all(|(_, there)| *there),
            "its turn in every round"
        );
        let took: Duration = rounds.into_iter().map(|(took, _)| took).sum();
        took / 64
    };
    let alone = rounds(&mut Flooded::new(0));
    let mut flooded = Flooded::new(2 * SPECS);
    println!(
        "a round's look takes {alone:?} alone, {:?} beside them",
        rounds(&mut flooded)
    );
    // What ends them, once a second, says in full to some what is lacking, and takes no longer for the others.
    let began = Instant::now();
    let found = hopeless(&flooded.state, &mut flooded.cache, Millis(1_000_000));
    println!("{} reasons in {:?}", found.len(), began.elapsed());
    let tasks: usize = found.iter().map(|(_, tasks)| tasks.len()).sum();
    assert!((200..1000).contains(&tasks), "{tasks}");
    let full = found
        .iter()
        .filter(|(reason, _)| reason.contains("has 4 cores"));
    assert!((2..12).contains(&full.count()));
    assert!(
        found
            .iter()
            .all(|(reason, _)| reason.starts_with("none of the 500 registered nodes"))
    );
    assert!(
        found.len() < 16,
        "one order for all that hear the same: {}",
        found.len()
    );
    for (reason, tasks) in found {
        let exit = Exit::new(ExitKind::Infeasible, reason);
        flooded.order(Refuse { tasks, exit });
    }
    // Others are next.
    let next = hopeless(&flooded.state, &mut flooded.cache, Millis(1_000_000));
    assert!(next.iter().map(|(_, tasks)| tasks.len()).sum::<usize>() >= 200);
}
