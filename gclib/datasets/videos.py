"""Video files: the pictures that are on the screen at given times, and no more decoding than that.

A clip of 8 pictures lies in 2 s of a video. So :class:`Video` goes to the key frame before the
clip, looks at the packets up to its end without decoding them, and decodes the groups of pictures
that hold one of the 8; pictures that no other one is predicted from are left out on the way. Where
a file does not tell its times, or this does not work out, the file is decoded from its start.

Times, and not numbers of frames, say which picture is meant: it is the one that a player would
show. That is right for a variable frame rate too.

The decoder is PyAV, which brings FFmpeg with it: ``pip install 'gclib[train]'``.
"""

from __future__ import annotations

import bisect
import itertools
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gclib.datasets.coco_masks import MissingLibrary
from gclib.datasets.files import BrokenData
from gclib.datasets.image_files import MAX_PIXELS

if TYPE_CHECKING:
    import av

T = TypeVar("T")

# The same picture may stay for so many seconds behind the last one before the file counts as cut
# off: headers are rounded, and some writers count one picture too many.
SLACK = 0.25

_MOST = 1 << 28  # bytes of packets at once: more, of a long film, are read one by one
_FAR = 5.0  # seconds between two pictures behind which seeking takes less time than reading on
_COVER = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
_ROUNDING = 1e-6  # seconds: times are sums of fractions


