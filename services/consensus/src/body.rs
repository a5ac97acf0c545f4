//! The bytes of an entry's payload, encoded once by the leader and sliced ever after.
//!
//! ```text
//! body    │ now ms u64 │ count u32 │ count × command │
//! command │ kind u16 │ version u16 │ length u32 │ bytes │        all little-endian
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use farlane_state::Command;
use farlane_units::Millis;

/// Bytes before the first command.
const HEAD: usize = 12;
/// Bytes before each command's own.
const COMMAND_HEAD: usize = 8;
/// What is left for commands, with their heads, in one entry.
pub(crate) const MOST: usize = farlane_model::MAX_ENTRY_BYTES - HEAD;

/// A payload that is no list of commands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an entry's payload is no list of commands")]
pub(crate) struct Malformed;

/// How many bytes the commands take in an entry.
pub(crate) fn size(commands: &[Command]) -> usize {
    commands
        .iter()
        .map(|command| COMMAND_HEAD + command.body.len())
        .sum()
}

/// Encodes a stamp and the commands, `bytes` being the sum of their [`size`]s.
pub(crate) fn encode<'a>(
    now: Millis,
    bytes: usize,
    commands: impl Iterator<Item = &'a Command>,
) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + bytes);
    out.put_u64_le(now.get());
    out.put_u32_le(0);
    let mut count: u32 = 0;
    for command in commands {
        out.put_u16_le(command.kind);
        out.put_u16_le(command.version);
        out.put_u32_le(command.body.len() as u32);
        out.put_slice(&command.body);
        count += 1;
    }
    out[8..HEAD].copy_from_slice(&count.to_le_bytes());
    out.freeze()
}

/// The stamp and the commands, whose bodies are slices of this one.
///
/// *Errors*: lengths do not add up, which no leader of any version writes.
pub(crate) fn decode(mut body: Bytes) -> Result<(Millis, Vec<Command>), Malformed> {
    if body.len() < HEAD {
        return Err(Malformed);
    }
    let now = Millis(body.get_u64_le());
    let count = body.get_u32_le() as usize;
    if count.saturating_mul(COMMAND_HEAD) > body.len() {
        return Err(Malformed);
    }
    let mut commands = Vec::with_capacity(count);
    for _ in 0..count {
        if body.len() < COMMAND_HEAD {
            return Err(Malformed);
        }
        let (kind, version, length) = (
            body.get_u16_le(),
            body.get_u16_le(),
            body.get_u32_le() as usize,
        );
        if body.len() < length {
            return Err(Malformed);
        }
        commands.push(Command {
            kind,
            version,
            body: body.split_to(length),
        });
    }
    if body.is_empty() {
        Ok((now, commands))
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(kind: u16, body: &'static [u8]) -> Command {
        Command {
            kind,
            version: 3,
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn commands_survive_the_bytes() {
        let commands = [command(1, b"one"), command(2, b""), command(9, &[7; 500])];
        let body = encode(Millis(42), size(&commands), commands.iter());
        assert_eq!(body.len(), HEAD + size(&commands));
        assert_eq!(decode(body.clone()), Ok((Millis(42), commands.to_vec())));
        for cut in 0..body.len() {
            assert_eq!(decode(body.slice(..cut)), Err(Malformed), "cut at {cut}");
        }
    }

    #[test]
    fn counts_and_lengths_that_lie_are_refused() {
        let mut huge = encode(Millis(1), 0, std::iter::empty()).to_vec();
        huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(huge.into()), Err(Malformed));
        let mut trailing = encode(Millis(1), 0, std::iter::empty()).to_vec();
        trailing.push(0);
        assert_eq!(decode(trailing.into()), Err(Malformed));
    }
}
