"""Hidden checks of chapter 06: other sizes, random weights, more cases."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gclib.checks import c06
from gclib.checks.exercise import hidden_check
from gclib.checks.handle import Handle
from gclib.checks.properties import build, raises_value_error
from gclib.checks.report import Report


class _BlockReference(nn.Module):
    """A bottleneck with a gain at one of three positions."""

    def __init__(self, channels: int, width: int, position: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.block = nn.Module()
        self.block.g = nn.Parameter(torch.zeros(width if position == "after_3x3" else channels))
        self.position = position
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        place = {name: self.position == name for name in c06.POSITIONS}
        gain = 1 + self.block.g[:, None, None]
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        out = self.bn3(self.conv3(out * gain if place["after_3x3"] else out))
        out = x + (out * gain if place["after_1x1"] else out)
        return (out * gain if place["after_add"] else out).relu()


def _block_equals(impl: Handle, report: Report, reference: _BlockReference, x: Tensor) -> None:
    """The same weights in both: results and all gradients, in training, then in evaluation."""
    channels, width = x.shape[1], reference.conv1.out_channels
    module = build(report, impl, channels, width, reference.position)
    c06.block_parameters(report, module, channels, width, reference.position)
    weights = {name: report.randn(*p.shape) for name, p in reference.named_parameters()}
    module.load(weights)
    reference.load_state_dict(weights, strict=False)
    for mode, training in (("training", True), ("evaluation", False)):
        module.train(training)
        reference.train(training)
        leaf, cotangent = x.clone().requires_grad_(), report.randn(*x.shape)
        reference.zero_grad()
        expected = reference(leaf)
        (expected * cotangent).sum().backward()
        found = module.gradients(x, cotangent=cotangent)
        report.close(f"result in {mode}", found.result, expected.detach())
        report.gradient(f"gradient of the input in {mode}", found.inputs[0], leaf.grad)
        for name, parameter in reference.named_parameters():
            report.gradient(f"gradient of {name} in {mode}", found.parameters[name], parameter.grad)


@hidden_check(c06.e1)
def e1(impl: Handle, report: Report) -> None:
    """A reference with random weights, and positions that come near the right words."""
    sizes = ((6, 2, (2, 3, 5)), (4, 4, (3, 1, 4)), (3, 5, (1, 4, 4)))
    for channels, width, (n, *size) in sizes:
        for position in c06.POSITIONS:
            with report.group(f"{channels} channels, width {width}, {position}"):
                reference = _BlockReference(channels, width, position)
                _block_equals(impl, report, reference, 9 * report.randn(n, channels, *size))
    with report.group("another position"):
        for other in ("after_1x1 ", "after_norm", "add", "before_3x3", "after_", None):
            raises_value_error(
                report,
                f"position={other!r} is refused",
                lambda other=other: impl.build(4, 2, other),
                "position",
            )


def _insert_expected(stages: tuple[str, ...], index: int | None) -> tuple[str, ...]:
    sizes = c06.INSERT_SIZES
    numbers = {s: range(sizes[s]) if index is None else [range(sizes[s])[index]] for s in stages}
    return tuple(f"{stage}.{number}" for stage in stages for number in numbers[stage])


@hidden_check(c06.e2)
def e2(impl: Handle, report: Report) -> None:
    """All stages and indices, random weights, and what must be refused."""
    choices = (
        *((("c3",), 1), (("c4",), 2), (("c4",), -1), (("c5",), -2), (("c5", "c4"), None)),
        *((("c4", "c3", "c5"), 0), (("c5", "c3"), -1), (("c3", "c4"), 1)),
    )
    with report.group("blocks at the places asked for"):
        for stages, index in choices:
            network = c06.built_network(report, impl, stages, index)
            places = _insert_expected(stages, index)
            c06.insert_places(report, network, stages, index, places)
    images = report.randn(2, 3, 5, 3)
    first, second = (
        c06.built_network(report, impl, []).weights(),
        c06.built_network(report, impl, ()).weights(),
    )
    same = all(torch.equal(first[name], second[name]) for name in first)
    report.true(
        "two networks hold the same numbers",
        same,
        expected="the numbers of TinyResNet()",
        got="others in the second network",
        cause="layers of the network are drawn anew, or shared by all networks",
    )
    for stages, index in ((["c3", "c4", "c5"], -2), (["c4"], None)):
        with report.group(f"random weights, {c06.insert_case(tuple(stages), index)}"):
            network = c06.built_network(report, impl, stages, index=index)
            weights = {n: 0.3 * report.randn(*value.shape) for n, value in first.items()}
            for name in weights:
                if ".bn" in name and name.endswith("weight"):
                    weights[name] = 0.5 + weights[name].abs()
            places = _insert_expected(tuple(stages), index)
            plain = c06.built_network(report, impl, ())  # one that has not yet seen an image
            c06.insert_absorbed(report, plain, network, places, weights, images)
    with report.group("what must be refused"):
        for stages in (("c3", "c4", "c5", "c6"), ("C4",), ("stem",), ("c",), ("c4.1",)):
            raises_value_error(
                report,
                f"stages={stages} is refused",
                lambda stages=stages: impl.build(stages),
                "stage",
            )
        for stages, index in (
            *((("c3", "c4", "c5"), 2), (("c5", "c4"), -3), (("c4",), 100), (("c5",), 2)),
            *((("c3",), -3), (("c4",), -6)),
        ):
            raises_value_error(
                report,
                f"{c06.insert_case(stages, index)} is refused",
                lambda stages=stages, index=index: impl.build(stages, index),
                "index",
                returned=c06.NO_INDEX,
            )


@hidden_check(c06.e3)
def e3(impl: Handle, report: Report) -> None:
    """Several networks, biases, random weights around the blocks, and networks apart."""
    with report.group("four networks"):
        networks = [c06.identity_network(report, impl) for _ in range(4)]
        for network in networks:
            c06.identity_zeros(report, network.weights())
            c06.identity_others(report, network.weights())
    c06.identity_kaiming(report, [c06.built_network(report, impl).weights() for _ in range(12)])
    _identity_biases(report, [network.weights() for network in networks])
    network, other = networks[0], networks[1]
    before = other.weights()
    zero = {name for name, value in before.items() if not value.any() and "expand" in name}
    weights = {
        name: torch.zeros_like(value) if name in zero else 0.5 * report.randn(*value.shape)
        for name, value in before.items()
    }
    for size in ((2, 3, 4, 6), (3, 3, 1, 2)):
        with report.group(f"random weights, images {size}"):
            c06.identity_forward(report, network, weights, report.randn(*size))
    same = all(torch.equal(value, before[name]) for name, value in other.weights().items())
    report.true(
        "two networks have layers of their own",
        same,
        expected="the second network as it was",
        got="new numbers in it",
        cause="a network is kept between two calls: make it in the function",
    )


def _identity_biases(report: Report, networks: list[dict[str, Tensor]]) -> None:
    """Biases with a standard deviation of 0.1; PyTorch's default gives 0.24 for six inputs."""
    names = ("fc.bias", "gc1.key.bias", "gc1.reduce.bias", "gc2.key.bias", "gc2.reduce.bias")
    values = torch.cat([weights[name] for weights in networks for name in names])
    size = values.square().mean().sqrt().item()
    report.true(
        "biases as initialise() leaves them",
        0.04 < size < 0.17,  # 40 numbers: far from what chance does
        expected="about 0.1",
        got=f"{size:.3g}",
        cause="only the biases of the last layers change",
    )


