"""A million queued tasks: what they cost the server, and whether submitting slows down.

    python queue_depth.py [--tasks 1000000]

Two tasks that sleep hold both cores of the only node; everything after them waits. Prints one line
of JSON: bytes of the server per queued task, its peak, and the rate of the first and last tenth.
"""

import argparse
import json
import shutil
import tempfile
import threading
import time

import psutil
from peer_farlane import WORKERS, Farlane

BLOCKS = 20
SETTLE = 10  # seconds: rows reach the state file, and a snapshot is taken where one is due


def noop(i):
    return i


def hold():
    time.sleep(24 * 3600)


class Peak:
    """The most memory that a process held, looked at fifty times a second."""

    def __init__(self, pid):
        self.process, self.most, self.over = psutil.Process(pid), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, self.process.memory_info().rss)


def measure(peer, count):
    head = psutil.Process(peer.up.pid)
    for _ in range(WORKERS):
        peer.submit(hold)
    time.sleep(1)
    empty, peak = head.memory_info().rss, Peak(peer.up.pid)
    rates, futures, block = [], [], count // BLOCKS
    for first in range(0, block * BLOCKS, block):
        begun = time.perf_counter()
        futures += [peer.submit(noop, i) for i in range(first, first + block)]
        rates.append(block / (time.perf_counter() - begun))
    # Everything is acknowledged, so durable, before the memory of it is looked at.
    acknowledged = peer.client._native.wait_acknowledged(600.0)
    full = head.memory_info().rss
    time.sleep(SETTLE)
    peak.over.set()
    return {
        "tasks": len(futures),
        "acknowledged": acknowledged,
        "empty_mb": empty / 1e6,
        "full_mb": full / 1e6,
        "peak_mb": peak.most / 1e6,
        "bytes_per_task": (full - empty) / len(futures),
        # The client's window hides the server for the first block.
        "first_per_s": sum(rates[1:3]) / 2,
        "last_per_s": sum(rates[-2:]) / 2,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1_000_000)
    count = parser.parse_args().tasks
    workdir = tempfile.mkdtemp(prefix="farlane-bench-")
    peer = Farlane(workdir)
    try:
        peer.start()
        peer.roundtrip(noop, 0)
        print(json.dumps(measure(peer, count)), flush=True)
    finally:
        # Nobody waits for the results of what is queued.
        peer.stop()
        shutil.rmtree(workdir, ignore_errors=True)


if __name__ == "__main__":
    main()
