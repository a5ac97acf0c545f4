//! What a key opens, for how long, and how machines come in.

use farlane_model::{NodeId, SessionId};
use farlane_seal::record::NodeRecord;
use farlane_seal::{NodeIdentity, SessionKey};
use farlane_store::{Pepper, Store};
use farlane_units::Millis;
use farlane_wire::v1::client_frame::Body as Up;
use farlane_wire::v1::control_frame::Body as ToAgent;
use farlane_wire::v1::session_frame::Body as Down;
use farlane_wire::{ErrorCode, id, v1};
use tonic::Status;

use crate::enrolment::{self, enrol, token};
use crate::machine::Machine;
use crate::person::{self, Person, open, opening, spec, with_key};
use crate::world::{World, soon, wall};

/// A key of the founder's project.
pub async fn key(world: &World, scopes: &[&str], ttl_ms: u64) -> String {
    let request = v1::CreateKeyRequest {
        name: "test".into(),
        scopes: scopes.iter().map(|s| s.to_string()).collect(),
        ttl_ms,
        ..Default::default()
    };
    let mut api = person::api(world).await;
    let made = api.create_key(with_key(request, &world.key)).await;
    made.unwrap().into_inner().secret
}

/// Accounts, as the server has them.
pub async fn accounts(world: &World) -> Store {
    let pepper = Pepper::load_or_create(&world.folder().join("pepper")).unwrap();
    let url = format!("sqlite://{}", world.folder().join("accounts.db").display());
    Store::open(&url, pepper).await.unwrap()
}

pub fn code(status: &Status) -> Option<ErrorCode> {
    ErrorCode::of(status)
}

fn fresh_session() -> SessionId {
    SessionId::new(wall().0, farlane_seal::random::bytes::<5>())
}

#[tokio::test]
async fn a_projects_admin_rules_the_project_and_not_the_network() {
    let world = World::start().await;
    let admin = key(&world, &["submit", "read", "admin"], 0).await;
    let mut api = person::api(&world).await;
    let (_, record) = world.enrolment("eu-central");
    let hash = id::digest_bytes(&farlane_model::Digest::of(b"secret"));
    let make = v1::CreateJoinTokenRequest {
        secret_hash: hash.clone(),
        expires_ms: wall().0 + 60_000,
        enrolment_bytes: record.certificate().to_bytes(),
    };
    let revoke = v1::RevokeJoinTokenRequest {
        secret_hash: hash.clone(),
    };
    let remove = v1::RemoveNodeRequest {
        node: id::node_bytes(&NodeId([1; 32])),
        ..Default::default()
    };
    let more = v1::CreateKeyRequest {
        name: "more".into(),
        scopes: vec!["network".into()],
        ttl_ms: 0,
        ..Default::default()
    };
    let list = v1::ListJoinTokensRequest {};
    let refusals = [
        api.create_join_token(with_key(make.clone(), &admin))
            .await
            .err(),
        api.list_join_tokens(with_key(list, &admin)).await.err(),
        api.revoke_join_token(with_key(revoke.clone(), &admin))
            .await
            .err(),
        api.remove_node(with_key(remove.clone(), &admin))
            .await
            .err(),
        api.create_key(with_key(more, &admin)).await.err(),
    ];
    for refused in refusals {
        let refused = refused.unwrap();
        assert_eq!(code(&refused), Some(ErrorCode::PermissionDenied));
        assert!(
            refused.message().contains("network") || refused.message().contains("scopes"),
            "{refused}"
        );
    }
    // The founder's may, and may give the right on.
    let network = key(&world, &["network"], 0).await;
    let keys = api
        .list_keys(with_key(v1::ListKeysRequest {}, &admin))
        .await
        .unwrap();
    let ruling = |key: &&v1::KeyView| key.scopes == ["network"];
    let id = keys.get_ref().keys.iter().find(ruling).unwrap().id.clone();
    let revoke_key = v1::RevokeKeyRequest { id };
    let kept = api.revoke_key(with_key(revoke_key, &admin)).await.err();
    assert_eq!(code(&kept.unwrap()), Some(ErrorCode::PermissionDenied));
    api.create_join_token(with_key(make, &network))
        .await
        .unwrap();
    let listed = api.list_join_tokens(with_key(list, &world.key)).await;
    let listed = listed.unwrap().into_inner().tokens;
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].secret_hash, listed[0].taken_ms), (&hash, 0));
    api.revoke_join_token(with_key(revoke.clone(), &network))
        .await
        .unwrap();
    let gone = api.revoke_join_token(with_key(revoke, &network)).await;
    assert_eq!(code(&gone.unwrap_err()), Some(ErrorCode::UnknownToken));
    let unknown = api.remove_node(with_key(remove, &network)).await;
    assert_eq!(code(&unknown.unwrap_err()), Some(ErrorCode::UnknownNode));
    // It opens nothing else.
    let status = api.get_status(with_key(v1::GetStatusRequest {}, &network));
    let denied = status.await.unwrap_err();
    assert_eq!(code(&denied), Some(ErrorCode::PermissionDenied));
}

