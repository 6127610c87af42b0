"""`train.start_from`: a training that begins with another one's weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import safetensors.torch
import torch
from registry_parts import NAME, tracker_in
from test_kept import make_loop as make_pooled_loop
from test_kept import pools_of
from training_parts import SMALL, SPEC, case_of, given_to, make_loop, packaged

import ganpipe.training.state
from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.errors import GanpipeError, UnavailableError
from ganpipe.evaluation.sample_grids import SampleGrid
from ganpipe.evaluation.sampling import quantise, sample_images
from ganpipe.gans import load
from ganpipe.gans.base import DataSpec, Gan, Progress
from ganpipe.packaging.card import card
from ganpipe.params import Params
from ganpipe.registry import open_model
from ganpipe.stages.start import START_FILE, FoundWeights, find_weights
from ganpipe.tracking.runs import Tracker
from ganpipe.training.loop import Loop
from ganpipe.training.settings import TrainSettings
from ganpipe.training.start import match, start_from, weights_of, weights_of_checkpoint
from ganpipe.training.state import CheckpointStore
from ganpipe.training.worker import TrainingJob, run_training

FP32 = {"precision": "fp32"}
TEN_CLASSES = DataSpec.images(16, 1, 10)
"""Data of more classes."""


def trained(name: str) -> Loop:
    """A training after two steps, with weights and averages under which every image is another one."""
    loop = make_loop(name, settings=FP32)
    for _ in range(2):
        loop.step()
    with torch.no_grad():
        for key, tensor in [*loop.state.gan.state_dict().items(), *loop.state.ema.averages.items()]:
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.3)
    return loop


def params_of(start: int | str | None, gan: str = "gan", **config: Any) -> Params:
    settings = SMALL.get(gan, {}) | config
    return Params.model_validate(
        {"train": {"gan": gan, "start_from": start}, "gans": {gan: settings}, "register": {"model_name": NAME}}
    )


def found_in(start: int | str, gan: str = "gan", tracker: Tracker | None = None, **config: Any) -> FoundWeights:
    """What a stage finds, for data of two classes at 16 pixels."""
    data = case_of(gan).spec
    found = find_weights(params_of(start, gan, **config), data, tracker or Tracker("sqlite:///none", "tests", "spool"))
    assert found is not None
    return found


def saved(loop: Loop, folder: Path) -> Path:
    """The loop's checkpoint in `folder`."""
    CheckpointStore(str(folder), keep=1).save(loop.state)
    return next(folder.glob("checkpoint-*.pt"))


def test_nothing_is_asked_for() -> None:
    assert find_weights(params_of(None), SPEC, Tracker("sqlite:///none", "tests", "spool")) is None


@pytest.mark.parametrize("name", SMALL)
def test_it_begins_with_the_packages_images(name: str, tmp_path: Path) -> None:
    package = packaged(trained(name), tmp_path)
    start = found_in(str(package), name).write_to(str(tmp_path / "work"))
    loop = make_loop(name, settings={**FP32, "seed": 9})
    given = given_to(loop.state.gan, name, 8)
    with loop.state.averaged() as gan:
        before = sample_images(gan, loop.state.progress, range(8), given)
    start_from(loop.state, start)
    generator = open_model.load("package", package)
    expected = quantise(generator.images(range(8), {key: list(values.numpy()) for key, values in given.items()}))
    with loop.state.averaged() as gan:
        images = sample_images(gan, loop.state.progress, range(8), given)
    if images.ndim == 5:  # a package makes frames one below another
        images, before = (frames.transpose(0, 2, 1, 3, 4).reshape(expected.shape) for frames in (images, before))
    # Convolutions round otherwise in the memory format of training.
    assert np.abs(images.astype(int) - expected).max() <= (0 if name in ("gan", "cgan", "wgan_gp") else 1)
    assert (before != expected).mean() > 0.1  # a GAN that completes images changes their holes only
    safe = safetensors.torch.load_file(package / "generator.safetensors")
    state = loop.state.gan.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in safe.items()), "live weights"
    assert start.sha256 == generator.description["digests"]["generator"], "it names the version's own digest"


