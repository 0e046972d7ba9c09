"""Translation (and any other sequence transduction) as a Lightning module."""

from torch import Tensor

from attnlab.data.batching import Batch, collate
from attnlab.data.tokenizers import BOS, EOS, PAD
from attnlab.data.translation import TranslationData
from attnlab.decoding import Hypothesis, beam, greedy, length_limits
from attnlab.evaluation.text import corpus_scores
from attnlab.kernels.products import Packing
from attnlab.tasks.base import Likelihoods, Task, frequency_entropy
from attnlab.tasks.distributed import merged


class TranslationTask(Task):
    """Trains a sequence-to-sequence model and decodes with it."""

    name = "translation"
    unit = "tokens"
    measured = ("val/loss", "val/bleu", "val/chrf", "val/accuracy")

    def count(self, batch: Batch) -> int:
        return int((batch.target_out != PAD).sum())

    def scored(self, batch: Batch, smoothing: float = 0.0) -> Likelihoods:
        scored, candidates = self.model(batch.source, batch.target_in, batch.target_out, smoothing)
        return Likelihoods(scored, candidates, batch.target_out != PAD)

    def sample(self, data: TranslationData, count: int) -> Batch:
        split = data.splits["validation"]
        rows = range(0, len(split), max(1, len(split) // count))[:count]
        return collate(split.source, split.target, rows)

    def blind(self, batch: Batch) -> float:
        return frequency_entropy(batch.target_out[batch.target_out != PAD])

    def on_validation_epoch_start(self) -> None:
        self._decoded: dict[int, list[int]] = {}  # tokens by row
        self._packing = Packing()  # of the weights of this epoch

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        likelihood, count = self.log_likelihood(batch)
        self.log_mean({"val/loss": -likelihood / count}, count)
        with self._packing:
            hypotheses = self.search(batch.source)
        tokens = (hypothesis.tokens for hypothesis in hypotheses)
        self._decoded |= dict(zip(batch.index.tolist(), tokens, strict=True))

    def on_validation_epoch_end(self) -> None:
        del self._packing
        data = self.trainer.datamodule
        references = data.references("validation")
        decoded = merged(self._decoded)
        rows = sorted(decoded)  # all of the split, unless trainer.limit_val_batches says otherwise
        texts = [data.tokenizers.target.decode(decoded[row]) for row in rows]
        scores = corpus_scores(texts, [references[row] for row in rows])
        self.log_dict({"val/bleu": scores.bleu, "val/chrf": scores.chrf, "val/accuracy": scores.exact_match})

    def search(self, source: Tensor, width: int = 1, alpha: float = 1.0) -> list[Hypothesis]:
        """Decodes sources [B, S], greedily (width 1) or by beam search with length penalty alpha."""
        limits = length_limits(source, PAD)
        with Packing():
            if width == 1:
                return greedy(self.model, source, limits, BOS, EOS)
            return beam(self.model, source, limits, BOS, EOS, width, alpha)
