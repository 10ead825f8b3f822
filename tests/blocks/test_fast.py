"""The fast forms equal the plain formulas, are used, and step aside where they must."""

import contextlib

import pytest
import torch
from cases import BLOCKS, SHAPES, feature_map, make, randomise
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gclib.bench.measure import peak_bytes
from gclib.blocks import GCBlock, NonLocalBlock, SEBlock, SimplifiedNonLocalBlock, fast
from gclib.blocks.fast import framework, non_local

close = torch.testing.assert_close
FORMS = ("attention_pooling", "average_pooling", "dot_product", "concat", "softmax")
FORM = {
    "nl_embedded_gaussian": "softmax",
    "nl_gaussian": None,  # in half precision only
    "nl_dot_product": "dot_product",
    "nl_concat": "concat",
    "nl_sqrt": "softmax",
    "nl_before": "softmax",
    "nl_after": "dot_product",
    "nl_batch": "softmax",
    "snl_eq3": "attention_pooling",
    "snl_eq2": None,
    "gc": "attention_pooling",
    "gc_no_bias": "attention_pooling",
    "se": "average_pooling",
    "se_2sigmoid": "average_pooling",
    "att_scale": "attention_pooling",
    "r2_linear": "attention_pooling",
}
DEVICES = ["cpu", *(["cuda", "cuda-large"] if torch.cuda.is_available() else [])]


@pytest.fixture
def small(monkeypatch):
    """Let the forms without a map win for the small maps of the tests."""
    for name in ("association_wins", "sorting_wins"):
        monkeypatch.setattr(fast, name, lambda *_: True)
    monkeypatch.setattr(non_local, "_LARGE_MAP", 0)


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    """Where a test runs; on a GPU also as if the small maps of the tests were large."""
    name, *large = request.param.split("-")
    if large:
        monkeypatch.setattr(framework, "_SMALL_ON_GPU", 0)
    return name


@pytest.fixture
def used(monkeypatch):
    """Names of the fast forms that were called, in order."""
    names = []

    def spy(name, function):
        def form(*args):
            names.append(name)
            return function(*args)

        return form

    for name in FORMS:
        monkeypatch.setattr(fast, name, spy(name, getattr(fast, name)))
    return names


