//! What has waited on a node for a while: what of it is called back, and what others make way for.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use farlane_model::*;
use farlane_plan::{NodeView, Reservation};
use farlane_state::*;
use farlane_units::{ByteCount, MilliCpu, Millis};

use super::MAX_FREE;
use crate::gather::{Waits, gather};
use crate::overlay::Overlay;
use crate::preempt::tests::{Full, id, spec, view};
use crate::preempt::{choose, look};
use crate::quota::Quotas;
use crate::refusals::Refusals;

/// Long after all of it was submitted and placed.
const LATER: Millis = Millis(1_010_000);
/// The first task beyond those that fill so many nodes, and the one that waits in a queue.
const fn first(nodes: u64) -> u64 {
    nodes * 4 + 2
}

fn ahead() -> NodeSpec {
    NodeSpec {
        backlog_credit: 4,
        ..spec()
    }
}

/// So many nodes whose cores are taken, on each of which one more task waits.
fn full(nodes: usize) -> Full {
    let mut full = Full::of(nodes, ahead());
    full.order(Cancel {
        project: ProjectId::new(0, [0; 10]),
        tasks: vec![full.session.task(first(nodes as u64) - 1)],
        reason: String::new(),
    });
    full.submit(first(nodes as u64), nodes, 0);
    full.place((0..nodes).map(|n| (first(nodes as u64) + n as u64, n)));
    full
}

/// One more node joins, with one core that nobody has taken.
fn joins(full: &mut Full, n: usize) {
    full.cache.fleet.put(NodeView {
        free_cpus: MilliCpu(1000),
        ..view(n, &Arc::new(ahead()))
    });
}

/// What makes way, and what is called back.
fn chosen(full: &mut Full, refusals: &Refusals) -> (Vec<AttemptRef>, Vec<AttemptRef>) {
    let known = Some(refusals).filter(|known| !known.is_empty());
    let seen = look(&full.state, &mut full.cache, known, LATER);
    seen.map_or_else(Default::default, |seen| {
        choose(seen, &mut full.cache, LATER)
    })
}

fn recalled(full: &mut Full) -> Vec<AttemptRef> {
    chosen(full, &Refusals::default()).1
}

fn return_(full: &mut Full, attempts: &[AttemptRef]) {
    let back = |attempt: &AttemptRef| (*attempt, ReturnReason::CalledBack);
    let attempts = attempts.iter().map(back).collect();
    full.order(Return { attempts });
}

#[test]
fn what_was_called_back_waits_in_its_queue_for_room() {
    let mut full = full(1);
    joins(&mut full, 1);
    let back = recalled(&mut full);
    assert_eq!(back.len(), 1);
    return_(&mut full, &back);
    // Another of the same may wait on a node as ever.
    full.submit(first(1) + 1, 1, 0);
    let at_once = |full: &mut Full| -> Vec<(bool, Vec<TaskId>)> {
        let (state, overlay) = (&full.state, Overlay::default());
        let quotas = Quotas::of(state, &overlay, &[], LATER);
        let waits = Waits {
            state,
            overlay: &overlay,
            quotas: &quotas,
            now: LATER,
            refusals: None,
        };
        let (groups, heads) = gather(waits, &[], 100, &mut full.cache);
        groups.iter().map(|g| g.at_once).zip(heads).collect()
    };
    let (called, other) = (back[0].task, full.session.task(first(1) + 1));
    let both = at_once(&mut full);
    assert_eq!(both, [(true, vec![called]), (false, vec![other])]);
    full.place([(called.seq(), 0)]);
    full.cache.forget_gone(&full.state);
    assert!(full.cache.called.is_empty());
    assert_eq!(at_once(&mut full), [(false, vec![other])]);
}

#[test]
fn what_was_leased_for_nothing_too_often_stays() {
    let mut full = full(1);
    joins(&mut full, 1);
    for _ in 0..MAX_FREE {
        let back = recalled(&mut full);
        assert_eq!(back.len(), 1);
        return_(&mut full, &back);
        full.place([(first(1), 0)]);
    }
    assert_eq!(recalled(&mut full), [], "its granter would refuse it soon");
}

