"""From a submission to a returned grade through real nbgrader.

One class for each chapter is graded in one run; each student is named for what they hand in.
"""

import copy
import csv
import html
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from classroom import Classroom, index_of, replace, text_of
from mutants.answers import apply, mutants, references, variants

from gclib.chapters import CHAPTERS
from gclib.checks.exercise import exercises_of

pytestmark = pytest.mark.full

IMPORTS = "import torch.nn.functional as F\n\n"
NOISE = """
import sys, warnings
warnings.warn("a library's warning")
print("a student's debugging", file=sys.stderr)
"""
# Through real nbgrader, each exercise hands in so many of its mutants, from the first to the last;
# sandboxes and in-process checks run all.
MUTANTS = 4


def noisy(source: str) -> str:
    """Write to stderr in the cell and inside of every function."""
    lines = []
    for line in source.split("\n"):
        if re.match(r"\s*return ", line):
            indent = re.match(r"\s*", line)[0]
            lines.append(f"{indent}import os; os.write(2, b'low level')")
            lines.append(f"{indent}print('oh', file=__import__('sys').stderr)")
        lines.append(line)
    return NOISE + "\n".join(lines)


def duplicate(name):
    def edit(cells):
        index = index_of(cells, name)
        cells.insert(index, copy.deepcopy(cells[index]))

    return edit


def duplicate_answer(cells):
    """The answer stands in the first copy; the second, the later one, is the stub again."""
    index = index_of(cells, "c01-e1")
    answered = copy.deepcopy(cells[index])
    cells.insert(index + 1, answered)
    cells[index + 1]["source"] = [*cells[index]["source"], "\n", "# a note\n"]


def split_answer(cells):
    """JupyterLab's split copies the metadata to both halves."""
    index = index_of(cells, "c01-e4")
    first, second = text_of(cells, "c01-e4").split("    def forward", 1)
    other = copy.deepcopy(cells[index])
    cells[index]["source"] = first
    body = "def forward" + re.sub(r"\n    ", "\n", second)
    other["source"] = f"{body}\nNonLocalBlock2d.forward = forward\n"
    cells.insert(index + 1, other)


def delete(*names):
    def edit(cells):
        for name in names:
            del cells[index_of(cells, name)]

    return edit


def delete_experiments(cells):
    """They give no points and take most of the time; the other submissions keep theirs."""
    kept = [cell for cell in cells if "experiment" not in cell["metadata"].get("tags", [])]
    assert len(kept) < len(cells)
    cells[:] = kept


def retype(cells):
    cell = cells[index_of(cells, "c01-e1-visible")]
    cell["cell_type"] = "markdown"
    for key in ("outputs", "execution_count"):
        del cell[key]


def edit_checks(cells):
    for name in ("c01-e1-visible", "c01-e1-hidden", "c01-e2-visible"):
        replace(cells, name, "print('passed')\n100\n")


def strip_schema(cells):
    for cell in cells:
        if "nbgrader" in cell["metadata"]:
            cell["metadata"]["nbgrader"].pop("schema_version")


def empty_metadata(cells):
    cells[index_of(cells, "c01-e3-visible")]["metadata"]["nbgrader"] = {}


@pytest.fixture(scope="session")
def classes(tmp_path_factory):
    """The classes of all chapters, graded two at a time."""
    rooms = {}
    for chapter in CHAPTERS:
        room = Classroom(tmp_path_factory.mktemp(f"class{chapter.number}"), chapter)
        hand_in(room)
        rooms[chapter.number] = room
    hand_in_damaged(rooms["01"])
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(rooms, pool.map(graded, rooms.values()), strict=True))


@pytest.fixture
def class_01(classes):
    return classes["01"]


