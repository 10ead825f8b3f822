"""Imports run one way, and the blocks need torch alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

# Each package may import from its own and from packages of a lower level.
LEVELS = {
    "blocks": 0,
    "chapters": 0,
    "analysis": 1,
    "datasets": 1,
    "paper": 1,
    "models": 2,
    "training": 3,
    "checks": 3,
    "grading": 4,
    "bench": 5,
    "book": 5,
    "explorer": 3,
}
ROOT = Path(__file__).parents[1] / "gclib"
MODULES = [p for name in LEVELS for p in sorted(ROOT.glob(f"{name}/**/*.py"))]


def imported(path):
    """Dotted names of everything in gclib that a module imports, inside of functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in names if name.startswith("gclib."))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    own = path.relative_to(ROOT).parts[0]
    for name in (full.split(".")[1] for full in imported(path)):
        if name in LEVELS and name != own:
            assert LEVELS[name] < LEVELS[own], f"{own} must not import {name}"


def test_hidden_checks_are_imported_by_nobody():
    for path in ROOT.glob("**/*.py"):
        if "hidden" not in path.parts:
            assert not any(name.startswith("gclib.checks.hidden") for name in imported(path)), path


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("gclib", ("torchvision", "nbgrader", "matplotlib", "numpy.testing", "fvcore")),
        ("gclib.blocks", ("torchvision", "matplotlib", "gclib.checks", "gclib.analysis")),
        ("gclib.analysis.distances", ("matplotlib", "torchvision")),
        ("gclib.checks.c01", ("matplotlib", "nbgrader", "gclib.grading", "gclib.checks.hidden")),
        ("gclib.paper.ledger", ("matplotlib", "nbgrader", "gclib.training")),
    ],
)
def test_an_import_pulls_in_no_more_than_it_needs(module, unwanted):
    code = f"import sys, {module}; print(*(n for n in {unwanted!r} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
