"""GANs that make another image of an image: what is particular to each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from training_parts import case_of, given_to, make_loop

from ganpipe.errors import GanpipeError
from ganpipe.evaluation.needs import is_paired, label_given, provided
from ganpipe.fields import Frames, Picture
from ganpipe.gans import load
from ganpipe.gans.base import Batch, DataSpec, Derived, Progress
from ganpipe.gans.draws import BatchDraws, SeededDraws
from ganpipe.losses import reconstruction
from ganpipe.losses.soft_targets import soft_cross_entropy, soft_divergence
from ganpipe.networks.pix2pixhd import MultiScaleCritic, scores_of
from ganpipe.networks.resnet import generator
from ganpipe.networks.stargan import DomainNorm
from ganpipe.networks.video import MultiScalePredictor


def test_feature_matching_and_total_variation() -> None:
    random = np.random.default_rng(0)
    maps = [(random.normal(size=(2, 3, 4, 4)), random.normal(size=(2, 3, 4, 4))) for _ in range(3)]
    expected = np.mean([np.abs(first - second).mean() for first, second in maps])
    tensors = [(torch.from_numpy(first), torch.from_numpy(second)) for first, second in maps]
    assert reconstruction.feature_matching(tensors).item() == pytest.approx(expected)
    image = maps[0][0]
    expected = np.abs(np.diff(image, axis=3)).mean() + np.abs(np.diff(image, axis=2)).mean()
    assert reconstruction.total_variation(torch.from_numpy(image)).item() == pytest.approx(expected)


def test_the_gradient_difference_grows_with_blur_and_not_with_brightness() -> None:
    sharp = torch.zeros(1, 1, 8, 8)
    sharp[..., 4:] = 1
    blurred = F.avg_pool2d(sharp, 3, 1, 1, count_include_pad=False)
    assert reconstruction.gradient_difference(sharp + 0.3, sharp).item() == pytest.approx(0, abs=1e-6)
    # An edge of height 1 becomes three steps of 1/3: two more steps of 1/3, and 2/3 less at the edge, of 7 per row.
    assert reconstruction.gradient_difference(blurred, sharp).item() == pytest.approx(4 / 3 / 7, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_targets_against_both_formulas(temperature: float) -> None:
    random = np.random.default_rng(1)
    student, teacher = random.normal(size=(5, 7)), random.normal(size=(5, 7))

    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits / temperature)
        return powers / powers.sum(1, keepdims=True)

    p, q = softmax(teacher), softmax(student)
    cross_entropy = temperature**2 * -(p * np.log(q)).sum(1).mean()
    divergence = temperature**2 * (p * np.log(p / q)).sum(1).mean()
    logits, targets = torch.from_numpy(student).requires_grad_(), torch.from_numpy(teacher)
    found = {loss: loss(logits, targets, temperature) for loss in (soft_cross_entropy, soft_divergence)}
    assert found[soft_cross_entropy].item() == pytest.approx(cross_entropy)
    assert found[soft_divergence].item() == pytest.approx(divergence)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in found.values()]
    assert torch.allclose(gradients[0], gradients[1])
    assert torch.allclose(gradients[0], torch.from_numpy(temperature * (q - p) / len(p)))
    assert soft_divergence(targets, targets, temperature).item() == pytest.approx(0, abs=1e-12)


def test_each_critic_sees_half_the_size() -> None:
    critics = MultiScaleCritic(num_in=2, width=4, num_scales=3)
    maps = critics(torch.randn(2, 2, 32, 32))
    assert [critic[-1].shape for critic in maps] == [(2, 1, 8, 8), (2, 1, 4, 4), (2, 1, 2, 2)]
    assert scores_of(maps).shape == (2, 64 + 16 + 4)


def test_pix2pixhd_says_what_it_cannot_do() -> None:
    gan = load("pix2pixhd")

    def pairs(source: int, target: int) -> DataSpec:
        sizes = {"source": source, "target": target}
        return DataSpec({name: Picture(size=size, channels=3) for name, size in sizes.items()}, "target")

    gan.check(gan.Config(), pairs(64, 64))
    with pytest.raises(GanpipeError, match="a source and a target of one size; got 32 px, 3 channels and 64 px"):
        gan.check(gan.Config(), pairs(32, 64))
    with pytest.raises(GanpipeError, match="gans.pix2pixhd.num_scales: got 3; images of 32 pixels allow at most 2"):
        gan.check(gan.Config(), pairs(32, 32))
    with pytest.raises(GanpipeError, match="needs a power of two"):
        gan.check(gan.Config(), pairs(48, 48))


@pytest.mark.parametrize("source", ["motion", "noise", "low_resolution"])
def test_pix2pix_restores_what_it_degraded_itself(source: str) -> None:
    gan_class, data = load("pix2pix"), DataSpec.images(32, 3)
    with pytest.raises(GanpipeError, match="Pix2pix needs the field 'target', which the dataset does not have"):
        gan_class.check(gan_class.Config(), data)
    config = gan_class.Config.model_validate({"source": source, "generator_width": 4, "discriminator_width": 4})
    gan = gan_class(config, data)
    assert {"pairs", "features"} == provided(gan, config, data)
    origin = gan.origins(config, data)["source"]
    assert isinstance(origin, Derived)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    degraded = origin.compute(images, SeededDraws(range(3)))
    assert degraded.shape == images.shape
    assert not torch.allclose(degraded, images, atol=0.05)
    batch = Batch(3, SeededDraws(range(3)), {"source": degraded})
    assert gan.sample(batch, Progress(0, 1)).shape == images.shape


def test_prosr_and_video_prediction_say_how_large_images_must_be() -> None:
    prosr, video = load("prosr"), load("video_prediction")
    with pytest.raises(GanpipeError, match="gans.prosr.factor: got 8; images of 16 pixels allow at most 4"):
        prosr.check(prosr.Config.model_validate({"factor": 8}), DataSpec.images(16, 1))
    frames = Frames(num_frames=2, size=16, channels=1)
    with pytest.raises(GanpipeError, match="num_scales: got 3; frames of 16 pixels allow at most 2"):
        video.check(video.Config(), DataSpec({"past": frames, "future": frames}, "future"))


def test_a_correction_begins_near_the_image() -> None:
    with torch.random.fork_rng():  # its last bias is drawn
        torch.manual_seed(0)
        images = torch.rand(2, 3, 16, 16) * 2 - 1
        made = generator(3, 4, 1, is_correction=True)(images)
    assert (made - images).abs().mean() < 0.05
    assert made.abs().max() <= 1


def test_a_domain_norm_gives_each_map_the_gain_and_the_bias_of_its_domain() -> None:
    norm = DomainNorm(3, 2)
    with torch.no_grad():
        norm.gain.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        norm.bias.weight.copy_(torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]))
        made = norm(torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0]))
    torch.testing.assert_close(made.mean((2, 3)), torch.tensor([[0.5, 0.6], [0.1, 0.2]]))
    deviations = made.std((2, 3), correction=0)
    torch.testing.assert_close(deviations, torch.tensor([[5.0, 6.0], [1.0, 2.0]]), rtol=1e-4, atol=0)


def test_stargans_critic_tells_the_domains_of_real_and_of_made_images_apart() -> None:
    gan = make_loop("stargan").state.gan
    logits = torch.zeros(2, 4)  # of two domains; every class is as likely: log 4
    seen: list[torch.Tensor] = []

    def classification(logits_NK: torch.Tensor, domain_N: torch.Tensor) -> torch.Tensor:
        seen.append(domain_N)
        return F.cross_entropy(logits, domain_N)

    gan._classification = classification  # type: ignore[method-assign, assignment]
    fields = case_of("stargan").fields(2, 0)
    batch = Batch(2, SeededDraws(range(2)), {**fields, "domain": 1 - fields["label"]}, dtype=torch.float64)
    losses = gan.discriminator_losses_on(fields["image"].double(), batch)  # type: ignore[operator]
    assert losses["class"] == losses["class_of_made"] == pytest.approx(math.log(4))
    assert seen[0].tolist() == fields["label"].tolist()
    assert seen[1].tolist() == (2 + 1 - fields["label"]).tolist()


@pytest.mark.parametrize("name", ["stargan", "ageing"])
def test_a_wanted_class_is_drawn_and_measured(name: str) -> None:
    """There is no pair: the image that is given must become another one."""
    gan = make_loop(name).state.gan
    assert not is_paired(gan, gan.config, gan.data)
    wanted = gan.given[1]
    assert label_given(gan, gan.config, gan.data) == wanted
    assert provided(gan, gan.config, gan.data) == {"features", "labels"}
    found = given_to(gan, name, 200)[wanted]
    own = case_of(name).fields(512, 0)["label"][:200]
    assert 0.35 < (found == own).double().mean() < 0.65  # of two classes, each with one half


@pytest.mark.parametrize("name", ["stargan", "ageing"])
def test_labels_are_needed(name: str) -> None:
    gan = load(name)
    with pytest.raises(GanpipeError, match="needs the field 'label', which the dataset does not have"):
        gan.check(gan.Config(), DataSpec.images(16, 1))


def test_ages_are_steps_in_their_order() -> None:
    gan = load("ageing")
    four = gan(gan.Config(), DataSpec.images(16, 1, 4))
    steps = four._steps(torch.arange(4), torch.zeros(1))  # type: ignore[operator]
    assert steps.tolist() == [[-1, -1, -1], [1, -1, -1], [1, 1, -1], [1, 1, 1]]


def test_the_future_is_corrected_from_scale_to_scale() -> None:
    network = MultiScalePredictor(num_past=6, channels=3, num_noise=1, width=4, num_scales=3)
    past = torch.randn(2, 6, 16, 16)
    found = network(past, torch.randn(2, 1))
    assert [frames.shape for frames in found] == [(2, 3, 4, 4), (2, 3, 8, 8), (2, 3, 16, 16)]
    # At the beginning nothing is corrected: each scale is the coarse image of the last frame.
    assert torch.allclose(found[0], F.avg_pool2d(past[:, 3:], 4), atol=1e-6)
    assert torch.allclose(found[2], found[0].repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_the_future_is_made_frame_by_frame_of_the_last_frames() -> None:
    gan = make_loop("video_prediction", num_past=1).state.gan
    seen: list[torch.Tensor] = []
    true_forward = gan.generator.forward  # type: ignore[union-attr]

    def noted(past: torch.Tensor, noise: torch.Tensor) -> list[torch.Tensor]:
        seen.append(past)
        scales: list[torch.Tensor] = true_forward(past, noise)  # type: ignore[operator]
        return [frames + 0.1 for frames in scales]

    gan.generator.forward = noted  # type: ignore[union-attr, assignment]
    past = (torch.rand(3, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5).double()
    batch = Batch(3, SeededDraws(range(3)), {"past": past}, dtype=torch.float64)
    made = gan.sample(batch, Progress(1, 1))
    assert made.shape == past.shape
    assert torch.equal(seen[0], past[:, 1])  # the last of the two that are given
    assert torch.equal(seen[1], made[:, 0])


def test_frames_in_a_row_begin_anywhere_from_the_past_to_the_future() -> None:
    gan = make_loop("video_prediction", num_past=1, num_unrolled=2).state.gan
    numbers = torch.arange(4.0).reshape(1, 4, 1, 1, 1).expand(50, -1, 1, 16, 16)
    batch = Batch(50, BatchDraws(0, 50, 0, 50), {"past": numbers[:, :2], "future": numbers[:, 2:]})
    found = gan._moments(batch)[:, :, 0, 0, 0]  # type: ignore[operator]
    assert torch.equal(found[:, 1:], found[:, :-1] + 1)
    assert set(found[:, 0].tolist()) == {0, 1}
    assert gan._moments(batch)[:, :, 0, 0, 0].equal(found)  # type: ignore[operator]


def test_without_its_adversary_a_network_learns_alone() -> None:
    for name in ("deblurgan", "context_encoder", "video_prediction", "prosr"):
        loop = make_loop(name, adversarial_weight=0.0)
        assert [phase.player for phase in loop.state.gan.phases(Progress(0, 100))] == ["generator"]
        loop.step()


def test_a_students_images_are_the_teachers() -> None:
    """The student is given the same latents and classes."""
    gan = make_loop("distillation").state.gan
    gan.generator = gan.teacher
    batch = Batch(4, BatchDraws(0, 4, 0, 4), {"label": torch.tensor([0, 1, 1, 0])}, dtype=torch.float64)
    losses = gan.student_losses(batch, Progress(90, 100))  # type: ignore[operator]
    assert losses["pixels"].item() == pytest.approx(0, abs=1e-12)
    assert losses["soft_targets"].item() == pytest.approx(0, abs=1e-9)


def test_a_package_has_the_student_alone() -> None:
    loop = make_loop("distillation")
    assert {key.partition(".")[0] for key in loop.state.generator_state()} == {"generator"}
