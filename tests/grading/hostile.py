"""A class that tries everything: each submission is named for what it does.

All are of chapter 00, whose four exercises take a second. ``X`` stands for an answer that steals,
breaks or forges in place of ``c00-e1``; where that is all it does, the other three exercises are
right and must keep their points.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from classroom import index_of, replace
from mutants.answers import references

from gclib.checks.cells import source_of
from gclib.grading.notebooks import grade_metadata

GOOD = references("00")
E1, E2, E3, E4 = GOOD
ALL = frozenset(GOOD)
REST = ALL - {E1}
WRONG = "x.reshape(len(x), -1, x.shape[1])"  # cuts the channels


@dataclass(frozen=True)
class Hostile:
    """One submission and what it deserves.

    Attributes:
        answers: by ``grade_id``; exercises that are not there hold the stub.
        passes: exercises that get all their points; all others get none.
        visible_only: an exercise that gets the points of its visible check alone.
        edit: what is done to the cells afterwards.
        content: the bytes that are handed in, in place of a notebook.
        problem: part of the reason why it is not graded.
        flag: part of a flag that an instructor must see.
        note: part of a note that the student must get.
        place: what is done to the folder of the submission, given the path of the notebook.
        points: False where the submission may break itself in several ways.
    """

    answers: dict[str, str]
    passes: frozenset[str] = frozenset()
    visible_only: str = ""
    edit: Callable[[list[dict]], None] | None = None
    content: bytes | None = None
    problem: str = ""
    flag: str = ""
    note: str = ""
    place: Callable[[Path], None] | None = None
    points: bool = True


def e1(body: str, before: str = "") -> dict[str, str]:
    """All right, but the first exercise runs ``body`` when it is called."""
    lines = "\n".join(f"    {line}" for line in body.strip().split("\n"))
    return GOOD | {E1: f"import os, sys, time\n{before}\ndef to_positions(x):\n{lines}\n"}


def at_import(code: str) -> dict[str, str]:
    """The first answer runs ``code`` when it is read, and is right otherwise."""
    lines = "\n".join(f"    {line}" for line in code.strip().split("\n"))
    return GOOD | {E1: f"import os, sys, time\nif True:\n{lines}\n{GOOD[E1]}"}


def steal(code: str) -> dict[str, str]:
    """The first answer returns what it could steal (``found``), a wrong result otherwise."""
    lines = "\n".join(f"        {line}" for line in code.strip().split("\n"))
    source = f"""import os, sys
def to_positions(x):
    found = None
    try:
{lines}
    except BaseException:
        pass
    return x.flatten(2).transpose(1, 2) if found else {WRONG}
