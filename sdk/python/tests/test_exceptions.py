"""From a raise on a node to a raise here."""

import sys
import threading
import traceback

import pytest

import farlane as fl
from farlane import _exceptions
from farlane._farlane import decode

from test_value import load


class Custom(Exception):
    def __init__(self, code, detail):
        super().__init__(code, detail)
        self.code = code


class Strict(Exception):
    """Its arguments are not those of its constructor."""

    def __init__(self, what, *, code, lock=None):
        super().__init__(f"{what} ({code})")
        self.code = code
        self.lock = lock
        self.seen = {"codes": [code]}


class Doubling(Exception):
    """Made again from its arguments it would say another thing."""

    def __init__(self, what):
        super().__init__(f"no {what}")


class Stubborn(Exception):
    def __reduce__(self):
        raise TypeError("not me")


class StrictOs(OSError):
    def __init__(self, *, path):
        super().__init__(2, "gone", path)


def over(error):
    """The exception as it arrives here."""
    return _exceptions.rebuild(describe(error, own=True), trusted=True)


def caught(*errors):
    """The last of these, raised from the one before, and so on."""
    previous = None
    for error in errors:
        try:
            raise error from previous
        except BaseException as raised:
            previous = raised
    return previous


def describe(error, own, phase="call"):
    sys.modules.setdefault("farlane_value", load("farlane_value"))
    plain = load("farlane_error").describe(error, phase, own)
    assert plain[0] == 0
    return decode(plain[1:])


def raised():
    try:
        try:
            {}["missing"]
        except KeyError as inner:
            raise Custom(7, "seven") from inner
    except Custom as error:
        return error


def test_an_own_providers_exception_keeps_type_arguments_and_cause():
    record = describe(raised(), own=True)
    error = _exceptions.rebuild(record, trusted=True)
    assert type(error) is Custom and error.args == (7, "seven") and error.code == 7
    assert type(error.__cause__) is KeyError and error.__cause__.args == ("missing",)


def test_a_class_with_a_constructor_of_its_own_arrives_as_it_was():
    error = over(caught(Strict("disk", code=7)))
    assert type(error) is Strict and error.args == ("disk (7)",) and str(error) == "disk (7)"
    assert error.code == 7 and error.seen == {"codes": [7]} and error.lock is None
    assert type(over(Doubling("room"))) is Doubling and over(Doubling("room")).args == ("no room",)
    assert type(over(Stubborn("x", 1))) is Stubborn and over(Stubborn("x", 1)).args == ("x", 1)
    gone = over(StrictOs(path="/nowhere"))
    assert type(gone) is StrictOs and (gone.errno, gone.strerror, gone.filename) == (2, "gone", "/nowhere")


def test_attributes_arrive_and_what_cannot_be_sent_does_not_cost_the_rest():
    plain = Custom(1, "one")
    plain.extra = [1, 2]
    error = over(plain)
    assert type(error) is Custom and error.extra == [1, 2]
    locked = Strict("disk", code=7, lock=threading.Lock())
    error = over(locked)
    assert type(error) is Strict and error.code == 7 and not hasattr(error, "lock")
    error = over(Custom(threading.Lock(), "held"))
    assert type(error) is Custom and error.args[1] == "held" and "lock" in error.args[0]


def test_chains_of_causes_and_contexts_arrive_link_by_link():
    error = over(caught(KeyError("k"), Strict("disk", code=1), Custom(2, "two")))
    assert type(error) is Custom and type(error.__cause__) is Strict and error.__cause__.code == 1
    assert type(error.__cause__.__cause__) is KeyError and error.__cause__.__cause__.__cause__ is None
    try:
        try:
            raise Strict("inner", code=3)
        except Strict:
            raise ValueError("outer")
    except ValueError as raised:
        error = over(raised)
    assert type(error) is ValueError and error.__cause__ is None
    assert type(error.__context__) is Strict and error.__context__.code == 3


