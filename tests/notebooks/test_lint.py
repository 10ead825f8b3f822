"""Every rule of the notebook linter speaks where it should, and alone.

Each fixture edits a copy of a real solution; the sentences it must cause are listed in full.
"""

import ast
import json
import re
import shutil

import pytest
from notebook_copies import (
    CHAPTER,
    ROOT,
    append,
    both,
    cell,
    edit,
    edit_as_is,
    insert,
    nbgrader,
    remove,
    replace,
    source,
)

from gclib.chapters import CHAPTERS
from gclib.grading import lint
from gclib.grading.notebooks import canonical

SOLUTION = ROOT / "solutions" / CHAPTER.notebook
HEADER, SETUP, PLAIN, EXPERIMENT, LAST = "c01-01", "c01-02", "c01-07", "c01-14", "c01-73"
BOX, HINTS, PROVES, SUMMARY = "c01-64", "c01-67", "c01-69", "c01-72"  # of exercise 7, the bonus
RUN = ("check", "raises-exception")


def number(name):
    """How the linter calls a cell without a grade_id: by its place."""
    ids = [c["id"] for c in json.loads(SOLUTION.read_text(encoding="utf-8"))["cells"]]
    return f"cell {ids.index(name) + 1}"


HERE = number(PLAIN)


def untag(name):
    return lambda cells: cell(cells, name)["metadata"]["tags"].remove("raises-exception")


def rename(name, **values):
    return lambda cells: cell(cells, name).update(values)


def retitle(cells):
    replace(HEADER, CHAPTER.title, "Another title")(cells)


def forbid(line, reason):
    return append(PLAIN, line), [f"{HERE}: {reason}"]


def magic(line):
    """A line that is no Python: the reason, and the syntax error that comes with it."""
    reason = "installs packages: environments are made before class"
    return append(PLAIN, line), [f"{HERE}: {reason}", f"{HERE}: SyntaxError in line 3"]


DOWNLOADS = "downloads something"
FLAGS = "solution marks and nbgrader's solution flag do not agree"
TAG = "lacks the tag raises-exception, so a blank notebook would stop here"

