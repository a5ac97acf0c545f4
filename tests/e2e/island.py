"""A machine on an island: in a network namespace of its own, whose only way out is a unix socket.

```text
island.py SOCKET PORT COMMAND…    (in its namespaces: an ordinary user, and no network but loopback)
  └─ COMMAND ── 127.0.0.1:PORT ── this relay ── SOCKET ──┐
strait.py ◀──────────────────────────────────────────────┘ late by what is imposed ──▶ the server's real port
```
No root is needed: the user namespace is made as bubblewrap makes its own. Owns the namespaces and the relay in them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
import threading

# Source: linux/sched.h, linux/sockios.h, net/if.h, linux/prctl.h.
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
PR_SET_PDEATHSIG = 1
# Who it is inside: no root, so that an agent does what it does for people.
INSIDE = 1000

LIBC = ctypes.CDLL(None, use_errno=True)


def leave() -> None:
    """Enters namespaces of its own for users and networks, with loopback up."""
    uid, gid = os.getuid(), os.getgid()
    if LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no user namespaces for whoever runs these tests")
    for name, text in (("setgroups", "deny"), ("gid_map", f"{INSIDE} {gid} 1"), ("uid_map", f"{INSIDE} {uid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16xH14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[0]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Carries bytes one way until either end is gone."""
    try:
        while piece := source.recv(64 * 1024):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        sink.close()


def relay(listener: socket.socket, path: str) -> None:
    """Carries every connection to the socket, for as long as its parent lives."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    while True:
        inner, _ = listener.accept()
        outer = socket.socket(socket.AF_UNIX)
        try:
            outer.connect(path)
        except OSError:
            inner.close()
            continue
        for ends in ((inner, outer), (outer, inner)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


def main() -> None:
    path, port, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    leave()
    listener = socket.create_server(("127.0.0.1", port))
    if os.fork() == 0:
        relay(listener, path)
    listener.close()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
