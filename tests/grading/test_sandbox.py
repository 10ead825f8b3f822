"""The sandbox: the same verdicts as in one's own process, and nothing to break or to steal."""

import json
import re
import shutil
import time
from importlib import import_module

import pytest
import torch
from mutants.answers import PREAMBLE, apply, given, mutants, references, run, variants

from gclib.chapters import CHAPTERS, find_chapter, repository
from gclib.checks.exercise import exercises_of
from gclib.checks.handle import Opaque, StudentError
from gclib.checks.work import Work, check_one, code_cells
from gclib.grading.sandbox import wire
from gclib.grading.sandbox.jail import Limits, NoSandbox, Sandbox, check_bubblewrap
from gclib.grading.sandbox.visible import write_visible


def _why_no_sandbox():
    try:
        check_bubblewrap()
    except NoSandbox as error:
        return str(error)
    return ""


needs_bubblewrap = pytest.mark.skipif(bool(_why_no_sandbox()), reason=_why_no_sandbox())


class TestWire:
    @pytest.mark.parametrize(
        "value",
        [
            None,
            True,
            -3,
            2**80,
            0.1,
            float("inf"),
            "ä\x00\n",
            (1, [2, (3,)]),
            {"a": {"b": ()}},
            torch.float16,
            Opaque("Thing"),
        ],
    )
    def test_plain_values_come_back(self, value):
        assert self.through(value) == value

    @pytest.mark.parametrize(
        "dtype", [torch.bool, torch.int64, torch.bfloat16, torch.float64, torch.complex64]
    )
    @pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
    def test_tensors_come_back(self, dtype, shape):
        x = (10 * torch.rand(shape)).to(dtype)
        found = self.through((x.mT if len(shape) == 2 else x, x))
        assert found[1].dtype == dtype
        assert torch.equal(found[1], x)
        assert torch.equal(found[0], x.mT if len(shape) == 2 else x)
        found[1].zero_()  # writable

    @staticmethod
    def through(value):
        frame = wire.pack(value)
        length = int.from_bytes(frame[:8], "big")
        return wire.unpack(frame[8 : 8 + length], frame[8 + length :])

    @pytest.mark.parametrize(
        ("form", "rest"),
        [
            ({"tensor": ["float64", [1]]}, b"1234567"),
            ({"tensor": ["float64", [-1]]}, b""),
            ({"tensor": ["float64", [2**39, 2**39]]}, b""),
            ({"tensor": ["float64", [0.5]]}, b""),
            ({"tensor": ["object", [1]]}, b"12345678"),
            ({"tensor": ["uint8", [1]]}, b"12"),
            ({"tuple": 3}, b""),
            ({"pickle": "x"}, b""),
            ({"a": 1, "b": 2}, b""),
            ([1], b""),
            (json.loads("[" * 90 + "]" * 90), b""),
        ],
    )
    def test_what_is_no_message_is_refused(self, form, rest):
        with pytest.raises(wire.BadMessage):
            wire.unpack(json.dumps(form).encode(), rest)

    def test_no_nesting_that_breaks_the_reader(self):
        for text in (b'{"list":[' * 50_000, b"[" * 100_000, b"\xff", b""):
            with pytest.raises(wire.BadMessage):
                wire.unpack(text, b"")

    def test_only_plain_values_are_sent(self):
        with pytest.raises(TypeError, match="set cannot be sent"):
            wire.pack({1})
        deep = ()
        for _ in range(20):
            deep = (deep,)
        with pytest.raises(ValueError, match="nested too deep"):
            wire.pack(deep)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As in the sandbox; several wait for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sandboxes(tmp_path_factory):
    """A sandbox for each chapter, made when it is asked for."""
    made = {}

    def sandbox(number="01"):
        if number not in made:
            folder = tmp_path_factory.mktemp(f"visible{number}")
            write_visible(find_chapter(number), folder)
            limits = Limits(memory=2**30, call_seconds=3, seconds=30)
            made[number] = Sandbox(folder, limits)
        return made[number]

    yield sandbox
    for one in made.values():
        one.close()


def verdicts(sandbox, chapter, answers):
    """Outcomes of all checks of a chapter on answers in the sandbox."""
    cells = [("preamble", False, PREAMBLE)]
    cells += [(name, False, source) for name, source in given(chapter).items()]
    cells += [(name, True, source) for name, source in answers.items()]
    found = {}
    with sandbox.student(cells, "a student") as student:
        for exercise in checks_of(chapter):
            found[exercise.id, exercise.hidden] = check_one(student.begin(), exercise, seed=5)
    return found


