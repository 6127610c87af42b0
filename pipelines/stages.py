"""One stage of dvc.yaml as a Prefect task: DVC's `repro --single-item` as a child process, with the stage's policy."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Completed, State

from ganpipe import environment, events
from ganpipe.errors import EXIT_MENDABLE, GanpipeError

from . import artifacts, report, run_stage, turns
from .graph import Stage

Log = logging.Logger | logging.LoggerAdapter[Any]
STATES = {
    "ran": ("Completed", "done"),
    "cached": ("Cached", "nothing to do: inputs, code and settings are as they were"),
    "restored": ("Cached", "outputs taken from an earlier run with the same inputs, code and settings"),
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
    "Having any troubles?",
)
_DVC_ERROR = re.compile(r"ERROR: failed to reproduce '.*?': (?P<cause>.*)")
_EXIT_CODE = re.compile(r"exited with (-?\d+)$")


class StageFailed(GanpipeError):
    """A stage ended with an error; the message is the stage's own.

    Attributes:
        mendable: the stage says that somebody has to mend something, so that another try would end the same.
    """

    def __init__(self, message: str, mendable: bool = False) -> None:
        super().__init__(message)
        self.mendable = mendable


def error_in_output(tail: Sequence[str]) -> str:
    """What went wrong, from a command's last lines: DVC's own error, whole; else the last line starting with `error:`;
    else how the command ended and the last line that is not DVC's."""
    lines = [line for line in tail if is_news(line) and not line.startswith(("Running stage '", "Stage '", "> "))]
    ended = ""
    verdict = next((number for number, line in reversed(list(enumerate(lines))) if _DVC_ERROR.match(line)), None)
    if verdict is not None:
        cause = _DVC_ERROR.sub(r"\g<cause>", " ".join(line.strip() for line in lines[verdict:]))
        if not cause.startswith("failed to run: "):
            return cause
        code = _EXIT_CODE.search(cause)
        ended = _how_it_ended(int(code[1])) if code else ""
        lines = lines[:verdict]
    marked = [line for line in lines if line.lower().startswith("error:")]
    if marked:
        return marked[-1][len("error:") :].strip()
    if lines:
        return f"{lines[-1]} ({ended})" if ended else lines[-1]
    return f"{ended or 'it failed'} and printed nothing"


def _how_it_ended(code: int) -> str:
    """`code` as DVC gives it: negative for a signal, or 128 and the signal's number where a shell was in between."""
    number = -code if code < 0 else code - 128
    if number not in list(signal.Signals):
        return f"it ended with exit code {code}"
    name = signal.Signals(number).name
    why = ", as the system does when memory runs out," if number == signal.SIGKILL else ""
    return f"it was ended by {name}{why}"


def is_news(line: str) -> bool:
    """Whether a line is about this run, and not one of the hints that DVC prints after every stage."""
    return not line.strip().startswith(_HINTS)


