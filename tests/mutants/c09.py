"""Mutants and variants of chapter 09."""

from mutants.answers import Mutant

_FILM_REPEAT = "given[:, :, None].repeat(1, 1, steps, 1, 1) / steps"
_FILM_MIDDLE = "inflated[:, :, steps // 2] = given"
_FILM_CHECK = 'if how not in ("centre", "average"):'
_FILM_SAME = "if given.shape == fresh.shape:"
_FILM_LOAD = "net.load_state_dict(start)"
_FILM_MUTANTS = [
    Mutant("not divided", {" / steps": ""}, "divide by T"),
    Mutant("first step", {"steps // 2] = given": "0] = given"}, "stands in the first step"),
    Mutant("last step", {"steps // 2] = given": "-1] = given"}, "stands in the last step"),
    Mutant("always step 1", {"steps // 2] = given": "min(1, steps - 1)] = given"}, "moves with T"),
    Mutant("exchanged", {'how == "centre"': 'how == "average"'}, "centre and average are"),
    Mutant("by three", {") / steps": ") / min(steps, 3)"}, "that is not this kernel's number"),
    Mutant(
        "part of the middle",
        {_FILM_MIDDLE: "inflated[:, :, steps // 2] = given / steps"},
        "centre takes all of it",
    ),
    Mutant("falls through", {_FILM_CHECK: "if False:"}, "falls through"),
    Mutant("centre refused", {_FILM_CHECK: 'if how != "average":'}, "refuse any other"),
    Mutant(
        "no norms",
        {_FILM_SAME: 'if given.shape == fresh.shape and "bn" not in name:'},
        "the same shape in both networks is taken",
    ),
    Mutant(
        "no statistics",
        {_FILM_SAME: 'if given.shape == fresh.shape and "running" not in name:'},
        "running_mean and running_var are no parameters",
    ),
    Mutant(
        "no fc",
        {_FILM_SAME: 'if given.shape == fresh.shape and "fc" not in name:'},
        "with as many classes, fc",
    ),
    Mutant(
        "fc of others",
        {
            "elif given.dim() == 4:": "elif given.dim() < 3:\n            start[name] = given\n        else:"
        },
        "leave the other out",
    ),
    Mutant(
        "empty start",
        {
            "start = net.state_dict()": "fresh_state, start = net.state_dict(), {}",
            "fresh = start[name]": "fresh = fresh_state[name]",
        },
        "more than the weights have",
    ),
    Mutant(
        "not loaded",
        {f"    {_FILM_LOAD}\n": "", "start = net.state_dict()": "start = dict(net.state_dict())"},
        "is it loaded",
    ),
    Mutant("nothing", {"    return net": "    return None"}, "of type NoneType"),
    Mutant("state dict", {"    return net": "    return start"}, "of type OrderedDict"),
    Mutant(
        "frozen", {"    return net": "    return net.requires_grad_(False)"}, "requires_grad is off"
    ),
    Mutant("classes", {"net = Film(classes)": "net = Film()"}, "that of the argument"),
    Mutant(
        "in place",
        {"inflated = given[:, :, None]": "inflated = given.mul_(1.5)[:, :, None]"},
        "the caller's tensors are changed",
    ),
    Mutant(
        "gain set",
        {"    return net": "    nn.init.ones_(net.gain)\n    return net"},
        "leave it as it is",
    ),
    Mutant(
        "axis at the end",
        {_FILM_REPEAT: "given[..., None].repeat(1, 1, 1, 1, steps).reshape(fresh.shape) / steps"},
        "kernel",
    ),
    Mutant(
        "skips wide kernels",
        {"elif given.dim() == 4:": "elif given.dim() == 4 and given.shape[2] == 1:"},
        "is it loaded",
    ),
]
_FILM_HEAD = "def film_of(weights, how, classes=5):\n    net = Film(classes)\n"
_FILM_VARIANTS = {
    "not strict": _FILM_HEAD + "    own, found = dict(net.named_parameters()), {}\n"
    "    for k, w in weights.items():\n"
    "        if k.startswith('conv'):\n            t = own[k].size(2)\n"
    "            parts = {'average': [w / t] * t,\n"
    "                     'centre': [w if i == t // 2 else 0 * w for i in range(t)]}\n"
    "            if how not in parts:\n                raise ValueError(how)\n"
    "            w = torch.stack(parts[how], 2)\n"
    "        if k[:2] != 'fc' or len(own['fc.bias']) == len(weights['fc.bias']):\n"
    "            found[k] = w\n"
    "    net.load_state_dict(found, strict=False)\n    return net\n",
    "copy into places": _FILM_HEAD
    + "    if how == 'average':\n        share = lambda t: torch.ones(t) / t\n"
    "    elif how == 'centre':\n        share = lambda t: (torch.arange(t) == t // 2).float()\n"
    "    else:\n        raise ValueError('how: centre or average')\n"
    "    with torch.no_grad():\n        for key, target in net.state_dict().items():\n"
    "            if key not in weights:\n                continue\n"
    "            if target.dim() == 5:\n"
    "                target.copy_(weights[key].unsqueeze(2) * share(target.shape[2])[:, None, None])\n"
    "            elif target.shape == weights[key].shape:\n                target.copy_(weights[key])\n"
    "    return net\n",
    "a Still first": _FILM_HEAD
    + "    if how not in {'centre', 'average'}:\n        raise ValueError\n"
    "    still = Still(len(weights['fc.bias']))\n    still.load_state_dict(weights)\n"
    "    net.bn1.load_state_dict(still.bn1.state_dict())\n"
    "    net.bn2.load_state_dict(still.bn2.state_dict())\n"
    "    if still.fc.out_features == classes:\n        net.fc.load_state_dict(still.fc.state_dict())\n"
    "    pairs = [(still.conv1, net.conv1), (still.conv2, net.conv2), (still.conv3, net.conv3)]\n"
    "    for flat, deep in pairs:\n        kernel = flat.weight.detach()[:, :, None]\n"
    "        steps = deep.kernel_size[0]\n        if how == 'average':\n"
    "            deep.weight.data.copy_(kernel.expand_as(deep.weight) / steps)\n"
    "        else:\n            deep.weight.data.zero_()\n"
    "            deep.weight.data.narrow(2, steps // 2, 1).copy_(kernel)\n    return net\n",
    "padded": _FILM_HEAD + "    if how == 'centre':\n"
    "        grow = lambda w, t: F.pad(w[:, :, None], (0, 0, 0, 0, t // 2, t // 2))\n"
    "    elif how == 'average':\n"
    "        grow = lambda w, t: torch.cat([w[:, :, None]] * t, dim=2).div(t)\n"
    "    else:\n        raise ValueError(f'unknown {how}')\n    own = net.state_dict()\n"
    "    for name in own.keys() & weights.keys():\n        w = weights[name]\n"
    "        if w.ndim == 4:\n            w = grow(w, own[name].shape[2])\n"
    "        if w.shape == own[name].shape:\n            own[name] = w\n"
    "    net.load_state_dict(own)\n    return net\n",
}

