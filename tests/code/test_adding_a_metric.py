"""docs/adding-a-metric.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from page_parts import apply, blocks

ROOT = Path(__file__).parents[2]
PAGE = "adding-a-metric.md"
TABLE = "tests/evaluation/test_metrics.py"
MEASURE = """
import json, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
import ganpipe
assert ganpipe.__file__.startswith({root!r})
from evaluation_parts import PROGRESS, digits_dataset, new_gan
from ganpipe.evaluation import metrics
from ganpipe.evaluation.evaluate import evaluate
from ganpipe.evaluation.extractors import efficientnet_lite0
from ganpipe.evaluation.measured import Subject
from ganpipe.evaluation.reference import compute_reference
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.packaging.card import card
from ganpipe.registry.settings import RegisterSettings

settings = EvaluateSettings(resize=32, num_samples=20, num_real=20, kid_subsets=1, kid_subset_size=10)
gan, dataset, extractor = new_gan("gan"), digits_dataset(40), efficientnet_lite0(32)
reference = compute_reference(dataset, extractor, settings)
found = evaluate(Subject(gan, PROGRESS, dataset, reference, extractor, settings), with_figures=False)
found.save(Path("evaluate"))
trained = dict(gan="gan", config={{}}, averaged=True, data=gan.data.to_json(), run_key="x",
               progress=dict(images_seen=0, num_images=1, step=0))
data = dict(source="x", description="", homepage="", licence="", digest="", classes=[], num_train=1, num_validation=0)
protocol = json.loads(Path("evaluate/protocol.json").read_text())
Path("card.md").write_text(card(trained, data, {{}}, found.metrics, protocol, found.intervals))
assert not RegisterSettings(metric="coverage_efficientnet_lite0").lower_is_better
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the page's files and rows in it."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("ganpipe", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    apply(PAGE, folder)
    return folder


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_page_tells_the_whole_way() -> None:
    assert [attributes["file"] for _, attributes, _ in blocks(PAGE) if "file" in attributes] == [
        "ganpipe/evaluation/metrics/coverage.py",
        TABLE,
    ]


def test_the_new_metric_is_measured_and_on_the_card(copy: Path) -> None:
    run(copy, "-c", MEASURE.format(root=str(copy)))
    measured = json.loads((copy / "evaluate" / "metrics.json").read_text())
    assert {"coverage_efficientnet_lite0", "fid_efficientnet_lite0"} <= set(measured)
    value = measured["coverage_efficientnet_lite0"]
    tells = "Share of real images near which there is a generated one"
    low, high = json.loads((copy / "evaluate" / "intervals.json").read_text())["coverage_efficientnet_lite0"]
    row = f"| coverage_efficientnet_lite0 | {value:g} | {low:g} to {high:g} | higher | {tells} |"
    assert row in (copy / "card.md").read_text()


def test_the_projects_own_tests_find_it_and_pass(copy: Path) -> None:
    said = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", TABLE, "-k", "coverage")
    assert "2 passed" in said
