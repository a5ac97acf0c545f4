//! Grants that come with their submission.

use farlane_model::AttemptRef;
use farlane_units::MilliCpu;
use farlane_wire::v1;
use farlane_wire::v1::client_frame::Body as Up;
use farlane_wire::v1::session_frame::Body as Down;

use crate::machine::Machine;
use crate::person::{Person, spec};
use crate::world::World;

#[tokio::test]
async fn what_is_granted_with_its_submission_is_asked_for_only_where_it_is_placed_elsewhere() {
    let world = World::start().await;
    let mut machine = Machine::join(&world, 16).await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    person.submit(&world, &spec, &[b"first"]).await;
    let asked = person.request().await;
    let first = person.grants(&world, &asked);
    person.send(Up::Grant(first)).await;
    let first = machine.ready(1).await;
    machine.complete(&first).await;
    let results = person.results(&world, 1).await;
    assert_eq!(results.len(), 1);

    // Under the context that the machine knows: nobody is asked.
    let ahead = |person: &mut Person, context| {
        let mut batch = person.batch(&world, &spec, &[b"ahead"]);
        let task = person.task(batch.first_seq);
        let attempt = AttemptRef { task, ..first[0] };
        let mut likely = asked.clone();
        likely.tasks[0].attempt = Some(attempt.into());
        let mut grants = person.grants(&world, &likely);
        grants.context = context;
        batch.ahead = Some(grants);
        batch
    };
    let known = ahead(&mut person, asked.context);
    person.send(Up::Submit(known)).await;
    let ready = machine.ready(1).await;
    machine.complete(&ready).await;
    loop {
        match person.next().await {
            Down::GrantsWanted(request) => panic!("asked for {:?}", request.tasks),
            Down::Results(_) => break,
            _ => {}
        }
    }
    // Under another: the machine would not know it.
    let other = ahead(&mut person, asked.context + 1);
    person.send(Up::Submit(other)).await;
    let request = person.request().await;
    let grants = person.grants(&world, &request);
    person.send(Up::Grant(grants)).await;
    let ready = machine.ready(1).await;
    assert_eq!(ready[0].task, person.task(3));
    // More than may be: the stream ends.
    let mut many = ahead(&mut person, request.context);
    if let Some(ahead) = &mut many.ahead {
        ahead.attempts = vec![ahead.attempts[0].clone(); 17];
    }
    person.send(Up::Submit(many)).await;
    assert_eq!(person.refusal().await, "invalid_argument");
}

#[tokio::test]
async fn what_was_granted_ahead_for_one_machine_strands_nothing_on_another() {
    let world = World::start().await;
    let (one, two) = (
        Machine::join(&world, 0).await,
        Machine::join(&world, 0).await,
    );
    let mut person = Person::connect(&world).await;
    // Each machine has room for one.
    let spec = spec(&world, |spec| spec.resources.cpus = MilliCpu(2000));
    person.submit(&world, &spec, &[b"first"]).await;
    let asked = person.request().await;
    let first = person.grants(&world, &asked);
    person.send(Up::Grant(first)).await;
    let (mut likely, _other) = match asked.node == one.node.0[..] {
        true => (one, two),
        false => (two, one),
    };
    let first = likely.ready(1).await;
    likely.complete(&first).await;
    assert_eq!(person.results(&world, 1).await.len(), 1);

    // Two tasks, both granted ahead for the machine that ran the first; one of them has no room there.
    let mut batch = person.batch(&world, &spec, &[b"here", b"elsewhere"]);
    let mut ahead = asked.clone();
    ahead.tasks = (batch.first_seq..batch.first_seq + 2)
        .map(|seq| {
            let task = person.task(seq);
            let attempt = AttemptRef { task, ..first[0] };
            v1::GrantWanted {
                attempt: Some(attempt.into()),
                ..Default::default()
            }
        })
        .collect();
    batch.ahead = Some(person.grants(&world, &ahead));
    person.send(Up::Submit(batch)).await;
    let request = person.request().await;
    assert_ne!(
        request.node, asked.node,
        "only what lies elsewhere is asked for"
    );
    // Its granter refuses that machine: the task is placed anew, where it was granted first.
    person.refuse(&request, "not there").await;
    let ready = likely.ready(1).await;
    likely.complete(&ready).await;
    let mut again = loop {
        if let Down::GrantsWanted(request) = person.next().await {
            break request;
        }
    };
    assert_eq!(again.node, asked.node);
    let wanted = again.tasks.remove(0).attempt.unwrap();
    let refused = request.tasks[0].attempt.clone().unwrap();
    assert_eq!((wanted.task, wanted.attempt), (refused.task, 2));
}
