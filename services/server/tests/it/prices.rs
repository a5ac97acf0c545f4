//! Who may set prices, what is refused, and which machines a book reaches.

use bytes::Bytes;
use farlane_units::Millis;
use farlane_wire::{ErrorCode, v1};

use crate::access::{accounts, code, key};
use crate::machine::Machine;
use crate::person::{self, Api, Person, spec, with_key};
use crate::world::{World, soon, wall};

fn entry(region: &str, usd_micros: i64) -> v1::PriceEntry {
    v1::PriceEntry {
        rate: "core-hour".into(),
        region: region.into(),
        target: "*".into(),
        usd_micros,
        ..Default::default()
    }
}

fn book(world: &World, after: u64, entries: Vec<v1::PriceEntry>) -> v1::SetPricesRequest {
    v1::SetPricesRequest {
        provider: Bytes::copy_from_slice(&world.provider.public().fingerprint().0),
        after,
        entries,
        dry_run: false,
    }
}

/// Prices in force, by machine.
async fn prices(world: &World, api: &mut Api) -> Vec<i64> {
    let reply = api
        .list_nodes(with_key(v1::ListNodesRequest {}, &world.key))
        .await;
    let nodes = reply.unwrap().into_inner().nodes;
    nodes.iter().map(|n| n.core_hour_usd_micros).collect()
}

#[tokio::test]
async fn a_book_reaches_machines_that_are_there_and_those_that_join() {
    let world = World::start().await;
    let mut api = person::api(&world).await;
    let _first = Machine::join(&world, 1).await;
    assert_eq!(prices(&world, &mut api).await, [36_000_000]);
    let mut dry = book(&world, 0, vec![entry("eu-*", 50_000)]);
    dry.dry_run = true;
    let would = api
        .set_prices(with_key(dry.clone(), &world.key))
        .await
        .unwrap();
    assert_eq!(would.into_inner().book.unwrap().entries.len(), 1);
    assert_eq!(prices(&world, &mut api).await, [36_000_000]);
    dry.dry_run = false;
    let set = api.set_prices(with_key(dry, &world.key)).await.unwrap();
    assert_eq!(set.into_inner().book.unwrap().revision, 1);
    let _second = Machine::join(&world, 1).await;
    assert_eq!(prices(&world, &mut api).await, [50_000, 50_000]);
    let reply = api
        .list_regions(with_key(v1::ListRegionsRequest {}, &world.key))
        .await;
    let reply = reply.unwrap().into_inner();
    let region = &reply.regions[0];
    assert_eq!((region.nodes, region.online, &reply.feed), (2, 2, &None));
    assert_eq!(region.core_hour.as_ref().unwrap().most_usd_micros, 50_000);
    // Withdrawn, the machines' own price holds again, and the past is kept.
    let none = book(&world, 1, Vec::new());
    let kept = api
        .set_prices(with_key(none, &world.key))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(kept.book.unwrap().entries.len(), 1);
    assert_eq!(prices(&world, &mut api).await, [36_000_000, 36_000_000]);
    let lines = accounts(&world)
        .await
        .audit()
        .list(Millis(u64::MAX), 100)
        .await
        .unwrap();
    let told: Vec<_> = lines.iter().filter(|l| l.action == "prices.set").collect();
    assert_eq!(told.len(), 2);
    assert!(
        told[1]
            .detail
            .contains("+ core-hour in region eu-*: $0.050000 from "),
        "{told:?}"
    );
}

