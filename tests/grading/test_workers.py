"""Workers: one bad task costs itself, and nothing outlives the parent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gclib.grading.workers import CannotStart, run_all


def start(offset):
    """The function that workers run."""

    def work(kind, value):
        if kind == "raise":
            raise ValueError("no")
        if kind == "die":
            os._exit(3)
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "sleep":
            time.sleep(value)
        return value + offset

    return work


def start_that_fails():
    raise RuntimeError("nothing to start")


def start_that_dies():
    os._exit(9)


def results(tasks, **options):
    found = run_all(tasks, start, (100,), **{"workers": 2, "seconds": 60} | options)
    return {key: (result, problem) for key, result, problem in found}


def test_every_task_has_its_result():
    found = results([(k, ("add", k)) for k in range(9)], workers=3)
    assert found == {k: (100 + k, "") for k in range(9)}
    assert results([]) == {}


def test_one_that_dies_is_tried_again_then_given_up_and_costs_nobody_else():
    tasks = [("a", ("die", 1)), *((k, ("add", k)) for k in range(4)), ("b", ("killed", 1))]
    found = results(tasks)
    assert {k: found[k] for k in range(4)} == {k: (100 + k, "") for k in range(4)}
    assert found["a"] == (None, "the process that judges it ended (exit status 3)")
    assert found["b"] == (None, "the process that judges it ended (exit status -9)")


def test_one_that_raises_says_why():
    assert results([("a", ("raise", 1)), ("b", ("add", 1))]) == {
        "a": (None, "ValueError: no"),
        "b": (101, ""),
    }


def test_one_that_takes_too_long_is_given_up():
    tasks = [("slow", ("sleep", 600)), ("quick", ("add", 1))]
    assert results(tasks, seconds=1.5) == {
        "quick": (101, ""),
        "slow": (None, "it took too long"),
    }


@pytest.mark.parametrize(
    ("failing", "why"), [(start_that_fails, "nothing to start"), (start_that_dies, "status 9")]
)
def test_what_cannot_start_is_nobodys_fault(failing, why):
    with pytest.raises(CannotStart, match=why):
        list(run_all([(1, (2,))], failing, (), workers=1, seconds=9))


def test_leaving_early_ends_the_workers():
    found = run_all([(k, ("sleep", 0.1)) for k in range(50)], start, (0,), workers=2, seconds=9)
    next(found)
    children = _children(os.getpid())
    assert len(children) >= 2
    found.close()
    assert not set(_children(os.getpid())) & set(children)


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        f"import sys\nsys.path[:0] = [{os.path.dirname(__file__)!r}]\n"
        "from gclib.grading.workers import run_all\nimport test_workers\n"
        "if __name__ == '__main__':\n"
        "    tasks = [(k, ('sleep', 600)) for k in range(2)]\n"
        "    tasks = [('first', ('add', 1)), *tasks]\n"
        "    found = run_all(tasks, test_workers.start, (1,), workers=2, seconds=999)\n"
        "    print(next(found), flush=True)\n    list(found)\n"
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "('first', 2, '')\n"
    workers = _children(parent.pid)
    assert len(workers) >= 2
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not any(_is_running(pid) for pid in workers):
            return
        time.sleep(0.1)
    raise AssertionError(f"still running: {workers}")


def _children(parent):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z" and _is_worker(name):
            found.append(int(name))
    return found


def _is_worker(name):
    with open(f"/proc/{name}/cmdline") as file:
        return "spawn_main" in file.read()  # and not multiprocessing's own resource tracker


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
