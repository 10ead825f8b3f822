"""Average precision of boxes and masks as COCO defines it, and result files for its server.

>>> evaluator = CocoEvaluator(data)                  # doctest: +SKIP
>>> evaluator.add([285], detector(images))           # doctest: +SKIP
>>> evaluator.figures()["ap_mask"]                   # doctest: +SKIP
34.7

faster-coco-eval computes the figures; they are those of pycocotools. Images that were not added
(unreadable files, the rest of a small run) do not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gclib.datasets.coco import CocoDataset
from gclib.datasets.coco_annotations import Annotations
from gclib.datasets.coco_masks import Code, encode, encode_counts, library
from gclib.datasets.files import BrokenData
from gclib.training.distributed import World

# In the order in which the library gives them.
_FIGURES = ("", "_50", "_75", "_s", "_m", "_l")


class _Found(NamedTuple):
    """What was found on an image, the counts of all mask codes in one ``bytes``."""

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    lengths: np.ndarray
    counts: bytes


class CocoEvaluator:
    """Collects what a detector finds; masks become run-length codes at once.

    An image takes 50 kB for 100 objects on photographs of COCO, and not the 120 MB of its pasted
    probabilities.

    Args:
        data: what is on the images: a data set, annotations or the path of their file.
        masks: whether the detector gives masks.

    Raises:
        MissingLibrary: faster-coco-eval is not installed.
    """

    def __init__(
        self, data: CocoDataset | Annotations | str | os.PathLike[str], *, masks: bool = True
    ) -> None:
        library()
        if isinstance(data, CocoDataset):
            data = data.annotations
        self.told = data if isinstance(data, Annotations) else Annotations(data)
        self.masks = masks
        self._place = {int(number): at for at, number in enumerate(self.told.image_ids)}
        self._found: dict[int, _Found] = {}
        self._world = World()

    def __len__(self) -> int:
        """Number of images added."""
        return len(self._found)

    def add(self, image_ids: Sequence[int], outputs: Sequence[Mapping[str, Tensor]]) -> None:
        """Add what was found on some images.

        An image that was added before is left out: samplers of several processes repeat some. What
        has a score or box that is no number was not found.

        Args:
            image_ids: of the file of annotations.
            outputs: for each image, ``boxes`` ``(n, 4)`` by their corners in pixels of the original
                image, ``scores`` ``(n,)``, ``labels`` ``(n,)`` from 1, and ``masks``: probabilities
                of the box, ``(n, 1, m, m)``, which are pasted here, or of the whole image,
                ``(n, 1, H, W)`` or ``(n, H, W)``, or bool or uint8 of the whole image.

        Raises:
            ValueError: an image is not in the annotations, or an output is none.
        """
        for image_id, output in zip(image_ids, outputs, strict=True):
            image_id = int(image_id)
            if image_id not in self._place:
                raise ValueError(f"image {image_id} is not in {self.told.path}")
            if image_id not in self._found:
                self._found[image_id] = self._kept(image_id, output)

    def _kept(self, image_id: int, output: Mapping[str, Tensor]) -> _Found:
        wanted = ("boxes", "scores", "labels", *(["masks"] if self.masks else []))
        if missing := [name for name in wanted if name not in output]:
            raise ValueError(f"an output without {missing[0]!r}: expected {', '.join(wanted)}")
        boxes, scores, labels = (output[name].detach().cpu() for name in wanted[:3])
        count = len(scores)
        if boxes.shape != (count, 4) or scores.shape != (count,) or labels.shape != (count,):
            raise ValueError(
                f"expected boxes (n, 4), scores (n,) and labels (n,), got {tuple(boxes.shape)}, "
                f"{tuple(scores.shape)} and {tuple(labels.shape)}"
            )
        most = len(self.told.category_ids)
        if count and not 1 <= int(labels.min()) <= int(labels.max()) <= most:
            raise ValueError(
                f"labels from {int(labels.min())} to {int(labels.max())}: expected 1 to {most}"
            )
        good = boxes.isfinite().all(1) & scores.isfinite()
        boxes, scores, labels = boxes[good], scores[good], labels[good]
        codes: list[Code] = []
        if self.masks:
            masks = output["masks"].detach()
            if len(masks) != count:
                raise ValueError(f"expected {count} masks, got {tuple(masks.shape)}")
            size = tuple(map(int, self.told.sizes[self._place[image_id]]))
            codes = _codes(masks[good.to(masks.device)], boxes, size)
        return _Found(
            labels.numpy().astype(np.int32),
            scores.double().numpy(),
            boxes.double().numpy(),
            np.array([len(code["counts"]) for code in codes], np.int32),
            b"".join(code["counts"] for code in codes),
        )

    def gather(self, world: World) -> None:
        """Bring together what all processes found, in process 0; all must call it.

        Afterwards, :meth:`figures` gives the same in all of them, and only process 0 can save.
        """
        self._world = world
        if world.size == 1:
            return
        everything = world.to_leader(self._found)
        self._found = {}
        for found in everything:
            self._found = found | self._found

    def figures(self) -> dict[str, float]:
        """Average precision in percent; after :meth:`gather`, all processes must call it.

        Returns:
            ``ap_box`` (mean over overlaps 0.50 to 0.95), ``ap_box_50`` and ``ap_box_75`` (at one
            overlap), ``ap_box_s``, ``ap_box_m`` and ``ap_box_l`` (objects under 32², under 96² and
            above); the same of ``ap_mask``. As in pycocotools, -1 where there is no such object.

        Raises:
            BrokenData: no image was added, or the file has no objects to compare with.
        """
        result: dict[str, float] | Exception = {}
        if self._world.leads:
            try:
                result = self._figures()
            except Exception as error:  # others must not wait for what cannot come
                result = error
        result = self._world.from_leader(result)
        if isinstance(result, Exception):
            raise result
        return result

    def _figures(self) -> dict[str, float]:
        from faster_coco_eval import COCO, COCOeval_faster

        if not self.told.has_objects:
            raise BrokenData(
                f"{self.told.path} has no objects to compare with: save the results and send them "
                "to COCO's server"
            )
        if not self._found:
            raise BrokenData(f"no image of {self.told.path} was evaluated")
        figures = {}
        for name, kind in (("ap_box", "bbox"), ("ap_mask", "segm"))[: 1 + self.masks]:
            truth = COCO(self._truth())  # anew: the library writes into the entries
            results = [
                {key: entry[key] for key in ("image_id", "category_id", "score", _KEY[kind])}
                for entry in self._entries(range(1, 1 + len(self.told.category_ids)))
            ]
            evaluation = COCOeval_faster(truth, truth.loadRes(results), kind)
            evaluation.run()
            for end, value in zip(_FIGURES, evaluation.stats[: len(_FIGURES)], strict=True):
                figures[name + end] = 100 * float(value) if value >= 0 else -1.0
        return figures

    def _truth(self) -> dict[str, list]:
        """The objects of the images that were added, with labels for categories."""
        told = self.told
        images, objects = [], []
        for image_id in self._found:
            at = self._place[image_id]
            size = told.sizes[at].tolist()
            images.append({"id": image_id, "height": size[0], "width": size[1]})
            for number in range(told.starts[at], told.starts[at + 1]):
                objects.append(
                    {
                        "id": len(objects) + 1,  # 0 would count as not found
                        "image_id": image_id,
                        "category_id": int(told.labels[number]),
                        "bbox": told.boxes[number].tolist(),
                        "area": float(told.areas[number]),
                        "iscrowd": int(told.crowd[number]),
                        "segmentation": told.segmentation(number, size),
                    }
                )
        categories = [{"id": k, "name": name} for k, name in enumerate(told.names, start=1)]
        return {"images": images, "annotations": objects, "categories": categories}

    def _entries(self, categories: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Everything found, in COCO's format; image by image in the order of their ids."""
        for image_id in sorted(self._found):
            found = self._found[image_id]
            size = self.told.sizes[self._place[image_id]].tolist()
            ends = found.lengths.cumsum().tolist()
            corners = found.boxes.tolist()
            for k, (label, score) in enumerate(
                zip(found.labels.tolist(), found.scores.tolist(), strict=True)
            ):
                left, top, right, bottom = corners[k]
                entry = {
                    "image_id": image_id,
                    "category_id": categories[label - 1],
                    "score": score,
                    "bbox": [left, top, right - left, bottom - top],
                }
                if self.masks:
                    counts = found.counts[ends[k] - found.lengths[k] : ends[k]]
                    entry["segmentation"] = {"size": size, "counts": counts}
                yield entry

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write the results as COCO's server takes them, each file whole or not at all.

        Boxes and masks go into two files: where an entry has both, pycocotools takes the box's area
        for the mask's.

        Args:
            path: ``results.json`` gives ``results.bbox.json`` and ``results.segm.json``.

        Returns:
            The files; none in processes that do not lead.
        """
        if not self._world.leads:
            return []
        path = Path(path)
        stem = path.with_suffix("") if path.suffix == ".json" else path
        written = []
        for kind in ("bbox", "segm")[: 1 + self.masks]:
            target = stem.with_name(f"{stem.name}.{kind}.json")
            temporary = target.with_name(f".{target.name}.partial")
            try:
                with temporary.open("w", encoding="ascii") as file:
                    self._write(file, _KEY[kind])
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            written.append(target)
        return written

    def _write(self, file: Any, key: str) -> None:
        before = "["
        for entry in self._entries(self.told.category_ids):
            kept = {name: entry[name] for name in ("image_id", "category_id", key, "score")}
            if key == "segmentation":
                code = kept[key]
                kept[key] = {"size": code["size"], "counts": code["counts"].decode("ascii")}
            file.write(before + json.dumps(kept))
            before = ",\n"
        file.write("[]\n" if before == "[" else "]\n")


_KEY = {"bbox": "bbox", "segm": "segmentation"}


# -- from a detector's outputs -------------------------------------------------------------------


def rescaled(
    output: Mapping[str, Tensor], seen: Sequence[int], size: Sequence[int]
) -> dict[str, Tensor]:
    """An output in pixels of the original image.

    Args:
        output: of a detector, in pixels of the image that it saw.
        seen: height and width of that image.
        size: height and width of the original.

    Returns:
        The same with other ``boxes``. Masks of boxes stay as they are; masks of whole images are
        resized, which takes long: let the detector give those of boxes.
    """
    (old_height, old_width), (height, width) = seen, size
    boxes = output["boxes"]
    scale = boxes.new_tensor([width / old_width, height / old_height] * 2)
    changed = {**output, "boxes": boxes * scale}
    masks = output.get("masks")
    if masks is not None and tuple(masks.shape[-2:]) == tuple(seen) != tuple(size):
        masks = masks.reshape(-1, 1, old_height, old_width).float()
        changed["masks"] = F.interpolate(masks, size=(height, width), mode="bilinear")
    return changed


def _codes(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[Code]:
    """Codes of masks as a detector gives them."""
    if tuple(masks.shape[-2:]) == size:
        masks = masks.reshape(-1, *size)
        whole = masks > 0.5 if masks.is_floating_point() else masks != 0
        return encode(whole.cpu().numpy().astype(np.uint8))
    return mask_codes(masks, boxes, size)


def paste_masks(
    masks: Tensor, boxes: Tensor, size: Sequence[int], *, threshold: float = 0.5
) -> Tensor:
    """Masks of boxes → masks of the image, the same as torchvision's above the threshold.

    torchvision's ``paste_masks_in_image`` makes 4 bytes for every pixel of the image and asks the
    GPU for each corner; here, only what lies in a box is computed, and a pixel takes one byte.

    Args:
        masks: probabilities, ``(n, 1, m, m)``.
        boxes: ``(n, 4)``, left, top, right, bottom in pixels of the image.
        size: height and width of the image.
        threshold: a pixel above it belongs to the object.

    Returns:
        uint8 ``(n, height, width)`` of 0 and 1, on the masks' device.
    """
    height, width = size
    whole = torch.zeros(len(masks), height, width, dtype=torch.uint8, device=masks.device)
    for image, (top, left, part) in zip(whole, _parts(masks, boxes, size), strict=True):
        rows, columns = part.shape
        image[top : top + rows, left : left + columns] = part > threshold
    return whole


def mask_codes(
    masks: Tensor, boxes: Tensor, size: Sequence[int], *, threshold: float = 0.5
) -> list[Code]:
    """:func:`paste_masks` and their run-length codes, without the masks of whole images."""
    height, width = map(int, size)
    codes: list[Code] = []
    for top, left, part in _parts(masks.cpu(), boxes, size):
        rows, columns = part.shape
        inside = np.zeros((columns, rows + 2), np.bool_)  # column by column, as in the code
        inside[:, 1:-1] = (part > threshold).numpy().T
        flat = inside.ravel()
        column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), rows + 2)
        ends = (column + left) * height + row + top  # where runs of ones begin and end, in turn
        # A run that ends with a column and one that begins with the next are one.
        same = np.flatnonzero(ends[1:-1:2] == ends[2::2]) * 2 + 1
        ends = np.delete(ends, np.concatenate((same, same + 1)))
        counts = np.diff(ends, prepend=0, append=height * width).tolist()
        if not counts[-1]:
            counts.pop()
        size_ = [height, width]
        codes.append({"size": size_, "counts": encode_counts(counts, size_)})
    return codes


def _parts(masks: Tensor, boxes: Tensor, size: Sequence[int]) -> Iterator[tuple[int, int, Tensor]]:
    """For each mask, top and left of its part of the image, and the probabilities there.

    Places and sizes are torchvision's: a border of one pixel is put around the mask, the box grows
    with it and its corners become whole numbers.
    """
    if not len(masks):
        return
    height, width = size
    padded = F.pad(masks.float(), (1, 1, 1, 1))
    grown = _grown(boxes.float(), padded.shape[-1] / masks.shape[-1]).long().tolist()
    for mask, (left, top, right, bottom) in zip(padded, grown, strict=True):
        shape = (max(bottom - top + 1, 1), max(right - left + 1, 1))
        part = F.interpolate(mask[None], size=shape, mode="bilinear", align_corners=False)[0, 0]
        first, last = max(top, 0), min(bottom + 1, height)
        begin, end = max(left, 0), min(right + 1, width)
        if first >= last or begin >= end:
            yield 0, 0, part[:0, :0]
        else:
            yield first, begin, part[first - top : last - top, begin - left : end - left]


def _grown(boxes: Tensor, scale: float) -> Tensor:
    """Boxes that are larger around their centres, computed in torchvision's order."""
    half_width = (boxes[:, 2] - boxes[:, 0]) * 0.5
    half_height = (boxes[:, 3] - boxes[:, 1]) * 0.5
    x, y = (boxes[:, 2] + boxes[:, 0]) * 0.5, (boxes[:, 3] + boxes[:, 1]) * 0.5
    half_width, half_height = half_width * scale, half_height * scale
    return torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), 1)
