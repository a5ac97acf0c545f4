"""The client: an executor whose workers are anywhere.

Owns submission, the thread-safe bookkeeping of waits, and the end of a session. Leaves networking, sealing and grants
to the Rust half (`_farlane.Native`), whose delivery thread calls `_deliver` once for each batch of results.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from concurrent.futures import TimeoutError as WaitTimeout
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import _context, _gang, _map, _options
from ._errors import ClientClosed, ConnectionError, FarlaneError, OptionError
from ._farlane import Native, silence
from ._function import Handles, RemoteFunction
from ._future import Future
from ._landing import on_land
from ._pickling import buffer_bytes, dump_arguments

if TYPE_CHECKING:
    from typing import ParamSpec

    from typing_extensions import Unpack

    from ._options import Options

    P = ParamSpec("P")

T = TypeVar("T")
R = TypeVar("R")

# Bytes submitted and not yet durable before `submit` waits; farlane_wire::hello::WINDOW_BYTES.
WINDOW_BYTES = 64 << 20
# At exit and for `shutdown(wait=False)`: how long acknowledgements are waited for once none come.
ACKNOWLEDGE_SECONDS = 10.0
# A wait is cut into pieces, so that signals are seen on every platform.
_FOREVER = 3.0e8
# Items of one task of a `map`: more than fit into any argument.
_MAX_CHUNK = 1 << 31

_clients: weakref.WeakSet[_Shared] = weakref.WeakSet()
_default: Client | None = None
_default_lock = threading.Lock()


def _deliver(batch: list[tuple[Future[Any], int, Any, Any]]) -> None:
    """Lands a batch of results; called by the delivery thread with the interpreter's lock."""
    if not batch:
        return
    shared: _Shared = batch[0][0]._client._shared
    shared.deliverer = threading.get_ident()
    for future, kind, body, receipt in batch:
        try:
            future._land(kind, body, receipt)
        except BaseException:  # A caller's callback, also one that exits; the others must land all the same.
            sys.excepthook(*sys.exc_info())
    shared.deliverer = None
    if shared.sleepers:
        with shared.landed:
            shared.landed.notify_all()


class _Shared:
    """What a client and those made by `with_options` have in common."""

    def __init__(self, native: Native) -> None:
        self.native = native
        self.handles = Handles(native)
        self.landed = threading.Condition(threading.Lock())
        self.sleepers = 0
        self.closed = False
        self.detached = False
        self.told = False
        self.pid = os.getpid()
        # The thread that delivers just now: it must not wait for what it alone delivers.
        self.deliverer: int | None = None

    def check_open(self) -> None:
        if self.closed:
            raise ClientClosed("the client is shut down")
        if self.pid != os.getpid():
            raise ClientClosed("a client does not survive fork(); make a new one in the child")


