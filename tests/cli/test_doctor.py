"""``gclib doctor`` finds what is wrong, says what to type, and tells nothing about the person."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from handmade import Clone, as_plain_user, interpreters
from packaging.requirements import Requirement

from gclib import doctor
from gclib.doctor import Finding, examine, main

NEEDED = ("torch", "jupyterlab", "torchvision", "fvcore", "nbgrader", "pytest", "matplotlib")
PACKAGES_REMEDY = "make install   (or: pip install -e '.[course]')"
LINE = re.compile(r"(ok   |MEND |-    ) \S.{13} \S")


def lines_of(text):
    """Name and line of each finding, the remedy's line joined to it."""
    return [line for line in text.replace("\n      ", " ").split("\n") if LINE.match(line)]


def mended(text):
    return [line for line in lines_of(text) if line.startswith("MEND")]


def line_of(text, name):
    (found,) = [line for line in lines_of(text) if line[6:20].rstrip() == name]
    return found


@pytest.fixture
def packages(monkeypatch):
    """Pretend that packages have other versions (None: not installed); findings by name."""

    def examine_packages(**versions):
        def version(name):
            if name not in versions:
                return importlib.metadata.version(name)
            if versions[name] is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(doctor, "version", version)
        return {finding.name: finding for finding in doctor._packages()}

    return examine_packages


