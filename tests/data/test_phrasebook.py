# ruff: noqa: E501 -- a golden sentence is one line.
import hashlib
import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from attnlab.data.phrasebook import LANGUAGES, _pairs, generate
from attnlab.data.phrasebook.cldr import GRAMMARS
from attnlab.data.phrasebook.english import English
from attnlab.data.phrasebook.meaning import Clause, Gap, Name, Nominal, Predicate, Pronoun, Sentence
from attnlab.data.phrasebook.sampler import Sampler
from attnlab.data.phrasebook.tokens import Adjunct, align, join
from attnlab.data.words import split_words
from attnlab.errors import UserError

SIZES = {"train": 2500, "validation": 50, "test": 100}


@pytest.fixture(scope="module", params=LANGUAGES)
def corpus(request):
    return generate(language=request.param, **SIZES)


@pytest.fixture(scope="module")
def rows(corpus):
    """(source words, target words, sure, possible) of every pair."""
    return [
        (split_words(row["source"]), split_words(row["target"]), row["sure"], row["possible"])
        for split in corpus.values()
        for row in split
    ]


def test_sizes_and_columns(corpus):
    assert {name: len(split) for name, split in corpus.items()} == SIZES
    assert all(split.column_names == ["source", "target", "sure", "possible"] for split in corpus.values())


def test_no_sentence_occurs_twice_on_either_side(corpus):
    for column in ("source", "target"):
        texts = [text for split in corpus.values() for text in split[column]]
        assert len(set(texts)) == len(texts)


def test_texts_are_well_formed(corpus):
    for text in [*corpus["train"]["source"], *corpus["train"]["target"]]:
        assert text[0].isupper()
        assert text[-1] == "."
        assert text[-2] not in " .,"
        assert "  " not in text
        assert " ," not in text
        assert not set(text) & set("{}/_>\u202f\xa0\xad")


def test_links_are_in_range_disjoint_and_end_at_the_full_stop(rows):
    for source, target, sure, possible in rows:
        links = [*map(tuple, sure), *map(tuple, possible)]
        assert len(set(links)) == len(links)
        assert all(0 <= i < len(source) and 0 <= j < len(target) for i, j in links)
        assert [len(source) - 1, len(target) - 1] in sure


def test_nearly_every_word_has_a_link(rows):
    for side in (0, 1):
        words = sum(len(row[side]) for row in rows)
        linked = sum(len({link[side] for link in [*row[2], *row[3]]}) for row in rows)
        assert linked > 0.97 * words


def test_sentences_carry_much_and_their_alignments_cross(rows):
    lengths = [len(source) for source, *_ in rows]
    assert 14 < sum(lengths) / len(lengths) < 22
    crossing = sum(any(a < c and b > d for a, b in sure for c, d in sure) for _, _, sure, _ in rows)
    assert crossing > 0.6 * len(rows)


def test_fertility_is_often_not_one(rows):
    for side in (0, 1):
        shared = sum(max(Counter(link[side] for link in sure).values()) > 1 for _, _, sure, _ in rows)
        assert shared > 0.05 * len(rows)
    assert sum(len(source) != len(target) for source, target, *_ in rows) > 0.5 * len(rows)


def test_vocabulary_is_large_and_learnable(corpus):
    for column in ("source", "target"):
        train, test = (
            [word for text in corpus[name][column] for word in split_words(text)] for name in ("train", "test")
        )
        known = set(train)
        assert 1500 < len(known) < 6000
        assert sum(word not in known for word in test) < 0.01 * len(test)


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_english_sentence_has_one_translation(language):
    sampler, english, other = Sampler(language), English(), GRAMMARS[language].GRAMMAR
    rng = random.Random(1)
    # Few choices, so that sentences repeat and an ambiguous one shows.
    for name, pool in [*vars(sampler).items(), *vars(sampler.pools).items(), *sampler.times.items()]:
        if isinstance(pool, list) and name != "frames":
            del pool[{"place": 3, "language": 2, "women": 2, "men": 2}.get(name, 1) :]
    translations: dict[str, set[str]] = {}
    for _ in range(2000):
        sentence = Sentence(sampler.clause(rng, "b", sampler.tense(rng), last=True))
        source, target = (join(grammar.sentence(sentence))[0] for grammar in (english, other))
        translations.setdefault(source, set()).add(target)
    assert len(translations) < 1900
    assert all(len(targets) == 1 for targets in translations.values())


def test_test_and_validation_do_not_depend_on_train():
    small, large = (generate(train=size, validation=20, test=30, seed=7) for size in (10, 60))
    assert small["test"][:] == large["test"][:]
    assert small["validation"][:] == large["validation"][:]
    assert small["train"][:] == large["train"][:10]
    assert generate(train=10, validation=20, test=30, seed=8)["test"]["source"] != small["test"]["source"]


