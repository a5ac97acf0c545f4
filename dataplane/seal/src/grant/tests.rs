#![allow(clippy::unwrap_used)]

use farlane_model::{AttemptRef, Digest, NodeId, Retry};

use super::*;
use crate::key::TaskKey;
use crate::prekey::DAILY_EVERY;
use crate::record::{DeviceRecord, DeviceTerms, Manifest, PrekeyKind, SignedPrekey};
use crate::sign::DeviceKey;
use crate::vectors::network::{Cast, NETWORK, NOW};

fn attempt(cast: &Cast, seq: u64, attempt: u32) -> AttemptRef {
    AttemptRef {
        task: cast.granter().task(seq),
        attempt,
        epoch: 1,
    }
}

fn grant(cast: &Cast, seq: u64) -> Grant {
    Grant {
        attempt: attempt(cast, seq, 1),
        open_by: NOW,
        spec_digest: Digest::of(b"spec"),
        payload_digest: Digest::of(&seq.to_be_bytes()),
        key: TaskKey::generate(),
    }
}

#[test]
fn batches_cross_and_each_opens_once() {
    let cast = Cast::new();
    let (mut granter, _, mut node, _) = cast.context();
    let grants: Vec<_> = (1..=512).map(|seq| grant(&cast, seq)).collect();
    let (first, sealed) = granter.seal(&grants).unwrap();
    let (second, more) = granter.seal(&grants[..1]).unwrap();
    assert_eq!((first, second), (1, 2));
    // Out of order is fine, twice is not.
    assert_eq!(node.open(second, &more, NOW).unwrap(), grants[..1]);
    assert_eq!(node.open(first, &sealed, NOW).unwrap(), grants);
    assert_eq!(node.open(first, &sealed, NOW), Err(AcceptError::Replayed));
    assert_eq!(node.open(second, &more, NOW), Err(AcceptError::Replayed));
    // Under another counter it does not open.
    assert!(matches!(
        node.open(3, &more, NOW),
        Err(AcceptError::Damaged(_))
    ));
    assert!(matches!(
        node.open(0, &more, NOW),
        Err(AcceptError::Replayed)
    ));
    let (third, empty) = granter.seal(&[]).unwrap();
    assert_eq!(node.open(third, &empty, NOW).unwrap(), []);
    let too_many = vec![grants[0].clone(); MAX_GRANTS + 1];
    assert_eq!(granter.seal(&too_many), Err(GrantError::TooMany));
    assert_eq!(node.tenant(), cast.tenant.public().tenant());
    assert!(node.info().own_provider && granter.info() == node.info());
}

#[test]
fn any_wrong_bit_of_a_batch_is_refused_and_does_not_burn_its_counter() {
    let cast = Cast::new();
    let (mut granter, _, mut node, _) = cast.context();
    let (counter, sealed) = granter.seal(&[grant(&cast, 1)]).unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut bad = sealed.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(node.open(counter, &bad, NOW).is_err(), "bit {bit}");
    }
    assert!(node.open(counter, &sealed[1..], NOW).is_err());
    assert!(node.open(counter, &vec![0; 1 << 20], NOW).is_err());
    assert!(node.open(counter, &sealed, NOW).is_ok());
}

#[test]
fn another_context_opens_nothing() {
    let (cast, other) = (Cast::new(), Cast::new());
    let (mut granter, opening, _, mut stock) = cast.context();
    let (_, _, mut elsewhere, mut foreign) = other.context();
    let (counter, sealed) = granter.seal(&[grant(&cast, 1)]).unwrap();
    assert!(matches!(
        elsewhere.open(counter, &sealed, NOW),
        Err(AcceptError::Damaged(_))
    ));
    let misplaced = foreign.accept(&opening, NETWORK, NOW);
    assert_eq!(
        misplaced.unwrap_err(),
        AcceptError::Misplaced { what: "node" }
    );
    // The one-time key is gone: the same opening is not served twice.
    let again = stock.accept(&opening, NETWORK, NOW);
    assert_eq!(again.unwrap_err(), AcceptError::PrekeyGone);
}

