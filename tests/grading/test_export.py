"""gclib export: tables as Canvas, Moodle and spreadsheets take them, out of real gradebooks."""

import csv
import json

import pytest
from gradebooks import give
from mutants.answers import ROOT

from gclib.chapters import find_chapter
from gclib.cli import main
from gclib.grading.classroom import Course, CourseError
from gclib.grading.export import export
from gclib.grading.tables import Table, harmless, number, read_table, write_table
from gclib.grading.verdicts import Judgement

ONE, TWO = find_chapter("01"), find_chapter("02")


@pytest.fixture
def course(graded_course):
    return graded_course


def know(course, **people):
    """What gclib collect keeps."""
    (course.folder / "students.json").write_text(json.dumps(people))


def hand_in(course, student, chapter=ONE):
    path = course.notebook(student, chapter)
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    return path


def rows_of(path):
    """The cells as a spreadsheet reads them."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def roster(tmp_path, rows, mark="", separator=","):
    path = tmp_path / "roster.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(mark)
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


# --- cells


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(A1)",
        " =1",
        "\t=1",
        "\r=1",
        "\n=1",
        "\tplain",
        "\rplain",
        "\u00a0=1",
        "\u200b=1",
        "\ufeff=1",
        "＝1+1",
        "＋1",
        "－1+1",
        "＠x",
        "﹦1",
        '=HYPERLINK("http://x","y")',
        "-1e5+cmd",
        "+49 30 12345",
    ],
)
def test_formulas_are_made_harmless(cell, tmp_path):
    assert harmless(cell) == f"'{cell}"
    path = tmp_path / "t.csv"
    assert write_table(path, Table([["a", cell]])) == [(0, 1)]
    assert rows_of(path) == [["a", f"'{cell}"]]


@pytest.mark.parametrize(
    "cell",
    ["", "-", "-5", "-5.25", "+5", "-1,5", "12", "50%", "Ada", "O'Neill", "a=b", "a@b.org", "x\ny"],
)
def test_other_cells_stay(cell, tmp_path):
    path = tmp_path / "t.csv"
    assert write_table(path, Table([[cell, "z"]])) == []
    assert rows_of(path) == [[cell, "z"]]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (7.5, "7.5"), (1 / 3, "0.33"), (100, "100"), (-0.001, "0")]
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_tables_come_back_as_they_were(tmp_path, separator, mark):
    rows = [["name", "a", "b"], ['Ada "Byron", Countess\nof Lovelace; x', "1", "é"]]
    table = read_table(roster(tmp_path, rows, mark, separator))
    assert (table.rows, table.separator, table.mark) == (rows, separator, bool(mark))
    write_table(tmp_path / "again.csv", table)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "roster.csv").read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("Ä".encode("latin-1"), "not in UTF-8"),
        (b"", "no CSV file"),
        (b"a\0b", "no CSV file"),
        (b'a,"b', "no CSV file"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, said):
    path = tmp_path / "roster.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CourseError, match=said):
        read_table(path)


# --- plain


def test_plain(course):
    know(course, ada={"name": 'Ada "Countess", Byron'}, eve={"name": "=cmd|' /C calc'!A0"})
    full = give(course, "ada", ONE, by_hand=2.0)
    half = give(course, "bob", ONE, share=0.5)
    late = give(course, "eve", ONE, by_hand=1.0, penalty=1.5)
    give(course, "eve", TWO, share=0.0, by_hand=0.0)
    hand_in(course, "zoe")
    said = export(course)
    path = course.folder / "exports" / "grades.csv"
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    header, *rows = rows_of(path)
    assert header[:6] == [
        "student",
        "name",
        "01_non_local",
        "01_non_local of",
        "01_non_local late penalty",
        "01_non_local by hand",
    ]
    assert [row[0] for row in rows] == ["ada", "bob", "eve", "zoe"]
    ada, bob, eve, zoe = rows
    assert ada[1:3] == ['Ada "Countess", Byron', number(full)]
    assert ada[4:7] == ["", "", ""]  # no penalty, nothing waits, chapter 02 not handed in: no 0
    assert bob[2] == number(half)
    assert bob[5] == "waits"
    assert eve[1] == "'=cmd|' /C calc'!A0"
    assert eve[2:5] == [number(late - 1.5), ada[3], "1.5"]
    assert eve[6] == "0"
    assert zoe[2] == ""
    text = "\n".join(said)
    assert "chapter 01: 3 graded" in text
    assert "waiting for points by hand, with what they have so far: bob" in text
    assert "zoe: handed in, not graded yet" in text
    assert "an apostrophe was put before cells that a spreadsheet would run: 'name' (1)" in text


def test_a_penalty_takes_no_more_than_there_is(course):
    give(course, "ada", ONE, share=0.1, by_hand=0.0, penalty=50)
    export(course)
    assert rows_of(course.folder / "exports" / "grades.csv")[1][2] == "0"


def test_who_could_not_be_graded(course):
    give(course, "ada", ONE)
    path = hand_in(course, "ada")
    Course.replace_file(
        course.verdicts("ada", ONE),
        Judgement(submission="x", release=1, gclib="1", problem="it is no notebook").text(),
    )
    assert any("ada: it is no notebook" in line for line in export(course))
    assert rows_of(course.folder / "exports" / "grades.csv")[1][2] == ""
    Course.replace_file(
        course.verdicts("ada", ONE), Judgement(submission="x", release=1, gclib="1").text()
    )
    assert any("another version was collected since" in line for line in export(course))
    assert path.is_file()


def test_chosen_chapters_and_file(course, tmp_path):
    give(course, "ada", ONE)
    give(course, "ada", TWO)
    export(course, chapters=[TWO], out=tmp_path / "two.csv")
    assert rows_of(tmp_path / "two.csv")[0][2] == "02_attention_maps"
    assert len(rows_of(tmp_path / "two.csv")[0]) == 6


def test_nothing_is_graded(course, tmp_path):
    with pytest.raises(CourseError, match="nothing was graded yet"):
        export(course)
    (tmp_path / "new").mkdir()
    with pytest.raises(CourseError, match="nothing was graded yet"):
        export(Course(tmp_path / "new"))
    assert not (tmp_path / "new" / "gradebook.db").exists()
    assert not (course.folder / "exports").exists()


def test_places_that_are_refused(course, tmp_path):
    give(course, "ada", ONE)
    path = roster(tmp_path, [["Student", "ID", "Section", "01_non_local (5)"], ["a", "1", "", ""]])
    for options, said in (
        ({"out": ROOT / "grades.csv"}, "lies in the repository"),
        ({"out": tmp_path / "none" / "x.csv"}, "name a file in a folder"),
        ({"target": "canvas", "roster": path, "out": path}, "is the --roster"),
        ({"roster": path}, "goes with --for canvas"),
        ({"column": "x"}, "give that, too"),
    ):
        with pytest.raises(CourseError, match=said):
            export(course, **options)


# --- Canvas

CANVAS = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]


def canvas_rows(title="01_non_local (98765)", possible="16"):
    """As Canvas's Gradebook exports them."""
    totals = ["Assignments Current Score", "Current Grade"]
    return [
        [*CANVAS, "Notes", "Quiz (4)", title, *totals],
        ["", "", "", "", "", "", "", "Manual Posting", "", ""],
        ["    Points Possible", "", "", "", "", "", "5", possible, "(read only)", "(read only)"],
        ["Lovelace, Ada", "123", "s1", "ada@uni.org", "A and B", "n", "4", "", "80", "B"],
        ["Turing, Alan", "124", "s2", "alan", "A", "", "3", "2.5", "", ""],
        ["Hopper, Grace", "125", "s3", "grace", "A", "", "", "EX", "", ""],
        ["Noether, Emmy", "126", "s4", "emmy", "A", "", "", "7", "", ""],
        ['="=Evil"', "127", "s5", "evil", "A", "", "", "", "", ""],
        ["Stranger, A", "128", "s6", "other", "A", "", "", "", "", ""],
        ["Student, Test", "129", "", "x", "A", "", "", "", "", ""],
    ]


