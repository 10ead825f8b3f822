"""CIFAR-10 in both layouts, rows that share their convolutions, runs that repeat."""

import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from gclib.cli import main
from gclib.datasets.cifar10 import CLASSES, BrokenData, read_cifar10
from gclib.models import CifarNet
from gclib.paper.ledger import log_path
from gclib.training import cifar10
from gclib.training.loop import Recipe

SHORT = Recipe(steps=3, batch_size=8, lr=4e-3)


def pixels(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Folders of images: 3 of each class."""
    folder = tmp_path_factory.mktemp("cifar")
    for part in ("train", "test"):
        for label, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for k, image in enumerate(pixels(3, seed=label)):
                suffix = "png" if k else "jpg"
                Image.fromarray(image).save(folder / part / name / f"{k:04d}.{suffix}")
    return folder


@pytest.fixture
def release(tmp_path, monkeypatch):
    """The layout of the release with 20 images in each file, read by torchvision's own reader."""
    from torchvision.datasets import CIFAR10

    base = tmp_path / CIFAR10.base_folder
    base.mkdir()

    def write(name, value):
        content = pickle.dumps(value)
        (base / name).write_bytes(content)
        return [name, hashlib.md5(content).hexdigest()]

    images = {name: pixels(20, seed=k) for k, (name, _) in enumerate(CIFAR10.train_list)}
    images["test_batch"] = pixels(20, seed=9)
    sums = {
        name: write(
            name,
            {
                "data": a.transpose(0, 3, 1, 2).reshape(20, -1),
                "labels": [k % 10 for k in range(20)],
            },
        )
        for name, a in images.items()
    }
    meta = write("batches.meta", {"label_names": list(CLASSES)})
    monkeypatch.setattr(CIFAR10, "train_list", [sums[name] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [sums["test_batch"]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"filename": meta[0], "md5": meta[1]})
    return tmp_path, images


def test_the_release_keeps_every_pixel(release):
    folder, images = release
    test = read_cifar10(folder, "test")
    assert (test.layout, len(test)) == ("release", 20)
    assert torch.equal(test.images[3], torch.from_numpy(images["test_batch"][3]).permute(2, 0, 1))
    assert test.labels.tolist() == [k % 10 for k in range(20)]
    assert len(read_cifar10(folder, "train")) == 100


def test_a_damaged_release_is_said(release):
    folder, _ = release
    with (folder / "cifar-10-batches-py/data_batch_3").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BrokenData, match="incomplete or damaged: unpack it again"):
        read_cifar10(folder, "train")


def test_folders_of_images(files):
    train = read_cifar10(files, "train")
    assert (train.layout, len(train)) == ("files", 30)
    assert train.images.dtype == torch.uint8
    assert train.images.shape == (30, 3, 32, 32)
    assert train.labels.tolist() == [label for label in range(10) for _ in range(3)]
    kept = torch.from_numpy(pixels(3, seed=4)).permute(0, 3, 1, 2)
    assert torch.equal(train.images[13:15], kept[1:])  # PNG keeps every pixel
    assert train.images.is_contiguous()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(b"no image"), "cannot be read: replace or remove it"),
        (lambda p: p.write_bytes(p.read_bytes()[:300]), "cannot be read: replace or remove it"),
        (lambda p: Image.new("RGB", (30, 32)).save(p), "is 30×32: expected 32×32"),
        (lambda p: [q.unlink() for q in p.parent.glob("*")], "holds no image"),
    ],
    ids=["not an image", "cut off", "size", "empty"],
)
def test_damaged_files_are_named(files, tmp_path, damage, message):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(files, folder)
    damage(folder / "train/frog/0000.jpg")
    with pytest.raises(BrokenData, match=message):
        read_cifar10(folder, "train")


def test_a_wrong_folder_is_said(tmp_path, capsys):
    with pytest.raises(BrokenData, match="holds neither cifar-10-batches-py/ nor train/"):
        read_cifar10(tmp_path, "train")
    with pytest.raises(ValueError, match="expected 'train' or 'test'"):
        read_cifar10(tmp_path, "val")
    arguments = ["train", "cifar10", "--row", "all", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--data", str(tmp_path)]) == 2
    assert "holds neither" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "--data DIR is missing" in capsys.readouterr().err
    assert main(["train", "cifar10", "--row", "cifar10/n1_gaussian", "--data", str(tmp_path)]) == 2


@pytest.mark.parametrize("row", cifar10.CIFAR10_ROWS)
def test_rows_share_their_convolutions_and_keep_the_shape(row):
    net, plain = cifar10.build_net(row, 3), cifar10.build_net("cifar10/none", 3)
    for name, value in plain.state_dict().items():
        assert torch.equal(net.state_dict()[name], value)
    assert net(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 10)


def test_a_run_repeats_and_its_log_says_what_it_was(files):
    def run(seed):
        return cifar10.run("cifar10/nl_gaussian", seed, folder=files, recipe=SHORT)[1]

    first, again, other = run(1), run(1), run(2)
    assert first["first_losses"] == again["first_losses"]
    assert first["trained"] == again["trained"]
    assert first["first_losses"] != other["first_losses"]
    assert first["layout"] == "files"
    assert set(first["untrained"]) == set(first["trained"])
    assert "all/jsd/attention" in first["trained"]
    assert first["command"] == "gclib train cifar10 --data DIR --row cifar10/nl_gaussian --seeds 1"


def test_shipped_logs_and_weights_are_of_this_version(pytestconfig):
    folder = pytestconfig.rootpath / "data/cifar10"
    for row, instantiation in cifar10.CIFAR10_ROWS.items():
        logs = json.loads(log_path(folder / "runs", row).read_text(encoding="utf-8"))
        assert len({log["seed"] for log in logs}) == len(logs) >= 3
        assert all(log["config"] == cifar10.config_of(row) for log in logs)
        if instantiation:
            path = folder / "checkpoints" / f"{row.replace('/', '-')}.pt"
            assert path.stat().st_size < 3e6
            weights = torch.load(path, weights_only=True)
            cifar10.build_net(row, 0).load_state_dict(weights)
            assert CifarNet.width == 64


@pytest.mark.full
def test_first_losses_of_the_shipped_logs_come_again(pytestconfig):
    """Where CIFAR-10 is: set GCLIB_CIFAR10 to its folder."""
    import os
    from itertools import islice
    from pathlib import Path

    from gclib.training.loop import batches, fit

    if "GCLIB_CIFAR10" not in os.environ:
        pytest.skip("GCLIB_CIFAR10 does not name a folder with CIFAR-10")
    train = read_cifar10(Path(os.environ["GCLIB_CIFAR10"]), "train")
    runs = pytestconfig.rootpath / "data/cifar10/runs"
    for row in cifar10.CIFAR10_ROWS:
        log = json.loads(log_path(runs, row).read_text(encoding="utf-8"))[0]
        if log["layout"] != train.layout:
            pytest.skip(f"the logs are of the layout {log['layout']!r}")
        net = cifar10.build_net(row, log["seed"]).to(memory_format=torch.channels_last)
        order = batches((train.images, train.labels), cifar10.RECIPE, seed=log["seed"])
        first = list(islice(order, len(log["first_losses"])))
        losses = fit(net, first, cifar10.loss_of, cifar10.RECIPE)
        assert losses == pytest.approx(log["first_losses"], rel=0.02), row
