//! Getting an attempt ready: payload, function, environment, large arguments.
//!
//! Owns opening what is sealed towards this node, and the cache of opened functions. Leaves fetching
//! to `blobs` and building to `environment`. Small payloads with a known function are opened on the
//! spot; everything else runs as a task of its own.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use farlane_codec::FrameError;
use farlane_model::{AttemptRef, BlobRef, Digest, Sealed, TenantId};
use farlane_seal::payload::Payload;
use farlane_seal::stream::{OpenError, open_padded_owned};
use farlane_seal::{BlobKey, StreamContext, StreamKind, TaskKey};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::attempt::{Attempt, Code, Granted, Prepared, Spec};
use crate::blobs::{BlobError, Blobs};
use crate::environment::{BuildError, Environment, Environments, Wanted};
use crate::probe::python::Python;

/// Sealed bytes above this are opened on a blocking thread. Source: AES-256-GCM and lz4 at 1 GB/s:
/// 64 µs.
const INLINE: usize = 64 * 1024;
/// Most bytes of one opened payload, function or argument. Source: the largest blob that is taken.
const OPENED: usize = 2 << 30;
/// And of what a task may always have, whatever memory it asked for.
const OPENED_ANYWAY: usize = 64 << 20;
/// Most bytes of opened functions held.
const CODES: usize = 256 << 20;
/// Most functions held, opened or asked for: one that cannot be opened weighs nothing.
const MOST_CODES: usize = 4096;
/// Most bytes of one opened function.
const CODE: usize = 64 << 20;
/// Most bytes of one lock.
const LOCK: usize = 4 << 20;

/// Why an attempt cannot be run here.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unready {
    /// Sealed bytes, digests or keys do not fit: not retried as such.
    #[error("{0}")]
    Refused(&'static str),
    #[error("{0}")]
    Blob(#[from] BlobError),
    #[error("the environment could not be built")]
    Environment(String),
}

/// Functions opened, by blob and key: another tenant that names the same blob needs its key too.
#[derive(Debug, Default)]
pub(crate) struct Codes {
    held: Mutex<Held>,
}

type Cell = Arc<OnceCell<Arc<Code>>>;

#[derive(Debug, Default)]
struct Held {
    cells: HashMap<(Digest, TenantId), (BlobKey, Cell)>,
    /// Oldest first.
    order: std::collections::VecDeque<(Digest, TenantId)>,
    bytes: usize,
    next: u32,
}

impl Held {
    fn drop_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else {
            return;
        };
        let gone = self.cells.remove(&oldest);
        let size = gone.and_then(|(_, cell)| cell.get().map(|code| code.bytes.len()));
        self.bytes = self.bytes.saturating_sub(size.unwrap_or(0));
    }
}

impl Codes {
    /// The function, where it is open already.
    fn ready(&self, digest: Digest, tenant: TenantId, key: &BlobKey) -> Option<Arc<Code>> {
        let held = self.held.lock();
        let (known, cell) = held.cells.get(&(digest, tenant))?;
        if known != key {
            None
        } else {
            cell.get().cloned()
        }
    }

    fn cell(&self, digest: Digest, tenant: TenantId, key: &BlobKey) -> Cell {
        let mut held = self.held.lock();
        let name = (digest, tenant);
        match held.cells.get(&name) {
            Some((known, cell)) if known == key => cell.clone(),
            _ => {
                let cell = Cell::default();
                if held
                    .cells
                    .insert(name, (key.clone(), cell.clone()))
                    .is_none()
                {
                    held.order.push_back(name);
                }
                while held.order.len() > MOST_CODES {
                    held.drop_oldest();
                }
                cell
            }
        }
    }

    fn number(&self, size: usize) -> u32 {
        let mut held = self.held.lock();
        held.bytes += size;
        while held.bytes > CODES && held.order.len() > 1 {
            held.drop_oldest();
        }
        held.next += 1;
        held.next
    }
}

/// Everything that getting ready needs.
#[derive(Debug)]
pub(crate) struct Preparer {
    pub(crate) blobs: Blobs,
    pub(crate) codes: Codes,
    pub(crate) environments: Environments,
    pub(crate) pythons: Vec<Python>,
}

/// An order to get one attempt ready.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) spec: Arc<Spec>,
    pub(crate) grant: Granted,
    pub(crate) payload: Sealed,
    pub(crate) context: StreamContext,
    pub(crate) at: AttemptRef,
}

