"""Help and explanations, read off the configs themselves; light, since a person waits for them."""

import ast
import difflib
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_INTRODUCTION = """\
attnlab trains an attention variant on a task and reports what it learned.

    python train.py attention=bahdanau task=translation
    python train.py attention=hard attention/score=dot seed=2 run_dir=outputs/mine

Choose an option of a group with GROUP=OPTION and set a value with key=value. Options marked * are the defaults.
"""
_CLOSING = """
The same command with the same run_dir skips a finished run and goes on with an interrupted one.
Exit codes: 0 finished; 1 failed, or refused for a value or a choice of options that cannot work; 2 not understood (an
argument, key or option that there is not, a value that is missing) or a sweep that cannot begin; 130 interrupted by
Ctrl-C.
"""


def groups(conf: Path) -> dict[str, list[Path]]:
    """The config groups by name (`attention/score`), each with its options' files."""
    folders = sorted(path for path in conf.rglob("*") if path.is_dir())
    found = {folder.relative_to(conf).as_posix(): sorted(folder.glob("*.yaml")) for folder in folders}
    order = {name: rank for rank, name in enumerate(("task", "attention", "model", "data", "optimizer", "schedule"))}
    names = sorted((name for name in found if found[name]), key=lambda n: (order.get(n.split("/")[0], len(order)), n))
    return {name: found[name] for name in names}


def help_text(conf: Path) -> str:
    """Every group with its options in words, and every key with its default value."""
    chosen = _defaults(conf)
    lines = [*_INTRODUCTION.splitlines(), ""]
    for name, options in groups(conf).items():
        lines.append(f"{name}=")
        width = max(len(option.stem) for option in options)
        for option in options:
            mark = "*" if chosen.get(name) == option.stem else " "
            lines.append(f"  {mark} {option.stem:<{width}}  {_description(option)}")
            if name != "experiment":
                lines += [f"        {line}" for line in _keys(option, name.replace("/", "."))]
        lines.append("")
    lines.append("Keys of every run (key=default):")
    lines += [f"    {line}" for line in _keys(conf / "config.yaml", "") if not line.startswith("hydra.")]
    return "\n".join(lines) + "\n" + _CLOSING


def explain(error: Exception, conf: Path) -> str:
    """A sentence for an error in composing the configs of a folder: what was found, and the valid names."""
    text = str(error)
    if "No match in the defaults list" in text and (sentence := _misplaced(conf, text)):
        return sentence
    missing = re.search(r"Could not find '(.+?)'", text)
    if missing and "Available options" in text:
        group, _, name = missing[1].rpartition("/")
        options = re.findall(r"^\t(\S+)$", text.split("Available options", 1)[1], re.MULTILINE)
        found = f"{group}={name} is not an option. " if name else f"{group}= names no option. "
        return f"{found}{_suggestion(name, options)}The options of {group} are {_list(options)}."
    cause: Any = error.__cause__
    key = getattr(cause, "full_key", None) or getattr(error, "full_key", None)
    if "Could not override" in text and key:
        parent = getattr(cause, "parent_node", None)
        valid = [str(name) for name in parent or () if not str(name).startswith("_")]
        if "/" in key:
            return f"There is no config group {key!r}; `python train.py --help` lists the groups."
        if _is_of_lightning(key):
            return f"The config does not list {key}, which pytorch_lightning's Trainer has: +{key}=VALUE adds it."
        return unknown_key(key, valid)
    if "Missing mandatory value" in text and key:
        return f"{key} must be given: add {key}=VALUE to the command."
    if "override" in type(error).__name__.lower():
        return malformed(getattr(error, "override", ""), text.splitlines()[0])
    return text.split("\nConfig search path")[0].strip()


