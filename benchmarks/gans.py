"""`make bench-gans`: every GAN on the same data for the same time, as the tables of docs/gans.md.

    python -m benchmarks.gans                                  # all that is missing: some 5 minutes a row, hours in all
    python -m benchmarks.gans dcgan lsgan --data mnist         # these rows anew
    python -m benchmarks.gans srgan:pixels                     # the generator of srgan, without a discriminator
    python -m benchmarks.gans dcgan --data mnist --seconds 60 --out /tmp/try gans.dcgan.num_latents=32
                                                               # a trial: nothing is written to the page

Each GAN trains in this process with its defaults, as a worker of `ganpipe train` does, but without Ray and MLflow. How
many images it has time for is measured first, because schedules and stages are shares of a training's length. The time
is four minutes of the machine that the first rows were measured on; a machine on which the yardstick, `dcgan` on MNIST,
is slower gets more, so that rows of different machines compare. A row is kept in benchmarks/gans.json as soon as it is
there, and is not measured again unless it is named.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ganpipe import gans
from ganpipe.cpus import usable_cpus
from ganpipe.data import sources
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.dataset import Dataset
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.errors import GanpipeError
from ganpipe.evaluation.evaluate import Evaluation, evaluate
from ganpipe.evaluation.extractors import efficientnet_lite0
from ganpipe.evaluation.figures.film import Film, film
from ganpipe.evaluation.grids import grid, png
from ganpipe.evaluation.measured import Subject
from ganpipe.evaluation.reference import cached_reference
from ganpipe.evaluation.sample_grids import classes_in_turn, num_columns, sample_grid
from ganpipe.evaluation.sampling import sample_images, sample_seeds
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.gans.base import Gan, GanConfig
from ganpipe.gans.spec import DataSpec, kind_of
from ganpipe.section import parse
from ganpipe.training.feed import data_spec_of
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import TrainingState
from ganpipe.training.worker import TrainingJob, run_training

from .__main__ import commit, machine
from .checkout import ROOT
from .kept import Kept

STRIPS = ROOT / "docs" / "images" / "gans"
SECONDS = 240.0
"""Of a row's training, on a machine on which the yardstick has the speed below."""
YARDSTICK_SPEED = 1_160
"""Images per second of two cores of an Intel Xeon with AVX-512 and AMX in bf16, at commit b092338."""
_YARDSTICK_SECONDS = 20.0
_PILOT = 0.08
"""Share of the time that finding the speed may take."""
_LEAST = 0.8
"""Share of the time that a training has to take; else it is done again, longer."""
_NUM_SHOWN, _NUM_COLUMNS = 30, 10


@dataclasses.dataclass(frozen=True)
class Data:
    """A dataset that some GANs are compared on, made without a download site.

    Attributes:
        settings, source: `data:` and the section of its source.
        given: what GANs of this dataset may be given, as `given_to` says it.
        evaluate: how many images are compared.
        train: `train:`, where it is not the default.
    """

    settings: dict[str, Any]
    source: dict[str, Any] = dataclasses.field(default_factory=dict)
    given: tuple[frozenset[str], ...] = (frozenset(), frozenset({"stored label"}))
    evaluate: dict[str, Any] = dataclasses.field(default_factory=dict)
    train: dict[str, Any] = dataclasses.field(default_factory=dict)


_COLOUR = {"image_size": 32, "channels": 3, "background": "white", "validation_fraction": 0.1}
_LARGE = {**_COLOUR, "image_size": 64}
_FEW = {"num_samples": 4000, "num_real": 4000, "kid_subset_size": 500}
_FEWER = {"num_samples": 2000, "num_real": 2000, "kid_subset_size": 300}
_SMALL_BATCHES = {"batch_size": 16}


def _one(*kinds: str) -> tuple[frozenset[str], ...]:
    return (frozenset(kinds),)


DATA = {
    "mnist": Data({"source": "mnist", "image_size": 32, "channels": 1}),
    "openmoji": Data({"source": "openmoji", **_COLOUR}, evaluate=_FEW),
    "words": Data(
        {"source": "openmoji", **_COLOUR},
        {},
        _one("stored tokens"),
        _FEWER,
        {"batch_size": 32, "augment": {"kind": "diffaugment"}},
    ),
    "sketches": Data(
        {"source": "openmoji", **_LARGE}, {"fields": "sketch"}, _one("stored image"), _FEWER, _SMALL_BATCHES
    ),
    "degraded": Data(
        {"source": "openmoji", **_LARGE},
        {},
        (frozenset({"derived image"}), frozenset({"derived image", "derived mask"})),
        _FEWER,
        _SMALL_BATCHES,
    ),
    "styles": Data({"source": "emoji_styles", **_COLOUR}, {}, _one("view image"), _FEWER, _SMALL_BATCHES),
    "skin_tones": Data(
        {"source": "openmoji", **_COLOUR},
        {"labels": "skin_tone", "groups": ["people-body"]},
        _one("stored image", "derived label"),
        _FEWER,
        _SMALL_BATCHES,
    ),
    "films": Data(
        {"source": "moving_digits", "image_size": 64, "channels": 1},
        {"random_turns": True},
        _one("stored frames"),
        _FEWER,
        _SMALL_BATCHES,
    ),
    "glyphs": Data(
        {"source": "glyphs", "image_size": 32, "channels": 1},
        {"fields": "style"},
        _one("stored frames", "stored label"),
        _FEWER,
    ),
}


