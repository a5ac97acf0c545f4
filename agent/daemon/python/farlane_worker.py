"""Worker: the loop of a process inside the sandbox that runs tasks.

Owns the functions that it has loaded, and the task that runs. Leaves forking to `farlane_template`, what it may
see and use to `farlane_room`, and sealing, limits of time, and every decision to the agent, to which it speaks
over a SEQPACKET socket. Python 3.10 or newer, standard library and cloudpickle only.

    agent --CODE, TASK------> worker  --LOG*, RESULT-------------> agent      one message a task, each way

A task's message stays in the socket until its worker is ready to run it, so the agent can take back
what has not begun. Bodies above one message follow in pieces that only the total length delimits.
"""

import os
import pickle
import socket
import struct
import sys
import time

# Agent to worker. TASK: kind, flags, _, code, attempt, blobs, token, deadline, task, log limit, memory, rank,
# gang, body.
TASK = struct.Struct("<BBHIIIQQ16sQQHHQ")
# CODE: kind, _, _, code, body. DROP: the same with an empty body. CHECKPOINT: kind alone; the task that runs is to
# make way, and looks for it without receiving it.
CODE = struct.Struct("<BBHIQ")
# Worker to agent. RESULT: kind, outcome, flags, cpu in us, peak memory in KiB, token, begin and end in monotonic ns, body.
RESULT = struct.Struct("<BBHIIQQQQ")
# LOG: kind, stream, _, dropped, token.
LOG = struct.Struct("<BBHIQ")
KIND_TASK, KIND_CODE, KIND_DROP, KIND_CHECKPOINT = 1, 2, 3, 4
KIND_HELLO, KIND_RESULT, KIND_LOG = 1, 2, 3
FLAG_PICKLE = 1
# Of a result: the worker ends after it.
FLAG_LAST = 1
RETURNED, RAISED = 0, 1
STDOUT, STDERR, PROGRESS = 1, 2, 3
# Most bytes of one message; two of them fit into the smallest usual socket buffer (208 KiB).
PIECE = 64 * 1024
# Most bytes of one answer; the template sets what the agent takes.
MAX_ANSWER = 1 << 30
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
    rank = 0
    # How many its gang has; 0 without one.
    size = 0
    # It was asked to make way.
    asked = False


class Worker:
    """One worker: its socket and the functions it has loaded."""

    def __init__(self, sock, room):
        self.sock = sock
        self.room = room
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
                _, flags, _, code, attempt, blobs, token, deadline, task, limit, memory, rank, size, total = unpack(
                    buffer
                )
                State.token, State.attempt, State.deadline, State.task = token, attempt, deadline, task
                State.log_left, State.dropped, State.rank, State.size = limit, 0, rank, size
                State.asked = False
                if blobs == 0:
                    body = self.read_body(TASK.size, n, total)
                else:
                    body = self.read_parts(TASK.size, n, blobs)
                if memory != self.memory:
                    self.limit_memory(memory)
                last = self.attempt(code, token, flags & FLAG_PICKLE, body, blobs)
                body = None
                if last or not self.room.clear():
                    # What it left would be seen by the next task; that one is taken back from the socket.
                    os._exit(0)
            elif buffer[0] == KIND_CODE:
                _, _, _, code, total = CODE.unpack_from(buffer)
                self.codes[code] = bytes(self.read_body(CODE.size, n, total))
            elif buffer[0] == KIND_DROP:
                code = CODE.unpack_from(buffer)[3]
                self.codes.pop(code, None)
                self.functions.pop(code, None)

    def attempt(self, code, token, own, body, blobs):
        """Runs one task and answers it; true where that is the last answer of this worker."""
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
            size = len(answer) if type(answer) is bytes else sum(map(len, answer))
            if size > MAX_ANSWER:
                answer = None
                raise too_large(size)
        except SystemExit as left:
            self.leave(left)
        except BaseException as error:
            if os.getpid() != self.pid:
                os._exit(1)
            end = now()
            outcome = RAISED
            answer = describe(error, phase, own)
            size = len(answer)
        last = 0
        if end - begin > 1_000_000:
            cpu, peak = self.usage(end - begin)
            # Sooner than that nobody leaves much.
            last = FLAG_LAST if self.room.is_spoilt() else 0
        flush_streams()
        if State.dropped:
            dropped = min(State.dropped, 0xFFFFFFFF)
            self.transmit(LOG.pack(KIND_LOG, STDOUT, 0, dropped, token), b"")
        head = RESULT.pack(KIND_RESULT, outcome, last, cpu, peak, token, begin, end, size)
        if type(answer) is bytes:
            self.transmit(head, answer)
        else:
            self.transmit_parts([head, *answer])
        return last

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


def too_large(size):
    """The exception in place of a result that the agent would not take."""
    import farlane_error

    return farlane_error.PayloadTooLarge(
        "the result is %d bytes when encoded, and a node sends at most %d; return less, or in parts by several "
        "calls" % (size, MAX_ANSWER)
    )


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


def open_ear(worker):
    """A task that runs learns that it should make way: the word lies in the socket, which it does not read itself."""

    def checkpoint():
        if not State.asked and os.getpid() == worker.pid:
            try:
                head = worker.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                if head == bytes([KIND_CHECKPOINT]):
                    worker.sock.recv(1)
                    State.asked = True
            except BlockingIOError:
                pass
        return State.asked

    State.checkpoint = staticmethod(checkpoint)


def serve(fd, room):
    """Life of a worker after its template forked it; never returns."""
    sock = socket.socket(fileno=fd)
    sock.setblocking(True)
    worker = Worker(sock, room)
    open_streams(worker)
    open_ear(worker)
    os.register_at_fork(after_in_child=sock.close)
    sock.send(struct.pack("<BI", KIND_HELLO, worker.pid))
    worker.run()
