"""The prose lint finds what it is for, and leaves alone what it is not."""

import pytest

from gclib.grading.prose import FILLERS, exists, lint_prose

GOOD = """## 4. Context modelling

The colour of the strip, at the centre, decides. $\\text{color}$ and `center_crop` are code.
Ba et al., *Layer Normalization* ([arXiv 1607.06450](https://arxiv.org/abs/1607.06450)); see
`gclib.blocks.AttentionPooling` and `gclib/blocks/framework.py`. The paper says "novel, simply".

| map | shape |
|---|---|
| of a query, of another one, of a third, of all of them, of none at all | (1, 64) |
"""


def test_a_good_text_has_no_problem():
    assert list(lint_prose(GOOD)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The color of it.", "writes colour"),
        ("Colored maps.", "writes colour"),
        ("Context modeling is a sum.", "writes modelling"),
        ("We normalize the rows.", "writes normalise"),
        ("A nonlocal block.", "writes non-local"),
        ("The center of it.", "writes centre"),
        ("The reduction ratio is 16.", "writes bottleneck ratio"),
        ("It has 3 MACs.", "writes multiply-adds"),
        ("It works!", "calm"),
        ("Done \U0001f389", "calm"),
        ("word " * 51 + "end.", "a sentence of 52 words"),
        ("See `gclib.blocks.NoBlock`.", "is not there"),
        ("See `gclib/blocks/none.py`.", "is not there"),
        *((f"This is, {filler}, so.", "say it without") for filler in FILLERS),
    ],
)
def test_what_is_found(text, said):
    (problem,) = lint_prose(text)
    assert said in problem


def test_names():
    assert exists("gclib.blocks.GCBlock")
    assert exists("gclib.analysis.maps")
    assert not exists("gclib.analysis.mapz")
    assert not exists("gclib.blocks.GCBlock.nothing")
