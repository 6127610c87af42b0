"""JSON and YAML from files that others may have written, with limits on their size, their depth and their types.

The parsers build plain data only, but they do not limit how much of it: a few lines of YAML aliases expand to gigabytes
when they are printed, and a thousand nested brackets exhaust the interpreter's stack. The functions here do limit it.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from .errors import GanpipeError

MAX_DEPTH = 40
"""Levels of nested lists and mappings. The deepest of this project's own files has seven."""
MAX_YAML_BYTES = 2**18
"""Size of params.yaml; the real one has about a twentieth of this."""
MAX_YAML_NODES = 50_000
"""Number of scalars, lists and mappings in params.yaml, with all aliases expanded."""
MAX_TEXT = 10_000
"""Characters of one string in params.yaml."""


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file.

    Raises:
        FileNotFoundError: the file does not exist.
        GanpipeError: it is a folder, pipe or device, is larger than `max_bytes`, or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise GanpipeError(f"{path}: not a regular file")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise GanpipeError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > max_bytes:
        raise GanpipeError(f"{path}: larger than {max_bytes:,} bytes, the limit for such a file")
    return content


def parse_json(content: str | bytes) -> Any:
    """The value of a JSON document, nested at most MAX_DEPTH deep and without duplicate keys.

    Raises:
        ValueError: the document is not such JSON; the message says why.
    """
    try:
        value = json.loads(content, object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    for _ in _walk(value):
        pass
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)[:100]!r} is there twice")
    return found


_TOO_DEEP = f"lists and mappings are nested more than {MAX_DEPTH} deep"


def _walk(value: Any) -> Iterator[Any]:
    """All values and keys inside `value`, level by level.

    Raises:
        ValueError: it is nested more than MAX_DEPTH deep.
    """
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        yield from level
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += [*one.keys(), *one.values()]
            elif isinstance(one, (list, tuple, set)):
                below += one
        level = below
        if not level:
            return
    raise ValueError(_TOO_DEEP)


class _Loader(yaml.SafeLoader):
    """Reads scalars as YAML 1.2 does, like DVC and editors; refuses recursive or exploding aliases and duplicate keys.

    PyYAML itself follows YAML 1.1, where `1e5` is a text, `no` and `off` are false, `1:30` is 90 and `010` is 8.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _num_nodes(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in seen and key.value != "<<":
                line = key.start_mark.line + 1
                raise ValueError(f"line {line}: the key {key.value[:100]!r} is there twice in its section")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_PLAIN_TYPES = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    # `010` stays a text, because some parsers read it as 8 and some as 10.
    "int": (r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+)", [*"-+0123456789"]),
    "float": (
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))"
        r"|\.(?:nan|NaN|NAN)",
        [*"-+0123456789."],
    ),
    "merge": (r"<<", ["<"]),
}
"""Type -> the pattern of unquoted scalars of this type, and the characters with which they begin."""
_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _PLAIN_TYPES.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _first)

_IN_PROGRESS = -1


def _num_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are after every alias is expanded. It may recurse, because the depth is bounded.

    Args:
        known: filled with the results, by the nodes' `id`.

    Raises:
        ValueError: an alias refers to a node that contains it, or there are more than MAX_YAML_NODES nodes.
    """
    number = id(node)
    if known.get(number) == _IN_PROGRESS:
        raise ValueError("an alias refers to a value that contains this alias")
    if number not in known:
        known[number] = _IN_PROGRESS
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        children = [child for one in below for child in (one if isinstance(one, tuple) else (one,))]
        known[number] = 1 + sum(_num_nodes(child, known) for child in children)
    if known[number] > MAX_YAML_NODES:
        raise ValueError(f"more than {MAX_YAML_NODES:,} values after all aliases are expanded")
    return known[number]


def parse_yaml(text: str) -> Any:
    """The value of a YAML document: mappings, lists, texts, numbers, booleans and null.

    Raises:
        ValueError: the document is not such YAML, or exceeds a limit; the message says why.
    """
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        tab = "; YAML indents with spaces, not with tabs" if "'\\t'" in str(error) else ""
        raise ValueError(" ".join(str(error).split()) + tab) from None
    # Scalars with a tag that does not fit them (`!!int ""`) raise whatever their conversion raises.
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from None
    return value


def check_plain(value: Any) -> None:
    """Require that settings hold only texts of at most MAX_TEXT printable characters and integers of at most 64 bits.

    Raises:
        ValueError: a value is something else; the message shows it.
    """
    for one in _walk(value):
        if isinstance(one, str):
            if len(one) > MAX_TEXT:
                raise ValueError(f"{one[:40]!r}... has {len(one):,} characters; at most {MAX_TEXT:,} are expected")
            if any((char < " " and char not in "\t\n") or "\ud800" <= char <= "\udfff" for char in one):
                raise ValueError(f"{one[:100]!r} holds a control character or half of a surrogate pair")
        elif isinstance(one, int) and not -(2**63) <= one < 2**63:
            raise ValueError(f"a number of {len(str(abs(one)))} digits; expected one of 64 bits")


def read_settings(path: Path) -> dict[str, Any]:
    """The sections of params.yaml as the file has them; keys and values are not checked.

    Raises:
        GanpipeError: the file is missing, or is not a YAML mapping.
    """
    try:
        values = parse_yaml(read_bounded(path, MAX_YAML_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise GanpipeError(f"{path}: no such file; run ganpipe in the folder that holds params.yaml") from None
    except ValueError as error:  # of which UnicodeDecodeError is one
        raise GanpipeError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise GanpipeError(f"{path}: expected a mapping of sections, found {type(values).__name__}")
    return values


def read_verified(path: Path, sha256: str, remedy: str) -> bytes:
    """A file's content, checked against a SHA-256. The file is read once: what was checked is what is returned.

    Args:
        remedy: what the person can do about an error; ends its message.

    Raises:
        GanpipeError: the file is missing or has another digest.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GanpipeError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise GanpipeError(f"{path}: its SHA-256 is {found[:16]}..., expected {sha256[:16]}...; {remedy}")
    return content
