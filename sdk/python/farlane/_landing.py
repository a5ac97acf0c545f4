"""Who waits for a future's landing, and hears of it once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._future import Future

# Held while one more is added to those that wait for a future's landing.
_lock = threading.Lock()


class Once:
    """Passes on the first call only, whichever thread makes it."""

    __slots__ = ("_put", "_taken")

    def __init__(self, put: Callable[[Any], object]) -> None:
        self._put = put
        self._taken = threading.Lock()

    def take(self) -> bool:
        """Makes this call the one that passes; True if none did before."""
        return self._taken.acquire(blocking=False)

    def is_taken(self) -> bool:
        return self._taken.locked()

    def __call__(self, future: Any) -> None:
        if self.take():
            self._put(future)


class Each:
    """Several that wait for one future; those that gave up are left out."""

    __slots__ = ("_calls",)

    def __init__(self, before: Once | Each, once: Once) -> None:
        calls = before._calls if isinstance(before, Each) else (before,)
        self._calls: tuple[Once, ...] = (*(call for call in calls if not call.is_taken()), once)

    def __call__(self, future: Any) -> None:
        for call in self._calls:
            call(future)


def on_land(future: Future[Any], put: Callable[[Any], object]) -> Once:
    """Has `put(future)` called once, when it lands or now. Either thread may find it landed: only one may put."""
    once = Once(put)
    if not future.done():
        with _lock:
            before = future._on_land
            future._on_land = once if before is None else Each(before, once)
    if future.done():
        once(future)
    return once
