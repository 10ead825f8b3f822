"""What a person should look at is found, and right answers raise no flag."""

import json

import pytest
from mutants.answers import PREAMBLE, references, variants

from gclib.chapters import CHAPTERS, repository
from gclib.grading.integrity import flags, verdict_flags
from gclib.grading.repair import Mended
from gclib.grading.verdicts import Verdict

ODD = {
    "from gclib.blocks import GCBlock": "imports gclib.blocks",
    "import gclib.checks.hidden.c01 as h": "the course's own code",
    "from timm.layers import GlobalContext": "a library that has these blocks",
    "import os\nx = os.environ['A']": "os.environ",
    "def f(x):\n    import sys\n    return sys.modules": "sys.modules",
    "torch.equal = lambda *a: True": "changes torch.equal",
    "torch.Tensor.__eq__ = lambda *a: True": "changes torch.Tensor.__eq__",
    "del F.softmax": "changes F.softmax",
    "setattr(torch, 'equal', print)": "sets an attribute by name",
    "class A:\n    def __eq__(self, other):\n        return True": "what it equals",
    "class A(torch.Tensor):\n    def __torch_function__(self, *a): pass": "replaces",
    "f = aggregate.__globals__": "looks into another function",
    "get_ipython().events.register('post_run_cell', f)": "the notebook's shell",
    "!curl example.org": "a command of the shell",
    "x = !ls": "a command of the shell",
    "%%bash\nls": "a command of the shell",
    "eval('1')": "runs text as code",
    "open('/etc/passwd').read()": "a file",
    "def f(x):\n    return x if x.shape == (1, 2, 3) else 0": "fixed numbers",
    "def f(x):\n    return 3 if x.sum() == 7.5 else 0": "fixed numbers",
}


@pytest.mark.parametrize("source", ODD)
def test_odd_code_is_flagged_with_its_line(source):
    found = flags([("c01-e1", True, "y = 1\n" + source)], [])
    assert any(ODD[source] in flag.what for flag in found), found
    for flag in found:
        assert flag.cell == "c01-e1"
        assert flag.source in source
        assert flag.line > 1


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.number)
def test_right_answers_raise_no_flag(chapter):
    content = json.loads((repository() / "chapters" / chapter.notebook).read_text())
    given = list(Mended(content).code_cells())
    cells = [("preamble", False, PREAMBLE)]
    cells += [(name, True, source) for name, source in references(chapter.number).items()]
    cells += [
        (f"{name}, {variant}", True, source)
        for name, found in variants(chapter.number).items()
        for variant, source in found.items()
    ]
    assert flags(given + cells, given) == []


def test_what_was_handed_out_is_not_odd():
    line = "from gclib.analysis import capture"
    assert flags([("a", False, line)], [("b", False, f"x = 1\n{line}")]) == []


NET = "class Net(nn.Module):\n    pass"  # handed out
STARTS = "def f(stage):\n    net = Net()\n"


def of_answer(source):
    return flags([("given", False, NET), ("c01-e1", True, source)], [("given", False, NET)])


@pytest.mark.parametrize(
    "line",
    [
        "setattr(net, stage, nn.Sequential())",
        "for stage in 'ab':\n        setattr(net, stage, 1)",
        "setattr(net, 'c3', 1)",
        "def g():\n        setattr(net, stage, 1)",
    ],
)
def test_a_part_of_a_network_of_the_notebook_may_be_set_by_name(line):
    assert of_answer(f"{STARTS}    {line}\n    return net") == []


@pytest.mark.parametrize(
    "source",
    [
        STARTS + "    setattr(torch, stage, 1)",
        STARTS + "    setattr(F, 'softmax', 1)",
        STARTS + "    setattr(nn.functional, 'softmax', 1)",
        STARTS + "    setattr(net.x, stage, 1)",
        STARTS + "    setattr(Net, stage, 1)",
        STARTS + "    setattr(net, '__class__', 1)",
        STARTS + "    net = torch\n    setattr(net, stage, 1)",
        STARTS + "    for net in [torch]:\n        setattr(net, stage, 1)",
        STARTS + "    with torch as net:\n        setattr(net, stage, 1)",
        STARTS + "    (net := torch)\n    setattr(net, stage, 1)",
        STARTS + "    import torch as net\n    setattr(net, stage, 1)",
        STARTS + "    from gclib.checks import c01 as net\n    setattr(net, 'e1', print)",
        STARTS + "    return lambda net: setattr(net, stage, 1)",
        STARTS + "    [setattr(net, 'equal', 1) for net in [torch]]",
        STARTS + "    match torch:\n        case net:\n            setattr(net, stage, 1)",
        "import torch as net\n" + STARTS + "    setattr(net, stage, 1)",
        "def f(net):\n    setattr(net, 'equal', 1)",
        "def f(a):\n    t = torch\n    setattr(t, 'equal', 1)",
        "def f(a):\n    if a:\n        net = Net()\n    setattr(net, 'equal', 1)",
        STARTS + "def g():\n    setattr(net, 'equal', 1)",
        "Net = lambda: torch\n" + STARTS + "    setattr(net, 'equal', 1)",
        "class Net:\n    def __new__(cls): return torch\n"
        + STARTS
        + "    setattr(net, 'equal', 1)",
        "Net.__new__ = lambda cls: torch\n" + STARTS + "    setattr(net, 'equal', 1)",
        "from elsewhere import *\n" + STARTS + "    setattr(net, 'equal', 1)",
        STARTS + "    s = setattr\n    s(torch, 'equal', 1)",
    ],
)
def test_any_other_object_may_be_torch_under_another_name(source):
    found = of_answer(source)
    assert any("setattr" in flag.what for flag in found), found


def test_edited_checks_are_flagged():
    (flag,) = flags([], [], ["c01-e1-visible"])
    assert (flag.cell, flag.what) == ("c01-e1-visible", "the check was edited; the original counts")


def test_code_that_does_not_parse_is_no_reason_to_stop():
    assert flags([("a", True, "def f(:\n"), ("b", True, "((" * 500), ("c", True, "\0")], []) == []


def verdict(cell, said):
    return Verdict(cell, said, "", "", [], 0, 0.0)


def test_knowing_the_visible_numbers_alone_is_flagged():
    found = verdict_flags(
        [
            *(verdict(f"c01-e1-{kind}", "passed") for kind in ("visible", "hidden")),
            verdict("c01-e2-visible", "passed"),
            verdict("c01-e2-hidden", "failed"),
            *(verdict(f"c01-e3-{kind}", "failed") for kind in ("visible", "hidden")),
            verdict("c01-e4-visible", "failed"),
            verdict("c01-e4-hidden", "passed"),
            verdict("c01-e5-visible", "passed"),
        ]
    )
    assert [flag.cell for flag in found] == ["c01-e2"]
