"""The command line: composes a config and hands it to `attnlab.experiment.run`. Heavy imports wait until then."""

import os
import sys
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
    sys.argv[1:] = [_quoted(argument) for argument in sys.argv[1:]]
    sys.exit(_launch())


def _quoted(argument: str) -> str:
    """Quotes a path, so that Hydra's grammar leaves its `=`, blanks and brackets alone."""
    key, sign, value = argument.partition("=")
    if key not in ("run_dir", "data.path") or not sign or value[:1] in ("'", '"', "$", "?"):
        return argument
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{escaped}"'


def _launch() -> int:
    """Runs Hydra's application; its mistakes in composing become sentences."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from attnlab.help import explain

    codes: list[int] = []

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def application(config: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        try:
            resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            codes.append(_run(resolved, list(HydraConfig.get().overrides.task)))
        except OmegaConfBaseException as error:
            _complain(explain(error))
            codes.append(2)
        except UserError as error:
            _complain(str(error))
            codes.append(1)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and leaving
    try:
        application()
    except (HydraException, OmegaConfBaseException) as error:
        _complain(explain(error))
        return 2
    return max(codes, default=0)


def _run(config: Any, overrides: list[str]) -> int:
    from attnlab.experiment.build import check_types
    from attnlab.experiment.run import run

    check_types(CONF, overrides, config)
    return run(config, overrides)


def _complain(sentence: str) -> None:
    print(f"attnlab: {sentence}", file=sys.stderr)
