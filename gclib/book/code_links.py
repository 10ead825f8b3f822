"""Links inside of highlighted code: what comes from gclib leads to its code page."""

from __future__ import annotations

import ast
import html
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

from gclib.book.names import Names, Place, imports_of
from gclib.checks.cells import parse_cell

Address = Callable[[Place], str]


def places_in(source: str, names: Names, scope: dict[str, str]) -> list[tuple[int, int, Place]]:
    """What in a piece of code comes from gclib.

    Args:
        source: Python code; a cell of a notebook, or a whole module.
        names: of gclib.
        scope: what is bound so far, name → dotted name; what the code imports is added, and what it
            defines itself is taken out.

    Returns:
        Begin and end in the text, and the place, in order; none where the text is not Python.
    """
    try:
        tree = parse_cell(source)
    except (SyntaxError, ValueError):
        return []
    nodes = list(ast.walk(tree))
    own = set(_bound(nodes))
    for node in nodes:
        scope.update(imports_of(node))
    for name in own & set(scope):
        del scope[name]
    starts = [0]
    lines = source.split("\n")
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)

    def offset(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    found: dict[int, tuple[int, int, Place]] = {}
    for node in nodes:
        for begin, end, dotted in _named(node, source, scope, offset):
            place = names.find(dotted)
            if place is not None:
                found[begin] = (begin, end, place)
    return [found[begin] for begin in sorted(found)]


def _bound(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Every name that the code itself gives a meaning."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


def _named(
    node: ast.AST, source: str, scope: dict[str, str], offset: Callable[[int, int], int]
) -> Iterator[tuple[int, int, str]]:
    if isinstance(node, ast.ImportFrom | ast.Import):
        bound = imports_of(node)
        if not bound:
            return
        begin, end = offset(node.lineno, node.col_offset), len(source)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            at = source.index(node.module, begin + len("from"))
            yield at, at + len(node.module), node.module
        for alias in node.names:
            at = offset(alias.lineno, alias.col_offset)
            base = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            if at < end and not (isinstance(node, ast.ImportFrom) and node.level):
                yield at, at + len(alias.name), f"{base}{alias.name}"
    elif isinstance(node, ast.Name) and node.id in scope:
        at = offset(node.lineno, node.col_offset)
        yield at, at + len(node.id), scope[node.id]
    elif isinstance(node, ast.Attribute):
        chain: list[str] = [node.attr]
        inner = node.value
        while isinstance(inner, ast.Attribute):
            chain.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in scope:
            end = offset(node.end_lineno or node.lineno, node.end_col_offset or 0)
            yield end - len(node.attr), end, ".".join([scope[inner.id], *chain])


def link_code(
    highlighted: str, names: Names, scope: dict[str, str], address: Address, own: str = ""
) -> str:
    """Add links to highlighted code.

    Args:
        highlighted: HTML inside of ``<pre>``.
        names: of gclib.
        scope: what is bound so far; changed as in :func:`places_in`.
        address: of a place, as seen from the page.
        own: the module that the code is, whose own names get no link.
    """
    pieces = re.split(r"(<[^>]*>)", highlighted)
    texts = [("" if piece.startswith("<") else html.unescape(piece)) for piece in pieces]
    starts = [0]
    for text in texts:
        starts.append(starts[-1] + len(text))
    links: dict[int, list[tuple[int, int, Place]]] = {}
    for begin, end, place in places_in("".join(texts), names, scope):
        index = bisect_right(starts, begin) - 1
        inside = end <= starts[index + 1]  # one word of the highlighted text
        if inside and place.module != own:
            links.setdefault(index, []).append((begin - starts[index], end - starts[index], place))
    for index, found in links.items():
        text, made, done = texts[index], "", 0
        for begin, end, place in found:
            made += html.escape(text[done:begin], quote=False)
            href = html.escape(address(place))
            made += f'<a class="code-link" href="{href}">{html.escape(text[begin:end])}</a>'
            done = end
        pieces[index] = made + html.escape(text[done:], quote=False)
    return "".join(pieces)
