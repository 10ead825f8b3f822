"""README and ``docs/`` as pages, with the links of a repository turned into those of a book."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gclib.book.names import Names, names_of
from gclib.chapters import Chapter, find_chapter

# Name of the document → what the contents of the book call it.
RESULTS = {"LEDGER": "Ledger", "PERFORMANCE": "Performance", "TRAINING": "Full training"}
OTHERS = {
    "GLOSSARY": "Glossary",
    "INSTRUCTORS": "For instructors",
    "AUTHORING": "For authors",
}
ENGINEERS = "For engineers"  # a section of README that is a page of its own

HOW_TO_READ = """
## This book

Every chapter is a notebook that you work through in JupyterLab, and a page here to read. Each code
cell was run; what it printed and drew stands below it.

- **Solutions are folded.** You see the exercise as a student does. Open *Solution* below a cell, or
  all of them with the switch at the top of a chapter; the book remembers it.
- **Names lead to the code.** Underlined names in code and text open the page of their module.
- **It works offline.** Search, formulas and figures need no network. The button with the sun and
  the moon changes between light and dark.
"""


class UnclearDocument(Exception):
    """A document links to something that is not there; ``str()`` says what."""


@dataclass
class Book:
    """What the book consists of.

    Attributes:
        root: of the repository.
        chapters: those that are built.
        names: of gclib.
        documents: names of the documents in ``docs/``.
    """

    root: Path
    chapters: Sequence[Chapter]
    names: Names
    documents: list[str]

    @property
    def has_explorer(self) -> bool:
        """Whether the course has the attention explorer."""
        return (self.root / "gclib" / "explorer").is_dir()

    @classmethod
    def of(cls, root: Path, chapters: Sequence[Chapter]) -> Book:
        """The book of a checkout."""
        documents = sorted(path.stem for path in (root / "docs").glob("*.md"))
        return cls(root, chapters, names_of(root), documents)


def page_of_chapter(chapter: Chapter) -> str:
    """Name of a chapter's page."""
    return f"chapters/{chapter.folder}"


def pages(book: Book) -> Iterator[tuple[str, str]]:
    """Name and text of the pages made from README and ``docs/``.

    Raises:
        UnclearDocument: a link leads nowhere.
    """
    readme = (book.root / "README.md").read_text(encoding="utf-8")
    start, engineers = _split(readme)
    yield "index", _linked(start, "README.md", "index", book) + _contents(book, bool(engineers))
    if engineers:
        yield "docs/engineers", _linked(engineers, "README.md", "docs/engineers", book)
    for name in book.documents:
        text = (book.root / "docs" / f"{name}.md").read_text(encoding="utf-8")
        yield f"docs/{name}", _linked(text, f"docs/{name}.md", f"docs/{name}", book)


def _split(readme: str) -> tuple[str, str]:
    """README without the section for engineers and with how to read the book; that section."""
    parts = _sections(readme)
    chosen = [part for part in parts if part.startswith(f"## {ENGINEERS}\n")]
    rest = [part for part in parts if part not in chosen]
    rest.insert(1, f"{_BEGIN}\n{HOW_TO_READ.lstrip()}\n")
    return "".join(rest), "".join(chosen).removeprefix("#")


_BEGIN = "{{begin}}\n"


def _sections(text: str) -> list[str]:
    """Split before each heading of level 2 that is not inside of a code block."""
    parts, fenced = [""], False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if line.startswith("## ") and not fenced:
            parts.append("")
        parts[-1] += line
    return parts


def _contents(book: Book, engineers: bool) -> str:
    chapters = [f"{one.number} · {one.title} <{page_of_chapter(one)}>" for one in book.chapters]

    def listed(titles: dict[str, str]) -> list[str]:
        return [f"{titles[one]} <docs/{one}>" for one in titles if one in book.documents]

    known = {*RESULTS, *OTHERS}
    more = [f"docs/{one}" for one in book.documents if one not in known]
    others = [*listed(OTHERS), *more]
    if engineers:
        others.insert(0, f"{ENGINEERS} <docs/engineers>")
    groups = (
        ("Chapters", chapters),
        ("Results", listed(RESULTS)),
        ("Guides", others),
        ("Code", ["All modules <code/index>"]),
    )
    return "".join(
        "\n```{toctree}\n:hidden:\n:caption: " + title + "\n\n" + "\n".join(entries) + "\n```\n"
        for title, entries in groups
        if entries
    )


def _linked(text: str, source: str, page: str, book: Book) -> str:
    """Rewrite the links, chapters in tables, and the mark of the buttons; code stays as it is."""
    pieces = re.split(r"(^```.*?^```[ \t]*$)", text, flags=re.MULTILINE | re.DOTALL)
    made = []
    for number, piece in enumerate(pieces):
        made.append(piece if number % 2 else _links(piece, source, page, book))
    text = re.sub(
        r"^\| (\d\d)((?: [^|\n]*)?) \|",
        lambda row: _row(row, page, book),
        "".join(made),
        flags=re.MULTILINE,
    )
    return text.replace(_BEGIN, _buttons(page, book))


def _buttons(page: str, book: Book) -> str:
    """Where to begin."""
    first = book.chapters[0]
    links = [f"[Begin: {first.title}]({_relative(page_of_chapter(first), page)}.ipynb)"]
    if book.has_explorer:  # no page of Sphinx
        links.append('<a class="second" href="explorer.html">Try the attention explorer</a>')
    return "```{container} begin\n" + "\n".join(links) + "\n```\n"


def _row(row: re.Match, page: str, book: Book) -> str:
    chapter = next((one for one in book.chapters if one.number == row[1]), None)
    if chapter is None:
        return row[0]
    target = f"{_relative(page_of_chapter(chapter), page)}.ipynb"
    return f"| [{row[1]}{row[2].rstrip()}]({target}) |"


def _links(text: str, source: str, page: str, book: Book) -> str:
    def changed(link: re.Match) -> str:
        mark, shown, target = link[1], link[2], link[3]
        if re.match(r"[a-z]+:|#", target):
            return link[0]
        path, _, anchor = target.partition("#")
        inside = _normal(PurePosixPath(source).parent / path)
        place = book.names.path(inside)
        chapter = re.match(r"(?:solutions|chapters|work)/(\d\d)_", inside)
        if mark:
            where = inside
        elif place is not None:
            where = f"{place.page}.md"
        elif chapter and find_chapter(chapter[1]) in book.chapters:
            where = f"{page_of_chapter(find_chapter(chapter[1]))}.ipynb"
        elif inside.removeprefix("docs/").removesuffix(".md") in book.documents:
            where = inside
        elif inside == "README.md":
            where = "index.md"
        else:
            where = ""
        if not (book.root / inside).exists():
            raise UnclearDocument(f"{source} links to {target}, which is not there")
        if not where:
            return shown  # a file of the repository that is no page
        return f"{mark}[{shown}]({_relative(where, page)}{f'#{anchor}' if anchor else ''})"

    return re.sub(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)", changed, text)


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _relative(target: str, page: str) -> str:
    """The way from a page to a target, both from the top of the book."""
    return f"{'../' * page.count('/')}{target}"
