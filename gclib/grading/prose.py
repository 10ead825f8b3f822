"""What can be checked of how the course is written; the rest of it stands in docs/AUTHORING.md.

Code, formulas, addresses and titles of papers are left out: they are as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
LONGEST_SENTENCE = 50  # words
# The word that stands in this course ← what others write for it.
TERMS = {
    "modelling": r"modeling",
    "normalise": r"normaliz\w*",
    "colour": r"colou?r(?<!colour)\w*",
    "centre": r"centers?\b",
    "non-local": r"nonlocal",
    "squeeze-excitation": r"squeeze[ -]and[ -]excitation",
    "bottleneck ratio": r"(reduction|squeeze) ratio",
    "multiply-adds": r"MACs?\b|mult-adds",
}
# Words that tell the reader how to feel, or nothing.
FILLERS = (
    *("simply", "obviously", "clearly", "trivial", "trivially", "basically", "of course"),
    *("note that", "in order to", "utilize", "leverage", "powerful", "amazing", "awesome"),
)
_LEFT_OUT = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|<[^>]*>|https?://\S+|\]\([^)]*\)|(?<!\*)\*[^*\n]+\*"
    r"|\"[^\"]*\"",  # code, formulas, tags, addresses, titles and quotations
    re.DOTALL,
)
_LOUD = re.compile(r"(?<=\w)!(?=\s|$)|[\U0001F300-\U0001FAFF☀-✒✔-➿]")
_NAME = re.compile(r"`(gclib(?:\.\w+)+)`")
_PATH = re.compile(r"`((?:gclib|docs|tests|data|solutions)/[\w./-]+)`")


def lint_prose(text: str) -> Iterator[str]:
    """Yield what is wrong with a text in Markdown, one sentence each.

    Args:
        text: of a cell or a document; its paths are those of this checkout.
    """
    plain = _LEFT_OUT.sub(" ", text)
    for word, others in TERMS.items():
        for found in re.findall(rf"\b(?:{others})", plain, re.IGNORECASE):
            other = found if isinstance(found, str) else found[0]
            yield f"'{other}': this course writes {word}"
    for filler in FILLERS:
        if re.search(rf"\b{filler}\b", plain, re.IGNORECASE):
            yield f"'{filler}': say it without"
    for mark in _LOUD.findall(plain):
        yield f"'{mark}': a calm sentence says more"
    for sentence in sentences(plain):
        if len(words := sentence.split()) > LONGEST_SENTENCE:
            yield f"a sentence of {len(words)} words: '{' '.join(words[:8])} ...'"
    for name in _NAME.findall(text):
        if not exists(name):
            yield f"`{name}` is not there"
    for path in _PATH.findall(text):
        if "NN" not in path and not (_ROOT / path).exists():
            yield f"`{path}` is not there"


def sentences(plain: str) -> Iterator[str]:
    """The sentences of a text; cells of tables and points of lists are apart."""
    for block in re.split(r"\n\s*\n|\n\s*(?:[-*>|]|\d+\.)\s|\|", plain):
        yield from re.split(r"(?<=[.?!:;])\s+", block.replace("\n", " "))


def exists(name: str) -> bool:
    """Whether a dotted name in gclib is a module, or something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False
