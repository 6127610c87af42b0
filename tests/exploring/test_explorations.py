"""Each exploration on small packaged GANs: what its pictures hold, and what it refuses."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from exploring_parts import CODES, cell, explored, made, opening, pixels, shape
from PIL import Image, ImageSequence
from registry_parts import build
from toy_gans import build_toy, toys

from ganpipe import exploring
from ganpipe.errors import GanpipeError
from ganpipe.evaluation.grids import png
from ganpipe.evaluation.sampling import sample_images
from ganpipe.exploring.arithmetic import Term, sum_of_means, terms_in
from ganpipe.exploring.directions import directions_of, in_layers, principal_directions
from ganpipe.exploring.explored import Explored
from ganpipe.exploring.projection import Distance, project
from ganpipe.exploring.swap import layer_of, mixed_weights, weights_of


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Explored]:
    root = tmp_path_factory.mktemp("packages")
    found = {name: explored(build(root / name, name)) for name in ("dcgan", "cgan")}
    found["other"] = explored(build(root / "other", "dcgan", seed=1))
    found["infogan"] = explored(build(root / "infogan", "infogan", config=CODES))
    with toys(root / "sources") as sources:
        for name in ("toy_stylist", "toy_painter"):
            found[name] = explored(build_toy(root / name, name, sources))
    return {name: dataclasses.replace(item, open=opening(found)) for name, item in found.items()}


@pytest.fixture
def dcgan(subjects: dict[str, Explored]) -> Explored:
    return subjects["dcgan"]


@pytest.fixture
def stylist(subjects: dict[str, Explored]) -> Explored:
    return subjects["toy_stylist"]


def image(subject: Explored, seed: int) -> np.ndarray:
    """The sample of a seed, integers, (H, W)."""
    return subject.samples([seed])[0, 0].astype(int)


def near(first: np.ndarray, second: np.ndarray) -> bool:
    """Equal up to the rounding of products of different sizes."""
    return bool(np.abs(first - second).max() <= 1)


# --- interpolation, film


def test_an_interpolation_ends_at_the_samples(subjects: dict[str, Explored]) -> None:
    for name, space in (("dcgan", "z"), ("cgan", "z")):
        subject = subjects[name]
        content = made("interpolation", subject, "--seeds", "4,7,1", "--steps", "5", "--space", space)[
            "interpolation.png"
        ]
        assert shape(content) == (2, 5)
        assert near(cell(content, 0, 0), image(subject, 4)), name
        assert near(cell(content, 1, 0), image(subject, 7)), name
        if name == "dcgan":
            assert near(cell(content, 0, 4), image(subject, 7))
            assert near(cell(content, 1, 4), image(subject, 1))
        else:  # the row keeps the class of its first seed
            label = subject.conditions([4])
            assert near(cell(content, 0, 4), subject.samples([7], label)[0, 0].astype(int))


def test_in_w_the_way_is_straight_and_the_noise_stays(stylist: Explored) -> None:
    content = made("interpolation", stylist, "--seeds", "4,7", "--steps", "3", "--space", "w")["interpolation.png"]
    start = stylist.latents([4], "w")
    ends = stylist.styles([4, 7]).flatten(1)
    assert near(cell(content, 0, 0), image(stylist, 4))
    for column, vector_K in ((1, ends.mean(0)), (2, ends[1])):
        assert near(cell(content, 0, column), stylist.images(start.at(vector_K[None]), {})[0, 0].astype(int))


@pytest.mark.parametrize("space", ["z", "w"])
def test_a_film_passes_its_seeds_and_loops(subjects: dict[str, Explored], space: str) -> None:
    subject = subjects["toy_stylist" if space == "w" else "dcgan"]
    options = ["--seeds", "4,7,1", "--seconds", "1.2", "--fps", "10", "--space", space]
    content = made("film", subject, *options)["film.gif"]
    with Image.open(io.BytesIO(content)) as film:
        assert film.info["loop"] == 0
        frames = [np.asarray(frame.convert("L"))[::8, ::8].astype(int) for frame in ImageSequence.Iterator(film)]
        assert film.info["duration"] == 100
    assert len(frames) == 12
    assert near(frames[0], image(subject, 4))
    if space == "z":
        assert near(frames[4], image(subject, 7))
        assert near(frames[8], image(subject, 1))
    # The last frame is on its way back: nearer to the first than the frame that is farthest from all seeds.
    assert np.abs(frames[11] - frames[0]).mean() < np.abs(frames[8] - frames[0]).mean()


# --- truncation, traversal, styles


def test_truncation_grows_along_a_row(dcgan: Explored) -> None:
    content = made("truncation", dcgan, "--seeds", "3,5", "--lowest", "0.25", "--steps", "4")["truncation.png"]
    assert shape(content) == (2, 4)
    for column, value in enumerate((0.25, 0.5, 0.75, 1.0)):
        expected = sample_images(dcgan.gan, dcgan.progress, [5], truncation=value)[0, 0]
        assert near(cell(content, 1, column), expected)


def test_a_traversal_changes_one_code(subjects: dict[str, Explored]) -> None:
    infogan, cgan = subjects["infogan"], subjects["cgan"]
    content = made("traversal", infogan, "--seeds", "3,5", "--steps", "5")["traversal.png"]
    assert shape(content) == (3 * 2, 5)  # category, code_1, code_2
    assert (cell(content, 0, 3) == 255).all()  # the category has three values
    fixed = infogan.conditions([5])
    lowest = infogan.samples([5], {**fixed, "code_2": torch.tensor([-1.0])})[0, 0]
    assert near(cell(content, 5, 0), lowest)
    assert shape(made("traversal", cgan, "--seeds", "0")["traversal.png"]) == (1, 10)
    with pytest.raises(GanpipeError, match=r"--code: there is no code 'code_9'; did you mean 'code_[12]'\?"):
        made("traversal", infogan, "--code", "code_9")


def test_a_traversal_of_coordinates_changes_one_number_of_the_latent(dcgan: Explored) -> None:
    content = made("traversal", dcgan, "--coordinates", "2", "--seeds", "3", "--steps", "5")["traversal.png"]
    assert shape(content) == (2, 5)
    latents = dcgan.latents([3])
    vectors = latents.vectors_NK.clone()
    vectors[0, 1] = -0.5  # uniform numbers end there
    assert near(cell(content, 1, 0), dcgan.images(latents.at(vectors), {})[0, 0])
    with pytest.raises(GanpipeError, match="--coordinates: got 50, more than the latent has"):
        made("traversal", dcgan, "--coordinates", "50")


def test_style_mixing_takes_coarse_and_fine_layers(stylist: Explored) -> None:
    content = made("styles", stylist, "--coarse", "4,7", "--fine", "1,2,3", "--at", "1")["styles.png"]
    assert shape(content) == (3, 4)
    assert (cell(content, 0, 0) == 255).all()
    np.testing.assert_array_equal(cell(content, 0, 2), image(stylist, 2))
    np.testing.assert_array_equal(cell(content, 2, 0), image(stylist, 7))
    mixed, noise = cell(content, 2, 2), image(stylist, 7)
    np.testing.assert_array_equal(mixed[:6], noise[:6])  # the first layer's rows, and the noise, are seed 7's
    styles = stylist.styles([7, 2])[:, 0, 0]
    shift = float(styles[1] - styles[0]) * 127.5
    assert np.abs(mixed[6:] - noise[6:] - shift).max() <= 1  # the other layers' are seed 2's
    with pytest.raises(GanpipeError, match="--at: got 3; expected 1 to 2 of 3 layers"):
        made("styles", stylist, "--at", "3")


# --- arithmetic


def test_signs_stand_between_spaces_and_classes_have_any_name() -> None:
    assert terms_in("0,4, 7 - 1  +  class:t-shirt") == [Term(1, (0, 4, 7)), Term(-1, (1,)), Term(1, name="t-shirt")]


def test_arithmetic_is_that_of_the_recorded_latents(dcgan: Explored) -> None:
    groups = [[0, 4, 7], [1, 2, 3], [5, 6]]
    arrays = [dcgan.latents(seeds).vectors_NK.numpy() for seeds in groups]
    expected_K = arrays[0].mean(0) - arrays[1].mean(0) + arrays[2].mean(0)
    found_K = sum_of_means([(sign, torch.from_numpy(a)) for sign, a in zip((1, -1, 1), arrays, strict=True)])
    np.testing.assert_allclose(found_K.numpy(), expected_K, atol=1e-6)
    content = made("arithmetic", dcgan, "--expression", "0,4,7 - 1,2,3 + 5,6")["arithmetic.png"]
    latents = dcgan.latents([0])
    centre = dcgan.images(latents.at(torch.from_numpy(expected_K)[None]), {})[0, 0]
    left = pixels(content)[:, pixels(content).shape[1] - (3 * 66 + 2) :]
    assert near(left[2 + 66 : 2 + 66 + 64 : 4, 2 + 66 : 2 + 66 + 64 : 4].astype(int), centre)
    assert near(cell(content, 1, 1), image(dcgan, 2))
    assert (cell(content, 2, 2) == 255).all()  # the last group has two members
    mean = dcgan.images(latents.at(torch.from_numpy(arrays[2].mean(0))[None]), {})[0, 0]
    assert near(cell(content, 2, 3, wide_gaps=1), mean)


@pytest.mark.parametrize(("name", "space"), [("dcgan", "z"), ("cgan", "z"), ("toy_stylist", "w")])
def test_a_group_minus_itself_plus_another_is_the_others_mean(
    subjects: dict[str, Explored], name: str, space: str
) -> None:
    subject = subjects[name]
    files = made("arithmetic", subject, "--expression", "1 - 1 + 2", "--noise", "0", "--space", space)
    first = subject.latents([1], space)  # type: ignore[arg-type]
    second = subject.latents([2], space)  # type: ignore[arg-type]
    expected = subject.images(first.at(second.vectors_NK), subject.conditions([1]))[0, 0]
    picture = pixels(files["arithmetic.png"])
    results = picture[:, picture.shape[1] - (3 * 66 + 2) :]
    for row in range(3):
        top = 2 + 66 * row
        assert near(results[top : top + 64 : 4, 2:66:4].astype(int), expected)


# --- directions


def test_directions_of_a_linear_generator_are_its_singular_vectors() -> None:
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(12, 5)) * [5, 3, 2, 1, 0.5]
    latents = generator.normal(size=(4000, 5))
    directions, shares = principal_directions(torch.from_numpy(latents @ matrix.T), torch.from_numpy(latents), 3)
    # Against numpy: components of the activations, their scores, and a least squares fit of the latents to these.
    activations = latents @ matrix.T
    centred = activations - activations.mean(0)
    _, values, components = np.linalg.svd(centred, full_matrices=False)
    scores = centred @ components[:3].T
    fitted = np.linalg.lstsq(scores, latents - latents.mean(0), rcond=None)[0] * scores.std(0, ddof=1)[:, None]
    for found, expected in zip(directions.numpy(), fitted, strict=True):
        assert found[np.abs(found).argmax()] > 0
        np.testing.assert_allclose(found, expected * np.sign(expected[np.abs(expected).argmax()]), atol=1e-5)
    np.testing.assert_allclose(shares.numpy(), (values**2 / (values**2).sum())[:3], rtol=1e-6)
    # A latent of unit variance: each direction is nearly a right singular vector of the generator.
    right = np.linalg.svd(matrix)[2][:3]
    assert np.abs((directions.numpy() * right).sum(1)).min() > 0.95


def test_directions_of_a_packaged_gan_are_those_of_its_first_layer(subjects: dict[str, Explored]) -> None:
    for name in ("dcgan", "cgan"):
        subject = subjects[name]
        seeds, generator = list(range(100)), subject.gan.generator
        z_NK = subject.latents(seeds).vectors_NK
        layer = generator[0] if name == "dcgan" else generator.latent_layer  # type: ignore[index,operator,union-attr]
        expected, shares = principal_directions(layer(2 * z_NK), z_NK, 4)
        found, found_shares = directions_of(subject, 100, 4)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found_shares, shares)


def test_directions_move_a_seed_to_both_sides(subjects: dict[str, Explored], stylist: Explored) -> None:
    infogan = subjects["infogan"]
    for subject, most in ((infogan, 2), (stylist, 2)):
        files = made("directions", subject, "--num", "64", "--components", "2", "--seeds", "3,4", "--steps", "3")
        assert len(files["directions.csv"].decode().splitlines()) == 1 + most
        assert pixels(files["directions.png"]).shape == (most * 66 + 2, 6 * 66 + 2 + 8)
        for row in range(most):
            assert near(cell(files["directions.png"], row, 1), image(subject, 3))
            assert near(cell(files["directions.png"], row, 4, wide_gaps=1), image(subject, 4))
    # In w all layers move alike: by one deviation of w.
    directions, _ = directions_of(stylist, 64, 2)
    assert torch.equal(directions[:, :2], directions[:, 4:])
    w_ND = stylist.styles(list(range(64)))[:, 0].double()
    variance = (directions[:, :2].double() ** 2).sum()
    torch.testing.assert_close(variance, w_ND.var(0).sum(), rtol=1e-5, atol=0)


def test_directions_may_move_some_layers_alone(stylist: Explored) -> None:
    directions, _ = directions_of(stylist, 64, 2)
    num_layers, size = stylist.styles([0]).shape[1:]
    found = in_layers(directions, num_layers, 1, 1).reshape(-1, num_layers, size)
    assert torch.equal(found[:, 1], directions.reshape(-1, num_layers, size)[:, 1])
    assert not found[:, torch.arange(num_layers) != 1].any()
    options = ["--num", "64", "--components", "1", "--seeds", "3", "--steps", "3"]
    files = [
        made("directions", stylist, *options, *more)
        for more in ([], ["--layers", "0"], ["--layers", f"0-{num_layers - 1}"])
    ]
    assert files[0]["directions.png"] == files[2]["directions.png"] != files[1]["directions.png"]
    for pictures in files:
        assert near(cell(pictures["directions.png"], 0, 1), image(stylist, 3))


# --- projection


@pytest.fixture
def target(dcgan: Explored, tmp_path: Path) -> Path:
    path = tmp_path / "target.png"
    path.write_bytes(png(Image.fromarray(image(dcgan, 1234567).astype(np.uint8))))
    return path


def test_a_projection_comes_nearer_and_shows_the_image(
    dcgan: Explored, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganpipe.exploring.projection._NUM_STARTS", 32)
    files = made("projection", dcgan, "--image", str(target), "--steps", "30")
    rows = [line.split(",") for line in files["distance.csv"].decode().splitlines()]
    assert rows[0] == ["step", "distance"]
    assert [int(step) for step, _ in rows[1:]] == list(range(31))
    distances = [float(value) for _, value in rows[1:]]
    assert distances[-1] < 0.6 * distances[0]
    assert shape(files["projection.png"]) == (1, 3)
    shown = [cell(files["projection.png"], 0, column) for column in range(3)]
    np.testing.assert_array_equal(shown[0], image(dcgan, 1234567))
    assert np.abs(shown[2] - shown[0]).mean() < np.abs(shown[1] - shown[0]).mean()
    assert pixels(files["distance.png"]).ndim == 3
    few = ["--image", str(target), "--steps", "3"]
    assert made("projection", dcgan, *few) == made("projection", dcgan, *few)


def test_uniform_latents_stay_in_their_range_and_styles_are_found(
    subjects: dict[str, Explored], stylist: Explored
) -> None:
    for subject, space in ((subjects["cgan"], "z"), (stylist, "w")):
        given, start = subject.conditions([1]), subject.latents([1], space)  # type: ignore[arg-type]
        distance = Distance(subject.samples([2]), subject)
        vector, distances = project(subject, start, given, distance, 20, 0.3)
        assert min(distances) < distances[0]
        torch.testing.assert_close(distance(subject.render(start.at(vector), given)).item(), min(distances))
        assert (vector.abs() <= start.bounds_K).all()


# --- swap


def test_swapping_none_or_all_layers_gives_the_two_models(subjects: dict[str, Explored], dcgan: Explored) -> None:
    found = {}
    for share in ("0", "0.5", "1"):
        found[share] = made("swap", dcgan, "--with", "other", "--at", share, "--seeds", "3,4")["swap.png"]
        assert shape(found[share]) == (3, 2)
        np.testing.assert_array_equal(cell(found[share], 0, 1), image(dcgan, 4))
        np.testing.assert_array_equal(cell(found[share], 1, 1), image(subjects["other"], 4))
    np.testing.assert_array_equal(cell(found["0"], 2, 1), image(subjects["other"], 4))
    np.testing.assert_array_equal(cell(found["1"], 2, 1), image(dcgan, 4))
    for other in (dcgan, subjects["other"]):
        assert np.abs(cell(found["0.5"], 2, 1) - image(other, 4)).max() > 5


def test_layers_are_swapped_whole_and_in_order(subjects: dict[str, Explored], dcgan: Explored) -> None:
    first, second = weights_of(dcgan.gan), weights_of(subjects["other"].gan)
    assert all(name.startswith("generator.") for name in first)
    mixed = mixed_weights(first, second, 0.5)
    layers = list(dict.fromkeys(map(layer_of, first)))
    parts = ("parametrizations.weight.original", "parametrizations.weight.0.vector", "bias", "running_mean")
    assert {layer_of(f"generator.blocks.2.{part}") for part in parts} == {"generator.blocks.2"}
    same = {name: bool(torch.equal(value, first[name])) for name, value in mixed.items() if value.dim()}
    sides = {layer: {same[name] for name in same if name.startswith(f"{layer}.")} for layer in layers}
    assert list(sides.values()) == [{True}] * (len(layers) // 2) + [{False}] * (len(layers) - len(layers) // 2)


def test_another_family_is_refused(subjects: dict[str, Explored], dcgan: Explored, tmp_path: Path) -> None:
    with pytest.raises(GanpipeError, match="the GAN 'cgan' of cgan is of another family than the GAN 'dcgan' of dcgan"):
        made("swap", dcgan, "--with", "cgan")
    wide = explored(build(tmp_path / "wide", "dcgan", config={"num_latents": 9, "generator_width": 4}))
    with pytest.raises(GanpipeError, match=r"wide has other networks than dcgan: generator.0.weight has the shape"):
        made("swap", dataclasses.replace(dcgan, open=opening({"wide": wide})), "--with", "wide")


# --- what is refused before any work; equal bytes


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("interpolation", ["--seeds", "1"], "--seeds: got 1 seeds; expected 2 to 64"),
        ("interpolation", ["--seeds", "1,x"], "--seeds: got '1,x'; expected seeds from 0 to"),
        ("interpolation", ["--seeds", "1,-2"], "--seeds: got '1,-2'"),
        ("interpolation", ["--seeds", f"1,{2**63}"], "--seeds: got '1,9223372036854775808'; expected seeds from 0 to"),
        ("interpolation", ["--steps", "1"], "--steps: got 1; expected 2 to 64"),
        ("film", ["--fps", "99"], "--fps: got 99; expected 1 to 50"),
        ("film", ["--seconds", "nan"], "--seconds: got nan"),
        ("film", ["--seconds", "600", "--fps", "50"], "got 30000 frames; expected 4 (one per seed) to 1,000"),
        ("truncation", ["--lowest", "1"], "--lowest: got 1; expected a number above 0 and below --truncation"),
        ("truncation", ["--lowest", "0"], "--lowest: got 0"),
        ("directions", ["--components", "0"], "--components: got 0"),
        ("directions", ["--num", "3"], "--num: got 3; expected 7 to"),
        ("directions", ["--layers", "3-1"], "--layers: got '3-1'; expected a first and a last layer, such as 0-3"),
        ("directions", ["--layers", "0-1"], "--layers: the GAN 'dcgan' of dcgan has no styles"),
        ("arithmetic", ["--expression", "1,2 - x"], "--expression: got 'x'; expected seeds"),
        ("arithmetic", ["--expression", " + ".join("123456789")], "--expression: got 9 terms; expected 8"),
        ("arithmetic", ["--expression", "class:three"], "manifest"),
        ("swap", ["--with", "other", "--at", "1.5"], "--at: got 1.5; expected 0 to 1"),
        ("projection", ["--image", "nowhere.png"], "--image: nowhere.png: cannot be read: No such file"),
        ("projection", ["--image", __file__], "not an image in any format known here"),
        ("styles", [], "the GAN 'dcgan' of dcgan has no styles"),
        ("interpolation", ["--space", "w"], "--space w: the GAN 'dcgan' of dcgan has no styles"),
        ("traversal", [], "the GAN 'dcgan' of dcgan takes no codes and no classes"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(
    dcgan: Explored, kind: str, options: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # without data
    with pytest.raises(GanpipeError) as refused:
        made(kind, dcgan, *options)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


NEEDED = {"arithmetic": ["--expression", "0 - 1 + 2"], "swap": ["--with", "other"], "projection": ["--image"]}


@pytest.mark.parametrize("kind", exploring.names())
def test_a_gan_of_other_images_is_refused(subjects: dict[str, Explored], kind: str, target: Path) -> None:
    options = [*NEEDED.get(kind, []), *([str(target)] if kind == "projection" else [])]
    with pytest.raises(GanpipeError, match=r"makes images of other images \(sketch\), not of latents"):
        made(kind, subjects["toy_painter"], *options)
    if kind not in ("traversal", "projection"):
        subject = subjects["toy_stylist" if kind == "styles" else "dcgan"]
        assert made(kind, subject, *options) == made(kind, subject, *options)
