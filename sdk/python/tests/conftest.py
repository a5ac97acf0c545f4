"""The package under test: the installed wheel where the caller says so (`cargo xtask test` does), else the source
tree with the extension built by `cargo build -p farlane-python`."""

import os
import sys
from pathlib import Path

if not os.environ.get("FARLANE_TEST_INSTALLED"):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
