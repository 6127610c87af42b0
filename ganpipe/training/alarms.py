"""Alarms: what goes wrong in a training, told from its curves and scores while it runs, each with what to do.

Pure functions of what a checkpoint holds, so that a training which goes on tells the same alarms as one that was never
interrupted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from ..events import ALARM_MARK
from .state import EndedEarly, TrainingState

_WINDOWS = 5
"""Rows of the curves in which a discriminator has to be far ahead, or behind, one after the other."""
_NEAR = 0.02
"""How near scores have to be to 1 and 0, or to each other."""
_FEW = 0.2
"""Samples are so much nearer to each other than real images are, as a share."""
_FALLEN = 0.25
"""Share of its best value so far to which recall, or the distance between samples, has fallen."""
_LEAST_RECALL = 0.05
"""Recall below which a fall says nothing."""
_COPIES = 0.5
"""Samples are so much nearer to real images than these are to each other, as a share."""

Row = Mapping[str, float]


@dataclass(frozen=True)
class Alarm:
    """Something that a person should know before the training ends.

    Attributes:
        kind: collapse, discriminator_won, discriminator_lost, memorising or no_improvement.
        images_seen: when it was noticed.
        text: what was seen, and what to do.
    """

    kind: str
    images_seen: int
    text: str

    @property
    def line(self) -> str:
        """For people."""
        return f"{ALARM_MARK} {self.images_seen:,} images: {self.kind}: {self.text}"


def alarms(rows: Sequence[Row], scores: Mapping[int, float], patience_images: int | None = None) -> list[Alarm]:
    """All alarms of a training so far, by time; an alarm that lasts is told once, when it begins.

    Args:
        rows: of the curves, with what each check of the generator found (`quick_recall`, `quick_variety`,
            `quick_novelty`, see `evaluation/quick_fid.py`).
        scores: quick FID by images seen; lower is better.
        patience_images: `train.patience_images`.
    """
    found = [*_collapse(rows), *_won_or_lost(rows), *_memorising(rows), *_no_improvement(scores, patience_images)]
    return sorted(found, key=lambda alarm: alarm.images_seen)


def out_of_patience(scores: Mapping[int, float], patience_images: int | None) -> bool:
    """Whether the quick FID has not improved for `patience_images`: then the training ends."""
    return any(_no_improvement(scores, patience_images))


def alarms_of(state: TrainingState) -> list[Alarm]:
    """See `alarms`."""
    return alarms(state.curves.rows, state.scores, state.settings.patience_images)


def as_csv(found: Iterable[Alarm]) -> str:
    """A table with a row per alarm."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Alarm)])
    writer.writerows(astuple(alarm) for alarm in found)
    return text.getvalue()


def _begins(holds: Iterable[bool]) -> Iterator[bool]:
    """Whether a condition holds that did not hold just before."""
    before = False
    for now in holds:
        yield now and not before
        before = now


def _collapse(rows: Sequence[Row]) -> Iterator[Alarm]:
    checks = [row for row in rows if "quick_recall" in row and "quick_variety" in row]
    best: dict[str, float] = {"quick_recall": 0.0, "quick_variety": 0.0}
    reasons, few_before = list[str](), False
    for row in checks:
        recall, variety = row["quick_recall"], row["quick_variety"]
        few = variety < _FEW
        reason = ""
        if variety < _FALLEN * best["quick_variety"]:
            reason = f"samples differ {variety:.2f} times as much as real images do, after {best['quick_variety']:.2f}"
        elif best["quick_recall"] >= _LEAST_RECALL and recall < _FALLEN * best["quick_recall"]:
            reason = f"recall has fallen to {recall:.3f}, from {best['quick_recall']:.3f}"
        elif few and few_before:
            reason = f"samples differ only {variety:.2f} times as much as real images do"
        reasons.append(reason)
        best = {name: max(value, row[name]) for name, value in best.items()}
        few_before = few
    for row, reason, begins in zip(checks, reasons, _begins(map(bool, reasons)), strict=True):
        if begins:
            yield Alarm(
                "collapse",
                int(row["images_seen"]),
                f"{reason}: the generator makes few kinds of images (mode collapse); lower the learning rates, raise "
                "train.batch_size, or take a GAN with a penalty (train.gan: r3gan, wgan_gp)",
            )