@pytest.fixture
def canvas_class(course):
    know(
        course,
        lovelaceada_123={"name": "lovelaceada", "canvas": "123"},
        evil_127={"name": "evil", "canvas": "127"},
        em={"name": "Emmy Noether"},
        gone_7={"name": "gone", "canvas": "7"},
    )
    for student in ("lovelaceada_123", "alan", "grace", "evil_127", "gone_7"):
        give(course, student, ONE, by_hand=0.0, share=0.5 if student == "alan" else 1.0)
    hand_in(course, "em")
    return course


def test_canvas_without_roster(canvas_class):
    said = export(canvas_class, "canvas")
    path = canvas_class.folder / "exports" / "canvas.csv"
    assert not path.read_bytes().startswith(b"\xef\xbb\xbf")
    header, possible, *rows = rows_of(path)
    # What Canvas's importer looks for: "Student" and "ID" first, "Section" last, then assignments.
    assert header == [*CANVAS, "01_non_local"]
    assert possible[0] == "    Points Possible"
    assert float(possible[5]) > 0
    found = {row[0]: row for row in rows}
    assert found["lovelaceada"][1] == "123"
    assert found["alan"][1:4] == ["", "", "alan"]
    assert float(found["alan"][5]) == pytest.approx(float(found["lovelaceada"][5]) / 2, abs=0.01)
    assert found["Emmy Noether"][5] == ""
    assert said[-1] == f"wrote {path}"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_canvas_with_roster(canvas_class, tmp_path, mark):
    before = canvas_rows()
    path = roster(tmp_path, before, mark)
    text = "\n".join(export(canvas_class, "canvas", roster=path))
    place = canvas_class.folder / "exports" / "canvas.csv"
    assert place.read_bytes().startswith(b"\xef\xbb\xbf") == bool(mark)
    after = rows_of(place)
    points = {row[1]: row[7] for row in after[3:]}
    assert float(points["123"]) > float(points["124"]) > 2.5
    assert points["125"] == "EX"  # excused stays excused
    assert points["126"] == "7"  # nothing here: what Canvas has stays
    assert points["127"] == points["123"]
    assert points["128"] == points["129"] == ""
    for old, new in zip(before, after, strict=True):  # nothing else changed, but for the formula
        expected = [f"'{cell}" if cell.startswith("=") else cell for cell in old]
        assert new[:7] + new[8:] == expected[:7] + expected[8:]
    assert "goes into column '01_non_local (98765)'" in text
    assert "in the class, but not in the roster: gone_7" in text
    assert "in the roster, but nothing from them here: A Stranger" in text
    assert "Test" not in text
    assert "grace has EX there, which stays" in text
    assert f"alan had 2.5 there, now {points['124']}" in text
    assert path.read_bytes().startswith(mark.encode())


