"""A small dataset that a GAN learns in seconds, and a training on it without shards and without Ray."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ganpipe.evaluation.given import field_reader, read_rows
from ganpipe.evaluation.grids import png
from ganpipe.evaluation.sample_grids import sample_grid
from ganpipe.fields import Frames, Label, Picture, Tokens
from ganpipe.gans import load
from ganpipe.gans.base import DataSpec, Gan
from ganpipe.gans.spec import FieldReader, Order, to_tensor
from ganpipe.packaging.package import PackageFacts, build_package
from ganpipe.training.distributed import World
from ganpipe.training.loop import Fetch, Loop
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import TrainingState
from ganpipe.words import NUM_RESERVED, PADDING

SPEC = DataSpec.images(16, 1, 2)


def blobs(num_images: int, seed: int = 0) -> dict[str, Tensor]:
    """Images in [-1, 1] with a soft spot in the left half (label 0) or the right half (label 1)."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, num_images)
    columns = generator.uniform(3, 5, num_images) + 8 * labels
    rows = generator.uniform(5, 11, num_images)
    y, x = np.mgrid[0:16, 0:16]
    squares = (x - columns[:, None, None]) ** 2 + (y - rows[:, None, None]) ** 2
    return {"image": torch.from_numpy(2 * np.exp(-squares / 12)[:, None] - 1), "label": torch.from_numpy(labels)}


def inverted_blobs(num_images: int, seed: int = 0) -> dict[str, Tensor]:
    """Bright spots on black (label 0), and dark spots on white (label 1)."""
    fields = blobs(num_images, seed)
    signs = torch.where(fields["label"] == 0, 1.0, -1.0).reshape(-1, 1, 1, 1)
    return {"image": fields["image"] * signs, "label": fields["label"]}


def outlined_blobs(num_images: int, seed: int = 0) -> dict[str, Tensor]:
    """Soft spots (target), and where they are brighter than half (source)."""
    target = blobs(num_images, seed)["image"]
    return {"source": torch.where(target > 0, 1.0, -1.0).to(target.dtype), "target": target}


def worded_blobs(num_images: int, seed: int = 0) -> dict[str, Tensor]:
    """Soft spots, and a text of one word for the half in which they are."""
    fields = blobs(num_images, seed)
    word = fields["label"] + NUM_RESERVED
    return {"image": fields["image"], "text": torch.stack([word, torch.full_like(word, PADDING)], dim=1)}


def large_worded_blobs(num_images: int, seed: int = 0) -> dict[str, Tensor]:
    """The same at 32 pixels."""
    fields = worded_blobs(num_images, seed)
    return {**fields, "image": torch.nn.functional.interpolate(fields["image"], scale_factor=2, mode="bilinear")}


def styled_blobs(num_images: int, seed: int = 0) -> dict[str, Tensor]:
    """Soft spots of two brightnesses (the style), with two examples of the same brightness at other places."""
    generator = np.random.default_rng(seed)
    levels = torch.from_numpy(generator.choice([0.6, 1.0], num_images)).reshape(-1, 1, 1, 1)
    fields, others = blobs(num_images, seed + 1), [blobs(num_images, seed + 2 + number)["image"] for number in (0, 1)]
    dimmed = [(image + 1) * levels - 1 for image in (fields["image"], *others)]
    return {"image": dimmed[0], "examples": torch.stack(dimmed[1:], dim=1), "label": fields["label"]}


def moving_blobs(num_films: int, seed: int = 0) -> dict[str, Tensor]:
    """Soft spots that move to the right, two pixels from frame to frame: two frames of the past, two of the future."""
    generator = np.random.default_rng(seed)
    columns, rows = generator.uniform(2, 6, num_films), generator.uniform(4, 12, num_films)
    y, x = np.mgrid[0:16, 0:16]
    moved = columns[:, None] + 2 * np.arange(4)
    squares = (x - moved[:, :, None, None]) ** 2 + (y - rows[:, None, None, None]) ** 2
    frames = torch.from_numpy(2 * np.exp(-squares / 12) - 1).unsqueeze(2)
    return {"past": frames[:, :2], "future": frames[:, 2:]}


