"""Mutants and variants of chapter 01."""

from mutants.answers import Mutant

_E1 = "query @ key.transpose(1, 2)"
_SOFTMAX = "similarity.softmax(dim=2)"
_SHARE = "similarity / similarity.shape[2]"
_RAISE = 'raise ValueError(f"unknown instantiation {instantiation!r}")'
_E3 = "attention @ value"
_OUT = "return x + self.out(context.unflatten(2, x.shape[2:]))"
_ATTENTION = 'attention = normalise(pairwise_similarity(query, key), "embedded_gaussian")'
_CONTEXT = "context = aggregate(attention, value).transpose(1, 2)  # (N, C', H·W)"
_VALUE = "value = self.value(x).flatten(2).transpose(1, 2)"
_ZERO_WEIGHT = "        nn.init.zeros_(self.out.weight)\n"
_ZERO_BIAS = "        nn.init.zeros_(self.out.bias)\n"
_NAMES = '("embedded_gaussian", "gaussian", "dot_product", "concat")'
_RELU = "(column + row).relu()"
_SIMILARITY = "            similarity = pairwise_similarity(query, key)\n"
_CONTEXT5 = "context = aggregate(normalise(similarity, self.instantiation), value).transpose(1, 2)"
_NORMALISE5 = "normalise(similarity, self.instantiation)"


def _wrong_attention(new: str) -> dict[str, str]:
    return {_ATTENTION: f"attention = {new}"}


_LAYER_ZERO = "        nn.init.zeros_(self.{0}.weight)\n        nn.init.zeros_(self.{0}.bias)\n"
_BLOCK = [  # mistakes that every block of this chapter can have
    Mutant("no residual", {"return x + self.out": "return self.out"}, "residual is forgotten"),
    Mutant("doubled residual", {"return x + self.out": "return x + x + self.out"}, "counted twice"),
    Mutant("weight not zero", {_ZERO_WEIGHT: ""}, "the last layer does not start at zero"),
    Mutant("bias not zero", {_ZERO_BIAS: ""}, "the last layer does not start at zero"),
    Mutant(
        "in place", {_OUT: _OUT.replace("return x +", "x +=") + "\n        return x"}, "in place"
    ),
    Mutant(
        "everything at zero",
        {_ZERO_BIAS: "        for p in self.parameters():\n            nn.init.zeros_(p)\n"},
        "only the last layer starts at zero",
    ),
    Mutant(
        "value at zero",
        {_ZERO_BIAS: _ZERO_BIAS + _LAYER_ZERO.format("value")},
        "only the last layer starts at zero",
    ),
    Mutant(
        "short cut while the last layer is zero",
        {_OUT: f"if not self.out.weight.any():\n            return x\n        {_OUT}"},
        "the branch is skipped",
    ),
    Mutant(
        "other in evaluation",
        {_OUT: f"if not self.training:\n            return x\n        {_OUT}"},
        "asks for self.training",
    ),
    Mutant(
        "bias of the value cut off",
        {
            "self.value(x)": "(self.value(x) - (b := self.value.bias.view(-1, *[1] * (x.dim() - 2)))"
            " + b.detach())"
        },
        "the bias of value",
    ),
    Mutant(
        "a row of the value cut off",
        {
            "self.value(x)": "torch.cat([self.value(x)[:, :1], (y := self.value(x))[:, 1:] - "
            "(w := y[:, 1:]) + w.detach() + 0 * w], 1)"
        },
        "cut off from the graph",
        hidden=True,
    ),
]

