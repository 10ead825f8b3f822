"""Mutants and variants of chapter 03."""

from mutants.answers import Mutant

_SCORES = 'torch.einsum("ncl,c->nl", x, key_weight)'
_SOFTMAX = "scores.softmax(dim=1)"
_ONLY = "weights = shared_attention(x, key_weight)"
_WEIGHTS = "weights = shared_attention(x, key_weight)  # (N, L)"
_VALUES = "values = value_weight @ x  # (N, C', L)"
_SUM2 = 'return torch.einsum("ncl,nl->nc", values, weights)'
_POOLED = 'pooled = torch.einsum("ncl,nl->nc", x, weights)  # (N, C)'
_SUM3 = "return pooled @ value_weight.T"


def _both_forms(last: str, wrong: dict[str, str]) -> list[Mutant]:
    """Mistakes that exercises 2 and 3 share; ``last`` is the line that returns."""
    value = last.removeprefix("return ")
    return [
        Mutant(
            "exp only",
            {
                _WEIGHTS: 'weights = torch.einsum("ncl,c->nl", x, key_weight).exp()',
            },
            "not divided by their sum",
        ),
        Mutant(
            "scores without softmax",
            {_WEIGHTS: 'weights = torch.einsum("ncl,c->nl", x, key_weight)'},
            "the softmax is missing",
        ),
        Mutant("softmax twice", {_WEIGHTS: f"{_ONLY}.softmax(1)"}, "a second time"),
        Mutant(
            "plain mean",
            {_WEIGHTS: "weights = torch.full_like(x[:, 0], 1 / x.shape[2])"},
            "this is the plain mean",
        ),
        Mutant("plain sum", {_WEIGHTS: "weights = torch.ones_like(x[:, 0])"}, "the plain sum"),
        Mutant("divided by L", {last: f"{last} / x.shape[2]"}, "the weights sum to 1 already"),
        Mutant(
            "hard maximum",
            {
                _WEIGHTS: "weights = nn.functional.one_hot(shared_attention(x, key_weight).argmax(1), "
                "x.shape[2]).to(x)"
            },
            "only the position with the largest weight",
        ),
        Mutant(
            "squared weights",
            {_WEIGHTS: f"{_ONLY}.square()"},
            "the weights are squared",
        ),
        Mutant(
            "sigmoid",
            {_WEIGHTS: 'weights = torch.einsum("ncl,c->nl", x, key_weight).sigmoid()'},
            "this is the sigmoid",
        ),
        Mutant("flipped", {_WEIGHTS: f"{_ONLY}.flip(1)"}, "turned around"),
        Mutant("scaled", {last: f"{last} / x.shape[1] ** 0.5"}, "divided by √C"),
        Mutant(
            "softmax behind",
            {last: f"return ({value}).softmax(1)"},
            "softmax behind the weighted sum",
        ),
        Mutant("drops the batch", {last: f"return ({value})[0]"}, "axis 0, the examples, is gone"),
        Mutant("mixes examples", {_WEIGHTS: f"{_ONLY}.flip(0)"}, "examples are mixed"),
        Mutant("detached weights", {_WEIGHTS: f"{_ONLY}.detach()"}, "cut off"),
        Mutant("fixed dtype", {last: f"return ({value}).double()"}, "fixed dtype"),
        Mutant("keeps an axis", {last: f"return ({value})[:, None]"}, "one axis too many"),
        Mutant("swapped axes", {last: f"return ({value}).T"}, "the axes are swapped"),
        Mutant("in place", {last: f"result = {value}\n    x *= 2\n    return result"}, "in place"),
        Mutant("no return", {last: f"result = {value}"}, "without a return"),
        *[Mutant(name, edits, says) for name, (edits, says) in wrong.items()],
    ]


_RETURN5 = "return x + context.reshape(*context.shape, *[1] * self.ndim)"
_ATTEND5 = "weights = self.key(flat).softmax(dim=2)  # (N, 1, L)"
_POOL5 = "pooled = (weights * flat).sum(dim=2)  # (N, C)"
_CONTEXT5 = "context = self.value(pooled)"
_ZERO_WEIGHT = "        nn.init.zeros_(self.value.weight)\n"
_ZERO_BIAS = "        nn.init.zeros_(self.value.bias)\n"
_ADDED5 = "context.reshape(*context.shape, *[1] * self.ndim)"


def _attend(new: str) -> dict[str, str]:
    return {_ATTEND5: f"weights = {new}"}


_CHOSEN = "rows = attention[:, chosen]  # (N, K, M)"
_UNITS = "units = rows / rows.norm(dim=2, keepdim=True)"
_MEAN = "mean = units.mean(dim=1)  # (N, M)"
_RETURN6 = "return (1 - mean.square().sum(dim=1)) / 2"

_COUNT = "return scores + positions * transform + weighted_sum, scores + transform + weighted_sum"

