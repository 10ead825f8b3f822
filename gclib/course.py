"""What the notebooks of the course ask for: ``from gclib import course``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import gclib
from gclib.chapters import find_chapter, repository

RELEASE = 1  # raised when a chapter changes in a way that its checks notice


def start(number: str, *, release: int) -> None:
    """Say what the notebook runs on and how far the student is, set the seed.

    The first cell of every chapter calls this.

    Args:
        number: the chapter, for example ``"01"``.
        release: the release of the notebook; a note is printed if gclib is of another one.
    """
    import torch

    chapter = find_chapter(number)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    print(
        f"Chapter {chapter.number}, {chapter.title} · gclib {gclib.__version__} · "
        f"torch {torch.__version__} ({device}) · seed 0"
    )
    if release != RELEASE:
        newer = "older" if release < RELEASE else "newer"
        fix = f"gclib start {number} --again" if release < RELEASE else "make install"
        print(
            f"This notebook (release {release}) is {newer} than gclib (release {RELEASE}): some "
            f"checks may not fit. Run '{fix}' in a terminal; your answers are kept."
        )
    from gclib.checks.cards import in_notebook

    if in_notebook() and not os.environ.get("NBGRADER_EXECUTION"):
        from gclib.progress import follow

        with contextlib.suppress(OSError):  # the notebook's folder is gone
            follow(chapter)


@contextlib.contextmanager
def after(exercise: str) -> Iterator[None]:
    """Run an experiment that needs an exercise; say so where the exercise is still a stub.

    Where its check failed last, say that, too: what the experiment shows may mislead.
    """
    from gclib.checks import cards
    from gclib.checks.outcome import STUB_MESSAGE

    if cards.last_verdicts.get(exercise) == cards.NOT_YET:
        print(f"The check of {exercise} said 'not yet' when it last ran: this may mislead.")
    try:
        yield
    except NotImplementedError as error:
        if str(error) not in ("", STUB_MESSAGE):
            raise
        print(f"Finish exercise {exercise} first, then run this cell again.")


@contextlib.contextmanager
def reference() -> Iterator[None]:
    """Run an experiment that needs the course's own version of what the chapter builds.

    Says so where it is not there: a class gets it later.
    """
    from gclib.later import NotReleased

    try:
        yield
    except NotReleased as error:
        print(error)


def submit_check(number: str) -> None:
    """Say whether the saved notebook can be handed in; last cell of every chapter.

    Args:
        number: the chapter, for example ``"01"``.
    """
    from gclib.grading.submission import report

    if os.environ.get("NBGRADER_EXECUTION"):  # being graded: too late for advice
        return
    chapter = find_chapter(number)
    root = repository()
    places = [Path(f"{chapter.name}.ipynb"), *([root / "work" / chapter.notebook] if root else [])]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        print(
            f"{chapter.name}.ipynb is not here: save the notebook, or use gclib submit-check PATH"
        )
        return
    print(report(path)[1])
