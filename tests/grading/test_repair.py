"""Whatever an editor left of a notebook becomes one that can be graded, or is refused in words."""

import copy
import json

import nbformat
import pytest
from classroom import index_of
from mutants.answers import references

from gclib.chapters import CHAPTERS, find_chapter, repository
from gclib.checks.cells import UnreadableWork, source_of
from gclib.grading.notebooks import grade_metadata
from gclib.grading.repair import find_notebook, mend

CHAPTER = find_chapter("01")


def released(chapter=CHAPTER):
    return json.loads((repository() / "chapters" / chapter.notebook).read_text(encoding="utf-8"))


@pytest.fixture
def notebook():
    """The chapter with all answers."""
    made = released()
    answers = references("01") | {"c01-reflection": "The query is not needed."}
    for cell in made["cells"]:
        name = grade_metadata(cell).get("grade_id")
        if name in answers:
            cell["source"] = answers[name]
    return made


def mended(notebook):
    """The mended notebook, which has every graded cell as it was handed out."""
    found = mend(json.dumps(notebook).encode(), released(), CHAPTER)
    nbformat.validate(nbformat.from_dict(found.notebook))
    graded = [cell for cell in found.notebook["cells"] if grade_metadata(cell)]
    expected = [cell for cell in released()["cells"] if grade_metadata(cell)]
    assert [grade_metadata(c) for c in graded] == [grade_metadata(c) for c in expected]
    assert [c["cell_type"] for c in graded] == [c["cell_type"] for c in expected]
    for cell, original in zip(graded, expected, strict=True):
        if grade_metadata(original)["locked"]:
            assert source_of(cell) == source_of(original)
    return found


def answers_of(found):
    """Answers by grade_id; white space at their ends does not matter."""
    return {
        grade_metadata(cell)["grade_id"]: source_of(cell).strip()
        for cell in found.notebook["cells"]
        if grade_metadata(cell).get("solution")
    }


def right_answers():
    found = {name: source.strip() for name, source in references("01").items()}
    return found | {"c01-reflection": "The query is not needed."}


def cell_of(notebook, name):
    return notebook["cells"][index_of(notebook["cells"], name)]


def insert_behind(notebook, name, *cells):
    index = index_of(notebook["cells"], name)
    notebook["cells"][index + 1 : index + 1] = cells


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.number)
def test_what_was_handed_out_stays_as_it_is(chapter):
    content = (repository() / "chapters" / chapter.notebook).read_bytes()
    found = mend(content, released(chapter), chapter)
    assert (found.notes, found.altered) == ([], [])
    assert [(c["id"], c["metadata"], source_of(c)) for c in found.notebook["cells"]] == [
        (c["id"], c["metadata"], source_of(c)) for c in released(chapter)["cells"]
    ]


def test_a_whole_notebook_needs_no_notes(notebook):
    found = mended(notebook)
    assert found.notes == []
    assert answers_of(found) == right_answers()


def strip_metadata(notebook):
    """As editors do that keep nothing of it."""
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        cell.pop("id")
    notebook["metadata"] = {}


def vscode(notebook):
    strip_metadata(notebook)
    for cell in notebook["cells"]:
        cell["metadata"] = {"vscode": {"languageId": "python"}}
        cell["source"] = source_of(cell).replace("\n", "\r\n")
    notebook["metadata"] = {"kernelspec": {"display_name": ".venv", "name": "venv-17"}}


def colab(notebook):
    strip_metadata(notebook)
    for number, cell in enumerate(notebook["cells"]):
        cell["metadata"] = {"id": f"kZq{number}", "colab": {"base_uri": "https://"}}
        cell["source"] = source_of(cell).rstrip().splitlines(True)
    notebook["metadata"] = {"colab": {"provenance": []}, "kernelspec": {"name": "python3"}}
    notebook["nbformat_minor"] = 0


def old_format(notebook):
    old = nbformat.reads(json.dumps(notebook), as_version=3)
    notebook.clear()
    notebook.update(json.loads(json.dumps(old)))


def duplicate_with_stub_behind(notebook):
    """The answer in the first copy, the stub in the second."""
    stub = next(c for c in released()["cells"] if grade_metadata(c).get("grade_id") == "c01-e2")
    insert_behind(notebook, "c01-e2", stub)


def duplicate_with_stub_before(notebook):
    stub = next(c for c in released()["cells"] if grade_metadata(c).get("grade_id") == "c01-e2")
    notebook["cells"].insert(index_of(notebook["cells"], "c01-e2"), stub)


