"""English: the source side."""

from attnlab.data.phrasebook.grammar import Grammar
from attnlab.data.phrasebook.meaning import Clause, Nominal, Predicate, Pronoun, Subject
from attnlab.data.phrasebook.tokens import Token, token, tokens

_ORDER = (
    *("language", "object", "price", "measure", "predicate", "origin", "goal"),
    *("vehicle", "place", "duration", "time", "clock"),
)
_OBJECTIVE = {"he": "him", "she": "her", "we": "us", "they": "them"}


def noun_fields(text: str) -> tuple[str, ...]:
    """``singular [plural]`` -> (singular, plural)."""
    fields = text.split()
    return (fields[0], fields[-1] if len(fields) > 1 else third_person(fields[0]))


def verb_fields(text: str) -> tuple[str, ...]:
    """``base[/particle] past`` -> (base, past, particle)."""
    base, past = text.split()
    base, _, particle = base.partition("/")
    return base, past, particle


def third_person(base: str) -> str:
    """The -s form, of verbs and of nouns alike."""
    if base.endswith(("s", "sh", "ch", "x", "go")):
        return f"{base}es"
    return f"{base[:-1]}ies" if base.endswith("y") and base[-2] not in "aeou" else f"{base}s"


def indefinite(following: str) -> str:
    return "an" if following[0] in "aeio" or following.startswith(("ug", "um")) else "a"


class English(Grammar):
    side = 0
    and_word = "and"

    def clause(self, clause: Clause, order: str) -> list[Token]:
        out: list[Token] = []
        parts = clause.parts
        if clause.front:
            out += [*self.phrase(parts["time"]), token(",", f"{clause.key}.front")]
        out += [*self.phrase(clause.subject), *self.verb(clause)]
        if "receiver" in parts:
            out += self.phrase(parts["receiver"], "objective")
        for role in _ORDER:
            if role not in parts or (role == "time" and clause.front):
                continue
            node = parts[role]
            if isinstance(node, Predicate):
                out += self.predicate(node, clause.subject)
            else:
                out += self.phrase(node, "objective")
        if clause.that:
            out += [token("that", f"{clause.key}.that"), *self.clause(clause.that, "vf")]
        return out

    def verb(self, clause: Clause) -> list[Token]:
        base, past, particle = clause.verb[0]
        key, single = clause.key, clause.subject.person == "3s"
        verb, negation = f"{key}.verb", [token("not", f"{key}.not", f"{key}.verb")] if clause.negated else []
        if clause.modal in ("must", "can"):
            if clause.negated:  # "cannot" is one word; "must" is never negated
                out = [("cannot", ((f"{key}.modal", verb), (f"{key}.not", verb))), token(base, verb)]
            else:
                out = [token(clause.modal, f"{key}.modal", verb), token(base, verb)]
        elif clause.modal:
            tail = [token("to", f"{key}.to", f"{key}.modal"), token(base, verb)]
            if clause.negated:
                support = token("does" if single else "do", f"{key}.support", f"{key}.modal")
                out = [support, *negation, token("want", f"{key}.modal", verb), *tail]
            else:
                out = [token("wants" if single else "want", f"{key}.modal", verb), *tail]
        elif clause.tense == "future":
            out = [token("will", f"{key}.aux", verb), *negation, token(base, verb)]
        elif base == "be":
            form = ("is" if single else "are") if clause.tense == "present" else ("was" if single else "were")
            out = [token(form, verb), *negation]
        elif clause.negated:
            form, mark = ("did", "aux") if clause.tense == "past" else ("does" if single else "do", "support")
            out = [token(form, f"{key}.{mark}", verb), *negation, token(base, verb)]
        elif clause.tense == "past":
            out = [token(past, verb)]
        else:
            out = [token(third_person(base) if single else base, verb)]
        return [*out, token(particle, verb)] if particle else out

    def nominal(self, node: Nominal, case: str) -> list[Token]:
        key, noun = node.key, node.noun[0]
        out: list[Token] = []
        word = noun[1] if node.number else noun[0]
        if node.number:
            out += self.number(node, "m")
        elif node.owner is not None:
            owner = self.phrase(node.owner)
            out += [*owner[:-1], (f"{owner[-1][0]}'s", owner[-1][1])]
        else:
            det = node.det
            if det == "a":
                det = indefinite(node.adjective[0][0] if node.adjective else word)
            out.append(token(det, f"{key}.det", f"{key}.noun"))
        if node.adjective:
            out.append(token(node.adjective[0][0], f"{key}.adjective"))
        out += tokens(word, f"{key}.noun")
        if node.relative:
            out += [token("that", f"{key}.that"), *self.clause(node.relative, "vf")]
        return out

    def pronoun(self, node: Pronoun, case: str) -> list[Token]:
        key, clause = node.key, node.key.rpartition(".")[0]
        if case == "nominative":  # where it is not said, the ending of the finite verb says it
            return [token(node.which, f"{key}.pronoun", f"{clause}.finite")]
        return [token(_OBJECTIVE[node.which], f"{key}.pronoun", f"{clause}.verb")]

    def predicate(self, node: Predicate, subject: Subject) -> list[Token]:
        key = node.key
        if node.profession:
            word = node.profession[0][0]
            out = [token("as", f"{key}.as", f"{key}.noun")] if node.role else []
            return [*out, token(indefinite(word), f"{key}.det", f"{key}.noun"), token(word, f"{key}.noun")]
        out = [token(node.degree[0][0], f"{key}.degree")] if node.degree else []
        return [*out, token(node.adjective[0][0], f"{key}.adjective")]
