"""What a student's processes may take together, what they leave behind, and what they see."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from mutants.answers import PREAMBLE, references
from test_sandbox import checks_of, message, needs_bubblewrap, probe

from gclib.chapters import find_chapter
from gclib.checks.work import check_one
from gclib.grading.sandbox.bubblewrap import bubblewrap, view
from gclib.grading.sandbox.jail import Limits, NoSandbox, Sandbox, check_sandbox
from gclib.grading.sandbox.visible import write_visible

pytestmark = pytest.mark.full
MEMORY = 2**29


@pytest.fixture(scope="module")
def visible(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visible")
    write_visible(find_chapter("01"), folder)
    return folder


@pytest.fixture(scope="module", params=["sandbox", "unsafe"])
def sandbox(request, visible):
    unsafe = request.param == "unsafe"
    if not unsafe:
        with contextlib.suppress(NoSandbox):
            check_sandbox()
            unsafe = None
        if unsafe is not None:
            pytest.skip("no bubblewrap here")
    with Sandbox(visible, Limits(MEMORY, 30, 90), unsafe=bool(unsafe)) as sandbox:
        yield sandbox


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class TestMemory:
    def test_of_many_processes_together(self, sandbox):
        body = "for i in range(6):\n    if os.fork() == 0:\n        kept = b'x' * (300 * 2**20)\n"
        body += "        time.sleep(60)\ntime.sleep(60)"
        assert "took more memory than the 0.5 GiB" in message(sandbox, body)
        assert probe(sandbox, "return 1") == 1

    def test_of_other_programs(self, sandbox):
        code = "kept = b'x' * (300 * 2**20); import time; time.sleep(60)"
        body = "import subprocess\n"
        body += f"for i in range(6):\n    subprocess.Popen([sys.executable, '-c', {code!r}])\n"
        body += "time.sleep(60)"
        assert "took more memory than the 0.5 GiB" in message(sandbox, body)

    def test_after_the_first_thread_has_gone(self, sandbox):
        body = "import ctypes, threading\nlibc = ctypes.CDLL(None)\n"
        body += "def take():\n    kept = b'x' * (300 * 2**20)\n    time.sleep(60)\n"
        body += "for i in range(6):\n    if os.fork() == 0:\n"
        body += "        threading.Thread(target=take).start()\n"
        body += "        libc.syscall(60 if os.uname().machine == 'x86_64' else 93, 0)\n"
        body += "time.sleep(60)"
        assert "took more memory than the 0.5 GiB" in message(sandbox, body)

    def test_of_one_process(self, sandbox):
        assert "emory" in message(sandbox, "return b'x' * 2**30")

    def test_that_no_process_would_have(self, sandbox):
        shared = "import mmap\nmap = mmap.mmap(-1, 2**20)"
        assert "PermissionError" in message(sandbox, shared)
        if sandbox._wrap:
            assert probe(sandbox, "return os.path.exists('/dev/zero')") is False

    def test_of_page_tables(self, sandbox):
        body = "import mmap\nmap = mmap.mmap(-1, 2**42, flags=mmap.MAP_PRIVATE | 0x4000, prot=1)"
        assert "OSError" in message(sandbox, body)

    def test_of_a_programs_start_is_not_counted_twice(self, sandbox):
        body = "import subprocess\nkept = b'x' * (350 * 2**20)\n"
        body += "for i in range(60):\n    subprocess.run(['true'], check=True)\nreturn 1"
        assert probe(sandbox, body) == 1


class TestProcesses:
    def test_too_many(self, sandbox):
        body = "for i in range(80):\n    if os.fork() == 0:\n        time.sleep(60)\ntime.sleep(60)"
        assert "more than 64 processes" in message(sandbox, body)
        assert probe(sandbox, "return 1") == 1

    def test_a_flood(self, sandbox):
        body = "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
        assert "more than 64 processes" in message(sandbox, body)
        assert probe(sandbox, "return 1") == 1

    def test_as_many_as_may_be(self, sandbox):
        body = "import subprocess\n"
        body += "found = [subprocess.Popen(['sleep', '60']) for i in range(40)]\n"
        body += "time.sleep(0.5)\nfor one in found:\n    one.kill()\n    one.wait()\nreturn 1"
        assert probe(sandbox, body) == 1


# Sleepers and busy loops that hear no signal and leave their parent, at import and in each call.
LEAVES = """
import os, signal, time

