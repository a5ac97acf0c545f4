//! Stories of standings: what a node gets that audits found wanting.

use farlane_model::*;
use farlane_state::*;

use crate::world::*;
use crate::*;

fn stands(w: &mut World, standing: Standing) -> Outcome {
    w.order(SetStanding {
        node: node(1),
        standing,
    })
}

fn quarantined() -> Standing {
    Standing::Quarantined {
        reason: "it answered a challenge wrongly".into(),
        lifts: false,
    }
}

#[test]
fn a_node_in_quarantine_ends_what_it_runs_and_gets_nothing_more() {
    let mut w = World::new();
    w.submit('A', 1, 2, &task_spec("f"));
    w.place(&[task('A', 1)], 1);
    assert_eq!(stands(&mut w, quarantined()), Outcome::Done);
    w.restart();
    let node = w.state.node(&node(1)).unwrap();
    assert_eq!(node.standing, quarantined());
    let refused = vec![(task('A', 2), Refusal::NodeQuarantined)];
    assert_eq!(
        w.place(&[task('A', 2)], 1),
        Outcome::Placed { placed: 0, refused }
    );
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    assert!(w.finished(task('A', 1)).is_some());
    assert_eq!(stands(&mut w, Standing::Good), Outcome::Done);
    w.place(&[task('A', 2)], 1);
    assert!(w.state.task(task('A', 2)).unwrap().placed.is_some());
}

#[test]
fn a_standing_that_is_none_is_refused_and_changes_nothing() {
    let mut w = World::new();
    let long = Standing::Marked {
        slowdown_milli: 2000,
        reason: "x".repeat(MAX_REASON + 1),
    };
    let fast = Standing::Marked {
        slowdown_milli: 999,
        reason: String::new(),
    };
    for bad in [long, fast] {
        let refused = Outcome::Refused(Refusal::NodeInvalid);
        assert_eq!(stands(&mut w, bad), refused);
    }
    assert_eq!(w.state.node(&node(1)).unwrap().standing, Standing::Good);
    let unknown = SetStanding {
        node: node(99),
        standing: Standing::Good,
    };
    assert_eq!(w.order(unknown), Outcome::Refused(Refusal::NodeUnknown));
}
