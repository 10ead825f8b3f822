"""The loader of a student's work: definitions count, experiments do not run, no error hides."""

import io
import sys
import textwrap

import pytest
import torch
from handmade import answer_cells, cell, code, grade_id, notebook_of, released, solved, write

from gclib.checks import c00, c01
from gclib.checks.exercise import exercises_of
from gclib.checks.work import (
    UnreadableWork,
    check_one,
    check_work,
    load_module,
    load_notebook,
)

NORMALISE = cell(solved("01"), "c01-e2")["source"]
WRONG_AXIS = textwrap.dedent("""
    def normalise(similarity, instantiation):
        if instantiation not in ("embedded_gaussian", "gaussian", "dot_product", "concat"):
            raise ValueError(instantiation)
        return similarity.softmax(dim=1)
""")


@pytest.fixture
def load(tmp_path):
    """Load a notebook of these cells."""

    def load(*cells):
        return load_notebook(write(tmp_path / "non_local.ipynb", notebook_of(*cells)))

    return load


def verdict(work, exercise=c01.e2):
    return check_one(work, exercise).verdict


# What counts


def test_functions_and_classes_count(load):
    work = load(
        code("def double(x):\n    return 2 * x", "c01-e1"),
        code("class Box:\n    size = 3", "c01-e4"),
    )
    assert work.definitions["double"](4) == 8
    assert work.definitions["Box"]().size == 3
    assert work.problems == {}
    assert work.origin == "non_local.ipynb"


def test_imports_count_in_every_form(load):
    work = load(
        code("import math\nimport torch.nn.functional as F\nfrom math import tau"),
        code("def turn(x):\n    return F.relu(x) + math.floor(tau)", "c01-e1"),
    )
    assert work.definitions["turn"](torch.tensor(-1.0)) == 6


def test_helper_cells_of_the_student_count(load):
    work = load(
        code("def scores(q, k):\n    return q @ k.transpose(1, 2)"),
        code("def pairwise_similarity(query, key):\n    return scores(query, key)", "c01-e1"),
    )
    assert verdict(work, c01.e1) == "passed"


def test_a_helper_below_the_answer_counts(load):
    work = load(
        code("def pairwise_similarity(query, key):\n    return scores(query, key)", "c01-e1"),
        code("def scores(q, k):\n    return q @ k.transpose(1, 2)"),
    )
    assert verdict(work, c01.e1) == "passed"


def test_a_helper_written_as_a_lambda_counts(load):
    work = load(
        code("scores = lambda q, k: q @ k.transpose(1, 2)"),
        code("def pairwise_similarity(query, key):\n    return scores(query, key)", "c01-e1"),
    )
    assert verdict(work, c01.e1) == "passed"


def test_assignments_of_plain_values_count(load):
    work = load(
        code("AXIS = 2\nNAMES: tuple = ('a', 'b')\nTYPE = torch_type = float\nboth, of = 1, 2"),
    )
    kept = {name: work.definitions[name] for name in ("AXIS", "NAMES", "both", "of", "torch_type")}
    assert kept == {"AXIS": 2, "NAMES": ("a", "b"), "both": 1, "of": 2, "torch_type": float}


def test_an_answer_may_be_assigned(load):
    work = load(
        code("import torch\nfrom functools import partial"),
        code("aggregate = partial(torch.einsum, 'nlm,nmc->nlc')", "c01-e3"),
    )
    assert verdict(work, c01.e3) == "passed"


def test_an_answer_may_choose_between_definitions(load):
    work = load(
        code(
            "if True:\n    def aggregate(attention, value):\n        return attention @ value\n",
            "c01-e3",
        ),
    )
    assert verdict(work, c01.e3) == "passed"


def test_the_later_definition_wins(load):
    right, wrong = code(NORMALISE, "c01-e2"), code(WRONG_AXIS)
    assert verdict(load(wrong, right)) == "passed"
    assert verdict(load(right, wrong)) == "failed"


