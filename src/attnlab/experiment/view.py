"""What a person sees at the end of a run: the table."""

import re
from typing import Any

from rich.table import Table

_TRANSLATION = {
    "loss": ("loss", "nats per target token", "{:.3f}"),
    "bleu": ("BLEU", "sacreBLEU", "{:.2f}"),
    "chrf": ("chrF", "sacreBLEU", "{:.2f}"),
    "accuracy": ("exact match", "% of sentences", "{:.1f}"),
    "edit_distance": ("edit distance", "characters", "{:.3f}"),
    "aer": ("alignment error rate", "argmax links, words", "{:.3f}"),
    "aer_best_shift": ("  the same, shifted", "best shift of the links", "{:.3f}"),
    "entropy": ("attention entropy", "nats", "{:.3f}"),
}
_VISION = {
    "accuracy": ("accuracy", "% of images", "{:.2f}"),
    "top5": ("top-5 accuracy", "% of images", "{:.2f}"),
    "loss": ("loss", "nats per image", "{:.4f}"),
    "calibration_error": ("calibration error", "%", "{:.2f}"),
    "inside": ("attention inside the box", "%", "{:.1f}"),
    "inside_chance": ("  the box's share of the image", "%", "{:.1f}"),
    "entropy": ("attention entropy", "nats", "{:.3f}"),
    "images_per_second": ("speed", "images per second", "{:,.0f}"),
}
_ROWS = {"translation": _TRANSLATION, "vision": _VISION}


def metrics_table(metrics: dict[str, Any]) -> Table:
    """The test results as a table: a column for each test mode, the one that selected the checkpoint first."""
    modes = list(dict.fromkeys(m[1] for key in metrics if (m := re.fullmatch(r"test/(\w+)/\w+", key))))
    table = Table(title="Test results", title_justify="left")
    table.add_column("metric")
    table.add_column("unit", style="dim")
    mode = metrics.get("test_mode", "")
    prefixes = {f"{name} (selected by)" if name == mode else name: f"test/{name}/" for name in modes}
    for heading in prefixes or {mode: "test/"}:
        table.add_column(heading, justify="right")
    for name, (label, unit, form) in _ROWS[metrics.get("task", "translation")].items():
        values = [metrics.get(prefix + name) for prefix in (prefixes or {mode: "test/"}).values()]
        if name == "aer_best_shift" and values[0] is not None:
            unit = f"links moved by {metrics['test/best_shift']:+.0f}"
        if any(value is not None for value in values):
            spreads = [metrics.get(f"{prefix}{name}_sd") for prefix in (prefixes or {mode: "test/"}).values()]
            cells = ["" if value is None else form.format(value) for value in values]
            spread_cells = ["" if spread is None else f" ± {form.format(spread)}" for spread in spreads]
            table.add_row(label, unit, *map(str.__add__, cells, spread_cells))
    table.add_section()
    blanks = [""] * (max(1, len(prefixes)) - 1)
    for key, label, unit, form in (
        ("params", "parameters", "", "{:,}"),
        ("train/seconds", "training time", "seconds", "{:.0f}"),
        ("train/tokens_per_second", "training speed", "target tokens per second", "{:,.0f}"),
        ("train/images_per_second", "training speed", "images per second", "{:,.0f}"),
        ("train/peak_memory_mib", "peak memory", "MiB", "{:,.0f}"),
    ):
        if metrics.get(key) is not None:
            table.add_row(label, unit, form.format(metrics[key]), *blanks)
    if signature := metrics.get("signature/bleu"):
        table.caption = signature
        table.caption_justify = "left"
    return table
