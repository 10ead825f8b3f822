"""Mutants and variants of chapter 07."""

from mutants.answers import Mutant

_RATE_WARM = "return lr * (step + 1) / warmup"
_RATE_PROGRESS = "progress = (step - warmup) / (steps - warmup)"
_RATE_COS = "return lr / 2 * (1 + math.cos(math.pi * progress))"
_RATE_MUTANTS = [
    Mutant("from zero", {"(step + 1)": "step"}, "the warm-up starts at 0"),
    Mutant("no warm-up", {"if step < warmup": "if False"}, "update t < w is on a line"),
    Mutant("largest at once", {_RATE_WARM: "return lr"}, "the rate starts at its largest"),
    Mutant(
        "over all updates", {_RATE_WARM: "return lr * (step + 1) / steps"}, "to the last update"
    ),
    Mutant(
        "cosine from 0", {_RATE_PROGRESS: "progress = step / steps"}, "starts behind the warm-up"
    ),
    Mutant("stretched", {"/ (steps - warmup)": "/ steps"}, "it has T - w"),
    Mutant("shifted", {"(step - warmup) /": "step /"}, "but starts at update 0"),
    Mutant("whole period", {"math.pi *": "2 * math.pi *"}, "a whole period"),
    Mutant("quarter", {_RATE_COS: "return lr * math.cos(math.pi / 2 * progress)"}, "a quarter"),
    Mutant("negative", {_RATE_COS: "return lr * math.cos(math.pi * progress)"}, "becomes negative"),
    Mutant("not halved", {"lr / 2 *": "lr *"}, "twice too large"),
    Mutant("no pi", {"math.pi * progress": "progress"}, "π is missing"),
    Mutant("a line", {_RATE_COS: "return lr * (1 - progress)"}, "falls on a line"),
    Mutant("upside down", {"1 + math.cos": "1 - math.cos"}, "upside down"),
    Mutant("no lr", {"lr / 2 *": "0.5 *"}, "the share is returned"),
    Mutant("one ahead", {"(step - warmup)": "(step + 1 - warmup)"}, "one update ahead"),
    Mutant("too soon", {"(steps - warmup)": "(steps - warmup - 1)"}, "one update too soon"),
    Mutant("degrees", {"math.pi": "180"}, "in radians"),
    Mutant("rises further", {"if step < warmup": "if warmup"}, "the warm-up never ends"),
    Mutant("sine", {"math.cos": "math.sin"}, "sin in place of cos"),
    Mutant("divides by w", {"if step < warmup": "if step / warmup < 1"}, "nothing is divided by w"),
    Mutant(
        "printed",
        {
            "return": "print",
            " lr * (step": "(lr * (step",
            "/ warmup": "/ warmup)",
            " lr / 2 * (1 + math.cos(math.pi * progress))": "(lr)",
        },
        "without a return",
    ),
    Mutant("a tensor", {"lr / 2 *": "torch.tensor(lr) / 2 *"}, "return a float, not a tensor"),
    Mutant(
        "clamped",
        {_RATE_COS: _RATE_COS.replace("return ", "return max(0.01 * lr, ") + ")"},
        "two formulas",
        hidden=True,
    ),
]
_RATE_VARIANTS = {
    "one line": "import math\n\ndef learning_rate(step, steps, lr, warmup):\n"
    "    return lr * ((step + 1) / warmup if step < warmup else "
    "(1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2)\n",
    "square of a cosine": "import math\n\ndef learning_rate(step, steps, lr, warmup):\n"
    "    if step + 1 <= warmup:\n        return (step + 1) * lr / warmup\n"
    "    angle = math.pi / 2 * (step - warmup) / (steps - warmup)\n"
    "    return lr * math.cos(angle) ** 2\n",
    "numpy": "import numpy as np\n\ndef learning_rate(step, steps, lr, warmup):\n"
    "    if step >= warmup:\n"
    "        return 0.5 * lr * (np.cos(np.pi * (step - warmup) / (steps - warmup)) + 1)\n"
    "    return np.float64(lr) * (step + 1) / warmup\n",
    "from the end": "from math import cos, pi\n\ndef learning_rate(step, steps, lr, warmup):\n"
    "    done = step - warmup\n    if done < 0:\n        return lr + lr * (done + 1) / warmup\n"
    "    left = (steps - step) / (steps - warmup)\n    return lr * (1 - cos(pi * left)) / 2\n",
    "torch": "import math\n\ndef learning_rate(step, steps, lr, warmup):\n"
    "    if step < warmup:\n        return lr / warmup * (step + 1)\n"
    "    angle = torch.tensor(math.pi * (step - warmup) / (steps - warmup), dtype=torch.float64)\n"
    "    return (lr * (1 + angle.cos()) / 2).item()\n",
}

