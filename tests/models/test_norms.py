"""Norms change their kind and keep what they have learnt; frozen ones stay as they are."""

import copy
from functools import partial

import pytest
import torch
import torchvision
from networks import randomise, wake
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from gclib import GCBlock, NonLocalBlock
from gclib.models import FrozenBatchNorm, build_resnet, convert_norms, freeze, insert_blocks

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SHAPES = {1: (4, 6, 5), 2: (4, 6, 5, 3), 3: (4, 6, 5, 3, 2)}
BATCH = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def learnt(norm):
    """Weights and statistics that differ."""
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.uniform_(0.5, 1.5)
        norm.num_batches_tracked.fill_(7)
    return norm


def network():
    """A small ResNet with a non-local block, which has a norm, and a GC block, which has none."""
    bottleneck = torchvision.models.resnet.Bottleneck
    model = torchvision.models.ResNet(bottleneck, [1, 1, 2, 1], num_classes=5, width_per_group=16)
    insert_blocks(model, partial(NonLocalBlock, norm="batch"), "c4", "after_add", index=0)
    insert_blocks(model, GCBlock, "c5")
    return wake(randomise(model))


def norms(model, cls):
    return [name for name, module in model.named_modules() if type(module) is cls]


@pytest.mark.parametrize("ndim", BATCH)
def test_frozen_is_the_norm_in_evaluation_mode(ndim):
    norm = learnt(BATCH[ndim](6, eps=1e-3))
    x = torch.randn(SHAPES[ndim])
    expected = copy.deepcopy(norm).eval()(x)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    frozen = convert_norms(norm, "frozen")
    assert frozen is norm
    assert type(frozen) is FrozenBatchNorm
    assert not list(frozen.parameters())
    assert list(frozen.state_dict()) == list(before)
    x.requires_grad_()
    y = frozen.train()(x)
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    scale = before["weight"] / (before["running_var"] + 1e-3).sqrt()
    torch.testing.assert_close(x.grad.sum(0).flatten(1)[:, 0], len(x) * scale)
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())
    assert frozen(x.bfloat16()).dtype == torch.bfloat16
    if ndim == 2:
        theirs = FrozenBatchNorm2d(6, eps=1e-3)
        theirs.load_state_dict({k: v for k, v in before.items() if "batches" not in k})
        torch.testing.assert_close(y, theirs(x))


@pytest.mark.parametrize("ndim", BATCH)
@pytest.mark.parametrize("kinds", [("sync",), ("frozen",), ("frozen", "sync"), ("sync", "frozen")])
def test_there_and_back_is_the_same_norm(ndim, kinds):
    norm = learnt(BATCH[ndim](6, eps=1e-3, momentum=None))
    twin = copy.deepcopy(norm)
    for kind in kinds:
        convert_norms(norm, kind)
        assert type(norm) is {"sync": nn.SyncBatchNorm, "frozen": FrozenBatchNorm}[kind]
    convert_norms(norm, "batch")
    assert type(norm) is BATCH[ndim]
    assert (norm.eps, norm.momentum, norm.training) == (1e-3, None, True)
    assert list(norm.state_dict()) == list(twin.state_dict())
    assert [n for n, _ in norm.named_parameters()] == ["weight", "bias"]
    x = torch.randn(SHAPES[ndim])
    torch.testing.assert_close(norm(x), twin(x))
    torch.testing.assert_close(norm.running_var, twin.running_var)
    assert norm.num_batches_tracked == 8
    norm(x).square().sum().backward()
    assert norm.weight.grad.any()


def test_every_norm_of_a_network_and_of_its_blocks():
    model = network()
    before = model.state_dict()
    parameters = dict(model.named_parameters())
    found, seen = norms(model, nn.BatchNorm2d), []
    model.layer2[0].bn2.register_forward_hook(lambda *_: seen.append(True))
    assert "layer3.0.block.norm" in found
    layer_norms = norms(model, nn.LayerNorm)
    with torch.no_grad():
        y = model(IMAGES)
        assert convert_norms(model, "sync") is model
        assert norms(model, nn.SyncBatchNorm) == found
        assert all(parameters[n] is p for n, p in model.named_parameters())
        assert not any(m.training for m in model.modules())
        torch.testing.assert_close(model(IMAGES), y)
        convert_norms(model, "frozen")
        assert norms(model, FrozenBatchNorm) == found
        torch.testing.assert_close(model.train()(IMAGES), y)
    assert len(seen) == 3
    assert norms(model, nn.LayerNorm) == layer_norms
    assert list(model.state_dict()) == list(before)
    network().load_state_dict(model.state_dict())
    model.load_state_dict(network().state_dict())
    convert_norms(model, "batch")
    assert norms(model, nn.BatchNorm2d) == found
    twin = copy.deepcopy(convert_norms(model, "frozen"))
    assert norms(twin, FrozenBatchNorm) == found


