"""Losing processes: nothing acknowledged is lost, completes twice, or hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from network import RESULT_SECONDS, wait_for


def sleep(seconds):
    import time

    time.sleep(seconds)
    return seconds


def test_a_killed_clients_work_is_found_by_another(fresh):
    network = fresh().start()
    script = (
        "import farlane as fl, os, signal\n"
        "def work(x):\n    import time; time.sleep(0.5); return x * 10\n"
        "c = fl.Client()\n"
        "futures = [c.submit(work, i) for i in range(8)]\n"
        "futures[0].result()\n"
        "print(' '.join(f.id for f in futures), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=network.env, capture_output=True, text=True, timeout=90)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with network.client() as client:
        futures = [client.attach(id) for id in done.stdout.split()]
        assert client.gather(futures) == [i * 10 for i in range(8)]


def test_a_killed_agents_work_runs_again(fresh):
    network = fresh().start()
    with network.client() as client:
        futures = [client.submit(sleep, 0.5) for _ in range(8)]
        wait_for(lambda: any(f.running() for f in futures), "a task to run", 30)
        os.kill(network.agent_pid(), signal.SIGKILL)
        assert client.gather(futures) == [0.5] * 8


def test_a_frozen_agent_loses_its_lease_and_comes_back(fresh):
    network = fresh().server()
    west = network.agent("west", "us-west")
    profile = network.folder / "config" / "farlane" / "profiles" / "default.json"
    with network.client(identity_file=profile) as client:
        future = client.submit(sleep, 2)
        wait_for(lambda: future.running(), "the task to run", 30)
        pids = [west.pid, *network.descendants()]
        frozen = [pid for pid in pids if b"agent" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        [os.kill(pid, signal.SIGSTOP) for pid in frozen]
        wait_for(lambda: network.node("west")["state"] == "away", "the lease to end", 40)
        network.agent("central", "eu-central")
        try:
            assert future.result(timeout=RESULT_SECONDS) == 2
            assert future.receipt.region == "eu-central"
        finally:
            [os.kill(pid, signal.SIGCONT) for pid in frozen]
        wait_for(lambda: network.node("west")["state"] == "online", "the thawed machine", 40)
        # Its late result did not count; the machine serves again.
        asked = client.with_options(regions=["us-west"]).submit(pow, 2, 3)
        assert asked.result(timeout=RESULT_SECONDS) == 8
        assert future.result() == 2


def test_a_machine_that_was_off_for_longer_than_its_certificate_lives_comes_back(fresh):
    network = fresh().server()
    west = network.agent("west", "us-west")
    node, state = network.node("west"), Path(network.state("west"))
    west.terminate()
    west.wait(30)
    kept = state / "transport.json"
    before = json.loads(kept.read_text())
    kept.write_text(json.dumps({**before, "not_after_ms": 1}))
    own = network.json("config", "show")["tenant"]
    network.part("west", "agent", "--state", str(state), "--name", "west", "--own-tenant", own)
    with network.client(identity_file=network.folder / "config/farlane/profiles/default.json") as client:
        assert client.submit(pow, 2, 3).result(timeout=RESULT_SECONDS) == 8
    after = json.loads(kept.read_text())
    assert after["certificate_pem"] != before["certificate_pem"]
    assert after["not_after_ms"] > time.time() * 1000
    assert network.node("west")["node"] == node["node"]


@pytest.mark.timeout(300)
def test_a_server_killed_with_ten_thousand_tasks_loses_none(fresh):
    network = fresh().start()
    with network.client() as client:
        futures = [client.submit(pow, n, 2) for n in range(10_000)]
        # Some done, most not.
        futures[200].result(timeout=RESULT_SECONDS)
        network.kill()
        network.start()
        until = time.monotonic() + 240
        results = [f.result(timeout=max(1.0, until - time.monotonic())) for f in futures]
        assert results == [n * n for n in range(10_000)]
        def idle():
            status = network.json("status")
            return status["queued"] + status["placed"] == 0

        wait_for(idle, "an empty queue", 30)
