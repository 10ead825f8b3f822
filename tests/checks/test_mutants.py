"""Every named mutant fails with the message that names it; every variant passes."""

import pytest
from mutants.answers import apply, define, mutants, references, run, variants

from gclib.chapters import CHAPTERS
from gclib.checks import CheckFailed, NotAttempted
from gclib.checks.exercise import exercises_of
from gclib.checks.outcome import STUB_MESSAGE


def hidden_checks(chapter):
    from importlib import import_module

    return import_module(f"gclib.checks.hidden.c{chapter.number}")


EXERCISES = {
    exercise.id: (chapter.number, exercise, hidden)
    for chapter in CHAPTERS
    for exercise, hidden in zip(
        exercises_of(chapter.checks()), exercises_of(hidden_checks(chapter)), strict=True
    )
}
MUTANTS = [(m, id) for id, (c, _, _) in EXERCISES.items() for m in mutants(c)[id]]
VARIANTS = [
    (id, name, source)
    for id, (c, _, _) in EXERCISES.items()
    for name, source in variants(c)[id].items()
]


@pytest.mark.parametrize(("mutant", "id"), MUTANTS, ids=[f"{id}-{m.name}" for m, id in MUTANTS])
def test_mutant_fails_with_the_message_that_names_it(mutant, id):
    chapter, visible, hidden = EXERCISES[id]
    source = apply(mutant.edits, references(chapter)[id])
    implementation = define(chapter, id, source)[visible.needs]
    if mutant.hidden:
        visible(implementation)  # passes: the visible check cannot see it
    with pytest.raises(CheckFailed) as failed:
        (hidden if mutant.hidden else visible)(implementation)
    assert mutant.says in str(failed.value)
    assert failed.value.exercise == id
    assert failed.value.look


@pytest.mark.parametrize(
    ("id", "name", "source"), VARIANTS, ids=[f"{v[0]}-{v[1]}" for v in VARIANTS]
)
def test_variant_passes_both_checks(id, name, source):
    chapter, visible, hidden = EXERCISES[id]
    implementation = define(chapter, id, source)[visible.needs]
    for seed in (0, 1, 2):
        visible(implementation, seed)
        hidden(implementation, seed)


COMBINATIONS = [
    (chapter.number, k)
    for chapter in CHAPTERS
    for k in range(max(len(found) for found in variants(chapter.number).values()))
]


@pytest.mark.parametrize(("chapter", "k"), COMBINATIONS)
def test_variants_of_one_student_pass_together(chapter, k):
    """Later answers call earlier ones: right answers must get on with each other."""
    right = variants(chapter)
    chosen = {id: list(found.values())[k % len(found)] for id, found in right.items()}
    namespace = run(references(chapter) | chosen)
    for number, visible, hidden in EXERCISES.values():
        if number == chapter:
            visible(namespace[visible.needs])
            hidden(namespace[visible.needs])


@pytest.mark.parametrize("id", EXERCISES)
def test_reference_passes_with_any_seed(id):
    chapter, visible, hidden = EXERCISES[id]
    implementation = define(chapter)[visible.needs]
    for seed in range(20):
        visible(implementation, seed)
        hidden(implementation, seed)


@pytest.mark.parametrize("id", EXERCISES)
def test_enough_mutants_and_variants_of_different_cause(id):
    chapter, _, _ = EXERCISES[id]
    found = mutants(chapter)[id]
    assert len({m.name for m in found}) == len(found) >= 8
    assert len({m.says for m in found if m.says}) >= 8
    assert len(variants(chapter)[id]) >= 4


@pytest.mark.parametrize("id", EXERCISES)
def test_stub_is_not_attempted(id):
    chapter, visible, hidden = EXERCISES[id]
    reference = references(chapter)[id]
    stub = f'raise NotImplementedError("{STUB_MESSAGE}")'
    if reference.startswith("class"):
        source = (
            f"class {visible.needs}(nn.Module):\n    def __init__(self, *a, **k):\n        {stub}\n"
        )
    else:
        source = f"def {visible.needs}(*a, **k):\n    {stub}\n"
    implementation = define(chapter, id, source)[visible.needs]
    for check in (visible, hidden):
        with pytest.raises(NotAttempted, match=f"{id}: {visible.needs} is not written yet"):
            check(implementation)