def test_canvas_points_possible(canvas_class, tmp_path):
    worth = rows_of_plain_max(canvas_class)
    for possible, warned in ((worth, False), ("100", True), ("", True)):
        path = roster(tmp_path, canvas_rows(possible=possible))
        text = "\n".join(export(canvas_class, "canvas", roster=path))
        assert ("points possible" in text) == warned


def rows_of_plain_max(course):
    export(course)
    return rows_of(course.folder / "exports" / "grades.csv")[1][3]


@pytest.mark.parametrize(
    "title",
    [
        "01 Non-local (5)",
        "The non-local block (5)",
        "Chapter 1 (5)",
        "chapter 01: x (5)",
        "non_local (5)",
    ],
)
def test_columns_of_canvas(canvas_class, tmp_path, title):
    path = roster(tmp_path, canvas_rows(title=title))
    export(canvas_class, "canvas", roster=path)
    assert rows_of(canvas_class.folder / "exports" / "canvas.csv")[3][7]


@pytest.mark.parametrize("title", ["Homework (5)", "01_non_local", "Chapter 11 (5)", "02 x (5)"])
def test_no_column_of_canvas(canvas_class, tmp_path, title):
    path = roster(tmp_path, canvas_rows(title=title))
    with pytest.raises(CourseError, match="no column for chapter 01"):
        export(canvas_class, "canvas", roster=path)
    export(canvas_class, "canvas", roster=path, column=title)
    assert rows_of(canvas_class.folder / "exports" / "canvas.csv")[3][7]


def test_two_columns_of_canvas(canvas_class, tmp_path):
    rows = [[*row, ""] for row in canvas_rows()]
    rows[0][-1] = "01_non_local again (6)"
    path = roster(tmp_path, rows)
    with pytest.raises(CourseError, match=r"'01_non_local \(98765\)', '01_non_local again \(6\)'"):
        export(canvas_class, "canvas", roster=path)
    export(canvas_class, "canvas", roster=path, column="01_non_local again")
    assert rows_of(canvas_class.folder / "exports" / "canvas.csv")[3][-1]