#[test]
fn any_wrong_bit_of_an_opening_is_refused_and_the_prekey_survives() {
    let cast = Cast::new();
    let mut stock = cast.stock();
    let prekey = SignedPrekey::from_bytes(&stock.one_time(1, NOW)[0], &cast.record).unwrap();
    let (_, opening) = GranterContext::open(&cast.order(&prekey)).unwrap();
    type Part = fn(&mut Opening) -> &mut bytes::Bytes;
    let parts: [Part; 4] = [
        |o| &mut o.enc,
        |o| &mut o.info_bytes,
        |o| &mut o.signature,
        |o| &mut o.device_bytes,
    ];
    for part in parts {
        let len = part(&mut opening.clone()).len();
        for at in 0..len {
            let mut bad = opening.clone();
            let mut bytes = part(&mut bad).to_vec();
            bytes[at] ^= 1;
            *part(&mut bad) = bytes.into();
            assert!(
                stock.accept(&bad, NETWORK, NOW).is_err(),
                "byte {at} of {len}"
            );
        }
        let mut cut = opening.clone();
        *part(&mut cut) = part(&mut cut).slice(1..);
        assert!(stock.accept(&cut, NETWORK, NOW).is_err());
    }
    assert!(stock.accept(&opening, b"another network", NOW).is_err());
    assert!(stock.accept(&opening, NETWORK, NOW).is_ok());
}

#[test]
fn a_context_ends() {
    let cast = Cast::new();
    let (mut granter, _, mut node, _) = cast.context();
    let (counter, sealed) = granter.seal(&[grant(&cast, 1)]).unwrap();
    let end = NOW.saturating_add(CONTEXT_LIFE);
    assert!(granter.is_open(NOW) && !granter.is_open(end));
    assert_eq!(
        node.open(counter, &sealed, end),
        Err(AcceptError::BadExpiry)
    );
    let mut stock = cast.stock();
    let prekey = SignedPrekey::from_bytes(&stock.one_time(1, NOW)[0], &cast.record).unwrap();
    let (_, opening) = GranterContext::open(&cast.order(&prekey)).unwrap();
    assert_eq!(
        stock.accept(&opening, NETWORK, end).unwrap_err(),
        AcceptError::BadExpiry
    );
    let early = NOW.saturating_sub(Millis(10 * 60_000));
    assert_eq!(
        stock.accept(&opening, NETWORK, early).unwrap_err(),
        AcceptError::BadExpiry
    );
}

#[test]
fn a_daily_key_serves_many_openings_each_once() {
    let cast = Cast::new();
    let mut stock = cast.stock();
    let bytes = stock.daily(NOW).unwrap();
    assert!(stock.daily(NOW).is_none());
    let prekey = SignedPrekey::from_bytes(&bytes, &cast.record).unwrap();
    assert_eq!(prekey.kind, PrekeyKind::Daily);
    let mut openings = (0..3).map(|_| GranterContext::open(&cast.order(&prekey)).unwrap().1);
    let first = openings.next().unwrap();
    stock.accept(&first, NETWORK, NOW).unwrap();
    openings.for_each(|opening| drop(stock.accept(&opening, NETWORK, NOW).unwrap()));
    assert_eq!(
        stock.accept(&first, NETWORK, NOW).unwrap_err(),
        AcceptError::Replayed
    );
    let tomorrow = NOW.saturating_add(DAILY_EVERY);
    assert!(stock.daily(tomorrow).is_some());
    assert_eq!(
        stock.len(),
        2,
        "yesterday's still opens what was sealed to it"
    );
    let later = tomorrow
        .saturating_add(DAILY_EVERY)
        .saturating_add(Millis(1));
    assert!(stock.daily(later).is_some());
    assert_eq!(stock.len(), 2);
}

