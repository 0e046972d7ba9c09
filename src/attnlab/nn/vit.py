"""The Vision Transformer, with any attention in any of its layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from attnlab.attention import Candidates, Estimator
from attnlab.nn.blocks import EncoderBlock
from attnlab.nn.classifier import ImageClassifier
from attnlab.nn.dropout import Dropout
from attnlab.nn.multihead import SCALED, AttentionFactory, MultiHeadAttention, credit, share_estimator
from attnlab.nn.patches import Stem, grid
from attnlab.nn.positions import Positions
from attnlab.nn.sizes import at_least_one


class Pooling(nn.Module, ABC):
    """From tokens to what a classifier reads.

    Attributes:
        leading: number of tokens that it puts before those of the patches.
        first: how many leading tokens it reads behind the last block; None for all.
        attention: its attention; None where it has none of its own.

    Args:
        attention: factory of the attention.
        size: width D.
    """

    leading: int = 0
    first: int | None = None

    def __init__(self, attention: AttentionFactory, size: int) -> None:
        super().__init__()
        self.attention: MultiHeadAttention | None = None

    def begin(self, tokens: Tensor) -> Tensor:
        """Puts its own tokens before those of the patches [N, S, D]."""
        return tokens

    @abstractmethod
    def forward(self, tokens: Tensor, follow: bool, maps: bool) -> tuple[Tensor, Candidates | None]:
        """Reads features [K, N, D] off the last tokens [N, S, D]; `follow` and `maps` as in `MultiHeadAttention`."""


class ClassToken(Pooling):
    """A learned token that attends with the others and is read at the end (Dosovitskiy et al. 2021, equation 4)."""

    leading = 1
    first = 1

    def __init__(self, attention: AttentionFactory, size: int) -> None:
        super().__init__(attention, size)
        self.token = nn.Parameter(torch.randn(size) * 0.02)

    def begin(self, tokens: Tensor) -> Tensor:
        return torch.cat([self.token.expand(tokens.shape[0], 1, -1), tokens], 1)

    def forward(self, tokens: Tensor, follow: bool, maps: bool) -> tuple[Tensor, Candidates | None]:
        return tokens[:, 0].unsqueeze(0), None


class AttentionPooling(Pooling):
    """A learned query attends to the last tokens (Lee et al. 2019, section 3.2).

    Args:
        attention: factory of the attention.
        size: width D.
        heads: number of heads; one for attention that is marginalised exactly.
    """

    def __init__(self, attention: AttentionFactory, size: int, heads: int = 1) -> None:
        super().__init__(attention, size)
        self.query = nn.Parameter(torch.randn(size))
        self.attention = MultiHeadAttention(attention, size, heads)
        estimator = self.attention.attention.estimator
        if heads > 1 and estimator.enumerates:
            raise ValueError(
                f"{type(estimator).__name__} would have to sum over the positions of {heads} heads jointly; set "
                "model.pooling.heads=1."
            )

    def forward(self, tokens: Tensor, follow: bool, maps: bool) -> tuple[Tensor, Candidates | None]:
        assert self.attention is not None
        query = self.query.expand(tokens.shape[0], 1, -1)
        features, candidates = self.attention(query, self.attention.prepare(tokens), follow=follow, maps=maps)
        return features[..., 0, :], candidates


class ViT(ImageClassifier):
    """A Vision Transformer (Dosovitskiy et al. 2021) of pre-norm blocks.

    The variant `attention` stands in the layers that `variant_layers` names; the others have soft scaled dot-product
    attention. Where a variant draws in the blocks, the rest of the model runs on `estimator.paths` copies of the batch,
    each on its own path; where it is in the pooling alone, that reads all its candidates.

    Args:
        attention: factory of the variant.
        stem: (channels=C, patch=, size=) -> Stem.
        positions: (rows=, columns=, size=) -> Positions.
        pooling: (attention=, size=) -> Pooling.
        channels: of the images, C.
        height: of the images in pixels.
        width: of the images in pixels.
        classes: number of classes.
        patch: side of a patch in pixels.
        size: width D of the tokens.
        depth: number of blocks.
        heads: number of heads in a block.
        hidden: width of the feed-forward layers.
        dropout: probability on embeddings and branches, and in the feed-forward layers.
        depth_dropout: probability to leave out a branch of the last block; it rises linearly from the first.
        variant_layers: `all`, `pooling`, or the numbers of blocks, from 0.

    Raises:
        ValueError: if the layers are not there, or the variant cannot stand in them.
    """

    def __init__(
        self, *, attention: AttentionFactory, stem: Callable[..., Stem], positions: Callable[..., Positions],
        pooling: Callable[..., Pooling], channels: int, height: int, width: int, classes: int, patch: int = 4,
        size: int = 64, depth: int = 2, heads: int = 4, hidden: int = 128, dropout: float = 0.1,
        depth_dropout: float = 0.0, variant_layers: str | Sequence[int] = "all",
    ) -> None:  # fmt: skip
        at_least_one(size=size, depth=depth)
        variants = _numbers(variant_layers, depth)
        rates = [depth_dropout * number / max(1, depth - 1) for number in range(depth)]
        blocks = [
            EncoderBlock(attention if number in variants else SCALED, size, heads, hidden, dropout, rate)
            for number, rate in enumerate(rates)
        ]
        pooled = variant_layers in ("all", "pooling")
        reading = pooling(attention=attention if pooled else SCALED, size=size)
        layers = [blocks[number].attention for number in sorted(variants)]
        if pooled and reading.attention is not None:
            layers.append(reading.attention)
        if not layers:
            raise ValueError(
                f"{type(reading).__name__} has no attention for model.variant_layers={variant_layers}; choose "
                "model/pooling=attention."
            )
        share_estimator(layers)
        estimator = layers[0].attention.estimator
        _check(estimator, bool(variants))
        super().__init__(estimator, grid(height, width, patch), size, classes)
        self.variants = variants
        self.pooled = pooled
        self.leading = reading.leading
        self.variant_names = tuple(f"block {number + 1}" for number in sorted(variants))
        if pooled and reading.attention is not None:
            self.variant_names += ("pooling",)
        self.stem = stem(channels=channels, patch=patch, size=size)
        self.positions = positions(rows=self.grid[0], columns=self.grid[1], size=size)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(blocks)
        self.pooling = reading

    @property
    def modes(self) -> tuple[str, ...]:
        pooling = self.pooling.attention
        exact = not self.variants and pooling is not None and pooling.heads == 1
        return tuple(mode for mode in self.estimator.modes if mode != "exact" or exact)

    def forward(self, images: Tensor) -> tuple[Tensor, Candidates]:
        copies = self.estimator.paths if self.training and self.variants else 1
        scored, blocks, pooled = self._run(images, copies, maps=False)
        records = [blocks[number] for number in sorted(self.variants)]
        if self.pooled and pooled is not None:
            records.append(pooled)
        return scored, credit(records, copies)

    def _run(self, images: Tensor, copies: int, maps: bool) -> tuple[Tensor, list[Candidates], Candidates | None]:
        """Log-probabilities, and the candidates of the blocks and the pooling."""
        tokens = self.dropout(self.pooling.begin(self.stem(images) + self.positions()))
        first = min(self.variants, default=None)
        records = []
        for number, block in enumerate(self.blocks):
            if number == first:
                tokens = tokens.repeat(copies, 1, 1)
            last = number == len(self.blocks) - 1
            tokens, candidates = block(tokens, maps=maps, first=self.pooling.first if last else None)
            records.append(candidates)
        features, pooled = self.pooling(self.norm(tokens), bool(self.variants), maps)
        return self.readout(features).view(-1, len(images), self.classifier.out_features), records, pooled

    @torch.no_grad()
    def maps(self, images: Tensor) -> dict[str, Tensor]:
        _, blocks, pooled = self._run(images, 1, maps=True)
        found = {f"block {number}": record.weights for number, record in enumerate(blocks, 1)}
        return found if pooled is None else found | {"pooling": pooled.weights}


def _numbers(layers: str | Sequence[int], depth: int) -> frozenset[int]:
    """The numbers of the blocks that hold the variant."""
    if layers == "all":
        return frozenset(range(depth))
    if layers == "pooling":
        return frozenset()
    if isinstance(layers, str) or not layers or not all(number in range(depth) for number in layers):
        raise ValueError(
            f"model.variant_layers={layers} names no layers of this model; it is all, pooling, or a list of blocks "
            f"from 0 to {depth - 1}, such as [0]."
        )
    return frozenset(layers)


def _check(estimator: Estimator, blocks: bool) -> None:
    """Refuses what cannot be trained in a classifier."""
    name = type(estimator).__name__
    if estimator.guided:
        raise ValueError(
            f"{name} learns from an inference network that sees the target, which an image classifier has not; choose "
            "attention/estimator=reinforce, or attention/estimator=exact with model/pooling=attention "
            "model.variant_layers=pooling."
        )
    if blocks and estimator.unfeedable:
        raise ValueError(
            f"{name} cannot stand in a block, whose tokens are read by the next one: it {estimator.unfeedable}; choose "
            "model/pooling=attention model.variant_layers=pooling, or attention/estimator=reinforce."
        )
