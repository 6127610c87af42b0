"""The files of a registered version, copied from MLflow's artifact store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GanpipeError
from ..redaction import redact
from ..tracking.connection import with_retries
from ..tracking.relocation import local_path

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from ..tracking.runs import Tracker

_DOWNLOAD_SECONDS = 20.0


class NotUsable(GanpipeError):
    """A package that cannot be used: its files are missing or damaged, or ganpipe did not make it."""


def fetch_files(tracker: Tracker, version: ModelVersion, part: str, folder: Path) -> Path:
    """Copy a version's files, or one of them, into `folder`, and return the path of the copy.

    Args:
        part: path of the single file or folder to copy, relative to the model's folder; empty for everything.

    Raises:
        NotUsable: MLflow knows the version, but its files are gone, or it has no such part.
        UnavailableError: MLflow or its artifact store does not answer.
    """
    from mlflow.artifacts import download_artifacts, list_artifacts
    from mlflow.exceptions import MlflowException

    name = f"models:/{version.name}/{version.version}"
    remedy = "bring that folder back, or choose another version (`ganpipe models`)"
    client = tracker.client()
    try:
        # Not version.source, because MLflow would resolve its models:/… with the process's default tracking URI.
        uri = with_retries(lambda: client.get_model_version_download_uri(version.name, version.version), tracker.uri)
    except GanpipeError as error:
        if getattr(error.__cause__, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise NotUsable(f"{name}: MLflow no longer knows where its files are; choose another version") from error
    wanted = f"{uri.rstrip('/')}/{part}" if part else uri

    def fetch() -> Path:
        try:
            return Path(download_artifacts(wanted, dst_path=str(folder), tracking_uri=tracker.uri))
        except (MlflowException, OSError) as error:
            # If the store does not answer, this call fails, too; if it answers, it says what is missing permanently.
            if not list_artifacts(uri, tracking_uri=tracker.uri):
                place = local_path(uri) or redact(uri)
                raise NotUsable(f"{name}: its files are not in {place}, where MLflow stored them; {remedy}") from error
            beside = list_artifacts(wanted.rpartition("/")[0], tracking_uri=tracker.uri) if part else []
            if part and Path(part).name not in {Path(item.path).name for item in beside}:
                raise NotUsable(f"{name}: no package of ganpipe: it has no {Path(part).name}") from error
            raise

    return with_retries(fetch, tracker.uri, _DOWNLOAD_SECONDS)
