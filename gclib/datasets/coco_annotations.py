"""COCO's annotation files: read piece by piece, checked, and kept small.

As objects of Python, a generated file like ``instances_train2017.json`` (860,001 objects, 407 MB)
took 2.4 GB. Here each entry is decoded by itself, and what is needed of it goes into flat arrays:
0.6 GB at the most and 0.3 GB in the end, in the same time. Processes that read images share them,
where objects would be copied as soon as their references are counted.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np

from gclib.datasets.coco_masks import Code, counts_of, decode, encode_counts, encode_polygons
from gclib.datasets.files import BrokenData
from gclib.datasets.image_files import MAX_PIXELS
from gclib.datasets.image_folder import Progress

LISTS = ("images", "annotations", "categories")
_CHUNK = 1 << 22  # characters read at once
_FAR = 100_000.0  # pixels; drawing an outline takes time for every pixel of its length


class Annotations:
    """What a file in COCO's format says about its images, in arrays.

    Objects of one image stand together, in the order of the file; images stand in the file's order.

    Args:
        path: of the file. Files without ``annotations``, as those of test-dev, are fine.

    Attributes:
        path: of the file.
        image_ids: int64 ``(I,)``.
        sizes: int32 ``(I, 2)``, height and width in pixels.
        category_ids: in ascending order; label k + 1 is ``category_ids[k]``.
        names: of the categories, in the same order.
        starts: int64 ``(I + 1,)``; the objects of image i are ``starts[i]`` to ``starts[i + 1]``.
        boxes: float64 ``(N, 4)``, x, y, width, height, as in the file.
        areas: float64 ``(N,)``, as in the file.
        labels: int32 ``(N,)``, from 1.
        crowd: bool ``(N,)``, regions with many objects of a kind.
        ignored: bool ``(N,)``, of the key ``ignore``; pycocotools, too, does not evaluate by it.
        has_objects: whether the file has a list of annotations.

    Raises:
        BrokenData: the file cannot be read or used; the message names it and the entry.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        entries = _Entries(self.path)
        self.image_ids, self.sizes = entries.images()
        self._names, self._name_ends = bytes(entries.names), np.array(entries.name_ends)
        self.category_ids, self.names = entries.categories()
        self.has_objects = "annotations" in entries.seen
        images, labels = entries.belongings(self.image_ids, self.category_ids)
        order = images.argsort(kind="stable")
        counts = np.bincount(images, minlength=len(self.image_ids))
        self.starts = np.concatenate((np.zeros(1, np.int64), counts.cumsum()))
        self.labels = labels[order]
        self.boxes = entries.array("boxes", np.float64).reshape(-1, 4)[order]
        self.areas = entries.array("areas", np.float64)[order]
        flags = np.frombuffer(entries.flags, np.uint8)[order]
        self.crowd, self.ignored = flags & 1 != 0, flags & 2 != 0
        self._first = entries.array("first", np.int64)[order]
        self._parts = entries.array("parts", np.int32)[order]
        self._points = _smaller(entries.array("points", np.float64))
        self._point_ends = entries.array("point_ends", np.int64)
        self._codes = bytes(entries.codes)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    def file_name(self, image: int) -> str:
        """Name of an image's file, by the image's index."""
        start = self._name_ends[image - 1] if image else 0
        return self._names[start : self._name_ends[image]].decode()

    def segmentation(self, index: int, size: Sequence[int]) -> list[list[float]] | Code:
        """The outline of an object as in the file: polygons, or a compressed code.

        Args:
            index: of the object.
            size: height and width of its image.
        """
        first, parts = int(self._first[index]), int(self._parts[index])
        if parts < 0:
            counts = self._codes[first : first - parts]
            return {"size": [int(size[0]), int(size[1])], "counts": counts}
        start = self._point_ends[first - 1] if first else 0
        ends = self._point_ends[first : first + parts]
        points = self._points[start : ends[-1]]
        if points.dtype != np.float64:
            points = points / 100.0
        return [part.tolist() for part in np.split(points, ends[:-1] - start)]

    def code(self, index: int, size: Sequence[int]) -> Code:
        """The mask of an object as a compressed code, the same as pycocotools makes."""
        found = self.segmentation(index, size)
        return found if isinstance(found, dict) else encode_polygons(found, size)

    def masks(self, indices: Sequence[int], size: Sequence[int]) -> np.ndarray:
        """Masks of objects of one image, uint8 ``(n, height, width)``."""
        return decode([self.code(index, size) for index in indices], size)


