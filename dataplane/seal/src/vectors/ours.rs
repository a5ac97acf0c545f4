//! Our own formats, byte for byte: whoever changes one by accident is told here. Randomness is
//! BLAKE3's output stream of a seed.
//!
//! After a deliberate change (and a new label or version in the format) write the file anew:
//! `FARLANE_WRITE_VECTORS=1 cargo test -p farlane-seal vectors::ours`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use farlane_model::{AttemptRef, BlobRef, Digest, ExitKind, SessionId};
use farlane_units::ByteCount;

use super::network::{Cast, NETWORK, NOW, Script};
use crate::grant::{Grant, GranterContext};
use crate::key::{SessionKey, TaskKey};
use crate::payload::Payload;
use crate::prekey::PrekeyStock;
use crate::record::{PrekeyKind, RevocationList, SignedPrekey};
use crate::stream::{self, StreamContext, StreamKind};
use crate::vault::{self, VaultSecret};
use crate::{batch, pad, renewal, wrap};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/ours.json");

type Vectors = BTreeMap<String, String>;

fn note(all: &mut Vectors, name: &str, bytes: impl AsRef<[u8]>) {
    assert_eq!(
        all.insert(name.to_owned(), hex::encode(bytes)),
        None,
        "{name} twice"
    );
}

fn streams(all: &mut Vectors, script: &mut Script, cast: &Cast) {
    let key = TaskKey::from_bytes(script.key());
    let tenant = cast.tenant.public().tenant();
    let task = cast.granter().task(1);
    let at = AttemptRef {
        task,
        attempt: 2,
        epoch: 3,
    };
    let node = cast.record.node();
    note(all, "stream.key", key.expose());
    let contexts = [
        ("payload", StreamContext::payload(tenant, task)),
        ("code", StreamContext::blob(StreamKind::Code, tenant)),
        ("result", StreamContext::result(tenant, at, node)),
        ("exception", StreamContext::exception(tenant, at, node)),
        ("log", StreamContext::log(tenant, at, node, 7)),
    ];
    for (name, context) in contexts {
        let plain = b"farlane";
        let padded = pad::padded_len(plain.len());
        let sealed = stream::seal_with(script, &key, &context, &[plain], padded);
        assert_eq!(
            stream::open_padded(&key, &context, &sealed, 1024).unwrap(),
            plain
        );
        note(all, &format!("stream.{name}"), sealed);
    }
    let long = vec![0x5a; stream::CHUNK + 1];
    let context = StreamContext::payload(tenant, task);
    let sealed = stream::seal_with(script, &key, &context, &[&long], long.len());
    note(all, "stream.two-chunks.digest", Digest::of(&sealed).0);
}

fn keys(all: &mut Vectors, script: &mut Script) {
    let session = SessionId::new(NOW.0, [1; 5]);
    let session_key = SessionKey::from_bytes(script.key());
    let task_key = TaskKey::from_bytes(script.key());
    note(all, "wrap.session-key", session_key.expose());
    note(all, "wrap.task-key", task_key.expose());
    note(
        all,
        "wrap.seq-5",
        wrap::wrap_task_key(&session_key, 5, &task_key),
    );
    let vault = VaultSecret::from_bytes(script.key());
    let sealed = vault::seal_session_with(script, &vault.public(), session, &session_key).unwrap();
    note(all, "vault.secret", vault.expose());
    note(all, "vault.session", session.to_bytes());
    note(all, "vault.sealed", sealed);
    let blob = BlobRef {
        digest: Digest::of(b"blob"),
        size: ByteCount(4),
    };
    let payload = Payload {
        spec: Digest::of(b"spec"),
        rank: 0,
        code_key: TaskKey::from_bytes(script.key()),
        env_key: Some(TaskKey::from_bytes(script.key())),
        arguments: Bytes::from_static(b"arguments"),
        blobs: vec![(blob, TaskKey::from_bytes(script.key()))],
    };
    note(all, "payload", payload.encode());
}

fn records(all: &mut Vectors, cast: &Cast) {
    note(all, "record.provider-root", cast.provider.public().0);
    note(
        all,
        "record.enrolment",
        cast.record.certificate().to_bytes(),
    );
    note(all, "record.node", cast.record.to_bytes());
    note(all, "record.node-id", cast.record.node().0);
    note(all, "record.device", cast.device_record.to_bytes());
    note(all, "record.manifest", cast.manifest.to_bytes());
    let revoked = RevocationList::sign(&cast.provider, NOW, vec![cast.record.node()]).unwrap();
    note(all, "record.revocations", revoked.to_bytes());
}

fn grants(all: &mut Vectors, script: &mut Script, cast: &Cast) {
    let mut stock: PrekeyStock = cast.stock();
    let prekey = stock.make(script, PrekeyKind::OneTime, NOW);
    note(all, "grant.prekey", &prekey);
    let prekey = SignedPrekey::from_bytes(&prekey, &cast.record).unwrap();
    let (mut granter, opening) = GranterContext::open_with(script, &cast.order(&prekey)).unwrap();
    note(all, "grant.opening.enc", &opening.enc);
    note(all, "grant.opening.info", &opening.info_bytes);
    note(all, "grant.opening.signature", &opening.signature);
    let grant = Grant {
        attempt: AttemptRef {
            task: cast.granter().task(1),
            attempt: 1,
            epoch: 1,
        },
        open_by: NOW,
        spec_digest: Digest::of(b"spec"),
        payload_digest: Digest::of(b"payload"),
        key: TaskKey::from_bytes(script.key()),
    };
    let (counter, sealed) = granter.seal(std::slice::from_ref(&grant)).unwrap();
    assert_eq!(counter, 1);
    let mut node = stock.accept(&opening, NETWORK, NOW).unwrap();
    assert_eq!(node.open(counter, &sealed, NOW).unwrap(), [grant]);
    note(all, "grant.batch-1", sealed);
}

fn batches(all: &mut Vectors, cast: &Cast) {
    let at = AttemptRef {
        task: cast.granter().task(1),
        attempt: 1,
        epoch: 1,
    };
    let leaf = batch::leaf(&at, ExitKind::Returned, Some(&Digest::of(b"sealed")));
    let id = batch::id(cast.boot, 1);
    let signature = batch::sign(
        &cast.identity,
        cast.record.node(),
        cast.granter(),
        &id,
        &leaf.0,
    );
    note(all, "batch.leaf", leaf.0);
    note(all, "batch.id", id);
    note(all, "batch.signature", signature);
    let node = cast.record.node();
    let renewal = renewal::sign(&cast.identity, node, NETWORK, NOW, b"request");
    note(all, "renewal.signature", renewal);
}

#[test]
fn our_formats_are_what_they_were() {
    let mut script = Script::new("farlane vectors 1");
    let cast = Cast::scripted(&mut script);
    let mut all = Vectors::new();
    streams(&mut all, &mut script, &cast);
    keys(&mut all, &mut script);
    records(&mut all, &cast);
    grants(&mut all, &mut script, &cast);
    batches(&mut all, &cast);
    if std::env::var_os("FARLANE_WRITE_VECTORS").is_some() {
        std::fs::write(FILE, serde_json::to_string_pretty(&all).unwrap() + "\n").unwrap();
    }
    let held: Vectors = serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap();
    assert_eq!(all, held);
}
