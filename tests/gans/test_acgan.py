"""AC-GAN: its losses by the paper's equations, and what it needs of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from training_parts import blobs, make_loop

from ganpipe import gans
from ganpipe.evaluation import metrics
from ganpipe.gans.base import Batch, DataSpec, Progress
from ganpipe.gans.draws import BatchDraws

NUM = 6


def log_softmax(logits_NK: np.ndarray) -> np.ndarray:
    return logits_NK - np.log(np.exp(logits_NK).sum(1, keepdims=True))


def log_likelihoods(outputs: Tensor, is_real: bool, label_N: np.ndarray) -> tuple[float, float]:
    """E[log P(S | X)] and E[log P(C = c | X)] from the discriminator's outputs (N, 1 + K)."""
    values = outputs.detach().numpy()
    probability_N = 1 / (1 + np.exp(-values[:, 0]))
    source = np.log(probability_N if is_real else 1 - probability_N).mean()
    return float(source), float(log_softmax(values[:, 1:])[np.arange(len(label_N)), label_N].mean())


def test_its_losses_are_those_of_equations_2_and_3() -> None:
    gan = make_loop("acgan", class_weight=0.5).state.gan.eval()
    fields = blobs(NUM)
    batch = Batch(NUM, BatchDraws(0, NUM, 0, NUM), fields, dtype=torch.float64)
    fake_NCHW = gan.generate(batch)  # type: ignore[operator]
    label_N = fields["label"].numpy()
    real_source, real_class = log_likelihoods(gan.discriminator(fields["image"]), True, label_N)  # type: ignore[operator]
    outputs = gan.discriminator(fake_NCHW)  # type: ignore[operator]
    fake_source, fake_class = log_likelihoods(outputs, False, label_N)
    found = gan.discriminator_losses_on(fake_NCHW, batch)  # type: ignore[operator]
    assert found["adversarial"].item() == pytest.approx(-real_source - fake_source)
    assert found["class_real"].item() == pytest.approx(-0.5 * real_class)
    assert found["class_fake"].item() == pytest.approx(-0.5 * fake_class)

    again = Batch(NUM, BatchDraws(0, NUM, 0, NUM), fields, dtype=torch.float64)
    found = gan.generator_losses(again, Progress(0, 1))  # type: ignore[operator]
    as_real, _ = log_likelihoods(outputs, True, label_N)
    assert found["adversarial"].item() == pytest.approx(-as_real)
    assert found["class"].item() == pytest.approx(-0.5 * fake_class)


def test_the_generator_sees_the_label_and_the_discriminator_does_not() -> None:
    gan = make_loop("acgan").state.gan.eval()
    fields = blobs(NUM)
    other = {**fields, "label": 1 - fields["label"]}
    batches = [Batch(NUM, BatchDraws(0, NUM, 0, NUM), found, dtype=torch.float64) for found in (fields, other)]
    first, second = (gan.generate(batch) for batch in batches)  # type: ignore[operator]
    assert not torch.allclose(first, second)
    logits = [gan.discriminate(fields["image"], batch) for batch in batches]  # type: ignore[operator]
    assert torch.equal(*logits)
    assert logits[0].shape == (NUM,)


def test_one_class_is_an_error() -> None:
    acgan = gans.load("acgan")
    with pytest.raises(
        Exception, match="Acgan needs images of at least 2 classes, and the field 'label' has 1; choose"
    ):
        acgan.check(acgan.Config(), DataSpec.images(32, 1, 1))


def test_an_image_size_that_it_cannot_do_is_an_error() -> None:
    acgan = gans.load("acgan")
    with pytest.raises(Exception, match="data.image_size: got 28; acgan needs a power of two from 16 to 256"):
        acgan.check(acgan.Config(), DataSpec.images(28, 1, 10))


def test_the_accuracy_of_another_classifier_is_measured() -> None:
    """AC-GAN's own classifier would also be pleased with images that only it can tell apart."""
    acgan = gans.load("acgan")
    applying = metrics.applying(acgan, acgan.Config(), DataSpec.images(32, 1, 10))
    assert {"class_accuracy", "class_accuracy_of_real", "fid_intra"} <= {metric.name() for metric in applying}
