"""Mutants and variants of chapter 02."""

from mutants.answers import Mutant

_INSIDE = (
    "    if not (0 <= row < height and 0 <= column < width):\n"
    '        raise ValueError(f"query {query} lies outside of {size}")\n'
)
_E1 = "attention[row * width + column].reshape(height, width)"
_INDEX = "row * width + column"
_UNITS = "vectors / vectors.norm(dim=2, keepdim=True)"
_COSINES = "units @ units.transpose(1, 2)  # (N, L, L)"
_E2 = "((1 - cosines) / 2).mean(dim=(1, 2))"
_MEAN = "mean = units.mean(dim=1)  # (N, d)"
_E3 = "(1 - mean.square().sum(dim=1)) / 2"
_FROM_P = "torch.xlogy(p, p) - torch.xlogy(p, m)"
_FROM_Q = "torch.xlogy(q, q) - torch.xlogy(q, m)"
_E4 = "(from_p + from_q).sum(dim=-1) / 2"
_PAIRS = "jsd(attention[:, :, None], attention[:, None])  # (N, L, L)"
_E5 = "pairs.mean(dim=(1, 2))"


_LENGTHS = [  # mistakes on the way to unit vectors, of both cosine distances
    Mutant("no lengths", {_UNITS: "vectors * 1"}, "are not divided by their lengths"),
    Mutant(
        "length over positions",
        {_UNITS: "vectors / vectors.norm(dim=1, keepdim=True)"},
        "the cosine needs the length of each vector",
    ),
    Mutant(
        "one length for all",
        {_UNITS: "vectors / vectors.norm(dim=(1, 2), keepdim=True)"},
        "one common length",
    ),
    Mutant(
        "divided by the sum",
        {_UNITS: "vectors / vectors.sum(dim=2, keepdim=True)"},
        "the length is the root of the sum of squares",
    ),
    Mutant(
        "squared length",
        {_UNITS: "vectors / vectors.square().sum(dim=2, keepdim=True)"},
        "divide by the length once",
    ),
    Mutant(
        "small number added",
        {_UNITS: "vectors / (vectors.norm(dim=2, keepdim=True) + 1e-6)"},
        "added",
    ),
    Mutant(
        "lengths cut at 1",
        {_UNITS: "vectors / vectors.norm(dim=2, keepdim=True).clamp(min=1)"},
        "divide each vector by its own length",
    ),
    Mutant("detached", {_UNITS: f"({_UNITS}).detach()"}, "cut off from the graph"),
    Mutant("fixed dtype", {_UNITS: "nn.functional.normalize(vectors, dim=2).float()"}, "fixed"),
    Mutant(
        "in place",
        {_UNITS: "vectors.div_(vectors.norm(dim=2, keepdim=True))"},
        "in place",
    ),
    Mutant(
        "first example alone",
        {"    units = ": "    vectors = vectors[:1].expand_as(vectors)\n    units = "},
        "expected",
    ),
]

