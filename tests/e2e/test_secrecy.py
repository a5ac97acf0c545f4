"""What the control plane keeps holds nothing that was computed.

Twenty incompressible strings travel as arguments, results, exceptions and output; then every file of
the server is searched for them. A function's name, which the control plane does see, is found by the
same search, and so is a string put into a file by hand: the search works.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from network import RESULT_SECONDS, wait_for


def planted(count):
    return [base64.b32encode(os.urandom(25)).decode() for _ in range(count)]


def forms(text):
    """How a string may lie in a file."""
    raw = text.encode()
    return {raw, raw.hex().encode(), base64.b64encode(raw), text.encode("utf-16-le")}


def found_in(folder, texts):
    """Those of the strings that lie in some file below the folder, and where."""
    wanted = {form: text for text in texts for form in forms(text)}
    found = {}
    for path in Path(folder).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found.update({text: path.name for form, text in wanted.items() if form in data})
    return found


def test_nothing_of_twenty_planted_strings_reaches_a_servers_file(fresh):
    network = fresh().start()
    arguments, results, exceptions, output = (planted(5) for _ in range(4))
    visible = f"visible_{planted(1)[0]}"

    def fail(text):
        raise ValueError(text)

    def talk(text):
        print(text)

    def keep(text, size):
        return text + "." * size

    with network.client() as client:
        named = client.with_options(name=visible)
        futures = [named.submit(keep, text, size) for text in arguments for size in (0, 100_000)]
        # The results are made on the node: only their halves travel as arguments.
        futures += [client.submit(lambda a, b: a + b, text[:20], text[20:]) for text in results]
        client.gather(futures)
        for text in exceptions:
            with pytest.raises(ValueError, match=text):
                client.submit(fail, text).result(timeout=RESULT_SECONDS)
        talks = [client.submit(talk, text) for text in output]
        client.gather(talks)
        for future, text in zip(talks, output):
            wait_for(lambda: text in "".join(future.logs()), "the output", 15)
    network.stop()
    server = network.data / "server"
    everything = [*arguments, *results, *exceptions, *output]
    assert found_in(server, everything) == {}
    # The same search finds what is there.
    assert visible in found_in(server, [visible])
    (server / "control").write_text("x" + everything[0])
    assert found_in(server, everything) == {everything[0]: "control"}
