from itertools import pairwise

import pytest

from attnlab.data.words import split_words, word_spans


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  \n", []),
        ("Anna does not sell it.", ["Anna", "does", "not", "sell", "it", "."]),
        (
            "The doctor's chair doesn't cost 1,250.50 euros.",
            ["The", "doctor's", "chair", "doesn't", "cost", "1,250.50", "euros", "."],
        ),
        ("Um 14:30 Uhr, am 12. März", ["Um", "14:30", "Uhr", ",", "am", "12", ".", "März"]),
        ("twenty-one US-Dollar -5 a- b", ["twenty-one", "US-Dollar", "-", "5", "a", "-", "b"]),
        (
            "L'Italie, d’Anna qu'elle aujourd'hui",
            ["L'", "Italie", ",", "d’", "Anna", "qu'", "elle", "aujourd'hui"],
        ),
        ("¿Qué? «oui» 3%", ["¿", "Qué", "?", "«", "oui", "»", "3", "%"]),
        ("Wait...", ["Wait", ".", ".", "."]),
        ("isn't Viêt Nam a_b", ["isn't", "Viêt", "Nam", "a", "_", "b"]),
        ("e\u0301te\u0301 1\u202f250", ["e\u0301te\u0301", "1", "250"]),
    ],
)
def test_words(text, words):
    assert split_words(text) == words


def test_spans_match_the_words_and_cover_every_visible_character():
    text = "Puisqu'Anna a payé 1 250,5 € à l'hôtel, il n'est pas « content ».\nFin…"
    spans = word_spans(text)
    assert [text[start:end] for start, end in spans] == split_words(text)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert "".join(split_words(text)) == "".join(text.split())
