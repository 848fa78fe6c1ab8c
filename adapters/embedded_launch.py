"""Becomes another program: with other rights, and with a signal waiting for it when its parent dies.

Room: adapters. Run by its path, in an interpreter of its own (`python -I -S`), never imported: doing this between
fork and exec of the service itself could deadlock on a lock that one of its threads holds.
Standard library only, since the interpreter is started without site-packages.

    embedded_launch.py PARENT_PID DEATH_SIGNAL UID GID CAPABILITY PROGRAM [ARGUMENT]...

DEATH_SIGNAL 0: outlives its parent. UID -1: stays who it is. CAPABILITY -1: none is kept.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def become(uid: int, gid: int, capability: int) -> None:
    """Give up root for another user, keeping at most one capability (below 32), and that one over exec too."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.setgroups([])
    os.setgid(gid)
    if capability >= 0:
        # Without this bit access() ignores capabilities, and PostgreSQL looks for its own programs by access().
        _checked(libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
    os.setuid(uid)
    if capability >= 0:
        sets = (_Sets * 2)()
        sets[0].effective = sets[0].permitted = sets[0].inheritable = 1 << capability
        _checked(libc.capset(ctypes.byref(_Header(CAPABILITY_VERSION_3, 0)), ctypes.byref(sets)))
        _checked(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def main(arguments: list[str]) -> None:
    """Never returns: the program takes this process over, or it ends."""
    parent, death_signal, uid, gid, capability = (int(text) for text in arguments[:5])
    program = arguments[5:]
    if uid >= 0:
        become(uid, gid, capability)
    if death_signal and sys.platform == "linux":
        # After the change of user, which would clear it. The parent may have died before it was set.
        _checked(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0))
        if os.getppid() != parent:
            raise SystemExit(1)
    os.umask(0o077)
    os.execv(program[0], program)  # noqa: S606 - a shell is what we do not want


if __name__ == "__main__":
    main(sys.argv[1:])
