"""Mutants and variants of chapter 08."""

from mutants.answers import Mutant

_MATCH_ORDER = "scores.argsort(descending=True).tolist()"
_MATCH_TAKEN = "            overlap[:, best] = -1.0\n"
_MATCH_EMPTY = "        if len(truth) == 0:\n            break\n"
_MATCH_TEST = "if overlap[turn, best] >= threshold:"
_MATCH_MUTANTS = [
    Mutant("list order", {_MATCH_ORDER: "range(len(scores))"}, "the highest score chooses first"),
    Mutant("ascending", {"descending=True": "descending=False"}, "not the lowest"),
    Mutant("not equal", {">= threshold": "> threshold"}, "fits with exactly 0.5"),
    Mutant("found twice", {_MATCH_TAKEN: ""}, "found twice"),
    Mutant("no threshold", {_MATCH_TEST: "if overlap[turn, best] > 0:"}, "the threshold is"),
    Mutant("fixed threshold", {">= threshold": ">= 0.5"}, "the threshold is fixed"),
    Mutant(
        "order of the turns",
        {
            "for turn in": "for place, turn in enumerate(",
            ".tolist():": ".tolist()):",
            "found[turn]": "found[place]",
        },
        "in the order of the scores",
    ),
    Mutant(
        "flags",
        {"return found": "return (found >= 0).long()"},
        "flags in place of the numbers",
    ),
    Mutant("booleans", {"return found": "return found >= 0"}, "return the numbers of the objects"),
    Mutant("no objects", {_MATCH_EMPTY: ""}, "without objects there is nothing to choose"),
    Mutant(
        "best even if taken",
        {
            _MATCH_TAKEN: "",
            _MATCH_TEST: "if overlap[turn, best] >= threshold and best not in found:",
        },
        "the next best is not asked",
    ),
    Mutant(
        "taken without fitting",
        {_MATCH_TAKEN: "        overlap[:, best] = -1.0\n"},
        "it stays free",
    ),
    Mutant(
        "first over the threshold",
        {"overlap[turn].argmax()": "(overlap[turn] >= threshold).long().argmax()"},
        "the one with the largest IoU",
    ),
    Mutant("nothing returned", {"return found": "return None"}, "without a return"),
    Mutant("floats", {"(len(boxes),), -1)": "(len(boxes),), -1.0)"}, "as int64"),
    Mutant("a list", {"return found": "return found.tolist()"}, "return the numbers as a tensor"),
    Mutant(
        "in place", {"    found = ": "    scores.neg_().neg_().add_(1)\n    found = "}, "in place"
    ),
    Mutant(
        "one match alone",
        {_MATCH_TAKEN: _MATCH_TAKEN + "            break\n"},
        "the loop ends too soon",
    ),
    Mutant(
        "not below",
        {">= threshold": ">= 0.5 * threshold + 0.25"},
        "go through the turns",
        hidden=True,
    ),
]
_MATCH_VARIANTS = {
    "a set of free objects": "def match(boxes, scores, truth, threshold):\n"
    "    table = box_iou(boxes, truth).tolist()\n    free = set(range(len(truth)))\n"
    "    found = [-1] * len(boxes)\n"
    "    for d in sorted(range(len(boxes)), key=lambda d: -float(scores[d])):\n"
    "        good = [g for g in free if table[d][g] >= threshold]\n"
    "        if good:\n            found[d] = max(good, key=lambda g: table[d][g])\n"
    "            free.discard(found[d])\n    return torch.tensor(found, dtype=torch.int64)\n",
    "two loops": "def match(boxes, scores, truth, threshold):\n"
    "    ious = box_iou(boxes, truth)\n    taken = [False] * len(truth)\n"
    "    result = -torch.ones(len(boxes), dtype=torch.long)\n"
    "    for d in torch.sort(scores, descending=True).indices:\n"
    "        best, chosen = threshold, -1\n        for g in range(len(truth)):\n"
    "            if not taken[g] and ious[d, g] >= best:\n"
    "                best, chosen = ious[d, g], g\n"
    "        if chosen >= 0:\n            taken[chosen] = True\n            result[d] = chosen\n"
    "    return result\n",
    "a mask": "def match(boxes, scores, truth, threshold):\n"
    "    found = torch.zeros(len(boxes), dtype=torch.int64) - 1\n    if not len(truth):\n"
    "        return found\n    ious = box_iou(truth, boxes).T\n"
    "    free = torch.ones(len(truth), dtype=torch.bool)\n"
    "    for d in (-scores).argsort():\n"
    "        value, g = torch.where(free, ious[d], -1.0).max(0)\n"
    "        if value >= threshold:\n            found[d], free[g] = g, False\n"
    "    return found\n",
    "sorted first": "def match(boxes, scores, truth, threshold):\n"
    "    order = torch.argsort(scores).flip(0)\n"
    "    ious = box_iou(boxes[order], truth).clone()\n    picked = []\n"
    "    for row in ious:\n        choice = -1\n"
    "        if len(truth) and row.max() >= threshold:\n"
    "            choice = int(row.argmax())\n            ious[:, choice] = 0\n"
    "        picked.append(choice)\n    result = torch.empty(len(boxes), dtype=torch.int64)\n"
    "    result[order] = torch.tensor(picked, dtype=torch.int64)\n    return result\n",
}

