"""Text to token ids and back: words, byte-pair pieces or characters, around Hugging Face `tokenizers`.

All kinds are reversible: a token that follows a space carries the mark ▁ (words, pieces) or the space is a
token (characters), so `decode(encode(text))` gives the text back, each run of white space made one space,
wherever the vocabulary knows every token. Raw text is only ever text: "<eos>" in a sentence becomes ordinary
tokens, never the special one.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from attnlab.errors import UserError
from attnlab.files import write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer, normalizers, pre_tokenizers

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")
UNKNOWN_MARK = "⁇"  # how an unknown token reads in decoded text: one sign that no reference contains
TAG_SEPARATOR = ";"

Kind = Literal["word", "bpe", "character"]

_SPACE = "▁"
# A word with the mark of the space before it, or one other sign with it. ▁ is itself a sign (So): exclude it.
# Likewise _, which \w would let join two words.
_WORD = rf"{_SPACE}?(?:[^\W_]+|[^{_SPACE}])|{_SPACE}"
_FORMAT = 1


class TextTokenizer:
    """A trained tokenizer with fixed special tokens: <pad>=0, <unk>=1, <bos>=2, <eos>=3, then the symbols."""

    def __init__(self, backend: "Tokenizer", *, kind: Kind, lowercase: bool, symbols: Sequence[str]) -> None:
        backend.encode_special_tokens = True  # "<eos>" in a text is text (the backend does not save this)
        self._backend = backend
        self.kind = kind
        self.lowercase = lowercase
        self.symbols = tuple(symbols)
        self.size: int = backend.get_vocab_size()
        self._vocabulary = [backend.id_to_token(i) for i in range(self.size)]
        self._symbol_ids = {symbol: len(SPECIALS) + i for i, symbol in enumerate(self.symbols)}
        self._pieces = self._readable_pieces()

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        kind: Kind,
        vocabulary: int | None,
        min_frequency: int = 1,
        lowercase: bool = False,
        symbols: Iterable[str] = (),
    ) -> "TextTokenizer":
        """Learn a vocabulary from `texts`; the same texts give the same ids in every process.

        `vocabulary` bounds the size, special tokens and symbols included (None: no bound; bpe needs one, with
        room for every character of the texts). Tokens (for bpe: pairs) seen fewer than `min_frequency` times
        are left out. `symbols` are atomic tokens beside the text, such as morphological tags: `symbol_ids`.

        Raises UserError for an unknown kind, a size that is too small, or texts without a single token.
        """
        from tokenizers import Tokenizer, models, trainers

        symbols = tuple(dict.fromkeys(symbols))
        reserved = [*SPECIALS, *symbols]
        _check_options(kind, vocabulary, min_frequency, len(reserved))
        if clash := set(symbols) & set(SPECIALS):
            raise UserError(f"The symbols {sorted(clash)} are special tokens already: rename them in the data.")

        model = models.BPE(unk_token="<unk>") if kind == "bpe" else models.WordLevel(unk_token="<unk>")
        backend = Tokenizer(model)
        backend.normalizer = _normalizer(lowercase)
        backend.pre_tokenizer = _pre_tokenizer(kind)
        make_trainer = trainers.BpeTrainer if kind == "bpe" else trainers.WordLevelTrainer
        backend.train_from_iterator(
            texts,
            make_trainer(
                vocab_size=2**31 if vocabulary is None else vocabulary,
                min_frequency=min_frequency,
                show_progress=False,
                special_tokens=reserved,
            ),
        )
        size = backend.get_vocab_size()
        if size == len(reserved):
            raise UserError(
                f"The {kind} tokenizer found no token to learn: the training texts are empty, or no token "
                f"occurs min_frequency={min_frequency} times. Give more text, or a lower min_frequency."
            )
        if vocabulary is not None and size > vocabulary:
            raise UserError(
                f"tokenizer.vocabulary={vocabulary} is too small for kind={kind}: special tokens, symbols "
                f"and the single characters of the training text alone are {size}. Give a larger number."
            )
        return cls(backend, kind=kind, lowercase=lowercase, symbols=symbols)

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, without special tokens."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids before the first EOS, without specials and symbols; an unknown token is ⁇."""
        pieces = []
        for token in _plain(ids):
            if token == EOS:
                break
            pieces.append(self._pieces[token])
        return " ".join("".join(pieces).split())

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """One label per id, for plots: specials by name, a space as ·, a piece inside a word as ##ing."""
        labels = []
        for token in _plain(ids):
            text = self._vocabulary[token]
            if token < len(SPECIALS) + len(self.symbols):
                labels.append(text)
            elif self.kind == "character":
                labels.append("·" if text == " " else text)
            elif text.startswith(_SPACE):
                labels.append(text.removeprefix(_SPACE) or _SPACE)
            else:
                labels.append(f"##{text}" if self.kind == "bpe" and re.match(r"\w", text) else text)
        return labels

    def words(self, text: str) -> list[int]:
        """For each token of `encode([text])[0]`, the index of the word it belongs to, or -1 for none.

        Words are those of `attnlab.data.words.word_spans`, on the raw text; a token belongs to the word that
        has most of its characters, so this holds for every kind of token.
        """
        from attnlab.data.words import word_spans

        word_of = [-1] * len(text)
        for word, (start, end) in enumerate(word_spans(text)):
            word_of[start:end] = [word] * (end - start)
        owners = []
        for start, end in self._backend.encode(text, add_special_tokens=False).offsets:
            inside = [word for word in word_of[start:end] if word >= 0]
            owners.append(max(dict.fromkeys(inside), key=inside.count, default=-1))
        return owners

    def symbol_ids(self, symbols: Iterable[str]) -> list[int]:
        """The ids of symbols (UNK for one that training did not name)."""
        return [self._symbol_ids.get(symbol, UNK) for symbol in symbols]

    def normalize(self, text: str) -> str:
        """The text as the tokenizer sees it: white space tidied, lower-cased if it was so trained."""
        return self._backend.normalizer.normalize_str(text)

    def to_str(self) -> str:
        """Everything `from_str` needs, as JSON."""
        return json.dumps(self._state(), ensure_ascii=False)

    @classmethod
    def from_str(cls, text: str) -> "TextTokenizer":
        """The inverse of `to_str`; KeyError, TypeError or ValueError for anything else."""
        return cls._from_state(json.loads(text))

    def __reduce__(self) -> tuple[Any, ...]:
        return TextTokenizer.from_str, (self.to_str(),)

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"TextTokenizer(kind={self.kind!r}, size={self.size}, lowercase={self.lowercase})"

    def _state(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "lowercase": self.lowercase,
            "symbols": list(self.symbols),
            "tokenizer": json.loads(self._backend.to_str()),
        }

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> "TextTokenizer":
        from tokenizers import Tokenizer

        try:
            backend = Tokenizer.from_str(json.dumps(state["tokenizer"]))
        except Exception as error:  # the backend raises bare Exception for what it cannot parse
            raise ValueError(f"not a tokenizer: {error}") from error
        return cls(backend, kind=state["kind"], lowercase=state["lowercase"], symbols=state["symbols"])

    def _readable_pieces(self) -> list[str]:
        """What each id adds to a decoded text."""
        spaced = self.kind != "character"
        pieces = [piece.replace(_SPACE, " ") if spaced else piece for piece in self._vocabulary]
        hidden = len(SPECIALS) + len(self.symbols)
        pieces[:hidden] = [""] * hidden
        # An unknown word has lost its mark, and most follow a space; unknown characters stay where they are.
        pieces[UNK] = f" {UNKNOWN_MARK}" if self.kind == "word" else UNKNOWN_MARK
        return pieces


