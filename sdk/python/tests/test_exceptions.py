"""From a raise on a node to a raise here."""

import sys
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
