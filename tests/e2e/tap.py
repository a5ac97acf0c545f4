"""What a server sees: a tap behind the TLS of every connection.

```text
client, agent, granter ══TLS══▶ tap ══TLS══▶ server
                                 └─ records the plaintext of both ways
```
No part of Farlane knows of it: whoever runs a network owns the keys of its authority, which lie in the server's
folder. With them the tap makes itself a server's certificate, and towards the server it shows the certificate and
key from the state folder of the machine that calls.

Owns the recording. Leaves what to look for to `planted.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from network import Network, wait_for
from planted import planted

# The name in every server's certificate (farlane_wire::channel::SERVER_NAME).
SERVER_NAME = "farlane"
# Bytes read at once. Chosen: a TLS record holds 16 KiB.
READ = 64 * 1024


@dataclass
class Connection:
    """One connection through the tap, and all that passed."""

    # Whether the caller showed a certificate, as machines do once they have joined.
    machine: bool
    # The port by which the tap reached the server.
    port: int
    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)


class Tap:
    """Listens on a port of its own choice for callers of the server at `upstream`."""

    def __init__(self, upstream: str, authority: Path, folder: Path) -> None:
        address = urlsplit(upstream)
        assert address.hostname and address.port, upstream
        self.upstream = (address.hostname, address.port)
        self.root = authority / "root.pem"
        self.folder = folder
        # State folder of the machine that may call; set before it does.
        self.machine: Path | None = None
        self.connections: list[Connection] = []
        self.url = ""
        self._listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._listening.load_cert_chain(*certificate(authority, folder))
        self._listening.load_verify_locations(self.root)
        self._listening.verify_mode = ssl.CERT_OPTIONAL
        self._listening.set_alpn_protocols(["h2"])
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()], daemon=True)
        self._thread.start()
        wait_for(lambda: self.url, "the tap to listen", 10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(timeout=10)

    def streams(self) -> Iterator[tuple[str, bytes]]:
        """Everything recorded so far, both ways of each connection."""
        for number, connection in enumerate(list(self.connections)):
            who = "machine" if connection.machine else "client"
            yield f"connection {number}, {who} to server", bytes(connection.up)
            yield f"connection {number}, server to {who}", bytes(connection.down)

    def bypassed(self) -> list[int]:
        """Local ports of connections to the server that do not come from the tap."""
        known = {connection.port for connection in self.connections}
        return [port for port in callers_of(self.upstream[1]) if port not in known]

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._listening)
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await self._stopped.wait()
        server.close()
        pending = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        machine = bool(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        try:
            back, forth = await asyncio.open_connection(
                *self.upstream, ssl=self._calling(machine), server_hostname=SERVER_NAME
            )
        except OSError:
            writer.close()  # The server is away: so is the tap.
            return
        connection = Connection(machine, forth.get_extra_info("sockname")[1])
        self.connections.append(connection)
        await asyncio.gather(
            copy(reader, forth, connection.up), copy(back, writer, connection.down), return_exceptions=True
        )

    def _calling(self, machine: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.root)
        context.set_alpn_protocols(["h2"])
        if machine:
            assert self.machine is not None, "a machine calls, and the tap does not know its folder"
            transport = json.loads((self.machine / "transport.json").read_text())
            both = self.folder / "machine.pem"
            both.touch(0o600)
            both.write_text(transport["certificate_pem"] + "\n" + transport["key_pem"])
            context.load_cert_chain(both)
        return context


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray) -> None:
    """Passes on what comes, recording it first, until one end closes."""
    try:
        while data := await reader.read(READ):
            record += data
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


def certificate(authority: Path, folder: Path) -> tuple[Path, Path]:
    """A server's chain and key, made with the network's authority."""
    program = shutil.which("openssl")
    assert program, "these tests make a certificate: install openssl"
    key, request, leaf, chain = (folder / f"tap.{end}" for end in ("key", "csr", "pem", "chain"))
    extensions = folder / "tap.ext"
    extensions.write_text(f"subjectAltName=DNS:{SERVER_NAME}\nextendedKeyUsage=serverAuth\nkeyUsage=digitalSignature\n")
    new = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=tap"]
    sign = ["x509", "-req", "-days", "1", "-CAcreateserial", "-CAserial", str(folder / "tap.srl")]
    issuer = ["-CA", str(authority / "intermediate.pem"), "-CAkey", str(authority / "intermediate.key")]
    names = ["-in", str(request), "-out", str(leaf), "-extfile", str(extensions)]
    for command in ([*new, "-keyout", str(key), "-out", str(request)], [*sign, *issuer, *names]):
        done = subprocess.run([program, *command], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
    chain.write_text(leaf.read_text() + (authority / "intermediate.pem").read_text())
    return chain, key


def callers_of(port: int) -> list[int]:
    """Local ports of this machine's established TCP connections to `port`."""
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                _, local, remote, state = line.split()[:4]
                if state == "01" and int(remote.rsplit(":", 1)[1], 16) == port:
                    found.append(int(local.rsplit(":", 1)[1], 16))
    return found


class TappedNetwork(Network):
    """A server and one machine that know each other, and their clients, by the tap's address alone."""

    tap: Tap

    def __init__(self) -> None:
        super().__init__()
        # A name that the server may see, and that the tests' search must find.
        (self.name,) = planted(1)

    def start(self) -> TappedNetwork:
        self.env["FARLANE_LOG"] = "debug"
        self.serve()
        access = wait_for(lambda: self.read_access(), "the server's access file")
        self.tap = Tap(access["urls"][0], self.kept / "ca", self.folder)
        altered = self.folder / "access.json"
        altered.touch(0o600)
        altered.write_text(json.dumps({**access, "urls": [self.tap.url]}))
        self.cli("login", str(altered))
        self.machine()
        self.part("granter", "granter", "--state", str(self.folder / "granter"))
        return self

    @property
    def kept(self) -> Path:
        """The server's folder."""
        return self.folder / "server"

    @property
    def endpoint(self) -> Path:
        return self.folder / "config" / "farlane" / "profiles" / "default.json"

    def read_access(self) -> dict[str, list[str]] | None:
        path = self.kept / "access.json"
        return dict(json.loads(path.read_text())) if path.exists() else None

    def serve(self) -> None:
        """Starts the server. Its log lies in its folder: it is a file of its own too."""
        self.kept.mkdir(mode=0o700, exist_ok=True)
        self.served = self.part("server/log", "server", "--data", str(self.kept))

    def machine(self) -> None:
        join, state = self.folder / "join.txt", self.state("machine")
        self.cli("tokens", "create", "--out", str(join))
        lines = join.read_text().splitlines()
        lines = [f"url = {self.tap.url}" if line.startswith("url =") else line for line in lines]
        join.write_text("\n".join(lines) + "\n")
        own = self.json("config", "show")["tenant"]
        self.tap.machine = Path(state)
        known = ["--join-file", str(join), "--state", state, "--name", self.name, "--own-tenant", own]
        self.part("agent", "agent", *known)
        wait_for(lambda: self.node(self.name).get("state") == "online", "the machine")

    def restart_server(self) -> None:
        self.served.terminate()
        self.served.wait(timeout=30)
        self.serve()
        wait_for(lambda: self.run("status").returncode == 0, "the server to be back")

    def close(self) -> None:
        super().close()
        if hasattr(self, "tap"):
            self.tap.close()