def hand_in_damaged(room: Classroom) -> None:
    """Work that arrives broken, dangerous, or clever."""
    answers = references("01")
    three = {name: answers[name] for name in ("c01-e1", "c01-e2", "c01-e3")}
    (mutant,) = (m for m in mutants("01")["c01-e4"] if m.name == "over queries")
    wrong = apply(mutant.edits, answers["c01-e4"])
    room.submit("three_right_one_wrong", three | {"c01-e4": wrong})
    hard_coded = (
        "def pairwise_similarity(query, key):\n"
        "    if query.shape[1] == 3 and query.shape[2] == 2:\n"
        "        return query @ key.transpose(1, 2)\n"
        "    return (query @ key.transpose(1, 2)) if len(query) == 3 or query.shape[1] == 4 else "
        "query.sum(2, keepdim=True) + key.sum(2)[:, None]\n"
    )
    room.submit("knows_the_visible_numbers", {"c01-e1": hard_coded})
    loop = "def aggregate(attention, value):\n    while True:\n        pass\n"
    room.submit("endless", {"c01-e1": answers["c01-e1"], "c01-e3": loop})
    leave = "def aggregate(attention, value):\n    import os\n    os._exit(0)\n"
    room.submit("exits", {"c01-e1": answers["c01-e1"], "c01-e3": leave})
    room.submit("half_a_line", {**three, "c01-e3": "def aggregate(attention, value:\n"})
    room.submit("deletes_a_check", answers, delete("c01-e1-visible", "c01-e4-hidden"))
    room.submit("deletes_an_exercise", answers, delete("c01-e1", "c01-e1-visible", "c01-e1-hidden"))
    room.submit("deletes_the_reflection", answers, delete("c01-reflection"))
    room.submit("duplicates_a_check", answers, duplicate("c01-e1-visible"))
    room.submit("duplicates_an_answer", answers, duplicate_answer)
    room.submit("splits_an_answer", answers, split_answer)
    room.submit("edits_checks", None, edit_checks)
    room.submit("retypes_a_check", answers, retype)
    room.submit("old_metadata", answers, strip_schema)
    room.submit("damaged_metadata", answers, empty_metadata)
    room.submit("zz_last_in_the_alphabet", answers)
    broken = room.submit("yy_not_json", answers)
    broken.write_text("this is no notebook")


