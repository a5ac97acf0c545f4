//! What an attempt prints: gathered, bounded, sealed, pushed.
//!
//! Owns the gathering and the bound. Leaves keeping the chunks to the control plane, which cannot
//! read them.

use bytes::{BufMut, Bytes, BytesMut};
use farlane_model::{AttemptRef, NodeId};
use farlane_seal::StreamContext;
use farlane_seal::stream::seal_padded_parts;
use farlane_wire::v1;
use farlane_wire::v1::fleet_client::FleetClient;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

use super::attempt::Granted;

/// A chunk is sealed when it holds this much, or a while has passed. Source: one row (16 KiB) less
/// what sealing, padding and records add.
const CHUNK: usize = 15 * 1024;
/// Most bytes of one record, its head aside.
const RECORD: usize = 8 * 1024;
/// Most chunks waiting for the server, all attempts together; beyond it the newest are dropped.
pub(crate) const QUEUE: usize = 512;

/// One attempt's output so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pending: BytesMut,
    /// Bytes taken, of the task's own.
    taken: u64,
    dropped: u64,
    chunks: u32,
}

impl Log {
    /// Takes output, up to `limit` in all; true when a chunk is full.
    pub(crate) fn take(&mut self, stream: u8, data: &[u8], limit: u64) -> bool {
        let room = limit.saturating_sub(self.taken).min(data.len() as u64) as usize;
        self.dropped += (data.len() - room) as u64;
        self.taken += room as u64;
        for piece in data[..room].chunks(RECORD) {
            self.pending.put_u8(stream);
            self.pending.put_u32_le(piece.len() as u32);
            self.pending.put_slice(piece);
        }
        self.pending.len() >= CHUNK
    }

    /// The worker dropped so much itself.
    pub(crate) fn drop_more(&mut self, bytes: u32) {
        self.dropped += u64::from(bytes);
    }

    /// Whether there is something to send, `at_end` counting what was dropped.
    pub(crate) fn is_due(&self, at_end: bool) -> bool {
        !self.pending.is_empty() || (at_end && (self.chunks > 0 || self.dropped > 0))
    }

    /// Seals what has gathered.
    pub(crate) fn seal(
        &mut self,
        at: AttemptRef,
        grant: &Granted,
        node: NodeId,
        last: bool,
    ) -> Vec<v1::LogChunk> {
        let mut chunks = Vec::new();
        let mut rest = self.pending.split().freeze();
        loop {
            let piece = rest.split_to(record_boundary(&rest));
            let last = last && rest.is_empty();
            if piece.is_empty() && !last {
                return chunks;
            }
            let context = StreamContext::log(grant.tenant, at, node, self.chunks);
            let frame = farlane_codec::compress(&piece);
            let sealed = seal_padded_parts(&grant.key, &context, &frame.parts());
            chunks.push(v1::LogChunk {
                attempt: Some(at.into()),
                chunk: self.chunks,
                node: farlane_wire::id::node_bytes(&node),
                sealed: sealed.into(),
                last,
                dropped_bytes: if last { self.dropped } else { 0 },
            });
            self.chunks += 1;
            if rest.is_empty() {
                return chunks;
            }
        }
    }
}

/// Bytes of the whole records that fit into one chunk.
fn record_boundary(records: &[u8]) -> usize {
    let mut at = 0;
    while let Some(head) = records.get(at..at + 5) {
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let next = at + 5 + len;
        if at > 0 && next > CHUNK + 1024 {
            break;
        }
        at = next;
    }
    at.min(records.len())
}

/// Pushes chunks for as long as there is a connection; what could not go is tried on the next one.
pub(crate) async fn push(
    mut chunks: mpsc::Receiver<v1::LogChunk>,
    mut channel: watch::Receiver<Option<Channel>>,
) {
    let mut held: Option<v1::LogChunk> = None;
    loop {
        let first = match held.take() {
            Some(chunk) => chunk,
            None => match chunks.recv().await {
                Some(chunk) => chunk,
                None => return,
            },
        };
        let live = match channel.wait_for(Option::is_some).await {
            Ok(live) => live.clone(),
            Err(_) => return,
        };
        let Some(live) = live else { continue };
        let (send, stream) = mpsc::channel(16);
        let _ = send.try_send(first);
        let mut client = FleetClient::new(live);
        let call = client.push_logs(tokio_stream::wrappers::ReceiverStream::new(stream));
        tokio::pin!(call);
        // One stream serves until it has been quiet for a while, so that the server can account for it.
        loop {
            tokio::select! {
                answer = &mut call => {
                    if let Err(status) = answer {
                        tracing::debug!(%status, "log chunks were not taken");
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    }
                    break;
                }
                next = tokio::time::timeout(QUIET, chunks.recv()) => match next {
                    Ok(Some(chunk)) => {
                        tokio::select! {
                            sent = send.send(chunk) => if let Err(unsent) = sent {
                                held = Some(unsent.0);
                                break;
                            },
                            _ = &mut call => break,
                        }
                    }
                    Ok(None) | Err(_) => {
                        drop(send);
                        let _ = call.await;
                        break;
                    }
                },
            }
        }
    }
}

/// A quiet stream of logs is closed after this long.
const QUIET: std::time::Duration = std::time::Duration::from_millis(500);

/// A build log as it stands in for a result: its end, as a safe value.
pub(crate) fn build_log(text: &str) -> Bytes {
    /// Source: docs/design/payload.md, "Environment not built".
    const MOST: usize = 64 * 1024;
    let from = (text.len().saturating_sub(MOST)..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len());
    let value = farlane_codec::value::Value::Str(&text[from..]);
    let mut out = vec![0];
    out.extend(farlane_codec::value::encode(&value).unwrap_or_default());
    out.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn granted() -> Granted {
        let digest = farlane_model::Digest([0; 32]);
        Granted {
            key: farlane_seal::TaskKey::from_bytes([1; 32]),
            tenant: Default::default(),
            own: true,
            spec_digest: digest,
            payload_digest: digest,
        }
    }

    #[test]
    fn output_is_bounded_and_what_is_dropped_is_said() {
        let at = AttemptRef {
            task: farlane_model::SessionId::new(0, [0; 5]).task(1),
            attempt: 1,
            epoch: 1,
        };
        let mut log = Log::default();
        assert!(!log.is_due(true));
        assert!(log.take(1, &[b'x'; 100_000], 60_000));
        log.take(2, b"more", 60_000);
        let chunks = log.seal(at, &granted(), NodeId::default(), true);
        assert!(chunks.len() >= 4);
        assert!(
            chunks
                .iter()
                .all(|c| c.sealed.len() <= farlane_model::MAX_ROW_BYTES * 2)
        );
        assert_eq!(chunks.iter().filter(|c| c.last).count(), 1);
        assert_eq!(chunks.last().unwrap().dropped_bytes, 40_004);
        let mut text = 0;
        for chunk in &chunks {
            let context =
                StreamContext::log(Default::default(), at, NodeId::default(), chunk.chunk);
            let opened =
                farlane_seal::stream::open_padded(&granted().key, &context, &chunk.sealed, 1 << 20)
                    .unwrap();
            let plain = farlane_codec::decompress(&opened, 1 << 20).unwrap();
            let mut rest = &plain[..];
            while !rest.is_empty() {
                let len = u32::from_le_bytes(rest[1..5].try_into().unwrap()) as usize;
                text += len;
                rest = &rest[5 + len..];
            }
        }
        assert_eq!(text, 60_000);
    }
}
