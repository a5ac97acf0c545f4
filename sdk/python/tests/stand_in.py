"""A stand-in for the Rust half: takes calls, and lands them when a test says so."""

import pickle
import threading
import time

from farlane import _client, _future


class FakeNative:
    urls = ["https://test"]
    session = "0" * 26

    def __init__(self):
        self.calls = {}
        self.cancelled = []
        self.codes = 0
        self.specs = []
        self.closed = False

    def code(self, pickled):
        self.codes += 1
        return pickled

    def spec(self, options, code, environment):
        self.specs.append(options)
        return code

    def argument(self, plain):
        return plain

    def submit(self, spec, pickled, future, blobs=None, idempotency_key=None):
        seq = len(self.calls) + 1
        self.calls[seq] = (spec, pickled, future, blobs, idempotency_key)
        return seq

    def gang(self, spec, members):
        first = len(self.calls) + 1
        for pickled, future, blobs, key in members:
            self.submit(spec, pickled, future, blobs, key)
        return first

    def task_id(self, seq):
        return f"task-{seq}"

    def state(self, id):
        return ("running", 1, None)

    def cancel(self, ids, reason):
        self.cancelled.extend(ids)

    def waiting(self):
        return [call[2] for call in self.calls.values() if not call[2].done()]

    def awaited(self):
        return len(self.waiting())

    def wait_idle(self, seconds):
        return True

    def wait_acknowledged(self, seconds):
        return True

    def settle(self, seconds):
        pass

    def unacknowledged(self):
        return 0

    def close(self):
        self.closed = True

    def run(self, *seqs):
        """Runs calls here, as a worker would, and lands them as one batch."""
        batch = []
        for seq in seqs or list(self.calls):
            code, data, future, _, _ = self.calls[seq]
            if future.done():
                continue
            args, kwargs = pickle.loads(data)
            value = pickle.loads(code)(*args, **kwargs)
            batch.append((future, _future.RETURNED_PICKLE, pickle.dumps(value, 5), None))
        _client._deliver(batch)


def drive(client, iterator):
    """Runs what is submitted until the iterator ends."""
    stop = threading.Event()

    def run():
        while not stop.is_set():
            client._native.run()
            time.sleep(0.002)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return list(iterator)
    finally:
        stop.set()
        thread.join()
