"""`python -m benchmarks.few`: few images, with augmentation and from other weights, as the tables of docs/training.md.

    python -m benchmarks.few                    # all that is missing; a row takes under a minute on two cores

Each generator is compared with all images of its dataset, also with those that it was not trained on. A row is kept in
benchmarks/few.json as soon as it is there. Two trainings are compared at equal numbers of images seen.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch

from ganpipe.cpus import usable_cpus
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.sources.openmoji import OpenmojiSettings
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.gans import load
from ganpipe.section import parse
from ganpipe.training.settings import TrainSettings
from ganpipe.training.start import AVERAGE, Start, weights_of
from ganpipe.training.worker import TrainingJob, run_training

from .__main__ import commit, machine
from .checkout import ROOT
from .gans import DATA, Data, made_shards, measured_as
from .kept import Kept

PICTURES = ROOT / "docs" / "images"
GAN, IMAGES = "acgan", 32_000
TUNED_GAN, BEFORE_IMAGES, TUNED_IMAGES = "dcgan", 128_000, 16_000
"""The GAN that is fine-tuned: it needs no labels. For how many images it was trained before, and is fine-tuned."""
TARGET, TARGET_IMAGES = "objects", 200
"""The group of emoji that it draws then, and how many of them it learns from."""
_NOTHING: dict[str, Any] = {}
_DIFFAUGMENT = {"augment": {"kind": "diffaugment"}}
_AUGMENTED = {
    "nothing": _NOTHING,
    "`train.mirror`": {"mirror": True},
    "DiffAugment": _DIFFAUGMENT,
    "ADA": {"augment": {"kind": "ada", "adapt_images": 20_000}},
}


@dataclasses.dataclass(frozen=True)
class Few:
    """A row.

    Attributes:
        what: the table's name for it.
        trained, compared: the datasets that it learns from, and that it is compared with.
        train: settings of the training that are no defaults.
        is_tuned: whether it starts from a generator of the other groups.
    """

    what: str
    trained: Data
    compared: Data
    train: dict[str, Any]
    num_images: int = IMAGES
    is_tuned: bool = False

    @property
    def key(self) -> dict[str, Any]:
        """What tells it from the other rows."""
        limit = self.trained.settings.get("limit")
        groups = self.trained.source.get("groups")
        return {"what": self.what, "data": self.trained.settings["source"], "limit": limit, "groups": groups}


def limited(data: Data, limit: int | None) -> Data:
    """The dataset with so many images, all of them for training."""
    settings = {**data.settings, "limit": limit, "validation_fraction": 0.0}
    return dataclasses.replace(data, settings=settings)


def of_groups(*groups: str) -> Data:
    """OpenMoji's drawings of these groups."""
    return dataclasses.replace(DATA["openmoji"], source={"groups": list(groups)})


def rows() -> list[Few]:
    """All that is measured."""
    found = []
    of_digits = {
        what: train for what, train in _AUGMENTED.items() if not train.get("mirror")
    }  # mirrored, they are none
    for data, limits, ways in (
        (DATA["openmoji"], (200, 1_000), _AUGMENTED),
        (DATA["mnist"], (200, 1_000, 10_000), of_digits),
    ):
        for limit in limits:
            found += [Few(what, limited(data, limit), limited(data, None), train) for what, train in ways.items()]
    target = of_groups(TARGET)
    for what, train, is_tuned in (
        ("from scratch", _NOTHING, False),
        ("from scratch, DiffAugment", _DIFFAUGMENT, False),
        ("from the other groups", _NOTHING, True),
        ("from the other groups, DiffAugment", _DIFFAUGMENT, True),
    ):
        found.append(Few(what, limited(target, TARGET_IMAGES), limited(target, None), train, TUNED_IMAGES, is_tuned))
    return found


def train(data: Data, settings: dict[str, Any], num_images: int, cache: Path, start: Start | None = None) -> Any:
    """The state of a training at its end."""
    gan = TUNED_GAN if data.source else GAN
    values = {"gan": gan, "num_images": num_images, "checkpoint_every": 10**9, **settings}
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        shards = str(placed(data, cache))
        config, chosen = load(gan).Config(), parse(TrainSettings, values, prefix="train")
        return run_training(TrainingJob(gan, gan, config, chosen, shards, folder, usable_cpus(), start=start))


