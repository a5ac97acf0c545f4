//! The end of an attempt: sealing what came of it.

use std::sync::Arc;

use bytes::Bytes;
use farlane_codec::value::{self, Value};
use farlane_model::{Digest, Exit, ExitKind, LostCause, MAX_ROW_BYTES, Sealed};
use farlane_reconcile::Event;
use farlane_seal::stream::seal_padded_parts;
use farlane_seal::{StreamContext, TaskKey, batch};
use farlane_wire::v1;

use super::attempt::{Beside, Stage, Token};
use super::complete::Item;
use super::worker::Measured;
use super::{Done, Engine};
use crate::blobs::BlobError;
use crate::worker::message::{Answer, Outcome};
use crate::worker::room::Room;

/// Plaintext above this is sealed on a blocking thread. Source: lz4 and AES-256-GCM at 1 GB/s: 64 µs.
const INLINE: usize = 64 * 1024;

/// When it ran, in cluster time, and what it used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) started_ms: u64,
    pub(super) ended_ms: u64,
    pub(super) cpu_ms: u64,
    pub(super) peak: u64,
}

/// A result, sealed and where it belongs.
#[derive(Debug)]
pub(super) struct Sealing {
    exit: Exit,
    sealed: Sealed,
    /// BLAKE3 of the sealed bytes.
    digest: Digest,
    usage: Usage,
}

/// A result that did not get where it belongs.
#[derive(Debug)]
pub(super) struct Unsealed {
    kind: ExitKind,
    usage: Usage,
    why: Unkept,
}

/// Why not.
#[derive(Debug)]
enum Unkept {
    /// There is no room for it anywhere: the network's words.
    NoRoom(String),
    /// Another try may do better.
    Failed(String),
}

/// What is to be sealed.
struct Plain {
    key: TaskKey,
    context: StreamContext,
    bytes: Bytes,
}

impl Plain {
    fn seal(self) -> (Bytes, Digest) {
        let frame = farlane_codec::compress(&self.bytes);
        let sealed = seal_padded_parts(&self.key, &self.context, &frame.parts());
        let digest = Digest::of(&sealed);
        (sealed.into(), digest)
    }
}

/// The plaintext of an exception that no task raised; docs/design/payload.md, "Exception".
fn raised(message: &str) -> Bytes {
    let text = |text| Value::Str(text);
    let whole = format!("farlane.FarlaneError: {message}\n");
    let link = [
        ("relation", Value::None),
        ("type", text("FarlaneError")),
        ("module", text("farlane")),
        ("message", text(message)),
        ("args", Value::List(vec![text(message)])),
        ("frames", Value::List(vec![])),
        ("pickle", Value::None),
    ];
    let all = [
        ("v", Value::Int(1)),
        ("phase", text("encode")),
        ("text", text(&whole)),
        ("chain", Value::List(vec![dict(link)])),
    ];
    // Text and lists of two levels are within every bound of the codec.
    let encoded = value::encode(&dict(all)).unwrap_or_default();
    [&[0], &encoded[..]].concat().into()
}

fn dict<'a, const N: usize>(pairs: [(&'a str, Value<'a>); N]) -> Value<'a> {
    Value::Dict(pairs.map(|(key, value)| (Value::Str(key), value)).into())
}

impl Engine {
    /// A worker answered: seals the answer and lets it go.
    pub(super) fn answered(&mut self, token: Token, answer: Answer, measured: Measured) {
        let Some(attempt) = self.attempts.get(&token) else {
            return;
        };
        let Some(grant) = &attempt.grant else { return };
        let (kind, context) = match answer.outcome {
            Outcome::Returned => (
                ExitKind::Returned,
                StreamContext::result(grant.tenant, attempt.at, self.node),
            ),
            Outcome::Raised => (
                ExitKind::Raised,
                StreamContext::exception(grant.tenant, attempt.at, self.node),
            ),
        };
        let plain = Plain {
            key: grant.key.clone(),
            context,
            bytes: answer.body,
        };
        let usage = self.used(&measured);
        self.seal(token, Exit::plain(kind), plain, usage, answer.room);
    }

    /// The environment could not be built: its log stands in for a result.
    pub(super) fn environment_failed(&mut self, token: Token, log: &str) {
        let Some(attempt) = self.attempts.get(&token) else {
            return;
        };
        let Some(grant) = &attempt.grant else { return };
        let context = StreamContext::log(grant.tenant, attempt.at, self.node, u32::MAX);
        let bytes = super::log::build_log(log);
        let plain = Plain {
            key: grant.key.clone(),
            context,
            bytes,
        };
        let exit = Exit::new(
            ExitKind::EnvFailed,
            "the environment could not be built on this node",
        );
        let usage = self.no_usage(token);
        self.seal(token, exit, plain, usage, None);
    }

    fn seal(&mut self, token: Token, exit: Exit, plain: Plain, usage: Usage, room: Option<Room>) {
        if plain.bytes.len() <= INLINE {
            let (bytes, digest) = plain.seal();
            if bytes.len() <= MAX_ROW_BYTES {
                let sealed = Sealed::Inline(bytes);
                return self.complete(
                    token,
                    Sealing {
                        exit,
                        sealed,
                        digest,
                        usage,
                    },
                );
            }
            return self.upload(
                token,
                exit,
                usage,
                room,
                async move { Some((bytes, digest)) },
            );
        }
        let sealing = tokio::task::spawn_blocking(move || plain.seal());
        self.upload(token, exit, usage, room, async move { sealing.await.ok() });
    }

