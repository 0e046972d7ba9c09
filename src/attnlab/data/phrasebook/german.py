"""German: verb second, verb last, the sentence bracket, separable verbs, case and adjective endings."""

from attnlab.data.phrasebook.grammar import Grammar, merge
from attnlab.data.phrasebook.meaning import Clause, Name, Nominal, Predicate, Pronoun, Subject
from attnlab.data.phrasebook.tokens import Token, token, tokens

# Time before manner before place; "nicht" closes the part before the first of _AFTER_NOT.
_BEFORE_NOT = ("receiver", "time", "clock", "object")
_AFTER_NOT = ("language", "price", "measure", "predicate", "vehicle", "origin", "goal", "place", "duration")
_DEFINITE = {
    "nominative": {"m": "der", "f": "die", "n": "das"},
    "accusative": {"m": "den", "f": "die", "n": "das"},
    "dative": {"m": "dem", "f": "der", "n": "dem"},
    "genitive": {"m": "des", "f": "der", "n": "des"},
}
_MIXED = {"nominative": {"m": "", "f": "e", "n": ""}, "accusative": {"m": "en", "f": "e", "n": ""}}
_STRONG = {"nominative": {"m": "er", "f": "e", "n": "es"}, "accusative": {"m": "en", "f": "e", "n": "es"}}
_POSSESSIVE = {"a": "ein", "his": "sein", "her": "ihr", "our": "unser", "their": "ihr"}
_PRONOUN = {
    "nominative": {"he": "er", "she": "sie", "we": "wir", "they": "sie"},
    "accusative": {"he": "ihn", "she": "sie", "we": "uns", "they": "sie"},
    "dative": {"he": "ihm", "she": "ihr", "we": "uns", "they": "ihnen"},
}
_MODAL = {"must": ("muss", "müssen"), "can": ("kann", "können"), "want": ("will", "wollen")}
_CONTRACTED = {("in", "dem"): "im", ("an", "dem"): "am", ("von", "dem"): "vom", ("zu", "dem"): "zum"}
_FEMININE = {"CH", "TR", "UA", "SK", "MN"}  # the territories that take an article
_MASCULINE = {"IQ", "IR", "LB", "YE", "SD", "SS", "TD", "NE"}
_PLURAL = {"NL", "US", "PH", "BS", "MV", "SC", "KM"}


def noun_fields(text: str) -> tuple[str, ...]:
    """``singular gender plural`` -> (singular, plural, gender)."""
    singular, gender, plural = text.split()
    return singular, plural, gender


def people_fields(text: str) -> tuple[str, ...]:
    """``masculine[~] genitive feminine`` -> (nominative, oblique, genitive, feminine)."""
    name, genitive, feminine = text.split()
    return name.rstrip("~"), genitive if name.endswith("~") else name, genitive, feminine


def adjective_fields(text: str) -> tuple[str, ...]:
    """``predicative [stem]`` -> (predicative, stem)."""
    fields = text.split()
    return fields[0], fields[-1]


def verb_fields(text: str) -> tuple[str, ...]:
    """``[=][prefix+]infinitive third participle[*]`` -> (stem, third, participle, prefix, case, aux)."""
    infinitive, third, participle = text.split()
    case = "dative" if infinitive[0] == "=" else "accusative"
    prefix, _, infinitive = infinitive.lstrip("=").rpartition("+")
    return (
        infinitive,
        third,
        participle.rstrip("*"),
        prefix,
        case,
        "sein" if participle[-1] == "*" else "haben",
    )


def place(preposition: str, name: str, territory: str) -> str:
    """The row side for "in", "to" or "from" a place; ``territory`` is its code, "" for a city."""
    name = name.replace(" ", "_")
    directed = preposition == "to"
    article = ""
    if territory in _FEMININE:
        article = "die" if directed else "der"
    elif territory in _MASCULINE:
        article = "den" if directed else "dem"
    elif territory in _PLURAL:
        article = "die" if directed else "den"
        if not directed and name.endswith("e"):
            name += "n"  # the dative plural: "in den Niederlanden"
    if article:
        word = {"in": "in", "to": "in", "from": "aus"}[preposition]
        return f"{word}/1 {article}/the>2 {name}/2"
    return f"{ {'in': 'in', 'to': 'nach', 'from': 'aus'}[preposition] }/1 {name}/2"


