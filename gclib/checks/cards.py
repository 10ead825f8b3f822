"""Short messages in a notebook: HTML with a plain-text fallback; nothing outside of Jupyter."""

from __future__ import annotations

import contextlib
import html
import sys
from collections.abc import Callable, Iterable, Iterator

from gclib.checks.outcome import CheckFailed, NotAttempted

PASSED, NOT_YET, NOT_ATTEMPTED = "passed", "not yet", "not attempted"
# Of the border: contrast on white and on JupyterLab's dark grey is at least 3:1. Text has the
# page's own colour, which can be read in every theme, and says the same.
_COLOURS = {PASSED: "#2e8b57", NOT_ATTEMPTED: "#8a8a8a", NOT_YET: "#d9544d"}
# Metadata of an output that says how far the student is: for those who show notebooks to others.
PROGRESS = {"gclib": "progress"}
# Each visible check that shows a card in a notebook: its exercise and verdict, told and kept.
on_verdict: Callable[[str, str], None] | None = None
last_verdicts: dict[str, str] = {}


def show_passed(exercise: str, title: str, properties: int, hidden: bool) -> None:
    """Say that all properties hold; of visible checks no more than that."""
    kind = "hidden" if hidden else "visible"
    _show(PASSED, f"{exercise} {title}: all {properties} {kind} checks passed", [])
    _tell(exercise, PASSED, hidden)


def show_not_attempted(error: NotAttempted, hidden: bool = False) -> None:
    """Say that the stub is still there."""
    hint = ("next", f"write {error.what} in the cell above, run it, then run this cell again")
    _show(NOT_ATTEMPTED, error.exercise, [hint])
    _tell(error.exercise, NOT_ATTEMPTED, hidden)


def show_failed(error: CheckFailed, hidden: bool = False) -> None:
    """Show expected against got, the likely cause and where to look."""
    _show(NOT_YET, f"{error.exercise}: {error.what}", error.details())
    _tell(error.exercise, NOT_YET, hidden)


def verdict_of(texts: Iterable[str]) -> str | None:
    """The verdict of the last card among the plain texts of what a cell shows."""
    kinds = [text.partition(":")[0] for text in texts]
    return next((kind for kind in reversed(kinds) if kind in _COLOURS), None)


def _tell(exercise: str, verdict: str, hidden: bool) -> None:
    if not hidden and _collecting is None and in_notebook():
        last_verdicts[exercise] = verdict
        if on_verdict is not None:
            on_verdict(exercise, verdict)


_collecting: list[dict[str, str]] | None = None


@contextlib.contextmanager
def collected() -> Iterator[list[dict[str, str]]]:
    """Collect cards in place of showing them: text by MIME type, in order."""
    global _collecting
    before, _collecting = _collecting, []
    try:
        yield _collecting
    finally:
        _collecting = before


def _show(kind: str, headline: str, details: list[tuple[str, str]]) -> None:
    if _collecting is None and not in_notebook():
        return
    details = [(name, text) for name, text in details if text]
    plain = "\n".join([f"{kind}: {headline}", *(f"  {name}: {text}" for name, text in details)])
    rows = "".join(
        '<tr style="background:none"><th style="text-align:left;vertical-align:top;'
        f'padding:2px 12px 2px 0;white-space:nowrap">{html.escape(name)}</th>'
        '<td style="text-align:left;padding:2px 0;white-space:pre-wrap;'
        f'overflow-wrap:anywhere">{html.escape(text)}</td></tr>'
        for name, text in details
    )
    table = f'<table style="margin:4px 0 0 0;border:none">{rows}</table>' if rows else ""
    card = (
        f'<div style="border-left:5px solid {_COLOURS[kind]};padding:4px 10px;margin:2px 0">'
        f"<strong>{kind}</strong>&ensp;{html.escape(headline)}{table}</div>"
    )
    data = {"text/html": card, "text/plain": plain}
    if _collecting is not None:
        _collecting.append(data)
        return
    from IPython.display import display

    display(data, raw=True)


def in_notebook() -> bool:
    """Whether this runs in a kernel, where what is displayed is seen."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
