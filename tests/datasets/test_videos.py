"""The picture that a player would show, from any file, and no crash or hang."""

import bisect
import contextlib
import gc
import os
import random
import resource
import struct
import sys

import numpy as np
import pytest
import torch

av = pytest.importorskip("av", reason="PyAV is not installed")

from made_videos import number_of, picture, turn, write_sound, write_video  # noqa: E402

from gclib.datasets import videos  # noqa: E402
from gclib.datasets.coco_masks import MissingLibrary  # noqa: E402
from gclib.datasets.files import BrokenData  # noqa: E402
from gclib.datasets.videos import BrokenVideo, Video, turned  # noqa: E402


def decoded(path):
    """All pictures and their seconds, the plain way."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        found = [
            (float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in file.decode(stream)
        ]
        first = float((stream.start_time or 0) * stream.time_base)
    return [time - first for time, _ in found], [image for _, image in found]


def uneven(count):
    """Ticks with distances of 1 to 9."""
    steps = random.Random(0).choices(range(1, 10), k=count)
    return np.cumsum([0, *steps[:-1]]).tolist()


KINDS = {
    "H.264 with B-frames": ("a.mp4", {}),
    "H.264, open groups": (
        "a.mp4",
        {"options": {"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}},
    ),
    "H.264 without B-frames": ("a.mp4", {"options": {"g": "25", "bf": "0"}}),
    "H.264, one key frame": ("a.mp4", {"options": {"g": "999", "bf": "2", "sc_threshold": "0"}}),
    "H.264, key frames alone": ("a.mp4", {"options": {"g": "1"}}),
    "uneven times": ("a.mp4", {"ticks": uneven(60)}),
    "uneven times, Matroska": ("a.mkv", {"ticks": uneven(60)}),
    "29.97 frames/s": ("a.mp4", {"rate": 30000, "ticks": [1001 * i for i in range(60)]}),
    "Matroska": ("a.mkv", {}),
    "MPEG-TS": ("a.ts", {}),
    "AVI, MPEG-4": ("a.avi", {"codec": "mpeg4", "options": {"g": "12"}}),
    "AVI, MPEG-4 with B-frames": ("a.avi", {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}}),
    "WebM, VP8": ("a.webm", {"codec": "libvpx", "options": {"deadline": "realtime", "g": "20"}}),
    "fragmented": ("a.mp4", {"container": {"movflags": "frag_keyframe+empty_moov"}}),
    "begins late": ("a.mp4", {"ticks": list(range(17, 77))}),
    "odd sizes": ("a.mp4", {"size": (65, 47), "pixels": "yuv444p"}),
    "grey": ("a.mp4", {"pixels": "gray"}),
    "with sound": ("a.mp4", {"sound": True}),
    "MPEG-PS without times for all": (
        "a.mpg",
        {"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "b": "2000000"}},
    ),
    "H.265, open groups": (
        "a.mp4",
        {
            "codec": "libx265",
            "options": {
                "x265-params": "log-level=none:keyint=12:min-keyint=12:scenecut=0:bframes=3:"
                "open-gop=1:pools=none:frame-threads=1"
            },
        },
    ),
    "VP9 with transparency": (
        "a.webm",
        {
            "codec": "libvpx-vp9",
            "pixels": "yuva420p",
            "options": {"deadline": "realtime", "cpu-used": "8", "g": "20"},
        },
    ),
    "a run of colours with transparency": (
        "a.mov",
        {"codec": "qtrle", "pixels": "argb", "options": {}},
    ),
    "10 bits": ("a.mp4", {"pixels": "yuv420p10le"}),
    "10 bits, all colours": ("a.mp4", {"pixels": "yuv444p10le"}),
    "one pixel wide": ("a.mp4", {"size": (1, 48), "pixels": "yuv444p"}),
    "times below 0": ("a.mkv", {"ticks": list(range(-5, 55))}),
    "times below 0 between decoding and showing": (
        "a.mp4",
        {"container": {"movflags": "negative_cts_offsets"}},
    ),
    "no edit list": ("a.mp4", {"container": {"use_editlist": "0"}}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_on_the_screen(tmp_path, kind):
    name, options = KINDS[kind]
    path = write_video(tmp_path / name, **options)
    stamps, images = decoded(path)
    assert len(images) == 60
    draw = random.Random(1)
    with Video(path) as video:
        assert video.duration == pytest.approx(stamps[-1], abs=0.4)
        sets = [[draw.uniform(-0.5, stamps[-1] + 0.5) for _ in range(8)] for _ in range(6)]
        sets += [[draw.uniform(0, stamps[-1])] for _ in range(6)] + [stamps, stamps[::-1]]
        for times in sets:
            pictures, seconds = video.read(times)
            for time, image, second in zip(times, pictures, seconds, strict=True):
                place = max(0, bisect.bisect_right(stamps, time + 1e-6) - 1)
                assert second == pytest.approx(stamps[place], abs=1e-9)
                assert np.array_equal(image.permute(1, 2, 0).numpy(), images[place])


def test_an_edit_list_cuts_the_beginning_off(tmp_path):
    path = write_video(tmp_path / "a.mp4", ticks=list(range(-5, 55)))  # written as an edit list
    with Video(path) as video:
        assert video.duration == pytest.approx(55 / 30, abs=0.001)
        assert video.read([0.0, 1.0, 9.0], number_of) == ([5, 35, 59], [0.0, 1.0, 1.8])


def test_a_picture_is_bytes_in_channels_last_order(tmp_path):
    with Video(write_video(tmp_path / "a.mp4", count=2)) as video:
        (image,), _ = video.read([0.0])
    assert (image.dtype, image.shape) == (torch.uint8, (3, 48, 64))
    assert image.permute(1, 2, 0).is_contiguous()
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - picture(0)).max() < 30


def test_only_what_is_needed_is_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", count=250)  # a key frame every 25 pictures
    sent = []
    groups = videos._groups

    def counted(packets, needed):
        for group in groups(packets, needed):
            sent.append(len(group))
            yield group

    monkeypatch.setattr(videos, "_groups", counted)
    with Video(path) as video:
        pictures, _ = video.read([3.0, 7.9])
        assert [number_of(image) for image in pictures] == [90, 237]
        assert len(sent) == 2
        assert sum(sent) < 40
        sent.clear()
        video.read([0.1, 0.1, 7.9])  # too far from each other to read on
        assert len(sent) == 2


def test_a_picture_is_changed_once(tmp_path):
    calls = []

    def change(image):
        calls.append(number_of(image))
        return calls[-1]

    with Video(write_video(tmp_path / "a.mp4")) as video:
        numbers, seconds = video.read([1.0, 0.0, 1.001, 0.5], change)
        assert (numbers, seconds) == ([30, 0, 30, 15], [1.0, 0.0, 1.0, 0.5])
        assert sorted(calls) == [0, 15, 30]
        assert video.read([]) == ([], [])


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted as Linux does")
def test_no_thread_is_left(tmp_path):
    """A DataLoader forks: what waits for another thread there waits for ever."""
    path = write_video(tmp_path / "a.mp4")
    gc.collect()
    before = len(os.listdir("/proc/self/task"))
    with Video(path) as video:
        video.read([0.0, 1.0], lambda image: None)
        assert len(os.listdir("/proc/self/task")) == before


def test_pictures_are_freed_without_a_collection(tmp_path):
    path = write_video(tmp_path / "a.mp4", count=30)
    gc.collect()
    gc.disable()
    try:
        with Video(path) as video:
            video.read([number / 30 for number in range(30)], lambda image: None)
        frames = [thing for thing in gc.get_objects() if type(thing) is av.VideoFrame]
        # At most the small copy whose side data was looked at.
        assert not [frame for frame in frames if frame.width * frame.height > 64]
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [ValueError, BrokenVideo])
def test_an_error_of_the_change_is_not_the_files(tmp_path, error):
    def change(image):
        raise error("a.mp4", "mine")

    with (
        Video(write_video(tmp_path / "a.mp4")) as video,
        pytest.raises(error, match="mine") as caught,
    ):
        video.read([1.0], change)
    assert type(caught.value) is error


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_short_video_ends_with_its_last_picture(tmp_path, count):
    with Video(write_video(tmp_path / "a.mp4", count=count)) as video:
        assert video.duration == pytest.approx(count / 30, abs=0.001)
        pictures, _ = video.read([0.0, 0.05, 1.0, 60.0])
        assert [number_of(image) for image in pictures] == [
            0,
            min(1, count - 1),
            count - 1,
            count - 1,
        ]


# a, b, c, d of the file, and what a player does.
TURNS = {
    "as it is": ((1, 0, 0, 1), lambda image: image),
    "a quarter to the right": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "a half": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "a quarter to the left": ((0, -1, 1, 0), lambda image: np.rot90(image)),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("how", TURNS)
def test_turned_as_the_file_says(tmp_path, how):
    matrix, turned_by_hand = TURNS[how]
    path = turn(write_video(tmp_path / "a.mp4", count=7), *matrix)
    with Video(path) as video:
        (image,), _ = video.read([5 / 30])
    with av.open(str(path)) as file:  # as it is stored
        stored = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)][5]
    assert np.array_equal(image.permute(1, 2, 0).numpy(), turned_by_hand(stored))


def test_a_matrix_moves_each_pixel_where_it_says():
    image = np.arange(2 * 3).reshape(2, 3, 1).repeat(3, 2)
    for a, b, c, d in [matrix for matrix, _ in TURNS.values()]:
        shown = turned(image, [a, b, 0, c, d, 0, 0, 0, 1])
        points = {
            (a * p + c * q, b * p + d * q): image[q, p, 0] for q in range(2) for p in range(3)
        }
        left, top = min(x for x, _ in points), min(y for _, y in points)
        for (x, y), value in points.items():
            assert shown[y - top, x - left, 0] == value


# -- files that are no videos --------------------------------------------------------------------


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def hostile(folder, kind):
    path = folder / "a.mp4"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("hello " * 1000)
    elif kind == "noise":
        path.write_bytes(random.Random(0).randbytes(100_000))
    elif kind == "a link to nowhere":
        path.symlink_to(folder / "nowhere")
    elif kind == "sound":
        write_sound(path)
    elif kind == "sound with a cover":
        path = write_sound(path, cover=True)
    elif kind == "cut off":
        cut(write_video(path), 0.6)
    elif kind == "a playlist":
        path.write_text("#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    return path


REASONS = {
    "nothing": "cannot be opened",
    "a folder": "not a file",
    "a pipe": "not a file",
    "empty": "the file is empty",
    "text": "not a video",
    "noise": "not a video",
    "a link to nowhere": "cannot be opened",
    "sound": "sound alone",
    "sound with a cover": "sound alone",
    "cut off": "not a video",
    "a playlist": "not a video",
}


@pytest.mark.parametrize("kind", REASONS)
def test_what_is_wrong_is_said(tmp_path, kind):
    path = hostile(tmp_path, kind)
    with pytest.raises(BrokenVideo, match=REASONS[kind]) as caught:
        Video(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert isinstance(caught.value, BrokenData)


def test_a_file_that_is_cut_off(tmp_path):
    """What is there is read right; what is not there is not made up."""
    path = write_video(tmp_path / "a.mp4", count=200, container={"movflags": "faststart"})
    _, images = decoded(path)
    cut(path, 0.8)
    with Video(path) as video:
        (image,), _ = video.read([0.5])
        assert np.array_equal(image.permute(1, 2, 0).numpy(), images[15])
        assert video.duration == pytest.approx(200 / 30)
        for time in (5.5, video.duration):
            with pytest.raises(BrokenVideo, match=r"is cut off or damaged behind [34]\.\d s"):
                video.read([time])


def test_a_file_that_is_cut_off_between_two_packets(tmp_path):
    path = write_video(tmp_path / "a.mp4", count=200, container={"movflags": "faststart"})
    with av.open(str(path)) as file:
        ends = [packet.pos + packet.size for packet in file.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: ends[99]])
    with Video(path) as video:
        numbers, _ = video.read([3.0, 2.0], number_of)
        assert numbers == [90, 60]
        with pytest.raises(BrokenVideo, match=r"ends at 3\.\d s, and its header says 6\.7 s"):
            video.read([3.0, 4.0])


def test_a_cut_matroska_has_a_length_in_its_header(tmp_path):
    path = cut(write_video(tmp_path / "a.mkv", count=200), 0.5)
    with pytest.raises(BrokenVideo, match=r"ends at \d\.\d s, and its header says 6\.7 s"):
        Video(path)


def test_a_cut_transport_stream_is_a_shorter_video(tmp_path):
    with Video(cut(write_video(tmp_path / "a.ts", count=200), 0.5)) as video:
        assert 2 < video.duration < 5
        assert video.read([2.0], number_of)[0] == [60]


def test_damage_is_found_where_it_is(tmp_path):
    path = write_video(tmp_path / "a.mp4", count=200, container={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    middle = len(data) * 3 // 4
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    _, images = decoded(write_video(tmp_path / "b.mp4", count=200))
    with Video(path) as video:
        (image,), _ = video.read([0.5])
        assert np.array_equal(image.permute(1, 2, 0).numpy(), images[15])
        with pytest.raises(BrokenVideo, match=r"damaged|cannot be decoded"):
            video.read([number / 30 for number in range(200)])


def test_a_header_without_pictures(tmp_path):
    """The index is there, and the pictures that it speaks of are not."""
    path = write_video(tmp_path / "a.mp4", container={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") - 4])
    with Video(path) as video, pytest.raises(BrokenVideo, match="none of its pictures"):
        video.read([0.0])


def patched(path, box, offset, form, *values):
    """Other numbers in a box of an MP4."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(box) + 4 + offset, *values)
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def little_memory():
    """The process may not grow by 100 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 * (1024 if sys.platform == "linux" else 2**20)


BILLION = 10**9


@pytest.mark.parametrize(
    ("box", "offset", "values"),
    [
        (b"stsz", 8, (BILLION,)),  # so many sizes
        (b"stsz", 4, (20, BILLION)),  # so many pictures of 20 bytes
        (b"stsz", 4, (1, 150_000_000)),
        (b"stts", 8, (BILLION,)),  # so many times
        (b"stts", 12, (BILLION,)),  # so long each
        (b"mdhd", 16, (4 * BILLION,)),  # so long in all
        (b"avc1", 24, (0xFFFFFFFF,)),  # so large
    ],
)
def test_a_header_may_say_what_it_likes(tmp_path, box, offset, values):
    """A small file never takes much memory, and what is read is right."""
    path = patched(write_video(tmp_path / "a.mp4"), box, offset, f">{len(values)}I", *values)
    with little_memory(), contextlib.suppress(BrokenVideo), Video(path) as video:
        assert video.read([0.0], number_of)[0] == [0]


def test_an_avi_of_a_billion_pictures(tmp_path):
    path = write_video(tmp_path / "a.avi", codec="mpeg4", options={})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, BILLION)
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, BILLION)
    path.write_bytes(data)
    with Video(path) as video, pytest.raises(BrokenVideo, match=r"ends at 2\.0 s, and its header"):
        video.read([1.0, video.duration])


def test_a_huge_picture_behind_a_small_header(tmp_path):
    """It is refused before there is room made for it: 10,000 × 10,000 pixels are 300 MB."""
    path = write_video(tmp_path / "a.mov", count=3, codec="png", pixels="rgb24", options={})
    data = bytearray(path.read_bytes())
    at = data.index(b"IHDR")
    while at >= 0:
        struct.pack_into(">II", data, at + 4, 10_000, 10_000)
        at = data.find(b"IHDR", at + 1)
    path.write_bytes(data)
    refused = pytest.raises(BrokenVideo, match=r"cannot be decoded behind 0\.0 s")
    with little_memory(), refused, Video(path) as video:
        video.read([0.0])


def test_the_size_changes_in_the_middle(tmp_path):
    path, options = tmp_path / "a.mpg", {"codec": "mpeg2video", "options": {"b": "2000000"}}
    one = write_video(tmp_path / "1.mpg", 30, **options)
    later = list(range(30, 60))
    other = write_video(tmp_path / "2.mpg", 30, size=(96, 80), ticks=later, **options)
    path.write_bytes(one.read_bytes() + other.read_bytes())
    with Video(path) as video:
        (first, last), _ = video.read([0.2, video.duration])
        assert (first.shape, last.shape) == ((3, 48, 64), (3, 80, 96))
        assert number_of(first) == 6


def test_transport_streams_one_after_the_other(tmp_path):
    """As ``cat`` joins them, so that the times begin anew: the damage at the seam is reported."""
    path = tmp_path / "a.ts"
    path.write_bytes(write_video(tmp_path / "1.ts", 30).read_bytes() * 2)
    with Video(path) as video, pytest.raises(BrokenVideo, match=r"damaged behind 0\.\d s"):
        video.read([0.5, 1.5])


def test_packets_of_a_long_film_are_not_all_held(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setattr(videos, "_MOST", 100)
    monkeypatch.setattr(videos.Video, "_decode", None)  # from its start instead
    with Video(path) as video:
        assert video.read([0.5, 1.5], number_of)[0] == [15, 45]


def test_too_many_pixels(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", count=2)
    monkeypatch.setattr(videos, "MAX_PIXELS", 1000)
    with pytest.raises(BrokenVideo, match=r"64×48 is more than 1,000 pixels"):
        Video(path)


def survives(data, path):
    """Read, or named with a reason; anything else is raised."""
    path.write_bytes(data)
    try:
        with Video(path) as video:
            video.read([0.0, video.duration / 2, video.duration])
    except BrokenVideo:
        return False
    return True


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_random_damage_never_crashes(tmp_path, name):
    codec = {"codec": "mpeg4", "options": {}} if name == "a.avi" else {}
    data = write_video(tmp_path / name, count=20, size=(32, 32), **codec).read_bytes()
    draw = random.Random(0)
    good = 0
    for number in range(40):
        hurt = bytearray(data)
        for _ in range(draw.choice((1, 5, 50))):
            hurt[draw.randrange(len(hurt) if number % 2 else min(len(hurt), 900))] = draw.randrange(
                256
            )
        if number % 5 == 4:
            hurt = hurt[: draw.randrange(len(hurt))]
        good += survives(bytes(hurt), tmp_path / f"hurt{name[1:]}")
    assert 0 < good < 40


def test_without_pyav(monkeypatch, tmp_path):
    path = write_video(tmp_path / "a.mp4", count=2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingLibrary, match=r"pip install 'gclib\[train\]'"):
        Video(path)