def checks_of(chapter):
    hidden = import_module(f"gclib.checks.hidden.c{chapter}")
    return exercises_of(find_chapter(chapter).checks()) + exercises_of(hidden)


def own_verdicts(chapter, answers):
    work = Work("a student", run(answers))
    return {(e.id, e.hidden): check_one(work, e, seed=5) for e in checks_of(chapter)}


def same(found, expected):
    """Verdicts and words; numbers that follow from a random initialisation may differ."""

    def said(outcomes):
        number = re.compile(r"-?\d[\d.e+-]*")
        return {k: (v.verdict, number.sub("0", v.message)) for k, v in outcomes.items()}

    assert said(found) == said(expected)


@needs_bubblewrap
@pytest.mark.parametrize("chapter", [chapter.number for chapter in CHAPTERS])
def test_references_pass_every_check(chapter, sandboxes):
    found = verdicts(sandboxes(chapter), chapter, references(chapter))
    assert {v.verdict for v in found.values()} == {"passed"}, [
        v.message for v in found.values() if v.verdict != "passed"
    ]


@needs_bubblewrap
@pytest.mark.full
def test_solution_notebooks_pass_every_check(sandboxes):
    for chapter in CHAPTERS:
        cells = list(code_cells(repository() / "solutions" / chapter.notebook))
        with sandboxes(chapter.number).student(cells, "solution") as student:
            for exercise in checks_of(chapter.number):
                outcome = check_one(student.begin(), exercise)
                assert outcome.verdict == "passed", outcome.message


@needs_bubblewrap
@pytest.mark.full
@pytest.mark.parametrize("chapter", [chapter.number for chapter in CHAPTERS])
def test_first_mutants_get_the_verdicts_and_words_of_ones_own_process(chapter, sandboxes):
    answers = references(chapter)
    for exercise, found in mutants(chapter).items():
        answers[exercise] = apply(found[0].edits, answers[exercise])
    same(verdicts(sandboxes(chapter), chapter, answers), own_verdicts(chapter, answers))


@needs_bubblewrap
@pytest.mark.full
@pytest.mark.parametrize("chapter", [chapter.number for chapter in CHAPTERS])
def test_mutants_and_variants_get_the_verdicts_of_ones_own_process(chapter, sandboxes):
    plain, names = references(chapter), list(references(chapter))
    for kind in (
        {e: [apply(m.edits, plain[e]) for m in found] for e, found in mutants(chapter).items()},
        {e: list(found.values()) for e, found in variants(chapter).items()},
    ):
        for place in range(1, max(map(len, kind.values())), 5):  # each takes seconds
            answers = {
                e: kind[e][place] if place < len(kind.get(e, ())) else plain[e] for e in names
            }
            same(verdicts(sandboxes(chapter), chapter, answers), own_verdicts(chapter, answers))


def probe(sandbox, body, **limits):
    """What a function of this body returns in the sandbox."""
    lines = "\n".join(f"    {line}" for line in body.strip().split("\n"))
    source = f"def probe():\n    import os, socket, sys, time, torch\n{lines}\n"
    with sandbox.student([("answer", True, source)], "a student") as student:
        return student.begin().definitions["probe"].call()


def message(sandbox, body):
    with pytest.raises(StudentError) as caught:
        probe(sandbox, body)
    return str(caught.value)


