"""gclib collect: zips as Canvas and Moodle make them, nbgrader's exchange, and hostile ones."""

import hashlib
import io
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
import unicodedata
import zipfile
from datetime import datetime, timezone

import pytest
from mutants.answers import ROOT

from gclib.chapters import find_chapter
from gclib.cli import main
from gclib.grading.classroom import STUDENT_ID, Course, CourseError
from gclib.grading.collect import collect
from gclib.grading.people import read_canvas, read_moodle, read_time
from gclib.grading.unpack import Limits

CHAPTER = find_chapter("01")
OTHER = find_chapter("02")


def notebook(text="", chapter=CHAPTER):
    """The released notebook with a cell of its own."""
    found = json.loads((ROOT / "chapters" / chapter.notebook).read_text(encoding="utf-8"))
    found["cells"].append({"cell_type": "markdown", "id": "own", "metadata": {}, "source": text})
    return json.dumps(found)


def write_zip(path, entries):
    """A zip of (name or ZipInfo, content) pairs."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def zip_bytes(entries):
    file = io.BytesIO()
    write_zip(file, entries)
    return file.getvalue()


@pytest.fixture
def course(tmp_path):
    (tmp_path / "class").mkdir(mode=0o755)
    return Course(tmp_path / "class")


def take(course, *sources, chapter=CHAPTER, **options):
    """Collect; outcomes by student, and no trace of the work."""
    found = collect(course, chapter, list(sources), **options)
    assert not list(course.folder.glob(".collect-*"))
    assert len({outcome.student for outcome in found}) == len(found)
    return {outcome.student: outcome for outcome in found}


def stored(course, student, chapter=CHAPTER):
    return course.notebook(student, chapter).read_text(encoding="utf-8")


def ada(course, tmp_path, entries, **options):
    """What becomes of the files of one Canvas user, and of a classmate's beside them."""
    entries = [*entries, ("turingalan_124_9_non_local.ipynb", notebook("alan"))]
    outcomes = take(course, write_zip(tmp_path / "canvas.zip", entries), **options)
    assert outcomes.pop("turingalan_124").what in ("collected", "as before")
    assert stored(course, "turingalan_124") == notebook("alan")
    (outcome,) = outcomes.values()
    return outcome


# --- names


@pytest.mark.parametrize(
    ("name", "key", "person", "file", "late", "order"),
    [
        ("lovelaceada_12_345_nb.ipynb", "12", "lovelaceada", "nb.ipynb", False, 345),
        ("lovelaceada_LATE_12_345_nb-1.ipynb", "12", "lovelaceada", "nb-1.ipynb", True, 345),
        ("o_neill_12_345_a_1_2_b.ipynb", "12", "o_neill", "a_1_2_b.ipynb", False, 345),
        ("müllerzoë_7_8_nb.ipynb", "7", "müllerzoë", "nb.ipynb", False, 8),
        ("王小明_7_8_我的 nb.ipynb", "7", "王小明", "我的 nb.ipynb", False, 8),
        ("anon_x7Ab9_345_nb.ipynb", "anon_x7Ab9", "", "nb.ipynb", False, 345),
        ("LATE_anon_x7Ab9_345_nb.ipynb", "anon_x7Ab9", "", "nb.ipynb", True, 345),
        ("lovelaceada_12_text.html", "12", "lovelaceada", "text.html", False, None),
    ],
)
def test_names_of_canvas(name, key, person, file, late, order):
    found = read_canvas(name)
    assert (found.key, found.name, found.file) == (key, person, file)
    assert (found.late, found.order) == (late, order)
    assert found.typed == name.endswith("_text.html")


@pytest.mark.parametrize(
    ("name", "key", "person", "file"),
    [
        ("Ada Lovelace_77_assignsubmission_file_/nb.ipynb", "77", "Ada Lovelace", "nb.ipynb"),
        ("Ada Lovelace_77_assignsubmission_file/nb.ipynb", "77", "Ada Lovelace", "nb.ipynb"),
        ("Ada Lovelace_77_assignsubmission_file_nb.ipynb", "77", "Ada Lovelace", "nb.ipynb"),
        (
            "hw1/Ada Lovelace_77_assignsubmission_file_/d/nb.ipynb",
            "77",
            "Ada Lovelace",
            "d/nb.ipynb",
        ),
        ("Group A_assignsubmission_file_/nb.ipynb", "=Group A", "Group A", "nb.ipynb"),
        ("Żółw Ł_9_assignsubmission_onlinetext_/onlinetext.html", "9", "Żółw Ł", "onlinetext.html"),
    ],
)
def test_names_of_moodle(name, key, person, file):
    found = read_moodle(name)
    assert (found.key, found.name, found.file) == (key, person, file)
    assert found.typed == ("onlinetext" in name)