def _digest(language: str) -> str:
    pairs = _pairs(language, 5)
    return hashlib.sha256(repr([next(pairs) for _ in range(200)]).encode()).hexdigest()


def test_every_process_draws_the_same_pairs():
    code = (
        "import hashlib; from attnlab.data.phrasebook import _pairs; p = _pairs('fr', 5);"
        "print(hashlib.sha256(repr([next(p) for _ in range(200)]).encode()).hexdigest())"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert output.stdout.strip() == _digest("fr"), output.stderr


def test_importing_is_cheap():
    code = "import sys, attnlab.data.phrasebook; print(*({'babel', 'datasets', 'num2words'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"language": "it"}, "de, fr, es"),
        ({"train": 0}, "train"),
        ({"test": -1}, "test"),
        ({"validation": -5}, "validation"),
        ({"train": 10**9}, "at most"),
    ],
)
def test_what_cannot_be_generated_is_an_error_of_the_user(arguments, message):
    with pytest.raises(UserError, match=message):
        generate(**arguments)


# Three meanings, put into words in every language and checked by hand.


def _meanings(language: str) -> list[Sentence]:
    sampler = Sampler(language)

    def word(pool, english):
        return next(lexeme for lexeme in pool if lexeme[0][0] == english)

    def name(key, first, gender):
        return Name(key, first, "", gender)

    def row(rows, *english):
        return next(row for row in rows if tuple(spec[0] for spec in row[0] if spec[0]) == english)

    def place(key, preposition, *english):
        return Adjunct(key, row((place[preposition] for place in sampler.pools.place), preposition, *english), {})

    twenty_one = word(sampler.pools.number, "twenty-one")
    amount = next(pair for pair in sampler.pools.amount if pair[0] == "1,250")
    chairs = Nominal("b.object", word(sampler.things, "chair"), "", word(sampler.adjectives, "red"), twenty_one)
    price = Adjunct("b.price", row(sampler.prices, "for", "Swiss", "francs"), {"amount": amount})
    refusal = Clause(
        "a", Pronoun("a.s", "we"), word(sampler.take_person, "invite"), "present", {"object": Pronoun("a.object", "she")},
        "can", True,
    )  # fmt: skip
    purchase = Clause(
        "b", name("b.s", "Anna", "f"), word(sampler.give, "sell"), "past",
        {"object": chairs, "price": price, "place": place("b.place", "in", "the", "Netherlands")},
    )  # fmt: skip
    although = next(item for item in sampler.opens if item[0][0][0][0] == "although")

    lamp = word(sampler.things, "lamp")
    bought = Clause(
        "a.s.r", name("a.s.r.s", "Eva", "f"), word(sampler.take_thing, "buy"), "past",
        {"object": Gap("a.s.r.object", lamp, False), "place": place("a.s.r.place", "in", "Rome")},
    )  # fmt: skip
    old_lamp = Nominal("a.s", lamp, "the", word(sampler.adjectives, "old"), relative=bought)
    predicate = Predicate("a.predicate", word(sampler.adjectives, "expensive"), word(sampler.degrees, "very"))
    quality = Clause("a", old_lamp, sampler.be, "present", {"predicate": predicate}, negated=True)
    doctor = Nominal("b.object", word(sampler.professions, "doctor"), "the", people=True)
    call = Clause("b", name("b.s", "Peter", "m"), word(sampler.take_person, "call"), "present", {"object": doctor})
    but = next(item for item in sampler.joins if item[0][0][-1][0] == "but")

    fillers = {slot: getattr(sampler.pools, slot)[index] for slot, index in (("month", 2), ("day", 10))}
    date = next(row for row in sampler.times["past"] if any(slot == "day" for _, slot, _, _ in row[0]))
    fillers["past_year"] = ("1998", "1998")
    student = Nominal("a.receiver", word(sampler.professions, "student"), "the", people=True)
    book = Nominal("a.object", word(sampler.things, "book"), "", owner=Nominal("a.o", doctor.noun, "the", people=True))
    gift = Clause(
        "a", name("a.s", "Anna", "f"), word(sampler.give, "give"), "past",
        {"receiver": student, "object": book, "time": Adjunct("a.time", date, fillers)}, front=True,
    )  # fmt: skip
    trip = Clause(
        "b", Pronoun("b.s", "she"), sampler.travel["return"], "future",
        {"origin": place("b.origin", "from", "Switzerland"), "goal": place("b.goal", "to", "Japan")},
    )  # fmt: skip
    because = next(item for item in sampler.joins if item[0][0][-1][0] == "because")
    return [
        Sentence(refusal, although, purchase, True),
        Sentence(quality, but, call),
        Sentence(gift, because, trip),
    ]


