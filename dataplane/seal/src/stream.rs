//! Sealed streams: every byte of a task that leaves a process.
//!
//! ```text
//! sealed   = magic(2) suite(1) 0 | salt(32) | chunk … chunk
//! chunk    = AES-256-GCM(stream key, nonce = 0⁴ ‖ index, ≤ 64 KiB of plaintext), tag at the end
//! key      = HKDF-SHA256(salt, task key, label ‖ context)
//! aad      = label ‖ context ‖ tenant ‖ task ‖ index ‖ final
//! context  = suite ‖ direction ‖ kind ‖ part ‖ epoch ‖ attempt ‖ node
//! ```
//! The salt is random, so no stream key is used twice; only the last chunk has the final flag, so
//! that nothing can be cut off or put on; empty plaintext is one empty chunk. All integers are
//! big-endian.

use bytes::{Bytes, BytesMut};
use farlane_model::{AttemptRef, NodeId, TaskId, TenantId};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroize;

use crate::key::TaskKey;
use crate::pad;
use crate::random::{Randomness, System};

/// First bytes of every sealed stream, before the suite and a zero.
pub const MAGIC: [u8; 2] = [0xFA, 0x53];
/// Plaintext of a full chunk.
pub const CHUNK: usize = 64 * 1024;
/// What sealing adds to a stream of one chunk.
pub const OVERHEAD: usize = HEADER + TAG;

const SALT: usize = 32;
const HEADER: usize = 4 + SALT;
const TAG: usize = 16;
const LABEL: &[u8; 16] = b"farlane/stream/1";
const INFO: usize = 16 + 1 + 1 + 1 + 4 + 8 + 4 + 32;
const AAD: usize = INFO + 32 + 16 + 8 + 1;

/// Which algorithms; chosen by signed records, never by a peer's word.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[repr(u8)]
pub enum Suite {
    /// HKDF-SHA256, AES-256-GCM; HPKE with X25519, HKDF-SHA256, ChaCha20-Poly1305; Ed25519; BLAKE3.
    #[default]
    One = 1,
}

impl Suite {
    /// Its byte.
    pub const fn code(self) -> u8 {
        self as u8
    }
    /// From its byte; `None` for one that this version does not know.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::One),
            _ => None,
        }
    }
}

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StreamKind {
    /// Code key, environment key, arguments.
    Payload = 1,
    /// What the function returned.
    Result = 2,
    /// What it raised.
    Exception = 3,
    /// A piece of its output, or of a build log.
    Log = 4,
    /// The pickled function: a blob with its own key.
    Code = 5,
    /// An environment's lock: likewise.
    Lock = 6,
    /// A large argument or result: likewise.
    Argument = 7,
}

impl StreamKind {
    /// 0 towards the node, 1 from it.
    const fn direction(self) -> u8 {
        match self {
            Self::Payload | Self::Code | Self::Lock | Self::Argument => 0,
            Self::Result | Self::Exception | Self::Log => 1,
        }
    }
}

/// What a stream is bound to: opened under any other, it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamContext {
    /// Algorithms.
    pub suite: Suite,
    /// What it carries.
    pub kind: StreamKind,
    /// Whose.
    pub tenant: TenantId,
    /// Of which task; zero for blobs, which many tasks share.
    pub task: TaskId,
    /// Zero before placement.
    pub epoch: u64,
    /// Zero before placement.
    pub attempt: u32,
    /// Zero before placement.
    pub node: NodeId,
    /// Place among the streams of the same kind and attempt (log pieces); else 0.
    pub part: u32,
}

