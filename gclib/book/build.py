"""Make the book beside the old one, and put it in its place when all is well."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from gclib import __version__
from gclib.book import chapter as chapter_pages
from gclib.book import code_pages, documents
from gclib.book.check import problems
from gclib.book.documents import Book, UnclearDocument, page_of_chapter
from gclib.book.outputs import ExecutionFailed, Outputs, Progress, environment, fingerprint, sources
from gclib.chapters import Chapter

MARK = "book.json"  # in the folder of a book: what it was made of
NEEDED = {
    "sphinx": "sphinx",
    "myst_nb": "myst-nb",
    "furo": "furo",
    "sphinx_copybutton": "sphinx-copybutton",
    "math_core": "math-core",
    "nbclient": "nbclient",
    "torchvision": "torchvision",
    "matplotlib": "matplotlib",
}
OWN = (".py", ".css", ".js", ".html")  # files of gclib that make pages
SHOWN = 12  # problems that are shown; the rest is counted


class BookFailed(Exception):
    """There is no new book, and the old one is as it was; ``str()`` says why."""


def build(
    root: Path,
    out: Path,
    chapters: Sequence[Chapter],
    *,
    cache: Path,
    jobs: int,
    outputs: str,
    progress: Progress,
) -> bool:
    """Build the book.

    Args:
        root: of the repository.
        out: folder of the book; an older book there is replaced, anything else is kept.
        chapters: in order.
        cache: folder of the executed notebooks.
        jobs: how many notebooks run at a time.
        outputs: ``"current"`` executes what changed, ``"kept"`` takes the last outputs whatever
            changed since, ``"none"`` leaves them out.
        progress: takes a line.

    Returns:
        Whether there was anything to do.

    Raises:
        BookFailed: a package is missing, a cell fails, Sphinx warns, or a link is broken.
    """
    missing = sorted(name for module, name in NEEDED.items() if find_spec(module) is None)
    if missing:
        raise BookFailed(
            f"these packages are not installed: {', '.join(missing)}. Run make book, or install "
            "them with pip install -e '.[book]'"
        )
    _refuse(out)
    for folder in ("solutions", "chapters"):
        for one in chapters:
            if not (root / folder / one.notebook).is_file():
                how = "; run make chapters" if folder == "chapters" else ""
                raise BookFailed(f"{folder}/{one.notebook} is missing{how}")
    try:
        notebooks = _notebooks(root, chapters, cache, jobs, outputs, progress)
        made_of = _made_of(root, chapters, notebooks)
        if _mark(out) == made_of:
            return False
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
            stage, site = Path(folder, "sources"), Path(folder, "site")
            book = Book.of(root, chapters)
            write_sources(book, notebooks, stage)
            progress(f"Making {sum(1 for _ in stage.rglob('*.*'))} sources into pages")
            _sphinx(book, stage, site, Path(folder, "doctrees"))
            progress("Checking links, anchors and pictures")
            found = list(problems(site))
            if found:
                raise BookFailed(f"the pages have {_listed(found)}")
            (site / MARK).write_text(json.dumps({"made of": made_of}) + "\n", encoding="utf-8")
            _swap(site, out, Path(folder, "old"))
    except (ExecutionFailed, UnclearDocument) as error:
        raise BookFailed(str(error)) from None
    return True


def _notebooks(
    root: Path, chapters: Sequence[Chapter], cache: Path, jobs: int, how: str, progress: Progress
) -> dict[str, Path]:
    made = Outputs(root, cache)
    if how == "current":
        return made.make(chapters, jobs, progress)
    found = {one.number: root / "solutions" / one.notebook for one in chapters}
    if how == "kept":
        kept = {one.number: made.kept(one) for one in chapters}
        lacking = [number for number, path in kept.items() if path is None]
        if lacking:
            raise BookFailed(f"chapters {', '.join(lacking)} have no outputs yet: use current")
        found |= {number: path for number, path in kept.items() if path}
    return found


def write_sources(book: Book, notebooks: dict[str, Path], stage: Path) -> None:
    """Write what Sphinx reads.

    Args:
        book: what to build.
        notebooks: number of a chapter → its notebook with answers, executed or not.
        stage: an empty folder.

    Raises:
        UnclearDocument: a document links to something that is not there.
    """
    for name, text in [*documents.pages(book), *code_pages.pages(book.names)]:
        path = stage / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copytree(book.root / "docs" / "figures", stage / "docs" / "figures")
    live = write_explorer(book, stage / "extra")
    for one in book.chapters:
        student = book.root / "chapters" / one.notebook
        pictures = stage / "static" / "figures"
        page = chapter_pages.page_of(one, notebooks[one.number], student, pictures, live=live)
        path = stage / f"{page_of_chapter(one)}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(page, ensure_ascii=False, indent=1), encoding="utf-8")


def write_explorer(book: Book, folder: Path) -> str:
    """Write the attention explorer as a page that works without a kernel.

    Args:
        book: the page leads back to the chapter that explains the explorer, if it is in the book.
        folder: of files that go into the book as they are; made here.

    Returns:
        Its address from the top of the book, ``""`` where the course has none.
    """
    folder.mkdir(parents=True)
    if not book.has_explorer:
        return ""
    from gclib.explorer import offline_page

    home = next((one for one in book.chapters if one.name == "attention_maps"), None)
    target, title = "index.html", "The book"
    if home:
        target, title = f"{page_of_chapter(home)}.html", f"Chapter {home.number}, {home.title}"
    start = f'<h1>Attention explorer</h1><p><a href="{target}">{title}</a></p>'
    page = offline_page().replace("<main", f"{start}<main", 1)
    (folder / "explorer.html").write_text(page, encoding="utf-8")
    return "explorer.html"


def _made_of(root: Path, chapters: Sequence[Chapter], notebooks: dict[str, Path]) -> str:
    """Hash of all that the pages depend on."""
    here = Path(__file__).parents[1]
    own = [path for path in sorted(here.rglob("*")) if path.suffix in OWN]
    texts = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    figures = [path for path in sorted((root / "docs" / "figures").rglob("*")) if path.is_file()]
    students = [root / "chapters" / one.notebook for one in chapters]
    found = [
        fingerprint([*texts, *figures, *students, *sources(root)], root),
        fingerprint(own, here),
        *(hashlib.sha256(notebooks[one.number].read_bytes()).hexdigest() for one in chapters),
        *(version(name) for name in ("sphinx", "myst-nb", "furo", "sphinx-copybutton")),
    ]
    return hashlib.sha256("\0".join(found).encode()).hexdigest()


def _mark(out: Path) -> str:
    try:
        return json.loads((out / MARK).read_text(encoding="utf-8"))["made of"]
    except (OSError, ValueError, KeyError):
        return ""


def _refuse(out: Path) -> None:
    """Never replace a folder that is no book."""
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise BookFailed(f"{out} is there and is no book: name another folder with --out")


def _sphinx(book: Book, stage: Path, site: Path, doctrees: Path) -> None:
    from gclib.book.extension import settings

    wanted = settings(book.root, __version__)
    wanted["html_static_path"] = [*wanted["html_static_path"], "static"]
    wanted["html_extra_path"] = ["extra"]
    (stage / "static").mkdir(exist_ok=True)
    # Not as overrides: the theme's own settings are not known yet when those are looked at.
    lines = [f"{name} = {value!r}\n" for name, value in wanted.items()]
    (stage / "conf.py").write_text("".join(lines), encoding="utf-8")
    # In a process of its own: what Sphinx and docutils register is there for good.
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "--no-color"]
    done = subprocess.run(
        [*command, "-d", str(doctrees), str(stage), str(site)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | {"PYTHONWARNINGS": "ignore"},
        check=False,
    )
    plain = re.sub(r"\x1b\[[\d;]*m", "", done.stderr)
    said = [line.replace(f"{stage}{os.sep}", "") for line in plain.splitlines() if line.strip()]
    if said or done.returncode != 0:
        said = said or [f"it ended with status {done.returncode}"]
        raise BookFailed(f"Sphinx has {_listed(said)}")
    for name in ("objects.inv", ".buildinfo"):
        (site / name).unlink(missing_ok=True)


def _listed(found: list[str]) -> str:
    rest = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    number = f"{len(found)} problem{'s' if len(found) > 1 else ''}"
    return f"{number}:\n  " + "\n  ".join(found[:SHOWN]) + rest


def _swap(new: Path, out: Path, old: Path) -> None:
    """Two renames: a reader finds the old book or the new one."""
    had = out.exists()
    if had:
        os.replace(out, old)
    try:
        os.replace(new, out)
    except OSError:
        if had:
            with contextlib.suppress(OSError):
                os.replace(old, out)
        raise
