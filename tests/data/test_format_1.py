"""A dataset of format 1 (before fields had types) is read, cached and trained on as it was.

tests/data/format_1 was ingested by the code of commit a0c2b78: 20 images of 8 pixels with a spot at the left or right,
with classes and captions. The digests here are what that code gave.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.shards.manifest import MANIFEST, verify, write_manifest
from ganpipe.errors import GanpipeError
from ganpipe.fields import Label, Picture, Tokens
from ganpipe.gans import load
from ganpipe.gans.base import Batch, DataSpec, Gan, GanConfig, Phase, Player, Progress
from ganpipe.training.distributed import World
from ganpipe.training.feed import Feed, data_spec_of
from ganpipe.training.loop import Loop
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import TrainingState

SHARDS = Path(__file__).parent / "format_1"
DIGEST = "b48528fdddcb6a20250da0d2931059e10989405c068c7a88200a573d51821813"
IMAGES = "d2798f8e4d52e2604fbda171671e60a74fca381e050d744bcf565f191571a539"
LABELS = "75ea15048714edaa3e760ee0184777ec2718c309cf208f5d2692087b750f0931"


class Words(Gan):
    """A GAN that is given words."""

    Config = GanConfig
    fields = ("image", "text")
    given = ("text",)

    def players(self) -> dict[str, Player]:
        return {}

    def phases(self, progress: Progress) -> list[Phase]:
        return []

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        return torch.zeros(conditions.num_samples, *self.data.image_shape)


def test_its_manifest_says_the_same_and_has_the_same_digest(tmp_path: Path) -> None:
    manifest = verify(SHARDS)
    assert (manifest.format_version, manifest.digest) == (1, DIGEST)
    assert manifest.fields == {
        "image": Picture(size=8, channels=1),
        "label": Label(num_classes=2),
        "text": Tokens(length=0, num_words=0),
    }
    assert (manifest.main, manifest.classes, manifest.num_samples("train")) == ("image", ("left", "right"), 17)
    write_manifest(tmp_path, manifest)
    assert (tmp_path / MANIFEST).read_bytes() == (SHARDS / MANIFEST).read_bytes()


def test_its_decoded_cache_is_that_of_before() -> None:
    dataset = open_dataset(SHARDS, "train")
    rows = dataset.rows(np.arange(17))
    assert {name: array.shape for name, array in rows.items()} == {"image": (17, 1, 8, 8), "label": (17,)}
    assert hashlib.sha256(rows["image"].tobytes()).hexdigest() == IMAGES
    assert hashlib.sha256(rows["label"].tobytes()).hexdigest() == LABELS
    assert len(open_dataset(SHARDS, "validation")) == 3


@pytest.mark.parametrize("name", ["gan", "cgan"])
def test_a_training_takes_a_step_on_it(name: str) -> None:
    dataset = open_dataset(SHARDS, "train")
    config = load(name).Config.model_validate({"generator_width": 16, "discriminator_width": 16})
    data = data_spec_of(dataset.manifest)
    settings = TrainSettings(gan=name, num_images=16, batch_size=8, precision="fp32")
    state = TrainingState(name, config, data, settings)
    feed = Feed(dataset, state.gan.origins(config, data), settings.seed, state.device, state.dtype)
    before = [parameter.clone() for parameter in state.gan.parameters()]
    Loop(state, feed, settings, World()).step()
    assert not all(torch.equal(old, new) for old, new in zip(before, state.gan.parameters(), strict=True))
    assert state.progress.images_seen == 8


def test_a_gan_that_needs_words_says_that_the_shards_have_none() -> None:
    manifest = verify(SHARDS)
    said = (
        "Words needs the words of the field 'text', and these shards have no vocabulary because an earlier ganpipe "
        "made them; run `ganpipe ingest` again"
    )
    with pytest.raises(GanpipeError) as caught:
        Words.check(GanConfig(), DataSpec(manifest.fields, manifest.main))
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"image_size": 8', '"image_size": 16', "expected 16 x 16 pixels"),
        ('"text"\n', '"text",\n    "text"\n', "a field is listed twice"),
        ('    "image",\n', "", "without its fields"),
    ],
)
def test_one_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    shutil.copytree(SHARDS, tmp_path / "shards")
    path = tmp_path / "shards" / MANIFEST
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(GanpipeError, match=message) as caught:
        open_dataset(tmp_path / "shards", "train")
    assert "\n" not in str(caught.value)