# name of the rule -> (edit, beginnings of all sentences that it must cause, in order)
BROKEN = {
    "no id": (rename(PLAIN, id=""), [f"{HERE}: no valid id"]),
    "an id with a space": (rename(PLAIN, id="c01 07"), [f"{HERE}: no valid id"]),
    "an id too long": (rename(PLAIN, id="x" * 65), [f"{HERE}: no valid id"]),
    "id twice": (rename(PLAIN, id=SETUP), [f"{HERE}: id '{SETUP}' is used twice"]),
    "grade_id twice": (  # ids follow grade_ids, so one of the two id rules always speaks as well
        insert(
            before=LAST,
            id="c01-e7-visible",
            source="c01.e7(dot_product_linear)",
            tags=RUN,
            grade=False,
        ),
        [
            f"{number(LAST)}: id 'c01-e7-visible' is used twice",
            f"{number(LAST)}: grade_id 'c01-e7-visible' is used twice",
        ],
    ),
    "id is not grade_id": (
        rename("c01-reflection-question", id="c01-question"),
        [
            f"{number('c01-reflection-question')}: id 'c01-question' differs from grade_id "
            "'c01-reflection-question'"
        ],
    ),
    "schema_version": (
        nbgrader("c01-reflection-question", schema_version=2),
        ["c01-reflection-question: nbgrader's schema_version is not 3"],
    ),
    "no points": (
        lambda cells: cell(cells, "c01-reflection")["metadata"]["nbgrader"].pop("points"),
        ["c01-reflection: a graded cell needs points"],
    ),
    "zero points": (
        nbgrader("c01-reflection", points=0),
        ["c01-reflection: a graded cell needs points"],
    ),
    "negative points": (
        nbgrader("c01-reflection", points=-1),
        ["c01-reflection: a graded cell needs points"],
    ),
    "title": (retitle, [f"the first cell must begin with '# Chapter 01 · {CHAPTER.title}'"]),
    "row of time": (
        replace(HEADER, "**Time**", "Time"),
        ["the first cell lacks the row **Time**"],
    ),
    "row of prerequisites": (
        replace(HEADER, "**You need**", "You need"),
        ["the first cell lacks the row **You need**"],
    ),
    "row of objectives": (
        replace(HEADER, "**You will**", "You will"),
        ["the first cell lacks the row **You will**"],
    ),
    "row of the paper": (
        replace(HEADER, "**In the paper**", "Paper"),
        ["the first cell lacks the row **In the paper**"],
    ),
    "measured time": (
        replace(HEADER, "(measured)", "(a guess)"),
        ["the first cell lacks 'the cells run in N s on 2 cores (measured)'"],
    ),
    "set-up without start": (
        replace(SETUP, "course.start(", "print("),
        ["the second cell must call course.start"],
    ),
    "set-up too long": (
        append(SETUP, "print()"),
        ["the set-up cell is longer than 5 lines"],
    ),
    "empty cell": (rename(PLAIN, source=[]), [f"{HERE}: empty"]),
    "blank cell": (rename(PLAIN, source=[" \n", "\t"]), [f"{HERE}: empty"]),
    "solution without marks": (
        both(
            replace("c01-e7", "    ### BEGIN SOLUTION\n", ""),
            replace("c01-e7", "\n    ### END SOLUTION", ""),
        ),
        [f"c01-e7: {FLAGS}"],
    ),
    "marks without the flag": (
        append(PLAIN, "### BEGIN SOLUTION\nprint()\n### END SOLUTION"),
        [f"{HERE}: {FLAGS}"],
    ),
    "marks in text": (
        append("c01-08", "### BEGIN SOLUTION\nanswer\n### END SOLUTION"),
        [f"{number('c01-08')}: {FLAGS}"],
    ),
    "hidden checks without points": (
        append(EXPERIMENT, "### BEGIN HIDDEN TESTS\nprint()\n### END HIDDEN TESTS"),
        [f"{number(EXPERIMENT)}: hidden checks in a cell that is not graded"],
    ),
    "solution not closed": (
        replace("c01-e7", "\n    ### END SOLUTION", ""),
        ["c01-e7: '### BEGIN SOLUTION' and '### END SOLUTION' do not pair"],
    ),
    "hidden checks not closed": (
        replace("c01-e6-hidden", "\n### END HIDDEN TESTS", ""),
        ["c01-e6-hidden: '### BEGIN HIDDEN TESTS' and '### END HIDDEN TESTS' do not pair"],
    ),
    "solution closed but not opened": (
        append(PLAIN, "### END SOLUTION"),
        [f"{HERE}: '### BEGIN SOLUTION' and '### END SOLUTION' do not pair"],
    ),
    "installs by magic": magic("%pip install einops"),
    "installs by shell": magic("!pip install einops"),
    "installs by conda": magic("    %conda install einops"),
    "installs by apt": magic("! apt install graphviz"),
    "downloads by urlopen": forbid("urllib.request.urlopen(url)", DOWNLOADS),
    "downloads by urlretrieve": forbid("urlretrieve(url)", DOWNLOADS),
    "downloads by requests": forbid("requests.get(url)", DOWNLOADS),
    "downloads by wget": forbid("os.system('wget url')", DOWNLOADS),
    "downloads by curl": forbid("os.system('curl url')", DOWNLOADS),
    "downloads by hub": forbid("torch.hub.load('a', 'b')", DOWNLOADS),
    "downloads by torchvision": forbid("CIFAR10('.', download=True)", DOWNLOADS),
    "leaves the folder": forbid("open('../data.txt')", "relative path out of the folder: "),
    "needs IPython": forbid("get_ipython()", "IPython call: the cell must also run as plain "),
    "syntax": (append(PLAIN, "x = ("), [f"{HERE}: SyntaxError in line 3: '(' was never closed"]),
    "answer that stops a blank run": (untag("c01-e7"), [f"c01-e7: {TAG}"]),
    "check that stops a blank run": (untag("c01-e6-hidden"), [f"c01-e6-hidden: {TAG}"]),
    "experiment that stops a blank run": (untag(EXPERIMENT), [f"{number(EXPERIMENT)}: {TAG}"]),
    "graded cell without a check": (
        insert(before=LAST, id="c01-extra", source="x = 1", tags=RUN, grade=True, points=1),
        ["c01-extra: a graded cell that calls no check gives points to everyone"],
    ),
    "graded cell of comments": (
        insert(before=LAST, id="c01-extra", source="# e1(x)", tags=RUN, grade=True, points=1),
        ["c01-extra: a graded cell that calls no check gives points to everyone"],
    ),
    "ends with a number": (
        append("c01-e6-visible", "1"),
        ["c01-e6-visible: ends with a value, which nbgrader would read as partial credit"],
    ),
    "ends with a value around the check": (
        append("c01-e6-visible", "[c01.e6(NonLocalBlockNd)]"),
        ["c01-e6-visible: ends with a value, which nbgrader would read as partial credit"],
    ),
    "ends with a value behind hidden checks": (
        append("c01-e6-hidden", "NonLocalBlockNd"),
        ["c01-e6-hidden: ends with a value, which nbgrader would read as partial credit"],
    ),
    "no answer": (remove("c01-e7"), ["c01-e7: no answer cell"]),
    "answer of another name": (
        replace("c01-e7", "def dot_product_linear(", "def dot_product_fast("),
        ["c01-e7: the answer cell does not define dot_product_linear"],
    ),
    "box without difficulty": (
        replace(BOX, "Difficulty", "Level"),
        ["c01-e7: its box lacks 'Difficulty'"],
    ),
    "box without minutes": (
        replace(BOX, "10 minutes", "an hour"),
        ["c01-e7: its box lacks '10 minutes'"],
    ),
    "box without points": (
        replace(BOX, "no points", "for fun"),
        ["c01-e7: its box lacks 'no points'"],
    ),
    "no box": (
        replace(BOX, "> ### Exercise 7 ·", "> ### Bonus ·"),
        [
            "c01-e7: its box lacks 'Difficulty'",
            "c01-e7: its box lacks '10 minutes'",
            "c01-e7: its box lacks 'no points'",
        ],
    ),
    "two hints": (
        replace(HINTS, "<details><summary>Hint 3", "<summary>Hint 3"),
        ["c01-e7: fewer than three hints"],
    ),
    "what the check proves": (
        replace(PROVES, "**What this check proves, and what it does not.**", "Note:"),
        ["c01-e7: nothing on what the check proves"],
    ),
    "no visible check": (
        # Hints and proofs stand below the visible check, so they are not found either.
        remove("c01-e7-visible"),
        [
            "c01-e7-visible: no such cell",
            "c01-e7: fewer than three hints",
            "c01-e7: nothing on what the check proves",
        ],
    ),
    "no hidden check": (remove("c01-e6-hidden"), ["c01-e6-hidden: no such cell"]),
    "points that differ": (
        nbgrader("c01-e6-hidden", points=5),
        ["c01-e6-hidden: worth 5 points, its check says 2"],
    ),
    "visible check of something else": (
        replace("c01-e7-visible", "dot_product_linear", "aggregate"),
        ["c01-e7-visible: does not check dot_product_linear"],
    ),
    "hidden check of another exercise": (
        replace("c01-e6-hidden", ".e6(", ".e5("),
        ["c01-e6-hidden: does not check NonLocalBlockNd"],
    ),
    "no summary": (replace(SUMMARY, "## Summary", "## End"), ["lacks '## Summary'"]),
    "no further reading": (
        replace(SUMMARY, "**Further reading.**", "More:"),
        ["lacks '**Further reading.**'"],
    ),
    "no reflection": (
        replace("c01-reflection-question", "Reflection (", "Question ("),
        ["lacks 'Reflection ('"],
    ),
    "no model answer": (
        replace("c01-reflection", "**Model answer.**", "Answer:"),
        ["c01-reflection: its solution lacks '**Model answer.**'"],
    ),
    "no rubric": (
        replace("c01-reflection", "**Rubric.**", "Points:"),
        ["c01-reflection: its solution lacks '**Rubric.**'"],
    ),
    "no self-check": (
        remove(LAST),
        ["the last cell must be the self-check (course.submit_check)"],
    ),
    "something behind the self-check": (
        lambda cells: cells.append(cells.pop(2)),
        ["the last cell must be the self-check (course.submit_check)"],
    ),
}

