"""The registered model: what MLflow runs. A copy of this file, as `model.py`, goes into every package.

It imports nothing of ganpipe, because it must work where ganpipe is not installed. The package contains the sources
that it needs under `code/`, and they are imported under a name made from their digest. Therefore an installed ganpipe
of another version does not interfere, and one process can load models of different versions. No pickle is read: weights
are safetensors, settings are JSON.

Input rows have the column `seed` (integer >= 0) and one column for each condition of the GAN, by its name: a label
(integer) or a number, each drawn from the seed if left out; an image (the content of a PNG file, also in base64);
frames (a PNG with one frame below another); a mask (a PNG, white where an image is missing, black elsewhere); a text.
For a GAN with several directions, a row has the image of exactly one of them. For a GAN with latents there are also
`truncation` (in (0, 1], default 1), and `to_seed` with `mix` (an integer >= 0 and a number in [0, 1]; both or neither):
the image between two latents, at mix 0 exactly that of `seed`, at mix 1 exactly that of `to_seed`.

Output images are uint8, (N, H, W, C); frames stand one below another, so that H is their number times their height.
Image i depends on row i alone (up to the rounding of matrix products of different sizes, at most one grey level).

Legend: N rows, T frames, C channels, H height, W width.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import importlib.abc
import importlib.util
import io
import json
import math
import pkgutil
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

MAX_SEED = 2**63 - 1
MAX_EXACT = 2**53
"""Up to here, every integer is exactly one float."""
ROWS_AT_ONCE = 256
"""Rows that are generated in one call of the network, so that a large request does not need much memory."""
MAX_DESCRIPTION_BYTES = 2**24
MAX_BYTES = 2**26
"""Bytes of images that one request may ask for, and of decoded images that it may contain. As JSON, images are about
four times as large."""
MAX_PNG_BYTES = 2**25
"""Bytes of an image that a row may hold."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_IN_BASE64 = b"iVBORw0KGgo"
_PNG_HEADER = struct.Struct(">8s4x4sIIB")
"""Signature, the first chunk's type, width, height, bits per channel."""
MAX_TEXT_CHARACTERS = 10_000
PICTURES = ("image", "frames", "mask")
"""Kinds of conditions that a row has as a PNG."""
FORMAT = 2
"""Format of model.json. In format 1, all images had one size, and labels were the only conditions."""


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_tree(directory: Path) -> str:
    """Hex SHA-256 of the names and contents of all files below `directory`, without compiled ones."""
    files = sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    lines = [f"{name} {sha256_of(directory / name)}\n" for name in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def invalid(message: str) -> MlflowException:
    """An error in the caller's input; a model server answers it with status 400."""
    return MlflowException.invalid_parameter_value(message)


def read_description(path: Path) -> dict[str, Any]:
    """The content of a package's model.json.

    Raises:
        MlflowException: the file is not a description of a model.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DESCRIPTION_BYTES + 1)
        found = json.loads(content) if len(content) <= MAX_DESCRIPTION_BYTES else None
    except (ValueError, RecursionError) as error:
        raise invalid(f"{path}: no JSON ({error})") from None
    if not isinstance(found, dict):
        raise invalid(
            f"{path}: no description of a model: expected a JSON object of at most {MAX_DESCRIPTION_BYTES} bytes"
        )
    parts = {"config": dict, "data": dict, "digests": dict, "gan": str, "progress": dict}
    for name, kind in parts.items():
        if not isinstance(found.get(name), kind):
            raise invalid(f"{path}: {name} is {repr(found.get(name))[:100]}, expected {kind.__name__}")
    # It becomes the name of a module in the packaged code, so it must not lead to another module.
    if not (found["gan"].isidentifier() and found["gan"].isascii()):
        raise invalid(f"{path}: gan is {found['gan'][:100]!r}, expected the name of a file in the package's gans/")
    if not {"code", "generator"} <= set(found["digests"]):
        raise invalid(f"{path}: digests lacks code or generator")
    return found


class _CodeFinder(importlib.abc.MetaPathFinder):
    """Finds one package by name in one directory; the import system then does the rest, locks included."""

    def __init__(self, name: str, directory: Path) -> None:
        self._name = name
        self._directory = directory

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self._directory / "__init__.py", submodule_search_locations=[str(self._directory)]
        )


def import_code(directory: Path, digest: str) -> ModuleType:
    """The package in `directory`, with all its modules, as `ganpipe_model_<digest>`."""
    name = f"ganpipe_model_{digest[:16]}"
    finder = _CodeFinder(name, directory)
    write_bytecode = sys.dont_write_bytecode
    sys.meta_path.append(finder)
    sys.dont_write_bytecode = True  # the directory may be the registry's own
    try:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages([str(directory)], f"{name}."):
            imported = importlib.import_module(
                module.name
            )  # all modules now, because the directory may be removed later
            if module.ispkg:  # equal code may have been loaded from another directory, which may be removed by now
                imported.__path__ = [str(directory.joinpath(*module.name.split(".")[1:]))]
    finally:
        sys.dont_write_bytecode = write_bytecode
        sys.meta_path.remove(finder)
    return package


def load_weights(gan: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load `weights`, which contain some of `gan`'s top-level modules completely; the other modules become unusable.

    Raises:
        ValueError: `weights` have a key that `gan` does not have, or lack a key that a loaded module needs, or a shape
            differs.
    """
    if not weights:
        raise ValueError("there are no weights")
    held = {key.split(".")[0] for key in weights}
    wanted = {key: value.shape for key, value in gan.state_dict().items() if key.split(".")[0] in held}
    if unknown := sorted(set(weights) - set(wanted)):
        raise ValueError(f"the weights have {unknown[0]!r} and {len(unknown) - 1} more that the networks do not have")
    if missing := sorted(set(wanted) - set(weights)):
        raise ValueError(f"the weights lack {missing[0]!r} and {len(missing) - 1} more that the networks need")
    for key, shape in wanted.items():
        if weights[key].shape != shape:
            raise ValueError(f"{key!r} has the shape {tuple(weights[key].shape)}, the networks need {tuple(shape)}")
    gan.load_state_dict(dict(weights), strict=False)
    for name, module in gan.named_children():
        if name not in held:
            # On the meta device they take no memory, and sampling from untrained weights is an error, not noise.
            module.to("meta")


def _gan_class(module: ModuleType, base: type) -> Any:
    """The GAN class that a module defines. `gans.load` is not used, because it lists the code's directory: if the same
    code was loaded before for another version, that directory may have been removed."""
    found = (item for item in vars(module).values() if isinstance(item, type) and issubclass(item, base))
    return next(item for item in found if item.__module__ == module.__name__)


class Generator:
    """A packaged generator in memory.

    Attributes:
        description: the content of the package's model.json.
        conditions: the columns that rows may have beside the seed, by name: the field's kind and sizes, as in
            model.json.
        choices: direction -> the condition that it takes, for a GAN with several directions; a row has exactly one of
            these conditions. Empty for a GAN with one direction.
        gan: the Gan of the packaged code, with the weights that sampling needs.
    """

    def __init__(self, files: Mapping[str, Path], device: str = "auto") -> None:
        """Read and verify a package.

        Args:
            files: where `description` (model.json), `generator` (safetensors) and `code` (directory) are.
            device: `cpu`, `cuda`, …; `auto` is a GPU if there is one.

        Raises:
            MlflowException: a file differs from the packaged one, or the weights do not fit the networks.
        """
        self.description = read_description(files["description"])
        digests = self.description["digests"]
        for what, found in (("generator", sha256_of(files["generator"])), ("code", digest_of_tree(files["code"]))):
            if found != digests[what]:
                raise invalid(
                    f"{files[what]}: sha256 {found}, but model.json says {digests[what]}: the model is damaged"
                )
        self._code = import_code(files["code"], digests["code"])
        base = importlib.import_module(f"{self._code.__name__}.gans.base")
        self._draws = importlib.import_module(f"{self._code.__name__}.gans.draws")
        self._batch: Callable[..., Any] = base.Batch
        gan_class = _gan_class(
            importlib.import_module(f"{self._code.__name__}.gans.{self.description['gan']}"), base.Gan
        )
        self.conditions = conditions_of(self.description, "label" in gan_class.fields)
        self.choices = directions_of(self.description)
        self.has_latents = self.description.get("has_latents", True)
        data = self.description["data"]
        if self.description["format"] == 1:
            self.data = base.DataSpec(**{**data, "fields": tuple(data["fields"])})
        else:
            self.data = base.DataSpec.from_json(data)
        self.progress = base.Progress(**self.description["progress"])
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        with torch.random.fork_rng():  # drawing initial weights must not change the process's random state
            self.gan = gan_class(gan_class.Config.model_validate(self.description["config"]), self.data)
        try:
            load_weights(self.gan, load_file(files["generator"]))
        except (ValueError, SafetensorError) as error:
            raise invalid(f"{files['generator']}: {error}") from error
        for module in self.gan.children():
            if not any(parameter.is_meta for parameter in module.parameters()):
                module.to(self.device)
        self.gan.eval().requires_grad_(False)

    @property
    def label(self) -> str | None:
        """Name of the first condition that is a class; None if the GAN takes no class."""
        return next((name for name, spec in self.conditions.items() if spec["kind"] == "label"), None)

    @property
    def num_classes(self) -> int:
        """Number of classes of the condition `label`; 0 if there is none."""
        return int(self.conditions[self.label]["num_classes"]) if self.label is not None else 0

    def drawn(self, name: str, seeds: Sequence[int]) -> list[Any]:
        """The values of the condition `name` for rows that have none, one per seed. They are drawn independently of the
        latents, so that passing these values explicitly gives the same images."""
        numbers = [self._draws.derive_seed(name, seed) for seed in seeds]
        if self.description["format"] == 1:
            return [number % self.num_classes for number in numbers]
        rows = self.gan.conditions[name].drawn(self._draws.SeededDraws(numbers))
        if rows is None:
            raise invalid(f"the column {name!r} is missing, and the GAN {self.description['gan']!r} needs it")
        return list(rows.tolist())

    def images(
        self, seeds: Sequence[int], given: Mapping[str, Sequence[Any]] | None = None, truncation: float = 1.0
    ) -> torch.Tensor:
        """One image per seed, float in [-1, 1], (N, C, H, W), on the CPU; frames one below another.

        Args:
            given: values of conditions, one per seed: numbers, or arrays in the shape of the field's rows.
            truncation: in (0, 1]; 1 for none.
        """
        return self._sample(lambda rows: self._draws.SeededDraws(seeds[rows]), seeds, given or {}, truncation)

    def between(
        self,
        seed: int,
        to_seed: int,
        mixes: Sequence[float],
        given: Mapping[str, Sequence[Any]] | None = None,
        truncation: float = 1.0,
    ) -> torch.Tensor:
        """One image per mix, between the latents of two seeds; otherwise as `images`.

        Conditions that are not given are those of the nearer seed, so that the images at mix 0 and 1 are exactly those
        of the two seeds.

        Args:
            mixes: in [0, 1]: 0 for `seed`, 1 for `to_seed`.
        """
        nearer = [seed if mix < 0.5 else to_seed for mix in mixes]
        return self._sample(
            lambda rows: self._draws.InterpolatedDraws(seed, to_seed, mixes[rows]), nearer, given or {}, truncation
        )

    @torch.inference_mode()
    def _sample(
        self,
        draws: Callable[[slice], Any],
        seeds: Sequence[int],
        given: Mapping[str, Sequence[Any]],
        truncation: float,
    ) -> torch.Tensor:
        chosen = [name for name in self.choices.values() if name in given]
        others = set(self.choices.values()) - set(chosen) if chosen else set()
        values = {
            name: given[name] if name in given else self.drawn(name, seeds)
            for name in self.conditions
            if name not in others
        }
        parts: list[torch.Tensor] = []
        for start in range(0, len(seeds), ROWS_AT_ONCE):
            rows = slice(start, min(start + ROWS_AT_ONCE, len(seeds)))
            fields = {name: self._tensor(found[rows]) for name, found in values.items()}
            conditions = self._batch(rows.stop - start, draws(rows), fields, device=self.device, truncation=truncation)
            parts.append(_stacked(self.gan.sample(conditions, self.progress).float().cpu()))
        return torch.cat(parts) if parts else torch.empty(0, *self.image_shape)

    def _tensor(self, values: Sequence[Any]) -> torch.Tensor:
        rows = torch.from_numpy(np.asarray(values))
        if rows.dtype == torch.uint8:
            return rows.to(self.device, torch.float32).div_(127.5).sub_(1)
        return rows.to(self.device, torch.float32 if rows.dtype.is_floating_point else torch.int64)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the output images."""
        output = output_of(self.description)
        return output["channels"], *file_size_of(output)

    def rows(self, frame: pd.DataFrame) -> np.ndarray:
        """One image per row of `frame`, whose columns are described at the top of this file. uint8, (N, H, W, C).

        Raises:
            MlflowException: the message names the first row that is wrong, and what was expected.
        """
        seeds = _integers(frame, "seed", 0, MAX_SEED)
        if seeds is None:
            if self.has_latents:
                raise invalid(
                    f"the column 'seed' is missing; there are {', '.join(map(repr, frame.columns)) or 'none'}"
                )
            seeds = [0] * len(frame)
        known = {"seed", *self.conditions, *(("truncation", "to_seed", "mix") if self.has_latents else ())}
        if unknown := [str(name) for name in frame.columns if name not in known]:
            raise invalid(f"the GAN {self.description['gan']!r} takes no {unknown[0]}; leave that column out")
        given = {
            name: values
            for name, spec in self.conditions.items()
            if (values := self._column(frame, name, spec)) is not None
        }
        truncations = _numbers(frame, "truncation", _is_truncation, "a number above 0 and at most 1")
        ends, mixes = _ways(frame, seeds)
        channels, height, width = self.image_shape
        images_NHWC = np.empty((len(seeds), height, width, channels), np.uint8)
        others = self._others(given, len(seeds))
        # A call of `sample` takes one truncation and direction, and a call of `between` takes one pair of seeds.
        calls: dict[tuple[float, tuple[int, int] | None, frozenset[str]], list[int]] = {}
        for row, pair in enumerate(ends):
            truncation = 1.0 if truncations is None else truncations[row]
            calls.setdefault((truncation, pair if 0 < mixes[row] < 1 else None, others[row]), []).append(row)
        for (truncation, way, left_out), rows in calls.items():
            chosen = {name: [values[row] for row in rows] for name, values in given.items() if name not in left_out}
            if way is None:
                found = self.images([ends[row][int(mixes[row])] for row in rows], chosen, truncation)
            else:
                found = self.between(*way, [mixes[row] for row in rows], chosen, truncation)
            images_NHWC[rows] = to_uint8(found)
        return images_NHWC

    def _others(self, given: Mapping[str, Sequence[Any]], num_rows: int) -> list[frozenset[str]]:
        """For each row, the conditions that it does not have because they belong to other directions."""
        choices = frozenset(self.choices.values())
        found = []
        for row in range(num_rows):
            held = sorted(name for name in choices if name in given and given[name][row] is not None)
            if choices and len(held) != 1:
                raise invalid(
                    f"row {row}: has {' and '.join(held) or 'no image'}, expected exactly one of the columns "
                    f"{', '.join(self.choices.values())}: one for each direction"
                )
            found.append(choices.difference(held))
        return found

    def _column(self, frame: pd.DataFrame, name: str, spec: Mapping[str, Any]) -> list[Any] | None:
        """The values of a condition in the form that `images` takes; None if the column is missing."""
        if name not in frame.columns:
            return None
        if spec["kind"] == "label":
            return _integers(frame, name, 0, spec["num_classes"] - 1)
        if spec["kind"] == "number":
            low, high = spec["low"], spec["high"]
            return _numbers(frame, name, lambda value: low <= value <= high, f"a number from {low:g} to {high:g}")
        values = [_plain(value) for value in frame[name]]
        if spec["kind"] in PICTURES:
            may_lack = name in self.choices.values()
            return [
                None if may_lack and _is_empty(value) else _picture(name, row, value, spec)
                for row, value in enumerate(values)
            ]
        return [self._tokens(name, row, value) for row, value in enumerate(values)]

    def _tokens(self, name: str, row: int, value: Any) -> Any:
        if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS:
            raise _fault(name, row, value, f"a text of at most {MAX_TEXT_CHARACTERS} characters")
        try:
            return self.gan.conditions[name].parse(value, self.description["names"][name])
        except ValueError as error:
            raise invalid(f"row {row}: {name} {error}") from None


def conditions_of(description: Mapping[str, Any], takes_label: bool = False) -> dict[str, dict[str, Any]]:
    """The conditions of a package's GAN, by name: each field's kind and sizes.

    Args:
        description: the content of its model.json.
        takes_label: for a package of format 1, whether its code or its columns show that it takes a label. The
            model.json of the earliest packages does not say so.
    """
    if description["format"] != 1:
        return dict(description["conditions"])
    data, protocol = description["data"], description.get("protocol", {})
    if not takes_label and protocol.get("labels") != "as_reference" and "classes" not in description:
        return {}
    return {"label": {"kind": "label", "num_classes": data["num_classes"]}}


def directions_of(description: Mapping[str, Any]) -> dict[str, str]:
    """The directions of a package's GAN in their order: name -> the condition that it takes. Empty for a GAN with one
    direction."""
    return {direction["name"]: direction["takes"] for direction in description.get("directions", ())}


def output_of(description: Mapping[str, Any]) -> dict[str, Any]:
    """The images that a package makes: kind, size (pixels) and channels."""
    if description["format"] != 1:
        return dict(description["output"])
    data = description["data"]
    return {"kind": "image", "size": data["image_size"], "channels": data["channels"]}


def file_size_of(spec: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) in pixels of an image, or of frames one below another."""
    return spec.get("num_frames", 1) * spec["size"], spec["size"]


def _stacked(images: torch.Tensor) -> torch.Tensor:
    """(N, T, C, H, W) -> (N, C, T H, W), the frames one below another; images as they are."""
    return images.transpose(1, 2).flatten(2, 3) if images.dim() == 5 else images


def _picture(name: str, row: int, value: Any, spec: Mapping[str, Any]) -> np.ndarray:
    """The image of a row, uint8, (C, H, W), or its frames, (T, C, H, W).

    Its pixels must be exactly what the network takes. A palette, grey values for an RGB network and full opacity are
    other ways to write the same pixels, so they are accepted. More than 8 bits, transparency, or colours for a network
    that takes grey are refused, because something would be lost; several frames are refused, because it is not clear
    which one is meant.
    """
    (high, wide), channels = file_size_of(spec), spec["channels"]
    frames = f" ({spec['num_frames']} frames, one below another)" if spec["kind"] == "frames" else ""
    expected = f"a PNG of {wide} x {high} pixels{frames}, 8 bits, {'grey' if channels == 1 else 'RGB'}"
    if isinstance(value, bytes) and value.startswith(
        _PNG_IN_BASE64
    ):  # what MLflow's server passes for a request with "inputs"
        value = value.decode("ascii", "replace")
    if isinstance(value, str) and len(value) <= 2 * MAX_PNG_BYTES:
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise _fault(name, row, value, f"{expected}, as bytes or in base64") from None
    if not isinstance(value, bytes | str):
        raise _fault(name, row, value, f"{expected}, as bytes or in base64")
    if len(value) > MAX_PNG_BYTES:
        raise invalid(f"row {row}: {name} has more than {MAX_PNG_BYTES:,} bytes, expected {expected}")
    assert isinstance(value, bytes)
    found = _PNG_HEADER.unpack_from(value) if len(value) >= _PNG_HEADER.size else ()
    if found[:2] != (_PNG_SIGNATURE, b"IHDR"):
        raise invalid(f"row {row}: {name} is no PNG, expected {expected}")
    width, height, depth = found[2:]
    if (width, height) != (wide, high) or depth > 8:  # known from the header: nothing large is decoded
        raise invalid(f"row {row}: {name} has {width} x {height} pixels of {depth} bits, expected {expected}")
    try:
        with Image.open(io.BytesIO(value), formats=("PNG",)) as image:
            pixels_HWC, lost = _pixels_HWC(image, (wide, high), channels)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, … on bad files
        raise invalid(f"row {row}: {name} is no sound PNG ({str(error)[:100]}), expected {expected}") from None
    if lost:
        raise invalid(f"row {row}: {name} {lost}, expected {expected}")
    if spec["kind"] == "frames":
        return pixels_HWC.reshape(-1, wide, wide, channels).transpose(0, 3, 1, 2)
    if spec["kind"] == "mask":
        covers = (pixels_HWC == 255).mean()
        if not np.isin(pixels_HWC, (0, 255)).all() or not 0 < covers < 1:
            what = {0.0: "covers nothing", 1.0: "covers all of the image"}.get(float(covers), "has grey pixels")
            raise invalid(f"row {row}: {name} {what}, expected white where the image is missing, and black elsewhere")
    return pixels_HWC.transpose(2, 0, 1)


def _pixels_HWC(image: Image.Image, size: tuple[int, int], channels: int) -> tuple[np.ndarray, str]:
    """The pixels, (H, W, C), and what would be lost from the file; the latter is empty if nothing is."""
    nothing = np.empty((0, 0, channels), np.uint8)
    if image.size != size:  # a file with two headers
        return nothing, f"has {image.width} x {image.height} pixels"
    if getattr(image, "is_animated", False):
        return nothing, "has several frames"
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[:, :, 3].min() < 255:
        return nothing, "has transparent pixels"
    pixels_HWC = np.asarray(image.convert("RGB"))
    if channels == 1 and (pixels_HWC != pixels_HWC[:, :, :1]).any():
        return nothing, "has colours"
    return pixels_HWC[:, :, :channels], ""


def to_uint8(images_NCHW: torch.Tensor) -> np.ndarray:
    """[-1, 1] floats (N, C, H, W) -> [0, 255] bytes (N, H, W, C), rounded to the nearest, ties to even."""
    scaled = (images_NCHW.clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _fault(column: str, row: int, value: Any, expected: str) -> MlflowException:
    return invalid(f"row {row}: {column} is {repr(value)[:100]}, expected {expected}")


def _is_empty(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _integers(frame: pd.DataFrame, column: str, low: int, high: int) -> list[int] | None:
    if column not in frame.columns:
        return None
    values = [_plain(value) for value in frame[column]]
    for row, value in enumerate(values):
        # A column with an empty or fractional value holds floats, and above 2**53 not every integer is a float.
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer() and value <= MAX_EXACT)
        if isinstance(value, bool) or not whole or not low <= value <= high:
            raise _fault(column, row, value, f"an integer from {low} to {high}")
    return [int(value) for value in values]


def _is_truncation(value: float) -> bool:
    return 0 < value <= 1


def _is_mix(value: float) -> bool:
    return 0 <= value <= 1


def _numbers(frame: pd.DataFrame, column: str, allowed: Callable[[float], bool], expected: str) -> list[float] | None:
    if column not in frame.columns:
        return None
    values = [_plain(value) for value in frame[column]]
    for row, value in enumerate(values):
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not allowed(value):
            raise _fault(column, row, value, expected)
    return [float(value) for value in values]


def _ways(frame: pd.DataFrame, seeds: list[int]) -> tuple[list[tuple[int, int]], list[float]]:
    """For each row, its two seeds, and its mix: how far its image lies between them, in [0, 1]."""
    to_seeds = _integers(frame, "to_seed", 0, MAX_SEED)
    mixes = _numbers(frame, "mix", _is_mix, "a number from 0 to 1")
    if to_seeds is None and mixes is None:
        return [(seed, seed) for seed in seeds], [0.0] * len(seeds)
    if to_seeds is None or mixes is None:
        there, missing = ("mix", "to_seed") if to_seeds is None else ("to_seed", "mix")
        raise invalid(f"the column {there!r} needs the column {missing!r}; give both or neither")
    return list(zip(seeds, to_seeds, strict=True)), mixes


def package_files(directory: Path) -> dict[str, Path]:
    """The files of a package by their names among MLflow's artifacts."""
    return {
        "description": directory / "model.json",
        "generator": directory / "generator.safetensors",
        "code": directory / "code",
    }


class ServedGan(PythonModel):
    """A `Generator` as MLflow runs it. `model_config={"device": "cuda"}` chooses the device."""

    generator: Generator | None = None

    def load_context(self, context: Any) -> None:
        files = {name: Path(path) for name, path in context.artifacts.items()}
        self.generator = Generator(files, (context.model_config or {}).get("device", "auto"))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:
        """Images of the rows in `model_input`; see the top of this file."""
        if self.generator is None:
            raise invalid("the model is not loaded yet")
        if not isinstance(model_input, pd.DataFrame):
            model_input = pd.DataFrame(_columns(model_input))
        pictures = [spec for spec in self.generator.conditions.values() if spec["kind"] in PICTURES]
        brought = sum(spec["channels"] * math.prod(file_size_of(spec)) for spec in pictures)
        most = max(1, MAX_BYTES // max(brought, math.prod(self.generator.image_shape)))
        if not 1 <= len(model_input) <= most:
            raise invalid(f"there are {len(model_input)} rows; expected 1 to {most}: ask for more in several requests")
        return self.generator.rows(model_input)


def _columns(model_input: Any) -> dict[str, Iterable[Any]] | list[Any]:
    return (
        {key: np.atleast_1d(value) for key, value in model_input.items()}
        if isinstance(model_input, Mapping)
        else model_input
    )


mlflow.models.set_model(ServedGan())