def _smaller(points: np.ndarray) -> np.ndarray:
    """Coordinates in hundredths, int32, if that loses nothing: COCO's have two decimals.

    ``hundredths / 100.0`` is then the number that stood in the file, to the last bit.
    """
    found = np.empty(len(points), np.int32)
    for at in range(0, len(points), _CHUNK):
        part = points[at : at + _CHUNK]
        hundredths = np.rint(part * 100)
        if not np.array_equal(hundredths / 100.0, part):
            return points
        found[at : at + _CHUNK] = hundredths
    return found


# -- from entries to arrays ----------------------------------------------------------------------


class _Entries:
    """All entries of a file, in growing arrays; each is checked when it comes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: set[str] = set()
        self.image_id, self.size = array("q"), array("q")
        self.names, self.name_ends = bytearray(), array("q")
        self.category_id, self.category_name = array("q"), []
        self.object_id, self.of_image, self.of_category = array("q"), array("q"), array("q")
        self.boxes, self.areas, self.flags = array("d"), array("d"), bytearray()
        self.first, self.parts = array("q"), array("i")
        self.points, self.point_ends, self.codes = array("d"), array("q"), bytearray()
        self.coded, self.coded_size = array("q"), array("q")
        take = {"images": self._image, "annotations": self._object, "categories": self._category}
        try:
            with path.open(encoding="utf-8") as file:
                parts = -(-path.stat().st_size // _CHUNK)
                progress = Progress(f"parts of {path} read", parts)
                for name, at, entry in _entries(file, self.seen, progress):
                    try:
                        take[name](entry)
                    except _Odd as error:
                        self._broken(name, at, str(error), entry)
                    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
                        self._broken(name, at, _what_is_odd(name, entry), entry)
        except _NotJson as error:
            raise BrokenData(f"{path} {error}") from None
        except UnicodeDecodeError:
            raise BrokenData(f"{path} is not a text file: is it an archive to unpack?") from None
        except FileNotFoundError:
            raise BrokenData(f"{path} is not there") from None
        except IsADirectoryError:
            raise BrokenData(f"{path} is a folder: name the file of annotations") from None
        except OSError as error:
            raise BrokenData(f"{path} cannot be read: {error.strerror or error}") from None
        for name in ("images", "categories"):
            if name not in self.seen:
                raise BrokenData(
                    f"{path} has no list {name!r}: expected a file in COCO's format, with images, "
                    "annotations and categories"
                )

    def _image(self, entry: dict) -> None:
        name, height, width = entry["file_name"], entry["height"], entry["width"]
        self.image_id.append(entry["id"])
        self.size.append(height)
        self.size.append(width)
        if height < 1 or width < 1 or height * width > MAX_PIXELS:
            raise _Odd(f"is of {width}×{height} pixels")
        if not name or "\0" in name:
            raise _Odd(f"has the file name {name!r}")
        self.names += name.encode()
        self.name_ends.append(len(self.names))

    def _category(self, entry: dict) -> None:
        self.category_id.append(entry["id"])
        self.category_name.append(str(entry["name"]))

    def _object(self, entry: dict) -> None:
        self.object_id.append(entry["id"])
        self.of_image.append(entry["image_id"])
        self.of_category.append(entry["category_id"])
        box, outline = entry["bbox"], entry["segmentation"]
        self.boxes.extend(box)
        if len(box) != 4:
            raise _Odd(f"has a bbox of {len(box)} numbers: expected x, y, width, height")
        self.areas.append(entry["area"])
        flags = bool(entry.get("iscrowd", 0)) | bool(entry.get("ignore", 0)) << 1
        self.flags.append(flags)
        if isinstance(outline, dict):
            self._code(outline)
            return
        self.first.append(len(self.point_ends))
        self.parts.append(len(outline))
        longest = 0
        for polygon in outline:
            self.points.extend(polygon)
            self.point_ends.append(len(self.points))
            longest = max(longest, len(polygon))
            if len(polygon) % 2:
                raise _Odd(f"has an outline of {len(polygon)} numbers: expected x, y, x, y, ...")
        if longest < 6:
            raise _Odd(f"has an outline of {longest // 2} points: expected at least 3")
        if len(outline[0]) < 6:  # pycocotools takes what comes first for a box
            raise _Odd("has an outline whose first part has fewer than 3 points")

    def _code(self, outline: dict) -> None:
        height, width = outline["size"]
        counts = outline["counts"]
        try:
            if isinstance(counts, list):
                counts = encode_counts(counts, (height, width))
            else:
                counts = counts.encode("ascii", "replace")
                counts_of({"size": [height, width], "counts": counts})
        except ValueError as error:
            raise _Odd(f"has a broken mask: {error}") from None
        self.coded.append(len(self.first))
        self.coded_size.extend((height, width))
        self.first.append(len(self.codes))
        self.parts.append(-len(counts))
        self.codes += counts

    # What only the whole file tells

    def array(self, name: str, dtype: type) -> np.ndarray:
        """A growing array as it is now, without a copy."""
        return np.frombuffer(getattr(self, name), dtype)

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids and sizes of the images."""
        self._all_different("images", self.image_id)
        sizes = self.array("size", np.int64).astype(np.int32).reshape(-1, 2)
        if not len(sizes):
            raise BrokenData(f"{self.path} lists no image")
        return np.array(self.image_id), sizes

    def categories(self) -> tuple[list[int], list[str]]:
        """Ids and names of the categories, in the order of the ids."""
        self._all_different("categories", self.category_id)
        if not self.category_id:
            raise BrokenData(f"{self.path} lists no category")
        pairs = sorted(zip(self.category_id, self.category_name, strict=True))
        return [number for number, _ in pairs], [name for _, name in pairs]

    def belongings(self, ids: np.ndarray, categories: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """For each object, the index of its image and its label; both int32."""
        self._all_different("annotations", self.object_id)
        images = self._found(self.array("of_image", np.int64), ids, "image_id", "images")
        of = self.array("of_category", np.int64)
        labels = self._found(of, np.array(categories), "category_id", "categories") + 1
        self._finite()
        sizes = self.array("size", np.int64).reshape(-1, 2)
        coded = self.array("coded", np.int64)
        told = self.array("coded_size", np.int64).reshape(-1, 2)
        wrong = np.flatnonzero((told != sizes[images[coded]]).any(1))
        if len(wrong):
            height, width = sizes[images[coded[wrong[0]]]]
            mask = "×".join(map(str, told[wrong[0]][::-1]))
            self._object_broken(
                coded[wrong[0]], f"has a mask of {mask} pixels in an image of {width}×{height}"
            )
        return images, labels

    def _found(self, wanted: np.ndarray, ids: np.ndarray, key: str, where: str) -> np.ndarray:
        order = ids.argsort()
        at = np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)
        found = order[at]
        missing = np.flatnonzero(ids[found] != wanted)
        if len(missing):
            number = wanted[missing[0]]
            self._object_broken(missing[0], f"has {key} {number}, which is not among the {where}")
        return found.astype(np.int32)

    def _all_different(self, name: str, ids: array) -> None:
        numbers = np.frombuffer(ids, np.int64)
        order = numbers.argsort(kind="stable")
        same = np.flatnonzero(numbers[order[1:]] == numbers[order[:-1]])
        if len(same):
            first, second = order[same[0]], order[same[0] + 1]
            raise BrokenData(
                f"{self.path}: {name}[{second}] has the id {numbers[second]}, as {name}[{first}] "
                "has: each id may stand once"
            )

    def _finite(self) -> None:
        boxes = self.array("boxes", np.float64).reshape(-1, 4)
        odd = np.flatnonzero(~np.isfinite(boxes).all(1))
        if len(odd):
            self._object_broken(odd[0], f"has the bbox {boxes[odd[0]].tolist()}")
        areas = self.array("areas", np.float64)
        odd = np.flatnonzero(~np.isfinite(areas))
        if len(odd):
            self._object_broken(odd[0], f"has the area {areas[odd[0]]}")
        points = self.array("points", np.float64)
        if not len(points) or max(points.max(), -points.min()) <= _FAR:  # false with NaN
            return
        at = np.flatnonzero(~(np.abs(points) <= _FAR))[0]
        part = np.searchsorted(self.array("point_ends", np.int64), at, side="right")
        drawn = np.flatnonzero(self.array("parts", np.int32) > 0)
        which = np.searchsorted(self.array("first", np.int64)[drawn], part, side="right") - 1
        self._object_broken(drawn[which], f"has {points[at]} in its outline")

    def _object_broken(self, at: int, reason: str) -> NoReturn:
        self._broken("annotations", at, reason, {"id": self.object_id[at]})

    def _broken(self, name: str, at: int, reason: str, entry: Any = None) -> NoReturn:
        number = entry.get("id") if isinstance(entry, dict) else None
        which = f" (id {number})" if number is not None else ""
        raise BrokenData(f"{self.path}: {name}[{at}]{which} {reason}")