MUTANTS = {
    "c03-e1": [
        Mutant("over examples", {_SOFTMAX: "scores.softmax(dim=0)"}, "over the examples"),
        Mutant(
            "over everything",
            {_SOFTMAX: "scores.flatten().softmax(0).view_as(scores)"},
            "over the whole batch",
        ),
        Mutant("exp only", {_SOFTMAX: "scores.exp()"}, "not divided by their sum"),
        Mutant("no softmax", {_SOFTMAX: "scores"}, "the softmax is missing"),
        Mutant("softmax twice", {_SOFTMAX: f"{_SOFTMAX}.softmax(1)"}, "a second time"),
        Mutant("divided", {_SOFTMAX: "scores / scores.shape[1]"}, "number of positions"),
        Mutant(
            "divided as well", {_SOFTMAX: f"{_SOFTMAX} / len(scores[0])"}, "number of positions"
        ),
        Mutant("scaled", {_SCORES: f"{_SCORES} / x.shape[1] ** 0.5"}, "divided by √C"),
        Mutant("mean of channels", {_SCORES: f"{_SCORES} / x.shape[1]"}, "W_k x_j is a sum"),
        Mutant(
            "no exp",
            {_SOFTMAX: "scores / scores.sum(1, keepdim=True)"},
            "softmax divides their exponentials",
        ),
        Mutant(
            "powers of 2",
            {_SOFTMAX: "(0.6931471805599453 * scores).softmax(1)"},
            "powers of e, not of 2",
        ),
        Mutant(
            "hard maximum",
            {_SOFTMAX: "nn.functional.one_hot(scores.argmax(1), scores.shape[1]).to(x)"},
            "position with the largest score",
        ),
        Mutant("log softmax", {_SOFTMAX: "scores.log_softmax(1)"}, "logarithm"),
        Mutant("sigmoid", {_SOFTMAX: "scores.sigmoid()"}, "does not compare the positions"),
        Mutant("minus", {_SOFTMAX: "(-scores).softmax(1)"}, "wrong sign"),
        Mutant("uniform", {_SOFTMAX: "(0 * scores).softmax(1)"}, "W_k is not used"),
        Mutant("sum of channels", {_SCORES: "x.sum(1)"}, "summed without W_k"),
        Mutant(
            "per channel",
            {_SCORES: "x * key_weight[:, None]", _SOFTMAX: "scores.softmax(2)"},
            "the channels are not summed",
        ),
        Mutant(
            "sums positions",
            {_SCORES: 'torch.einsum("ncl,c->nc", x, key_weight)'},
            "one number for each channel",
        ),
        Mutant(
            "one row for each query",
            {_SOFTMAX: "(0 * scores[:, :, None] + scores[:, None]).softmax(2)"},
            "all queries share one row",
        ),
        Mutant("keeps an axis", {_SOFTMAX: f"{_SOFTMAX}[:, None]"}, "one axis too many"),
        Mutant("drops the batch", {_SOFTMAX: f"{_SOFTMAX}[0]"}, "axis 0, the examples, is gone"),
        Mutant(
            "overflow",
            {_SOFTMAX: "scores.exp() / scores.exp().sum(1, keepdim=True)"},
            "exp overflows",
        ),
        Mutant(
            "mixes examples",
            {_SOFTMAX: "(scores + 0 * scores.mean(0)).softmax(1).flip(0)"},
            "the examples changed places",
        ),
        Mutant("detached", {_SOFTMAX: "scores.detach().softmax(1)"}, "cut off from the graph"),
        Mutant("in place", {_SCORES: f"{_SCORES}\n    x.zero_()"}, "in place"),
        Mutant("fixed dtype", {_SOFTMAX: "scores.softmax(1, dtype=torch.float64)"}, "fixed dtype"),
        Mutant(
            "small only",
            {_SOFTMAX: "scores.clamp(-1.5e4, 1.5e4).softmax(1)"},
            "expected",
            hidden=True,
        ),
    ],
    "c03-e2": _both_forms(
        _SUM2,
        {
            "pools first": (
                {
                    _VALUES: _POOLED,
                    _SUM2: _SUM3,
                },
                "that is equation 3",
            ),
            "einsum of three": (
                {
                    _VALUES: "",
                    _SUM2: 'return torch.einsum("nl,ncl,dc->nd", weights, x, value_weight)',
                },
                "einsum with three tensors",
            ),
            "no W_v": ({_VALUES: "values = x"}, "this is the pooled input"),
            "not summed": ({_SUM2: "return values * weights[:, None]"}, "not summed over the"),
            "sums channels": (
                {_SUM2: 'return torch.einsum("ncl,nl->nl", values, weights)'},
                "summed over the channels",
            ),
            "W_v transposed": ({_VALUES: "values = value_weight.T @ x"}, "shapes that do not fit"),
            "relu": ({_VALUES: "values = (value_weight @ x).relu()"}, "has no ReLU"),
            "weights twice": (
                {_VALUES: "values = value_weight @ (x * weights[:, None])"},
                "the weights",
            ),
            "detached values": ({_VALUES: "values = (value_weight @ x).detach()"}, "cut off"),
        },
    ),
    "c03-e3": _both_forms(
        _SUM3,
        {
            "equation 2": (
                {_POOLED: _VALUES, _SUM3: _SUM2},
                "take the weighted sum of x first",
            ),
            "equation 2, one by one": (
                {
                    _POOLED: "pooled = 0",
                    _SUM3: "for j in range(x.shape[2]):\n"
                    "        pooled = pooled + weights[:, j, None] * (x[:, :, j] @ value_weight.T)\n"
                    "    return pooled",
                },
                "one after the other",
            ),
            "no W_v": ({_SUM3: "return pooled"}, "this is the pooled input"),
            "not summed": (
                {_POOLED: "pooled = (x * weights[:, None]).mT"},
                "not summed over the positions",
            ),
            "W_v not transposed": (
                {_SUM3: "return pooled @ value_weight"},
                "shapes that do not fit",
            ),
            "mean": (
                {_POOLED: "pooled = (x * weights[:, None]).mean(2)"},
                "the weights sum to 1 already",
            ),
            "detached pooled": ({_SUM3: "return pooled.detach() @ value_weight.T"}, "cut off"),
        },
    ),
    "c03-e4": [
        Mutant(
            "swapped",
            {
                _COUNT: "return scores + transform + weighted_sum, "
                "scores + positions * transform + weighted_sum"
            },
            "equation 2 first",
        ),
        Mutant("no scores", {"scores = channels * positions": "scores = 0"}, "are not counted"),
        Mutant(
            "no sum", {"weighted_sum = channels * positions": "weighted_sum = 0"}, "are not counted"
        ),
        Mutant(
            "W_v alone",
            {
                "scores = channels * positions": "scores = 0",
                "weighted_sum = channels * positions": "weighted_sum = 0",
            },
            "neither the scores nor the weighted sum",
        ),
        Mutant(
            "two for each",
            {_COUNT: _COUNT.replace("return ", "return 2 * (").replace(", ", "), 2 * (") + ")"},
            "counts 1, not 2",
        ),
        Mutant(
            "W_v at all positions in both",
            {"scores + transform": "scores + positions * transform"},
            "equation 3 applies W_v to one vector",
        ),
        Mutant(
            "W_v once in both",
            {"positions * transform": "transform"},
            "equation 2 applies W_v at every position",
        ),
        Mutant("C weights", {"channels * channels": "channels"}, "C·C weights, not C"),
        Mutant(
            "W_v not counted", {"transform = channels * channels": "transform = 0"}, "W_v is not"
        ),
        Mutant(
            "equation 3 is C·C alone",
            {"scores + transform + weighted_sum": "transform"},
            "still has to compute",
        ),
        Mutant(
            "channels and positions",
            {
                "channels * channels": "positions * positions",
                "positions * transform": "channels * transform",
            },
            "channels and positions are swapped",
        ),
        Mutant(
            "all pairs",
            {"channels * positions": "channels * positions * positions"},
            "products of all pairs",
        ),
        Mutant(
            "counts the softmax",
            {"scores = channels * positions": "scores = channels * positions + positions"},
            "only products count",
        ),
        Mutant(
            "counts the bias",
            {"channels * channels": "channels * (channels + 1)"},
            "a bias is an addition",
        ),
        Mutant(
            "one number",
            {_COUNT: "return scores + positions * transform + weighted_sum"},
            "return eq2, eq3",
        ),
        Mutant("no return", {"return scores": "both = scores"}, "without a return"),
        Mutant("three numbers", {_COUNT: f"{_COUNT}, 0"}, "a comma between them"),
        Mutant(
            "average",
            {"weighted_sum = channels * positions": "weighted_sum = channels / positions"},
            "something was divided",
        ),
    ],
    "c03-e5": [
        Mutant("no residual", {"return x + context": "return 0 * x + context"}, "is forgotten"),
        Mutant(
            "doubled residual", {"return x + context": "return 2 * x + context"}, "counted twice"
        ),
        Mutant(
            "subtracts the input", {"return x + context": "return -x + context"}, "is subtracted"
        ),
        Mutant(
            "subtracts the context",
            {"return x + context": "return x - context"},
            "the context is sub",
        ),
        Mutant(
            "key zero as well",
            {_ZERO_BIAS: f"{_ZERO_BIAS}        nn.init.zeros_(self.key.weight)\n"},
            "only W_v starts at zero",
        ),
        Mutant("softmax twice", _attend("self.key(flat).softmax(2).softmax(2)"), "a second time"),
        Mutant("squared", _attend("self.key(flat).softmax(2).square()"), "are squared"),
        Mutant(
            "largest term", {_POOL5: "pooled = (weights * flat).amax(dim=2)"}, "the largest term"
        ),
        Mutant("weight not zero", {_ZERO_WEIGHT: ""}, "the last layer does not start at zero"),
        Mutant("bias not zero", {_ZERO_BIAS: ""}, "set its weight and its bias to zero"),
        Mutant(
            "multiplies",
            {_RETURN5: f"return x + x * {_ADDED5}"},
            "the context times the input is added",
        ),
        Mutant(
            "multiplies alone",
            {_RETURN5: f"return x * (1 + {_ADDED5})"},
            "add the context itself",
        ),
        Mutant("no softmax", _attend("self.key(flat)"), "the softmax is missing"),
        Mutant("exp only", _attend("self.key(flat).exp()"), "not divided by their sum"),
        Mutant("over one number", _attend("self.key(flat).softmax(dim=1)"), "every weight is 1"),
        Mutant("uniform", _attend("(0 * self.key(flat)).softmax(dim=2)"), "the plain mean"),
        Mutant("sigmoid", _attend("self.key(flat).sigmoid()"), "this is the sigmoid"),
        Mutant("mean in place of sum", {".sum(dim=2)": ".mean(dim=2)"}, "number of positions"),
        Mutant(
            "scaled",
            _attend("(self.key(flat) / flat.shape[1] ** 0.5).softmax(dim=2)"),
            "divided by √C",
        ),
        Mutant(
            "over examples", _attend("self.key(flat).softmax(dim=0)"), "ran over an axis of size 1"
        ),
        Mutant(
            "W_v not used",
            {_CONTEXT5: "context = pooled + 0 * self.value(pooled)"},
            "something else changes the input",
        ),
        Mutant(
            "a context for each position",
            {
                _POOL5: "pooled = (weights * flat).mT",
                _RETURN5: "return x + context.mT.reshape(x.shape)",
            },
            "every position keeps its own value",
        ),
        Mutant(
            "each row by itself",
            {
                _ATTEND5: "scores = self.key(flat).reshape(len(x), 1, *x.shape[2:])\n"
                "        weights = scores.softmax(dim=-1).flatten(2)"
            },
            "flatten all position axes first",
        ),
        Mutant(
            "a context for each row",
            {
                _ATTEND5: "scores = self.key(flat).reshape(len(x), 1, *x.shape[2:])",
                _POOL5: "pooled = (scores.softmax(-1) * x).sum(-1).movedim(1, -1)",
                _RETURN5: "return x + context.movedim(-1, 1)[..., None]",
            },
            "a context of its own",
        ),
        Mutant(
            "relu", {_CONTEXT5: "context = self.value(pooled).relu()"}, "a ReLU stands behind W_v"
        ),
        Mutant(
            "relu behind the sum", {_RETURN5: f"return (x + {_ADDED5}).relu()"}, "a ReLU stands"
        ),
        Mutant(
            "in place",
            {_RETURN5: f"x += {_ADDED5}\n        return x"},
            "in place",
        ),
        Mutant(
            "detached weights",
            _attend("self.key(flat).softmax(dim=2).detach()"),
            "none for key",
        ),
        Mutant(
            "no grad",
            {_CONTEXT5: "with torch.no_grad():\n            context = self.value(pooled)"},
            "none for key, value, the bias of value",
        ),
        Mutant("mixes examples", {_CONTEXT5: "context = self.value(pooled).flip(0)"}, "mixed"),
        Mutant(
            "other in evaluation",
            {_RETURN5: f"if not self.training:\n            return x\n        {_RETURN5}"},
            "asks for self.training",
        ),
        Mutant(
            "short cut while value is zero",
            {
                _CONTEXT5: f"if not self.value.weight.any():\n            return x\n        {_CONTEXT5}"
            },
            "the branch is skipped",
        ),
        Mutant(
            "frozen",
            {_ZERO_BIAS: f"{_ZERO_BIAS}        self.value.requires_grad_(False)\n"},
            "requires_grad is off",
        ),
        Mutant(
            "exp without care",
            {
                _ATTEND5: "weights = self.key(flat).exp()\n"
                "        weights = weights / weights.sum(dim=2, keepdim=True)"
            },
            "exp overflows",
        ),
        Mutant(
            "query as well",
            {_ZERO_BIAS: f"{_ZERO_BIAS}        self.query = nn.Conv1d(in_channels, 1, 1)\n"},
            "layers that the formula does not have",
        ),
        Mutant(
            "key to C numbers",
            {"nn.Conv1d(in_channels, 1, kernel_size=1)": "nn.Conv1d(in_channels, in_channels, 1)"},
            "a layer is missing",
        ),
        Mutant(
            "layers in a list",
            {
                "self.value = ": "self.layers = [nn.Linear(in_channels, in_channels)]\n        value = ",
                "self.value.": "value.",
                "self.value(": "self.layers[0](",
            },
            "hides it",
        ),
        Mutant("fixed dtype", {_RETURN5: f"x = x.double()\n        {_RETURN5}"}, "fixed dtype"),
        Mutant("images only", {"*[1] * self.ndim": "1, 1"}, "ndim=1"),
        Mutant("other default", {"ndim=2": "ndim=1"}, "the default is ndim=2"),
        Mutant("bias not used", {_CONTEXT5: "context = pooled @ self.value.weight.T"}, "none for"),
        Mutant(
            "layers in a default argument",
            {
                "ndim=2):": "ndim=2, layers=nn.ModuleDict()):",
                "self.value = ": 'self.value = layers["v"] = layers["v"] if "v" in layers else ',
            },
            "layers live outside of __init__",
        ),
        Mutant(
            "three channels",
            {"(in_channels, 1, kernel_size=1)": "(3, 1, kernel_size=1)"},
            "layers",
            hidden=True,
        ),
    ],
    "c03-e6": [
        Mutant("no half", {_RETURN6: "return 1 - mean.square().sum(dim=1)"}, "factor ½ is missing"),
        Mutant("two halves", {" / 2": " / 4"}, "divided by 2 twice"),
        Mutant("cosine", {_RETURN6: "return mean.square().sum(dim=1)"}, "this is the cosine"),
        Mutant("plus", {"1 - mean": "1 + mean"}, "is a similarity"),
        Mutant("no lengths", {_UNITS: "units = rows"}, "not divided by their lengths"),
        Mutant("divided by sums", {"rows.norm(dim=2": "rows.sum(dim=2"}, "by their sum"),
        Mutant("half inside", {_RETURN6: "return 1 - mean.square().sum(dim=1) / 2"}, "then halve"),
        Mutant("absolute sum", {"rows.norm(dim=2": "rows.abs().sum(dim=2"}, "divided by their sum"),
        Mutant("not squared", {"mean.square().sum(dim=1)": "mean.norm(dim=1)"}, "is not squared"),
        Mutant("sum of units", {"units.mean(dim=1)": "units.sum(dim=1)"}, "positions is a sum"),
        Mutant("mean of squares", {".sum(dim=1)": ".mean(dim=1)"}, "not the squared length"),
        Mutant("columns' lengths", {"norm(dim=2": "norm(dim=1"}, "each row has to be"),
        Mutant(
            "columns",
            {"norm(dim=2": "norm(dim=1", "units.mean(dim=1)": "units.mean(dim=2)"},
            "columns",
        ),
        Mutant("whole batch", {_RETURN6: f"{_RETURN6[:-4]}.mean() / 2"}, "examples were averaged"),
        Mutant(
            "without itself",
            {_RETURN6: f"{_RETURN6} * len(units[0]) / (len(units[0]) - 1 + (len(units[0]) == 1))"},
            "with distance 0",
        ),
        Mutant(
            "all pairs",
            {_MEAN: "", _RETURN6: "return (1 - (units @ units.mT).mean((1, 2))) / 2"},
            "a table of all pairs",
        ),
        Mutant(
            "pairs, one row at a time",
            {
                _MEAN: "",
                _RETURN6: "rows = [(1 - (units * units[:, i : i + 1]).sum(2)).mean(1) / 2 "
                "for i in range(units.shape[1])]\n    return torch.stack(rows).mean(0)",
            },
            "a table of all pairs",
        ),
        Mutant(
            "first row only",
            {_RETURN6: "return (1 - (units * units[:, :1]).sum(2)).mean(1) / 2"},
            "with the first one alone",
        ),
        Mutant(
            "not averaged",
            {_RETURN6: "return (1 - (units * units.mean(1, keepdim=True)).sum(2)) / 2"},
            "both rows of a pair",
        ),
        Mutant(
            "keeps an axis",
            {_RETURN6: "return (1 - mean.square().sum(dim=1, keepdim=True)) / 2"},
            "one axis too many",
        ),
        Mutant("detached lengths", {_UNITS: f"{_UNITS}.detach()"}, "cut off", hidden=True),
        Mutant(
            "item", {_RETURN6: f"result = {_RETURN6[7:]}\n    return result.detach()"}, "cut off"
        ),
        Mutant("fixed dtype", {_RETURN6: f"return ({_RETURN6[7:]}).double()"}, "fixed dtype"),
        Mutant(
            "in place",
            {
                _CHOSEN: "attention /= attention.norm(dim=2, keepdim=True)\n    rows = attention[:, chosen]"
            },
            "in place",
        ),
        Mutant("all queries", {_CHOSEN: "rows = attention"}, "those of the chosen queries alone"),
        Mutant(
            "first ones", {_CHOSEN: "rows = attention[:, :len(chosen)]"}, "the first rows are taken"
        ),
        Mutant("chosen keys", {_CHOSEN: "rows = attention[:, :, chosen]"}, "out of bounds"),
        Mutant("chosen examples", {_CHOSEN: "rows = attention[chosen]"}, "out of bounds"),
        Mutant(
            "others as zeros",
            {
                _CHOSEN: "rows = attention.new_full(attention.shape, 1e-30)\n    rows[:, chosen] = attention[:, chosen]"
            },
            "expected",
        ),
        Mutant(
            "small number added",
            {"keepdim=True)": "keepdim=True).add(1e-4)"},
            "expected",
        ),
    ],
}