ALONE: dict[str, tuple[str, ...]] = {
    "context_encoder:pixels": ("gans.context_encoder.adversarial_weight=0",),
    "deblurgan:pixels": ("gans.deblurgan.adversarial_weight=0", "gans.deblurgan.content_weight=0"),
    "srgan:pixels": ("gans.srgan.pretraining=1",),
    "video_prediction:pixels": (
        "gans.video_prediction.adversarial_weight=0",
        "gans.video_prediction.gradient_weight=0",
    ),
}
"""Generators that learn by a distance of pixels alone, for a comparison with what a discriminator adds: settings by
name."""


def given_to(gan: type[Gan], config: GanConfig, spec: DataSpec) -> frozenset[str]:
    """What a GAN is given, each field by where it comes from and its kind: `stored label`, `derived image`, ..."""
    origins = gan.origins(config, spec)
    return frozenset(f"{origins[name].kind} {kind_of(origins[name], spec).kind}" for name in gan.given)


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a row is made from: a GAN or a name of `ALONE`, a dataset, and `gans.<name>.*` and `train.*` settings that
    are no defaults."""

    name: str
    data: str
    further: tuple[str, ...] = ()

    @property
    def gan(self) -> str:
        return gan_of(self.name)

    @property
    def overrides(self) -> tuple[str, ...]:
        return (*ALONE.get(self.name, ()), *self.further)

    def settings(self, section: str) -> dict[str, Any]:
        """The overrides below `section`, nested."""
        found: dict[str, Any] = {}
        for override in self.overrides:
            key, _, value = override.partition("=")
            if key.startswith(f"{section}."):
                *parts, last = key.removeprefix(f"{section}.").split(".")
                place = found
                for part in parts:
                    place = place.setdefault(part, {})
                place[last] = YAML(typ="safe", pure=True).load(value)
        return found

    def config(self) -> GanConfig:
        """The GAN's settings."""
        config_class, prefix = gans.load(self.gan).Config, f"gans.{self.gan}"
        return parse(config_class, _merged(config_class().model_dump(), self.settings(prefix)), prefix)

    def train_settings(self, num_images: int) -> TrainSettings:
        """The defaults, without checkpoints."""
        own = {"gan": self.gan, "num_images": num_images, "checkpoint_every": 10**9}
        values = {**own, **DATA[self.data].train, **self.settings("train")}
        return parse(TrainSettings, values, prefix="train")

    def command(self, num_images: int) -> str:
        """What makes this generator by the pipeline."""
        data = DATA[self.data]
        values = {"train.gan": self.gan, "train.num_images": num_images, "tune.num_trials": 0}
        values |= {f"data.{key}": value for key, value in data.settings.items() if self.data != "mnist"}
        values |= {f"sources.{data.settings['source']}.{key}": value for key, value in data.source.items()}
        values |= _flat("train", data.train)
        values |= {f"evaluate.{key}": value for key, value in data.evaluate.items()}
        words = [f"{key}={_as_word(value)}" for key, value in values.items()] + list(self.overrides)
        return " ".join(["dvc exp run", *[f"-S {word}" for word in words]])


YARDSTICK = Trial("dcgan", "mnist")


