"""The flow `pipeline`: each stage of dvc.yaml as one task, in the graph's order.

DVC decides whether a stage has anything to do and owns its outputs; Prefect owns retries, time limits, concurrency and
what a person sees. Prefect's own result cache stays off: it would hash the task's text only, and keep pickles.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import MissingContextError
from prefect.futures import PrefectFuture
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner

from ganpipe import environment
from ganpipe.errors import GanpipeError

from . import report, run_stage
from .graph import Stage, read_graph, with_upstream

STATES = {
    "ran": ("Completed", "done"),
    "cached": ("Cached", "nothing to do: inputs, code and settings are as they were"),
    "restored": ("Restored", "outputs taken from an earlier run with the same inputs"),
}
"""How a stage that succeeded is shown: the state's name and message."""
_HINTS = (
    "To track the changes with git, run:",
    "git add ",
    "To enable auto staging, run:",
    "dvc config core.autostage",
    "Use `dvc push`",
    "Generating lock file",
    "Updating lock file",
)


class StageFailed(GanpipeError):
    """A stage ended with an error; the message is the stage's own."""


def own_error(tail: Sequence[str]) -> str:
    """The line that says what went wrong: the last one starting with `error:`, else the last that is not DVC's."""
    frame = ("ERROR: failed to reproduce", "Running stage '", "Stage '")
    lines = [line for line in tail if is_news(line) and not line.startswith((*frame, "> "))]
    marked = [line for line in lines if line.lower().startswith("error:")]
    if marked:
        return marked[-1][len("error:") :].strip()
    return lines[-1] if lines else "it printed nothing"


def is_news(line: str) -> bool:
    """Whether a line tells something about this run: DVC's standing hints after every stage do not."""
    return not line.strip().startswith(_HINTS)


def stage_command(name: str, force: bool) -> list[str]:
    """What runs one stage. Stages that run side by side wait for each other's moments with DVC's lock."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    return [*command, "--force"] if force else command


def run_one(stage: Stage, root: Path, force: bool, logger: logging.Logger | logging.LoggerAdapter[Any]) -> str:
    """Run one stage and say how it went: `ran`, `cached` (nothing to do) or `restored` (from DVC's run cache).

    Raises:
        StageFailed: with the stage's own error line.
    """
    child = {**os.environ, **environment.defaults(os.environ), "PYTHONUNBUFFERED": "1"}
    # `python` and `ganpipe` in dvc.yaml are those of the environment that runs this.
    child["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), child.get("PATH", "")])

    def show(line: str) -> None:
        if is_news(line):
            logger.info(line)

    outcome = run_stage.run(
        stage_command(stage.name, force), root, child, show, timeout_seconds=stage.policy.timeout_seconds
    )
    if outcome.timed_out:
        raise StageFailed(f"stage {stage.name}: not done within its timeout_seconds, {stage.policy.timeout_seconds:g}")
    if outcome.returncode != 0:
        raise StageFailed(f"stage {stage.name}: {own_error(outcome.tail)}")
    if any(line.endswith("didn't change, skipping") for line in outcome.tail):
        return "cached"
    _note_seconds(root, stage.name, outcome.seconds)
    return "restored" if any("is cached - skipping run" in line for line in outcome.tail) else "ran"


def stage_task(stage: Stage, root: Path, force: bool) -> Task[[], Any]:
    """The Prefect task of one stage, with the policy of its `meta:`."""

    @task(
        name=stage.name,
        task_run_name=stage.name,
        description=stage.policy.description or None,
        retries=stage.policy.retries,
        retry_delay_seconds=stage.policy.retry_delay_seconds,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    def run_task() -> State[Any]:
        result = run_one(stage, root, force, get_run_logger())
        return Completed(name=STATES[result][0], message=STATES[result][1])

    return run_task


@flow(
    name="pipeline",
    description="The stages of dvc.yaml, in order.",
    task_runner=ThreadPoolTaskRunner(max_workers=8),  # type: ignore[arg-type]
    persist_result=False,
)
def pipeline(targets: list[str] | None = None, force: bool = False) -> None:
    """Run the stages of the checkout that the working directory lies in.

    Args:
        targets: these stages and all that they need; default: all.
        force: run stages whose inputs have not changed, too.

    Raises:
        StageFailed: which stage, its error, and what to do next.
    """
    root = environment.repo_root()
    stages = with_upstream(read_graph(root), targets or [])
    futures: dict[str, PrefectFuture[Any]] = {}
    try:
        for stage in stages:
            upstream = [futures[name] for name in stage.upstream]
            futures[stage.name] = stage_task(stage, root, force).submit(return_state=False, wait_for=upstream)
        states = {name: _state(future) for name, future in futures.items()}
    except BaseException:
        # Ctrl-C or the worker's SIGTERM: the stages run in threads and in groups of their own, and hear of neither.
        run_stage.end_all()
        raise
    failed = [name for name, state in states.items() if state.is_failed() or state.is_crashed()]
    _publish(root, stages, states)
    if failed:
        waiting = [name for name, state in states.items() if state.is_pending()]
        raise StageFailed(_failure(failed, waiting, states))


def _state(future: PrefectFuture[Any]) -> State[Any]:
    future.wait()
    return future.state


def _failure(failed: Sequence[str], waiting: Sequence[str], states: dict[str, State[Any]]) -> str:
    errors = [_message(name, states[name]) for name in failed]
    lines = ["; ".join(errors)]
    if waiting:
        lines.append(f"not run, since they need it: {', '.join(waiting)}")
    lines.append("next: mend that and run the same command again; what is done is kept")
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


def _note_seconds(root: Path, name: str, seconds: float) -> None:
    from filelock import FileLock

    path = root / report.TIMES
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        times = report.read_seconds(path)
        times[name] = round(seconds, 1)
        scratch = path.with_suffix(".json.new")
        scratch.write_text(json.dumps(times, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(scratch, path)


def _publish(root: Path, stages: Sequence[Stage], states: dict[str, State[Any]]) -> None:
    """The run's report, as a Markdown artifact on its page."""
    from prefect.artifacts import create_markdown_artifact

    rows = [(stage.name, states[stage.name].name or states[stage.name].type.value) for stage in stages]
    text = report.markdown(root, rows, report.read_seconds(root / report.TIMES))
    create_markdown_artifact(text, key="pipeline-report", description="Stages, metrics and sample grids of this run")
