"""A checkout with a finished run, for tests of its report: what stages write, written by their own writers, locked by
DVC, and registered in an MLflow of its own. Nothing is trained."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from manifest_parts import of_images
from registry_parts import PROGRESS, SMALL, make_gan, write_trained

from ganpipe.data.shards.manifest import Manifest, Shard, write_manifest
from ganpipe.environment import STAGE_SECONDS
from ganpipe.evaluation.class_fids import ClassFid
from ganpipe.evaluation.evaluate import Evaluation
from ganpipe.evaluation.grids import grid, png
from ganpipe.evaluation.protocol import Protocol, ReferenceProtocol
from ganpipe.packaging.package import PackageFacts, build_package
from ganpipe.params import load_params
from ganpipe.registry.registration import Candidate, register
from ganpipe.stages.train import write_curves
from ganpipe.tracking.runs import Tracker
from ganpipe.training.trials import SearchResult, Trial

SOURCE = Path(__file__).parents[1]
COPIED = (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml", "ganpipe", "pipelines")
HOSTILE = '</script></style><script>hacked=1</script><img src=x onerror="hacked=1">"\'`&amp;{{ 7*7 }}'
"""A class's name, a licence: text from outside."""
METRICS = {"fid_efficientnet_lite0": 44.1, "kid_efficientnet_lite0": 0.11, "precision_efficientnet_lite0": 0.64,
           "recall_efficientnet_lite0": 0.81, "fid_intra_efficientnet_lite0": 61.5}  # fmt: skip
OBJECTIVE = "quick_fid_efficientnet_lite0"
TRIALS = [(4000, 310.5), (8000, 120.25), (8000, 88.125), (8000, float("nan"))]
"""(images seen, objective): the scheduler gave the first one up, and the last one diverged."""
BEST = 2
SECONDS = {"ingest": 8.3, "reference": 11.6, "tune": 62.6, "train": 386.3, "evaluate": 32.3, "register": 5.7}


@dataclass(frozen=True)
class Checkout:
    """A checkout with a finished run."""

    root: Path
    run_id: str
    """Of the training in MLflow."""


