"""``gclib doctor``: is everything here that the course needs, and what to type where it is not.

The output goes into public issues, so it holds no user name and no path outside of the course.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

import gclib
from gclib.chapters import repository

OLDEST_PYTHON, FIRST_UNTESTED_PYTHON = (3, 10), (3, 14)


@dataclass(frozen=True)
class Finding:
    """One line: ``state`` is ``"ok"``, ``"mend"`` (needed) or ``"optional"``."""

    name: str
    state: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        mark = {"ok": "ok", "mend": "MEND", "optional": "-"}[self.state]
        line = f"{mark:<5} {self.name:<14} {self.text}"
        return f"{line}\n      {'':<14} type: {self.remedy}" if self.remedy else line


def examine() -> Iterator[Finding]:
    """Look at everything, quickest first."""
    reports = _ask_jupyter()  # takes seconds: runs while the rest is looked at
    yield _python()
    yield Finding("system", "ok", f"{platform.system()} {platform.machine()}, {_memory()}")
    yield Finding("gclib", "ok", f"{gclib.__version__}{_commit()}")
    yield from _packages()
    yield from _torch()
    yield from _jupyter(reports)
    yield from _folders()
    yield from _programs()


def _python() -> Finding:
    here = sys.version_info[:2]
    text = f"{platform.python_version()} ({'in' if _in_environment() else 'not in'} an environment)"
    if here < OLDEST_PYTHON or here >= FIRST_UNTESTED_PYTHON:
        wanted = "3.10, 3.11, 3.12 or 3.13"
        return Finding(
            "Python", "mend", f"{text}; tested are {wanted}", "make lab PYTHON=python3.12"
        )
    return Finding("Python", "ok", text)


def _in_environment() -> bool:
    return sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ


def _memory() -> str:
    cores = os.cpu_count()
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):  # Windows
        return f"{cores} cores"
    return f"{cores} cores, {total:.0f} GiB memory ({free:.0f} free)"


def _commit() -> str:
    root = repository()
    if root is None or not (root / ".git").exists() or not shutil.which("git"):
        return ""
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f", commit {done.stdout.strip()}" if done.returncode == 0 else ""


def _packages() -> Iterator[Finding]:
    """Installed versions against the ranges of gclib's own metadata."""
    remedy = "make install   (or: pip install -e '.[course]')"
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(text) for text in requires("gclib") or []]
    except PackageNotFoundError:
        yield Finding("packages", "mend", "gclib itself is not installed", remedy)
        return
    except ImportError:
        yield Finding("packages", "mend", "the package 'packaging' is missing", remedy)
        return
    for requirement in wanted:
        if requirement.marker and not requirement.marker.evaluate({"extra": "course"}):
            continue
        name = requirement.name
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(name, "mend", "not installed", remedy)
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Finding(name, "ok", found)
        else:
            yield Finding(name, "mend", f"{found}, wanted {requirement.specifier}", remedy)


def _torch() -> Iterator[Finding]:
    remedy = "make install   (or: pip install --force-reinstall torch torchvision)"
    try:
        import torch
    except Exception as error:
        reason = f"torch does not load: {type(error).__name__}"
        yield Finding("device", "mend", reason, remedy)
        return
    threads = f"{torch.get_num_threads()} CPU threads"
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        yield Finding(
            "device", "ok", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB; {threads}"
        )
    elif torch.backends.mps.is_available():
        yield Finding("device", "ok", f"Apple GPU; {threads}")
    else:
        yield Finding("device", "ok", f"{threads}; no GPU; no chapter needs one")
    try:
        from torchvision.ops import nms

        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        yield Finding("torchvision", "ok", "its operators run")
    except Exception as error:
        text = f"does not fit torch {torch.__version__}: {type(error).__name__}"
        yield Finding("torchvision", "mend", text, remedy)


def _ask_jupyter() -> dict[str, subprocess.Popen]:
    questions = {
        "lab extension": ["labextension", "list"],
        "lab server": ["server", "extension", "list"],
    }
    return {
        name: subprocess.Popen(
            [sys.executable, "-m", "jupyter", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, words in questions.items()
    }


def _jupyter(reports: dict[str, subprocess.Popen]) -> Iterator[Finding]:
    """Extensions as JupyterLab itself reports them."""
    reinstall = "make install   (or: pip install -e '.[course]')"
    there = find_spec("jupyter_core") is not None
    for name, report in reports.items():
        lines = [line for line in report.communicate()[0].splitlines() if "nbgrader" in line]
        if any("enabled" in line for line in lines):
            yield Finding(name, "ok", "nbgrader enabled")
        elif name == "lab extension":
            fix = "python -m jupyter labextension enable @jupyter/nbgrader"
            yield Finding(name, "mend", "nbgrader is not enabled", fix if there else reinstall)
        else:
            fix = "python -m jupyter server extension enable --sys-prefix --py nbgrader"
            yield Finding(name, "mend", "nbgrader is not enabled", fix if there else reinstall)
    try:
        from jupyter_client.kernelspec import KernelSpecManager

        KernelSpecManager().get_kernel_spec("python3")
        yield Finding("kernel", "ok", "python3")
    except Exception:
        yield Finding("kernel", "mend", "no kernel called python3", reinstall)


def _folders() -> Iterator[Finding]:
    root = repository()
    if root is None:
        text = "no chapters here: gclib was installed without the course"
        yield Finding("course", "optional", text)
        return
    for name in ("work", "."):
        folder = root / name
        shown = f"{name}/" if name != "." else "the course's folder"
        if not folder.is_dir():
            yield Finding("folder", "ok", f"{shown} will be made by gclib start")
            continue
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
            free = shutil.disk_usage(folder).free / 2**30
            yield Finding("folder", "ok", f"{shown} is writable, {free:.0f} GiB free")
        except OSError as error:
            text = f"{shown} is not writable: {error.strerror}"
            yield Finding("folder", "mend", text, "chmod u+w, or move the course")


def _programs() -> Iterator[Finding]:
    for name, programs, use in (
        ("git", ("git",), "updates of the course"),
        ("make", ("make",), "the short commands (README shows the others)"),
        ("bubblewrap", ("bwrap",), "instructors: grading in a sandbox (Linux)"),
        ("chromium", ("chromium", "chromium-browser", "google-chrome"), "the browser tests"),
        ("C++ compiler", ("c++", "g++", "clang++", "cl"), "torch.compile on a CPU"),
    ):
        found = next((p for p in programs if shutil.which(p)), None)
        text = f"found {found}" if found else "not found; wanted for"
        yield Finding(name, "ok" if found else "optional", text if found else f"{text} {use}")


def main() -> int:
    """Print every finding; exit status 1 if something needed is missing."""
    missing = 0
    for finding in examine():
        print(_anonymous(str(finding)), flush=True)
        missing += finding.state == "mend"
    if missing:
        print(f"\n{missing} to mend. After that, run gclib doctor again.")
        return 1
    print("\nAll is well.")
    return 0


def _anonymous(text: str) -> str:
    """Remove the home folder and the user's name, wherever a library put them."""
    home = os.path.expanduser("~")  # stays "~" where there is none
    text = text.replace(home, "~") if len(home) > 1 else text
    user = os.environ.get("USER") or os.environ.get("USERNAME") or ""
    return re.sub(rf"(?<=[/\\]){re.escape(user)}(?!\w)", "~", text) if user else text
