import numpy as np
import pytest
import torch

from attnlab.data.clutter import ClutteredDigits, ink_boxes
from attnlab.data.image_corpora import Digits, ImageSplit, LabelledImages, load_images
from attnlab.errors import UserError

SMALL = {"train": 40, "validation": 20, "test": 30}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_splits_have_the_promised_shapes():
    classes, splits = ClutteredDigits(**SMALL).load()
    assert classes == [str(number) for number in range(10)]
    assert {name: len(split) for name, split in splits.items()} == SMALL
    train = splits["train"]
    assert train.images.shape == (40, 1, 60, 60)
    assert train.images.dtype == torch.uint8
    assert train.labels.dtype == torch.int64
    assert train.boxes.shape == (40, 4)
    assert train.boxes.dtype == torch.float32
    assert torch.bincount(train.labels).tolist() == [4] * 10


def test_the_box_is_tight_around_the_digit():
    split = ClutteredDigits(**SMALL, pieces=0).load().splits["train"]
    for image, box in zip(split.images[:, 0], split.boxes, strict=True):
        left, top, right, bottom = box.int().tolist()
        inside = torch.zeros_like(image, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert (image[~inside] < 32).all()
        ink = (image >= 32)[top:bottom, left:right]
        assert ink[0].any()
        assert ink[-1].any()
        assert ink[:, 0].any()
        assert ink[:, -1].any()


def test_digits_appear_everywhere_and_at_many_sizes():
    boxes = ClutteredDigits(train=400, validation=10, test=10).load().splits["train"].boxes
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert (centers.amin(0) < 15).all()
    assert (centers.amax(0) > 45).all()
    assert (boxes >= 0).all()
    assert (boxes <= 60).all()
    heights = boxes[:, 3] - boxes[:, 1]
    assert heights.amin() >= 12
    assert heights.amax() <= 28
    assert len(heights.unique()) > 8


def test_pieces_add_ink_and_never_remove_any():
    """The digits are drawn before the pieces, so without pieces they are the same."""
    bare = ClutteredDigits(**SMALL, pieces=0).load().splits["test"]
    full = ClutteredDigits(**SMALL, pieces=1).load().splits["test"]
    assert torch.equal(bare.labels, full.labels)
    assert torch.equal(bare.boxes, full.boxes)
    assert (full.images >= bare.images).all()
    changed = (full.images != bare.images).flatten(1).sum(1)
    assert (changed > 0).float().mean() > 0.8
    assert changed.max() <= 64


def test_the_same_seed_draws_the_same_and_splits_do_not_depend_on_each_other():
    first = ClutteredDigits(**SMALL).load().splits
    again = ClutteredDigits(**SMALL | {"train": 10}).load().splits
    other = ClutteredDigits(**SMALL, generation_seed=1).load().splits
    assert torch.equal(first["test"].images, again["test"].images)
    assert not torch.equal(first["test"].images, other["test"].images)
    assert not torch.equal(first["validation"].images, first["test"].images[:20])


def test_no_scan_is_both_trained_on_and_tested_on(monkeypatch):
    """At the scans' own size, each canvas without pieces shows one scan of its split."""
    scans = Digits().load().splits
    splits = ClutteredDigits(**SMALL, size=8, scale=(8, 8), pieces=0).load().splits
    for name, split in splits.items():
        known = {scan.numpy().tobytes() for scan in scans[name].images}
        assert all(image.numpy().tobytes() in known for image in split.images)
    dark = {name: split for name, split in scans.items() if name != "train"}
    train = scans["train"]
    bar = (255 * (torch.arange(8) < 1)).to(torch.uint8).expand(len(train), 1, 8, 8)
    changed = LabelledImages([str(number) for number in range(10)], {"train": ImageSplit(bar, train.labels), **dark})
    before = ClutteredDigits(**SMALL).load().splits
    monkeypatch.setattr(Digits, "load", lambda *_: changed)
    after = ClutteredDigits(**SMALL).load().splits
    assert not torch.equal(before["train"].images, after["train"].images)
    assert torch.equal(before["test"].images, after["test"].images)  # its pieces, too, are of its own scans


def test_what_was_generated_is_kept(monkeypatch):
    first = load_images(ClutteredDigits(**SMALL))
    monkeypatch.setattr(ClutteredDigits, "_draw", lambda *_: pytest.fail("generated again"))
    second = load_images(ClutteredDigits(**SMALL))
    assert first.classes == second.classes
    for name, split in first.splits.items():
        for part in ("images", "labels", "boxes"):
            assert torch.equal(getattr(split, part), getattr(second.splits[name], part))
    with pytest.raises(pytest.fail.Exception, match="generated again"):
        load_images(ClutteredDigits(**SMALL, pieces=3))


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load_images(ClutteredDigits(**SMALL)).splits["test"]) == SMALL["test"]


def test_ink_boxes():
    glyphs = np.zeros((2, 5, 6), dtype=np.uint8)
    glyphs[0, 1:4, 2:6] = 200
    glyphs[0, 0, 0] = 31  # too faint
    glyphs[1, 4, 0] = 32
    assert ink_boxes(glyphs).tolist() == [[2, 1, 6, 4], [0, 4, 1, 5]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, "data.train=0"),
        ({"scale": (16, 61)}, r"data.scale=\[16, 61\].*data.size=60"),
        ({"scale": (20, 16)}, "ascending"),
        ({"scale": (16,)}, "two sizes"),
        ({"pieces": -1}, "data.pieces=-1"),
        ({"piece_size": 17}, "data.piece_size=17 between 1 and the smallest digit's 16"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        ClutteredDigits(**options)
