"""COCO's task: mistakes of users and of data that must end early and with a sentence."""

import json
import shutil
from types import SimpleNamespace

import pytest
import tiny_coco
import torch

from gclib.analysis.interventions import untrained
from gclib.blocks import GCBlock, NonLocalBlock
from gclib.cli import main
from gclib.datasets.coco import CocoDataset, coco_folder, train_transform
from gclib.datasets.detection_scenes import write_detection_scenes
from gclib.datasets.files import BrokenData
from gclib.models.detector_counts import count_detector
from gclib.training import coco
from gclib.training.coco import Coco, build, recipe_of
from gclib.training.distributed import World
from gclib.training.recipe import Machine


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco") / "data"
    write_detection_scenes(folder, images={"train2017": 8, "val2017": 2})
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    tiny_coco.run(data, out, values={"epochs": 1, "drops": (0.5,)})
    return out / "model.pt"


def changed(data, folder, part, change):
    """A copy of the data with other annotations of a part."""
    shutil.copytree(data, folder)
    path = folder / "annotations" / f"instances_{part}.json"
    told = json.loads(path.read_text("utf-8"))
    change(told)
    path.write_text(json.dumps(told), "utf-8")
    return folder


def test_a_training_needs_objects_to_compare_with(data, tmp_path, capsys):
    folder = changed(data, tmp_path / "data", "val2017", lambda told: told.pop("annotations"))
    arguments = ["train", "coco", "--row", "mini/coco_gc", "--data", str(folder)]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--workers", "0"]) == 2
    assert "has no list 'annotations'" in capsys.readouterr().err


def test_without_a_readable_image_all_processes_say_so(data, tmp_path):
    """The second one has no image of its own, and so none that it could name."""

    class Two(World):
        def total(self, *values):
            return list(values)

        def gather(self, value):
            return [["a.png"], value]

    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data/val2017/000000000002.png").unlink()
    told = json.loads((tmp_path / "data/annotations/instances_val2017.json").read_text("utf-8"))
    told["images"], told["annotations"] = told["images"][:1], []
    (tmp_path / "data/annotations/instances_val2017.json").write_text(json.dumps(told), "utf-8")
    task = Coco(recipe_of("mini/coco_gc"), tmp_path / "data")
    with pytest.raises(BrokenData, match=r"a\.png"):
        task.evaluate(torch.nn.Identity(), Two(rank=1, size=2), Machine(workers=0))


@pytest.mark.parametrize("command", ["evaluate", "analyse"])
def test_as_many_but_other_categories_are_refused(data, trained, tmp_path, command, capsys):
    def renumber(told):
        for category in told["categories"]:
            category["id"] += 100
        for entry in told["annotations"]:
            entry["category_id"] += 100

    folder = changed(data, tmp_path / "data", "val2017", renumber)
    arguments = ["--checkpoint", str(trained), "--data", str(folder), "--workers", "0"]
    assert main([command, "coco", *arguments]) == 2
    assert "was trained on other categories" in capsys.readouterr().err


def test_results_get_their_folder_before_the_work(data, trained, tmp_path):
    arguments = ["--checkpoint", str(trained), "--data", str(data), "--workers", "0"]
    assert main(["evaluate", "coco", *arguments, "--results", str(tmp_path / "new/a.json")]) == 0
    assert (tmp_path / "new/a.bbox.json").is_file()


def test_test_dev_without_a_place_for_results_is_refused(data, trained, capsys):
    arguments = ["--checkpoint", str(trained), "--data", str(data), "--part", "test-dev"]
    assert main(["evaluate", "coco", *arguments]) == 2
    assert "--results is missing" in capsys.readouterr().err


def test_weights_for_the_small_detector_are_refused(data, capsys):
    arguments = ["train", "coco", "--row", "mini/coco_gc", "--data", str(data)]
    assert main([*arguments, "--weights", "IMAGENET1K_V1"]) == 2
    assert "starts from scratch" in capsys.readouterr().err


def test_boxes_that_a_mirror_would_flatten_do_not_count(data, tmp_path):
    def spoil(told):
        told["annotations"][0] |= {"bbox": [-0.9999999, 10, 1.0, 20], "area": 20}

    folder = changed(data, tmp_path / "data", "train2017", spoil)
    images, annotations = coco_folder(folder, "train")
    found = CocoDataset(images, annotations, train_transform(96, 96, 1.0))[0]
    sides = found.target["boxes"][:, 2:] - found.target["boxes"][:, :2]
    assert (sides > 0).all()


def test_permuted_maps_need_a_block_that_has_some(data, trained, capsys):
    arguments = ["--checkpoint", str(trained), "--data", str(data), "--workers", "0"]
    assert main(["analyse", "coco", *arguments, "--effect", "yes"]) == 2
    assert "--effect" in capsys.readouterr().err


def test_the_small_detector_leaves_images_of_its_recipe_alone():
    model = build(recipe_of("mini/coco_none", {"short": 96, "long": 128}), 10).eval()
    images, _ = model.transform([torch.zeros(3, 96, 128)])
    assert images.image_sizes == [(96, 128)]


def test_a_plan_counts_the_network_of_the_recipe():
    line = next(iter(coco.counts(recipe_of("2a/baseline", {"network": "resnet101"}))))
    assert f"{count_detector('3a/r101_baseline').parameters:,}" in line


def test_cudnn_is_not_asked_to_compare_algorithms_for_every_size(data):
    from gclib.training.trainer import prepared

    with prepared(Machine(), torch.device("cpu"), one_size=Coco.one_size):
        assert not torch.backends.cudnn.benchmark


def test_processes_of_a_probe_stop_together(monkeypatch):
    """Synchronised norms would wait for one that has stopped."""
    from gclib.training import plan

    asked = []

    class Other(World):
        def largest(self, *values):
            asked.append(values)
            return [int(len(asked) == 2)]  # the other process is over its time

    monkeypatch.setattr(plan, "PROBE_SECONDS", 1e9)
    recipe = recipe_of("mini/coco_none", {"precision": "fp32", "micro_batch": 1, "batch_size": 1})
    assert plan.probe(coco, recipe, Machine(), Other())["updates"] == 1


def test_blocks_that_start_anew_are_drawn_on_the_cpu():
    """Else each kind of device would measure other weights, and its generator would change."""
    block = GCBlock(16, ratio=4)
    moves = []
    block.cpu = lambda: moves.append("cpu") or block
    with untrained(block):
        assert moves == ["cpu"]
    assert SimpleNamespace(block=block).block.training


def test_one_map_for_all_queries_takes_no_pairs(monkeypatch):
    """20,000 pairs of one map with itself took minutes for every block of an image."""
    from gclib.analysis import running

    monkeypatch.setattr(running, "sampled_distance", None)
    means = {}
    running.RunningDistances(20_000)._add_one(means, "attention", torch.ones(1, 40) / 40)
    assert means["jsd/attention"].mean == 0


def test_an_untrained_block_is_a_fresh_one_but_for_its_last_weights():
    """Layers that start as torch's do would have larger maps, and a bias in every output."""
    block = NonLocalBlock(256)
    with untrained(block):
        for layer in (block.query, block.key, block.value, block.out):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
            assert not layer.bias.any()
    block = GCBlock(256)
    with untrained(block):
        assert not block.context_modelling.key.bias.any()
        assert block.transform.expand.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not block.transform.expand.bias.any()
