"""Find the student's parameters by the role they play, so that names and layers stay free.

A weight may belong to a 1×1 convolution, a linear layer or a bare parameter, and a layer may have
any name; its matrix may be stored as (outputs, inputs) or, for ``x @ W``, as (inputs, outputs).
Layers with the usual names are taken by name, as the exercise asks for them. Otherwise every
assignment of the layers whose shapes fit is tried.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

Shape = tuple[int, ...]

_NAMES = {
    "query": ("query", "q", "theta", "w_q", "wq", "to_q", "w_query", "f_q", "w_theta"),
    "key": ("key", "k", "phi", "w_k", "wk", "to_k", "w_key", "f_k", "w_phi"),
    "value": ("value", "v", "g", "w_v", "wv", "to_v", "w_value", "f_v", "w_g"),
    "out": (
        *("out", "output", "w_z", "wz", "z", "w", "to_out", "conv_out", "proj", "project"),
        *("w_o", "wo", "w_out", "o"),
    ),
    "pair": ("pair", "w_f", "wf", "concat", "concat_project", "f"),
    "conv": ("conv", "branch", "layer"),
    "reduce": ("reduce", "down", "squeeze", "fc1", "linear1", "conv1", "w_1", "w1", "w_v1", "wv1"),
}
_AFFIXES = ("conv", "proj", "projection", "weight", "layer", "linear")
_BIAS = re.compile(r"(^|_)b(_|$)|bias")


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
    if len(parameters) > 4 * len(roles) + 8:  # a weight, a bias, a norm for each; not hundreds
        return []
    to_one = any(shape[0] == 1 for shape in roles.values())  # a map to one number is a vector
    weights = {n: _trim(s) for n, s in parameters.items() if len(_trim(s)) == 2 or to_one}
    weights = {n: s for n, s in weights.items() if len(s) > 1 or not _is_bias(n)}
    by_name: dict[str, str] = {}
    for role, shape in roles.items():
        found = [name for name in weights if _plays(name, role)]
        fits = [n for n in found if weights[n] in (_trim(shape), _trim(shape)[::-1])]
        if len(fits) == 1:
            by_name[role] = fits[0]
    square = any(len(set(shape)) == 1 for shape in roles.values())
    if len(by_name) == len(roles) and not square:
        turned = {role: weights[n] != _trim(roles[role]) for role, n in by_name.items()}
        return [_slots(by_name, turned, parameters, roles)]
    return [
        _slots(names, dict.fromkeys(roles, turned), parameters, roles)
        for turned in (False, True)
        for names in _by_shape(weights, roles, turned)
    ]


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
    weights: Mapping[str, Shape], roles: Mapping[str, Shape], turned: bool
) -> Iterator[dict[str, str]]:
    groups: dict[Shape, list[str]] = {}
    for role, shape in roles.items():
        groups.setdefault(_trim(shape)[:: -1 if turned else 1], []).append(role)
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
        yield {role: name for part in combination for role, name in part.items()}


def _slots(
    names: Mapping[str, str],
    turned: Mapping[str, bool],
    parameters: Mapping[str, Shape],
    roles: Mapping[str, Shape],
) -> Assignment:
    """Find the biases: by name, and what is left by size, in the order of definition."""
    biases = {role: _bias(name, roles[role][0], parameters) for role, name in names.items()}
    taken = {*names.values(), *biases.values()}
    left = [n for n, shape in parameters.items() if n not in taken and len(_trim(shape)) <= 1]
    for role in sorted(names, key=lambda role: [*parameters].index(names[role])):
        size = _trim((roles[role][0],))
        if biases[role] is None and (fits := [n for n in left if _trim(parameters[n]) == size]):
            biases[role] = fits[0]
            left.remove(fits[0])
    return {role: Slot(name, biases[role], turned[role]) for role, name in names.items()}


def _stem(name: str) -> str:
    """``"block.query_conv.weight"`` → ``"query"``, ``"weight_q"`` → ``"q"``."""
    stem = name.removesuffix(".weight").removesuffix(".bias").split(".")[-1].lower()
    for affix in _AFFIXES:
        stem = stem.removesuffix(f"_{affix}").removeprefix(f"{affix}_")
    return stem


def _plays(name: str, role: str) -> bool:
    stem = _stem(name)
    known = _NAMES[role]
    return stem in known or (stem.endswith("_w") and stem.removesuffix("_w") in known)


def _bias(weight: str, outputs: int, parameters: Mapping[str, Shape]) -> str | None:
    stem = _stem(weight)
    bare = re.sub(r"^w_?|_w$", "", stem) or stem
    wanted = {
        weight.removesuffix("weight").lower() + "bias",
        weight.lower().replace("weight", "bias"),
        *(f"{s}_{b}" for s in (weight.lower(), stem, bare) for b in ("bias", "b")),
        *(f"{b}_{s}" for s in (weight.lower(), stem, bare) for b in ("bias", "b")),
        f"b{bare}",
    } - {weight.lower()}
    fits = (n for n, s in parameters.items() if _trim(s) == _trim((outputs,)))
    return next((n for n in fits if n.lower() in wanted), None)


def _is_bias(name: str) -> bool:
    return bool(_BIAS.search(name.split(".")[-1].lower()))


def _trim(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)
