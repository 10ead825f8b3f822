"""Mutants and variants of chapter 05."""

from mutants.answers import Mutant

_CENTRED = "centred = x - x.mean(dim=1, keepdim=True)"
_VARIANCE = "variance = centred.square().mean(dim=1, keepdim=True)"
_E1 = "return centred / (variance + eps).sqrt() * weight + bias"

_ZERO_WEIGHT = "        nn.init.zeros_(self.expand.weight)\n"
_ZERO_BIAS = "        nn.init.zeros_(self.expand.bias)\n"
_NORM = "        self.norm = nn.LayerNorm(inner)\n"
_E2 = "self.expand(self.norm(self.reduce(context)).relu())"
_INNER = "inner = in_channels // ratio"

_ZERO = "the last layer does not start at zero"
_TRANSFORM = [  # mistakes in the transform, with the same words in e2 and e6
    Mutant("no ReLU", {".relu())": ")"}, "ReLU is missing between"),
    Mutant(
        "ReLU first",
        {"self.norm(self.reduce(context)).relu()": "self.norm(self.reduce(context).relu())"},
        "ReLU stands before LayerNorm",
    ),
    Mutant(
        "ReLU last",
        {_E2: "self.expand(self.norm(self.reduce(context))).relu()"},
        "ReLU stands behind W_v2",
    ),
    Mutant(
        "norm not called",
        {"self.norm(self.reduce(context))": "self.reduce(context)"},
        "LayerNorm is not called",
    ),
    Mutant(
        "other eps",
        {"nn.LayerNorm(inner)": "nn.LayerNorm(inner, eps=1e-6)"},
        "eps of the LayerNorm",
    ),
    Mutant(
        "eps of 1e-4",
        {"nn.LayerNorm(inner)": "nn.LayerNorm(inner, eps=1e-4)"},
        "eps of the LayerNorm",
    ),
    Mutant(
        "no shift",
        {"nn.LayerNorm(inner)": "nn.LayerNorm(inner, bias=False)"},
        "a scale and no shift",
    ),
    Mutant("RMSNorm", {"nn.LayerNorm(inner)": "nn.RMSNorm(inner)"}, "a scale and no shift"),
    Mutant(
        "a group for each number",
        {"nn.LayerNorm(inner)": "nn.GroupNorm(inner, inner)"},
        "norm over the wrong axes",
    ),
    Mutant(
        "several groups",
        {"nn.LayerNorm(inner)": "nn.GroupNorm(max(1, inner // 3), inner)"},
        "expected",
        hidden=True,
    ),
    Mutant("ReLU6", {".relu())": ".clamp(0, 6))"}, "expected", hidden=True),
    Mutant("sigmoid inside", {".relu())": ".sigmoid())"}, "another activation"),
    Mutant(
        "no scale and shift",
        {"nn.LayerNorm(inner)": "nn.LayerNorm(inner, elementwise_affine=False)"},
        "or its scale and shift",
    ),
    Mutant(
        "all zero",
        {_ZERO_BIAS: "        for p in self.parameters():\n            nn.init.zeros_(p)\n"},
        "only the last layer starts at zero",
    ),
    Mutant(
        "cut off",
        {"self.reduce(context)": "self.reduce(context).detach()"},
        "cut off from the graph",
    ),
]

_ATTENTION = "attention = self.key(x).flatten(2).softmax(dim=2)"
_CONTEXT = "context = (x.flatten(2) * attention).sum(dim=2)"
_ADD = "return x + self.transform(context)[:, :, None, None]"
_TRANSFORM_LAYER = "self.transform = GCTransform(in_channels, ratio)"
_KEY = "self.key = nn.Conv2d(in_channels, 1, kernel_size=1)"

_PAIRS = (
    '("A8", "softmax never called")',
    '("B7", "softmax over the wrong axis")',
    '("C9", "scaled, not added")',
)
_A, _B, _C = _PAIRS


def _pairs(*pairs: str) -> dict[str, str]:
    return {"": f"def find_bugs():\n    return [{', '.join(pairs)}]\n"}


_ATTENTION6 = "self.key(positions).softmax(dim=1)"
_CONTEXT6 = "(positions * attention).sum(dim=1)"
_ADD6 = "return x + added[:, :, None, None]"
_INNER6 = "int(in_channels * ratio)"

