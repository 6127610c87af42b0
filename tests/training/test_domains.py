"""An unpaired GAN's domains are counted before any work: a domain without images is named by its class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from picture_parts import png
from PIL import Image

from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.label_counts import count_labels
from ganpipe.data.shards.manifest import Manifest
from ganpipe.data.sources.base import Classes, Description, ImageInMemory, Item, Pictures, Source, SourceSettings
from ganpipe.errors import GanpipeError
from ganpipe.params import Params
from ganpipe.stages.domains import require_domains

NUM_TRAINED = {"horse": 5, "zebra": 4, "unicorn": 0}
NUM_VALIDATED = {"horse": 3, "zebra": 4, "unicorn": 2}


class Animals(Source):
    """Noise in three classes, of which no unicorn is in the training split."""

    Settings = SourceSettings

    def __init__(self, settings: SourceSettings) -> None:
        return None

    def check(self) -> None:
        return None

    def describe(self) -> Description:
        return Description({"image": Pictures(), "label": Classes(tuple(NUM_TRAINED))}, "Noise.", "CC0")

    def items(self) -> Sequence[Item]:
        random, found = np.random.default_rng(0), []
        for split, counts in (("train", NUM_TRAINED), ("validation", NUM_VALIDATED)):
            for label, (name, number) in enumerate(counts.items()):
                for _ in range(number):
                    picture = ImageInMemory(png(Image.fromarray(random.integers(0, 256, (16, 16), dtype=np.uint8))))
                    found.append(Item(f"{name} {len(found)}", {"image": picture}, {"label": label}, split))
        return found

    def fingerprint(self) -> str:
        return ""


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("animals")
    settings = DataSettings(source="imagefolder", image_size=16, channels=1, samples_per_shard=4)
    return folder, write_shards(settings, Animals(SourceSettings()), folder)


def params_of(a: int, b: int, split: str = "validation", num_neighbours: int = 3, gan: str = "cyclegan") -> Params:
    classes = {"cyclegan": {"class_a": a, "class_b": b}}
    evaluate = {"split": split, "num_neighbours": num_neighbours}
    return Params.model_validate({"train": {"gan": gan}, "gans": classes, "evaluate": evaluate})


def refused(animals: tuple[Path, Manifest], params: Params) -> str:
    folder, manifest = animals
    with pytest.raises(GanpipeError) as caught:
        require_domains(params, manifest, lambda shard: folder)
    return str(caught.value)


def test_classes_are_counted_over_the_shards_of_a_split(animals: tuple[Path, Manifest]) -> None:
    folder, manifest = animals
    assert len(manifest.shards_of("train")) > 1
    assert count_labels(lambda shard: folder, manifest, "train", "label") == {0: 5, 1: 4}
    assert count_labels(lambda shard: folder, manifest, "validation", "label") == {0: 3, 1: 4, 2: 2}


def test_domains_with_images_are_accepted_and_other_gans_have_none(animals: tuple[Path, Manifest]) -> None:
    folder, manifest = animals
    require_domains(params_of(0, 1), manifest, lambda shard: folder)
    require_domains(params_of(2, 2, gan="dcgan"), manifest, lambda shard: folder)


def test_a_domain_without_training_images_is_named(animals: tuple[Path, Manifest]) -> None:
    assert refused(animals, params_of(2, 1)).startswith(
        "the train split has 0 images of class 2 (unicorn), which is domain a of train.gan cyclegan; expected at least "
        "1: add images"
    )


def test_the_domain_that_is_measured_needs_images_for_its_metrics(animals: tuple[Path, Manifest]) -> None:
    folder, manifest = animals
    require_domains(params_of(1, 0, num_neighbours=2), manifest, lambda shard: folder)
    assert refused(animals, params_of(1, 0)).startswith(
        "the validation split has 3 images of class 0 (horse), which is domain b of train.gan cyclegan; expected at "
        "least 4: "
    )
    assert "the train split has 4 images of class 1 (zebra)" in refused(animals, params_of(0, 1, "train", 4))
