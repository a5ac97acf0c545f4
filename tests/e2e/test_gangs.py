"""Gangs: several calls at once or not at all, over machines of one core each."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import farlane as fl
import pytest
from network import RESULT_SECONDS, wait_for


def together(item, seconds):
    import time

    import farlane

    begin = time.time()
    time.sleep(seconds)
    gang = farlane.context().gang
    return item, gang.rank, gang.size, gang.attempt, gang.id, begin, time.time()


def sleep(seconds):
    import time

    time.sleep(seconds)


def alone():
    import farlane

    return farlane.context().gang


def fails(rank):
    if rank == 1:
        raise ValueError("rank one gives up")
    import time

    time.sleep(30)


def machines(fresh, *names):
    network = fresh().server()
    agents = {name: network.agent(name, "local", "--cpus", "1") for name in names}
    return network, agents, network.folder / "config" / "farlane" / "profiles" / "default.json"


def overlap(results):
    return min(r[6] for r in results) - max(r[5] for r in results)


def test_a_gang_runs_at_once_or_waits_whole_and_says_for_what(fresh):
    network, _, profile = machines(fresh, "one", "two", "three")
    with network.client(identity_file=profile) as client:
        futures = client.gang(together, "abc", [2.0] * 3)
        results = client.gather(futures)
        assert [r[:4] for r in results] == [("a", 0, 3, 1), ("b", 1, 3, 1), ("c", 2, 3, 1)]
        assert {r[4] for r in results} == {futures[0].id}
        assert overlap(results) > 0
        assert len({f.receipt.node_name for f in futures}) == 3
        assert client.submit(alone).result(timeout=RESULT_SECONDS) is None

        # With one machine taken there is room for two: none of them starts.
        taken = client.submit(sleep, 60)
        wait_for(taken.running, "the one that is in the way", 30)
        futures = client.gang(together, "abc", [1.0] * 3)
        said = wait_for(lambda: waits(futures[1].explain()), "the gang to wait", 30)
        assert "a gang of 3 waits for room: 2 of it would run in local now" in said
        time.sleep(1.5)
        assert not any(f.running() or f.done() for f in futures)
        shown = network.cli("tasks", "--phase", "queued")
        assert "together [1/3]" in shown
        assert taken.cancel()
        results = client.gather(futures)
        assert overlap(results) > 0

        # More than there ever is room for ends at once, and says why.
        with pytest.raises(fl.Infeasible, match="a gang of 4 can never run at once.*room for 3"):
            client.gang(sleep, [1] * 4)[0].result(timeout=RESULT_SECONDS)


def waits(explanation):
    text = str(explanation)
    return text if "waits for room" in text else None


def test_a_gang_that_loses_a_machine_begins_again_as_a_whole(fresh):
    # Longer than a lease: what returned before it ends stays, and only the others would begin again.
    network, agents, profile = machines(fresh, "one", "two", "three", "four")
    with network.client(identity_file=profile) as client:
        futures = client.gang(together, "abc", [14.0] * 3)
        wait_for(lambda: all(f.running() for f in futures), "all of it to run", 30)
        tasks = {task["task"]: task for task in network.json("tasks")}
        lost = tasks[futures[1].id]["node_name"]
        for pid in {agents[lost].pid, *network.descendants()}:
            # What follows its parent is gone already.
            with contextlib.suppress(OSError):
                if network.state(lost).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        results = [f.result(timeout=2 * RESULT_SECONDS) for f in futures]
        assert [r[:4] for r in results] == [("a", 0, 3, 2), ("b", 1, 3, 2), ("c", 2, 3, 2)]
        assert overlap(results) > 0
        assert lost not in {f.receipt.node_name for f in futures}


def test_what_ends_one_ends_all(fresh):
    network, _, profile = machines(fresh, "one", "two")
    with network.client(identity_file=profile) as client:
        first, second = client.gang(fails, range(2))
        with pytest.raises(ValueError, match="gives up"):
            second.result(timeout=RESULT_SECONDS)
        with pytest.raises(fl.WorkerLost, match="rank 1 of its gang of 2 raised an exception"):
            first.result(timeout=RESULT_SECONDS)
        futures = client.gang(sleep, [60] * 2)
        wait_for(lambda: all(f.running() for f in futures), "both to run", 30)
        assert futures[0].cancel()
        assert wait_for(lambda: all(f.cancelled() for f in futures), "both to be cancelled", 30)
