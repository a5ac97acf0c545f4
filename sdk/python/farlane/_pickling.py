"""Functions and arguments as bytes.

Owns what is pickled by value, when a function must be pickled again, which buffers leave on their own, and
naming what cannot be pickled. Leaves sealing to the Rust half; formats are in docs/design/payload.md.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from ._errors import PayloadTooLarge, SerializationError

# Types that the C pickler takes as they are, and that hold nothing of this process.
_PLAIN = frozenset({int, float, bool, str, type(None), complex})
_CONTAINERS = frozenset({list, tuple, dict})
# Looking into larger or deeper containers costs more than the general pickler does (10 us, measured 2026-11-22).
_PLAIN_ITEMS = 64
_PLAIN_DEPTH = 3
# docs/design/payload.md: buffers from this size leave as blobs.
MIN_BLOB = 1 << 20
# The largest that a node takes in one piece: MAX_BLOB_BYTES of sdk/rust/src/options.rs.
MAX_BLOB = 2 << 30
_MISSING = object()
# How deep the search for what cannot be pickled goes, and how many nodes it looks at.
_SEARCH_DEPTH = 12
_SEARCH_NODES = 10_000

dumps = pickle.dumps


def dump_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """The pickle of `(args, kwargs)`, and its large buffers in their order."""
    if _all_plain(args) and (not kwargs or _all_plain(kwargs.values())):
        data = dumps((args, kwargs), 5)
        if len(data) > MAX_BLOB:
            raise too_large("the arguments", _arguments(args, kwargs), len(data))
        return data, []
    args = tuple(_out_of_band(arg) for arg in args)
    kwargs = {name: _out_of_band(arg) for name, arg in kwargs.items()}
    import cloudpickle

    buffers: list[pickle.PickleBuffer] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < MIN_BLOB:
            return True
        buffers.append(buffer)
        return False

    try:
        data = cloudpickle.dumps((args, kwargs), 5, buffer_callback=keep_in_band)
    except Exception as error:
        raise unpicklable("argument", _arguments(args, kwargs), error) from error
    largest = max(len(data), *(buffer.raw().nbytes for buffer in buffers), 0)
    if largest > MAX_BLOB:
        raise too_large("the arguments", _arguments(args, kwargs), largest)
    return data, buffers


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by how a person would call them."""
    named = {f"args[{i}]": arg for i, arg in enumerate(args)}
    named.update({f"kwargs[{name!r}]": arg for name, arg in kwargs.items()})
    return named


def _all_plain(values: Iterable[Any], depth: int = 0) -> bool:
    plain = _PLAIN
    for value in values:
        kind = type(value)
        if kind in plain:
            continue
        # Small containers of plain things, and small bytes.
        if kind is bytes:
            if len(value) >= MIN_BLOB:
                return False
        elif depth >= _PLAIN_DEPTH or len(value) > _PLAIN_ITEMS if kind in _CONTAINERS else True:
            return False
        elif kind is dict:
            if not (_all_plain(value, depth + 1) and _all_plain(value.values(), depth + 1)):
                return False
        elif not _all_plain(value, depth + 1):
            return False
    return True


def _out_of_band(value: Any) -> Any:
    """A large top-level bytes object travels as a buffer and arrives as what it was."""
    if type(value) in (bytes, bytearray) and len(value) >= MIN_BLOB:
        return pickle.PickleBuffer(value)
    return value


def buffer_bytes(buffer: pickle.PickleBuffer) -> tuple[bool, bytes]:
    """Whether a buffer is read-only, and its bytes (copied unless they are `bytes` already)."""
    raw = buffer.raw()
    owner = raw.obj
    if type(owner) is bytes and len(owner) == raw.nbytes:
        return True, owner
    return raw.readonly, bytes(raw)


def dump_function(function: Callable[..., Any]) -> bytes:
    """cloudpickle of a function; modules outside site-packages by value."""
    import cloudpickle

    _register_own_modules()
    try:
        data = bytes(cloudpickle.dumps(function, 5))
    except Exception as error:
        raise unpicklable("function", _captured(function), error) from error
    if len(data) > MAX_BLOB:
        raise too_large("the function with what it captures", _captured(function), len(data))
    return data


# ---- by value -------------------------------------------------------------------------------------------------

_seen_modules: set[str] = set()
_library_roots: tuple[str, ...] | None = None


def _roots() -> tuple[str, ...]:
    global _library_roots
    if _library_roots is None:
        import os
        import site
        import sysconfig

        paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
        paths.update(site.getsitepackages() if hasattr(site, "getsitepackages") else ())
        paths.add(site.getusersitepackages())
        paths.add(os.path.dirname(os.path.abspath(__file__)))
        real = {os.path.realpath(path) for path in paths if path}
        _library_roots = tuple(sorted(path.rstrip(os.sep) + os.sep for path in real | {p for p in paths if p}))
    return _library_roots


def is_own(module: ModuleType) -> bool:
    """Whether a module is the user's: nodes do not have it, so it travels by value."""
    file = getattr(module, "__file__", None)
    if file is None or module.__name__.partition(".")[0] in ("__main__", "farlane", "cloudpickle"):
        return False
    import os

    path = os.path.realpath(file)
    if "site-packages" in path or "dist-packages" in path:
        return False
    return not path.startswith(_roots())


def _register_own_modules() -> None:
    """Tells cloudpickle about own modules imported since the last call."""
    import cloudpickle

    for name, module in list(sys.modules.items()):
        if name in _seen_modules or not isinstance(module, ModuleType):
            continue
        _seen_modules.add(name)
        if is_own(module):
            cloudpickle.register_pickle_by_value(module)