MUTANTS = {
    "c05-e1": [
        Mutant("unbiased", {_VARIANCE: "variance = x.var(dim=1, keepdim=True)"}, "divides by C'"),
        Mutant(
            "eps outside",
            {"(variance + eps).sqrt()": "(variance.sqrt() + eps)"},
            "outside of the root",
        ),
        Mutant("eps squared", {"variance + eps": "variance + eps**2"}, "eps is squared"),
        Mutant("eps fixed", {"variance + eps": "variance + 1e-5"}, "eps is not used"),
        Mutant("no root", {".sqrt()": ""}, "the root is missing"),
        Mutant("not centred", {"return centred": "return x"}, "the mean is not subtracted"),
        Mutant(
            "over the batch",
            {"mean(dim=1, keepdim=True)": "mean(dim=0, keepdim=True)"},
            "axis 0 is the batch",
        ),
        Mutant(
            "over everything", {"mean(dim=1, keepdim=True)": "mean()"}, "one mean for all examples"
        ),
        Mutant(
            "corrected, eps outside",
            {
                _VARIANCE: "variance = x.var(dim=1, keepdim=True)",
                "(variance + eps).sqrt()": "(variance.sqrt() + eps)",
            },
            "outside of the root",
        ),
        Mutant("squares of x", {"centred.square()": "x.square()"}, "centre before you square"),
        Mutant(
            "root mean square",
            {"return centred": "return x", "centred.square()": "x.square()"},
            "root mean square of x",
        ),
        Mutant("sum of squares", {"square().mean(": "square().sum("}, "the squares are summed"),
        Mutant(
            "ReLU",
            {_E1: f"return ({_E1.removeprefix('return ')}).relu()"},
            "the next step of the transform",
        ),
        Mutant("minus bias", {"+ bias": "- bias"}, "bias is subtracted"),
        Mutant(
            "clamped",
            {_E1: f"return ({_E1.removeprefix('return ')}).clamp(-20, 20)"},
            "expected",
            hidden=True,
        ),
        Mutant("not affine", {" * weight + bias": ""}, "weight and bias are not used"),
        Mutant("no bias", {" + bias": ""}, "bias is not added"),
        Mutant("no weight", {" * weight": ""}, "weight is not used"),
        Mutant("swapped", {"* weight + bias": "* bias + weight"}, "weight and bias are swapped"),
        Mutant("other default", {"eps=1e-5": "eps=1e-6"}, "the default of eps"),
        Mutant(
            "in place", {_CENTRED: "x -= x.mean(dim=1, keepdim=True)\n    centred = x"}, "in place"
        ),
        Mutant("detached", {_CENTRED: _CENTRED + "\n    weight = weight.detach()"}, "cut off"),
        Mutant("float64", {_E1: _E1.replace("centred", "centred.double()")}, "fixed dtype"),
        Mutant(
            "statistics detached",
            {".sqrt()": ".sqrt().detach()"},
            "cut off from the graph",
            hidden=True,
        ),
    ],
    "c05-e2": [
        *_TRANSFORM,
        Mutant("weight not zero", {_ZERO_WEIGHT: ""}, _ZERO),
        Mutant("bias not zero", {_ZERO_BIAS: ""}, _ZERO),
        Mutant("ratio times", {_INNER: "inner = in_channels * ratio"}, "the inner width"),
        Mutant("ratio ignored", {_INNER: "inner = 4"}, "inner width"),
        Mutant("rounded up", {_INNER: "inner = -(-in_channels // ratio)"}, "rounded up"),
        Mutant("rounded", {_INNER: "inner = round(in_channels / ratio)"}, "rounded up"),
        Mutant(
            "sigmoid at the end",
            {f"return {_E2}": f"return {_E2}.sigmoid()"},
            "a sigmoid stands at the end",
        ),
        Mutant(
            "zero in forward",
            {_ZERO_WEIGHT: "", _ZERO_BIAS: "", f"return {_E2}": f"return 0 * {_E2}"},
            "always zero",
        ),
        Mutant(
            "norm twice",
            {"self.norm(self.reduce(context))": "self.norm(self.norm(self.reduce(context)))"},
            "called twice",
        ),
        Mutant(
            "BatchNorm",
            {"nn.LayerNorm(inner)": "nn.BatchNorm1d(inner)"},
            "the mean runs over the batch",
        ),
        Mutant(
            "norm behind",
            {
                "nn.LayerNorm(inner)": "nn.LayerNorm(in_channels)",
                _E2: "self.norm(self.expand(self.reduce(context).relu()))",
            },
            "LayerNorm stands behind the last layer",
        ),
        Mutant(
            "no norm",
            {_NORM: "", "self.norm(self.reduce(context))": "self.reduce(context)"},
            "or its scale and shift",
        ),
        Mutant(
            "no bottleneck",
            {
                "self.expand = nn.Linear(inner, in_channels)": "self.expand = nn.Linear("
                "in_channels, in_channels)",
                _E2: "self.expand(context)",
            },
            "a map from C to C",
        ),
        Mutant(
            "residual inside",
            {f"return {_E2}": f"return context + {_E2}"},
            "context is added inside",
        ),
        Mutant(
            "batch statistics",
            {
                "self.norm(self.reduce(context))": "F.batch_norm(self.reduce(context), None, None,"
                " self.norm.weight, self.norm.bias, training=True)"
            },
            "the mean runs over the batch",
        ),
        Mutant(
            "frozen",
            {_ZERO_BIAS: _ZERO_BIAS + "        self.norm.requires_grad_(False)\n"},
            "requires_grad",
        ),
    ],
    "c05-e3": [
        Mutant("softmax missing", {".softmax(dim=2)": ""}, "softmax is never called"),
        Mutant("softmax over channels", {"softmax(dim=2)": "softmax(dim=1)"}, "axis of size 1"),
        Mutant("softmax over the batch", {"softmax(dim=2)": "softmax(dim=0)"}, "axis of size 1"),
        Mutant("exponentials", {"softmax(dim=2)": "exp()"}, "not divided by their sum"),
        Mutant(
            "average",
            {_CONTEXT: "context = x.mean(dim=(2, 3)) + 0 * attention.sum()"},
            "average pooling",
        ),
        Mutant("sigmoid weights", {"softmax(dim=2)": "sigmoid()"}, "sigmoid weights"),
        Mutant(
            "mean of products",
            {".sum(dim=2)": ".mean(dim=2)"},
            "divided by the number of positions",
        ),
        Mutant(
            "scaled logits",
            {".softmax(dim=2)": ".div(x.shape[1] ** 0.5).softmax(dim=2)"},
            "equation 5 has no scale",
        ),
        Mutant(
            "scaled by C",
            {".softmax(dim=2)": ".div(x.shape[1]).softmax(dim=2)"},
            "the logits are scaled",
        ),
        Mutant(
            "scaled by the positions",
            {".softmax(dim=2)": ".div((x.shape[2] * x.shape[3]) ** 0.5).softmax(dim=2)"},
            "divided by a root",
        ),
        Mutant(
            "softmax twice", {".softmax(dim=2)": ".softmax(dim=2).softmax(dim=2)"}, "softmax twice"
        ),
        Mutant("logarithms", {".softmax(dim=2)": ".log_softmax(dim=2)"}, "log_softmax gives"),
        Mutant(
            "shares of sigmoids",
            {
                ".softmax(dim=2)": ".sigmoid()\n        attention = attention / attention.sum(2, True)"
            },
            "divided by their sum",
        ),
        Mutant(
            "maximum",
            {_CONTEXT: "context = x.amax((2, 3)) + 0 * attention.sum()"},
            "the maximum over positions",
        ),
        Mutant(
            "2 sigmoid",
            {_ADD: "return x * 2 * self.transform(context)[:, :, None, None].sigmoid()"},
            "scaled by 2",
        ),
        Mutant(
            "transformed first",
            {
                _CONTEXT: "tokens = self.transform(x.flatten(2).mT.flatten(0, 1)).view(len(x), -1, x.shape[1])\n        context = (tokens * attention.mT).sum(1)",
                _ADD: "return x + context[:, :, None, None]",
            },
            "the order matters",
        ),
        Mutant(
            "residual detached",
            {"return x +": "return x.detach() +"},
            "cut off from the graph",
            hidden=True,
        ),
        Mutant(
            "key detached",
            {"self.key(x)": "self.key(x.detach())"},
            "cut off from the graph",
            hidden=True,
        ),
        Mutant(
            "BatchNorm",
            {
                _TRANSFORM_LAYER: _TRANSFORM_LAYER
                + "\n        self.transform.norm = nn.BatchNorm1d(in_channels // ratio)"
            },
            "a BatchNorm compares examples",
        ),
        Mutant(
            "one softmax for all",
            {".softmax(dim=2)": ".flatten().softmax(0).view(len(x), 1, -1)"},
            "examples are mixed",
        ),
        Mutant("negative logits", {"self.key(x)": "(-self.key(x))"}, "negative logits"),
        Mutant(
            "scaled by a sigmoid",
            {_ADD: "return x * self.transform(context)[:, :, None, None].sigmoid()"},
            "scaled by a sigmoid",
        ),
        Mutant("multiplied", {"return x +": "return x *"}, "the residual is forgotten"),
        Mutant("no residual", {"return x +": "return"}, "the residual is forgotten"),
        Mutant("doubled residual", {"return x +": "return x + x +"}, "counted twice"),
        Mutant(
            "context added",
            {
                "return x + self": "return x + 0 * x.sum() + (context if self.transform.expand.weight"
                ".any() else 0 * context)[:, :, None, None] + self"
            },
            "the context is added as well",
        ),
        Mutant(
            "weighted again",
            {"[:, :, None, None]": "[:, :, None, None] * attention.unflatten(2, x.shape[2:])"},
            "weighted by the attention again",
        ),
        Mutant(
            "cut with reshape",
            {_CONTEXT: "context = (attention @ x.reshape(len(x), -1, x.shape[1])).squeeze(1)"},
            "positions and channels are mixed",
        ),
        Mutant(
            "fixed ratio",
            {_TRANSFORM_LAYER: "self.transform = GCTransform(in_channels, 3)"},
            "the inner width",
        ),
        Mutant(
            "other default",
            {"ratio=16": "ratio=8"},
            "the inner width",
        ),
        Mutant(
            "wide key",
            {_KEY: "self.key = nn.Conv2d(in_channels, in_channels, 1)"},
            "a map from C to C",
        ),
        Mutant(
            "wide kernel",
            {_KEY: "self.key = nn.Conv2d(in_channels, 1, 3, padding=1)"},
            "kernel larger",
        ),
        Mutant(
            "not zero",
            {
                _TRANSFORM_LAYER: _TRANSFORM_LAYER
                + "\n        nn.init.normal_(self.transform.expand.weight)"
            },
            "the last layer does not start at zero",
        ),
        Mutant(
            "detached", {"self.transform(context)": "self.transform(context.detach())"}, "cut off"
        ),
        Mutant(
            "in place",
            {_ADD: _ADD.replace("return x +", "x +=") + "\n        return x"},
            "in place",
        ),
        Mutant(
            "short cut while zero",
            {
                _ADD: f"if not self.transform.expand.weight.any():\n            return x\n        {_ADD}"
            },
            "the branch is skipped",
        ),
        Mutant(
            "other in evaluation",
            {_ADD: f"if not self.training:\n            return x\n        {_ADD}"},
            "asks for self.training",
        ),
        Mutant(
            "softmax by hand",
            {".softmax(dim=2)": ".exp()\n        attention = attention / attention.sum(2, True)"},
            "exp overflows",
        ),
        Mutant(
            "attention detached",
            {"softmax(dim=2)": "softmax(dim=2).detach()"},
            "cut off from the graph",
        ),
    ],
    "c05-e4": [
        Mutant(
            "no biases",
            {
                "channels + 1": "channels",
                "+ inner\n": "\n",
                "inner * channels + channels": "inner * channels",
            },
            "the biases are missing",
        ),
        Mutant("no bias of the key", {"channels + 1": "channels"}, "the bias of W_k"),
        Mutant(
            "no bias of the first layer",
            {"channels * inner + inner": "channels * inner"},
            "C' numbers are missing",
        ),
        Mutant(
            "no bias of the last layer",
            {"inner * channels + channels": "inner * channels"},
            "the bias of W_v2",
        ),
        Mutant("no norm", {"+ norm +": "+"}, "LayerNorm is missing"),
        Mutant("norm on C", {"2 * inner": "2 * channels"}, "not on C"),
        Mutant("no key", {"key + reduce": "reduce"}, "W_k is missing"),
        Mutant(
            "wide key", {"channels + 1": "channels * channels + channels"}, "W_k gives one number"
        ),
        Mutant("no way back", {" + expand": ""}, "W_v2 is missing"),
        Mutant(
            "weights alone",
            {"return key + reduce + norm + expand": "return 2 * channels * inner + channels"},
            "biases and LayerNorm are missing",
        ),
        Mutant(
            "two layers",
            {"return key + reduce + norm + expand": "return 2 * channels * inner"},
            "only the two layers",
        ),
        Mutant(
            "no bottleneck",
            {"return key + reduce + norm + expand": "return key + channels**2 + channels"},
            "without a bottleneck",
        ),
        Mutant("multiplied", {"channels // ratio": "channels * ratio"}, "the ratio divides"),
        Mutant("float", {"channels // ratio": "channels / ratio"}, "two slashes"),
        Mutant("rounded", {"channels // ratio": "round(channels / ratio)"}, "rounded up"),
        Mutant(
            "times the inverse",
            {"channels // ratio": "int(channels * (1 / ratio))"},
            "rounded down by one",
            hidden=True,
        ),
        Mutant(
            "divided last",
            {
                "return key + reduce + norm + expand": "return 2 * channels * channels // ratio + 2 * channels + 3 * inner + 1"
            },
            "in one step",
        ),
        Mutant(
            "C biases of the key",
            {"channels + 1": "channels + channels"},
            "one number, as its output",
        ),
        Mutant("ratio as width", {"channels // ratio": "ratio"}, "r in place of"),
        Mutant(
            "printed",
            {"return key": "print(key"} | {"norm + expand": "norm + expand)"},
            "without a return",
        ),
        Mutant("something else", {"2 * inner": "3 * inner"}, "layer by layer"),
    ],
    "c05-e5": [
        Mutant(
            "where softmax is made",
            _pairs('("A3", "softmax never called")', _B, _C),
            "A3 only makes a layer",
        ),
        Mutant("where it is used", _pairs('("A9", "softmax never called")', _B, _C), "A9 is right"),
        Mutant(
            "the transform",
            _pairs('("A4", "norm over the wrong axes")', _B, _C),
            "A4 is the transform",
        ),
        Mutant("any line", _pairs('("A1", "ratio not used")', _B, _C), "this line is right"),
        Mutant(
            "other name",
            _pairs('("A8", "softmax over the wrong axis")', _B, _C),
            "has another name",
        ),
        Mutant("the key", _pairs(_A, '("B2", "softmax over the wrong axis")', _C), "B2 is right"),
        Mutant("the sum", _pairs(_A, '("B8", "softmax over the wrong axis")', _C), "B8 is right"),
        Mutant(
            "the softmax of C",
            _pairs(_A, _B, '("C7", "softmax over the wrong axis")'),
            "C7 is right",
        ),
        Mutant("the start of C", _pairs(_A, _B, '("C4", "last layer not zero")'), "C4 is right"),
        Mutant("own words", _pairs(_A, _B, '("C9", "multiplies")'), "not in the list"),
        Mutant(
            "no such line", _pairs(_A, _B, '("C19", "scaled, not added")'), "has the lines C1 to C9"
        ),
        Mutant("other order", _pairs(_B, _A, _C), "pairs go A, B, C"),
        Mutant("two pairs", _pairs(_A, _B), "with your lines and mistakes"),
        Mutant(
            "mistake first",
            _pairs('("softmax never called", "A8")', _B, _C),
            "the line comes first",
        ),
        Mutant(
            "printed",
            {"": f"def find_bugs():\n    print([{_A}, {_B}, {_C}])\n"},
            "without a return",
        ),
        Mutant("a dict", {"": "def find_bugs():\n    return {'A': 8}\n"}, "list of three pairs"),
        Mutant(
            "changes its mind",
            {
                "": "calls = []\ndef find_bugs():\n    calls.append(1)\n"
                f"    pairs = [{_A}, {_B}, {_C}]\n    return pairs if len(calls) < 3 else []\n"
            },
            "the same",
            hidden=True,
        ),
    ],
    "c05-e6": [
        Mutant("ratio divides", {_INNER6: "int(in_channels // ratio)"}, "the inner width"),
        Mutant(
            "two of four",
            {
                "x.flatten(2).transpose(1, 2)": "x.reshape(len(x), -1, x.shape[1])",
                "softmax(dim=1)": "softmax(dim=0)",
            },
            "positions and channels are mixed",
        ),
        Mutant("ratio left", {_INNER6: "int(in_channels / ratio)"}, "or is it a multiplier"),
        Mutant("rounded", {_INNER6: "round(in_channels * ratio)"}, "rounded up"),
        Mutant(
            "inverse of the ratio", {_INNER6: "in_channels // int(1 / ratio)"}, "the inner width"
        ),
        Mutant(
            "first layer at zero too",
            {_ZERO_BIAS: _ZERO_BIAS + "        nn.init.zeros_(self.reduce.weight)\n"},
            "only the last layer starts at zero",
        ),
        Mutant("softmax over the batch", {"softmax(dim=1)": "softmax(dim=0)"}, "axis of size 1"),
        Mutant("softmax over channels", {"softmax(dim=1)": "softmax(dim=2)"}, "axis of size 1"),
        Mutant(
            "wrong map at zero",
            {
                "zeros_(self.expand.weight)": "zeros_(self.reduce.weight)",
                "zeros_(self.expand.bias)": "zeros_(self.reduce.bias)",
            },
            "the last layer does not start at zero",
        ),
        Mutant(
            "cut with reshape",
            {"x.flatten(2).transpose(1, 2)": "x.reshape(len(x), -1, x.shape[1])"},
            "positions and channels are mixed",
        ),
        Mutant(
            "mean of products",
            {_CONTEXT6: "(positions * attention).mean(dim=1)"},
            "divided by the number of positions",
        ),
        Mutant("softmax missing", {".softmax(dim=1)": ""}, "softmax is never called"),
        Mutant(
            "scaled", {_ADD6: "return x * added[:, :, None, None].sigmoid()"}, "scaled by a sigmoid"
        ),
        Mutant("no residual", {"return x +": "return"}, "the residual is forgotten"),
        *_TRANSFORM,
    ],
}

