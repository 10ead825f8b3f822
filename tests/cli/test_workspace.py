"""``gclib start`` never loses an answer: not to a second run, a race, a full disk or a crash."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from handmade import as_plain_user, mounts

from gclib import workspace
from gclib.chapters import CHAPTERS, find_chapter
from gclib.workspace import WorkspaceError, start

ONE = find_chapter("01")
MINE = b'{"cells": [], "mine": "an answer of mine"}'
FULL = "was not written: the disk is full. Free some space and run this again"
SMALL = 20_000  # bytes; less than the notebook of chapter 01


def mine(root):
    """Put a notebook with an answer in work/; its path."""
    path = root / "work" / ONE.notebook
    path.parent.mkdir(parents=True)
    path.write_bytes(MINE)
    return path


def fresh(root):
    return (root / "chapters" / ONE.notebook).read_bytes()


def contents(folder):
    """The bytes of every file of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def one_second(monkeypatch):
    """The clock stands still."""
    monkeypatch.setattr(
        workspace, "time", SimpleNamespace(strftime=lambda form: "2026-01-02-030405")
    )


def test_start_copies_every_chapter(course):
    done = start()
    assert [one.chapter for one in done] == list(CHAPTERS)
    assert {one.what for one in done} == {"new"}
    for chapter in CHAPTERS:
        copied = (course / "work" / chapter.notebook).read_bytes()
        assert copied == (course / "chapters" / chapter.notebook).read_bytes()


def test_start_of_one_chapter_copies_that_one_alone(course):
    start((ONE,))
    assert [path.name for path in (course / "work").iterdir()] == [ONE.folder]


def test_an_edited_notebook_is_never_overwritten(course):
    path = mine(course)
    for _ in range(2):
        assert [one.what for one in start((ONE,))] == ["kept"]
        assert contents(path.parent) == {path.name: MINE}


def test_an_empty_notebook_is_a_notebook_of_the_student_too(course):
    path = mine(course)
    path.write_bytes(b"")
    start((ONE,))
    assert contents(path.parent) == {path.name: b""}


def test_again_keeps_the_bytes_under_a_new_name(course):
    path = mine(course)
    (done,) = start((ONE,), again=True)
    assert done.what == "again"
    assert done.backup.read_bytes() == MINE
    assert done.backup.suffix == ".ipynb"  # JupyterLab opens it
    assert path.read_bytes() == fresh(course)
    assert len(contents(path.parent)) == 2


def test_again_without_a_notebook_is_a_first_copy(course):
    (done,) = start((ONE,), again=True)
    assert (done.what, done.backup) == ("new", None)
    assert contents(done.path.parent) == {done.path.name: fresh(course)}


@pytest.mark.usefixtures("one_second")
def test_again_in_the_same_second_keeps_every_backup(course):
    path = mine(course)
    expected = [MINE]
    for number in range(3):
        (done,) = start((ONE,), again=True)
        assert done.backup.read_bytes() == expected[-1]
        expected.append(b"answer %d" % number)
        path.write_bytes(expected[-1])
    assert sorted(contents(path.parent).values()) == sorted(expected)


@pytest.mark.usefixtures("one_second")
def test_two_again_at_the_same_moment_lose_no_answer(course, monkeypatch):
    path = mine(course)
    rename, link, inner = os.rename, os.link, []

    def another_process_first(step):
        def interrupted(*arguments):
            if not inner:  # the other process does all of its work just before this step
                inner.append(True)
                start((ONE,), again=True)
            return step(*arguments)

        return interrupted

    monkeypatch.setattr(workspace.os, "rename", another_process_first(rename))
    monkeypatch.setattr(workspace.os, "link", another_process_first(link))
    start((ONE,), again=True)
    assert inner
    assert MINE in contents(path.parent).values()


def test_the_leftover_of_an_interrupted_copy_is_harmless(course):
    folder = course / "work" / ONE.folder
    folder.mkdir(parents=True)
    (folder / f".{ONE.name}.ipynb.1.partial").write_bytes(fresh(course)[:100])
    assert [one.what for one in start((ONE,))] == ["new"]
    assert (folder / f"{ONE.name}.ipynb").read_bytes() == fresh(course)


def test_the_leftover_of_a_process_with_this_number_is_harmless(course):
    # Process numbers come back: in a container the command often has the same one every time.
    folder = course / "work" / ONE.folder
    folder.mkdir(parents=True)
    (folder / f".{ONE.name}.ipynb.{os.getpid()}.partial").write_bytes(fresh(course)[:100])
    assert [one.what for one in start((ONE,))] == ["new"]
    assert (folder / f"{ONE.name}.ipynb").read_bytes() == fresh(course)


def test_a_process_killed_while_it_copies_leaves_no_broken_notebook(clone):
    killed = clone.python(
        "import os, signal\n"
        "from gclib import workspace\n"
        "workspace.os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "workspace.start()\n"
    )
    assert killed.returncode == -signal.SIGKILL
    assert not list((clone.root / "work").rglob("[!.]*.ipynb"))
    done = clone.gclib("start")
    assert done.returncode == 0, done.stderr
    for chapter in CHAPTERS:
        copied = (clone.root / "work" / chapter.notebook).read_bytes()
        assert copied == (clone.root / "chapters" / chapter.notebook).read_bytes()


