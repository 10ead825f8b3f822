"""``python -m gclib.install``: safe to run again, honest about the download, on any Python."""

import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from handmade import interpreters

from gclib import install as installer
from gclib.install import EXTRAS, InstallFailed, environment_python, main

REAL_RUN = subprocess.run
SITE = Path(sysconfig.get_paths()["purelib"])


class Pip:
    """Stands in for ``pip install`` alone; every other command runs."""

    def __init__(self):
        self.calls = []  # the arguments after "pip install"
        self.others = []
        self.status = 0
        self.before = lambda: None

    def run(self, command, **settings):
        words = [str(word) for word in command]
        if words[1:4] != ["-m", "pip", "install"]:
            self.others.append(words)
            return REAL_RUN(command, **settings)
        self.before()
        known = ("--disable-pip-version-check", "--quiet")
        self.calls.append([word for word in words[4:] if word not in known])
        return subprocess.CompletedProcess(command, self.status)


@pytest.fixture
def pip(monkeypatch):
    stand_in = Pip()
    monkeypatch.setattr(installer.subprocess, "run", stand_in.run)
    return stand_in


@pytest.fixture
def environment(tmp_path):
    """Make an environment with the named packages of this one, in a moment.

    Its "pip" answers --version and no more; "real pip" is this environment's.
    """

    def make(*packages, python=sys.executable):
        folder = tmp_path / "environment"
        REAL_RUN([python, "-m", "venv", "--without-pip", str(folder)], check=True)
        (site,) = folder.glob("lib/python3.*/site-packages")
        for name in packages:
            if name == "pip":
                (site / "pip").mkdir()
                (site / "pip" / "__main__.py").write_text(
                    "import sys\nsys.exit(sys.argv[1:] not in (['--version'], ['-V']))\n"
                )
            else:
                name = name.removeprefix("real ")
                (site / name).symlink_to(SITE / name)
        return folder

    return make


def stamps(folder):
    return sorted(path.name for path in folder.glob(".gclib-*"))


def run(folder, *arguments):
    return main([*arguments, "--environment", str(folder)])


# Which Python


def test_bounds_are_those_of_the_project(pytestconfig):
    text = (pytestconfig.rootpath / "pyproject.toml").read_text()
    (oldest, untested) = installer.OLDEST, installer.FIRST_UNTESTED
    assert f'requires-python = ">={oldest[0]}.{oldest[1]},<{untested[0]}.{untested[1]}"' in text


@pytest.mark.parametrize("bound", ["OLDEST", "FIRST_UNTESTED"])
def test_an_untested_python_is_refused(monkeypatch, pip, tmp_path, capsys, bound):
    here = sys.version_info[:2]
    monkeypatch.setattr(installer, bound, (here[0], here[1] + (bound == "OLDEST")))
    assert run(tmp_path / "environment") == 1
    out, err = capsys.readouterr()
    version = ".".join(map(str, sys.version_info[:3]))
    assert out == ""
    assert err == (
        f"Not installed: Python {version} is not one that the course was tested with (3.10 to "
        "3.13). Name another one, for example: make lab PYTHON=python3.12.\n"
    )
    assert pip.calls == pip.others == []
    assert not (tmp_path / "environment").exists()


@pytest.mark.parametrize("python", interpreters("3.7", "3.8", "3.9", "3.14", "3.15"))
def test_a_python_that_is_too_old_or_too_new_says_so(clone, python, tmp_path):
    folder = tmp_path / "environment"
    done = clone.run([str(python), "-m", "gclib.install", "--environment", str(folder)])
    assert "Traceback" not in done.stderr
    assert "is not one that the course was tested with (3.10 to 3.13)" in done.stderr
    assert done.returncode == 1
    assert not folder.exists()


def test_it_runs_without_any_package(clone):
    done = clone.run([sys.executable, "-S", "-W", "error", "-m", "gclib.install", "--help"])
    assert (done.returncode, done.stderr) == (0, "")
    for kind in EXTRAS:
        assert kind in done.stdout


