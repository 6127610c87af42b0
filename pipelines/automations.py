"""Automations of the Prefect server: lost runs are marked as crashed, a webhook hears of champions, failures, alarms.

    python -m pipelines.automations [--pending-seconds SECONDS] [--webhook URL]

Run again, it replaces what it made. Prefect keeps the URL as a secret (the block `ganpipe-webhook`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture, ResourceSpecification

from ganpipe.errors import GanpipeError
from ganpipe.events import ALARM, ALIAS_MOVED

BLOCK = "ganpipe-webhook"
LOST_AFTER_SECONDS = 90
"""Three heartbeats, as prefect.yaml has them (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)."""
PENDING_FOR_SECONDS = 300
"""A run begins within seconds after a worker has taken it; on a machine with too much to do, within a minute or two."""
FLOWS = ("pipeline", "sweep", "promote")
"""The flows of this project: other projects' workers on the same server may take their time."""
RESTING = ("Completed", "Failed", "Crashed", "Cancelled", "Paused", "Suspended", "Scheduled", "AwaitingRetry",
           "AwaitingConcurrencySlot", "Late")  # fmt: skip
"""Names of the states in which a run has no heartbeats and no worker works on it."""


def install(webhook: str | None = None, pending_seconds: int = PENDING_FOR_SECONDS) -> list[str]:
    """Make or replace the automations; returns their names. Those of an earlier webhook stay where none is given.

    Raises:
        GanpipeError: `webhook` is no http(s) URL, or `pending_seconds` is too short.
    """
    if pending_seconds < 10:
        raise GanpipeError(f"--pending-seconds: got {pending_seconds}; expected 10 or more")
    wanted = [_run_lost(), _run_never_began(pending_seconds)]
    if webhook is not None:
        if urlsplit(webhook).scheme not in ("http", "https") or not urlsplit(webhook).netloc:
            raise GanpipeError(f"--webhook: got {webhook!r}; expected a URL: https://host/path")
        Webhook.register_type_and_schema()
        block = Webhook(url=webhook).save(BLOCK, overwrite=True)
        wanted += [_champion_changed(block), _run_failed(block), _alarm(block)]
    with get_client(sync_client=True) as client:
        for automation in wanted:
            found = client.read_automations_by_name(automation.name)
            if found:
                client.update_automation(found[0].id, automation)
            else:
                client.create_automation(automation)
            for other in found[1:]:
                client.delete_automation(other.id)
    return [automation.name for automation in wanted]


def _run_lost() -> AutomationCore:
    ends = {f"prefect.flow-run.{state}" for state in RESTING}
    return AutomationCore(
        name="ganpipe: a lost run is marked as crashed",
        description="A run whose host or process died cannot say so: its heartbeats stay away.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *ends},
            match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=LOST_AFTER_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"Not heard of for {LOST_AFTER_SECONDS} s: its process or its host died. What is done is kept; "
                "`prefect flow-run retry` with this run's id goes on from the last checkpoint.",
            )
        ],
    )


def _run_never_began(pending_seconds: int) -> AutomationCore:
    pending = {"prefect.flow-run.Pending", "prefect.flow-run.Submitting"}
    begun = {f"prefect.flow-run.{state}" for state in ("Running", *RESTING)}
    return AutomationCore(
        name="ganpipe: a run that never began is marked as crashed",
        description="A worker that dies between taking a run and starting it leaves it Pending, without a heartbeat.",
        trigger=EventTrigger(
            after=pending,
            expect=pending | begun,
            match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification.model_validate(
                {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=pending_seconds),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"Pending for {pending_seconds} s: the worker that took it died before the run began. "
                "`prefect flow-run retry` with this run's id starts it once a worker is there.",
            )
        ],
    )


def _champion_changed(block: object) -> AutomationCore:
    return AutomationCore(
        name="ganpipe: the champion changed",
        description="Calls the webhook when the alias `champion` of a model moves.",
        trigger=EventTrigger(
            expect={ALIAS_MOVED},
            match=ResourceSpecification.model_validate({"prefect.resource.id": "ganpipe.model.*", "alias": "champion"}),
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            _call(
                block,
                event="event.event",
                model="event.resource.name",
                version="event.payload.to",
                by="event.payload.by",
                why="event.payload.why",
            )
        ],
    )


def _run_failed(block: object) -> AutomationCore:
    return AutomationCore(
        name="ganpipe: a run failed or crashed",
        description="Calls the webhook when a flow run of this server ends as Failed or Crashed.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[_call(block, event="event.event", flow="flow.name", run="flow_run.name")],
    )


def _alarm(block: object) -> AutomationCore:
    return AutomationCore(
        name="ganpipe: an alarm of a training",
        description="Calls the webhook when a training collapses, memorises, or gets no better.",
        trigger=EventTrigger(
            expect={ALARM},
            match=ResourceSpecification.model_validate({"prefect.resource.id": "ganpipe.stage.*"}),
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[_call(block, event="event.event", run="event.payload.run", alarm="event.payload.alarm")],
    )


def _call(block: object, **fields: str) -> CallWebhook:
    """POST the values of Jinja expressions as JSON: whatever characters they hold."""
    pairs = ", ".join(f'"{name}": {{{{ {expression} | tojson }}}}' for name, expression in fields.items())
    return CallWebhook(block_document_id=block, payload=f"{{{pairs}}}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.automations", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--webhook",
        metavar="URL",
        help="where to POST JSON when a champion changes, a run fails, or a training raises an alarm",
    )
    parser.add_argument(
        "--pending-seconds",
        type=int,
        default=PENDING_FOR_SECONDS,
        metavar="SECONDS",
        help="a run that a worker took and that did not begin for so long is marked as crashed; default: %(default)s",
    )
    options = parser.parse_args(argv)
    try:
        names = install(options.webhook, options.pending_seconds)
    except GanpipeError as error:
        parser.error(str(error))
    print("\n".join(names))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
