"""The ``gclib`` command: exit codes, where messages go, and what they say."""

import contextlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from handmade import cell, code, notebook_of, released, solved, write

import gclib
from gclib.chapters import CHAPTERS
from gclib.cli import build_parser, main

NOTEBOOK = "work/00_start/start.ipynb"
COMMANDS = ("doctor", "lab", "start", "status", "check", "submit-check")
EXERCISES = ("c00-e1", "c00-e2", "c00-e3", "c00-e4")


@pytest.fixture
def run(course, monkeypatch, capsys):
    """Run a command in this process, in the course's folder: status, stdout, stderr."""
    monkeypatch.chdir(course)

    def run(*arguments):
        try:
            status = main([str(one) for one in arguments])
        except SystemExit as error:  # argparse
            status = error.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


def refused(result, *texts):
    """Status 2, nothing on stdout, one sentence of these texts on stderr."""
    status, out, err = result
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    for text in texts:
        assert text in err
    return True


# The command itself


def test_help_names_every_command(run):
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    for name in COMMANDS:
        assert re.search(rf"^ +{name}\s", out, re.M), name


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_help_of_its_own(run, name):
    status, out, _ = run(name, "--help")
    assert status == 0
    assert out.startswith(f"usage: gclib {name}")


def test_version(run):
    assert run("--version") == (0, f"gclib {gclib.__version__}\n", "")


def test_no_command_is_a_usage_error(run):
    assert refused(run(), "usage: gclib")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("strat", "start"), ("chek", "check"), ("statsu", "status"), ("submit", "submit-check")],
)
def test_a_wrong_command_gets_the_nearest_one(run, typed, meant):
    assert refused(run(typed, "01"), f"there is no command '{typed}'; did you mean 'gclib {meant}'")


def test_a_command_like_no_other_gets_no_suggestion(run):
    result = run("xyzzy")
    assert refused(result, "there is no command 'xyzzy'")
    assert "did you mean" not in result[2]


@pytest.mark.parametrize(
    "arguments", [("start", "--agian"), ("status", "all"), ("check",), ("submit-check",)]
)
def test_wrong_arguments_are_a_usage_error(run, course, arguments):
    assert refused(run(*arguments), "usage: gclib")
    assert not (course / "work").exists()


def test_abbreviated_options_are_refused(run):
    assert refused(run("start", "01", "--aga"))


@pytest.mark.parametrize("name", ["lab", "start", "check"])
@pytest.mark.parametrize("number", ["99", "non_local", "1O"])
def test_an_unknown_chapter_lists_the_chapters(run, course, name, number):
    known = ", ".join(chapter.number for chapter in CHAPTERS)
    message = f"gclib: there is no chapter '{number}'; the chapters are {known}\n"
    assert run(name, number) == (2, "", message)
    assert not (course / "work").exists()


@pytest.mark.parametrize("name", ["lab", "start", "status", "check"])
def test_without_chapters_each_command_says_what_to_do(run, monkeypatch, name):
    monkeypatch.setattr("gclib.workspace.repository", lambda: None)
    arguments = [name] if name == "status" else [name, "00"]
    assert refused(run(*arguments), "gclib: the chapters are not here", "Clone the course")


# gclib start


def test_start_says_what_it_did(run, course):
    status, out, err = run("start")
    assert (status, err) == (0, "")
    assert out == "".join(f"work/{chapter.notebook}: copied\n" for chapter in CHAPTERS)
    status, out, _ = run("start", "00")
    assert (status, out.count("\n")) == (0, 1)
    assert f"{NOTEBOOK}: kept as it is" in out


@pytest.mark.parametrize("number", ["0", "00", "00_start"])
def test_a_chapter_has_three_names(run, course, number):
    assert run("start", number)[0] == 0
    assert [path.name for path in (course / "work").iterdir()] == ["00_start"]


def test_start_again_names_the_place_of_the_old_answers(run, course):
    (course / "work/00_start").mkdir(parents=True)
    (course / NOTEBOOK).write_bytes(b"mine")
    status, out, err = run("start", "00", "--again")
    assert (status, err) == (0, "")
    (place,) = re.findall(r"your answers are in (\S+)", out)
    assert (course / place).read_bytes() == b"mine"


