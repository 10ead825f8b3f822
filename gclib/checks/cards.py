"""Short messages in a notebook: HTML with a plain-text fallback; nothing outside of Jupyter."""

from __future__ import annotations

import contextlib
import html
import sys
from collections.abc import Iterator

from gclib.checks.outcome import CheckFailed, NotAttempted

# Of the border: contrast on white and on JupyterLab's dark grey is at least 3:1. Text has the
# page's own colour, which can be read in every theme, and says the same.
_COLOURS = {"passed": "#2e8b57", "not attempted": "#8a8a8a", "not yet": "#d9544d"}


def show_passed(exercise: str, title: str, properties: int, hidden: bool) -> None:
    """Say that all properties hold; of visible checks no more than that."""
    kind = "hidden" if hidden else "visible"
    _show("passed", f"{exercise} {title}: all {properties} {kind} checks passed", [])


def show_not_attempted(error: NotAttempted) -> None:
    """Say that the stub is still there."""
    hint = ("next", f"write {error.what} in the cell above, run it, then run this cell again")
    _show("not attempted", error.exercise, [hint])


def show_failed(error: CheckFailed) -> None:
    """Show expected against got, the likely cause and where to look."""
    _show("not yet", f"{error.exercise}: {error.what}", error.details())


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
    if _collecting is None and not _in_notebook():
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


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
