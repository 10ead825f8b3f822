"""``gclib collect NN --course DIR SOURCE...``: put what was handed in where grading finds it.

A source is the zip of an LMS, a folder of its files, single files, or the inbound folder of
nbgrader's exchange. Every student's notebook appears at ``DIR/submitted/STUDENT/NN_topic/`` whole
or not at all, nothing that is there is lost, and whoever cannot be taken is named with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pwd
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from gclib.chapters import CHAPTERS, Chapter, find_chapter
from gclib.checks.cells import UnreadableWork, read_cells
from gclib.grading.classroom import Course, CourseError
from gclib.grading.notebooks import grade_metadata
from gclib.grading.people import (
    Arrival,
    Reader,
    exchange_reader,
    identify,
    is_of_exchange,
    pattern_reader,
    read_canvas,
    read_moodle,
    read_people,
    read_time,
    write_people,
)
from gclib.grading.unpack import (
    NOTEBOOK,
    Item,
    Limits,
    Refused,
    Unpacker,
    file_item,
    list_folder,
    open_zip,
    shown,
)

_TITLES = {
    "canvas": "Canvas",
    "moodle": "Moodle",
    "exchange": "nbgrader's exchange",
    "pattern": "names by --pattern",
}


@dataclass
class Outcome:
    """What became of what one student handed in.

    Attributes:
        student: id, or the name of a file that belongs to nobody known.
        what: ``"collected"``, ``"as before"``, ``"replaced"`` or ``"refused"``.
        file: the notebook, as it is called in the source.
        reason: why it was refused, or "".
        notes: what the instructor and the student should know.
    """

    student: str
    what: str
    file: str = ""
    reason: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class _File:
    item: Item
    arrival: Arrival
    source: str


@dataclass
class _Notebook:
    """A candidate: a notebook that one student handed in."""

    name: str
    path: Path
    file: _File
    chapter: str  # number, "" where no graded cell tells, "?" where it cannot be read

    @property
    def stem(self) -> str:
        """Name without ending, as the student called it."""
        is_whole = self.name == self.file.item.name  # else it was in the student's own zip
        called = self.file.arrival.file if is_whole else self.name
        return NOTEBOOK.sub("", called.rsplit("/", 1)[-1])


def run(options: argparse.Namespace) -> int:
    """The command; 1 if anybody was refused."""
    chapter = find_chapter(options.chapter)
    course = Course(options.course)
    outcomes = collect(
        course,
        chapter,
        options.sources,
        origin=options.origin,
        pattern=options.pattern,
        replace=options.replace,
    )
    _print_table(chapter, outcomes)
    return 1 if any(outcome.what == "refused" for outcome in outcomes) else 0


def collect(
    course: Course,
    chapter: Chapter,
    sources: list[Path],
    *,
    origin: str = "auto",
    pattern: str = "",
    replace: bool = False,
    limits: Limits | None = None,
) -> list[Outcome]:
    """Put what was handed in into the folder of a class.

    Args:
        course: the class.
        chapter: the chapter.
        sources: zips, folders or files.
        origin: where they come from: ``"canvas"``, ``"moodle"``, ``"exchange"``, ``"pattern"``, or
            ``"auto"`` to tell by the names.
        pattern: regular expression for ``"pattern"``.
        replace: put what is different in the place of what is there, which moves to ``replaced/``.
        limits: of sizes.

    Returns:
        An outcome for each student, and for each file of nobody known.

    Raises:
        CourseError: nothing was collected.
    """
    limits = limits or Limits()
    course.require()
    for source in sources:
        if not source.exists():
            raise CourseError(f"{source}: no such file or folder")
    course.folder.chmod(0o700)
    with course.alone(), contextlib.ExitStack() as stack:
        _remove_leftovers(course)
        if not (course.folder / "course.json").exists():
            course.replace_file(
                course.folder / "course.json", "{}\n"
            )  # this is a class from now on
        people, outcomes = read_people(course), []
        files: list[_File] = []
        for source, items in _opened(sources, limits, stack):
            found, lost = _sorted_out(source, items, chapter, origin, pattern)
            files += found
            outcomes += lost
        ids = identify(people, chapter, [file.arrival for file in files], course.students())
        write_people(course, people)  # before any submission: whoever is there is known
        students: dict[str, list[_File]] = defaultdict(list)
        refused: dict[str, Refused] = {}
        for file in files:
            student = ids[file.arrival.origin, file.arrival.key]
            if isinstance(student, Refused):
                called = (file.arrival.name, file.arrival.key.lstrip("="))
                refused["_".join(filter(None, called))] = student
            else:
                students[student].append(file)
        outcomes += [Outcome(name, "refused", reason=str(why)) for name, why in refused.items()]
        records = _Records(course, chapter)
        try:
            for student, theirs in sorted(students.items()):
                outcomes.append(
                    _collect_one(course, chapter, student, theirs, records, replace, limits)
                )
        finally:
            records.write()
    return outcomes


def _remove_leftovers(course: Course) -> None:
    """Of a command that was stopped."""
    for path in course.folder.glob(".collect-*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


def _opened(
    sources: list[Path], limits: Limits, stack: contextlib.ExitStack
) -> Iterator[tuple[Path, list[Item]]]:
    singles = []
    for source in sources:
        try:
            if source.is_dir():
                yield source, list_folder(source, limits)
            elif source.suffix.lower() == ".zip":
                yield source, stack.enter_context(open_zip(source, limits))
            else:
                singles.append(file_item(source))
        except Refused as error:
            raise CourseError(f"{source}: {error}; download it again?") from None
    if singles:
        yield Path("the files"), singles


def _sorted_out(
    source: Path, items: list[Item], chapter: Chapter, origin: str, pattern: str
) -> tuple[list[_File], list[Outcome]]:
    """Whose each file is; files of nobody known become outcomes."""
    items = [item for item in items if not item.is_of_a_system]
    readers: dict[str, Reader] = {
        "moodle": read_moodle,
        "exchange": exchange_reader(chapter),
        "canvas": read_canvas,  # last: its form is the one that other names have by chance
    }
    if pattern and origin in ("auto", "pattern"):
        origin, readers = "pattern", {"pattern": pattern_reader(pattern)}
    elif origin == "pattern":
        raise CourseError("--from pattern needs --pattern REGEX")
    if not items:
        raise CourseError(f"{source}: there is no file in it")
    if origin == "auto":
        origin = _origin(source, items, readers)
    if origin == "exchange":
        items = [i for i in items if not is_of_exchange(i.name) or readers[origin](i.name)]
    files, lost = [], []
    for item in items:
        arrival = readers[origin](item.name)
        if arrival:
            files.append(_File(item, arrival, source.name))
        else:
            reason = item.problem or f"its name does not say whose it is ({_TITLES[origin]})"
            lost.append(Outcome(item.name, "refused", reason=reason))
    print(f"{shown(str(source))}: {_TITLES[origin]}, {len(files)} of {len(items)} files understood")
    return files, lost


def _origin(source: Path, items: list[Item], readers: dict[str, Reader]) -> str:
    readers = readers | {"exchange": is_of_exchange}
    counts = Counter()
    for item in items:
        counts.update(origin for origin, read in readers.items() if read(item.name))
    best = counts.most_common(1)
    if not best:
        example = shown(items[0].name)
        raise CourseError(
            f"{source}: names like {example!r} are none of Canvas, Moodle or nbgrader's exchange; "
            "say where the id stands, for example "
            "--pattern '(?P<student>[^/_]+)[/_].*' (see docs/INSTRUCTORS.md)"
        )
    return best[0][0]


class _Records:
    """``DIR/collected/NN_topic.json``: what grading and feedback tell the student."""

    def __init__(self, course: Course, chapter: Chapter) -> None:
        self.path = course.folder / "collected" / f"{chapter.folder}.json"
        self.students: dict[str, dict] = {}
        with contextlib.suppress(FileNotFoundError):
            try:
                self.students = json.loads(self.path.read_text(encoding="utf-8"))
            except ValueError:
                raise CourseError(f"{self.path} is damaged; remove it and collect again") from None

    def write(self) -> None:
        if self.students:
            text = json.dumps(self.students, indent=1, ensure_ascii=False, sort_keys=True)
            Course.replace_file(self.path, text + "\n")


def _collect_one(
    course: Course,
    chapter: Chapter,
    student: str,
    files: list[_File],
    records: _Records,
    replace: bool,
    limits: Limits,
) -> Outcome:
    """Unpack, choose and put in place what one student handed in."""
    with tempfile.TemporaryDirectory(prefix=".collect-", dir=course.folder) as folder:
        try:
            chosen, notes = _choose(Path(folder), chapter, files, limits)
            what = _place(course, chapter, student, chosen, Path(folder), replace)
        except Refused as error:
            names = sorted({shown(file.item.name) for file in files})
            return Outcome(student, "refused", ", ".join(names[:3]), str(error))
        if what != "as before" or student not in records.students:
            time = chosen.file.arrival.time
            records.students[student] = {
                "source": chosen.file.source,
                "file": chosen.name,
                "sha256": _digest(chosen.path),
                "time": time.isoformat() if time else None,
                "late": chosen.file.arrival.late,
                "collected": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "notes": notes,
            }
    return Outcome(student, what, shown(chosen.name), notes=notes)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _choose(
    folder: Path, chapter: Chapter, files: list[_File], limits: Limits
) -> tuple[_Notebook, list[str]]:
    """The notebook that counts, and what to know about it.

    Raises:
        Refused: there is none, or nobody can tell which.
    """
    owner = _not_the_owner(files)
    if owner:
        raise Refused(owner)
    latest = _latest(files)
    unpacker, notebooks = Unpacker(folder, limits), []
    for file in latest:
        before = len(unpacker.result.notebooks)
        unpacker.add(file.item, file.item.name)
        for name, path in unpacker.result.notebooks[before:]:
            notebooks.append(_Notebook(name, path, file, _chapter(path)))
    refused = [f"{shown(name)}: {why}" for name, why in unpacker.result.refused]
    others = [shown(name) for name in unpacker.result.others]
    if not notebooks:
        raise Refused(_why_none(latest, refused, others))
    chosen, notes = _best(chapter, notebooks)
    notes += _notes_on(chapter, chosen, files)
    notes += [f"not taken: {text}" for text in refused]
    return chosen, notes


def _not_the_owner(files: list[_File]) -> str:
    """In the exchange anybody can write anybody's name on a folder; its owner tells."""
    for file in files:
        if file.arrival.origin == "exchange" and file.item.owner:
            trusted = {file.arrival.key, pwd.getpwuid(os.getuid()).pw_name, "root"}
            if file.item.owner not in trusted:
                return (
                    f"{shown(file.item.name)} belongs to {file.item.owner}; somebody else may have "
                    "handed it in. If that cannot be, copy the inbound folder and collect the copy"
                )
    return ""