_TOPK_GUESSES = "guesses = logits.topk(min(k, logits.shape[1]), dim=1).indices"
_TOPK_RETURN = "return 100 * hits.sum().item() / len(labels)"
_TOPK_MUTANTS = [
    Mutant("top-1", {_TOPK_GUESSES: "guesses = logits.argmax(1, keepdim=True)"}, "k is ignored"),
    Mutant("share", {"100 * ": ""}, "the result is in percent"),
    Mutant("count", {_TOPK_RETURN: "return hits.sum().item()"}, "the number of hits"),
    Mutant("smallest", {"dim=1)": "dim=1, largest=False)"}, "the k smallest"),
    Mutant(
        "mean of all", {_TOPK_RETURN: "return 100 * hits.double().mean().item()"}, "divided by N·k"
    ),
    Mutant("last guess", {"hits = guesses": "hits = guesses[:, -1:]"}, "only guess k"),
    Mutant(
        "error",
        {
            _TOPK_RETURN: _TOPK_RETURN.replace(
                "100 * hits.sum().item()", "100 * (len(labels) - hits.sum().item())"
            )
        },
        "this is the error",
    ),
    Mutant("no axis", {"labels[:, None]": "labels"}, "labels[:, None]"),
    Mutant("too many guesses", {"min(k, logits.shape[1])": "k"}, "take min(k"),
    Mutant("one more", {"min(k, ": "min(k + 1, "}, "one guess too many"),
    Mutant("one fewer", {"indices": "indices[:, : max(k, 2) - 1]"}, "one guess too few"),
    Mutant("over classes", {"/ len(labels)": "/ logits.shape[1]"}, "the number of classes"),
    Mutant("printed", {"return ": "print(", "len(labels)": "len(labels))"}, "without a return"),
    Mutant("tensor", {".item()": ""}, "not a tensor"),
    Mutant("values", {".indices": ".values"}, "take indices"),
    Mutant("along images", {"dim=1)": "dim=0)"}, "", hidden=False),
    Mutant("in place", {"logits.topk": "logits.mul_(2).topk"}, "changed in place"),
    Mutant(
        "positive scores",
        {"hits = guesses": "guesses[logits.amax(1) < 0] = -1\n    hits = guesses"},
        "its own k guesses",
    ),
    Mutant("at most four", {"min(k, ": "min(k, 4, "}, "its own k guesses", hidden=True),
]
_TOPK_VARIANTS = {
    "ranks": "def topk_accuracy(logits, labels, k):\n"
    "    mine = logits.gather(1, labels[:, None])\n"
    "    return ((logits > mine).sum(1) < k).double().mean().item() * 100\n",
    "a loop": "def topk_accuracy(logits, labels, k):\n    hits = 0\n"
    "    for row, label in zip(logits, labels):\n"
    "        hits += label in row.argsort(descending=True)[:k]\n"
    "    return float(hits) / len(labels) * 100\n",
    "sort": "def topk_accuracy(logits, labels, k):\n"
    "    order = torch.sort(logits, dim=1, descending=True)[1][:, :k]\n"
    "    return 100.0 * float((order.T == labels).any(0).sum()) / labels.numel()\n",
    "lists": "def topk_accuracy(logits, labels, k):\n    found = []\n"
    "    for row, label in zip(logits.tolist(), labels.tolist()):\n"
    "        best = sorted(range(len(row)), key=row.__getitem__, reverse=True)[:k]\n"
    "        found.append(label in best)\n    return 100 * sum(found) / len(found)\n",
}

