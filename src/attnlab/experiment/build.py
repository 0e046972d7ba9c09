"""From specs to objects. The only place that instantiates, and the gate that every spec passes.

Also where a script composes a config without being a Hydra application itself. Imports torch where it is needed, so
that mistakes in a command are told at once.
"""

import importlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnlab.errors import UserError
from attnlab.experiment.lean import import_lightning

if TYPE_CHECKING:
    import torch

_OWN = ("attnlab.attention.", "attnlab.nn.", "attnlab.data.", "attnlab.tasks.")


def build(spec: dict[str, Any]) -> Any:
    """Makes the object (or, where `_partial_` is set, the factory) that a spec describes, nested specs included.

    Raises:
        UserError: if a target is neither a definition of this package nor a torch optimizer or schedule, or if a
            class refuses its arguments with a sentence.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    _check_targets(spec)
    try:
        return instantiate(spec, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError | ValueError):
            raise UserError(str(error.__cause__)) from error
        if isinstance(error.__cause__, TypeError):
            raise UserError(f"{spec.get('_target_')} does not take these options: {error.__cause__}") from error
        raise
    except ValueError as error:  # from a factory that was called by the object above it
        raise UserError(str(error)) from error


def _check_targets(spec: Any) -> None:
    """Refuses every target but this package's own definitions and torch's optimizers and schedules.

    A checkpoint may come from a stranger, and a target is called; so the name must lead straight to a definition,
    not through what a module happens to import.
    """
    if isinstance(spec, list | tuple):
        for part in spec:
            _check_targets(part)
    if not isinstance(spec, dict):
        return
    for part in spec.values():
        _check_targets(part)
    if "_target_" not in spec:
        return
    target = str(spec["_target_"])
    module_name, _, name = target.rpartition(".")
    allowed = False
    if target.startswith(_OWN):
        found = vars(_module(module_name, target)).get(name)
        allowed = getattr(found, "__module__", None) == module_name
    elif target.startswith("torch.optim."):
        from torch.optim import Optimizer
        from torch.optim.lr_scheduler import LRScheduler

        found = vars(_module(module_name, target)).get(name)
        allowed = isinstance(found, type) and issubclass(found, Optimizer | LRScheduler)
    if not allowed:
        raise UserError(
            f"The target {target!r} is refused: a spec may name definitions of attnlab's attention, nn, data and tasks "
            "modules, torch optimizers and torch schedules, and nothing else."
        )


def _module(name: str, target: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"The target {target!r} does not exist: there is no module {name}.") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint without running any of its code.

    Raises:
        UserError: if it is missing, truncated, or holds anything but tensors and primitives.
    """
    import torch

    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}; train the run first, or give the directory of another.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a file of anything the reader may raise anything
        reason = next(iter(str(error).splitlines()), type(error).__name__).partition(". In PyTorch")[0][:120]
        raise UserError(
            f"The checkpoint {path} cannot be read: it is truncated, or holds more than tensors and "
            f"primitives ({reason})."
        ) from error
    if not isinstance(checkpoint, dict) or not {"hyper_parameters", "state_dict"} <= checkpoint.keys():
        raise UserError(f"The checkpoint {path} is not one of attnlab's: it lacks hyper_parameters and state_dict.")
    return checkpoint


def load_weights(task: "torch.nn.Module", path: Path) -> None:
    """Loads a checkpoint's parameters into a task of the same shape; UserError where they do not fit."""
    state = load_checkpoint(path)["state_dict"]
    try:
        task.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise UserError(
            f"The checkpoint {path} does not fit the model that its run describes: {lines[-1].strip()}"
        ) from error


def load_task(path: Path) -> Any:
    """Rebuilds a trained task, in evaluation mode, from its checkpoint alone."""
    checkpoint = load_checkpoint(path)

    import_lightning()
    from attnlab.experiment.domains import DOMAINS  # slow to import: after what is wrong with the file

    domain = DOMAINS.get(checkpoint.get("task", ""))
    if domain is None:
        raise UserError(f"The checkpoint {path} names no task of attnlab's; those are {', '.join(DOMAINS)}.")
    try:
        task = domain.task(**checkpoint["hyper_parameters"], build=build)
    except TypeError as error:
        raise UserError(f"The checkpoint {path} describes no attnlab task: {error}") from error
    load_weights(task, path)
    return task.eval()


def compose(conf: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The config of a run as the command line composes it, resolved; `run_dir` is null, and `???` stays as it is.

    Raises:
        UserError: if an override names what there is not.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from attnlab.help import explain

    within = GlobalHydra.instance().is_initialized()  # inside the application, Hydra knows its configs already
    try:
        with nullcontext() if within else hydra.initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            config = hydra.compose("config", [*overrides, "run_dir=null"])
        resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, conf)) from error
    return resolved


def compose_data(conf: Path, base: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The data config that `data=...` and `data.KEY=...` make of a run's own.

    Args:
        conf: the folder of configs.
        base: the run's own data config, which the keys change; `data=GROUP` puts that group's in its place.
        overrides: in Hydra's grammar.

    Raises:
        UserError: for an override of anything else, a key that the config lacks, a value of another type, or one
            that is still missing.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from attnlab.experiment.checks import check_type
    from attnlab.help import malformed, unknown_key

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        sentence = malformed(getattr(error, "override", ""), str(error).splitlines()[0])
        raise UserError(f"{sentence} Give data=GROUP or data.KEY=VALUE.") from error
    groups = [part for part in parsed if part.key_or_group == "data"]
    chosen = compose(conf, [groups[-1].input_line or ""])["data"] if groups else base
    if not chosen:
        raise UserError(f"{groups[-1].input_line} leaves no corpus: give data=GROUP.")
    config = OmegaConf.create(chosen)
    for part in parsed:
        key = part.key_or_group.removeprefix("data.")
        if part.key_or_group == "data":
            continue
        if key == part.key_or_group or part.is_sweep_override() or part.is_delete() or part.is_add():
            raise UserError(f"{part.input_line} is refused: only data=GROUP and data.KEY=VALUE can be given here.")
        if key.split(".")[0] == "tokenizer":
            raise UserError(f"{part.input_line} is refused: a trained run can only be used with its own tokenizers.")
        parent = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
        valid = [str(name) for name in parent or () if not str(name).startswith("_") and name != "tokenizer"]
        if key.rpartition(".")[2] not in valid:
            hint = "" if groups else " For a corpus of another kind add, for instance, data=parallel."
            raise UserError(unknown_key(f"data.{key}", valid) + hint)
        check_type(f"data.{key}", OmegaConf.select(config, key), part.value())
        OmegaConf.update(config, key, part.value(), merge=True, force_add=True)
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"data.{missing[0]} must be given: add data.{missing[0]}=VALUE to the command.")
    resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return resolved