def step(block, x, dtype=None):
    """Output and all gradients of a block."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    block.zero_grad()
    z = block(x)
    weights = torch.linspace(-1, 1, z.numel(), dtype=torch.float64).view_as(z)
    (z * weights.to(z)).sum().backward()
    found = [z.detach(), x.grad, *(p.grad.clone() for p in block.parameters())]
    return [tensor.to(dtype or tensor.dtype).cpu() for tensor in found]


def error(results, exact):
    """Largest relative error; some gradients are zero by construction, so beside the largest."""
    scale = max(tensor.double().norm() for tensor in exact[1:])
    return max(
        (a.double() - b).norm() / (b.norm() + scale / 10)
        for a, b in zip(results, exact, strict=True)
    )


def layouts(x):
    yield "contiguous", x
    yield "transposed", x.transpose(0, 1).contiguous().transpose(0, 1)
    yield "sliced", torch.cat([x, x], -1)[..., : x.shape[-1]]
    yield "every second channel", x.repeat_interleave(2, 1)[:, ::2]
    if x.dim() > 3:
        last = {4: torch.channels_last, 5: torch.channels_last_3d}[x.dim()]
        yield "channels last", x.contiguous(memory_format=last)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("name", BLOCKS)
def test_value_and_gradient_equal_the_plain_formula(name, ndim, device, small, used):
    block, x = make(name, ndim=ndim).to(device), feature_map(ndim=ndim).to(device)
    with fast.plain_formulas():
        expected = step(block, x)
    assert used == []
    for layout, same in layouts(x):
        close(step(block, same), expected, msg=lambda text, layout=layout: f"{layout}: {text}")
        assert used == [FORM[name]] * bool(FORM[name])
        used.clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", BLOCKS)
def test_rounding_is_no_worse_than_that_of_the_plain_formula(name, dtype, device, small):
    """Errors against float64, over all outputs and gradients, for weights of the dtype."""
    block = make(name, in_channels=32).to(device)
    block = randomise(block, std=0.1).to(dtype)
    x = torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    found = step(block, x, torch.float64)
    with fast.plain_formulas():
        plain = step(block, x, torch.float64)
        exact = step(block.double(), x.double())

    assert error(found, exact) < 1.5 * error(plain, exact) + 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", BLOCKS)
def test_derivatives_of_every_kind(name, small):
    """First and second order, forward mode, many at once, against differences."""
    if name == "nl_batch":
        return  # batch statistics under vmap are undefined in torch as well
    block, x = make(name), feature_map(batch=1).requires_grad_()
    assert torch.autograd.gradcheck(block, x, check_forward_ad=True, check_batched_grad=True)
    if FORM[name] == "softmax":
        with pytest.raises(RuntimeError, match="no second derivative; compute block"):
            torch.autograd.gradgradcheck(block, x)
        with fast.plain_formulas():
            assert torch.autograd.gradgradcheck(block, x)
    else:
        assert torch.autograd.gradgradcheck(block, x, check_fwd_over_rev=True)


@pytest.mark.parametrize("name", ["gc", "se", "att_scale"])
def test_derivatives_of_channels_last_maps(name):
    """Sums over positions are products there."""
    block = make(name)
    x = feature_map(batch=2).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert fast.sums_by_product(x)
    assert torch.autograd.gradcheck(block, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(block, x, check_fwd_over_rev=True)


@pytest.mark.parametrize("moving", ["x", "transformed"])
def test_forward_mode_of_the_sum_through_either_part(moving):
    parts = {"x": feature_map(), "transformed": feature_map()[..., :1, :1]}
    tangent = torch.ones_like(parts[moving])
    with torch.autograd.forward_ad.dual_level():
        dual = parts | {moving: torch.autograd.forward_ad.make_dual(parts[moving], tangent)}
        found = torch.autograd.forward_ad.unpack_dual(fast.add(*dual.values())).tangent
    close(found, torch.ones_like(parts["x"]))


def test_sums_by_product_of_empty_and_single_maps():
    for shape in ((0, 3, 2, 2), (2, 1, 3, 3), (2, 3, 1, 1)):
        x = torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
        block = SEBlock(shape[1], ratio=1)
        with torch.no_grad():
            found = block(x)
            with fast.plain_formulas():
                close(found, block(x), equal_nan=True)
        GCBlock(shape[1], ratio=1)(x).sum().backward()


def test_float16_means_do_not_overflow():
    x = torch.full((1, 8, 40, 50), 1000.0).half().contiguous(memory_format=torch.channels_last)
    assert fast.average_pooling(x)[1].eq(1000).all()


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_of_single_examples(name, small):
    if name == "nl_batch":
        return
    block, x = make(name), feature_map(batch=3)

    def loss(parameters, example):
        return torch.func.functional_call(block, parameters, (example[None],)).square().sum()

    parameters = dict(block.named_parameters())
    single = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for index, example in enumerate(x):
        block.zero_grad()
        block(example[None]).square().sum().backward()
        for key, parameter in block.named_parameters():
            close(single[key][index], parameter.grad)


@pytest.mark.parametrize("name", ["gc", "snl_eq3"])
def test_a_loss_on_the_attention_alone(name):
    block, x = make(name), feature_map().requires_grad_()
    target = torch.linspace(0, 1, 20, dtype=torch.float64)
    inputs = [x, block.context_modelling.key.weight]
    found = torch.autograd.grad((block(x, True)[1] * target).sum(), inputs)
    with fast.plain_formulas():
        close(found, torch.autograd.grad((block(x, True)[1] * target).sum(), inputs))


@pytest.mark.parametrize("name", BLOCKS)
def test_return_attention_gives_the_same_output(name, small):
    block, x = make(name).eval(), feature_map()
    close(block(x), block(x, return_attention=True)[0])


@pytest.mark.parametrize("name", BLOCKS)
def test_frozen_parts(name, small):
    """Gradients of what is wanted, whether or not the rest wants one."""
    block, x = make(name), feature_map()
    expected = step(block, x)[2:]
    for chosen, (key, parameter) in enumerate(block.named_parameters()):
        for other in block.parameters():
            other.requires_grad_(other is parameter)
        block.zero_grad()
        z = block(x)
        weights = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view_as(z)
        (z * weights).sum().backward()
        close(parameter.grad, expected[chosen], msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", BLOCKS)
def test_a_residual_sum_in_place_and_a_second_backward(name, small):
    """ResNets add the shortcut to the block's output in place."""
    block, x = make(name), feature_map().requires_grad_()
    z = block(x * 1)
    z += x
    z.sum().backward(retain_graph=True)
    first = x.grad.clone()
    z.sum().backward()
    close(x.grad, 2 * first)


@pytest.mark.parametrize("name", BLOCKS)
def test_autocast(name, small):
    block, x = make(name, in_channels=16, dtype=torch.float32), feature_map(16).float()
    expected = step(block, x)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16):
            found = step(block, x.to(dtype))
        assert error(found, expected) < 0.05