class TokenizerPair:
    """The tokenizers of a translation's two sides; a joint pair is one object twice."""

    def __init__(self, source: TextTokenizer, target: TextTokenizer) -> None:
        self.source = source
        self.target = target

    @property
    def joint(self) -> bool:
        return self.source is self.target

    def encode_sources(self, texts: list[str], tags: Sequence[str] | None = None) -> list[list[int]]:
        """The ids of each source text, followed by its tags' symbols.

        `tags` has one string for each text, such as "N;DAT;SG". Special tokens are left to collation.
        """
        encoded = self.source.encode(texts)
        if tags is None:
            return encoded
        return [ids + self.source.symbol_ids(tag_symbols(tag)) for ids, tag in zip(encoded, tags, strict=True)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write both as one JSON file, whole or not at all."""
        target = None if self.joint else self.target._state()
        write_json(path, {"format": _FORMAT, "source": self.source._state(), "target": target})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TokenizerPair":
        """Read what `save` wrote; UserError if the file is missing or is something else."""
        advice = "Point at the tokenizer.json of a run's directory."
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"There is no tokenizer file {path}. {advice}") from None
        except (OSError, ValueError) as error:
            raise UserError(f"The tokenizer file {path} could not be read: {error}. {advice}") from error
        try:
            if state["format"] != _FORMAT:
                raise ValueError(f"its format is {state['format']!r}, not {_FORMAT}")
            source = TextTokenizer._from_state(state["source"])
            target = source if state["target"] is None else TextTokenizer._from_state(state["target"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not a pair of tokenizers ({error}). {advice}") from error
        return cls(source, target)

    def __repr__(self) -> str:
        return f"TokenizerPair({self.source!r}, {'joint' if self.joint else repr(self.target)})"


def tag_symbols(tags: str) -> list[str]:
    """The symbols of one row's tags: "N;DAT;SG" gives <N>, <DAT>, <SG>."""
    return [f"<{tag.strip()}>" for tag in tags.split(TAG_SEPARATOR) if tag.strip()]


def _plain(ids: Iterable[int]) -> Iterable[int]:
    """Ids as Python numbers; a tensor or array is fetched at once."""
    return ids.tolist() if hasattr(ids, "tolist") else ids


def _normalizer(lowercase: bool) -> "normalizers.Normalizer":
    """White space made single spaces (▁, their mark, is one), none at the ends; lower case if asked."""
    from tokenizers import Regex, normalizers

    steps = [normalizers.Replace(Regex(rf"[\s{_SPACE}]+"), " "), normalizers.Strip()]
    if lowercase:
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence(steps)


def _pre_tokenizer(kind: Kind) -> "pre_tokenizers.PreTokenizer":
    """Cut a normalised text into words with their space marks, or into characters."""
    from tokenizers import Regex, pre_tokenizers

    if kind == "character":
        return pre_tokenizers.Split(Regex("."), "isolated")
    marked = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always", split=False)
    return pre_tokenizers.Sequence([marked, pre_tokenizers.Split(Regex(_WORD), "isolated")])


def _check_options(kind: str, vocabulary: int | None, min_frequency: int, reserved: int) -> None:
    if kind not in get_args(Kind):
        raise UserError(f"tokenizer.kind={kind!r} is unknown: choose one of {', '.join(get_args(Kind))}.")
    if vocabulary is None and kind == "bpe":
        raise UserError("tokenizer.kind=bpe needs a size: give tokenizer.vocabulary, for instance 8000.")
    if vocabulary is not None and vocabulary <= reserved:
        raise UserError(
            f"tokenizer.vocabulary={vocabulary} leaves no room for text beside {reserved} special tokens and "
            "symbols: give a larger number."
        )
    if min_frequency < 1:
        raise UserError(f"tokenizer.min_frequency={min_frequency} must be 1 or more.")
