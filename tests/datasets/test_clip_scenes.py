"""The generated videos: what is in them, what decides a class, and their files."""

import hashlib
import itertools

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is not installed")

import av

from gclib.cli import main
from gclib.datasets import clip_scenes as cs
from gclib.datasets.files import BrokenData
from gclib.datasets.kinetics import KineticsDataset, Sampling, eval_transform, kinetics

SCENES = [cs.make_clip_scene("val", index) for index in range(120)]


def coloured(pictures):
    return pictures.max(-1).astype(int) - pictures.min(-1) > 60


def centre(mask):
    rows, columns = mask.nonzero()
    return np.array([columns.mean(), rows.mean()])


def test_a_cue_then_nothing_then_two_squares_that_move():
    for scene in SCENES:
        assert scene.frames.shape == (cs.FRAMES, cs.SIDE, cs.SIDE, 3)
        seen = coloured(scene.frames)
        x, y, width = scene.cue
        cue = seen[: cs.CUE_UNTIL]
        assert cue.any((1, 2)).all()
        cue[:, y : y + width, x : x + width] = False
        assert not cue.any()
        assert not seen[cs.CUE_UNTIL : cs.START].any()
        for number, (_, _, width) in enumerate(scene.squares):
            mine = (scene.frames[cs.START :] == cs._RGB[number]).all(-1)
            assert (mine.sum((1, 2)) == width * width).all()  # neither covered nor cut


