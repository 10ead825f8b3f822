"""Constructors: the keywords people know, strides, weights by name and by path."""

from argparse import Namespace
from functools import partial

import pytest
import torch
import torchvision
from networks import randomise
from torchvision.models import ResNet50_Weights

from gclib import GCBlock, NonLocalBlock
from gclib.models import (
    SlowOnly,
    assert_identity,
    build_resnet,
    gc_resnet18,
    gc_resnet50,
    gc_resnext101_32x4d,
    gc_wide_resnet50_2,
    insert_blocks,
    inserted_blocks,
    set_stride,
)
from gclib.models import resnet as module

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def torchvision_weights(monkeypatch):
    """Torchvision's weights without the network: random ones stand where a download would."""
    state_dict = randomise(torchvision.models.resnet50()).state_dict()
    asked = []

    def load(weights, *args, **options):
        asked.append((weights, options))
        return dict(state_dict)

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", load)
    return state_dict, asked


@pytest.mark.parametrize(
    ("build", "millions"),
    [
        (gc_resnet50, 28.078773),  # table 4: 28.08 M
        (partial(build_resnet, "resnet50", "4a/nl_1"), 27.656744),
        (partial(build_resnet, "resnet50"), 25.557032),
        # 4, 23 and 3 blocks of 512, 1024 and 2048 channels
        (gc_resnext101_32x4d, 44.177704 + 4 * 0.033889 + 23 * 0.133313 + 3 * 0.528769),
        (partial(build_resnet, "resnext101_32x4d"), 44.177704),
    ],
)
def test_parameters(build, millions):
    with torch.device("meta"):
        model = build()
    assert sum(p.numel() for p in model.parameters()) == round(millions * 1e6)


def test_ours_is_torchvisions_where_both_have_it():
    for name in module.NAMES:
        with torch.device("meta"):
            ours = build_resnet(name)
        if name == "resnext101_32x4d":
            assert ours.layer3[0].conv2.groups == 32
            assert ours.layer1[0].conv2.out_channels == 128
            continue
        with torch.device("meta"):
            theirs = torchvision.models.get_model(name, weights=None)
        assert {k: v.shape for k, v in ours.state_dict().items()} == {
            k: v.shape for k, v in theirs.state_dict().items()
        }
        assert hasattr(module, f"gc_{name}")


def test_stride_in_the_first_convolution():
    with torch.device("meta"):
        first, second = (build_resnet("resnet50", stride_in=where) for where in ("1x1", "3x3"))
    strides = [(b.conv1.stride, b.conv2.stride) for b in first.layer3]
    assert strides == [((2, 2), (1, 1)), *[((1, 1), (1, 1))] * 5]
    bottleneck = second.layer3[0]
    assert (bottleneck.conv1.stride, bottleneck.conv2.stride) == ((1, 1), (2, 2))
    assert (first.stride_in, second.stride_in) == ("1x1", "3x3")
    set_stride(first, "3x3")
    for one, other in zip(first.modules(), second.modules(), strict=True):
        assert getattr(one, "stride", None) == getattr(other, "stride", None)
    with pytest.raises(ValueError, match="have no 1×1 convolution"):
        build_resnet("resnet18", stride_in="1x1")
    with pytest.raises(ValueError, match="stride_in='2x2'"):
        build_resnet("resnet50", stride_in="2x2")


def test_strides_of_3d_networks():
    with torch.device("meta"):
        model = SlowOnly()
        other = SlowOnly(stride_in="1x1")
        insert_blocks(model, GCBlock, stages="c4")
    set_stride(model, "1x1")
    assert model.stride_in == "1x1"
    layers = {n: m for n, m in model.named_modules() if ".block." not in n}
    for name, layer in other.named_modules():
        assert getattr(layer, "stride", None) == getattr(layers[name], "stride", None), name
    set_stride(model, "3x3")
    assert model.layer3[0].conv1.stride == (1, 1, 1)
    assert model.layer3[0].conv2.stride == (1, 2, 2)
    bottleneck = torchvision.models.video.resnet.Bottleneck
    with torch.device("meta"):
        video = torchvision.models.video.VideoResNet(
            bottleneck,
            [torchvision.models.video.resnet.Conv3DSimple] * 4,
            [1, 1, 1, 1],
            torchvision.models.video.resnet.BasicStem,
        )
    with pytest.raises(ValueError, match="3D bottlenecks, which stride in the 3×3×3"):
        set_stride(video, "1x1")
    assert not hasattr(video, "stride_in")
    set_stride(video, "3x3")
    for nothing in (torch.nn.Linear(1, 1), torchvision.models.mobilenet_v2()):
        with pytest.raises(TypeError, match="has no residual blocks with a stride"):
            set_stride(nothing, "3x3")
        assert not hasattr(nothing, "stride_in")


@pytest.mark.parametrize("weights", ["DEFAULT", ResNet50_Weights.IMAGENET1K_V2])
def test_torchvisions_weights_are_kept_and_the_blocks_are_the_identity(
    weights, torchvision_weights
):
    state_dict, asked = torchvision_weights
    model = gc_resnet50(weights=weights, progress=False).eval()
    assert asked == [(ResNet50_Weights.IMAGENET1K_V2, {"progress": False, "check_hash": True})]
    assert_identity(model, IMAGES)
    plain = torchvision.models.resnet50()
    plain.load_state_dict(state_dict)
    with torch.no_grad():
        assert torch.equal(model(IMAGES), plain.eval()(IMAGES))


def test_fewer_classes_have_a_fresh_classifier(torchvision_weights):
    state_dict, _ = torchvision_weights
    model = gc_resnet50(weights="DEFAULT", num_classes=7)
    assert model.fc.weight.shape == (7, 2048)
    assert torch.equal(model.layer4[2].conv3.weight, state_dict["layer4.2.conv3.weight"])