@pytest.mark.parametrize("name", ["non_local.ipynb", "ada/non_local.ipynb", "ada_12.ipynb", "_1_"])
def test_names_of_nobody(name):
    assert read_canvas(name) is None
    assert read_moodle(name) is None


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-03-01 10:00:00.000000 UTC", 10),
        ("2026-03-01 10:00:00", 10),
        ("2026-03-01-10-00-00", 10),
        ("2026-03-01_10-00-00", 10),
        ("20260301100000", 10),
        ("2026-03-01T10:00:00+02:00", 8),
        ("2026-03-01 10:00:00 Europe/Berlin", 9),
        ("yesterday", None),
        ("99999999999999", None),
    ],
)
def test_times(text, hour):
    found = read_time(text)
    assert found == (hour and datetime(2026, 3, 1, hour, tzinfo=timezone.utc))


# --- sources


def test_canvas(course, tmp_path, capsys):
    source = write_zip(
        tmp_path / "submissions.zip",
        [
            ("smithjohn_125_1_non_local.ipynb", notebook("one")),
            ("smithjohn_LATE_126_2_non_local-1.ipynb", notebook("two")),
            ("müllerzoë_127_3_my answers.ipynb", notebook("three")),
            ("lovelaceada_128_4_hw.zip", zip_bytes([("hw/non_local.ipynb", notebook("four"))])),
            ("broken_129_5_non_local.ipynb", '{"cells": ['),
        ],
    )
    outcomes = take(course, source)
    assert {o.what for o in outcomes.values()} == {"collected"}
    assert stored(course, "smithjohn_125") == notebook("one")
    assert stored(course, "smithjohn_126") == notebook("two")
    assert stored(course, "müllerzoë_127") == notebook("three")
    assert stored(course, "lovelaceada_128") == notebook("four")
    assert stored(course, "broken_129") == '{"cells": ['
    assert outcomes["smithjohn_125"].notes == []
    assert outcomes["smithjohn_126"].notes == ["late, says the LMS"]
    assert "was called my answers.ipynb" in outcomes["müllerzoë_127"].notes[0]
    assert "was in a zip" in outcomes["lovelaceada_128"].notes[0]
    assert outcomes["broken_129"].notes == ["cannot be read as a notebook"]
    assert all(STUDENT_ID.fullmatch(student) for student in outcomes)
    assert "Canvas, 5 of 5 files understood" in capsys.readouterr().out
    assert stat.S_IMODE(course.folder.stat().st_mode) == 0o700
    # Canvas writes the time of the download on its entries: no reason for a late penalty.
    assert not list(course.folder.rglob("timestamp.txt"))


def test_records(course, tmp_path):
    source = write_zip(tmp_path / "s.zip", [("ada_LATE_1_2_mine.ipynb", notebook("ada"))])
    take(course, source)
    record = json.loads((course.folder / "collected/01_non_local.json").read_text())["ada_1"]
    assert record["source"] == "s.zip"
    assert record["file"] == "ada_LATE_1_2_mine.ipynb"
    assert record["sha256"] == hashlib.sha256(notebook("ada").encode()).hexdigest()
    assert record["late"] is True
    assert record["time"] is None
    assert len(record["notes"]) == 2
    people = json.loads((course.folder / "students.json").read_text())
    assert people == {"ada_1": {"name": "ada", "canvas": "1"}}


@pytest.mark.parametrize("form", ["folder_/", "folder/", "flat_"])
def test_moodle(course, tmp_path, form, capsys):
    mark = {"folder_/": "_assignsubmission_file_/", "folder/": "_assignsubmission_file/"}.get(
        form, "_assignsubmission_file_"
    )
    source = write_zip(
        tmp_path / "moodle.zip",
        [
            (f"Ada Lovelace_501{mark}non_local.ipynb", notebook("ada")),
            (f"José Ñandú_502{mark}non_local.ipynb", notebook("jose")),
            ("Grace Hopper_503_assignsubmission_onlinetext_/onlinetext.html", "my answer"),
        ],
    )
    outcomes = take(course, source)
    assert stored(course, "ada_lovelace") == notebook("ada")
    assert stored(course, "josé_ñandú") == notebook("jose")
    assert outcomes["grace_hopper"].what == "refused"
    assert "typed into the LMS" in outcomes["grace_hopper"].reason
    assert "Moodle, 3 of 3" in capsys.readouterr().out
    people = json.loads((course.folder / "students.json").read_text())
    assert people["ada_lovelace"] == {"name": "Ada Lovelace", "moodle": {"01_non_local": "501"}}