class German(Grammar):
    and_word = "und"

    def clause(self, clause: Clause, order: str) -> list[Token]:
        parts, subject = clause.parts, self.phrase(clause.subject)
        finite, rest = self.verb(clause)
        case = clause.verb[1][4]
        middle: list[Token] = []
        target = parts.get("object")
        if isinstance(target, Pronoun):
            middle += self.phrase(target, case)
        for role in _BEFORE_NOT:
            if role in parts and not (role == "time" and clause.front) and not isinstance(parts[role], Pronoun):
                middle += self.phrase(parts[role], {"receiver": "dative", "object": case}.get(role, ""))
        if clause.negated:
            middle.append(token("nicht", f"{clause.key}.not", f"{clause.key}.verb"))
        for role in _AFTER_NOT:
            if role in parts:
                node = parts[role]
                middle += self.predicate(node, clause.subject) if isinstance(node, Predicate) else self.phrase(node)
        if order == "vf":
            out = [*subject, *middle, *self.verb_last(finite, rest)]
        elif clause.front:
            out = [*self.phrase(parts["time"]), finite, *subject, *middle, *rest]
        elif order == "inv":
            out = [finite, *subject, *middle, *rest]
        else:
            out = [*subject, finite, *middle, *rest]
        if clause.that:
            comma = token(",", f"{clause.key}.comma", f"{clause.key}.that")
            out += [comma, token("dass", f"{clause.key}.that"), *self.clause(clause.that, "vf")]
        return out

    @staticmethod
    def verb_last(finite: Token, rest: list[Token]) -> list[Token]:
        if rest and rest[-1][1] == finite[1]:  # a separated prefix goes back to its verb
            return [*rest[:-1], (rest[-1][0] + finite[0], finite[1])]
        return [*rest, finite]

    def verb(self, clause: Clause) -> tuple[Token, list[Token]]:
        """The finite verb and what closes the bracket: participle, infinitive or prefix."""
        stem, third, participle, prefix, _, auxiliary = clause.verb[1]
        key, verb, single = clause.key, f"{clause.key}.verb", clause.subject.person == "3s"
        if clause.modal:
            finite = token(_MODAL[clause.modal][not single], f"{key}.modal", verb)
            return finite, [token(prefix + stem, verb)]
        if clause.tense == "future":
            return token("wird" if single else "werden", f"{key}.aux", verb), [token(prefix + stem, verb)]
        if stem == "sein":
            form = ("ist", "sind") if clause.tense == "present" else ("war", "waren")
            return token(form[not single], verb), []
        if clause.tense == "past":
            form = ("ist", "sind") if auxiliary == "sein" else ("hat", "haben")
            return token(form[not single], f"{key}.aux", verb), [token(participle, verb)]
        return token(third if single else stem, verb), [token(prefix, verb)] if prefix else []

    def nominal(self, node: Nominal, case: str) -> list[Token]:
        key, noun = node.key, node.noun[1]
        if node.people:
            gender, word = "m", noun[{"nominative": 0, "genitive": 2}.get(case, 1)]
        else:
            gender, word = noun[2], noun[1] if node.number else noun[0]
        stem = node.adjective[1][1] if node.adjective else ""
        out: list[Token] = []
        after: list[Token] = []
        if node.number:
            out += self.number(node, gender)
            ending = "e"
        elif node.owner is not None and isinstance(node.owner, Name):
            owner = self.phrase(node.owner)
            out += [*owner[:-1], (f"{owner[-1][0]}s", owner[-1][1])]
            ending = _STRONG[case][gender]
        elif node.owner is not None or node.det == "the":
            head = f"{key}.noun"
            out.append(token(_DEFINITE[case][gender], f"{key}.det", head))
            if node.owner is not None:
                after = self.phrase(node.owner, "genitive")
            ending = "e" if case == "nominative" or (case == "accusative" and gender != "m") else "en"
        else:
            out.append(token(_POSSESSIVE[node.det] + _MIXED[case][gender], f"{key}.det", f"{key}.noun"))
            ending = _STRONG[case][gender]
        if stem:
            out.append(token(stem + ending, f"{key}.adjective"))
        out += [*tokens(word, f"{key}.noun"), *after]
        if node.relative:
            comma = token(",", f"{key}.comma", f"{key}.that")
            relative = token(_DEFINITE["accusative"][gender], f"{key}.that")
            out += [comma, relative, *self.clause(node.relative, "vf"), comma]
        return out

    def pronoun(self, node: Pronoun, case: str) -> list[Token]:
        return [token(_PRONOUN[case][node.which], f"{node.key}.pronoun", f"{node.key.rpartition('.')[0]}.verb")]

    def predicate(self, node: Predicate, subject: Subject) -> list[Token]:
        key = node.key
        if node.profession:
            out = [token("als", f"{key}.as", f"{key}.noun")] if node.role else []
            return [*out, token(node.profession[1][3 if subject.gender == "f" else 0], f"{key}.noun")]
        out = [token(node.degree[1][0], f"{key}.degree")] if node.degree else []
        return [*out, token(node.adjective[1][0], f"{key}.adjective")]

    def contract(self, sequence: list[Token]) -> list[Token]:
        out: list[Token] = []
        for item in sequence:
            text = _CONTRACTED.get((out[-1][0], item[0])) if out else None
            if text:
                out[-1] = merge(out[-1], item, text)
            else:
                out.append(item)
        return out


GRAMMAR = German()
