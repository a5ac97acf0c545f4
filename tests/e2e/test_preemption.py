"""Work that makes way for more urgent work of its project: asked first, ended after its grace, run again."""

from __future__ import annotations

import time

from network import wait_for


def saves(seconds):
    """Looks whether it should make way, and then returns what it has."""
    import time

    import farlane as fl

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if fl.checkpoint_requested():
            return "saved", fl.context().attempt
        time.sleep(0.02)
    return "done", fl.context().attempt


def deaf(seconds):
    """Does not look the first time."""
    import time

    import farlane as fl

    if fl.context().attempt == 1:
        time.sleep(seconds)
    return "again", fl.context().attempt


def attempt():
    """Which attempt this is."""
    import farlane as fl

    return fl.context().attempt


def test_what_waits_behind_long_work_goes_to_a_machine_that_joins(fresh):
    network = fresh().server()
    network.agent("one", "local", "--cpus", "1")
    profile = network.folder / "config" / "farlane" / "profiles" / "default.json"
    with network.client(identity_file=profile) as client:
        long = client.submit(time.sleep, 120)
        wait_for(lambda: long.running(), "the task to run", 30)
        # Nobody knows how long these take: they wait on the machine that there is.
        more = [client.submit(attempt) for _ in range(2)]
        wait_for(lambda: network.json("nodes", "show", "one")["leased"] == 3, "both to wait there", 10)
        network.agent("two", "local", "--cpus", "2")
        assert [future.result(timeout=30) for future in more] == [2, 2]
        assert long.running()
        long.cancel()


def test_less_urgent_work_is_asked_and_makes_way(fresh):
    network = fresh().server()
    network.agent("one", "local", "--cpus", "1")
    profile = network.folder / "config" / "farlane" / "profiles" / "default.json"
    with network.client(identity_file=profile) as client:
        urgently = client.with_options(priority=100)
        assert urgently.submit(pow, 2, 3).result(timeout=60) == 8
        low = client.submit(saves, 60)
        wait_for(lambda: low.running(), "the task to run", 30)
        more = [client.submit(pow, 2, n) for n in range(12)]
        began = time.monotonic()
        assert urgently.submit(pow, 3, 3).result(timeout=30) == 27
        assert time.monotonic() - began < 9, "it did not wait for the end of a grace"
        # It saved what it had and ended: that is its result.
        assert low.result(timeout=10) == ("saved", 1)
        assert client.gather(more) == [2**n for n in range(12)]

        heedless = client.with_options(grace=4).submit(deaf, 120)
        wait_for(lambda: heedless.running(), "the task to run", 30)
        began = time.monotonic()
        assert urgently.submit(pow, 3, 2).result(timeout=40) == 9
        assert 3.5 < time.monotonic() - began < 24, "it had its grace"
        # Ended, and run again; it cost no retry after a loss.
        assert heedless.result(timeout=30) == ("again", 2)
        told = network.json("projects", "show", "default")
        assert told["held"]["tasks"] == 0 and told["weight"] == 1000