def test_moodle_numbers_belong_to_one_assignment(course, tmp_path):
    for chapter, number in ((CHAPTER, 501), (OTHER, 907)):
        name = f"Ada Lovelace_{number}_assignsubmission_file_/{chapter.name}.ipynb"
        source = write_zip(tmp_path / "moodle.zip", [(name, notebook("ada", chapter))])
        assert set(take(course, source, chapter=chapter)) == {"ada_lovelace"}
    people = json.loads((course.folder / "students.json").read_text())
    assert people["ada_lovelace"]["moodle"] == {"01_non_local": "501", "02_attention_maps": "907"}


def namesakes(tmp_path, numbers, chapter, called="Ada Lovelace"):
    return write_zip(
        tmp_path / f"{chapter.number}.zip",
        [
            (f"{called}_{n}_assignsubmission_file_/{chapter.name}.ipynb", notebook(str(n), chapter))
            for n in numbers
        ],
    )


def test_two_students_of_one_name_stay_two(course, tmp_path):
    source = namesakes(tmp_path, (501, 502), CHAPTER)
    for what in ("collected", "as before"):
        outcomes = take(course, source)
        assert set(outcomes) == {"ada_lovelace-501", "ada_lovelace-502"}
        assert {o.what for o in outcomes.values()} == {what}
    assert stored(course, "ada_lovelace-501") == notebook("501")
    # In the next chapter their numbers are others: nobody can tell, and nobody guesses.
    outcomes = take(course, namesakes(tmp_path, (901, 902), OTHER), chapter=OTHER)
    assert {o.what for o in outcomes.values()} == {"refused"}
    assert "ada_lovelace-501, ada_lovelace-502" in outcomes["Ada Lovelace_901"].reason
    # What the reason says to do.
    folder = tmp_path / "unzipped"
    for student, number in (("ada_lovelace-501", 902), ("ada_lovelace-502", 901)):
        place = folder / f"{student}_{number}_assignsubmission_file_"
        place.mkdir(parents=True)
        (place / "attention_maps.ipynb").write_text(notebook(str(number), OTHER))
    outcomes = take(course, folder, chapter=OTHER)
    assert {o.what for o in outcomes.values()} == {"collected"}
    assert stored(course, "ada_lovelace-501", OTHER) == notebook("902", OTHER)


def test_a_namesake_who_comes_later_is_somebody_else(course, tmp_path):
    take(course, namesakes(tmp_path, (501,), CHAPTER))
    outcomes = take(course, namesakes(tmp_path, (501, 502), CHAPTER))
    assert outcomes["ada_lovelace"].what == "as before"
    assert outcomes["ada_lovelace-502"].what == "collected"
    # Alone, with a number that is not hers, it may be a second assignment: nobody guesses.
    outcomes = take(course, namesakes(tmp_path, (777,), CHAPTER))
    assert outcomes["Ada Lovelace_777"].what == "refused"


def test_canvas_knows_a_student_who_changed_her_name(course, tmp_path):
    for name in ("miller", "smith"):
        source = write_zip(tmp_path / "s.zip", [(f"{name}_5_6_non_local.ipynb", notebook("m"))])
        assert set(take(course, source)) == {"miller_5"}


def test_exchange(course, tmp_path):
    inbound = tmp_path / "inbound"

    def hand_in(name, text, chapter=CHAPTER):
        (inbound / name).mkdir(parents=True)
        (inbound / name / f"{chapter.name}.ipynb").write_text(notebook(text, chapter))
        (inbound / name / "timestamp.txt").write_text("not read")

    hand_in("ada+01_non_local+2026-03-01 10:00:00.000000 UTC", "old")
    hand_in("ada+01_non_local+2026-03-02 09:30:00.123456 UTC+aB-_9=", "new")
    hand_in("ada+02_attention_maps+2026-03-03 09:30:00.000000 UTC", "other", OTHER)
    hand_in("alan+01_non_local+2026-03-01 12:00:00 CET", "alan")
    outcomes = take(course, inbound)
    assert set(outcomes) == {"ada", "alan"}
    assert stored(course, "ada") == notebook("new")
    assert "the last of 2 submissions" in outcomes["ada"].notes
    times = {
        student: (course.submission(student, CHAPTER) / "timestamp.txt").read_text()
        for student in outcomes
    }
    assert times["ada"] == "2026-03-02 09:30:00.123456 UTC"
    from nbgrader.utils import parse_utc

    assert parse_utc(times["ada"]) == datetime(2026, 3, 2, 9, 30, 0, 123456)
    assert parse_utc(times["alan"]) == datetime(2026, 3, 1, 11)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_exchange_in_a_false_name(course, tmp_path):
    folder = tmp_path / "inbound" / "ada+01_non_local+2026-03-01 10:00:00 UTC"
    folder.mkdir(parents=True)
    (folder / "non_local.ipynb").write_text(notebook("by another"))
    os.chown(folder / "non_local.ipynb", 65534, 65534)
    outcome = take(course, tmp_path / "inbound")["ada"]
    assert outcome.what == "refused"
    assert "somebody else may have handed it in" in outcome.reason
    assert not course.students()


