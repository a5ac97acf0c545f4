//! Stories of gangs: leased at once or not at all, back together, ended together.

use farlane_model::*;
use farlane_state::*;

use crate::world::*;
use crate::*;

fn gang_of(size: u16) -> TaskSpec {
    let mut spec = task_spec("gang");
    spec.gang = Some(Gang {
        size,
        regions: GangRegions::One,
    });
    spec.retry.lost = 1;
    spec
}

/// Three nodes of two cores each; node 1 takes one more in backlog.
fn world() -> World {
    let mut w = World::new();
    w.join(2, 2, 0);
    w.join(3, 2, 0);
    w.story();
    w
}

fn placements(w: &World, on: &[(u64, u8)]) -> Place {
    let one = |(seq, n): &(u64, u8)| w.place_order(&[task('A', *seq)], *n).placements[0];
    Place {
        based_on: w.index,
        placements: on.iter().map(one).collect(),
        quotes: Vec::new(),
    }
}

fn place(w: &mut World, on: &[(u64, u8)]) -> Outcome {
    let order = placements(w, on);
    w.order(order)
}

fn leased(w: &World) -> Vec<u64> {
    let held = w.state.tasks().filter(|t| t.placed.is_some());
    held.map(|t| t.id.seq()).collect()
}

#[test]
fn a_gang_is_leased_whole_or_not_at_all() {
    let mut w = world();
    w.submit('A', 1, 3, &gang_of(3));
    w.submit('A', 4, 1, &task_spec("alone"));
    w.story();
    let waiting = w
        .state
        .waiting()
        .find(|q| q.spec.task.gang.is_some())
        .unwrap();
    let gangs: Vec<_> = waiting.gangs().collect();
    assert_eq!(gangs, [vec![task('A', 1), task('A', 2), task('A', 3)]]);

    // The third finds no room where the plan has it, and would only wait behind: nobody is leased.
    place(&mut w, &[(1, 1), (2, 1), (3, 1)]);
    // Two of three, and one of them twice.
    place(&mut w, &[(1, 1), (2, 2)]);
    place(&mut w, &[(1, 1), (2, 2), (2, 3)]);
    assert_eq!(leased(&w), [] as [u64; 0]);
    assert_eq!(w.count(Table::Attempts), 0);
    // What does not fit does not hold others up.
    place(&mut w, &[(1, 1), (2, 1), (3, 1), (4, 1)]);
    let unplaced = "rank 2 of its gang could not be placed";
    let full =
        format!("A3 refused: the node is full, A1 refused: {unplaced}, A2 refused: {unplaced}");
    assert_eq!(
        w.story(),
        format!(
            "Place: placed 0, {full}; \n\
             Place: placed 0, A1 refused: its gang of 3 did not come whole, \
             A2 refused: rank 0 of its gang could not be placed; \n\
             Place: placed 0, A2 refused: the task is placed already, \
             A1 refused: rank 1 of its gang could not be placed; \n\
             Place: placed 1, {full}; A4#1 to node 1, A grants A4#1\n"
        )
    );
    place(&mut w, &[(1, 1), (2, 2), (3, 3)]);
    assert_eq!(leased(&w), [1, 2, 3, 4]);
    let member = w.state.task(task('A', 2)).unwrap().gang.unwrap();
    assert_eq!(
        (member.first, member.rank, member.size),
        (task('A', 1), 1, 3)
    );
}

