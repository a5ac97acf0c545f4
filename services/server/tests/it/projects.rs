//! Who may set what a project is due, that no quota is ever passed, and that weights share what there is.

use std::time::Duration;

use farlane_model::{Gang, GangRegions, Measured, ProjectId, REFERENCE, TaskId};
use farlane_store::{NewKey, Scopes};
use farlane_units::{MilliCpu, Millis};
use farlane_wire::{ErrorCode, id, v1};
use futures_util::future::join_all;

use crate::access::{accounts, code, key};
use crate::machine::{Machine, node_spec};
use crate::person::{self, Api, Person, spec, with_key};
use crate::world::{World, soon, wall};

/// Most tasks at once in the tests.
const QUOTA: u64 = 8;

fn request(
    project: ProjectId,
    after: u64,
    weight: u32,
    tasks: Option<u64>,
) -> v1::SetProjectRequest {
    v1::SetProjectRequest {
        project: id::project_bytes(&project),
        after,
        settings: Some(v1::ProjectSettings {
            weight,
            max_tasks: tasks,
            ..Default::default()
        }),
    }
}

async fn set(
    world: &World,
    project: ProjectId,
    weight: u32,
    tasks: Option<u64>,
) -> v1::ProjectView {
    let mut api = person::api(world).await;
    let request = request(project, 0, weight, tasks);
    let reply = api.set_project(with_key(request, &world.key)).await;
    reply.unwrap().into_inner().project.unwrap()
}

async fn list(api: &mut Api, key: &str) -> Vec<v1::ProjectView> {
    let request = with_key(v1::ListProjectsRequest {}, key);
    api.list_projects(request)
        .await
        .unwrap()
        .into_inner()
        .projects
}

/// A machine with so many cores that takes nothing ahead of them.
async fn machine(world: &World, cores: u32) -> Machine {
    let mut spec = node_spec(0);
    spec.cpus = MilliCpu(cores * 1000);
    let kept = Machine::enrolled(world, &[("disk", "nvme")], spec).await;
    let machine = Machine::start(world, kept).await;
    // Many clients take longer to connect than a lease lasts.
    machine.beat();
    machine
}

/// Another project, and a key of it.
async fn another(world: &World) -> (ProjectId, String) {
    let store = accounts(world).await;
    let project = store.projects().ensure("other", wall()).await.unwrap().id;
    let new = NewKey {
        project,
        name: "other".into(),
        scopes: Scopes::from_words(["submit", "read", "admin"]).unwrap(),
        expires: wall().saturating_add(Millis(3_600_000)),
    };
    let (_, secret) = store.keys().create(new, wall()).await.unwrap();
    (project, secret.reveal().to_owned())
}

#[tokio::test]
async fn what_is_due_to_a_project_is_the_networks_to_say() {
    let world = World::start().await;
    let mut api = person::api(&world).await;
    let (other, others) = another(&world).await;
    let admin = key(&world, &["submit", "read", "admin"], 0).await;
    for (key, project) in [(&admin, world.project), (&others, other)] {
        let denied = api
            .set_project(with_key(request(project, 0, 5000, None), key))
            .await;
        let denied = denied.unwrap_err();
        assert_eq!(code(&denied), Some(ErrorCode::PermissionDenied));
        assert!(denied.message().contains("network"), "{}", denied.message());
    }
    let names = |views: &[v1::ProjectView]| -> Vec<String> {
        views.iter().map(|v| v.name.clone()).collect()
    };
    // A project sees itself; the network's key sees all.
    assert_eq!(names(&list(&mut api, &others).await), ["other"]);
    assert_eq!(list(&mut api, &world.key).await.len(), 2);

    let view = set(&world, other, 3000, Some(7)).await;
    let settings = view.settings.unwrap();
    assert_eq!((settings.weight, settings.max_tasks), (3000, Some(7)));
    assert_eq!(list(&mut api, &others).await[0].revision, view.revision);
    let again = request(other, 0, 1, None);
    let stale = api.set_project(with_key(again, &world.key)).await;
    assert_eq!(code(&stale.unwrap_err()), Some(ErrorCode::Stale));
    let nobody = request(ProjectId::new(1, [1; 10]), 0, 1, None);
    let unknown = api.set_project(with_key(nobody, &world.key)).await;
    assert!(unknown.unwrap_err().message().contains("no such project"));
    let weightless = request(other, view.revision, 0, None);
    let invalid = api.set_project(with_key(weightless, &world.key)).await;
    assert_eq!(
        code(&invalid.unwrap_err()),
        Some(ErrorCode::InvalidArgument)
    );
    let audit = accounts(&world).await;
    let lines = audit.audit().list(Millis(u64::MAX), 100).await.unwrap();
    let told: Vec<_> = lines.iter().filter(|l| l.action == "project.set").collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].detail.contains("weight 1000") && told[0].detail.contains("weight 3000"));
}