MUTANTS = {
    "c02-e1": [
        Mutant("row times height", {_INDEX: "row * height + column"}, "not row·H + column"),
        Mutant(
            "swapped", {_INDEX: "column * width + row"}, "row and column of the query are swapped"
        ),
        Mutant("column times height", {_INDEX: "column * height + row"}, "are swapped"),
        Mutant("sum", {_INDEX: "row + column"}, "not row + column"),
        Mutant("product", {_INDEX: "row * column"}, "not row·column"),
        Mutant("from 1", {_INDEX: "(row - 1) * width + column - 1"}, "expected"),
        Mutant("from 1, rows", {_INDEX: "row * width + column - 1"}, "counts from 0"),
        Mutant(
            "column of the map", {_E1: f"attention[:, {_INDEX}].reshape(height, width)"}, "column 9"
        ),
        Mutant("not folded", {_E1: f"attention[{_INDEX}]"}, "is not folded"),
        Mutant(
            "folded the wrong way",
            {_E1: f"attention[{_INDEX}].reshape(width, height)"},
            "height and width are swapped",
        ),
        Mutant(
            "folded by columns",
            {_E1: f"attention[{_INDEX}].reshape(width, height).T"},
            "column by column",
        ),
        Mutant("mirrored", {_E1: f"{_E1}.flip(0)"}, "upside down"),
        Mutant("mean", {_E1: "attention.mean(0).reshape(height, width)"}, "mean over all queries"),
        Mutant("sum of rows", {_E1: "attention.sum(0).reshape(height, width)"}, "sum over all"),
        Mutant(
            "scaled",
            {f"return {_E1}": f"m = {_E1}\n    return m / m.max()"},
            "scaled for a picture",
        ),
        Mutant("all pairs", {_E1: "attention"}, "take the row of one query"),
        Mutant(
            "slice", {_E1: f"attention[[{_INDEX}]].reshape(1, height, width)"}, "not with a slice"
        ),
        Mutant("row only", {_INDEX: "row"}, "only the row of the query"),
        Mutant("fixed size", {"height, width = size": "height, width = 4, 6"}, "of elements"),
        Mutant("outside", {_INSIDE: ""}, "compare the row with H and the column with W"),
        Mutant(
            "index outside only",
            {_INSIDE: "    if row * width + column >= len(attention):\n        raise ValueError\n"},
            "can be the index of another one",
        ),
        Mutant("negative", {"0 <= row < height": "row < height"}, "counts from the end in Python"),
        Mutant("negative column", {"0 <= column < width": "column < width"}, "counts from the end"),
        Mutant("other error", {"raise ValueError": "raise IndexError"}, "asks for a ValueError"),
        Mutant("fixed dtype", {_E1: f"{_E1}.float()"}, "fixed dtype"),
        Mutant(
            "in place",
            {f"return {_E1}": f"m = {_E1}.clone()\n    attention.zero_()\n    return m"},
            "in place",
        ),
        Mutant(
            "last row",
            {_INDEX: "min(row, 3) * width + column"},
            "expected",
            hidden=True,
        ),
    ],
    "c02-e2": [
        *_LENGTHS,
        Mutant(
            "each pair once",
            {_E2: "((1 - cosines) / 2)[:, *torch.triu_indices(*cosines.shape[1:])].mean(dim=1)"},
            "(i, j) and (j, i) both count",
        ),
        Mutant(
            "first position", {_E2: "((1 - cosines[:, 0]) / 2).mean(dim=1)"}, "only one position"
        ),
        Mutant(
            "no negatives", {_E2: "((1 - cosines.relu()) / 2).mean(dim=(1, 2))"}, "negative cos"
        ),
        Mutant(
            "absolute sum",
            {_UNITS: "vectors / vectors.abs().sum(dim=2, keepdim=True)"},
            "sum of the numbers",
        ),
        Mutant(
            "channels",
            {_UNITS: "nn.functional.normalize(vectors.mT, dim=2)"},
            "channels are compared",
        ),
        Mutant("not halved", {_E2: "(1 - cosines).mean(dim=(1, 2))"}, "not halved"),
        Mutant("mean cosine", {_E2: "cosines.mean(dim=(1, 2))"}, "this is the mean cosine"),
        Mutant("plus", {_E2: "((1 + cosines) / 2).mean(dim=(1, 2))"}, "1 + cos"),
        Mutant(
            "without i = j",
            {
                _E2: f"{_E2[:-17]}.sum(dim=(1, 2)) / max(1, cosines.shape[1] * (cosines.shape[1] - 1))"
            },
            "are left out",
        ),
        Mutant(
            "half of the pairs",
            {_E2: "((1 - cosines) / 2).triu(1).mean(dim=(1, 2))"},
            "half of it",
        ),
        Mutant("sum", {_E2: "((1 - cosines) / 2).sum(dim=(1, 2))"}, "summed, not averaged"),
        Mutant("absolute", {_COSINES: "(units @ units.transpose(1, 2)).abs()"}, "lost their sign"),
        Mutant("squared", {_COSINES: "(units @ units.transpose(1, 2)).square()"}, "are squared"),
        Mutant("largest", {_E2: "((1 - cosines) / 2).amax(dim=(1, 2))"}, "largest distance"),
        Mutant(
            "neighbours",
            {_E2: "((1 - cosines.diagonal(1, 1, 2)) / 2).mean(dim=1)"},
            "only neighbours",
        ),
        Mutant(
            "over examples", {_E2: "((1 - cosines) / 2).mean()"}, "averaged over the examples too"
        ),
        Mutant("all pairs", {_E2: "(1 - cosines) / 2"}, "average over both axes"),
        Mutant("one axis", {_E2: "((1 - cosines) / 2).mean(dim=2)"}, "one of the two axes"),
        Mutant(
            "keepdim",
            {_E2: "((1 - cosines) / 2).mean(dim=(1, 2), keepdim=True)"},
            "without keepdim",
        ),
        Mutant(
            "angle", {_E2: "(cosines.clamp(-1, 1).acos() / torch.pi).mean(dim=(1, 2))"}, "expected"
        ),
    ],
    "c02-e3": [
        *_LENGTHS[1:],
        Mutant("no lengths", {_UNITS: "vectors * 1"}, "first each vector to length 1"),
        Mutant("half inside", {_E3: "1 - mean.square().sum(dim=1) / 2"}, "then halve"),
        Mutant("not squared", {_E3: "(1 - mean.norm(dim=1)) / 2"}, "is not squared"),
        Mutant(
            "mean first",
            {_MEAN: "mean = nn.functional.normalize(vectors.mean(dim=1), dim=1)"},
            "first each vector to length 1",
        ),
        Mutant("sum", {_MEAN: "mean = units.sum(dim=1)"}, "sum of the unit vectors"),
        Mutant("mean of channels", {"sum(dim=1)": "mean(dim=1)"}, "the mean over the channels"),
        Mutant("no squares", {"mean.square().sum": "mean.sum"}, "without squares"),
        Mutant("not halved", {_E3: "1 - mean.square().sum(dim=1)"}, "not halved"),
        Mutant("mean cosine", {_E3: "mean.square().sum(dim=1)"}, "this is the mean cosine"),
        Mutant("plus", {_E3: "(1 + mean.square().sum(dim=1)) / 2"}, "1 + cos"),
        Mutant(
            "all pairs",
            {_E3: "(1 - (units @ units.transpose(1, 2)).mean(dim=(1, 2))) / 2"},
            "the mean of the unit vectors is enough",
        ),
        Mutant(
            "loop",
            {
                _E3: "(1 - sum((units @ u[:, :, None]).mean((1, 2)) for u in units.unbind(1)) / units.shape[1]) / 2"
            },
            "a loop over positions",
        ),
        Mutant("over examples", {_E3: "(1 - mean.square().sum()) / 2"}, "over the examples too"),
        Mutant(
            "channels kept", {_E3: "(1 - mean.square()) / 2"}, "sum the squares over the last axis"
        ),
        Mutant("positions kept", {_MEAN: "mean = units"}, "one number for each channel"),
    ],
    "c02-e4": [
        Mutant("not halved", {_E4: "(from_p + from_q).sum(dim=-1)"}, "not halved"),
        Mutant(
            "0/0 inside of xlogy",
            {_FROM_P: "torch.xlogy(p, p / m)", _FROM_Q: "torch.xlogy(q, q / m)"},
            "NaN even in xlogy",
        ),
        Mutant(
            "middle against both",
            {_FROM_P: "m * (m / p).log()", _FROM_Q: "m * (m / q).log()"},
            "wrong way round",
        ),
        Mutant(
            "cosine",
            {_E4: "(1 - nn.functional.cosine_similarity(p, q, dim=-1)) / 2"},
            "another distance",
        ),
        Mutant("half of it", {_E4: "(from_p + from_q).sum(dim=-1) / 4"}, "half of it"),
        Mutant("base 2", {_E4: f"{_E4} / torch.log(torch.tensor(2.0, dtype=p.dtype))"}, "base 2"),
        Mutant("only p", {_E4: "from_p.sum(dim=-1)"}, "only p is compared"),
        Mutant("only q", {_E4: "from_q.sum(dim=-1)"}, "only q is compared"),
        Mutant("middle not halved", {"m = (p + q) / 2": "m = p + q"}, "it is not halved"),
        Mutant("sign", {_E4: "-(from_p + from_q).sum(dim=-1) / 2"}, "the sign is wrong"),
        Mutant(
            "root",
            {_E4: "((from_p + from_q).sum(dim=-1) / 2).clamp(min=0).sqrt()"},
            "this is the root",
        ),
        Mutant("mean over keys", {_E4: "(from_p + from_q).mean(dim=-1) / 2"}, "without a mean"),
        Mutant(
            "relative entropy", {_E4: "(p * (p / q).log()).sum(dim=-1)"}, "compared with each other"
        ),
        Mutant(
            "both relative entropies",
            {_E4: "(p * (p / q).log() + q * (q / p).log()).sum(dim=-1) / 2"},
            "compared with each other",
        ),
        Mutant("entropy of the middle", {_E4: "-torch.xlogy(m, m).sum(dim=-1)"}, "not subtracted"),
        Mutant(
            "no weights", {_E4: "((p / m).log() + (q / m).log()).sum(dim=-1) / 2"}, "not weighted"
        ),
        Mutant("total variation", {_E4: "(p - q).abs().sum(dim=-1) / 2"}, "total variation"),
        Mutant(
            "NaN at zero",
            {_FROM_P: "p * (p / m).log()", _FROM_Q: "q * (q / m).log()"},
            "0 · -infinity is NaN",
        ),
        Mutant(
            "small number",
            {
                _FROM_P: "p * ((p + 1e-6) / (m + 1e-6)).log()",
                _FROM_Q: "q * ((q + 1e-6) / (m + 1e-6)).log()",
            },
            "added",
        ),
        Mutant(
            "small number at zeros",
            {
                _FROM_P: "p.clamp(min=1e-5) * (p.clamp(min=1e-5) / m.clamp(min=1e-5)).log()",
                _FROM_Q: "q.clamp(min=1e-5) * (q.clamp(min=1e-5) / m.clamp(min=1e-5)).log()",
            },
            "added inside of the logarithm",
        ),
        Mutant(
            "zeros left out on both sides",
            {_E4: "((from_p + from_q) * (p > 0) * (q > 0)).sum(dim=-1) / 2"},
            "still counts on the other side",
        ),
        Mutant("not summed", {_E4: "(from_p + from_q) / 2"}, "the terms are not summed"),
        Mutant(
            "summed over pairs", {_E4: "(from_p + from_q).sum() / 2"}, "one number for all pairs"
        ),
        Mutant("axis 1", {"sum(dim=-1)": "sum(dim=1)"}, "expected"),
        Mutant("keepdim", {"dim=-1)": "dim=-1, keepdim=True)"}, "without keepdim"),
        Mutant("detached", {_E4: f"({_E4}).detach()"}, "cut off"),
        Mutant(
            "detached middle",
            {_E4: "(from_p + from_q.detach()).sum(dim=-1) / 2"},
            "a part of the formula is cut off",
        ),
        Mutant("fixed dtype", {_E4: f"({_E4}).float()"}, "fixed dtype"),
        Mutant("in place", {f"return {_E4}": f"d = {_E4}\n    p += q\n    return d"}, "expected"),
    ],
    "c02-e5": [
        Mutant(
            "without i = j",
            {_E5: "pairs.sum(dim=(1, 2)) / max(1, pairs.shape[1] * (pairs.shape[1] - 1))"},
            "are left out",
        ),
        Mutant(
            "half of the pairs", {_E5: "pairs.triu(1).mean(dim=(1, 2))"}, "one half of the pairs"
        ),
        Mutant("first query", {_E5: "pairs[:, 0].mean(dim=1)"}, "only one query is compared"),
        Mutant("neighbours", {_E5: "pairs.diagonal(1, 1, 2).mean(dim=1)"}, "only neighbours"),
        Mutant("sum", {_E5: "pairs.sum(dim=(1, 2))"}, "summed, not averaged"),
        Mutant(
            "divided by L",
            {_E5: "pairs.sum(dim=(1, 2)) / pairs.shape[1]"},
            "summed and divided by L",
        ),
        Mutant(
            "divided by keys",
            {_E5: "pairs.sum(dim=(1, 2)) / attention.shape[2] ** 2"},
            "divided by M²",
        ),
        Mutant(
            "columns",
            {_PAIRS: "jsd(attention.mT[:, :, None], attention.mT[:, None])"},
            "the rows belong to queries",
        ),
        Mutant(
            "against the mean",
            {
                f"{_PAIRS}\n    return {_E5}": "attention.mean(1)\n"
                "    h = lambda p: -torch.xlogy(p, p).sum(-1)\n"
                "    return h(pairs) - h(attention).mean(1)"
            },
            "compared with their mean",
        ),
        Mutant("base 2", {_E5: f"{_E5} / 0.6931471805599453"}, "base 2"),
        Mutant("roots", {_E5: "pairs.clamp(min=0).sqrt().mean(dim=(1, 2))"}, "the mean of roots"),
        Mutant("cosine", {_E5: "cosine_distance(attention)"}, "use jsd"),
        Mutant("largest", {_E5: "pairs.amax(dim=(1, 2))"}, "largest distance"),
        Mutant("over examples", {_E5: "pairs.mean()"}, "averaged over the examples too"),
        Mutant("all pairs", {_E5: "pairs"}, "average over both axes of queries"),
        Mutant("one axis", {_E5: "pairs.mean(dim=2)"}, "one of the two axes"),
        Mutant("keepdim", {_E5: "pairs.mean(dim=(1, 2), keepdim=True)"}, "without keepdim"),
        Mutant(
            "softmax again",
            {_PAIRS: "jsd(attention.softmax(2)[:, :, None], attention.softmax(2)[:, None])"},
            "softmax a second time",
        ),
        Mutant("doubled", {_E5: f"2 * {_E5}"}, "not halved"),
        Mutant("detached", {_E5: f"{_E5}.detach()"}, "cut off"),
        Mutant("fixed dtype", {_E5: f"{_E5}.float()"}, "fixed dtype"),
        Mutant("in place", {f"return {_E5}": f"attention.zero_()\n    return {_E5}"}, "in place"),
        Mutant(
            "first example alone",
            {_PAIRS: "jsd(attention[:, :, None], attention[:1, None])"},
            "expected",
        ),
    ],
}

