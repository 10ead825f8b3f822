"""Kinetics' recipe: plans, small whole runs, two processes, evaluations that stop and go on."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_kinetics
import torch
from torch import nn

from gclib.cli import main
from gclib.datasets.clip_scenes import CLASSES as GENERATED
from gclib.datasets.clip_scenes import write_clip_scenes
from gclib.datasets.kinetics import VideoBatch, collate
from gclib.models.mini_slow_only import MINI_ROWS
from gclib.models.resnet import build_resnet
from gclib.models.slow_only import SlowOnly
from gclib.paper.ledger import ledger
from gclib.paper.tables import CELLS
from gclib.training import kinetics, plan
from gclib.training.checkpoint import write
from gclib.training.command import default_out, recipe_in
from gclib.training.distributed import World
from gclib.training.kinetics import (
    ROWS,
    Kinetics,
    build,
    loss_of,
    predict,
    prepare,
    recipe_of,
)
from gclib.training.metrics import topk_correct
from gclib.training.options import BadOption
from gclib.training.progress import read_log
from gclib.training.recipe import Machine
from gclib.training.trainer import build_optimizer

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
FULL_ROWS = [row for row in ROWS if row not in MINI_ROWS]
SCRIPT = Path(tiny_kinetics.__file__)
# Of table 5, to the last one.
PARAMETERS = {
    "5/baseline": 32_454_096,
    "5/nl_5": 39_812_560,
    "5/snl_5": 36_132_309,
    "5/gc_5": 34_300_373,
    "5/gc_all": 42_455_005,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinetics") / "data"
    write_clip_scenes(folder, videos={"train": 16, "val": 8})
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    tiny_kinetics.run(data, out)
    return out


def final(out):
    return torch.load(Path(out, "model.pt"), weights_only=True)["model"]


def copied(data, folder):
    shutil.copytree(data, folder)
    return folder


def in_processes(count, *arguments):
    """Run the script in some processes; what the first one prints."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    running = []
    for rank in range(count):
        environment = ONE_THREAD | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        command = [sys.executable, str(SCRIPT), *map(str, arguments)]
        running.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0] * count
    return said[0]


# -- recipes and plans ---------------------------------------------------------------------------


def test_the_defaults_are_slowfasts_recipe_for_imagenet_weights():
    recipe = recipe_of("5/gc_all")
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (118, 64, 0.01)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.9, True, 1e-4)
    per_epoch = 3750
    steps = [0, *(epoch * per_epoch + k for epoch in (44, 88) for k in (-1, 0))]
    rates = [recipe.rate(step, per_epoch) for step in steps]
    assert rates == [pytest.approx(v) for v in (0.01, 0.01, 0.001, 0.001, 0.0001)]
    assert recipe_of("5/gc_all", {"batch_size": 8}).largest_lr == pytest.approx(0.00125)
    assert (recipe.sampling.frames, recipe.sampling.stride, recipe.views) == (8, 8, 30)


def test_every_row_of_the_tables_is_there():
    printed = {cell.row for cell in CELLS if cell.row.startswith(("5/", "1/kinetics_"))}
    assert printed == set(FULL_ROWS)
    assert len(FULL_ROWS) == 9


@pytest.mark.parametrize(
    ("row", "values", "said"),
    [
        ("5/gc_al", {}, "did you mean '5/gc_all'"),
        ("2a/gc_all", {}, "expected one of"),
        ("5/gc_all", {"short_range": (320, 256)}, "expected the smaller one first"),
        ("5/gc_all", {"size": 300}, "at least size=300"),
        ("5/gc_all", {"crops": 2}, "expected 1 or 3"),
        ("5/gc_all", {"network": "mini_slow_only"}, "belong to network=mini_slow_only"),
        ("mini/kinetics_gc", {"network": "slow_only_50"}, "belong to network=mini_slow_only"),
        ("5/gc_all", {"inflation": "center"}, "did you mean 'centre'"),
    ],
)
def test_recipes_that_cannot_be_are_refused(row, values, said):
    with pytest.raises(BadOption, match=said):
        recipe_of(row, values)


