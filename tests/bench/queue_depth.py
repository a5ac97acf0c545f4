"""A million queued tasks: what they cost the server, and whether submitting slows down.

    python queue_depth.py [--tasks 1000000]

Two tasks that sleep hold both cores of the only node; everything after them waits. Prints one line
of JSON: bytes of the server per queued task, its peak, and the rate at which the first and the last
tenth became durable.
"""

import argparse
import json
import shutil
import tempfile
import threading
import time

import psutil
from peer_farlane import WORKERS, Farlane

SETTLE = 10  # seconds: rows reach the state file, and a snapshot is taken where one is due


def noop(i):
    return i


def hold():
    time.sleep(24 * 3600)


class Watch:
    """Fifty times a second: the server's memory, and how much of what was submitted is durable."""

    def __init__(self, peer):
        self.process, self.native = psutil.Process(peer.up.pid), peer.client._native
        self.submitted, self.most, self.seen = 0, 0, []
        self.over = threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, self.process.memory_info().rss)
            durable = self.submitted - self.native.unacknowledged()
            self.seen.append((time.perf_counter(), durable))

    def rate(self, first, last):
        """Tasks a second that became durable, between two counts."""
        since = next(at for at, durable in self.seen if durable >= first)
        until = next(at for at, durable in self.seen if durable >= last)
        return (last - first) / max(until - since, 0.02)


def measure(peer, count):
    head = psutil.Process(peer.up.pid)
    for _ in range(WORKERS):
        peer.submit(hold)
    time.sleep(1)
    peer.client._native.wait_acknowledged(60.0)
    empty, watch, futures = head.memory_info().rss, Watch(peer), []
    for i in range(count):
        futures.append(peer.submit(noop, i))
        watch.submitted = i + 1
    acknowledged = peer.client._native.wait_acknowledged(600.0)
    time.sleep(0.1)
    full = head.memory_info().rss
    time.sleep(SETTLE)
    watch.over.set()
    return {
        "tasks": len(futures),
        "acknowledged": acknowledged,
        "empty_mb": empty / 1e6,
        "full_mb": full / 1e6,
        "peak_mb": watch.most / 1e6,
        "bytes_per_task": (full - empty) / len(futures),
        "first_per_s": watch.rate(count // 100, count // 10),
        "last_per_s": watch.rate(count - count // 10, count - count // 100),
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
