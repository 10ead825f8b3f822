"""The sandbox of an ordinary user, who has other processes: with bubblewrap and without.

Run as root, the test becomes such a user in mount namespaces of its own, where Python and this
repository can be read by everybody; the machine stays as it is.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gclib.chapters import find_chapter, repository
from gclib.grading.sandbox.visible import write_visible

USER = 61234  # nobody has this number, so its processes are those of the test alone

SCRIPT = """
import os, resource, subprocess, sys, time
from pathlib import Path
from gclib.checks.handle import StudentError
from gclib.grading.sandbox.jail import Limits, NoSandbox, Sandbox, check_sandbox

visible, unsafe = Path(sys.argv[1]), sys.argv[2] == "unsafe"
if not unsafe:
    try:
        check_sandbox()
    except NoSandbox as error:
        sys.exit(f"skip: {error}")
others = [subprocess.Popen(["sleep", "600"]) for _ in range(150)]

def probe(body):
    lines = "".join(f"    {line}\\n" for line in body.split("\\n"))
    cells = [("answer", True, "import os, time, threading\\ndef probe():\\n" + lines)]
    with sandbox.student(cells, "a student") as student:
        try:
            return student.begin().definitions["probe"].call()
        except StudentError as error:
            return str(error)

def expect(found, text):
    assert text in str(found), found

bomb = "while True:\\n    try:\\n        os.fork()\\n    except OSError:\\n        pass"
takes = "for i in range(6):\\n    if os.fork() == 0:\\n        kept = b'x' * (300 * 2**20)\\n"
takes += "        time.sleep(60)\\ntime.sleep(60)"
fork = "pid = os.fork()\\nif pid == 0:\\n    os._exit(7)\\n"
fork += "one = threading.Thread(target=int)\\none.start()\\none.join()\\n"
fork += "return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
try:
    with Sandbox(visible, Limits(2**29, 30, 90), unsafe=unsafe) as sandbox:
        expect(probe("return os.getuid()"), str(os.getuid()))
        expect(probe(fork), "7")
        expect(probe(bomb), "more than 64 processes")
        expect(probe(takes), "took more memory than the 0.5 GiB")
        expect(probe("os.kill(os.getppid(), 9)"), "PermissionError")
        expect(probe("os.kill(-1, 9)"), "PermissionError")
        expect(probe(fork), "7")
    assert [one.poll() for one in others] == [None] * len(others)
finally:
    for one in others:
        one.kill()
print("done as", os.getuid())
"""


def closed(path):
    """Folders on the way to a path that others may not enter."""
    return [p for p in Path(path).parents if not p.stat().st_mode & 0o001]


def as_ordinary_user(command, needed, folder):
    """The command as a user of its own, who can read what is needed.

    Folders that only root may enter are hidden by empty ones, in which what is needed is put back.
    """
    veiled = sorted({closed(path)[-1] for path in needed if closed(path)})
    steps, inside = ["set -e", "mount --make-rprivate /"], []
    for number, path in enumerate(needed):
        if closed(path):
            inside.append((folder / f"stage{number}", path))
            steps += [f"mkdir {inside[-1][0]}", f"mount --bind '{path}' {inside[-1][0]}"]
    steps += [f"mount -t tmpfs -o mode=755 none '{veil}'" for veil in veiled]
    for stage, path in inside:
        steps += [f"mkdir -p '{path}'", f"mount --bind {stage} '{path}'"]
    steps += [f'exec setpriv --reuid {USER} --regid {USER} --clear-groups "$@"']
    return ["unshare", "--mount", "sh", "-c", "\n".join(steps), "sh", *command]


@pytest.mark.full
@pytest.mark.parametrize("mode", ["bubblewrap", "unsafe"])
def test_beside_150_other_processes(mode, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage")
    folder.chmod(0o755)
    write_visible(find_chapter("01"), folder / "visible")
    command = [sys.executable, "-c", SCRIPT, str(folder / "visible"), mode]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(repository())}
    expected = f"done as {os.getuid()}"
    if os.getuid() == 0:
        for program in ("unshare", "setpriv", "mount"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not here")
        needed = [sys.prefix, sys.base_prefix, repository(), folder]
        base = Path("/tmp", f"gclib-stage-{os.getpid()}")
        base.mkdir(mode=0o755)
        try:
            able = subprocess.run(
                as_ordinary_user(["true"], needed, base), capture_output=True, text=True
            )
            if able.returncode:
                pytest.skip(f"root may not mount here: {able.stderr.strip()}")
            for stage in base.iterdir():
                stage.rmdir()
            run(as_ordinary_user(command, needed, base), environment, f"done as {USER}")
        finally:
            for stage in base.iterdir():
                stage.rmdir()
            base.rmdir()
    else:
        run(command, environment, expected)


def run(command, environment, expected):
    done = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, timeout=300
    )
    if "skip: " in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected
