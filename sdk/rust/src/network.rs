//! A network seen from a client: the channel and the identity.
//!
//! Owns dialling, authentication, errors in the client's words, and the estimate of cluster time. Leaves single
//! questions to `question`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use farlane_model::{Digest, TenantId};
use farlane_seal::identity::Identity;
use farlane_seal::record::{NodeRecord, RevocationPolicy};
use farlane_units::Millis;
use farlane_wire::v1;
use farlane_wire::v1::network_client::NetworkClient;
use farlane_wire::{ErrorCode, channel};
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::transport::Channel;

use crate::Error;
use crate::options::ConnectOptions;

/// How far behind this machine's clock a server's may be. Source: transport certificates
/// live 24 h, so a machine whose clock is further ahead cannot connect at all.
const MAX_BEHIND_MS: i64 = 24 * 3_600_000;
/// And ahead: nothing can be made good by it, sums must not overflow. Source: a century.
const MAX_AHEAD_MS: i64 = 100 * 365 * 24 * 3_600_000;
/// Blobs under way at once: enough to fill a WAN, few enough to bound memory.
const MAX_BULK: usize = 8;
/// Ciphertext held for uploads before callers wait: four of the largest arrays of the bench.
const MAX_UPLOADING_BYTES: u64 = 256 << 20;
/// Waits between tries of the first dial.
const REDIAL_EVERY: Duration = Duration::from_millis(100);
/// What a try gets at least, however little patience is left: more than a handshake on one's own machine.
pub(crate) const SHORTEST_TRY: Duration = Duration::from_millis(50);

/// A handle on one network as one identity; cheap to clone.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    identity: Identity,
    options: ConnectOptions,
    /// Tried in order; the last one known to lead comes first.
    urls: RwLock<Vec<String>>,
    channel: RwLock<Option<Channel>>,
    bulk: Semaphore,
    /// Ciphertext on its way to the blob store.
    uploading: Mutex<u64>,
    uploaded: Condvar,
    /// Pieces that the network has taken: see [`Network::moved`].
    moved: AtomicU64,
    /// Cluster time − own clock, ms.
    offset_ms: AtomicI64,
    /// Keys the idempotency keys and environment ids of the project.
    naming_key: [u8; 32],
}

impl Network {
    /// Dials a network; for single questions. A [`crate::Client`] does so by itself.
    ///
    /// *Errors*: no server answers in `options.connect_timeout`, or the identity is not accepted.
    pub async fn connect(identity: Identity, options: ConnectOptions) -> Result<Self, Error> {
        let network = Self::new(identity, options);
        let begun = Instant::now();
        let patience = network.options().connect_timeout;
        loop {
            let left = patience.saturating_sub(begun.elapsed());
            match network.within(left, network.dial()).await {
                Ok(()) => return Ok(network),
                Err(error) if begun.elapsed() >= patience => {
                    return Err(network.unreachable(begun.elapsed(), &error));
                }
                Err(_) => tokio::time::sleep(REDIAL_EVERY).await,
            }
        }
    }

    pub(crate) fn new(identity: Identity, options: ConnectOptions) -> Self {
        let naming_key = blake3::derive_key("farlane/names/1", identity.vault.expose());
        Self(Arc::new(Inner {
            urls: RwLock::new(identity.urls.clone()),
            channel: RwLock::new(None),
            bulk: Semaphore::new(MAX_BULK),
            uploading: Mutex::new(0),
            uploaded: Condvar::new(),
            moved: AtomicU64::new(0),
            offset_ms: AtomicI64::new(0),
            naming_key,
            identity,
            options,
        }))
    }

