from itertools import pairwise

from attnlab.report.compare import same_rows
from attnlab.report.points import load
from attnlab.report.texts import Piece, by_length, has_words, pieces, samples


def test_words_that_differ_and_words_that_are_missing_are_marked():
    found = pieces("the dog sat the big mat", "the cat sat on the mat", by_words=True)
    assert found == [
        Piece("the", "same"), Piece("dog", "differs"), Piece("sat", "same"), Piece("on", "missing"),
        Piece("the", "same"), Piece("big", "differs"), Piece("mat", "same"),
    ]  # fmt: skip


def test_single_words_are_read_by_characters():
    assert pieces("gelauft", "gelaufen", by_words=False) == [Piece("gelauf", "same"), Piece("t", "differs")]
    assert not has_words(["gelaufen", "lief"])
    assert has_words(["er lief", "sie ging", "ja"])


def test_the_ends_of_outputs():
    assert pieces("", "a b", by_words=True) == [Piece("a b", "missing")]
    assert pieces("a b", "", by_words=True) == [Piece("a b", "differs")]
    assert pieces("", "", by_words=True) == []


def rows_of(folder):
    (data,) = load(folder).sets
    return data, same_rows(data)[0]


def test_samples_are_of_rows_on_which_variants_differ(fabricate, tmp_path):
    texts = fabricate.references(20)
    for name, wrong in (("bahdanau", ()), ("luong", (3, 8, 9, 15))):
        outputs = ["something else" if i in wrong else text for i, text in enumerate(texts)]
        fabricate.run(
            tmp_path / name,
            attention=name,
            predictions=fabricate.translated(texts, outputs),
            metrics={"test/bleu": 1.0},
        )
    found, note = samples(*rows_of(tmp_path), count=2)
    assert [sample.number for sample in found] == [4, 10]
    assert "differ on 4 of 20 test sentences; these are 2 of them" in note
    assert found[0].outputs[0] == ("bahdanau", (Piece(texts[3], "same"),))
    assert found[0].outputs[1][1][0].kind == "differs"
    assert found[0].source == texts[3].upper()


def test_samples_where_nothing_differs_say_so(fabricate, tmp_path):
    texts = fabricate.references(3)
    for name in ("bahdanau", "luong"):
        fabricate.run(
            tmp_path / name, attention=name, predictions=fabricate.translated(texts, texts), metrics={"test/bleu": 1.0}
        )
    found, note = samples(*rows_of(tmp_path))
    assert len(found) == 3
    assert note.startswith("All variants give the same output for each of 3 test sentences")


def test_quality_by_length_adds_up_to_the_whole(fabricate, tmp_path):
    data, rows = rows_of(fabricate.sweep(tmp_path, {"bahdanau": 0.1}, (1, 2), 100))
    found = by_length(data, rows)
    assert found.unit == "words"
    assert sum(found.counts) == 100
    assert 2 <= len(found.labels) <= 6
    for seed, run in data.variants[0].runs.items():
        whole = sum(n * value for n, value in zip(found.counts, found.exact["bahdanau"][seed], strict=True)) / 100
        assert abs(whole - run.metrics["test/accuracy"]) < 1e-9
    lengths = [tuple(map(int, label.split("–"))) for label in found.labels]
    assert all(before[-1] < after[0] for before, after in pairwise(lengths))


def test_one_length_is_one_bucket(fabricate, tmp_path):
    texts = ["a b", "c d", "e f"]
    fabricate.run(tmp_path / "a", predictions=fabricate.translated(texts, texts), metrics={"test/bleu": 100.0})
    found = by_length(*rows_of(tmp_path))
    assert (found.labels, found.counts) == (["2"], [3])
    assert found.exact == {"bahdanau": {1: [100.0]}}
