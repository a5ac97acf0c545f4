//! Values that cannot execute: how results cross from providers that a tenant does not own.
//!
//! The format is docs/design/value-codec.md; `agent/daemon/python/farlane_value.py` writes it in
//! workers, and both sides are held to the vectors in `tests/vectors/value.json`. Decoding borrows
//! from the bytes, checks everything, and is bounded in depth, count and size, so that a hostile
//! worker can make a reader fail but neither execute nor hang nor swell.

mod dtype;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use dtype::DType;
pub use read::decode;
pub use write::encode;

/// First byte of every encoding.
pub const VERSION: u8 = 1;
/// Deepest nesting of containers. Source: twice what hand-written results show; far below what
/// recursion in either language bears.
pub const MAX_DEPTH: usize = 64;
/// Most values in all. Source: 4 M values are about 200 MiB of Python objects; more belongs in an
/// array.
pub const MAX_VALUES: usize = 1 << 22;
/// Most dict keys and set members that are neither str nor bytes, in all. Source: Python hashes
/// those without a secret, so chosen ones collide; 65,536 cost at worst seconds.
pub const MAX_PLAIN_KEYS: usize = 1 << 16;
/// Most bytes of an integer beyond 64 bits.
pub const MAX_INT_BYTES: usize = 4096;
/// Most dimensions of an array. Source: numpy's NPY_MAXDIMS up to version 1.
pub const MAX_DIMENSIONS: usize = 32;

/// One value; text and bytes are borrowed from the encoding.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `None`
    None,
    /// `bool`
    Bool(bool),
    /// `int` of 64 bits.
    Int(i64),
    /// A larger `int`: sign, and magnitude, big-endian, without leading zeros.
    BigInt {
        /// Below zero.
        negative: bool,
        /// At most [`MAX_INT_BYTES`].
        magnitude: &'a [u8],
    },
    /// `float`
    Float(f64),
    /// `complex`: real and imaginary part.
    Complex(f64, f64),
    /// `str`
    Str(&'a str),
    /// `bytes`
    Bytes(&'a [u8]),
    /// `bytearray`
    ByteArray(&'a [u8]),
    /// `list`
    List(Vec<Value<'a>>),
    /// `tuple`
    Tuple(Vec<Value<'a>>),
    /// `dict`, in its order; a key that is repeated takes its last value.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// `set`
    Set(Vec<Value<'a>>),
    /// `frozenset`
    FrozenSet(Vec<Value<'a>>),
    /// `numpy.ndarray`
    Array {
        /// Element type.
        dtype: DType<'a>,
        /// Empty for a single element.
        shape: Vec<usize>,
        /// In C order; element size × product of the shape.
        data: &'a [u8],
    },
    /// A numpy scalar, such as `numpy.float64`.
    Scalar {
        /// Element type.
        dtype: DType<'a>,
        /// One element.
        data: &'a [u8],
    },
}

/// Bytes that are no value, or one beyond the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not this format, or of a newer version.
    #[error("these bytes are not an encoded value of version {VERSION}")]
    Version,
    /// Cut short, or something stands after the end.
    #[error("the encoded value is cut short or too long")]
    Length,
    /// A tag, a number or a text that no encoder writes.
    #[error("the encoded value is damaged at byte {at}")]
    Damaged {
        /// Where.
        at: usize,
    },
    /// Deeper, longer or larger than the bounds.
    #[error("the encoded value is beyond its bounds: {what}")]
    OutOfBounds {
        /// Which bound.
        what: &'static str,
    },
    /// A dict's key or a set's member cannot be one.
    #[error("the encoded value has a key that cannot be hashed")]
    BadKey,
    /// An array's type may hold objects, or its size does not fit its shape.
    #[error("the encoded array is not one of plain numbers, text or bytes")]
    BadArray,
}

impl Value<'_> {
    /// Whether Python can hash it, all the way down.
    pub(crate) fn is_hashable(&self) -> bool {
        match self {
            Self::Tuple(items) | Self::FrozenSet(items) => items.iter().all(Self::is_hashable),
            Self::List(_) | Self::Dict(_) | Self::Set(_) | Self::ByteArray(_) => false,
            Self::Array { .. } => false,
            Self::None | Self::Bool(_) | Self::Int(_) | Self::BigInt { .. } | Self::Float(_) => {
                true
            }
            Self::Complex(..) | Self::Str(_) | Self::Bytes(_) | Self::Scalar { .. } => true,
        }
    }
    /// Whether Python hashes it with a secret, so that nobody can choose collisions.
    pub(crate) fn hashes_secretly(&self) -> bool {
        matches!(self, Self::Str(_) | Self::Bytes(_))
    }
}

/// The tags of the format.
pub(crate) mod tag {
    pub(crate) const NONE: u8 = 0x00;
    pub(crate) const FALSE: u8 = 0x01;
    pub(crate) const TRUE: u8 = 0x02;
    pub(crate) const INT: u8 = 0x03;
    pub(crate) const BIG_INT: u8 = 0x04;
    pub(crate) const FLOAT: u8 = 0x05;
    pub(crate) const COMPLEX: u8 = 0x06;
    pub(crate) const STR: u8 = 0x07;
    pub(crate) const BYTES: u8 = 0x08;
    pub(crate) const BYTE_ARRAY: u8 = 0x09;
    pub(crate) const LIST: u8 = 0x0a;
    pub(crate) const TUPLE: u8 = 0x0b;
    pub(crate) const DICT: u8 = 0x0c;
    pub(crate) const SET: u8 = 0x0d;
    pub(crate) const FROZEN_SET: u8 = 0x0e;
    pub(crate) const ARRAY: u8 = 0x0f;
    pub(crate) const SCALAR: u8 = 0x10;
}
