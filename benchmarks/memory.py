"""Peak memory of ingest, training and evaluation as the dataset grows a hundredfold.

What counts is memory of the processes' own (RssAnon over the whole process tree): pages of the memory-mapped cache are
the system's, which takes them back when it needs them.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from .measure import Row

SMALL, LARGE = 10_000, 1_000_000
_SIDE, _PER_SHARD = 64, 10_000
_STAGES = {
    "ingest": """
from ganpipe.data import sources
from ganpipe.data.settings import DataSettings
from ganpipe.data.ingest.shards import write_shards
source = sources.load("webdataset")
settings = DataSettings(source="webdataset", image_size=64, samples_per_shard=10_000)
write_shards(settings, source(source.Settings(path=str(folder / "foreign"), image="png")), folder / "shards")
""",
    "training": """
from ganpipe.gans import load
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.training.settings import TrainSettings
from ganpipe.training.worker import TrainingJob, run_training
settings = TrainSettings(gan="gan", num_images=100_000, checkpoint_every=100_000)
run_training(TrainingJob("gan", "gan", load("gan").Config(), settings, ShardSet(str(folder / "shards")),
                         str(folder / "work"), num_threads=2))
""",
    "evaluation": """
from ganpipe.data.loading.opening import open_dataset
from ganpipe.evaluation.extractors import efficientnet_lite0
from ganpipe.evaluation.reference import compute_reference
from ganpipe.evaluation.settings import EvaluateSettings
compute_reference(open_dataset(folder / "shards", "train"), efficientnet_lite0(64), EvaluateSettings(num_real=5_000))
""",
}


def memory(folder: Path, rounds: int) -> list[Row]:
    """One run of each stage at each size: a peak is no timing, it hardly varies."""
    peaks: dict[int, dict[str, float]] = {}
    for num_images in (SMALL, LARGE):
        own = folder / str(num_images)
        _foreign_shards(own / "foreign", num_images)
        peaks[num_images] = {stage: _peak_mib(own, code) for stage, code in _STAGES.items()}
    rows = []
    for stage in _STAGES:
        small, large = peaks[SMALL][stage], peaks[LARGE][stage]
        detail = f"{small:,.0f} MiB with {SMALL:,} images of {_SIDE} px, {large:,.0f} MiB with {LARGE:,}"
        rows.append(Row(f"growth of {stage}'s peak memory", 100 * (large / small - 1), "%", "≤ 10", detail))
    return rows


def _foreign_shards(folder: Path, num_images: int) -> None:
    """Grey images, all different, as tars such as another program would have written."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for first in range(0, num_images, _PER_SHARD):
        with tarfile.open(folder / f"{first:08d}.tar", "w") as tar:
            for number in range(first, min(first + _PER_SHARD, num_images)):
                tiles = generator.integers(0, 256, (4, 4), dtype=np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(tiles.repeat(_SIDE // 4, 0).repeat(_SIDE // 4, 1)).save(buffer, "png", compress_level=1)
                member = tarfile.TarInfo(f"{number:08d}.png")
                member.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(member, buffer)


def _peak_mib(folder: Path, code: str) -> float:
    """Peak of the anonymous memory of a process that runs `code`, and of its children, looked at 20 times a second."""
    script = folder / "stage.py"
    script.write_text(
        f"from pathlib import Path\nfolder = Path({str(folder)!r})\nif __name__ == '__main__':\n"
        + "".join(f"    {line}\n" for line in code.strip().splitlines())
    )
    variables = {**os.environ, "GANPIPE_CACHE": str(folder / "cache")}
    process = subprocess.Popen([sys.executable, str(script)], env=variables, stderr=subprocess.PIPE)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, _anonymous_mib(process.pid))
        time.sleep(0.05)
    if process.returncode != 0:
        raise RuntimeError(f"{script}: exit code {process.returncode}\n{process.stderr.read().decode()}")  # type: ignore[union-attr]
    return peak


def _anonymous_mib(pid: int) -> float:
    """Of the process and its children; one that has just ended counts as nothing."""
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    return total / 1024