def test_torchvisions_weights_are_refused_for_another_stride(torchvision_weights):
    with pytest.raises(ValueError, match=r"'DEFAULT' belong to stride_in='3x3'.*another function"):
        gc_resnet50(weights="DEFAULT", stride_in="1x1")
    assert torchvision_weights[1] == []


def test_weights_by_path(tmp_path):
    torch.manual_seed(1)
    plain = randomise(torchvision.models.resnet18(num_classes=5))
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    model = gc_resnet18(weights=tmp_path / "plain.pth", num_classes=5).eval()
    with torch.no_grad():
        assert torch.equal(model(IMAGES), plain(IMAGES))
        for block in inserted_blocks(model).values():
            block.transform.expand.weight.normal_()
        y = model(IMAGES)
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "gc.pth")
    again = gc_resnet18(weights=str(tmp_path / "gc.pth"), num_classes=5).eval()
    with torch.no_grad():
        assert torch.equal(again(IMAGES), y)


def test_a_file_says_where_its_strides_belong(tmp_path):
    model = build_resnet("resnet50", stride_in="1x1", num_classes=5)
    file = tmp_path / "first.pth"
    torch.save({"model": model.state_dict(), "stride_in": model.stride_in}, file)
    build_resnet("resnet50", weights=file, stride_in="1x1", num_classes=5)
    with pytest.raises(ValueError, match="belong to stride_in='1x1', not '3x3'"):
        build_resnet("resnet50", weights=file, num_classes=5)


def test_a_file_says_where_its_blocks_stood(tmp_path):
    model = build_resnet("resnet18", GCBlock, position="after_add", num_classes=5)
    file = tmp_path / "add.pth"
    torch.save({"model": model.state_dict(), "position": "after_add"}, file)
    build_resnet("resnet18", GCBlock, weights=file, position="after_add", num_classes=5)
    with pytest.raises(ValueError, match="stood at position='after_add', not 'after_1x1'"):
        build_resnet("resnet18", GCBlock, weights=file, num_classes=5)
    with pytest.raises(ValueError, match="stood at position='after_add', not 'after_1x1'"):
        build_resnet("resnet18", "4a/gc_all", weights=file, num_classes=5)


def test_bad_weights_say_what_to_do(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"'IMAGENET1K_V1', 'IMAGENET1K_V2', 'DEFAULT', or the path"
    ):
        gc_resnet50(weights="IMAGENET_V1")
    with pytest.raises(ValueError, match="torchvision has no weights for resnext101_32x4d"):
        gc_resnext101_32x4d(weights="DEFAULT")
    with pytest.raises(ValueError, match="they are not weights of wide_resnet50_2"):
        gc_wide_resnet50_2(weights=ResNet50_Weights.IMAGENET1K_V1)
    whole = tmp_path / "whole.pth"
    torch.save(torchvision.models.resnet18().state_dict(), whole)
    with pytest.raises(ValueError, match="weights do not fit the network"):
        gc_resnet50(weights=whole)
    content = whole.read_bytes()
    for name, part in (("half", content[: len(content) // 2]), ("none", b""), ("text", b"hello")):
        (tmp_path / name).write_bytes(part)
        with pytest.raises(ValueError, match=rf"{name}: not a file of weights, or cut short"):
            gc_resnet18(weights=tmp_path / name)
    for saved in ({"args": Namespace(lr=1), "model": {}}, torchvision.models.resnet18()):
        torch.save(saved, tmp_path / "more")
        with pytest.raises(
            ValueError, match=r"holds more than tensors \(\S+\), .*state dict alone"
        ):
            gc_resnet18(weights=tmp_path / "more")
    for weights in (True, {"conv1.weight": torch.zeros(1)}):
        with pytest.raises(TypeError, match=r"weights of type \w+: expected None, a name or the"):
            gc_resnet18(weights=weights)
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(ValueError, match="holds no state dict"):
        gc_resnet18(weights=tmp_path / "list")


def test_a_file_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    torch.save({"model": Attack()}, tmp_path / "attack.pth")
    with pytest.raises(ValueError, match=r"holds more than tensors \(io\.open\), .*could run code"):
        gc_resnet18(weights=tmp_path / "attack.pth")
    assert not (tmp_path / "ran").exists()


def test_a_row_says_where_its_blocks_stand():
    with torch.device("meta"):
        model = build_resnet("resnet50", "4a/gc_1")
        assert list(inserted_blocks(model)) == ["layer3.4"]
        assert model.layer3[4].position == "after_add"
        assert build_resnet("resnet50", "4a/gc_1", stages=["c3", "c4", "c5"]).layer3[4].block
        model = build_resnet("resnet50", NonLocalBlock, stages=("c4",), index=-2)
        assert list(inserted_blocks(model)) == ["layer3.4"]
    with pytest.raises(ValueError, match="4a/gc_1 says where its blocks stand"):
        build_resnet("resnet50", "4a/gc_1", index=0)
    with pytest.raises(ValueError, match="row_id='4a/gc'"):
        build_resnet("resnet50", "4a/gc")
    with pytest.raises(ValueError, match="did you mean 'resnext50_32x4d'"):
        build_resnet("resnext50_32d4", GCBlock)


def test_the_old_keyword_does_not_go_around_the_stride():
    with pytest.raises(TypeError, match='give weights="DEFAULT"'):
        gc_resnet50(pretrained=True, stride_in="1x1")


def test_options_of_torchvision_pass_through():
    model = gc_resnet18(num_classes=3, ratio=4, zero_init_residual=True)
    assert model.fc.out_features == 3
    assert not model.layer1[0].bn2.weight.any()
    assert model.layer4[1].block.transform.reduce.out_features == 512 // 4