MUTANTS = {
    "c01-e1": [
        Mutant("rows are keys", {_E1: "key @ query.transpose(1, 2)"}, "query comes first"),
        Mutant("wrong transpose", {_E1: "query.transpose(1, 2) @ key"}, "shapes that do not fit"),
        Mutant("no transpose", {_E1: "query @ key"}, "shapes that do not fit"),
        Mutant("scaled by root d", {_E1: f"{_E1} / query.shape[2] ** 0.5"}, "divided by √d"),
        Mutant("scaled by d", {_E1: f"{_E1} / query.shape[2]"}, "divided by d"),
        Mutant("divided by keys", {_E1: f"{_E1} / key.shape[1]"}, "normalisation of exercise 2"),
        Mutant("softmax", {_E1: f"({_E1}).softmax(2)"}, "softmax belongs to exercise 2"),
        Mutant("cosine", {_E1: "F.normalize(query, dim=2) @ F.normalize(key, dim=2).mT"}, "cosine"),
        Mutant("distance", {_E1: "-torch.cdist(query, key).square()"}, "squared distance"),
        Mutant("relu", {_E1: f"({_E1}).relu()"}, "negative products became zero"),
        Mutant("absolute", {_E1: f"({_E1}).abs()"}, "lost their sign"),
        Mutant("drops the batch", {_E1: "query[0] @ key[0].T"}, "axis 0, the examples, is gone"),
        Mutant("sums the keys", {_E1: f"({_E1}).sum(2)"}, "the keys were summed"),
        Mutant("mixes examples", {_E1: "query @ key.mean(0).T"}, "examples are mixed"),
        Mutant("detached", {_E1: f"({_E1}).detach()"}, "cut off from the graph"),
        Mutant("detached key", {_E1: "query @ key.detach().mT"}, "cut off from the graph"),
        Mutant("fixed dtype", {_E1: f"({_E1}).float()"}, "fixed dtype"),
        Mutant(
            "in place", {f"return {_E1}": f"s = {_E1}\n    query *= 2\n    return s"}, "in place"
        ),
        Mutant(
            "small only",
            {_E1: f"({_E1}).clamp(-8, 8)"},
            "expected",
            hidden=True,
        ),
    ],
    "c01-e2": [
        Mutant("over queries", {_SOFTMAX: "similarity.softmax(dim=1)"}, "softmax over the queries"),
        Mutant("over examples", {_SOFTMAX: "similarity.softmax(dim=0)"}, "over the examples"),
        Mutant(
            "over the map",
            {_SOFTMAX: "similarity.flatten(1).softmax(1).view_as(similarity)"},
            "over the whole map",
        ),
        Mutant("exp only", {_SOFTMAX: "similarity.exp()"}, "not divided by their sum"),
        Mutant("exp twice", {_SOFTMAX: "similarity.exp().softmax(2)"}, "taken twice"),
        Mutant("log softmax", {_SOFTMAX: "similarity.log_softmax(2)"}, "logarithm"),
        Mutant("sigmoid", {_SOFTMAX: "similarity.sigmoid()"}, "sigmoid"),
        Mutant(
            "softmax and share",
            {_SOFTMAX: f"{_SOFTMAX} / similarity.shape[2]"},
            "one of them is enough",
        ),
        Mutant(
            "overflow",
            {_SOFTMAX: "similarity.exp() / similarity.exp().sum(2, keepdim=True)"},
            "subtract the maximum of each row",
        ),
        Mutant(
            "divided by queries", {_SHARE: "similarity / similarity.shape[1]"}, "sum runs over keys"
        ),
        Mutant(
            "divided by pairs", {_SHARE: "similarity / similarity[0].numel()"}, "number of pairs"
        ),
        Mutant(
            "divided by the row",
            {_SHARE: "similarity / similarity.sum(2, keepdim=True)"},
            "sum of the row",
        ),
        Mutant(
            "divided by the root",
            {_SHARE: "similarity / similarity.shape[2] ** 0.5"},
            "square root of the number",
        ),
        Mutant("softmax for all", {_SHARE: _SOFTMAX}, "softmax is for the two Gaussians"),
        Mutant("share for all", {_SOFTMAX: _SHARE}, "that is for dot_product and concat"),
        Mutant("not normalised", {_SHARE: "similarity * 1"}, "not normalised"),
        Mutant(
            "clipped",
            {_SHARE: f"{_SHARE.replace('similarity /', 'similarity.relu() /')}"},
            "negative entries became zero",
        ),
        Mutant(
            "concat forgotten",
            {'("dot_product", "concat")': '("dot_product",)'},
            "ValueError: unknown instantiation 'concat'",
        ),
        Mutant("unknown name", {_RAISE: f"return {_SHARE}"}, "falls through"),
        Mutant("returns None", {_RAISE: "return None"}, "falls through"),
        Mutant(
            "wrong error", {_RAISE: "raise KeyError(instantiation)"}, "expected     a ValueError"
        ),
        Mutant(
            "in place",
            {f"return {_SHARE}": "similarity /= similarity.shape[2]\n        return similarity"},
            "in place",
        ),
        Mutant("detached", {_SOFTMAX: "similarity.detach().softmax(2)"}, "cut off"),
        Mutant(
            "small only",
            {_SOFTMAX: "similarity.clamp(max=9.9e4).softmax(dim=2)"},
            "expected",
            hidden=True,
        ),
    ],
    "c01-e3": [
        Mutant(
            "transposed map", {_E3: "attention.transpose(1, 2) @ value"}, "shapes that do not fit"
        ),
        Mutant(
            "transposed if square",
            {
                f"return {_E3}": "if attention.shape[1] == attention.shape[2]:\n"
                f"        attention = attention.mT\n    return {_E3}"
            },
            "the attention map is transposed",
        ),
        Mutant("plain mean", {_E3: f"{_E3} * 0 + value.mean(1, keepdim=True)"}, "plain mean"),
        Mutant("plain sum", {_E3: f"{_E3} * 0 + value.sum(1, keepdim=True)"}, "sum of the values"),
        Mutant(
            "hard attention",
            {_E3: "F.one_hot(attention.argmax(2), attention.shape[2]).to(value) @ value"},
            "only the value with the largest weight",
        ),
        Mutant("divided again", {_E3: f"{_E3} / value.shape[1]"}, "a second time"),
        Mutant("softmax again", {_E3: "attention.softmax(2) @ value"}, "softmax a second time"),
        Mutant("swapped result", {_E3: f"({_E3}).transpose(1, 2)"}, "two axes of the result"),
        Mutant("squared weights", {_E3: "attention.square() @ value"}, "weights are squared"),
        Mutant("merged rows", {_E3: f"({_E3}).mean(1, keepdim=True)"}, "rows of the attention map"),
        Mutant(
            "drops the batch", {_E3: "attention[0] @ value[0]"}, "axis 0, the examples, is gone"
        ),
        Mutant("mixes examples", {_E3: "attention @ value.mean(0)"}, "expected"),
        Mutant("detached", {_E3: "attention.detach() @ value"}, "cut off"),
        Mutant("fixed dtype", {_E3: f"({_E3}).float()"}, "fixed dtype"),
        Mutant(
            "in place", {f"return {_E3}": f"y = {_E3}\n    value.zero_()\n    return y"}, "in place"
        ),
        Mutant(
            "renormalised",
            {_E3: "attention / attention.sum(2, keepdim=True) @ value"},
            "divided by their sum",
        ),
    ],
    "c01-e4": [
        *_BLOCK,
        Mutant(
            "over queries",
            _wrong_attention("pairwise_similarity(query, key).softmax(1)"),
            "softmax over the queries",
        ),
        Mutant(
            "over the map",
            _wrong_attention(
                "pairwise_similarity(query, key).flatten(1).softmax(1)"
                ".unflatten(1, (query.shape[1], key.shape[1]))"
            ),
            "softmax over the whole map",
        ),
        Mutant(
            "over one number",
            _wrong_attention("pairwise_similarity(query, key)[..., None].softmax(3)[..., 0]"),
            "axis of size 1",
        ),
        Mutant(
            "scaled by root d",
            _wrong_attention(
                "(pairwise_similarity(query, key) / query.shape[2] ** 0.5).softmax(2)"
            ),
            "divided by √d",
        ),
        Mutant(
            "scaled by d",
            _wrong_attention("(pairwise_similarity(query, key) / query.shape[2]).softmax(2)"),
            "divided by d",
        ),
        Mutant(
            "multiplied by root d",
            _wrong_attention(
                "(pairwise_similarity(query, key) * query.shape[2] ** 0.5).softmax(2)"
            ),
            "multiplied by √d",
        ),
        Mutant(
            "query and key swapped",
            _wrong_attention("pairwise_similarity(key, query).softmax(2)"),
            "query and key are swapped",
        ),
        Mutant(
            "transposed map",
            {"aggregate(attention, value)": "aggregate(attention.mT, value)"},
            "the attention map is transposed",
        ),
        Mutant(
            "exp only",
            _wrong_attention("pairwise_similarity(query, key).exp()"),
            "not divided by their sum",
        ),
        Mutant("dot product", {'"embedded_gaussian")': '"dot_product")'}, "softmax is missing"),
        Mutant(
            "not normalised", _wrong_attention("pairwise_similarity(query, key)"), "not normalised"
        ),
        Mutant(
            "uniform",
            _wrong_attention("(0 * pairwise_similarity(query, key)).softmax(2)"),
            "the query is not used",
        ),
        Mutant(
            "attends to keys",
            {"aggregate(attention, value)": "aggregate(attention, key + 0 * value)"},
            "go onto the keys",
        ),
        Mutant(
            "attends to queries",
            {"aggregate(attention, value)": "aggregate(attention, query + 0 * value)"},
            "go onto the queries",
        ),
        Mutant(
            "key of the query layer",
            {"key = self.key(x)": "key = self.query(x)"},
            "W_q is used for the keys",
        ),
        Mutant(
            "query of the key layer",
            {"query = self.query(x)": "query = self.key(x)"},
            "W_k is used for the queries",
        ),
        Mutant(
            "sees itself alone",
            _wrong_attention(
                "torch.eye(query.shape[1], dtype=x.dtype).expand(len(x), -1, -1)"
                " + 0 * pairwise_similarity(query, key)"
            ),
            "every position sees itself alone",
        ),
        Mutant(
            "unfolded wrongly",
            {
                _CONTEXT: "context = aggregate(attention, value)",
                "context.unflatten(2, x.shape[2:])": "context.reshape(len(x), -1, *x.shape[2:])",
            },
            "becomes a map again",
        ),
        Mutant(
            "folded by reshape",
            {
                "self.value(x).flatten(2).transpose(1, 2)": "self.value(x).reshape(len(x), -1, self.value.out_channels)"
            },
            "expected",
        ),
        Mutant(
            "unfolded by columns",
            {
                "context.unflatten(2, x.shape[2:])": "context.unflatten(2, x.shape[:1:-1]).transpose(2, 3)"
            },
            "when the map is folded or unfolded",
        ),
        Mutant(
            "square only",
            {"context.unflatten(2, x.shape[2:])": "context.unflatten(2, (x.shape[2], x.shape[2]))"},
            "line",
        ),
        Mutant(
            "no reduction",
            {"inner = in_channels // reduction": "inner = in_channels"},
            "has other channels than the text says",
        ),
        Mutant(
            "fixed reduction",
            {"in_channels // reduction": "in_channels // 2"},
            "has other channels than the text says",
        ),
        Mutant(
            "wide kernel",
            {
                "self.value = nn.Conv2d(in_channels, inner, kernel_size=1)": "self.value = nn.Conv2d(in_channels, inner, kernel_size=3, padding=1)"
            },
            "a kernel larger than 1",
        ),
        Mutant(
            "extra norm",
            {_ZERO_BIAS: f"{_ZERO_BIAS}        self.norm = nn.BatchNorm2d(in_channels)\n"},
            "layers that the formula does not have",
        ),
        Mutant(
            "relu behind",
            {_OUT: "return x + self.out(context.unflatten(2, x.shape[2:])).relu()"},
            "a ReLU stands behind",
        ),
        Mutant(
            "detached map",
            {"aggregate(attention, value)": "aggregate(attention.detach(), value)"},
            "cut off from the graph",
        ),
        Mutant(
            "no grad",
            {_ATTENTION: f"with torch.no_grad():\n            {_ATTENTION}"},
            "cut off from the graph",
        ),
        Mutant("mixes examples", {_VALUE: f"{_VALUE}.flip(0)"}, "examples are mixed"),
        Mutant(
            "frozen",
            {_ZERO_BIAS: f"{_ZERO_BIAS}        self.out.requires_grad_(False)\n"},
            "requires_grad is off",
        ),
        Mutant(
            "biases forgotten",
            {
                _ATTENTION: "key = key - (self.key.bias if self.key.bias is not None else 0)\n"
                "        value = value - self.value.bias\n        " + _ATTENTION
            },
            "none for the bias of value",
        ),
        Mutant(
            "cut on the way in",
            {
                f"self.{n}(x).flatten(2).transpose(1, 2)": f"self.{n}(x).reshape(len(x), "
                "x[0, 0].numel(), -1)"
                for n in ("query", "key", "value")
            },
            "cut with reshape",
        ),
        Mutant(
            "cut both ways",
            {
                **{
                    f"self.{n}(x).flatten(2).transpose(1, 2)": f"self.{n}(x).reshape(len(x), "
                    "x[0, 0].numel(), -1)"
                    for n in ("query", "key", "value")
                },
                _CONTEXT: "context = aggregate(attention, value)",
                "context.unflatten(2, x.shape[2:])": "context.reshape(len(x), -1, *x.shape[2:])",
            },
            "cut with reshape",
        ),
        Mutant(
            "channels attend",
            {
                **{
                    f"self.{n}(x).flatten(2).transpose(1, 2)": f"self.{n}(x).flatten(2)"
                    for n in ("query", "key", "value")
                },
                _CONTEXT: "context = aggregate(attention, value)",
            },
            "channels attend to channels",
        ),
        Mutant("times zero", {_OUT: _OUT.replace("x + ", "x + 0 * ")}, "not added"),
        Mutant(
            "query and key at zero",
            {_ZERO_BIAS: _ZERO_BIAS + _LAYER_ZERO.format("query") + _LAYER_ZERO.format("key")},
            "only the last layer starts at zero",
        ),
        Mutant(
            "exp without care",
            _wrong_attention(
                "torch.exp(pairwise_similarity(query, key))\n"
                "        attention = attention / attention.sum(2, keepdim=True)"
            ),
            "exp overflows",
        ),
        Mutant(
            "layers in a default argument",
            {
                "reduction=2):": "reduction=2, layers=nn.ModuleDict()):",
                **{
                    f"self.{n} = ": f'self.{n} = layers["{n}"] = layers["{n}"] if "{n}" in layers else '
                    for n in ("query", "key", "value", "out")
                },
            },
            "layers live outside of __init__",
        ),
        Mutant("fixed dtype", {_OUT: f"x = x.double()\n        {_OUT}"}, "fixed dtype"),
        Mutant(
            "ceil",
            {"in_channels // reduction": "-(-in_channels // reduction)"},
            "layers",
            hidden=True,
        ),
        Mutant(
            "squeeze",
            {"context.unflatten(2": "context.squeeze().unflatten(-1"},
            "runs without an error",
            hidden=True,
        ),
        Mutant(
            "layers in a list",
            {
                "self.query = nn.Conv2d": "self.layers = [nn.Conv2d(4, 2, 1)] * 3\n"
                "        query = nn.Conv2d",
                "self.key = ": "key = ",
                "self.value = ": "value = ",
            },
            "hides it",
        ),
    ],
    "c01-e5": [
        *_BLOCK,
        Mutant(
            "gaussian keeps its layers",
            {
                'if instantiation != "gaussian":\n            self.query': "if True:\n            self.query"
            },
            "gaussian: layers value and out alone",
        ),
        Mutant(
            "gaussian compares embeddings",
            {'if self.instantiation != "gaussian":': 'if self.instantiation != "gausian":'},
            "while checking gaussian",
        ),
        Mutant(
            "gaussian scaled",
            {
                _SIMILARITY: f'{_SIMILARITY}            if self.instantiation == "gaussian":\n'
                "                similarity = similarity / x.shape[1] ** 0.5\n"
            },
            "gaussian: three positions by hand",
        ),
        Mutant(
            "gaussian compares values",
            {
                _SIMILARITY: '            if self.instantiation == "gaussian":\n'
                "                query = key = self.value(x).flatten(2).transpose(1, 2)\n"
                f"{_SIMILARITY}"
            },
            "the similarity is that of the values",
        ),
        Mutant(
            "softmax for dot product",
            {
                _NORMALISE5: 'similarity.softmax(2) if self.instantiation == "dot_product" else '
                + _NORMALISE5
            },
            "dot_product: three positions by hand",
        ),
        Mutant(
            "dot product not divided",
            {_NORMALISE5: 'similarity if self.instantiation == "dot_product" else ' + _NORMALISE5},
            "not divided by the number of positions",
        ),
        Mutant(
            "dot product scaled",
            {
                _NORMALISE5: "normalise(similarity / query.shape[2] ** 0.5 if self.instantiation == "
                '"dot_product" else similarity, self.instantiation)'
            },
            "divided by √d as well",
        ),
        Mutant("concat without relu", {_RELU: "column + row"}, "ReLU is missing"),
        Mutant("concat absolute", {_RELU: "(column + row).abs()"}, "the absolute value, not ReLU"),
        Mutant(
            "concat key first",
            {"query_weight, key_weight =": "key_weight, query_weight ="},
            "the key comes before the query",
        ),
        Mutant(
            "concat softmax",
            {
                _NORMALISE5: 'similarity.softmax(2) if self.instantiation == "concat" else '
                + _NORMALISE5
            },
            "concat: three positions by hand",
        ),
        Mutant(
            "concat not divided",
            {_NORMALISE5: 'similarity if self.instantiation == "concat" else ' + _NORMALISE5},
            "not divided by the number of positions",
        ),
        Mutant("concat transposed", {_RELU: "(column + row).relu().mT"}, "rows belong to the keys"),
        Mutant(
            "concat is a dot product",
            {_RELU: "pairwise_similarity(query, key) + 0 * (column + row)"},
            "this is the dot product",
        ),
        Mutant(
            "concat without pair",
            {
                "            self.pair = nn.Linear(2 * inner, 1, bias=False)\n": "            pass\n",
                "self.pair.weight": "torch.ones(1, 2 * query.shape[2], dtype=x.dtype)",
            },
            "a layer is missing",
        ),
        Mutant(
            "pair for all",
            {'if instantiation == "concat":': "if True:"},
            "layers that the formula does not have",
        ),
        Mutant(
            "unknown accepted",
            {f"if instantiation not in {_NAMES}:": "if False:"},
            "refused too late",
        ),
        Mutant(
            "other default",
            {
                'instantiation="embedded_gaussian", reduction': 'instantiation="dot_product", reduction'
            },
            "the default is embedded_gaussian",
        ),
        Mutant(
            "softmax over queries",
            {
                _NORMALISE5: 'similarity.softmax(1) if "gaussian" in self.instantiation else '
                + _NORMALISE5
            },
            "softmax over the queries",
        ),
        Mutant(
            "unfolded wrongly",
            {
                _CONTEXT5: "context = aggregate(normalise(similarity, self.instantiation), value)",
                "context.unflatten(2, x.shape[2:])": "context.reshape(len(x), -1, *x.shape[2:])",
            },
            "becomes a map again",
        ),
        Mutant(
            "fixed reduction",
            {"in_channels // reduction": "in_channels // 2"},
            "layers",
            hidden=True,
        ),
        Mutant(
            "pair at zero",
            {
                "self.pair = nn.Linear(2 * inner, 1, bias=False)\n": "self.pair = nn.Linear(2 * inner, "
                "1, bias=False)\n            nn.init.zeros_(self.pair.weight)\n"
            },
            "only the last layer starts at zero",
        ),
        Mutant(
            "pair bias not used",
            {"2 * inner, 1, bias=False": "2 * inner, 1"},
            "none for the bias of pair",
        ),
        Mutant(
            "pair bias behind the ReLU",
            {
                "2 * inner, 1, bias=False": "2 * inner, 1",
                _RELU: f"{_RELU} + self.pair.bias",
            },
            "concat",
            hidden=True,
        ),
        Mutant(
            "part of a name is enough",
            {f"not in {_NAMES}": 'not in "embedded_gaussian, gaussian, dot_product, concat"'},
            "refused too late",
        ),
        Mutant(
            "arguments in another order",
            {
                'instantiation="embedded_gaussian", reduction=2': "reduction=2, "
                'instantiation="embedded_gaussian"'
            },
            "runs without an error",
            hidden=True,
        ),
    ],
    "c01-e6": [
        *_BLOCK,
        Mutant(
            "fixed reduction",
            {"in_channels // reduction": "in_channels // 2"},
            "layers",
            hidden=True,
        ),
        Mutant(
            "inside each frame",
            {
                "        query = key = x.flatten(2)": "        shape = x.shape\n"
                "        if x.dim() == 5:\n"
                "            x = x.transpose(1, 2).flatten(0, 1)[:, :, None]\n"
                "        query = key = x.flatten(2)",
                _OUT: "z = x + self.out(context.unflatten(2, x.shape[2:]))\n"
                "        if len(shape) == 5:\n"
                "            z = z[:, :, 0].unflatten(0, (shape[0], shape[2])).transpose(1, 2)\n"
                "        return z",
            },
            "every position sees itself alone",
        ),
        Mutant(
            "time averaged",
            {
                _VALUE: "value = self.value(x)\n"
                "        if x.dim() == 5:\n"
                "            value = value.mean(2, keepdim=True).expand_as(value)\n"
                "        value = value.flatten(2).transpose(1, 2)"
            },
            "ndim=3",
        ),
        Mutant(
            "unfolded wrongly",
            {
                _CONTEXT5: "context = aggregate(normalise(similarity, self.instantiation), value)",
                "context.unflatten(2, x.shape[2:])": "context.reshape(len(x), -1, *x.shape[2:])",
            },
            "becomes a map again",
        ),
        Mutant(
            "unfolded backwards",
            {
                "context.unflatten(2, x.shape[2:])": "context.unflatten(2, x.shape[:1:-1]).permute(0, 1, *range(x.dim() - 1, 1, -1))"
            },
            "when the map is folded or unfolded",
        ),
        Mutant(
            "images only",
            {"conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[ndim]": "conv = nn.Conv2d"},
            "line",
        ),
        Mutant(
            "wide in time",
            {
                "self.value = conv(in_channels, inner, kernel_size=1)": "self.value = conv(in_channels, inner, kernel_size=(3, 1, 1), padding=(1, 0, 0)) "
                "if ndim == 3 else conv(in_channels, inner, kernel_size=1)"
            },
            "a kernel larger than 1",
        ),
        Mutant(
            "first frame only",
            {
                _VALUE: "source = x.clone()\n"
                "        if x.dim() == 5:\n            source[:, :, 1:] = 0\n"
                "        value = self.value(source).flatten(2).transpose(1, 2)"
            },
            "ndim=3",
        ),
        Mutant(
            "flattens space only",
            {
                "context = aggregate(": "if x.dim() == 5:\n"
                "            mask = torch.arange(similarity.shape[1]) // (x.shape[3] * x.shape[4])\n"
                "            mask = (mask[:, None] == mask[None]).to(similarity)\n"
                '            similarity = similarity.masked_fill(mask == 0, float("-inf"))\n'
                "        context = aggregate("
            },
            "ndim=3",
        ),
        Mutant(
            "gaussian fails in 3D",
            {
                'if self.instantiation != "gaussian":': 'if self.instantiation != "gaussian" or x.dim() == 5:'
            },
            "while checking ndim=3, gaussian",
        ),
        Mutant("concat without relu", {_RELU: "column + row"}, "ndim=3, concat"),
        Mutant(
            "dot product not divided",
            {_NORMALISE5: 'similarity if self.instantiation == "dot_product" else ' + _NORMALISE5},
            "ndim=3, dot_product",
        ),
        Mutant(
            "other default",
            {'ndim=2, instantiation="embedded_gaussian"': 'ndim=2, instantiation="gaussian"'},
            "the default is embedded_gaussian",
        ),
        Mutant(
            "concat in 1D",
            {_RELU: "(column + row).relu() if x.dim() > 3 else column + row"},
            "ndim=1, concat",
            hidden=True,
        ),
    ],
    "c01-e7": [
        Mutant(
            "the map first",
            {"query @ (key.transpose(1, 2) @ value)": "query @ key.transpose(1, 2) @ value"},
            "query and key are multiplied first",
        ),
        Mutant("not divided", {" / key.shape[1]": ""}, "not divided by the number of keys"),
        Mutant("divided by queries", {"key.shape[1]": "query.shape[1]"}, "the sum runs over keys"),
        Mutant(
            "divided by d",
            {" / key.shape[1]": " / key.shape[1] / key.shape[2]"},
            "divided by d as well",
        ),
        Mutant(
            "divided by root d",
            {" / key.shape[1]": " / key.shape[1] / key.shape[2] ** 0.5"},
            "divided by √d as well",
        ),
        Mutant(
            "softmax",
            {
                "return query @ (key.transpose(1, 2) @ value) / key.shape[1]": "return (query @ key.transpose(1, 2)).softmax(2) @ value"
            },
            "they cannot be swapped",
        ),
        Mutant(
            "value first",
            {"key.transpose(1, 2) @ value": "value.transpose(1, 2) @ key"},
            "shapes that do not fit",
        ),
        Mutant(
            "absolute", {"return query @": "return query.abs() @"}, "the products lost their sign"
        ),
        Mutant(
            "relu",
            {
                "return query @ (key.transpose(1, 2) @ value) / key.shape[1]": "return (query @ (key.transpose(1, 2) @ value)).relu() / key.shape[1]"
            },
            "negative results became zero",
        ),
        Mutant(
            "result transposed",
            {"/ key.shape[1]": "/ key.shape[1]).transpose(1, 2)", "return query": "return (query"},
            "last two axes are swapped",
        ),
        Mutant("mixes examples", {"@ value)": "@ value).mean(0)"}, "examples are mixed"),
        Mutant("detached", {"@ value)": "@ value).detach()"}, "cut off"),
        Mutant(
            "in place",
            {"return query @": "key = key.neg_().neg() * 1\n    return query @"},
            "in place",
        ),
        Mutant(
            "chunks of pairs",
            {
                "return query @ (key.transpose(1, 2) @ value) / key.shape[1]": "return torch.einsum('nld,nmd,nmc->nlc', query, key, value).clone() / "
                "torch.ones(query.shape[1], key.shape[1], dtype=value.dtype).sum(1)[:, None]"
            },
            "query and key are multiplied first",
        ),
    ],
}