#[test]
fn what_nobody_could_grant_again_stays() {
    let mut full = full(1);
    joins(&mut full, 1);
    let granter = full.session;
    full.order(DetachGranter { granter });
    assert_eq!(recalled(&mut full), []);
    // Nor does what runs make way, for somebody else who is more urgent.
    full.open(SessionId::new(1000, [2; 5]), ProjectId::new(0, [0; 10]));
    full.submit(1, 1, 50);
    let (asked, recalled) = chosen(&mut full, &Refusals::default());
    assert_eq!((asked, recalled), (vec![], vec![]));
}

#[test]
fn where_it_was_refused_is_no_room() {
    let mut full = full(1);
    joins(&mut full, 1);
    let task = full.session.task(first(1));
    let mut refusals = Refusals::default();
    refusals.note(task, full.session, id(1), "not its provider");
    assert_eq!(chosen(&mut full, &refusals).1, []);
    assert_eq!(recalled(&mut full).len(), 1);
}

#[test]
fn nothing_makes_way_where_it_was_refused() {
    let mut full = Full::new(1);
    // The one of priority 10 that waits in its queue.
    let task = full.session.task(first(1) - 1);
    let mut refusals = Refusals::default();
    refusals.note(task, full.session, id(0), "not its provider");
    assert_eq!(chosen(&mut full, &refusals).0, []);
    assert_eq!(chosen(&mut full, &Refusals::default()).0.len(), 1);
}

#[test]
fn kept_room_is_left_and_not_taken() {
    let mut full = full(1);
    let kept = |full: &mut Full, n: usize| {
        let nodes = vec![id(n)];
        let at = Millis(9_000_000);
        let heads = [vec![full.session.task(999)]];
        let kept = Reservation { nodes, at };
        full.cache.reserved.take(vec![(0, kept)], &heads);
    };
    joins(&mut full, 1);
    kept(&mut full, 1);
    assert_eq!(recalled(&mut full), [], "it is kept for a gang");
    kept(&mut full, 0);
    assert_eq!(recalled(&mut full).len(), 1, "it stands before a gang");
}

#[test]
fn others_make_way_for_a_project_one_at_a_time() {
    const NODES: usize = 8;
    let mut full = Full::of(NODES, ahead());
    full.open(SessionId::new(1000, [2; 5]), ProjectId::new(0, [1; 10]));
    full.submit(1, NODES, 0);
    full.place((0..NODES).map(|n| (n as u64 + 1, n)));
    let (asked, recalled) = chosen(&mut full, &Refusals::default());
    // And one for the task in the other's queue, which is more urgent.
    let theirs = |attempt: &&AttemptRef| attempt.task.session() != full.session;
    assert_eq!(asked.iter().filter(theirs).count(), asked.len());
    assert!((1..=2).contains(&asked.len()), "{asked:?}");
    assert!(recalled.len() <= 1, "{recalled:?}");
}

#[test]
fn all_that_finds_room_goes_at_once() {
    const NODES: usize = 4;
    let mut full = full(NODES);
    // Another project's wait there too, and are more urgent.
    full.open(SessionId::new(1000, [2; 5]), ProjectId::new(0, [1; 10]));
    full.submit(1, NODES, 5);
    full.place((0..NODES).map(|n| (n as u64 + 1, n)));
    full.cache.fleet.put(NodeView {
        free_cpus: MilliCpu(8000),
        free_memory: ByteCount::gib(64),
        free_scratch: ByteCount::gib(64),
        ..view(NODES, &Arc::new(ahead()))
    });
    let (asked, recalled) = chosen(&mut full, &Refusals::default());
    assert_eq!((asked.len(), recalled.len()), (0, 2 * NODES));
}

#[test]
fn nothing_is_kept_for_a_gang_that_is_gone() {
    let mut full = full(1);
    joins(&mut full, 1);
    let first = full.session.task(first(1) + 1);
    let kept = Reservation {
        nodes: vec![id(1)],
        at: Millis(9_000_000),
    };
    full.cache.reserved.take(vec![(0, kept)], &[vec![first]]);
    assert_eq!(recalled(&mut full), []);
    full.cache.forget_gone(&full.state);
    assert_eq!(recalled(&mut full).len(), 1);
}