@pytest.mark.parametrize("python", interpreters("3.10", "3.11", "3.12", "3.13"))
def test_it_runs_on_a_bare_python(clone, python):
    probe = [str(python), "-c", "import importlib.util as u; print(u.find_spec('torch'))"]
    if clone.run(probe).stdout != "None\n":
        pytest.skip("this Python has torch")
    done = clone.run([str(python), "-W", "error", "-m", "gclib.install", "--help"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m gclib.install")


def test_it_imports_the_standard_library_alone(clone):
    done = clone.run(
        [sys.executable, "-S", "-c", "import sys, gclib.install; print(*sorted(sys.modules))"]
    )
    modules = {name.split(".")[0] for name in done.stdout.split()}
    foreign = modules - sys.stdlib_module_names - {"__main__", "gclib"}
    assert {name for name in foreign if not name.startswith("_")} == set()


# What it installs


@pytest.mark.parametrize("kind", EXTRAS)
def test_the_first_run_installs_the_course_and_leaves_its_stamp(pip, environment, capsys, kind):
    folder = environment("pip", "torch")
    assert run(folder, kind) == 0
    assert pip.calls == [["-e", f".[{EXTRAS[kind]}]"]]
    assert stamps(folder) == [f".gclib-{kind}"]
    assert capsys.readouterr() == ("Installed into environment.\n", "")


def test_the_default_is_the_course(pip, environment):
    folder = environment("pip", "torch")
    run(folder)
    assert stamps(folder) == [".gclib-course"]


def test_the_extras_exist(pytestconfig):
    text = (pytestconfig.rootpath / "pyproject.toml").read_text()
    for extras in EXTRAS.values():
        for extra in extras.split(","):
            assert f"\n{extra} = [" in text


def test_a_second_run_does_nothing(pip, environment, capsys):
    folder = environment("pip", "torch")
    run(folder)
    capsys.readouterr()
    pip.calls.clear()
    pip.others.clear()
    assert run(folder) == 0
    assert pip.calls == pip.others == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("change", ["pyproject", "index", "kind", "stamp"])
def test_a_run_after_a_change_installs(pip, environment, clone, monkeypatch, change):
    monkeypatch.setattr(installer, "ROOT", clone.root)
    folder = environment("pip", "torch")
    run(folder)
    pip.calls.clear()
    arguments = []
    if change == "pyproject":
        with open(clone.root / "pyproject.toml", "a") as file:
            file.write("\n# a new range\n")
    if change == "index":
        arguments = ["--torch-index", "https://example.org/cpu"]
    if change == "kind":
        arguments = ["test"]
    if change == "stamp":
        (folder / ".gclib-course").write_text("half a sta")
    assert run(folder, *arguments) == 0
    assert pip.calls


def test_a_course_that_was_moved_is_installed_again(pip, environment, clone, monkeypatch):
    folder = environment("pip", "torch")
    run(folder)
    monkeypatch.setattr(installer, "ROOT", clone.root)
    pip.calls.clear()
    run(folder)
    assert pip.calls


@pytest.mark.full
def test_a_new_environment_is_made(pip, tmp_path, capsys):
    folder = tmp_path / "new"
    assert run(folder) == 0
    REAL_RUN([environment_python(folder), "-m", "pip", "--version"], check=True)
    assert capsys.readouterr().out.startswith("Creating new with Python 3.")
    assert len(pip.calls) == 1


@pytest.mark.full
def test_half_an_environment_is_made_again(pip, environment):
    folder = environment()  # a Python, and no pip
    (folder / "leftover").touch()
    assert run(folder) == 0
    assert REAL_RUN([environment_python(folder), "-m", "pip", "--version"]).returncode == 0
    assert not (folder / "leftover").exists()
    assert stamps(folder) == [".gclib-course"]


@pytest.mark.full
def test_an_environment_whose_python_is_gone_is_made_again(pip, environment):
    folder = environment("pip", "torch")
    run(folder)
    for path in (folder / "bin").glob("python*"):  # what an upgrade of the system leaves
        path.unlink()
    (folder / "bin" / "python").symlink_to("/usr/bin/python3.0")
    assert run(folder) == 0
    assert len(pip.calls) == 2
    assert REAL_RUN([environment_python(folder), "-m", "pip", "--version"]).returncode == 0


@pytest.mark.full
@pytest.mark.parametrize("python", interpreters("3.9"))
def test_an_environment_of_an_untested_python_is_made_again(pip, environment, python):
    folder = environment("pip", python=python)  # an editor made it
    assert run(folder) == 0
    asked = [environment_python(folder), "-c", "import sys; print(sys.version_info[:2])"]
    assert REAL_RUN(asked, capture_output=True, text=True).stdout == f"{sys.version_info[:2]}\n"


# What it says before


def test_the_size_of_the_download_is_told_before_pip(pip, environment, monkeypatch, capsys):
    folder = environment("pip")
    said = []
    pip.before = lambda: said.append(capsys.readouterr().out)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert run(folder) == 0
    assert "about 3 GB to download, 6 GB on disk" in said[0]
    assert "make lab TORCH_INDEX=" in said[0]


@pytest.mark.parametrize(
    ("system", "machine"), [("Darwin", "arm64"), ("Windows", "AMD64"), ("Linux", "aarch64")]
)
def test_elsewhere_the_download_is_small(pip, environment, monkeypatch, capsys, system, machine):
    folder = environment("pip")
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    run(folder)
    assert "about 300 MB" in capsys.readouterr().out


def test_no_download_is_told_where_torch_is_there(pip, environment, capsys):
    run(environment("pip", "torch"))
    assert capsys.readouterr().out == "Installed into environment.\n"


@pytest.mark.parametrize("by", ["option", "variable"])
def test_a_named_index_gives_torch_first(pip, environment, monkeypatch, capsys, by):
    address = "https://example.org/whl/cpu"
    folder = environment("pip")
    if by == "variable":
        monkeypatch.setenv("TORCH_INDEX", address)
    assert run(folder, *(["--torch-index", address] if by == "option" else [])) == 0
    first, second = pip.calls
    assert first == ["torch", "torchvision", "--index-url", address]
    assert second == ["-e", ".[course]"]
    assert "from the index you named" in capsys.readouterr().out


# What goes wrong


def test_a_failure_of_pip_gives_one_sentence_and_leaves_no_stamp(pip, environment, capsys):
    folder = environment("pip", "torch")
    pip.status = 1
    assert run(folder) == 1
    assert stamps(folder) == []
    out, err = capsys.readouterr()
    assert "Installed" not in out
    assert err == (
        "Not installed: pip could not install everything; its last lines above say why. Nothing "
        "is lost: mend it (network, disk space) and run the same command again.\n"
    )
    pip.status = 0
    assert run(folder) == 0
    assert stamps(folder) == [".gclib-course"]


def test_a_failed_index_stops_before_the_rest(pip, environment):
    pip.status = 1
    assert run(environment("pip"), "--torch-index", "https://example.org/none") == 1
    assert len(pip.calls) == 1


def test_a_failed_upgrade_does_not_count_as_installed(pip, environment, clone, monkeypatch):
    monkeypatch.setattr(installer, "ROOT", clone.root)
    folder = environment("pip", "torch")
    run(folder)
    project = clone.root / "pyproject.toml"
    before = project.read_text()
    project.write_text(before.replace("torch>=2.6", "torch>=2.7"))
    pip.status = 1
    run(folder)  # pip stops half way: some packages are new, some old
    project.write_text(before)
    pip.status, pip.calls[:] = 0, []
    run(folder)
    assert pip.calls  # the old stamp no longer tells the truth


def test_the_real_pip_without_a_network_gives_the_sentence(environment, clone, monkeypatch, capfd):
    monkeypatch.setattr(installer, "ROOT", clone.root)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = environment("real pip", "torch")
    assert run(folder) == 1
    err = capfd.readouterr().err
    assert "ERROR: " in err  # pip's own last lines
    assert err.strip().split("\n")[-1].startswith("Not installed: pip could not install everything")
    assert stamps(folder) == []


def test_ctrl_c_says_how_to_go_on_and_leaves_no_stamp(pip, environment, capsys):
    folder = environment("pip", "torch")

    def ctrl_c():
        raise KeyboardInterrupt

    pip.before = ctrl_c
    assert run(folder) == 130
    assert capsys.readouterr().err == "\nStopped. Run the same command again to go on.\n"
    assert stamps(folder) == []


def test_a_process_killed_in_pip_leaves_no_stamp(pip, environment, clone):
    folder = environment("pip", "torch")
    done = clone.python(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from gclib import install\n"
        "install._pip = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"install.install('course', Path({str(folder)!r}))\n"
    )
    assert done.returncode == -signal.SIGKILL
    assert stamps(folder) == []


def test_a_disk_that_is_full_at_the_end_gives_a_sentence_and_no_stamp(environment, clone):
    folder = environment("pip", "torch")
    done = clone.python(
        "import resource, sys\n"
        "from gclib import install\n"
        "install._pip = lambda *arguments: resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))\n"
        f"sys.exit(install.main(['--environment', {str(folder)!r}]))\n"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Not installed: File too large")
    assert "None" not in done.stderr
    stamp = folder / ".gclib-course"
    assert not stamp.exists() or len(stamp.read_bytes()) <= 9  # not one that counts


def test_an_environment_that_cannot_be_made_is_not_blamed_on_debian(pip, tmp_path, capfd):
    (tmp_path / "file").touch()
    assert run(tmp_path / "file" / "environment") == 1
    err = capfd.readouterr().err
    assert "Not installed: " in err
    assert "apt install" not in err


def test_a_wrong_kind_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["everything"])
    assert caught.value.code == 2
    assert "choose from" in capsys.readouterr().err


def test_install_raises_the_sentence_for_other_callers(pip, environment):
    pip.status = 1
    with pytest.raises(InstallFailed, match="pip could not install everything"):
        installer.install("course", environment("pip", "torch"))


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    "target", ["install", "lab", "test", "test-full", "lint", "chapters", "bench"]
)
def test_make_runs_the_installer_with_the_python_that_was_named(clone, pytestconfig, target):
    makefile = pytestconfig.rootpath / "Makefile"
    # Run by make itself, this make would say which directory it enters.
    command = ["make", "--no-print-directory", "--dry-run", "-f", str(makefile), target]
    command.append("PYTHON=python3.12")
    done = clone.run(command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("python3.12 -m gclib.install ")
