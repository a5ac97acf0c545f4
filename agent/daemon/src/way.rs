//! The way to the servers: how much goes through, and how far those are that do not lead.
//!
//! ```text
//! blobs that are fetched ─▶ second half timed ─┐
//! idle, nothing moved for an hour ─▶ a probe ──┴▶ bandwidth from the servers ─▶ heartbeats
//! every ten minutes: three echoes to each other server, the least counts ─────▶ heartbeats, once
//! ```
//! Owns what is measured here. The way up, and how far the leader is, the servers measure themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use farlane_runtime::{Clock, Pace, SystemClock, Throughput};
use farlane_units::{ByteCount, ByteRate, Micros};
use farlane_wire::channel::{self, MAX_MESSAGE};
use farlane_wire::hello::{PROBE_BYTES, PROBE_CHUNK, PROBE_PAUSE_MS};
use farlane_wire::v1;
use farlane_wire::v1::fleet_client::FleetClient;
use parking_lot::Mutex;
use tonic::Status;
use tonic::transport::Channel;

/// Echoes of one look at a server. Source: the least of three holds few queues.
const ECHOES: usize = 3;
/// Longest that one server is waited for: connecting, and its echoes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Servers looked at. Source: fleet.proto, `Heartbeat`.
const MAX_SERVERS: usize = 10;
/// Between two looks at the other servers. Source: choice; a look is a handshake and three echoes, some 10 KiB, and
/// what it is for, distances between regions, changes seldom.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(600);

/// What is known of the way.
#[derive(Debug, Default)]
pub(crate) struct Way {
    down: Mutex<Throughput>,
    /// When something was timed last, on the steady clock; 0 never.
    timed: AtomicU64,
    /// As found last.
    servers: Mutex<Vec<v1::ServerTrip>>,
    /// The leader has not been told of them.
    untold: AtomicBool,
    /// When they were looked at last, on the steady clock; 0 never.
    looked: AtomicU64,
}

impl Way {
    /// A transfer from a server has ended.
    pub(crate) fn came(&self, pace: &Pace) {
        if let Some((bytes, time)) = pace.timed() {
            self.down.lock().see(bytes, time);
            self.timed.store(now().0, Ordering::Relaxed);
        }
    }

    /// Bandwidth from the servers.
    pub(crate) fn down(&self) -> Option<ByteRate> {
        self.down.lock().rate()
    }

    /// Whether nothing was timed for so long that a probe is due.
    pub(crate) fn is_stale(&self) -> bool {
        match self.timed.load(Ordering::Relaxed) {
            0 => true,
            at => now().saturating_sub(Micros(at)).0 >= PROBE_PAUSE_MS * 1000,
        }
    }

    /// Another server leads, or the same anew: it knows nothing of the others.
    pub(crate) fn connected(&self) {
        self.untold.store(true, Ordering::Relaxed);
    }

    /// How far the other servers are, where the leader has not been told yet.
    pub(crate) fn tell_servers(&self) -> Vec<v1::ServerTrip> {
        match self.untold.swap(false, Ordering::Relaxed) {
            true => self.servers.lock().clone(),
            false => Vec::new(),
        }
    }

    /// Sends a probe's bytes and takes as many back, which is timed.
    ///
    /// *Errors*: the server does not take it, now or at all.
    pub(crate) async fn probe(self: Arc<Self>, channel: Channel) -> Result<(), Status> {
        // Whatever comes of it, the next is not due before its time.
        self.timed.store(now().0, Ordering::Relaxed);
        let piece = Bytes::from(vec![0; PROBE_CHUNK]);
        let pieces = std::iter::repeat_n(v1::ProbeChunk { data: piece }, PROBE_BYTES / PROBE_CHUNK);
        let mut client = FleetClient::new(channel);
        let answer = client.probe(tokio_stream::iter(pieces)).await?;
        let mut answer = answer.into_inner();
        let mut pace = Pace::new(ByteCount(PROBE_BYTES as u64));
        while let Some(chunk) = answer.message().await? {
            pace.came(chunk.data.len(), now());
        }
        self.came(&pace);
        Ok(())
    }

    /// Looks how far each of these servers is, unless that was done not long ago.
    pub(crate) async fn look(
        self: Arc<Self>,
        servers: Vec<v1::ServerAt>,
        ca_pem: String,
        identity: (String, String),
    ) {
        let looked = self.looked.load(Ordering::Relaxed);
        let since = now().saturating_sub(Micros(looked));
        if looked != 0 && u128::from(since.0) < LOOK_EVERY.as_micros() / 2 {
            return;
        }
        self.looked.store(now().0, Ordering::Relaxed);
        let mut found = Vec::new();
        for server in servers.into_iter().take(MAX_SERVERS) {
            let looking = echoes(&server.url, &ca_pem, (&identity.0, &identity.1));
            match tokio::time::timeout(PATIENCE, looking).await {
                Ok(Some(trip)) => found.push(v1::ServerTrip {
                    server: server.server,
                    round_trip_micros: trip.0,
                }),
                // One that is away is no further than before.
                Ok(None) | Err(_) => {
                    tracing::debug!(url = server.url, "another server does not answer now");
                }
            }
        }
        *self.servers.lock() = found;
        self.untold.store(true, Ordering::Relaxed);
    }
}

fn now() -> Micros {
    SystemClock.steady()
}

/// The least of some round trips over a connection of its own.
async fn echoes(url: &str, ca_pem: &str, identity: (&str, &str)) -> Option<Micros> {
    let urls = [url.to_owned()];
    let channel = channel::connect(&urls, ca_pem, Some(identity)).await.ok()?;
    let mut client = FleetClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let mut least = None;
    for _ in 0..ECHOES {
        let asked = now();
        client.echo(v1::EchoRequest {}).await.ok()?;
        let trip = now().saturating_sub(asked);
        least = Some(least.map_or(trip, |least: Micros| least.min(trip)));
    }
    least
}
