"""Hard attention that saves work: a ViT that reads a few patches, chosen on a coarse view."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.attention import Attention, Candidates, Memory
from attnlab.nn.blocks import EncoderBlock
from attnlab.nn.classifier import ImageClassifier
from attnlab.nn.dropout import Dropout
from attnlab.nn.multihead import SCALED, AttentionFactory, credit
from attnlab.nn.patches import grid, patches
from attnlab.nn.positions import Positions
from attnlab.nn.sizes import at_least_one


class Policy(nn.Module):
    """Where to look: attention from a glimpse's number to the patches of a coarse view.

    Glimpses are chosen one after the other without replacement, each from the weights over the patches that are left:
    the order's probability is that of Plackett and Luce. The view is `coarse` times smaller than the image and passes
    two convolutions, whose features, averaged within each patch, are the keys.

    Args:
        attention: factory of the attention that chooses.
        channels: of the image, C.
        patch: side of a patch in pixels.
        glimpses: number of patches to choose, k.
        coarse: by how much the view is smaller, a divisor of the patch.
        size: width of queries and keys.
    """

    def __init__(
        self, attention: AttentionFactory, channels: int, patch: int, glimpses: int, coarse: int, size: int
    ) -> None:
        super().__init__()
        self.coarse = coarse
        self.within = patch // coarse  # pixels of the view along a patch
        self.features = nn.Sequential(
            nn.Conv2d(channels, size // 2, 5, padding=2), nn.ReLU(), nn.Conv2d(size // 2, size, 5, padding=2), nn.ReLU()
        )
        self.queries = nn.Parameter(torch.randn(glimpses, size))
        self.attention: Attention = attention(query_size=size, key_size=size)

    def forward(self, images: Tensor, values: Tensor, copies: int) -> list[Candidates]:
        """Chooses for `copies` of images [B, C, H, W]: a record [1, K B, 1, ...] for each of the k glimpses.

        Args:
            images: normalised.
            values: what may be read of each patch, [B, N, V].
            copies: of the batch, each on its own path.
        """
        seen = F.avg_pool2d(self.features(F.avg_pool2d(images, self.coarse)), self.within)
        memory = self.attention.prepare(values, keys=seen.flatten(2).transpose(1, 2))
        memory = Memory(memory.keys.repeat(copies, 1, 1), memory.values.repeat(copies, 1, 1), None)
        left = torch.ones(memory.values.shape[:2], dtype=torch.bool, device=images.device)  # [K B, N]
        records = []
        for query in self.queries:
            query = query.expand(left.shape[0], 1, -1)
            found: Candidates = self.attention(query, memory._replace(mask=left.unsqueeze(1)), follow=True)
            records.append(found)
            assert found.positions is not None
            left = left.scatter(1, found.positions[0], False)
        return records


class GlimpseViT(ImageClassifier):
    """A Vision Transformer that reads k of N patches, in training and at inference.

    A cheap policy looks at a coarse view and chooses (after Mnih, Heess, Graves and Kavukcuoglu 2014; here all glimpses
    are chosen beforehand, which lets one encoder read them together); only the chosen patches enter the encoder. Any
    estimator that reads single positions trains the policy, with the log-likelihood of the label as its reward.

    Args:
        attention: factory of the attention by which the policy chooses.
        positions: (rows=, columns=, size=) -> Positions.
        channels: of the images, C.
        height: of the images in pixels.
        width: of the images in pixels.
        classes: number of classes.
        patch: side of a patch in pixels.
        glimpses: number of patches that are read, k.
        coarse: by how much the policy's view is smaller than the image.
        policy: width of the policy.
        size: width D of the tokens.
        depth: number of blocks.
        heads: number of heads in a block.
        hidden: width of the feed-forward layers.
        dropout: probability on embeddings and branches, and in the feed-forward layers.

    Raises:
        ValueError: if there are fewer patches than glimpses, or the estimator cannot choose patches one by one.
    """

    def __init__(
        self, *, attention: AttentionFactory, positions: Callable[..., Positions], channels: int, height: int,
        width: int, classes: int, patch: int = 6, glimpses: int = 12, coarse: int = 2, policy: int = 32, size: int = 64,
        depth: int = 2, heads: int = 4, hidden: int = 128, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        at_least_one(size=size, depth=depth, coarse=coarse)
        rows, columns = grid(height, width, patch)
        if not 1 <= glimpses <= rows * columns:
            raise ValueError(
                f"model.glimpses={glimpses} patches cannot be read of an image of {rows} x {columns} = "
                f"{rows * columns}; choose a number from 1 to {rows * columns}, or a smaller model.patch."
            )
        chooser = Policy(attention, channels, patch, glimpses, coarse, policy)
        estimator = chooser.attention.estimator
        if not estimator.single or estimator.unfeedable:
            raise ValueError(
                f"{type(estimator).__name__} does not choose single patches one after the other while it trains, and a "
                "glimpse model reads nothing else; choose attention=hard, with any baseline but soft_context, or "
                "attention=gumbel."
            )
        super().__init__(estimator, (rows, columns), size, classes)
        if patch % coarse:
            raise ValueError(
                f"model.coarse={coarse} does not divide the side of a patch, {patch} pixels, so that the policy would "
                "see parts of several patches as one; choose one of its divisors."
            )
        self.variant_names = ("policy",)
        self.patch = patch
        self.policy = chooser
        self.embed = nn.Linear(channels * patch * patch, size)
        self.positions = positions(rows=rows, columns=columns, size=size)
        self.dropout = Dropout(dropout)
        self.token = nn.Parameter(torch.randn(size) * 0.02)
        self.blocks = nn.ModuleList(EncoderBlock(SCALED, size, heads, hidden, dropout) for _ in range(depth))

    @property
    def modes(self) -> tuple[str, ...]:
        # exact: the orders are too many; soft: a mixture of patches is no patch
        return tuple(mode for mode in self.estimator.modes if mode not in ("exact", "soft"))

    def forward(self, images: Tensor) -> tuple[Tensor, Candidates]:
        copies = self.estimator.paths if self.training else 1
        offers = self._offers(images)
        # one gather has the gradient of what is read, where the choices, one by one, would each fill a tensor of all
        records = self.policy(images, offers.detach(), copies)
        read = torch.cat([record.contexts[0] for record in records], 1)  # [K B, k, C patch^2 + D]
        chosen = _positions(records)
        if torch.is_grad_enabled():  # the contexts alone have the gradient of the weights
            images_of = torch.arange(len(chosen), device=chosen.device).remainder(len(images))
            offered = offers[images_of.unsqueeze(1), chosen]
            read = read + (offered - offered.detach())
        pixels, places = read[..., : self.embed.in_features], read[..., self.embed.in_features :]
        tokens = torch.cat([self.token.expand(len(read), 1, -1), self.embed(pixels) + places], 1)
        tokens = self.dropout(tokens)
        *lower, last = self.blocks
        for block in lower:
            tokens, _ = block(tokens)
        tokens, _ = last(tokens, first=1)
        scored = self.readout(self.norm(tokens[:, 0]))
        return scored.view(copies, len(images), -1), credit([_joined(records)], copies)

    def _offers(self, images: Tensor) -> Tensor:
        """What there is to read of each patch: its pixels and its place, so that only what is read is embedded."""
        places = self.positions().expand(len(images), -1, -1)
        return torch.cat([patches(images, self.patch), places], -1)

    @torch.no_grad()
    def chosen(self, images: Tensor) -> Tensor:
        return _positions(self.policy(images, self._offers(images), 1))

    @torch.no_grad()
    def maps(self, images: Tensor) -> dict[str, Tensor]:
        return {"policy": _joined(self.policy(images, self._offers(images), 1)).weights}


def _positions(records: list[Candidates]) -> Tensor:
    """The patches that were chosen, [N, k]."""
    return torch.cat([record.positions[0] for record in records if record.positions is not None], 1)


def _joined(records: list[Candidates]) -> Candidates:
    """The records of k glimpses, [1, N, 1, ...] each, as one of k queries of one head, [1, N, 1, k, ...]."""

    def side_by_side(parts: list[Tensor | None]) -> Tensor | None:
        found = [part for part in parts if part is not None]
        return torch.cat(found, -1).unsqueeze(-2) if found else None

    log_weights = side_by_side([record.log_weights for record in records])
    queries = [record.queries for record in records if record.queries is not None]
    assert log_weights is not None
    return Candidates(
        contexts=log_weights.new_empty(0),
        log_weights=log_weights,
        weights=torch.cat([record.weights for record in records], -2).unsqueeze(1),
        log_probs=side_by_side([record.log_probs for record in records]),
        queries=torch.cat(queries, -2).unsqueeze(1) if queries else None,
    )
