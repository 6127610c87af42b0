"""What a manifest says of the common dataset: one image per sample, and a label where there are classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganpipe.fields import FieldSpec, Label, Picture


def of_images(size: int, channels: int, classes: Sequence[str] = ()) -> dict[str, Any]:
    """The arguments of a `Manifest` that describe its fields."""
    fields: dict[str, FieldSpec] = {"image": Picture.model_validate({"size": size, "channels": channels})}
    if classes:
        fields["label"] = Label(num_classes=len(classes))
    return {"fields": fields, "main": "image", "names": {"label": tuple(classes)} if classes else {}}