def _won_or_lost(rows: Sequence[Row]) -> Iterator[Alarm]:
    scored = [row for row in rows if "score_real" in row and "score_fake" in row]

    def told_apart(row: Row) -> bool:
        return abs(row["score_real"] - 1) <= _NEAR and abs(row["score_fake"]) <= _NEAR

    def not_told_apart(row: Row) -> bool:
        both = row["score_real"], row["score_fake"]
        # Only probabilities are near a half by themselves: a critic's scores may be anything.
        return abs(both[0] - both[1]) <= _NEAR and all(0.4 <= score <= 0.6 for score in both)

    cases = {
        "discriminator_won": (
            told_apart,
            "the discriminator tells generated from real images without error ({0:.3f}, {1:.3f}), so that the "
            "generator learns little; lower the discriminator's learning rate, or set train.augment.kind: diffaugment",
        ),
        "discriminator_lost": (
            not_told_apart,
            "the discriminator does not tell generated from real images ({0:.3f}, {1:.3f}), so that the "
            "generator learns nothing from it; raise the discriminator's learning rate or width, or lower the "
            "generator's learning rate",
        ),
    }
    for kind, (condition, text) in cases.items():
        holds = [condition(row) for row in scored]
        lasts = [all(holds[number - _WINDOWS + 1 : number + 1]) for number in range(_WINDOWS - 1, len(holds))]
        for row, begins in zip(scored[_WINDOWS - 1 :], _begins(lasts), strict=True):
            if begins:
                yield Alarm(kind, int(row["images_seen"]), text.format(row["score_fake"], row["score_real"]))


def _memorising(rows: Sequence[Row]) -> Iterator[Alarm]:
    checks = [row for row in rows if "quick_novelty" in row]
    for row, begins in zip(checks, _begins(row["quick_novelty"] < _COPIES for row in checks), strict=True):
        if begins:
            yield Alarm(
                "memorising",
                int(row["images_seen"]),
                f"samples are {row['quick_novelty']:.2f} times as far from real images as these are from each other: "
                "copies; add images, set train.augment.kind: diffaugment or ada, train shorter, and look at the "
                "evaluation's nearest.png and data_copying",
            )


def _no_improvement(scores: Mapping[int, float], patience_images: int | None) -> Iterator[Alarm]:
    if patience_images is None:
        return
    best_seen, best = 0, float("inf")
    for images_seen, score in sorted(scores.items()):
        if score < best:
            best_seen, best = images_seen, score
        elif images_seen - best_seen >= patience_images:
            yield Alarm(
                "no_improvement",
                images_seen,
                f"quick FID has not improved on {best:.4g} after {best_seen:,} images for {patience_images:,} images "
                "(train.patience_images), so the training ends; train.select: best takes the generator of then",
            )
            return


class Watch:
    """Tells new alarms as they come: on the console, and to the tracker; and ends a training that is out of patience.

    Attributes:
        active: kinds of the alarms so far.
    """

    def __init__(self, rank: int, tracker: Any | None, name: str, prints: bool = True) -> None:
        self._rank, self._tracker, self._name, self._prints = rank, tracker, name, prints
        self._num_rows, self._told = -1, list[Alarm]()

    @property
    def active(self) -> list[str]:
        return list(dict.fromkeys(alarm.kind for alarm in self._told))

    def __call__(self, state: TrainingState, *_: Any) -> None:
        """After a step.

        Raises:
            EndedEarly: the training is out of patience; on all ranks, because all have its scores.
        """
        if len(state.curves.rows) != self._num_rows:  # nothing else can raise an alarm
            self._num_rows = len(state.curves.rows)
            self.look(state)
        if out_of_patience(state.scores, state.settings.patience_images):
            raise EndedEarly

    def look(self, state: TrainingState, quietly: bool = False) -> None:
        """Tell what is new; `quietly`, take it for told: an earlier process of this training did."""
        if self._rank != 0:
            return
        found = alarms_of(state)
        for alarm in [alarm for alarm in found if alarm not in self._told]:
            if self._prints and not quietly:
                print(f"{self._name}: {alarm.line}", flush=True)
            if self._tracker is not None:
                self._tracker.log_metrics({f"alarm_{alarm.kind}": 1.0}, step=alarm.images_seen)
        self._told = found
