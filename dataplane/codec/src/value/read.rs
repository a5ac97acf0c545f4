//! Decoding: every byte is checked, every bound held, before anything is built.

use super::{
    DType, MAX_DEPTH, MAX_DIMENSIONS, MAX_INT_BYTES, MAX_PLAIN_KEYS, MAX_VALUES, VERSION, Value,
    ValueError, tag,
};

/// Decodes one value; it borrows from `bytes`.
///
/// *Errors*: damaged, hostile, or beyond the bounds of this module.
pub fn decode(bytes: &[u8]) -> Result<Value<'_>, ValueError> {
    if bytes.first() != Some(&VERSION) {
        return Err(ValueError::Version);
    }
    let mut reader = Reader {
        bytes,
        at: 1,
        values: 0,
        plain_keys: 0,
    };
    let value = reader.value(0)?;
    match reader.at == bytes.len() {
        true => Ok(value),
        false => Err(ValueError::Length),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values: usize,
    plain_keys: usize,
}

impl<'a> Reader<'a> {
    fn damaged(&self) -> ValueError {
        ValueError::Damaged { at: self.at }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ValueError> {
        let end = self.at.checked_add(len).ok_or(ValueError::Length)?;
        let taken = self.bytes.get(self.at..end).ok_or(ValueError::Length)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, ValueError> {
        Ok(self.take(1)?[0])
    }

    /// LEB128 of at most 64 bits, in its shortest form.
    fn varint(&mut self) -> Result<u64, ValueError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.damaged());
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return match byte == 0 && shift > 0 {
                    true => Err(self.damaged()),
                    false => Ok(value),
                };
            }
        }
        Err(self.damaged())
    }

    fn length(&mut self) -> Result<usize, ValueError> {
        let value = self.varint()?;
        usize::try_from(value).map_err(|_| ValueError::Length)
    }

    fn sized(&mut self) -> Result<&'a [u8], ValueError> {
        let len = self.length()?;
        self.take(len)
    }

    fn text(&mut self) -> Result<&'a str, ValueError> {
        let bytes = self.sized()?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged())
    }

    fn float(&mut self) -> Result<f64, ValueError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(f64::from_le_bytes(bytes))
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, ValueError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(ValueError::OutOfBounds {
                what: "more than 4,194,304 values",
            });
        }
        if depth > MAX_DEPTH {
            return Err(ValueError::OutOfBounds {
                what: "nested more than 64 deep",
            });
        }
        Ok(match self.byte()? {
            tag::NONE => Value::None,
            tag::FALSE => Value::Bool(false),
            tag::TRUE => Value::Bool(true),
            tag::INT => {
                let zigzag = self.varint()?;
                Value::Int((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
            }
            tag::BIG_INT => self.big_int()?,
            tag::FLOAT => Value::Float(self.float()?),
            tag::COMPLEX => Value::Complex(self.float()?, self.float()?),
            tag::STR => Value::Str(self.text()?),
            tag::BYTES => Value::Bytes(self.sized()?),
            tag::BYTE_ARRAY => Value::ByteArray(self.sized()?),
            tag::LIST => Value::List(self.items(depth)?),
            tag::TUPLE => Value::Tuple(self.items(depth)?),
            tag::DICT => self.dict(depth)?,
            tag::SET => Value::Set(self.members(depth)?),
            tag::FROZEN_SET => Value::FrozenSet(self.members(depth)?),
            tag::ARRAY => self.array()?,
            tag::SCALAR => {
                let dtype = DType::new(self.text()?)?;
                Value::Scalar {
                    dtype,
                    data: self.take(dtype.size())?,
                }
            }
            _ => return Err(ValueError::Damaged { at: self.at - 1 }),
        })
    }

    fn big_int(&mut self) -> Result<Value<'a>, ValueError> {
        let negative = match self.byte()? {
            0 => false,
            1 => true,
            _ => return Err(self.damaged()),
        };
        let magnitude = self.sized()?;
        if magnitude.len() > MAX_INT_BYTES {
            return Err(ValueError::OutOfBounds {
                what: "an integer of more than 4096 bytes",
            });
        }
        if magnitude.len() < 8 || magnitude[0] == 0 {
            return Err(self.damaged());
        }
        Ok(Value::BigInt {
            negative,
            magnitude,
        })
    }

    /// A count of things that take at least `least` bytes each, so that no claim costs memory.
    fn count(&mut self, least: usize) -> Result<usize, ValueError> {
        let count = self.length()?;
        match count.checked_mul(least) {
            Some(bytes) if bytes <= self.bytes.len() - self.at => Ok(count),
            _ => Err(ValueError::Length),
        }
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Value<'a>>, ValueError> {
        let count = self.count(1)?;
        // Grown as they come: a count is checked against bytes, which are smaller than values.
        let mut items = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            items.push(self.value(depth + 1)?);
        }
        Ok(items)
    }

    fn key(&mut self, depth: usize) -> Result<Value<'a>, ValueError> {
        let key = self.value(depth + 1)?;
        if !key.is_hashable() {
            return Err(ValueError::BadKey);
        }
        if !key.hashes_secretly() {
            self.plain_keys += 1;
            if self.plain_keys > MAX_PLAIN_KEYS {
                let what = "more than 65,536 keys that are neither str nor bytes";
                return Err(ValueError::OutOfBounds { what });
            }
        }
        Ok(key)
    }

    fn members(&mut self, depth: usize) -> Result<Vec<Value<'a>>, ValueError> {
        let count = self.count(1)?;
        let mut members = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            members.push(self.key(depth)?);
        }
        Ok(members)
    }

    fn dict(&mut self, depth: usize) -> Result<Value<'a>, ValueError> {
        let count = self.count(2)?;
        let mut pairs = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            let key = self.key(depth)?;
            pairs.push((key, self.value(depth + 1)?));
        }
        Ok(Value::Dict(pairs))
    }

    fn array(&mut self) -> Result<Value<'a>, ValueError> {
        let dtype = DType::new(self.text()?)?;
        let dimensions = self.length()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(ValueError::OutOfBounds {
                what: "an array of more than 32 dimensions",
            });
        }
        let mut shape = Vec::with_capacity(dimensions);
        let (mut elements, mut bound) = (1usize, 1usize);
        for _ in 0..dimensions {
            let extent = self.length()?;
            elements = elements.checked_mul(extent).ok_or(ValueError::BadArray)?;
            // numpy also refuses an empty array whose other extents overflow.
            bound = bound
                .checked_mul(extent.max(1))
                .ok_or(ValueError::BadArray)?;
            shape.push(extent);
        }
        let most = bound
            .checked_mul(dtype.size().max(1))
            .ok_or(ValueError::BadArray)?;
        if isize::try_from(most).is_err() {
            return Err(ValueError::BadArray);
        }
        let data = self.sized()?;
        match elements.checked_mul(dtype.size()) == Some(data.len()) {
            true => Ok(Value::Array { dtype, shape, data }),
            false => Err(ValueError::BadArray),
        }
    }
}
