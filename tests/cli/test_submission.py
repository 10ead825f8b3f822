"""The self-check before handing in: what is fine passes, each kind of damage is named."""

import io
import tokenize

import pytest
from handmade import answer_cells, cell, code, grade_id, notebook_of, released, solved, write

from gclib import course as course_module
from gclib.chapters import CHAPTERS
from gclib.grading.submission import LARGEST_MIB, chapter_of, problems_of, report, unanswered

ANSWERS = ["c01-e1", "c01-e2", "c01-e3", "c01-e4", "c01-e5", "c01-e6", "c01-e7", "c01-reflection"]
READY = "  ready to hand in: every cell is there"
MEND = "  mend this before you hand in"

pytestmark = pytest.mark.usefixtures("course")


@pytest.fixture
def hand_in(tmp_path):
    """Save as the notebook to hand in; its path."""
    return lambda notebook: write(tmp_path / "desk" / "non_local.ipynb", notebook)


def the_problem(path):
    """The one line of the report that names a problem."""
    good, text = report(path)
    lines = text.split("\n")
    found = [line.removeprefix("  - ") for line in lines if line.startswith("  - ")]
    assert not good
    assert len(found) == 1, text
    assert lines[0] == f"{path.name}, chapter 01:"
    assert lines[-1] == MEND
    return found[0]


# What can be handed in


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.folder)
def test_a_fresh_copy_can_be_handed_in_and_lists_what_is_open(tmp_path, chapter):
    notebook = released(chapter.number)
    path = write(tmp_path / f"{chapter.name}.ipynb", notebook)
    good, text = report(path)
    names = [grade_id(one) for one in answer_cells(notebook)]
    assert good
    assert names
    assert text.split("\n") == [
        f"{path.name}, chapter {chapter.number}:",
        f"  not attempted: {', '.join(names)} (0 points each, no other harm)",
        READY,
    ]


def test_an_answered_copy_can_be_handed_in(hand_in):
    assert report(hand_in(solved("01"))) == (True, f"non_local.ipynb, chapter 01:\n{READY}")


def test_what_is_half_answered_is_still_open(hand_in):
    notebook = solved("01")
    block = cell(notebook, "c01-e4")
    block["source"] = block["source"][: block["source"].index("inner = ")]
    block["source"] += 'raise NotImplementedError("your code here")'
    cell(notebook, "c01-reflection")["source"] = "*Write your answer here.*"
    path = hand_in(notebook)
    assert unanswered(path) == ["c01-e4", "c01-reflection"]
    assert report(path)[0]


@pytest.mark.parametrize(
    "untouched", ["*Write your answer here.*\n", "*Write your answer here.*  "]
)
def test_blank_space_is_no_answer(hand_in, untouched):
    notebook = solved("01")
    cell(notebook, "c01-reflection")["source"] = untouched
    assert unanswered(hand_in(notebook)) == ["c01-reflection"]


def test_outputs_and_cells_of_ones_own_do_no_harm(hand_in):
    notebook = solved("01")
    for one in notebook["cells"]:
        if one["cell_type"] == "code":
            text = {"name": "stdout", "output_type": "stream", "text": "ok\n"}
            one["outputs"], one["execution_count"] = [text], 3
    notebook["cells"].insert(5, code("my_own = 1"))
    notebook["cells"].append({"cell_type": "raw", "metadata": {}, "source": "(not Python"})
    assert report(hand_in(notebook))[0]


@pytest.mark.parametrize(
    "source",
    [
        "%matplotlib inline\n!ls\nx = 1",
        "%%bash\nls | sort (",
        "%%html\n<b>",
        "help?",
        "?help",
        "files = !ls",
        "for name in 'ab':\n    !echo {name}",
        "x = (7\n     % 5)",
        "await asyncio.sleep(0)",
    ],
)
def test_what_jupyter_runs_is_no_syntax_error(hand_in, source):
    notebook = solved("01")
    notebook["cells"].append(code(source))
    good, text = report(hand_in(notebook))
    assert good, text


def test_no_code_of_the_student_runs(hand_in, tmp_path):
    notebook = solved("01")
    notebook["cells"].append(code(f"open({str(tmp_path / 'ran')!r}, 'w')"))
    cell(notebook, "c01-e1")["source"] += f"\nopen({str(tmp_path / 'ran')!r}, 'w')"
    assert report(hand_in(notebook))[0]
    assert not (tmp_path / "ran").exists()