OLD_FORMAT = json.dumps({"nbformat": 3, "nbformat_minor": 0, "worksheets": [], "metadata": {}})
NAME = f"{CHAPTER.name}.ipynb"
# name of the rule -> (bytes of the file or None for no file, beginning of the one sentence)
UNREADABLE = {
    "missing": (None, f"{NAME}: no such file"),
    "merge conflict": (b'{\n<<<<<<< HEAD\n"cells": []', f"{NAME}: not a notebook (line 2 is not"),
    "empty file": (b"", f"{NAME}: not a notebook (line 1 is not JSON)"),
    "another kind of JSON": (b"[1, 2]", f"{NAME}: not a notebook; is this the right file?"),
    "old format": (OLD_FORMAT.encode(), f"{NAME}: a notebook in an old format; open it in"),
    "not UTF-8": (b'{"cells": ["\xff"]}', f"{NAME}: cannot be read: 'utf-8' codec can't decode"),
}


def lint_after(folder, change):
    """The sentences about a copy of the solution after an edit."""
    path = folder / NAME
    shutil.copy(SOLUTION, path)
    edit(path, change)
    return list(lint.lint_solution(path, CHAPTER))


def begin_with(sentences, beginnings):
    return len(sentences) == len(beginnings) and all(map(str.startswith, sentences, beginnings))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.folder)
