"""Encoder-decoders: what they share, and the recurrent one."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attnlab.attention import Candidates, Memory, Objective
from attnlab.nn.decoders import Decoded, Decoder, DecoderState
from attnlab.nn.dropout import Dropout
from attnlab.nn.inference import InferenceNetwork
from attnlab.nn.multihead import AttentionFactory
from attnlab.nn.readout import VocabularyReadout
from attnlab.nn.recurrent import BidirectionalEncoder, CellKind
from attnlab.nn.sizes import at_least_one


class SearchState(NamedTuple):
    """What a search carries from step to step; every tensor has the rows (hypotheses) first."""

    memory: Memory
    decoder: DecoderState

    def select(self, rows: Tensor, same_sources: bool = False) -> "SearchState":
        """The state of the given rows (long [M]); see `attnlab.decoding.State`."""
        return SearchState(self.memory if same_sources else self.memory.select(rows), self.decoder.select(rows))


class Seq2Seq(nn.Module, ABC):
    """What all encoder-decoders share: embeddings, readout, and what a task and a search ask of them.

    Args:
        source_vocabulary: number of source types.
        target_vocabulary: number of target types V.
        embedding: width E of both embeddings.
        dropout: probability on embeddings and on the features.
        word_dropout: probability of a token, on either side, to be read as an embedding of zeros while training
            (Gal and Ghahramani 2016; Sennrich and Zhang 2019 for translation from few pairs).
        share_embeddings: whether source and target share one embedding (a joint vocabulary).
        padding: the id of padding, on both sides.
    """

    def __init__(
        self, *, source_vocabulary: int, target_vocabulary: int, embedding: int, dropout: float, word_dropout: float,
        share_embeddings: bool, padding: int,
    ) -> None:  # fmt: skip
        super().__init__()
        at_least_one(embedding=embedding)
        if share_embeddings and source_vocabulary != target_vocabulary:
            raise ValueError(
                f"model.share_embeddings=true needs one vocabulary for both sides, but the source has "
                f"{source_vocabulary} types and the target {target_vocabulary}; set data.tokenizer.joint=true."
            )
        self.padding = padding
        self.target_embedding = nn.Embedding(target_vocabulary, embedding, padding_idx=padding)
        self.source_embedding = (
            self.target_embedding
            if share_embeddings
            else nn.Embedding(source_vocabulary, embedding, padding_idx=padding)
        )
        tables = [self.target_embedding] if share_embeddings else [self.source_embedding, self.target_embedding]
        for table in tables:
            nn.init.normal_(table.weight, std=embedding**-0.5)
            nn.init.zeros_(table.weight[padding])
        self.dropout = Dropout(dropout)
        self.word_dropout = Dropout(word_dropout)

    def embed(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        """Embeds tokens, under dropout, and scales by sqrt(E): small rows make good output weights, unit inputs tell
        words apart from the first step on (Vaswani et al. 2017, section 3.4)."""
        scale = torch.full((*tokens.shape, 1), math.sqrt(table.embedding_dim), device=tokens.device)
        embedded: Tensor = self.dropout(table(tokens) * self.word_dropout(scale).to(table.weight.dtype))
        return embedded

    @property
    @abstractmethod
    def modes(self) -> tuple[str, ...]:
        """The test modes in which this model can be read."""

    @abstractmethod
    def forward(
        self, source: Tensor, target_in: Tensor, target_out: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Candidates]:
        """Scores a target under a source.

        Args:
            source: long [B, S].
            target_in: long [B, T], the target behind the begin symbol.
            target_out: long [B, T], the target with the end symbol; padding is not scored.
            smoothing: label smoothing, as in `VocabularyReadout`.

        Returns:
            log-likelihoods [K, B, T] of every token under every candidate, 0 at padding, and the candidates.
        """

    @abstractmethod
    def objective(self, log_likelihoods: Tensor, candidates: Candidates, mask: Tensor) -> Objective:
        """The training objective of what `forward` returned; mask is bool [B, T], True at real target positions."""

    @abstractmethod
    def start(self, source: Tensor) -> Any:
        """The state with which a search of source ids [B, S] begins; `select(rows)` picks hypotheses."""

    @abstractmethod
    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """One step of a search from the last tokens [N]: log p(next) [N, V], weights [N, S], and the new state."""

    @torch.no_grad()
    def parameter_count(self) -> int:
        """The number of trained parameters, shared ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)


