"""The folder of a class: submissions, gradebook, verdicts, feedback, and the course's secret.

```
DIR/                                   mode 0700, outside of the repository
  submitted/STUDENT/01_non_local/non_local.ipynb    as handed in; nothing here is ever changed
  collected/01_non_local.json          where it came from; students.json: who is who in the LMS
  replaced/                            what a later submission took the place of
  verdicts/01_non_local/STUDENT.json   what the checks said (gclib.grading.verdicts)
  autograded/STUDENT/01_non_local/     the notebook to look at, made harmless
  feedback/STUDENT/01_non_local/       the page to return
  reports/  exports/  backups/         of the class, for the LMS, of the gradebook
  private/c01.py                       an instructor's own hidden checks
  gradebook.db  course.json  secret  nbgrader_config.py
```
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gclib.chapters import CHAPTERS, Chapter, repository
from gclib.grading.generate import GenerationFailed, register
from gclib.grading.gradebook import (
    CourseError,
    copy,
    registered,
    same_place,
    sqlite_file,
    without_password,
)

# What nbgrader, file systems and spreadsheets take as a name. nbgrader reads an id as a pattern.
STUDENT_ID = re.compile(r"[\w@][\w@. -]{0,99}")


@dataclass
class Course:
    """A folder that holds what belongs to a class and to nobody else.

    Attributes:
        folder: of the class.
        gradebook: URL; default: what was named when the class was set up, or else ``gradebook.db``
            in the folder.
    """

    folder: Path
    gradebook: str = ""

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        settings = self._settings()
        known = (settings.get("gradebook") or self._in_folder()) if settings else ""
        if known and self.gradebook and not same_place(known, self.gradebook):
            raise CourseError(
                f"the grades of {self.folder} are in {without_password(known)}; leave --gradebook "
                "out, or name another folder"
            )
        self.gradebook = self.gradebook or known or self._in_folder()

    def prepare(self) -> None:
        """Close the folder to others, and register the chapters in a new gradebook.

        Raises:
            CourseError: there is no such folder, it lies in the repository, or the gradebook
                cannot be made.
        """
        root = self.require()
        self.folder.chmod(0o700)
        is_complete = self._is_registered()  # an address that does not work is not kept
        # The one in the folder goes where the folder goes, so its address is not written down.
        address = "" if self.gradebook == self._in_folder() else self.gradebook
        if self._settings().get("gradebook") != address:
            self.replace_file(self.folder / "course.json", json.dumps({"gradebook": address}))
        self._write_config(root)
        if is_complete:
            return
        try:
            register(root, self.gradebook)
        except GenerationFailed as error:
            raise CourseError(f"the gradebook cannot be made: {error}") from None

    def require(self) -> Path:
        """The repository, once it is sure that this is a folder of a class.

        Raises:
            CourseError: there is no such folder, or it lies in the repository.
        """
        root = repository()
        if root is None or not (root / "solutions").is_dir():
            raise CourseError("solutions/ is not here: run this in a whole clone of the course")
        if not self.folder.is_dir():
            raise CourseError(f"{self.folder}: no such folder; make it with mkdir")
        if self.folder == root or root in self.folder.parents:
            raise CourseError(
                f"{self.folder} lies in the repository, where students' work could be committed; "
                "choose a folder outside of it"
            )
        return root

    def _in_folder(self) -> str:
        return f"sqlite:///{self.folder / 'gradebook.db'}"

    def _settings(self) -> dict:
        path = self.folder / "course.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            # {} until a gradebook was chosen: collecting needs none
            return {"gradebook": str(found["gradebook"] or "")} if "gradebook" in found else {}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (ValueError, TypeError):
            raise CourseError(
                f'{path} is damaged; write {{"gradebook": "URL"}} into it, with "" for gradebook.db'
            ) from None

    def _write_config(self, root: Path) -> None:
        """For nbgrader's own programs (formgrader, export), started in the folder."""
        text = (
            '"""Written by gclib: the settings of the course, for nbgrader started here."""\n\n'
            "import json\nfrom pathlib import Path\n\n"
            f"load_subconfig('nbgrader_config.py', path={str(root)!r})\n"
            "c = get_config()\n"
            "here = Path(__file__).resolve().parent\n"
            "c.CourseDirectory.root = str(here)\n"
            f"c.CourseDirectory.source_directory = {str(root / 'solutions')!r}\n"
            f"c.CourseDirectory.release_directory = {str(root / 'chapters')!r}\n"
            "settings = json.loads((here / 'course.json').read_text(encoding='utf-8'))\n"
            "c.CourseDirectory.db_url = (\n"
            "    settings['gradebook'] or f\"sqlite:///{here / 'gradebook.db'}\"\n"
            ")\n"
            "c.FormgradeExtension.debug = False  # it would show a password\n"
        )
        path = self.folder / "nbgrader_config.py"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            self.replace_file(path, text)

    def _is_registered(self) -> bool:
        """Whether all chapters are in the gradebook; the first contact with its server, too."""
        return registered(self.gradebook) >= {chapter.folder for chapter in CHAPTERS}

    def secret(self) -> bytes:
        """The secret of the course, made once; seeds and aliases follow from it."""
        path = self.folder / "secret"
        if not path.is_file():
            with contextlib.suppress(FileExistsError):
                partial = path.with_name(f".secret.{os.getpid()}")
                number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with open(number, "w", encoding="ascii") as file:
                    file.write(secrets.token_hex(32))
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    os.link(partial, path)  # whole, and never over another one
                finally:
                    os.unlink(partial)
        try:
            return bytes.fromhex(path.read_text(encoding="ascii"))
        except ValueError:
            raise CourseError(
                f"{path} is damaged: restore it, hidden seeds follow from it"
            ) from None

    def alias(self, student: str) -> str:
        """Eight letters that stand for a student in logs; :meth:`students` finds who it is."""
        return hmac.digest(
            self.secret(), f"student:{student}".encode("utf-8", "surrogateescape"), "sha256"
        )[:4].hex()

    def students(self, chapter: Chapter | None = None) -> list[str]:
        """Students who handed in a folder for the chapter (default: for any), in order."""
        submitted = self.folder / "submitted"
        if not submitted.is_dir():
            return []
        found = []
        for entry in os.scandir(submitted):
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            if not os.access(entry.path, os.R_OK | os.X_OK):
                found.append(entry.name)  # nobody is lost: grading says why it cannot be read
                continue
            below = Path(entry.path)
            wanted = [below / chapter.folder] if chapter else below.iterdir()
            if any(path.is_dir() for path in wanted):
                found.append(entry.name)
        return sorted(found)

    def chosen(self, chapter: Chapter, students: Sequence[str] = ()) -> list[str]:
        """Those of ``students``, or of all where none is named, who handed in for a chapter.

        Raises:
            CourseError: nobody did, or one of ``students`` did not.
        """
        found = self.students(chapter)
        if not found:
            raise CourseError(f"submitted/*/{chapter.folder} is empty: nobody has handed in")
        for student in students:
            if student not in found:
                raise CourseError(f"submitted/{student}/{chapter.folder}: there is no such folder")
        return sorted(set(students)) or found

    def submission(self, student: str, chapter: Chapter) -> Path:
        """The folder of what a student handed in."""
        return self.folder / "submitted" / student / chapter.folder

    def notebook(self, student: str, chapter: Chapter) -> Path:
        """Where a student's notebook should be."""
        return self.folder / "submitted" / student / chapter.notebook

    def verdicts(self, student: str, chapter: Chapter) -> Path:
        """Where the verdicts on it are kept."""
        return self.folder / "verdicts" / chapter.folder / f"{student}.json"

    def graded(self, student: str, chapter: Chapter) -> Path:
        """The graded notebook to look at."""
        return self.folder / "autograded" / student / chapter.notebook

    def feedback(self, student: str, chapter: Chapter) -> Path:
        """The page to return."""
        return (self.folder / "feedback" / student / chapter.notebook).with_suffix(".html")

    def back_up(self) -> Path | None:
        """Copy the gradebook to ``backups/``; where to, or None where there is none yet.

        Raises:
            CourseError: it cannot be copied.
        """
        path = sqlite_file(self.gradebook)
        if path is not None and not path.is_file():
            return None
        ending = "dump" if path is None else "db"
        name = f"gradebook-{datetime.now():%Y-%m-%d-%H%M%S-%f}.{ending}"
        target = self.folder / "backups" / name
        copy(self.gradebook, target)
        return target

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder, so that two commands that write do not meet.

        Raises:
            CourseError: another one is running.
        """
        with open(self.folder / ".lock", "w", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise CourseError(f"another gclib command is at work in {self.folder}") from None
            yield

    @staticmethod
    def replace_file(path: Path, content: str | bytes) -> None:
        """Write a file whole or not at all; for its owner alone."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name[:40]}.{os.getpid()}.partial")
        content = content.encode() if isinstance(content, str) else content
        try:
            number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(number, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
