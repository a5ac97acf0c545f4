"""A network of a test's own, made of the real program, as a person would make it.

Owns the processes, their folders and their end. Leaves what is checked to the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import farlane as fl

# A cold start on a busy two-core machine; a hundred times what a quiet one needs.
START_SECONDS = 60.0
# Any call of these tests on a busy machine.
RESULT_SECONDS = 60.0


def program() -> str:
    """The `farlane` under test: FARLANE_BIN, else the first in the PATH."""
    found = os.environ.get("FARLANE_BIN") or shutil.which("farlane")
    assert found, "no `farlane` in the PATH; run these through `cargo xtask test`"
    return found


def wait_for(condition: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> Any:
    """The condition's first true value."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


class Network:
    """`farlane up` in a folder of its own; may be stopped, killed and started again."""

    def __init__(self, *flags: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="farlane-e2e-", dir="/tmp"))
        # Where the tests are root's, the agent's own user must be able to pass.
        self.folder.chmod(0o755)
        self.env = {
            **os.environ,
            "XDG_DATA_HOME": str(self.folder / "data"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }
        for name in ("FARLANE_URL", "FARLANE_KEY", "FARLANE_PROFILE", "FARLANE_IDENTITY_FILE", "FARLANE_LOG"):
            self.env.pop(name, None)
        self.flags = flags
        self.process: subprocess.Popen[str] | None = None
        self.ready: dict[str, Any] = {}
        self.states: set[str] = set()
        self.parts: list[subprocess.Popen[bytes]] = []

    @property
    def data(self) -> Path:
        return self.folder / "data" / "farlane"

    @property
    def endpoint(self) -> Path:
        return self.data / "endpoint.json"

    def start(self) -> Network:
        """Starts it and waits until its machine is on the network."""
        log = open(self.folder / "up.log", "a")
        command = [program(), "up", "--json", *self.flags]
        self.process = subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"`farlane up` ended at once:\n{(self.folder / 'up.log').read_text()[-4000:]}"
        self.ready = json.loads(line)
        self.states.add(self.ready["agent_state"])
        return self

    def server(self, *flags: str) -> Network:
        """Starts a server alone and logs its founder in; machines join by `agent`."""
        self.part("server", "server", "--data", str(self.folder / "server"), *flags)
        access = self.folder / "server" / "access.json"
        wait_for(access.exists, "the server's access file")
        self.cli("login", str(access))
        return self

    def part(self, log: str, *arguments: str, through: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Another `farlane` process that runs beside, started by the program `through` where one is named."""
        with open(self.folder / f"{log}.log", "ab") as out:
            child = subprocess.Popen(
                [*through, program(), *arguments],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.parts.append(child)
        return child

    def agent(self, name: str, region: str = "local", *flags: str, price: str = "0.04") -> subprocess.Popen[bytes]:
        """A machine of that name, joined by a file of its own."""
        file = self.folder / f"join-{name}.txt"
        self.cli("tokens", "create", "--region", region, "--price", price, "--out", str(file))
        own = self.json("config", "show")["tenant"]
        state = self.state(name)
        child = self.part(
            name, "agent", "--join-file", str(file), "--state", state, "--name", name, "--own-tenant", own, *flags
        )
        wait_for(lambda: self.node(name).get("state") == "online", f"the machine {name}")
        return child

    def state(self, name: str) -> str:
        """State folder of a machine: root's run as another user."""
        if os.geteuid() == 0:
            return f"/var/lib/farlane/{self.folder.name}-{name}"
        return str(self.folder / name)

    def node(self, name: str) -> dict[str, Any]:
        nodes = {node["name"]: node for node in self.json("nodes", "list")}
        return dict(nodes.get(name, {}))

    # ---- the program ----------------------------------------------------------------------------------------

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command, whatever comes of it."""
        return subprocess.run(
            [program(), *arguments], env=self.env, capture_output=True, text=True, input=stdin, timeout=60
        )

    def cli(self, *arguments: str, stdin: str | None = None) -> str:
        """What a command says; it must succeed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"farlane {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "--json"))

    @contextlib.contextmanager
    def client(self, **options: Any) -> Iterator[fl.Client]:
        """A client of this network; leaves without waiting when the test fails."""
        options.setdefault("identity_file", self.endpoint)
        client = fl.Client(**options)
        try:
            yield client
        except BaseException:
            client.shutdown(wait=False, cancel_futures=True)
            raise
        client.shutdown(wait=False)

    # ---- processes ------------------------------------------------------------------------------------------

    def descendants(self) -> list[int]:
        """Every process below `farlane up` and the parts, newest last."""
        roots = [p.pid for p in [self.process, *self.parts] if p is not None and p.poll() is None]
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    stat = (entry / "stat").read_text()
                    parents.setdefault(int(stat.rsplit(")", 1)[1].split()[1]), []).append(int(entry.name))
        found, queue = [], list(roots)
        while queue:
            children = parents.get(queue.pop(0), [])
            found += children
            queue += children
        return found

    def agent_pid(self) -> int:
        """The agent of `farlane up`."""
        assert self.process is not None
        for pid in self.descendants():
            with contextlib.suppress(OSError):
                if b"\0agent\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        raise AssertionError("no agent runs")

    def kill(self) -> None:
        """Kills `farlane up` as the power would."""
        assert self.process is not None
        left = self.descendants()
        self.process.kill()
        self.process.wait()
        wait_for(lambda: not any(alive(pid) for pid in left), "the agent to follow its parent", 30)

    def stop(self) -> None:
        """Asks `farlane up` to stop, as Ctrl-C does."""
        assert self.process is not None
        left = self.descendants()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=30) == 0
        wait_for(lambda: not any(alive(pid) for pid in left), "every process to end", 10)

    def close(self) -> None:
        """Ends and removes everything."""
        for child in [*reversed(self.parts), self.process]:
            if child is not None and child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.terminate()
                try:
                    child.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        states = list(Path("/var/lib/farlane").glob(f"{self.folder.name}-*")) if os.geteuid() == 0 else []
        for state in [*states, *self.states]:
            shutil.rmtree(state, ignore_errors=True)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
