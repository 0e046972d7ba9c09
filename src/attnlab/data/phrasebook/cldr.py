"""The pools that come from Babel's CLDR data and from num2words, as parallel fillers and rows."""

from dataclasses import dataclass
from types import ModuleType

from attnlab.data.phrasebook import french, german, spanish
from attnlab.data.phrasebook.lexicon import CITIES
from attnlab.data.phrasebook.meaning import Lexeme
from attnlab.data.phrasebook.tokens import Spec, parse_side

GRAMMARS: dict[str, ModuleType] = {"de": german, "fr": french, "es": spanish}
Row = tuple[Spec, Spec]

# Territories and languages whose names are plain in all four languages, with known prepositions.
TERRITORIES = (
    "AD AF AL AM AO AR AT AU AZ BD BE BF BG BH BI BJ BO BR BT BW BY BZ CA CH CL CM CN CO CU CY CZ DE DJ "
    "DK DZ EC EE EG ER ES ET FI FR GA GE GH GL GM GN GR GT GY HN HR HU ID IE IL IN IQ IR IS IT JM JO JP "
    "KE KG KH KM KP KR KW KZ LA LB LI LR LS LT LU LV LY MA MC ME MG ML MN MR MT MU MV MW MX MY MZ NA NE "
    "NG NI NL NO NP NZ OM PA PE PH PK PL PT PY QA RO RS RU RW SA SC SD SE SG SI SK SN SO SR SS SY TD TG "
    "TH TJ TM TN TR TW TZ UA UG US UY UZ VE VN YE ZA ZM ZW"
)
LANGUAGES = (
    "ab af am an ar as az ba be bg bn bo br bs ca ce co cs cy da de el en eo es et eu fa fi fil fo fr ga "
    "gl gu ha haw he hi hr hu hy id is it ja jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms "
    "mt my ne nl no oc pa pl ps pt qu ro ru sa sc sd si sk sl so sq sr su sv sw ta te tg th ti tk tl tr "
    "tt ug uk ur uz vi wo yi yo yue zh zu"
)
CURRENCIES = (
    "EUR GBP JPY CHF SEK NOK DKK PLN CZK HUF RUB TRY INR KRW BRL MXN ARS CLP COP PEN CAD AUD NZD ZAR EGP "
    "MAD TND THB VND IDR PHP SAR UAH ISK JOD IQD IRR PKR NPR NGN ETB DZD LYD LBP SYP OMR GEL AMD MNT KHR "
    "UYU DOP CUP RSD ALL BYN SDG AOA LRD"
)
ZONES = (
    "Africa/Algiers Africa/Mogadishu Africa/Khartoum Africa/Tripoli Asia/Ashgabat Asia/Baghdad "
    "Asia/Bishkek Asia/Calcutta Asia/Damascus Asia/Dushanbe Asia/Karachi Asia/Katmandu Asia/Krasnoyarsk "
    "Asia/Muscat Asia/Nicosia Asia/Novosibirsk Asia/Pyongyang Asia/Riyadh Asia/Taipei Asia/Tashkent "
    "Asia/Tbilisi Asia/Tehran Asia/Tokyo Asia/Vladivostok Asia/Yakutsk Asia/Yerevan America/Bogota "
    "America/Asuncion Europe/Athens Europe/Belgrade Europe/Brussels Europe/Bucharest Europe/Copenhagen "
    "Europe/Dublin Europe/Kiev Europe/Lisbon Europe/London Europe/Moscow Europe/Prague Europe/Rome "
    "Europe/Vienna Europe/Warsaw Europe/Zurich Europe/Volgograd Europe/Astrakhan"
)
_THE = {"BS", "KM", "MV", "NL", "PH", "SC", "US"}
# The name in use where CLDR's would have to be inflected.
_NAMES = {("de", "US"): "USA"}
_MEASURES = {
    "gram": (150, 250, 350, 450, 650, 750, 850),
    "kilogram": (1.5, 2.5, 3.5, 4.5, 7.5, 12.5, 18.5, 22.5, 35.5),
}
_DISTANCES = (1.5, 2.5, 3.5, 4.5, 6.5, 7.5, 8.5, 12.5, 15.5, 18.5, 22.5, 35.5)


@dataclass(frozen=True)
class Pools:
    """Fillers are pairs (English, target); rows are pairs of specs; numbers have a form for each gender."""

    weekday: list[tuple[str, str]]
    month: list[tuple[str, str]]
    day: list[tuple[str, str]]
    past_year: list[tuple[str, str]]
    future_year: list[tuple[str, str]]
    clock: list[dict[str, tuple[str, str]]]
    language: list[tuple[str, str]]
    amount: list[tuple[str, str]]
    currency: list[Row]
    weight: list[tuple[Row, tuple[str, str]]]
    distance: list[tuple[Row, tuple[str, str]]]
    place: list[dict[str, Row]]
    number: list[Lexeme]
    small_number: list[tuple[str, str]]


