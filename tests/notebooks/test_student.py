"""The reader's own answers: the visible checks on ``work/`` or on ``--impl MODULE``.

Runs their code without a sandbox: for one's own work only.
"""

from functools import cache
from pathlib import Path

import pytest
from student_counts import STUDENT

from gclib.chapters import CHAPTERS
from gclib.checks.exercise import exercises_of
from gclib.checks.work import check_one, load_module, load_notebook


def pytest_generate_tests(metafunc):
    config = metafunc.config
    sources = []
    for chapter in CHAPTERS:
        path = Path(config.getoption("--work")) / chapter.notebook
        if config.getoption("--impl"):
            sources.append((chapter, load_module, config.getoption("--impl")))
        elif path.is_file():
            sources.append((chapter, load_notebook, path))
    cases = [(e, load, where) for c, load, where in sources for e in exercises_of(c.checks())]
    ids = [case[0].id for case in cases]
    metafunc.parametrize(("exercise", "load", "where"), cases, ids=ids)


@cache
def loaded(load, where):
    return load(where)


def test_your_answer(exercise, load, where, request):
    outcome = check_one(loaded(load, where), exercise)
    request.config.stash[STUDENT][outcome.verdict] += 1
    if outcome.verdict == "not attempted":
        pytest.skip(outcome.message)
    if outcome.verdict == "failed":
        pytest.fail(outcome.message, pytrace=False)
