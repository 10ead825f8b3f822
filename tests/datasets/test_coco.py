"""COCO's files: every object as pycocotools has it, what is broken by name, boxes on masks."""

import json
import os
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from gclib.datasets import coco_annotations
from gclib.datasets.coco import (
    CocoDataset,
    coco_folder,
    collate,
    eval_transform,
    resized,
    train_transform,
)
from gclib.datasets.coco_annotations import Annotations
from gclib.datasets.coco_masks import MissingLibrary, counts_of, decode, encode, encode_counts
from gclib.datasets.files import BrokenData

pytestmark = [
    pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:pycocotools"),
]

SIZES = {7: (40, 60), 3: (60, 40), 21: (33, 47), 5: (48, 48)}  # id → height, width; 5 has nothing


def rectangle(x, y, w, h):
    return [[float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]]


def code_of(size, rows, columns):
    """A mask in both ways: run lengths, and their characters."""
    from pycocotools import mask as coco

    mask = np.zeros(size, np.uint8, order="F")
    mask[rows, columns] = 1
    flat = np.concatenate(([0], mask.T.ravel().astype(int), [2]))
    lengths = np.diff(np.flatnonzero(np.diff(flat)), prepend=0).tolist()
    return lengths, coco.encode(mask)["counts"].decode()


def thing(number, image_id, category, box, outline, **more):
    x, y, w, h = box
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "bbox": [x, y, w, h],
        "area": float(w * h),
        "iscrowd": 0,
        "segmentation": outline,
    } | more


def make():
    """Three images with outlines in one and two parts, both codes, a crowd and one to ignore."""
    lengths, code = code_of(SIZES[7], slice(5, 20), slice(30, 50))
    crowd, _ = code_of(SIZES[3], slice(0, 30), slice(0, 40))
    two = [*rectangle(2, 2, 10, 6), *rectangle(20, 20, 8.25, 9.75)]
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": [
            {"id": number, "file_name": f"{number:012d}.png", "height": size[0], "width": size[1]}
            for number, size in SIZES.items()
        ],
        "annotations": [
            thing(11, 21, 90, [10.5, 8, 20, 12], rectangle(10.5, 8, 20, 12)),
            thing(12, 7, 1, [30, 5, 20, 15], {"size": [40, 60], "counts": lengths}),
            thing(13, 7, 90, [30, 5, 20, 15], {"size": [40, 60], "counts": code}),
            thing(14, 7, 17, [2, 2, 26.25, 27.75], two),
            thing(15, 3, 1, [0, 0, 40, 30], {"size": [60, 40], "counts": crowd}, iscrowd=1),
            thing(16, 3, 17, [5, 5, 9, 9], rectangle(5, 5, 9, 9), ignore=1),
            thing(17, 3, 17, [20, 30, 15, 25], rectangle(20, 30, 15, 25)),
        ],
        "categories": [
            {"id": 90, "name": "toothbrush"},
            {"id": 1, "name": "person"},
            {"id": 17, "name": "cat"},
        ],
    }


def write(folder, told):
    path = folder / "annotations" / "instances_train2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(told))
    return path


@pytest.fixture
def root(tmp_path):
    """A COCO of four images, each object painted where its mask is."""
    folder = tmp_path / "train2017"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, size in SIZES.items():
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:012d}.png")
    write(tmp_path, make())
    return tmp_path


def plain(image, target):
    return image, target


def open_data(root, transform=plain, **options):
    return CocoDataset(*coco_folder(root, "train"), transform, **options)


# -- what the file says --------------------------------------------------------------------------


def of_pycocotools(path):
    from pycocotools.coco import COCO

    with open(os.devnull, "w") as nowhere, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", nowhere)
        return COCO(str(path))


