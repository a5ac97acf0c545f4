//! What is submitted: code and environments put once, specs shared by many calls.
//!
//! Sealed bytes leave through an [`Upload`], which starts at once and which every call that names
//! them awaits before it is sent.

use std::sync::Arc;

use bytes::Bytes;
use farlane_model::{
    Amount, BlobRef, Company, Declared, Demand, Digest, EnvRef, ForwardSecrecy, Gang, GpuRequest,
    LOG_LIMIT, NodeRequest, PolicyName, ProjectId, PythonVersion, Resources, Retry, TaskSpec,
    Timing,
};
use farlane_seal::TaskKey;
use farlane_seal::grant::attempts_allowed;
use farlane_units::ByteCount;
use tokio::sync::watch;

use crate::Error;
use crate::data::{Data, stay};

/// Where an upload stands.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    Running,
    Done,
    Failed(Error),
}

/// Ciphertext on its way to the blob store, and the key that opens it.
#[derive(Clone)]
pub struct Upload {
    pub(crate) blob: BlobRef,
    pub(crate) key: TaskKey,
    pub(crate) progress: watch::Receiver<Progress>,
}

impl Upload {
    /// Its name in the store.
    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Done)
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        match &*self.progress.borrow() {
            Progress::Failed(error) => Some(error.clone()),
            Progress::Running | Progress::Done => None,
        }
    }

    /// Waits until the store has acknowledged it.
    ///
    /// *Errors*: the failure of the upload.
    pub(crate) async fn wait(mut self) -> Result<(), Error> {
        loop {
            match &*self.progress.borrow_and_update() {
                Progress::Done => return Ok(()),
                Progress::Failed(error) => return Err(error.clone()),
                Progress::Running => {}
            }
            if self.progress.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }
}

/// A pickled function in the blob store.
#[derive(Clone)]
pub struct Code(pub(crate) Upload);

/// A hashed lock in the blob store.
#[derive(Clone)]
pub struct Environment {
    pub(crate) id: Digest,
    pub(crate) upload: Upload,
}

/// A large buffer of an argument in the blob store; many calls may share it.
#[derive(Clone)]
pub struct Argument(pub(crate) Upload);

impl Argument {
    /// Its name in the store.
    pub fn blob(&self) -> BlobRef {
        self.0.blob
    }
}

/// A [`TaskSpec`] without what the client fills in.
#[derive(Debug, Clone)]
pub struct Template {
    /// Name for people; at most 256 bytes.
    pub function: String,
    /// Held while running.
    pub resources: Resources,
    /// Which GPUs those are.
    pub gpu: GpuRequest,
    /// Named resources held while running, in any order.
    pub amounts: Vec<Amount>,
    /// Where. Lists in any order.
    pub node: NodeRequest,
    /// Data that it must stay with: it runs on one of these nodes, or of those that `node` names, alone.
    pub data: Vec<Data>,
    /// Among which others. Affinities in any order.
    pub company: Company,
    /// One of so many that run at once; see [`crate::Client::submit_gang`].
    pub gang: Option<Gang>,
    /// Again?
    pub retry: Retry,
    /// Until when.
    pub timing: Timing,
    /// What its placement minimises; `None`: what its project has set, else `balanced`.
    pub policy: Option<PolicyName>,
    /// What one attempt computes, where its author knows: estimates begin with it.
    pub work: Option<Declared>,
    /// −100 to 100.
    pub priority: i8,
    /// Prekey policy.
    pub forward_secrecy: ForwardSecrecy,
    /// Most bytes of output kept.
    pub log_limit: ByteCount,
}

impl Template {
    /// What a call gets that asks for nothing, with this name and interpreter.
    pub fn new(function: impl Into<String>, python: PythonVersion) -> Self {
        Self {
            function: function.into(),
            resources: Resources::default(),
            gpu: GpuRequest::default(),
            amounts: Vec::new(),
            node: NodeRequest::any(python),
            data: Vec::new(),
            company: Company::default(),
            gang: None,
            retry: Retry::default(),
            timing: Timing::default(),
            policy: None,
            work: None,
            priority: 0,
            forward_secrecy: ForwardSecrecy::default(),
            log_limit: LOG_LIMIT,
        }
    }
}

impl Template {
    /// One request has one encoding: every list is sorted, and each of it is there once.
    fn sort(&mut self) {
        fn tidy<T: Ord>(list: &mut Vec<T>) {
            list.sort();
            list.dedup();
        }
        self.amounts.sort();
        tidy(&mut self.node.providers);
        tidy(&mut self.node.keep_on);
        for rule in &mut self.node.labels {
            if let Demand::In(values) | Demand::NotIn(values) = &mut rule.demand {
                tidy(values);
            }
        }
        tidy(&mut self.node.labels);
        tidy(&mut self.company.affinities);
    }
}

/// A checked spec with its code and environment: submit calls with it.
#[derive(Clone)]
pub struct Spec(pub(crate) Arc<SpecInner>);

pub(crate) struct SpecInner {
    pub digest: Digest,
    /// Most attempts that may be granted.
    pub grants: u32,
    /// Where it may run.
    pub place: Arc<NodeRequest>,
    /// One of so many that run at once.
    pub gang: Option<Gang>,
    pub canonical: Bytes,
    pub code: Upload,
    pub environment: Option<Upload>,
}

impl Spec {
    /// Puts a template, a code and an environment together.
    ///
    /// *Errors*: a field out of its bounds, or two that contradict each other.
    pub(crate) fn build(
        project: ProjectId,
        mut template: Template,
        code: &Code,
        environment: Option<&Environment>,
    ) -> Result<Self, Error> {
        stay(&mut template.node, std::mem::take(&mut template.data))?;
        template.sort();
        let spec = TaskSpec {
            project,
            function: template.function,
            code: code.0.blob,
            environment: environment.map(|e| EnvRef {
                id: e.id,
                lock: e.upload.blob,
            }),
            resources: template.resources,
            gpu: template.gpu,
            amounts: template.amounts,
            node: template.node,
            company: template.company,
            gang: template.gang,
            retry: template.retry,
            timing: template.timing,
            policy: template.policy,
            work: template.work,
            priority: template.priority,
            forward_secrecy: template.forward_secrecy,
            log_limit: template.log_limit,
        };
        spec.check()?;
        let canonical = Bytes::from(spec.to_canonical());
        Ok(Self(Arc::new(SpecInner {
            digest: Digest::of(&canonical),
            grants: attempts_allowed(&spec.retry),
            gang: spec.gang,
            place: Arc::new(spec.node),
            canonical,
            code: code.0.clone(),
            environment: environment.map(|e| e.upload.clone()),
        })))
    }

    /// Of its canonical bytes.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// Its canonical bytes.
    pub fn canonical(&self) -> &Bytes {
        &self.0.canonical
    }
}

/// One call: a spec and its arguments.
#[derive(Clone)]
pub struct Call {
    /// What many calls share.
    pub spec: Spec,
    /// `Payload.arguments` of docs/design/payload.md.
    pub arguments: Bytes,
    /// The payload's blobs, in the order that `arguments` names them.
    pub blobs: Vec<Argument>,
    /// Same key, same project, within 24 h: the same task.
    pub idempotency_key: Option<String>,
    /// Comes back in [`crate::Delivered`].
    pub token: u64,
}
