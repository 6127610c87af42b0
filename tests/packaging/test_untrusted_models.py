"""Checkpoints and packaged models that somebody has made up or spoilt: refused in words, and nothing runs."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from registry_parts import build, make_gan, write_trained
from training_parts import make_loop

from ganpipe.errors import GanpipeError
from ganpipe.packaging.package import PackageFacts, build_package, digest_of_package
from ganpipe.registry import open_model
from ganpipe.training.state import CheckpointStore, TrainingState

State = dict[str, Any]


class Touch:
    """What unpickles as a call of os.system."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._path}",)


@pytest.fixture(scope="module")
def training() -> TrainingState:
    """After two steps, so that optimisers have their moments."""
    loop = make_loop("gan")
    loop.step()
    loop.step()
    return loop.state


@pytest.fixture
def store(tmp_path: Path, training: TrainingState) -> CheckpointStore:
    """With one checkpoint of that training."""
    store = CheckpointStore(str(tmp_path / "store"), keep=2)
    store.save(training)
    return store


def file_of(store: CheckpointStore) -> Path:
    return Path(store._path(store.list()[-1]))


def load(store: CheckpointStore, into: TrainingState) -> None:
    into.load_state_dict(store.load(store.list()[-1]))


def test_a_sound_checkpoint_is_taken(store: CheckpointStore) -> None:
    fresh = make_loop("gan").state
    load(store, fresh)
    assert fresh.progress.step == 2


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_in_a_checkpoint_does_not_run(store: CheckpointStore, tmp_path: Path, protocol: int) -> None:
    torch.save({"gan": Touch(tmp_path / "touched")}, file_of(store), pickle_protocol=protocol)
    with pytest.raises(GanpipeError, match="cannot be read as a checkpoint"):
        load(store, make_loop("gan").state)
    assert not (tmp_path / "touched").exists()


def test_a_packed_checkpoint_is_not_unpacked(store: CheckpointStore) -> None:
    """torch itself would: a file of some kilobytes becomes any size."""
    path = file_of(store)
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry.filename))
    path.write_bytes(packed.getvalue())
    with pytest.raises(GanpipeError, match="is compressed"):
        load(store, make_loop("gan").state)


def some_tensor(state: State, part: str) -> str:
    return next(name for name, tensor in state[part].items() if tensor.dim() == 2)


def moments(state: State) -> State:
    return state["optimizers"]["generator"]["state"][0]


def set_at(part: str, value: Callable[[torch.Tensor], Any]) -> Callable[[State], None]:
    def change(state: State) -> None:
        name = some_tensor(state, part)
        state[part][name] = value(state[part][name])

    return change