class InMemory:
    """Fields as a decoded dataset: rows by number, pictures as bytes."""

    def __init__(self, fields: dict[str, Tensor]) -> None:
        self._arrays = {name: _as_bytes(value).numpy() for name, value in fields.items()}

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    @property
    def shard_sizes_S(self) -> np.ndarray:
        return np.array([len(self)])

    def sizes_within(self, members_N: np.ndarray) -> np.ndarray:
        return np.array([len(members_N)])

    def rows(self, indices: np.ndarray, fields: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        return {name: array[indices] for name, array in self._arrays.items() if fields is None or name in fields}


def _as_bytes(values: Tensor) -> Tensor:
    return ((values + 1) * 127.5).round().to(torch.uint8) if values.is_floating_point() else values


@dataclass(frozen=True)
class Case:
    """How a GAN is tested.

    Attributes:
        config: settings under which it trains quickly.
        fields: (number of samples, seed) -> the dataset, pictures in [-1, 1].
        spec: what these fields are.
        num_batches: of a training after which its samples are several times nearer to the data than before.
        sees_the_batch: a sample's losses depend on the others of its batch, beside batch norm.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    fields: Callable[[int, int], dict[str, Tensor]] = blobs
    spec: DataSpec = SPEC
    num_batches: int = 200
    sees_the_batch: bool = False

    def dataset(self, num_samples: int = 64) -> InMemory:
        """As a decoded dataset."""
        return InMemory(self.fields(num_samples, 0))


def _adam(lr: float, beta1: float = 0.5, beta2: float = 0.999) -> dict[str, float]:
    return {"lr": lr, "beta1": beta1, "beta2": beta2}


_WIDTHS = {"generator_width": 8, "discriminator_width": 8}
_FAST_GENERATOR = {
    "adam_generator": {"lr": 2e-3, "beta1": 0.0, "beta2": 0.9},
    "adam_discriminator": {"lr": 1e-3, "beta1": 0.0, "beta2": 0.9},
}
_TINY = {
    "generator_width": 4,
    "discriminator_width": 4,
    "adam_generator": {"lr": 2e-3, "beta1": 0.0, "beta2": 0.9},
    "adam_discriminator": {"lr": 4e-3, "beta1": 0.0, "beta2": 0.9},
}
_FAST_ADAMS = {f"adam_{player}": {"lr": 4e-3, "beta1": 0.0, "beta2": 0.99} for player in ("generator", "critic")}
_FASTER = {"adam_generator": _adam(1e-3), "adam_discriminator": _adam(5e-4)}
_FASTER_R3GAN = {f"adam_{player}": _adam(2e-3, 0.0, 0.9) for player in ("generator", "discriminator")}
_CLIPPED = {
    "clip": 0.05,
    **{f"rmsprop_{player}": {"lr": 5e-4} for player in ("generator", "critic")},
}
_FAST_PAIR = {f"adam_{p}": {"lr": 1e-3, "beta1": 0.5, "beta2": 0.999} for p in ("generator", "discriminator")}
_WORDS = Tokens(length=2, num_words=NUM_RESERVED + 2)
_FRAMES = Frames(num_frames=2, size=16, channels=1)
_PAIRS = DataSpec({name: Picture(size=16, channels=1) for name in ("source", "target")}, "target")
CASES: dict[str, Case] = {
    "gan": Case({"generator_width": 64, "discriminator_width": 64, "num_latents": 16}),
    "dcgan": Case({**_WIDTHS, "num_latents": 16}, num_batches=300),
    "cgan": Case({"latent_width": 64, "label_width": 64, "generator_width": 256, "discriminator_width": 100}),
    "wgan_gp": Case({"generator_width": 64, "critic_width": 64, "num_latents": 16}, num_batches=1000),
    "acgan": Case({**_WIDTHS, "num_latents": 16, **_FAST_PAIR}, num_batches=150),
    "sngan": Case({**_WIDTHS, "num_latents": 16}),
    "sagan": Case({**_WIDTHS, "num_latents": 16, **_FAST_GENERATOR}, num_batches=100),
    "biggan": Case(
        {**_TINY, "num_latents_per_layer": 8, "embedding_width": 8, "num_discriminator_updates": 1}, num_batches=80
    ),
    "infogan": Case({**_WIDTHS, "num_latents": 12, "num_categories": 2, "dense_width": 64, "recognition_width": 16}),
    "progan": Case(
        {"generator_width": 8, "critic_width": 8, "num_latents": 16, "growing": 0.2, **_FAST_ADAMS},
        num_batches=180,
        sees_the_batch=True,
    ),
    "stylegan": Case(
        {
            **_WIDTHS,
            "num_latents": 16,
            "mixing": 0.5,
            "growing": 0.2,
            "adam_generator": {"lr": 1e-2, "beta1": 0.0, "beta2": 0.99},
            "adam_discriminator": {"lr": 4e-3, "beta1": 0.0, "beta2": 0.99},
        },
        num_batches=180,
        sees_the_batch=True,
    ),
    "stylegan2": Case(
        {**_WIDTHS, "num_latents": 16, "path_weight": 0.1, "mixing": 0.5}, num_batches=70, sees_the_batch=True
    ),
    "pix2pix": Case(_WIDTHS, outlined_blobs, _PAIRS, num_batches=150),
    "cyclegan": Case({"generator_width": 4, "discriminator_width": 4, "num_blocks": 1}, inverted_blobs, num_batches=60),
    "srgan": Case(
        {**_WIDTHS, "num_blocks": 1, "adam_generator": {"lr": 2e-3, "beta1": 0.9, "beta2": 0.999}}, num_batches=80
    ),
    "lsgan": Case({**_WIDTHS, "num_latents": 16}, num_batches=300),
    "wgan": Case({"generator_width": 8, "critic_width": 8, "num_latents": 16, **_CLIPPED}, num_batches=900),
    "fgan": Case({**_WIDTHS, "num_latents": 16, "adam_generator": _adam(5e-4)}, num_batches=250),
    "bgan": Case({**_WIDTHS, "num_latents": 16, **_FASTER}, num_batches=250),
    "gogan": Case(
        {"generator_width": 8, "critic_width": 8, "num_latents": 16, "num_stages": 2, **_CLIPPED}, num_batches=800
    ),
    "r3gan": Case({**_WIDTHS, "num_latents": 16, **_FASTER_R3GAN}, num_batches=80),
    "ebgan": Case({**_WIDTHS, "num_latents": 16, "num_codes": 8}, num_batches=300, sees_the_batch=True),
    "vaegan": Case({**_WIDTHS, "encoder_width": 8, "num_latents": 8}),
    "alphagan": Case({**_WIDTHS, "encoder_width": 8, "num_latents": 8, "code_width": 64}, num_batches=280),
    "pix2pixhd": Case(
        {"generator_width": 4, "critic_width": 8, "num_blocks": 1, "num_scales": 1},
        outlined_blobs,
        _PAIRS,
        num_batches=80,
    ),
    "discogan": Case({**_WIDTHS, "num_codes": 16}, inverted_blobs, num_batches=150),
    "dualgan": Case(
        {
            "generator_width": 4,
            "critic_width": 4,
            "num_critic_updates": 1,
            "clip": 0.5,
            "reconstruction_weight": 1.0,
            **{f"rmsprop_{player}": {"lr": 2e-3, "alpha": 0.9} for player in ("generators", "critic_a", "critic_b")},
        },
        inverted_blobs,
        num_batches=60,
    ),
    "stargan": Case(
        {
            "generator_width": 4,
            "critic_width": 8,
            "num_blocks": 1,
            "num_critic_updates": 1,
            "is_correction": False,
            "adam_generator": _adam(1e-3, 0.5, 0.9),
            "adam_critic": _adam(2e-3, 0.5, 0.9),
        },
        inverted_blobs,
        num_batches=150,
    ),
    "ageing": Case(
        {**_WIDTHS, "encoder_width": 8, "num_latents": 8, "code_width": 16}, inverted_blobs, num_batches=150
    ),
    "prosr": Case({"generator_width": 8, "discriminator_width": 4, "num_units": 1}, num_batches=80),
    "deblurgan": Case({"generator_width": 4, "critic_width": 4, "num_blocks": 1}, num_batches=80),
    "context_encoder": Case({**_WIDTHS, **_FAST_PAIR}, num_batches=120),
    "glcic": Case({**_WIDTHS, "num_features": 16, **_FAST_PAIR}, num_batches=100),
    "text_to_image": Case(
        {**_WIDTHS, "num_latents": 8, "embedding_width": 8},
        worded_blobs,
        DataSpec({"image": Picture(size=16, channels=1), "text": _WORDS}),
        num_batches=250,
    ),
    "stackgan": Case(
        {
            "num_latents": 8,
            "embedding_width": 8,
            "num_conditions": 4,
            "first_width": 8,
            "second_width": 8,
            "num_blocks": 1,
            "first_stage": 0.3,
        },
        large_worded_blobs,
        DataSpec({"image": Picture(size=32, channels=1), "text": _WORDS}),
        num_batches=420,
    ),
    "video_prediction": Case(
        {"generator_width": 8, "discriminator_width": 4, "num_scales": 2},
        moving_blobs,
        DataSpec({"past": _FRAMES, "future": _FRAMES}, "future"),
        num_batches=100,
    ),
    "vgsn": Case(
        {**_WIDTHS, "encoder_width": 8, "num_latents": 4},
        styled_blobs,
        DataSpec({"image": Picture(size=16, channels=1), "examples": _FRAMES, "label": Label(num_classes=2)}),
        num_batches=150,
    ),
    "distillation": Case({**_WIDTHS, "teacher_width": 8, "num_latents": 8, "teaching": 0.5}, num_batches=360),
}
"""A GAN that is not here is trained on blobs with its own settings."""


SMALL: dict[str, dict[str, Any]] = {name: dict(case.config) for name, case in CASES.items()}
"""Settings under which a GAN trains quickly."""


def case_of(name: str) -> Case:
    """How the GAN `name` is tested."""
    return CASES.get(name, Case())


def fetch_from(fields: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Fetch:
    """An endless stream of `fields`, in order."""
    num_images = len(next(iter(fields.values())))

    def fetch(start: int, stop: int) -> dict[str, Tensor]:
        rows = torch.arange(start, stop) % num_images
        return {n: v[rows].to(dtype) if v.is_floating_point() else v[rows] for n, v in fields.items()}

    return fetch


class _Floats(InMemory):
    """The same with pictures as floats."""

    def __init__(self, fields: dict[str, Tensor]) -> None:
        self._arrays = {name: value.numpy() for name, value in fields.items()}


def in_order(members: Sequence[int] | np.ndarray, group: str) -> Order:
    """Samples as they come, again and again."""
    return lambda start, stop: np.arange(start, stop) % len(members)


def fetch_of(gan: Gan, fields: dict[str, Tensor], dtype: torch.dtype) -> Fetch:
    """An endless stream of the fields of `gan`, in order."""
    reader = FieldReader(gan.origins(gan.config, gan.data), _Floats(fields), in_order, seed=0)
    return lambda start, stop: reader.read(start, stop, lambda rows: to_tensor(rows, torch.device("cpu"), dtype))


def given_to(gan: Gan, name: str, num_samples: int) -> dict[str, Tensor]:
    """What the first samples of its dataset give to the GAN `name`."""
    reader = field_reader(gan, case_of(name).dataset(512), np.arange(512), 0, gan.given)  # type: ignore[arg-type]
    return read_rows(reader, 0, num_samples)


def make_loop(
    name: str,
    world: World | None = None,
    settings: dict[str, Any] | None = None,
    fields: dict[str, Tensor] | None = None,
    **config: Any,
) -> Loop:
    """A training of the GAN `name` on its own dataset or on `fields`, in fp64 unless `settings` say otherwise."""
    case = case_of(name)
    values = {"gan": name, "num_images": 10**6, "batch_size": 16, "precision": "fp64", "seed": 3, **(settings or {})}
    train_settings = TrainSettings.model_validate(values)
    world = world or World()
    gan_config = load(name).Config.model_validate({**case.config, **config})
    state = TrainingState(name, gan_config, case.spec, train_settings, world)
    fetch = fetch_of(state.gan, fields or case.fields(512, 0), state.dtype)
    return Loop(state, fetch, train_settings, world)


def weights_of(loop: Loop) -> dict[str, Tensor]:
    """Copies of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in loop.state.gan.named_parameters()}


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The largest absolute difference between two sets of weights."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def packaged(loop: Loop, folder: Path, **more: Any) -> Path:
    """The loop's generator as the package that is registered, built below `folder`; `more` stands in model.json."""
    state, train = loop.state, folder / "train"
    trained = {
        "gan": loop.settings.gan,
        "config": state.gan.config.model_dump(mode="json"),  # type: ignore[attr-defined]
        "averaged": True,
        "data": state.gan.data.to_json(),
        "progress": dataclasses.asdict(state.progress),
        "run_key": "0" * 16,
        "data_digest": "0" * 64,
        **more,
    }
    train.mkdir()
    (train / "model.json").write_text(json.dumps(trained))
    save_file(state.generator_state(), train / "generator.safetensors")
    dataset: Any = case_of(loop.settings.gan).dataset()
    (folder / "samples.png").write_bytes(png(sample_grid(state.gan, state.progress, 4, dataset=dataset)))
    names = {"text": ["left", "right"]}
    facts = PackageFacts({}, {}, licence="none", card="# A card\n", samples_png=folder / "samples.png", names=names)
    build_package(train, folder / "package", facts)
    return folder / "package"