@pytest.mark.full
@pytest.mark.parametrize("row", FULL_ROWS)
def test_the_plan_of_a_row(row):
    parameters, *others = kinetics.counts(recipe_of(row))
    if row in PARAMETERS:
        assert parameters.startswith(f"parameters: {PARAMETERS[row]:,} (printed: ")
        (printed,) = (c.printed for c in CELLS if (c.row, c.column) == (row, "params_m"))
        assert int(PARAMETERS[row] / 1e4) == round(printed * 100)
    assert "G as built, by the paper's convention" in others[0]
    assert "evaluation: 10 clips × 3 crops of 256²" in others[-1]
    expected = " ".join(plan.expected(row))
    for column in ("top1", "top5"):
        (cell,) = (c for c in CELLS if (c.row, c.column) == (row, column))
        assert f"{column} {cell.printed:g} ({cell.mark})" in expected


def test_the_ledger_says_how_to_get_a_number():
    """Each command is one that is there, with a row that it knows."""
    entries = [entry for entry in ledger() if entry.row.startswith(("5/", "1/kinetics_"))]
    assert {entry.row for entry in entries} == set(FULL_ROWS)
    for entry in entries:
        words = entry.command.split()
        if entry.column in ("top1", "top5"):
            assert words[:5] == ["gclib", "train", "kinetics", "--row", entry.row]
        elif entry.column.startswith(("cosine", "jsd")):
            assert words[:3] == ["gclib", "analyse", "kinetics"]
            folder = default_out("kinetics", recipe_of(entry.row))
            assert words[words.index("--checkpoint") + 1] == f"{folder.as_posix()}/best.pt"
        else:
            assert words == ["gclib", "ledger", "--table", "5", "--recount"]


def test_a_plan_is_probed_on_this_machine(data, capsys):
    arguments = ["train", "kinetics", "--row", "mini/kinetics_gc", "--workers", "0", "--plan"]
    assert main([*arguments, "--batch-size", "4", "--micro-batch", "4"]) == 0
    out = capsys.readouterr().out
    assert "examples (generated clips)" in out
    assert float(out.split("updates (")[1].split()[0]) > 0
    assert main([*arguments, "--batch-size", "4", "--micro-batch", "4", "--data", str(data)]) == 0
    assert "16 examples (the data given)" in capsys.readouterr().out


def test_batch_norms_do_not_decay():
    """One update by hand, with a gradient of zero: only the decay moves a weight."""
    recipe = recipe_of("mini/kinetics_gc", {"optimizer": "sgd", "lr": 0.5, "weight_decay": 0.1})
    recipe = replace(recipe, lr_batch=recipe.batch_size)
    model = build(recipe)
    optimizer = build_optimizer(model, recipe, torch.device("cpu"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    norms = {
        f"{name}.{kind}"
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm3d)
        for kind in ("weight", "bias")
    }
    assert {name for name in before if "bn" in name} <= norms
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        share = 1.0 if name in norms else 1 - 0.5 * 0.1
        torch.testing.assert_close(parameter, before[name] * share, rtol=1e-5, atol=0)
    assert any("layer_norm" in n or "norm" in n for n in before if n not in norms)  # those decay


# -- the weights that a network starts from ------------------------------------------------------

SMALL = {"frames": 4, "short_range": (36, 40), "size": 32, "test_size": 32}


def saved(folder, model, **about):
    path = folder / "weights.pt"
    write(path, {"format": 1, "model": model.state_dict(), "recipe": {}, **about})
    return str(path)


@pytest.mark.full
@pytest.mark.parametrize("inflation", ["centre", "average"])
def test_a_network_starts_from_the_inflated_weights(tmp_path, inflation):
    torch.manual_seed(0)
    flat = build_resnet("resnet50", num_classes=7, stride_in="1x1").eval()
    path = saved(tmp_path, flat, stride_in="1x1")
    values = {"inflation": inflation, "stride_in": "1x1", "time_padding": "replicate"}
    model = build(recipe_of("5/gc_all", SMALL | values), 5, path).eval()
    picture = torch.randn(2, 3, 64, 64)
    clip = picture[:, :, None].expand(-1, -1, 4, -1, -1)
    for part in (flat, model):
        part.fc = nn.Identity()
    torch.testing.assert_close(model(clip), flat(picture), rtol=1e-3, atol=1e-4)


@pytest.mark.full
def test_a_network_starts_from_a_slow_only_network(tmp_path):
    torch.manual_seed(0)
    plain = SlowOnly(num_classes=5)
    model = build(recipe_of("5/gc_all"), 5, saved(tmp_path, plain, stride_in="3x3"))
    ours = model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in plain.state_dict().items())


