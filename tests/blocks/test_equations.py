"""The blocks compute the paper's equations: each test is named by the property it proves."""

import math

import pytest
import torch
from cases import ADDITIVE, BLOCKS, SHAPES, feature_map, make, randomise

from gclib.blocks import (
    AddFusion,
    AttentionPooling,
    AveragePooling,
    BottleneckTransform,
    ContextBlock,
    GCBlock,
    LinearTransform,
    NonLocalBlock,
    ScaleFusion,
    SEBlock,
    SimplifiedNonLocalBlock,
)
from gclib.blocks.non_local import INSTANTIATIONS, concat_similarity, dot_product_similarity

NDIMS = (1, 2, 3)
close = torch.testing.assert_close


def literal_non_local(block, x):
    """Equation 1 with three loops over positions, straight from the paper."""
    weights = {k: v.flatten(1) if v.dim() > 1 else v for k, v in block.state_dict().items()}
    features = x.flatten(2)  # (N, C, L)
    out = torch.empty_like(features)
    attention = torch.empty(len(x), features.shape[2], features.shape[2], dtype=x.dtype)
    for n, example in enumerate(features):
        positions = example.T  # (L, C)

        def embed(name, vector):
            if block.instantiation == "gaussian" and name in ("query", "key"):
                return vector
            return weights[f"{name}.weight"] @ vector + weights[f"{name}.bias"]

        for i, x_i in enumerate(positions):
            logits = []
            for x_j in positions:
                q, k = embed("query", x_i), embed("key", x_j)
                if block.instantiation == "concat":
                    logits.append((weights["pair.weight"][0] @ torch.cat([q, k])).clamp(min=0))
                else:
                    logits.append(q @ k)
            logits = torch.stack(logits)
            if "gaussian" in block.instantiation:
                omega = logits.exp() / logits.exp().sum()
            else:
                omega = logits / len(positions)
            attention[n, i] = omega
            context = sum(w * embed("value", x_j) for w, x_j in zip(omega, positions, strict=True))
            out[n, :, i] = x_i + weights["out.weight"] @ context + weights["out.bias"]
    return out.view_as(x), attention


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_non_local_block_is_equation_1(instantiation, ndim):
    block = make(f"nl_{instantiation}", ndim=ndim)
    x = feature_map(ndim=ndim)
    z, attention = block(x, return_attention=True)
    expected, omega = literal_non_local(block, x)
    close(z, expected)
    close(attention, omega)


@pytest.mark.parametrize("ndim", NDIMS)
def test_gc_block_is_equation_5(ndim):
    block = make("gc", ndim=ndim)
    x = feature_map(ndim=ndim)
    w_k, b_k = block.context_modelling.key.weight[0], block.context_modelling.key.bias
    transform = block.transform
    expected = torch.empty_like(x)
    for n, example in enumerate(x):
        positions = example.flatten(1).T  # (L, C)
        weight = torch.stack([(w_k @ x_j + b_k).exp()[0] for x_j in positions])
        context = sum(w * x_j for w, x_j in zip(weight / weight.sum(), positions, strict=True))
        hidden = transform.reduce.weight @ context + transform.reduce.bias
        hidden = (hidden - hidden.mean()) / (hidden.var(correction=0) + 1e-5).sqrt()
        hidden = (hidden * transform.norm.weight + transform.norm.bias).clamp(min=0)
        t = transform.expand.weight @ hidden + transform.expand.bias
        expected[n] = example + t.view(-1, *[1] * ndim)
    close(block(x), expected)


def test_se_block_is_squeeze_and_excitation():
    block, x = make("se"), feature_map()
    squeezed = x.mean((2, 3))
    w1, w2 = block.transform.reduce, block.transform.expand
    excited = ((squeezed @ w1.weight.T + w1.bias).relu() @ w2.weight.T + w2.bias).sigmoid()
    close(block(x), x * excited[:, :, None, None])


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("bias", [True, False])
def test_equation_2_equals_equation_3(ndim, bias):
    eq2 = SimplifiedNonLocalBlock(4, ndim=ndim, form="eq2", bias=bias, dtype=torch.float64)
    eq3 = SimplifiedNonLocalBlock(4, ndim=ndim, form="eq3", bias=bias, dtype=torch.float64)
    eq3.load_state_dict(randomise(eq2).state_dict())
    x = feature_map(ndim=ndim)
    close(eq2(x), eq3(x), rtol=0, atol=1e-13)


