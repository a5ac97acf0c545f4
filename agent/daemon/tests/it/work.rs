//! Work for the node: functions written in Python, sealed as a client seals them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use farlane_codec::value::Value;
use farlane_model::*;
use farlane_seal::grant::Grant;
use farlane_seal::payload::Payload;
use farlane_seal::record::NodeRecord;
use farlane_seal::stream::{open_padded, seal_padded_parts};
use farlane_seal::{BlobKey, StreamContext, StreamKind, TaskKey, batch};
use farlane_units::{ByteCount, MilliCpu, MilliGpu, Millis};
use farlane_wire::v1;

use crate::network::{Network, now};

/// The system's interpreter: what an unprivileged user can run.
pub const PYTHON: &str = "/usr/bin/python3";

fn python(script: &str) -> String {
    let wheel = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../third_party/cloudpickle-3.1.2-py3-none-any.whl"
    );
    let script = format!("import sys; sys.path.insert(0, {wheel:?})\n{script}");
    let mut child = Command::new(PYTHON)
        .args(["-I", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn version() -> PythonVersion {
    let text = python("print(*sys.version_info[:2])");
    let (major, minor) = text.split_once(' ').unwrap();
    PythonVersion {
        major: major.parse().unwrap(),
        minor: minor.parse().unwrap(),
    }
}

/// A pickled function `f`, by the source that defines it, and pickled arguments of its calls.
pub fn pickled(source: &str, calls: &[&str]) -> (Vec<u8>, Vec<Bytes>) {
    let list = calls.join(", ");
    let script = format!(
        "import cloudpickle, pickle, linecache\nspace = {{'__name__': '__main__'}}\n\
         exec(compile({source:?}, 'task.py', 'exec'), space)\n\
         print(cloudpickle.dumps(space['f'], 5).hex())\n\
         for args in [{list}]: print((b'\\x01' + pickle.dumps((args, {{}}), 5)).hex())"
    );
    let output = python(&script);
    let mut lines = output.lines().map(|line| hex::decode(line).unwrap());
    let code = lines.next().unwrap();
    (code, lines.map(Bytes::from).collect())
}

/// `repr` of a pickled value.
pub fn repr(pickle: &[u8]) -> String {
    let hex = hex::encode(pickle);
    python(&format!(
        "import pickle; print(repr(pickle.loads(bytes.fromhex('{hex}'))))"
    ))
}

/// What is asked beside the function.
#[derive(Clone)]
pub struct Ask {
    pub memory: ByteCount,
    pub scratch: ByteCount,
    pub timeout: Option<Millis>,
    pub log_limit: ByteCount,
    pub lock: Option<String>,
    pub tier: Tier,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            memory: ByteCount(0),
            scratch: ByteCount(0),
            timeout: None,
            log_limit: ByteCount::kib(64),
            lock: None,
            tier: Tier::Process,
        }
    }
}

/// One function with what the node needs for it.
pub struct Function {
    network: Arc<Network>,
    spec_bytes: Bytes,
    code_key: BlobKey,
    env_key: Option<BlobKey>,
    calls: Vec<Bytes>,
}

/// One call under way.
#[derive(Clone)]
pub struct Call {
    pub at: AttemptRef,
    pub key: TaskKey,
}

