import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from attnlab.errors import UserError
from attnlab.evaluation import plots
from attnlab.evaluation.plots import attention_heatmap

# The sides of a cell in whole pixels, as the module computes them for small maps.
CELL = round(0.55 * 120)


def _tokens(n):
    return [f"w{i}" for i in range(n)]


def _is(image, colour, tolerance=12):
    target = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(image.astype(int) - target).max(-1) <= tolerance


def _centre(mask):
    rows, columns = np.nonzero(mask)
    return rows.mean(), columns.mean()


def test_the_file_is_the_picture(tmp_path):
    path = tmp_path / "maps" / "a.png"
    image = attention_heatmap(np.eye(7)[:, :6], _tokens(6), _tokens(7), path, title="bahdanau")
    with Image.open(path) as read:
        read.verify()
    with Image.open(path) as read:
        assert read.format == "PNG"
        assert np.array_equal(np.asarray(read.convert("RGB")), image)
    assert image.dtype == np.uint8
    height, width, channels = image.shape
    assert channels == 3
    assert 7 * CELL < height < 7 * CELL + 200
    assert 6 * CELL < width < 6 * CELL + 250
    assert (image[[0, -1]] == 255).all(), "a margin around everything"
    assert (image[:, [0, -1]] == 255).all()


def test_the_same_weights_give_the_same_bytes(tmp_path):
    for name in "ab":
        attention_heatmap([[0.5, 0.5]], _tokens(2), _tokens(1), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_heavier_is_darker_and_where_it_belongs():
    """Cells found by their gold outline: source across, target down, and the heaviest is the darkest."""
    weights = np.array([[0.0, 0.1, 0.9], [0.3, 0.6, 0.1]])
    shade = {}
    place = {}
    for j in range(2):
        for i in range(3):
            image = attention_heatmap(weights, _tokens(3), _tokens(2), gold=[(i, j)])
            outline = _is(image, plots._GOLD)
            # Without the key below the colour bar, which has an outline of its own, right of the map.
            rows, columns = np.nonzero(outline)
            near = columns < columns.min() + CELL + 6
            row, column = rows[near].mean(), columns[near].mean()
            place[i, j] = row, column
            shade[i, j] = image[int(row) + 9, int(column) + 9].mean()
    order = sorted(shade, key=shade.get)
    assert order[0] == (2, 0)
    assert order[1] == (1, 1)
    assert order[2] == (0, 1)
    assert shade[0, 0] == 255
    assert shade[1, 0] == shade[2, 1] < 255
    assert place[2, 0][1] - place[0, 0][1] == pytest.approx(2 * CELL, abs=1)
    assert place[0, 1][0] - place[0, 0][0] == pytest.approx(CELL, abs=1)


def test_colours_are_uniform_in_lightness():
    colours = plots._white_to_indigo()(np.linspace(0, 1, 256))[:, :3]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    lightness = 116 * np.cbrt(luminance) - 16
    steps = -np.diff(lightness)
    assert colours[0] == pytest.approx(1)
    assert lightness[-1] < 30
    assert steps.min() > 0.7 * steps.mean()
    assert steps.max() < 1.3 * steps.mean()


def test_choices_are_dotted():
    weights = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    plain = _is(attention_heatmap(weights, _tokens(2), _tokens(2)), plots._CHOICE)
    assert not plain.any()
    # The key's own dot stands right of the map, so left of the middle there is only the chosen one.
    one = attention_heatmap(weights, _tokens(2), _tokens(2), choices=[0, -1])
    two = attention_heatmap(weights, _tokens(2), _tokens(2), choices=torch.tensor([[0, 0], [0, 1]]))
    counts = [_is(image, plots._CHOICE).sum() for image in (one, two)]
    key = _is(one, plots._CHOICE)[:, -150:].sum()
    assert counts[0] - key > 50
    assert (counts[1] - key) == pytest.approx(3 * (counts[0] - key), rel=0.1)


def test_weights_of_any_kind():
    table = torch.tensor([[0.25, 0.75]], dtype=torch.bfloat16, requires_grad=True)
    from_tensor = attention_heatmap(table, _tokens(2), _tokens(1))
    assert np.array_equal(from_tensor, attention_heatmap([[0.25, 0.75]], _tokens(2), _tokens(1)))
    missing = attention_heatmap([[np.nan, 0.5]], _tokens(2), _tokens(1))
    assert _is(missing, plots._MISSING, 2).sum() > 0.8 * CELL**2


@pytest.mark.parametrize(
    ("heaviest", "end"),
    [(0.0, 1.0), (0.03, 0.05), (0.11, 0.2), (0.5, 0.5), (0.51, 1.0), (1 + 1e-6, 1.0), (3, 3)],
)
def test_scales_are_few(heaviest, end):
    assert plots._scale_end(np.array([[0.0, heaviest]])) == end


@pytest.mark.parametrize(
    ("token", "label"),
    [
        ("", "⟨empty⟩"),
        ("\n", "\\n"),
        ("a\tb\x07", "a\\tb\\x07"),
        ("\u200b", "\\u200b"),
        ("\ud800", "\\ud800"),
        ("\xa0x", "\\xa0x"),
        (" der", "␣der"),
        ("\u0303", "◌\u0303"),
        ("ɛ\u0303", "ɛ\u0303"),
        ("Straße", "Straße"),
        ("x" * 30, "x" * 23 + "…"),
    ],
)
def test_every_character_of_a_label_can_be_seen(token, label):
    assert plots._visible(token) == label


def test_the_font_has_every_glyph_and_dollars_are_dollars():
    tokens = [
        "$x^{2",
        "$\\frac{$",
        "_a_",
        "ʁɛ̃ʃʒŋœ̃ɥɲ",
        "äöüßẞ",
        "¿señorñ",
        "\x00\n",
        "",
        "\u0303",
        "␣ ▁Ġ",
        "⟨…⟩",
        "çœæ",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph is a warning
        attention_heatmap(np.eye(12), tokens, tokens, title="$\\frac{$ costs 5$")


def test_labels_take_the_room_they_need():
    short = attention_heatmap(np.eye(3), ["a"] * 3, ["b"] * 3)
    tall = attention_heatmap(np.eye(3), ["a" * 20] * 3, ["b"] * 3)
    wide = attention_heatmap(np.eye(3), ["a"] * 3, ["b" * 20] * 3)
    assert tall.shape[0] > short.shape[0] + 80
    assert wide.shape[1] > short.shape[1] + 80
    assert wide.shape[0] == short.shape[0]


def test_pictures_grow_with_the_sequence_to_a_cap():
    middle = attention_heatmap(np.eye(30), _tokens(30), _tokens(30))
    long = attention_heatmap(np.eye(70)[:, :60], _tokens(60), _tokens(70))
    assert middle.shape[0] < long.shape[0]
    assert long.shape[0] >= 70 * 0.2 * 120
    longest = attention_heatmap(np.eye(800)[:4], _tokens(800), _tokens(4))
    assert 3000 < longest.shape[1] < 4000
    assert attention_heatmap([[1.0]], ["a"], ["b"]).shape[0] < 300


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(2, 3\), but there are 3 target and 2 source"):
        attention_heatmap(np.ones((2, 3)), _tokens(2), _tokens(3))
    with pytest.raises(ValueError, match="no attention to draw"):
        attention_heatmap(np.ones((0, 3)), _tokens(3), [])
    with pytest.raises(ValueError, match="gold link"):
        attention_heatmap(np.ones((1, 3)), _tokens(3), _tokens(1), gold=[(0, 1)])
    with pytest.raises(ValueError, match="choice lies outside"):
        attention_heatmap(np.ones((1, 3)), _tokens(3), _tokens(1), choices=[3])
    with pytest.raises(ValueError, match="choices for each"):
        attention_heatmap(np.ones((1, 3)), _tokens(3), _tokens(1), choices=[0, 1])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a\.png"):
        attention_heatmap([[1.0]], ["a"], ["b"], tmp_path / "file" / "a.png")


def test_matplotlib_waits_and_pyplot_stays_out():
    code = (
        "import sys, attnlab.evaluation.plots as p\n"
        "assert 'matplotlib' not in sys.modules\n"
        "p.attention_heatmap([[1.0]], ['a'], ['b'])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_png_bytes_carry_no_version(tmp_path):
    attention_heatmap([[1.0]], ["a"], ["b"], tmp_path / "a.png")
    assert "Software" not in Image.open(io.BytesIO((tmp_path / "a.png").read_bytes())).info
