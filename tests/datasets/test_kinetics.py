"""Clips of videos: the right ones, from any layout, the same however they are read."""

import gc
import os
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("av", reason="PyAV is not installed")

from made_videos import number_of, turn, write_sound, write_video

from gclib.datasets.files import BrokenData
from gclib.datasets.kinetics import (
    Example,
    KineticsDataset,
    Sampling,
    VideoFolder,
    VideoList,
    collate,
    eval_transform,
    kinetics,
    part_of_kinetics,
    resized,
    train_transform,
)

CLASSES = ("arm wrestling", "massaging person's head")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two classes; in train, 3 videos each, in val one."""
    folder = tmp_path_factory.mktemp("kinetics")
    for part, each in (("train", 3), ("val", 1)):
        for place, name in enumerate(CLASSES):
            home = folder / part / name
            home.mkdir(parents=True)
            for number in range(each):
                # Videos of a class differ in length: 3.0, 3.1, 3.2 s and so on.
                count = 90 + 3 * number + 30 * place
                write_video(home / f"v{number}, part {number}.mp4", count)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "kinetics")


def small_eval(clips=2, **options):
    return {"transform": eval_transform(32), "clips": clips, "substitute": False, **options}


def whole():
    """A transform that leaves pictures as they are."""
    return lambda picture: [picture]


def numbers_of(view):
    return [number_of(picture) for picture in view.unbind(1)]


# -- layouts -------------------------------------------------------------------------------------


def test_folders_by_class(folder):
    train, val = kinetics(folder)
    assert isinstance(train, VideoFolder)
    assert train.classes == val.classes == list(CLASSES)
    assert (len(train), len(val)) == (6, 2)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.path(4) == os.path.join(folder, "train", CLASSES[1], "v1, part 1.mp4")


@pytest.mark.parametrize("names", [("videos_train", "videos_val"), ("train_256", "val_256")])
def test_names_of_the_public_libraries(folder, names):
    for old, new in zip(("train", "val"), names, strict=True):
        (folder / old).rename(folder / new)
    assert [len(part) for part in kinetics(folder)] == [6, 2]


def write_lists(folder, form, label):
    for part in ("train", "val"):
        videos = part_of_kinetics(folder, part)
        with (folder / f"{part}.csv").open("w", encoding="utf-8") as file:
            for at in range(len(videos)):
                path = os.path.relpath(videos.path(at), folder)
                path = videos.path(at) if at == 0 else path  # whole paths are fine
                file.write(form.format(path, label(videos, at)) + "\n")


@pytest.mark.parametrize(
    ("form", "label"),
    [
        ('"{}",{}', lambda videos, at: videos.label(at)),
        ('"{}","{}"', lambda videos, at: videos.classes[videos.label(at)]),
        ("{}\t{}", lambda videos, at: videos.label(at)),
    ],
    ids=["numbers", "names", "tabs"],
)
def test_lists(folder, form, label):
    before = [
        [(part.path(at), part.label(at)) for at in range(len(part))] for part in kinetics(folder)
    ]
    if "\t" in form:  # the first line may not have a comma
        for path in folder.glob("*/*/*.mp4"):
            path.rename(path.with_name(path.name.replace(",", "")))
        before = [[(path.replace(",", ""), at) for path, at in part] for part in before]
    write_lists(folder, form, label)
    train, val = kinetics(folder)
    assert isinstance(train, VideoList)
    assert isinstance(val, VideoList)
    after = [[(part.path(at), part.label(at)) for at in range(len(part))] for part in (train, val)]
    assert after == before
    assert KineticsDataset(train, train_transform(32, short=(32, 40)))[4].label == 1


def test_a_list_with_a_heading_and_empty_lines(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffpath,label\n\na.mp4,3\n  b.mp4 , 1\n", encoding="utf-8")
    videos = VideoList(tmp_path / "a.csv")
    assert videos.classes == ["0", "1", "2", "3"]
    assert videos.labels.tolist() == [3, 1]
    assert videos.path(1) == str(tmp_path / "b.mp4")
    with pytest.raises(IndexError, match="holds 2 videos"):
        videos.path(2)


def test_a_part_may_lack_the_last_numbers(tmp_path):
    (tmp_path / "train.csv").write_text("a.mp4,0\nb.mp4,5\n")
    (tmp_path / "val.csv").write_text("c.mp4,2\n")
    train, val = kinetics(tmp_path)
    assert train.classes == val.classes == list("012345")


BAD_LISTS = {
    "": "lists no video",
    "path,label\n": "lists no video",
    "a.mp4,1\nb.mp4\n": "line 2 of .* is not a path and a label",
    "a.mp4,1\nb.mp4,1,2\n": "line 2 of .* is not a path and a label",
    "a.mp4\n": "line 1 of .* is not a path and a label",
    "label,youtube_id,time_start,time_end,split\n": "line 1 of .* is not a path and a label",
    "a.mp4,99999999999\n": "has a label 99999999999: number the classes from 0",
}


@pytest.mark.parametrize("text", BAD_LISTS)
def test_what_is_wrong_with_a_list(tmp_path, text):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(BrokenData, match=BAD_LISTS[text]):
        part_of_kinetics(tmp_path, "train")


def test_a_list_that_is_no_text(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"a\xff.mp4,1\n")
    with pytest.raises(BrokenData, match="not text in UTF-8"):
        part_of_kinetics(tmp_path, "train")
    (tmp_path / "val.csv").mkdir()
    with pytest.raises(BrokenData, match="cannot be read"):
        part_of_kinetics(tmp_path, "val")


def test_what_is_wrong_with_a_folder(folder):
    with pytest.raises(BrokenData, match=r"does not hold train/ or train\.csv"):
        kinetics(folder / "train")
    with pytest.raises(BrokenData, match="is not a folder that holds"):
        kinetics(folder / "nowhere")
    (folder / "val" / CLASSES[1]).rename(folder / "val" / "juggling")
    with pytest.raises(BrokenData, match=r"juggling is in|head is in"):
        kinetics(folder)
    for path in (folder / "train" / CLASSES[0]).iterdir():
        path.unlink()
    with pytest.raises(BrokenData, match=r"holds no video \(.mp4, "):
        kinetics(folder)
    with pytest.raises(ValueError, match="expected one of train, val"):
        part_of_kinetics(folder, "test")


# -- which times ---------------------------------------------------------------------------------


def test_a_clip_is_8_pictures_8_frames_apart():
    sampling = Sampling()
    assert sampling.seconds == pytest.approx(64 / 30)
    assert sampling.times(1.0) == pytest.approx([1 + 8 * i / 30 for i in range(8)])
    # Of 300 frames, a clip of 64 leaves 236.
    spread = sampling.spread(10.0, 10)
    assert [clip[0] * 30 for clip in spread] == pytest.approx([236 * k / 10 for k in range(10)])
    assert sampling.at(1.5, 0.9) == sampling.times(0.0)  # shorter than a clip
    assert sampling.at(10.0, 1.0)[0] * 30 == pytest.approx(236)
    for bad in ({"frames": 0}, {"stride": 0}, {"fps": 0}, {"fps": float("nan")}):
        with pytest.raises(ValueError, match="expected at least 1 frame"):
            Sampling(**bad)


@pytest.mark.parametrize("rate", [15, 25, 30, 60])
def test_the_frame_rate_of_a_video_does_not_matter(tmp_path, rate):
    home = tmp_path / "a"
    home.mkdir()
    write_video(home / "a.mp4", 4 * rate, rate=rate)
    data = KineticsDataset(VideoFolder(tmp_path), whole, clips=2)
    views = data[0].views
    assert views.shape == (2, 3, 8, 48, 64)
    delta = 4 - 64 / 30
    for view, start in zip(views, (0, delta / 2), strict=True):
        wanted = [int((start + 8 * i / 30) * rate + 1e-4) for i in range(8)]
        assert numbers_of(view) == wanted


def test_a_short_video_ends_with_its_last_picture(tmp_path):
    home = tmp_path / "a"
    home.mkdir()
    write_video(home / "a.mp4", 20)
    for clips in (0, 3):
        views = KineticsDataset(VideoFolder(tmp_path), whole, clips=clips)[0].views
        for view in views:
            assert numbers_of(view) == [0, 8, 16, 19, 19, 19, 19, 19]


def test_a_random_clip_is_inside_of_the_video(folder):
    """And begins anywhere in what a clip leaves of it."""
    data = KineticsDataset(VideoFolder(folder / "train"), whole)
    starts = []
    for epoch in range(40):
        (view,) = data[epoch, 0].views
        numbers = np.array(numbers_of(view))
        assert set(np.diff(numbers)) == {8}
        assert numbers[0] >= 0
        assert numbers[-1] < 90
        starts.append(numbers[0])
    assert min(starts) <= 4
    assert max(starts) >= 21  # of 0 to 26
    assert len(set(starts)) > 12


def test_epoch_and_index_decide_alone(folder):
    videos = VideoFolder(folder / "train")
    make = train_transform(32, short=(32, 40))

    def data(seed=0):
        return KineticsDataset(videos, make, seed=seed)

    one, other = data(), data()
    keys = [(0, 3), (1, 3), (0, 2), (0, 3)]
    first = [one[key].views for key in keys]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    second = {key: other[key].views for key in reversed(keys)}
    assert torch.equal(torch.get_rng_state(), state)
    for key, views in zip(keys, first, strict=True):
        assert torch.equal(views, second[key])
    assert torch.equal(first[0], one[3].views)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], data(seed=1)[0, 3].views)


def test_workers_do_not_matter(folder):
    data = KineticsDataset(VideoFolder(folder / "train"), train_transform(32, short=(32, 40)))
    keys = [(2, index) for index in (5, 0, 3, 1)]
    batches = {
        workers: list(
            DataLoader(data, batch_size=2, sampler=keys, collate_fn=collate, num_workers=workers)
        )
        for workers in (0, 2)
    }
    for one, other in zip(batches[0], batches[2], strict=True):
        assert torch.equal(one.clips, other.clips)
        assert torch.equal(one.labels, other.labels)
    assert batches[0][0].indices.tolist() == [5, 0]


def collect_garbage(_):
    gc.collect()


def test_workers_of_a_process_that_has_read(folder):
    """Threads that this process left waiting could not be freed in a fork of it: it would hang."""
    data = KineticsDataset(VideoFolder(folder / "train"), train_transform(32, short=(32, 40)))
    gc.collect()
    gc.disable()  # so that all that reading leaves behind is there when the workers start
    try:
        first = [data[index].views for index in range(6)]
        loader = DataLoader(
            data,
            batch_size=None,
            num_workers=2,
            worker_init_fn=collect_garbage,
            multiprocessing_context="fork",
            timeout=60,
        )
        for view, example in zip(first, loader, strict=True):
            assert torch.equal(view, example.views)
    finally:
        gc.enable()


# -- views ---------------------------------------------------------------------------------------


def plain_views(pictures, size):
    """Three crops of decoded pictures, by hand."""
    from torchvision.transforms.v2.functional import resize

    height, width = pictures.shape[2:]
    if height < width:
        pictures = resize(pictures, [size, int(width / height * size)], antialias=True)
        across = pictures.shape[3] - size
        lefts = (0, -(-across // 2), across)
        return [pictures[:, :, :, left : left + size] for left in lefts]
    pictures = resize(pictures, [int(height / width * size), size], antialias=True)
    down = pictures.shape[2] - size
    return [pictures[:, :, top : top + size] for top in (0, -(-down // 2), down)]


@pytest.mark.parametrize("upright", [False, True])
def test_clips_times_crops(tmp_path, upright):
    home = tmp_path / "a"
    home.mkdir()
    path = write_video(home / "a.mp4", 90, size=(66, 48))
    if upright:
        turn(path, 0, 1, -1, 0)
    videos = VideoFolder(tmp_path)
    views = KineticsDataset(videos, **small_eval(clips=10))[0].views
    full = KineticsDataset(videos, whole, clips=10)[0].views
    assert views.shape == (30, 3, 8, 32, 32)
    assert full.shape == (10, 3, 8, *((66, 48) if upright else (48, 66)))
    for clip in range(10):
        crops = plain_views(full[clip].transpose(0, 1), 32)
        for number, crop in enumerate(crops):
            difference = views[3 * clip + number].int() - crop.transpose(0, 1).int()
            assert difference.abs().max() <= 1  # resize of one and of many may round differently
    assert not torch.equal(views[0], views[2])


@pytest.mark.parametrize(
    ("size", "short", "wanted"),
    [((256, 340), 256, (256, 340)), ((240, 320), 256, (256, 341)), ((640, 360), 300, (533, 300))],
)
def test_sizes_are_those_of_the_slowfast_code(size, short, wanted):
    assert resized(size, short) == wanted


def test_training_crops(tmp_path):
    home = tmp_path / "a"
    home.mkdir()
    write_video(home / "a.mp4", 70)
    make = train_transform(16, short=(32, 48), flip=0.5)
    torch.manual_seed(0)
    drawn = [make() for _ in range(300)]
    shorts = [crops.short for crops in drawn]
    assert (min(shorts), max(shorts)) == (32, 48)
    assert 110 < sum(crops.mirrored for crops in drawn) < 190
    data = KineticsDataset(VideoFolder(tmp_path), make)
    views = data[3, 0].views
    assert views.shape == (1, 3, 8, 16, 16)
    assert views.dtype == torch.uint8
    assert views.permute(0, 2, 3, 4, 1).is_contiguous()


def test_a_crop_can_be_anywhere_and_is_the_same_in_a_clip():
    picture = torch.arange(256).view(1, 16, 16).repeat(3, 1, 1).to(torch.uint8)
    corners = set()
    torch.manual_seed(0)
    for _ in range(400):
        crops = train_transform(13, short=(16, 16))()
        (one,), (other,) = crops(picture), crops(picture)
        assert torch.equal(one, other)
        found = int((one.flip(2) if crops.mirrored else one)[0, 0, 0])
        corners.add(divmod(found, 16))
    assert corners == {(top, left) for top in range(4) for left in range(4)}


@pytest.mark.parametrize(
    "make",
    [
        lambda: train_transform(224, short=(200, 320)),
        lambda: train_transform(0),
        lambda: train_transform(8, short=(20, 10)),
        lambda: eval_transform(256, short=224),
        lambda: eval_transform(0),
        lambda: KineticsDataset([], whole, clips=-1),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(ValueError, match="expected"):
        make()


# -- broken files --------------------------------------------------------------------------------


def spoil(folder):
    """Of class 0, two videos are broken."""
    home = folder / "train" / CLASSES[0]
    first, second = sorted(home.iterdir())[:2]
    write_sound(first)
    second.write_bytes(second.read_bytes()[:1000])
    return str(first), str(second)


def test_a_broken_video_is_replaced_in_training(folder):
    first, second = spoil(folder)
    data = KineticsDataset(VideoFolder(folder / "train"), whole)
    example = data[0, 0]
    assert example.views.shape == (1, 3, 8, 48, 64)
    assert (example.label, example.index) == (0, 0)
    assert [line.split(": ")[0] for line in example.broken] == [first, second]
    assert "sound alone" in example.broken[0]
    assert not data[0, 2].broken


def test_a_broken_video_is_left_out_of_an_evaluation(folder):
    first, _ = spoil(folder)
    data = KineticsDataset(VideoFolder(folder / "train"), **small_eval())
    example = data[0]
    assert (example.views, example.label) == (None, -1)
    batch = collate([example, data[2], data[3]])
    assert len(batch) == 2
    assert batch.labels.tolist() == [0, 1]
    assert batch.indices.tolist() == [2, 3]
    assert batch.broken == [f"{first}: it holds sound alone"]
    nothing = collate([example])
    assert len(nothing) == 0
    assert nothing.clips.shape[0] == 0
    assert len(nothing.broken) == 1


def test_a_whole_disk_that_is_gone(folder):
    videos = VideoFolder(folder / "train")
    shutil.rmtree(folder)
    with pytest.raises(BrokenData, match="6 videos in a row cannot be read: is the disk still"):
        KineticsDataset(videos, whole)[0]
    with pytest.raises(IndexError, match="holds 6 videos"):
        KineticsDataset(videos, whole)[6]


def test_a_picture_like_a_thread(tmp_path):
    home = tmp_path / "a"
    home.mkdir()
    write_video(home / "a.mp4", 3, size=(640, 16))
    example = KineticsDataset(VideoFolder(tmp_path), **small_eval())[0]
    assert "640×16 pixels are no picture to crop" in example.broken[0]


# -- batches -------------------------------------------------------------------------------------


def test_a_batch(folder):
    data = KineticsDataset(VideoFolder(folder / "val"), **small_eval())
    batch = collate([data[0], data[1]])
    assert batch.clips.shape == (2, 6, 3, 8, 32, 32)
    assert batch.clips.permute(0, 1, 3, 4, 5, 2).is_contiguous()
    assert len(batch.views) == 6
    assert torch.equal(batch.views[4][1], data[1].views[4])
    other = batch.to("cpu")
    assert torch.equal(other.clips, batch.clips)
    meta = batch.to("meta")
    assert {meta.clips.device.type, meta.labels.device.type, meta.indices.device.type} == {"meta"}
    assert isinstance(data[0], Example)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned(folder):
    data = KineticsDataset(VideoFolder(folder / "val"), **small_eval())
    batch = collate([data[0]]).pin_memory()
    assert batch.clips.is_pinned()
    assert batch.labels.is_pinned()
