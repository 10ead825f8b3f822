"""Mutants and variants of chapter 06."""

from mutants.answers import Mutant

_BLOCK_RAISE = """        if position not in ("after_3x3", "after_1x1", "after_add"):
            raise ValueError(f"position={position!r}")
"""
_BLOCK_MAKE = 'self.block = make(width if position == "after_3x3" else channels)'
_BLOCK_ONE = "out = self.bn1(self.conv1(x)).relu()"
_BLOCK_THREE = "out = self.bn2(self.conv2(out)).relu()"
_BLOCK_LAST = "out = self.bn3(self.conv3(out))"
_BLOCK_SUM = "out = x + out"
_BLOCK_3X3 = 'if self.position == "after_3x3":\n            out = self.block(out)'
_BLOCK_1X1 = 'if self.position == "after_1x1":\n            out = self.block(out)'
_BLOCK_ADD = 'if self.position == "after_add":\n            out = self.block(out)'
_BLOCK_END = "return out.relu()"

_BLOCK_MUTANTS = [
    Mutant(
        "add before the sum",
        {
            _BLOCK_SUM: _BLOCK_ADD + f"\n        {_BLOCK_SUM}",
            f"{_BLOCK_ADD}\n        return": "return",
        },
        "before the addition: that is after_1x1",
    ),
    Mutant(
        "1x1 behind the sum",
        {f"{_BLOCK_1X1}\n        {_BLOCK_SUM}": f"{_BLOCK_SUM}\n        {_BLOCK_1X1}"},
        "behind the addition: that is after_add",
    ),
    Mutant(
        "1x1 and add swapped",
        {
            _BLOCK_1X1: _BLOCK_1X1.replace("after_1x1", "after_a"),
            _BLOCK_ADD: _BLOCK_ADD.replace("after_add", "after_1x1"),
            '"after_a":': '"after_add":',
        },
        "that is after_add",
    ),
    Mutant(
        "before the norm of the 3x3",
        {
            f"{_BLOCK_THREE}\n        {_BLOCK_3X3}": "out = self.conv2(out)\n        "
            + _BLOCK_3X3
            + "\n        out = self.bn2(out).relu()"
        },
        "before the norm of the 3×3",
    ),
    Mutant(
        "before the ReLU of the 3x3",
        {
            f"{_BLOCK_THREE}\n        {_BLOCK_3X3}": "out = self.bn2(self.conv2(out))\n        "
            + _BLOCK_3X3
            + "\n        out = out.relu()"
        },
        "before the ReLU of the 3×3",
    ),
    Mutant(
        "before the 3x3",
        {f"{_BLOCK_THREE}\n        {_BLOCK_3X3}": f"{_BLOCK_3X3}\n        {_BLOCK_THREE}"},
        "before the 3×3 convolution",
    ),
    Mutant(
        "before the last norm",
        {
            f"{_BLOCK_LAST}\n        {_BLOCK_1X1}": "out = self.conv3(out)\n        "
            + _BLOCK_1X1
            + "\n        out = self.bn3(out)"
        },
        "before the norm of the last 1×1",
    ),
    Mutant(
        "behind the last ReLU",
        {
            f"{_BLOCK_ADD}\n        {_BLOCK_END}": "out = out.relu()\n        "
            + _BLOCK_ADD
            + "\n        return out"
        },
        "behind the last ReLU",
    ),
    Mutant(
        "on the shortcut",
        {_BLOCK_1X1: _BLOCK_1X1.replace("out = self.block(out)", "x = self.block(x)")},
        "on the shortcut",
    ),
    Mutant(
        "never called",
        {_BLOCK_1X1: _BLOCK_1X1.replace("self.block(out)", "out")},
        "is never called",
    ),
    Mutant("result not kept", {_BLOCK_ADD: _BLOCK_ADD.replace("out = ", "")}, "is never called"),
    Mutant(
        "called twice",
        {_BLOCK_3X3: _BLOCK_3X3.replace("self.block(out)", "self.block(self.block(out))")},
        "called twice",
    ),
    Mutant(
        "added to the branch",
        {_BLOCK_1X1: _BLOCK_1X1.replace("= self", "= out + self")},
        "the branch is added",
    ),
    Mutant(
        "added to the sum",
        {_BLOCK_ADD: _BLOCK_ADD.replace("= self", "= out + self")},
        "the sum is added",
    ),
    Mutant(
        "x once more", {_BLOCK_ADD: _BLOCK_ADD.replace("= self", "= x + self")}, "x is added behind"
    ),
    Mutant(
        "at two places",
        {_BLOCK_1X1: _BLOCK_1X1.replace('== "after_1x1"', '!= "after_3x3"')},
        "after the 1×1 convolution, too",
    ),
    Mutant("no ReLU at the end", {_BLOCK_END: "return out"}, "the last ReLU is missing"),
    Mutant(
        "no first ReLU",
        {_BLOCK_ONE: _BLOCK_ONE.replace(".relu()", "")},
        "the first ReLU is missing",
    ),
    Mutant(
        "no second ReLU", {_BLOCK_THREE: _BLOCK_THREE.replace(".relu()", "")}, "the ReLU of the 3×3"
    ),
    Mutant("a third ReLU", {_BLOCK_LAST: _BLOCK_LAST + ".relu()"}, "the branch may be negative"),
    Mutant("no shortcut", {_BLOCK_SUM: "out = out"}, "x is not added"),
    Mutant("no first norm", {_BLOCK_ONE: "out = self.conv1(x).relu()"}, "bn1 is not called"),
    Mutant("no second norm", {_BLOCK_THREE: "out = self.conv2(out).relu()"}, "bn2 is not called"),
    Mutant("no last norm", {_BLOCK_LAST: "out = self.conv3(out)"}, "bn3 is not called"),
    Mutant(
        "always C channels",
        {_BLOCK_MAKE: "self.block = make(channels)"},
        "after the 3×3 convolution there are 2",
    ),
    Mutant(
        "always the width",
        {_BLOCK_MAKE: "self.block = make(width)"},
        "after the addition there are 3",
    ),
    Mutant(
        "channels and places swapped",
        {_BLOCK_MAKE: 'self.block = make(channels if position == "after_3x3" else width)'},
        "make(...) gets the channels of the place",
    ),
    Mutant("other name", {"self.block": "self.gain"}, "set it as self.block"),
    Mutant(
        "a block for each position",
        {_BLOCK_MAKE: _BLOCK_MAKE + "\n        self.spare = make(channels)"},
        "more than one block",
    ),
    Mutant(
        "in a list",
        {
            _BLOCK_MAKE: _BLOCK_MAKE.replace("make(", "[make(") + "]",
            "self.block(out)": "self.block[0](out)",
        },
        "set self.block = make",
    ),
    Mutant("frozen", {_BLOCK_MAKE: _BLOCK_MAKE + ".requires_grad_(False)"}, "requires_grad is off"),
    Mutant("make ignored", {"self.block = make(": "self.block = Gain("}, "make is ignored"),
    Mutant("no error", {_BLOCK_RAISE: ""}, "falls through"),
    Mutant(
        "error in forward",
        {
            _BLOCK_RAISE: "",
            _BLOCK_END: _BLOCK_RAISE.strip()
            .replace("position not", "self.position not")
            .replace("position!r", "self.position!r")
            + f"\n        {_BLOCK_END}",
        },
        "refused too late",
    ),
    Mutant("KeyError", {"raise ValueError": "raise KeyError"}, "asks for a ValueError"),
    Mutant(
        "part of a word",
        {"position not in (": 'position.split("_")[0] not in ("after", '},
        "falls through",
    ),
    Mutant(
        "near words",
        {_BLOCK_RAISE: _BLOCK_RAISE.replace("position not", "str(position).strip() not")},
        "falls through",
        hidden=True,
    ),
    Mutant("other default", {'position="after_1x1"': 'position="after_add"'}, "that is after_add"),
    Mutant("branch cut off", {_BLOCK_LAST: "out = self.bn3(self.conv3(out.detach()))"}, "cut off"),
    Mutant("shortcut cut off", {_BLOCK_SUM: "out = x.detach() + out"}, "cut off", hidden=True),
    Mutant(
        "a ReLU at the sum",
        {_BLOCK_SUM: "out = (x + out).relu()"},
        "between the addition and the block",
    ),
    Mutant("in place", {_BLOCK_SUM: "out = x.add_(out)"}, "in place"),
    Mutant(
        "other in training",
        {_BLOCK_1X1: _BLOCK_1X1.replace(":\n", " and not self.training:\n", 1)},
        "self.training",
    ),
    Mutant(
        "at the wrong channels",
        {_BLOCK_3X3: "", _BLOCK_1X1: _BLOCK_1X1.replace("==", "!=")},
        "other channels than it was made for",
    ),
    Mutant("clamped", {_BLOCK_END: "return out.clamp(0, 10)"}, "result in training", hidden=True),
    Mutant(
        "one set of layers",
        {
            _BLOCK_MAKE: _BLOCK_MAKE
            + "\n        self.conv1 = kept.setdefault((channels, width), self.conv1)",
            "class Bottle": "kept = {}\n\n\nclass Bottle",
        },
        "layers of their own",
    ),
]

