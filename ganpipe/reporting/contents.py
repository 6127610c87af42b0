"""What a report holds, as plain values: no file, no database and no markup in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["up to date", "changed", "not run", "unknown"]
"""Of a stage, as DVC sees it: outputs fit inputs, code and settings; they no longer do; there are none; DVC is busy."""


@dataclass(frozen=True)
class Missing:
    """Something that the page would show and that is not there."""

    part: str
    """What it belongs to: a stage's name, `MLflow`, `DVC`."""
    text: str
    """What is not there, and what makes it."""


@dataclass(frozen=True)
class Tracked:
    """A file or folder in dvc.lock."""

    path: str
    digest: str
    """DVC's digest of the content; empty where DVC has none yet."""
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
    """Wall time when it last ran; None where nobody noted it."""
    deps: tuple[Tracked, ...] = ()
    outs: tuple[Tracked, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    """Dotted keys of params.yaml, with the values that it ran with."""


@dataclass(frozen=True)
class Picture:
    """An image, in the page itself."""

    path: str
    uri: str
    """`data:image/...;base64,...`"""
    width: int
    height: int
    note: str = ""
    """Whether it was made smaller."""


@dataclass(frozen=True)
class Figure:
    """A picture of the evaluation."""

    title: str
    tells: str
    """What it shows, in one sentence; empty for a figure that this ganpipe does not know."""
    picture: Picture


@dataclass(frozen=True)
class SampleGrid:
    """Samples of the same latents at one moment of training."""

    picture: Picture
    step: int | None
    """Updates before it; None where the file's name is no number."""
    images_seen: int | None


@dataclass(frozen=True)
class Curve:
    """Numbers over images seen; what is no finite number is left out."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Training:
    """What the training left."""

    gan: str
    config: Mapping[str, Any]
    """The GAN's settings as it was trained, with those of the search: dotted keys."""
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
    """None: no finite number."""
    best: bool
    finished: bool
    """It saw as many images as the longest trial: the scheduler did not give it up."""


@dataclass(frozen=True)
class Search:
    """The trials of the search; none where tune.num_trials is 0."""

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
    """The bounds that the gate sets, in words."""
    tells: str
    """What it says, in one sentence; empty for a metric that this ganpipe does not know."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics with the protocol that they were measured under."""

    metrics: Sequence[Metric]
    protocol: Mapping[str, Any]
    """Dotted keys; empty where the file is missing."""
    class_fids: Sequence[tuple[str, float]]
    """FID by class name, the worst first."""
    unmeasured: Sequence[str] = ()
    """Classes with too few images for an FID of their own."""


@dataclass(frozen=True)
class Data:
    """The images that it was trained on."""

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
    """Moves of aliases to or from this version: at, alias, from, to, by, why."""
    tags: Mapping[str, str]


@dataclass(frozen=True)
class TrackedRun:
    """The training's run in MLflow."""

    run_id: str
    url: str
    """Its page, where MLflow is a server; else empty."""
    tags: Mapping[str, str]
    packages: Mapping[str, str]
    """Versions of the main packages that it ran on."""


@dataclass(frozen=True)
class Report:
    """Everything on the page."""

    made_at: str
    """UTC."""
    version: str
    """Of ganpipe."""
    git: Mapping[str, str]
    """Tags of the checkout that the page was made in: commit, branch, dirty."""
    tracking: str
    """Where MLflow is, without password."""
    gate_metric: str
    stages: Sequence[Stage]
    data: Data | None
    search: Search | None
    training: Training | None
    curves: Sequence[Curve]
    scores: Sequence[Curve]
    grids: Sequence[SampleGrid]
    evaluation: Evaluation | None
    figures: Sequence[Figure]
    """Those that the evaluation drew, the samples first."""
    real: Picture | None
    """Some of the real images, as ingest made them."""
    registered: Registered | None
    run: TrackedRun | None
    missing: Sequence[Missing]
