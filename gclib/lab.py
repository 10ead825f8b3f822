"""``gclib lab``: open JupyterLab at a chapter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gclib.chapters import Chapter
from gclib.workspace import start, work_folder


def open_lab(chapter: Chapter, arguments: list[str]) -> int:
    """Prepare ``work/`` and run JupyterLab on the chapter's notebook until it is closed.

    JupyterLab takes the next free port by itself, and prints its address; a browser opens only
    where there is a display.
    """
    for started in start():
        if started.what == "new":
            print(f"work/{started.chapter.notebook} is your copy.")
    root = work_folder().parent
    # The default address, unlike a file argument, is also the one that JupyterLab prints.
    address = f"--LabApp.default_url=/lab/tree/work/{chapter.notebook}"
    # Defaults of ours, below the student's own settings: no question about news at the start.
    settings = f"--LabApp.app_settings_dir={Path(__file__).with_name('lab_settings')}"
    command = [sys.executable, "-m", "jupyter", "lab", address, settings, *arguments]
    if not _has_display():
        command.append("--no-browser")
        print("No display here: open the address that JupyterLab prints below in a browser.")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # containers; JupyterLab refuses root otherwise
    command.append("--ServerApp.port_retries=100")
    if os.name == "posix":  # become JupyterLab, so that signals reach it and nothing stays behind
        os.chdir(root)
        sys.stdout.flush()
        os.execve(sys.executable, command, _environment())
    try:
        return subprocess.run(command, cwd=root, env=_environment(), check=False).returncode
    except KeyboardInterrupt:
        return 0


def _has_display() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _environment() -> dict[str, str]:
    """The environment's programs first, so that nbgrader finds its own."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path}
