"""The stages as DVC knows them: graph, state, and the inputs of each according to dvc.lock."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Any

from ..environment import STAGE_SECONDS
from .contents import Stage, State, Tracked
from .files import Reader


def read_stages(reader: Reader) -> list[Stage]:
    """All stages, each after the stages whose outputs it reads; empty if DVC cannot read the checkout."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        # DVC's names of stages and files are relative to the working directory.
        with contextlib.chdir(reader.root), Repo(str(reader.root)) as repo:
            graph = repo.index.graph
            status = _status(repo, reader)
            runnable = {stage.addressing: stage for stage in graph.nodes if stage.cmd is not None}
            upstream = {
                name: tuple(sorted(other.addressing for other in graph.successors(stage) if other.cmd is not None))
                for name, stage in sorted(runnable.items())
            }
            seconds = _seconds(reader)
            return [
                _stage(runnable[name], upstream[name], status, seconds.get(name))
                for name in TopologicalSorter(upstream).static_order()
            ]
    except DvcException as error:
        reader.note("DVC", f"the stage graph cannot be read: {error}")
        return []


def _status(repo: Any, reader: Reader) -> Mapping[str, Any] | None:
    from dvc.exceptions import DvcException

    try:
        status: Mapping[str, Any] = repo.status()
        return status
    except DvcException as error:  # mostly because another DVC command is running in this checkout
        reader.note("DVC", f"it is not known whether stages are up to date: {error}")
        return None


def _stage(stage: Any, upstream: tuple[str, ...], status: Mapping[str, Any] | None, seconds: float | None) -> Stage:
    from dvc.dependency.param import ParamsDependency

    locked = any(out.hash_info for out in stage.outs)
    changes = () if status is None else tuple(_reasons(status.get(stage.addressing, [])))
    state: State = "unknown"
    if not locked:
        state = "not run"
    elif status is not None:
        state = "changed" if changes else "up to date"
    params: dict[str, Any] = {}
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency) and locked:
            params |= dep.hash_info.value or {}
    return Stage(
        name=stage.addressing,
        description=stage.desc or "",
        upstream=upstream,
        state=state,
        reasons=changes if state == "changed" else (),
        seconds=seconds,
        deps=tuple(_tracked(dep) for dep in stage.deps if not isinstance(dep, ParamsDependency)) if locked else (),
        outs=tuple(_tracked(out) for out in stage.outs) if locked else (),
        params=params,
    )


def _tracked(item: Any) -> Tracked:
    return Tracked(str(item.def_path), str(item.hash_info.value or ""), item.meta.size)


def _reasons(entries: list[Any]) -> Iterator[str]:
    """DVC's nested status as one text per change: `params.yaml: train.gan modified`."""
    for entry in entries:
        if not isinstance(entry, Mapping):
            yield str(entry)  # "changed command", "always changed"
            continue
        for changes in entry.values():
            for path, change in changes.items():
                if isinstance(change, Mapping):
                    yield from (f"{path}: {key} {how}" for key, how in change.items())
                else:
                    yield f"{path} {change}"


def _seconds(reader: Reader) -> dict[str, float]:
    path = reader.root / STAGE_SECONDS
    try:
        return {str(name): float(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        reader.note("durations", "no stage's duration was noted: `make run` notes them, `dvc repro` does not")
    except (ValueError, TypeError, AttributeError) as error:
        reader.note("durations", f"{STAGE_SECONDS} cannot be read ({error}); the next `make run` writes it anew")
    return {}


def stage_params(stages: list[Stage]) -> Iterator[tuple[str, Any, list[str]]]:
    """The settings with which the outputs were made: (dotted key, value, stages that read it), sorted by key."""
    from ..tracking.run_log import flatten

    found: dict[tuple[str, str], tuple[Any, list[str]]] = {}
    for stage in stages:
        for key, value in flatten(stage.params).items():
            found.setdefault((key, str(value)), (value, []))[1].append(stage.name)
    for (key, _), (value, names) in sorted(found.items()):
        yield key, value, names