def test_mixed_dtypes_are_refused_as_by_the_plain_formula():
    block, x = GCBlock(16).bfloat16(), torch.randn(2, 16, 4, 4)
    for context in (contextlib.nullcontext(), fast.plain_formulas()):
        with context, pytest.raises(RuntimeError, match="BFloat16"):
            block(x)


@pytest.mark.parametrize("name", [name for name, form in FORM.items() if form])
def test_steps_aside(name, small, used, recwarn):
    """Where a hook waits, a graph is recorded, or a part is somebody else's."""
    block, x = make(name).eval(), feature_map()
    expected = block(x)
    assert used == [FORM[name]]
    used.clear()

    traced = torch.jit.trace(block, x, check_trace=False)
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    exported = torch.export.export(block, (x,)).module()
    for same in (traced, compiled, exported):
        close(same(x), expected)
    with fast.plain_formulas():
        close(block(x), expected)

    class Subclass(torch.Tensor):
        pass

    close(block(x.as_subclass(Subclass)).as_subclass(torch.Tensor), expected)
    calls = []
    handle = nn.modules.module.register_module_forward_hook(lambda *_: calls.append(1))
    try:
        close(block(x), expected)
    finally:
        handle.remove()
    assert calls
    assert used == []


@pytest.mark.parametrize("layer", ["context_modelling", "context_modelling.key"])
@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_a_hook_on_a_layer_is_called(layer, register, used):
    block, calls = make("gc"), []
    getattr(block.get_submodule(layer), register)(lambda *_: calls.append(1))
    block(feature_map().requires_grad_()).sum().backward()
    assert calls
    assert used == []


def test_parts_of_a_subclass_are_called(used):
    block = make("gc")

    class Halved(type(block.context_modelling)):
        def forward(self, x):
            context, attention = super().forward(x)
            return context / 2, attention

    block.context_modelling.__class__ = Halved
    x = feature_map()
    whole, half = make("gc")(x), block(x)
    assert not torch.allclose(whole, half)
    assert used == ["attention_pooling"]

    class Uniform(NonLocalBlock):
        def attention(self, query, key):
            return query.new_full((len(query), query.shape[2], key.shape[2]), 1 / key.shape[2])

    subclass = randomise(Uniform(4, instantiation="dot_product", dtype=torch.float64))
    close(subclass(x), subclass(x, return_attention=True)[0])


def test_fusion_of_somebody_else_may_write_in_place(used):
    """It then writes to the input, as with the plain formula, and not to a view of ours."""
    block = make("gc")

    class InPlace(nn.Module):
        def forward(self, x, transformed):
            return x.add_(transformed)

    expected = block(feature_map())
    block.fusion = InPlace()
    used.clear()
    close(block(feature_map()), expected)
    assert used == []


@pytest.mark.parametrize("name", ["forward", "attention"])
@pytest.mark.parametrize("layer", ["context_modelling", "context_modelling.key"])
def test_a_replaced_method_is_called(layer, name):
    block, x = make("gc"), feature_map()
    part = block.get_submodule(layer)
    if not hasattr(part, name):
        return
    before = getattr(part, name)

    def doubled(*args):
        found = before(*args)
        return (2 * found[0], found[1]) if isinstance(found, tuple) else 2 * found

    setattr(part, name, doubled)
    found = block(x)
    with fast.plain_formulas():
        close(found, block(x))
    assert not torch.allclose(found, make("gc")(x))


def test_a_replaced_attention_of_a_non_local_block_is_called(small):
    block, x = make("nl_dot_product"), feature_map()
    block.attention = lambda query, key: torch.ones(2, 20, 20, dtype=x.dtype)
    close(block(x), block(x, return_attention=True)[0])


@pytest.mark.parametrize("name", BLOCKS)
def test_meta_device(name, small):
    block = make(name).to("meta")
    assert block(feature_map().to("meta")).shape == (2, 4, 5, 4)
    with torch.no_grad():
        assert block(feature_map().to("meta")).shape == (2, 4, 5, 4)


@pytest.mark.parametrize("name", BLOCKS)
def test_float64_under_autocast(name, small):
    block, x = make(name).eval(), feature_map()
    with torch.autocast("cpu", torch.bfloat16):
        close(block(x), block(x, return_attention=True)[0])
        assert block(x).dtype == torch.float64


def test_a_transform_may_write_to_the_context(used):
    block, x = make("gc"), feature_map()
    block.transform = nn.Sequential(nn.ReLU(inplace=True), block.transform)
    found = block(x)
    assert used == ["attention_pooling"]
    with fast.plain_formulas():
        close(found, block(x))


