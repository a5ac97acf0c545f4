"""Farlane as one of the systems under test: `farlane up`, so one server, one agent, two workers.

Everything is as users get it: sealed from end to end, sandboxed, every acknowledgement synced.
Works under this folder's one.py, and under any runner with the same interface.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import farlane as fl
import psutil

WORKERS = 2  # one node, two workers, as every other system
START_SECONDS = 60  # a hundred times what it takes
STOP_SECONDS = 15  # the agent's patience with workers, and a half


def die_once_inside():
    """`tasks.die_once` for workers that see none of the caller's files: the attempt tells."""
    import farlane

    if farlane.context().attempt > 1:
        return "retried"
    print(os.getpid(), os.readlink("/proc/self/ns/pid"), flush=True)
    time.sleep(120)
    return "never killed"


class Farlane:
    name = "farlane"
    note = "farlane up: head = server and granter, daemon = agent, template = bwrap and Python that workers fork from"
    throughput_n = 10_000
    loop_n = 1_000
    roundtrip_n = 500
    echo_reps = {1: 30, 16: 8, 64: 4}  # MiB: repeats
    native_retry = True

    def __init__(self, workdir):
        self.workdir = workdir
        self.up = self.client = None
        self.states = set()
        self.with_numpy = {}

    def version(self):
        return fl.__version__

    def start(self):
        data = os.path.join(self.workdir, "data")
        program = os.path.join(os.path.dirname(sys.executable), "farlane")
        self.log = open(os.path.join(self.workdir, "log"), "ab")
        self.up = subprocess.Popen(
            [program, "up", "--data", data, "--cpus", str(WORKERS), "--log", "warn", "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True,
        )  # fmt: skip
        line = self.up.stdout.readline()
        if not line:
            raise RuntimeError(f"farlane up ended: {self.said()}")
        json.loads(line)
        identity = os.path.join(data, "endpoint.json")
        self.client = fl.Client(identity_file=identity, connect_timeout=START_SECONDS)

    def said(self):
        with open(os.path.join(self.workdir, "log"), errors="replace") as log:
            return log.read()[-2000:]

    def stop(self):
        if self.client is not None:
            self.client.shutdown(wait=False)
        if self.up is None:
            return
        family = self.family()
        self.up.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        for process in alive:
            process.kill()
        self.up.wait()
        # Root's agent keeps its state where its system user can reach it, outside of `data`.
        for state in self.states:
            if not state.startswith(self.workdir):
                shutil.rmtree(state, ignore_errors=True)

    def equipped(self, fn):
        """Workers see the bare interpreter: a task on arrays brings numpy as its environment."""
        if fn.__name__ != "echo":
            return fn
        if fn not in self.with_numpy:
            import numpy

            env = fl.Env(requirements=[f"numpy=={numpy.__version__}"])
            self.with_numpy[fn] = fl.remote(env=env, memory="2GiB")(fn)
        return self.with_numpy[fn]

    def submit(self, fn, *args):
        return self.client.submit(self.equipped(fn), *args)

    def submit_many(self, fn, items):
        fn, submit = self.equipped(fn), self.client.submit
        return [submit(fn, item) for item in items]

    def result(self, handle):
        return handle.result()

    def gather(self, handles):
        return self.client.gather(handles)

    def roundtrip(self, fn, *args):
        return self.client.submit(self.equipped(fn), *args).result()

    def prepare_failure(self):
        """Nothing: the workers are there already."""

    def run_with_retry(self, fn, marker):
        future = self.client.submit(die_once_inside)
        text = ""
        for piece in future.logs(follow=True):
            text += piece
            if text.endswith("\n"):
                break
        pid, self.namespace = text.split()
        with open(marker + ".part", "w") as file:
            file.write(f"{pid}\n")
        os.replace(marker + ".part", marker)
        return future.result()

    def kill_target(self, task_pid):
        """A worker knows itself by its number inside its own process namespace."""
        for process in self.processes()["worker"]:
            inside = os.readlink(f"/proc/{process.pid}/ns/pid")
            if (inner_pid(process.pid), inside) == (task_pid, self.namespace):
                return process.pid
        raise RuntimeError(f"no worker has the inner process {task_pid}")

    def family(self):
        try:
            root = psutil.Process(self.up.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def processes(self):
        roles = {"head": [], "daemon": [], "template": [], "worker": []}
        for process in self.family():
            try:
                roles[self.role(process)].append(process)
            except psutil.NoSuchProcess:
                pass
        return roles

    def role(self, process):
        if process.pid == self.up.pid:
            return "head"
        line = process.cmdline()
        if "--state" in line:
            self.states.add(line[line.index("--state") + 1])
            return "daemon"
        # The template is Python under the agent or bwrap; what it forked is a worker.
        parent = process.parent()
        forked = parent is not None and is_python(parent) and is_python(process)
        return "worker" if forked else "template"


def is_python(process):
    return os.path.basename(process.exe() or process.name()).startswith("python")


def inner_pid(pid):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return pid


PEERS = [Farlane]
