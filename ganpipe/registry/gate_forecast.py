"""What is known of the gate's decision before a training: can the new generator be compared with today's champion?"""

from __future__ import annotations

from ..packaging.output_shape import Shape, incompatibility, shape_of
from ..tracking.connection import sqlite_path
from ..tracking.runs import Tracker
from .gate import NotComparable
from .settings import RegisterSettings
from .versions import CHAMPION, is_registered, measurement_of, version_by_alias


def why_not_comparable(tracker: Tracker, settings: RegisterSettings, coming: Shape) -> str:
    """Why a generator of the shape `coming` cannot be compared with the champion; empty if it can, or if there is no
    champion. Only reads: if MLflow's database does not exist yet, it is not created.

    Raises:
        GanpipeError: MLflow does not answer.
    """
    path = sqlite_path(tracker.uri)
    if path is not None and not (path.exists() and path.stat().st_size):
        return ""
    client = tracker.client()
    if not is_registered(client, tracker, settings.model_name):
        return ""
    champion = version_by_alias(client, tracker, settings.model_name, CHAMPION)
    if champion is None:
        return ""
    try:
        measurement_of(champion)
    except NotComparable as error:
        return str(error)
    shape = shape_of(tracker, champion)
    if shape is None:
        return (
            f"the champion, models:/{champion.name}/{champion.version}, has no readable files in MLflow, so it cannot "
            "be measured again on other data"
        )
    return incompatibility(shape, coming, "this run")


def comparison_warning(settings: RegisterSettings, why: str) -> str:
    """The message of `ganpipe check` if the new generator cannot be compared with the champion.

    Args:
        why: the reason, as `why_not_comparable` returns it.
    """
    outcome = {
        "refuse": "set challenger or replace, or another register.model_name",
        "challenger": "the new generator becomes challenger and the champion stays; to have it replaced: replace",
        "replace": "the new generator replaces the champion if the conditions hold",
    }[settings.not_comparable]
    return f"register: not comparable: {why}. register.not_comparable is {settings.not_comparable}: {outcome}"
