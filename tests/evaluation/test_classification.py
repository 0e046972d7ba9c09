import math
import subprocess
import sys

import pytest
import torch

from attnlab.evaluation.classification import classification_scores, mass_inside


def _log(rows):
    return torch.tensor(rows, dtype=torch.float64).log()


# Predicted 0, 0, 1, 2; right, wrong, right, wrong; ranks of the labels 1, 2, 1, 3.
ROWS = [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7]]
LABELS = torch.tensor([0, 1, 1, 0])


def test_scores_by_hand():
    scores = classification_scores(_log(ROWS), LABELS)
    assert scores.top1 == 50
    assert scores.k == 2, "three classes: one has to be left out"
    assert scores.top5 == 75
    assert scores.nll == pytest.approx(-(math.log(0.7) + math.log(0.3) + math.log(0.8) + math.log(0.1)) / 4)
    assert scores.confusion.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]], "rows are true, columns predicted"
    assert scores.confusion.dtype == torch.long
    assert scores.accuracy_by_class[:2].tolist() == [50, 50]
    assert scores.accuracy_by_class[2].isnan(), "no example of it"


def test_calibration_error_by_hand():
    # Bins of 1/15. Two confidences of 0.7 in one bin, half of them right: a gap of 0.2; 0.6 + 1e-3 wrong, 0.81 right.
    rows = [[0.7, 0.2, 0.1], [0.601, 0.299, 0.1], [0.09, 0.81, 0.1], [0.1, 0.2, 0.7]]
    scores = classification_scores(_log(rows), LABELS)
    assert scores.calibration_error == pytest.approx((2 * 0.2 + 0.601 + 0.19) / 4)


def test_a_calibrated_and_an_overconfident_classifier():
    # Right eight times of ten with a confidence of 0.8, and with one of 1.
    labels = torch.tensor([0] * 8 + [1] * 2)
    calibrated = classification_scores(_log([[0.8, 0.2]] * 10), labels)
    assert calibrated.calibration_error == pytest.approx(0, abs=1e-9)
    sure = classification_scores(_log([[1.0, 0.0]] * 10), labels)
    assert sure.calibration_error == pytest.approx(0.2)
    assert sure.nll == math.inf


def test_gaps_of_one_bin_cancel_even_at_certainty():
    # 0.95 and 1 share the last of 15 bins: (0.95 + 1) / 2 against an accuracy of 1/2.
    scores = classification_scores(_log([[0.95, 0.05], [1.0, 0.0]]), torch.tensor([1, 0]))
    assert scores.calibration_error == pytest.approx(0.475)


def test_rounding_above_one_is_still_a_probability():
    scores = classification_scores(torch.tensor([[1e-6, -40.0]]), torch.tensor([0]))
    assert scores.calibration_error == pytest.approx(0, abs=1e-5)


def test_ties_go_to_the_lower_class():
    uniform = torch.full((10, 10), 0.1).log()
    scores = classification_scores(uniform, torch.arange(10))
    assert scores.k == 5
    assert scores.top1 == 10
    assert scores.top5 == 50
    assert scores.confusion[:, 0].tolist() == [1] * 10
    # 0.4, 0.4, 0.2: the second is first of the last two to leave.
    assert classification_scores(_log([[0.4, 0.2, 0.4]]), torch.tensor([2])).top1 == 0


def test_two_classes_rank_like_top_one():
    scores = classification_scores(_log([[0.3, 0.7], [0.3, 0.7]]), torch.tensor([0, 1]))
    assert (scores.k, scores.top1, scores.top5) == (1, 50, 50)


def test_scores_agree_with_each_other():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 12, (500,), generator=generator)
    logits = torch.randn(500, 12, generator=generator)
    logits[torch.arange(500), labels] += 1.5
    scores = classification_scores(logits.log_softmax(1), labels)
    assert scores.confusion.sum() == 500
    assert scores.confusion.sum(1).tolist() == labels.bincount(minlength=12).tolist()
    assert scores.top1 == pytest.approx(100 * scores.confusion.trace().item() / 500)
    support = scores.confusion.sum(1)
    assert scores.top1 == pytest.approx((scores.accuracy_by_class * support).sum().item() / 500)
    assert scores.top1 < scores.top5 < 100
    assert 0 < scores.calibration_error < 1