#[test]
fn another_boot_knows_no_prekey_of_this_one() {
    let mut cast = Cast::new();
    let mut stock = cast.stock();
    let prekey = SignedPrekey::from_bytes(&stock.one_time(1, NOW)[0], &cast.record).unwrap();
    let (_, opening) = GranterContext::open(&cast.order(&prekey)).unwrap();
    cast.boot = farlane_model::BootId([0xee; 16]);
    let error = cast.stock().accept(&opening, NETWORK, NOW).unwrap_err();
    assert_eq!(
        error,
        AcceptError::Misplaced {
            what: "boot of this node"
        }
    );
}

#[test]
fn granters_refuse_nodes_that_do_not_hold() {
    let (cast, other) = (Cast::new(), Cast::new());
    let mut stock = cast.stock();
    let prekey = SignedPrekey::from_bytes(&stock.one_time(1, NOW)[0], &cast.record).unwrap();
    let fails = |order: OpenContext<'_>| GranterContext::open(&order).unwrap_err();
    assert!(matches!(
        fails(OpenContext {
            manifest: &other.manifest,
            ..cast.order(&prekey)
        }),
        GrantError::Record(RecordError::UnknownProvider { .. })
    ));
    assert!(matches!(
        fails(OpenContext {
            record: &other.record,
            manifest: &other.manifest,
            ..cast.order(&prekey)
        }),
        GrantError::BadPrekey
    ));
    let late = prekey.not_after.saturating_add(Millis(1));
    assert!(matches!(
        fails(OpenContext {
            now: late,
            ..cast.order(&prekey)
        }),
        GrantError::Record(RecordError::Expired { what: "prekey", .. })
    ));
    // Another node's signature on a prekey of this one.
    assert!(SignedPrekey::from_bytes(&prekey.to_bytes(), &other.record).is_err());
    let mut forged = (*prekey).clone();
    forged.public = [9; 32];
    let forged = SignedPrekey::sign(&other.identity, forged).unwrap();
    assert!(SignedPrekey::from_bytes(&forged.to_bytes(), &cast.record).is_err());
    // A prekey of small order.
    let mut weak = (*prekey).clone();
    weak.public = [0; 32];
    let weak = SignedPrekey::sign(&cast.identity, weak).unwrap();
    assert_eq!(fails(cast.order(&weak)), GrantError::BadPrekey);
}

#[test]
fn nodes_take_grants_of_granting_devices_only() {
    let cast = Cast::new();
    let mut stock = cast.stock();
    let prekey = SignedPrekey::from_bytes(&stock.one_time(1, NOW)[0], &cast.record).unwrap();
    let terms = |may_grant| DeviceTerms {
        may_grant,
        ..(*cast.device_record).clone()
    };
    let reader = DeviceRecord::sign(&cast.tenant, terms(false)).unwrap();
    let order = OpenContext {
        device_record: &reader,
        ..cast.order(&prekey)
    };
    let (_, opening) = GranterContext::open(&order).unwrap();
    assert_eq!(
        stock.accept(&opening, NETWORK, NOW).unwrap_err(),
        AcceptError::NotSigned
    );
    // A device that signs with another key than its record's.
    let thief = DeviceKey::generate();
    let order = OpenContext {
        device: &thief,
        ..cast.order(&prekey)
    };
    let (_, opening) = GranterContext::open(&order).unwrap();
    assert_eq!(
        stock.accept(&opening, NETWORK, NOW).unwrap_err(),
        AcceptError::NotSigned
    );
    // A device of another tenant that claims this one's work.
    let other = Cast::new();
    let order = OpenContext {
        device: &other.device,
        device_record: &other.device_record,
        ..cast.order(&prekey)
    };
    let (_, opening) = GranterContext::open(&order).unwrap();
    assert_eq!(
        stock.accept(&opening, NETWORK, NOW).unwrap_err(),
        AcceptError::NotSigned
    );
}

#[test]
fn foreign_providers_are_said_to_be_foreign() {
    let cast = Cast::new();
    let mut terms = (*cast.manifest).clone();
    terms.providers[0].own = false;
    let manifest = Manifest::sign(&cast.tenant, terms).unwrap();
    let mut stock = cast.stock();
    let prekey = SignedPrekey::from_bytes(&stock.one_time(1, NOW)[0], &cast.record).unwrap();
    let order = OpenContext {
        manifest: &manifest,
        ..cast.order(&prekey)
    };
    let (_, opening) = GranterContext::open(&order).unwrap();
    let node = stock.accept(&opening, NETWORK, NOW).unwrap();
    assert!(!node.info().own_provider);
}

