"""`dvc repro ingest` after images were added: DVC removed the output, and still only what is new is decoded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).parents[2]
DVC_YAML = """
stages:
  ingest:
    cmd: PYTHON -m ganpipe ingest
    deps: [images]
    params: [data, sources.folder]
    outs: [artifacts/shards]
"""
PARAMS = """
data: {source: folder, image_size: 8, channels: 3, samples_per_shard: 10}
sources: {folder: {path: images}}
"""


def draw(folder: Path, numbers: range) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


def dvc(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_images_added_and_removed(make_repo: Callable[..., Path], tmp_path: Path) -> None:
    root = make_repo(DVC_YAML, params__yaml=PARAMS)
    draw(root / "images", range(80))
    said = dvc(root, "repro")
    assert "shards rewritten" not in said
    shards = root / "artifacts" / "shards"
    draw(root / "images", range(80, 83))
    (root / "images" / "007.png").unlink()
    said = dvc(root, "repro")
    number = len(json.loads((shards / "manifest.json").read_text())["shards"])
    assert "3 images added, 1 removed: " in said
    assert f" of {number} shards rewritten" in said
    incremental = files(shards)
    # The same from nothing: no notes, no shards.
    for path in (root / ".ganpipe" / "ingest").iterdir():
        path.unlink()
    said = dvc(root, "repro", "--force")
    assert "shards rewritten" not in said
    assert files(shards) == incremental
    # A cache elsewhere is found, too; other settings and back again cost nothing: DVC's run cache has the result.
    dvc(root, "cache", "dir", "--local", str(tmp_path / "cache"))
    draw(root / "images", range(83, 84))
    dvc(root, "repro")
    draw(root / "images", range(84, 85))
    assert "1 image added, 0 removed: " in dvc(root, "repro")
    (root / "images" / "084.png").unlink()
    assert "Stage 'ingest' is cached - skipping run, checking out outputs" in dvc(root, "repro")


def test_every_local_folder_of_a_source_is_a_dependency_of_ingest() -> None:
    """What cannot be one: MNIST's own files, whose digests are known, URLs, and packages."""
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["ingest"]["deps"]
    sources = yaml.safe_load((ROOT / "params.yaml").read_text())["sources"]
    folders = {name: section["path"] for name, section in sources.items() if section.get("path") is not None}
    assert set(folders) == {"folder", "imagefolder", "webdataset"}
    assert {f"${{sources.{name}.path}}" for name in folders} <= set(deps)
    assert all((ROOT / path).is_dir() for path in folders.values())