_SECOND_NEW = "network = PlainNet()"
_SECOND_LOAD = "network.load_state_dict(weights)"
_SECOND_INSERT = "insert_gains(network)"
_SECOND_OPTIMIZER = "optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9)"
_SECOND_LOOP = (
    "    for images, labels in batches:\n        update(network, optimizer, images, labels)\n"
)
_SECOND_MUTANTS = [
    Mutant(
        "optimizer first",
        {
            f"{_SECOND_INSERT}\n    {_SECOND_OPTIMIZER}": f"{_SECOND_OPTIMIZER}\n    {_SECOND_INSERT}"
        },
        "made before the insertion",
    ),
    Mutant(
        "loaded late",
        {f"{_SECOND_LOAD}\n    {_SECOND_INSERT}": f"{_SECOND_INSERT}\n    {_SECOND_LOAD}"},
        "the names do not fit",
    ),
    Mutant(
        "loaded late, not strict",
        {
            f"{_SECOND_LOAD}\n    {_SECOND_INSERT}": f"{_SECOND_INSERT}\n    "
            + _SECOND_LOAD.replace("weights", "weights, strict=False")
        },
        "strict=False skips",
    ),
    Mutant("from scratch", {f"    {_SECOND_LOAD}\n": ""}, "stage 1 are not loaded"),
    Mutant("no blocks", {f"    {_SECOND_INSERT}\n": ""}, "there are no blocks"),
    Mutant("twice", {_SECOND_INSERT: f"{_SECOND_INSERT}\n    {_SECOND_INSERT}"}, ""),
    Mutant(
        "statistics lost",
        {
            _SECOND_LOAD: 'network.load_state_dict({k: v for k, v in weights.items() if "running" not in k}, strict=False)'
        },
        "running statistics",
    ),
    Mutant(
        "statistics reset",
        {
            _SECOND_INSERT: f"{_SECOND_INSERT}\n    [m.reset_running_stats() for m in network.modules() if isinstance(m, nn.BatchNorm2d)]"
        },
        "running statistics",
    ),
    Mutant(
        "gains at random",
        {
            _SECOND_INSERT: f"{_SECOND_INSERT}\n    [nn.init.normal_(m.g) for m in network.modules() if isinstance(m, Gain)]"
        },
        "do not start at zero",
    ),
    Mutant(
        "gains alone",
        {"network.parameters()": '[p for n, p in network.named_parameters() if n.endswith(".g")]'},
        "the optimizer holds the blocks alone",
    ),
    Mutant(
        "frozen",
        {_SECOND_INSERT: f"network.requires_grad_(False)\n    {_SECOND_INSERT}"},
        "parameters are frozen",
    ),
    Mutant("no updates", {_SECOND_LOOP: ""}, "nothing was trained"),
    Mutant("other rate", {"lr, momentum": "0.02, momentum"}, "times as large"),
    Mutant("decay", {"momentum=0.9": "momentum=0.9, weight_decay=0.01"}, "SGD with momentum"),
    Mutant(
        "adam",
        {"SGD(network.parameters(), lr, momentum=0.9)": "Adam(network.parameters(), lr)"},
        "SGD with momentum",
    ),
    Mutant("no momentum", {", momentum=0.9": ""}, "without momentum", hidden=True),
    Mutant("other momentum", {"0.9": "0.8"}, "a later one is not", hidden=True),
    Mutant(
        "optimizer in the loop",
        {
            f"    {_SECOND_OPTIMIZER}\n": "",
            "        update(": f"        {_SECOND_OPTIMIZER}\n        update(",
        },
        "without momentum",
        hidden=True,
    ),
    Mutant(
        "first batch alone",
        {"    return network": "        return network\n    return network"},
        "only the first batch",
        hidden=True,
    ),
    Mutant(
        "nothing returned", {"    return network": "    return None"}, "an object of type NoneType"
    ),
    Mutant(
        "one network",
        {
            _SECOND_NEW: 'network = kept.setdefault("net", PlainNet())\n    network.body = PlainNet().body',
            "def second": "kept = {}\n\n\ndef second",
        },
        "outside of the function",
    ),
]
_SECOND_VARIANTS = {
    "optimizer by name": "def second_stage(weights, batches, lr):\n    net = PlainNet()\n"
    "    net.load_state_dict(dict(weights), strict=True)\n    insert_gains(net)\n"
    "    sgd = torch.optim.SGD([p for _, p in net.named_parameters()], lr=lr, momentum=0.9)\n"
    "    for batch in batches:\n        update(net, sgd, *batch)\n    return net\n",
    "renamed weights": "def second_stage(weights, batches, lr):\n    net = PlainNet()\n"
    "    insert_gains(net)\n    state = net.state_dict()\n"
    "    for key in weights:\n"
    "        parts = str(key).split('.')\n"
    "        if parts[0] == 'body':\n            parts.insert(2, '0')\n"
    "        state['.'.join(parts)] = weights[key]\n    net.load_state_dict(state)\n"
    "    sgd = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)\n"
    "    [update(net, sgd, x, y) for x, y in batches]\n    return net\n",
    "two groups": "def second_stage(weights, batches, lr):\n    net = PlainNet()\n"
    "    old = list(net.parameters())\n    net.load_state_dict(weights)\n    insert_gains(net)\n"
    "    new = [p for n, p in net.named_parameters() if n.endswith('.g')]\n"
    "    sgd = torch.optim.SGD([{'params': old}, {'params': new}], lr, 0.9)\n"
    "    for x, y in batches:\n        update(net, sgd, x, y)\n    return net.eval()\n",
    "added to the optimizer": "def second_stage(weights, batches, lr):\n    net = PlainNet()\n"
    "    sgd = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)\n"
    "    net.load_state_dict(weights)\n    insert_gains(net)\n"
    "    sgd.add_param_group({'params': [net.body[0][1].g, net.body[1][1].g]})\n"
    "    for x, y in batches:\n        update(net, sgd, x, y)\n    return net\n",
}

