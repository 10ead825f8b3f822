"""What a class gets: nothing that gives an answer away, and everything that a student needs."""

import hashlib
import inspect
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from leaks import find_leaks, secrets_of
from mutants.answers import ROOT, define, references, variants

from gclib import cli
from gclib.chapters import CHAPTERS, find_chapter
from gclib.checks.exercise import exercises_of
from gclib.checks.work import Work, check_one
from gclib.course import RELEASE
from gclib.grading import bundle as bundles
from gclib.grading.notebooks import grade_metadata
from gclib.grading.sandbox.jail import Limits, NoSandbox, Sandbox, check_bubblewrap

NUMBERS = [chapter.number for chapter in CHAPTERS]
IDS = [chapter.folder for chapter in CHAPTERS]
SITE = Path(sysconfig.get_paths()["purelib"])
# Experiments that need what their own chapter builds: they say so until the next bundle.
LATER = {"01": ["c01-04", "c01-41"], "03": ["c03-39"]}


@pytest.fixture(scope="module")
def files():
    """Contents of the bundle of each chapter."""
    return {chapter.number: bundles.contents(chapter, ROOT) for chapter in CHAPTERS}


@pytest.fixture(scope="module")
def unpacked(files, tmp_path_factory):
    """The bundle of each chapter as a folder, for reading alone."""
    folder = tmp_path_factory.mktemp("bundles")
    for number, content in files.items():
        bundles.write_folder(content, folder / number)
    return {number: folder / number for number in files}


@pytest.fixture
def own(files, tmp_path):
    """A bundle of one's own, to change or to work in."""

    def unpack(number):
        bundles.write_folder(files[number], tmp_path / "gcnet")
        return tmp_path / "gcnet"

    return unpack


