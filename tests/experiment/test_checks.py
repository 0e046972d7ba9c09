"""Values that no run can use are refused with a sentence, before anything is imported or read."""

import pytest

from attnlab.cli import CONF
from attnlab.errors import UserError
from attnlab.experiment.build import compose
from attnlab.experiment.checks import check_values


def check(*overrides):
    check_values(CONF, overrides, compose(CONF, overrides))


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("seed=-1", "a whole number from 0 to 4294967295"),
        ("seed=4294967296", "a whole number from 0 to 4294967295"),
        ("maps=-3", "a whole number of 0 or more"),
        ("search.beam=0", "a whole number of 1 or more"),
        ("search.alpha=1000", "a number from -10 to 10"),
        ("search.alpha=nan", "a number from -10 to 10"),
        ("search.draws=0", "a whole number of 1 or more"),
        ("task.patience=-1", "a whole number of 0 or more"),
        ("trainer.max_epochs=abc", "a whole number of 1 or more"),
        ("trainer.max_epochs=1.5", "a whole number of 1 or more"),
        ("trainer.max_epochs=true", "a whole number of 1 or more"),
        ("trainer.max_epochs=-1", "a whole number of 1 or more"),
        ("trainer.max_epochs=0", "a whole number of 1 or more"),
        ("+trainer.max_steps=0", "a whole number of 1 or more"),
        ("+trainer.max_steps=abc", "a whole number of 1 or more"),
        ("trainer.gradient_clip_val=-1", "a number of 0 or more"),
        ("trainer.gradient_clip_val=nan", "a number of 0 or more"),
        ("trainer.log_every_n_steps=-3", "a whole number of 0 or more"),
    ],
)
def test_a_number_out_of_range_is_named_with_the_range(override, allowed):
    with pytest.raises(UserError) as refusal:
        check(override)
    key, _, value = override.lstrip("+").partition("=")
    assert str(refusal.value).replace("NaN", "nan").startswith(f"{key}={value} must be {allowed}")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("task.epochs=0", "trainer.max_epochs=0 must be a whole number of 1 or more"),
        ("trainer.max_epochs=null", r"add \+trainer.max_steps=N"),
        ("wandb.mode=foo", "wandb.mode=foo is none of W&B's: choose offline, online or disabled"),
        ("trainer.precision=bf16-true", "choose 32-true, bf16-mixed or 64-true"),
        ("trainer.precision=fp8", "choose 32-true, bf16-mixed or 64-true"),
        ("trainer.precision=16", "scales the loss"),
        ("~attention", "Every run has attention, and ~attention leaves it out"),
        ("~model", "Every run has model"),
        ("~seed", "Every run has seed"),
        ("~task.patience", "Every run has task.patience"),
        ("~search.beam", "Every run has search.beam"),
    ],
)
def test_other_values_that_no_run_can_use_are_refused_too(override, sentence):
    with pytest.raises(UserError, match=sentence):
        check(override)


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=0", "maps=0", "task.patience=0"],
        ["trainer.max_epochs=null", "+trainer.max_steps=5"],
        ["trainer.gradient_clip_val=null", "trainer.precision=bf16"],
        ["trainer.gradient_clip_val=0", "trainer.precision=32"],
        ["~optimizer.eps", "~data.language"],
        ["~experiment", "attention=hard"],
    ],
    ids=" ".join,
)
def test_what_a_run_can_do_with_passes(overrides):
    check(*overrides)
