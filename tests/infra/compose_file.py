"""infra/compose.yaml as Compose reads it: merged, its variables filled in; and what the Dockerfile's image sets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
COMPOSE = INFRA / "compose.yaml"
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Z_]+)(?::(?P<how>[-?])(?P<text>[^}]*))?\})")


class Missing(Exception):
    """A variable that has to be set is not; the message is the file's own."""


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """`value` with `${NAME}`, `${NAME:-default}` and `${NAME:?message}` filled in, in all strings within it.

    Raises:
        Missing: as `docker compose` refuses to start.
    """
    if isinstance(value, dict):
        return {key: interpolated(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, variables) for item in value]
    return _VARIABLE.sub(lambda found: _filled(found, variables), value) if isinstance(value, str) else value


def _filled(found: re.Match[str], variables: Mapping[str, str]) -> str:
    if found["name"] is None:
        return "$"
    if given := variables.get(found["name"]):
        return given
    if found["how"] == "?":
        raise Missing(f"{found['name']}: {found['text']}")
    return found["text"] or ""


def raw() -> dict[str, Any]:
    """The file, anchors merged, variables as they stand."""
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return loaded


def services(variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The services with their variables filled in."""
    filled: dict[str, dict[str, Any]] = interpolated(raw()["services"], variables)
    return filled


def dotenv(path: Path) -> dict[str, str]:
    """NAME=value lines."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def instructions(dockerfile: Path = INFRA / "Dockerfile") -> list[tuple[str, str]]:
    """(instruction, its text) of the Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in dockerfile.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def image_environment() -> dict[str, str]:
    """What the image's last stage sets, but for PATH."""
    found: dict[str, str] = {}
    for instruction, text in instructions():
        if instruction == "FROM":
            found = {}
        elif instruction == "ENV":
            found |= dict(item.split("=", 1) for item in shlex.split(text))
    del found["PATH"]
    return found


def target_of(volume: str) -> tuple[str, str, bool]:
    """(source, target, read only) of a short volume."""
    source, target, *mode = volume.split(":")
    return source, target, mode == ["ro"]
