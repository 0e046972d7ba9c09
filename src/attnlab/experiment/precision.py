"""In which precision a run trains."""

from typing import Any

from attnlab.errors import UserError

PRECISIONS = ("32-true", "bf16-mixed", "64-true")
_SHORT = ("32", "bf16", "64")  # for the same


def check_precision(options: dict[str, Any]) -> None:
    """Refuses, with a UserError, a precision of a trainer's options in which no model of ours trains."""
    precision = str(options["precision"])
    if precision in (*PRECISIONS, *_SHORT):
        return
    why = ", which scales the loss, and so the gradients that are clipped," if precision.startswith("16") else ""
    choices = f"{', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"
    raise UserError(f"trainer.precision={precision}{why} is not supported: choose {choices}.")


def trainer_precision(options: dict[str, Any]) -> str:
    """The precision in which a trainer of these options will train: what they say, but for bf16 on a processor that has
    no instructions for it. There, a product takes hundreds of times longer, and oneDNN's recurrences fail."""
    import torch

    precision = str(options["precision"])
    accelerator = options.get("accelerator", "auto")
    on_processor = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    return "32-true" if "bf16" in precision and on_processor and not processor_knows_bf16() else precision


def processor_knows_bf16() -> bool:
    """Whether this processor has instructions for bf16; True where that cannot be told."""
    import torch

    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # of a build without oneDNN
        return True