def test_annotations_are_those_of_pycocotools(root):
    path = coco_folder(root, "train")[1]
    told, other = Annotations(path), of_pycocotools(path)
    assert told.category_ids == sorted(other.getCatIds()) == [1, 17, 90]
    assert told.names == [cat["name"] for cat in other.loadCats(told.category_ids)]
    assert told.image_ids.tolist() == list(SIZES)
    for at, number in enumerate(told.image_ids.tolist()):
        size = told.sizes[at].tolist()
        assert tuple(size) == SIZES[number]
        assert told.file_name(at) == other.imgs[number]["file_name"]
        mine = range(told.starts[at], told.starts[at + 1])
        wanted = other.imgToAnns[number]
        assert len(mine) == len(wanted)
        masks = told.masks(mine, size)
        assert masks.shape == (len(wanted), *size)
        for index, mask, entry in zip(mine, masks, wanted, strict=True):
            assert told.boxes[index].tolist() == entry["bbox"]
            assert told.areas[index] == entry["area"]
            assert told.category_ids[told.labels[index] - 1] == entry["category_id"]
            assert told.crowd[index] == entry["iscrowd"]
            assert told.ignored[index] == entry.get("ignore", 0)
            assert np.array_equal(mask, other.annToMask(entry))
            counts = other.annToRLE(entry)["counts"]
            counts = counts.encode() if isinstance(counts, str) else counts
            assert told.code(index, size)["counts"] == counts


def random_outlines(seed, size, count, decimals):
    """Stars of 3 to 40 corners, partly outside of the image."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        corners = int(rng.integers(3, 41))
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radius = rng.uniform(1, max(size), corners)
        x = rng.uniform(0, size[1]) + radius * np.cos(angle)
        y = rng.uniform(0, size[0]) + radius * np.sin(angle)
        found.append(np.stack((x, y), 1).round(decimals).ravel().tolist())
    return found


@pytest.mark.parametrize("decimals", [0, 1, 2, 15])
def test_any_outline_is_drawn_as_pycocotools_draws_it(decimals, tmp_path):
    told = make() | {"annotations": []}
    for number, size in SIZES.items():
        for k, outline in enumerate(random_outlines(number, size, 30, decimals)):
            parts = [outline, *random_outlines(number + k, size, k % 3, decimals)]
            told["annotations"].append(thing(number * 100 + k, number, 1, [0, 0, 9, 9], parts))
    path = write(tmp_path, told)
    mine, other = Annotations(path), of_pycocotools(path)
    for at, number in enumerate(mine.image_ids.tolist()):
        own = range(mine.starts[at], mine.starts[at + 1])
        for index, entry in zip(own, other.imgToAnns[number], strict=True):
            assert mine.segmentation(index, SIZES[number]) == entry["segmentation"]
        masks = mine.masks(own, SIZES[number])
        assert np.array_equal(masks, [other.annToMask(entry) for entry in other.imgToAnns[number]])
        assert 0.1 < masks.mean() < 0.9


@pytest.mark.parametrize("seed", range(5))
def test_any_mask_survives_its_code(seed):
    from pycocotools import mask as coco

    rng = np.random.default_rng(seed)
    for _ in range(20):
        size = rng.integers(1, 90, 2).tolist()
        masks = (rng.random((3, *size)) < rng.choice([0, 0.02, 0.5, 0.98, 1])).astype(np.uint8)
        codes = encode(masks)
        assert np.array_equal(decode(codes, size), masks)
        for code, mask in zip(codes, masks, strict=True):
            assert code["counts"] == coco.encode(np.asfortranarray(mask))["counts"]
            assert encode_counts(counts_of(code).tolist(), size) == code["counts"]
    assert decode([], (4, 5)).shape == (0, 4, 5)


def test_long_runs_survive_their_code():
    """Their lengths take several characters, and the change against the last but one a sign."""
    size = (3000, 2000)
    for counts in ([0, 6_000_000], [5_999_999, 1], [1_000_000, 3, 17, 4_999_980]):
        code = {"size": list(size), "counts": encode_counts(counts, size)}
        assert counts_of(code).tolist() == counts


def test_a_file_is_read_in_pieces(root, monkeypatch):
    """Pieces may end anywhere, also inside of a number or a name."""
    path = coco_folder(root, "train")[1]
    whole = Annotations(path)
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(coco_annotations, "_CHUNK", size)
        told = Annotations(path)
        for name in ("image_ids", "sizes", "starts", "boxes", "areas", "labels", "crowd"):
            assert np.array_equal(getattr(told, name), getattr(whole, name))
        for index in range(7):
            assert told.segmentation(index, (1, 1)) == whole.segmentation(index, (1, 1))
        assert told.file_name(3) == "000000000005.png"


def test_lists_may_come_in_any_order_and_with_spaces(root):
    path = coco_folder(root, "train")[1]
    told = make()
    wanted = Annotations(path)
    for keys in (reversed(told), ("annotations", "categories", "more", "images")):
        path.write_text(json.dumps({key: told.get(key, [[{"a": "]}"}]]) for key in keys}, indent=3))
        found = Annotations(path)
        assert np.array_equal(found.labels, wanted.labels)
        assert np.array_equal(found.starts, wanted.starts)


def test_names_may_be_in_any_script(root):
    told = make()
    told["images"][0]["file_name"] = "ß/猫.png"
    path = coco_folder(root, "train")[1]
    for ascii in (True, False):
        path.write_text(json.dumps(told, ensure_ascii=ascii), encoding="utf-8")
        found = Annotations(path)
        assert [found.file_name(k) for k in (0, 1)] == ["ß/猫.png", "000000000003.png"]


def test_outlines_take_four_bytes_a_number(tmp_path):
    """COCO's have two decimals; others stay what they are."""
    told = make() | {"annotations": []}
    outline = random_outlines(0, (40, 60), 1, 2)
    told["annotations"] = [thing(1, 7, 1, [0, 0, 9, 9], outline)]
    assert Annotations(write(tmp_path, told))._points.dtype == np.int32
    told["annotations"][0]["segmentation"] = [[value + 0.001 for value in outline[0]]]
    assert Annotations(write(tmp_path, told))._points.dtype == np.float64


