"""The pages of a whole report, on fabricated runs."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from attnlab.report.assemble import write_report

_VOID = {"meta", "wbr", "link", "img", "br", "hr", "input", "source"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what is needed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.scripts, self.ids, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def text(small_report):
    return (small_report / "report.html").read_text()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_everything_is_written_beside_the_sweep(small_report):
    assert small_report.name == "soft & <hard>-report"
    assert {path.name for path in small_report.iterdir()} == {
        "report.html", "report.md", "tables.tex", "summary.csv", "tests.csv", "figures",
    }  # fmt: skip
    figures = {path.name for path in (small_report / "figures").iterdir()}
    for name in (
        "quality", "curves-quality", "curves-loss", "cost-time", "entropy", "alignment-error", "length-exact",
        "length-chrf", "attention-1", "attention-2", "attention-3",
    ):  # fmt: skip
        assert {f"{name}.png", f"{name}.svg"} <= figures
    assert "cost-parameters.png" not in figures, "all variants have as many"


def test_the_page_is_one_well_formed_file_that_asks_for_nothing(page, text):
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
        assert "url(" not in (attributes.get("style") or "").replace("url(#", "")
    assert not page.all("link")
    assert not page.all("iframe")
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert "@import" not in styles
    assert "url(" not in styles
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(", page.scripts[1])
    assert any("default-src 'none'" in meta.get("content", "") for meta in page.all("meta"))
    assert len(page.ids) == len(set(page.ids))


def test_a_hostile_sentence_stays_text(page, text, hostile):
    assert len(page.scripts) == 2
    assert not page.all("img")
    assert "<script>alert" not in text
    data = json.loads(page.scripts[0])
    assert "".join(hostile.split()) in "".join(data[0][0]["title"].split())
    assert hostile in "".join(page.text)


def test_the_page_can_be_read_aloud_and_by_keyboard(page):
    tables = page.all("table")
    assert len(page.all("caption")) == len(tables) > 0
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    boxes = [attributes for attributes in page.all("div") if str(attributes.get("class")).split()[0] == "box"]
    assert len(boxes) == len(tables)
    assert all(box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"] for box in boxes)
    assert [p for p in page.all("p") if p.get("aria-live") == "polite"]
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert {"lang": "en"} in page.all("html")
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))


def test_the_page_says_what_was_compared_and_what_is_not_there(page):
    words = " ".join(" ".join(page.text).split())
    assert "3 variants on phrasebook (60 test sentences): bahdanau, hard and luong; 3 seeds: 1, 2 and 3." in words
    assert "7 of 9 points are in the report; the others are listed below." in words
    assert "Tests: paired bootstrap resampling, approximate randomisation," in words
    assert "Failed: The loss is not finite." in words
    assert "attention=hard, seed=3" in words
    assert "Left out of the tests and samples: line 1 of predictions.jsonl is not JSON" in words


def test_the_explorer_has_every_variant_on_the_same_sentence(page):
    (examples,) = json.loads(page.scripts[0])
    assert len(examples) == 4
    for example in examples:
        assert [panel["variant"] for panel in example["panels"]] == ["bahdanau", "hard", "luong"]
        for panel in example["panels"]:
            assert len(panel["weights"]) == len(panel["target"])
            assert all(abs(sum(row) - 1) < 0.01 for row in panel["weights"])


def test_lines_and_letters_of_figures_take_the_pages_colours(page):
    styles = " ".join(str(attributes.get("style")) for _, attributes in page.tags)
    assert "var(--ink)" in styles
    assert "#1c1c21" not in styles


def test_the_markdown_shows_the_same(small_report):
    text = (small_report / "report.md").read_text()
    assert text.startswith("# soft & \\<hard\\>\n")
    assert "<script>alert" not in text
    for name in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (small_report / name).is_file()
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) > 8
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "attention=hard, seed=3" in text


def test_the_latex_tables_are_sound(small_report):
    text = (small_report / "tables.tex").read_text()
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    for body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n\\toprule\n(.*?)\\bottomrule", text, re.DOTALL):
        for line in body[1].splitlines():
            if line != r"\midrule":
                assert len(re.findall(r"(?<!\\)&", line)) == len(body[0]) - 1
                assert line.endswith(r"\\")
    assert not re.search(r"(?<!\\)[_#%](?!.*booktabs)", text.split("\n", 1)[1])
    assert r"$\pm$" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_takes_the_tables(small_report, tmp_path):
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,adjustbox}\begin{document}"
    (tmp_path / "a.tex").write_text(f"{head}{(small_report / 'tables.tex').read_text()}\\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_the_csv_files_have_no_ragged_rows(small_report):
    for name in ("summary.csv", "tests.csv"):
        with (small_report / name).open(newline="") as file:
            rows = list(csv.reader(file))
        assert len(rows) > 5
        assert len({len(row) for row in rows}) == 1


def test_the_same_runs_give_the_same_report(fabricate, tmp_path):
    fabricate.sweep(tmp_path / "sweep", {"bahdanau": 0.1, "luong": 0.2}, (1,), 10)
    for name in ("a", "b"):
        write_report(tmp_path / "sweep", tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) > 10
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_images_and_their_maps(fabricate, tmp_path):
    from PIL import Image

    for name in ("bahdanau", "luong"):
        directory = fabricate.run(
            tmp_path / "sweep" / name, attention=name, metrics={"test/accuracy": 50.0, "train/images_per_second": 5.0},
            predictions=[{"label": "cat", "prediction": name, "probability": 0.5}],
            maps=[
                {"kind": "image", "image": "attention/0_image.png", "map": [[0.5, 0.5], [0.0, 0.0]]},
                {"kind": "image", "image": "../../secret.png", "map": [[1.0]]},
            ],
        )  # fmt: skip
        (directory / "attention").mkdir()
        Image.new("RGB", (8, 8), "red").save(directory / "attention" / "0_image.png")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "secret.png")
    written = write_report(tmp_path / "sweep")
    text = (written.out / "report.html").read_text()
    (examples,) = json.loads(Page(text).scripts[0])
    assert [example["title"] for example in examples] == ["image 1"]
    assert examples[0]["image"].startswith("data:image/png;base64,")
    assert examples[0]["panels"][0]["weights"] == [[0.5, 0.5], [0.0, 0.0]]
    assert (written.out / "figures" / "attention-1.svg").is_file()
    (problem,) = written.problems
    assert "names ../../secret.png, which is no image of it" in problem.sentence
    assert '<th scope="col">speed <span class="unit">images/s</span></th>' in text


def test_several_data_sets_have_sections_and_files_of_their_own(fabricate, tmp_path):
    texts = fabricate.references(6)
    for language in ("de", "fr"):
        for name in ("bahdanau", "luong"):
            data = {"_target_": "attnlab.data.translation.phrasebook", "language": language}
            directory = fabricate.translation(tmp_path / "sweep" / language / name, name, 1, 0.2, texts, data=data)
            (directory / "curves.jsonl").unlink()
            maps = (directory / "attention.jsonl").read_text().splitlines()
            (directory / "attention.jsonl").write_text(maps[0])
    out = write_report(tmp_path / "sweep").out
    assert (out / "figures" / "1-phrasebook--language-de-quality.png").is_file()
    page = Page((out / "report.html").read_text())
    assert {"data-1", "data-2", "across"} <= set(page.ids)
    assert len(json.loads(page.scripts[0])) == 2
