"""`make run`: the whole pipeline on this machine, with what it needs started, and a closing summary."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ganpipe import environment, services, tracked
from ganpipe.errors import GanpipeError
from ganpipe.redaction import redact
from ganpipe.service_kinds import KINDS

from . import report, turns
from .graph import open_repo, stages_of, with_upstream


def stale(root: Path, targets: Sequence[str]) -> list[str]:
    """The stages whose inputs, code, settings or outputs have changed, in order; stages after them may change, too.

    Waits for other DVC commands in this checkout, and names them.

    Raises:
        GanpipeError: DVC cannot say, or would stop at a file.
    """
    from dvc.exceptions import DvcException

    others = turns.OtherDvcCommands(root, _say)
    while True:
        with open_repo(root) as repo:
            stages = with_upstream(stages_of(repo), targets)
            watched = [
                Path(dep.fs_path) for stage in repo.index.stages for dep in stage.deps if dep.protocol == "local"
            ]
            shown = (path.relative_to(root) if path.is_relative_to(root) else path for path in watched)
            tracked.require_readable_by_dvc(shown, repo.dvcignore.is_ignored_file)
            try:
                changed = set(repo.status())
            except DvcException as error:
                said = str(error)
            else:
                return [stage.name for stage in stages if stage.name in changed]
        if not others.wait_if_busy(said):
            raise GanpipeError(f"DVC cannot say what changed: {said}")


def _say(line: str) -> None:
    print(line, flush=True)


REPORT = "report.html"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s" if seconds >= 60 else f"{seconds:.1f} s"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="these and all that they need; default: all stages")
    parser.add_argument("--force", action="store_true", help="run stages whose inputs have not changed, too")
    return parser.parse_args(argv)


def _start_page(name: str, root: Path) -> None:
    try:
        services.ensure(name, root)
    except GanpipeError as error:
        print(f"warning: the page is not up: {redact(str(error))}", file=sys.stderr)


def _require_prefect(server: services.Running) -> None:
    """Return if Prefect's own client reaches the server, which answered already.

    Raises:
        GanpipeError: it does not: a proxy of a kind that it has no package for, a certificate that it does not trust.
    """
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            client.api_version()
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:
        proxies = sorted(name for name, value in os.environ.items() if value and name.lower().endswith("_proxy"))
        heeded = f"; it heeds {', '.join(proxies)}" if proxies else ""
        raise GanpipeError(f"Prefect's client cannot use the server at {server.url}: {error}{heeded}") from None


def _run_flow(home: Path, targets: Sequence[str], force: bool) -> None:
    """Start what the stages need and run the flow.

    Raises:
        GanpipeError: a service does not start, or a stage failed.
    """
    print("starting Prefect, Ray and MLflow where they do not run yet (their logs: .ganpipe/services/)", flush=True)
    # MLflow's page is for people: no stage waits for it.
    page = threading.Thread(target=_start_page, args=("mlflow", home))
    page.start()
    started = services.ensure_all(("prefect", "ray"), home)
    os.environ.update(services.client_environment(started, home))
    # A line of a stage is shown as it is; the page has time and level beside it.
    os.environ.setdefault("PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT", "[%(task_run_name)s] %(message)s")
    os.environ.setdefault("PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT", "%(message)s")
    # Prefect's traceback of a failed stage shows this project's code, not the stage's error.
    from .console import without_tracebacks
    from .flow import pipeline

    without_tracebacks()
    _require_prefect(started["prefect"])
    state = pipeline(targets=list(targets), force=force, place="checkout", return_state=True)
    page.join()
    if not state.is_completed():
        failure = state.data if isinstance(state.data, BaseException) else state.result(raise_on_failure=False)
        if isinstance(failure, GanpipeError):
            raise failure
        raise GanpipeError(f"the flow ended as {state.name}: {state.message}")


def _pages(home: Path) -> list[str]:
    running = {name: service for name, service in services.status(home).items() if service is not None}
    if not running:
        return ["pages: none is up; `make ui` starts MLflow, Prefect and Ray's dashboard"]
    lines = [f"{name:<8} {service.url}{_note(service)}" for name, service in running.items()]
    return ["pages (`make stop` ends them):", *(f"  {line}" for line in lines)]


def _note(service: services.Running) -> str:
    return KINDS[service.name].note if service.pid is not None else ""


def _times(root: Path, seconds: Mapping[str, float]) -> list[str]:
    with open_repo(root) as repo:
        known = [stage.name for stage in stages_of(repo) if stage.name in seconds]
    return ["wall time of each stage when it last ran:", *(f"  {name:<12} {_minutes(seconds[name])}" for name in known)]


def _ganpipe(command: str, root: Path) -> None:
    """Run a `ganpipe` command as a child process, because it may import what this may not; its output is shown.

    Raises:
        GanpipeError: it failed.
    """
    sys.stdout.flush()
    code = subprocess.run([sys.executable, "-m", "ganpipe", command], cwd=root, check=False).returncode
    if code != 0:
        raise GanpipeError(f"`ganpipe {command}` ended with exit code {code}")


def _summary(root: Path) -> None:
    """Print the closing summary; `ganpipe summary` prints the part about what the stages made."""
    _ganpipe("summary", root)
    if (root / REPORT).exists():
        print(f"report   {REPORT}: the whole run on one page")
    seconds = report.read_seconds(root / environment.STAGE_SECONDS)
    for line in [*(_times(root, seconds) if seconds else []), *_pages(environment.home(root))]:
        print(line)
    print("next: `dvc plots show`, `dvc exp run -S train.gan=gan`, `ganpipe --help`", flush=True)


def _run(root: Path, targets: Sequence[str], force: bool) -> None:
    began = time.monotonic()
    waiting = stale(root, targets)
    if waiting or force:
        _say(f"changed: {', '.join(waiting)}" if waiting else "nothing changed; --force runs all the same")
        _ganpipe("check", root)  # what is wrong is said before anything is started
        _run_flow(environment.home(root), targets, force)
        print(f"\ndone in {_minutes(time.monotonic() - began)}\n")
    else:
        print("nothing to do: every output is up to date with its inputs, code and settings\n")
    _summary(root)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what there is to do. Exit code 0, 1 after a failed stage, 2 for bad input, 130 after Ctrl-C."""
    options = _arguments(argv)
    environment.apply_defaults()
    try:
        root = environment.repo_root()
        environment.require_usable_path(root)
        os.chdir(root)  # DVC names stages as seen from here
        with turns.one_at_a_time(root, "make run", _say):
            _run(root, options.targets, options.force)
    except GanpipeError as error:
        print(f"error: {redact(str(error))}", file=sys.stderr)
        return 1 if type(error).__name__ == "StageFailed" else 2
    except KeyboardInterrupt:
        print("interrupted: what is done is kept; the same command goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