def test_pattern(course, tmp_path):
    source = write_zip(
        tmp_path / "own.zip",
        [
            ("ps1_ada_attempt_2026-01-30-15-00-00_x.ipynb", notebook("old")),
            ("ps1_ada_attempt_2026-01-31-15-00-00_x.ipynb", notebook("new")),
            ("ps1_alan_attempt_soon_x.ipynb", notebook("alan")),
            ("ps1_-rf_attempt_2026-01-31-15-00-00_x.ipynb", notebook("odd")),
            ("readme.txt", "no student"),
        ],
    )
    pattern = r"ps1_(?P<student>[^_]+)_attempt_(?P<timestamp>[\w-]+)_"
    outcomes = take(course, source, pattern=pattern)
    assert stored(course, "ada") == notebook("new")
    stamp = course.submission("ada", CHAPTER) / "timestamp.txt"
    assert stamp.read_text() == "2026-01-31 15:00:00.000000 UTC"
    assert any("'soon' is no date" in note for note in outcomes["alan"].notes)
    assert not (course.submission("alan", CHAPTER) / "timestamp.txt").exists()
    assert "none that nbgrader can take" in outcomes["-rf"].reason
    assert "does not say whose it is" in outcomes["readme.txt"].reason


def test_folder_and_single_files(course, tmp_path):
    folder = tmp_path / "unzipped"
    folder.mkdir()
    (folder / "ada_1_2_non_local.ipynb").write_text(notebook("ada"))
    (tmp_path / "alan_3_4_non_local.ipynb").write_text(notebook("alan"))
    outcomes = take(course, folder, tmp_path / "alan_3_4_non_local.ipynb")
    assert set(outcomes) == {"ada_1", "alan_3"}


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("(?P<name>.*)", "needs (?P<student>"), ("(?P<student>", "no regular expression")],
)
def test_bad_patterns(course, tmp_path, pattern, said):
    source = write_zip(tmp_path / "s.zip", [("a.ipynb", "x")])
    with pytest.raises(CourseError, match=said.replace("(?P", r"\(\?P")):
        collect(course, CHAPTER, [source], pattern=pattern)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"PK\x03\x04 cut off", "not a zip that can be opened"),
        (zip_bytes([]), "there is no file in it"),
        (zip_bytes([("homework.ipynb", "x")]), "none of Canvas, Moodle"),
    ],
)
def test_bad_sources(course, tmp_path, content, said):
    path = tmp_path / "s.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CourseError, match=said):
        collect(course, CHAPTER, [path])
    assert not course.students()


def test_a_class_in_the_repository_is_refused(tmp_path):
    source = write_zip(tmp_path / "s.zip", [("ada_1_2_non_local.ipynb", notebook())])
    with pytest.raises(CourseError, match="lies in the repository"):
        collect(Course(ROOT), CHAPTER, [source])


# --- which notebook


def test_the_chapters_cells_count_more_than_the_name(course, tmp_path):
    entries = [
        ("ada_1_5_non_local.ipynb", notebook("two", OTHER)),
        ("ada_1_4_homework.ipynb", notebook("one")),
    ]
    outcome = ada(course, tmp_path, entries)
    assert stored(course, "ada_1") == notebook("one")
    assert "left: ada_1_5_non_local.ipynb" in outcome.notes[0]


def test_the_name_counts_more_than_the_upload(course, tmp_path):
    entries = [
        ("ada_1_4_non_local.ipynb", notebook("one")),
        ("ada_1_5_scratch.ipynb", notebook("two")),
    ]
    ada(course, tmp_path, entries)
    assert stored(course, "ada_1") == notebook("one")


