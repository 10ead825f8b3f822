"""What every check promises: verdicts, messages, and no trace left behind."""

import ast
import inspect
import random
import re
import sys
import warnings
from importlib import import_module

import numpy
import pytest
import torch
from mutants.answers import define
from torch import nn

from gclib.chapters import CHAPTERS
from gclib.checks import CheckFailed, NotAttempted, c00, c01
from gclib.checks.exercise import exercises_of
from gclib.checks.handle import Handle, Opaque, StubReached, StudentError, plain, wrap
from gclib.checks.outcome import STUB_MESSAGE
from gclib.checks.report import Report
from gclib.checks.roles import assignments, names_in, weights_for

ALL = [
    (chapter.number, exercise)
    for chapter in CHAPTERS
    for module in (chapter.checks(), import_module(f"gclib.checks.hidden.c{chapter.number}"))
    for exercise in exercises_of(module)
]
IDS = [f"{e.id}-{'hidden' if e.hidden else 'visible'}" for _, e in ALL]


def good(query, key):
    return query @ key.mT


@pytest.mark.parametrize(("chapter", "exercise"), ALL, ids=IDS)
def test_passing_prints_ok_lines_on_stdout_and_returns_none(chapter, exercise, capfd):
    assert exercise(define(chapter)[exercise.needs]) is None
    out, err = capfd.readouterr()
    assert err == ""
    assert all(line.startswith("ok  ") for line in out.splitlines())
    assert 3 <= len(out.splitlines()) <= 20


@pytest.mark.parametrize(("chapter", "exercise"), ALL, ids=IDS)
def test_no_global_state_changes(chapter, exercise):
    implementation = define(chapter)[exercise.needs]
    torch.manual_seed(3)
    random.seed(3)
    numpy.random.seed(3)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].copy()
            exercise(implementation)
            assert torch.equal(torch.get_rng_state(), before[0])
            assert random.getstate() == before[1]
            assert (numpy.random.get_state()[1] == before[2]).all()
            assert torch.get_default_dtype() == torch.float64
            assert not torch.is_grad_enabled()
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_the_student_changes_is_put_back():
    def careless(query, key):
        torch.manual_seed(99)
        random.seed(99)
        numpy.random.seed(99)
        torch.set_default_dtype(torch.float16)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.use_deterministic_algorithms(True)
        warnings.warn("look out", stacklevel=1)
        print("to stderr", file=sys.stderr)
        return query @ key.mT

    threads = torch.get_num_threads()
    states = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].copy()
    filters = list(warnings.filters)
    c01.e1(careless)
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (numpy.random.get_state()[1] == states[2]).all()
    assert warnings.filters == filters


def test_the_students_stderr_becomes_stdout(capfd):
    def noisy(query, key):
        print("debugging", file=sys.stderr)
        return query @ key.mT

    c01.e1(noisy)
    out, err = capfd.readouterr()
    assert err == ""
    assert "debugging" in out


def test_same_seed_same_verdict():
    def sometimes(query, key):  # wrong for inputs that begin with a positive number
        return query @ key.mT + (1e-3 if query.flatten()[0] > 1.5 else 0)

    def verdict(seed):
        try:
            c01.e1(sometimes, seed)
        except CheckFailed as failed:
            return str(failed)
        return "passed"

    assert [verdict(s) for s in range(8)] == [verdict(s) for s in range(8)]


def test_failure_says_expected_got_cause_and_where_to_look():
    with pytest.raises(CheckFailed) as failed:
        c01.e1(lambda query, key: query @ key.mT / 2)
    lines = str(failed.value).splitlines()
    assert lines[0] == "c01-e1: entry (i, j) is the product of query i and key j"
    assert [line.split()[0] for line in lines[1:]] == ["expected", "got", "likely", "look"]
    assert isinstance(failed.value, AssertionError)


def test_traceback_in_a_notebook_is_one_line_without_source():
    with pytest.raises(CheckFailed) as failed:
        c01.e1(lambda query, key: query)
    (line,) = failed.value._render_traceback_()
    assert line.startswith("CheckFailed: c01-e1, rows belong to queries")
    assert "report" not in line
    with pytest.raises(NotAttempted) as stub:
        c01.e1(stub_function)
    assert stub.value._render_traceback_() == ["NotAttempted: " + str(stub.value)]


def stub_function(query, key):
    raise NotImplementedError(STUB_MESSAGE)


def test_a_stub_deeper_down_is_not_attempted_but_a_missing_torch_kernel_is_an_error():
    with pytest.raises(NotAttempted):
        c01.e1(lambda query, key: stub_function(query, key))

    def missing_kernel(query, key):
        raise NotImplementedError("Could not run 'aten::bmm' with arguments from 'Meta'")

    with pytest.raises(CheckFailed, match="Could not run"):
        c01.e1(missing_kernel)


