//! Whose blobs are, and what a full store says.

use bytes::Bytes;
use farlane_model::{BlobRef, Digest, Exit, ExitKind, LostCause};
use farlane_runtime::Shutdown;
use farlane_seal::{StreamContext, StreamKind, TaskKey, batch, stream};
use farlane_server::{MemberConfig, Server, ServerConfig};
use farlane_store::{NewKey, Scopes};
use farlane_units::{ByteCount, Millis};
use farlane_wire::v1::session_frame::Body as Down;
use farlane_wire::{ErrorCode, id, v1};
use tonic::Status;

use crate::access::{accounts, code, key};
use crate::machine::{Machine, node_spec};
use crate::person::{self, Api, Person, spec, with_key};
use crate::world::{World, soon, wall};

fn sealed(world: &World, bytes: usize) -> Bytes {
    let tenant = world.tenant.public().tenant();
    let context = StreamContext::blob(StreamKind::Code, tenant);
    let plain: Vec<u8> = (0..bytes).map(|i| (i * 31 % 251) as u8).collect();
    stream::seal_padded(&TaskKey::generate(), &context, &plain).into()
}

fn name(data: &Bytes) -> BlobRef {
    BlobRef {
        digest: Digest::of(data),
        size: ByteCount(data.len() as u64),
    }
}

fn chunks(data: &Bytes) -> Vec<v1::BlobChunk> {
    let most = farlane_wire::hello::BLOB_CHUNK;
    let chunk = |(i, part): (usize, &[u8])| v1::BlobChunk {
        blob: (i == 0).then(|| name(data).into()),
        offset: (i * most) as u64,
        data: data.slice_ref(part),
    };
    data.chunks(most).enumerate().map(chunk).collect()
}

async fn put(api: &mut Api, key: &str, data: &Bytes) -> Result<bool, Status> {
    let request = with_key(tokio_stream::iter(chunks(data)), key);
    Ok(api.put_blob(request).await?.into_inner().already_there)
}

async fn get(api: &mut Api, key: &str, digest: Digest) -> Result<Vec<u8>, Status> {
    let request = v1::GetBlobRequest {
        digest: id::digest_bytes(&digest),
        ..Default::default()
    };
    let mut down = api.get_blob(with_key(request, key)).await?.into_inner();
    let mut all = Vec::new();
    while let Some(chunk) = down.message().await? {
        all.extend_from_slice(&chunk.data);
    }
    Ok(all)
}

#[tokio::test]
async fn several_servers_that_would_not_share_do_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = ServerConfig::new(dir.path().join("server"));
    config.members = ["https://a:7443", "https://b:7443"]
        .into_iter()
        .zip(1..)
        .map(|(url, id)| MemberConfig {
            id,
            url: url.into(),
            region: String::new(),
        })
        .collect();
    let refused = |config: &ServerConfig| {
        let config = config.clone();
        async { Server::start(config, Shutdown::new()).await.err().unwrap() }
    };
    let error = refused(&config).await;
    assert!(error.to_string().contains("postgres://"), "{error}");
    config.database = "postgres://farlane@db.invalid/farlane".into();
    let error = refused(&config).await;
    assert!(error.to_string().contains("blobs_shared"), "{error}");
    assert!(!config.data.exists(), "nothing was begun");
}

/// A key of a project beside the founder's.
pub async fn another_projects_key(world: &World) -> String {
    let store = accounts(world).await;
    let project = store.projects().ensure("other", wall()).await.unwrap();
    let new = NewKey {
        project: project.id,
        name: "other".into(),
        scopes: Scopes::all(),
        expires: wall().saturating_add(Millis(3_600_000)),
    };
    let (_, secret) = store.keys().create(new, wall()).await.unwrap();
    secret.reveal().to_owned()
}

