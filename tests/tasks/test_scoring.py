"""Scoring in several test modes."""

import math

import pytest
from torch import nn

from attnlab.tasks.scoring import Outcome, score_modes


def test_draws_have_a_mean_and_a_standard_deviation_beside_it() -> None:
    found = iter([1.0, 2.0, 6.0])
    scored = score_modes(lambda: Outcome({"bleu": next(found)}), nn.Identity(), ["sample"], draws=3)
    assert scored["sample"].metrics == {"bleu": pytest.approx(3.0), "bleu_sd": pytest.approx(math.sqrt(7))}


def test_a_metric_that_is_undefined_in_a_draw_is_undefined() -> None:
    found = iter([0.5, math.nan])
    metrics = score_modes(lambda: Outcome({"precision": next(found)}), nn.Identity(), ["sample"], draws=2)[
        "sample"
    ].metrics
    assert all(math.isnan(value) for value in metrics.values())
