"""The inference network: a posterior over source positions that has seen the target."""

from torch import Tensor, nn

from attnlab.attention import GeneralScore, Memory, Softmax
from attnlab.nn.recurrent import BidirectionalEncoder, CellKind


class InferenceNetwork(nn.Module):
    """q(z_t | x, y) = softmax_j g_t^T W v_j, g a bidirectional recurrence over the target (Deng et al. 2018).

    It shares the values v of the source with the model, where the paper has another recurrence over the source.

    Args:
        kind: lstm or gru.
        token_size: width E of the target embeddings.
        value_size: width of the source's values.
        size: width of each direction of the recurrence.
    """

    def __init__(self, kind: CellKind, token_size: int, value_size: int, size: int) -> None:
        super().__init__()
        self.encoder = BidirectionalEncoder(kind, token_size, size, 1, 0.0)
        self.score = GeneralScore(2 * size, value_size)
        self.normalizer = Softmax()

    def forward(self, embedded: Tensor, lengths: Tensor, memory: Memory) -> Tensor:
        """Returns the posterior [B, T, S] of targets [B, T, E], each token's own embedding included."""
        states, _ = self.encoder(embedded, lengths)
        posterior: Tensor = self.normalizer(self.score(states, self.score.prepare(memory.values)), memory.mask)
        return posterior
