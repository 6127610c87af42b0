"""A checkout to measure in: this project's code and params.yaml, with the changes that a benchmark names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
_PARTS = (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml", "prefect.yaml",
          "ganpipe", "pipelines", "images")  # fmt: skip


@dataclass(frozen=True)
class Checkout:
    """A git and DVC repository of this project in a folder of its own."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """With this checkout's code and commands first."""
        paths = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(self.root)}
        joined = {name: f"{path}{os.pathsep}{os.environ.get(name, '')}" for name, path in paths.items()}
        return {**os.environ, **joined}

    def run(self, *command: str, environment: dict[str, str] | None = None) -> str:
        """What `command` prints, in `environment` where that is given.

        Raises:
            RuntimeError: it fails; holds what it printed.
        """
        variables = environment or self.environment
        done = subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """`command` in the background, in a process group of its own."""
        quiet = subprocess.DEVNULL
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment, stdout=quiet, stderr=quiet, start_new_session=True
        )


def make_checkout(root: Path, **settings: Any) -> Checkout:
    """A checkout in `root`.

    Args:
        settings: of params.yaml by dotted key, `__` for the dot: train__gan="gan".
    """
    for part in _PARTS:
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / part).is_file():
            shutil.copy(ROOT / part, root / part)
    params = yaml.safe_load((root / "params.yaml").read_text())
    for dotted, value in settings.items():
        *sections, key = dotted.split("__")
        place = params
        for section in sections:
            place = place[section]
        place[key] = value
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    checkout = Checkout(root)
    checkout.run("git", "init", "--quiet")
    checkout.run("git", "add", "--all")
    author = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
    checkout.run("git", *author, "commit", "--quiet", "--message", "what is measured")
    return checkout
