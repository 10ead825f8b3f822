"""CSV tables that go to an LMS or a spreadsheet, and come from there."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from gclib.grading.classroom import Course, CourseError

_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)*%?")


@dataclass
class Table:
    """Rows of cells, and how the file that they came from was written.

    Attributes:
        rows: of cells; the first one is the header.
        separator: between cells.
        mark: whether the file begins with a byte order mark.
    """

    rows: list[list[str]]
    separator: str = ","
    mark: bool = False


def read_table(path: Path) -> Table:
    """Read a CSV file that an LMS or a spreadsheet wrote.

    Raises:
        CourseError: it is no CSV file in UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CourseError(f"{path}: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CourseError(
            f"{path} is not in UTF-8; take the file as the LMS wrote it, or save it as 'CSV UTF-8'"
        ) from None
    if not text.strip() or "\0" in text:
        raise CourseError(f"{path} is no CSV file; export it again from the LMS")
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=lambda c: len(next(csv.reader([first], delimiter=c))))
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise CourseError(
            f"{path} is no CSV file ({error}); export it again from the LMS"
        ) from None
    return Table(rows, separator, content.startswith(b"\xef\xbb\xbf"))


def write_table(path: Path, table: Table) -> list[tuple[int, int]]:
    """Write a table whole or not at all, with every cell made harmless.

    Returns:
        Row and column, from 0, of the cells that would have been formulas.
    """
    rows = [[harmless(cell) for cell in row] for row in table.rows]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=table.separator).writerows(rows)
    Course.replace_file(path, text.getvalue().encode("utf-8-sig" if table.mark else "utf-8"))
    return [
        (i, j)
        for i, row in enumerate(rows)
        for j, cell in enumerate(row)
        if cell != table.rows[i][j]
    ]


def harmless(cell: str) -> str:
    """The cell, with an apostrophe before it where a spreadsheet would run it as a formula.

    That is how OWASP advises it: what begins with = + - @ or their wide forms, a tab or a carriage
    return, also behind blanks. Numbers and a lone ``-`` (Moodle's word for "no date") are none.
    """
    if _NUMBER.fullmatch(cell) or re.fullmatch(r"-*", cell):
        return cell
    start = 0
    while start < len(cell) and unicodedata.category(cell[start])[0] in "CZ":
        start += 1
    if start < len(cell) and unicodedata.normalize("NFKC", cell[start])[0] in "=+-@":
        return f"'{cell}"
    return f"'{cell}" if cell[0] in "\t\r\n\0" else cell


def number(value: float) -> str:
    """A number with at most two decimals, as all programs read it."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