def test_torchvisions_frozen_norms():
    torch.manual_seed(0)
    model = randomise(torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d, num_classes=5))
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    y = model(IMAGES)
    theirs = {key: value.clone() for key, value in model.state_dict().items()}
    convert_norms(model, "frozen")
    torch.testing.assert_close(model(IMAGES), y)
    model.load_state_dict(theirs)  # without counters
    with pytest.raises(RuntimeError, match=r"Missing key.*bn1\.weight"):
        model.load_state_dict({k: v for k, v in theirs.items() if k != "bn1.weight"})
    convert_norms(model, "batch")
    assert len(norms(model, nn.BatchNorm2d)) == 20
    torch.testing.assert_close(model.eval()(IMAGES), y)
    assert model.bn1.weight.requires_grad
    direct = torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d, num_classes=5).eval()
    direct.load_state_dict(theirs)
    torch.testing.assert_close(convert_norms(direct, "sync")(IMAGES), y)


def test_the_stem_and_c2_of_a_detector():
    detector = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None
    )
    body = detector.backbone.body
    insert_blocks(body, GCBlock)
    assert freeze(body, ("stem", "c2")) == ["conv1", "bn1", "layer1"]
    convert_norms(body, "sync")
    body.train()
    frozen = {name.split(".")[0] for name in norms(body, FrozenBatchNorm)}
    assert frozen == {"bn1", "layer1"}
    assert len(norms(body, FrozenBatchNorm)) + len(norms(body, nn.SyncBatchNorm)) == 53
    learning = {n.split(".")[0] for n, p in body.named_parameters() if p.requires_grad}
    assert learning == {"layer2", "layer3", "layer4"}
    body.eval().requires_grad_(False)
    convert_norms(body, "batch")
    assert {name.split(".")[0] for name in norms(body, FrozenBatchNorm)} == {"bn1", "layer1"}


def test_a_frozen_part_stays_as_it_is_in_training():
    model = network()
    freeze(model, ("stem", "layer1", "layer2.0.bn1"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(IMAGES).square().sum().backward()
    optimizer.step()
    held = ("conv1.", "bn1.", "layer1.", "layer2.0.bn1.")
    for key, value in model.state_dict().items():
        if key.startswith(held):
            assert torch.equal(value, before[key]), key
    assert not torch.equal(model.layer2[0].conv1.weight, before["layer2.0.conv1.weight"])
    assert not torch.equal(model.layer2[0].bn2.running_mean, before["layer2.0.bn2.running_mean"])


def test_what_cannot_be_converted_leaves_the_model_as_it_was():
    class Own(nn.BatchNorm2d):
        pass

    def refused(last, kind, error, said):
        model = nn.Sequential(nn.BatchNorm2d(4), last)
        with pytest.raises(error, match=said):
            convert_norms(model, kind)
        assert type(model[0]) is nn.BatchNorm2d
        assert type(model[0].weight) is nn.Parameter

    refused(Own(4), "frozen", TypeError, r"1 is a .*Own: expected a batch norm of torch itself")
    refused(nn.BatchNorm2d(4, track_running_stats=False), "frozen", ValueError, "1 has no running")
    refused(nn.SyncBatchNorm(4), "batch", ValueError, "do not tell whether its maps have 1, 2 or 3")
    refused(nn.BatchNorm2d(4), "syncbn", ValueError, "kind='syncbn': .*did you mean 'sync'")
    model = nn.SyncBatchNorm.convert_sync_batchnorm(build_resnet("resnet18"))
    assert len(norms(convert_norms(model, "batch"), nn.BatchNorm2d)) == 20
    with pytest.raises(ValueError, match="names='layer9': expected one of 'stem', 'c2'"):
        freeze(model, ("stem", "layer9"))
    assert model.conv1.weight.requires_grad
    assert not norms(model, FrozenBatchNorm)


def test_a_norm_without_weights():
    norm = nn.BatchNorm2d(6, affine=False)
    norm.running_mean.uniform_()
    x = torch.randn(SHAPES[2])
    expected = copy.deepcopy(norm).eval()(x)
    torch.testing.assert_close(convert_norms(norm, "frozen")(x), expected)
    assert convert_norms(norm, "batch").weight is None