def test_dot_product_may_be_computed_in_either_order():
    block, x = make("nl_dot_product"), feature_map()
    query, key, value = (m(x).flatten(2) for m in (block.query, block.key, block.value))
    by_pairs = dot_product_similarity(query, key) @ value.transpose(1, 2) / key.shape[2]
    linear = query.transpose(1, 2) @ (key @ value.transpose(1, 2)) / key.shape[2]
    close(by_pairs, linear, rtol=0, atol=1e-13)
    z = x + block.out(linear.transpose(1, 2).unflatten(2, x.shape[2:]))
    close(block(x), z, rtol=0, atol=1e-13)


def test_concat_similarity_equals_the_product_with_all_pairs():
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 3, n, generator=generator) for n in (5, 7))
    weight = torch.randn(1, 6, generator=generator)
    pairs = torch.cat(
        [query[:, :, :, None].expand(2, 3, 5, 7), key[:, :, None, :].expand(2, 3, 5, 7)], dim=1
    )
    expected = torch.einsum("c,nclm->nlm", weight[0], pairs).relu()
    close(concat_similarity(query, key, weight), expected)


@pytest.mark.parametrize(
    ("block", "parts"),
    [
        (
            GCBlock,
            lambda c: (AttentionPooling(c), BottleneckTransform(c, norm=True), AddFusion()),
        ),
        (SEBlock, lambda c: (AveragePooling(), BottleneckTransform(c, ratio=16), ScaleFusion())),
        (
            SimplifiedNonLocalBlock,
            lambda c: (AttentionPooling(c), LinearTransform(c), AddFusion()),
        ),
    ],
    ids=["gc", "se", "snl"],
)
def test_blocks_are_expressions_of_the_framework(block, parts):
    named = randomise(block(32))
    composed = ContextBlock(*parts(32))
    composed.load_state_dict(named.state_dict())  # the same keys, strictly
    x = feature_map(32, dtype=torch.float32)
    for ours, theirs in zip(
        named(x, return_attention=True), composed(x, return_attention=True), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_embedded_gaussian_without_query_is_attention_pooling():
    """W_q = 0 leaves the bias b_q as query: the keys' weights are W_kᵀ b_q for everyone."""
    nl = make("nl_embedded_gaussian")
    with torch.no_grad():
        nl.query.weight.zero_()
    pooling = AttentionPooling(4, dtype=torch.float64)
    with torch.no_grad():
        pooling.key.weight.copy_((nl.key.weight.flatten(1).T @ nl.query.bias)[None])
    x = feature_map()
    z, attention = nl(x, return_attention=True)
    context, shared = pooling(x)
    close(attention, shared.expand_as(attention))
    t = nl.out.weight.flatten(1) @ (nl.value.weight.flatten(1) @ context.T + nl.value.bias[:, None])
    close(z, x + (t + nl.out.bias[:, None]).T[:, :, None, None])


def test_attention_pooling_with_constant_logits_is_average_pooling():
    pooling = AttentionPooling(4, dtype=torch.float64)
    torch.nn.init.zeros_(pooling.key.weight)
    x = feature_map()
    for ours, average in zip(pooling(x), AveragePooling()(x), strict=True):
        close(ours, average)


@pytest.mark.parametrize("name", [n for n in BLOCKS if n not in ("nl_before", "nl_after")])
def test_permuting_positions_permutes_the_result(name):  # max pooling looks at neighbours
    block, x = make(name, ndim=1).eval(), feature_map(ndim=1)
    order = torch.randperm(x.shape[2], generator=torch.Generator().manual_seed(0))
    close(block(x[:, :, order]), block(x)[:, :, order])


@pytest.mark.parametrize("name", BLOCKS)
def test_examples_do_not_see_each_other(name):
    block, x = make(name).eval(), feature_map(batch=3)
    close(block(x)[1:2], block(x[1:2]))


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("name", ADDITIVE)
def test_fresh_block_with_addition_is_the_identity(name, ndim):
    block, x = BLOCKS[name](4, ndim=ndim), feature_map(ndim=ndim, dtype=torch.float32)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("gate", "factor"), [("sigmoid", 0.5), ("2sigmoid", 1.0)])