_BLOCK_HEAD = """class BottleneckWithBlock(Bottleneck):
    def __init__(self, channels, width, position="after_1x1", make=Gain):
        super().__init__(channels, width)
"""
_BLOCK_VARIANTS = {
    "a table of channels": _BLOCK_HEAD
    + """        sizes = {"after_3x3": width, "after_1x1": channels, "after_add": channels}
        if position not in sizes:
            raise ValueError("position")
        self.block = make(sizes[position])
        self.where = list(sizes).index(position)

    def forward(self, x):
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.block(out) if self.where == 0 else out
        out = self.bn3(self.conv3(out))
        out = self.block(out) if self.where == 1 else out
        out = out + x
        return torch.relu(self.block(out) if self.where == 2 else out)
""",
    "match": _BLOCK_HEAD
    + """        match position:
            case "after_3x3":
                self.block = make(width)
            case "after_1x1" | "after_add":
                self.block = make(channels)
            case _:
                raise ValueError(position)
        self.position = position

    def at(self, position, x):
        return self.block(x) if position == self.position else x

    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        out = self.bn3(self.conv3(self.at("after_3x3", out)))
        return self.at("after_add", x + self.at("after_1x1", out)).relu()
""",
    "a hook": _BLOCK_HEAD
    + """        places = {"after_3x3": self.conv3, "after_1x1": self.bn3, "after_add": None}
        try:
            place = places[position]
        except KeyError:
            raise ValueError(f"{position} is not a position") from None
        self.block = make(width if place is self.conv3 else channels)
        self.position = position

    def forward(self, x):
        names = ["conv1", "bn1", "relu", "conv2", "bn2", "relu", "after_3x3", "conv3", "bn3", "after_1x1"]
        out = x
        for name in names:
            if name == "relu":
                out = F.relu(out)
            elif name.startswith("after"):
                if name == self.position:
                    out = self.block(out)
            else:
                out = getattr(self, name)(out)
        out = out + x
        if self.position == "after_add":
            out = self.block(out)
        return F.relu(out, inplace=True)
""",
    "layers of its own": """class BottleneckWithBlock(nn.Module):
    def __init__(self, channels, width, position="after_1x1", make=Gain):
        super().__init__()
        if position != "after_3x3" and position != "after_1x1" and position != "after_add":
            raise ValueError
        self.block = make((channels, width)[position == "after_3x3"])
        self.bn3 = nn.BatchNorm2d(channels)
        self.bn2, self.bn1 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(channels, width, kernel_size=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding="same", bias=False)
        self.conv3 = nn.Conv2d(width, channels, kernel_size=1, bias=False)
        self.position = position

    def forward(self, x):
        identity = x
        x = self.bn1(self.conv1(x)).clamp(min=0)
        x = self.bn2(self.conv2(x)).clamp(min=0)
        if self.position == "after_3x3":
            return (self.bn3(self.conv3(self.block(x))) + identity).clamp(min=0)
        x = self.bn3(self.conv3(x))
        if self.position == "after_1x1":
            return (self.block(x) + identity).clamp(min=0)
        return self.block(x + identity).clamp(min=0)
""",
    "three names for one block": _BLOCK_HEAD
    + """        if position == "after_3x3":
            self.block = make(width)
        elif position in {"after_1x1", "after_add"}:
            self.block = make(channels)
        else:
            raise ValueError(f"no position {position}")
        same = nn.Identity()
        self.first = self.block if position == "after_3x3" else same
        self.second = self.block if position == "after_1x1" else same
        self.third = self.block if position == "after_add" else same

    def forward(self, x):
        out = self.bn1(self.conv1(x)).relu()
        out = self.first(self.bn2(self.conv2(out)).relu())
        return self.third(x + self.second(self.bn3(self.conv3(out)))).relu()
""",
}

