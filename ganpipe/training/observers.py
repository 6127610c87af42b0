"""What happens beside training: curves, sample grids, scores, checkpoints, and progress lines on the console."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import fsspec
from torch import Tensor

from ..gans.base import Gan, Progress
from ..scores import Scored
from .alarms import Watch
from .distributed import World
from .state import CheckpointStore, EndedEarly, Stopped, TrainingState
from .uploads import write_checked

Score = Callable[[Gan, Progress], "float | Scored"]
"""Scores a generator, lower is better (quick FID)."""
RenderGrid = Callable[[Gan, Progress], bytes]
"""Draws a generator's sample grid as PNG bytes."""
Report = Callable[[dict[str, float]], None]
"""Hands metrics to whoever started the training (Ray Train, Ray Tune). Every rank calls it, with the same metrics."""


def throttled(report: Report, world: World, seconds: float = 30.0) -> Report:
    """`report`, called at most once every `seconds`, and at the same steps on all ranks.

    A report waits up to half a second for the controller. A search needs every report, because trials are compared at
    rungs. The controller of a training does nothing with them, because this project writes its own checkpoints.
    """
    last = -math.inf

    def report_now_and_then(metrics: dict[str, float]) -> None:
        nonlocal last
        now = world.broadcast_number(time.monotonic())
        if now - last >= seconds:
            last = now
            report(metrics)

    return report_now_and_then


class Tracker(Protocol):
    """Where metrics and pictures of a run are kept (MLflow), as a context that ends the run; used on rank 0 only."""

    def __enter__(self) -> Tracker: ...
    def __exit__(self, *failure: Any) -> None: ...
    def log_metrics(self, values: Mapping[str, float], step: int) -> None: ...
    def log_bytes(self, content: bytes, name: str) -> None: ...
    def flush(self) -> object: ...


STEPS_BETWEEN_LOOKS = 8
"""After how many steps several workers agree on whether to stop, which takes a message each time."""


def log_history(state: TrainingState, score_name: str, tracker: Tracker) -> None:
    """Log all curves and scores of a training that goes on from a checkpoint, because a host that died may not have
    sent them. The tracker ignores what it has already."""
    for row in state.curves.rows:
        losses = {name: value for name, value in row.items() if name not in ("step", "images_seen")}
        tracker.log_metrics(losses, step=int(row["images_seen"]))
    for images_seen, score in sorted(state.scores.items()):
        tracker.log_metrics({score_name: score}, step=images_seen)


def is_due(every: int, before: Progress, now: Progress) -> bool:
    """Whether a multiple of `every` images, or the end, was reached between two moments."""
    return before.images_seen // every < now.images_seen // every or now.images_seen >= now.num_images


_SMOOTHED_OVER = 30.0
"""Seconds over which the speed is averaged for the time that is left."""


class Log:
    """Rows of curves: to the tracker with the speed, and to the console at most every few seconds."""

    def __init__(
        self,
        rank: int,
        tracker: Tracker | None,
        name: str,
        watch: Watch | None = None,
        seconds_between_lines: float = 5,
    ) -> None:
        self._rank, self._tracker, self._name, self._pause = rank, tracker, name, seconds_between_lines
        self._watch = watch
        self._window_start = self._last_line = time.perf_counter()
        self._window_images = 0
        self._smoothed_speed: float | None = None

    def __call__(self, state: TrainingState, before: Progress, metrics: dict[str, Tensor]) -> None:
        now = state.progress
        self._window_images += now.images_seen - before.images_seen
        state.curves.add(metrics)
        if not is_due(state.curves.every, before, now):
            return
        losses = state.curves.end_window(now)
        seconds = time.perf_counter() - self._window_start
        speed = self._window_images / seconds
        self._smooth(speed, seconds)
        self._window_images, self._window_start = 0, time.perf_counter()
        if self._rank != 0:
            return
        if self._tracker is not None:
            self._tracker.log_metrics({**losses, "images_per_second": speed}, step=now.images_seen)
        if time.perf_counter() - self._last_line >= self._pause or now.images_seen >= now.num_images:
            self._last_line = time.perf_counter()
            print(self._line(now, losses, speed), flush=True)

    def _smooth(self, speed: float, seconds: float) -> None:
        """Average the speed over the last windows: where the host is shared, a single window says little."""
        before = speed if self._smoothed_speed is None else self._smoothed_speed
        self._smoothed_speed = before + (1 - math.exp(-seconds / _SMOOTHED_OVER)) * (speed - before)

    def _line(self, now: Progress, losses: dict[str, float], speed: float) -> str:
        left = int(max(0, now.num_images - now.images_seen) / (self._smoothed_speed or speed))
        so_far = f"{now.images_seen:,} of {now.num_images:,} images"
        if now.images_seen > now.num_images:  # batches are whole
            so_far = f"{now.images_seen:,} images, {now.num_images:,} asked for"
        return (
            f"{self._name}: {so_far} ({now.fraction:.0%}), {speed:,.0f} images/s, {left // 60}:{left % 60:02d} left  "
            + "  ".join(f"{name} {value:.3g}" for name, value in losses.items())
            + ("".join(f"  [{kind}]" for kind in self._watch.active) if self._watch else "")
        )


