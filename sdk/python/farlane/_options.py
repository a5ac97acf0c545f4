"""Options of a call: names, bounds, and what they become.

Owns the check of every option and the nearest name for one that does not exist. Leaves environments to
`_env.py`.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, Union

from ._errors import OptionError

if TYPE_CHECKING:
    from ._env import Env
    from ._future import Future
    from ._place import Label, Wish

Size = Union[int, float, str]


class Options(TypedDict, total=False):
    """What `@remote(...)`, `fn.options(...)` and `client.with_options(...)` take."""

    num_cpus: float
    memory: Size
    scratch: Size
    num_gpus: float | None
    gpu: str | None
    gpu_memory: Size | None
    resources: Mapping[str, int]
    regions: str | Iterable[str]
    residency: str | Iterable[str]
    providers: str | Iterable[str]
    labels: Mapping[str, Label]
    not_labels: Mapping[str, Label]
    keep_on: str | Future[Any] | Iterable[str | Future[Any]]
    max_price: float | None
    max_carbon: float | None
    tag: str | None
    spread: str | None
    affinity: Wish | Iterable[Wish]
    anti_affinity: Wish | Iterable[Wish]
    gang_regions: str
    max_retries: int
    retry_exceptions: bool | int
    timeout: float | None
    deadline: float | None
    queue_timeout: float | None
    result_ttl: float | None
    grace: float
    policy: str | None
    flops: float | None
    bytes: Size | None
    precision: str
    priority: int
    env: Env | None
    idempotency_key: str | None
    at_most_once: bool
    encryption: str
    sandbox: str
    log_limit: Size
    name: str | None


# One core and a memory that holds a scientific stack; docs/guide/calls.md lists them.
DEFAULTS: dict[str, Any] = {
    "num_cpus": 1,
    "memory": "1GiB",
    "scratch": "1GiB",
    "num_gpus": None,
    "gpu": None,
    "gpu_memory": None,
    "resources": {},
    "regions": (),
    "residency": (),
    "providers": (),
    "labels": {},
    "not_labels": {},
    "keep_on": (),
    "max_price": None,
    "max_carbon": None,
    "tag": None,
    "spread": None,
    "affinity": (),
    "anti_affinity": (),
    "gang_regions": "one",
    "max_retries": 3,
    "retry_exceptions": 0,
    "timeout": None,
    "deadline": None,
    "queue_timeout": None,
    "result_ttl": None,
    "grace": 10,
    "policy": None,
    "flops": None,
    "bytes": None,
    "precision": "fp32",
    "priority": 0,
    "env": None,
    "idempotency_key": None,
    "at_most_once": False,
    "encryption": "sealed",
    "sandbox": "default",
    "log_limit": "1MiB",
    "name": None,
}

# Ten years, as for the options: what the system's clocks can add.
_LONGEST_WAIT = 3.2e8

# farlane_model::PolicyName and WorkKind.
_POLICIES = ("balanced", "fast", "cheap", "green")
_PRECISIONS = ("fp32", "bf16", "int8")
# farlane_model::Declared: the most operations or bytes of an attempt.
_MOST_WORK = 2**63

# farlane_model::Tier. "default" lets the network choose at least a namespace sandbox where the node can.
_TIERS = {"process": 0, "default": 0, "namespaces": 1, "gvisor": 2, "microvm": 3}


def check_names(given: Mapping[str, Any]) -> None:
    """Refuses an option that does not exist, naming the nearest that does."""
    for name in given:
        if name in DEFAULTS:
            continue
        import difflib

        near = difflib.get_close_matches(name, DEFAULTS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; options are {', '.join(DEFAULTS)}"
        raise OptionError(f"there is no option {name!r}{hint}")


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers win; every name and value is checked."""
    merged = dict(DEFAULTS)
    for layer in layers:
        check_names(layer)
        merged.update(layer)
    return merged