_INSERT_LOAD = "            new.load_state_dict(old.state_dict(), strict=False)\n"
_INSERT_NEW = "new = BottleneckWithBlock(old.conv1.in_channels, old.conv1.out_channels, make=make)"
_INSERT_STAGE = """        if stage not in ("c3", "c4", "c5"):
            raise ValueError(f"stage {stage!r}")
"""
_INSERT_INDEX = """        if index is not None and not -len(layers) <= index < len(layers):
            raise ValueError(f"index {index} of {stage}")
"""
_INSERT_NUMBERS = "range(len(layers)) if index is None else [index % len(layers)]"

_INSERT_MUTANTS = [
    Mutant("fresh weights", {_INSERT_LOAD: ""}, "has random weights"),
    Mutant(
        "parameters alone",
        {
            _INSERT_LOAD: "            new.load_state_dict(dict(old.named_parameters()), strict=False)\n"
        },
        "running mean and variance",
    ),
    Mutant(
        "convolutions alone",
        {
            _INSERT_LOAD: "            new.conv1, new.conv2, new.conv3 = old.conv1, old.conv2, old.conv3\n"
        },
        "only the norms were not copied",
    ),
    Mutant(
        "convolutions drawn anew",
        {_INSERT_LOAD: _INSERT_LOAD + "            nn.init.kaiming_normal_(new.conv2.weight)\n"},
        "some weights are drawn anew",
    ),
    Mutant(
        "copied the wrong way",
        {_INSERT_LOAD: "            old.load_state_dict(new.state_dict(), strict=False)\n"},
        "has random weights",
    ),
    Mutant("not put back", {"            layers[number] = new\n": ""}, "there is no block"),
    Mutant("never the last", {"range(len(layers))": "range(len(layers) - 1)"}, "the last one too"),
    Mutant("index ignored", {_INSERT_NUMBERS: "range(len(layers))"}, "the index is ignored"),
    Mutant(
        "stages ignored",
        {"for stage in stages": 'for stage in ("c3", "c4", "c5")'},
        "a stage that was not asked for",
    ),
    Mutant(
        "absolute index",
        {"[index % len(layers)]": "[abs(index) % len(layers)]"},
        "counts from the end",
    ),
    Mutant(
        "one too far",
        {"[index % len(layers)]": "[(index - 1) % len(layers)]"},
        "counts from",
    ),
    Mutant(
        "counts over the network",
        {"[index % len(layers)]": "[(index + (stage == 'c4') - (stage == 'c5')) % len(layers)]"},
        "counts from",
    ),
    Mutant(
        "return in the loop",
        {"layers[number] = new": "layers[number] = new\n        return net"},
        "does return stand inside",
    ),
    Mutant(
        "return in both loops",
        {"layers[number] = new": "layers[number] = new\n            return net"},
        "shared by several places",
    ),
    Mutant(
        "one block for all",
        {
            "net = TinyResNet()": "net = TinyResNet()\n    shared = make(6)",
            "            layers[number] = new": "            new.block = shared\n            layers[number] = new",
        },
        "shared by several places",
    ),
    Mutant(
        "wrapped",
        {
            "layers[number] = new": "layers[number] = nn.Sequential(old, make(old.conv1.in_channels))",
        },
        "do not wrap",
    ),
    Mutant(
        "a list of layers",
        {"layers = getattr(net, stage)": "layers = list(getattr(net, stage))"},
        "there is no block",
    ),
    Mutant(
        "appended",
        {"layers[number] = new": "layers.append(new)"},
        "a stage has grown",
    ),
    Mutant(
        "behind the addition",
        {_INSERT_NEW: _INSERT_NEW.replace("make=make", '"after_add", make=make')},
        "a block multiplies what the last norm gives",
    ),
    Mutant(
        "after the 3x3",
        {_INSERT_NEW: _INSERT_NEW.replace("make=make", '"after_3x3", make=make')},
        "got          c3.0.block.g (3,)\n",
    ),
    Mutant(
        "make ignored", {_INSERT_NEW: _INSERT_NEW.replace(", make=make", "")}, "make is ignored"
    ),
    Mutant(
        "not the identity",
        {_INSERT_LOAD: _INSERT_LOAD + "            nn.init.ones_(new.block.g)\n"},
        "starts as the identity by itself",
    ),
    Mutant(
        "frozen",
        {_INSERT_LOAD: _INSERT_LOAD + "            new.block.requires_grad_(False)\n"},
        "requires_grad is off",
    ),
    Mutant(
        "frozen layers",
        {"net = TinyResNet()": "net = TinyResNet()\n    net.stem.requires_grad_(False)"},
        "requires_grad=False for stem.weight\n",
    ),
    Mutant(
        "all frozen but the blocks",
        {
            "net = TinyResNet()": "net = TinyResNet().requires_grad_(False)",
            "            layers[number] = new\n": "            layers[number] = new.requires_grad_(False)\n"
            "            new.block.requires_grad_(True)\n",
        },
        "requires_grad=False for stem.weight, c3.0.conv1.weight, c3.0.bn1.weight and 63 more",
    ),
    Mutant("strict", {", strict=False": ""}, "has no numbers for the block"),
    Mutant(
        "sizes exchanged",
        {"old.conv1.in_channels, old.conv1.out": "old.conv1.out_channels, old.conv1.in"},
        "other sizes than the old one",
    ),
    Mutant("no getattr", {"getattr(net, stage)": "net.stage"}, "stage is a string"),
    Mutant("an index of the network", {"getattr(net, stage)": "net[stage]"}, "stage is a string"),
    Mutant("make as position", {", make=make)": ", make)"}, "is its position: write make=make"),
    Mutant(
        "no negative index",
        {"not -len(layers) <= index": "not 0 <= index"},
        "these stages and this index exist",
    ),
    Mutant("no places", {"[index % len(layers)]": "range(index)"}, "counts from the end"),
    Mutant("0 is false", {"if index is None else": "if not index else"}, "0 is an index too"),
    Mutant("returns a list", {"return net": "return [net]"}, "something else than the network"),
    Mutant(
        "a default of one stage",
        {'stages=("c3", "c4", "c5"), index': 'stages=("c4",), index'},
        "the defaults were changed",
    ),
    Mutant(
        "a default of two stages",
        {'stages=("c3", "c4", "c5"), index': 'stages=("c4", "c5"), index'},
        "without arguments",
    ),
    Mutant("a default index", {"index=None, make": "index=-1, make"}, "the defaults were changed"),
    Mutant("any stage", {_INSERT_STAGE: ""}, "asks for a ValueError"),
    Mutant(
        "unknown stage skipped",
        {'raise ValueError(f"stage {stage!r}")': "continue"},
        "an unknown stage",
    ),
    Mutant("any index", {_INSERT_INDEX: ""}, "no residual block of this index"),
    Mutant(
        "IndexError",
        {_INSERT_INDEX: "", "[index % len(layers)]": "[range(len(layers))[index]]"},
        "asks for a ValueError",
    ),
    Mutant("one too many", {"index < len": "index <= len"}, "no residual block of this index"),
    Mutant(
        "below the stage",
        {"not -len(layers) <= index": "not -9 <= index"},
        "no residual block of this index",
    ),
    Mutant(
        "clamped index",
        {
            _INSERT_INDEX: "        if index is not None:\n            index = max(-len(layers), min(index, len(layers) - 1))\n"
        },
        "no residual block of this index",
    ),
    Mutant(
        "a short stage is skipped",
        {f"{_INSERT_INDEX.splitlines()[1]}": "            continue"},
        "no residual block of this index",
    ),
    Mutant(
        "far index",
        {"index < len(layers)": "index < 9 + len(layers) * (index < 50)"},
        "no residual block of this index",
    ),
    Mutant(
        "drawn anew",
        {"net = TinyResNet()": "net = TinyResNet()\n    nn.init.normal_(net.fc.bias)"},
        "stem and fc stay those of TinyResNet()",
    ),
    Mutant("not returned", {"return net": "net"}, "without return net"),
    Mutant(
        "the last stage alone is in the path",
        {
            "return net": "net.forward = lambda images: net.fc(net.c5(net.c4(net.c3(net.stem(images.detach())))).mean(dim=(2, 3)))\n    return net"
        },
        "cut off",
    ),
    Mutant(
        "half a stage name",
        {'not in ("c3", "c4", "c5")': 'not in "c3 c4 c5"'},
        "asks for a ValueError",
        hidden=True,
    ),
    Mutant(
        "first stage decides",
        {"index is not None and": "index is not None and stage == stages[0] and"},
        "no residual block of this index",
    ),
]

