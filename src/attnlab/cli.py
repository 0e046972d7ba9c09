"""The command line: composes a config and hands it to `attnlab.experiment.run`. Heavy imports wait until then."""

import gc
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnlab.errors import INTERRUPTED, UserError

if TYPE_CHECKING:
    from attnlab.experiment.sweep import Sweep

PACKAGE = Path(__file__).resolve().parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1] / "conf"
"""The configs: inside an installed package, else at the top of the checkout."""
_OF_SWEEPS = ("hydra.sweep", "hydra/sweep", "hydra.launcher", "hydra/launcher", "hydra.mode", "hydra.job.config")
"""How Hydra's overrides begin that a single run does without."""


def main() -> None:
    """The entry point of `train.py` and `attnlab-train`."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        from attnlab.help import help_text

        print(help_text(CONF))
        return
    gc.disable()  # what is imported stays; training has it collect again
    try:
        sys.exit(_sweep() if {"--multirun", "-m"} & set(sys.argv[1:]) else _single())
    except KeyboardInterrupt:  # before a run has begun, which answers it itself
        _complain("Interrupted before a run began.")
        sys.exit(INTERRUPTED)


def _single() -> int:
    if any(argument.startswith("hydra.run.dir=") for argument in sys.argv[1:]):
        _complain("hydra.run.dir has no effect here; set run_dir=FOLDER.")
        return 2
    codes: list[int] = []
    return _compose(lambda config: codes.append(_run_alone(config))) or max(codes, default=0)


def _sweep() -> int:
    """Runs every point of a sweep, whatever becomes of the others, and says how they ended."""
    if any(argument.startswith("run_dir=") for argument in sys.argv[1:]):
        _complain("A sweep has a directory for each point, so run_dir cannot be set; set hydra.sweep.dir=FOLDER.")
        return 2
    from attnlab.experiment.sweep import Sweep, summarize

    sys.argv[1:] = [*sys.argv[1:], *sweep_overrides(sys.argv[1:])]
    directory = Path(next(a for a in reversed(sys.argv) if a.startswith("hydra.sweep.dir=")).partition("=")[2])
    sweep = Sweep(directory)
    try:
        code = _compose(lambda config: _run_point(sweep, config))
        if code == 2:
            return code  # a mistake in the command: no point was run
        sweep.launch()
    except UserError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        code = INTERRUPTED
    return max(code, summarize(directory, sweep.failures))


def sweep_overrides(arguments: Sequence[str]) -> list[str]:
    """What a sweep's command line leaves to be said: its directory, and which keys name its points.

    Args:
        arguments: the command line, in Hydra's grammar.

    Returns:
        overrides for Hydra. The directory is outputs/sweeps/EXPERIMENT (or TASK, without an experiment) unless it is
        given; a point is named after the keys that vary, the seed apart.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    added, constant, choices = [], ["seed"], {"experiment": "", "task": "translation"}
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if not sign or argument.startswith("-"):
            continue
        choices |= {key: value} if key in choices else {}
        try:
            swept = OverridesParser.create().parse_override(argument).is_sweep_override()
        except HydraException:
            continue  # Hydra itself will say what is wrong
        if not swept:
            constant.append(key.lstrip("+~"))
    if not any(argument.startswith("hydra.sweep.dir=") for argument in arguments):
        name = choices["experiment"] or choices["task"]
        added.append(f"hydra.sweep.dir=outputs/sweeps/{name}")
    names = ",".join(f"'{key}'" for key in dict.fromkeys(constant))
    return [*added, f"hydra.job.config.override_dirname.exclude_keys=[{names}]"]


def _quoted(argument: str) -> str:
    """Quotes a path, so that Hydra's grammar leaves its `=`, blanks and brackets alone."""
    key, _, value = argument.partition("=")
    path = value[:1] not in ("", "'", '"', "$", "?") and value != "null"
    if key not in ("run_dir", "data.path", "hydra.sweep.dir") or not path:
        return argument
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{escaped}"'