impl StreamContext {
    fn before_placement(kind: StreamKind, tenant: TenantId, task: TaskId) -> Self {
        let (suite, node) = (Suite::One, NodeId::default());
        Self {
            suite,
            kind,
            tenant,
            task,
            epoch: 0,
            attempt: 0,
            node,
            part: 0,
        }
    }
    fn of_attempt(kind: StreamKind, tenant: TenantId, at: AttemptRef, node: NodeId) -> Self {
        let AttemptRef {
            task,
            attempt,
            epoch,
        } = at;
        Self {
            suite: Suite::One,
            kind,
            tenant,
            task,
            epoch,
            attempt,
            node,
            part: 0,
        }
    }
    /// A task's payload: sealed before it is placed.
    pub fn payload(tenant: TenantId, task: TaskId) -> Self {
        Self::before_placement(StreamKind::Payload, tenant, task)
    }
    /// A blob with its own key: code, lock or argument.
    pub fn blob(kind: StreamKind, tenant: TenantId) -> Self {
        Self::before_placement(kind, tenant, TaskId::from_bytes([0; 16]))
    }
    /// What an attempt returned.
    pub fn result(tenant: TenantId, attempt: AttemptRef, node: NodeId) -> Self {
        Self::of_attempt(StreamKind::Result, tenant, attempt, node)
    }
    /// What an attempt raised.
    pub fn exception(tenant: TenantId, attempt: AttemptRef, node: NodeId) -> Self {
        Self::of_attempt(StreamKind::Exception, tenant, attempt, node)
    }
    /// A piece of an attempt's output, counted from 0. A build log that stands in for a result is
    /// part [`u32::MAX`].
    pub fn log(tenant: TenantId, attempt: AttemptRef, node: NodeId, part: u32) -> Self {
        Self {
            part,
            ..Self::of_attempt(StreamKind::Log, tenant, attempt, node)
        }
    }

    /// Label and context, then the rest of the additional data; index and final flag are zero.
    fn associated(&self) -> [u8; AAD] {
        let mut out = [0; AAD];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(LABEL);
        put(&[self.suite.code(), self.kind.direction(), self.kind as u8]);
        put(&self.part.to_be_bytes());
        put(&self.epoch.to_be_bytes());
        put(&self.attempt.to_be_bytes());
        put(self.node.as_bytes());
        put(self.tenant.as_bytes());
        put(&self.task.to_bytes());
        out
    }
}

/// Sealed bytes that must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a sealed stream of a known suite.
    #[error("these bytes are not a sealed stream")]
    NotSealed,
    /// A bit is wrong, the key is another, or they belong elsewhere.
    #[error("the sealed bytes do not verify: damaged, or meant for another task, attempt or node")]
    Damaged,
    /// More plaintext than the caller takes.
    #[error("the sealed bytes hold more than the {limit} bytes allowed")]
    TooLarge {
        /// The caller's bound.
        limit: usize,
    },
}

/// Bytes of `plaintext_len` once sealed.
pub const fn sealed_len(plaintext_len: usize) -> usize {
    let chunks = if plaintext_len == 0 {
        1
    } else {
        plaintext_len.div_ceil(CHUNK)
    };
    HEADER + plaintext_len + chunks * TAG
}

/// Whether bytes have the outer form of a padded, sealed stream: its head and the size of a
/// bucket. What the control plane can check without a key.
pub fn looks_sealed(bytes: &[u8]) -> bool {
    let Some(plain) = plaintext_len(bytes) else {
        return false;
    };
    bytes[..2] == MAGIC
        && Suite::from_code(bytes[2]).is_some()
        && bytes[3] == 0
        && pad::bucket(plain + OVERHEAD) == plain + OVERHEAD
}

/// Length of the plaintext of well-formed sealed bytes.
fn plaintext_len(sealed: &[u8]) -> Option<usize> {
    let body = sealed.len().checked_sub(HEADER)?;
    let (full, rest) = (body / (CHUNK + TAG), body % (CHUNK + TAG));
    match rest {
        0 if full > 0 => Some(full * CHUNK),
        r if r > TAG || (r == TAG && full == 0) => Some(full * CHUNK + r - TAG),
        _ => None,
    }
}

