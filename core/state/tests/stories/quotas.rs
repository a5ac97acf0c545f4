//! Stories of projects' quotas: what is refused, what waits, and when it goes on.

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
        "Place: placed 2, A3 refused: the project's quota is reached: at most 2 tasks at once; node 1 low on prekeys, A1#1 to node 1, \
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
        "A2 refused: the project's quota is reached: at most 2.500 cores at once",
        "A3 refused: the project's quota is reached: at most 0 GPUs at once",
    ] {
        assert!(story.contains(said), "{story}");
    }
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