def test_a_checkpoint_brings_all_players_and_the_average_and_nothing_else(tmp_path: Path) -> None:
    origin = trained("dcgan")
    start = found_in(str(saved(origin, tmp_path)), "dcgan").write_to(str(tmp_path / "work"))
    loop = make_loop("dcgan", settings={**FP32, "seed": 9})
    start_from(loop.state, start)
    for own, other in ((loop.state.gan, origin.state.gan), (loop.state.ema, origin.state.ema)):
        expected = other.state_dict()  # type: ignore[attr-defined]
        assert all(torch.equal(tensor, expected[name]) for name, tensor in own.state_dict().items())  # type: ignore[attr-defined]
    assert any(name.endswith("running_mean") for name in weights_of(loop.state.gan))
    assert loop.state.progress == Progress(0, 10**6)
    assert all(not optimizer.state for optimizer in loop.state.optimizers.values())
    assert loop.state.curves.rows == []
    assert loop.state.scores == {}


def test_pools_and_what_lies_outside_the_networks_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ganpipe.training.state, "load", None)  # what make_pooled_loop sets is taken back
    origin, loop = make_pooled_loop(), make_pooled_loop(seed=4)
    for _ in range(3):
        origin.step()
    for one in (origin, loop):
        one.state.gan.register_buffer("chance", torch.tensor(float(one is origin)))
    content = weights_of_checkpoint(fsspec.filesystem("file"), str(saved(origin, tmp_path)))
    start_from(loop.state, FoundWeights("it", "a checkpoint", content).write_to(str(tmp_path / "work")))
    own, expected = loop.state.gan.state_dict(), origin.state.gan.state_dict()
    assert [name for name in own if not torch.equal(own[name], expected[name])] == ["chance"]
    assert all((tensor == 0).all() for tensor in pools_of(loop).values())
    assert not all((tensor == 0).all() for tensor in pools_of(origin).values())


def test_other_widths_take_what_fits_and_say_what_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = packaged(trained("cgan"), tmp_path)
    wider = {"label_width": 80}
    found = found_in(str(package), "cgan", **wider)
    loop = make_loop("cgan", settings={**FP32, "seed": 9}, **wider)
    before = {name: tensor.clone() for name, tensor in weights_of(loop.state.gan).items()}
    start_from(loop.state, found.write_to(str(tmp_path / "work")))
    after, weights = weights_of(loop.state.gan), safetensors.torch.load(found.content)
    matched = match(before, weights)
    assert {name for name in matched.fresh if name.startswith("generator.")} == set(matched.unused) != set()
    assert all(torch.equal(after[name], weights[name]) for name in matched.taken)
    assert all(torch.equal(after[name], before[name]) for name in matched.fresh)
    assert all(torch.equal(loop.state.ema.averages[name], after[name]) for name in loop.state.ema.averages)
    said = capsys.readouterr().out.splitlines()
    num_taken, num_fresh, num_unused = len(matched.taken), len(matched.fresh), len(matched.unused)
    assert said[0] == (
        f"train.start_from: {package} (a package of cgan): {num_taken} of {num_taken + num_fresh} tensors of the "
        "networks start from it"
    )
    assert said[1].startswith(f"  {num_fresh} start at random, because it has no such name and shape: discriminator.")
    assert said[2].startswith(f"  {num_unused} of its tensors have no place in these networks: generator.")


def test_more_classes_keep_the_discriminator(tmp_path: Path) -> None:
    checkpoint = saved(trained("cgan"), tmp_path)
    gan = load("cgan")(load("cgan").Config.model_validate(SMALL["cgan"]), TEN_CLASSES)
    matched = match(
        weights_of(gan), safetensors.torch.load(weights_of_checkpoint(fsspec.filesystem("file"), str(checkpoint)))
    )
    assert any(name.startswith("discriminator.") for name in matched.taken)
    assert len(matched.fresh) == len(matched.unused) < len(matched.taken) / 2, "only what reads the label"


def test_another_family_is_refused(tmp_path: Path) -> None:
    for name in ("dcgan", "cgan"):
        (tmp_path / name).mkdir()
        package = packaged(trained(name), tmp_path / name)
        with pytest.raises(GanpipeError, match=rf"a package of {name}\): its weights fit nowhere in the netw"):
            found_in(str(package))


# --- a training on shards, in this process


