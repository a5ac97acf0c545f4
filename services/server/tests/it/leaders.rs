//! What a new leader owes to machines that it has never heard of.

use std::sync::Arc;
use std::time::Duration;

use farlane_wire::v1;
use farlane_wire::v1::client_frame::Body as Up;
use farlane_wire::v1::control_frame::Body as ToAgent;
use farlane_wire::v1::session_frame::Body as Down;

use crate::machine::Machine;
use crate::person::{Person, exit_kind, spec, with_key};
use crate::world::{World, soon};

/// Grants those tasks of a request that are in this attempt.
async fn grant(
    world: &World,
    person: &mut Person,
    request: v1::GrantRequest,
    attempt: u32,
) -> usize {
    let mut request = request;
    let of = |task: &v1::GrantWanted| task.attempt.as_ref().unwrap().attempt == attempt;
    request.tasks.retain(of);
    if !request.tasks.is_empty() {
        let grants = person.grants(world, &request);
        person.send(Up::Grant(grants)).await;
    }
    request.tasks.len()
}

#[tokio::test]
async fn what_the_last_leader_saw_no_grant_for_is_placed_again_and_what_was_granted_goes_on() {
    let mut world = World::start().await;
    let mut machine = Machine::join(&world, 0).await;
    let mut person = Person::connect(&world).await;
    // No retry is left: neither may be lost.
    let once = spec(&world, |s| s.retry.lost = 0);
    person.submit(&world, &once, &[b"granted"]).await;
    let request = person.request().await;
    assert_eq!(grant(&world, &mut person, request, 1).await, 1);
    let granted = machine.ready(1).await[0];
    person.submit(&world, &once, &[b"not granted"]).await;
    person.request().await;
    while machine.assigned.len() < 2 {
        machine.frame().await;
    }

    world.kill_and_restart().await;
    let mut machine = machine.reconnect(&world).await;
    machine.beat();
    let mut person = person.reconnect(&world).await;
    // Whatever is asked for the first attempts, nobody answers.
    loop {
        let request = person.request().await;
        if grant(&world, &mut person, request, 2).await > 0 {
            break;
        }
    }
    let ready = machine.ready(2).await;
    assert_eq!(ready[0], granted);
    assert_eq!((ready[1].task.seq(), ready[1].attempt), (2, 2));
    machine.complete(&ready).await;
    let results = soon("both results", person.results(&world, 2)).await;
    let returned = |(r, _): &(v1::TaskResult, _)| exit_kind(r) == v1::ExitKind::Returned;
    assert!(results.iter().all(returned), "{results:?}");
}

#[tokio::test]
async fn a_machine_that_went_with_the_last_leader_keeps_its_work_for_a_term_and_no_longer() {
    let mut world = World::start().await;
    let mut gone = Machine::join(&world, 0).await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    person.submit(&world, &spec, &[b"a"]).await;
    let request = person.request().await;
    grant(&world, &mut person, request, 1).await;
    gone.ready(1).await;
    drop(gone);

    world.kill_and_restart().await;
    let began = std::time::Instant::now();
    let mut other = Machine::join(&world, 0).await;
    other.beat();
    let mut person = person.reconnect(&world).await;
    let world = Arc::new(world);
    let shared = world.clone();
    let client = tokio::spawn(async move { person.results(&shared, 1).await });
    let ready = soon("the second attempt", other.ready(1)).await;
    assert_eq!(ready[0].attempt, 2);
    // Less what passed between the new leader's first moment and this clock's.
    assert!(began.elapsed() > Duration::from_secs(5), "a whole term");
    other.complete(&ready).await;
    let results = soon("the result", client).await.unwrap();
    assert_eq!(results[0].0.attempt.as_ref().unwrap().attempt, 2);
}

#[tokio::test]
async fn a_server_that_is_behind_says_nothing_to_an_agent_that_has_seen_more() {
    let world = World::start().await;
    let machine = Machine::join(&world, 0).await;
    let Machine {
        kept, boot, stock, ..
    } = machine;
    let mut person = Person::connect(&world).await;
    let request = with_key(v1::GetStatusRequest {}, &person.key);
    let status = person.api.get_status(request).await.unwrap().into_inner();
    let seen = status.applied_index + 20;
    let attach = Machine::attach(&world, kept, boot, stock, seen, v1::Observed::default());
    tokio::pin!(attach);
    let early = tokio::time::timeout(Duration::from_millis(500), &mut attach).await;
    assert!(early.is_err(), "it has not applied that far");
    let spec = spec(&world, |_| {});
    for _ in 0..20 {
        person.submit(&world, &spec, &[b"an entry"]).await;
        while !matches!(person.next().await, Down::Submitted(_)) {}
    }
    let Ok(mut machine) = attach.await else {
        panic!("it caught up")
    };
    loop {
        match machine.frame().await {
            ToAgent::Desired(desired) => {
                assert!(desired.index >= seen, "{} of {seen}", desired.index);
                return;
            }
            ToAgent::Assign(assign) => assert!(assign.index >= seen),
            _ => {}
        }
    }
}