def test_the_later_definition_wins_over_an_import(load):
    work = load(
        code("from gclib.blocks import NonLocalBlock"),
        code("class NonLocalBlock:\n    mine = True", "c01-e5"),
    )
    assert work.definitions["NonLocalBlock"].mine


def test_the_source_may_be_a_string_or_a_list_of_lines(load):
    work = load(code(NORMALISE.splitlines(True), "c01-e2"))
    assert verdict(work) == "passed"


def test_text_cells_do_not_count(load):
    work = load({"cell_type": "markdown", "metadata": {}, "source": "AXIS = 2"})
    assert work.definitions == {}


# What does not run


def test_experiments_do_not_run(load, tmp_path):
    touch = f"open({str(tmp_path / 'ran')!r}, 'w')"
    load(
        code(touch),
        code(f"result = {touch}"),
        code(f"result: object = {touch}"),
        code(f"for step in range(3):\n    {touch}"),
        code(f"while True:\n    {touch}\n    break"),
        code(f"with {touch}:\n    pass"),
        code(f"if True:\n    {touch}"),
        code(f"try:\n    {touch}\nfinally:\n    pass"),
        code(f"total = 0\ntotal += {touch}.fileno()"),
        code(f"{touch}\nfor step in (1, 2):\n    {touch}", "c01-e1"),
    )
    assert not (tmp_path / "ran").exists()


def test_what_a_definition_prints_does_not_disturb(load, capsys):
    work = load(code("class Loud:\n    print('built')"))
    assert "Loud" in work.definitions
    assert capsys.readouterr().out == ""


def test_the_checks_own_cells_do_not_run(load):
    work = load(code("c01.e2(normalise)"), code("course.start('01', release=1)"))
    assert work.problems == {}


def test_this_process_is_not_changed(load):
    work = load(code("torch = None\nprint = None"), code("answer = 1", "c01-e1"))
    assert set(work.definitions) == {"torch", "print", "answer"}
    assert torch is not None


# What Jupyter takes besides Python


@pytest.mark.parametrize(
    "source",
    [
        "%matplotlib inline\nAXIS = 2",
        "!ls\nAXIS = 2",
        "AXIS = 2\n!pip list",
        "%config InlineBackend.figure_format = 'svg'\n\nAXIS = 2",
        "%load_ext autoreload\n%autoreload 2\nAXIS = 2",
    ],
)
def test_magic_lines_are_ignored(load, source):
    work = load(code(source))
    assert work.definitions == {"AXIS": 2}
    assert work.problems == {}


@pytest.mark.parametrize("first", ["%%bash", "%%html", "\n%%writefile notes.txt", "%%javascript"])
def test_a_cell_in_another_language_is_ignored(load, first):
    work = load(code(f"{first}\nAXIS = 2\nls -l | sort ("), code(NORMALISE, "c01-e2"))
    assert "AXIS" not in work.definitions
    assert work.problems == {}
    assert verdict(work) == "passed"


@pytest.mark.parametrize("first", ["%%time", "%%capture output"])
def test_a_python_cell_that_is_timed_or_captured_counts(load, first):
    work = load(code(f"{first}\n{NORMALISE}", "c01-e2"))
    assert verdict(work) == "passed"


@pytest.mark.parametrize(
    "source",
    [
        "normalise?",
        "?normalise",
        "files = !ls",
        "seconds = %timeit -o 1",
        "for name in ('a', 'b'):\n    !echo {name}",
    ],
)
def test_help_and_shell_of_jupyter_are_no_syntax_errors(load, source):
    work = load(code(f"{source}\nAXIS = 2"))
    assert work.problems == {}
    assert work.definitions["AXIS"] == 2


def test_a_remainder_at_the_start_of_a_line_is_no_magic(load):
    work = load(code("def last(n):\n    return (\n        n\n        % 10\n    )", "c01-e1"))
    assert work.problems == {}
    assert work.definitions["last"](123) == 3


