"""Sizes of models that make no model."""


def at_least_one(**sizes: int) -> None:
    """Refuses, with a ValueError that names it, an option of a model that is not 1 or more."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"model.{name}={size} must be 1 or more.")
