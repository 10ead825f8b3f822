"""Each test has a course folder of its own: none touches the real ``work/``."""

import shutil

import pytest
from handmade import ROOT, Clone


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course folder with the chapters, which the modules of this process take for theirs."""
    root = tmp_path / "course"
    shutil.copytree(
        ROOT / "chapters", root / "chapters", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    for module in ("course", "workspace", "doctor", "grading.submission"):
        monkeypatch.setattr(f"gclib.{module}.repository", lambda: root)
    return root


@pytest.fixture
def clone(tmp_path):
    """A copy of the whole course, for commands in processes of their own."""
    return Clone(tmp_path / "clone")
