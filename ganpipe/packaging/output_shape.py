"""The shape of a generator's output, which decides whether two versions can be measured on the same data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..gans.spec import DataSpec
from ..tracking.runs import Tracker
from .fetching import NotUsable
from .package import description_of

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

SHAPE_TAG = "ganpipe.shape"


@dataclass(frozen=True)
class Shape:
    """The images that a generator makes.

    Attributes:
        image_size: height and width, pixels; of a frame, if sequences are made.
        num_classes: number of classes in the data that the generator was trained on.
        conditional: the generator takes conditions, so that it can only be measured on data with the same classes.
        class_names: digest of the classes' names in order; empty if they are not known.
        num_frames: of a sequence; 1 for images.
    """

    image_size: int
    channels: int
    num_classes: int
    conditional: bool
    class_names: str = ""
    num_frames: int = 1

    @property
    def text(self) -> str:
        """Size, channels and number of classes, for people."""
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        classes = {0: "no classes", 1: "1 class"}.get(self.num_classes, f"{self.num_classes} classes")
        frames = f"{self.num_frames} frames of " if self.num_frames > 1 else ""
        return f"{frames}{self.image_size} px, {channels}, {classes}"

    @property
    def tag(self) -> dict[str, str]:
        """The tag of a model version that holds this shape."""
        return {SHAPE_TAG: json.dumps(asdict(self), sort_keys=True)}


def digest_of_names(classes: Sequence[str]) -> str:
    """See `Shape.class_names`; empty for data without classes."""
    return hashlib.sha256(json.dumps(list(classes)).encode()).hexdigest()[:16] if classes else ""


def shape_of_package(description: Mapping[str, Any], classes: Sequence[str] = ()) -> Shape:
    """The shape of a package.

    Args:
        description: the content of its model.json.
        classes: names of the data's classes, if they are known.
    """
    from .served_model import conditions_of, output_of

    output, data = output_of(description), DataSpec.from_json(description["data"])
    conditional = bool(conditions_of(description))
    names, num_frames = digest_of_names(classes), output.get("num_frames", 1)
    return Shape(output["size"], output["channels"], data.num_classes, conditional, names, num_frames)


def shape_of(tracker: Tracker, version: ModelVersion) -> Shape | None:
    """The shape of a version: from its tag, else (earlier versions of ganpipe set no tag) from its files; None if
    neither is readable.

    Raises:
        UnavailableError: MLflow does not answer.
    """
    try:
        return _tagged(version) or shape_of_package(description_of(tracker, version))
    except (NotUsable, KeyError, TypeError):
        return None


def _tagged(version: ModelVersion) -> Shape | None:
    try:
        return Shape(**json.loads(version.tags[SHAPE_TAG]))
    except (KeyError, TypeError, ValueError):  # there is no such tag, or somebody edited it
        return None


def incompatibility(champion: Shape, other: Shape, name: str) -> str:
    """Why the champion cannot be measured on the data of another generator; empty if it can.

    Args:
        champion, other: the shapes of the two generators.
        name: name of the other generator in the message.
    """
    sizes = [(shape.image_size, shape.channels, shape.num_frames) for shape in (champion, other)]
    if sizes[0] != sizes[1] or (champion.conditional and champion.num_classes != other.num_classes):
        return f"the champion makes {champion.text}; {name} makes {other.text}"
    known = champion.class_names and other.class_names
    if champion.conditional and known and champion.class_names != other.class_names:
        return f"the champion makes {champion.text}; the {other.num_classes} classes of {name} have other names"
    return ""
