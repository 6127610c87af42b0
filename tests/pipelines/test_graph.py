"""The stage graph out of dvc.yaml."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganpipe.errors import GanpipeError
from pipelines import report
from pipelines.graph import read_graph, with_upstream

ROOT = Path(__file__).parents[2]

# Written in the wrong order on purpose; the templates and the foreach are DVC's to resolve.
DIAMOND = """
vars: [{kind: round}]
stages:
  last:
    cmd: echo last
    deps: [left.txt, right-a.txt, right-b.txt]
    outs: [last.txt]
  right:
    foreach: [a, b]
    do:
      cmd: echo ${item}
      deps: ["${kind}.txt"]
      outs: ["right-${item}.txt"]
  left:
    desc: The left way round
    cmd: echo left
    deps: [round.txt]
    outs: [left.txt]
    meta: {retries: 3, retry_delay_seconds: 0.5, timeout_seconds: 60}
  first:
    cmd: echo first
    outs: ["${kind}.txt"]
    meta: {description: The first of all}
"""


def test_stages_come_after_what_they_read_and_know_it(make_repo):
    stages = read_graph(make_repo(DIAMOND))
    names = [stage.name for stage in stages]
    assert sorted(names) == ["first", "last", "left", "right@a", "right@b"]
    upstream = {stage.name: stage.upstream for stage in stages}
    assert upstream == {
        "first": (),
        "left": ("first",),
        "right@a": ("first",),
        "right@b": ("first",),
        "last": ("left", "right@a", "right@b"),
    }
    assert all(names.index(need) < names.index(name) for name, needs in upstream.items() for need in needs)


def test_policy_is_the_stages_meta_with_its_desc(make_repo):
    policies = {stage.name: stage.policy for stage in read_graph(make_repo(DIAMOND))}
    left = policies["left"]
    assert (left.retries, left.retry_delay_seconds, left.timeout_seconds) == (3, 0.5, 60)
    assert left.description == "The left way round"
    assert policies["first"].description == "The first of all"
    assert (policies["last"].retries, policies["last"].timeout_seconds) == (0, None)


def test_targets_bring_what_they_need_and_no_more(make_repo):
    stages = read_graph(make_repo(DIAMOND))
    assert [stage.name for stage in with_upstream(stages, ["right@b"])] == ["first", "right@b"]
    assert with_upstream(stages, []) == stages
    with pytest.raises(GanpipeError, match=r"no stage 'lasst' in dvc\.yaml; did you mean 'last'"):
        with_upstream(stages, ["lasst"])


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ("{retrys: 3}", r"dvc.yaml: stages.train.meta.retrys: unknown key; did you mean 'retries'\?"),
        ("{retries: many}", r"dvc.yaml: stages.train.meta.retries: got 'many'; .*integer"),
        ("{timeout_seconds: 0}", r"dvc.yaml: stages.train.meta.timeout_seconds: got 0; .*greater than 0"),
        ("[3]", r"dvc.yaml: stages.train.meta: got \[3\]; expected a mapping"),
    ],
)
def test_wrong_meta_names_stage_and_key(make_repo, meta, message):
    root = make_repo(f"stages:\n  train:\n    cmd: echo\n    outs: [x]\n    meta: {meta}\n")
    with pytest.raises(GanpipeError, match=message):
        read_graph(root)


@pytest.mark.parametrize(
    ("dvc_yaml", "message"),
    [
        ("stages: {}\n", "has no stage"),
        ("stages:\n  a:\n    cmd: x\n    outz: [y]\n", "dvc.yaml"),
        (
            "stages:\n  a: {cmd: x, deps: [p], outs: [q]}\n  b: {cmd: x, deps: [q], outs: [p]}\n",
            "both a dependency and an output",
        ),
    ],
    ids=["empty", "unknown key", "cycle"],
)
def test_dvc_yaml_that_is_no_graph(make_repo, dvc_yaml, message):
    root = make_repo(dvc_yaml)
    with pytest.raises(GanpipeError, match=message):
        read_graph(root)


def test_the_real_images_are_a_picture_of_ingest():
    (ingest,) = [stage for stage in read_graph(ROOT) if stage.name == "ingest"]
    assert ingest.pictures == ("artifacts/ingest/real.png",)


def test_a_large_picture_is_shown_smaller(tmp_path):
    noise = np.random.default_rng(0).integers(110, 140, (1200, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > report.LARGEST_PICTURE
    text = report.picture(tmp_path / "grid.png")
    head, _, data = text.removesuffix(")").partition("base64,")
    assert head == "![grid.png](data:image/jpeg;"
    with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
        assert shown.size == (667, 1000)
