"""What a sentence says, before any language: nodes that each grammar puts into words.

Every node has a key; the tokens made from it carry that key, so that the alignment needs no further thought.
A lexeme is a pair of field tuples ``(English, target)``; a grammar reads its own side of it.
"""

from typing import NamedTuple

from attnlab.data.phrasebook.tokens import Adjunct, Spec

Lexeme = tuple[tuple[str, ...], tuple[str, ...]]


class Name(NamedTuple):
    """A person: a first name and perhaps a surname."""

    key: str
    first: str
    last: str
    gender: str

    person = "3s"


class Pair(NamedTuple):
    """Two persons joined by "and"."""

    key: str
    left: Name
    right: Name

    person = "3p"

    @property
    def gender(self) -> str:
        return "f" if self.left.gender == self.right.gender == "f" else "m"


class Pronoun(NamedTuple):
    """A personal pronoun by its English nominative: he, she, we or they."""

    key: str
    which: str

    @property
    def person(self) -> str:
        return {"we": "1p", "they": "3p"}.get(self.which, "3s")

    @property
    def gender(self) -> str:
        return "f" if self.which == "she" else "m"


class Nominal(NamedTuple):
    """A noun phrase: determiner (the, a, his, her, our, their, or "" with a number or an owner), noun,
    adjective.

    ``people`` says that the noun is a profession, which is then singular and masculine.
    """

    key: str
    noun: Lexeme
    det: str
    adjective: Lexeme | None = None
    number: Lexeme | None = None  # (English,), (masculine, feminine)
    owner: "Name | Nominal | None" = None
    people: bool = False
    relative: "Clause | None" = None  # the clause lacks its object, which is this noun

    gender = "m"

    @property
    def person(self) -> str:
        return "3p" if self.number else "3s"


class Gap(NamedTuple):
    """The object a relative clause lacks: the noun it modifies. Without words, but French agrees with it."""

    key: str
    noun: Lexeme
    plural: bool

    @property
    def person(self) -> str:
        return "3p" if self.plural else "3s"


class Predicate(NamedTuple):
    """What "be" says of its subject: an adjective with a degree, or a profession."""

    key: str
    adjective: Lexeme | None = None
    degree: Lexeme | None = None
    profession: Lexeme | None = None
    role: bool = False  # "as a teacher", after a full verb


Subject = Name | Pair | Pronoun | Nominal
Part = Adjunct | Subject | Predicate | Gap


class Clause(NamedTuple):
    """A clause. ``parts`` maps a role to its phrase; each grammar orders the roles itself.

    Roles: object, receiver, price, language, measure, predicate, origin, goal, vehicle, place, duration,
    time, clock. ``tense`` is present, past or future; ``modal`` is "", must, can or want."""

    key: str
    subject: Subject
    verb: Lexeme
    tense: str
    parts: dict[str, Part]
    modal: str = ""
    negated: bool = False
    front: bool = False  # the time opens the clause
    that: "Clause | None" = None


class Sentence(NamedTuple):
    """One clause, or two joined by a conjunction that stands between (``opens`` false) or before them."""

    first: Clause
    conjunction: tuple[tuple[Spec, Spec], str] | None = None  # the row and the German word order it asks for
    second: Clause | None = None
    opens: bool = False