def _stage(inputs: int, width: int, blocks: int, size: int, stride_in: str) -> tuple[int, int]:
    """The layers of a stage, one after the other."""
    outputs, half = 4 * width, (size // 2) ** 2
    layers = []  # inputs, outputs, kernel, output positions
    for number in range(blocks):
        entering = inputs if number == 0 else outputs
        large = number == 0 and stride_in == "3x3"
        layers.append((entering, width, 1, size**2 if large else half))
        layers.append((width, width, 9, half))
        layers.append((width, outputs, 1, half))
        if number == 0:
            layers.append((entering, outputs, 1, half))
    parameters = sum(i * o * kernel + 2 * o for i, o, kernel, _ in layers)
    return parameters, sum(i * o * kernel * positions for i, o, kernel, positions in layers)


@hidden_check(c06.e4)
def e4(impl: Handle, report: Report) -> None:
    """Other stages, also of widths that no ResNet has."""
    cases = ((5, 3, 1, 2), (12, 3, 5, 10), (1024, 512, 3, 14), (16, 4, 2, 6), (7, 5, 3, 8))
    for sizes in cases:
        for stride_in in ("3x3", "1x1"):
            c06.check_stage(report, impl, sizes, _stage(*sizes, stride_in), stride_in)


@hidden_check(c06.e5)
def e5(impl: Handle, report: Report) -> None:
    """Layers of torch, of which each shape is asked."""
    layers = (
        ("a linear layer", nn.Linear(7, 3), (5, 7)),
        ("a 1×1 convolution", nn.Conv2d(8, 6, 1), (2, 8, 3, 5)),
        ("a convolution with groups", nn.Conv2d(8, 12, (3, 5), groups=4), (3, 8, 7, 9)),
        ("a 1D convolution", nn.Conv1d(6, 4, 3, groups=2), (2, 6, 11)),
        ("a 3D convolution", nn.Conv3d(2, 4, (3, 2, 1), groups=2), (1, 2, 5, 6, 7)),
    )
    for name, layer, shape in layers:
        with torch.no_grad():
            output = layer(torch.zeros(shape))
        each = layer.weight[0].numel()  # one filter
        right = output.numel() * each
        weight = tuple(layer.weight.shape)
        c06.check_layer(report, impl, name, weight, tuple(output.shape), right)


@hidden_check(c06.e6)
def e6(impl: Handle, report: Report) -> None:
    """Random steps on random machines, on both sides of the ridge."""
    for factor in (0.1, 0.5, 0.99, 1.01, 3.0, 50.0):
        peak, bandwidth, moved = (0.5 + report.randn(3).abs()).tolist()
        multiply_adds = factor * peak * moved / bandwidth
        limit = "compute" if factor > 1 else "memory"
        right = max(factor, 1.0) * moved / bandwidth
        c06.check_bound(report, impl, (multiply_adds, moved, peak, bandwidth), right, limit)
    c06.check_bound(report, impl, (3.0, 0.0, 2.0, 7.0), 1.5, "compute")
    c06.check_bound(report, impl, (0.0, 0.0, 2.0, 7.0), 0.0, "compute")
