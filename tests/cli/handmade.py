"""Notebooks made by hand from the released ones, and copies of the course to run them in."""

import copy
import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOLUTION_MARKS = ("### BEGIN SOLUTION", "### END SOLUTION")


def source_of(cell):
    return "".join(cell["source"])


def released(number):
    """The notebook of a chapter as it is handed out."""
    (path,) = (ROOT / "chapters").glob(f"{number}_*/*.ipynb")
    return json.loads(path.read_text(encoding="utf-8"))


def solved(number):
    """The same with every answer of the solution filled in."""
    (path,) = (ROOT / "solutions").glob(f"{number}_*/*.ipynb")
    answers = {}
    for one in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        lines = source_of(one).split("\n")
        kept = [line for line in lines if not any(mark in line for mark in SOLUTION_MARKS)]
        answers[grade_id(one)] = "\n".join(kept)
    notebook = released(number)
    for one in answer_cells(notebook):
        one["source"] = answers[grade_id(one)]
    return notebook


def grade_id(cell):
    return cell["metadata"].get("nbgrader", {}).get("grade_id")


def answer_cells(notebook):
    marks = [(one, one["metadata"].get("nbgrader", {})) for one in notebook["cells"]]
    return [one for one, mark in marks if mark.get("solution")]


def cell(notebook, name):
    """The cell of this grade_id."""
    (found,) = [one for one in notebook["cells"] if grade_id(one) == name]
    return found


def code(source, name=None):
    """A code cell; with a name, the answer cell of that exercise."""
    marks = {"grade_id": name, "solution": True, "grade": False, "locked": False}
    metadata = {"nbgrader": marks} if name else {}
    return {"cell_type": "code", "metadata": metadata, "source": source, "outputs": []}


def notebook_of(*cells):
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def write(path, notebook):
    """Save and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(copy.deepcopy(notebook), indent=1), encoding="utf-8")
    return path


class Clone:
    """A copy of the course, with the code, whose commands run in processes of their own."""

    def __init__(self, root):
        self.root = root
        unwanted = shutil.ignore_patterns(".ipynb_checkpoints", "*.egg-info")
        for name in ("gclib", "chapters"):
            shutil.copytree(ROOT / name, root / name, ignore=unwanted)
        for name in ("pyproject.toml", "environment.yml"):
            shutil.copy2(ROOT / name, root)

    def command(self, *arguments, python=sys.executable, options=()):
        return [str(python), *options, "-m", "gclib.cli", *map(str, arguments)]

    def gclib(self, *arguments, python=sys.executable, options=(), **settings):
        """Run ``gclib ARGUMENTS``; a finished process with its output as text."""
        return self.run(self.command(*arguments, python=python, options=options), **settings)

    def python(self, source, *, options=(), **settings):
        """Run lines of Python."""
        return self.run([sys.executable, *options, "-c", source], **settings)

    def run(self, command, *, env=None, **settings):
        return subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(env),
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=300,
            **settings,
        )

    def environment(self, more=None):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
        paths = {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        return kept | paths | {"PYTHONIOENCODING": "utf-8"} | (more or {})


def as_plain_user():
    """A ``preexec_fn`` after which root, too, obeys the permissions of files."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs POSIX permissions")
    if os.geteuid() != 0:
        return None
    if sys.platform != "linux":
        pytest.skip("root ignores permissions, and only Linux can take that power away")
    libc = ctypes.CDLL(None, use_errno=True)
    drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2

    def drop():
        for power in (dac_override, dac_read_search):
            if libc.prctl(drop_from_bounding_set, power, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl")

    if not _can(drop):
        pytest.skip("this root may not give up its power over permissions")
    return drop


def _can(drop):
    try:
        return subprocess.run(["true"], preexec_fn=drop, check=False).returncode == 0
    except subprocess.SubprocessError:
        return False


def mounts():
    """The command that runs a shell in which file systems can be mounted."""
    command = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
    probe = "mount -t tmpfs -o size=16k none /mnt"
    if not shutil.which("unshare"):
        pytest.skip("needs unshare (util-linux) to mount a small disk")
    if subprocess.run([*command, probe], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let a test mount a small disk")
    return command


def interpreters(*versions):
    """Bare interpreters of these versions on this machine, as pytest parameters."""
    found = []
    for version in versions:
        places = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
        system = shutil.which(f"python{version}", path="/usr/bin:/usr/local/bin:/opt/homebrew/bin")
        path = next(iter([*places, *([Path(system)] if system else [])]), None)
        reason = f"no Python {version} on this machine"
        found.append(
            pytest.param(path, id=version, marks=pytest.mark.skipif(path is None, reason=reason))
        )
    return found
