import math

import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest
from scipy import stats as scipy_stats

from attnlab.report.stats import (
    games_howell,
    holm,
    mcnemar,
    over_seeds,
    resamples,
    sign_test,
    summarise,
    text_tests,
)


def test_the_interval_is_students():
    """1, 2, 3: mean 2, standard deviation 1, t(0.975, 2) = 4.302653, so 2 ± 4.302653 / √3."""
    summary = summarise([1.0, 2.0, 3.0])
    assert (summary.mean, summary.sd, summary.n) == (2.0, 1.0, 3)
    assert summary.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert summary.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)
    one = summarise([5.0])
    assert (one.mean, one.sd, one.low, one.high, one.n) == (5.0, None, None, None, 1)


def test_holm_by_hand():
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; none below the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, 0.02], 6) == pytest.approx([0.06, 0.10])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="cannot hold 2"):
        holm([0.1, 0.2], 1)


def test_mcnemar_by_hand():
    """Just one is right on 8 and on 2 items: 2 (C(10,0) + C(10,1) + C(10,2)) / 2^10 = 112 / 1024."""
    first = [True] * 8 + [False] * 2 + [True] * 5 + [False] * 5
    second = [False] * 8 + [True] * 2 + [True] * 5 + [False] * 5
    assert mcnemar(first, second) == pytest.approx(112 / 1024)
    assert mcnemar(first, first) == 1.0


def test_sign_test_by_hand():
    """Six wins of six: 2 / 2^6."""
    assert sign_test(6, 0) == pytest.approx(2 / 64)
    assert sign_test(0, 5) == pytest.approx(2 / 32)
    assert sign_test(3, 3) == 1.0
    assert sign_test(0, 0) == 1.0


def test_two_groups_are_welchs_t_test():
    first, second = [1.0, 2.0, 4.0, 3.5], [3.0, 5.5, 6.0]
    expected = scipy_stats.ttest_ind(first, second, equal_var=False).pvalue
    assert games_howell(first, second, 2) == pytest.approx(expected, rel=1e-6)


def test_more_groups_are_games_and_howells():
    """Against the table of the studentized range: q(0.05; 3, 10) = 3.877."""
    first, second = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [shift + 3.877 * math.sqrt(3.5 / 6) for shift in range(6)]
    assert games_howell(first, second, 3) == pytest.approx(0.05, abs=1e-4)
    assert games_howell(first, second, 12) > games_howell(first, second, 3)


def test_what_seeds_cannot_tell_is_not_tested():
    assert games_howell([1.0], [2.0, 3.0], 2) is None
    assert games_howell([1.0, 1.0], [2.0, 2.0], 2) is None


def test_a_claim_about_every_seed_is_as_weak_as_its_weakest_seed():
    assert over_seeds([1.0, 2.0, 0.5], [0.001, 0.02, 0.04]) == 0.04
    assert over_seeds([1.0, -2.0], [0.001, 0.001]) == 1.0
    assert over_seeds([0.0], [0.001]) == 1.0


def test_resamples_are_enough_for_the_correction():
    assert resamples(1) == resamples(21) == 1000
    for pairs in (45, 66, 190):
        assert pairs / (resamples(pairs) + 1) < 0.0401


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
class TestTexts:
    def test_a_planted_difference_is_found_and_a_planted_null_is_not(self, fabricate, metric):
        texts = fabricate.references(150)
        good, alike, bad = (fabricate.spoiled(texts, rate, seed) for rate, seed in ((0.1, 1), (0.1, 2), (0.4, 3)))
        found = text_tests(metric, [good, alike, bad], texts, 1000)
        assert found.scores[0] > found.scores[2] + 10
        assert found.bootstrap[1] < 0.01
        assert found.randomisation[1] < 0.01
        assert found.bootstrap[0] > 0.05
        assert found.randomisation[0] > 0.05
        assert "seed:12345" in found.signature

    def test_they_are_sacrebleus_own(self, fabricate, metric):
        """The same as PairedTest gives when it is left alone."""
        texts = fabricate.references(80)
        first, second = fabricate.spoiled(texts, 0.1, 1), fabricate.spoiled(texts, 0.14, 2)
        found = text_tests(metric, [first, second], texts, 300)
        for kind, p in (("bs", found.bootstrap[0]), ("ar", found.randomisation[0])):
            scorer = BLEU() if metric == "bleu" else CHRF()
            named = [("a", first), ("b", second)]
            _, plain = PairedTest(named, {metric: scorer}, [texts], kind, n_samples=300)()
            ((_, results),) = ((name, its) for name, its in plain.items() if name != "System")
            assert found.scores == [result.score for result in results]
            assert p == results[1].p_value
            assert 0.01 < p < 0.9

    def test_equal_outputs_do_not_differ(self, fabricate, metric):
        texts = fabricate.references(30)
        outputs = fabricate.spoiled(texts, 0.2, 1)
        found = text_tests(metric, [outputs, list(outputs)], texts, 200)
        assert found.bootstrap == found.randomisation == [1.0]

    def test_few_differing_outputs_are_no_evidence(self, fabricate, metric):
        """Three outputs are worse: of the 8 ways to swap them 2 differ as much, so p is 1/4 whatever shuffles say."""
        texts = fabricate.references(200)
        worse = [*("nothing at all" for _ in range(3)), *texts[3:]]
        found = text_tests(metric, [texts, worse], texts, 1000)
        assert found.randomisation[0] >= 0.25
