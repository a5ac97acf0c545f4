"""`map` and its kin: many calls, a bounded number of them under way.

Owns the window over lazy input and the order of what comes out. Leaves single calls to `_client.py`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from ._landing import on_land

if TYPE_CHECKING:
    from ._client import Client
    from ._future import Future

# Calls of one `map` under way at once: enough for 20,000 a second over a round trip of 0.2 s; input beyond is not
# read. Source: a quarter of a session's window, farlane_wire::hello::WINDOW_TASKS.
WINDOW = 4096


def chunked(function: Callable[..., Any], keep_exceptions: bool) -> Callable[..., Any]:
    """A function over a list of argument tuples. Made to be pickled by value: nodes have no Farlane.

    Without `keep_exceptions` the first one ends its chunk, as in the standard library, with its traceback.
    """
    plain = getattr(function, "_farlane_function", function)

    def run_chunk(rows: list[tuple[Any, ...]]) -> list[Any]:
        if not keep_exceptions:
            return [(True, plain(*row)) for row in rows]
        out: list[Any] = []
        for row in rows:
            try:
                out.append((True, plain(*row)))
            except Exception as error:
                out.append((False, error))
        return out

    run_chunk.__module__ = "__main__"
    run_chunk.__qualname__ = run_chunk.__name__ = getattr(plain, "__qualname__", "call").replace("<locals>.", "")
    return run_chunk


class Mapped(Iterator[Any]):
    """The results of a `map`, as they are asked for."""

    def __init__(
        self,
        client: Client,
        submit: Callable[[tuple[Any, ...]], Future[Any]],
        rows: Iterator[tuple[Any, ...]],
        timeout: float | None,
        ordered: bool,
        return_exceptions: bool,
        in_chunks: bool,
    ) -> None:
        self._client = client
        self._submit = submit
        self._rows = rows
        self._until = None if timeout is None else monotonic() + timeout
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._in_chunks = in_chunks
        self._under_way: deque[Future[Any]] = deque()
        self._waiting: set[Future[Any]] = set()
        self._landed: Any = None
        self._ready: deque[Any] = deque()
        if not ordered:
            import queue

            self._landed = queue.SimpleQueue()
        self._started = False
        self._fill()

    def _fill(self) -> None:
        room = WINDOW - (len(self._under_way) if self._ordered else len(self._waiting))
        for row in itertools.islice(self._rows, room):
            future = self._submit(row)
            if self._ordered:
                self._under_way.append(future)
            else:
                self._waiting.add(future)
                on_land(future, self._landed.put)

    def __next__(self) -> Any:
        self._started = True
        while not self._ready:
            future = self._next_future()
            self._take(future)
        ok, value = self._ready.popleft()
        if ok or self._return_exceptions:
            return value
        self.close()
        if isinstance(value, StopIteration):
            # Raised here it would end the loop as if there were no more results.
            raise RuntimeError("a task of the map raised StopIteration") from value
        raise value

    def _next_future(self) -> Future[Any]:
        left = None if self._until is None else max(0.0, self._until - monotonic())
        if self._ordered:
            if not self._under_way:
                raise StopIteration
            future = self._under_way[0]
            if not future.done():
                future._wait(left)
            self._under_way.popleft()
            # Refilled in strides, so that calls gather into batches.
            if len(self._under_way) <= WINDOW - WINDOW // 8:
                self._fill()
            return future
        if not self._waiting:
            raise StopIteration
        landed = self._client._next_landed(self._landed, left)
        self._waiting.discard(landed)
        if len(self._waiting) <= WINDOW - WINDOW // 8:
            self._fill()
        return landed

    def _take(self, future: Future[Any]) -> None:
        try:
            value = future.result()
        except Exception as error:
            self._ready.append((False, error))
            return
        if self._in_chunks:
            self._ready.extend(value)
        else:
            self._ready.append((True, value))

    def close(self) -> None:
        """Cancels what is still under way."""
        left = [f for f in (*self._under_way, *self._waiting) if not f.done()]
        self._under_way.clear()
        self._waiting.clear()
        self._rows = iter(())
        if left:
            self._client._cancel(left, "map ended early")

    def __del__(self) -> None:
        # As in the standard library: what nobody began to read runs on.
        if self._started:
            try:
                self.close()
            except Exception:
                pass  # The interpreter is ending.


def rows(iterables: tuple[Iterable[Any], ...], chunksize: int) -> Iterator[tuple[Any, ...]]:
    """Argument tuples; with chunks, one argument: a list of them."""
    zipped = zip(*iterables)
    if chunksize == 1:
        return zipped

    def chunks() -> Iterator[tuple[Any, ...]]:
        while chunk := list(itertools.islice(zipped, chunksize)):
            yield (chunk,)

    return chunks()