class BrokenVideo(BrokenData):
    """A file that is not a readable video.

    Attributes:
        path: of the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Video:
    """An open video file; ``with Video(path) as video: ...`` closes it.

    Pictures are turned and mirrored as the file says (a phone held upright). Pixels that are not
    square stay as they are, and of several video tracks the first counts, as in the public code for
    Kinetics; a cover picture of a piece of music is no video.

    Args:
        path: of the file; the kind is found from its content, not from its name.

    Attributes:
        duration: seconds from the track's start, where its first picture begins, to its end.
        fps: pictures per second, on average; 0 if the file does not say.

    Raises:
        BrokenVideo: it is not there, empty, no video, sound alone, or larger than
            :data:`gclib.datasets.image_files.MAX_PIXELS`.
        MissingLibrary: PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        _must_be_a_file(self.path)
        # One for all pictures: PyAV's own, one for each picture, sets up its tables anew.
        self._to_rgb = _pyav().video.reformatter.VideoReformatter()
        self._turn: tuple[float, np.ndarray | None] | None = None
        self._container = None
        try:
            self._open()
            self.duration, self._end_told = self._measure()
            self.fps = float(self._stream.average_rate or 0)
        except BrokenVideo:
            self.close()
            raise
        except Exception as error:  # readers raise what their parsing happens to raise
            self.close()
            raise BrokenVideo(self.path, f"it is not a video ({_said(error)})") from None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()

    def read(
        self, times: Sequence[float], change: Callable[[Tensor], T] | None = None
    ) -> tuple[list[T], list[float]]:
        """The pictures that are on the screen at some times.

        Args:
            times: seconds from the track's start, in any order. Before its first picture, that is
                on the screen; behind the end, the last one.
            change: called with each picture, uint8 ``(3, H, W)`` in channels-last order of memory,
                once for each; its result takes the picture's place. So that, for example, only
                small pictures are kept.

        Returns:
            The pictures, in the order of ``times``, and the seconds at which they begin. A picture
            that is asked for twice is the same object twice.

        Raises:
            BrokenVideo: a picture cannot be decoded, is damaged, or is behind the place at which
                the file is cut off.
        """
        if not times:
            return [], []
        ticks = [self._tick(time) for time in times]
        wanted = sorted(set(ticks))

        def make(picture: Tensor) -> T:
            try:
                return picture if change is None else change(picture)
            except Exception as error:
                raise _FromOutside from error

        try:
            found = self._read_planned(wanted, make)
            if found is None:
                found = self._read_all(wanted, make)
        except _FromOutside as error:
            raise error.__cause__ from None
        shown = [found[tick] for tick in ticks]
        seconds = [self._seconds(stamp) for stamp, _ in shown]
        return [picture for _, picture in shown], seconds

    # -- opening ---------------------------------------------------------------------------------

    def _open(self) -> None:
        self._container = _open(self.path)
        self._stream = self._choose()
        self._unit = self._stream.time_base
        self._start = self._stream.start_time or 0
        # A worker process for each core decodes; threads of its own would only take turns with it.
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}

    def _choose(self) -> av.VideoStream:
        for stream in self._container.streams.video:
            if int(getattr(stream.disposition, "value", stream.disposition)) & _COVER:
                continue
            context = stream.codec_context
            if context is None:
                raise BrokenVideo(self.path, "its pictures are in a format that FFmpeg cannot read")
            if context.width * context.height > MAX_PIXELS:
                size = f"{context.width}×{context.height}"
                raise BrokenVideo(self.path, f"{size} is more than {MAX_PIXELS:,} pixels")
            return stream
        sound = bool(self._container.streams.audio)
        raise BrokenVideo(self.path, "it holds sound alone" if sound else "it holds no pictures")

    def _measure(self) -> tuple[float, bool]:
        """Seconds, and whether the header of the video's own track says so."""
        # Of MPEG program streams, FFmpeg guesses it from the few times that are in them.
        guessed = self._container.format.name == "mpeg"
        if not guessed and self._stream.duration and self._stream.duration > 0:
            return float(self._stream.duration * self._unit), True
        return self._measure_packets(), False

    def _measure_packets(self) -> float:
        """Read through the file, without decoding, where the track does not tell its length.

        Raises:
            BrokenVideo: it has no packets, or ends more than a second before it should.
        """
        begin, end, number = self._scan(self._stream)
        if not number:
            raise BrokenVideo(self.path, "it holds no pictures")
        if end is None:  # a track without times
            return float(number * self._step() * self._unit)
        said = (self._container.duration or 0) / 1e6
        ends = [end]
        if said > end - begin + 1:  # perhaps the sound is longer
            ends += [self._scan(sound)[1] or 0.0 for sound in self._container.streams.audio]
        if said > max(ends) - begin + 1:
            length = max(ends) - begin
            raise BrokenVideo(
                self.path, f"it ends at {length:.1f} s, and its header says {said:.1f} s"
            )
        return end - begin

    def _scan(self, stream: av.stream.Stream) -> tuple[float, float | None, int]:
        """Where a track begins and ends, in seconds, and the number of its packets."""
        index, begin, end, number = stream.index, None, None, 0
        with _open(self.path) as container:  # its own, so that this one need not go back
            stream = container.streams[index]
            step = self._step() if stream.type == "video" else 0
            for packet in container.demux(stream):
                number += bool(packet.size)
                if packet.pts is not None:
                    stop = packet.pts + (packet.duration or step)
                    begin = packet.pts if begin is None else min(begin, packet.pts)
                    end = stop if end is None else max(end, stop)
        if end is None:
            return 0.0, None, number
        return float(begin * stream.time_base), float(end * stream.time_base), number

    # -- reading ---------------------------------------------------------------------------------

    def _tick(self, time: float) -> int:
        """The last tick of the track's clock that is not behind a time."""
        time = min(max(time, 0.0), self.duration)
        return self._start + int((time + _ROUNDING) / self._unit)

    def _read_planned(
        self, wanted: list[int], make: Callable[[Tensor], T]
    ) -> dict[int, tuple[int, T]] | None:
        """What is on the screen at each tick; None where the file must be decoded as a whole."""
        if self._stream.start_time is None:
            return None
        found: dict[int, tuple[int, T]] = {}
        far = int(_FAR / self._unit)
        try:
            for run in _runs(wanted, far):
                stamps = self._plan_and_decode(run, make)
                if stamps is None:
                    return None
                found |= stamps
        except BrokenVideo:
            raise
        except Exception:  # the other way knows what is wrong
            return None
        return found

    def _plan_and_decode(
        self, wanted: list[int], make: Callable[[Tensor], T]
    ) -> dict[int, tuple[int, T]] | None:
        self._container.seek(wanted[0], stream=self._stream)
        packets, ended = self._packets_until(wanted[-1])
        if packets is None:
            return None
        shown = [packet for packet in packets if not packet.is_discard]
        if not shown or not packets[0].is_keyframe:
            return None
        if any(packet.pts is None or packet.is_corrupt for packet in packets):
            return None
        stamps = sorted(packet.pts for packet in shown)
        places = [bisect.bisect_right(stamps, tick) - 1 for tick in wanted]
        if places[0] < 0:  # the file has its key frames elsewhere than it says
            return None
        if ended:
            end = max(packet.pts + (packet.duration or 0) for packet in shown)
            self._must_reach(wanted[-1], end)
        chosen = {tick: stamps[place] for tick, place in zip(wanted, places, strict=True)}
        pictures = self._decode(packets, set(chosen.values()), make)
        if pictures is None:
            return None
        return {tick: (stamp, pictures[stamp]) for tick, stamp in chosen.items()}

    def _packets_until(self, tick: int) -> tuple[list[av.Packet] | None, bool]:
        """Packets up to the last one that may be shown at a tick; whether the file ends there.

        None instead of more than memory should hold.
        """
        packets, held = [], 0
        for packet in self._container.demux(self._stream):
            if not packet.size:
                continue
            packets.append(packet)
            held += packet.size
            if held > _MOST:
                return None, False
            # Packets come in the order of decoding, and no picture is shown before it is decoded.
            if packet.dts is not None and packet.dts > tick:
                return packets, False
        return packets, True

    def _decode(
        self, packets: list[av.Packet], needed: set[int], make: Callable[[Tensor], T]
    ) -> dict[int, T] | None:
        context = self._stream.codec_context
        may_skip = context.name == "h264"
        pictures: dict[int, T] = {}

        def take(frames: list[av.VideoFrame]) -> None:
            for frame in frames:
                if frame.pts in needed and frame.pts not in pictures:
                    pictures[frame.pts] = make(self._picture(frame))

        try:
            for group in _groups(packets, needed):
                for packet in group:
                    # A picture that no other one is predicted from is not decoded.
                    leave = may_skip and packet.pts not in needed
                    context.skip_frame = "NONREF" if leave else "DEFAULT"
                    take(context.decode(packet))
            take(context.decode(None))
        finally:
            context.skip_frame = "DEFAULT"
        return pictures if len(pictures) == len(needed) else None

    def _read_all(self, wanted: list[int], make: Callable[[Tensor], T]) -> dict[int, tuple[int, T]]:
        """Decode from the start: slow, and the one that says what is wrong."""
        self._container.close()
        try:
            self._open()
        except Exception as error:  # it was there a moment ago
            raise BrokenVideo(self.path, f"it cannot be read again ({_said(error)})") from None
        found: dict[int, tuple[int, T]] = {}
        waiting = list(reversed(wanted))
        last: tuple[int, av.VideoFrame] | None = None
        kept: tuple[int, T] | None = None

        def give(tick: int) -> None:
            nonlocal kept
            stamp, frame = last
            if kept is None or kept[0] != stamp:
                try:
                    kept = stamp, make(self._picture(frame))
                except Exception as error:
                    raise BrokenVideo(self.path, _said(error)) from None
            found[tick] = kept

        for stamp, frame in self._stamped():
            while waiting and last is not None and waiting[-1] < stamp:
                give(waiting.pop())
            if not waiting:
                return found
            last = stamp, frame
        if last is None:
            raise BrokenVideo(self.path, "none of its pictures can be decoded")
        self._must_reach(waiting[0], self._end_of(*last))
        while waiting:
            give(waiting.pop())
        return found

    def _stamped(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """All pictures, with the tick at which each begins.

        Raises:
            BrokenVideo: a packet cannot be decoded, or only a part of it is there.
        """
        stamp, whole = None, True
        try:
            for packet in self._container.demux(self._stream):
                whole = not packet.is_corrupt
                for frame in self._stream.codec_context.decode(packet if whole else None):
                    if frame.pts is not None:
                        stamp = frame.pts
                    else:
                        stamp = self._start if stamp is None else stamp + self._step()
                    yield stamp, frame
                if not whole:
                    break
        except Exception as error:
            reason = f"it cannot be decoded behind {self._seconds(stamp):.1f} s ({_said(error)})"
            raise BrokenVideo(self.path, reason) from None
        if not whole:
            reason = f"it is cut off or damaged behind {self._seconds(stamp):.1f} s"
            raise BrokenVideo(self.path, reason)

    def _seconds(self, tick: int | None) -> float:
        return 0.0 if tick is None else float((tick - self._start) * self._unit)

    def _step(self) -> int:
        rate = self._stream.average_rate or self._stream.guessed_rate or 25
        return max(1, round(1 / (rate * self._unit)))

    def _end_of(self, stamp: int, frame: av.VideoFrame) -> int:
        return stamp + (getattr(frame, "duration", 0) or self._step())

    def _must_reach(self, tick: int, end: int) -> None:
        """A file that is cut off must not pass for one with a still picture at its end."""
        if self._end_told and (tick - end) * self._unit > SLACK:
            reason = (
                f"it ends at {self._seconds(end):.1f} s, and its header says {self.duration:.1f} s"
            )
            raise BrokenVideo(self.path, reason)

    def _picture(self, frame: av.VideoFrame) -> Tensor:
        """A decoded picture as red, green and blue, turned as the file says."""
        if frame.is_corrupt:
            raise _Damaged("a picture is damaged")
        if frame.width * frame.height > MAX_PIXELS:
            raise _Damaged(f"{frame.width}×{frame.height} is more than {MAX_PIXELS:,} pixels")
        picture = _converted(self._to_rgb, frame).to_ndarray()
        return torch.from_numpy(turned(picture, self._matrix(frame))).permute(2, 0, 1)

    def _matrix(self, frame: av.VideoFrame) -> np.ndarray | None:
        """The display matrix, looked for where the angle is another than before."""
        if self._turn is None or self._turn[0] != frame.rotation:
            self._turn = frame.rotation, _matrix(frame)
        return self._turn[1]


class _Damaged(Exception):
    """A picture cannot be used."""


class _FromOutside(BaseException):
    """Holds an error of somebody else's function, which says nothing about the file."""


def turned(picture: np.ndarray, matrix: Sequence[int] | None) -> np.ndarray:
    """Turn and mirror a picture as a display matrix says, by the nearest quarter turn.

    Args:
        picture: ``(H, W, 3)``.
        matrix: a, b, u, c, d, v, x, y, w of the file: the pixel at (p, q) is shown at
            (a p + c q, b p + d q), up to a shift. None for a picture that stays as it is.

    Returns:
        ``(H, W, 3)`` or ``(W, H, 3)``, contiguous.
    """
    if matrix is None:
        return picture
    a, b, _, c, d, *_ = (int(number) for number in matrix)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        across, down = a, d
    else:
        picture = picture.transpose(1, 0, 2)
        across, down = c, b
    if across < 0:
        picture = picture[:, ::-1]
    if down < 0:
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def _converted(reformatter: Any, frame: av.VideoFrame, *size: int) -> av.VideoFrame:
    """As red, green and blue, by this thread alone.

    By default PyAV starts a thread for each core and each picture. That costs time; and a process
    that is forked while they wait, as a DataLoader's workers are, hangs when it frees them.
    """
    return reformatter.reformat(frame, *size, format="rgb24", threads=1)


def _matrix(frame: av.VideoFrame) -> np.ndarray | None:
    # Of a small copy: side data and their frame hold each other until Python collects garbage,
    # and the frame holds its pixels.
    small = _pyav().video.reformatter.VideoReformatter()
    for side in _converted(small, frame, 8, 8).side_data:
        if getattr(side.type, "name", "") == "DISPLAYMATRIX":
            return np.frombuffer(bytes(side), np.int32)
    return None


def _runs(ticks: list[int], far: int) -> Iterator[list[int]]:
    """Sorted ticks in lists, whose neighbours are not far from each other."""
    run = ticks[:1]
    for before, tick in itertools.pairwise(ticks):
        if tick - before > far:
            yield run
            run = []
        run.append(tick)
    yield run


def _groups(packets: list[av.Packet], needed: set[int]) -> Iterator[list[av.Packet]]:
    """The groups of pictures that must be decoded, the last one up to what is needed of it."""
    starts = [place for place, packet in enumerate(packets) if packet.is_keyframe]
    groups = [packets[a:b] for a, b in itertools.pairwise([*starts, len(packets)])]
    places = [[i for i, packet in enumerate(group) if packet.pts in needed] for group in groups]
    use = [bool(here) for here in places]
    for number, (group, here) in enumerate(zip(groups, places, strict=True)):
        # Shown before the key frame, and decoded behind it: predicted from the group before, too.
        if number and any(group[i].pts < group[0].pts for i in here):
            use[number - 1] = True
    last = max((number for number, used in enumerate(use) if used), default=-1)
    for number, group in enumerate(groups[: last + 1]):
        if use[number]:
            yield group[: places[number][-1] + 1] if number == last else group


def _open(path: str) -> av.container.InputContainer:
    av = _pyav()
    # "file:" and the list of protocols: a name with a colon, or a playlist, must not make FFmpeg
    # look for anything in the network.
    # max_pixels: of the decoder that FFmpeg looks with; it would make room for what a file says.
    options = {"protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
    return av.open(f"file:{path}", options=options, metadata_errors="replace")


def _must_be_a_file(path: str) -> None:
    """Opening a pipe would wait for ever; FFmpeg would read a folder of pictures as a video."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise BrokenVideo(path, "it is not a file")
        with open(path, "rb"):
            pass
    except OSError as error:
        raise BrokenVideo(path, f"cannot be opened ({error.strerror or error})") from None
    except ValueError:
        raise BrokenVideo(path, "cannot be opened (a zero byte in its name)") from None
    if not status.st_size:
        raise BrokenVideo(path, "the file is empty")


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _pyav() -> Any:
    try:
        import av
    except ImportError:
        raise MissingLibrary("videos need PyAV: pip install 'gclib[train]'") from None
    return av
