//! What a task asks of a machine, from its submission to the machine that has it.

use farlane_model::{
    Amount, Demand, Device, DeviceKind, Exit, ExitKind, LabelRule, TaskSpec, VersionRange,
};
use farlane_seal::batch;
use farlane_units::{ByteCount, MilliGpu};
use farlane_wire::v1;
use farlane_wire::v1::session_frame::Body as Down;

use crate::machine::{Machine, node_spec};
use crate::person::{self, Person, exit_kind, spec, with_key};
use crate::world::{World, soon, wall};

const ANYWHERE: [(&str, &str); 2] = [("disk", "nvme"), ("driver", "535.104")];

async fn explain(person: &mut Person, spec: &TaskSpec) -> v1::ExplainReply {
    let request = v1::ExplainRequest {
        spec_bytes: spec.to_canonical().into(),
        ..Default::default()
    };
    let reply = person.api.explain(with_key(request, &person.key)).await;
    reply.unwrap().into_inner()
}

#[tokio::test]
async fn a_task_waits_for_a_machine_within_its_range_and_runs_when_that_joins() {
    let world = World::start().await;
    let old = Machine::enrolled(&world, &ANYWHERE, node_spec(4)).await;
    let old = Machine::start(&world, old).await;
    old.beat();
    // Known to the network, and away: work for it waits rather than being refused.
    let new = [("disk", "nvme"), ("driver", "550.54")];
    let new = Machine::enrolled(&world, &new, node_spec(4)).await;
    let mut person = Person::connect(&world).await;
    let newer = spec(&world, |s| {
        s.node.labels.push(LabelRule {
            key: "driver".into(),
            demand: Demand::Version(VersionRange::new(">=550,<600").unwrap()),
        });
    });
    person.submit(&world, &newer, &[b"x"]).await;
    loop {
        if let Down::Submitted(ack) = person.next().await {
            assert_eq!(ack.refused, vec![]);
            break;
        }
    }
    let explained = explain(&mut person, &newer).await;
    let reasons: Vec<&String> = explained.classes.iter().flat_map(|c| &c.reasons).collect();
    assert_eq!(
        reasons,
        [
            "has label driver=535.104, the task wants driver >=550,<600; smallest change: labels driver >=550,<600 → \
             without it",
            "would fit, but is offline"
        ]
    );
    assert_eq!(explained.summary, "every node that fits is offline");

    let mut new = Machine::start(&world, new).await;
    let agent = tokio::spawn(async move {
        let ready = new.ready(1).await;
        new.complete(&ready).await;
        (new, ready)
    });
    let results = soon("the result", person.results(&world, 1)).await;
    assert_eq!(exit_kind(&results[0].0), v1::ExitKind::Returned);
    let (_new, ready) = agent.await.unwrap();
    assert_eq!(ready[0].attempt, 1);
    assert!(old.assigned.is_empty());
}

#[tokio::test]
async fn what_no_machine_offers_is_refused_with_what_each_lacks() {
    let world = World::start().await;
    let machine = Machine::enrolled(&world, &ANYWHERE, node_spec(4)).await;
    let _machine = Machine::start(&world, machine).await;
    let mut person = Person::connect(&world).await;
    let greedy = spec(&world, |s| {
        s.resources.gpus = MilliGpu(2000);
        s.gpu.models = vec!["A100".into(), "H100".into()];
        s.amounts = vec![Amount::new("license", 1).unwrap()];
    });
    person.submit(&world, &greedy, &[b"x"]).await;
    let results = soon("the refusal", person.results(&world, 1)).await;
    let exit = results[0].0.exit.clone().unwrap();
    assert_eq!(exit.kind(), v1::ExitKind::Infeasible);
    for lack in [
        "has no GPU, the task needs 2 of A100 or H100",
        "has no license, the task needs 1",
    ] {
        assert!(exit.message.contains(lack), "{}", exit.message);
    }
}

#[tokio::test]
async fn a_contradiction_is_refused_with_both_sides() {
    let world = World::start().await;
    let _machine = Machine::join(&world, 4).await;
    let mut person = Person::connect(&world).await;
    let twisted = spec(&world, |s| {
        s.node.labels = vec![
            LabelRule::equals("disk", "nvme"),
            LabelRule {
                key: "disk".into(),
                demand: Demand::Absent,
            },
        ]
    });
    person.submit(&world, &twisted, &[b"x"]).await;
    loop {
        if let Down::Submitted(ack) = person.next().await {
            let said = &ack.refused[0].message;
            assert!(
                said.contains("label disk=nvme and label disk absent"),
                "{said}"
            );
            break;
        }
    }
}

