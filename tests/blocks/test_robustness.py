"""Layouts, dtypes, sizes, and the tools that engineers put around a block."""

import copy
import io
import pickle

import pytest
import torch
from cases import ADDITIVE, BLOCKS, SHAPES, feature_map, make, randomise
from torch import nn
from torch.nn.utils import prune

from gclib.blocks import ContextBlock, GCBlock, NonLocalBlock, SEBlock, reset_identity

close = torch.testing.assert_close
NDIMS = (1, 2, 3)
PLAIN = [name for name in BLOCKS if name not in ("nl_before", "nl_after")]  # any size of map
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
TOLERANCE = {torch.bfloat16: 0.06, torch.float16: 0.008}


def gradients(block, x):
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    z = block(x)
    (z * torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view_as(z)).sum().backward()
    found = [x.grad, *(p.grad.clone() for p in block.parameters())]
    block.zero_grad()
    return z.detach(), found


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", BLOCKS)
def test_channels_last_gives_the_same_and_stays_channels_last(name, ndim):
    block, x = make(name, ndim=ndim), feature_map(ndim=ndim)
    z, found = gradients(block, x)
    last = x.contiguous(memory_format=CHANNELS_LAST[ndim])
    z_last, found_last = gradients(block, last)
    close(z_last, z)
    close(found_last, found)
    assert z_last.is_contiguous(memory_format=CHANNELS_LAST[ndim])


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("name", BLOCKS)
def test_sliced_input_gives_the_same(name, ndim):
    block, x = make(name, ndim=ndim), feature_map(ndim=ndim)
    wide = torch.cat([x, x], dim=-1)[..., : x.shape[-1]]
    steps = torch.repeat_interleave(x, 2, dim=1)[:, ::2]
    for sliced in (wide, steps, x.transpose(0, 1).contiguous().transpose(0, 1)):
        assert not sliced.is_contiguous()
        close(gradients(block, sliced), gradients(block, x))


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("name", BLOCKS)
def test_empty_batch_and_single_example(name, ndim):
    block = make(name, ndim=ndim)
    if name == "nl_batch":
        block.eval()  # batch statistics of nothing do not exist
    z, found = gradients(block, feature_map(ndim=ndim, batch=0))
    assert z.shape == (0, 4, *SHAPES[ndim])
    assert all(g.isfinite().all() and not g.any() for g in found)
    x = feature_map(ndim=ndim, batch=1)
    assert block(x).shape == x.shape


@pytest.mark.parametrize("name", PLAIN)
def test_a_single_position_attends_to_itself(name):
    block = make(name).eval()
    x = feature_map()[:, :, :1, :1]
    z, attention = block(x, return_attention=True)
    assert z.isfinite().all()
    if "gaussian" in name or name in ("snl_eq3", "snl_eq2", "gc", "se"):
        assert torch.equal(attention, torch.ones_like(attention))


@pytest.mark.parametrize("name", BLOCKS)
def test_input_is_left_alone(name):
    block, x = make(name), feature_map()
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", BLOCKS)
def test_residual_may_be_added_in_place(name):
    """ResNets do ``out += identity`` on what a block returns."""
    block, x = make(name), feature_map().requires_grad_()
    out = block(x)
    out += x
    out.sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_half_precision_is_close_to_double(name, dtype):
    block, x = make(name, in_channels=8), feature_map(8)
    expected = block(x)
    half = copy.deepcopy(block).to(dtype)
    z, attention = half(x.to(dtype), return_attention=True)
    assert z.dtype == attention.dtype == dtype
    close(z.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "name", ["nl_embedded_gaussian", "nl_gaussian", "snl_eq3", "snl_eq2", "gc"]
)
def test_logits_of_ten_thousand_in_float16(name, sign):
    """Softmax must subtract the maximum: exp(1e4) overflows in every dtype."""
    block = make(name, in_channels=2, dtype=torch.float32).half()
    x = torch.zeros(1, 2, 2, 3, dtype=torch.float16)
    x[0, 0, 0, 0] = 100
    with torch.no_grad():
        if name == "nl_embedded_gaussian":
            block.query.weight.fill_(0)
            block.query.bias.fill_(1)
            block.key.weight.copy_(torch.tensor([sign * 100.0, 0]).view(1, 2, 1, 1))
        elif name != "nl_gaussian":
            block.context_modelling.key.weight.copy_(torch.tensor([[sign * 100.0, 0]]))
    z, attention = block(x, return_attention=True)
    assert z.isfinite().all()
    assert attention.isfinite().all()
    winner = attention[0, 0, 0].item()
    assert winner == (1 if sign > 0 or name == "nl_gaussian" else 0)


@pytest.mark.parametrize("name", BLOCKS)
def test_bfloat16_autocast(name):
    block = make(name, in_channels=8, dtype=torch.float32)
    x = feature_map(8, dtype=torch.float32).requires_grad_()
    expected = block(x).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = block(x)
        half = block(x.bfloat16())
    assert z.dtype == torch.float32  # the stream keeps its dtype
    assert half.dtype == torch.bfloat16
    close(z.detach(), expected, rtol=0.06, atol=0.06)
    z.sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == p.dtype for p in block.parameters())


@pytest.mark.parametrize("name", BLOCKS)
def test_deepcopy_pickle_and_save(name):
    block, x = make(name), feature_map()
    expected = block(x)
    stream = io.BytesIO()
    torch.save(block.state_dict(), stream)
    stream.seek(0)
    loaded = make(name, seed=5)
    loaded.load_state_dict(torch.load(stream, weights_only=True))
    loaded.train(block.training)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block)), loaded):
        assert torch.equal(other(x), expected)


