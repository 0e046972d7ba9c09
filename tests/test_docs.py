"""What the README and the results tell a reader to open, to type or to add is there, and works."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import warm

from attnlab.attention import scores
from attnlab.cli import CONF
from attnlab.experiment.build import compose
from attnlab.experiment.checks import check_values

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "results" / "README.md"]


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _commands(page: Path) -> list[str]:
    """The commands with python that a page shows, in blocks or between backticks, without their comments."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    inline = re.findall(r"`(python [^`]+)`", page.read_text())
    lines = [line for block in blocks for line in block.splitlines()] + inline
    return sorted({re.split(r"\s#|\s[<>]\s", line)[0].strip() for line in lines if line.startswith("python ")})


TRAINING = [line for page in PAGES for line in _commands(page) if " train.py " in line and "--help" not in line]
SCRIPTS = [line for page in PAGES for line in _commands(page) if " scripts/" in line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in map(_anchor, headings), link


@pytest.mark.parametrize("line", TRAINING)
def test_every_training_command_composes(line: str) -> None:
    words = [word for word in shlex.split(line)[2:] if not word.startswith("hydra")]
    sweep = "-m" in words
    # of a sweep the first point
    points = [word.split(",")[0] if sweep else word for word in words if word != "-m"]
    check_values(CONF, points, compose(CONF, points))


@pytest.mark.parametrize("name", sorted({shlex.split(line)[1] for line in SCRIPTS}))
def test_every_script_has_the_flags_that_are_named(name: str) -> None:
    shown = [shlex.split(line)[2:] for line in SCRIPTS if shlex.split(line)[1] == name]
    sections = {words[0] for words in shown if words} if name == "scripts/benchmark.py" else {""}
    for section in sections:
        said = warm.run_text([ROOT / name, *([section] if section else []), "--help"], cwd=ROOT)
        assert said.returncode == 0, said.stderr
        flags = {word for words in shown if not section or words[:1] == [section] for word in words if word[:2] == "--"}
        assert all(flag in said.stdout for flag in flags), (section, flags)


def test_the_variant_that_the_readme_adds_is_one() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    places = dict(vars(scores))  # where the README has it written
    exec(code, places)
    cosine = places["CosineScore"](4, 4)
    assert isinstance(cosine, scores.Score)
    query, keys = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    expected = torch.nn.functional.cosine_similarity(query.unsqueeze(2), keys.unsqueeze(1), -1)
    torch.testing.assert_close(cosine(query, cosine.prepare(keys)), expected)
    with pytest.raises(ValueError, match="queries are 3 wide and the keys 4"):
        places["CosineScore"](3, 4)
