"""The package under test: the installed wheel where the caller says so (`cargo xtask test` does), else the source
tree with the extension built by `cargo build -p farlane-python`."""

import os
import sys
from pathlib import Path

if not os.environ.get("FARLANE_TEST_INSTALLED"):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pytest


@pytest.fixture
def client():
    """A client over a stand-in for the Rust half."""
    import farlane as fl
    from farlane import _client

    from stand_in import FakeNative

    made = fl.Client.__new__(fl.Client)
    made._options = {}
    made._set(_client._Shared(FakeNative()))
    yield made
    made._shared.closed = True
