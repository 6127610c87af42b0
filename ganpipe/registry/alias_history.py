"""The history of a model's aliases: who moved which, when, from what, to what and why, in an order that all agree on.

MLflow sets an alias without looking at what it was, so two promotions at once would both succeed. What its database
does refuse is a second value for a run's param. Therefore the history of a registered model's aliases is one MLflow
run (the model's tag `ganpipe.trail` holds its id), and the n-th move of an alias is the run's param `<alias>.<n>`. The
process that writes this param first makes the move; a second process gets an error. The alias follows the history: it
is set to the version of the last move, by the process that made the move or, if that process died before, by the next
process that reads the history. See docs/decisions/0008.
"""

from __future__ import annotations

import getpass
import itertools
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from .. import events
from ..errors import GanpipeError
from ..redaction import without_password
from ..tracking.connection import with_retries
from ..tracking.run_log import clean_key, shorten
from ..tracking.runs import STAGE_TAG, Tracker, get_run_or_none
from .versions import CONTENT_TAG, all_versions, registered_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TRAIL_TAG = "ganpipe.trail"
MAX_WHY_LENGTH = 2000
_SHOWN = ("alias", "number", "to", "by", "at", "why", "how")
How = Literal["registered", "promoted", "forced", "rolled back", "outside ganpipe"]


class Overtaken(GanpipeError):
    """Somebody else moved the alias after this process had read it; nothing was changed."""


