"""A server that is away: whoever asks or leaves is told which, for how long, and what was lost."""

from __future__ import annotations

import os
import signal
import time

import farlane as fl
import pytest
from farlane import _client
from network import RESULT_SECONDS

PATIENCE = 2.0


def is_named(error, network):
    said = str(error)
    for url in network.ready["urls"]:
        assert url in said, said
    assert "no Farlane server at " in said and " s: " in said and "within 0.0" not in said, said
    assert "code: " not in said and "currently unavailable" not in said, said
    return said


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_questions_and_leaving_end_with_a_server_that_is_away(fresh, monkeypatch, how):
    monkeypatch.setattr(_client, "ACKNOWLEDGE_SECONDS", PATIENCE)
    network = fresh().start()
    client = fl.Client(identity_file=network.endpoint, connect_timeout=PATIENCE)
    there = client.submit(time.sleep, 3600)
    client._native.settle(RESULT_SECONDS)
    if how == "killed":
        network.kill()
    else:
        os.kill(network.process.pid, signal.SIGSTOP)
    lost = [client.submit(pow, 2, n) for n in range(3)]
    another = there.id[:-1] + ("A" if there.id[-1] != "A" else "B")
    for ask in (
        there.explain,
        lambda: list(there.logs()),
        lambda: client.attach(another),
        lost[0].explain,
        lambda: list(lost[0].logs(follow=True)),
    ):
        with pytest.raises(fl.ConnectionError) as caught:
            ask()
        is_named(caught.value, network)
    with pytest.raises(fl.ConnectionError) as caught:
        client.shutdown(wait=False)
    said = is_named(caught.value, network)
    assert "3 calls are not acknowledged" in said
    for future in lost:
        assert str(future.exception(timeout=RESULT_SECONDS)) == said
    assert isinstance(there.exception(timeout=RESULT_SECONDS), fl.ClientClosed), "it goes on over there"


def test_an_argument_that_no_node_takes_never_leaves(network, monkeypatch):
    from farlane import _pickling

    monkeypatch.setattr(_pickling, "MAX_BLOB", 3 << 20)
    with network.client() as client:
        assert client.submit(len, bytes(2 << 20)).result(timeout=RESULT_SECONDS) == 2 << 20
        with pytest.raises(fl.PayloadTooLarge, match=r"args\[0\]\['x'\]\[1\], a bytearray, .* at most 3145728"):
            client.submit(len, {"x": [1, bytearray(4 << 20)]})
        assert client._native.unacknowledged() == 0 == client._native.awaited()
