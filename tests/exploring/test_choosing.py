"""Groups of samples that a classifier of the checkout's images chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_parts import digits_dataset
from exploring_parts import cell, explored, made
from registry_parts import build

from ganpipe.data.loading.dataset import Dataset
from ganpipe.errors import GanpipeError
from ganpipe.evaluation.classifier import LinearDiscriminant
from ganpipe.evaluation.extractors import load_extractor
from ganpipe.evaluation.reference import compute_reference
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.exploring import choosing
from ganpipe.exploring.explored import Explored
from ganpipe.params import Params

SETTINGS = EvaluateSettings(resize=32, num_real=100)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Digits, as the data of the checkout."""
    dataset = digits_dataset(100)
    monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choosing, "read_manifest", lambda folder: dataset.manifest)
    monkeypatch.setattr(choosing, "open_dataset", lambda folder, split: dataset)
    monkeypatch.setattr(choosing, "_MOST_SEEDS", 64)
    monkeypatch.setattr(choosing, "_AT_ONCE", 16)
    return dataset


@pytest.fixture
def subject(tmp_path: Path) -> Explored:
    return explored(build(tmp_path / "dcgan", "dcgan"))


def test_a_group_is_the_first_samples_of_the_class(data: Dataset, subject: Explored) -> None:
    extractor = load_extractor(SETTINGS)
    reference = compute_reference(data, extractor, SETTINGS)
    assert reference.labels_N is not None
    classifier = LinearDiscriminant.fit(reference.features_ND, reference.labels_N)
    assert (classifier.classes_of(reference.features_ND) == reference.labels_N).mean() > 0.9
    classes_N = classifier.classes_of(extractor.features(subject.samples(list(range(64)))))
    number = int(np.bincount(classes_N).argmax())
    expected = np.flatnonzero(classes_N == number)[:5].tolist()
    assert choosing.seeds_of_classes(subject, {number: 5}, Params(evaluate=SETTINGS)) == {number: expected}

    options = ["--expression", f"class:{number} - 0", "--members", "2"]
    content = made("arithmetic", subject, *options, params=Params(evaluate=SETTINGS))["arithmetic.png"]
    for column, seed in enumerate(expected[:2]):
        assert np.abs(cell(content, 0, column) - subject.samples([seed])[0, 0]).max() <= 1

    rare = int(np.bincount(classes_N, minlength=10).argmin())
    with pytest.raises(
        GanpipeError, match=rf"class:{rare}: the classifier finds \d+ such samples among 64; expected 60"
    ):
        choosing.seeds_of_classes(subject, {rare: 60}, Params(evaluate=SETTINGS))


def test_what_does_not_fit_the_data_is_refused(
    data: Dataset, subject: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choosing.class_here(subject, "7") == 7
    with pytest.raises(GanpipeError, match=r"--expression: 10: expected the number of a class, 0 to 9"):
        choosing.class_here(subject, "10")
    with pytest.raises(GanpipeError, match=r"--expression: there is no class 'seven'"):
        made("arithmetic", subject, "--expression", "0 - class:seven")
    larger = data.manifest.image.model_copy(update={"size": 32})
    manifest = data.manifest.model_copy(update={"fields": {**data.manifest.fields, "image": larger}})
    monkeypatch.setattr(choosing, "read_manifest", lambda folder: manifest)
    with pytest.raises(GanpipeError, match=r"makes 16 px, 1 channel; the data in artifacts/shards"):
        choosing.class_here(subject, "7")
