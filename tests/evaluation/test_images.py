import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from attnlab.errors import UserError
from attnlab.evaluation import images
from attnlab.evaluation.images import (
    draw_confusion,
    draw_glimpses,
    draw_maps,
    draw_montage,
    rollout,
    to_grid,
)


def _attention(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def _maps(heads, rows, cols, seed=0):
    return to_grid(_attention(heads, rows * cols, seed=seed), rows, cols)


def _image(channels, side, seed=0):
    return torch.rand(channels, side, side, generator=torch.Generator().manual_seed(seed))


def _is(picture, colour, tolerance=12):
    target = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(picture.astype(int) - target).max(-1) <= tolerance


def _check(path, picture):
    """The file is a PNG, is the picture that was returned, and has an empty margin, so that nothing is cut off."""
    with Image.open(path) as read:
        assert read.format == "PNG"
        assert np.array_equal(np.asarray(read.convert("RGB")), picture)
    assert (picture[[0, -1]] == 255).all()
    assert (picture[:, [0, -1]] == 255).all()
    assert min(picture.shape[:2]) > 100
    assert max(picture.shape[:2]) < 2400


# --- rollout ---


def test_rollout_of_identity_layers_is_the_identity():
    eye = torch.eye(5).expand(2, 3, 5, 5)
    torch.testing.assert_close(rollout([eye, eye, eye]), torch.eye(5).expand(2, 5, 5))


def test_rollout_of_uniform_layers_by_hand():
    # A = ½ I + ½ U with U the uniform matrix, U U = U: A A = ¼ I + ¾ U.
    uniform = torch.full((1, 2, 4, 4), 0.25)
    torch.testing.assert_close(rollout([uniform]), (0.5 * torch.eye(4) + 0.125)[None])
    torch.testing.assert_close(rollout([uniform] * 2), (0.25 * torch.eye(4) + 0.75 * 0.25)[None])


def test_rollout_goes_from_the_last_layer_back_to_the_input():
    # Layer 1: position 0 reads 1. Layer 2: position 2 reads 0. So 2 receives 1 through 0, and 0 receives nothing of 2.
    first, second = torch.eye(3), torch.eye(3)
    first[0], second[2] = torch.tensor([0.0, 1, 0]), torch.tensor([1.0, 0, 0])
    flow = rollout([first[None, None], second[None, None]])[0]
    torch.testing.assert_close(flow[2], torch.tensor([0.25, 0.25, 0.5]))
    torch.testing.assert_close(flow[0], torch.tensor([0.5, 0.5, 0]))


def test_rollout_averages_heads_whatever_their_number():
    one, other = _attention(2, 1, 4, 4), _attention(2, 1, 4, 4, seed=1)
    averaged = (one + other) / 2
    torch.testing.assert_close(rollout([torch.cat((one, other), 1), one]), rollout([averaged, one]))


def test_rows_of_a_rollout_sum_to_one():
    layers = [_attention(3, 4, 9, 9, seed=seed) for seed in range(6)]
    layers[2] = layers[2] * torch.bernoulli(torch.full((3, 4, 9, 9), 0.7))  # attention dropout
    flow = rollout(layers)
    torch.testing.assert_close(flow.sum(-1), torch.ones(3, 9))
    assert (flow >= 0).all()
    assert rollout([layers[0].bfloat16()]).dtype == torch.float32


def test_a_rollout_of_the_first_queries_alone_is_the_first_rows_of_the_whole():
    layers = [torch.rand(2, 3, 5, 5) for _ in range(3)]
    torch.testing.assert_close(rollout([*layers[:-1], layers[-1][:, :, :2]]), rollout(layers)[:, :2])
    torch.testing.assert_close(rollout([layers[0][:, :, :1]]), rollout([layers[0]])[:, :1])


def test_rollout_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="at least one layer"):
        rollout([])
    with pytest.raises(ValueError, match=r"\(1, 1, 3, 3\), \(1, 1, 4, 4\)"):
        rollout([torch.ones(1, 1, 3, 3), torch.ones(1, 1, 4, 4)])
    with pytest.raises(ValueError, match="self-attention"):
        rollout([torch.ones(1, 2, 4, 3)])
    with pytest.raises(ValueError, match="self-attention"):
        rollout([torch.ones(1, 2, 1, 3), torch.ones(1, 2, 3, 3)])
    with pytest.raises(ValueError, match="self-attention"):
        rollout([torch.ones(3, 3)])