@needs_bubblewrap
class TestNothingToSteal:
    @pytest.mark.parametrize(
        "name",
        [
            "gclib.checks.hidden.c01",
            "gclib.checks.c01",
            "gclib.blocks.non_local",
            "gclib.grading.sandbox.jail",
            "tests",
            "mutants",
        ],
    )
    def test_modules_that_are_not_there(self, name, sandboxes):
        assert "ModuleNotFoundError" in message(sandboxes(), f"import {name}")

    def test_later_references_are_not_there_and_earlier_ones_are(self, sandboxes):
        assert probe(sandboxes("02"), "from gclib.blocks import NonLocalBlock\nreturn 1") == 1
        assert "ImportError" in message(sandboxes("02"), "from gclib.blocks import GCBlock")
        assert "ImportError" in message(sandboxes("04"), "from gclib.blocks import SEBlock")
        assert probe(sandboxes("05"), "from gclib.blocks import SEBlock\nreturn 1") == 1

    def test_files_that_are_not_there(self, sandboxes, tmp_path):
        secret = tmp_path / "gradebook.db"
        secret.write_text("1")
        for path in (secret, repository() / "solutions", "/etc/passwd", "/home", "/etc/shadow"):
            assert probe(sandboxes(), f"return os.path.exists({str(path)!r})") is False

    def test_environment_holds_nothing(self, sandboxes, monkeypatch):
        monkeypatch.setenv("COURSE_SECRET", "1")
        names = probe(sandboxes(), "return sorted(os.environ)")
        assert set(names) <= {
            "PATH",
            "HOME",
            "LANG",
            "PYTHONDONTWRITEBYTECODE",
            "PYTHONPATH",
            "PWD",
            "LC_CTYPE",
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
        }

    def test_no_network(self, sandboxes):
        for address in ("127.0.0.1", "1.1.1.1"):
            text = message(sandboxes(), f"socket.create_connection(({address!r}, 80), 2)")
            assert "Error" in text

    def test_no_place_to_write(self, sandboxes):
        for folder in ("/", "/tmp", "/dev", "/dev/shm", "/usr", "/run", "/var/tmp", "/proc"):
            assert "Error" in message(sandboxes(), f"open('{folder}/x', 'w').write('1')")
        here = probe(sandboxes(), "import gclib\nreturn os.path.dirname(gclib.__file__)")
        assert "Error" in message(sandboxes(), f"open({here!r} + '/x', 'w').write('1')")

    def test_no_look_into_the_parent(self, sandboxes):
        for path in ("mem", "environ", "fd/0", "maps"):
            text = message(sandboxes(), f"open(f'/proc/{{os.getppid()}}/{path}', 'rb').read(1)")
            assert "PermissionError" in text, path

    def test_no_sockets_but_its_own(self, sandboxes):
        count = "found = []\nfor n in os.listdir('/proc/self/fd'):\n"
        count += "    try:\n        found.append(os.readlink('/proc/self/fd/' + n))\n"
        count += "    except OSError:\n        pass\nreturn found"
        links = probe(sandboxes(), count)
        assert sum("socket" in link for link in links) == 1, links


@needs_bubblewrap
@pytest.mark.full
class TestNothingToBreak:
    """After each, the next student gets a working process."""

    @pytest.fixture(autouse=True)
    def still_works(self, sandboxes):
        yield
        assert probe(sandboxes(), "return 41 + 1") == 42

    @pytest.mark.parametrize("code", ["os._exit(0)", "os.kill(os.getpid(), 9)", "sys.exit(3)"])
    def test_ending_itself(self, code, sandboxes):
        text = message(sandboxes(), code)
        assert "ended its process" in text or "SystemExit" in text

    def test_ending_everything(self, sandboxes):
        message(sandboxes(), "os.kill(-1, 9)\ntime.sleep(9)")

    def test_stopping_its_parent(self, sandboxes):
        message(sandboxes(), "import signal\nos.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(9)")

    def test_an_endless_loop(self, sandboxes):
        begin = time.monotonic()
        assert "more than 3 s" in message(sandboxes(), "while True:\n    pass")
        assert time.monotonic() - begin < 20

    def test_a_loop_that_no_signal_ends(self, sandboxes):
        body = "import signal\n"
        body += "for n in range(1, 65):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n"
        body += "    except (OSError, ValueError):\n        pass\nwhile True:\n    pass"
        assert "more than 3 s" in message(sandboxes(), body)

    def test_too_much_memory(self, sandboxes):
        text = message(sandboxes(), "return torch.ones(2**20, 2**10).sum()")
        assert "memory" in text
        text = message(sandboxes(), "kept = []\nwhile True:\n    kept.append(bytearray(2**24))")
        assert "memory" in text.lower()

    def test_children_are_ended(self, sandboxes):
        body = "if os.fork() == 0:\n    time.sleep(600)\nreturn 1"
        assert probe(sandboxes(), body) == 1
        count = "return len([n for n in os.listdir('/proc') if n.isdigit()])"
        assert probe(sandboxes(), count) == 2  # the parent, itself

    def test_many_children(self, sandboxes):
        begin = time.monotonic()
        body = "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
        message(sandboxes(), body)
        assert time.monotonic() - begin < 60

    def test_much_output(self, sandboxes):
        text = message(sandboxes(), "while True:\n    print('x' * 10**6, flush=True)")
        assert "more than 3 s" in text

    def test_junk_on_the_wire(self, sandboxes):
        find = "n = next(int(n) for n in os.listdir('/proc/self/fd') "
        find += "if 'socket' in os.readlink(f'/proc/self/fd/{n}'))\n"
        for junk in ("b'x' * 100", "(8).to_bytes(8, 'big') + b'y' * 8", "b'\\xff' * 10**7"):
            text = message(sandboxes(), find + f"os.write(n, {junk})\ntime.sleep(9)")
            assert "the code" in text

    def test_forged_answers_are_wrong_answers(self, sandboxes):
        forge = """
worker = sys.modules["__main__"]
worker._Student.answer = lambda self, request: {"result": {"result": 1, "inputs": [[]],
                                                            "largest": "x", "total": None}}
return 1
"""
        source = "import sys\ndef probe(*a):\n" + "\n".join(
            f"    {line}" for line in forge.strip().split("\n")
        )
        with sandboxes().student([("answer", True, source)], "a student") as student:
            handle = student.begin().definitions["probe"]
            handle.call()
            for call in (handle.call, handle.build, handle.inspect):
                with pytest.raises(StudentError, match="cannot be read"):
                    call(torch.ones(1))

    def test_definitions_that_end_the_process(self, sandboxes):
        leave = ("leaves", True, "import os\nif True:\n    os._exit(0)")
        good = ("good", True, "def probe():\n    return 3")
        with sandboxes().student([leave, good, leave], "a student") as student:
            work = student.begin()
            assert "ended its process" in work.problems["leaves"]
            assert work.definitions["probe"].call() == 3
            student.end()  # as a later call that ends the process
            work = student.begin()
            assert "ended its process" in work.problems["leaves"]
            assert work.definitions["probe"].call() == 3


