//! Encoding, in the one form that decoding accepts.

use super::{
    MAX_DEPTH, MAX_DIMENSIONS, MAX_INT_BYTES, MAX_PLAIN_KEYS, MAX_VALUES, VERSION, Value,
    ValueError, tag,
};

/// Encodes one value.
///
/// *Errors*: beyond the bounds of this module, an unhashable key, or an array whose size does not
/// fit its shape: whatever is returned decodes.
pub fn encode(value: &Value<'_>) -> Result<Vec<u8>, ValueError> {
    let mut writer = Writer {
        out: vec![VERSION],
        values: 0,
        plain_keys: 0,
    };
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer {
    out: Vec<u8>,
    values: usize,
    plain_keys: usize,
}

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn sized(&mut self, tag: Option<u8>, bytes: &[u8]) {
        self.out.extend(tag);
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn value(&mut self, value: &Value<'_>, depth: usize) -> Result<(), ValueError> {
        self.values += 1;
        if depth > MAX_DEPTH || self.values > MAX_VALUES {
            return Err(ValueError::OutOfBounds {
                what: "too deep, or too many values",
            });
        }
        match value {
            Value::None => self.out.push(tag::NONE),
            Value::Bool(false) => self.out.push(tag::FALSE),
            Value::Bool(true) => self.out.push(tag::TRUE),
            Value::Int(int) => {
                self.out.push(tag::INT);
                self.varint((int << 1 ^ int >> 63) as u64);
            }
            Value::BigInt {
                negative,
                magnitude,
            } => self.big_int(*negative, magnitude)?,
            Value::Float(float) => {
                self.out.push(tag::FLOAT);
                self.out.extend_from_slice(&float.to_le_bytes());
            }
            Value::Complex(real, imaginary) => {
                self.out.push(tag::COMPLEX);
                self.out.extend_from_slice(&real.to_le_bytes());
                self.out.extend_from_slice(&imaginary.to_le_bytes());
            }
            Value::Str(text) => self.sized(Some(tag::STR), text.as_bytes()),
            Value::Bytes(bytes) => self.sized(Some(tag::BYTES), bytes),
            Value::ByteArray(bytes) => self.sized(Some(tag::BYTE_ARRAY), bytes),
            Value::List(items) => self.items(tag::LIST, items, depth)?,
            Value::Tuple(items) => self.items(tag::TUPLE, items, depth)?,
            Value::Dict(pairs) => self.dict(pairs, depth)?,
            Value::Set(members) => self.members(tag::SET, members, depth)?,
            Value::FrozenSet(members) => self.members(tag::FROZEN_SET, members, depth)?,
            Value::Array { dtype, shape, data } => {
                let elements = shape
                    .iter()
                    .try_fold(1usize, |n, extent| n.checked_mul(*extent));
                let bytes = elements.and_then(|n| n.checked_mul(dtype.size()));
                if bytes != Some(data.len()) || shape.len() > MAX_DIMENSIONS {
                    return Err(ValueError::BadArray);
                }
                self.sized(Some(tag::ARRAY), dtype.as_str().as_bytes());
                self.varint(shape.len() as u64);
                shape.iter().for_each(|extent| self.varint(*extent as u64));
                self.sized(None, data);
            }
            Value::Scalar { dtype, data } if dtype.size() == data.len() => {
                self.sized(Some(tag::SCALAR), dtype.as_str().as_bytes());
                self.out.extend_from_slice(data);
            }
            Value::Scalar { .. } => return Err(ValueError::BadArray),
        }
        Ok(())
    }

    fn big_int(&mut self, negative: bool, magnitude: &[u8]) -> Result<(), ValueError> {
        let len = magnitude.len();
        if !(8..=MAX_INT_BYTES).contains(&len) || magnitude[0] == 0 {
            return Err(ValueError::OutOfBounds {
                what: "an integer of 8 to 4096 bytes",
            });
        }
        self.out
            .extend_from_slice(&[tag::BIG_INT, u8::from(negative)]);
        self.sized(None, magnitude);
        Ok(())
    }

    fn items(&mut self, tag: u8, items: &[Value<'_>], depth: usize) -> Result<(), ValueError> {
        self.out.push(tag);
        self.varint(items.len() as u64);
        items
            .iter()
            .try_for_each(|item| self.value(item, depth + 1))
    }

    fn key(&mut self, key: &Value<'_>, depth: usize) -> Result<(), ValueError> {
        self.plain_keys += usize::from(!key.hashes_secretly());
        if self.plain_keys > MAX_PLAIN_KEYS {
            return Err(ValueError::OutOfBounds {
                what: "too many plain keys",
            });
        }
        match key.is_hashable() {
            true => self.value(key, depth + 1),
            false => Err(ValueError::BadKey),
        }
    }

    fn members(&mut self, tag: u8, members: &[Value<'_>], depth: usize) -> Result<(), ValueError> {
        self.out.push(tag);
        self.varint(members.len() as u64);
        members
            .iter()
            .try_for_each(|member| self.key(member, depth))
    }

    fn dict(&mut self, pairs: &[(Value<'_>, Value<'_>)], depth: usize) -> Result<(), ValueError> {
        self.out.push(tag::DICT);
        self.varint(pairs.len() as u64);
        pairs.iter().try_for_each(|(key, value)| {
            self.key(key, depth)?;
            self.value(value, depth + 1)
        })
    }
}