def test_a_percent_sign_at_the_start_of_a_line_of_text_is_no_magic(load):
    work = load(code('TEXT = """\n% of all\n!\n"""'))
    assert work.definitions["TEXT"] == "\n% of all\n!\n"


# What goes wrong


def test_a_syntax_error_does_not_hide_the_other_answers(load):
    work = load(
        code("def pairwise_similarity(query, key)\n    return query", "c01-e1"),
        code(NORMALISE, "c01-e2"),
    )
    assert verdict(work, c01.e2) == "passed"
    outcome = check_one(work, c01.e1)
    assert outcome.verdict == "failed"
    for text in ("c01-e1", "SyntaxError", "line 1", "def pairwise_similarity(query, key)"):
        assert text in outcome.message


def test_a_syntax_error_below_a_magic_names_the_right_line(load):
    work = load(code("%matplotlib inline\n\nx = 1\ny = = 2", "c01-e1"))
    assert "line 4: y = = 2" in work.problems["c01-e1"]


def test_a_syntax_error_in_a_cell_without_a_name_gives_its_number(load):
    work = load(code("AXIS = 2"), code("def broken(:"))
    assert list(work.problems) == ["cell 2"]


def test_a_tab_and_spaces_mixed_are_reported_and_not_raised(load):
    work = load(code("def f(x):\n\tif x:\n        return 1\n", "c01-e2"))
    assert "TabError" in work.problems["c01-e2"] or "SyntaxError" in work.problems["c01-e2"]
    assert verdict(work) == "failed"


def test_a_null_byte_is_reported_and_not_raised(load):
    work = load(code("x = 1\0", "c01-e2"), code("AXIS = 2"))
    assert verdict(work) == "failed"
    assert work.definitions["AXIS"] == 2


def test_an_error_that_only_the_compiler_sees_is_reported_and_not_raised(load):
    work = load(code("def normalise(similarity, similarity):\n    pass", "c01-e2"), code("A = 1"))
    assert verdict(work) == "failed"
    assert "duplicate argument" in check_one(work, c01.e2).message
    assert work.definitions["A"] == 1


def test_a_definition_that_raises_is_reported_for_its_exercise(load):
    work = load(
        code("class NonLocalBlock2d(nn.Module):\n    pass", "c01-e4"),
        code(NORMALISE, "c01-e2"),
    )
    outcome = check_one(work, c01.e4)
    assert outcome.verdict == "failed"
    assert "NameError: name 'nn' is not defined" in outcome.message
    assert verdict(work, c01.e2) == "passed"


def test_a_definition_that_raises_does_not_hide_the_next_one_of_its_cell(load):
    work = load(code("class A(missing):\n    pass\nclass B:\n    pass", "c01-e4"))
    assert "B" in work.definitions
    assert "missing" in work.problems["c01-e4"]


def test_an_import_that_fails_does_not_hide_the_answers(load):
    work = load(code("import a_module_that_is_not_there"), code(NORMALISE, "c01-e2"))
    assert "ModuleNotFoundError" in work.problems["cell 1"]
    assert verdict(work) == "passed"


def test_an_annotation_is_evaluated_as_in_jupyter(load):
    # In the notebook this definition raises a NameError, so it must not pass here.
    work = load(code(NORMALISE.replace("(similarity,", "(similarity: Tensr,"), "c01-e2"))
    assert "Tensr" in check_one(work, c01.e2).message
    assert verdict(work) == "failed"


@pytest.mark.parametrize("call", ["exit()", "quit()", "import sys; sys.exit(0)"])
def test_an_answer_that_exits_fails_and_does_not_end_the_program(load, monkeypatch, call):
    monkeypatch.setattr("sys.stdin", io.StringIO())  # exit() closes it
    work = load(code(f"def normalise(similarity, instantiation):\n    {call}", "c01-e2"))
    try:
        found = verdict(work)
    except SystemExit:
        pytest.fail("the student's exit() ended gclib check")
    assert found == "failed"


