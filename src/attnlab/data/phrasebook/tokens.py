"""Tokens that carry their part of the alignment, rows of parallel phrases, and the links between two sides.

A token is ``(text, ((key, head), ...))``. Tokens of the two sides that share a key translate each other:
a sure link. A token whose key the other side lacks (an article, an auxiliary, a preposition only one
language needs) is linked as possible to the translations of its head. A contraction carries the keys of
all its parts."""

from functools import cache
from typing import NamedTuple

from attnlab.data.words import split_words

Links = tuple[tuple[str, str], ...]
Token = tuple[str, Links]
Spec = tuple[tuple[str, str, str, str], ...]  # (text, slot, key, head); exactly one of text and slot is filled

_ELIDED = frozenset(("l'", "d'", "qu'", "n'", "s'"))


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
    """The spec of one side of a row: ``word/key``, ``word/>head``, ``word/key>head``, ``{slot}`` or
    ``{slot}/k`` (see lexicon)."""
    spec = []
    for item in text.split():
        word, _, mark = item.partition("/")
        slot = word[1:-1] if word[0] == "{" else ""
        mark = mark or slot
        key, _, head = mark.partition(">")
        key = key or f"+{word}"
        parts = [""] if slot else word.split("_")
        spec.extend((part, slot, key, head) for part in parts)
    return tuple(spec)


def render(adjunct: Adjunct, side: int) -> list[Token]:
    """The tokens of one side of an adjunct; keys are prefixed by the adjunct's own."""
    out: list[Token] = []
    prefix = adjunct.key
    for text, slot, key, head in adjunct.row[side]:
        link = ((f"{prefix}.{key}", f"{prefix}.{head}" if head else ""),)
        if slot:
            out.extend((part, link) for part in adjunct.fillers[slot][side].split(" "))
        else:
            out.append((text, link))
    return out


@cache
def _shape(text: str) -> tuple[str, int, bool]:
    """A token's text with the space before it, its number of words, and whether the next token is glued to
    it."""
    if text in ",.":
        return text, 1, False
    if text in _ELIDED:  # a word only before a letter, which its token does not hold
        return f" {text}", 1, True
    return f" {text}", len(split_words(text)), False


def join(sequence: list[Token]) -> tuple[str, list[Links]]:
    """The text of a token sequence, capitalised and spaced, and the links of each of its words."""
    pieces: list[str] = []
    words: list[Links] = []
    glued = True
    for text, links in sequence:
        piece, count, glue = _shape(text)
        pieces.append(text if glued else piece)
        words.append(links)
        if count > 1:
            words.extend([links] * (count - 1))
        glued = glue
    text = "".join(pieces)
    return text[0].upper() + text[1:], words


def align(source: list[Links], target: list[Links]) -> tuple[list[list[int]], list[list[int]]]:
    """The sure and the possible links ``[i, j]`` between two lists of words as ``join`` returns them."""
    in_source, in_target = _places(source), _places(target)
    sure: list[tuple[int, int]] = []
    possible: list[tuple[int, int]] = []
    for i, links in enumerate(source):
        for key, head in links:
            if key in in_target:
                sure.extend([(i, j) for j in in_target[key]])
            elif head in in_target:
                possible.extend([(i, j) for j in in_target[head]])
    for j, links in enumerate(target):
        for key, head in links:
            if key not in in_source and head in in_source:
                possible.extend([(i, j) for i in in_source[head]])
    distinct = set(sure)
    return [[i, j] for i, j in sorted(distinct)], [[i, j] for i, j in sorted(set(possible) - distinct)]


def _places(words: list[Links]) -> dict[str, list[int]]:
    """The words of each key."""
    places: dict[str, list[int]] = {}
    for index, links in enumerate(words):
        for key, _ in links:
            if key in places:
                places[key].append(index)
            else:
                places[key] = [index]
    return places