def _flat(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(f"{prefix}.{key}", value) if isinstance(value, dict) else {f"{prefix}.{key}": value}
    return found


def _as_word(value: Any) -> str:
    """As the shell and DVC take it."""
    return f"'{json.dumps(value)}'" if isinstance(value, list) else str(value)


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    nested = {
        k: _merged(first[k], v) for k, v in second.items() if isinstance(v, dict) and isinstance(first.get(k), dict)
    }
    return {**first, **second, **nested}


def shards(name: str, root: Path) -> Path:
    """The dataset `name` as shards below `root`; made where it is not there yet."""
    return made_shards(DATA[name], root / name)


def made_shards(data: Data, folder: Path) -> Path:
    """The dataset as shards in `folder`; made where it is not there yet."""
    if not (folder / "manifest.json").exists():
        source = sources.load(data.settings["source"])
        write_shards(
            parse(DataSettings, data.settings, prefix="data"),
            source(parse(source.Settings, data.source, prefix="sources")),
            folder,
        )
    return folder


def trained(trial: Trial, num_images: int, shards_folder: Path) -> tuple[TrainingState, float]:
    """The state of a training at its end, and the seconds that it took."""
    settings = trial.train_settings(num_images)
    with tempfile.TemporaryDirectory(prefix="ganpipe-bench-", dir=shards_folder.parent) as folder:
        job = TrainingJob(trial.gan, trial.gan, trial.config(), settings, str(shards_folder), folder, usable_cpus())
        start = time.perf_counter()
        return run_training(job), time.perf_counter() - start


def shortest(trial: Trial, shards_folder: Path) -> tuple[int, float]:
    """The images and seconds of a training that is little but its start."""
    open_dataset(shards_folder, "train")  # decoding into the cache is no training
    num_images = 8 * trial.train_settings(1).batch_size
    return num_images, trained(trial, num_images, shards_folder)[1]


def train_for(trial: Trial, seconds: float, shards_folder: Path) -> tuple[TrainingState, float]:
    """Train about so many seconds, and return the seconds that it took."""
    num_images, taken = shortest(trial, shards_folder)
    while taken < seconds * _PILOT:
        num_images = int(num_images * min(4.0, max(1.5, 1.2 * seconds * _PILOT / taken)))
        _, taken = trained(trial, num_images, shards_folder)
    num_images = int(num_images * seconds / taken)
    state, taken = trained(trial, num_images, shards_folder)
    if taken < _LEAST * seconds:  # the pilot had to share the machine: it was slower than what came after
        return trained(trial, int(num_images * seconds / taken), shards_folder)
    return state, taken


def yardstick(root: Path) -> float:
    """Images per second of the yardstick on this machine, now, without the start, which is little of a whole row."""
    shards_folder = shards(YARDSTICK.data, root)
    state, taken = train_for(YARDSTICK, _YARDSTICK_SECONDS, shards_folder)
    num_images, start = shortest(YARDSTICK, shards_folder)
    return (state.progress.images_seen - num_images) / (taken - start)


def measured(trial: Trial, state: TrainingState, dataset: Dataset) -> tuple[Evaluation, dict[str, bytes]]:
    """What `measured_as` says, under the dataset's own protocol."""
    return measured_as(parse(EvaluateSettings, DATA[trial.data].evaluate, prefix="evaluate"), state, dataset)


def measured_as(
    settings: EvaluateSettings, state: TrainingState, dataset: Dataset
) -> tuple[Evaluation, dict[str, bytes]]:
    """The generator's metrics, and its first samples, by suffix: a picture with a column per class; of frames also a
    film."""
    extractor = efficientnet_lite0(settings.resize or 224)
    reference = cached_reference(dataset, extractor, settings)
    with state.averaged() as gan:
        subject = Subject(gan, state.progress, dataset, reference, extractor, settings, averaged=True)
        classes = classes_in_turn(gan, _NUM_SHOWN)
        if classes is None:
            shown = sample_grid(gan, state.progress, _NUM_SHOWN, dataset=dataset)
        else:
            images = sample_images(gan, state.progress, sample_seeds(0, _NUM_SHOWN), classes)
            shown = grid(images, num_columns(gan) or _NUM_COLUMNS)
        found = evaluate(subject, with_figures=False)
        films = {"gif": film(subject)} if Film.applies(gan) else {}
        return found, {"png": png(shown), **films}


def row(trial: Trial, seconds: float, root: Path, pictures: Path) -> dict[str, Any]:
    """Train, measure, and write the picture of samples."""
    shards_folder = shards(trial.data, root)
    state, taken = train_for(trial, seconds, shards_folder)
    num_images = state.progress.images_seen
    found, shown = measured(trial, state, open_dataset(shards_folder, "train"))
    pictures.mkdir(parents=True, exist_ok=True)
    for suffix, content in shown.items():
        (pictures / picture_of(trial.name, trial.data, suffix)).write_bytes(content)
    players = state.players.values()
    return {
        "name": trial.name,
        "data": trial.data,
        "images": num_images,
        "seconds": round(taken, 1),
        "images_per_second": round(num_images / taken, 1),
        "parameters": sum(parameter.numel() for player in players for parameter in player.parameters()),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "pictures": sorted(shown),
        "metrics": dict(found.metrics),
        "protocol": found.protocol.hash,
        "command": trial.command(state.progress.num_images),
        "commit": commit(),
        "machine": machine(),
    }


def applies(name: str, data: str, root: Path) -> bool:
    """Whether this GAN is compared with others on this dataset: it can learn from it, and is given what they are."""
    gan: type[Gan] = gans.load(gan_of(name))
    try:
        spec = data_spec_of(open_dataset(shards(data, root), "train").manifest)
        gan.check(gan.Config(), spec)
        return given_to(gan, gan.Config(), spec) in DATA[data].given
    except GanpipeError:
        return False


def gan_of(name: str) -> str:
    """The GAN of a row's name: `srgan` of `srgan` and of `srgan:pixels`."""
    return name.partition(":")[0]


def picture_of(name: str, data: str, suffix: str = "png") -> str:
    """The file with a row's samples."""
    return f"{name.replace(':', '-')}-{data}.{suffix}"


def table(results: Sequence[dict[str, Any]]) -> str:
    """The page's tables: one per dataset, best FID first."""
    parts = []
    for data in DATA:
        rows = sorted((r for r in results if r["data"] == data), key=lambda r: r["metrics"]["fid_efficientnet_lite0"])
        if not rows:
            continue
        parts.append(f"\n### {data}\n{_floor(rows)}")
        parts.append(
            "| GAN | FID | KID | precision | recall | images seen | images/s | parameters | memory | further |\n"
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|"
        )
        for r in rows:
            found = {key.removesuffix("_efficientnet_lite0"): value for key, value in r["metrics"].items()}
            parts.append(
                f"| [`{r['name']}`](#{gan_of(r['name'])}) | {found['fid']:.1f} | {found['kid']:.3g} "
                f"| {found['precision']:.2f} | {found['recall']:.2f} | {r['images']:,} | {r['images_per_second']:,.0f} "
                f"| {r['parameters']:,} | {r['peak_mib']:,} MiB | {_further(found)} |"
            )
        where = {f"{r['machine']['processor']}, {r['machine']['cores']} cores" for r in rows}
        commits = ", ".join(sorted({r["commit"] for r in rows}))
        parts.append(
            f"\nProtocols {', '.join(sorted({r['protocol'] for r in rows}))}; {'; '.join(sorted(where))}; "
            f"torch {rows[0]['machine']['versions']['torch']}; commits {commits}.\n"
        )
        for r in rows:
            files = [picture_of(r["name"], data, suffix) for suffix in reversed(r.get("pictures", ["png"]))]
            shown = " ".join(f"![{r['name']}](images/gans/{file})" for file in files)
            parts.append(f"`{r['name']}`: `{r['command']}`\n\n{shown}\n")
    return "\n".join(parts)


def _floor(rows: Sequence[dict[str, Any]]) -> str:
    """What other real images would have in place of the samples, where one of the rows knows it."""
    found = [r["metrics"][name] for r in rows for name in r["metrics"] if name.startswith("fid_of_real")]
    return f"\nFloor: real images have an FID of {found[0]:.1f} against other real images.\n" if found else ""


def _further(metrics: dict[str, float]) -> str:
    """The metrics that only some GANs have."""
    known = ("fid", "kid", "precision", "recall", "fid_of_real", "fid_infinity")
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in metrics.items() if name not in known)


