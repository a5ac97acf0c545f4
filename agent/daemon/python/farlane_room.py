"""A worker's room: what it alone sees, what it may use, and what is cleared between two tasks.

Owns private file systems, the filter of system calls, limits, and the children that a task leaves behind.
Leaves forking to `farlane_template` and tasks to `farlane_worker`.

    template: may mount and unshare in its own namespaces, runs nothing of a tenant's
    worker:   mounts its own /scratch, /tmp and /dev/shm, then gives up every right to mount, then meets tasks

Where there are no namespaces (tier 0) a worker has a folder of its own instead.
"""

import ctypes
import itertools
import os
import signal
import struct
import time

LIBC = ctypes.CDLL(None, use_errno=True)
# After every task: `os.waitpid` raises where there are no children, which takes three times as long.
WAITPID = ctypes.PyDLL(None).waitpid
# Source: linux/prctl.h, linux/sched.h, linux/mount.h, linux/capability.h.
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_CAP_AMBIENT = 1, 4, 22, 36, 47
SECCOMP_MODE_FILTER, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
CLONE_NEWNS = 0x20000
MS_NOSUID, MS_NODEV, MS_BIND = 2, 4, 4096
CAPABILITY_VERSION_3 = 0x20080522
# Where a worker's private file systems are seen, and the folder of its one tmpfs behind each. The last hides
# the others.
PLACES = (("/tmp", "tmp"), ("/dev/shm", "shm"), ("/scratch", "work"))
# A task's children have this long to die, in seconds; then the worker goes with them.
DEATH = 1.0
# What a task leaves beyond this goes with its worker: many files, or their bytes. Source: removing them takes
# 25 ms on a slow core, and a new worker 10.
MANY_FILES = 4096
MANY_BYTES = 64 << 20
# How folders are opened that are to be emptied.
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Where the machine runs out of memory, tasks die before its own services. Source: proc(5), oom_score_adj.
FIRST_TO_DIE = b"500"


def call(name, *arguments):
    """A function of the C library that answers below zero where it fails."""
    if getattr(LIBC, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (name, os.strerror(number)))


def prctl(option, first=0, second=0):
    long = ctypes.c_ulong
    second = second if isinstance(second, ctypes.c_void_p) else long(second)
    call("prctl", option, long(first), second, long(0), long(0))


def hide():
    """Nobody but the machine's root reads this process's memory or environment, or traces it; forks inherit it."""
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(FIRST_TO_DIE)
    except OSError:
        pass
    prctl(PR_SET_DUMPABLE, 0)


def isolate(limits):
    """Limits that hold for every worker; set before the first fork, lowered only."""
    import resource

    for name, value in limits.items():
        kind = getattr(resource, "RLIMIT_" + name, None)
        if kind is not None:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))


def enter_groups(entries):
    """Moves into the control groups that these open files lead to, and closes them."""
    for entry in entries:
        try:
            os.write(entry, b"0")
        except OSError:
            # Then the sandbox's own group and the limits above bound it.
            pass
        os.close(entry)