# --- grid ---


def test_to_grid_drops_the_class_token_and_renormalises():
    weights = torch.tensor([0.5, 0.1, 0.0, 0.2, 0.2, 0.0, 0.0])
    expected = torch.tensor([[0.2, 0, 0.4], [0.4, 0, 0]])
    torch.testing.assert_close(to_grid(weights, 2, 3, leading=1), expected)
    torch.testing.assert_close(to_grid(weights[1:] * 2, 2, 3), expected)


def test_to_grid_keeps_leading_dimensions_and_sums_to_one():
    maps = to_grid(_attention(2, 3, 5, 26), 5, 5, leading=1)
    assert maps.shape == (2, 3, 5, 5, 5)
    torch.testing.assert_close(maps.sum((-2, -1)), torch.ones(2, 3, 5))


def test_to_grid_of_attention_to_nothing_but_the_class_token():
    assert to_grid(torch.tensor([1.0, 0, 0]), 1, 2, leading=1).tolist() == [[0, 0]]


def test_to_grid_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="attention to 10 positions, but 0 leading ones and 3 by 3"):
        to_grid(torch.ones(2, 10), 3, 3)


# --- maps ---


@pytest.mark.parametrize(
    ("heads", "layers", "channels", "side", "grid"),
    [(1, 1, 1, 8, 4), (8, 6, 3, 32, 8), (4, 2, 1, 60, 15)],
)
def test_maps_of_all_sizes(tmp_path, heads, layers, channels, side, grid):
    maps = {f"layer {number}": _maps(heads, grid, grid, seed=number) for number in range(layers)}
    path = tmp_path / "deep" / "maps.png"
    picture = draw_maps(path, _image(channels, side), maps, _maps(1, grid, grid)[0], "label 7, predicted 7")
    _check(path, picture)


def test_the_rollout_and_the_title_may_be_missing(tmp_path):
    image, maps = _image(1, 8), {"layer 1": _maps(1, 2, 2)}
    whole = draw_maps(None, image, maps, _maps(1, 2, 2)[0], "a title")
    bare = draw_maps(tmp_path / "a.png", image, maps)
    _check(tmp_path / "a.png", bare)
    assert bare.shape[0] < whole.shape[0]
    assert bare.shape[1] < whole.shape[1]


def test_maps_colour_the_patch_that_is_attended_to():
    maps = torch.zeros(1, 2, 2)
    maps[0, 0, 1] = 1.0
    picture = draw_maps(None, torch.zeros(1, 8, 8), {"a": maps})
    grey = _is(picture, "#808080", 2)  # black under no attention
    rows, columns = (np.flatnonzero(grey.sum(axis) > 60) for axis in (1, 0))
    panel = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(int)
    red = np.argwhere(panel[..., 0] - panel[..., 2] > 120)
    middle = np.array(panel.shape[:2]) / 2
    assert (red.max(0) - red.min(0) + 1).tolist() == pytest.approx(middle.tolist(), abs=2), "one patch of four"
    assert red[:, 0].max() < middle[0] + 2, "in the upper half"
    assert red[:, 1].min() > middle[1] - 2, "in the right half"


def test_more_heads_and_layers_than_fit_are_named(monkeypatch):
    assert images._not_drawn([f"block {number}" for number in range(1, 9)], 12) == [
        "Not drawn: layers 7 to 8 (block 7 …), heads 9 to 12."
    ]
    assert images._not_drawn(["block"] * 6, 8) == []
    assert images._headings(8, 12)[-1] == "mean of 12"
    monkeypatch.setattr(images, "_MOST_HEADS", 2)
    monkeypatch.setattr(images, "_MOST_LAYERS", 2)
    maps = {f"layer {number}": _maps(3, 3, 3) for number in range(4)}
    fewer = dict(list(maps.items())[:2])
    many, few = (draw_maps(None, _image(3, 32), layers) for layers in (maps, fewer))
    assert many.shape == few.shape, "no row and no column more"


def test_layers_may_differ_in_heads_and_grid(tmp_path):
    maps = {"coarse": _maps(1, 2, 4), "fine and with a name that takes two lines": _maps(3, 8, 8)}
    path = tmp_path / "a.png"
    _check(path, draw_maps(path, torch.rand(3, 16, 32), maps))


