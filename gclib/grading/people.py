"""Who handed in: what file names of Canvas, Moodle and nbgrader's exchange say about it.

``DIR/students.json`` keeps, for each id that gclib gave, what the LMS calls the student, so that
the next chapter and ``gclib export`` find the same person.

- Canvas names a file ``lovelaceada_LATE_123_4567_non_local-1.ipynb``: name, late or not, number of
  the user (the same in all assignments), number of the upload (a later one is higher), file name
  with ``-1`` where the same name was uploaded before.
- Moodle puts files into ``Ada Lovelace_123_assignsubmission_file_/``, or writes that before the
  name of the file. The number is the one of "Participant 123" in the grading worksheet: it belongs
  to this assignment alone, so that across chapters only the name tells who it is.
- nbgrader's exchange has folders ``ada+01_non_local+2026-03-01 10:00:00.000000 UTC``.

Dates of the entries in zips of Canvas and Moodle are those of the download. They are not used.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from gclib.chapters import Chapter
from gclib.grading.classroom import STUDENT_ID, Course, CourseError
from gclib.grading.unpack import Refused

_CANVAS = re.compile(
    r"(?:(?P<late>LATE)_)?(?P<anonymous>anon_[A-Za-z0-9]+)_(?P<upload>\d+)_(?P<file>.+)"
    r"|(?P<name>\w+?)(?:_(?P<late2>LATE))?_(?P<user>\d+)"
    r"_(?:(?P<upload2>\d+)_(?P<file2>.+)|(?P<typed>(?:text|link)\.html))"
)
_MOODLE = re.compile(
    r"(?:^|/)(?P<name>[^/]+?)(?:_(?P<number>\d+))?_assignsubmission_(?P<kind>[a-z]+)"
    r"(?:_?/|_)(?P<file>.+)"
)
_EXCHANGE = re.compile(
    r"(?P<user>.+)\+(?P<assignment>[^+/]+)\+(?P<time>\d{4}-\d\d-\d\d[^+/]*)"
    r"(?:\+[\w=-]+)?/(?P<file>.+)"
)


@dataclass(frozen=True)
class Arrival:
    """What a file's name says.

    Attributes:
        origin: ``"canvas"``, ``"moodle"``, ``"exchange"`` or ``"pattern"``.
        key: what tells students of this origin apart.
        name: of the student, "" where only the key is known.
        file: name of the file as the student called it.
        time: when it was handed in, where that is known.
        order: which of several uploads is later, where that is known.
        late: the LMS says so.
        typed: it is text or a link typed into the LMS, no file.
        problem: something about the name that the instructor should know.
    """

    origin: str
    key: str
    name: str
    file: str
    time: datetime | None = None
    order: int | None = None
    late: bool = False
    typed: bool = False
    problem: str = ""


Reader = Callable[[str], Arrival | None]


def read_canvas(name: str) -> Arrival | None:
    """What a name in a zip of Canvas says; None where it is of another form."""
    found = _CANVAS.fullmatch(name.rsplit("/", 1)[-1])
    if not found:
        return None
    if found["anonymous"]:
        return Arrival(
            "canvas",
            found["anonymous"],
            "",
            found["file"],
            order=int(found["upload"]),
            late=bool(found["late"]),
        )
    return Arrival(
        "canvas",
        found["user"],
        found["name"],
        found["file2"] or found["typed"],
        order=int(found["upload2"]) if found["upload2"] else None,
        late=bool(found["late2"]),
        typed=bool(found["typed"]),
    )


def read_moodle(name: str) -> Arrival | None:
    """What a name in a zip of Moodle says; None where it is of another form."""
    found = _MOODLE.search(name)
    if not found:
        return None
    person = " ".join(found["name"].split())
    key = found["number"] or f"={person}"
    return Arrival("moodle", key, person, found["file"], typed=found["kind"] == "onlinetext")


def exchange_reader(chapter: Chapter) -> Reader:
    """A reader of the names in nbgrader's inbound folder that belong to a chapter."""

    def read(name: str) -> Arrival | None:
        found = _EXCHANGE.fullmatch(name)
        if not found or found["assignment"] != chapter.folder:
            return None
        user, time = found["user"], read_time(found["time"])
        return Arrival("exchange", user, "", found["file"], time=time)

    return read


