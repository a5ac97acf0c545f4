"""Functions with options, and what the network knows of a function.

Owns `@remote` and the cache of handles: a function is pickled once, and again when a captured global or cell was
rebound.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from . import _options
from ._errors import OptionError
from ._options import Options

if TYPE_CHECKING:
    from typing import ParamSpec

    from typing_extensions import Unpack

    from ._client import Client
    from ._farlane import Code, Environment, Native, Spec
    from ._future import Future

    P = ParamSpec("P")
else:
    # ParamSpec is only there for type checkers: Generic needs a stand-in at run time.
    P = TypeVar("P")

R = TypeVar("R")

# Functions and pickles remembered by one client; beyond, the least recently used is pickled again.
_MAX_HANDLES = 1024


class RemoteFunction(Generic[P, R]):
    """A function with options: `f(...)` runs it here, `f.remote(...)` there."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        _options.check_names(options)
        if not callable(function):
            raise OptionError(f"@remote decorates a function, not {function!r}")
        self._farlane_function = function
        self._farlane_options = options
        functools.update_wrapper(self, function)

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

        def remote(self, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
            """Submits a call to the default client."""
            ...

    else:

        def __call__(self, *args, **kwargs):
            return self._farlane_function(*args, **kwargs)

        def remote(self, *args, **kwargs):
            """Submits a call to the default client."""
            from ._client import default_client

            return default_client().submit(self, *args, **kwargs)

    def options(self, **options: Unpack[Options]) -> RemoteFunction[P, R]:
        """The same function with other options; those given here win."""
        return RemoteFunction(self._farlane_function, {**self._farlane_options, **options})

    def __get__(self, instance: Any, owner: Any) -> Any:
        """A method's options go with it: `instance.method.remote(...)` and `client.submit(instance.method)`."""
        if instance is None:
            return self
        return RemoteFunction(MethodType(self._farlane_function, instance), self._farlane_options)

    def __reduce__(self) -> Any:
        # Inside a task it is the plain function: nodes need no Farlane to call it.
        import copy

        return copy.copy, (self._farlane_function,)

    def __repr__(self) -> str:
        name = getattr(self._farlane_function, "__qualname__", repr(self._farlane_function))
        return f"<remote function {name}>"


@overload
def remote(function: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def remote(**options: Unpack[Options]) -> Callable[[Callable[P, R]], RemoteFunction[P, R]]: ...
def remote(function: Any = None, /, **options: Any) -> Any:
    """Gives a function options for when it runs elsewhere; `@remote` and `@remote(memory="4GiB")` both work."""
    if function is not None:
        return RemoteFunction(function, options)
    _options.check_names(options)
    return lambda decorated: RemoteFunction(decorated, options)


class Handle:
    """A function as the network knows it: its code, and a spec for each set of options."""

    __slots__ = ("captured", "code", "function", "keep", "name", "specs")

    def __init__(self, function: Any, name: str, code: Code, captured: Any) -> None:
        self.function = function
        self.name = name
        self.code = code
        self.captured = captured
        self.specs: dict[Any, Spec] = {}
        # Whatever the keys of `specs` name by identity.
        self.keep: list[Any] = []


class Handles:
    """One client's functions."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._by_identity: OrderedDict[int, Handle] = OrderedDict()
        self._by_pickle: OrderedDict[bytes, Handle] = OrderedDict()
        self._environments: dict[int, tuple[Any, Environment]] = {}

    def get(self, function: Any) -> Handle:
        """The handle of a function, pickled anew where something it captured was rebound."""
        handle = self._by_identity.get(id(function))
        if handle is not None and handle.function is function:
            captured = handle.captured
            if captured is None or captured.is_current():
                return handle
        return self._make(function)

    def _make(self, function: Any) -> Handle:
        from . import _pickling

        captured = None
        cacheable = isinstance(function, (FunctionType, BuiltinFunctionType, type))
        if isinstance(function, FunctionType):
            # Taken before pickling: what is rebound meanwhile is noticed at the next call.
            captured = _pickling.Captured(function)
        pickled = _pickling.dump_function(function)
        handle = self._by_pickle.get(pickled)
        if handle is None or cacheable:
            code = handle.code if handle is not None else self._native.code(pickled)
            handle = Handle(function, _name(function), code, captured)
            _remember(self._by_pickle, pickled, handle)
        if cacheable:
            _remember(self._by_identity, id(function), handle)
        return handle

    def spec(self, handle: Handle, key: Any, options: dict[str, Any], gang: int = 0) -> Spec:
        """The spec of a handle under merged options; `key` tells sets of options apart, and sizes of gangs."""
        found = handle.specs.get(key)
        if found is not None:
            return found
        native = _options.native(options, handle.name, gang)
        spec = self._native.spec(native, handle.code, self._environment(options["env"]))
        if len(handle.specs) >= _MAX_HANDLES:
            handle.specs.clear()
            handle.keep.clear()
        handle.specs[key] = spec
        return spec

    def _environment(self, env: Any) -> Environment | None:
        if env is None:
            return None
        known = self._environments.get(id(env))
        if known is None:
            from ._env import Env

            if not isinstance(env, Env):
                raise OptionError(f"env must be a farlane.Env, not {env!r}")
            if env.is_bare:
                return None
            known = env, self._native.environment(env.lock(), env.python)
            self._environments[id(env)] = known
        return known[1]


def _remember(cache: OrderedDict[Any, Handle], key: Any, handle: Handle) -> None:
    cache[key] = handle
    if len(cache) > _MAX_HANDLES:
        cache.popitem(last=False)


def _name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(name).replace("<locals>.", "")
