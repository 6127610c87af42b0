"""What a file of ganpipe uses: the files that it imports, directly or by way of others, and what is in them.

Read from the sources, without importing anything: a stage's code is known in a moment and without torch. Imports inside
functions count, since a stage may call them; those under `if TYPE_CHECKING` do not, since no program runs them. Modules
that are chosen by name (GANs, sources, sections of params.yaml) are not found so: the caller names them as starts.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .errors import GanpipeError

SOURCES = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Closure:
    """Attributes:
    files: relative to the package's folder, sorted.
    outside: the top names of all other packages that they import, sorted.
    by_name: those of the files that import the package by its absolute name, sorted.
    """

    files: tuple[str, ...]
    outside: tuple[str, ...]
    by_name: tuple[str, ...]


def closure(starts: Iterable[str], sources: Path = SOURCES, gathering: str = "") -> Closure:
    """The files that run when those of `starts` are imported and used.

    Args:
        starts: files relative to `sources`, such as `stages/train.py`.
        sources: the folder of the package ganpipe.
        gathering: a file that imports what others choose from; what it imports from the package's folders counts only
            where another file imports it, too.

    Raises:
        GanpipeError: a file is missing or no Python.
    """
    waiting: set[str] = set()
    for start in starts:
        if not (sources / start).is_file():
            raise GanpipeError(f"{sources / start}: no such file")
        waiting |= _run_by(sources, Path(start).with_suffix("").parts)
    done: set[str] = set()
    outside: set[str] = set()
    by_name: set[str] = set()
    while waiting:
        name = waiting.pop()
        done.add(name)
        inner, outer = _imports(sources / name, (sources.name, *Path(name).parts[:-1]))
        if any(parts[0] == sources.name for parts in outer):
            by_name.add(name)
        inner |= {parts for parts in outer if parts[0] == sources.name}
        inner = {parts[1:] for parts in inner}
        outside |= {parts[0] for parts in outer if parts[0] != sources.name}
        for parts in inner:
            found = _run_by(sources, parts)
            waiting |= {file for file in found if "/" not in file or name != gathering} - done
    return Closure(tuple(sorted(done)), tuple(sorted(outside)), tuple(sorted(by_name)))


def digest(path: Path) -> str:
    """SHA-256 of a file's syntax tree: comments, docstrings and formatting change nothing.

    Raises:
        GanpipeError: the file is no Python.
    """
    parts: list[str] = []
    _write_tree(_parsed(path, path.stat().st_mtime_ns), parts)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _write_tree(value: object, parts: list[str]) -> None:
    """Append what a syntax tree says, in an order that tells different trees apart.

    Not `ast.dump`: it also writes fields that are empty, of which each version of Python has others.
    """
    if isinstance(value, ast.AST):
        parts.append(f"({type(value).__name__}")
        for name in value._fields:
            child = getattr(value, name, None)
            if child is not None and child != []:
                parts.append(name)
                _write_tree(child, parts)
        parts.append(")")
    elif isinstance(value, list):
        parts.append("[")
        for item in value:
            if not _is_docstring(item):
                _write_tree(item, parts)
        parts.append("]")
    else:
        parts.append(repr(value))


def _is_docstring(node: object) -> bool:
    """Whether a statement is a text that nobody uses: the docstring of a module, class, function or setting."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _run_by(sources: Path, parts: tuple[str, ...]) -> set[str]:
    """The files that importing the module `parts` runs: itself and the packages around it."""
    files = {Path(*parts[:depth], "__init__.py").as_posix() for depth in range(len(parts) + 1)}
    files.add(Path(*parts).with_suffix(".py").as_posix() if parts else "__init__.py")
    return {name for name in files if (sources / name).is_file()}


def _imports(path: Path, package: tuple[str, ...]) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
    """What a file imports, relatively and by absolute names, as the parts of names; the last part may be no module.

    Args:
        path: the file.
        package: the absolute name of the package in which relative imports of this file start.
    """
    relative: set[tuple[str, ...]] = set()
    absolute: set[tuple[str, ...]] = set()
    for node in _executed(_parsed(path, path.stat().st_mtime_ns)):
        if isinstance(node, ast.Import):
            absolute.update(tuple(name.name.split(".")) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            named = tuple(node.module.split(".")) if node.module else ()
            target = (*package[: len(package) - node.level + 1], *named) if node.level else named
            found = relative if node.level else absolute
            found.add(target)
            found.update((*target, name.name) for name in node.names)  # a name may be a module
    return relative, absolute


@lru_cache(maxsize=1024)
def _parsed(path: Path, modified: int) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        raise GanpipeError(f"{path}:{error.lineno}: not valid Python ({error.msg})") from None


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and all nodes below it, except for those under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield from _executed(other)
        else:
            yield from _executed(child)
