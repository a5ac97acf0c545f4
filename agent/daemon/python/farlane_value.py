"""The value codec: values that cannot execute, as bytes. docs/design/value-codec.md is the format.

Owns encoding in workers, on any Python from 3.9, with the standard library alone; numpy is
recognised, never imported. Leaves reading what strangers send to farlane-codec, which checks
everything; `decode` here serves tests and a tenant's own data.
"""

import struct

VERSION = 1
MAX_DEPTH = 64
MAX_VALUES = 1 << 22
MAX_PLAIN_KEYS = 1 << 16
MAX_INT_BYTES = 4096

_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")


class Unencodable(TypeError):
    """A value that this codec does not carry; the message names the path to it."""


def encode(value):
    """The value's bytes.

    Raises Unencodable for a type that is not carried (subclasses are not their base), or a value
    beyond the bounds.
    """
    out = bytearray((VERSION,))
    _Writer(out).value(value, 0)
    return bytes(out)


class _Writer:
    __slots__ = ("out", "path", "values", "plain_keys")

    def __init__(self, out):
        self.out = out
        self.path = []
        self.values = 0
        self.plain_keys = 0

    def fail(self, reason):
        where = "".join(self.path)
        raise Unencodable("result%s %s" % (where, reason))

    def value(self, value, depth):
        self.values += 1
        if self.values > MAX_VALUES:
            self.fail("holds more than %d values; return a numpy array" % MAX_VALUES)
        if depth > MAX_DEPTH:
            self.fail("is nested more than %d deep" % MAX_DEPTH)
        write = _WRITERS.get(type(value))
        if write is not None:
            write(self, value, depth)
        else:
            self.numpy(value)

    def varint(self, value):
        out = self.out
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)

    def sized(self, data):
        self.varint(len(data))
        self.out += data

    def none(self, _value, _depth):
        self.out.append(0x00)

    def bool(self, value, _depth):
        self.out.append(0x02 if value else 0x01)

    def int(self, value, _depth):
        if -(1 << 63) <= value < 1 << 63:
            self.out.append(0x03)
            self.varint(value << 1 if value >= 0 else (-value << 1) - 1)
            return
        magnitude = abs(value)
        size = (magnitude.bit_length() + 7) // 8
        if size > MAX_INT_BYTES:
            self.fail("is an integer of more than %d bytes" % MAX_INT_BYTES)
        self.out += bytes((0x04, 1 if value < 0 else 0))
        self.sized(magnitude.to_bytes(size, "big"))

    def float(self, value, _depth):
        self.out.append(0x05)
        self.out += _FLOAT.pack(value)

    def complex(self, value, _depth):
        self.out.append(0x06)
        self.out += _COMPLEX.pack(value.real, value.imag)

    def str(self, value, _depth):
        try:
            data = value.encode()
        except UnicodeEncodeError:
            self.fail("is text with lone surrogates; send it as bytes")
        self.out.append(0x07)
        self.sized(data)

    def bytes(self, value, _depth):
        self.out.append(0x08)
        self.sized(value)

    def bytearray(self, value, _depth):
        self.out.append(0x09)
        self.sized(value)

    def items(self, tag, items, depth):
        self.out.append(tag)
        self.varint(len(items))
        path = self.path
        for index, item in enumerate(items):
            path.append("[%d]" % index)
            self.value(item, depth + 1)
            path.pop()

    def list(self, value, depth):
        self.items(0x0A, value, depth)

    def tuple(self, value, depth):
        self.items(0x0B, value, depth)

    def key(self, key, depth):
        if type(key) is not str and type(key) is not bytes:
            self.plain_keys += 1
            if self.plain_keys > MAX_PLAIN_KEYS:
                self.fail("has more than %d keys that are neither str nor bytes" % MAX_PLAIN_KEYS)
        self.value(key, depth + 1)

    def dict(self, value, depth):
        self.out.append(0x0C)
        self.varint(len(value))
        path = self.path
        for key, item in value.items():
            path.append(".key(%.40r)" % (key,) if type(key) in _NAMED else ".key(…)")
            self.key(key, depth)
            path[-1] = "[%.40r]" % (key,) if type(key) in _NAMED else "[…]"
            self.value(item, depth + 1)
            path.pop()

    def members(self, tag, members, depth):
        self.out.append(tag)
        self.varint(len(members))
        self.path.append(".member")
        for member in members:
            self.key(member, depth)
        self.path.pop()

    def set(self, value, depth):
        self.members(0x0D, value, depth)

    def frozenset(self, value, depth):
        self.members(0x0E, value, depth)

    def numpy(self, value):
        kind = type(value)
        home = getattr(kind, "__module__", None)
        if home == "numpy" and kind.__name__ == "ndarray":
            self.out.append(0x0F)
            self.dtype(value.dtype)
            self.varint(value.ndim)
            for extent in value.shape:
                self.varint(extent)
            if value.ndim and value.size and value.flags.c_contiguous and _is_buffer(value.dtype):
                self.varint(value.nbytes)
                self.out += value.data.cast("B")
            else:
                self.sized(value.tobytes())
        elif home == "numpy" and hasattr(kind, "dtype") and hasattr(kind, "itemsize"):
            self.out.append(0x10)
            self.dtype(value.dtype)
            self.out += value.tobytes()
        else:
            self.fail("is a %s.%s, which this provider may not return; see "
                      "docs/design/value-codec.md" % (home, kind.__qualname__))

    def dtype(self, dtype):
        if dtype.kind not in "biufcSUMm" or dtype.hasobject or dtype.str[1:] in ("f16", "c32"):
            self.fail("is an array of %s, which is not carried" % (dtype,))
        self.sized(dtype.str.encode())