_AP_SORT = "order = scores.argsort(descending=True)"
_AP_PRECISION = "precision = right / torch.arange(1, len(right) + 1)"
_AP_REACHED = "reached = precision[recall >= point / 100]"
_AP_MAX = "reached.max().item()"
_AP_MUTANTS = [
    Mutant("not sorted", {_AP_SORT: "order = torch.arange(len(scores))"}, "not sorted by score"),
    Mutant("ascending", {"descending=True": "descending=False"}, "the lowest score comes first"),
    Mutant("no maximum", {_AP_MAX: "reached[0].item()"}, "the precision at this recall alone"),
    Mutant(
        "last precision",
        {_AP_MAX: "reached[-1].item()"},
        "the last precision, that of the whole list",
    ),
    Mutant("by 100", {"return total / 101": "return total / 100"}, "divided by 100"),
    Mutant("the sum", {"return total / 101": "return total"}, "the sum of the points"),
    Mutant("percent", {"return total / 101": "return 100 * total / 101"}, "percent"),
    Mutant("not equal", {"recall >= point": "recall > point"}, ">=, not >"),
    Mutant(
        "eleven points",
        {
            "range(101)": "range(11)",
            "point / 100": "point / 10",
            "total / 101": "total / 11",
        },
        "eleven points",
    ),
    Mutant("by hits", {"right / objects": "right / right[-1:]"}, "recall by the number of hits"),
    Mutant(
        "by detections",
        {"right / objects": "right / len(right)"},
        "recall by the number of detections",
    ),
    Mutant(
        "mean at hits",
        {
            _AP_PRECISION: _AP_PRECISION
            + "\n    if len(right):\n        return precision[matched[order]].mean().item()"
        },
        "the mean of the precisions of the hits",
    ),
    Mutant(
        "area",
        {
            "    total = 0.0\n": "    total = 0.0\n    if right.any():\n"
            "        best = precision.flip(0).cummax(0).values.flip(0)\n"
            "        return (best * matched[order]).sum().item() / objects\n"
        },
        "the area under the staircase",
    ),
    Mutant(
        "empty maximum", {"if len(reached) > 0:\n    ": "if True:\n    "}, "a recall that no rank"
    ),
    Mutant("a tensor", {"return total / 101": "return torch.tensor(total / 101)"}, "not a tensor"),
    Mutant("nothing", {"return total / 101": "print(total)"}, "without a return"),
    Mutant(
        "whole list",
        {_AP_PRECISION: "precision = right[-1:] / len(right) * torch.ones(len(right))"},
        "that of the whole list",
    ),
    Mutant(
        "rank from zero",
        {"torch.arange(1, len(right) + 1)": "torch.arange(len(right)).clamp(min=1)"},
        "as in the table",
    ),
    Mutant("in place", {_AP_SORT: "order = scores.neg_().argsort()"}, "in place"),
    Mutant(
        "few detections",
        {_AP_SORT: _AP_SORT + "[:20]"},
        "as in the table",
        hidden=True,
    ),
]
_AP_VARIANTS = {
    "staircase": "def average_precision(matched, scores, objects):\n"
    "    if not len(scores):\n        return 0.0\n"
    "    hits = torch.cumsum(matched[torch.sort(-scores).indices].long(), 0).double()\n"
    "    best = (hits / torch.arange(1, len(hits) + 1)).flip(0).cummax(0).values.flip(0)\n"
    "    points = torch.linspace(0, 1, 101, dtype=torch.float64)\n"
    "    first = torch.searchsorted(hits / objects, points)\n"
    "    padded = torch.cat([best, torch.zeros(1).double()])\n"
    "    return float(padded[first].mean())\n",
    "lists": "def average_precision(matched, scores, objects):\n"
    "    pairs = sorted(zip(scores.tolist(), matched.tolist()), reverse=True)\n"
    "    hits, places = 0, []\n    for rank, (_, flag) in enumerate(pairs, 1):\n"
    "        hits += flag\n        places.append((hits / objects, hits / rank))\n"
    "    points = [max((p for r, p in places if r >= i / 100), default=0) for i in range(101)]\n"
    "    return sum(points) / 101\n",
    "whole numbers": "def average_precision(matched, scores, objects):\n    import bisect\n"
    "    flags = matched[scores.argsort(descending=True)].int().tolist()\n"
    "    hits = [sum(flags[: k + 1]) for k in range(len(flags))]\n    total = 0\n"
    "    for i in range(101):\n        k = bisect.bisect_left([100 * h for h in hits], i * objects)\n"
    "        total += max([h / (n + 1) for n, h in enumerate(hits)][k:] or [0.0])\n"
    "    return total / 101\n",
    "numpy": "import numpy as np\n\ndef average_precision(matched, scores, objects):\n"
    "    right = np.cumsum(matched.numpy()[np.argsort(-scores.numpy())])\n"
    "    if right.size == 0:\n        return 0.0\n"
    "    precision = np.maximum.accumulate((right / np.arange(1, right.size + 1))[::-1])[::-1]\n"
    "    places = np.searchsorted(right / objects, np.linspace(0, 1, 101), side='left')\n"
    "    return float(np.mean([precision[i] if i < right.size else 0.0 for i in places]))\n",
}

