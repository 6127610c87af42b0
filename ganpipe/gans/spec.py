"""What a GAN may know of a dataset, and where the fields of its batches come from.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeGuard

import numpy as np
import torch
from torch import Tensor

from ..errors import GanpipeError
from ..fields import Fields, FieldSpec, Frames, Label, Picture, fields_of_format_1, main_label, parse_fields
from .draws import Draws, SeededDraws, derive_seed


@dataclass(frozen=True)
class DataSpec:
    """What a GAN may know of the dataset before it sees a batch.

    Attributes:
        fields: what a sample has, by name.
        main: the field with the images (or frames) that generators make unless they say otherwise.
    """

    fields: Fields
    main: str = Picture.main_name

    @classmethod
    def images(cls, size: int, channels: int, num_classes: int = 0) -> DataSpec:
        """The common case: one image, and a label where there are classes."""
        labels = {Label.main_name: Label(num_classes=num_classes)} if num_classes else {}
        return cls({Picture.main_name: Picture(size=size, channels=channels), **labels})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DataSpec:
        """From `data` in a model.json, of this format or of format 1 (image_size, channels, names, num_classes).

        Raises:
            ValueError, KeyError, TypeError: it is not what a model.json has.
        """
        if "image_size" in values:
            kinds = fields_of_format_1(**values)
            return cls(parse_fields(kinds), next(name for name, spec in kinds.items() if spec["kind"] == "image"))
        return cls(parse_fields(values["fields"]), values["main"])

    def to_json(self) -> dict[str, Any]:
        """Plain values for a model.json."""
        return {"fields": {name: spec.model_dump(mode="json") for name, spec in self.fields.items()}, "main": self.main}

    @property
    def image(self) -> Picture | Frames:
        """What the main field holds."""
        spec = self.fields[self.main]
        assert isinstance(spec, Picture | Frames)
        return spec

    @property
    def image_size(self) -> int:
        """H and W of the main field's images or frames."""
        return self.image.size

    @property
    def channels(self) -> int:
        """C of the main field."""
        return self.image.channels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the main field."""
        return self.channels, self.image_size, self.image_size

    @property
    def label(self) -> str | None:
        """The field with the classes: of several fields with labels `label`, else the first by name."""
        return main_label(name for name, spec in self.fields.items() if isinstance(spec, Label))

    @property
    def num_classes(self) -> int:
        """The number of its classes; 0 without labels."""
        spec = self.fields[self.label] if self.label is not None else None
        return spec.num_classes if isinstance(spec, Label) else 0


@dataclass(frozen=True)
class Stored:
    """A field of a batch that the dataset has under the name `field`."""

    field: str
    kind: ClassVar[str] = "stored"
    """A GAN's packaged code has a class of its own for each kind: outside of `gans/`, this word tells them apart."""


@dataclass(frozen=True)
class View:
    """The images of one domain: of the samples whose class in `label` is `number`, in an order of their own.

    Views of a batch are not paired: the i-th image of one has nothing to do with the i-th of another.
    """

    field: str
    label: str
    number: int
    kind: ClassVar[str] = "view"


@dataclass(frozen=True)
class Derived:
    """Computed from the dataset's field `field` where a batch is made, and stored nowhere.

    Attributes:
        compute: (the field's tensors as in a batch, draws that depend on seed and sample alone) -> tensors of `spec`.
        spec: what comes out.
    """

    field: str
    compute: Callable[[Tensor, Draws], Tensor]
    spec: FieldSpec
    kind: ClassVar[str] = "derived"


@dataclass(frozen=True)
class Shuffled:
    """The dataset's field `field` of other samples, in an order of its own: what does not belong to the rest of a
    batch, such as the words of another image. No sample that is generated is given such a field."""

    field: str
    kind: ClassVar[str] = "shuffled"


Origin = Stored | View | Derived | Shuffled


def is_view(origin: Origin) -> TypeGuard[View]:
    """Whether it is a view, also of a GAN whose code came from a package."""
    return origin.kind == View.kind


def _is_derived(origin: Origin) -> TypeGuard[Derived]:
    return origin.kind == Derived.kind


def kind_of(origin: Origin, data: DataSpec) -> FieldSpec:
    """The kind of the field that comes from `origin`."""
    return origin.spec if _is_derived(origin) else data.fields[origin.field]


