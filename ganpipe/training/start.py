"""Weights that a training starts from: read from a checkpoint or a file, matched by name and shape, and loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..errors import GanpipeError, UnavailableError
from ..gans.base import Gan
from .state import TrainingState, listed, read_checkpoint

AVERAGE = "ema:"
"""Before a weight's name: its moving average. No module has a colon in its name."""
_MOST_NAMED = 3


@dataclass(frozen=True)
class Start:
    """The file of weights that a training starts from, as every host finds it.

    Attributes:
        origin: where the weights come from, for people: `models:/NAME/NUMBER`, or the path or URL that was given.
        sha256: of the file, in hex.
        url: of the file (safetensors).
    """

    origin: str
    sha256: str
    url: str


@dataclass(frozen=True)
class Match:
    """Which weights of a GAN another training's weights can replace: those of equal name, shape and kind of number.

    Attributes:
        taken: names that both have.
        fresh: names of the GAN's weights that keep their random values.
        unused: names of the other's weights that have no place in the GAN.
    """

    taken: list[str]
    fresh: list[str]
    unused: list[str]

    def lines(self, origin: str) -> list[str]:
        """What is taken and what is not, for people."""
        num_weights = len(self.taken) + len(self.fresh)
        lines = [
            f"train.start_from: {origin}: {len(self.taken)} of {num_weights} tensors of the networks start from it"
        ]
        if self.fresh:
            lines.append(
                f"  {len(self.fresh)} start at random, because it has no such name and shape: {_some(self.fresh)}"
            )
        if self.unused:
            lines.append(f"  {len(self.unused)} of its tensors have no place in these networks: {_some(self.unused)}")
        return lines


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")


def weights_of(gan: Gan) -> dict[str, Tensor]:
    """All tensors of the players' networks by their names in the GAN's state dict, batch-norm statistics among them.

    What a GAN keeps outside its players' networks (an adaptive probability, pools) is state of one training, no weight.
    """
    networks = {id(module) for player in gan.players().values() for module in player.modules}
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in gan.named_children()
        if id(module) in networks
        for name, tensor in module.state_dict().items()
    }


def match(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Match:
    """Compare a GAN's weights with those of `found`, whose moving averages do not count here.

    Args:
        own: see `weights_of`.
        found: what a training may start from.
    """
    taken = [name for name, tensor in own.items() if name in found and _fits(found[name], tensor)]
    others = [name for name in found if not name.startswith(AVERAGE)]
    return Match(taken, sorted(own.keys() - set(taken)), sorted(set(others) - set(taken)))


def _fits(found: Tensor, own: Tensor) -> bool:
    same_kind = found.dtype == own.dtype or (found.is_floating_point() and own.is_floating_point())
    return same_kind and found.shape == own.shape


def require_match(gan: Gan, origin: str, content: bytes) -> Match:
    """Which of the GAN's weights can start from the file `content` (safetensors).

    Raises:
        GanpipeError: it is no such file, a weight is not finite, or not one matrix or kernel fits: biases and counters
            of equal names and sizes say nothing.
    """
    try:
        found = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError) as error:
        raise GanpipeError(f"train.start_from: {origin}: no safetensors ({error})") from None
    for name, tensor in found.items():
        if not torch.isfinite(tensor).all():
            raise GanpipeError(
                f"train.start_from: {origin}: {name} has values that are not finite; choose another start"
            )
    own = weights_of(gan)
    matched = match(own, found)
    if not any(own[name].dim() > 1 for name in matched.taken):
        raise GanpipeError(
            f"train.start_from: {origin}: its weights fit nowhere in the networks of this GAN (it has "
            f"{_some(matched.unused)}; expected names and shapes as {_shapes(own, found)}); choose a start of the same "
            "GAN, and give it the same widths and image size"
        )
    return matched


def _shapes(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """A matrix of the GAN that the other has with another shape, if there is such a matrix."""
    names = [name for name, tensor in own.items() if tensor.dim() > 1]
    name = next((name for name in names if name in found), names[0])
    there = f", there {tuple(found[name].shape)}" if name in found else ""
    return f"{name} {tuple(own[name].shape)}{there}"


@torch.no_grad()
def start_from(state: TrainingState, start: Start) -> None:
    """Give a training that has not begun the weights of `start`, as far as they fit.

    The moving average starts at the origin's average where the file has it, else at the weights: so the first samples
    are the origin's.

    Raises:
        UnavailableError: the file cannot be read.
        GanpipeError: it is another file than the one that was put there.
    """
    found, own = _read(start), weights_of(state.gan)
    for name in match(own, found).taken:
        own[name].copy_(found[name])
    averages = {name: own[name] for name in state.ema.averages}
    for name, live in averages.items():
        average = found.get(f"{AVERAGE}{name}")
        if average is not None and _fits(average, live):
            averages[name] = average
    state.ema.load_state_dict(averages)


def _read(start: Start) -> dict[str, Tensor]:
    filesystem, path = fsspec.core.url_to_fs(start.url)
    try:
        content = filesystem.cat_file(path)
    except Exception as error:  # each storage has errors of its own kinds
        raise UnavailableError(f"{start.url}: cannot be read: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != start.sha256:
        raise GanpipeError(
            f"{start.url}: its SHA-256 is {digest[:12]}, but the stage wrote {start.sha256[:12]}; run the same command "
            "again, which writes it anew"
        )
    return safetensors.torch.load(content)


def weights_of_checkpoint(filesystem: fsspec.AbstractFileSystem, path: str) -> bytes:
    """The weights in a checkpoint, with the moving averages under `ema:<name>`, as a safetensors file.

    Args:
        path: the checkpoint's file.

    Raises:
        UnavailableError: it cannot be read.
        GanpipeError: it is no checkpoint.
    """
    state = read_checkpoint(filesystem, path)
    tensors = {
        **_tensors(path, state, "gan"),
        **{f"{AVERAGE}{name}": tensor for name, tensor in _tensors(path, state, "ema").items()},
    }
    # Copies, because networks may share tensors and safetensors takes no tensor twice.
    return safetensors.torch.save(
        {n: t.detach().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
    )


def _tensors(path: str, state: Mapping[str, Any], part: str) -> dict[str, Tensor]:
    """The tensors of one part of a checkpoint that belong to a network: the names of others have no dot."""
    tensors = state.get(part)
    if not isinstance(tensors, dict) or not all(isinstance(n, str) and _is_plain(t) for n, t in tensors.items()):
        raise GanpipeError(f"{path}: no checkpoint of a training: its part {part!r} holds something else than weights")
    return {name: tensor for name, tensor in tensors.items() if "." in name}


def _is_plain(tensor: Any) -> bool:
    """Whether it is a tensor of plain numbers that are all in the file: a view may claim more than its storage has."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def newest_checkpoint(filesystem: fsspec.AbstractFileSystem, folder: str) -> str | None:
    """The last checkpoint in a folder of checkpoints, or in that of a training's work; None where there is none."""
    found: Iterable[str] = (
        path
        for place in (folder, f"{folder}/checkpoints")
        for path in reversed(listed(filesystem, place, "checkpoint-*.pt"))
    )
    return next(iter(found), None)