class RNNSeq2Seq(Seq2Seq):
    """A bidirectional recurrent encoder and a recurrent decoder with attention.

    Args:
        attention: factory of the attention, (query_size, key_size) -> Attention.
        decoder: factory of the decoder; see `attnlab.nn.decoders`.
        embedding: width E of both embeddings.
        encoder_size: width of each direction of the encoder; keys and values are twice as wide.
        decoder_size: width H of the decoder, and so of the queries.
        readout_size: width R of the features, the embeddings' if None.
        layers: recurrent layers of the decoder.
        encoder_layers: recurrent layers of the encoder, as many as the decoder's if None; the decoder starts from the
            last states of the upper ones.
        cell: lstm or gru.
        dropout: probability on embeddings, encoder outputs, between layers and on the features.
        tie_output: whether the output layer shares the target embedding's weight.
        chunk: the most feature values that are held at once while training; more candidates are scored in parts, which
            are computed anew in the backward pass.

    The other options are those of `Seq2Seq`.
    """

    def __init__(
        self, *, attention: AttentionFactory, decoder: Callable[..., Decoder], embedding: int = 256,
        encoder_size: int = 256, decoder_size: int = 512, readout_size: int | None = None, layers: int = 1,
        encoder_layers: int | None = None, cell: CellKind = "lstm", dropout: float = 0.2, word_dropout: float = 0.0,
        tie_output: bool = True, share_embeddings: bool = False, padding: int = 0, chunk: int = 2**26,
        source_vocabulary: int, target_vocabulary: int,
    ) -> None:  # fmt: skip
        super().__init__(
            source_vocabulary=source_vocabulary, target_vocabulary=target_vocabulary, embedding=embedding,
            dropout=dropout, word_dropout=word_dropout, share_embeddings=share_embeddings, padding=padding,
        )  # fmt: skip
        deep = layers if encoder_layers is None else encoder_layers
        wide = embedding if readout_size is None else readout_size
        at_least_one(
            encoder_size=encoder_size, decoder_size=decoder_size, readout_size=wide, layers=layers, encoder_layers=deep
        )
        if deep < layers:
            raise ValueError(
                f"model.encoder_layers={deep} is less than model.layers={layers}, but each layer of the decoder starts "
                "from one of the encoder; raise the first or lower the second."
            )
        self.layers = layers
        self.encoder = BidirectionalEncoder(cell, embedding, encoder_size, deep, dropout)
        self.decoder = decoder(
            attention=attention, input_size=embedding, key_size=2 * encoder_size, size=decoder_size,
            readout_size=wide, layers=layers, cell=cell, dropout=dropout,
        )  # fmt: skip
        self.readout = VocabularyReadout(wide, target_vocabulary, self.target_embedding if tie_output else None)
        guided = self.decoder.attention.estimator.guided
        self.guide = InferenceNetwork(cell, embedding, wide, encoder_size) if guided else None
        self.chunk = chunk

    @property
    def modes(self) -> tuple[str, ...]:
        return self.decoder.modes

    def start(self, source: Tensor) -> SearchState:
        mask = source != self.padding
        outputs, finals = self.encoder(self.embed(self.source_embedding, source), mask.sum(1))
        memory = self.decoder.prepare(self.dropout(outputs), mask.unsqueeze(-2))
        return SearchState(memory, self.decoder.start(finals[:, -self.layers :]))

    def forward(
        self, source: Tensor, target_in: Tensor, target_out: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Candidates]:
        memory, state = self.start(source)
        mask = target_out != self.padding
        posterior = None
        if self.guide is not None and self.training:
            seen = self.embed(self.target_embedding, target_out)
            posterior = self.guide(seen, mask.sum(1), memory)
        prefix = self.embed(self.target_embedding, target_in)
        decoded: Decoded = self.decoder(prefix, memory, state, posterior)

        def score(part: slice) -> Tensor:
            scored: Tensor = self.readout(self.dropout(decoded.features(part)), target_out, mask, smoothing)
            return scored

        together = max(1, self.chunk // max(1, target_in.numel() * self.readout.linear.in_features))
        if decoded.number <= together:
            return score(slice(None)), decoded.candidates
        parts = [slice(first, first + together) for first in range(0, decoded.number, together)]
        return torch.cat([checkpoint(score, part, use_reentrant=False) for part in parts]), decoded.candidates

    def objective(self, log_likelihoods: Tensor, candidates: Candidates, mask: Tensor) -> Objective:
        estimator = self.decoder.attention.estimator
        return estimator.objective(log_likelihoods, candidates, mask, fed=self.decoder.feed_size > 0)

    def step(self, tokens: Tensor, state: SearchState) -> tuple[Tensor, Tensor, SearchState]:
        embedded = self.embed(self.target_embedding, tokens)
        features, candidates, decoder = self.decoder.step(embedded, state.memory, state.decoder)
        log_probs = self.readout.log_probs(features)  # [K, N, V]
        # a test mode's only candidate has all the weight, and need not be weighted
        mixed = log_probs[0] if len(log_probs) == 1 else candidates.mixture(log_probs.unsqueeze(2)).squeeze(1)
        return mixed, candidates.weights[:, 0], SearchState(state.memory, decoder)
