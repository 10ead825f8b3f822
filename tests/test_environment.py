"""What gets installed and what gets imported: one set of ranges, and imports that run one way."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import gclib.blocks
from gclib import doctor, install

ROOT = Path(__file__).resolve().parents[1]
CORE = {"jupyterlab", "torch", "torchvision", "fvcore", "nbgrader", "pytest"}
HEAVY = ("torch", "torchvision", "nbgrader", "matplotlib", "numpy", "jupyterlab", "IPython")


@pytest.fixture(scope="module")
def project():
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def conda():
    """environment.yml: what comes from conda, what from pip."""
    file = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (from_pip,) = [one["pip"] for one in file["dependencies"] if isinstance(one, dict)]
    return [one for one in file["dependencies"] if isinstance(one, str)], from_pip


def ranges(requirements):
    """Range of each package; a package may be named once for each Python."""
    parsed = [Requirement(one) for one in requirements]
    found = {(one.name, str(one.marker or "")): one.specifier for one in parsed}
    assert len(found) == len(parsed)
    return found


def names(requirements):
    """The packages, without their ranges."""
    return {name for name, _ in ranges(requirements)}


# environment.yml and pyproject.toml


def wanted_by_a_course(project):
    """What students and instructors install."""
    extras = project["optional-dependencies"]
    return project["dependencies"] + extras["course"] + extras["grade"]


def test_environment_has_the_ranges_of_the_project(project, conda):
    of_project = ranges(wanted_by_a_course(project))
    of_conda = ranges(one for one in conda[1] if not one.startswith("-"))
    assert of_conda == of_project


def test_environment_names_the_core_packages(conda):
    assert names(one for one in conda[1] if not one.startswith("-")) >= CORE


def test_environment_installs_the_course_itself_last(conda):
    assert conda[1][-1] == "-e ."
    assert "pip" in conda[0]


def test_every_range_has_both_ends(project):
    for requirement in wanted_by_a_course(project):
        operators = {one.operator for one in Requirement(requirement).specifier}
        assert operators == {">=", "<"}, requirement


def test_one_range_of_python_everywhere(project, conda):
    wanted = SpecifierSet(project["requires-python"])
    (of_conda,) = [one for one in conda[0] if one.startswith("python")]
    assert SpecifierSet(of_conda.removeprefix("python")) == wanted
    for module, oldest, untested in (
        ("install", install.OLDEST, install.FIRST_UNTESTED),
        ("doctor", doctor.OLDEST_PYTHON, doctor.FIRST_UNTESTED_PYTHON),
    ):
        text = ">={}.{},<{}.{}".format(*oldest, *untested)
        assert SpecifierSet(text) == wanted, module


def test_the_blocks_need_torch_alone(project):
    assert names(project["dependencies"]) == {"torch"}


@pytest.mark.full
def test_pip_finds_every_package_of_the_environment(conda, tmp_path):
    shutil.copytree(ROOT / "gclib", tmp_path / "gclib")
    for name in ("pyproject.toml", "README.md"):
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, tmp_path)
    (tmp_path / "requirements.txt").write_text("\n".join(conda[1]))  # as conda does
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--dry-run", "--quiet", "--no-deps", "--ignore-installed", "-r", "requirements.txt"]
    done = subprocess.run(
        [*pip, "install", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if "NewConnectionError" in done.stderr or "Temporary failure in name res" in done.stderr:
        pytest.skip("no network")
    assert done.returncode == 0, done.stderr


# What an import pulls in


def python(source):
    """The words that these lines print, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "module",
    [
        "gclib",
        "gclib.checks",
        "gclib.checks.cells",
        "gclib.cli",
        "gclib.course",
        "gclib.doctor",
        "gclib.grading.submission",
        "gclib.install",
        "gclib.lab",
        "gclib.workspace",
    ],
)
def test_the_light_modules_import_nothing_heavy(module):
    loaded = python(f"import sys, {module}; print(*{{*sys.modules}} & {{*{HEAVY}}})")
    assert loaded == []


def test_a_block_is_there_without_naming_its_package():
    assert gclib.GCBlock is gclib.blocks.GCBlock
    assert {"GCBlock", "NonLocalBlock"} < set(dir(gclib))


def test_the_blocks_load_torch_and_what_torch_loads():
    added = python(
        "import sys, torch.fx\n"
        "before = set(sys.modules)\n"
        "import gclib.blocks\n"
        "print(*set(sys.modules) - before)\n"
    )
    assert {name.split(".")[0] for name in added} - sys.stdlib_module_names == {"gclib"}
    rooms = {name.split(".")[1] for name in added if name.startswith("gclib.")}
    assert rooms == {"blocks"}


def test_the_blocks_work_where_nothing_but_torch_is_installed(project):
    extras = project["optional-dependencies"]
    others = {name for group in extras for name in names(extras[group])} - {"gclib"}
    modules = sorted({*others, "yaml", "mmcv", "IPython", "scipy", "packaging"})
    assert python(
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({modules}))\n"  # None: importing it fails
        "import warnings; warnings.simplefilter('ignore')\n"
        "import torch\n"
        "from gclib import blocks\n"
        "x = torch.randn(2, 16, 3, 5)\n"
        "for name in ('NonLocalBlock', 'SimplifiedNonLocalBlock', 'SEBlock', 'GCBlock'):\n"
        "    assert getattr(blocks, name)(16)(x).shape == x.shape\n"
        "print('work')\n"
    ) == ["work"]


# Which way the imports run (design, section 1)

LAYERS = (
    {"blocks"},
    {"analysis", "datasets", "paper"},
    {"models"},
    {"training", "checks", "explorer"},
    {"grading", "bench"},
    {"book"},
    {"cli"},
)
LAYER = {room: number for number, layer in enumerate(LAYERS) for room in layer}
SOURCES = sorted((ROOT / "gclib").rglob("*.py"))


