"""More than one project: made by the network's owner, each with keys of its own, sharing by their weights."""

from __future__ import annotations

import json

import pytest

import farlane as fl


def nap(n):
    import time

    time.sleep(0.1)
    return n


def test_a_second_project_has_its_own_keys_and_its_share(fresh):
    network = fresh("--cpus", "2").start()
    made = network.json("projects", "create", "lab")
    assert made["project"] == "lab" and made["tenant"] is None
    again = network.run("projects", "create", "lab")
    assert again.returncode != 0 and "already" in again.stderr
    network.cli("projects", "set", "lab", "--weight", "4000")
    file = network.folder / "lab.json"
    network.cli("keys", "create", "lab", "--project", "lab", "--identity-out", str(file))
    assert json.loads(file.read_text())["project"] == made["id"]

    with network.client() as default, network.client(identity_file=file) as lab:
        assert lab.submit(nap, 1).result(timeout=60) == 1
        ours = [default.submit(nap, n) for n in range(80)]
        theirs = [lab.submit(nap, n) for n in range(80)]
        assert lab.gather(theirs) == list(range(80))
        # Of as much time they had four times as much; with equal shares we would be done too.
        done = sum(future.done() for future in ours)
        assert done < 60, done
        # What is one project's is not the other's.
        with pytest.raises(fl.FarlaneError):
            lab.attach(ours[0].id).result(timeout=10)
        assert default.gather(ours) == list(range(80))
    listed = {project["project"]: project for project in network.json("projects")}
    assert listed["lab"]["weight"] == 4000 and listed["default"]["weight"] == 1000