def test_fresh_scaling_starts_at_its_gate(gate, factor):
    x = feature_map(dtype=torch.float32)
    assert torch.equal(SEBlock(4, ratio=2, gate=gate)(x), factor * x)


@pytest.mark.parametrize("name", BLOCKS)
def test_attention_on_request_does_not_change_the_result(name):
    block, x = make(name), feature_map()
    z, attention = block(x, return_attention=True)
    torch.testing.assert_close(block(x), z)
    positions = math.prod(SHAPES[2])
    rows = positions if isinstance(block, NonLocalBlock) else 1
    columns = positions // 4 - 1 if getattr(block, "subsample", None) else positions
    assert attention.shape == (2, rows, columns)


@pytest.mark.parametrize(
    "name", [n for n in BLOCKS if n not in ("nl_dot_product", "nl_concat", "nl_after")]
)
def test_attention_rows_sum_to_one(name):
    _, attention = make(name)(feature_map(), return_attention=True)
    close(attention.sum(2), torch.ones_like(attention[:, :, 0]))
    assert (attention >= 0).all()


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_in_float64(name, ndim):
    block = make(name, ndim=ndim)
    x = feature_map(ndim=ndim, batch=2).requires_grad_()
    parameters = dict(block.named_parameters())

    def function(x, *values):
        return torch.func.functional_call(block, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *parameters.values()))


@pytest.mark.parametrize("name", ["nl_embedded_gaussian", "snl_eq3", "gc", "se"])
def test_second_derivatives_in_float64(name):
    block = make(name, ndim=1)
    x = feature_map(ndim=1, batch=1).requires_grad_()
    assert torch.autograd.gradgradcheck(block, (x,))


def test_every_parameter_learns_from_a_fresh_block_on():
    """Zero-initialised last layers get a gradient at once; the others as soon as they move."""
    for name in BLOCKS:
        block = BLOCKS[name](4)
        x = feature_map(dtype=torch.float32)
        (block(x) * torch.arange(x.numel()).view_as(x).sin()).sum().backward()
        gradients = {k: p.grad for k, p in block.named_parameters()}
        assert all(g is not None for g in gradients.values()), name
        assert any(g.abs().max() > 0 for g in gradients.values()), name


def test_softmax_cancels_the_bias_of_the_key():
    """The parameter is dead by construction; it stays for loading and for the printed counts."""
    block, x = make("gc"), feature_map()
    before = block(x)
    before.square().sum().backward()
    assert block.context_modelling.key.bias.grad.abs().max() < 1e-12
    with torch.no_grad():
        block.context_modelling.key.bias += 3
    close(block(x), before)