_SPLIT_DIV = "parts, rest = divmod(batch_size, processes * micro_batch)"
_SPLIT_RATE = "lr * batch_size / lr_batch"
_SPLIT_TEST = "if rest:"
_SPLIT_MUTANTS = [
    Mutant(
        "parts of all",
        {_SPLIT_DIV: "parts, rest = divmod(batch_size, micro_batch)"},
        "of all processes",
    ),
    Mutant(
        "micro-batch missing",
        {_SPLIT_DIV: "parts, rest = divmod(batch_size, processes)"},
        "micro_batch is missing",
    ),
    Mutant(
        "examples of a pass",
        {"return parts": "return processes * micro_batch"},
        "the number of passes",
    ),
    Mutant("float", {"return parts": "return batch_size / processes / micro_batch"}, "as an int"),
    Mutant("one more", {"return parts": "return parts + 1"}, "one part too many"),
    Mutant("processes", {"return parts": "return processes"}, "the number of processes"),
    Mutant("not scaled", {_SPLIT_RATE: "lr"}, "is not scaled"),
    Mutant("inverse", {_SPLIT_RATE: "lr * lr_batch / batch_size"}, "a larger batch takes"),
    Mutant("rate of a part", {_SPLIT_RATE: "lr * micro_batch / lr_batch"}, "the rate of a part"),
    Mutant("root", {_SPLIT_RATE: "lr * (batch_size / lr_batch) ** 0.5"}, "the rule is linear"),
    Mutant(
        "of one process", {_SPLIT_RATE: "lr * batch_size / processes / lr_batch"}, "of one process"
    ),
    Mutant(
        "of one pass",
        {_SPLIT_RATE: "lr * micro_batch * processes / lr_batch"},
        "parts are accumulated",
    ),
    Mutant(
        "times parts",
        {_SPLIT_RATE: "lr * batch_size / lr_batch * parts"},
        "times the number of parts",
    ),
    Mutant(
        "times processes",
        {_SPLIT_RATE: "lr * batch_size / lr_batch * processes"},
        "times the number of processes",
    ),
    Mutant("rounded", {_SPLIT_RATE: "lr * (batch_size // lr_batch)"}, "rounded down"),
    Mutant("no lr", {_SPLIT_RATE: "batch_size / lr_batch"}, "lr is missing"),
    Mutant("no base", {_SPLIT_RATE: "lr * batch_size"}, "lr_batch is missing"),
    Mutant("no error", {_SPLIT_TEST: "if False:"}, "whole passes"),
    Mutant("always refused", {_SPLIT_TEST: "if True:"}, "this batch splits"),
    Mutant("KeyError", {"raise ValueError": "raise KeyError"}, "asks for a ValueError"),
    Mutant("exchanged", {f"parts, {_SPLIT_RATE}": f"{_SPLIT_RATE}, parts"}, "parts first"),
    Mutant(
        "printed", {"return parts": "print(parts", "/ lr_batch": "/ lr_batch)"}, "without a return"
    ),
    Mutant("alone", {f"parts, {_SPLIT_RATE}": _SPLIT_RATE}, "return a pair"),
]
_SPLIT_VARIANTS = {
    "modulo": "def split_batch(batch_size, processes, micro_batch, lr, lr_batch):\n"
    "    if batch_size % (processes * micro_batch) != 0:\n        raise ValueError('batch')\n"
    "    return batch_size // (processes * micro_batch), batch_size / lr_batch * lr\n",
    "in two steps": "def split_batch(batch_size, processes, micro_batch, lr, lr_batch):\n"
    "    each = batch_size // processes\n    parts = each // micro_batch\n"
    "    if parts * processes * micro_batch != batch_size or parts < 1:\n"
    "        raise ValueError\n    return [parts, lr / lr_batch * batch_size]\n",
    "float and back": "def split_batch(batch_size, processes, micro_batch, lr, lr_batch):\n"
    "    parts = batch_size / processes / micro_batch\n"
    "    if round(parts) * processes * micro_batch != batch_size:\n        raise ValueError(parts)\n"
    "    return round(parts), lr * (batch_size / lr_batch)\n",
    "a loop": "def split_batch(batch_size, processes, micro_batch, lr, lr_batch):\n    parts = 0\n"
    "    left = batch_size\n    while left > 0:\n        left -= processes * micro_batch\n"
    "        parts += 1\n    if left:\n        raise ValueError('does not fit')\n"
    "    return parts, lr * batch_size / lr_batch\n",
}

