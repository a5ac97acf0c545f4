"""What can go wrong, as classes that a caller can tell apart.

Owns the hierarchy only; `_exceptions.py` rebuilds what a task raised.
"""

from __future__ import annotations

import builtins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class FarlaneError(Exception):
    """Base of every error of Farlane."""


class TaskError(FarlaneError):
    """A task raised an exception that cannot be rebuilt here; `type_name` says which."""

    def __init__(self, message: str = "", type_name: str = "", remote_args: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.remote_args = remote_args


class TaskTimeout(FarlaneError, TimeoutError):
    """An attempt ran longer than its `timeout`, or the task longer than its `deadline`."""


class QueueTimeout(FarlaneError, TimeoutError):
    """No node took the task within its `queue_timeout`."""


class Infeasible(FarlaneError):
    """No node can ever run the task, or its project's quota is too small for it; the message says what is missing."""


class WorkerLost(FarlaneError):
    """The worker or its node went away, more often than `max_retries` allows. `cause` says why."""

    def __init__(self, message: str = "", cause: str = "", detail: int = 0) -> None:
        super().__init__(message)
        self.cause = cause
        self.detail = detail


class EnvMismatch(FarlaneError):
    """The node's interpreter or environment is not the one that was asked for."""


class EnvBuildFailed(FarlaneError):
    """The environment could not be resolved or built; `log` holds what the builder said."""

    def __init__(self, message: str = "", log: str = "") -> None:
        super().__init__(message)
        self.log = log


class PayloadTooLarge(FarlaneError, ValueError):
    """Function, arguments or result are larger than the network takes."""


class ResultExpired(FarlaneError):
    """The result was kept no longer; `result_ttl` asks for more."""


class IntegrityError(FarlaneError):
    """A signature, digest or seal does not hold. Never tried again."""


class SerializationError(FarlaneError, TypeError):
    """Something cannot be pickled; the message names the path to it."""


class AuthError(FarlaneError, PermissionError):
    """The key is wrong, expired, revoked, or lacks a scope."""


class ConnectionError(FarlaneError, builtins.ConnectionError):
    """No server answered; the message names the address and how long it was tried."""


class IdentityError(FarlaneError):
    """No identity was found, or its file cannot be used."""


class OptionError(FarlaneError, ValueError, TypeError):
    """An option that does not exist or has a value out of its bounds."""


class UnknownTask(FarlaneError, LookupError):
    """No such task in this project."""


class ClientClosed(FarlaneError, RuntimeError):
    """The client was shut down."""
