"""Where the grades of a class are kept: SQLite in its folder, or a database on a PostgreSQL server.

nbgrader's ``Gradebook`` reads and writes them; here is what it leaves to others: that the address
is right, what to do if it is not, and a copy of everything.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

NO_ADDRESS = (
    "this is no address of a gradebook; write sqlite:////PATH or "
    "postgresql://NAME:PASSWORD@HOST/DATABASE, with / : @ % in a password as %2F %3A %40 %25"
)


class CourseError(Exception):
    """The command did nothing; ``str()`` says why and what to do."""


def without_password(address: str) -> str:
    """The address as it may be shown."""
    address = re.sub(r"([?&]password=)[^&]*", r"\1***", address)
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", address)


def same_place(address: str, other: str) -> bool:
    """Whether they differ in nothing but the password, which may change."""
    one, two = (without_password(each).replace(":***@", "@") for each in (address, other))
    return one == two


def sqlite_file(address: str) -> Path | None:
    """The file of a gradebook in SQLite; None where it is on a server."""
    if not address.startswith("sqlite:///"):
        return None
    return Path(address.removeprefix("sqlite:///"))


def registered(address: str) -> set[str]:
    """Names of the assignments that are in the gradebook, whole.

    Writes nothing, while nbgrader's ``Gradebook`` makes its tables as soon as it is opened.

    Args:
        address: URL of the gradebook.

    Returns:
        The names; none where there is no gradebook yet.

    Raises:
        CourseError: the address is wrong or does not answer.
    """
    from sqlalchemy import create_engine, exc, inspect, pool

    path, options = sqlite_file(address), {}
    if path is not None:
        if not path.is_absolute():
            raise CourseError(f"{address}: name the whole path, as in sqlite:////home/me/class.db")
        if not path.is_file():
            return set()
    elif re.match(r"postgresql(\+\w+)?://", address):
        options["connect_timeout"] = 10  # seconds; without it, minutes
    else:
        raise CourseError(NO_ADDRESS)  # and not shown: who knows where the password is
    try:
        engine = create_engine(address, poolclass=pool.NullPool, connect_args=options)
        return _whole(engine) if inspect(engine).has_table("assignment") else set()
    except ImportError:
        raise CourseError(
            "Python's driver for PostgreSQL is missing; in the folder of the course run "
            f"{sys.executable} -m pip install -e '.[grade]', and let the address of the "
            "gradebook begin with postgresql://"
        ) from None
    except (exc.ArgumentError, ValueError):
        raise CourseError(NO_ADDRESS) from None
    except exc.DBAPIError as error:
        said = " ".join(str(error.orig).split())[:300]
        advice = (
            "see that the server runs and that name, password and database are right"
            if path is None
            else "put the newest copy from backups/ in its place"
        )
        raise CourseError(
            f"the gradebook {without_password(address)} cannot be opened; {advice}. It said: {said}"
        ) from None


def _whole(engine) -> set[str]:
    """Assignments whose cells all have a source; nbgrader writes the sources last."""
    from nbgrader.api import Assignment
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    names = set()
    with Session(engine) as session:
        for assignment in session.scalars(select(Assignment)):
            for notebook in assignment.notebooks:
                cells = {c.name for c in (*notebook.grade_cells, *notebook.solution_cells)}
                sources = {cell.name for cell in notebook.source_cells}
                if sources and sources >= cells:
                    names.add(assignment.name)
    return names


def copy(address: str, target: Path) -> None:
    """Copy a gradebook into a file: SQLite's own form, or what ``pg_restore`` reads.

    Args:
        address: URL of the gradebook.
        target: the file; it appears whole or not at all.

    Raises:
        CourseError: it cannot be copied.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.touch(0o600)
        path = sqlite_file(address)
        if path is None:
            _dump(address, partial)
        else:
            _copy_sqlite(path, partial)
        os.replace(partial, target)
    except sqlite3.Error as error:
        raise CourseError(f"the gradebook cannot be backed up: {error}") from None
    finally:
        partial.unlink(missing_ok=True)


def _copy_sqlite(path: Path, target: Path) -> None:
    source = contextlib.closing(sqlite3.connect(path))
    with source as book, contextlib.closing(sqlite3.connect(target)) as other:
        book.backup(other)  # whole, even while somebody writes


def _dump(address: str, target: Path) -> None:
    from sqlalchemy import make_url

    program = shutil.which("pg_dump")
    if program is None:
        raise CourseError(
            "pg_dump is missing, so the gradebook cannot be backed up; install PostgreSQL's "
            "client (Debian: apt install postgresql-client)"
        )
    url = make_url(address)
    _, where = url.get_dialect()().create_connect_args(url)
    # Everybody on the machine can read a command, but not its environment.
    password = where.pop("password", None)
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    dbname = " ".join(f"{name}={_quoted(value)}" for name, value in where.items())
    command = [program, "--format=custom", "--no-password", f"--dbname={dbname}"]
    done = subprocess.run(
        [*command, f"--file={target}"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.split())[:300]
        if "version mismatch" in said:
            said += "; install a PostgreSQL client of the server's version"
        raise CourseError(f"the gradebook cannot be backed up: {said}")


def _quoted(value: object) -> str:
    """A value in an address of libpq."""
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
