"""What the machine itself does, measured beside every round: a sync of its disk, and the import.

    python probe.py FOLDER        # where the synced file goes: the disk that the server syncs to
"""

import json
import os
import statistics
import subprocess
import sys
import time

SYNCS = 200
IMPORTS = 5


def syncs(folder):
    """A 512-byte append and fdatasync, in milliseconds."""
    path = os.path.join(folder, "probe")
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    times = []
    for _ in range(SYNCS):
        begun = time.perf_counter()
        os.write(descriptor, b"x" * 512)
        os.fdatasync(descriptor)
        times.append((time.perf_counter() - begun) * 1e3)
    os.close(descriptor)
    os.unlink(path)
    times.sort()
    return {"n": SYNCS, "p50_ms": times[SYNCS // 2], "p99_ms": times[int(SYNCS * 0.99)]}


def imports():
    """Seconds of `import farlane`, and of what `fl.Client` then loads, each in a fresh process."""
    script = (
        "import time; a = time.perf_counter(); import farlane; b = time.perf_counter(); "
        "farlane.Client; print(b - a, time.perf_counter() - a)"
    )
    said = [subprocess.check_output([sys.executable, "-c", script], text=True) for _ in range(IMPORTS)]
    bare, whole = zip(*(map(float, line.split()) for line in said))
    return {"n": IMPORTS, "s": statistics.median(bare), "with_client_s": statistics.median(whole)}


if __name__ == "__main__":
    print(json.dumps({"fdatasync": syncs(sys.argv[1]), "import": imports()}))
