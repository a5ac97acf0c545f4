//! The one node of the mock, a stranger, and who trusts whom.

use super::*;

/// A node with its keys.
pub(super) struct Node {
    pub(super) identity: NodeIdentity,
    pub(super) record: NodeRecord,
    pub(super) boot: BootId,
    pub(super) stock: PrekeyStock,
    pub(super) contexts: HashMap<u64, NodeContext>,
    pub(super) batches: u64,
}

pub(super) fn node(provider: &ProviderRoot, hostname: &str) -> Node {
    let (identity, seed) = (NodeIdentity::generate(), EnrolmentSeed::generate());
    let terms = EnrolmentTerms {
        enrolment: seed.public(),
        provider: provider.public(),
        region: "us-west".to_owned(),
        tier: Tier::Namespaces,
        labels: Vec::new(),
        price_usd_micros_core_hour: None,
        not_after: FAR,
    };
    let certificate = EnrolmentCert::sign(provider, terms).unwrap();
    let record = NodeRecord::make(&identity, &seed, &certificate, hostname).unwrap();
    let boot = BootId([9; 16]);
    let stock = PrekeyStock::new(identity.clone(), record.clone(), boot);
    Node {
        identity,
        record,
        boot,
        stock,
        contexts: HashMap::new(),
        batches: 0,
    }
}

pub(super) fn identity(
    urls: Vec<String>,
    ca_pem: String,
    own: bool,
    provider: PublicKey,
    network: &[u8],
) -> Identity {
    let (root, device_key) = (TenantRoot::generate(), DeviceKey::generate());
    let device = DeviceTerms {
        tenant_root: root.public(),
        device: device_key.public(),
        name: "test".to_owned(),
        may_grant: true,
        not_after: FAR,
    };
    let manifest = ManifestTerms {
        tenant_root: root.public(),
        version: 1,
        not_after: FAR,
        providers: vec![ProviderPin {
            root: provider,
            name: "lab".to_owned(),
            own,
        }],
        devices: vec![device_key.public()],
        granters: vec![device_key.public()],
    };
    Identity {
        name: "test".to_owned(),
        urls,
        ca_pem,
        api_key: KEY.to_owned().into(),
        project: ProjectId::new(1, [7; 10]),
        network: network.to_vec(),
        tenant_root: root.public(),
        device: DeviceRecord::sign(&root, device).unwrap(),
        device_key,
        vault: VaultSecret::generate(),
        manifest: Manifest::sign(&root, manifest).unwrap(),
    }
}
/// Another node, of a provider that may or may not be pinned.
pub struct ProviderRootNode {
    node: Mutex<Node>,
}

impl ProviderRootNode {
    pub fn new() -> Self {
        Self {
            node: Mutex::new(node(&ProviderRoot::generate(), "stranger")),
        }
    }
    /// One of the same provider as the mock's own.
    pub fn beside(mock: &Mock) -> Self {
        Self {
            node: Mutex::new(node(&mock.provider, "second")),
        }
    }
    pub(super) fn request(&self, task: TaskId) -> v1::GrantRequest {
        let mut node = self.node.lock();
        let prekey = node.stock.one_time(1, World::wall()).pop().unwrap();
        v1::GrantRequest {
            node: Bytes::copy_from_slice(node.record.node().as_bytes()),
            boot: Bytes::copy_from_slice(&node.boot.0),
            context: 1_000_000,
            record_bytes: node.record.to_bytes(),
            prekey_bytes: prekey,
            revocations_bytes: Bytes::new(),
            tasks: vec![v1::GrantWanted {
                attempt: Some(attempt(task).into()),
                ..Default::default()
            }],
        }
    }
}

fn attempt(task: TaskId) -> AttemptRef {
    AttemptRef {
        task,
        attempt: 1,
        epoch: EPOCH,
    }
}

pub(super) fn grant_request(
    world: &mut World,
    session: SessionId,
    tasks: Vec<TaskId>,
) -> v1::GrantRequest {
    let fresh = world
        .sessions
        .get(&session)
        .is_none_or(|s| s.context.is_none());
    if fresh {
        world.contexts += 1;
        let now = world.now();
        let prekey = world.node.stock.one_time(1, now).pop().unwrap();
        let context = (world.contexts, prekey);
        world.sessions.entry(session).or_default().context = Some(context);
    }
    let (context, prekey) = world.sessions[&session].context.clone().unwrap();
    let record = world.node.record.to_bytes();
    let list = world.revocations.clone();
    v1::GrantRequest {
        node: Bytes::copy_from_slice(world.node.record.node().as_bytes()),
        boot: Bytes::copy_from_slice(&world.node.boot.0),
        context,
        record_bytes: if fresh { record } else { Bytes::new() },
        prekey_bytes: if fresh { prekey } else { Bytes::new() },
        revocations_bytes: if fresh { list } else { Bytes::new() },
        tasks: tasks
            .into_iter()
            .map(|task| v1::GrantWanted {
                attempt: Some(attempt(task).into()),
                ..Default::default()
            })
            .collect(),
    }
}

