import pytest

from farlane import OptionError, _options


def native(**options):
    return _options.native(_options.merge(options), "f")


def test_sizes_are_numbers_or_text():
    assert native(memory="16GiB")["memory"] == 16 << 30
    assert native(memory=1024)["memory"] == 1024
    assert native(memory="1.5 GiB")["memory"] == 3 << 29
    for bad in ("16 apples", -1, "GiB", True, None, float("nan")):
        with pytest.raises(OptionError, match="memory"):
            native(memory=bad)


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(OptionError, match="did you mean 'memory'"):
        _options.merge({"memmory": 1})
    with pytest.raises(OptionError, match="did you mean 'num_cpus'"):
        _options.merge({"num_cpu": 1})
    with pytest.raises(OptionError, match="options are num_cpus"):
        _options.merge({"xyzzy": 1})


def test_times_are_seconds_or_timedeltas():
    from datetime import timedelta

    assert native(timeout=1.5)["timeout_ms"] == 1500
    assert native(deadline=timedelta(minutes=1))["deadline_ms"] == 60_000
    assert native()["queue_timeout_ms"] is None
    assert (native()["grace_ms"], native(grace=0)["grace_ms"], native(grace=2.5)["grace_ms"]) == (None, 0, 2500)
    for bad in (0, -1, "1s"):
        with pytest.raises(OptionError, match="timeout"):
            native(timeout=bad)


def test_retries():
    assert (native()["max_retries"], native()["retry_exceptions"]) == (3, 0)
    assert native(retry_exceptions=True)["retry_exceptions"] == 3
    assert native(retry_exceptions=2)["retry_exceptions"] == 2
    once = native(at_most_once=True, max_retries=5)
    assert (once["max_retries"], once["at_most_once"]) == (0, True)
    with pytest.raises(OptionError, match="sealed"):
        native(retry_exceptions=(ValueError,))
    with pytest.raises(OptionError, match="whole"):
        native(max_retries=1.5)


def test_where_and_how():
    made = native(regions="eu-*", labels={"a": "x", "b": 2}, num_cpus=0.5, priority=-5, encryption="forward-secret")
    assert made["regions"] == ["eu-*"]
    assert made["labels"] == [("a", "in", ["x"]), ("b", "in", ["2"])]
    assert (made["milli_cpus"], made["priority"], made["forward_secret"]) == (500, -5, True)
    for bad in ({"num_cpus": 0}, {"priority": 101}, {"grace": 61}, {"encryption": "none"}, {"sandbox": "microwm"}, {"labels": "a"}):
        with pytest.raises(OptionError, match=next(iter(bad))):
            native(**bad)


def test_later_layers_win():
    merged = _options.merge({"memory": 1, "priority": 1}, {"memory": 2})
    assert (merged["memory"], merged["priority"], merged["num_cpus"]) == (2, 1, 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"regions": 5},
        {"regions": None},
        {"regions": [1]},
        {"regions": b"eu"},
        {"labels": {1: "a"}},
        {"labels": {"a": None}},
        {"memory": float("inf")},
        {"memory": 1e30},
        {"scratch": 1 << 63},
        {"idempotency_key": 5},
        {"idempotency_key": ""},
        {"name": 5},
        {"sandbox": []},
        {"env": "numpy"},
        {"env": ["numpy"]},
    ],
)
def test_values_of_the_wrong_type_are_refused_by_name(bad):
    with pytest.raises(OptionError, match=next(iter(bad))):
        native(**bad)


def test_whole_numbers_of_numpy_are_numbers():
    class Int64:
        def __index__(self):
            return 2

    assert native(num_cpus=Int64())["milli_cpus"] == 2000 and native(memory=Int64())["memory"] == 2
