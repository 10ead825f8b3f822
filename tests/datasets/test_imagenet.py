"""What is missing of ImageNet is named, and how to get it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gclib.datasets import image_folder
from gclib.datasets.files import BrokenData
from gclib.datasets.imagenet import HOW_TO_GET, IMAGENET, Counts, check_imagenet, folders
from gclib.datasets.images import make_images

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")

WNIDS = ("n01440764", "n01443537", "n01484850")
SMALL = Counts(classes=3, train=12, val=6, train_each=(4, 4), val_each=2)


@pytest.fixture
def small(tmp_path):
    """An ImageNet of three classes."""
    folder = tmp_path / "imagenet"
    make_images(folder, classes=3, per_class=4, size=(40, 30))
    for part in folder.iterdir():
        for old, new in zip(sorted(part.iterdir()), WNIDS, strict=True):
            old.rename(part / new)
    return folder


def check(folder, **options):
    return check_imagenet(folder, **({"expected": SMALL} | options))


def flatten(part):
    """As ILSVRC2012_img_val.tar unpacks."""
    paths = sorted(part.glob("*/*.jpg"))
    for number, path in enumerate(paths, start=1):
        path.rename(part / f"ILSVRC2012_val_{number:08d}.JPEG")
    for home in [path for path in part.iterdir() if path.is_dir()]:
        home.rmdir()


def test_a_whole_imagenet(small):
    report = check(small)
    assert report.ok
    assert report.imagenet
    assert not report.broken
    assert str(report).splitlines() == [
        "ok  train: 12 images in 3 classes",
        "ok  val: 6 images in 3 classes",
        "ok  train: as many images as ImageNet has, in every class",
        "ok  val: as many images as ImageNet has, in every class",
        "ok  18 images drawn at random can be read",
    ]
    train, val = folders(small)
    assert (len(train), len(val)) == (12, 6)


def test_the_counts_are_those_of_imagenet():
    assert (IMAGENET.classes, IMAGENET.train, IMAGENET.val) == (1000, 1_281_167, 50_000)
    assert IMAGENET.val == IMAGENET.classes * IMAGENET.val_each
    least, most = IMAGENET.train_each
    assert IMAGENET.classes * least < IMAGENET.train < IMAGENET.classes * most


def test_other_classes_are_fine(tmp_path):
    make_images(tmp_path / "shapes", classes=3, per_class=4, size=(40, 30))
    report = check(tmp_path / "shapes")
    assert report.ok
    assert not report.imagenet
    assert "ok  3 classes that are not ImageNet's: fine for a training; its figures are not" in str(
        report
    )


def test_a_part_of_imagenet_is_fine(small):
    report = check_imagenet(small)  # 3 of 1000
    assert report.ok
    assert not report.imagenet
    assert "ok  3 classes named as ImageNet's, which has 1,000: fine for a training if" in str(
        report
    )


def test_the_second_part_may_be_called_test(small):
    (small / "val").rename(small / "test")
    assert check(small).ok


def damage(folder, how):
    home = folder / "train" / WNIDS[1]
    if how == "gone":
        return folder / "nowhere"
    if how == "a file":
        return next(home.iterdir())
    if how == "train gone":
        (folder / "train").rename(folder.parent / "train")
    if how == "val gone":
        (folder / "val").rename(folder.parent / "val")
    if how == "both gone":
        return home
    if how == "flat val":
        flatten(folder / "val")
    if how == "flat, other names":
        flatten(folder / "val")
        for path in list((folder / "val").iterdir()):
            path.rename(path.with_name(f"{path.stem[-4:]}.png"))
    if how == "archives":
        for path in (folder / "train").iterdir():
            for image in path.iterdir():
                image.unlink()
            path.rmdir()
            path.with_suffix(".tar").touch()
    if how == "kaggle":
        inner = folder / "ILSVRC" / "Data" / "CLS-LOC"
        inner.mkdir(parents=True)
        (folder / "train").rename(inner / "train")
        (folder / "val").rename(inner / "val")
    if how == "class gone":
        (folder / "val" / WNIDS[2]).rename(folder / "elsewhere")
    if how == "image gone":
        next(home.iterdir()).unlink()
    if how == "image too many":
        next(home.iterdir()).rename(folder / "train" / WNIDS[0] / "more.jpg")
    if how == "class empty":
        for path in home.iterdir():
            path.unlink()
    if how == "val image gone":
        next((folder / "val" / WNIDS[0]).iterdir()).unlink()
    if how == "image cut":
        path = next(home.iterdir())
        path.write_bytes(path.read_bytes()[:-300])
    return folder


@pytest.mark.parametrize(
    ("how", "messages"),
    [
        ("gone", ["nowhere is not a folder that holds train/", "nowhere is not a folder that"]),
        ("a file", ["is not a folder that holds train/"]),
        ("train gone", ["does not hold train/", "image-net.org", "ImageNet('DIR', 'train')"]),
        ("val gone", ["does not hold val/ or test/", "image-net.org", "ImageNet('DIR', 'val')"]),
        ("both gone", ["does not hold train/", "does not hold val/ or test/"]),
        ("flat val", ["is flat: 6 images of ImageNet and no class", "ImageNet('DIR', 'val')"]),
        ("flat, other names", ["is flat: 6 images and no class folder"]),
        ("archives", ["holds 3 .tar archives that are not unpacked", "ImageNet('DIR', 'train')"]),
        ("kaggle", ["laid out as on Kaggle: name ", "CLS-LOC instead"]),
        ("class gone", [f"{WNIDS[2]} is in ", "both need the same classes", "val holds 4 images"]),
        ("class empty", [f"class {WNIDS[1]} of ", "holds no image"]),
        ("image gone", ["train holds 11 images and ImageNet 12", f"{WNIDS[1]} has 3; expected 4"]),
        ("image too many", [f"({WNIDS[0]} has 5; {WNIDS[1]} has 3; expected 4)"]),
        ("val image gone", ["val holds 5 images and ImageNet 6", f"{WNIDS[0]} has 1; expected 2"]),
        ("image cut", ["1 of 18 images drawn at random cannot be read", "truncated"]),
    ],
)
def test_what_is_missing_is_named(small, how, messages):
    report = check(damage(small, how))
    assert not report.ok
    problems = "\n".join(line for line in str(report).splitlines() if line.startswith("no  "))
    assert len(problems.splitlines()) == len(report.problems)  # one line each
    for message in messages:
        assert message in problems


@pytest.mark.parametrize("how", ["val gone", "flat val", "class gone"])
def test_such_a_folder_is_refused_by_the_training(small, how):
    with pytest.raises(BrokenData):
        folders(damage(small, how))


def test_as_many_images_are_read_as_asked_for(small):
    damage(small, "image cut")
    assert not check(small, decode=18).ok
    assert "ok  0 images drawn" in str(check(small, decode=0))
    seen = [check(small, decode=9, seed=seed).broken != [] for seed in range(12)]
    assert 0 < sum(seen) < 12  # by chance
    assert seen == [check(small, decode=9, seed=seed).broken != [] for seed in range(12)]


def test_long_lists_are_cut_short(small):
    for path in small.glob("*/*/*.jpg"):
        path.write_bytes(b"")
    report = check(small)
    assert len(report.broken) == 18
    assert "and 13 more" in str(report)
    assert str(report).count("the file is empty") == 5


def test_a_long_check_says_how_far_it_is(small, monkeypatch, capsys):
    check(small)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(image_folder, "QUIET_SECONDS", 0)
    check(small)
    said = capsys.readouterr().err
    assert f"3 of 3 classes of {small / 'train'} listed" in said
    assert "18 of 18 images read" in said


def test_the_advice_is_what_torchvision_does():
    """Its class unpacks archives of these names, and sorts the validation set."""
    from torchvision.datasets import imagenet

    names = {file for file, _ in imagenet.ARCHIVE_META.values()}
    assert len(names) == 3
    assert all(name in HOW_TO_GET for name in names)
    assert callable(imagenet.parse_val_archive)


@pytest.mark.full
def test_the_command_of_the_advice_can_be_typed(small):
    """It asks for SciPy, as the advice says, or for the archives."""
    [problem] = check(damage(small, "val gone")).problems
    code = problem.partition('python -c "')[2].partition('"')[0].replace("DIR", str(small))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.search(r"No module named 'scipy'|devkit_t12.tar.gz is not present", done.stderr)


def test_the_folder_is_not_changed(small):
    def state():
        return sorted((str(p), os.stat(p).st_mtime_ns) for p in Path(small).rglob("*"))

    before = state()
    check(small)
    assert state() == before
