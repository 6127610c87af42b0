"""The project as a DVC user sees it: all six stages on a small configuration, in a git repository of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from training_parts import blobs

from ganpipe import processes, services

SOURCE = Path(__file__).parents[2]
PARTS = (
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "params.yaml",
    "prefect.yaml",
    "ganpipe",
    "pipelines",
)
STAGES = ["ingest", "reference", "tune", "train", "evaluate", "register"]
SMALL: dict[str, dict[str, Any]] = {
    "data": {"source": "folder", "image_size": 16, "samples_per_shard": 100},
    "train": {
        "gan": "gan",
        "num_images": 1000,
        "batch_size": 16,
        "log_every": 200,
        "samples_at_updates": [10],
        "num_grid_samples": 16,
        "checkpoint_every": 500,
    },
    "cluster": {"cpus_per_worker": 1},
    "tune": {"num_trials": 2, "num_images": 160, "cpus_per_worker": 2},
    "evaluate": {
        "resize": 32,
        "num_samples": 64,
        "num_real": 64,
        "kid_subsets": 5,
        "kid_subset_size": 32,
        "num_grid_samples": 16,
        "num_interpolations": 2,
        "num_interpolation_steps": 4,
        "quick": {"num_samples": 32, "num_real": 32, "seed": 0},
    },
    "register": {"conditions": {}},
}
WIDTHS = {
    "gan": {"num_latents": 16, "generator_width": 64, "discriminator_width": 64},
    "dcgan": {"num_latents": 16, "generator_width": 8, "discriminator_width": 8},
}


@dataclass(frozen=True)
class Project:
    """A checkout with a person's environment."""

    root: Path
    environment: dict[str, str]

    def run(self, *command: str, code: int = 0) -> str:
        """What `command` prints on stdout; on stderr where it is to fail with exit code `code`."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=540, check=False
        )
        assert done.returncode == code, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stderr if code else done.stdout

    def dvc(self, *arguments: str) -> str:
        return self.run("dvc", *arguments)

    def stale(self) -> list[str]:
        """The stages that `dvc status` names, in the graph's order."""
        changed = json.loads(self.dvc("status", "--json"))
        assert set(changed) <= set(STAGES)
        return [name for name in STAGES if name in changed]

    def set(self, dotted: str, value: Any) -> None:
        """Set a key of params.yaml."""
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text())
        *sections, key = dotted.split(".")
        place = params
        for section in sections:
            place = place[section]
        place[key] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def files(self) -> dict[str, bytes]:
        """All outputs by path."""
        found = sorted(path for path in (self.root / "artifacts").rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}

    def copy(self, root: Path) -> Project:
        """Another checkout in the same state, which may be changed."""
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns(".ganpipe"), symlinks=True)
        return Project(root, self.environment)


def make_project(root: Path) -> Project:
    """A git repository of this project with small settings and 200 images in two classes; nothing has run."""
    ignored = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        if (SOURCE / part).is_dir():
            shutil.copytree(SOURCE / part, root / part, ignore=ignored)
        else:
            shutil.copy(SOURCE / part, root / part)
    fields = blobs(200)
    for number, (image, label) in enumerate(zip(fields["image"].numpy(), fields["label"].numpy(), strict=True)):
        save_image(root / "images" / ("left", "right")[label] / f"{number:03d}.png", image)
    cache = root.parent / f"{root.name}-cache"
    # Python's own files among the code must not count as code.
    foreign = ("RAY_", "MLFLOW_", "PREFECT_", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(root),
        "GANPIPE_CACHE": str(cache),
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    } | {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in
         (("NAME", "A person"), ("EMAIL", "person@example.org"))}  # fmt: skip
    project = Project(root, environment)
    for section, values in SMALL.items():
        for key, value in values.items():
            project.set(f"{section}.{key}", value)
    for gan, widths in WIDTHS.items():
        for key, value in widths.items():
            project.set(f"gans.{gan}.{key}", value)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.commit("A small configuration")
    return project


