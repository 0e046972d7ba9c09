import random
import subprocess
import sys
import time

import pytest
import sacrebleu

from attnlab.evaluation.text import corpus_scores, levenshtein

SENTENCES = ["The small garden is beautiful today.", "Où est la bibliothèque de la ville ?"]


def test_identical_text_is_perfect():
    scores = corpus_scores(SENTENCES, SENTENCES)
    assert scores.bleu == pytest.approx(100)
    assert scores.chrf == pytest.approx(100)
    assert scores.exact_match == 100
    assert scores.edit_distance == 0


def test_unrelated_text_scores_near_nothing():
    scores = corpus_scores(["xyz qqq"], ["the small garden"])
    assert scores.bleu < 10
    assert scores.chrf < 5
    assert scores.exact_match == 0


def test_scores_are_sacrebleus():
    hypotheses = ["The small garden is pretty today.", "Où est la grande bibliothèque ?"]
    scores = corpus_scores(hypotheses, SENTENCES)
    assert scores.bleu == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [SENTENCES]).score)
    assert scores.chrf == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [SENTENCES]).score)
    assert 0 < scores.bleu < 100
    # Corpus BLEU is not symmetric (it has precision and a brevity penalty), so the two must not be swapped.
    assert corpus_scores(SENTENCES, hypotheses).bleu != pytest.approx(scores.bleu)


def test_signatures_say_how():
    scores = corpus_scores(SENTENCES, SENTENCES)
    for part in ("nrefs:1", "case:mixed", "tok:13a", "smooth:exp", f"version:{sacrebleu.__version__}"):
        assert part in scores.bleu_signature.split("|")
    for part in ("nrefs:1", "case:mixed", "nc:6", "nw:0", f"version:{sacrebleu.__version__}"):
        assert part in scores.chrf_signature.split("|")


def test_lowercase_is_bleus_alone():
    shouted = [sentence.upper() for sentence in SENTENCES]
    mixed, lower = (corpus_scores(shouted, SENTENCES, lowercase=flag) for flag in (False, True))
    assert mixed.bleu < 50
    assert lower.bleu == pytest.approx(100)
    assert "case:lc" in lower.bleu_signature
    assert lower.chrf == mixed.chrf < 50
    assert "case:mixed" in lower.chrf_signature
    assert lower.exact_match == 0


def test_exact_match_and_edit_distance_by_hand():
    scores = corpus_scores(["kitten", "", "ab", "same"], ["sitting", "abc", "ba", "same"])
    assert scores.exact_match == 25
    assert scores.edit_distance == (3 + 3 + 2 + 0) / 4


def test_empty_hypotheses_are_scored():
    scores = corpus_scores(["", ""], SENTENCES)
    assert scores.bleu == 0
    assert scores.chrf == 0
    assert scores.edit_distance == sum(map(len, SENTENCES)) / 2


def test_mistakes_are_sentences():
    with pytest.raises(ValueError, match="1 hypotheses and 2 references"):
        corpus_scores(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="nothing to score"):
        corpus_scores([], [])
    with pytest.raises(TypeError, match="not one string"):
        corpus_scores("ab", "ab")


def _by_table(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y)))
        row = new
    return row[-1]


def test_levenshtein_equals_the_table():
    rng = random.Random(0)
    for _ in range(300):
        letters = "ab" if rng.random() < 0.5 else "abcdefé"
        a, b = ("".join(rng.choices(letters, k=rng.randrange(80))) for _ in range(2))
        assert levenshtein(a, b) == _by_table(a, b), (a, b)
    assert levenshtein(["ʃ", "j", "ɛ̃"], ["ʃ", "ɛ̃"]) == 1


def test_a_thousand_pairs_of_a_hundred_characters_are_quick():
    rng = random.Random(0)
    texts = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=100)) for _ in range(2000)]
    start = time.perf_counter()
    for a, b in zip(texts[::2], texts[1::2], strict=True):
        levenshtein(a, b)
    assert time.perf_counter() - start < 3  # 0.2 s on an idle core


def test_sacrebleu_is_imported_only_to_score():
    code = "import sys, attnlab.evaluation.text; sys.exit('sacrebleu' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