SPOILT: dict[str, tuple[Callable[[State], None], str]] = {
    "a part less": (lambda state: state.pop("ema"), "it has the parts"),
    "a part more": (lambda state: state.update(more=1), "it has the parts"),
    "a tensor less": (lambda state: state["gan"].pop(some_tensor(state, "gan")), r"gan lacks \w+"),
    "a tensor more": (lambda state: state["gan"].update({"generator.x": torch.zeros(1)}), "gan has 'generator.x'"),
    "another shape": (set_at("gan", lambda tensor: tensor[:1]), r"has the shape \(1, \d+\), expected"),
    "a shape from nothing": (
        set_at("ema", lambda tensor: torch.zeros(1, dtype=tensor.dtype).expand(10**9, 10**6)),
        r"has the shape \(1000000000, 1000000\), expected",
    ),
    "another type": (set_at("gan", lambda tensor: tensor.to(torch.complex64)), r"is of torch\.complex64"),
    "no tensor": (set_at("gan", lambda tensor: "x" * 10**6), "not a tensor"),
    "sparse": (set_at("gan", lambda tensor: tensor.to_sparse()), "is not dense"),
    "a huge moment": (
        lambda state: moments(state).update(exp_avg=torch.zeros(1, dtype=torch.float64).expand(10**15)),
        r"exp_avg has the shape \(1000000000000000,\)",
    ),
    "a moment more": (lambda state: moments(state).update(more=torch.zeros(1)), "has 'more'"),
    "a parameter that is none": (
        lambda state: state["optimizers"]["generator"]["state"].update({10**9: {}}),
        "has a parameter 1000000000",
    ),
    "a rate that is none": (
        lambda state: state["optimizers"]["generator"]["param_groups"][0].update(lr="1e-3"),
        "lr is '1e-3'",
    ),
    "a player less": (lambda state: state["optimizers"].pop("generator"), "optimizers lacks generator"),
    "no number": (lambda state: state.update(images_seen="32"), "images_seen is '32'"),
    "below zero": (lambda state: state.update(step=-1), "step is -1"),
    "without end": (lambda state: state.update(step=2**80), "step is 1208925819614629174706176"),
    "curves": (lambda state: state["curves"].update(rows=[{"a": float("nan")}]), "curves: 'a' is nan"),
    "sums": (lambda state: state["curves"].update(sums={"a": torch.zeros(9)}, counts={"a": 1}), "curves.sums.'a'"),
    "scores": (lambda state: state.update(scores={"x": 1.0}), "scores has 'x'"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_checkpoint_of_something_else_is_not_taken(
    store: CheckpointStore, training: TrainingState, name: str
) -> None:
    change, message = SPOILT[name]
    state = copy.deepcopy(training.state_dict())
    change(state)
    torch.save(state, file_of(store))
    fresh = make_loop("gan").state
    before = {name: tensor.clone() for name, tensor in fresh.gan.state_dict().items()}
    with pytest.raises(GanpipeError, match=message) as caught:
        load(store, fresh)
    assert len(str(caught.value)) < 1_000
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.gan.state_dict().items())
    assert fresh.progress.images_seen == 0


def spoilt(draw: st.DrawFn, content: bytes) -> bytes:
    """Bits flipped and parts cut, most of them where names and sizes stand: at both ends of the file."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        near = draw(st.integers(0, min(2000, len(changed) - 1)))
        place = draw(st.sampled_from([near, len(changed) - 1 - near, draw(st.integers(0, len(changed) - 1))]))
        if draw(st.integers(0, 5)):
            changed[place] ^= 1 << draw(st.integers(0, 7))
        else:
            del changed[place : place + draw(st.integers(1, 5000))]
        if not changed:
            break
    return bytes(changed)


def fuzz(examples: int, derandomize: bool) -> Any:
    return settings(
        max_examples=examples,
        derandomize=derandomize,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def try_checkpoints(store: CheckpointStore, examples: int, derandomize: bool) -> None:
    path = file_of(store)
    sound, fresh = path.read_bytes(), make_loop("gan").state

    @fuzz(examples, derandomize)
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        path.write_bytes(data.draw(st.composite(lambda draw: spoilt(draw, sound))()))
        with contextlib.suppress(GanpipeError):  # anything else is a fault
            load(store, fresh)

    attempt()


def test_spoilt_checkpoints(store: CheckpointStore) -> None:
    try_checkpoints(store, 40, derandomize=True)


@pytest.mark.slow
def test_spoilt_checkpoints_for_longer(store: CheckpointStore) -> None:
    try_checkpoints(store, 1500, derandomize=False)


# --- packaged models


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def package(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "package"))


def describe(package: Path, **changes: Any) -> None:
    """Other values in model.json, the digests of what lies there among them."""
    path = package / "model.json"
    values = json.loads(path.read_text())
    values["digests"]["generator"] = hashlib.sha256((package / "generator.safetensors").read_bytes()).hexdigest()
    path.write_text(json.dumps({**values, **changes}))


def test_a_sound_package_opens(package: Path) -> None:
    describe(package)
    assert open_model.load("it", package).images([1]).shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gan": "../../x"}, "gan is '../../x', expected the name of a file"),
        ({"gan": "base.os"}, r"gan is 'base\.os'"),
        ({"gan": "nothing"}, "nothing"),
        ({"gan": 7}, "gan is 7, expected str"),
        ({"config": []}, r"config is \[\], expected dict"),
        ({"config": {"generator_width": "x"}}, "generator_width"),
        ({"config": {"generator_width": 10**12}}, "memory|overflow|alloc|range|lacks|shape"),
        ({"data": {"image_size": 16}}, "TypeError|KeyError|fields"),
        ({"progress": {"x": 1}}, "TypeError"),
        ({"digests": {}}, "digests lacks code or generator"),
        ({"digests": {"code": "0", "generator": "0"}}, "the model is damaged"),
    ],
    ids=str,
)
def test_a_description_that_lies(package: Path, changes: dict[str, Any], message: str) -> None:
    describe(package, **changes)
    with pytest.raises(GanpipeError, match=rf"^it: (?s:.)*({message})"):
        open_model.load("it", package)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON"),
        (b"[" * 10_000, "no JSON"),
        (b"[1]", "expected a JSON object"),
        (b"\xff\xfe", "no JSON"),
        (b'{"a": "' + b"x" * 2**24 + b'"}', "expected a JSON object of at most 16777216 bytes"),
    ],
    ids=["empty", "deep", "list", "bytes", "large"],
)
def test_a_description_that_is_none(package: Path, content: bytes, message: str) -> None:
    (package / "model.json").write_bytes(content)
    with pytest.raises(GanpipeError, match=message):
        open_model.load("it", package)


def header(value: Any, data: bytes = b"") -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04cos\nsystem\n.",
        struct.pack("<Q", 2**63),
        header(b"{" * 1000),
        header({"x": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 4]}}, bytes(4)),
        header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, bytes(4)),
        header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        header({}),
    ],
    ids=["empty", "pickle", "length", "braces", "shape", "offset", "another", "nothing"],
)
def test_weights_that_are_none(package: Path, content: bytes) -> None:
    (package / "generator.safetensors").write_bytes(content)
    describe(package)
    with pytest.raises(GanpipeError, match="^it: "):
        open_model.load("it", package)


def test_a_training_that_names_a_file_elsewhere_is_not_packaged(tmp_path: Path) -> None:
    """A package takes the sources that the name leads to, and runs them."""
    trained = write_trained(make_gan("gan"), "gan", tmp_path / "trained")
    values = json.loads((trained / "model.json").read_text())
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')\n")
    (trained / "model.json").write_text(json.dumps({**values, "gan": f"../../../..{tmp_path / 'evil'}"}))
    with pytest.raises(GanpipeError, match="there is no GAN named"):
        build_package(trained, tmp_path / "package", PackageFacts({}, {}, "", "", tmp_path / "none"))
    assert not (tmp_path / "package").exists()
    assert not (tmp_path / "touched").exists()


def test_spoilt_packages(package: Path) -> None:
    weights, described = (package / "generator.safetensors").read_bytes(), (package / "model.json").read_bytes()
    assert digest_of_package(package)

    @fuzz(30, derandomize=True)
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        (package / "generator.safetensors").write_bytes(weights)
        (package / "model.json").write_bytes(described)
        name = data.draw(st.sampled_from(["generator.safetensors", "model.json"]))
        sound = (package / name).read_bytes()
        (package / name).write_bytes(data.draw(st.composite(lambda draw: spoilt(draw, sound))()))
        if name == "generator.safetensors":
            describe(package)  # whoever spoils the one can write the other
        with contextlib.suppress(GanpipeError):  # anything else is a fault
            open_model.load("it", package)

    attempt()
