//! Stories of prices: which one an attempt is charged by.

use farlane_model::*;
use farlane_state::*;
use farlane_units::*;

use crate::world::*;
use crate::*;

fn dated(since: u64, core_hour: Option<i64>) -> DatedPrice {
    DatedPrice {
        since: Millis(since),
        core_hour: core_hour.map(UsdMicros),
        egress: EgressPrice::default(),
    }
}

/// The same, with what 10^9 bytes cost there and back.
fn across(since: u64, core_hour: i64, there: i64, back: i64) -> DatedPrice {
    DatedPrice {
        egress: EgressPrice {
            there: UsdMicros(there),
            back: UsdMicros(back),
        },
        ..dated(since, Some(core_hour))
    }
}

fn set(w: &mut World, n: u8, prices: Vec<DatedPrice>) -> Outcome {
    let nodes = vec![NodePrices {
        node: node(n),
        prices,
    }];
    w.order(SetPrices { nodes })
}

/// Runs the call for an hour that ends now; what it cost.
fn hour(w: &mut World, n: u64) -> i64 {
    w.submit('A', n, 1, &task_spec("f"));
    w.place(&[task('A', n)], 1);
    w.now += HOUR - 1;
    let mut done = w.completion(task('A', n), 1, RETURNED);
    done.started = Millis(w.now + 1 - HOUR);
    let order = w.complete_order(1, 1, vec![done]);
    w.order(order);
    w.finished(task('A', n)).unwrap().cost.0
}

#[test]
fn an_attempt_costs_what_held_when_it_ended() {
    let mut w = World::new();
    // The node's own price, $0.036: no book names one.
    let own = hour(&mut w, 1);
    assert!((35_999..=36_000).contains(&own), "{own}");
    let later = w.now + 2 * HOUR;
    let prices = vec![dated(0, Some(72_000)), dated(later, Some(7_200))];
    assert_eq!(set(&mut w, 1, prices), Outcome::Settled { count: 1 });
    assert!((71_998..=72_000).contains(&hour(&mut w, 2)));
    // The next price was proposed ahead: nobody need lead at its moment, and a restart keeps it.
    w.restart();
    w.now = later;
    assert!((7_199..=7_200).contains(&hour(&mut w, 3)));
}

#[test]
fn what_ended_before_a_change_is_charged_by_what_was() {
    let mut w = World::new();
    w.submit('A', 1, 1, &task_spec("f"));
    w.place(&[task('A', 1)], 1);
    w.now += HOUR;
    let mut done = w.completion(task('A', 1), 1, RETURNED);
    done.started = Millis(w.now - HOUR);
    // The node's word comes after the price has changed.
    let now = w.now;
    set(
        &mut w,
        1,
        vec![dated(0, None), dated(now + 1, Some(1_000_000))],
    );
    w.now += 60_000;
    let order = w.complete_order(1, 1, vec![done]);
    w.order(order);
    let cost = w.finished(task('A', 1)).unwrap().cost.0;
    assert!((35_999..=36_000).contains(&cost), "{cost}");
}

#[test]
fn where_a_book_ends_the_nodes_own_price_holds_again() {
    let mut w = World::new();
    set(
        &mut w,
        1,
        vec![dated(0, Some(5)), dated(500, None), dated(900, Some(0))],
    );
    let at = w.state.node(&node(1)).unwrap();
    let held = [0, 499, 500, 900].map(|at_ms| at.price_at(Millis(at_ms)).0);
    assert_eq!(held, [5, 5, 36_000, 0]);
    // A clock that jumps is a time like any other.
    assert_eq!(at.price_at(Millis::MAX), UsdMicros::ZERO);
}

#[test]
fn prices_out_of_order_are_refused_and_gone_nodes_passed_over() {
    let mut w = World::new();
    let bad = Outcome::Refused(Refusal::PricesInvalid);
    let many: Vec<_> = (0..=MAX_DATED_PRICES as u64)
        .map(|n| dated(n, None))
        .collect();
    for prices in [
        vec![dated(5, None), dated(5, Some(1))],
        vec![dated(6, None), dated(5, Some(1))],
        vec![dated(0, Some(-1))],
        vec![across(0, 1, -1, 0)],
        vec![across(0, 1, 0, -1)],
        many,
    ] {
        assert_eq!(set(&mut w, 1, prices), bad);
    }
    assert_eq!(
        set(&mut w, 9, vec![dated(0, Some(1))]),
        Outcome::Settled { count: 0 }
    );
    w.story();
    set(&mut w, 1, vec![dated(0, Some(1))]);
    set(&mut w, 1, vec![dated(0, Some(1))]);
    assert_eq!(
        w.story(),
        "SetPrices: settled 1; node 1 changed\nSetPrices: settled 0; \n"
    );
}

#[test]
fn a_node_that_comes_back_elsewhere_has_no_price_of_the_old_place() {
    let mut w = World::new();
    set(&mut w, 1, vec![dated(0, Some(5))]);
    w.join(1, 2, 1);
    assert_eq!(w.state.node(&node(1)).unwrap().prices.len(), 1);
    w.order(RegisterNode {
        node: node(1),
        record: bytes::Bytes::from_static(b"record"),
        spec: node_spec(2, 1).to_canonical().into(),
        region: "eu-west".into(),
        provider: Digest::of(b"provider"),
    });
    assert_eq!(w.state.node(&node(1)).unwrap().prices, []);
}

#[test]
fn bytes_between_regions_are_charged_at_the_price_of_the_end() {
    let mut w = World::new();
    let dear = w.now + 10 * HOUR;
    let prices = vec![across(0, 0, 50_000, 90_000), across(dear, 0, 70_000, 0)];
    set(&mut w, 1, prices);
    let moves = |w: &mut World, n: u64, there: u64, back: u64| {
        w.submit('A', n, 1, &task_spec("f"));
        w.place(&[task('A', n)], 1);
        w.now += 1;
        let mut done = w.completion(task('A', n), 1, RETURNED);
        done.moved = Moved {
            there: ByteCount(there),
            back: ByteCount(back),
        };
        let order = w.complete_order(1, 1, vec![done]);
        w.order(order);
        let row = w.finished(task('A', n)).unwrap();
        (row.moved, row.egress, row.cost.0)
    };
    let (moved, egress, cost) = moves(&mut w, 1, 2_000_000_000, 1_000_000_000);
    assert_eq!(
        (moved.there.0, moved.back.0),
        (2_000_000_000, 1_000_000_000)
    );
    assert_eq!((egress.picos(), cost), (UsdPicos(190_000_000_000), 190_000));
    // A byte is kept as what it cost, and rounded up to a millionth with all else of its attempt.
    let (_, egress, cost) = moves(&mut w, 2, 1, 0);
    assert_eq!((egress, cost), (UsdFemtos(50_000), 1));
    assert_eq!(moves(&mut w, 3, 0, 0), (Moved::NONE, UsdFemtos::ZERO, 0));
    let spent: i64 = 190_001;
    assert_eq!(
        w.state.project(&project()).spent(w.state.now()).0,
        spent,
        "budgets count it"
    );
    w.now = dear;
    assert_eq!(moves(&mut w, 4, 1_000_000_000, 1_000_000_000).2, 70_000);
}
