"""Runs of translation and of any other sequence transduction."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attnlab.data.tokenizers import EOS, TokenizerPair
from attnlab.data.translation import TranslationData
from attnlab.evaluation.plots import attention_heatmap
from attnlab.experiment.domains.base import Domain, Tested
from attnlab.tasks.scoring import score_modes
from attnlab.tasks.translation import TranslationTask
from attnlab.tasks.translation_scoring import TranslationOutcome, score

_TOKENIZERS = "tokenizer.json"


class Translation(Domain):
    """Sequences to sequences."""

    task = TranslationTask
    models = MappingProxyType(
        {"attnlab.nn.seq2seq.RNNSeq2Seq": "rnn", "attnlab.nn.transformer.Transformer": "transformer"}
    )
    data = "attnlab.data.translation"
    example = "phrasebook"

    def sizes(self, config: dict[str, Any], data: TranslationData | None) -> dict[str, Any]:
        if data is None:
            return {"source_vocabulary": 8, "target_vocabulary": 8}
        assert data.tokenizers is not None
        return {
            "source_vocabulary": len(data.tokenizers.source),
            "target_vocabulary": len(data.tokenizers.target),
        }

    def save(self, data: TranslationData, directory: Path) -> None:
        assert data.tokenizers is not None
        data.tokenizers.save(directory / _TOKENIZERS)

    def restore(self, data: TranslationData, directory: Path) -> None:
        data.use_tokenizers(TokenizerPair.load(directory / _TOKENIZERS))

    def examples(self, data: TranslationData, split: str) -> Iterator[bytes]:
        rows = data.splits[split]
        for source, target in zip(rows.source, rows.target, strict=True):
            yield source.tobytes() + bytes([EOS]) + target.tobytes()

    def describe(self, data: TranslationData) -> str:
        numbers = data.summary()
        left_out = f" ({numbers['train/dropped']:,} longer ones left out)" if numbers["train/dropped"] else ""
        return (
            f"{numbers['train/pairs']:,} training pairs{left_out}; vocabularies of {numbers['vocabulary/source']:,} "
            f"and {numbers['vocabulary/target']:,}"
        )

    def outcomes(
        self, task: TranslationTask, data: TranslationData, config: dict[str, Any], split: str, modes: tuple[str, ...],
        seed: int,
    ) -> dict[str, TranslationOutcome]:  # fmt: skip
        search = dict(config["search"])
        draws = search.pop("draws")
        return score_modes(partial(score, task, data, split, **search), task.model, modes, seed=seed, draws=draws)

    def test(self, task: TranslationTask, data: TranslationData, config: dict[str, Any], directory: Path) -> Tested:
        outcomes = self.outcomes(task, data, config, "test", task.model.modes, config["seed"])
        hypotheses = next(iter(outcomes.values())).hypotheses
        assert data.tokenizers is not None
        folder = directory / "attention"
        shutil.rmtree(folder, ignore_errors=True)
        rows = data.splits["test"]
        pictures, maps = {}, []
        count = min(config["maps"], len(hypotheses))
        for number in range(count):
            row = number * len(hypotheses) // count  # spread evenly, and so the same for every variant
            hypothesis = hypotheses[row]
            source = data.tokenizers.source.tokens([*rows.source[row].tolist(), EOS])
            weights = hypothesis.weights[:, : len(source)].float().cpu()
            target = data.tokenizers.target.tokens([*hypothesis.tokens, EOS])[: len(weights)]
            path = folder / f"test-{row:05d}.png"
            attention_heatmap(weights, source, target, path)
            pictures[path.stem] = path
            rounded = [[round(weight, 4) for weight in line] for line in weights.tolist()]
            maps.append({"kind": "translation", "row": row, "source": source, "target": target, "weights": rounded})
        return Tested(dict(outcomes), pictures, maps)
