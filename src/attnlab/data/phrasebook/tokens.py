"""Tokens that carry their part of the alignment, rows of parallel phrases, and the links between two sides.

A token is ``(text, ((key, head), ...))``. Tokens of the two sides that share a key translate each other: a sure
link. A token whose key the other side lacks (an article, an auxiliary, a preposition only one language needs) is
linked as possible to the translations of its head. A contraction carries the keys of all its parts.
"""

from functools import lru_cache
from typing import NamedTuple

from attnlab.data.words import split_words

Token = tuple[str, tuple[tuple[str, str], ...]]
Spec = tuple[tuple[str, str, str, str], ...]  # (text, slot, key, head); exactly one of text and slot is filled


class Adjunct(NamedTuple):
    """A phrase taken from a row: the specs of its two sides and the fillers ``slot -> (source, target)``."""

    key: str
    row: tuple[Spec, Spec]
    fillers: dict[str, tuple[str, str]]


def token(text: str, key: str, head: str = "") -> Token:
    return text, ((key, head),)


def tokens(text: str, key: str, head: str = "") -> list[Token]:
    """One token for each space-separated part of the text, all with the same key."""
    return [(part, ((key, head),)) for part in text.split(" ")]


def parse_side(text: str) -> Spec:
    """The spec of one side of a row: ``word/k``, ``word/>head``, ``{slot}`` or ``{slot}/k`` (see lexicon)."""
    spec = []
    for item in text.split():
        word, _, mark = item.partition("/")
        slot = word[1:-1] if word[0] == "{" else ""
        mark = mark or slot
        key, head = (f"+{word}", mark[1:]) if mark.startswith(">") else (mark, "")
        parts = [""] if slot else word.split("_")
        spec.extend((part, slot, key, head) for part in parts)
    return tuple(spec)


def render(adjunct: Adjunct, side: int) -> list[Token]:
    """The tokens of one side of an adjunct; keys are prefixed by the adjunct's own."""
    out: list[Token] = []
    for text, slot, key, head in adjunct.row[side]:
        link = ((f"{adjunct.key}.{key}", f"{adjunct.key}.{head}" if head else ""),)
        if slot:
            out.extend((part, link) for part in adjunct.fillers[slot][side].split(" "))
        else:
            out.append((text, link))
    return out


@lru_cache(maxsize=None)
def _word_count(text: str) -> int:
    # An elided word is a word only before a letter, which its token does not hold.
    return 1 if text.endswith("'") else len(split_words(text))


def join(sequence: list[Token]) -> tuple[str, list[tuple[int, tuple[tuple[str, str], ...]]]]:
    """The text of a token sequence, capitalised and spaced, and ``(word index, links)`` for each of its words."""
    pieces: list[str] = []
    words = []
    glue = True
    for text, links in sequence:
        if not (glue or text in ",."):
            pieces.append(" ")
        pieces.append(text)
        glue = text[-1] == "'" and len(text) < 3  # an elided word; the possessive of "Hans'" is longer
        for _ in range(_word_count(text)):
            words.append((len(words), links))
    text = "".join(pieces)
    return text[0].upper() + text[1:], words


def align(source: list, target: list) -> tuple[list[list[int]], list[list[int]]]:
    """The sure and the possible links ``[i, j]`` between two lists of words as ``join`` returns them."""
    places: tuple[dict[str, list[int]], dict[str, list[int]]] = ({}, {})
    for side, words in enumerate((source, target)):
        for index, links in words:
            for key, _ in links:
                places[side].setdefault(key, []).append(index)
    in_source, in_target = places
    sure = {(i, j) for key, here in in_source.items() if key in in_target for i in here for j in in_target[key]}
    possible = {
        (i, j)
        for i, links in source
        for key, head in links
        if head and key not in in_target
        for j in in_target.get(head, ())
    }
    possible |= {
        (i, j)
        for j, links in target
        for key, head in links
        if head and key not in in_source
        for i in in_source.get(head, ())
    }
    return [list(link) for link in sorted(sure)], [list(link) for link in sorted(possible - sure)]
