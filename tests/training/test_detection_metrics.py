"""Average precision is pycocotools', for any annotations and detections; results can be sent in."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gclib.datasets.coco import CocoDataset, eval_transform
from gclib.datasets.coco_annotations import Annotations
from gclib.datasets.coco_masks import MissingLibrary
from gclib.datasets.files import BrokenData
from gclib.training.detection_metrics import CocoEvaluator, mask_codes, paste_masks, rescaled

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning:pycocotools"
)

CATEGORIES = (3, 7, 8, 20)
NAMES = [
    f"ap_{kind}{end}" for kind in ("box", "mask") for end in ("", "_50", "_75", "_s", "_m", "_l")
]


def disc(rng, size, radius):
    """A random blob of about this radius, bool ``(height, width)``."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    cy, cx = rng.uniform(0, height), rng.uniform(0, width)
    stretch = rng.uniform(0.5, 2)
    return ((y - cy) * stretch) ** 2 + ((x - cx) / stretch) ** 2 <= radius**2


def box_of(mask):
    """x, y, width, height around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def random_coco(seed, *, images=6, objects=5):
    """Annotations with outlines, both codes, crowds and ``ignore``; masks of every object."""
    from pycocotools import mask as coco

    rng = np.random.default_rng(seed)
    told = {"images": [], "annotations": [], "categories": []}
    told["categories"] = [
        {"id": k, "name": f"kind {k}"} for k in rng.permutation(CATEGORIES).tolist()
    ]
    masks = {}
    for image_id in rng.permutation(1000)[:images].tolist():
        size = rng.integers(40, 300, 2).tolist()
        told["images"].append(
            {"id": image_id, "file_name": f"{image_id}.jpg", "height": size[0], "width": size[1]}
        )
        masks[image_id] = []
        for _ in range(rng.integers(0, objects + 1)):
            mask = disc(rng, size, rng.choice([6, 12, 30, 70, 150]))
            if not mask.any():
                continue
            code = coco.encode(np.asfortranarray(mask, np.uint8))
            kind = rng.choice(["outline", "counts", "code"])
            x, y, w, h = box_of(mask)
            outline = [x, y, x + w, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h]
            flat = np.concatenate(([0], mask.T.ravel().astype(int), [2]))
            changes = np.flatnonzero(np.diff(flat))
            told["annotations"].append(
                {
                    "id": len(told["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice(CATEGORIES)),
                    "bbox": [float(v) for v in (x, y, w, h)],
                    "area": float(mask.sum()),
                    "iscrowd": int(rng.random() < 0.2),
                    "segmentation": {
                        "outline": [[float(v) for v in outline]],
                        "counts": {"size": size, "counts": np.diff(changes, prepend=0).tolist()},
                        "code": {"size": size, "counts": code["counts"].decode()},
                    }[kind],
                }
            )
            if rng.random() < 0.1:
                told["annotations"][-1]["ignore"] = 1
            masks[image_id].append((told["annotations"][-1]["category_id"], mask))
    return told, masks


def random_outputs(told, masks, seed, *, wrong=4):
    """What a mediocre detector finds: objects moved a little, some twice, and what is not there."""
    rng = np.random.default_rng([seed, 1])
    outputs = {}
    for image in told["images"]:
        size = (image["height"], image["width"])
        found = []
        for category, mask in masks[image["id"]]:
            for _ in range(rng.integers(0, 3)):
                moved = np.roll(mask, rng.integers(-6, 7, 2), (0, 1))
                right = category if rng.random() < 0.8 else int(rng.choice(CATEGORIES))
                found.append((right, moved))
        for _ in range(rng.integers(0, wrong + 1)):
            mask = disc(rng, size, rng.uniform(5, 60))
            if mask.any():
                found.append((int(rng.choice(CATEGORIES)), mask))
        boxes = torch.tensor([box_of(mask) for _, mask in found], dtype=torch.float32).view(-1, 4)
        boxes += torch.from_numpy(rng.normal(0, 1, boxes.shape)).float()
        boxes[:, 2:] += boxes[:, :2]
        outputs[image["id"]] = {
            "boxes": boxes,
            "labels": torch.tensor([CATEGORIES.index(c) + 1 for c, _ in found], dtype=torch.int64),
            "scores": torch.from_numpy(rng.random(len(found)).round(1)).float(),  # some are equal
            "masks": torch.from_numpy(
                np.array([mask for _, mask in found], np.float32).reshape(-1, 1, *size)
            ),
        }
    return outputs


def as_results(outputs, key):
    """COCO's format, written without the code under test."""
    from pycocotools import mask as coco

    results = []
    for image_id, output in outputs.items():
        for box, label, score, mask in zip(
            *(output[k] for k in ("boxes", "labels", "scores", "masks")), strict=True
        ):
            x, y, right, bottom = box.double().tolist()
            entry = {
                "image_id": image_id,
                "category_id": CATEGORIES[label - 1],
                "score": float(score),
            }
            if key == "bbox":
                entry["bbox"] = [x, y, right - x, bottom - y]
            else:
                entry["segmentation"] = coco.encode(np.asfortranarray(mask[0].numpy() > 0.5))
            results.append(entry)
    return results