def split(notebook, keep_marks=True):
    cell = cell_of(notebook, "c01-e4")
    lines = source_of(cell).splitlines(True)
    half = len(lines) // 2
    while not lines[half].startswith("    "):
        half += 1
    second = copy.deepcopy(cell) | {"source": "".join(lines[half:]), "id": "second"}
    cell["source"] = "".join(lines[:half])
    if not keep_marks:
        second["metadata"] = {}
    insert_behind(notebook, "c01-e4", second)


def delete_checks(notebook):
    for name in ("c01-e1-visible", "c01-e1-hidden", "c01-e5-hidden"):
        del notebook["cells"][index_of(notebook["cells"], name)]


def retype(notebook):
    cell_of(notebook, "c01-e1")["cell_type"] = "markdown"
    cell_of(notebook, "c01-e2-visible")["cell_type"] = "raw"
    cell_of(notebook, "c01-reflection")["cell_type"] = "code"


def reorder(notebook):
    cells = notebook["cells"]
    cells.insert(3, cells.pop(index_of(cells, "c01-e4")))
    cells.append(cells.pop(index_of(cells, "c01-e1-visible")))


def reverse(notebook):
    notebook["cells"].reverse()


def edit_checks(notebook):
    cell_of(notebook, "c01-e1-visible")["source"] = "print('passed')\n100"
    cell_of(notebook, "c01-e2-hidden")["source"] = ""


def damaged_metadata(notebook):
    cell_of(notebook, "c01-e1")["metadata"]["nbgrader"] = {}
    cell_of(notebook, "c01-e2")["metadata"]["nbgrader"] = "x"
    cell_of(notebook, "c01-e3")["metadata"] = None
    cell_of(notebook, "c01-e4")["metadata"]["nbgrader"] = {"grade_id": 7, "points": 1e9}
    cell_of(notebook, "c01-e1-visible")["metadata"]["nbgrader"]["points"] = 1000
    cell_of(notebook, "c01-e1-hidden")["metadata"]["nbgrader"].pop("schema_version")


def damaged_cells(notebook):
    notebook["cells"] += [None, 7, {"cell_type": "code"}, {"source": [1, "x"]}, {"metadata": []}]


def moved_answer(notebook):
    """The answer in a cell of the student's own, and the cell for it deleted."""
    index = index_of(notebook["cells"], "c01-e3")
    notebook["cells"][index] |= {"metadata": {}, "id": "mine"}
    notebook["cells"].append(notebook["cells"].pop(index))


def same_ids(notebook):
    for cell in notebook["cells"]:
        cell["id"] = "same"


def other_kernel(notebook):
    notebook["metadata"]["kernelspec"] = {"name": "ir", "language": "R", "display_name": "R"}


