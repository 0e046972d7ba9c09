"""The Transformer encoder-decoder, with any attention to the source or everywhere."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from attnlab.attention import Candidates, Estimator, Memory, Objective
from attnlab.kernels.steps import finds_rows
from attnlab.nn.blocks import DecoderBlock, EncoderBlock, Past
from attnlab.nn.multihead import SCALED, AttentionFactory, paths, share_estimator
from attnlab.nn.positions import sinusoids
from attnlab.nn.readout import VocabularyReadout
from attnlab.nn.seq2seq import Seq2Seq
from attnlab.nn.sizes import at_least_one


class TransformerState(NamedTuple):
    """What a search carries from step to step.

    Attributes:
        sources: what each block reads of the sources, which rows may share.
        past: what each block's self-attention reads of the target so far.
        ancestors: long [N, T], of each row its row in each of the steps so far.
    """

    sources: list[Memory]
    past: list[Past]
    ancestors: Tensor

    def select(self, rows: Tensor, same_sources: bool = False) -> "TransformerState":
        """The state of the given rows (long [M]); see `attnlab.decoding.State`."""
        sources = self.sources if same_sources else [memory.select(rows) for memory in self.sources]
        past = [part.select(rows) if isinstance(part, Memory) else part for part in self.past]
        return TransformerState(sources, past, self.ancestors[rows])


class Transformer(Seq2Seq):
    """A Transformer (Vaswani et al. 2017) of pre-norm blocks, with sinusoidal positions.

    Where the variant draws, the decoder (and, with the variant everywhere, the encoder) runs on `estimator.paths`
    copies of the batch, each on its own path; a choice reaches all later steps and is credited with them.

    Args:
        attention: factory of the variant.
        variant: `cross`, where it attends to the source alone, or `all`, in the self-attention as well; elsewhere
            attention is soft and scaled dot-product.
        embedding: width D, of embeddings and tokens.
        depth: number of blocks on each side.
        heads: number of heads.
        hidden: width of the feed-forward layers.
        dropout: probability on embeddings and branches and in the feed-forward layers.
        tie_output: whether the output layer shares the target embedding's weight.

    The other options are those of `Seq2Seq`.

    Raises:
        ValueError: if the variant cannot be credited for what follows from its choices.
    """

    estimator: Estimator

    def __init__(
        self, *, attention: AttentionFactory, variant: Literal["cross", "all"] = "cross", embedding: int = 128,
        depth: int = 4, heads: int = 4, hidden: int = 256, dropout: float = 0.3, word_dropout: float = 0.0,
        tie_output: bool = True, share_embeddings: bool = False, padding: int = 0, source_vocabulary: int,
        target_vocabulary: int,
    ) -> None:  # fmt: skip
        super().__init__(
            source_vocabulary=source_vocabulary, target_vocabulary=target_vocabulary, embedding=embedding,
            dropout=dropout, word_dropout=word_dropout, share_embeddings=share_embeddings, padding=padding,
        )  # fmt: skip
        at_least_one(depth=depth)
        if variant not in ("cross", "all"):
            raise ValueError(f"model.variant={variant} is neither cross (attention to the source) nor all.")
        self.everywhere = variant == "all"
        own = attention if self.everywhere else SCALED
        encoder = [EncoderBlock(own, embedding, heads, hidden, dropout) for _ in range(depth)]
        self.encoder = nn.ModuleList(encoder)
        self.encoder_norm = nn.LayerNorm(embedding)
        decoder = [DecoderBlock(own, attention, embedding, heads, hidden, dropout) for _ in range(depth)]
        self.decoder = nn.ModuleList(decoder)
        self.decoder_norm = nn.LayerNorm(embedding)
        self.readout = VocabularyReadout(embedding, target_vocabulary, self.target_embedding if tie_output else None)
        others = [block.own for block in decoder] + [block.attention for block in encoder]
        share_estimator([block.cross for block in decoder] + (others if self.everywhere else []))
        self.estimator = decoder[0].cross.attention.estimator
        if self.estimator.unfeedable:
            raise ValueError(
                f"{type(self.estimator).__name__} cannot stand in a Transformer, whose later steps read what earlier "
                f"ones attended to: it {self.estimator.unfeedable}; choose model=rnn, or attention/estimator=reinforce."
            )

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(mode for mode in self.estimator.modes if mode != "exact")

    def _positioned(self, table: nn.Embedding, tokens: Tensor, start: int = 0) -> Tensor:
        embedded = self.embed(table, tokens)
        return embedded + sinusoids(tokens.shape[1], embedded.shape[-1], start).to(embedded)

    def _encode(self, source: Tensor) -> tuple[list[Memory], list[Candidates]]:
        """Of source ids [N, S], what each block of the decoder reads of them, and the encoder's candidates."""
        mask = (source != self.padding)[:, None, None]  # [N, 1, 1, S]
        tokens = self._positioned(self.source_embedding, source)
        records = []
        for block in self.encoder:
            tokens, candidates = block(tokens, mask)
            records.append(candidates)
        tokens = self.encoder_norm(tokens)
        blocks = cast(list[DecoderBlock], self.decoder)
        return [block.cross.prepare(tokens, mask) for block in blocks], records

    def start(self, source: Tensor) -> TransformerState:
        memories, _ = self._encode(source)
        sources = []
        for block, memory in zip(cast(list[DecoderBlock], self.decoder), memories, strict=True):
            # in one piece, or the products of every step would have to bring them there
            whole = memory._replace(keys=memory.keys.contiguous(), values=memory.values.contiguous())
            share = block.cross.attention.fusible and finds_rows(whole.keys)
            sources.append(whole.shared() if share else whole)
        return TransformerState(sources, [], source.new_empty(len(source), 0))

    def forward(
        self, source: Tensor, target_in: Tensor, target_out: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Candidates]:
        copies = self.estimator.paths if self.training else 1
        before, after = (copies, 1) if self.everywhere else (1, copies)
        memories, encoded = self._encode(source.repeat(before, 1))
        if after > 1:
            rows = torch.arange(len(source), device=source.device).repeat(after)
            memories = [memory.select(rows) for memory in memories]
        tokens = self._positioned(self.target_embedding, target_in.repeat(copies, 1))
        length = target_in.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        own, cross = [], []
        for block, memory in zip(self.decoder, memories, strict=True):
            tokens, seen, read = block(tokens, memory, mask=causal, maps=not self.training)
            own.append(seen)
            cross.append(read)
        features = paths(self.decoder_norm(tokens), copies)
        scored = self.readout(self.dropout(features), target_out, target_out != self.padding, smoothing)
        chosen = _credit(cross, own if self.everywhere else [], copies)
        if self.everywhere:
            chosen = _with_encoder(chosen, encoded, source.repeat(copies, 1) != self.padding, copies)
        return scored, chosen

    def objective(self, log_likelihoods: Tensor, candidates: Candidates, mask: Tensor) -> Objective:
        return self.estimator.objective(log_likelihoods, candidates, mask, fed=True)

    def step(self, tokens: Tensor, state: TransformerState) -> tuple[Tensor, Tensor, TransformerState]:
        sources, before, ancestors = state
        inputs = self._positioned(self.target_embedding, tokens.unsqueeze(1), ancestors.shape[1]).squeeze(1)
        rows = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        ancestors = torch.cat([ancestors, rows], 1)
        past, weights = [], []
        carried: Sequence[Past | None] = before or [None] * len(sources)
        blocks = cast(list[DecoderBlock], self.decoder)
        for block, memory, own in zip(blocks, sources, carried, strict=True):
            inputs, own, read = block.step(inputs, memory, own, ancestors)
            past.append(own)
            weights.append(read.weights)  # [N, H, 1, S]
        log_probs = self.readout.log_probs(self.decoder_norm(inputs))
        return log_probs, torch.cat(weights, 1).mean(1)[:, 0], TransformerState(sources, past, ancestors)