_BLOCKS_LOAD = "net.backbone.load_state_dict(trained)"
_BLOCKS_PUT = "residual.block = Gain(residual.conv2.out_channels)"
_BLOCKS_LOOP = "for residual in residuals if index is None else [residuals[index]]:"
_BLOCKS_TEST = 'if stage not in ("c3", "c4", "c5"):'
_BLOCKS_MUTANTS = [
    Mutant(
        "silent",
        {_BLOCKS_LOAD: "net.load_state_dict(trained, strict=False)"},
        "nothing of the weights has arrived",
    ),
    Mutant("into the detector", {_BLOCKS_LOAD: "net.load_state_dict(trained)"}, "no backbone."),
    Mutant("with fc", {'if "fc" not in name': ""}, "the backbone has no fc"),
    Mutant("not loaded", {f"    {_BLOCKS_LOAD}\n": ""}, "nothing of the weights has arrived"),
    Mutant(
        "parameters alone",
        {
            'if "fc" not in name': 'if "fc" not in name and "running" not in name',
            _BLOCKS_LOAD: "net.backbone.load_state_dict(trained, strict=False)",
        },
        "the running statistics are lost",
    ),
    Mutant(
        "no blocks", {f"            {_BLOCKS_PUT}\n": "            pass\n"}, "no residual block"
    ),
    Mutant(
        "behind the stage",
        {
            f"        {_BLOCKS_LOOP}\n            {_BLOCKS_PUT}\n": "        residuals.append(Gain("
            "residuals[-1].conv2.out_channels))\n"
        },
        "it goes to the attribute block",
    ),
    Mutant("inputs", {"conv2.out_channels": "conv1.in_channels"}, "a block of another size"),
    Mutant("index ignored", {" if index is None else [residuals[index]]": ""}, "the index is"),
    Mutant("zero is none", {"if index is None else": "if not index else"}, "0 is an index, too"),
    Mutant("last alone", {"[residuals[index]]": "[residuals[-1]]"}, "counts as in a list"),
    Mutant("first of all", {"in residuals if": "in residuals[:1] if"}, "index=None means all"),
    Mutant(
        "c2 is fine",
        {_BLOCKS_TEST: 'if stage[0] != "c" or stage[1] not in "2345":'},
        "falls through",
    ),
    Mutant("no error", {_BLOCKS_TEST: "if False:"}, "falls through"),
    Mutant(
        "c3 refused", {'("c3", "c4", "c5"):\n        ': '("c4", "c5"):\n        '}, "these stages"
    ),
    Mutant(
        "skipped",
        {
            f'{_BLOCKS_TEST}\n            raise ValueError(f"no blocks in stage {{stage!r}}")': f"{_BLOCKS_TEST}\n            continue"
        },
        "falls through",
    ),
    Mutant(
        "one stage",
        {"    return net": "        return net\n    return net"},
        "does return stand inside of the loop",
    ),
    Mutant("frozen", {"    return net": "    net.requires_grad_(False)\n    return net"}, "frozen"),
    Mutant(
        "shared",
        {
            "        residuals = ": "        gain = Gain(getattr(net.backbone, stage)[0].conv2.out_channels)\n        residuals = ",
            _BLOCKS_PUT: "residual.block = gain",
        },
        "a Gain of its own",
    ),
    Mutant(
        "gains at one",
        {_BLOCKS_PUT: _BLOCKS_PUT + "\n            nn.init.ones_(residual.block.g)"},
        "a fresh Gain is the identity",
    ),
    Mutant(
        "of the detector", {"getattr(net.backbone, stage)": "getattr(net, stage)"}, "not to net"
    ),
    Mutant("nothing", {"    return net": "    return None"}, "of type NoneType"),
    Mutant(
        "initialised anew",
        {"    return net": "    nn.init.normal_(net.backbone.stem[0].weight)\n    return net"},
        "some layers have other numbers",
    ),
    Mutant(
        "replaced",
        {
            _BLOCKS_PUT: "residual.bn2 = nn.Sequential(residual.bn2, Gain(residual.conv2.out_channels))"
        },
        "a layer is gone",
    ),
]
_BLOCKS_HEAD = 'def detector_with_blocks(weights, stages=("c3", "c4", "c5"), index=None):\n'
_BLOCKS_VARIANTS = {
    "by prefix": _BLOCKS_HEAD + "    net = MiniDetector()\n    own = net.state_dict()\n"
    "    own.update({f'backbone.{k}': v for k, v in weights.items() if k.split('.')[0] != 'fc'})\n"
    "    net.load_state_dict(own)\n    if not set(stages) <= {'c3', 'c4', 'c5'}:\n"
    "        raise ValueError(stages)\n    for stage in stages:\n"
    "        rows = list(net.backbone.get_submodule(stage))\n"
    "        for one in (rows if index is None else rows[index:][:1]):\n"
    "            one.block = Gain(len(one.bn2.weight))\n    return net\n",
    "not strict, into the backbone": _BLOCKS_HEAD + "    net = MiniDetector()\n"
    "    print(net.backbone.load_state_dict(weights, strict=False).unexpected_keys)\n"
    "    sizes = dict(c3=6, c4=8, c5=10)\n    for s in stages:\n"
    "        try:\n            size = sizes[s]\n        except KeyError:\n"
    "            raise ValueError(s) from None\n        stage = getattr(net.backbone, s)\n"
    "        for number in range(len(stage)):\n"
    "            if index in (None, number, number - len(stage)):\n"
    "                stage[number].block = Gain(size)\n    return net\n",
    "setattr": _BLOCKS_HEAD + "    net = MiniDetector()\n    weights = dict(weights)\n"
    "    weights.pop('fc.weight'), weights.pop('fc.bias')\n"
    "    net.backbone.load_state_dict(weights, strict=True)\n    body = net.backbone\n"
    "    known = {'c3': body.c3, 'c4': body.c4, 'c5': body.c5}\n"
    "    for stage in stages:\n        if stage not in known:\n            raise ValueError\n"
    "        places = range(len(known[stage])) if index is None else (index,)\n"
    "        for n in places:\n            width = known[stage][n].bn2.num_features\n"
    "            known[stage][n].add_module('block', Gain(width))\n    return net\n",
    "weights last": _BLOCKS_HEAD + "    for stage in stages:\n"
    "        if stage[0] != 'c' or stage[1:] not in '345':\n            raise ValueError(stage)\n"
    "    net = MiniDetector()\n    for stage in stages:\n"
    "        chosen = getattr(net.backbone, stage)\n"
    "        if index is not None:\n            chosen = [chosen[index]]\n"
    "        for residual in chosen:\n"
    "            residual.block = Gain(residual.conv1.weight.shape[0])\n"
    "    with torch.no_grad():\n        for name, value in net.backbone.state_dict().items():\n"
    "            if 'block' not in name:\n                value.copy_(weights[name])\n    return net\n",
}