_INSERT_VARIANTS = {
    "layers moved": """def with_blocks(stages=("c3", "c4", "c5"), index=None, make=Gain):
    sizes = {"c3": 2, "c4": 3, "c5": 2}
    net = TinyResNet()
    for stage in stages:
        if stage not in sizes:
            raise ValueError(stage)
        every = list(range(sizes[stage]))
        try:
            chosen = every if index is None else [every[index]]
        except IndexError:
            raise ValueError(f"no residual block {index}") from None
        for i in chosen:
            old = getattr(net, stage)[i]
            new = BottleneckWithBlock(6, 3, "after_1x1", make)
            for name in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3"):
                new.add_module(name, getattr(old, name))
            getattr(net, stage)[i] = new
    return net
""",
    "its own class": """class Wider(Bottleneck):
    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (x + self.block(self.bn3(self.conv3(out)))).relu()


def with_blocks(stages=("c3", "c4", "c5"), index=None, make=Gain):
    net = TinyResNet()
    if not set(stages) <= {"c3", "c4", "c5"}:
        raise ValueError("stages")
    for stage in set(stages):
        layers = net.get_submodule(stage)
        if index is not None and index not in range(-len(layers), len(layers)):
            raise ValueError("index")
        for layer in layers if index is None else [layers[index]]:
            layer.block = make(layer.conv3.out_channels)
            layer.__class__ = Wider
    return net
""",
    "a new Sequential": """def with_blocks(stages=("c3", "c4", "c5"), index=None, make=Gain):
    net = TinyResNet()
    for stage in stages:
        if stage != "c3" and stage != "c4" and stage != "c5":
            raise ValueError(f"{stage}?")
        blocks = list(getattr(net, stage).children())
        if index is None:
            places = set(range(len(blocks)))
        elif index >= len(blocks) or index + len(blocks) < 0:
            raise ValueError(f"{index}?")
        else:
            places = {index if index >= 0 else len(blocks) + index}
        new = []
        for i, block in enumerate(blocks):
            if i in places:
                better = BottleneckWithBlock(6, 3, make=make)
                missing, unexpected = better.load_state_dict(block.state_dict(), strict=False)
                assert not unexpected
                block = better
            new.append(block)
        net.add_module(stage, nn.Sequential(*new))
    return net
""",
    "setattr": """def with_blocks(stages=("c3", "c4", "c5"), index=None, make=Gain):
    net = TinyResNet()
    for stage in stages:
        if stage not in ("c3", "c4", "c5"):
            raise ValueError(f"no stage {stage}")
        blocks = list(getattr(net, stage))
        chosen = list(range(len(blocks)))
        if index is not None:
            if index < -len(blocks) or index >= len(blocks):
                raise ValueError(f"no index {index}")
            chosen = [chosen[index]]
        for i in chosen:
            new = BottleneckWithBlock(6, 3, make=make)
            new.load_state_dict({**new.state_dict(), **blocks[i].state_dict()})
            blocks[i] = new
        setattr(net, stage, nn.Sequential(*blocks))
    return net
""",
    "state of the whole network": """def with_blocks(stages=("c3", "c4", "c5"), index=None, make=Gain):
    net = TinyResNet()
    state = net.state_dict()
    for stage in stages:
        if stage not in ["c3", "c4", "c5"]:
            raise ValueError("a stage is c3, c4 or c5")
        layers = getattr(net, stage)
        n = len(layers)
        numbers = [i for i in range(n) if index is None or index in (i, i - n)]
        if not numbers:
            raise ValueError(f"{stage} has {n} residual blocks")
        for i in numbers:
            layers[i] = BottleneckWithBlock(net.fc.in_features, 3, make=make)
    net.load_state_dict(state, strict=False)
    return net
""",
}

_IDENTITY_LOOP = """    for module in net.modules():
        if isinstance(module, TinyGC):
            nn.init.zeros_(module.expand.weight)
            nn.init.zeros_(module.expand.bias)
"""
_IDENTITY_WEIGHT = "            nn.init.zeros_(module.expand.weight)\n"
_IDENTITY_BIAS = "            nn.init.zeros_(module.expand.bias)\n"
_IDENTITY_INIT = "    initialise(net)\n"

