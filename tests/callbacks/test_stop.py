"""A training that is asked to stop at any moment goes on as if it had not been."""

import os
import signal

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from attnlab.callbacks.epochs import EpochSeeds
from attnlab.callbacks.stop import StopInOrder
from attnlab.data.batching import Resumable, TokenBatchSampler

LENGTHS = np.arange(12) + 1
BATCHES = 6
EPOCHS = 3


class Noisy(pl.LightningModule):
    """Learns under dropout, so that both the order of the data and the random numbers tell."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        rows, inputs = batch
        self.seen.append((self.current_epoch, rows.tolist()))
        return self.layers(inputs).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.layers(batch[1]).mean())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=BATCHES * EPOCHS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Signal(pl.Callback):
    """Sends this process a signal in a step of an epoch's training, or in its validation."""

    def __init__(self, epoch, step, times=1):
        super().__init__()
        self.epoch, self.step, self.times = epoch, step, times

    def send(self, trainer):
        if trainer.current_epoch == self.epoch:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.step:
            self.send(trainer)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if self.step == "validation" and batch_idx == 0:
            self.send(trainer)


def gather(rows):
    return torch.tensor(rows), torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(rows[0]))


def train(folder, *callbacks, resume=None, **options):
    pl.seed_everything(0, verbose=False)
    task = Noisy()
    sampler = TokenBatchSampler(LENGTHS, LENGTHS, max_tokens=10**6, max_sentences=2, shuffle=True)
    loader = DataLoader(range(12), batch_sampler=Resumable(sampler), collate_fn=gather, generator=torch.Generator())
    check = DataLoader(range(12), batch_size=6, collate_fn=gather, generator=torch.Generator())
    kept = pl.callbacks.ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    trainer = pl.Trainer(
        max_epochs=EPOCHS, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        num_sanity_val_steps=0, gradient_clip_val=1.0, default_root_dir=folder,
        callbacks=[EpochSeeds(1), *callbacks, StopInOrder(folder / "last.ckpt"), kept], **options,
    )  # fmt: skip
    try:
        trainer.fit(task, loader, check, ckpt_path=resume, weights_only=True)
    except (KeyboardInterrupt, SystemExit):
        return task, False
    return task, True


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    task, finished = train(tmp_path_factory.mktemp("whole"))
    assert finished
    assert len(task.seen) == BATCHES * EPOCHS
    return task


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("epoch", "step", "trained"),
    [(0, 0, 1), (0, 3, 4), (1, 1, 8), (1, 4, 11), (1, 5, 12), (0, "validation", 6), (2, 2, 15), (2, "validation", 18)],
)
def test_a_run_that_is_stopped_in_order_loses_no_step(whole, tmp_path, epoch, step, trained):
    handler = signal.getsignal(signal.SIGTERM)
    first, finished = train(tmp_path, Signal(epoch, step))
    assert not finished
    assert len(first.seen) == trained
    assert signal.getsignal(signal.SIGTERM) == handler
    second, finished = train(tmp_path, resume=tmp_path / "last.ckpt")
    assert finished
    assert first.seen + second.seen == whole.seen
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


@pytest.mark.filterwarnings("ignore")
def test_gradients_that_are_accumulated_are_not_lost(tmp_path):
    whole, _ = train(tmp_path / "whole", accumulate_grad_batches=2)
    first, finished = train(tmp_path, Signal(1, 2), accumulate_grad_batches=2)
    assert not finished
    assert len(first.seen) == BATCHES + 4
    second, _ = train(tmp_path, resume=tmp_path / "last.ckpt", accumulate_grad_batches=2)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_a_second_signal_waits_for_nothing(whole, tmp_path):
    _, finished = train(tmp_path, Signal(1, "validation", times=2))
    assert not finished
    second, finished = train(tmp_path, resume=tmp_path / "last.ckpt")
    assert finished
    assert second.seen == whole.seen[BATCHES:]  # from the checkpoint of the first epoch
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in whole.state_dict().items())