_LINEAR_BLOCK = """
class NonLocalBlock2d(nn.Module):
    def __init__(self, in_channels, reduction=2):
        super().__init__()
        d = in_channels // reduction
        self.to_v, self.to_k, self.to_q = (nn.Linear(in_channels, d, bias=False) for _ in range(3))
        self.proj = nn.Linear(d, in_channels)
        nn.init.constant_(self.proj.weight, 0.0)
        nn.init.constant_(self.proj.bias, 0.0)

    def forward(self, x):
        n, c, h, w = x.shape
        tokens = x.permute(0, 2, 3, 1).reshape(n, h * w, c)
        weights = torch.softmax(torch.bmm(self.to_q(tokens), self.to_k(tokens).mT), dim=-1)
        y = self.proj(torch.bmm(weights, self.to_v(tokens)))
        return y.reshape(n, h, w, c).permute(0, 3, 1, 2) + x
"""
_EINSUM_BLOCK = """
class NonLocalBlock2d(nn.Module):
    def __init__(self, in_channels, reduction=2):
        super().__init__()
        d = in_channels // reduction
        self.theta = nn.Parameter(torch.randn(d, in_channels) * 0.01)
        self.phi = nn.Parameter(torch.randn(d, in_channels) * 0.01)
        self.g = nn.Parameter(torch.randn(d, in_channels) * 0.01)
        self.w_z = nn.Parameter(torch.zeros(in_channels, d))

    def forward(self, x):
        f = x.flatten(2)
        q = torch.einsum("dc,ncl->nld", self.theta, f)
        k = torch.einsum("dc,ncm->nmd", self.phi, f)
        v = torch.einsum("dc,ncm->nmd", self.g, f)
        a = torch.einsum("nld,nmd->nlm", q, k).softmax(-1)
        y = torch.einsum("nlm,nmd,cd->ncl", a, v, self.w_z)
        return x + y.reshape(x.shape)
"""
_UNNAMED_BLOCK = """
class NonLocalBlock2d(nn.Module):
    def __init__(self, in_channels, reduction=2):
        super().__init__()
        d = in_channels // reduction
        self.a = nn.Conv2d(in_channels, d, 1)
        self.b = nn.Conv2d(in_channels, d, 1)
        self.last = nn.Conv2d(d, in_channels, 1)
        self.c = nn.Conv2d(in_channels, d, 1)
        self.last.weight.data.zero_()
        self.last.bias.data.zero_()

    def forward(self, x):
        v, k, q = (layer(x).flatten(2) for layer in (self.a, self.b, self.c))
        a = F.softmax(q.transpose(1, 2).matmul(k), -1)
        return x + self.last((v @ a.transpose(1, 2)).view(x.shape[0], -1, *x.shape[2:]))
"""
_SDPA_BLOCK = """
class NonLocalBlock2d(nn.Module):
    def __init__(self, in_channels, reduction=2):
        super().__init__()
        d = in_channels // reduction
        self.query_conv = nn.Conv2d(in_channels, d, 1)
        self.key_conv = nn.Conv2d(in_channels, d, 1)
        self.value_conv = nn.Conv2d(in_channels, d, 1)
        self.out_conv = nn.Conv2d(d, in_channels, 1)
        for p in self.out_conv.parameters():
            nn.init.zeros_(p)

    def forward(self, x):
        q, k, v = (m(x).flatten(2).mT for m in (self.query_conv, self.key_conv, self.value_conv))
        y = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return x + self.out_conv(y.mT.unflatten(2, x.shape[2:]))
"""
_SEQUENTIAL_BLOCK = """
class NonLocalBlock2d(nn.Module):
    def __init__(self, in_channels, reduction=2):
        super().__init__()
        d = in_channels // reduction
        self.layers = nn.ModuleDict({
            "key": nn.Conv1d(in_channels, d, 1),
            "query": nn.Conv1d(in_channels, d, 1),
            "value": nn.Conv1d(in_channels, d, 1),
        })
        self.out = nn.Sequential(nn.Conv1d(d, in_channels, 1))
        for p in self.out.parameters():
            nn.init.zeros_(p)

    def forward(self, x):
        f = x.reshape(*x.shape[:2], -1)
        q, k, v = self.layers["query"](f), self.layers["key"](f), self.layers["value"](f)
        e = (q[:, :, :, None] * k[:, :, None, :]).sum(1)
        e = (e - e.amax(2, keepdim=True)).exp()
        e = e / e.sum(2, keepdim=True)
        return x + self.out((v[:, :, None, :] * e[:, None]).sum(3)).reshape_as(x)
"""


