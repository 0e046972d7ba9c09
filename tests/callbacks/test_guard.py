"""A loss that is not a number stops the run."""

from types import SimpleNamespace

import pytest
import torch

from attnlab.callbacks.guard import FiniteLoss
from attnlab.errors import UserError


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_is_an_error_that_says_where(loss: float) -> None:
    trainer = SimpleNamespace(current_epoch=2, global_step=7)
    with pytest.raises(UserError, match=r"epoch 3, step 7\. The checkpoints of earlier epochs are kept"):
        FiniteLoss().on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, 0)


def test_a_number_passes() -> None:
    FiniteLoss().on_train_batch_end(None, None, {"loss": torch.tensor(3.0)}, None, 0)
