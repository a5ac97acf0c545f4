//! Stories of projects' quotas: what is refused, what waits, and when it goes on.

use farlane_model::*;
use farlane_state::*;
use farlane_units::*;

use crate::world::*;
use crate::*;

fn set(w: &mut World, quota: Quota) -> Outcome {
    let known = w.state.project(&project());
    let after = known.set().map_or(0, |set| set.revision);
    w.order(SetProject {
        project: project(),
        after,
        settings: ProjectSettings {
            weight: 2000,
            quota,
            policy: None,
        },
        by: key(),
    })
}

const NONE: Quota = Quota {
    tasks: None,
    cpus: None,
    gpus: None,
    ucu: None,
    budget: None,
};

#[test]
fn what_passes_the_quota_stays_queued_until_room_is_given_back() {
    let mut w = World::new();
    w.join(1, 8, 4);
    let two = Quota {
        tasks: Some(2),
        ..NONE
    };
    assert_eq!(set(&mut w, two), Outcome::Done);
    assert_eq!(w.state.project(&project()).weight(), 2000);
    w.submit('A', 1, 3, &task_spec("f"));
    w.story();
    w.place(&[task('A', 1), task('A', 2), task('A', 3)], 1);
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    w.place(&[task('A', 3)], 1);
    assert_eq!(
        w.story(),
        "Place: placed 2, A3 refused: the project's quota is reached: at most 2 tasks at once, 2 tasks held; node 1 low on prekeys, A1#1 to node 1, \
         A grants A1#1, A2#1 to node 1, A grants A2#1\n\
         CompleteBatch: counted; A1 finished\n\
         Place: placed 1; A3#1 to node 1, A grants A3#1\n"
    );
    // A bound that is lowered takes nothing back, and lets nothing more in; a restart keeps it.
    set(
        &mut w,
        Quota {
            tasks: Some(0),
            ..NONE
        },
    );
    w.restart();
    assert_eq!(w.state.project(&project()).held().tasks, 2);
    w.submit('A', 4, 1, &task_spec("f"));
    assert!(matches!(
        w.place(&[task('A', 4)], 1),
        Outcome::Placed { placed: 0, .. }
    ));
}

#[test]
fn cores_and_gpus_count_by_what_is_asked() {
    let mut w = World::new();
    w.join(1, 8, 4);
    set(
        &mut w,
        Quota {
            cpus: Some(2500),
            gpus: Some(0),
            ..NONE
        },
    );
    let mut wide = task_spec("wide");
    wide.resources.cpus = MilliCpu(2000);
    let mut gpus = task_spec("gpus");
    gpus.resources.cpus = MilliCpu(100);
    gpus.resources.gpus = MilliGpu(500);
    w.submit('A', 1, 2, &wide);
    w.submit('A', 3, 1, &gpus);
    w.story();
    w.place(&[task('A', 1), task('A', 2), task('A', 3)], 1);
    let story = w.story();
    for said in [
        "A2 refused: the project's quota is reached: at most 2.500 cores at once, 2 cores held",
        "A3 refused: the project's quota is reached: at most 0 GPUs at once, 0 GPUs held",
    ] {
        assert!(story.contains(said), "{story}");
    }
}

/// So many cores, together so many thousandths of one of the reference node.
fn measure(w: &mut World, n: u8, cores: u32, all: u64) {
    let mut spec = node_spec(cores, 0);
    spec.measured = Some(measured(cores, all));
    w.order(UpdateNode {
        node: node(n),
        boot: boot(n),
        spec: spec.to_canonical().into(),
    });
}

#[test]
fn units_count_by_what_the_node_was_measured_to_be() {
    let mut w = World::new();
    w.join(1, 4, 0);
    w.join(2, 4, 0);
    // A core of the first is two of the reference node; nobody measured the second's.
    measure(&mut w, 1, 4, 8000);
    let quota = Quota {
        ucu: Some(5000),
        ..NONE
    };
    set(&mut w, quota);
    w.submit('A', 1, 6, &task_spec("f"));
    let tasks: Vec<_> = (1..=6).map(|n| task('A', n)).collect();
    w.story();
    w.place(&tasks[..3], 1);
    w.place(&tasks[2..4], 2);
    let held = |w: &World| w.state.project(&project()).held().ucu;
    assert_eq!(held(&w), 5000);
    let story = w.story();
    for said in [
        "A3 refused: the project's quota is reached: at most 5 UCU at once, 4 UCU held",
        "Place: placed 1, A4 refused: the project's quota is reached: at most 5 UCU at once, 5 UCU held",
    ] {
        assert!(story.contains(said), "{story}");
    }
    // Measured anew while they run: what was taken is given back, and no more.
    measure(&mut w, 1, 4, 2000);
    measure(&mut w, 2, 4, 16_000);
    w.restart();
    w.complete(1, 1, &[(tasks[0], 1, RETURNED)]);
    assert_eq!(held(&w), 3000);
    // Half a unit each now, and four units on the other.
    w.place(&tasks[3..5], 1);
    assert_eq!(held(&w), 4000);
    assert!(matches!(
        w.place(&tasks[5..], 2),
        Outcome::Placed { placed: 0, .. }
    ));
    w.complete(1, 1, &[(tasks[1], 1, RETURNED)]);
    w.complete(2, 2, &[(tasks[2], 1, RETURNED)]);
    assert_eq!(held(&w), 1000);
    w.place(&tasks[5..], 2);
    assert_eq!(held(&w), 5000);
}

