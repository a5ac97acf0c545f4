//! Stories of company: who may be placed beside whom.

use farlane_model::*;
use farlane_state::*;

use crate::world::*;
use crate::*;

fn spec(tag: &str, wish: Option<(&str, Direction)>) -> TaskSpec {
    let affinities = wish.map(|(tag, direction)| Affinity {
        tag: tag.into(),
        direction,
        scope: Scope::Node,
        strength: Strength::Required,
    });
    TaskSpec {
        company: Company {
            tag: Some(tag.into()),
            spread: None,
            affinities: affinities.into_iter().collect(),
        },
        ..task_spec(tag)
    }
}

fn broken(outcome: Outcome) -> usize {
    let Outcome::Placed { refused, .. } = outcome else {
        panic!("{outcome:?}")
    };
    let broken = |(_, why): &&(TaskId, Refusal)| *why == Refusal::CompanyBroken;
    refused.iter().filter(broken).count()
}

#[test]
fn what_must_be_apart_is_judged_placement_by_placement() {
    let mut w = World::new();
    w.submit('A', 1, 2, &spec("web", Some(("web", Direction::Apart))));
    let both = [task('A', 1), task('A', 2)];
    // Both in one plan: the second sees the first.
    assert_eq!(broken(w.place(&both, 1)), 1);
    w.restart();
    assert_eq!(broken(w.place(&both[1..], 1)), 1);
    // Once the first has ended the other may come.
    w.complete(1, 1, &[(both[0], 1, RETURNED)]);
    assert_eq!(broken(w.place(&both[1..], 1)), 0);
}

#[test]
fn what_must_be_near_waits_for_the_other() {
    let mut w = World::new();
    w.submit('A', 1, 1, &spec("app", Some(("db", Direction::Near))));
    w.submit('A', 2, 1, &spec("db", None));
    assert_eq!(broken(w.place(&[task('A', 1)], 1)), 1);
    w.place(&[task('A', 2)], 1);
    assert_eq!(broken(w.place(&[task('A', 1)], 1)), 0);
}
