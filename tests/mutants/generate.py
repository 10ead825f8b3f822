"""Mutants made by rule from the syntax tree of a reference answer.

Each differs from the reference in one place: an operator, a number, a word, an operand, a call
left out, a statement left out, a condition decided. Tests run the checks on all of them; what the
checks let pass must be explained in ``survivors.json``.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

_OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
_COMPARISONS = {ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}


def generated(source: str) -> Iterator[tuple[str, str]]:
    """Yield ``(what was changed, mutated source)`` for every single change that parses."""
    tree = _without_docstrings(ast.parse(source))
    before = ast.unparse(tree)
    seen = {before}
    for index, node in enumerate(ast.walk(tree)):
        for change in _changes(node, tree):
            mutant = copy.deepcopy(tree)
            target = next(n for i, n in enumerate(ast.walk(mutant)) if i == index)
            replacement = change(target)
            if replacement is not None:
                _replace(mutant, target, replacement)
            ast.fix_missing_locations(mutant)
            text = ast.unparse(mutant)
            if text not in seen:
                seen.add(text)
                yield _difference(before, text), text


def _changes(node: ast.AST, tree: ast.Module) -> Iterator:
    """Functions that change a node in place (and return None) or return its replacement."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in _OPERATORS:
            yield lambda n: setattr(n, "op", _OPERATORS[type(n.op)]())
        yield lambda n: n.left
        yield lambda n: n.right
        if isinstance(node.op, (ast.Sub, ast.Div, ast.MatMult)):
            yield _swap_operands
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        for value in (node.value + 1, node.value - 1, -node.value):
            yield lambda n, value=value: setattr(n, "value", value)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield lambda n: setattr(n, "value", not n.value)
    elif isinstance(node, ast.Constant) and type(node.value) is str:
        yield lambda n: setattr(n, "value", n.value + "_")
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
            yield lambda n: n.func.value  # x.f(...) -> x
        if node.args:
            yield lambda n: n.args[0]  # f(x, ...) -> x
        if len(node.args) == 2:
            yield lambda n: n.args.reverse()
        for position in range(len(node.keywords)):
            yield lambda n, position=position: n.keywords.pop(position) and None
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        yield lambda n: n.ops.__setitem__(0, _COMPARISONS[type(n.ops[0])]())
    elif isinstance(node, ast.If):
        yield lambda n: setattr(n, "test", ast.Constant(True))
        yield lambda n: setattr(n, "test", ast.Constant(False))
    elif isinstance(node, (ast.Expr, ast.Assign, ast.Raise)):
        yield lambda n: ast.Pass()
    elif isinstance(node, ast.Return):
        yield lambda n: setattr(n, "value", None)
    elif isinstance(node, ast.Attribute) and _is_self(node.value):
        for name in sorted(_self_attributes(tree) - {node.attr}):
            yield lambda n, name=name: setattr(n, "attr", name)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for name in sorted(_local_names(node, tree) - {node.id}):
            yield lambda n, name=name: setattr(n, "id", name)
    elif isinstance(node, (ast.Tuple, ast.List)) and len(node.elts) > 1:
        for position in range(len(node.elts)):
            yield lambda n, position=position: n.elts.pop(position) and None


def _swap_operands(node: ast.BinOp) -> None:
    node.left, node.right = node.right, node.left


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _is_module(node: ast.AST) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id in ("nn", "torch", "F")


def _self_attributes(tree: ast.Module) -> set[str]:
    found = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and _is_self(n.value))
    return {node.attr for node in found}


def _local_names(node: ast.Name, tree: ast.Module) -> set[str]:
    """Variables of the function around a name, if the name is one of them."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and any(n is node for n in ast.walk(function)):
            names = {a.arg for a in function.args.args if a.arg != "self"}
            stored = (n for n in ast.walk(function) if isinstance(n, ast.Name))
            names |= {n.id for n in stored if isinstance(n.ctx, ast.Store)}
            return names if node.id in names else set()
    return set()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body = node.body[1:]
    return tree


def _replace(tree: ast.Module, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
                return
            if isinstance(value, list) and any(item is old for item in value):
                value[:] = [new if item is old else item for item in value]
                return


def _difference(before: str, after: str) -> str:
    old, new = before.split("\n"), after.split("\n")
    changed = [f"{a.strip()} -> {b.strip()}" for a, b in zip(old, new, strict=False) if a != b]
    return changed[0] if changed else "a line was left out"