def _credit(cross: list[Candidates], own: list[Candidates], copies: int) -> Candidates:
    """The choices of all layers and heads at each target step as one record [K, B, T, ...], without contexts.

    Log-probabilities are summed over layers and heads, weights and entropies averaged; the queries are those that no
    choice of their own step has reached.
    """
    records = [*own, *cross]
    first = records[0]

    def told_apart(part: Tensor) -> Tensor:  # [N, T, ...] -> [K, B, T, ...], or [B, T, ...] where there is one path
        return paths(part, copies) if copies > 1 else part

    drawn = [record.log_probs[0].sum(1) for record in records if record.log_probs is not None]
    spreads = [record.entropy() for record in records]
    known = [spread.mean(1) for spread in spreads if spread is not None]
    log_weights = first.log_weights[0, :, 0]
    log_probs = torch.stack(drawn).sum(0) if drawn else None
    return Candidates(
        contexts=log_weights.new_empty(0),
        log_weights=paths(log_weights, copies),
        weights=told_apart(torch.stack([record.weights.mean(1) for record in cross]).mean(0)),
        log_probs=None if log_probs is None else paths(log_probs, copies),
        queries=None if first.queries is None else told_apart(first.queries.mean(1)),
        entropies=told_apart(torch.stack(known).mean(0)) if len(known) == len(records) else None,
    )


def _with_encoder(chosen: Candidates, encoded: list[Candidates], mask: Tensor, copies: int) -> Candidates:
    """Adds the choices of the encoder, at real positions of mask [N, S], to the first step's, since they reach all
    steps, and its entropies to the mean."""
    spreads = [record.entropy() for record in encoded]
    known = [(spread.mean(1) * mask).sum(1) / mask.sum(1) for spread in spreads if spread is not None]  # [N]
    if chosen.entropies is not None and len(known) == len(encoded):
        share = 1 / 3  # of an encoder's block, to two attentions of a decoder's
        mean = torch.stack(known).mean(0).view(*chosen.entropies.shape[:-1], 1)
        chosen = chosen._replace(entropies=(1 - share) * chosen.entropies + share * mean)
    if chosen.log_probs is None:
        return chosen
    drawn = [
        (record.log_probs[0] * mask.unsqueeze(1)).sum((1, 2)) for record in encoded if record.log_probs is not None
    ]
    first = torch.stack(drawn).sum(0).view(copies, -1, 1)
    return chosen._replace(log_probs=torch.cat([chosen.log_probs[..., :1] + first, chosen.log_probs[..., 1:]], -1))
