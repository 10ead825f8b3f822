"""ImageNet's recipe: networks, plans and small whole runs of every row of table 4."""

import json
import shutil

import pytest
import torch
from torch import nn

from gclib.cli import main
from gclib.datasets import BrokenData
from gclib.datasets.images import MEAN, STD, make_images
from gclib.models import inserted_blocks
from gclib.models.counts import count_row
from gclib.paper.tables import printed
from gclib.training import command, imagenet, plan
from gclib.training.distributed import World
from gclib.training.imagenet import ROWS, ImageNet, build, prepare, recipe_of
from gclib.training.options import BadOption
from gclib.training.recipe import Machine

# ResNet-18 on 32 pixels: every row's blocks, in seconds.
SMALL = ["--network", "resnet18", "--stride-in", "3x3", "--image-size", "32", "--resize", "36"]
SMALL += ["--precision", "fp32", "--workers", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "data"
    make_images(folder, classes=4, per_class=8, size=(60, 48))
    return folder


def small(row="4a/gc_all", **values):
    small = {"network": "resnet18", "stride_in": "3x3", "image_size": 32, "resize": 36}
    return recipe_of(row, {"stage": 1, "precision": "fp32", "micro_batch": 4} | small | values)


@pytest.mark.parametrize("row", ROWS)
def test_the_network_of_a_row_has_the_printed_size(row):
    with torch.device("meta"):
        model = build(recipe_of(row))
    count = sum(p.numel() for p in model.parameters())
    assert count == count_row(row).parameters
    if printed(row, "params_m").mark != "recalled":
        assert round(count / 1e6, 2) == printed(row, "params_m").printed
    assert model.stride_in == "1x1"


@pytest.mark.parametrize("row", ROWS)
def test_the_plan_of_a_row(row):
    """Counts and expectations; the probe has a test of its own."""
    recipe = recipe_of(row)
    parameters, multiply_adds = plan.counts(imagenet, recipe)
    assert f"{count_row(row).parameters:,}" in parameters
    assert f"{count_row(row).multiply_adds / 1e9:.3f} G by the paper's" in multiply_adds
    cell = printed(row, "top1")
    assert f"top1 {cell.printed:g} ({cell.mark})" in next(plan.expected(row))


def test_a_plan_is_probed_on_this_machine(capsys):
    arguments = ["train", "imagenet", "--row", "4a/gc_all", *SMALL, "--plan"]
    assert main([*arguments, "--micro-batch", "2", "--batch-size", "512"]) == 0
    out = capsys.readouterr().out
    assert "1,281,167 examples (ImageNet's" in out
    assert "256 parts × 2 examples" in out
    assert "updates: 2,502 an epoch, 100,080 in all" in out
    speed = float(out.split("updates (")[1].split()[0])
    assert speed > 0
    assert "expected: top1 77.7 (recalled)" in out


def test_a_plan_on_a_cpu_says_what_float32_would_do(capsys):
    small = [word if word != "fp32" else "bf16" for word in SMALL]
    arguments = ["train", "imagenet", "--row", "4a/baseline", *small, "--plan", "--device", "cpu"]
    assert main([*arguments, "--micro-batch", "2", "--batch-size", "4"]) == 0
    said = capsys.readouterr().out.split("with --precision fp32: ")[1]
    assert float(said.split()[0]) > 0


def test_a_plan_counts_the_data_given(data, capsys):
    arguments = ["train", "imagenet", "--row", "4a/baseline", *SMALL, "--plan"]
    assert main([*arguments, "--micro-batch", "2", "--batch-size", "8", "--data", str(data)]) == 0
    assert "32 examples (the data given)" in capsys.readouterr().out


@pytest.mark.full
@pytest.mark.parametrize("row", ROWS)
def test_the_smoke_run_of_a_row(row, capsys):
    assert main(["train", "imagenet", "--row", row, *SMALL, "--smoke"]) == 0
    out = capsys.readouterr().out
    assert f"ok: {row} was read, trained, stopped, resumed, evaluated and read back" in out
    assert "going on from" in out


@pytest.mark.full
def test_two_stages_and_an_evaluation(data, tmp_path, capsys):
    """As the paper trains: the plain network, then blocks in it that change nothing at first."""
    common = [*SMALL, "--data", str(data), "--batch-size", "8", "--micro-batch", "8"]
    first = ["--stage", "1", "--epochs", "3", "--warmup-epochs", "0", "--out", str(tmp_path / "1")]
    assert main(["train", "imagenet", "--row", "4a/baseline", *common, *first]) == 0
    weights = str(tmp_path / "1" / "model.pt")
    second = ["--weights", weights, "--epochs", "1", "--out", str(tmp_path / "2")]
    assert main(["train", "imagenet", "--row", "4a/gc_all", *common, *second]) == 0
    summary = json.loads((tmp_path / "2/summary.json").read_text("utf-8"))
    assert summary["about"]["started_from"].startswith("model.pt, sha256 ")
    capsys.readouterr()
    checkpoint = ["--checkpoint", str(tmp_path / "2/model.pt"), "--data", str(data)]
    assert main(["evaluate", "imagenet", *checkpoint, "--workers", "0"]) == 0
    said = dict(zip(*[iter(capsys.readouterr().out.split())] * 2, strict=True))
    assert float(said["top1"]) == summary["figures"]["top1"]
    # The first stage's network and the second's before training are one function.
    one = build(small("4a/baseline"), 4, weights).eval()
    two = build(small("4a/gc_all"), 4, weights).eval()
    images = torch.randn(2, 3, 32, 32)
    assert len(inserted_blocks(two)) == 6
    assert torch.equal(one(images), two(images))
    # Weights of the other place of the strides are refused.
    other = ["--row", "4a/gc_all", *common, *second, "--network", "resnet50"]
    other = [v for v in other if v not in ("--network", "resnet18", "--stride-in", "3x3")]
    assert main(["train", "imagenet", *other]) == 2


def test_pixels_are_normalised():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    found = prepare(images)
    wanted = (images / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert prepare(images, torch.contiguous_format).is_contiguous()
    convolution = nn.Conv2d(3, 4, 3)
    assert imagenet.layout_of(convolution) is torch.contiguous_format
    convolution = convolution.to(memory_format=torch.channels_last)
    assert imagenet.layout_of(convolution) is torch.channels_last
    assert len(MEAN) == len(STD) == 3


def test_an_evaluation_is_exact(data, monkeypatch):
    """Against one pass over all images; in parts of any size and any number of processes."""
    task = ImageNet(small(), data)
    torch.manual_seed(0)
    model = task.build_model().eval()
    machine = Machine(workers=0)
    figures = [
        ImageNet(small(micro_batch=size), data).evaluate(model, World(), machine)
        for size in (1, 3, 8)
    ]
    assert figures[0] == figures[1] == figures[2]
    examples = [task.test_data[k] for k in range(len(task.test_data))]
    logits = model(prepare(torch.stack([e.image for e in examples])))
    right = sum(int(l.argmax()) == e.label for l, e in zip(logits, examples, strict=True))  # noqa: E741
    assert figures[0]["top1"] == pytest.approx(100 * right / len(examples))
    assert figures[0]["images"] == len(examples)
    totals = []
    monkeypatch.setattr(World, "total", lambda self, *values: totals.append(values) or values)
    for rank in range(3):
        task.evaluate(model, World(rank=rank, size=3), machine)
    assert sum(t[0] for t in totals) == right
    assert sum(t[2] for t in totals) == len(examples)


def test_test_images_that_cannot_be_read_are_left_out_and_counted(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    next((tmp_path / "data/val").glob("*/*.jpg")).write_bytes(b"x")
    task = ImageNet(small(), tmp_path / "data")
    figures = task.evaluate(task.build_model().eval(), World(), Machine(workers=0))
    assert (figures["images"], figures["broken"]) == (len(task.test_data) - 1, 1)
    assert len(task.unread) == 1
    for path in (tmp_path / "data/val").glob("*/*.jpg"):
        path.write_bytes(b"x")
    with pytest.raises(BrokenData, match="no test image can be read"):
        task.evaluate(task.build_model().eval(), World(), Machine(workers=0))


def test_the_loss_is_the_networks_cross_entropy(data):
    task = ImageNet(small(smoothing=0.1), data)
    batch = task.collate([task.train_data[(0, k)] for k in range(4)])

    class Fixed(nn.Module):
        def forward(self, x):
            return torch.tensor([[2.0, 0, 0, 0]]).expand(len(x), 4)

    wanted = nn.functional.cross_entropy(Fixed()(batch.images), batch.labels, label_smoothing=0.1)
    assert torch.equal(task.loss(Fixed(), batch), wanted)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stage": 3}, "stage=3: expected at most 2"),
        ({"area": (0.5, 0.1)}, "expected the smaller one first"),
        ({"area": (0.5,)}, "expected 2 numbers"),
        ({"resize": 100}, "expected at least image_size=224"),
        ({"network": "resnet5"}, "did you mean 'resnet50'"),
        ({"lr": 0}, "lr=0: expected more than 0"),
        ({"network": "resnet18"}, "no 1×1 convolution for the stride: give --stride-in 3x3"),
    ],
)
def test_recipes_that_are_refused(values, message):
    with pytest.raises(BadOption, match=message):
        recipe_of("4a/gc_all", values)


def test_only_the_papers_recipe_on_the_papers_data_is_compared_with_it(data, monkeypatch):
    task = ImageNet(recipe_of("4a/gc_all", {"seed": 3, "precision": "fp32"}), data, "w.pt")
    assert not task.as_in_paper()  # 32 images
    monkeypatch.setattr(imagenet, "WHOLE", (32, 8, 4))
    assert task.as_in_paper()
    for change in ({"stage": 1}, {"epochs": 39}, {"stride_in": "3x3"}, {"batch_size": 256}):
        assert not ImageNet(recipe_of("4a/gc_all", change), data, "w.pt").as_in_paper()


def test_rows_of_other_tables_are_refused():
    with pytest.raises(BadOption, match="expected one of '4a/baseline'"):
        recipe_of("2a/gc_all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--row is missing"),
        (["--row", "4a/gc"], "row='4a/gc': expected one of"),
        (["--row", "4a/gc_all"], "--data DIR is missing"),
        (["--row", "4a/gc_all", "--data", "DATA"], "stage 2 starts from the network of stage 1"),
        (["--row", "4a/gc_all", "--data", "nowhere", "--weights", "w.pt"], "nowhere"),
        (["--row", "4a/gc_all", "--data", "DATA", "--weights", "no.pt"], "no.pt"),
        (["--row", "4a/gc_all", "--plan", "--smoke"], "give one of them"),
        (["--row", "4a/gc_all", "--smoke", "--stop-after", "2"], "stops by itself"),
        (["--row", "4a/gc_all", "--smoke", "--out", "x"], "a folder of its own"),
        (["--row", "4a/gc_all", "--smoke", "--batch-size", "64"], "at least two updates"),
        (["--row", "4a/gc_all", "--resume", "yes"], "resume='yes': expected one of 'auto'"),
        (["--row", "4a/gc_all", "--precision", "fp16", "--plan", "--device", "cpu"], "needs a GPU"),
        (["--row", "4a/gc_all", "--plan", "--micro-batch", "100"], "does not split into parts"),
        (["--row", "4a/gc_all", "--learning-rate", "1"], "there is no option '--learning-rate'"),
        (["--row", "4a/gc_all", "--stage", "1", "--data", "DATA"], "lower batch_size"),
    ],
)
def test_what_the_command_refuses(data, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    arguments = [str(data) if word == "DATA" else word for word in arguments]
    assert main(["train", "imagenet", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("gclib: ")
    assert "Traceback" not in error
    assert not list(tmp_path.glob("runs/**/*.pt"))


def test_a_gpu_that_is_not_there(capsys):
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    assert main(["train", "imagenet", "--row", "4a/gc_all", "--plan", "--device", "cuda"]) == 2
    assert "torch finds no GPU here; take --device cpu" in capsys.readouterr().err


def test_the_help_names_every_option(capsys):
    assert main(["train", "imagenet", "--help"]) == 0
    out = capsys.readouterr().out
    for name in ("--lr", "--micro-batch", "--resume", "--deterministic", "--plan", "4b/att_scale"):
        assert name in out
    assert main(["evaluate", "imagenet", "--help"]) == 0
    assert "--checkpoint" in capsys.readouterr().out


def test_an_evaluation_needs_a_checkpoint_of_here(data, tmp_path, capsys):
    torch.save({"w": torch.zeros(1)}, tmp_path / "w.pt")
    for path, message in [("none.pt", "is not there"), ("w.pt", "no checkpoint of a training")]:
        arguments = ["--checkpoint", str(tmp_path / path), "--data", str(data)]
        assert main(["evaluate", "imagenet", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["evaluate", "imagenet", "--data", str(data)]) == 2
    assert "--checkpoint is missing" in capsys.readouterr().err


def test_a_folder_of_imagenet_is_checked(data, tmp_path, capsys):
    assert main(["data", "imagenet", "--check", str(data)]) == 0
    assert "fine for a training" in capsys.readouterr().out
    assert main(["data", "imagenet", "--check", str(tmp_path / "none")]) == 1
    assert main(["data", "imagenet", "--out", str(tmp_path / "x")]) == 2


def test_a_disk_that_is_gone_is_one_sentence(data, tmp_path, capsys):
    """All files unreadable, seen by a process that reads data."""
    shutil.copytree(data, tmp_path / "data")
    for path in (tmp_path / "data/train").glob("*/*.jpg"):
        path.write_bytes(b"")
    arguments = ["--row", "4a/baseline", "--stage", "1", "--data", str(tmp_path / "data"), *SMALL]
    arguments += ["--batch-size", "8", "--micro-batch", "8", "--out", str(tmp_path / "run")]
    workers = arguments.index("--workers")
    arguments[workers + 1] = "1"
    assert main(["train", "imagenet", *arguments]) == 2
    error = capsys.readouterr().err
    assert "images in a row cannot be read: is the disk still there?" in error
    assert "Traceback" not in error


def test_a_checkpoint_of_another_version(data, tmp_path, capsys):
    from gclib.training.checkpoint import write

    state = {"format": 1, "model": {}, "recipe": small().as_dict() | {"mixup": 0.2}}
    write(tmp_path / "x.pt", state)
    arguments = ["--checkpoint", str(tmp_path / "x.pt"), "--data", str(data)]
    assert main(["evaluate", "imagenet", *arguments]) == 2
    assert "another task or version of gclib" in capsys.readouterr().err


def test_memory_of_a_gpu_that_ran_out_is_one_sentence(monkeypatch, capsys):
    def run(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(command, "_train", run)
    assert command.main(["imagenet"]) == 2
    assert "halve --micro-batch" in capsys.readouterr().err


def test_a_missing_part_of_the_data_is_said(tmp_path):
    with pytest.raises(BrokenData):
        ImageNet(small(), tmp_path)
