"""The command line: composes a config and hands it to `attnlab.experiment.run`. Heavy imports wait until then."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnlab.errors import UserError

PACKAGE = Path(__file__).resolve().parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1] / "conf"
"""The configs: inside an installed package, else at the top of the checkout."""


def main() -> None:
    """The entry point of `train.py` and `attnlab-train`."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        from attnlab.help import help_text

        print(help_text(CONF))
        return
    sys.exit(_sweep() if {"--multirun", "-m"} & set(sys.argv[1:]) else _launch())


def _sweep() -> int:
    """Runs every point of a sweep, whatever becomes of the others, and says how they ended."""
    if any(argument.startswith("run_dir=") for argument in sys.argv[1:]):
        _complain("A sweep has a directory for each point, so run_dir cannot be set; set hydra.sweep.dir=FOLDER.")
        return 2
    from attnlab.experiment.sweep import summarize

    sys.argv[1:] = [*sys.argv[1:], *sweep_overrides(sys.argv[1:])]
    directory = Path(next(a for a in reversed(sys.argv) if a.startswith("hydra.sweep.dir=")).partition("=")[2])
    try:
        code = _launch()
    except KeyboardInterrupt:
        code = 130
    if code == 2:
        return code  # a mistake in the command: no point was run
    return max(code, summarize(directory))


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
    key, sign, value = argument.partition("=")
    if key not in ("run_dir", "data.path", "hydra.sweep.dir") or not sign or value[:1] in ("'", '"', "$", "?"):
        return argument
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{escaped}"'


def _launch() -> int:
    """Runs Hydra's application; its mistakes in composing become sentences."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from attnlab.help import explain

    codes: list[int] = []

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def application(config: DictConfig) -> None:
        codes.append(_point(config))

    sys.argv[1:] = [_quoted(argument) for argument in sys.argv[1:]]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and leaving
    try:
        application()
    except (HydraException, OmegaConfBaseException) as error:
        _complain(explain(error))
        return 2
    return max(codes, default=0)


def _point(config: Any) -> int:
    """One run from Hydra's config: the exit code. Of a sweep it ends in no exception, lest the other points wait."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from attnlab.help import explain

    job = HydraConfig.get()
    swept = job.mode == RunMode.MULTIRUN
    try:
        resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        if swept:
            resolved["run_dir"] = os.path.normpath(job.runtime.output_dir)
        choices = {name: option for name, option in job.runtime.choices.items() if not name.startswith("hydra/")}
        return _run(resolved, list(job.overrides.task), choices, swept)
    except OmegaConfBaseException as error:
        _complain(explain(error))
        return 1 if swept else 2
    except UserError as error:
        _complain(str(error))
        return 1
    except Exception:
        if not swept:
            raise
        traceback.print_exc()
        return 1


def _run(config: Any, overrides: list[str], choices: dict[str, Any], swept: bool) -> int:
    from attnlab.experiment.build import check_types
    from attnlab.experiment.run import INTERRUPTED, run

    check_types(CONF, overrides, config)
    code = run(config, overrides, choices)
    if swept and code == INTERRUPTED:
        raise KeyboardInterrupt
    return code


def _complain(sentence: str) -> None:
    print(f"attnlab: {sentence}", file=sys.stderr)
