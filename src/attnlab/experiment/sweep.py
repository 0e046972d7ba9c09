"""A sweep: one stable directory a point, and the table of how its points ended."""

import json
from pathlib import Path
from typing import Any

_STATES = {"finished": "green", "failed": "red", "interrupted": "yellow", "running": "yellow"}


def points(directory: Path) -> list[tuple[str, dict[str, Any]]]:
    """The points of a sweep by name, each with its status."""
    found = []
    for path in sorted(directory.rglob("status.json")):
        try:
            status = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            status = {"state": "failed", "error": f"its status.json cannot be read ({error})"}
        found.append((path.parent.relative_to(directory).as_posix(), status))
    return found


def summarize(directory: Path) -> int:
    """Prints how the points of a sweep ended, and returns 0 if all of them finished, else 1."""
    from rich.console import Console
    from rich.table import Table

    ended = points(directory)
    table = Table(title=f"Sweep {directory}", title_justify="left")
    for heading in ("point", "state", "what"):
        table.add_column(heading, overflow="fold")
    for name, status in ended:
        state = str(status.get("state"))
        table.add_row(name, f"[{_STATES.get(state, 'red')}]{state}", _what(directory / name, status))
    Console().print(table)
    return int(any(status.get("state") != "finished" for _, status in ended))


def _what(directory: Path, status: dict[str, Any]) -> str:
    """The selecting metric of a finished point, and the reason why another one stopped."""
    if status.get("state") != "finished":
        return str(status.get("error") or "")
    try:
        metrics = json.loads((directory / "metrics.json").read_text())
        name = metrics["selected_by"].replace("val/", "test/")
        return f"{name} {metrics[name]:.2f}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its metrics.json cannot be read"
