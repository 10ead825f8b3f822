"""Times of whole processes: what is started, what is counted, what is said when it fails."""

import sys
from pathlib import Path

import pytest

from gclib.bench import course, report
from gclib.cli import main


@pytest.fixture
def own_tasks(monkeypatch):
    """Small processes in place of the course's."""
    made = []

    def use(*lines):
        made[:] = [
            course.Task(f"task {number}", part, (sys.executable, "-c", line), Path.cwd())
            for number, (part, line) in enumerate(lines)
        ]

    monkeypatch.setattr(course, "tasks", lambda parts, root, scratch: made)
    return use


def test_time_and_memory_are_those_of_the_process(own_tasks):
    sleep = "import time; time.sleep(0.3)"
    large = "x = bytearray(300 << 20); x[::4096] = b'1' * len(x[::4096])"
    own_tasks(("commands", sleep), ("commands", large), ("notebooks", "1"))
    found = {r["task"]: r for r in course.run(rounds=3)}
    assert found["task 0"]["median"] > 0.3
    assert [r["rounds"] for r in found.values()] == [3, 3, 1]
    if sys.platform != "win32":
        assert found["task 0"]["peak"] < 100 << 20  # not that of this process, which holds torch
        assert found["task 1"]["peak"] > 300 << 20


def test_a_process_that_fails_is_named_with_its_last_words(own_tasks, capsys):
    own_tasks(("commands", "raise SystemExit('no disk')"))
    assert main(["bench", "course"]) == 2
    error = capsys.readouterr().err
    assert "task 0 failed:" in error
    assert "no disk" in error


def test_without_the_course(monkeypatch, capsys):
    monkeypatch.setattr(course, "repository", lambda: None)
    assert main(["bench", "course"]) == 2
    assert "clone it" in capsys.readouterr().err


def test_every_chapter_is_measured(tmp_path):
    root = Path(course.__file__).parents[2]
    names = [task.name for task in course.tasks(course.PARTS, root, tmp_path)]
    assert names.count("pytest tests/") == 1
    assert sum(name.startswith("gclib check") for name in names) == len(course.CHAPTERS)
    assert sum(name.startswith("solutions/") for name in names) == len(course.CHAPTERS)
    assert not (root / "work" / "start").exists()


def test_page_says_what_is_too_slow_or_too_large():
    def record(task, part, seconds, mebibytes):
        times = {"median": seconds, "low": seconds, "high": seconds, "rounds": 1}
        return {"task": task, "part": part, "peak": mebibytes << 20, **times}

    records = [
        record("import torch", "commands", 9, 600),
        record("gclib check 01", "commands", 6, 600),
        record("solutions/a", "notebooks", 10, 3000),
        record("solutions/b", "notebooks", 10, 600),
    ]
    run = {"command": "c", "allocator": "default", "machine": {}, "records": records}
    page = report.as_markdown({"course": run})
    assert "| `import torch` | 9 | one run |  |  | 600 |" in page
    assert "| `gclib check 01` | 6 | one run | 5 s | no | 600 |" in page
    assert "| `solutions/a` | 10 | one run | 60 s | no | 3000 |" in page
    assert "| `solutions/b` | 10 | one run | 60 s | yes | 600 |" in page
    assert "All notebooks: 20 s." in page