def test_start_again_needs_a_chapter(run, course):
    assert refused(run("start", "--again"), "--again needs a chapter", "gclib start 01 --again")
    assert not (course / "work").exists()


def test_start_and_submit_check_import_no_torch(clone):
    done = clone.python(
        "import sys\n"
        "from gclib.cli import main\n"
        "assert main(['start']) == 0\n"
        f"assert main(['submit-check', '{NOTEBOOK}']) == 0\n"
        "print({'torch', 'numpy', 'matplotlib', 'nbgrader', 'IPython'} & set(sys.modules))\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\nset()\n")


# gclib check


def test_check_of_a_fresh_chapter_is_no_failure(run):
    run("start", "00")
    status, out, err = run("check", "00")
    assert (status, err) == (0, "")
    assert out.endswith("0 passed, 0 failed, 4 not attempted\n")
    for name in EXERCISES:
        assert re.search(rf"^ +- +{name} .* not attempted$", out, re.M)


def test_check_of_a_solved_chapter(run, course):
    write(course / NOTEBOOK, solved("00"))
    status, out, err = run("check", "00")
    assert (status, err) == (0, "")
    assert out.endswith("4 passed, 0 failed, 0 not attempted\n")
    for name in EXERCISES:
        assert re.search(rf"^ +ok +{name} .* passed$", out, re.M)


def test_check_of_a_wrong_answer_says_what_is_wrong(run, course):
    notebook = solved("00")
    cell(notebook, "c00-e3")["source"] = "def softmax(x, dim):\n    return x.exp() / x.exp().sum()"
    write(course / NOTEBOOK, notebook)
    status, out, err = run("check", "00")
    assert (status, err) == (1, "")
    assert out.endswith("3 passed, 1 failed, 0 not attempted\n")
    assert re.search(r"^ +no +c00-e3 .* failed$", out, re.M)
    for text in ("expected", "got", "likely cause", "sum over dim alone", "look at", "section 4"):
        assert text in out


def test_check_says_that_it_has_no_sandbox(run, course):
    write(course / NOTEBOOK, released("00"))
    first = run("check", "00")[1].split("\n")[0]
    assert first == (
        "Running the code of start.ipynb on this computer, without a sandbox: your own only."
    )


def test_status_says_that_it_has_no_sandbox(run, course):
    write(course / NOTEBOOK, released("00"))
    assert "without a sandbox" in run("status")[1]


def test_check_takes_a_notebook_from_anywhere(run, course):
    path = write(course / "elsewhere" / "copy of mine.ipynb", solved("00"))
    status, out, _ = run("check", "00", "--notebook", path)
    assert status == 0
    assert "4 passed" in out


def test_check_without_a_notebook_says_how_to_get_one(run):
    assert run("check", "00") == (2, "", f"gclib: {NOTEBOOK} is not there; run: gclib start 00\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "mine.ipynb: no such file"),
        ('{"cells": [', "mine.ipynb: not a notebook (line 1 is not JSON); restore it from"),
        ('{"nbformat": 3, "worksheets": []}', "mine.ipynb: a notebook in an old format; open it"),
        ("{}", "mine.ipynb: not a notebook; is this the right file?"),
    ],
)
def test_check_of_a_file_that_is_no_notebook_gives_one_sentence(run, course, content, message):
    if content is not None:
        (course / "mine.ipynb").write_text(content)
    result = run("check", "00", "--notebook", "mine.ipynb")
    assert refused(result, f"gclib: {message}")
    assert result[2].count("\n") == 1


def test_check_of_a_broken_notebook_in_work_gives_one_sentence(run, course):
    (course / NOTEBOOK).parent.mkdir(parents=True)
    (course / NOTEBOOK).write_text("")
    assert refused(run("check", "00"), "gclib: start.ipynb: not a notebook (line 1 is not JSON)")


def test_notebook_and_impl_exclude_each_other(run):
    assert refused(run("check", "00", "--notebook", "a", "--impl", "b"), "not allowed with")


# gclib check --impl

MODULE = "\n\n".join(
    ["import torch", "from torch import nn", cell(solved("00"), "c00-e3")["source"]]
)


