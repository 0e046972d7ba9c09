import json
import pickle
import subprocess
import sys

import pytest
import torch

from attnlab.data.tokenizers import BOS, EOS, PAD, UNK, TextTokenizer, TokenizerPair, tag_symbols
from attnlab.errors import UserError

TEXTS = [
    "A man in an orange hat, staring at something.",
    'He said: "It\'s saftig-grün!" (3.5 km)',
    "Two (2) dogs run — and a cat's asleep …",
    "Ein Mädchen läuft über Gras_und Stein.",
]
KINDS = ["word", "bpe", "character"]
TAGS = ["<N>", "<GEN>"]


def train(kind, texts=TEXTS, **options):
    return TextTokenizer.train(texts, kind=kind, vocabulary=150 if kind == "bpe" else None, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_decode_is_the_inverse_of_encode(kind):
    tokenizer = train(kind)
    for text, ids in zip(TEXTS, tokenizer.encode(TEXTS), strict=True):
        assert UNK not in ids
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
def test_white_space_is_made_single_spaces(kind):
    tokenizer = train(kind)
    assert tokenizer.encode(["  A\tman \n in "]) == tokenizer.encode(["A man in"])
    assert tokenizer.encode(["", " \n"]) == [[], []]
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_fixed_ids_and_no_text_becomes_one(kind):
    tokenizer = train(kind, [*TEXTS, "< eos > <N> pad unk bos"], symbols=TAGS)
    for again in (
        tokenizer,
        TextTokenizer.from_str(tokenizer.to_str()),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        text = "<eos> <N> <pad><unk>"
        (ids,) = again.encode([text])
        assert not set(ids) & {PAD, BOS, EOS, *again.symbol_ids(TAGS)}
        assert again.tokens([PAD, UNK, BOS, EOS]) == ["<pad>", "<unk>", "<bos>", "<eos>"]
        if kind == "character":
            assert again.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
def test_decode_stops_at_eos_and_leaves_specials_and_symbols_out(kind):
    tokenizer = train(kind, symbols=TAGS)
    (ids,) = tokenizer.encode(["A man"])
    symbols = tokenizer.symbol_ids(TAGS)
    assert tokenizer.tokens(symbols) == TAGS
    assert tokenizer.decode([BOS, *symbols, *ids, PAD, EOS, *ids]) == "A man"
    assert tokenizer.decode(torch.tensor(ids)) == "A man"
    assert tokenizer.symbol_ids(["<ACC>"]) == [UNK]


def test_unknown_tokens_are_visible_in_decoded_text():
    word = train("word")
    (ids,) = word.encode(["A zebra in hat"])
    assert ids.count(UNK) == 1
    assert word.decode(ids) == "A ⁇ in hat"
    character = train("character")
    assert character.decode(character.encode(["A maж"])[0]) == "A ma⁇"


def test_word_tokens():
    tokenizer = train("word", ["Hello, world! It's (very) a_b."])
    (ids,) = tokenizer.encode(["Hello, world! It's (very) a_b."])
    assert tokenizer.tokens(ids) == [
        "Hello",
        ",",
        "world",
        "!",
        "It",
        "'",
        "s",
        "(",
        "very",
        ")",
        "a",
        "_",
        "b",
        ".",
    ]
    # With and without a space before it, a sign is another token: that is what makes decoding exact.
    assert tokenizer.encode(["Hello ,"]) != tokenizer.encode(["Hello,"])


def test_piece_and_character_labels():
    bpe = TextTokenizer.train(["low low low lower", "er er"], kind="bpe", vocabulary=14)
    (ids,) = bpe.encode(["lower low"])
    assert bpe.tokens(ids) == ["low", "##er", "low"]
    character = train("character")
    assert character.tokens(character.encode(["a man"])[0]) == ["a", "·", "m", "a", "n"]


@pytest.mark.parametrize("kind", KINDS)
def test_words_gives_each_token_its_word(kind):
    from attnlab.data.words import split_words

    tokenizer = train(kind, lowercase=True)
    for text in [*TEXTS, "  Mädchen's\tHUT,  ж!", "İstanbul a"]:
        (ids,) = tokenizer.encode([text])
        owners = tokenizer.words(text)
        assert len(owners) == len(ids)
        words = split_words(text)
        covered = [""] * len(words)
        for owner, label in zip(owners, tokenizer.tokens(ids), strict=True):
            if label == "·":
                assert owner == -1
            elif owner >= 0:
                covered[owner] += label.removeprefix("##")
        assert all(covered)
        if UNK not in ids:
            assert covered == [word.lower() for word in words]


def test_lowercase():
    tokenizer = train("word", lowercase=True)
    assert tokenizer.encode(["A MAN"]) == tokenizer.encode(["a man"])
    assert tokenizer.decode(tokenizer.encode(["A MÄDCHEN"])[0]) == "a mädchen"
    assert tokenizer.normalize("A  MAN") == "a man"
    assert TextTokenizer.from_str(tokenizer.to_str()).lowercase


def test_vocabulary_and_min_frequency_bound_the_size():
    texts = ["a a a b b c"]
    assert train("word", texts).size == 4 + 3
    assert train("word", texts, min_frequency=2).size == 4 + 2
    tokenizer = TextTokenizer.train(texts, kind="word", vocabulary=6, symbols=["<N>"])
    assert tokenizer.size == len(tokenizer) == 6
    assert tokenizer.tokens(range(6)) == ["<pad>", "<unk>", "<bos>", "<eos>", "<N>", "a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "letters", "vocabulary": None}, "letters.*word, bpe, character"),
        ({"kind": "bpe", "vocabulary": None}, "tokenizer.vocabulary"),
        ({"kind": "bpe", "vocabulary": 12}, "too small"),
        ({"kind": "word", "vocabulary": 4}, "no room"),
        ({"kind": "word", "vocabulary": None, "min_frequency": 0}, "min_frequency"),
        ({"kind": "word", "vocabulary": None, "min_frequency": 99}, "no token to learn"),
        ({"kind": "word", "vocabulary": None, "symbols": ["<eos>"]}, "<eos>"),
    ],
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(UserError, match=message):
        TextTokenizer.train(TEXTS, **options)


def test_empty_texts_are_refused():
    with pytest.raises(UserError, match="no token to learn"):
        train("word", ["", " "])


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_training_is_the_same_in_every_process(kind):
    # Many ties in frequency, so that an order taken from a hash table would show.
    texts = [" ".join(f"w{i * 7919 % 503:03}x{j}" for j in range(5)) for i in range(300)]
    options = {"kind": kind, "vocabulary": 400}
    code = (
        "import json, sys; from attnlab.data.tokenizers import TextTokenizer; "
        "texts, options = json.load(sys.stdin); print(TextTokenizer.train(texts, **options).to_str())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([texts, options]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == TextTokenizer.train(texts, **options).to_str()


def test_pair_survives_its_file(tmp_path):
    pair = TokenizerPair(train("character", symbols=TAGS), train("word", lowercase=True))
    path = tmp_path / "run" / "tokenizer.json"
    pair.save(path)
    again = TokenizerPair.load(path)
    assert not again.joint
    assert (again.source.to_str(), again.target.to_str()) == (pair.source.to_str(), pair.target.to_str())
    assert again.encode_sources(TEXTS, ["N;GEN"] * 4) == pair.encode_sources(TEXTS, ["N;GEN"] * 4)
    assert [file.name for file in path.parent.iterdir()] == ["tokenizer.json"]


def test_a_joint_pair_is_written_once(tmp_path):
    both = train("bpe")
    TokenizerPair(both, both).save(tmp_path / "joint.json")
    TokenizerPair(both, train("bpe")).save(tmp_path / "two.json")
    again = TokenizerPair.load(tmp_path / "joint.json")
    assert again.joint
    assert again.target.encode(TEXTS) == both.encode(TEXTS)
    assert (tmp_path / "joint.json").stat().st_size < 0.6 * (tmp_path / "two.json").stat().st_size


def test_encode_sources_appends_the_tags():
    pair = TokenizerPair(train("character", symbols=TAGS), train("character"))
    assert tag_symbols(" N; GEN ;") == TAGS
    plain = pair.encode_sources(["man", "a"])
    assert plain == pair.source.encode(["man", "a"])
    tagged = pair.encode_sources(["man", "a"], ["N;GEN", ""])
    assert tagged == [plain[0] + pair.source.symbol_ids(TAGS), plain[1]]
    with pytest.raises(ValueError, match="shorter"):
        pair.encode_sources(["man", "a"], ["N"])


def test_a_missing_or_broken_file_is_explained(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match="no tokenizer file"):
        TokenizerPair.load(path)
    TokenizerPair(train("word"), train("word")).save(path)
    whole = path.read_text()
    for broken in (
        whole[:-20],
        "[]",
        "{}",
        '{"format": 2}',
        whole.replace('"WordLevel"', '"Nothing"'),
        "\x00",
    ):
        path.write_text(broken)
        with pytest.raises(UserError, match="tokenizer"):
            TokenizerPair.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="could not be read"):
        TokenizerPair.load(path)
    with pytest.raises(UserError, match="could not be read"):
        TokenizerPair.load(tmp_path)
