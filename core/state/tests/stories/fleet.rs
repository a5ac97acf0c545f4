//! Stories of nodes: boots, prekeys, contexts, removal.

use farlane_model::*;
use farlane_state::*;
use farlane_units::Millis;

use crate::world::*;
use crate::*;

#[test]
fn contexts_are_shared_for_ten_minutes_and_prekeys_used_once() {
    let mut w = World::new();
    w.submit('A', 1, 9, &task_spec("f"));
    let context = |w: &World, n| {
        let live = w.state.task(task('A', n)).unwrap();
        live.placed.unwrap().lease.context
    };
    w.place(&[task('A', 1)], 1);
    let first = w.index;
    w.place(&[task('A', 2)], 1);
    assert_eq!((context(&w, 1), context(&w, 2)), (first, first));
    assert_eq!(w.state.node(&node(1)).unwrap().one_time.len(), 1);
    w.complete(
        1,
        1,
        &[(task('A', 1), 1, RETURNED), (task('A', 2), 1, RETURNED)],
    );
    // Ten minutes later a new prekey is taken; after that the daily key serves.
    for (n, left, kind) in [(3, 0, PrekeyKind::OneTime), (4, 0, PrekeyKind::Daily)] {
        w.now += CONTEXT_LIFE.0;
        w.place(&[task('A', n)], 1);
        let at = w.state.node(&node(1)).unwrap();
        assert_eq!(
            (at.one_time.len(), at.contexts[&session('A')].kind),
            (left, kind)
        );
        assert_eq!(context(&w, n), w.index);
    }
    assert_eq!(w.count(Table::Prekeys), 0);
    // Who demands forward secrecy waits for stock.
    let mut strict = task_spec("strict");
    strict.forward_secrecy = ForwardSecrecy::Required;
    w.submit('A', 10, 1, &strict);
    w.story();
    w.place(&[task('A', 10)], 1);
    w.stock(1, 1, 1);
    w.place(&[task('A', 10)], 1);
    assert_eq!(
        w.story(),
        "Place: placed 0, A10 refused: the node has no prekey left that the task accepts; node 1 low on prekeys\n\
         StockPrekeys: done; node 1 changed\n\
         Place: placed 1; node 1 low on prekeys, A10#1 to node 1, A grants A10#1\n"
    );
}

#[test]
fn a_new_boot_voids_prekeys_and_contexts() {
    let mut w = World::new();
    w.submit('A', 1, 1, &task_spec("f"));
    w.place(&[task('A', 1)], 1);
    let spec: bytes::Bytes = node_spec(2, 1).to_canonical().into();
    w.order(UpdateNode {
        node: node(1),
        boot: boot(2),
        spec,
    });
    let at = w.state.node(&node(1)).unwrap();
    assert_eq!(
        (at.one_time.len(), at.contexts.len(), at.daily.is_some()),
        (0, 0, false)
    );
    assert_eq!((w.count(Table::Prekeys), w.count(Table::Contexts)), (0, 0));
    assert_eq!(w.stock(1, 1, 2), Outcome::Refused(Refusal::BootUnknown));
    assert_eq!(w.stock(1, 2, 2), Outcome::Done);
    // The attempt is still desired, and says under which boot it was placed.
    let live: Vec<_> = w.state.desired(&node(1)).collect();
    assert_eq!(live[0].placed.unwrap().boot(), Some(boot(1)));
}

#[test]
fn a_removed_node_loses_its_work_and_a_revoked_one_stays_away() {
    let mut w = World::new();
    w.join(2, 2, 0);
    w.submit('A', 1, 2, &task_spec("f"));
    w.place(&[task('A', 1)], 1);
    w.place(&[task('A', 2)], 2);
    w.story();
    let record = |w: &World, n| w.get(Table::Records, &keys::node(node(n)));
    assert_eq!(record(&w, 1).as_deref(), Some(&b"record"[..]));
    w.order(RemoveNode { node: node(1) });
    assert_eq!(record(&w, 1), None);
    assert!(record(&w, 2).is_some());
    w.order(Revoke {
        subject: Revoked::Node(node(2)),
    });
    w.place(&[task('A', 2)], 2);
    w.complete(2, 2, &[(task('A', 2), 1, RETURNED)]);
    assert_eq!(
        w.story(),
        "RemoveNode: done; stop A1#1 on node 1, A1 queued, node 1 changed\n\
         Revoke: done; stop A2#1 on node 2, A2 queued, node 2 changed\n\
         Place: placed 0, A2 refused: the node has been revoked; \n\
         CompleteBatch: refused, the node has been revoked; \n"
    );
    w.join(1, 2, 0);
    w.place(&[task('A', 1)], 1);
    assert!(w.state.task(task('A', 1)).unwrap().placed.is_some());
    let spec: bytes::Bytes = node_spec(2, 1).to_canonical().into();
    let again = UpdateNode {
        node: node(2),
        boot: boot(9),
        spec,
    };
    assert_eq!(w.order(again), Outcome::Refused(Refusal::NodeRevoked));
}

#[test]
fn a_providers_revocations_only_grow_newer_and_survive() {
    let mut w = World::new();
    let list = |after: u64, issued: u64, text: &'static str| PublishRevocations {
        provider: Digest([7; 32]),
        after: Millis(after),
        issued: Millis(issued),
        list: text.into(),
    };
    assert_eq!(w.order(list(0, 5, "one")), Outcome::Done);
    let stale = Outcome::Refused(Refusal::RevocationsStale);
    // Made from no list, from another, and not newer.
    for (after, issued) in [(0, 9), (4, 9), (5, 5)] {
        assert_eq!(w.order(list(after, issued, "bad")), stale);
    }
    assert_eq!(w.order(list(5, 6, "two")), Outcome::Done);
    let mut large = list(6, 7, "");
    large.list = vec![0; MAX_REVOCATIONS_BYTES + 1].into();
    assert!(matches!(
        w.order(large),
        Outcome::Refused(Refusal::PayloadTooLarge { .. })
    ));
    w.restart();
    let kept = w.state.revocations(&Digest([7; 32])).unwrap();
    assert_eq!((kept.issued, &kept.list[..]), (Millis(6), &b"two"[..]));
    assert_eq!(w.state.all_revocations().count(), 1);
}
