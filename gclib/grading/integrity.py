"""What a person should look at before a grade stands. A flag takes no points by itself.

Students' code runs where it can steal and break nothing (:mod:`gclib.grading.sandbox`), and hidden
checks use other numbers than visible ones. What is left to an answer is to use somebody else's
block, or to lie about how it works; both need a few words of Python that no answer needs.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from gclib.checks.cells import parse_cell
from gclib.grading.verdicts import Flag, Verdict

Cells = Iterable[tuple[str, bool, str]]

_LIBRARIES = ("timm", "mmcv", "mmdet", "mmpretrain", "mmcls", "segmentation_models_pytorch")
_MACHINERY = {
    "atexit": "code that runs later",
    "builtins": "Python's own functions",
    "ctypes": "memory of the process",
    "gc": "objects of others",
    "importlib": "imports by name",
    "inspect": "code and variables of others",
    "marshal": "compiled code",
    "multiprocessing": "other processes",
    "os": "the system",
    "pickle": "objects in files",
    "requests": "the network",
    "shutil": "files",
    "signal": "signals",
    "socket": "the network",
    "subprocess": "other programs",
    "sys": "the interpreter",
    "threading": "threads",
    "urllib": "the network",
}
_CALLS = {
    "__import__": "imports by name",
    "compile": "runs text as code",
    "eval": "runs text as code",
    "exec": "runs text as code",
    "get_ipython": "the notebook's shell",
    "globals": "all variables",
    "input": "waits for a keyboard",
    "open": "reads or writes a file",
    "setattr": "sets an attribute by name",
    "vars": "all variables",
}
_RUNNERS = ("__import__", "eval", "exec", "get_ipython")
_LYING = {
    "__eq__": "an object that says what it equals",
    "__ne__": "an object that says what it equals",
    "__torch_function__": "a tensor that replaces torch's functions",
    "__torch_dispatch__": "a tensor that replaces torch's operators",
    "__instancecheck__": "a class that says what belongs to it",
    "__subclasses__": "looks for classes of others",
    "__globals__": "looks into another function",
    "__builtins__": "Python's own functions",
    "__code__": "changes compiled code",
    "_getframe": "looks at who called",
    "f_back": "looks at who called",
    "__traceback__": "looks at who called",
    "_python_dispatch": "hides operations from the checks",
    "_disable_current_modes": "hides operations from the checks",
    "_C": "hides operations from the checks",
}
_MOST = 200  # flags; nobody reads more
_MODULES = {"torch", "F", "nn", "np", "numpy", "math", "gclib", "course", "Tensor"}


def flags(cells: Cells, released: Cells, altered: Iterable[str] = ()) -> list[Flag]:
    """What is odd about a submission's code.

    Args:
        cells: label, whether it is an answer, and source of each code cell.
        released: the same of the notebook as it was handed out; what stands there is not odd.
        altered: ``grade_id`` of locked cells whose text was changed.
    """
    released = list(released)
    given = {line.strip() for _, _, source in released for line in source.split("\n")}
    found = [Flag(name, 1, "the check was edited; the original counts", "") for name in altered]
    cells = list(cells)
    classes = _given_classes(cells, released)
    for label, _, source in cells:
        lines = source.split("\n")
        for line, what in sorted(set(itertools.islice(_odd(source, classes), _MOST))):
            text = lines[line - 1].strip() if line <= len(lines) else ""
            if text not in given:
                found.append(Flag(label, line, what, text[:200]))
    return found[:_MOST]


def verdict_flags(verdicts: Iterable[Verdict]) -> list[Flag]:
    """Answers that know the visible numbers alone."""
    passed = {verdict.cell: verdict.verdict == "passed" for verdict in verdicts}
    return [
        Flag(
            cell.removesuffix("-visible"),
            1,
            "passes the visible check and fails the hidden one: does it know the visible numbers?",
            "",
        )
        for cell, good in passed.items()
        if cell.endswith("-visible") and good
        if passed.get(cell.replace("-visible", "-hidden")) is False
    ]


def _odd(source: str, classes: set[str]) -> Iterator[tuple[int, str]]:
    """Line and reason."""
    for number, line in enumerate(source.split("\n"), start=1):
        if re.match(r"\s*(?:\w[\w., ]*=\s*)?[!%]{1,2}\s*[A-Za-z(]", line[:1000]):
            magic = re.match(r"\s*%{1,2}(time|timeit|matplotlib|pip|conda|prun)\b", line)
            if not magic:
                yield number, "a command of the shell or of IPython"
    try:
        tree = parse_cell(source)
    except SyntaxError:
        return  # it does not run either
    except (ValueError, RecursionError, MemoryError):
        yield 1, "cannot be read by the grader: nested too deep"
        return
    harmless = set(_harmless_setattr(tree, classes))
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 1)
        if node in harmless:
            continue
        for what in _of_node(node):
            yield line, what
        if isinstance(node, ast.Name) and node.id == "setattr" and node not in called:
            yield line, f"setattr: {_CALLS['setattr']}"  # under another name


def _given_classes(cells: Cells, released: Cells) -> set[str]:
    """Classes that the notebook defines and that no cell of the student binds or changes."""
    untouched = {source for _, _, source in released}
    classes: set[str] = set()
    theirs: list[str] = []
    for _, _, source in cells:
        try:
            tree = parse_cell(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if source in untouched:
            classes.update(node.name for node in tree.body if isinstance(node, ast.ClassDef))
        else:
            theirs += itertools.chain.from_iterable(map(_changed_names, ast.walk(tree)))
    return classes.difference(theirs) if "*" not in theirs else set()


def _harmless_setattr(tree: ast.AST, classes: set[str]) -> Iterator[ast.Call]:
    """``setattr(net, stage, ...)`` in a function where ``net`` is ``TinyResNet()`` and that alone.

    A network of the notebook's own classes belongs to the answer. Any other object could be torch
    under another name, so of it nothing is believed.
    """
    bound = Counter(itertools.chain.from_iterable(map(_changed_names, ast.walk(tree))))
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        made = Counter(node.targets[0].id for node in function.body if _makes(node, classes))
        for node in ast.walk(function):
            if not (isinstance(node, ast.Call) and _dotted(node.func) == "setattr"):
                continue
            target, name = (*node.args, None, None)[:2]
            safe = isinstance(target, ast.Name) and 0 < bound[target.id] == made[target.id]
            if isinstance(name, ast.Constant):
                safe = safe and not str(name.value).startswith("__")
            if safe and not bound["*"]:
                yield node


def _makes(node: ast.AST, classes: set[str]) -> bool:
    """Whether a statement is ``name = GivenClass(...)``."""
    return (
        isinstance(node, ast.Assign)
        and len(node.targets) == 1
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id in classes
    )


def _changed_names(node: ast.AST) -> Iterator[str]:
    """Names that a node binds, deletes, or sets an attribute of; ``"*"`` may be any."""
    if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node.value, ast.Name) and node.value.id[:1].isupper():  # Net.__new__ = ...
            yield node.value.id
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, (ast.Global, ast.Nonlocal)):
        yield from node.names
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest


def _of_node(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _of_import(alias.name)
    elif isinstance(node, ast.ImportFrom):
        yield from _of_import(node.module or "")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        of_itself = node.func.id == "setattr" and node.args and _root(node.args[0]) == "self"
        if not of_itself:
            yield f"{node.func.id}(): {_CALLS[node.func.id]}"
    elif isinstance(node, ast.Attribute):
        if node.attr in _LYING:
            yield f"{node.attr}: {_LYING[node.attr]}"
        if isinstance(node.ctx, (ast.Store, ast.Del)) and _root(node) in _MODULES:
            yield f"changes {_dotted(node)}"
        if _dotted(node) in ("sys.modules", "os.environ", "sys.settrace"):
            yield f"{_dotted(node)}: the interpreter"
        elif node.attr in _MACHINERY and _root(node) != "self":  # torch.sys, torch.os
            yield f"{_dotted(node)}: {_MACHINERY[node.attr]}"
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in _LYING:
        yield f"defines {node.name}: {_LYING[node.name]}"
    elif isinstance(node, ast.Name) and node.id in _LYING:
        yield f"{node.id}: {_LYING[node.id]}"
    elif isinstance(node, ast.Name) and node.id in _RUNNERS:  # run = exec
        yield f"{node.id}: {_CALLS[node.id]}"
    elif isinstance(node, ast.Compare) and _is_hard_coded(node):
        yield "compares its input with fixed numbers"


def _of_import(name: str) -> Iterator[str]:
    top = name.split(".")[0]
    if top == "gclib":
        yield f"imports {name}: the course's own code"
    elif top in _LIBRARIES:
        yield f"imports {name}: a library that has these blocks"
    elif top in _MACHINERY:
        yield f"imports {name}: {_MACHINERY[top]}"


def _dotted(node: ast.AST) -> str:
    """``"torch.nn.functional"``; of anything but names and attributes, what follows it."""
    parts = []
    while isinstance(node, ast.Attribute) and len(parts) < 9:
        parts.append(node.attr)
        node = node.value
    return ".".join([*([node.id] if isinstance(node, ast.Name) else []), *reversed(parts)])


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_hard_coded(node: ast.Compare) -> bool:
    """``x.shape == (2, 3, 4)``, ``x[0, 0] == 1.5``, ``x.sum() == 7.0``."""
    sides = [node.left, *node.comparators]
    for side in sides:
        several = isinstance(side, (ast.Tuple, ast.List)) and len(side.elts) > 1
        if several and all(_is_number(item) for item in side.elts):
            others = [other for other in sides if other is not side]
            return any(getattr(n, "attr", "") == "shape" for o in others for n in ast.walk(o))
        fixed = isinstance(side, ast.Constant) and type(side.value) is float
        if fixed and side.value not in (0.0, 1.0):
            return any(isinstance(other, (ast.Call, ast.Subscript)) for other in sides)
    return False


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)
