"""An MLflow registry of its own for each test that asks for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from registry_parts import Desk, build, tracker_in


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An empty MLflow database, and a package."""
    root = tmp_path_factory.mktemp("template")
    tracker_in(root).client()
    return root / "mlflow.db", build(tmp_path_factory.mktemp("package"), "cgan")


@pytest.fixture
def desk(tmp_path: Path, prepared: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("GANPIPE_USER", raising=False)
    return Desk(tracker_in(tmp_path, prepared[0]), prepared[1])
