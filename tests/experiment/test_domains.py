"""What the kinds of task share."""

import pytest

from attnlab.cli import CONF
from attnlab.errors import UserError
from attnlab.experiment.build import compose
from attnlab.experiment.domains import DOMAINS


def test_examples_that_stand_in_the_training_split_too_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = DOMAINS["translation"]
    monkeypatch.setattr(type(domain), "examples", lambda self, data, split: iter(data[split]))
    data = {"train": [b"a", b"b", b"b", b"c"], "test": [b"b", b"d", b"b", b"a"], "validation": [b"e"]}
    assert (domain.known(data, "test"), domain.known(data, "validation")) == (3, 0)


def test_a_test_split_is_scored_whole() -> None:
    with pytest.raises(UserError, match=r"trainer\.limit_test_batches has no effect"):
        DOMAINS["translation"].check(compose(CONF, ["+trainer.limit_test_batches=1"]))
