"""The moving average of the weights forgets where they began, and then has the decay that it was given."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from attnlab.callbacks.average import MovingAverage

STEPS, DECAY = 12, 0.5


class Counter(pl.LightningModule):
    """Its one weight is -100 at first and the number of the step after each."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(-100.0, dtype=torch.float64))

    def training_step(self, batch, batch_idx):
        return (self.weight - self.global_step - 1).square() / 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1.0)


def train(decay):
    module = Counter()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[MovingAverage(decay)],
    )  # fmt: skip
    trainer.fit(module, DataLoader(torch.zeros(STEPS, 1, dtype=torch.float64)))
    return module.weight.item()  # the average, which takes the weight's place in the end


def test_the_average_follows_its_recurrence():
    expected = 1.0  # the first step's
    for step in range(2, STEPS + 1):
        share = min(DECAY, step / (9 + step))
        expected = share * expected + (1 - share) * step
    assert abs(train(DECAY) - expected) < 1e-12


def test_a_slow_average_of_a_few_steps_is_of_these_and_not_of_the_initial_weights():
    assert 1 < train(0.9999) < STEPS


def test_the_average_of_doubles_is_taken():
    module = Counter()
    module.weight.data = module.weight.data.float()
    pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, precision="64-true", callbacks=[MovingAverage(DECAY)],
    ).fit(module, DataLoader(range(STEPS)))  # fmt: skip
    assert module.weight.dtype == torch.float64
    assert 0 < module.weight.item() < STEPS