DAMAGE = {
    strip_metadata: "marks of the graded cells were gone",
    vscode: "marks of the graded cells were gone",
    colab: "marks of the graded cells were gone",
    old_format: "old format",
    duplicate_with_stub_behind: "c01-e2 was there 2 times",
    duplicate_with_stub_before: "c01-e2 was there 2 times",
    split: "c01-e4 was split",
    delete_checks: "c01-e5-hidden was missing",
    retype: "c01-e1 had become a markdown cell",
    reorder: "cells were moved",
    reverse: "cells were moved",
    edit_checks: "c01-e1-visible was edited",
    damaged_metadata: "",
    damaged_cells: "some cells were damaged",
    moved_answer: "",
    same_ids: "",
    other_kernel: "another kernel",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_damage_costs_no_answer(damage, notebook):
    damage(notebook)
    found = mended(notebook)
    assert answers_of(found) == right_answers()
    assert DAMAGE[damage] in " ".join(found.notes)


def test_a_split_whose_second_half_lost_its_marks(notebook):
    split(notebook, keep_marks=False)
    assert answers_of(mended(notebook)) == right_answers()


def test_altered_checks_are_named(notebook):
    edit_checks(notebook)
    assert mended(notebook).altered == ["c01-e1-visible", "c01-e2-hidden"]


def test_several_answers_all_run(notebook):
    first = source_of(cell_of(notebook, "c01-e1"))
    again = copy.deepcopy(cell_of(notebook, "c01-e1")) | {"source": "SECOND = 2", "id": "b"}
    insert_behind(notebook, "c01-e1", again)
    found = answers_of(mended(notebook))["c01-e1"]
    assert found.startswith(first.strip())
    assert found.endswith("SECOND = 2")


def test_a_missing_answer_is_not_attempted(notebook):
    for name in ("c01-e1", "c01-reflection"):
        del notebook["cells"][index_of(notebook["cells"], name)]
    found = mended(notebook)
    assert "answer c01-e1 was missing" in " ".join(found.notes)
    assert "NotImplementedError" in answers_of(found)["c01-e1"]
    assert answers_of(found)["c01-e2"] == right_answers()["c01-e2"]


def test_what_was_added_to_the_first_cell_stays(notebook):
    cell = next(c for c in notebook["cells"] if "course.start(" in source_of(c))
    cell["source"] = source_of(cell) + "\nimport math\nHALF = 0.5"
    found = mended(notebook)
    assert any(s.endswith("HALF = 0.5") for _, _, s in found.code_cells())
    assert found.notes == []


def test_own_cells_stay_where_they_were(notebook):
    own = {"cell_type": "code", "source": "HELPER = 3", "metadata": {}, "id": "helper"}
    index = index_of(notebook["cells"], "c01-e2")
    notebook["cells"].insert(index, own)
    found = mended(notebook)
    sources = [source_of(cell) for cell in found.notebook["cells"]]
    assert sources.index("HELPER = 3") == index
    assert found.notes == []
    assert ("HELPER = 3", False) in [(s, answer) for _, answer, s in found.code_cells()]


def test_outputs_and_metadata_are_dropped(notebook):
    cell = cell_of(notebook, "c01-e1-visible")
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "passed"}]
    cell["metadata"]["tags"] = ["skip-execution"]
    found = mended(notebook)
    assert "passed" not in json.dumps([c.get("outputs") for c in found.notebook["cells"]])
    assert "skip-execution" not in json.dumps(found.notebook)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"this is no notebook", "line 1 is not JSON"),
        (b"\xff\xfe\x00", "not a notebook"),
        (b"\x80\x81", "not a notebook"),
        (b"[" * 100_000, "not a notebook"),
        (b"[1]", "is this the right file"),
        (b"{}", "it has no cells"),
        (b'{"cells": 3}', "it has no cells"),
        (b'{"worksheets": 3, "nbformat": 3}', "old format that cannot be read"),
        (b'{"cells": [{"cell_type": "code", "source": "x = 1"}]}', "nothing of this chapter"),
        (b'{"cells": []}', "nothing of this chapter"),
    ],
)
def test_what_cannot_be_graded_is_refused(content, why):
    with pytest.raises(UnreadableWork, match=why):
        mend(content, released(), CHAPTER)


def test_the_notebook_of_another_chapter_is_refused():
    content = (repository() / "chapters" / find_chapter("00").notebook).read_bytes()
    with pytest.raises(UnreadableWork, match=r"of chapter 00; hand in non_local\.ipynb"):
        mend(content, released(), CHAPTER)


def test_utf16_and_byte_order_marks(notebook):
    for encoding in ("utf-8-sig", "utf-16"):
        content = json.dumps(notebook, ensure_ascii=False).encode(encoding)
        assert answers_of(mend(content, released(), CHAPTER)) == right_answers()


class TestFindNotebook:
    def put(self, folder, *names, text="{}"):
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def test_by_its_name(self, tmp_path):
        self.put(tmp_path, "non_local.ipynb", "other.ipynb")
        path, notes = find_notebook(tmp_path, CHAPTER)
        assert (path.name, notes) == ("non_local.ipynb", [])

    @pytest.mark.parametrize(
        "name", ["Non_Local (1).ipynb", "mine.ipynb", "deep/er/x.ipynb", "non_local.ipynb.json"]
    )
    def test_by_being_the_only_one(self, name, tmp_path):
        self.put(tmp_path, name, ".ipynb_checkpoints/non_local-checkpoint.ipynb")
        path, (note,) = find_notebook(tmp_path, CHAPTER)
        assert str(path.relative_to(tmp_path)) == name
        assert "was called" in note

    def test_by_what_it_holds(self, tmp_path):
        self.put(tmp_path, "a.ipynb", "b.ipynb")
        self.put(tmp_path, "c.ipynb", text='{"x": "c01-e1"}')
        assert find_notebook(tmp_path, CHAPTER)[0].name == "c.ipynb"

    def test_none_or_several(self, tmp_path):
        with pytest.raises(UnreadableWork, match=r"there is no notebook; hand in non_local.ipynb"):
            find_notebook(tmp_path, CHAPTER)
        self.put(tmp_path, "a.ipynb", "b.ipynb")
        with pytest.raises(UnreadableWork, match=r"several notebooks \(a.ipynb, b.ipynb\)"):
            find_notebook(tmp_path, CHAPTER)

    def test_links_are_not_followed(self, tmp_path):
        self.put(tmp_path, "elsewhere/theirs.json")
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "non_local.ipynb").symlink_to(tmp_path / "elsewhere/theirs.json")
        with pytest.raises(UnreadableWork, match="there is no notebook"):
            find_notebook(folder, CHAPTER)
