"""What a stage's numbers look like on Prefect's page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ganpipe.stages.common import leave_note
from pipelines import artifacts


def test_a_table_of_metrics_says_what_each_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[list[dict[str, Any]], dict[str, Any]]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifacts, "create_table_artifact", lambda rows, **options: shown.append((rows, options)))
    leave_note("evaluate", about="the protocol", metrics={"fid_x": {"better": "lower", "tells": "A distance"}})
    note = artifacts.read_note(tmp_path, "evaluate")
    artifacts.publish_metrics("evaluate-metrics", {"fid_x": 4.5, "other": 1.0}, note)
    assert shown[0][0] == [
        {"metric": "fid_x", "value": 4.5, "better": "lower", "tells": "A distance", "protocol": "the protocol"},
        {"metric": "other", "value": 1.0, "better": "", "tells": "", "protocol": "the protocol"},
    ]


def test_a_note_of_an_earlier_ganpipe_has_a_table_without_what_numbers_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[list[dict[str, Any]]] = []
    monkeypatch.setattr(artifacts, "create_table_artifact", lambda rows, **options: shown.append(rows))
    (tmp_path / artifacts.NOTES).mkdir(parents=True)
    (tmp_path / artifacts.NOTES / "evaluate.json").write_text('{"about": "the protocol", "links": {}}')
    artifacts.publish_metrics("evaluate-metrics", {"fid_x": 4.5}, artifacts.read_note(tmp_path, "evaluate"))
    assert shown == [[{"metric": "fid_x", "value": 4.5, "protocol": "the protocol"}]]
