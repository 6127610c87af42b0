"""What happens at sizes that no test has: by a model of the network, and by simulation on this machine.

python -m benchmarks.scale            # prints the tables
python -m benchmarks.scale --write    # and puts them into docs/scale.md
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed

from ganpipe.data.loading.lanes import LanedOrder, Shuffling
from ganpipe.data.loading.order import SampleOrder
from ganpipe.data.shards.manifest import Manifest, read_manifest
from ganpipe.gans import load
from ganpipe.gans.base import DataSpec
from ganpipe.registry.versions import describe_versions, find_version
from ganpipe.tracking.runs import Tracker
from ganpipe.training.distributed import World, synchronise_batch_norm
from ganpipe.training.loop import Loop
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import TrainingState

from .checkout import ROOT
from .measure import median

PAGE = ROOT / "docs" / "scale.md"
_BATCH = 64
_WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_NETWORKS = {"10 Gbit/s, 50 µs": (10e9 / 8, 50e-6), "100 Gbit/s, 10 µs": (100e9 / 8, 10e-6)}
"""Bandwidth in bytes a second of each host's link, and latency in seconds of one message."""


def workers() -> str:
    """Seconds and cost of a step over workers: measured computing, modelled network.

    Among W workers a ring takes (W - 1) (latency + n / bandwidth) to gather n bytes of each, and
    2 (W - 1) (latency + n / W / bandwidth) to all-reduce n bytes (Thakur 2005, "Optimization of Collective
    Communication Operations in MPICH"); nothing overlaps.
    """
    seconds = {share: _seconds_of_step(share) for share in (1, 2, 4, 8, 16, 32, 64)}
    gathered, reduced = _messages()
    lines = [
        f"DCGAN at 32 px: a step gathers {len(gathered)} times, {sum(gathered) / 2**10:.0f} KiB per worker, and "
        f"all-reduces {len(reduced)} times, {sum(reduced) / 2**20:.1f} MiB.",
        "",
        "| workers | " + " | ".join(f"{n}: batch 64 | {n}: 64 per worker" for n in _NETWORKS) + " |",
        "|---:|" + "---:|---:|" * len(_NETWORKS),
    ]
    for num in _WORKERS:
        cells = []
        for bandwidth, latency in _NETWORKS.values():
            network = sum((num - 1) * (latency + n / bandwidth) for n in gathered)
            network += sum(2 * (num - 1) * (latency + n / num / bandwidth) for n in reduced)
            for batch in (_BATCH, _BATCH * num):
                share = max(1, math.ceil(batch / num))
                if batch < num:
                    cells.append("")
                    continue
                step = seconds[share] + network
                cost = num * step / batch / (seconds[_BATCH] / _BATCH)
                cells.append(f"{batch / step:,.0f} images/s, {cost:.1f} × the cost")
        lines.append(f"| {num} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _loop(share: int) -> Loop:
    spec = DataSpec.images(32, 1)
    settings = TrainSettings(gan="dcgan", num_images=10**9, batch_size=share)
    state = TrainingState("dcgan", load("dcgan").Config(), spec, settings, World())
    images = torch.rand(share, 1, 32, 32).mul_(2).sub_(1)
    return Loop(state, lambda start, stop: {"image": images[: stop - start]}, settings, World())


def _seconds_of_step(share: int) -> float:
    loop = _loop(share)
    found = []
    for turn in range(15):
        start = time.perf_counter()
        loop.step()
        if turn >= 5:
            found.append(time.perf_counter() - start)
    return median(found)


def _messages() -> tuple[list[int], list[int]]:
    """Bytes that one of two workers gathers, and all-reduces, at each time in a step: counted, on a group of one."""
    loop = _loop(_BATCH)
    synchronise_batch_norm(loop.state.gan)
    gathered: list[int] = []
    reduced: list[int] = []
    gather, reduce = torch.distributed.all_gather, torch.distributed.all_reduce

    def counted_gather(parts: list[torch.Tensor], tensor: torch.Tensor) -> None:
        gathered.append(tensor.numel() * tensor.element_size())
        gather(parts, tensor)

    def counted_reduce(tensor: torch.Tensor, async_op: bool) -> object:
        reduced.append(tensor.numel() * tensor.element_size())
        return reduce(tensor, async_op=async_op)

    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        torch.distributed.all_gather, torch.distributed.all_reduce = counted_gather, counted_reduce
        try:
            object.__setattr__(loop.world, "size", 2)
            loop.step()
        finally:
            torch.distributed.all_gather, torch.distributed.all_reduce = gather, reduce
            torch.distributed.destroy_process_group()
    return gathered, reduced


def order() -> str:
    """The order of samples: time of a batch and memory, from a thousand to a billion images."""
    lines = ["| images | time per batch of 64, µs | memory of the order, KiB |", "|---:|---:|---:|"]
    for num in (10**3, 10**6, 10**9):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        stream = SampleOrder(num, seed=0)
        start = time.perf_counter()
        for batch in range(1000):
            stream.indices(batch * 64, batch * 64 + 64)
        micro = (time.perf_counter() - start) * 1e3
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        lines.append(f"| {num:,} | {micro:.0f} | {grown:,} |")
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Data:
    """Data that no disk here holds: so many images, of so many bytes in a shard, of which a worker trains so many a
    second."""

    what: str
    num_images: int
    side: int
    channels: int
    bytes_in_shard: int
    images_per_second: int


_LARGE = (
    _Data("grey, 64 px", 10**9, 64, 1, 3 * 2**10, 2000),
    _Data("colour, 256 px", 10**8, 256, 3, 100 * 2**10, 200),
)
_PER_SHARD, _WINDOW, _WORKERS_PER_HOST, _HOSTS = 5000, 64, 8, 32


def stream() -> str:
    """A stream of 256 workers: what a host holds and reads, and what its order costs."""
    lines = [
        "| images | decoded | in shards | `train.shard_lanes` | a host holds | a host reads | all hosts read "
        "| order of a worker's batch, µs | memory of the order, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    num_workers = _HOSTS * _WORKERS_PER_HOST
    for data in _LARGE:
        sizes_S = np.full(data.num_images // _PER_SHARD, _PER_SHARD)
        decoded = data.num_images * data.channels * data.side**2
        needed = num_workers * data.images_per_second * data.bytes_in_shard
        for num_lanes in (1, _HOSTS):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            order = LanedOrder(sizes_S, 0, Shuffling(_WINDOW, num_lanes, _BATCH * num_workers))
            order.indices(0, _BATCH)
            start = time.perf_counter()
            for batch in range(1000):
                order.indices(batch * _BATCH * num_workers, (batch * num_workers + 1) * _BATCH)
            micro = (time.perf_counter() - start) * 1e3
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
            held = 2 * _WINDOW * _PER_SHARD * data.bytes_in_shard
            # Samples of a window are mixed: a host reads every shard of its lanes, whatever its share of the batch.
            read = needed / num_lanes
            lines.append(
                f"| {data.num_images:,} {data.what} | {decoded / 1e12:.1f} TB "
                f"| {data.num_images * data.bytes_in_shard / 1e12:.1f} TB | {num_lanes} | {held / 1e9:.1f} GB "
                f"| {read / 1e9:.2f} GB/s | {_HOSTS * read / 1e9:,.1f} GB/s | {micro:.0f} | {grown:.0f} |"
            )
    return "\n".join(lines)


def shards() -> str:
    """Manifest and DVC at up to 100,000 shards (of 1 KiB here: what is measured is what each shard costs)."""
    lines = ["| shards | manifest, MiB | read it, s | `dvc add`, s | `dvc status`, s |", "|---:|---:|---:|---:|---:|"]
    for num in (100, 10_000, 100_000):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            data = root / "shards"
            data.mkdir()
            _fake_manifest(data, num)
            size, read = (data / "manifest.json").stat().st_size, _timed(lambda data=data: read_manifest(data))
            subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=root, check=True)
            added = _timed(lambda root=root: subprocess.run(["dvc", "add", "--quiet", "shards"], cwd=root, check=True))
            status = _timed(lambda root=root: subprocess.run(["dvc", "status", "--quiet"], cwd=root, check=True))
        lines.append(f"| {num:,} | {size / 2**20:.1f} | {read:.2f} | {added:.1f} | {status:.1f} |")
    return "\n".join(lines)


def _fake_manifest(folder: Path, num: int) -> None:
    """Shards of random bytes, and their manifest."""
    generator = np.random.default_rng(0)
    listed = []
    for number in range(num):
        content = generator.bytes(1024)
        shard = folder / f"train-{number:06d}.tar"
        shard.write_bytes(content)
        listed.append(
            {
                "name": shard.name,
                "split": "train",
                "num_samples": 1,
                "num_bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
    manifest = Manifest(
        source="folder",
        description="",
        licence="",
        fields={"image": {"kind": "image", "size": 64, "channels": 3}},
        main="image",
        shards=listed,
    )
    (folder / "manifest.json").write_text(json.dumps(manifest.to_json(), indent=2, sort_keys=True))


def registry() -> str:
    """Finding and listing versions of one model among up to 10,000, on SQLite."""
    lines = ["| versions | find by content, ms | list all with their tags, s |", "|---:|---:|---:|"]
    with tempfile.TemporaryDirectory() as name:
        tracker = Tracker.at(Path(name), "scale")
        client = tracker.client()
        client.create_registered_model("model")
        client.create_model_version("model", name, tags={f"ganpipe.tag{i}": "x" * 200 for i in range(20)})
        client.set_model_version_tag("model", "1", "ganpipe.content", "digest-1")
        present = 1
        for num in (100, 1000, 10_000):
            _multiply(Path(name) / "mlflow.db", present, num)
            present = num
            find = _timed(lambda num=num: find_version(client, tracker, "model", f"digest-{num}"))
            listed = _timed(lambda: describe_versions(client, tracker, "model"))
            lines.append(f"| {num:,} | {1000 * find:.0f} | {listed:.1f} |")
    return "\n".join(lines)


def _multiply(database: Path, present: int, wanted: int) -> None:
    """Copies of the first version, by SQL: MLflow's client takes 30 ms for each."""
    with sqlite3.connect(database) as connection:
        for table in ("model_versions", "model_version_tags"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            rest = [column for column in columns if column not in ("version", "value")]
            value = ["replace(value, 'digest-1', 'digest-' || ?)"] if "value" in columns else []
            names = ["version", *(["value"] if value else []), *rest]
            copied = ", ".join(["?", *value, *rest])
            statement = f"INSERT INTO {table} ({', '.join(names)}) SELECT {copied} FROM {table} WHERE version = 1"
            connection.executemany(statement, [(n,) * (1 + len(value)) for n in range(present + 1, wanted + 1)])


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


TABLES = {"workers": workers, "order": order, "stream": stream, "shards": shards, "registry": registry}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; default: all")
    parser.add_argument("--write", action="store_true", help="put them into docs/scale.md")
    options = parser.parse_args()
    if unknown := set(options.tables) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}; expected some of {', '.join(TABLES)}")
    for name in options.tables or TABLES:
        text = TABLES[name]()
        print(f"{name}:\n{text}\n", flush=True)
        if options.write:
            before, mark, rest = PAGE.read_text(encoding="utf-8").partition(f"<!-- table: {name} -->\n")
            if not mark:
                sys.exit(f"{PAGE}: has no table {name}")
            after = rest.partition("<!-- end of table -->")[2]
            PAGE.write_text(f"{before}{mark}{text}\n<!-- end of table -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