def of_pycocotools(told, outputs):
    """The figures of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    figures = []
    with contextlib.redirect_stdout(io.StringIO()):
        for key, kind in (("bbox", "bbox"), ("segmentation", "segm")):
            truth = COCO()
            truth.dataset = json.loads(json.dumps(told))
            truth.createIndex()
            results = as_results(outputs, key)
            if results:
                found = truth.loadRes(results)
            else:
                found = COCO()
                found.dataset = told | {"annotations": []}
                found.createIndex()
            evaluation = COCOeval(truth, found, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            figures += [100 * v if v >= 0 else -1.0 for v in evaluation.stats[:6].tolist()]
    return dict(zip(NAMES, figures, strict=True))


def written(told, folder):
    path = folder / "instances.json"
    path.write_text(json.dumps(told))
    return path


def evaluated(path, outputs, **options):
    evaluator = CocoEvaluator(path, **options)
    evaluator.add(list(outputs), list(outputs.values()))
    return evaluator


@pytest.mark.parametrize("seed", range(12))
def test_figures_are_those_of_pycocotools(seed, tmp_path):
    told, masks = random_coco(seed)
    outputs = random_outputs(told, masks, seed)
    figures = evaluated(written(told, tmp_path), outputs).figures()
    assert list(figures) == NAMES
    assert figures == pytest.approx(of_pycocotools(told, outputs), abs=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 140))
def test_figures_are_those_of_pycocotools_on_more_images(seed, tmp_path):
    told, masks = random_coco(seed, images=25, objects=12)
    outputs = random_outputs(told, masks, seed, wrong=12)
    figures = evaluated(written(told, tmp_path), outputs).figures()
    assert figures == pytest.approx(of_pycocotools(told, outputs), abs=1e-6)


def test_the_random_cases_hold_what_they_should():
    kinds, crowds, ignored, figures = set(), 0, 0, []
    for seed in range(12):
        told, masks = random_coco(seed)
        outputs = random_outputs(told, masks, seed)
        figures.append(of_pycocotools(told, outputs)["ap_mask"])
        for entry in told["annotations"]:
            outline = entry["segmentation"]
            kinds.add("outline" if isinstance(outline, list) else type(outline["counts"]).__name__)
            crowds, ignored = crowds + entry["iscrowd"], ignored + ("ignore" in entry)
    assert kinds == {"outline", "list", "str"}
    assert crowds > 10
    assert ignored > 5
    assert 5 < np.mean(figures) < 80


def nothing(outputs):
    return {i: {k: v[:0] for k, v in output.items()} for i, output in outputs.items()}


@pytest.mark.parametrize("what", ["no detections", "no objects", "neither", "crowds alone"])
def test_figures_where_something_is_missing(what, tmp_path):
    told, masks = random_coco(3)
    outputs = random_outputs(told, masks, 3)
    if what in ("no detections", "neither"):
        outputs = nothing(outputs)
    if what in ("no objects", "neither"):
        told["annotations"] = []
    if what == "crowds alone":
        told["annotations"] = [entry | {"iscrowd": 1} for entry in told["annotations"]]
    figures = evaluated(written(told, tmp_path), outputs).figures()
    assert figures == pytest.approx(of_pycocotools(told, outputs), abs=1e-6)
    wanted = 0 if what == "no detections" else -1
    assert figures["ap_box"] == figures["ap_mask"] == wanted


def test_a_perfect_detector(tmp_path):
    told, _ = random_coco(0)
    sizes = {image["id"]: (image["height"], image["width"]) for image in told["images"]}
    path = written(told, tmp_path)
    evaluator = CocoEvaluator(path)
    annotations = Annotations(path)
    for at, image_id in enumerate(annotations.image_ids.tolist()):
        mine = slice(annotations.starts[at], annotations.starts[at + 1])
        boxes = torch.from_numpy(annotations.boxes[mine].copy())
        boxes[:, 2:] += boxes[:, :2]
        output = {
            "boxes": boxes,
            "labels": torch.from_numpy(annotations.labels[mine].copy()),
            "scores": torch.ones(len(boxes)),
            "masks": torch.from_numpy(
                annotations.masks(range(mine.start, mine.stop), sizes[image_id])
            ),
        }
        evaluator.add([image_id], [output])
    assert evaluator.figures()["ap_box"] == pytest.approx(100)
    assert evaluator.figures()["ap_mask"] == pytest.approx(100)


def test_only_images_that_were_added_count(tmp_path):
    told, masks = random_coco(5)
    outputs = random_outputs(told, masks, 5)
    half = dict(list(outputs.items())[:3])
    part = told | {"images": told["images"][:3]}
    part["annotations"] = [entry for entry in told["annotations"] if entry["image_id"] in half]
    figures = evaluated(written(told, tmp_path), half).figures()
    assert figures == pytest.approx(of_pycocotools(part, half), abs=1e-6)


def test_boxes_alone(tmp_path):
    told, masks = random_coco(1)
    outputs = random_outputs(told, masks, 1)
    whole = evaluated(written(told, tmp_path), outputs).figures()
    for output in outputs.values():
        del output["masks"]
    figures = evaluated(tmp_path / "instances.json", outputs, masks=False).figures()
    assert figures == {name: whole[name] for name in NAMES[:6]}
    with pytest.raises(ValueError, match="an output without 'masks'"):
        evaluated(tmp_path / "instances.json", outputs)


def test_a_data_set_and_its_annotations_do_as_well(tmp_path):
    told, masks = random_coco(2)
    outputs = random_outputs(told, masks, 2)
    path = written(told, tmp_path)
    data = CocoDataset(tmp_path, path, eval_transform(), keep_empty=True)
    figures = evaluated(path, outputs).figures()
    assert evaluated(data, outputs).figures() == figures
    assert evaluated(Annotations(path), outputs).figures() == figures


def test_annotations_may_have_the_id_0(tmp_path):
    """In pycocotools, an object with this id counts as not found."""
    told, masks = random_coco(4)
    outputs = random_outputs(told, masks, 4)
    figures = evaluated(written(told, tmp_path), outputs).figures()
    for entry in told["annotations"]:
        entry["id"] -= 1
    assert evaluated(written(told, tmp_path), outputs).figures() == figures


def test_figures_can_be_asked_for_again_and_later(tmp_path):
    told, masks = random_coco(6)
    outputs = random_outputs(told, masks, 6)
    evaluator = CocoEvaluator(written(told, tmp_path))
    first, *others = outputs.items()
    evaluator.add([first[0]], [first[1]])
    before = evaluator.figures()
    assert evaluator.figures() == before
    for image_id, output in others:
        evaluator.add([image_id], [output])
    assert len(evaluator) == len(outputs)
    assert (
        evaluator.figures() == evaluated(tmp_path / "instances.json", outputs).figures() != before
    )


def test_an_image_counts_once(tmp_path):
    told, masks = random_coco(7)
    outputs = random_outputs(told, masks, 7)
    evaluator = evaluated(written(told, tmp_path), outputs)
    figures = evaluator.figures()
    evaluator.add(list(outputs), list(nothing(outputs).values()))
    assert evaluator.figures() == figures


def test_what_is_no_number_was_not_found(tmp_path):
    told, masks = random_coco(8)
    outputs = random_outputs(told, masks, 8)
    figures = evaluated(written(told, tmp_path), outputs).figures()
    nan = {"scores": torch.tensor([float("nan"), 0.9]), "labels": torch.tensor([1, 2])}
    for output in outputs.values():
        size = output["masks"].shape[2:]
        nan["boxes"] = torch.tensor([[0, 0, 9, 9], [0, 0, float("inf"), 9]])
        nan["masks"] = torch.ones(2, 1, *size)
        for key, value in nan.items():
            output[key] = torch.cat((output[key], value))
    assert evaluated(tmp_path / "instances.json", outputs).figures() == figures


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([5])}, "labels from 5 to 5: expected 1 to 4"),
        ({"labels": torch.tensor([0])}, "labels from 0 to 0: expected 1 to 4"),
        ({"boxes": torch.zeros(2, 4)}, r"got \(2, 4\), \(1,\) and \(1,\)"),
        ({"masks": torch.zeros(3, 1, 28, 28)}, r"expected 1 masks, got \(3, 1, 28, 28\)"),
    ],
)
def test_outputs_that_are_none(change, message, tmp_path):
    told, _ = random_coco(0)
    evaluator = CocoEvaluator(written(told, tmp_path))
    output = {"boxes": torch.zeros(1, 4), "scores": torch.ones(1), "labels": torch.ones(1).long()}
    output |= {"masks": torch.zeros(1, 1, 28, 28)} | change
    with pytest.raises(ValueError, match=message):
        evaluator.add([told["images"][0]["id"]], [output])
    with pytest.raises(ValueError, match="image 12345 is not in "):
        evaluator.add([12345], [output])


def test_nothing_to_compare_with(tmp_path):
    told, masks = random_coco(0)
    with pytest.raises(BrokenData, match=r"no image of .*instances.json was evaluated"):
        CocoEvaluator(written(told, tmp_path)).figures()
    outputs = random_outputs(told, masks, 0)
    del told["annotations"]
    evaluator = evaluated(written(told, tmp_path), outputs)
    with pytest.raises(BrokenData, match="no objects to compare with: save the results and send"):
        evaluator.figures()
    assert len(evaluator.save(tmp_path / "results.json")) == 2


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    path = written(random_coco(0)[0], tmp_path)
    monkeypatch.setitem(sys.modules, "faster_coco_eval.core", None)
    with pytest.raises(MissingLibrary, match=r"pip install 'gclib\[train\]'"):
        CocoEvaluator(path)


# -- result files --------------------------------------------------------------------------------


def test_result_files_are_what_pycocotools_reads(tmp_path):
    told, masks = random_coco(9)
    outputs = random_outputs(told, masks, 9)
    path = written(told, tmp_path)
    evaluator = evaluated(path, outputs)
    files = evaluator.save(tmp_path / "results.json")
    assert [file.name for file in files] == ["results.bbox.json", "results.segm.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "instances.json",
        *(f.name for f in files),
    ]
    for file, key in zip(files, ("bbox", "segmentation"), strict=True):
        found = json.loads(file.read_text())
        wanted = as_results(outputs, key)
        assert all(set(entry) == {"image_id", "category_id", "score", key} for entry in found)
        for entry in wanted:
            if key == "segmentation":
                entry[key]["counts"] = entry[key]["counts"].decode()
                entry[key]["size"] = list(entry[key]["size"])
        by = {image: [e for e in wanted if e["image_id"] == image] for image in outputs}
        assert found == [entry for image in sorted(outputs) for entry in by[image]]


@pytest.mark.parametrize(("name", "stem"), [("a.json", "a"), ("v1.2", "v1.2"), ("b.c.json", "b.c")])
def test_names_of_result_files(name, stem, tmp_path):
    told, masks = random_coco(9)
    outputs = nothing(random_outputs(told, masks, 9))
    files = evaluated(written(told, tmp_path), outputs).save(tmp_path / name)
    assert [file.name for file in files] == [f"{stem}.bbox.json", f"{stem}.segm.json"]
    assert [json.loads(file.read_text()) for file in files] == [[], []]


def test_a_file_is_whole_or_the_old_one(tmp_path):
    told, masks = random_coco(9)
    outputs = random_outputs(told, masks, 9)
    evaluator = evaluated(written(told, tmp_path), outputs)
    first, _ = evaluator.save(tmp_path / "results.json")
    before = first.read_text()
    last = max(outputs)
    evaluator._found[last] = evaluator._found[last]._replace(
        labels=np.array([99]), scores=np.ones(1)
    )
    with pytest.raises(IndexError):
        evaluator.save(tmp_path / "results.json")
    assert first.read_text() == before
    assert not list(tmp_path.glob(".*"))


# -- several processes ---------------------------------------------------------------------------

SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_detection_metrics import CocoEvaluator, random_coco, random_outputs
from gclib.training import distributed

told, masks = random_coco(11, images=5)
outputs = list(random_outputs(told, masks, 11).items())
world = distributed.start("cpu")
evaluator = CocoEvaluator(Path(sys.argv[2], "instances.json"))
share = -(-len(outputs) // world.size)  # the last one goes around, as a DistributedSampler does
for k in range(share):
    image_id, output = outputs[(k * world.size + world.rank) % len(outputs)]
    evaluator.add([image_id], [output])
evaluator.gather(world)
files = evaluator.save(Path(sys.argv[2], "results.json"))
print(json.dumps([evaluator.figures(), len(files)]))
if world.leads:
    evaluator.told.has_objects = False  # an error in one must be one in all
try:
    evaluator.figures()
except Exception as error:
    print(type(error).__name__)
distributed.finish()
"""


