"""Folders of images: every kind of damage is named, and random crops depend on nothing else."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.transforms import v2

from gclib.datasets import image_files, image_folder
from gclib.datasets.files import BrokenData
from gclib.datasets.images import (
    MEAN,
    STD,
    Batch,
    BrokenImage,
    Example,
    ImageDataset,
    ImageFolder,
    Progress,
    collate,
    eval_transform,
    folders,
    make_images,
    mixed,
    read_image,
    train_transform,
)

# torchvision 0.29 announces that its decoder will go; Pillow then takes over.
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "images"
    make_images(folder, classes=4, per_class=5, size=(120, 90))
    return folder


@pytest.fixture
def own(tmp_path):
    """A folder that a test may damage."""
    make_images(tmp_path / "own", classes=2, per_class=3, size=(64, 48))
    return tmp_path / "own"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """Pixels of one made image, 500×375."""
    folder = tmp_path_factory.mktemp("photo") / "images"
    make_images(folder, classes=1, per_class=1)
    return Image.open(next(folder.glob("train/*/*.jpg"))).convert("RGB")


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# -- folders -------------------------------------------------------------------------------------


def test_a_folder_is_read_as_torchvision_reads_it(tmp_path):
    for name in ("b/2.jpg", "b/10.JPEG", "a/z.png", "a/deep/x.webp", "a/deep/er/y.jpg", "a/ü.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/notes.txt").touch()
    (tmp_path / "readme.jpg").touch()
    folder, other = ImageFolder(tmp_path), TorchvisionFolder(tmp_path)
    pairs = [(folder.path(i), folder.label(i)) for i in range(len(folder))]
    assert pairs == other.samples
    assert folder.classes == other.classes == ["a", "b"]


def test_hidden_files_and_folders_are_left_out(own):
    (own / "train/.cache").mkdir()
    (own / "train/.cache/1.jpg").touch()
    home = next((own / "train").glob("[!.]*"))
    (home / "._000000.jpg").touch()
    (home / ".thumbnails").mkdir()
    (home / ".thumbnails/1.jpg").touch()
    assert len(ImageFolder(own / "train")) == 6


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_are_followed_but_not_in_circles(own, tmp_path):
    (tmp_path / "linked").mkdir()
    for name in ImageFolder(own / "train").classes:
        (tmp_path / "linked" / name).symlink_to(own / "train" / name)
        (own / "train" / name / "again").symlink_to(own / "train" / name)
    assert len(ImageFolder(tmp_path / "linked")) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_names_that_are_not_text(own):
    home = next((own / "train").iterdir())
    os.rename(home / "000000.jpg", os.fsencode(home) + b"/\xff\xfe.jpg")
    folder = ImageFolder(own / "train")
    assert sum(os.path.exists(folder.path(i)) for i in range(len(folder))) == 6


def test_indices_outside_of_a_folder(own):
    folder = ImageFolder(own / "train")
    for index in (-1, 6):
        with pytest.raises(IndexError, match="holds 6 images"):
            folder.path(index)
    assert len(list(ImageDataset(folder, eval_transform(32, 32)))) == 6


def damage(folder, how):
    train = folder / "train"
    home = sorted(train.iterdir())[1]
    if how == "gone":
        return folder / "nowhere"
    if how == "a file":
        return next(home.iterdir())
    if how == "flat":
        return home
    if how == "empty class":
        for path in home.iterdir():
            path.rename(path.with_suffix(".txt"))
    if how == "empty":
        (folder / "new").mkdir()
        return folder / "new"
    if how == "circle":
        (folder / "circle").symlink_to(folder / "circle")
        return folder / "circle"
    return train


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("gone", "nowhere is not there: name the folder"),
        ("a file", "jpg is a file: name the folder"),
        ("flat", "holds 3 images and no folder: every class needs a folder"),
        ("empty", "holds no folder: every class needs a folder"),
        ("empty class", "class red-disc of .* holds no image"),
        ("circle", "circle cannot be read: "),
    ],
)
def test_damaged_folders_are_named(own, how, message):
    with pytest.raises(BrokenData, match=message):
        ImageFolder(damage(own, how))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights of POSIX")
def test_a_folder_without_permission(own):
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        os.chmod(place, 0o755)
        shutil.copytree(own / "train", Path(place, "train"))
        home = next(Path(place, "train").iterdir())
        home.chmod(0)
        if root:  # who may read everything
            os.seteuid(65534)
        try:
            with pytest.raises(BrokenData, match="may not be read: ask its owner"):
                ImageFolder(Path(place, "train"))
        finally:
            if root:
                os.seteuid(0)
            home.chmod(0o755)


def test_both_parts_of_a_data_set(own):
    train, val = folders(own)
    assert (len(train), len(val)) == (6, 4)
    (own / "val").rename(own / "test")
    assert folders(own)[1].root == own / "test"


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("train", "red-disc is in .*val and not in .*train: both need"),
        ("val", "red-disc is in .*train and not in .*val: both need"),
    ],
)
def test_parts_of_different_classes(own, part, message):
    (own / part / "red-disc").rename(own / "elsewhere")
    with pytest.raises(BrokenData, match=message):
        folders(own)


def test_a_part_that_is_missing(own):
    (own / "val").rename(own / "valid")
    with pytest.raises(BrokenData, match="own does not hold val/ or test/: name the folder"):
        folders(own)
    with pytest.raises(BrokenData, match="nowhere is not a folder that holds train/"):
        folders(own / "nowhere")


def test_a_folder_holds_few_objects_however_many_images_it_has(tmp_path):
    """Python objects are counted, and counting copies pages of forked workers."""
    (tmp_path / "a").mkdir()
    for number in range(300):
        (tmp_path / "a" / f"{number}.jpg").touch()
    folder = ImageFolder(tmp_path)
    held = list(vars(folder).values())
    assert {type(value) for value in held if not isinstance(value, list)} <= {
        *(bytes, np.ndarray, type(tmp_path))
    }
    assert [len(value) for value in held if isinstance(value, list)] == [1]  # one class
    assert len(pickle.dumps(folder)) < 300 * 40
    assert folder.path(299).endswith("99.jpg")


def test_progress_is_silent_at_first(monkeypatch, capsys):
    progress = Progress("images read", 2000)
    progress.step()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(image_folder, "QUIET_SECONDS", 0)
    progress.step()
    assert capsys.readouterr().err == "2 of 2,000 images read\n"


# -- files ---------------------------------------------------------------------------------------


def test_jpeg_is_decoded_as_pillow_does(photo, tmp_path):
    (tmp_path / "x.jpg").write_bytes(encoded(photo, "JPEG", quality=90))
    image = read_image(tmp_path / "x.jpg")
    expected = np.asarray(Image.open(tmp_path / "x.jpg"))
    assert image.dtype == torch.uint8
    assert tuple(image.shape) == (3, 375, 500)
    assert (image.permute(1, 2, 0).int() - torch.tensor(expected).int()).abs().max() <= 1


def test_without_torchvisions_decoder_pillow_does_it(photo, tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(encoded(photo, "JPEG", quality=90))
    expected = read_image(tmp_path / "x.jpg")
    monkeypatch.setattr(image_files, "_jpeg_decoder", lambda: None)
    assert (read_image(tmp_path / "x.jpg").int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {"quality": 95}),
        ("JPEG", "RGB", {"quality": 95, "progressive": True}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {}),
    ],
)
def test_all_kinds_become_colours(photo, tmp_path, kind, mode, options):
    """And under a name that says JPEG, as one PNG of ImageNet has."""
    if mode == "I;16":
        image = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 256 + 7)
    else:
        image = photo.convert(mode)
    grey = mode in ("L", "LA", "1", "I;16")
    wanted = photo.convert({"P": "P", "1": "1"}.get(mode, "L" if grey else "RGB")).convert("RGB")
    (tmp_path / "x.JPEG").write_bytes(encoded(image, kind, **options))
    found = read_image(tmp_path / "x.JPEG")
    assert found.dtype == torch.uint8
    assert tuple(found.shape) == (3, 375, 500)
    error = (found.permute(1, 2, 0).float() - torch.tensor(np.asarray(wanted)).float()).abs().mean()
    assert error < (6 if kind == "JPEG" else 0.01)
    if grey:
        assert (found == found[:1]).all()


def test_orientation_of_the_camera_is_not_applied(photo, tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # turned by 90°
    (tmp_path / "x.jpg").write_bytes(encoded(photo, "JPEG", exif=exif))
    (tmp_path / "x.png").write_bytes(encoded(photo, "PNG", exif=exif))
    for path in tmp_path.iterdir():
        assert tuple(read_image(path).shape) == (3, 375, 500)


def bad_bytes(how, photo):
    jpeg, png = encoded(photo, "JPEG", quality=90), encoded(photo, "PNG")
    if how == "huge jpeg":
        at = jpeg.index(b"\xff\xc0") + 5
        return jpeg[:at] + b"\xff\xff\xff\xff" + jpeg[at + 4 :]
    if how == "huge png":
        header = b"IHDR" + (60000).to_bytes(4, "big") * 2 + png[24:29]
        import zlib

        return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]
    return {
        "empty": b"",
        "text": b"<html>404 Not Found</html>",
        "cut jpeg": jpeg[: len(jpeg) // 2],
        "last bytes cut": jpeg[:-200],
        "header only": jpeg[:200],
        "start of jpeg only": b"\xff\xd8\xff",
        "endless header": b"\xff\xd8\xff\xe0\x00\x00" * 50,
        "cut png": png[: len(png) // 2],
        "zeros": bytes(5000),
    }[how]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("empty", "the file is empty"),
        ("text", "it is not an image"),
        ("zeros", "it is not an image"),
        ("start of jpeg only", "it is not an image"),
        ("endless header", "it is not an image"),
        ("cut jpeg", "truncated"),
        ("last bytes cut", "truncated"),
        ("header only", "Truncated"),
        ("cut png", "truncated"),
        ("huge jpeg", "65535×65535 is more than 89,478,485 pixels"),
        ("huge png", "more than 89,478,485 pixels"),
    ],
)
def test_unreadable_files(photo, tmp_path, how, reason, capfd, recwarn):
    path = tmp_path / "bad.jpg"
    path.write_bytes(bad_bytes(how, photo))
    with pytest.raises(BrokenImage, match=reason) as caught:
        read_image(path)
    assert caught.value.path == str(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(caught.value.reason) > 5
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not from_pillow(recwarn)


def from_pillow(recorded):
    """torchvision warns of the future of its decoder, which users do not see."""
    return [str(w.message) for w in recorded if "torchvision" not in str(w.filename)]


def test_files_that_cannot_be_opened(tmp_path):
    for path in (tmp_path / "nowhere.jpg", tmp_path):
        with pytest.raises(BrokenImage, match="cannot be opened"):
            read_image(path)


def test_pillow_does_not_warn_about_a_readable_image(photo, tmp_path, recwarn):
    image = photo.convert("P")
    image.save(tmp_path / "x.png", transparency=bytes(range(256)))
    with pytest.warns(UserWarning, match="Transparency"):
        Image.open(tmp_path / "x.png").convert("RGB")
    recwarn.clear()
    assert tuple(read_image(tmp_path / "x.png").shape) == (3, 375, 500)
    assert not from_pillow(recwarn)


def damaged_inside(photo):
    """A JPEG with a run of other bytes in its data: libjpeg prints a line about it."""
    jpeg = encoded(photo, "JPEG", quality=90)
    noise = np.random.default_rng(0).integers(0, 256, 3000, dtype=np.uint8).tobytes()
    return jpeg[:20000] + noise + jpeg[23000:]


def test_workers_say_nothing_about_damaged_data(own, photo, capfd):
    next((own / "train").glob("*/000001.jpg")).write_bytes(damaged_inside(photo))
    data = ImageDataset(ImageFolder(own / "train"), eval_transform(32, 32), substitute=False)
    batches = list(DataLoader(data, 2, num_workers=1, collate_fn=collate))
    assert sum(len(batch.broken) for batch in batches) == 1
    assert capfd.readouterr() == ("", "")


# -- examples ------------------------------------------------------------------------------------


def dataset(made, **options):
    options = {"seed": 3} | options
    crop = train_transform(32, rotation=10, jitter=20)
    return ImageDataset(ImageFolder(made / "train"), crop, **options)


def load(data, keys, **options):
    """One batch for each list of keys."""
    return list(DataLoader(data, batch_sampler=keys, collate_fn=collate, **options))


KEYS = [[(0, 4), (0, 1), (0, 19)], [(1, 4), (1, 2)], [(7, 4), (7, 0), (7, 11)]]


def equal(one, two):
    return (
        torch.equal(one.images, two.images)
        and torch.equal(one.labels, two.labels)
        and torch.equal(one.indices, two.indices)
        and one.broken == two.broken
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(made, workers):
    expected = load(dataset(made), KEYS)
    torch.manual_seed(99)  # workers get their seeds from here
    found = load(dataset(made), KEYS, num_workers=workers)
    assert all(equal(one, two) for one, two in zip(expected, found, strict=True))


def test_a_run_that_goes_on_gets_the_batches_it_would_have_got(made):
    whole = load(dataset(made), KEYS)
    rest = load(dataset(made), KEYS[2:], num_workers=2)
    assert equal(whole[2], rest[0])


def test_an_example_depends_on_seed_epoch_and_index(made):
    data = dataset(made)
    first = data[0, 4].image
    assert torch.equal(first, data[0, 4].image)
    assert torch.equal(first, data[4].image)  # a bare index is of epoch 0
    assert not torch.equal(first, data[1, 4].image)
    assert not torch.equal(first, dataset(made, seed=4)[0, 4].image)
    with pytest.raises(IndexError, match="holds 20 images"):
        data[0, 20]


def test_a_data_set_goes_to_another_process(made):
    data = dataset(made)
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(data[3, 5].image, again[3, 5].image)
    assert again.folder.path(5) == data.folder.path(5)


def test_nothing_outside_changes(made):
    import random

    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    dataset(made)[2, 3]
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_nothing_outside_changes_when_a_transform_fails(made):
    def fail(image):
        torch.rand(3)
        raise RuntimeError("as it happens")

    data = ImageDataset(ImageFolder(made / "train"), fail)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="as it happens"):
        data[0]
    assert torch.equal(before, torch.get_rng_state())


def test_mixed_seeds_of_near_numbers_differ():
    triples = [(s, e, i) for s in range(5) for e in range(20) for i in range(100)]
    seeds = [mixed(*triple) for triple in triples]
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == len(triples)  # torch takes 32 bits
    assert 0 <= min(seeds) <= max(seeds) < 2**63
    ones = np.mean([[seed >> bit & 1 for bit in range(63)] for seed in seeds], axis=0)
    assert abs(ones - 0.5).max() < 0.03  # five standard deviations of 10,000 coins
    assert mixed(0, 1) != mixed(1, 0)
    assert mixed(0) != mixed(0, 0)


def break_image(folder, index):
    path = folder.path(index)
    with open(path, "wb") as file:
        file.write(b"\xff\xd8\xff broken")
    return path


def test_training_takes_the_next_readable_image(own):
    folder = ImageFolder(own / "train")
    paths = [break_image(folder, 2), break_image(folder, 3)]
    example = ImageDataset(folder, eval_transform(32, 32))[0, 2]
    expected = ImageDataset(folder, eval_transform(32, 32))[0, 4]
    assert torch.equal(example.image, expected.image)
    assert (example.label, example.index, example.broken) == (1, 2, tuple(paths))
    batch = collate([example, expected])
    assert batch.broken == paths
    assert batch.labels.tolist() == [1, 1]


def test_the_last_image_is_replaced_by_the_first(own):
    folder = ImageFolder(own / "train")
    path = break_image(folder, 5)
    example = ImageDataset(folder, eval_transform(32, 32))[5]
    assert (example.label, example.broken) == (0, (path,))


def test_a_test_leaves_a_broken_image_out(own):
    folder = ImageFolder(own / "val")
    path = break_image(folder, 1)
    data = ImageDataset(folder, eval_transform(32, 32), substitute=False)
    assert data[1] == Example(None, -1, 1, (path,))
    [batch] = DataLoader(data, batch_size=4, collate_fn=collate)
    assert batch.indices.tolist() == [0, 2, 3]
    assert batch.labels.tolist() == [0, 1, 1]
    assert batch.images.shape == (3, 3, 32, 32)
    assert batch.broken == [path]


def test_a_batch_of_broken_images_is_empty(own):
    folder = ImageFolder(own / "val")
    paths = [break_image(folder, index) for index in range(2)]
    data = ImageDataset(folder, eval_transform(32, 32), substitute=False)
    batch, _ = DataLoader(data, batch_size=2, collate_fn=collate, num_workers=1)
    assert len(batch) == 0
    assert batch.broken == paths
    assert batch.images.shape == (0, 3, 0, 0)


# A worker that has failed is waited for, 5 s, by torch.
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.full)])
def test_a_disk_that_is_gone_ends_the_training(own, workers):
    folder = ImageFolder(own / "train")
    for index in range(6):
        os.remove(folder.path(index))
    data = ImageDataset(folder, eval_transform(32, 32))
    with pytest.raises(BrokenData, match="6 images in a row cannot be read: is the disk"):
        load(data, [[(0, 0)]], num_workers=workers)


def test_a_batch_goes_to_a_device():
    batch = Batch(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.ones(2), torch.ones(2), ["x"])
    moved = batch.to("meta")
    assert {moved.images.device.type, moved.labels.device.type, moved.indices.device.type} == {
        "meta"
    }
    assert moved.broken == ["x"]
    assert len(moved) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_in_pinned_memory(made):
    [batch] = load(dataset(made), KEYS[:1], pin_memory=True, num_workers=1)
    assert batch.images.is_pinned()
    assert batch.labels.is_pinned()
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert equal(batch.to("cuda").to("cpu"), load(dataset(made), KEYS[:1])[0])


def test_a_batch_is_in_channels_last_order(made):
    [batch] = load(dataset(made), KEYS[:1])
    assert batch.images.dtype == torch.uint8
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


# -- transforms ----------------------------------------------------------------------------------


def test_the_crop_is_torchvisions(photo, tmp_path):
    (tmp_path / "x.jpg").write_bytes(encoded(photo, "JPEG", quality=90))
    image = read_image(tmp_path / "x.jpg")
    reference = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()])
    for seed in range(8):
        torch.manual_seed(seed)
        found = train_transform()(image)
        torch.manual_seed(seed)
        assert torch.equal(found, reference(image))


def test_the_crop_of_a_test_is_pillows(photo, tmp_path):
    """To one of 255 steps: rounding differs."""
    (tmp_path / "x.jpg").write_bytes(encoded(photo, "JPEG", quality=90))
    found = eval_transform()(read_image(tmp_path / "x.jpg"))
    pil = v2.CenterCrop(224)(v2.Resize(256, antialias=True)(Image.open(tmp_path / "x.jpg")))
    expected = torch.tensor(np.asarray(pil)).permute(2, 0, 1)
    assert (found.int() - expected.int()).abs().max() <= 1
    assert found.shape == (3, 224, 224)


def test_options_of_the_training_transform():
    ramp = torch.arange(200, dtype=torch.uint8).expand(3, 100, 200)
    whole = {"area": (1, 1), "aspect": (2, 2)}
    assert (train_transform(200, flip=1, **whole)(ramp)[:, :, 0] == 199).all()
    assert (train_transform(200, flip=0, **whole)(ramp)[:, :, 0] == 0).all()
    flat = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    torch.manual_seed(0)
    changed = torch.stack([train_transform(32, jitter=20)(flat) for _ in range(300)]).int() - 100
    assert (changed == changed[:, :, :1, :1]).all()  # one number for a channel
    assert changed.min() == -20
    assert changed.max() == 20
    assert len(changed[:, :, 0, 0].unique(dim=0)) > 250
    white = torch.full((3, 64, 64), 250, dtype=torch.uint8)
    assert train_transform(32, jitter=20)(white).min() >= 230  # no overflow
    turned = train_transform(64, rotation=10)(white)
    off = (turned - torch.tensor(MEAN).round()[:, None, None]).abs().amax(0)
    assert min(off[0, 0], off[0, -1]) <= 1  # in a corner
    assert (turned[:, 20:44, 20:44] == 250).all()


def test_small_and_narrow_images_fit():
    for shape in ((3, 1, 1), (3, 1, 700), (3, 700, 2), (3, 20, 30)):
        image = torch.full(shape, 7, dtype=torch.uint8)
        for transform in (train_transform(48), eval_transform(64, 48)):
            assert transform(image).shape == (3, 48, 48)
            assert (transform(image) == 7).all()


def test_the_constants_are_torchvisions():
    from torchvision.models import ResNet50_Weights

    preset = ResNet50_Weights.IMAGENET1K_V1.transforms()
    assert [value / 255 for value in MEAN] == pytest.approx(preset.mean)
    assert [value / 255 for value in STD] == pytest.approx(preset.std)


# -- made images ---------------------------------------------------------------------------------


def test_made_images_are_the_same_every_time(made, tmp_path):
    make_images(tmp_path / "again", classes=4, per_class=5, size=(120, 90))
    make_images(tmp_path / "other", classes=4, per_class=5, size=(120, 90), seed=1)
    train, val = folders(made)
    assert (len(train), len(val), len(train.classes)) == (20, 8, 4)
    again, other = folders(tmp_path / "again")[0], folders(tmp_path / "other")[0]
    images = [read_image(train.path(index)) for index in range(20)]
    assert all(image.shape == (3, 90, 120) for image in images)
    assert all(torch.equal(image, read_image(again.path(k))) for k, image in enumerate(images))
    assert not any(torch.equal(image, read_image(other.path(k))) for k, image in enumerate(images))
    assert not torch.equal(images[0], read_image(val.path(0)))


def test_made_images_do_not_replace_anything(own, tmp_path):
    for folder in (own, next(own.glob("train/*/*.jpg"))):
        with pytest.raises(BrokenData, match="holds something already"):
            make_images(folder, classes=2, per_class=1)
    (tmp_path / "empty").mkdir()
    make_images(tmp_path / "empty", classes=1, per_class=1, size=(16, 16))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "own"]


@pytest.mark.parametrize("wrong", [{"classes": 0}, {"classes": 41}, {"per_class": 0}])
def test_made_images_refuse_odd_numbers(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_images(tmp_path / "new", **{"classes": 2, "per_class": 2} | wrong)
    assert not list(tmp_path.iterdir())


def test_made_images_leave_nothing_behind_when_stopped(tmp_path):
    code = (
        "import sys; from gclib.datasets import pictures\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "pictures._mask = stop\n"
        f"pictures.make_images({str(tmp_path / 'new')!r}, classes=2, per_class=2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "KeyboardInterrupt" in done.stderr
    assert not list(tmp_path.iterdir())