def run(root: Path, *command: str) -> None:
    """A command in `root`, with this interpreter's environment first on the PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    names = {f"GIT_{who}_{what}": "somebody@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    variables = {**os.environ, **names, "PATH": path, "DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(command, cwd=root, env=variables, check=True, capture_output=True)


def copy_project(root: Path) -> None:
    """This project's code in a git repository of its own, for a small conditional GAN; nothing has run."""
    for part in COPIED:
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        if (SOURCE / part).is_dir():
            shutil.copytree(SOURCE / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(SOURCE / part, root / part)
    params = yaml.safe_load((SOURCE / "params.yaml").read_text(encoding="utf-8"))
    params["train"]["gan"] = "cgan"
    params["gans"]["cgan"] |= SMALL["cgan"]
    params["sources"]["folder"]["licence"] = HOSTILE
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    (root / "images").mkdir()
    (root / "images" / ".gitkeep").touch()
    run(root, "git", "init", "--quiet")
    run(root, "git", "add", "--all")
    run(root, "git", "commit", "--quiet", "--message", "the project")
    run(root, sys.executable, "-m", "ganpipe", "code")  # what every other stage depends on


def write_shards(root: Path) -> None:
    """What ingest leaves, but for the tars themselves: no test opens them."""
    folder = root / "artifacts" / "shards"
    folder.mkdir(parents=True)
    counts = {"train-000000.tar": 90, "validation-000000.tar": 10}
    shards = [
        Shard(name=name, sha256="0" * 64, num_bytes=1024 * count, num_samples=count, split=name.split("-")[0])  # type: ignore[arg-type]
        for name, count in counts.items()
    ]
    manifest = Manifest(
        source="folder",
        description=f"Images of {HOSTILE}",
        homepage="javascript:hacked=1",
        licence=HOSTILE,
        shards=tuple(shards),
        **of_images(16, 1, (*(f"class {number}" for number in range(9)), HOSTILE)),
    )
    write_manifest(folder, manifest)
    write_real_images(root)


def write_real_images(root: Path) -> None:
    """What ingest leaves beside the shards."""
    path = root / "artifacts" / "ingest" / "real.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(png(grid(np.full((4, 1, 16, 16), 200, np.uint8))))
    (path.parent / "data.json").write_text("{}")
    (path.parent / "data.html").write_text("<!doctype html>")


def write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([list(header), *rows])


def write_search(root: Path) -> None:
    """What tune leaves."""
    folder = root / "artifacts" / "tune"
    folder.mkdir(parents=True)
    adam = [
        {player: {"lr": 1e-4 * 2**n, "beta1": 0.1 * n} for player in ("generator", "discriminator")} for n in range(4)
    ]
    trials = [Trial(number, adam[number], seen, score) for number, (seen, score) in enumerate(TRIALS)]
    result = SearchResult(OBJECTIVE, trials)
    assert result.best.number == BEST
    (folder / "trials.csv").write_text(result.table(), encoding="utf-8")
    (folder / "trials.png").write_bytes(png(grid(np.zeros((1, 1, 8, 8), np.uint8))))
    (folder / "best.json").write_text(json.dumps(result.best.adam), encoding="utf-8")
    (folder / "search.json").write_text("{}", encoding="utf-8")


def write_training(root: Path) -> None:
    """What train leaves."""
    folder = root / "artifacts" / "train"
    write_trained(make_gan("cgan"), "cgan", folder)
    steps = range(1, PROGRESS.step + 1)
    rows = [
        {
            "step": step,
            "images_seen": 64 * step,
            "discriminator_adversarial": float("nan") if step == 5 else 0.6 + 0.01 * step,
            "score_real": 0.7,
            "score_fake": 0.3,
            "generator_adversarial": 5.0 / step,
        }
        for step in steps
    ]
    write_curves(folder / "curves", rows)
    write_table(folder / "scores.csv", ["images_seen", OBJECTIVE], [(320, 900.0), (640, 12.5)])
    (folder / "state.pt").write_bytes(b"")
    write_table(folder / "alarms.csv", ["kind", "images_seen", "text"], [("collapse", 320, f"few kinds {HOSTILE}")])
    (folder / "samples").mkdir()
    for step in (1, 5, 10):
        images = np.random.default_rng(step).integers(0, 255, (9, 1, 8, 8), np.uint8)
        (folder / "samples" / f"{step:07d}.png").write_bytes(png(grid(images)))


def write_evaluation(root: Path) -> Protocol:
    """What evaluate leaves; returns the protocol."""
    reference = ReferenceProtocol(
        extractor="efficientnet_lite0", weights_sha256="ab" * 32, resize=32, resampling="bilinear_antialiased",
        data_digest="cd" * 32, split="train", num_real=90, seed=0,
    )  # fmt: skip
    protocol = Protocol(
        metric="full", reference=reference, num_samples=64, seed=0, averaged=True, labels="as_reference",
        kid_subsets=5, kid_subset_size=32, num_neighbours=3,
    )  # fmt: skip
    fids = {f"class {number}": ClassFid(10.0 + number, 9, 6) for number in range(9)} | {HOSTILE: ClassFid(99.5, 9, 6)}
    picture = png(grid(np.full((4, 1, 8, 8), 128, np.uint8)))
    figures = dict.fromkeys(("samples", "nearest", "interpolation"), picture)
    intervals = {next(iter(METRICS)): (1.25, 2.5)}
    Evaluation(METRICS, protocol, fids, figures, intervals).save(root / "artifacts" / "evaluate")
    return protocol


def register_version(root: Path, protocol: Protocol) -> str:
    """What train and register do to MLflow; returns the run's ID."""
    params = load_params(root / "params.yaml")
    package = root / "artifacts" / "package"
    facts = PackageFacts(
        METRICS,
        {"hash": protocol.hash, **protocol.model_dump(mode="json")},
        licence=HOSTILE,
        card=f"# {HOSTILE}\n\n{HOSTILE}\n",
        samples_png=root / "artifacts" / "evaluate" / "figures" / "samples.png",
    )
    build_package(root / "artifacts" / "train", package, facts)
    tracker = Tracker.at(root, params.register_.experiment)
    tags = {"ganpipe.git.commit": "f" * 40, "ganpipe.git.dirty": "true", "env.torch": "2.13.0"}
    with tracker.run("train", "ab12", name="train cgan", tags=tags) as log:
        log.log_text(json.dumps({"packages": {"torch": "2.13.0", "ray": "2.60.0"}}), "environment.json")
        log.flush()
        candidate = Candidate(package, METRICS, protocol.hash, log.run_id, tags)
        register(candidate, params.register_, tracker, lambda version: METRICS)
    return log.run_id


def make_finished(root: Path) -> Checkout:
    """A checkout whose run is done."""
    copy_project(root)
    write_shards(root)
    write_search(root)
    write_training(root)
    protocol = write_evaluation(root)
    (root / "artifacts" / "reference").mkdir()
    (root / "artifacts" / "reference" / "protocol.json").write_text(json.dumps(protocol.reference.model_dump()))
    run_id = register_version(root, protocol)
    (root / STAGE_SECONDS).parent.mkdir(exist_ok=True)
    (root / STAGE_SECONDS).write_text(json.dumps(SECONDS))
    run(root, "dvc", "commit", "--force", "--quiet")
    return Checkout(root, run_id)
