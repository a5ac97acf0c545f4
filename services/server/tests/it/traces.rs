//! What a network did, out as a trace: who may have it, what stands in it, and that it can be replayed.

use std::time::Duration;

use farlane_model::{Gang, GangRegions, PolicyName};
use farlane_sim::{RecordedFigures, Simulation, WhatIf};
use farlane_store::Span;
use farlane_trace::{Outcome, Trace};
use farlane_units::{MilliCpu, Millis};
use farlane_wire::{ErrorCode, v1};

use crate::access::{accounts, code, key};
use crate::machine::{Machine, node_spec};
use crate::person::{self, Api, Person, spec, with_key};
use crate::world::{World, soon, wall};

fn last_minutes() -> v1::ExportTraceRequest {
    v1::ExportTraceRequest {
        since_ms: wall().0 - 600_000,
        until_ms: None,
        project: String::new(),
    }
}

async fn export(
    api: &mut Api,
    request: v1::ExportTraceRequest,
    key: &str,
) -> Result<(String, u64), tonic::Status> {
    let mut chunks = api.export_trace(with_key(request, key)).await?.into_inner();
    let (mut text, mut told) = (Vec::new(), 0);
    while let Some(chunk) = chunks.message().await? {
        text.extend_from_slice(&chunk.lines);
        assert!(chunk.tasks >= told && chunk.tasks <= chunk.all_tasks);
        told = chunk.tasks;
    }
    Ok((String::from_utf8(text).unwrap(), told))
}

/// Until accounts have heard of so many ends.
async fn taken_in(world: &World, tasks: u64) {
    let store = accounts(world).await;
    let span = Span {
        from: Millis(0),
        to: wall().saturating_add(Millis(600_000)),
        project: None,
    };
    let wait = async {
        while store.usage().ended(&span, 1000).await.unwrap() < tasks {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the accounts", wait).await;
}

#[tokio::test]
async fn what_ran_is_told_without_its_names_and_replayed() {
    let world = World::start().await;
    let mut box_spec = node_spec(2);
    box_spec.cpus = MilliCpu(4000);
    let kept = Machine::enrolled(&world, &[("disk", "nvme")], box_spec).await;
    let mut machine = Machine::start(&world, kept).await;
    let mut person = Person::connect(&world).await;
    let calls = spec(&world, |s| s.policy = Some(PolicyName::Fast));
    let gang = spec(&world, |s| {
        s.function = "quadruple".into();
        s.gang = Some(Gang {
            size: 2,
            regions: GangRegions::One,
        });
    });
    person.submit(&world, &calls, &[b"a", b"b", b"c"]).await;
    person.submit(&world, &gang, &[b"d", b"e"]).await;
    let drive = async {
        for _ in 0..5 {
            let ready = machine.ready(1).await;
            machine.complete_in(&ready[..1], 20).await;
        }
    };
    let (results, ()) = soon("the results", async {
        tokio::join!(person.results(&world, 5), drive)
    })
    .await;
    assert_eq!(results.len(), 5);
    taken_in(&world, 5).await;

    let mut api = person::api(&world).await;
    let (text, told) = export(&mut api, last_minutes(), &world.key).await.unwrap();
    assert_eq!(told, 5);
    let project = world.project.to_string();
    let task = person.task(1).to_string();
    let provider = farlane_model::Digest(world.provider.public().fingerprint().0).to_string();
    for name in [
        "double",
        "quadruple",
        "box",
        "host",
        "nvme",
        "\"disk\"",
        "default",
        &project,
        &task,
        &provider[..16],
    ] {
        assert!(!text.contains(name), "{name} in {text}");
    }
    let trace = Trace::read(text.as_bytes()).unwrap();
    assert_eq!(
        (trace.calls.len(), trace.kinds.len(), trace.left_out),
        (5, 2, 0)
    );
    assert_eq!(trace.regions[0].name, "eu-central");
    let node = &trace.nodes[0];
    assert_eq!(
        (node.cores, node.memory_mib, node.labels.len()),
        (4.0, 4096, 1)
    );
    assert_eq!(node.core_hour_usd_micros, [(0, 36_000_000)]);
    let fast = trace.kinds.iter().find(|kind| kind.gang == 1).unwrap();
    assert_eq!(fast.policy.unwrap().0, PolicyName::Fast.prices());
    assert_eq!((fast.memory_mib, fast.regions[0].as_str()), (64, "eu-*"));
    for run in &trace.runs {
        assert_eq!(run.outcome, Outcome::Returned);
        assert!(
            run.ended - run.started < 1000 && run.usd_nanos > 0,
            "{run:?}"
        );
        assert!(
            run.co2e_ng.is_some(),
            "the mean of the region's grid is known"
        );
    }

    // Names are hashed anew each time.
    let (again, _) = export(&mut api, last_minutes(), &world.key).await.unwrap();
    let again = Trace::read(again.as_bytes()).unwrap();
    assert_ne!(again.nodes[0].name, trace.nodes[0].name);
    assert_eq!(again.calls.len(), trace.calls.len());

    let mut simulation = Simulation::replay(&trace, &WhatIf::default()).unwrap();
    while simulation.step() {}
    let (figures, recorded) = (simulation.figures(), RecordedFigures::of(&trace));
    assert_eq!((figures.ended, recorded.ended), (5, 5));
    assert!(
        (figures.usd / recorded.usd - 1.0).abs() < 0.1,
        "{figures:?} {recorded:?}"
    );
    assert!((figures.grams_co2e / recorded.grams_co2e - 1.0).abs() < 0.2);
}

#[tokio::test]
async fn a_trace_is_the_networks_and_of_a_time_that_was() {
    let world = World::start().await;
    let mut api = person::api(&world).await;
    let admin = key(&world, &["submit", "read", "admin"], 0).await;
    let denied = export(&mut api, last_minutes(), &admin).await.unwrap_err();
    assert_eq!(code(&denied), Some(ErrorCode::PermissionDenied));
    let bad = [
        v1::ExportTraceRequest {
            since_ms: wall().0 + 600_000,
            ..last_minutes()
        },
        v1::ExportTraceRequest {
            until_ms: Some(last_minutes().since_ms),
            ..last_minutes()
        },
        v1::ExportTraceRequest {
            since_ms: 0,
            ..last_minutes()
        },
        v1::ExportTraceRequest {
            project: "nobody".into(),
            ..last_minutes()
        },
    ];
    for (request, said) in bad.into_iter().zip([
        "begins in the past",
        "before its end",
        "--since",
        "no such project",
    ]) {
        let refused = export(&mut api, request, &world.key).await.unwrap_err();
        assert!(refused.message().contains(said), "{}", refused.message());
    }
    // Nothing ran: a whole trace of nothing.
    let (text, told) = export(&mut api, last_minutes(), &world.key).await.unwrap();
    let trace = Trace::read(text.as_bytes()).unwrap();
    assert_eq!((trace.calls.len(), told), (0, 0));
    let lines = accounts(&world)
        .await
        .audit()
        .list(Millis(u64::MAX), 100)
        .await;
    let told = lines.unwrap();
    assert!(told.iter().any(|line| line.action == "trace.export"));
}
