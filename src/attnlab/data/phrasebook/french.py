"""French: ne ... pas, clitics, compound past with agreement, elision and contraction."""

from typing import ClassVar

from attnlab.data.phrasebook.grammar import merge
from attnlab.data.phrasebook.meaning import Clause, Gap, Nominal, Pronoun, Subject
from attnlab.data.phrasebook.romance import Romance, pluralise
from attnlab.data.phrasebook.romance import noun_fields as noun_fields
from attnlab.data.phrasebook.romance import people_fields as people_fields
from attnlab.data.phrasebook.tokens import Token, token, tokens

_INDEX = {"3s": 0, "1p": 1, "3p": 2}
_AVOIR = ("a", "avons", "ont")
_ETRE = ("est", "sommes", "sont")
_MODAL = {
    "must": ("doit", "devons", "doivent"),
    "can": ("peut", "pouvons", "peuvent"),
    "want": ("veut", "voulons", "veulent"),
}
_PRONOUN = {"he": "il", "she": "elle", "we": "nous", "they": "ils"}
_CLITIC = {"he": "le", "she": "la", "we": "nous", "they": "les"}
_DETERMINER = {
    "the": ("le", "la"),
    "a": ("un", "une"),
    "his": ("son", "sa"),
    "her": ("son", "sa"),
    "our": ("notre", "notre"),
    "their": ("leur", "leur"),
}
_CONTRACTED = {("de", "le"): "du", ("de", "les"): "des", ("à", "le"): "au", ("à", "les"): "aux"}
_ELIDED = {"le": "l'", "la": "l'", "de": "d'", "que": "qu'", "ne": "n'"}
_VOWELS = "aeiouàâäéèêëîïôöùûüœ"
_MUTE_H = ("hébr", "hôpi", "hôte", "horl", "habi", "hist")
_MASCULINE = {"MX", "KH", "MZ", "ZW", "BZ", "SR"}  # those that end in -e and are not feminine
_PLURAL = {"NL", "US", "PH", "BS", "MV", "SC", "KM"}
_BARE = {"CU", "CY", "MT", "MG", "SG", "BH", "OM", "TW", "DJ", "MC", "MU", "HT"}  # without article, "à"


def vowel_first(text: str) -> bool:
    """Whether a word makes the one before it elide."""
    lower = text.lower()
    return lower[0] in _VOWELS or lower[:4] in _MUTE_H


def adjective_fields(text: str) -> tuple[str, ...]:
    """``[<]masculine [feminine [before a vowel]]`` -> (masculine, feminine, before a vowel, precedes)."""
    first, *more = text.split()
    word = first.lstrip("<")
    feminine = more[0] if more else (word if word.endswith("e") else f"{word}e")
    return word, feminine, more[1] if len(more) > 1 else word, "yes" if first != word else ""


def verb_fields(text: str) -> tuple[str, ...]:
    """``infinitive[/particle][:present[:future stem[:participle[*]]]]`` -> (infinitive, singular, we, they,
    future stem, participle, auxiliary, particle)."""
    infinitive, *fields = text.split(":")
    infinitive, _, particle = infinitive.partition("/")
    stem = infinitive[:-2]
    we = f"{stem}{'e' if stem.endswith('g') else ''}ons"
    we = f"{stem[:-1]}çons" if stem.endswith("c") else we
    present = fields[0].split(",") if fields else [f"{stem}e", we, f"{stem}ent"]
    future = fields[1] if len(fields) > 1 else infinitive
    participle = fields[2] if len(fields) > 2 else f"{stem}é"
    auxiliary = "être" if participle.endswith("*") else "avoir"
    return infinitive, *present, future, participle.rstrip("*"), auxiliary, particle


def place(preposition: str, name: str, territory: str) -> str:
    """The row side for "in", "to" or "from" a place; ``territory`` is its code, "" for a city."""
    text = name.replace(" ", "_")
    inside = preposition != "from"
    if territory in _PLURAL:
        return f"{'à' if inside else 'de'}/1 les/the>2 {text}/2"
    if not territory or territory in _BARE:
        return f"{'à' if inside else 'de'}/1 {text}/2"
    feminine = name.split(" ")[0].endswith(("e", "ie")) and territory not in _MASCULINE
    if feminine or vowel_first(name):
        return f"{'en' if inside else 'de'}/1 {text}/2"
    return f"{'à' if inside else 'de'}/1 le/>2 {text}/2"


