"""A filter of system calls, set on a student's process before any of its code runs.

It refuses what Python and torch have no use for: the network, looking into other processes, leaving
their session, namespaces and mounts, ways to take memory that no limit counts, and parts of the
kernel whose mistakes have let code out of sandboxes. It needs no rights, holds for all that the
process starts, and cannot be taken off. On machines other than x86-64 and aarch64 there is no
filter; the other walls stand without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct

# Calls that fail with EPERM: name, number on x86-64, number on aarch64 (- where there is none).
_REFUSED = """
    socket 41 198, socketpair 53 199, setsid 112 157

    shmget 29 194, shmat 30 196, msgget 68 186, msgsnd 69 189, semget 64 190, semop 65 193,
    mq_open 240 180, memfd_create 319 279, memfd_secret 447 447, io_setup 206 0, vmsplice 278 75,
    userfaultfd 323 282, inotify_init 253 -, inotify_init1 294 26, fanotify_init 300 262,
    landlock_create_ruleset 444 444

    ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440,
    process_mrelease 448 448, kcmp 312 272, pidfd_open 434 434, pidfd_getfd 438 438,
    pidfd_send_signal 424 424, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, tkill 200 130,
    move_pages 279 239, migrate_pages 256 238, sched_setaffinity 203 122,
    sched_setscheduler 144 119, sched_setparam 142 118, sched_setattr 314 274, setpriority 141 140,
    ioprio_set 251 30, perf_event_open 298 241

    unshare 272 97, setns 308 268, mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51,
    open_tree 428 428, move_mount 429 429, fsopen 430 430, fsconfig 431 431, fsmount 432 432,
    fspick 433 433, mount_setattr 442 442, open_by_handle_at 304 265, name_to_handle_at 303 264

    bpf 321 280, io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427,
    add_key 248 217, request_key 249 218, keyctl 250 219, kexec_load 246 104,
    kexec_file_load 320 294, init_module 175 105, finit_module 313 273, delete_module 176 106,
    syslog 103 116, acct 163 89, swapon 167 224, swapoff 168 225, reboot 169 142, iopl 172 -,
    ioperm 173 -, modify_ldt 154 -, personality 135 92, lookup_dcookie 212 18, quotactl 179 60,
    quotactl_fd 443 443, nfsservctl 180 42, uselib 134 -, ustat 136 -, sysfs 139 -,
    vhangup 153 58, set_mempolicy 238 237, set_mempolicy_home_node 450 450, mbind 237 235,
    clock_settime 227 112, clock_adjtime 305 266, settimeofday 164 170, adjtimex 159 171,
    sethostname 170 161, setdomainname 171 162
"""
# The same for calls that are refused for some arguments, see _argument_rules.
_BY_ARGUMENT = """
    clone 56 220, clone3 435 435, kill 62 129, tgkill 234 131, prlimit64 302 261, fcntl 72 25,
    ioctl 16 29, prctl 157 167, mmap 9 222
"""
_LAST = 462  # the newest call looked at here (mseal); those after it are refused as not there
_X32 = 0x40000000
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # audit's name, column above

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x35, 0x45
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_REFUSE = _ERROR | errno.EPERM
_NEW_NAMESPACES = 0x7E020000  # the CLONE_NEW... flags of clone
_SHARED_ANONYMOUS = (
    0x21  # MAP_SHARED | MAP_ANONYMOUS: it outlives its mapping, so nothing counts it
)
_OWNER_COMMANDS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: have the kernel send signals
_TERMINALS = (0x8901, 0x8902, 0x5412, 0x541C)  # FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX
_KEPT = (1, 4, 36, 41)  # PR_SET_...: PDEATHSIG, DUMPABLE, CHILD_SUBREAPER, THP_DISABLE


def program(machine: str, keeper: int) -> bytes:
    """The filter, in the kernel's form; empty for a machine that it is not written for.

    Args:
        machine: as ``platform.machine()`` says.
        keeper: the process that watches the student's; no signal may be sent to it.
    """
    if machine not in _MACHINES:
        return b""
    audit, column = _MACHINES[machine]
    steps = [(_LOAD, 0, 0, 4), (_IF_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _REFUSE)]
    steps += [(_LOAD, 0, 0, 0), *_when(_IF_AT_LEAST, _X32, _REFUSE)]
    steps += _when(_IF_AT_LEAST, _LAST + 1, _ERROR | errno.ENOSYS)
    for number in _numbers(_REFUSED, column).values():
        steps += _when(_IF_EQUAL, number, _REFUSE)
    rules = _argument_rules(keeper)
    for name, number in _numbers(_BY_ARGUMENT, column).items():
        body = [*rules[name], (_RETURN, 0, 0, _ALLOW)]
        steps += [(_IF_EQUAL, 0, len(body), number), *body]
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _numbers(table: str, column: int) -> dict[str, int]:
    rows = [entry.split() for entry in table.replace(",", "\n").split("\n") if entry.strip()]
    return {row[0]: int(row[1 + column]) for row in rows if row[1 + column] != "-"}


def _when(test: int, value: int, answer: int) -> list[tuple[int, int, int, int]]:
    return [(test, 0, 1, value & 0xFFFFFFFF), (_RETURN, 0, 0, answer)]


def _argument_rules(keeper: int) -> dict[str, list[tuple[int, int, int, int]]]:
    def argument(index: int) -> tuple[int, int, int, int]:
        return (_LOAD, 0, 0, 16 + 8 * index)  # its low half; both machines are little-endian

    def any_of(index: int, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
        tests = [step for value in values for step in _when(_IF_EQUAL, value, _REFUSE)]
        return [argument(index), *tests]

    return {
        "clone": [argument(0), *_when(_IF_ANY_BIT, _NEW_NAMESPACES, _REFUSE)],
        "clone3": [(_RETURN, 0, 0, _ERROR | errno.ENOSYS)],  # its flags cannot be seen; libc: clone
        "kill": any_of(0, (keeper, -keeper, -1)),
        "tgkill": any_of(0, (keeper,)),
        "prlimit64": [argument(0), (_IF_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _REFUSE)],
        "fcntl": any_of(1, _OWNER_COMMANDS),
        "ioctl": any_of(1, _TERMINALS),
        "prctl": any_of(0, _KEPT),
        "mmap": [
            argument(3),
            (_AND, 0, 0, _SHARED_ANONYMOUS),
            *_when(_IF_EQUAL, _SHARED_ANONYMOUS, _REFUSE),
        ],
    }


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def install() -> bool:
    """Set the filter on this thread and all that it starts; whether there is one now."""
    code = program(platform.machine(), os.getppid())
    if not code:
        return False
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        return False
    with contextlib.suppress(OSError):
        prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which only root may set a filter
        return prctl(22, 2, ctypes.byref(_Program(len(code) // 8, code))) == 0
    return False
