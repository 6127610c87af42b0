"""What a training is at one moment, and checkpoints of it: everything needed to go on as if nothing had happened."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import fsspec
import torch
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem
from torch import Tensor, nn

from ..errors import GanpipeError, UnavailableError
from ..gans import augmentation, load
from ..gans.base import DataSpec, Gan, GanConfig, Phase, Progress
from ..gans.draws import derive_seed
from ..gans.pools import Pool
from . import optimizers, restoring
from .distributed import World, synchronise_batch_norm
from .ema import Ema
from .settings import TrainSettings
from .uploads import move_checked, write_checked


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` made definite: bf16 where the device computes in it natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


class Curves:
    """Losses and observations as means over windows of about `every` images; kept on the device until a window ends."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.rows: list[dict[str, float]] = []
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add a step's metrics to the window."""
        for name, value in metrics.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.detach().clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def end_window(self, now: Progress) -> dict[str, float]:
        """The window's means, which become a row.

        Raises:
            Diverged: a mean is not a finite number.
        """
        means = torch.stack([self._sums[name] / self._counts[name] for name in self._sums]).cpu().tolist()
        row = dict(zip(self._sums, means, strict=True))
        for name, value in row.items():
            if not math.isfinite(value):
                raise Diverged(
                    f"training diverged: {name} is {value} after {now.images_seen:,} images; "
                    "lower the learning rates (gans.<name>.*.lr), or set train.max_gradient_norm"
                )
        self.rows.append({"step": now.step, "images_seen": now.images_seen, **row})
        self._sums, self._counts = {}, {}
        return row

    def add_row(self, now: Progress, values: Mapping[str, float]) -> None:
        """Add values of this moment, beside those of a window that ended at it."""
        if not values:
            return
        if not self.rows or self.rows[-1]["images_seen"] != now.images_seen:
            self.rows.append({"step": now.step, "images_seen": now.images_seen})
        self.rows[-1].update(values)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "sums": self._sums, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self._sums, self._counts = list(state["rows"]), dict(state["sums"]), dict(state["counts"])


class Diverged(GanpipeError):
    """The training cannot go on, and would fail in the same way again."""


class Stopped(UnavailableError):
    """The training was asked to end before its time; the same command goes on from its checkpoint."""


class EndedEarly(Exception):
    """No error: the training has come to its end before its time, at a checkpoint."""


class DamagedCheckpoint(GanpipeError):
    """A file could be read, but is no checkpoint."""


