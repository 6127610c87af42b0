"""The flow `pipeline`: each stage of dvc.yaml as one task, in the graph's order.

DVC decides whether a stage has anything to do and owns its outputs; Prefect owns retries, time limits, concurrency and
what a person sees. Prefect's own result cache stays off: it would hash the task's text only, and keep pickles.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger
from prefect.exceptions import MissingContextError
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field, JsonValue

from ganpipe import environment
from ganpipe.errors import GanpipeError

from . import artifacts, project, report, run_stage, supervision, turns, workspace
from .graph import read_graph, with_upstream
from .stages import StageFailed, child_environment, stage_task
from .workspace import Uncommitted, Workspace

Log = logging.Logger | logging.LoggerAdapter[Any]
REPORTS = Path(".ganpipe") / "reports"
"""Where the reports of runs stay after their workspaces are removed: one page per run, named like its experiment."""
Overrides = dict[str, JsonValue]
"""Values for keys of params.yaml, by dotted key."""


@flow(
    name="pipeline",
    description="The stages of dvc.yaml, in order; only what changed runs.",
    task_runner=ThreadPoolTaskRunner(max_workers=8),  # type: ignore[arg-type]
    persist_result=False,
)
def pipeline(
    overrides: Overrides | None = None,
    targets: list[str] | None = None,
    revision: str = "HEAD",
    force: bool = False,
    place: Literal["workspace", "checkout"] = "workspace",
    uncommitted: Uncommitted = "refuse",
    keep_failed_hours: Annotated[float, Field(ge=0)] = 72.0,
) -> dict[str, Any]:
    """Run the stages of the checkout that the working directory lies in, and keep the outcome as a DVC experiment.

    Args:
        overrides: values for keys of params.yaml, by dotted key: {"train.gan": "wgan_gp", "train.num_images": 50000}.
        targets: these stages and all that they need; default: all.
        revision: git branch, tag, commit or DVC experiment to start from.
        force: run stages whose inputs have not changed, too.
        place: "workspace" runs in a clone of its own, so that runs do not disturb each other or the checkout;
            "checkout" runs in the checkout itself, as `dvc repro` does.
        uncommitted: what lies in the checkout and is in no commit (settings, code, images; for the revision HEAD):
            "refuse" runs nothing where it decides the result, "ignore" runs without it, "include" takes it along.
        keep_failed_hours: how long the workspace of a failed run is kept, so that people can look at it.

    Returns:
        `experiment` (its name, None in the checkout), `commit`, and what `ganpipe summary --json` says.

    Raises:
        StageFailed: which stage, its error, and what to do next.
        GanpipeError: a parameter that makes no sense here.
    """
    checkout = environment.repo_root()
    logger = get_run_logger()
    with supervision.ended_with_its_worker(logger):
        if place == "workspace":
            request = WorkspaceRequest(checkout, revision, uncommitted, keep_failed_hours)
            return _in_workspace(request, overrides or {}, targets or [], force, logger)
        if overrides or revision != "HEAD" or uncommitted == "ignore":
            raise GanpipeError(
                "place: 'checkout' runs what lies in the checkout: edit params.yaml there, or use 'workspace' for "
                "overrides, revision and uncommitted"
            )
        with turns.one_at_a_time(checkout, f"flow run {flow_run.name}", logger.info):
            run_stages(checkout, checkout, targets or [], force)
            project.report(checkout, checkout, checkout / "report.html")
            return {"experiment": None, **project.summary(checkout, checkout)}


@dataclass(frozen=True)
class WorkspaceRequest:
    """The parameters of `pipeline` that decide how a run gets its workspace."""

    checkout: Path
    revision: str
    uncommitted: Uncommitted
    keep_failed_hours: float


def _in_workspace(
    request: WorkspaceRequest, overrides: Overrides, targets: Sequence[str], force: bool, logger: Log
) -> dict[str, Any]:
    checkout, keep_failed_hours = request.checkout, request.keep_failed_hours
    for name in workspace.sweep(checkout, keep_failed_hours):
        logger.info("removed the workspace of the failed run %s: older than %g h", name, keep_failed_hours)
    with run_workspace(request, overrides, logger) as space:
        stages = run_stages(space.root, checkout, targets, force)
        summary = project.summary(space.root, checkout)
        page = checkout / REPORTS / f"{space.name}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        project.report(space.root, checkout, page)
        workspace.save(space, stages, message=f"Prefect flow run {flow_run.name}")
    logger.info("kept as the DVC experiment %s: `dvc exp show`, `dvc exp apply %s`", space.name, space.name)
    logger.info("its report: %s", page)
    return {"experiment": space.name, "commit": space.commit, **summary}


@contextmanager
def run_workspace(request: WorkspaceRequest, overrides: Overrides, logger: Log) -> Iterator[Workspace]:
    """A checked workspace for this flow run: removed after a success, kept after a failure."""
    checkout, revision = request.checkout, request.revision
    name = workspace.experiment_name(flow_run.name, flow_run.id, workspace.experiments(checkout))
    with workspace.opened(checkout, name, revision, flow_run.run_count > 1, request.uncommitted) as space:
        logger.info("workspace %s at %s (%s)", space.root.relative_to(checkout), space.commit[:10], revision)
        if revision == "HEAD" and (edited := workspace.uncommitted(checkout)):
            place = "and taken along" if request.uncommitted == "include" else "so not in this run"
            logger.warning("not committed, %s: %s", place, workspace.listing(edited))
        try:
            workspace.override(space, overrides)
            for warning in project.check(space.root, checkout):
                logger.warning(warning)
            yield space
        except BaseException as error:
            workspace.note_failure(space, str(error) or type(error).__name__)
            logger.warning("the workspace stays for %g h: %s", request.keep_failed_hours, space.root)
            raise
        workspace.close(space)


def run_stages(root: Path, checkout: Path, targets: Sequence[str], force: bool) -> list[str]:
    """Run the stages of `root` as tasks, and publish their results.

    Args:
        checkout: whose services are used; `root` itself, or what it was cloned from.

    Returns:
        Their names, in order.

    Raises:
        StageFailed: as `pipeline`.
    """
    stages = with_upstream(read_graph(root), targets)
    variables = child_environment(root, checkout)
    futures: dict[str, PrefectFuture[Any]] = {}
    try:
        for stage in stages:
            upstream = [futures[name] for name in stage.upstream]
            task = stage_task(stage, root, force, variables)
            futures[stage.name] = task.submit(return_state=False, wait_for=upstream)
        states = {name: _state(future) for name, future in futures.items()}
    except BaseException:
        # Ctrl-C or the worker's SIGTERM: neither reaches the stages in their threads and process groups.
        run_stage.end_all()
        raise
    failed = [name for name, state in states.items() if state.is_failed() or state.is_crashed()]
    rows = [(stage.name, states[stage.name].name or states[stage.name].type.value) for stage in stages]
    artifacts.publish_report(report.markdown(root, rows, report.read_seconds(root / environment.STAGE_SECONDS)))
    if failed:
        waiting = [name for name, state in states.items() if state.is_pending()]
        raise StageFailed(_failure(failed, waiting, states))
    return [stage.name for stage in stages]


def _state(future: PrefectFuture[Any]) -> State[Any]:
    future.wait()
    return future.state


def _failure(failed: Sequence[str], waiting: Sequence[str], states: dict[str, State[Any]]) -> str:
    errors = [_message(name, states[name]) for name in failed]
    lines = ["; ".join(errors)]
    if waiting:
        lines.append(f"not run, since they need it: {', '.join(waiting)}")
    lines.append("next: mend that and run the same command again; stages that are done stay done")
    return "\n".join(lines)


def _message(name: str, state: State[Any]) -> str:
    error = state.data if isinstance(state.data, StageFailed) else None
    if error is None:
        try:
            result = state.result(raise_on_failure=False)
        except MissingContextError:
            result = None
        error = result if isinstance(result, StageFailed) else None
    return str(error) if error is not None else f"stage {name}: {state.message}"