_LINEAR_BLOCK = """class {name}(nn.Module):
    def __init__(self, in_channels, ratio={default}):
        super().__init__()
        inner = int(in_channels {times} ratio)
        self.to_out = nn.Linear(inner, in_channels)
        self.down = nn.Linear(in_channels, inner)
        self.ln = nn.LayerNorm(inner)
        self.mask = nn.Linear(in_channels, 1)
        for p in self.to_out.parameters():
            nn.init.constant_(p, 0)

    def forward(self, x):
        tokens = x.flatten(2).mT
        weights = torch.softmax(self.mask(tokens), 1)
        t = self.to_out(F.relu(self.ln(self.down((weights.mT @ tokens)[:, 0]))))
        return t[:, :, None, None] + x
"""
_PUBLIC_BLOCK = """class {name}(nn.Module):
    def __init__(self, in_channels, ratio={default}):
        super().__init__()
        planes = int(in_channels {times} ratio)
        self.conv_mask = nn.Conv2d(in_channels, 1, kernel_size=1)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(in_channels, planes, kernel_size=1),
            nn.LayerNorm([planes, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(planes, in_channels, kernel_size=1))
        nn.init.zeros_(self.channel_add_conv[-1].weight)
        nn.init.zeros_(self.channel_add_conv[-1].bias)

    def forward(self, x):
        n, c, h, w = x.size()
        mask = self.conv_mask(x).view(n, 1, h * w).softmax(2).unsqueeze(3)
        context = torch.matmul(x.view(n, c, h * w).unsqueeze(1), mask).view(n, c, 1, 1)
        return x + self.channel_add_conv(context)
"""
_EINSUM_BLOCK = """class {name}(nn.Module):
    def __init__(self, in_channels, ratio={default}):
        super().__init__()
        p = int(in_channels {times} ratio)
        self.w_k = nn.Parameter(torch.randn(in_channels))
        self.w_1 = nn.Parameter(torch.randn(in_channels, p))
        self.scale = nn.Parameter(torch.ones(p))
        self.shift = nn.Parameter(torch.zeros(p))
        self.w_2 = nn.Parameter(torch.zeros(p, in_channels))

    def forward(self, x):
        logits = torch.einsum("nchw,c->nhw", x, self.w_k)
        alpha = logits.flatten(1).softmax(1).view_as(logits)
        c = torch.einsum("nhw,nchw->nc", alpha, x)
        y = F.relu(layer_norm(c @ self.w_1, self.scale, self.shift))
        return x + (y @ self.w_2)[..., None, None]
"""
_FREE_BLOCK = """class {name}(nn.Module):
    def __init__(self, in_channels, ratio={default}):
        super().__init__()
        p = int(in_channels {times} ratio)
        self.a = nn.Conv1d(in_channels, 1, 1, bias=False)
        self.b = nn.Conv1d(in_channels, p, 1, bias=False)
        self.c = nn.GroupNorm(1, p)
        self.d = nn.Conv1d(p, in_channels, 1, bias=False)
        nn.init.zeros_(self.d.weight)

    def forward(self, x):
        flat = x.flatten(2)
        pooled = torch.bmm(flat, self.a(flat).softmax(-1).mT)
        t = self.d(self.c(self.b(pooled)).clamp(min=0))
        return (flat + t).view_as(x)
"""
_LOOP_BLOCK = """class {name}(nn.Module):
    def __init__(self, in_channels, ratio={default}):
        super().__init__()
        p = max(1, int(in_channels {times} ratio))
        self.up = nn.Linear(p, in_channels, bias=False)
        self.w_k = nn.Parameter(torch.zeros(in_channels))
        self.down = nn.Sequential(nn.Linear(in_channels, p), nn.LayerNorm(p), nn.ReLU())
        self.up.weight.data.zero_()

    def forward(self, x):
        columns = x.permute(0, 3, 2, 1).flatten(1, 2)  # the order of positions is free
        maps = []
        for map, tokens in zip(x, columns):
            t = self.up(self.down((tokens @ self.w_k).softmax(0) @ tokens))
            maps.append(map + t.view(-1, 1, 1))
        return torch.stack(maps)
"""
_BLOCKS = {
    "example by example": _LOOP_BLOCK,
    "linear, reordered": _LINEAR_BLOCK,
    "as in the public code": _PUBLIC_BLOCK,
    "einsum, bare parameters": _EINSUM_BLOCK,
    "group norm, no biases": _FREE_BLOCK,
}


