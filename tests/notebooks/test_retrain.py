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
from gclib.paper.ledger import VERDICTS, log_path, read_runs, runs_folder
from gclib.training import scenes
from gclib.training.scenes import RETRAINED

INTERVAL = r"([-+]?)(\d\.\d{3}) [(\[].*?[)\]]"
VERDICT = f"({'|'.join(VERDICTS)})"
# Chapter 06 has the verdict first.
JUDGED = re.compile(rf"{INTERVAL}\D*?{VERDICT}")
JUDGED_06 = re.compile(rf"{VERDICT}\s+here {INTERVAL}")
# What the verdict becomes when every difference changes its sign; a claim of no difference that
# is not reproduced stays so.
TURNED = {
    "same direction in small": {"not reproduced"},
    "undecided": {"undecided"},
    "not reproduced": {"not reproduced", "same direction in small"},
}
SIGNS = {"": "-", "+": "-", "-": "+"}
CHAPTERS = sorted(
    path
    for path in (ROOT / "solutions").glob("*/*.ipynb")
    if "RETRAIN = " in path.read_text("utf-8")
)


def cells_of(path):
    """The cells that know of ``RETRAIN``, and what they need of cells before them."""
    codes = [cell.source for cell in nbformat.read(path, as_version=4).cells]
    about = [code for code in codes if re.search(r"RETRAIN\b|show_rows\(|logs_of\(", code)]
    needed = [line for code in codes for line in re.findall(r"^columns = \(.*\)$", code, re.M)]
    return needed[:1] + about


def printed(path, retrain):
    """All that these cells print, the texts of figures included."""
    names = {"torch": torch, "figures": figures}
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for code in cells_of(path):
            exec(code.replace("RETRAIN = False", f"RETRAIN = {retrain}"), names)
    return said.getvalue()


def exchanged(key):
    """The distance of maps in place of that of inputs, and the other way round."""
    start, _, what = key.rpartition("/")
    return f"{start}/{ {'input': 'attention', 'attention': 'input'}.get(what, what) }"


def judged(path, text):
    """Sign, value and verdict of each difference."""
    if path.parent.name == "06_gcnet":
        return [(sign, value, verdict) for verdict, sign, value in JUDGED_06.findall(text)]
    return JUDGED.findall(text)


def turned(log):
    """A run as wrong as it was right, whose inputs were as alike as its maps were."""
    log = log | {"accuracy": 1 - log["accuracy"]}
    for when in {"trained", "untrained"} & set(log):
        of = log[when]
        log[when] = {key: of.get(exchanged(key), value) for key, value in of.items()}
    return log


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """In place of a training, the shipped runs of the rows that it is asked for, turned."""
    rows = []

    def run_many(row_ids, seeds, folder):
        assert folder == RETRAINED
        folder.mkdir(parents=True, exist_ok=True)
        for row in row_ids:
            rows.append(row)
            logs = [turned(log) for log in read_runs(runs_folder(), row)]
            log_path(folder, row).write_text(json.dumps(logs), encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scenes, "run_many", run_many)
    monkeypatch.setattr(figures, "show", lambda figure, alt, **how: print(alt))
    return rows


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.parent.name)
def test_verdicts_are_those_of_the_runs_trained_here(path, trained):
    shipped = printed(path, retrain=False)
    assert trained == []
    here = printed(path, retrain=True)
    assert trained
    before, after = judged(path, shipped), judged(path, here)
    assert len(before) == len(after) >= 2
    for (sign, value, verdict), (other_sign, other, other_verdict) in zip(
        before, after, strict=True
    ):
        assert (other_sign or "+", other) == (SIGNS[sign], value)
        assert other_verdict in TURNED[verdict]
    assert "no number yet" not in here
    assert here.count("no logs yet") + here.count("no run") == shipped.count("no run")


def test_these_are_all_chapters_with_trainings_and_their_cells():
    assert [path.parent.name[:2] for path in CHAPTERS] == ["02", "03", "04", "05", "06"]
    assert [len(cells_of(path)) for path in CHAPTERS] == [3, 3, 2, 2, 4]


def test_figures_of_chapter_06_tell_of_the_runs_trained_here(trained):
    path = CHAPTERS[-1]
    for retrain, side, other in ((False, "above", "below"), (True, "below", "above")):
        (alt,) = re.findall(r"The 13 differences.*", printed(path, retrain))
        assert f"Wholly {side} 0: GC in all stages helps; GC in c3 alone helps" in alt
        assert f"Wholly {other} 0: GC after the addition" in alt