# ---- again? ---------------------------------------------------------------------------------------------------

Watch = tuple[dict[str, Any], str, Any]


class Captured:
    """What a pickled function holds of this process, to tell by identity whether it was rebound."""

    __slots__ = ("cells", "names")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.names: list[Watch] = []
        self.cells: list[tuple[Any, Any]] = []
        self._watch(function, set())

    def is_current(self) -> bool:
        """Whether every global and cell is still bound to the same object."""
        for namespace, name, value in self.names:
            if namespace.get(name, _MISSING) is not value:
                return False
        for cell, value in self.cells:
            try:
                if cell.cell_contents is not value:
                    return False
            except ValueError:
                if value is not _MISSING:
                    return False
        return True

    def _watch(self, value: Any, seen: set[int]) -> None:
        function = _plain_function(value)
        if function is None or id(function) in seen or len(seen) > 1000 or not _by_value(function):
            return
        seen.add(id(function))
        namespace = function.__globals__
        for name in _global_names(function.__code__):
            if name in namespace:
                self.names.append((namespace, name, namespace[name]))
                self._watch(namespace[name], seen)
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:
                content = _MISSING
            self.cells.append((cell, content))
            self._watch(content, seen)


def _plain_function(value: Any) -> FunctionType | None:
    value = getattr(value, "_farlane_function", value)
    while isinstance(value, MethodType):
        value = value.__func__
    return value if isinstance(value, FunctionType) else None


def _by_value(function: FunctionType) -> bool:
    module = sys.modules.get(function.__module__ or "")
    if module is None or function.__module__ == "__main__" or "<locals>" in function.__qualname__:
        return True
    return is_own(module) or function.__name__ == "<lambda>"


def _global_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _captured(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function drags along, by how a person would call it."""
    plain = _plain_function(function)
    if plain is None:
        return {"the callable": function}
    named: dict[str, Any] = {}
    for name in _global_names(plain.__code__):
        if name in plain.__globals__:
            named[f"global {name!r}"] = plain.__globals__[name]
    for name, cell in zip(plain.__code__.co_freevars, plain.__closure__ or ()):
        try:
            named[f"captured variable {name!r}"] = cell.cell_contents
        except ValueError:
            pass
    for i, default in enumerate(plain.__defaults__ or ()):
        named[f"default argument {i}"] = default
    return named


# ---- what cannot be pickled -----------------------------------------------------------------------------------


def unpicklable(what: str, named: dict[str, Any], error: BaseException) -> SerializationError:
    """An error that names the path to what cannot be pickled."""
    budget = [_SEARCH_NODES]
    for path, value in named.items():
        if _fails(value) is None:
            continue
        path, value = _narrow(path, value, 0, budget, lambda value: _fails(value) is not None)
        return SerializationError(f"{what} cannot be pickled: {path} is {_describe(value)}: {_fails(value)}")
    return SerializationError(f"{what} cannot be pickled: {error}")


def too_large(what: str, named: dict[str, Any], size: int) -> PayloadTooLarge:
    """An error that names the path to what is larger than a node takes in one piece."""
    budget = [_SEARCH_NODES]
    for path, value in named.items():
        if _largest(value) > MAX_BLOB:
            path, value = _narrow(path, value, 0, budget, lambda value: _largest(value) > MAX_BLOB)
            value = value.raw().obj if isinstance(value, pickle.PickleBuffer) else value
            what, size = f"{path}, {_describe(value)},", _largest(value)
            break
    return PayloadTooLarge(
        f"{what} cannot be sent: {size} bytes in one piece, where a node takes at most {MAX_BLOB}; "
        "split it over several arguments or calls"
    )


def _largest(value: Any) -> int:
    """Bytes of the largest piece that a value would leave as; 0 where it cannot be pickled by itself."""
    import cloudpickle

    buffers: list[pickle.PickleBuffer] = []
    try:
        data = cloudpickle.dumps(_out_of_band(value), 5, buffer_callback=buffers.append)
    except Exception:
        return 0
    return max(len(data), *(buffer.raw().nbytes for buffer in buffers), 0)


def _fails(value: Any) -> BaseException | None:
    import cloudpickle

    try:
        cloudpickle.dumps(value, 5)
    except Exception as error:
        return error
    return None


def _narrow(
    path: str, value: Any, depth: int, budget: list[int], fails: Callable[[Any], bool]
) -> tuple[str, Any]:
    """Follows the failing part downwards as long as one child fails by itself."""
    if depth < _SEARCH_DEPTH:
        for child_path, child in _children(path, value):
            budget[0] -= 1
            if budget[0] <= 0:
                break
            if type(child) not in _PLAIN and fails(child):
                return _narrow(child_path, child, depth + 1, budget, fails)
    return path, value


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield f"{path}[{_short(key)}]", child
    elif isinstance(value, (list, tuple)):
        for i, child in enumerate(value):
            yield f"{path}[{i}]", child
    elif isinstance(value, (set, frozenset)):
        for child in value:
            yield f"{path}{{{_short(child)}}}", child
    elif type(value).__module__.partition(".")[0] != "farlane":
        try:
            attributes = vars(value)
        except TypeError:
            return
        if not isinstance(value, (type, ModuleType, FunctionType)):
            for name, child in attributes.items():
                yield f"{path}.{name}", child


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."


def _describe(value: Any) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"a {name}"