_VARIANTS_COSINE = {
    "normalize": "    u = F.normalize(vectors, dim=-1)\n",
    "by hand": "    u = vectors / (vectors * vectors).sum(-1, keepdim=True) ** 0.5\n",
    "rsqrt": "    u = vectors * vectors.pow(2).sum(2, keepdim=True).rsqrt()\n",
}

VARIANTS = {
    "c02-e1": {
        "view": "def map_of_query(attention, size, query):\n"
        "    (h, w), (r, c) = size, query\n"
        "    if r < 0 or c < 0 or r >= h or c >= w:\n        raise ValueError('outside')\n"
        "    return attention[r * w + c].view(h, w)\n",
        "four axes": "def map_of_query(attention, size, query):\n"
        "    if any(i not in range(n) for i, n in zip(query, size)):\n        raise ValueError\n"
        "    return attention.reshape(*size, *size)[query[0], query[1]]\n",
        "unflatten": "def map_of_query(attention, size, query):\n"
        "    row, column = query\n    H, W = size\n"
        "    if row not in range(H) or column not in range(W):\n"
        "        raise ValueError(f'{query}')\n"
        "    return attention.unflatten(1, (H, W))[column + W * row].clone()\n",
        "unravelled": "def map_of_query(attention, size, query):\n"
        "    places = [(r, c) for r in range(size[0]) for c in range(size[1])]\n"
        "    i = places.index(tuple(query))  # a ValueError where it is not among them\n"
        "    return torch.stack(attention[i].split(size[1]))\n",
    },
    "c02-e2": {
        **{
            name: f"def cosine_distance(vectors):\n{units}"
            "    return (0.5 - 0.5 * u @ u.mT).mean((-2, -1))\n"
            for name, units in _VARIANTS_COSINE.items()
        },
        "cosine_similarity": "def cosine_distance(vectors):\n"
        "    c = F.cosine_similarity(vectors[:, :, None], vectors[:, None], dim=-1)\n"
        "    return (1 - c.flatten(1).mean(1)) / 2\n",
        "einsum": "def cosine_distance(vectors):\n"
        "    g = torch.einsum('nid,njd->nij', vectors, vectors)\n"
        "    n = g.diagonal(dim1=1, dim2=2).sqrt()\n"
        "    return ((1 - g / n[:, :, None] / n[:, None]) / 2).mean((1, 2))\n",
        "loops": "def cosine_distance(vectors):\n    out = []\n    for v in vectors:\n"
        "        total = 0\n        for a in v:\n            for b in v:\n"
        "                total = total + (1 - a @ b / (a.norm() * b.norm())) / 2\n"
        "        out.append(total / len(v) ** 2)\n    return torch.stack(out)\n",
    },
    "c02-e3": {
        **{
            name: f"def cosine_distance_fast(vectors):\n{units}"
            "    return 0.5 - u.mean(1).pow(2).sum(-1) / 2\n"
            for name, units in _VARIANTS_COSINE.items()
        },
        "spread": "def cosine_distance_fast(vectors):\n    u = F.normalize(vectors, dim=2)\n"
        "    return (u - u.mean(1, keepdim=True)).square().sum(2).mean(1) / 2\n",
        "dot": "def cosine_distance_fast(vectors):\n"
        "    s = (vectors / torch.linalg.vector_norm(vectors, dim=2, keepdim=True)).sum(1)\n"
        "    return (1 - (s * s).sum(1) / vectors.shape[1] ** 2) / 2\n",
        "gram of channels": "def cosine_distance_fast(vectors):\n"
        "    u = F.normalize(vectors, dim=2)\n    w = torch.full_like(u[:, :, :1], 1 / u.shape[1])\n"
        "    m = u.mT @ w\n    return ((1 - m.mT @ m) / 2).flatten()\n",
    },
    "c02-e4": {
        "entropies": "def jsd(p, q):\n    h = lambda x: -torch.xlogy(x, x).sum(-1)\n"
        "    return h((p + q) / 2) - (h(p) + h(q)) / 2\n",
        "NaN to 0": "def jsd(p, q):\n    m = (p + q) / 2\n"
        "    a, b = p * (p / m).log(), q * (q / m).log()\n"
        "    return (a.nan_to_num() + b.nan_to_num()).sum(-1) / 2\n",
        "where": "def jsd(p, q):\n    m = (p + q) / 2\n    def kl(a):\n"
        "        ratio = torch.where(a > 0, a / m, torch.ones_like(m))\n"
        "        return (a * ratio.log()).sum(-1)\n    return 0.5 * kl(p) + 0.5 * kl(q)\n",
        "clamp inside": "def jsd(p, q):\n    m = (0.5 * (p + q)).clamp(min=1e-30)\n"
        "    a = p * (p.clamp(min=1e-30) / m).log()\n    b = q * (q.clamp(min=1e-30) / m).log()\n"
        "    return 0.5 * (a + b).sum(-1)\n",
        "entr": "def jsd(p, q):\n    e = torch.special.entr\n"
        "    return (e((p + q) / 2) - e(p) / 2 - e(q) / 2).sum(-1)\n",
        "doubled": "def jsd(p, q):\n    s = p + q\n"
        "    a = torch.xlogy(p, 2 * p) - torch.xlogy(p, s)\n"
        "    b = torch.xlogy(q, 2 * q) - torch.xlogy(q, s)\n    return (a + b).sum(-1).div(2)\n",
    },
    "c02-e5": {
        "unsqueeze": "def average_jsd(attention):\n"
        "    return jsd(attention.unsqueeze(1), attention.unsqueeze(2)).flatten(1).mean(1)\n",
        "row by row": "def average_jsd(attention):\n"
        "    rows = [jsd(attention[:, i : i + 1], attention).mean(1) for i in range(attention.shape[1])]\n"
        "    return torch.stack(rows).mean(0)\n",
        "loops": "def average_jsd(attention):\n    out = []\n    for a in attention:\n"
        "        out.append(torch.stack([jsd(p, q) for p in a for q in a]).mean())\n"
        "    return torch.stack(out)\n",
        "half of the pairs": "def average_jsd(attention):\n    n, l, _ = attention.shape\n"
        "    i, j = torch.triu_indices(l, l, 1)\n"
        "    return 2 * jsd(attention[:, i], attention[:, j]).sum(1) / l**2\n",
        "entropies": "def average_jsd(attention):\n    h = lambda x: -torch.xlogy(x, x).sum(-1)\n"
        "    middle = (attention[:, :, None] + attention[:, None]) / 2\n"
        "    return h(middle).mean((1, 2)) - h(attention).mean(1)\n",
    },
}


