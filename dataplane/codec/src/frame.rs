//! The compression frame around every plaintext that is sealed.
//!
//! ```text
//! 0 | bytes                          as they are
//! 1 | length (u32, little-endian) | LZ4 block
//! ```
//! Bytes stay as they are below 512 B, or where LZ4 does not save a tenth.

use std::borrow::Cow;

use bytes::Bytes;

const RAW: u8 = 0;
const LZ4: u8 = 1;
const LZ4_HEAD: usize = 5;

/// Below this, compressing is not tried. Source: a pickled call of few arguments has no repetition
/// to find, and buckets hide what it would save.
const SMALLEST: usize = 512;
/// From this on, samples are tried first. Source: 256 KiB take LZ4 about 0.4 ms.
const SAMPLED_FROM: usize = 256 * 1024;
/// Bytes of each sample.
const SAMPLE: usize = 32 * 1024;
/// Larger frames stay as they are. Source: the block format's positions, with room to spare.
const LARGEST: usize = 1 << 30;

/// Bytes that are no frame, or hold too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not a frame of a known kind, or damaged.
    #[error("the compressed bytes cannot be read")]
    Unreadable,
    /// More than the caller takes.
    #[error("the compressed bytes hold more than the {limit} bytes allowed")]
    TooLarge {
        /// The caller's bound.
        limit: usize,
    },
}

/// A frame, in two parts that follow each other: what does not shrink is not copied.
#[derive(Debug)]
pub struct Frame<'a> {
    head: &'static [u8],
    body: Cow<'a, [u8]>,
}

impl Frame<'_> {
    /// Its bytes, in their order.
    pub fn parts(&self) -> [&[u8]; 2] {
        [self.head, &self.body]
    }
}

/// Frames bytes, compressed where it pays.
pub fn compress(bytes: &[u8]) -> Frame<'_> {
    let pays = bytes.len() >= SMALLEST && bytes.len() <= LARGEST && samples_shrink(bytes);
    match pays.then(|| compress_lz4(bytes)).flatten() {
        Some(frame) => Frame {
            head: &[],
            body: frame.into(),
        },
        None => Frame {
            head: &[RAW],
            body: bytes.into(),
        },
    }
}

fn is_worth(compressed: usize, of: usize) -> bool {
    compressed <= of - of / 10
}

/// Whether the start or the middle of large bytes shrinks; small ones are worth a try.
fn samples_shrink(bytes: &[u8]) -> bool {
    if bytes.len() < SAMPLED_FROM {
        return true;
    }
    let mut scratch = vec![0; lz4_flex::block::get_maximum_output_size(SAMPLE)];
    [SAMPLE, bytes.len() / 2].into_iter().any(|from| {
        let sample = &bytes[from..from + SAMPLE];
        lz4_flex::block::compress_into(sample, &mut scratch).is_ok_and(|n| is_worth(n, SAMPLE))
    })
}

/// `None` where it does not save a tenth.
fn compress_lz4(bytes: &[u8]) -> Option<Vec<u8>> {
    let most = lz4_flex::block::get_maximum_output_size(bytes.len());
    let mut frame = vec![0; LZ4_HEAD + most];
    let len = lz4_flex::block::compress_into(bytes, &mut frame[LZ4_HEAD..]).ok()?;
    if !is_worth(LZ4_HEAD + len, bytes.len()) {
        return None;
    }
    frame[0] = LZ4;
    frame[1..LZ4_HEAD].copy_from_slice(&u32::try_from(bytes.len()).ok()?.to_le_bytes());
    frame.truncate(LZ4_HEAD + len);
    Some(frame)
}

/// What was framed, at most `limit` bytes; without a copy where nothing was compressed.
///
/// *Errors*: damaged, or more than `limit`; nothing is allocated beyond it.
pub fn decompress(frame: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, FrameError> {
    let (kind, body) = frame.split_first().ok_or(FrameError::Unreadable)?;
    match *kind {
        RAW if body.len() > limit => Err(FrameError::TooLarge { limit }),
        RAW => Ok(Cow::Borrowed(body)),
        LZ4 => {
            let (len, block) = body
                .split_first_chunk::<4>()
                .ok_or(FrameError::Unreadable)?;
            let len = u32::from_le_bytes(*len) as usize;
            if len > limit.min(LARGEST) {
                return Err(FrameError::TooLarge { limit });
            }
            // LZ4 expands at most 255 times: a longer claim is a lie that would cost memory.
            if len / 255 > block.len() {
                return Err(FrameError::Unreadable);
            }
            let mut out = vec![0; len];
            match lz4_flex::block::decompress_into(block, &mut out) {
                Ok(written) if written == len => Ok(Cow::Owned(out)),
                _ => Err(FrameError::Unreadable),
            }
        }
        _ => Err(FrameError::Unreadable),
    }
}

/// The same of bytes that somebody holds.
///
/// *Errors*: as [`decompress`].
pub fn decompress_owned(frame: Bytes, limit: usize) -> Result<Bytes, FrameError> {
    match decompress(&frame, limit)? {
        Cow::Borrowed(raw) => Ok(frame.slice_ref(raw)),
        Cow::Owned(plain) => Ok(plain.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The frame's bytes, as they are sealed.
    fn compress(bytes: &[u8]) -> Vec<u8> {
        super::compress(bytes).parts().concat()
    }

    /// Bytes without repetition.
    fn noise(len: usize) -> Vec<u8> {
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn everything_comes_back() {
        for len in [0, 1, 511, 512, 5_000, 70_000, 300_000, 3 << 20] {
            let text: Vec<u8> = (0..len).map(|i| b"farlane "[i % 8]).collect();
            for bytes in [text, noise(len)] {
                let frame = compress(&bytes);
                assert_eq!(*decompress(&frame, len).unwrap(), bytes);
                assert!(frame.len() <= len + 1);
                if len > 0 {
                    let short = Err(FrameError::TooLarge { limit: len - 1 });
                    assert_eq!(decompress(&frame, len - 1), short);
                }
            }
        }
    }

    #[test]
    fn what_shrinks_is_shrunk_and_noise_is_left_alone() {
        assert!(compress(&[7; 4096]).len() < 100);
        assert_eq!(compress(&noise(4096))[0], RAW);
        assert_eq!(compress(&[7; 511])[0], RAW);
        let mut tail = noise(SAMPLED_FROM);
        tail.extend(vec![0; 4 << 20]);
        assert_eq!(compress(&tail)[0], LZ4, "the middle shrinks");
    }

    #[test]
    fn damage_is_an_error_and_claims_cost_nothing() {
        let frame = compress(&vec![7; 4096]);
        for at in 0..frame.len() {
            let mut bad = frame.clone();
            bad[at] ^= 0xff;
            let _ = decompress(&bad, 1 << 16); // may be other bytes; must not panic
        }
        for cut in 0..frame.len() {
            assert!(decompress(&frame[..cut], 1 << 16).is_err(), "{cut}");
        }
        let bomb = [LZ4, 0xff, 0xff, 0xff, 0x3f, 0, 0];
        assert_eq!(decompress(&bomb, usize::MAX), Err(FrameError::Unreadable));
        assert_eq!(decompress(&[9, 1], 10), Err(FrameError::Unreadable));
    }
}