def leave(busy):
    if os.fork() == 0:
        if os.fork() == 0:
            for number in range(1, 65):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            try:
                os.setsid()
            except OSError:
                os.setpgid(0, 0)
            while busy:
                pass
            time.sleep(600)
        os._exit(0)

if True:
    leave(True)
    leave(False)
    os.fork()  # the copy goes on with what is below
"""


class TestLeftovers:
    def test_nothing_stays(self, sandbox):
        body = "read, write = os.pipe()\n"
        body += "for busy in (True, False):\n    if os.fork() == 0:\n"
        body += "        if os.fork() == 0:\n            os.setpgid(0, 0)\n"
        body += "            os.write(write, b'%d ' % os.getpid())\n"
        body += "            while busy:\n                pass\n            time.sleep(600)\n"
        body += "        os._exit(0)\n    os.wait()\n"
        body += "found = b''\nwhile found.count(b' ') < 2:\n    found += os.read(read, 99)\n"
        body += "return tuple(int(pid) for pid in found.split())"
        pids = probe(sandbox, body)
        assert len(pids) == 2
        if not sandbox._wrap:  # else the numbers are those of the namespace
            assert not any(alive(pid) for pid in pids)
        else:
            running = "return [n for n in os.listdir('/proc') if n.isdigit()]"
            assert len(probe(sandbox, running)) == 2

    def test_threads_do_not_reach_the_next_check(self, sandbox):
        source = "import os, threading, time\n"
        source += "def spin():\n    while True:\n        pass\n"
        source += "def probe(start):\n    if start:\n"
        source += "        threading.Thread(target=spin, daemon=True).start()\n"
        source += "    return os.getpid(), threading.active_count()\n"
        with sandbox.student([("answer", True, source)], "a student") as student:
            first, threads = student.begin().definitions["probe"].call(True)
            assert threads == 2
            second, threads = student.begin().definitions["probe"].call(False)
            assert threads == 1
            assert second != first

    def test_whoever_ends_later_does_not_fail_the_next_check(self, sandbox):
        source = "import os, threading\n"
        source += "def probe(end):\n    if end:\n"
        source += "        threading.Timer(0.1, os._exit, [0]).start()\n    return 1\n"
        with sandbox.student([("answer", True, source)], "a student") as student:
            assert student.begin().definitions["probe"].call(True) == 1
            time.sleep(0.5)
            assert student.begin().definitions["probe"].call(False) == 1

    def test_verdicts_repeat_beside_busy_processes(self, sandbox):
        answers = references("01")
        # Visible checks of the exercise that leaves processes, and of those beside it.
        visible = [e for e in checks_of("01") if not e.hidden]
        at = next(i for i, e in enumerate(visible) if e.needs.islower())
        chosen, exercise = visible[at : at + 3], visible[at]
        name = exercise.needs
        answers[exercise.id] = f"""{LEAVES}
{answers[exercise.id]}
_plain = {name}

def {name}(*inputs, **options):
    leave(True)
    leave(False)
    os.fork()
    return _plain(*inputs, **options)
"""
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
        try:
            rounds = 10 if sandbox._wrap else 2
            found = [self.outcomes(sandbox, answers, chosen) for _ in range(rounds)]
        finally:
            for one in busy:
                one.kill()
                one.wait()
        assert [o.message for outcomes in found for o in outcomes if o.verdict != "passed"] == []

    @staticmethod
    def outcomes(sandbox, answers, chosen):
        cells = [("preamble", False, PREAMBLE)]
        cells += [(name, True, source) for name, source in answers.items()]
        with sandbox.student(cells, "a student") as student:
            return [check_one(student.begin(), exercise, seed=5) for exercise in chosen]

    def test_close_ends_a_busy_student(self, visible, sandbox):
        other = Sandbox(visible, Limits(MEMORY, 30, 90), unsafe=not sandbox._wrap)
        other.start()
        source = "import os\ndef probe():\n    os.fork()\n    os.fork()\n"
        student = other.student([("answer", True, source)], "a student").__enter__()
        student.begin().definitions["probe"].call()
        running = workers_of(visible, other)
        assert len(running) >= 2
        other.close()
        ended(running)


def workers_of(visible, sandbox):
    """The sandbox's process and its descendants, seen from outside."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found, todo = [], [sandbox if isinstance(sandbox, int) else sandbox._process.pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def ended(pids):
    until = time.monotonic() + 60
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in pids if alive(pid)]