def test_a_definition_that_exits_is_reported_and_does_not_end_the_program(load):
    try:
        work = load(code("class A:\n    raise SystemExit(0)", "c01-e4"), code(NORMALISE, "c01-e2"))
    except SystemExit:
        pytest.fail("the student's exit() ended gclib check")
    assert "SystemExit" in work.problems["c01-e4"]
    assert verdict(work) == "passed"


def test_the_students_own_line_is_shown(load):
    source = (
        "%matplotlib inline\n"
        "def normalise(similarity, instantiation):\n"
        "    scale = 1\n"
        "    return similarity.softmaxx(dim=2) * scale\n"
    )
    outcome = check_one(load(code("x = 1"), code(source, "c01-e2")), c01.e2)
    assert outcome.verdict == "failed"
    assert "in line 4 of normalise: return similarity.softmaxx(dim=2) * scale" in outcome.message


def test_the_line_of_a_helper_in_another_cell_is_shown(load):
    work = load(
        code("def helper(x):\n    return x.nothing", None),
        code("def normalise(similarity, instantiation):\n    return helper(similarity)", "c01-e2"),
    )
    assert "in line 2 of helper: return x.nothing" in check_one(work, c01.e2).message


def test_two_notebooks_do_not_show_each_others_lines(tmp_path):
    broken = "def normalise(similarity, instantiation):\n    return similarity.{}()\n"
    for name in ("first", "second"):
        path = write(tmp_path / f"{name}.ipynb", notebook_of(code(broken.format(name), "c01-e2")))
        assert f"return similarity.{name}()" in check_one(load_notebook(path), c01.e2).message


@pytest.mark.parametrize("value", ["3", "'text'", "[1]", "print"])
def test_an_answer_that_is_no_function_fails_with_a_message(load, value):
    outcome = check_one(load(code(f"normalise = {value}", "c01-e2")), c01.e2)
    assert outcome.verdict == "failed"
    assert outcome.message.startswith("c01-e2: ")


def test_a_missing_definition_is_not_attempted_and_named(load):
    outcome = check_one(load(code("x = 1", "c01-e2")), c01.e2)
    assert outcome.verdict == "not attempted"
    assert outcome.message == "c01-e2: non_local.ipynb does not define normalise"


# Whole chapters


@pytest.mark.parametrize("number", ["00", "01"])
def test_a_fresh_chapter_is_not_attempted(tmp_path, number):
    work = load_notebook(write(tmp_path / "n.ipynb", released(number)))
    checks = {"00": c00, "01": c01}[number]
    assert work.problems == {}
    outcomes = list(check_work(work, checks))
    assert [one.exercise for one in outcomes] == list(exercises_of(checks))
    assert {one.verdict for one in outcomes} == {"not attempted"}


@pytest.mark.parametrize("number", ["00", "01"])
def test_a_solved_chapter_passes(tmp_path, capfd, number):
    work = load_notebook(write(tmp_path / "n.ipynb", solved(number)))
    outcomes = list(check_work(work, {"00": c00, "01": c01}[number]))
    assert {one.verdict for one in outcomes} == {"passed"}
    assert capfd.readouterr() == ("", "")


def test_one_wrong_answer_fails_alone(tmp_path):
    notebook = solved("01")
    cell(notebook, "c01-e7")["source"] = "def dot_product_linear(query, key, value):\n    return 0"
    work = load_notebook(write(tmp_path / "n.ipynb", notebook))
    verdicts = {one.exercise.id: one.verdict for one in check_work(work, c01)}
    assert verdicts.pop("c01-e7") == "failed"
    assert set(verdicts.values()) == {"passed"}


@pytest.mark.parametrize("number", ["00", "01"])
def test_each_answer_cell_of_code_has_its_check(number):
    names = {grade_id(one) for one in answer_cells(released(number)) if one["cell_type"] == "code"}
    bonus = {one.id for one in exercises_of(c01) if one.points == (0, 0)}
    checks = {"00": c00, "01": c01}[number]
    assert names - bonus == {one.id for one in exercises_of(checks)} - bonus