def child_environment(root: Path, checkout: Path) -> dict[str, str]:
    """What a child process in `root` finds: the code of `root`, and the services of `checkout`.

    `python`, `dvc` and `ganpipe` are those of the environment that runs this.
    """
    child = {**os.environ, **environment.defaults(os.environ), "PYTHONUNBUFFERED": "1"}
    child["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), child.get("PATH", "")])
    if root != checkout:
        child[environment.CHECKOUT] = str(checkout)
        return environment.with_code_of(root, child)
    return child


def run_one(
    stage: Stage,
    root: Path,
    force: bool,
    logger: Log,
    variables: Mapping[str, str],
    heard: list[str] | None = None,
) -> str:
    """Run one stage and say how it went: `ran`, `cached` (nothing to do) or `restored` (from DVC's run cache).

    Args:
        heard: takes the alarms that the stage printed.

    Raises:
        StageFailed: with the stage's own error line.
    """

    began = time.monotonic()
    outcome = _reproduce(stage, root, force, logger, variables, [] if heard is None else heard)
    if outcome.timed_out:
        raise StageFailed(f"stage {stage.name}: not done within its timeout_seconds, {stage.policy.timeout_seconds:g}")
    if outcome.returncode != 0 and run_stage.ended_since(began):
        raise StageFailed(f"stage {stage.name}: ended with its run")
    if outcome.returncode != 0:
        mendable = any(line.endswith(f"exited with {EXIT_MENDABLE}") for line in outcome.tail)
        raise StageFailed(f"stage {stage.name}: {error_in_output(outcome.tail)}", mendable)
    if any(line.endswith("didn't change, skipping") for line in outcome.tail):
        return "cached"
    _note_seconds(root, stage.name, outcome.seconds)
    return "restored" if any("is cached - skipping run" in line for line in outcome.tail) else "ran"


def _reproduce(
    stage: Stage, root: Path, force: bool, logger: Log, variables: Mapping[str, str], heard: list[str]
) -> run_stage.Outcome:
    """`dvc repro` of the stage, repeated while another DVC command uses the same files.

    Raises:
        StageFailed: the run ended while this waited, or DVC waits for a process that is no DVC command.
    """
    began = time.monotonic()
    others = turns.OtherDvcCommands(root, logger.info, wanted=lambda: not run_stage.ended_since(began))
    # Stages that run side by side hold DVC's lock for moments only, and wait for each other.
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage.name]

    def show(line: str) -> None:
        if events.ALARM_MARK in line:
            logger.warning(line)
            heard.append(line.partition(f"{events.ALARM_MARK} ")[2])
            _emit_alarm(stage.name, heard[-1], root)
        elif is_news(line) and not turns.is_dvc_busy(line):
            logger.info(line)

    while others.wait_for_lock():
        outcome = run_stage.run(
            [*command, "--force"] if force else command, root, variables, show, stage.policy.timeout_seconds
        )
        try:
            if outcome.returncode == 0 or outcome.timed_out or not others.wait_if_busy("\n".join(outcome.tail)):
                return outcome
        except GanpipeError as error:
            raise StageFailed(f"stage {stage.name}: {error}", mendable=True) from None
    raise StageFailed(f"stage {stage.name}: not begun, because its run ended")


def stage_task(stage: Stage, root: Path, force: bool, variables: Mapping[str, str]) -> Task[[], Any]:
    """The Prefect task of one stage, with the policy of its `meta:`."""
    made = time.monotonic()

    def worth_another_try(task: object, run: object, state: State[Any]) -> bool:
        failure = state.result(raise_on_failure=False)
        return not (isinstance(failure, StageFailed) and failure.mendable) and not run_stage.ended_since(made)

    @task(
        name=stage.name,
        task_run_name=stage.name,
        description=stage.policy.description or None,
        retries=stage.policy.retries,
        retry_delay_seconds=stage.policy.retry_delay_seconds,
        retry_condition_fn=worth_another_try,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    def run_task() -> State[Any]:
        heard: list[str] = []
        result = run_one(stage, root, force, get_run_logger(), variables, heard)
        artifacts.publish(root, stage)
        name, message = STATES[result]
        return Completed(name=name, message=f"{message}; alarms: {'; '.join(heard)}" if heard else message)

    return run_task


def _emit_alarm(stage: str, text: str, root: Path) -> None:
    """Tell the Prefect server at once, so that an automation can call somebody before the stage has ended."""
    about = {"prefect.resource.id": f"ganpipe.stage.{stage}", "prefect.resource.name": f"{flow_run.name}"}
    events.emit(events.ALARM, about, {"alarm": text, "run": f"{flow_run.name}"}, environment.home(root))


def _note_seconds(root: Path, name: str, seconds: float) -> None:
    path = root / environment.STAGE_SECONDS
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        times = report.read_seconds(path)
        times[name] = round(seconds, 1)
        scratch = path.with_suffix(".json.new")
        scratch.write_text(json.dumps(times, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(scratch, path)