#[tokio::test]
async fn each_task_is_told_its_own_gpu_and_the_next_one_that_of_the_first() {
    let world = World::start().await;
    let card = |id: &str| Device {
        kind: DeviceKind::Gpu { cuda_cores: 6912 },
        model: "NVIDIA A100-SXM4-40GB".into(),
        memory: ByteCount::gib(40),
        tdp_watts: 400,
        id: id.into(),
        measured: None,
    };
    let mut with_cards = node_spec(4);
    with_cards.devices = vec![card("GPU-a"), card("GPU-b")];
    let kept = Machine::enrolled(&world, &ANYWHERE, with_cards).await;
    let mut machine = Machine::start(&world, kept).await;
    let mut person = Person::connect(&world).await;
    let on_gpu = spec(&world, |s| {
        s.resources.cpus.0 = 100;
        s.resources.gpus = MilliGpu(1000);
        s.gpu.models = vec!["A100".into()];
    });
    person.submit(&world, &on_gpu, &[b"a", b"b", b"c"]).await;
    let tasks = [1, 2, 3].map(|seq| person.task(seq));
    let agent = tokio::spawn(async move {
        let ready = machine.ready(3).await;
        let gpus = |machine: &Machine| {
            tasks.map(|task| machine.assigned.get(&task).map(|a| a.devices.clone()))
        };
        let mut held = gpus(&machine).map(Option::unwrap);
        held.sort();
        assert_eq!(
            held,
            [vec![], vec![0], vec![1]],
            "the third waits behind them"
        );
        let second = ready
            .iter()
            .find(|at| machine.assigned[&at.task].devices == [1])
            .copied();
        let waits = ready
            .iter()
            .find(|at| machine.assigned[&at.task].devices.is_empty())
            .copied();
        machine.complete(&[second.unwrap()]).await;
        while machine.assigned[&waits.unwrap().task].devices.is_empty() {
            machine.frame().await;
        }
        assert_eq!(machine.assigned[&waits.unwrap().task].devices, [1]);
        let rest: Vec<_> = ready
            .iter()
            .filter(|at| **at != second.unwrap())
            .copied()
            .collect();
        machine.complete(&rest).await;
        machine
    });
    let results = soon("the results", person.results(&world, 3)).await;
    assert!(
        results
            .iter()
            .all(|(result, _)| exit_kind(result) == v1::ExitKind::Returned)
    );
    agent.await.unwrap();
}

#[tokio::test]
async fn a_task_stays_where_it_must_and_is_told_when_nobody_is_there() {
    let world = World::start().await;
    let join = async |world: &World| {
        let kept = Machine::enrolled(world, &ANYWHERE, node_spec(4)).await;
        Machine::start(world, kept).await
    };
    let (first, mut second) = (join(&world).await, join(&world).await);
    first.beat();
    second.beat();
    let mut person = Person::connect(&world).await;
    let on = |node| spec(&world, move |s| s.node.keep_on = vec![node]);
    let there = on(second.node);
    let explained = explain(&mut person, &there).await;
    assert!(
        explained.summary.contains("; its keep_on allows "),
        "{}",
        explained.summary
    );
    person.submit(&world, &there, &[b"a", b"b", b"c"]).await;
    let agent = tokio::spawn(async move {
        let ready = second.ready(3).await;
        second.complete(&ready).await;
        second
    });
    soon("the results", person.results(&world, 3)).await;
    agent.await.unwrap();
    // Nobody was asked to grant it anywhere else.
    assert!(first.assigned.is_empty());
    let nowhere = on(farlane_model::NodeId([9; 32]));
    person.submit(&world, &nowhere, &[b"d"]).await;
    let results = soon("the refusal", person.results(&world, 1)).await;
    let exit = results[0].0.exit.clone().unwrap();
    assert_eq!(exit.kind(), v1::ExitKind::Infeasible);
    assert!(
        exit.message.contains("submit it without keep_on"),
        "{}",
        exit.message
    );
}

#[tokio::test]
async fn nobody_learns_of_runs_that_were_not() {
    let world = World::start().await;
    let kept = Machine::enrolled(&world, &[("disk", "nvme")], node_spec(1)).await;
    let mut machine = Machine::start(&world, kept).await;
    let kept = Machine::enrolled(&world, &[], node_spec(1)).await;
    let mut liar = Machine::start(&world, kept).await;
    let mut person = Person::connect(&world).await;
    let asked = spec(&world, |_| {});
    person.submit(&world, &asked, &[b"x"]).await;
    let mut api = person::api(&world).await;
    let mut expected = async || {
        let request = v1::ExplainRequest {
            spec_bytes: asked.to_canonical().into(),
            ..Default::default()
        };
        let reply = api.explain(with_key(request, &world.key)).await;
        let mut terms = reply.unwrap().into_inner().terms.into_iter();
        let run = terms.find(|term| term.name == "run").unwrap().detail;
        let seconds = run.split_once(' ').unwrap().0;
        seconds.parse::<f64>().unwrap()
    };
    const YEARS: u64 = 100_000_000_000;
    let guess = expected().await;
    let drive = async {
        let ready = machine.ready(1).await;
        let session = ready[0].task.session();
        // Another one says that it ran that attempt, for years.
        let lie = v1::Completion {
            attempt: Some(ready[0].into()),
            exit: Some(Exit::plain(ExitKind::Raised).into()),
            ended_ms: wall().0 + YEARS,
            ..Default::default()
        };
        let leaf = batch::leaf(&ready[0], ExitKind::Raised, None);
        let lie = liar.signed(session, vec![(lie, leaf)]);
        liar.report(lie).await;
        assert_eq!(expected().await, guess);
        // So does the one that ran it.
        let (mut completion, leaf) = machine.run(ready[0]);
        completion.ended_ms += YEARS;
        let done = machine.signed(session, vec![(completion, leaf)]);
        machine.report(done).await;
        let learned = expected().await;
        assert!(learned != guess && learned < 60.0, "{learned}");
    };
    let both = async { tokio::join!(person.results(&world, 1), drive) };
    soon("the result", both).await;
}