def test_a_hook_on_fusion_may_write_to_x(used):
    block, x = make("gc"), feature_map()

    def double(module, args):
        args[0].mul_(2)

    block.fusion.register_forward_pre_hook(double)
    with fast.plain_formulas():
        expected = block(x.clone())
    close(block(x.clone()), expected)
    assert used == []


def test_input_that_needs_no_gradient_asks_for_none(used):
    block, x = make("gc"), feature_map()
    expected = step(block, x)[2:]
    seen = []
    block.fusion.forward = lambda x, t: seen.append(x.requires_grad) or x + t
    block.zero_grad()
    z = block(x)
    weights = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view_as(z)
    (z * weights).sum().backward()
    close([p.grad for p in block.parameters()], expected)
    assert seen == [False]


def test_plain_formulas_in_threads_that_overlap(used):
    first, second = fast.plain_formulas(), fast.plain_formulas()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    block, x = make("gc"), feature_map()
    block(x)
    assert used == []
    second.__exit__(None, None, None)
    block(x)
    assert used == ["attention_pooling"]


def test_float16_gradients_of_concat_stay_finite(small):
    """The division by the positions is made in float32, after the sums."""
    block = randomise(NonLocalBlock(16, instantiation="concat"), std=0.3).half()
    x = torch.randn(1, 16, 24, 24, generator=torch.Generator().manual_seed(0)).half()
    x.requires_grad_()
    block(x).backward(torch.full_like(x, 64.0))
    with fast.plain_formulas():
        expected = torch.autograd.grad(block(x), x, torch.full_like(x, 64.0))[0]
    assert expected.isfinite().all()
    assert x.grad.isfinite().all()


def brute(a, b, value):
    return torch.einsum("nlm,ncm->ncl", (a[:, :, None] + b[:, None]).relu(), value)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([-9.0, -9], [1.0, 2, 3]),  # no key is seen
        ([9.0, 9], [-1.0, -2, -3]),  # every key is seen
        ([1.0, -2], [-1.0, 2, 2]),  # sums of exactly 0, and ties
        ([0.0, 0], [0.0, 0, 0]),
        ([0.5], [0.1]),
    ],
)
def test_sorting_at_the_edges(a, b):
    a = torch.tensor([a], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([b], dtype=torch.float64, requires_grad=True)
    value = feature_map(ndim=1)[:1, :, : b.shape[1]].clone().requires_grad_()
    grad = torch.randn(1, 4, a.shape[1], dtype=torch.float64)
    found, expected = fast.concat(a, b, value), brute(a, b, value)
    close(found, expected)
    close(
        torch.autograd.grad(found, (a, b, value), grad),
        torch.autograd.grad(expected, (a, b, value), grad),
    )


def test_sorting_sums_long_rows_without_losing_digits():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, 20_000, generator=generator)
    value = 1 + torch.randn(1, 2, 20_000, generator=generator)
    exact = torch.cat([brute(r.double(), b.double(), value.double()) for r in a.split(500, 1)], 2)
    assert (fast.concat(a, b, value) - exact).abs().max() < 1e-6 * exact.abs().max()


def test_forms_are_chosen_by_size(used):
    """By the numbers of positions and channels."""
    for block, size, form in (
        (NonLocalBlock(64, instantiation="dot_product"), 4, None),  # 16 positions, 32 channels
        (NonLocalBlock(64, instantiation="dot_product"), 8, "dot_product"),
        (NonLocalBlock(32, instantiation="concat"), 8, None),
        (NonLocalBlock(32, instantiation="concat"), 24, "concat"),
        (NonLocalBlock(8), 48, None),
        (NonLocalBlock(8), 91, "softmax"),  # a map of 256 MiB
        (NonLocalBlock(8, instantiation="gaussian"), 91, None),
        (NonLocalBlock(8).bfloat16(), 8, "softmax"),
        (NonLocalBlock(8, instantiation="gaussian").bfloat16(), 8, "softmax"),
    ):
        with torch.no_grad():
            block(torch.randn(1, block.in_channels, size, size).to(block.value.weight))
        assert used == [form] * bool(form), (block, size)
        used.clear()


def test_half_precision_trains_without_the_map_where_it_is_large(used):
    for block, size, form in (
        (NonLocalBlock(8).bfloat16(), 8, None),
        (NonLocalBlock(8).bfloat16(), 39, "softmax"),  # 1521² is above 2²¹
        (NonLocalBlock(8, instantiation="gaussian").bfloat16(), 39, None),
    ):
        block(torch.randn(1, 8, size, size).bfloat16())
        assert used == [form] * bool(form), (block, size)
        used.clear()


