"""Whether MLflow's artifact store has what it was sent: read back and compared, before anything refers to it."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from ..errors import UnavailableError


class Corrupted(UnavailableError):
    """An upload did not arrive as it was sent."""


def check_stored(uri: str, sent: Path, tracking_uri: str) -> None:
    """Compare what MLflow gives back at `uri` with the files of the folder `sent`.

    Raises:
        Corrupted: names the first file that is missing or has another digest.
    """
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as folder:
        stored = Path(download_artifacts(uri, dst_path=folder, tracking_uri=tracking_uri))
        for path in sorted(file for file in sent.rglob("*") if file.is_file()):
            name = path.relative_to(sent)
            expected, found = _digest(path), _digest(stored / name)
            if found != expected:
                raise Corrupted(
                    f"MLflow's artifact store did not keep {name} as it was sent: SHA-256 {found[:12]} instead of "
                    f"{expected[:12]}; nothing was registered. Check the store and run the same command again"
                )


def _digest(path: Path) -> str:
    if not path.is_file():
        return "of nothing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