@needs_bubblewrap
def test_a_student_who_breaks_one_exercise_keeps_the_others(sandboxes):
    answers = references("01")
    names = list(answers)
    needs = next(e.needs for e in checks_of("01") if e.id == names[1])
    answers[names[1]] = f"import os\ndef {needs}(*inputs, **options):\n    os._exit(1)\n"
    found = verdicts(sandboxes(), "01", answers)
    assert found[names[0], False].verdict == "passed"
    assert found[names[1], False].verdict == "failed"
    assert "ended its process" in found[names[1], False].message
    assert found[names[2], True].verdict == "passed"


def test_without_bubblewrap_it_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(NoSandbox, match=r"install it .*--unsafe"):
        Sandbox(tmp_path)


@needs_bubblewrap
def test_a_sandbox_that_does_not_start_says_why(tmp_path):
    with Sandbox(tmp_path) as sandbox, pytest.raises(NoSandbox, match="No module named 'gclib"):
        sandbox.start()


def test_visible_parts_import_nothing_that_is_missing(tmp_path):
    import subprocess
    import sys

    modules = {}
    for chapter in CHAPTERS:
        folder = tmp_path / chapter.number
        write_visible(chapter, folder)
        modules[str(folder)] = sorted(
            ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
            for path in (folder / "gclib").rglob("*.py")
        )
    # One process imports torch, and forks for each chapter.
    code = f"""
import importlib, os, sys, torch
sys.path = [path for path in sys.path if path not in ("", {str(repository())!r})]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
for folder, names in {modules!r}.items():
    if os.fork() == 0:
        sys.path.insert(0, folder)
        for name in names:
            importlib.import_module(name)
        assert sys.modules["gclib.checks"].__file__.startswith(folder)
        sys.exit()
    if os.wait()[1]:
        sys.exit("chapter " + folder[-2:])
"""
    done = subprocess.run(
        [sys.executable, "-s", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.full
def test_unsafe_kills_only_what_it_started(tmp_path):
    import subprocess
    import sys

    write_visible(find_chapter("01"), tmp_path)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with Sandbox(tmp_path, Limits(call_seconds=2, seconds=9), unsafe=True) as sandbox:
            assert probe(sandbox, "return 41 + 1") == 42
            assert "more than 2 s" in message(sandbox, "while True:\n    pass")
            assert "ended its process" in message(sandbox, "os._exit(3)")
            assert probe(sandbox, "return 41 + 1") == 42
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_worker_that_is_not_alone_refuses_to_be_told_so():
    import subprocess
    import sys

    from gclib.grading.sandbox import worker

    assert not worker.is_alone()
    settings = json.dumps({"alone": True})
    command = [sys.executable, "-m", "gclib.grading.sandbox.worker", "0", settings]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "not in a sandbox of its own" in done.stderr