_IDENTITY_MUTANTS = [
    Mutant("nothing", {_IDENTITY_LOOP: ""}, "initialise() wrote over the zeros"),
    Mutant(
        "zeros first",
        {_IDENTITY_LOOP: _IDENTITY_LOOP + "    initialise(net)\n"},
        "initialise() wrote over the zeros",
    ),
    Mutant("weight alone", {_IDENTITY_BIAS: ""}, "the bias of the last layer is not zero"),
    Mutant("bias alone", {_IDENTITY_WEIGHT: ""}, "the weight of the last layer is not zero"),
    Mutant(
        "zero_ with gradients",
        {"nn.init.zeros_(module.expand.weight)": "module.expand.weight.zero_()"},
        "inside of torch.no_grad()",
    ),
    Mutant(
        "first block alone",
        {_IDENTITY_BIAS: _IDENTITY_BIAS + "            break\n"},
        "only one of the two blocks",
    ),
    Mutant(
        "whole block",
        {
            _IDENTITY_WEIGHT: "            for parameter in module.parameters():\n"
            "                nn.init.zeros_(parameter)\n"
        },
        "it keeps its numbers",
    ),
    Mutant(
        "reduce too",
        {_IDENTITY_BIAS: _IDENTITY_BIAS + "            nn.init.zeros_(module.reduce.weight)\n"},
        "would never learn",
    ),
    Mutant(
        "norm of the block",
        {_IDENTITY_BIAS: _IDENTITY_BIAS + "            nn.init.zeros_(module.norm.weight)\n"},
        "blocks the gradient",
    ),
    Mutant(
        "norm in place of the last layer",
        {"module.expand.weight": "module.norm.weight", "module.expand.bias": "module.norm.bias"},
        "initialise() wrote over the zeros",
    ),
    Mutant(
        "last norms of the branches",
        {
            _IDENTITY_LOOP: _IDENTITY_LOOP
            + "    nn.init.zeros_(net.first.bn3.weight)\n    nn.init.zeros_(net.second.bn3.weight)\n"
        },
        "silences a residual branch",
    ),
    Mutant(
        "classifier",
        {_IDENTITY_LOOP: _IDENTITY_LOOP + "    nn.init.zeros_(net.fc.weight)\n"},
        "last layer of the network, not of a block",
    ),
    Mutant(
        "every linear layer",
        {"isinstance(module, TinyGC)": "isinstance(module, nn.Linear)", "module.expand": "module"},
        "would never learn",
    ),
    Mutant(
        "every convolution",
        {_IDENTITY_LOOP: _IDENTITY_LOOP + "    nn.init.zeros_(net.first.conv1.weight)\n"},
        "this one keeps its random numbers",
    ),
    Mutant(
        "biases of the block",
        {_IDENTITY_BIAS: _IDENTITY_BIAS + "            nn.init.zeros_(module.key.bias)\n"},
        "it keeps its numbers",
    ),
    Mutant(
        "small",
        {"nn.init.zeros_(module.expand.weight)": "nn.init.normal_(module.expand.weight, std=1e-6)"},
        "the weight of the last layer is not zero",
    ),
    Mutant("without initialise", {_IDENTITY_INIT: ""}, "PyTorch's default"),
    Mutant(
        "blocks made anew",
        {_IDENTITY_LOOP: "    net.gc1, net.gc2 = TinyGC(6), TinyGC(6)\n"},
        "PyTorch's default",
    ),
    Mutant(
        "blocks reset",
        {_IDENTITY_BIAS: _IDENTITY_BIAS + "            module.key.reset_parameters()\n"},
        "PyTorch's default",
    ),
    Mutant(
        "blocks removed",
        {_IDENTITY_LOOP: "    net.gc1, net.gc2 = nn.Identity(), nn.Identity()\n"},
        "a GC block is gone",
    ),
    Mutant(
        "frozen",
        {_IDENTITY_BIAS: _IDENTITY_BIAS + "            module.expand.requires_grad_(False)\n"},
        "requires_grad=False for gc1.expand.weight, gc1.expand.bias",
    ),
    Mutant(
        "seeded",
        {"    net = TinyGCNet()\n": "    torch.manual_seed(0)\n    net = TinyGCNet()\n"},
        "a seed",
    ),
    Mutant(
        "kept",
        {
            "def network": "kept = []\n\n\ndef network",
            "    return net": "    kept.append(net)\n    return kept[0]",
        },
        "a seed",
    ),
    Mutant(
        "scaled",
        {_IDENTITY_LOOP: _IDENTITY_LOOP + "    net.stem.weight.data *= 2\n"},
        "once is enough",
    ),
    Mutant(
        "forward replaced",
        {_IDENTITY_LOOP: _IDENTITY_LOOP + "    net.gc1.forward = lambda x: x\n"},
        "something cuts the blocks off",
    ),
    Mutant("not returned", {"return net": "net"}, "without return net"),
    Mutant(
        "shifts of the norms",
        {_IDENTITY_LOOP: _IDENTITY_LOOP + "    nn.init.normal_(net.first.bn1.bias)\n"},
        "leaves norms alone",
    ),
    Mutant(
        "large biases",
        {_IDENTITY_BIAS: _IDENTITY_BIAS + "            module.reduce.bias.data *= 4\n"},
        "only the biases of the last layers",
        hidden=True,
    ),
]

_IDENTITY_VARIANTS = {
    "by name": """def network_from_scratch():
    net = TinyGCNet()
    initialise(net)
    for block in (net.gc1, net.gc2):
        for parameter in block.expand.parameters():
            parameter.data.zero_()
    return net
""",
    "names of parameters": """def network_from_scratch():
    net = TinyGCNet()
    initialise(net)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if ".expand." in name:
                parameter.fill_(0)
    return net
""",
    "a new last layer": """def network_from_scratch():
    net = TinyGCNet()
    initialise(net)
    for block in net.children():
        if hasattr(block, "expand"):
            fresh = nn.Linear(4, block.expand.out_features)
            nn.init.constant_(fresh.weight, 0.0)
            nn.init.constant_(fresh.bias, 0.0)
            block.expand = fresh
    return net
""",
    "zeros kept": """def network_from_scratch():
    net = TinyGCNet()
    zeros = {k: v.clone() for k, v in net.state_dict().items() if "expand" in k}
    initialise(net)
    net.load_state_dict(zeros, strict=False)
    return net
""",
    "apply": """def network_from_scratch():
    def zero(module):
        if type(module).__name__ == "TinyGC":
            module.expand.weight = nn.Parameter(torch.zeros(6, 4))
            module.expand.bias = nn.Parameter(torch.zeros(6))

    net = TinyGCNet()
    initialise(net)
    return net.apply(zero)
""",
}

