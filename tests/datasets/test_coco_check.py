"""What is missing of COCO is named, and where it comes from."""

import json

import numpy as np
import pytest
from PIL import Image

from gclib.cli import main
from gclib.datasets import image_folder
from gclib.datasets.coco_check import COCO, Counts, check_coco
from gclib.datasets.image_folder import SUFFIXES

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")

SMALL = Counts(categories=3, images=(4, 2), objects=(8, 4))
CROWD = {"size": [30, 40], "counts": [0, 1200]}


def write(folder, part, count):
    """Images of a part, two objects on each; the first one of the part is a crowd."""
    (folder / f"{part}2017").mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images, objects = [], []
    for number in range(1, count + 1):
        name = f"{number:012d}.jpg"
        pixels = np.full((30, 40, 3), 20 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{part}2017" / name)
        images.append({"id": number, "file_name": name, "height": 30, "width": 40})
        for k in range(2):
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": number,
                    "category_id": 1 + k,
                    "bbox": [5, 5, 10, 10],
                    "area": 100,
                    "iscrowd": int(number == 1 and k == 0),
                    "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]],
                }
            )
    objects[0]["segmentation"] = CROWD
    categories = [{"id": k, "name": name} for k, name in enumerate("abc", start=1)]
    told = {"images": images, "annotations": objects, "categories": categories}
    (folder / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(told))


@pytest.fixture
def small(tmp_path):
    """A COCO of three categories."""
    folder = tmp_path / "coco"
    write(folder, "train", 4)
    write(folder, "val", 2)
    return folder


def check(folder, **options):
    return check_coco(folder, **({"expected": SMALL} | options))


def test_a_whole_coco(small):
    report = check(small)
    assert report.ok
    assert report.coco
    assert not report.broken
    assert str(report).splitlines() == [
        "ok  train: 4 images, 0 of them without objects; 8 objects in 3 categories, of which a "
        "training leaves out 1 (1 crowds)",
        "ok  val: 2 images, 0 of them without objects; 4 objects in 3 categories, of which a "
        "training leaves out 1 (1 crowds)",
        "ok  train: as many images and objects as COCO has",
        "ok  val: as many images and objects as COCO has",
        f"ok  train: all listed images are in {small / 'train2017'}",
        f"ok  val: all listed images are in {small / 'val2017'}",
        "ok  6 images drawn at random can be read and have their listed size",
    ]


def test_the_counts_are_those_of_coco():
    """123,287 images in all, as its site says; 886,284 objects beside 10,498 crowds."""
    assert sum(COCO.images) == 123_287
    assert sum(COCO.objects) == 886_284 + 10_498
    assert COCO.categories == 80


def test_other_categories_are_fine(small):
    report = check_coco(small)
    assert report.ok
    assert not report.coco
    assert "ok  3 categories, and COCO has 80: fine for a training; its figures are not" in str(
        report
    )


def change(folder, part, what):
    path = folder / "annotations" / f"instances_{part}2017.json"
    told = json.loads(path.read_text())
    what(told)
    path.write_text(json.dumps(told))


def without_objects_of_the_last(told):
    told["annotations"] = told["annotations"][:-2]


def damage(folder, how):
    train, annotations = folder / "train2017", folder / "annotations"
    images = sorted(train.iterdir())
    if how == "gone":
        return folder / "nowhere"
    if how == "a file":
        return images[0]
    if how == "empty":
        (folder.parent / "empty").mkdir()
        return folder.parent / "empty"
    if how == "the folder above":
        return folder.parent
    if how == "val gone":
        (folder / "val2017").rename(folder.parent / "val2017")
    if how == "annotations gone":
        annotations.rename(folder.parent / "annotations")
    if how == "images/":
        (folder / "images").mkdir()
        train.rename(folder / "images" / "train2017")
    if how == "archive":
        train.rename(folder.parent / "train2017")
        (folder / "train2017.zip").touch()
    if how == "annotations outside":
        name = "instances_val2017.json"
        (annotations / name).rename(folder / name)
    if how == "twice":
        for image in images:
            (train / "train2017").mkdir(exist_ok=True)
            image.rename(train / "train2017" / image.name)
    if how == "image gone":
        images[2].unlink()
    if how == "image cut":
        images[1].write_bytes(images[1].read_bytes()[:-20])
    if how == "image turned":
        Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(images[1])
    if how == "annotations cut":
        path = annotations / "instances_train2017.json"
        path.write_text(path.read_text()[:900])
    if how == "object gone":
        change(folder, "train", without_objects_of_the_last)
    if how == "image not listed":
        change(folder, "val", lambda told: told["images"].append(told["images"][0] | {"id": 9}))
    if how == "other categories":
        change(folder, "val", lambda told: told["categories"].append({"id": 7, "name": "d"}))
    return folder