def _as(name: str, default: str, times: str) -> dict[str, str]:
    return {
        what: source.replace("{name}", name).replace("{default}", default).replace("{times}", times)
        for what, source in _BLOCKS.items()
    }


VARIANTS = {
    "c05-e1": {
        "library": "def layer_norm(x, weight, bias, eps=1e-5):\n"
        "    return F.layer_norm(x, x.shape[1:], weight, bias, eps)\n",
        "var": "def layer_norm(x, weight, bias, eps=1e-5):\n"
        "    var = x.var(1, correction=0, keepdim=True)\n"
        "    return (x - x.mean(1, True)) * torch.rsqrt(var + eps) * weight + bias\n",
        "mean of squares": "def layer_norm(x, weight, bias, eps=1e-5):\n"
        "    m = x.mean(-1, keepdim=True)\n"
        "    v = (x**2).mean(-1, keepdim=True) - m**2\n"
        "    return weight * (x - m) / (v + eps) ** 0.5 + bias\n",
        "group norm": "def layer_norm(x, weight, bias, eps=1e-5):\n"
        "    return F.group_norm(x, 1, weight, bias, eps)\n",
        "by rows": "def layer_norm(x, weight, bias, eps=1e-5):\n    rows = []\n"
        "    for row in x:\n        d = row - row.sum() / len(row)\n"
        "        rows.append(d / (d.dot(d) / len(row) + eps) ** 0.5 * weight + bias)\n"
        "    return torch.stack(rows)\n",
        "var_mean": "def layer_norm(x, weight, bias, eps=1e-5):\n"
        "    v, m = torch.var_mean(x, dim=-1, unbiased=False, keepdim=True)\n"
        "    return torch.addcmul(bias, (x - m) / torch.sqrt(v + eps), weight)\n",
    },
    "c05-e2": {
        "sequential": "class GCTransform(nn.Sequential):\n"
        "    def __init__(self, in_channels, ratio=16):\n        p = in_channels // ratio\n"
        "        super().__init__(nn.Linear(in_channels, p), nn.LayerNorm(p), nn.ReLU(),\n"
        "                         nn.Linear(p, in_channels))\n"
        "        nn.init.zeros_(self[3].weight), nn.init.zeros_(self[3].bias)\n",
        "convolutions": "class GCTransform(nn.Module):\n"
        "    def __init__(self, in_channels, ratio=16):\n        super().__init__()\n"
        "        p = in_channels // ratio\n        self.up = nn.Conv2d(p, in_channels, 1)\n"
        "        self.ln = nn.LayerNorm([p, 1, 1])\n"
        "        self.down = nn.Conv2d(in_channels, p, 1)\n"
        "        nn.init.zeros_(self.up.weight), nn.init.zeros_(self.up.bias)\n"
        "    def forward(self, c):\n"
        "        return self.up(F.relu(self.ln(self.down(c[..., None, None])))).flatten(1)\n",
        "bare parameters": "class GCTransform(nn.Module):\n"
        "    def __init__(self, in_channels, ratio=16):\n        super().__init__()\n"
        "        p = in_channels // ratio\n"
        "        self.w1 = nn.Parameter(torch.randn(in_channels, p))\n"
        "        self.b1 = nn.Parameter(torch.zeros(p))\n"
        "        self.gain, self.shift = nn.Parameter(torch.ones(p)), nn.Parameter(torch.zeros(p))\n"
        "        self.w2 = nn.Parameter(torch.zeros(p, in_channels))\n"
        "        self.b2 = nn.Parameter(torch.zeros(in_channels))\n"
        "    def forward(self, c):\n"
        "        h = layer_norm(c @ self.w1 + self.b1, self.gain, self.shift)\n"
        "        return h.clamp_min(0) @ self.w2 + self.b2\n",
        "group norm": "class GCTransform(nn.Module):\n"
        "    def __init__(self, in_channels, ratio=16):\n        super().__init__()\n"
        "        p = in_channels // ratio\n"
        "        self.W_v2, self.W_v1 = nn.Linear(p, in_channels), nn.Linear(in_channels, p)\n"
        "        self.LN = nn.GroupNorm(1, p)\n"
        "        self.W_v2.weight.data.fill_(0), self.W_v2.bias.data.fill_(0)\n"
        "    def forward(self, c):\n"
        "        return self.W_v2(F.relu(self.LN(self.W_v1(c))))\n",
        "no biases": "class GCTransform(nn.Module):\n"
        "    def __init__(self, in_channels, ratio=16):\n        super().__init__()\n"
        "        p = in_channels // ratio\n"
        "        self.reduce = nn.Linear(in_channels, p, bias=False)\n"
        "        self.norm = nn.LayerNorm(p)\n"
        "        self.expand = nn.Linear(p, in_channels, bias=False)\n"
        "        self.expand.weight.data.zero_()\n"
        "    def forward(self, c):\n"
        "        return F.linear(torch.relu(self.norm(self.reduce(c))), self.expand.weight)\n",
    },
    "c05-e3": _as("GCBlock", "16", "//"),
    "c05-e4": {
        "one line": "def count_parameters(c, r):\n    p = c // r\n"
        "    return 2 * c * p + 2 * c + 3 * p + 1\n",
        "by building": "def count_parameters(channels, ratio):\n"
        "    p = channels // ratio\n"
        "    layers = (nn.Linear(channels, 1), nn.Linear(channels, p), nn.LayerNorm(p),\n"
        "              nn.Linear(p, channels))\n"
        "    return sum(w.numel() for layer in layers for w in layer.parameters())\n",
        "by the block": "def count_parameters(channels, ratio):\n"
        "    return sum(p.numel() for p in GCBlock(channels, ratio).parameters())\n",
        "int": "def count_parameters(channels, ratio):\n    p = int(channels / ratio)\n"
        "    sizes = [channels, 1, channels * p, p, p, p, p * channels, channels]\n"
        "    return sum(sizes)\n",
    },
    "c05-e5": {
        "a tuple": f"def find_bugs():\n    return {_A}, {_B}, {_C}\n",
        "lists": "def find_bugs():\n    return [list(p) for p in (" + ", ".join(_PAIRS) + ")]\n",
        "spaces": f"def find_bugs():\n    return [('a8 ', ' softmax never called'), {_B}, {_C}]\n",
        "zip": "def find_bugs():\n    return list(zip(['A8', 'B7', 'C9'], ['softmax never called', "
        "'softmax over the wrong axis', 'scaled, not added']))\n",
        "from a dict": "def find_bugs():\n    found = {'C9': 'scaled, not added', 'A8': 'softmax "
        "never called', 'B7': 'softmax over the wrong axis'}\n    return sorted(found.items())\n",
    },
    "c05-e6": _as("FixedBlock", "1 / 16", "*"),
}
