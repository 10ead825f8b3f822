"""A PostgreSQL server of one's own: no network, no password of anybody, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

PASSWORD = "p@ss:w0rd/%"  # each of these characters has a meaning in an address
PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


class Server:
    """Databases in a temporary folder, behind a socket that lies there too."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gclib-pg-"))
        self.user = {}
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            owner = pwd.getpwnam("postgres")
            self.user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        password = self.folder / "password"
        password.write_text(PASSWORD + "\n")
        password.chmod(0o644)  # in a folder that is closed to others
        new = ["--username=teacher", "--auth=scram-sha-256", f"--pwfile={password}"]
        self._run("initdb", *new, "--no-sync", "--encoding=UTF8", "--locale=C")

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [PROGRAMS / name, f"--pgdata={self.folder / 'data'}", *arguments],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,  # the server would keep a pipe open
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=60,
            **self.user,
        )
        assert done.returncode == 0, (name, self._log())

    def _log(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.is_file() else "no log"

    def start(self) -> None:
        """Start it, with room for 12 connections."""
        options = {
            "fsync": "off",
            "listen_addresses": "''",
            "unix_socket_directories": self.folder,
            "max_connections": 12,
            "max_wal_senders": 0,
        }
        flags = " ".join(f"-c {name}={value}" for name, value in options.items())
        self._run("pg_ctl", "--wait", f"--log={self.folder / 'log'}", f"--options={flags}", "start")

    def stop(self) -> None:
        """Stop it, as a power cut would."""
        self._run("pg_ctl", "--wait", "--mode=immediate", "stop")

    def address(self, database: str, password: str = PASSWORD) -> str:
        """URL of a database."""
        return f"postgresql://teacher:{quote(password, safe='')}@/{database}?host={self.folder}"

    def sql(self, database: str, statement: str) -> list[tuple]:
        """Run a statement."""
        import psycopg

        address = {"host": str(self.folder), "user": "teacher", "password": PASSWORD}
        with psycopg.connect(dbname=database, autocommit=True, **address) as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def connections(self, database: str) -> int:
        """Clients of a database, without the one that asks."""
        of_others = "datname = current_database() AND pid <> pg_backend_pid()"
        return self.sql(database, f"SELECT count(*) FROM pg_stat_activity WHERE {of_others}")[0][0]

    def rows(self, database: str) -> dict[str, list[tuple]]:
        """All rows of all tables."""
        tables = self.sql(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {
            name: sorted(self.sql(database, f'SELECT * FROM "{name}"'), key=repr)
            for (name,) in tables
        }

    def restore(self, dump: Path, database: str) -> None:
        """Make a database from a dump."""
        self.sql("postgres", f"CREATE DATABASE {database}")
        where = [f"--host={self.folder}", "--username=teacher", f"--dbname={database}"]
        done = subprocess.run(
            [PROGRAMS / "pg_restore", "--exit-on-error", *where, dump],
            env=os.environ | {"PGPASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def server():
    if PROGRAMS is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt install postgresql)")
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("as root, PostgreSQL's server needs a user postgres to run as")
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra grade)")
    server = Server()
    try:
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(server.folder)