@pytest.mark.full
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: build_resnet("resnet18", num_classes=7), "cannot be inflated for slow_only_50"),
        (lambda: build_resnet("resnet101", num_classes=7), "has no place in ResNet"),
        (lambda: build_resnet("resnet50", "4a/gc_1", num_classes=7), "there is no block in layer3"),
        (lambda: nn.Linear(3, 4), "no conv1.weight among the weights"),
        (lambda: SlowOnly(101, 5), "has no place in SlowOnly"),
    ],
)
def test_weights_that_do_not_fit_are_refused(data, tmp_path, make, said, capsys):
    path = saved(tmp_path, make(), stride_in="3x3")
    arguments = ["--data", str(data), "--weights", path, "--out", str(tmp_path / "run")]
    assert main(["train", "kinetics", "--row", "5/gc_all", *arguments, "--workers", "0"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_weights_of_another_stride_are_refused(data, tmp_path, capsys):
    path = tmp_path / "weights.pt"
    write(path, {"format": 1, "model": {"conv1.weight": torch.zeros(1)}, "stride_in": "1x1"})
    arguments = ["--data", str(data), "--weights", str(path), "--out", str(tmp_path / "run")]
    assert main(["train", "kinetics", "--row", "5/baseline", *arguments]) == 2
    assert "its weights belong to stride_in='1x1', not '3x3'" in capsys.readouterr().err


def test_a_network_without_weights_is_refused(data, capsys):
    assert main(["train", "kinetics", "--row", "5/gc_all", "--data", str(data)]) == 2
    assert "starts from a ResNet that was trained on ImageNet" in capsys.readouterr().err
    arguments = ["--data", str(data), "--weights", "IMAGENET1K_V1"]
    assert main(["train", "kinetics", "--row", "mini/kinetics_gc", *arguments]) == 2
    assert "the small network starts from scratch" in capsys.readouterr().err


# -- whole runs ----------------------------------------------------------------------------------


def test_a_run_says_what_it_was(whole):
    losses = [line["loss"] for line in read_log(whole / "log.jsonl") if line["event"] == "train"]
    assert len(losses) == 6
    summary = json.loads((whole / "summary.json").read_text("utf-8"))
    assert (summary["task"], summary["row"]) == ("kinetics", "mini/kinetics_gc")
    assert set(summary["figures"]) == {"top1", "top5", "videos"}
    assert summary["figures"]["videos"] == 8
    assert summary["as_in_paper"] is False
    assert summary["about"]["labels"] == list(GENERATED)
    assert not (whole / "scores").exists()


@pytest.mark.parametrize("stops", [(3,), (1, 4)])
def test_a_resumed_run_gives_the_same_bits(data, whole, tmp_path, stops):
    """Dropout, augmentation, running statistics and two decays: all go on."""
    done = 0
    for stop in stops:
        tiny_kinetics.run(data, tmp_path, resume=True, stop_after=stop - done)
        done = stop
    tiny_kinetics.run(data, tmp_path, resume=True)
    one, two = final(whole), final(tmp_path)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.full
def test_reading_processes_make_no_difference(data, whole, tmp_path):
    tiny_kinetics.run(data, tmp_path, workers=2)
    one, two = final(whole), final(tmp_path)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.full
def test_two_processes_are_one_that_accumulates(data, tmp_path):
    """With fixed statistics and without dropout, so that nothing depends on a process."""
    for count in (1, 2):
        in_processes(
            count, "train", data, tmp_path / str(count), "norm=frozen", "dropout=0", "epochs=2"
        )
    one, two = final(tmp_path / "1"), final(tmp_path / "2")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
    figures = [
        json.loads((tmp_path / n / "summary.json").read_text("utf-8"))["figures"]
        for n in ("1", "2")
    ]
    assert figures[0] == figures[1]
    assert figures[0]["videos"] == 8


@pytest.mark.full
@pytest.mark.parametrize("row", ["5/gc_all", "5/nl_5", "1/kinetics_concat", "mini/kinetics_snl"])
def test_the_smoke_run_of_a_row(row, capsys):
    arguments = ["--smoke", "--precision", "fp32", "--workers", "0", "--threads", "1"]
    assert main(["train", "kinetics", "--row", row, *arguments]) == 0
    out = capsys.readouterr().out
    assert f"ok: {row} was read, trained, stopped, resumed, evaluated and read back" in out


def test_the_loss_is_that_of_each_clip():
    torch.manual_seed(0)
    recipe = recipe_of("mini/kinetics_gc")
    model = build(recipe).eval()
    clips = torch.randint(0, 256, (3, 1, 3, 4, 32, 32), dtype=torch.uint8)
    labels = torch.tensor([0, 2, 3])
    batch = VideoBatch(clips, labels, torch.arange(3), [])
    logits = model(prepare(clips[:, 0]))
    by_hand = -logits.log_softmax(1)[torch.arange(3), labels].mean()
    assert loss_of(recipe)(model, batch).item() == pytest.approx(by_hand.item(), rel=1e-5)


# -- evaluation ----------------------------------------------------------------------------------


class Told(nn.Module):
    """Logits that are written in the first pixel of each view."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, clips):
        mean, spread = kinetics.MEAN[0], kinetics.STD[0]
        return self.logits[(clips[:, 0, 0, 0, 0] * spread + mean).round().long()]


def views_of(*numbers):
    clips = torch.zeros(len(numbers), len(numbers[0]), 3, 2, 4, 4, dtype=torch.uint8)
    for video, views in enumerate(numbers):
        for view, number in enumerate(views):
            clips[video, view] = number
    return clips


@pytest.mark.parametrize("views", [None, 1, 2, 5])
def test_softmax_is_averaged_and_not_logits(views):
    """Two views are almost sure of class 0, one is very sure of class 1."""
    model = Told([[3.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    batch = VideoBatch(views_of([0, 0, 1], [0, 1, 1]), torch.tensor([0, 1]), torch.arange(2), [])
    found = predict(model, batch, "fp32", views)
    sure, very = (row.exp() / row.exp().sum() for row in model.logits)
    torch.testing.assert_close(found[0], (2 * sure + very) / 3)
    torch.testing.assert_close(found[1], (sure + 2 * very) / 3)
    assert topk_correct(found, batch.labels, (1,)) == [2]
    mean = (2 * model.logits[0] + model.logits[1]) / 3
    assert mean.argmax() == 1 != found[0].argmax()


def test_all_views_of_a_video_count(data, whole):
    recipe, state = kinetics_checkpoint(whole)
    task = Kinetics(recipe, data)
    model = task.build_model(fresh=False)
    model.load_state_dict(state["model"])
    figures = task.evaluate(model.eval(), World(), Machine(workers=0))
    hits = 0
    for index in range(8):
        example = task.test_data[index]
        assert example.views.shape == (6, 3, 8, 32, 32)
        with torch.no_grad():
            softmax = model(prepare(example.views)).softmax(1)
        hits += int(softmax.mean(0).argmax() == example.label)
    assert figures == {"top1": 100 * hits / 8, "top5": 100.0, "videos": 8}


def kinetics_checkpoint(out):
    return recipe_in(kinetics, Path(out, "model.pt"))


def test_one_crop_is_the_middle_one_of_three(data):
    recipe = recipe_of("mini/kinetics_gc", tiny_kinetics.VALUES | {"test_size": 32})
    three = Kinetics(recipe, data).test_data[0].views
    one = Kinetics(replace(recipe, crops=1), data).test_data[0].views
    assert torch.equal(one, three[1::3])
    assert len(one) == 2


def test_broken_videos_are_named_counted_and_left_out(data, tmp_path):
    folder = copied(data, tmp_path / "data")
    (next((folder / "train" / "up").iterdir())).write_bytes(b"nothing")
    broken = sorted((folder / "val" / "left").iterdir())
    broken[0].write_bytes(broken[0].read_bytes()[:300])
    out = tmp_path / "run"
    tiny_kinetics.run(folder, out)
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["broken"] == 2
    assert (summary["figures"]["videos"], summary["figures"]["broken"]) == (7, 1)
    named = (out / "broken.txt").read_text("utf-8")
    assert str(broken[0]) in named


def test_an_evaluation_without_a_readable_video_says_so(data, whole, tmp_path, capsys):
    folder = copied(data, tmp_path / "data")
    for path in (folder / "val").rglob("*.mp4"):
        path.write_bytes(b"")
    arguments = ["--checkpoint", str(whole / "model.pt"), "--data", str(folder), "--workers", "0"]
    assert main(["evaluate", "kinetics", *arguments]) == 2
    assert "no test video can be read, the first is " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "is not a folder that holds train/"),
        (lambda f: shutil.rmtree(f / "val"), "does not hold val/ or val.csv"),
        (lambda f: shutil.rmtree(f / "val" / "up"), "both need the same classes"),
        (
            lambda f: (f / "train.csv").write_text("path,label\nalone\n"),
            "is not a path and a label",
        ),
    ],
)
def test_another_folder_ends_with_a_sentence(data, tmp_path, spoil, said, capsys):
    folder = copied(data, tmp_path / "data")
    spoil(folder)
    arguments = ["train", "kinetics", "--row", "mini/kinetics_gc", "--data", str(folder)]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--workers", "0"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_test_part_alone_can_be_evaluated(data, whole, tmp_path, capsys):
    folder = copied(data, tmp_path / "data")
    shutil.rmtree(folder / "train")
    summary = json.loads((whole / "summary.json").read_text("utf-8"))
    arguments = ["--checkpoint", str(whole / "model.pt"), "--data", str(folder), "--workers", "0"]
    assert main(["evaluate", "kinetics", *arguments]) == 0
    said = dict(zip(*[iter(capsys.readouterr().out.split())] * 2, strict=True))
    assert {k: float(v) for k, v in said.items()} == summary["figures"]


def test_other_classes_are_refused(data, whole, tmp_path, capsys):
    folder = copied(data, tmp_path / "data")
    for part in ("train", "val"):
        (folder / part / "up").rename(folder / part / "away")
    arguments = ["--checkpoint", str(whole / "model.pt"), "--data", str(folder), "--workers", "0"]
    assert main(["evaluate", "kinetics", *arguments]) == 2
    assert "was trained on other categories" in capsys.readouterr().err


# -- evaluations that stop and go on -------------------------------------------------------------


def scores_in(folder):
    """Index → label and scores, as the files have them."""
    import base64

    found = {}
    for path in sorted(Path(folder).glob("scores-*.txt")):
        for line in path.read_text("utf-8").splitlines():
            value = json.loads(line.partition(" ")[2])
            if "index" in value:
                assert value["index"] not in found
                numbers = torch.frombuffer(
                    bytearray(base64.b64decode(value["scores"])), dtype=torch.float32
                )
                found[value["index"]] = (value["label"], numbers.tolist())
    return found


@pytest.fixture(scope="module")
def kept(data, whole, tmp_path_factory):
    """Figures and scores of an evaluation that nothing interrupts."""
    folder = tmp_path_factory.mktemp("scores") / "whole"
    figures = tiny_kinetics.evaluated(data, whole / "model.pt", folder)
    return figures, folder


def test_scores_are_the_averaged_softmax_of_each_video(data, whole, kept):
    figures, folder = kept
    recipe, state = kinetics_checkpoint(whole)
    task = Kinetics(recipe, data)
    model = task.build_model(fresh=False)
    model.load_state_dict(state["model"])
    found = scores_in(folder)
    assert sorted(found) == list(range(8))
    for index, (label, scores) in found.items():
        batch = collate([task.test_data[index]])
        assert label == batch.labels.item()
        mine = predict(model.eval(), batch, "fp32", task.views)[0]
        assert mine.tolist() == scores
    hits = sum(max(range(4), key=scores.__getitem__) == label for label, scores in found.values())
    assert figures["top1"] == 100 * hits / 8


def test_an_evaluation_goes_on_from_every_cut(data, whole, kept, tmp_path):
    """A file that ends anywhere counts up to its last whole line."""
    figures, folder = kept
    (path,) = folder.glob("scores-*.txt")
    text, found = path.read_bytes(), scores_in(folder)
    ends = [place for place, byte in enumerate(text) if byte == ord("\n")]
    assert len(ends) == 9
    cuts = {0, 1, ends[0], ends[0] + 1, ends[3] - 1, ends[3], ends[3] + 1, ends[3] + 2}
    cuts |= {ends[4] + 20, ends[8] - 7, ends[8], len(text)}
    for cut in sorted(cuts):
        other = tmp_path / str(cut)
        other.mkdir()
        (other / path.name).write_bytes(text[:cut])
        assert tiny_kinetics.evaluated(data, whole / "model.pt", other) == figures
        lines = (other / path.name).read_bytes().splitlines()
        torn = cut > ends[0] and text[cut - 1] != ord("\n")
        assert len(lines) == 9 + torn  # nothing was scored twice
        assert whole_lines(other) == found


def whole_lines(folder):
    """As :func:`scores_in`, without lines that were cut off."""
    from gclib.training.scores import Scores

    class Reading(Scores):
        def __init__(self, folder):
            self.folder = Path(folder)

    return {index: (label, scores.tolist()) for index, label, scores in Reading(folder)}


def test_a_spoilt_line_is_scored_again(data, whole, kept, tmp_path):
    figures, folder = kept
    (path,) = folder.glob("scores-*.txt")
    lines = path.read_bytes().splitlines(keepends=True)
    spoilt = bytearray(lines[4])
    spoilt[len(spoilt) // 2] ^= 1
    lines[4] = bytes(spoilt)
    other = tmp_path / "scores"
    other.mkdir()
    (other / path.name).write_bytes(b"".join(lines))
    assert tiny_kinetics.evaluated(data, whole / "model.pt", other) == figures
    assert whole_lines(other) == scores_in(folder)


@pytest.mark.full
@pytest.mark.parametrize("seed", [1, 2])
def test_an_evaluation_that_is_killed_gives_the_same_figures(data, whole, kept, tmp_path, seed):
    figures, folder = kept
    scores = tmp_path / "scores"
    command = [sys.executable, str(SCRIPT), "killed", data, whole / "model.pt", scores, 6, seed]
    ended = subprocess.run(
        list(map(str, command)), env=ONE_THREAD, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert len(json.loads(ended.stdout)) > 1  # kills
    assert whole_lines(scores) == scores_in(folder)
    assert tiny_kinetics.evaluated(data, whole / "model.pt", scores) == figures


@pytest.mark.full
def test_an_evaluation_goes_on_with_another_number_of_processes(data, whole, kept, tmp_path):
    figures, folder = kept
    scores = tmp_path / "scores"
    said = in_processes(3, "evaluate", data, whole / "model.pt", scores)
    assert json.loads(said.splitlines()[-1]) == figures
    files = sorted(scores.glob("scores-*.txt"))
    assert len(files) == 3
    for file in files[1:]:  # as if they had been killed early
        file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:2]))
    said = in_processes(2, "evaluate", data, whole / "model.pt", scores)
    assert json.loads(said.splitlines()[-1]) == figures
    assert scores_in(scores) == scores_in(folder)


def test_scores_of_something_else_are_refused(data, whole, kept, tmp_path, capsys):
    _, folder = kept
    scores = copied(folder, tmp_path / "scores")
    checkpoint, other = tmp_path / "model.pt", tmp_path / "data"
    state = torch.load(whole / "model.pt", weights_only=True)

    def refused(checkpoint, data):
        arguments = ["--checkpoint", str(checkpoint), "--data", str(data), "--workers", "0"]
        assert main(["evaluate", "kinetics", *arguments, "--scores", str(scores)]) == 2
        return capsys.readouterr().err

    write(
        checkpoint, state | {"model": state["model"] | {"fc.bias": state["model"]["fc.bias"] + 1}}
    )
    assert "belong to another checkpoint: give another folder" in refused(checkpoint, data)
    write(checkpoint, state | {"recipe": state["recipe"] | {"clips": 3}})
    assert "belong to another recipe: " in refused(checkpoint, data)
    copied(data, other)
    next((other / "val" / "up").iterdir()).unlink()
    assert "belong to another list of videos: " in refused(whole / "model.pt", other)
    assert scores_in(scores) == scores_in(folder)


def test_scores_go_with_their_videos(data, whole, kept, tmp_path):
    """A data set that was moved is the same one."""
    figures, folder = kept
    scores = copied(folder, tmp_path / "scores")
    moved = copied(data, tmp_path / "moved")
    for path in (moved / "val").rglob("*.mp4"):
        path.write_bytes(b"")  # nothing is read again
    assert tiny_kinetics.evaluated(moved, whole / "model.pt", scores) == figures


class Stopped(Exception):
    """For :class:`Stopping`."""


class Stopping(Kinetics):
    """Stops in the middle of the second evaluation."""

    evaluations = 0

    def evaluate(self, model, world, machine):
        type(self).evaluations += 1
        if type(self).evaluations == 2:
            seen = []

            def stop(*_):
                seen.append(1)
                if len(seen) == 6:  # each of the 8 videos has two passes
                    raise Stopped

            with model.register_forward_pre_hook(stop):
                return super().evaluate(model, world, machine)
        return super().evaluate(model, world, machine)


def test_the_evaluation_of_a_training_goes_on_too(data, whole, tmp_path, capsys):
    with pytest.raises(Stopped):
        tiny_kinetics.run(data, tmp_path, task=Stopping, checkpoint_steps=100)
    assert len(whole_lines(tmp_path / "scores")) == 2
    tiny_kinetics.run(data, tmp_path, resume=True)
    assert "2 videos have their scores already, 6 are left" in capsys.readouterr().out
    assert not (tmp_path / "scores").exists()
    results = [
        json.loads(Path(out, "summary.json").read_text("utf-8"))["evaluations"]
        for out in (whole, tmp_path)
    ]
    assert results[0] == results[1]


# -- what the blocks look at ---------------------------------------------------------------------


@pytest.mark.full
def test_maps_and_distances_of_clips(data, tmp_path, capsys):
    values = {"epochs": 1, "batch_size": 16, "micro_batch": 16, "warmup_steps": 0}
    tiny_kinetics.run(data, tmp_path / "run", row="mini/kinetics_nl", values=values)
    arguments = ["--checkpoint", str(tmp_path / "run/model.pt"), "--data", str(data)]
    arguments += [
        "--out",
        str(tmp_path / "seen"),
        "--workers",
        "0",
        "--maps",
        "1",
        "--queries",
        "2",
    ]
    assert main(["analyse", "kinetics", *arguments, "--images", "3", "--effect", "yes"]) == 0
    found = json.loads((tmp_path / "seen/analysis.json").read_text("utf-8"))
    assert len(found["trained"]) == 4
    for name, size in found["maps"].items():
        assert size == {"positions": [8, 4, 4], "queries": 128, "keys": 32}
        assert found["trained"][name]["jsd/attention"]["images"] == 3
    assert {k for k in found if k.startswith("untrained")} == {
        "untrained",  # its own scale is 1/√d
        "untrained, scale 1",
        "untrained, scale × √d",
    }
    assert len(list((tmp_path / "seen").glob("maps-*.png"))) == 4
    out = capsys.readouterr().out
    assert "average distances over 3 of 8 videos" in out
    assert "maps of 128 queries over 32 keys, which are max-pooled" in out
    assert "maps queries permuted: top1" in out