_E5 = """
class SimplifiedNonLocalBlock(nn.Module):
    def __init__(self, in_channels, ndim=2):
        super().__init__()
        {init}

    def forward(self, x):
        {forward}
"""


def _block(init: str, forward: str) -> str:
    return _E5.format(
        init=init.replace("\n", "\n        "), forward=forward.replace("\n", "\n        ")
    )


VARIANTS = {
    "c03-e1": {
        "matmul": "def shared_attention(x, key_weight):\n"
        "    return torch.softmax(key_weight @ x, dim=-1)\n",
        "broadcast": "def shared_attention(x, key_weight):\n"
        "    return (x * key_weight.view(1, -1, 1)).sum(1).softmax(1)\n",
        "positions first": "def shared_attention(x, key_weight):\n"
        "    return F.softmax(x.transpose(1, 2) @ key_weight, dim=1)\n",
        "by hand": "def shared_attention(x, key_weight):\n"
        "    s = torch.tensordot(x, key_weight, dims=([1], [0]))\n"
        "    e = (s - s.amax(1, keepdim=True)).exp()\n"
        "    return e / e.sum(1, keepdim=True)\n",
        "convolution": "def shared_attention(x, key_weight):\n"
        "    return F.conv1d(x, key_weight[None, :, None])[:, 0].softmax(-1)\n",
    },
    "c03-e2": {
        "linear, bmm": "def context_eq2(x, key_weight, value_weight):\n"
        "    a = shared_attention(x, key_weight)[:, None]\n"
        "    return torch.bmm(a, F.linear(x.mT, value_weight))[:, 0]\n",
        "convolution": "def context_eq2(x, key_weight, value_weight):\n"
        "    v = F.conv1d(x, value_weight[:, :, None])\n"
        "    return (v * shared_attention(x, key_weight)[:, None]).sum(-1)\n",
        "einsum twice": "def context_eq2(x, key_weight, value_weight):\n"
        '    v = torch.einsum("dc,ncl->nld", value_weight, x)\n'
        '    return torch.einsum("nl,nld->nd", shared_attention(x, key_weight), v)\n',
        "loop": "def context_eq2(x, key_weight, value_weight):\n"
        "    a = shared_attention(x, key_weight)\n"
        "    parts = [a[:, j, None] * (x[:, :, j] @ value_weight.T) for j in range(x.shape[2])]\n"
        "    return torch.stack(parts).sum(0)\n",
        "own softmax": "def context_eq2(x, key_weight, value_weight):\n"
        "    a = (key_weight @ x).softmax(-1)\n"
        "    return ((value_weight @ x) @ a.unsqueeze(-1)).squeeze(-1)\n",
    },
    "c03-e3": {
        "linear, bmm": "def context_eq3(x, key_weight, value_weight):\n"
        "    a = shared_attention(x, key_weight)[:, None]\n"
        "    return F.linear(torch.bmm(a, x.mT)[:, 0], value_weight)\n",
        "broadcast": "def context_eq3(x, key_weight, value_weight):\n"
        "    pooled = (x * shared_attention(x, key_weight)[:, None]).sum(-1)\n"
        "    return pooled @ value_weight.mT\n",
        "matmul from the left": "def context_eq3(x, key_weight, value_weight):\n"
        "    a = shared_attention(x, key_weight)[:, :, None]\n"
        "    return (value_weight @ (x @ a)).squeeze(2)\n",
        "einsum twice": "def context_eq3(x, key_weight, value_weight):\n"
        '    p = torch.einsum("nl,ncl->cn", shared_attention(x, key_weight), x)\n'
        '    return torch.einsum("dc,cn->nd", value_weight, p)\n',
        "einsum of three": "def context_eq3(x, key_weight, value_weight):\n"
        "    a = shared_attention(x, key_weight)\n"
        '    return torch.einsum("nl,ncl,dc->nd", a, x, value_weight)\n',
    },
    "c03-e4": {
        "factored": "def multiply_adds(channels, positions):\n"
        "    return channels * positions * (channels + 2), channels * (channels + 2 * positions)\n",
        "list": "def multiply_adds(channels, positions):\n"
        "    both = 2 * channels * positions\n"
        "    return [both + w * channels**2 for w in (positions, 1)]\n",
        "floats": "def multiply_adds(channels, positions):\n"
        "    c, l = float(channels), float(positions)\n"
        "    return l * c + l * c**2 + l * c, l * c + l * c + c**2\n",
        "by difference": "def multiply_adds(channels, positions):\n"
        "    eq3 = 2 * positions * channels + channels * channels\n"
        "    return eq3 + (positions - 1) * channels * channels, eq3\n",
    },
    "c03-e5": {
        "convolutions": _block(
            "conv = getattr(nn, f'Conv{ndim}d')\n"
            "self.key = conv(in_channels, 1, 1)\n"
            "self.value = conv(in_channels, in_channels, 1)\n"
            "nn.init.zeros_(self.value.weight), nn.init.zeros_(self.value.bias)",
            "a = self.key(x).flatten(2).softmax(-1)\n"
            "y = torch.bmm(x.flatten(2), a.mT)\n"
            "return x + self.value(y.reshape(*x.shape[:2], *[1] * (x.dim() - 2)))",
        ),
        "linear on tokens, no biases": _block(
            "self.to_v = nn.Linear(in_channels, in_channels, bias=False)\n"
            "self.to_k = nn.Linear(in_channels, 1, bias=False)\n"
            "nn.init.constant_(self.to_v.weight, 0.0)",
            "t = x.flatten(2).mT\n"
            "y = self.to_v((self.to_k(t).softmax(1) * t).sum(1))\n"
            "return (t + y[:, None]).mT.reshape(x.shape)",
        ),
        "bare parameters": _block(
            "self.w_k = nn.Parameter(torch.randn(in_channels))\n"
            "self.w_v = nn.Parameter(torch.zeros(in_channels, in_channels))\n"
            "self.b_v = nn.Parameter(torch.zeros(in_channels))",
            'a = torch.einsum("ncl,c->nl", x.flatten(2), self.w_k).softmax(-1)\n'
            'y = torch.einsum("nl,ncl->nc", a, x.flatten(2)) @ self.w_v + self.b_v\n'
            "return x + y.view(len(x), -1, *(1 for _ in x.shape[2:]))",
        ),
        "equation 2 inside, no names to go by": _block(
            "self.last = nn.Linear(in_channels, in_channels)\n"
            "self.first = nn.Linear(in_channels, 1)\n"
            "for p in self.last.parameters():\n    nn.init.zeros_(p)",
            "t = x.flatten(2).mT\n"
            "y = (self.first(t).softmax(1) * self.last(t)).sum(1)\n"
            "while y.dim() < x.dim():\n    y = y[..., None]\n"
            "return x + y",
        ),
        "exercise 3 inside": _block(
            "self.key = nn.Parameter(0.1 * torch.randn(1, in_channels))\n"
            "self.value = nn.Parameter(torch.zeros(in_channels, in_channels))\n"
            "self.ndim = ndim",
            "y = context_eq3(x.flatten(2), self.key[0], self.value)\n"
            "return x + y[(..., *[None] * self.ndim)]",
        ),
    },
    "c03-e6": {
        "normalize": "def query_dependence(attention, chosen):\n"
        "    attention = attention[:, chosen]\n"
        "    u = F.normalize(attention, dim=-1).mean(-2)\n"
        "    return 0.5 - 0.5 * (u * u).sum(-1)\n",
        "spread": "def query_dependence(attention, chosen):\n"
        "    attention = attention[:, chosen]\n"
        "    u = attention / attention.square().sum(-1, keepdim=True).sqrt()\n"
        "    return (u - u.mean(1, keepdim=True)).square().sum(2).mean(1) / 2\n",
        "norm squared": "def query_dependence(attention, chosen):\n"
        "    attention = attention[:, chosen]\n"
        "    u = attention / torch.linalg.vector_norm(attention, dim=2, keepdim=True)\n"
        "    return (1 - (u.sum(1) / u.shape[1]).norm(dim=1) ** 2) / 2\n",
        "selected": "def query_dependence(attention, chosen):\n"
        "    rows = attention.index_select(1, torch.tensor(chosen))\n"
        "    u = F.normalize(rows, dim=2)\n"
        "    return (1 - u.mean(1).pow(2).sum(1)) / 2\n",
        "einsum": "def query_dependence(attention, chosen):\n"
        "    attention = attention[:, chosen]\n"
        "    u = attention / attention.norm(dim=2)[:, :, None]\n"
        "    s = u.sum(1)\n"
        '    return (1 - torch.einsum("nm,nm->n", s, s) / len(u[0]) ** 2) / 2\n',
    },
}


