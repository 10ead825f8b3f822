"""``gclib analyse``: the numbers of capture and distances, for any number of processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gclib.analysis.capture import capture
from gclib.analysis.distances import average_cosine_distance, average_jsd
from gclib.datasets.images import eval_transform, make_images, read_image
from gclib.training import analyse
from gclib.training.checkpoint import write
from gclib.training.imagenet import build, prepare, recipe_of

SIZES = {"network": "mini_resnet", "stride_in": "3x3", "image_size": 32, "resize": 36}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of a small network with a non-local block, and a folder of photographs."""
    folder = tmp_path_factory.mktemp("analyse")
    make_images(folder / "data", classes=2, per_class=4, size=(48, 40))
    save(folder, "4a/nl_1")
    return folder


def save(folder, row):
    torch.manual_seed(0)
    recipe = recipe_of(row, SIZES)
    model = build(recipe, 2)
    for name, parameter in model.named_parameters():
        if ".block." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    path = folder / f"{row.replace('/', '-')}.pt"
    write(path, {"format": 1, "model": model.state_dict(), "recipe": recipe.as_dict()})
    return path, model


def run(folder, *options, out="out", row="4a/nl_1"):
    checkpoint = folder / f"{row.replace('/', '-')}.pt"
    arguments = ["folder", "--checkpoint", str(checkpoint), "--data", str(folder / "data")]
    arguments += ["--out", str(folder / out), "--workers", "0", "--device", "cpu", *options]
    return analyse.main(arguments)


def result(folder, out="out"):
    return json.loads((folder / out / analyse.FILE).read_text())


def test_numbers_are_those_of_capture_and_distances(trained, capsys):
    assert run(trained, "--images", "0", "--pairs", "0", "--maps", "1") == 0
    found = result(trained)
    paths = sorted((trained / "data").rglob("*.*"))
    crop = eval_transform(36, 32)
    _, model = save(trained, "4a/nl_1")
    cosine, jsd = [], []
    for path in paths:
        with torch.no_grad(), capture(model.eval()) as captured:
            model(prepare(crop(read_image(path))[None]))
        (name,) = captured
        cosine.append(average_cosine_distance(captured[name].attention).item())
        jsd.append(average_jsd(captured[name].attention).item())
    means = found["trained"][name]
    assert found["images"] == len(paths) == means["cosine/attention"]["images"]
    assert means["cosine/attention"]["mean"] == pytest.approx(sum(cosine) / len(cosine), rel=1e-4)
    assert means["jsd/attention"]["mean"] == pytest.approx(sum(jsd) / len(jsd), rel=1e-4)
    printed = capsys.readouterr().out
    assert f"{means['cosine/attention']['mean']:.4f}" in printed
    assert len(list((trained / "out").glob("maps-*.png"))) == 1


def test_controls_stand_beside_and_start_anew(trained):
    assert run(trained, "--images", "3", "--maps", "0", out="controls") == 0
    found = result(trained, "controls")
    names = {k for k in found if k.startswith("untrained")}
    assert names == {"untrained", "untrained, scale 1/√d", "untrained, scale × √d"}
    (block,) = found["trained"]
    own = found["trained"][block]
    for name in names:
        control = found[name][block]
        same, other = "cosine/input", "cosine/attention"
        assert control[same]["mean"] == pytest.approx(own[same]["mean"], rel=1e-6)
        assert control[other]["mean"] != pytest.approx(own[other]["mean"], rel=1e-3)
        assert control["cosine/output"]["mean"] > 0


@pytest.mark.full
def test_two_processes_see_every_image_once(trained):
    assert run(trained, "--images", "0", "--maps", "0", "--pairs", "0", out="one") == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "gclib.training.analyse", "folder", "--checkpoint"]
    command += [str(trained / "4a-nl_1.pt"), "--data", str(trained / "data"), "--images", "0"]
    command += ["--maps", "0", "--pairs", "0", "--workers", "0", "--device", "cpu"]
    command += ["--out", str(trained / "two")]
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    subprocess.run(command, check=True, env=environment, cwd=trained, timeout=120)
    one, two = result(trained, "one"), result(trained, "two")
    (block,) = one["trained"]
    for kind, mean in one["trained"][block].items():
        assert two["trained"][block][kind]["images"] == mean["images"] == 12
        assert two["trained"][block][kind]["mean"] == pytest.approx(mean["mean"], rel=1e-9)


def test_unreadable_images_are_left_out_and_counted(trained, tmp_path, capsys):
    make_images(tmp_path / "data", classes=2, per_class=2, size=(48, 40))
    (tmp_path / "data" / "broken.jpg").write_bytes(b"no image")
    save(tmp_path, "4a/nl_1")
    assert run(tmp_path, "--images", "0", "--maps", "9", "--pairs", "10") == 0
    whole = result(tmp_path)
    assert whole["broken"] == 1
    assert "1 images could not be read" in capsys.readouterr().out
    for path in (tmp_path / "data").rglob("*.*"):
        path.write_bytes(b"no image")
    assert run(tmp_path, "--images", "0") == 2
    assert "none of the images can be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["folder"], "--checkpoint is missing"),
        (["folder", "--checkpoint", "x.pt"], "--data is missing"),
        (["photos"], "expected one of coco, folder"),
        ([], "expected one of coco, folder"),
        (["folder", "--chekpoint", "x"], "did you mean --checkpoint"),
        (["folder", "--checkpoint", "x.pt", "--data", ".", "--effect", "yes"], "no labels"),
        (["folder", "--checkpoint", "x.pt", "--data", "."], "x.pt is not there"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(arguments, said, capsys):
    assert analyse.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_network_without_blocks_and_a_folder_without_images_are_refused(trained, capsys):
    save(trained, "4a/baseline")
    assert run(trained, row="4a/baseline") == 2
    assert "4a/baseline has no block that could look at anything" in capsys.readouterr().err
    (trained / "empty").mkdir(exist_ok=True)
    arguments = ["folder", "--checkpoint", str(trained / "4a-nl_1.pt")]
    assert analyse.main([*arguments, "--data", str(trained / "empty")]) == 2
    assert "holds no image" in capsys.readouterr().err
    assert analyse.main([*arguments, "--data", str(trained / "4a-nl_1.pt")]) == 2
    assert "is not a folder of images" in capsys.readouterr().err
