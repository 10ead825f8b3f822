"""Generation through the real nbgrader: chapters/ holds what solutions/ give, or stays as it was.

No test writes into the checkout: each works on a copy below tmp_path.
"""

import errno
import json
import os
import re
import shutil

import pytest
from notebook_copies import (
    CHAPTER,
    ROOT,
    append,
    both,
    cell,
    checkout,
    edit,
    edit_as_is,
    insert,
    nbgrader,
    remove,
    replace,
    source,
)

from gclib.chapters import CHAPTERS
from gclib.checks.exercise import exercises_of
from gclib.checks.outcome import STUB_MESSAGE
from gclib.grading import generate as generation
from gclib.grading.generate import GenerationFailed, generate, verify

OTHER = CHAPTERS[0]  # generated before CHAPTER
CELL = "c01-07"  # an ordinary code cell
TEXT = "c01-13"  # an ordinary text cell: the hints of exercise 1
SOLUTION_LINE = "    return query @ key.transpose(1, 2)"  # of exercise 1
HIDDEN_LINE = "hidden_checks.e1(pairwise_similarity)"
NB = CHAPTER.notebook

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.folder)


@pytest.fixture(autouse=True)
def _keep_the_path(monkeypatch):
    monkeypatch.setenv("PATH", os.environ["PATH"])  # generate() adds to it


@pytest.fixture
def root(tmp_path):
    return checkout(tmp_path / "course")


def files_of(root):
    """Every file of chapters/ with its bytes."""
    folder = root / "chapters"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".ipynb_checkpoints" not in path.parts
    }


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def solution(root, chapter=CHAPTER):
    return root / "solutions" / chapter.notebook


# --- what is generated ---------------------------------------------------------------------------


def test_ci_gate_committed_chapters_are_those_of_the_solutions(root, tmp_path):
    committed = files_of(ROOT)
    stale = [path.relative_to(root / "chapters").as_posix() for path in generate(root)]
    assert not stale, f"chapters/ does not fit solutions/: run `make chapters` ({stale})"
    assert files_of(root) == committed
    scratch = checkout(tmp_path / "scratch")
    shutil.rmtree(scratch / "chapters")
    generate(scratch)
    generated = files_of(scratch)
    assert generated.keys() == {chapter.notebook for chapter in CHAPTERS}
    differ = [name for name, content in generated.items() if committed.get(name) != content]
    assert not differ, f"chapters/ does not fit solutions/: run `make chapters` ({differ})"


def test_generating_twice_changes_nothing(root):
    edit(solution(root), append(TEXT, "One more line."))
    assert generate(root) == [root / "chapters" / NB]
    once = files_of(root)
    stamps = {name: (root / "chapters" / name).stat().st_mtime_ns for name in once}
    assert generate(root) == []
    assert files_of(root) == once
    assert stamps == {name: (root / "chapters" / name).stat().st_mtime_ns for name in once}


def test_generating_does_not_touch_the_solutions(root):
    before = {chapter: solution(root, chapter).read_bytes() for chapter in CHAPTERS}
    generate(root)
    assert before == {chapter: solution(root, chapter).read_bytes() for chapter in CHAPTERS}


def secrets(text):
    """Lines between marks, found without the help of gclib."""
    regions = re.findall(r"### BEGIN [A-Z ]+\n(.*?)### END", text, flags=re.DOTALL)
    return {line.strip() for region in regions for line in region.split("\n")} - {""}


@each_chapter
def test_a_blank_answer_holds_its_stub_and_no_line_of_the_solution(chapter):
    student = {c["id"]: c for c in cells_of(ROOT / "chapters" / chapter.notebook)}
    answers = 0
    for c in cells_of(ROOT / "solutions" / chapter.notebook):
        if not c["metadata"].get("nbgrader", {}).get("solution"):
            continue
        answers += 1
        text = source(student[c["id"]])
        stub = f'raise NotImplementedError("{STUB_MESSAGE}")'
        assert (stub if c["cell_type"] == "code" else "*Write your answer here.*") in text
        assert not secrets(source(c)) & {line.strip() for line in text.split("\n")}
    assert answers > len(exercises_of(chapter.checks()))  # and the reflection