_STAGE_LATER = "channels = inputs if number == 0 else outputs"
_STAGE_LAYERS = "one, three, last = channels * width, 9 * width * width, width * outputs"
_STAGE_SUM = "parameters += one + three + last + 2 * (width + width + outputs)"
_STAGE_ENTER = 'entering = size**2 if number == 0 and stride_in == "3x3" else half'
_STAGE_WORK = "multiply_adds += one * entering + (three + last) * half"
_STAGE_CUT = "            parameters += channels * outputs + 2 * outputs\n"
_STAGE_CUT_WORK = "            multiply_adds += channels * outputs * half\n"
_STAGE_RETURN = "return parameters, multiply_adds"

_STAGE_MUTANTS = [
    Mutant(
        "no norms",
        {" + 2 * (width + width + outputs)": "", " + 2 * outputs": ""},
        "the norms are missing",
    ),
    Mutant(
        "norms of one number",
        {
            "2 * (width + width + outputs)": "(width + width + outputs)",
            "+ 2 * outputs": "+ outputs",
        },
        "a scale and a shift",
    ),
    Mutant("no norm on the shortcut", {" + 2 * outputs": ""}, "the norm on the shortcut"),
    Mutant(
        "no shortcut",
        {_STAGE_CUT: "            pass\n", _STAGE_CUT_WORK: ""},
        "the shortcut of the first residual block is missing",
    ),
    Mutant(
        "shortcut without parameters",
        {_STAGE_CUT: ""},
        "the shortcut of the first residual block is missing",
    ),
    Mutant(
        "shortcut without work",
        {_STAGE_CUT_WORK: ""},
        "the shortcut of the first residual block is missing",
    ),
    Mutant(
        "biases",
        {
            "2 * (width + width + outputs)": "3 * (width + width + outputs)",
            "+ 2 * outputs": "+ 3 * outputs",
        },
        "have no biases",
    ),
    Mutant(
        "a shortcut everywhere",
        {"        if number == 0:\n": "        if True:\n"},
        "only the first residual block has a convolution on its shortcut",
    ),
    Mutant(
        "a shortcut from inputs everywhere",
        {
            _STAGE_RETURN: "parameters += (blocks - 1) * (inputs * outputs + 2 * outputs)\n"
            "    multiply_adds += (blocks - 1) * inputs * outputs * half\n"
            "    return parameters, multiply_adds"
        },
        "only the first residual block has a convolution on its shortcut",
    ),
    Mutant(
        "the work of a shortcut everywhere",
        {
            _STAGE_RETURN: "multiply_adds += (blocks - 1) * inputs * outputs * half\n"
            "    return parameters, multiply_adds"
        },
        "only the first residual block has a convolution on its shortcut",
    ),
    Mutant("always inputs", {_STAGE_LATER: "channels = inputs"}, "4·width channels enter"),
    Mutant(
        "never inputs",
        {"channels * width, 9": "outputs * width, 9"},
        "`inputs` channels enter it",
    ),
    Mutant("outputs everywhere", {_STAGE_LATER: "channels = outputs"}, "one by one"),
    Mutant("3 for 3×3", {"9 * width": "3 * width"}, "a 3×3 filter has 9 numbers"),
    Mutant("depthwise", {"9 * width * width": "9 * width"}, "for each input channel and place"),
    Mutant(
        "one block",
        {"for number in range(blocks)": "for number in range(1)"},
        "the residual blocks behind the first are missing",
    ),
    Mutant(
        "narrow result",
        {"width * outputs": "width * width", "width + width + outputs": "3 * width"},
        "gives 4·width channels",
    ),
    Mutant("strides exchanged", {'"3x3" else': '"1x1" else'}, "this is the stride in the 3×3"),
    Mutant("always the 1×1", {_STAGE_ENTER: "entering = half"}, "this is the stride in the 1×1"),
    Mutant("no halving", {"(size // 2) ** 2": "size**2"}, "positions"),
    Mutant("not squared", {"(size // 2) ** 2": "size // 2"}, "not size / 2"),
    Mutant(
        "large shortcut",
        {"channels * outputs * half": "channels * outputs * size**2"},
        "the shortcut has a stride too",
    ),
    Mutant(
        "large 3×3",
        {
            _STAGE_WORK: "multiply_adds += one * entering + last * half\n"
            "        multiply_adds += three * (size**2 if number == 0 else half)"
        },
        "(size / 2)² output positions",
    ),
    Mutant(
        "always large",
        {"number == 0 and stride_in": "stride_in"},
        "only the first residual block has a stride",
    ),
    Mutant("twice", {_STAGE_RETURN: "return parameters, 2 * multiply_adds"}, "counts 1, not 2"),
    Mutant("work without the first 1×1", {"one * entering + ": ""}, "first 1×1 convolutions"),
    Mutant(
        "norms count",
        {
            _STAGE_WORK: _STAGE_WORK + "\n        multiply_adds += 6 * width * half",
            _STAGE_CUT_WORK: _STAGE_CUT_WORK + "            multiply_adds += outputs * half\n",
        },
        "norms are free",
    ),
    Mutant(
        "norms count twice",
        {
            _STAGE_RETURN: "multiply_adds += 2 * half * (blocks * 6 * width + outputs)\n"
            "    return parameters, multiply_adds"
        },
        "norms are free",
    ),
    Mutant(
        "every parameter at every position",
        {
            _STAGE_RETURN: "large = one * 0 + inputs * width * (size**2 - half)\n"
            "    return parameters, parameters * half + large * (stride_in == '3x3')"
        },
        "norms are free",
    ),
    Mutant(
        "norms of the branch count",
        {_STAGE_WORK: _STAGE_WORK + "\n        multiply_adds += 6 * width * half"},
        "norms are free",
    ),
    Mutant(
        "a norm counts on the large map",
        {
            _STAGE_WORK: _STAGE_WORK + "\n        multiply_adds += width * entering"
            " + 5 * width * half",
            _STAGE_CUT_WORK: _STAGE_CUT_WORK + "            multiply_adds += outputs * half\n",
        },
        "norms are free",
    ),
    Mutant("exchanged", {_STAGE_RETURN: "return multiply_adds, parameters"}, "parameters first"),
    Mutant("one number", {_STAGE_RETURN: "return parameters"}, "two ints"),
    Mutant("float", {"size // 2": "size / 2"}, "divide with //"),
    Mutant(
        "printed", {_STAGE_RETURN: "print(parameters, multiply_adds)"}, "without a return statement"
    ),
    Mutant("something else", {"9 * width": "10 * width"}, "one by one"),
    Mutant(
        "a default of 3x3",
        {'stride_in="1x1"': 'stride_in="3x3"'},
        "the default of stride_in was changed",
    ),
]
_STAGE_VARIANTS = {
    "in one formula": """def count_stage(inputs, width, blocks, size, stride_in="1x1"):
    o, h = 4 * width, size * size // 4
    weights = inputs * (width + o) + blocks * (9 * width**2 + 4 * width**2)
    weights += (blocks - 1) * o * width
    norms = blocks * 12 * width + 8 * width
    extra = inputs * width * 3 * h if stride_in == "3x3" else 0
    return weights + norms, weights * h + extra
""",
    "by building": """def count_stage(inputs, width, blocks, size, stride_in="1x1"):
    total = work = 0
    first, second = (2, 1) if stride_in == "1x1" else (1, 2)
    x = torch.empty(1, inputs, size, size, device="meta")
    with torch.device("meta"):
        for n in range(blocks):
            s1, s2 = (first, second) if n == 0 else (1, 1)
            chain = [nn.Conv2d(x.shape[1], width, 1, stride=s1, bias=False),
                     nn.Conv2d(width, width, 3, stride=s2, padding=1, bias=False),
                     nn.Conv2d(width, 4 * width, 1, bias=False)]
            y = x
            for layer in chain:
                y = layer(y)
                total += layer.weight.numel() + 2 * y.shape[1]
                work += layer.weight.numel() * y.shape[2] * y.shape[3]
            if n == 0:
                total += x.shape[1] * y.shape[1] + 2 * y.shape[1]
                work += x.shape[1] * y.shape[1] * y.shape[2] * y.shape[3]
            x = y
    return total, work
""",
    "a list of layers": """def count_stage(inputs, width, blocks, size, stride_in="1x1"):
    half, out = (size // 2) * (size // 2), width * 4
    large = size * size if stride_in == "3x3" else half
    layers = [(inputs, width, 1, large), (inputs, out, 1, half)]
    layers += [(out, width, 1, half)] * (blocks - 1)
    layers += [(width, width, 9, half), (width, out, 1, half)] * blocks
    return (sum(i * o * k + 2 * o for i, o, k, n in layers),
            sum(i * o * k * n for i, o, k, n in layers))
""",
    "two functions' worth": """def count_stage(inputs, width, blocks, size, stride_in="1x1"):
    def block(channels):
        return channels * width + 9 * width ** 2 + width * 4 * width
    out, half = width * 4, int(size / 2) ** 2
    weights = block(inputs) + (blocks - 1) * block(out) + inputs * out
    parameters = weights + 2 * out + blocks * 2 * (2 * width + out)
    multiply_adds = weights * half
    if stride_in != "1x1":
        multiply_adds += inputs * width * (size ** 2 - half)
    return [parameters, multiply_adds]
""",
}