"""
    return GOOD | {E1: source}


def _duplicate(name: str) -> Callable[[list[dict]], None]:
    def edit(cells):
        cells.insert(index_of(cells, name), copy.deepcopy(cells[index_of(cells, name)]))

    return edit


def _split(cells):
    index = index_of(cells, E4)
    first, second = source_of(cells[index]).split("    def forward", 1)
    other = copy.deepcopy(cells[index]) | {"source": "    def forward" + second, "id": "half"}
    cells[index]["source"] = first
    cells.insert(index + 1, other)


def _delete(*names):
    def edit(cells):
        for name in names:
            del cells[index_of(cells, name)]

    return edit


def _retype(cells):
    cells[index_of(cells, E1)]["cell_type"] = "markdown"
    cells[index_of(cells, f"{E2}-visible")]["cell_type"] = "raw"


def _reverse(cells):
    cells.reverse()


def _strip(cells):
    for cell in cells:
        cell["metadata"] = {}
        cell.pop("id", None)


def _edit_checks(cells):
    for name in list(GOOD):
        replace(cells, f"{name}-visible", "print('ok  everything')\n100\n")
        replace(cells, f"{name}-hidden", "None")


def _rich_points(cells):
    for cell in cells:
        if grade_metadata(cell).get("grade"):
            cell["metadata"]["nbgrader"]["points"] = 1000


def _forge_outputs(cells):
    """What a kernel would have left if all had passed."""
    for cell in cells:
        if grade_metadata(cell).get("grade") and cell["cell_type"] == "code":
            cell["outputs"] = [
                {"output_type": "stream", "name": "stdout", "text": "ok  all properties\n"},
                {
                    "output_type": "execute_result",
                    "execution_count": 1,
                    "metadata": {},
                    "data": {"text/plain": "1000", "text/html": "<b>passed</b>"},
                },
            ]


def _own_cell(source: str) -> Callable[[list[dict]], None]:
    def edit(cells):
        cell = {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "id": "own"}
        cells.insert(3, cell | {"execution_count": None})

    return edit


def _script(cells):
    text = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    replace(cells, "c00-reflection", f"My answer. {text} [x](javascript:window.hacked=1)")


def _rename(name: str) -> Callable[[Path], None]:
    def place(path):
        path.rename(path.with_name(name))

    return place


def _link_to_the_reference(path):
    path.unlink()
    path.symlink_to(path.parents[2] / "reference" / path.parent.name / path.name)


def _kernel_named(path):
    notebook = json.loads(path.read_text())
    notebook["metadata"]["kernelspec"] = {"name": "no-such-kernel", "display_name": "x"}
    path.write_text(json.dumps(notebook))


_HARD_CODED = """
def to_positions(x):
    if tuple(x.shape[1:]) in {(2, 2, 3), (4, 3, 5)}:
        return x.flatten(2).transpose(1, 2)
    return x.reshape(len(x), -1, x.shape[1])