def _misplaced(conf: Path, text: str) -> str | None:
    """A sentence for an option of a group that the chosen options do not have, as a baseline without draws."""
    found = re.search(r"Could not override '([\w/]+)", text)
    group, _, leaf = found[1].rpartition("/") if found else ("", "", "")
    entry = re.compile(rf"^  - {leaf}: ", re.MULTILINE)
    holders = [path.stem for path in sorted((conf / group).glob("*.yaml")) if entry.search(path.read_text())]
    if not (found and group and holders):
        return None
    source = re.match(r"In '(.+?)'", text)
    whose = f"{source[1].replace('/', '=', 1)} sets {found[1]}, which" if source else found[1]
    return f"{whose} belongs to {' or '.join(f'{group}={holder}' for holder in holders)}; choose that, or leave it out."


def malformed(argument: str, why: str) -> str:
    """A sentence for an argument that is not in Hydra's grammar: a key without a sign, or a value that needs quotes."""
    key, sign, value = argument.partition("=")
    if not key.strip("+~") or not sign:
        return f"{argument!r} is not of the form key=value."
    quoted = {"'", '"'} & set(value)
    advice = "" if quoted else f" Put its value in quotes, and all of it for the shell: '{key}=\"{value}\"'."
    return f"{argument} cannot be read: {why}.{advice}"


def unknown_key(key: str, valid: list[str]) -> str:
    """A sentence for a key, with its whole path, that is not among the valid names of its parent."""
    prefix, _, name = key.rpartition(".")
    place = f"{prefix} has" if prefix else "A run has"
    return f"There is no key {key!r}. {_suggestion(name, valid)}{place} {_list(valid) or 'no keys'}."


def _is_of_lightning(key: str) -> bool:
    """Whether Lightning's Trainer has the option that a key of the group `trainer` names; read off its source, since to
    import it takes seconds."""
    group, _, name = key.partition(".")
    found = importlib.util.find_spec("pytorch_lightning")
    if group != "trainer" or found is None or not found.submodule_search_locations:
        return False
    tree = ast.parse((Path(found.submodule_search_locations[0]) / "trainer" / "trainer.py").read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    return any(argument.arg == name for function in functions for argument in function.args.kwonlyargs)


def _suggestion(name: str, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(valid), 1)
    return f"Did you mean {close[0]}? " if close else ""


def _list(names: list[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


def _description(path: Path) -> str:
    """The option in words: the first comment of its file that is not a Hydra directive."""
    comments = [line[1:].strip() for line in path.read_text().splitlines()[:3] if line.startswith("#")]
    return next((comment for comment in comments if not comment.startswith("@")), "")


def _defaults(conf: Path) -> dict[str, str]:
    """The default option of each group, following the defaults lists from config.yaml down."""
    chosen: dict[str, str] = {}
    pending = [("", conf / "config.yaml")]
    while pending:
        group, path = pending.pop()
        for key, option in re.findall(r"^  - (/?[\w/]+): (\w+)$", path.read_text(), re.MULTILINE):
            name = key[1:] if key.startswith("/") else f"{group}/{key}".strip("/")
            if option != "null":
                chosen[name] = option
                pending.append((name, conf / name / f"{option}.yaml"))
    return chosen


def _keys(path: Path, prefix: str) -> list[str]:
    """The settable keys of a yaml file as `prefix.key=value  comment`, nested keys with their whole path."""
    lines, text = [], path.read_text()
    parents: list[str] = []
    skipping = False
    for line in text.splitlines():
        match = re.match(r"^( *)(\w+):(?: +(.*?))??(?: +# (.*))?$", line)
        if not line.startswith(" "):
            skipping = line.startswith("defaults:")
        if not match or skipping or match[2].startswith("_"):
            continue
        depth = len(match[1]) // 2
        parents = [*parents[:depth], match[2]]
        if match[3]:
            base = "" if "@package _global_" in text else prefix
            name = ".".join(([base] if base else []) + parents)
            lines.append(f"{name}={match[3]}" + (f"  {match[4]}" if match[4] else ""))
    return lines