@each_chapter
def test_no_text_of_a_blank_chapter_holds_a_line_of_a_solution(chapter):
    lines = set()
    for c in cells_of(ROOT / "solutions" / chapter.notebook):
        lines |= secrets(source(c))
    assert len(lines) > 10
    for c in cells_of(ROOT / "chapters" / chapter.notebook):
        if c["cell_type"] == "markdown":
            assert not lines & {line.strip() for line in source(c).split("\n")}, c["id"]


@each_chapter
def test_a_blank_chapter_has_no_mark_hidden_test_output_or_counter(chapter):
    path = ROOT / "chapters" / chapter.notebook
    text = path.read_text(encoding="utf-8")
    for word in ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS", "gclib.checks.hidden", "Rubric"):
        assert word not in text
    for c in cells_of(path):
        assert not c.get("outputs")
        assert c.get("execution_count") is None


@each_chapter
def test_a_blank_chapter_has_the_cells_of_the_solution_with_checksums(chapter):
    expected = cells_of(ROOT / "solutions" / chapter.notebook)
    student = cells_of(ROOT / "chapters" / chapter.notebook)
    assert [c["id"] for c in student] == [c["id"] for c in expected]
    for ours, theirs in zip(expected, student, strict=True):
        marks = dict(theirs["metadata"].get("nbgrader", {}))
        if marks:
            assert marks.pop("checksum")
            assert marks.pop("cell_type") == ours["cell_type"]
        assert marks == ours["metadata"].get("nbgrader", {})


# --- leaks ---------------------------------------------------------------------------------------


def output(cells):
    result = {"output_type": "stream", "name": "stdout", "text": ["42\n"]}
    cell(cells, CELL)["outputs"] = [result]


def plant_reflection(cells):
    lines = source(cell(cells_of(solution(ROOT)), "c01-reflection")).split("\n")
    append("c01-reflection", next(line for line in lines if line.startswith("**Rubric.**")))(cells)


# what is planted in the student's notebook -> (edit, the only sentence, or how it begins)
LEAKS = {
    "solution line in text": (
        append(TEXT, SOLUTION_LINE),
        f"{NB}: leaks the line '{SOLUTION_LINE.strip()}'",
    ),
    "solution line in code": (
        append(CELL, SOLUTION_LINE.strip()),
        f"{NB}: leaks the line '{SOLUTION_LINE.strip()}'",
    ),
    "solution line in its own cell": (
        append("c01-e1", SOLUTION_LINE),
        f"{NB}: leaks the line '{SOLUTION_LINE.strip()}'",
    ),
    "rubric": (plant_reflection, f"{NB}: leaks the line '**Rubric.**"),
    "hidden line": (append("c01-e1-hidden", HIDDEN_LINE), f"{NB}: leaks the line '{HIDDEN_LINE}'"),
    "begin of a solution": (
        append("c01-e1", "### BEGIN SOLUTION"),
        f"{NB}: contains '### BEGIN SOLUTION'",
    ),
    "end of a solution": (
        append("c01-e1", "### END SOLUTION"),
        f"{NB}: contains '### END SOLUTION'",
    ),
    "begin of hidden checks": (
        append("c01-e1-hidden", "### BEGIN HIDDEN TESTS"),
        f"{NB}: contains '### BEGIN HIDDEN TESTS'",
    ),
    "end of hidden checks": (
        append("c01-e1-hidden", "### END HIDDEN TESTS"),
        f"{NB}: contains '### END HIDDEN TESTS'",
    ),
    "output": (output, f"{NB}: contains outputs"),
    "graded cell gone": (
        remove("c01-e1-visible"),
        f"{NB}: its graded cells differ from those of the solution",
    ),
    "answer cell gone": (
        remove("c01-e1"),
        f"{NB}: its graded cells differ from those of the solution",
    ),
    "graded cell added": (
        insert(before=TEXT, id="c01-extra", grade=True, points=1),
        f"{NB}: its graded cells differ from those of the solution",
    ),
    "graded cells in another order": (
        lambda cells: cells.append(cells.pop(cells.index(cell(cells, "c01-e1-visible")))),
        f"{NB}: its graded cells differ from those of the solution",
    ),
}


