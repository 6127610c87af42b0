"""The project as a DVC user sees it: all six stages on a small configuration, in a git repository of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from projects import STAGES, Project, save_image
from training_parts import blobs

from ganpipe.tracking.runs import Tracker


def test_a_second_repro_has_nothing_to_do(project: Project) -> None:
    assert list((project.root / "ganpipe").rglob("*.pyc")), "Python compiled nothing, so its files were no hindrance"
    assert project.stale() == []
    before, lock = project.files(), (project.root / "dvc.lock").read_bytes()
    said = project.dvc("repro")
    assert [line for line in said.splitlines() if line.startswith("Stage ")] == [
        f"Stage '{name}' didn't change, skipping" for name in STAGES
    ]
    assert (project.root / "dvc.lock").read_bytes() == lock
    assert project.files() == before
    assert project.run("git", "status", "--porcelain") == ""


def test_dag_metrics_and_plots(project: Project) -> None:
    edges = project.dvc("dag", "--dot")
    for first, second in [("ingest", "reference"), ("ingest", "tune"), ("tune", "train"), ("evaluate", "register")]:
        assert f'"{first}" -> "{second}"' in edges
    (metrics,) = json.loads(project.dvc("metrics", "show", "--json"))[""]["data"].values()
    assert set(metrics["data"]) == {
        f"{m}_efficientnet_lite0" for m in ("fid", "fid_of_real", "kid", "precision", "recall")
    }
    # The last commit's metrics are known, too: a change shows against them.
    assert json.loads(project.dvc("metrics", "diff", "--all", "--json", "HEAD"))["artifacts/evaluate/metrics.json"][
        "fid_efficientnet_lite0"
    ] == {"old": metrics["data"]["fid_efficientnet_lite0"], "new": metrics["data"]["fid_efficientnet_lite0"], "diff": 0}
    page = Path(project.dvc("plots", "show").strip().removeprefix("file://"))
    try:
        text = page.read_text(encoding="utf-8")
        curves = [f"curves/{name}.csv" for name in ("generator_adversarial", "discriminator_adversarial", "score_real")]
        titles = [*curves, "Quick FID while", "Quick FID of each trial"]
        assert [title for title in titles if title not in text] == []
        pictures = {path.name for path in page.parent.rglob("*.png")}
        assert len(pictures) >= 4, pictures
        assert any(name.endswith("real.png") for name in pictures), pictures
        assert any(name.endswith("nearest.png") for name in pictures), pictures
        assert project.run("git", "status", "--porcelain") == ""
    finally:
        shutil.rmtree(page.parent)


def test_the_real_images_are_drawn_and_kept_with_the_training(project: Project, tmp_path: Path) -> None:
    picture = project.root / "artifacts/ingest/real.png"
    with Image.open(picture) as image:
        assert image.size == (2 * 66 + 2, 8 * 66 + 2)  # a column a class, 16 pixels four times as large
    tracker = Tracker.at(project.root, "ganpipe")
    client = tracker.client()
    run_key = json.loads((project.root / "artifacts/train/model.json").read_text())["run_key"]
    runs = client.search_runs([tracker.experiment_id(client)])
    (run,) = [run for run in runs if "samples" in {file.path for file in client.list_artifacts(run.info.run_id)}]
    assert run_key in run.data.tags.values()
    kept = client.download_artifacts(run.info.run_id, "real.png", str(tmp_path))
    assert Path(kept).read_bytes() == picture.read_bytes()


@pytest.mark.parametrize(
    ("key", "value", "stale"),
    [
        ("gans.dcgan.generator_width", 16, []),
        ("sources.mnist.subset", "test", []),
        ("gans.gan.generator_width", 32, ["tune", "train"]),
        ("sources.folder.licence", "CC0-1.0", ["ingest"]),
        ("train.num_images", 2000, ["train"]),
        ("train.start_from", "models:/ganpipe-mnist/1", ["tune", "train"]),
        ("train.batch_size", 32, ["tune", "train", "register"]),
        ("tune.seed", 1, ["tune"]),
        ("evaluate.num_samples", 80, ["evaluate"]),
        ("evaluate.num_real", 80, ["reference", "evaluate"]),
        ("register.minimum_improvement", 0.1, ["register"]),
    ],
)
def test_a_setting_makes_stale_what_reads_it(project: Project, key: str, value: Any, stale: list[str]) -> None:
    params = project.root / "params.yaml"
    before = params.read_bytes()
    try:
        project.set(key, value)
        assert project.stale() == stale
    finally:
        params.write_bytes(before)


NEW_FILES = {
    "ganpipe/gans/another.py": "from ..losses.another import loss\nfrom ..networks.another import Network\n",
    "ganpipe/networks/another.py": "class Network: ...\n",
    "ganpipe/losses/another.py": "def loss(): ...\n",
    "ganpipe/data/sources/another.py": "from .base import Source\n",
}
"""A GAN with a network and a loss of its own, a source."""


def test_code_that_a_stage_does_not_use_and_words_leave_everything_done(project: Project, tmp_path: Path) -> None:
    changed = project.copy(tmp_path / "project")
    for name, text in NEW_FILES.items():
        (changed.root / name).write_text(text)
    for name in (
        "ganpipe/gans/base.py",
        "ganpipe/training/loop.py",
        "ganpipe/data/loading/cache.py",
        "ganpipe/stages/train.py",
    ):
        path = changed.root / name
        path.write_text(path.read_text().replace('"""', '"""In other words: ', 1) + "\n# another comment\n")
    assert changed.stale() == ["code"]
    said = changed.dvc("repro")
    assert "Running stage 'code'" in said
    assert [line for line in said.splitlines() if line.endswith("didn't change, skipping")] == [
        f"Stage '{name}' didn't change, skipping" for name in STAGES if name != "code"
    ]
    assert changed.stale() == []


def test_code_makes_stale_what_uses_it(project: Project, tmp_path: Path) -> None:
    """tests/code/test_lineage.py says of many files who uses them; here DVC is asked."""
    changed = project.copy(tmp_path / "project")
    path = changed.root / "ganpipe/training/feed.py"
    path.write_text(path.read_text() + "\nANOTHER = 1\n")
    changed.dvc("repro", "code")
    assert changed.stale() == ["tune", "train"]


def test_more_images_make_ingest_stale(project: Project, tmp_path: Path) -> None:
    changed = project.copy(tmp_path / "project")
    for number, image in enumerate(blobs(20, seed=1)["image"].numpy()):
        save_image(changed.root / "images" / "left" / f"more-{number:02d}.png", image)
    assert changed.stale() == ["ingest"]
    changed.dvc("repro", "ingest")
    manifest = json.loads((changed.root / "artifacts/shards/manifest.json").read_text())
    assert sum(shard["num_samples"] for shard in manifest["shards"]) == 220
    assert changed.stale() == ["reference", "tune", "train", "evaluate", "register"]


def test_a_flipped_byte_in_a_shard_is_named_and_dvc_mends_it(project: Project, tmp_path: Path) -> None:
    damaged = project.copy(tmp_path / "project")
    shard = damaged.root / "artifacts/shards/train-000001.tar"
    whole = bytearray(shard.read_bytes())
    shard.chmod(0o644)
    shard.write_bytes(whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:])
    for stage in ("reference", "train"):
        said = damaged.run("ganpipe", stage, code=2)
        assert said.startswith("error: artifacts/shards/train-000001.tar: damaged: its SHA-256 is "), said
        assert len(said.splitlines()) == 1
    assert damaged.stale() == ["ingest", "reference", "tune", "train", "evaluate"]
    damaged.dvc("checkout", "--force", "artifacts/shards")
    assert shard.read_bytes() == whole
    assert damaged.stale() == []


def test_push_and_a_colleagues_pull(project: Project, tmp_path: Path) -> None:
    mine = project.copy(tmp_path / "mine")
    mine.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    mine.commit("A remote")
    mine.dvc("push")
    made = mine.files()
    shutil.rmtree(mine.root / "artifacts")
    shutil.rmtree(mine.root / ".dvc" / "cache")
    mine.dvc("pull")
    assert mine.files() == made
    assert mine.stale() == []
    mine.run("git", "clone", "--quiet", str(mine.root), str(tmp_path / "theirs"))
    theirs = Project(tmp_path / "theirs", mine.environment)
    theirs.dvc("pull")
    assert theirs.files() == made
    assert theirs.stale() == []
    assert "up to date" in theirs.dvc("repro")


@pytest.mark.slow
def test_a_forced_repro_makes_the_same_bytes(project: Project) -> None:
    before, lock = project.files(), (project.root / "dvc.lock").read_bytes()
    project.dvc("repro", "--force")
    assert project.files() == before
    assert (project.root / "dvc.lock").read_bytes() == lock


@pytest.mark.slow
def test_an_experiment_with_another_gan_stands_beside_the_first(project: Project, tmp_path: Path) -> None:
    mine = project.copy(tmp_path / "project")  # its registry gets a second version
    said = mine.dvc("exp", "run", "--name", "with-dcgan", "-S", "train.gan=dcgan")
    assert "Ran experiment(s): with-dcgan" in said
    fid = json.loads(mine.dvc("metrics", "diff", "--json"))["artifacts/evaluate/metrics.json"]["fid_efficientnet_lite0"]
    assert fid["old"] != fid["new"]
    rows = json.loads(mine.dvc("exp", "show", "--json"))
    shown = {
        row["name"]: row["data"]["metrics"]["artifacts/evaluate/metrics.json"]["data"]["fid_efficientnet_lite0"]
        for commit in rows
        for row in [*[e["revs"][0] for e in commit["experiments"] or []], commit]
    }
    assert (shown["main"], shown["with-dcgan"]) == (fid["old"], fid["new"])
    params = json.loads(mine.dvc("params", "diff", "--json"))["params.yaml"]
    assert params == {"train.gan": {"old": "gan", "new": "dcgan"}}
    assert project.stale() == []
