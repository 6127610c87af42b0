"""docs/adding-a-source.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from page_parts import apply, blocks
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PAGE = "adding-a-source.md"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the page's files in it, and an array."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("ganpipe", "images"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", "pyproject.toml"):
        shutil.copyfile(ROOT / name, folder / name)
    apply(PAGE, folder)
    np.save(folder / "digits.npy", np.random.default_rng(0).integers(0, 255, (40, 12, 10), np.uint8))
    return folder


def run(folder: Path, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in `folder`, which runs the copy, with the page's source and `path` as its array."""
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["data"].update(source="npy", image_size=16)
    params["register"].update(require_commit=False)
    params["sources"]["npy"]["path"] = path
    yaml.dump(params, folder / "params.yaml")
    script = f"import sys; sys.path.insert(0, {str(folder)!r}); import ganpipe; from ganpipe.cli import main; "
    script += f"assert ganpipe.__file__.startswith({str(folder)!r}); raise SystemExit(main({list(arguments)!r}))"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_page_tells_the_whole_way(copy: Path) -> None:
    files = [attributes["file"] for _, attributes, _ in blocks(PAGE) if "file" in attributes]
    assert files == ["ganpipe/data/sources/npy.py", "params.yaml", "dvc.yaml"]
    dependencies = YAML().load(copy / "dvc.yaml")["stages"]["ingest"]["deps"]
    assert "${sources.npy.path}" in dependencies


def test_schema_and_check_know_the_new_source(copy: Path) -> None:
    assert run(copy, "digits.npy", "schema").returncode == 0
    assert "NpySettings" in (copy / "params.schema.json").read_text()
    done = run(copy, "digits.npy", "check")
    assert "ready" in done.stdout, done.stderr


def test_its_images_are_ingested(copy: Path) -> None:
    done = run(copy, "digits.npy", "ingest")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((copy / "artifacts" / "shards" / "manifest.json").read_text())
    assert manifest["source"] == "npy"
    assert sum(shard["num_samples"] for shard in manifest["shards"]) == 40


def test_what_it_refuses_is_named(copy: Path) -> None:
    (copy / "text.npy").write_text("no array")
    np.save(copy / "wide.npy", np.zeros((3, 4, 4), np.float32))
    for path, said in (("text.npy", "cannot be read as a .npy file"), ("wide.npy", "expected an array of bytes")):
        done = run(copy, path, "check")
        assert done.returncode != 0
        assert f"sources.npy.path: {path}" in done.stderr
        assert said in done.stderr
