//! Padding to buckets, so that a sealed size says little.
//!
//! A bucket is the size of the *sealed* stream as long as it is one chunk: powers of two from 128 B
//! to 16 KiB, then eighths of a power (at most 12.5 % more). The pad is one byte `0x80` and zeros
//! (ISO/IEC 7816-4), so the length needs no field.

use crate::stream;

/// Smallest bucket.
pub const SMALLEST: usize = 128;
/// Up to here buckets are powers of two. Source: docs/design/spine.md, "dataplane/seal".
const POWERS_UP_TO: usize = 16 * 1024;
/// First byte of the padding.
pub(crate) const MARK: u8 = 0x80;

/// Bytes whose end is no padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the padding is damaged")]
pub struct BadPadding;

/// The least bucket that holds `len` bytes.
pub const fn bucket(len: usize) -> usize {
    if len <= SMALLEST {
        return SMALLEST;
    }
    if len <= POWERS_UP_TO {
        return len.next_power_of_two();
    }
    // Between 2^n and 2^(n+1) the steps are 2^n / 8.
    let step = (len.next_power_of_two() >> 1) / 8;
    len.div_ceil(step) * step
}

/// Length of `len` bytes once padded: a bucket less what sealing adds to one chunk.
pub const fn padded_len(len: usize) -> usize {
    bucket(len + 1 + stream::OVERHEAD) - stream::OVERHEAD
}

/// Pads in place.
pub fn pad_in_place(plaintext: &mut Vec<u8>) {
    let len = padded_len(plaintext.len());
    plaintext.push(MARK);
    plaintext.resize(len, 0);
}

/// A padded copy.
pub fn pad(plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(padded_len(plaintext.len()));
    out.extend_from_slice(plaintext);
    pad_in_place(&mut out);
    out
}

/// What was padded.
///
/// *Errors*: no mark is found.
pub fn unpad(padded: &[u8]) -> Result<&[u8], BadPadding> {
    let mark = padded.iter().rposition(|b| *b != 0).ok_or(BadPadding)?;
    if padded[mark] != MARK {
        return Err(BadPadding);
    }
    Ok(&padded[..mark])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_and_then_eighths() {
        let cases = [
            (0, 128),
            (128, 128),
            (129, 256),
            (16_384, 16_384),
            (16_385, 18_432),
            (18_433, 20_480),
            (32_768, 32_768),
            (32_769, 36_864),
            (1 << 20, 1 << 20),
            ((1 << 20) + 1, (1 << 20) + (1 << 17)),
        ];
        for (len, wanted) in cases {
            assert_eq!(bucket(len), wanted, "{len}");
        }
        for len in 1..200_000 {
            let b = bucket(len);
            assert!(
                b >= len && (len <= 16_384 || b - len <= len / 8),
                "{len} {b}"
            );
        }
    }

    #[test]
    fn what_is_padded_comes_back() {
        for len in [0, 1, 75, 76, 77, 1000, 16_331, 16_332, 16_333, 100_000] {
            let plain: Vec<u8> = (0..len).map(|i| (i % 2) as u8 * 0x80).collect();
            let padded = pad(&plain);
            assert_eq!(
                padded.len() + stream::OVERHEAD,
                bucket(len + 1 + stream::OVERHEAD)
            );
            assert_eq!(unpad(&padded), Ok(plain.as_slice()));
        }
        assert_eq!(unpad(&[]), Err(BadPadding));
        assert_eq!(unpad(&[0; 9]), Err(BadPadding));
        assert_eq!(unpad(&[1, 2, 0]), Err(BadPadding));
    }
}