class French(Romance):
    and_word = "et"
    to_word = "à"
    as_word = "comme"
    definite: ClassVar[dict[str, str]] = {"m": "le", "f": "la"}

    def verb(self, clause: Clause) -> list[Token]:
        infinitive, single, we, they, future, _, auxiliary, particle = clause.verb[1]
        key, verb, index = clause.key, f"{clause.key}.verb", _INDEX[clause.subject.person]
        target = clause.parts.get("object")
        clitic = []
        if isinstance(target, Pronoun):
            clitic = [token(_CLITIC[target.which], f"{target.key}.pronoun", verb)]
        before_rest: list[Token] = []
        if clause.modal:
            finite, rest = token(_MODAL[clause.modal][index], f"{key}.modal", verb), token(infinitive, verb)
            before_rest, clitic = clitic, []
        elif clause.tense == "future":
            finite, rest = token(future + ("a", "ons", "ont")[index], verb), None
        elif clause.tense == "past" and infinitive == "être":
            finite, rest = token(("était", "étions", "étaient")[index], verb), None
        elif clause.tense == "past":
            forms = _ETRE if auxiliary == "être" else _AVOIR
            finite, rest = token(forms[index], f"{key}.aux", verb), token(self.participle(clause), verb)
        else:
            finite, rest = token((single, we, they)[index], verb), None
        out = [*clitic, finite]
        if clause.negated:
            ne, pas = (token(word, f"{key}.not", verb) for word in ("ne", "pas"))
            out = [ne, *out, pas]
        out += [*before_rest, rest] if rest else []
        return [*out, token(particle, verb)] if particle else out

    def participle(self, clause: Clause) -> str:
        """The past participle: it agrees with the subject after être, with a preceding object after avoir."""
        participle, auxiliary = clause.verb[1][5:7]
        target = clause.parts.get("object")
        if auxiliary == "être":
            gender, plural = self.gender_of(clause.subject), clause.subject.person != "3s"
        elif isinstance(target, (Pronoun, Gap)):
            gender, plural = self.gender_of(target), target.person != "3s"
        else:
            return participle
        text = f"{participle}e" if gender == "f" else participle
        return pluralise(text) if plural else text

    def object(self, node: Subject | Gap) -> list[Token]:
        return [] if isinstance(node, Pronoun) else self.phrase(node)

    def agree(self, adjective: tuple[str, ...], gender: str, plural: bool) -> str:
        text = adjective[gender == "f"]
        if not plural:
            return text
        return f"{text}x" if text.endswith("eau") else pluralise(text)

    def determiner(self, node: Nominal, gender: str) -> str:
        return _DETERMINER[node.det][gender == "f"]

    def noun_group(self, node: Nominal, word: str, gender: str) -> list[Token]:
        noun = tokens(word, f"{node.key}.noun")
        if not node.adjective:
            return noun
        fields = node.adjective[1]
        adjective = self.adjective(node, gender)
        if not fields[3]:
            return [*noun, adjective]
        if gender == "m" and not node.number and vowel_first(word):
            adjective = (fields[2], adjective[1])
        return [adjective, *noun]

    def pronoun(self, node: Pronoun, case: str) -> list[Token]:
        return [token(_PRONOUN[node.which], f"{node.key}.pronoun", f"{node.key.rpartition('.')[0]}.verb")]

    def contract(self, sequence: list[Token]) -> list[Token]:
        out: list[Token] = []
        last = len(sequence) - 1
        for index, item in enumerate(sequence):
            text, links = item
            if index < last:
                following = sequence[index + 1][0]
                if vowel_first(following):
                    text = "son" if text == "sa" else _ELIDED.get(text, text)
                elif text == "si" and following in ("il", "ils"):
                    text = "s'"
            both = _CONTRACTED.get((out[-1][0], text)) if out else None
            if both:
                out[-1] = merge(out[-1], item, both)
            else:
                out.append((text, links))
        return out


GRAMMAR = French()
