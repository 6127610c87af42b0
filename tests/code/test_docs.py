"""The documentation says what is there."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(p for room in ("ganpipe", "pipelines") for p in (ROOT / room).rglob("*.py") if p.name != "__init__.py")
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_architecture_names_every_file_as_it_names_itself(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path.name} does not say what it is"
    first = " ".join(docstring.split("\n\n")[0].split())
    row = f"| `{path.relative_to(ROOT)}` | {first} |"
    assert row in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_architecture_names_no_file_that_is_gone() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `((?:ganpipe|pipelines)/[\w/]+\.py)` \|", page, re.MULTILINE)
    assert sorted(named) == sorted(str(path.relative_to(ROOT)) for path in MODULES)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    broken = [t for t in targets if not t.startswith(("http://", "https://")) and not (page.parent / t).exists()]
    assert broken == []


def test_the_readmes_make_targets_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"make ([a-z][a-z-]+)", text))
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"make ([a-z-]+)", listed))
    assert {"run", "test"} <= targets <= known


def test_the_readmes_ganpipe_commands_exist() -> None:
    from ganpipe.cli import COMMANDS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    used = set(re.findall(r"`ganpipe ([a-z]+)", text))
    assert used
    assert used <= set(COMMANDS)


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in sorted(folder.glob("0*.md")) if f"({path.name})" not in listed] == []
