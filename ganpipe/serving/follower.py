"""Which version is served: follows an alias of MLflow's registry in the background.

If MLflow does not answer, the alias is removed or a new version does not load, the present version is still served, and
the page shows what is wrong.
"""

from __future__ import annotations

import logging
import re
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import GanpipeError, UnavailableError
from ..redaction import without_password
from ..registry.versions import CHALLENGER, CHAMPION, HOW_TO_REGISTER, version_of
from ..section import nearest
from ..tracking.connection import sqlite_path
from ..tracking.run_log import is_permanent
from ..tracking.runs import Tracker
from .version import NotServable, ServedVersion, load

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger("ganpipe.serving")

RETRY_SECONDS = 60.0
"""Time until a version that did not load is tried again. A retry needs a download, and would hardly succeed sooner."""


@dataclass(frozen=True)
class Source:
    """The address of what is served: an alias that is followed (`models:/<name>@<alias>`), or a fixed version
    (`models:/<name>/<number>`)."""

    name: str
    alias: str | None
    number: int | None

    @classmethod
    def of(cls, uri: str) -> Source:
        """Parse `uri`.

        Raises:
            GanpipeError: it has neither form.
        """
        aliased = re.fullmatch(r"models:/([^/@:]+)@([^/@:]+)", uri)
        numbered = re.fullmatch(r"models:/([^/@:]+)/([0-9]{1,9})", uri)
        if aliased:
            return cls(aliased[1], aliased[2], None)
        if numbered:
            return cls(numbered[1], None, int(numbered[2]))
        raise GanpipeError(f"--model: got {uri!r}, expected models:/NAME@ALIAS or models:/NAME/VERSION")

    @property
    def uri(self) -> str:
        end = f"@{self.alias}" if self.alias else f"/{self.number}"
        return f"models:/{self.name}{end}"

    def find(self, client: MlflowClient) -> ModelVersion:
        """The version that the address names now.

        Raises:
            MlflowException: there is no such version or alias, or MLflow does not answer.
        """
        if self.alias:
            return client.get_model_version_by_alias(self.name, self.alias)
        return client.get_model_version(self.name, str(self.number))


@dataclass(frozen=True)
class Trouble:
    """A problem: what went wrong (a sentence without a full stop), and since when."""

    what: str
    since: datetime


@dataclass(frozen=True)
class State:
    """What is served, and the problems with it.

    Attributes:
        version: the version that is served; None before the first one is loaded.
        replaced: number of the version that was served before this one; None if this is the first.
        failing: why the version that the address names is not served.
        registry: why it is not known which version the address names: MLflow does not answer, or the alias was removed.
    """

    version: ServedVersion | None = None
    replaced: int | None = None
    failing: Trouble | None = None
    registry: Trouble | None = None

    @property
    def notes(self) -> list[str]:
        """Sentences about the problems, for people who look at the page."""
        stays = f" Version {self.version.number} stays." if self.version else ""
        troubles = [trouble for trouble in (self.failing, self.registry) if trouble]
        return [f"Since {trouble.since:%H:%M} UTC: {trouble.what}.{stays}" for trouble in troubles]


