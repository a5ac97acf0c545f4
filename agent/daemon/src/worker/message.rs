//! The messages between agent and worker; the twin of python/farlane_worker.py.

use bytes::{Buf, Bytes, BytesMut};

use super::room::Room;
use super::socket::PIECE;

const TASK: u8 = 1;
const CODE: u8 = 2;
const DROP: u8 = 3;
const CHECKPOINT: u8 = 4;
const HELLO: u8 = 1;
const RESULT: u8 = 2;
const LOG: u8 = 3;
/// In an answer's flags: the worker's last.
const LAST: u16 = 1;
/// Bytes of a task's head.
const TASK_HEAD: usize = 76;
const CODE_HEAD: usize = 16;
const RESULT_HEAD: usize = 44;
const LOG_HEAD: usize = 16;

/// Whether the worker may answer with a pickle.
pub(crate) const FLAG_PICKLE: u8 = 1;

/// Everything about one task but its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskHead {
    pub(crate) flags: u8,
    pub(crate) code: u32,
    pub(crate) attempt: u32,
    pub(crate) blobs: u32,
    /// Names the attempt in answers.
    pub(crate) token: u64,
    /// Cluster time in milliseconds; 0 without one.
    pub(crate) deadline_ms: u64,
    pub(crate) task: [u8; 16],
    pub(crate) log_limit: u64,
    pub(crate) memory: u64,
    /// Rank and size of its gang; 0 and 0 without one.
    pub(crate) gang: (u16, u16),
}

impl TaskHead {
    /// Its bytes, before a body of `len`.
    pub(crate) fn encode(&self, len: usize) -> [u8; TASK_HEAD] {
        let mut out = [0; TASK_HEAD];
        let mut put = Writer(&mut out, 0);
        put.bytes(&[TASK, self.flags, 0, 0]);
        put.bytes(&self.code.to_le_bytes());
        put.bytes(&self.attempt.to_le_bytes());
        put.bytes(&self.blobs.to_le_bytes());
        put.bytes(&self.token.to_le_bytes());
        put.bytes(&self.deadline_ms.to_le_bytes());
        put.bytes(&self.task);
        put.bytes(&self.log_limit.to_le_bytes());
        put.bytes(&self.memory.to_le_bytes());
        put.bytes(&self.gang.0.to_le_bytes());
        put.bytes(&self.gang.1.to_le_bytes());
        put.bytes(&(len as u64).to_le_bytes());
        out
    }
}

struct Writer<'a>(&'a mut [u8], usize);
impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0[self.1..self.1 + bytes.len()].copy_from_slice(bytes);
        self.1 += bytes.len();
    }
}

/// Head of a message that brings a function, or with an empty body forgets it.
pub(crate) fn code_head(code: u32, len: Option<usize>) -> [u8; CODE_HEAD] {
    let mut out = [0; CODE_HEAD];
    out[0] = if len.is_some() { CODE } else { DROP };
    out[4..8].copy_from_slice(&code.to_le_bytes());
    out[8..16].copy_from_slice(&(len.unwrap_or(0) as u64).to_le_bytes());
    out
}

/// Head of the message that asks the running task to save what it has and to make way; it is all of it.
pub(crate) fn checkpoint_head() -> [u8; CODE_HEAD] {
    let mut out = [0; CODE_HEAD];
    out[0] = CHECKPOINT;
    out
}

/// What a message taken back was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TakenBack {
    Task { token: u64 },
    Code { code: u32 },
    Other,
}

/// Reads a message that this side sent.
pub(crate) fn taken_back(message: &[u8]) -> TakenBack {
    let u32_at = |at: usize| message.get(at..at + 4).map(|mut b| b.get_u32_le());
    let u64_at = |at: usize| message.get(at..at + 8).map(|mut b| b.get_u64_le());
    match message.first() {
        Some(&TASK) => u64_at(16).map_or(TakenBack::Other, |token| TakenBack::Task { token }),
        Some(&CODE) => u32_at(4).map_or(TakenBack::Other, |code| TakenBack::Code { code }),
        _ => TakenBack::Other,
    }
}

/// How a task ended inside the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Returned,
    Raised,
}

/// What a worker says.
#[derive(Debug)]
pub(crate) enum Said {
    Hello,
    Result(Answer),
    /// Stream 1 stdout, 2 stderr, 3 progress; bytes that the worker dropped itself.
    Log {
        token: u64,
        stream: u8,
        dropped: u32,
        data: Bytes,
    },
}

/// One task's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) token: u64,
    pub(crate) outcome: Outcome,
    pub(crate) cpu_us: u32,
    pub(crate) peak_kib: u32,
    /// The worker ends after it: its task left more than is cleared between two.
    pub(crate) last: bool,
    /// On CLOCK_MONOTONIC, nanoseconds.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) body: Bytes,
    /// What its bytes take of the bound of all answers, where it is large.
    pub(crate) room: Option<Room>,
}

/// A message that no worker of ours sends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker broke its protocol")]
pub(crate) struct Violation;

/// Puts messages together again.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    /// An answer whose body is not complete, and how long it will be.
    partial: Option<(Answer, BytesMut, usize)>,
}

impl Assembler {
    /// How long the answer will be whose pieces are coming.
    pub(crate) fn begun(&self) -> Option<usize> {
        self.partial.as_ref().map(|(_, _, total)| *total)
    }

