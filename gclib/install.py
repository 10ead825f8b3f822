"""Create ``.venv`` and install the course: ``python -m gclib.install [KIND]``.

Runs on a bare Python, so it imports nothing but the standard library. Safe to run again at any
time, after an interruption too; does nothing when all is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

OLDEST, FIRST_UNTESTED = (3, 10), (3, 14)
EXTRAS = {
    "course": "course",
    "grade": "course,grade",
    "book": "book",
    "test": "test",
    "full": "test,peers,book",
}
ROOT = Path(__file__).resolve().parents[1]


class InstallFailed(Exception):
    """Installation stopped; ``str()`` says what to do."""


def environment_python(environment: Path) -> Path:
    """Path of the environment's Python."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(kind: str, environment: Path, torch_index: str | None = None) -> bool:
    """Install what ``kind`` needs; whether there was anything to do.

    Raises:
        InstallFailed: this Python or a step of the installation does not work.
    """
    if not OLDEST <= sys.version_info[:2] < FIRST_UNTESTED:
        raise InstallFailed(
            f"Python {platform.python_version()} is not one that the course was tested with (3.10 "
            "to 3.13). Name another one, for example: make lab PYTHON=python3.12"
        )
    stamp = environment / f".gclib-{kind}"
    wanted = _fingerprint(kind, torch_index)
    python = environment_python(environment)
    if python.exists() and stamp.is_file() and stamp.read_text() == wanted:
        return False
    stamp.unlink(missing_ok=True)  # until pip has finished, nothing is known
    _make_environment(environment, python)
    if not _has_torch(python):
        _announce_download(torch_index)
    if torch_index:
        _pip(python, ["torch", "torchvision", "--index-url", torch_index])
    _pip(python, ["-e", f".[{EXTRAS[kind]}]"])
    stamp.write_text(wanted)
    return True


def _fingerprint(kind: str, torch_index: str | None) -> str:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    parts = (text, kind, sys.version, torch_index or "", str(ROOT))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _make_environment(environment: Path, python: Path) -> None:
    """Create the environment, or a new one where an interruption left half of one."""
    same = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    if python.exists() and _runs([python, "-c", same]) and _runs([python, "-m", "pip", "-V"]):
        return
    print(f"Creating {environment.name} with Python {platform.python_version()} ...", flush=True)
    command = [sys.executable, "-m", "venv", "--clear", str(environment)]
    if subprocess.run(command, check=False).returncode != 0:
        if _runs([sys.executable, "-c", "import ensurepip"]):
            raise InstallFailed("Python could not create the environment; the lines above say why")
        raise InstallFailed(
            "Python could not create the environment. On Debian and Ubuntu its venv is a package "
            f"of its own: sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        )


def _runs(command: list) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _has_torch(python: Path) -> bool:
    return _runs(
        [python, "-c", "import importlib.util as u, sys; sys.exit(not u.find_spec('torch'))"]
    )


def _announce_download(torch_index: str | None) -> None:
    if torch_index:
        print("Installing PyTorch from the index you named, then the rest.", flush=True)
        return
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        print(
            "PyTorch for Linux brings its GPU libraries: about 3 GB to download, 6 GB on disk.\n"
            "The build for CPUs alone is about 200 MB and enough for every chapter. To choose it,\n"
            "stop now (Ctrl-C), look up the index address of the CPU build at pytorch.org\n"
            "(Get started), and run: make lab TORCH_INDEX=<address>",
            flush=True,
        )
    else:
        print("Downloading PyTorch and JupyterLab: about 300 MB.", flush=True)


def _pip(python: Path, arguments: list[str]) -> None:
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    if not sys.stdout.isatty():
        command.append("--quiet")
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise InstallFailed(
            "pip could not install everything; its last lines above say why. Nothing is lost: mend "
            "it (network, disk space) and run the same command again"
        )


def main(argv: list[str] | None = None) -> int:
    """Install; one sentence and exit status 1 if it does not work."""
    parser = argparse.ArgumentParser(prog="python -m gclib.install", description=__doc__)
    parser.add_argument("kind", choices=EXTRAS, nargs="?", default="course")
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv")
    parser.add_argument("--torch-index", default=os.environ.get("TORCH_INDEX") or None)
    options = parser.parse_args(argv)
    try:
        if install(options.kind, options.environment, options.torch_index):
            print(f"Installed into {options.environment.name}.")
    except InstallFailed as error:
        print(f"Not installed: {error}.", file=sys.stderr)
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"Not installed: {error.strerror}{where}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