def test_half_precision_and_gradients_are_welcome():
    log_probs = torch.tensor(ROWS, requires_grad=True).log().bfloat16()
    assert classification_scores(log_probs, LABELS).top1 == 50


@pytest.mark.parametrize(
    ("log_probs", "labels", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), r"shapes are \(2, 3\) and \(3,\)"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.long), "shapes are"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "nothing to score"),
        (torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), "at least two classes"),
        (_log(ROWS), LABELS + 2, "class from 0 to 2; found 2 to 3"),
        (_log(ROWS), LABELS - 1, "found -1 to 0"),
        (torch.zeros(1, 3), torch.tensor([0]), "row 0 sum to 3 and not to 1"),
        (torch.full((1, 3), math.nan), torch.tensor([0]), "row 0 sum to nan"),
    ],
)
def test_mistakes_are_sentences(log_probs, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_scores(log_probs, labels)


def test_mass_inside_whole_patches():
    maps = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]]).expand(3, 2, 2)
    boxes = torch.tensor([[0, 0, 8, 8], [4, 0, 8, 4], [0, 4, 8, 8]])
    torch.testing.assert_close(mass_inside(maps, boxes, 8, 8), torch.tensor([1.0, 0.2, 0.7]))


def test_mass_inside_counts_a_cut_patch_by_its_area():
    maps = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])
    # From (2, 1) to (6, 4) in patches of 4 by 4: half the width and three quarters of the height of the upper two.
    share = mass_inside(maps, torch.tensor([[2.0, 1.0, 6.0, 4.0]]), 8, 8)
    torch.testing.assert_close(share, torch.tensor([0.375 * 0.1 + 0.375 * 0.2]))
    # A box within one patch, in an image that is wider than high, of patches of 4 by 6.
    share = mass_inside(maps, torch.tensor([[7.0, 5.0, 9.0, 6.0]]), 8, 12)
    torch.testing.assert_close(share, torch.tensor([0.4 * 2 / 24]))


def test_mass_inside_does_not_depend_on_the_total_or_what_sticks_out():
    maps = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]], dtype=torch.bfloat16)
    share = mass_inside(maps, torch.tensor([[4, 4, 100, 100]]), 8, 8)
    torch.testing.assert_close(share, torch.tensor([0.4]))
    assert mass_inside(maps, torch.tensor([[9, 9, 12, 12]]), 8, 8).item() == 0
    assert mass_inside(torch.zeros(1, 2, 2), torch.tensor([[0, 0, 8, 8]]), 8, 8).isnan().all()


def test_uniform_maps_score_the_share_of_the_area():
    generator = torch.Generator().manual_seed(0)
    left, top = 60 * torch.rand(2, 50, generator=generator)
    right = left + (60 - left) * (0.01 + 0.99 * torch.rand(50, generator=generator))
    bottom = top + (60 - top) * (0.01 + 0.99 * torch.rand(50, generator=generator))
    share = mass_inside(torch.full((50, 7, 15), 0.3), torch.stack((left, top, right, bottom), 1), 60, 60)
    torch.testing.assert_close(share, (right - left) * (bottom - top) / 3600)


def test_mass_inside_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"shapes are \(2, 3, 3\) and \(1, 4\)"):
        mass_inside(torch.ones(2, 3, 3), torch.ones(1, 4), 6, 6)
    with pytest.raises(ValueError, match="left before its right"):
        mass_inside(torch.ones(1, 3, 3), torch.tensor([[3, 0, 1, 2]]), 6, 6)


def test_torchmetrics_waits():
    code = "import sys, attnlab.evaluation.classification; sys.exit('torchmetrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