@pytest.mark.full
def test_two_processes_are_one(tmp_path):
    told, masks = random_coco(11, images=5)
    outputs = random_outputs(told, masks, 11)
    evaluator = evaluated(written(told, tmp_path), outputs)
    figures = evaluator.figures()
    alone = [file.read_text() for file in evaluator.save(tmp_path / "alone.json")]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    started = []
    for rank in range(2):
        world = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path)]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | world)
        )
    said = [process.communicate(timeout=120)[0].splitlines() for process in started]
    assert [json.loads(lines[0]) for lines in said] == [[figures, 2], [figures, 0]]
    assert [lines[1] for lines in said] == ["BrokenData", "BrokenData"]
    names = ("results.bbox.json", "results.segm.json")
    assert [(tmp_path / name).read_text() for name in names] == alone


# -- masks of boxes ------------------------------------------------------------------------------


def random_masks(seed, size, count=20, side=28):
    """Smooth probabilities, and boxes that may reach over the border or be very thin."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 4, 4, generator=generator)
    masks = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    height, width = size
    scale = torch.tensor([width, height])
    centre = torch.rand(count, 2, generator=generator) * scale
    half = torch.rand(count, 2, generator=generator) ** 2 * scale
    boxes = torch.cat((centre - half, centre + half), 1)
    boxes[::2, 0::2] = boxes[::2, 0::2].clamp(0, width)
    boxes[::2, 1::2] = boxes[::2, 1::2].clamp(0, height)
    boxes[0] = torch.tensor([0.0, 0.0, width, height])
    return masks, boxes


@pytest.mark.parametrize("size", [(50, 70), (1, 1), (3, 200), (200, 3), (97, 64)])
@pytest.mark.parametrize("side", [14, 28])
def test_pasted_masks_are_torchvisions(size, side):
    from pycocotools import mask as coco
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    for seed in range(4):
        masks, boxes = random_masks(seed, size, side=side)
        for threshold in (0.5, 0.3):
            wanted = (paste_masks_in_image(masks, boxes, size) > threshold)[:, 0].byte()
            assert torch.equal(paste_masks(masks, boxes, size, threshold=threshold), wanted)
            codes = mask_codes(masks, boxes, size, threshold=threshold)
            for code, mask in zip(codes, wanted.numpy(), strict=True):
                assert code == coco.encode(np.asfortranarray(mask)) | {"size": list(size)}
        assert 0.02 < wanted.float().mean() < 0.98


def test_no_masks_to_paste():
    none, boxes = torch.zeros(0, 1, 28, 28), torch.zeros(0, 4)
    assert paste_masks(none, boxes, (5, 6)).shape == (0, 5, 6)
    assert mask_codes(none, boxes, (5, 6)) == []
    outside = torch.tensor([[50.0, 50, 60, 60]])
    assert paste_masks(torch.ones(1, 1, 28, 28), outside, (5, 6)).sum() == 0
    (code,) = mask_codes(torch.ones(1, 1, 28, 28), outside, (5, 6))
    from pycocotools import mask as coco

    assert code["counts"] == coco.encode(np.zeros((5, 6), np.uint8, order="F"))["counts"]


def test_masks_of_boxes_are_evaluated_as_pasted_ones(tmp_path):
    told, masks = random_coco(10)
    outputs = random_outputs(told, masks, 10)
    pasted = {}
    for image in told["images"]:
        output = outputs[image["id"]]
        size = (image["height"], image["width"])
        output["masks"] = random_masks(0, size, len(output["scores"]) or 1)[0][
            : len(output["scores"])
        ]
        pasted[image["id"]] = output | {
            "masks": paste_masks(output["masks"], output["boxes"], size)
        }
    path = written(told, tmp_path)
    evaluator, wanted = evaluated(path, outputs), evaluated(path, pasted)
    for image_id in outputs:
        mine, other = evaluator._found[image_id], wanted._found[image_id]
        assert mine.counts == other.counts
    assert evaluator.figures() == wanted.figures()


def test_rescaled_boxes_and_masks():
    whole = torch.zeros(1, 1, 20, 40)
    whole[..., 4:8, 10:20] = 1
    output = {"boxes": torch.tensor([[10.0, 4, 20, 8]]), "masks": torch.rand(1, 1, 28, 28)}
    changed = rescaled(output, (20, 40), (50, 80))
    assert changed["boxes"].tolist() == [[20, 10, 40, 20]]
    assert changed["masks"] is output["masks"]
    assert output["boxes"].tolist() == [[10, 4, 20, 8]]
    changed = rescaled(output | {"masks": whole}, (20, 40), (50, 80))["masks"]
    wanted = torch.zeros(1, 1, 50, 80, dtype=torch.bool)
    wanted[..., 10:20, 20:40] = True
    assert torch.equal(changed > 0.5, wanted)
