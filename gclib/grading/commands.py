"""The commands of an instructor: what they are called, and the one way in which they fail."""

from __future__ import annotations

import argparse
import errno
import sys
from importlib import import_module
from pathlib import Path


def register(commands: argparse._SubParsersAction) -> None:
    """Add the commands to those of ``gclib``; each one's module is imported when it runs."""
    command = _add(commands, "collect", "put what was handed in into the folder of a class")
    command.add_argument("chapter", metavar="NN")
    command.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="zip or folder")
    command.add_argument(
        "--from",
        dest="origin",
        choices=["auto", "canvas", "moodle", "pattern", "exchange"],
        default="auto",
        help="where the zip comes from; default: tell by its names",
    )
    command.add_argument(
        "--pattern", default="", metavar="REGEX", help="of file names, with (?P<student>...)"
    )
    command.add_argument(
        "--replace", action="store_true", help="put newer ones in the place of those that are there"
    )

    command = _add(commands, "grade", "grade a class; students' code runs in a sandbox")
    command.add_argument("chapter", metavar="NN")
    command.add_argument("--student", nargs="+", metavar="ID", help="these alone; default: all")
    command.add_argument(
        "--gradebook", default="", metavar="URL", help="default: gradebook.db in DIR (SQLite)"
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="submissions at a time; default: one for each core"
    )
    command.add_argument("--again", action="store_true", help="judge anew what was judged before")
    command.add_argument(
        "--sandbox",
        choices=["bubblewrap", "docker", "podman"],
        default="bubblewrap",
        help="what shuts students' code in; default: bubblewrap",
    )
    command.add_argument(
        "--image", default="", metavar="NAME", help="of docker or podman, see docs/INSTRUCTORS.md"
    )
    command.add_argument(
        "--unsafe", action="store_true", help="no sandbox: for code that you trust"
    )

    command = _add(commands, "feedback", "a page for each student", module="feedback")
    command.add_argument("chapter", metavar="NN")
    command.add_argument("--student", nargs="+", metavar="ID", help="these alone; default: all")
    command.add_argument("--again", action="store_true", help="write those that are up to date too")
    command.add_argument(
        "--zip", type=Path, metavar="FILE", help="also one zip, as Moodle takes it back"
    )

    command = _add(commands, "export", "points as a CSV table for Canvas, Moodle or a spreadsheet")
    command.add_argument(
        "--for", dest="target", choices=["canvas", "moodle", "plain"], default="plain"
    )
    command.add_argument("--chapter", nargs="+", metavar="NN", help="default: all that were graded")
    command.add_argument(
        "--roster", type=Path, metavar="CSV", help="the LMS's own export: fills in its columns"
    )
    command.add_argument(
        "--column", default="", metavar="NAME", help="of the roster; default: told by its name"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="default: DIR/exports/")

    command = _add(commands, "purge", "remove a student, or all of a term")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--student", nargs="+", metavar="ID", help="everything about these students")
    what.add_argument("--term", action="store_true", help="everything in DIR")
    command.add_argument("--yes", action="store_true", help="do not ask")

    command = commands.add_parser("bundle", help="what a class gets: no answers, no hidden checks")
    command.add_argument("chapter", metavar="NN", help="chapters up to this one")
    command.add_argument("--out", type=Path, metavar="PATH", help="a folder or a .zip file")
    command.set_defaults(run=_runner("bundle"))


def _add(
    commands: argparse._SubParsersAction, name: str, text: str, module: str = ""
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text)
    command.add_argument(
        "--course", type=Path, required=True, metavar="DIR", help="the folder of the class"
    )
    command.set_defaults(run=_runner(module or {"grade": "driver"}.get(name, name)))
    return command


def _runner(module: str):
    def run(options: argparse.Namespace) -> int:
        from gclib.grading.classroom import CourseError

        try:
            return import_module(f"gclib.grading.{module}").run(options)
        except (ValueError, CourseError) as error:
            return _fail(error)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return _fail("the disk is full; free some space and run the same command again")
            return _fail(error)

    return run


def _fail(reason: object) -> int:
    print(f"gclib: {reason}", file=sys.stderr)
    return 2
