"""Several servers: their network is founded together, and one that does not fit is told why."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess

import pytest
from network import program, wait_for


def several(network, count):
    """Settings files of servers that share accounts and blobs; ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    members = ", ".join(f'{{ id = {i}, url = "https://127.0.0.1:{port}" }}' for i, port in enumerate(ports, 1))
    files = []
    for i, port in enumerate(ports, 1):
        file = network.folder / f"server-{i}.toml"
        file.write_text(
            f'data = "{folder(network, i)}"\nlisten = "127.0.0.1:{port}"\nid = {i}\nmembers = [{members}]\n'
            f'database = "sqlite://{network.folder}/accounts.db"\n'
            f'blobs = "{network.folder}/blobs"\nblobs_shared = true\n'
        )
        files.append(str(file))
    return files


def folder(network, number):
    return network.folder / f"server-{number}"


def copy_secrets(network, to, *names):
    for made in (folder(network, to), folder(network, to) / "ca"):
        made.mkdir(mode=0o700, exist_ok=True)
    for name in names:
        shutil.copy(folder(network, 1) / name, folder(network, to) / name)


def refused(network, settings):
    """What a server says that ends at once."""
    done = subprocess.run(
        [program(), "server", "--config", settings], env=network.env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stderr
    return done.stderr


def test_the_founders_access_waits_for_the_network_and_opens_it(fresh, tmp_path):
    network = fresh()
    first, second, _ = several(network, 3)
    one = network.part("one", "server", "--config", first)
    log = network.folder / "one.log"
    wait_for(lambda: "founded as soon as another" in log.read_text(), "the first server")
    access = folder(network, 1) / "access.json"
    assert not access.exists() and one.poll() is None
    copy_secrets(network, 2, "ca/root.key", "ca/root.pem", "pepper")
    network.part("two", "server", "--config", second)
    wait_for(access.exists, "the founder's access file")
    network.cli("login", str(access))
    assert network.json("status")["project"] == "default"
    # As an earlier build wrote it.
    form = json.loads(access.read_text())
    early = tmp_path / "early.json"
    early.write_text(json.dumps({**form, "network": "00" * 32}))
    done = network.run("login", str(early))
    assert done.returncode == 1 and "before its network was founded" in done.stderr and "→" in done.stderr


@pytest.mark.parametrize(
    ("copied", "said"),
    [
        (("ca/root.key", "ca/root.pem"), "`pepper` is another"),
        (("pepper",), "holds another root certificate"),
        (("ca/root.pem", "pepper"), "do not belong together"),
    ],
)
def test_a_server_without_the_networks_secrets_is_told_which(fresh, copied, said):
    network = fresh()
    first, second = several(network, 2)
    network.part("one", "server", "--config", first)
    wait_for(lambda: "founded as soon as another" in (network.folder / "one.log").read_text(), "the first server")
    copy_secrets(network, 2, *copied)
    words = refused(network, second)
    assert said in words and "another server of the network" in words, words
    if "ca/root.pem" not in copied:
        assert str(folder(network, 2) / "ca") in words
