"""What stands where in gclib, read from its sources without importing them.

Modules and names that the book links to. Hidden checks are left out: the book never shows them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = "gclib"
HIDDEN = ("checks", "hidden")


@dataclass
class Definition:
    """A class, function, method or constant of a module.

    Attributes:
        name: with its class, for example ``"GCBlock.forward"``; also its anchor.
        kind: ``"class"``, ``"function"``, ``"method"`` or ``"data"``.
        line: where it begins, from 1; decorators are in front of it.
        summary: first paragraph of its docstring.
    """

    name: str
    kind: str
    line: int
    summary: str = ""


@dataclass
class Module:
    """A source file.

    Attributes:
        name: dotted.
        path: from the root of the repository, for example ``"gclib/blocks/framework.py"``.
        source: its text.
        summary: first paragraph of its docstring.
        definitions: by name, in order.
        imports: name in the module → dotted name in gclib.
    """

    name: str
    path: str
    source: str
    summary: str = ""
    definitions: dict[str, Definition] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)

    @property
    def is_package(self) -> bool:
        """Whether it is the ``__init__.py`` of a folder."""
        return self.path.endswith("/__init__.py")

    @property
    def page(self) -> str:
        """Name of its page in the book."""
        return f"code/{self.name}"


@dataclass(frozen=True)
class Place:
    """Where a name leads: a page and an anchor on it (``""`` for the page itself)."""

    module: str
    anchor: str = ""

    @property
    def page(self) -> str:
        """Name of the page."""
        return f"code/{self.module}"


def summary_of(docstring: str | None) -> str:
    """First paragraph of a docstring, on one line, with roles written as plain code."""
    first = (docstring or "").strip().split("\n\n")[0]
    return re.sub(r":[a-z:]+:`~?\.?([^`]+)`", r"``\1``", " ".join(first.split()))


def hidden(path: Path | str) -> bool:
    """Whether a path or dotted name below gclib belongs to the hidden checks."""
    parts = tuple(re.split(r"[./]", str(path)))
    return any(parts[i : i + 2] == HIDDEN for i in range(len(parts)))


def read_module(path: Path, root: Path) -> Module:
    """Read one source file.

    Args:
        path: of the file.
        root: of the repository.
    """
    relative = path.relative_to(root)
    parts = relative.with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    module = Module(name, relative.as_posix(), source, summary_of(ast.get_docstring(tree)))
    for node in tree.body:
        for found in _definitions(node):
            module.definitions.setdefault(found.name, found)
    for node in _statements(tree):
        module.imports.update(imports_of(node, name if is_package else name.rpartition(".")[0]))
    return module


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node; much less than all nodes."""
    for part in ("body", "orelse", "finalbody", "handlers"):
        for inner in getattr(node, part, ()):
            yield inner
            yield from _statements(inner)


def imports_of(node: ast.AST, package: str = "") -> dict[str, str]:
    """What an import of gclib binds: name → dotted name; empty for other nodes and packages.

    Args:
        node: any node.
        package: that relative imports start from.
    """
    found: dict[str, str] = {}
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] == PACKAGE:
                found[alias.asname or PACKAGE] = alias.name if alias.asname else PACKAGE
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        if base.split(".")[0] == PACKAGE:
            found = {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}
    return found


def _definitions(node: ast.AST, outer: str = ""):
    if isinstance(node, ast.ClassDef):
        name = f"{outer}{node.name}"
        yield Definition(name, "class", node.lineno, summary_of(ast.get_docstring(node)))
        for inner in node.body:
            yield from _definitions(inner, f"{name}.")
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        kind = "method" if outer else "function"
        summary = summary_of(ast.get_docstring(node))
        yield Definition(f"{outer}{node.name}", kind, node.lineno, summary)
    elif not outer and isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and not target.id.startswith("__"):
                yield Definition(target.id, "data", node.lineno)


@cache
def names_of(root: Path) -> Names:
    """The names of a checkout, read once."""
    return Names(root)


class Names:
    """All modules of gclib but the hidden checks, and what their names lead to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        paths = sorted((root / PACKAGE).rglob("*.py"))
        modules = [read_module(path, root) for path in paths if not hidden(path.relative_to(root))]
        self.modules = {module.name: module for module in modules}
        self._of_path = {module.path: module for module in modules}

    def children(self, package: str) -> list[Module]:
        """The modules and packages right below a package."""
        return [one for one in self.modules.values() if one.name.rpartition(".")[0] == package]

    def path(self, text: str) -> Place | None:
        """Where a path leads, of a file or a folder, as it stands in the text."""
        path = text.rstrip("/")
        module = self._of_path.get(path) or self._of_path.get(f"{path}/__init__.py")
        return Place(module.name) if module else None

    def find(self, dotted: str, _seen: frozenset[str] = frozenset()) -> Place | None:
        """Where a dotted name leads: through re-exports, to where it is defined.

        A name of a package that is only found when it is used (``__getattr__``) leads to the one
        module below that defines it.
        """
        if dotted in _seen or hidden(dotted):
            return None
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            module = self.modules.get(".".join(parts[:length]))
            if module is not None:
                break
        else:
            return None
        rest = parts[length:]
        if not rest:
            return Place(module.name)
        for count in range(len(rest), 0, -1):
            if ".".join(rest[:count]) in module.definitions:
                return Place(module.name, ".".join(rest[:count]))
        if rest[0] in module.imports:
            through = ".".join([module.imports[rest[0]], *rest[1:]])
            return self.find(through, _seen | {dotted})
        if "__getattr__" in module.definitions:
            below = [
                one
                for one in self.modules.values()
                if one.name.startswith(f"{module.name}.") and rest[0] in one.definitions
            ]
            if len(below) == 1:
                return self.find(".".join([below[0].name, *rest]), _seen | {dotted})
        return None