_RUN_RATE = """            for group in self.optimizer.param_groups:
                group["lr"] = self.rate()
"""
_RUN_COUNT = "            self.step += 1\n"
_RUN_SAVE = "        return copy.deepcopy(state)\n"
_RUN_LOAD = "        state = copy.deepcopy(state)\n"
_RUN_NETWORK = '        self.network.load_state_dict(state["network"])\n'
_RUN_OPTIMIZER = '        self.optimizer.load_state_dict(state["optimizer"])\n'
_RUN_GENERATOR = '        self.generator.set_state(state["generator"])\n'
_RUN_STEP = '        self.step = state["step"]'
_RUN_BATCH = "images, labels = self.next_batch()"
_RUN_MUTANTS = [
    Mutant("no momentum", {_RUN_OPTIMIZER: ""}, "the momentum is missing"),
    Mutant("no generator", {_RUN_GENERATOR: ""}, "the state of self.generator"),
    Mutant("no network", {_RUN_NETWORK: ""}, "does not load the network"),
    Mutant("no count", {_RUN_STEP: ""}, "save and load self.step"),
    Mutant("count restarted", {_RUN_STEP: "        self.step = 0"}, "save and load self.step"),
    Mutant(
        "count saved too late",
        {'"step": self.step': '"step": self.step + 1'},
        "save and load self.step",
    ),
    Mutant(
        "not copied", {_RUN_SAVE: "        return state\n"}, "the saved numbers went on changing"
    ),
    Mutant(
        "shallow copy",
        {_RUN_SAVE: "        return copy.copy(state)\n"},
        "the saved numbers went on",
    ),
    Mutant(
        "momentum not copied",
        {_RUN_SAVE: '        return {**copy.deepcopy(state), "optimizer": state["optimizer"]}\n'},
        "copy and load the optimizer",
    ),
    Mutant(
        "not copied in load", {_RUN_LOAD: ""}, "the state was changed by the run that loaded it"
    ),
    Mutant(
        "parameters alone",
        {
            '"network": self.network.state_dict()': '"network": dict(self.network.named_parameters())',
            'state["network"])\n': 'state["network"], strict=False)\n',
        },
        "the running statistics",
    ),
    Mutant(
        "generator seeded anew",
        {_RUN_GENERATOR: "        self.generator.manual_seed(0)\n"},
        "the next batch is another",
    ),
    Mutant(
        "global generator",
        {
            "self.generator.get_state()": "torch.get_rng_state()",
            _RUN_GENERATOR: '        torch.set_rng_state(state["generator"])\n',
        },
        "the next batch is another",
    ),
    Mutant(
        "new optimizer",
        {
            _RUN_OPTIMIZER: "        self.optimizer = torch.optim.SGD(self.network.parameters(), self.lr, momentum=0.9)\n"
        },
        "the momentum is missing",
    ),
    Mutant("rate not set", {_RUN_RATE: ""}, "each update takes self.rate()"),
    Mutant("not counted", {_RUN_COUNT: ""}, "adds 1 to self.step"),
    Mutant(
        "counted before",
        {
            _RUN_COUNT: "",
            "        for _ in range(count):\n": "        for _ in range(count):\n" + _RUN_COUNT,
        },
        "after the update, not before",
    ),
    Mutant(
        "one loss",
        {"        return losses": "        return losses[-1] if losses else 0.0"},
        "one loss alone",
    ),
    Mutant(
        "nothing returned", {"        return losses": "        return None"}, "without a return"
    ),
    Mutant("always twenty", {"range(count)": "range(20)"}, "as many updates as asked for"),
    Mutant(
        "tensors", {"        return losses": "        return torch.tensor(losses)"}, "as floats"
    ),
    Mutant(
        "one batch for all",
        {
            f"            {_RUN_BATCH}\n": "",
            "        losses = []\n": f"        losses = []\n        {_RUN_BATCH}\n",
        },
        "in two calls as in one",
    ),
    Mutant(
        "never trained",
        {
            "losses.append(update(self.network, self.optimizer, images, labels))": "losses.append(nn.functional.cross_entropy(self.network(images), labels).item())"
        },
        "the loss falls",
    ),
    Mutant(
        "network of the other",
        {'"network": self.network.state_dict()': '"network": PlainNet().state_dict()'},
        "does not load the network",
    ),
]
_RUN_HEAD = "import copy\nimport io\n\n\nclass ResumableRun(Run):\n"
_RUN_TRAIN = """    def train_steps(self, count):
        losses = []
        while len(losses) < count:
            self.optimizer.param_groups[0]["lr"] = self.rate()
            losses.append(update(self.network, self.optimizer, *self.next_batch()))
            self.step = self.step + 1
        return losses

"""
_RUN_VARIANTS = {
    "a file in memory": _RUN_HEAD
    + _RUN_TRAIN
    + """    def save_state(self):
        file = io.BytesIO()
        parts = [self.network.state_dict(), self.optimizer.state_dict()]
        torch.save([*parts, self.generator.get_state(), self.step], file)
        return {"bytes": file.getvalue()}

    def load_state(self, state):
        network, optimizer, order, self.step = torch.load(io.BytesIO(state["bytes"]))
        self.generator.set_state(order)
        self.optimizer.load_state_dict(optimizer)
        self.network.load_state_dict(network)
""",
    "tensor by tensor": _RUN_HEAD
    + _RUN_TRAIN
    + """    def save_state(self):
        return {
            "net": {k: v.clone() for k, v in self.network.state_dict().items()},
            "momentum": [
                self.optimizer.state[p]["momentum_buffer"].clone()
                for p in self.network.parameters() if p in self.optimizer.state
            ],
            "order": self.generator.get_state(),
            "done": self.step,
        }

    def load_state(self, state):
        self.network.load_state_dict(state["net"])
        for p, value in zip(self.network.parameters(), state["momentum"]):
            self.optimizer.state[p]["momentum_buffer"] = value.clone()
        self.generator.set_state(state["order"])
        self.step = state["done"]
""",
    "a new optimizer": _RUN_HEAD
    + _RUN_TRAIN
    + """    def save_state(self):
        return copy.deepcopy((self.network.state_dict(), self.optimizer.state_dict(),
                              self.generator.get_state(), self.step))

    def load_state(self, state):
        state = copy.deepcopy(state)
        self.network = PlainNet()
        self.network.load_state_dict(state[0])
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.1, momentum=0.9)
        self.optimizer.load_state_dict(state[1])
        self.generator = torch.Generator()
        self.generator.set_state(state[2])
        self.step = state[3]
""",
    "whole objects": _RUN_HEAD
    + """    def train_steps(self, count):
        return [self.one() for _ in range(count)]

    def one(self):
        for group in self.optimizer.param_groups:
            group.update(lr=self.rate())
        images, labels = self.next_batch()
        loss = update(self.network, self.optimizer, images, labels)
        self.step += 1
        return loss

    def save_state(self):
        saved = {"step": self.step, "generator": self.generator.get_state().clone()}
        for name in ("network", "optimizer"):
            saved[name] = copy.deepcopy(getattr(self, name).state_dict())
        return saved

    def load_state(self, state):
        for name in ("network", "optimizer"):
            getattr(self, name).load_state_dict(copy.deepcopy(state[name]))
        self.generator.set_state(state["generator"])
        self.step = state["step"]
""",
}