#[test]
fn a_grant_ahead_of_placement_binds_to_no_node_and_counts() {
    let cast = Cast::new();
    let mut log = GrantLog::new();
    let [a, b, c] = [1, 2, 3].map(|n| NodeId([n; 32]));
    let at = |n| attempt(&cast, 1, n);
    assert!(log.admit_ahead(at(1), a, 1).is_err(), "it may run once");
    log.admit_ahead(at(1), a, 3).unwrap();
    assert!(log.admit_ahead(at(1), b, 3).is_err(), "once only");
    // Placed elsewhere: that node is granted it, and then no other.
    assert_eq!(log.admit(at(1), b, 3), Ok(Admission::First));
    assert_eq!(log.admit(at(1), c, 3), Err(GrantError::GrantedElsewhere));
    assert_eq!(log.admit(at(1), a, 3), Ok(Admission::Again));
    assert_eq!(log.admit(at(2), c, 3), Ok(Admission::First));
    assert_eq!(
        log.admit(at(3), a, 3),
        Err(GrantError::AttemptsUsed { limit: 3 }),
        "all three count"
    );
    // Placed where it was granted: as if it had been asked for.
    let other = |n| attempt(&cast, 2, n);
    log.admit_ahead(other(1), a, 3).unwrap();
    assert_eq!(log.admit(other(1), a, 3), Ok(Admission::Again));
    assert_eq!(log.admit(other(1), b, 3), Err(GrantError::GrantedElsewhere));
}

#[test]
fn an_attempt_is_granted_to_one_node_and_a_task_only_so_often() {
    let cast = Cast::new();
    let mut log = GrantLog::new();
    let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
    let at = |n| attempt(&cast, 1, n);
    assert_eq!(log.admit(at(1), a, 2), Ok(Admission::First));
    assert_eq!(log.admit(at(1), a, 2), Ok(Admission::Again));
    assert_eq!(log.admit(at(1), b, 2), Err(GrantError::GrantedElsewhere));
    assert_eq!(log.admit(at(2), b, 2), Ok(Admission::First));
    assert_eq!(log.admit(at(1), b, 2), Err(GrantError::GrantedElsewhere));
    assert_eq!(log.admit(at(1), a, 2), Ok(Admission::Again));
    assert_eq!(
        log.admit(at(3), a, 2),
        Err(GrantError::AttemptsUsed { limit: 2 })
    );
    let other_epoch = AttemptRef { epoch: 2, ..at(1) };
    assert_eq!(
        log.admit(other_epoch, b, 2),
        Err(GrantError::AttemptsUsed { limit: 2 })
    );
    log.forget(&at(1).task);
    assert!(log.is_empty());
    let once = Retry {
        lost: 3,
        raised: 0,
        at_most_once: true,
    };
    let limit = attempts_allowed(&once);
    log.restore(GrantEntry {
        attempt: at(1),
        node: a,
    });
    assert_eq!(
        log.admit(at(2), a, limit),
        Err(GrantError::AttemptsUsed { limit: 1 })
    );
    assert_eq!(log.admit(at(1), a, limit), Ok(Admission::Again));
    assert!(
        attempts_allowed(&Retry {
            at_most_once: false,
            ..once
        }) >= 4
    );
}

#[test]
fn a_torn_entry_is_seen() {
    let cast = Cast::new();
    let entry = GrantEntry {
        attempt: attempt(&cast, 7, 3),
        node: NodeId([5; 32]),
    };
    let bytes = entry.to_bytes();
    assert_eq!(GrantEntry::from_bytes(&bytes), Some(entry));
    for at in 0..bytes.len() {
        let mut bad = bytes;
        bad[at] ^= 1;
        assert_eq!(GrantEntry::from_bytes(&bad), None, "byte {at}");
    }
}
