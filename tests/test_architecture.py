"""Who may import whom, and that configs and classes match one to one; read off the source, nothing is run for it."""

import ast
import importlib
import inspect
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "attnlab"
CONF = ROOT / "conf"
MODULES = sorted(PACKAGE.rglob("*.py"))

# The law of layers: each part may import itself and the parts named here, of this package.
LEAVES = {"errors", "files"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "help": set(),
    "allocator": set(),
    "terminal": set(),
    "kernels": set(),
    "attention": {"kernels"},
    "nn": {"attention", "kernels"},
    "decoding": {"kernels"},
    "data": LEAVES,
    "evaluation": LEAVES,
    "tasks": {"kernels", "attention", "nn", "decoding", "data", "evaluation"} | LEAVES,
    "callbacks": {"attention", "nn", "tasks", "decoding", "data", "evaluation", "terminal"} | LEAVES,
    "experiment": {
        "kernels",
        "attention",
        "nn",
        "decoding",
        "data",
        "evaluation",
        "tasks",
        "callbacks",
        "help",
        "allocator",
        "terminal",
    }
    | LEAVES,
    "report": {"evaluation"} | LEAVES,
    "cli": {"experiment", "help"} | LEAVES,
}
MATHEMATICS = ("attention", "nn", "decoding")
LIGHTNING = ("tasks", "data", "callbacks", "experiment")
HYDRA = {"cli.py", "help.py", "experiment/build.py"}


@cache
def parse(path):
    return ast.parse(path.read_text())


def identify(path):
    return path.relative_to(PACKAGE).as_posix()


def part(path):
    """The top-level part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Every module that a file imports, also inside functions, by its full name."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that they can be read"
            # `from attnlab import files` imports attnlab.files
            whole = node.module == "attnlab"
            yield from (f"attnlab.{name.name}" for name in node.names) if whole else (node.module,)


every_module = pytest.mark.parametrize("path", MODULES, ids=identify)


@every_module
def test_imports_follow_the_layers(path):
    own = part(path)
    if own == "__init__":
        assert not [name for name in imports(path) if name.startswith("attnlab")]
        return
    assert own in ALLOWED, f"say in ALLOWED where {own} stands"
    for name in imports(path):
        if name.split(".")[0] == "attnlab":
            assert name.split(".")[1] in ALLOWED[own] | {own}, f"{identify(path)} imports {name}"


@pytest.mark.parametrize("path", [path for path in MODULES if part(path) in MATHEMATICS], ids=identify)
def test_the_mathematics_knows_only_torch_entmax_and_the_standard_library(path):
    for name in imports(path):
        top = name.split(".")[0]
        assert top in {"torch", "entmax", "attnlab"} | sys.stdlib_module_names, f"{identify(path)} imports {name}"


@every_module
def test_hydra_and_omegaconf_stay_in_their_places(path):
    found = {name for name in imports(path) if name.split(".")[0] in ("hydra", "omegaconf", "hydra_plugins")}
    assert not found or identify(path) in HYDRA


@every_module
def test_only_build_instantiates(path):
    names = {node.id for node in ast.walk(parse(path)) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(parse(path)) if isinstance(node, ast.Attribute)}
    assert "instantiate" not in names | attributes or identify(path) == "experiment/build.py"


@every_module
def test_lightning_is_pytorch_lightning_and_stays_in_its_places(path):
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & {"lightning", "lightning_fabric"}
    assert "pytorch_lightning" not in tops or part(path) in LIGHTNING


@every_module
def test_nothing_imports_scripts_or_tests(path):
    assert not {name.split(".")[0] for name in imports(path)} & {"scripts", "tests", "train"}


def public_classes(module_name):
    """The concrete public classes that a module defines, by their full names."""
    module = importlib.import_module(module_name)
    return {
        f"{module_name}.{name}"
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and value.__module__ == module_name
        and not name.startswith("_")
        and not inspect.isabstract(value)
    }


@pytest.mark.parametrize(
    ("group", "modules", "records"),
    [
        ("attention/score", ("scores",), set()),
        ("attention/normalizer", ("normalizers",), set()),
        (
            "attention/estimator",
            ("estimators", "reinforce", "gumbel", "variational"),
            {"attnlab.attention.estimators.Objective"},
        ),
        ("attention/estimator/baseline", ("baselines",), set()),
        ("model/decoder", ("decoders",), {"attnlab.nn.decoders.DecoderState", "attnlab.nn.decoders.Decoded"}),
        ("model/stem", ("patches",), set()),
        ("model/positions", ("positions",), set()),
        ("model/pooling", ("vit",), {"attnlab.nn.vit.ViT"}),
    ],
)
def test_leaf_yamls_and_concrete_classes_match_one_to_one(group, modules, records):
    part = "nn" if group.startswith("model") else "attention"
    classes = set().union(*(public_classes(f"attnlab.{part}.{module}") for module in modules))
    targets = [yaml.safe_load(path.read_text())["_target_"] for path in sorted((CONF / group).glob("*.yaml"))]
    assert len(targets) == len(set(targets)), "a class has one yaml"
    assert set(targets) == classes - records


def test_every_target_in_a_config_is_a_definition_of_its_module():
    for path in CONF.rglob("*.yaml"):
        target = (yaml.safe_load(path.read_text()) or {}).get("_target_", "")
        module, _, name = target.rpartition(".")
        if target.startswith("attnlab."):  # read, since importing the data modules takes seconds
            file = PACKAGE.parent / (module.replace(".", "/") + ".py")
            file = file if file.is_file() else file.with_suffix("") / "__init__.py"
            assert name in {getattr(node, "name", None) for node in parse(file).body}, f"{path}: {target}"
        elif target:
            assert hasattr(importlib.import_module(module), name), f"{path}: {target}"


def test_every_default_of_a_config_exists():
    for path in CONF.rglob("*.yaml"):
        for entry in (yaml.safe_load(path.read_text()) or {}).get("defaults", []):
            if isinstance(entry, str):
                assert entry == "_self_" or (path.parent / f"{entry}.yaml").is_file(), f"{path}: {entry}"
                continue
            ((group, option),) = entry.items()
            group = group.removeprefix("override ")
            if group.startswith("hydra/"):
                continue  # Hydra's own options
            folder = CONF / group[1:] if group.startswith("/") else path.parent / group
            assert option is None or (folder / f"{option}.yaml").is_file(), f"{path}: {group}={option}"


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_config_starts_with_its_description(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# "), "the first comment is what --help shows"
    assert len(lines[0]) > 5