#[tokio::test]
async fn an_open_session_ends_with_its_key() {
    let world = World::start().await;
    let brief = key(&world, &["submit", "read"], 2_000).await;
    let mut api = person::api(&world).await;
    let session = opening(&world, fresh_session(), &SessionKey::generate());
    let (_up, mut down, first) = open(&mut api, &brief, session).await.unwrap();
    assert!(matches!(first, Down::Opened(_)), "{first:?}");
    let last = soon("the end of the key", down.message()).await;
    let Some(Down::Refused(refusal)) = last.unwrap().unwrap().body else {
        panic!("the session goes on")
    };
    assert_eq!(refusal.code, "key_expired");
    assert!(
        refusal.message.contains("farlane keys create"),
        "{}",
        refusal.message
    );
    assert!(down.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_key_that_may_only_submit_reads_only_what_it_submitted() {
    let mut world = World::start().await;
    let owner = world.key.clone();
    let spec = spec(&world, |_| {});
    let mut other = Person::connect(&world).await;
    other.submit(&world, &spec, &[b"x"]).await;
    assert!(matches!(other.next().await, Down::Submitted(_)));
    let watch = |person: &Person| {
        Up::Watch(v1::Watch {
            tasks: vec![id::task_bytes(&person.task(1))],
        })
    };

    world.key = key(&world, &["submit"], 0).await;
    let mut first = Person::connect(&world).await;
    first.submit(&world, &spec, &[b"y"]).await;
    assert!(matches!(first.next().await, Down::Submitted(_)));
    // Its own, from another session too.
    let mut second = Person::connect(&world).await;
    second.send(watch(&first)).await;
    second.submit(&world, &spec, &[b"z"]).await;
    assert!(matches!(second.next().await, Down::Submitted(_)));
    second.send(watch(&other)).await;
    assert_eq!(second.refusal().await, "permission_denied");

    // Nor by opening the other's session.
    let mut api = person::api(&world).await;
    let frame = opening(&world, other.session, &other.session_key);
    let (_up, _down, answer) = open(&mut api, &world.key, frame).await.unwrap();
    let Down::Refused(refusal) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(refusal.code, "permission_denied");
    assert!(refusal.message.contains("\"read\""), "{}", refusal.message);

    // With the scope it may.
    world.key = owner;
    world.key = key(&world, &["submit", "read"], 0).await;
    let mut reader = Person::connect(&world).await;
    reader.send(watch(&other)).await;
    reader.submit(&world, &spec, &[b"w"]).await;
    assert!(matches!(reader.next().await, Down::Submitted(_)));
}

/// The server went away between taking the secret and registering the machine.
#[tokio::test]
async fn a_join_secret_is_not_lost_with_a_server_and_serves_one_machine() {
    let world = World::start().await;
    let not_after = wall().saturating_add(Millis(3_600_000));
    let (seed, cert) = world.promise("eu-central", not_after);
    let machine = |name| {
        let identity = NodeIdentity::generate();
        NodeRecord::make(&identity, &seed, &cert, name).unwrap()
    };
    let (first, second) = (machine("first"), machine("second"));
    assert_eq!(first.node(), second.node());
    let secret = token(&world, &first, 60_000).await.unwrap();
    let store = accounts(&world).await;
    let tokens = store.join_tokens();
    tokens
        .take(secret.expose(), first.identity().0, wall())
        .await
        .unwrap();
    let other = enrol(&world, &secret, &second, 4).await.err().unwrap();
    assert_eq!(code(&other), Some(ErrorCode::JoinRefused));
    assert!(other.message().contains("used before"), "{other}");
    enrol(&world, &secret, &first, 4).await.unwrap();
    // Its answer was lost on the way, too.
    enrol(&world, &secret, &first, 4).await.unwrap();
}

#[tokio::test]
async fn a_machine_is_certified_no_longer_than_its_provider_stands_for_it() {
    let world = World::start().await;
    let not_after = wall().saturating_add(Millis(6_000));
    let (seed, cert) = world.promise("eu-central", not_after);
    let identity = NodeIdentity::generate();
    let record = NodeRecord::make(&identity, &seed, &cert, "host").unwrap();
    let secret = token(&world, &record, 60_000).await.unwrap();
    let mut kept = enrol(&world, &secret, &record, 4).await.unwrap();
    kept.seed = *identity.expose();
    let mut machine = Machine::start(&world, kept.clone()).await;
    let mut fleet = kept.fleet(&world).await;
    let refused = soon("the end of the enrolment", async {
        loop {
            match fleet.renew(kept.renewal().1).await {
                Ok(renewed) => assert_eq!(renewed.into_inner().expires_ms, not_after.0),
                Err(status) => return status,
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(code(&refused), Some(ErrorCode::PermissionDenied));
    assert!(
        refused.message().contains("farlane tokens create"),
        "{refused}"
    );
    // The stream that was open ends too.
    let ended = soon("the end of the stream", async {
        loop {
            if let ToAgent::Refused(refusal) = machine.frame().await {
                return refusal;
            }
        }
    })
    .await;
    assert_eq!(ended.code, "permission_denied");
    let late = enrol(&world, &secret, &record, 4).await.err().unwrap();
    assert_eq!(code(&late), Some(ErrorCode::JoinRefused));
}

#[tokio::test]
async fn strangers_who_ask_to_join_too_often_wait() {
    let world = World::start().await;
    // One that is on the network already is not held up.
    let machine = Machine::join(&world, 4).await;
    let mut stranger = enrolment::stranger(&world).await;
    let refused = soon("the bound", async {
        loop {
            let status = stranger.enrol(v1::EnrolRequest::default()).await;
            let status = status.unwrap_err();
            if code(&status) == Some(ErrorCode::Unavailable) {
                return status;
            }
        }
    })
    .await;
    assert!(refused.message().contains("too many machines"), "{refused}");
    // Without a certificate one that is known waits as they do.
    let late = soon("the bound", async {
        loop {
            if let Err(status) = stranger.renew(machine.kept.renewal().1).await {
                return status;
            }
        }
    })
    .await;
    assert_eq!(code(&late), Some(ErrorCode::Unavailable), "{late}");
    let mut fleet = machine.fleet.clone();
    fleet.renew(machine.kept.renewal().1).await.unwrap();
}