# Files that are no notebooks


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a notebook (line 1 is not JSON)"),
        (b'{"cells": [\n  {"cell', "not a notebook (line 2 is not JSON)"),
        (b"<<<<<<< HEAD\n", "not a notebook (line 1 is not JSON)"),
        (b"[]", "not a notebook; is this the right file?"),
        (b'"text"', "not a notebook; is this the right file?"),
        (b'{"cells": {}}', "not a notebook; is this the right file?"),
        (b'{"cells": ["x"]}', "not a notebook"),
        (b'{"cells": [{"cell_type": "code", "source": null}]}', "not a notebook"),
        (b'{"cells": [{"cell_type": "code", "source": 5}]}', "not a notebook"),
        (b'{"cells": [{"cell_type": "code", "source": [1]}]}', "not a notebook"),
        (b'{"cells": [{"cell_type": "code", "metadata": null}]}', "not a notebook"),
        (b'{"worksheets": [], "nbformat": 3}', "an old format; open it in JupyterLab"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_file_that_is_no_notebook_gives_one_sentence(tmp_path, content, message):
    path = tmp_path / "non_local.ipynb"
    path.write_bytes(content)
    with pytest.raises(UnreadableWork) as caught:
        load_notebook(path)
    assert str(caught.value).startswith("non_local.ipynb: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("make", ["missing", "folder"])
def test_a_path_that_is_no_file_gives_one_sentence(tmp_path, make):
    path = tmp_path / "non_local.ipynb"
    if make == "folder":
        path.mkdir()
    with pytest.raises(UnreadableWork, match=r"non_local\.ipynb: (no such file|cannot be read)"):
        load_notebook(path)


# Modules


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module into the current folder; its path."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write_module(source, name="my_answers"):
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        return path

    yield write_module
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def test_a_file_and_a_module_name_give_the_same_work(module):
    path = module(NORMALISE)
    for name in (str(path), "my_answers.py", "my_answers"):
        work = load_module(name)
        assert work.origin == name
        assert verdict(work) == "passed"


def test_the_search_path_is_as_before(module):
    module(NORMALISE)
    before = list(sys.path)
    load_module("my_answers")
    module("raise ValueError('no')", "my_broken")
    with pytest.raises(UnreadableWork):
        load_module("my_broken")
    assert sys.path == before


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ValueError('not today')", "ValueError: not today"),
        ("def f(:", "SyntaxError"),
        ("import a_module_that_is_not_there", "No module named 'a_module_that_is_not_there'"),
        ("import sys; sys.exit(0)", "SystemExit"),
    ],
)
@pytest.mark.parametrize("name", ["my_answers", "my_answers.py"])
def test_a_module_that_cannot_be_imported_gives_one_sentence(module, source, reason, name):
    module(source)
    with pytest.raises((UnreadableWork, SystemExit)) as caught:
        load_module(name)
    assert caught.type is UnreadableWork
    assert str(caught.value).startswith(f"cannot import {name}: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", ["my_missing", "my_missing.py", "my_folder/my_missing.py"])
def test_a_missing_module_is_named(module, name):
    with pytest.raises(UnreadableWork, match="my_missing"):
        load_module(name)


def test_a_file_may_import_its_neighbours(module, tmp_path, monkeypatch):
    module("def softmax_over_keys(x):\n    return x.softmax(2)", "my_helpers")
    path = module("from my_helpers import softmax_over_keys")
    monkeypatch.chdir("/")
    work = load_module(str(path))  # as 'python my_answers.py' could
    assert "softmax_over_keys" in work.definitions


def test_a_file_may_hold_a_dataclass(module):
    module(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Sizes:\n"
        "    width: int = 3\n"
    )
    assert load_module("my_answers.py").definitions["Sizes"]().width == 3
