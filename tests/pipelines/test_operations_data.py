"""docs/operations-data.md, run block by block: each `yaml` block goes into params.yaml, each `sh` line is executed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from PIL import Image

from ganpipe.cli import main
from ganpipe.data.shards.manifest import read_manifest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
DVC_YAML = """
stages:
  ingest:
    cmd: PYTHON -m ganpipe ingest
    deps: [photos]
    params: [data, sources]
    outs: [artifacts/shards]
"""


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def save(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(number)).save(path)


@pytest.fixture
def workplace(make_repo: Callable[..., Path]) -> Path:
    """What the page speaks of: image folders, images side by side, shards, photos, and photos to come."""
    root = make_repo(DVC_YAML, params__yaml="data: {image_size: 16, channels: 3}\nsources: {}\n")
    for number in range(12):
        subset = "train" if number < 9 else "validation"
        save(root / "faces" / subset / f"{number}.png", number)
        with (root / "faces" / subset / "metadata.csv").open("a") as file:
            file.write("file_name,label,caption\n" if number in (0, 9) else "")
            file.write(f"{number}.png,{'ab'[number % 2]},face {number}\n")
    for number in range(12):
        save(root / "facades" / ("train" if number < 9 else "val") / f"{number}.png", number)
    (root / "tars").mkdir()
    for shard in range(2):
        with webdataset.TarWriter(str(root / "tars" / f"part-{shard:06d}.tar")) as writer:
            for number in range(4 * shard, 4 * shard + 4):
                about = {"label": "xy"[number % 2], "about": {"caption": f"number {number}"}}
                writer.write({"__key__": f"{number}", "png": pixels(number), "json": about})
    images = [{"bytes": (root / "faces" / "train" / f"{number}.png").read_bytes(), "path": None} for number in range(9)]
    (root / "tables").mkdir()
    pq.write_table(pa.table({"image": images, "label": [0, 1, 2] * 3}), root / "tables" / "train-00000.parquet")
    for number in range(80):
        save(root / "photos" / f"{number:03d}.png", number)
    for number in range(80, 83):
        save(root / "incoming" / f"{number:03d}.png", number)
    return root


def merge(base: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict):
            merge(base.setdefault(key, {}), value)
        else:
            base[key] = value


def run(line: str, root: Path) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(line, shell=True, cwd=root, env={**os.environ, "PATH": path}, capture_output=True, text=True)  # noqa: S602 - the page's own lines
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_page(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "operations-data.md").read_text(encoding="utf-8")
    seen: dict[str, tuple[tuple[str, ...], dict[str, int]]] = {}
    said = ""
    for found in BLOCK.finditer(page):
        if found["language"] == "yaml":
            params = yaml.safe_load((workplace / "params.yaml").read_text())
            merge(params, yaml.safe_load(found["text"]))
            (workplace / "params.yaml").write_text(yaml.safe_dump(params))
        elif found["language"] == "sh":
            for line in found["text"].splitlines():
                if line.startswith("ganpipe "):
                    assert main(line.split()[1:]) == 0, capsys.readouterr().err
                else:
                    said += run(line, workplace)
            manifest = read_manifest(workplace / "artifacts" / "shards")
            counts = {split: manifest.num_samples(split) for split in manifest.splits}
            seen[manifest.source] = (tuple(manifest.fields), counts)
    assert seen["imagefolder"] == (("image", "label", "text"), {"train": 9, "validation": 3})
    assert seen["pairs"] == (("source", "target"), {"train": 9, "validation": 3})
    assert sum(seen["webdataset"][1].values()) == 8
    assert (seen["parquet"][0], sum(seen["parquet"][1].values())) == (("image", "label"), 9)
    assert seen["openmoji"][0] == ("image", "label", "text")
    assert sum(seen["folder"][1].values()) == 82
    number = len(json.loads((workplace / "artifacts" / "shards" / "manifest.json").read_text())["shards"])
    assert re.search(rf"^3 images added, 1 removed: [1-9] of {number} shards rewritten$", said, re.MULTILINE), said
