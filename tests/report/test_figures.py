import io
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from attnlab.report import figures
from attnlab.report.example import WEIGHTS, worked_example
from attnlab.report.maps import Example, Panel, examples, sentence
from attnlab.report.metrics import BLEU, SECONDS
from attnlab.report.points import load


@pytest.fixture(scope="module")
def data(fabricate, tmp_path_factory):
    (data,) = load(fabricate.sweep(tmp_path_factory.mktemp("a"), {"bahdanau": 0.1, "luong": 0.3}, (1, 2, 3), 6)).sets
    return data


def look(data):
    return figures.looks([variant.name for variant in data.variants])


def test_the_worked_example_sums_to_one():
    assert sum(WEIGHTS) == pytest.approx(1)
    (panel,) = worked_example().panels
    assert len(panel.source) == len(WEIGHTS) == 7
    assert panel.weights[0][panel.source.index("sat")] == 0.5


def test_curves_are_the_mean_over_seeds_with_a_band(data):
    """val/bleu of epoch e and seed s is 80 - 60 / e - s: over seeds 1 to 3 its mean is 78 - 60 / e, its deviation 1."""
    (axes,) = figures.curves(data, "val/bleu", "BLEU", look(data)).axes
    assert axes.lines[0].get_label() == "bahdanau"
    assert list(axes.lines[0].get_xdata()) == [1, 2, 3, 4, 5]
    assert list(axes.lines[0].get_ydata()) == pytest.approx([78 - 60 / epoch for epoch in range(1, 6)])
    band = axes.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((18 - 1, 66 + 1))
    assert figures.curves(data, "val/nothing", "", look(data)) is None


def test_variants_show_every_seed_the_mean_and_the_interval(data):
    (axes,) = figures.by_variant(data, BLEU, look(data)).axes
    interval, dots, centre = axes.lines[:3]
    values = list(data.variants[0].values("test/bleu").values())
    assert sorted(dots.get_xdata()) == pytest.approx(sorted(values))
    assert centre.get_xdata()[0] == pytest.approx(sum(values) / 3)
    assert interval.get_xdata()[0] < min(values)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bahdanau", "luong"]


def test_quality_against_cost_has_a_point_a_variant(data):
    (axes,) = figures.trade(data, BLEU, SECONDS, look(data)).axes
    assert len(axes.containers) == 2


def test_every_form_of_a_figure_is_sound(data):
    drawn = figures.draw("a", 'say "a & b < c"', figures.by_variant(data, BLEU, look(data)))
    with Image.open(io.BytesIO(drawn.png)) as picture:
        assert picture.width > 400
    ElementTree.fromstring(drawn.svg)
    inline = ElementTree.fromstring(drawn.inline)
    assert inline.get("aria-label") == 'say "a & b < c"'
    assert "http" not in drawn.inline
    assert any("bahdanau" in (part.text or "") for part in inline.iter())


def test_eighteen_variants_look_different():
    made = figures.looks([str(number) for number in range(18)])
    assert len({tuple(style.values()) for style in made.values()}) == 18


def test_maps_survive_strange_tokens():
    tokens = ("$a_b$", "\x00", "x" * 60, "<eos>", "猫", "")
    panels = tuple(Panel(f"v{n}", [[1 / 6] * 6] * 6, tokens, tokens) for n in range(5))
    drawn = figures.draw("a", "a", figures.maps(Example("a", panels)))
    ElementTree.fromstring(drawn.svg)


def test_examples_are_those_of_the_lowest_seed(data):
    found, problems = examples(data)
    assert not problems
    assert len(found) == 4
    run = data.variants[1].runs[1]
    assert found[2].panels[1].weights == run.attention[2]["weights"]


def test_examples_are_matched_by_their_row_in_the_test_set(fabricate, tmp_path):
    texts = fabricate.references(3)
    for name, rows in (("bahdanau", (0, 5, 9)), ("luong", (0, 9, 12))):
        maps = [row | {"row": number} for row, number in zip(fabricate.attention_rows(texts, 0), rows, strict=True)]
        fabricate.run(tmp_path / name, attention=name, metrics={"test/bleu": 1.0}, predictions=[], maps=maps)
    (data,) = load(tmp_path).sets
    found, _ = examples(data)
    assert [[panel.variant for panel in example.panels] for example in found] == [
        ["bahdanau", "luong"], ["bahdanau"], ["bahdanau", "luong"], ["luong"],
    ]  # fmt: skip


def test_a_title_is_a_sentence():
    assert sentence(["A", "##ha", ",", "yes", "<eos>"]) == "Aha , yes"
    assert sentence(["l", "a", "u", "f", "·", "t", "V", "<eos>"]) == "lauf tV"
    assert sentence(["l", "a", "u", "f", "PST", "<eos>"]) == "lauf PST"