    /// Room for the answer whose pieces are coming.
    pub(crate) fn give(&mut self, room: Room) {
        if let Some((answer, ..)) = &mut self.partial {
            answer.room = Some(room);
        }
    }

    /// Takes one received message.
    ///
    /// *Errors*: unknown, cut, empty, or an answer above `limit` bytes.
    pub(crate) fn take(&mut self, message: &[u8], limit: usize) -> Result<Option<Said>, Violation> {
        // Also what is received once a worker has shut its sending side.
        if message.is_empty() {
            return Err(Violation);
        }
        if let Some((mut answer, mut body, total)) = self.partial.take() {
            body.extend_from_slice(message);
            if body.len() > total {
                return Err(Violation);
            }
            if body.len() < total {
                self.partial = Some((answer, body, total));
                return Ok(None);
            }
            answer.body = body.freeze();
            return Ok(Some(Said::Result(answer)));
        }
        match message.first() {
            Some(&HELLO) => Ok(Some(Said::Hello)),
            Some(&RESULT) => self.result(message, limit),
            Some(&LOG) if message.len() >= LOG_HEAD => Ok(Some(Said::Log {
                token: (&message[8..16]).get_u64_le(),
                stream: message[1],
                dropped: (&message[4..8]).get_u32_le(),
                data: Bytes::copy_from_slice(&message[LOG_HEAD..]),
            })),
            _ => Err(Violation),
        }
    }

    fn result(&mut self, message: &[u8], limit: usize) -> Result<Option<Said>, Violation> {
        let (mut head, body) = message.split_at_checked(RESULT_HEAD).ok_or(Violation)?;
        head.advance(1);
        let outcome = match head.get_u8() {
            0 => Outcome::Returned,
            1 => Outcome::Raised,
            _ => return Err(Violation),
        };
        let last = head.get_u16_le() & LAST != 0;
        let (cpu_us, peak_kib) = (head.get_u32_le(), head.get_u32_le());
        let token = head.get_u64_le();
        let (begin, end) = (head.get_u64_le(), head.get_u64_le());
        let total = usize::try_from(head.get_u64_le()).map_err(|_| Violation)?;
        if total > limit || body.len() > total {
            return Err(Violation);
        }
        let mut answer = Answer {
            token,
            outcome,
            cpu_us,
            peak_kib,
            last,
            begin,
            end,
            body: Bytes::new(),
            room: None,
        };
        if body.len() == total {
            answer.body = Bytes::copy_from_slice(body);
            return Ok(Some(Said::Result(answer)));
        }
        // A worker can claim any length; memory grows only as bytes come.
        let mut gathered = BytesMut::with_capacity(total.min(16 * PIECE));
        gathered.extend_from_slice(body);
        self.partial = Some((answer, gathered, total));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn head() -> TaskHead {
        TaskHead {
            flags: 1,
            code: 5,
            attempt: 2,
            blobs: 0,
            token: 77,
            deadline_ms: 0,
            task: [9; 16],
            log_limit: 1,
            memory: 0,
            gang: (0, 0),
        }
    }

    #[test]
    fn own_messages_are_known_again() {
        assert_eq!(taken_back(&head().encode(0)), TakenBack::Task { token: 77 });
        assert_eq!(
            taken_back(&code_head(5, Some(3))),
            TakenBack::Code { code: 5 }
        );
        assert_eq!(taken_back(&code_head(5, None)), TakenBack::Other);
        assert_eq!(taken_back(&[]), TakenBack::Other);
    }

    fn result(total: u64, body: &[u8]) -> Vec<u8> {
        let mut out = vec![RESULT, 0, 0, 0];
        out.extend_from_slice(&7u32.to_le_bytes());
        out.extend_from_slice(&8u32.to_le_bytes());
        for n in [77u64, 1, 2, total] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn answers_come_whole_or_in_pieces_and_lies_are_refused() {
        let mut all = Assembler::default();
        let Some(Said::Result(answer)) = all.take(&result(3, b"abc"), 10).unwrap() else {
            panic!()
        };
        assert_eq!(
            (answer.token, answer.cpu_us, &answer.body[..]),
            (77, 7, &b"abc"[..])
        );
        assert!(all.take(&result(6, b"abc"), 10).unwrap().is_none());
        let Some(Said::Result(answer)) = all.take(b"def", 10).unwrap() else {
            panic!()
        };
        assert_eq!(&answer.body[..], b"abcdef");
        assert_eq!(all.take(&result(11, b""), 10).unwrap_err(), Violation);
        assert_eq!(all.take(&result(2, b"abc"), 10).unwrap_err(), Violation);
        assert_eq!(all.take(&[9, 9], 10).unwrap_err(), Violation);
        assert_eq!(all.take(&[RESULT; 12], 10).unwrap_err(), Violation);
        assert_eq!(all.take(&[LOG; 3], 10).unwrap_err(), Violation);
        assert_eq!(all.take(&[], 10).unwrap_err(), Violation);
        for wrong in [&b"defg"[..], b""] {
            all.take(&result(6, b"abc"), 10).unwrap();
            assert_eq!(all.take(wrong, 10).unwrap_err(), Violation);
        }
    }
}
