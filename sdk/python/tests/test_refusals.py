"""What cannot be is refused where it is given, with what can; and what interrupts leave behind."""

import concurrent.futures

import farlane as fl
import pytest
from farlane import _client

from stand_in import drive


def test_waits_that_cannot_be_are_refused_with_what_can(client):
    future = client.submit(pow, 2, 2)
    for bad in (float("inf"), float("nan"), "5", True, [1]):
        for wait in (future.result, future.exception):
            with pytest.raises(fl.OptionError, match="timeout must be a number of seconds, or None"):
                wait(bad)
        with pytest.raises(fl.OptionError, match="timeout"):
            client.as_completed([future], timeout=bad)
        with pytest.raises(fl.OptionError, match="timeout"):
            client.map(abs, [1], timeout=bad)
    for none_left in (0, -1, -1e9):  # As in the standard library: an end that has passed.
        with pytest.raises(concurrent.futures.TimeoutError, match="task-1 is running after 0 s of waiting"):
            future.result(none_left)
    client._native.run()
    assert future.result(float("inf")) == 4, "no wait"


def test_a_chunk_has_a_size(client):
    for bad in (0, -1, 1 << 70, 1.5, True, "2", None):
        with pytest.raises(fl.OptionError, match="chunksize must be a"):
            client.map(abs, [1], chunksize=bad)
    assert drive(client, client.map(abs, range(5), chunksize=1 << 20)) == list(range(5))


def test_reasons_attempts_and_ids_are_checked_where_they_are_given(client):
    future = client.submit(pow, 2, 2)
    with pytest.raises(fl.OptionError, match="reason must be a text, not 5"):
        future.cancel(5)
    for bad in (-1, 1.5, "1", 1 << 40):
        with pytest.raises(fl.OptionError, match="attempt must be a"):
            future.logs(attempt=bad)
    with pytest.raises(fl.OptionError, match="id must be a text, not 5"):
        client.attach(5)
    assert client._native.cancelled == []


def test_an_interrupt_while_output_is_followed_detaches_too(client, capsys):
    future = client.submit(pow, 2, 2)

    def pieces(id, attempt, follow):
        assert (id, attempt, follow) == ("task-1", 0, True)
        yield [("stdout", b"half "), ("stderr", b"said")]
        raise KeyboardInterrupt

    client._native.logs = pieces
    heard = []
    with pytest.raises(KeyboardInterrupt):
        for text in future.logs(follow=True):
            heard.append(text)
    assert heard == ["half ", "said"]
    said = capsys.readouterr().err
    assert "Detached: task task-1 goes on without you" in said and "attach('task-1')" in said


def test_a_client_inside_a_task_says_that_there_is_no_network(monkeypatch):
    import sys
    import types

    worker = types.ModuleType("_farlane_worker")
    worker.State = types.SimpleNamespace(task=b"1")
    monkeypatch.setitem(sys.modules, "_farlane_worker", worker)
    with pytest.raises(RuntimeError, match="inside a task, which has no network"):
        fl.Client()


def test_the_package_that_tasks_see_names_the_same_errors():
    from test_value import load

    shim = load("farlane_shim")
    for name in fl.__all__:
        known = getattr(fl, name)
        if isinstance(known, type) and issubclass(known, BaseException):
            assert [b.__name__ for b in getattr(shim, name).__bases__] == [b.__name__ for b in known.__bases__], name
        elif name in ("Context", "checkpoint_requested", "context", "remote", "__version__", "Explanation"):
            continue
        elif name in ("Affinity", "absent", "present"):
            # They stand in decorators, which modules that travel with a task bring along.
            assert getattr(shim, name) is not None
        else:
            with pytest.raises(RuntimeError, match=f"farlane.{name} is not there inside a task, which has no network"):
                getattr(shim, name)
    assert not hasattr(shim, "nonsense") and shim.remote(abs) is abs and shim.remote(memory=1)(abs) is abs


def test_many_futures_are_given_as_one_iterable(client):
    first, second = client.submit(pow, 2, 2), client.submit(pow, 2, 3)
    for many in (client.gather, fl.gather, client.as_completed, fl.as_completed):
        with pytest.raises(fl.OptionError, match=r"takes one iterable of futures, like \w+\(\[a, b\]\)"):
            many(first)
        with pytest.raises(fl.OptionError, match="futures that submit"):
            many([first, 1])
    client._native.run()
    assert fl.gather(iter((first, second))) == [4, 8] and fl.gather([]) == [] == list(fl.as_completed([]))