# -- broken files --------------------------------------------------------------------------------


def other(number, **change):
    """The entry of an object with other values; ``...`` removes a key."""

    def damage(told):
        entry = told["annotations"][number]
        entry.update(change)
        for key in [key for key, value in change.items() if value is ...]:
            del entry[key]

    return damage


def lists(name, change):
    def damage(told):
        told[name] = change(told[name])

    return damage


NAN = float("nan")
DAMAGE = {
    "no images": (lambda t: t.pop("images"), "has no list 'images'"),
    "no categories": (lambda t: t.pop("categories"), "has no list 'categories'"),
    "images no list": (
        lists("images", lambda v: {"a": 1}),
        "something else than a list for 'images'",
    ),
    "empty images": (lists("images", lambda v: []), "lists no image"),
    "image no object": (
        lists("images", lambda v: [3, *v]),
        "images[0] is 3: expected an object with",
    ),
    "image without height": (
        lists("images", lambda v: [{"id": 1, "file_name": "a", "width": 3}]),
        "images[0] (id 1) has no height",
    ),
    "image of no size": (
        lists("images", lambda v: [*v, {"id": 1, "file_name": "a", "width": 0, "height": 4}]),
        "images[4] (id 1) is of 0×4 pixels",
    ),
    "image of a huge size": (
        lists("images", lambda v: [*v, {"id": 1, "file_name": "a", "width": 10**6, "height": 400}]),
        "images[4] (id 1) is of 1000000×400 pixels",
    ),
    "height a text": (
        lists("images", lambda v: [{"id": 1, "file_name": "a", "width": 3, "height": "4"}]),
        'images[0] (id 1) has height "4": expected a whole number',
    ),
    "image id a text": (
        lists("images", lambda v: [{"id": "x", "file_name": "a", "width": 3, "height": 4}]),
        'images[0] (id x) has id "x": expected a whole number',
    ),
    "name a number": (
        lists("images", lambda v: [{"id": 1, "file_name": 12, "width": 3, "height": 4}]),
        "images[0] (id 1) has file_name 12: expected a text",
    ),
    "no name": (
        lists("images", lambda v: [{"id": 1, "file_name": "", "width": 3, "height": 4}]),
        "images[0] (id 1) has the file name ''",
    ),
    "same image": (
        lists("images", lambda v: [*v, v[1]]),
        "images[4] has the id 3, as images[1] has",
    ),
    "same category": (lists("categories", lambda v: [*v, v[0]]), "categories[3] has the id 90, as"),
    "same object": (lists("annotations", lambda v: [*v, v[0]]), "annotations[7] has the id 11, as"),
    "category without name": (
        lists("categories", lambda v: [{"id": 3}]),
        "categories[0] (id 3) has no",
    ),
    "id out of range": (
        other(0, id=10**30),
        "annotations[0] (id 1000000000000000000000000000000) has an id out of range",
    ),
    "image not there": (
        other(2, image_id=999),
        "annotations[2] (id 13) has image_id 999, which is not among the images",
    ),
    "category not there": (
        other(1, category_id=2),
        "annotations[1] (id 12) has category_id 2, which is not among the categories",
    ),
    "no box": (other(3, bbox=...), "annotations[3] (id 14) has no bbox"),
    "box of three": (other(3, bbox=[1, 2, 3]), "annotations[3] (id 14) has a bbox of 3 numbers"),
    "box of texts": (other(3, bbox=["1", 2, 3, 4]), 'has the bbox ["1", 2, 3, 4]: expected four'),
    "box a number": (other(3, bbox=5), "has bbox 5: expected a list of numbers"),
    "box not a number": (
        other(3, bbox=[1, 2, NAN, 4]),
        "(id 14) has the bbox [1.0, 2.0, nan, 4.0]",
    ),
    "box infinite": (other(3, bbox=[1, 2, 1e999, 4]), "(id 14) has the bbox [1.0, 2.0, inf, 4.0]"),
    "area not a number": (other(4, area=NAN), "annotations[4] (id 15) has the area nan"),
    "area a text": (
        other(4, area="big"),
        'annotations[4] (id 15) has area "big": expected a number',
    ),
    "no area": (other(4, area=...), "annotations[4] (id 15) has no area"),
    "no mask": (other(0, segmentation=...), "annotations[0] (id 11) has no segmentation"),
    "mask null": (other(0, segmentation=None), "has segmentation null: expected polygons or a run"),
    "no outline": (
        other(0, segmentation=[]),
        "(id 11) has an outline of 0 points: expected at least",
    ),
    "empty outline": (other(0, segmentation=[[]]), "(id 11) has an outline of 0 points"),
    "two points": (other(0, segmentation=[[1, 2, 3, 4]]), "(id 11) has an outline of 2 points"),
    "odd outline": (other(0, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "has an outline of 7 numbers"),
    "flat outline": (
        other(0, segmentation=[1, 2, 3, 4, 5, 6]),
        "an outline that is no list of lists",
    ),
    "outline of texts": (other(0, segmentation=[["a"] * 6]), "an outline that is no list of lists"),
    "short part first": (
        other(0, segmentation=[[1, 2, 3, 4], [1, 2, 3, 4, 5, 6]]),
        "(id 11) has an outline whose first part has fewer than 3 points",
    ),
    "outline not a number": (
        other(3, segmentation=[[1, 2, 9, 4, 5, 6], [1, 2, NAN, 4, 5, 6]]),
        "annotations[3] (id 14) has nan in its outline",
    ),
    "outline far away": (
        other(3, segmentation=[[1, 2, 9, 4, 5, 6], [1, 2, 9, 4, 5, -1e9]]),
        "annotations[3] (id 14) has -1000000000.0 in its outline",
    ),
    "code without size": (
        other(2, segmentation={"counts": "0"}),
        "(id 13) has a broken mask: expected",
    ),
    "code of a number": (
        other(2, segmentation={"size": [40, 60], "counts": 5}),
        "has a broken mask",
    ),
    "code cut": (
        other(2, segmentation={"size": [40, 60], "counts": code_of((40, 60), 5, 7)[1][:-2]}),
        "annotations[2] (id 13) has a broken mask: its counts ",
    ),
    "code empty": (
        other(2, segmentation={"size": [40, 60], "counts": ""}),
        "its counts cannot be read",
    ),
    "code of letters": (
        other(2, segmentation={"size": [40, 60], "counts": "ßzz~"}),
        "a broken mask",
    ),
    "code endless": (
        other(2, segmentation={"size": [40, 60], "counts": "o" * 99}),
        "a broken mask",
    ),
    "code of another size": (
        other(2, segmentation={"size": [60, 40], "counts": code_of((60, 40), 5, 7)[1]}),
        "annotations[2] (id 13) has a mask of 40×60 pixels in an image of 60×40",
    ),
    "counts too few": (
        other(1, segmentation={"size": [40, 60], "counts": [5, 6]}),
        "annotations[1] (id 12) has a broken mask: its counts hold 11 pixels, its size 2400",
    ),
    "counts negative": (
        other(1, segmentation={"size": [40, 60], "counts": [2405, -5]}),
        "annotations[1] (id 12) has a broken mask: its counts are no lengths",
    ),
    "counts of texts": (
        other(1, segmentation={"size": [40, 60], "counts": [2400, "a"]}),
        "annotations[1] (id 12) has a broken mask: its counts are no lengths",
    ),
    "object a list": (
        lists("annotations", lambda v: [*v, [1]]),
        "annotations[7] is [1]: expected an",
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_broken_entry_is_named(how, root):
    damage, message = DAMAGE[how]
    told = make()
    damage(told)
    path = write(root, told)
    with pytest.raises(BrokenData) as caught:
        Annotations(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


TEXTS = {
    "empty": (lambda text: "", "is not a file of COCO annotations: expected an object in braces"),
    "a list": (lambda text: "[1]", "is not a file of COCO annotations"),
    "no JSON": (lambda text: "<html>", "is not a file of COCO annotations"),
    "cut in a list": (
        lambda text: text[: text.index('"id": 14')],
        "is cut off at annotations[3]: ",
    ),
    "cut in a text": (lambda text: text[: text.index("toothb") + 3], "is cut off at categories[0]"),
    "last brace gone": (lambda text: text[:-1], "is cut off"),
    "cut behind an entry": (lambda text: text[: text.index(', {"id": 14')], "is cut off at annot"),
    "comma gone": (
        lambda text: text.replace('}, {"id": 14', '} {"id": 14'),
        "expected , and found '{'",
    ),
    "quote gone": (
        lambda text: text.replace('"bbox"', 'bbox"', 1),
        "is not JSON (Expecting property",
    ),
    "more behind": (lambda text: text + "{}", "something stands behind its end"),
    "twice": (lambda text: '{"images": [], ' + text[1:], "has two lists 'images'"),
    "name no text": (lambda text: "{1: 2}", "expected a name in quotes"),
    "deep": (lambda text: '{"a": ' + "[" * 100_000, "is too deeply nested"),
}


@pytest.mark.parametrize("how", TEXTS)
def test_a_broken_text_is_described(how, root):
    damage, message = TEXTS[how]
    path = coco_folder(root, "train")[1]
    text = path.read_text()
    assert damage(text) != text
    path.write_text(damage(text))
    with pytest.raises(BrokenData) as caught:
        Annotations(path)
    assert str(caught.value).startswith(f"{path} ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(BrokenData, match="is not there"):
        Annotations(tmp_path / "a.json")
    with pytest.raises(BrokenData, match="is a folder: name the file of annotations"):
        Annotations(tmp_path)
    (tmp_path / "a.json").write_bytes(b"PK\x03\x04\xff\xfe\x00")
    with pytest.raises(BrokenData, match="is not a text file: is it an archive to unpack"):
        Annotations(tmp_path / "a.json")


@pytest.mark.parametrize(("name", "one"), [("images", "image"), ("categories", "category")])
def test_a_file_without_images_or_categories(name, one, root):
    path = write(root, make() | {name: [], "annotations": []})
    with pytest.raises(BrokenData, match=f"lists no {one}"):
        Annotations(path)


def test_a_missing_library_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval.core", None)
    with pytest.raises(
        MissingLibrary, match=r"need faster-coco-eval: pip install 'gclib\[train\]'"
    ):
        open_data(root)[0]


# -- examples ------------------------------------------------------------------------------------


def test_an_example(root):
    data = open_data(root)
    assert (data.labels, data.names) == ([1, 17, 90], ["person", "cat", "toothbrush"])
    assert data.image_ids.tolist() == [7, 3, 21]  # 5 has no object
    assert data.aspect_ratios.tolist() == pytest.approx([60 / 40, 40 / 60, 47 / 33])
    example = data[0]
    image, target, broken = example
    pixels = np.asarray(Image.open(root / "train2017" / "000000000007.png"))
    assert np.array_equal(image.permute(1, 2, 0), pixels)
    assert target["boxes"].dtype == torch.float32
    assert target["boxes"].tolist() == [[30, 5, 50, 20], [30, 5, 50, 20], [2, 2, 28.25, 29.75]]
    assert target["labels"].dtype == torch.int64
    assert target["labels"].tolist() == [1, 3, 2]
    assert target["masks"].dtype == torch.uint8
    assert target["masks"].shape == (3, 40, 60)
    assert target["masks"][0, 5:20, 30:50].all()
    assert int(target["masks"][0].sum()) == 15 * 20
    assert (target["image_id"], target["size"], broken) == (7, (40, 60), ())
    assert data[(5, 0)].target["image_id"] == 7
    with pytest.raises(IndexError):
        data[3]


def test_crowds_and_ignored_objects_are_left_out(root):
    assert open_data(root)[1].target["labels"].tolist() == [2]
    assert open_data(root)[1].target["boxes"].tolist() == [[20, 30, 35, 55]]


@pytest.mark.parametrize(
    ("box", "area", "wanted"),
    [
        ([-5, -6, 20, 30], 9.0, [0, 0, 15, 24]),
        ([50, 30, 100, 100], 9.0, [50, 30, 60, 40]),
        ([59.5, 10, 1, 1], 9.0, [59.5, 10, 60, 11]),
        ([60, 10, 5, 5], 9.0, None),
        ([-9, 10, 9, 5], 9.0, None),
        ([10, -50, 9, 5], 9.0, None),
        ([10, 10, 0, 5], 9.0, None),
        ([10, 10, 5, 0.99], 9.0, None),
        ([10, 10, -5, 5], 9.0, None),
        ([10, 10, 5, 5], 0.0, None),
        ([10, 10, 5, 5], 0.5, [10, 10, 15, 15]),
    ],
)
def test_boxes_are_cut_or_left_out(box, area, wanted, root):
    told = make()
    told["annotations"][1] |= {"bbox": box, "area": area}
    write(root, told)
    boxes = open_data(root)[0].target["boxes"].tolist()
    labels = open_data(root)[0].target["labels"].tolist()
    assert (boxes[0], labels) == (wanted, [1, 3, 2]) if wanted else labels == [3, 2]


def test_images_without_objects_are_kept_on_demand(root):
    told = make()
    told["annotations"] = [entry for entry in told["annotations"] if entry["id"] in (11, 15, 16)]
    write(root, told)
    assert open_data(root).image_ids.tolist() == [21]  # a crowd alone is nothing to learn from
    data = open_data(root, train_transform(20, 40), keep_empty=True)
    assert data.image_ids.tolist() == [7, 3, 21, 5]
    for index in (0, 1, 3):
        target = data[index].target
        assert target["boxes"].shape == (0, 4)
        assert target["labels"].shape == (0,)
        assert target["masks"].shape == (0, *data[index].image.shape[1:])


def test_nothing_to_learn_from(root):
    told = make() | {"annotations": []}
    write(root, told)
    with pytest.raises(BrokenData, match=r"train2017\.json has no object that counts"):
        open_data(root)
    del told["annotations"]
    write(root, told)
    with pytest.raises(BrokenData, match="has no list 'annotations': a training needs images with"):
        open_data(root)
    data = open_data(root, keep_empty=True)  # as the images of test-dev
    assert len(data) == 4
    assert len(data[0].target["boxes"]) == 0


def test_without_masks(root):
    data = open_data(root, train_transform(80, 130), masks=False)
    assert "masks" not in data[0].target
    assert torch.equal(
        data[0].target["boxes"], open_data(root, train_transform(80, 130))[0].target["boxes"]
    )


# -- transforms ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),
        ((800, 1333), (800, 1333)),
        ((375, 500), (800, 1067)),
        ((200, 640), (417, 1333)),  # the long side decides
        ((1000, 1000), (800, 800)),
        ((3, 640), (6, 1333)),
        ((1, 4000), (1, 1333)),
    ],
)
def test_sizes_of_the_recipe(size, wanted):
    assert resized(size, 800, 1333) == wanted


def test_torchvisions_detectors_leave_such_images_as_they_are():
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    leave = GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3)
    for size in [(480, 640), (427, 640), (640, 359), (200, 640), (612, 612), (333, 500), (3, 640)]:
        image = torch.rand(3, *resized(size, 800, 1333))
        kept, _ = leave([image])
        assert kept.image_sizes == [tuple(image.shape[1:])]
        assert torch.equal(kept.tensors[0, :, : image.shape[1], : image.shape[2]], image)


@pytest.mark.parametrize("size", [(80, 130), (20, 30), (41, 300)])
def test_masks_are_resized_as_torch_does(size, root):
    data = open_data(root, eval_transform(*size))
    for index in range(3):
        before, after = data.target(index), data[index].target
        new = tuple(data[index].image.shape[1:])
        wanted = torch.nn.functional.interpolate(before["masks"][:, None], size=new, mode="nearest")
        assert torch.equal(after["masks"], wanted[:, 0])
        assert after["size"] == before["size"]


def around(mask):
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@pytest.mark.parametrize("size", [(80, 130), (160, 300), (33, 60)])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_boxes_stay_around_their_masks(size, flip, root):
    """Within half a pixel of the image as it was, and one of the new one."""
    data = open_data(root, train_transform(*size, flip))
    for index in range(len(data)):
        image, target, _ = data[index]
        height, width = target["size"]
        scale = torch.tensor([image.shape[2] / width, image.shape[1] / height] * 2)
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            assert mask.shape == image.shape[1:]
            error = (box - torch.tensor(around(mask))).abs()
            assert (error <= 1 + 0.5 * scale + 1e-3).all()


def test_mirror_images_of_everything(root):
    straight, mirrored = (open_data(root, train_transform(48, 90, flip)) for flip in (0.0, 1.0))
    for index in range(3):
        (image, target, _), (other, changed, _) = straight[index], mirrored[index]
        width = image.shape[2]
        assert (image.flip(2).int() - other.int()).abs().max() <= 1  # rounding
        boxes = target["boxes"]
        wanted = torch.stack(
            (width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1
        )
        assert torch.allclose(changed["boxes"], wanted, atol=1e-4)
        assert torch.equal(changed["labels"], target["labels"])
    # where nothing is resized, exactly
    straight, mirrored = (open_data(root, train_transform(33, 60, flip)) for flip in (0.0, 1.0))
    (image, target, _), (other, changed, _) = straight[2], mirrored[2]
    assert image.shape == (3, 33, 47)
    assert torch.equal(image.flip(2), other)
    assert torch.equal(target["masks"].flip(2), changed["masks"])


def test_the_transform_leaves_what_it_got(root):
    data = open_data(root)
    image, target, _ = data[0]
    before = {key: value.clone() for key, value in target.items() if hasattr(value, "clone")}
    train_transform(80, 130, 1.0)(image, target)
    assert all(torch.equal(target[key], value) for key, value in before.items())


def same(one, other):
    assert torch.equal(one.image, other.image)
    assert one.target.keys() == other.target.keys()
    for key, value in one.target.items():
        assert torch.equal(value, other.target[key]) if key in ("boxes", "masks") else True


def test_chance_depends_on_seed_epoch_and_index_alone(root):
    data = open_data(root, train_transform(48, 90), seed=3)
    torch.manual_seed(1)
    first = {(epoch, index): data[(epoch, index)] for epoch in range(20) for index in range(3)}
    state = torch.get_rng_state()
    data[(0, 0)]
    assert torch.equal(torch.get_rng_state(), state)
    again = open_data(root, train_transform(48, 90), seed=3)
    torch.manual_seed(2)
    for key in reversed(first):
        same(again[key], first[key])
    left = [float(first[(epoch, 0)].target["boxes"][0, 0]) for epoch in range(20)]
    assert 4 <= sum(x == left[0] for x in left) <= 16  # straight and mirrored
    others = open_data(root, train_transform(48, 90), seed=4)
    assert any(float(others[(e, 0)].target["boxes"][0, 0]) != left[e] for e in range(20))


@pytest.mark.parametrize("sizes", [(0, 10), (20, 10)])
def test_sizes_that_make_no_sense(sizes):
    with pytest.raises(ValueError, match="expected 1 <= short <= long"):
        train_transform(*sizes)


# -- images that cannot be read ------------------------------------------------------------------


def test_the_next_image_takes_the_place_of_a_broken_one(root):
    broken = root / "train2017" / "000000000007.png"
    broken.write_bytes(b"")
    data = open_data(root)
    example = data[0]
    assert example.target["image_id"] == 3
    assert example.image.shape[1:] == SIZES[3]
    assert example.broken == (f"{broken}: the file is empty",)
    (root / "train2017" / "000000000021.png").unlink()
    assert data[2].target["image_id"] == 3  # around the end
    assert len(data[2].broken) == 2
    batch = collate([data[0], data[1], data[2]])
    assert (len(batch), len(batch.broken)) == (3, 3)


def test_an_evaluation_leaves_a_broken_image_out(root):
    broken = root / "train2017" / "000000000007.png"
    broken.write_bytes(broken.read_bytes()[:200])
    data = open_data(root, substitute=False)
    assert data[0].image is None
    assert data[0].target is None
    batch = collate([data[k] for k in range(3)])
    assert [target["image_id"] for target in batch.targets] == [3, 21]
    assert len(batch.broken) == 1
    assert batch.broken[0].startswith(str(broken))
    empty = collate([data[0]])
    assert (len(empty), empty.images, empty.targets, len(empty.broken)) == (0, [], [], 1)
    assert len(empty.to("cpu")) == 0


def test_an_image_of_another_size_than_the_file_says_is_broken(root):
    path = root / "train2017" / "000000000007.png"
    Image.fromarray(np.zeros((60, 40, 3), np.uint8)).save(path)
    assert open_data(root)[0].broken == (
        f"{path}: has 40×60 pixels, in instances_train2017.json 60×40",
    )


def test_no_image_can_be_read(root):
    for path in (root / "train2017").iterdir():
        path.unlink()
    with pytest.raises(
        BrokenData, match="3 images in a row cannot be read: is the disk still there"
    ):
        open_data(root)[0]


# -- batches -------------------------------------------------------------------------------------


def test_batches_are_the_same_for_any_number_of_workers(root):
    data = open_data(root, train_transform(48, 90), seed=1)
    keys = [[(e, i) for i in range(3)] for e in range(2)]
    loaders = [
        DataLoader(data, batch_sampler=keys, collate_fn=collate, num_workers=n) for n in (0, 2)
    ]
    for one, other in zip(*loaders, strict=True):
        assert len(one) == len(other) == 3
        assert all(torch.equal(a, b) for a, b in zip(one.images, other.images, strict=True))
        for a, b in zip(one.targets, other.targets, strict=True):
            assert a.keys() == b.keys() == {"boxes", "labels", "masks", "image_id", "size"}
            assert torch.equal(a["masks"], b["masks"])
            assert (a["image_id"], a["size"]) == (b["image_id"], b["size"])


def test_a_data_set_can_be_sent_to_processes(root):
    """Where they are not forked."""
    data = open_data(root, train_transform(48, 90), seed=1)
    sent = pickle.loads(pickle.dumps(data))
    for index in range(3):
        same(sent[(4, index)], data[(4, index)])
    assert sent.aspect_ratios.tolist() == data.aspect_ratios.tolist()


def test_a_batch_goes_to_a_device(root):
    batch = collate([open_data(root)[k] for k in range(2)])
    moved = batch.to("meta")
    assert all(image.device.type == "meta" for image in moved.images)
    assert all(target["masks"].device.type == "meta" for target in moved.targets)
    assert moved.targets[0]["size"] == (40, 60)
    assert batch.images[0].device.type == "cpu"


# -- folders -------------------------------------------------------------------------------------


def test_where_the_parts_are(root):
    assert coco_folder(root, "train") == (
        root / "train2017",
        root / "annotations" / "instances_train2017.json",
    )
    (root / "test2017").mkdir()
    (root / "annotations" / "image_info_test-dev2017.json").write_text("{}")
    assert coco_folder(root, "test-dev")[1].name == "image_info_test-dev2017.json"


def test_the_year_may_be_left_out(root):
    (root / "train2017").rename(root / "train")
    (root / "annotations" / "instances_train2017.json").rename(
        root / "annotations" / "instances_train.json"
    )
    assert len(open_data(root)) == 3


def test_what_is_missing_is_named(root):
    with pytest.raises(
        BrokenData, match=r"nowhere is not a folder: name the one that holds train2017"
    ):
        coco_folder(root / "nowhere", "train")
    with pytest.raises(
        BrokenData,
        match=r"hold val2017/ and annotations/instances_val2017.json: unpack val2017.zip \(1 GB",
    ):
        coco_folder(root, "val")
    (root / "val2017").mkdir()
    with pytest.raises(
        BrokenData,
        match=r"hold annotations/instances_val2017.json: unpack annotations_trainval2017.zip \(241",
    ):
        coco_folder(root, "val")
    with pytest.raises(ValueError, match="part='test': expected one of train, val, test-dev"):
        coco_folder(root, "test")