def _latest(files: list[_File]) -> list[_File]:
    """Those that were handed in last, where times tell; else all."""
    times = [file.arrival.time for file in files]
    if not all(times):
        return files
    return [file for file in files if file.arrival.time == max(times)]


def _why_none(files: list[_File], refused: list[str], others: list[str]) -> str:
    if refused:
        return "; ".join(refused[:3])
    if all(file.arrival.typed for file in files):
        return "text or a link was typed into the LMS; ask for the notebook"
    return f"no notebook, only {', '.join(others[:3])}; ask for the .ipynb file"


def _chapter(path: Path) -> str:
    """Number of the chapter of a notebook's graded cells, "" for none, "?" where unreadable."""
    numbers = {chapter.number for chapter in CHAPTERS}
    found = Counter()
    try:
        for cell in read_cells(path):
            match = re.match(r"c(\d\d)-", str(grade_metadata(cell).get("grade_id", "")))
            if match and match[1] in numbers:
                found[match[1]] += 1
    except (UnreadableWork, ValueError, AttributeError, TypeError, RecursionError):
        return "?"
    return found.most_common(1)[0][0] if found else ""


def _best(chapter: Chapter, notebooks: list[_Notebook]) -> tuple[_Notebook, list[str]]:
    """One of several notebooks: by graded cells, name, and which was uploaded last."""
    different = list({_digest(n.path): n for n in reversed(notebooks)}.values())[::-1]
    pool = [n for n in different if n.chapter == chapter.number]
    pool = pool or [n for n in different if n.chapter in ("", "?")]
    if not pool:
        others = ", ".join(f"{shown(n.name)} (chapter {n.chapter})" for n in different[:3])
        raise Refused(f"of another chapter: {others}; ask for {chapter.name}.ipynb")
    for narrower in (_well_named, _uploaded_last, _exactly_named):
        if len(pool) > 1:
            pool = narrower(chapter, pool) or pool
    if len(pool) > 1:
        names = ", ".join(shown(n.name) for n in pool[:4])
        raise Refused(
            f"{len(pool)} different notebooks, and nothing tells which one counts: {names}; ask, "
            "then collect that one alone"
        )
    left = [shown(n.name) for n in different if n is not pool[0]]
    notes = [f"taken of {len(different)} notebooks; left: {', '.join(left[:5])}"] if left else []
    return pool[0], notes