def test_ctrl_c_while_copying_leaves_no_partial_file(course, monkeypatch):
    def interrupt(file):
        raise KeyboardInterrupt

    monkeypatch.setattr(workspace.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        start((ONE,))
    assert contents(course / "work" / ONE.folder) == {}


@pytest.mark.parametrize("hard_links", [True, False], ids=["hard links", "no hard links"])
def test_a_notebook_that_appears_while_copying_is_not_overwritten(course, monkeypatch, hard_links):
    target = course / "work" / ONE.notebook
    monkeypatch.setattr(workspace.os, "fsync", lambda file: target.write_bytes(MINE))
    if not hard_links:
        monkeypatch.setattr(workspace.os, "link", refuse_links)
    assert [one.what for one in start((ONE,))] == ["kept"]
    assert contents(target.parent) == {target.name: MINE}


def refuse_links(source, target):
    raise PermissionError(1, "Operation not permitted")  # what exFAT answers


def test_a_disk_without_hard_links_will_do(course, monkeypatch):
    monkeypatch.setattr(workspace.os, "link", refuse_links)
    path = mine(course)
    (done,) = start((ONE,), again=True)
    assert contents(path.parent) == {path.name: fresh(course), done.backup.name: MINE}


def test_processes_that_start_at_the_same_moment_give_one_intact_file(clone):
    rounds = 20
    source = (
        "import sys\n"
        "from pathlib import Path\n"
        "from gclib import workspace\n"
        f"for number in range({rounds}):\n"
        "    root = Path(str(number))\n"
        "    workspace.repository = lambda: root\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    print(workspace.start()[0].what, flush=True)\n"
    )
    for number in range(rounds):
        shutil.copytree(clone.root / "chapters", clone.root / str(number) / "chapters")
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", source],
            cwd=clone.root,
            env=clone.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for number in range(rounds):
        assert [process.stdout.readline() for process in pair] == ["ready\n"] * 2
        for process in pair:
            process.stdin.write("\n")
            process.stdin.flush()
        said = sorted(process.stdout.readline() for process in pair)
        assert said == ["kept\n", "new\n"]
        folder = clone.root / str(number) / "work" / CHAPTERS[0].folder
        expected = (clone.root / "chapters" / CHAPTERS[0].notebook).read_bytes()
        assert contents(folder) == {f"{CHAPTERS[0].name}.ipynb": expected}
    for process in pair:
        process.communicate()


def test_a_folder_that_may_not_be_written_gives_one_sentence(clone):
    plain_user = as_plain_user()
    path = mine(clone.root)
    path.parent.chmod(0o555)
    for options in ([], ["--again"]):
        path.unlink() if not options else path.write_bytes(MINE)
        done = clone.gclib("start", "01", *options, preexec_fn=plain_user)
        assert done.returncode == 2
        assert done.stderr == (
            f"gclib: work/{ONE.notebook} was not written: no permission. Is the folder yours and "
            "writable?\n"
        )
        assert contents(path.parent) == ({path.name: MINE} if options else {})


def test_a_disk_mounted_read_only_gives_one_sentence(clone):
    (clone.root / "work").mkdir()
    command = "mount -t tmpfs -o ro none work; exec " + " ".join(clone.command("start"))
    done = clone.run([*mounts(), command])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "was not written: no permission" in done.stderr


@pytest.fixture(params=["file size limit", "small disk"])
def start_on_full_disk(request, clone):
    """Run ``gclib start`` where the notebook does not fit; what it says, and work/ afterwards."""

    def with_limit(*arguments):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))

        return clone.gclib("start", *arguments, preexec_fn=limit), clone.root / "work"

    def on_small_disk(*arguments):
        (clone.root / "work").mkdir(exist_ok=True)
        (clone.root / "seen").mkdir()
        lines = [
            "mkdir small",
            f"mount -t tmpfs -o size={SMALL} none small",
            "cp -a work/. small",
            "mount --bind small work",
            "status=0",
            " ".join(clone.command("start", *arguments)) + " || status=$?",
            "cp -a work/. seen",
            "exit $status",
        ]
        return clone.run([*command, "\n".join(lines)]), clone.root / "seen"

    if request.param == "file size limit":
        return with_limit
    command = mounts()
    return on_small_disk


def test_a_full_disk_gives_one_sentence_and_leaves_no_partial_file(start_on_full_disk):
    done, work = start_on_full_disk("01")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"gclib: work/{ONE.notebook} {FULL}\n"
    assert contents(work / ONE.folder) == {}


def test_a_full_disk_does_not_lose_an_answer(clone, start_on_full_disk):
    mine(clone.root)
    done, work = start_on_full_disk("01", "--again")
    assert done.returncode == 2
    assert FULL in done.stderr
    assert list(contents(work / ONE.folder).values()) == [MINE]


def test_a_full_disk_does_not_matter_to_a_notebook_that_is_there(clone, start_on_full_disk):
    mine(clone.root)
    done, work = start_on_full_disk("01")
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(work / ONE.folder) == {f"{ONE.name}.ipynb": MINE}


def test_after_a_full_disk_the_answers_are_where_the_student_looks(clone, start_on_full_disk):
    mine(clone.root)
    done, work = start_on_full_disk("01", "--again")
    (name,) = contents(work / ONE.folder)
    assert name == f"{ONE.name}.ipynb" or name in done.stderr


def test_a_course_without_chapters_gives_a_clear_sentence(clone):
    shutil.rmtree(clone.root / "chapters")
    done = clone.gclib("start")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gclib: the chapters are not here")
    assert "Clone the course" in done.stderr
    assert not (clone.root / "work").exists()


def test_a_missing_chapter_says_how_to_restore_it(course):
    (course / "chapters" / ONE.notebook).unlink()
    with pytest.raises(WorkspaceError) as caught:
        start((ONE,))
    assert str(caught.value) == (
        f"chapters/{ONE.notebook} is missing; restore it with: git checkout chapters"
    )


def test_a_missing_chapter_does_not_lose_an_answer(course):
    path = mine(course)
    (course / "chapters" / ONE.notebook).unlink()
    with pytest.raises(WorkspaceError):
        start((ONE,), again=True)
    assert contents(path.parent) == {path.name: MINE}