@dataclass(frozen=True)
class Move:
    """One move of an alias.

    Attributes:
        number: counts the moves of this alias from 1, without gaps.
        before: version that the alias pointed to; None if it did not exist.
        to: version that the alias points to after the move; None if it was removed.
        at: ISO 8601, UTC, by the clock of the process that moved it.
        how: `registered` and `promoted` by the gate's decision, `forced` against it or without a comparison.
        token: random, so that the texts of two processes that make the same move differ.
    """

    alias: str
    number: int
    before: int | None
    to: int | None
    at: str
    by: str
    why: str
    how: How
    token: str

    @property
    def text(self) -> str:
        """As JSON, short enough for a param."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True)
class AliasState:
    """State of an alias: after `number` moves it points to `version` (None: the alias does not exist)."""

    alias: str
    number: int
    version: int | None


def current_user() -> str:
    """Name of the person for the alias history: GANPIPE_USER (for CI), else the login name."""
    if named := os.environ.get("GANPIPE_USER", "").strip():
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


class AliasHistory:
    """The alias history of one registered model, which must have a version that ganpipe registered."""

    def __init__(self, client: MlflowClient, tracker: Tracker, name: str) -> None:
        """Find the model's history, or start one.

        Raises:
            GanpipeError: there is no such model, or ganpipe registered none of its versions.
        """
        self._client = client
        self._tracker = tracker
        self.name = name
        known = registered_model(client, tracker, name).tags.get(TRAIL_TAG)
        self.run_id = known if known and self._run_if_exists(known) else self._start_history()

    def moves(self, alias: str) -> list[Move]:
        """All moves of `alias`, oldest first."""
        return moves_of(self._run(), alias)

    def state(self, alias: str) -> AliasState:
        """The state of `alias`. If an earlier process died between recording a move and setting the alias, the alias is
        set now; a move that was made without ganpipe (for example on MLflow's page) is recorded."""
        while True:
            run = self._run()
            moves = moves_of(run, alias)
            now = self._alias_target(alias)
            last = moves[-1] if moves else None
            if last is not None and _settled_tag(last) not in run.data.tags:
                self._follow_history(alias)
                continue
            if (None if last is None else last.to) == now:
                return AliasState(alias, len(moves), now)
            why = f"{alias} was found here; it was not moved by ganpipe"
            state = AliasState(alias, len(moves), None if last is None else last.to)
            # Where another process records this move first, the loop reads what that process wrote.
            self._claim(_next_move(state, now, "unknown", why, "outside ganpipe"))

    def move(self, state: AliasState, to: int, why: str, how: How, by: str | None = None) -> str:
        """Point an alias to version `to`, if nobody has moved it since `state` was read.

        Args:
            why: reason, for people; cut to MAX_WHY_LENGTH characters.
            by: name of the person; by default `current_user()`.

        Returns:
            A sentence that says what moved; empty if the alias points to `to` already.

        Raises:
            Overtaken: somebody else moved the alias meanwhile.
        """
        if state.version == to:
            return ""
        alias = state.alias
        move = _next_move(state, to, by or current_user(), why, how)
        if not self._claim(move):
            other = self.moves(alias)[state.number]
            raise Overtaken(
                f"{other.by} moved {alias} of {self.name} to version {other.to} at {other.at} ({other.how}), while "
                f"this command was about to move it to version {to}; nothing was changed: look at `ganpipe models "
                "--history`"
            )
        self._follow_history(alias)
        resource = {"prefect.resource.id": f"ganpipe.model.{self.name}", "name": self.name, "alias": alias}
        facts = {"from": move.before, "to": to, "by": move.by, "why": move.why, "how": how}
        events.emit(events.ALIAS_MOVED, {**resource, "prefect.resource.name": self.name}, facts)
        origin = "" if state.version is None else f" from version {state.version}"
        return f"{alias} moved{origin} to version {to}."

    # --- the run behind it

    def _start_history(self) -> str:
        """Create the run of the history. Processes that do this at the same time agree on one run, because its id is
        written as a param of the training run of the oldest version (if no version has its run any more, of a run made
        for this). If a history was deleted permanently (`mlflow gc`), a new one is started."""
        home = self._home_run()
        for number in itertools.count(1):
            key = clean_key(f"{TRAIL_TAG}.{self.name}{'' if number == 1 else f'.{number}'}")
            run_id = home.data.params.get(key) or self._create_agreed_run(home, key)
            if self._run_if_exists(run_id):
                break
        with_retries(partial(self._client.set_registered_model_tag, self.name, TRAIL_TAG, run_id), self._tracker.uri)
        return run_id

    def _home_run(self) -> Run:
        own = [item for item in all_versions(self._client, self._tracker, self.name) if CONTENT_TAG in item.tags]
        if not own:
            raise GanpipeError(
                f"ganpipe registered none of the versions of {self.name}, so it moves none of its aliases; choose "
                "another register.model_name"
            )
        for version in own:
            home = self._run_if_exists(version.run_id) if version.run_id else None
            if home is not None and home.info.lifecycle_stage == "active":
                return home
        with self._tracker.run("trail", clean_key(self.name), name=f"home of the alias history of {self.name}") as made:
            run_id = made.run_id
        return with_retries(lambda: self._client.get_run(run_id), self._tracker.uri)

    def _run_if_exists(self, run_id: str) -> Run | None:
        return get_run_or_none(self._client, self._tracker, run_id)

    def _create_agreed_run(self, home: Run, key: str) -> str:
        tags = {STAGE_TAG: "trail", "mlflow.note.content": f"Every move of an alias of {self.name}, by `ganpipe`."}
        run = with_retries(
            lambda: self._client.create_run(home.info.experiment_id, tags=tags, run_name=f"trail of {self.name}"),
            self._tracker.uri,
        )
        mine = str(run.info.run_id)
        chosen = self._write_once(home.info.run_id, key, mine)
        if chosen == mine:
            with_retries(lambda: self._client.set_terminated(mine), self._tracker.uri)
        else:
            with_retries(lambda: self._client.delete_run(mine), self._tracker.uri)
        return chosen

    def _write_once(self, run_id: str, key: str, text: str) -> str:
        """Set the run's param `key` to `text`, unless it has a value already. Returns the value that it then has."""
        from mlflow.exceptions import MlflowException

        def write() -> str:
            try:
                self._client.log_param(run_id, key, text)
            except MlflowException as error:
                found = self._client.get_run(run_id).data.params.get(key)
                if error.error_code != "INVALID_PARAMETER_VALUE" or found is None:
                    raise
                return str(found)
            return text

        return with_retries(write, self._tracker.uri)

    def _claim(self, move: Move) -> bool:
        return self._write_once(self.run_id, _move_key(move.alias, move.number), move.text) == move.text

    def _run(self) -> Run:
        run = with_retries(lambda: self._client.get_run(self.run_id), self._tracker.uri)
        if run.info.lifecycle_stage != "active":
            raise GanpipeError(
                f"the run that holds the alias history of {self.name} was deleted; restore it: "
                f"MLFLOW_TRACKING_URI={without_password(self._tracker.uri)} mlflow runs restore --run-id {self.run_id}"
            )
        return run

    # --- the alias that follows it

    def _alias_target(self, alias: str) -> int | None:
        model = with_retries(lambda: self._client.get_registered_model(self.name), self._tracker.uri)
        number = model.aliases.get(alias)
        return None if number is None else int(number)

    def _follow_history(self, alias: str) -> None:
        """Set the alias to the version of the last recorded move; repeat if another move was recorded meanwhile."""
        move = self.moves(alias)[-1]
        while True:
            self._set_alias(alias, move.to)
            last = self.moves(alias)[-1]
            if last == move:
                break
            move = last
        with_retries(lambda: self._client.set_tag(self.run_id, _settled_tag(move), "true"), self._tracker.uri)

    def _set_alias(self, alias: str, version: int | None) -> None:
        from mlflow.exceptions import MlflowException

        def point() -> None:
            if version is None:
                self._client.delete_registered_model_alias(self.name, alias)
                return
            try:
                self._client.set_registered_model_alias(self.name, alias, str(version))
            except MlflowException as error:
                numbers = {int(item.version) for item in all_versions(self._client, self._tracker, self.name)}
                if version in numbers or error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                # The version was deleted meanwhile, so no alias can point to it. The next call of `state` records the
                # change.

        with_retries(point, self._tracker.uri)


def _move_key(alias: str, number: int) -> str:
    return f"{alias}.{number:06d}"


def _settled_tag(move: Move) -> str:
    """The tag of the history's run which says that the alias was set to this move's version."""
    return f"settled.{_move_key(move.alias, move.number)}"


def _next_move(state: AliasState, to: int | None, by: str, why: str, how: How) -> Move:
    return Move(
        alias=state.alias,
        number=state.number + 1,
        before=state.version,
        to=to,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        by=by,
        why=shorten(" ".join(why.split()), MAX_WHY_LENGTH),
        how=how,
        token=uuid.uuid4().hex,
    )


def moves_of(run: Run, alias: str) -> list[Move]:
    """The moves of `alias` that the run of an alias history holds, oldest first."""
    prefix = f"{alias}."
    keys = sorted(key for key in run.data.params if key.startswith(prefix) and key.removeprefix(prefix).isdigit())
    return [Move(**json.loads(run.data.params[key])) for key in keys]


def alias_history_of(client: MlflowClient, tracker: Tracker, name: str) -> list[dict[str, Any]]:
    """All moves of aliases of the model `name`, oldest first, as plain data: alias, number, from, to, by, at, why, how.
    Only reads; empty if there is no alias history yet.

    Raises:
        GanpipeError: there is no such model, or the run that held its alias history is gone.
    """
    run_id = registered_model(client, tracker, name).tags.get(TRAIL_TAG)
    if run_id is None:
        return []
    run = get_run_or_none(client, tracker, run_id)
    if run is None:
        raise GanpipeError(
            f"the run {run_id} that held the alias history of {name} is gone from MLflow, and with it the moves until "
            "now; the next move of an alias by ganpipe begins another"
        )
    aliases = {key.rpartition(".")[0] for key in run.data.params}
    moves = [move for alias in sorted(aliases) for move in moves_of(run, alias)]
    moves.sort(key=lambda move: move.at)
    return [{"from": move.before, **{key: getattr(move, key) for key in _SHOWN}} for move in moves]


def rollback_stack(moves: Sequence[Move]) -> list[int | None]:
    """The versions that roll backs of an alias would return to, oldest first, and the present version last.

    A roll back removes the versions after its target from this stack.
    """
    stack: list[int | None] = []
    for move in moves:
        if move.how == "rolled back":
            stack.pop()
            while stack[-1] != move.to:
                stack.pop()
        else:
            stack.append(move.to)
    return stack


def find_roll_back(moves: Sequence[Move], version: int) -> Move | None:
    """The roll back that took the alias away from `version`; None if the version has got the alias again since, or if
    there was no roll back."""
    last = [move for move in moves if version in (move.before, move.to)]
    return last[-1] if last and last[-1].how == "rolled back" and last[-1].before == version else None
