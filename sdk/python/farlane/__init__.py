"""Farlane: run Python functions on the best machine in the world for them; nobody in between can read them.

    import farlane as fl

    @fl.remote(memory="2GiB", regions=["eu-*"])
    def train(data, rate): ...

    with fl.Client() as client:
        future = client.submit(train, data, 1e-3)
        print(future.result())
"""

from __future__ import annotations

from ._errors import (
    AuthError,
    ClientClosed,
    ConnectionError,
    EnvBuildFailed,
    EnvMismatch,
    FarlaneError,
    IdentityError,
    Infeasible,
    IntegrityError,
    OptionError,
    PayloadTooLarge,
    QueueTimeout,
    ResultExpired,
    SerializationError,
    TaskError,
    TaskTimeout,
    UnknownTask,
    WorkerLost,
)

# Known to type checkers; `typing` itself would cost half of the import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._client import Client, as_completed, attach, default_client, gather
    from ._context import Context, checkpoint_requested, context
    from ._env import Env
    from ._function import RemoteFunction, remote
    from ._future import Explanation, Future
    from ._place import Affinity, absent, present

__version__ = "0.1.0"

# Loaded when first used: `import farlane` stays cheap for programs that may never submit.
_LAZY = {
    "Client": "_client",
    "as_completed": "_client",
    "attach": "_client",
    "default_client": "_client",
    "gather": "_client",
    "Context": "_context",
    "checkpoint_requested": "_context",
    "context": "_context",
    "Env": "_env",
    "RemoteFunction": "_function",
    "remote": "_function",
    "Explanation": "_future",
    "Future": "_future",
    "Affinity": "_place",
    "absent": "_place",
    "present": "_place",
}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'farlane' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "Affinity",
    "AuthError",
    "Client",
    "ClientClosed",
    "ConnectionError",
    "Context",
    "Env",
    "EnvBuildFailed",
    "EnvMismatch",
    "Explanation",
    "FarlaneError",
    "Future",
    "IdentityError",
    "Infeasible",
    "IntegrityError",
    "OptionError",
    "PayloadTooLarge",
    "QueueTimeout",
    "RemoteFunction",
    "ResultExpired",
    "SerializationError",
    "TaskError",
    "TaskTimeout",
    "UnknownTask",
    "WorkerLost",
    "__version__",
    "absent",
    "as_completed",
    "attach",
    "checkpoint_requested",
    "context",
    "default_client",
    "gather",
    "present",
    "remote",
]
