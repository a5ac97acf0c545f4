//! Stories of receipts: what a placement was expected to take, and what it took.

use bytes::Bytes;
use farlane_model::*;
use farlane_state::*;
use farlane_units::*;

use crate::world::*;
use crate::*;

fn quote(run: u64, emits: Option<u64>) -> Bytes {
    let quote = Quote {
        run: Micros(run),
        emits: emits.map(MicroGramsCo2),
        prices: PolicyName::Green.prices(),
        terms: vec![(TermKind::Run, UsdPicos(run))],
        runner_up: Some(RunnerUp {
            node_name: "other".into(),
            region: "eu-west".into(),
            cost: UsdPicos(9),
        }),
    };
    quote.to_bytes().into()
}

fn place(w: &mut World, tasks: &[TaskId], quotes: Vec<(u32, Bytes)>) -> Outcome {
    let order = w.place_order(tasks, 1);
    w.order(Place { quotes, ..order })
}

fn run(w: &mut World, n: u64, attempt: u32, millis: u64, kind: ExitKind) {
    w.now += millis;
    let mut done = w.completion(task('A', n), attempt, kind);
    done.started = Millis(w.now + 1 - millis);
    done.ended = Millis(w.now + 1);
    let order = w.complete_order(1, 1, vec![done]);
    w.order(order);
}

fn lease_quote(w: &World, n: u64) -> Option<Quote> {
    let live = w.state.task(task('A', n)).unwrap();
    Quote::from_bytes(live.placed.unwrap().lease.quoted.bytes())
}

#[test]
fn a_quote_holds_from_its_placement_to_the_next_and_comes_to_the_finished_task() {
    let mut w = World::new();
    w.submit('A', 1, 3, &task_spec("f"));
    let tasks: Vec<TaskId> = (1..=3).map(|n| task('A', n)).collect();
    // An hour of the second emits a gram.
    let quotes = vec![(1, quote(5, Some(1_000_000))), (2, quote(6, None))];
    place(&mut w, &tasks, quotes);
    let expected = |w: &World| [1, 2, 3].map(|n| lease_quote(w, n).map(|q| q.run.0));
    assert_eq!(expected(&w), [None, Some(5), Some(6)]);
    w.restart();
    assert_eq!(expected(&w), [None, Some(5), Some(6)]);

    for n in 1..=3 {
        run(&mut w, n, 1, 36_000, RETURNED);
    }
    let finished = |n| w.finished(task('A', n)).unwrap();
    let of = |n| (Quote::from_bytes(&finished(n).quote), finished(n).emitted);
    assert_eq!(of(1), (None, None));
    let (kept, emitted) = of(2);
    let kept = kept.unwrap();
    assert_eq!(
        (kept.run, kept.prices.name()),
        (Micros(5), Some(PolicyName::Green))
    );
    assert_eq!(kept.runner_up.unwrap().node_name, "other");
    // 36 s of a gram an hour.
    assert_eq!(emitted, Some(NanoGramsCo2(10_000_000)));
    // Nobody knew the grid: unknown, and never nothing, however short it ran.
    assert_eq!(of(3).1, None);
    w.submit('A', 4, 1, &task_spec("f"));
    place(&mut w, &[task('A', 4)], vec![(0, quote(6, None))]);
    let mut done = w.completion(task('A', 4), 1, RETURNED);
    done.started = done.ended;
    let order = w.complete_order(1, 1, vec![done]);
    w.order(order);
    assert_eq!(w.finished(task('A', 4)).unwrap().emitted, None);
}

#[test]
fn grams_of_all_attempts_add_up_and_one_unknown_makes_all_unknown() {
    let mut w = World::new();
    let spec = TaskSpec {
        retry: Retry {
            raised: 3,
            ..Retry::default()
        },
        ..task_spec("f")
    };
    w.submit('A', 1, 2, &spec);
    let quotes = |emits| vec![(0, quote(1, emits))];
    for n in 1..=2 {
        let task = task('A', n);
        place(&mut w, &[task], quotes(Some(3_600_000)));
        run(&mut w, n, 1, 1000, ExitKind::Raised);
        place(&mut w, &[task], quotes((n == 1).then_some(7_200_000)));
        run(&mut w, n, 2, 1000, RETURNED);
    }
    let emitted = |n| w.finished(task('A', n)).unwrap().emitted;
    assert_eq!(emitted(1), Some(NanoGramsCo2(3_000_000)));
    assert_eq!(emitted(2), None);
}

#[test]
fn what_is_no_quote_is_dropped_and_the_placement_holds() {
    let mut w = World::new();
    w.submit('A', 1, 1, &task_spec("f"));
    let nonsense = vec![(0, Bytes::from_static(b"\xff\xff"))];
    let outcome = place(&mut w, &[task('A', 1)], nonsense);
    assert!(matches!(outcome, Outcome::Placed { placed: 1, .. }));
    assert_eq!(lease_quote(&w, 1), None);
}

#[test]
fn a_call_is_placed_by_its_own_policy_else_by_its_projects_else_balanced() {
    let mut w = World::new();
    let named = TaskSpec {
        policy: Some(PolicyName::Fast),
        ..task_spec("f")
    };
    let of = |w: &World, spec: &TaskSpec| w.state.project(&project()).policy(spec);
    assert_eq!(of(&w, &task_spec("f")), PolicyName::Balanced.prices());
    let own = PolicyPrices {
        hour: UsdMicros(3_000_000),
        ..PolicyName::Green.prices()
    };
    let set = |after, policy| SetProject {
        project: project(),
        after,
        settings: ProjectSettings {
            policy: Some(policy),
            ..ProjectSettings::default()
        },
        by: key(),
    };
    assert_eq!(w.order(set(0, own)), Outcome::Done);
    w.restart();
    assert_eq!(of(&w, &task_spec("f")), own);
    assert_eq!(of(&w, &named), PolicyName::Fast.prices());
    let absurd = PolicyPrices {
        hour: UsdMicros(-1),
        ..own
    };
    let after = w.state.project(&project()).set().unwrap().revision;
    let refused = Outcome::Refused(Refusal::SettingsInvalid);
    assert_eq!(w.order(set(after, absurd)), refused);
}

#[test]
fn a_plan_with_quotes_that_are_not_its_own_is_refused_and_stops_nobody() {
    let mut w = World::new();
    w.submit('A', 1, 2, &task_spec("f"));
    let tasks = [task('A', 1), task('A', 2)];
    let one = || quote(5, None);
    let long = Bytes::from(vec![0; MAX_QUOTE_BYTES + 1]);
    for quotes in [
        vec![(1, one()), (0, one())],
        vec![(0, one()), (0, one())],
        vec![(2, one())],
        vec![(0, long)],
    ] {
        let outcome = place(&mut w, &tasks, quotes);
        assert_eq!(outcome, Outcome::Refused(Refusal::PlanInvalid));
    }
    assert_eq!(w.state.counts().placed, 0);
    let placed = place(&mut w, &tasks, vec![(0, one()), (1, one())]);
    assert!(matches!(placed, Outcome::Placed { placed: 2, .. }));
}
