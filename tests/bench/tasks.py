"""The work that is measured: what every system is given alike."""

import os
import time


def noop(i):
    return i


def echo(array):
    return array


def die_once(marker):
    """The first call tells its process in a file and waits to be killed; the second returns."""
    try:
        descriptor = os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return "retried"
    os.write(descriptor, b"%d\n" % os.getpid())
    os.close(descriptor)
    time.sleep(120)
    return "never killed"