/// The node's work: open, check, echo, seal, sign.
pub(super) fn run(
    world: &mut World,
    session: SessionId,
    tenant: farlane_model::TenantId,
    grants: Vec<Grant>,
    answer: Answer,
) -> Option<v1::ResultBatch> {
    let node_id = world.node.record.node();
    let (mut results, mut leaves) = (Vec::new(), Vec::new());
    for grant in grants {
        let id = grant.attempt.task;
        let task = world.tasks.get_mut(&id)?;
        if task.result.is_some() {
            continue;
        }
        task.granted = true;
        assert_eq!(
            Digest::of(&task.spec),
            grant.spec_digest,
            "the granted spec"
        );
        let place = Sealed::try_from(task.envelope.payload.clone()?).ok()?;
        let sealed = match place {
            Sealed::Inline(bytes) => bytes,
            Sealed::Blob(blob) => world
                .blobs
                .get(&blob.digest)
                .cloned()
                .expect("the payload's blob came first"),
        };
        assert_eq!(
            Digest::of(&sealed),
            grant.payload_digest,
            "the granted payload"
        );
        let plain = open(&grant.key, &StreamContext::payload(tenant, id), &sealed);
        let payload = Payload::decode(plain.into()).unwrap();
        let spec = farlane_model::TaskSpec::from_canonical(&task.spec).unwrap();
        let code = world
            .blobs
            .get(&spec.code.digest)
            .expect("the code's blob came first");
        open(
            &payload.code_key,
            &StreamContext::blob(StreamKind::Code, tenant),
            code,
        );
        for (blob, key) in &payload.blobs {
            let sealed = world
                .blobs
                .get(&blob.digest)
                .expect("an argument's blob came first");
            open(
                key,
                &StreamContext::blob(StreamKind::Argument, tenant),
                sealed,
            );
        }
        let pickled = !matches!(answer, Answer::Safe | Answer::SafeUnsigned);
        let mut body = vec![u8::from(pickled)];
        body.extend_from_slice(&payload.arguments);
        let context = StreamContext::result(tenant, grant.attempt, node_id);
        let frame = farlane_codec::compress(&body);
        let mut sealed = stream::seal_padded_parts(&grant.key, &context, &frame.parts());
        let digest = Digest::of(&sealed);
        if answer == Answer::FlipSealed {
            let middle = sealed.len() / 2;
            sealed[middle] ^= 1;
        }
        leaves.push(batch::leaf(
            &grant.attempt,
            ExitKind::Returned,
            Some(&digest),
        ));
        let sealed = Bytes::from(sealed);
        let place = if sealed.len() > farlane_model::MAX_ROW_BYTES {
            let blob = BlobRef {
                digest: Digest::of(&sealed),
                size: farlane_units::ByteCount(sealed.len() as u64),
            };
            world.blobs.insert(blob.digest, sealed);
            Sealed::Blob(blob)
        } else {
            Sealed::Inline(sealed)
        };
        results.push((
            id,
            v1::TaskResult {
                attempt: Some(grant.attempt.into()),
                exit: Some(Exit::plain(ExitKind::Returned).into()),
                sealed: Some(place.into()),
                leaf: leaves.len() as u32 - 1,
                started_ms: 10,
                ended_ms: 20,
                cost_usd_micros: 7,
                moved_bytes: 0,
                egress_usd_picos: 0,
                emitted_ng: Some(8),
                quote_bytes: Default::default(),
                region: "us-west".to_owned(),
                node_name: "mock".to_owned(),
            },
        ));
    }
    if results.is_empty() {
        return None;
    }
    world.index += 1;
    world.node.batches += 1;
    let batch_id = batch::id(world.node.boot, world.node.batches);
    let joined = batch::join_leaves(&leaves);
    let mut signature = batch::sign(&world.node.identity, node_id, session, &batch_id, &joined);
    if answer == Answer::FlipSignature {
        signature[3] ^= 1;
    }
    let unsigned = matches!(answer, Answer::Unsigned | Answer::SafeUnsigned);
    let signature = (!unsigned).then(|| v1::NodeSignature {
        batch: Bytes::copy_from_slice(&batch_id),
        leaves: joined.into(),
        signature: Bytes::copy_from_slice(&signature),
    });
    let whole = v1::ResultBatch {
        cursor: Some(v1::Cursor::at(world.index, 0)),
        node: Bytes::copy_from_slice(node_id.as_bytes()),
        signature,
        results: results.iter().map(|(_, result)| result.clone()).collect(),
        record_bytes: world.node.record.to_bytes(),
    };
    for (id, _) in &results {
        if let Some(task) = world.tasks.get_mut(id) {
            task.result = Some(whole.clone());
        }
    }
    Some(whole)
}

fn open(key: &farlane_seal::TaskKey, context: &StreamContext, sealed: &[u8]) -> Vec<u8> {
    let padded =
        stream::open_padded(key, context, sealed, 1 << 30).expect("opens where it is meant to");
    let plain = farlane_codec::decompress(&padded, 1 << 30).expect("decompresses");
    plain.into_owned()
}