#[test]
fn a_member_that_is_lost_brings_the_others_back() {
    let mut w = world();
    w.submit('A', 1, 3, &gang_of(3));
    place(&mut w, &[(1, 1), (2, 2), (3, 2)]);
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    w.story();
    // Not granted in time costs nothing.
    w.give_back(task('A', 2), 1, ReturnReason::NotGranted);
    assert_eq!(
        w.story(),
        "Return: settled 1; stop A2#1 on node 2, A2 queued, stop A3#1 on node 2, A3 queued\n"
    );
    assert_eq!(leased(&w), [] as [u64; 0]);
    assert!(
        w.finished(task('A', 1)).is_some(),
        "what is settled stays settled"
    );
    w.restart();
    // The two that are left are the gang now, and a lost node costs both a retry.
    place(&mut w, &[(2, 2), (3, 2)]);
    w.order(RemoveNode { node: node(2) });
    assert_eq!(leased(&w), [] as [u64; 0]);
    let spent = |w: &World, seq| w.state.task(task('A', seq)).map(|t| (t.attempt, t.lost));
    assert_eq!((spent(&w, 2), spent(&w, 3)), (Some((2, 1)), Some((2, 1))));
    place(&mut w, &[(2, 3), (3, 3)]);
    w.story();
    // What an attempt says that was called back counts no more.
    w.complete(2, 2, &[(task('A', 3), 2, RETURNED)]);
    // The last retry is spent: all end, each with what became of it.
    w.complete(
        3,
        3,
        &[(task('A', 3), 3, ExitKind::Lost(LostCause::Signal(9)))],
    );
    assert_eq!(
        w.story(),
        "CompleteBatch: refused, the node is unknown; \n\
         CompleteBatch: counted; A3 finished, stop A2#3 on node 3, A2 finished\n"
    );
    let exit = |w: &World, seq| w.finished(task('A', seq)).unwrap().exit;
    assert_eq!(exit(&w, 3).kind, ExitKind::Lost(LostCause::Signal(9)));
    assert_eq!(exit(&w, 2).kind, ExitKind::Lost(LostCause::GangBroken));
    assert_eq!(
        exit(&w, 2).message,
        "rank 2 of its gang of 3 was lost once more than it is tried again"
    );
    assert_eq!(w.finished(task('A', 2)).unwrap().gang, Some((1, 3)));
    assert_eq!(w.count(Table::Gangs), 0, "nothing is left of it");
}

#[test]
fn what_ends_one_ends_all() {
    let mut w = world();
    let mut spec = gang_of(2);
    spec.retry.raised = 1;
    w.submit('A', 1, 4, &spec);
    place(&mut w, &[(1, 1), (2, 2), (3, 1), (4, 3)]);
    w.story();
    // An exception is the whole gang's, and so is the retry after it.
    let raised = ExitKind::Raised;
    w.complete(1, 1, &[(task('A', 1), 1, raised)]);
    place(&mut w, &[(1, 1), (2, 2)]);
    w.complete(2, 2, &[(task('A', 2), 2, raised)]);
    assert_eq!(
        w.story(),
        "CompleteBatch: counted; A1 queued, stop A2#1 on node 2, A2 queued\n\
         Place: placed 2; A1#2 to node 1, A grants A1#2, A2#2 to node 2, A grants A2#2\n\
         CompleteBatch: counted; A2 finished, stop A1#2 on node 1, A1 finished\n"
    );
    let exit = w.finished(task('A', 1)).unwrap().exit;
    assert_eq!(exit.message, "rank 1 of its gang of 2 raised an exception");
    // Cancelling one cancels all, and of one gang only.
    w.submit('A', 5, 2, &spec);
    assert_eq!(
        w.cancel(&[task('A', 4)]),
        Outcome::Cancelled {
            tasks: vec![task('A', 4), task('A', 3)]
        }
    );
    let waits = w.state.tasks().map(|t| t.id.seq()).collect::<Vec<_>>();
    assert_eq!(waits, [5, 6]);
    w.order(Refuse {
        tasks: vec![task('A', 5), task('A', 6)],
        exit: Exit::plain(ExitKind::Infeasible),
    });
    assert_eq!(
        w.finished(task('A', 6)).unwrap().exit.kind,
        ExitKind::Infeasible
    );
    assert_eq!(w.count(Table::Gangs), 0);
}