#[test]
fn a_gang_takes_its_units_whole_or_none_of_them() {
    let mut w = World::new();
    w.join(1, 4, 0);
    measure(&mut w, 1, 4, 6000);
    let quota = Quota {
        ucu: Some(4000),
        ..NONE
    };
    set(&mut w, quota);
    let mut spec = task_spec("gang");
    spec.gang = Some(Gang {
        size: 3,
        regions: GangRegions::One,
    });
    w.submit('A', 1, 3, &spec);
    let gang: Vec<_> = (1..=3).map(|n| task('A', n)).collect();
    w.place(&gang, 1);
    assert_eq!(w.state.project(&project()).held(), Holding::default());
    set(
        &mut w,
        Quota {
            ucu: Some(4500),
            ..NONE
        },
    );
    w.place(&gang, 1);
    assert_eq!(w.state.project(&project()).held().ucu, 4500);
    // One is lost: all come back, and with them all that they held.
    w.give_back(gang[1], 1, ReturnReason::Lost(LostCause::LeaseExpired));
    assert_eq!(w.state.project(&project()).held(), Holding::default());
}

#[test]
fn a_budget_ends_a_month_and_the_next_begins_with_none_spent() {
    let mut w = World::new();
    // 2026-11-30T22:00:00Z.
    w.now = 1_796_076_000_000;
    w.stock(1, 1, 2);
    set(
        &mut w,
        Quota {
            budget: Some(UsdMicros(50_000)),
            ..NONE
        },
    );
    // An hour of a core costs $0.036: the second passes the budget of $0.05, having begun before it.
    for n in 1..=3 {
        w.submit('A', n, 1, &task_spec("f"));
    }
    w.place(&[task('A', 1), task('A', 2)], 1);
    w.now += HOUR;
    let items = [1, 2].map(|n| {
        let mut done = w.completion(task('A', n), 1, RETURNED);
        done.started = Millis(w.now - HOUR);
        done
    });
    let order = w.complete_order(1, 1, items.into());
    w.order(order);
    let spent = |w: &World| w.state.project(&project()).spent(Millis(w.now)).0;
    assert!((71_900..=72_100).contains(&spent(&w)), "{}", spent(&w));
    w.story();
    w.place(&[task('A', 3)], 1);
    assert!(w.story().contains(
        "A3 refused: the project's quota is reached: at most a budget of $0.050000 a month (UTC)"
    ));
    w.restart();
    w.now += HOUR;
    assert_eq!(spent(&w), 0);
    assert!(matches!(
        w.place(&[task('A', 3)], 1),
        Outcome::Placed { placed: 1, .. }
    ));
}

#[test]
fn settings_are_changed_by_who_saw_the_last() {
    let mut w = World::new();
    let order = |after, weight| SetProject {
        project: project(),
        after,
        settings: ProjectSettings {
            weight,
            quota: NONE,
            policy: None,
        },
        by: key(),
    };
    let invalid = Outcome::Refused(Refusal::SettingsInvalid);
    assert_eq!(w.order(order(0, 0)), invalid);
    assert_eq!(w.order(order(0, MAX_WEIGHT + 1)), invalid);
    let owed = Quota {
        budget: Some(UsdMicros(-1)),
        ..NONE
    };
    assert_eq!(set(&mut w, owed), invalid);
    assert_eq!(w.order(order(0, 1)), Outcome::Done);
    let revision = w.index;
    assert_eq!(
        w.order(order(0, 2)),
        Outcome::Refused(Refusal::SettingsStale)
    );
    assert_eq!(w.order(order(revision, 2)), Outcome::Done);
    assert_eq!(w.state.project(&project()).weight(), 2);
}