def _general(name, signature, arguments, layer, pair, similarity):
    """A block with all instantiations, in other words than the reference."""
    return f"""
class {name}(nn.Module):
    def __init__({signature}):
        super().__init__()
        if instantiation not in ("gaussian", "embedded_gaussian", "dot_product", "concat"):
            raise ValueError(instantiation)
        self.kind = instantiation
        d = in_channels // reduction
        {layer}
        self.value = layer(in_channels, d)
        if instantiation != "gaussian":
            self.key = layer(in_channels, d)
            self.query = layer(in_channels, d)
        if instantiation == "concat":
            {pair}
        self.out = layer(d, in_channels)
        for p in self.out.parameters():
            nn.init.zeros_(p)

    def forward(self, x):
        tokens = x.flatten(2).mT
        def run(module):
            return {arguments}
        v = run(self.value)
        q, k = (tokens, tokens) if self.kind == "gaussian" else (run(self.query), run(self.key))
        if self.kind == "concat":
            {similarity}
        else:
            s = torch.einsum("nld,nmd->nlm", q, k)
        a = s.softmax(-1) if "gaussian" in self.kind else s / s.shape[-1]
        y = torch.einsum("nlm,nmd->nld", a, v)
        back = self.out(y) if isinstance(self.out, nn.Linear) else None
        if back is None:
            return x + self.out(y.mT.reshape(len(x), -1, *x.shape[2:]))
        return x + back.mT.reshape(x.shape)
"""


