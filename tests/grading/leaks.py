"""What a bundle must not hold, and where it is found all the same.

A *line* leaks if it stands between the marks of a solution, or in a right answer of
``tests/mutants``, of chapter NN or later, and neither is trivial (fewer than 6 names, numbers,
strings and signs) nor stands in a blank chapter. A *definition* leaks if its syntax tree
equals that of a withheld function, class, hidden check or right answer once names, signature,
docstring and annotations are taken away, so that a renamed copy is found. A *text* leaks if it is a
string of 6 words or more that hidden checks hold and visible ones do not, or a sentence of a
model answer.
"""

from __future__ import annotations

import ast
import copy
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mutants.answers import ROOT, variants

from gclib.chapters import CHAPTERS, Chapter
from gclib.checks.cells import read_cells, source_of
from gclib.grading.notebooks import grade_metadata, solution_lines
from gclib.grading.sandbox.visible import withheld

TOKENS = 6  # of a line that can be a leak
NODES = 20  # of a syntax tree that can be one
WORDS = 6  # of a text that can be one

# Of files and folders that are never meant for a class.
_PATHS = re.compile(
    r"(^|/)(\.git|\.ipynb_checkpoints|__pycache__|\.ci|docs|solutions|hidden|mutants|sandbox|work"
    r"|[^/]*\.egg-info|[^/]*\.py[cod]|[^/]*\.log|gradebook[^/]*|nbgrader_config\.py)(/|$)"
)
# Of the machine that made it.
_MACHINE = re.compile(r"(?<![\w.~/])(/home|/Users|/root|/tmp|/work|[A-Z]:\\+Users)[/\\]+\w+")


@dataclass
class Secrets:
    """What must not be found: each with where it comes from."""

    lines: dict[str, str] = field(default_factory=dict)
    trees: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def add_code(self, code: str, origin: str) -> None:
        for name, tree in definitions(code):
            self.trees.setdefault(tree, f"{name} of {origin}")


def find_leaks(bundle: Path, chapter: Chapter) -> list[str]:
    """One line for each leak in a bundle that was unpacked."""
    return list(_find_leaks(bundle, chapter))


def _find_leaks(bundle: Path, chapter: Chapter) -> Iterator[str]:
    secrets = secrets_of(chapter)
    public = _released_lines()
    for path in sorted(bundle.rglob("*")):
        name = path.relative_to(bundle).as_posix()
        if _PATHS.search(name):
            yield f"{name}: is not for a class"
        if path.is_symlink():
            yield f"{name}: is a link"
        if not path.is_file() or path.suffix == ".pt":
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            yield f"{name}: is not a text"
            continue
        if found := _MACHINE.search(text):
            yield f"{name}: holds the path {found[0]}"
        if "checks.hidden" in text or "checks import hidden" in text:
            yield f"{name}: names the hidden checks"
        plain = normalised_text(text)
        for secret, origin in secrets.texts.items():
            if secret in plain:
                yield f"{name}: holds a text of {origin}: {secret[:60]}"
        for code in _code_of(path, text):
            for number, line in enumerate(code.split("\n"), start=1):
                key = normalised(line.strip())
                if key in secrets.lines and key not in public:
                    yield f"{name}:{number}: holds a line of {secrets.lines[key]}: {line.strip()}"
            for found, tree in definitions(code):
                if tree in secrets.trees:
                    yield f"{name}: {found} is {secrets.trees[tree]}"


@cache
def secrets_of(chapter: Chapter) -> Secrets:
    """What the bundle of a chapter must not hold."""
    secrets = Secrets()
    for name, (_, parts) in withheld(chapter).items():
        code = (ROOT / "gclib" / name).read_text(encoding="utf-8")
        for statement in ast.parse(code).body:
            if parts is None or getattr(statement, "name", None) in parts:
                secrets.add_code(ast.unparse(statement), f"gclib/{name}")
    for one in CHAPTERS:
        if one.number >= chapter.number:
            _add_solutions(secrets, one)
            for exercise, sources in variants(one.number).items():
                for name, code in sources.items():
                    secrets.add_code(code, f"the variant {name} of {exercise}")
                    _add_lines(secrets, code.split("\n"), f"the variant {name} of {exercise}")
    for path in sorted((ROOT / "gclib" / "checks" / "hidden").glob("c*.py")):
        code = path.read_text(encoding="utf-8")
        secrets.add_code(code, f"hidden/{path.name}")
        shown = normalised_text((path.parents[1] / path.name).read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(code)):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and normalised_text(text) not in shown:
                _add_text(secrets, text, f"hidden/{path.name}")
    return secrets


