"""Verdicts on one submission: every check, in order, with what its cell would show."""

import nbformat
import pytest
from mutants.answers import PREAMBLE, apply, mutants, references
from test_sandbox import needs_bubblewrap

from gclib.chapters import find_chapter
from gclib.checks import c01
from gclib.grading.judge import checks_of, digest, judge, seed_of
from gclib.grading.sandbox.jail import Limits, Sandbox
from gclib.grading.sandbox.visible import write_visible

CHAPTER = find_chapter("01")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visible")
    write_visible(CHAPTER, folder)
    with Sandbox(folder, Limits(memory=2**30, call_seconds=3, seconds=20)) as sandbox:
        yield sandbox


def verdicts(sandbox, answers, secret=b"s"):
    cells = [("preamble", False, PREAMBLE), *((n, True, source) for n, source in answers.items())]
    found = judge(sandbox, CHAPTER, cells, secret=secret, submission=digest(b"notebook"))
    assert [v.cell for v in found] == [
        f"{e.id}-{'hidden' if e.hidden else 'visible'}" for e in checks_of(CHAPTER)
    ]
    for verdict in found:
        outputs = [nbformat.from_dict(output) for output in verdict.outputs]
        cell = nbformat.v4.new_code_cell("1", outputs=outputs)
        nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
        assert ("error" in [o.output_type for o in outputs]) == (verdict.verdict != "passed")
        assert any(o.output_type == "display_data" for o in outputs)
    return {v.cell: v for v in found}


@needs_bubblewrap
def test_reference_passes(sandbox):
    found = verdicts(sandbox, references("01"))
    assert {v.verdict for v in found.values()} == {"passed"}
    assert found["c01-e1-visible"].outputs[0]["text"].startswith("ok  ")
    assert "passed" in found["c01-e1-hidden"].outputs[-1]["data"]["text/plain"]


@needs_bubblewrap
def test_blank_and_wrong_and_broken_and_endless(sandbox):
    answers = references("01")
    names = list(answers)
    answers[names[1]] = apply(mutants("01")[names[1]][0].edits, answers[names[1]])
    answers[names[2]] = "def aggregate(:"
    needs = {e.id: e.needs for e in checks_of(CHAPTER)}
    answers[names[4]] = f"def {needs[names[4]]}(*a, **k):\n    while True:\n        pass\n"
    answers[names[6]] = (
        f'def {needs[names[6]]}(*x):\n    raise NotImplementedError("your code here")'
    )
    found = verdicts(sandbox, answers)
    said = {name: (v.verdict, v.message) for name, v in found.items()}
    assert said[f"{names[6]}-visible"][0] == "not attempted"
    assert said[f"{names[1]}-visible"][0] == "failed"
    assert said[f"{names[2]}-visible"][0] == "failed"
    broken = found[f"{names[2]}-visible"].outputs[0]["data"]["text/plain"]
    assert "SyntaxError" in broken
    assert said[f"{names[4]}-hidden"][0] == "failed"
    assert "endless loop" in found[f"{names[4]}-hidden"].outputs[0]["data"]["text/plain"]
    assert said[f"{names[0]}-visible"][0] == "passed"


@needs_bubblewrap
def test_definitions_that_end_the_process_cost_their_exercise_and_say_why(sandbox):
    answers = references("01")
    found = verdicts(sandbox, answers | {"c01-e1": "import os\nif True:\n    os._exit(0)"})
    assert found["c01-e1-visible"].verdict == found["c01-e1-hidden"].verdict == "failed"
    assert found["c01-e2-visible"].verdict == found["c01-e2-hidden"].verdict == "passed"
    card = found["c01-e1-visible"].outputs[0]["data"]["text/plain"]
    assert "the code ended its process" in card


def test_seeds_differ_and_repeat():
    hidden = [e for e in checks_of(CHAPTER) if e.hidden]
    seeds = {
        seed_of(secret, exercise, digest(notebook))
        for secret in (b"a", b"b")
        for exercise in hidden
        for notebook in (b"1", b"2")
    }
    assert len(seeds) == 4 * len(hidden)
    assert seed_of(b"a", hidden[0], digest(b"1")) == seed_of(b"a", hidden[0], digest(b"1"))
    assert seed_of(b"a", c01.e1, digest(b"1")) == 0
