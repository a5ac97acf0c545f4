"""Gangs: calls that run at once or not at all.

Owns how a gang is gathered and submitted as one. Leaves single calls to `_client.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ._errors import OptionError
from ._future import Future
from ._pickling import buffer_bytes, dump_arguments

if TYPE_CHECKING:
    from ._client import Client
    from ._farlane import Argument, Spec

# farlane_model::MAX_GANG.
MAX_GANG = 256


def submit(client: Client, fn: Callable[..., Any], iterables: tuple[Iterable[Any], ...]) -> list[Future[Any]]:
    """One call for each item, as one gang; the futures by rank."""
    if not iterables:
        raise OptionError("gang needs at least one iterable, like client.gang(fn, range(8))")
    # One more than there may be, so that an endless iterable is refused rather than read.
    rows = list(itertools.islice(zip(*iterables), MAX_GANG + 1))
    if not 1 <= len(rows) <= MAX_GANG:
        raise OptionError(f"a gang has 1 to {MAX_GANG} members, one for each item; this has {_count(rows)}")
    client._shared.check_open()
    options = getattr(fn, "_farlane_options", None)
    function: Any = getattr(fn, "_farlane_function", fn)
    if not callable(function):
        raise OptionError(f"the first argument of gang is a function, not {fn!r}")
    spec = _spec(client, function, options, len(rows))
    key = (options or {}).get("idempotency_key") or client._options.get("idempotency_key")
    futures: list[Future[Any]] = []
    members: list[tuple[bytes, object, list[tuple[bool, Argument]], str | None]] = []
    for rank, row in enumerate(rows):
        data, buffers = dump_arguments(row, {})
        future: Future[Any] = Future(client)
        future._may_be_earlier = key is not None
        blobs = [(readonly, client._native.argument(plain)) for readonly, plain in map(buffer_bytes, buffers)]
        members.append((data, future, blobs, None if key is None else f"{key}#{rank}"))
        futures.append(future)
    first = client._native.gang(spec, members)
    for rank, future in enumerate(futures):
        future._seq = first + rank
    return futures


def _spec(client: Client, function: Any, options: dict[str, Any] | None, size: int) -> Spec:
    handle = client._handles.get(function)
    key = (client._options_key, id(options), size)
    spec = handle.specs.get(key)
    if spec is None:
        spec = client._handles.spec(handle, key, client._merged(options), size)
        # Their ids are keys: they live as long as the handle.
        handle.keep.append((client._options, options))
    return spec


def _count(rows: list[Any]) -> str:
    return "none" if not rows else f"more than {MAX_GANG}"
