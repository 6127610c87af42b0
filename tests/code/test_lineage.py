"""A stage depends on the code that it uses and on no other: a change to what made an output always makes it anew."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def test_the_search_depends_on_what_it_reads_of_train() -> None:
    named = {key.removeprefix("train.") for key in stages()["tune"]["params"] if key.startswith("train.")}
    assert named == set(OF_TRAIN)


def test_every_output_lies_in_artifacts_and_every_stage_has_a_policy() -> None:
    for name, stage in stages().items():
        assert all(out.startswith("artifacts/") for out in outputs(stage)), name
        assert {"retries", "timeout_seconds"} <= set(stage["meta"]), name
        assert stage["desc"], name