    /// Whose eyes this sees with.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    pub(crate) fn options(&self) -> &ConnectOptions {
        &self.0.options
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.0.identity.tenant()
    }

    /// Opens a channel to the first address that answers.
    pub(crate) async fn dial(&self) -> Result<(), Error> {
        let urls = self.0.urls.read().clone();
        let channel = channel::connect(&urls, self.0.identity.ca_pem.as_bytes(), None)
            .await
            .map_err(|e| self.unexpected(&error_chain(&e)))?;
        *self.0.channel.write() = Some(channel);
        Ok(())
    }

    /// A step of connecting, given up after `left`: a server that has stopped still takes connections,
    /// and never answers.
    pub(crate) async fn within<T>(
        &self,
        left: Duration,
        step: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let late = || self.unexpected("no answer");
        let done = tokio::time::timeout(left.max(SHORTEST_TRY), step).await;
        done.unwrap_or_else(|_| Err(late()))
    }

    /// Puts an address first.
    pub(crate) fn prefer(&self, url: &str) {
        let mut urls = self.0.urls.write();
        urls.retain(|known| known != url);
        urls.insert(0, url.to_owned());
        urls.truncate(16);
    }

    /// A client on the channel; `dial` came before.
    pub(crate) fn client(&self) -> NetworkClient<Channel> {
        let channel = self.0.channel.read().clone();
        let channel = channel.expect("a network is handed out only once it was dialled");
        NetworkClient::new(channel)
            .max_decoding_message_size(channel::MAX_MESSAGE)
            .max_encoding_message_size(channel::MAX_MESSAGE)
    }

    /// Authenticates a request.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        channel::authorize(request.metadata_mut(), &self.0.identity.api_key);
        request
    }

    pub(crate) async fn bulk_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.0.bulk.acquire().await.ok()
    }

    /// Counts an upload; the guard takes it back.
    pub(crate) fn uploading(&self, bytes: u64) -> Uploading {
        *self.0.uploading.lock() += bytes;
        Uploading {
            network: self.clone(),
            bytes,
        }
    }

    /// Waits until less than [`MAX_UPLOADING_BYTES`] are on their way, at most `patience`; `false`
    /// where that was not in time.
    pub(crate) fn wait_upload_room(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut bytes = self.0.uploading.lock();
        while *bytes >= MAX_UPLOADING_BYTES {
            if self.0.uploaded.wait_until(&mut bytes, until).timed_out() {
                return *bytes < MAX_UPLOADING_BYTES;
            }
        }
        true
    }

    /// Notes that the network has taken something.
    pub(crate) fn moves(&self) {
        self.0.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that grows while acknowledgements come or uploads leave: who waits for a network that is
    /// slow can tell it from one that is away.
    pub(crate) fn moved(&self) -> u64 {
        self.0.moved.load(Ordering::Relaxed)
    }

    pub(crate) fn hello(&self) -> v1::Hello {
        farlane_wire::hello(&self.0.options.software)
    }

    pub(crate) fn device_bytes(&self) -> Bytes {
        self.0.identity.device.to_bytes()
    }

    /// Holds the server's answer against the identity and takes its time.
    pub(crate) fn check_opened(&self, opened: &v1::SessionOpened) -> Result<(), Error> {
        if opened.project[..] != self.0.identity.project.to_bytes() {
            return Err(Error::Auth(
                "the server opened another project than the identity's".to_owned(),
            ));
        }
        if opened.network[..] != self.0.identity.network[..] {
            return Err(Error::Auth(
                "this server belongs to another network than the identity".to_owned(),
            ));
        }
        let offset = offset_ms(opened.cluster_time_ms, wall_ms());
        self.0.offset_ms.store(offset, Ordering::Relaxed);
        Ok(())
    }

    /// Cluster time, as well as this side knows it.
    pub(crate) fn cluster_now(&self) -> Millis {
        let offset = self.0.offset_ms.load(Ordering::Relaxed);
        Millis(wall_ms().saturating_add_signed(offset))
    }

    /// A name that the control plane can compare and not read.
    pub(crate) fn keyed(&self, text: &str) -> String {
        blake3::keyed_hash(&self.0.naming_key, text.as_bytes())
            .to_hex()
            .to_string()
    }

    pub(crate) fn keyed_digest(&self, parts: &[&[u8]]) -> Digest {
        let mut hash = blake3::Hasher::new_keyed(&self.0.naming_key);
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Digest(*hash.finalize().as_bytes())
    }

    /// A node's record whose chain ends at a pinned provider, and whether that is our own.
    ///
    /// *Errors*: no pinned root stands behind it.
    pub(crate) fn trusted_record(&self, bytes: &[u8]) -> Result<(NodeRecord, bool), Error> {
        let bad = |e: farlane_seal::record::RecordError| Error::Integrity(e.to_string());
        let record = NodeRecord::from_bytes(bytes).map_err(bad)?;
        let pins = &self.0.identity.manifest.providers;
        let pin = record
            .check(pins, None, RevocationPolicy::WhenGiven, self.cluster_now())
            .map_err(bad)?;
        let own = pin.own;
        Ok((record, own))
    }

    pub(crate) fn jittered(&self, wait: Duration) -> Duration {
        let draw = f64::from(u16::from_le_bytes(farlane_seal::random::bytes())) / 65536.0;
        wait.mul_f64(0.5 + draw / 2.0)
    }

    // Errors in the client's words.

    pub(crate) fn unexpected(&self, reason: &str) -> Error {
        let urls = self.0.urls.read().clone();
        Error::Connection {
            urls,
            tried: Duration::ZERO,
            reason: reason.to_owned(),
        }
    }

    pub(crate) fn unreachable(&self, tried: Duration, last: &Error) -> Error {
        match last {
            Error::Connection { urls, reason, .. } => Error::Connection {
                urls: urls.clone(),
                tried,
                reason: reason.clone(),
            },
            other => other.clone(),
        }
    }

    pub(crate) fn refused(&self, status: tonic::Status) -> Error {
        match ErrorCode::of(&status) {
            Some(code) => self.coded(code, status.message()),
            None => self.unexpected(&reason(&status)),
        }
    }

    pub(crate) fn refusal(&self, refusal: v1::Refusal) -> Error {
        match refusal.code.parse::<ErrorCode>() {
            Ok(code) => self.coded(code, &refusal.message),
            Err(_) => Error::Refused {
                code: refusal.code,
                message: refusal.message,
            },
        }
    }

    fn coded(&self, code: ErrorCode, message: &str) -> Error {
        match code {
            ErrorCode::Unauthenticated
            | ErrorCode::PermissionDenied
            | ErrorCode::KeyRevoked
            | ErrorCode::KeyExpired => Error::Auth(message.to_owned()),
            ErrorCode::NotLeader | ErrorCode::Unavailable => self.unexpected(message),
            _ => Error::Refused {
                code: code.to_string(),
                message: message.to_owned(),
            },
        }
    }
}

