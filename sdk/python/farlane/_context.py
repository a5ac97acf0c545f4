"""What a running task may know of itself.

Inside a task the worker answers (agent/daemon/python/farlane_worker.py); this module only asks it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

# Crockford's base 32, as every id is printed.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def _ulid(raw: bytes) -> str:
    value = int.from_bytes(raw, "big")
    return "".join(_ALPHABET[value >> 5 * (25 - i) & 31] for i in range(26))


class Gang:
    """The tasks that run at once with this one."""

    __slots__ = ("attempt", "id", "rank", "size")

    def __init__(self, state: Any) -> None:
        # Named by its first task; that and the attempt are the same for all that run together.
        self.id: str = _ulid((int.from_bytes(state.task, "big") - state.rank).to_bytes(16, "big"))
        self.rank: int = state.rank
        self.size: int = state.size
        self.attempt: int = state.attempt


class Context:
    """The running task."""

    __slots__ = ("_state", "attempt", "deadline", "gang", "id", "node", "region")

    def __init__(self, state: Any) -> None:
        self._state = state
        self.id: str = _ulid(state.task)
        self.attempt: int = state.attempt
        self.node: str = state.node
        self.region: str = state.region
        # Seconds since the epoch; None without one.
        self.deadline: float | None = state.deadline / 1000 if state.deadline else None
        # None for a task on its own.
        self.gang: Gang | None = Gang(state) if state.size else None

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.time())

    def progress(self, fraction: float, text: str = "") -> None:
        """Says how far the task is: a fraction in 0…1, and words."""
        self._state.progress(fraction, text)


def is_inside_task() -> bool:
    """Whether this is a worker that runs a task."""
    runtime = sys.modules.get("_farlane_worker")
    return runtime is not None and bool(runtime.State.task)


def context() -> Context:
    """The running task's context. Raises RuntimeError outside of a task."""
    if not is_inside_task():
        raise RuntimeError("farlane.context() is only there inside a task")
    return Context(sys.modules["_farlane_worker"].State)


def checkpoint_requested() -> bool:
    """Whether the running task is to save what it has and to return: it makes way for more urgent work.

    Some seconds later it is ended, and runs again from its beginning. False outside of a task.
    """
    return is_inside_task() and bool(sys.modules["_farlane_worker"].State.checkpoint())
