"""Captions become tokens: vocabulary in the manifest, numbers in the decoded cache; bad ones are named before work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.sources.imagefolder import Imagefolder, ImagefolderSettings
from ganpipe.data.sources.openmoji import Openmoji, OpenmojiSettings
from ganpipe.errors import GanpipeError
from ganpipe.fields import Tokens
from ganpipe.words import PADDING, UNKNOWN

Draw = Callable[..., Path]
MakeSettings = Callable[..., DataSettings]
TRAIN = ("A red cat.", "a red dog", "the dog, the DOG!")
VALIDATION = ("a blue dog in the sun",)


def caption(folder: Path, *rows: tuple[str, str]) -> None:
    """A table with captions."""
    lines = [json.dumps({"file_name": name, "caption": text}) for name, text in rows]
    (folder / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines))


def source_of(folder: Path, **values: object) -> Imagefolder:
    return Imagefolder(ImagefolderSettings.model_validate({"path": str(folder), "text_column": "caption", **values}))


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Path:
    """Three captioned images to train on and one to validate with; the caption tells which image it is of."""
    for subset, texts in (("train", TRAIN), ("validation", VALIDATION)):
        for number, _ in enumerate(texts):
            draw(tmp_path / "in" / subset / f"{number}.png", number + (9 if subset == "validation" else 0))
        caption(tmp_path / "in" / subset, *((f"{number}.png", text) for number, text in enumerate(texts)))
    return tmp_path / "in"


def test_captions_of_an_image_folder_are_tokens(folder: Path, tmp_path: Path, settings_of: MakeSettings) -> None:
    settings = settings_of(source="imagefolder", vocabulary_size=4)
    written = write_shards(settings, source_of(folder, splits="keep"), tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest == written
    # The four most frequent words of the training texts; of `cat` and `red`, twice `red`.
    assert manifest.names["text"] == ("dog", "a", "red", "the")
    assert manifest.fields["text"] == Tokens(length=6, num_words=6)  # with the two that are no words
    dog, a, red, the = 2, 3, 4, 5
    expected = [[a, red, UNKNOWN], [a, red, dog], [the, dog, the, dog]]
    rows = open_dataset(tmp_path / "out", "train").rows(np.arange(3), ["text"])["text"]
    assert rows.dtype == np.int64
    assert sorted(rows.tolist()) == sorted(row + [PADDING] * (6 - len(row)) for row in expected)
    validation = open_dataset(tmp_path / "out", "validation").rows(np.arange(1))["text"]
    assert validation.tolist() == [[a, UNKNOWN, dog, UNKNOWN, the, UNKNOWN]]


def test_names_of_emoji_are_tokens(tmp_path: Path) -> None:
    source = Openmoji(OpenmojiSettings(groups=("food-drink",)))
    settings = DataSettings(source="openmoji", image_size=8, channels=3, background="white", validation_fraction=0)
    manifest = write_shards(settings, source, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out", "train")
    tokens = dataset.rows(np.arange(len(dataset)), ["text"])["text"]
    words = manifest.names["text"]
    found = {" ".join(words[number - 2] for number in row if number) for row in tokens}
    assert {"red apple", "hot beverage"} <= found
    assert tokens.shape == (len(dataset), max(map(len, map(str.split, found))))
    assert tokens.min() == PADDING
    assert UNKNOWN not in tokens


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "in train/1.png: text '' has 0 words; expected at least one word"),
        (" ... ", "has 0 words; expected at least one word"),
        ("word " * 65, "has 65 words; at most data.max_words = 64"),
        ("half of a pair: \ud83d", r"text 'half of a pair: \ud83d'; expected a text that UTF-8 can hold"),
    ],
)
def test_a_bad_caption_is_named_before_any_image_is_decoded(
    folder: Path, tmp_path: Path, settings_of: MakeSettings, text: str, message: str
) -> None:
    (folder / "train" / "0.png").write_bytes(b"an image that would stop the ingest if it were decoded")
    caption(folder / "train", ("0.png", "A red cat."), ("1.png", text), ("2.png", "a dog"))
    with pytest.raises(GanpipeError) as caught:
        write_shards(settings_of(source="imagefolder"), source_of(folder), tmp_path / "out")
    said = str(caught.value)
    assert message.removeprefix("in ") in said
    assert said.startswith("train/1.png: text ")
    assert "\n" not in said
    assert not list((tmp_path / "out").glob("*"))


def test_a_table_that_is_no_utf_8_is_named(folder: Path) -> None:
    (folder / "train" / "metadata.jsonl").write_bytes(b'{"file_name": "0.png", "caption": "caf\xe9"}\n')
    with pytest.raises(GanpipeError, match=r"train/metadata\.jsonl: cannot be read \('utf-8' codec") as caught:
        source_of(folder).check()
    assert "\n" not in str(caught.value)