# What must be mended


@pytest.mark.parametrize("name", ["c01-e2", "c01-e2-visible", "c01-e2-hidden", "c01-reflection"])
def test_a_missing_cell_is_named(hand_in, name):
    notebook = solved("01")
    notebook["cells"].remove(cell(notebook, name))
    assert the_problem(hand_in(notebook)) == (
        f"cell {name} is missing; undo the deletion, or copy your answers into a fresh notebook "
        "(gclib start NN --again)"
    )


@pytest.mark.parametrize("name", ["c01-e2", "c01-e2-visible"])
@pytest.mark.parametrize("copies", [2, 3])
def test_a_duplicated_cell_is_named(hand_in, name, copies):
    notebook = solved("01")
    notebook["cells"] += [cell(notebook, name)] * (copies - 1)
    assert the_problem(hand_in(notebook)) == (
        f"cell {name} is there {copies} times (duplicated or split); keep one"
    )


@pytest.mark.parametrize("name", ["c01-e2-visible", "c01-e2-hidden", "c01-reflection-question"])
def test_an_edited_locked_cell_is_named(hand_in, name):
    notebook = solved("01")
    cell(notebook, name)["source"] = "print('passed')"
    problem = the_problem(hand_in(notebook))
    assert problem.startswith(f"cell {name} was edited; undo your change")


def test_a_locked_cell_as_one_string_is_not_edited(hand_in):
    notebook = solved("01")
    for one in notebook["cells"]:
        one["source"] = "".join(one["source"])
    assert report(hand_in(notebook))[0]


@pytest.mark.parametrize(
    ("name", "other"),
    [("c01-e2", "markdown"), ("c01-e2-visible", "raw"), ("c01-reflection", "code")],
)
def test_a_cell_of_another_type_is_named(hand_in, name, other):
    notebook = solved("01")
    changed = cell(notebook, name)
    changed["cell_type"] = other
    changed["source"] = "pass" if other == "code" else changed["source"]
    problem = the_problem(hand_in(notebook))
    assert problem == f"cell {name} became a {other} cell; change it back"


@pytest.mark.parametrize("name", ["non_local (1).ipynb", "non_local.2026-01-01-000000.ipynb"])
def test_a_wrong_file_name_is_named(tmp_path, name):
    path = write(tmp_path / name, solved("01"))
    assert the_problem(path) == (f"the file is called {name}; hand in non_local.ipynb (rename it)")


def test_marks_that_an_editor_removed_are_missed(hand_in):
    notebook = solved("01")
    for one in notebook["cells"]:
        one["metadata"] = {}
    assert the_problem(hand_in(notebook)).startswith("the marks of the graded cells are gone")


def test_marks_that_were_removed_in_part_are_missed(hand_in):
    notebook = solved("01")
    cell(notebook, "c01-e5")["metadata"] = {}
    assert the_problem(hand_in(notebook)).startswith("cell c01-e5 is missing")


def test_marks_under_a_wrong_file_name_are_of_no_chapter(tmp_path):
    notebook = solved("01")
    for one in notebook["cells"]:
        one["metadata"] = {}
    good, text = report(write(tmp_path / "mine.ipynb", notebook))
    assert not good
    assert text == ("mine.ipynb: no graded cell of any chapter; is this a notebook of the course?")


def test_huge_outputs_are_named_with_their_size(hand_in):
    notebook = solved("01")
    text = {"name": "stdout", "output_type": "stream", "text": "x" * (7 * 2**20)}
    cell(notebook, "c01-e1-visible")["outputs"] = [text]
    problem = the_problem(hand_in(notebook))
    assert problem.startswith("the file has 7 MiB")
    assert "Edit > Clear Outputs of All Cells" in problem


def test_a_file_that_is_too_large_is_told_the_limit(hand_in):
    notebook = solved("01")
    text = {"name": "stdout", "output_type": "stream", "text": "x" * (LARGEST_MIB * 2**20)}
    cell(notebook, "c01-e1-visible")["outputs"] = [text]
    said = the_problem(hand_in(notebook)).removeprefix(f"the file has {LARGEST_MIB} MiB")
    assert f"{LARGEST_MIB} MiB" in said  # else: 5 MiB are too much, but how many are not?


