"""Draws the meaning of a sentence: frames of clauses, freely combined, filled from the pools."""

import random
from collections.abc import Callable

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

_COLUMN = {"de": 1, "fr": 2, "es": 3}


def _rows(table: str, language: str) -> list[tuple[str, str]]:
    """The English and the target column of a lexicon."""
    columns = (line.split(" | ") for line in table.strip().splitlines())
    return [(row[0], row[_COLUMN[language]]) for row in columns]


def _plain(text: str) -> tuple[str, ...]:
    return (text,)


class Sampler:
    """Draws sentences for one target language. All randomness is that of the generator given to ``sentence``."""

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
        self.degrees = lexemes(lexicon.DEGREES, _plain, _plain)
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
        article = "le/>{0} " if language == "fr" else ""
        self.spoken = self.language_rows("")
        self.learned = self.language_rows(article)
        self.price = parse_side("for/price"), parse_side({"de": "für", "fr": "pour", "es": "por"}[language] + "/price")
        self.women, self.men, self.surnames = (
            text.split() for text in (lexicon.WOMEN, lexicon.MEN, lexicon.SURNAMES)
        )
        self.frames = (
            (self.transaction, 24),
            (self.about_person, 12),
            (self.gift, 12),
            (self.journey, 14),
            (self.activity, 8),
            (self.languages, 8),
            (self.profession, 9),
            (self.event, 6),
            (self.quality, 12),
            (self.measure, 5),
        )

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

    @staticmethod
    def language_rows(article: str) -> list:
        """The rows of one language and of two, with the article French needs after some verbs."""
        return None

    def sentence(self, rng: random.Random) -> Sentence:
        raise NotImplementedError
