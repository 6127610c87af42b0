"""The flow `sweep`: GANs x datasets x seeds, each a run of `pipeline` and a DVC experiment, ending in one table."""

from __future__ import annotations

import itertools
import statistics
import threading
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import prefect
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ganpipe import environment
from ganpipe.errors import GanpipeError

from . import artifacts, project, run_stage, supervision, workspace
from .flow import Overrides, pipeline
from .stages import StageFailed


class Dataset(BaseModel):
    """One dataset of a sweep: what params.yaml says of it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    """How it is called in the table and in the experiments' names."""
    overrides: dict[str, JsonValue] = Field(default_factory=dict)
    """Keys of params.yaml, by dotted key: {"data.source": "folder", "sources.folder.path": "images"}."""


@prefect.flow(
    name="sweep",
    description="GANs x datasets x seeds, each a DVC experiment, ending in one table.",
    task_runner=ThreadPoolTaskRunner(max_workers=16),  # type: ignore[arg-type]
    persist_result=False,
)
def sweep(
    gans: Annotated[list[str], Field(min_length=1)],
    datasets: Annotated[list[Dataset], Field(min_length=1)] | None = None,
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None,
    overrides: Overrides | None = None,
    revision: str = "HEAD",
    uncommitted: Literal["refuse", "ignore"] = "refuse",
    num_parallel: Annotated[int, Field(ge=1, le=16)] = 1,
) -> list[dict[str, Any]]:
    """Run the pipeline for every GAN on every dataset, with every seed.

    Args:
        gans: names as in `train.gan`.
        datasets: each with the keys of params.yaml that make it; default: what params.yaml has.
        seeds: values of `train.seed`; default: what params.yaml has. Several show what is chance: the table ends with
            mean and standard deviation over them, and the gate counts them (`register.minimum_improvement: auto`).
        overrides: keys of params.yaml for all of them, by dotted key.
        revision: as in `pipeline`; all of them run at the commit that it names when the sweep begins.
        uncommitted: as in `pipeline`.
        num_parallel: how many runs there are at a time.

    Returns:
        The rows of the table.

    Raises:
        GanpipeError: a combination does not fit (all are checked before the first runs).
        StageFailed: which combinations failed; the others are done and in the table.
    """
    combinations = _combinations(gans, datasets or [Dataset(name="default")], seeds or [None], overrides or {})
    if revision == "HEAD" and uncommitted == "refuse":
        workspace.require_committed(environment.repo_root(), {"ignore": "runs without it"})
    commit = _check_all({name: found.overrides for name, found in combinations.items()}, revision)
    logger = get_run_logger()
    with supervision.ended_with_its_worker(logger):
        rows = _run_all(combinations, commit, num_parallel)
    artifacts.publish_table("sweep", rows, "Each combination is a DVC experiment: `dvc exp show`, `dvc exp apply NAME`")
    logger.info("\n%s", _text(rows))
    if over_seeds := _over_seeds(rows):
        artifacts.publish_table("sweep-over-seeds", over_seeds, "Mean and standard deviation over the seeds")
        logger.info("over the seeds:\n%s", _text(over_seeds))
    failed = [row for row in rows if row["error"]]
    if failed:
        raise StageFailed("; ".join(f"{row['gan']} on {row['dataset']}: {row['error']}" for row in failed))
    return rows


class Combination(NamedTuple):
    """A run of the sweep: GAN, name of the dataset, seed, and all keys of params.yaml that they and the sweep set."""

    gan: str
    dataset: str
    seed: int | None
    overrides: Overrides

    @property
    def columns(self) -> dict[str, Any]:
        """What the table says of it."""
        return {"gan": self.gan, "dataset": self.dataset, **({} if self.seed is None else {"seed": self.seed})}


