"""Small videos whose pictures tell their number, for tests."""

import struct
from fractions import Fraction

import av
import numpy as np

BITS = 8


def picture(number, size=(64, 48)):
    """Black and white bars, the bits of a number; grey below, so that up and down differ."""
    width, height = size
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    row = np.repeat(np.array(bits, np.uint8) * 200 + 25, -(-width // BITS))[:width]
    image = np.broadcast_to(row[None, :, None], (height, width, 3)).copy()
    image[height * 3 // 4 :] = 128
    return image


def number_of(image):
    """The number on a picture: ``(H, W, 3)``, or a tensor ``(3, H, W)``."""
    if hasattr(image, "permute"):
        image = image.permute(1, 2, 0).numpy()
    height, width = image.shape[:2]
    middles = ((np.arange(BITS) + 0.5) * -(-width // BITS)).astype(int).clip(max=width - 1)
    bits = image[height // 4, middles].mean(-1) > 128
    return int((bits << np.arange(BITS)).sum())


def write_video(
    path,
    count=60,
    *,
    rate=30,
    ticks=None,
    size=(64, 48),
    codec="libx264",
    pixels="yuv420p",
    options=None,
    container=None,
    sound=False,
):
    """Write pictures 0, 1, 2…; ``ticks``, in 1/rate s, make their times uneven."""
    options = {"g": "25", "bf": "3", "preset": "veryfast"} if options is None else options
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.thread_count = 1
        tone = file.add_stream("aac", rate=16000) if sound else None
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts = number if ticks is None else ticks[number]
            frame.time_base = Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if tone is not None:
            _write_sound(file, tone)
    return path


def write_sound(path, cover=False):
    """A file with sound, and a cover picture if wanted."""
    with av.open(str(path), "w") as file:
        tone = file.add_stream("aac", rate=16000)
        if cover:
            stream = file.add_stream("mjpeg", rate=1)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
            stream.disposition = 0x400  # attached_pic
            file.start_encoding()
            frame = av.VideoFrame.from_ndarray(picture(3), format="rgb24")
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        _write_sound(file, tone)
    return path


def _write_sound(file, tone, seconds=1):
    for block in range(seconds * 16000 // 1024):
        wave = np.sin(np.arange(1024) / 9)[None].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, block * 1024
        file.mux(tone.encode(frame))
    file.mux(tone.encode(None))


def turn(path, a, b, c, d):
    """Write a display matrix into the header of an MP4's first track."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix begins 40 bytes into the box
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
