import csv
import io

import pytest

from attnlab.report import tables
from attnlab.report.compare import compare
from attnlab.report.page import escape_latex, escape_markdown
from attnlab.report.points import load


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_summary_has_a_row_per_variant_and_metric(fabricate, tmp_path):
    for seed, bleu in ((1, 1.0), (2, 2.0), (3, 3.0)):
        fabricate.run(
            tmp_path / f"{seed}", seed=seed, metrics={"test/bleu": bleu, "test/argmax/bleu": 4.0, "test_mode": "soft"},
            predictions=[{"source": "a", "reference": "b", "prediction": "c"}],
        )  # fmt: skip
    rows = {row["metric"]: row for row in read(tables.summary_csv(load(tmp_path)))}
    assert rows.keys() == {"test/bleu", "test/argmax/bleu"}
    row = rows["test/bleu"]
    assert list(row) == ["data", "variant", "metric", "mean", "sd", "ci_low", "ci_high", "n"]
    assert (row["data"], row["variant"], row["mean"], row["sd"], row["n"]) == ("phrasebook", "bahdanau", "2", "1", "3")
    assert float(row["ci_low"]) == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-6)
    assert float(row["ci_high"]) == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-6)


def test_the_table_marks_what_is_supported_and_nothing_else(fabricate, tmp_path):
    (data,) = load(fabricate.sweep(tmp_path, {"bahdanau": 0.05, "luong": 0.4}, (1, 2, 3))).sets
    table = tables.results(data, compare(data))
    headings = [column.label for column in table.columns]
    assert headings == [
        "variant", "seeds", "BLEU", "chrF", "exact match", "edit distance", "loss", "AER", "entropy", "parameters",
        "speed", "training time", "peak memory",
    ]  # fmt: skip
    marked = {row[0].value: [h for h, cell in zip(headings, row, strict=True) if cell.best] for row in table.rows}
    assert {"BLEU", "chrF"} <= set(marked["bahdanau"])
    assert marked["luong"] == []
    assert not {"AER", "entropy", "parameters", "speed", "training time"} & set(marked["bahdanau"])
    bleu = table.rows[0][2]
    assert bleu.spread.startswith("± ")
    assert " to " in bleu.interval
    assert table.rows[0][headings.index("parameters")].value == "1,234,567"


def test_a_variant_without_runs_has_an_empty_row(fabricate, tmp_path):
    fabricate.sweep(tmp_path, {"bahdanau": 0.05}, (1, 2), 5)
    fabricate.run(tmp_path / "x", attention="hard", seed=1, state="failed", error="No.")
    (data,) = load(tmp_path).sets
    row = tables.results(data, compare(data)).rows[1]
    assert [cell.value for cell in row[:3]] == ["hard", "0/2", "–"]


def test_test_modes_stand_side_by_side(fabricate, tmp_path):
    for seed in (1, 2):
        fabricate.run(
            tmp_path / f"{seed}", attention="hard", seed=seed,
            metrics={
                "test/bleu": 1.0, "test/argmax/bleu": 10.0 + seed, "test/sample/bleu": 9.0, "test/sample/bleu_sd": 0.1,
                "test_mode": "argmax",
            },
            predictions=[{"source": "a", "reference": "b", "prediction": "c"}],
        )  # fmt: skip
    (data,) = load(tmp_path).sets
    table = tables.mode_table(data)
    assert [[cell.value for cell in row] for row in table.rows] == [
        ["hard", "argmax", "11.5"],
        ["hard", "sample", "9.0"],
    ]
    assert table.rows[0][1].spread == "(selects the checkpoint)"
    assert table.rows[0][2].spread == "± 0.7"


def test_tests_csv_names_every_test(fabricate, tmp_path):
    (data,) = load(fabricate.sweep(tmp_path, {"bahdanau": 0.05, "luong": 0.4}, (1, 2))).sets
    rows = read(tables.tests_csv(compare(data).outcomes))
    bleu = [row for row in rows if row["metric"] == "test/bleu"]
    assert [row["test"] for row in bleu] == [
        "paired bootstrap resampling", "approximate randomisation", "Games-Howell test over seeds",
    ]  # fmt: skip
    assert [part.split(":")[0] for part in bleu[0]["p_by_seed"].split()] == ["1", "2"]
    assert bleu[2]["p_by_seed"] == bleu[2]["p"] == ""
    assert all(0 <= float(row["p_corrected"]) <= 1 for row in rows)


def test_latex_shows_special_characters_as_they_are():
    assert escape_latex(r"a_b & 50 % #1 $x$ {y} ~ ^ \z <w>") == (
        r"a\_b \& 50 \% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z "
        r"\textless{}w\textgreater{}"
    )
    assert escape_latex("1 ± 2") == r"1 $\pm$ 2"


def test_markdown_shows_special_characters_as_they_are():
    assert escape_markdown("a|b *c* _d_ `e` <f>\n[g] $h$ \\") == r"a\|b \*c\* \_d\_ \`e\` \<f\> \[g\] \$h\$ \\"