def _add_solutions(secrets: Secrets, chapter: Chapter) -> None:
    blank = {
        grade_metadata(cell).get("grade_id"): source_of(cell).split("\n")
        for cell in read_cells(ROOT / "chapters" / chapter.notebook)
    }
    for cell in read_cells(ROOT / "solutions" / chapter.notebook):
        name = grade_metadata(cell).get("grade_id")
        if not grade_metadata(cell).get("solution"):
            continue
        if cell["cell_type"] == "code":
            secrets.add_code(source_of(cell), f"the solution {name}")
            _add_lines(secrets, solution_lines(source_of(cell)), f"the solution {name}")
        else:
            for line in source_of(cell).split("\n"):
                for sentence in re.split(r"(?<=[.;:])\s", line) if line not in blank[name] else []:
                    _add_text(secrets, sentence, f"the solution {name}")


def _add_lines(secrets: Secrets, lines: list[str], origin: str) -> None:
    for line in lines:
        if key := normalised(line):
            secrets.lines.setdefault(key, origin)


def _add_text(secrets: Secrets, text: str, origin: str) -> None:
    if len(normalised_text(text).split()) >= WORDS:
        secrets.texts.setdefault(normalised_text(text), origin)


@cache
def normalised(line: str) -> str:
    """A line without whitespace, comment and kind of quotes; "" where it is trivial."""
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(line.strip()).readline):
            if token.type in (tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP):
                found.append(token.string.replace("'", '"'))
    except (tokenize.TokenError, SyntaxError):
        pass  # a bracket that stays open: what was read counts
    return "".join(found) if len(found) >= TOKENS else ""


def normalised_text(text: str) -> str:
    """The words of a text."""
    return " ".join(re.findall(r"\w+", text.replace("\\n", " ").lower()))


@cache
def definitions(code: str) -> list[tuple[str, str]]:
    """Name and stripped syntax tree of every function and class that is not trivial."""
    try:
        module = ast.parse(code)
    except SyntaxError:  # a text, or a cell with magics
        return []
    found = []
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bare = _Strip().visit(copy.deepcopy(node))
            body = ast.Module(bare.body, [])
            if sum(1 for _ in ast.walk(body)) > NODES:
                found.append((node.name, ast.dump(body)))
    return found


class _Strip(ast.NodeTransformer):
    """Take away what can be renamed, and what does nothing."""

    def visit_Name(self, node):
        return ast.Name("_", node.ctx)

    def visit_Attribute(self, node):
        own = isinstance(node.value, ast.Name) and node.value.id == "self"
        self.generic_visit(node)
        node.attr = "_" if own else node.attr
        return node

    def visit_AnnAssign(self, node):
        self.generic_visit(node)
        return ast.Assign([node.target], node.value) if node.value else None

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.name, node.args, node.returns = "_", None, None
        return self.visit_body(node)

    def visit_ClassDef(self, node):
        self.generic_visit(node)
        node.name, node.bases, node.keywords = "_", [], []
        return self.visit_body(node)

    def visit_body(self, node):
        kept = [one for one in node.body if not _is_text(one)]
        node.body = kept or [ast.Pass()]
        return node


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _code_of(path: Path, text: str) -> list[str]:
    if path.suffix == ".ipynb":
        return [source_of(cell) for cell in read_cells(path)]
    return [text]


@cache
def _released_lines() -> set[str]:
    """Lines of the blank chapters as they are in the repository."""
    found = set()
    for chapter in CHAPTERS:
        for cell in read_cells(ROOT / "chapters" / chapter.notebook):
            found.update(map(normalised, source_of(cell).split("\n")))
    return found
