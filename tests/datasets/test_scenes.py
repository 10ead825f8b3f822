"""Scenes are the same bytes everywhere, show what they say, and hide what they should."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from gclib.datasets import TASKS, make_scenes
from gclib.datasets.scenes import BACKGROUND, COLOURS, CUE, MAJORITY, MASKS, NEUTRAL, SHAPES

# The first 100 scenes of seed 0, as every machine must make them.
DIGESTS = {
    "context": "bacae3548ab52b9fcb954e1fa0d31ef8ac939515fc013e609bda516ad019d3ac",
    "pairing": "07f3e8e076c4af2a52b21dbc27c0463343ac98a204989de8550a377a230c3565",
    "majority": "493c6e0a4fbd68d085053e9b41718cb305f619daed9c40e2e126d6d7328162a8",
}


@pytest.mark.parametrize("task", TASKS)
def test_the_bytes_are_those_of_every_machine(task):
    assert make_scenes(task, 100).digest() == DIGESTS[task]


def test_another_process_makes_the_same_bytes():
    code = "from gclib.datasets import make_scenes; print(make_scenes('pairing', 20).digest())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == make_scenes("pairing", 20).digest()


@pytest.mark.parametrize("task", TASKS)
def test_seeds_and_tasks_are_independent_and_numpy_is_left_alone(task):
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first, second = make_scenes(task, 50, seed=1), make_scenes(task, 50, seed=2)
    assert first.digest() != second.digest()
    assert (np.random.get_state()[1] == before).all()
    assert (first.images != second.images).mean() > 0.9


@pytest.mark.parametrize("task", TASKS)
def test_objects_are_painted_where_the_boxes_say(task):
    scenes = make_scenes(task, 20, noise=0)
    for n in range(20):
        canvas = np.full((3, 32, 32), BACKGROUND)
        for k, (x0, y0, x1, y1) in enumerate(scenes.boxes[n]):
            patch = scenes.images[n, :, y0:y1, x0:x1]
            ink = MASKS[scenes.shapes[n, k]]
            assert (patch[:, ~ink] == BACKGROUND).all()
            assert len(np.unique(patch[:, ink], axis=1).T) == 1  # one colour
            canvas[:, y0:y1, x0:x1] = patch
        assert (scenes.images[n] == canvas).all()  # and nothing elsewhere
    colours = {}
    for n in range(20):
        for k, (x0, y0, _, _) in enumerate(scenes.boxes[n]):
            row, column = np.argwhere(MASKS[scenes.shapes[n, k]])[0]
            pixel = tuple(scenes.images[n, :, y0 + row, x0 + column])
            assert colours.setdefault(scenes.colours[n, k], pixel) == pixel


def apart(first, second):
    """Cells between two boxes, on the axis where they are further apart."""
    cells = [(box[:2] // 8).astype(int) for box in (first, second)]
    return np.abs(cells[0] - cells[1]).max()


def test_context_labels_are_the_own_shape_and_the_colour_of_the_cue():
    scenes = make_scenes("context", 200)
    assert scenes.classes == 16
    for n in range(200):
        assert scenes.shapes[n, 0] == CUE
        assert scenes.labels[n, 0] == -1
        assert (scenes.colours[n, 1:] == NEUTRAL).all()
        assert (scenes.labels[n, 1:] == scenes.shapes[n, 1:] * 4 + scenes.colours[n, 0]).all()
        assert all(apart(scenes.boxes[n, 0], box) >= 2 for box in scenes.boxes[n, 1:])


def test_pairing_labels_are_the_shape_of_the_partner():
    scenes = make_scenes("pairing", 200)
    assert scenes.classes == len(SHAPES)
    for n in range(200):
        for k in range(8):
            (partner,) = [
                j for j in range(8) if j != k and scenes.colours[n, j] == scenes.colours[n, k]
            ]
            assert scenes.labels[n, k] == scenes.shapes[n, partner]
            assert apart(scenes.boxes[n, k], scenes.boxes[n, partner]) >= 2


def test_majority_labels_are_the_own_shape_and_the_most_frequent_colour():
    scenes = make_scenes("majority", 200)
    for n in range(200):
        counts = np.bincount(scenes.colours[n], minlength=len(COLOURS))
        assert tuple(sorted(counts[counts > 0], reverse=True)) == MAJORITY
        assert (scenes.labels[n] == scenes.shapes[n] * 4 + counts.argmax()).all()


@pytest.mark.parametrize("task", TASKS)
def test_labels_are_balanced_so_that_chance_is_chance(task):
    scenes = make_scenes(task, 2000)
    labels = scenes.labels[scenes.labels >= 0]
    share = np.bincount(labels, minlength=scenes.classes) / len(labels)
    assert abs(share - 1 / scenes.classes).max() < 0.1 / scenes.classes + 0.01


@pytest.mark.parametrize("task", TASKS)
def test_label_maps_hold_each_object_once(task):
    scenes = make_scenes(task, 100)
    maps = scenes.label_maps(4)
    assert maps.shape == (100, 8, 8)
    assert ((maps >= 0).sum((1, 2)) == (scenes.labels >= 0).sum(1)).all()
    x0, y0, _, _ = scenes.boxes[0, -1]
    assert maps[0, (y0 + 3) // 4, (x0 + 3) // 4] == scenes.labels[0, -1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pairs", 3), "task='pairs': expected one of context, pairing, majority"),
        (("pairing", 0), "count=0: expected"),
        (("pairing", 2.0), "count=2.0: expected"),
        (("pairing", True), "count=True: expected"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_scenes(*arguments)
    with pytest.raises(ValueError, match="noise=99: expected an integer from 0 to 48"):
        make_scenes("context", 1, noise=99)


def test_the_digest_covers_every_array():
    scenes = make_scenes("context", 5)
    for name in ("images", "boxes", "shapes", "colours", "labels"):
        changed = make_scenes("context", 5)
        getattr(changed, name).flat[0] += 1
        assert changed.digest() != scenes.digest()
    assert len(hashlib.sha256().hexdigest()) == len(scenes.digest())