def size(name: str, value: Size) -> int:
    """Bytes of a number or a text like "16GiB"."""
    if isinstance(value, str):
        from ._farlane import parse_size

        try:
            return parse_size(value)
        except ValueError as error:
            raise OptionError(f"{name}: {error}") from None
    number = _plain(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < 1 << 63:
        raise OptionError(f"{name} must be a number of bytes or a text like '16GiB', not {value!r}")
    return int(number)


def _plain(value: Any) -> Any:
    """numpy's whole numbers as Python's."""
    return value if isinstance(value, bool) or not hasattr(value, "__index__") else operator.index(value)


def _number(name: str, value: Any, low: float, high: float) -> float:
    number = _plain(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not low <= number <= high:
        raise OptionError(f"{name} must be a number between {low:g} and {high:g}, not {value!r}")
    return float(number)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    number = _number(name, value, low, high)
    if number != int(number):
        raise OptionError(f"{name} must be a whole number, not {value!r}")
    return int(number)


def _seconds(name: str, value: Any) -> int | None:
    """Milliseconds; 10 years at most, so that sums stay in range."""
    if value is None:
        return None
    total = getattr(value, "total_seconds", None)
    seconds = _number(name, total() if callable(total) else value, 0, 3.2e8)
    if seconds == 0:
        raise OptionError(f"{name} must be longer than 0 s")
    return max(1, round(seconds * 1000))


def number(name: str, value: Any, low: float, high: float) -> float:
    """A number within bounds."""
    return _number(name, value, low, high)


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number within bounds, also one of numpy's."""
    return _whole(name, value, low, high)


def patience(name: str, value: Any) -> float | None:
    """Seconds to wait; None waits without end. As in the standard library, below zero is as zero."""
    total = getattr(value, "total_seconds", None)
    seconds = total() if callable(total) else _plain(value)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds < _LONGEST_WAIT:
        raise OptionError(f"{name} must be a number of seconds, or None to wait without end, not {value!r}")
    return max(0.0, float(seconds))


def text(name: str, value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise OptionError(f"{name} must be a text, not {value!r}")
    return value


def _retry_exceptions(value: Any, max_retries: int) -> int:
    if isinstance(value, bool):
        return max_retries if value else 0
    if not isinstance(value, int):
        raise OptionError(
            "retry_exceptions must be True, False or a number of retries; which exception a task raised "
            f"is sealed, so the network cannot choose by type: {value!r}"
        )
    return _whole("retry_exceptions", value, 0, 1000)


def native(options: Mapping[str, Any], function: str, gang: int = 0) -> dict[str, Any]:
    """The form that the Rust half takes: everything filled in, in plain units. `gang` calls run at once; 0: each alone."""
    from . import _place

    if options["encryption"] not in ("sealed", "forward-secret"):
        raise OptionError(f"encryption must be 'sealed' or 'forward-secret', not {options['encryption']!r}")
    if not isinstance(options["sandbox"], str) or options["sandbox"] not in _TIERS:
        _place.choice("sandbox", options["sandbox"], _TIERS)
    if options["policy"] is not None and options["policy"] not in _POLICIES:
        _place.choice("policy", options["policy"], _POLICIES)
    if options["precision"] not in _PRECISIONS:
        _place.choice("precision", options["precision"], _PRECISIONS)
    if not isinstance(options["at_most_once"], bool):
        raise OptionError(f"at_most_once must be True or False, not {options['at_most_once']!r}")
    if options["gang_regions"] not in ("one", "any"):
        _place.choice("gang_regions", options["gang_regions"], ("one", "any"))
    if gang and options["at_most_once"]:
        raise OptionError("a gang begins again as a whole when a member is lost, so it cannot run at_most_once")
    max_retries = _whole("max_retries", options["max_retries"], 0, 1000)
    for text in ("name", "idempotency_key"):
        if options[text] is not None and (not isinstance(options[text], str) or not options[text]):
            raise OptionError(f"{text} must be a text, not {options[text]!r}")
    env = options["env"]
    if env is not None and not hasattr(env, "is_bare"):
        raise OptionError(f"env must be a farlane.Env, like fl.Env(requirements=[...]), not {env!r}")
    python = env.python if env is not None else sys.version_info[:2]
    name = options["name"] or function
    return {
        "function": name.encode(errors="replace")[:256].decode(errors="ignore"),
        "milli_cpus": round(_number("num_cpus", options["num_cpus"], 0.001, 1024) * 1000),
        "memory": size("memory", options["memory"]),
        "scratch": size("scratch", options["scratch"]),
        **_place.native(options),
        "gang": gang,
        "gang_anywhere": options["gang_regions"] == "any",
        "python": python,
        "tier": _TIERS[options["sandbox"]],
        "max_retries": 0 if options["at_most_once"] else max_retries,
        "retry_exceptions": 0 if options["at_most_once"] else _retry_exceptions(options["retry_exceptions"], max_retries),
        "at_most_once": options["at_most_once"],
        "timeout_ms": _seconds("timeout", options["timeout"]),
        "deadline_ms": _seconds("deadline", options["deadline"]),
        "queue_timeout_ms": _seconds("queue_timeout", options["queue_timeout"]),
        "result_ttl_ms": _seconds("result_ttl", options["result_ttl"]),
        "grace_ms": None if options["grace"] == DEFAULTS["grace"] else round(_number("grace", options["grace"], 0, 60) * 1000),
        "policy": options["policy"],
        "flops": 0 if options["flops"] is None else round(_number("flops", options["flops"], 1, _MOST_WORK)),
        "bytes": 0 if options["bytes"] is None else size("bytes", options["bytes"]),
        "precision": options["precision"],
        "priority": _whole("priority", options["priority"], -100, 100),
        "forward_secret": options["encryption"] == "forward-secret",
        "log_limit": size("log_limit", options["log_limit"]),
    }
