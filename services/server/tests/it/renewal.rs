//! How a machine whose certificate has ended comes back, and who does not.

use bytes::Bytes;
use farlane_model::NodeId;
use farlane_seal::NodeIdentity;
use farlane_seal::record::NodeRecord;
use farlane_seal::renewal::MAX_SKEW;
use farlane_units::Millis;
use farlane_wire::v1::fleet_client::FleetClient;
use farlane_wire::{ErrorCode, id, v1};
use tonic::transport::Channel;

use crate::access::code;
use crate::enrolment::{Kept, enrol, request, stranger, token};
use crate::machine::Machine;
use crate::person::{self, with_key};
use crate::world::{World, wall};

/// Joins and keeps its files; nothing of it runs.
async fn joined(world: &World) -> Kept {
    let (identity, record) = world.enrolment("eu-central");
    let secret = token(world, &record, 60_000).await.unwrap();
    let mut kept = enrol(world, &secret, &record, 4).await.unwrap();
    kept.seed = *identity.expose();
    kept
}

async fn refusal(
    fleet: &mut FleetClient<Channel>,
    wish: v1::RenewRequest,
) -> (Option<ErrorCode>, String) {
    let refused = fleet.renew(wish).await.unwrap_err();
    (code(&refused), refused.message().to_owned())
}

#[tokio::test]
async fn a_machine_comes_back_by_its_identity_key_alone() {
    let mut world = World::start().await;
    let kept = joined(&world).await;
    // The server, too, was away meanwhile.
    world.kill_and_restart().await;
    let mut without = stranger(&world).await;
    let (key, wish) = kept.renewal();
    let renewed = without.renew(wish.clone()).await.unwrap().into_inner();
    assert!(renewed.expires_ms > wall().0 + 23 * 3_600_000);
    assert!(renewed.server_time_ms > wall().0 - 60_000);
    Machine::start(&world, kept.with(&key, &renewed)).await;
    // A wish whose answer was lost may be sent again: it certifies the same key, which whoever
    // overheard it does not have.
    let again = without.renew(wish).await.unwrap().into_inner();
    Machine::start(&world, kept.with(&key, &again)).await;
}

#[tokio::test]
async fn only_a_fresh_wish_of_the_right_key_for_this_network_is_taken() {
    let world = World::start().await;
    let kept = joined(&world).await;
    let mut fleet = stranger(&world).await;
    let (_, csr) = request();
    let wish = || kept.renewal().1;

    let thief = Kept {
        seed: *NodeIdentity::generate().expose(),
        ..kept.clone()
    };
    let elsewhere = kept.renewal_of(&csr, b"another network", wall());
    let mut swapped = wish();
    swapped.csr_der = csr.clone().into();
    let mut later = wish();
    later.at_ms += 1;
    let mut short = wish();
    short.signature = short.signature.slice(1..);
    let mut none = wish();
    none.signature = Bytes::new();
    for unproven in [thief.renewal().1, elsewhere, swapped, later, short, none] {
        let (code, said) = refusal(&mut fleet, unproven).await;
        assert_eq!(code, Some(ErrorCode::Unauthenticated), "{said}");
        assert!(said.contains("identity key") && said.contains("farlane tokens create"));
    }

    let beyond = Millis(MAX_SKEW.0 + 60_000);
    for (at, side) in [
        (wall().saturating_sub(beyond), "behind"),
        (wall().saturating_add(beyond), "ahead of"),
    ] {
        let stale = kept.renewal_of(&csr, &kept.network, at);
        let (code, said) = refusal(&mut fleet, stale).await;
        assert_eq!(code, Some(ErrorCode::ClockSkew), "{said}");
        assert!(
            said.contains(side) && said.contains("timedatectl"),
            "{said}"
        );
    }

    let mut nameless = wish();
    nameless.node = Bytes::from_static(b"short");
    let large = kept.renewal_of(&[0; 5000], &kept.network, wall());
    let broken = kept.renewal_of(b"no request", &kept.network, wall());
    let mut unknown = wish();
    unknown.node = id::node_bytes(&NodeId([9; 32]));
    for (wish, expected) in [
        (nameless, ErrorCode::InvalidArgument),
        (large, ErrorCode::PayloadTooLarge),
        (broken, ErrorCode::InvalidArgument),
        (unknown, ErrorCode::UnknownNode),
    ] {
        let (code, said) = refusal(&mut fleet, wish).await;
        assert_eq!(code, Some(expected), "{said}");
    }
    // Over a connection of its own a node does not ask for another.
    let mut other = joined(&world).await.fleet(&world).await;
    let (code, said) = refusal(&mut other, wish()).await;
    assert_eq!(code, Some(ErrorCode::PermissionDenied), "{said}");
    fleet.renew(wish()).await.unwrap();
}

#[tokio::test]
async fn who_was_removed_or_promised_for_no_longer_is_told_so() {
    let world = World::start().await;
    let kept = joined(&world).await;
    let mut fleet = stranger(&world).await;
    let mut api = person::api(&world).await;
    let remove = v1::RemoveNodeRequest {
        node: id::node_bytes(&kept.record.node()),
        ..Default::default()
    };
    api.remove_node(with_key(remove, &world.key)).await.unwrap();
    let (code, said) = refusal(&mut fleet, kept.renewal().1).await;
    assert_eq!(code, Some(ErrorCode::NodeRevoked), "{said}");
    // Nobody else hears of it.
    let thief = Kept {
        seed: [3; 32],
        ..kept.clone()
    };
    let (code, said) = refusal(&mut fleet, thief.renewal().1).await;
    assert_eq!(code, Some(ErrorCode::Unauthenticated), "{said}");

    let not_after = wall().saturating_add(Millis(3_000));
    let (seed, cert) = world.promise("eu-central", not_after);
    let identity = NodeIdentity::generate();
    let record = NodeRecord::make(&identity, &seed, &cert, "host").unwrap();
    let secret = token(&world, &record, 60_000).await.unwrap();
    let mut kept = enrol(&world, &secret, &record, 4).await.unwrap();
    kept.seed = *identity.expose();
    let (code, said) = loop {
        match fleet.renew(kept.renewal().1).await {
            Ok(renewed) => assert_eq!(renewed.into_inner().expires_ms, not_after.0),
            Err(status) => break (ErrorCode::of(&status), status.message().to_owned()),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!(code, Some(ErrorCode::PermissionDenied), "{said}");
    assert!(said.contains("farlane tokens create"), "{said}");
}