@pytest.mark.parametrize("name", ["answers_by_name", "answers_by_path.py", "./answers_below.py"])
def test_impl_is_a_module_or_a_file(run, course, name):
    (course / f"{Path(name).stem}.py").write_text(MODULE)
    status, out, err = run("check", "00", "--impl", name)
    assert (status, err) == (0, "")
    assert f"Running the code of {name} " in out
    assert re.search(r"^ +ok +c00-e3 .* passed$", out, re.M)
    assert out.endswith("1 passed, 0 failed, 3 not attempted\n")


def test_impl_that_is_wrong_is_a_failure(run, course):
    (course / "answers_wrong.py").write_text("def softmax(x, dim):\n    return x")
    status, out, err = run("check", "00", "--impl", "answers_wrong.py")
    assert (status, err) == (1, "")
    assert out.endswith("0 passed, 1 failed, 3 not attempted\n")


@pytest.mark.parametrize("name", ["answers_missing", "answers_missing.py", "no/answers_missing.py"])
def test_impl_that_is_missing_gives_one_sentence(run, name):
    result = run("check", "00", "--impl", name)
    assert refused(result, "gclib: ", "answers_missing")
    assert result[2].count("\n") == 1


@pytest.mark.parametrize("name", ["answers_raise", "answers_raise.py"])
def test_impl_that_raises_on_import_gives_one_sentence(run, course, name):
    (course / "answers_raise.py").write_text("raise RuntimeError('not today')")
    message = f"gclib: cannot import {name}: RuntimeError: not today\n"
    assert run("check", "00", "--impl", name) == (2, "", message)


# gclib status


def test_status_before_the_start(run):
    status, out, err = run("status")
    assert (status, err) == (0, "")
    for chapter in CHAPTERS:
        assert f"{chapter.number} {chapter.title}\n   not started: gclib start " in out


def test_status_counts_the_points_of_visible_checks(run, course):
    notebook = solved("00")
    cell(notebook, "c00-e2")["source"] = "def weighted_sum(weights, values):\n    return weights"
    cell(notebook, "c00-e1")["source"] = "raise NotImplementedError"
    write(course / NOTEBOOK, notebook)
    write(course / "work" / CHAPTERS[1].notebook, released("01"))
    status, out, err = run("status")
    assert (status, err) == (0, "")
    assert "visible checks: 2 of 12 points" in out  # 4 in chapter 00, 8 in chapter 01
    for name, verdict in zip(
        EXERCISES, ("not attempted", "failed", "passed", "passed"), strict=True
    ):
        assert re.search(rf"{name} .* {verdict}$", out, re.M)


def test_status_goes_on_after_a_broken_notebook(run, course):
    (course / NOTEBOOK).parent.mkdir(parents=True)
    (course / NOTEBOOK).write_text('{"cells": [')
    write(course / "work" / CHAPTERS[1].notebook, released("01"))
    status, out, _ = run("status")
    assert status == 0
    assert "start.ipynb: not a notebook" in out
    assert "c01-e1" in out


# gclib submit-check


def test_submit_check_of_a_good_notebook(run):
    run("start", "00")
    status, out, err = run("submit-check", NOTEBOOK)
    assert (status, err) == (0, "")
    assert "ready to hand in" in out


def test_submit_check_of_a_bad_notebook(run, course):
    notebook = released("00")
    notebook["cells"].remove(cell(notebook, "c00-e2"))
    write(course / NOTEBOOK, notebook)
    status, out, err = run("submit-check", NOTEBOOK)
    assert (status, out) == (1, "")
    assert "cell c00-e2 is missing" in err


@pytest.mark.parametrize("path", ["work/no.ipynb", "work", "chapters/00_start"])
def test_submit_check_of_a_wrong_path_gives_one_sentence(run, course, path):
    (course / "work").mkdir()
    status, out, err = run("submit-check", path)
    assert status != 0
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(("gclib: ", Path(path).name))
    assert str(course) not in err


# gclib lab


