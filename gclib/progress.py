"""How far a student is: this chapter as its checks run, the others as their notebooks were saved.

Shown below the first cell of a chapter and below each check that passes. It is for the student
alone: no grade depends on what a notebook shows.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gclib.chapters import CHAPTERS, Chapter
from gclib.checks import cards
from gclib.checks.cells import UnreadableWork, read_cells
from gclib.checks.exercise import Exercise, exercises_of

_CHECK = re.compile(r"(?P<exercise>c(?P<chapter>[0-9]{2})-e[0-9]+)-visible")
# Told apart by how much is filled, not by colour alone; grey and red have 3:1 on white and black.
_FILL = {
    cards.PASSED: "border:1px solid #2e8b57;background:#2e8b57",
    cards.NOT_YET: "border:1px solid #d9544d;"
    "background:linear-gradient(to top,#d9544d 45%,transparent 45%)",
    cards.NOT_ATTEMPTED: "border:1px solid #8a8a8a",
}
_PLACE = 'style="margin:4px 0;padding-left:5px"'


@dataclass(frozen=True)
class Standing:
    """A chapter and what the visible check of each exercise said last, in order.

    Attributes:
        chapter: which.
        verdicts: exercise, as ``"c01-e2"`` → ``"passed"``, ``"not yet"`` or ``"not attempted"``.
    """

    chapter: Chapter
    verdicts: Mapping[str, str]

    @property
    def passed(self) -> int:
        """How many exercises passed."""
        return sum(verdict == cards.PASSED for verdict in self.verdicts.values())

    def __str__(self) -> str:
        count = len(self.verdicts)
        if self.passed == count:
            return f"all {count} exercises passed"
        text = f"{self.passed} of {count} exercises passed"
        failed = sum(verdict == cards.NOT_YET for verdict in self.verdicts.values())
        return f"{text}, {failed} not yet" if failed else text


def saved(chapter: Chapter, path: Path) -> Standing | None:
    """What a saved notebook shows below its checks; no code of it is run.

    Args:
        chapter: which.
        path: of the notebook.

    Returns:
        None where the notebook is not there, cannot be read, or has no checks.
    """
    try:
        cells = read_cells(path)
    except UnreadableWork:
        return None
    verdicts: dict[str, str] = {}
    for cell in cells:
        nbgrader = cell.get("metadata", {}).get("nbgrader")
        name = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
        found = _CHECK.fullmatch(str(name))
        if found and found["chapter"] == chapter.number:
            verdict = cards.verdict_of(_shown(cell))
            before = verdicts.get(found["exercise"], cards.NOT_ATTEMPTED)
            verdicts[found["exercise"]] = verdict or before  # a copy of the cell may be empty
    return Standing(chapter, verdicts) if verdicts else None


def _shown(cell: dict) -> Iterable[str]:
    """The plain texts of what a cell displays."""
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else []:
        data = output.get("data") if isinstance(output, dict) else None
        text = data.get("text/plain") if isinstance(data, dict) else None
        lines = text if isinstance(text, list) else [text]
        if all(isinstance(line, str) for line in lines):
            yield "".join(lines)


def of_course(folder: Path, besides: Chapter) -> list[Standing]:
    """The other chapters beside a folder, as they were saved.

    Args:
        folder: of one chapter, for example ``work/01_non_local``.
        besides: that chapter.
    """
    others = (chapter for chapter in CHAPTERS if chapter != besides)
    found = (saved(chapter, folder.parent / chapter.notebook) for chapter in others)
    return [standing for standing in found if standing]


class Follower:
    """Shows the standing of the chapter whose notebook is running, and of the course.

    What a check said in this kernel counts before what was saved; files are read anew each time,
    for they may be saved meanwhile, this one and those of other chapters.

    Args:
        chapter: which.
        folder: of its notebook.
    """

    def __init__(self, chapter: Chapter, folder: Path) -> None:
        self.chapter, self.folder = chapter, folder
        self.exercises: Sequence[Exercise] = exercises_of(chapter.checks())

    def __call__(self, exercise: str, verdict: str) -> None:
        """Take the verdict of a visible check; show the standing below one that passes."""
        if exercise not in (one.id for one in self.exercises):  # a check of another chapter
            return
        standing = self._standing()
        self._display_whole(standing, update=True)
        if verdict == cards.PASSED:
            _display(self._line(standing))

    def show(self) -> None:
        """Show chapter and course here; what is shown follows the checks from now on."""
        self._display_whole(self._standing(), update=False)

    def _display_whole(self, standing: Standing, update: bool) -> None:
        name = f"gclib-progress-{self.chapter.number}"
        _display(self._whole(standing), display_id=name, update=update)

    def _standing(self) -> Standing:
        own = saved(self.chapter, self.folder / self._file())
        verdicts = (own.verdicts if own else {}) | cards.last_verdicts
        names = [one.id for one in self.exercises]
        return Standing(
            self.chapter, {name: verdicts.get(name, cards.NOT_ATTEMPTED) for name in names}
        )

    def _file(self) -> str:
        """The notebook's name: Jupyter tells it where a student gave it another one."""
        name = Path(os.environ.get("JPY_SESSION_NAME", "")).name
        here = name.endswith(".ipynb") and (self.folder / name).is_file()
        return name if here else f"{self.chapter.name}.ipynb"

    def _line(self, standing: Standing) -> tuple[str, str]:
        """The chapter, as HTML and as text."""
        minutes = sum(
            one.minutes for one in self.exercises if standing.verdicts[one.id] != cards.PASSED
        )
        left = f", about {minutes} minutes of exercises left" if minutes else ""
        ran = any(one.id in cards.last_verdicts for one in self.exercises)
        text = f"{standing}{left}{'' if ran else ', as last saved'}"
        name = f"Chapter {self.chapter.number}"
        return (
            f"<div {_PLACE}>{name}&ensp;{_bar(standing)}&ensp;{html.escape(text)}</div>",
            f"{name}: {text}",
        )

    def _whole(self, standing: Standing) -> tuple[str, str]:
        """Chapter and course, as HTML and as text."""
        page, plain = self._line(standing)
        others = of_course(self.folder, besides=self.chapter)
        if not others:
            return page, plain
        everything = sorted([*others, standing], key=lambda one: one.chapter.number)
        passed = sum(one.passed for one in everything)
        count = sum(len(one.verdicts) for one in everything)
        text = f"{passed} of {count} exercises passed, other chapters as last saved"
        parts = "".join(map(self._link, everything))
        page = f"{page}<div {_PLACE}>Course&ensp;{parts} {text}</div>"
        return page, f"{plain}\nCourse: {text}"

    def _link(self, standing: Standing) -> str:
        chapter = standing.chapter
        title = html.escape(f"Chapter {chapter.number}, {chapter.title}: {standing}")
        name = f"<strong>{chapter.number}</strong>"
        if chapter != self.chapter:
            link = f'href="../{chapter.notebook}" title="{title}" aria-label="{title}"'
            name = f"<a {link}>{chapter.number}</a>"
        style = "display:inline-block;white-space:nowrap;margin-right:10px"
        return f'<span style="{style}">{name} {_bar(standing, width=5)}</span>'


def _bar(standing: Standing, width: int = 14) -> str:
    """A box for each exercise."""
    style = f"display:inline-block;width:{width}px;height:10px;margin-right:2px"
    boxes = "".join(
        f'<span title="exercise {name.partition("-e")[2]}: {verdict}" '
        f'style="{style};{_FILL[verdict]}"></span>'
        for name, verdict in standing.verdicts.items()
    )
    return f'<span aria-hidden="true" style="white-space:nowrap">{boxes}</span>'


def _display(
    texts: tuple[str, str], *, display_id: str | None = None, update: bool = False
) -> None:
    from IPython.display import display, update_display

    page, plain = texts
    data = {"text/html": page, "text/plain": plain}
    if update:
        update_display(data, display_id=display_id, raw=True, metadata=cards.PROGRESS)
    else:
        named = {"display_id": display_id} if display_id else {}
        display(data, raw=True, metadata=cards.PROGRESS, **named)


def follow(chapter: Chapter) -> None:
    """Show how far the student is, and follow the checks of this chapter from now on."""
    follower = Follower(chapter, Path.cwd())
    cards.on_verdict = follower
    follower.show()