impl Order {
    pub(crate) fn of(attempt: &Attempt) -> Option<Self> {
        let (spec, grant) = (attempt.spec.clone()?, attempt.grant.clone()?);
        let context = StreamContext::payload(grant.tenant, attempt.at.task);
        Some(Self {
            spec,
            grant,
            payload: attempt.payload.clone(),
            context,
            at: attempt.at,
        })
    }
}

impl Order {
    /// Most bytes that one of its parts opens to: what its worker could not hold is not unpacked in the
    /// agent's memory, which no limit of the task's bounds.
    fn limit(&self) -> usize {
        let memory = usize::try_from(self.spec.spec.resources.memory.0).unwrap_or(OPENED);
        memory.clamp(OPENED_ANYWAY, OPENED)
    }
}

impl Preparer {
    /// Gets it ready on the spot; `None` where something must be fetched, built or is large.
    pub(crate) fn at_once(&self, order: &Order) -> Option<Result<Prepared, Unready>> {
        let Sealed::Inline(sealed) = &order.payload else {
            return None;
        };
        let spec = &order.spec.spec;
        if sealed.len() > INLINE || spec.environment.is_some() {
            return None;
        }
        let payload = match open_payload(order, sealed.clone()) {
            Ok(payload) => payload,
            Err(unready) => return Some(Err(unready)),
        };
        if !payload.blobs.is_empty() {
            return None;
        }
        let code = self
            .codes
            .ready(spec.code.digest, order.grant.tenant, &payload.code_key)?;
        let (rank, arguments) = (payload.rank, payload.arguments);
        Some(Ok(Prepared {
            code,
            rank,
            arguments,
            blobs: Vec::new(),
            environment: None,
        }))
    }

    /// Gets it ready, whatever it takes.
    ///
    /// *Errors*: see [`Unready`].
    pub(crate) async fn prepare(&self, order: Order) -> Result<Prepared, Unready> {
        let sealed = match &order.payload {
            Sealed::Inline(bytes) => bytes.clone(),
            Sealed::Blob(blob) => {
                if blob.digest != order.grant.payload_digest {
                    return Err(Unready::Refused(
                        "the payload is not the one that was granted",
                    ));
                }
                self.blobs.get(*blob, order.at).await?
            }
        };
        let order = Arc::new(order);
        let payload = {
            let order = order.clone();
            blocking(sealed.len(), move || open_payload(&order, sealed)).await?
        };
        let spec = &order.spec.spec;
        let code = self.code(&order, &payload.code_key).await?;
        let environment = match spec.environment {
            None => None,
            Some(wanted) => {
                let key = payload
                    .env_key
                    .as_ref()
                    .ok_or(Unready::Refused("the payload lacks its environment's key"))?;
                Some(self.environment(&order, wanted, key).await?)
            }
        };
        let mut blobs = Vec::with_capacity(payload.blobs.len());
        for (blob, key) in &payload.blobs {
            blobs.push(
                self.open_blob(&order, *blob, key, StreamKind::Argument, order.limit())
                    .await?,
            );
        }
        Ok(Prepared {
            code,
            rank: payload.rank,
            arguments: payload.arguments,
            blobs,
            environment,
        })
    }

    async fn code(&self, order: &Order, key: &BlobKey) -> Result<Arc<Code>, Unready> {
        let (blob, tenant) = (order.spec.spec.code, order.grant.tenant);
        let cell = self.codes.cell(blob.digest, tenant, key);
        let opened = cell.get_or_try_init(|| async {
            let bytes = self
                .open_blob(order, blob, key, StreamKind::Code, CODE)
                .await?;
            let number = self.codes.number(bytes.len());
            Ok::<_, Unready>(Arc::new(Code { number, bytes }))
        });
        opened.await.cloned()
    }

    async fn environment(
        &self,
        order: &Order,
        wanted: farlane_model::EnvRef,
        key: &BlobKey,
    ) -> Result<Arc<Environment>, Unready> {
        let version = order.spec.spec.node.python;
        let python = self
            .pythons
            .iter()
            .find(|python| python.interpreter.version == version)
            .ok_or(Unready::Refused(
                "this node does not have that interpreter any more",
            ))?;
        let tenant = order.grant.tenant;
        let lock = self
            .open_blob(order, wanted.lock, key, StreamKind::Lock, LOCK)
            .await?;
        let wanted = Wanted {
            tenant,
            project: order.spec.spec.project,
            id: wanted.id,
            lock,
            python,
        };
        self.environments
            .get(wanted)
            .await
            .map_err(|BuildError { log }| Unready::Environment(log))
    }