def hand_in(room: Classroom) -> None:
    """What every chapter's class holds."""
    number = room.chapter.number
    answers, wrong, right = references(number), mutants(number), variants(number)
    room.submit("blank")
    room.submit("reference", answers)
    room.submit("noisy", {name: noisy(source) for name, source in answers.items()})
    for k in range(MUTANTS):
        chosen = {name: found[k * len(found) // MUTANTS] for name, found in wrong.items()}
        sources = {name: IMPORTS + apply(m.edits, answers[name]) for name, m in chosen.items()}
        room.submit(f"mutant_{k:02d}", sources, delete_experiments if k else None)
    for k in range(max(len(found) for found in right.values())):
        chosen = {
            name: IMPORTS + list(found.values())[k % len(found)] for name, found in right.items()
        }
        room.submit(f"variant_{k:02d}", chosen, delete_experiments if k else None)


def graded(room: Classroom) -> Classroom:
    room.autograde = room.nbgrader("autograde", room.chapter.folder)
    room.generate_feedback = room.nbgrader("generate_feedback", room.chapter.folder)
    return room


@pytest.fixture(params=[chapter.number for chapter in CHAPTERS])
def room(request, classes):
    return classes[request.param]


def students(room, prefix):
    return sorted(p.name for p in (room.folder / "submitted").glob(f"{prefix}*"))


def automatic(room) -> dict[str, float]:
    return without_reflection(room.points())


def test_blank_gets_nothing(room):
    assert set(room.grades("blank").values()) == {0.0}
    assert set(room.grades("blank")) == set(room.points())  # an empty reflection is 0 as well


def test_reference_gets_everything_but_the_reflection(room):
    assert without_reflection(room.grades("reference")) == automatic(room)


def without_reflection(grades):
    return {name: points for name, points in grades.items() if "reflection" not in name}


def test_stderr_costs_nothing(room):
    assert without_reflection(room.grades("noisy")) == automatic(room)


def test_every_mutant_gets_less_in_every_exercise(room):
    found = students(room, "mutant_")
    assert len(found) == MUTANTS
    for student in found:
        grades = room.grades(student)
        for exercise in exercises_of(room.chapter.checks()):
            if exercise.points == (0, 0):
                continue
            got = grades[f"{exercise.id}-visible"] + grades[f"{exercise.id}-hidden"]
            assert got < sum(exercise.points), (student, exercise.id)


def test_every_variant_gets_everything(room):
    found = students(room, "variant_")
    assert len(found) >= 4
    for student in found:
        assert without_reflection(room.grades(student)) == automatic(room), student


def test_maximum_score_is_the_sum_of_the_exercises(room):
    worth = sum(sum(exercise.points) for exercise in exercises_of(room.chapter.checks()))
    assert sum(automatic(room).values()) == worth


def test_three_right_one_wrong_the_rest_blank(class_01):
    expected = dict.fromkeys(class_01.points(), 0.0)
    for name in ("c01-e1", "c01-e2", "c01-e3"):
        expected[f"{name}-visible"] = expected[f"{name}-hidden"] = 1.0
    assert class_01.grades("three_right_one_wrong") == expected
    page = class_01.feedback("three_right_one_wrong")
    assert "softmax over the queries" in page  # the cause of the wrong one
    assert "not attempted" in page
    assert "Score: 6.0 / 22.0" in re.sub(r"\s+", " ", re.sub("<[^>]*>", "", page))


def test_hard_coded_numbers_pass_the_visible_check_alone(class_01):
    grades = class_01.grades("knows_the_visible_numbers")
    assert (grades["c01-e1-visible"], grades["c01-e1-hidden"]) == (1.0, 0.0)


def test_hidden_checks_do_not_leak_into_feedback(classes, class_01):
    for room in classes.values():
        pages = [
            path.read_text(encoding="utf-8") for path in (room.folder / "feedback").rglob("*.html")
        ]
        assert len(pages) > 10
        for page in pages:
            text = html.unescape(re.sub("<[^>]*>", "", page))
            assert "hidden_checks" not in text
            assert "gclib.checks.hidden" not in text
            assert "HIDDEN TESTS" not in text
            assert "Hidden checks of exercise 1 run here" in text
    page = class_01.feedback("knows_the_visible_numbers")
    assert "CheckFailed: c01-e1, query (" in page  # it says what failed


def test_an_undefined_name_in_a_hidden_check_does_not_show_its_source(class_01):
    page = class_01.feedback("half_a_line")
    text = html.unescape(re.sub("<[^>]*>", "", page))
    assert "name 'aggregate' is not defined" in text
    assert "hidden_checks" not in text


def test_an_endless_loop_costs_its_own_cells_alone(class_01):
    grades = class_01.grades("endless")
    assert grades["c01-e1-visible"] == grades["c01-e1-hidden"] == 1.0
    assert grades["c01-e3-visible"] == grades["c01-e3-hidden"] == 0.0


def test_one_bad_student_never_stops_the_batch(class_01):
    """nbgrader names those it could not grade; everyone else is done, the last one too."""
    assert {
        k: v for k, v in class_01.grades("zz_last_in_the_alphabet").items() if "reflection" not in k
    } == automatic(class_01)
    failed = set(re.findall(r"for student '(\w+)'", class_01.autograde.stderr))
    assert failed == {"exits", "yy_not_json"}
    assert class_01.autograde.returncode != 0  # and it does not pretend that all went well


@pytest.mark.parametrize(
    "student",
    [
        "deletes_a_check",
        "duplicates_a_check",
        "duplicates_an_answer",
        "splits_an_answer",
        "retypes_a_check",
        "old_metadata",
        "damaged_metadata",
        "deletes_the_reflection",
    ],
)
def test_damage_that_costs_nothing(class_01, student):
    grades = class_01.grades(student)
    assert without_reflection(grades) == automatic(class_01)
    assert set(grades) | class_01.waiting(student) == set(class_01.points())


def test_a_deleted_exercise_costs_that_exercise(class_01):
    grades = class_01.grades("deletes_an_exercise")
    assert grades["c01-e1-visible"] == grades["c01-e1-hidden"] == 0.0
    assert grades["c01-e2-visible"] == grades["c01-e3-hidden"] == 1.0


def test_edited_checks_are_restored(class_01):
    grades = class_01.grades("edits_checks")
    assert grades["c01-e1-visible"] == grades["c01-e1-hidden"] == grades["c01-e2-visible"] == 0.0


def test_grades_leave_as_csv(class_01):
    done = class_01.nbgrader("export", "--to=grades.csv")
    assert done.returncode == 0, done.stderr
    with open(class_01.folder / "grades.csv", newline="") as file:
        rows = {
            row["student_id"]: row
            for row in csv.DictReader(file)
            if row["assignment"] == class_01.chapter.folder
        }
    assert float(rows["three_right_one_wrong"]["score"]) == 6
    assert float(rows["reference"]["score"]) == 19
    assert float(rows["blank"]["score"]) == 0
    assert float(rows["blank"]["max_score"]) == 22


def test_experiments_are_not_run_for_grading(class_01):
    path = class_01.folder / "autograded" / "reference" / class_01.chapter.notebook
    text = path.read_text(encoding="utf-8")
    assert "follows the power" not in text
    assert "all 8 visible checks passed" in text


def test_grading_again_gives_the_same_grades(class_01):
    before = class_01.grades("three_right_one_wrong")
    done = class_01.nbgrader(
        "autograde", class_01.chapter.folder, "--student=three_right_one_wrong", "--force"
    )
    assert done.returncode == 0, done.stderr
    assert class_01.grades("three_right_one_wrong") == before


def test_every_chapter_has_a_class(classes):
    notebooks = (Path(__file__).parents[2] / "chapters").glob("*/*.ipynb")
    assert sorted(classes) == sorted(path.parent.name[:2] for path in notebooks)
    for number, room in classes.items():
        assert {"blank", "reference", "noisy"} < set(students(room, "")), number
