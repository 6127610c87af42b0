"""Checks of a checkpoint before it is loaded: it may hold only what this training would have written.

A checkpoint may come from a bucket that others write to. It is read as plain data (`weights_only`: no code in it runs).
Every name, shape and type in it is compared with those of the training that wants to go on from it.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import GanpipeError
from .optimizers import STATE_NAMES


class CheckpointMismatch(GanpipeError):
    """A checkpoint that does not belong to this training."""


def read(content: bytes, device: torch.device | str) -> dict[str, Any]:
    """The state in a checkpoint's bytes.

    Raises:
        CheckpointMismatch: it is compressed, so it could unpack to any size; torch never compresses checkpoints.
        Exception: whatever torch raises where it is no checkpoint.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(content):
                raise CheckpointMismatch(f"its part {entry.filename[:100]!r} is compressed, or larger than the file")
    state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    if not isinstance(state, dict):
        raise CheckpointMismatch(f"it holds a {type(state).__name__}, not the state of a training")
    return state


def require(condition: bool, what: str) -> None:
    """Raise CheckpointMismatch unless the condition holds."""
    if not condition:
        raise CheckpointMismatch(f"the checkpoint is not one of this training: {what}; delete it to start anew")


def check(
    state: Any,
    own: Mapping[str, Any],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Return if `state` may be loaded over the training's own state.

    Args:
        own: `TrainingState.state_dict()` of the training that is to go on.
        optimizers: by player.

    Raises:
        CheckpointMismatch: naming the first difference.
    """
    require(isinstance(state, dict) and set(state) == set(own), f"it has the parts {_names(state)}")
    for part in ("gan", "ema", "pools"):
        _check_tensors(part, state[part], own[part])
    _require_names("optimizers", state["optimizers"], own["optimizers"])
    for name, optimizer in optimizers.items():
        _check_optimizer(f"optimizers.{name}", state["optimizers"][name], own["optimizers"][name], optimizer)
    for name in ("images_seen", "step", "stage"):
        require(type(state[name]) is int and 0 <= state[name] < 2**62, f"{name} is {_short(state[name])}")
    _check_curves(state["curves"])
    scores = state["scores"]
    require(isinstance(scores, dict), "scores are no table")
    for images_seen, score in scores.items():
        require(type(images_seen) is int and isinstance(score, float | int), f"scores has {_short(images_seen)}")


def _check_tensors(where: str, found: Any, own: Mapping[str, Tensor]) -> None:
    _require_names(where, found, own)
    for name, tensor in own.items():
        _check_like(f"{where}.{name}", found[name], tensor)


def _check_like(where: str, found: Any, own: Tensor) -> None:
    require(isinstance(found, Tensor), f"{where} is {_short(found)}, not a tensor")
    require(found.shape == own.shape, f"{where} has the shape {tuple(found.shape)}, expected {tuple(own.shape)}")
    require(found.dtype == own.dtype, f"{where} is of {found.dtype}, expected {own.dtype}")
    require(found.layout == torch.strided, f"{where} is not dense")


def _check_optimizer(where: str, found: Any, own: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    _require_names(where, found, own)
    groups = found["param_groups"]
    require(isinstance(groups, list) and len(groups) == len(own["param_groups"]), f"{where} has other groups")
    parameters: list[nn.Parameter] = []
    for group, own_group, live in zip(groups, own["param_groups"], optimizer.param_groups, strict=True):
        _require_names(f"{where}.param_groups", group, own_group)
        require(group["params"] == own_group["params"], f"{where} numbers its parameters in another way")
        for name, value in group.items():
            plain = value is None or isinstance(value, bool | int | float)
            pair = isinstance(value, tuple | list) and all(isinstance(one, float | int) for one in value)
            require(plain or pair, f"{where}.{name} is {_short(value)}")
        parameters += live["params"]
    moments = found["state"]
    require(isinstance(moments, dict), f"{where}.state is no table")
    for number, entry in moments.items():
        require(type(number) is int and 0 <= number < len(parameters), f"{where} has a parameter {_short(number)}")
        names = STATE_NAMES[type(optimizer)]
        _require_names(f"{where}.{number}", entry, dict.fromkeys(names))
        for name in names:
            value = entry[name]
            if name == "step":
                require(isinstance(value, Tensor) and value.numel() == 1, f"{where}.{number}.step is {_short(value)}")
            elif value is not None:  # a momentum that is switched off
                _check_like(f"{where}.{number}.{name}", value, parameters[number])


def _check_curves(found: Any) -> None:
    _require_names("curves", found, dict.fromkeys(("rows", "sums", "counts")))
    rows, sums, counts = found["rows"], found["sums"], found["counts"]
    require(
        isinstance(rows, list) and isinstance(sums, dict) and isinstance(counts, dict),
        "its curves are not rows, sums and counts",
    )
    for row in rows:
        require(isinstance(row, dict), f"a row of its curves is {_short(row)}")
        for name, value in row.items():
            number = isinstance(value, float | int) and math.isfinite(value)
            require(isinstance(name, str) and number, f"curves: {_short(name)} is {_short(value)}")
    require(set(sums) == set(counts), "the sums and counts of its curves differ")
    for name, total in sums.items():
        scalar = isinstance(total, Tensor) and total.shape == () and type(counts[name]) is int and counts[name] > 0
        require(isinstance(name, str) and scalar, f"curves.sums.{_short(name)} is {_short(total)}")


def _require_names(where: str, found: Any, own: Mapping[str, Any]) -> None:
    require(isinstance(found, dict), f"{where} is {_short(found)}")
    if missing := sorted(set(own) - set(found)):
        require(False, f"{where} lacks {missing[0]}")
    extra = set(found) - set(own)
    require(not extra, f"{where} has {_names(extra)}, which is unknown here")


def _names(found: Any) -> str:
    return ", ".join(sorted(_short(name) for name in found)[:5]) if isinstance(found, dict | set) else _short(found)


def _short(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:80]
