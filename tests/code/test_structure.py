"""The arrows of docs/architecture.md, and what no file of this project may hold."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GANPIPE = sorted((ROOT / "ganpipe").rglob("*.py"))
PIPELINES = sorted((ROOT / "pipelines").rglob("*.py"))

LIGHT = {
    "section",
    "errors",
    "catalogue",
    "cpus",
    "documents",
    "environment",
    "prefect_api",
    "processes",
    "redaction",
    "service_kinds",
    "services",
    "events",
    "scores",
    "tracked",
    "fields",
    "words",
    "imports",
    "",
}
"""Modules at the bottom: they import nothing of ganpipe but each other, and no training library."""
ROOMS = {
    # room: what of ganpipe it may import, besides itself and LIGHT
    "networks": set(),
    "losses": set(),
    "data": set(),
    "gans": {"networks", "losses"},
    "training": {"gans", "data", "networks", "losses"},
    "evaluation": {"gans", "data", "networks", "losses"},
    "tracking": set(),
    "packaging": {"tracking", "evaluation", "gans"},
    "registry": {"packaging", "tracking", "evaluation", "gans"},
    "params": {"training", "evaluation", "registry", "gans", "data"},
    "stages": {"params", "training", "evaluation", "registry", "packaging", "tracking", "gans", "data"},
    "serving": {"registry", "packaging", "tracking", "data"},  # data: what is uploaded goes through ingest's decoder
    "exploring": {"stages", "params", "packaging", "evaluation", "gans", "data", "networks"},
    "reporting": {"exploring", "stages", "params", "registry", "packaging", "tracking", "evaluation", "data"},
    "commands": {
        "reporting",
        "exploring",
        "serving",
        "stages",
        "params",
        "training",
        "evaluation",
        "registry",
        "packaging",
        "tracking",
        "gans",
        "data",
    },
    "cli": {"commands", "stages"},
    "__main__": {"cli"},
}
ROOMS_OF_DATA = {
    # the same within data/
    "source_names": set(),
    "settings": {"source_names"},
    "parallel": set(),
    "access": {"parallel"},
    "images": {"settings"},
    "shards": {"access"},
    "sources": {"settings", "source_names", "access", "images", "shards"},
    "ingest": {"settings", "parallel", "access", "images", "shards", "sources"},
    "loading": {"parallel", "access", "images", "shards"},
    "": set(),
}
ORCHESTRATION = {"ray", "dvc", "prefect", "mlflow"}


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Absolute names of all modules that the file imports, wherever in it."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            # `from . import x` imports a module where there is one of that name.
            names += [f"{module}.{alias.name}" for alias in node.names]
    return tuple(names)


def _rooms_imported(path: Path) -> set[str]:
    """First names below ganpipe, of modules and packages only."""
    rooms = set()
    for name in _imports(path):
        top, _, rest = name.partition(".")
        if top == "ganpipe":
            room = rest.split(".")[0]
            rooms.add(room if (ROOT / "ganpipe" / room).is_dir() or (ROOT / "ganpipe" / f"{room}.py").exists() else "")
    return rooms


def _room(path: Path) -> str:
    first = path.relative_to(ROOT / "ganpipe").parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def _packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in _imports(path)}


def _label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", GANPIPE, ids=_label)
def test_arrows_run_downwards(path):
    room = _room(path)
    allowed = LIGHT if room in LIGHT else LIGHT | {room} | ROOMS[room]
    assert _rooms_imported(path) <= allowed
    assert "pipelines" not in _packages(path)


@pytest.mark.parametrize("path", sorted((ROOT / "ganpipe" / "data").rglob("*.py")), ids=_label)
def test_arrows_run_downwards_in_data(path):
    below = path.relative_to(ROOT / "ganpipe" / "data").parts[0].removesuffix(".py")
    room = "" if below == "__init__" else below
    imported = {name.split(".")[2] for name in _imports(path) if name.startswith("ganpipe.data.")}
    assert imported <= {room} | ROOMS_OF_DATA[room]


def test_no_module_imports_itself_by_way_of_others():
    """Also not in a function: two modules that need each other are one thing in two files."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in GANPIPE}
    imports = {
        name: {target for target in (_module(found, modules) for found in _imports(path)) if target and target != name}
        for name, path in modules.items()
    }
    remaining = dict(imports)
    while free := [name for name, targets in remaining.items() if not targets & remaining.keys()]:
        for name in free:
            del remaining[name]
    assert not remaining, f"a circle among {sorted(remaining)}"


