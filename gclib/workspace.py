"""The student's own copies of the chapters: ``work/``, which nothing here ever overwrites."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from gclib.chapters import CHAPTERS, Chapter, repository


class WorkspaceError(Exception):
    """Nothing was lost; ``str()`` says what is wrong and what to do."""


@dataclass(frozen=True)
class Started:
    """What ``start`` did with one chapter: ``"new"``, ``"kept"`` or ``"again"``."""

    chapter: Chapter
    path: Path
    what: str
    backup: Path | None = None


def work_folder() -> Path:
    """The folder ``work/`` of the checkout.

    Raises:
        WorkspaceError: gclib was installed without the chapters.
    """
    root = repository()
    if root is None:
        raise WorkspaceError(
            "the chapters are not here: gclib was installed without them. Clone the course and "
            "run this command in its folder"
        )
    return root / "work"


def start(chapters: tuple[Chapter, ...] = CHAPTERS, *, again: bool = False) -> list[Started]:
    """Copy chapters into ``work/``.

    A notebook that is already there is kept. With ``again`` it is renamed and a fresh one put in
    its place.

    Raises:
        WorkspaceError: a chapter is missing, or the disk is full or read-only.
    """
    work = work_folder()
    done = []
    for chapter in chapters:
        source = work.parent / "chapters" / chapter.notebook
        if not source.is_file():
            raise WorkspaceError(
                f"chapters/{chapter.notebook} is missing; restore it with: git checkout chapters"
            )
        target = work / chapter.notebook
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            created, backup = _copy(source, target, again)
        except OSError as error:
            raise WorkspaceError(_explain(error, f"work/{chapter.notebook}")) from None
        what = "again" if backup else "new" if created else "kept"
        done.append(Started(chapter, target, what, backup))
    return done


def _copy(source: Path, target: Path, again: bool) -> tuple[bool, Path | None]:
    """Copy in one step that fails rather than overwrite; whether a file was made, and the backup.

    The copy is complete before anything is renamed, so a full disk leaves all as it was.
    """
    if target.exists() and not again:
        return False, None
    number, partial = tempfile.mkstemp(".partial", f".{target.name}.", target.parent)
    backup = None
    try:
        with open(number, "wb") as file:
            file.write(source.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, stat.S_IMODE(source.stat().st_mode))
        if again and target.exists():
            backup = _set_aside(target)
        try:
            os.link(partial, target)  # unlike rename, never replaces a file
        except FileExistsError:
            return False, backup
        except OSError:  # a file system without hard links
            if target.exists():
                return False, backup
            os.rename(partial, target)
        return True, backup
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def _set_aside(target: Path) -> Path:
    """Rename a notebook to one with the time in its name."""
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    backup = target.with_name(f"{target.stem}.{stamp}{target.suffix}")
    number = 1
    while True:
        try:
            os.link(target, backup)  # unlike rename, never replaces the backup of another process
            os.unlink(target)
            return backup
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not backup.exists():
                os.rename(target, backup)
                return backup
        number += 1
        backup = target.with_name(f"{target.stem}.{stamp}-{number}{target.suffix}")


def _explain(error: OSError, what: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{what} was not written: the disk is full. Free some space and run this again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{what} was not written: no permission. Is the folder yours and writable?"
    return f"{what} was not written: {error.strerror or error}"
