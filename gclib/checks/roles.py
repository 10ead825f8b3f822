"""Find the student's parameters by the role they play, so that names and layers stay free.

A weight may belong to a 1×1 convolution, a linear layer or a bare parameter, and a layer may have
any name. Layers with the usual names are taken by name. Otherwise every assignment of the layers
whose shapes fit is tried: which of two equal layers one calls the query is a matter of naming.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

Shape = tuple[int, ...]

_NAMES = {
    "query": ("query", "q", "theta", "w_q", "wq", "to_q", "w_query", "f_q"),
    "key": ("key", "k", "phi", "w_k", "wk", "to_k", "w_key", "f_k"),
    "value": ("value", "v", "g", "w_v", "wv", "to_v", "w_value", "f_v"),
    "out": ("out", "output", "w_z", "wz", "z", "w", "to_out", "conv_out", "proj", "project"),
    "pair": ("pair", "w_f", "wf", "concat", "concat_project", "f"),
    "conv": ("conv", "branch", "layer"),
}
_SUFFIXES = ("_conv", "_proj", "_projection", "_weight", "_layer", "_linear")


@dataclass(frozen=True)
class Slot:
    """Where the weight and the bias of one role are."""

    weight: str
    bias: str | None
    transposed: bool


Assignment = Mapping[str, Slot]


def assignments(parameters: Mapping[str, Shape], roles: Mapping[str, Shape]) -> list[Assignment]:
    """List the ways in which ``parameters`` can play ``roles``; empty if they cannot.

    Args:
        parameters: names and shapes of the student's parameters.
        roles: for each role the shape ``(outputs, inputs)`` of its weight. No size may be 1, but
            the first of a map to one number.
    """
    weights = {n: _trim(s) for n, s in parameters.items() if len(_trim(s)) == 2 or "pair" in roles}
    weights = {name: shape for name, shape in weights.items() if not _is_bias(name)}
    by_name: dict[str, Slot] = {}
    for role, shape in roles.items():
        found = [name for name in weights if _plays(name, role)]
        fits = [n for n in found if weights[n] in (_trim(shape), _trim(shape)[::-1])]
        if len(fits) == 1:
            transposed = weights[fits[0]] != _trim(shape)
            by_name[role] = Slot(fits[0], _bias(fits[0], shape[0], parameters), transposed)
    if len(by_name) == len(roles):
        return [by_name]
    return list(_by_shape(weights, parameters, roles))


def weights_for(
    assignment: Assignment, values: Mapping[str, Tensor], biases: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Turn the values of roles into values of parameters; biases not given become zero.

    Args:
        assignment: one of :func:`assignments`.
        values: for each role a weight ``(outputs, inputs)``.
        biases: for some roles a bias ``(outputs,)``; ignored where the layer has none.
    """
    weights = {}
    for role, slot in assignment.items():
        value = values[role]
        weights[slot.weight] = value.T if slot.transposed else value
        if slot.bias:
            weights[slot.bias] = (biases or {}).get(role, value.new_zeros(value.shape[0]))
    return weights


def names_in(assignment: Assignment) -> set[str]:
    """The parameters that the assignment uses."""
    slots = assignment.values()
    return {slot.weight for slot in slots} | {slot.bias for slot in slots if slot.bias}


def _by_shape(
    weights: Mapping[str, Shape], parameters: Mapping[str, Shape], roles: Mapping[str, Shape]
) -> Iterator[Assignment]:
    groups: dict[Shape, list[str]] = {}
    for role, shape in roles.items():
        groups.setdefault(_trim(shape), []).append(role)
    choices = []
    for shape, members in groups.items():
        fitting = [name for name, found in weights.items() if found == shape]
        choices.append(
            [
                dict(zip(members, names, strict=True))
                for names in itertools.permutations(fitting, len(members))
            ]
        )
    for combination in itertools.product(*choices):
        names = {role: name for part in combination for role, name in part.items()}
        yield {
            role: Slot(name, _bias(name, roles[role][0], parameters), transposed=False)
            for role, name in names.items()
        }


def _stem(name: str) -> str:
    """``"block.query_conv.weight"`` → ``"query"``."""
    stem = name.removesuffix(".weight").removesuffix(".bias").split(".")[-1].lower()
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem


def _plays(name: str, role: str) -> bool:
    return _stem(name) in _NAMES[role]


def _is_bias(name: str) -> bool:
    return name.split(".")[-1].lower().endswith("bias") or _stem(name).startswith("b_")


def _bias(weight: str, outputs: int, parameters: Mapping[str, Shape]) -> str | None:
    candidates = (weight.removesuffix("weight") + "bias", f"{weight}_bias", f"b_{_stem(weight)}")
    return next(
        (n for n in candidates if _trim(parameters.get(n, (0,))) == _trim((outputs,))), None
    )


def _trim(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)