def save_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(((image[0] + 1) * 127.5).round().astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project after one `dvc repro`, committed. Tests that change something work on a copy."""
    project = make_project(tmp_path_factory.mktemp("dvc") / "project")
    try:
        project.dvc("repro")
        project.commit("What the pipeline made")
        yield project
    finally:
        services.stop(project.root)


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
    assert set(metrics["data"]) == {f"{m}_efficientnet_lite0" for m in ("fid", "kid", "precision", "recall")}
    # The last commit's metrics are known, too: a change shows against them.
    assert json.loads(project.dvc("metrics", "diff", "--all", "--json", "HEAD"))["artifacts/evaluate/metrics.json"][
        "fid_efficientnet_lite0"
    ] == {"old": metrics["data"]["fid_efficientnet_lite0"], "new": metrics["data"]["fid_efficientnet_lite0"], "diff": 0}
    page = Path(project.dvc("plots", "show").strip().removeprefix("file://"))
    try:
        text = page.read_text(encoding="utf-8")
        titles = ["What the players minimise", "What the opponent thinks", "Quick FID while", "Quick FID of each trial"]
        assert [title for title in titles if title not in text] == []
        pictures = {path.name for path in page.parent.rglob("*.png")}
        assert len(pictures) >= 4, pictures
        assert project.run("git", "status", "--porcelain") == ""
    finally:
        shutil.rmtree(page.parent)


@pytest.mark.parametrize(
    ("key", "value", "stale"),
    [
        ("gans.dcgan.generator_width", 16, []),
        ("sources.mnist.subset", "test", []),
        ("gans.gan.generator_width", 32, ["tune", "train"]),
        ("sources.folder.licence", "CC0-1.0", ["ingest"]),
        ("train.num_images", 2000, ["train"]),
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


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("ganpipe/gans/dcgan.py", []),
        ("ganpipe/gans/gan.py", ["tune", "train", "evaluate", "register"]),
        ("ganpipe/training/loop.py", ["tune", "train"]),
        ("ganpipe/registry/gate.py", ["register"]),
    ],
)
def test_code_makes_stale_what_uses_it(project: Project, file: str, stale: list[str]) -> None:
    path = project.root / file
    before = path.read_bytes()
    try:
        path.write_bytes(before + b"# another comment\n")
        assert project.stale() == stale
    finally:
        path.write_bytes(before)


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
def test_an_experiment_with_another_gan_stands_beside_the_first(project: Project) -> None:
    try:
        said = project.dvc("exp", "run", "--name", "with-dcgan", "-S", "train.gan=dcgan")
        assert "Ran experiment(s): with-dcgan" in said
        fid = json.loads(project.dvc("metrics", "diff", "--json"))["artifacts/evaluate/metrics.json"][
            "fid_efficientnet_lite0"
        ]
        assert fid["old"] != fid["new"]
        rows = json.loads(project.dvc("exp", "show", "--json"))
        shown = {
            row["name"]: row["data"]["metrics"]["artifacts/evaluate/metrics.json"]["data"]["fid_efficientnet_lite0"]
            for commit in rows
            for row in [*[e["revs"][0] for e in commit["experiments"] or []], commit]
        }
        assert (shown["main"], shown["with-dcgan"]) == (fid["old"], fid["new"])
        params = json.loads(project.dvc("params", "diff", "--json"))["params.yaml"]
        assert params == {"train.gan": {"old": "gan", "new": "dcgan"}}
    finally:
        project.run("git", "checkout", "--force", "main", "--", ".")
        project.dvc("checkout", "--force")
    assert project.stale() == []


@pytest.mark.slow
def test_the_deployment_runs_the_flow_in_this_checkout(project: Project, tmp_path: Path) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_HOME"):
        assert name not in project.environment
    server = services.ensure("prefect", project.root)
    variables = {**project.environment, **services.client_environment({"prefect": server}, project.root)}
    deployed = Project(project.root, variables)
    deployed.run("prefect", "work-pool", "create", "ganpipe", "--type", "process")
    deployed.run("prefect", "--no-prompt", "deploy", "--all")
    with (tmp_path / "worker.log").open("wb") as log:
        # From elsewhere: the deployment says where the checkout is.
        worker = subprocess.Popen(
            ["prefect", "worker", "start", "--pool", "ganpipe"], cwd=tmp_path, env=variables, stdout=log, stderr=log
        )
    try:
        said = deployed.run("prefect", "deployment", "run", "pipeline/default", "--watch")
    finally:
        processes.end_tree(worker.pid)
        worker.wait(timeout=30)
    told = (tmp_path / "worker.log").read_text(encoding="utf-8")
    assert "Flow run finished successfully in 'Completed'" in said, told
    assert [name for name in STAGES if f"Task run '{name}' - Finished in state Cached" not in told] == []
    assert project.run("git", "status", "--porcelain") == ""