_RECIPE_SCALE = "scale = self.weight / (self.running_var + self.eps).sqrt()"
_RECIPE_SHIFT = "shift = self.bias - self.running_mean * scale"
_RECIPE_RETURN = "return x * scale[:, None, None] + shift[:, None, None]"
_RECIPE_PARTS = "(net.backbone.stem, net.backbone.c2)"
_RECIPE_GRAD = "        part.requires_grad_(False)\n"
_RECIPE_PUT = "module.add_module(name, FrozenNorm(child))"
_RECIPE_SYNC = "    if processes > 1:\n        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)\n"
_RECIPE_FREEZE = (
    "    for part in (net.backbone.stem, net.backbone.c2):\n"
    "        part.requires_grad_(False)\n"
    "        for module in list(part.modules()):\n"
    "            for name, child in list(module.named_children()):\n"
    "                if isinstance(child, nn.BatchNorm2d):\n"
    "                    module.add_module(name, FrozenNorm(child))\n"
)
_RECIPE_MUTANTS = [
    Mutant("gradients alone", {_RECIPE_PUT: "pass"}, "no norm was exchanged"),
    Mutant("norms alone", {_RECIPE_GRAD: ""}, "requires_grad_(False) on both"),
    Mutant(
        "norms still learn",
        {
            _RECIPE_GRAD: "        for conv in part.modules():\n"
            "            if isinstance(conv, nn.Conv2d):\n                conv.requires_grad_(False)\n",
            _RECIPE_PUT: "pass",
        },
        "the norms of stem and c2 still learn",
    ),
    Mutant("stem alone", {_RECIPE_PARTS: "(net.backbone.stem,)"}, "c2 is frozen, too"),
    Mutant("c2 alone", {_RECIPE_PARTS: "(net.backbone.c2,)"}, "the stem is frozen, too"),
    Mutant("whole backbone", {_RECIPE_PARTS: "(net.backbone,)"}, "too much is frozen"),
    Mutant(
        "all norms",
        {"list(part.modules())": "list(net.backbone.modules())"},
        "too much is frozen",
    ),
    Mutant(
        "norms of the outside alone",
        {"list(part.modules())": "[part]"},
        "a norm was passed over",
    ),
    Mutant("no SyncBN", {_RECIPE_SYNC: ""}, "with several processes"),
    Mutant("always SyncBN", {"if processes > 1:": "if processes:"}, "with one process"),
    Mutant(
        "SyncBN first",
        {_RECIPE_FREEZE + _RECIPE_SYNC: _RECIPE_SYNC + _RECIPE_FREEZE},
        "SyncBN came first",
    ),
    Mutant(
        "eval",
        {_RECIPE_PUT: "child.eval()"},
        "no norm was exchanged",
    ),
    Mutant("no mean", {_RECIPE_SHIFT: "shift = self.bias"}, "the running mean is not subtracted"),
    Mutant("no bias", {_RECIPE_SHIFT: "shift = -self.running_mean * scale"}, "bias is not added"),
    Mutant("no root", {".sqrt()": ""}, "by its root, the deviation"),
    Mutant(
        "unscaled mean", {"self.running_mean * scale": "self.running_mean"}, "without the scale"
    ),
    Mutant("no weight", {"scale = self.weight /": "scale = 1 /"}, "the weight is missing"),
    Mutant("mean added", {"self.bias - self": "self.bias + self"}, "the running mean is added"),
    Mutant("nothing done", {_RECIPE_RETURN: "return x"}, "the norm does nothing"),
    Mutant(
        "last axis",
        {_RECIPE_RETURN: "return x * scale + shift"},
        "two shapes that do not fit",
    ),
    Mutant(
        "batch statistics",
        {
            _RECIPE_SCALE: "if self.training:\n            return torch.nn.functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)\n        "
            + _RECIPE_SCALE
        },
        "switches its norms to the statistics of the batch",
    ),
    Mutant(
        "running",
        {
            _RECIPE_RETURN: "if self.training:\n            self.running_mean = self.running_mean * 0.9\n        "
            + _RECIPE_RETURN
        },
        "a step in training moves",
    ),
    Mutant(
        "statistics lost",
        {_RECIPE_PUT: "module.add_module(name, FrozenNorm(nn.BatchNorm2d(child.num_features)))"},
        "the norm does nothing",
    ),
    Mutant(
        "cut off",
        {
            "    return net": "    net.backbone.c5.register_forward_hook(lambda m, i, o: o.detach())\n    return net"
        },
        "cut off from the graph",
    ),
    Mutant("nothing", {"    return net": "    return None"}, "of type NoneType"),
    Mutant("no epsilon", {" + self.eps": ""}, "expected", hidden=True),
    Mutant("three GPUs", {"processes > 1": "processes in (2, 8)"}, "with several", hidden=True),
]
_RECIPE_CLASS = "class FrozenNorm(NumbersOfNorm):\n    def forward(self, x):\n"
_RECIPE_VARIANTS = {
    "functional": _RECIPE_CLASS + "        return torch.nn.functional.batch_norm(\n"
    "            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps\n"
    "        )\n\n\ndef recipe_detector(weights, processes):\n    net = MiniDetector()\n"
    "    net.load_state_dict(weights)\n    body = net.backbone\n"
    "    for p in [*body.stem.parameters(), *body.c2.parameters()]:\n        p.requires_grad = False\n"
    "    body.stem[1] = FrozenNorm(body.stem[1])\n    body.c2[0].bn1 = FrozenNorm(body.c2[0].bn1)\n"
    "    body.c2[0].bn2 = FrozenNorm(body.c2[0].bn2)\n"
    "    return nn.SyncBatchNorm.convert_sync_batchnorm(net) if processes > 1 else net\n",
    "step by step": _RECIPE_CLASS
    + "        shape = (1, -1, 1, 1)\n        x = x - self.running_mean.view(shape)\n"
    "        x = x * torch.rsqrt(self.running_var.view(shape) + self.eps)\n"
    "        return torch.addcmul(self.bias.view(shape), x, self.weight.view(shape))\n\n\n"
    "def exchange(module):\n    for name, child in module.named_children():\n"
    "        if isinstance(child, nn.BatchNorm2d):\n"
    "            module.add_module(name, FrozenNorm(child))\n"
    "        else:\n            exchange(child)\n\n\n"
    "def recipe_detector(weights, processes):\n    net = MiniDetector()\n"
    "    net.load_state_dict(weights)\n    for name in ('stem', 'c2'):\n"
    "        part = getattr(net.backbone, name)\n        exchange(part)\n"
    "        for p in part.parameters():\n            p.requires_grad_(False)\n"
    "    if processes >= 2:\n        for stage in ('c5', 'c4', 'c3'):\n"
    "            old = getattr(net.backbone, stage)\n"
    "            new = nn.SyncBatchNorm.convert_sync_batchnorm(old)\n"
    "            net.backbone.add_module(stage, new)\n    return net\n",
    "by name": _RECIPE_CLASS
    + "        y = (x.movedim(1, 3) - self.running_mean) / (self.running_var + self.eps) ** 0.5\n"
    "        return (y * self.weight + self.bias).movedim(3, 1)\n\n\n"
    "def recipe_detector(weights, processes):\n    net = MiniDetector()\n"
    "    net.load_state_dict(weights)\n    early = ('backbone.stem', 'backbone.c2')\n"
    "    for name, module in list(net.named_modules()):\n"
    "        if name.startswith(early) and isinstance(module, nn.BatchNorm2d):\n"
    "            parent, _, last = name.rpartition('.')\n"
    "            net.get_submodule(parent).add_module(last, FrozenNorm(module))\n"
    "    for name, p in net.named_parameters():\n        p.requires_grad = not name.startswith(early)\n"
    "    if processes != 1:\n        net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)\n"
    "    return net\n",
    "held in evaluation": "class Held(nn.BatchNorm2d):\n    def train(self, mode=True):\n"
    "        return super().train(False)\n\n\n"
    "def recipe_detector(weights, processes):\n    net = MiniDetector()\n    body = net.backbone\n"
    "    body.stem[1] = Held(4)\n    body.c2[0].bn1, body.c2[0].bn2 = Held(5), Held(5)\n"
    "    net.load_state_dict(weights)\n    net.train()\n"
    "    for part in (body.stem, body.c2):\n        part.requires_grad_(False)\n"
    "    if processes > 1:\n        for name in ('c3', 'c4', 'c5'):\n"
    "            stage = nn.SyncBatchNorm.convert_sync_batchnorm(getattr(body, name))\n"
    "            body.add_module(name, stage)\n    return net\n",
}

