"""Reference, sampling, protocol, figures and the whole evaluation on real digits and real GANs."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_parts import PROGRESS, SIZE, digits, digits_dataset, new_gan
from PIL import Image

from ganpipe.errors import GanpipeError
from ganpipe.evaluation import measuring, reference, sample_grids
from ganpipe.evaluation.evaluate import Evaluation, evaluate
from ganpipe.evaluation.extractors import Extractor, efficientnet_lite0
from ganpipe.evaluation.frechet import fid
from ganpipe.evaluation.grids import grid
from ganpipe.evaluation.measured import Subject
from ganpipe.evaluation.metrics.base import Estimate
from ganpipe.evaluation.metrics.kid import kid
from ganpipe.evaluation.protocol import Protocol, ReferenceProtocol
from ganpipe.evaluation.quick_fid import QuickFid
from ganpipe.evaluation.reference import (
    Reference,
    cached_reference,
    compute_reference,
    load_reference,
    quick_reference,
    reference_protocol,
    save_reference,
)
from ganpipe.evaluation.sampling import interpolate, quantise, sample_images, sample_seeds
from ganpipe.evaluation.settings import EvaluateSettings, QuickSettings
from ganpipe.gans.base import Gan

SETTINGS = EvaluateSettings(
    resize=32,
    num_samples=120,
    num_real=150,
    kid_subsets=4,
    kid_subset_size=50,
    quick=QuickSettings(num_samples=60, num_real=80),
)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return efficientnet_lite0(32)


@pytest.fixture(scope="module")
def computed(extractor: Extractor) -> Reference:
    return compute_reference(digits_dataset(), extractor, SETTINGS)


# -- reference


def test_a_reference_is_of_the_images_that_it_names(computed: Reference, extractor: Extractor) -> None:
    assert len(set(computed.indices_N.tolist())) == len(computed.indices_N) == 150
    rows = digits_dataset().rows(computed.indices_N[:5])
    np.testing.assert_allclose(extractor.features(rows["image"]), computed.features_ND[:5], atol=1e-4)
    np.testing.assert_array_equal(rows["label"], computed.labels_N[:5])
    larger = reference.choose(300, 200, SETTINGS.seed)
    np.testing.assert_array_equal(larger[:150], computed.indices_N)


def test_a_saved_reference_comes_back_with_equal_bytes(computed: Reference, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_reference(computed, tmp_path / name)
    for file in ("reference.safetensors", "protocol.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    loaded = load_reference(tmp_path / "a", computed.protocol)
    assert loaded.protocol == computed.protocol
    for name in ("features_ND", "indices_N", "labels_N"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(computed, name))


def test_a_reference_of_other_data_or_damaged_is_refused(
    computed: Reference, extractor: Extractor, tmp_path: Path
) -> None:
    save_reference(computed, tmp_path)
    other = reference_protocol(digits_dataset(sha256="1" * 64), extractor, SETTINGS)
    with pytest.raises(GanpipeError, match=r"protocol\.json: data_digest is .* run `ganpipe reference` again"):
        load_reference(tmp_path, other)
    path = tmp_path / "reference.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(GanpipeError, match=r"reference\.safetensors: damaged"):
        load_reference(tmp_path, computed.protocol)
    path.unlink()
    with pytest.raises(GanpipeError, match=r"reference\.safetensors: cannot be read"):
        load_reference(tmp_path, computed.protocol)
    (tmp_path / "protocol.json").write_text("[]")
    with pytest.raises(GanpipeError, match=r"reference\.safetensors: cannot be read"):
        load_reference(tmp_path, computed.protocol)


def test_the_cache_computes_once_and_mends_damage(
    extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(*arguments: object) -> Reference:
        calls.append(arguments)
        return compute_reference(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(reference, "compute_reference", counted)
    dataset = digits_dataset()
    first = quick_reference(dataset, extractor, SETTINGS, tmp_path)
    again = quick_reference(dataset, extractor, SETTINGS, tmp_path)
    assert len(calls) == 1
    assert len(first.features_ND) == 80
    np.testing.assert_array_equal(first.features_ND, again.features_ND)
    entry = tmp_path / "reference" / first.protocol.hash / "reference.safetensors"
    entry.write_bytes(entry.read_bytes()[:-10])
    mended = quick_reference(dataset, extractor, SETTINGS, tmp_path)
    assert len(calls) == 2
    np.testing.assert_array_equal(first.features_ND, mended.features_ND)
    cached_reference(dataset, extractor, SETTINGS, cache_root=tmp_path)  # the full one is another entry
    assert len(calls) == 3


# -- protocol


@pytest.mark.parametrize("name", ReferenceProtocol.model_fields)
def test_every_field_of_the_reference_is_in_the_protocols_hash(name: str, computed: Reference) -> None:
    protocol = measuring.protocol_of(new_gan("gan"), computed, SETTINGS)
    value = getattr(computed.protocol, name)
    changed = computed.protocol.model_copy(update={name: value + 1 if isinstance(value, int) else f"{value}x"})
    assert changed.hash != computed.protocol.hash
    assert protocol.model_copy(update={"reference": changed}).hash != protocol.hash


@pytest.mark.parametrize("name", [name for name in Protocol.model_fields if name != "reference"])
def test_every_field_is_in_the_protocols_hash(name: str, computed: Reference) -> None:
    protocol = measuring.protocol_of(new_gan("gan"), computed, SETTINGS)
    value = getattr(protocol, name)
    changed = not value if isinstance(value, bool) else f"{value}x" if isinstance(value, str) else value + 1
    assert protocol.model_copy(update={name: changed}).hash != protocol.hash
    assert protocol.model_copy().hash == protocol.hash


def test_a_measurement_has_the_hash_that_it_always_had() -> None:
    """Numbers that were registered before stay comparable, however many metrics there are."""
    real = ReferenceProtocol(
        extractor="efficientnet_lite0",
        weights_sha256="ab" * 32,
        resize=64,
        resampling="bilinear_antialiased",
        data_digest="cd" * 32,
        split="train",
        num_real=10_000,
        seed=0,
    )
    found = Reference(real, np.zeros((2, 2), np.float32), np.arange(2), None)
    assert real.hash == "edf2e762292c8a04"
    hashes = {
        name: [measuring.protocol_of(new_gan(name), found, EvaluateSettings(), quick).hash for quick in (False, True)]
        for name in ("dcgan", "cgan")
    }
    assert hashes == {
        "dcgan": ["ddf5367dbd41777c", "6a5d56cf5b4d2a5d"],
        "cgan": ["0dd51cd104e889b5", "8a8493ce3d2ccc39"],
    }


def test_batch_size_and_figures_are_not_in_the_protocol(computed: Reference) -> None:
    gan = new_gan("gan")
    other = SETTINGS.model_copy(update={"batch_size": 7, "num_grid_samples": 4, "num_nearest": 2})
    assert measuring.protocol_of(gan, computed, SETTINGS).hash == measuring.protocol_of(gan, computed, other).hash


# -- sampling


@pytest.mark.parametrize("name", ["gan", "dcgan", "cgan", "wgan_gp"])
def test_samples_do_not_depend_on_the_batch(name: str) -> None:
    gan = new_gan(name)
    together = sample_images(gan, PROGRESS, range(12), batch_size=12)
    apart = sample_images(gan, PROGRESS, range(12), batch_size=5)
    assert together.dtype == np.uint8
    assert together.shape == (12, 1, SIZE, SIZE)
    assert np.abs(together.astype(int) - apart).max() <= 1  # rounding of matrix products of other sizes
    assert len(np.unique(together.reshape(12, -1), axis=0)) == 12


def test_sampling_leaves_modes_and_random_state_as_they_were() -> None:
    gan = new_gan("dcgan").train()
    gan.discriminator.eval()
    modes, weights = [m.training for m in gan.modules()], {k: v.clone() for k, v in gan.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    sample_images(gan, PROGRESS, range(3))
    assert torch.equal(torch.rand(3), expected)
    assert [m.training for m in gan.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in gan.state_dict().items())


def test_labels_choose_the_class_and_are_checked() -> None:
    gan = new_gan("cgan")
    zeros, ones = (sample_images(gan, PROGRESS, [1, 2], {"label": [label, label]}) for label in (0, 1))
    assert (zeros != ones).any()
    drawn = sample_images(gan, PROGRESS, [1, 2])
    choices = np.stack([sample_images(gan, PROGRESS, [1, 2], {"label": [label, label]}) for label in range(10)])
    assert (choices == drawn).all((2, 3, 4)).any(0).all()  # a drawn label leaves the latents of the seed as they are
    with pytest.raises(GanpipeError, match="1 rows of 'label' .* for 2 seeds"):
        sample_images(gan, PROGRESS, [1, 2], {"label": [3]})
    with pytest.raises(GanpipeError, match="expected 0 to 9"):
        sample_images(gan, PROGRESS, [1], {"label": [10]})
    with pytest.raises(GanpipeError, match="takes no label"):
        sample_images(new_gan("gan"), PROGRESS, [1], {"label": [0]})


def test_quantised_as_in_a_png() -> None:
    values = torch.tensor([-2.0, -1.0, -1 + 1 / 255, 0.0, 1.0, 1.5]).view(1, 1, 1, -1)
    assert quantise(values).ravel().tolist() == [0, 0, 0, 128, 255, 255]
    every = torch.arange(256).view(1, 1, 16, 16)
    np.testing.assert_array_equal(quantise(every / 127.5 - 1), every.numpy())  # what training did to images, undone


def test_an_interpolation_goes_from_one_sample_to_the_other() -> None:
    gan = new_gan("dcgan")
    path = interpolate(gan, PROGRESS, (3, 4), 7).astype(int)
    ends = sample_images(gan, PROGRESS, [3, 4]).astype(int)
    assert np.abs(path[[0, -1]] - ends).max() <= 1
    steps = np.abs(np.diff(path, axis=0)).mean((1, 2, 3))
    assert steps.max() < np.abs(ends[0] - ends[1]).mean()


def test_seeds_of_an_evaluation() -> None:
    assert sample_seeds(0, 3) == [0, 1, 2]
    assert not set(sample_seeds(0, 1000)) & set(sample_seeds(1, 1000))


# -- figures


def test_a_grid_holds_every_image_in_order() -> None:
    images = digits()[0][:7]
    picture = np.asarray(grid(images, 3))
    factor = 4  # 16 to 64 pixels
    assert picture.shape == (3 * (64 + 2) + 2, 3 * (64 + 2) + 2)
    for index, image in enumerate(images):
        top, left = 2 + index // 3 * 66, 2 + index % 3 * 66
        np.testing.assert_array_equal(picture[top : top + 64 : factor, left : left + 64 : factor], image[0])
    colour = np.random.default_rng(0).integers(0, 256, (2, 3, 70, 70), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(grid(colour, 2))[2:72, 2:72], colour[0].transpose(1, 2, 0))


def test_pictures_are_png_without_anything_but_pixels() -> None:
    draw = pickle.loads(pickle.dumps(sample_grids.SampleGrid(9)))  # noqa: S301
    content = draw(new_gan("dcgan"), PROGRESS)
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "PNG"
    assert picture.info == {}
    assert content.count(b"tEXt") + content.count(b"tIME") == 0


# -- evaluation


def test_fid_orders_real_noisy_and_noise(extractor: Extractor) -> None:
    images = digits()[0]
    random = np.random.default_rng(0)
    noisy = np.clip(images[300:500] + random.normal(0, 40, (200, 1, SIZE, SIZE)), 0, 255).astype(np.uint8)
    noise = random.integers(0, 256, (200, 1, SIZE, SIZE), dtype=np.uint8)
    real = extractor.features(images[:300])
    values = [fid(real, extractor.features(other)) for other in (images[300:500], noisy, noise)]
    assert values[0] < 0.5 * values[1] < 0.5 * values[2]
    found = [kid(real, extractor.features(other), 10, 100) for other in (images[300:500], noisy, noise)]
    kids = [each.value if isinstance(each, Estimate) else each for each in found]
    assert kids[0] < 0.5 * kids[1] < 0.5 * kids[2]


@pytest.fixture(scope="module")
def conditional(computed: Reference, extractor: Extractor) -> Evaluation:
    return evaluate(Subject(new_gan_with_seed("cgan"), PROGRESS, digits_dataset(), computed, extractor, SETTINGS))


def new_gan_with_seed(name: str) -> Gan:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return new_gan(name)


def test_an_evaluation_has_metrics_protocol_and_figures(conditional: Evaluation, tmp_path: Path) -> None:
    assert set(conditional.metrics) == {
        f"{name}_efficientnet_lite0"
        for name in (
            *("fid", "fid_of_real", "kid", "precision", "recall"),
            *("fid_intra", "class_accuracy", "class_accuracy_of_real"),
        )
    }
    assert set(conditional.class_fids) == set("0123456789")
    conditional.save(tmp_path)
    saved = json.loads((tmp_path / "metrics.json").read_text())
    assert saved == dict(conditional.metrics)
    assert saved["fid_efficientnet_lite0"] > 50  # untrained
    intervals = json.loads((tmp_path / "intervals.json").read_text())
    assert set(intervals) == {
        f"{name}_efficientnet_lite0" for name in ("fid", "kid", "precision", "recall", "class_accuracy")
    }
    assert all(low <= saved[name] <= high for name, (low, high) in intervals.items())
    protocol = json.loads((tmp_path / "protocol.json").read_text())
    assert protocol.pop("hash") == conditional.protocol.hash
    assert Protocol.model_validate(protocol) == conditional.protocol
    lines = (tmp_path / "class_fid.csv").read_text().splitlines()
    assert lines[0] == "class,fid,real,generated"
    assert len(lines) == 11
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "samples.png",
        "nearest.png",
        "interpolation.png",
    }
    for path in (tmp_path / "figures").iterdir():
        Image.open(path).verify()


def test_the_same_evaluation_gives_the_same_numbers(
    conditional: Evaluation, computed: Reference, extractor: Extractor
) -> None:
    again = evaluate(Subject(new_gan_with_seed("cgan"), PROGRESS, digits_dataset(), computed, extractor, SETTINGS))
    assert again == conditional


def test_a_generator_that_copies_is_found_out(
    computed: Reference, extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real images in place of samples: FID zero, full precision and recall, and the copies beside their originals."""
    dataset = digits_dataset()
    originals = dataset.rows(computed.indices_N)["image"]
    monkeypatch.setattr(
        measuring, "sample_images", lambda gan, progress, seeds, labels=None, **_: originals[list(seeds)]
    )
    monkeypatch.setattr(Subject, "images", lambda subject, samples: originals[list(samples)])
    settings = SETTINGS.model_copy(update={"num_samples": 150})
    unseen = digits_dataset(100, start=500, split="validation")
    found = evaluate(Subject(new_gan("gan"), PROGRESS, dataset, computed, extractor, settings, held_out=unseen))
    assert found.metrics["fid_efficientnet_lite0"] < 1e-3
    assert found.metrics["data_copying_efficientnet_lite0"] < -10
    assert found.metrics["precision_efficientnet_lite0"] == found.metrics["recall_efficientnet_lite0"] == 1
    assert not found.class_fids
    picture = np.asarray(Image.open(io.BytesIO(found.figures["nearest"])))
    for row in range(settings.num_nearest_samples):
        rows = slice(2 + row * 66, 2 + row * 66 + 64)
        np.testing.assert_array_equal(picture[rows, 2:66], picture[rows, 2 + 66 + 8 : 2 + 66 + 8 + 64])


