"""A report as one self-contained HTML page, as Markdown, and as LaTeX tables."""

import json
import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from attnlab.report.maps import Example

if TYPE_CHECKING:
    from jinja2 import Environment

    from attnlab.report.assemble import Report

_DIGITS = 3
"""Of an attention weight in the page."""
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "≤": r"$\le$", "−": "$-$", "–": "--", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
}  # fmt: skip


def html(report: "Report") -> str:
    """The page with its explorer. It asks for nothing from outside, and everything that runs wrote is escaped."""
    data = [[_shown(example) for example in section.examples] for section in report.sections]
    return _page("report.html", report=report, title=report.title, data=data)


def example_html(example: Example, title: str, lead: str) -> str:
    """A page that holds one example alone."""
    return _page("example.html", title=title, lead=lead, data=[[_shown(example)]])


def markdown(report: "Report") -> str:
    """The report for a repository or a notebook; figures are the files beside it."""
    return _tidy(_plain().get_template("report.md").render(report=report))


def latex(report: "Report") -> str:
    """The tables for a paper (booktabs)."""
    return _tidy(_plain().get_template("tables.tex").render(report=report))


def _page(template: str, **content: Any) -> str:
    return str(_escaping().get_template(template).render(**content))


@cache
def _escaping() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("attnlab.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


@cache
def _plain() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("attnlab.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"md": escape_markdown, "tex": escape_latex}
    return environment


def escape_markdown(text: str) -> str:
    """Text that Markdown, GitHub's with tables and mathematics too, shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", " ".join(text.split()))


def escape_latex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _tidy(text: str) -> str:
    """No more than one empty line in a row, none at the ends."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _shown(example: Example) -> dict[str, Any]:
    """An example as the page's script reads it."""
    panels = [
        {
            "variant": panel.variant,
            "source": panel.source,
            "target": panel.target,
            "weights": [[_rounded(weight) for weight in row] for row in panel.weights],
        }
        for panel in example.panels
    ]
    return json.loads(json.dumps({"title": example.title, "image": example.image, "panels": panels}))  # tuples to lists


def _rounded(weight: float) -> float:
    return round(min(1.0, max(0.0, weight)), _DIGITS) if math.isfinite(weight) else 0.0