@pytest.mark.parametrize("scale", [None, "sqrt", 3.5])
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_scale_multiplies_the_similarity(instantiation, scale):
    plain = make(f"nl_{instantiation}")
    scaled = NonLocalBlock(4, instantiation=instantiation, scale=scale, dtype=torch.float64)
    scaled.load_state_dict(plain.state_dict())
    width = 4 if instantiation == "gaussian" else 2
    factor = {None: 1, "sqrt": width**-0.5, 3.5: 3.5}[scale]
    x = feature_map()
    query, key = plain.query(x).flatten(2), plain.key(x).flatten(2)
    if instantiation == "concat":
        similarity = factor * concat_similarity(query, key, plain.pair.weight)
    else:
        similarity = factor * dot_product_similarity(query, key)
    expected = similarity.softmax(2) if "gaussian" in instantiation else similarity / 20
    close(scaled(x, return_attention=True)[1], expected)


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("subsample", ["before", "after"])
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_subsample_pools_in_space_before_or_after_the_projection(instantiation, subsample, ndim):
    block = randomise(
        NonLocalBlock(
            4, ndim=ndim, instantiation=instantiation, subsample=subsample, dtype=torch.float64
        )
    )
    x = feature_map(ndim=ndim)
    pool = {
        1: lambda t: torch.nn.functional.max_pool1d(t, 2),
        2: lambda t: torch.nn.functional.max_pool2d(t, 2),
        3: lambda t: torch.nn.functional.max_pool3d(t, (1, 2, 2)),
    }[ndim]
    if subsample == "before":
        key, value = block.key(pool(x)), block.value(pool(x))
    else:
        key, value = pool(block.key(x)), pool(block.value(x))
    attention = block.attention(block.query(x).flatten(2), key.flatten(2))
    context = (value.flatten(2) @ attention.transpose(1, 2)).unflatten(2, x.shape[2:])
    z, returned = block(x, return_attention=True)
    close(z, x + block.out(context))
    close(returned, attention)
    if ndim == 3:
        assert key.shape[2] == x.shape[2]  # time is kept


def test_the_two_orders_of_subsampling_differ():
    before, after = (
        NonLocalBlock(4, subsample=s, dtype=torch.float64) for s in ("before", "after")
    )
    after.load_state_dict(randomise(before).state_dict())
    assert (before(feature_map()) - after(feature_map())).abs().max() > 1e-3


def test_norm_normalises_the_output_of_w_z():
    block, x = make("nl_batch"), feature_map()
    plain = NonLocalBlock(4, dtype=torch.float64)
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if "norm" not in k})
    close(block(x), x + block.norm(plain(x) - x))
    assert block.norm.running_mean.abs().max() > 0


@pytest.mark.parametrize("name", BLOCKS)
def test_reset_identity_asserts_the_start_again(name):
    block, x = make(name, dtype=torch.float32), feature_map(dtype=torch.float32)
    assert not torch.allclose(block(x), x)
    block.reset_identity()
    z = block(x)
    assert torch.equal(z, x / 2 if name == "se" else x)


@pytest.mark.parametrize("name", BLOCKS)
def test_reset_parameters_of_every_part_is_a_fresh_start(name):
    """As torch does for modules made on the meta device: each part resets what it owns."""
    fresh = BLOCKS[name](4).state_dict()
    block = make(name, dtype=torch.float32)
    before = {key: value.clone() for key, value in block.state_dict().items()}
    owners = [block] if isinstance(block, NonLocalBlock) else list(block.children())
    for part in owners:
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    for key, value in block.state_dict().items():
        constant = fresh[key].min() == fresh[key].max() and fresh[key].shape != (1, 1)
        assert torch.equal(value, fresh[key]) if constant else not torch.equal(value, before[key])


def test_initialisation_is_that_of_the_official_code():
    torch.manual_seed(0)
    nl = NonLocalBlock(512)
    for layer in (nl.query, nl.key, nl.value):
        assert abs(layer.weight.std().item() - 0.01) < 5e-4
        assert layer.bias.abs().max() == 0
    gc = GCBlock(2048)
    assert abs(gc.context_modelling.key.weight.std().item() / math.sqrt(2 / 2048) - 1) < 0.1
    bound = 1 / math.sqrt(2048)  # PyTorch's default for the first map
    assert 0.9 * bound < gc.transform.reduce.weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("channels", "ratio", "expected"),
    [(512, 16, 33_889), (1024, 16, 133_313), (2048, 16, 528_769), (2048, 4, 2_102_785)],
)
def test_gc_parameters_are_those_of_the_printed_counts(channels, ratio, expected):
    assert sum(p.numel() for p in GCBlock(channels, ratio=ratio).parameters()) == expected
