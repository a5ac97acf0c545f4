"""Three regions with imposed delays: calls go where the measured way is short, and move when it worsens."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from network import RESULT_SECONDS, Network, wait_for
from strait import Strait, strait

# Seconds one way. Chosen: so far apart that a busy machine's own delays do not change their order.
LATE = {"near-1": 0.01, "mid-1": 0.1, "far-1": 0.3}


def here():
    import farlane as fl

    return fl.context().region


def regions(network: Network) -> dict[str, dict[str, Any]]:
    return {region["region"]: region for region in network.json("regions")["regions"]}


def in_order(network: Network, *names: str) -> bool:
    """Whether every region has a round trip, each a longer one than the region before."""
    found = regions(network)
    trips = [found[name]["round_trip_micros"] or 0 for name in names]
    return 0 < trips[0] and trips == sorted(set(trips))


def islands(network: Network, port: int) -> None:
    """A machine in each region, joined through its strait."""
    own = network.json("config", "show")["tenant"]
    script = str(Path(__file__).with_name("island.py"))
    for region in LATE:
        file = network.folder / f"join-{region}.txt"
        network.cli("tokens", "create", "--region", region, "--price", "0.04", "--out", str(file))
        flags = ["--join-file", str(file), "--state", str(network.folder / region), "--name", region, "--own-tenant", own]
        way = [sys.executable, script, str(network.folder / f"{region}.sock"), str(port)]
        network.part(region, "agent", *flags, through=way)
    wait_for(lambda: all(network.node(region).get("state") == "online" for region in LATE), "three machines")


def test_calls_go_the_shortest_measured_way_and_move_when_it_worsens(fresh):
    network = fresh().server("--region", "near-1")
    port = int((network.folder / "server" / "port").read_text())
    profile = network.folder / "config" / "farlane" / "profiles" / "default.json"
    with contextlib.ExitStack() as stack:
        ways: dict[str, Strait] = {}
        for region, late in LATE.items():
            ways[region] = stack.enter_context(strait(network.folder / f"{region}.sock", port, late))
        islands(network, port)
        wait_for(lambda: in_order(network, "near-1", "mid-1", "far-1"), "round trips in the order of the delays", 30)
        client = stack.enter_context(network.client(identity_file=profile))

        def ran() -> str:
            return client.submit(here).result(timeout=RESULT_SECONDS)

        assert [ran() for _ in range(3)] == ["near-1"] * 3
        # It worsens past the next: what was measured follows, and so does the work.
        ways["near-1"].late = 0.6
        wait_for(lambda: ran() == "mid-1", "work to move to the next", 30)
        wait_for(lambda: in_order(network, "mid-1", "far-1", "near-1"), "the new order of round trips", 30)
        assert ran() == "mid-1"
        # And comes back.
        ways["near-1"].late = LATE["near-1"]
        wait_for(lambda: ran() == "near-1", "work to come back", 30)

        def link(a: str, b: str) -> dict[str, Any]:
            return next(dict(link) for link in regions(network)[a]["links"] if link["to"] == b)

        # The server stands in one region: ways to it are measured, others lead through it.
        wait_for(lambda: link("near-1", "mid-1")["basis"] == "measured", "links", 30)
        estimated = link("mid-1", "far-1")
        assert estimated["basis"] == "estimated"
        assert estimated["round_trip_micros"] > link("near-1", "far-1")["round_trip_micros"]
        assert "estimated" in network.cli("regions")
