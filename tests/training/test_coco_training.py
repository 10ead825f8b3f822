"""COCO's recipe: plans, small whole runs, two processes, broken data, evaluations."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_coco
import torch

from gclib.cli import main
from gclib.datasets.coco import CocoDataset, DetectionBatch, coco_folder, collate, eval_transform
from gclib.datasets.detection_scenes import CLASSES as GENERATED
from gclib.datasets.detection_scenes import write_detection_scenes
from gclib.models.detector_counts import count_detector
from gclib.models.mini_detector import MINI_ROWS
from gclib.paper.tables import CELLS
from gclib.training import coco, plan
from gclib.training.coco import ROWS, Coco, build, loss_of, predict, recipe_of
from gclib.training.options import BadOption
from gclib.training.progress import read_log

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
FULL_ROWS = [row for row in ROWS if row not in MINI_ROWS]
# Every kind of block and head, in seconds: ResNet-18 where the row allows it.
SMALL = ["--short", "64", "--long", "96", "--rois", "8", "--proposals-train", "32"]
SMALL += ["--precision", "fp32", "--workers", "0", "--threads", "1"]
SMALL += ["--proposals-test", "32", "--detections", "8"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco") / "data"
    write_detection_scenes(folder, images={"train2017": 16, "val2017": 4})
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    tiny_coco.run(data, out)
    return out


def final(out):
    return torch.load(Path(out, "model.pt"), weights_only=True)["model"]


def copied(data, folder):
    shutil.copytree(data, folder)
    return folder


# -- recipes and plans ---------------------------------------------------------------------------


def test_the_defaults_are_the_paper_and_its_code():
    recipe = recipe_of("2a/gc_all")
    assert (recipe.epochs, recipe.lr, recipe.batch_size, recipe.micro_batch) == (12, 0.02, 16, 2)
    per_epoch = 7329
    rates = [recipe.rate(step, per_epoch) for step in (0, 499, 500)]
    assert rates[0] == pytest.approx(0.02 * (1 / 3 + 2 / 3 / 500))
    assert rates[1:] == [pytest.approx(0.02)] * 2
    ends = [recipe.rate(epoch * per_epoch - 1, per_epoch) for epoch in (8, 11, 12)]
    assert ends == [pytest.approx(v) for v in (0.02, 0.002, 0.0002)]
    paper = recipe_of("2a/gc_all", {"drops": (8.0, 10.0)})
    assert paper.rate(10 * per_epoch, per_epoch) == pytest.approx(0.0002)
    assert recipe_of("2a/gc_all", {"batch_size": 4}).largest_lr == pytest.approx(0.005)
    assert (recipe.clip, recipe.weight_decay, recipe.norm) == (35, 1e-4, "sync")


@pytest.mark.parametrize(
    ("row", "network"),
    [
        ("1/coco_gaussian", "resnet50"),
        ("2a/gc_all", "resnet50"),
        ("3a/r101_gc_r4", "resnet101"),
        ("3a/x101_dcn_cascade_gc_r16", "resnext101_32x4d"),
        ("mini/coco_gc", "mini_detector"),
    ],
)
def test_a_row_says_its_network(row, network):
    assert recipe_of(row).network == network


@pytest.mark.parametrize(
    ("row", "values", "said"),
    [
        ("2a/gc_al", {}, "did you mean '2a/gc_all'"),
        ("4a/gc_all", {}, "expected one of"),
        ("2a/gc_all", {"short": 900, "long": 800}, "expected at least short=900"),
        ("2a/gc_all", {"network": "mini_detector"}, "belong to network=mini_detector"),
        ("mini/coco_gc", {"network": "resnet50"}, "belong to network=mini_detector"),
        ("2a/gc_all", {"network": "resnet5"}, "did you mean 'resnet50'"),
        ("2a/gc_all", {"drops": ()}, "give both or none"),
        ("2a/gc_all", {"rois": 0}, "expected at least 1"),
    ],
)
def test_recipes_that_cannot_be_are_refused(row, values, said):
    with pytest.raises(BadOption, match=said.replace("(", "\\(")):
        recipe_of(row, values)


@pytest.mark.full
@pytest.mark.parametrize("row", FULL_ROWS)
def test_the_plan_of_a_row(row):
    parameters, multiply_adds = coco.counts(recipe_of(row))
    counted = count_detector(row)
    assert f"{counted.parameters:,}" in parameters
    assert f"{counted.multiply_adds / 1e9:.3f} G by the convention of table 2" in multiply_adds
    expected = " ".join(plan.expected(row))
    for cell in CELLS:
        if cell.row == row and cell.column in ("ap_box", "ap_mask"):
            assert f"{cell.column} {cell.printed:g} ({cell.mark})" in expected
    assert "ap_box" in expected


def test_a_plan_is_probed_on_this_machine(capsys):
    arguments = ["train", "coco", "--row", "mini/coco_gc", "--plan", "--workers", "0"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "mini/coco_gc, 800 examples (generated images)" in out
    assert float(out.split("updates (")[1].split()[0]) > 0


def test_a_plan_counts_the_data_given(data, capsys):
    arguments = ["train", "coco", "--row", "mini/coco_none", "--plan", "--data", str(data)]
    assert main(arguments) == 0
    assert "16 examples (the data given)" in capsys.readouterr().out


# -- whole runs ----------------------------------------------------------------------------------


def test_a_run_learns_and_says_what_it_was(whole):
    losses = [line["loss"] for line in read_log(whole / "log.jsonl") if line["event"] == "train"]
    assert len(losses) == 16
    assert sum(losses[-3:]) < sum(losses[:3])
    summary = json.loads((whole / "summary.json").read_text("utf-8"))
    assert (summary["task"], summary["row"]) == ("coco", "mini/coco_gc")
    assert summary["figures"]["images"] == 4
    assert {"ap_box", "ap_mask_75", "ap_box_s"} <= set(summary["figures"])
    assert summary["as_in_paper"] is False
    assert summary["about"]["labels"] == list(range(1, 1 + len(GENERATED)))


@pytest.mark.parametrize("stops", [(3,), (1, 5)])
def test_a_resumed_run_gives_the_same_bits(data, whole, tmp_path, stops):
    """The regions that heads learn from are drawn at random: their generator goes on, too."""
    done = 0
    for stop in stops:
        tiny_coco.run(data, tmp_path, resume=True, stop_after=stop - done)
        done = stop
    tiny_coco.run(data, tmp_path, resume=True)
    one, two = final(whole), final(tmp_path)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.full
def test_reading_processes_make_no_difference(data, whole, tmp_path):
    tiny_coco.run(data, tmp_path, workers=2)
    one, two = final(whole), final(tmp_path)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.full
def test_two_processes_are_one_that_accumulates(data, tmp_path):
    def processes(out, count):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = str(found.getsockname()[1])
        started = []
        for rank in range(count):
            world = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            command = [sys.executable, tiny_coco.__file__, str(data), str(out), "norm=frozen"]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(command, env=ONE_THREAD | world, **pipes))
        return [(p.communicate(timeout=300), p.returncode) for p in started]

    for (_, errors), status in processes(tmp_path / "two", 2):
        assert status == 0, errors
    (((out, errors), status),) = processes(tmp_path / "one", 1)
    assert status == 0, errors
    assert "2 parts × 2 examples" in out
    one, two = final(tmp_path / "one"), final(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
    figures = [
        json.loads((tmp_path / n / "summary.json").read_text("utf-8"))["figures"]
        for n in ("one", "two")
    ]
    assert figures[0] == pytest.approx(figures[1], abs=0.5)
    assert figures[0]["images"] == figures[1]["images"] == 4


@pytest.mark.full
@pytest.mark.parametrize(
    ("row", "network"),
    [
        ("1/coco_gaussian", "resnet18"),
        ("2a/nl_1", "resnet18"),
        ("2f/avg_scale", "resnet18"),
        ("3a/r101_gc_r4", "resnet50"),
        ("3a/x101_cascade_gc_r16", "resnet18"),
        ("3a/x101_dcn_cascade_gc_r4", "resnext50_32x4d"),
        ("mini/coco_nl", "mini_detector"),
    ],
)
def test_the_smoke_run_of_a_row(row, network, capsys):
    size = [] if row.startswith("mini/") else SMALL
    assert main(["train", "coco", "--row", row, "--network", network, *size, "--smoke"]) == 0
    out = capsys.readouterr().out
    assert f"ok: {row} was read, trained, stopped, resumed, evaluated and read back" in out


# -- data that is not as it should be ------------------------------------------------------------


def small_batch(data, count=2):
    found = CocoDataset(*coco_folder(data, "train"), eval_transform(128, 128))
    return collate([found[k] for k in range(count)])


def test_a_batch_without_any_object_has_a_loss_and_gradients(data):
    batch = small_batch(data)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    empty["masks"] = torch.zeros(0, 128, 128, dtype=torch.uint8)
    batch = DetectionBatch(batch.images, [t | empty for t in batch.targets], [])
    recipe = recipe_of("mini/coco_gc")
    model = build(recipe, 1 + len(GENERATED)).train()
    loss = loss_of(recipe)(model, batch)
    loss.backward()
    assert loss.isfinite()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing  # several processes would wait for them
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_images_without_objects_are_kept_on_request(data, tmp_path):
    folder = copied(data, tmp_path / "data")
    path = folder / "annotations" / "instances_train2017.json"
    told = json.loads(path.read_text("utf-8"))
    told["annotations"] = [a for a in told["annotations"] if a["image_id"] > 4]
    path.write_text(json.dumps(told), "utf-8")
    assert len(Coco(recipe_of("mini/coco_gc"), folder).train_data) == 12
    tiny_coco.run(
        folder, tmp_path / "run", values={"keep_empty": True, "epochs": 1, "drops": (0.5,)}
    )
    summary = json.loads((tmp_path / "run/summary.json").read_text("utf-8"))
    assert summary["examples"] == 16


def test_missing_and_broken_images_are_named_and_replaced(data, tmp_path):
    folder = copied(data, tmp_path / "data")
    (folder / "train2017" / "000000000003.png").unlink()
    (folder / "train2017" / "000000000007.png").write_bytes(b"nothing")
    (folder / "val2017" / "000000000002.png").unlink()
    tiny_coco.run(folder, tmp_path / "run")
    summary = json.loads((tmp_path / "run/summary.json").read_text("utf-8"))
    assert summary["broken"] == 3
    assert (summary["figures"]["images"], summary["figures"]["broken"]) == (3, 1)
    named = (tmp_path / "run/broken.txt").read_text("utf-8")
    assert all(f"{number:012d}.png" in named for number in (2, 3, 7))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "annotations/instances_train2017.json").write_text("{"), "instances_train"),
        (lambda f: shutil.rmtree(f / "val2017"), "val2017.zip"),
        (lambda f: shutil.rmtree(f / "annotations"), "annotations_trainval2017.zip"),
        (lambda f: shutil.rmtree(f), "is not a folder"),
        (
            lambda f: (f / "annotations/instances_train2017.json").write_text(
                '{"images": [], "annotations": [], "categories": []}'
            ),
            "instances_train2017.json",
        ),
    ],
)
def test_broken_data_ends_with_a_sentence(data, tmp_path, spoil, said, capsys):
    folder = copied(data, tmp_path / "data")
    spoil(folder)
    arguments = ["train", "coco", "--row", "mini/coco_gc", "--data", str(folder)]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--workers", "0"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "summary.json").exists()


def test_other_categories_in_the_other_part_are_refused(data, tmp_path, capsys):
    folder = copied(data, tmp_path / "data")
    path = folder / "annotations" / "instances_val2017.json"
    told = json.loads(path.read_text("utf-8"))
    told["categories"].append({"id": 90, "name": "toothbrush"})
    path.write_text(json.dumps(told), "utf-8")
    arguments = ["train", "coco", "--row", "mini/coco_gc", "--data", str(folder)]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--workers", "0"]) == 2
    assert "different categories" in capsys.readouterr().err


def test_a_detector_without_weights_is_refused(data, capsys):
    assert main(["train", "coco", "--row", "2a/gc_all", "--data", str(data)]) == 2
    assert "starts from a backbone that was trained on ImageNet" in capsys.readouterr().err


# -- evaluation ----------------------------------------------------------------------------------


def test_the_evaluation_of_a_checkpoint_gives_its_figures_and_a_result_file(
    data, whole, tmp_path, capsys
):
    arguments = ["--checkpoint", str(whole / "model.pt"), "--data", str(data), "--workers", "0"]
    results = ["--results", str(tmp_path / "found.json")]
    assert main(["evaluate", "coco", *arguments, *results]) == 0
    said = dict(zip(*[iter(capsys.readouterr().out.split())] * 2, strict=True))
    summary = json.loads((whole / "summary.json").read_text("utf-8"))
    for name, value in summary["figures"].items():
        assert float(said[name]) == pytest.approx(value, rel=1e-4)
    boxes = json.loads((tmp_path / "found.bbox.json").read_text("utf-8"))
    masks = json.loads((tmp_path / "found.segm.json").read_text("utf-8"))
    assert len(boxes) == len(masks) > 0
    assert set(boxes[0]) == {"image_id", "category_id", "bbox", "score"}


def test_test_dev_has_no_objects_and_gives_a_result_file_alone(data, whole, tmp_path, capsys):
    folder = copied(data, tmp_path / "data")
    (folder / "val2017").rename(folder / "test2017")
    path = folder / "annotations" / "instances_val2017.json"
    told = json.loads(path.read_text("utf-8"))
    del told["annotations"]
    other = path.with_name("image_info_test-dev2017.json")
    other.write_text(json.dumps(told), "utf-8")
    path.unlink()
    arguments = ["--checkpoint", str(whole / "model.pt"), "--data", str(folder), "--workers", "0"]
    arguments += ["--part", "test-dev", "--results", str(tmp_path / "found")]
    assert main(["evaluate", "coco", *arguments]) == 0
    assert capsys.readouterr().out.split() == ["images", "4"]
    assert (tmp_path / "found.segm.json").is_file()


def test_detections_are_in_pixels_of_the_file(data):
    """Twice the size for the network, the same boxes in the file."""
    recipe = recipe_of("mini/coco_gc")
    torch.manual_seed(0)
    model = build(replace(recipe, short=256, long=256), 1 + len(GENERATED)).eval()
    found = CocoDataset(*coco_folder(data, "train"), eval_transform(256, 256))
    batch = collate([found[0]])
    assert batch.images[0].shape == (3, 256, 256)
    (one,) = predict(model, batch, "fp32")
    assert len(one["boxes"]) > 0
    assert one["boxes"].max() <= 128
    assert one["masks"].shape[1:] == (1, 16, 16)


# -- what the blocks look at ---------------------------------------------------------------------


@pytest.mark.full
def test_maps_and_distances_of_a_detector(data, tmp_path, capsys):
    tiny_coco.run(data, tmp_path / "run", row="mini/coco_nl", values={"epochs": 1, "drops": (0.5,)})
    arguments = ["--checkpoint", str(tmp_path / "run/model.pt"), "--data", str(data)]
    arguments += ["--out", str(tmp_path / "seen"), "--workers", "0", "--maps", "1"]
    assert main(["analyse", "coco", *arguments, "--effect", "yes"]) == 0
    found = json.loads((tmp_path / "seen/analysis.json").read_text("utf-8"))
    assert len(found["trained"]) >= 1
    assert all(b["jsd/attention"]["images"] == 4 for b in found["trained"].values())
    assert set(found["effect"]) == {"as they are", "queries permuted", "the mean of all maps"}
    assert len(list((tmp_path / "seen").glob("maps-*.png"))) == len(found["trained"])
    assert "maps queries permuted: ap_box" in capsys.readouterr().out
