"""Template and worker: the processes inside the sandbox that run tasks.

Owns the template (a fork server: single-threaded, warm, process 1 of its sandbox) and the loop of the
workers that it forks. Leaves sealing, limits of time, and every decision to the agent, to which it
speaks over SEQPACKET sockets. Python 3.10 or newer, standard library and cloudpickle only.

    agent --F number + fds--> template --fork--> worker --HELLO--> agent
    agent --CODE, TASK------> worker  --LOG*, RESULT-------------> agent      one message a task, each way
    agent --K number--------> template: kills the worker and what descends from it
    agent <-X number, status- template: a worker has ended

A task's message stays in the socket until its worker is ready to run it, so the agent can take back
what has not begun. Bodies above one message follow in pieces that only the total length delimits.
"""

import errno
import gc
import json
import os
import pickle
import select
import signal
import socket
import struct
import sys
import time

# Agent to worker. TASK: kind, flags, _, code, attempt, blobs, token, deadline, task, log limit, memory, body.
TASK = struct.Struct("<BBHIIIQQ16sQQQ")
# CODE: kind, _, _, code, body. DROP: the same with an empty body.
CODE = struct.Struct("<BBHIQ")
# Worker to agent. RESULT: kind, outcome, _, cpu in us, peak memory in KiB, token, begin and end in monotonic ns, body.
RESULT = struct.Struct("<BBHIIQQQQ")
# LOG: kind, stream, _, dropped, token.
LOG = struct.Struct("<BBHIQ")
KIND_TASK, KIND_CODE, KIND_DROP = 1, 2, 3
KIND_HELLO, KIND_RESULT, KIND_LOG = 1, 2, 3
FLAG_PICKLE = 1
RETURNED, RAISED = 0, 1
STDOUT, STDERR, PROGRESS = 1, 2, 3
# Most bytes of one message; two of them fit into the smallest usual socket buffer (208 KiB).
PIECE = 64 * 1024
# Parts of one message sent or received at once. Source: IOV_MAX of Linux.
MOST_PARTS = 1024
# Buffers from this size are not copied into a pickle. Source: docs/design/payload.md.
OUT_OF_BAND = 1 << 20
# Types that hold no buffers.
PLAIN = frozenset({int, float, bool, str, type(None), complex})
# Virtual memory that an interpreter with its libraries may hold beyond what the task asked for.
MEMORY_SLACK = 192 << 20


class State:
    """What the running task may ask about itself; read by `context()`."""

    token = 0
    attempt = 0
    deadline = 0
    task = b""
    log_left = 0
    dropped = 0
    node = ""
    region = ""