def test_a_reference_of_other_settings_is_refused(computed: Reference, extractor: Extractor) -> None:
    settings = SETTINGS.model_copy(update={"num_real": 100})
    with pytest.raises(GanpipeError, match="run `ganpipe reference` again"):
        evaluate(Subject(new_gan("gan"), PROGRESS, digits_dataset(), computed, extractor, settings))


def test_nearest_are_training_images_where_validation_is_the_reference(
    extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path))
    settings = SETTINGS.model_copy(update={"split": "validation", "num_real": 60})
    validation, training = digits_dataset(100, start=500, split="validation"), digits_dataset()
    computed = compute_reference(validation, extractor, settings)
    found = evaluate(Subject(new_gan("gan"), PROGRESS, validation, computed, extractor, settings, training=training))
    assert found.protocol.reference.split == "validation"
    [entry] = (tmp_path / "reference").glob("*/protocol.json")
    assert json.loads(entry.read_text())["protocol"]["split"] == "train"


def test_quick_fid_scores_alike_in_this_and_another_process(
    extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path))
    score, gan = QuickFid(digits_dataset(), SETTINGS), new_gan_with_seed("dcgan").train()
    assert score.name == "quick_fid_efficientnet_lite0"
    value, watched = score(gan, PROGRESS)
    assert value > 50
    assert set(watched) == {"quick_recall", "quick_variety", "quick_novelty"}
    assert gan.training
    assert score(gan, PROGRESS) == (value, watched)
    assert score.protocol(gan).metric == "quick"
    assert score.protocol(gan).num_samples == 60
    sent = pickle.loads(pickle.dumps(QuickFid("no/shards", SETTINGS, extractor)))  # noqa: S301
    assert sent.name == score.name
    with pytest.raises(GanpipeError, match=r"no/shards/manifest\.json"):
        sent(gan, PROGRESS)
