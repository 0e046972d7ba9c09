"""Spanish: no subject pronouns, synthetic future, personal a, clitics before verbs and on infinitives."""

from typing import ClassVar

from attnlab.data.phrasebook.grammar import merge
from attnlab.data.phrasebook.meaning import Clause, Gap, Name, Nominal, Pair, Pronoun, Subject
from attnlab.data.phrasebook.romance import Romance
from attnlab.data.phrasebook.romance import people_fields as people_fields
from attnlab.data.phrasebook.tokens import Token, token, tokens

_INDEX = {"3s": 0, "1p": 1, "3p": 2}
_MODAL = {
    "must": ("debe", "debemos", "deben"),
    "can": ("puede", "podemos", "pueden"),
    "want": ("quiere", "queremos", "quieren"),
}
_CLITIC = {"he": "lo", "she": "la", "we": "nos", "they": "los"}
_DETERMINER = {
    "the": ("el", "la"),
    "a": ("un", "una"),
    "his": ("su", "su"),
    "her": ("su", "su"),
    "our": ("nuestro", "nuestra"),
    "their": ("su", "su"),
}
_CONTRACTED = {("de", "el"): "del", ("a", "el"): "al"}
_ARTICLE = {"NL": "los"}


def noun_fields(text: str) -> tuple[str, ...]:
    """``singular gender [plural]`` -> (singular, plural, gender)."""
    singular, gender, *plural = text.split()
    return singular, plural[0] if plural else pluralise(singular), gender


def adjective_fields(text: str) -> tuple[str, ...]:
    """``masculine`` -> (masculine, feminine)."""
    return text, f"{text[:-1]}a" if text.endswith("o") else text


def verb_fields(text: str) -> tuple[str, ...]:
    """``infinitive[/particle][:singular,they[:preterite[:future stem]]]`` -> (infinitive, present and
    preterite singular, we, they, future stem, particle)."""
    infinitive, *fields = text.split(":")
    infinitive, _, particle = infinitive.partition("/")
    stem, theme = infinitive[:-2], infinitive[-2]
    vowel = {"a": "a", "e": "e", "i": "e"}[theme]
    we = {"ser": "somos", "ir": "vamos", "dar": "damos"}.get(infinitive, f"{stem}{theme}mos")
    single, they = fields[0].split(",") if fields else (f"{stem}{vowel}", f"{stem}{vowel}n")
    if len(fields) > 1:
        preterite = fields[1].split(",")
    else:
        preterite = [stem + end for end in (("ó", "amos", "aron") if theme == "a" else ("ió", "imos", "ieron"))]
    return infinitive, single, we, they, *preterite, fields[2] if len(fields) > 2 else infinitive, particle


def pluralise(word: str) -> str:
    """The regular plural; a stressed final -és loses its accent."""
    if word.endswith(("és", "ón", "ín", "án")):
        plain = {"é": "e", "ó": "o", "í": "i", "á": "a"}[word[-2]]
        return f"{word[:-2]}{plain}{word[-1]}es"
    if word == "joven":
        return "jóvenes"
    return f"{word}s" if word[-1] in "aeioué" else f"{word}es"


def place(preposition: str, name: str, territory: str) -> str:
    """The row side for "in", "to" or "from" a place; ``territory`` is its code, "" for a city."""
    article = f"{_ARTICLE[territory]}/the>2 " if territory in _ARTICLE else ""
    return f"{ {'in': 'en', 'to': 'a', 'from': 'de'}[preposition] }/1 {article}{name.replace(' ', '_')}/2"


class Spanish(Romance):
    and_word = "y"
    definite: ClassVar[dict[str, str]] = {"m": "el", "f": "la"}

    def verb(self, clause: Clause) -> list[Token]:
        infinitive, *forms, future, particle = clause.verb[1]
        key, verb, index = clause.key, f"{clause.key}.verb", _INDEX[clause.subject.person]
        target = clause.parts.get("object")
        clitic = []
        if isinstance(target, Pronoun):
            clitic = [token(_CLITIC[target.which], f"{target.key}.pronoun", verb)]
        if clause.modal:
            out = [token(_MODAL[clause.modal][index], f"{key}.modal", verb), token(infinitive, verb)]
            if clitic:  # one word with its infinitive
                out[-1] = merge(out[-1], clitic[0], infinitive + clitic[0][0])
        elif clause.tense == "future":
            out = [*clitic, token(future + ("á", "emos", "án")[index], verb)]
        elif clause.tense == "past" and infinitive == "ser":
            out = [*clitic, token(("era", "éramos", "eran")[index], verb)]
        else:
            out = [*clitic, token(forms[index + (3 if clause.tense == "past" else 0)], verb)]
        finite = 0 if clause.modal else -1
        out[finite] = (out[finite][0], (*out[finite][1], (f"{key}.finite", "")))
        if clause.negated:
            out = [token("no", f"{key}.not", verb), *out]
        return [*out, token(particle, verb)] if particle else out

    def object(self, node: Subject | Gap) -> list[Token]:
        if isinstance(node, Pronoun):
            return []
        personal = isinstance(node, (Name, Pair)) or (isinstance(node, Nominal) and node.people)
        return [self.to_person(node), *self.phrase(node)] if personal else self.phrase(node)

    def agree(self, adjective: tuple[str, ...], gender: str, plural: bool) -> str:
        text = adjective[gender == "f"]
        return pluralise(text) if plural else text

    def determiner(self, node: Nominal, gender: str) -> str:
        return _DETERMINER[node.det][gender == "f"]

    def noun_group(self, node: Nominal, word: str, gender: str) -> list[Token]:
        noun = tokens(word, f"{node.key}.noun")
        return [*noun, self.adjective(node, gender)] if node.adjective else noun

    def pronoun(self, node: Pronoun, case: str) -> list[Token]:
        return []

    def contract(self, sequence: list[Token]) -> list[Token]:
        out: list[Token] = []
        for index, item in enumerate(sequence):
            text, links = item
            if text == "y" and index + 1 < len(sequence) and sequence[index + 1][0].lower().startswith(("i", "hi")):
                text = "e"
            both = _CONTRACTED.get((out[-1][0], text)) if out else None
            if both:
                out[-1] = merge(out[-1], item, both)
            else:
                out.append((text, links))
        return out


GRAMMAR = Spanish()