class Worker:
    """One worker: its socket and the functions it has loaded."""

    def __init__(self, sock, scratch):
        self.sock = sock
        self.scratch = scratch
        self.send = sock.send
        self.codes = {}
        self.functions = {}
        self.memory = 0
        self.pid = os.getpid()
        self.buffer = bytearray(PIECE)
        self.view = memoryview(self.buffer)
        import _thread

        self.lock = _thread.allocate_lock()

    def transmit(self, head, body):
        """Sends one message whole, in pieces where it is large."""
        if len(head) + len(body) <= PIECE:
            with self.lock:
                self.send(head + body)
        else:
            self.transmit_parts([head, body])

    def transmit_parts(self, parts):
        """Sends a message from where its parts lie."""
        piece, room = [], PIECE
        with self.lock:
            for part in parts:
                view = memoryview(part)
                while len(view) > 0:
                    piece.append(view[:room])
                    view = view[room:]
                    room -= len(piece[-1])
                    if room == 0 or len(piece) == MOST_PARTS:
                        self.sock.sendmsg(piece)
                        piece, room = [], PIECE
            if piece:
                self.sock.sendmsg(piece)

    def read_body(self, head, got, total):
        """The body of the message in the buffer; the view is valid until the next message."""
        if got - head == total:
            return self.view[head:got]
        body = bytearray(total)
        view = memoryview(body)
        at = got - head
        view[:at] = self.view[head:got]
        while at < total:
            n = self.sock.recv_into(view[at:])
            if n == 0:
                os._exit(0)
            at += n
        return view

    def read_parts(self, head, got, blobs):
        """The parts of a body with blobs, each in memory of its own."""
        lengths = struct.unpack_from("<%dQ" % (blobs + 1), self.view, head)
        at = head + 8 * (blobs + 1)
        parts = [bytearray(length) for length in lengths]
        rest = [memoryview(part) for part in parts if part]
        rest.reverse()
        while rest:
            if at < got:
                # What came with the head.
                n = min(got - at, len(rest[-1]))
                rest[-1][:n] = self.view[at : at + n]
                at += n
            else:
                n = self.sock.recvmsg_into(rest[: -MOST_PARTS - 1 : -1])[0]
                if n == 0:
                    os._exit(0)
            while rest and n >= len(rest[-1]):
                n -= len(rest.pop())
            if n > 0:
                rest[-1] = rest[-1][n:]
        return parts

    def run(self):
        """Serves until the agent closes the socket."""
        recv_into, buffer, unpack = self.sock.recv_into, self.buffer, TASK.unpack_from
        while True:
            n = recv_into(buffer)
            if n == 0:
                os._exit(0)
            if buffer[0] == KIND_TASK:
                _, flags, _, code, attempt, blobs, token, deadline, task, limit, memory, total = unpack(buffer)
                State.token, State.attempt, State.deadline, State.task = token, attempt, deadline, task
                State.log_left, State.dropped = limit, 0
                if blobs == 0:
                    body = self.read_body(TASK.size, n, total)
                else:
                    body = self.read_parts(TASK.size, n, blobs)
                if memory != self.memory:
                    self.limit_memory(memory)
                self.attempt(code, token, flags & FLAG_PICKLE, body, blobs)
                body = None
                self.scratch.sweep()
            elif buffer[0] == KIND_CODE:
                _, _, _, code, total = CODE.unpack_from(buffer)
                self.codes[code] = bytes(self.read_body(CODE.size, n, total))
            else:
                code = CODE.unpack_from(buffer)[3]
                self.codes.pop(code, None)
                self.functions.pop(code, None)

    def attempt(self, code, token, own, body, blobs):
        """Runs one task and answers it."""
        now, outcome, phase = time.monotonic_ns, RETURNED, "load"
        begin = now()
        cpu = peak = 0
        try:
            function = self.functions.get(code)
            if function is None:
                function = pickle.loads(self.codes[code])
                self.functions[code] = function
                self.codes[code] = None
            args, kwargs = load_arguments(body, blobs)
            phase = "call"
            value = function(*args, **kwargs)
            args = kwargs = None
            if os.getpid() != self.pid:
                os._exit(1)
            end = now()
            phase = "encode"
            answer = encode_result(value, own)
            value = None
        except SystemExit as left:
            self.leave(left)
        except BaseException as error:
            if os.getpid() != self.pid:
                os._exit(1)
            end = now()
            outcome = RAISED
            answer = describe(error, phase, own)
        if end - begin > 1_000_000:
            cpu, peak = self.usage(end - begin)
        flush_streams()
        if State.dropped:
            dropped = min(State.dropped, 0xFFFFFFFF)
            self.transmit(LOG.pack(KIND_LOG, STDOUT, 0, dropped, token), b"")
        if type(answer) is bytes:
            self.transmit(RESULT.pack(KIND_RESULT, outcome, 0, cpu, peak, token, begin, end, len(answer)), answer)
        else:
            size = sum(map(len, answer))
            head = RESULT.pack(KIND_RESULT, outcome, 0, cpu, peak, token, begin, end, size)
            self.transmit_parts([head, *answer])

    _cpu_before = 0

    def usage(self, wall_ns):
        """Microseconds of processor time since the last call, and the process's peak memory in KiB."""
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        total = int((used.ru_utime + used.ru_stime) * 1e6)
        spent, self._cpu_before = total - self._cpu_before, total
        return min(spent, wall_ns // 1000 * (os.cpu_count() or 1), 0xFFFFFFFF), min(used.ru_maxrss, 0xFFFFFFFF)

    def leave(self, left):
        """`sys.exit` ends the worker with its code, as it would end a script."""
        code = left.code
        if code is None:
            code = 0
        elif not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
        if os.getpid() == self.pid:
            flush_streams()
        os._exit(code & 0xFF)

    def limit_memory(self, memory):
        """Holds the process to what the task asked for; 0 lifts it to the hard limit."""
        import resource

        self.memory = memory
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft = hard if memory == 0 else memory + MEMORY_SLACK
        if hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard):
            soft = hard
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def load_arguments(body, blobs):
    """Arguments as docs/design/payload.md lays them out; with blobs, `body` is the list of the parts."""
    if blobs == 0:
        data, plain = body, []
    else:
        data, *plain = body
        body.clear()
    if data[0] == 1:
        return pickle.loads(memoryview(data)[1:])
    if data[0] == 2:
        count = int.from_bytes(data[1:5], "little")
        buffers = []
        for i in range(count):
            blob = plain[int.from_bytes(data[6 + 5 * i : 10 + 5 * i], "little")]
            # One that is named twice is copied, so that each array is its own.
            own = bytes if data[5 + 5 * i] else bytearray
            taken = own is bytes or any(blob is other for other in buffers)
            buffers.append(own(blob) if taken else blob)
        plain = blob = None
        return pickle.loads(memoryview(data)[5 + 5 * count :], buffers=buffers)
    raise ValueError("unknown argument format")


