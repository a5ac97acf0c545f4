"""Measures one system once, from its start to its end, and prints one line of JSON.

    python one.py farlane [--only throughput,roundtrip] [--n 10000]

A system is a module `peer_NAME` with a class that starts, submits, waits, names its processes by
role, and stops; see peer_pool.py for the smallest. `cargo xtask bench spine` calls this for each
system in turn and prints the table.
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time

now = time.perf_counter
LOADED = now()

ROUND_LIMIT = 90  # seconds from the kill to the retried result
SETTLE = 3  # seconds until a started system is idle


def cpu_seconds(peer):
    """Used so far, by the client and by each role."""
    used = {"client": sum(os.times()[:2])}
    for role, processes in peer.processes().items():
        times = [process.cpu_times() for process in processes]
        used[role] = sum(t.user + t.system + t.children_user + t.children_system for t in times)
    return used


def memory(peer):
    """Resident memory by role, MiB: as the kernel counts it for each, and with shared pages split."""
    out = {}
    for role, processes in peer.processes().items():
        full = [process.memory_full_info() for process in processes]
        out[role] = {
            "n": len(full),
            "rss_mib": round(sum(m.rss for m in full) / 2**20, 1),
            "pss_mib": round(sum(m.pss for m in full) / 2**20, 1),
        }
    return out


def throughput(peer, fn, n):
    before, begun = cpu_seconds(peer), now()
    handles = peer.submit_many(fn, list(range(n)))
    submitted = now() - begun
    results = peer.gather(handles)
    took = now() - begun
    after = cpu_seconds(peer)
    if list(results) != list(range(n)):
        raise AssertionError("wrong results")
    cpu = {role: round((after[role] - before.get(role, 0)) / n * 1e6, 1) for role in after}
    return {"n": n, "per_s": n / took, "submit_us": submitted / n * 1e6, "cpu_us_per_task": cpu}


def submit_loop(peer, fn, n):
    begun = now()
    handles = [peer.submit(fn, i) for i in range(n)]
    submitted = now() - begun
    peer.gather(handles)
    return {"n": n, "submit_us": submitted / n * 1e6, "per_s": n / (now() - begun)}


def roundtrip(peer, fn, n):
    for i in range(5):
        peer.roundtrip(fn, i)
    times = []
    for i in range(n):
        begun = now()
        peer.roundtrip(fn, i)
        times.append((now() - begun) * 1e3)
    times.sort()
    return {
        "n": n,
        "p50_ms": times[n // 2],
        "p99_ms": times[min(n - 1, int(0.99 * n))],
        "mean_ms": statistics.mean(times),
    }


def echo(peer, fn):
    import numpy

    out = {}
    for mib, repeats in peer.echo_reps.items():
        array = numpy.random.default_rng(0).random(mib << 18, dtype=numpy.float32)
        if not numpy.array_equal(peer.roundtrip(fn, array), array):  # also the warm-up
            raise AssertionError("wrong array")
        times = []
        for _ in range(repeats):
            begun = now()
            peer.roundtrip(fn, array)
            times.append(now() - begun)
        median = statistics.median(times)
        there_and_back = 2 * array.nbytes / 1e6
        out[f"{mib}MiB"] = {"n": repeats, "p50_ms": median * 1e3, "mb_per_s": there_and_back / median}
    return out


def failure(peer, fn):
    """Seconds from kill -9 of the worker in a task to the result of the retry."""
    peer.prepare_failure()
    marker, box = os.path.join(peer.workdir, "marker"), {}

    def call():
        try:
            box["result"] = peer.run_with_retry(fn, marker)
        except Exception as error:  # told below
            box["result"] = repr(error)[:200]
        box["at"] = now()

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    until, text = now() + 60, ""
    while not text.endswith("\n"):
        time.sleep(0.005)
        if os.path.exists(marker):
            with open(marker) as file:
                text = file.read()
        if now() > until:
            return {"error": str(box.get("result", "the task never started"))}
    time.sleep(0.3)
    target = peer.kill_target(int(text))
    killed = now()
    os.kill(target, signal.SIGKILL)
    thread.join(ROUND_LIMIT)
    if box.get("result") != "retried":
        return {"error": str(box.get("result", f"no retry within {ROUND_LIMIT} s"))}
    return {"recovery_s": box["at"] - killed, "by": "peer" if peer.native_retry else "caller"}


def measure(peer, out, wanted, n):
    import tasks

    def take(key, call):
        if wanted and key not in wanted:
            return
        print(f"# {peer.name}: {key}", file=sys.stderr, flush=True)
        try:
            out[key] = call()
        except Exception as error:
            out[key] = {"error": repr(error)[:300]}

    begun = now()
    peer.start()
    if peer.roundtrip(tasks.noop, 1) != 1:
        raise AssertionError("wrong first result")
    out["cold_start"] = {"s": now() - begun}
    time.sleep(SETTLE)
    take("memory", lambda: memory(peer))
    peer.gather(peer.submit_many(tasks.noop, list(range(200))))
    take("throughput", lambda: throughput(peer, tasks.noop, n or peer.throughput_n))
    take("submit_loop", lambda: submit_loop(peer, tasks.noop, peer.loop_n))
    take("roundtrip", lambda: roundtrip(peer, tasks.noop, peer.roundtrip_n))
    take("echo", lambda: echo(peer, tasks.echo))
    take("failure", lambda: failure(peer, tasks.die_once))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer")
    parser.add_argument("--only", default="", help="comma list of measures")
    parser.add_argument("--n", type=int, default=0, help="no-ops in the throughput measure")
    args = parser.parse_args()
    module = importlib.import_module(f"peer_{args.peer}")
    kind = next(kind for kind in module.PEERS if kind.name == args.peer)
    out = {"peer": kind.name, "note": kind.note, "import_s": now() - LOADED}
    workdir = tempfile.mkdtemp(prefix="farlane-bench-")
    peer = kind(workdir)
    out["version"] = peer.version()
    try:
        measure(peer, out, set(filter(None, args.only.split(","))), args.n)
    except BaseException as error:  # also the driver's SIGTERM: tell what there is
        out["error"] = repr(error)[:300]
    finally:
        print(json.dumps(out), flush=True)
        peer.stop()
        shutil.rmtree(workdir, ignore_errors=True)


if __name__ == "__main__":
    OURS = os.getpid()  # forked workers inherit the handler; they just go

    def stopped(*_):
        if os.getpid() != OURS:
            os._exit(1)
        sys.exit("stopped by the driver")

    signal.signal(signal.SIGTERM, stopped)
    main()
