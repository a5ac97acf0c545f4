"""What a task raised, raised again here.

Owns the way from the sealed record of docs/design/payload.md to an exception with its type, arguments, causes and
remote frames. Frames are real ones, so that every traceback shows them with their source lines.
"""

from __future__ import annotations

import builtins
import linecache
import pickle
import re
import sys
from types import FrameType, FunctionType, TracebackType
from typing import Any

from . import _errors
from ._errors import EnvMismatch, FarlaneError, Infeasible, QueueTimeout, TaskError, TaskTimeout, WorkerLost

# A frame's head in a traceback, as Python prints it.
_FRAME = re.compile(r'^( *)File "(.+)", line (\d+)')
# Lines of one remote file kept for tracebacks: beyond, numbers are shown without source.
_MAX_LINE = 200_000


def rebuild(record: dict[str, Any], trusted: bool) -> BaseException:
    """The exception of a record; pickles in it are loaded only where the provider is one's own."""
    first: BaseException | None = None
    previous: BaseException | None = None
    for entry in record.get("chain", ()):
        error = _one(entry, trusted)
        error.__traceback__ = _traceback(entry.get("frames", ()))
        if previous is None:
            first = error
        elif entry.get("relation") == "cause":
            previous.__cause__ = error
        else:
            previous.__context__ = error
        previous = error
    if first is None:
        return TaskError("the task raised an exception that says nothing of itself")
    _hint(first, record)
    return first


def _one(entry: dict[str, Any], trusted: bool) -> BaseException:
    pickled = entry.get("pickle")
    if trusted and pickled:
        try:
            error = pickle.loads(pickled)
        except Exception:
            error = None  # Its class is not known here.
        if isinstance(error, BaseException):
            return error
    module, name = str(entry.get("module", "")), str(entry.get("type", "Exception"))
    message, args = str(entry.get("message", "")), tuple(entry.get("args", ()))
    if module == "farlane":
        found = getattr(_errors, name, None)
        if isinstance(found, type) and issubclass(found, FarlaneError):
            return found(message)
    if trusted and module == "builtins":
        found = getattr(builtins, name, None)
        if isinstance(found, type) and issubclass(found, BaseException):
            try:
                return found(*args)
            except Exception:
                pass  # Its arguments were no plain values.
    qualified = name if module in ("", "builtins") else f"{module}.{name}"
    return TaskError(f"{qualified}: {message}" if message else qualified, qualified, args)


def _hint(error: BaseException, record: dict[str, Any]) -> None:
    """A missing module is the commonest first mistake."""
    if isinstance(error, ModuleNotFoundError) or getattr(error, "type_name", "") == "ModuleNotFoundError":
        missing = getattr(error, "name", None) or "the module"
        note = f"{missing} is not installed on the node; give the task an environment: env=fl.Env(requirements=[...])"
        if sys.version_info >= (3, 11):
            error.add_note(note)
        elif isinstance(error, ImportError):
            error.msg = f"{error.msg} ({note})"
        elif error.args and isinstance(error.args[0], str):
            error.args = (f"{error.args[0]} ({note})", *error.args[1:])


def _template() -> FrameType:
    return sys._getframe()


def _traceback(frames: Any) -> TracebackType | None:
    """Frames that name the remote files, outermost first; the remote code itself is not here."""
    made: TracebackType | None = None
    for file, line, function, source in reversed(list(frames)):
        name = f"{file} (remote)"
        _remember(name, int(line), source_line(str(file), int(line), str(source)))
        code = _template.__code__.replace(co_filename=name, co_name=str(function), co_firstlineno=max(1, int(line)))
        if sys.version_info >= (3, 11):
            code = code.replace(co_qualname=str(function))
        frame = FunctionType(code, {"sys": sys, "__name__": "remote"})()
        # No instruction: the positions of the template's code would mark columns that mean nothing.
        made = TracebackType(made, frame, -1, max(1, int(line)))
    return made


def source_line(file: str, line: int, source: str) -> str:
    """A frame's source: what the node had, or for a function that travelled by value, this machine's file."""
    return source or linecache.getline(file, line).strip()


def with_sources(text: str) -> str:
    """A traceback's text with the source lines that the node did not have."""
    out: list[str] = []
    lines = text.splitlines()
    for i, line in enumerate(lines):
        out.append(line)
        found = _FRAME.match(line)
        if found is None:
            continue
        indent = len(found[1])
        following = lines[i + 1] if i + 1 < len(lines) else ""
        if len(following) - len(following.lstrip()) <= indent:
            source = linecache.getline(found[2], int(found[3])).strip()
            if source:
                out.append(" " * (indent + 2) + source)
    return "\n".join(out) + "\n"


def _remember(name: str, line: int, source: str) -> None:
    if not 0 < line <= _MAX_LINE or not source:
        return
    known = linecache.cache.get(name)
    lines = list(known[2]) if known is not None and len(known) == 4 else []
    if len(lines) < line:
        lines.extend(["\n"] * (line - len(lines)))
    lines[line - 1] = source.rstrip("\n") + "\n"
    linecache.cache[name] = (sum(map(len, lines)), None, lines, name)


_LOST = {
    "signal": "its worker was killed by signal {detail}",
    "exit": "its worker left with exit code {detail}",
    "out_of_memory": "its worker used more memory than the task asked for; raise `memory`",
    "scratch_full": "its scratch space was used up; raise `scratch`",
    "lease_expired": "its node was not heard of for the time of a lease",
    "node_restarted": "its node's agent started anew",
    "node_removed": "its node was removed",
    "gang_broken": "another member of its gang was lost, or ended without a result",
    "preempted": "it made way for more urgent work",
    "sandbox": "its sandbox could not be made, or the worker broke its protocol",
}


def ended(kind: str, cause: str, detail: int, message: str) -> FarlaneError:
    """The error of a task that ended without a value."""
    if kind == "lost":
        why = _LOST.get(cause, "its worker went away").format(detail=detail)
        return WorkerLost(f"{why}: {message}" if message else why, cause, detail)
    if kind == "timed_out":
        return TaskTimeout(message or "the attempt ran longer than its timeout")
    if kind == "expired":
        late_queue = "queue" in message.lower()
        return QueueTimeout(message) if late_queue else TaskTimeout(message or "the deadline passed")
    if kind == "infeasible":
        return Infeasible(message or "no node of the network can run this")
    if kind == "refused":
        lower = message.lower()
        if "python" in lower or "interpreter" in lower or "environment" in lower:
            return EnvMismatch(message)
        return TaskError(f"the node refused the task: {message}")
    return TaskError(message or f"the task ended: {kind}")