def test_the_last_upload_counts(course, tmp_path):
    entries = [
        ("ada_1_99_non_local-1.ipynb", notebook("first")),
        ("ada_1_100_non_local.ipynb", notebook("last")),
    ]
    ada(course, tmp_path, entries)
    assert stored(course, "ada_1") == notebook("last")


def test_equal_notebooks_are_one(course, tmp_path):
    inner = zip_bytes([("a/non_local.ipynb", notebook("x")), ("b/non_local.ipynb", notebook("x"))])
    outcome = ada(course, tmp_path, [("ada_1_4_hw.zip", inner)])
    assert outcome.what == "collected"


@pytest.mark.parametrize(
    "names", [("a/non_local.ipynb", "b/non_local.ipynb"), ("final.ipynb", "final2.ipynb")]
)
def test_nobody_guesses(course, tmp_path, names):
    inner = zip_bytes([(name, notebook(name)) for name in names])
    outcome = ada(course, tmp_path, [("ada_1_4_hw.zip", inner)])
    assert outcome.what == "refused"
    assert "nothing tells which one counts" in outcome.reason
    assert all(name in outcome.reason for name in names)


def test_two_entries_of_one_name(course, tmp_path):
    entries = [("ada_1_4_non_local.ipynb", notebook(text)) for text in ("one", "two")]
    with pytest.warns(UserWarning, match="Duplicate name"):
        outcome = ada(course, tmp_path, entries)
    assert "nothing tells which one counts" in outcome.reason


def test_another_chapter(course, tmp_path):
    outcome = ada(course, tmp_path, [("ada_1_4_non_local.ipynb", notebook("x", OTHER))])
    assert "of another chapter: ada_1_4_non_local.ipynb (chapter 02)" in outcome.reason


@pytest.mark.parametrize(
    "content",
    [
        '{"cells": [',
        "[" * 100_000,
        '{"cells": [{"metadata": 1}]}',
        "\xff\xfe",
        "",
        '{"worksheets": []}',
    ],
)
def test_broken_notebooks_are_collected(course, tmp_path, content):
    outcome = ada(course, tmp_path, [("ada_1_4_non_local.ipynb", content)])
    assert outcome.what == "collected"
    assert "cannot be read as a notebook" in outcome.notes
    assert stored(course, "ada_1") == content


def test_metadata_may_be_gone(course, tmp_path):
    bare = json.loads(notebook())
    for cell in bare["cells"]:
        cell["metadata"] = {}
    outcome = ada(course, tmp_path, [("ada_1_4_non_local.ipynb", json.dumps(bare))])
    assert outcome.notes == ["no graded cell of the course is marked in it"]


def test_endings_that_browsers_add(course, tmp_path):
    outcome = ada(course, tmp_path, [("ada_1_4_non_local.ipynb.txt", notebook("x"))])
    assert stored(course, "ada_1") == notebook("x")
    assert outcome.notes == []


# --- hostile