# Whole answers, as they were handed in on trial: name, text, words of the message.
_MORE = {
    "c02-e1": [
        Mutant(
            "and for or",
            {
                "": (
                    "def map_of_query(attention, size, query):\n"
                    "    (H,W),(r,c)=size,query\n"
                    "    if not 0<=r<H and not 0<=c<W:\n"
                    "        raise ValueError\n"
                    "    return attention[r*W+c].view(H,W)\n"
                )
            },
            "row·W + column of a position outside can be the index of",
        ),
        Mutant(
            "bounds swapped",
            {
                "": (
                    "def map_of_query(attention, size, query):\n"
                    "    (H,W),(r,c)=size,query\n"
                    "    if not (0<=r<W and 0<=c<H):\n"
                    "        raise ValueError\n"
                    "    return attention[r*W+c].view(H,W)\n"
                )
            },
            "rows run from 0 to H - 1 and columns from 0 to W - 1: is 0",
        ),
        Mutant(
            "zero refused",
            {
                "": (
                    "def map_of_query(attention, size, query):\n"
                    "    (H,W),(r,c)=size,query\n"
                    "    if not (0<r<H and 0<c<W):\n"
                    "        raise ValueError\n"
                    "    return attention[r*W+c].view(H,W)\n"
                )
            },
            "rows run from 0 to H - 1 and columns from 0 to W - 1: is 0",
        ),
        Mutant(
            "last refused",
            {
                "": (
                    "def map_of_query(attention, size, query):\n"
                    "    (H,W),(r,c)=size,query\n"
                    "    if not (0<=r<H-1 and 0<=c<W-1):\n"
                    "        raise ValueError\n"
                    "    return attention[r*W+c].view(H,W)\n"
                )
            },
            "rows run from 0 to H - 1 and columns from 0 to W - 1: is 0",
        ),
        Mutant(
            "returns error",
            {
                "": (
                    "def map_of_query(attention, size, query):\n"
                    "    (H, W), (r, c) = size, query\n"
                    "    if not (0 <= r < H and 0 <= c < W):\n"
                    "        return ValueError('outside')\n"
                    "    return attention[r*W+c].view(H,W)\n"
                )
            },
            "nothing is raised: write raise ValueError(...), without",
        ),
        Mutant(
            "returns None",
            {
                "": (
                    "def map_of_query(attention, size, query):\n"
                    "    (H, W), (r, c) = size, query\n"
                    "    if not (0 <= r < H and 0 <= c < W):\n"
                    "        return None\n"
                    "    return attention[r*W+c].view(H,W)\n"
                )
            },
            "nothing is raised: write raise ValueError(...), without",
        ),
        Mutant(
            "prints",
            {
                "": (
                    "def map_of_query(attention, size, query):\n"
                    "    (H, W), (r, c) = size, query\n"
                    "    if not (0 <= r < H and 0 <= c < W):\n"
                    "        print('outside')\n"
                    "    return attention[(r*W+c) % len(attention)].view(H,W)\n"
                )
            },
            "row·W + column of a position outside can be the index of",
        ),
        Mutant(
            "Exception",
            {
                "": (
                    "def map_of_query(attention, size, query):\n"
                    "    (H, W), (r, c) = size, query\n"
                    "    if not (0 <= r < H and 0 <= c < W):\n"
                    "        raise Exception('outside')\n"
                    "    return attention[r*W+c].view(H,W)\n"
                )
            },
            "the exercise asks for a ValueError: raise ValueError(...)",
        ),
        Mutant(
            "clamps",
            {
                "": (
                    "def map_of_query(attention, size, query):\n"
                    "    (H,W),(r,c)=size,query\n"
                    "    r,c=min(max(r,0),H-1),min(max(c,0),W-1)\n"
                    "    return attention[r*W+c].view(H,W)\n"
                )
            },
            "row·W + column of a position outside can be the index of",
        ),
        Mutant(
            "writes mark",
            {
                "": (
                    "def map_of_query(attention, size, query):\n"
                    "    (H, W), (r, c) = size, query\n"
                    "    if not (0 <= r < H and 0 <= c < W):\n"
                    "        raise ValueError('outside')\n"
                    "    m=attention[r*W+c].view(H,W)\n"
                    "    m[r,c]=0\n"
                    "    return m\n"
                )
            },
            "the weight of the query on itself is changed",
        ),
        Mutant(
            "softmax all",
            {
                "": (
                    "def map_of_query(attention, size, query):\n"
                    "    (H, W), (r, c) = size, query\n"
                    "    if not (0 <= r < H and 0 <= c < W):\n"
                    "        raise ValueError('outside')\n"
                    "    return attention.softmax(1)[r*W+c].view(H,W)\n"
                )
            },
            "the map is scaled for a picture: return the numbers of the",
        ),
    ],
    "c02-e2": [
        Mutant(
            "euclid",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    return torch.cdist(vectors,vectors).mean((1,2))\n"
                )
            },
            "this is the distance |a - b|, not the cosine distance",
        ),
        Mutant(
            "first only",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    n = vectors.norm(dim=2, keepdim=True)\n"
                    "    u = vectors / n\n"
                    "    return ((1-(u@u.mT)[:,0])/2).mean(1)\n"
                )
            },
            "only one position is compared with all: average over both",
        ),
        Mutant(
            "upper incl diag mean",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    n = vectors.norm(dim=2, keepdim=True)\n"
                    "    u = vectors / n\n"
                    "    L=u.shape[1]\n"
                    "    return ((1-u@u.mT)/2).triu().sum((1,2))/(L*(L+1)/2)\n"
                )
            },
            "every pair is counted once: (i, j) and (j, i) both count",
        ),
        Mutant(
            "l1",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    u=vectors/vectors.abs().sum(2,keepdim=True)\n"
                    "    return ((1-u@u.mT)/2).mean((1,2))\n"
                )
            },
            "divided by the sum of the numbers: the length is the root",
        ),
        Mutant(
            "max norm",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    u=vectors/vectors.abs().amax(2,keepdim=True)\n"
                    "    return ((1-u@u.mT)/2).mean((1,2))\n"
                )
            },
            "divided by the largest number: the length is the root of",
        ),
        Mutant(
            "softmax",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    u=vectors.softmax(2)\n"
                    "    return ((1-u@u.mT)/2).mean((1,2))\n"
                )
            },
            "softmax does not make vectors 1 long: divide by the length",
        ),
        Mutant(
            "centred",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    v=vectors-vectors.mean(2,keepdim=True)\n"
                    "    u=v/v.norm(dim=2,keepdim=True)\n"
                    "    return ((1-u@u.mT)/2).mean((1,2))\n"
                )
            },
            "0/0: something became zero before the division. Is a mean",
        ),
        Mutant(
            "centred positions",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    v=vectors-vectors.mean(1,keepdim=True)\n"
                    "    u=v/v.norm(dim=2,keepdim=True)\n"
                    "    return ((1-u@u.mT)/2).mean((1,2))\n"
                )
            },
            "the mean over the positions is subtracted first: the",
        ),
        Mutant(
            "with mean",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    m=vectors.mean(1,keepdim=True)\n"
                    "    return ((1-F.cosine_similarity(vectors,m,dim=2))/2).mean(1)\n"
                )
            },
            "each vector is compared with the mean vector: compare it",
        ),
        Mutant(
            "float32 inside",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    v=vectors.float()\n"
                    "    u=v/v.norm(dim=2,keepdim=True)\n"
                    "    return ((1-u@u.mT)/2).mean((1,2)).to(vectors.dtype)\n"
                )
            },
            "a small number is added to the lengths (no vector is zero:",
        ),
        Mutant(
            "fixed L",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    n = vectors.norm(dim=2, keepdim=True)\n"
                    "    u = vectors / n\n"
                    "    return ((1-u@u.mT)/2).sum((1,2))/16\n"
                )
            },
            "with two positions, half of the pairs are a position with",
        ),
        Mutant(
            "channels, again",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    n = vectors.norm(dim=2, keepdim=True)\n"
                    "    u = vectors / n\n"
                    "    return ((1-u.mT@u)/2).mean((1,2))\n"
                )
            },
            "channels and positions are exchanged: cosines are between",
        ),
        Mutant(
            "self only",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    return ((1-F.cosine_similarity(vectors,vectors,dim=2))/2).mean(1)\n"
                )
            },
            "each vector is compared with itself: compare all pairs",
        ),
        Mutant(
            "no dim norm",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    u=vectors/vectors.norm()\n"
                    "    return ((1-u@u.mT)/2).mean((1,2))\n"
                )
            },
            "all vectors are divided by one common length: each needs",
        ),
        Mutant(
            "sqrt",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    n = vectors.norm(dim=2, keepdim=True)\n"
                    "    u = vectors / n\n"
                    "    return ((1-u@u.mT)/2).clamp(min=0).sqrt().mean((1,2))\n"
                )
            },
            "this is the distance |a - b|, not the cosine distance",
        ),
        Mutant(
            "norm detached",
            {
                "": (
                    "def cosine_distance(vectors):\n"
                    "    u=vectors/vectors.norm(dim=2,keepdim=True).detach()\n"
                    "    return ((1-u@u.mT)/2).mean((1,2))\n"
                )
            },
            "a part of the formula is cut off from the graph (detach,",
            hidden=True,
        ),
    ],
    "c02-e3": [
        Mutant(
            "calls e2",
            {"": ("def cosine_distance_fast(vectors):\n    return cosine_distance(vectors)\n")},
            "all cosines are computed first: the mean of the unit",
        ),
        Mutant(
            "mean d",
            {
                "": (
                    "def cosine_distance_fast(vectors):\n"
                    "    n = vectors.norm(dim=2, keepdim=True)\n"
                    "    u = vectors / n\n"
                    "    return (1-u.mean(2).square().sum(1))/2\n"
                )
            },
            "channels and positions are exchanged: cosines are between",
        ),
        Mutant(
            "neighbours",
            {
                "": (
                    "def cosine_distance_fast(vectors):\n"
                    "    n = vectors.norm(dim=2, keepdim=True)\n"
                    "    u = vectors / n\n"
                    "    return ((1-(u*u.roll(1,1)).sum(2))/2).mean(1)\n"
                )
            },
            "only neighbours are compared: the average runs over all",
        ),
        Mutant(
            "mean first then",
            {
                "": (
                    "def cosine_distance_fast(vectors):\n"
                    "    m=vectors.mean(1)\n"
                    "    return (1-m.square().sum(1)/vectors.square().sum(2).mean(1))/2\n"
                )
            },
            "first the mean, then the length: first each vector to",
        ),
        Mutant(
            "eps",
            {
                "": (
                    "def cosine_distance_fast(vectors):\n"
                    "    u=vectors/(vectors.norm(dim=2,keepdim=True)+1e-8)\n"
                    "    return (1-u.mean(1).square().sum(1))/2\n"
                )
            },
            "divide each vector by its own length, and by nothing else;",
        ),
        Mutant(
            "float32",
            {
                "": (
                    "def cosine_distance_fast(vectors):\n"
                    "    u=F.normalize(vectors.float(),dim=2)\n"
                    "    return ((1-u.mean(1).square().sum(1))/2).to(vectors.dtype)\n"
                )
            },
            "a small number is added to the lengths (no vector is zero:",
        ),
        Mutant(
            "blocks of pairs",
            {
                "": (
                    "def cosine_distance_fast(vectors):\n"
                    "    n = vectors.norm(dim=2, keepdim=True)\n"
                    "    u = vectors / n\n"
                    "    t=0\n"
                    "    for a in u.split(50,1):\n"
                    "        for b in u.split(50,1):\n"
                    "            t=t+(a@b.mT).sum((1,2))\n"
                    "    return (1-t/u.shape[1]**2)/2\n"
                )
            },
            "a loop over positions still computes every pair: take the",
        ),
        Mutant(
            "tolist loop",
            {
                "": (
                    "def cosine_distance_fast(vectors):\n"
                    "    out=[]\n"
                    "    for v in vectors.tolist():\n"
                    "        L=len(v)\n"
                    "        us=[[a/sum(b*b for b in w)**.5 for a in w] for w in v]\n"
                    "        out.append((1-sum(sum(x)**2 for x in zip(*us))/L**2)/2)\n"
                    "    return torch.tensor(out,dtype=vectors.dtype)\n"
                )
            },
            "the result is cut off from the graph (detach, data, item,",
        ),
        Mutant(
            "minus",
            {
                "": (
                    "def cosine_distance_fast(vectors):\n"
                    "    n = vectors.norm(dim=2, keepdim=True)\n"
                    "    u = vectors / n\n"
                    "    return (u.mean(1).square().sum(1)-1)/2\n"
                )
            },
            "the sign is wrong: (1 - cos)/2",
        ),
        Mutant(
            "sample",
            {
                "": (
                    "def cosine_distance_fast(vectors):\n"
                    "    n = vectors.norm(dim=2, keepdim=True)\n"
                    "    u = vectors / n\n"
                    "    u=u[:,:250]\n"
                    "    return (1-u.mean(1).square().sum(1))/2\n"
                )
            },
            "some positions are left out: the mean runs over all of them",
            hidden=True,
        ),
        Mutant(
            "detached mean",
            {
                "": (
                    "def cosine_distance_fast(vectors):\n"
                    "    n = vectors.norm(dim=2, keepdim=True)\n"
                    "    u = vectors / n\n"
                    "    m=u.mean(1)\n"
                    "    return (1-(m*m.detach()).sum(1))/2\n"
                )
            },
            "a part of the formula is cut off from the graph (detach,",
            hidden=True,
        ),
    ],
    "c02-e4": [
        Mutant(
            "eps 1e-12",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    m=(p+q)/2\n"
                    "    e=1e-12\n"
                    "    return (p*((p+e)/(m+e)).log()+q*((q+e)/(m+e)).log()).sum(-1)/2\n"
                )
            },
            "a small number is added inside of the logarithm, or small",
        ),
        Mutant(
            "eps 1e-10 clamp",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    m=(p+q)/2\n"
                    "    e=1e-10\n"
                    "    f=lambda a:a*(a.clamp(min=e)/m.clamp(min=e)).log()\n"
                    "    return (f(p)+f(q)).sum(-1)/2\n"
                )
            },
            "a small number is added inside of the logarithm, or small",
        ),
        Mutant(
            "eps 1e-8",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    m=(p+q)/2\n"
                    "    e=1e-8\n"
                    "    return (p*((p+e)/(m+e)).log()+q*((q+e)/(m+e)).log()).sum(-1)/2\n"
                )
            },
            "a small number is added inside of the logarithm, or small",
        ),
        Mutant(
            "geometric middle",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    x=torch.xlogy\n"
                    "    m=(p*q).sqrt()\n"
                    "    return (x(p,p)-x(p,m)+x(q,q)-x(q,m)).sum(-1)/2\n"
                )
            },
            "the middle is √(p·q), or the two arguments of xlogy are",
        ),
        Mutant(
            "max middle",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    x=torch.xlogy\n"
                    "    m=torch.maximum(p,q)\n"
                    "    return (x(p,p)-x(p,m)+x(q,q)-x(q,m)).sum(-1)/2\n"
                )
            },
            "the middle is the larger of p and q: it is (p + q)/2",
        ),
        Mutant(
            "softmax inputs",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    p,q=p.softmax(-1),q.softmax(-1)\n"
                    "    x=torch.xlogy\n"
                    "    m=(p+q)/2\n"
                    "    return (x(p,p)-x(p,m)+x(q,q)-x(q,m)).sum(-1)/2\n"
                )
            },
            "softmax: p and q are distributions already",
        ),
        Mutant(
            "reverse",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    x=torch.xlogy\n"
                    "    m=(p+q)/2\n"
                    "    return ((x(m,m)-x(m,p))+(x(m,m)-x(m,q))).sum(-1)/2\n"
                )
            },
            "the two are the wrong way round: the weight is p or q, and",
        ),
        Mutant(
            "kl_div no log",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    m=(p+q)/2\n"
                    "    k=lambda t:F.kl_div(m,t,reduction='none').sum(-1)\n"
                    "    return (k(p)+k(q))/2\n"
                )
            },
            "F.kl_div takes the logarithm of the middle as its first",
        ),
        Mutant(
            "kl_div nan",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    m=(p+q)/2\n"
                    "    k=lambda t:F.kl_div(m.log(),t,reduction='none').sum(-1)\n"
                    "    return (k(p)+k(q))/2\n"
                )
            },
            "log 0 is -infinity, and 0 · -infinity is NaN",
        ),
        Mutant(
            "kl_div default",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    m=(p+q)/2\n"
                    "    k=lambda t:F.kl_div(m.log(),t)\n"
                    "    return (k(p)+k(q))/2\n"
                )
            },
            "one number for all pairs together: sum over the last axis",
        ),
        Mutant(
            "sum dim 1",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    x=torch.xlogy\n"
                    "    m=(p+q)/2\n"
                    "    return (x(p,p)-x(p,m)+x(q,q)-x(q,m)).sum(1)/2\n"
                )
            },
            "another axis is summed: the keys are the last one, dim=-1",
        ),
        Mutant(
            "sum dim 0",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    x=torch.xlogy\n"
                    "    m=(p+q)/2\n"
                    "    return (x(p,p)-x(p,m)+x(q,q)-x(q,m)).sum(0)/2\n"
                )
            },
            "the sum runs over the first axis, the pairs: sum over the",
        ),
        Mutant(
            "stack",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    s=torch.stack([p,q])\n"
                    "    m=s.mean(0)\n"
                    "    x=torch.xlogy\n"
                    "    return (x(s,s)-x(s,m)).sum(-1).mean(0)\n"
                )
            },
            "p and q have other shapes here, and p + q has the shape of",
        ),
        Mutant(
            "zeros_like p",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    x=torch.xlogy\n"
                    "    m=(p+q)/2\n"
                    "    out=torch.zeros_like(p)\n"
                    "    out+=x(p,p)-x(p,m)+x(q,q)-x(q,m)\n"
                    "    return out.sum(-1)/2\n"
                )
            },
            "p and q have other shapes here, and p + q has the shape of",
        ),
        Mutant(
            "detach m",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    x=torch.xlogy\n"
                    "    m=((p+q)/2).detach()\n"
                    "    return (x(p,p)-x(p,m)+x(q,q)-x(q,m)).sum(-1)/2\n"
                )
            },
            "a part of the formula is cut off from the graph (detach,",
            hidden=True,
        ),
        Mutant(
            "float32",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    a=p.dtype\n"
                    "    p,q=p.float(),q.float()\n"
                    "    x=torch.xlogy\n"
                    "    m=(p+q)/2\n"
                    "    return ((x(p,p)-x(p,m)+x(q,q)-x(q,m)).sum(-1)/2).to(a)\n"
                )
            },
            "a small number is added where the formula has none, or the",
        ),
        Mutant(
            "hellinger",
            {"": ("def jsd(p, q):\n    return (p.sqrt()-q.sqrt()).square().sum(-1)/2\n")},
            "this is another distance, not the Jensen-Shannon divergence",
        ),
        Mutant(
            "sqrt grad",
            {
                "": (
                    "def jsd(p, q):\n"
                    "    x=torch.xlogy\n"
                    "    m=(p+q)/2\n"
                    "    d=(x(p,p)-x(p,m)+x(q,q)-x(q,m)).sum(-1)/2\n"
                    "    return d.abs().sqrt()**2\n"
                )
            },
            "a part of the formula is cut off from the graph (detach,",
            hidden=True,
        ),
    ],
    "c02-e5": [
        Mutant(
            "cosine, again",
            {"": ("def average_jsd(attention):\n    return cosine_distance_fast(attention)\n")},
            "this is the cosine distance: use jsd",
        ),
        Mutant(
            "across examples",
            {
                "": (
                    "def average_jsd(attention):\n"
                    "    return jsd(attention[:,None],attention[None]).mean((1,2))\n"
                )
            },
            "examples are compared with each other: compare the rows of",
        ),
        Mutant(
            "zip",
            {
                "": (
                    "def average_jsd(attention):\n"
                    "    return torch.stack([jsd(a,b) for a,b in zip(attention.unbind(1),attention.unbind(1))],1).mean(1)\n"
                )
            },
            "each query is compared with itself, or only the first ones",
        ),
        Mutant(
            "no xlogy",
            {
                "": (
                    "def average_jsd(attention):\n"
                    "    p,q=attention[:,:,None],attention[:,None]\n"
                    "    m=(p+q)/2\n"
                    "    return (p*(p/m).log()+q*(q/m).log()).sum(-1).mean((1,2))/2\n"
                )
            },
            "log 0, or p is divided by a q that is 0: call your jsd,",
        ),
        Mutant(
            "base 2, again",
            {
                "": (
                    "def average_jsd(attention):\n"
                    "    return jsd(attention[:,:,None],attention[:,None]).mean((1,2))/torch.log(torch.tensor(2.,dtype=attention.dtype))\n"
                )
            },
            "the logarithm to base 2: see exercise 4",
        ),
        Mutant(
            "sqrt",
            {
                "": (
                    "def average_jsd(attention):\n"
                    "    return jsd(attention[:,:,None],attention[:,None]).clamp(min=0).sqrt().mean((1,2))\n"
                )
            },
            "this is the mean of roots: the formula has none",
        ),
        Mutant(
            "upper incl",
            {
                "": (
                    "def average_jsd(attention):\n"
                    "    d=jsd(attention[:,:,None],attention[:,None])\n"
                    "    L=d.shape[1]\n"
                    "    return d.triu().sum((1,2))/(L*(L+1)/2)\n"
                )
            },
            "every pair is counted once, or the columns are normalised",
        ),
        Mutant(
            "keys mean",
            {
                "": (
                    "def average_jsd(attention):\n"
                    "    p,q=attention[:,:,None],attention[:,None]\n"
                    "    x=torch.xlogy\n"
                    "    m=(p+q)/2\n"
                    "    return (x(p,p)-x(p,m)+x(q,q)-x(q,m)).mean((1,2,3))/2\n"
                )
            },
            "half of it: only one half of the pairs is summed and all L²",
        ),
        Mutant(
            "KL",
            {
                "": (
                    "def average_jsd(attention):\n"
                    "    p,q=attention[:,:,None],attention[:,None]\n"
                    "    x=torch.xlogy\n"
                    "    return (x(p,p)-x(p,q)).sum(-1).mean((1,2))\n"
                )
            },
            "log 0, or p is divided by a q that is 0: call your jsd,",
        ),
        Mutant(
            "range from 1",
            {
                "": (
                    "def average_jsd(attention):\n"
                    "    L=attention.shape[1]\n"
                    "    t=0\n"
                    "    for i in range(1,L):\n"
                    "        for j in range(L):\n"
                    "            t=t+jsd(attention[:,i],attention[:,j])\n"
                    "    return t/L**2\n"
                )
            },
            "a query is left out: do both loops start at 0?",
        ),
        Mutant(
            "items",
            {
                "": (
                    "def average_jsd(attention):\n"
                    "    return torch.tensor([jsd(a[:,None],a[None]).mean().item() for a in attention],dtype=attention.dtype)\n"
                )
            },
            "the result is cut off from the graph (detach, data, item,",
        ),
        Mutant(
            "detached one",
            {
                "": (
                    "def average_jsd(attention):\n"
                    "    return jsd(attention[:,:,None],attention[:,None].detach()).mean((1,2))\n"
                )
            },
            "a part of the formula is cut off from the graph (detach,",
            hidden=True,
        ),
    ],
}
for _exercise, _mutants in _MORE.items():
    MUTANTS[_exercise] += _mutants

