"""Mutants and variants of chapter 00."""

from mutants.answers import Mutant

_E1 = "x.flatten(2).transpose(1, 2)"
_E2 = 'torch.einsum("nij,njc->nic", weights, values)'
_MAX = "(x - x.amax(dim, keepdim=True)).exp()"
_DIVIDE = "exponentials / exponentials.sum(dim, keepdim=True)"
_ZERO_WEIGHT = "        nn.init.zeros_(self.conv.weight)\n"
_ZERO_BIAS = "        nn.init.zeros_(self.conv.bias)\n"
_E4 = "return x + self.conv(x)"

MUTANTS = {
    "c00-e1": [
        Mutant("reshape only", {_E1: "x.reshape(len(x), -1, x.shape[1])"}, "reshape cuts"),
        Mutant("columns first", {_E1: "x.permute(0, 3, 2, 1).flatten(1, 2)"}, "down the columns"),
        Mutant("no transpose", {_E1: "x.flatten(2)"}, "one transpose is missing"),
        Mutant("no flatten", {_E1: "x.permute(0, 2, 3, 1)"}, "still two axes"),
        Mutant("flattens the batch", {_E1: "x.permute(0, 2, 3, 1).flatten(0, 2)"}, "keep axis 0"),
        Mutant("flattens all", {_E1: "x.flatten()"}, "everything was flattened"),
        Mutant("averages", {_E1: "x.mean((2, 3))"}, "averaged away"),
        Mutant("square only", {_E1: f"{_E1}[:, : x.shape[2] ** 2]"}, "the map is not square"),
        Mutant("mirrored", {_E1: f"x.flip(3){_E1[1:]}"}, "W runs backwards"),
        Mutant("reversed channels", {_E1: f"x.flip(1){_E1[1:]}"}, "channels are in reverse"),
        Mutant("reversed positions", {_E1: f"{_E1}.flip(1)"}, "positions are in reverse"),
        Mutant("fixed dtype", {_E1: f"{_E1}.float()"}, "converts to a fixed dtype"),
        Mutant("detached", {_E1: f"{_E1}.detach()"}, "cut off from the graph"),
        Mutant(
            "in place", {f"return {_E1}": f"y = {_E1}.clone(); x.zero_(); return y"}, "in place"
        ),
        Mutant("mixes examples", {_E1: f"{_E1}.flip(0)"}, "examples are mixed"),
        Mutant("no return", {f"return {_E1}": _E1}, "without a return statement"),
        Mutant("numpy", {_E1: f"{_E1}.numpy()"}, "got          ndarray"),
    ],
    "c00-e2": [
        Mutant("transposed", {"nij,njc": "nji,njc"}, "letters of einsum and the axes"),
        Mutant(
            "transposed if square",
            {
                f"return {_E2}": "if weights.shape[1] == weights.shape[2]:\n"
                "        weights = weights.transpose(1, 2)\n"
                f"    return {_E2}"
            },
            "its last two axes are swapped",
        ),
        Mutant("unweighted", {_E2: f"{_E2} * 0 + values.sum(1, keepdim=True)"}, "are not used"),
        Mutant("mean", {_E2: f"{_E2} / values.shape[1]"}, "a sum, not a mean"),
        Mutant(
            "softmax",
            {'nic", weights, values)': 'nic", weights.softmax(-1), values)'},
            "use them as they",
        ),
        Mutant(
            "renormalised",
            {'nic", weights, values)': 'nic", weights / weights.sum(2, keepdim=True), values)'},
            "divided by their sum",
        ),
        Mutant(
            "absolute weights",
            {'nic", weights, values)': 'nic", weights.abs(), values)'},
            "lost their sign",
        ),
        Mutant("two letters", {"nij,njc": "nij,nkc"}, "summed apart"),
        Mutant("sums examples", {"->nic": "->ic"}, "the examples were summed"),
        Mutant(
            "sums queries",
            {f"return {_E2}": f"return {_E2}.sum(1, keepdim=True)"},
            "the rows were summed",
        ),
        Mutant("keeps products", {"->nic": "->nijc"}, "the products are not summed"),
        Mutant("swapped result", {"->nic": "->nci"}, "C is on the middle axis"),
        Mutant("mixes examples", {"nij,njc->nic": "nij,mjc->nic"}, "same letter for both axes 0"),
        Mutant(
            "detached weights",
            {'nic", weights, values)': 'nic", weights.detach(), values)'},
            "cut off",
        ),
        Mutant("fixed dtype", {_E2: f"{_E2}.float()"}, "fixed dtype"),
        Mutant("in place", {f"return {_E2}": f"y = {_E2}; weights.zero_(); return y"}, "in place"),
        Mutant(
            "visible numbers",
            {
                f"return {_E2}": "if tuple(weights.shape) not in ((1, 2, 3), (2, 2, 2), (1, 2, 2)):\n"
                "        return values[:, : weights.shape[1]] * 2\n"
                f"    return {_E2}"
            },
            "expected",
            hidden=True,
        ),
    ],
    "c00-e3": [
        Mutant("fixed axis", {"amax(dim": "amax(-1", "sum(dim": "sum(-1"}, "the axis is fixed"),
        Mutant("first axis", {"amax(dim": "amax(0", "sum(dim": "sum(0"}, "the other axis"),
        Mutant("no maximum", {_MAX: "x.exp()"}, "subtract the maximum over dim"),
        Mutant("maximum of all", {_MAX: "(x - x.max()).exp()"}, "maximum runs over all entries"),
        Mutant(
            "sum of all",
            {"exponentials.sum(dim, keepdim=True)": "exponentials.sum()"},
            "sum over dim alone",
        ),
        Mutant(
            "no division", {f"return {_DIVIDE}": "return exponentials"}, "not divided by their sum"
        ),
        Mutant(
            "divides by the largest",
            {"exponentials.sum(": "exponentials.amax("},
            "not divided by their sum",
        ),
        Mutant("logarithm", {f"return {_DIVIDE}": f"return ({_DIVIDE}).log()"}, "logarithm"),
        Mutant("powers of two", {_MAX: "2 ** (x - x.amax(dim, keepdim=True))"}, "powers of 2"),
        Mutant("sigmoid", {f"return {_DIVIDE}": "return x.sigmoid()"}, "sigmoid"),
        Mutant("wrong sign", {_MAX: "(x.amin(dim, keepdim=True) - x).exp()"}, "wrong sign"),
        Mutant("no exp", {_MAX: "x"}, "without exp"),
        Mutant("axis dropped", {"keepdim=True": "keepdim=False"}, "shapes that do not fit"),
        Mutant(
            "in place",
            {
                "exponentials = (x - x.amax(dim, keepdim=True)).exp()": "exponentials = x.sub_(x.amax(dim, keepdim=True)).exp()"
            },
            "in place",
        ),
        Mutant(
            "detached", {_MAX: "(x.detach() - x.amax(dim, keepdim=True).detach()).exp()"}, "cut off"
        ),
        Mutant("fixed dtype", {f"return {_DIVIDE}": f"return ({_DIVIDE}).float()"}, "fixed dtype"),
        Mutant(
            "half of the gradient",
            {"exponentials.sum(dim, keepdim=True)": "exponentials.sum(dim, keepdim=True).detach()"},
            "expected",
            hidden=True,
        ),
    ],
    "c00-e4": [
        Mutant("no residual", {_E4: "return self.conv(x)"}, "the input is not added back"),
        Mutant("weight not zero", {_ZERO_WEIGHT: ""}, "does not start at zero"),
        Mutant("bias not zero", {_ZERO_BIAS: ""}, "does not start at zero"),
        Mutant("product", {_E4: "return x * (1 + self.conv(x))"}, "x is multiplied with conv(x)"),
        Mutant("doubled", {_E4: "return 2 * x + self.conv(x)"}, "counted twice"),
        Mutant("subtracted", {_E4: "return x - self.conv(x)"}, "the branch is subtracted"),
        Mutant("halved", {_E4: "return x + self.conv(x) / 2"}, "the branch is halved"),
        Mutant("negative input", {_E4: "return self.conv(x) - x"}, "the input is subtracted"),
        Mutant("relu behind", {_E4: "return x + self.conv(x).relu()"}, "behind the convolution"),
        Mutant("wide kernel", {"kernel_size=1": "kernel_size=3, padding=1"}, "larger than 1"),
        Mutant(
            "two layers",
            {_ZERO_BIAS: f"{_ZERO_BIAS}        self.norm = nn.BatchNorm2d(channels)\n"},
            "layers that the formula does not have",
        ),
        Mutant(
            "frozen",
            {_ZERO_BIAS: f"{_ZERO_BIAS}        self.requires_grad_(False)\n"},
            "requires_grad is off",
        ),
        Mutant("detached", {_E4: "return x + self.conv(x).detach()"}, "cut off from the graph"),
        Mutant("in place", {_E4: "x += self.conv(x)\n        return x"}, "in place"),
        Mutant(
            "short cut",
            {_E4: "return x + self.conv(x) if self.conv.weight.any() else x"},
            "the branch is skipped while the last layer is zero",
        ),
        Mutant(
            "other in evaluation",
            {_E4: "return x + self.conv(x) if self.training else self.conv(x)"},
            "asks for self.training",
        ),
        Mutant("relu behind the sum", {_E4: "return (x + self.conv(x)).relu()"}, "behind the sum"),
        Mutant(
            "double layer",
            {"kernel_size=1": "kernel_size=1, dtype=torch.float64"},
            "a tensor made in a fixed dtype",
        ),
        Mutant(
            "bias cut off",
            {_E4: "return x + F.conv2d(x, self.conv.weight, self.conv.bias.detach())"},
            "none for the bias of out",
        ),
        Mutant(
            "not a module",
            {
                "class ResidualConv(nn.Module)": "class ResidualConv",
                "        super().__init__()\n": "",
            },
            "does not derive from nn.Module",
        ),
        Mutant(
            "one channel",
            {"nn.Conv2d(channels, channels": "nn.Conv2d(channels, 1"},
            "other channels",
        ),
        Mutant(
            "three channels only",
            {"nn.Conv2d(channels, channels": "nn.Conv2d(3, 3"},
            "",
            hidden=True,
        ),
    ],
}