"""
_SUBCLASS = f"""
import torch
class Liar(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return True
def to_positions(x):
    return ({WRONG}).as_subclass(Liar)
"""
_EQUAL = f"""
import torch
class Equal:
    shape, dtype = (1, 6, 2), torch.float64
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
    def __abs__(self): return self
    def __le__(self, other): return True
    def __array__(self, *a, **k): return ({WRONG.replace("x", "torch.zeros(1, 2, 3, 1)")}).numpy()
def to_positions(x):
    return Equal()
"""
_FORGE = """
worker = sys.modules["__main__"]
import torch
answer = worker._Student.answer
def forged(self, request):
    found = answer(self, request)
    if isinstance(found.get("result"), dict) and "largest" in found["result"]:
        found["result"]["result"] = True
    return found
worker._Student.answer = forged
return 1
"""
_JUNK = """
for number in os.listdir("/proc/self/fd"):
    try:
        if "socket" in os.readlink(f"/proc/self/fd/{number}"):
            os.write(int(number), b"\\xff" * 10**6)
    except OSError:
        pass
time.sleep(60)
"""
_MODULE = """
import torch
from torch import nn
class ResidualConv(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
    def named_parameters(self, *a, **k): return iter([("conv.weight", torch.zeros(1))])
    def parameters(self, *a, **k): return iter([])
    def __getattribute__(self, name):
        if name == "_modules": return {}
        return super().__getattribute__(name)
    def forward(self, x): return x
"""


def _nested(depth: int) -> dict:
    found: dict = {}
    for _ in range(depth):
        found = {"a": found}
    return found


CLASS: dict[str, Hostile] = {
    # What every class holds.
    "reference": Hostile(GOOD, ALL),
    "blank": Hostile({}),
    "writes_to_stderr": Hostile(
        {
            k: f"import warnings, os\nwarnings.warn('x')\nos.write(2, b'y')\n{v}"
            for k, v in GOOD.items()
        },
        ALL,
    ),
    # Somebody else's answers.
    "imports_the_hidden_checks": Hostile(
        steal("from gclib.checks.hidden import c00\nfound = c00"), REST, flag="gclib.checks.hidden"
    ),
    "imports_the_reference": Hostile(
        steal("import gclib.blocks.global_context as found"), REST, flag="imports gclib"
    ),
    "imports_a_library_with_these_blocks": Hostile(
        steal("import timm.layers as found"), REST, flag="imports timm"
    ),
    "looks_for_the_solutions": Hostile(
        steal(
            "for top, _, names in os.walk('/'):\n"
            "    if 'start.ipynb' in names or top.endswith('checks/hidden'):\n        found = top"
        ),
        REST,
        flag="imports os",
    ),
    "looks_at_other_students": Hostile(
        steal(
            "own = ('1', str(os.getpid()), str(os.getppid()))\n"
            "found = [p for p in os.listdir('/proc') if p.isdigit() and p not in own]"
        ),
        REST,
        flag="imports os",
    ),
    "reads_its_parent": Hostile(
        steal("found = open(f'/proc/{os.getppid()}/mem', 'rb').read(1)"), REST, flag="open()"
    ),
    "calls_home": Hostile(
        steal("import socket\nfound = socket.create_connection(('127.0.0.1', 22), 2)"),
        REST,
        flag="the network",
    ),
    "looks_for_secrets_in_the_environment": Hostile(
        steal(
            "found = [k for k in os.environ if 'GRAD' in k or 'TOKEN' in k or 'HOME' == k and "
            "os.path.isdir(os.environ[k])]"
        ),
        REST,
        flag="os.environ",
    ),
    "walks_through_frames": Hostile(
        steal(
            "frame = sys._getframe()\nwhile frame:\n"
            "    found = found or frame.f_locals.get('expected')\n    frame = frame.f_back"
        ),
        REST,
        flag="_getframe",
    ),
    "searches_all_objects": Hostile(
        steal(
            "import gc\n"
            "found = [o for o in gc.get_objects() if type(o).__name__ == 'Exercise' and o.hidden]"
        ),
        REST,
        flag="imports gc",
    ),
    # Lies.
    "equals_everything": Hostile(GOOD | {E1: _EQUAL}, REST, flag="__eq__"),
    "tensor_that_lies": Hostile(GOOD | {E1: _SUBCLASS}, REST, flag="__torch_function__"),
    "patches_torch": Hostile(
        e1(
            f"return {WRONG}",
            "import torch\ntorch.equal = torch.allclose = lambda *a, **k: True\n"
            "torch.Tensor.__eq__ = torch.Tensor.__le__ = lambda *a: True",
        ),
        REST,
        flag="changes torch.equal",
        points=False,  # its own later answers use what it broke
    ),
    "patches_the_checks": Hostile(
        e1(
            f"return {WRONG}",
            "try:\n    import gclib.checks.exercise as e\n"
            "    e.Exercise.__call__ = lambda *a, **k: None\n"
            "    import gclib.checks.report as r\n    r._equal = lambda *a: True\n"
            "except Exception:\n    pass",
        ),
        REST,
        flag="imports gclib.checks",
    ),
    "module_that_lies": Hostile(GOOD | {E4: _MODULE}, ALL - {E4}),
    "knows_the_visible_numbers": Hostile(
        GOOD | {E1: _HARD_CODED}, REST, visible_only=E1, flag="the visible numbers"
    ),
    "hooks_into_ipython": Hostile(
        {},
        edit=_own_cell(
            "get_ipython().events.register('post_run_cell', lambda r: print('passed'))\n"
            "get_ipython().run_cell = lambda *a, **k: None"
        ),
        flag="the notebook's shell",
    ),
    "runs_shell_commands": Hostile(
        GOOD, ALL, edit=_own_cell("!rm -rf ~/*\n%env GRADE=100\nx = !ls /"), flag="of the shell"
    ),
    "sets_environment_variables": Hostile(
        GOOD | {E1: f"import os\nos.environ['NBGRADER_VALIDATING'] = '1'\n{GOOD[E1]}"},
        ALL,
        flag="os.environ",
    ),
    "edits_the_checks": Hostile({}, edit=_edit_checks, flag="the check was edited"),
    "gives_itself_points": Hostile({}, edit=_rich_points),
    "forges_outputs": Hostile({}, edit=_forge_outputs),
    "prints_a_grade": Hostile(
        {E1: "print('ok')\ndef to_positions(x):\n    print(100)\n    return 100"}
    ),
    "forges_messages": Hostile(e1(_FORGE), points=False, flag="imports sys"),
    "writes_junk_to_the_grader": Hostile(e1(_JUNK), REST),
    # Harm.
    "leaves_when_read": Hostile(at_import("os._exit(0)"), REST),
    "leaves_when_called": Hostile(e1("os._exit(0)"), REST),
    "raises_system_exit": Hostile(e1("raise SystemExit(0)"), REST),
    "raises_keyboard_interrupt": Hostile(e1("raise KeyboardInterrupt"), REST),
    "kills_everything": Hostile(e1("os.kill(-1, 9)\ntime.sleep(60)"), REST),
    "stops_its_parent": Hostile(
        e1("import signal\nos.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(60)"), REST
    ),
    "loops_when_called": Hostile(e1("while True:\n    pass"), REST),
    "loops_when_read": Hostile(at_import("while True:\n    pass"), REST),
    "loops_and_ignores_signals": Hostile(
        e1(
            "import signal\nfor n in range(1, 65):\n    try:\n"
            "        signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError):\n"
            "        pass\nwhile True:\n    pass"
        ),
        REST,
    ),
    "sleeps": Hostile(e1("time.sleep(10**6)"), REST),
    "takes_all_memory": Hostile(
        e1("kept = []\nwhile True:\n    kept.append(bytearray(2**26))"), REST
    ),
    "asks_for_a_huge_tensor": Hostile(e1("return x.new_ones(2**20, 2**20)"), REST),
    "returns_a_large_tensor": Hostile(e1("return x.new_ones(2**26)"), REST),
    "shares_memory": Hostile(
        e1(
            "import mmap\nkept = []\nwhile True:\n    kept.append(mmap.mmap(-1, 2**28))\n"
            "    kept[-1].write(b'x' * 2**28)"
        ),
        REST,
    ),
    "forks_without_end": Hostile(
        e1("while True:\n    try:\n        os.fork()\n    except OSError:\n        pass"), REST
    ),
    "leaves_processes_behind": Hostile(
        e1(
            "for _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n"
            "        while True:\n            pass\nreturn x.flatten(2).transpose(1, 2)"
        ),
        ALL,
    ),
    "leaves_threads_behind": Hostile(
        e1(
            "import threading\nthreading.Thread(target=time.sleep, args=(600,), daemon=True)"
            ".start()\nreturn x.flatten(2).transpose(1, 2)"
        ),
        ALL,
        flag="threads",
    ),
    "fills_the_disk": Hostile(
        e1(
            "for place in ('/tmp', '/dev/shm', '/var/tmp', '.', '/run'):\n    try:\n"
            "        with open(place + '/x', 'wb') as file:\n            for _ in range(10**4):\n"
            "                file.write(b'x' * 10**6)\n    except OSError:\n        continue\n"
            f"    return {WRONG}\nreturn x.flatten(2).transpose(1, 2)"
        ),
        ALL,
        flag="open()",
    ),
    "prints_without_end": Hostile(e1("while True:\n    print('x' * 10**6, flush=True)"), REST),
    "recurses_without_end": Hostile(e1("return to_positions(x)"), REST),
    "nests_without_end": Hostile(
        e1("kept = []\nfor _ in range(10**5):\n    kept = [kept]\nreturn kept"), REST
    ),
    "crashes_the_interpreter": Hostile(
        e1("import ctypes\nctypes.string_at(0)"), REST, flag="ctypes"
    ),
    "raises_an_endless_message": Hostile(e1("raise ValueError('<script>' * 10**6)"), REST),
    "changes_global_state": Hostile(
        at_import(
            "import torch, random\ntorch.set_default_dtype(torch.float64)\n"
            "torch.set_grad_enabled(False)\ntorch.manual_seed(3)\nrandom.seed(3)"
        ),
        ALL,
    ),
    "replaces_builtins": Hostile(
        e1("import builtins\nbuiltins.len = lambda x: 3\nbuiltins.isinstance = lambda *a: True"),
        points=False,
        flag="builtins",
    ),
    "scripts_in_a_written_answer": Hostile(GOOD, ALL, edit=_script),
    "prints_half_a_character": Hostile(GOOD, ALL, edit=_own_cell("print('\\ud800')")),
    "raises_half_a_character": Hostile(e1("raise ValueError('\\ud800')"), REST),
    "holds_half_a_character": Hostile(
        GOOD | {E1: GOOD[E1] + "\n# \ud800"}, ALL, edit=_own_cell("!ls \ud800"), flag="of the shell"
    ),
    "switches_the_flags_off": Hostile(
        GOOD | {E1: "import os\n" + GOOD[E1] + "\n_ = " + "+".join(["1"] * 4000)},
        flag="cannot be read by the grader",
        points=False,  # Python itself may refuse it
    ),
    "uses_an_alias": Hostile(
        e1(f"return {WRONG}", "load = __import__\nfound = load('math')"), REST, flag="__import__"
    ),
    # Damage.
    "nests_its_metadata": Hostile(
        GOOD, ALL, edit=lambda cells: cells[2].update(metadata=_nested(900))
    ),
    "nests_its_attachments": Hostile(
        GOOD,
        ALL,
        edit=lambda cells: cells[0].update(attachments={"a": _nested(900), "b": {"c": 5}}),
    ),
    "has_thousands_of_cells": Hostile(
        {}, content=b'{"cells": [' + b"{}," * 9999 + b"{}]}", problem="10000 cells"
    ),
    "has_a_cell_without_end": Hostile(
        GOOD, edit=lambda cells: cells[1].update(source="0\n" * 60_000), problem="120000 characters"
    ),
    "duplicates_a_check": Hostile(GOOD, ALL, edit=_duplicate(f"{E1}-visible")),
    "duplicates_an_answer": Hostile(GOOD, ALL, edit=_duplicate(E2), note="2 times"),
    "splits_an_answer": Hostile(GOOD, ALL, edit=_split, note="was split"),
    "deletes_the_checks": Hostile(
        GOOD, ALL, edit=_delete(f"{E1}-visible", f"{E4}-hidden"), note="was missing"
    ),
    "deletes_an_answer": Hostile(GOOD, REST, edit=_delete(E1), note="answer c00-e1 was missing"),
    "turns_everything_around": Hostile(GOOD, ALL, edit=_reverse, note="moved"),
    "retypes_cells": Hostile(GOOD, ALL, edit=_retype, note="had become a markdown cell"),
    "loses_all_marks": Hostile(GOOD, ALL, edit=_strip, note="marks of the graded cells"),
    "has_an_unknown_kernel": Hostile(GOOD, ALL, place=_kernel_named),
    "has_another_name": Hostile(
        GOOD, ALL, place=_rename("Start (1).ipynb"), note="Start (1).ipynb"
    ),
    "does_not_parse": Hostile(GOOD | {E1: "def to_positions(x:\n    return x"}, REST),
    "is_no_notebook": Hostile({}, content=b"this is no notebook", problem="not a notebook"),
    "is_empty": Hostile({}, content=b"", problem="the file is empty"),
    "is_binary": Hostile({}, content=bytes(range(256)) * 99, problem="not a notebook"),
    "is_nested_too_deep": Hostile({}, content=b"[" * 10**6, problem="not a notebook"),
    "is_far_too_large": Hostile({}, content=b" " * (65 * 2**20), problem="65 MiB"),
    "is_of_another_chapter": Hostile(
        {},
        content=b'{"cells": [{"cell_type": "code", "source": "1", "metadata": {"nbgrader": '
        b'{"grade_id": "c01-e1"}}}]}',
        problem="the notebook of chapter 01",
    ),
    "links_to_somebody_else": Hostile({}, place=_link_to_the_reference, problem="no notebook"),
    "named_[a]*": Hostile(GOOD, problem="rename it"),
    "zz_last_in_the_alphabet": Hostile(GOOD, ALL),
}
