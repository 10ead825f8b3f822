"""Options: every field of a recipe, and every way to get one wrong."""

from dataclasses import dataclass, fields

import pytest

from gclib.training.imagenet import ImageNetRecipe, recipe_of
from gclib.training.options import (
    BadOption,
    differing,
    help_lines,
    option,
    option_names,
    override,
    parse,
)
from gclib.training.recipe import Machine, TrainingRecipe


@dataclass(frozen=True, kw_only=True)
class Other:
    data: str | None = option(None, "where it is")
    limit: int | None = option(3, "at most", least=1)


def given(text):
    (values,) = parse(text.split(), TrainingRecipe)
    return values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("--lr 0.3", {"lr": 0.3}),
        ("--lr=3e-1", {"lr": 0.3}),
        ("--batch-size 64 --epochs 2", {"batch_size": 64, "epochs": 2}),
        ("--nesterov yes", {"nesterov": True}),
        ("--nesterov False", {"nesterov": False}),
        ("--drops 8,11", {"drops": (8.0, 11.0)}),
        ("--clip none", {"clip": None}),
        ("--clip 35", {"clip": 35.0}),
        ("--schedule steps", {"schedule": "steps"}),
    ],
)
def test_values(text, values):
    found = given(text)
    assert found == values
    assert [type(v) for v in found.values()] == [type(v) for v in values.values()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--lrr 0.1", "there is no option '--lrr'; did you mean --lr?"),
        ("--batchsize 8", "did you mean --batch-size?"),
        ("--zzz 8", "there is no option '--zzz'$"),
        ("lr 0.1", "there is no option 'lr'"),
        ("--lr", "--lr needs a value"),
        ("--lr --epochs 3", "--lr needs a value"),
        ("--lr fast", "--lr fast: expected a number"),
        ("--lr nan", "expected a number"),
        ("--lr inf", "expected a finite number"),
        ("--lr -0.1", "lr=-0.1: expected more than 0"),
        ("--lr 0.1 --lr 0.2", "--lr is given twice"),
        ("--epochs 2.5", "--epochs 2.5: expected an integer"),
        ("--epochs 0", "epochs=0: expected at least 1"),
        ("--momentum 1.5", "momentum=1.5: expected at most 1"),
        ("--nesterov maybe", "expected yes or no"),
        ("--schedule cosin", "did you mean 'cosine'?"),
        ("--drops 8;11", "expected numbers with commas between them"),
        ("--clip never", "expected a number or none"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(BadOption, match=message.replace("?", r"\?")):
        given(text)


def test_several_dataclasses_share_a_command_line():
    arguments = ["--lr", "0.3", "--data", "here", "--keep", "4", "--limit", "none"]
    assert parse(arguments, TrainingRecipe, Other, Machine) == [
        {"lr": 0.3},
        {"data": "here", "limit": None},
        {"keep": 4},
    ]
    with pytest.raises(BadOption, match="did you mean --data"):
        parse(["--dat", "here"], TrainingRecipe, Other)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 1.0}, "TrainingRecipe has no field 'rate'"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"epochs": 3.0}, "epochs=3.0: expected an integer"),
        ({"epochs": True}, "epochs=True: expected an integer"),
        ({"nesterov": 1}, "nesterov=1: expected yes or no"),
        ({"lr": "0.1"}, "lr='0.1': expected a number"),
        ({"drops": [8]}, r"drops=\[8\]: expected numbers"),
        ({"drops": (11.0, 8.0), "schedule": "steps"}, "expected rising epochs"),
        ({"drops": (8.0,)}, "schedule=steps and drops belong together"),
        ({"schedule": "steps"}, "schedule=steps and drops belong together"),
        ({"warmup_start": 0.3}, "warmup_start needs warmup_epochs or warmup_steps"),
        ({"lr": float("inf")}, "lr=inf: expected a finite number"),
        ({"warmup_epochs": 1.0, "epochs": 1}, "expected fewer than epochs=1"),
        ({"warmup_epochs": 1.0, "warmup_steps": 5, "epochs": 9}, "give one of them"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs optimizer=sgd with a momentum"),
    ],
)
def test_overrides_that_are_refused(values, message):
    with pytest.raises(BadOption, match=message):
        override(TrainingRecipe(), values)


def test_an_override_leaves_the_first_recipe_alone():
    first = TrainingRecipe()
    second = override(first, {"lr": 1, "drops": (2.0,), "schedule": "steps"})
    assert (first.lr, second.lr, second.drops) == (0.2, 1, (2.0,))
    assert differing(first.as_dict(), second.as_dict()) == [
        "lr: 0.2 and 1",
        "schedule: 'cosine' and 'steps'",
        "drops: [] and [2.0]",
    ]
    assert differing({"a": (1, 2)}, {"a": [1, 2], "b": 1}) == ["b: nothing and 1"]
    assert differing(first.as_dict(), first.as_dict()) == []


@pytest.mark.parametrize("kind", [ImageNetRecipe, Machine])
def test_every_field_is_an_option_with_a_text(kind):
    value = recipe_of("4a/gc_all") if kind is ImageNetRecipe else kind()
    lines = help_lines(value)
    assert len(lines) == len(fields(kind)) == len(option_names(kind))
    for f in fields(kind):
        assert f.metadata["limits"].text
        # What a recipe holds can be typed, and gives itself.
        held = getattr(value, f.name)
        text = ",".join(map(str, held)) if isinstance(held, tuple) else str(held)
        (found,) = parse([f"--{f.name.replace('_', '-')}={text}"], kind)
        assert found == {f.name: held}
