"""Faster forms of the formulas in ``gclib.blocks``, chosen by the blocks themselves.

Read ``gclib.blocks.framework`` and ``gclib.blocks.non_local`` first: the plain formulas stand
there, and each function here gives the same values and gradients. This package works on tensors,
knows no block, and imports torch alone.
"""

from gclib.blocks.fast.choice import autocast, plain_formulas, usable
from gclib.blocks.fast.framework import (
    add,
    addition_wins,
    attention_pooling,
    average_pooling,
    sums_by_product,
)
from gclib.blocks.fast.non_local import (
    association_wins,
    concat,
    dot_product,
    softmax,
    softmax_wins,
    sorting_wins,
)

__all__ = [
    "add",
    "addition_wins",
    "association_wins",
    "attention_pooling",
    "autocast",
    "average_pooling",
    "concat",
    "dot_product",
    "plain_formulas",
    "softmax",
    "softmax_wins",
    "sorting_wins",
    "sums_by_product",
    "usable",
]