#[test]
fn a_gang_is_taken_in_whole_or_refused_whole() {
    let mut w = world();
    let spec = gang_of(3);
    let alone = task_spec("alone");
    w.submit('A', 1, 1, &alone);
    w.story();
    // Two gangs and a rest that is none.
    w.submit('A', 2, 8, &spec);
    // One bad envelope spoils its own gang only.
    let mut order = w.submit_order('A', 10, 6, &spec);
    order.tasks[1].wrapped_key = bytes::Bytes::from_static(b"short");
    w.order(order);
    // Sent again it is answered as it was.
    w.submit('A', 8, 2, &spec);
    let split = "refused: its gang of 3 did not come whole";
    let spoilt = "refused: the task's envelope is not valid: wrapped_key";
    assert_eq!(
        w.story(),
        format!(
            "SubmitBatch: through 9, 8 {split}, 9 {split}; \n\
             SubmitBatch: through 15, 10 {spoilt}, 11 {spoilt}, 12 {spoilt}; \n\
             SubmitBatch: through 15, 8 {split}, 9 {split}; \n"
        )
    );
    let gangs = w
        .state
        .waiting()
        .flat_map(|q| q.gangs().collect::<Vec<_>>());
    let firsts: Vec<u64> = gangs.map(|g| g[0].seq()).collect();
    assert_eq!(firsts, [2, 5, 13]);

    // By its members' keys a gang is the earlier one, as a whole.
    let mut keyed = w.submit_order('A', 16, 3, &spec);
    let key = |n: u8| Some(Digest::of(&[n]));
    (0..3).for_each(|n| keyed.tasks[n].idempotency = key(n as u8));
    w.order(keyed.clone());
    keyed.first_seq = 19;
    w.order(keyed.clone());
    keyed.first_seq = 22;
    keyed.tasks[0].idempotency = key(9);
    w.order(keyed);
    let bad = "refused: the task's envelope is not valid: idempotency_key";
    assert_eq!(
        w.story(),
        format!(
            "SubmitBatch: through 18; \n\
             SubmitBatch: through 21, 19 is A16, 20 is A17, 21 is A18; \n\
             SubmitBatch: through 24, 22 {bad}, 23 {bad}, 24 {bad}; \n"
        )
    );
}

#[test]
fn a_gang_of_one_region_stays_in_one() {
    let mut w = world();
    let spec = node_spec(2, 0).to_canonical();
    w.order(RegisterNode {
        node: node(4),
        record: bytes::Bytes::from_static(b"record"),
        spec: spec.clone().into(),
        region: "eu-west".into(),
        provider: Digest::of(b"provider"),
    });
    w.order(UpdateNode {
        node: node(4),
        boot: boot(4),
        spec: spec.into(),
    });
    w.stock(4, 4, 1);
    w.submit('A', 1, 2, &gang_of(2));
    place(&mut w, &[(1, 1), (2, 4)]);
    assert_eq!(leased(&w), [] as [u64; 0]);
    let mut wide = gang_of(2);
    wide.gang = wide.gang.map(|gang| Gang {
        regions: GangRegions::Any,
        ..gang
    });
    w.submit('A', 3, 2, &wide);
    place(&mut w, &[(3, 1), (4, 4)]);
    assert_eq!(leased(&w), [3, 4]);
}

#[test]
fn two_gangs_that_each_need_most_of_the_fleet_go_one_after_the_other() {
    let mut w = world();
    let spec = gang_of(4);
    w.submit('A', 1, 8, &spec);
    w.story();
    // A plan that thinks there is room for both: the second finds none, and holds nothing meanwhile.
    let both = [
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 2),
        (5, 3),
        (6, 3),
        (7, 2),
        (8, 2),
    ];
    place(&mut w, &both);
    assert_eq!(leased(&w), [1, 2, 3, 4]);
    place(&mut w, &[(5, 3), (6, 3), (7, 1), (8, 1)]);
    assert_eq!(leased(&w), [1, 2, 3, 4]);
    let done = |w: &mut World, n, seqs: [u64; 2]| {
        w.complete(n, n, &seqs.map(|seq| (task('A', seq), 1, RETURNED)));
    };
    done(&mut w, 1, [1, 2]);
    place(&mut w, &[(5, 3), (6, 3), (7, 1), (8, 1)]);
    assert_eq!(leased(&w), [3, 4, 5, 6, 7, 8]);
    done(&mut w, 2, [3, 4]);
    done(&mut w, 3, [5, 6]);
    done(&mut w, 1, [7, 8]);
    assert_eq!(w.state.counts().placed + w.state.counts().queued, 0);
    assert_eq!(w.count(Table::Gangs), 0);
}
