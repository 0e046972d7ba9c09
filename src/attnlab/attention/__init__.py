"""The mathematics of attention: score -> normalizer -> estimator. torch only, to be read beside the papers.

Shapes, here and in every module below:
    B batch, T queries (target steps), S keys (source positions), K candidates, Q query width,
    D key and value width, A alignment width; `...` any leading dimensions (batch, heads).
"""

from attnlab.attention.core import Attention, Memory, reading
from attnlab.attention.estimators import Estimator, ExactMarginal, Expectation, Objective, Reinforce
from attnlab.attention.normalizers import LastPosition, Normalizer, Softmax
from attnlab.attention.scores import AdditiveScore, DotScore, GeneralScore, ScaledDotScore, Score
from attnlab.attention.selection import MODES, Candidates

__all__ = [
    "MODES",
    "AdditiveScore",
    "Attention",
    "Candidates",
    "DotScore",
    "Estimator",
    "ExactMarginal",
    "Expectation",
    "GeneralScore",
    "LastPosition",
    "Memory",
    "Normalizer",
    "Objective",
    "Reinforce",
    "ScaledDotScore",
    "Score",
    "Softmax",
    "reading",
]