fn stream_key(key: &TaskKey, salt: &[u8], info: &[u8]) -> LessSafeKey {
    let prk = Salt::new(HKDF_SHA256, salt).extract(key.expose());
    let info = [info];
    let okm = prk
        .expand(&info, &AES_256_GCM)
        .expect("32 bytes are within what HKDF-SHA256 gives");
    LessSafeKey::new(UnboundKey::from(okm))
}

fn nonce(index: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&index.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn position(aad: &mut [u8; AAD], index: u64, last: bool) {
    aad[AAD - 9..AAD - 1].copy_from_slice(&index.to_be_bytes());
    aad[AAD - 1] = u8::from(last);
}

/// Seals `plaintext`, unpadded.
pub fn seal(key: &TaskKey, context: &StreamContext, plaintext: &[u8]) -> Vec<u8> {
    seal_with(&mut System, key, context, &[plaintext], plaintext.len())
}

/// Pads and seals: what every stream of a task is sent as. One allocation.
pub fn seal_padded(key: &TaskKey, context: &StreamContext, plaintext: &[u8]) -> Vec<u8> {
    seal_padded_parts(key, context, &[plaintext])
}

/// The same of a plaintext that lies in several places, in their order.
pub fn seal_padded_parts(key: &TaskKey, context: &StreamContext, parts: &[&[u8]]) -> Vec<u8> {
    let len = parts.iter().map(|part| part.len()).sum();
    seal_with(&mut System, key, context, parts, pad::padded_len(len))
}

/// Seals the parts, padded where `padded` is longer than they are.
pub(crate) fn seal_with(
    random: &mut impl Randomness,
    key: &TaskKey,
    context: &StreamContext,
    parts: &[&[u8]],
    padded: usize,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(sealed_len(padded));
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[context.suite.code(), 0]);
    let mut salt = [0; SALT];
    random.fill(&mut salt);
    out.extend_from_slice(&salt);
    let mut aad = context.associated();
    let key = stream_key(key, &salt, &aad[..INFO]);
    let mut source = Source::of(parts);
    let (mut index, mut from) = (0u64, 0usize);
    loop {
        let to = padded.min(from + CHUNK);
        let start = out.len();
        source.append(&mut out, to - from);
        position(&mut aad, index, to == padded);
        let tag = key
            .seal_in_place_separate_tag(nonce(index), Aad::from(&aad), &mut out[start..])
            .expect("a chunk is far below what AES-GCM takes");
        out.extend_from_slice(tag.as_ref());
        if to == padded {
            return out;
        }
        (index, from) = (index + 1, to);
    }
}

/// The padded plaintext, read once from its start.
struct Source<'a> {
    part: &'a [u8],
    later: &'a [&'a [u8]],
    marked: bool,
}

impl<'a> Source<'a> {
    fn of(parts: &'a [&'a [u8]]) -> Self {
        Self {
            part: &[],
            later: parts,
            marked: false,
        }
    }

    /// Appends the next `len` bytes: what is left of the parts, then one mark, then zeros.
    fn append(&mut self, out: &mut Vec<u8>, len: usize) {
        let end = out.len() + len;
        while out.len() < end {
            let (now, rest) = self.part.split_at(self.part.len().min(end - out.len()));
            out.extend_from_slice(now);
            self.part = rest;
            if !self.part.is_empty() {
                return;
            }
            match self.later.split_first() {
                Some((next, later)) => (self.part, self.later) = (next, later),
                None => break,
            }
        }
        if out.len() < end && !self.marked {
            out.push(pad::MARK);
            self.marked = true;
        }
        out.resize(end, 0);
    }
}

/// Opens what [`seal`] made.
///
/// *Errors*: a wrong bit anywhere, another key or context, or more than `limit` bytes of
/// plaintext; the output is zeroed then.
pub fn open(
    key: &TaskKey,
    context: &StreamContext,
    sealed: &[u8],
    limit: usize,
) -> Result<Vec<u8>, OpenError> {
    let mut opening = Opening::begin(key, context, sealed, limit)?;
    let mut out = Vec::with_capacity(opening.len + TAG);
    for chunk in sealed[HEADER..].chunks(CHUNK + TAG) {
        let start = out.len();
        out.extend_from_slice(chunk);
        match opening.chunk(&mut out[start..]) {
            Some(plain) => out.truncate(start + plain),
            None => {
                out.zeroize();
                return Err(OpenError::Damaged);
            }
        }
    }
    Ok(out)
}