#[tokio::test]
async fn prices_are_the_networks_and_faults_are_named() {
    let world = World::start().await;
    let mut api = person::api(&world).await;
    let request = |after, entries| book(&world, after, entries);
    let reader = key(&world, &["read", "admin", "submit"], 0).await;
    let denied = api
        .set_prices(with_key(request(0, vec![entry("*", 1)]), &reader))
        .await;
    assert_eq!(
        code(&denied.unwrap_err()),
        Some(ErrorCode::PermissionDenied)
    );
    let mut past = entry("*", 1);
    past.since_ms = wall().0 - 60_000;
    let mut ends = entry("eu-*", 1);
    ends.until_ms = wall().0 + 3_600_000;
    let mut odd = entry("*", 1);
    odd.rate = "free".into();
    for (entries, said) in [
        (vec![entry("*", -1)], "entry 1: -$0.000001 is negative"),
        (vec![entry("*", i64::MAX)], "is absurd"),
        (
            vec![entry("*", 1), entry("*", 2)],
            "entry 2: core-hour in region * has a price",
        ),
        (
            vec![ends],
            "no price for core-hour in region eu-* is in force",
        ),
        (vec![past], "is in the past"),
        (vec![odd], "rate is none of"),
        (vec![entry("*", 1); 513], "at most 512"),
    ] {
        let refused = api
            .set_prices(with_key(request(0, entries), &world.key))
            .await;
        let refused = refused.unwrap_err();
        assert_eq!(code(&refused), Some(ErrorCode::InvalidArgument), "{said}");
        assert!(refused.message().contains(said), "{}", refused.message());
    }
    api.set_prices(with_key(request(0, vec![entry("*", 1)]), &world.key))
        .await
        .unwrap();
    let stale = api
        .set_prices(with_key(request(0, vec![entry("*", 2)]), &world.key))
        .await;
    assert_eq!(code(&stale.unwrap_err()), Some(ErrorCode::Stale));
    let list = v1::ListPricesRequest::default();
    let books = api
        .list_prices(with_key(list, &reader))
        .await
        .unwrap()
        .into_inner()
        .books;
    assert_eq!((books.len(), books[0].revision), (1, 1));
    let next = v1::ListPricesRequest {
        after: books[0].provider.clone(),
        ..Default::default()
    };
    let next = api.list_prices(with_key(next, &reader)).await.unwrap();
    assert!(next.into_inner().books.is_empty());
}

#[tokio::test]
async fn a_call_pays_for_its_bytes_between_regions() {
    let world = World::start_with(|config| config.region = "us-east".into()).await;
    let mut api = person::api(&world).await;
    let mut machine = Machine::join(&world, 1).await;
    // What leaves for the servers costs twice as much as what comes from them, where no book says otherwise.
    let mut out = entry("eu-*", 100_000);
    out.rate = "egress-gb".into();
    out.target = "us-*".into();
    let set = book(&world, 0, vec![out, entry("*", 0)]);
    api.set_prices(with_key(set, &world.key)).await.unwrap();
    let mut person = Person::connect(&world).await;
    let asked = spec(&world, |s| {
        s.node.labels.clear();
    });
    person.submit(&world, &asked, &[&[7; 5000]]).await;
    let agent = tokio::spawn(async move {
        let ready = machine.ready(1).await;
        let payload = machine.assigned[&ready[0].task].payload.clone().unwrap();
        machine.complete(&ready).await;
        (machine, payload)
    });
    let results = soon("the result", person.results(&world, 1)).await;
    let (_machine, payload) = agent.await.unwrap();
    let result = &results[0].0;
    let sizes = |place: Option<v1::sealed::Place>| match place {
        Some(v1::sealed::Place::Inline(bytes)) => bytes.len() as u64,
        other => panic!("{other:?}"),
    };
    let there = sizes(payload.place);
    let back = sizes(result.sealed.clone().unwrap().place);
    assert_eq!(result.moved_bytes, there + back);
    assert_eq!(result.egress_usd_picos, there * 50 + back * 100);
    let exact = there * 50_000 + back * 100_000;
    assert_eq!(result.cost_usd_micros as u64, exact.div_ceil(1_000_000_000));
    let request = v1::ExplainRequest {
        task: farlane_wire::id::task_bytes(&person.task(1)),
        ..Default::default()
    };
    let told = api
        .explain(with_key(request, &world.key))
        .await
        .unwrap()
        .into_inner();
    assert!(
        told.summary.contains(" between regions)"),
        "{}",
        told.summary
    );
    // Accounts hear the same.
    let store = accounts(&world).await;
    let usage = soon("the usage", async {
        loop {
            let history = store
                .usage()
                .history(world.project, None, 10)
                .await
                .unwrap();
            if let Some(one) = history.into_iter().next() {
                return one.usage;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(
        (usage.moved_there.0, usage.moved_back.0, usage.egress.0),
        (there, back, exact)
    );
}