class TrainingState:
    """Networks, optimisers, averages, progress, curves and scores of one training.

    Every rank starts from the same weights: they are a function of the seed alone.
    """

    def __init__(
        self, gan_name: str, config: GanConfig, data: DataSpec, settings: TrainSettings, world: World | None = None
    ) -> None:
        world = world or World()
        self.settings = settings
        self.device = world.device
        self.precision = resolve_precision(settings.precision, self.device)
        self.dtype = torch.float64 if self.precision == "fp64" else torch.float32
        torch.manual_seed(derive_seed(settings.seed, "weights"))
        self.gan: Gan = load(gan_name)(config, data)
        self.gan.augmentation = augmentation.build(settings.augment)
        if world.size > 1:
            synchronise_batch_norm(self.gan)
        self.gan.to(self.device, self.dtype)
        self.gan.pools = {
            name: Pool(spec, settings.batch_size).to(self.device, self.dtype)
            for name, spec in self.gan.replay_pools().items()
        }
        self.memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.gan.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.gan.frozen = {name: self._frozen(load()) for name, load in self.gan.frozen_networks().items()}
        self.players = self.gan.players()
        self.parameters = {name: list(player.parameters()) for name, player in self.players.items()}
        self.optimizers = {
            name: optimizers.build(self.parameters[name], player.optimizer) for name, player in self.players.items()
        }
        self.ema = Ema(self.averaged_modules(), settings.ema_half_life, settings.ema_ramp_up, self._begins())
        self.progress = Progress(0, settings.num_images)
        self.stage = self.gan.stage(self.progress)
        self.curves = Curves(settings.log_every)
        self.scores: dict[int, float] = {}
        """Quick FID by images seen."""

    def _frozen(self, network: nn.Module) -> nn.Module:
        network.to(self.device, self.dtype).to(memory_format=self.memory_format)  # type: ignore[call-overload]
        return network.eval().requires_grad_(False)

    def averaged_modules(self) -> dict[str, nn.Module]:
        """The networks from whose averaged weights samples are drawn, by name."""
        averaged = {id(m) for player in self.players.values() if player.averaged for m in player.modules}
        return {name: module for name, module in self.gan.named_children() if id(module) in averaged}

    def _begins(self) -> dict[str, float]:
        """After how many images the networks begin to learn, by name."""
        begins = {id(m): player.begins for player in self.players.values() for m in player.modules}
        return {
            name: begins[id(module)] * self.settings.num_images
            for name, module in self.gan.named_children()
            if id(module) in begins
        }

    def configure_torch(self) -> None:
        """Set torch in this process to compute as the settings say, and compile the networks where they say so.

        Raises:
            GanpipeError: the device has no TF32.
        """
        if self.precision == "tf32" and not (self.device.type == "cuda" and torch.cuda.is_tf32_supported()):
            raise GanpipeError(f"train.precision: tf32 is for GPUs from Ampere on, not for {self.device}; take fp32")
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = self.precision == "tf32"  # by default it is allowed
        if self.settings.compile:
            for module in [m for player in self.players.values() if player.compiled for m in player.modules]:
                module.compile()

    def turns(self) -> list[list[Phase]]:
        """The phases that are due in this step. Where a new stage of the training begins, the optimisers begin anew."""
        if (stage := self.gan.stage(self.progress)) != self.stage:
            for optimizer in self.optimizers.values():
                optimizer.state.clear()
            self.stage = stage
        return self.gan.turns(self.progress)

    def adapt(self, observed: dict[str, Tensor], num_images: int) -> None:
        """What adapts to the observations of a step, which saw `num_images` images."""
        self.gan.adapt(observed, self.progress)
        self.gan.augmentation.adapt(observed, num_images)

    def optimizer(self, name: str) -> torch.optim.Optimizer:
        """A player's optimiser, with the settings that hold now."""
        player, settings = self.players[name], self.players[name].optimizer
        if changed := self.settings.settings_at(self.progress.fraction, name):
            settings = settings.model_copy(update=changed)
        if player.over_time is not None:
            settings = player.over_time(settings, self.progress)
        optimizers.apply_settings(
            self.optimizers[name], settings, self.settings.schedule.factor(self.progress.fraction)
        )
        return self.optimizers[name]

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @contextlib.contextmanager
    def averaged(self) -> Iterator[Gan]:
        """The GAN with its averaged weights, in evaluation mode."""
        # Batches of samples have other sizes than in training, and compiling for those takes longer than drawing them.
        compiled = self.settings.compile
        with self.ema.applied(), torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext():
            self.gan.eval()
            try:
                yield self.gan
            finally:
                self.gan.train()

    def generator_state(self) -> dict[str, Tensor]:
        """What sampling needs: state of the averaged players' modules with averaged values, on the CPU, contiguous."""
        modules = self.averaged_modules()
        with self.ema.applied():
            return {
                f"{prefix}.{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for prefix, module in modules.items()
                for name, tensor in module.state_dict().items()
            }

    def synchronise(self, world: World) -> None:
        """Give all workers the state that a checkpoint holds: rank 0's buffers, and the pools gathered from all shares.
        Collective."""
        world.broadcast(self.gan.buffers())
        for tensor in self._pools().values():
            world.gather_shares(tensor)

    def _pools(self) -> dict[str, Tensor]:
        return {f"{name}.{key}": t for name, pool in self.gan.pools.items() for key, t in pool.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "gan": self.gan.state_dict(),
            "pools": self._pools(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "ema": self.ema.state_dict(),
            "images_seen": self.progress.images_seen,
            "step": self.progress.step,
            "stage": self.stage,
            "curves": self.curves.state_dict(),
            "scores": self.scores,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            GanpipeError: it is not one of this training; nothing has changed then.
        """
        restoring.check(state, self.state_dict(), self.optimizers)
        self.gan.load_state_dict(state["gan"])
        for name, tensor in self._pools().items():
            tensor.copy_(state["pools"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.ema.load_state_dict(state["ema"])
        self.progress = Progress(state["images_seen"], self.progress.num_images, state["step"])
        self.stage = state["stage"]
        self.curves.load_state_dict(state["curves"])
        self.scores = dict(state["scores"])


def listed(filesystem: fsspec.AbstractFileSystem, folder: str, pattern: str) -> list[str]:
    """Paths of the files in `folder` whose names fit `pattern`, sorted. fsspec's own `glob` would take a folder's name
    for a pattern, too: it finds nothing below a folder with brackets in its name."""
    try:
        paths = filesystem.ls(folder, detail=False)
    except FileNotFoundError:
        return []
    return sorted(path for path in paths if fnmatch.fnmatchcase(path.rsplit("/", 1)[-1], pattern))


def read_checkpoint(
    filesystem: fsspec.AbstractFileSystem, path: str, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """The state dict in a checkpoint's file.

    Raises:
        UnavailableError: the file cannot be read.
        DamagedCheckpoint: the file can be read, but is no checkpoint.
    """
    try:
        content = filesystem.cat_file(path)
    except Exception as error:  # each storage has errors of its own kinds
        raise UnavailableError(f"{path}: cannot be read: {error}") from error
    try:
        return restoring.read(content, device)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DamagedCheckpoint(f"{path}: cannot be read as a checkpoint ({reason})") from error


class CheckpointStore:
    """Checkpoints of one training in a folder or at a URL: the last `keep`, and the best by score.

    A checkpoint is written whole under another name and then moved, so one that can be seen is complete.
    """

    def __init__(self, url: str, keep: int) -> None:
        self._filesystem, self._folder = fsspec.core.url_to_fs(url)
        self._is_local = isinstance(self._filesystem, LocalFileSystem)
        self._keep = keep

    def _path(self, images_seen: int) -> str:
        return f"{self._folder}/checkpoint-{images_seen:012d}.pt"

    @contextlib.contextmanager
    def locked(self, wait_seconds: float = 120) -> Iterator[None]:
        """Within this block no other process of this host writes to this store, where it is a local folder.

        A worker may outlive its driver, or the worker that takes its place may start first: two that write at once
        would log the same steps twice. At a URL the storage has no such lock; Ray ends a dead driver's workers.

        Raises:
            UnavailableError: another process still writes here after `wait_seconds`.
        """
        if not self._is_local:
            yield
            return
        Path(self._folder).mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{self._folder}/.writer.lock")  # the system releases it, however its holder ends
        try:
            lock.acquire(timeout=wait_seconds)
        except Timeout:
            raise UnavailableError(
                f"{self._folder}: another process has been writing checkpoints here for {wait_seconds:g} s; "
                "end it, or wait for its end"
            ) from None
        try:
            for partial in listed(self._filesystem, self._folder, "checkpoint-*.partial"):
                self._filesystem.rm_file(partial)  # of a process that was killed as it wrote
            yield
        finally:
            lock.release()

    def list(self) -> list[int]:
        """Images seen at each checkpoint, ascending."""
        self._filesystem.invalidate_cache()
        found = listed(self._filesystem, self._folder, "checkpoint-*.pt")
        names = [path.rsplit("/", 1)[-1] for path in found]
        return sorted(int(name.removeprefix("checkpoint-").removesuffix(".pt")) for name in names)

    def newest(self) -> int:
        """Images seen at the last checkpoint that can be read; 0 where there is none.

        One that is damaged (a host that lost its power) is put aside under another name, and the one before it counts.
        """
        for images_seen in reversed(self.list()):
            try:
                self.load(images_seen)
            except DamagedCheckpoint as error:
                path = self._path(images_seen)
                print(f"{error}; it is put aside as {path}.damaged, and an earlier one is taken", flush=True)
                self._filesystem.mv(path, f"{path}.damaged")
            else:
                return images_seen
        return 0

    def save(self, state: TrainingState) -> None:
        buffer = io.BytesIO()
        torch.save(state.state_dict(), buffer)
        self.put(state.progress.images_seen, buffer.getvalue())
        present = self.list()
        kept = {*present[-self._keep :], self.best(state.scores)}
        for images_seen in present:
            if images_seen not in kept:
                self._filesystem.rm_file(self._path(images_seen))

    def put(self, images_seen: int, content: bytes) -> None:
        """Take over a checkpoint of another training."""
        path = self._path(images_seen)
        self._filesystem.makedirs(self._folder, exist_ok=True)
        self._write(f"{path}.partial", content)
        move_checked(self._filesystem, f"{path}.partial", path)

    def content(self, images_seen: int) -> bytes:
        """The file of one checkpoint."""
        found: bytes = self._filesystem.cat_file(self._path(images_seen))
        return found

    def _write(self, path: str, content: bytes) -> None:
        write_checked(self._filesystem, path, content)
        if self._is_local:  # a file that is moved before it is on the disk may be empty after a power failure
            with open(path, "rb") as file:
                os.fsync(file.fileno())

    def best(self, scores: dict[int, float]) -> int | None:
        """The checkpoint with the lowest score, the earlier one among equals."""
        present = set(self.list())
        scored = [(score, images_seen) for images_seen, score in scores.items() if images_seen in present]
        return min(scored)[1] if scored else None

    def load(self, images_seen: int, device: torch.device | str = "cpu") -> dict[str, Any]:
        """The state dict of one checkpoint.

        Raises:
            UnavailableError: the file cannot be read.
            DamagedCheckpoint: the file can be read, but is no checkpoint.
        """
        return read_checkpoint(self._filesystem, self._path(images_seen), device)

    # --- ending a training early: who started it makes a request, its workers look for one

    def request_stop(self) -> None:
        """Ask the training that writes here to end at a checkpoint, soon."""
        self._filesystem.makedirs(self._folder, exist_ok=True)
        self._filesystem.pipe_file(f"{self._folder}/stop", b"")

    def is_stop_requested(self) -> bool:
        self._filesystem.invalidate_cache()
        return bool(self._filesystem.exists(f"{self._folder}/stop"))

    def clear_stop_request(self) -> None:
        """Remove what an earlier training was asked, before a new one starts."""
        if self.is_stop_requested():
            self._filesystem.rm_file(f"{self._folder}/stop")
