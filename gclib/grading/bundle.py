"""``gclib bundle NN``: what a class gets, by allow-list.

```
gcnet/
  chapters/  data/  gclib/  tests/     up to chapter NN; see gclib.grading.sandbox.visible
  README.md  Makefile  pyproject.toml  environment.yml  LICENSE
  bundle.json                          release, and the SHA-256 of every file
```

The same checkout gives the same bytes. A later bundle holds every file of an earlier one, so that
it can be unpacked over it; none holds ``work/``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from gclib import __version__
from gclib.chapters import CHAPTERS, Chapter, find_chapter, repository
from gclib.course import RELEASE
from gclib.grading.classroom import CourseError
from gclib.grading.generate import GenerationFailed, generate
from gclib.grading.sandbox.visible import released
from gclib.later import MANIFEST, bundled

FOLDER = "gcnet"  # the same for every bundle: the next one is unpacked over it
_TEMPLATES = Path(__file__).with_name("bundle_files")
_VERBATIM = (
    "LICENSE",
    "tests/conftest.py",
    "tests/notebooks/test_student.py",
    "tests/student_counts.py",
)
_TASKS = ("context", "pairing")
_NL = ("nl", "nl_gaussian", "nl_dot_product", "nl_concat")
_KINDS = ("embedded_gaussian", "gaussian", "dot_product", "concat")
_SMALL = ("none", "nl", "snl", "se", "gc")
# Rows of the lab whose logs a chapter's experiments read.
_LOGS = {
    "02": tuple(f"{task}_{block}" for task in _TASKS for block in _NL),
    "03": tuple(f"{task}_{block}" for task in _TASKS for block in ("none", "snl")),
    "04": (
        *("2f_avg_scale", "2f_avg_2scale", "2f_avg_add", "2f_att_scale", "2f_att_2scale"),
        *("majority_gc", "majority_none", "majority_se"),
    ),
    "05": ("2d_no_ratio", "2d_r4", "2d_r4_relu", "2e_r2", "2e_r8", "2e_r16"),
    "06": (
        *("resnet_none", "resnet_all", "resnet_after_3x3", "resnet_after_add"),
        *("resnet_c3", "resnet_c4", "resnet_c5", "resnet_r2", "resnet_r8", "resnet_r16"),
    ),
}
# Other files that they read.
_FILES = {
    "02": (
        *(f"scenes/checkpoints/mini-{task}_nl.pt" for task in _TASKS),
        *(f"cifar10/checkpoints/cifar10-nl_{kind}.pt" for kind in _KINDS),
        *(f"cifar10/runs/cifar10-nl_{kind}.json" for kind in _KINDS),
        "cifar10/runs/cifar10-none.json",
        *(f"scenes/snapshots/mini-{task}_{block}.pt" for task in _TASKS for block in _NL),
    ),
    "07": ("cifar10/two_stage.json",),
    "08": (
        *(f"coco_small/runs/mini-coco_{row}.json" for row in _SMALL),
        *(f"coco_small/checkpoints/mini-coco_{row}.pt" for row in ("nl", "gc")),
    ),
    "09": (
        *(f"kinetics_small/runs/mini-kinetics_{row}.json" for row in _SMALL),
        *(f"kinetics_small/checkpoints/mini-kinetics_{row}.pt" for row in ("nl", "gc")),
    ),
}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip can hold


def run(options: argparse.Namespace) -> int:
    """Write a bundle and say what it is."""
    chapter = find_chapter(options.chapter)
    root = _checkout()
    out = options.out or Path(f"{FOLDER}-{chapter.number}.zip")
    if os.path.lexists(out):  # at once; whoever writes it looks again
        raise _exists(out)
    _beside(out)
    check_chapters(root)
    files = contents(chapter, root)
    (write_zip if out.suffix.lower() == ".zip" else write_folder)(files, out)
    print(f"{out}: chapters 00 to {chapter.number}, {len(files)} files, release {RELEASE}")
    return 0


def contents(chapter: Chapter, root: Path) -> dict[str, bytes]:
    """The files of a bundle by their path in it, in order.

    Args:
        chapter: the last one in it.
        root: a checkout of the course.
    """
    chapters = [one for one in CHAPTERS if one.number <= chapter.number]
    files = {f"gclib/{name}": text.encode() for name, text in released(chapter).items()}
    names = [*_VERBATIM, *(f"chapters/{one.notebook}" for one in chapters)]
    for one in chapters:
        names += [f"data/scenes/runs/mini-{row}.json" for row in _LOGS.get(one.number, ())]
        names += [f"data/{name}" for name in _FILES.get(one.number, ())]
    files |= {name: (root / name).read_bytes() for name in names}
    project = student_project((root / "pyproject.toml").read_text(encoding="utf-8"))
    files["pyproject.toml"] = project.encode()
    conda = (root / "environment.yml").read_text(encoding="utf-8")
    files["environment.yml"] = student_environment(conda, project).encode()
    for path in _TEMPLATES.iterdir():
        files[path.name] = path.read_bytes()
    files = dict(sorted(files.items()))
    manifest = {
        "course": FOLDER,
        "chapter": chapter.number,
        "release": RELEASE,
        "version": __version__,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    return files | {MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode()}


def check_chapters(root: Path) -> None:
    """See that ``chapters/`` is what ``solutions/`` generates, and leaks nothing.

    Raises:
        CourseError: it is not; the message names the first file.
    """
    with tempfile.TemporaryDirectory(prefix="gclib-bundle-") as folder:
        stage = Path(folder)
        shutil.copy(root / "nbgrader_config.py", stage)
        shutil.copytree(root / "solutions", stage / "solutions")
        try:
            made = generate(stage)
        except GenerationFailed as error:
            raise CourseError(f"solutions/ cannot be released: {error}") from None
        for path in made:
            name = path.relative_to(stage)
            if not (root / name).is_file() or (root / name).read_bytes() != path.read_bytes():
                raise CourseError(f"{name} is not what solutions/ generates; run: make chapters")


def write_zip(files: dict[str, bytes], out: Path) -> None:
    """Write a zip whole or not at all, with nothing in it that depends on where and when.

    Raises:
        CourseError: ``out`` is there, or cannot be written.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(f"{FOLDER}/{name}", _EPOCH)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, on Windows too
            archive.writestr(entry, content)
    partial = _beside(out)
    try:
        _write(partial, packed.getvalue())
        try:
            os.link(partial, out)  # unlike rename, never replaces a file
        except FileExistsError:
            raise _exists(out) from None
        except OSError:  # a file system without hard links
            if os.path.lexists(out):
                raise _exists(out) from None
            os.rename(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def write_folder(files: dict[str, bytes], out: Path) -> None:
    """Write a folder whole or not at all.

    Raises:
        CourseError: ``out`` is there, or cannot be written.
    """
    partial = _beside(out)
    try:
        for name, content in files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, content)
        if os.path.lexists(out):
            raise _exists(out)
        try:
            os.rename(partial, out)
        except OSError as error:
            if os.path.lexists(out):  # since a moment ago
                raise _exists(out) from None
            raise error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def student_project(text: str) -> str:
    """``pyproject.toml`` as students need it: the course's extra alone, no linter.

    Args:
        text: the checkout's ``pyproject.toml``.
    """
    kept, section, extra = [], "", ""
    for line in text.split("\n"):
        if found := re.match(r"\[(.+)\]$", line):
            section, extra = found[1], ""
        elif section == "project.optional-dependencies":
            found = re.match(r"(\w+) = \[", line)
            extra = found[1] if found else extra
            if extra != "course" and line:
                continue
            extra = "" if line.endswith("]") else extra
        if not section.startswith("tool.ruff"):
            kept.append(line)
    return "\n".join(kept).rstrip() + "\n"


def student_environment(text: str, project: str) -> str:
    """``environment.yml`` with the packages of :func:`student_project` alone.

    Args:
        text: the checkout's ``environment.yml``.
        project: what :func:`student_project` gave.
    """

    def wanted(line: str) -> bool:
        found = re.match(r"      - (.+)", line)
        return found is None or found[1] == "-e ." or f'"{found[1]}"' in project

    return "\n".join(line for line in text.split("\n") if wanted(line))


def _checkout() -> Path:
    root = repository()
    if bundled():
        raise CourseError("this is a class's copy of the course: make bundles from the whole of it")
    if root is None or not (root / "solutions").is_dir():
        raise CourseError("solutions/ is not here: run this in a whole clone of the course")
    return root


def _exists(out: Path) -> CourseError:
    return CourseError(f"{out} is there already; name another with --out, or remove it")


def _beside(out: Path) -> Path:
    """Where to write before it is put in place: on the same disk."""
    if not out.absolute().parent.is_dir():
        raise CourseError(f"{out.absolute().parent}: no such folder; make it with mkdir")
    return out.with_name(f".{out.name}.{os.getpid()}.partial")


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