# Whole answers, as they were handed in on trial: name, text, words of the message.
_MORE = {
    "c03-e1": [
        Mutant(
            "squeeze all",
            {
                "": (
                    "def shared_attention(x, key_weight):\n"
                    "    return torch.matmul(x.permute(0,2,1),key_weight[:,None]).squeeze().softmax(-1)\n"
                )
            },
            "a single example gives another shape: squeeze() drops axis",
        ),
        Mutant(
            "softmax x",
            {
                "": (
                    "def shared_attention(x, key_weight):\n"
                    "    return torch.einsum('ncl,c->nl',x.softmax(2),key_weight)\n"
                )
            },
            "softmax comes behind W_k, not before it",
        ),
        Mutant(
            "linear normalised",
            {
                "": (
                    "def shared_attention(x, key_weight):\n"
                    "    s = key_weight @ x\n"
                    "    return s/s.sum(1,keepdim=True)\n"
                )
            },
            "divided by the sum of the scores: softmax divides their",
        ),
        Mutant(
            "base2",
            {
                "": (
                    "def shared_attention(x, key_weight):\n"
                    "    s = key_weight @ x\n"
                    "    return (2**s)/(2**s).sum(1,keepdim=True)\n"
                )
            },
            "the softmax has powers of e, not of 2",
        ),
        Mutant(
            "abs",
            {
                "": (
                    "def shared_attention(x, key_weight):\n"
                    "    s = key_weight @ x\n"
                    "    return s.abs().softmax(1)\n"
                )
            },
            "the scores lost their sign",
        ),
        Mutant(
            "relu",
            {
                "": (
                    "def shared_attention(x, key_weight):\n"
                    "    s = key_weight @ x\n"
                    "    return s.relu().softmax(1)\n"
                )
            },
            "the scores lost their sign",
        ),
        Mutant(
            "key softmax",
            {
                "": (
                    "def shared_attention(x, key_weight):\n"
                    "    return (key_weight.softmax(0)@x).softmax(1)\n"
                )
            },
            "softmax belongs to the scores, not to W_k",
        ),
        Mutant(
            "x normalised",
            {
                "": (
                    "def shared_attention(x, key_weight):\n"
                    "    return (key_weight@F.normalize(x,dim=1)).softmax(1)\n"
                )
            },
            "x is divided by its lengths: W_k x_j is the plain product",
        ),
        Mutant(
            "times sqrt C",
            {
                "": (
                    "def shared_attention(x, key_weight):\n"
                    "    s = key_weight @ x\n"
                    "    return (s*x.shape[1]**.5).softmax(1)\n"
                )
            },
            "the scores are multiplied or divided before the softmax:",
        ),
        Mutant(
            "weights times L",
            {
                "": (
                    "def shared_attention(x, key_weight):\n"
                    "    s = key_weight @ x\n"
                    "    return s.softmax(1)*s.shape[1]\n"
                )
            },
            "the weights are multiplied by a number: each row sums to 1",
        ),
        Mutant(
            "hardmax",
            {
                "": (
                    "def shared_attention(x, key_weight):\n"
                    "    s = key_weight @ x\n"
                    "    return F.one_hot(s.argmax(1),s.shape[1]).to(x)\n"
                )
            },
            "only the position with the largest score is taken",
        ),
    ],
    "c03-e2": [
        Mutant(
            "transposed reshape",
            {
                "": (
                    "def context_eq2(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    v=x.mT@value_weight.reshape(value_weight.shape[1],-1)\n"
                    "    return (v*a[...,None]).sum(1)\n"
                )
            },
            "W_v is reshaped: its transpose is value_weight.T",
        ),
        Mutant(
            "W twice",
            {
                "": (
                    "def context_eq2(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    v=value_weight@x\n"
                    "    return (v*a[:,None]).sum(2)*2\n"
                )
            },
            "the result is multiplied by a number",
        ),
        Mutant(
            "softmax values",
            {
                "": (
                    "def context_eq2(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    v=(value_weight@x).softmax(2)\n"
                    "    return (v*a[:,None]).sum(2)\n"
                )
            },
            "softmax of the values: it belongs to the scores W_k x_j",
        ),
        Mutant(
            "weights over channels",
            {
                "": (
                    "def context_eq2(x, key_weight, value_weight):\n"
                    "    v=value_weight@x\n"
                    "    a=v.softmax(1)\n"
                    "    return (v*a).sum(2)\n"
                )
            },
            "the weights come from W_v x_j: they come from W_k x_j",
        ),
        Mutant(
            "max pool",
            {
                "": (
                    "def context_eq2(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    v=(value_weight@x)*a[:,None]\n"
                    "    return v.amax(2)\n"
                )
            },
            "the largest over the positions, not the sum",
        ),
        Mutant(
            "scores as weights norm",
            {
                "": (
                    "def context_eq2(x, key_weight, value_weight):\n"
                    "    s=key_weight@x\n"
                    "    a=s/s.sum(1,keepdim=True)\n"
                    "    return ((value_weight@x)@a[:,:,None]).squeeze(2)\n"
                )
            },
            "divided by the sum of the scores: softmax divides their",
        ),
        Mutant(
            "scaled result",
            {
                "": (
                    "def context_eq2(x, key_weight, value_weight):\n"
                    "    a=((key_weight@x)/x.shape[1]**.5).softmax(1)\n"
                    "    return ((value_weight@x)@a[:,:,None]).squeeze(2)\n"
                )
            },
            "divided by √C: equation 2 has no scale",
        ),
        Mutant(
            "squeeze",
            {
                "": (
                    "def context_eq2(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    return ((value_weight@x)@a[:,:,None]).squeeze()\n"
                )
            },
            "axis 0, the examples, is gone",
        ),
        Mutant(
            "detach W",
            {
                "": (
                    "def context_eq2(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    return ((value_weight.detach()@x)@a[:,:,None]).squeeze(2)\n"
                )
            },
            "the result is cut off from the graph (detach, data, item,",
        ),
    ],
    "c03-e3": [
        Mutant(
            "calls eq2",
            {
                "": (
                    "def context_eq3(x, key_weight, value_weight):\n"
                    "    return context_eq2(x,key_weight,value_weight)\n"
                )
            },
            "W_v is applied to every position: take the weighted sum of",
        ),
        Mutant(
            "reshape W",
            {
                "": (
                    "def context_eq3(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    p=(x*a[:,None]).sum(2)\n"
                    "    return p@value_weight.reshape(value_weight.shape[1],-1)\n"
                )
            },
            "W_v is reshaped: its transpose is value_weight.T",
        ),
        Mutant(
            "by outputs",
            {
                "": (
                    "def context_eq3(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    return torch.stack([((w@x)*a).sum(1) for w in value_weight],1)\n"
                )
            },
            "the positions are transformed one after the other: W_v",
        ),
        Mutant(
            "weights pooled",
            {
                "": (
                    "def context_eq3(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    p=(x*a[:,None]).sum(2)\n"
                    "    return p.softmax(1)@value_weight.T\n"
                )
            },
            "softmax behind the weighted sum: it belongs to the scores",
        ),
        Mutant(
            "relu pooled",
            {
                "": (
                    "def context_eq3(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    p=(x*a[:,None]).sum(2).relu()\n"
                    "    return p@value_weight.T\n"
                )
            },
            "a ReLU stands before W_v",
        ),
        Mutant(
            "chunks eq2",
            {
                "": (
                    "def context_eq3(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    t=0\n"
                    "    for e,w in zip(x.split(100,2),a.split(100,1)):\n"
                    "        t=t+((value_weight@e)*w[:,None]).sum(2)\n"
                    "    return t\n"
                )
            },
            "the positions are transformed one after the other: W_v",
        ),
        Mutant(
            "squeeze",
            {
                "": (
                    "def context_eq3(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    return (value_weight@(x@a[:,:,None])).squeeze()\n"
                )
            },
            "axis 0, the examples, is gone",
        ),
        Mutant(
            "detach x in sum",
            {
                "": (
                    "def context_eq3(x, key_weight, value_weight):\n"
                    "    a = shared_attention(x, key_weight)\n"
                    "    p=(x.detach()*a[:,None]).sum(2)\n"
                    "    return p@value_weight.T\n"
                )
            },
            "a part of the formula is cut off from the graph (detach,",
            hidden=True,
        ),
    ],
    "c03-e4": [
        Mutant(
            "tensor",
            {
                "": (
                    "def multiply_adds(channels, positions):\n"
                    "    c,l=torch.tensor(channels),torch.tensor(positions)\n"
                    "    return 2*c*l+l*c*c, 2*c*l+c*c\n"
                )
            },
            "count with plain Python numbers, without tensors, text or",
        ),
        Mutant(
            "strs",
            {
                "": (
                    "def multiply_adds(channels, positions):\n"
                    "    c,l=channels,positions\n"
                    "    return str(2*c*l+l*c*c), str(2*c*l+c*c)\n"
                )
            },
            "count with plain Python numbers, without tensors, text or",
        ),
        Mutant(
            "scores only L",
            {
                "": (
                    "def multiply_adds(channels, positions):\n"
                    "    c,l=channels,positions\n"
                    "    return l+l*c*c+c*l, l+c*c+c*l\n"
                )
            },
            "one number for each position is not enough: each score",
        ),
        Mutant(
            "sum only C",
            {
                "": (
                    "def multiply_adds(channels, positions):\n"
                    "    c,l=channels,positions\n"
                    "    return c*l+l*c*c+c, c*l+c*c+c\n"
                )
            },
            "one number for each position is not enough: each score",
        ),
        Mutant(
            "Wz too",
            {
                "": (
                    "def multiply_adds(channels, positions):\n"
                    "    c,l=channels,positions\n"
                    "    return 2*c*l+2*l*c*c, 2*c*l+2*c*c\n"
                )
            },
            "there is one W_v and no W_z: equation 2 dropped it",
        ),
        Mutant(
            "query too",
            {
                "": (
                    "def multiply_adds(channels, positions):\n"
                    "    c,l=channels,positions\n"
                    "    return 3*c*l+l*c*c, 3*c*l+c*c\n"
                )
            },
            "softmax, additions and the residual are free, and there is",
        ),
        Mutant(
            "minus adds",
            {
                "": (
                    "def multiply_adds(channels, positions):\n"
                    "    c,l=channels,positions\n"
                    "    return 2*c*l+l*c*c-c, 2*c*l+c*c-c\n"
                )
            },
            "the additions are counted again: a multiply-add is a",
        ),
        Mutant(
            "eq3 scores once",
            {
                "": (
                    "def multiply_adds(channels, positions):\n"
                    "    c,l=channels,positions\n"
                    "    return 2*c*l+l*c*c, c+c*l+c*c\n"
                )
            },
            "equation 3 computes a score at every position, too",
        ),
        Mutant(
            "list of lists",
            {
                "": (
                    "def multiply_adds(channels, positions):\n"
                    "    c,l=channels,positions\n"
                    "    return [c*l,l*c*c,c*l],[c*l,c*c,c*l]\n"
                )
            },
            "count with plain Python numbers, without tensors, text or",
        ),
    ],
    "c03-e5": [
        Mutant(
            "key zero",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "        nn.init.zeros_(self.key.weight)\n"
                    "        nn.init.zeros_(self.key.bias)\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        f=x.flatten(2)\n"
                    "        w=self.key(f).softmax(2)\n"
                    "        p=(w*f).sum(2)\n"
                    "        c=self.value(p)\n"
                    "        return x+c.reshape(*c.shape,*[1]*self.ndim)\n"
                )
            },
            "only W_v starts at zero: leave the key as PyTorch makes it",
        ),
        Mutant(
            "all zero init",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "        for p in self.parameters():\n"
                    "            nn.init.zeros_(p)\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        f=x.flatten(2)\n"
                    "        w=self.key(f).softmax(2)\n"
                    "        p=(w*f).sum(2)\n"
                    "        c=self.value(p)\n"
                    "        return x+c.reshape(*c.shape,*[1]*self.ndim)\n"
                )
            },
            "only W_v starts at zero: leave the key as PyTorch makes it",
        ),
        Mutant(
            "layer norm",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        f=x.flatten(2)\n"
                    "        w=self.key(f).softmax(2)\n"
                    "        p=(w*f).sum(2)\n"
                    "        c=F.layer_norm(self.value(p),p.shape[1:])\n"
                    "        return x+c.reshape(*c.shape,*[1]*self.ndim)\n"
                )
            },
            "a norm stands behind W_v: equation 3 has none",
        ),
        Mutant(
            "layer norm pooled",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        f=x.flatten(2)\n"
                    "        w=self.key(f).softmax(2)\n"
                    "        p=(w*f).sum(2)\n"
                    "        c=self.value(F.layer_norm(p,p.shape[1:]))\n"
                    "        return x+c.reshape(*c.shape,*[1]*self.ndim)\n"
                )
            },
            "a norm stands before W_v: equation 3 has none",
        ),
        Mutant(
            "dropout",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        f=x.flatten(2)\n"
                    "        w=self.key(f).softmax(2)\n"
                    "        p=(w*f).sum(2)\n"
                    "        c=F.dropout(self.value(p),0.1,self.training)\n"
                    "        return x+c.reshape(*c.shape,*[1]*self.ndim)\n"
                )
            },
            "is there a step that the table does not have: a norm, an",
        ),
        Mutant(
            "cached map",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "        self.m=None\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        f=x.flatten(2)\n"
                    "        if self.m is None or self.m.shape[-1]!=f.shape[-1] or len(self.m)!=len(f):\n"
                    "            self.m=self.key(f).softmax(2).detach()\n"
                    "        p=(self.m*f).sum(2)\n"
                    "        c=self.value(p)\n"
                    "        return x+c.reshape(*c.shape,*[1]*self.ndim)\n"
                )
            },
            "positions and channels are mixed when the map is folded or",
        ),
        Mutant(
            "gamma float",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        f=x.flatten(2)\n"
                    "        w=self.key(f).softmax(2)\n"
                    "        p=(w*f).sum(2)\n"
                    "        c=self.value(p)\n"
                    "        return x+0.1*c.reshape(*c.shape,*[1]*self.ndim)\n"
                )
            },
            "is there a step that the table does not have: a norm, an",
        ),
        Mutant(
            "key softmax input",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        f=x.flatten(2)\n"
                    "        w=self.key(f.softmax(2))\n"
                    "        p=(w*f).sum(2)\n"
                    "        c=self.value(p)\n"
                    "        return x+c.reshape(*c.shape,*[1]*self.ndim)\n"
                )
            },
            "the weights do not sum to 1: the softmax comes behind W_k,",
        ),
        Mutant(
            "tanh",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        f=x.flatten(2)\n"
                    "        w=self.key(f).softmax(2)\n"
                    "        p=(w*f).sum(2)\n"
                    "        c=self.value(p).tanh()\n"
                    "        return x+c.reshape(*c.shape,*[1]*self.ndim)\n"
                )
            },
            "tanh or sigmoid stands behind W_v",
        ),
        Mutant(
            "scale L",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        f=x.flatten(2)\n"
                    "        w=self.key(f).softmax(2)\n"
                    "        p=(w*f).sum(2)*f.shape[2]\n"
                    "        c=self.value(p)\n"
                    "        return x+c.reshape(*c.shape,*[1]*self.ndim)\n"
                )
            },
            "multiplied with the number of positions",
        ),
        Mutant(
            "view T",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        n,c=x.shape[:2]\n"
                    "        t=x.reshape(n,-1,c)\n"
                    "        w=torch.softmax(t@self.key.weight[0,:,0]+self.key.bias,1)\n"
                    "        p=(w[...,None]*t).sum(1)\n"
                    "        v=self.value(p)\n"
                    "        return x+v.reshape(*v.shape,*[1]*self.ndim)\n"
                )
            },
            "positions and channels are mixed: flatten to (N, C, L), and",
        ),
        Mutant(
            "pooled residual",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        f=x.flatten(2)\n"
                    "        w=self.key(f).softmax(2)\n"
                    "        p=(w*f).sum(2)\n"
                    "        c=self.value(p)+p\n"
                    "        return x+c.reshape(*c.shape,*[1]*self.ndim)\n"
                )
            },
            "the last layer starts at zero, so something else changes",
        ),
        Mutant(
            "detached residual",
            {
                "": (
                    "class SimplifiedNonLocalBlock(nn.Module):\n"
                    "    def __init__(self, in_channels, ndim=2):\n"
                    "        super().__init__()\n"
                    "        self.ndim=ndim\n"
                    "        self.key=nn.Conv1d(in_channels,1,1)\n"
                    "        self.value=nn.Linear(in_channels,in_channels)\n"
                    "        nn.init.zeros_(self.value.weight)\n"
                    "        nn.init.zeros_(self.value.bias)\n"
                    "\n"
                    "    def forward(self, x):\n"
                    "        f=x.flatten(2)\n"
                    "        w=self.key(f).softmax(2)\n"
                    "        p=(w*f).sum(2)\n"
                    "        c=self.value(p)\n"
                    "        return x.detach()+c.reshape(*c.shape,*[1]*self.ndim)\n"
                )
            },
            "a part of the formula is cut off from the graph (detach,",
            hidden=True,
        ),
    ],
    "c03-e6": [
        Mutant(
            "L1",
            {
                "": (
                    "def query_dependence(attention, chosen):\n"
                    "    attention = attention[:, chosen]\n"
                    "    u=attention/attention.abs().sum(2,keepdim=True)\n"
                    "    return (1-u.mean(1).square().sum(1))/2\n"
                )
            },
            "the rows are divided by their sum, not by their length",
        ),
        Mutant(
            "float32",
            {
                "": (
                    "def query_dependence(attention, chosen):\n"
                    "    attention = attention[:, chosen]\n"
                    "    u=F.normalize(attention.float(),dim=2)\n"
                    "    return ((1-u.mean(1).square().sum(1))/2).to(attention.dtype)\n"
                )
            },
            "a small number is added to the lengths (no row is zero:",
        ),
        Mutant(
            "eps",
            {
                "": (
                    "def query_dependence(attention, chosen):\n"
                    "    attention = attention[:, chosen]\n"
                    "    u=attention/(attention.norm(dim=2,keepdim=True)+1e-8)\n"
                    "    return (1-u.mean(1).square().sum(1))/2\n"
                )
            },
            "the rows are not divided by their lengths, or pairs are",
        ),
        Mutant(
            "softmax again",
            {
                "": (
                    "def query_dependence(attention, chosen):\n"
                    "    attention = attention[:, chosen]\n"
                    "    u=F.normalize(attention.softmax(2),dim=2)\n"
                    "    return (1-u.mean(1).square().sum(1))/2\n"
                )
            },
            "softmax: the rows are used as they are",
        ),
        Mutant(
            "mean first",
            {
                "": (
                    "def query_dependence(attention, chosen):\n"
                    "    attention = attention[:, chosen]\n"
                    "    m=F.normalize(attention.mean(1),dim=1)\n"
                    "    return (1-m.square().sum(1))/2\n"
                )
            },
            "first the mean, then the length: first each row to length",
        ),
        Mutant(
            "std",
            {
                "": (
                    "def query_dependence(attention, chosen):\n"
                    "    attention = attention[:, chosen]\n"
                    "    u=attention/attention.norm(dim=2,keepdim=True)\n"
                    "    return u.std(1,unbiased=False).sum(1)/2\n"
                )
            },
            "this is the spread without a square: the distance is a mean",
        ),
        Mutant(
            "abs",
            {
                "": (
                    "def query_dependence(attention, chosen):\n"
                    "    attention = attention[:, chosen]\n"
                    "    u=attention/attention.norm(dim=2,keepdim=True)\n"
                    "    return (1-u.abs().mean(1).square().sum(1))/2\n"
                )
            },
            "the cosines lost their sign",
        ),
        Mutant(
            "batch mean",
            {
                "": (
                    "def query_dependence(attention, chosen):\n"
                    "    attention = attention[:, chosen]\n"
                    "    u=attention/attention.norm(dim=2,keepdim=True)\n"
                    "    return (1-u.mean((0,1)).square().sum())[None].expand(len(u))/2\n"
                )
            },
            "the mean runs over the examples, too",
        ),
        Mutant(
            "squeeze",
            {
                "": (
                    "def query_dependence(attention, chosen):\n"
                    "    attention = attention[:, chosen]\n"
                    "    u=attention/attention.norm(dim=2,keepdim=True)\n"
                    "    return ((1-u.mean(1).square().sum(1))/2).squeeze()\n"
                )
            },
            "a single example gives another shape: squeeze() drops axis",
        ),
        Mutant(
            "mean of all",
            {
                "": (
                    "def query_dependence(attention, chosen):\n"
                    "    attention = attention[:, chosen]\n"
                    "    u=attention/attention.norm(dim=2,keepdim=True)\n"
                    "    return (1-u.mean((1,2)).square())/2\n"
                )
            },
            "the mean runs over the columns, too: it is one row of M",
        ),
        Mutant(
            "center",
            {
                "": (
                    "def query_dependence(attention, chosen):\n"
                    "    attention = attention[:, chosen]\n"
                    "    a=attention-attention.mean(2,keepdim=True)\n"
                    "    u=F.normalize(a,dim=2)\n"
                    "    return (1-u.mean(1).square().sum(1))/2\n"
                )
            },
            "the mean of each row is subtracted first: the formula has",
        ),
    ],
}
for _exercise, _mutants in _MORE.items():
    MUTANTS[_exercise] += _mutants