def job_in(folder: Path, shards: Path, start: Path | None) -> TrainingJob:
    """A training of 30 steps with checkpoints after 20 and 30."""
    values = {"gan": "gan", "num_images": 480, "batch_size": 16, "log_every": 80, "checkpoint_every": 320, **FP32}
    return TrainingJob(
        name="gan",
        gan="gan",
        config=load("gan").Config.model_validate(SMALL["gan"]),
        settings=TrainSettings.model_validate(values | {"samples_at_updates": [7, 25]}),
        shards=ShardSet(str(shards), read_manifest(shards)),
        folder=str(folder),
        draw=SampleGrid(16, 0),
        start=None if start is None else found_in(str(start)).write_to(str(folder)),
    )


def made(job: TrainingJob) -> tuple[bytes, list[dict[str, float]], list[bytes]]:
    """The generator, the curves and the sample grids of a training that goes on to its end."""
    state = run_training(job)
    grids = [path.read_bytes() for path in sorted(Path(job.folder, "samples").glob("*.png"))]
    return safetensors.torch.save(state.generator_state()), state.curves.rows, grids


class Killed(Exception):
    """Stands for the end of a process, which leaves what is on the disk."""


@dataclasses.dataclass
class KilledAt:
    """Draws grids until that of a step."""

    step: int

    def __call__(self, gan: Gan, progress: Progress) -> bytes:
        if progress.step >= self.step:
            raise Killed
        return SampleGrid(16, 0)(gan, progress)


@pytest.mark.parametrize("killed_at", [7, 25], ids=["before the first checkpoint", "after it"])
def test_a_killed_training_makes_the_same_bytes(killed_at: int, shards: Path, tmp_path: Path) -> None:
    origin = packaged(trained("gan"), tmp_path)
    undisturbed = made(job_in(tmp_path / "undisturbed", shards, origin))
    assert made(job_in(tmp_path / "random", shards, None)) != undisturbed
    job = job_in(tmp_path / "killed", shards, origin)
    with pytest.raises(Killed):
        run_training(dataclasses.replace(job, draw=KilledAt(killed_at)))
    assert job.store.list() == ([] if killed_at == 7 else [320])
    if killed_at == 25:
        Path(job.folder, START_FILE).unlink()  # it is read only where there is no checkpoint
    assert made(job) == undisturbed


def test_a_file_that_is_gone_or_another_one_is_named(shards: Path, tmp_path: Path) -> None:
    package = packaged(trained("gan"), tmp_path)
    job = job_in(tmp_path / "training", shards, package)
    file = Path(job.folder, START_FILE)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(GanpipeError, match=f"{START_FILE}: its SHA-256 is .*; run the same command again, which"):
        run_training(job)
    assert job_in(tmp_path / "training", shards, package) == job
    assert file.read_bytes() == whole
    file.unlink()
    with pytest.raises(UnavailableError, match=f"{START_FILE}: cannot be read"):
        run_training(job)


# --- where the weights may lie


def test_packages_and_checkpoints_at_urls(tmp_path: Path) -> None:
    loop = trained("gan")
    package = packaged(loop, tmp_path)
    checkpoint = saved(loop, tmp_path / "work" / "checkpoints")
    memory = fsspec.filesystem("memory")
    memory.put(str(package), "/start/package", recursive=True)
    memory.put(str(checkpoint.parent), "/start/work/checkpoints", recursive=True)
    shutil.copytree(package, tmp_path / "model" / "artifacts")  # a folder as MLflow downloads it
    here = {found_in(str(place)).sha256 for place in (package, f"{package}/", tmp_path / "model")}
    assert here == {found_in("memory://start/package").sha256}
    places = (checkpoint, checkpoint.parent, checkpoint.parent.parent, checkpoint.as_uri())
    all_of_it = {found_in(str(place)).sha256 for place in places}
    assert all_of_it == {found_in("memory://start/work").sha256}
    assert found_in("memory://start/package").write_to("memory://job").url == f"memory://job/{START_FILE}"