KEPT = Kept("gans", "gans.md", "make bench-gans", table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gans", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="GAN | key=value", help="GANs (default: all), settings of a trial")
    parser.add_argument("--data", choices=sorted(DATA), action="append", help="default: all")
    parser.add_argument("--seconds", type=float, help="of training; default: four minutes of the first rows' machine")
    parser.add_argument("--cache", type=Path, default=ROOT / ".ganpipe" / "bench-gans", help="where shards are kept")
    parser.add_argument("--out", type=Path, help="a trial: rows and pictures go here, and not into the page")
    options = parser.parse_intermixed_args()
    names = [word for word in options.words if "=" not in word]
    overrides = tuple(word for word in options.words if "=" in word)
    results = [] if options.out else KEPT.rows()
    present = {(r["name"], r["data"]) for r in results}
    wanted = [
        (name, data)
        for name in names or [*gans.names(), *ALONE]
        for data in options.data or DATA
        if applies(name, data, options.cache) and (names or (name, data) not in present)
    ]
    if len(wanted) == 1 and options.seconds is not None:
        found = row(Trial(*wanted[0], overrides), options.seconds, options.cache, options.out or STRIPS)
        print(json.dumps({key: found[key] for key in ("name", "data", "images", "seconds", "metrics")}), flush=True)
        if options.out:
            with (options.out / "rows.jsonl").open("a") as file:
                file.write(json.dumps({**found, "overrides": overrides}) + "\n")
        else:
            KEPT.write([*[r for r in results if (r["name"], r["data"]) != wanted[0]], found])
    elif wanted:
        # Each in a process of its own: the peak of memory is the process's, over all that it has done.
        seconds = options.seconds or SECONDS * YARDSTICK_SPEED / yardstick(options.cache)
        print(f"the training of a row takes {seconds:.0f} s on this machine", flush=True)
        places = [f"--seconds={seconds:g}", f"--cache={options.cache}"]
        places += [f"--out={options.out}"] if options.out else []
        for name, data in wanted:
            command = [sys.executable, "-m", "benchmarks.gans", name, *overrides, f"--data={data}", *places]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