@pytest.mark.parametrize(
    ("implementation", "message"),
    [
        (lambda query, key: None, "without a return statement"),
        (lambda query, key: (query @ key.mT).tolist(), "got          list"),
        (lambda query, key: (query @ key.mT).numpy(), "got          ndarray"),
        (lambda query, key: 3.0, "got          float"),
        (lambda query: query, "keep the one of the stub"),
        (lambda query, key: undefined_name, "run the cells above"),  # noqa: F821
        (lambda query, key: query.shapes, "misspelt"),
        (lambda query, key: query.view(7, 7), "wrong number of elements"),
        (lambda query, key: torch.zeros(2, 2) @ query, "fixed dtype"),
        (lambda query, key: query @ key.mT * float("nan"), "finite numbers"),
        (3, "TypeError"),
    ],
)
def test_errors_of_every_kind_get_a_message(implementation, message):
    with pytest.raises(CheckFailed, match=message):
        c01.e1(implementation)


def test_error_shows_the_students_line_and_no_path():
    namespace = define(
        "01", "c01-e1", "def pairwise_similarity(query, key):\n    return query / 'a'"
    )
    with pytest.raises(CheckFailed) as failed:
        c01.e1(namespace["pairwise_similarity"])
    assert "in line 2 of pairwise_similarity: return query / 'a'" in failed.value.got
    assert "/" not in failed.value.got.replace("query / 'a'", "").replace("for /:", "")


def test_keyboard_interrupt_passes_through():
    def stop(query, key):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        c01.e1(stop)


def test_an_object_that_lies_about_equality_does_not_pass():
    class Liar(torch.Tensor):
        def __eq__(self, other):
            return torch.ones((), dtype=torch.bool)

        def __sub__(self, other):
            return torch.zeros(())

        def abs(self):
            return torch.zeros(())

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return torch.zeros((), dtype=torch.bool)

    with pytest.raises(CheckFailed):
        c01.e1(lambda query, key: torch.zeros(1, 3, 4, dtype=torch.float64).as_subclass(Liar))

    class Agreeable:
        def __eq__(self, other):
            return True

        __hash__ = None

    with pytest.raises(CheckFailed, match="Agreeable"):
        c01.e1(lambda query, key: Agreeable())


def test_plain_values():
    assert plain((1, [2.5, None], "a")) == (1, [2.5, None], "a")
    assert plain(numpy.float32(0.5)) == 0.5
    assert plain({1: 2}) == Opaque("dict")
    original = torch.ones(2, requires_grad=True)
    copy = plain(original)
    copy += 1
    assert original.tolist() == [1, 1]
    assert type(plain(nn.Parameter(torch.ones(1)))) is torch.Tensor


def test_handle_calls_on_copies_and_reports_what_happened():
    def changes(x):
        x.zero_()
        return torch.ones(7, 9)

    x = torch.ones(3)
    call = Handle(changes).inspect(x)
    assert x.tolist() == [1, 1, 1]
    assert call.inputs[0].tolist() == [0, 0, 0]
    assert call.largest == 63
    expanded = Handle(lambda x: x.expand(1000, 3)[0] + 0).inspect(x)
    assert expanded.largest == 3  # a view of many elements holds no memory


def test_handle_gradients_of_functions_and_modules():
    found = Handle(lambda x, y: x * y).gradients(
        torch.tensor([2.0]), torch.tensor([3.0]), cotangent=torch.tensor([10.0])
    )
    assert [g.item() for g in found.inputs] == [30, 20]
    cut = Handle(lambda x: x.detach()).gradients(torch.ones(1), cotangent=torch.ones(1))
    assert cut.inputs == (None,)
    module = Handle(lambda: nn.Linear(2, 1)).build()
    module.load({"weight": torch.tensor([[2.0, 3.0]]), "bias": torch.tensor([1.0])})
    result = module.gradients(torch.ones(1, 2).double(), cotangent=torch.ones(1, 1).double())
    assert result.result.item() == 6
    assert result.parameters["weight"].tolist() == [[1, 1]]
    assert module.parameters() == {"weight": (1, 2), "bias": (1,)}
    again = module.gradients(torch.ones(1, 2).double(), cotangent=torch.ones(1, 1).double())
    assert again.parameters["weight"].tolist() == [[1, 1]]  # not accumulated


def test_wrap_takes_any_back_end():
    class Remote:
        is_check_handle = True

    class Student:
        def inspect(self): ...

    remote = Remote()
    assert wrap(remote) is remote
    assert isinstance(wrap(Student), Handle)
    assert isinstance(wrap(Student()), Handle)
    assert isinstance(wrap(good), Handle)