/// 64 clients submit at once; the machine has room for all of it. It holds back until it has as many as the quota
/// lets it have, and then sees that no more comes.
#[tokio::test]
async fn sixty_four_submitters_never_pass_their_quota() {
    let world = World::start().await;
    let mut machine = machine(&world, 256).await;
    set(&world, world.project, 1000, Some(QUOTA)).await;
    let task = spec(&world, |_| {});
    let mut people = Vec::new();
    for _ in 0..64 {
        people.push(Person::connect(&world).await);
    }
    let mut api = person::api(&world).await;
    let submit = join_all(people.iter_mut().map(async |person| {
        person.submit(&world, &task, &[b"a", b"b"]).await;
        person.results(&world, 2).await.len()
    }));
    let drive = async {
        let (mut most, mut done) = (0, 0);
        while done < 128 {
            let ready = soon("the quota's worth", machine.ready(QUOTA as usize)).await;
            let pause = tokio::time::timeout(Duration::from_millis(100), async {
                loop {
                    machine.frame().await;
                }
            });
            assert!(pause.await.is_err());
            most = most.max(machine.assigned.len());
            let held = list(&mut api, &world.key).await[0].tasks;
            assert_eq!((machine.assigned.len() as u64, held), (QUOTA, QUOTA));
            for attempt in ready {
                machine.complete(&[attempt]).await;
                done += 1;
            }
        }
        most
    };
    let (results, most) = tokio::join!(submit, drive);
    assert_eq!(results, vec![2; 64]);
    assert_eq!(most as u64, QUOTA, "overshoot 0");
}