/// What came of a call.
#[derive(Debug)]
pub struct Outcome {
    pub exit: Exit,
    /// The opened result or exception.
    pub plain: Option<Vec<u8>>,
    pub completion: v1::Completion,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Function {
    pub fn new(network: &Arc<Network>, source: &str, calls: &[&str], ask: Ask) -> Self {
        let tenant = network.tenant.public().tenant();
        let (code, calls) = pickled(source, calls);
        let seal = |kind, plain: &[u8]| {
            let key = BlobKey::generate();
            let context = StreamContext::blob(kind, tenant);
            let sealed = seal_padded_parts(&key, &context, &farlane_codec::compress(plain).parts());
            (network.put_blob(sealed), key)
        };
        let (code, code_key) = seal(StreamKind::Code, &code);
        let lock = ask
            .lock
            .as_ref()
            .map(|text| (text, seal(StreamKind::Lock, text.as_bytes())));
        let environment = lock.as_ref().map(|(text, (lock, _))| EnvRef {
            id: Digest::of(text.as_bytes()),
            lock: *lock,
        });
        let spec = TaskSpec {
            project: ProjectId::new(1, [1; 10]),
            function: "f".into(),
            code,
            environment,
            resources: Resources {
                cpus: MilliCpu(1000),
                memory: ask.memory,
                scratch: ask.scratch,
                gpus: MilliGpu::ZERO,
            },
            gpu: GpuRequest::default(),
            amounts: vec![],
            node: NodeRequest {
                tier: ask.tier,
                ..NodeRequest::any(version())
            },
            company: Company::default(),
            gang: None,
            retry: Retry {
                lost: 3,
                raised: 0,
                at_most_once: false,
            },
            timing: Timing {
                timeout: ask.timeout,
                ..Timing::default()
            },
            policy: None,
            work: None,
            priority: 0,
            forward_secrecy: ForwardSecrecy::Preferred,
            log_limit: ask.log_limit,
        };
        let spec_bytes = spec.to_canonical().into();
        let env_key = lock.map(|(_, (_, key))| key);
        Self {
            network: network.clone(),
            spec_bytes,
            code_key,
            env_key,
            calls,
        }
    }

    /// An assignment of the n-th call and its grant.
    pub fn prepare(&self, n: usize) -> (Call, v1::Assignment, Grant) {
        let network = &self.network;
        let tenant = network.tenant.public().tenant();
        let task = network.session.task(NEXT.fetch_add(1, Ordering::Relaxed));
        let at = AttemptRef {
            task,
            attempt: 1,
            epoch: 1,
        };
        let key = TaskKey::generate();
        let payload = Payload {
            spec: Digest::of(&self.spec_bytes),
            rank: 0,
            code_key: self.code_key.clone(),
            env_key: self.env_key.clone(),
            arguments: self.calls[n].clone(),
            blobs: vec![],
        };
        let plain = payload.encode();
        let frame = farlane_codec::compress(&plain);
        let context = StreamContext::payload(tenant, task);
        let sealed = seal_padded_parts(&key, &context, &frame.parts());
        let digest = Digest::of(&sealed);
        let payload = match sealed.len() <= MAX_ROW_BYTES {
            true => Sealed::Inline(sealed.into()),
            false => Sealed::Blob(network.put_blob(sealed)),
        };
        let spec = Digest::of(&self.spec_bytes);
        let assignment = v1::Assignment {
            attempt: Some(at.into()),
            spec: farlane_wire::id::digest_bytes(&spec),
            payload: Some(payload.into()),
            payload_digest: farlane_wire::id::digest_bytes(&digest),
            tenant: farlane_wire::id::tenant_bytes(&tenant),
            refs: vec![],
            devices: vec![],
            yields_ms: 0,
        };
        let grant = Grant {
            attempt: at,
            open_by: now().saturating_add(Millis(60_000)),
            spec_digest: spec,
            payload_digest: digest,
            key: key.clone(),
        };
        (Call { at, key }, assignment, grant)
    }

    /// An assign frame.
    pub fn assign(&self, attempts: Vec<v1::Assignment>) -> v1::control_frame::Body {
        v1::control_frame::Body::Assign(v1::Assign {
            index: 1,
            attempts,
            specs: vec![v1::SpecBody {
                spec_bytes: self.spec_bytes.clone(),
            }],
        })
    }

    /// Assigns and grants the n-th call, `times` over.
    pub async fn submit(&self, n: usize, times: usize) -> Vec<Call> {
        let mut calls = Vec::new();
        let mut rest = times;
        while rest > 0 {
            let many = rest.min(256);
            rest -= many;
            let (mut assignments, mut grants) = (Vec::new(), Vec::new());
            for _ in 0..many {
                let (call, assignment, grant) = self.prepare(n);
                calls.push(call);
                assignments.push(assignment);
                grants.push(grant);
            }
            self.network.tell(self.assign(assignments)).await;
            let batch = self.network.grant(&grants);
            self.network
                .tell(v1::control_frame::Body::Grant(batch))
                .await;
        }
        calls
    }

    pub async fn call(&self, n: usize) -> Outcome {
        let call = self.submit(n, 1).await.remove(0);
        self.outcome(&call).await
    }

    /// Waits for a call's completion and opens what it sealed.
    pub async fn outcome(&self, call: &Call) -> Outcome {
        let what = format!("the outcome of {:?}", call.at);
        let completion = self
            .network
            .until(&what, |seen| seen.completions.get(&call.at).cloned())
            .await;
        let exit = Exit::try_from(completion.exit.clone().unwrap()).unwrap();
        let record = self.network.seen.lock().record.clone().unwrap();
        let tenant = self.network.tenant.public().tenant();
        let context = match exit.kind {
            ExitKind::Raised => StreamContext::exception(tenant, call.at, record.node()),
            ExitKind::EnvFailed => StreamContext::log(tenant, call.at, record.node(), u32::MAX),
            _ => StreamContext::result(tenant, call.at, record.node()),
        };
        let plain = completion.sealed.clone().map(|sealed| {
            let bytes = match Sealed::try_from(sealed).unwrap() {
                Sealed::Inline(bytes) => bytes,
                Sealed::Blob(blob) => self.network.seen.lock().blobs[&blob.digest].clone(),
            };
            let opened = open_padded(&call.key, &context, &bytes, 1 << 30).unwrap();
            let plain = farlane_codec::decompress(&opened, 1 << 30).unwrap();
            plain.into_owned()
        });
        Outcome {
            exit,
            plain,
            completion,
        }
    }

    /// What an attempt printed: the bytes of its records, and how much was dropped.
    pub async fn printed(&self, call: &Call) -> (String, u64) {
        let record = self.network.seen.lock().record.clone().unwrap();
        let tenant = self.network.tenant.public().tenant();
        let chunks = self
            .network
            .until("the log's end", |seen| {
                let at = v1::AttemptRef::from(call.at);
                let mine = |c: &&v1::LogChunk| c.attempt.as_ref() == Some(&at);
                let mut mine: Vec<_> = seen.logs.iter().filter(mine).cloned().collect();
                mine.sort_by_key(|chunk| chunk.chunk);
                mine.last().is_some_and(|chunk| chunk.last).then_some(mine)
            })
            .await;
        let mut text = Vec::new();
        for chunk in &chunks {
            let context = StreamContext::log(tenant, call.at, record.node(), chunk.chunk);
            let opened = open_padded(&call.key, &context, &chunk.sealed, 1 << 20).unwrap();
            let plain = farlane_codec::decompress(&opened, 1 << 20).unwrap();
            let mut rest = &plain[..];
            while !rest.is_empty() {
                let len = u32::from_le_bytes(rest[1..5].try_into().unwrap()) as usize;
                text.extend_from_slice(&rest[5..5 + len]);
                rest = &rest[5 + len..];
            }
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        (text, chunks.last().unwrap().dropped_bytes)
    }
}

impl Outcome {
    /// `repr` of a returned pickle.
    pub fn value(&self) -> String {
        assert_eq!(self.exit.kind, ExitKind::Returned, "{}", self.raised_text());
        let plain = self.plain.as_ref().unwrap();
        assert_eq!(plain[0], 1);
        repr(&plain[1..])
    }

    /// A field of the first link of a raised exception.
    pub fn raised(&self, field: &str) -> String {
        assert_eq!(self.exit.kind, ExitKind::Raised, "{self:?}");
        let plain = self.plain.as_ref().unwrap();
        let value = farlane_codec::value::decode(&plain[1..]).unwrap();
        let chain = get(&value, "chain").unwrap();
        let Value::List(links) = chain else {
            panic!("{chain:?}")
        };
        format!("{:?}", get(&links[0], field).unwrap())
    }

    pub fn raised_text(&self) -> String {
        match (&self.exit.kind, &self.plain) {
            (ExitKind::Raised, Some(_)) => self.raised("message"),
            _ => format!("{self:?}"),
        }
    }
}

fn get<'a, 'b>(value: &'a Value<'b>, key: &str) -> Option<&'a Value<'b>> {
    let Value::Dict(pairs) = value else {
        return None;
    };
    pairs
        .iter()
        .find(|(k, _)| matches!(k, Value::Str(s) if *s == key))
        .map(|(_, v)| v)
}

/// Whether every batch is signed by the node over exactly its items.
pub fn all_signed(network: &Network) -> bool {
    let seen = network.seen.lock();
    let record: &NodeRecord = seen.record.as_ref().unwrap();
    seen.batches.iter().all(|one| {
        let signature = one.signature.as_ref().unwrap();
        let session = farlane_wire::id::session(&one.session).unwrap();
        let leaves: Vec<_> = one
            .items
            .iter()
            .map(|item| {
                let at = AttemptRef::try_from(item.attempt.as_ref().unwrap()).unwrap();
                let exit = Exit::try_from(item.exit.clone().unwrap()).unwrap();
                let sealed = item
                    .sealed
                    .clone()
                    .map(|s| match Sealed::try_from(s).unwrap() {
                        Sealed::Inline(bytes) => Digest::of(&bytes),
                        Sealed::Blob(blob) => blob.digest,
                    });
                batch::leaf(&at, exit.kind, sealed.as_ref())
            })
            .collect();
        batch::join_leaves(&leaves) == signature.leaves
            && batch::verify(
                record,
                session,
                &signature.batch,
                &signature.leaves,
                &signature.signature,
            )
            .is_ok()
    })
}
