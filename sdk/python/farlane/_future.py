"""A call's future: a real `concurrent.futures.Future`, cheap until somebody looks closely.

Owns landing (what the delivery thread does for each result), decoding when the value is asked for, and waiting.
Most futures are made, land and are read without ever needing a lock of their own: condition, waiters and callbacks
come into being when the standard library's functions touch them.

    delivery thread: state = FINISHED, then look whether a condition exists ─ notify through it
    waiting thread:  make the condition, then look at the state under it ─ wait

Either order of the two leaves nobody asleep.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError, Future as StandardFuture
from concurrent.futures import TimeoutError as WaitTimeout
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ._client import Client
    from ._farlane import Receipt

T = TypeVar("T")

PENDING, RUNNING, CANCELLED, FINISHED = "PENDING", "RUNNING", "CANCELLED_AND_NOTIFIED", "FINISHED"

# What `_farlane` tells apart (sdk/python/src/deliver.rs).
RETURNED_SAFE, RETURNED_PICKLE, RAISED_FOREIGN, RAISED_TRUSTED, ENV_FAILED, ENDED, FAILED = range(7)
_VALUE, _ERROR = 10, 11

# Threads that wait on the client's shared condition before each gets one of its own: waking more costs more than
# making one.
_MAX_SHARED = 8


class _Lazy:
    """An attribute that is made when first read, once, whichever thread reads it."""

    def __init__(self, name: str, make: Any) -> None:
        self.name = name
        self.make = make

    def __get__(self, future: Any, owner: Any) -> Any:
        if future is None:
            return self
        return future.__dict__.setdefault(self.name, self.make())


class Explanation:
    """Why a task is where it is: a sentence, and what stands behind it."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self.phase: str = parts["phase"]
        self.summary: str = parts["summary"]
        self.node_name: str = parts["node_name"]
        # (class of node, how many, why they were refused: empty where they fit)
        self.classes: list[tuple[str, int, list[str]]] = parts["classes"]
        # (term, US dollars, what it is made of) of the chosen node; of then, once it is placed
        self.terms: list[tuple[str, float, str]] = parts["terms"]
        self.policy: str = parts["policy"]
        # (node, region, US dollars that it would cost) of the next best class of nodes
        self.runner_up: tuple[str, str, float] | None = parts["runner_up"]
        # of a call that waits: seconds until it would start, where that is known, and what that is told from
        self.starts_in: float | None = parts["starts_in"]
        self.starts_because: str = parts["starts_because"]

    def __str__(self) -> str:
        lines = [self.summary]
        for name, count, reasons in self.classes:
            lines.append(f"  {count} × {name}: {'; '.join(reasons) or 'fits'}")
        if self.terms:
            lines.append(f"  by policy {self.policy}, on {self.node_name}:")
        for term, dollars, detail in self.terms:
            lines.append(f"  {term}: ${dollars:.12f} {detail}".rstrip())
        if self.runner_up:
            node, region, dollars = self.runner_up
            lines.append(f"  else on {node} in {region}: ${dollars:.12f}")
        return "\n".join(lines)

    __repr__ = __str__


