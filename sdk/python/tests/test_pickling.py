import importlib
import pickle
import sys
import threading

import pytest

import farlane as fl
from farlane import _pickling

BIG = 2 << 20


def load(data, buffers=()):
    return pickle.loads(data, buffers=[bytes(b) if ro else bytearray(b) for ro, b in buffers])


def test_plain_arguments_go_the_short_way():
    data, buffers = _pickling.dump_arguments((1, "x", None), {"k": 2.5})
    assert buffers == [] and pickle.loads(data) == ((1, "x", None), {"k": 2.5})


def test_only_plain_values_go_the_short_way():
    assert _pickling._all_plain((1, "x", None, b"b", {"lr": 0.1, "layers": [1, (2, 3)]}))
    recursive = []
    recursive.append(recursive)
    for other in ({1}, Holder(1), [Holder(1)], {"k": Holder}, list(range(1000)), recursive, b"b" * BIG, [[[[1]]]]):
        assert not _pickling._all_plain((other,)), other
    data, _ = _pickling.dump_arguments((recursive, {1}, [[[[1]]]]), {})
    (back, members, deep), _ = pickle.loads(data)
    assert back[0] is back and members == {1} and deep == [[[[1]]]]


def test_large_buffers_leave_on_their_own():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(BIG // 8, dtype="f8")
    args = (array, b"b" * BIG, bytearray(BIG), b"small")
    data, buffers = _pickling.dump_arguments(args, {"deep": {"list": [array]}})
    assert len(data) < 4096 and len(buffers) == 3, "the array is named twice and sent once"
    sent = [_pickling.buffer_bytes(b) for b in buffers]
    assert [readonly for readonly, _ in sent] == [False, True, False]
    assert sent[1][1] is args[1], "bytes are not copied"
    (a, b, c, d), kwargs = load(data, sent)
    assert type(b) is bytes and b == args[1] and type(c) is bytearray and len(c) == BIG and d == b"small"
    assert (a == array).all() and a.flags.writeable
    assert kwargs["deep"]["list"][0] is a


class Holder:
    def __init__(self, value):
        self.value = value


def test_the_error_names_the_path_to_what_cannot_be_pickled():
    with pytest.raises(fl.SerializationError, match=r"args\[1\]\['lock'\]\[0\] is a _thread.lock"):
        _pickling.dump_arguments((1, {"lock": [threading.Lock()]}), {})
    with pytest.raises(fl.SerializationError, match=r"kwargs\['holder'\]\.value is a _thread.lock"):
        _pickling.dump_arguments((), {"holder": Holder(threading.Lock())})


def test_what_no_node_takes_is_refused_by_its_path(monkeypatch):
    monkeypatch.setattr(_pickling, "MIN_BLOB", 1000)
    monkeypatch.setattr(_pickling, "MAX_BLOB", 5000)
    import numpy

    fits, large = b"x" * 4000, b"x" * 6000
    array = numpy.zeros(1000)
    assert len(_pickling.dump_arguments((fits, fits, array[:500]), {})[1]) == 3, "each by itself"
    for args, kwargs, path in (
        ((1, large), {}, r"args\[1\], a bytes, cannot be sent: 60\d\d bytes"),
        ((), {"data": {"x": [fits, array]}}, r"kwargs\['data'\]\['x'\]\[1\], a numpy.ndarray, .* 8000 bytes"),
        ((Holder(array),), {}, r"args\[0\]\.value, a numpy.ndarray"),
        ((Holder(list(range(9999))),), {}, r"args\[0\]\.value, a list"),
        (("y" * 6000,), {}, r"args\[0\], a str"),
        (("y" * 3000, "z" * 3000), {}, r"the arguments cannot be sent: 60\d\d bytes"),
    ):
        with pytest.raises(fl.PayloadTooLarge, match=path) as caught:
            _pickling.dump_arguments(args, kwargs)
        assert "a node takes at most 5000; split it" in str(caught.value)

    def captures():
        return large

    with pytest.raises(fl.PayloadTooLarge, match="captured variable 'large', a bytes, "):
        _pickling.dump_function(captures)


def test_a_function_that_drags_a_lock_along_is_named():
    lock = threading.Lock()

    def guarded():
        with lock:
            return 1

    with pytest.raises(fl.SerializationError, match="captured variable 'lock' is a _thread.lock"):
        _pickling.dump_function(guarded)


def test_own_modules_travel_by_value(tmp_path, monkeypatch):
    (tmp_path / "own_helpers.py").write_text("FACTOR = 3\n\ndef scale(x):\n    return FACTOR * x\n")
    (tmp_path / "own_work.py").write_text("import own_helpers\n\ndef work(x):\n    return own_helpers.scale(x) + 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    work = importlib.import_module("own_work").work
    data = _pickling.dump_function(work)
    import subprocess

    code = "import sys, pickle; print(pickle.loads(sys.stdin.buffer.read())(2))"
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, cwd="/")
    assert done.stdout == b"7\n", done.stderr.decode()
    assert not _pickling.is_own(importlib.import_module("json"))
    assert not _pickling.is_own(importlib.import_module("pytest"))


LEVEL = 1


def uses_level(x):
    return deeper(x)


def deeper(x):
    return x + LEVEL


def test_rebinding_a_global_or_cell_is_noticed(monkeypatch):
    # This file stands for a script: its functions travel by value.
    monkeypatch.setattr(_pickling, "is_own", lambda module: module.__name__ == __name__)
    captured = _pickling.Captured(uses_level)
    assert captured.is_current()
    monkeypatch.setitem(globals(), "LEVEL", 2)
    assert not captured.is_current(), "a global of a function that it calls"

    count = 1

    def closure():
        return count

    captured = _pickling.Captured(closure)
    assert captured.is_current()
    count = 2
    assert not captured.is_current()


def test_a_remote_function_is_its_plain_function_inside_a_task():
    @fl.remote(memory="2GiB")
    def double(x):
        return 2 * x

    import cloudpickle

    assert double(4) == 8
    loaded = pickle.loads(cloudpickle.dumps(double))
    assert type(loaded).__name__ == "function" and loaded(5) == 10