def room_of(path):
    parts = path.relative_to(ROOT / "gclib").with_suffix("").parts
    return parts[0]


def imported(tree, path):
    """Full name of each module that a file imports, at its top or inside of a function."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                above = parents[: len(parents) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield base
            if base == "gclib" or base.startswith("gclib."):
                yield from (f"{base}.{one.name}" for one in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            first = ast.unparse(node.args[0]).lstrip("f").strip("'\"") if node.args else ""
            yield first.split("{")[0].rstrip(".")


def room_named(name):
    """The room of a full name, or None for a module of others and for gclib itself."""
    parts = name.split(".")
    if parts[0] != "gclib" or len(parts) < 2:
        return None
    folder = ROOT / "gclib" / parts[1]
    return parts[1] if folder.is_dir() or folder.with_suffix(".py").is_file() else None


@pytest.fixture(scope="module")
def imports():
    """For each source file, the full names it imports."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    return {path: set(imported(tree, path)) for path, tree in trees.items()}


def test_imports_are_seen_in_all_their_forms(tmp_path):
    source = (
        "import gclib.bench\n"
        "from gclib import cli\n"
        "from .. import checks\n"
        "from ..grading.lint import main\n"
        "from . import neighbour\n"
        "def later():\n"
        "    from gclib.models import resnet\n"
        "    import_module('gclib.paper')\n"
        "    importlib.import_module(f'gclib.training.c{number}')\n"
    )
    path = ROOT / "gclib" / "blocks" / "example.py"
    rooms = {room_named(name) for name in imported(ast.parse(source), path)}
    there = {"bench", "cli", "checks", "grading", "blocks"}
    assert rooms & there == there
    found = set(imported(ast.parse(source), path))
    assert {"gclib.models.resnet", "gclib.paper", "gclib.training.c"} <= found


def test_every_room_has_its_place(imports):
    rooms = {path.name for path in (ROOT / "gclib").iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(LAYER), "design, section 1, names no place for it"


def test_blocks_import_torch_and_blocks_alone(imports):
    allowed = {*sys.stdlib_module_names, "torch"}
    for path, names in imports.items():
        if room_of(path) != "blocks":
            continue
        for name in names:
            assert name.split(".")[0] in allowed or name.startswith("gclib.blocks"), (path, name)


@pytest.mark.parametrize("room", sorted(LAYER))
def test_imports_of_a_room_run_one_way(imports, room):
    for path, names in imports.items():
        if room_of(path) != room:
            continue
        for name in names:
            other = room_named(name)
            if other in LAYER and other != room:
                assert LAYER[other] <= LAYER[room], f"{path.relative_to(ROOT)} imports {name}"


def test_checks_import_nothing_of_grading(imports):
    for path, names in imports.items():
        if room_of(path) == "checks":
            assert not any(name.startswith("gclib.grading") for name in names), path


def test_visible_checks_import_no_hidden_check_and_no_reference(imports):
    for path, names in imports.items():
        parts = path.relative_to(ROOT / "gclib").parts
        if parts[0] == "checks" and "hidden" not in parts:
            for name in names:
                assert not name.startswith(("gclib.checks.hidden", "gclib.blocks")), (path, name)


def test_nothing_but_the_command_imports_the_command(imports):
    for path, names in imports.items():
        if path not in (ROOT / "gclib" / "cli.py", ROOT / "gclib" / "__main__.py"):
            assert not any(name.startswith("gclib.cli") for name in names), path


def test_no_room_imports_the_tests(imports):
    for path, names in imports.items():
        assert not any(name.split(".")[0] in ("tests", "conftest") for name in names), path


# make test-full runs the quick tests once, without the peers and Sphinx, and then the marked ones.

ONLY_IN_FULL = ("mmcv", "timm", "sphinx", "myst_nb")


def asks(node):
    """Whether code asks for a package of ``make test-full``, or for one that a variable names."""
    for call in (one for one in ast.walk(node) if isinstance(one, ast.Call)):
        if ast.unparse(call.func) != "pytest.importorskip":
            continue
        constants = [one.value for one in ast.walk(call.args[0]) if isinstance(one, ast.Constant)]
        names = {name.split(".")[0] for name in constants if isinstance(name, str)}
        if not names or names & {*ONLY_IN_FULL}:
            return True
    return False


def unmarked(tree):
    """Tests that ask for such a package, or call a function that does, and do not wait for it."""
    made = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    tests = [node for node in tree.body if node in made and node.name.lower().startswith("test")]
    helpers = {node.name for node in made if node not in tests and asks(node)}
    for node in tests:
        calls = {ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
        waits = any("mark.full" in ast.unparse(one) for one in node.decorator_list)
        if (asks(node) or calls & helpers) and not waits:
            yield node.name


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda p: p.stem)
def test_tests_that_need_more_packages_wait_for_full(path):
    text = path.read_text(encoding="utf-8")
    if "importorskip(" in text and "pytestmark = pytest.mark.full" not in text:
        assert list(unmarked(ast.parse(text))) == []


def test_an_unmarked_test_is_found():
    text = "def test_a():\n    pytest.importorskip('timm.layers')\n"
    assert list(unmarked(ast.parse(text))) == ["test_a"]
    assert list(unmarked(ast.parse(f"@pytest.mark.full\n{text}"))) == []
    assert list(unmarked(ast.parse("def test_a():\n    pytest.importorskip('av')\n"))) == []
    helper = "def peer(name):\n    return pytest.importorskip(name)\ndef test_b():\n    peer('x')\n"
    assert list(unmarked(ast.parse(helper))) == ["test_b"]