def is_of_exchange(name: str) -> bool:
    """Whether the name is of nbgrader's exchange, of any chapter."""
    return bool(_EXCHANGE.fullmatch(name))


def pattern_reader(pattern: str) -> Reader:
    """A reader of names by the instructor's own pattern.

    Raises:
        CourseError: it is no pattern, or does not say where the student's id is.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise CourseError(f"--pattern {pattern!r} is no regular expression: {error}") from None
    group = next((g for g in ("student", "student_id") if g in compiled.groupindex), None)
    if group is None:
        raise CourseError("--pattern needs (?P<student>...) where the student's id stands")

    def read(name: str) -> Arrival | None:
        found = compiled.search(name)
        if not found or not found[group]:
            return None
        text = found["timestamp"] if "timestamp" in compiled.groupindex else None
        time = read_time(text) if text else None
        problem = f"its time {text!r} is no date" if text and time is None else ""
        file = name.rsplit("/", 1)[-1]
        return Arrival("pattern", found[group], "", file, time=time, problem=problem)

    return read


def read_time(text: str) -> datetime | None:
    """A point in time, in UTC; as nbgrader, takes it for UTC where no time zone is named."""
    from dateutil import parser, tz

    text = text.strip()
    digits = re.fullmatch(r"(\d{4})\D?(\d\d)\D?(\d\d)\D?(\d\d)\D?(\d\d)\D?(\d\d)", text)
    parts = text.split(" ")
    zone = tz.gettz(parts[2]) if len(parts) == 3 else None  # as in "2026-03-01 10:00:00 CET"
    try:
        if digits:
            found = datetime(*map(int, digits.groups()))
        else:
            found = parser.parse(" ".join(parts[:2]) if zone else text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=zone or timezone.utc)
        return found.astimezone(timezone.utc)
    except (ValueError, OverflowError, TypeError):
        return None


def read_people(course: Course) -> dict[str, dict]:
    """What is known about the students: name and numbers in the LMS by id.

    Raises:
        CourseError: the file is damaged.
    """
    path = course.folder / "students.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise CourseError(f"{path} is damaged; mend it, or remove it and collect everything again")
    return found


def write_people(course: Course, people: dict[str, dict]) -> None:
    """Keep what is known about the students."""
    text = json.dumps(people, indent=1, ensure_ascii=False, sort_keys=True)
    course.replace_file(course.folder / "students.json", text + "\n")


def same_name(name: str) -> str:
    """A form of a name in which two spellings of it are equal."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def identify(
    people: dict[str, dict],
    chapter: Chapter,
    arrivals: Iterable[Arrival],
    taken: Iterable[str] = (),
) -> dict[tuple[str, str], str | Refused]:
    """The id of everybody who handed in; new students are added to ``people``.

    Args:
        people: what is known, see :func:`read_people`.
        chapter: the chapter.
        arrivals: one for each student or several.
        taken: ids that are in use besides.

    Returns:
        By origin and key: the id, or why there is none.
    """
    before = {*people, *taken}
    found: dict[tuple[str, str], str | Refused] = {}
    moodle: dict[str, str] = {}
    for arrival in arrivals:
        if arrival.origin == "moodle":
            moodle[arrival.key] = arrival.name
        elif arrival.origin == "canvas":
            found["canvas", arrival.key] = _of_canvas(people, arrival)
        else:
            found[arrival.origin, arrival.key] = _as_it_is(people, arrival.key)
    for key, student in _of_moodle(people, chapter, moodle).items():
        found["moodle", key] = student
    found = _without_collisions(before, found)
    for student in set(people) - before - {s for s in found.values() if isinstance(s, str)}:
        del people[student]
    return found