/// Opens what [`seal`] made where it lies: the plaintext takes the place of the ciphertext, without a
/// second buffer.
///
/// *Errors*: as [`open`]; the buffer is zeroed then.
fn open_in_place(
    key: &TaskKey,
    context: &StreamContext,
    buffer: &mut BytesMut,
    limit: usize,
) -> Result<(), OpenError> {
    let mut opening = Opening::begin(key, context, buffer, limit)?;
    let (mut from, mut to) = (HEADER, 0);
    while from < buffer.len() {
        let end = buffer.len().min(from + CHUNK + TAG);
        buffer.copy_within(from..end, to);
        let Some(plain) = opening.chunk(&mut buffer[to..to + end - from]) else {
            buffer[..].zeroize();
            return Err(OpenError::Damaged);
        };
        (from, to) = (end, to + plain);
    }
    buffer.truncate(to);
    Ok(())
}

/// A stream that is being opened, chunk by chunk.
struct Opening {
    key: LessSafeKey,
    aad: [u8; AAD],
    /// Bytes of plaintext in all.
    len: usize,
    chunks: u64,
    index: u64,
}

impl Opening {
    fn begin(
        key: &TaskKey,
        context: &StreamContext,
        sealed: &[u8],
        limit: usize,
    ) -> Result<Self, OpenError> {
        let len = plaintext_len(sealed).ok_or(OpenError::NotSealed)?;
        if sealed[..2] != MAGIC || sealed[2] != context.suite.code() || sealed[3] != 0 {
            return Err(OpenError::NotSealed);
        }
        if len > limit {
            return Err(OpenError::TooLarge { limit });
        }
        let aad = context.associated();
        Ok(Self {
            key: stream_key(key, &sealed[4..HEADER], &aad[..INFO]),
            aad,
            len,
            chunks: len.div_ceil(CHUNK).max(1) as u64,
            index: 0,
        })
    }

    /// Opens the next chunk where it lies; the bytes of its plaintext, `None` where it does not verify.
    fn chunk(&mut self, chunk: &mut [u8]) -> Option<usize> {
        position(&mut self.aad, self.index, self.index + 1 == self.chunks);
        let opened = self
            .key
            .open_in_place(nonce(self.index), Aad::from(&self.aad), chunk);
        self.index += 1;
        opened.map(|plain| plain.len()).ok()
    }
}

/// Opens what [`seal_padded`] made, and cuts the padding off.
///
/// *Errors*: as [`open`], which bounds the padded length.
pub fn open_padded(
    key: &TaskKey,
    context: &StreamContext,
    sealed: &[u8],
    limit: usize,
) -> Result<Vec<u8>, OpenError> {
    let mut out = open(key, context, sealed, limit)?;
    let plain = pad::unpad(&out).map_err(|_| OpenError::Damaged)?.len();
    out.truncate(plain);
    Ok(out)
}

/// The same, where it lies if nobody else holds the bytes.
///
/// *Errors*: as [`open_padded`].
pub fn open_padded_owned(
    key: &TaskKey,
    context: &StreamContext,
    sealed: Bytes,
    limit: usize,
) -> Result<Bytes, OpenError> {
    let mut buffer = match sealed.try_into_mut() {
        Ok(buffer) => buffer,
        Err(shared) => return open_padded(key, context, &shared, limit).map(Bytes::from),
    };
    open_in_place(key, context, &mut buffer, limit)?;
    let plain = pad::unpad(&buffer).map_err(|_| OpenError::Damaged)?.len();
    buffer.truncate(plain);
    Ok(buffer.freeze())
}

#[cfg(test)]
mod tests;
