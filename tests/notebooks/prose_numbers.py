"""Numbers that a text quotes, and numbers that stand behind them."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Code, formulas, addresses, links, titles, and references to sections, tables and papers.
_LEFT_OUT = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|https?://\S+|\]\([^)]*\)|\barXiv \S+"
    r"|\b(?:[Ss]ections?|[Cc]hapters?|[Tt]ables?|[Ff]igures?|[Ee]quations?|[Ii]ssues?|Python|torch)"
    r"\s+\d[\d.]*(?:\([a-z]\))?(?:(?:, | and | to )\d[\d.]*(?:\([a-z]\))?)*",
    re.DOTALL,
)
# With a decimal point, with commas, or a percentage: short whole numbers are sizes and counts.
_QUOTED = re.compile(
    r"(?<![\w.,])([-−+]?)(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|\d+(?=\s?%))(?!\w|[.,]\d)"
)
_ANY = re.compile(r"(?<![\w.])[-−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")


def quoted(text: str) -> list[str]:
    """The numbers of a text in Markdown that look like results, as they are written."""
    found = _QUOTED.findall(_LEFT_OUT.sub(" ", text))
    return [sign.replace("−", "-") + number.replace(",", "") for sign, number in found]


def numbers(text: str) -> set[float]:
    """All numbers of a text."""
    found = (number.replace(",", "").replace("−", "-") for number in _ANY.findall(text))
    return {float(number) for number in found}


def stands(number: str, among: set[float], scales: Sequence[float] = (1, 100, 1e-6, 1e-9)) -> bool:
    """Whether a quoted number is one of some others, rounded as it is, of its sign if it has one.

    With the ``scales``, also as a percentage, in millions, or in thousands of millions.
    """
    half = 0.5 * 10.0 ** -len(number.partition(".")[2])
    value = float(number)
    close = half * (1 + 1e-9) + 1e-12
    return any(
        abs((other if number[0] in "+-" else abs(other)) * scale - value) <= close
        for other in among
        for scale in scales
    )