_REACH_SUM = "sum(size // 2 for size in kernels)"
_REACH_TEST = "t < reach or t >= frames - reach"
_REACH_MUTANTS = [
    Mutant("whole kernels", {"size // 2 for": "size for"}, "not k\n"),
    Mutant("k minus one", {"size // 2 for": "size - 1 for"}, "not k - 1"),
    Mutant(
        "largest", {_REACH_SUM: "max(size // 2 for size in kernels)"}, "the largest kernel alone"
    ),
    Mutant("number of kernels", {_REACH_SUM: "len(kernels)"}, "one frame for each convolution"),
    Mutant("last kernel", {_REACH_SUM: "kernels[-1] // 2"}, "the last kernel alone"),
    Mutant(
        "first kernel",
        {_REACH_SUM: "kernels[0] // 2"},
        "the first kernel alone",
    ),
    Mutant("start alone", {_REACH_TEST: "t < reach"}, "the last frames see zeros"),
    Mutant("end alone", {_REACH_TEST: "t >= frames - reach"}, "the first frames see zeros"),
    Mutant("those that stay", {f"if {_REACH_TEST}": f"if not ({_REACH_TEST})"}, "that stay"),
    Mutant("one too few", {">= frames": "> frames"}, "one frame too few at the end"),
    Mutant("one too many", {"t < reach": "t <= reach"}, "one frame too many at the start"),
    Mutant(
        "one too many behind", {"frames - reach]": "frames - reach - 1]"}, "too many at the end"
    ),
    Mutant("from 1", {"return [t for": "return [t + 1 for"}, "counted from 0"),
    Mutant(
        "twice",
        {
            f"[t for t in range(frames) if {_REACH_TEST}]": "[*range(min(reach, frames)), "
            "*range(max(frames - reach, 0), frames)]"
        },
        "is listed once",
    ),
    Mutant(
        "negative",
        {
            f"[t for t in range(frames) if {_REACH_TEST}]": "[*range(reach), *range(frames - reach, frames)]"
        },
        "no negative ones",
    ),
    Mutant("centre alike", {'if how == "centre":\n        return []\n    ': ""}, "nothing changes"),
    Mutant(
        "flags",
        {f"[t for t in range(frames) if {_REACH_TEST}]": f"[{_REACH_TEST} for t in range(frames)]"},
        "flags: return the numbers",
    ),
    Mutant(
        "a number", {"return [t for": "return len([t for", "reach]": "reach])"}, "this is a number"
    ),
    Mutant("nothing", {"return [t for": "[t for"}, "without a return"),
    Mutant(
        "a set", {"return [t for": "return {t for", "- reach]": "- reach}"}, "a list of integers"
    ),
    Mutant("backwards", {"in range(frames)": "in reversed(range(frames))"}, "in ascending order"),
    Mutant(
        "at most three",
        {_REACH_SUM: f"min({_REACH_SUM}, 5)"},
        "how far do zeros reach",
        hidden=True,
    ),
]
_REACH_HEAD = "def changed_frames(frames, kernels, how):\n"
_REACH_VARIANTS = {
    "step by step": _REACH_HEAD + "    good = [True] * frames\n"
    "    for k in kernels if how == 'average' else ():\n        h = k // 2\n"
    "        padded = [False] * h + good + [False] * h\n"
    "        good = [all(padded[t : t + k]) for t in range(frames)]\n"
    "    return [t for t, one in enumerate(good) if not one]\n",
    "sets": _REACH_HEAD
    + "    reach = 0 if how != 'average' else sum((k - 1) // 2 for k in kernels)\n"
    "    inside = range(reach, frames - reach)\n"
    "    return sorted(set(range(frames)) - set(inside))\n",
    "distance to the ends": _REACH_HEAD + "    changed = []\n    for t in range(frames):\n"
    "        near = min(t, frames - 1 - t)\n"
    "        if how == 'average' and near < (sum(kernels) - len(kernels)) / 2:\n"
    "            changed.append(t)\n    return changed\n",
    "a real convolution": _REACH_HEAD + "    x = torch.ones(1, 1, frames).double()\n"
    "    for k in kernels:\n        w = torch.zeros(1, 1, k).double()\n"
    "        w[..., k // 2] = 1\n        if how == 'average':\n            w = torch.full_like(w, 1 / k)\n"
    "        x = F.conv1d(x, w, padding=k // 2)\n"
    "    return (x.flatten() < 1 - 1e-12).nonzero().flatten().tolist()\n",
}