def load(language: str) -> Pools:
    """The pools of English and one target language, one of ``GRAMMARS``."""
    from babel import Locale
    from babel.numbers import format_decimal

    locales = Locale("en"), Locale(language)

    def both(table: str, key: str) -> tuple[str, str]:
        return tuple(getattr(locale, table)[key] for locale in locales)

    def decimal(value: float) -> tuple[str, str]:
        return tuple(_plain_space(format_decimal(value, locale=locale)) for locale in locales)

    same = [(str(value), str(value)) for value in range(2050)]
    calendar = [
        [tuple(getattr(locale, table)["format"]["wide"][index] for locale in locales) for index in indices]
        for table, indices in (("days", range(7)), ("months", range(1, 13)))
    ]
    return Pools(
        weekday=calendar[0],
        month=calendar[1],
        day=same[2:29],  # without the first, which is an ordinal in French
        past_year=same[1962:2018],
        future_year=same[2027:2046],
        clock=[_clock(hour, minute, language) for hour in range(7, 23) for minute in (0, 15, 30, 45)],
        language=[both("languages", code) for code in LANGUAGES.split()],
        amount=[decimal(value) for value in [*range(150, 1000, 50), *range(1250, 9900, 250)]],
        currency=_currencies(language),
        weight=_measures("mass", _MEASURES, language, decimal),
        distance=_measures("length", {"kilometer": _DISTANCES}, language, decimal),
        place=_places(locales, language),
        number=[_number(value, language) for value in [*range(2, 100), *range(200, 1000, 100)]],
        small_number=[(_number(value, language)[0][0], _number(value, language)[1][0]) for value in range(2, 20)],
    )


def _plain_space(text: str) -> str:
    return text.replace("\u202f", " ").replace("\xa0", " ")


def _clock(hour: int, minute: int, language: str) -> dict[str, tuple[str, str]]:
    from datetime import time

    from babel.dates import format_time

    english_hour, half = _plain_space(format_time(time(hour, minute), "short", locale="en")).split(" ")
    clock = format_time(time(hour, minute), "HH:mm" if language == "de" else "H:mm", locale=language)
    return {"hour": (english_hour, ""), "half": (half, ""), "clock": ("", clock)}


def _number(value: int, language: str) -> Lexeme:
    from num2words import num2words

    word = num2words(value, lang=language)
    masculine = feminine = word
    if language == "fr" and word.endswith("un"):
        feminine = f"{word}e"
    if language == "es":
        feminine = f"{word[:-1]}a" if word.endswith("uno") else word.replace("ientos", "ientas")
        if word.endswith("uno"):
            masculine = "veintiún" if value == 21 else word[:-1]
    return (num2words(value, lang="en"),), (masculine, feminine)


def _currencies(language: str) -> list[Row]:
    """Rows with the slot ``{amount}``; only currencies of one word, or of modifier and noun, on the target
    side."""
    from babel.numbers import get_currency_name

    rows = []
    for code in CURRENCIES.split():
        source = get_currency_name(code, 12, locale="en").replace("Lira", "lira").split(" ")
        target = get_currency_name(code, 12, locale=language).split(" ")
        if len(target) == 1:
            sides = [f"{word}/2" for word in source], [f"{target[0]}/2"]
        elif len(target) == 2:
            sides = [*(f"{word}/1" for word in source[:-1]), f"{source[-1]}/2"], []
            if language == "de":
                name = target[0].lower() if target[0].endswith("ische") else target[0]
                sides[1].extend((f"{name}/1", f"{target[1]}/2"))
            else:
                sides[1].extend((f"{target[0]}/2", f"{target[1]}/1"))
        else:
            continue
        rows.append(tuple(parse_side(f"{{amount}} {' '.join(side)}") for side in sides))
    return rows


def _measures(dimension: str, values: dict[str, tuple], language: str, decimal) -> list:
    from babel.units import format_unit

    out = []
    for unit, numbers in values.items():
        names = [format_unit(7, f"{dimension}-{unit}", locale=locale).split()[-1] for locale in ("en", language)]
        row = tuple(parse_side(f"{{amount}} {name}/1") for name in names)
        out.extend((row, decimal(number)) for number in numbers)
    return out


def _places(locales: tuple, language: str) -> list[dict[str, Row]]:
    """For each territory and city the rows of "in", "to" and "from" it."""
    index = 1 + list(GRAMMARS).index(language)
    names = []
    for code in TERRITORIES.split():
        english_name, name = (locale.territories[code] for locale in locales)
        name = _NAMES.get((language, code), name)
        names.append((f"the/the>2 {english_name.replace(' ', '_')}" if code in _THE else english_name, name, code))
    territories = {name for name, _, _ in names}
    for zone in ZONES.split():
        plain = zone.partition("/")[2].replace("_", " ")
        cities = [locale.time_zones.get(zone, {}).get("city", plain) for locale in locales]
        names.append((*cities, ""))
    names.extend((row[0], row[index], "") for row in (line.split(" | ") for line in CITIES.strip().splitlines()))
    return [
        {
            preposition: (
                parse_side(f"{preposition}/1 {source if '/' in source else source.replace(' ', '_')}/2"),
                parse_side(GRAMMARS[language].place(preposition, target, code)),
            )
            for preposition in ("in", "to", "from")
        }
        for source, target, code in names
        # A city with the name of a territory would make the translation of its preposition a guess.
        if code or source not in territories
    ]
