"""Bubblewrap: a command that runs another one with nothing but Python and the system in sight."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import gclib
from gclib.chapters import repository


class NoSandbox(Exception):
    """There is no way to run code safely here; ``str()`` says what to install."""


# Packages that hold the blocks which a student is to build. torchvision, which has one too, stays:
# chapters use it.
PEERS = (
    "timm",
    "mmcv",
    "mmcls",
    "mmpretrain",
    "mmdet",
    "mmseg",
    "mmaction",
    "pytorchvideo",
    "slowfast",
    "monai",
    "segmentation_models_pytorch",
)


def bubblewrap(visible: Path, hidden: Sequence[Path] = ()) -> list[str]:
    """The command that runs another one with nothing but the system, Python and ``visible``.

    No network, no other processes, no place to write, no environment. The command itself is the
    first process of its namespace: nothing inside can end it, and nothing inside outlives it.

    Args:
        visible: the folder that holds the ``gclib`` which the code may see.
        hidden: folders that must not be seen, wherever they are. This repository, an installed
            gclib, the peers and the home folder never are.

    Raises:
        NoSandbox: bubblewrap is not installed.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise NoSandbox(
            "bubblewrap is not installed; install it (Debian: apt install bubblewrap), grade in "
            "containers (Docker or Podman), or grade code you trust with --unsafe"
        )
    sites = _sites()
    path = [visible, *sites[2:]]  # Python knows the first two
    command = [program, "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1"]
    command += ["--cap-drop", "ALL", "--clearenv"]
    for name, value in environment(os.pathsep.join(map(str, path))).items():
        command += ["--setenv", name, value]
    for name in ("bin", "sbin", "lib", "lib64", "lib32"):
        path = Path("/", name)
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    command += view(_system(sites), [*hidden, *_own(), *_inside(sites)])
    command += ["--ro-bind", str(visible), str(visible)]
    command += ["--proc", "/proc", "--tmpfs", "/dev"]
    for name in ("null", "random", "urandom"):  # not zero, whose shared pages no limit counts
        command += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return [*command, "--chdir", "/", "--"]


def environment(path: str) -> dict[str, str]:
    """The whole environment of a sandbox; one thread for each process."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/dev/null",  # no folder can be made in there
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": path,
        **threads,
    }


def check_bubblewrap() -> None:
    """Run nothing in a sandbox, to see that it can be made.

    Raises:
        NoSandbox: it cannot; the message says why and what to do.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [*bubblewrap(Path(folder)), "true"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().split("\n")[-1]
        raise NoSandbox(
            f"bubblewrap cannot make a sandbox here ({said}); let users make namespaces (Debian: "
            f"sysctl kernel.unprivileged_userns_clone=1; Ubuntu: an AppArmor profile for bwrap), "
            f"grade in containers (Docker or Podman), or grade code you trust with --unsafe"
        )


def view(needed: Sequence[Path], hidden: Sequence[Path]) -> list[str]:
    """Arguments that show some folders and, wherever they would be seen in them, hide others.

    Args:
        needed: what is shown, also inside of what is hidden.
        hidden: what is not shown, whatever links lead to it.
    """
    veiled = {path.resolve() for path in hidden if path.exists()}
    shown = {part for path in needed for part in _parts(path, veiled)}
    places = dict.fromkeys(shown, True)
    for path in shown:
        real = path.resolve()
        for veil in veiled:
            if real in veil.parents:
                places[path / veil.relative_to(real)] = False
    arguments, veils = [], []
    for place in sorted(places):  # from the outside in
        above = next((places[parent] for parent in place.parents if parent in places), False)
        if above is places[place]:
            continue
        if places[place]:
            arguments += ["--ro-bind", str(place), str(place)]
        elif place.is_dir():
            arguments += ["--tmpfs", str(place)]
            veils += ["--remount-ro", str(place)]
        else:
            arguments += ["--ro-bind", "/dev/null", str(place)]
    return arguments + veils


def _parts(path: Path, veiled: set[Path]) -> list[Path]:
    """A folder, or what Python needs of one that is hidden itself."""
    if path.resolve() not in veiled:
        return [path]
    return [path / name for name in ("bin", "lib", "lib64", "pyvenv.cfg") if (path / name).exists()]


def _sites() -> list[Path]:
    """Folders of installed packages: this Python's two, and where torch is if that is elsewhere."""
    paths = sysconfig.get_paths()
    sites = [Path(paths["purelib"]), Path(paths["platlib"])]
    found = importlib.util.find_spec("torch")
    if found is not None and found.origin:
        where = Path(found.origin).parent.parent
        if not any(where.samefile(site) for site in sites if site.exists()):
            sites.append(where)
    return sites


def _system(sites: list[Path]) -> list[Path]:
    """Read-only parts of the system that Python needs."""
    names = ("ld.so.cache", "ld.so.conf", "localtime", "alternatives")
    found = {
        Path("/usr"),
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(sys.executable).resolve().parent.parent,
        *sites,
        *(Path("/etc", name) for name in names),
    }
    return [path for path in found if path.exists() and path != Path("/")]


def _own() -> list[Path]:
    """What belongs to the grader: the answers, and all else at home."""
    own = [Path(gclib.__file__).parent]
    if (root := repository()) is not None:
        own.append(root)
    home = Path(os.path.expanduser("~"))
    return own if home.resolve() == Path("/") else [*own, home]


def _inside(sites: list[Path]) -> list[Path]:
    """Answers among the installed packages."""
    return [site / name for site in sites for name in ("gclib", *PEERS)]
