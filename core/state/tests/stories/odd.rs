//! Stories of what cannot be: clocks that go back, nodes that have less than they said.

use bytes::Bytes;
use farlane_model::*;
use farlane_state::*;
use farlane_units::ByteCount;

use crate::world::*;
use crate::*;

#[test]
fn a_clock_that_goes_back_holds_time_where_it_was() {
    let mut w = World::new();
    w.submit('A', 1, 3, &task_spec("f"));
    let before = w.now;
    w.now /= 2;
    w.submit('A', 4, 1, &task_spec("f"));
    let submitted = |w: &World, n| w.state.task(task('A', n)).unwrap().submitted.0;
    assert_eq!(submitted(&w, 4), before);
    w.place(&[task('A', 1)], 1);
    w.now = before + 1000;
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    assert!(w.finished(task('A', 1)).is_some());
    // And one that jumps ahead ends nothing that has no deadline.
    w.tick(DAY / 2);
    assert!(w.state.task(task('A', 2)).is_some());
}

#[test]
fn a_node_that_has_less_memory_than_it_said_keeps_what_runs_and_takes_no_more() {
    let mut w = World::new();
    w.submit('A', 1, 3, &task_spec("f"));
    w.place(&[task('A', 1)], 1);
    let real = NodeSpec {
        memory: ByteCount::mib(1),
        ..NodeSpec::clone(&w.state.node(&node(1)).unwrap().spec)
    };
    let spec: Bytes = real.to_canonical().into();
    let (node_id, boot) = (node(1), boot(1));
    w.order(UpdateNode {
        node: node_id,
        boot,
        spec,
    });
    let at = w.state.node(&node(1)).unwrap();
    assert_eq!((at.free_memory(), at.running()), (ByteCount::ZERO, 1));
    w.story();
    w.place(&[task('A', 2)], 1);
    let said = w.story();
    assert!(said.contains("A2 refused"), "{said}");
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    assert!(w.finished(task('A', 1)).is_some());
    // What it never had is not free afterwards either.
    let at = w.state.node(&node(1)).unwrap();
    assert_eq!(at.free_memory(), ByteCount::mib(1));
}

#[test]
fn every_queue_has_its_turn() {
    let mut w = World::new();
    // Ten queues of one session, three of which nobody wants.
    for n in 0..10u8 {
        let mut spec = task_spec(&format!("f{n}"));
        spec.priority = (n % 3) as i8;
        w.submit('A', 1 + u64::from(n), 1, &spec);
    }
    let mut turn = Turn::default();
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..40 {
        let keep = |q: &WaitingQueue| !q.spec.task.function.contains(['2', '4', '7']);
        let found = w.state.waiting_in_turn(&mut turn, 4, keep);
        assert!(found.len() <= 4);
        // The most urgent of those that are wanted is always among them.
        assert!(found.iter().any(|q| q.priority == 2), "{}", found.len());
        for queue in found {
            *seen.entry(queue.spec.task.function.clone()).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
    assert!(seen.values().all(|times| *times >= 3), "{seen:?}");
}