def test_the_solutions_keep_every_rule(chapter):
    assert list(lint.lint_solution(ROOT / "solutions" / chapter.notebook, chapter)) == []


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_speaks_and_no_other(rule, tmp_path):
    change, beginnings = BROKEN[rule]
    found = lint_after(tmp_path, change)
    assert begin_with(found, beginnings), found


@pytest.mark.parametrize("rule", UNREADABLE)
def test_an_unreadable_notebook_is_one_sentence(rule, tmp_path):
    content, beginning = UNREADABLE[rule]
    path = tmp_path / NAME
    if content is not None:
        path.write_bytes(content)
    found = list(lint.lint_solution(path, CHAPTER))
    assert begin_with(found, [beginning]), found
    assert "\n" not in found[0]


def with_outputs(cells):
    outputs = [{"output_type": "stream", "name": "stdout", "text": ["(1, 6, 2)\n"]}]
    cell(cells, PLAIN).update(outputs=outputs, execution_count=3)
    cell(cells, PLAIN)["metadata"]["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00Z"}


def as_one_string(cells):
    cell(cells, PLAIN)["source"] = source(cell(cells, PLAIN))


def unsorted(cells):
    cells[:] = [dict(reversed(c.items())) for c in cells]


FORMS = {"outputs": with_outputs, "one string": as_one_string, "unsorted keys": unsorted}


@pytest.mark.parametrize("form", FORMS)
def test_another_form_than_the_one_in_git_is_found(form, tmp_path):
    path = tmp_path / NAME
    shutil.copy(SOLUTION, path)
    edit_as_is(path, FORMS[form])
    expected = "not in the form git keeps: run python -m gclib.grading.lint --write"
    assert list(lint.lint_solution(path, CHAPTER)) == [expected]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.folder)
def test_the_canonical_form_is_stable(chapter):
    text = (ROOT / "solutions" / chapter.notebook).read_text(encoding="utf-8")
    assert canonical(canonical(text)) == canonical(text) == text


NEAR_MISSES = {
    # "24 minutes" contains "4 minutes"
    "minutes that end alike": (replace("c01-25", "4 minutes", "24 minutes"), "c01-e3: its box"),
    # points without the flag are not counted by nbgrader
    "check that is not graded": (nbgrader("c01-e6-visible", grade=False), "c01-e6-visible: "),
    "check in a comment": (replace("c01-e7-visible", "c01.", "# c01."), "c01-e7-visible: does not"),
    "start in a comment": (replace(SETUP, "course.", "# course."), "the second cell must call"),
    "points null": (nbgrader("c01-reflection", points=None), "c01-reflection: a graded cell needs"),
    "points as text": (nbgrader("c01-reflection", points="3"), "c01-reflection: "),
}


