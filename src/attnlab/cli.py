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
    arguments = sys.argv[1:]
    if any(argument in ("--help", "-h") for argument in arguments):
        from attnlab.help import help_text

        print(help_text(CONF))
        return
    try:
        sys.exit(_launch(arguments))
    except UserError as error:
        print(f"attnlab: {error}", file=sys.stderr)
        sys.exit(2)


def _launch(arguments: list[str]) -> int:
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

        overrides = list(HydraConfig.get().overrides.task)
        codes.append(_run(OmegaConf.to_container(config, resolve=True), overrides))

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and leaving
    try:
        application()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, CONF, arguments)) from error
    return max(codes, default=0)


def _run(config: Any, overrides: list[str]) -> int:
    from attnlab.experiment.run import run

    try:
        return run(config, overrides)
    except UserError as error:
        print(f"attnlab: {error}", file=sys.stderr)
        return 1
