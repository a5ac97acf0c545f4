import sys

import pytest

import farlane as fl
from farlane import _env

LOCK = "six==1.16.0 \\\n    --hash=sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254\n"


def test_python_is_this_one_or_a_minor_version():
    assert fl.Env().python == sys.version_info[:2]
    assert fl.Env(python="3.12").python == (3, 12)
    assert fl.Env(python="3.11.7").python == (3, 11)
    with pytest.raises(fl.OptionError, match="3.12"):
        fl.Env(python="three")


def test_a_lock_is_text_or_a_file_and_every_line_has_a_hash(tmp_path):
    path = tmp_path / "lock.txt"
    path.write_text(LOCK)
    assert fl.Env(lock=path).lock() == LOCK
    assert fl.Env(lock=LOCK).lock() == LOCK
    with pytest.raises(fl.OptionError, match="six==1.16.0.*no hash"):
        fl.Env(lock="six==1.16.0\nother==1\n")
    with pytest.raises(fl.OptionError, match="not both"):
        fl.Env(lock=LOCK, requirements=["six"])
    with pytest.raises(fl.OptionError, match="list"):
        fl.Env(requirements="six")


def test_requirements_are_resolved_once_and_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def compile_once(version, requirements, index_url):
        calls.append((version, tuple(requirements), index_url))
        return LOCK

    monkeypatch.setattr(_env, "_compile", compile_once)
    assert fl.Env(python="3.11", requirements=["six"]).lock() == LOCK
    assert fl.Env(python="3.11", requirements=["six"]).lock() == LOCK
    assert calls == [("3.11", ("six",), None)]
    fl.Env(python="3.12", requirements=["six"]).lock()
    fl.Env(python="3.11", requirements=["six"], index_url="https://example.org/simple").lock()
    assert len(calls) == 3
    assert fl.Env(requirements=[]).lock() == ""


def test_what_the_resolver_says_reaches_the_caller(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fake = tmp_path / "uv"
    fake.write_text("#!/bin/sh\necho 'no such thing: nonsense' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(_env, "find_uv", lambda: str(fake))
    with pytest.raises(fl.EnvBuildFailed, match="no such thing: nonsense") as caught:
        fl.Env(python="3.11", requirements=["nonsense"]).lock()
    assert caught.value.log == "no such thing: nonsense"


def test_uv_is_called_for_hashed_wheels(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fake = tmp_path / "uv"
    fake.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/args\ncat > {tmp_path}/stdin\ncat <<'END'\n{LOCK}END\n")
    fake.chmod(0o755)
    monkeypatch.setattr(_env, "find_uv", lambda: str(fake))
    assert fl.Env(python="3.11", requirements=["six>=1", "attrs"]).lock() == LOCK
    args = (tmp_path / "args").read_text()
    assert "--generate-hashes" in args and "--only-binary :all:" in args and "--python-version 3.11" in args
    assert (tmp_path / "stdin").read_text() == "six>=1\nattrs\n"
