"""What French and Spanish share: noun before adjective, "of the" owners, agreement in gender and number."""

from typing import ClassVar

from attnlab.data.phrasebook.grammar import Grammar
from attnlab.data.phrasebook.meaning import Clause, Gap, Nominal, Pair, Predicate, Subject
from attnlab.data.phrasebook.tokens import Token, token, tokens

_ORDER = (
    *("object", "price", "language", "measure", "predicate", "receiver"),
    *("origin", "goal", "vehicle", "place", "duration", "time", "clock"),
)


def noun_fields(text: str) -> tuple[str, ...]:
    """``singular gender [plural]`` -> (singular, plural, gender); ``:`` stands for a space."""
    singular, gender, *plural = text.replace(":", "\u00a0").split(" ")
    return (
        singular.replace("\u00a0", " "),
        (plural or [pluralise(singular)])[0].replace("\u00a0", " "),
        gender,
    )


def people_fields(text: str) -> tuple[str, ...]:
    """``masculine feminine`` -> (masculine, feminine)."""
    masculine, feminine = text.split()
    return masculine, feminine


def pluralise(word: str) -> str:
    """The regular plural of nouns and adjectives, right for every word the lexicon leaves to it."""
    return word if word[-1] in "sx" else f"{word}s"


class Romance(Grammar):
    of_word = "de"
    definite: ClassVar[dict[str, str]] = {}  # the article of each gender
    to_word = "a"
    as_word = "como"

    def clause(self, clause: Clause, order: str) -> list[Token]:
        parts, out = clause.parts, []
        if clause.front:
            out += [*self.phrase(parts["time"]), token(",", f"{clause.key}.front")]
        out += [*self.phrase(clause.subject), *self.verb(clause)]
        for role in _ORDER:
            node = parts.get(role)
            if node is None or (role == "time" and clause.front):
                continue
            if isinstance(node, Predicate):
                out += self.predicate(node, clause.subject)
            elif role == "receiver":
                out += [self.to_person(node), *self.phrase(node)]
            elif role == "object":
                out += self.object(node)
            else:
                out += self.phrase(node)
        if clause.that:
            out += [token("que", f"{clause.key}.that"), *self.clause(clause.that, "vf")]
        return out

    def verb(self, clause: Clause) -> list[Token]:
        raise NotImplementedError

    def object(self, node: Subject | Gap) -> list[Token]:
        raise NotImplementedError

    def agree(self, adjective: tuple[str, ...], gender: str, plural: bool) -> str:
        raise NotImplementedError

    def determiner(self, node: Nominal, gender: str) -> str:
        raise NotImplementedError

    def noun_group(self, node: Nominal, word: str, gender: str) -> list[Token]:
        raise NotImplementedError

    def to_person(self, node: Subject) -> Token:
        head = node.left if isinstance(node, Pair) else node
        return token(self.to_word, f"{node.key}.to", f"{head.key}.noun")

    def gender_of(self, node: Subject | Gap) -> str:
        if isinstance(node, Gap) or (isinstance(node, Nominal) and not node.people):
            return node.noun[1][2]
        return node.gender

    def nominal(self, node: Nominal, case: str) -> list[Token]:
        key, noun = node.key, node.noun[1]
        gender = self.gender_of(node)
        word = noun[0] if node.people or not node.number else noun[1]
        if node.number:
            out = self.number(node, gender)
        else:
            text = self.definite[gender] if node.owner is not None else self.determiner(node, gender)
            out = [token(text, f"{key}.det", f"{key}.noun")]
        out += self.noun_group(node, word, gender)
        if node.owner is not None:
            owner = self.phrase(node.owner)
            # "of" belongs to the owner's noun or first name, as the English possessive ending does.
            out += [token(self.of_word, f"{key}.of", owner[-1][1][0][0]), *owner]
        if node.relative:
            out += [token("que", f"{key}.that"), *self.clause(node.relative, "vf")]
        return out

    def adjective(self, node: Nominal, gender: str) -> Token:
        return token(self.agree(node.adjective[1], gender, bool(node.number)), f"{node.key}.adjective")

    def predicate(self, node: Predicate, subject: Subject) -> list[Token]:
        key, gender = node.key, self.gender_of(subject)
        if node.profession:
            out = [token(self.as_word, f"{key}.as", f"{key}.noun")] if node.role else []
            return [*out, *tokens(node.profession[1][gender == "f"], f"{key}.noun")]
        out = [token(node.degree[1][0], f"{key}.degree")] if node.degree else []
        return [
            *out,
            token(self.agree(node.adjective[1], gender, subject.person != "3s"), f"{key}.adjective"),
        ]
