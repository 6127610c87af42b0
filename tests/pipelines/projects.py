"""This project as a checkout of its own with a small configuration, and a person's environment around it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from training_parts import blobs

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
STAGES = ["code", "ingest", "reference", "tune", "train", "evaluate", "register"]
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
        """The stages that `dvc status` names, in the graph's order; asked in this process, because starting DVC takes
        longer than its answer."""
        from dvc.repo import Repo

        with contextlib.chdir(self.root), Repo() as repo:
            changed = repo.status()
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
        """Another checkout in the same state, with code of its own, which may be changed."""
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns(".ganpipe"), symlinks=True)
        return Project(root, {**self.environment, "PYTHONPATH": str(root)})


def environment_of(root: Path) -> dict[str, str]:
    """A person's environment around the checkout in `root`, with a host's cache of its own beside it."""
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
    return environment


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
    project = Project(root, environment_of(root))
    for section, values in SMALL.items():
        for key, value in values.items():
            project.set(f"{section}.{key}", value)
    for gan, widths in WIDTHS.items():
        for key, value in widths.items():
            project.set(f"gans.{gan}.{key}", value)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.commit("A small configuration")
    return project


def add_makefile(project: Project) -> None:
    """What `make` needs, committed. Its environment is the one that runs the tests, made from the same lock."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy2(SOURCE / name, project.root / name)
        os.utime(project.root / name, (0, 0))  # older than the environment, so that nothing is installed
    (project.root / ".venv").symlink_to(sys.prefix)
    (project.root / ".git" / "info" / "exclude").write_text(".venv\n")
    project.commit("The files of an install")


def save_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(((image[0] + 1) * 127.5).round().astype(np.uint8)).save(path)
