"""concurrent.futures.ProcessPoolExecutor: what the standard library does on one machine."""

import platform
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import psutil

WORKERS = 2


class Pool:
    name = "pool"
    note = "no network, no sandbox, no seal, nothing kept; the caller retries with a new pool"
    throughput_n = 10_000
    loop_n = 1_000
    roundtrip_n = 500
    echo_reps = {1: 30, 16: 8, 64: 4}
    native_retry = False

    def __init__(self, workdir):
        self.workdir = workdir

    def version(self):
        return "CPython " + platform.python_version()

    def start(self):
        self.pool = ProcessPoolExecutor(WORKERS)

    def stop(self):
        self.pool.shutdown(cancel_futures=True)

    def submit(self, fn, *args):
        return self.pool.submit(fn, *args)

    def submit_many(self, fn, items):
        return [self.pool.submit(fn, item) for item in items]

    def result(self, handle):
        return handle.result()

    def gather(self, handles):
        return [handle.result() for handle in handles]

    def roundtrip(self, fn, *args):
        return self.pool.submit(fn, *args).result()

    def prepare_failure(self):
        """Nothing."""

    def run_with_retry(self, fn, *args):
        try:
            return self.roundtrip(fn, *args)
        except BrokenProcessPool:
            self.stop()
            self.start()
            return self.roundtrip(fn, *args)

    def kill_target(self, task_pid):
        return task_pid

    def processes(self):
        return {"worker": psutil.Process().children(recursive=True)}


PEERS = [Pool]