class SampleGrids:
    """A grid of the same latents after certain updates and at the end: samples/<step>.png in the run's folder."""

    def __init__(self, folder: str, at_updates: tuple[int, ...], draw: RenderGrid, tracker: Tracker | None) -> None:
        self._folder, self._at_updates, self._draw, self._tracker = folder, set(at_updates), draw, tracker

    def __call__(self, state: TrainingState, before: Progress, metrics: dict[str, Tensor]) -> None:
        now = state.progress
        if now.step in self._at_updates or now.images_seen >= now.num_images:
            self.draw(state)

    def draw(self, state: TrainingState) -> None:
        """Draw the grid of this moment."""
        now = state.progress
        with state.averaged() as gan:
            png = self._draw(gan, now)
        name = f"{now.step:07d}.png"
        filesystem, folder = fsspec.core.url_to_fs(f"{self._folder}/samples")
        filesystem.makedirs(folder, exist_ok=True)
        write_checked(filesystem, f"{folder}/{name}", png)
        if self._tracker is not None:
            self._tracker.log_bytes(png, f"samples/{name}")


@dataclass(eq=False)
class Checkpoints:
    """Scores the generator, saves the training's state and reports, every `every` images and at the end.

    Attributes:
        world: this worker.
        every: images between two checkpoints.
        store: where checkpoints are saved.
        score, score_name: scores the generator, and the name of that metric; without `score`, no checkpoint has one.
        report: takes images seen and score.
        tracker: takes the score.
    """

    world: World
    every: int
    store: CheckpointStore
    score: Score | None = None
    score_name: str = "score"
    report: Report | None = None
    tracker: Tracker | None = None

    def __call__(self, state: TrainingState, before: Progress, metrics: dict[str, Tensor]) -> None:
        now = state.progress.images_seen
        if not is_due(self.every, before, state.progress):
            return
        state.synchronise(self.world)
        if self.score is not None:
            scored = self._scored(state, self.score)
            state.scores[now] = scored.value
            state.curves.add_row(state.progress, scored.watched)
            if self.tracker is not None:
                self.tracker.log_metrics({self.score_name: scored.value, **scored.watched}, step=now)
        self._save(state)
        self.report_progress(state)

    def save(self, state: TrainingState) -> None:
        """Save a checkpoint between two regular ones, without a score; it does not change what the training makes."""
        state.synchronise(self.world)
        self._save(state)

    def _save(self, state: TrainingState) -> None:
        if self.world.rank == 0:
            if self.tracker is not None:
                self.tracker.flush()  # what the checkpoint counts as logged is logged before the checkpoint exists
            self.store.save(state)
        self.world.barrier()

    def report_progress(self, state: TrainingState) -> None:
        """Report the number of images seen, and the score at that number where there is one."""
        now = state.progress.images_seen
        score = {self.score_name: state.scores[now]} if now in state.scores else {}
        if self.report is not None:
            self.report({"images_seen": float(now), **score})

    def _scored(self, state: TrainingState, score: Score) -> Scored:
        """Rank 0's score, on every rank; what is watched, on rank 0 only."""
        found: float | Scored = 0.0
        if self.world.rank == 0:
            with state.averaged() as gan:
                found = score(gan, state.progress)
        scored = found if isinstance(found, Scored) else Scored(found)
        return scored._replace(value=self.world.broadcast_number(scored.value))


class EndAt:
    """Ends the training after so many images, of which there has to be a checkpoint."""

    def __init__(self, images_seen: int) -> None:
        self._images_seen = images_seen

    def __call__(self, state: TrainingState, *_: Any) -> None:
        if state.progress.images_seen >= self._images_seen:
            raise EndedEarly


class StopOnRequest:
    """Looks every few steps whether the training was asked to end; then it saves a checkpoint and raises `Stopped`."""

    def __init__(self, world: World, store: CheckpointStore, checkpoints: Checkpoints, seconds: float = 1) -> None:
        self._world, self._store, self._checkpoints, self._pause = world, store, checkpoints, seconds
        self._every = 1 if world.size == 1 else STEPS_BETWEEN_LOOKS
        self._last_look = time.monotonic()

    def __call__(self, state: TrainingState, before: Progress, metrics: dict[str, Tensor]) -> None:
        now = state.progress
        if now.step % self._every or now.images_seen >= now.num_images:
            return
        asked = float(self._world.rank == 0 and self._look())
        if self._world.size > 1:
            asked = self._world.broadcast_number(asked)  # all workers stop at the same step
        if asked:
            self._checkpoints.save(state)
            raise Stopped(f"training stopped after {now.images_seen:,} images, as asked; the same command goes on")

    def _look(self) -> bool:
        if time.monotonic() - self._last_look < self._pause:
            return False
        self._last_look = time.monotonic()
        return self._store.is_stop_requested()