def _compose(job: Callable[[Any], None]) -> int:
    """Calls a job with each config that Hydra composes from the command; 2 if it cannot, and a sentence."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from attnlab.help import explain, malformed

    for argument in sys.argv[1:]:
        key, _, value = argument.partition("=")
        if value == "null" and key != "experiment" and (CONF / key).is_dir():  # of which Hydra makes a traceback
            options = ", ".join(sorted(path.stem for path in (CONF / key).glob("*.yaml")))
            _complain(f"{argument} chooses nothing; the options of {key} are {options}.")
            return 2
    if nameless := [argument for argument in sys.argv[1:] if argument.lstrip("+~").startswith("=")]:
        _complain(malformed(nameless[0], ""))  # over which Hydra stumbles
        return 2

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def application(config: DictConfig) -> None:
        job(config)

    # of launchers that plugins of Hydra's bring too, where they are installed; the options of ours fit theirs
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
    sys.argv[1:] = [_quoted(argument) for argument in sys.argv[1:]]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and leaving
    try:
        application()
    except (HydraException, OmegaConfBaseException) as error:
        _complain(explain(error, CONF))
        return 2
    return 0


def _run_alone(config: Any) -> int:
    """A run that is no point of a sweep: its exit code."""
    from omegaconf.errors import OmegaConfBaseException

    from attnlab.experiment.run import run
    from attnlab.help import explain

    try:
        return run(*_resolve(config))
    except OmegaConfBaseException as error:
        _complain(explain(error, CONF))
        return 2
    except UserError as error:
        _complain(str(error))
        return 1


def _run_point(sweep: "Sweep", config: Any) -> None:
    """Runs a point of a sweep, or leaves it to the launcher. It ends in no exception, lest the other points wait."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf.errors import OmegaConfBaseException

    from attnlab.help import explain

    directory = Path(os.path.normpath(HydraConfig.get().runtime.output_dir))
    try:
        if _run_or_leave(sweep, config, directory) == INTERRUPTED:
            raise KeyboardInterrupt
        return
    except OmegaConfBaseException as error:
        why = explain(error, CONF)
    except UserError as error:
        why = str(error)
    except Exception as error:
        traceback.print_exc()
        why = str(error) or type(error).__name__
    _complain(why)
    sweep.fail(directory, why)


def _run_or_leave(sweep: "Sweep", config: Any, directory: Path) -> int:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from attnlab.experiment.launchers import LAUNCHERS
    from attnlab.experiment.launchers.several import refuse_several_processes
    from attnlab.experiment.run import run

    job = HydraConfig.get()
    resolved, overrides, choices = _resolve(config)
    resolved["run_dir"] = str(directory)
    options: Any = OmegaConf.to_container(job.launcher, resolve=True)
    name = options.pop("_target_").rpartition(".")[2]
    launcher = name if name in LAUNCHERS else None
    refuse_several_processes(resolved["trainer"], launcher)
    if launcher is None:
        return run(resolved, overrides, choices, point=True)
    sweep.launcher, sweep.options = launcher, options
    sweep.add(directory, resolved, _command(job, directory))
    return 0


def _command(job: Any, directory: Path) -> list[str]:
    """The command that runs a point of a sweep by itself."""
    folders = [f"--config-dir={s.path}" for s in job.runtime.config_sources if s.provider == "command-line"]
    kept = [part for part in job.overrides.hydra if not part.lstrip("+~").startswith(_OF_SWEEPS)]
    return [sys.executable, os.path.abspath(sys.argv[0]), *folders, *job.overrides.task, *kept, f"run_dir={directory}"]


def _resolve(config: Any) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """From Hydra's config: primitives, the command's overrides, and the option chosen of each group."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from attnlab.experiment.checks import check_values

    job = HydraConfig.get()
    resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    choices = {name: option for name, option in job.runtime.choices.items() if not name.startswith("hydra/")}
    overrides = list(job.overrides.task)
    check_values(CONF, overrides, resolved)
    return resolved, overrides, choices


def _complain(sentence: str) -> None:
    print(f"attnlab: {sentence}", file=sys.stderr)