def _well_named(chapter: Chapter, pool: list[_Notebook]) -> list[_Notebook]:
    """Those with the chapter's name, or with Canvas's number of a further upload behind it."""
    wanted = re.compile(rf"{re.escape(chapter.name)}(-\d+)?", re.IGNORECASE)
    return [n for n in pool if wanted.fullmatch(n.stem)]


def _uploaded_last(chapter: Chapter, pool: list[_Notebook]) -> list[_Notebook]:
    orders = [n.file.arrival.order for n in pool]
    if None in orders:
        return []
    return [n for n in pool if n.file.arrival.order == max(orders)]


def _exactly_named(chapter: Chapter, pool: list[_Notebook]) -> list[_Notebook]:
    return [n for n in pool if n.stem == chapter.name]


def _notes_on(chapter: Chapter, chosen: _Notebook, files: list[_File]) -> list[str]:
    notes = []
    arrival = chosen.file.arrival
    stem = re.sub(r"-\d+$", "", chosen.stem) if arrival.origin == "canvas" else chosen.stem
    if stem != chapter.name:
        notes.append(f"was called {shown(chosen.stem)}.ipynb; stored as {chapter.name}.ipynb")
    if chosen.name.lower().find(".zip/") > 0:
        notes.append(f"was in a zip: {shown(chosen.name)}")
    if arrival.late:
        notes.append("late, says the LMS")
    if arrival.problem:
        notes.append(arrival.problem)
    if chosen.chapter == "?":
        notes.append("cannot be read as a notebook")
    elif not chosen.chapter:
        notes.append("no graded cell of the course is marked in it")
    times = {file.arrival.time for file in files}
    if len(times) > 1:
        notes.append(f"the last of {len(times)} submissions")
    return notes