class Follower:
    """Holds the `state`. One background thread replaces it as a whole; any thread may read it.

    Args:
        poll_seconds: time between two requests to MLflow.
        device: `cpu`, `cuda`, …; `auto` is a GPU if there is one.
    """

    def __init__(self, tracker: Tracker, source: Source, poll_seconds: float, device: str = "auto") -> None:
        self.source = source
        self.state = State()
        self._tracker = tracker
        self._poll_seconds = poll_seconds
        self._device = device
        self._client: MlflowClient | None = None
        self._stop = threading.Event()
        self._failed: tuple[tuple[str, int], float] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="ganpipe-serve-", ignore_cleanup_errors=True)
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def start(self) -> None:
        """Load the version now, and start the thread that follows the alias.

        Raises:
            GanpipeError: MLflow answers that the model, alias or version does not exist; or its database does not
                exist.
        """
        path = sqlite_path(self._tracker.uri)
        if path is not None and not path.is_file():
            raise GanpipeError(
                f"{path}: no MLflow database; set MLFLOW_TRACKING_URI, or make a model: {HOW_TO_REGISTER}"
            )
        self._require_source()
        self.check()
        self._thread.start()

    def stop(self) -> None:
        """End the background thread; does not wait until MLflow answers."""
        self._stop.set()

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self.check()
            except Exception:  # for example a full disk: the present version stays, and the next try may succeed
                logger.exception("looking for a new version failed")

    def _require_source(self) -> None:
        source, where = self.source, without_password(self._tracker.uri)
        try:
            self._tracker.check()
            client = self._registry()
            names = [model.name for model in client.search_registered_models(max_results=1000)]
            aliases = _aliases(client, source.name)
            if aliases is None:
                hint = nearest(source.name, names) if names else HOW_TO_REGISTER
                raise GanpipeError(f"--model: no registered model {source.name!r} in MLflow at {where}; {hint}")
            if source.alias in (CHAMPION, CHALLENGER) and source.alias not in aliases:
                version_of(
                    client, self._tracker, source.name, source.alias
                )  # raises, and says why no version has the alias
            if source.alias and source.alias not in aliases:
                hint = nearest(source.alias, aliases) if aliases else "it has none"
                raise GanpipeError(f"--model: {source.name} has no alias {source.alias!r}; {hint}")
            source.find(client)
        except Exception as error:
            if isinstance(error, GanpipeError) and not isinstance(error, UnavailableError):
                raise
            if is_permanent(error):
                raise GanpipeError(f"--model: {source.uri}: {_first_line(error)}") from error
            logger.warning("MLflow at %s is away; the page waits for it: %s", where, _first_line(error))

    def _registry(self) -> MlflowClient:
        path = sqlite_path(self._tracker.uri)
        if path is not None and not path.is_file():  # SQLite would create an empty database
            raise FileNotFoundError(f"{path} does not exist")
        if self._client is None:
            self._client = self._tracker.client()
        return self._client

    def check(self) -> None:
        """Ask the registry once which version the address names, and load it if another version is served."""
        try:
            found = self.source.find(self._registry())
        except Exception as error:  # there are many ways not to answer; the present version stays
            gone = getattr(error, "error_code", None) in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
            what = f"{self.source.uri} is not in the registry" if gone else "MLflow does not answer"
            self._note("registry", what, _first_line(error))
            return
        if self.state.registry:
            logger.info("MLflow answers again: %s is version %s", self.source.uri, found.version)
            self._note("registry", None)
        wanted = (str(found.version), int(found.creation_timestamp))
        served = self.state.version
        if served is not None and wanted == (str(served.number), served.created):
            self._failed = None
            self._note("failing", None)
        elif self._failed is None or self._failed[0] != wanted or time.monotonic() > self._failed[1]:
            self._load(found, wanted)

    def _load(self, found: ModelVersion, wanted: tuple[str, int]) -> None:
        before = self.state.version
        try:
            version = load(self._tracker, found, Path(self._folder.name), self._device)
        except NotServable as error:
            self._failed = (wanted, time.monotonic() + RETRY_SECONDS)
            self._note("failing", str(error))
            return
        self._failed = None
        self.state = State(version, replaced=before.number if before else None)
        if before is None:
            logger.info("serving version %d of %s", version.number, version.name)
        else:
            logger.info("%s moved: version %d replaces version %d", self.source.uri, version.number, before.number)

    def _note(self, kind: Literal["failing", "registry"], what: str | None, detail: str = "") -> None:
        """Set or clear (`what` None) one problem in the state. A new problem is logged."""
        before: Trouble | None = getattr(self.state, kind)
        if what is None or before is None or before.what != what:
            trouble = None if what is None else Trouble(what, datetime.now(UTC))
            changes: dict[str, Any] = {kind: trouble}
            self.state = replace(self.state, **changes)
            if trouble:
                logger.error("%s", f"{what} ({detail})" if detail else what)


def _aliases(client: MlflowClient, name: str) -> list[str] | None:
    """The aliases of a registered model; None if there is no such model."""
    quoted = name.replace("'", "''")
    found = client.search_registered_models(f"name = '{quoted}'")
    return list(found[0].aliases) if found else None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0][:300]