_COST_HOURS = "hours = examples * epochs / (images_per_second * gpus) / 3600"
_COST_GPU = "gpu_hours = hours * gpus"
_COST_RETURN = "return hours, gpu_hours * watts / 1000, gpu_hours * price_per_hour"
_COST_MUTANTS = [
    Mutant("seconds", {"return hours": "return hours * 3600"}, "these are seconds"),
    Mutant("minutes", {"return hours": "return hours * 60"}, "these are minutes"),
    Mutant("one epoch", {"return hours": "return hours / epochs"}, "one epoch alone"),
    Mutant("GPUs in turn", {"return hours": "return gpu_hours"}, "the GPUs work at once"),
    Mutant(
        "times speed",
        {"/ (images_per_second * gpus)": "* images_per_second / gpus"},
        "multiplied by the speed",
    ),
    Mutant(
        "times GPUs",
        {"/ (images_per_second * gpus)": "/ images_per_second * gpus"},
        "multiplied by the GPUs",
    ),
    Mutant("energy of one", {"gpu_hours * watts": "hours * watts"}, "the energy of one GPU"),
    Mutant("Wh", {"watts / 1000": "watts"}, "these are Wh"),
    Mutant(
        "divided by power",
        {"gpu_hours * watts / 1000": "gpu_hours / watts"},
        "divided by the power",
    ),
    Mutant("no power", {"gpu_hours * watts / 1000": "gpu_hours"}, "times the power"),
    Mutant(
        "kilo-seconds",
        {"gpu_hours * watts / 1000": "gpu_hours * 3.6 * watts"},
        "seconds in place of hours",
    ),
    Mutant("twice", {"gpu_hours * watts": "gpus * gpu_hours * watts"}, "the GPUs count twice"),
    Mutant("price of one", {"gpu_hours * price": "hours * price"}, "the price of one GPU"),
    Mutant(
        "price of a second", {"gpu_hours * price": "3600 * gpu_hours * price"}, "not for a second"
    ),
    Mutant(
        "price of energy",
        {"gpu_hours * price": "gpu_hours * watts / 1000 * price"},
        "not for a kWh",
    ),
    Mutant("no price", {" * price_per_hour": ""}, "the price is missing"),
    Mutant(
        "order",
        {_COST_RETURN: "return gpu_hours * price_per_hour, hours, gpu_hours * watts / 1000"},
        "in another order",
    ),
    Mutant("printed", {_COST_RETURN: "print(hours)"}, "without a return"),
    Mutant("two", {_COST_RETURN: "return hours, gpu_hours * watts / 1000"}, "return three numbers"),
    Mutant("whole hours", {"/ 3600": "// 3600"}, "units beside each number", hidden=True),
]
_COST_HEAD = "def cost(examples, epochs, images_per_second, gpus, watts, price_per_hour):\n"
_COST_VARIANTS = {
    "seconds first": _COST_HEAD + "    seconds = examples / images_per_second / gpus * epochs\n"
    "    kwh = seconds * gpus * watts / 3_600_000\n"
    "    return seconds / 3600, kwh, seconds / 3600 * gpus * price_per_hour\n",
    "GPU hours first": _COST_HEAD + "    gpu_hours = epochs * examples / images_per_second / 3600\n"
    "    return [gpu_hours / gpus, gpu_hours * (watts / 1000), price_per_hour * gpu_hours]\n",
    "speed of all": _COST_HEAD + "    speed = images_per_second * gpus * 3600\n"
    "    hours = examples * epochs / speed\n    kilowatts = gpus * watts / 1e3\n"
    "    return hours, hours * kilowatts, hours * (gpus * price_per_hour)\n",
    "numpy": "import numpy as np\n\n"
    + _COST_HEAD
    + "    hours = np.float64(examples) * epochs / (3600 * images_per_second * gpus)\n"
    "    return tuple(hours * np.array([1, gpus * watts / 1000, gpus * price_per_hour]))\n",
}

MUTANTS = {
    "c07-e1": _RATE_MUTANTS,
    "c07-e2": _TOPK_MUTANTS,
    "c07-e3": _SECOND_MUTANTS,
    "c07-e4": _SPLIT_MUTANTS,
    "c07-e5": _RUN_MUTANTS,
    "c07-e6": _COST_MUTANTS,
}
VARIANTS = {
    "c07-e1": _RATE_VARIANTS,
    "c07-e2": _TOPK_VARIANTS,
    "c07-e3": _SECOND_VARIANTS,
    "c07-e4": _SPLIT_VARIANTS,
    "c07-e5": _RUN_VARIANTS,
    "c07-e6": _COST_VARIANTS,
}
