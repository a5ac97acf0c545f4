"""The way between an island and a server: late by what is imposed, both ways, changeable while it is used."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

# Bytes read at once, and pieces under way before reading stops. Chosen: 16 MiB hold what a second brings here.
READ, PIECES = 64 * 1024, 256


class Strait:
    """Listens on a unix socket for what `island.py` carries there."""

    def __init__(self, path: Path, port: int, late: float) -> None:
        self.path, self.port = path, port
        # Seconds, one way.
        self.late = late
        self.loop = asyncio.new_event_loop()
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None

    async def close(self) -> None:
        """Ends what is under way."""
        if self.server is not None:
            self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def serve(self) -> None:
        self.server = await asyncio.start_unix_server(self.connected, str(self.path))
        # Whoever runs the machine may be another user.
        self.path.chmod(0o777)

    async def connected(self, inner: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            outer, there = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            back.close()
            return
        for source, sink in ((inner, there), (outer, back)):
            task = self.loop.create_task(self.carry(source, sink))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Each piece leaves when its time has come, and never before those that came earlier."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES)

        async def deliver() -> None:
            while True:
                due, piece = await under_way.get()
                await asyncio.sleep(due - self.loop.time())
                if not piece:
                    return sink.close()
                sink.write(piece)
                await sink.drain()

        async def read() -> None:
            while True:
                piece = await source.read(READ)
                await under_way.put((self.loop.time() + self.late, piece))
                if not piece:
                    return

        with contextlib.suppress(OSError):
            await asyncio.gather(deliver(), read())


@contextlib.contextmanager
def strait(path: Path, port: int, late: float) -> Iterator[Strait]:
    """A way that is open while the test runs."""
    way = Strait(path, port, late)
    way.loop.run_until_complete(way.serve())
    thread = threading.Thread(target=way.loop.run_forever, daemon=True)
    thread.start()
    try:
        yield way
    finally:
        asyncio.run_coroutine_threadsafe(way.close(), way.loop).result()
        way.loop.call_soon_threadsafe(way.loop.stop)
        thread.join()
        way.loop.close()