_MORE_VARIANTS = {
    "c03-e1": {
        "linear": (
            "def shared_attention(x, key_weight):\n"
            "    return F.linear(x.mT,key_weight).softmax(-1)\n"
        ),
        "logsumexp": (
            "def shared_attention(x, key_weight):\n"
            "    s = key_weight @ x\n"
            "    return (s-s.logsumexp(1,keepdim=True)).exp()\n"
        ),
        "loops": (
            "def shared_attention(x, key_weight):\n"
            "    out=[]\n"
            "    for ex in x:\n"
            "        s=torch.stack([key_weight@ex[:,j] for j in range(ex.shape[1])])\n"
            "        out.append(F.softmax(s,dim=0))\n"
            "    return torch.stack(out)\n"
        ),
        "exp max detach": (
            "def shared_attention(x, key_weight):\n"
            "    s = key_weight @ x\n"
            "    e=torch.exp(s-s.max(1,keepdim=True).values.detach())\n"
            "    return e/e.sum(1,keepdim=True)\n"
        ),
    },
    "c03-e2": {
        "vmap": (
            "def context_eq2(x, key_weight, value_weight):\n"
            "    def one(e):\n"
            "        a=(key_weight@e).softmax(0)\n"
            "        return (value_weight@e)@a\n"
            "    return torch.vmap(one)(x)\n"
        ),
        "loops": (
            "def context_eq2(x, key_weight, value_weight):\n"
            "    a = shared_attention(x, key_weight)\n"
            "    out=[]\n"
            "    for n in range(len(x)):\n"
            "        t=0\n"
            "        for j in range(x.shape[2]):\n"
            "            t=t+a[n,j]*(value_weight@x[n,:,j])\n"
            "        out.append(t)\n"
            "    return torch.stack(out)\n"
        ),
        "rowwise": (
            "def context_eq2(x, key_weight, value_weight):\n"
            "    a = shared_attention(x, key_weight)\n"
            "    return torch.stack([((w@x)*a).sum(1) for w in value_weight],1)\n"
        ),
        "elementwise": (
            "def context_eq2(x, key_weight, value_weight):\n"
            "    a = shared_attention(x, key_weight)\n"
            "    v=(value_weight[None,:,:,None]*x[:,None]).sum(2)\n"
            "    return (v*a[:,None]).sum(2)\n"
        ),
    },
    "c03-e3": {
        "vmap": (
            "def context_eq3(x, key_weight, value_weight):\n"
            "    def one(e):\n"
            "        a=(key_weight@e).softmax(0)\n"
            "        return value_weight@(e@a)\n"
            "    return torch.vmap(one)(x)\n"
        ),
        "loops": (
            "def context_eq3(x, key_weight, value_weight):\n"
            "    a = shared_attention(x, key_weight)\n"
            "    p=0\n"
            "    for j in range(x.shape[2]):\n"
            "        p=p+a[:,j,None]*x[:,:,j]\n"
            "    return p@value_weight.t()\n"
        ),
        "conv": (
            "def context_eq3(x, key_weight, value_weight):\n"
            "    a = shared_attention(x, key_weight)\n"
            "    p=(x*a[:,None]).sum(2,keepdim=True)\n"
            "    return F.conv1d(p,value_weight[:,:,None])[:,:,0]\n"
        ),
        "multi_dot": (
            "def context_eq3(x, key_weight, value_weight):\n"
            "    a = shared_attention(x, key_weight)\n"
            "    return torch.stack([torch.linalg.multi_dot([value_weight,e,w]) for e,w in zip(x,a)])\n"
        ),
    },
    "c03-e4": {
        "numpy": (
            "def multiply_adds(channels, positions):\n"
            "    import numpy as np\n"
            "    c,l=np.int64(channels),np.int64(positions)\n"
            "    return c*l+l*c*c+c*l, c*l+c*c+c*l\n"
        ),
        "namedtuple": (
            "from collections import namedtuple\n"
            "C=namedtuple('C','eq2 eq3')\n"
            "def multiply_adds(channels, positions):\n"
            "    s=2*channels*positions\n"
            "    return C(s+positions*channels**2, s+channels**2)\n"
        ),
    },
    "c03-e5": {
        "conv1d value": (
            "class SimplifiedNonLocalBlock(nn.Module):\n"
            "    def __init__(self, in_channels, ndim=2):\n"
            "        super().__init__()\n"
            "        self.key=nn.Conv1d(in_channels,1,1,bias=False)\n"
            "        self.value=nn.Conv1d(in_channels,in_channels,1)\n"
            "        self.softmax=nn.Softmax(dim=-1)\n"
            "        self.value.weight.data.zero_()\n"
            "        self.value.bias.data.zero_()\n"
            "\n"
            "    def forward(self, x):\n"
            "        s=x.shape\n"
            "        f=x.view(s[0],s[1],-1)\n"
            "        c=torch.bmm(f,self.softmax(self.key(f)).transpose(1,2))\n"
            "        return (f+self.value(c)).view(s)\n"
        ),
        "dict of convs": (
            "class SimplifiedNonLocalBlock(nn.Module):\n"
            "    def __init__(self, in_channels, ndim=2):\n"
            "        super().__init__()\n"
            "        C={1:nn.Conv1d,2:nn.Conv2d,3:nn.Conv3d}[ndim]\n"
            "        self.key=C(in_channels,1,1)\n"
            "        self.value=C(in_channels,in_channels,1)\n"
            "        nn.init.zeros_(self.value.weight)\n"
            "        nn.init.zeros_(self.value.bias)\n"
            "\n"
            "    def forward(self, x):\n"
            "        a=self.key(x)\n"
            "        a=torch.softmax(a.flatten(1),1).view_as(a)\n"
            "        d=tuple(range(2,x.dim()))\n"
            "        return x+self.value((a*x).sum(d,keepdim=True))\n"
        ),
        "module dict": (
            "class SimplifiedNonLocalBlock(nn.Module):\n"
            "    def __init__(self, in_channels, ndim=2):\n"
            "        super().__init__()\n"
            "        self.layers=nn.ModuleDict({'key':nn.Linear(in_channels,1),'value':nn.Linear(in_channels,in_channels)})\n"
            "        for p in self.layers['value'].parameters():\n"
            "            nn.init.zeros_(p)\n"
            "\n"
            "    def forward(self, x):\n"
            "        t=x.flatten(2).mT\n"
            "        w=self.layers['key'](t).softmax(1)\n"
            "        y=self.layers['value']((w*t).sum(1))\n"
            "        return (t+y[:,None]).mT.unflatten(2,x.shape[2:])\n"
        ),
        "wrapped": (
            "class Pool(nn.Module):\n"
            "    def __init__(self,c):\n"
            "        super().__init__()\n"
            "        self.key=nn.Conv1d(c,1,1)\n"
            "    def forward(self,x):\n"
            "        f=x.flatten(2)\n"
            "        return (self.key(f).softmax(-1)*f).sum(-1)\n"
            "class SimplifiedNonLocalBlock(nn.Module):\n"
            "    def __init__(self, in_channels, ndim=2):\n"
            "        super().__init__()\n"
            "        self.pool=Pool(in_channels)\n"
            "        self.value=nn.Linear(in_channels,in_channels)\n"
            "        nn.init.zeros_(self.value.weight)\n"
            "        nn.init.zeros_(self.value.bias)\n"
            "\n"
            "    def forward(self, x):\n"
            "        y=self.value(self.pool(x))\n"
            "        return x+y.view(*y.shape,*(1,)*(x.dim()-2))\n"
        ),
        "sequential": (
            "class SimplifiedNonLocalBlock(nn.Module):\n"
            "    def __init__(self, in_channels, ndim=2):\n"
            "        super().__init__()\n"
            "        self.net=nn.Sequential(nn.Linear(in_channels,in_channels))\n"
            "        self.key=nn.Linear(in_channels,1,bias=False)\n"
            "        [nn.init.zeros_(p) for p in self.net.parameters()]\n"
            "\n"
            "    def forward(self, x):\n"
            "        t=torch.movedim(x,1,-1).flatten(1,-2)\n"
            "        p=torch.einsum('nlo,nlc->nc',self.key(t).softmax(1),t)\n"
            "        return torch.movedim(torch.movedim(x,1,-1)+self.net(p).view(len(x),*[1]*(x.dim()-2),-1),-1,1)\n"
        ),
    },
    "c03-e6": {
        "var": (
            "def query_dependence(attention, chosen):\n"
            "    attention = attention[:, chosen]\n"
            "    u=attention/attention.norm(dim=2,keepdim=True)\n"
            "    return u.var(1,unbiased=False).sum(1)/2\n"
        ),
        "vmap": (
            "def query_dependence(attention, chosen):\n"
            "    attention = attention[:, chosen]\n"
            "    def one(a):\n"
            "        m=F.normalize(a,dim=1).mean(0)\n"
            "        return (1-m@m)/2\n"
            "    return torch.vmap(one)(attention)\n"
        ),
        "loop": (
            "def query_dependence(attention, chosen):\n"
            "    attention = attention[:, chosen]\n"
            "    t=0\n"
            "    L=attention.shape[1]\n"
            "    for i in range(L):\n"
            "        t=t+F.normalize(attention[:,i],dim=-1)\n"
            "    return (1-(t/L).square().sum(-1))/2\n"
        ),
    },
}
for _exercise, _variants in _MORE_VARIANTS.items():
    VARIANTS[_exercise].update(_variants)