def special(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


HOSTILE = {
    "link": ([(special("ada_1_4_non_local.ipynb", stat.S_IFLNK | 0o777), "/etc/passwd")], "link"),
    "device": ([(special("ada_1_4_non_local.ipynb", stat.S_IFBLK), "")], "no ordinary file"),
    "pipe": ([(special("ada_1_4_non_local.ipynb", stat.S_IFIFO), "")], "no ordinary file"),
    "upwards": ([("../../x/ada_1_4_non_local.ipynb", notebook())], "leads out of the zip"),
    "absolute": ([("/tmp/ada_1_4_non_local.ipynb", notebook())], "absolute path"),
    "drive": ([("C:/x/ada_1_4_non_local.ipynb", notebook())], "absolute path"),
    "backslash": ([("x/ada_1_4_..\\..\\non_local.ipynb", notebook())], "backslash"),
    "bomb": ([("ada_1_4_non_local.ipynb", bytes(20 * 2**20))], "more than 200 times"),
    "nested bomb": (
        [("ada_1_4_hw.zip", zip_bytes([("non_local.ipynb", bytes(20 * 2**20))]))],
        "more than 200 times",
    ),
    "no notebook": ([("ada_1_4_report.pdf", "x")], "no notebook, only ada_1_4_report.pdf"),
    "link typed": ([("ada_1_link.html", "x")], "typed into the LMS"),
    "rar": ([("ada_1_4_hw.rar", "Rar!")], "no notebook, only ada_1_4_hw.rar"),
    "no zip": ([("ada_1_4_hw.zip", "not a zip")], "not a zip that can be opened"),
    "empty zip": ([("ada_1_4_hw.zip", zip_bytes([]))], "no notebook"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(course, tmp_path, case):
    entries, said = HOSTILE[case]
    outcome = ada(course, tmp_path, entries)
    assert outcome.what == "refused"
    assert said in outcome.reason
    assert course.students() == ["turingalan_124"]
    assert {path.name for path in tmp_path.iterdir()} == {"class", "canvas.zip"}


def test_a_good_notebook_beside_a_hostile_one(course, tmp_path):
    entries = [
        *HOSTILE["link"][0],
        ("ada_1_5_non_local-1.ipynb", notebook("good")),
        ("ada_1_6_photo.jpg", "x"),
    ]
    outcome = ada(course, tmp_path, entries)
    assert stored(course, "ada_1") == notebook("good")
    assert outcome.notes == ["not taken: ada_1_4_non_local.ipynb: it is a symbolic link"]


def test_zips_in_zips(course, tmp_path):
    inner = notebook("deep")
    for depth, what in ((1, "collected"), (2, "as before"), (3, "refused")):
        packed = inner
        for _ in range(depth):
            packed = zip_bytes([("non_local.ipynb" if packed == inner else "x.zip", packed)])
        outcome = ada(course, tmp_path, [("ada_1_4_hw.zip", packed)])
        assert outcome.what == what
    assert "too many zips in zips" in outcome.reason


def test_headers_that_lie(course, tmp_path):
    """The header promises 100 bytes; 20 MiB would come."""
    path = tmp_path / "canvas.zip"
    write_zip(path, [("ada_1_4_non_local.ipynb", bytes(20 * 2**20))])
    content = path.read_bytes()
    real, small = (20 * 2**20).to_bytes(4, "little"), (100).to_bytes(4, "little")
    assert content.count(real) == 2
    path.write_bytes(content.replace(real, small))
    outcome = take(course, path)["ada_1"]
    assert outcome.what == "refused"
    assert not course.students()


def test_encrypted(course, tmp_path):
    path = write_zip(tmp_path / "canvas.zip", [("ada_1_4_non_local.ipynb", notebook())])
    content = bytearray(path.read_bytes())
    content[6] |= 1  # in the file's header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the list
    path.write_bytes(content)
    assert "encrypted" in take(course, path)["ada_1"].reason


def test_damaged_content(course, tmp_path):
    path = tmp_path / "canvas.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("ada_1_4_non_local.ipynb", notebook("x"))
        archive.writestr("alan_2_4_non_local.ipynb", notebook("y"))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"nbformat", b"mbformat", 1))
    outcomes = take(course, path)
    assert "cannot be unpacked" in outcomes["ada_1"].reason
    assert outcomes["alan_2"].what == "collected"


def test_unusual_packing(course, tmp_path):
    path = tmp_path / "canvas.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("ada_1_4_non_local.ipynb", notebook())
    assert "unusual way" in take(course, path)["ada_1"].reason


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(file=10_000), "clear its outputs"),
        (Limits(student=10_000), "from one student"),
        (Limits(entries=2), "a zip of more than 2 entries"),
    ],
)
def test_limits(course, tmp_path, limits, said):
    inner = zip_bytes([(f"{n}.ipynb", notebook(str(n))) for n in range(3)])
    path = write_zip(tmp_path / "s.zip", [("ada_1_4_hw.zip", inner)])
    assert said in take(course, path, limits=limits)["ada_1"].reason


def test_too_many_notebooks_of_one_student(course, tmp_path):
    inner = zip_bytes([(f"{n}.ipynb", "x") for n in range(300)])
    path = write_zip(tmp_path / "s.zip", [("ada_1_4_hw.zip", inner)])
    outcome = take(course, path)["ada_1"]
    assert outcome.what == "refused"


def test_a_source_of_too_many_entries(course, tmp_path):
    names = [(f"s_{n}_1_non_local.ipynb", "x") for n in range(5)]
    path = write_zip(tmp_path / "s.zip", names)
    with pytest.raises(CourseError, match="more than 3 entries"):
        collect(course, CHAPTER, [path], limits=Limits(entries=3))


def test_links_and_pipes_in_folders(course, tmp_path):
    folder = tmp_path / "unzipped"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text(notebook("secret"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "eve_9_4_non_local.ipynb").write_text(notebook("eve"))
    (folder / "ada_1_4_non_local.ipynb").symlink_to(tmp_path / "secret")
    (folder / "away").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / "alan_2_4_non_local.ipynb")
    (folder / "sub" / "good_3_4_non_local.ipynb").write_text(notebook("good"))
    outcomes = take(course, folder)
    assert "symbolic link" in outcomes["ada_1"].reason
    assert "no ordinary file" in outcomes["alan_2"].reason
    assert "symbolic link" in outcomes["away"].reason
    assert course.students() == ["good_3"]


