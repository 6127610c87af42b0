"""JSON and YAML from files that others may have written: never larger, deeper or stranger than what is expected.

Parsers are safe in what they build, not in how much: a few lines of YAML aliases expand to gigabytes as soon as
somebody prints them, and a thousand brackets end an interpreter's stack. What comes out of here is plain, small data.
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
"""Of lists and mappings in each other. The deepest of this project's own files has seven."""
MAX_YAML_BYTES = 2**18
"""Of params.yaml: some twenty times what it has."""
MAX_YAML_NODES = 50_000
"""Scalars, lists and mappings, aliases written out."""
MAX_TEXT = 10_000
"""Characters of one string in params.yaml."""


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file.

    Raises:
        FileNotFoundError: it is not there.
        GanpipeError: it is a folder, pipe or device, larger than `max_bytes`, or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise GanpipeError(f"{path}: no regular file")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise GanpipeError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > max_bytes:
        raise GanpipeError(f"{path}: larger than the {max_bytes:,} bytes that such a file may have")
    return content


def parse_json(content: str | bytes) -> Any:
    """JSON with each key once, nested at most MAX_DEPTH deep.

    Raises:
        ValueError: it is none, saying why.
    """
    try:
        value = json.loads(content, object_pairs_hook=_each_key_once)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    for _ in _walk(value):
        pass
    return value


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)[:100]!r} is there twice")
    return found


_TOO_DEEP = f"lists and mappings are nested more than {MAX_DEPTH} deep"


def _walk(value: Any) -> Iterator[Any]:
    """All values and keys in it.

    Raises:
        ValueError: it is nested too deep.
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
    """YAML 1.2's plain types, as DVC and editors read them; no endless or exploding aliases, no key twice.

    The parser is one of YAML 1.1, for which `1e5` is a text, `no` and `off` are false, `1:30` is 90 and `010` is 8.
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
    # Not `010`, which some read as 8 and some as 10.
    "int": (r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+)", [*"-+0123456789"]),
    "float": (
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))"
        r"|\.(?:nan|NaN|NAN)",
        [*"-+0123456789."],
    ),
    "merge": (r"<<", ["<"]),
}
"""What a text without quotes is, and with which characters it begins."""
_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _PLAIN_TYPES.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _first)

_OPEN = -1


def _num_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are once every alias is written out. The depth is bounded, so that this may recurse."""
    number = id(node)
    if known.get(number) == _OPEN:
        raise ValueError("an alias stands within what it names")
    if number not in known:
        known[number] = _OPEN
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        children = [child for one in below for child in (one if isinstance(one, tuple) else (one,))]
        known[number] = 1 + sum(_num_nodes(child, known) for child in children)
    if known[number] > MAX_YAML_NODES:
        raise ValueError(f"more than {MAX_YAML_NODES:,} values, aliases written out")
    return known[number]


def parse_yaml(text: str) -> Any:
    """YAML's plain types.

    Raises:
        ValueError: it is none, or holds what no settings hold; saying why.
    """
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        tab = "; YAML indents with spaces, not with tabs" if "'\\t'" in str(error) else ""
        raise ValueError(" ".join(str(error).split()) + tab) from None
    # Scalars with a tag of another type (`!!int ""`, `2001-99-99`) raise whatever their conversion raises.
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from None
    return value


def check_plain(value: Any) -> None:
    """Whether settings hold only what settings may hold: short text without control characters, numbers of 64 bits.

    Raises:
        ValueError: naming the value.
    """
    for one in _walk(value):
        if isinstance(one, str):
            if len(one) > MAX_TEXT:
                raise ValueError(f"{one[:40]!r}... has {len(one):,} characters; at most {MAX_TEXT:,} are expected")
            if any((char < " " and char not in "\t\n") or "\ud800" <= char <= "\udfff" for char in one):
                raise ValueError(f"{one[:100]!r} holds a control character or half a character")
        elif isinstance(one, int) and not -(2**63) <= one < 2**63:
            raise ValueError(f"a number of {len(str(abs(one)))} digits; expected one of 64 bits")


def read_settings(path: Path) -> dict[str, Any]:
    """The sections of params.yaml as they stand there, unchecked.

    Raises:
        GanpipeError: the file is missing, or no YAML mapping.
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
    """A file's content, once it has this SHA-256; what is checked is what is used.

    Raises:
        GanpipeError: the file is missing or has another digest; ends with `remedy`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GanpipeError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise GanpipeError(f"{path}: its SHA-256 is {found[:16]}..., expected {sha256[:16]}...; {remedy}")
    return content
