"""The flow `promote`: `ganpipe promote` and `ganpipe rollback` with a form, and what they did as a page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from pydantic import Field

from ganpipe import environment
from ganpipe.errors import GanpipeError

from . import run_stage
from .stages import child_environment, error_in_output

TIMEOUT_SECONDS = 3600.0
"""Long, because two generators are measured again where their protocols differ."""
OVERRULING = " To do it all the same: "
"""What follows in the words of `ganpipe promote` are its flags; here it is this form's parameters."""


class PromotionFailed(GanpipeError):
    """The alias was not moved; the message is the command's own error line."""


@flow(name="promote", description="Make a version the champion, or take that back.", persist_result=False)
def promote(
    action: Literal["promote", "rollback"] = "promote",
    model: str | None = None,
    version: Annotated[int, Field(ge=1)] | None = None,
    force: bool = False,
    reason: str | None = None,
    who: str | None = None,
) -> None:
    """Move the alias champion.

    Args:
        action: promote a version, or roll back to what was champion before.
        model: registered model; empty: register.model_name of params.yaml.
        version: which becomes champion; empty: the challenger.
        force: whatever the gate says; needs a reason.
        reason: for the alias history.
        who: for the alias history; empty: GANPIPE_USER of the worker, else its login name.

    Raises:
        PromotionFailed: with the command's own error line.
    """
    root = environment.repo_root()
    if action == "rollback" and version is not None:
        raise PromotionFailed("version: a roll back goes where the history says; leave it empty")
    if action == "promote" and force and not (reason or "").strip():
        raise PromotionFailed("force: needs a reason, because the history says why the gate was overruled")
    options = [*_option("--model", model), *_option("--reason", reason), *_option("--who", who)]
    if action == "promote":
        options += [*_option("--version", version), *(["--force"] if force else [])]
    logger = get_run_logger()
    outcome = run_stage.run(
        _command(action, options), root, child_environment(root, root), logger.info, TIMEOUT_SECONDS
    )
    if outcome.timed_out:
        raise PromotionFailed(f"not done within {TIMEOUT_SECONDS:g} s")
    if outcome.returncode != 0:
        error, overruling, _ = error_in_output(outcome.tail).partition(OVERRULING)
        raise PromotionFailed(f"{error}{overruling}start it again with force and a reason" if overruling else error)
    _publish(root, model)


def _option(name: str, value: Any) -> list[str]:
    return [] if value in (None, "") else [f"{name}={value}"]


def _command(name: str, options: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "ganpipe", name, *options]


def _publish(root: Path, model: str | None) -> None:
    command = _command("models", ["--json", *_option("--model", model)])
    done = subprocess.run(
        command, cwd=root, env=child_environment(root, root), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise GanpipeError(f"the alias was moved; it cannot be shown: {error_in_output(done.stderr.splitlines())}")
    found = json.loads(done.stdout)
    create_markdown_artifact(markdown(found), key="promotion", description=f"Versions of {found['model']}, and moves")
    champion = next((item for item in found["versions"] if "champion" in item["aliases"]), None)
    if champion is not None and champion["page"].startswith(("http://", "https://")):  # else no page is up
        create_link_artifact(
            champion["page"],
            key="champion",
            link_text=f"{found['model']}, version {champion['version']}",
            description="The champion's page in MLflow",
        )


def markdown(found: dict[str, Any], num_moves: int = 10) -> str:
    """What `ganpipe models --json` says, as tables: the versions, the champion's in bold, and the latest moves."""
    names = sorted({name for item in found["versions"] for name in item["metrics"]})
    lines = [f"## {found['model']}", "", f"| version | aliases | {' | '.join([*names, 'protocol'])} | commit |"]
    lines.append("|---" * (len(names) + 4) + "|")
    for item in found["versions"]:
        number = f"**{item['version']}**" if "champion" in item["aliases"] else item["version"]
        values = [f"{item['metrics'][name]:g}" if name in item["metrics"] else "-" for name in names]
        aliases = ", ".join(item["aliases"]) or "-"
        cells = [number, aliases, *values, item["protocol"][:12] or "-", item["commit"][:8] or "-"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "## Moves", "", "| when | alias | from | to | how | why |", "|---|---|---|---|---|---|"]
    for move in reversed(found["history"][-num_moves:]):
        ends = [f"version {move[end]}" if move[end] is not None else "none" for end in ("from", "to")]
        how = f"{move['how']} by {move['by']}"
        cells = [move["at"][:19], move["alias"], *ends, how, move["why"]]
        lines.append(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"
