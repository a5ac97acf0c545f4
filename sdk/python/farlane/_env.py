"""Environments: what a task finds installed.

Owns resolving requirements to a hashed lock, once, on this machine. Leaves building it to the nodes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ._errors import EnvBuildFailed, OptionError

_PYTHON = re.compile(r"^(\d+)\.(\d+)(?:\.\d+)?$")
# A resolution downloads metadata only; this covers a slow index.
_RESOLVE_TIMEOUT = 300
# Bump when what is cached, or how it is resolved, changes.
_CACHE_VERSION = "1"


class Env:
    """An environment of wheels, the same on every node.

    `requirements` are resolved to a lock with hashes when the environment is first used; or `lock` is one
    already: text, or the path of a requirements file in which every line has its hashes.
    """

    def __init__(
        self,
        python: str | None = None,
        requirements: Iterable[str] | None = None,
        *,
        lock: str | os.PathLike[str] | None = None,
        index_url: str | None = None,
    ) -> None:
        if isinstance(requirements, str):
            raise OptionError("requirements must be a list of texts, like ['numpy>=2', 'scikit-learn']")
        if lock is not None and requirements is not None:
            raise OptionError("an Env has requirements or a lock, not both")
        self.python: tuple[int, int] = _version(python)
        self.requirements: tuple[str, ...] = tuple(requirements or ())
        self.index_url = index_url
        self._lock = None if lock is None else _read_lock(lock)

    def __repr__(self) -> str:
        python = ".".join(map(str, self.python))
        what = f", requirements={list(self.requirements)}" if self.requirements else ""
        return f"Env(python={python!r}{what}{', lock=…' if self._lock and not what else ''})"

    @property
    def is_bare(self) -> bool:
        """Whether it asks for an interpreter and nothing else."""
        return not self.requirements and not self._lock

    def lock(self) -> str:
        """The hashed lock; resolved at the first call, then from memory or this user's cache.

        Raises `EnvBuildFailed` with what the resolver said.
        """
        if self._lock is None:
            self._lock = _resolve(self.python, self.requirements, self.index_url)
        return self._lock


def _version(python: str | None) -> tuple[int, int]:
    if python is None:
        return sys.version_info[0], sys.version_info[1]
    match = _PYTHON.match(str(python))
    if match is None:
        raise OptionError(f"python must be like '3.12', not {python!r}")
    return int(match[1]), int(match[2])


def _read_lock(lock: str | os.PathLike[str]) -> str:
    is_text = isinstance(lock, str) and ("\n" in lock or "--hash" in lock)
    text = str(lock) if is_text else Path(lock).read_text(encoding="utf-8")
    check_lock(text)
    return text


def check_lock(text: str) -> None:
    """Refuses a lock with a requirement that has no hash."""
    joined = re.sub(r"\\\n", " ", text)
    for line in joined.splitlines():
        line = line.split(" #")[0].strip()
        if not line or line.startswith(("#", "--")):
            continue
        if "--hash=" not in line:
            raise OptionError(f"the lock's line {line!r} has no hash; make one with `uv pip compile --generate-hashes`")


def find_uv() -> str:
    """The pinned uv: the one this package depends on, else the one in PATH."""
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        pass
    import shutil

    found = shutil.which("uv")
    if found is None:
        raise EnvBuildFailed("uv is needed to resolve requirements and was not found; `pip install uv`")
    return found


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "farlane" / "locks"


def _resolve(python: tuple[int, int], requirements: Sequence[str], index_url: str | None) -> str:
    if not requirements:
        return ""
    import hashlib

    version = ".".join(map(str, python))
    key = "\0".join([_CACHE_VERSION, version, index_url or "", *sorted(requirements)])
    path = _cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()}.txt"
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        pass
    lock = _compile(version, requirements, index_url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(lock, encoding="utf-8")
        part.replace(path)
    except OSError:
        pass  # A cache that cannot be written costs time only.
    return lock


def _compile(version: str, requirements: Sequence[str], index_url: str | None) -> str:
    import subprocess

    # Nodes run Linux; elsewhere the wheels to lock are not this machine's.
    platform = [] if sys.platform == "linux" else ["--python-platform", "linux"]
    index = [] if index_url is None else ["--index-url", index_url]
    command = [
        find_uv(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--generate-hashes",
        "--only-binary", ":all:", "--python-version", version, *platform, *index, "-",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, input="\n".join(requirements) + "\n", capture_output=True, text=True, timeout=_RESOLVE_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise EnvBuildFailed(f"resolving {list(requirements)} took longer than {_RESOLVE_TIMEOUT} s") from None
    if done.returncode != 0:
        said = done.stderr.strip()
        raise EnvBuildFailed(f"the requirements {list(requirements)} cannot be resolved for Python {version}:\n{said}", said)
    check_lock(done.stdout)
    return done.stdout