def shut_in(filter, size):
    """File systems of its own, `size` bytes together; after them no right to mount, and the tasks' filter."""
    call("unshare", CLONE_NEWNS)
    root = PLACES[-1][0]
    options = b"size=%d,mode=0700" % size
    call("mount", b"tmpfs", root.encode(), b"tmpfs", ctypes.c_ulong(MS_NOSUID | MS_NODEV), options)
    for place, name in PLACES:
        folder = "%s/%s" % (root, name)
        os.mkdir(folder)
        os.chmod(folder, 0o700 if place == root else 0o1777)
    for place, name in PLACES:
        folder = "%s/%s" % (root, name)
        call("mount", folder.encode(), place.encode(), None, ctypes.c_ulong(MS_BIND), None)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    call("capset", struct.pack("<Ii", CAPABILITY_VERSION_3, 0), bytes(24))
    # struct sock_fprog: a count of steps of 8 bytes, and where they are.
    program = struct.pack("@HP", len(filter) // 8, ctypes.cast(ctypes.c_char_p(filter), ctypes.c_void_p).value)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.cast(ctypes.c_char_p(program), ctypes.c_void_p))


def die_with_parent(parent):
    """Outlives its template by nothing, where no process namespace sees to that."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


class Room:
    """A worker's writable folders: what a task leaves there is gone before the next one."""

    def __init__(self, private, parent):
        if private:
            shut_in(*private)
            self.path, self.folders = PLACES[-1][0], [place for place, _ in PLACES]
        else:
            self.path = os.path.join(parent, "w%d" % os.getpid())
            self.folders = [self.path]
            # Left by a process of the same number, where process numbers are the machine's.
            remove(self.path)
            os.mkdir(self.path, 0o700)
        # What a task forks and leaves behind becomes this process's child, however it detached itself.
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        os.chdir(self.path)
        for name in ("TMPDIR", "HOME"):
            os.environ[name] = self.path
        self.folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.private = private is not None
        self.state = self.free if private else self.changed
        self.before = self.state()

    def free(self):
        """How many more files fit, which changes with every one below any of the folders; and bytes."""
        of = os.fstatvfs(self.folder)
        return of.f_ffree, of.f_bfree * of.f_frsize

    def changed(self):
        return os.fstat(self.folder).st_mtime_ns

    def is_spoilt(self):
        """Whether a task left more than is removed between two: its worker is to end. Where the folder does
        not go with the worker it is cleared at once, in the task's own time.
        """
        try:
            if self.private:
                files, size = self.state()
                return self.before[0] - files > MANY_FILES or self.before[1] - size > MANY_BYTES
            return self.state() != self.before and not self.clear()
        except OSError:
            return True

    def clear(self):
        """Ends what the last task left running, then removes what it left lying. False where any of it stays."""
        try:
            os.fchdir(self.folder)
        except PermissionError:
            os.fchmod(self.folder, 0o700)
            os.fchdir(self.folder)
        if not no_children_left():
            return False
        if self.state() != self.before:
            if not all([empty(folder) for folder in self.folders]):
                return False
            self.before = self.state()
        return True


def no_children_left():
    """Kills whatever descends from this process, until nothing does."""
    until = None
    while True:
        reaped = WAITPID(-1, None, os.WNOHANG)
        if reaped < 0:
            return True
        if reaped > 0:
            continue
        if until is None:
            until = time.monotonic() + DEATH
        elif time.monotonic() > until:
            return False
        kill_children()
        # What was killed is dead as soon as it is scheduled.
        time.sleep(0.0005)


def kill_children(but=()):
    """Kills every process whose parent this one is, `but` those numbers; their own become this one's."""
    me = os.getpid()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in but:
            continue
        try:
            with open("/proc/%s/stat" % entry, "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == me and fields[0] != b"Z":
            kill(int(entry))


def kill(pid, group_only=False):
    """Ends a process and its group."""
    for end in (os.killpg,) if group_only else (os.killpg, os.kill):
        try:
            end(pid, signal.SIGKILL)
        except OSError:
            pass


def remove(path):
    """Removes a folder with all in it; a link that a task put in its place, and not where it leads."""
    if os.path.islink(path):
        try_quietly(os.unlink, path)
    elif os.path.lexists(path):
        empty(path)
        try_quietly(os.rmdir, path)


def empty(path):
    """Removes what a folder holds, however deep and whatever its modes. False where something stays.

    Folders are lifted into the top one before they are looked into: paths end at 4,096 bytes, and files open
    at once are bounded too.
    """
    try:
        top = open_folder(path)
    except OSError:
        return False
    try:
        numbers = itertools.count()
        names = os.listdir(top)
        while names:
            gone = [discard(top, name, numbers) for name in names]
            if not any(gone):
                return False
            names = os.listdir(top)
        return True
    except OSError:
        return False
    finally:
        os.close(top)


def discard(top, name, numbers):
    """Removes an entry of a folder; the folders in it become the folder's own. False where it stays."""
    try:
        if removed(name, top):
            return True
        folder = open_folder(name, top)
    except OSError:
        return False
    try:
        for below in os.listdir(folder):
            if not removed(below, folder):
                # Without a right to write to it, a folder does not change its parent.
                os.chmod(below, 0o700, dir_fd=folder)
                os.rename(below, ".lifted-%d" % next(numbers), src_dir_fd=folder, dst_dir_fd=top)
        os.rmdir(name, dir_fd=top)
        return True
    except OSError:
        return False
    finally:
        os.close(folder)


def removed(name, folder):
    """Removes a file or an empty folder; false where it is a folder that holds something."""
    try:
        os.unlink(name, dir_fd=folder)
        return True
    except IsADirectoryError:
        pass
    try:
        os.rmdir(name, dir_fd=folder)
        return True
    except OSError:
        return False


def open_folder(path, above=None):
    """A folder to be emptied, whoever may not read it."""
    try:
        file = os.open(path, FOLDER, dir_fd=above)
    except PermissionError:
        os.chmod(path, 0o700, dir_fd=above)
        file = os.open(path, FOLDER, dir_fd=above)
    if os.fstat(file).st_mode & 0o700 != 0o700:
        os.fchmod(file, 0o700)
    return file


def try_quietly(what, path):
    """Does it, and does not mind an error of the system's."""
    try:
        what(path)
    except OSError:
        pass
