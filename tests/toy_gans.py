"""Tiny GANs that are given images, words and codes, and what a test does to have them beside the real ones.

Their networks are a single number, so that what comes out can be said: with weight -1 an image becomes its negative.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from registry_parts import FACTS, write_trained

from ganpipe import gans
from ganpipe.fields import Frames, Label, Picture, Tokens
from ganpipe.gans.base import DataSpec, Gan
from ganpipe.packaging.package import build_package

_BEGINNING = """
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..fields import Label, Mask, Number
from .base import Batch, Derived, Gan, GanConfig, Phase, Player, Progress, Stored
from .optimizers import Adam


class Settings(GanConfig):
    adam_generator: Adam = Adam(lr=1e-3, beta1=0.5, beta2=0.999)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(-1.0))


class Toy(Gan):
    Config = Settings

    def __init__(self, config, data) -> None:
        super().__init__(config, data)
        self.generator = Scale()

    def players(self) -> dict[str, Player]:
        return {"generator": Player([self.generator], self.config.adam_generator, averaged=True)}

    def phases(self, progress: Progress) -> list[Phase]:
        return []
"""
SOURCES = {
    # A sketch of half the size becomes its negative, darkened by the label, brightened by `light`.
    "toy_painter": """
    fields = ("image", "sketch", "label")
    given = ("sketch", "label")
    has_latents = False

    @classmethod
    def codes(cls, config):
        return {"light": Number(low=0.0, high=1.0)}

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        light_N111 = (conditions["light"] - conditions["label"] / 10)[:, None, None, None]
        return interpolate(self.generator.weight * conditions["sketch"], scale_factor=2) + light_N111
""",
    # One way an image becomes its negative, the other way it is turned upside down.
    "toy_mirror": """
    fields = ("b", "a")
    given = ("a",)
    has_latents = False
    directions = {"there": ("a", "b"), "back": ("b", "a")}

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        if "a" in conditions.fields:
            return self.generator.weight * conditions["a"]
        return conditions["b"].flip(2)
""",
    # Noise that is as bright as its first word's number, tilted and cut by two codes.
    "toy_sayer": """
    fields = ("image", "text")
    given = ("text",)

    @classmethod
    def codes(cls, config):
        return {"tilt": Number(low=-1.0, high=1.0), "stripe": Label(num_classes=3)}

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        level_N = self.generator.weight * (conditions["text"][:, 0] / 8 - 0.5) + 0.1 * conditions.latent(1)[:, 0]
        slope_W = torch.linspace(-1, 1, 16, device=level_N.device)
        image_NHW = level_N[:, None, None] + (conditions["tilt"][:, None] * slope_W)[:, None, :].expand(-1, 16, -1)
        rows_H = torch.arange(16, device=level_N.device) % 3
        cut_NH1 = (rows_H[None] == conditions["stripe"][:, None])[:, :, None]
        return image_NHW.masked_fill(cut_NH1, 1.0)[:, None].clamp(-1, 1)
""",
    # Three frames that follow two others: the last of them as its negative, as it is, and as its negative again.
    "toy_forecaster": """
    fields = ("future", "past")
    given = ("past",)
    makes = "frames"
    has_latents = False

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        last_NCHW = conditions["past"][:, -1]
        return torch.stack([self.generator.weight * last_NCHW, last_NCHW, -last_NCHW], dim=1)
""",
    # What is missing of an image becomes black; the rest stays.
    "toy_mender": """
    fields = ("image", "source", "mask")
    given = ("source", "mask")
    has_latents = False

    @classmethod
    def origins(cls, config, data):
        def same(images_NCHW, draws):
            return images_NCHW

        def half(images_NCHW, draws):
            return torch.ones_like(images_NCHW[:, :1])

        mask = Derived("image", half, Mask(size=data.image_size))
        return {"image": Stored("image"), "source": Derived("image", same, data.image), "mask": mask}

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        return torch.where(conditions["mask"] > 0, self.generator.weight, conditions["source"])
""",
    # Three layers take a style of two numbers; the first number is how bright their share of the rows is.
    "toy_stylist": """
    def styles(self, batch: Batch) -> Tensor:
        w_ND = self.generator.weight * batch.to_device(batch.draws.normal(2)) * batch.truncation / 8
        return w_ND.unsqueeze(1).expand(-1, 3, -1)

    def synthesise(self, w_NLD: Tensor, batch: Batch, progress: Progress) -> Tensor:
        noise_N1HW = batch.to_device(batch.draws.normal(1, 16, 16)) / 20
        rows_NH = w_NLD[:, [0] * 6 + [1] * 5 + [2] * 5, 0]
        return rows_NH[:, None, :, None] + noise_N1HW

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        return self.synthesise(self.styles(conditions), conditions, progress)
""",
}
WORDS = ("red", "fox", "blue", "sea")
DATA: Mapping[str, DataSpec] = {
    "toy_painter": DataSpec(
        {
            "image": Picture(size=16, channels=3),
            "sketch": Picture(size=8, channels=3),
            "label": Label(num_classes=4),
        }
    ),
    "toy_mirror": DataSpec({"a": Picture(size=16, channels=3), "b": Picture(size=16, channels=3)}, main="b"),
    "toy_forecaster": DataSpec(
        {"past": Frames(num_frames=2, size=16, channels=1), "future": Frames(num_frames=3, size=16, channels=1)},
        main="future",
    ),
    "toy_mender": DataSpec.images(16, 3),
    "toy_stylist": DataSpec.images(16, 1),
    "toy_sayer": DataSpec({"image": Picture(size=16, channels=1), "text": Tokens(length=3, num_words=len(WORDS) + 2)}),
}
NAMES: Mapping[str, Sequence[str]] = {"text": WORDS, "label": ("dawn", "noon", "dusk", "night")}


@contextmanager
def toys(folder: Path) -> Iterator[Path]:
    """The toy GANs are found by name; yields a folder with the sources of ganpipe and theirs."""
    sources = folder / "ganpipe"
    sources.mkdir(parents=True)
    package = Path(gans.__file__).parents[1]
    for path in package.iterdir():
        if path.name not in ("gans", "__pycache__"):
            (sources / path.name).symlink_to(path)
    (sources / "gans").mkdir()
    for path in (package / "gans").glob("*.py"):
        (sources / "gans" / path.name).symlink_to(path)
    own = folder / "toys"
    own.mkdir()
    for name, text in SOURCES.items():
        for place in (own, sources / "gans"):
            (place / f"{name}.py").write_text(_BEGINNING + text)
    gans.__path__.append(str(own))
    try:
        yield sources
    finally:
        gans.__path__.remove(str(own))
        for name in SOURCES:
            sys.modules.pop(f"ganpipe.gans.{name}", None)


def toy(name: str) -> Gan:
    """One of the toy GANs, within `toys`."""
    gan_class = gans.load(name)
    return gan_class(gan_class.Config(), DATA[name]).eval()


def build_toy(folder: Path, name: str, sources: Path) -> Path:
    """A package of a toy GAN; returns its directory."""
    with torch.random.fork_rng():
        train_dir = write_trained(toy(name), name, folder / "train")
    build_package(train_dir, folder / "package", replace(FACTS, names=NAMES), sources=sources)
    return folder / "package"