@pytest.fixture
def jupyter(clone):
    """Run ``gclib lab`` with a stand-in for Jupyter: the process, and what Jupyter was given."""

    def start(*arguments, status=0, **env):
        said = clone.root / "said.json"
        (clone.root / "jupyter.py").write_text(  # "python -m jupyter" finds this one first
            "import json, sys\n"
            "print('JupyterLab speaks')\n"
            f"json.dump(sys.argv[1:], open({str(said)!r}, 'w'))\n"
            f"sys.exit({status})\n"
        )
        # In a process of its own, because gclib may become JupyterLab.
        done = clone.gclib("lab", *arguments, env=env)
        return done, json.loads(said.read_text()) if said.exists() else None

    return start


def test_lab_copies_the_chapters_and_opens_the_one_that_was_asked_for(jupyter, clone):
    done, given = jupyter("01")
    assert (done.returncode, done.stderr) == (0, "")
    assert given[0] == "lab"
    assert "--LabApp.default_url=/lab/tree/work/01_non_local/non_local.ipynb" in given
    for chapter in CHAPTERS:
        assert f"work/{chapter.notebook} is your copy." in done.stdout
        assert (clone.root / "work" / chapter.notebook).is_file()


def test_lab_opens_the_first_chapter_unless_told(jupyter):
    assert "--LabApp.default_url=/lab/tree/work/00_start/start.ipynb" in jupyter()[1]


def test_lab_keeps_an_edited_notebook(jupyter, clone):
    (clone.root / NOTEBOOK).parent.mkdir(parents=True)
    (clone.root / NOTEBOOK).write_bytes(b"mine")
    done, _ = jupyter("00")
    assert (clone.root / NOTEBOOK).read_bytes() == b"mine"
    assert f"{NOTEBOOK} is your copy" not in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")
def test_lab_opens_a_browser_where_there_is_a_display(jupyter):
    done, given = jupyter(DISPLAY="", WAYLAND_DISPLAY="")
    assert "--no-browser" in given
    assert "open the address that JupyterLab prints" in done.stdout
    done, given = jupyter(DISPLAY=":0")
    assert "--no-browser" not in given
    assert "open the address" not in done.stdout


@pytest.mark.parametrize(
    "options",
    [["--port=8899"], ["--port", "8899"], ["--no-browser"], ["--ip", "0.0.0.0", "--debug"]],
)
@pytest.mark.parametrize("chapter", [[], ["01"]], ids=["first chapter", "chapter 01"])
def test_lab_hands_options_on(jupyter, options, chapter):
    done, given = jupyter(*chapter, *options)
    assert (done.returncode, done.stderr) == (0, "")
    place = given.index(options[0])
    assert given[place : place + len(options)] == options


def test_lab_returns_the_status_of_jupyterlab(jupyter):
    assert jupyter(status=3)[0].returncode == 3


def test_lab_says_what_it_has_to_say_before_jupyterlab_does(jupyter):
    done, _ = jupyter("01")  # into a pipe, as in a container
    assert done.stdout.index("is your copy") < done.stdout.index("JupyterLab speaks")


@pytest.mark.full
def test_lab_runs_the_jupyterlab_of_this_environment(clone):
    done = clone.gclib("lab", "01", "--version")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^4\.\d+\.\d+$", done.stdout, re.M)
    assert (clone.root / "work" / CHAPTERS[1].notebook).is_file()


# Processes of their own


def test_the_exit_status_leaves_the_process(clone):
    assert clone.gclib("start", "00").returncode == 0
    assert clone.gclib("start", "99").returncode == 2
    assert clone.gclib("submit-check", "chapters/00_start/start.ipynb").returncode == 0
    broken = released("00")
    broken["cells"].remove(cell(broken, "c00-e1"))
    write(clone.root / NOTEBOOK, broken)
    assert clone.gclib("submit-check", NOTEBOOK).returncode == 1


def test_the_installed_command_is_this_one(clone):
    program = Path(sys.executable).parent / ("gclib.exe" if os.name == "nt" else "gclib")
    if not program.exists():
        pytest.skip("gclib is not installed into this environment")
    done = clone.run([str(program), "start", "00"])
    assert (done.returncode, done.stdout) == (0, f"{NOTEBOOK}: copied\n")
    assert (clone.root / NOTEBOOK).is_file()


