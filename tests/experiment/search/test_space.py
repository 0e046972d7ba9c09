"""Overrides with spaces in Hydra's grammar become Optuna's distributions; mistakes are told before any trial."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from attnlab.cli import CONF
from attnlab.errors import UserError
from attnlab.experiment.search.space import Goal, Plan, check, plan, written


def read(*overrides: str) -> Plan:
    return plan(OverridesParser.create().parse_overrides(list(overrides)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(0,0.4)", FloatDistribution(0, 0.4)),
        ("interval(1,4)", FloatDistribution(1, 4)),
        ("int(interval(1,4))", IntDistribution(1, 4)),
        ("tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("tag(log, int(interval(1, 64)))", IntDistribution(1, 64, log=True)),
        ("range(1,5)", IntDistribution(1, 4)),
        ("range(8,1,-2)", IntDistribution(2, 8, step=2)),
        ("range(3)", IntDistribution(0, 2)),
        ("range(0,0.5,0.1)", FloatDistribution(0, 0.4, step=0.1)),
        ("choice(dot,scaled)", CategoricalDistribution(("dot", "scaled"))),
        ("dot,scaled,dot", CategoricalDistribution(("dot", "scaled"))),
        ("choice([0],[0,1],all)", CategoricalDistribution(("[0]", "[0,1]", "all"))),
        ("true,false", CategoricalDistribution(("True", "False"))),
        ("1,2.5", CategoricalDistribution(("1", "2.5"))),
    ],
)
def test_a_space_in_hydras_grammar_is_a_distribution(text, expected):
    found = read(f"model.x={text}")
    assert found.spaces == {"model.x": expected}
    assert found.described() == read(f"model.x={text}".replace(",", ", ")).described()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("x=interval(4,1)", "no search space"),
        ("x=tag(log,interval(0,1))", "no search space"),
        ("x=range(0,1,0)", "step is 0"),
        ("x=range(5,1)", "holds no value"),
        ("x=glob(*)", "name the options"),
        ("x=tag(log,choice(a,b))", "no search space"),
        ("x=tag(even,interval(0,1))", "no tag 'even'"),
        ("run_dir=a,b", "--out"),
        ("hydra.sweep.dir=x", "--out"),
        ("x=1", "nothing to search"),
    ],
)
def test_what_is_no_space_is_refused_in_a_sentence(override, words):
    with pytest.raises(UserError, match=words):
        read(override)


def test_overrides_of_a_trial_are_the_fixed_ones_and_the_chosen_values_as_hydra_reads_them():
    found = read("experiment=digits", "attention=hard", "attention=dot,scaled", "+model.y=interval(0,1)", "~maps")
    assert found.fixed == {"experiment": "experiment=digits", "maps": "~maps"}
    given = found.overrides({"attention": "dot", "model.y": 1e-7 / 3})
    assert given == ["experiment=digits", "~maps", "attention=dot", "+model.y=3.3333333e-08"]
    parsed = OverridesParser.create().parse_overrides([f"a={written(value)}" for value in (3.3e-8, 2.0, 3, 1e22)])
    assert [override.value() for override in parsed] == [3.3e-8, 2.0, 3, 1e22]
    quoted = read("a=choice('x y','b,c')")
    for text, value in zip(quoted.spaces["a"].choices, ("x y", "b,c"), strict=True):
        (parsed_again,) = OverridesParser.create().parse_overrides(quoted.overrides({"a": text}))
        assert parsed_again.value() == value


def test_the_goal_comes_from_the_config_and_every_choice_is_composed():
    digits = ("experiment=digits", "attention=dot,scaled", "model.variant_layers=choice([0],all)")
    assert check(CONF, read(*digits)) == Goal("val/accuracy", "max", 60)
    minimum = check(
        CONF, read("data.train=range(1,3)", "task.monitor=val/loss", "task.mode=min", "trainer.max_epochs=2")
    )
    assert minimum == Goal("val/loss", "min", 2)
    assert minimum.best([3.0, 1.0, 2.0]) == 1
    assert minimum.best([]) is None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("attention=dot,scald",), "attention=scald is not an option. Did you mean scaled"),
        (("model.dpeth=range(1,3)", "task=vision"), "Did you mean depth"),
        (("model.depth=interval(1,3)", "task=vision"), "must be a whole number"),
        (("model.depth=1,a", "task=vision"), "must be a whole number"),
        (("attention=hard,dot", "attention.estimator.samples=2,4"), "no key 'attention.estimator.samples'"),
        (("data=phrasebook,parallel",), "data.path must be given"),
        (("task=translation,vision",), "look for one metric"),
        (("seed=1,2", "task.mode=best"), "must be max or min"),
    ],
)
def test_mistakes_are_told_before_any_trial(overrides, words):
    with pytest.raises(UserError, match=words):
        check(CONF, read(*overrides))
