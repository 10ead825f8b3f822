"""Mutants and variants of chapter 04."""

from mutants.answers import Mutant

_E1 = "x.flatten(2).mean(dim=2)"
_LOGITS = 'logits = torch.einsum("ncl,c->nl", features, key_weight)  # (N, L)'
_SOFTMAX = "logits.softmax(dim=1)"
_SUM = 'torch.einsum("ncl,nl->nc", features, attention)'
_E3 = "self.expand(self.reduce(context).relu())"
_ZERO = "        nn.init.zeros_(self.expand.weight)\n        nn.init.zeros_(self.expand.bias)\n"
_ZERO_BIAS = "        nn.init.zeros_(self.expand.bias)\n"
_T = "t = transformed.unflatten(1, (-1, *[1] * (x.dim() - 2)))  # (N, C, 1, ..., 1)"
_ADD = "return x + t\n"
_SCALE = "return x * t.sigmoid()"
_TWICE = "return x * (2 * t.sigmoid())"
_RAISE = 'raise ValueError(f"unknown fusion {how!r}")'
_FUSED = "return fuse(x, self.transform(context), self.fusion)"
_ATTENTION = "context = attention_pooling(x, self.key.weight[0])"
_AVERAGE = "context = average_pooling(x)"
_LINEAR = "self.transform = nn.Linear(in_channels, in_channels)"
_LINEAR_WEIGHT = "            nn.init.zeros_(self.transform.weight)\n"
_LINEAR_BIAS = "            nn.init.zeros_(self.transform.bias)\n"
_REFUSALS = {
    "pooling": '        if pooling not in ("average", "attention"):\n'
    '            raise ValueError(f"unknown pooling {pooling!r}")\n',
    "transform": '        if transform not in ("linear", "bottleneck"):\n'
    '            raise ValueError(f"unknown transform {transform!r}")\n',
    "fusion": '        if fusion not in ("add", "scale", "2scale"):\n'
    '            raise ValueError(f"unknown fusion {fusion!r}")\n',
}