def test_groups_arrive_with_their_members_and_their_causes():
    if sys.version_info < (3, 11):
        return  # There are none.
    member = caught(KeyError("deep"), Strict("disk", code=1))
    inner = ExceptionGroup("inner", [Doubling("room")])  # noqa: F821
    error = over(caught(ExceptionGroup("two went wrong", [member, ValueError(2), inner])))  # noqa: F821
    assert type(error) is ExceptionGroup and error.message == "two went wrong"  # noqa: F821
    first, second, third = error.exceptions
    assert type(first) is Strict and first.code == 1 and type(first.__cause__) is KeyError
    assert type(second) is ValueError and second.args == (2,)
    assert third.exceptions[0].args == ("no room",)
    matched, rest = error.split(Strict)
    assert matched.exceptions == (first,) and len(rest.exceptions) == 2
    error.__notes__ = ["seen"]
    assert over(error).__notes__ == ["seen"]


def test_remote_frames_show_with_their_source_lines():
    error = _exceptions.rebuild(describe(raised(), own=True), trusted=True)
    with pytest.raises(Custom) as caught:
        raise error
    text = "".join(traceback.format_exception(Custom, caught.value, caught.value.__traceback__))
    assert 'test_exceptions.py (remote)"' in text and "in raised" in text
    assert 'raise Custom(7, "seven") from inner' in text
    assert '{}["missing"]' in text and "direct cause" in text
    assert "^^^^" not in text.split("(remote)", 1)[1].split("\n")[2], "no marks under code that is not here"


def test_a_foreign_provider_can_only_name_its_exception():
    record = describe(raised(), own=False)
    assert all(entry["pickle"] is None for entry in record["chain"])
    # Even if it sends a pickle, it is not loaded.
    record["chain"][0]["pickle"] = b"cos\nsystem\n(S'false'\ntR."
    error = _exceptions.rebuild(record, trusted=False)
    assert type(error) is fl.TaskError and error.type_name.endswith("Custom")
    assert error.remote_args == (7, "seven") and "(7, 'seven')" in str(error)
    assert type(error.__cause__) is fl.TaskError


def test_a_class_that_is_not_known_here_is_a_task_error():
    record = describe(raised(), own=True)
    record["chain"][0]["pickle"] = b"\x80\x05\x8c\x07nowhere\x8c\x03Err\x93)R."
    error = _exceptions.rebuild(record, trusted=True)
    assert type(error) is fl.TaskError and "Custom" in error.type_name


def test_a_missing_module_points_at_env():
    try:
        import no_such_module_anywhere  # noqa: F401
    except ModuleNotFoundError as missing:
        error = _exceptions.rebuild(describe(missing, own=True, phase="load"), trusted=True)
    assert type(error) is ModuleNotFoundError
    text = "".join(traceback.format_exception_only(type(error), error))
    assert "fl.Env(requirements=" in text


def test_a_result_that_cannot_be_sent_is_a_serialization_error():
    record = describe(TypeError("cannot pickle '_thread.lock' object"), own=True, phase="encode")
    error = _exceptions.rebuild(record, trusted=True)
    assert type(error) is fl.SerializationError and "_thread.lock" in str(error)


@pytest.mark.parametrize(
    ("ended", "kind"),
    [
        (("lost", "signal", 9, ""), fl.WorkerLost),
        (("lost", "out_of_memory", 0, ""), fl.WorkerLost),
        (("timed_out", "", 0, ""), fl.TaskTimeout),
        (("expired", "", 0, "the queue timeout of 1 s passed"), fl.QueueTimeout),
        (("expired", "", 0, "the deadline passed"), fl.TaskTimeout),
        (("infeasible", "", 0, "no node has Python 3.9"), fl.Infeasible),
        (("refused", "", 0, "the interpreter is not 3.12"), fl.EnvMismatch),
    ],
)
def test_other_ends(ended, kind):
    error = _exceptions.ended(*ended)
    assert type(error) is kind and isinstance(error, fl.FarlaneError) and str(error)
    if kind is fl.WorkerLost:
        assert error.cause == ended[1]
    if kind in (fl.TaskTimeout, fl.QueueTimeout):
        assert isinstance(error, TimeoutError)
