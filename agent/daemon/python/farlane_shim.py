"""`import farlane` inside a task, where the real package is not installed: `context()` and no more.

Leaves everything else to the package, which an environment may bring along.
"""

import sys
import time


class FarlaneError(Exception):
    """Base of Farlane's errors."""


class SerializationError(FarlaneError):
    """Something cannot be sent."""


class Context:
    """What a running task may know of itself."""

    __slots__ = ("attempt", "deadline", "id", "node", "region", "_state")

    def __init__(self, state):
        self._state = state
        self.id = _ulid(state.task)
        self.attempt = state.attempt
        self.node = state.node
        self.region = state.region
        self.deadline = state.deadline / 1000 if state.deadline else None

    @property
    def remaining(self):
        """Seconds until the deadline; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.time())

    def progress(self, fraction, text=""):
        """Says how far the task is: a fraction in 0…1, and words."""
        self._state.progress(fraction, text)


def _ulid(raw):
    value = int.from_bytes(raw, "big")
    letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    return "".join(letters[value >> 5 * (25 - i) & 31] for i in range(26))


def context():
    """The running task's context; RuntimeError outside of one."""
    runtime = sys.modules.get("_farlane_worker")
    if runtime is None or not runtime.State.task:
        raise RuntimeError("farlane.context() is only there inside a task")
    return Context(runtime.State)