def test_junk_is_left_out(course, tmp_path):
    junk = ["__MACOSX/._ada_1_4_non_local.ipynb", ".DS_Store", "d/Thumbs.db", "._x"]
    source = write_zip(
        tmp_path / "s.zip", [*((n, "x") for n in junk), ("ada_1_4_non_local.ipynb", notebook())]
    )
    assert set(take(course, source)) == {"ada_1"}
    inner = zip_bytes(
        [
            ("hw/.ipynb_checkpoints/non_local.ipynb", notebook("old")),
            ("__MACOSX/hw/._non_local.ipynb", "x"),
            ("hw/non_local.ipynb", notebook("new")),
        ]
    )
    assert ada(course, tmp_path, [("zoe_2_4_hw.zip", inner)]).what == "collected"
    assert stored(course, "zoe_2") == notebook("new")


def test_names_in_decomposed_unicode(course, tmp_path):
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "müllerzoë_7_8_non_local.ipynb")
        source = write_zip(tmp_path / "s.zip", [(name, notebook())])
        assert set(take(course, source)) == {unicodedata.normalize("NFC", "müllerzoë_7")}


def test_utf8_names_that_do_not_say_so(course, tmp_path):
    path = write_zip(tmp_path / "s.zip", [("müller_7_8_non_local.ipynb", notebook())])
    content = bytearray(path.read_bytes())
    content[7] &= ~8  # as macOS and old Moodles write them
    content[content.index(b"PK\x01\x02") + 9] &= ~8
    path.write_bytes(content)
    assert set(take(course, path)) == {"müller_7"}


def test_very_long_names(course, tmp_path):
    name = "ö" * 400
    source = write_zip(tmp_path / "s.zip", [(f"{name}_7_8_{'x' * 300}.ipynb", notebook())])
    (student,) = take(course, source)
    assert student == f"{'ö' * 30}_7"
    source = write_zip(tmp_path / "s.zip", [(f"{'x' * 300}/nb.ipynb", notebook())])
    outcome = take(course, source, pattern="(?P<student>[^/]+)/")["x" * 300]
    assert "none that nbgrader can take" in outcome.reason


def test_ids_that_differ_in_case_alone(course, tmp_path):
    pattern = "(?P<student>[^/]+)/"
    source = write_zip(tmp_path / "s.zip", [("Ada/nb.ipynb", notebook("one"))])
    take(course, source, pattern=pattern)
    entries = [(f"{n}/nb.ipynb", notebook("two")) for n in ("ada", "Bob", "BOB", "carl")]
    outcomes = take(course, write_zip(tmp_path / "s.zip", entries), pattern=pattern)
    assert course.students() == ["Ada", "carl"]
    for student in ("ada", "Bob", "BOB"):
        assert "large and small letters" in outcomes[student].reason


def test_names_cannot_write_to_the_terminal(course, tmp_path, capsys):
    source = write_zip(
        tmp_path / "s.zip", [("x\x1b[2J\n.ipynb", "x"), ("ada_1_2_\x1b]0;y.pdf", "x")]
    )
    main(["collect", "01", "--course", str(course.folder), str(source)])
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "x?[2J?.ipynb" in printed.out


# --- what is there already


def canvas(tmp_path, text, extra=()):
    entries = [("ada_1_2_non_local.ipynb", notebook(text)), *extra]
    return write_zip(tmp_path / "canvas.zip", entries)


def test_nothing_is_overwritten(course, tmp_path):
    take(course, canvas(tmp_path, "one"))
    assert take(course, canvas(tmp_path, "one"))["ada_1"].what == "as before"
    outcome = take(course, canvas(tmp_path, "two"))["ada_1"]
    assert outcome.what == "refused"
    assert "--replace" in outcome.reason
    assert stored(course, "ada_1") == notebook("one")
    assert take(course, canvas(tmp_path, "two"), replace=True)["ada_1"].what == "replaced"
    assert stored(course, "ada_1") == notebook("two")
    (old,) = (course.folder / "replaced/ada_1/01_non_local").iterdir()
    assert (old / "non_local.ipynb").read_text() == notebook("one")
    records = json.loads((course.folder / "collected/01_non_local.json").read_text())
    assert records["ada_1"]["sha256"] == hashlib.sha256(notebook("two").encode()).hexdigest()


