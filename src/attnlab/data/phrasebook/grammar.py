"""What the four grammars share: joining clauses, ordering roles, dispatch over the nodes of a meaning."""

from attnlab.data.phrasebook.meaning import (
    Clause,
    Gap,
    Name,
    Nominal,
    Pair,
    Predicate,
    Pronoun,
    Sentence,
    Subject,
)
from attnlab.data.phrasebook.tokens import Adjunct, Token, render, token, tokens


class Grammar:
    """Puts a Sentence into words. ``side`` is the field of each lexeme that this language reads."""

    side = 1
    and_word = ""

    def sentence(self, sentence: Sentence) -> list[Token]:
        """The tokens of a sentence, with its final full stop, contracted and elided."""
        first, second = sentence.first, sentence.second
        if second is None or sentence.conjunction is None:
            out = self.clause(first, "v2")
        else:
            row, order = sentence.conjunction
            link = render(Adjunct("join", row, {}), self.side)
            if sentence.opens:
                out = [*link, *self.clause(first, order), token(",", "comma"), *self.clause(second, "inv")]
            else:
                out = [*self.clause(first, "v2"), *link, *self.clause(second, order)]
        out.append(token(".", "stop"))
        return self.contract(out)

    def clause(self, clause: Clause, order: str) -> list[Token]:
        raise NotImplementedError

    def nominal(self, node: Nominal, case: str) -> list[Token]:
        raise NotImplementedError

    def pronoun(self, node: Pronoun, case: str) -> list[Token]:
        raise NotImplementedError

    def predicate(self, node: Predicate, subject: Subject) -> list[Token]:
        raise NotImplementedError

    def contract(self, sequence: list[Token]) -> list[Token]:
        return sequence

    def conjunction(self, node: Pair) -> str:
        return self.and_word

    def phrase(self, node: Adjunct | Subject | Gap, case: str = "nominative") -> list[Token]:
        """The tokens of a noun phrase or an adjunct in the given case."""
        if isinstance(node, Adjunct):
            return render(node, self.side)
        if isinstance(node, Gap):
            return []
        if isinstance(node, Name):
            out = [token(node.first, f"{node.key}.noun")]
            return [*out, token(node.last, f"{node.key}.last")] if node.last else out
        if isinstance(node, Pair):
            joint = token(self.conjunction(node), f"{node.key}.and")
            return [*self.phrase(node.left, case), joint, *self.phrase(node.right, case)]
        return self.pronoun(node, case) if isinstance(node, Pronoun) else self.nominal(node, case)

    def number(self, node: Nominal, gender: str) -> list[Token]:
        forms = node.number[self.side]
        return tokens(forms[-1] if gender == "f" else forms[0], f"{node.key}.number")


def merge(left: Token, right: Token, text: str) -> Token:
    """One token in place of two; it keeps the links of both."""
    return text, left[1] + right[1]