    async fn open_blob(
        &self,
        order: &Order,
        blob: BlobRef,
        key: &BlobKey,
        kind: StreamKind,
        limit: usize,
    ) -> Result<Bytes, Unready> {
        let sealed = self.blobs.get(blob, order.at).await?;
        let (key, context) = (key.clone(), StreamContext::blob(kind, order.grant.tenant));
        blocking(sealed.len(), move || open(&key, &context, sealed, limit)).await
    }
}

fn open_payload(order: &Order, sealed: Bytes) -> Result<Payload, Unready> {
    if Digest::of(&sealed) != order.grant.payload_digest {
        return Err(Unready::Refused(
            "the payload is not the one that was granted",
        ));
    }
    let plain = open(&order.grant.key, &order.context, sealed, order.limit())?;
    let payload =
        Payload::decode(plain).map_err(|_| Unready::Refused("the payload cannot be read"))?;
    if payload.spec != order.grant.spec_digest {
        return Err(Unready::Refused(
            "the task asked for other terms than were granted",
        ));
    }
    // A task on its own is as a gang of one.
    if payload.rank >= order.spec.spec.gang.map_or(1, |gang| gang.size) {
        return Err(Unready::Refused("the task's rank is none of its gang's"));
    }
    Ok(payload)
}

fn open(
    key: &TaskKey,
    context: &StreamContext,
    sealed: Bytes,
    limit: usize,
) -> Result<Bytes, Unready> {
    const LARGE: &str = "what the task brings is larger than the memory that it asks for";
    // Padding and the frame's head come on top; source: farlane-seal, `pad`, an eighth at most.
    let frame = open_padded_owned(key, context, sealed, limit + limit / 8 + 4096);
    let frame = frame.map_err(|error| match error {
        OpenError::TooLarge { .. } => Unready::Refused(LARGE),
        _ => Unready::Refused("sealed bytes do not open with the granted key"),
    })?;
    farlane_codec::decompress_owned(frame, limit).map_err(|error| match error {
        FrameError::TooLarge { .. } => Unready::Refused(LARGE),
        _ => Unready::Refused("sealed bytes cannot be decompressed"),
    })
}

/// Runs `work` here when its input is small, else where it may block.
async fn blocking<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> Result<T, Unready> + Send + 'static,
) -> Result<T, Unready> {
    if size <= INLINE {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Unready::Refused(
            "opening it failed; please report this",
        )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_cannot_be_opened_are_forgotten_too() {
        let codes = Codes::default();
        for n in 0..2 * MOST_CODES {
            let digest = Digest::of(&n.to_le_bytes());
            let key = BlobKey::from_bytes([(n % 2) as u8; 32]);
            codes.cell(digest, TenantId::default(), &key);
            // The same blob with another key takes the place of the first.
            codes.cell(digest, TenantId::default(), &BlobKey::from_bytes([9; 32]));
        }
        let held = codes.held.lock();
        assert_eq!(
            (held.cells.len(), held.order.len()),
            (MOST_CODES, MOST_CODES)
        );
    }

    #[test]
    fn what_would_unpack_to_more_than_its_limit_is_refused() {
        let (key, tenant) = (TaskKey::from_bytes([1; 32]), TenantId::default());
        let context = StreamContext::blob(StreamKind::Argument, tenant);
        let sealed = |len| {
            let plain = vec![0; len];
            let frame = farlane_codec::compress(&plain);
            let parts = farlane_seal::stream::seal_padded_parts(&key, &context, &frame.parts());
            Bytes::from(parts)
        };
        let limit = 1 << 20;
        assert!(open(&key, &context, sealed(limit), limit).is_ok_and(|b| b.len() == limit));
        assert!(sealed(limit + 1).len() < limit / 16);
        for large in [limit + 1, 64 * limit] {
            let refused = open(&key, &context, sealed(large), limit);
            assert!(matches!(refused, Err(Unready::Refused(why)) if why.contains("larger")));
        }
    }
}
