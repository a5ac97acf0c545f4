"""Price books: what a call costs follows the book, and the regions show it."""

from __future__ import annotations

import time
from pathlib import Path

from network import RESULT_SECONDS, wait_for


def hold(seconds):
    import time

    time.sleep(seconds)
    return seconds


def book(network, text: str) -> str:
    file: Path = network.folder / "prices.toml"
    file.write_text(text)
    return str(file)


def test_what_a_call_costs_follows_the_book(fresh):
    network = fresh("--region", "eu-central", "--price", "0.036").start()

    def dollars_an_hour(client) -> float:
        future = client.submit(hold, 1.0)
        assert future.result(timeout=RESULT_SECONDS) == 1.0
        task = next(t for t in network.json("tasks", "--limit", "100") if t["task"] == future.id)
        assert future.cost == task["cost_usd_micros"] / 1e6
        return future.cost * 3_600_000 / (task["ended_ms"] - task["started_ms"])

    def most() -> int:
        return network.json("regions")["regions"][0]["core_hour_usd_micros"]["most"]

    with network.client() as client:
        assert abs(dollars_an_hour(client) - 0.036) < 0.004  # its own: no book names one
        file = book(network, '[[price]]\nregion = "eu-*"\ncore_hour = 3.6\n\n[[egress]]\nfrom = "eu-*"\nto = "us-*"\ngb = 0.09\n')
        refused = network.run("prices", "set", file)
        assert refused.returncode == 2 and "--yes" in refused.stderr
        said = network.cli("prices", "set", file, "--yes")
        assert "+ core-hour in region eu-*: $3.600000 from " in said and "revision 1" in said
        assert abs(dollars_an_hour(client) - 3.6) < 0.1
        assert "nothing changes" in network.cli("prices", "set", file, "--yes")
        (region,) = network.json("regions")["regions"]
        assert region["region"] == "eu-central" and region["online"] == 1
        assert region["core_hour_usd_micros"] == {"least": 3_600_000, "most": 3_600_000}
        assert region["carbon"]["origin"] == "eu-*" and region["power"]["full_milliwatts"] > 0
        assert "$3.600000" in network.cli("regions") and "$3.600000" in network.cli("nodes")
        # A price that is to come holds from its moment on, and not before.
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 6))
        file = book(network, f'[[price]]\nregion = "eu-*"\ncore_hour = 3.6\n\n[[price]]\nregion = "eu-*"\nsince = {at}\ncore_hour = 36\n')
        network.cli("prices", "set", file, "--yes")
        assert network.json("regions")["regions"][0]["core_hour_usd_micros"]["most"] == 3_600_000
        wait_for(lambda: most() == 36_000_000, "the price to come", 30)
        assert abs(dollars_an_hour(client) - 36) < 1
        past = book(network, "[[price]]\nsince = 2026-01-01\ncore_hour = 1\n")
        refused = network.run("prices", "set", past, "--yes")
        assert refused.returncode == 2 and "in the past" in refused.stderr
    (shown,) = network.json("prices", "show")
    assert shown["revision"] == 2 and {e["usd_micros"] for e in shown["entries"]} >= {3_600_000, 36_000_000}
    network.stop()
    # The state knows the price, whoever starts it.
    network.start()
    assert most() == 36_000_000


def test_every_fault_of_a_book_is_named_with_its_line(network):
    file = book(network, '[[price]]\nregion = "eu-*"\nuntil = 2026-12-01\ncore_hour = 1\n\n[[price]]\nregion = "us-*"\ncore_hour = nan\n')
    done = network.run("prices", "check", file)
    assert done.returncode == 2
    assert ":1: from 2026-12-01 no price for core-hour in region eu-* is in force" in done.stderr
    assert ':8: "nan" is not a number' in done.stderr


def test_carbon_comes_from_the_feed_and_outlives_it(fresh):
    network = fresh("--region", "moon-1")
    feed = network.folder / "carbon.csv"
    feed.write_text("region,hour,g_per_kwh\nmoon-1,,42.5\n")
    network.env["FARLANE_SERVER_CARBON"] = str(feed)
    network.start()

    def carbon() -> dict:
        return network.json("regions")["regions"][0]["carbon"] or {}

    wait_for(lambda: carbon().get("mg_kwh") == 42_500, "the feed", 30)
    network.stop()
    feed.unlink()
    network.start()
    assert wait_for(carbon, "what was kept", 30)["mg_kwh"] == 42_500
    assert "42.5" in network.cli("regions") and "1 readings" in network.cli("regions")