#[tokio::test]
async fn a_digest_opens_a_blob_to_its_own_project_and_to_nodes() {
    let world = World::start().await;
    let mut machine = Machine::join(&world, 4).await;
    let other = another_projects_key(&world).await;
    let mut api = person::api(&world).await;
    let data = sealed(&world, 300_000);
    let digest = name(&data).digest;
    assert!(!put(&mut api, &world.key, &data).await.unwrap());
    assert!(put(&mut api, &world.key, &data).await.unwrap());
    let refused = get(&mut api, &other, digest).await.unwrap_err();
    assert_eq!(code(&refused), Some(ErrorCode::UnknownBlob));
    assert_eq!(get(&mut api, &world.key, digest).await.unwrap(), data);
    // Whoever may only submit fetches its own large results; whoever may neither, nothing.
    let submit = key(&world, &["submit"], 0).await;
    assert_eq!(get(&mut api, &submit, digest).await.unwrap(), data);
    let network = key(&world, &["network"], 0).await;
    let refused = get(&mut api, &network, digest).await.unwrap_err();
    assert_eq!(code(&refused), Some(ErrorCode::PermissionDenied));
    let request = v1::GetBlobRequest {
        digest: id::digest_bytes(&digest),
        ..Default::default()
    };
    let mut down = machine.fleet.get_blob(request).await.unwrap().into_inner();
    assert!(down.message().await.unwrap().is_some());
    // Another project neither learns that it is here nor gets it by naming it.
    assert!(!put(&mut api, &other, &data).await.unwrap());
    assert_eq!(get(&mut api, &other, digest).await.unwrap(), data);
}

#[tokio::test]
async fn a_large_result_is_its_projects_once_the_attempt_completes() {
    let world = World::start().await;
    let mut machine = Machine::join(&world, 4).await;
    let other = another_projects_key(&world).await;
    let mut person = Person::connect(&world).await;
    let spec = spec(&world, |_| {});
    person.submit(&world, &spec, &[b"x"]).await;
    let request = person.request().await;
    let grants = person.grants(&world, &request);
    person.send(v1::client_frame::Body::Grant(grants)).await;
    let ready = machine.ready(1).await;

    let result = sealed(&world, 300_000);
    let digest = name(&result).digest;
    let upload = tokio_stream::iter(chunks(&result));
    machine.fleet.put_blob(upload).await.unwrap();
    let mut api = person.api.clone();
    let early = get(&mut api, &world.key, digest).await.unwrap_err();
    assert_eq!(code(&early), Some(ErrorCode::UnknownBlob));

    let (mut completion, _) = machine.run(ready[0]);
    completion.exit = Some(Exit::plain(ExitKind::Returned).into());
    completion.sealed = Some(v1::Sealed {
        place: Some(v1::sealed::Place::Blob(name(&result).into())),
    });
    let leaf = batch::leaf(&ready[0], ExitKind::Returned, Some(&digest));
    let signed = machine.signed(person.session, vec![(completion, leaf)]);
    machine.report(signed).await;
    let results = soon("the result", async {
        loop {
            if let Down::Results(batch) = person.next().await {
                return batch;
            }
        }
    })
    .await;
    assert_eq!(results.results.len(), 1);
    assert_eq!(get(&mut api, &world.key, digest).await.unwrap(), result);
    let refused = get(&mut api, &other, digest).await.unwrap_err();
    assert_eq!(code(&refused), Some(ErrorCode::UnknownBlob));
}