_CLIP_PLACES = "torch.arange(clips).double() / clips"
_CLIP_ROOM = "room = max(count / fps - 64 / 30, 0)"
_CLIP_STEP = "torch.arange(8).double() * 8 / 30"
_CLIP_FLOOR = "(times * fps + 0.001).floor().long()"
_CLIP_CLAMP = ".clamp(max=count - 1)"
_CLIP_MUTANTS = [
    Mutant("no small number", {" + 0.001": ""}, "add 0.001"),
    Mutant("rounded", {".floor()": ".round()"}, "floor, not round"),
    Mutant(
        "pictures of the file", {_CLIP_STEP: "torch.arange(8).double() * 8 / fps"}, "times first"
    ),
    Mutant("stride 1", {_CLIP_STEP: "torch.arange(8).double() / 30"}, "one after another"),
    Mutant("with both ends", {_CLIP_STEP: "torch.linspace(0, 64 / 30, 8).double()"}, "not 64/7"),
    Mutant("63 frames", {_CLIP_STEP: "torch.arange(8).double() * 9 / 30"}, "over 63 frames"),
    Mutant("to the end", {"/ clips\n": "/ max(clips - 1, 1)\n"}, "does not reach the end"),
    Mutant("no clamp", {_CLIP_CLAMP: ""}, "clamp at count - 1"),
    Mutant("clamp at count", {"max=count - 1": "max=count"}, "the last picture is count - 1"),
    Mutant("again", {_CLIP_CLAMP: " % count"}, "begins again from the first"),
    Mutant("share of the video", {" - 64 / 30, 0": ", 0"}, "shares of duration - 64/30"),
    Mutant("seven strides", {"- 64 / 30, 0": "- 56 / 30, 0"}, "not 7 · 8"),
    Mutant("no room below 0", {_CLIP_ROOM: "room = count / fps - 64 / 30"}, "a negative room"),
    Mutant("floats", {".floor().long()": ".floor()"}, ".floor().long()"),
    Mutant("never at random", {"torch.rand(1)": "torch.zeros(1)"}, "the place is drawn"),
    Mutant("randn", {"torch.rand(1)": "torch.randn(1).abs()"}, "at most at duration"),
    Mutant("first half", {"torch.rand(1)": "(torch.rand(1) / 2)"}, "the place is uniform"),
    Mutant(
        "eight random pictures",
        {
            "    room =": "    if not clips:\n        return torch.randint(count, (1, 8)).sort().values\n    room ="
        },
        "not eight random pictures",
    ),
    Mutant("one row", {"places[:, None] + ": "places[:1, None] + "}, "a row for each clip"),
    Mutant("nothing", {"    return (times": "    (times"}, "without a return"),
    Mutant(
        "distance rounded",
        {
            "    return (times": "    step = int(8 * fps / 30)\n    first = (room * places * fps + 0.001).floor().long()\n    return (first[:, None] + torch.arange(8) * step).clamp(max=count - 1)\n    return (times"
        },
        "the distance is rounded first",
    ),
    Mutant(
        "one behind the other",
        {"room * places[:, None] +": "64 / 30 * clips * places[:, None] +"},
        "clips one behind the other",
    ),
    Mutant(
        "middle of its part",
        {_CLIP_PLACES: "(torch.arange(clips).double() + 0.5) / clips"},
        "floor(time · fps)",
    ),
    Mutant("whole rates", {"times * fps": "times * round(fps)"}, "picture floor", hidden=True),
]
_CLIP_HEAD = "def clip_frames(count, fps, clips=0):\n"
_CLIP_VARIANTS = {
    "lists": _CLIP_HEAD + "    import random\n    room = max(0.0, count / fps - 64 / 30)\n"
    "    places = [k / clips for k in range(clips)] if clips else [random.random()]\n"
    "    rows = []\n    for place in places:\n        times = [place * room + 8 * j / 30 for j in range(8)]\n"
    "        rows.append([min(int(t * fps + 0.001), count - 1) for t in times])\n"
    "    return torch.tensor(rows)\n",
    "in pictures": _CLIP_HEAD + "    apart = 8 * fps / 30\n    room = max(count - 8 * apart, 0)\n"
    "    starts = torch.linspace(0, room, clips + 1, dtype=torch.float64)[:-1]\n"
    "    if clips == 0:\n        starts = room * torch.rand(1, dtype=torch.float64)\n"
    "    steps = apart * torch.arange(8, dtype=torch.float64)\n"
    "    exact = starts.unsqueeze(1) + steps.unsqueeze(0)\n"
    "    return torch.floor(exact + 1e-3).to(torch.int64).clamp_(max=count - 1)\n",
    "numpy": "import numpy as np\n\n" + _CLIP_HEAD + "    k = max(clips, 1)\n"
    "    places = np.arange(k) / k if clips else np.random.uniform(size=1)\n"
    "    starts = places * max(count / fps - 64 / 30, 0)\n"
    "    table = np.add.outer(starts, np.arange(8) * 8 / 30) * fps\n"
    "    return torch.from_numpy(np.minimum(np.floor(table + 0.001), count - 1).astype(np.int64))\n",
    "single precision": _CLIP_HEAD + "    room = max(count / fps - 64 / 30, 0.0)\n"
    "    start = torch.arange(clips) * room / clips if clips else torch.rand(1) * room\n"
    "    times = start[:, None] + torch.arange(0, 64, 8) / 30\n"
    "    last = torch.tensor(count - 1)\n"
    "    return torch.minimum((times * fps + 0.001).long(), last)\n",
}

