"""Hyperparameter search: an Optuna study whose trials are plain runs in directories of their own."""

import warnings
from typing import Any

from attnlab.errors import UserError


def need_optuna() -> Any:
    """Optuna, quiet; UserError where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError('A search needs Optuna, which is not installed: pip install -e ".[search]"') from error
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