VIEWS = {"view", "expand", "transpose", "squeeze", "unsqueeze", "t", "detach", "alias", "permute"}


class Kernels(TorchDispatchMode):
    """Names of the operations that start a kernel."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name.removeprefix("_unsafe_") not in VIEWS:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("block", "forward"), [(GCBlock, 8), (SimplifiedNonLocalBlock, 5)])
def test_few_kernels(block, forward):
    """On a GPU small maps take the time of the kernels' start, whatever the kernels do."""
    block, x = block(16), torch.randn(2, 16, 5, 5)
    with torch.no_grad(), Kernels() as inference:
        block(x)
    assert len(inference.names) <= forward, inference.names
    call = training_step(block, x)
    with Kernels() as fast_form:
        call()
    with fast.plain_formulas(), Kernels() as plain:
        call()
    assert len(fast_form.names) <= len(plain.names) + 3, (fast_form.names, plain.names)


def test_weights_that_nobody_asked_for_are_not_made():
    block, x = SEBlock(16), torch.randn(2, 16, 5, 5)
    with torch.no_grad(), Kernels() as inference:
        block(x)
    assert inference.names.count("mean") == 1
    assert len(inference.names) <= 6, inference.names


@pytest.mark.parametrize("form", ["autograd_wins"])
@pytest.mark.parametrize("name", ["gc", "snl_eq3", "att_scale", "r2_linear", "se"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_forms_for_small_and_large_maps_on_a_gpu(name, ndim, form, monkeypatch):
    """Chosen there by the size of the map; here both, so that they are tested without one."""
    block, x = make(name, ndim=ndim), feature_map(ndim=ndim)
    with fast.plain_formulas():
        expected = step(block, x)
    monkeypatch.setattr(framework, form, lambda x: True)
    for layout, same in layouts(x):
        close(step(block, same), expected, msg=lambda text, layout=layout: f"{layout}: {text}")


def test_the_bias_that_softmax_cancels_gets_a_gradient_of_zero(used):
    for block in (make("gc", dtype=torch.float32), make("snl_eq3").bfloat16()):
        bias = block.context_modelling.key.bias
        x = feature_map().to(bias.dtype)
        nn.init.constant_(bias, 5.0)
        before = block(x)
        before.sum().backward()
        assert bias.grad.dtype == bias.dtype
        assert bias.grad.eq(0).all()
        nn.init.constant_(bias, -3.0)
        close(block(x), before, rtol=0, atol=0)
    assert set(used) == {"attention_pooling"}


def training_step(block, x):
    x = x.detach().requires_grad_()
    grad = torch.ones_like(x)

    def call():
        block(x).backward(grad)
        grads = [t.grad for t in (x, *block.parameters())]
        x.grad = None  # a step that frees the gradients of the one before would seem to hold less
        block.zero_grad()
        return grads

    return call


@pytest.mark.parametrize("block", [GCBlock, SimplifiedNonLocalBlock])
def test_training_holds_two_tensors_of_full_size(block):
    """The output and the gradient of x; the plain formula holds four."""
    x = torch.randn(2, 64, 64, 64)
    size = 4 * x.numel()
    call = training_step(randomise(block(64)), x)
    assert peak_bytes(call) < 2.2 * size
    with fast.plain_formulas():
        assert peak_bytes(call) > 2.9 * size


def test_average_pooling_makes_no_gradient_of_its_own():
    x = torch.randn(2, 64, 64, 64)
    call = training_step(randomise(SEBlock(64)), x)
    found = peak_bytes(call)
    with fast.plain_formulas():
        assert found < peak_bytes(call)


@pytest.mark.parametrize(
    ("instantiation", "part"),
    [("embedded_gaussian", 1 / 4), ("dot_product", 1 / 10), ("concat", 1 / 4)],
)
def test_training_memory_without_the_map(instantiation, part, monkeypatch):
    monkeypatch.setattr(non_local, "_LARGE_MAP", 2**24)
    block = randomise(NonLocalBlock(32, instantiation=instantiation), std=0.1)
    call = training_step(block, torch.randn(2, 32, 56, 56))
    found = peak_bytes(call)
    with fast.plain_formulas():
        assert found < part * peak_bytes(call)


def test_shapes_of_the_cases_are_many_enough():
    assert set(FORM) == set(BLOCKS)
    assert set(SHAPES) == {1, 2, 3}
    assert set(filter(None, FORM.values())) == set(FORMS)
