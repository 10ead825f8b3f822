"""The generated detection set: what is in it, what decides a class, and its files."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as masks

from gclib.cli import main
from gclib.datasets import detection_scenes as ds
from gclib.datasets.files import BrokenData

SCENES = [ds.make_detection_scene("val2017", index) for index in range(200)]


def test_objects_lie_far_from_the_cue_and_apart():
    for scene in SCENES:
        boxes = scene.boxes
        assert ds.OBJECTS[0] <= len(boxes) <= ds.OBJECTS[1]
        assert boxes.min() >= 0
        assert (boxes[:, :2] + boxes[:, 2:]).max() <= ds.SIDE
        for k, (x, y, w, h) in enumerate(boxes):
            around = np.zeros((ds.SIDE, ds.SIDE), bool)
            top, left = max(0, y - ds.GAP), max(0, x - ds.GAP)
            around[top : y + h + ds.GAP, left : x + w + ds.GAP] = True
            cx, cy, cw, ch = scene.cue
            assert not around[cy : cy + ch, cx : cx + cw].any()
            near = np.zeros_like(around)
            near[y : y + h, x : x + w] = True
            for ox, oy, ow, oh in np.delete(boxes, k, axis=0):
                assert not near[oy : oy + oh, ox : ox + ow].any()


def test_the_cue_alone_has_a_colour_and_decides_on_the_class():
    for scene in SCENES[:50]:
        image = scene.image.astype(int)
        coloured = image.max(2) - image.min(2) > 60
        x, y, width, height = scene.cue
        expected = np.zeros_like(coloured)
        expected[y : y + height, x : x + width] = True
        assert (coloured == expected).all()
        names = [ds.CLASSES[label] for label in scene.labels]
        colour = ds.COLOURS[scene.colour]
        assert names == [f"{ds.SHAPES[shape]}-{colour}" for shape in scene.shapes]


def test_classes_are_about_equally_frequent():
    counts = np.bincount(np.concatenate([s.labels for s in SCENES]), minlength=len(ds.CLASSES))
    assert counts.min() >= 0.5 * counts.mean()
    colours = np.bincount([scene.colour for scene in SCENES])
    # The best guess of a class with the shape known: the most frequent colour of the set.
    assert colours.max() / len(SCENES) < 0.42


@pytest.mark.parametrize("size", range(ds.SIZES[0], ds.SIZES[1] + 1))
@pytest.mark.parametrize("shape", range(len(ds.SHAPES)))
def test_outlines_give_the_same_pixels_by_cocos_rasteriser(shape, size):
    mask = ds.shape_mask(shape, size)
    assert mask[[0, -1]].any(1).all()
    assert mask[:, [0, -1]].any(0).all()
    polygon = [number + 5 for number in ds.outline(mask)]
    side = size + 10
    found = masks.decode(masks.frPyObjects([polygon], side, side))[..., 0]
    assert (found == np.pad(mask, 5)).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("set") / "coco"
    digests = ds.write_detection_scenes(where, images={"train2017": 6, "val2017": 3})
    return where, digests


def test_files_are_laid_out_as_cocos(folder):
    where, _ = folder
    told = json.loads((where / "annotations/instances_val2017.json").read_text("utf-8"))
    assert [c["name"] for c in told["categories"]] == list(ds.CLASSES)
    assert len(told["images"]) == 3
    for image in told["images"]:
        scene = ds.make_detection_scene("val2017", image["id"] - 1)
        pixels = np.asarray(Image.open(where / "val2017" / image["file_name"]))
        assert (pixels == scene.image).all()
        mine = [a for a in told["annotations"] if a["image_id"] == image["id"]]
        assert [a["bbox"] for a in mine] == scene.boxes.tolist()
        assert [a["category_id"] - 1 for a in mine] == scene.labels.tolist()
    ids = [a["id"] for a in told["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


def test_the_data_set_of_coco_reads_it(folder):
    from gclib.datasets.coco import CocoDataset, coco_folder, eval_transform

    where, _ = folder
    data = CocoDataset(*coco_folder(where, "train"), eval_transform(ds.SIDE, ds.SIDE))
    assert len(data) == 6
    assert data.names == list(ds.CLASSES)
    for index in range(len(data)):
        example, scene = data[0, index], ds.make_detection_scene("train2017", index)
        assert (example.image.numpy().transpose(1, 2, 0) == scene.image).all()
        assert (example.target["labels"] == 1 + np.array(scene.labels)).all()
        for mask, (x, y, size, _), shape in zip(
            example.target["masks"].numpy(), scene.boxes, scene.shapes, strict=True
        ):
            expected = np.zeros((ds.SIDE, ds.SIDE), np.uint8)
            expected[y : y + size, x : x + size] = ds.shape_mask(int(shape), int(size))
            assert (mask == expected).all()


# Of the pixels and annotations, not of the files: PNGs may be packed in more than one way.
DIGESTS = {
    "train2017": "bee39abf4afee884f0be326c33fe17a376d30cdbf5895ba5113263a781681b12",
    "val2017": "5e863151dc0017ebe8143b9a2e97b0c159d8239de91071b331eac2d6d5c88175",
}


def test_the_same_seed_gives_the_same_set_everywhere(folder):
    assert folder[1] == DIGESTS


def test_another_seed_gives_another_set(tmp_path, folder):
    other = ds.write_detection_scenes(tmp_path / "set", images={"val2017": 3}, seed=1)
    assert other["val2017"] != folder[1]["val2017"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BrokenData, match="holds something already"):
        ds.write_detection_scenes(tmp_path, images={"val2017": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ValueError, match="at least 1"):
        ds.write_detection_scenes(tmp_path / "set", images={"val2017": 0})


@pytest.mark.full
def test_the_command_makes_a_small_set(tmp_path, capsys):
    arguments = ["data", "coco", "--out", str(tmp_path / "set")]
    assert main(arguments) == 0
    assert "ok  train2017: 800 generated images" in capsys.readouterr().out
    size = sum(path.stat().st_size for path in (tmp_path / "set").rglob("*") if path.is_file())
    assert size < 5_000_000
    assert main(arguments) == 2
    assert "holds something already" in capsys.readouterr().err
    assert main(["data", "coco", "--check", str(tmp_path / "set")]) == 0
