"""Whether the place for checkpoints, `cluster.storage_path`, can be written: checked before anything is started."""

from __future__ import annotations

import uuid

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ..errors import GanpipeError, UnavailableError

KEY = "cluster.storage_path"


def require_writable(url: str) -> None:
    """Write an empty file to `url` and remove it again.

    Raises:
        GanpipeError: no such bucket, no permission, no driver for such URLs.
        UnavailableError: nobody answers there.
    """
    try:
        filesystem, folder = fsspec.core.url_to_fs(url)
        probe = f"{folder}/.ganpipe-{uuid.uuid4().hex}"
        if isinstance(filesystem, LocalFileSystem):  # an object store has no folders, and would make a bucket instead
            filesystem.makedirs(folder, exist_ok=True)
        filesystem.pipe_file(probe, b"")
        filesystem.rm_file(probe)
    except Exception as error:  # every kind of store has its own
        reason = " ".join(str(error).split()) or type(error).__name__
        if _is_connection_error(error):
            raise UnavailableError(f"{KEY}: {url} does not answer: {reason}; check AWS_ENDPOINT_URL") from error
        raise GanpipeError(
            f"{KEY}: {url} cannot be written: {reason}; expected a folder, or a URL of a bucket that exists and "
            "that the credentials in the environment may write to (docs/operations-storage.md)"
        ) from error


def _is_connection_error(error: BaseException | None) -> bool:
    """Whether the error, or one that caused it, says that no connection was made."""
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import HTTPClientError

    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError | NoConnection | HTTPClientError):
            return True
        error = error.__cause__ or error.__context__
    return False