def test_the_class_is_the_way_of_the_square_with_the_colour_of_the_cue():
    ways = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    for scene in SCENES:
        x, y, width = scene.cue
        colour = scene.frames[0, y + width // 2, x + width // 2]
        mine = (scene.frames[cs.START :] == colour).all(-1)
        assert (centre(mine[1]) - centre(mine[0]) == [2 * k for k in ways[name(scene)]]).all()
        assert len(set(scene.directions)) == len(cs.COLOURS)


def name(scene):
    return cs.CLASSES[scene.label]


def test_classes_colours_and_directions_are_about_equally_frequent():
    scenes = SCENES + [cs.make_clip_scene("train", index) for index in range(280)]
    assert (np.bincount([scene.label for scene in scenes]) == 100).all()
    others = [scene.directions[1 - scene.colour] for scene in scenes]
    for found in (others, [scene.colour for scene in scenes]):
        counts = np.bincount(found)
        assert counts.min() > 0.7 * counts.mean()
    # Nor does the colour of the cue say anything of the class alone.
    both = np.bincount([2 * scene.label + scene.colour for scene in scenes])
    assert both.min() > 0.6 * both.mean()


def test_sums_over_cue_and_squares_get_three_of_four_right_and_half_at_the_least_loss():
    # All cases of two directions and the bias of each of four inputs, as signs of scores.
    cases = list(itertools.product((0, 1), (0, 1)))  # the cue's colour; which colour goes left
    goes_left = np.array([cue == layout for cue, layout in cases])
    best = 0
    rng = np.random.default_rng(0)
    for _ in range(2000):
        a, b = rng.normal(size=(2, 2))
        said = np.array([a[cue] + b[layout] > 0 for cue, layout in cases])
        best = max(best, (said == goes_left).sum())
    assert best == 3
    # Gradient descent on the convex loss, from anywhere, ends at ln 2.
    a, b = rng.normal(size=(2, 2))
    for _ in range(4000):
        scores = np.array([a[cue] + b[layout] for cue, layout in cases])
        slope = 1 / (1 + np.exp(-scores)) - goes_left
        for number, (cue, layout) in enumerate(cases):
            a[cue] -= 0.1 * slope[number]
            b[layout] -= 0.1 * slope[number]
    scores = np.array([a[cue] + b[layout] for cue, layout in cases])
    loss = np.log1p(np.exp(np.where(goes_left, -scores, scores))).mean()
    assert loss == pytest.approx(np.log(2), abs=1e-6)


def test_planes_are_those_of_ffmpeg():
    frames = SCENES[0].frames
    for picture, plane in zip(frames, cs.planes(frames), strict=True):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        there = frame.reformat(format="yuv420p", dst_colorspace="ITU601").to_ndarray()
        apart = np.abs(plane.astype(int) - there)
        assert apart[: cs.SIDE].max() <= 1
        assert apart[cs.SIDE :].mean() < 1  # it smoothes colours over more than 2×2 pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("set") / "kinetics"
    digests = cs.write_clip_scenes(where, videos={"train": 10, "val": 4})
    return where, digests


def test_files_hold_what_was_drawn(folder):
    where, digests = folder
    for part, count in (("train", 10), ("val", 4)):
        digest = hashlib.sha256()
        for index in range(count):
            scene = cs.make_clip_scene(part, index)
            path = where / part / name(scene) / f"{index:06d}.mp4"
            with av.open(str(path)) as file:
                (stream,) = file.streams.video
                assert (stream.codec_context.name, stream.average_rate) == ("h264", cs.FPS)
                pictures = np.stack([frame.to_ndarray() for frame in file.decode(video=0)])
            assert (pictures == cs.planes(scene.frames)).all()
            digest.update(pictures.tobytes() + name(scene).encode())
        assert digests[part] == digest.hexdigest()


def test_the_data_set_of_kinetics_reads_it(folder):
    where, _ = folder
    videos, val = kinetics(where)
    assert videos.classes == list(cs.CLASSES)
    assert (len(videos), len(val)) == (10, 4)
    data = KineticsDataset(
        videos, eval_transform(cs.SIDE), sampling=Sampling(8, 4), clips=2, substitute=False
    )
    for index in range(len(data)):
        example = data[index]
        assert not example.broken
        number = int(videos.path(index)[-10:-4])
        scene = cs.make_clip_scene("train", number)
        assert example.label == scene.label
        assert example.views.shape == (6, 3, 8, cs.SIDE, cs.SIDE)
        for view in example.views:  # a clip is as long as a video: all views are the same
            pictures = view.permute(1, 2, 3, 0).numpy()
            assert (pictures == example.views[0].permute(1, 2, 3, 0).numpy()).all()
        inside = (scene.frames == np.roll(scene.frames, 1, (1, 2))).all(-1)[::2]
        assert np.abs(pictures.astype(int) - scene.frames[::2])[inside].mean() < 3
        assert (coloured(pictures).any((1, 2)) == [1, 1, 0, 0, 1, 1, 1, 1]).all()


# Of the pictures, not of the files: another version of the encoder may pack them in another way.
DIGESTS = {
    "train": "3a40c02d715da032959749fce188a393a7ed0809caab7d19628c2b0d95c8956e",
    "val": "4eda7cd768df9c7c97845ea479fcd72b9f1f411ec1a56bfd54b8a787103dde7b",
}


def test_the_same_seed_gives_the_same_set_everywhere(folder):
    assert folder[1] == DIGESTS


def test_another_seed_gives_another_set(tmp_path, folder):
    other = cs.write_clip_scenes(tmp_path / "set", videos={"val": 4}, seed=1)
    assert other["val"] != folder[1]["val"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BrokenData, match="holds something already"):
        cs.write_clip_scenes(tmp_path, videos={"val": 4})
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ValueError, match="at least one of each class"):
        cs.write_clip_scenes(tmp_path / "set", videos={"val": 3})


@pytest.mark.full
def test_the_command_makes_a_small_set(tmp_path, capsys):
    arguments = ["data", "kinetics", "--out", str(tmp_path / "set")]
    assert main(arguments) == 0
    assert f"ok  train: {cs.VIDEOS['train']} generated videos" in capsys.readouterr().out
    size = sum(path.stat().st_size for path in (tmp_path / "set").rglob("*") if path.is_file())
    assert size < 5_000_000
    assert main(arguments) == 2
    assert "holds something already" in capsys.readouterr().err
    assert main(["data", "kinetics", "--check", str(tmp_path / "set")]) == 0
