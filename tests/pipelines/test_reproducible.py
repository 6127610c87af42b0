"""`dvc repro --force` makes the same bytes again: every GAN, with one worker and with two."""

from __future__ import annotations

import pytest
import yaml
from projects import WIDTHS, Project, make_project
from training_parts import SMALL

from ganpipe import gans

TINY = {
    "train.num_images": 320,
    "train.checkpoint_every": 160,
    "train.log_every": 80,
    "tune.num_images": 80,
    "tune.scheduler": "fifo",
    "tune.searcher": "random",
    "tune.cpus_per_worker": 1,
}


@pytest.fixture(scope="module")
def tiny(ray_head: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One checkout for all GANs, so that they share a Ray, images and their features."""
    project = make_project(tmp_path_factory.mktemp("tiny") / "project")
    project.environment["RAY_ADDRESS"] = ray_head
    for key, value in TINY.items():
        project.set(key, value)
    for gan in gans.names():
        for key, value in {**SMALL.get(gan, {}), **WIDTHS.get(gan, {})}.items():
            project.set(f"gans.{gan}.{key}", value)
    project.commit("A tiny configuration")
    project.dvc("repro", "reference")
    return project


def remade(project: Project, *targets: str) -> None:
    """Bring the outputs up to date, then make them all again by force: nothing may differ."""
    project.dvc("repro")
    before, lock = project.files(), (project.root / "dvc.lock").read_bytes()
    said = project.dvc("repro", "--force", *targets)
    assert "> ganpipe train" in said, "nothing was trained again"
    assert "the training is complete already" not in said
    assert project.files() == before
    assert (project.root / "dvc.lock").read_bytes() == lock


@pytest.mark.slow
@pytest.mark.parametrize("gan", gans.names())
def test_a_forced_repro_leaves_the_lock_as_it_was(gan: str, tiny: Project) -> None:
    tiny.set("train.gan", gan)
    tiny.set("cluster.num_workers", 1)
    # Without a target all six stages; ingest and reference are the same for all, and one of the GANs makes them again.
    remade(tiny, *(() if gan == gans.names()[0] else ("--downstream", "tune")))
    alone = tiny.files()["artifacts/train/generator.safetensors"]
    tiny.set("cluster.num_workers", 2)
    remade(tiny, "--downstream", "train")
    assert tiny.files()["artifacts/train/generator.safetensors"] != alone, "the number of workers rounds differently"
    assert len(yaml.safe_load((tiny.root / "dvc.lock").read_text())["stages"]) == 6