    fn upload(
        &mut self,
        token: Token,
        exit: Exit,
        usage: Usage,
        room: Option<Room>,
        sealing: impl Future<Output = Option<(Bytes, Digest)>> + Send + 'static,
    ) {
        let Some(attempt) = self.attempts.get_mut(&token) else {
            return;
        };
        attempt.stage = Stage::Finishing;
        let (preparer, done) = (Arc::clone(&self.preparer), self.done.clone());
        attempt.beside = Some(Beside::spawn(async move {
            let kind = exit.kind;
            let unsealed = |why| Unsealed { kind, usage, why };
            let result = match sealing.await {
                None => Err(unsealed(Unkept::Failed("sealing the result failed".into()))),
                Some((bytes, digest)) if bytes.len() <= MAX_ROW_BYTES => Ok(Sealing {
                    exit,
                    sealed: Sealed::Inline(bytes),
                    digest,
                    usage,
                }),
                Some((bytes, digest)) => match preparer.blobs.put(bytes).await {
                    Ok(blob) => Ok(Sealing {
                        exit,
                        sealed: Sealed::Blob(blob),
                        digest,
                        usage,
                    }),
                    Err(BlobError::NoRoom(words)) => Err(unsealed(Unkept::NoRoom(words))),
                    Err(error) => {
                        let why = format!("the result could not be uploaded: {error}");
                        Err(unsealed(Unkept::Failed(why)))
                    }
                },
            };
            drop(room);
            let _ = done.send(Done::Sealed(token, result)).await;
        }));
    }

    pub(super) fn sealed(&mut self, token: Token, sealed: Result<Sealing, Unsealed>) {
        match sealed {
            Ok(sealing) => self.complete(token, sealing),
            Err(Unsealed { kind, usage, why }) => match why {
                Unkept::NoRoom(words) => self.no_room(token, kind, &words, usage),
                Unkept::Failed(why) => {
                    let exit = Exit::new(ExitKind::Lost(LostCause::Sandbox), why);
                    self.end(token, exit, Some(usage));
                }
            },
        }
    }

    /// An exception stands in for what could not be stored: the work was done, and would not fit the next
    /// time either.
    fn no_room(&mut self, token: Token, kind: ExitKind, words: &str, usage: Usage) {
        let Some(attempt) = self.attempts.get(&token) else {
            return;
        };
        let Some(grant) = &attempt.grant else { return };
        let what = match kind {
            ExitKind::Returned => "the result",
            ExitKind::Raised => "the exception",
            _ => "the log of the environment's build",
        };
        let message = format!("the call ran, and {what} could not be stored: {words}");
        let plain = Plain {
            key: grant.key.clone(),
            context: StreamContext::exception(grant.tenant, attempt.at, self.node),
            bytes: raised(&message),
        };
        self.seal(token, Exit::plain(ExitKind::Raised), plain, usage, None);
    }

    fn complete(&mut self, token: Token, sealing: Sealing) {
        let Sealing {
            exit,
            sealed,
            digest,
            usage,
        } = sealing;
        self.leave(token, exit, Some((sealed, digest)), usage);
    }

    /// Ends an attempt that has nothing to seal.
    pub(super) fn end(&mut self, token: Token, exit: Exit, usage: Option<Usage>) {
        let usage = usage.unwrap_or_else(|| self.no_usage(token));
        self.leave(token, exit, None, usage);
    }

    fn leave(&mut self, token: Token, exit: Exit, sealed: Option<(Sealed, Digest)>, usage: Usage) {
        let Some(mut attempt) = self.attempts.remove(&token) else {
            return;
        };
        self.unname(&attempt.at, token);
        if let Some(grant) = &attempt.grant
            && attempt.log.is_due(true)
        {
            for chunk in attempt.log.seal(attempt.at, grant, self.node, true) {
                let _ = self.logs.try_send(chunk);
            }
        }
        let leaf = batch::leaf(
            &attempt.at,
            exit.kind,
            sealed.as_ref().map(|(_, digest)| digest),
        );
        let completion = v1::Completion {
            attempt: Some(attempt.at.into()),
            exit: Some(exit.into()),
            sealed: sealed.map(|(sealed, _)| sealed.into()),
            started_ms: usage.started_ms,
            ended_ms: usage.ended_ms,
            peak_memory: usage.peak,
            cpu_ms: usage.cpu_ms,
        };
        self.reconciler.step(Event::Ended {
            attempt: attempt.at,
        });
        self.outbox.push(attempt.at, Item { completion, leaf });
    }

    /// What was measured, in cluster time.
    pub(super) fn used(&self, measured: &Measured) -> Usage {
        Usage {
            started_ms: self.clock.at(measured.began).0,
            ended_ms: self.clock.at(measured.ended).0,
            cpu_ms: measured.cpu_micros / 1000,
            peak: measured.peak,
        }
    }

    /// Of one that did not run.
    pub(super) fn no_usage(&self, _token: Token) -> Usage {
        let now = self.clock.now().0;
        Usage {
            started_ms: now,
            ended_ms: now,
            ..Usage::default()
        }
    }
}