#[tokio::test]
async fn bounds_of_a_project_and_of_the_network_are_told_apart() {
    let world = World::start_with(|config| {
        config.blob_project = ByteCount(500_000);
        config.blob_total = ByteCount(800_000);
    })
    .await;
    let other = another_projects_key(&world).await;
    let mut api = person::api(&world).await;
    let data: Vec<Bytes> = (0..3).map(|_| sealed(&world, 300_000)).collect();
    put(&mut api, &world.key, &data[0]).await.unwrap();
    let refused = put(&mut api, &world.key, &data[1]).await.unwrap_err();
    assert_eq!(code(&refused), Some(ErrorCode::QuotaExceeded));
    assert!(refused.message().contains("blob_project"), "{refused}");
    put(&mut api, &other, &data[1]).await.unwrap();
    let refused = put(&mut api, &other, &data[2]).await.unwrap_err();
    assert_eq!(code(&refused), Some(ErrorCode::StorageFull));
    let bound = ByteCount(800_000).to_string();
    for part in ["blob store is full", "blob_total", &bound] {
        assert!(refused.message().contains(part), "{refused}");
    }
    // What is there already takes no room.
    assert!(put(&mut api, &other, &data[1]).await.unwrap());
}

#[tokio::test]
async fn what_a_machine_was_given_need_not_be_moved_there_again() {
    let world = World::start().await;
    let kept = Machine::enrolled(&world, &[("disk", "nvme")], node_spec(4)).await;
    let mut machine = Machine::start(&world, kept).await;
    let mut person = Person::connect(&world).await;
    let data = sealed(&world, 300_000);
    put(&mut person.api, &world.key, &data).await.unwrap();
    let asked = spec(&world, |s| s.code = name(&data));
    let transfer = async |person: &mut Person| {
        let request = v1::ExplainRequest {
            spec_bytes: asked.to_canonical().into(),
            ..Default::default()
        };
        let reply = person.api.explain(with_key(request, &person.key)).await;
        let mut terms = reply.unwrap().into_inner().terms.into_iter();
        terms.find(|term| term.name == "transfer").unwrap()
    };
    let before = transfer(&mut person).await;
    assert!(
        before.usd_picos > 0 && !before.detail.contains("already"),
        "{before:?}"
    );
    let request = v1::GetBlobRequest {
        digest: id::digest_bytes(&name(&data).digest),
        ..Default::default()
    };
    let mut down = machine.fleet.get_blob(request).await.unwrap().into_inner();
    while down.message().await.unwrap().is_some() {}
    soon("what it holds", async {
        loop {
            let now = transfer(&mut person).await;
            if now.detail.contains("there already") {
                assert_eq!(now.usd_picos, 0, "{now:?}");
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn no_machine_unsays_what_another_was_given() {
    let world = World::start_with(|config| config.region = "us-east".into()).await;
    let kept = Machine::enrolled(&world, &[("disk", "nvme")], node_spec(1)).await;
    let mut machine = Machine::start(&world, kept).await;
    let kept = Machine::enrolled(&world, &[], node_spec(1)).await;
    let mut liar = Machine::start(&world, kept).await;
    let mut person = Person::connect(&world).await;
    let data = sealed(&world, 300_000);
    put(&mut person.api, &world.key, &data).await.unwrap();
    let asked = spec(&world, |s| s.code = name(&data));
    person.submit(&world, &asked, &[&[7; 100]]).await;
    let digest = id::digest_bytes(&name(&data).digest);
    let agents = tokio::spawn(async move {
        let ready = machine.ready(1).await;
        let request = v1::GetBlobRequest {
            digest,
            attempt: Some(ready[0].into()),
            ..Default::default()
        };
        let mut down = machine.fleet.get_blob(request).await.unwrap().into_inner();
        while down.message().await.unwrap().is_some() {}
        // Another one says that it ran that attempt.
        let lost = ExitKind::Lost(LostCause::OutOfMemory);
        let lie = v1::Completion {
            attempt: Some(ready[0].into()),
            exit: Some(Exit::plain(lost).into()),
            ..Default::default()
        };
        let leaf = batch::leaf(&ready[0], lost, None);
        let lie = liar.signed(ready[0].task.session(), vec![(lie, leaf)]);
        liar.report(lie).await;
        machine.complete(&ready).await;
        (machine, liar)
    });
    let results = soon("the result", person.results(&world, 1)).await;
    agents.await.unwrap();
    let moved = results[0].0.moved_bytes;
    assert!(moved > data.len() as u64, "{moved}");
}
