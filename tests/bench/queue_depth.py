"""A million queued tasks: what they cost the server, and whether submitting slows down.

    python queue_depth.py [--tasks 1000000] [--only depth,snapshot]

Two tasks that sleep hold both cores of the only node; everything after them waits. Prints one line
of JSON. First `farlane up`: bytes of the server per queued task, its peak, and the rate at which the
first and the last tenth became durable. Then, under "snapshot", three servers of which two run: nine
tenths are queued, the third server starts for the first time, and is sent a snapshot of everything
while the last tenth is submitted.
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
import time

import psutil
from peer_farlane import WORKERS, Farlane
from three_servers import CORES, Servers, until

SETTLE = 10  # seconds: rows reach the state file, and a snapshot is taken where one is due
EVERY = 0.02  # seconds between two looks at a process
CATCH_UP = 600  # seconds that the third server may take; a hundred times what it takes
TRICKLE = 0.005  # seconds between submissions once the last tenth is out


def noop(i):
    return i


def hold():
    time.sleep(24 * 3600)


class Watch:
    """Fifty times a second: memory of servers, and how much of what was submitted is durable."""

    def __init__(self, client, *pids):
        self.native = client._native
        self.pids, self.most, self.most_own = pids, dict.fromkeys(pids, 0), dict.fromkeys(pids, 0)
        self.submitted, self.seen = 0, []
        self.over = threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while not self.over.wait(EVERY):
            for pid in self.pids:
                self.look(pid)
            durable = self.submitted - self.native.unacknowledged()
            self.seen.append((time.perf_counter(), durable))

    def look(self, pid):
        whole, own = resident(pid)
        self.most[pid] = max(self.most[pid], whole)
        self.most_own[pid] = max(self.most_own[pid], own)

    def rate(self, first, last):
        """Tasks a second that became durable, between two counts or what there was of them."""
        since, low = next(s for s in self.seen if s[1] >= first)
        until, high = next((s for s in self.seen if s[1] >= last), self.seen[-1])
        return (high - low) / max(until - since, EVERY)


def resident(pid):
    """Bytes of a process in memory, and how many of them are its own rather than of a file."""
    found = {}
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            key, _, value = line.partition(":")
            found[key] = value
    return tuple(int(found[key].split()[0]) * 1024 for key in ("VmRSS", "RssAnon"))


def submit(client, count, watch):
    for i in range(count):
        client.submit(noop, i)
        watch.submitted += 1


def measure(peer, count):
    head = psutil.Process(peer.up.pid)
    for _ in range(WORKERS):
        peer.submit(hold)
    time.sleep(1)
    peer.client._native.wait_acknowledged(60.0)
    empty, watch, futures = head.memory_info().rss, Watch(peer.client, head.pid), []
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
        "peak_mb": watch.most[head.pid] / 1e6,
        "bytes_per_task": (full - empty) / len(futures),
        "first_per_s": watch.rate(count // 100, count // 10),
        "last_per_s": watch.rate(count - count // 10, count - count // 100),
    }


class Arrival:
    """Watches the third server's folder: how many snapshots it is sent, and how large they grow."""

    def __init__(self, servers, number):
        self.path = servers.data(number, "raft", "incoming.redb")
        self.count, self.bytes = 0, 0
        self.over = threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        last = None
        while not self.over.wait(EVERY):
            try:
                found = os.stat(self.path)
            except FileNotFoundError:
                last = None
                continue
            # A file that shrinks is another one too: numbers of removed files are given again.
            if last is None or found.st_ino != last.st_ino or found.st_size < last.st_size:
                self.count += 1
            self.bytes, last = max(self.bytes, found.st_size), found


def caught_up(servers, leader, follower):
    """Whether the follower has applied what the leader had before it was asked."""
    wanted, found = servers.status(leader), servers.status(follower)
    return bool(wanted and found) and found["applied_index"] >= wanted["applied_index"]


def snapshot(servers, count):
    """What a snapshot of everything costs the leader, and the follower that is sent it."""
    servers.found()
    servers.join()
    client = servers.client()
    try:
        for _ in range(CORES):
            client.submit(hold)
        until(lambda: (servers.status(1) or {}).get("placed") == CORES, "the machine's cores to be held")
        return snapshot_while_submitting(servers, client, count)
    finally:
        # Nobody waits for the results of what is queued.
        client.shutdown(wait=False)


def snapshot_while_submitting(servers, client, count):
    leader = servers.leader()
    before = Watch(client, servers.process(leader).pid)
    last = count // 10
    submit(client, count - last, before)
    client._native.wait_acknowledged(600.0)
    time.sleep(SETTLE)
    before.over.set()
    full, full_own = resident(before.pids[0])
    # What is gone from its log only a snapshot can bring.
    until(lambda: servers.segments(leader)[0] > 0, "the log to lose its beginning")

    if servers.leader() != leader:
        raise RuntimeError("the leader changed while tasks were queued; nothing was measured")
    third = Arrival(servers, 3)
    servers.start(3)
    during = Watch(client, before.pids[0], servers.process(3).pid)
    began = time.perf_counter()
    enough = threading.Event()
    more = threading.Thread(target=go_on, args=(client, last, during, enough))
    more.start()
    try:
        until(lambda: third.count and servers.alive("server-3") and caught_up(servers, leader, 3),
              "the third server to catch up", CATCH_UP)  # fmt: skip
        took = time.perf_counter() - began
    finally:
        enough.set()
        more.join()
        durable = client._native.wait_acknowledged(600.0)
        third.over.set()
        time.sleep(1)
        during.over.set()
    if third.count == 0:
        raise RuntimeError("no snapshot was sent: the third server followed from the log alone")
    if servers.leader() != leader:
        raise RuntimeError("the leader changed during the snapshot; its memory was not measured")
    head, follower = during.pids
    return {
        "tasks": count,
        "queued": servers.status(3)["queued"],
        "acknowledged": durable,
        "before_mb": full / 1e6,
        "before_anonymous_mb": full_own / 1e6,
        "leader_peak_mb": during.most[head] / 1e6,
        "leader_peak_anonymous_mb": during.most_own[head] / 1e6,
        "follower_peak_mb": during.most[follower] / 1e6,
        "snapshots": third.count,
        "snapshot_file_mb": third.bytes / 1e6,
        "caught_up_s": took,
        "first_per_s": before.rate(count // 100, count // 10),
        "during_per_s": during.rate(1, last),
        "during": during.submitted,
    }


def go_on(client, count, watch, over):
    """The rest as fast as it goes, then a few now and then until it is over."""
    submit(client, count, watch)
    while not over.wait(TRICKLE):
        submit(client, 1, watch)


def depth(count):
    workdir = tempfile.mkdtemp(prefix="farlane-bench-")
    peer = Farlane(workdir)
    try:
        peer.start()
        peer.roundtrip(noop, 0)
        return measure(peer, count)
    finally:
        # Nobody waits for the results of what is queued.
        peer.stop()
        shutil.rmtree(workdir, ignore_errors=True)


def with_three(count):
    """A failure is a result of its own: the figures of one server stand without it."""
    servers = Servers()
    try:
        return snapshot(servers, count)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        servers.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--only", default="depth,snapshot")
    args = parser.parse_args()
    parts = args.only.split(",")
    result = depth(args.tasks) if "depth" in parts else {"tasks": args.tasks}
    if "snapshot" in parts:
        result["snapshot"] = with_three(args.tasks)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