@pytest.mark.parametrize("name", BLOCKS)
def test_repr_names_the_options(name):
    text = repr(BLOCKS[name](8))
    assert "in_channels=8" in text
    assert type(BLOCKS[name](8)).__name__ in text


@pytest.mark.parametrize("name", BLOCKS)
def test_device_and_dtype_reach_every_parameter(name):
    block = BLOCKS[name](8, device="meta", dtype=torch.float16)
    parameters = list(block.parameters())
    assert parameters
    assert all(p.is_meta and p.dtype == torch.float16 for p in parameters)


@pytest.mark.parametrize("name", PLAIN)
def test_fx_tracing(name):
    """torchvision's feature extractors and FX quantisation trace models symbolically."""
    block, x = nn.Sequential(make(name)).eval(), feature_map()
    traced = torch.fx.symbolic_trace(block)
    close(traced(x), block(x))
    smaller = x[:, :, :3, :2]
    close(traced(smaller), block(smaller))


def test_model_level_initialisation_leaves_context_blocks_the_identity():
    """ResNet's usual Kaiming loop touches convolutions; NL needs ``reset_identity`` after it."""
    model = nn.Sequential(GCBlock(8, ratio=2), NonLocalBlock(8), NonLocalBlock(8, norm="batch"))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    x = feature_map(8, dtype=torch.float32)
    assert torch.equal(model[0](x), x)
    assert not torch.equal(model(x), x)
    assert reset_identity(model) == 3
    assert torch.equal(model(x), x)


def test_a_block_of_ones_own_parts():
    class Maximum(nn.Module):
        def forward(self, x):
            return x.flatten(2).amax(2), None

    block = ContextBlock(Maximum(), nn.Linear(4, 4), make("se").fusion)
    assert block.in_channels is None  # parts without in_channels check for themselves
    assert block(feature_map(dtype=torch.float32)).shape == (2, 4, 5, 4)


def graph_breaks(block, x):
    torch._dynamo.reset()
    explanation = torch._dynamo.explain(block)(x)
    return explanation.graph_break_count


@pytest.mark.parametrize("name", BLOCKS)
def test_compiles_without_graph_breaks(name):
    block, x = make(name), feature_map()
    assert graph_breaks(block, x) == 0
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    close(gradients(compiled, x), gradients(block, x))


@pytest.mark.full
@pytest.mark.parametrize("name", ["nl_embedded_gaussian", "nl_concat", "snl_eq3", "gc", "se"])
def test_compiles_with_inductor(name):
    """The default back end, which needs a C++ compiler on a CPU."""
    torch._dynamo.reset()
    block = make(name, dtype=torch.float32)
    x = feature_map(dtype=torch.float32)
    compiled = torch.compile(block, fullgraph=True)
    close(gradients(compiled, x), gradients(block, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("name", PLAIN)
def test_exports_with_dynamic_shapes(name, ndim):
    block = make(name, ndim=ndim).eval()
    x = feature_map(ndim=ndim, batch=3)
    dim = torch.export.Dim
    axes = {0: dim("batch", min=2, max=64)}
    axes |= {2 + i: dim(f"axis{i}", min=2, max=512) for i in range(ndim)}
    program = torch.export.export(block, (x,), dynamic_shapes=({**axes},))
    larger = torch.randn(2, 4, *(size + 1 for size in SHAPES[ndim]), dtype=torch.float64)
    close(program.module()(larger), block(larger))


@pytest.mark.parametrize("name", ADDITIVE)
def test_vmap_and_functional_call(name):
    if name == "nl_batch":
        return  # batch statistics under vmap are undefined in torch as well
    block, x = make(name), feature_map(batch=4)
    stacked = torch.func.vmap(block)(x.unflatten(0, (2, 2)))
    close(stacked.flatten(0, 1), block(x))


@pytest.mark.parametrize(
    "block", [lambda: GCBlock(32), lambda: NonLocalBlock(32, instantiation="concat")]
)
def test_hooks_and_pruning_see_every_layer(block):
    """Every layer is called as a module, so that what wraps layers works."""
    block = randomise(block())
    called = set()
    layers = {n: m for n, m in block.named_modules() if list(m.parameters(recurse=False))}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
        prune.l1_unstructured(layer, "weight", 0.5)
    for _ in range(2):
        block(torch.randn(2, 32, 4, 4)).square().sum().backward()
    assert called == set(layers)


def test_float16_dot_products_do_not_overflow_before_the_division():
    query = torch.full((1, 512, 64), 16.0).half()
    block = NonLocalBlock(1024, instantiation="dot_product").half()
    torch.testing.assert_close(
        block.attention(query, query), torch.full((1, 64, 64), 2048.0).half()
    )


def test_the_map_of_average_pooling_can_be_written_to():
    _, attention = SEBlock(32)(torch.randn(2, 32, 4, 4), return_attention=True)
    assert attention.mul_(2).sum() == pytest.approx(4)


def test_fx_traces_a_bare_block_when_the_option_is_fixed():
    block, x = randomise(GCBlock(32)), torch.randn(2, 32, 4, 4)
    traced = torch.fx.symbolic_trace(block, concrete_args={"return_attention": False})
    torch.testing.assert_close(traced(x), block(x))