def test_a_chapter_that_canvas_does_not_have(canvas_class, tmp_path):
    give(canvas_class, "alan", TWO)
    path = roster(tmp_path, canvas_rows())
    text = "\n".join(export(canvas_class, "canvas", roster=path))
    assert "left out: the roster has no column for chapter 02" in text
    with pytest.raises(CourseError, match="no column for chapter 02"):
        export(canvas_class, "canvas", roster=path, chapters=[ONE, TWO])


def test_the_export_of_one_chapter_does_not_replace_that_of_another(canvas_class, tmp_path):
    path = roster(tmp_path, canvas_rows())
    export(canvas_class, "canvas", roster=path)
    export(canvas_class, "canvas", roster=path, chapters=[ONE])
    names = {file.name for file in (canvas_class.folder / "exports").iterdir()}
    assert names == {"canvas.csv", "canvas-01.csv"}


def test_first_and_last_names_apart(canvas_class, tmp_path):
    rows = [
        ["LastName", "FirstName", "ID", "SIS Login ID", "Section", "01_non_local (5)"],
        ["    Points Possible", "", "", "", "", "13"],
        ["Noether", "Emmy", "126", "e", "A", ""],
        ["Byron", "Ada", "123", "a", "A", ""],
    ]
    give(canvas_class, "em", ONE)
    export(canvas_class, "canvas", roster=roster(tmp_path, rows))
    found = rows_of(canvas_class.folder / "exports" / "canvas.csv")
    assert found[2][5]
    assert found[3][5]


def test_equal_names_are_not_guessed(course, tmp_path):
    know(course, a={"name": "John Smith"}, b={"name": "John Smith"}, c={"name": "Ada Byron"})
    for student in "abc":
        give(course, student, ONE)
    rows = [
        [*CANVAS, "01_non_local (5)"],
        ["Smith, John", "1", "", "", "", ""],
        ["Byron, Ada", "2", "", "", "", ""],
    ]
    text = "\n".join(export(course, "canvas", roster=roster(tmp_path, rows)))
    after = rows_of(course.folder / "exports" / "canvas.csv")
    assert after[1][5] == ""
    assert after[2][5]
    assert "in the class, but not in the roster: a, b" in text
    assert "nothing from them here: John Smith" in text


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["a", "b"], ["1", "2"]], "no export of Canvas's Gradebook"),
        ([[*CANVAS, "01_non_local (5)"], ["X, Y", "9", "", "", "", ""]], "is it the right one"),
    ],
)
def test_wrong_rosters_of_canvas(canvas_class, tmp_path, rows, said):
    with pytest.raises(CourseError, match=said):
        export(canvas_class, "canvas", roster=roster(tmp_path, rows))
    assert not (canvas_class.folder / "exports" / "canvas.csv").exists()


# --- Moodle

MOODLE = [
    "Identifier",
    "Full name",
    "Email address",
    "Status",
    "Grade",
    "Maximum Grade",
    "Grade can be changed",
    "Last modified (submission)",
    "Last modified (grade)",
    "Feedback comments",
]


def moodle_rows(most="100.00"):
    """As the worksheet of an assignment is downloaded."""
    submitted = "Submitted for grading - "
    tail = [most, "Yes", "Sunday, 1 March 2026, 10:00 AM", "-"]
    return [
        MOODLE,
        ["Participant 501", "Ada Lovelace", "ada@uni.org", submitted, "", *tail, "- good\nwork"],
        ["Participant 502", "Ada Lovelace", "ada2@uni.org", submitted, "1.00", *tail, ""],
        ["Participant 503", "Alan Turing", "alan", submitted, "", *tail, ""],
        ["Participant 504", "A Stranger", "s@uni.org", "No submission", "", *tail, ""],
    ]


@pytest.fixture
def moodle_class(course):
    def about(number, name="Ada Lovelace"):
        return {"name": name, "moodle": {"01_non_local": number, "02_attention_maps": "9" + number}}

    know(course, **{"ada-501": about("501"), "ada-502": about("502"), "eve": about("77", "=Eve")})
    give(course, "ada-501", ONE, by_hand=0.0)
    give(course, "ada-502", ONE, by_hand=0.0, share=0.5)
    give(course, "alan", ONE, by_hand=0.0, share=0.0)
    give(course, "eve", TWO)
    return course


