"""Sentence pairs for training and scoring: corpus -> tokenizers -> ragged ids -> batches."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from attnlab.data.batching import ALL, Batch, Part, Resumable, SharedBatches, TokenBatchSampler, collate
from attnlab.data.corpora import SPLITS, Corpus, HubCorpus, Phrasebook
from attnlab.data.prepare import TOKENIZER_OPTIONS, EncodedSplit, encode, encode_corpus
from attnlab.data.tokenizers import UNK, TokenizerPair
from attnlab.errors import UserError

logger = logging.getLogger(__name__)


class TranslationData(pl.LightningDataModule):
    """A corpus, tokenized and served in batches of like lengths.

    `corpus`           see `attnlab.data.corpora`
    `tokenizer`        `kind` (word, bpe, character), `vocabulary`, `min_frequency`, `lowercase`, and `joint`
                       (one vocabulary for both sides); what is not named keeps its default
    `max_tokens`       cells that either side of a batch may have, padding included
    `eval_max_tokens`  the same, for validation and test (by default as many)
    `max_sentences`    pairs that a batch may have, in every split
    `max_length`       training pairs with more tokens on either side are left out; other splits stay whole

    After `prepare()`: `tokenizers`, `splits` (train, validation, test), `dropped` (training pairs left out).
    Of several processes each is given its part of every training batch and of the validation split.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        tokenizer: Mapping[str, Any] | None = None,
        max_tokens: int = 4096,
        eval_max_tokens: int | None = None,
        max_sentences: int | None = None,
        max_length: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.corpus = corpus
        self.options = TOKENIZER_OPTIONS | dict(tokenizer or {})
        if unknown := sorted(set(self.options) - set(TOKENIZER_OPTIONS)):
            raise UserError(f"The tokenizer has no option {', '.join(unknown)}: it has {', '.join(TOKENIZER_OPTIONS)}.")
        self.max_tokens = _positive("max_tokens", max_tokens)
        self.eval_max_tokens = _positive("eval_max_tokens", max_tokens if eval_max_tokens is None else eval_max_tokens)
        self.max_sentences = _positive("max_sentences", max_sentences)
        self.max_length = _positive("max_length", max_length)
        self.seed = seed
        self.num_workers = num_workers
        self.tokenizers: TokenizerPair | None = None
        self.splits: dict[str, EncodedSplit] = {}
        self.dropped = 0

    def use_tokenizers(self, pair: TokenizerPair) -> None:
        """Encode with this pair, from a run that is resumed or evaluated, instead of training one."""
        if self.splits:
            raise RuntimeError("the splits are encoded already: give the tokenizers before prepare()")
        self.tokenizers = pair

    def prepare(self) -> None:
        """Load the corpus, learn the tokenizers from its training split, and encode all splits; once."""
        if self.splits:
            return
        self.tokenizers, splits = encode_corpus(self.corpus, self.options, self.tokenizers)
        if self.max_length is not None:
            kept = splits["train"].no_longer_than(self.max_length)
            self.dropped = len(splits["train"]) - len(kept)
            if not len(kept):
                raise UserError(f"Every training pair exceeds data.max_length={self.max_length}: give a larger number.")
            if self.dropped:
                logger.info("%d training pairs exceed %d tokens: left out", self.dropped, self.max_length)
                splits["train"] = kept
        self.splits = splits

    def prepare_split(self, split: str) -> None:
        """Load and encode one split alone, for scoring; needs `use_tokenizers`. A training split stays whole."""
        if self.tokenizers is None:
            raise RuntimeError("one split can only be encoded with the tokenizers of a run: use_tokenizers()")
        if split not in SPLITS:
            raise UserError(f"There is no split {split!r}: choose one of {', '.join(SPLITS)}.")
        self.splits = {split: encode(self.corpus.load_split(split), self.tokenizers)}

    def setup(self, stage: str | None = None) -> None:
        """Lightning's hook: the same as `prepare()`."""
        self.prepare()

    def train_dataloader(self) -> DataLoader[Batch]:
        return self.loader("train", shuffle=True, part=Part.of(self.trainer))

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.loader("validation", part=Part.of(self.trainer))

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.loader("test")

    def loader(self, split: str, *, shuffle: bool = False, part: Part = ALL) -> DataLoader[Batch]:
        """Batches of one split; with `shuffle`, drawn anew for each epoch (Lightning calls `set_epoch`).

        Of several processes each has a part of every batch with `shuffle`, else of the split.
        """
        data = self._split(split)
        own = ALL if shuffle else part
        sampler = TokenBatchSampler(
            own.take(data.source.lengths) + 1,  # EOS
            own.take(data.target.lengths) + 1,  # BOS or EOS
            max_tokens=self.max_tokens if shuffle else self.eval_max_tokens,
            max_sentences=self.max_sentences,
            shuffle=shuffle,
            seed=self.seed,
        )
        return DataLoader(
            own.rows(len(data)),  # row numbers: collate gathers whole batches itself
            batch_sampler=SharedBatches(sampler, part) if shuffle and part.world > 1 else Resumable(sampler),
            collate_fn=partial(collate, data.source, data.target),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator(),  # of its own, so that an epoch draws the same whenever its loader is opened
        )

    def references(self, split: str) -> list[str]:
        """What decoded text is scored against: the raw target texts, lower-cased if the tokenizer does so."""
        texts = self._split(split).target_texts
        target = self.tokenizers.target
        return [target.normalize(text) for text in texts] if target.lowercase else texts

    def summary(self) -> dict[str, float | int]:
        """Numbers for a run's log: sizes, mean lengths in tokens, share of unknown tokens in validation."""
        train, validation = self._split("train"), self._split("validation")
        numbers: dict[str, float | int] = {f"{name}/pairs": len(split) for name, split in self.splits.items()}
        numbers["train/dropped"] = self.dropped
        for side in ("source", "target"):
            numbers[f"vocabulary/{side}"] = getattr(self.tokenizers, side).size
            numbers[f"train/{side}_length"] = float(getattr(train, side).lengths.mean())
            unknown = getattr(validation, side).values == UNK
            numbers[f"validation/{side}_unknown"] = float(unknown.mean()) if len(unknown) else 0.0
        return numbers

    def _split(self, name: str) -> EncodedSplit:
        if not self.splits:
            raise RuntimeError("the data are not prepared: call prepare() first")
        if name not in self.splits:
            raise UserError(f"There is no split {name!r}: choose one of {', '.join(self.splits)}.")
        return self.splits[name]


def phrasebook(
    *, language: str = "de", train: int = 20_000, validation: int = 500, test: int = 1_000,
    generation_seed: int = 0, **options: Any,
) -> TranslationData:  # fmt: skip
    """The embedded corpus (`attnlab.data.phrasebook`) as data; the other options are `TranslationData`'s."""
    return TranslationData(Phrasebook(language, train, validation, test, generation_seed), **options)


def hub(
    *, path: str, source: str, target: str, tags: str | None = None, splits: Mapping[str, str] | None = None,
    limit: int | None = None, name: str | None = None, **options: Any,
) -> TranslationData:  # fmt: skip
    """A corpus in Hugging Face layout (`HubCorpus`) as data; the other options are `TranslationData`'s."""
    return TranslationData(HubCorpus(path, source, target, tags, splits, limit, name), **options)


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise UserError(f"data.{name}={value} must be 1 or more.")
    return value
