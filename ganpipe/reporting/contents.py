"""The contents of a report as plain values; nothing is read or rendered here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["up to date", "changed", "not run", "unknown"]
"""State of a stage in DVC. `up to date`: its outputs belong to the present inputs, code and settings; `changed`: they
no longer do; `not run`: there are no outputs; `unknown`: DVC cannot tell, mostly because another DVC command is
running."""


@dataclass(frozen=True)
class Missing:
    """Something that the page would show, but that does not exist."""

    part: str
    """What it belongs to: the name of a stage, `MLflow`, `DVC` or `durations`."""
    text: str
    """What is missing, and what makes it."""


@dataclass(frozen=True)
class Tracked:
    """A file or folder in dvc.lock."""

    path: str
    digest: str
    """DVC's digest of the content; empty if DVC has no digest yet."""
    num_bytes: int | None


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, as it was locked when it last ran."""

    name: str
    description: str
    upstream: tuple[str, ...]
    """The stages whose outputs it reads."""
    state: State
    reasons: tuple[str, ...] = ()
    """What changed, in DVC's words."""
    seconds: float | None = None
    """Wall time of its last run; None if it was not recorded."""
    deps: tuple[Tracked, ...] = ()
    outs: tuple[Tracked, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    """Dotted keys of params.yaml, with the values of its last run."""


@dataclass(frozen=True)
class Picture:
    """An image that is contained in the page."""

    path: str
    uri: str
    """`data:image/...;base64,...`"""
    width: int
    height: int
    note: str = ""
    """Says so if the image was made smaller; else empty."""


@dataclass(frozen=True)
class Figure:
    """A picture of the evaluation, or of an exploration."""

    title: str
    tells: str
    """What the figure shows, in one sentence; empty for a figure that this version of ganpipe does not know."""
    picture: Picture
    of: str = ""
    """For an exploration: the model that was explored."""


@dataclass(frozen=True)
class SampleGrid:
    """Samples of the same latents at one moment of training."""

    picture: Picture
    step: int | None
    """Number of training steps before the samples; None if the file's name is not a number."""
    images_seen: int | None


@dataclass(frozen=True)
class Curve:
    """Values over images seen; points are (images seen, value). Values that are not finite are left out."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Training:
    """The result of the training."""

    gan: str
    config: Mapping[str, Any]
    """The settings of the GAN in the training, including those that the search chose: dotted keys."""
    players: tuple[str, ...]
    images_seen: int
    step: int
    averaged: bool
    run_key: str


@dataclass(frozen=True)
class Trial:
    """A row of the search's table."""

    number: int
    images_seen: int
    settings: Mapping[str, float | None]
    objective: float | None
    """None if it is not a finite number."""
    best: bool
    finished: bool
    """The trial saw as many images as the longest trial, so the scheduler did not stop it early."""


@dataclass(frozen=True)
class Search:
    """The trials of the search; there are none if tune.num_trials is 0."""

    objective: str
    settings: tuple[str, ...]
    trials: Sequence[Trial]


@dataclass(frozen=True)
class Metric:
    """A number of the evaluation."""

    name: str
    value: float | None
    better: Literal["lower", "higher"] | None
    wanted: str
    """The gate's bounds on the metric, in words; empty if there are none."""
    tells: str
    """What the metric tells, in one sentence; empty for a metric that this version of ganpipe does not know."""
    beside: str = ""
    """What it has to be read beside, with that metric's value."""
    interval: tuple[float, float] | None = None
    """Between which values it lies for 95 of 100 sets of other samples; None where that is not known."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics, with the protocol under which they were measured."""

    metrics: Sequence[Metric]
    protocol: Mapping[str, Any]
    """Dotted keys; empty if the file is missing."""
    class_fids: Sequence[tuple[str, float]]
    """(class name, FID), the worst FID first."""
    unmeasured: Sequence[str] = ()
    """Classes with too few images for an FID of their own."""


@dataclass(frozen=True)
class Data:
    """The images that the GAN was trained on."""

    source: str
    description: str
    homepage: str
    licence: str
    image_size: int
    channels: int
    fields: tuple[str, ...]
    classes: tuple[str, ...]
    num_images: Mapping[str, int]
    """By split."""
    num_skipped: int
    digest: str


@dataclass(frozen=True)
class Decision:
    """What the gate said of this generator."""

    passed: bool
    promote: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Registered:
    """The model version that holds this generator."""

    model: str
    version: int
    aliases: tuple[str, ...]
    champion: int | None
    """The version that is champion now."""
    decision: Decision | None
    moves: Sequence[Mapping[str, Any]]
    """Moves of aliases to or from this version, with the keys at, alias, from, to, by, why."""
    tags: Mapping[str, str]


@dataclass(frozen=True)
class TrackedRun:
    """The training's run in MLflow."""

    run_id: str
    url: str
    """Address of its page, if MLflow is a server; else empty."""
    tags: Mapping[str, str]
    packages: Mapping[str, str]
    """Versions of the main packages in the training."""


@dataclass(frozen=True)
class Report:
    """Everything on the page."""

    made_at: str
    """Date and time, UTC."""
    version: str
    """Version of ganpipe."""
    git: Mapping[str, str]
    """Commit, branch and dirty flag of the checkout in which the page was made, see `lineage.git_tags`."""
    tracking: str
    """MLflow's address, without password."""
    gate_metric: str
    stages: Sequence[Stage]
    data: Data | None
    search: Search | None
    training: Training | None
    curves: Sequence[Curve]
    scores: Sequence[Curve]
    alarms: Sequence[tuple[str, int | None, str]]
    """(kind, images seen, text) of each alarm of the training."""
    grids: Sequence[SampleGrid]
    evaluation: Evaluation | None
    figures: Sequence[Figure]
    """Figures of the evaluation, the samples first."""
    explorations: Sequence[Figure]
    """Pictures that `ganpipe explore` left in the checkout, of whatever models it explored."""
    real: Picture | None
    """A grid of some real images, as ingest stored them."""
    registered: Registered | None
    run: TrackedRun | None
    missing: Sequence[Missing]
