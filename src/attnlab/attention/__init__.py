"""The mathematics of attention: score -> normalizer -> estimator. torch only, to be read beside the papers.

Shapes, here and in every module below:
    B batch, T queries (target steps), S keys (source positions), K candidates, Q query width,
    D key and value width, A alignment width; `...` any leading dimensions (batch, heads).
"""

from attnlab.attention.core import Attention, Memory, reading
from attnlab.attention.estimators import Estimator, ExactMarginal, Expectation, Objective
from attnlab.attention.gumbel import GumbelSoftmax
from attnlab.attention.normalizers import (
    Entmax15,
    LastPosition,
    LocalMonotonic,
    LocalPredictive,
    Normalizer,
    Softmax,
    Sparsemax,
)
from attnlab.attention.reinforce import Reinforce
from attnlab.attention.scores import AdditiveScore, DotScore, GeneralScore, ScaledDotScore, Score
from attnlab.attention.selection import MODES, Candidates
from attnlab.attention.variational import ImportanceWeighted, SampledVariational, Variational

__all__ = [
    "MODES",
    "AdditiveScore",
    "Attention",
    "Candidates",
    "DotScore",
    "Entmax15",
    "Estimator",
    "ExactMarginal",
    "Expectation",
    "GeneralScore",
    "GumbelSoftmax",
    "ImportanceWeighted",
    "LastPosition",
    "LocalMonotonic",
    "LocalPredictive",
    "Memory",
    "Normalizer",
    "Objective",
    "Reinforce",
    "SampledVariational",
    "ScaledDotScore",
    "Score",
    "Softmax",
    "Sparsemax",
    "Variational",
    "reading",
]