def test_what_is_no_start_is_refused(tmp_path: Path) -> None:
    package = packaged(trained("gan"), tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.pt").write_bytes(b"no checkpoint")
    damaged, bare, poisoned = (shutil.copytree(package, tmp_path / name) for name in ("damaged", "bare", "poisoned"))
    weights = damaged / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (bare / "generator.safetensors").unlink()
    (poisoned / "model.json").write_text("[]")
    diverged = trained("gan")
    next(iter(diverged.state.gan.parameters())).data.fill_(float("nan"))
    for place, message in {
        "nothing/here": "train.start_from: got 'nothing/here'; there is no such file or folder; expected the",
        str(tmp_path / "empty"): "holds neither a package nor a checkpoint; expected",
        str(tmp_path / "file.pt"): "file.pt: cannot be read as a checkpoint",
        "nosuch://bucket/package": "got 'nosuch://bucket/package'; expected .*Protocol not known: nosuch",
        str(damaged): "damaged: damaged: generator.safetensors has another SHA-256 than its model.json says",
        str(bare): "bare: no package of ganpipe: it has no generator.safetensors",
        str(poisoned): "poisoned: no package of ganpipe: its model.json tells no GAN and no digest",
        str(saved(diverged, tmp_path / "diverged")): r"\(a checkpoint\): generator.* has values that are not finite",
    }.items():
        with pytest.raises(GanpipeError, match=message):
            found_in(place)


def test_a_checkpoint_whose_tensors_claim_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint-000000000001.pt"
    for state in ({"gan": {"generator.0.weight": torch.zeros(1).expand(2**40)}, "ema": {}}, {"gan": {"a.b": 3}}, {}):
        torch.save(state, file)
        with pytest.raises(GanpipeError, match="no checkpoint of a training: its part 'gan' holds"):
            found_in(str(file))


# --- registered versions


@pytest.fixture
def registry(tmp_path: Path, empty_registry: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Tracker:
    """A registry whose version 1 is the champion: the package `tmp_path / "package"`, of two classes at 16 pixels."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = tracker_in(tmp_path / "registry", empty_registry[0])
    client = tracker.client()
    shutil.copytree(packaged(trained("gan"), tmp_path), tmp_path / "model" / "artifacts")
    client.create_registered_model(NAME)
    client.create_model_version(NAME, str(tmp_path / "model"), tracker.run("train", "key").run_id)
    client.set_registered_model_alias(NAME, "champion", "1")
    return tracker


def test_a_version_by_number_and_no_alias(registry: Tracker, tmp_path: Path) -> None:
    def found(asked: int | str) -> FoundWeights:
        return found_in(asked, tracker=registry)

    starts = [found(asked).description for asked in (1, "1", f"models:/{NAME}/1")]
    digests = json.loads((tmp_path / "package" / "model.json").read_text())["digests"]
    assert starts == [{"from": f"models:/{NAME}/1", "sha256": digests["generator"]}] * 3
    for alias in ("@champion", f"models:/{NAME}@champion", f"models:/{NAME}/champion"):
        with pytest.raises(GanpipeError) as refused:
            found(alias)
        assert str(refused.value) == (
            f"train.start_from: got '{alias}', an alias; an alias may move to another version, and then the training "
            f"could not be repeated; now it points to version 1: write models:/{NAME}/1"
        )
    with pytest.raises(GanpipeError, match=f"{NAME} has no such alias now .*: write models:/{NAME}/NUMBER"):
        found("@best")
    with pytest.raises(GanpipeError, match=f"got 2; {NAME} has no version 2; `ganpipe models --model {NAME}` lists"):
        found(2)
    with pytest.raises(GanpipeError, match="has no registered model 'another'"):
        found("models:/another/1")


# --- what is known of it afterwards


def test_package_and_card_tell_where_the_weights_came_from(tmp_path: Path) -> None:
    start = {"from": "models:/digits/3", "sha256": "ab" * 32}
    shown = {"num_samples": 2, "seed": 0, "truncation": 1.0, "hash": "h"}
    real = {"extractor": "e", "weights_sha256": "w", "resize": 8, "num_real": 2, "split": "train", "data_digest": "d"}
    data = {"source": "s", "description": "d", "homepage": "", "licence": "l", "digest": "d", "classes": []}
    data |= {"num_train": 1, "num_validation": 1}
    package = packaged(trained("gan"), tmp_path, start=start)
    description = json.loads((package / "model.json").read_text())
    assert description["start"] == start
    text = card(description, data, {}, {}, {**shown, "reference": real})
    line = f"The training started from the weights of `models:/digits/3` (SHA-256 `{'ab' * 32}`)."
    assert line in text
    del description["start"]
    assert "started from" not in card(description, data, {}, {}, {**shown, "reference": real})