# Whole reports, in processes of their own


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An environment without any package; its Python."""
    folder = tmp_path_factory.mktemp("bare") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module", params=["bare", pytest.param("full", marks=pytest.mark.full)])
def person(request, bare, tmp_path_factory):
    """A report from the home folder of a person whose name must not get out; all that is done."""
    home = tmp_path_factory.mktemp("homes") / "zoë o'brien-42"
    home.mkdir()
    clone = Clone(home / "gcnet")
    (clone.root / ".git").mkdir()  # git then complains about it
    names = {"HOME": str(home), "USERPROFILE": str(home), "TMPDIR": str(home)}
    names |= {"USER": home.name, "USERNAME": home.name, "LOGNAME": home.name}
    python = bare if request.param == "bare" else sys.executable
    return clone.gclib("doctor", python=python, env=names), home


def test_the_output_holds_neither_the_user_nor_the_home_folder(person):
    done, home = person
    assert len(lines_of(done.stdout)) > 8
    for output in (done.stdout, done.stderr):
        for private in (home.name, "zoë", "brien", str(home.parent)):
            assert private not in output


def test_nothing_is_written_to_stderr(person):
    assert person[0].stderr == ""


def test_every_line_is_a_finding_or_the_verdict(person):
    text = person[0].stdout
    remedies = text.count("\n      ")
    assert text.count("\n") == len(lines_of(text)) + remedies + 2


@pytest.mark.full
@pytest.mark.parametrize("person", ["full"], indirect=True)
def test_all_is_well_where_these_tests_run(person):
    done = person[0]
    assert mended(done.stdout) == []
    assert done.returncode == 0
    assert done.stdout.endswith("\nAll is well.\n")
    names = [line[6:20].rstrip() for line in lines_of(done.stdout)]
    for name in ("Python", "system", "gclib", "device", "kernel", "lab extension", "lab server"):
        assert names.count(name) == 1, name
    for name in (*NEEDED, "git", "make", "bubblewrap", "chromium", "C++ compiler"):
        assert name in names


def test_an_environment_without_any_package_gets_a_report(clone, bare):
    done = clone.gclib("doctor", python=bare)
    assert done.returncode == 1
    to_mend = [line[6:20].rstrip() for line in mended(done.stdout)]
    assert to_mend == ["packages", "device", "lab extension", "lab server", "kernel"]
    assert done.stdout.endswith("\n5 to mend. After that, run gclib doctor again.\n")


def test_no_remedy_needs_a_program_that_is_missing_itself(clone, bare):
    done = clone.gclib("doctor", python=bare)
    for line in mended(done.stdout):
        module = re.search(r"type: python -m (\w+)", line)  # as a student would then type it
        if module:
            probe = [str(bare), "-c", f"import {module[1]}"]
            assert clone.run(probe).returncode == 0, line


@pytest.mark.parametrize("python", interpreters("3.8", "3.9", "3.12", "3.13"))
def test_a_bare_python_gets_a_report_and_no_traceback(clone, python):
    done = clone.gclib("doctor", python=python)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    tested = python.name in ("python3.12", "python3.13")
    assert line_of(done.stdout, "Python").startswith("ok" if tested else "MEND")
    assert line_of(done.stdout, "device").startswith("MEND")
    for line in mended(done.stdout):
        assert " type: " in line


# Privacy


@pytest.mark.parametrize(
    "text",
    [
        "cannot read {home}/data/x.json",
        "cannot read {home}",
        "cannot read /mnt/{user}/x.json",
        "cannot read /mnt/{user}",
        "C:\\Users\\{user}\\x.json is locked",
        "C:\\Users\\{user}",
    ],
)
def test_paths_in_the_messages_of_libraries_lose_the_name(monkeypatch, tmp_path, text):
    user = "zoë o'brien-42"
    home = tmp_path / "homes" / user
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("USER", user)
    assert user not in doctor._anonymous(text.format(home=home, user=user))


def test_a_home_folder_of_another_name_is_removed_too(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "people" / "4711"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "people" / "4711"))
    monkeypatch.setenv("USER", "zoe")
    text = f"cannot read {tmp_path}/people/4711/x.json"
    assert doctor._anonymous(text) == "cannot read ~/x.json"


def test_a_name_that_is_part_of_a_word_stays(monkeypatch):
    monkeypatch.setenv("USER", "torch")
    text = str(Finding("torch", "ok", "torch 2.6, pytorch.org/get-started"))
    assert doctor._anonymous(text) == text


def test_a_user_without_a_home_folder_gets_a_report(monkeypatch):
    def no_entry(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.delenv("HOME", raising=False)  # docker run --user 12345
    monkeypatch.delenv("USERPROFILE", raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    assert doctor._anonymous("ok    Python") == "ok    Python"


# Findings


def test_a_finding_without_a_remedy_is_one_line():
    assert str(Finding("git", "ok", "found git")) == "ok    git            found git"


def test_a_remedy_says_what_to_type():
    lines = str(Finding("torch", "mend", "not installed", "make install")).split("\n")
    assert lines[0] == "MEND  torch          not installed"
    assert lines[1].strip() == "type: make install"


def test_examine_yields_findings_whose_mending_has_a_remedy(course, monkeypatch):
    monkeypatch.setattr(doctor, "_ask_jupyter", dict)  # that part has tests of its own
    found = list(examine())
    assert len(found) > 15
    for finding in found:
        assert finding.state in ("ok", "mend", "optional")
        assert finding.text
        assert bool(finding.remedy) == (finding.state == "mend")


@pytest.mark.parametrize("state", ["mend", "optional", "ok"])
def test_the_exit_status_is_1_if_something_needed_is_missing(monkeypatch, capsys, state):
    monkeypatch.setattr(doctor, "examine", lambda: iter([Finding("x", state, "text", "do this")]))
    status = main()
    last = capsys.readouterr().out.strip().split("\n")[-1]
    if state == "mend":
        assert (status, last) == (1, "1 to mend. After that, run gclib doctor again.")
    else:
        assert (status, last) == (0, "All is well.")


# Python


def test_this_python_is_fine():
    assert doctor._python().state == "ok"


@pytest.mark.parametrize("bound", ["OLDEST_PYTHON", "FIRST_UNTESTED_PYTHON"])
def test_an_untested_python_is_to_mend(monkeypatch, bound):
    here = sys.version_info[:2]
    limit = (here[0], here[1] + 1) if bound == "OLDEST_PYTHON" else here
    monkeypatch.setattr(doctor, bound, limit)
    finding = doctor._python()
    assert finding.state == "mend"
    assert "tested are 3.10, 3.11, 3.12 or 3.13" in finding.text
    assert finding.remedy == "make lab PYTHON=python3.12"


# Packages


def test_installed_packages_are_in_range(packages):
    found = packages()
    assert set(NEEDED) < set(found)
    assert {finding.state for finding in found.values()} == {"ok"}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("torch", "2.5.1"), ("torch", "3.0"), ("nbgrader", "0.8.5"), ("jupyterlab", "3.6.8")],
)
def test_a_version_out_of_range_is_to_mend(packages, name, wrong):
    found = packages(**{name: wrong})
    wanted = {
        requirement.name: requirement.specifier
        for requirement in map(Requirement, importlib.metadata.requires("gclib"))
        if requirement.marker is None or requirement.marker.evaluate({"extra": "course"})
    }
    assert found[name] == Finding(name, "mend", f"{wrong}, wanted {wanted[name]}", PACKAGES_REMEDY)
    assert {one.state for other, one in found.items() if other != name} == {"ok"}


@pytest.mark.parametrize("version", ["2.6.0+cpu", "2.8.0.dev20250601+cu126", "2.9.0a0+gitabc"])
def test_builds_of_torch_with_odd_versions_are_in_range(packages, version):
    assert packages(torch=version)["torch"].state == "ok"


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_package_is_to_mend(packages, name):
    found = packages(**{name: None})
    assert found[name] == Finding(name, "mend", "not installed", PACKAGES_REMEDY)


def test_a_version_that_is_no_version_is_to_mend(packages):
    assert packages(fvcore="unknown")["fvcore"].state == "mend"


def test_a_package_that_lost_its_version_is_to_mend(packages, tmp_path, monkeypatch):
    # What an interrupted pip leaves: a folder without METADATA.
    (tmp_path / "fvcore-0.1.5.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert packages()["fvcore"].state == "mend"


@pytest.mark.usefixtures("course")
def test_packages_that_are_wrong_make_the_exit_status_1(packages, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_ask_jupyter", dict)
    packages(fvcore=None, pytest="99")
    assert main() == 1
    text = capsys.readouterr().out
    assert [line.split()[1] for line in mended(text)] == ["fvcore", "pytest"]
    assert text.count(f"type: {PACKAGES_REMEDY}") == 2
    assert text.endswith("\n2 to mend. After that, run gclib doctor again.\n")


def test_an_installed_package_of_another_version_is_found(clone):
    folder = clone.root / "matplotlib-99.0.dist-info"  # found before the installed one
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: matplotlib\nVersion: 99.0\n")
    done = clone.python("from gclib import doctor; print(*doctor._packages(), sep='\\n')")
    assert "MEND  matplotlib     99.0, wanted <4,>=3.8" in done.stdout
    assert done.stdout.count("MEND") == 1


# torch


def test_a_torch_that_does_not_load_is_to_mend_without_its_paths(clone):
    broken = "raise OSError('libtorch.so: cannot open /home/zoe/torch/lib/libtorch.so')"
    (clone.root / "torch.py").write_text(broken)
    done = clone.python("from gclib import doctor; print(*doctor._torch(), sep='\\n')")
    assert done.stdout.startswith("MEND  device         torch does not load: OSError\n")
    assert "type: make install" in done.stdout
    assert "zoe" not in done.stdout


def test_a_torchvision_of_another_torch_is_to_mend(monkeypatch):
    def nms(boxes, scores, threshold):
        raise RuntimeError("operator torchvision::nms does not exist")  # the usual symptom

    monkeypatch.setattr("torchvision.ops.nms", nms)
    device, torchvision = doctor._torch()
    assert device.state == "ok"
    assert torchvision.state == "mend"
    assert "does not fit torch" in torchvision.text
    assert "torchvision" in torchvision.remedy


def test_a_torchvision_that_does_not_load_is_to_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    torchvision = list(doctor._torch())[-1]
    assert (torchvision.name, torchvision.state) == ("torchvision", "mend")


# JupyterLab


def answer(text):
    """A process that prints this."""
    command = [sys.executable, "-c", f"print({text!r})"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "text",
    ["", "JupyterLab v4.4\n  other v1 enabled OK", "  @jupyter/nbgrader v0.9.5 disabled OK"],
)
@pytest.mark.parametrize("name", ["lab extension", "lab server"])
def test_an_extension_that_is_not_enabled_is_to_mend(name, text):
    (finding,) = [one for one in doctor._jupyter({name: answer(text)}) if one.name == name]
    assert finding.state == "mend"
    assert finding.text == "nbgrader is not enabled"
    assert finding.remedy.startswith("python -m jupyter ")
    assert "enable" in finding.remedy


@pytest.mark.full
def test_an_extension_that_the_student_switched_off_is_to_mend(clone):
    settings = clone.root / "settings" / "labconfig"
    settings.mkdir(parents=True)
    page = {"disabledExtensions": {"@jupyter/nbgrader": True}}
    (settings / "page_config.json").write_text(json.dumps(page))
    done = clone.gclib("doctor", env={"JUPYTER_CONFIG_DIR": str(settings.parent)})
    assert done.returncode == 1
    (line,) = mended(done.stdout)
    assert "lab extension  nbgrader is not enabled" in line
    assert "type: python -m jupyter labextension enable @jupyter/nbgrader" in line


def test_a_missing_kernel_is_to_mend(monkeypatch, tmp_path):
    manager = "jupyter_client.kernelspec.KernelSpecManager.kernel_dirs"
    monkeypatch.setattr(manager, [str(tmp_path)])
    monkeypatch.setitem(sys.modules, "ipykernel.kernelspec", None)
    (kernel,) = doctor._jupyter({})
    assert kernel.state == "mend"
    assert kernel.text == "no kernel called python3"
    assert kernel.remedy


# Folders and programs


def test_folders_that_can_be_written_are_fine(course):
    work, root = doctor._folders()
    assert work.text == "work/ will be made by gclib start"
    assert re.fullmatch(r"the course's folder is writable, \d+ GiB free", root.text)
    (course / "work").mkdir()
    assert re.fullmatch(r"work/ is writable, \d+ GiB free", next(doctor._folders()).text)
    assert list((course / "work").iterdir()) == []


@pytest.mark.parametrize(("name", "shown"), [("work", "work/"), (".", "the course's folder")])
def test_a_folder_that_may_not_be_written_is_to_mend(clone, name, shown):
    plain_user = as_plain_user()
    (clone.root / "work").mkdir()
    (clone.root / name).chmod(0o555)
    source = "from gclib import doctor; print(*doctor._folders(), sep='\\n')"
    done = clone.python(source, preexec_fn=plain_user)
    (clone.root / name).chmod(0o755)
    (line,) = mended(done.stdout)
    assert f"{shown} is not writable: Permission denied" in line
    assert "chmod" in line
    assert str(clone.root) not in done.stdout


def test_without_chapters_there_is_nothing_to_mend(monkeypatch):
    monkeypatch.setattr(doctor, "repository", lambda: None)
    assert [one.state for one in doctor._folders()] == ["optional"]


def test_a_program_that_is_missing_is_optional_and_says_what_for(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = list(doctor._programs())
    assert {one.state for one in found} == {"optional"}
    assert all("not found; wanted for " in one.text for one in found)
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert next(iter(doctor._programs())) == Finding("git", "ok", "found git")


def test_a_course_without_git_has_no_commit(course, monkeypatch):
    assert doctor._commit() == ""
    (course / ".git").mkdir()
    monkeypatch.setenv("PATH", str(Path(os.devnull).parent))
    assert doctor._commit() == ""
