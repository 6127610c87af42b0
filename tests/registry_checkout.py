"""A checkout with a registry of three versions, for tests of commands and flows that run beside it."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import pytest
import yaml

from ganpipe.registry.alias_history import AliasHistory
from ganpipe.registry.versions import CARD_TAG, CHALLENGER, CHAMPION, CONTENT_TAG, METRICS_TAG, PROTOCOL_TAG
from ganpipe.tracking.runs import Tracker

ROOT = Path(__file__).parents[1]


def checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and an MLflow database: version 1 is champion, 2 is better and the challenger, 3 is
    worse. No version has a generator behind it. The working directory is moved there."""
    for name in ("MLFLOW_TRACKING_URI", "GANPIPE_USER", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    root = folder / "checkout"
    (root / ".dvc").mkdir(parents=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["register"] |= {"model_name": "tests", "metric": "fid_x", "conditions": {}}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (root / "mlflow.db").write_bytes(_database())
    monkeypatch.chdir(root)
    return root


@cache
def _database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker.at(Path(folder), "ganpipe")
        client = tracker.client()
        run_id = client.create_run(tracker.experiment_id(client)).info.run_id
        client.create_registered_model("tests")
        for fid in (40.0, 30.0, 50.0):
            tags = {
                CONTENT_TAG: str(fid),
                METRICS_TAG: json.dumps({"fid_x": fid}),
                PROTOCOL_TAG: "p" * 16,
                CARD_TAG: "A generator.",
                "ganpipe.gan": "dcgan",
                "ganpipe.data.source": "mnist",
                "ganpipe.git.commit": "0123456789abcdef",
                "ganpipe.reasons": f"The gate saw {fid:g}.",
            }
            client.create_model_version("tests", "mlflow-artifacts:/none", run_id, tags)
        history = AliasHistory(client, tracker, "tests")
        history.move(history.state(CHAMPION), 1, "the first", "registered", by="ada")
        history.move(history.state(CHALLENGER), 2, "newest", "registered", by="ada")
        return (Path(folder) / "mlflow.db").read_bytes()
