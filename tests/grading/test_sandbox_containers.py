"""Containers in place of bubblewrap: the command, and a real Podman where there is one.

The image of these tests holds a shell alone; this machine's Python and libraries are mounted, as no
image can be fetched. All else is what an instructor's container gets.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mutants.answers import references
from test_sandbox import message, probe, verdicts

from gclib.chapters import find_chapter, repository
from gclib.grading.sandbox.containers import Container
from gclib.grading.sandbox.jail import Limits, NoSandbox, Sandbox, check_sandbox
from gclib.grading.sandbox.visible import write_visible

IMAGE = "localhost/gclib-test:1"


@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_command(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    container = Container(kind, "course:1", tmp_path / "visible")
    command = container.command(tmp_path / "s", ["-s", "worker"], 2**30, 64)
    assert command[:3] == [f"/usr/bin/{kind}", "run", "--rm"]
    assert command[-4:] == ["python3", "course:1", "-s", "worker"]
    text = " ".join(command)
    for flags in (
        "--network none",
        "--ipc none",
        "--read-only",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        f"--memory {3 * 2**30} --memory-swap {3 * 2**30}",
        "--pids-limit 512",
        "--user 65534:65534",
        "--pull never",
        "--log-driver none",
    ):
        assert f" {flags} " in text
    volumes = [command[i + 1] for i, word in enumerate(command) if word == "--volume"]
    assert [volume.split(":")[0] for volume in volumes] == [
        str(tmp_path / "visible"),
        str(tmp_path / "s"),
    ]
    assert all(volume.endswith(":ro") for volume in volumes)
    assert ("--read-only-tmpfs=false" in command) == (kind == "podman")


def test_an_image_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(NoSandbox, match="name one"):
        Sandbox(tmp_path, kind="docker")


def test_the_socket_takes_one_connection_and_is_gone(tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    container = Container("docker", "course:1", tmp_path)
    server, folder = container.listen()
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    with subprocess.Popen(["sleep", "60"]) as process, socket.socket(socket.AF_UNIX) as worker:
        worker.connect(str(folder / "control"))
        accepted = container.accept(server, process)
        worker.sendall(b"x")
        assert accepted.recv(1) == b"x"
        accepted.close()
        assert not folder.parent.exists()
        server, folder = container.listen()
        process.kill()
        process.wait()
        assert container.accept(server, process) is None  # at once, as nobody can come any more
        assert not folder.parent.exists()


def make_image(folder):
    """An image with a shell and nothing else, whose Python is this one."""
    root = folder / "root"
    for name in ("usr/bin", "usr/lib", "proc", "sys", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    for name in ("lib", "lib64", "bin"):
        (root / name).symlink_to(f"usr/{name}")
    shutil.copy("/bin/sh", root / "usr/bin/sh")
    python = root / "usr/bin/python3"
    python.write_text(f'#!/usr/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    archive = folder / "root.tar"
    subprocess.run(["tar", "cf", archive, "-C", root, "."], check=True)
    subprocess.run(["podman", "import", archive, IMAGE], check=True, capture_output=True)


def make_program(folder):
    """A ``podman`` that also mounts this machine's Python and libraries."""
    real = shutil.which("podman")
    paths = [sys.prefix, sys.base_prefix, "/usr/lib", "/usr/lib64"]
    mounts = " ".join(f"--volume '{path}:{path}:ro'" for path in paths if Path(path).exists())
    # crun takes no machine that has both versions of control groups; runc does.
    runtime = "--runtime runc" if shutil.which("runc") else ""
    program = folder / "podman"
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = run ]; then\n    shift\n'
        f'    exec {real} {runtime} run {mounts} "$@"\nfi\nexec {real} "$@"\n'
    )
    program.chmod(0o755)


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    """A path on which Podman runs and has the image."""
    if shutil.which("podman") is None:
        pytest.skip("Podman is not installed (Debian: podman runc)")
    folder = tmp_path_factory.mktemp("podman")
    try:
        make_image(folder)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"Podman cannot make an image here: {error.stderr}")
    make_program(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        command = ["podman", "run", "--rm", "--network", "none", "--ulimit", "nofile=256:256"]
        command += ["--ulimit", "nproc=4096:4096", "--memory", "1g", IMAGE, "sh", "-c", "exit 0"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            subprocess.run(["podman", "rmi", IMAGE], capture_output=True)
            pytest.skip(f"Podman cannot run a container here: {done.stderr.strip()}")
        yield folder
        subprocess.run(["podman", "rmi", IMAGE], capture_output=True)


@pytest.fixture(scope="module")
def visible(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visible")
    folder.chmod(0o755)
    write_visible(find_chapter("01"), folder)
    return folder


@pytest.fixture(scope="module")
def sandbox(podman, visible):
    with Sandbox(visible, Limits(2**29, 20, 90), kind="podman", image=IMAGE) as sandbox:
        yield sandbox


def containers():
    done = subprocess.run(
        ["podman", "ps", "-a", "--format", "json"], capture_output=True, text=True
    )
    names = [name for one in json.loads(done.stdout) or [] for name in one["Names"]]
    return [name for name in names if name.startswith("gclib-")]


@pytest.mark.full
class TestPodman:
    def test_check(self, podman):
        check_sandbox("podman", IMAGE)
        with pytest.raises(NoSandbox, match="has no image localhost/gclib-none"):
            check_sandbox("podman", "localhost/gclib-none:1")

    def test_references_pass_every_check(self, sandbox):
        found = verdicts(sandbox, "01", references("01"))
        assert {v.verdict for v in found.values()} == {"passed"}

    def test_nothing_to_steal_or_to_write(self, sandbox):
        assert probe(sandbox, "return os.getuid()") == 65534
        for path in (repository() / "solutions", Path.home() / ".cache", "/home"):
            assert probe(sandbox, f"return os.path.exists({str(path)!r})") is False
        for name in ("gclib.checks.hidden.c01", "gclib.blocks.non_local"):
            assert "ModuleNotFoundError" in message(sandbox, f"import {name}")
        for folder in ("/", "/tmp", "/dev", "/dev/shm", "/dev/mqueue", "/run", "/gclib-socket"):
            assert "Error" in message(sandbox, f"open('{folder}/x', 'w').write('1')")
        assert probe(sandbox, "return os.listdir('/gclib-socket')") == []
        assert "Error" in message(sandbox, "socket.create_connection(('1.1.1.1', 80), 2)")
        status = probe(sandbox, "return open('/proc/self/status').read()")
        assert "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status

    def test_nothing_to_break(self, sandbox):
        for body in ("os._exit(0)", "os.kill(-1, 9)\ntime.sleep(30)", "os.kill(1, 9)"):
            message(sandbox, body)
        takes = "for i in range(6):\n    if os.fork() == 0:\n        kept = b'x' * (300 * 2**20)\n"
        takes += "        time.sleep(60)\ntime.sleep(60)"
        assert "took more memory than the 0.5 GiB" in message(sandbox, takes)
        bomb = "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
        assert "more than 64 processes" in message(sandbox, bomb)
        assert probe(sandbox, "return [n for n in os.listdir('/proc') if n.isdigit()][0]") == "1"

    def test_close_removes_the_container(self, podman, visible):
        with Sandbox(visible, kind="podman", image=IMAGE) as sandbox:
            sandbox.start()
            name = sandbox._container.name
            assert name in containers()
        assert name not in containers()

    def test_a_killed_grader_leaves_no_container(self, podman, visible):
        before = containers()
        code = (
            "import sys\nfrom pathlib import Path\nfrom gclib.grading.sandbox.jail import Sandbox\n"
        )
        code += f"sandbox = Sandbox(Path({str(visible)!r}), kind='podman', image={IMAGE!r})\n"
        code += "source = 'def probe():\\n    while True: pass'\n"
        code += "with sandbox.student([('answer', True, source)], 'a student') as student:\n"
        code += "    probe = student.begin().definitions['probe']\n"
        code += "    print('ready', flush=True)\n    probe.call()\n"
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as grader:
            assert grader.stdout.readline() == b"ready\n"
            assert len(containers()) == len(before) + 1
            grader.kill()
        until = time.monotonic() + 60
        while containers() != before and time.monotonic() < until:
            time.sleep(0.2)
        assert containers() == before

    def test_another_version_of_torch_is_refused(self, podman, tmp_path, visible):
        folder = tmp_path / "visible"
        shutil.copytree(visible, folder)
        worker = folder / "gclib/grading/sandbox/worker.py"
        text = worker.read_text()
        worker.write_text(text.replace("str(torch.__version__)", "'1.2.0'"))
        tmp_path.chmod(0o755)
        with (
            Sandbox(folder, kind="podman", image=IMAGE) as sandbox,
            pytest.raises(NoSandbox, match=r"has torch 1.2.0, the grader .* into the image"),
        ):
            sandbox.start()
        assert sandbox._container.name not in containers()
