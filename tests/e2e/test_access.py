"""Who gets in: keys wrong, expired and revoked; servers away; join files; identities; trust."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import time

import farlane as fl
import pytest
from network import RESULT_SECONDS, program, wait_for


def identity_with(network, tmp_path, **changes):
    """The endpoint's identity with some fields replaced, in a private file."""
    form = {**json.loads(network.endpoint.read_text()), **changes}
    path = tmp_path / "identity.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(form))
    return path


def new_key(network, *flags):
    return network.json("keys", "create", "test", *flags)


def test_a_wrong_key_is_refused(network, tmp_path):
    key = json.loads(network.endpoint.read_text())["api_key"]
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    with pytest.raises(fl.AuthError):
        fl.Client(identity_file=identity_with(network, tmp_path, api_key=wrong), connect_timeout=2)
    done = network.run("status", "--identity", str(tmp_path / "identity.json"))
    assert done.returncode == 3 and "→" in done.stderr


def test_an_expired_key_is_refused(network, tmp_path):
    secret = new_key(network, "--expires", "1s")["secret"]
    time.sleep(1.5)
    with pytest.raises(fl.AuthError, match="expired"):
        fl.Client(identity_file=identity_with(network, tmp_path, api_key=secret), connect_timeout=2)


def test_a_revoked_key_is_refused_at_once(network, tmp_path):
    made = new_key(network)
    path = identity_with(network, tmp_path, api_key=made["secret"])
    with network.client(identity_file=path) as client:
        assert client.submit(pow, 2, 2).result(timeout=RESULT_SECONDS) == 4
        network.cli("keys", "revoke", made["id"])
        with pytest.raises(fl.AuthError, match="revoked"):
            # An open session ends with its key; a moment for the news to travel.
            for _ in range(100):
                client.submit(pow, 2, 2).result(timeout=5)
                time.sleep(0.1)
    with pytest.raises(fl.AuthError, match="revoked"):
        fl.Client(identity_file=path, connect_timeout=2)
    listed = {key["id"]: key for key in network.json("keys", "list")}
    assert listed[made["id"]]["revoked"]


def test_a_reading_key_cannot_submit_or_rule(network, tmp_path):
    secret = new_key(network, "--scopes", "read")["secret"]
    path = str(identity_with(network, tmp_path, api_key=secret))
    assert network.json("status", "--identity", path)["project"] == "default"
    denied = network.run("keys", "create", "more", "--identity", path)
    assert denied.returncode == 3
    with pytest.raises(fl.AuthError):
        with network.client(identity_file=path, connect_timeout=2) as client:
            client.submit(pow, 2, 2).result(timeout=10)


def test_an_open_session_ends_with_its_key(network, tmp_path):
    made = new_key(network, "--expires", "8s")
    path = identity_with(network, tmp_path, api_key=made["secret"])
    with network.client(identity_file=path) as client:
        assert client.submit(pow, 2, 2).result(timeout=RESULT_SECONDS) == 4
        with pytest.raises(fl.AuthError, match="expired.*farlane keys create"):
            for _ in range(600):
                client.submit(pow, 2, 2).result(timeout=RESULT_SECONDS)
                time.sleep(0.1)


def test_a_projects_admin_rules_no_machines(network, tmp_path):
    secret = new_key(network, "--scopes", "submit,read,admin")["secret"]
    path = str(identity_with(network, tmp_path, api_key=secret))
    out = str(tmp_path / "join.txt")
    (node,) = [n["name"] for n in network.json("nodes", "list") if n["state"] == "online"]
    for command in (
        ["tokens", "create", "--out", out],
        ["tokens", "list"],
        ["nodes", "remove", node],
        ["keys", "create", "more", "--scopes", "network"],
    ):
        done = network.run(*command, "--identity", path)
        assert done.returncode == 3, (command, done.stderr)
    assert network.node(node)["state"] == "online"
    # Nor has the provider's list of removed machines, whose keys are here, come to name it.
    network.cli("nodes", "renew")
    with network.client() as client:
        assert client.submit(pow, 2, 4).result(timeout=RESULT_SECONDS) == 16
    assert network.run("keys", "create", "less", "--scopes", "admin", "--identity", path).returncode == 0


def test_what_is_not_there_exits_with_five(network):
    for command, near in (
        (["explain", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], "farlane tasks"),
        (["keys", "revoke", "nope"], "farlane keys list"),
        (["tokens", "revoke", "abcd"], "farlane tokens list"),
        (["nodes", "remove", "nowhere"], "farlane nodes"),
    ):
        done = network.run(*command)
        assert done.returncode == 5 and near in done.stderr, (command, done.stderr)


def test_join_files_are_listed_and_revoked(fresh):
    network = fresh().server()
    network.agent("first")
    file = network.folder / "join.txt"
    network.cli("tokens", "create", "--region", "us-west", "--out", str(file))
    (new, used) = network.json("tokens", "list")
    assert (new["state"], new["region"], used["state"]) == ("open", "us-west", "used")
    assert new["token"][:12] in network.cli("tokens", "list")
    assert used["node"] == network.node("first")["node"]
    assert network.run("tokens", "revoke", used["token"]).returncode == 5
    network.cli("tokens", "revoke", new["token"][:12])
    assert [t["state"] for t in network.json("tokens", "list")] == ["used"]
    done = network.run("agent", "--join-file", str(file), "--state", network.state("second"))
    assert done.returncode == 1 and "does not know the join token" in done.stderr


def test_a_full_blob_store_is_told_to_the_caller(fresh):
    network = fresh()
    network.env["FARLANE_SERVER_BLOB_TOTAL"] = "4MiB"
    network.start()
    with network.client() as client:
        with pytest.raises(fl.FarlaneError, match="blob store is full.*4 MiB.*blob_total"):
            client.submit(len, os.urandom(8 << 20)).result(timeout=RESULT_SECONDS)
        # What needs no blob goes on.
        assert client.submit(len, b"x" * 1000).result(timeout=RESULT_SECONDS) == 1000


def test_a_key_that_may_only_submit_has_its_own_results(network, tmp_path):
    secret = new_key(network, "--scopes", "submit")["secret"]
    with network.client(identity_file=identity_with(network, tmp_path, api_key=secret)) as client:
        assert client.submit(pow, 2, 3).result(timeout=RESULT_SECONDS) == 8
        # Too large for a row: fetched as a blob.
        assert len(client.submit(os.urandom, 200_000).result(timeout=RESULT_SECONDS)) == 200_000


