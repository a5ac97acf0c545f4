"""What a server sees holds nothing that was computed.

Twenty random strings travel as arguments, code, results, exceptions and output. Then everything that passed the
server's TLS and every file that the server keeps is searched for them. What a server does see is found by the same
search, and so are the strings of a client that seals nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bare_client import SUBMITTED, THROUGH_SEQ, BareClient, decode, encode, forged
from network import RESULT_SECONDS, wait_for
from planted import CODES, Search, planted
from tap import TappedNetwork

import farlane as fl

# Everything that a tapped server does, in seconds: its start is under five, a call under one.
LIMIT = 60
# The ways that a recording tells apart.
WAYS = ("client to server", "server to machine", "machine to server", "server to client")


@pytest.fixture(scope="module")
def network() -> Iterator[TappedNetwork]:
    """In place of the network that other tests share: one with a tap."""
    tapped = TappedNetwork()
    try:
        yield tapped.start()
    finally:
        tapped.close()


def files_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder; one that goes away meanwhile is another's, soon."""
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file():
                yield str(path.relative_to(folder)), path.read_bytes()
        except FileNotFoundError:
            continue


def halves(text):
    """A string as two: what is put together on the machine has not travelled as an argument."""
    return text[: len(text) // 2], text[len(text) // 2 :]


def api_key(network):
    return json.loads(network.endpoint.read_text())["api_key"]


def in_arguments_and_code(client):
    """Calls whose strings lie in arguments small and large, in globals, cells, constants and keys."""
    texts = planted(8)
    positional, keyword, captured, cell, constant, in_array, in_blob, key = texts
    scope = {"captured": captured}
    exec(f"def call(a, *, b):\n    return len(a + b + captured + {constant!r})", scope)
    noise = np.random.default_rng(1).integers(0, 256, 2 << 20, dtype=np.uint8)
    array = noise.copy()
    array[1_000_003 : 1_000_003 + len(in_array)] = np.frombuffer(in_array.encode(), np.uint8)
    blob = noise.tobytes() + in_blob.encode() + noise[:500].tobytes()
    futures = [
        client.submit(scope["call"], positional, b=keyword),
        client.submit(lambda: len(cell)),
        client.submit(len, blob),
        client.with_options(idempotency_key=key).submit(pow, 2, 2),
    ]
    # Whether or not the machine has numpy to open it with, the array travels.
    client.submit(len, array).exception(timeout=RESULT_SECONDS)
    client.gather(futures)
    return texts, futures


def in_results(client):
    """Calls whose results, made on the machine, hold the strings."""
    texts = planted(4)
    small, nested, large, blob = map(halves, texts)
    futures = [
        client.submit(lambda a, b: a + b, *small),
        client.submit(lambda a, b: {"deep": [1, (2.0, {"er": a + b})]}, *nested),
        client.submit(lambda a, b: "".join(map(str, range(30_000))) + a + b, *large),
        client.submit(lambda a, b: __import__("os").urandom(2 << 20) + (a + b).encode(), *blob),
    ]
    results = client.gather(futures)
    assert results[0] == texts[0] and results[3].endswith(texts[3].encode())
    return texts, futures


def in_exceptions(client):
    """Calls that fail: the strings are in messages, arguments, causes, lines of source and last words."""
    texts = planted(4)
    message, argument, cause, _ = texts

    def with_message(a, b):
        raise ValueError(a + b)

    def with_argument(a, b):
        raise KeyError("k", {"in": a + b})

    def with_cause(a, b):
        try:
            raise OSError(a + b)
        except OSError as error:
            raise RuntimeError("no more") from error

    def leave(a, b):
        import sys

        sys.exit(a + b)

    def fail_to_encode(a, b):
        class Stubborn:
            def __reduce__(self):
                raise TypeError(a + b)

        return Stubborn()

    scope = {}
    exec(f"def with_source():\n    return {{}}[{texts[3]!r}]", scope)
    futures = [
        client.submit(with_message, *halves(message)),
        client.submit(with_argument, *halves(argument)),
        client.submit(with_cause, *halves(cause)),
        client.submit(scope["with_source"]),
    ]
    refused = [client.submit(leave, *halves(argument)), client.submit(fail_to_encode, *halves(message))]
    assert isinstance(refused[0].exception(timeout=RESULT_SECONDS), fl.WorkerLost)
    assert isinstance(refused[1].exception(timeout=RESULT_SECONDS), fl.SerializationError)
    errors = [future.exception(timeout=RESULT_SECONDS) for future in futures]
    assert message in str(errors[0]) and argument in str(errors[1]) and cause in str(errors[2].__cause__)
    assert texts[3] in str(errors[3])
    return texts, futures


def in_output(client):
    """Calls that print: on standard output and error, much of it, and as progress."""
    texts = planted(4)
    out, err, much, progress = map(halves, texts)

    def talk(out, err):
        import sys

        print("".join(out))
        print("".join(err), file=sys.stderr)

    def talk_much(text):
        for number in range(3000):
            print(number, "lines of output")
        print("".join(text))

    def tell(text):
        import farlane

        farlane.context().progress(0.5, "".join(text))

    futures = [client.submit(talk, out, err), client.submit(talk_much, much), client.submit(tell, progress)]
    client.gather(futures)
    for future, text in zip(futures, (texts[0], texts[2]), strict=False):
        wait_for(lambda: text in "".join(future.logs()), "the output", 15)
    return texts, futures


def left_behind(network, text):
    """Calls whose client leaves at once: what is not granted yet, the standing granter grants."""

    def late(text):
        import time

        time.sleep(0.2)
        return text

    with network.client() as client:
        return [client.submit(late, text).id for _ in range(12)]


@pytest.mark.timeout(LIMIT)
def test_a_server_sees_none_of_twenty_planted_strings(network):
    """Neither in any stream nor in any file, while tasks run, after them and after a restart."""
    visible = planted(1)[0]
    with network.client() as client:
        runs = [run(client) for run in (in_arguments_and_code, in_results, in_exceptions, in_output)]
        named = client.with_options(name=f"name_{visible}")
        assert named.submit(pow, 2, 10).result(timeout=RESULT_SECONDS) == 1024
    (_, results, exceptions, output) = runs
    secrets = [text for texts, _ in runs for text in texts]
    assert len(set(secrets)) == 20
    late = left_behind(network, secrets[0])
    # What would open everything stays with its owner too.
    keys = [bytes.fromhex(path.read_text()) for path in (network.data / "keys").glob("*.key")]
    assert len(keys) >= 4 and {len(key) for key in keys} == {32}
    search = Search([*secrets, *keys])
    assert search.found_in(files_of(network.kept)) == {}
    assert_none_bypass(network)

    with network.client() as client:
        assert client.gather([client.attach(id) for id in late]) == [secrets[0]] * len(late)
    network.restart_server()
    with network.client() as client:
        # Another client reads by the owner's keys alone what the server kept.
        assert client.attach(results[1][0].id).result(timeout=RESULT_SECONDS) == results[0][0]
        assert exceptions[0][0] in str(client.attach(exceptions[1][0].id).exception(timeout=RESULT_SECONDS))
        assert output[0][0] in "".join(client.attach(output[1][0].id).logs())
    assert f"name_{visible}" in {task["function"] for task in network.json("tasks", "--limit", "100")}
    assert_none_bypass(network)
    recorded = dict(network.tap.streams())
    assert search.found_in(recorded.items()) == {}
    assert search.found_in(files_of(network.kept)) == {}

    # All of it passed here: two large arguments by the client's way, one large result by the machine's.
    ways = {way: sum(len(data) for name, data in recorded.items() if name.endswith(way)) for way in WAYS}
    assert ways[WAYS[0]] > 4 << 20 and ways[WAYS[1]] > 4 << 20, ways
    assert ways[WAYS[2]] > 2 << 20 and ways[WAYS[3]] > 2 << 20, ways
    # And the same search finds what a server may see: a function's name, the machine's, and in the
    # code of a header the key; so it has looked at every way, and into the files.
    assert_seen(network, visible, "client to server", "server to machine", "server to client")
    assert_seen(network, network.name, "machine to server", "server to client")
    assert_seen(network, api_key(network).rsplit("_", 1)[1], "client to server")
    assert Search([visible, network.name]).found_in(files_of(network.kept)).keys() == {visible, network.name}


def assert_none_bypass(network):
    """Every connection to the server is the tap's; one that is being made is known to it in a moment."""
    wait_for(lambda: not network.tap.bypassed(), "the tap to know every connection", 10)


def assert_seen(network, text, *ways):
    where = " ".join(Search([text]).found_in(network.tap.streams()).get(text, []))
    for way in ways:
        assert way in where, f"not found from {way}: {where!r}"


@pytest.mark.timeout(LIMIT)
def test_a_client_that_seals_nothing_is_caught_by_the_same_search(network):
    """Refused where it does not even pretend; where it forges the head of a seal, its strings lie in both."""
    with network.client() as client:
        assert client.submit(pow, 2, 3).result(timeout=RESULT_SECONDS) == 8
    recordings = [bytes(c.up) for c in network.tap.connections if not c.machine]

    def bare():
        return BareClient(network.tap.url, network.kept / "ca" / "root.pem", api_key(network), recordings)

    plain, pretending = planted(20), planted(20)
    refused = bare()
    assert b"unsealed_payload" in refused.submit([b"\x80\x05" + text.encode() for text in plain])
    refused.close()
    accepted = bare()
    answer = accepted.submit([forged(b"\x80\x05" + text.encode()) for text in pretending])
    assert decode(answer) == [(SUBMITTED, encode([(THROUGH_SEQ, 20)]))], f"twenty are taken, none refused: {answer!r}"
    accepted.close()

    search = Search([*plain, *pretending])
    assert search.found_in(network.tap.streams()).keys() == {*plain, *pretending}
    # What was refused is not kept; what was taken is, and a restart does not hide it.
    assert search.found_in(files_of(network.kept)).keys() == set(pretending)
    network.restart_server()
    assert search.found_in(files_of(network.kept)).keys() == set(pretending)


def test_the_search_finds_every_form_cut_anywhere():
    """Each form, at any place and cut in two, and nothing in what is random."""
    (text,) = planted(1)
    search = Search([text])
    noise = np.random.default_rng(2).bytes(1 << 20)
    assert search.found(noise) == set()
    raw = text.encode()
    shapes = [raw, raw.hex().encode(), raw.hex().upper().encode(), text.encode("utf-16-le"), text.encode("utf-32-le")]
    shapes += [base64.b64encode(b"x" * skip + raw + b"yz") for skip in range(3)]
    for shape in shapes:
        assert search.found(noise[:4_194] + shape + noise) == {text}
    for cut in range(len(raw) + 1):
        assert search.found(noise[:99] + raw[:cut] + noise[:9] + raw[cut:] + noise[:99]) == {text}, cut
    # Where the search's own pieces meet.
    large = np.random.default_rng(3).bytes((4 << 20) - 20)
    assert search.found(large + raw + noise) == {text}
    # RFC 7541, C.4.1: the example's own bytes.
    bits = "".join(CODES[character] for character in "www.example.com")
    assert f"{int(bits + '1' * (-len(bits) % 8), 2):x}" == "f1e3c2e5f23a6ba0ab90f4ff"