/// An upload under way.
pub(crate) struct Uploading {
    network: Network,
    bytes: u64,
}

impl Drop for Uploading {
    fn drop(&mut self) {
        *self.network.0.uploading.lock() -= self.bytes;
        self.network.0.uploaded.notify_all();
    }
}

/// Cluster time less this machine's, in milliseconds. Certificates, manifests, prekeys and lists of the
/// revoked are held against cluster time, so a server must not be able to turn it back to when one that
/// has expired was good.
fn offset_ms(cluster_ms: u64, wall_ms: u64) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let offset = signed(cluster_ms) - signed(wall_ms);
    offset.clamp(-MAX_BEHIND_MS, MAX_AHEAD_MS)
}

fn wall_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An error and its causes in one line: a transport error says little by itself.
fn error_chain(error: &dyn std::error::Error) -> String {
    with_causes(error.to_string(), error)
}

/// What a status that is none of the server's own says, without the library's own words around it.
fn reason(status: &tonic::Status) -> String {
    let text = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    with_causes(text.to_owned(), status)
}

fn with_causes(mut text: String, error: &dyn std::error::Error) -> String {
    let mut cause = error.source();
    while let Some(next) = cause {
        let line = next.to_string();
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_turns_the_clock_back_to_what_has_expired() {
        let wall = 1_800_000_000_000;
        assert_eq!(offset_ms(wall - 5_000, wall), -5_000);
        assert_eq!(offset_ms(wall + 5_000, wall), 5_000);
        assert_eq!(offset_ms(0, wall), -MAX_BEHIND_MS);
        assert_eq!(offset_ms(u64::MAX, wall), MAX_AHEAD_MS);
        assert_eq!(offset_ms(0, u64::MAX), -MAX_BEHIND_MS);
    }
}
