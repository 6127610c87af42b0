"""Checking that MLflow's artifact store has what it was sent: files are read back before anything refers to them."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from ..errors import UnavailableError

_NEXT = "Nothing was registered: check the store and run the same command again"


class Corrupted(UnavailableError):
    """An upload did not arrive as it was sent."""


def check_stored(uri: str, sent: Path) -> None:
    """Compare what MLflow returns for `uri` with the files of the folder `sent`.

    Args:
        uri: resolved with the process's default tracking URI, see `connection.as_default_tracking_uri`.

    Raises:
        Corrupted: the message names the first file that is missing or has another digest, or says what the store
            answered.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            stored = Path(download_artifacts(uri, dst_path=folder))
        except MlflowException as error:  # the store's own client verifies checksums
            words = " ".join(str(error).split())[:600]
            raise Corrupted(f"MLflow's artifact store does not give back what it was sent: {words}. {_NEXT}") from error
        for path in sorted(file for file in sent.rglob("*") if file.is_file()):
            name = path.relative_to(sent)
            expected, found = _digest(path), _digest(stored / name)
            if found != expected:
                raise Corrupted(
                    f"MLflow's artifact store did not keep {name} as it was sent: SHA-256 {found[:12]} instead of "
                    f"{expected[:12]}. {_NEXT}"
                )


def _digest(path: Path) -> str:
    if not path.is_file():
        return "of no file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