def placed(data: Data, cache: Path) -> Path:
    """Its shards, in a folder named by what it is."""
    name = hashlib.sha256(json.dumps([data.settings, data.source], sort_keys=True).encode()).hexdigest()[:12]
    return made_shards(data, cache / f"few-{name}")


def other_groups(cache: Path) -> Start:
    """A generator of all groups but the target."""
    path = cache / f"few-start-{TUNED_GAN}-{BEFORE_IMAGES}.safetensors"
    if not path.exists():
        groups = [group for group in OpenmojiSettings().groups if group != TARGET]
        state = train(limited(of_groups(*groups), None), _NOTHING, BEFORE_IMAGES, cache)
        weights = {name: tensor.contiguous() for name, tensor in weights_of(state.gan).items()}
        averages = {f"{AVERAGE}{name}": tensor.contiguous() for name, tensor in state.ema.state_dict().items()}
        path.write_bytes(safetensors.torch.save(weights | averages))
    return Start("the other groups", hashlib.sha256(path.read_bytes()).hexdigest(), str(path))


def measure(row: Few, cache: Path) -> dict[str, Any]:
    """Train it, and compare its samples with all images of the dataset."""
    dataset = open_dataset(placed(row.compared, cache), "train")
    start = other_groups(cache) if row.is_tuned else None
    state = train(row.trained, row.train, row.num_images, cache, start)
    num = min(5_000, len(dataset))
    chosen = {"num_samples": max(num, 2_000), "num_real": num, "kid_subset_size": min(500, num)}
    found, pictures = measured_as(parse(EvaluateSettings, chosen, prefix="evaluate"), state, dataset)
    if row.trained.source:
        name = f"few-{row.what.replace(', ', '-').replace(' ', '-').lower()}.png"
        (PICTURES / name).write_bytes(pictures["png"])
    images = {"images": state.progress.images_seen, "compared": num}
    return {**row.key, **images, "metrics": dict(found.metrics), "commit": commit(), "machine": machine()}


def table(found: Sequence[dict[str, Any]]) -> str:
    """A table per dataset: a row for each number of images."""
    lines = []
    for data in ("openmoji", "mnist"):
        of_data = [row for row in found if row["data"] == data and not row["groups"]]
        names = [name for name in _AUGMENTED if any(row["what"] == name for row in of_data)]
        if not of_data:
            continue
        lines += ["", f"| `{GAN}`, {data}: images | " + " | ".join(names) + " |", "|---:|" + "---:|" * len(names)]
        for limit in sorted({row["limit"] for row in of_data}):
            cells = {row["what"]: _cell(row) for row in of_data if row["limit"] == limit}
            lines.append(f"| {limit:,} | " + " | ".join(cells.get(name, "") for name in names) + " |")
    tuned = [row for row in found if row["groups"]]
    if tuned:
        lines += ["", f"| `{TUNED_GAN}`, {tuned[0]['limit']} images of `{TARGET}` | FID, recall |", "|---|---:|"]
        lines += [f"| {row['what']} | {_cell(row)} |" for row in tuned]
    return "\n".join(lines[1:])


def _cell(row: dict[str, Any]) -> str:
    metrics = {name.removesuffix("_efficientnet_lite0"): value for name, value in row["metrics"].items()}
    return f"{metrics['fid']:.0f}, {metrics['recall']:.2f}"


KEPT = Kept("few", "training.md", "python -m benchmarks.few", table)


def main() -> None:
    cache = ROOT / ".ganpipe" / "bench-gans"
    cache.mkdir(parents=True, exist_ok=True)
    found = KEPT.rows()
    for row in rows():
        if any(row.key.items() <= other.items() for other in found):
            continue
        found.append(measure(row, cache))
        KEPT.write(found)
        print(json.dumps({key: found[-1][key] for key in ("what", "data", "limit", "metrics")}), flush=True)


if __name__ == "__main__":
    main()
