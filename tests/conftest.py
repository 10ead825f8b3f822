"""Options and the student's report.

``pytest tests/`` proves the reference, and also checks the answers in ``work/`` (or, with
``--impl MODULE``, a module of your own), ending with one line about them.
"""

import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), *(str(HERE / name) for name in ("blocks", "grading", "browser"))]

from student_counts import STUDENT  # noqa: E402 (tests/ is on the path from here on)

SLOW_FIXTURES = {"graded_course"}


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="also run slow tests (make test-full)")
    parser.addoption(
        "--impl",
        metavar="MODULE",
        help="check your own module or .py file in place of the notebooks in work/ (runs its code "
        "without a sandbox)",
    )
    parser.addoption(
        "--work",
        metavar="DIR",
        default=str(HERE.parent / "work"),
        help="where the notebooks to check are (default: work/)",
    )


@pytest.fixture(autouse=True)
def verdicts_of_its_own():
    """A test starts as a kernel does: what checks said in the tests before it is forgotten."""
    _forget_verdicts()
    yield
    _forget_verdicts()


def _forget_verdicts():
    if cards := sys.modules.get("gclib.checks.cards"):
        cards.last_verdicts.clear()
        cards.on_verdict = None


def pytest_configure(config):
    config.stash[STUDENT] = Counter()


@pytest.hookimpl(tryfirst=True)  # before "-m full" chooses
def pytest_collection_modifyitems(config, items):
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.full)
        if item.get_closest_marker("full") and not config.getoption("--full"):
            item.add_marker(pytest.mark.skip(reason="slow; runs with --full (make test-full)"))


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of several processes (-n)
        session.config.workeroutput["student"] = dict(session.config.stash[STUDENT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    node.config.stash[STUDENT].update(getattr(node, "workeroutput", {}).get("student", {}))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter, config):
    yield
    counts = config.stash[STUDENT]
    if counts:
        terminalreporter.write_line(
            f"student: {counts['passed']} passed, {counts['failed']} failed, "
            f"{counts['not attempted']} not attempted"
        )
