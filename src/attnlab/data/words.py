"""Words of a text: the unit in which word alignments are counted.

One regular expression defines them. In order of preference, a word is

1. an elided function word with its apostrophe, when a letter follows: ``l'``, ``d'``, ``qu'`` ... so that
   ``l'Italie`` is two words, ``l'`` and ``Italie``, like ``la Suisse``;
2. a maximal run of letters, digits and combining marks in which single ``'``, ``’``, ``-``, ``.``, ``,`` or
   ``:`` may stand between two such characters: ``doctor's``, ``twenty-one``, ``1,250``, ``14:30``;
3. any other character that is not white space: final ``.``, a comma before a space, a quotation mark.
"""

import re

_WORD = re.compile(
    r"(?:[cdjlmnst]|(?:jus|lors|puis)?qu)['’](?=[^\W\d_])"
    r"|[^\W_](?:[^\W_]|[\u0300-\u036f]|['’\-.,:](?=[^\W_]))*"
    r"|\S",
    re.IGNORECASE,
)


def word_spans(text: str) -> list[tuple[int, int]]:
    """The character span ``(start, end)`` of each word of the text, in order."""
    return [match.span() for match in _WORD.finditer(text)]


def split_words(text: str) -> list[str]:
    """The words of the text, in order; joined without spaces they are the text without its white space."""
    return _WORD.findall(text)