class Tank:
    def __init__(self, size):
        self.size = size

    @fl.remote(memory="2GiB", max_retries=0)
    def filled(self, times):
        return self.size * times


def test_a_decorated_method_keeps_its_options(client, monkeypatch):
    assert Tank(3).filled(2) == 6 and Tank.filled(Tank(4), 2) == 8
    future = client.submit(Tank(3).filled, 2)
    monkeypatch.setattr(_client, "default_client", lambda: client)
    other = Tank(5).filled.remote(2)
    third = Tank(6).filled.options(memory="3GiB").remote(2)
    client._native.run()
    assert [future.result(), other.result(), third.result()] == [6, 10, 12]
    assert [s["memory"] >> 30 for s in client._native.specs] == [2, 2, 3]
    assert client._native.specs[0]["function"] == "Tank.filled" and client._native.specs[0]["max_retries"] == 0


def test_an_interrupt_anywhere_in_a_with_block_detaches(client, capsys, monkeypatch):
    def wait_idle(seconds):
        raise AssertionError("it waited for what it has left")

    monkeypatch.setattr(client._native, "wait_idle", wait_idle, raising=False)
    with pytest.raises(KeyboardInterrupt):
        with client:
            client.submit(pow, 2, 2)
            raise KeyboardInterrupt
    assert "attach('task-1')" in capsys.readouterr().err and client._native.closed


def test_a_short_wait_is_not_made_longer_by_what_it_says(client, monkeypatch):
    def wait_acknowledged(seconds):
        raise AssertionError("it asked the network")

    monkeypatch.setattr(client._native, "unacknowledged", lambda: 1, raising=False)
    monkeypatch.setattr(client._native, "wait_acknowledged", wait_acknowledged, raising=False)
    future = client.with_options(idempotency_key="once").submit(pow, 2, 2)
    with pytest.raises(concurrent.futures.TimeoutError, match="task-1 is running"):
        future.result(timeout=0.01)


def lost(seconds):
    raise fl.ConnectionError("no Farlane server at https://test answered within 10.0 s: 2 calls are not acknowledged")


def test_a_shutdown_says_what_was_not_acknowledged(client, monkeypatch):
    monkeypatch.setattr(client._native, "settle", lost)
    with pytest.raises(fl.ConnectionError, match="https://test answered within 10.0 s: 2 calls are not acknowledged"):
        client.shutdown(wait=False)
    assert client._native.closed
    client.shutdown(wait=False)  # Nothing is left to say.


def test_a_loss_is_said_and_does_not_hide_an_interrupt(client, monkeypatch, capsys):
    monkeypatch.setattr(client._native, "settle", lost)
    with pytest.raises(KeyboardInterrupt):
        with client:
            client.submit(pow, 2, 2)
            raise KeyboardInterrupt
    assert "2 calls are not acknowledged" in capsys.readouterr().err and client._native.closed


def test_leaving_says_what_was_lost_and_what_goes_on(client, monkeypatch, capsys):
    monkeypatch.setattr(_client, "silence", lambda: None)
    monkeypatch.setattr(_client, "_clients", [client._shared])
    for seconds in range(3):
        client.submit(pow, 2, seconds)
    monkeypatch.setattr(client._native, "settle", lost)
    monkeypatch.setattr(client._native, "unacknowledged", lambda: 2)
    _client._at_exit()
    said = capsys.readouterr().err
    assert "1 tasks go on" in said and "2 calls are not acknowledged" in said and client._native.closed


def test_a_question_asks_the_network_once(client, monkeypatch):
    def wait_acknowledged(seconds):
        raise AssertionError("the question itself waits")

    monkeypatch.setattr(client._native, "unacknowledged", lambda: 1)
    monkeypatch.setattr(client._native, "wait_acknowledged", wait_acknowledged)
    asked = []
    monkeypatch.setattr(client._native, "explain", lambda id: asked.append(id) or lost(0), raising=False)
    monkeypatch.setattr(client._native, "logs", lambda id, attempt, follow: asked.append(id) or lost(0), raising=False)
    future = client.with_options(idempotency_key="once").submit(pow, 2, 2)
    with pytest.raises(fl.ConnectionError):
        future.explain()
    with pytest.raises(fl.ConnectionError):
        list(future.logs())
    assert asked == ["task-1", "task-1"]
