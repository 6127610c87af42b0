"""What the tests of the registry share: a trained directory made of a real GAN, and MLflow databases."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import mlflow
import torch
from mlflow import MlflowClient
from safetensors.torch import save_file

from ganpipe import gans
from ganpipe.gans.base import Batch, DataSpec, Gan, Progress
from ganpipe.gans.draws import SeededDraws
from ganpipe.packaging.package import PackageFacts, build_package
from ganpipe.registry.registration import Candidate, Registration, register
from ganpipe.registry.settings import RegisterSettings
from ganpipe.registry.versions import CARD_TAG, CONTENT_TAG, METRICS_TAG, PROTOCOL_TAG
from ganpipe.tracking.runs import Tracker

SMALL = {
    "gan": {"num_latents": 8, "generator_width": 16, "discriminator_width": 8},
    "cgan": {"num_latents": 8, "latent_width": 8, "label_width": 8, "generator_width": 16, "discriminator_width": 8},
    "dcgan": {"num_latents": 8, "generator_width": 4, "discriminator_width": 4},
    "wgan_gp": {},
}
FACTS = PackageFacts(
    metrics={"fid_x": 3.0},
    protocol={"seed": 0},
    licence="CC BY-SA 3.0",
    card="# gan on mnist\n\nA generator of 16 x 16 grey images.\n\n## Data\n",
    samples_png=Path(__file__).parents[1] / "docs" / "images" / "mnist-gan.png",
)
"""What a package is built from beside what training left."""
PROGRESS = Progress(images_seen=640, num_images=640, step=10)


def make_gan(name: str, *, image_size: int = 16, seed: int = 0, config: Mapping[str, object] | None = None) -> Gan:
    """A small GAN with random weights and, where it has batch norm, statistics that are not the initial ones."""
    data = DataSpec.images(image_size, 1, 10)
    gan_class = gans.load(name)
    torch.manual_seed(seed)
    gan = gan_class(gan_class.Config.model_validate(SMALL[name] if config is None else config), data)
    with torch.no_grad():
        for parameter in gan.parameters():
            parameter.normal_(0, 0.3)  # initial weights of some papers are so small that every image is grey
    for key, buffer in gan.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return gan.eval()


def write_trained(gan: Gan, name: str, train_dir: Path) -> Path:
    """What the train stage leaves."""
    train_dir.mkdir(parents=True, exist_ok=True)
    modules = {id(module) for player in gan.players().values() if player.averaged for module in player.modules}
    held = {key for key, module in gan.named_children() if id(module) in modules}
    weights = {key: value for key, value in gan.state_dict().items() if key.split(".")[0] in held}
    save_file(weights, train_dir / "generator.safetensors")
    trained = {
        "gan": name,
        "config": gan.config.model_dump(mode="json"),
        "data": gan.data.to_json(),
        "progress": dataclasses.asdict(PROGRESS),
        "averaged": True,
        "run_key": "ab12",
        "data_digest": "cd34",
    }
    (train_dir / "model.json").write_text(json.dumps(trained))
    return train_dir


WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS = tuple(f"digit {word}" for word in WORDS)
"""Names of classes."""


def build(
    tmp_path: Path,
    name: str = "gan",
    *,
    seed: int = 0,
    metrics: dict[str, float] | None = None,
    classes: tuple[str, ...] = (),
    config: Mapping[str, object] | None = None,
) -> Path:
    """A package of a small GAN; returns its directory."""
    train_dir = write_trained(make_gan(name, seed=seed, config=config), name, tmp_path / "train")
    package_dir = tmp_path / "package"
    facts = dataclasses.replace(FACTS, metrics=metrics or FACTS.metrics, names={"label": classes})
    build_package(train_dir, package_dir, facts)
    return package_dir


@torch.no_grad()
def own_samples(gan: Gan, seeds: list[int], labels: list[int] | None, truncation: float = 1.0) -> torch.Tensor:
    """What ganpipe itself samples: uint8, (N, H, W, C)."""
    fields = {} if labels is None else {"label": torch.tensor(labels)}
    images_NCHW = gan.sample(Batch(len(seeds), SeededDraws(seeds), fields, truncation=truncation), PROGRESS)
    return ((images_NCHW + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def tracker_in(root: Path, template: Path | None = None) -> Tracker:
    """A tracker with an SQLite database in `root`, copied from `template` if given: making one takes 2 s."""
    root.mkdir(parents=True, exist_ok=True)
    if template is not None:
        shutil.copyfile(template, root / "mlflow.db")
    return Tracker.at(root, "tests")


NAME = "tests"
PROTOCOL = "p" * 64


class Desk:
    """A registry of its own, and a short way to register with it."""

    def __init__(self, tracker: Tracker, package: Path) -> None:
        self.tracker = tracker
        self.package = package
        self.client = tracker.client()
        self.run_id = tracker.run("register", "k").run_id
        self.rescored: list[int] = []
        self.tags = {"mlflow.source.git.commit": "abc"}
        self.half_width = 0.0
        """Of the interval that a FID is registered with; 0: none."""

    def register(
        self, fid: float, protocol: str = PROTOCOL, rescored_fid: float | None = None, **settings: object
    ) -> Registration:
        def measure_again(version: mlflow.entities.model_registry.ModelVersion) -> Mapping[str, float]:
            self.rescored.append(int(version.version))
            return {} if rescored_fid is None else {"fid_x": rescored_fid}

        gate = RegisterSettings.model_validate({"model_name": NAME, "metric": "fid_x", **settings})
        candidate = Candidate(
            self.package,
            {"fid_x": fid, "recall": 0.5},
            protocol,
            self.run_id,
            self.tags,
            {"fid_x": (fid - self.half_width, fid + self.half_width)} if self.half_width else {},
        )
        return register(candidate, gate, self.tracker, measure_again)


def add_version(client: MlflowClient, run_id: str, fid: float, protocol: str = PROTOCOL) -> int:
    """A version with all that the gate and the alias history look at, and no generator behind it: in milliseconds."""
    tags = {
        CONTENT_TAG: f"content of {fid}",
        METRICS_TAG: json.dumps({"fid_x": fid, "recall": 0.5}),
        PROTOCOL_TAG: protocol,
        CARD_TAG: "A generator.",
    }
    if not client.search_registered_models(f"name = '{NAME}'"):
        client.create_registered_model(NAME)
    source = client.get_run(run_id).info.artifact_uri  # a server takes none from elsewhere
    return int(client.create_model_version(NAME, source, run_id, tags).version)