def test_moodle_without_roster(moodle_class):
    said = export(moodle_class, "moodle", chapters=[ONE])
    header, *rows = rows_of(moodle_class.folder / "exports" / "moodle-01_non_local.csv")
    # The three columns without which Moodle's importer refuses a file.
    assert {"Identifier", "Grade", "Last modified (grade)"} <= set(header)
    assert [row[0] for row in rows] == ["Participant 501", "Participant 502", "Participant 77"]
    assert float(rows[0][3]) == pytest.approx(2 * float(rows[1][3]), abs=0.01)
    assert rows[2][1:4] == ["'=Eve", "", ""]
    assert any("number of them is not known (use --roster): alan" in line for line in said)
    text = "\n".join(export(moodle_class, "moodle"))  # a file for each chapter
    assert "moodle-01_non_local.csv" in text
    assert "moodle-02_attention_maps.csv" in text
    rows = rows_of(moodle_class.folder / "exports" / "moodle-02_attention_maps.csv")
    assert rows[3][0] == "Participant 977"


def test_moodle_with_roster(moodle_class, tmp_path):
    before = moodle_rows()
    text = "\n".join(
        export(moodle_class, "moodle", chapters=[ONE], roster=roster(tmp_path, before))
    )
    after = rows_of(moodle_class.folder / "exports" / "moodle-01_non_local.csv")
    grades = [row[4] for row in after]
    assert float(grades[1]) == pytest.approx(2 * float(grades[2]), abs=0.01)
    assert grades[3] == "0"  # handed in, and no check passed
    assert grades[4] == ""
    for old, new in zip(before, after, strict=True):
        expected = [f"'{cell}" if cell.startswith("- ") else cell for cell in old]
        assert new[:4] + new[5:] == expected[:4] + expected[5:]
    assert after[1][8] == "-"
    assert "'Feedback comments' (1)" in text
    assert "ada-502 had 1.00 there" in text
    assert "A Stranger" in text
    assert "Moodle's maximum grade is 100.00, the chapter is worth" in text
    assert "in the class, but not in the roster: eve" in text


def test_moodle_maximum(moodle_class, tmp_path):
    worth = rows_of_plain_max(moodle_class)
    path = roster(tmp_path, moodle_rows(f"{float(worth):.2f}"))
    text = "\n".join(export(moodle_class, "moodle", chapters=[ONE], roster=path))
    assert "maximum grade" not in text


def test_a_worksheet_in_another_language(moodle_class, tmp_path):
    rows = moodle_rows()
    rows[0] = ["ID", "Vollständiger Name", "E-Mail", "Status", "Bewertung", *rows[0][5:]]
    for row in rows[1:]:
        row[0] = row[0].replace("Participant ", "Teilnehmer/in")
    path = roster(tmp_path, rows)
    with pytest.raises(CourseError, match="name one with --column"):
        export(moodle_class, "moodle", chapters=[ONE], roster=path)
    export(moodle_class, "moodle", chapters=[ONE], roster=path, column="Bewertung")
    assert rows_of(moodle_class.folder / "exports" / "moodle-01_non_local.csv")[1][4]


def test_refusals_of_moodle(moodle_class, tmp_path):
    path = roster(tmp_path, moodle_rows())
    with pytest.raises(CourseError, match="name one --chapter"):
        export(moodle_class, "moodle", roster=path)
    wrong = roster(tmp_path, canvas_rows())
    with pytest.raises(CourseError, match="no grading worksheet"):
        export(moodle_class, "moodle", chapters=[ONE], roster=wrong)
    know(moodle_class)
    with pytest.raises(CourseError, match="nobody was collected from Moodle"):
        export(moodle_class, "moodle", chapters=[ONE])


def test_command(moodle_class, tmp_path, capsys):
    arguments = ["export", "--course", str(moodle_class.folder)]
    assert main([*arguments, "--chapter", "1", "--out", str(tmp_path / "x.csv")]) == 0
    assert "wrote" in capsys.readouterr().out
    assert (tmp_path / "x.csv").stat().st_mode & 0o777 == 0o600
    assert main([*arguments, "--chapter", "5"]) == 0
    assert main([*arguments, "--chapter", "99"]) == 2