VARIANTS = {
    "c00-e1": {
        "permute": "def to_positions(x):\n    return x.permute(0, 2, 3, 1).flatten(1, 2)\n",
        "reshape after permute": "def to_positions(x):\n"
        "    n, c, h, w = x.shape\n"
        "    return x.permute(0, 2, 3, 1).reshape(n, h * w, c)\n",
        "movedim": "def to_positions(x):\n    return x.flatten(2).movedim(1, 2)\n",
        "loops": "def to_positions(x):\n"
        "    rows = [x[:, :, h, w] for h in range(x.shape[2]) for w in range(x.shape[3])]\n"
        "    return torch.stack(rows, dim=1)\n",
        "einsum": 'def to_positions(x):\n    return torch.einsum("ncp->npc", x.flatten(2))\n',
        "contiguous": "def to_positions(x):\n    return x.flatten(-2).mT.contiguous()\n",
    },
    "c00-e2": {
        "matmul": "def weighted_sum(weights, values):\n    return weights @ values\n",
        "bmm": "def weighted_sum(weights, values):\n    return torch.bmm(weights, values)\n",
        "broadcast": "def weighted_sum(weights, values):\n"
        "    return (weights[..., None] * values[:, None]).sum(2)\n",
        "loop": "def weighted_sum(weights, values):\n"
        "    return torch.stack([w @ v for w, v in zip(weights, values)])\n",
        "other letters": "def weighted_sum(weights, values):\n"
        '    return torch.einsum("bqk, bkd -> bqd", weights, values)\n',
        "tensor method": "def weighted_sum(w, v):\n    return w.matmul(v)\n",
    },
    "c00-e3": {
        "torch.softmax": "def softmax(x, dim):\n    return torch.softmax(x, dim)\n",
        "max with values": "def softmax(x, dim):\n"
        "    top = x.max(dim, keepdim=True).values\n"
        "    e = torch.exp(x - top)\n    return e / torch.sum(e, dim=dim, keepdim=True)\n",
        "logsumexp": "def softmax(x, dim):\n"
        "    return (x - torch.logsumexp(x, dim, keepdim=True)).exp()\n",
        "detached maximum": "def softmax(x, dim):\n"
        "    e = (x - x.amax(dim, keepdim=True).detach()).exp()\n"
        "    return e / e.sum(dim, keepdim=True)\n",
        "unsqueeze": "def softmax(x, dim):\n"
        "    e = (x - x.amax(dim).unsqueeze(dim)).exp()\n"
        "    return e / e.sum(dim).unsqueeze(dim)\n",
    },
    "c00-e4": {
        "other name": "class ResidualConv(nn.Module):\n"
        "    def __init__(self, channels):\n        super().__init__()\n"
        "        self.mixing = nn.Conv2d(channels, channels, 1)\n"
        "        nn.init.constant_(self.mixing.weight, 0)\n"
        "        nn.init.constant_(self.mixing.bias, 0)\n"
        "    def forward(self, x):\n        return self.mixing(x) + x\n",
        "no bias": "class ResidualConv(nn.Module):\n"
        "    def __init__(self, channels):\n        super().__init__()\n"
        "        self.conv = nn.Conv2d(channels, channels, 1, bias=False)\n"
        "        self.conv.weight.data.zero_()\n"
        "    def forward(self, x):\n        return x + self.conv(x)\n",
        "linear": "class ResidualConv(nn.Module):\n"
        "    def __init__(self, channels):\n        super().__init__()\n"
        "        self.layer = nn.Linear(channels, channels)\n"
        "        for p in self.parameters():\n            nn.init.zeros_(p)\n"
        "    def forward(self, x):\n"
        "        return x + self.layer(x.movedim(1, -1)).movedim(-1, 1)\n",
        "parameters": "class ResidualConv(nn.Module):\n"
        "    def __init__(self, channels):\n        super().__init__()\n"
        "        self.weight = nn.Parameter(torch.zeros(channels, channels))\n"
        "        self.bias = nn.Parameter(torch.zeros(channels))\n"
        "    def forward(self, x):\n"
        '        y = torch.einsum("oc,nchw->nohw", self.weight, x)\n'
        "        return x + y + self.bias[:, None, None]\n",
        "w and b, x @ W": "class ResidualConv(nn.Module):\n"
        "    def __init__(self, channels):\n        super().__init__()\n"
        "        self.w = nn.Parameter(torch.zeros(channels, channels))\n"
        "        self.b = nn.Parameter(torch.zeros(channels))\n"
        "    def forward(self, x):\n"
        "        return x + (x.movedim(1, -1) @ self.w + self.b).movedim(-1, 1)\n",
        "sequential": "class ResidualConv(nn.Module):\n"
        "    def __init__(self, channels):\n        super().__init__()\n"
        "        self.branch = nn.Sequential(nn.Conv2d(channels, channels, 1))\n"
        "        with torch.no_grad():\n"
        "            for p in self.branch.parameters():\n                p.fill_(0)\n"
        "    def forward(self, x):\n        return torch.add(x, self.branch(x))\n",
    },
}
