"""``gclib bench loaders``: clips of videos, read here and by the obvious other ways.

All ways read the same clips of the same files in one run, in turns, each with one thread: a
training has a process for each core. All get the seconds of the wanted pictures, and what they
decode goes through the same crops. First their pictures are compared with ours.

==========================  ========================================================================
gclib                       :class:`gclib.datasets.videos.Video`
PyAV, whole file            decodes and converts all pictures, then takes the wanted ones
PyAV, from the start        decodes all pictures up to the last wanted one, converts the wanted ones
PyAV, from a key frame      as the SlowFast code: seeks for each clip, decodes up to its end
OpenCV, from the start      grabs all pictures up to the last wanted one, converts the wanted ones
OpenCV, seeking             seeks for each picture
decord, torchcodec          batches of the wanted pictures; torchcodec by time, decord by number
==========================  ========================================================================

OpenCV, decord and torchcodec are measured where they are installed. torchvision's ``read_video``
is not: its newer versions have none.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import gc
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gclib.bench.measure import OtherLoad, median_interval
from gclib.bench.report import ALIKE
from gclib.datasets.images import drawing_from
from gclib.datasets.kinetics import (
    SUFFIXES,
    Sampling,
    as_views,
    eval_transform,
    read_views,
    train_transform,
)
from gclib.datasets.videos import BrokenVideo, Video

TASKS = ("training clip", "30 views")
OURS = "gclib"
SIZE, RATE, SECONDS = (340, 256), 30, 10.0  # of a video of Kinetics
GROUPS = (250, 30)  # pictures from a key frame to the next: x264's default, and a small one
VIDEOS, CLIPS = 2, 2  # files of a kind, and training clips of each


Take = Callable[[np.ndarray], Any]
Read = Callable[[str, Sequence[Sequence[float]], Take], list[Any]]


class Job(NamedTuple):
    """Clips of a file: the seconds of their pictures, and the crops."""

    path: str
    clips: list[list[float]]
    crops: Callable[[Tensor], Sequence[Tensor]]


# -- files ---------------------------------------------------------------------------------------


def make_videos(
    folder: Path, group: int, *, count: int = VIDEOS, seconds: float = SECONDS
) -> list[str]:
    """Generated H.264 videos of Kinetics' size: a texture that moves, and a part that moves apart.

    Args:
        folder: made if it is not there.
        group: pictures from a key frame to the next.
        count: number of files.
        seconds: length of each.
    """
    import av

    folder.mkdir(parents=True, exist_ok=True)
    width, height = SIZE
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        ground, thing = _texture(rng, 2 * height, 2 * width), _texture(rng, 96, 96)
        speed, path = rng.uniform(0.3, 1.5, 2), folder / f"{number}.mp4"
        with av.open(str(path), "w") as file:
            options = {"g": str(group), "keyint_min": str(group), "sc_threshold": "0"}
            stream = file.add_stream("libx264", rate=RATE, options=options | {"preset": "fast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.time_base = Fraction(1, RATE)
            stream.codec_context.thread_count = 1
            for at in range(round(seconds * RATE)):
                top, left = (
                    int(limit * (0.5 + 0.5 * math.sin(v * at / RATE)))
                    for limit, v in zip((height, width), speed, strict=True)
                )
                picture = ground[top : top + height, left : left + width].copy()
                down, across = (
                    int((limit - 96) * (0.5 + 0.5 * math.cos(2 * v * at / RATE)))
                    for limit, v in zip((height, width), speed, strict=True)
                )
                picture[down : down + 96, across : across + 96] = thing
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = at, Fraction(1, RATE)
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        paths.append(str(path))
    return paths


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise of several sizes, as photographs have it."""
    total = np.zeros((height, width, 3))
    for step, weight in ((64, 1.0), (16, 0.5), (4, 0.25), (1, 0.06)):
        coarse = rng.random((-(-height // step), -(-width // step), 3)) - 0.5
        total += weight * coarse.repeat(step, 0).repeat(step, 1)[:height, :width]
    return (128 + 140 * total).clip(0, 255).astype(np.uint8)


def find_videos(folder: Path) -> list[str]:
    """Video files of a folder and the folders in it; ValueError if there is none."""
    found = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"--videos {folder}: no video there ({', '.join(SUFFIXES)})")
    return found


def jobs_of(task: str, paths: Iterable[str], clips: int = CLIPS) -> list[Job]:
    """What is read of files; one that cannot be read is left out, with a line."""
    sampling, draw = Sampling(), random.Random(0)
    make = train_transform() if task == TASKS[0] else eval_transform()
    jobs = []
    for path in paths:
        try:
            with Video(path) as video:
                length = video.duration
        except BrokenVideo as error:
            print(error, file=sys.stderr)
            continue
        if task == TASKS[0]:
            wanted = [[sampling.at(length, draw.random())] for _ in range(clips)]
        else:
            wanted = [sampling.spread(length, 10)]
        for number, one in enumerate(wanted):
            with drawing_from(number):
                jobs.append(Job(path, one, make()))
    return jobs


# -- the ways ------------------------------------------------------------------------------------


def _ours(path: str, clips: Sequence[Sequence[float]], take: Take) -> list[Any]:
    with Video(path) as video:
        times = [time for clip in clips for time in clip]
        return video.read(times, lambda picture: take(picture.permute(1, 2, 0).numpy()))[0]


def _rgb(frame: Any) -> np.ndarray:
    return frame.to_ndarray(format="rgb24", threads=1)


@contextlib.contextmanager
def _pyav(path: str) -> Iterator[tuple[Any, Any, Callable[[Any], float]]]:
    """A file, its track, and what gives the seconds of a picture."""
    import av

    with av.open(path) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        first = stream.start_time or 0
        yield file, stream, lambda frame: float((frame.pts - first) * stream.time_base)


def _whole(path: str, clips: Sequence[Sequence[float]], take: Take) -> list[Any]:
    with _pyav(path) as (file, stream, seconds):
        found = [(seconds(frame), _rgb(frame)) for frame in file.decode(stream)]
    stamps = [stamp for stamp, _ in found]
    made: dict[int, Any] = {}
    places = [_place(stamps, time) for clip in clips for time in clip]
    for place in places:
        if place not in made:
            made[place] = take(found[place][1])
    return [made[place] for place in places]


def _place(stamps: list[float], time: float) -> int:
    return max(0, bisect.bisect_right(stamps, time + 1e-6) - 1)


def _from_the_start(path: str, clips: Sequence[Sequence[float]], take: Take) -> list[Any]:
    with _pyav(path) as (file, stream, seconds):
        return _decode_on(
            file.decode(stream), [time for clip in clips for time in clip], seconds, take
        )


def _from_a_key_frame(path: str, clips: Sequence[Sequence[float]], take: Take) -> list[Any]:
    results = []
    with _pyav(path) as (file, stream, seconds):
        for clip in clips:
            tick = (stream.start_time or 0) + int(min(clip) / stream.time_base)
            file.seek(tick, stream=stream)
            results += _decode_on(file.decode(stream), clip, seconds, take)
    return results


def _decode_on(
    frames: Iterator[Any], times: Sequence[float], seconds: Callable[[Any], float], take: Take
) -> list[Any]:
    """Decode up to the last time; the picture at each."""
    order = sorted(range(len(times)), key=times.__getitem__)
    results: list[Any] = [None] * len(times)
    done, before, made = 0, None, None
    for frame in frames:
        stamp = seconds(frame)
        while before is not None and done < len(order) and times[order[done]] + 1e-6 < stamp:
            made = take(_rgb(before)) if made is None else made
            results[order[done]] = made
            done += 1
        if done == len(order):
            return results
        before, made = frame, None
    for place in order[done:]:
        made = take(_rgb(before)) if made is None else made
        results[place] = made
    return results


@contextlib.contextmanager
def _opencv(path: str) -> Iterator[tuple[Any, Callable[[float], int]]]:
    import cv2

    cv2.setNumThreads(1)
    file = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not file.isOpened():
            raise RuntimeError("the file cannot be opened")
        yield file, _numbering(file.get(cv2.CAP_PROP_FPS), file.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        file.release()


def _numbering(fps: float, count: float) -> Callable[[float], int]:
    """Number of the picture at a time, if all are as far from each other."""
    return lambda time: min(int((time + 1e-6) * fps), int(count) - 1)


def _opencv_start(path: str, clips: Sequence[Sequence[float]], take: Take) -> list[Any]:
    import cv2

    with _opencv(path) as (file, number):
        places = [number(time) for clip in clips for time in clip]
        wanted, made = set(places), {}
        for at in range(max(places) + 1):
            if not file.grab():
                raise RuntimeError(f"picture {at} cannot be read")
            if at in wanted:
                made[at] = take(cv2.cvtColor(file.retrieve()[1], cv2.COLOR_BGR2RGB))
    return [made[at] for at in places]


def _opencv_seeking(path: str, clips: Sequence[Sequence[float]], take: Take) -> list[Any]:
    import cv2

    with _opencv(path) as (file, number):
        places = [number(time) for clip in clips for time in clip]
        made = {}
        for at in sorted(set(places)):
            file.set(cv2.CAP_PROP_POS_FRAMES, at)
            good, picture = file.read()
            if not good:
                raise RuntimeError(f"picture {at} cannot be read")
            made[at] = take(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    return [made[at] for at in places]


def _decord(path: str, clips: Sequence[Sequence[float]], take: Take) -> list[Any]:
    import decord

    file = decord.VideoReader(path, num_threads=1)
    number = _numbering(file.get_avg_fps(), len(file))
    places = [number(time) for clip in clips for time in clip]
    wanted = sorted(set(places))
    pictures = file.get_batch(wanted).asnumpy()
    made = {at: take(picture) for at, picture in zip(wanted, pictures, strict=True)}
    return [made[at] for at in places]


def _torchcodec(mode: str) -> Read:
    def read(path: str, clips: Sequence[Sequence[float]], take: Take) -> list[Any]:
        from torchcodec.decoders import VideoDecoder

        file = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode=mode)
        first, end = file.metadata.begin_stream_seconds or 0.0, file.metadata.end_stream_seconds
        times = [time for clip in clips for time in clip]
        wanted = sorted(set(times))
        # It refuses times behind the end.
        found = file.get_frames_played_at([min(first + time + 1e-6, end - 1e-3) for time in wanted])
        made: dict[float, Any] = {}
        results: dict[float, Any] = {}
        for at, stamp, picture in zip(wanted, found.pts_seconds.tolist(), found.data, strict=True):
            if stamp not in made:
                made[stamp] = take(picture.numpy())
            results[at] = made[stamp]
        return [results[at] for at in times]

    return read


WAYS: dict[str, Read] = {
    OURS: _ours,
    "PyAV, whole file": _whole,
    "PyAV, from the start": _from_the_start,
    "PyAV, from a key frame": _from_a_key_frame,
    "OpenCV, from the start": _opencv_start,
    "OpenCV, seeking": _opencv_seeking,
    "decord": _decord,
    "torchcodec": _torchcodec("exact"),
    "torchcodec, approximate": _torchcodec("approximate"),
}


def views(way: str, job: Job) -> Tensor:
    """The crops of a job, uint8 ``(V, 3, T, H, W)``."""
    if way == OURS:
        with Video(job.path) as video:
            return read_views(video, job.clips, job.crops)
    found = WAYS[way](
        job.path, job.clips, lambda picture: job.crops(torch.from_numpy(picture).permute(2, 0, 1))
    )
    return as_views(found, len(job.clips))


# -- measuring -----------------------------------------------------------------------------------


def run(
    *, videos: Path | None = None, rounds: int = 7, quick: bool = False
) -> list[dict[str, Any]]:
    """Compare the pictures, then time all ways in turns, then look at their memory.

    Args:
        videos: a folder of video files; None: generated ones.
        rounds: runs of each.
        quick: short files, to try the command.

    Returns:
        A record for each kind of files, task and way: pictures a second, processor seconds of a
        clip (median, interval), their ratio to ours, peak memory in bytes, and the smallest ratio
        of signal to noise beside our pictures (None: they are the same). A way that cannot be
        measured has ``left_out``, the reason.

    Raises:
        ValueError: no videos there, or none can be read.
        MissingLibrary: PyAV is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="gclib-bench-") as scratch:
        if videos is not None:
            kinds = {"yours": find_videos(videos)}
        else:
            how = {"count": 1, "seconds": 2.5} if quick else {}
            kinds = {
                f"a key frame every {group} pictures": make_videos(
                    Path(scratch, str(group)), group, **how
                )
                for group in GROUPS
            }
        records = []
        for kind, paths in kinds.items():
            for task in TASKS:
                print(f"{kind}: {task}", file=sys.stderr, flush=True)
                about = {"files": kind, "count": len(paths), "task": task}
                records += [about | found for found in _measure(task, paths, rounds)]
    return records


def _measure(task: str, paths: list[str], rounds: int) -> list[dict[str, Any]]:
    jobs = jobs_of(task, paths)
    if not jobs:
        raise ValueError("none of the videos can be read")
    records, ways = [], {}
    for way in WAYS:
        try:
            ways[way] = _agreement(way, jobs)
        except ImportError as error:
            name = way.split(",")[0]
            missing = (error.name or "").split(".")[0] in ("cv2", "decord", "torchcodec")
            reason = f"{name} is not installed" if missing else f"{name} cannot be loaded"
            records.append({"way": way, "left_out": reason})
        except Exception as error:  # of somebody else's library: it may be anything
            last = str(error).strip().split("\n")[0][:200]
            records.append({"way": way, "left_out": f"{type(error).__name__}: {last}"})
    with _one_thread():
        wall, cpu, load = _rounds(list(ways), jobs, rounds)
    clips = sum(len(job.clips) for job in jobs)
    pictures = sum(len(clip) for job in jobs for clip in job.clips)
    found = []
    for way, psnr in ways.items():
        each = [seconds / clips for seconds in cpu[way]]
        ratios = [theirs / ours for theirs, ours in zip(cpu[way], cpu[OURS], strict=True)]
        low, high = median_interval(each)
        ratio_low, ratio_high = median_interval(ratios)
        found.append(
            {
                "way": way,
                "rounds": rounds,
                "median": statistics.median(each),
                "low": low,
                "high": high,
                "frames_per_s": pictures / statistics.median(wall[way]),
                "ratio": statistics.median(ratios),
                "ratio_low": ratio_low,
                "ratio_high": ratio_high,
                "peak": _peak(way, jobs[0]),
                "psnr": psnr,
                "other_load": load,
            }
        )
    return found + records


def _agreement(way: str, jobs: list[Job]) -> float | None:
    """Smallest ratio of signal to noise, in dB, beside our pictures; None if they are the same."""
    if way == OURS:
        return None
    least = math.inf
    for job in jobs:
        ours = WAYS[OURS](job.path, job.clips, np.array)
        theirs = WAYS[way](job.path, job.clips, np.array)
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if one.shape != other.shape:
                raise ValueError(f"pictures of {other.shape}, and not of {one.shape}")
            error = np.square(one.astype(np.float64) - other).mean()
            decibel = math.inf if not error else 10 * math.log10(255**2 / error)
            if decibel < ALIKE:
                at = [second for clip in job.clips for second in clip][number]
                line = f"{way} gives another picture of {job.path} at {at:.3f} s ({decibel:.1f} dB)"
                print(line, file=sys.stderr, flush=True)
            least = min(least, decibel)
    return None if math.isinf(least) else least


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rounds(
    ways: list[str], jobs: list[Job], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], float]:
    """Seconds of the clock and of the processor of each way and round; load of other programs."""
    order, others, loads = random.Random(0), OtherLoad(), []
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        others()
        for way in order.sample(ways, len(ways)):
            begin, busy = time.perf_counter(), time.process_time()
            for job in jobs:
                views(way, job)
            wall[way].append(time.perf_counter() - begin)
            cpu[way].append(time.process_time() - busy)
        loads.append(others())
    return wall, cpu, max(loads)


def _peak(way: str, job: Job) -> int | None:
    """Bytes that this process holds at most while it reads, over what it holds before (Linux)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier calls have freed goes back
    before = _memory("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the largest begins anew
    except OSError:
        return None
    views(way, job)
    most = _memory("VmHWM")
    return None if before is None or most is None else max(0, most - before)


def _memory(name: str) -> int | None:
    """Bytes of this process, as Linux tells them."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))