def _is_buffer(dtype):
    """Whether memory of this type can be viewed as plain bytes, without a copy."""
    return dtype.isnative and dtype.kind in "biuf"


_NAMED = (str, int, bytes, bool)
_WRITERS = {
    type(None): _Writer.none,
    bool: _Writer.bool,
    int: _Writer.int,
    float: _Writer.float,
    complex: _Writer.complex,
    str: _Writer.str,
    bytes: _Writer.bytes,
    bytearray: _Writer.bytearray,
    list: _Writer.list,
    tuple: _Writer.tuple,
    dict: _Writer.dict,
    set: _Writer.set,
    frozenset: _Writer.frozenset,
}


def decode(data):
    """The value of bytes that a trusted encoder made."""
    reader = _Reader(bytes(data))
    if reader.byte() != VERSION:
        raise ValueError("not an encoded value of version %d" % VERSION)
    value = reader.value()
    if reader.at != len(reader.data):
        raise ValueError("something stands after the encoded value")
    return value


class _Reader:
    __slots__ = ("data", "at")

    def __init__(self, data):
        self.data = data
        self.at = 0

    def byte(self):
        return self.take(1)[0]

    def take(self, size):
        taken = self.data[self.at : self.at + size]
        if len(taken) != size:
            raise ValueError("the encoded value is cut short")
        self.at += size
        return taken

    def varint(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def sized(self):
        return self.take(self.varint())

    def items(self):
        return [self.value() for _ in range(self.varint())]

    def value(self):
        tag = self.byte()
        if tag <= 0x02:
            return (None, False, True)[tag]
        if tag == 0x03:
            zigzag = self.varint()
            return zigzag >> 1 if not zigzag & 1 else -((zigzag + 1) >> 1)
        if tag == 0x04:
            negative = self.byte()
            magnitude = int.from_bytes(self.sized(), "big")
            return -magnitude if negative else magnitude
        if tag == 0x05:
            return _FLOAT.unpack(self.take(8))[0]
        if tag == 0x06:
            return complex(*_COMPLEX.unpack(self.take(16)))
        if tag == 0x07:
            return self.sized().decode()
        if tag == 0x08:
            return self.sized()
        if tag == 0x09:
            return bytearray(self.sized())
        if tag == 0x0C:
            return {self.value(): self.value() for _ in range(self.varint())}
        if tag in _CONTAINERS:
            return _CONTAINERS[tag](self.items())
        if tag in (0x0F, 0x10):
            return self.numpy(tag)
        raise ValueError("unknown tag %#x" % tag)

    def numpy(self, tag):
        import numpy

        dtype = numpy.dtype(self.sized().decode())
        if tag == 0x10:
            return numpy.frombuffer(self.take(dtype.itemsize), dtype)[0]
        shape = tuple(self.varint() for _ in range(self.varint()))
        return numpy.ndarray(shape, dtype, bytearray(self.sized()))


_CONTAINERS = {0x0A: list, 0x0B: tuple, 0x0D: set, 0x0E: frozenset}