class _Odd(Exception):
    """What is wrong with an entry."""


_KEYS = {
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "categories": {"id": int, "name": str},
    "annotations": {
        "id": int,
        "image_id": int,
        "category_id": int,
        "bbox": list,
        "segmentation": (list, dict),
        "area": (int, float),
    },
}
_WORDS = {
    int: "a whole number",
    str: "a text",
    list: "a list of numbers",
    (list, dict): "polygons or a run-length code",
    (int, float): "a number",
}


def _what_is_odd(name: str, entry: Any) -> str:
    """Why an entry could not be taken."""
    if not isinstance(entry, dict):
        return f"is {_short(entry)}: expected an object with {', '.join(_KEYS[name])}"
    for key, kind in _KEYS[name].items():
        if key not in entry:
            return f"has no {key}"
        value = entry[key]
        if not isinstance(value, kind):
            return f"has {key} {_short(value)}: expected {_WORDS[kind]}"
        if kind is int and abs(value) >= 1 << 63:
            return f"has an {key} out of range"
    if name != "annotations":
        return f"cannot be used: {_short(entry)}"
    if not all(isinstance(x, (int, float)) for x in entry["bbox"]):
        return f"has the bbox {_short(entry['bbox'])}: expected four numbers"
    if isinstance(entry["segmentation"], dict):
        return "has a broken mask: expected size [height, width] and counts"
    return "has an outline that is no list of lists of numbers"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# -- from text to entries ------------------------------------------------------------------------