_LAYER_LOOP = "for size in weight[1:]:"
_LAYER_RETURN = "return results * filter_size"
_LAYER_MUTANTS = [
    Mutant("whole weight", {"weight[1:]": "weight"}, "C_out is counted twice"),
    Mutant("one image", {"in output:": "in output[1:]:"}, "the images of a batch"),
    Mutant("biases", {_LAYER_RETURN: "return results * (filter_size + 1)"}, "biases are free"),
    Mutant("two", {_LAYER_RETURN: "return 2 * results * filter_size"}, "counts 1, not 2"),
    Mutant(
        "additions apart",
        {_LAYER_RETURN: "return results * (2 * filter_size - 1)"},
        "two for each product but the first",
    ),
    Mutant("no positions", {"in output:": "in output[:2]:"}, "the positions of the result"),
    Mutant("no kernel", {"weight[1:]": "weight[1:2]"}, "the kernel is missing"),
    Mutant("no inputs", {"weight[1:]": "weight[2:]"}, "C_in is missing"),
    Mutant("one channel", {"in output:": "in output[2:]:"}, "one image and one output channel"),
    Mutant("sum of a filter", {"filter_size *= size": "filter_size += size"}, "a filter are added"),
    Mutant(
        "sum",
        {_LAYER_RETURN: "return results * sum(weight[1:])"},
        "the weight are added",
    ),
    Mutant(
        "sum of the result",
        {_LAYER_RETURN: "return filter_size * sum(output)"},
        "the result are added",
    ),
    Mutant("only the result", {_LAYER_RETURN: "return results"}, "only the numbers of the result"),
    Mutant(
        "the weights",
        {_LAYER_RETURN: "return filter_size * weight[0]"},
        "each is used at every position",
    ),
    Mutant(
        "square kernels",
        {
            _LAYER_RETURN: "k = weight[2] ** 2 if len(weight) > 2 else 1\n"
            "    return results * weight[1] * k"
        },
        "the kernel is square in 2D alone",
    ),
    Mutant("two axes", {"in output:": "in output[:4]:"}, "only two axes of positions"),
    Mutant("kernel of a line", {"weight[1:]": "weight[1:3]"}, "last axis of the kernel"),
    Mutant("rows alone", {"in output:": "in output[:-1]:"}, "last axis of the result"),
    Mutant("float", {_LAYER_RETURN: "return results / 1 * filter_size"}, "nothing is divided"),
    Mutant(
        "printed", {_LAYER_RETURN: "print(results * filter_size)"}, "without a return statement"
    ),
    Mutant("a tuple", {_LAYER_RETURN: "return results, filter_size"}, "as an int"),
    Mutant("no 3D", {_LAYER_RETURN: f"if len(weight) < 5:\n        {_LAYER_RETURN}"}, "of 5 axes"),
    Mutant(
        "a tensor",
        {_LAYER_RETURN: "return torch.tensor(results * filter_size)"},
        "not a tensor",
    ),
    Mutant(
        "no import",
        {_LAYER_RETURN: "return math.prod(weight[1:]) * math.prod(output)"},
        "import math",
    ),
    Mutant(
        "four axes",
        {"    filter_size = 1\n": "    filter_size = 1\n    _, c, height, wide = weight\n"},
        "this shape has 5 axes",
    ),
    Mutant(
        "a kernel by number",
        {_LAYER_RETURN: "return results * weight[1] * weight[2] * (weight + (1, 1))[3]"},
        "the last axis of the kernel",
    ),
    Mutant(
        "two axes of a kernel",
        {_LAYER_RETURN: "return results * weight[1] * weight[2] * weight[3] * (weight + (1,))[4]"},
        "this shape has 3 axes, (3, 2, 5)",
    ),
    Mutant(
        "tensors expected",
        {_LAYER_RETURN: "return weight.numel() * results // weight.shape[0]"},
        "tuples of ints",
    ),
    Mutant(
        "groups undone",
        {_LAYER_RETURN: "return results * filter_size * (6 if weight[1] == 1 else 1)"},
        "C_out is counted twice",
    ),
]
_LAYER_VARIANTS = {
    "math.prod": "import math\n\ndef layer_multiply_adds(weight, output):\n"
    "    return math.prod(output) * math.prod(weight[1:])\n",
    "torch.Size": "def layer_multiply_adds(weight, output):\n"
    "    return torch.Size(weight[1:]).numel() * torch.Size(output).numel()\n",
    "weights at every position": "def layer_multiply_adds(weight, output):\n    n = 1\n"
    "    for size in (*weight, output[0], *output[2:]):\n        n *= size\n    return n\n",
    "reduce": "from functools import reduce\n\ndef layer_multiply_adds(weight, output):\n"
    "    return reduce(lambda a, b: a * b, list(output) + list(weight)[1:])\n",
    "named": "def layer_multiply_adds(weight, output):\n    _, c_in, *kernel = weight\n"
    "    n, c_out, *positions = output\n    found = n * c_out * c_in\n"
    "    for size in kernel + positions:\n        found = found * size\n    return int(found)\n",
}