#[tokio::test]
async fn what_waits_for_its_quota_says_so_and_goes_on_when_it_is_raised() {
    let world = World::start().await;
    let mut machine = machine(&world, 4).await;
    let view = set(&world, world.project, 1000, Some(0)).await;
    let mut person = Person::connect(&world).await;
    person.submit(&world, &spec(&world, |_| {}), &[b"x"]).await;
    let mut api = person::api(&world).await;
    let explain = v1::ExplainRequest {
        task: id::task_bytes(&person.task(1)),
        ..Default::default()
    };
    let explained = loop {
        // Known once it is submitted.
        match api.explain(with_key(explain.clone(), &world.key)).await {
            Ok(reply) => break reply.into_inner(),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let said = "waits for its project's quota: at most 0 tasks at once";
    assert!(explained.summary.starts_with(said), "{explained:?}");
    assert_eq!(explained.starts_in_ms, None);
    assert_eq!(explained.starts_because, "its project is paused");
    let raise = request(world.project, view.revision, 1000, Some(1));
    api.set_project(with_key(raise, &world.key)).await.unwrap();
    let drive = async {
        let ready = machine.ready(1).await;
        machine.complete(&ready).await;
    };
    let (results, ()) = soon("the result", async {
        tokio::join!(person.results(&world, 1), drive)
    })
    .await;
    assert_eq!(results.len(), 1);
}

/// What is set of the project of the tests.
async fn bound(world: &World, settings: v1::ProjectSettings) -> v1::ProjectView {
    let mut api = person::api(world).await;
    let known = list(&mut api, &world.key).await;
    let request = v1::SetProjectRequest {
        project: id::project_bytes(&world.project),
        after: known[0].revision,
        settings: Some(v1::ProjectSettings {
            weight: 1000,
            ..settings
        }),
    };
    let reply = api.set_project(with_key(request, &world.key)).await;
    reply.unwrap().into_inner().project.unwrap()
}

/// A machine whose cores are two of the reference node each.
async fn measured_machine(world: &World, cores: u32) -> Machine {
    let mut spec = node_spec(0);
    spec.cpus = MilliCpu(cores * 1000);
    let rate = REFERENCE.fp32 * 2 * u64::from(cores);
    spec.measured = Some(Measured::even(cores, rate));
    let kept = Machine::enrolled(world, &[("disk", "nvme")], spec).await;
    let machine = Machine::start(world, kept).await;
    machine.beat();
    machine
}

/// What is said of a task, once it is known.
async fn said(world: &World, task: TaskId) -> String {
    let mut api = person::api(world).await;
    let request = v1::ExplainRequest {
        task: id::task_bytes(&task),
        ..Default::default()
    };
    loop {
        match api.explain(with_key(request.clone(), &world.key)).await {
            Ok(reply) => return reply.into_inner().summary,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test]
async fn units_at_once_are_those_of_the_machines_that_are_held() {
    let world = World::start().await;
    let mut machine = measured_machine(&world, 8).await;
    let five = v1::ProjectSettings {
        max_milli_ucu: Some(5000),
        ..Default::default()
    };
    bound(&world, five).await;
    let mut person = Person::connect(&world).await;
    let task = spec(&world, |_| {});
    person.submit(&world, &task, &[b"a", b"b", b"c"]).await;
    let mut api = person::api(&world).await;
    let third = person.task(3);
    // Two of three, of two units each, though there is room for eight.
    let drive = async {
        let ready = machine.ready(2).await;
        let pause = tokio::time::timeout(Duration::from_millis(300), machine.frame());
        assert!(pause.await.is_err());
        assert_eq!(list(&mut api, &world.key).await[0].milli_ucu, 4000);
        let waits = "waits for its project's quota: at most 5 UCU at once, 4 UCU held";
        let summary = said(&world, third).await;
        assert!(summary.starts_with(waits), "{summary}");
        let when = "starts in about 1 s: 2 of its project were placed in the last 10 minutes";
        assert!(summary.ends_with(when), "{summary}");
        // A bound of nothing pauses it, whatever it still holds.
        let none = v1::ProjectSettings {
            max_tasks: Some(0),
            ..five
        };
        bound(&world, none).await;
        let summary = said(&world, third).await;
        assert!(summary.ends_with("its project is paused"), "{summary}");
        bound(&world, five).await;
        machine.complete(&ready).await;
        let last = machine.ready(1).await;
        machine.complete(&last).await;
    };
    let both = async { tokio::join!(person.results(&world, 3), drive) };
    let (results, ()) = soon("results", both).await;
    assert_eq!(results.len(), 3);
    assert_eq!(list(&mut api, &world.key).await[0].milli_ucu, 0);
}

#[tokio::test]
async fn what_is_larger_than_its_quota_fails_at_once_and_says_what_would_do() {
    let world = World::start().await;
    let mut machine = measured_machine(&world, 8).await;
    let tight = v1::ProjectSettings {
        max_milli_cpus: Some(3000),
        max_milli_ucu: Some(5000),
        ..Default::default()
    };
    bound(&world, tight).await;
    let mut person = Person::connect(&world).await;
    let wide = spec(&world, |s| s.resources.cpus = MilliCpu(4000));
    let units = spec(&world, |s| s.resources.cpus = MilliCpu(3000));
    let gang = spec(&world, |s| {
        s.gang = Some(Gang {
            size: 4,
            regions: GangRegions::One,
        });
    });
    let fits = spec(&world, |s| s.resources.cpus = MilliCpu(2000));
    person.submit(&world, &wide, &[b"a"]).await;
    person.submit(&world, &units, &[b"b"]).await;
    person.submit(&world, &gang, &[&b"c"[..]; 4]).await;
    person.submit(&world, &fits, &[b"d"]).await;
    let drive = async {
        let ready = machine.ready(1).await;
        machine.complete(&ready).await;
    };
    let both = async { tokio::join!(person.results(&world, 7), drive) };
    let (results, ()) = soon("results", both).await;
    let exits: Vec<String> = results
        .iter()
        .filter_map(|r| r.0.exit.as_ref())
        .map(|exit| exit.message.clone())
        .collect();
    for why in [
        "it asks for 4 cores, and its project may hold 3 cores at once; smallest change: num_cpus 4 → 3",
        "it takes at least 6 UCU, and its project may hold 5 UCU at once; smallest change: num_cpus 3 → 2.5",
        "a gang of 4 asks for 4 cores, and its project may hold 3 cores at once; smallest change: a gang of 3",
    ] {
        assert!(exits.iter().any(|e| e.starts_with(why)), "{exits:?}");
    }
    assert_eq!(exits.iter().filter(|e| e.is_empty()).count(), 1);
    // Nothing is no bound that could be too small: it pauses, and what it stops waits.
    let paused = v1::ProjectSettings {
        max_milli_cpus: Some(0),
        ..Default::default()
    };
    bound(&world, paused).await;
    person.submit(&world, &wide, &[b"e"]).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let summary = said(&world, person.task(8)).await;
    let waits = "waits for its project's quota: at most 0 cores at once";
    assert!(summary.starts_with(waits), "{summary}");
    let paused = v1::ProjectSettings {
        max_milli_ucu: Some(0),
        ..Default::default()
    };
    bound(&world, paused).await;
    let summary = said(&world, person.task(8)).await;
    assert!(summary.ends_with("its project is paused"), "{summary}");
}

/// Two projects with weights of 3 to 1 and more work than there is room: of 16 cores, 12 and 4 at any time.
#[tokio::test]
async fn weights_share_what_there_is() {
    let mut world = World::start().await;
    let mut machine = machine(&world, 16).await;
    let (other, others) = another(&world).await;
    set(&world, other, 3000, None).await;
    let plain = spec(&world, |_| {});
    let theirs = spec(&world, |s| s.project = other);
    let mut mine = Person::connect(&world).await;
    let own = std::mem::replace(&mut world.key, others);
    let mut guest = Person::connect(&world).await;
    world.key = own;
    let payloads = [&b"x"[..]; 160];
    mine.submit(&world, &plain, &payloads).await;
    guest.submit(&world, &theirs, &payloads).await;
    let session = guest.task(1).session();
    let mut shares = Vec::new();
    let drive = async {
        // What came first had the machine to itself: two rounds later both are there.
        for round in 0..9 {
            let ready = machine.ready(16).await;
            let guests = ready.iter().filter(|a| a.task.session() == session).count();
            if round > 1 {
                shares.push(guests);
            }
            let (a, b): (Vec<_>, Vec<_>) =
                ready.into_iter().partition(|a| a.task.session() == session);
            for some in [a, b] {
                if !some.is_empty() {
                    machine.complete(&some).await;
                }
            }
        }
    };
    tokio::select! {
        () = drive => {}
        _ = mine.results(&world, 160) => unreachable!(),
        _ = guest.results(&world, 160) => unreachable!(),
    }
    let (sum, rounds) = (shares.iter().sum::<usize>(), shares.len());
    // Twelve of sixteen, within 5 %.
    let error = (sum as f64 / (rounds * 12) as f64 - 1.0).abs();
    assert!(error <= 0.05, "{shares:?}");
}

#[tokio::test]
async fn a_project_is_made_by_the_network_and_owned_by_who_uses_it_first() {
    let world = World::start().await;
    let mut api = person::api(&world).await;
    let admin = key(&world, &["submit", "read", "admin"], 0).await;
    let name = |name: &str| v1::CreateProjectRequest { name: name.into() };
    let denied = api.create_project(with_key(name("lab"), &admin)).await;
    assert_eq!(
        code(&denied.unwrap_err()),
        Some(ErrorCode::PermissionDenied)
    );
    let made = api.create_project(with_key(name("lab"), &world.key)).await;
    let made = made.unwrap().into_inner().project.unwrap();
    assert_eq!((made.name.as_str(), made.revision), ("lab", 0));
    for wrong in ["lab", "", "two\nlines"] {
        let refused = api.create_project(with_key(name(wrong), &world.key)).await;
        let refused = refused.unwrap_err();
        assert_eq!(code(&refused), Some(ErrorCode::InvalidArgument), "{wrong}");
    }
    let wish = |project: ProjectId| v1::CreateKeyRequest {
        name: "first".into(),
        scopes: vec!["submit".into(), "read".into()],
        project: id::project_bytes(&project),
        ..Default::default()
    };
    let lab = id::project(&made.project).unwrap();
    let denied = api.create_key(with_key(wish(lab), &admin)).await;
    let denied = denied.unwrap_err();
    assert!(denied.message().contains("network"), "{}", denied.message());
    let nobody = wish(ProjectId::new(1, [1; 10]));
    let unknown = api.create_key(with_key(nobody, &world.key)).await;
    assert!(unknown.unwrap_err().message().contains("no such project"));
    let first = api.create_key(with_key(wish(lab), &world.key)).await;
    let first = first.unwrap().into_inner().secret;
    // Its key sees it, and no other.
    let seen: Vec<String> = list(&mut api, &first)
        .await
        .into_iter()
        .map(|v| v.name)
        .collect();
    assert_eq!(seen, ["lab"]);
}
