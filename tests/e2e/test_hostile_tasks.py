"""Tasks that misbehave: each ends alone, with a cause that says what happened."""

from __future__ import annotations

import concurrent.futures
import errno
import os
import time
from urllib.parse import urlsplit

import farlane as fl
import pytest
from network import RESULT_SECONDS, wait_for


@pytest.fixture
def once(client):
    """A client whose tasks are not tried again."""
    return client.with_options(max_retries=0)


@pytest.fixture(autouse=True)
def still_works(network):
    """Whatever a test did, the next call succeeds."""
    yield
    with network.client() as client:
        assert client.submit(pow, 2, 2).result(timeout=RESULT_SECONDS) == 4


def lost(future):
    with pytest.raises(fl.WorkerLost) as caught:
        future.result(timeout=RESULT_SECONDS)
    return caught.value


def sleep(seconds):
    import time

    time.sleep(seconds)
    return seconds


def test_sys_exit_is_a_lost_worker_with_its_code(once):
    def leave():
        import sys

        sys.exit(3)

    error = lost(once.submit(leave))
    assert error.cause == "exit" and error.detail == 3


def test_os_exit_is_a_lost_worker_with_its_code(once):
    error = lost(once.submit(os._exit, 7))
    assert error.cause == "exit" and error.detail == 7


def test_a_segfault_names_its_signal(once):
    def crash():
        import ctypes

        ctypes.string_at(0)

    error = lost(once.submit(crash))
    assert error.cause == "signal" and error.detail == 11


def test_out_of_memory_is_named(client):
    def eat():
        return len(bytearray(4 << 30))

    small = client.with_options(max_retries=0, memory="256MiB")
    with pytest.raises(MemoryError):
        small.submit(eat).result(timeout=RESULT_SECONDS)


def test_a_fork_bomb_is_contained(network, once):
    before = len(network.descendants())

    def bomb():
        import os
        import time

        me, full = os.getpid(), 0
        until = time.monotonic() + 3
        while time.monotonic() < until or (os.getpid() == me and not full):
            try:
                os.fork()
            except OSError:
                full += 1
                time.sleep(0.01)
        if os.getpid() != me:
            # The forks are the task's own code too, and hold on until they are ended.
            time.sleep(600)
        return "survived"

    # It meets the bound of its processes and goes on; what it forked ends with it.
    assert once.submit(bomb).result(timeout=RESULT_SECONDS) == "survived"
    # A template and a worker that others need may have come to be meanwhile.
    wait_for(lambda: len(network.descendants()) <= before + 8, "the bomb's processes to end", 30)


def test_endless_output_is_bounded(once):
    def shout():
        for _ in range(200_000):
            print("x" * 99)

    future = once.with_options(log_limit="64KiB", timeout=60).submit(shout)
    future.result(timeout=RESULT_SECONDS)
    text = wait_for(lambda: (t := "".join(future.logs())) if "not kept" in "".join(future.logs()) else "", "the output's end", 20)
    assert 32 * 1024 < len(text) < 64 * 1024 + 100, "the bound, and the note that says what was left out"


def test_full_scratch_is_an_error_of_the_task(once):
    def fill():
        import tempfile

        with tempfile.TemporaryFile() as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
            file.flush()

    with pytest.raises(OSError) as caught:
        once.with_options(scratch="16MiB").submit(fill).result(timeout=RESULT_SECONDS)
    assert caught.value.errno == errno.ENOSPC, caught.value


def test_a_task_has_no_network(network, once):
    def dial(host, port):
        import socket

        socket.create_connection((host, port), timeout=2).close()

    # Somebody listens there, and takes calls from outside of the sandbox.
    server = urlsplit(network.ready["urls"][0])
    dial(server.hostname, server.port)
    with pytest.raises(OSError):
        once.submit(dial, server.hostname, server.port).result(timeout=RESULT_SECONDS)


def test_a_task_sees_no_secrets_of_its_machine(network, once):
    def look(path):
        import os

        return os.path.exists(path), os.path.exists("/proc/self"), sorted(os.environ)

    assert look(str(network.endpoint))[0], "it is there to be seen"
    seen, sees, names = once.submit(look, str(network.endpoint)).result(timeout=RESULT_SECONDS)
    assert sees and not seen and "HOME" in names
    own = {"FARLANE_KEY", "FARLANE_BIN", "FARLANE_TEST_INSTALLED", "XDG_DATA_HOME", "XDG_CONFIG_HOME"}
    assert not own.intersection(names)


def test_timeout_ends_an_attempt(once):
    begun = time.monotonic()
    with pytest.raises(fl.TaskTimeout) as caught:
        once.with_options(timeout=0.5).submit(sleep, 60).result(timeout=RESULT_SECONDS)
    assert isinstance(caught.value, TimeoutError) and time.monotonic() - begun < 20