MUTANTS = {
    "c04-e1": [
        Mutant("sum", {_E1: "x.flatten(2).sum(2)"}, "divide by the number of positions"),
        Mutant("last axis", {_E1: "x.mean(-1)"}, "only the last axis was pooled"),
        Mutant("height alone", {_E1: "x.mean(2)"}, "only one axis was pooled"),
        Mutant("channels", {_E1: "x.mean((1, 2))"}, "the channels were pooled: the positions"),
        Mutant("channels too", {_E1: "x.flatten(1).mean(1)"}, "the channels were pooled too"),
        Mutant("everything", {_E1: "x.mean()"}, "into one number"),
        Mutant("six positions", {_E1: "x.flatten(2).sum(2) / 6"}, "two positions in place of six"),
        Mutant("keepdim", {_E1: "x.mean((2, 3), keepdim=True)"}, "axes of size 1 are left over"),
        Mutant("keepdim, flat", {_E1: "x.flatten(2).mean(2, keepdim=True)"}, "an axis of size 1"),
        Mutant("images alone", {_E1: "x.mean((2, 3))"}, "Dimension out of range"),
        Mutant("last two axes", {_E1: "x.mean((-1, -2))"}, "the number of axes is fixed"),
        Mutant("maximum", {_E1: "x.flatten(2).amax(2)"}, "the maximum, not the mean"),
        Mutant(
            "divided by everything",
            {_E1: "x.flatten(2).sum(2) / x[0].numel()"},
            "all numbers of the example",
        ),
        Mutant("absolute values", {_E1: "x.flatten(2).abs().mean(2)"}, "the sign is lost"),
        Mutant("ReLU", {_E1: "x.flatten(2).relu().mean(2)"}, "negative numbers are lost"),
        Mutant(
            "cut with reshape",
            {_E1: "x.reshape(len(x), -1, x.shape[1]).mean(1)"},
            "positions and channels are mixed",
        ),
        Mutant(
            "interleaved",
            {_E1: "x.flatten(2).mT.reshape(len(x), x.shape[1], -1).mean(2)"},
            "positions and channels are mixed",
        ),
        Mutant("transposed", {_E1: f"{_E1}.T"}, "examples and channels are swapped"),
        Mutant("squeezed", {_E1: f"{_E1}.squeeze()"}, "axis 0, the examples, is gone"),
        Mutant("median", {_E1: "x.flatten(2).median(2).values"}, "the median"),
        Mutant(
            "divided by the width", {_E1: "x.flatten(2).sum(2) / x.shape[-1]"}, "the width alone"
        ),
        Mutant(
            "divided by the height", {_E1: "x.flatten(2).sum(2) / x.shape[2]"}, "the height alone"
        ),
        Mutant(
            "drops the batch", {_E1: "x[0].flatten(1).mean(1)"}, "axis 0, the examples, is gone"
        ),
        Mutant("mixes examples", {_E1: f"{_E1} * 0 + x.flatten(2).mean((0, 2))"}, "are mixed"),
        Mutant("detached", {_E1: "x.detach().flatten(2).mean(2)"}, "cut off"),
        Mutant("fixed dtype", {_E1: f"({_E1}).float()"}, "fixed dtype"),
        Mutant(
            "in place", {f"return {_E1}": f"y = {_E1}\n    x -= x.mean()\n    return y"}, "in place"
        ),
        Mutant("no return", {f"return {_E1}": _E1}, "without a return statement"),
        Mutant("clamped", {_E1: f"({_E1}).clamp(-4, 4)"}, "expected", hidden=True),
    ],
    "c04-e2": [
        Mutant("plain mean", {_SUM: "features.mean(2) + 0 * logits.sum()"}, "plain mean"),
        Mutant(
            "softmax over one number",
            {_SOFTMAX: "logits[..., None].softmax(2)[..., 0]"},
            "axis of size 1",
        ),
        Mutant("over the examples", {_SOFTMAX: "logits.softmax(dim=0)"}, "axis of size 1"),
        Mutant("exp only", {_SOFTMAX: "logits.exp()"}, "not divided by their sum"),
        Mutant("no softmax", {_SOFTMAX: "logits"}, "softmax is missing: the logits"),
        Mutant(
            "shares of the logits",
            {_SOFTMAX: "logits / logits.sum(1, keepdim=True)"},
            "the logits are divided by their sum",
        ),
        Mutant("sigmoid", {_SOFTMAX: "logits.sigmoid()"}, "does not compare positions"),
        Mutant(
            "hard attention",
            {_SOFTMAX: "nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(x)"},
            "only the position with the largest logit",
        ),
        Mutant(
            "divided again", {_SUM: f"{_SUM} / features.shape[2]"}, "as well: softmax sums to 1"
        ),
        Mutant("scaled by root C", {_SOFTMAX: "(logits / x.shape[1] ** 0.5).softmax(1)"}, "√C"),
        Mutant("scaled by C", {_SOFTMAX: "(logits / x.shape[1]).softmax(1)"}, "divided by C"),
        Mutant(
            "scaled by root L",
            {_SOFTMAX: "(logits / logits.shape[1] ** 0.5).softmax(1)"},
            "the root of N_p",
        ),
        Mutant(
            "over channels",
            {_SUM: "(features * (features * key_weight[:, None]).softmax(1)).sum(2)"},
            "softmax ran over the channels",
        ),
        Mutant(
            "channel by channel",
            {_SUM: "(features * (features * key_weight[:, None]).softmax(2)).sum(2)"},
            "softmax for each channel by itself",
        ),
        Mutant("logarithms", {_SOFTMAX: "logits.log_softmax(1)"}, "log_softmax gives"),
        Mutant(
            "divided by the channels",
            {_SUM: f"{_SUM} / x.shape[1]"},
            "divided by the number of channels",
        ),
        Mutant(
            "shares of sigmoids",
            {_SOFTMAX: "logits.sigmoid() / logits.sigmoid().sum(1, True)"},
            "the weights are sigmoids",
        ),
        Mutant(
            "one softmax for all",
            {_SOFTMAX: "logits.flatten().softmax(0).view_as(logits)"},
            "are mixed",
        ),
        Mutant(
            "largest of the batch",
            {
                _SOFTMAX: "(logits - logits.max()).exp()\n    attention = attention / attention.sum(1, True)"
            },
            "take that of each example",
        ),
        Mutant(
            "map detached",
            {_SUM: _SUM.replace("features,", "features.detach(),")},
            "cut off",
            hidden=True,
        ),
        Mutant("sign", {_SOFTMAX: "(-logits).softmax(1)"}, "the sign of the logits"),
        Mutant("softmax twice", {_SOFTMAX: "logits.softmax(1).softmax(1)"}, "softmax twice"),
        Mutant(
            "rows alone",
            {_SOFTMAX: "logits.view(len(x), *x.shape[2:]).softmax(-1).flatten(1) / x.shape[2] * 2"},
            "over the rows of the map alone",
        ),
        Mutant(
            "columns alone",
            {_SOFTMAX: "logits.view(len(x), *x.shape[2:]).softmax(1).flatten(1)"},
            "over the columns of the map alone",
        ),
        Mutant("keys as values", {_SUM: f"{_SUM} * key_weight"}, "multiplied by the key"),
        Mutant("residual", {_SUM: f"{_SUM} + features.mean(2)"}, "attention takes its place"),
        Mutant("not summed", {_SUM: "features * attention[:, None]"}, "weighted and not summed"),
        Mutant("weights alone", {f"return {_SUM}": "return attention"}, "sum the positions with"),
        Mutant("axis left over", {_SUM: f"{_SUM}[..., None]"}, "an axis of size 1 is left over"),
        Mutant("drops the batch", {_SUM: f"{_SUM}[0]"}, "axis 0, the examples, is gone"),
        Mutant(
            "overflow",
            {_SOFTMAX: "logits.exp() / logits.exp().sum(1, keepdim=True)"},
            "subtract the largest logit",
        ),
        Mutant(
            "cut instead of flattened",
            {"features = x.flatten(2)": "features = x.reshape(len(x), -1, x.shape[1]).mT"},
            "the map is cut with reshape",
        ),
        Mutant(
            "mixes examples",
            {
                _SUM: f"{_SUM.replace(', attention', ', attention.mean(0, True).expand_as(attention)')}"
            },
            "are mixed",
        ),
        Mutant("detached", {_SOFTMAX: "logits.softmax(1).detach()"}, "cut off"),
        Mutant("fixed dtype", {f"return {_SUM}": f"return ({_SUM}).float()"}, "fixed dtype"),
        Mutant(
            "in place",
            {f"return {_SUM}": f"y = {_SUM}\n    key_weight.zero_()\n    return y"},
            "in place",
        ),
        Mutant("images alone", {"x.flatten(2)": "x.flatten(2, 3)"}, "Dimension out of range"),
        Mutant(
            "images alone, by size",
            {"x.flatten(2)": "x.view(*x.shape[:2], x.shape[2] * x.shape[3])"},
            "expected",
        ),
        Mutant(
            "clamped", {_SOFTMAX: "logits.clamp(-20, 20).softmax(dim=1)"}, "expected", hidden=True
        ),
    ],
    "c04-e3": [
        Mutant("no ReLU", {".relu()": ""}, "ReLU is missing"),
        Mutant(
            "ReLU behind", {_E3: "self.expand(self.reduce(context)).relu()"}, "behind the second"
        ),
        Mutant("two ReLUs", {_E3: f"{_E3}.relu()"}, "a second ReLU"),
        Mutant("ReLU in front", {_E3: "self.expand(self.reduce(context.relu()))"}, "in front of"),
        Mutant("sigmoid between", {".relu()": ".sigmoid()"}, "a sigmoid stands between"),
        Mutant("sigmoid at the end", {_E3: f"{_E3}.sigmoid()"}, "the gate belongs to the fusion"),
        Mutant("residual", {_E3: f"context + {_E3}"}, "residual belongs to the fusion"),
        Mutant(
            "multiplied", {_E3: f"context * {_E3}"}, "multiplied by the input: that is the fusion"
        ),
        Mutant("leaky", {_E3: "self.expand(F.leaky_relu(self.reduce(context)))"}, "numbers leak"),
        Mutant("ELU", {_E3: "self.expand(F.elu(self.reduce(context)))"}, "numbers leak"),
        Mutant("GELU", {_E3: "self.expand(F.gelu(self.reduce(context)))"}, "another activation"),
        Mutant("softmax between", {".relu()": ".softmax(1)"}, "another activation"),
        Mutant(
            "layer norm without weights",
            {
                _E3: "self.expand(F.layer_norm(self.reduce(context), (len(self.reduce.bias),)).relu())"
            },
            "a norm stands between",
        ),
        Mutant(
            "batch norm",
            {
                _E3: "self.expand(F.batch_norm(self.reduce(context), None, None, training=True).relu())"
            },
            "a norm stands between",
        ),
        Mutant("zero in forward", {_ZERO: "", f"return {_E3}": f"return 0 * {_E3}"}, "always zero"),
        Mutant(
            "first weight at zero",
            {_ZERO_BIAS: f"{_ZERO_BIAS}        nn.init.zeros_(self.reduce.weight)\n"},
            "leave the numbers of the first layer alone",
        ),
        Mutant(
            "first weight all the same",
            {_ZERO_BIAS: f"{_ZERO_BIAS}        nn.init.constant_(self.reduce.weight, 0.1)\n"},
            "leave the numbers of the first layer alone",
        ),
        Mutant(
            "seeded",
            {"super().__init__()": "super().__init__()\n        torch.manual_seed(0)"},
            "two modules start alike",
        ),
        Mutant(
            "rounded",
            {"in_channels // ratio": "round(in_channels / ratio)"},
            "14 channels, ratio=5",
        ),
        Mutant(
            "rounded up",
            {"in_channels // ratio": "-(-in_channels // ratio)"},
            "12 channels, ratio=5",
        ),
        Mutant("one slash", {"in_channels // ratio": "in_channels / ratio"}, "in place of /"),
        Mutant(
            "float64",
            {
                "nn.Linear(in_channels, hidden)": "nn.Linear(in_channels, hidden, dtype=torch.float64)"
            },
            "fixed dtype",
        ),
        Mutant(
            "changes the context",
            {_E3: "self.expand(self.reduce(context.relu_()).relu())"},
            "in front of",
        ),
        Mutant("ReLU6", {".relu()": ".clamp(0, 6)"}, "expected", hidden=True),
        Mutant("absolute", {".relu()": ".abs()"}, "the absolute value"),
        Mutant("tanh", {".relu()": ".tanh()"}, "tanh is not ReLU"),
        Mutant(
            "layer norm",
            {
                _ZERO_BIAS: f"{_ZERO_BIAS}        self.norm = nn.LayerNorm(hidden)\n",
                _E3: "self.expand(self.norm(self.reduce(context)).relu())",
            },
            "layers that the formula does not have",
        ),
        Mutant(
            "weight not zero",
            {"        nn.init.zeros_(self.expand.weight)\n": ""},
            "does not start at zero",
        ),
        Mutant("bias not zero", {_ZERO_BIAS: ""}, "does not start at zero"),
        Mutant(
            "everything at zero",
            {_ZERO_BIAS: "        for p in self.parameters():\n            nn.init.zeros_(p)\n"},
            "only the last layer starts at zero",
        ),
        Mutant(
            "first layer at zero",
            {_ZERO_BIAS: f"{_ZERO_BIAS}{_ZERO.replace('expand', 'reduce')}"},
            "only the last layer starts at zero",
        ),
        Mutant("ratio ignored", {"in_channels // ratio": "in_channels"}, "has other channels"),
        Mutant(
            "ratio times", {"in_channels // ratio": "in_channels * ratio"}, "has other channels"
        ),
        Mutant("ratio fixed", {"in_channels // ratio": "in_channels // 2"}, "12 channels, ratio=5"),
        Mutant("other default", {"ratio=16": "ratio=4"}, "the default ratio is 16"),
        Mutant(
            "one map",
            {
                _E3: "self.reduce(context).relu()",
                "        self.expand = nn.Linear(hidden, in_channels)\n": "",
                _ZERO: "",
            },
            "a layer is missing",
        ),
        Mutant(
            "hidden in a list",
            {
                "self.expand = nn.Linear(hidden, in_channels)": "self.layers = [nn.Linear(hidden, in_channels)]",
                "self.expand": "self.layers[0]",
            },
            "a list, a dict or a plain tensor hides it",
        ),
        Mutant(
            "dropout",
            {_E3: "self.expand(F.dropout(self.reduce(context).relu(), 0.5, self.training))"},
            "expected",
        ),
        Mutant(
            "other in evaluation",
            {
                f"return {_E3}": f"if not self.training:\n            return 0 * context\n        return {_E3}"
            },
            "asks for self.training",
        ),
        Mutant("detached", {".relu()": ".relu().detach()"}, "cut off"),
        Mutant("mixes examples", {_E3: f"{_E3} - {_E3}.mean(0)"}, "expected"),
        Mutant(
            "in place",
            {f"return {_E3}": f"y = {_E3}\n        context.zero_()\n        return y"},
            "in place",
        ),
        Mutant("clamped", {".relu()": ".clamp(0, 20)"}, "expected", hidden=True),
    ],
    "c04-e4": [
        Mutant("t as it is", {_T: "t = transformed"}, "t met the wrong axes"),
        Mutant(
            "t at the columns",
            {_T: "t = transformed.view(*[1] * (x.dim() - 2), *transformed.shape)"},
            "t met the wrong axes",
        ),
        Mutant("images alone", {_T: "t = transformed[:, :, None, None]"}, "t met the wrong axes"),
        Mutant("add: product", {_ADD: "return x * t\n"}, "multiplied, not added"),
        Mutant("add: minus", {_ADD: "return x - t\n"}, "subtracted, not added"),
        Mutant("add: no residual", {_ADD: "return t + 0 * x\n"}, "the residual is forgotten"),
        Mutant("add: sigmoid", {_ADD: "return x + t.sigmoid()\n"}, "a sigmoid is for scaling"),
        Mutant("add: gate", {_ADD: "return x * t.sigmoid()\n"}, "add is for addition"),
        Mutant("add: relu", {_ADD: "return (x + t).relu()\n"}, "a ReLU stands behind"),
        Mutant("add: mean", {_ADD: "return (x + t) / 2\n"}, "the sum is divided"),
        Mutant("add: twice", {_ADD: "return x + 2 * t\n"}, "t is added twice"),
        Mutant("add: relu of t", {_ADD: "return x + t.relu()\n"}, "negative numbers of t are lost"),
        Mutant(
            "add: one number",
            {_ADD: "return x + t.mean(1, keepdim=True)\n"},
            "one number for all channels",
        ),
        Mutant("scale: sigmoid of the sum", {_SCALE: "return (x + t).sigmoid()"}, "of the sum"),
        Mutant(
            "scale: hard sigmoid",
            {_SCALE: "return x * nn.functional.hardsigmoid(t)"},
            "another gate",
        ),
        Mutant("scale: exp", {_SCALE: "return x * t.exp()"}, "another gate"),
        Mutant(
            "scale: one gate",
            {_SCALE: "return x * t.mean(1, keepdim=True).sigmoid()"},
            "one gate for all channels",
        ),
        Mutant("scale: half", {_SCALE: "return x / 2 + 0 * t"}, "the gate has to follow t"),
        Mutant(
            "scale: softmax over examples",
            {_SCALE: "return x * t.softmax(0)"},
            "the gate is 1 everywhere",
        ),
        Mutant("2scale: no sigmoid", {_TWICE: "return 2 * x * t"}, "doubled, but without"),
        Mutant("2scale: sum", {_TWICE: "return x + 2 * t.sigmoid()"}, "the gate is added"),
        Mutant("2scale: tanh", {_TWICE: "return x * (1 + t.tanh())"}, "1 + tanh(t)"),
        Mutant("first example for all", {_T: f"{_T}\n    t = t[:1]"}, "examples are mixed"),
        Mutant(
            "any scale",
            {'if how == "scale"': 'if how.endswith("scale") and how[0] != "2"'},
            "falls through",
        ),
        Mutant("small letters", {_T: f"{_T}\n    how = how.lower()"}, "falls through"),
        Mutant("scale: sum", {_SCALE: "return x + t"}, "added, not multiplied"),
        Mutant("scale: no sigmoid", {_SCALE: "return x * t"}, "multiplied without a sigmoid"),
        Mutant(
            "scale: residual",
            {_SCALE: "return x + x * t.sigmoid()"},
            "the input is added as well",
        ),
        Mutant("scale: gate added", {_SCALE: "return x + t.sigmoid()"}, "the sigmoid is added"),
        Mutant(
            "scale: gate alone",
            {_SCALE: "return t.sigmoid() + 0 * x"},
            "the gate alone came back",
        ),
        Mutant("scale: sign", {_SCALE: "return x * (-t).sigmoid()"}, "the sign is wrong"),
        Mutant("scale: division", {_SCALE: "return x / t.sigmoid()"}, "divided by the gate"),
        Mutant("scale: tanh", {_SCALE: "return x * t.tanh()"}, "tanh in place of the sigmoid"),
        Mutant("scale: inside", {_SCALE: "return x * (1 + t.tanh()) / 2"}, "σ(2t) is not σ(t)"),
        Mutant("scale: softmax", {_SCALE: "return x * t.softmax(1)"}, "channels do not compete"),
        Mutant(
            "scale: gate of x", {_SCALE: "return x.sigmoid() * t"}, "the sigmoid was taken of x"
        ),
        Mutant(
            "scale: twice",
            {_SCALE: "return x * t.sigmoid().sigmoid()"},
            "the sigmoid was taken twice",
        ),
        Mutant("scale: factor 2", {_SCALE: _TWICE}, "the factor 2 belongs to 2scale"),
        Mutant("2scale: no factor", {_TWICE: _SCALE}, "the factor 2 is missing"),
        Mutant("2scale: inside", {_TWICE: "return x * (2 * t).sigmoid()"}, "σ(2t) is not 2σ(t)"),
        Mutant("2scale: plus", {_TWICE: "return x * (2 + t.sigmoid())"}, "2 + σ(t)"),
        Mutant("2scale: squared", {_TWICE: "return x * t.sigmoid() ** 2"}, "squared, not doubled"),
        Mutant("falls through", {_RAISE: _ADD.strip()}, "falls through to one of the known ones"),
        Mutant(
            "error returned", {_RAISE: _RAISE.replace("raise", "return")}, "write raise in place"
        ),
        Mutant("other error", {_RAISE: "raise KeyError(how)"}, "asks for a ValueError"),
        Mutant("prefix", {'how == "add"': 'how in ("add", "")'}, "falls through"),
        Mutant("in place", {_ADD: "x += t\n        return x\n"}, "in place"),
        Mutant("detached", {_SCALE: "return x * t.sigmoid().detach()"}, "cut off"),
        Mutant("fixed dtype", {_TWICE: "return (x * (2 * t.sigmoid())).float()"}, "fixed dtype"),
        Mutant("mixes examples", {_T: f"{_T}\n    t = t.mean(0, keepdim=True)"}, "expected"),
        Mutant("clamped", {_SCALE: "return x * t.clamp(-6, 6).sigmoid()"}, "expected", hidden=True),
    ],
    "c04-e5": [
        Mutant(
            "linear not at zero",
            {_LINEAR_WEIGHT: "", _LINEAR_BIAS: ""},
            "the last layer does not start at zero",
        ),
        Mutant(
            "linear bias not at zero", {_LINEAR_BIAS: ""}, "set its weight and its bias to zero"
        ),
        Mutant(
            "always attention",
            {'if pooling == "attention"': "if True", 'if self.pooling == "attention"': "if True"},
            "layers that the formula does not have: key.weight",
        ),
        Mutant(
            "a key that nobody uses",
            {'if pooling == "attention"': "if True"},
            "layers that the formula does not have",
        ),
        Mutant("average in place of attention", {_ATTENTION: _AVERAGE}, "the other one was used"),
        Mutant(
            "maximum pooling",
            {_AVERAGE: "context = x.flatten(2).amax(2)"},
            "pooling is a mean",
        ),
        Mutant(
            "sum pooling",
            {_AVERAGE: "context = x.flatten(2).sum(2)"},
            "the sum over the positions was not divided",
        ),
        Mutant(
            "always bottleneck",
            {'if transform == "bottleneck"': "if True"},
            "has other channels than the text says",
        ),
        Mutant(
            "always linear",
            {'if transform == "bottleneck"': "if False"},
            "a layer is missing",
        ),
        Mutant(
            "softmax over channels",
            {
                _ATTENTION: "f = x.flatten(2)\n            context = (f * (f * self.key.weight.mT).softmax(1)).sum(2)"
            },
            "softmax ran over the channels",
        ),
        Mutant(
            "layer norm",
            {
                _FUSED: _FUSED.replace(
                    "(context)", "(nn.functional.layer_norm(context, context.shape[1:]))"
                )
            },
            "no part of equation 4",
        ),
        Mutant("ReLU at the end", {_FUSED: f"{_FUSED}.relu()"}, "a ReLU stands behind the sum"),
        Mutant(
            "both at zero",
            {
                "Bottleneck(in_channels, ratio)": "Bottleneck(in_channels, ratio)\n            for p in self.transform.parameters():\n                nn.init.zeros_(p)"
            },
            "only the last layer starts at zero",
        ),
        Mutant(
            "three positions",
            {_AVERAGE: "context = x.flatten(2).sum(2) / 3"},
            "every position twice",
        ),
        Mutant(
            "2t",
            {
                _FUSED: "t = self.transform(context)\n        return fuse(x, 2 * t if self.fusion == '2scale' else t, self.fusion.removeprefix('2'))"
            },
            "the gate has no factor 2",
        ),
        Mutant(
            "unused layers",
            {_LINEAR: f"{_LINEAR}\n            self.spare = Bottleneck(in_channels, ratio)"},
            "layers that the formula does not have",
        ),
        Mutant(
            "x detached",
            {_ATTENTION: _ATTENTION.replace("(x,", "(x.detach(),")},
            "cut off",
            hidden=True,
        ),
        Mutant(
            "images alone",
            {
                _FUSED: "t = self.transform(context)[:, :, None, None]\n        return fuse(x, self.transform(context), self.fusion) if x.dim() != 3 else x + t"
            },
            "two shapes that do not fit",
        ),
        Mutant(
            "transform skipped",
            {_FUSED: "return fuse(x, context + 0 * self.transform(context), self.fusion)"},
            "something else changes",
        ),
        Mutant(
            "always add",
            {_FUSED: _FUSED.replace("self.fusion", '"add"')},
            "it starts at x, as add and 2scale do",
        ),
        Mutant(
            "scale for 2scale",
            {
                "self.pooling, self.fusion = pooling, fusion": 'self.pooling, self.fusion = pooling, fusion.removeprefix("2")'
            },
            "the gate has no factor 2",
        ),
        Mutant(
            "2scale for scale",
            {
                _FUSED: _FUSED.replace(
                    "self.fusion", 'self.fusion.replace("scale", "2scale").replace("22", "2")'
                )
            },
            "it starts at x, as add and 2scale do",
        ),
        Mutant(
            "doubled residual",
            {_FUSED: _FUSED.replace("return", "return x +")},
            "the residual is counted twice",
        ),
        Mutant(
            "no residual",
            {_FUSED: _FUSED.replace("return", "return -x +")},
            "the residual is forgotten",
        ),
        Mutant(
            "fused twice",
            {_FUSED: f"x = {_FUSED.removeprefix('return ')}\n        {_FUSED}"},
            "fused twice",
        ),
        Mutant(
            "each position by itself",
            {
                _FUSED: "t = self.transform(x.flatten(2).mT).mT.reshape(x.shape)\n"
                "        if self.pooling == 'attention':\n            t = t + 0 * context.view(*context.shape, *[1] * (x.dim() - 2))\n"
                "        if self.fusion == 'add':\n            return x + t\n"
                "        return x * t.sigmoid() * int(self.fusion[0].replace('s', '1'))"
            },
            "every position is transformed by itself",
        ),
        Mutant(
            "transformed before pooled",
            {
                _ATTENTION: _ATTENTION,
                _FUSED: "if self.pooling == 'average':\n"
                "            t = self.transform(x.flatten(2).mT).mean(1)\n"
                "            return fuse(x, t, self.fusion)\n        " + _FUSED,
            },
            "with a ReLU between, the order matters",
        ),
        Mutant(
            "not returned",
            {_FUSED: f"{_FUSED.removeprefix('return ')}\n        return x"},
            "expected",
        ),
        Mutant(
            "ratio ignored",
            {"Bottleneck(in_channels, ratio)": "Bottleneck(in_channels)"},
            "expected",
        ),
        Mutant(
            "other default pooling",
            {'pooling="attention"': 'pooling="average"'},
            "the defaults are attention",
        ),
        Mutant(
            "other default transform",
            {'transform="bottleneck"': 'transform="linear"'},
            "the defaults are attention",
        ),
        Mutant(
            "other default fusion", {'fusion="add"': 'fusion="scale"'}, "the defaults are attention"
        ),
        Mutant("other default ratio", {"ratio=16": "ratio=4"}, "the defaults are attention"),
        *(
            Mutant(f"unknown {name} taken", {text: ""}, says)
            for (name, text), says in zip(
                _REFUSALS.items(),
                (
                    "an unknown pooling falls",
                    "an unknown transform falls",
                    "too late: look at the fusion",
                ),
                strict=True,
            )
        ),
        Mutant("detached", {_FUSED: _FUSED.replace("(context)", "(context.detach())")}, "cut off"),
        Mutant("no super", {"        super().__init__()\n": ""}, "super().__init__()"),
        Mutant(
            "shared layers",
            {
                "class ContextBlock": "_shared = {}\n\n\nclass ContextBlock",
                "self.transform = Bottleneck(in_channels, ratio)": "self.transform = _shared.setdefault(in_channels, Bottleneck(in_channels, ratio))",
            },
            "expected",
        ),
        Mutant(
            "other in evaluation",
            {_FUSED: f"if not self.training:\n            return x\n        {_FUSED}"},
            "asks for self.training",
        ),
        Mutant(
            "key at random each time",
            {
                _ATTENTION: _ATTENTION.replace(
                    "self.key.weight[0]",
                    "self.key.weight[0] + torch.randn_like(self.key.weight[0])",
                )
            },
            "expected",
        ),
        Mutant(
            "clamped",
            {
                _FUSED: _FUSED.replace(
                    "self.transform(context)", "self.transform(context).clamp(-40, 40)"
                ).replace("return ", "return ")
            },
            "expected",
            hidden=True,
        ),
    ],
}

