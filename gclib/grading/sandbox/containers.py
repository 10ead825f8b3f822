"""Docker or Podman in place of bubblewrap: a container from an image that has Python and torch.

A container gets no file descriptors, so it connects to a socket in a folder of its own; one
connection is taken, then the socket is gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from gclib.grading.sandbox.bubblewrap import NoSandbox, environment

KINDS = ("docker", "podman")
_SOCKET, _VISIBLE = "/gclib-socket", "/gclib-visible"
_OWN_MEMORY = 2 * 2**30  # of Python with torch


class Container:
    """A container that runs the worker.

    Args:
        kind: ``"docker"`` or ``"podman"``.
        image: name of the image.
        visible: the folder that holds the ``gclib`` which the code may see.

    Raises:
        NoSandbox: the program is not installed, or no image was named.
    """

    def __init__(self, kind: str, image: str, visible: Path) -> None:
        if kind not in KINDS:
            raise NoSandbox(f"{kind}: no such sandbox; there are bubblewrap, docker and podman")
        self.program = shutil.which(kind)
        if self.program is None:
            raise NoSandbox(
                f"{kind} is not installed; install it (Debian: apt install "
                f"{'docker.io' if kind == 'docker' else kind}), or grade with bubblewrap"
            )
        if not image:
            raise NoSandbox(f"{kind} needs an image with Python and torch: name one with --image")
        self.kind, self.image, self.visible = kind, image, visible
        self.name = f"gclib-{os.getpid()}-{os.urandom(6).hex()}"
        self._folder: tempfile.TemporaryDirectory | None = None

    def command(self, folder: Path, worker: list[str], memory: int, processes: int) -> list[str]:
        """The command that starts it.

        Args:
            folder: holds the socket.
            worker: arguments of ``python3``.
            memory: bytes that a student's processes may take.
            processes: how many there may be.
        """
        most = str(memory + _OWN_MEMORY)
        command = [self.program, "run", "--rm", "--pull", "never", "--name", self.name]
        command += [
            "--network",
            "none",
            "--ipc",
            "none",
            "--init=false",
            "--read-only",
            "--cap-drop",
            "ALL",
        ]
        if self.kind == "podman":
            command += ["--read-only-tmpfs=false"]  # docker has none
        command += ["--security-opt", "no-new-privileges", "--security-opt", "label=disable"]
        command += ["--memory", most, "--memory-swap", most]
        command += ["--pids-limit", str(8 * processes), "--ulimit", "nofile=256:256"]
        command += ["--ulimit", "nproc=4096:4096", "--ulimit", "core=0:0"]
        command += ["--user", "65534:65534", "--workdir", "/", "--log-driver", "none"]
        for name, value in environment(_VISIBLE).items():
            if name != "PATH":  # the image knows where its Python is
                command += ["--env", f"{name}={value}"]
        command += ["--volume", f"{self.visible}:{_VISIBLE}:ro"]
        command += ["--volume", f"{folder}:{_SOCKET}:ro"]
        return [*command, "--entrypoint", "python3", self.image, *worker]

    def listen(self) -> tuple[socket.socket, Path]:
        """A socket that takes one connection, and the folder it is in.

        The folder lies in one that only the grader may enter, so nobody else can connect.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="gclib-socket-")
        folder = Path(self._folder.name, "s")
        folder.mkdir()
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(folder / "control"))
        os.chmod(folder, 0o755)
        os.chmod(folder / "control", 0o666)  # the container's user is nobody
        server.listen(1)
        return server, folder

    def accept(self, server: socket.socket, process: subprocess.Popen) -> socket.socket | None:
        """The connection of the worker, None if it ended or did not come in two minutes."""
        until = time.monotonic() + 120
        server.settimeout(0.2)
        try:
            while time.monotonic() < until and process.poll() is None:
                with contextlib.suppress(TimeoutError):
                    return server.accept()[0]
            return None
        finally:
            server.close()
            self.forget()

    def forget(self) -> None:
        """Remove the socket and its folder."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._folder.cleanup()
            self._folder = None

    def kill(self) -> None:
        """End it: the program that started it may be gone, or may not pass it on."""
        subprocess.run(
            [self.program, "kill", self.name], capture_output=True, check=False, timeout=60
        )


SOCKET = f"{_SOCKET}/control"


def check_container(kind: str, image: str) -> None:
    """See that the program answers and has the image.

    Raises:
        NoSandbox: it does not; the message says what to do.
    """
    container = Container(kind, image, Path("/"))
    for arguments, problem in (
        (["info"], f"{kind} is installed but does not answer; start its service"),
        (
            ["image", "inspect", image],
            f"{kind} has no image {image}; build it as docs/INSTRUCTORS.md says",
        ),
    ):
        command = [container.program, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            said = done.stderr.strip().split("\n")[-1]
        except subprocess.TimeoutExpired:
            raise NoSandbox(f"{problem} (no answer in 60 s)") from None
        if done.returncode:
            raise NoSandbox(f"{problem} ({said})")