_VIEW_STARTS = "(0, rest // 2, rest)"
_VIEW_RETURN = "logits.softmax(dim=1).mean(dim=0)"
_VIEW_MUTANTS = [
    Mutant("logits averaged", {_VIEW_RETURN: "logits.mean(dim=0).softmax(dim=0)"}, "softmax first"),
    Mutant("no softmax", {".softmax(dim=1)": ""}, "these are logits"),
    Mutant("middle alone", {_VIEW_STARTS: "(rest // 2,) * 3"}, "the middle crop alone"),
    Mutant("first alone", {_VIEW_STARTS: "(0, 0, 0)"}, "the first crop alone"),
    Mutant("last alone", {_VIEW_STARTS: "(rest, rest, rest)"}, "the last crop alone"),
    Mutant("no middle", {_VIEW_STARTS: "(0, rest)"}, "the middle one is missing"),
    Mutant("no last", {_VIEW_STARTS: "(0, rest // 2)"}, "the last one is missing"),
    Mutant("no first", {_VIEW_STARTS: "(rest // 2, rest)"}, "the first one is missing"),
    Mutant("sum", {".mean(dim=0)": ".sum(dim=0)"}, "the sum of the probabilities"),
    Mutant("sum of crops", {_VIEW_RETURN: "3 * " + _VIEW_RETURN}, "the sum"),
    Mutant("maximum", {".mean(dim=0)": ".amax(dim=0)"}, "the largest probability of any view"),
    Mutant(
        "votes",
        {_VIEW_RETURN: "nn.functional.one_hot(logits.argmax(1), 3).to(logits).mean(0)"},
        "each view votes",
    ),
    Mutant("over the views", {"softmax(dim=1)": "softmax(dim=0)"}, "softmax over the views"),
    Mutant("always across", {"(start, 0) if height > width else ": ""}, "crops of several sizes"),
    Mutant("always down", {" if height > width else (0, start)": ""}, "crops of several sizes"),
    Mutant("one for each view", {".mean(dim=0)": ""}, "one row for each view"),
    Mutant(
        "one for each clip",
        {".mean(dim=0)": ".unflatten(0, (3, -1)).mean(dim=0)"},
        "a row too many",
    ),
    Mutant("a row", {"mean(dim=0)": "mean(dim=0, keepdim=True)"}, "a row too many"),
    Mutant("logarithms", {"softmax(dim=1)": "log_softmax(dim=1)"}, "the mean of the logarithms"),
    Mutant(
        "first clip alone",
        {"torch.cat(crops)": "torch.cat([crop[:1] for crop in crops])"},
        "one clip alone",
    ),
    Mutant(
        "one after another",
        {_VIEW_STARTS: "(0, size, 2 * size)"},
        "begin at the long side minus size",
    ),
    Mutant("in place", {"    rest =": "    clips -= 1\n    rest ="}, "in place"),
    Mutant("one number", {".mean(dim=0)": ".mean()"}, "one number: keep the classes"),
    Mutant("nothing", {"return logits": "logits"}, "without a return"),
    Mutant(
        "thirds",
        {_VIEW_STARTS: "(0, min(rest // 2, 3), rest)"},
        "in the middle of what is left",
        hidden=True,
    ),
]
_VIEW_HEAD = "def video_scores(clips, size):\n"
_VIEW_VARIANTS = {
    "one crop at a time": _VIEW_HEAD
    + "    total = 0\n    axis = 3 if clips.size(3) > clips.size(4) else 4\n"
    "    rest = clips.size(axis) - size\n    for start in [0, rest // 2, rest]:\n"
    "        view = clips.narrow(axis, start, size)\n"
    "        total = total + F.softmax(toy_network(view), dim=-1).sum(0)\n"
    "    return total / (3 * len(clips))\n",
    "swapped axes": _VIEW_HEAD + "    if clips.shape[-2] > clips.shape[-1]:\n"
    "        clips = clips.transpose(-1, -2)\n    long = clips.shape[-1]\n"
    "    places = [0, (long - size) // 2, long - size]\n"
    "    views = torch.stack([clips[..., p : p + size] for p in places], dim=1)\n"
    "    return toy_network(views.flatten(0, 1)).softmax(-1).mean(0)\n",
    "clip by clip": _VIEW_HEAD
    + "    h, w = clips.shape[-2:]\n    found = []\n    for clip in clips:\n"
    "        for share in (0, 1, 2):\n            top, left = share * (h - size) // 2, share * (w - size) // 2\n"
    "            view = clip[None, :, :, top : top + size, left : left + size]\n"
    "            z = toy_network(view)[0]\n            e = (z - z.max()).exp()\n"
    "            found.append(e / e.sum())\n    return sum(found) / len(found)\n",
    "unfolded": _VIEW_HEAD + "    long = 3 if clips.shape[3] >= clips.shape[4] else 4\n"
    "    windows = clips.unfold(long, size, 1)  # a last axis of size\n"
    "    rest = windows.shape[long] - 1\n    parts = []\n    for p in (0, rest // 2, rest):\n"
    "        crop = windows.select(long, p)\n        parts.append(toy_network(crop).softmax(1))\n"
    "    return torch.cat(parts).mean(0)\n",
}

