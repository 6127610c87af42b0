"""A stage depends on the code that it uses and on no other: a change to what made an output always makes it anew."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ganpipe.imports import SOURCES
from ganpipe.params import Params
from ganpipe.stages.code import READS, SETTINGS, code_of
from ganpipe.stages.tune import OF_TRAIN

ROOT = Path(__file__).parents[2]


def stages() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


def outputs(stage: dict[str, Any]) -> list[str]:
    return [next(iter(out)) if isinstance(out, dict) else out for out in stage["outs"] + stage.get("metrics", [])]


@pytest.mark.parametrize("stage", READS)
def test_a_stage_depends_on_its_list_of_code_and_on_no_other_code(stage: str) -> None:
    deps = stages()[stage]["deps"]
    assert deps[0] == f"artifacts/code/{stage}.json"
    assert not [dep for dep in deps[1:] if dep.startswith(("ganpipe", "artifacts/code"))]


def test_the_stage_code_writes_a_list_for_every_other_stage() -> None:
    others = [name for name in stages() if name != "code"]
    assert list(READS) == others
    assert outputs(stages()["code"]) == [f"artifacts/code/{name}.json" for name in others]
    assert stages()["code"]["deps"] == ["ganpipe"]


@pytest.mark.parametrize("stage", READS)
def test_the_sections_that_a_stage_reads_are_those_of_dvc_yaml(stage: str) -> None:
    named = {key.split(".")[0] for key in stages()[stage]["params"]}
    # These two load the GAN with the settings that train wrote.
    loads_the_gan = {"gans"} if stage in ("evaluate", "register") else set()
    assert set(READS[stage]) == named | loads_the_gan
    assert [key for key in stages()[stage]["params"] if key.startswith("gans")] == (
        ["gans.${train.gan}"] if stage in ("tune", "train") else []
    )


def test_each_section_is_defined_where_the_stage_code_says() -> None:
    fields = {(field.alias or name): field.annotation for name, field in Params.model_fields.items()}
    assert set(fields) == set(SETTINGS)
    for name, annotation in fields.items():
        if name not in ("sources", "gans"):  # chosen by name
            assert annotation is not None
            assert annotation.__module__ == "ganpipe." + SETTINGS[name].removesuffix(".py").replace("/", ".")


@pytest.mark.parametrize("stage", READS)
def test_what_a_stage_imports_is_in_its_list(stage: str) -> None:
    """By a real import: what is loaded and not listed is only what reading all of params.yaml needs."""
    script = (
        "import sys, json, importlib, ganpipe.params; before = set(sys.modules); "
        f"importlib.import_module('ganpipe.stages.{stage}'); "
        "print(json.dumps([sys.modules[n].__file__ for n in set(sys.modules) - before if n.startswith('ganpipe')]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {str(Path(file).relative_to(ROOT)) for file in json.loads(done.stdout)}
    listed = set(code_of(stage, "dcgan", "mnist"))
    assert f"ganpipe/stages/{stage}.py" in loaded
    assert loaded - listed == set()


def test_what_each_stage_does_not_use_is_not_in_its_list() -> None:
    lists = {stage: set(code_of(stage, "dcgan", "mnist")) for stage in READS}
    gans = {name: {file for file in found if file.startswith("ganpipe/gans/")} for name, found in lists.items()}
    assert gans["ingest"] == gans["reference"] == set()
    for stage in ("tune", "train", "evaluate", "register"):
        others = {"cgan", "gan", "wgan_gp"} & {Path(file).stem for file in gans[stage]}
        assert not others, stage
        assert {"ganpipe/gans/dcgan.py", "ganpipe/networks/dcgan.py"} <= lists[stage]
    assert "ganpipe/losses/penalties.py" not in lists["train"]
    assert "ganpipe/losses/penalties.py" in code_of("train", "wgan_gp")
    assert {file for file in lists["ingest"] if "/sources/" in file} == {
        f"ganpipe/data/sources/{name}.py" for name in ("__init__", "base", "files", "mnist")
    }
    # data.convert_on: cluster needs the way to Ray, and no more of that room.
    way_to_ray = {"__init__", "cluster", "failures", "interfaces", "job_api", "ray_tasks"}
    assert {Path(f).stem for f in lists["ingest"] if f.startswith("ganpipe/training")} == way_to_ray
    assert {file for file in lists["ingest"] if file.startswith("ganpipe/evaluation")} == {
        "ganpipe/evaluation/__init__.py",
        "ganpipe/evaluation/grids.py",  # draws the picture of the real images
    }


@pytest.mark.parametrize(
    ("file", "stages_that_use_it"),
    [
        ("gans/base.py", ["tune", "train", "evaluate", "register"]),
        ("networks/mlp.py", ["tune", "train", "evaluate", "register"]),
        # gans/gan.py imports this loss by way of gans/base.py.
        ("losses/adversarial.py", ["tune", "train", "evaluate", "register"]),
        ("training/feed.py", ["tune", "train"]),
        # A training that is submitted to a cluster may be a search.
        ("training/search.py", ["tune", "train"]),
        ("training/search_figure.py", ["tune"]),
        ("registry/registration.py", ["register"]),
        ("data/sources/folder.py", ["ingest"]),
        ("evaluation/reference.py", ["reference", "tune", "train", "evaluate", "register"]),
        ("section.py", list(READS)),
        # Found by their names; new files here, so that nothing imports them.
        ("evaluation/metrics/another.py", ["evaluate", "register"]),
        ("evaluation/figures/another.py", ["evaluate"]),
        ("gans/another.py", []),
        ("data/sources/another.py", []),
    ],
)
def test_who_uses_a_file(lists_with_another: dict[str, set[str]], file: str, stages_that_use_it: list[str]) -> None:
    users = [stage for stage, files in lists_with_another.items() if f"ganpipe/{file}" in files]
    assert users == stages_that_use_it


@pytest.fixture(scope="module")
def lists_with_another(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Stage -> the files that it uses with the GAN `gan` and the source `folder`, in a package with some new files."""
    package = tmp_path_factory.mktemp("lineage") / "ganpipe"
    shutil.copytree(SOURCES, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("evaluation/metrics", "evaluation/figures", "gans", "data/sources"):
        (package / folder / "another.py").write_text("from .base import *\n")
    return {stage: set(code_of(stage, "gan", "folder", package)) for stage in READS}


def test_the_search_depends_on_what_it_reads_of_train() -> None:
    named = {key.removeprefix("train.") for key in stages()["tune"]["params"] if key.startswith("train.")}
    assert named == set(OF_TRAIN)


def test_every_output_lies_in_artifacts_and_every_stage_has_a_policy() -> None:
    for name, stage in stages().items():
        assert all(out.startswith("artifacts/") for out in outputs(stage)), name
        assert {"retries", "timeout_seconds"} <= set(stage["meta"]), name
        assert stage["desc"], name