@pytest.mark.parametrize(
    ("weights", "end"),
    [
        ([[0.25, 0.25], [0.25, 0.25]], 0.5),  # uniform attention is half of the scale
        ([[0.4, 0.3], [0.2, 0.1]], 0.5),
        ([[0.9, 0.1], [0.0, 0.0]], 1.0),
        ([[1 + 1e-6, 0.0], [0.0, 0.0]], 1.0),
        ([[0.0, 0.0], [0.0, 0.0]], 0.5),
        ([[0.01] * 10] * 10, 0.02),
        ([[0.145] + [0.0] * 9] * 10, 0.15),
    ],
)
def test_scales_end_at_round_numbers(weights, end):
    assert images._scale_end(np.array(weights)) == pytest.approx(end)


def test_the_same_attention_gives_the_same_bytes(tmp_path):
    for name in "ab":
        draw_maps(tmp_path / name, _image(1, 8), {"x": _maps(2, 2, 2)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- glimpses ---


def test_only_the_chosen_patches_keep_their_brightness(tmp_path):
    image = torch.zeros(3, 60, 60)
    image[1] = 1.0
    path = tmp_path / "glimpses.png"
    picture = draw_glimpses(path, image, torch.tensor([7, 28]), patch=10, cols=6, box=(20, 15, 48, 43), title="a 7")
    _check(path, picture)
    full = np.argwhere(_is(picture, "#00ff00"))
    dim = np.argwhere(_is(picture, "#53ac53", 6))
    (top, left), side = dim.min(0), np.ptp(dim[:, 1]) + 1
    # Patch 7 is the second of the second row, 28 the fifth of the fifth.
    for row, column in ((1, 1), (4, 4)):
        centre = np.array((top, left)) + (np.array((row, column)) + 0.7) * side / 6
        assert np.abs(full - centre).max(-1).min() <= 1
    assert 0.04 < len(full) / side**2 < 2 / 36
    assert _is(picture, images._BOX).any()
    assert not _is(draw_glimpses(None, image, [7, 28], 10, 6), images._BOX).any()


def test_a_patch_chosen_again_has_all_its_numbers():
    once = draw_glimpses(None, _image(1, 12), [0, 5], patch=4, cols=3)
    twice = draw_glimpses(None, _image(1, 12), [0, 5, 0], patch=4, cols=3)
    assert once.shape == twice.shape
    assert (once != twice).any()


# --- confusion ---


@pytest.mark.parametrize("n", [2, 10, 20, 21, 100])
def test_confusion_of_all_sizes(tmp_path, n):
    counts = torch.randint(0, 4, (n, n), generator=torch.Generator().manual_seed(n)) + 95 * torch.eye(n).long()
    path = tmp_path / "confusion.png"
    picture = draw_confusion(path, counts, [f"class number {i}" for i in range(n)], "CIFAR")
    _check(path, picture)


def test_confusion_is_shaded_by_row():
    # Of the first class three in four are predicted as the second; of the second, all are right.
    picture = draw_confusion(None, torch.tensor([[1, 3], [0, 1000]]), ["a", "b"])
    shades = images._white_to_indigo()(np.array([0.25, 0.75, 1.0]) ** 0.5)[:, :3]
    hexes = ["#" + "".join(f"{round(255 * part):02x}" for part in shade) for shade in shades]
    quarter, most, whole = (np.argwhere(_is(picture, colour, 1)) for colour in hexes)
    assert np.median(quarter[:, 0]) == pytest.approx(np.median(most[:, 0]), abs=4), "one row"
    assert np.median(quarter[:, 1]) < np.median(most[:, 1]), "predicted as the second: to the right"
    cell = 0.6 * 120
    assert (len(most) > 0.7 * cell**2) & (len(whole) > 0.5 * cell**2)


def test_a_class_without_examples_is_marked():
    picture = draw_confusion(None, torch.tensor([[5, 0], [0, 0]]), ["a", "b"])
    assert _is(picture, "#c9b8b8", 2).sum() > 2 * 0.9 * (0.6 * 120) ** 2


# --- montage ---


@pytest.mark.parametrize(("count", "channels", "side"), [(1, 1, 8), (4, 1, 60), (12, 3, 32)])
def test_montage_of_all_sizes(tmp_path, count, channels, side):
    pictures = torch.stack([_image(channels, side, seed) for seed in range(count)])
    labels = [str(number % 10) for number in range(count)]
    predictions = [str(number % 7) for number in range(count)]
    shares = torch.linspace(0.2, 1, count)
    path = tmp_path / "montage.png"
    picture = draw_montage(path, pictures, labels, predictions, shares, _maps(count, 4, 4), "test images")
    _check(path, picture)


def test_a_montage_ends_at_a_page(monkeypatch):
    monkeypatch.setattr(images, "_MOST_IMAGES", 3)
    pictures, names = torch.rand(9, 1, 8, 8), ["a"] * 9
    many = draw_montage(None, pictures, names, names, [0.5] * 9)
    assert many.shape == draw_montage(None, pictures[:3], names[:3], names[:3], [0.5] * 3).shape


def test_right_and_wrong_answers_differ_in_colour():
    arguments = torch.zeros(1, 1, 8, 8), ["cat"]
    right = draw_montage(None, *arguments, ["cat"], [0.9])
    wrong = draw_montage(None, *arguments, ["dog"], [0.9])
    assert _is(right, images._RIGHT).any()
    assert not _is(right, images._WRONG).any()
    assert _is(wrong, images._WRONG).any()
    assert not _is(wrong, images._RIGHT).any()


# --- what they share ---


def test_the_font_has_every_glyph_and_dollars_are_dollars():
    names = ["$x^{2", "a class with a name beyond all measure"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph is a warning
        draw_maps(None, _image(1, 8), {name: _maps(2, 2, 2) for name in names}, title="$\\frac{$ costs 5$")
        draw_confusion(None, torch.eye(2), names)
        draw_montage(None, torch.zeros(2, 1, 8, 8), names, names[::-1], [0.5, 0.123], _maps(2, 2, 2))


def test_mistakes_are_sentences(tmp_path):
    image, maps = _image(1, 8), {"a": _maps(2, 2, 2)}
    with pytest.raises(ValueError, match=r"one or three channels; the shape is \(2, 8, 8\)"):
        draw_maps(None, torch.zeros(2, 8, 8), maps)
    with pytest.raises(ValueError, match="standardised"):
        draw_maps(None, 3 * image, maps)
    with pytest.raises(ValueError, match=r"shape of the maps of a is \(2, 2\)"):
        draw_maps(None, image, {"a": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="shape of the rollout"):
        draw_maps(None, image, maps, torch.ones(4))
    with pytest.raises(ValueError, match="negative"):
        draw_maps(None, image, {"a": -torch.ones(1, 2, 2)})
    with pytest.raises(ValueError, match="no layer"):
        draw_maps(None, image, {})
    with pytest.raises(ValueError, match=r"Patches 0 to 9 of 4 by 4 pixels, 2 in a row"):
        draw_glimpses(None, image, [0, 9], patch=4, cols=2)
    with pytest.raises(ValueError, match="at least one"):
        draw_glimpses(None, image, [], patch=4, cols=2)
    with pytest.raises(ValueError, match="four sides"):
        draw_glimpses(None, image, [0], patch=4, cols=2, box=(1, 2))
    with pytest.raises(ValueError, match=r"\(2, 2\) came with 3 names"):
        draw_confusion(None, torch.eye(2), ["a", "b", "c"])
    with pytest.raises(ValueError, match="found -1"):
        draw_confusion(None, -torch.eye(2), ["a", "b"])
    with pytest.raises(ValueError, match="1 images, 2 labels"):
        draw_montage(None, image[None], ["a", "b"], ["a"], [0.5])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a\.png"):
        draw_confusion(tmp_path / "file" / "a.png", torch.eye(2), ["a", "b"])


def test_a_refused_picture_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.png"
    draw_confusion(path, torch.eye(2), ["a", "b"])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="names"):
        draw_confusion(path, torch.eye(2), ["a"])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_matplotlib_waits_and_pyplot_stays_out():
    code = (
        "import sys, torch, attnlab.evaluation.images as i\n"
        "assert 'matplotlib' not in sys.modules\n"
        "i.draw_confusion(None, torch.eye(2), ['a', 'b'])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
