"""The stage graph as DVC reads it from dvc.yaml, with each stage's policy from its `meta:`.

DVC's own index is asked, so that templates, `foreach`, `vars` and several dvc.yaml files mean what they mean to
`dvc repro`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import Field

from ganpipe.errors import GanpipeError
from ganpipe.section import Section, nearest, parse

PICTURES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif"}
"""Suffixes of files that are shown as they are, with their image type."""


class Policy(Section):
    """How Prefect runs a stage: the `meta:` of the stage in dvc.yaml."""

    retries: int = Field(default=0, ge=0, le=20)
    """How often a failed stage is tried again."""
    retry_delay_seconds: float = Field(default=10.0, ge=0)
    """Wait before each retry, in seconds."""
    timeout_seconds: float | None = Field(default=None, gt=0)
    """After this the stage's whole process tree is ended and the try counts as failed; without it, never."""
    description: str = ""
    """One line for people; default: the stage's `desc:`."""


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml."""

    name: str
    """As `dvc repro` takes it: `train`, `sub/dvc.yaml:train`, `many@a`."""
    upstream: tuple[str, ...]
    """The stages whose outputs it reads."""
    policy: Policy
    metrics: tuple[str, ...] = ()
    """Its metrics files, relative to the checkout."""
    pictures: tuple[str, ...] = ()
    """Image files, or folders of them, among its outputs that are plots."""


def open_repo(root: Path) -> Any:
    """DVC's view of the checkout, `dvc.repo.Repo`; a context manager.

    Raises:
        GanpipeError: dvc.yaml is missing or DVC cannot read it (in DVC's words).
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        return Repo(str(root))
    except DvcException as error:
        raise GanpipeError(f"{root}: {error}") from None


def read_graph(root: Path) -> list[Stage]:
    """All stages in an order in which each comes after those that it reads from.

    Raises:
        GanpipeError: dvc.yaml is unreadable, names no stage, or a `meta:` key is wrong (stage and key are named).
    """
    with open_repo(root) as repo:
        return stages_of(repo)


def stages_of(repo: Any) -> list[Stage]:
    """`read_graph` of a repository that is open already."""
    from dvc.exceptions import DvcException

    try:
        graph = repo.index.graph
    except DvcException as error:
        raise GanpipeError(f"dvc.yaml: {error}") from None
    # Data added with `dvc add` (a .dvc file) is no stage that runs: nothing waits for it.
    runnable = [stage for stage in graph.nodes if stage.cmd is not None]
    if not runnable:
        raise GanpipeError(f"{repo.root_dir}: dvc.yaml has no stage")
    upstream = {
        _address(stage): tuple(sorted(_address(other) for other in graph.successors(stage) if other.cmd is not None))
        for stage in runnable
    }
    policies = {_address(stage): _policy(stage) for stage in runnable}
    outs = {_address(stage): _shown(repo, stage) for stage in runnable}
    # Sorted names first, so that the order is the same wherever several are possible.
    order = TopologicalSorter({name: upstream[name] for name in sorted(upstream)}).static_order()
    return [Stage(name, upstream[name], policies[name], *outs[name]) for name in order]


def _address(stage: Any) -> str:
    """What `dvc repro` calls the stage in the repository's root; DVC's own `addressing` depends on where we are."""
    return str(stage.name) if stage.path_in_repo == "dvc.yaml" else f"{stage.path_in_repo}:{stage.name}"


def _shown(repo: Any, stage: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What people look at of a stage's outputs: metrics files, and pictures (see `pictures_of`)."""
    root = Path(repo.root_dir)
    outs = [Path(out.fs_path) for out in stage.outs]
    metrics = [str(Path(out.fs_path).relative_to(root)) for out in stage.outs if out.metric]
    pictures = [str(path) for path in pictures_of(repo) if any(root / path == out for out in outs)]
    return tuple(sorted(metrics)), tuple(pictures)


def pictures_of(repo: Any) -> list[Path]:
    """Image files, and folders, among the plots, relative to the checkout: outputs marked as plots, and what a
    top-level `plots:` names."""
    named = [Path(out.fs_path) for out in repo.index.outs if out.plot]
    for dvc_yaml, plots in repo.index._plots.items():
        keys = [key for entry in plots for key in ([entry] if isinstance(entry, str) else entry)]
        named += [Path(dvc_yaml).parent / key for key in keys]
    root = Path(repo.root_dir)
    # A plot of columns has a title for a name, and no file of that name.
    return sorted({path.relative_to(root) for path in named if not path.suffix or path.suffix.lower() in PICTURES})


def with_upstream(stages: Sequence[Stage], targets: Sequence[str]) -> list[Stage]:
    """`targets` and all that they need, in order; all of `stages` where `targets` is empty.

    Raises:
        GanpipeError: a target is no stage.
    """
    if not targets:
        return list(stages)
    by_name = {stage.name: stage for stage in stages}
    needed: set[str] = set()
    waiting = list(targets)
    while waiting:
        name = waiting.pop()
        if name not in by_name:
            raise GanpipeError(f"no stage {name!r} in dvc.yaml; {nearest(name, by_name)}")
        if name not in needed:
            needed.add(name)
            waiting.extend(by_name[name].upstream)
    return [stage for stage in stages if stage.name in needed]


def _policy(stage: Any) -> Policy:
    meta = stage.meta if stage.meta is not None else {}
    prefix = f"stages.{stage.name}.meta"
    if not isinstance(meta, dict):
        raise GanpipeError(f"{stage.path_in_repo}: {prefix}: got {meta!r}; expected a mapping")
    policy = parse(Policy, meta, prefix, origin=stage.path_in_repo)
    return policy if policy.description else policy.model_copy(update={"description": stage.desc or ""})
