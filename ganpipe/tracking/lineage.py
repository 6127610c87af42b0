"""Where a run comes from: git commit, DVC digests, environment. For tags and files of MLflow runs, never for DVC
outputs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..cpus import usable_cpus
from ..documents import parse_yaml, read_bounded
from ..errors import GanpipeError

PACKAGES = (
    "dvc", "ganpipe", "mlflow", "numpy", "optuna", "pandas", "pillow", "prefect", "pydantic", "ray", "safetensors",
    "scipy", "torch", "webdataset",
)  # fmt: skip


_MAX_LOCK_BYTES = 2**24
ENVIRONMENT_FILE = "environment.json"
"""Name of the file of an MLflow run that holds `environment()`."""


def git_tags(root: Path) -> dict[str, str]:
    """Commit, branch and whether tracked files differ from the commit; the commit is `none` if git names no commit."""

    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {"ganpipe.git.commit": "none"}
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.branch": _git(root, "rev-parse", "--abbrev-ref", "HEAD") or "",
        "ganpipe.git.commit": commit,
        "ganpipe.git.dirty": str(changes != "").lower(),
    }


def require_commit(root: Path) -> None:
    """Return if git names a commit for `root`, so that models can name their origin.

    Raises:
        GanpipeError: git names no commit; the message says why, and what to do.
    """
    if problem := commit_problem(root):
        raise GanpipeError(
            f"{problem}; without a commit nobody can say later which code made a model (if that does not matter: "
            "register.require_commit: false)"
        )


def commit_problem(root: Path) -> str | None:
    """Why git names no commit for `root`, and what to do; None if there is a commit."""
    try:
        command = ["git", "-C", str(root), "rev-parse", "--quiet", "--verify", "HEAD"]
        variables = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=variables)
    except OSError as error:
        return f"git: cannot be run ({error.strerror}); install it"
    except subprocess.TimeoutExpired:
        return f"{root}: git does not answer within 30 s"
    if done.returncode == 0:
        return None
    said = done.stderr.strip().removeprefix("fatal: ")
    remedy = next((line.strip() for line in said.splitlines() if line.strip().startswith("git config ")), "")
    if remedy:
        return f"{root}: git refuses it, because another user owns it: allow it once with `{remedy}`"
    if "not a git repository" in said:
        return f"{root} is in no git repository: `git init`, then commit it"
    if said:
        return f"{root}: git names no commit ({said.splitlines()[0]})"
    return f"{root} has no commit yet: `git commit`"


def edited_since(root: Path, commit: str) -> list[str] | None:
    """Tracked files of the working tree that differ from `commit`; None if this repository does not have the commit.

    dvc.lock is left out, because it describes outputs, which are compared by their digests.
    """
    changed = _git(root, "diff", "--name-only", commit, "--", ".", ":(exclude)dvc.lock")
    return None if changed is None else changed.splitlines()


def _git(root: Path, *arguments: str) -> str | None:
    """Standard output of git in `root`; None if git failed."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def dvc_tags(root: Path, inputs: Sequence[Path]) -> dict[str, str]:
    """DVC's digests of a stage's inputs, as tags `dvc.<path>`, from dvc.lock.

    While a stage runs, dvc.lock already describes this run's outputs of the stages before it, but still an earlier
    run's outputs of the stage itself and of those after it. Therefore only inputs are looked up.

    Args:
        inputs: relative to `root`: outputs of other stages, or folders that contain such outputs.

    Raises:
        GanpipeError: dvc.lock cannot be read.
    """
    path = root / "dvc.lock"
    if not path.is_file():
        return {}
    try:
        stages: dict[str, Any] = parse_yaml(read_bounded(path, _MAX_LOCK_BYTES).decode())["stages"]
    except (ValueError, KeyError, TypeError) as error:
        raise GanpipeError(f"{path}: not what DVC writes ({error}); restore it with git checkout dvc.lock") from None
    return {
        f"dvc.{item['path']}": str(item.get(item.get("hash", "md5"), ""))
        for locked in stages.values()
        for item in locked.get("outs", [])
        if any(Path(item["path"]).is_relative_to(wanted) for wanted in inputs)
    }


def environment() -> dict[str, Any]:
    """The environment of this process: packages, build of torch, processor, GPUs; and under the key `computing` its
    present settings of threads, determinism and precision."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "packages": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _processor(),
        "num_cpus": os.cpu_count() or 0,
        "usable_cpus": usable_cpus(),
        "torch": {
            "git": torch.version.git_version or "unknown",
            "cuda": torch.version.cuda or "none",
            "cudnn": str(torch.backends.cudnn.version() or "none"),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "mkl": torch.backends.mkl.is_available(),
            "onednn": torch.backends.mkldnn.is_available(),
        },
        # Each model once, because the number of GPUs that train is a setting.
        "gpus": sorted({torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}),
        COMPUTE_SETTINGS: compute_settings(),
    }


CPU_COUNTS = ("num_cpus", "usable_cpus")
"""Keys of `environment()` that count CPUs. They are not compared, because how many are used is a setting, and another
process may have fewer."""

COMPUTE_SETTINGS = "computing"
"""Key of `environment()` for what `compute_settings` returns: it follows from the settings, and differs between
processes."""


def compute_settings() -> dict[str, Any]:
    """This process's present settings of threads, determinism and precision."""
    import torch

    return {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", "none"),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul": torch.get_float32_matmul_precision(),
    }


def _processor() -> str:
    """The processor's name, from the kernel."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def environment_tags(found: dict[str, Any]) -> dict[str, str]:
    """The part of `environment()` by which people filter runs, as tags."""
    return {
        "env.python": found["python"],
        "env.torch": found["packages"]["torch"],
        "env.ray": found["packages"]["ray"],
        "env.platform": found["platform"],
        "env.cpu": found["cpu"],
        "env.num_cpus": str(found["num_cpus"]),
        "env.gpus": ", ".join(found["gpus"]) or "none",
    }


def compute_tags(found: dict[str, Any]) -> dict[str, str]:
    """The part of `environment()` under `computing` by which people filter runs, as tags."""
    return {f"env.{name}": str(found[COMPUTE_SETTINGS][name]) for name in ("threads", "deterministic")}


def environment_text(found: dict[str, Any]) -> str:
    """`environment()` as the content of the file environment.json."""
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


def requirements_text() -> str:
    """All installed packages, pinned, in the format of `pip freeze`."""
    names = {(dist.metadata["Name"] or "").lower(): dist.version for dist in importlib.metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(names.items()) if name)