_LINEAR = "layer = lambda i, o: nn.Linear(i, o)"
_LINEAR_FREE = "layer = lambda i, o: nn.Linear(i, o, bias=False)"
_PAIRS = (
    "n, l, d = q.shape\n"
    "            pairs = torch.cat([q[:, :, None].expand(n, l, k.shape[1], d),"
    " k[:, None].expand(n, l, k.shape[1], d)], -1)\n"
    "            s = torch.relu(self.pair(pairs))[..., 0]"
)
_PAIR = "self.pair = nn.Linear(2 * d, 1, bias=False)"
_PAIR_PARAMETER = "self.w_f = nn.Parameter(torch.randn(2 * d))"
_PAIR_CONV = "self.concat_project = nn.Conv2d(2 * d, 1, 1, bias=False)"
_HALVES = (
    "wq, wk = self.w_f.chunk(2)\n"
    "            s = F.relu((q @ wq).unsqueeze(2) + (k @ wk).unsqueeze(1))"
)
_CONV_PAIRS = (
    "n, l, d = q.shape\n"
    "            pairs = torch.cat([q.mT[..., None].expand(n, d, l, k.shape[1]),"
    " k.mT[:, :, None].expand(n, d, l, k.shape[1])], 1)\n"
    "            s = self.concat_project(pairs)[:, 0].clamp(min=0)"
)
_SIGNATURE_5 = 'self, in_channels, instantiation="embedded_gaussian", reduction=2'
_SIGNATURE_6 = 'self, in_channels, ndim=2, instantiation="embedded_gaussian", reduction=2'
_CONV_5 = "layer = lambda i, o: nn.Conv2d(i, o, 1)"
_CONV_6 = "layer = lambda i, o: getattr(nn, f'Conv{ndim}d')(i, o, 1)"
_ON_TOKENS, _ON_MAPS = "module(tokens)", "module(x).flatten(2).mT"

