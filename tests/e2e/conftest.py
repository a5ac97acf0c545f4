"""Networks for tests: one that many share, and fresh ones for those that break theirs."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# What this process's clients remember is nobody's own.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="farlane-e2e-data-")
atexit.register(shutil.rmtree, os.environ["XDG_DATA_HOME"], True)

import farlane as fl
from network import Network



@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A running `farlane up` that tests share and leave as they found it."""
    shared = Network()
    try:
        yield shared.start()
    finally:
        shared.close()


@pytest.fixture
def client(network: Network) -> Iterator[fl.Client]:
    with network.client() as client:
        yield client


@pytest.fixture
def fresh() -> Iterator[Callable[..., Network]]:
    """Makes networks that the test may break."""
    made: list[Network] = []

    def make(*flags: str) -> Network:
        made.append(Network(*flags))
        return made[-1]

    yield make
    for network in made:
        network.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failed test shows the end of its network's own words."""
    report = yield
    if report.when == "call" and report.failed:
        shared = getattr(item, "funcargs", {}).get("network")
        if isinstance(shared, Network):
            for log in sorted(shared.folder.glob("*.log")):
                report.sections.append((log.name, log.read_text(errors="replace")[-4000:]))
    return report