def test_a_syntax_error_is_named_with_its_cell_and_line(hand_in):
    notebook = solved("01")
    cell(notebook, "c01-e3")["source"] = "%matplotlib inline\ndef aggregate(a, v)\n    return a"
    problem = the_problem(hand_in(notebook))
    assert problem.startswith("cell c01-e3 has a syntax error in line 2: ")


@pytest.mark.parametrize("source", ["x = 1\0", "def f(:", "def f(x):\n\tif x:\n        pass", "'"])
def test_a_syntax_error_in_a_cell_of_ones_own_gives_its_number(hand_in, source):
    notebook = solved("01")
    notebook["cells"].insert(2, code(source))
    assert the_problem(hand_in(notebook)).startswith("cell 3 has a syntax error")


def test_every_problem_is_told_at_once(tmp_path):
    notebook = solved("01")
    notebook["cells"].remove(cell(notebook, "c01-e1"))
    cell(notebook, "c01-e2-visible")["source"] = "pass"
    cell(notebook, "c01-e3")["source"] = "def"
    found = problems_of(write(tmp_path / "mine.ipynb", notebook))
    assert len(found) == 4
    for text in ("mine.ipynb", "c01-e1 ", "c01-e2-visible", "c01-e3"):
        assert any(text in problem for problem in found)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "%PDF-1.7",
        '{"cells": [',
        "[]",
        "{}",
        '{"cells": "none"}',
        '{"cells": ["x"]}',
        '{"cells": [{"cell_type": "code", "metadata": null, "source": ""}]}',
        '{"cells": [{"cell_type": "code", "metadata": {}, "source": null}]}',
        '{"nbformat": 3, "worksheets": [{"cells": []}]}',
    ],
)
def test_what_is_no_notebook_gives_one_sentence(tmp_path, content):
    path = tmp_path / "non_local.ipynb"
    path.write_text(content)
    good, text = report(path)
    assert not good
    assert text.startswith("non_local.ipynb: ")
    assert "\n" not in text
    assert str(tmp_path) not in text


def test_a_notebook_of_no_chapter_says_so(tmp_path):
    path = write(tmp_path / "shopping.ipynb", notebook_of(code("x = 1")))
    assert report(path) == (
        False,
        "shopping.ipynb: no graded cell of any chapter; is this a notebook of the course?",
    )


def test_the_chapter_is_found_by_its_cells_before_its_name(tmp_path):
    assert chapter_of(write(tmp_path / "non_local.ipynb", released("00"))).number == "00"
    path = write(tmp_path / "01_non_local" / "draft.ipynb", notebook_of())
    assert chapter_of(path).number == "01"


def test_without_the_chapters_the_rest_is_still_checked(hand_in, monkeypatch):
    monkeypatch.setattr("gclib.grading.submission.repository", lambda: None)
    notebook = solved("01")
    assert report(hand_in(notebook))[0]
    cell(notebook, "c01-e3")["source"] = "def"
    assert "c01-e3" in the_problem(hand_in(notebook))


# From the last cell of the notebook


def test_the_last_cell_reports_on_the_notebook_beside_it(tmp_path, monkeypatch, capsys):
    write(tmp_path / "non_local.ipynb", solved("01"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    course_module.submit_check("01")
    assert capsys.readouterr() == (f"non_local.ipynb, chapter 01:\n{READY}\n", "")


def test_the_last_cell_finds_the_notebook_in_work(course, tmp_path, monkeypatch, capsys):
    write(course / "work" / "01_non_local" / "non_local.ipynb", solved("01"))
    monkeypatch.chdir(tmp_path)
    course_module.submit_check("01")
    assert READY in capsys.readouterr().out


def test_the_last_cell_without_a_saved_notebook_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    course_module.submit_check("01")
    assert capsys.readouterr().out == (
        "non_local.ipynb is not here: save the notebook, or use gclib submit-check PATH\n"
    )


def test_the_last_cell_is_silent_while_graded(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    course_module.submit_check("01")
    assert capsys.readouterr() == ("", "")


def test_answers_of_the_solutions_hold_no_marks():
    for chapter in CHAPTERS:
        for one in answer_cells(solved(chapter.number)):
            if one["cell_type"] == "code":
                tokens = tokenize.generate_tokens(io.StringIO(one["source"]).readline)
                comments = [t.string for t in tokens if t.type == tokenize.COMMENT]
                assert not any("SOLUTION" in comment for comment in comments)