_DECODE_STDS = "(deltas * deltas.new_tensor(stds))"
_DECODE_SIZE = "width, height = width * dw.exp(), height * dh.exp()"
_DECODE_X = "x = (left + right) / 2 + dx * width"
_DECODE_Y = "y = (top + bottom) / 2 + dy * height"
_DECODE_LIMITS = "limits = deltas.new_tensor([size[1], size[0], size[1], size[0]])"
_DECODE_CLIP = ".clamp(min=0).minimum(limits)"
_DECODE_MUTANTS = [
    Mutant("no stds", {_DECODE_STDS: "deltas"}, "in units of stds: multiply"),
    Mutant("divided", {"deltas * deltas": "deltas / deltas"}, "do not divide"),
    Mutant("pixels", {"dx * width": "dx"}, "in units of the box"),
    Mutant("subtracted", {"/ 2 + dx": "/ 2 - dx"}, "the move is added"),
    Mutant(
        "new size in the move",
        {
            f"    {_DECODE_X}\n    {_DECODE_Y}\n    {_DECODE_SIZE}": f"    {_DECODE_SIZE}\n    {_DECODE_X}\n    {_DECODE_Y}"
        },
        "the moves take the new size",
    ),
    Mutant("exchanged", {"dx * width": "dx * height", "dy * height": "dy * width"}, "exchanged in"),
    Mutant(
        "a corner",
        {"(left + right) / 2 + dx": "left + dx", "(top + bottom) / 2 + dy": "top + dy"},
        "a corner is moved",
    ),
    Mutant(
        "whole widths",
        {
            " - width / 2": " - width",
            "x + width / 2": "x + width",
            "y - height / 2": "y - height",
            "y + height / 2": "y + height",
        },
        "half a width away",
    ),
    Mutant("old size", {f"    {_DECODE_SIZE}\n": ""}, "the size stays the old one"),
    Mutant("no exp", {"dw.exp()": "dw", "dh.exp()": "dh"}, "exp is missing"),
    Mutant(
        "stds fixed", {"new_tensor(stds)": "new_tensor((0.1, 0.1, 0.2, 0.2))"}, "stds are fixed"
    ),
    Mutant("not clipped", {_DECODE_CLIP: ""}, "nothing is clipped"),
    Mutant("not at zero", {".clamp(min=0)": ""}, "nothing is clipped at 0", hidden=False),
    Mutant(
        "sizes swapped",
        {"[size[1], size[0], size[1], size[0]]": "[*size, *size]"},
        "(height, width)",
    ),
    Mutant(
        "smaller side", {"[size[1], size[0], size[1], size[0]]": "[min(size)] * 4"}, "smaller side"
    ),
    Mutant(
        "larger side", {"[size[1], size[0], size[1], size[0]]": "[max(size)] * 4"}, "larger side"
    ),
    Mutant("last pixel", {"size[0]])": "size[0]]) - 1"}, "up to the width itself"),
    Mutant(
        "columns",
        {
            "torch.stack(corners, dim=1)": "torch.stack([corners[0], corners[2], corners[1], corners[3]], dim=1)"
        },
        "the order is left, top",
    ),
    Mutant(
        "rows",
        {
            "torch.stack(corners, dim=1).clamp(min=0).minimum(limits)": "torch.stack(corners).clamp(min=0)"
        },
        "rows and columns are exchanged",
    ),
    Mutant(
        "centre and size",
        {"torch.stack(corners, dim=1)": "torch.stack([x, y, width, height], dim=1)"},
        "return corners",
    ),
    Mutant(
        "float64",
        {"deltas * deltas.new_tensor(stds)": "deltas * torch.tensor(stds, dtype=torch.float64)"},
        "converts to a fixed dtype",
    ),
    Mutant("float32", {"deltas.new_tensor(stds)": "torch.tensor(stds)"}, "away"),
    Mutant("nothing", {"return torch.stack": "torch.stack"}, "without a return"),
    Mutant("cut off", {"deltas * deltas.new": "deltas.detach() * deltas.new"}, "cut off"),
    Mutant(
        "in place",
        {"(deltas * deltas.new_tensor(stds))": "deltas.mul_(deltas.new_tensor(stds))"},
        "in place",
    ),
    Mutant(
        "stds in pairs",
        {"new_tensor(stds)": "new_tensor((stds[0], stds[0], stds[2], stds[2]))"},
        "one by one",
        hidden=True,
    ),
]
_DECODE_HEAD = "def decode(boxes, deltas, stds, size):\n"
_DECODE_VARIANTS = {
    "matrices": _DECODE_HEAD + "    shift = deltas * torch.as_tensor(stds, dtype=deltas.dtype)\n"
    "    sides = boxes[:, 2:] - boxes[:, :2]\n"
    "    middle = (boxes[:, 2:] + boxes[:, :2]) / 2 + shift[:, :2] * sides\n"
    "    half = sides * torch.exp(shift[:, 2:]) / 2\n"
    "    edge = torch.tensor([size[1], size[0]] * 2, dtype=deltas.dtype)\n"
    "    return torch.cat([middle - half, middle + half], 1).clamp(torch.zeros_like(edge), edge)\n",
    "columns": _DECODE_HEAD + "    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]\n"
    "    cx = boxes[:, 0] + 0.5 * w + deltas[:, 0] * stds[0] * w\n"
    "    cy = boxes[:, 1] + 0.5 * h + deltas[:, 1] * stds[1] * h\n"
    "    w = w * (deltas[:, 2] * stds[2]).exp()\n    h = h * (deltas[:, 3] * stds[3]).exp()\n"
    "    out = torch.zeros_like(boxes)\n    tall, wide = size\n"
    "    out[:, 0] = (cx - 0.5 * w).clamp(0, wide)\n    out[:, 1] = (cy - 0.5 * h).clamp(0, tall)\n"
    "    out[:, 2] = (cx + 0.5 * w).clamp(0, wide)\n    out[:, 3] = (cy + 0.5 * h).clamp(0, tall)\n"
    "    return out\n",
    "row by row": "import math\n\n"
    + _DECODE_HEAD
    + "    rows = []\n    for box, delta in zip(boxes, deltas):\n"
    "        dx, dy, dw, dh = [d * s for d, s in zip(delta, stds)]\n"
    "        w, h = box[2] - box[0], box[3] - box[1]\n"
    "        x, y = box[0] + w / 2 + dx * w, box[1] + h / 2 + dy * h\n"
    "        w, h = w * math.e ** dw, h * math.e ** dh\n"
    "        rows.append(torch.stack([\n"
    "            torch.clip(x - w / 2, 0, size[1]), torch.clip(y - h / 2, 0, size[0]),\n"
    "            torch.clip(x + w / 2, 0, size[1]), torch.clip(y + h / 2, 0, size[0])]))\n"
    "    return torch.stack(rows) if rows else boxes.clone()\n",
    "units of the box": _DECODE_HEAD + "    low, high = boxes.split(2, dim=1)\n"
    "    move, grow = (deltas * deltas.new_tensor(list(stds))).split(2, dim=1)\n"
    "    unit = high - low\n    grow = grow.exp() / 2\n"
    "    places = [low + unit * (0.5 + move + sign * grow) for sign in (-1, 1)]\n"
    "    wide = deltas.new_tensor(size[::-1])\n"
    "    return torch.cat([torch.minimum(p.relu(), wide) for p in places], dim=1)\n",
}

