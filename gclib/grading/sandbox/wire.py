"""Messages between the grader and a sandbox: plain values and raw tensors, never pickle.

A message is a frame: the length of its text (8 bytes, big endian), the text in JSON, then the bytes
of its tensors one after another. Both sides may be lied to, so the reader checks every length and
shape, and nothing of a message is ever executed.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from typing import Any

import torch
from torch import Tensor

from gclib.checks.handle import Opaque

LARGEST = 256 * 2**20  # bytes of a frame
LONGEST = 16 * 2**20  # bytes of its text: JSON takes thirty times as much when it is read
_DEPTH = 8
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.complex64,
        torch.complex128,
    )
}


class BadMessage(Exception):
    """The other side sent what is no message."""


class Silence(Exception):
    """Nothing came in time."""


class Closed(Exception):
    """The other side has gone."""


def pack(value: Any) -> bytes:
    """The frame of a value: None, bool, int, float, str, dtype, tensor, tuple, list, dict of these.

    Raises:
        TypeError: it holds anything else.
        ValueError: it is larger than a frame may be, or nested too deep.
    """
    tensors: list[bytes] = []
    text = json.dumps(_encode(value, tensors, _DEPTH)).encode()
    frame = b"".join((struct.pack(">Q", len(text)), text, *tensors))
    if len(frame) > LARGEST:
        raise ValueError(f"{len(frame) >> 20} MiB, more than the {LARGEST >> 20} MiB of a message")
    return frame


def _encode(value: Any, tensors: list[bytes], depth: int) -> Any:
    if value is None or type(value) in (bool, str, float):
        return value
    if type(value) is int:
        return value if abs(value) < 2**63 else {"int": hex(value)}
    if isinstance(value, Opaque):
        return {"opaque": value.type_name}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if not depth:
        raise ValueError("nested too deep")
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            return {"opaque": f"tensor of {dtype}"}
        flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
        tensors.append(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        return {"tensor": [dtype, list(value.shape)]}
    if isinstance(value, (tuple, list)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(item, tensors, depth - 1) for item in value]}
    if isinstance(value, dict):
        items = [[str(k), _encode(item, tensors, depth - 1)] for k, item in value.items()]
        return {"dict": items}
    raise TypeError(f"{type(value).__name__} cannot be sent")


def unpack(text: bytes, rest: bytes) -> Any:
    """The value of a frame whose text and whose tensors' bytes are given.

    Raises:
        BadMessage: it is none.
    """
    try:
        value, used = _decode(json.loads(text), rest, 0, _DEPTH)
    except BadMessage:
        raise
    except Exception as error:  # whatever was sent, reading it must not stop the grader
        raise BadMessage(f"not a message ({type(error).__name__})") from None
    if used != len(rest):
        raise BadMessage("more bytes than its tensors have")
    return value


def _decode(form: Any, rest: bytes, at: int, depth: int) -> tuple[Any, int]:
    if form is None or type(form) in (bool, str, int, float):
        return form, at
    if not isinstance(form, dict) or len(form) != 1:
        raise BadMessage("an unknown form")
    ((kind, value),) = form.items()
    if kind == "int":
        return int(value, 16), at
    if kind == "opaque":
        return Opaque(str(value)[:200]), at
    if kind == "dtype":
        return _DTYPES[value], at
    if not depth:
        raise BadMessage("nested too deep")
    if kind == "tensor":
        return _tensor(value, rest, at)
    if kind == "dict":
        found = {}
        for key, item in value:
            found[str(key)], at = _decode(item, rest, at, depth - 1)
        return found, at
    if kind in ("list", "tuple"):
        items = []
        for item in value:
            decoded, at = _decode(item, rest, at, depth - 1)
            items.append(decoded)
        return (items if kind == "list" else tuple(items)), at
    raise BadMessage("an unknown form")


def _tensor(form: Any, rest: bytes, at: int) -> tuple[Tensor, int]:
    name, shape = form
    dtype = _DTYPES[name]
    if len(shape) > 16 or not all(type(size) is int and 0 <= size < 2**40 for size in shape):
        raise BadMessage("a tensor of an impossible shape")
    end = at + math.prod(shape) * dtype.itemsize
    if end > len(rest):
        raise BadMessage("a tensor without its bytes")
    if end == at:
        return torch.empty(shape, dtype=dtype), at
    part = bytearray(rest[at:end])  # writable, and of its own
    flat = torch.frombuffer(part, dtype=torch.uint8 if dtype == torch.bool else dtype)
    return (flat != 0 if dtype == torch.bool else flat).reshape(shape), end


def send(connection: socket.socket, packed: bytes, seconds: float | None = None) -> None:
    """Send what :func:`pack` made.

    Args:
        connection: where to.
        packed: the frame.
        seconds: how long the other side may take to read it; default: for ever.

    Raises:
        Silence: it took longer.
        Closed: the other side has gone.
    """
    connection.settimeout(seconds)
    try:
        connection.sendall(struct.pack(">Q", len(packed)) + packed)
    except TimeoutError:
        raise Silence("nobody reads") from None
    except OSError:
        raise Closed("the other side has gone") from None


def receive(connection: socket.socket, seconds: float | None = None) -> Any:
    """Read a value.

    Args:
        connection: where from.
        seconds: how long to wait for the whole message; default: for ever.

    Raises:
        Silence: it took longer.
        Closed: the other side has gone.
        BadMessage: what came is no message.
    """
    until = None if seconds is None else time.monotonic() + seconds
    (size,) = struct.unpack(">Q", _read(connection, 8, until))
    if not 8 <= size <= LARGEST:
        raise BadMessage(f"a frame of {size} bytes")
    frame = _read(connection, size, until)
    (length,) = struct.unpack(">Q", frame[:8])
    if length > min(size - 8, LONGEST):
        raise BadMessage("a text longer than its frame, or than a text may be")
    return unpack(frame[8 : 8 + length], frame[8 + length :])


def _read(connection: socket.socket, size: int, until: float | None) -> bytes:
    found = bytearray()
    while len(found) < size:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            raise Silence("no answer in time")
        connection.settimeout(left)
        try:
            part = connection.recv(min(size - len(found), 2**20))
        except TimeoutError:
            raise Silence("no answer in time") from None
        except OSError:
            raise Closed("the other side has gone") from None
        if not part:
            raise Closed("the other side has gone")
        found += part
    return bytes(found)
