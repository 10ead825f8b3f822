"""Addresses of gradebooks, and copies of those in SQLite (test_postgresql.py: on a server)."""

import json
import sqlite3
import stat

import pytest

from gclib.grading.classroom import Course, CourseError
from gclib.grading.gradebook import copy, registered, same_place, without_password


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:geheim@host/term", "postgresql://me:***@host/term"),
        ("postgresql://me:ge@heim@host/term", "postgresql://me:***@host/term"),
        ("postgresql://me:ge:he/im@host:5432/t", "postgresql://me:***@host:5432/t"),
        ("postgresql+psycopg://me:geheim@/t?host=/run", "postgresql+psycopg://me:***@/t?host=/run"),
        ("postgresql://me@h/t?password=geheim&a=1", "postgresql://me@h/t?password=***&a=1"),
        ("postgresql://me@host/term", "postgresql://me@host/term"),
        ("sqlite:////home/me/class.db", "sqlite:////home/me/class.db"),
    ],
)
def test_an_address_is_shown_without_its_password(address, shown):
    assert without_password(address) == shown


def test_a_password_may_differ_and_nothing_else():
    one = "postgresql://me:old@host/term"
    assert same_place(one, "postgresql://me:new@host/term")
    assert same_place(one, "postgresql://me@host/term")  # it moved to ~/.pgpass
    for other in ("postgresql://you:old@host/term", "postgresql://me:old@host/other"):
        assert not same_place(one, other)


@pytest.mark.parametrize(
    "address",
    [
        "gradebook.db",
        "mysql://me:geheim@host/term",
        "postgresql:/me:geheim@host/term",
        "postgresql://me:geheim@host:port/term",
        "sqlite://",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(address):
    with pytest.raises(CourseError, match="no address of a gradebook; write sqlite") as error:
        registered(address)
    assert "geheim" not in str(error.value)


def test_a_path_that_depends_on_where_one_stands_is_refused():
    with pytest.raises(CourseError, match="name the whole path"):
        registered("sqlite:///gradebook.db")


def test_asking_a_gradebook_makes_none(tmp_path):
    path = tmp_path / "gradebook.db"
    assert registered(f"sqlite:///{path}") == set()
    assert not path.exists()
    with sqlite3.connect(path) as book:
        book.execute("CREATE TABLE mine (a)")
    before = path.read_bytes()
    assert registered(f"sqlite:///{path}") == set()
    assert path.read_bytes() == before


def test_a_damaged_gradebook_is_named_with_the_way_back(tmp_path):
    path = tmp_path / "gradebook.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(CourseError, match="put the newest copy from backups/ in its place"):
        registered(f"sqlite:///{path}")
    with pytest.raises(CourseError, match="cannot be backed up: file is not a database"):
        copy(f"sqlite:///{path}", tmp_path / "backups" / "copy.db")
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_copy_is_whole_while_somebody_writes(tmp_path):
    path, target = tmp_path / "gradebook.db", tmp_path / "backups" / "copy.db"
    writer = sqlite3.connect(path)
    writer.execute("CREATE TABLE grade (points)")
    writer.execute("INSERT INTO grade VALUES (1)")
    writer.commit()
    writer.execute("INSERT INTO grade VALUES (2)")  # not committed
    copy(f"sqlite:///{path}", target)
    writer.close()
    with sqlite3.connect(target) as book:
        assert book.execute("SELECT points FROM grade").fetchall() == [(1,)]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [file.name for file in target.parent.iterdir()] == ["copy.db"]


def test_a_class_stays_with_the_gradebook_in_its_folder(tmp_path):
    (tmp_path / "course.json").write_text(json.dumps({"gradebook": ""}))
    here = f"sqlite:///{tmp_path / 'gradebook.db'}"
    assert Course(tmp_path).gradebook == Course(tmp_path, here).gradebook == here
    with pytest.raises(CourseError, match="leave --gradebook out, or name another folder"):
        Course(tmp_path, "postgresql://me@host/term")
