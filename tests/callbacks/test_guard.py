"""What stops a run."""

import signal
from types import SimpleNamespace

import pytest
import torch

from attnlab.callbacks.guard import FiniteLoss, Patience, StopAtLearningRate, StopAtOnce
from attnlab.errors import UserError


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_is_an_error_that_says_where(loss: float) -> None:
    trainer = SimpleNamespace(current_epoch=2, global_step=7)
    with pytest.raises(UserError, match=r"epoch 3, step 7\. The checkpoints of earlier epochs are kept"):
        FiniteLoss().on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, 0)


def test_a_number_passes() -> None:
    FiniteLoss().on_train_batch_end(None, None, {"loss": torch.tensor(3.0)}, None, 0)


def test_weights_that_are_no_numbers_do_not_reach_a_checkpoint() -> None:
    trainer = SimpleNamespace(current_epoch=0, global_step=4)
    model = torch.nn.Linear(2, 2)
    FiniteLoss().on_save_checkpoint(trainer, model, {})
    with torch.no_grad():
        model.bias[1] = float("inf")
    with pytest.raises(UserError, match=r"bias among them, in epoch 1, after step 4\. The checkpoints of earlier"):
        FiniteLoss().on_save_checkpoint(trainer, model, {})


def test_a_learning_rate_that_has_fallen_far_enough_stops_the_run() -> None:
    for rate, step, stops in ((2e-5, 9, False), (1e-5, 9, True), (5e-6, 9, True), (5e-6, 0, False)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        trainer = SimpleNamespace(optimizers=[optimizer], should_stop=False, global_step=step)
        for hook in ("on_validation_end", "on_train_start"):  # and a run that goes on from there
            trainer.should_stop = False
            getattr(StopAtLearningRate(1e-5), hook)(trainer, None)
            assert trainer.should_stop == stops


def test_a_run_that_has_lost_its_patience_does_not_go_on() -> None:
    for patience, waited, stops in ((0, 0, False), (0, 1, True), (2, 1, False), (2, 2, True)):
        trainer, found = SimpleNamespace(should_stop=False), Patience("val/loss", patience=patience)
        found.load_state_dict(found.state_dict() | {"wait_count": waited})
        found.on_train_start(trainer, None)
        assert trainer.should_stop == stops


def test_sigterm_ends_the_training_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        StopAtOnce().on_train_start(None, None)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
