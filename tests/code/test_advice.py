"""Commands that messages advise: each is one that there is, with options that it has."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dvc.cli.parser import get_main_parser

from ganpipe.cli import COMMANDS

ROOT = Path(__file__).parents[2]
ADVICE = re.compile(r"`((?:ganpipe|dvc|make|mlflow) [^`\n]+)`")
STAGES = set(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
TARGETS = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
VALUE = "VALUE"
"""Stands for what a message fills in."""


def texts(path: Path) -> Iterator[str]:
    """The strings of a file that are no docstrings, with VALUE for what an f-string fills in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    plain = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            plain |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in plain:
            yield node.value


def all_advice() -> list[str]:
    files = sorted([*(ROOT / "ganpipe").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])
    return sorted({found for path in files for text in texts(path) for found in ADVICE.findall(text)})


@pytest.mark.parametrize("line", all_advice())
def test_the_command_is_there(line: str) -> None:
    program, command, *rest = [*shlex.split(line), ""]
    if program == "ganpipe":
        assert command in {*COMMANDS, "COMMAND", "--help", VALUE}
    elif program == "make":
        assert command in TARGETS
    elif program == "dvc":
        options = get_main_parser().parse_args([command, *rest[:-1]])  # else it exits, as `dvc` does
        assert set(getattr(options, "targets", None) or []) <= {*STAGES, VALUE}


def test_no_advice_trains_again_by_the_way() -> None:
    """`dvc repro --force STAGE` runs all that the stage needs anew, the search and the training among them."""
    forced = [line for line in all_advice() if line.startswith("dvc repro") and "--force" in line]
    assert forced
    assert [line for line in forced if "--single-item" not in line] == []
