"""Run by path, with the standard library alone, inside namespaces of its own.

Arguments: a JSON list of folders that become read-only, then the command that takes this place.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys

BIND, REMOUNT, READ_ONLY, RECURSIVE = 0x1000, 0x20, 0x1, 0x4000
KEPT = {os.ST_NOSUID: 0x2, os.ST_NODEV: 0x4, os.ST_NOEXEC: 0x8}
SIOCSIFFLAGS, UP = 0x8914, 0x1


def read_only(folder: str) -> None:
    """Mount a folder over itself so that nobody, not even root, writes into it."""
    mount = ctypes.CDLL(None, use_errno=True).mount
    place = os.fsencode(folder)
    flags = sum(mine for theirs, mine in KEPT.items() if os.statvfs(folder).f_flag & theirs)
    for asked in (BIND | RECURSIVE, BIND | REMOUNT | READ_ONLY | flags):
        if mount(place, place, None, ctypes.c_ulong(asked), None):
            raise OSError(ctypes.get_errno(), "cannot be mounted read-only", folder)


def loopback() -> None:
    """Bring the loopback up: a machine without a network still talks to itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", UP, b""))


def main() -> None:
    """Do what the arguments say."""
    folders, *command = sys.argv[1:]
    loopback()
    for folder in json.loads(folders):
        read_only(folder)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