class Future(StandardFuture, Generic[T]):  # type: ignore[type-arg]
    """The result of a call that runs somewhere else."""

    # Read by the standard library: made only when touched.
    _condition = _Lazy("_condition", threading.Condition)
    _waiters = _Lazy("_waiters", list)
    _done_callbacks = _Lazy("_done_callbacks", list)
    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _kind = -1
    _receipt: Receipt | None = None
    _client: Client
    _seq = 0
    _may_be_earlier = False
    _id: str | None = None
    _on_land: Any = None
    _record: dict[str, Any] | None = None

    def __init__(self, client: Client) -> None:
        self._client = client

    # ---- landing --------------------------------------------------------------------------------------------

    def _land(self, kind: int, body: Any, receipt: Any) -> None:
        """Takes the outcome. Called by the delivery thread, once."""
        own = self.__dict__
        own["_kind"] = kind
        own["_result"] = body
        own["_receipt"] = receipt
        if kind == ENDED and body[0] == "cancelled":
            own["_exception"] = CancelledError(body[3]) if body[3] else CancelledError()
            own["_state"] = CANCELLED
        else:
            own["_state"] = FINISHED
        if "_condition" in own:
            self._wake()
        elif "_on_land" in own:
            self._on_land(self)

    def _wake(self) -> None:
        with self._condition:
            for waiter in self._waiters:
                if self._state == CANCELLED:
                    waiter.add_cancelled(self)
                elif self._kind in (RETURNED_SAFE, RETURNED_PICKLE):
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        try:
            self._invoke_callbacks()  # type: ignore[attr-defined]
        finally:
            if self._on_land is not None:
                self._on_land(self)

    def _decode(self) -> None:
        """Turns the body into a value or an exception, when it is first asked for."""
        kind, body = self._kind, self._result
        if kind >= _VALUE:
            return
        try:
            if kind == RETURNED_PICKLE:
                import pickle

                value = pickle.loads(body) if type(body) is bytes else pickle.loads(body[0], buffers=body[1])
                self._result, self._kind = value, _VALUE
                return
            if kind == RETURNED_SAFE:
                from ._farlane import decode

                value = decode(body)
                self._result, self._kind = value, _VALUE
                return
            error = self._failure(kind, body)
        except Exception as failure:
            from ._errors import SerializationError

            error = SerializationError(f"the result of task {self.id} cannot be read here: {failure}")
            error.__cause__ = failure
        self._exception, self._result, self._kind = error, None, _ERROR

    def _failure(self, kind: int, body: Any) -> BaseException:
        from . import _errors, _exceptions

        if kind in (RAISED_TRUSTED, RAISED_FOREIGN):
            from ._farlane import decode

            self._record = decode(body)
            return _exceptions.rebuild(self._record or {}, kind == RAISED_TRUSTED)
        if kind == ENV_FAILED:
            from ._farlane import decode

            message, log = body
            text = str(decode(log)) if log else ""
            tail = "\n".join(text.splitlines()[-20:])
            return _errors.EnvBuildFailed(f"{message or 'the environment could not be built'}\n{tail}".rstrip(), text)
        if kind == ENDED:
            return self._exception or _exceptions.ended(*body)
        name, message = body
        error: BaseException = getattr(_errors, name)(message)
        return error

    # ---- concurrent.futures ---------------------------------------------------------------------------------

    def done(self) -> bool:
        return self._state in (FINISHED, CANCELLED)

    def cancelled(self) -> bool:
        return self._state == CANCELLED

    def running(self) -> bool:
        return self._state == PENDING and self.status == "running"

    def result(self, timeout: float | None = None) -> T:
        """The value, or raises what the task raised."""
        if self._state == PENDING:
            self._wait(timeout)
        if self._kind < _VALUE:
            self._decode()
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # break the cycle through the traceback
        value: T = self._result
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None."""
        if self._state == PENDING:
            self._wait(timeout)
        if self._state == CANCELLED:
            raise self._exception or CancelledError()
        if self._kind < _VALUE:
            self._decode()
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        if timeout is not None:
            from . import _options

            timeout = _options.patience("timeout", timeout)
        try:
            if not self._client._wait_landed(self, timeout, _MAX_SHARED):
                raise WaitTimeout(self._client._still_waits(self, timeout))
        except KeyboardInterrupt:
            self._client._detached_by_user(self)
            raise

    def _wait_own(self, timeout: float | None) -> bool:
        until = None if timeout is None else monotonic() + timeout
        with self._condition:
            while self._state == PENDING:
                left = None if until is None else until - monotonic()
                if left is not None and left <= 0:
                    return False
                self._condition.wait(left)
        return True

    def cancel(self, reason: str = "") -> bool:
        """Asks for the task to be cancelled, whether it waits or runs; False once it has ended.

        The future ends as cancelled, or with its result where that came first.
        """
        from . import _options

        _options.text("reason", reason)
        if self.done():
            return False
        self._client._cancel([self], reason)
        return True

    def set_running_or_notify_cancel(self) -> bool:
        raise RuntimeError("a Farlane future is set by the network")

    def set_result(self, result: Any) -> None:
        raise RuntimeError("a Farlane future is set by the network")

    def set_exception(self, exception: BaseException | None) -> None:
        raise RuntimeError("a Farlane future is set by the network")

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio

        return asyncio.wrap_future(self).__await__()

    def __repr__(self) -> str:
        return f"<Future {self.id} {self.status}>"

    def __reduce__(self) -> Any:
        raise TypeError("a farlane.Future cannot be sent to a task; send its result()")

    # ---- Farlane --------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The task's id: attach to it from anywhere with `client.attach(id)`."""
        if self._id is None:
            self._id = self._client._task_id(self._seq, self._may_be_earlier)
        return self._id

    @property
    def status(self) -> str:
        """ "queued", "placed", "running", "finished", "failed" or "cancelled"."""
        if self._state == CANCELLED:
            return "cancelled"
        if self._state == FINISHED:
            return "finished" if self._kind in (RETURNED_SAFE, RETURNED_PICKLE, _VALUE) else "failed"
        return self._client._state_of(self)

    @property
    def cost(self) -> float | None:
        """US dollars, once the task has ended."""
        return None if self._receipt is None else self._receipt.cost_usd_micros / 1e6

    @property
    def receipt(self) -> Receipt | None:
        """Where and when it ran, and what it cost, once it has ended."""
        return self._receipt

    def logs(self, follow: bool = False, attempt: int = 0) -> Iterator[str]:
        """What the task printed, piece by piece; with `follow`, until it ends. `attempt` 0 is the newest."""
        from . import _options

        return self._client._logs(self, _options.whole("attempt", attempt, 0, 2**32 - 1), follow)

    def explain(self) -> Explanation:
        """Why the task is where it is, or what it waits for."""
        return Explanation(self._client._explain(self))

    def traceback(self) -> str | None:
        """The traceback as the node printed it, once the task has raised."""
        if not self.done() or self.exception() is None:
            return None
        if self._record is None:
            import traceback

            error = self._exception
            return "".join(traceback.format_exception_only(type(error), error)) if error else None
        from . import _exceptions

        return _exceptions.with_sources(str(self._record.get("text", "")))
