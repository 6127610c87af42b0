"""The whole evaluation of a GAN that is given frames and makes frames."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_parts import PROGRESS, SIZE, Unlearned, digits
from PIL import Image, ImageSequence
from torch import Tensor

from ganpipe.data.loading.cache import CachedDataset
from ganpipe.data.loading.dataset import Dataset
from ganpipe.data.shards.manifest import Manifest, Shard
from ganpipe.errors import GanpipeError
from ganpipe.evaluation.evaluate import Evaluation, evaluate
from ganpipe.evaluation.extractors import Extractor
from ganpipe.evaluation.figures import frames
from ganpipe.evaluation.frames import compare_frames, like_targets, one_frame_each, side_by_side
from ganpipe.evaluation.measured import Measured, Subject
from ganpipe.evaluation.metrics.edge_error import EdgeError
from ganpipe.evaluation.metrics.psnr import Psnr
from ganpipe.evaluation.metrics.sharpness_difference import SharpnessDifference
from ganpipe.evaluation.reference import Reference, compute_reference
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.fields import Fields, Frames
from ganpipe.gans.base import Batch, DataSpec, Gan, Progress

NUM, PAST, FUTURE = 80, 2, 3
SETTINGS = EvaluateSettings(
    resize=32, num_samples=100, batch_size=8, num_real=NUM, kid_subsets=2, kid_subset_size=20, num_grid_samples=16
)
FIELDS: Fields = {
    "past": Frames(num_frames=PAST, size=SIZE, channels=1),
    "future": Frames(num_frames=FUTURE, size=SIZE, channels=1),
}
DATA = DataSpec(FIELDS, main="future")


def films() -> np.ndarray:
    """Digits that move to the right, uint8, (N, PAST + FUTURE, 1, H, W)."""
    images_NCHW = digits()[0][:NUM]
    return np.stack([np.roll(images_NCHW, step, axis=3) for step in range(PAST + FUTURE)], axis=1)


def dataset() -> Dataset:
    arrays = {"past": films()[:, :PAST].copy(), "future": films()[:, PAST:].copy()}
    shard = Shard(name="train-000000.tar", sha256="0" * 64, num_bytes=1024 * NUM, num_samples=NUM, split="train")
    manifest = Manifest(source="films", description="", licence="", shards=(shard,), fields=FIELDS, main="future")
    return CachedDataset(manifest, "train", arrays)


class Forecasting(Unlearned):
    """Moves the last frame on, as it should, or lets it stand still."""

    fields = ("future", "past")
    given = ("past",)
    makes = "frames"
    speed = 1

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        last_NCHW = conditions["past"][:, -1]
        return torch.stack([last_NCHW.roll(self.speed * (step + 1), 3) for step in range(FUTURE)], dim=1)


class Images(Forecasting):
    makes = "image"


@pytest.fixture(scope="module")
def computed(extractor: Extractor) -> Reference:
    return compute_reference(dataset(), extractor, SETTINGS)


def evaluated(gan: Gan, computed: Reference, extractor: Extractor) -> Evaluation:
    return evaluate(Subject(gan, PROGRESS, dataset(), computed, extractor, SETTINGS))


def test_a_sequence_is_one_frame_in_feature_space_and_moments_take_turns(
    computed: Reference, extractor: Extractor
) -> None:
    future = dataset().rows(computed.indices_N[:6])["future"]
    frames = np.stack([future[number, number % FUTURE] for number in range(6)])
    np.testing.assert_allclose(extractor.features(frames), computed.features_ND[:6], atol=1e-4)


def test_exact_frames_are_at_the_best_values_and_standing_frames_at_those_of_the_given(
    computed: Reference, extractor: Extractor
) -> None:
    exact = evaluated(Forecasting(DATA), computed, extractor)
    assert exact.metrics["ssim"] == 1
    # Also behind the last real sequence, where the first follows again: 100 samples against 80.
    assert exact.metrics["feature_distance_efficientnet_lite0"] == pytest.approx(0, abs=1e-5)
    still = Forecasting(DATA)
    still.speed = 0
    found = evaluated(still, computed, extractor)
    for name in ("psnr", "ssim"):
        assert found.metrics[name] == pytest.approx(found.metrics[f"{name}_of_given"], rel=1e-6)
        assert exact.metrics[f"{name}_of_given"] == found.metrics[f"{name}_of_given"] < exact.metrics[name]
    films_N = films()[computed.indices_N].astype(float)
    errors_NT = np.square(films_N[:, PAST:] - films_N[:, PAST - 1 : PAST]).mean((2, 3, 4))
    psnr_N = (10 * np.log10(255**2 / errors_NT)).mean(1)[np.arange(100) % NUM]
    assert found.metrics["psnr"] == pytest.approx(psnr_N.mean(), rel=1e-4)


def test_the_grid_shows_the_past_what_was_made_and_what_came(computed: Reference, extractor: Extractor) -> None:
    found = evaluated(Forecasting(DATA), computed, extractor)
    assert set(found.figures) == {"film", "frames", "samples"}
    picture = np.asarray(Image.open(io.BytesIO(found.figures["samples"])))
    num_examples = 16 // (PAST + 2 * FUTURE)
    assert picture.shape == (2 * num_examples * 66 + 2, 5 * 66 + 2 + 8)
    shown = films()[computed.indices_N[0], :, 0]
    for row in (0, 1):
        for column, frame in enumerate(shown):
            left = 2 + 66 * column + (8 if column >= PAST else 0)
            cell = picture[2 + 66 * row : 66 + 66 * row, left : left + 64]
            np.testing.assert_array_equal(cell[::4, ::4], frame)


def test_the_film_shows_what_was_made_above_what_came(
    computed: Reference, extractor: Extractor, tmp_path: Path
) -> None:
    still = Forecasting(DATA)
    still.speed = 0
    evaluated(still, computed, extractor).save(tmp_path)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"film.gif", "frames.png", "samples.png"}
    with Image.open(tmp_path / "figures" / "film.gif") as film:
        moments = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(film)]
    assert len(moments) == PAST + FUTURE
    true = films()[computed.indices_N[:6], :, 0]
    for number, moment in enumerate(moments):
        for column in range(6):
            above, below = (moment[2 + 66 * row : 66 + 66 * row, 2 + 66 * column :][:, :64][::4, ::4] for row in (0, 1))
            np.testing.assert_array_equal(below, true[column, number])
            np.testing.assert_array_equal(above, true[column, min(number, PAST - 1)])


def test_each_frame_has_its_own_value(
    computed: Reference, extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Measured] = []

    def keep(self: frames.Frames, subject: Subject, measured: Measured) -> Image.Image:
        seen.append(measured)
        return Image.new("L", (1, 1))

    monkeypatch.setattr(frames.Frames, "draw", keep)
    still = Forecasting(DATA)
    still.speed = 0
    found = evaluated(still, computed, extractor)
    values_T = seen[0].frame_values["psnr"]
    assert values_T.mean() == pytest.approx(found.metrics["psnr"], rel=1e-5)
    assert (np.diff(values_T) < 0).all()  # a digit that stands still is ever further from one that moves
    np.testing.assert_array_equal(values_T, seen[0].frame_values["psnr_of_given"])


def test_a_gan_says_whether_it_makes_images_or_frames() -> None:
    with pytest.raises(GanpipeError, match="Images makes images, and its field 'future' holds 3 frames of 16 px, 1 ch"):
        Images(DATA)


def test_images_pass_and_frames_are_brought_into_their_shape() -> None:
    images = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    for function in (side_by_side, lambda given: one_frame_each(given, np.arange(2))):
        assert function(images) is images
    frames = np.stack([images, images + 1], axis=1)
    np.testing.assert_array_equal(side_by_side(frames), np.concatenate([images, images + 1], axis=3))
    np.testing.assert_array_equal(one_frame_each(frames, np.array([3, 4])), np.stack([images[0] + 1, images[1]]))
    np.testing.assert_array_equal(like_targets(frames, frames), np.stack([images + 1, images + 1], axis=1))
    np.testing.assert_array_equal(like_targets(frames, images), images + 1)
    compare = Psnr().compare_pairs
    both = [compare(images, images + 1), compare(images + 1, images)]
    np.testing.assert_allclose(compare_frames(compare, frames, frames[:, ::-1]), np.stack(both, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(compare_frames(compare, images, images + 1), both[0][:, None])


def test_blur_and_noise_both_lower_sharpness() -> None:
    target = np.zeros((1, 1, 8, 8), np.uint8)
    target[..., 4:] = 200
    blurred, noisy = target.copy(), target.copy()
    blurred[..., 3:5] = 100
    noisy[..., ::2, 1] = 60

    def value(images: np.ndarray) -> float:
        return float(SharpnessDifference().compare_pairs(images, target)[0])

    # Of 49 steps, those at the edge fall from 200 to 0 in one column and rise to 100 in two others: a mean of 400 / 7.
    assert value(blurred) == pytest.approx(10 * np.log10(255**2 / (400 / 7)))
    assert value(noisy) < value(target)
    assert value(target) == pytest.approx(10 * np.log10(255**2 * 64))
    assert value(target + np.uint8(5)) == value(target)


def test_blur_loses_edges_and_another_place_does_not() -> None:
    target, moved, blurred = (np.zeros((1, 1, 8, 8), np.uint8) for _ in range(3))
    target[..., 1:3, 1:3] = moved[..., 4:6, 3:5] = 200
    blurred[..., :4, :4] = 50

    def value(images: np.ndarray) -> float:
        return float(EdgeError().compare_pairs(images, target)[0])

    assert value(moved) == value(target) == 0
    # The square's four edges are steps of 200, each two pixels long; of the blurred square's, two lie on the border of
    # the image, and the other two are steps of 50, each four pixels long.
    assert value(blurred) == pytest.approx(1 - 2 * 4 * 50 / (4 * 2 * 200))
    assert value(np.zeros_like(target)) == 1
    assert np.isfinite(EdgeError().compare_pairs(target, np.zeros_like(target))).all()