VARIANTS = {
    "c04-e1": {
        "mean of several axes": "def average_pooling(x):\n"
        "    return x.mean(dim=tuple(range(2, x.dim())))\n",
        "sum and count": "def average_pooling(x):\n    flat = x.reshape(*x.shape[:2], -1)\n"
        "    return flat.sum(-1) / flat.shape[-1]\n",
        "matrix product": "def average_pooling(x):\n    flat = x.flatten(2)\n"
        "    return flat @ flat.new_full((flat.shape[2],), 1 / flat.shape[2])\n",
        "axis by axis": "def average_pooling(x):\n    while x.dim() > 2:\n        x = x.mean(-1)\n"
        "    return x\n",
        "einsum": "def average_pooling(x):\n"
        '    return torch.einsum("nc...->nc", x) / x[0, 0].numel()\n',
    },
    "c04-e2": {
        "library": "def attention_pooling(x, key_weight):\n    f = x.flatten(2).mT\n"
        "    query = key_weight.expand(len(x), 1, -1)\n"
        "    return F.scaled_dot_product_attention(query, f, f, scale=1.0)[:, 0]\n",
        "example by example": "def attention_pooling(x, key_weight):\n    found = []\n"
        "    for map in x:\n        f = map.flatten(1)\n"
        "        found.append(f @ (key_weight @ f).softmax(0))\n    return torch.stack(found)\n",
        "matmul": "def attention_pooling(x, key_weight):\n    f = x.flatten(2)\n"
        "    a = (key_weight @ f).softmax(-1)\n    return (f @ a[:, :, None])[:, :, 0]\n",
        "positions first": "def attention_pooling(x, w):\n    f = x.flatten(2).transpose(1, 2)\n"
        "    a = torch.softmax(f @ w, dim=1)\n    return (f * a[:, :, None]).sum(1)\n",
        "own softmax": "def attention_pooling(x, key_weight):\n    f = x.flatten(2)\n"
        "    logits = (f * key_weight[:, None]).sum(1)\n"
        "    e = (logits - logits.amax(1, keepdim=True)).exp()\n"
        "    return (f * e[:, None]).sum(2) / e.sum(1, keepdim=True)\n",
        "1×1 convolution": "def attention_pooling(x, key_weight):\n    f = x.flatten(2)\n"
        "    logits = F.conv1d(f, key_weight.view(1, -1, 1))\n"
        "    return torch.bmm(logits.softmax(2), f.mT).squeeze(1)\n",
        "other names": "def attention_pooling(features, key):\n"
        '    weights = torch.einsum("nc...,c->n...", features, key).flatten(1).softmax(1)\n'
        "    return torch.einsum('ncl,nl->nc', features.flatten(2), weights)\n",
    },
    "c04-e3": {
        "sequential": "class Bottleneck(nn.Module):\n    def __init__(self, in_channels, ratio=16):\n"
        "        super().__init__()\n        h = in_channels // ratio\n"
        "        self.layers = nn.Sequential(nn.Linear(in_channels, h), nn.ReLU(), nn.Linear(h, in_channels))\n"
        "        self.layers[2].weight.data.zero_()\n        self.layers[2].bias.data.zero_()\n\n"
        "    def forward(self, c):\n        return self.layers(c)\n",
        "1×1 convolutions": "class Bottleneck(nn.Module):\n    def __init__(self, in_channels, ratio=16):\n"
        "        super().__init__()\n        h = in_channels // ratio\n"
        "        self.fc2 = nn.Conv2d(h, in_channels, 1)\n        self.fc1 = nn.Conv2d(in_channels, h, 1)\n"
        "        nn.init.constant_(self.fc2.weight, 0)\n        nn.init.constant_(self.fc2.bias, 0)\n\n"
        "    def forward(self, c):\n        c = c[:, :, None, None]\n"
        "        return self.fc2(torch.relu(self.fc1(c))).flatten(1)\n",
        "bare parameters": "class Bottleneck(nn.Module):\n    def __init__(self, in_channels, ratio=16):\n"
        "        super().__init__()\n        h = in_channels // ratio\n"
        "        self.w1 = nn.Parameter(torch.randn(in_channels, h) / in_channels**0.5)\n"
        "        self.b1 = nn.Parameter(torch.zeros(h))\n"
        "        self.w2 = nn.Parameter(torch.zeros(h, in_channels))\n"
        "        self.b2 = nn.Parameter(torch.zeros(in_channels))\n\n"
        "    def forward(self, c):\n        return (c @ self.w1 + self.b1).clamp(min=0) @ self.w2 + self.b2\n",
        "subclass of sequential": "class Bottleneck(nn.Sequential):\n    def __init__(self, in_channels, ratio=16):\n"
        "        h = max(1, in_channels // ratio)\n        last = nn.Linear(h, in_channels)\n"
        "        for p in last.parameters():\n            nn.init.zeros_(p)\n"
        "        super().__init__(nn.Linear(in_channels, h), nn.ReLU(inplace=True), last)\n",
        "no biases": "class Bottleneck(nn.Module):\n    def __init__(self, in_channels, ratio=16):\n"
        "        super().__init__()\n"
        "        self.down = nn.Linear(in_channels, in_channels // ratio, bias=False)\n"
        "        self.up = nn.Linear(in_channels // ratio, in_channels, bias=False)\n"
        "        nn.init.zeros_(self.up.weight)\n\n"
        "    def forward(self, c):\n        return self.up(F.relu(self.down(c)))\n",
    },
    "c04-e4": {
        "reshape": "def fuse(x, transformed, how):\n"
        "    t = transformed.reshape(transformed.shape + (1,) * (x.dim() - 2))\n"
        '    if how == "add":\n        return t + x\n'
        '    if how not in ("scale", "2scale"):\n        raise ValueError(how)\n'
        '    return torch.sigmoid(t) * x * (2 if how == "2scale" else 1)\n',
        "flattened": "def fuse(x, transformed, how):\n    flat, t = x.flatten(2), transformed[..., None]\n"
        "    choices = {'add': lambda: flat + t, 'scale': lambda: flat * t.sigmoid(),\n"
        "               '2scale': lambda: 2 * flat * t.sigmoid()}\n"
        "    if how not in choices:\n        raise ValueError('no such fusion: ' + how)\n"
        "    return choices[how]().reshape(x.shape)\n",
        "channels last": "def fuse(x, transformed, how):\n    y = x.movedim(1, -1)\n"
        "    t = transformed.view(len(x), *[1] * (x.dim() - 2), -1)\n"
        "    match_ = {'add': y + t, 'scale': y / (1 + (-t).exp()), '2scale': y * (1 + (t / 2).tanh())}\n"
        "    if how in match_:\n        return match_[how].movedim(-1, 1)\n"
        "    raise ValueError(how)\n",
        "loop of unsqueeze": "def fuse(x, transformed, how):\n    t = transformed\n"
        "    while t.dim() < x.dim():\n        t = t.unsqueeze(-1)\n"
        "    if how == 'add':\n        return x.add(t)\n    elif how == 'scale':\n"
        "        return x.mul(F.sigmoid(t))\n    elif how == '2scale':\n"
        "        return x.mul(F.sigmoid(t)).mul(2)\n    else:\n        raise ValueError()\n",
    },
    "c04-e5": {
        "all in one class": "class ContextBlock(nn.Module):\n"
        "    def __init__(self, in_channels, pooling='attention', transform='bottleneck', fusion='add', ratio=16):\n"
        "        super().__init__()\n"
        "        if pooling not in ('average', 'attention') or transform not in ('linear', 'bottleneck'):\n"
        "            raise ValueError\n"
        "        if fusion not in ('add', 'scale', '2scale'):\n            raise ValueError\n"
        "        self.fusion = fusion\n"
        "        self.key = nn.Conv1d(in_channels, 1, 1) if pooling == 'attention' else None\n"
        "        width = in_channels // ratio\n"
        "        self.first = nn.Linear(in_channels, width) if transform == 'bottleneck' else nn.Identity()\n"
        "        self.last = nn.Linear(width if transform == 'bottleneck' else in_channels, in_channels)\n"
        "        self.act = nn.ReLU() if transform == 'bottleneck' else nn.Identity()\n"
        "        nn.init.zeros_(self.last.weight)\n        nn.init.zeros_(self.last.bias)\n\n"
        "    def forward(self, x):\n        f = x.flatten(2)\n"
        "        if self.key is None:\n            c = f.mean(2)\n"
        "        else:\n            c = (f * self.key(f).softmax(2)).sum(2)\n"
        "        t = self.last(self.act(self.first(c)))\n"
        "        t = t.view(*t.shape, *[1] * (x.dim() - 2))\n"
        "        if self.fusion == 'add':\n            return x + t\n"
        "        return x * t.sigmoid() * (2 if self.fusion == '2scale' else 1)\n",
        "callables": "class ContextBlock(nn.Module):\n"
        "    def __init__(self, in_channels, pooling='attention', transform='bottleneck', fusion='add', ratio=16):\n"
        "        super().__init__()\n"
        "        if pooling == 'attention':\n            self.w_k = nn.Parameter(torch.zeros(in_channels))\n"
        "            self.pool = lambda x: attention_pooling(x, self.w_k)\n"
        "        elif pooling == 'average':\n            self.pool = average_pooling\n"
        "        else:\n            raise ValueError(pooling)\n"
        "        if transform == 'linear':\n            self.out = nn.Linear(in_channels, in_channels)\n"
        "            for p in self.out.parameters():\n                nn.init.zeros_(p)\n"
        "        elif transform == 'bottleneck':\n            self.out = Bottleneck(in_channels, ratio)\n"
        "        else:\n            raise ValueError(transform)\n"
        "        if fusion not in {'add', 'scale', '2scale'}:\n            raise ValueError(fusion)\n"
        "        self.how = fusion\n\n"
        "    def forward(self, x):\n        return fuse(x, self.out(self.pool(x)), self.how)\n",
        "module dictionary": "class ContextBlock(nn.Module):\n"
        "    def __init__(self, in_channels, pooling='attention', transform='bottleneck', fusion='add', ratio=16):\n"
        "        super().__init__()\n"
        "        for given, known in ((pooling, ['average', 'attention']), (transform, ['linear', 'bottleneck']),\n"
        "                             (fusion, ['add', 'scale', '2scale'])):\n"
        "            if given not in known:\n                raise ValueError(given)\n"
        "        self.options = pooling, fusion\n        self.parts = nn.ModuleDict()\n"
        "        if transform == 'bottleneck':\n            self.parts['t'] = Bottleneck(in_channels, ratio)\n"
        "        else:\n            self.parts['t'] = nn.Linear(in_channels, in_channels, bias=False)\n"
        "            nn.init.zeros_(self.parts['t'].weight)\n"
        "        if pooling == 'attention':\n            self.parts['k'] = nn.Linear(in_channels, 1)\n\n"
        "    def forward(self, x):\n        pooling, fusion = self.options\n        c = average_pooling(x)\n"
        "        if pooling == 'attention':\n"
        "            logits = self.parts['k'](x.flatten(2).mT)  # (N, L, 1)\n"
        "            c = (x.flatten(2) @ logits.softmax(1))[..., 0]\n"
        "        return fuse(x, self.parts['t'](c), fusion)\n",
        "bare weights": "class ContextBlock(nn.Module):\n"
        "    def __init__(self, in_channels, pooling='attention', transform='bottleneck', fusion='add', ratio=16):\n"
        "        super().__init__()\n"
        "        assert_known = {'average': 0, 'attention': 1}, {'linear': 0, 'bottleneck': 1}, {'add': 0, 'scale': 1, '2scale': 2}\n"
        "        try:\n            kinds = [d[n] for d, n in zip(assert_known, (pooling, transform, fusion))]\n"
        "        except KeyError as error:\n            raise ValueError(f'unknown {error}') from None\n"
        "        self.kinds, h = kinds, in_channels // ratio\n"
        "        if kinds[0]:\n            self.key = nn.Parameter(torch.randn(in_channels, 1))\n"
        "        if kinds[1]:\n            self.reduce = nn.Parameter(torch.randn(in_channels, h))\n"
        "        self.out = nn.Parameter(torch.zeros(h if kinds[1] else in_channels, in_channels))\n\n"
        "    def forward(self, x):\n        tokens = x.flatten(2).mT\n"
        "        c = tokens.mean(1)\n"
        "        if self.kinds[0]:\n            c = ((tokens @ self.key).softmax(1) * tokens).sum(1)\n"
        "        if self.kinds[1]:\n            c = (c @ self.reduce).relu()\n"
        "        return fuse(x, c @ self.out, ('add', 'scale', '2scale')[self.kinds[2]])\n",
    },
}
