"""Draws the meaning of a sentence: frames of clauses, freely combined, filled from the pools."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from attnlab.data.phrasebook import english, lexicon
from attnlab.data.phrasebook.cldr import GRAMMARS, load
from attnlab.data.phrasebook.meaning import (
    Clause,
    Gap,
    Lexeme,
    Name,
    Nominal,
    Pair,
    Predicate,
    Pronoun,
    Sentence,
    Subject,
)
from attnlab.data.phrasebook.tokens import Adjunct, parse_side


def pick(rng: random.Random, pool: Sequence[Any]) -> Any:
    """``rng.choice`` for small pools, at a third of its time."""
    return pool[int(rng.random() * len(pool))]


_NOT_PREDICATED = {"perfect", "broken", "dirty", "clean", "dry", "wet", "cold", "warm"}
_COLUMN = {"de": 1, "fr": 2, "es": 3}


def _rows(table: str, language: str) -> list[tuple[str, str]]:
    """The English and the target column of a lexicon."""
    columns = (line.split(" | ") for line in table.strip().splitlines())
    return [(row[0], row[_COLUMN[language]]) for row in columns]


def _plain(text: str) -> tuple[str, ...]:
    return (text,)


class Sampler:
    """Draws sentences for one target language. All randomness is that of the generator given to
    ``sentence``."""

    def __init__(self, language: str) -> None:
        self.pools = load(language)
        grammar = GRAMMARS[language]

        def lexemes(table: str, source: Callable, target: Callable) -> list[Lexeme]:
            return [(source(left), target(right)) for left, right in _rows(table, language)]

        def verbs(table: str) -> list[Lexeme]:
            return lexemes(table, english.verb_fields, grammar.verb_fields)

        def phrases(table: str) -> list:
            return [(parse_side(left), parse_side(right)) for left, right in _rows(table, language)]

        self.things = lexemes(lexicon.THINGS, english.noun_fields, grammar.noun_fields)
        self.events = lexemes(lexicon.EVENTS, english.noun_fields, grammar.noun_fields)
        self.professions = lexemes(lexicon.PEOPLE, _plain, grammar.people_fields)
        self.adjectives = lexemes(lexicon.ADJECTIVES, _plain, grammar.adjective_fields)
        self.people_adjectives = lexemes(lexicon.PEOPLE_ADJECTIVES, _plain, grammar.adjective_fields)
        # What Spanish says with "ser" (a passing state would take "estar") and what has degrees.
        self.lasting = [adjective for adjective in self.adjectives if adjective[0][0] not in _NOT_PREDICATED]
        self.degrees = lexemes(lexicon.DEGREES, _plain, _plain)
        self.negated_degrees = [degree for degree in self.degrees if degree[0][0] != "quite"]
        self.take_thing = verbs(lexicon.TAKE_THING)
        self.take_person = verbs(lexicon.TAKE_PERSON)
        self.give = verbs(lexicon.GIVE)
        self.travel = {verb[0][0]: verb for verb in verbs(lexicon.TRAVEL)}
        self.activities = verbs(lexicon.ACTIVITIES)
        self.learn = verbs(lexicon.LEARN)
        self.happen = verbs(lexicon.HAPPEN)
        self.report = verbs(lexicon.REPORT)
        self.speak, self.work, self.weigh, self.cost, self.be = (
            verbs(table)[0] for table in (lexicon.SPEAK, lexicon.WORK, lexicon.WEIGH, lexicon.COST, lexicon.BE)
        )
        self.run = next(verb for verb in self.activities if verb[0][0] == "run")
        self.spots = phrases(lexicon.SPOTS)
        self.vehicles = phrases(lexicon.VEHICLES)
        self.durations = [row for text in lexicon.DURATIONS.values() for row in phrases(text)]
        self.times = {
            "past": phrases(lexicon.PAST_TIMES),
            "future": phrases(lexicon.FUTURE_TIMES),
            "present": phrases(lexicon.PRESENT_TIMES),
        }
        self.clock = phrases(lexicon.CLOCK)[0]
        self.joins = self.conjunctions(lexicon.JOIN, language)
        self.opens = self.conjunctions(lexicon.OPEN, language)
        self.spoken, self.learned = (
            phrases(table)
            for table in (
                "{a} | {a} | {a} | {a}\n{a} and/1 {b} | {a} und/1 {b} | {a} et/1 {b} | {a} y/1 {b}",
                "{a} | {a} | le/>a {a} | {a}\n{a} and/1 {b} | {a} und/1 {b} | le/>a {a} et/1 le/>b {b} | {a} y/1 {b}",
            )
        )
        preposition = phrases("for/price | für/price | pour/price | por/price")[0]
        self.prices = [(preposition[0] + row[0], preposition[1] + row[1]) for row in self.pools.currency]

        self.women, self.men, self.owners, self.surnames = (
            text.split() for text in (lexicon.WOMEN, lexicon.MEN, lexicon.OWNERS, lexicon.SURNAMES)
        )
        frames = (
            (self.transaction, 24),
            (self.about_person, 14),
            (self.gift, 12),
            (self.journey, 14),
            (self.activity, 12),
            (self.languages, 8),
            (self.profession, 9),
            (self.event, 6),
            (self.quality, 12),
            (self.measure, 8),
        )
        self.frames = [frame for frame, weight in frames for _ in range(weight)]

    @staticmethod
    def conjunctions(table: str, language: str) -> list:
        """``(row, German word order)`` of each conjunction, with its comma, if any."""

        def side(text: str) -> str:
            return " ".join(",/>join" if word == "," else f"{word}/join" for word in text.split())

        out = []
        for line in table.strip().splitlines():
            columns = line.split(" | ")
            german, order = columns[1].rsplit(" ", 1)
            target = german if language == "de" else columns[_COLUMN[language]]
            out.append(((parse_side(side(columns[0])), parse_side(side(target))), order))
        return out

    def sentence(self, rng: random.Random) -> Sentence:
        """A sentence of one clause or two."""
        tense = self.tense(rng)
        chance = rng.random()
        if chance < 0.5:
            return Sentence(self.clause(rng, "a", tense, front=True, last=True))
        other = tense if rng.random() < 0.6 else self.tense(rng)
        opens = chance < 0.65
        first = self.clause(rng, "a", tense, front=not opens)
        second = self.clause(rng, "b", other, last=True)
        return Sentence(first, pick(rng, self.opens if opens else self.joins), second, opens)

    def clause(self, rng: random.Random, key: str, tense: str, front: bool = False, last: bool = False) -> Clause:
        """A clause of a random frame; ``front`` lets its time open it, ``last`` lets it report another
        clause."""
        if last and rng.random() < 0.15:
            that = self.clause(rng, f"{key}.t", tense)
            subject = self.subject(rng, key, scarce=True)
            return Clause(key, subject, pick(rng, self.report), "present", {}, that=that)
        clause = pick(rng, self.frames)(rng, key, tense)
        parts = clause.parts
        if "duration" not in parts and rng.random() < 0.45 and clause.verb is not self.be:
            parts["time"] = self.time(rng, f"{key}.time", "future" if clause.modal else tense)
            if {"day", "weekday"} & parts["time"].fillers.keys() and rng.random() < 0.4:
                parts["clock"] = Adjunct(f"{key}.clock", self.clock, pick(rng, self.pools.clock))
            if front and rng.random() < 0.4:
                return clause._replace(front=True)
        return clause

    @staticmethod
    def tense(rng: random.Random) -> str:
        return pick(rng, ("past", "past", "present", "present", "future"))

    # Adjuncts

    def time(self, rng: random.Random, key: str, tense: str) -> Adjunct:
        row = pick(rng, self.times[tense])
        return self.filled(rng, key, row)

    def filled(self, rng: random.Random, key: str, row: tuple) -> Adjunct:
        """An adjunct whose slots are filled from the pools of their names."""
        pools = self.pools
        fillers = {}
        for slot in (slot for _, slot, _, _ in row[0] if slot):
            fillers[slot] = pick(rng, pools.small_number if slot == "n" else getattr(pools, slot))
        return Adjunct(key, row, fillers)

    def place(self, rng: random.Random, key: str, preposition: str, other: Adjunct | None = None) -> Adjunct:
        """Somewhere; never the place of ``other``."""
        while True:
            row = pick(rng, self.pools.place)[preposition]
            if other is None or row[0][1:] != other.row[0][1:]:
                return Adjunct(key, row, {})

    def somewhere(self, rng: random.Random, key: str) -> Adjunct:
        return Adjunct(key, pick(rng, self.spots), {}) if rng.random() < 0.4 else self.place(rng, key, "in")

    def duration(self, rng: random.Random, key: str) -> Adjunct:
        return self.filled(rng, key, pick(rng, self.durations))

    # Noun phrases

    def name(self, rng: random.Random, key: str, surname: float = 0.5) -> Name:
        gender = pick(rng, "fm")
        first = pick(rng, self.women if gender == "f" else self.men)
        return Name(key, first, pick(rng, self.surnames) if rng.random() < surname else "", gender)

    def professional(self, rng: random.Random, key: str) -> Nominal:
        adjective = pick(rng, self.people_adjectives) if rng.random() < 0.5 else None
        return Nominal(key, pick(rng, self.professions), "the", adjective, people=True)

    def subject(self, rng: random.Random, key: str, scarce: bool = False) -> Subject:
        """The subject of the clause ``key``. A sentence does not begin with a pronoun, and the verb forms of
        "we" in simple tenses, ``scarce``, are left out: each would be too rare to be learnt."""
        pronouns = () if key == "a" else ("he", "she", "they") if scarce else ("he", "she", "we", "they")
        return self.person(rng, f"{key}.s", pronouns)

    def person(self, rng: random.Random, key: str, pronouns: tuple[str, ...]) -> Subject:
        chance = rng.random()
        if chance < 0.45:
            return self.name(rng, key)
        if chance < 0.6:
            left, right = self.name(rng, f"{key}.l", 0.2), self.name(rng, f"{key}.r", 0.2)
            while right.first == left.first:
                right = self.name(rng, f"{key}.r", 0.2)
            return Pair(key, left, right)
        if chance < 0.8 or not pronouns:
            return self.professional(rng, key)
        return Pronoun(key, pick(rng, pronouns))

    def thing(self, rng: random.Random, key: str, definite: bool = False, counted: bool = True) -> Nominal:
        """A thing: counted, indefinite, definite, or somebody's; ``definite`` leaves out the first two."""
        noun = pick(rng, self.things)
        adjective = pick(rng, self.adjectives) if rng.random() < 0.6 else None
        chance = rng.random()
        if counted and not definite and chance < 0.4:
            return Nominal(key, noun, "", adjective, number=pick(rng, self.pools.number))
        if not definite and chance < 0.6:
            return Nominal(key, noun, "a", adjective)
        kind = rng.random()
        if kind < 0.3:
            return Nominal(key, noun, pick(rng, ("his", "her", "our", "their")), adjective)
        if kind < 0.45:
            owner = Nominal(f"{key}.owner", pick(rng, self.professions), "the", people=True)
            return Nominal(key, noun, "", adjective, owner=owner)
        if kind < 0.6:
            owner = Name(f"{key}.owner", pick(rng, self.owners), "", "m")
            return Nominal(key, noun, "", adjective, owner=owner)
        return Nominal(key, noun, "the", adjective)

    # Frames: each returns a clause without its time.

    def mood(self, rng: random.Random, tense: str) -> tuple[str, str, bool]:
        """Tense, modal verb and negation; a modal verb stands in the present and "must" is not negated."""
        negated = rng.random() < 0.2
        if tense == "present" and rng.random() < 0.4:
            return "present", pick(rng, ("can", "want") if negated else ("must", "can", "want")), negated
        return tense, "", negated

    def transaction(self, rng: random.Random, key: str, tense: str) -> Clause:
        verb = pick(rng, self.take_thing)
        tense, modal, negated = self.mood(rng, tense)
        parts = {"object": self.thing(rng, f"{key}.object", definite=negated)}
        if verb[0][0] in ("buy", "sell", "order"):
            row, amount = pick(rng, self.prices), pick(rng, self.pools.amount)
            parts["price"] = Adjunct(f"{key}.price", row, {"amount": amount})
        if rng.random() < 0.4 and not negated:
            parts["place"] = self.somewhere(rng, f"{key}.place")
        return Clause(key, self.subject(rng, key, tense != "past" and not modal), verb, tense, parts, modal, negated)

    def about_person(self, rng: random.Random, key: str, tense: str) -> Clause:
        tense, modal, negated = self.mood(rng, tense)
        subject = self.subject(rng, key, tense != "past" and not modal)
        # A pronoun for both would be a reflexive in half of the languages.
        pronouns = () if isinstance(subject, Pronoun) else ("he", "she", "we", "they")
        parts = {"object": self.person(rng, f"{key}.object", pronouns)}
        if rng.random() < 0.4 and not negated:
            parts["place"] = self.somewhere(rng, f"{key}.place")
        return Clause(key, subject, pick(rng, self.take_person), tense, parts, modal, negated)

    def gift(self, rng: random.Random, key: str, tense: str) -> Clause:
        tense, modal, negated = self.mood(rng, tense)
        receiver = self.professional if rng.random() < 0.5 else self.name
        parts = {
            "receiver": receiver(rng, f"{key}.receiver"),
            "object": self.thing(rng, f"{key}.object", definite=negated),
        }
        return Clause(
            key,
            self.subject(rng, key, tense != "past" and not modal),
            pick(rng, self.give),
            tense,
            parts,
            modal,
            negated,
        )

    def journey(self, rng: random.Random, key: str, tense: str) -> Clause:
        tense, modal, negated = self.mood(rng, tense)
        name = pick(rng, tuple(self.travel))
        parts = {}
        if name == "come" or (name != "go" and rng.random() < 0.5):
            parts["origin"] = self.place(rng, f"{key}.origin", "from")
        if name != "come":
            parts["goal"] = self.place(rng, f"{key}.goal", "to", parts.get("origin"))
        if rng.random() < 0.5:
            parts["vehicle"] = Adjunct(f"{key}.vehicle", pick(rng, self.vehicles), {})
        return Clause(
            key,
            self.subject(rng, key, tense != "past" and not modal),
            self.travel[name],
            tense,
            parts,
            modal,
            negated,
        )

    def activity(self, rng: random.Random, key: str, tense: str) -> Clause:
        tense, modal, _ = self.mood(rng, tense)
        parts = {"place": self.somewhere(rng, f"{key}.place")}
        if rng.random() < 0.6:
            parts["duration"] = self.duration(rng, f"{key}.duration")
        return Clause(
            key,
            self.subject(rng, key, tense != "past" and not modal),
            pick(rng, self.activities),
            tense,
            parts,
            modal,
        )

    def languages(self, rng: random.Random, key: str, tense: str) -> Clause:
        tense, modal, _ = self.mood(rng, tense)
        left, right = rng.sample(self.pools.language, 2)
        verb, rows = (self.speak, self.spoken) if rng.random() < 0.5 else (pick(rng, self.learn), self.learned)
        parts = {"language": Adjunct(f"{key}.language", pick(rng, rows), {"a": left, "b": right})}
        if rng.random() < 0.5:
            parts["place"] = self.somewhere(rng, f"{key}.place")
        return Clause(key, self.subject(rng, key, tense != "past" and not modal), verb, tense, parts, modal)

    def profession(self, rng: random.Random, key: str, tense: str) -> Clause:
        subject = (
            self.name(rng, f"{key}.s")
            if key == "a" or rng.random() < 0.8
            else Pronoun(f"{key}.s", pick(rng, ("he", "she")))
        )
        role = rng.random() < 0.5
        predicate = Predicate(f"{key}.predicate", profession=pick(rng, self.professions), role=role)
        parts = {"predicate": predicate, "place": self.somewhere(rng, f"{key}.place")}
        return Clause(key, subject, self.work if role else self.be, tense, parts)

    def event(self, rng: random.Random, key: str, tense: str) -> Clause:
        subject = Nominal(f"{key}.s", pick(rng, self.events), "the")
        parts = {"place": self.somewhere(rng, f"{key}.place")} if rng.random() < 0.7 else {}
        return Clause(key, subject, pick(rng, self.happen), tense, parts, negated=rng.random() < 0.2)

    def quality(self, rng: random.Random, key: str, tense: str) -> Clause:
        negated = rng.random() < 0.25
        if rng.random() < 0.35:
            subject = Pair(f"{key}.s", self.name(rng, f"{key}.s.l", 0), self.name(rng, f"{key}.s.r", 0))
            subject = subject if rng.random() < 0.3 else self.name(rng, f"{key}.s")
            adjectives = self.people_adjectives
        else:
            subject, adjectives = self.thing(rng, f"{key}.s", definite=True), self.lasting
            if rng.random() < 0.6:
                subject = self.modified(rng, subject)
        degrees = self.negated_degrees if negated else self.degrees
        degree = pick(rng, degrees) if rng.random() < 0.6 else None
        predicate = Predicate(f"{key}.predicate", pick(rng, adjectives), degree)
        return Clause(key, subject, self.be, tense, {"predicate": predicate}, negated=negated)

    def modified(self, rng: random.Random, node: Nominal) -> Nominal:
        """The thing with a relative clause, of which it is the object."""
        key = f"{node.key}.r"
        parts = {
            "object": Gap(f"{key}.object", node.noun, False),
            "place": self.somewhere(rng, f"{key}.place"),
        }
        relative = Clause(key, self.subject(rng, key), pick(rng, self.take_thing), "past", parts)
        return node._replace(det="the", owner=None, relative=relative)

    def measure(self, rng: random.Random, key: str, tense: str) -> Clause:
        kind = pick(rng, ("weigh", "cost", "run"))
        if kind == "cost":
            row, amount = pick(rng, self.pools.currency), pick(rng, self.pools.amount)
        else:
            row, amount = pick(rng, self.pools.weight if kind == "weigh" else self.pools.distance)
        parts = {"measure": Adjunct(f"{key}.measure", row, {"amount": amount})}
        if kind == "run":
            parts["place"] = self.somewhere(rng, f"{key}.place")
            return Clause(key, self.subject(rng, key, tense != "past"), self.run, tense, parts)
        verb = self.weigh if kind == "weigh" else self.cost
        return Clause(key, self.thing(rng, f"{key}.s", counted=False), verb, tense, parts)