_NL_POOL = "pooled = nn.functional.max_pool3d(x, (1, 2, 2))"
_NL_SCALE = " / queries.shape[1] ** 0.5"
_NL_Z = "z = x + self.out("
_NL_ZERO = "        nn.init.zeros_(self.out.weight)\n        nn.init.zeros_(self.out.bias)\n"
_NL_MUTANTS = [
    Mutant("not pooled", {_NL_POOL: "pooled = x"}, "nothing is pooled"),
    Mutant("mean pooled", {"max_pool3d": "avg_pool3d"}, "the mean is pooled"),
    Mutant("time pooled", {"(1, 2, 2)": "2"}, "time is pooled, too"),
    Mutant("every second", {_NL_POOL: "pooled = x[..., ::2, ::2]"}, "every second position"),
    Mutant(
        "pooled behind",
        {
            _NL_POOL: "pool = lambda y: nn.functional.max_pool3d(y, (1, 2, 2))",
            "self.key(pooled)": "pool(self.key(x))",
            "self.value(pooled)": "pool(self.value(x))",
        },
        "pooled behind the projections",
    ),
    Mutant("queries pooled", {"self.query(x)": "self.query(pooled)"}, "those of the queries"),
    Mutant(
        "values not pooled", {"self.value(pooled)": "self.value(x)"}, "two shapes that do not fit"
    ),
    Mutant("no scale", {_NL_SCALE: ""}, "the scale is missing"),
    Mutant("by C'", {_NL_SCALE: " / queries.shape[1]"}, "divided by C', not by its root"),
    Mutant("times", {_NL_SCALE: " * queries.shape[1] ** 0.5"}, "multiplied by √C'"),
    Mutant("over queries", {"softmax(dim=2)": "softmax(dim=1)"}, "softmax over the queries"),
    Mutant("no softmax", {".softmax(dim=2)": ""}, "softmax is missing"),
    Mutant("no residual", {_NL_Z: "z = self.out("}, "the residual is forgotten"),
    Mutant("residual twice", {_NL_Z: "z = 2 * x + self.out("}, "the residual is counted twice"),
    Mutant("not zero", {_NL_ZERO: ""}, "does not start at zero"),
    Mutant(
        "all zero",
        {
            _NL_ZERO: _NL_ZERO
            + "        nn.init.zeros_(self.value.weight)\n        nn.init.zeros_(self.value.bias)\n"
        },
        "only the last layer starts at zero",
    ),
    Mutant("wide", {"inner = channels // 2": "inner = channels"}, "has other channels"),
    Mutant(
        "3×3×3",
        {"nn.Conv3d(channels, inner, 1)": "nn.Conv3d(channels, inner, 3, padding=1)"},
        "a kernel larger than 1",
    ),
    Mutant(
        "apart",
        {
            "products = queries.mT @ keys": "n, frames = len(x), x.shape[2]\n"
            "        apart = lambda y: y.unflatten(2, (frames, -1)).transpose(1, 2).flatten(0, 1)\n"
            "        queries, keys, values = apart(queries), apart(keys), apart(values)\n"
            "        products = queries.mT @ keys",
            "z = x": "read = read.unflatten(0, (n, frames)).transpose(1, 2).flatten(2)\n        z = x",
        },
        "each frame sees itself alone",
    ),
    Mutant(
        "no map",
        {"return (z, attention) if with_attention else z": "return z"},
        "return (z, attention)",
    ),
    Mutant(
        "always a pair",
        {"return (z, attention) if with_attention else z": "return z, attention"},
        "return one tensor alone",
    ),
    Mutant(
        "map transposed",
        {"return (z, attention)": "return (z, attention.mT)"},
        "the map is transposed",
    ),
    Mutant(
        "products returned",
        {"return (z, attention)": "return (z, products)"},
        "the weights behind softmax",
    ),
    Mutant("2D", {"max_pool3d(x, (1, 2, 2))": "max_pool2d(x, 2)"}, "three numbers"),
    Mutant(
        "cut",
        {"(attention @ values.mT).mT": "(attention @ values.mT).reshape(queries.shape)"},
        "are mixed",
    ),
    Mutant(
        "nothing", {"return (z, attention) if with_attention else z": "pass"}, "without a return"
    ),
    Mutant(
        "in place",
        {"        return (z, attention)": "        x.zero_()\n        return (z, attention)"},
        "in place",
    ),
    Mutant(
        "not a module layer",
        {
            "self.value = nn.Conv3d(channels, inner, 1)": "self.value = [nn.Conv3d(channels, inner, 1)]",
            "self.value(pooled)": "self.value[0].to(x)(pooled)",
        },
        "a layer is missing",
    ),
    Mutant("odd sizes", {"(1, 2, 2))": "(1, 2, 2), ceil_mode=True)"}, "shape", hidden=True),
]
_NL_HEAD = "class SpaceTimeNonLocal(nn.Module):\n    def __init__(self, channels):\n        super().__init__()\n"
_NL_VARIANTS = {
    "linear layers": _NL_HEAD
    + "        d = channels // 2\n        self.theta = nn.Linear(channels, d)\n"
    "        self.phi = nn.Linear(channels, d)\n        self.g = nn.Linear(channels, d)\n"
    "        self.w = nn.Linear(d, channels)\n        self.w.weight.data.fill_(0)\n"
    "        self.w.bias.data.fill_(0)\n"
    "    def forward(self, x, with_attention=False):\n"
    "        n, c, t, h, w = x.shape\n        rows = x.movedim(1, -1).reshape(n, t * h * w, c)\n"
    "        small = F.max_pool2d(x.transpose(1, 2).reshape(n * t, c, h, w), 2)\n"
    "        small = small.reshape(n, t, c, -1).transpose(2, 3).reshape(n, -1, c)\n"
    "        q, k, v = self.theta(rows), self.phi(small), self.g(small)\n"
    "        a = torch.softmax(torch.bmm(q, k.transpose(1, 2)) * q.shape[-1] ** -0.5, -1)\n"
    "        y = rows + self.w(torch.bmm(a, v))\n"
    "        z = y.transpose(1, 2).reshape(n, c, t, h, w)\n"
    "        if with_attention:\n            return z, a\n        return z\n",
    "einsum": _NL_HEAD + "        inner = channels // 2\n"
    "        self.q, self.k, self.v = (nn.Conv3d(channels, inner, 1, bias=False) for _ in range(3))\n"
    "        self.o = nn.Conv3d(inner, channels, 1, bias=False)\n"
    "        nn.init.constant_(self.o.weight, 0.0)\n        self.pool = nn.MaxPool3d((1, 2, 2))\n"
    "    def forward(self, x, with_attention=False):\n        s = self.pool(x)\n"
    "        q, k, v = self.q(x), self.k(s), self.v(s)\n"
    "        a = torch.einsum('ncthw,ncuyx->nthwuyx', q, k) / q.size(1) ** 0.5\n"
    "        a = a.flatten(4).flatten(1, 3).softmax(-1)\n"
    "        y = torch.einsum('nlm,ncm->ncl', a, v.flatten(2)).reshape_as(q)\n"
    "        z = self.o(y) + x\n        return [z, a] if with_attention else z\n",
    "scaled queries": _NL_HEAD + "        self.inner = channels // 2\n"
    "        self.query = nn.Conv1d(channels, self.inner, 1)\n"
    "        self.key = nn.Conv1d(channels, self.inner, 1)\n"
    "        self.value = nn.Conv1d(channels, self.inner, 1)\n"
    "        self.out = nn.Conv1d(self.inner, channels, 1)\n"
    "        for p in self.out.parameters():\n            nn.init.zeros_(p)\n"
    "    def forward(self, x, with_attention=False):\n"
    "        few = nn.MaxPool3d((1, 2, 2), stride=(1, 2, 2))(x).flatten(2)\n        many = x.flatten(2)\n"
    "        query = self.query(many) / self.inner ** 0.5\n"
    "        logits = torch.matmul(self.key(few).transpose(1, 2), query)\n"
    "        attention = F.softmax(logits, dim=1)\n"
    "        read = torch.matmul(self.value(few), attention)\n"
    "        z = (many + self.out(read)).view(x.shape)\n"
    "        return (z, attention.transpose(1, 2)) if with_attention else z\n",
    "bare parameters": _NL_HEAD + "        d = channels // 2\n"
    "        self.w_q = nn.Parameter(torch.randn(d, channels) / channels ** 0.5)\n"
    "        self.w_k = nn.Parameter(torch.randn(d, channels) / channels ** 0.5)\n"
    "        self.w_v = nn.Parameter(torch.randn(d, channels) / channels ** 0.5)\n"
    "        self.w_z = nn.Parameter(torch.zeros(channels, d))\n"
    "    def forward(self, x, with_attention=False):\n"
    "        pooled = F.adaptive_max_pool3d(x[..., : x.shape[3] // 2 * 2, : x.shape[4] // 2 * 2],\n"
    "            (x.shape[2], x.shape[3] // 2, x.shape[4] // 2)).flatten(2)\n"
    "        q = self.w_q @ x.flatten(2)\n        k, v = self.w_k @ pooled, self.w_v @ pooled\n"
    "        scores = q.transpose(1, 2) @ k * len(self.w_q) ** -0.5\n"
    "        a = (scores - scores.amax(2, keepdim=True)).exp()\n        a = a / a.sum(2, keepdim=True)\n"
    "        z = x + (self.w_z @ (v @ a.transpose(1, 2))).reshape(x.shape)\n"
    "        return (z, a) if with_attention else z\n",
}