_CASCADE_DECODE = "boxes = decode(boxes.detach(), deltas, stds_of(stage), size)"
_CASCADE_VOTES = "torch.stack(votes).mean(0).softmax(1)"
_CASCADE_MUTANTS = [
    Mutant(
        "not in sequence",
        {
            "    votes = []": "    start, votes = boxes, []",
            "(stage, boxes, truth)": "(stage, start, truth)",
            "decode(boxes.detach()": "decode(start.detach()",
        },
        "each stage starts from the proposals",
    ),
    Mutant("one stage", {"range(3)": "range(1)"}, "one stage alone"),
    Mutant("two stages", {"range(3)": "range(2)"}, "two stages: there are three"),
    Mutant("first stds", {"stds_of(stage)": "stds_of(0)"}, "with the stds of stage 1"),
    Mutant("last stds", {"stds_of(stage)": "stds_of(2)"}, "with the stds of stage 3"),
    Mutant("stds backwards", {"stds_of(stage)": "stds_of(2 - stage)"}, "in the wrong order"),
    Mutant(
        "proposals",
        {"    votes = []": "    first, votes = boxes, []", "return boxes,": "return first,"},
        "these are the proposals",
    ),
    Mutant("not clipped", {"stds_of(stage), size)": "stds_of(stage), (1e9, 1e9))"}, "hand size on"),
    Mutant(
        "clipped at the end",
        {"stds_of(stage), size)": "stds_of(stage), size if stage == 2 else (1e9, 1e9))"},
        "clipped at the end alone",
    ),
    Mutant("last votes", {_CASCADE_VOTES: "votes[-1].softmax(1)"}, "the last stage alone"),
    Mutant("first votes", {_CASCADE_VOTES: "votes[0].softmax(1)"}, "the first stage alone"),
    Mutant("sum", {".mean(0)": ".sum(0)"}, "the sum of the logits"),
    Mutant(
        "mean of probabilities",
        {"mean(0).softmax(1)": "softmax(2).mean(0)"},
        "the mean of the probabilities",
    ),
    Mutant("logits", {".softmax(1)": ""}, "these are logits"),
    Mutant("over boxes", {"softmax(1)": "softmax(0)"}, "softmax over the boxes"),
    Mutant(
        "votes behind",
        {
            "        votes.append(logits)\n": "",
            _CASCADE_DECODE: _CASCADE_DECODE
            + "\n        votes.append(stage_head(stage, boxes, truth)[1])",
        },
        "the logits of the boxes that go out",
    ),
    Mutant("two vote", {"torch.stack(votes)": "torch.stack(votes[:2])"}, "two stages vote"),
    Mutant("boxes alone", {f"return boxes, {_CASCADE_VOTES}": "return boxes"}, "return a pair"),
    Mutant(
        "order",
        {f"return boxes, {_CASCADE_VOTES}": f"return {_CASCADE_VOTES}, boxes"},
        "boxes first",
    ),
    Mutant(
        "nothing",
        {"return boxes": "print(boxes", ".softmax(1)": ".softmax(1))"},
        "without a return",
    ),
    Mutant(
        "mean of the boxes",
        {
            "    votes = []": "    votes, all_boxes = [], []",
            _CASCADE_DECODE: _CASCADE_DECODE + "\n        all_boxes.append(boxes)",
            "return boxes,": "return torch.stack(all_boxes).mean(0),",
        },
        "the mean over the stages",
    ),
    Mutant("best vote", {".mean(0)": ".amax(0)"}, "the last stage alone"),
    Mutant(
        "flat image",
        {"stds_of(stage), size)": "stds_of(stage), (40, size[1]))"},
        "from",
        hidden=True,
    ),
]
_CASCADE_HEAD = "def cascade(boxes, truth, size):\n"
_CASCADE_VARIANTS = {
    "a running sum": _CASCADE_HEAD + "    total = 0\n    for k in (0, 1, 2):\n"
    "        moves, scores = stage_head(k, boxes, truth)\n        total = total + scores / 3\n"
    "        boxes = decode(boxes, moves, stds_of(k), size)\n"
    "    return boxes, torch.softmax(total, dim=-1)\n",
    "unrolled": _CASCADE_HEAD + "    d0, l0 = stage_head(0, boxes, truth)\n"
    "    first = decode(boxes, d0, stds_of(0), size)\n"
    "    d1, l1 = stage_head(1, first, truth)\n    second = decode(first, d1, stds_of(1), size)\n"
    "    d2, l2 = stage_head(2, second, truth)\n"
    "    logits = (l0 + l1 + l2) / 3\n    top = (logits - logits.amax(1, keepdim=True)).exp()\n"
    "    return decode(second, d2, stds_of(2), size), top / top.sum(1, keepdim=True)\n",
    "recursion": "def refine(boxes, truth, size, stage=0):\n    if stage == 3:\n"
    "        return boxes, []\n    deltas, logits = stage_head(stage, boxes, truth)\n"
    "    moved = decode(boxes, deltas, stds_of(stage), size)\n"
    "    end, more = refine(moved, truth, size, stage + 1)\n    return end, [logits, *more]\n\n\n"
    + _CASCADE_HEAD
    + "    end, votes = refine(boxes, truth, size)\n"
    "    return end, nn.functional.softmax(sum(votes) / len(votes), 1)\n",
    "lists": _CASCADE_HEAD + "    seen, voices = [boxes], []\n    for stage in range(3):\n"
    "        with torch.no_grad():\n            deltas, logits = stage_head(stage, seen[-1], truth)\n"
    "        voices += [logits[:, :, None]]\n"
    "        seen += [decode(seen[-1], deltas, stds_of(stage), size)]\n"
    "    return [seen[3], torch.cat(voices, dim=2).mean(2).softmax(dim=1)]\n",
}

MUTANTS = {
    "c08-e1": _MATCH_MUTANTS,
    "c08-e2": _AP_MUTANTS,
    "c08-e3": _BLOCKS_MUTANTS,
    "c08-e4": _RECIPE_MUTANTS,
    "c08-e5": _DECODE_MUTANTS,
    "c08-e6": _CASCADE_MUTANTS,
}
VARIANTS = {
    "c08-e1": _MATCH_VARIANTS,
    "c08-e2": _AP_VARIANTS,
    "c08-e3": _BLOCKS_VARIANTS,
    "c08-e4": _RECIPE_VARIANTS,
    "c08-e5": _DECODE_VARIANTS,
    "c08-e6": _CASCADE_VARIANTS,
}