def test_deadline_ends_a_task(once):
    with pytest.raises(fl.TaskTimeout, match="deadline"):
        once.with_options(deadline=1).submit(sleep, 60).result(timeout=RESULT_SECONDS)


def test_queue_timeout_ends_what_waits(network, once):
    # Far more than the machine runs and than it is given ahead of time.
    busy = [once.submit(sleep, 300) for _ in range(1200)]
    try:
        wait_for(lambda: network.json("status")["placed"] > 0, "a full machine", 30)
        waiting = once.with_options(queue_timeout=0.5, priority=-100).submit(pow, 2, 2)
        with pytest.raises(fl.QueueTimeout, match="queue_timeout") as caught:
            waiting.result(timeout=RESULT_SECONDS)
        assert isinstance(caught.value, TimeoutError)
        assert not any(future.done() for future in busy), "only what had a queue_timeout ends of it"
    finally:
        [future.cancel() for future in busy]
        wait_for(lambda: all(future.done() for future in busy), "the cancelled tasks", 60)


def test_cancel_before_it_runs(once):
    busy = [once.submit(sleep, 2) for _ in range(2000)]
    last = busy[-1]
    assert last.cancel("changed my mind")
    with pytest.raises(concurrent.futures.CancelledError):
        last.result(timeout=RESULT_SECONDS)
    [f.cancel() for f in busy]
    wait_for(lambda: all(f.done() for f in busy), "the cancelled tasks", 60)


def test_cancel_while_it_runs_ends_its_processes(network, once):
    def family():
        import subprocess
        import time

        child = subprocess.Popen(["sleep", "300"])
        print("running", flush=True)
        time.sleep(300)
        return child.pid

    before = set(network.descendants())
    future = once.submit(family)
    wait_for(lambda: "running" in "".join(future.logs()), "the task to run", 30)
    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(timeout=RESULT_SECONDS)

    def sleepers():
        found = []
        for pid in set(network.descendants()) - before:
            try:
                found += [pid] if b"sleep\x00300" in open(f"/proc/{pid}/cmdline", "rb").read() else []
            except OSError:
                pass
        return found

    wait_for(lambda: not sleepers(), "the task's children to end", 15)


def test_cancel_after_it_ended_is_false(once):
    future = once.submit(pow, 2, 2)
    assert future.result(timeout=RESULT_SECONDS) == 4
    assert not future.cancel() and future.result() == 4


def test_what_no_machine_can_do_fails_at_once_and_says_why(once):
    begun = time.monotonic()
    with pytest.raises(fl.Infeasible, match="is in local, the task wants mars"):
        once.with_options(regions=["mars-*"]).submit(pow, 2, 2).result(timeout=RESULT_SECONDS)
    with pytest.raises(fl.Infeasible, match="(?i)cpu|core"):
        once.with_options(num_cpus=1000).submit(pow, 2, 2).result(timeout=RESULT_SECONDS)
    assert time.monotonic() - begun < 30


def test_what_cannot_be_pickled_is_named(once):
    import threading

    lock = threading.Lock()
    with pytest.raises(fl.SerializationError):
        once.submit(lambda: lock)
    with pytest.raises(fl.SerializationError, match="deep"):
        once.submit(pow, {"a": [1, {"deep": lock}]}, 2)


def test_a_result_that_cannot_be_pickled_is_an_error_of_the_task(once):
    def result():
        import threading

        return threading.Lock()

    with pytest.raises(fl.SerializationError):
        once.submit(result).result(timeout=RESULT_SECONDS)


def test_a_killed_worker_is_tried_again(client):
    def kill_once():
        import os
        import signal

        import farlane

        if farlane.context().attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return farlane.context().attempt

    assert client.submit(kill_once).result(timeout=RESULT_SECONDS) == 2


def test_retries_have_a_bound(client):
    future = client.with_options(max_retries=2).submit(os._exit, 1)
    assert lost(future).cause == "exit" and future.receipt.attempt == 3


def test_exceptions_are_tried_again_only_when_asked(client):
    def fail_twice():
        import farlane

        if farlane.context().attempt < 3:
            raise ValueError("not yet")
        return "at last"

    with pytest.raises(ValueError):
        client.submit(fail_twice).result(timeout=RESULT_SECONDS)
    patient = client.with_options(retry_exceptions=True, max_retries=3)
    assert patient.submit(fail_twice).result(timeout=RESULT_SECONDS) == "at last"


def test_at_most_once_is_not_tried_again(client):
    future = client.with_options(at_most_once=True).submit(os._exit, 1)
    assert lost(future).cause == "exit" and future.receipt.attempt == 1