def encode_result(value, own):
    """The result's plaintext: pickle where the client trusts this provider, else the safe codec."""
    if own:
        if type(value) in PLAIN:
            return b"\x01" + pickle.dumps(value, 5)
        return encode_own(value)
    import farlane_value

    return b"\x00" + farlane_value.encode(value)


def encode_own(value):
    """A pickle; where it has large buffers, the parts of one that leaves them where they lie."""
    if type(value) in (bytes, bytearray) and len(value) >= OUT_OF_BAND:
        value = pickle.PickleBuffer(value)
    buffers = []

    def keep(buffer):
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND:
            return True
        buffers.append(raw)
        return False

    try:
        body = pickle.dumps(value, 5, buffer_callback=keep)
    except Exception:
        import cloudpickle

        buffers.clear()
        body = cloudpickle.dumps(value, 5, buffer_callback=keep)
    if not buffers:
        return b"\x01" + body
    table = b"".join(struct.pack("<BQ", raw.readonly, raw.nbytes) for raw in buffers)
    return [b"\x02" + struct.pack("<I", len(buffers)) + table + struct.pack("<Q", len(body)), body, *buffers]


def describe(error, phase, own):
    """The exception's plaintext, whatever its parts do when they are looked at."""
    import farlane_error

    return farlane_error.describe(error, phase, own)


def flush_streams():
    """Sends what the task printed before its result leaves."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def open_streams(worker):
    """Python's own stdout and stderr travel in the worker's socket, in order with its results."""
    import io

    class Tube(io.RawIOBase):
        def __init__(self, kind):
            self.kind = kind

        def writable(self):
            return True

        def fileno(self):
            return self.kind

        def write(self, data):
            size = len(data)
            if os.getpid() != worker.pid:
                os.write(self.kind, data)
                return size
            room = State.log_left
            if room <= 0:
                State.dropped += size
                return size
            take = min(size, room, PIECE - LOG.size)
            State.log_left -= take
            worker.transmit(LOG.pack(KIND_LOG, self.kind, 0, 0, State.token), bytes(data[:take]))
            return take

    def text(kind):
        buffered = io.BufferedWriter(Tube(kind), 8192)
        return io.TextIOWrapper(buffered, "utf-8", errors="backslashreplace", line_buffering=True)

    sys.stdout, sys.stderr = text(STDOUT), text(STDERR)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr

    def progress(fraction, words=""):
        body = struct.pack("<d", float(fraction)) + str(words).encode("utf-8", "backslashreplace")[:1024]
        worker.transmit(LOG.pack(KIND_LOG, PROGRESS, 0, 0, State.token), body)

    State.progress = staticmethod(progress)


class Scratch:
    """A worker's own folder: what a task leaves there is gone before the next one."""

    def __init__(self, parent):
        self.path = os.path.join(parent, "w%d" % os.getpid())
        # Left by a process of the same number, where process numbers are the machine's.
        remove(self.path)
        os.mkdir(self.path, 0o700)
        os.chdir(self.path)
        for name in ("TMPDIR", "HOME"):
            os.environ[name] = self.path
        self.folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.changed = os.fstat(self.folder).st_mtime_ns

    def sweep(self):
        """Empties it where something was made or removed in it since the last time."""
        if os.fstat(self.folder).st_mtime_ns == self.changed:
            return
        remove_below(self.path)
        os.fchdir(self.folder)
        self.changed = os.fstat(self.folder).st_mtime_ns


def remove(path):
    """Removes a folder with all in it; a link that a task put in its place, and not where it leads."""
    if os.path.islink(path):
        try_quietly(os.unlink, path)
    elif os.path.lexists(path):
        remove_below(path)
        try_quietly(os.rmdir, path)


def remove_below(path):
    """Removes what a folder holds; what cannot be removed stays within the scratch's bound."""
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files:
            try_quietly(os.unlink, os.path.join(folder, name))
        for name in folders:
            below = os.path.join(folder, name)
            try_quietly(os.unlink if os.path.islink(below) else os.rmdir, below)


