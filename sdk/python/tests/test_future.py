"""Futures against a stand-in for the Rust half: landing, waiting, and the standard library's functions."""

import asyncio
import concurrent.futures
import pickle
import threading
import time

import pytest

import farlane as fl
from farlane import _client, _future

from stand_in import drive


def later(seconds, do):
    timer = threading.Timer(seconds, do)
    timer.start()
    return timer


def test_it_is_a_real_future_and_an_executor(client):
    future = client.submit(pow, 2, 5)
    assert isinstance(client, concurrent.futures.Executor) and isinstance(future, concurrent.futures.Future)
    assert not future.done() and future.running() and future.id == "task-1"
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.01)
    client._native.run()
    assert future.result() == 32 and future.exception() is None and future.done() and not future.cancelled()
    assert "_condition" not in future.__dict__, "landing and reading made no lock"


def test_waiting_threads_wake(client):
    futures = [client.submit(pow, 2, i) for i in range(40)]
    results = {}
    threads = [threading.Thread(target=lambda f=f, i=i: results.update({i: f.result(10)})) for i, f in enumerate(futures)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    client._native.run()
    for thread in threads:
        thread.join(10)
    assert results == {i: 2**i for i in range(40)}


def test_the_standard_librarys_wait_and_as_completed(client):
    futures = [client.submit(pow, 2, i) for i in range(4)]
    client._native.run(1)
    later(0.05, lambda: client._native.run(2, 3, 4))
    done, not_done = concurrent.futures.wait(futures[:2], timeout=10)
    assert done == set(futures[:2]) and not not_done
    assert set(concurrent.futures.as_completed(futures, timeout=10)) == set(futures)
    first = [client.submit(pow, 3, i) for i in range(2)]
    later(0.05, lambda: client._native.run(5))
    done, not_done = concurrent.futures.wait(first, timeout=10, return_when=concurrent.futures.FIRST_COMPLETED)
    assert (len(done), len(not_done)) == (1, 1)


def test_callbacks_run_once_before_and_after(client):
    seen = []
    future = client.submit(pow, 2, 2)
    future.add_done_callback(lambda f: seen.append(f.result()))
    client._native.run()
    future.add_done_callback(lambda f: seen.append("late"))
    assert seen == [4, "late"]


def test_a_callback_that_would_wait_forever_is_refused(client):
    first, second = client.submit(pow, 2, 2), client.submit(pow, 2, 3)
    seen = []

    def wait_for_the_other(_):
        try:
            second.result()
        except RuntimeError as error:
            seen.append(str(error))

    first.add_done_callback(wait_for_the_other)
    client._native.run(1)
    assert "cannot wait" in seen[0]


def test_landing_while_others_look_leaves_nobody_asleep(client):
    for round in range(300):
        future = client.submit(pow, 2, 3)
        box = []
        waits = [
            threading.Thread(target=lambda: box.append(future.result(5))),
            threading.Thread(target=lambda: box.append(len(concurrent.futures.wait([future], 5).done))),
            threading.Thread(target=lambda: client._native.run()),
        ]
        for thread in waits:
            thread.start()
        for thread in waits:
            thread.join(6)
        assert sorted(box) == [1, 8], round


def test_await_and_gather_in_asyncio(client):
    async def main():
        futures = [client.submit(pow, 2, i) for i in range(3)]
        later(0.02, client._native.run)
        return await futures[0], await asyncio.gather(*map(asyncio.wrap_future, futures))

    assert asyncio.run(main()) == (1, [1, 2, 4])


def test_cancel_is_asked_for_and_the_first_end_wins(client):
    future, other = client.submit(pow, 2, 2), client.submit(pow, 2, 3)
    assert future.cancel("enough") and other.cancel()
    assert client._native.cancelled == ["task-1", "task-2"] and not future.done()
    _client._deliver([(future, _future.ENDED, ("cancelled", "", 0, ""), None)])
    client._native.run(2)
    assert future.cancelled() and future.status == "cancelled" and not future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    with pytest.raises(concurrent.futures.CancelledError):
        future.exception()
    assert other.result() == 8, "it had ended before"


def test_a_failed_task_raises(client):
    lost, refused = client.submit(pow, 2, 2), client.submit(pow, 2, 2)
    _client._deliver([
        (lost, _future.ENDED, ("lost", "signal", 9, ""), None),
        (refused, _future.FAILED, ("IntegrityError", "one bit"), None),
    ])
    with pytest.raises(fl.WorkerLost, match="signal 9") as caught:
        lost.result()
    assert caught.value.cause == "signal" and lost.status == "failed"
    assert isinstance(refused.exception(), fl.IntegrityError)


def test_a_function_is_pickled_once_and_again_when_rebound(client):
    factor = 2

    def times(x):
        return factor * x

    futures = [client.submit(times, i) for i in range(3)]
    assert client._native.codes == 1
    factor = 10
    futures.append(client.submit(times, 3))
    assert client._native.codes == 2
    client._native.run()
    assert [f.result() for f in futures] == [0, 2, 4, 30]


def test_keywords_go_to_the_function_and_options_come_from_elsewhere(client):
    @fl.remote(memory="2GiB", priority=3)
    def show(**kwargs):
        return kwargs

    future = client.submit(show, memory="mine", timeout=1)
    client.with_options(regions=["eu-*"], priority=1).submit(show.options(priority=9))
    client.with_options(priority=1).submit(pow, 2, 2)
    client._native.run()
    assert future.result() == {"memory": "mine", "timeout": 1}
    specs = [(s["memory"], s["priority"], s["regions"]) for s in client._native.specs]
    assert specs == [(2 << 30, 3, []), (2 << 30, 9, ["eu-*"]), (1 << 30, 1, [])]
    with pytest.raises(fl.OptionError, match="did you mean"):
        show.options(memroy=1)


def test_map_reads_only_as_far_as_its_window(client, monkeypatch):
    from farlane import _map

    monkeypatch.setattr(_map, "WINDOW", 16)
    read = []

    def numbers():
        for i in range(1000):
            read.append(i)
            yield i

    mapped = client.map(abs, numbers())
    assert len(read) == 16
    client._native.run()
    assert next(mapped) == 0 and len(read) <= 32
    mapped.close()
    assert len(client._native.cancelled) == len(client._native.waiting())


def test_map_in_order_out_of_order_and_in_chunks(client):
    assert drive(client, client.map(pow, range(100), [2] * 100)) == [i**2 for i in range(100)]
    unordered = drive(client, client.map(abs, range(50), order_outputs=False))
    assert sorted(unordered) == list(range(50))
    before = len(client._native.calls)
    assert drive(client, client.map(abs, range(10), chunksize=4)) == list(range(10))
    assert len(client._native.calls) - before == 3


def test_map_raises_or_returns_exceptions(client):
    def inverse(x):
        return 1 / x

    out = drive(client, client.map(inverse, [1, 0, 2], chunksize=3, return_exceptions=True))
    assert out[0] == 1 and isinstance(out[1], ZeroDivisionError) and out[2] == 0.5
    client._native.calls.clear()
    mapped = client.map(inverse, [1, 0, 2], chunksize=3)
    assert client._native.codes == 2, "the first exception ends the chunk: another function"
    mapped.close()


def test_as_completed_and_gather(client):
    futures = [client.submit(pow, 2, i) for i in range(5)]
    later(0.02, client._native.run)
    assert set(client.as_completed(futures, timeout=10)) == set(futures)
    assert client.gather(futures) == [1, 2, 4, 8, 16] == fl.gather(futures)
    with pytest.raises(concurrent.futures.TimeoutError):
        list(client.as_completed([client.submit(pow, 1, 1)], timeout=0.01))


def test_the_first_interrupt_detaches_and_says_how_to_go_on(client, capsys, monkeypatch):
    future = client.submit(pow, 2, 2)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "_wait_landed", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            future.result()
    said = capsys.readouterr().err
    assert said.count("attach('task-1')") == 1 and "farlane cancel task-1" in said
    client.shutdown()
    assert client._native.closed and client._native.cancelled == [], "detached: shutdown does not wait"


def test_a_closed_client_says_so(client):
    client.shutdown()
    with pytest.raises(fl.ClientClosed):
        client.submit(pow, 1, 1)
    with pytest.raises(TypeError, match="cannot be sent to a task"):
        pickle.dumps(client)


def test_idempotency_and_large_arguments_reach_the_network(client):
    big = b"x" * (2 << 20)
    client.with_options(idempotency_key="once").submit(len, big)
    _, data, _, blobs, key = client._native.calls[1]
    assert key == "once" and blobs == [(True, big)] and len(data) < 200


def test_submitting_costs_little_beside_a_bare_pickle(client):
    def fastest(do):
        """The best of many rounds: what else the machine does makes some slow, never all fast."""
        best = float("inf")
        for _ in range(40):
            begun = time.perf_counter()
            for i in range(250):
                do(i)
            best = min(best, time.perf_counter() - begun)
        return best

    ratio = fastest(lambda i: client.submit(abs, i)) / fastest(lambda i: pickle.dumps(((i,), {}), 5))
    assert ratio < 40, f"a submission costs {ratio:.0f} bare pickles; 5 to 10 on a quiet machine"


def test_context_is_only_there_inside_a_task():
    with pytest.raises(RuntimeError, match="inside a task"):
        fl.context()


def test_several_threads_wait_for_the_same_futures_as_they_land(client):
    futures = [client.submit(pow, 2, i) for i in range(4)]
    counts = []
    threads = [threading.Thread(target=lambda: counts.append(len(list(client.as_completed(futures, 10))))) for _ in "abc"]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    client._native.run()
    for thread in threads:
        thread.join(10)
    assert counts == [4, 4, 4]


def test_waiting_again_and_again_leaves_nothing_behind(client):
    future = client.submit(pow, 2, 2)
    for _ in range(5):
        with pytest.raises(concurrent.futures.TimeoutError):
            list(client.as_completed([future], timeout=0.001))
    assert len(getattr(future._on_land, "_calls", [future._on_land])) == 1
    client._native.run()
    assert list(client.as_completed([future])) == [future]


def test_a_callback_that_exits_keeps_no_other_future_from_landing(client, monkeypatch):
    told = []
    monkeypatch.setattr("sys.excepthook", lambda *error: told.append(error[0]))

    def leave(future):
        raise SystemExit(1)

    futures = [client.submit(pow, 2, i) for i in range(2)]
    futures[0].add_done_callback(leave)
    client._native.run()
    assert told == [SystemExit] and client._shared.deliverer is None
    assert [future.result(timeout=1) for future in futures] == [1, 2]


def test_stop_iteration_of_a_task_does_not_end_a_map_quietly(client):
    def stop(x):
        raise StopIteration(x)

    mapped = client.map(stop, [1, 2])
    for _, _, future, _, _ in client._native.calls.values():
        future._exception, future._kind, future._state = StopIteration(1), _future._ERROR, _future.FINISHED
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(mapped)


def test_a_fork_does_not_wait_for_its_parents_futures(client, monkeypatch):
    future = client.submit(pow, 2, 2)
    monkeypatch.setattr(client._shared, "pid", -1)
    with pytest.raises(fl.ClientClosed, match="fork"):
        future.result()


def test_a_future_as_an_argument_says_what_to_send_instead(client):
    future = client.submit(pow, 2, 2)
    with pytest.raises(fl.SerializationError, match=r"args\[0\] is a farlane.*send its result"):
        client.submit(len, future)
