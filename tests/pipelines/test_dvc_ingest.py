"""`dvc repro ingest` after images were added: DVC removed the output, and still only what is new is decoded."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ganpipe import tracked
from ganpipe.errors import GanpipeError

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


def test_images_added_and_removed(make_repo: Callable[..., Path]) -> None:
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


@pytest.mark.slow
def test_a_cache_elsewhere_and_back_again(make_repo: Callable[..., Path], tmp_path: Path) -> None:
    """A cache elsewhere is found, too; what was there before costs nothing: DVC's run cache has the result."""
    root = make_repo(DVC_YAML, params__yaml=PARAMS)
    dvc(root, "cache", "dir", "--local", str(tmp_path / "cache"))
    draw(root / "images", range(80))
    dvc(root, "repro")
    draw(root / "images", range(80, 81))
    assert "1 image added, 0 removed: " in dvc(root, "repro")
    (root / "images" / "080.png").unlink()
    assert "Stage 'ingest' is cached - skipping run, checking out outputs" in dvc(root, "repro")


def latin(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")


def in_a_latin_folder(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9")).mkdir()
    (folder / os.fsdecode(b"caf\xe9") / "1.png").write_bytes(b"x")


def listening(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)  # a socket's name may have 108 bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("s.png")
    os.chdir(here)


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "latin-1": (
        latin,
        r"images/caf\\xe9\.png: its name is not UTF-8\. DVC watches images and stops at it: rename it .*",
    ),
    "latin-1 folder": (in_a_latin_folder, r"images/caf\\xe9: its name is not UTF-8.*"),
    "link to nothing": (
        lambda folder: (folder / "b.png").symlink_to("no\nwhere"),
        r"images/b\.png: a link to no\\nwhere, which is not there\. .* mend or remove it, or name it in \.dvcignore",
    ),
    "hidden link to nothing": (
        lambda folder: (folder / ".#a").symlink_to("me@host"),
        r"images/\.#a: a link to me@host.*",
    ),
    "link to itself": (lambda folder: (folder / "l.png").symlink_to("l.png"), r"images/l\.png: a link to itself.*"),
    "pipe": (lambda folder: os.mkfifo(folder / "f.png"), r"images/f\.png: neither a file nor a folder .*: remove it.*"),
    "socket": (listening, r"images/s\.png: neither a file nor a folder .*"),
    "several": (
        lambda folder: [(folder / f"{n}.png").symlink_to("gone") for n in range(9)],
        r"images/0\.png: .* stops at it \(so do images/1\.png, images/2\.png, images/3\.png, \.\.\.\): .*",
    ),
}
FIT: dict[str, Callable[[Path], object]] = {
    "line break": lambda folder: (folder / "a\nb.png").write_bytes(b"x"),
    "255 bytes": lambda folder: (folder / ("a" * 251 + ".png")).write_bytes(b"x"),
    "accents": lambda folder: (folder / "café.png").write_bytes(b"x"),
    "link to a file": lambda folder: (folder / "l.png").symlink_to(__file__),
    "link to the folder above": lambda folder: (folder / "up").symlink_to(folder),
    "nothing": lambda folder: (folder / "empty").mkdir(),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_dvc_stops_at_is_named_first(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, message = UNFIT[kind]
    (tmp_path / "images").mkdir()
    make(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GanpipeError) as caught:
        tracked.require_readable_by_dvc([Path("images"), Path("images")], lambda path: False)
    assert re.fullmatch(message, str(caught.value))
    tracked.require_readable_by_dvc([Path("images")], lambda path: path.startswith(str(tmp_path)))
    tracked.require_readable_by_dvc([Path("absent")], lambda path: False)


def test_what_dvc_takes_is_no_fault(tmp_path: Path) -> None:
    for make in FIT.values():
        make(tmp_path)
    tracked.require_readable_by_dvc([tmp_path], lambda path: False)


@pytest.mark.parametrize("what", ["p.png", "folder"])
def test_what_may_not_be_read_is_named(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images" / "folder").mkdir(parents=True)
    (tmp_path / "images" / "p.png").write_bytes(b"x")
    (tmp_path / "images" / what).chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    child = os.fork()
    if not child:  # root may read everything
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            tracked.require_readable_by_dvc([Path("images")], lambda path: False)
        except GanpipeError as error:
            os._exit(7 if str(error).startswith(f"images/{what}: this user may not ") else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    (tmp_path / "images" / what).chmod(0o700)


@pytest.mark.slow
def test_check_and_make_run_name_what_dvc_stops_at_without_a_name(make_checkout: Callable[..., Path]) -> None:
    """DVC's own message has no file name for the one, and none ever comes for the other."""
    root = make_checkout(DVC_YAML.replace("[images]", '["${sources.folder.path}"]'), params__yaml=PARAMS)
    draw(root / "images", range(12))
    latin(root / "images")
    stopped = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert stopped.returncode != 0
    assert "surrogates not allowed" in stopped.stderr
    assert "images" not in stopped.stderr
    os.mkfifo(root / "images" / "pipe")
    message = (
        r"error: images/caf\xe9.png: its name is not UTF-8. DVC watches images and stops at it (so do images/pipe): "
        "rename it (convmv -f latin1 -t utf8 --notest, or by hand), or name it in .dvcignore"
    )
    for command in ("ganpipe", "check"), ("pipelines",):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr.splitlines()[-1]) == (2, message)
    (root / ".dvcignore").write_text("images/caf*\nimages/pipe\n")
    (root / "images" / os.fsdecode(b"caf\xe9.png")).write_bytes((root / "images" / "000.png").read_bytes())
    dvc(root, "repro")
    manifest = json.loads((root / "artifacts" / "shards" / "manifest.json").read_text())
    assert sum(shard["num_samples"] for shard in manifest["shards"]) == 13


def test_every_local_folder_of_a_source_is_a_dependency_of_ingest() -> None:
    """What cannot be one: MNIST's own files, whose digests are known, URLs, and packages."""
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["ingest"]["deps"]
    sources = yaml.safe_load((ROOT / "params.yaml").read_text())["sources"]
    folders = {
        f"{name}.{key}": section[key]
        for name, section in sources.items()
        for key in section
        if key.endswith("path") and section[key] is not None
    }
    pairs = {"pairs.path", "pairs.source_path", "pairs.target_path"}
    assert set(folders) == {"folder.path", "imagefolder.path", "parquet.path", "webdataset.path", *pairs}
    assert {f"${{sources.{key}}}" for key in folders} <= set(deps)
    assert all((ROOT / path).is_dir() for path in folders.values())