def test_verify_finds_nothing_in_the_chapters():
    assert list(verify(ROOT / "solutions", ROOT / "chapters")) == []


@pytest.mark.parametrize("leak", LEAKS)
def test_verify_finds_a_planted_leak_and_names_it(leak, root):
    change, sentence = LEAKS[leak]
    edit_as_is(root / "chapters" / NB, change)
    found = list(verify(root / "solutions", root / "chapters"))
    assert len(found) == 1
    assert found[0].startswith(sentence)


def test_verify_finds_a_chapter_that_was_not_generated(root):
    (root / "chapters" / NB).unlink()
    found = list(verify(root / "solutions", root / "chapters"))
    assert found == [f"{NB}: was not generated"]


def test_a_solution_line_that_the_author_copied_into_a_hint_is_a_leak(root):
    edit(solution(root), append(TEXT, f"```python\n{SOLUTION_LINE}\n```"))
    before = files_of(root)
    with pytest.raises(GenerationFailed, match="leaks the line 'return query @ key"):
        generate(root)
    assert files_of(root) == before


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        ("ClearSolutions", "contains '### BEGIN SOLUTION'"),
        ("ClearHiddenTests", "contains '### BEGIN HIDDEN TESTS'"),
        ("ClearOutput", "contains outputs"),
    ],
)
def test_a_configuration_that_leaks_is_refused(step, sentence, root):
    edit_as_is(solution(root), output)
    with open(root / "nbgrader_config.py", "a", encoding="utf-8") as file:
        file.write(f"\nc.{step}.enabled = False\n")
    before = files_of(root)
    with pytest.raises(GenerationFailed, match=sentence):
        generate(root)
    assert files_of(root) == before


def test_outputs_of_a_solution_do_not_reach_the_student(root):
    before = files_of(root)
    edit_as_is(solution(root), output)
    assert generate(root) == []
    assert files_of(root) == before


# --- failures ------------------------------------------------------------------------------------


def changed(change):
    return lambda root: edit(solution(root), change)


def written(name, text):
    return lambda root: (root / name).write_text(text, encoding="utf-8")