# An installed checkout would fill in every module that a bundle lacks.
NO_CHECKOUT = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
"""


def environment(bundle):
    """Variables of a process that has nothing of gclib but a bundle."""
    extra = bundle.with_name("site")
    extra.mkdir(exist_ok=True)
    (extra / "sitecustomize.py").write_text(NO_CHECKOUT, encoding="utf-8")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
    paths = {"PYTHONPATH": os.pathsep.join([str(bundle), str(extra)]), "PYTHONNOUSERSITE": "1"}
    return kept | paths | {"PYTHONDONTWRITEBYTECODE": "1"}


def run(*command, bundle, env=None, **settings):
    """Run a command in a bundle."""
    return subprocess.run(
        [*map(str, command)],
        cwd=bundle,
        env=environment(bundle) | (env or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        **settings,
    )


def gclib(*arguments, bundle):
    return run(sys.executable, "-s", "-m", "gclib.cli", *arguments, bundle=bundle)


def answer(bundle, number, answers):
    """Put a chapter with these answers into ``work/``; its path."""
    chapter = find_chapter(number)
    notebook = nbformat.read(bundle / "chapters" / chapter.notebook, as_version=4)
    for cell in notebook.cells:
        name = grade_metadata(cell).get("grade_id")
        cell.source = answers.get(name, cell.source)
    path = bundle / "work" / chapter.notebook
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


# No answers


@pytest.mark.parametrize("chapter", CHAPTERS, ids=IDS)
def test_a_bundle_gives_no_answer_away(unpacked, chapter):
    assert find_leaks(unpacked[chapter.number], chapter) == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=IDS)
def test_there_are_secrets_of_every_exercise(chapter):
    secrets = secrets_of(chapter)
    told = " ".join([*secrets.lines.values(), *secrets.trees.values(), *secrets.texts.values()])
    for one in CHAPTERS[CHAPTERS.index(chapter) :]:
        for name in references(one.number):
            assert f"the solution {name}" in told or f"of {name}" in told, name
        assert f"hidden/c{one.number}.py" in told


def renamed(code):
    """Other names for what a copy would rename."""
    for name in ("query", "key", "value", "context", "attention", "weight", "student", "report"):
        code = re.sub(rf"(?<![\w.]){name}\b", f"{name[::-1]}_", code)
    return re.sub(r"\bself\.out\b", "self.last", code)


def reference_source(name):
    return (ROOT / "gclib" / name).read_text(encoding="utf-8")


def append(path, text):
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"\n\n{text}\n")


def to_cell(bundle, chapter, text):
    path = bundle / "chapters" / find_chapter(chapter).notebook
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["cells"][1]["source"] = text
    path.write_text(json.dumps(notebook), encoding="utf-8")


def plant(kind, bundle):
    """Put something into a bundle of chapter 01 that must not be there."""
    gc_block = references("05")["c05-e3"]
    if kind == "a line of a solution":
        append(bundle / "gclib/lab.py", "def f(x):\n    return query @  key.transpose( 1,2 )  # so")
    elif kind == "a line of a later solution, in a notebook":
        to_cell(bundle, "01", gc_block.split("\n")[-2])
    elif kind == "a right answer of the tests":
        (code, *_) = variants("01")["c01-e4"].values()
        append(bundle / "gclib/checks/c00.py", code)
    elif kind == "a model answer":
        (path,) = (ROOT / "solutions").glob("01_*/*.ipynb")
        (cell,) = [c for c in nbformat.read(path, 4).cells if c.id.endswith("reflection")]
        to_cell(bundle, "00", re.search(r"\(a\) (.+?)\. ", cell.source)[1])
    elif kind == "the reference":
        shutil.copy(ROOT / "gclib/blocks/non_local.py", bundle / "gclib/blocks")
    elif kind == "the reference under other names":
        append(bundle / "gclib/checks/roles.py", renamed(reference_source("blocks/non_local.py")))
    elif kind == "a later reference":
        shutil.copy(ROOT / "gclib/blocks/global_context.py", bundle / "gclib/blocks/extra.py")
    elif kind == "hidden checks":
        (bundle / "gclib/checks/hidden").mkdir()
        shutil.copy(ROOT / "gclib/checks/hidden/c01.py", bundle / "gclib/checks/hidden")
    elif kind == "a hidden check under another name":
        append(bundle / "gclib/checks/c01.py", renamed(reference_source("checks/hidden/c01.py")))
    elif kind == "compiled code":
        (bundle / "gclib/__pycache__").mkdir()
        (bundle / "gclib/__pycache__/cli.cpython-311.pyc").write_bytes(b"\xa7\r\r\n")
    elif kind in ("a checkpoint of an editor", "metadata of an installation", "git", "mutants"):
        path = {
            "a checkpoint of an editor": "chapters/01_non_local/.ipynb_checkpoints/a.ipynb",
            "metadata of an installation": "gclib.egg-info/PKG-INFO",
            "git": ".git/HEAD",
            "mutants": "tests/mutants/c01.py",
        }[kind]
        (bundle / path).parent.mkdir(parents=True)
        (bundle / path).write_text('{"cells": []}', encoding="utf-8")
    elif kind == "a path of this machine":
        append(bundle / "README.md", "see /home/anna/gcnet/notes.txt")
    elif kind == "a link":
        (bundle / "README.txt").symlink_to(ROOT / "README.md")


PLANTED = {
    "a line of a solution": "holds a line of the solution c01-e1",
    "a line of a later solution, in a notebook": "holds a line of the solution c05-e3",
    "a right answer of the tests": "of c01-e4",
    "a model answer": "holds a text of the solution c01-reflection",
    "the reference": "NonLocalBlock is NonLocalBlock of gclib/blocks/non_local.py",
    "the reference under other names": "of gclib/blocks/non_local.py",
    "a later reference": "GCBlock is GCBlock of gclib/blocks/global_context.py",
    "hidden checks": "gclib/checks/hidden: is not for a class",
    "a hidden check under another name": "of hidden/c01.py",
    "compiled code": "gclib/__pycache__/cli.cpython-311.pyc: is not for a class",
    "a checkpoint of an editor": ".ipynb_checkpoints: is not for a class",
    "metadata of an installation": "gclib.egg-info: is not for a class",
    "git": ".git: is not for a class",
    "mutants": "tests/mutants: is not for a class",
    "a path of this machine": "README.md: holds the path /home/anna",
    "a link": "README.txt: is a link",
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_leak_that_is_planted_is_found(own, kind):
    folder = own("01")
    plant(kind, folder)
    found = find_leaks(folder, find_chapter("01"))
    assert any(PLANTED[kind] in line for line in found), found


def why_no_sandbox():
    try:
        check_bubblewrap()
    except NoSandbox as error:
        return str(error)
    return ""


# Runs in the sandbox: every public function and class of the bundle, but for programs, by the
# numbers of arguments that it takes.
COLLECT = """
import importlib, inspect, os, pkgutil, gclib

