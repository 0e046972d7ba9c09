"""Learning-rate schedules."""

import math

import pytest
import torch

from attnlab.errors import UserError
from attnlab.tasks.schedules import Constant, InverseSquareRoot, OneCycle, make_schedule


def rates(schedule_class: type, steps: int, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = schedule_class(optimizer, **options)
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_one_cycle_rises_to_the_peak_falls_to_nearly_nothing_and_stays_there() -> None:
    found = rates(OneCycle, 140, total_steps=100, warmup=0.2)
    assert found[0] == pytest.approx(2.0 / 25)
    assert max(found) == found[20] == pytest.approx(2.0)
    assert found[:21] == sorted(found[:21])
    assert found[20:] == sorted(found[20:], reverse=True)
    assert found[100] == found[-1] == pytest.approx(2e-4)


def test_one_cycle_is_torchs_own_where_both_are_defined() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2.0, total_steps=101, pct_start=0.21, cycle_momentum=False)
    expected = []
    for _ in range(101):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        if len(expected) < 101:
            theirs.step()
    ours = rates(OneCycle, 101, total_steps=100, warmup=0.2)
    # the ends of torch's descent differ by its final factor, 1e-4 of the start rather than of the peak
    assert ours[:90] == pytest.approx(expected[:90], rel=0.05, abs=2e-3)


def test_inverse_square_root_peaks_at_the_end_of_the_warm_up() -> None:
    found = rates(InverseSquareRoot, 40, warmup=10)
    assert max(found) == found[9] == pytest.approx(2.0)
    assert found[39] == pytest.approx(2.0 * math.sqrt(10 / 40))


def test_constant_stays() -> None:
    assert set(rates(Constant, 5)) == {2.0}


def test_a_schedule_is_told_the_length_of_the_run_only_if_it_asks() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)

    def unknown() -> int:
        raise AssertionError

    make_schedule(Constant, optimizer, unknown)
    cycle = make_schedule(OneCycle, optimizer, lambda: 20)
    for _ in range(20):
        optimizer.step()
        cycle.step()
    assert cycle.get_last_lr()[0] == pytest.approx(2e-4)


@pytest.mark.parametrize("options", [{"total_steps": 9, "warmup": 5}, {"total_steps": 9, "warmup": -0.1}])
def test_a_warm_up_that_is_no_share_of_the_run_is_refused(options) -> None:
    with pytest.raises(UserError, match="is a share of the run: give one from 0 to 1"):
        rates(OneCycle, 1, **options)


def test_a_warm_up_of_no_steps_is_refused() -> None:
    with pytest.raises(UserError, match=r"schedule\.warmup=0 counts steps: give 1 or more"):
        rates(InverseSquareRoot, 1, warmup=0)