def _place(
    course: Course, chapter: Chapter, student: str, chosen: _Notebook, stage: Path, replace: bool
) -> str:
    """Move the notebook to its place; what became of it.

    Raises:
        Refused: something else is there.
    """
    target = course.submission(student, chapter)
    for place in (target.parents[1], target.parent, target):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise Refused(f"{place} is a link or a file; put a real folder there")
    time = chosen.file.arrival.time
    existing = target / f"{chapter.name}.ipynb"
    if target.exists():
        if existing.is_file() and _digest(existing) == _digest(chosen.path):
            return "as before"
        if not replace:
            raise Refused("another version was collected before; --replace takes this one instead")
        known = _time_of(target)
        if time and known and time < known:
            raise Refused("what was collected before is newer; remove it first if you mean this")
    new = stage / "submission"
    new.mkdir()
    chosen.path.rename(new / f"{chapter.name}.ipynb")
    chosen.path = target / f"{chapter.name}.ipynb"
    if time:
        text = f"{time.replace(tzinfo=None).isoformat(' ', 'microseconds')} UTC"
        (new / "timestamp.txt").write_text(text, encoding="ascii")
    _sync(new)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        new.rename(target)
        return "collected"
    stamp = f"{datetime.now(timezone.utc):%Y-%m-%d-%H%M%S-%f}"
    old = course.folder / "replaced" / student / chapter.folder / stamp
    old.parent.mkdir(parents=True, exist_ok=True)
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        if not target.exists():
            old.rename(target)
        raise
    return "replaced"


def _time_of(folder: Path) -> datetime | None:
    with contextlib.suppress(OSError, ValueError):
        return read_time((folder / "timestamp.txt").read_text(encoding="utf-8"))
    return None


def _sync(folder: Path) -> None:
    """See to it that the files are on the disk before their folder appears."""
    for path in (*folder.iterdir(), folder):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _print_table(chapter: Chapter, outcomes: list[Outcome]) -> None:
    width = max([len(shown(o.student, 40)) for o in outcomes] + [7])
    for outcome in sorted(outcomes, key=lambda o: (o.what == "refused", o.student)):
        said = outcome.reason or outcome.file
        print(f"  {shown(outcome.student, 40):<{width}}  {outcome.what:<9}  {said}")
        for note in outcome.notes:
            print(f"  {'':<{width}}  {'':<9}  - {note}")
    counts = Counter(outcome.what for outcome in outcomes)
    parts = [f"{counts[what]} {what}" for what in ("collected", "as before", "replaced", "refused")]
    print(f"chapter {chapter.number}: {', '.join(parts)}")
    if counts["refused"]:
        print("What was refused was not stored. Mend it, then run the same command again.")
