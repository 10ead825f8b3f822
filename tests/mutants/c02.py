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