def _combinations(
    gans: Sequence[str], datasets: Sequence[Dataset], seeds: Sequence[int | None], overrides: Overrides
) -> dict[str, Combination]:
    """Each combination by the name of its run.

    Raises:
        GanpipeError: two datasets have one name.
    """
    if len({dataset.name for dataset in datasets}) < len(datasets):
        raise GanpipeError(f"datasets: got the names {[dataset.name for dataset in datasets]}; expected each once")
    found = {}
    for gan, dataset, seed in itertools.product(dict.fromkeys(gans), datasets, dict.fromkeys(seeds)):
        of_seed = {} if seed is None else {"train.seed": seed}
        name = f"{flow_run.name}-{gan}-{dataset.name}{'' if seed is None else f'-seed{seed}'}"
        values: Overrides = {**dataset.overrides, **overrides, "train.gan": gan, **of_seed}
        found[name] = Combination(gan, dataset.name, seed, values)
    return found


def _run_all(combinations: Mapping[str, Combination], revision: str, num_parallel: int) -> list[dict[str, Any]]:
    """Run the combinations in their order, `num_parallel` at a time, and return the table's rows."""
    room = threading.Semaphore(num_parallel)

    @task(name="run", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
    def run(name: str, values: dict[str, JsonValue]) -> Any:
        try:
            return pipeline.with_options(flow_run_name=name)(overrides=values, revision=revision, return_state=True)
        finally:
            room.release()

    futures: dict[str, Any] = {}
    rows = []
    try:
        for name, combination in combinations.items():
            room.acquire()
            futures[name] = run.submit(name, combination.overrides)
        for name, combination in combinations.items():
            futures[name].wait()
            rows.append({**combination.columns, **_outcome(name, futures[name])})
    except BaseException:
        # As in `pipeline`: the runs are in threads of their own, and hear of no signal.
        run_stage.end_all()
        raise
    return rows


def _check_all(combinations: dict[str, dict[str, JsonValue]], revision: str) -> str:
    """Run `ganpipe check` for every combination, in one workspace for all of them; returns the workspace's commit."""
    checkout = environment.repo_root()
    with workspace.opened(checkout, f"{flow_run.name}-check", revision, is_retry=False) as space:
        original = (space.root / "params.yaml").read_bytes()
        try:
            for name, values in combinations.items():
                try:
                    (space.root / "params.yaml").write_bytes(original)
                    workspace.override(space, values)
                    for warning in project.check(space.root, checkout):
                        get_run_logger().warning("%s: %s", name, warning)
                except GanpipeError as error:
                    raise GanpipeError(f"{name}: {error}") from None
        finally:
            workspace.close(space)
        return space.commit


def _outcome(name: str, future: Any) -> dict[str, Any]:
    """The rest of a combination's row: its experiment and metrics, or its error."""
    result = future.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        return {"experiment": "", "error": str(result).splitlines()[0]}
    values = result.result(raise_on_failure=False) if hasattr(result, "result") else result
    if isinstance(values, BaseException):
        return {"experiment": "", "error": str(values).splitlines()[0]}
    return {
        "experiment": values["experiment"],
        "error": "",
        **values.get("metrics", {}),
        "protocol": values.get("protocol", ""),
    }


def _over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each GAN and dataset with several seeds: mean and standard deviation of each metric, as words."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if "seed" in row and not row["error"]:
            groups.setdefault((row["gan"], row["dataset"]), []).append(row)
    found = []
    for (gan, dataset), group in groups.items():
        if len(group) > 1:
            names = [key for key, value in group[0].items() if isinstance(value, float)]
            values = {name: [row[name] for row in group if name in row] for name in names}
            spread = {
                name: f"{statistics.mean(all_of):.4g} ± {statistics.stdev(all_of):.2g}"
                for name, all_of in values.items()
                if len(all_of) > 1
            }
            found.append({"gan": gan, "dataset": dataset, "seeds": len(group), **spread})
    return found


def _text(rows: list[dict[str, Any]]) -> str:
    """The table for a terminal."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "protocol"))
    cells = [columns, *([_cell(row.get(key, "")) for key in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