@pytest.mark.parametrize("near", NEAR_MISSES)
def test_what_only_looks_right_is_found(near, tmp_path):
    change, beginning = NEAR_MISSES[near]
    found = lint_after(tmp_path, change)
    assert any(sentence.startswith(beginning) for sentence in found), found


def yields():
    """Each ``yield`` of the linter as a pattern of its sentence."""
    for node in ast.walk(ast.parse((ROOT / "gclib/grading/lint.py").read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Yield):
            continue
        parts = node.value.values if isinstance(node.value, ast.JoinedStr) else [node.value]
        pattern = "".join(
            re.escape(part.value) if isinstance(part, ast.Constant) else ".*" for part in parts
        )
        yield ast.unparse(node.value), pattern


def test_every_rule_has_a_fixture(tmp_path):
    """A new ``yield`` needs a new fixture above, one that makes its sentence appear."""
    sentences = dict(yields())
    assert len(sentences) <= len(BROKEN) + len(UNREADABLE) + len(FORMS)
    by_table = {"str(error)", "f'{name}: {reason}'"}  # proved below: their text is all variable
    assert by_table < set(sentences)
    spoken = {text for change, _ in BROKEN.values() for text in lint_after(tmp_path, change)}
    spoken.add("not in the form git keeps: run python -m gclib.grading.lint --write")
    silent = [
        text
        for text, pattern in sentences.items()
        if text not in by_table and not any(re.fullmatch(pattern, one) for one in spoken)
    ]
    assert silent == []
    for pattern, reason in lint._FORBIDDEN.items():
        assert any(one.endswith(reason) for one in spoken), pattern


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "solutions", tmp_path / "solutions")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.json"))
    monkeypatch.setattr(lint, "repository", lambda: tmp_path)
    return tmp_path


def test_main_is_content_with_the_solutions(checkout, capsys):
    assert lint.main([]) == 0
    guides = len(list((ROOT / "docs").glob("*.md")))
    said = f"{len(CHAPTERS)} notebooks and {guides} guides checked, no problems\n"
    assert capsys.readouterr().out == said


def test_main_reads_the_guides(checkout, capsys):
    (checkout / "docs" / "GUIDE.md").write_text("See `gclib/nowhere.py`.", encoding="utf-8")
    assert lint.main([]) == 1
    assert "docs/GUIDE.md: `gclib/nowhere.py` is not there" in capsys.readouterr().out


def test_main_exits_1_and_names_the_notebook(checkout, capsys):
    edit(checkout / "solutions" / CHAPTER.notebook, remove(LAST))
    assert lint.main([]) == 1
    expected = f"solutions/{CHAPTER.notebook}: the last cell must be the self-check"
    assert capsys.readouterr().out.startswith(expected)


def test_main_exits_1_for_a_missing_notebook(checkout, capsys):
    (checkout / "solutions" / CHAPTER.notebook).unlink()
    assert lint.main([]) == 1
    assert f"{NAME}: no such file" in capsys.readouterr().out


def test_main_changes_no_file(checkout):
    path = checkout / "solutions" / CHAPTER.notebook
    edit_as_is(path, both(with_outputs, unsorted))
    before = path.read_bytes()
    assert lint.main([]) == 1
    assert path.read_bytes() == before


def test_write_brings_back_the_canonical_form(checkout):
    path = checkout / "solutions" / CHAPTER.notebook
    before = path.read_bytes()
    edit_as_is(path, both(with_outputs, as_one_string, unsorted))
    assert path.read_bytes() != before
    assert lint.main(["--write"]) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("rule", UNREADABLE)
def test_write_leaves_an_unreadable_notebook_and_says_so(rule, checkout, capsys):
    content, beginning = UNREADABLE[rule]
    path = checkout / "solutions" / CHAPTER.notebook
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert lint.main(["--write"]) == 1
    assert beginning in capsys.readouterr().out
    assert (path.read_bytes() if path.exists() else None) == content


def test_outside_of_a_checkout_main_says_where_to_run_it(monkeypatch, capsys):
    monkeypatch.setattr(lint, "repository", lambda: None)
    assert lint.main([]) == 2
    assert "run this in a checkout" in capsys.readouterr().err
