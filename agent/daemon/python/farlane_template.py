"""The template: a fork server, single-threaded, warm, process 1 of its sandbox.

Owns forking workers, killing them, and telling how they ended. Runs nothing of a tenant's: environments are
put into the path of workers only. Leaves tasks to `farlane_worker`, and every decision to the agent, to which
it speaks over a SEQPACKET socket. Python 3.10 or newer with ctypes, standard library and cloudpickle only.

    agent --F number + fds--> template --fork--> worker --HELLO--> agent
    agent --K number--------> template: kills the worker and what descends from it
    agent <-P number + pidfd- template: a worker's process, where no control group counts what it uses
    agent <-E number, errno-- template: no worker could be forked
    agent <-X number, status- template: a worker has ended
"""

import errno
import gc
import json
import os
import select
import signal
import socket
import sys

# Most bytes of one message.
PIECE = 64 * 1024
# A worker's socket, the pipe for what it prints, and one file for each control group that it enters.
FDS = 8


class Template:
    """The fork server."""

    def __init__(self, control, settings):
        self.control = control
        self.scratch = settings["scratch"]
        self.environment = settings.get("environment")
        private = settings.get("private")
        self.private = (bytes.fromhex(private["filter"]), private["size"]) if private else None
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
        message, fds, _, _ = socket.recv_fds(self.control, 64, FDS)
        if not message:
            return False
        number = int.from_bytes(message[1:5], "little")
        if message[:1] == b"F":
            self.fork(number, fds, inherited)
        elif message[:1] == b"K" and number in self.numbers:
            farlane_room.kill(self.numbers[number])
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
                self.be_worker(me, *fds)
            finally:
                os._exit(70)
        if len(fds) == 2:
            self.tell_process(number, pid)
        for fd in fds:
            os.close(fd)
        self.workers[pid] = number
        self.numbers[number] = pid

    def be_worker(self, parent, data, logs, *entries):
        """Life of a forked worker; never returns."""
        farlane_room.enter_groups(entries)
        if parent != 1:
            farlane_room.die_with_parent(parent)
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(logs, 1)
        os.dup2(logs, 2)
        os.close(null)
        os.close(logs)
        room = farlane_room.Room(self.private, self.scratch)
        if self.environment:
            import site

            # Files in it may name code to run, which is the tenant's.
            shim = sys.path.pop()
            sys.path.append(self.environment)
            site.addsitedir(self.environment)
            sys.path.append(shim)
        farlane_worker.serve(data, room)

    def tell_process(self, number, pid):
        try:
            process = os.pidfd_open(pid)
        except (OSError, AttributeError):
            # An old kernel, or an interpreter built for one.
            return
        try:
            socket.send_fds(self.control, [b"P" + number.to_bytes(4, "little")], [process])
        finally:
            os.close(process)

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
            farlane_room.kill(pid, group_only=True)
            if not self.private:
                farlane_room.remove(os.path.join(self.scratch, "w%d" % pid))
        if reaped:
            # Orphans: this process is their reaper. Each death brings a new signal and a new sweep, until
            # nothing is left.
            farlane_room.kill_children(but=self.workers)


def main():
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(control.recv(PIECE))
    root = settings["root"]
    sys.path[:] = [p for p in sys.path if p and p != root and not p.startswith(root + "/")]
    sys.path += [root + "/lib", root + "/cloudpickle.whl", root + "/shim"]
    global farlane_room, farlane_worker
    import types

    import cloudpickle
    import farlane_error
    import farlane_room
    import farlane_value
    import farlane_worker

    del cloudpickle, farlane_error, farlane_value
    farlane_room.hide()
    state = farlane_worker.State
    state.node, state.region = settings.get("node", ""), settings.get("region", "")
    farlane_worker.MAX_ANSWER = settings["answer"]
    farlane_room.isolate(settings.get("limits", {}))
    runtime = types.ModuleType("_farlane_worker")
    runtime.State = state
    sys.modules["_farlane_worker"] = runtime
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]
    os.chdir(settings["scratch"])
    gc.collect()
    gc.freeze()
    Template(control, settings).serve()


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise
