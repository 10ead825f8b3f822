"""The grader's side: handles of work that lives in a sandbox.

:class:`RemoteHandle` and :class:`RemoteModule` answer as ``gclib.checks.handle.Handle`` and
``ModuleHandle`` do, so every check runs on them unchanged. What a sandbox sends is read as data and
trusted for nothing: a wrong type or shape is a wrong answer.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gclib.checks.handle import Call, Gradients, Opaque, StubReached, StudentError
from gclib.checks.work import Work
from gclib.grading.sandbox.page import IMAGE, TEXT

Ask = Callable[..., Any]


class RemoteModule:
    """A built module of the student, in a sandbox."""

    def __init__(self, ask: Ask, index: int) -> None:
        self._ask, self._index = ask, index

    def _do(self, method: str, *inputs: Any, **options: Any) -> Any:
        return self._ask("module", index=self._index, method=method, inputs=inputs, options=options)

    def train(self, mode: bool) -> None:
        """Switch to training (True) or evaluation (False)."""
        self._do("train", mode)

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the trainable parameters, in order."""
        return {
            name: tuple(_integer(size) for size in _sequence(shape))
            for name, shape in _mapping(self._do("parameters")).items()
        }

    def weights(self) -> dict[str, Tensor]:
        """Copies of the parameters' values."""
        return _tensors(self._do("weights"))

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy values into the parameters of these names."""
        self._do("load", dict(weights))

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Run the module on copies of ``inputs``; the plain result."""
        return self.inspect(*inputs, **options).result

    def inspect(self, *inputs: Any, **options: Any) -> Call:
        """Run the module on copies of ``inputs`` and tell what the call did."""
        return _call(self._do("inspect", *inputs, **options), inputs)

    def gradients(self, *inputs: Any, cotangent: Tensor, **options: Any) -> Gradients:
        """Run forward, then backward from ``cotangent``."""
        return _gradients(self._do("gradients", *inputs, cotangent=cotangent, **options), inputs)


class RemoteHandle:
    """A function or class of the student, in a sandbox."""

    is_check_handle = True

    def __init__(self, ask: Ask, needs: str, name: str) -> None:
        self._ask, self._needs, self.name = ask, needs, name

    def _do(self, method: str, *inputs: Any, **options: Any) -> Any:
        return self._ask(
            "function", name=self._needs, method=method, inputs=inputs, options=options
        )

    def call(self, *inputs: Any, **options: Any) -> Any:
        """Call the function on copies of ``inputs``; the plain result."""
        return self.inspect(*inputs, **options).result

    def inspect(self, *inputs: Any, **options: Any) -> Call:
        """Call the function on copies of ``inputs`` and tell what the call did."""
        return _call(self._do("inspect", *inputs, **options), inputs)

    def gradients(self, *inputs: Any, cotangent: Tensor, **options: Any) -> Gradients:
        """Call the function, then run backward from ``cotangent``."""
        return _gradients(self._do("gradients", *inputs, cotangent=cotangent, **options), inputs)

    def build(
        self, *arguments: Any, dtype: torch.dtype | None = torch.float64, **options: Any
    ) -> RemoteModule | Opaque:
        """Build a module, Opaque if it is not an ``nn.Module``."""
        built = self._ask(
            "build", name=self._needs, arguments=arguments, dtype=dtype, options=options
        )
        return built if isinstance(built, Opaque) else RemoteModule(self._ask, _integer(built))


def answer_of(message: Any) -> Any:
    """The result in an answer of the sandbox.

    Raises:
        StubReached, StudentError: what the answer reports.
    """
    answer = _mapping(message)
    if "stub" in answer:
        raise StubReached
    if "error" in answer:
        kinds = tuple(str(kind) for kind in _sequence(answer.get("kinds", ())))
        raise StudentError(str(answer["error"]), kinds, answer.get("called") is not False)
    if "result" not in answer:
        raise _forged("no result")
    return answer["result"]


def work_of(ask: Ask, loaded: Any, origin: str) -> Work:
    """The definitions that a sandbox says it has, as handles."""
    loaded = _mapping(loaded)
    texts = {
        part: {key: str(value) for key, value in _mapping(loaded.get(part)).items()}
        for part in ("definitions", "problems", "names")
    }
    handles = {name: RemoteHandle(ask, name, said) for name, said in texts["definitions"].items()}
    return Work(origin, handles, texts["problems"], texts["names"])


def page_of(found: Any) -> list[dict[str, Any]]:
    """What a sandbox says a cell shows, as nbformat's outputs of text, PNG images and errors."""
    return [_output(_mapping(output)) for output in _sequence(found)[:200]]


def _output(output: dict[str, Any]) -> dict[str, Any]:
    kind = output.get("output_type")
    if kind == "stream":
        name = "stderr" if output.get("name") == "stderr" else "stdout"
        return {"output_type": "stream", "name": name, "text": _text(output.get("text"))}
    if kind == "error":
        lines = [_text(line) for line in _sequence(output.get("traceback"))[:2000]]
        name, value = _text(output.get("ename"))[:200], _text(output.get("evalue"))[:1000]
        return {"output_type": "error", "ename": name, "evalue": value, "traceback": lines}
    if kind not in ("display_data", "execute_result"):
        raise _forged("an unknown output")
    data = _mapping(output.get("data"))
    shown = {}
    if "text/plain" in data:
        shown["text/plain"] = _text(data["text/plain"])
    if "image/png" in data:
        shown["image/png"] = _png(data["image/png"])
    plain = {"output_type": kind, "data": shown, "metadata": {}}
    if kind == "execute_result":
        plain["execution_count"] = _integer(output.get("execution_count"))
    return plain


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _forged("no text")
    return value[: TEXT + 100]


def _png(value: Any) -> str:
    try:
        image = base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise _forged("no image") from None
    if not image.startswith(b"\x89PNG\r\n\x1a\n") or len(value) > IMAGE:
        raise _forged("no image")
    return value


def _call(found: Any, sent: tuple) -> Call:
    found = _mapping(found)
    inputs = _sequence(found.get("inputs"))
    tensors = [item for item in sent if isinstance(item, Tensor)]
    if len(inputs) != len(tensors) or not all(isinstance(item, Tensor) for item in inputs):
        raise _forged("inputs that were not sent")
    return Call(
        found.get("result"),
        tuple(inputs),
        _integer(found.get("largest")),
        _integer(found.get("total")),
    )


def _gradients(found: Any, sent: tuple) -> Gradients:
    found = _mapping(found)
    inputs = _sequence(found.get("inputs"))
    tensors = [item for item in sent if isinstance(item, Tensor)]
    if len(inputs) != len(tensors):
        raise _forged("gradients of inputs that were not sent")
    for item in inputs:
        if item is not None and not isinstance(item, Tensor):
            raise _forged("a gradient that is no tensor")
    parameters = _mapping(found.get("parameters"))
    for item in parameters.values():
        if item is not None and not isinstance(item, Tensor):
            raise _forged("a gradient that is no tensor")
    return Gradients(found.get("result"), tuple(inputs), parameters)


def _tensors(found: Any) -> dict[str, Tensor]:
    found = _mapping(found)
    if not all(isinstance(item, Tensor) for item in found.values()):
        raise _forged("a weight that is no tensor")
    return found


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _forged("no table")
    return value


def _sequence(value: Any) -> tuple | list:
    if not isinstance(value, (tuple, list)):
        raise _forged("no list")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise _forged("no number")
    return value


def _forged(what: str) -> StudentError:
    return StudentError(f"the answer of the code's process cannot be read ({what})")