def test_errors_of_the_handle():
    with pytest.raises(StubReached):
        Handle(stub_function).call(1, 2)
    with pytest.raises(StudentError, match="ZeroDivisionError"):
        Handle(lambda: 1 / 0).call()
    with pytest.raises(StudentError, match="RecursionError"):
        Handle(endless).call()
    assert Handle(lambda: 3).build() == Opaque("int")


def endless():
    return endless()


ROLES = {"query": (2, 4), "key": (2, 4), "value": (2, 4), "out": (4, 2)}


class TestRoles:
    @pytest.mark.parametrize(
        "names",
        [
            ("query", "key", "value", "out"),
            ("theta", "phi", "g", "conv_out"),
            ("w_q", "w_k", "w_v", "w_z"),
            ("to_q", "to_k", "to_v", "to_out"),
            ("query_conv", "key_proj", "value_layer", "output"),
        ],
    )
    def test_by_name(self, names):
        parameters = {
            f"block.{n}.weight": (2, 4, 1, 1) if i < 3 else (4, 2, 1, 1)
            for i, n in enumerate(names)
        }
        parameters = dict(reversed(parameters.items()))
        (found,) = assignments(parameters, ROLES)
        assert [found[role].weight for role in ROLES] == [f"block.{n}.weight" for n in names]

    def test_by_shape_every_order_is_tried(self):
        parameters = {f"{n}.weight": (2, 4) for n in "abc"} | {"d.weight": (4, 2), "d.bias": (4,)}
        found = assignments(parameters, ROLES)
        assert len(found) == 6
        assert {a["query"].weight for a in found} == {"a.weight", "b.weight", "c.weight"}
        assert all(a["out"].bias == "d.bias" for a in found)
        assert names_in(found[0]) == set(parameters)

    def test_transposed_parameters_are_loaded_transposed(self):
        parameters = {"w_q": (4, 2), "w_k": (4, 2), "w_v": (4, 2), "w_z": (2, 4)}
        (found,) = assignments(parameters, ROLES)
        value = torch.arange(8.0).view(2, 4)
        values = {"query": value, "key": value, "value": value, "out": value.T}
        loaded = weights_for(found, values)
        assert torch.equal(loaded["w_q"], value.T)
        assert loaded["w_z"].shape == (2, 4)

    def test_missing_and_misshapen_layers_fit_nothing(self):
        assert assignments({"query.weight": (2, 4)}, ROLES) == []
        wide = {f"{n}.weight": (2, 4, 3, 3) for n in "abc"} | {"d.weight": (4, 2)}
        assert assignments(wide, ROLES) == []


def test_report_numbers_are_short(capsys):
    report = Report("c99-e1", "nowhere", 0)
    assert re.fullmatch(r"tensor.*", repr(report.randn(2)))
    with pytest.raises(CheckFailed) as failed:
        report.close(
            "small", torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[1.0, 3.0]]).double()
        )
    assert "[[1, 2]]" in str(failed.value)
    assert "[[1, 3]]" in str(failed.value)
    large = torch.zeros(5, 5).double()
    wrong = large.clone()
    wrong[3, 4] = 0.25
    with pytest.raises(CheckFailed, match=r"up to 0.25 away; at \[3, 4\]: 0.25, expected 0"):
        report.close("large", wrong, large)


def test_messages_in_a_notebook_are_cards_with_a_plain_fallback(monkeypatch):
    from gclib.checks import cards

    shown = []
    monkeypatch.setattr(cards, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    c01.e1(good)
    with pytest.raises(CheckFailed):
        c01.e1(lambda query, key: query @ key.mT * 2 if len(query) else "<script>")
    with pytest.raises(NotAttempted):
        c00.e1(stub_function_of_one)
    kinds = [re.search("<strong[^>]*>([^<]*)", data["text/html"])[1] for data in shown]
    assert kinds == ["passed", "not yet", "not attempted"]
    assert "all 6 visible checks passed" in shown[0]["text/plain"]
    assert "expected:" in shown[1]["text/plain"]
    assert "write to_positions in the cell above" in shown[2]["text/plain"]


def stub_function_of_one(x):
    raise NotImplementedError


def test_what_a_student_returns_cannot_become_html(monkeypatch):
    from gclib.checks import cards

    shown = []
    monkeypatch.setattr(cards, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))

    def attack(query, key):
        raise ValueError("<script>alert(1)</script>")

    with pytest.raises(CheckFailed):
        c01.e1(attack)
    assert "<script>" not in shown[0]["text/html"]
    assert "&lt;script&gt;" in shown[0]["text/html"]


def test_visible_checks_import_neither_the_blocks_nor_the_hidden_checks():
    """They go to a class without those."""
    for chapter in CHAPTERS:
        tree = ast.parse(inspect.getsource(chapter.checks()))
        imports = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
        names = [ast.unparse(node) for node in imports]
        assert not [n for n in names if "gclib.blocks" in n or "hidden" in n or "nn" in n.split()]