def to_tensor(rows: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Rows of a field as networks take them: pictures (uint8) in [-1, 1] and `dtype`, numbers in `dtype`, others as
    they are."""
    moved = rows.to(device, non_blocking=True)
    if moved.dtype == torch.uint8:
        return moved.to(dtype).div_(127.5).sub_(1)
    return moved.to(dtype) if moved.dtype.is_floating_point else moved


MIN_SIZE, MAX_SIZE = 16, 256
"""Sides of the images that convolutional GANs here are made for."""


def require_power_of_two(image_size: int, who: str) -> None:
    """Raise GanpipeError unless `image_size` is a power of two in [16, 256]; the message names `who` needs that."""
    if not (MIN_SIZE <= image_size <= MAX_SIZE and image_size & (image_size - 1) == 0):
        raise GanpipeError(
            f"data.image_size: got {image_size}; {who} needs a power of two from {MIN_SIZE} to {MAX_SIZE}"
        )


class Dataset(Protocol):
    """A split of a dataset: rows by index."""

    def __len__(self) -> int: ...

    def rows(self, indices: np.ndarray, fields: Sequence[str] | None = None) -> dict[str, np.ndarray]: ...


Order = Callable[[int, int], np.ndarray]
"""(start, stop) -> which samples stand at these positions of an endless stream."""


Mirror = Callable[[int, int], np.ndarray]
"""(start, stop) -> whether the sample at each of these positions is mirrored, bool."""


class FieldReader:
    """Reads fields of a GAN from a dataset, wherever they come from."""

    def __init__(
        self,
        origins: Mapping[str, Origin],
        dataset: Dataset,
        order: Callable[[Sequence[int] | np.ndarray, str], Order],
        seed: int,
        mirror: Mirror | None = None,
    ) -> None:
        """Args:
        origins: of the fields that are read.
        order: (indices of the samples, group) -> the order of these samples, which are numbered from 0. The group is ''
            for samples as they are, else names the class of a view, or says that the samples are shuffled.
        seed: of the draws for derived fields.
        mirror: which samples' pictures are turned left to right, before other fields are derived from them; by default
            none.

        Raises:
        GanpipeError: a view has no image in this split.
        """
        self._dataset, self._seed, self._mirror = dataset, seed, mirror
        self._groups: dict[str, tuple[np.ndarray | None, Order]] = {}
        self._origins: dict[str, dict[str, Origin]] = {}
        for name, origin in origins.items():
            group = f"{origin.label} {origin.number}" if is_view(origin) else ""
            group = Shuffled.kind if origin.kind == Shuffled.kind else group
            self._origins.setdefault(group, {})[name] = origin
            if group not in self._groups:
                members = _members(dataset, origin) if is_view(origin) else None
                self._groups[group] = members, order(range(len(dataset)) if members is None else members, group)

    def read(self, start: int, stop: int, place: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """The fields at positions [start, stop) of the stream.

        Args:
            place: brings rows of a field to where the networks are, in the type in which they compute.
        """
        found: dict[str, Tensor] = {}
        for group, (members, order) in self._groups.items():
            origins, indices = self._origins[group], order(start, stop)
            indices = indices if members is None else members[indices]
            rows = self._dataset.rows(indices, [origin.field for origin in origins.values()])
            if self._mirror is not None:
                turned_N = self._mirror(start, stop)
                for array in rows.values():
                    if array.dtype == np.uint8:  # pictures, (N, ..., W)
                        array[turned_N] = array[turned_N, ..., ::-1]
            placed = {name: place(torch.from_numpy(array)) for name, array in rows.items()}
            for name, origin in origins.items():
                tensor = placed[origin.field]
                found[name] = origin.compute(tensor, self._draws(indices)) if _is_derived(origin) else tensor
        return found

    def _draws(self, indices: np.ndarray) -> Draws:
        return SeededDraws([derive_seed("derived", self._seed, int(index)) for index in indices])


def _members(dataset: Dataset, view: View) -> np.ndarray:
    """Indices of a view's samples.

    Raises:
        GanpipeError: there are none in this split.
    """
    labels_N = dataset.rows(np.arange(len(dataset)), [view.label])[view.label]
    members = np.flatnonzero(labels_N == view.number)
    if not len(members):
        raise GanpipeError(f"no image of the split has the class {view.number} in its field {view.label!r}")
    return members
