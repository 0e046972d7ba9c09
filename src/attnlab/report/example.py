"""The worked example of soft attention: one query over a sentence of six words and its end."""

from pathlib import Path

from attnlab.files import write_bytes, write_text
from attnlab.report import figures, page
from attnlab.report.maps import Example, Panel

SENTENCE = ("The", "cat", "sat", "on", "the", "mat", "<eos>")
WEIGHTS = (0.05, 0.15, 0.50, 0.05, 0.10, 0.10, 0.05)
"""α of the query at “sat”, one weight a position; they sum to 1."""


def worked_example() -> Example:
    """“The cat sat on the mat”, attended to from “sat”. The seventh weight is that of the end of the sentence."""
    return Example(" ".join(SENTENCE[:-1]), (Panel("soft attention", [list(WEIGHTS)], SENTENCE, ("sat",)),))


def write_example(out: Path) -> Path:
    """Draws the worked example as example.png, example.svg and example.html; the path of the page."""
    example = worked_example()
    lead = (
        "Soft attention of the query at “sat”: each source word gets a weight, the weights sum to 1, and the context "
        "is the sum of the values weighted by them. Half of it is the value of “sat” itself."
    )
    drawn = figures.draw("example", f"Attention on “{example.title}” at “sat”; dark is heavy.", figures.maps(example))
    write_bytes(out / "example.png", drawn.png)
    write_bytes(out / "example.svg", drawn.svg)
    write_text(out / "example.html", page.example_html(example, example.title, lead))
    return out / "example.html"
