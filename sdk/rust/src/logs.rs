//! A task's output: sealed chunks, opened here.

use farlane_model::{AttemptRef, NodeId, TaskId};
use farlane_seal::{StreamContext, TaskKey};
use farlane_wire::v1;
use tonic::Streaming;

use crate::Error;
use crate::attach::task_key;
use crate::network::Network;
use crate::session::intake::open_plain;

/// Which of a task's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One piece of a task's output, in the order it was written.
#[derive(Debug, Clone)]
pub enum LogPiece {
    /// Bytes as written, cut anywhere.
    Text {
        /// Which stream.
        output: Output,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// What the task reported of itself.
    Progress {
        /// 0 to 1.
        fraction: f64,
        /// For people.
        text: String,
    },
    /// Output beyond the bound was not kept.
    Dropped {
        /// How much.
        bytes: u64,
    },
}

/// A stream of opened output.
pub struct Logs {
    network: Network,
    key: TaskKey,
    stream: Streaming<v1::LogChunk>,
}

impl Network {
    /// Output of a task's attempt (0: the newest); with `follow`, until the task ends.
    ///
    /// *Errors*: no such task, no key for it, or no connection.
    pub async fn logs(&self, task: TaskId, attempt: u32, follow: bool) -> Result<Logs, Error> {
        let view = self.task(task).await?;
        let key = task_key(self, task, &view)?;
        let task = crate::session::driver::id_bytes(&task);
        let request = v1::LogsRequest {
            task,
            attempt,
            follow,
            from_chunk: 0,
        };
        let ask = || {
            let (mut client, request) = (self.client(), self.request(request.clone()));
            async move { client.logs(request).await }
        };
        let stream = self.patiently(ask).await?;
        Ok(Logs {
            network: self.clone(),
            key,
            stream,
        })
    }
}

impl Logs {
    /// The pieces of the next chunk; `None` at the end.
    ///
    /// *Errors*: a chunk does not open, or no connection.
    pub async fn next(&mut self) -> Result<Option<Vec<LogPiece>>, Error> {
        let message = self
            .stream
            .message()
            .await
            .map_err(|s| self.network.refused(s))?;
        let Some(chunk) = message else {
            return Ok(None);
        };
        let bad = |what: &str| Error::Integrity(what.to_owned());
        let attempt = chunk.attempt.map(AttemptRef::try_from);
        let Some(Ok(attempt)) = attempt else {
            return Err(bad("a log chunk of no attempt"));
        };
        let node = NodeId::from_slice(&chunk.node).map_err(|e| Error::Integrity(e.to_string()))?;
        let mut pieces = Vec::new();
        if !chunk.sealed.is_empty() {
            let context = StreamContext::log(self.network.tenant(), attempt, node, chunk.chunk);
            let plain = open_plain(&self.key, &context, chunk.sealed)?;
            read_records(&plain, &mut pieces).ok_or_else(|| bad("a log chunk cannot be read"))?;
        }
        if chunk.dropped_bytes > 0 {
            pieces.push(LogPiece::Dropped {
                bytes: chunk.dropped_bytes,
            });
        }
        Ok(Some(pieces))
    }
}

/// The records of docs/design/payload.md.
fn read_records(mut plain: &[u8], out: &mut Vec<LogPiece>) -> Option<()> {
    while !plain.is_empty() {
        let (head, rest) = plain.split_at_checked(5)?;
        let len = u32::from_le_bytes(head[1..].try_into().ok()?) as usize;
        let (body, rest) = rest.split_at_checked(len)?;
        plain = rest;
        match head[0] {
            1 => out.push(LogPiece::Text {
                output: Output::Stdout,
                bytes: body.to_vec(),
            }),
            2 => out.push(LogPiece::Text {
                output: Output::Stderr,
                bytes: body.to_vec(),
            }),
            3 => {
                let (fraction, text) = body.split_at_checked(8)?;
                let fraction = f64::from_le_bytes(fraction.try_into().ok()?);
                let text = String::from_utf8_lossy(text).into_owned();
                out.push(LogPiece::Progress { fraction, text });
            }
            // A newer worker's kind: skipped.
            _ => {}
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_are_read_and_torn_ones_refused() {
        let mut plain = Vec::new();
        for (kind, body) in [
            (1u8, b"out".to_vec()),
            (2, b"err".to_vec()),
            (9, b"?".to_vec()),
        ] {
            plain.push(kind);
            plain.extend((body.len() as u32).to_le_bytes());
            plain.extend(body);
        }
        let progress = [0.5f64.to_le_bytes().as_slice(), b"half"].concat();
        plain.push(3);
        plain.extend((progress.len() as u32).to_le_bytes());
        plain.extend(progress);
        let mut out = Vec::new();
        read_records(&plain, &mut out).unwrap();
        assert_eq!(out.len(), 3);
        assert!(
            matches!(&out[1], LogPiece::Text { output: Output::Stderr, bytes } if bytes == b"err")
        );
        assert!(
            matches!(&out[2], LogPiece::Progress { fraction, text } if *fraction == 0.5 && text == "half")
        );
        for cut in 1..plain.len() {
            let torn = &plain[..cut];
            let whole = [8, 16, 22].contains(&cut);
            assert_eq!(
                read_records(torn, &mut Vec::new()).is_some(),
                whole,
                "cut at {cut}"
            );
        }
    }
}
