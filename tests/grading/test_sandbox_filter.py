"""The filter of system calls: with real calls, and read by an interpreter for both machines."""

import errno
import json
import platform
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from gclib.grading.sandbox import seccomp

EPERM, ENOSYS = errno.EPERM, errno.ENOSYS
known_machine = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64") or sys.platform != "linux",
    reason="no filter for this machine",
)

# Runs the same calls with and without the filter, and says what each gave: 0 or an errno.
SCRIPT = """
import ctypes, errno, fcntl, json, mmap, os, resource, runpy, signal, socket, subprocess, sys
import threading
module = runpy.run_path(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
numbers = json.loads(sys.argv[2])
def raw(name, *arguments):
    ctypes.set_errno(0)
    if libc.syscall(numbers[name], *[ctypes.c_long(a) for a in arguments]) == -1:
        raise OSError(ctypes.get_errno(), name)
def child(call):
    def run():
        pid = os.fork()
        if pid == 0:
            try:
                call()
            except OSError as error:
                os._exit(error.errno)
            os._exit(0)
        number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if number:
            raise OSError(number, "")
    return run
name = ctypes.create_string_buffer(b"x")
address = ctypes.addressof(name)
calls = {
    "socket": socket.socket,
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "socketpair": socket.socketpair,
    "shmget": lambda: raw("shmget", 0, 4096, 0o1600),
    "msgget": lambda: raw("msgget", 0, 0o1600),
    "semget": lambda: raw("semget", 0, 1, 0o1600),
    "memfd_create": lambda: raw("memfd_create", address, 0),
    "shared memory": lambda: mmap.mmap(-1, 4096),
    "inotify_init1": lambda: raw("inotify_init1", 0),
    "personality": lambda: raw("personality", 0xFFFFFFFF),
    "ptrace": child(lambda: raw("ptrace", 0, 0, 0, 0)),
    "pidfd_open": lambda: raw("pidfd_open", os.getpid(), 0),
    "setpriority": lambda: os.setpriority(os.PRIO_PROCESS, 0, 0),
    "sched_setaffinity": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "setsid": child(os.setsid),
    "kill of the keeper": lambda: os.kill(os.getppid(), 0),
    "limits of the keeper": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU),
    "owner of signals": lambda: fcntl.fcntl(0, fcntl.F_SETOWN, 0),
    "dumpable": lambda: raw("prctl", 4, 1, 0, 0, 0),
    "umount2": lambda: raw("umount2", address, 0),
    "a newer call": lambda: raw("newer", -1, -1, -1, -1, -1),
    # what must go on
    "thread": lambda: threading.Thread(target=int).start(),
    "fork": child(lambda: None),
    "program": lambda: subprocess.run(["true"], check=True),
    "pipe": os.pipe,
    "private memory": lambda: mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE),
    "file": lambda: open(sys.argv[1]).read(),
    "own limits": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    "own signal": lambda: os.kill(os.getpid(), 0),
    "its group": lambda: os.killpg(os.getpgid(0), 0),
}
def said(call):
    try:
        call()
        return 0
    except OSError as error:
        return error.errno
found = {}
pid = os.fork()  # so that the parent is ours, and in no group of others
if pid == 0:
    os.setsid()
    plain = {name: said(call) for name, call in calls.items()}
    code = module["install"]()
    found = [plain, {name: said(call) for name, call in calls.items()}, code]
    print(json.dumps(found), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


@pytest.fixture(scope="module")
def outcomes():
    column = seccomp._MACHINES[platform.machine()][1]
    numbers = seccomp._numbers(seccomp._REFUSED, column)
    numbers |= seccomp._numbers(seccomp._BY_ARGUMENT, column) | {"newer": seccomp._LAST + 1}
    command = [sys.executable, "-c", SCRIPT, seccomp.__file__, json.dumps(numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


@known_machine
def test_real_calls(outcomes):
    plain, filtered, installed = outcomes
    assert installed is True
    names = list(plain)
    refused = names[: names.index("a newer call")]
    assert {name: filtered[name] for name in refused} == dict.fromkeys(refused, EPERM)
    assert filtered["a newer call"] == ENOSYS
    allowed = names[names.index("a newer call") + 1 :]
    assert {name: filtered[name] for name in allowed} == dict.fromkeys(allowed, 0)


@known_machine
def test_those_calls_work_without_the_filter(outcomes):
    plain = outcomes[0]
    # A container's own filter may refuse some; most must work here or the test above says nothing.
    works = [name for name, number in plain.items() if number == 0]
    assert len(works) > len(plain) / 2
    for name in ("shared memory", "unix socket", "setsid", "kill of the keeper"):
        assert plain[name] == 0, name


def answer(program, audit, number, *arguments):
    """What the kernel would do: errno, or 0 where the call is allowed."""
    steps = list(struct.iter_unpack("=HBBI", program))
    data = struct.pack("<iIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    at = value = 0
    while True:
        code, yes, no, k = steps[at]
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:
            value &= k
        elif code == 0x06:
            return 0 if k == 0x7FFF0000 else k & 0xFFFF
        else:
            test = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[code]
            at += yes if test else no


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_program_of(machine):
    program = seccomp.program(machine, keeper=77)
    assert len(program) % 8 == 0
    assert len(program) // 8 < 4096
    audit, column = seccomp._MACHINES[machine]
    at = seccomp._numbers(seccomp._BY_ARGUMENT, column)

    def of(number, *arguments):
        return answer(program, audit, number, *arguments)

    for name, number in seccomp._numbers(seccomp._REFUSED, column).items():
        assert of(number) == EPERM, name
    read, getpid = (0, 39) if machine == "x86_64" else (63, 172)
    assert of(read) == of(getpid) == 0
    other = 0x40000003 if machine == "x86_64" else 0x40000028  # 32-bit calls of the same machine
    assert answer(program, other, getpid) == EPERM
    assert of(0x40000000 | getpid) == EPERM
    assert of(463) == ENOSYS
    assert of(at["clone3"]) == ENOSYS
    assert of(at["clone"], 0x003D0F00) == 0  # a thread
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert of(at["clone"], flag | 17) == EPERM
    assert of(at["kill"], 78) == of(at["kill"], 0) == 0
    assert of(at["kill"], 77) == of(at["kill"], 2**64 - 77) == of(at["kill"], 2**64 - 1) == EPERM
    assert of(at["tgkill"], 77) == EPERM
    assert of(at["tgkill"], 78) == 0
    assert of(at["prlimit64"], 0) == 0
    assert of(at["prlimit64"], 78) == EPERM
    assert of(at["fcntl"], 1, 3) == 0
    assert of(at["fcntl"], 1, 8) == EPERM
    assert of(at["ioctl"], 0, 0x5401) == 0
    assert of(at["ioctl"], 0, 0x5412) == EPERM
    assert of(at["mmap"], 0, 4096, 3, 0x22) == of(at["mmap"], 0, 4096, 1, 0x01) == 0
    assert of(at["mmap"], 0, 4096, 3, 0x21) == EPERM


def test_no_program_for_other_machines():
    assert seccomp.program("riscv64", 1) == b""


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_numbers_are_those_of_the_kernel(machine, header):
    if not Path(header).is_file():
        pytest.skip(f"{header} is not here (Debian: linux-libc-dev)")
    text = Path(header).read_text()
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text))
    column = seccomp._MACHINES[machine][1]
    for table in (seccomp._REFUSED, seccomp._BY_ARGUMENT):
        for name, number in seccomp._numbers(table, column).items():
            assert known.get(name) == str(number), name
