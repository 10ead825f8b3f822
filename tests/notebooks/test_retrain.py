"""Experiments with ``RETRAIN = True`` tell of what was trained there, verdicts included."""

import contextlib
import io
import json
import re

import nbformat
import pytest
import torch
from notebook_copies import ROOT

from gclib.analysis import figures
from gclib.paper.ledger import runs_folder
from gclib.training.scenes import RETRAINED

# The cell that trains, and the cell that judges.
CELLS = {
    "03_simplification": ("c03-62", "c03-67"),
    "04_three_steps": ("c04-52", "c04-54"),
    "05_global_context": ("c05-45", "c05-45"),
    "06_gcnet": ("c06-65", "c06-65"),
}
JUDGED = re.compile(r"[-+]\d\.\d{3} \([-+]\d\.\d{3} to [-+]\d\.\d{3}")


def verdicts(folder, retrain):
    """The differences in small that the cells print."""
    (path,) = (ROOT / "solutions" / folder).glob("*.ipynb")
    cells = {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}
    names = {"torch": torch, "figures": figures}
    for cell in dict.fromkeys(CELLS[folder]):
        source = cells[cell].replace("RETRAIN = False", f"RETRAIN = {retrain}")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(source, names)
    return JUDGED.findall(printed.getvalue())


@pytest.mark.parametrize("folder", CELLS)
def test_verdicts_are_those_of_the_runs_trained_here(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RETRAINED.mkdir(parents=True)
    # The shipped runs, each as wrong as it was right: their configurations hold, so none is
    # trained again, and every difference changes its sign.
    for path in runs_folder().glob("mini-*.json"):
        logs = json.loads(path.read_text("utf-8"))
        logs = [log | {"accuracy": 1 - log["accuracy"]} for log in logs]
        (RETRAINED / path.name).write_text(json.dumps(logs), encoding="utf-8")
    shipped, here = verdicts(folder, retrain=False), verdicts(folder, retrain=True)
    assert len(shipped) == len(here) >= 2
    signs = str.maketrans("+-", "-+")
    for one, other in zip(shipped, here, strict=True):
        assert other.split()[0] == one.split()[0].translate(signs)