class Client(Executor):
    """Runs functions on a Farlane network.

    Without arguments it finds its network in the environment (`FARLANE_IDENTITY_FILE`, `FARLANE_URL`,
    `FARLANE_KEY`), the profile that `farlane login` wrote (`FARLANE_PROFILE` names another than `default`), or the
    network that `farlane up` runs for this user.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        identity_file: str | os.PathLike[str] | None = None,
        connect_timeout: float = 10.0,
        **options: Unpack[Options],
    ) -> None:
        if _context.is_inside_task():
            raise RuntimeError("fl.Client is not there inside a task, which has no network; submit from outside")
        _options.check_names(options)
        path = None if identity_file is None else os.fspath(identity_file)
        for name, given in (("url", url), ("key", key)):
            if given is not None:
                _options.text(name, given)
        patience = _options.number("connect_timeout", connect_timeout, 0, 3.2e8)
        native = Native(_deliver, path, url, key, patience, WINDOW_BYTES)
        self._options: dict[str, Any] = dict(options)
        self._options_key: Any = None
        self._set(_Shared(native))

    def _set(self, shared: _Shared) -> None:
        self._shared = shared
        self._native = shared.native
        self._handles = shared.handles
        # One more key for the cache of specs: which client's defaults were merged.
        self._options_key = id(self._options)
        _clients.add(shared)

    def with_options(self, **options: Unpack[Options]) -> Client:
        """The same session with other defaults; a function's own options win over them."""
        _options.check_names(options)
        other = Client.__new__(Client)
        other._options = {**self._options, **options}
        other._set(self._shared)
        return other

    def __repr__(self) -> str:
        state = "closed" if self._shared.closed else f"{self._native.awaited()} awaited"
        return f"<Client {', '.join(self._native.urls)} session {self._native.session}, {state}>"

    def __reduce__(self) -> Any:
        raise TypeError("a farlane.Client cannot be sent to a task, which has no network; submit from here")

    # ---- submitting -----------------------------------------------------------------------------------------

    if TYPE_CHECKING:

        @overload
        def submit(self, fn: RemoteFunction[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
        @overload
        def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            """Runs `fn(*args, **kwargs)` on the best node for it. Every keyword goes to the function; options come
            from `@remote`, `fn.options()` and `client.with_options()`. Waits while too much is under way."""
            ...

    else:

        def submit(self, fn, /, *args, **kwargs):
            options = getattr(fn, "_farlane_options", None)
            if options is not None:
                fn = fn._farlane_function
            return self._submit(fn, options, args, kwargs)

    def _submit(
        self, fn: Any, options: dict[str, Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        shared = self._shared
        if shared.closed or shared.pid != os.getpid():
            shared.check_open()
        handles = self._handles
        handle = handles.get(fn)
        key = (self._options_key, id(options))
        spec = handle.specs.get(key)
        if spec is None:
            if not callable(fn):
                raise OptionError(f"the first argument of submit is a function, not {fn!r}")
            spec = handles.spec(handle, key, self._merged(options))
            # Their ids are keys: they live as long as the handle.
            handle.keep.append((self._options, options))
        data, buffers = dump_arguments(args, kwargs)
        future: Future[Any] = Future(self)
        idempotency = None
        if options is not None or self._options:
            idempotency = (options or {}).get("idempotency_key") or self._options.get("idempotency_key")
        if buffers or idempotency is not None:
            blobs = [(readonly, self._native.argument(plain)) for readonly, plain in map(buffer_bytes, buffers)]
            future._may_be_earlier = idempotency is not None
            future._seq = self._native.submit(spec, data, future, blobs, idempotency)
        else:
            future._seq = self._native.submit(spec, data, future)
        return future

    def _merged(self, options: dict[str, Any] | None) -> dict[str, Any]:
        return _options.merge(self._options, options or {})

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[R]:
        """`fn` over the items of `iterables`, read only as far as a bounded number of calls are under way.

        `order_outputs=False` yields results as they come; `return_exceptions=True` yields exceptions instead of
        raising the first. `chunksize` items make one task. A result that is not there `timeout` seconds after this
        call raises `TimeoutError`.
        """
        chunksize = _options.whole("chunksize", chunksize, 1, _MAX_CHUNK)
        timeout = _options.patience("timeout", timeout)
        if not iterables:
            raise OptionError("map needs at least one iterable")
        options = getattr(fn, "_farlane_options", None)
        plain: Any = getattr(fn, "_farlane_function", fn)
        called = plain if chunksize == 1 else _map.chunked(plain, return_exceptions)
        return _map.Mapped(
            self,
            lambda row: self._submit(called, options, row, {}),
            _map.rows(iterables, chunksize),
            timeout,
            order_outputs,
            return_exceptions,
            chunksize > 1,
        )

    def gang(self, fn: Callable[..., R], *iterables: Iterable[Any]) -> list[Future[R]]:
        """Runs `fn` for each item of `iterables`, all at once or not at all, and returns their futures by rank.

        Inside, `fl.context().gang` says rank and size. Where one is lost or raises all begin again, as often as
        `max_retries` and `retry_exceptions` say; where one ends without a result all end. The option
        `gang_regions="any"` lets them lie in several regions.
        """
        return _gang.submit(self, fn, iterables)

    def attach(self, id: str) -> Future[Any]:
        """The future of any task of the project, submitted by whomever."""
        self._shared.check_open()
        _options.text("id", id)
        for waiting in self._native.waiting():
            if isinstance(waiting, Future) and waiting.id == id:
                return waiting
        future: Future[Any] = Future(self)
        future._id = id
        self._native.attach(future._id, future)
        return future

    # ---- many futures ---------------------------------------------------------------------------------------

    def as_completed(self, futures: Iterable[Future[T]], timeout: float | None = None) -> Iterator[Future[T]]:
        """The futures, as they end."""
        return self._as_completed(_futures("as_completed", futures), _options.patience("timeout", timeout))

    def _as_completed(self, futures: Iterable[Future[T]], timeout: float | None) -> Iterator[Future[T]]:
        import queue

        landed: queue.SimpleQueue[Future[T]] = queue.SimpleQueue()
        left = set(futures)
        until = None if timeout is None else monotonic() + timeout
        asked = [on_land(future, landed.put) for future in list(left)]
        try:
            while left:
                future = self._next_landed(landed, None if until is None else max(0.0, until - monotonic()))
                left.discard(future)
                yield future
        finally:
            for once in asked:
                once.take()

    def gather(self, futures: Iterable[Future[T]], return_exceptions: bool = False) -> list[T]:
        """The results in order. Raises the first exception, or with `return_exceptions` returns each in its place."""
        out: list[Any] = []
        for future in _futures("gather", futures):
            try:
                out.append(future.result())
            except Exception as error:
                if not return_exceptions:
                    raise
                out.append(error)
        return out

    def _next_landed(self, landed: Any, timeout: float | None) -> Future[Any]:
        import queue

        try:
            future: Future[Any] = landed.get(timeout=timeout)
        except queue.Empty:
            raise WaitTimeout() from None
        except KeyboardInterrupt:
            self._detached_by_user(None)
            raise
        return future

    # ---- for futures ----------------------------------------------------------------------------------------

    def _wait_landed(self, future: Future[Any], timeout: float | None, most: int) -> bool:
        """Waits on the condition that all share, while few do; True once the future has landed."""
        shared = self._shared
        if shared.pid != os.getpid():
            shared.check_open()
        if shared.deliverer == threading.get_ident():
            raise RuntimeError("a callback of a future cannot wait for another one; wait in a thread of your own")
        if shared.sleepers >= most:
            return future._wait_own(timeout)
        until = None if timeout is None else monotonic() + timeout
        with shared.landed:
            shared.sleepers += 1
            try:
                while not future.done():
                    left = None if until is None else until - monotonic()
                    if left is not None and left <= 0:
                        return False
                    shared.landed.wait(left)
            finally:
                shared.sleepers -= 1
        return True

    def _task_id(self, seq: int, may_be_earlier: bool) -> str:
        if may_be_earlier:
            # With its idempotency key it may be a task submitted before: the acknowledgement says which.
            self._let_the_network_know()
        return self._native.task_id(seq)

    def _state_of(self, future: Future[Any], id: str | None = None) -> str:
        state = self._native.state(future.id if id is None else id)
        return "queued" if state is None else state[0]

    def _still_waits(self, future: Future[Any], waited: float | None) -> str:
        """What a wait that was too short says; `future.id` itself may wait for the network."""
        id = self._known_id(future)
        return f"task {id} is {self._state_of(future, id)} after {waited or 0.0:.3g} s of waiting; it goes on"

    def _cancel(self, futures: list[Future[Any]], reason: str) -> None:
        if not self._shared.closed:
            self._native.cancel([future.id for future in futures], reason)

    def _logs(self, future: Future[Any], attempt: int, follow: bool) -> Iterator[str]:
        import codecs

        decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        try:
            reader = self._native.logs(self._known_id(future), attempt, follow)
            while (pieces := next(reader, None)) is not None:
                for piece in pieces:
                    if piece[0] in decoders:
                        text = decoders[piece[0]].decode(piece[1])
                        if text:
                            yield text
                    elif piece[0] == "dropped":
                        yield f"\n[{piece[1]} bytes of output beyond log_limit were not kept]\n"
        except KeyboardInterrupt:
            self._detached_by_user(future)
            raise

    def _let_the_network_know(self) -> None:
        """A question about a task that is still on its way there would find nothing."""
        if self._native.unacknowledged():
            self._native.wait_acknowledged(ACKNOWLEDGE_SECONDS)

    def _explain(self, future: Future[Any]) -> dict[str, Any]:
        return self._native.explain(self._known_id(future))

    def _known_id(self, future: Future[Any]) -> str:
        """For questions, which wait for the acknowledgement themselves: `future.id` may wait for it, too."""
        return future._id or self._native.task_id(future._seq)

    def _detached_by_user(self, future: Future[Any] | None) -> None:
        """The first Ctrl-C while waiting: the work goes on, and how to find it again is said once."""
        shared = self._shared
        shared.detached = True
        if shared.told:
            return
        shared.told = True
        waiting = [f for f in self._native.waiting() if isinstance(f, Future)]
        if future is None and waiting:
            future = waiting[0]
        if future is None:
            return
        others = f" and {len(waiting) - 1} more go on" if len(waiting) > 1 else " goes on"
        print(
            f"\nDetached: task {future.id}{others} without you.\n"
            f"  to wait for it again:  farlane.Client().attach({future.id!r}).result()\n"
            f"  to cancel it:          farlane cancel {future.id}",
            file=sys.stderr,
        )

    # ---- the end --------------------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the session. With `wait`, after every future has landed; without, once the network has
        acknowledged what was submitted: it goes on, and `attach` finds it.

        Raises ConnectionError where nothing is acknowledged for 10 s; it says how many calls were lost, and their
        futures end with it.
        """
        shared = self._shared
        if shared.closed or shared.pid != os.getpid():
            return
        if cancel_futures:
            self._cancel([f for f in self._native.waiting() if isinstance(f, Future)], "shutdown")
        try:
            if wait and not shared.detached:
                self._native.wait_idle(_FOREVER)
            else:
                self._native.settle(ACKNOWLEDGE_SECONDS)
        except KeyboardInterrupt:
            self._detached_by_user(None)
            raise
        except FarlaneError as lost:
            if isinstance(lost, ConnectionError) and not shared.detached:
                raise
            # An interrupt is not to be hidden; another error has ended the session, and its futures, before.
            print(f"farlane: {lost}", file=sys.stderr)
        finally:
            shared.closed = True
            self._native.close()

    def __exit__(self, kind: Any, error: Any, frames: Any) -> None:
        if isinstance(error, KeyboardInterrupt):
            # Wherever it struck, also in the standard library's waits: not to be struck a second time here.
            self._detached_by_user(None)
        self.shutdown(wait=True)

    def nodes(self) -> list[tuple[str, str, bool, int, int]]:
        """The network's nodes: name, region, online, running, leased."""
        return self._native.nodes()


def _futures(name: str, given: Iterable[Future[T]]) -> list[Future[T]]:
    """The futures of one iterable, all of them Farlane's."""
    if isinstance(given, Future) or not isinstance(given, Iterable):
        raise OptionError(f"{name} takes one iterable of futures, like {name}([a, b]), not {given!r}")
    futures = list(given)
    for future in futures:
        if not isinstance(future, Future):
            raise OptionError(f"{name} takes futures that submit() gave, not {future!r}")
    return futures


def default_client() -> Client:
    """The client of `fn.remote()` and the module's own functions, made when first needed."""
    global _default
    with _default_lock:
        if _default is None or _default._shared.closed or _default._shared.pid != os.getpid():
            _default = Client()
        return _default


def as_completed(futures: Iterable[Future[T]], timeout: float | None = None) -> Iterator[Future[T]]:
    """The futures, as they end."""
    futures = _futures("as_completed", futures)
    return futures[0]._client.as_completed(futures, timeout) if futures else iter(())


def gather(futures: Iterable[Future[T]], return_exceptions: bool = False) -> list[T]:
    """The results in order."""
    futures = _futures("gather", futures)
    return futures[0]._client.gather(futures, return_exceptions) if futures else []


def attach(id: str) -> Future[Any]:
    """The future of any task of the default client's project."""
    return default_client().attach(id)


@atexit.register
def _at_exit() -> None:
    """Nothing submitted is lost by leaving: acknowledgements are awaited, and what goes on is said."""
    for shared in list(_clients):
        if shared.closed or shared.pid != os.getpid():
            continue
        native = shared.native
        try:
            lost = None
            try:
                native.settle(ACKNOWLEDGE_SECONDS)
            except FarlaneError as error:
                lost = error
            left = native.awaited() - native.unacknowledged()
            if left > 0 and not shared.told:
                print(f"farlane: {left} tasks go on; `farlane tasks` lists them", file=sys.stderr)
            if lost is not None and native.unacknowledged():
                print(f"farlane: {lost}", file=sys.stderr)
        except KeyboardInterrupt:
            pass
        shared.closed = True
        native.close()
    silence()