def truncated(root):
    text = solution(root).read_text(encoding="utf-8")
    solution(root).write_text(text[: len(text) // 2], encoding="utf-8")


def duplicate(cells):
    nbgrader("c01-e2", grade_id="c01-e1")(cells)


NESTED = "### BEGIN SOLUTION\n    ### BEGIN SOLUTION"
NESTED_HIDDEN = "### BEGIN HIDDEN TESTS\n### BEGIN HIDDEN TESTS"
HIDDEN = "### BEGIN HIDDEN TESTS\nprint(1)\n### END HIDDEN TESTS"
MARKS = "### BEGIN SOLUTION\nprint(1)\n### END SOLUTION"

# what went wrong -> (edit of the checkout, words of the sentence)
FAILURES = {
    "solution without end": (
        changed(replace("c01-e1", "### END SOLUTION", "")),
        ("01_non_local", "no end solution"),
    ),
    "nested solutions": (
        changed(replace("c01-e1", "### BEGIN SOLUTION", NESTED)),
        ("01_non_local", "nested begin solution"),
    ),
    "solution in an ordinary cell": (
        changed(append(CELL, MARKS)),
        ("01_non_local", "Solution region detected in a non-solution cell"),
    ),
    "hidden checks without end": (
        changed(replace("c01-e1-hidden", "### END HIDDEN TESTS", "")),
        ("01_non_local", "No end hidden tests"),
    ),
    "nested hidden checks": (
        changed(replace("c01-e1-hidden", "### BEGIN HIDDEN TESTS", NESTED_HIDDEN)),
        ("01_non_local", "nested begin hidden tests"),
    ),
    "hidden checks in an ungraded cell": (
        changed(append(CELL, HIDDEN)),
        ("01_non_local", "Hidden test region detected in a non-grade cell"),
    ),
    "hidden checks in text": (
        changed(append(TEXT, HIDDEN)),
        ("01_non_local", "Hidden test region detected in a non-grade cell"),
    ),
    "grade_id twice": (changed(duplicate), ("01_non_local", "Duplicate grade id: c01-e1")),
    "old metadata": (
        changed(nbgrader("c01-e1", schema_version=2)),
        ("01_non_local", "old version"),
    ),
    "not JSON": (
        written(f"solutions/{NB}", '{\n<<<<<<< HEAD\n"cells": []'),
        ("01_non_local", "JSON"),
    ),
    "half a file": (truncated, ("01_non_local", "JSON")),
    "empty file": (written(f"solutions/{NB}", ""), ("01_non_local", "JSON")),
    "missing notebook": (
        lambda root: solution(root).unlink(),
        ("01_non_local",),
    ),
    "missing chapter": (
        lambda root: shutil.rmtree(solution(root).parent),
        ("01_non_local",),
    ),
    "notebook of another name": (
        lambda root: solution(root).rename(solution(root).with_name("other.ipynb")),
        (NB,),
    ),
    "no solutions": (lambda root: shutil.rmtree(root / "solutions"), ("solutions",)),
    "configuration that raises": (
        written("nbgrader_config.py", "raise RuntimeError('mistake in line 1')\n"),
        ("nbgrader_config.py", "mistake in line 1"),
    ),
    "configuration with a syntax error": (
        written("nbgrader_config.py", "c = get_config(\n"),
        ("nbgrader_config.py",),
    ),
    "no configuration": (
        lambda root: (root / "nbgrader_config.py").unlink(),
        ("nbgrader_config.py",),
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_one_sentence_and_chapters_stay(failure, root):
    spoil, words = FAILURES[failure]
    spoil(root)
    before = files_of(root)
    with pytest.raises(GenerationFailed) as caught:
        generate(root)
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence.strip()
    assert "gclib-chapters-" not in sentence, "names a temporary folder, which is gone"
    assert files_of(root) == before


@pytest.mark.parametrize("failure", FAILURES)
def test_main_exits_1_with_the_sentence_and_chapters_stay(failure, root, monkeypatch, capsys):
    spoil, words = FAILURES[failure]
    spoil(root)
    before = files_of(root)
    monkeypatch.setattr(generation, "repository", lambda: root)
    assert generation.main(["--no-gradebook"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("chapters/ is unchanged: ")
    assert all(word in printed.err for word in words)
    assert printed.out == ""
    assert files_of(root) == before


def test_main_names_the_files_it_wrote_and_leaves_the_gradebook_alone(root, monkeypatch, capsys):
    monkeypatch.setattr(generation, "repository", lambda: root)
    edit(solution(root), append(TEXT, "One more line."))
    assert generation.main(["--no-gradebook"]) == 0
    expected = f"wrote chapters/{NB}\n{len(CHAPTERS)} chapters are up to date\n"
    assert capsys.readouterr().out == expected
    assert not list(root.glob("*.db*"))


def test_outside_of_a_checkout_main_says_where_to_run_it(monkeypatch, capsys):
    monkeypatch.setattr(generation, "repository", lambda: None)
    assert generation.main([]) == 2
    assert "run this in a checkout" in capsys.readouterr().err


# --- the gradebook -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gradebook_of_the_solutions(tmp_path_factory):
    """A gradebook in which the chapters are registered, and what generation changed."""
    folder = tmp_path_factory.mktemp("gradebook")
    root = checkout(folder / "course")
    shutil.rmtree(root / "chapters")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.environ["PATH"])
        patch.setattr(generation, "repository", lambda: root)
        assert generation.main([]) == 0
    return root


@pytest.fixture
def gradebook(gradebook_of_the_solutions, root):
    """URL of a copy of that gradebook, beside the checkout ``root``."""
    shutil.copy(gradebook_of_the_solutions / "gradebook.db", root)
    return f"sqlite:///{root / 'gradebook.db'}"


def scores(url):
    from nbgrader.api import Gradebook

    with Gradebook(url) as book:
        return {assignment.name: assignment.max_score for assignment in book.assignments}


def points_of(chapter, root=ROOT):
    marks = [c["metadata"].get("nbgrader", {}) for c in cells_of(solution(root, chapter))]
    return sum(mark["points"] for mark in marks if mark.get("grade"))


def submit(url):
    from nbgrader.api import Gradebook

    with Gradebook(url) as book:
        book.add_student("alice")
        book.add_submission(CHAPTER.folder, "alice")


def test_main_registers_the_chapters_with_the_points_of_their_cells(gradebook_of_the_solutions):
    registered = scores(f"sqlite:///{gradebook_of_the_solutions / 'gradebook.db'}")
    assert registered == {chapter.folder: points_of(chapter) for chapter in CHAPTERS}
    assert all(points > 0 for points in registered.values())


def test_registering_changes_no_byte_of_the_chapters(gradebook_of_the_solutions, root):
    generate(root)
    assert files_of(gradebook_of_the_solutions) == files_of(root)


def test_registering_again_changes_nothing(gradebook, root):
    before = scores(gradebook)
    assert generate(root, gradebook=gradebook) == []
    assert scores(gradebook) == before


def test_new_points_reach_the_gradebook(gradebook, root):
    edit(solution(root), nbgrader("c01-reflection", points=7))
    assert generate(root, gradebook=gradebook) == [root / "chapters" / NB]
    assert scores(gradebook)[CHAPTER.folder] == points_of(CHAPTER, root) != points_of(CHAPTER)


CELLS = {
    "graded cell removed": remove("c01-e6-hidden"),
    "answer cell removed": remove("c01-e6"),
    "graded cell added": insert(
        before=TEXT, id="c01-extra", source="c01.e1(1)", grade=True, points=1
    ),
}


@pytest.mark.filterwarnings("ignore:Object of type")  # nbgrader's own, of SQLAlchemy
@pytest.mark.parametrize("change", CELLS)
def test_with_submissions_another_set_of_cells_is_refused(change, gradebook, root):
    submit(gradebook)
    edit(solution(root), CELLS[change])
    before, registered = files_of(root), scores(gradebook)
    with pytest.raises(GenerationFailed) as caught:
        generate(root, gradebook=gradebook)
    sentence = str(caught.value)
    assert sentence.startswith("01_non_local: ")
    assert "Cannot add or remove cells" in sentence
    assert "there are submissions" in sentence
    assert files_of(root) == before
    assert scores(gradebook) == registered


@pytest.mark.filterwarnings("ignore:Object of type")
def test_with_submissions_a_change_of_text_is_welcome(gradebook, root):
    submit(gradebook)
    edit(solution(root), both(append(TEXT, "One more line."), append("c01-e1", "# a comment")))
    assert generate(root, gradebook=gradebook) == [root / "chapters" / NB]


@pytest.mark.parametrize("change", CELLS)
def test_without_submissions_another_set_of_cells_is_welcome(change, gradebook, root):
    edit(solution(root), CELLS[change])
    assert generate(root, gradebook=gradebook) == [root / "chapters" / NB]
    assert scores(gradebook)[CHAPTER.folder] == points_of(CHAPTER, root)


def test_a_failure_leaves_the_gradebook_in_step_with_the_chapters(gradebook, root):
    edit(solution(root, OTHER), nbgrader("c00-reflection", points=9))
    edit(solution(root), replace("c01-e1", "### END SOLUTION", ""))
    registered = scores(gradebook)
    with pytest.raises(GenerationFailed):
        generate(root, gradebook=gradebook)
    assert scores(gradebook) == registered


@pytest.mark.parametrize(
    ("place", "reason"),
    [("no/such/folder/gradebook.db", "unable to open"), ("broken.db", "not a database")],
)
def test_a_gradebook_that_cannot_be_used_is_named_with_the_reason(place, reason, root):
    (root / "broken.db").write_text("no database\n" * 100, encoding="utf-8")
    before = files_of(root)
    with pytest.raises(GenerationFailed) as caught:
        generate(root, gradebook=f"sqlite:///{root / place}")
    assert reason in str(caught.value)
    assert files_of(root) == before


# --- the swap ------------------------------------------------------------------------------------


def test_a_chapter_that_left_the_course_leaves_chapters(root, monkeypatch):
    monkeypatch.setattr(generation, "CHAPTERS", (OTHER,))
    gone = [root / "chapters" / chapter.notebook for chapter in CHAPTERS if chapter != OTHER]
    assert sorted(generate(root)) == gone
    assert list(files_of(root)) == [OTHER.notebook]


def test_a_chapter_that_left_the_course_leaves_no_empty_folder(root, monkeypatch):
    monkeypatch.setattr(generation, "CHAPTERS", (OTHER,))
    generate(root)
    assert [path.name for path in (root / "chapters").iterdir()] == [OTHER.folder]


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "01_non_local/notes.txt",
        "01_non_local/.ipynb_checkpoints/non_local-checkpoint.ipynb",
        "01_non_local/non_local-Copy1.ipynb",  # JupyterLab's name for a copy: may hold answers
        "scratch.ipynb",
    ],
)
def test_an_unrelated_file_in_chapters_is_kept(name, root):
    path = root / "chapters" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine", encoding="utf-8")
    generate(root)
    assert path.is_file()
    assert path.read_text(encoding="utf-8") == "mine"


@pytest.fixture
def interrupted(root, monkeypatch):
    """A checkout in which the disk was full at the second file; the old and the new files."""
    keep = {chapter: solution(root, chapter).read_bytes() for chapter in (OTHER, CHAPTER)}
    old = files_of(root)
    for chapter in (OTHER, CHAPTER):
        edit(solution(root, chapter), append(f"c{chapter.number}-01", "A new line."))
    sound = checkout(root.parent / "sound")
    shutil.copytree(root / "solutions", sound / "solutions", dirs_exist_ok=True)
    generate(sound)
    real, seen = os.replace, []

    def replace_one(start, end):
        if (root / "chapters") not in getattr(end, "parents", []):
            return real(start, end)
        seen.append(end)
        if len(seen) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(end))
        return real(start, end)

    with monkeypatch.context() as patch:
        patch.setattr(generation.os, "replace", replace_one)
        with pytest.raises((OSError, GenerationFailed)):
            generate(root)
    assert len(seen) == 2
    return root, keep, old, files_of(sound)


def notebooks(files):
    return {name: content for name, content in files.items() if name.endswith(".ipynb")}


def partial(root):
    return [path for path in (root / "chapters").rglob("*") if ".partial" in path.name]


def test_after_an_interrupted_swap_each_notebook_is_whole(interrupted):
    root, _, old, new = interrupted
    found = notebooks(files_of(root))
    assert found == old | {OTHER.notebook: new[OTHER.notebook]}
    assert found[OTHER.notebook] != old[OTHER.notebook]
    assert all(json.loads(content)["cells"] for content in found.values())


def test_a_run_after_an_interrupted_swap_completes_it(interrupted):
    root, _, _, new = interrupted
    assert generate(root) == [root / "chapters" / NB]
    assert files_of(root) == new
    assert partial(root) == []


def test_a_run_after_an_interrupted_swap_and_a_step_back_leaves_no_partial_file(interrupted):
    root, keep, old, _ = interrupted
    for chapter, content in keep.items():
        solution(root, chapter).write_bytes(content)
    assert generate(root) == [root / "chapters" / OTHER.notebook]
    assert partial(root) == []
    assert files_of(root) == old
