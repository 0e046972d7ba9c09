"""The pre-norm blocks of ViT and Transformer."""

from typing import cast

import torch
from torch import Tensor, nn

from attnlab.attention import Candidates, Memory
from attnlab.kernels.block import Feed, Own, feed_half, feeds_in_place, own_half, reads_in_place
from attnlab.kernels.feed_forward import feed_forward
from attnlab.nn.dropout import Dropout
from attnlab.nn.multihead import AttentionFactory, MultiHeadAttention

Past = list[Tensor] | Memory
"""Of self-attention in a search: the projections of each step [N_t, 3 D], where they are read in place, or a memory."""


class FeedForward(nn.Sequential):
    """W_2 gelu(W_1 x): the same for each token (Vaswani et al. 2017, section 3.3).

    Args:
        size: width D.
        hidden: width between the maps.
        dropout: probability after the activation.
    """

    def __init__(self, size: int, hidden: int, dropout: float) -> None:
        super().__init__(nn.Linear(size, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, size))

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.is_cuda:
            outputs: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
            return outputs
        first, dropout, second = self._layers()
        kept = dropout.draw(inputs.numel() // first.in_features * first.out_features, inputs.device)
        return feed_forward(inputs, first.weight, first.bias, second.weight, second.bias, kept)

    def behind(self, out: nn.Linear, norm: nn.LayerNorm) -> Feed:
        """This layer in evaluation, behind the output layer of an attention and a norm."""
        first, _, second = self._layers()
        return Feed(out, norm, first, second)

    def _layers(self) -> tuple[nn.Linear, Dropout, nn.Linear]:
        first, _, dropout, second = cast("tuple[nn.Linear, nn.GELU, Dropout, nn.Linear]", tuple(self))
        return first, dropout, second


class StochasticDepth(nn.Module):
    """Leaves a residual branch out of a whole row, with a probability (Huang et al. 2016).

    Args:
        probability: in [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"The probability of stochastic depth lies in [0, 1), found {probability}.")
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return branch
        kept = torch.rand(branch.shape[0], *[1] * (branch.dim() - 1), device=branch.device) >= self.probability
        return branch * kept / (1 - self.probability)


class EncoderBlock(nn.Module):
    """x + attend(norm x), then x + feed(norm x) (Xiong et al. 2020, figure 1b).

    Args:
        attention: factory of the self-attention.
        size: width D.
        heads: number of heads.
        hidden: width of the feed-forward layer.
        dropout: probability on each branch and in the feed-forward layer.
        depth_dropout: probability to leave a branch out (stochastic depth).
    """

    def __init__(
        self, attention: AttentionFactory, size: int, heads: int, hidden: int, dropout: float,
        depth_dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention_norm = nn.LayerNorm(size)
        self.attention = MultiHeadAttention(attention, size, heads)
        self.feed_norm = nn.LayerNorm(size)
        self.feed = FeedForward(size, hidden, dropout)
        self.branch = nn.Sequential(Dropout(dropout), StochasticDepth(depth_dropout))

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, maps: bool = False, first: int | None = None
    ) -> tuple[Tensor, Candidates]:
        """One block.

        Args:
            tokens: [N, S, D].
            mask: bool, broadcastable to [N, H, S, S], which of the tokens each may see.
            maps: whether the weights are asked for.
            first: the number T of leading tokens that are read behind this block, all by default; what the others
                would become is not computed, and they draw nothing.

        Returns:
            new tokens [N, T, D], and the candidates of the heads.
        """
        queries, memory = self.attention.project(self.attention_norm(tokens), mask, first)
        contexts, candidates = self.attention.read(queries, memory, maps=maps)
        tokens = tokens[:, :first]
        half = self.feed.behind(self.attention.out, self.feed_norm)
        if not self.training and feeds_in_place(tokens, contexts[0], half):
            return feed_half(tokens, contexts[0], half), candidates
        tokens = tokens + self.branch(self.attention.out(contexts).squeeze(0))
        return tokens + self.branch(self.feed(self.feed_norm(tokens))), candidates


class DecoderBlock(nn.Module):
    """Self-attention, attention to a source, feed-forward layer, each x + f(norm x).

    Args:
        own: factory of the attention to the target.
        cross: factory of the attention to the source.
        size: width D.
        heads: number of heads.
        hidden: width of the feed-forward layer.
        dropout: probability on each branch and in the feed-forward layer.
    """

    def __init__(
        self, own: AttentionFactory, cross: AttentionFactory, size: int, heads: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.own_norm = nn.LayerNorm(size)
        self.own = MultiHeadAttention(own, size, heads)
        self.cross_norm = nn.LayerNorm(size)
        self.cross = MultiHeadAttention(cross, size, heads)
        self.feed_norm = nn.LayerNorm(size)
        self.feed = FeedForward(size, hidden, dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self, tokens: Tensor, memory: Memory, *, mask: Tensor, maps: bool = False
    ) -> tuple[Tensor, Candidates, Candidates]:
        """Decodes a whole target.

        Args:
            tokens: [N, T, D].
            memory: of the source.
            mask: bool, broadcastable to [N, H, T, T], which of the tokens each may see.
            maps: whether the weights are asked for.

        Returns:
            new tokens, and the candidates of both attentions.
        """
        queries, own = self.own.project(self.own_norm(tokens), mask)
        attended, seen = self.own.attend(queries, own, maps=maps)
        tokens = tokens + self.dropout(attended.squeeze(0))
        attended, read = self.cross(self.cross_norm(tokens), memory, maps=maps)
        tokens = tokens + self.dropout(attended.squeeze(0))
        return tokens + self.dropout(self.feed(self.feed_norm(tokens))), seen, read

    def step(
        self, tokens: Tensor, memory: Memory, past: Past | None, ancestors: Tensor
    ) -> tuple[Tensor, Past, Candidates]:
        """One step of a search: as `forward` for one more token, all before which it may see.

        Args:
            tokens: [N, D].
            memory: of the source.
            past: what the last step returned, a memory with the rows [N] of this one; None in the first.
            ancestors: long [N, T], of each row its row in each step, this one included.

        Returns:
            new tokens [N, D], the past of the next step, and the candidates of the attention to the source, with their
            weights.
        """
        start = ancestors.shape[1] - 1
        layers = Own(
            self.own_norm, (self.own.query, self.own.key_value), self.own.out, self.own.heads, self.cross_norm,
            self.cross.query,
        )  # fmt: skip
        if past is None and self.own.attention.fusible and reads_in_place(tokens, layers):
            past = []
        if isinstance(past, list):
            tokens, queries, projected = own_half(tokens, past, ancestors, layers)
            past = [*past, projected]
        else:
            attended, past = self.own.extend(self.own_norm(tokens).unsqueeze(1), past, start)
            tokens = tokens + attended.squeeze(1)
            queries = self.cross.query(self.cross_norm(tokens))
        contexts, read = self.cross.read(queries.view(len(queries), self.cross.heads, 1, -1), memory, start, maps=True)
        return feed_half(tokens, contexts[0, :, 0], self.feed.behind(self.cross.out, self.feed_norm)), past, read