_MORE_VARIANTS = {
    "c02-e1": {
        "index_select": (
            "def map_of_query(attention, size, query):\n"
            "    (H, W), (r, c) = size, query\n"
            "    if not (0 <= r < H and 0 <= c < W):\n"
            "        raise ValueError('outside')\n"
            "    return attention.index_select(0, torch.tensor([r*W+c])).view(H, W)\n"
        ),
        "loops": (
            "def map_of_query(attention, size, query):\n"
            "    (H, W), (r, c) = size, query\n"
            "    if not (0 <= r < H and 0 <= c < W):\n"
            "        raise ValueError('outside')\n"
            "    out = attention.new_zeros(H, W)\n"
            "    for a in range(H):\n"
            "        for b in range(W):\n"
            "            out[a, b] = attention[r*W+c, a*W+b]\n"
            "    return out\n"
        ),
        "own error": (
            "class Outside(ValueError):\n"
            "    pass\n"
            "def map_of_query(attention, size, query):\n"
            "    (H, W), (r, c) = size, query\n"
            "    if not (0 <= r < H and 0 <= c < W):\n"
            "        raise Outside('outside')\n"
            "    return attention[r*W+c].reshape(tuple(size))\n"
        ),
        "one hot": (
            "def map_of_query(attention, size, query):\n"
            "    (H, W), (r, c) = size, query\n"
            "    if not (0 <= r < H and 0 <= c < W):\n"
            "        raise ValueError('outside')\n"
            "    e = F.one_hot(torch.tensor(r*W+c), H*W).to(attention)\n"
            "    return (e @ attention).reshape(H, W)\n"
        ),
    },
    "c02-e2": {
        "cdist": (
            "def cosine_distance(vectors):\n"
            "    n = vectors.norm(dim=2, keepdim=True)\n"
            "    u = vectors / n\n"
            "    return (torch.cdist(u, u)**2 / 4).mean((1, 2))\n"
        ),
        "vmap": (
            "def cosine_distance(vectors):\n"
            "    def one(v):\n"
            "        u = v / v.norm(dim=1, keepdim=True)\n"
            "        return ((1 - u @ u.T) / 2).mean()\n"
            "    return torch.vmap(one)(vectors)\n"
        ),
        "upper twice": (
            "def cosine_distance(vectors):\n"
            "    n = vectors.norm(dim=2, keepdim=True)\n"
            "    u = vectors / n\n"
            "    d = (1 - u @ u.mT)/2\n"
            "    L = d.shape[1]\n"
            "    return 2*d.triu(1).sum((1,2))/L**2\n"
        ),
        "double": (
            "def cosine_distance(vectors):\n"
            "    v = vectors.double()\n"
            "    u = v/v.norm(dim=2,keepdim=True)\n"
            "    return ((1-u@u.mT)/2).mean((1,2)).to(vectors.dtype)\n"
        ),
        "out list": (
            "def cosine_distance(vectors):\n"
            "    N, L, d = vectors.shape\n"
            "    out = torch.zeros(N, dtype=vectors.dtype)\n"
            "    for n in range(N):\n"
            "        for i in range(L):\n"
            "            for j in range(L):\n"
            "                c = torch.dot(vectors[n,i], vectors[n,j])/torch.sqrt(vectors[n,i].square().sum()*vectors[n,j].square().sum())\n"
            "                out[n] = out[n] + (1-c)/2/L**2\n"
            "    return out\n"
        ),
    },
    "c02-e3": {
        "var": (
            "def cosine_distance_fast(vectors):\n"
            "    n = vectors.norm(dim=2, keepdim=True)\n"
            "    u = vectors / n\n"
            "    return u.var(dim=1, unbiased=False).sum(1)/2\n"
        ),
        "einsum": (
            "def cosine_distance_fast(vectors):\n"
            "    n = vectors.norm(dim=2, keepdim=True)\n"
            "    u = vectors / n\n"
            "    L = u.shape[1]\n"
            "    return (1 - torch.einsum('nld,nmd->n', u, u)/L**2)/2\n"
        ),
        "loop": (
            "def cosine_distance_fast(vectors):\n"
            "    t = 0\n"
            "    for v in vectors.unbind(1):\n"
            "        t = t + v/v.norm(dim=1, keepdim=True)\n"
            "    m = t/vectors.shape[1]\n"
            "    return (1-(m*m).sum(-1))/2\n"
        ),
        "vmap": (
            "def cosine_distance_fast(vectors):\n"
            "    def one(v):\n"
            "        m = F.normalize(v, dim=1).mean(0)\n"
            "        return (1 - m @ m)/2\n"
            "    return torch.vmap(one)(vectors)\n"
        ),
    },
    "c02-e4": {
        "categorical": (
            "def jsd(p, q):\n"
            "    D=torch.distributions\n"
            "    m=(p+q)/2\n"
            "    P,Q,M=D.Categorical(probs=p),D.Categorical(probs=q),D.Categorical(probs=m)\n"
            "    return (D.kl_divergence(P,M)+D.kl_divergence(Q,M))/2\n"
        ),
        "nansum": (
            "def jsd(p, q):\n"
            "    m=(p+q)/2\n"
            "    return ((p*(p/m).log()).nansum(-1)+(q*(q/m).log()).nansum(-1))/2\n"
        ),
        "where, on trial": (
            "def jsd(p, q):\n"
            "    m=(p+q)/2\n"
            "    a=torch.where(p>0,p*torch.log(p/m),torch.zeros_like(p))\n"
            "    b=torch.where(q>0,q*torch.log(q/m),torch.zeros_like(q))\n"
            "    return (a.sum(-1)+b.sum(-1))/2\n"
        ),
        "normalise again": (
            "def jsd(p, q):\n"
            "    p=p/p.sum(-1,keepdim=True)\n"
            "    q=q/q.sum(-1,keepdim=True)\n"
            "    m=(p+q)/2\n"
            "    x=torch.xlogy\n"
            "    return (x(p,p)-x(p,m)+x(q,q)-x(q,m)).sum(-1)/2\n"
        ),
        "kl_div": (
            "def jsd(p, q):\n"
            "    m=((p+q)/2).clamp_min(1e-300).log()\n"
            "    k=lambda t:F.kl_div(m,t.expand_as(m),reduction='none').sum(-1)\n"
            "    return (k(p)+k(q))/2\n"
        ),
        "masked fill": (
            "def jsd(p, q):\n"
            "    m=(p+q)/2\n"
            "    lm=m.masked_fill(m==0,1).log()\n"
            "    f=lambda a:a*(a.masked_fill(a==0,1).log()-lm)\n"
            "    return 0.5*(f(p)+f(q)).sum(-1)\n"
        ),
    },
    "c02-e5": {
        "repeat": (
            "def average_jsd(attention):\n"
            "    N,L,M=attention.shape\n"
            "    a=attention.repeat_interleave(L,1)\n"
            "    b=attention.repeat(1,L,1)\n"
            "    return jsd(a,b).mean(1)\n"
        ),
        "stack": (  # not vmap: torch.distributions, in an own jsd, is batched by newer torch alone
            "def average_jsd(attention):\n"
            "    return torch.stack([jsd(a[:,None],a[None]).mean() for a in attention])\n"
        ),
        "own": (
            "def average_jsd(attention):\n"
            "    x=torch.xlogy\n"
            "    N,L,M=attention.shape\n"
            "    t=0\n"
            "    for i in range(L):\n"
            "        for j in range(L):\n"
            "            p,q=attention[:,i],attention[:,j]\n"
            "            m=(p+q)/2\n"
            "            t=t+(x(p,p)-x(p,m)+x(q,q)-x(q,m)).sum(-1)/2\n"
            "    return t/L**2\n"
        ),
        "combinations": (
            "def average_jsd(attention):\n"
            "    L=attention.shape[1]\n"
            "    if L==1:\n"
            "        return jsd(attention[:,0],attention[:,0])\n"
            "    c=torch.combinations(torch.arange(L))\n"
            "    return jsd(attention[:,c[:,0]],attention[:,c[:,1]]).sum(1)*2/L/L\n"
        ),
    },
}
for _exercise, _variants in _MORE_VARIANTS.items():
    VARIANTS[_exercise].update(_variants)
