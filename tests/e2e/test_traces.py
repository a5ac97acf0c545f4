"""What a network did, exported without names and replayed by the simulator."""

from __future__ import annotations

import json

from network import wait_for


def unpublished_recipe(n):
    import time

    time.sleep(0.05)
    return n


def test_a_trace_has_no_names_and_is_replayed(fresh):
    network = fresh("--cpus", "2").start()
    with network.client() as client:
        assert client.gather([client.submit(unpublished_recipe, n) for n in range(20)]) == list(range(20))
    node = network.json("nodes", "list")[0]
    project = network.json("projects", "list")[0]
    file = network.folder / "week.jsonl"

    def exported():
        told = network.json("trace", "export", "-o", str(file), "--since", "1h")
        # Accounts hear of an end within a second.
        return told if told["tasks"] == 20 else None

    told = wait_for(exported, "the accounts")
    text = file.read_text()
    assert told["bytes"] == len(text)
    # A machine may be called anything: whole words, then.
    for name in (node["name"], project["project"]):
        assert name and f'"{name}"' not in text, name
    for name in (node["node"][:16], project["id"], "unpublished", "recipe"):
        assert name not in text, name
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0]["trace"]["version"] == 1 and lines[-1] == {"end": {"tasks": 20, "left_out": 0}}
    assert sum("task" in line for line in lines) == 20

    came = network.json("sim", "--trace", str(file))
    assert came["recorded"]["ended"] == came["replayed"]["ended"] == 20
    (now,), (then,) = came["replayed"]["projects"], came["recorded"]["projects"]
    # As long as it was: one machine, on which it runs as fast as it did.
    assert abs(now["core_hours"] / then["core_hours"] - 1) < 0.1, (now, then)
    shown = network.cli("sim", "--trace", str(file), "--policy", "cheap")
    assert "RECORDED" in shown and "replayed against recorded" in shown

    # Piped, without a file.
    piped = json.loads(network.cli("sim", "--trace", "-", "--json", stdin=text))
    assert piped["replayed"]["ended"] == 20

    # Half of it is told, with its line, and what was there stays.
    half = network.folder / "half.jsonl"
    half.write_text(text[: len(text) // 2])
    cut = network.run("sim", "--trace", str(half))
    at = half.read_text().count("\n") + 1
    assert cut.returncode == 2 and f"line {at}:" in cut.stderr, cut.stderr
    unknown = network.run("sim", "--trace", str(file), "--weight", "nobody=3")
    assert unknown.returncode == 2 and now["name"] in unknown.stderr, unknown.stderr
    refused = network.run("trace", "export", "-o", str(file), "--project", "nobody")
    assert refused.returncode != 0 and file.read_text() == text
    denied = network.folder / "reader.json"
    network.cli("keys", "create", "reader", "--scopes", "read", "--identity-out", str(denied))
    stranger = network.run("trace", "export", "-o", str(file), "--identity", str(denied))
    assert stranger.returncode == 3, stranger.stderr