os.environ["TORCHINDUCTOR_CACHE_DIR"] = "/"  # torchvision asks for one; nothing can be written

def collect(into):
    for module in pkgutil.walk_packages(gclib.__path__, "gclib."):
        if module.name.startswith(("gclib.cli", "gclib.doctor", "gclib.grading.sandbox")):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if name.startswith("_") or not callable(value):
                continue
            if not str(value.__module__).startswith("gclib"):
                continue
            try:
                parameters = inspect.signature(value).parameters.values()
            except ValueError:
                continue
            named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            given = [p for p in parameters if p.kind in named]
            least = sum(p.default is p.empty for p in given)
            most = 99 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(given)
            if value not in into.values():
                into[f"{least} {most} {module.name}.{name}"] = value

collected = collect(globals())
"""


def passing(bundle, number, more=""):
    """Exercises of a chapter whose hidden check something in ``gclib`` of a bundle passes."""
    sandbox = bundle / "gclib" / "grading" / "sandbox"
    if not sandbox.is_dir():
        shutil.copytree(ROOT / "gclib/grading/sandbox", sandbox)
    answers = define(number)
    found, tried = [], 0
    limits = Limits(call_seconds=8, seconds=300)  # imports of torchvision take seconds
    cells = [("collect", True, COLLECT + more)]
    with Sandbox(bundle, limits) as jail, jail.student(cells, "the bundle") as student:
        assert student.begin().problems == {}
        for exercise in exercises_of(import_module(f"gclib.checks.hidden.c{number}")):
            parameters = inspect.signature(answers[exercise.needs]).parameters.values()
            least = sum(p.default is p.empty for p in parameters)
            for name in list(student.begin().definitions):
                if not name[0].isdigit():
                    continue
                needs, takes = map(int, name.split(" ")[:2])
                if needs > len(parameters) or takes < least:
                    continue  # it cannot be called as the check does
                candidate = student.begin().definitions[name]
                work = Work("the bundle", {exercise.needs: candidate})
                tried += 1
                if check_one(work, exercise, seed=7).verdict == "passed":
                    found.append((exercise.id, name.split(" ")[2]))
    assert tried > 100
    return found


@pytest.mark.full
@pytest.mark.skipif(bool(why_no_sandbox()), reason=why_no_sandbox())
@pytest.mark.parametrize("number", NUMBERS)
def test_nothing_in_a_bundle_passes_the_hidden_checks_of_its_chapter(own, number):
    assert passing(own(number), number) == []


@pytest.mark.full
@pytest.mark.skipif(bool(why_no_sandbox()), reason=why_no_sandbox())
def test_an_answer_under_another_name_would_pass(own):
    folder = own("01")
    append(folder / "gclib/lab.py", "def unfold(a, b):\n    return (b @ a.mT).mT")
    assert passing(folder, "01") == [("c01-e1", "gclib.lab.unfold")]


# What a student can do


@pytest.mark.full
@pytest.mark.parametrize("number", NUMBERS)
def test_every_module_of_a_bundle_can_be_imported_and_right_answers_pass(own, number):
    folder = own(number)
    chapter = find_chapter(number)
    answer(folder, number, references(number))
    modules = [
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(folder.glob("gclib/**/*.py"))
    ]
    imports = [
        line
        for path in sorted(folder.glob("chapters/*/*.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code"
        for line in cell.source.split("\n")
        if re.match(r"(from|import) ", line)
    ]
    code = "\n".join(
        [
            "import importlib, sys",
            f"for name in {modules!r}: importlib.import_module(name)",
            *imports,
            "from gclib import cli",
            f"status = cli.main(['check', {number!r}])",
            "cli.main(['status'])",
            "for name, module in list(sys.modules.items()):",
            "    if name.split('.')[0] == 'gclib':",
            f"        assert module.__file__.startswith({str(folder)!r}), module",
            "sys.exit(status)",
        ]
    )
    done = run(sys.executable, "-s", "-c", code, bundle=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    count = len(exercises_of(chapter.checks()))
    assert f"{count} passed, 0 failed, 0 not attempted" in done.stdout
    assert "visible checks: " in done.stdout  # of status, which looks at all chapters
    assert f"gclib start {NUMBERS[0]}" in done.stdout or number == "00"
    assert chapter.title in done.stdout


def test_nothing_of_the_checkout_is_seen_from_a_bundle(own):
    code = "import gclib, sys; print(gclib.__file__); import gclib.grading.judge"
    done = run(sys.executable, "-s", "-c", code, bundle=own("00"))
    assert "gcnet/gclib/__init__.py" in done.stdout
    assert "No module named 'gclib.grading.judge'" in done.stderr


def test_the_commands_of_a_student(own):
    folder = own("01")
    done = gclib("start", bundle=folder)
    assert done.returncode == 0, done.stderr
    assert sorted(path.parent.name for path in folder.glob("work/*/*.ipynb")) == [
        "00_start",
        "01_non_local",
    ]
    done = gclib("submit-check", "work/01_non_local/non_local.ipynb", bundle=folder)
    assert done.returncode == 0, done.stderr
    assert "ready to hand in" in done.stdout
    done = gclib("start", "02", bundle=folder)
    assert done.returncode == 2
    assert "the chapters are 00, 01" in done.stderr
    for command in (["grade", "01", "--course", "x"], ["bundle", "01"]):
        done = gclib(*command, bundle=folder)
        assert done.returncode == 2
        assert f"there is no command {command[0]!r}" in done.stderr
    done = gclib("ledger", bundle=folder)
    assert done.returncode == 2
    assert done.stderr == "gclib: the command ledger is not in your copy of the course\n"


@pytest.mark.full
def test_a_row_of_the_lab_that_comes_later_says_so(own):
    folder = own("03")
    for command in (
        ["train", "scenes", "--row", "mini/context_gc", "--seeds", "1", "--workers", "1"],
        ["train", "scenes", "--row", "mini/context_snl", "--seeds", "1", "--workers", "1"],
    ):
        done = gclib(*command, bundle=folder)
        assert done.returncode == 2, done.stderr
        assert "is not in your copy of the course" in done.stderr.strip().split("\n")[-1]
        assert "Traceback" not in done.stderr
    done = gclib("ledger", "--table", "4.3", bundle=folder)
    assert done.returncode == 0, done.stderr
    assert "undecided" in done.stdout


@pytest.mark.full
def test_pytest_reports_on_the_answers_alone(own):
    folder = own("01")
    (first, right), *_ = references("01").items()
    answer(folder, "01", {first: right})
    done = run(sys.executable, "-s", "-m", "pytest", "tests/", "-q", bundle=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    count = len(exercises_of(find_chapter("01").checks()))
    lines = done.stdout.strip().split("\n")
    assert f"student: 1 passed, 0 failed, {count - 1} not attempted" in lines


@pytest.mark.full
@pytest.mark.parametrize(("number", "how"), [("01", "blank"), ("02", "solved")])
def test_a_notebook_of_a_bundle_runs_to_its_end(own, number, how):
    from nbclient import NotebookClient

    folder = own(number)
    path = answer(folder, number, references(number) if how == "solved" else {})
    notebook = nbformat.read(path, as_version=4)
    where = "import sys; print({m.__file__ for n, m in sys.modules.items() if n[:5] == 'gclib'})"
    notebook.cells.append(nbformat.v4.new_code_cell(where))
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    )
    client.execute(env=environment(folder))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    errors = [(c.id, o.ename) for c in code for o in c.outputs if o.output_type == "error"]
    said = {c.id: "".join(o.text for o in c.outputs if o.get("name") == "stdout") for c in code}
    assert not [o.text for c in code for o in c.outputs if o.get("name") == "stderr"]
    visible = [c.id for c in code if c.id.endswith("-visible")]
    assert errors == ([(name, "NotAttempted") for name in visible] if how == "blank" else [])
    later = [name for name, text in said.items() if "is not in your copy of the course" in text]
    assert later == LATER.get(number, [])
    assert not [text for text in said.values() if "are not here" in text or "UNTRAINED" in text]
    if how == "solved":  # the first picture needs answers that stand below it
        assert [n for n, text in said.items() if "Finish exercise" in text] == ["c02-04"]
        assert all("passed: c02-" in str(c.outputs) for c in code if c.id in visible)
    assert "ready to hand in" in said[code[-2].id]
    found = set(re.findall(r"'([^']+)'", code[-1].outputs[0].text))
    assert found
    assert all(name.startswith(str(folder)) for name in found)


# One file after the other


@pytest.mark.parametrize("number", NUMBERS)
def test_the_manifest_names_every_file_with_its_hash(files, number):
    content = dict(files[number])
    manifest = json.loads(content.pop("bundle.json"))
    assert manifest["release"] == RELEASE
    assert manifest["chapter"] == number
    assert manifest["files"] == {
        name: hashlib.sha256(data).hexdigest() for name, data in content.items()
    }


def test_what_is_in_a_bundle(files):
    """The allow-list, written down once more: whoever adds a file sees it here."""
    folders = {
        number: sorted({str(Path(name).parent) for name in content})
        for number, content in files.items()
    }
    assert folders["00"] == [
        ".",
        "chapters/00_start",
        *("gclib", "gclib/analysis", "gclib/bench", "gclib/blocks", "gclib/blocks/fast"),
        *("gclib/checks", "gclib/checks/expected_figures", "gclib/grading", "gclib/lab_settings"),
        *("tests", "tests/notebooks"),
    ]
    new = {*folders["05"]} - {*folders["00"]} - {f"chapters/{name}" for name in IDS}
    assert sorted(new) == [
        *("data/cifar10/checkpoints", "data/cifar10/runs"),
        *("data/scenes/checkpoints", "data/scenes/runs", "data/scenes/snapshots"),
        *("gclib/datasets", "gclib/explorer", "gclib/models", "gclib/paper", "gclib/training"),
    ]
    assert [name for name in files["05"] if "/" not in name] == [
        *("LICENSE", "Makefile", "README.md", "environment.yml", "pyproject.toml", "bundle.json")
    ]
    assert [name for name in files["05"] if name.startswith("tests/")] == [
        *("tests/conftest.py", "tests/notebooks/test_student.py", "tests/student_counts.py")
    ]
    assert [name for name in files["05"] if name.startswith("gclib/grading/")] == [
        f"gclib/grading/{name}.py" for name in ("__init__", "commands", "notebooks", "submission")
    ]


def test_rows_that_a_notebook_names_have_their_logs(files):
    for number, content in files.items():
        for name in [name for name in content if name.endswith(".ipynb")]:
            text = content[name].decode()
            for row in re.findall(r'mini/(\w+)\\"', text):
                assert f"data/scenes/runs/mini-{row}.json" in content, (number, name)


def test_the_next_bundle_is_unpacked_over_the_one_before(files, own, tmp_path):
    for before, after in itertools.pairwise(NUMBERS):
        assert {*files[before]} <= {*files[after]}
        assert not [name for name in files[after] if name.startswith("work")]
    folder = own("01")
    mine = answer(folder, "01", references("01"))
    text = mine.read_bytes()
    out = tmp_path / "gcnet-02.zip"
    bundles.write_zip(files["02"], out)
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path)  # the folder is called gcnet in every zip
    assert mine.read_bytes() == text
    assert find_leaks(folder / "gclib", find_chapter("02")) == []
    done = gclib("start", bundle=folder)
    assert done.returncode == 0
    assert "work/02_attention_maps/attention_maps.ipynb: copied" in done.stdout
    assert "work/01_non_local/non_local.ipynb: kept as it is" in done.stdout
    assert mine.read_bytes() == text


def test_a_zip_is_the_same_twice_and_holds_what_the_folder_does(files, unpacked, tmp_path):
    for name in ("a.zip", "b.zip"):
        bundles.write_zip(files["01"], tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        entries = archive.infolist()
        content = {entry.filename: archive.read(entry) for entry in entries}
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    names = [entry.filename for entry in entries]
    assert names[:-1] == sorted(names[:-1])
    assert names[-1] == "gcnet/bundle.json"
    folder = unpacked["01"]
    assert content == {
        f"gcnet/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# Installed


def test_a_bundle_installs_what_the_course_does(files):
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    theirs = tomllib.loads(files["01"]["pyproject.toml"].decode())
    extras = ours["project"].pop("optional-dependencies")
    assert theirs["project"].pop("optional-dependencies") == {"course": extras["course"]}
    assert theirs["project"] == ours["project"]
    assert theirs["build-system"] == ours["build-system"]
    assert theirs["tool"] == {name: ours["tool"][name] for name in ("setuptools", "pytest")}
    for name in ("README.md", "LICENSE"):
        assert name in files["01"]


def test_conda_installs_the_same(files):
    import yaml

    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = tomllib.loads(files["01"]["pyproject.toml"].decode())["project"]
    conda = yaml.safe_load(files["01"]["environment.yml"].decode())
    (from_pip,) = [one["pip"] for one in conda["dependencies"] if isinstance(one, dict)]
    wanted = project["dependencies"] + project["optional-dependencies"]["course"]
    assert sorted(from_pip) == sorted([*wanted, "-e ."])
    assert from_pip[-1] == "-e ."


def test_commands_of_the_readme_and_of_make_are_there(files):
    readme, makefile = (files["01"][name].decode() for name in ("README.md", "Makefile"))
    parser = cli.build_parser()
    names = {*parser._subparsers._group_actions[0].choices}
    assert {*re.findall(r"gclib ([a-z-]+)", readme + makefile)} <= names
    assert {*re.findall(r"`make (\w+)", readme)} <= {*re.findall(r"^(\w+):", makefile, re.M)}
    for kind in re.findall(r"gclib\.install (\w+)", makefile):
        assert kind == "course"  # the one extra of the bundle


@pytest.mark.full
@pytest.mark.parametrize("editable", [True, False])
def test_pip_installs_a_bundle(own, tmp_path, editable):
    folder = own("01")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python3.*/site-packages")
    for found in SITE.glob("pip"), SITE.glob("setuptools*"), SITE.glob("_distutils_hack"):
        for path in found:
            (site / path.name).symlink_to(path)
    python = environment / "bin" / "python"
    command = [python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    what = ["-e", folder] if editable else [folder]
    done = run(*command, *what, bundle=folder, env={"PYTHONPATH": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    (site / "zz.pth").write_text(f"{SITE}\n", encoding="utf-8")  # torch and the rest, behind it
    nothing = {"PYTHONPATH": ""}
    program = environment / "bin" / "gclib"
    code = "import gclib; print(gclib.__file__)"
    done = run(python, "-c", code, bundle=tmp_path, env=nothing)
    assert Path(done.stdout.strip()).is_relative_to(folder if editable else site)
    done = run(program, "--version", bundle=tmp_path, env=nothing)
    assert done.stdout.startswith("gclib "), done.stderr
    if not editable:
        installed = {p.relative_to(site).as_posix() for p in site.glob("gclib/**/*.*")}
        wanted = {p.relative_to(folder).as_posix() for p in folder.glob("gclib/**/*.*")}
        assert {name for name in installed if "__pycache__" not in name} == wanted
        return
    answer(folder, "01", references("01"))
    done = run(program, "check", "01", bundle=tmp_path, env=nothing)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(program, "doctor", bundle=tmp_path, env=nothing)
    assert "gclib" in done.stdout
    assert "work/ is writable" in done.stdout
    assert "torch " in done.stdout
    lines = [line for line in done.stdout.split("\n") if line.startswith("MEND")]
    assert not [line for line in lines if "packages" in line or "not installed" in line], lines


# Refused


def refused(capsys, *arguments):
    status = cli.main(["bundle", *map(str, arguments)])
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    (line,) = said.err.strip().split("\n")
    return line


def test_an_unknown_chapter_is_refused(capsys, tmp_path):
    line = refused(capsys, "17", "--out", tmp_path / "x")
    assert line.startswith("gclib: there is no chapter '17'; the chapters are 00, 01")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x", "x.zip"])
@pytest.mark.parametrize("kind", ["file", "folder", "empty folder", "link to nothing"])
def test_what_is_there_already_is_left_alone(capsys, tmp_path, name, kind):
    out = tmp_path / name
    if kind == "file":
        out.write_text("mine")
    elif kind == "link to nothing":
        out.symlink_to(tmp_path / "nothing")
    else:
        out.mkdir()
        if kind == "folder":
            (out / "mine").write_text("mine")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    assert "is there already; name another with --out" in refused(capsys, "01", "--out", out)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("write", [bundles.write_zip, bundles.write_folder])
def test_what_appears_in_the_meantime_is_left_alone(tmp_path, write):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").write_text("mine")
    with pytest.raises(bundles.CourseError, match="is there already"):
        write({"a": b"b"}, tmp_path / "x")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["x", "x/mine"]


def test_a_folder_that_is_not_there_is_not_made(capsys, tmp_path):
    line = refused(capsys, "00", "--out", tmp_path / "no" / "x.zip")
    assert "no such folder; make it with mkdir" in line
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout to break, which the command takes for its own."""
    root = tmp_path / "checkout"
    ignore = shutil.ignore_patterns(".ipynb_checkpoints")
    for name in ("solutions", "chapters"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
    shutil.copy(ROOT / "nbgrader_config.py", root)
    monkeypatch.setattr(bundles, "repository", lambda: root)
    return root


def test_chapters_that_are_not_what_solutions_generate(capsys, checkout, tmp_path):
    (path,) = checkout.glob("chapters/02_*/*.ipynb")
    append(path, "")
    line = refused(capsys, "01", "--out", tmp_path / "x")
    assert "is not what solutions/ generates; run: make chapters" in line
    assert "chapters/02_attention_maps/attention_maps.ipynb" in line
    assert not (tmp_path / "x").exists()


def test_solutions_that_are_missing(capsys, checkout, tmp_path):
    shutil.rmtree(checkout / "solutions")
    line = refused(capsys, "01", "--out", tmp_path / "x")
    assert line == "gclib: solutions/ is not here: run this in a whole clone of the course"


def test_a_bundle_makes_no_bundles(own):
    folder = own("01")
    for name in ("grading", "checks/hidden"):  # as if somebody had put them back
        unwanted = shutil.ignore_patterns("__pycache__")
        target = folder / "gclib" / name
        shutil.copytree(ROOT / "gclib" / name, target, ignore=unwanted, dirs_exist_ok=True)
    done = gclib("bundle", "01", bundle=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("gclib: this is a class's copy of the course")


@pytest.mark.full
def test_a_full_disk_leaves_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    inner = "mount -t tmpfs -o size=200k none $0 && shift && "
    command = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
    if not shutil.which("unshare"):
        pytest.skip("needs unshare (util-linux) to mount a small disk")
    probe = subprocess.run([*command, inner + "true", disk, ""], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this machine does not let a test mount a small disk")
    for name in ("x", "x.zip"):
        tries = f'{sys.executable} -m gclib.cli bundle 02 --out "$0/{name}" || ls -A $0 | wc -l'
        done = subprocess.run(
            [*command, inner + f"({tries})", disk, ""],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        expected = "gclib: the disk is full; free some space and run the same command again\n"
        assert done.stderr == expected
        assert done.stdout.strip() == "0"


def test_a_bundle_is_made_by_the_command(tmp_path, capsys, unpacked):
    assert cli.main(["bundle", "1", "--out", str(tmp_path / "x")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{tmp_path / 'x'}: chapters 00 to 01, ")
    names = {p.relative_to(tmp_path / "x") for p in (tmp_path / "x").rglob("*")}
    assert names == {p.relative_to(unpacked["01"]) for p in unpacked["01"].rglob("*")}
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]
    assert oct((tmp_path / "x").stat().st_mode & 0o055) == "0o55"  # a folder to copy to a server