ENGLISH = [
    "Although we cannot invite her, Anna sold twenty-one red chairs for 1,250 Swiss francs in the Netherlands.",
    "The old lamp that Eva bought in Rome is not very expensive, but Peter calls the doctor.",
    "On March 12, 1998, Anna gave the student the doctor's book because she will return from Switzerland to Japan.",
]
GOLDEN = {
    "de": [
        "Obwohl wir sie nicht einladen können, hat Anna einundzwanzig rote Stühle für 1.250 Schweizer Franken in den "
        "Niederlanden verkauft.",
        "Die alte Lampe, die Eva in Rom gekauft hat, ist nicht sehr teuer, aber Peter ruft den Arzt an.",
        "Am 12. März 1998 hat Anna dem Studenten das Buch des Arztes gegeben, weil sie aus der Schweiz nach Japan "
        "zurückkehren wird.",
    ],
    "fr": [
        "Même si nous ne pouvons pas l'inviter, Anna a vendu vingt et une chaises rouges pour 1 250 francs suisses aux "
        "Pays-Bas.",
        "La vieille lampe qu'Eva a achetée à Rome n'est pas très chère, mais Peter appelle le médecin.",
        "Le 12 mars 1998, Anna a donné le livre du médecin à l'étudiant parce qu'elle reviendra de Suisse au Japon.",
    ],
    "es": [
        "Aunque no podemos invitarla, Anna vendió veintiuna sillas rojas por 1.250 francos suizos en los Países Bajos.",
        "La lámpara vieja que Eva compró en Roma no es muy cara, pero Peter llama al médico.",
        "El 12 de marzo de 1998, Anna dio el libro del médico al estudiante porque volverá de Suiza a Japón.",
    ],
}  # fmt: skip
# The links of the first sentence, then some of the others: words of the source, "=" or "~", words of the target.
LINKS = {
    "de": [
        "Although=Obwohl we=wir cannot=können cannot=nicht invite=einladen her=sie ,=, Anna=Anna sold=verkauft "
        "sold~hat twenty-one=einundzwanzig red=rote chairs=Stühle for=für 1,250=1.250 Swiss=Schweizer francs=Franken "
        "in=in the=den Netherlands=Niederlanden .=.",
        "that=die bought=gekauft bought~hat calls=ruft calls=an not=nicht but=aber",
        "On=Am March=März 12=12 12~. gave=gegeben gave~hat doctor's=Arztes the=dem the=des return=zurückkehren "
        "will=wird Switzerland=Schweiz Switzerland~der",
    ],
    "fr": [
        "Although=Même Although=si we=nous cannot=pouvons cannot=ne cannot=pas invite=inviter her=l' ,=, Anna=Anna "
        "sold=vendu sold~a twenty-one=vingt twenty-one=et twenty-one=une red=rouges chairs=chaises for=pour 1,250=1 "
        "1,250=250 Swiss=suisses francs=francs in=aux the=aux Netherlands=Pays-Bas .=.",
        "that=qu' bought=achetée not=n' not=pas old=vieille is=est",
        "On=Le March=mars gave=donné doctor's=médecin the=du the=l' student~à will~reviendra to=au Japan~au",
    ],
    "es": [
        "Although=Aunque we~podemos cannot=no cannot=podemos invite=invitarla her=invitarla ,=, Anna=Anna "
        "sold=vendió twenty-one=veintiuna red=rojas chairs=sillas for=por 1,250=1.250 Swiss=suizos francs=francos in=en "
        "the=los Netherlands=Países Netherlands=Bajos .=.",
        "that=que not=no the=al doctor~al old=vieja",
        "On=El March=marzo March~de 1998~de the=del the=al student~al will~volverá she~volverá",
    ],
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_golden_sentences(language):
    for index, sentence in enumerate(_meanings(language)):
        source, source_words = join(English().sentence(sentence))
        target, target_words = join(GRAMMARS[language].GRAMMAR.sentence(sentence))
        assert (source, target) == (ENGLISH[index], GOLDEN[language][index])
        left, right = split_words(source), split_words(target)
        assert (len(left), len(right)) == (len(source_words), len(target_words))
        sure, possible = align(source_words, target_words)
        found = {f"{left[i]}={right[j]}" for i, j in sure} | {f"{left[i]}~{right[j]}" for i, j in possible}
        expected = set(LINKS[language][index].split())
        assert expected <= found
        assert index or expected == found