def test_check_in_a_process_of_its_own(clone):
    notebook = solved("00")
    cell(notebook, "c00-e1")["source"] = "def to_positions(x):\n    return x.flatten(2)"
    write(clone.root / NOTEBOOK, notebook)
    done = clone.gclib("check", "00")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("3 passed, 1 failed, 0 not attempted\n")


def test_a_reader_that_stops_reading_sees_no_traceback(clone):
    read, written = os.pipe()
    os.close(read)  # as in: gclib start | head -0
    done = subprocess.run(
        clone.command("start"),
        cwd=clone.root,
        env=clone.environment(),
        stdout=written,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(written)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_the_characters_gets_the_message_all_the_same(
    course, monkeypatch, encoding
):
    notebook = solved("00")
    cell(notebook, "c00-e1")["source"] = "def to_positions(x):\n    return x.transpose(1, 2) # →"
    cell(notebook, "c00-e2")["source"] = "def weighted_sum(w, v):\n    return w @ v @ [] # →"
    write(course / NOTEBOOK, notebook)
    terminal = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", terminal)
    try:
        status = main(["check", "00"])
    except UnicodeEncodeError as error:
        pytest.fail(f"gclib check ended with {error}")
    assert status == 1
    terminal.flush()
    assert b"2 passed, 2 failed, 0 not attempted" in terminal.buffer.getvalue()


def interrupted(process, writer=None):
    """Send Ctrl-C; status and stderr."""
    process.send_signal(signal.SIGINT)
    if writer is not None:
        os.close(writer)  # a signal just before the read would be seen just after it
    err = process.communicate(timeout=60)[1]
    return process.returncode, err


def can_be_interrupted():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it


def open_process(clone, command):
    return subprocess.Popen(
        command,
        cwd=clone.root,
        env=clone.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=can_be_interrupted,
    )


def test_ctrl_c_gives_status_130_and_one_line(clone):
    pipe = clone.root / "start.ipynb"
    os.mkfifo(pipe)  # reading it waits for ever
    process = open_process(clone, clone.command("submit-check", pipe))
    writer = None
    while writer is None and process.poll() is None:
        try:  # succeeds once the command waits at the other end
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            writer = None
    assert interrupted(process, writer) == (130, "\nStopped.\n")


@pytest.mark.full
def test_ctrl_c_ends_an_endless_loop_of_the_student(clone):
    notebook = notebook_of(
        code(
            "import sys\n"
            "def softmax(x, dim):\n"
            "    print('looping', file=sys.__stdout__, flush=True)\n"
            "    while True:\n"
            "        pass\n",
            "c00-e3",
        )
    )
    write(clone.root / NOTEBOOK, notebook)
    process = open_process(clone, clone.command("check", "00"))
    assert any(line == "looping\n" for line in process.stdout)
    assert interrupted(process) == (130, "\nStopped.\n")


@pytest.mark.full
def test_ctrl_c_is_for_jupyterlab_to_answer(clone):
    # In a terminal JupyterLab asks before it stops. A stray Ctrl-C must not end the server.
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        clone.command("lab", "01", "--no-browser", "--ServerApp.port=0", "--ServerApp.token=t"),
        cwd=clone.root,
        env=clone.environment(),
        stdin=other_end,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=can_be_interrupted,
        start_new_session=True,
    )

    def press_ctrl_c():
        os.killpg(process.pid, signal.SIGINT)

    try:
        lines = iter(process.stdout)
        seen = []
        for line in lines:
            seen.append(line)
            if "Use Control-C to stop" in line:
                press_ctrl_c()
            if "No answer for 5s" in line:
                break
        else:
            pytest.fail(f"JupyterLab is gone after one Ctrl-C: {seen[-3:]}")
        assert any("/lab/tree/work/01_non_local/non_local.ipynb" in line for line in seen)
        press_ctrl_c()
        for line in lines:
            if "interrupted" in line:
                press_ctrl_c()  # twice: without a question
        assert process.wait(timeout=60) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        os.close(terminal)
        os.close(other_end)


def test_the_parser_is_built_without_side_effects(course):
    build_parser()
    assert not (course / "work").exists()