def test_a_server_that_is_away_is_named_with_the_time(network, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(fl.ConnectionError) as caught:
        fl.Client(identity_file=identity_with(network, tmp_path, urls=[url]), connect_timeout=1)
    assert url in str(caught.value) and " s" in str(caught.value)
    done = network.run("status", "--url", url, "--patience", "1s")
    assert done.returncode == 4 and url in done.stderr and "farlane up" in done.stderr


def test_addresses_keys_and_files_that_cannot_be_are_told_at_once(network, tmp_path):
    begun = time.monotonic()
    for wrong, error, said in (
        ({"url": "http://127.0.0.1:1"}, fl.IdentityError, "is not an address; write https://HOST:PORT"),
        ({"url": "127.0.0.1:1"}, fl.IdentityError, "is not an address; write https://HOST:PORT"),
        ({"url": 5}, fl.OptionError, "url must be a text, not 5"),
        ({"key": "flk_ü"}, fl.IdentityError, "farlane keys create"),
        ({"key": b"flk"}, fl.OptionError, "key must be a text"),
        ({"connect_timeout": None}, fl.OptionError, "connect_timeout must be a number"),
        ({"connect_timeout": -1}, fl.OptionError, "connect_timeout must be a number"),
        ({"identity_file": tmp_path}, fl.IdentityError, "is a directory"),
        ({"identity_file": tmp_path / "none"}, fl.IdentityError, "No such file"),
    ):
        with pytest.raises(error, match=said):
            fl.Client(**{"identity_file": network.endpoint, "connect_timeout": 60, **wrong})
    assert time.monotonic() - begun < 30, "none of them was tried for as long as patience lasted"


def test_another_networks_server_is_not_believed(network, fresh, tmp_path):
    other = fresh().server()
    form = json.loads((other.folder / "config" / "farlane" / "profiles" / "default.json").read_text())
    path = identity_with(network, tmp_path, urls=form["urls"])
    with pytest.raises(fl.ConnectionError, match="(?i)certificate"):
        fl.Client(identity_file=path, connect_timeout=1)


def test_an_identity_that_others_can_read_is_refused(network, tmp_path):
    path = identity_with(network, tmp_path)
    path.chmod(0o644)
    with pytest.raises(fl.FarlaneError, match="chmod 600"):
        fl.Client(identity_file=path)


def test_a_join_file_works_once_and_not_late(fresh):
    network = fresh().server()
    network.agent("first")
    used = network.folder / "join-first.txt"
    done = network.run("agent", "--join-file", str(used), "--state", network.state("second"))
    assert done.returncode == 1 and "used before" in done.stderr
    late = network.folder / "late.txt"
    network.cli("tokens", "create", "--expires", "1s", "--out", str(late))
    time.sleep(1.5)
    done = network.run("agent", "--join-file", str(late), "--state", network.state("third"))
    assert done.returncode == 1 and "expired" in done.stderr


def test_join_files_travel_by_pipe_and_say_what_is_wrong(fresh):
    network = fresh().server()
    done = network.run("agent", "--join-file", "-", "--state", network.state("a"), stdin="hello")
    assert done.returncode == 1 and "join file" in done.stderr
    said = network.json("tokens", "create", "--out", str(network.folder / "j.txt"))
    assert said["command"].startswith("ssh HOST farlane agent --join-file - <")
    assert any("only this machine" in warning for warning in said["warnings"])
    # Nobody's file is written over, and what could not be written, or not be told, is not open to join with.
    made = network.json("tokens", "list")
    again = network.run("tokens", "create", "--out", said["file"])
    assert again.returncode == 2 and "exists already" in again.stderr
    secret = new_key(network, "--scopes", "network")["secret"]
    blind = network.folder / "blind.json"
    profile = network.folder / "config" / "farlane" / "profiles" / "default.json"
    blind.touch(mode=0o600)
    blind.write_text(json.dumps({**json.loads(profile.read_text()), "api_key": secret}))
    out = network.folder / "k.txt"
    assert network.run("tokens", "create", "--out", str(out), "--identity", str(blind)).returncode == 3
    assert network.json("tokens", "list") == made and not out.exists()
    printed = network.json("tokens", "create", "--out", "-")
    assert printed["text"].strip().endswith("-----END CERTIFICATE-----") and printed["file"] is None


def test_the_network_named_before_an_action_is_the_one_acted_on(fresh):
    (here, there) = (fresh().server(), fresh().server())
    for network in (here, there):
        network.agent("twin")
    profile = there.folder / "config" / "farlane" / "profiles" / "default.json"
    here.cli("nodes", "--identity", str(profile), "remove", "twin")
    assert here.node("twin")["state"] == "online"
    assert there.node("twin")["state"] == "removed"


def test_machines_in_regions_take_what_asks_for_them(fresh):
    network = fresh().server()
    network.agent("west", "us-west")
    network.agent("central", "eu-central")
    profile = network.folder / "config" / "farlane" / "profiles" / "default.json"
    ran = {}
    with network.client(identity_file=profile) as client:
        for glob, region in (("eu-*", "eu-central"), ("us-west", "us-west")):
            future = client.with_options(regions=[glob]).submit(pow, 2, 6)
            assert future.result(timeout=RESULT_SECONDS) == 64
            assert future.receipt.region == region
            ran[region] = future
        # A call that must stay with data goes where that lies, and is refused where it cannot.
        for region, first in ran.items():
            stays = client.with_options(keep_on=[first]).submit(pow, 3, 3)
            assert stays.result(timeout=RESULT_SECONDS) == 27
            assert stays.receipt.node == first.receipt.node
        west = ran["us-west"]
        with pytest.raises(fl.OptionError, match="data that lies on west in us-west and regions eu-"):
            client.with_options(keep_on=[west], regions=["eu-*"]).submit(pow, 2, 2)
        network.cli("nodes", "remove", "west")
        with pytest.raises(fl.Infeasible, match="submit it without keep_on"):
            client.with_options(keep_on=west).submit(pow, 2, 5).result(timeout=RESULT_SECONDS)


def test_a_removed_machine_gets_no_work(fresh):
    network = fresh().server()
    network.agent("west", "us-west")
    network.agent("central", "eu-central")
    network.cli("nodes", "remove", "west")
    assert network.node("west")["state"] == "removed"
    profile = network.folder / "config" / "farlane" / "profiles" / "default.json"
    with network.client(identity_file=profile) as client:
        with pytest.raises(fl.Infeasible):
            client.with_options(regions=["us-west"]).submit(pow, 2, 2).result(timeout=RESULT_SECONDS)
        assert client.submit(pow, 2, 2).result(timeout=RESULT_SECONDS) == 4


def test_the_list_of_removed_machines_is_renewed_by_up_and_by_hand(fresh):
    network = fresh().start()
    kept = network.data / "keys" / "revocations"
    wait_for(kept.exists, "the first list", 30)
    first = kept.read_bytes()
    assert network.cli("nodes", "renew").startswith("renewed: 0 removed")
    assert kept.read_bytes() != first and stat.S_IMODE(kept.stat().st_mode) == 0o600
    network.cli("nodes", "remove", network.ready["node"][:12])
    assert network.cli("nodes", "renew").startswith("renewed: 1 removed")
    # Started again it signs a new one, and nobody got off it.
    before = kept.read_bytes()
    network.process.kill()
    network.process.wait()
    server = network.part("up-again", "up")
    wait_for(lambda: kept.read_bytes() != before or server.poll() is not None, "a list signed anew", 30)
    assert server.poll() is None
    wait_for(lambda: network.run("nodes", "renew").stdout.startswith("renewed: 1 removed"), "the server", 30)


def test_who_has_no_providers_keys_cannot_renew_its_list(network, tmp_path):
    env = {**network.env, "XDG_DATA_HOME": str(tmp_path)}
    # Where the identity lies, the owner's keys would be found too.
    command = [program(), "nodes", "renew", "--identity", str(identity_with(network, tmp_path))]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "no provider's keys" in done.stderr


def test_a_guest_identity_reads_and_ends(network, tmp_path):
    path = tmp_path / "ci.json"
    network.cli("keys", "create", "ci", "--expires", "3s", "--identity-out", str(path))
    with network.client(identity_file=path) as client:
        assert client.submit(pow, 2, 7).result(timeout=RESULT_SECONDS) == 128
    time.sleep(3)
    with pytest.raises(fl.AuthError):
        fl.Client(identity_file=path, connect_timeout=2)


def test_login_stores_a_profile(network, tmp_path):
    path = tmp_path / "access.json"
    network.cli("keys", "create", "colleague", "--access", str(path))
    keys = network.json("keys", "list")
    for flag in ("--access", "--identity-out"):
        again = network.run("keys", "create", "another", flag, str(path))
        assert again.returncode == 2 and "exists already" in again.stderr
    assert network.json("keys", "list") == keys
    said = network.json("login", str(path), "--profile", "lab")
    assert said["profile"] == "lab" and said["project"] == "default"
    network.env["FARLANE_PROFILE"] = "lab"
    try:
        assert network.json("config", "show")["name"] == "lab"
    finally:
        del network.env["FARLANE_PROFILE"]
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    done = network.run("login", str(bad))
    assert done.returncode == 1 and "neither" in done.stderr


def test_another_owner_looks_and_is_told_how_to_submit(network, tmp_path):
    access, theirs = tmp_path / "guest.json", tmp_path / "data"
    network.cli("keys", "create", "guest", "--access", str(access))
    env = {**network.env, "XDG_DATA_HOME": str(theirs), "XDG_CONFIG_HOME": str(tmp_path / "config")}

    def run(*arguments):
        return subprocess.run([program(), *arguments], env=env, capture_output=True, text=True, timeout=60)

    with network.client() as client:
        assert client.submit(pow, 2, 2).result(timeout=RESULT_SECONDS) == 4
    assert run("login", str(access)).returncode == 0
    assert run("nodes").returncode == 0 and run("tasks").returncode == 0
    profile = tmp_path / "config" / "farlane" / "profiles" / "default.json"
    with pytest.raises(fl.AuthError, match="another owner.*--identity-out"):
        with network.client(identity_file=profile, connect_timeout=5) as client:
            client.submit(pow, 2, 2).result(timeout=RESULT_SECONDS)
    done = run("granter")
    assert done.returncode == 3 and "another owner" in done.stderr, done.stderr
    assert "nodes renew" in done.stderr and "ask the network's owner for a key" not in done.stderr


def test_an_agents_flags_do_not_speak_against_its_provider(fresh):
    network = fresh().server()
    file = str(network.folder / "join.txt")
    network.cli("tokens", "create", "--price", "0.04", "--label", "disk=nvme", "--out", file)
    for flags, said in (
        (["--label", "disk=tape"], "farlane tokens create --label"),
        (["--price", "0.05"], "names a price"),
    ):
        done = network.run("agent", "--join-file", file, "--state", network.state("m"), *flags)
        assert done.returncode == 2 and said in done.stderr, done.stderr
    # Nothing was used up, and the same price is no contradiction.
    network.part("m", "agent", "--join-file", file, "--state", network.state("m"), "--name", "m", "--price", "0.04")
    wait_for(lambda: network.node("m").get("state") == "online", "the machine")
    assert network.node("m")["labels"] == {"disk": "nvme"}
    done = network.run("agent", "--state", network.state("m"), "--price", "0.05")
    assert done.returncode == 2 and "names a price" in done.stderr
    done = network.run("tokens", "create", "--label", "a=1", "--label", "a=2")
    assert done.returncode == 2 and "two values" in done.stderr


def test_trust_is_signed_and_listed(fresh):
    network = fresh().server()
    fingerprint = "ab" * 32
    own = network.cli("trust", "show").strip()
    network.cli("trust", "add", "lab", fingerprint)
    listed = {p["name"]: p for p in network.json("trust", "list")["providers"]}
    assert listed["lab"]["fingerprint"] == fingerprint and not listed["lab"]["own"]
    assert listed["own"]["fingerprint"] == own and listed["own"]["own"]
    assert network.json("config", "show")["providers"] == ["own", "lab"]
    assert network.run("trust", "add", "lab", "cd" * 32).returncode == 2
    network.cli("trust", "remove", "lab")
    assert len(network.json("trust", "list")["providers"]) == 1
    assert network.run("trust", "remove", "own").returncode == 5


def test_a_provider_that_is_not_pinned_gets_nothing(fresh):
    """A machine of another provider is on the network, and the only one; it is never granted a task."""
    network = fresh().server()
    stranger = fresh()
    # The stranger is let in by the network's founder, and brings a provider root of its own.
    access = network.folder / "stranger.json"
    network.cli("keys", "create", "stranger", "--scopes", "submit,read,network", "--access", str(access))
    stranger.cli("login", str(access))
    stranger.agent("foreign", "eu-central")
    profile = network.folder / "config" / "farlane" / "profiles" / "default.json"
    with network.client(identity_file=profile) as client:
        future = client.submit(pow, 2, 2)
        with pytest.raises(fl.TaskError, match="not trusted here; see `farlane trust add`"):
            future.result(timeout=RESULT_SECONDS)
    foreign = stranger.cli("trust", "show").strip()
    network.cli("trust", "add", "stranger", foreign)
    with network.client(identity_file=profile) as client:
        assert client.submit(pow, 2, 2).result(timeout=RESULT_SECONDS) == 4
