"""The workers' side of the value codec against the shared vectors. Run by `cargo test` and pytest."""

import json
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "agent" / "daemon" / "python"))

import farlane_value

try:
    import numpy
except ImportError:
    numpy = None

VECTORS = json.loads((HERE / "vectors" / "value.json").read_text(encoding="utf-8"))


class Odd(list):
    pass


class ValueCodec(unittest.TestCase):
    def test_vectors(self):
        ran = 0
        for vector in VECTORS["good"]:
            if "numpy" in vector["python"] and numpy is None:
                continue
            with self.subTest(vector["name"]):
                value = eval(vector["python"], {"numpy": numpy})
                encoded = farlane_value.encode(value)
                self.assertEqual(encoded.hex(), vector["hex"])
                back = farlane_value.decode(encoded)
                self.assertIs(type(back), type(value))
                if numpy is not None and isinstance(value, numpy.ndarray):
                    self.assertEqual((back.dtype, back.shape), (value.dtype, value.shape))
                    self.assertTrue((back == value).all())
                else:
                    self.assertEqual(back, value)
                ran += 1
        self.assertGreaterEqual(ran, 14)

    def refuses(self, value, *words):
        with self.assertRaises(farlane_value.Unencodable) as caught:
            farlane_value.encode(value)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_what_is_not_carried_is_named_with_its_path(self):
        self.refuses({"a": [1, (2, object())]}, "result['a'][1][1]", "object")
        self.refuses([Odd()], "result[0]", "Odd")
        self.refuses({Odd: 1}, "result.key(")
        self.refuses("\ud800", "surrogates")
        self.refuses(lambda: 0, "function")

    def test_bounds(self):
        deep = None
        for _ in range(64):
            deep = [deep]
        farlane_value.encode(deep)
        self.refuses([deep], "nested")
        self.refuses(1 << (8 * 4096), "integer")
        self.refuses(set(range(65537)), "keys")
        farlane_value.encode({str(i): i for i in range(70000)})


if numpy is not None:

    class NumpyTypes(ValueCodec):
        def test_arrays_that_hold_objects_are_refused(self):
            self.refuses(numpy.array([object()]), "array of object")
            self.refuses(numpy.zeros(1, dtype=[("a", "<i4")]), "array of")
            self.refuses(numpy.zeros(1, dtype=numpy.longdouble), "array of")
            self.refuses(numpy.ma.array([1]), "MaskedArray")


if __name__ == "__main__":
    unittest.main()
