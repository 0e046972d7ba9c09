import json
import subprocess
import sys

import numpy as np
import pytest

from attnlab.data import corpora, prepare
from attnlab.data.corpora import HubCorpus, Phrasebook, cache_folder, from_spec
from attnlab.data.prepare import TOKENIZER_OPTIONS, encode_corpus

SMALL = {"train": 30, "validation": 4, "test": 5}
ROWS = [{"de": f"der Hund {i}", "en": f"the dog {i}"} for i in range(6)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def folder(path, rows=ROWS):
    path.mkdir(exist_ok=True)
    for split in ("train", "validation", "test"):
        (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return HubCorpus(str(path), "de", "en")


def ids(encoded):
    return {name: ([*map(list, split.source)], [*map(list, split.target)]) for name, split in encoded[1].items()}


def kept():
    return sorted(path.name for path in cache_folder().glob("encoded-*") if path.is_dir())


def test_what_the_cache_gives_equals_what_was_encoded(monkeypatch):
    corpus = Phrasebook(**SMALL)
    first = encode_corpus(corpus, TOKENIZER_OPTIONS)
    monkeypatch.setattr(prepare, "_load_now", lambda *_: pytest.fail("the cache was not used"))
    second = encode_corpus(corpus, TOKENIZER_OPTIONS)
    assert ids(first) == ids(second)
    assert first[0].source.to_str() == second[0].source.to_str()
    for name, split in first[1].items():
        assert split.target_texts == second[1][name].target_texts
        assert split.sure == second[1][name].sure
    assert isinstance(second[1]["train"].source.values.base, np.memmap)


def test_other_options_other_tokenizers_and_other_content_are_kept_apart(tmp_path):
    corpus = folder(tmp_path / "corpus")
    pair, _ = encode_corpus(corpus, TOKENIZER_OPTIONS)
    encode_corpus(corpus, TOKENIZER_OPTIONS | {"lowercase": True})
    encode_corpus(corpus, TOKENIZER_OPTIONS, pair)
    assert len(kept()) == 3
    changed = folder(tmp_path / "corpus", [*ROWS, {"de": "die Katze", "en": "the cat"}])
    _, splits = encode_corpus(changed, TOKENIZER_OPTIONS)
    assert len(splits["train"]) == len(ROWS) + 1
    assert len(kept()) == 4


def test_a_damaged_copy_is_made_anew(monkeypatch):
    corpus = Phrasebook(**SMALL)
    first = ids(encode_corpus(corpus, TOKENIZER_OPTIONS))
    damaged = cache_folder() / kept()[0] / "train.source.values.npy"
    damaged.unlink()  # a file that is mapped into memory is not written to
    damaged.write_bytes(b"rubbish")
    assert ids(encode_corpus(corpus, TOKENIZER_OPTIONS)) == first
    monkeypatch.setattr(prepare, "_load_now", lambda *_: pytest.fail("the cache was not mended"))
    assert ids(encode_corpus(corpus, TOKENIZER_OPTIONS)) == first


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(encode_corpus(Phrasebook(**SMALL), TOKENIZER_OPTIONS)[1]["test"]) == SMALL["test"]


@pytest.mark.parametrize("chunk", [1, 4, 6, 100])
def test_what_is_encoded_part_by_part_equals_what_is_encoded_at_once(tmp_path, monkeypatch, chunk):
    rows = [*ROWS[:2], {"de": " ", "en": "blank"}, *ROWS[2:]]
    whole = prepare._encode_now(folder(tmp_path / "corpus", rows), TOKENIZER_OPTIONS, None)
    monkeypatch.setattr(prepare, "_CHUNK", chunk)
    monkeypatch.setattr(corpora, "_CHUNK", chunk)
    parts = encode_corpus(folder(tmp_path / "corpus", rows), TOKENIZER_OPTIONS)
    assert ids(parts) == ids(whole)
    assert [len(split) for split in parts[1].values()] == [len(ROWS)] * 3
    for pair in (parts, encode_corpus(folder(tmp_path / "corpus", rows), TOKENIZER_OPTIONS)):
        assert pair[1]["train"].source_texts == [row["de"] for row in ROWS]


def test_what_was_encoded_is_on_disk_and_stays_there(tmp_path):
    corpus = folder(tmp_path / "corpus", [*ROWS, {"de": "das lange Wort", "en": "the very long word"}])
    first, second = (encode_corpus(corpus, TOKENIZER_OPTIONS)[1]["train"] for _ in range(2))
    for split in (first, second):
        shorter = split.no_longer_than(3)
        assert len(shorter) == len(ROWS)
        assert shorter.source_texts == [row["de"] for row in ROWS]
        assert [*map(list, shorter.target)] == [*map(list, split.target)][: len(ROWS)]
        for side in (split.source, split.target, shorter.source, shorter.target):
            assert isinstance(side.values.base, np.memmap)
        assert split.no_longer_than(4) is split


def test_pairs_that_were_left_out_are_told_of_when_the_cache_is_used_too(tmp_path, caplog):
    for _ in range(2):
        corpus = folder(tmp_path / "corpus", [*ROWS, {"de": "", "en": "blank"}])
        caplog.clear()
        encode_corpus(corpus, TOKENIZER_OPTIONS)
        assert caplog.text.count("1 of 7 rows in the split 'train'") == 1


def test_a_process_of_its_own_fills_the_cache_without_torch(monkeypatch):
    spec = {"_target_": "attnlab.data.translation.phrasebook", **SMALL, "tokenizer": {"kind": "character"}, "other": 1}
    run = "runpy.run_module('attnlab.data.prepare', run_name='__main__')"
    code = f"import sys, runpy; {run}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, json.dumps(spec)], check=True)
    assert len(kept()) == 1
    monkeypatch.setattr(prepare, "_load_now", lambda *_: pytest.fail("the cache was not used"))
    encode_corpus(from_spec(spec), TOKENIZER_OPTIONS | spec["tokenizer"])


def test_a_hub_id_has_no_identity_and_is_not_cached():
    assert HubCorpus("owner/name", "de", "en").identity() is None
