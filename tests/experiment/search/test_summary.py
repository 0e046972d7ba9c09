"""What the terminal shows of a search."""

import io

from optuna.distributions import CategoricalDistribution, FloatDistribution
from rich.console import Console

from attnlab.experiment.search.space import Goal, Plan
from attnlab.experiment.search.summary import Row, table


def test_the_table_has_the_best_trials_under_headings_that_tell_the_keys_apart():
    space = FloatDistribution(0, 1)
    keys = {"model.dropout": space, "optimizer.lr": space, "model.encoder.lr": space}
    plan = Plan({}, keys | {"attention": CategoricalDistribution(("dot", "1"))}, {})
    params = {"model.dropout": "0.123456789", "optimizer.lr": "1e-05", "model.encoder.lr": "2.0", "attention": "dot"}
    found = [Row(3, "finished", 57.123456789, 8, params, "trial=3"), Row(1, "failed", None, 0, params)]
    shown = io.StringIO()
    Console(file=shown, width=100).print(
        table([*found, Row(7, "failed", None, 0)], plan, Goal("val/x", "max"), "", most=2)
    )
    text = shown.getvalue()
    for words in (
        "│ dropout ",
        "│ optimizer.lr ",
        "│ encoder.lr ",
        "│ trial=3 ",
        "│ 57.1235 ",
        "│ 0.1235 ",
        "│ 1e-05 ",
        "│ trial=1 ",
    ):
        assert words in text.replace("┃", "│"), text
    assert "trial=7" not in text