def try_quietly(what, path):
    """Does it, and does not mind an error of the system's."""
    try:
        what(path)
    except OSError:
        pass


def die_with_parent(parent):
    """Outlives its template by nothing, where no process namespace sees to that."""
    try:
        import ctypes
    except ImportError:
        return
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def worker_main(fds, scratch, parent):
    """Life of a forked worker; never returns."""
    data, logs = fds
    if parent != 1:
        die_with_parent(parent)
    os.setsid()
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(logs, 1)
    os.dup2(logs, 2)
    os.close(null)
    os.close(logs)
    sock = socket.socket(fileno=data)
    sock.setblocking(True)
    worker = Worker(sock, Scratch(scratch))
    open_streams(worker)
    os.register_at_fork(after_in_child=sock.close)
    sock.send(struct.pack("<BI", KIND_HELLO, worker.pid))
    worker.run()


class Template:
    """The fork server."""

    def __init__(self, control, scratch):
        self.control = control
        self.scratch = scratch
        self.workers = {}
        self.numbers = {}

    def serve(self):
        wake_read, wake_write = os.pipe()
        for fd in (wake_read, wake_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        self.control.send(b"R" + sys.version.split()[0].encode())
        while True:
            for fd, _ in poll.poll():
                if fd == wake_read:
                    os.read(wake_read, 512)
                    self.reap()
                elif not self.command(wake_read, wake_write):
                    return

    def command(self, *inherited):
        message, fds, _, _ = socket.recv_fds(self.control, 64, 4)
        if not message:
            return False
        number = int.from_bytes(message[1:5], "little")
        if message[:1] == b"F":
            self.fork(number, fds, inherited)
        elif message[:1] == b"K" and number in self.numbers:
            self.kill(self.numbers[number])
        return True

    def fork(self, number, fds, inherited):
        me = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            for fd in fds:
                os.close(fd)
            self.control.send(b"E" + number.to_bytes(4, "little") + error.errno.to_bytes(4, "little"))
            return
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for fd in inherited:
                    os.close(fd)
                self.control.close()
                worker_main(fds, self.scratch, me)
            finally:
                os._exit(70)
        for fd in fds:
            os.close(fd)
        self.workers[pid] = number
        self.numbers[number] = pid

    def kill(self, pid, group_only=False):
        """Ends a process and its group; what else it left behind is swept when it is reaped."""
        for end in (os.killpg,) if group_only else (os.killpg, os.kill):
            try:
                end(pid, signal.SIGKILL)
            except OSError:
                pass

    def reap(self):
        reaped = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            reaped.append(pid)
            number = self.workers.pop(pid, None)
            if number is not None:
                del self.numbers[number]
                self.control.send(b"X" + number.to_bytes(4, "little") + status.to_bytes(4, "little"))
        for pid in reaped:
            self.kill(pid, group_only=True)
            remove(os.path.join(self.scratch, "w%d" % pid))
        if reaped:
            self.sweep()

    def sweep(self):
        """Kills orphans: this process is their reaper, and every live worker is a child it knows.

        Each death brings a new signal and a new sweep, until nothing is left.
        """
        me = os.getpid()
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == me or int(entry) in self.workers:
                continue
            try:
                with open("/proc/%s/stat" % entry, "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == me and fields[0] != b"Z":
                self.kill(int(entry))


def isolate(settings):
    """Limits that hold for every worker; set before the first fork, lowered only."""
    import resource

    for name, value in settings.get("limits", {}).items():
        kind = getattr(resource, "RLIMIT_" + name, None)
        if kind is not None:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))


def main():
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(control.recv(PIECE))
    root = settings["root"]
    sys.path[:] = [p for p in sys.path if p and p != root and not p.startswith(root + "/")]
    sys.path += [root + "/lib", root + "/cloudpickle.whl"]
    if settings.get("environment"):
        import site

        sys.path.append(settings["environment"])
        site.addsitedir(settings["environment"])
    sys.path.append(root + "/shim")
    State.node, State.region = settings.get("node", ""), settings.get("region", "")
    isolate(settings)
    import types

    import cloudpickle
    import farlane_error
    import farlane_value

    del cloudpickle, farlane_error, farlane_value
    if os.getpid() != 1:
        # Before the first fork, so that no worker has to load it.
        try:
            import ctypes

            del ctypes
        except ImportError:
            pass
    runtime = types.ModuleType("_farlane_worker")
    runtime.State = State
    sys.modules["_farlane_worker"] = runtime
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]
    os.chdir(settings["scratch"])
    gc.collect()
    gc.freeze()
    Template(control, settings["scratch"]).serve()


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise
