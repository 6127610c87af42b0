"""The flow `promote`: the form's types, the command behind it, its error line, and what its page shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import ParameterTypeError
from registry_checkout import checkout

from ganpipe import services
from pipelines.promote import PromotionFailed, promote

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return checkout(tmp_path, monkeypatch)


def artifacts(state: Any) -> dict[str, str]:
    run_id = state.state_details.flow_run_id
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        )
    return {item.key: str(item.data) for item in found}


def failure(**parameters: Any) -> str:
    with pytest.raises(PromotionFailed) as caught:
        promote(**parameters)
    return str(caught.value)


def test_the_form_knows_the_types() -> None:
    schema = promote.parameters.model_dump()["properties"]
    assert set(schema) == {"action", "model", "version", "force", "reason", "who"}
    assert schema["action"]["enum"] == ["promote", "rollback"]
    assert schema["version"]["anyOf"][0]["minimum"] == 1
    with pytest.raises(ParameterTypeError, match="version"):
        promote(version="three")
    with pytest.raises(ParameterTypeError, match="action"):
        promote(action="demote")


def test_promoted_with_a_page(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANPIPE_USER", "prefect worker 1")
    state = promote(version=2, return_state=True)
    assert state.is_completed()
    shown = artifacts(state)
    assert "| **2** | challenger, champion | 30 |" in shown["promotion"]
    assert "| 1 | - | 40 |" in shown["promotion"]
    assert "promoted by prefect worker 1" in shown["promotion"]
    assert "champion" not in shown  # a link, where MLflow has a page


def test_bad_values_fail_in_the_form_s_words(root: Path) -> None:
    # The command's own errors are in tests/commands/test_registry_commands.py.
    assert failure(action="rollback", version=2) == "version: a roll back goes where the history says; leave it empty"
    assert (
        failure(version=2, force=True) == "force: needs a reason, because the history says why the gate was overruled"
    )


@pytest.mark.slow
def test_what_the_gate_refuses_is_said_in_the_form_s_parameters(root: Path) -> None:
    said = failure(version=3)
    assert said.startswith(
        "the gate does not make version 3 of tests the champion: fid_x (lower is better): 50 against"
    )
    assert said.endswith("does not win. To do it all the same: start it again with force and a reason")
    assert "--" not in said
    assert promote(version=3, force=True, reason="as it said", return_state=True).is_completed()


@pytest.mark.slow
def test_rolled_back_with_a_link_to_the_version(root: Path) -> None:
    server = services.ensure("mlflow", root)
    try:
        promote(version=2)
        state = promote(action="rollback", reason="it repeats itself", who="ada", return_state=True)
    finally:
        services.stop(root, ["mlflow"])
    shown = artifacts(state)
    assert "| version 2 | version 1 | rolled back by ada | it repeats itself |" in shown["promotion"]
    assert f"({server.url.rstrip('/')}/#/models/tests/versions/1)" in shown["champion"]
