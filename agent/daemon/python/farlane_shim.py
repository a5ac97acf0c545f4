"""`import farlane` inside a task, where the real package is not installed: `context()`, and errors to catch.

A task has no network: what would need one says so. Leaves everything else to the package, which an environment may
bring along.
"""

import sys
import time


class FarlaneError(Exception):
    """Base of Farlane's errors."""


# As in sdk/python/farlane/_errors.py, so that a task may name them; nothing raises them here.
ERRORS = (
    ("TaskError", ()),
    ("TaskTimeout", (TimeoutError,)),
    ("QueueTimeout", (TimeoutError,)),
    ("Infeasible", ()),
    ("WorkerLost", ()),
    ("EnvMismatch", ()),
    ("EnvBuildFailed", ()),
    ("PayloadTooLarge", (ValueError,)),
    ("ResultExpired", ()),
    ("IntegrityError", ()),
    ("SerializationError", (TypeError,)),
    ("AuthError", (PermissionError,)),
    ("ConnectionError", (ConnectionError,)),
    ("IdentityError", ()),
    ("OptionError", (ValueError, TypeError)),
    ("UnknownTask", (LookupError,)),
    ("ClientClosed", (RuntimeError,)),
)
for _name, _bases in ERRORS:
    globals()[_name] = type(_name, (FarlaneError, *_bases), {"__module__": __name__})
# What submits, and so is of no use here.
OUTSIDE = ("Client", "Env", "Future", "RemoteFunction", "as_completed", "attach", "default_client", "gather")


def __getattr__(name):
    if name in OUTSIDE:
        raise RuntimeError(
            "farlane.%s is not there inside a task, which has no network; submit from outside, and give tasks what "
            "they need as arguments" % name
        )
    raise AttributeError("module 'farlane' has no attribute %r" % name)


def remote(function=None, /, **options):
    """The plain function: inside a task, calls run where they stand."""
    return function if function is not None else lambda decorated: decorated


def Affinity(tag, scope="node", required=True):
    """As `remote`: options mean nothing here, and modules that name them still load."""
    return tag, scope, required


present, absent = "present", "absent"


class Gang:
    """The tasks that run at once with this one."""

    __slots__ = ("attempt", "id", "rank", "size")

    def __init__(self, state):
        # Named by its first task; that and the attempt are the same for all that run together.
        self.id = _ulid((int.from_bytes(state.task, "big") - state.rank).to_bytes(16, "big"))
        self.rank = state.rank
        self.size = state.size
        self.attempt = state.attempt


class Context:
    """What a running task may know of itself."""

    __slots__ = ("attempt", "deadline", "gang", "id", "node", "region", "_state")

    def __init__(self, state):
        self._state = state
        self.id = _ulid(state.task)
        self.attempt = state.attempt
        self.node = state.node
        self.region = state.region
        self.deadline = state.deadline / 1000 if state.deadline else None
        # None for a task on its own.
        self.gang = Gang(state) if state.size else None

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


def checkpoint_requested():
    """Whether the running task is to save what it has and to return: it makes way for more urgent work."""
    runtime = sys.modules.get("_farlane_worker")
    return runtime is not None and bool(runtime.State.task) and runtime.State.checkpoint()
