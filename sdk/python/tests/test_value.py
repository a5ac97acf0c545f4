"""The safe codec: what workers write in Python, this package reads in Rust."""

import importlib.util
import json
from pathlib import Path

import pytest

from farlane._farlane import decode

ROOT = Path(__file__).resolve().parents[3]


def load(name):
    path = ROOT / "agent" / "daemon" / "python" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VALUES = [
    None,
    True,
    -1,
    2**63,
    -(2**200),
    1.5,
    float("inf"),
    2j,
    "ünï",
    b"\x00bytes",
    bytearray(b"mutable"),
    [1, [2, []]],
    (1, ("a",), ()),
    {"k": [1], 2: None, (1, 2): {}},
    {1, 2, 3},
    frozenset({"x"}),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_were(value):
    back = decode(load("farlane_value").encode(value))
    assert back == value and type(back) is type(value)


def test_arrays_come_back_writable():
    numpy = pytest.importorskip("numpy")
    encode = load("farlane_value").encode
    for array in (numpy.arange(6, dtype="<i4").reshape(2, 3), numpy.zeros((0, 4)), numpy.array(2.5), numpy.array(["ab"])):
        back = decode(encode(array))
        assert back.dtype == array.dtype and back.shape == array.shape and (back == array).all()
        assert back.flags.writeable and back.flags.owndata is False
    scalar = decode(encode(numpy.float32(1.5)))
    assert scalar == 1.5 and type(scalar) is numpy.float32


def test_every_cut_and_many_flips_are_refused_or_harmless():
    encoded = load("farlane_value").encode({"list": [1, 2.0, "text", b"bytes"], "n": 2**70})
    for cut in range(len(encoded)):
        with pytest.raises(ValueError):
            decode(encoded[:cut])
    for i in range(len(encoded)):
        for bit in range(8):
            bad = bytearray(encoded)
            bad[i] ^= 1 << bit
            try:
                decode(bytes(bad))
            except ValueError:
                pass  # Refused; anything else would fail the test.


VECTORS = json.loads((ROOT / "dataplane" / "codec" / "tests" / "vectors" / "value.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", VECTORS["good"], ids=lambda vector: vector["name"])
def test_a_shared_vector_is_read_as_it_was_written(vector):
    numpy = __import__("numpy") if "numpy" in vector["python"] else None
    value = eval(vector["python"], {"numpy": numpy})
    back = decode(bytes.fromhex(vector["hex"]))
    assert type(back) is type(value)
    if numpy is not None and isinstance(value, numpy.ndarray):
        assert (back.dtype, back.shape) == (value.dtype, value.shape) and (back == value).all()
    else:
        assert back == value


@pytest.mark.parametrize("vector", VECTORS["bad"], ids=lambda vector: vector["name"])
def test_a_damaged_vector_is_refused(vector):
    with pytest.raises(ValueError):
        decode(bytes.fromhex(vector["hex"]))