class _NotJson(Exception):
    """Why a text is not what is expected; a sentence without its subject."""


def _entries(file: TextIO, seen: set[str], progress: Progress) -> Iterator[tuple[str, int, Any]]:
    """List, place and value of each entry of the lists; their names are added to ``seen``."""
    text = _Text(file, progress)
    if text.next() != "{":
        text.fail("is not a file of COCO annotations: expected an object in braces")
    text.skip()
    if text.next() == "}":
        text.skip()
    else:
        while True:
            name = text.value()
            if not isinstance(name, str):
                text.fail("is not JSON: expected a name in quotes")
            text.expect(":")
            if name not in LISTS:
                text.value()
            elif name in seen:
                text.fail(f"has two lists {name!r}")
            elif text.next() != "[":
                text.fail(f"has something else than a list for {name!r}")
            else:
                seen.add(name)
                text.skip()
                at = 0
                while text.next() != "]":
                    if at:
                        text.expect(",")
                    text.where = f"{name}[{at}]"
                    yield name, at, text.value()
                    at += 1
                text.skip()
            if text.expect(",}") == "}":
                break
    if text.next():
        text.fail("is not JSON: something stands behind its end")


class _Text:
    """Values of a JSON text, one after the other, with a few megabytes of it in memory."""

    def __init__(self, file: TextIO, progress: Progress) -> None:
        self.file, self.text, self.at, self.ended = file, "", 0, False
        self.progress = progress
        self.before = 0  # characters that are gone from the memory
        self.where = "its beginning"
        self._decode = json.JSONDecoder().raw_decode

    def _more(self) -> None:
        rest = len(self.text) - self.at
        new = self.file.read(max(_CHUNK, rest))  # twice as much each time: a value may be long
        self.before += self.at
        if new:
            self.progress.step()
        self.text, self.at, self.ended = self.text[self.at :] + new, 0, not new

    def next(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\n\r":
                    return self.text[self.at]
                self.at += 1
            if self.ended:
                return ""
            self._more()

    def skip(self) -> None:
        """Go over the character that :meth:`next` gave."""
        self.at += 1

    def expect(self, characters: str) -> str:
        """Go over one of these characters."""
        found = self.next()
        if not found:
            self._cut()
        if found not in characters:
            wanted = " or ".join(characters)
            self.fail(f"is not JSON: expected {wanted} and found {found!r}")
        self.at += 1
        return found

    def value(self) -> Any:
        """The next value."""
        if not self.next():
            self._cut()
        while True:
            try:
                value, end = self._decode(self.text, self.at)
            except RecursionError:
                self.fail("is too deeply nested")
            except ValueError as error:
                if self.ended:
                    reason = str(error).partition(": line")[0]
                    if getattr(error, "pos", 0) >= len(self.text) or "Unterminated" in reason:
                        self._cut()
                    self.fail(f"is not JSON ({reason})")
            else:
                if end < len(self.text) or self.ended:  # a number may go on in the next part
                    self.at = end
                    return value
            self._more()

    def fail(self, reason: str) -> NoReturn:
        """Say what is wrong, and where."""
        raise _NotJson(f"{reason}; at character {self.before + self.at:,}, {self.where}")

    def _cut(self) -> NoReturn:
        raise _NotJson(f"is cut off at {self.where}: unpack or copy it again")
