"""Answers as source text: the reference from ``solutions/``, mutants and variants from it."""

from __future__ import annotations

import ast
import linecache
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from gclib.chapters import CHAPTERS
from gclib.checks.cells import parse_cell, read_cells, source_of
from gclib.grading.notebooks import BEGIN_SOLUTION, END_SOLUTION, grade_metadata

ROOT = Path(__file__).parents[2]
PREAMBLE = "import torch\nfrom torch import nn\nimport torch.nn.functional as F\n"


@dataclass(frozen=True)
class Mutant:
    """A mistake that students make.

    Attributes:
        name: what was done wrong.
        edits: replacements in the reference's text, or its whole text in place of a first key "".
        says: part of the message that names the cause.
        hidden: only the hidden check can see it.
    """

    name: str
    edits: dict[str, str]
    says: str
    hidden: bool = False


def references(chapter: str) -> dict[str, str]:
    """The reference answer of every exercise of a chapter, without marks, in order."""
    (found,) = [c for c in CHAPTERS if c.number == chapter]
    answers = {}
    for cell in read_cells(ROOT / "solutions" / found.notebook):
        metadata = grade_metadata(cell)
        if metadata.get("solution") and cell["cell_type"] == "code":
            lines = source_of(cell).split("\n")
            marks = (BEGIN_SOLUTION, END_SOLUTION)
            answers[metadata["grade_id"]] = "\n".join(
                line for line in lines if not any(mark in line for mark in marks)
            )
    return answers


@cache
def given(chapter: str) -> dict[str, str]:
    """Functions and classes of the cells without a grade, which answers may use."""
    (found,) = [c for c in CHAPTERS if c.number == chapter]
    texts = {}
    for number, cell in enumerate(read_cells(ROOT / "solutions" / found.notebook), start=1):
        if cell["cell_type"] == "code" and not grade_metadata(cell):
            kept = (ast.FunctionDef, ast.ClassDef)
            body = [node for node in parse_cell(source_of(cell)).body if isinstance(node, kept)]
            if body:
                texts[f"given in cell {number}"] = ast.unparse(ast.Module(body, []))
    return texts


def apply(edits: dict[str, str], source: str) -> str:
    """The reference with a mutant's edits; each must have something to replace."""
    if "" in edits:
        return edits[""]
    for old, new in edits.items():
        assert old in source, f"nothing to replace: {old!r}"
        source = source.replace(old, new)
    return source


def define(chapter: str, exercise: str = "", source: str = "") -> dict:
    """Run the references of a chapter, with one answer replaced; the namespace."""
    return run(references(chapter) | ({exercise: source} if exercise else {}))


def run(answers: dict[str, str]) -> dict:
    """Run the given code and the answers of one student in one namespace; the namespace."""
    namespace: dict = {}
    chapter = next(iter(answers))[1:3]
    for name, text in {"preamble": PREAMBLE, **given(chapter), **answers}.items():
        filename = f"<{name}>"
        linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
        exec(compile(text, filename, "exec"), namespace)
    return namespace


def mutants(chapter: str) -> dict[str, list[Mutant]]:
    """Named mutants by exercise."""
    return import_module(f"mutants.c{chapter}").MUTANTS


def variants(chapter: str) -> dict[str, dict[str, str]]:
    """Right answers in other words, by exercise and name."""
    return import_module(f"mutants.c{chapter}").VARIANTS
