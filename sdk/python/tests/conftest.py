"""The package under test is the source tree, with the extension built by `cargo build -p farlane-python`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
