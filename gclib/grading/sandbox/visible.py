"""The part of gclib that a student may have: in a bundle, and less of it while answers are graded.

An allow-list: what a chapter teaches, and everything later, is not there. While answers are graded
an answer that imports the reference fails like any other missing module. In a bundle a name stands
in its place that says when it comes (``gclib.later``).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import gclib
from gclib.chapters import CHAPTERS, Chapter

# While answers are graded, and in every bundle.
_ALWAYS = (
    "__init__.py",
    "analysis/__init__.py",
    "analysis/diagrams.py",
    "analysis/figures.py",
    "bench/__init__.py",
    "bench/measure.py",
    "chapters.py",
    "checks/__init__.py",
    "checks/cards.py",
    "checks/cells.py",
    "checks/exercise.py",
    "checks/handle.py",
    "checks/outcome.py",
    "checks/report.py",
    "checks/work.py",
    "course.py",
    "grading/__init__.py",
)
_WORKER = tuple(
    f"grading/sandbox/{name}.py"
    for name in ("__init__", "limits", "page", "seccomp", "watch", "wire", "worker")
)
# In every bundle: the commands of a student, and what visible checks need.
_COMMANDS = (
    "checks/expected.py",
    "checks/properties.py",
    "checks/roles.py",
    "cli.py",
    "doctor.py",
    "grading/notebooks.py",
    "grading/submission.py",
    "install.py",
    "lab.py",
    "lab_settings/overrides.json",
    "later.py",
    "progress.py",
    "py.typed",
    "seeds.py",
    "workspace.py",
)
# In bundles from a chapter on: what its experiments use. Of some modules a part is left out in the
# chapter that teaches it.
_TOOLS = {
    "02": (
        "analysis/capture.py",
        "analysis/maps.py",
        "datasets/__init__.py",
        "datasets/cifar10.py",
        "datasets/files.py",
        "datasets/scenes.py",
        "explorer/__init__.py",
        "explorer/explorer.css",
        "explorer/explorer.js",
        "explorer/page.html",
        "explorer/recording.py",
        "explorer/show.py",
        "explorer/widget.py",
        "models/__init__.py",
        "models/cifar_net.py",
        "models/scene_net.py",
        "paper/__init__.py",
        "paper/claims.py",
        "paper/ledger.py",
        "paper/statistics.py",
        "paper/tables.py",
        "training/__init__.py",
        "training/cifar10.py",
        "training/loop.py",
        "training/runs.py",
        "training/scenes.py",
        "training/schedule.py",
    ),
    "05": ("paper/counts.json",),
    "06": ("models/mini_resnet.py", "paper/figure.py"),
    "07": (
        "datasets/check_report.py",
        "datasets/image_files.py",
        "datasets/image_folder.py",
        "datasets/imagenet.py",
        "datasets/images.py",
        "datasets/pictures.py",
        "training/checkpoint.py",
        "training/distributed.py",
        "training/imagenet.py",
        "training/locks.py",
        "training/metrics.py",
        "training/options.py",
        "training/order.py",
        "training/plan.py",
        "training/progress.py",
        "training/reading.py",
        "training/recipe.py",
        "training/small_runs.py",
        "training/stopping.py",
        "training/two_stage.py",
    ),
    "08": (
        "datasets/coco.py",
        "datasets/coco_annotations.py",
        "datasets/coco_masks.py",
        "datasets/detection_scenes.py",
        "models/detection.py",
        "models/detector_counts.py",
        "models/mini_detector.py",
        "training/coco.py",
        "training/coco_small.py",
        "training/detection_metrics.py",
        "training/smoke.py",
    ),
    "09": (
        "datasets/clip_scenes.py",
        "datasets/kinetics.py",
        "datasets/videos.py",
        "models/mini_slow_only.py",
        "training/kinetics.py",
        "training/kinetics_small.py",
        "training/scores.py",
    ),
}
_LEFT_OUT = {"02": {"analysis/maps.py": {"map_of"}}}
# What the reader has built once a chapter is done. The framework stands below SNL as well, so that
# waits for chapter 04; so do the formulas that count its multiply-adds.
_BUILT = {
    "01": (
        "blocks/__init__.py",
        "blocks/_arguments.py",
        "blocks/fast/__init__.py",
        "blocks/fast/choice.py",
        "blocks/fast/non_local.py",
        "blocks/non_local.py",
    ),
    "02": ("analysis/capture.py", "analysis/distances.py", "analysis/maps.py"),
    "04": (
        "analysis/complexity.py",
        "blocks/fast/framework.py",
        "blocks/framework.py",
        "blocks/simplified_non_local.py",
        "blocks/squeeze_excitation.py",
    ),
    "05": (
        "blocks/converters.py",
        "blocks/global_context.py",
        "blocks/registry.py",
    ),
    "06": (
        "analysis/networks.py",
        "models/deformable.py",
        "models/insertion.py",
        "models/residual.py",
        "models/resnet.py",
        "models/slow_only.py",
        "models/weights.py",
    ),
    "07": ("training/command.py", "training/trainer.py"),
    "08": ("models/cascade.py", "models/counts.py", "models/norms.py"),
}
# The engine needs files and the disk, counts the detectors: no answer in a sandbox uses them.
_NOT_FOR_ANSWERS = {"models/counts.py", "training/command.py", "training/trainer.py"}
_NO_COMMANDS = '''"""The commands of an instructor are not in this copy of the course."""


def register(commands) -> None:
    """Add none."""
'''


def write_visible(chapter: Chapter, folder: Path) -> None:
    """Write the ``gclib`` that answers of a chapter may see to ``folder / "gclib"``.

    Packages that collect names, like ``gclib.blocks``, keep those that are there.
    """
    names = {*_ALWAYS, *_WORKER, *_built(chapter)} - _NOT_FOR_ANSWERS
    for name in sorted(names):
        text = _source(name)
        if name.endswith("/__init__.py"):
            text = _without_missing(text, names)
        path = folder / "gclib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def released(chapter: Chapter) -> dict[str, str]:
    """The files of ``gclib`` in the bundle of a chapter, by their path in the package."""
    chapters = [one for one in CHAPTERS if one.number <= chapter.number]
    names = {*_ALWAYS, *_COMMANDS, *_built(chapter)}
    for one in chapters:
        names.update(_TOOLS.get(one.number, ()))
        names.update((f"checks/c{one.number}.py", f"checks/expected_figures/c{one.number}.json"))
    # Of blocks every name is there, or one that stands for it.
    names.update(("blocks/__init__.py", "blocks/fast/__init__.py"))
    files = {name: _source(name) for name in names}
    for name, (number, parts) in withheld(chapter).items():
        if f"{Path(name).parent.as_posix()}/__init__.py" in names:  # else nothing imports it yet
            files[name] = _stand_in(_source(name), parts, _comes_with(number))
    files["chapters.py"] = _with_chapters(files["chapters.py"], chapters)
    files["grading/commands.py"] = _NO_COMMANDS
    return files


def withheld(chapter: Chapter) -> dict[str, tuple[str, set[str] | None]]:
    """What the bundle of a chapter does not hold.

    Returns:
        Path of a module in ``gclib`` → the chapter that builds it, and which of its functions and
        classes are withheld; None for all.
    """
    tools = {n for number, names in _TOOLS.items() if number <= chapter.number for n in names}
    found: dict[str, tuple[str, set[str] | None]] = {}
    for number, modules in _BUILT.items():
        for name in modules:
            if number >= chapter.number and name not in tools and not name.endswith("__init__.py"):
                found[name] = number, None
    for name, parts in _LEFT_OUT.get(chapter.number, {}).items():
        found[name] = chapter.number, parts
    return found


def _built(chapter: Chapter) -> set[str]:
    """What the chapters before this one build."""
    earlier = (one.number for one in CHAPTERS if one.number < chapter.number)
    return {name for number in earlier for name in _BUILT.get(number, ())}


def _comes_with(number: str) -> str:
    """The first chapter whose bundle holds what chapter ``number`` builds, or ""."""
    return next((one.number for one in CHAPTERS if one.number > number), "")


def _source(name: str) -> str:
    return (Path(gclib.__file__).parent / name).read_text(encoding="utf-8")


def _public(tree: ast.Module) -> list[str]:
    """Names that a module defines for others, in order."""
    found = []
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            found.append(statement.name)
        elif isinstance(statement, ast.Assign):
            found += [ast.unparse(target) for target in statement.targets]
        elif isinstance(statement, ast.AnnAssign):
            found.append(ast.unparse(statement.target))
    return [name for name in found if name.isidentifier() and not name.startswith("_")]


def _stand_in(text: str, parts: set[str] | None, number: str) -> str:
    """A module in which these functions and classes, or all public names, stand for later ones."""
    tree = ast.parse(text)
    if parts is None:
        lines = [f'{name} = later("{name}", "{number}")' for name in _public(tree)]
        head = '"""Not in this copy of the course; see gclib.later."""'
        return "\n".join([head, "", "from gclib.later import later", "", *lines]) + "\n"
    lines = text.split("\n")
    for statement in reversed(tree.body):
        if getattr(statement, "name", None) in parts:
            line = f'{statement.name} = later("{statement.name}", "{number}")'
            first = min(node.lineno for node in [statement, *statement.decorator_list])
            lines[first - 1 : statement.end_lineno] = ["from gclib.later import later", "", line]
    return "\n".join(lines)


def _with_chapters(text: str, chapters: Iterable[Chapter]) -> str:
    """``gclib.chapters`` with these chapters alone."""
    numbers = {chapter.number for chapter in chapters}
    lines = text.split("\n")
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "CHAPTERS":
            for element in reversed(statement.value.elts):
                if element.args[0].value not in numbers:
                    del lines[element.lineno - 1 : element.end_lineno]
    return "\n".join(lines)


def _without_missing(text: str, names: set[str]) -> str:
    """The source of a package without its imports from modules of gclib that are not there."""
    tree = ast.parse(text)
    gone, kept = set(), []
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("gclib."):
            path = "/".join(statement.module.split(".")[1:])
            if f"{path}.py" not in names and f"{path}/__init__.py" not in names:
                gone.update(alias.asname or alias.name for alias in statement.names)
                continue
        kept.append(statement)
    for statement in kept:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            elements = statement.value.elts
            statement.value.elts = [item for item in elements if item.value not in gone]
    return ast.unparse(ast.Module(kept, [])) + "\n"