def _as_it_is(people: dict[str, dict], student: str) -> str | Refused:
    if not STUDENT_ID.fullmatch(student) or len(student.encode()) > 150:
        return Refused(
            "its id is none that nbgrader can take; ids hold letters, digits, spaces and _ - . @, "
            "at most 100"
        )
    people.setdefault(student, {"name": ""})
    return student


def _of_canvas(people: dict[str, dict], arrival: Arrival) -> str | Refused:
    if not arrival.name:  # anonymous: a new word in each assignment, nothing to remember
        return _as_it_is(people, arrival.key)
    for student, known in people.items():
        if known.get("canvas") == arrival.key:
            return student
    student = _as_it_is(people, f"{_short(arrival.name)}_{arrival.key}")
    if isinstance(student, str):
        people[student] = {"name": arrival.name, "canvas": arrival.key}
    return student


def _of_moodle(
    people: dict[str, dict], chapter: Chapter, arrivals: dict[str, str]
) -> dict[str, str | Refused]:
    found: dict[str, str | Refused] = {}
    numbers = {
        known["moodle"][chapter.folder]: student
        for student, known in people.items()
        if chapter.folder in known.get("moodle", {})
    }
    namesakes: dict[str, list[str]] = defaultdict(list)
    for key, name in arrivals.items():
        if key in numbers:
            found[key] = numbers[key]
        elif name in people:  # the instructor wrote the id in place of the name
            found[key] = name
        else:
            namesakes[same_name(name)].append(key)
    here = set(found.values())
    for name, keys in namesakes.items():
        known = [s for s, about in people.items() if same_name(about.get("name", "")) == name]
        left = [student for student in known if student not in here]
        if not left:
            for key in keys:
                alone = len(keys) == 1 and not known
                found[key] = _new_of_moodle(people, arrivals[key], key, alone)
        elif len(keys) == len(known) == 1 and chapter.folder not in people[left[0]]["moodle"]:
            found[keys[0]] = left[0]
        else:
            reason = Refused(
                "Moodle's names do not tell which student of this name it is; unzip, write the "
                f"student's id ({', '.join(sorted(left))}, or a new one) at the beginning of the "
                "folder's name in place of the name, and collect the folder"
            )
            found.update(dict.fromkeys(keys, reason))
    for key, student in found.items():
        if isinstance(student, str):
            known = people.setdefault(student, {"name": arrivals[key]})
            known.setdefault("moodle", {})[chapter.folder] = key
    return found


def _new_of_moodle(people: dict[str, dict], name: str, key: str, alone: bool) -> str | Refused:
    plain = _short(re.sub(r"\W+", "_", name.casefold())) or "student"
    taken = {known.casefold() for known in people}
    student = plain if alone and plain.casefold() not in taken else f"{plain}-{key.lstrip('=')}"
    student = _as_it_is(people, student)
    if isinstance(student, str):
        people[student] = {"name": name, "moodle": {}}
    return student


def _short(name: str) -> str:
    """At most 60 bytes, so that file names made of it stay short enough for every disk."""
    name = unicodedata.normalize("NFC", name).strip("_")
    return name.encode()[:60].decode(errors="ignore").strip("_")


def _without_collisions(
    before: set[str], found: dict[tuple[str, str], str | Refused]
) -> dict[tuple[str, str], str | Refused]:
    """Refuse new ids that some disks cannot tell from others."""
    spellings = defaultdict(set)
    new = {student for student in found.values() if isinstance(student, str)} - before
    for student in before | new:
        spellings[student.casefold()].add(student)
    for place, student in found.items():
        if student in new and len(spellings[student.casefold()]) > 1:
            others = ", ".join(sorted(spellings[student.casefold()] - {student}))
            found[place] = Refused(
                f"its id {student} differs from {others} in nothing but large and small letters, "
                "which some disks cannot tell apart; rename it in the folder or with --pattern"
            )
    return found


def known_words(student: str, people: dict[str, dict]) -> set[str]:
    """Everything by which a file may name a student: the id, and what the LMS says."""
    about = people.get(student, {})
    words = {student, about.get("name", ""), about.get("canvas", "")}
    words |= set(about.get("moodle", {}).values())
    return {word.lstrip("=") for word in words if word}