_CONTEXT_SOFTMAX = "logits.flatten(1).softmax(dim=1).reshape(logits.shape)"
_CONTEXT_SUM = 'torch.einsum("ncthw,nthw->nc", x, weights)'
_CONTEXT_MUTANTS = [
    Mutant(
        "each frame",
        {_CONTEXT_SOFTMAX: "logits.flatten(2).softmax(dim=2).reshape(logits.shape)"},
        "softmax within each frame",
    ),
    Mutant(
        "mean of frames",
        {
            _CONTEXT_SOFTMAX: "logits.flatten(2).softmax(dim=2).reshape(logits.shape) / logits.shape[1]"
        },
        "softmax within each frame",
    ),
    Mutant(
        "over time", {_CONTEXT_SOFTMAX: "logits.softmax(dim=1)"}, "softmax over the frames alone"
    ),
    Mutant("mean of x", {_CONTEXT_SUM: "x.mean(dim=(2, 3, 4))"}, "the mean of all positions"),
    Mutant("sum of x", {_CONTEXT_SUM: "x.sum(dim=(2, 3, 4))"}, "the sum of all positions"),
    Mutant(
        "mean of products",
        {_CONTEXT_SUM: "(x * weights[:, None]).mean(dim=(2, 3, 4))"},
        "divided by the number of positions",
    ),
    Mutant("not divided", {_CONTEXT_SOFTMAX: "logits.exp()"}, "not divided by their sum"),
    Mutant("no softmax", {_CONTEXT_SOFTMAX: "logits"}, "softmax is missing"),
    Mutant(
        "scaled",
        {'c->nthw", x, key': 'c->nthw", x, key / x.shape[1] ** 0.5'},
        "a GC block has no scale",
    ),
    Mutant(
        "a minus",
        {_CONTEXT_SOFTMAX: "(-logits).flatten(1).softmax(dim=1).reshape(logits.shape)"},
        "softmax with a minus",
    ),
    Mutant(
        "whole batch",
        {_CONTEXT_SOFTMAX: "logits.flatten().softmax(dim=0).reshape(logits.shape)"},
        "shares sum to 1",
    ),
    Mutant(
        "mean of weights",
        {"weights.sum(dim=(2, 3))": "weights.mean(dim=(2, 3))"},
        "the mean of the weights",
    ),
    Mutant(
        "largest weight",
        {"weights.sum(dim=(2, 3))": "weights.amax(dim=(2, 3))"},
        "the largest weight",
    ),
    Mutant(
        "shares of logits",
        {"weights.sum(dim=(2, 3))": "logits.sum(dim=(2, 3))"},
        "shares of logits",
    ),
    Mutant("map returned", {"weights.sum(dim=(2, 3))": "weights"}, "sum them over H and W"),
    Mutant(
        "equal shares",
        {"weights.sum(dim=(2, 3))": "torch.ones_like(weights).mean(dim=(2, 3)) / x.shape[2]"},
        "the same share for each frame",
    ),
    Mutant(
        "other order",
        {"return context, weights.sum(dim=(2, 3))": "return weights.sum(dim=(2, 3)), context"},
        "context first, then shares",
    ),
    Mutant(
        "context alone",
        {"return context, weights.sum(dim=(2, 3))": "return context"},
        "return a pair",
    ),
    Mutant("nothing", {"return context, weights.sum(dim=(2, 3))": "pass"}, "without a return"),
    Mutant(
        "a context for each frame",
        {_CONTEXT_SUM: 'torch.einsum("ncthw,nthw->nct", x, weights)'},
        "one context for each frame",
    ),
    Mutant(
        "axes left",
        {_CONTEXT_SUM: "(x * weights[:, None]).sum(dim=(2, 3, 4), keepdim=True)"},
        "axes of size 1 are left",
    ),
    Mutant(
        "own exp",
        {_CONTEXT_SOFTMAX: "logits.exp() / logits.exp().sum(dim=(1, 2, 3), keepdim=True)"},
        "exp overflows",
    ),
    Mutant(
        "in place", {"    logits =": "    x *= 2\n    x /= 2\n    x += 1\n    logits ="}, "in place"
    ),
    Mutant(
        "by frames",
        {_CONTEXT_SUM: f"{_CONTEXT_SUM} / x.shape[2]"},
        "divided by the number of frames",
    ),
]
_CONTEXT_HEAD = "def frame_context(x, key):\n"
_CONTEXT_VARIANTS = {
    "matrix product": _CONTEXT_HEAD + "    n, c, t = x.shape[:3]\n    rows = x.reshape(n, c, -1)\n"
    "    a = F.softmax(key @ rows, dim=-1)\n"
    "    return torch.bmm(rows, a[:, :, None]).squeeze(2), a.reshape(n, t, -1).sum(-1)\n",
    "broadcasting": _CONTEXT_HEAD + "    score = (x * key[:, None, None, None]).sum(1)\n"
    "    top = score.amax(dim=(1, 2, 3), keepdim=True)\n    e = torch.exp(score - top)\n"
    "    a = e / e.sum(dim=(1, 2, 3), keepdim=True)\n"
    "    return (x * a.unsqueeze(1)).sum((2, 3, 4)), a.flatten(2).sum(2)\n",
    "a convolution": _CONTEXT_HEAD + "    logits = F.conv3d(x, key.reshape(1, -1, 1, 1, 1))\n"
    "    weights = torch.softmax(logits.flatten(2), 2).unflatten(2, x.shape[2:])\n"
    "    return [(x * weights).flatten(2).sum(2), weights.sum((1, 3, 4))]\n",
    "frames, then clip": _CONTEXT_HEAD
    + "    logits = torch.tensordot(x, key, dims=([1], [0])).flatten(2)\n"
    "    total = logits.logsumexp(2)\n    shares = total.softmax(1)\n"
    "    inside = logits.softmax(2)\n"
    "    means = torch.einsum('nctp,ntp->nct', x.flatten(3), inside)\n"
    "    return (means * shares[:, None]).sum(2), shares\n",
}

MUTANTS = {
    "c09-e1": _FILM_MUTANTS,
    "c09-e2": _REACH_MUTANTS,
    "c09-e3": _CLIP_MUTANTS,
    "c09-e4": _VIEW_MUTANTS,
    "c09-e5": _NL_MUTANTS,
    "c09-e6": _CONTEXT_MUTANTS,
}
VARIANTS = {
    "c09-e1": _FILM_VARIANTS,
    "c09-e2": _REACH_VARIANTS,
    "c09-e3": _CLIP_VARIANTS,
    "c09-e4": _VIEW_VARIANTS,
    "c09-e5": _NL_VARIANTS,
    "c09-e6": _CONTEXT_VARIANTS,
}
