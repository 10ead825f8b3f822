"""Files of images: any kind becomes red, green and blue, and a broken one is named."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from gclib.datasets.files import BrokenData

# Where Pillow, too, suspects an attack on memory.
MAX_PIXELS = 89_478_485


class BrokenImage(BrokenData):
    """A file that is not a readable image.

    Attributes:
        path: of the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read an image as red, green and blue, whatever its colours are in the file.

    JPEG is decoded by torchvision (libjpeg-turbo), everything else and what torchvision refuses by
    Pillow. Of 16 bits, the upper 8 are kept; transparency and EXIF orientation are left out; of an
    animation, the first picture is taken.

    Args:
        path: of the file; the kind of image is found from its content, not from its name.

    Returns:
        uint8 ``(3, H, W)``, in channels-last order of memory.

    Raises:
        BrokenImage: the file is not there, empty, cut off, no image, or larger than
            :data:`MAX_PIXELS`.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = bytearray(file.read())
    except OSError as error:
        raise BrokenImage(path, f"cannot be opened ({error.strerror or error})") from None
    if not data:
        raise BrokenImage(path, "the file is empty")
    size = _jpeg_size(data)
    if size is not None:
        if size[0] * size[1] > MAX_PIXELS:
            raise BrokenImage(path, _too_large(size))
        image = _decode_jpeg(data)
        if image is not None:
            return image
    return _decode_with_pillow(path, data)


def _jpeg_size(data: bytearray) -> tuple[int, int] | None:
    """Width and height from a JPEG's header; None if it is none.

    Known before decoding: a few kilobytes can ask for 13 GB of memory.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:  # fill byte
            at += 1
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _too_large(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]} is more than {MAX_PIXELS:,} pixels"


@functools.cache
def _jpeg_decoder() -> Callable[[Tensor], Tensor] | None:
    """Of torchvision: faster than Pillow's; version 0.29 announces that it will be removed."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None
    return functools.partial(decode_jpeg, mode=ImageReadMode.RGB)


def _decode_jpeg(data: bytearray) -> Tensor | None:
    """None where Pillow must say what is wrong, or do it in its stead."""
    decode = _jpeg_decoder()
    if decode is None:
        return None
    with _no_stderr() if get_worker_info() else contextlib.nullcontext():
        try:
            return decode(torch.frombuffer(data, dtype=torch.uint8))
        except RuntimeError:
            return None


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Without what libjpeg prints about damaged data, a line in every epoch.

    It writes to the file descriptor itself, so Python cannot filter it. Only for worker processes,
    where nothing else writes there meanwhile.
    """
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # stderr is closed
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# Filters of warnings belong to the process, so one thread at a time may change them.
_ONE_AT_A_TIME = threading.Lock()


def _decode_with_pillow(path: str, data: bytearray) -> Tensor:
    from PIL import Image

    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BrokenImage(path, _too_large(image.size))
                if image.mode.startswith(
                    "I"
                ):  # 16 bits of grey; convert() would cut them off at 255
                    grey = (np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8)
                    image = Image.fromarray(grey)
                pixels = np.array(image.convert("RGB"))
        except BrokenImage:
            raise
        except Image.UnidentifiedImageError:
            raise BrokenImage(path, "it is not an image") from None
        except Image.DecompressionBombError:
            raise BrokenImage(path, f"more than {MAX_PIXELS:,} pixels") from None
        except Exception as error:  # Pillow's readers raise what their parsing happens to raise
            raise BrokenImage(path, f"{error}" or type(error).__name__) from None
    return torch.from_numpy(pixels).permute(2, 0, 1)