@pytest.mark.parametrize("unsafe", [False, True])
def test_a_killed_grader_takes_everything_with_it(visible, unsafe):
    if not unsafe:
        try:
            check_sandbox()
        except NoSandbox as error:
            pytest.skip(str(error))
    code = f"""
import sys, time
from pathlib import Path
from gclib.grading.sandbox.jail import Sandbox
sandbox = Sandbox(Path({str(visible)!r}), unsafe={unsafe})
source = "import os\\nif True:\\n    os.fork()\\ndef probe():\\n    os.fork()\\n"
source += "    while True: pass"
with sandbox.student([("answer", True, source)], "a student") as student:
    probe = student.begin().definitions["probe"]
    print("ready", flush=True)
    probe.call()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as grader:
        assert grader.stdout.readline() == b"ready\n"
        time.sleep(0.5)
        running = workers_of(visible, grader.pid)
        assert len(running) >= 3
        grader.kill()
    ended(running)


@needs_bubblewrap
class TestView:
    """Folders as they may lie on an instructor's machine, looked at from inside."""

    def seen(self, needed, hidden):
        command = bubblewrap(Path("/usr"))
        end = command.index("--proc")
        command = [*command[:end], *view(needed, hidden), *command[end:]]
        folder = needed[0]
        done = subprocess.run(
            [*command, "sh", "-c", f"find {folder}/ -type f -size +0; touch {folder}/new"],
            capture_output=True,
            text=True,
        )
        assert "Read-only" in done.stderr
        return {str(Path(line).relative_to(folder)) for line in done.stdout.split("\n") if line}

    @pytest.fixture
    def prefix(self, tmp_path):
        prefix = tmp_path / "prefix"
        for name in (
            "bin/python",
            "lib/site-packages/torch/a.py",
            "lib/site-packages/gclib/checks/hidden.py",
            "lib/site-packages/timm/b.py",
            "src/course/solutions/c.py",
            "src/course/.venv/bin/python",
            "src/course/gclib/d.py",
            "notes.txt",
            "pyvenv.cfg",
        ):
            path = prefix / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        return prefix

    def test_a_clone_and_an_installed_copy_in_a_shown_folder(self, prefix):
        course = prefix / "src/course"
        hidden = [course, prefix / "lib/site-packages/gclib", prefix / "lib/site-packages/timm"]
        found = self.seen([prefix, course / ".venv"], [*hidden, prefix / "notes.txt"])
        assert found == {
            "bin/python",
            "lib/site-packages/torch/a.py",
            "src/course/.venv/bin/python",
            "pyvenv.cfg",
        }

    def test_through_a_link(self, prefix, tmp_path):
        link = tmp_path / "link"
        link.symlink_to(prefix)
        found = self.seen([link], [prefix / "src", prefix / "lib"])
        assert found == {"bin/python", "notes.txt", "pyvenv.cfg"}
        found = self.seen([prefix], [link / "src", link / "lib"])
        assert found == {"bin/python", "notes.txt", "pyvenv.cfg"}

    def test_an_environment_that_is_the_hidden_folder(self, prefix):
        found = self.seen([prefix], [prefix, prefix / "lib/site-packages/gclib"])
        assert found == {
            "bin/python",
            "lib/site-packages/torch/a.py",
            "lib/site-packages/timm/b.py",
            "pyvenv.cfg",
        }

    def test_what_is_not_shown_needs_no_veil(self, prefix, tmp_path):
        assert view([prefix / "bin"], [prefix / "src", tmp_path]) == [
            "--ro-bind",
            str(prefix / "bin"),
            str(prefix / "bin"),
        ]


@needs_bubblewrap
def test_peers_and_the_classes_folder_are_hidden(visible):
    folder = Path(sys.prefix, "share")
    assert any(folder.iterdir())
    with Sandbox(visible, hidden=[folder]) as sandbox:
        assert probe(sandbox, f"return os.listdir({str(folder)!r})") == []
        for name in ("timm.layers", "mmcv.cnn"):
            assert "ModuleNotFoundError" in message(sandbox, f"import {name}")