def _module(name: str, modules: dict[str, Path]) -> str | None:
    """The module that an imported name is, or is in; without the packages around it, which hold no code of theirs."""
    parent = name.rpartition(".")[0]
    return next((found for found in (name, f"{name}.__init__", parent, f"{parent}.__init__") if found in modules), None)


@pytest.mark.parametrize("path", PIPELINES, ids=_label)
def test_pipelines_import_light_modules_only(path):
    assert _rooms_imported(path) <= LIGHT | {"params"}
    assert not _packages(path) & {"torch", "ray", "mlflow", "numpy"}


@pytest.mark.parametrize(
    "path", [path for path in GANPIPE if _room(path) in {"gans", "networks", "losses"} | LIGHT], ids=_label
)
def test_gans_know_nothing_of_the_tools_around_them(path):
    assert not _packages(path) & ORCHESTRATION


def test_what_is_copied_into_a_model_imports_relatively():
    for path in GANPIPE:
        if _room(path) in {"gans", "networks", "losses", "section", "errors", "catalogue"}:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            absolute = [
                node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level and node.module
            ]
            assert not [node.module for node in absolute if (node.module or "").startswith("ganpipe")], _label(path)


def test_the_training_step_is_short_and_knows_no_gan():
    loop = ROOT / "ganpipe" / "training" / "loop.py"
    text = loop.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 100
    gans = {path.stem for path in (ROOT / "ganpipe" / "gans").glob("*.py")} - {
        "__init__",
        "base",
        "draws",
        "gan",
        "optimizers",
        "pair",
    }
    assert gans
    assert not gans & set(re.findall(r"\w+", text))
    assert not [name for name in _imports(loop) if name in {f"ganpipe.gans.{gan}" for gan in gans | {"gan"}}]


def _handlers() -> Iterator[tuple[str, ast.ExceptHandler]]:
    for path in GANPIPE + PIPELINES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                yield f"{_label(path)}:{node.lineno}", node


def test_no_error_is_swallowed():
    assert not [where for where, handler in _handlers() if all(isinstance(line, ast.Pass) for line in handler.body)]
    assert not [where for where, handler in _handlers() if handler.type is None]


def test_nothing_is_unpickled():
    for path in GANPIPE + PIPELINES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            where = f"{_label(path)}:{node.lineno}"
            assert not re.fullmatch(r"(cloud)?pickle\.(loads?|Unpickler)", called), where
            if called == "torch.load":
                assert keywords.get("weights_only") == "True", where
            if called in {"np.load", "numpy.load"}:
                assert keywords.get("allow_pickle", "False") == "False", where


def test_no_stage_is_named_in_pipelines():
    import yaml

    stages = set(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
    for path in PIPELINES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in stages, f"{_label(path)}:{node.lineno}"


def _kept_files() -> list[Path]:
    """What git tracks, or would: text files only."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:4096]]


# Put together from parts, or this file would find itself.
FORBIDDEN = {
    "an absolute path of somebody's machine": re.compile(r"(?<![\w.:/-])/(?:home|root|work|Users|opt)/\w"),
    "a package registry's host": re.compile("|".join(re.escape(a + b) for a, b in [
        ("pypi", ".org"), ("files.python", "hosted.org"), ("registry.npm", "js.org"), ("download.", "pytorch.org"),
    ])),
    "a package index": re.compile("--(?:extra-)?index" + "-url|find" + "-links"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_no_file_holds(kind):
    found = []
    for path in _kept_files():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if FORBIDDEN[kind].search(line):
                found.append(f"{_label(path)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