def test_what_is_older_does_not_replace(course, tmp_path):
    pattern = "(?P<student>[a-z]+)-(?P<timestamp>[0-9]+)"
    for stamp, what in (
        ("20260302", "collected"),
        ("20260301", "refused"),
        ("20260303", "replaced"),
    ):
        name = f"ada-{stamp}120000.ipynb"
        source = write_zip(tmp_path / "s.zip", [(name, notebook(stamp))])
        assert take(course, source, pattern=pattern, replace=True)["ada"].what == what
    assert stored(course, "ada") == notebook("20260303")


def test_what_was_put_there_by_hand_is_kept(course, tmp_path):
    place = course.submission("ada_1", CHAPTER)
    place.mkdir(parents=True)
    (place / "by hand.ipynb").write_text("x")
    assert take(course, canvas(tmp_path, "one"))["ada_1"].what == "refused"
    assert take(course, canvas(tmp_path, "one"), replace=True)["ada_1"].what == "replaced"
    assert len(list((course.folder / "replaced").rglob("by hand.ipynb"))) == 1


@pytest.mark.parametrize("level", [0, 1, 2])
def test_links_in_the_folder_of_the_class(course, tmp_path, level):
    outside = tmp_path / "outside"
    outside.mkdir()
    place = [
        *course.submission("ada_1", CHAPTER).parents[1::-1],
        course.submission("ada_1", CHAPTER),
    ]
    place[level].parent.mkdir(parents=True, exist_ok=True)
    place[level].symlink_to(outside)
    for replace in (False, True):
        outcome = take(course, canvas(tmp_path, "one"), replace=replace)["ada_1"]
        assert "is a link or a file" in outcome.reason
    assert not list(outside.iterdir())


def test_one_command_at_a_time(course, tmp_path):
    with course.alone(), pytest.raises(CourseError, match="another gclib command"):
        collect(course, CHAPTER, [canvas(tmp_path, "one")])


def test_damaged_lists_are_not_overwritten(course, tmp_path):
    (course.folder / "students.json").write_text("{")
    with pytest.raises(CourseError, match=r"students\.json is damaged"):
        collect(course, CHAPTER, [canvas(tmp_path, "one")])
    assert (course.folder / "students.json").read_text() == "{"


def test_leftovers_of_a_stopped_command_go(course, tmp_path):
    (course.folder / ".collect-x" / "submission").mkdir(parents=True)
    take(course, canvas(tmp_path, "one"))


def test_command(course, tmp_path, capsys):
    source = canvas(tmp_path, "one", [("pdf_3_4_x.pdf", "x")])
    assert main(["collect", "1", "--course", str(course.folder), str(source)]) == 1
    printed = capsys.readouterr().out
    assert "chapter 01: 1 collected, 0 as before, 0 replaced, 1 refused" in printed
    assert main(["collect", "1", "--course", str(course.folder), str(canvas(tmp_path, "one"))]) == 0
    assert main(["collect", "77", "--course", str(course.folder), str(source)]) == 2
    assert "there is no chapter" in capsys.readouterr().err


def gclib(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "gclib.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_full_disk(course, tmp_path):
    """A limit on the size of files stands in for the disk: both fail in write()."""
    small = '{"cells": []}'
    source = write_zip(
        tmp_path / "s.zip",
        [("a_1_1_non_local.ipynb", small), ("b_2_1_non_local.ipynb", small + " " * 50_000)],
    )
    process = gclib(
        *("collect", "01", "--course", course.folder, source),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    _, said = process.communicate()
    assert process.returncode == 2
    assert said.startswith("gclib: ")
    assert stored(course, "a_1") == small
    assert not (course.folder / "submitted" / "b_2").exists()
    outcomes = take(course, source)
    assert [outcomes[student].what for student in ("a_1", "b_2")] == ["as before", "collected"]


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_at_any_moment(course, tmp_path, number):
    texts = {f"s{n}_{n}": f'{{"cells": []}}{" " * n}' for n in range(1, 1201)}
    entries = [(f"s{n}_{n}_1_non_local.ipynb", texts[f"s{n}_{n}"]) for n in range(1, 1201)]
    source = write_zip(tmp_path / "s.zip", entries)
    process = gclib("collect", "01", "--course", course.folder, source)
    while process.poll() is None and len(course.students()) < 20:
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate()
    assert process.returncode
    some = course.students()
    assert all(stored(course, student) == texts[student] for student in some)
    outcomes = take(course, source)
    assert {student for student, o in outcomes.items() if o.what == "as before"} == set(some)
    assert all(stored(course, student) == text for student, text in texts.items())
    records = json.loads((course.folder / "collected/01_non_local.json").read_text())
    assert set(records) == set(texts)