@pytest.mark.parametrize(
    ("how", "messages"),
    [
        ("gone", ["nowhere is not a folder. For COCO: cocodataset.org", "train2017.zip (18 GB)"]),
        ("a file", ["is not a folder. For COCO"]),
        (
            "empty",
            [
                "does not hold train2017/ and annotations/instances_train2017.json: unpack "
                "train2017.zip (18 GB) and annotations_trainval2017.zip (241 MB) of cocodata",
                "does not hold val2017/ and annotations/instances_val2017.json",
            ],
        ),
        (
            "the folder above",
            ["does not hold train2017/, but ", "coco does: name that one instead"],
        ),
        ("val gone", ["does not hold val2017/: unpack val2017.zip (1 GB)"]),
        ("annotations gone", ["does not hold annotations/instances_train2017.json: unpack annot"]),
        ("images/", ["holds images/train2017/: move it up, to train2017/"]),
        ("archive", ["train2017.zip is not unpacked: unzip it in "]),
        ("annotations outside", ["holds instances_val2017.json itself: move it to annotations/"]),
        ("twice", ["train2017 holds train2017/ once more: move its images up"]),
        ("image gone", ["lacks 1 of 4 listed images (000000000003.jpg): unpack train2017.zip (18"]),
        ("image cut", ["1 of 6 images drawn at random cannot be used", "000000000002.jpg: "]),
        ("image turned", ["has 30×40 pixels, in instances_train2017.json 40×30"]),
        ("annotations cut", ["instances_train2017.json is cut off at annotations["]),
        ("object gone", ["lists 4 images and 6 objects, and COCO's 4 and 8. A training can start"]),
        ("image not listed", ["lists 3 images and 4 objects, and COCO's 2 and 4"]),
        (
            "other categories",
            ["the categories of train and val differ (ids 7): both need the same"],
        ),
    ],
)
def test_what_is_missing_is_named(small, how, messages):
    report = check(damage(small, how))
    assert not report.ok
    problems = "\n".join(line for line in str(report).splitlines() if line.startswith("no  "))
    assert len(problems.splitlines()) == len(report.problems)  # one line each
    for message in messages:
        assert message in problems


def test_images_in_folders_of_their_own(small):
    """As in file names like ``a/000000000001.jpg``."""
    (small / "train2017" / "a").mkdir()
    image = small / "train2017" / "000000000001.jpg"
    image.rename(small / "train2017" / "a" / image.name)
    assert not check(small).ok
    change(small, "train", lambda told: told["images"][0].update(file_name=f"a/{image.name}"))
    assert check(small).ok


def test_as_many_images_are_read_as_asked_for(small):
    damage(small, "image cut")
    assert not check(small, decode=6).ok
    assert "ok  0 images drawn" in str(check(small, decode=0))
    seen = [check(small, decode=3, seed=seed).broken != [] for seed in range(12)]
    assert 0 < sum(seen) < 12  # by chance
    assert seen == [check(small, decode=3, seed=seed).broken != [] for seed in range(12)]


def test_long_lists_are_cut_short(tmp_path):
    write(tmp_path, "train", 9)
    write(tmp_path, "val", 2)
    for path in (tmp_path / "train2017").iterdir():
        if path.suffix in SUFFIXES:
            path.write_bytes(b"")
    report = check(tmp_path)
    assert len(report.broken) == 9
    assert "and 4 more" in str(report)
    assert str(report).count("the file is empty") == 5


def test_a_long_check_says_how_far_it_is(small, monkeypatch, capsys):
    check(small)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(image_folder, "QUIET_SECONDS", 0)
    check(small)
    said = capsys.readouterr().err
    assert f"1 of 1 parts of {small / 'annotations' / 'instances_train2017.json'} read" in said
    assert "6 of 6 images read" in said


def test_the_folder_is_not_changed(small):
    def state():
        return sorted((str(p), p.stat().st_mtime_ns) for p in small.rglob("*"))

    before = state()
    check(small)
    assert state() == before


def test_the_command(small, capsys):
    assert main(["data", "coco", "--check", str(small), "--decode", "3"]) == 0
    assert "3 images drawn at random can be read" in capsys.readouterr().out
    assert main(["data", "coco", "--check", str(small / "none")]) == 1
    assert "no  " in capsys.readouterr().out
    assert main(["data", "coco", "--check", str(small), "--decode", "-1"]) == 2