_PLAIN_BLOCK = """class NonLocalBlock2d(nn.Module):
    def __init__(self, in_channels, reduction=2):
        super().__init__()
        c, d = in_channels, in_channels // reduction
        for name, shape in {"q": (c, d), "k": (c, d), "v": (c, d), "o": (d, c)}.items():
            start = torch.zeros(shape) if name == "o" else torch.randn(shape) / c**0.5
            setattr(self, f"w_{name}", nn.Parameter(start))
            setattr(self, f"b_{name}", nn.Parameter(torch.zeros(shape[1])))

    def forward(self, x):
        rows = x.flatten(2).mT
        q, k = rows @ self.w_q + self.b_q, rows @ self.w_k + self.b_k
        y = (q @ k.mT).softmax(-1) @ (rows @ self.w_v + self.b_v)
        return x + (y @ self.w_o + self.b_o).mT.reshape(x.shape)
"""
VARIANTS = {
    "c01-e1": {
        "einsum": "def pairwise_similarity(query, key):\n"
        '    return torch.einsum("nld,nmd->nlm", query, key)\n',
        "bmm": "def pairwise_similarity(query, key):\n    return torch.bmm(query, key.mT)\n",
        "broadcast": "def pairwise_similarity(query, key):\n"
        "    return (query.unsqueeze(2) * key.unsqueeze(1)).sum(-1)\n",
        "loops": "def pairwise_similarity(query, key):\n"
        "    return torch.stack([q @ k.T for q, k in zip(query, key)])\n",
        "matmul": "def pairwise_similarity(q, k):\n    return torch.matmul(q, k.permute(0, 2, 1))\n",
    },
    "c01-e2": {
        "functional": "def normalise(similarity, instantiation):\n"
        '    if "gaussian" in instantiation and instantiation in ("gaussian", "embedded_gaussian"):\n'
        "        return F.softmax(similarity, dim=-1)\n"
        '    elif instantiation == "dot_product" or instantiation == "concat":\n'
        "        return similarity / similarity.size(-1)\n"
        "    else:\n        raise ValueError(instantiation)\n",
        "by hand": "def normalise(similarity, instantiation):\n"
        '    if instantiation not in ("gaussian", "embedded_gaussian", "dot_product", "concat"):\n'
        "        raise ValueError\n"
        '    if instantiation[-8:] == "gaussian":\n'
        "        e = (similarity - similarity.max(2, keepdim=True).values).exp()\n"
        "        return e / e.sum(2, keepdim=True)\n"
        "    return similarity * (1 / similarity.shape[-1])\n",
        "table": "def normalise(similarity, instantiation):\n"
        "    soft = lambda s: s.softmax(-1)\n    mean = lambda s: s / s.shape[-1]\n"
        "    table = dict(gaussian=soft, embedded_gaussian=soft, dot_product=mean, concat=mean)\n"
        "    if instantiation not in table:\n        raise ValueError(f'{instantiation}?')\n"
        "    return table[instantiation](similarity)\n",
        "match": "def normalise(similarity, instantiation):\n"
        "    match instantiation:\n"
        '        case "embedded_gaussian" | "gaussian":\n'
        "            return torch.exp(torch.log_softmax(similarity, dim=2))\n"
        '        case "dot_product" | "concat":\n'
        "            return torch.div(similarity, len(similarity[0, 0]))\n"
        "    raise ValueError('unknown')\n",
    },
    "c01-e3": {
        "einsum": "def aggregate(attention, value):\n"
        '    return torch.einsum("nlm,nmc->nlc", attention, value)\n',
        "bmm": "def aggregate(attention, value):\n    return torch.bmm(attention, value)\n",
        "broadcast": "def aggregate(attention, value):\n"
        "    return (attention.unsqueeze(3) * value.unsqueeze(1)).sum(dim=2)\n",
        "transposed twice": "def aggregate(attention, value):\n"
        "    return (value.mT @ attention.mT).mT\n",
        "tensordot": "def aggregate(attention, value):\n"
        "    return torch.stack([torch.tensordot(a, v, 1) for a, v in zip(attention, value)])\n",
    },
    "c01-e4": {
        "x @ W, w_q and b_q": _PLAIN_BLOCK,
        "linear, reordered": _LINEAR_BLOCK,
        "einsum, bare parameters": _EINSUM_BLOCK,
        "no names to go by": _UNNAMED_BLOCK,
        "fused attention": _SDPA_BLOCK,
        "nested layers, by hand": _SEQUENTIAL_BLOCK,
    },
    "c01-e5": {
        "linear, all pairs": _general(
            "NonLocalBlock", _SIGNATURE_5, _ON_TOKENS, _LINEAR, _PAIR, _PAIRS
        ),
        "convolution, halves of a vector": _general(
            "NonLocalBlock", _SIGNATURE_5, _ON_MAPS, _CONV_5, _PAIR_PARAMETER, _HALVES
        ),
        "no biases": _general(
            "NonLocalBlock", _SIGNATURE_5, _ON_TOKENS, _LINEAR_FREE, _PAIR, _PAIRS
        ),
        "pair as a convolution": _general(
            "NonLocalBlock", _SIGNATURE_5, _ON_MAPS, _CONV_5, _PAIR_CONV, _CONV_PAIRS
        ),
        "by inheritance": "class Layers(nn.Module):\n"
        "    def __init__(self, c, d, kind):\n"
        "        super().__init__()\n"
        "        normalise(torch.zeros(1, 1, 1), kind)  # refuses unknown names\n"
        "        self.kind = kind\n"
        "        if kind != 'gaussian':\n"
        "            self.query, self.key = nn.Conv2d(c, d, 1), nn.Conv2d(c, d, 1)\n"
        "        else:\n            self.query = self.key = nn.Identity()\n"
        "        self.value, self.out = nn.Conv2d(c, d, 1), nn.Conv2d(d, c, 1)\n"
        "        nn.init.zeros_(self.out.weight), nn.init.zeros_(self.out.bias)\n"
        "        if kind == 'concat':\n"
        "            self.pair = nn.Linear(2 * d, 1, bias=False)\n"
        "\n\nclass NonLocalBlock(Layers):\n"
        '    def __init__(self, in_channels, instantiation="embedded_gaussian", reduction=2):\n'
        "        super().__init__(in_channels, in_channels // reduction, instantiation)\n"
        "    def forward(self, x):\n"
        "        q, k, v = (m(x).flatten(2).mT for m in (self.query, self.key, self.value))\n"
        '        if self.kind == "concat":\n'
        "            a, b = self.pair.weight[0].chunk(2)\n"
        "            s = F.relu((q @ a)[:, :, None] + (k @ b)[:, None])\n"
        "        else:\n            s = q @ k.mT\n"
        "        y = (normalise(s, self.kind) @ v).mT.reshape(len(x), -1, *x.shape[2:])\n"
        "        return x + self.out(y)\n",
    },
    "c01-e6": {
        "linear, all pairs": _general(
            "NonLocalBlockNd", _SIGNATURE_6, _ON_TOKENS, _LINEAR, _PAIR, _PAIRS
        ),
        "convolution by name": _general(
            "NonLocalBlockNd", _SIGNATURE_6, _ON_MAPS, _CONV_6, _PAIR_PARAMETER, _HALVES
        ),
        "no biases": _general(
            "NonLocalBlockNd", _SIGNATURE_6, _ON_TOKENS, _LINEAR_FREE, _PAIR, _PAIRS
        ),
        "pair as a convolution": _general(
            "NonLocalBlockNd", _SIGNATURE_6, _ON_MAPS, _CONV_6, _PAIR_CONV, _CONV_PAIRS
        ),
    },
    "c01-e7": {
        "einsum in two steps": "def dot_product_linear(query, key, value):\n"
        '    summary = torch.einsum("nmd,nmc->ndc", key, value) / key.shape[1]\n'
        '    return torch.einsum("nld,ndc->nlc", query, summary)\n',
        "divide the values": "def dot_product_linear(query, key, value):\n"
        "    return query @ (key.mT @ (value / value.shape[1]))\n",
        "bmm": "def dot_product_linear(query, key, value):\n"
        "    return torch.bmm(query, torch.bmm(key.permute(0, 2, 1), value)).div(key.size(1))\n",
        "divide the keys": "def dot_product_linear(q, k, v):\n"
        "    return q.matmul((k / len(k[0])).transpose(-2, -1).matmul(v))\n",
    },
}
