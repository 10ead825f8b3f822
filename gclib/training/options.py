"""Recipes as typed dataclasses, and their fields as options of the command line.

A field that is an option says what it means and what it may be:

>>> @dataclass(frozen=True, kw_only=True)
... class Small:
...     lr: float = option(0.1, "learning rate", above=0)
>>> (values,) = parse(["--lr", "0.02"], Small)
>>> override(Small(), values)
Small(lr=0.02)

Every message names the field, the value and the nearest valid name.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from gclib.blocks._arguments import check_choice

Recipe = TypeVar("Recipe")
_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}


class BadOption(ValueError):
    """An option that does not exist or has a value that it cannot have."""


@dataclass(frozen=True)
class Limits:
    """What a field means and which values it may have.

    Attributes:
        text: one line for ``--help``.
        choices: the only values; None for all of its type.
        above: smaller and equal values are refused.
        least: smaller values are refused.
        most: larger values are refused.
    """

    text: str
    choices: tuple[str, ...] | None = None
    above: float | None = None
    least: float | None = None
    most: float | None = None

    def check(self, name: str, value: Any) -> None:
        """Raise BadOption unless every number or word in ``value`` is allowed."""
        for part in value if isinstance(value, tuple) else (value,):
            if part is None:
                continue
            if isinstance(part, float) and not math.isfinite(part):
                raise BadOption(f"{name}={part!r}: expected a finite number")
            if self.choices:
                try:
                    check_choice(name, part, self.choices)
                except ValueError as error:
                    raise BadOption(str(error)) from None
            if self.above is not None and not part > self.above:
                raise BadOption(f"{name}={part!r}: expected more than {self.above:g}")
            if self.least is not None and not part >= self.least:
                raise BadOption(f"{name}={part!r}: expected at least {self.least:g}")
            if self.most is not None and not part <= self.most:
                raise BadOption(f"{name}={part!r}: expected at most {self.most:g}")


def option(default: Any, text: str, **limits: Any) -> Any:
    """A field of a recipe; see :class:`Limits`."""
    return field(default=default, metadata={"limits": Limits(text, **limits)})


def option_names(recipe: type) -> dict[str, str]:
    """Command-line name → field, for example ``"--micro-batch"`` → ``"micro_batch"``."""
    return {"--" + f.name.replace("_", "-"): f.name for f in fields(recipe)}


def parse(arguments: Sequence[str], *kinds: type) -> list[dict[str, Any]]:
    """Field → value for each dataclass, of arguments like ``--lr 0.1 --drops 8,11``.

    Args:
        arguments: of the command line; ``--name value`` or ``--name=value``.
        kinds: the dataclasses whose fields are options.

    Raises:
        BadOption: a name that does not exist, a value that does not fit, is missing or given twice.
    """
    owners = {name: kind for kind in kinds for name in option_names(kind)}
    found: dict[type, dict[str, Any]] = {kind: {} for kind in kinds}
    rest = list(arguments)
    while rest:
        name, given, value = rest.pop(0).partition("=")
        if name not in owners:
            near = difflib.get_close_matches(name, owners, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise BadOption(f"there is no option {name!r}{hint}")
        if not given:
            if not rest or rest[0] in owners:
                raise BadOption(f"{name} needs a value")
            value = rest.pop(0)
        kind, field_name = owners[name], option_names(owners[name])[name]
        if field_name in found[kind]:
            raise BadOption(f"{name} is given twice")
        found[kind][field_name] = read(kind, field_name, value)
    return [found[kind] for kind in kinds]


def read(recipe: type, name: str, text: str) -> Any:
    """The value of a field from its text; BadOption where it does not fit its type."""
    kind = get_type_hints(recipe)[name]
    try:
        value = _read(kind, text)
    except ValueError:
        raise BadOption(f"--{name.replace('_', '-')} {text}: expected {_describe(kind)}") from None
    _limits(recipe, name).check(name, value)
    return value


def override(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """A copy with other values; the recipe's own checks run again.

    Raises:
        BadOption: no such field; a value of another type, or that the field cannot have.
    """
    cls = type(recipe)
    known = {f.name for f in fields(cls)}
    hints = get_type_hints(cls)
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise BadOption(f"{cls.__name__} has no field {name!r}{hint}")
        if not _fits(hints[name], value):
            raise BadOption(f"{name}={value!r}: expected {_describe(hints[name])}")
        _limits(cls, name).check(name, value)
    return replace(recipe, **values)


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """One text for each field in which two recipes differ: ``lr: 0.1 and 0.2``."""
    absent = object()
    lines = []
    for name in dict.fromkeys([*first, *second]):
        one, two = first.get(name, absent), second.get(name, absent)
        one, two = (list(v) if isinstance(v, tuple) else v for v in (one, two))
        if one != two:
            shown = ("nothing" if v is absent else repr(v) for v in (one, two))
            lines.append(f"{name}: {' and '.join(shown)}")
    return lines


def help_lines(recipe: Any) -> list[str]:
    """One line for each field: option, value of this recipe, meaning."""
    lines = []
    for f in fields(recipe):
        value = getattr(recipe, f.name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        limits = _limits(type(recipe), f.name)
        choices = f" ({', '.join(limits.choices)})" if limits.choices else ""
        lines.append(
            f"  --{f.name.replace('_', '-'):<16} {shown or '-':<12} {limits.text}{choices}"
        )
    return lines


def _limits(cls: type, name: str) -> Limits:
    for f in fields(cls):
        if f.name == name:
            return f.metadata.get("limits", Limits(""))
    raise AssertionError(name)


def _parts(kind: Any) -> tuple[Any, bool]:
    """The type without None, and whether None is allowed."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = [part for part in get_args(kind) if part is not type(None)]
        return inner[0], len(inner) < len(get_args(kind))
    return kind, False


def _read(kind: Any, text: str) -> Any:
    kind, optional = _parts(kind)
    if optional and text.lower() in ("none", ""):
        return None
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        value = tuple(_read(inner, part.strip()) for part in text.split(",") if part.strip())
        if not _fits(kind, value):
            raise ValueError
        return value
    if kind is bool:
        if text.lower() not in _WORDS:
            raise ValueError
        return _WORDS[text.lower()]
    value = kind(text)
    if kind is float and value != value:
        raise ValueError
    return value


def _fits(kind: Any, value: Any) -> bool:
    kind, optional = _parts(kind)
    if value is None:
        return optional
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if not isinstance(value, tuple) or not all(_fits(inner[0], part) for part in value):
            return False
        return inner[-1] is Ellipsis or len(value) == len(inner)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float)) if kind is float else isinstance(value, kind)


def _describe(kind: Any) -> str:
    kind, optional = _parts(kind)
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        many = "" if inner[-1] is Ellipsis else f"{len(inner)} "
        text = f"{many}{_NAMES[inner[0]][1]} with commas between them"
    else:
        text = _NAMES[kind][0]
    return f"{text} or none" if optional else text


_NAMES = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    bool: ("yes or no", "yes or no"),
    str: ("a word", "words"),
}