_ROOF_TIMES = "compute, memory = multiply_adds / peak, bytes_moved / bandwidth"
_ROOF_RETURN = 'return (compute, "compute") if compute >= memory else (memory, "memory")'
_ROOF_MUTANTS = [
    Mutant("the shorter", {"compute >= memory": "compute < memory"}, "the longer of the two times"),
    Mutant(
        "sum",
        {
            '(compute, "compute")': '(compute + memory, "compute")',
            '(memory, "memory")': '(compute + memory, "memory")',
        },
        "are not added",
    ),
    Mutant("no bandwidth", {"bytes_moved / bandwidth": "bytes_moved"}, "the bandwidth is missing"),
    Mutant("no peak", {"multiply_adds / peak": "multiply_adds"}, "the peak is missing"),
    Mutant(
        "speeds exchanged",
        {_ROOF_TIMES: "compute, memory = multiply_adds / bandwidth, bytes_moved / peak"},
        "peak and bandwidth are exchanged",
    ),
    Mutant("arithmetic alone", {"(memory, ": "(compute, "}, "the longer of the two times"),
    Mutant("traffic alone", {"(compute, ": "(memory, "}, "the longer of the two times"),
    Mutant(
        "multiplied",
        {_ROOF_TIMES: "compute, memory = multiply_adds * peak, bytes_moved * bandwidth"},
        "multiplied",
    ),
    Mutant(
        "mean",
        {
            '(compute, "compute")': '((compute + memory) / 2, "compute")',
            '(memory, "memory")': '((compute + memory) / 2, "memory")',
        },
        "the mean of the two",
    ),
    Mutant(
        "whole seconds",
        {_ROOF_TIMES: "compute, memory = multiply_adds // peak, bytes_moved // bandwidth"},
        "rounded down",
    ),
    Mutant("twice", {"multiply_adds / peak": "2 * multiply_adds / peak"}, "counts 1, not 2"),
    Mutant(
        "words exchanged",
        {
            '(compute, "compute")': '(compute, "memory")',
            '(memory, "memory")': '(memory, "compute")',
        },
        "the limit is what takes longer",
    ),
    Mutant("tie", {">=": ">"}, "both take the same"),
    Mutant("other words", {'"compute")': '"arithmetic")'}, "the words are"),
    Mutant(
        "limit first",
        {
            '(compute, "compute")': '("compute", compute)',
            '(memory, "memory")': '("memory", memory)',
        },
        "seconds first",
    ),
    Mutant("seconds alone", {_ROOF_RETURN: "return max(compute, memory)"}, "return a pair"),
    Mutant("a set", {_ROOF_RETURN: 'return {compute, "compute"}'}, "got          a set\n"),
    Mutant("printed", {_ROOF_RETURN: "print(max(compute, memory))"}, "without a return statement"),
    Mutant(
        "the wrong way up",
        {_ROOF_TIMES: "compute, memory = peak / (multiply_adds or 1e99), bandwidth / bytes_moved"},
        "upside down",
    ),
    Mutant(
        "something else", {"multiply_adds / peak": "1.1 * multiply_adds / peak"}, "the longer of"
    ),
]
_ROOF_VARIANTS = {
    "max": "def lower_bound(multiply_adds, bytes_moved, peak, bandwidth):\n"
    "    a, m = multiply_adds / peak, bytes_moved / bandwidth\n"
    "    return max(a, m), 'memory' if m > a else 'compute'\n",
    "max of pairs": "def lower_bound(multiply_adds, bytes_moved, peak, bandwidth):\n"
    "    times = [(multiply_adds / peak, 'compute'), (bytes_moved / bandwidth, 'memory')]\n"
    "    return max(times, key=lambda pair: pair[0])\n",
    "if": "def lower_bound(multiply_adds, bytes_moved, peak, bandwidth):\n"
    "    seconds, limit = multiply_adds / peak, 'compute'\n"
    "    if bytes_moved / bandwidth > seconds:\n"
    "        seconds, limit = bytes_moved / bandwidth, 'memory'\n    return seconds, limit\n",
    "a dict": "def lower_bound(multiply_adds, bytes_moved, peak, bandwidth):\n"
    "    t = {'compute': multiply_adds / peak, 'memory': bytes_moved / bandwidth}\n"
    "    limit = max(t, key=t.get)\n    return [float(t[limit]), limit]\n",
}

MUTANTS = {
    "c06-e1": _BLOCK_MUTANTS,
    "c06-e2": _INSERT_MUTANTS,
    "c06-e3": _IDENTITY_MUTANTS,
    "c06-e4": _STAGE_MUTANTS,
    "c06-e5": _LAYER_MUTANTS,
    "c06-e6": _ROOF_MUTANTS,
}
VARIANTS = {
    "c06-e1": _BLOCK_VARIANTS,
    "c06-e2": _INSERT_VARIANTS,
    "c06-e3": _IDENTITY_VARIANTS,
    "c06-e4": _STAGE_VARIANTS,
    "c06-e5": _LAYER_VARIANTS,
    "c06-e6": _ROOF_VARIANTS,
}