@pytest.fixture(scope="module")
def short(visible):
    with Sandbox(visible, Limits(MEMORY, call_seconds=3, seconds=60)) as sandbox:
        yield sandbox


def test_a_page_without_a_sandbox(visible):
    with Sandbox(visible, unsafe=True) as sandbox, sandbox.student([], "a student") as student:
        assert student.page(["print(1)"])[0][0]["text"] == "1\n"


@needs_bubblewrap
class TestPage:
    def shown(self, sandbox, *cells):
        with sandbox.student([], "a student") as student:
            found = student.page(cells)
        assert len(found) == len(cells)
        for outputs in found:
            cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.from_dict(o) for o in outputs])
            nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
        return found

    def test_cells_share_their_names(self, short):
        first, second, third = self.shown(
            short, "import torch\nx = torch.ones(2)", "print('a')\nx + 1", "1 / 0\nprint('b')"
        )
        assert first == []
        assert second == [
            {"output_type": "stream", "name": "stdout", "text": "a\n"},
            {
                "output_type": "execute_result",
                "data": {"text/plain": "tensor([2., 2.])"},
                "metadata": {},
                "execution_count": 2,
            },
        ]
        assert [o["output_type"] for o in third] == ["error"]
        assert third[0]["ename"] == "ZeroDivisionError"
        assert "----> 1 1 / 0" in "\n".join(third[0]["traceback"])

    def test_magics_and_markup(self, short):
        cells = ["%time 1 + 1", "!echo hello", "%%writefile x\n1", "exit()", "input()", "def f(:"]
        cells += ["from IPython.display import HTML\nHTML('<script>1</script>')", "print('end')"]
        found = self.shown(short, *cells)
        assert "Wall time" in found[0][0]["text"]
        assert found[1][0]["text"] == "hello\n"
        assert found[2][-1]["ename"] == "OSError"
        assert found[4][-1]["ename"] == "EOFError"
        assert found[5][0]["ename"] == "SyntaxError"
        assert found[6][0]["data"] == {"text/plain": "<IPython.core.display.HTML object>"}
        assert found[7][0]["text"] == "end\n"

    def test_figures(self, short):
        pytest.importorskip("matplotlib_inline")
        (found,) = self.shown(short, "import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
        assert found[-1]["output_type"] == "display_data"
        assert found[-1]["data"]["image/png"].startswith("iVBOR")

    def test_too_much_and_too_long(self, short):
        ignore = "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass"
        cells = ["print('x' * 10**7)", "while True: pass", "print(1)", ignore, "print(2)"]
        found = self.shown(short, *cells)
        assert len(found[0][0]["text"]) < 110_000
        assert found[0][0]["text"].endswith("is cut]\n")
        assert found[1][0]["ename"] == "TimeIsUp"
        assert found[2][0]["text"] == "1\n"
        assert found[3][0]["text"].startswith("stopped: ")
        assert found[4][0]["text"].startswith("not run: ")

    def test_a_cell_that_ends_the_process(self, short):
        first, second, third = self.shown(short, "print(1)", "import os; os._exit(1)", "print(2)")
        assert first[0]["text"] == "1\n"
        assert "stopped: the code ended its process" in second[0]["text"]
        assert "not run: " in third[0]["text"]

    def test_forged_outputs_are_refused(self, short):
        forge = "import gc\nfrom gclib.grading.sandbox.page import Recorder\n"
        forge += "[one] = [o for o in gc.get_objects() if type(o).__name__ == 'Recorder']\n"
        forge += "one.outputs.append({'output_type': 'display_data', 'data': %s})"
        for data in ("{'text/html': '<script>'}", "{'image/png': 'PHN2Zz4='}", "7"):
            (found,) = self.shown(short, forge % data)
            assert "script" not in str(found)
            assert "PHN2" not in str(found)


def test_unknown_kinds_are_refused(tmp_path, monkeypatch):
    for kind in ("lxc", "docker", "podman"):
        monkeypatch.setattr("shutil.which", lambda name: None)
        with pytest.raises(NoSandbox, match=r"no such sandbox|not installed; install it"):
            Sandbox(tmp_path, kind=kind, image="x")
    assert os.listdir(tmp_path) == []
