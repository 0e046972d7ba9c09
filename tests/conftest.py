"""What several folders of tests share."""

import gc
import os
import signal
from pathlib import Path

import pytest
import warm

ROOT = Path(__file__).resolve().parents[1]

# two workers share the cores; threads of both that wait for each other would stand in each other's way
os.environ.setdefault("OMP_NUM_THREADS", "1")
# a shell's background jobs ignore Ctrl-C, and so would the commands that tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs whole commands goes first, so that no worker is left alone with it in the end."""
    items.sort(key=lambda item: item.path.parent not in (ROOT / "tests", ROOT / "tests" / "scripts"))


def pytest_collection_finish() -> None:
    """What is imported and collected stays, and the collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny run with hard attention, so with several test modes, made by train.py itself."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    command = [
        ROOT / "train.py", "attention=hard", "data.train=200", "data.validation=8",
        "data.test=12", "data.tokenizer.min_frequency=2", "data.max_sentences=8", "model.embedding=32",
        "model.encoder_size=32", "model.decoder_size=64", "optimizer.lr=0.01", "trainer.max_epochs=1", "search.beam=2",
        "maps=0", "wandb.mode=disabled", f"run_dir={directory}",
    ]  # fmt: skip
    ended = warm.run_text(command, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return directory
