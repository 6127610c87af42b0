"""What work on several hosts needs before it starts: shards, checkpoints and runs where every host reaches them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from .. import environment, redaction
from ..data.shards.manifest import MANIFEST
from ..data.shards.shard_set import ShardSet
from ..errors import GanpipeError, UnavailableError
from ..redaction import without_password
from ..training import hosts
from ..training.settings import ClusterSettings
from .common import SHARDS

PUBLIC_OPTIONS = ("endpoint_url", "region_name")
"""The part of an S3 remote's configuration that workers are sent; credentials are those of their hosts."""


def shards_for_all(
    shards: ShardSet, settings: ClusterSettings, tracking_uri: str, cpus: float, gpus: float, may_grow: bool
) -> ShardSet:
    """The shards as the cluster's hosts find them; Ray must be connected.

    Args:
        shards: as this host finds them.
        tracking_uri: where MLflow is.
        cpus, gpus: per worker.
        may_grow: whether hosts may join while the work goes on.

    Raises:
        GanpipeError: workers would run on other hosts, which do not reach checkpoints, MLflow or shards.
    """
    others = hosts.others(cpus, gpus)
    if not others and not may_grow:
        return shards
    if shards.store is not None:
        require_shared(settings, tracking_uri, others or ["those that join"])
        require_reachable(shards, "", others)
        return shards
    require_shared(settings, tracking_uri, others or ["those that join"])
    lacking = hosts.not_seeing(shards, others)
    if not lacking and not may_grow:
        return shards
    found, reason = with_dvc_urls(shards)
    if lacking:
        require_reachable(found, reason, lacking)
    return found


def require_shared(settings: ClusterSettings, tracking_uri: str, others: Iterable[str]) -> None:
    """Return if the addresses of checkpoints and runs mean the same on every host.

    Raises:
        GanpipeError: names the setting whose address only this host reaches.
    """
    names = ", ".join(sorted(others))
    if settings.storage_path is None or "://" not in settings.storage_path:
        got = "not set" if settings.storage_path is None else f"got {settings.storage_path!r}"
        raise GanpipeError(
            f"cluster.storage_path: {got}, a folder of this host, but workers may also run on {names}; give a URL that "
            "all hosts reach (s3://bucket/path), or file:///path for a folder that all of them share"
        )
    if urlsplit(tracking_uri).scheme not in ("http", "https") or environment.is_loopback(tracking_uri):
        raise GanpipeError(
            f"MLFLOW_TRACKING_URI: {without_password(tracking_uri)!r} is reached from this host alone, but workers may "
            f"also run on {names}; set it to the address of an MLflow server that all hosts reach"
        )


def require_reachable(shards: ShardSet, reason: str, lacking: dict[str, str]) -> None:
    """Return if the hosts that do not see the shards' folder can fetch the shards by their URLs.

    Args:
        reason: a clause that says why there are no URLs; empty where there are.
        lacking: address -> node of these hosts.

    Raises:
        GanpipeError: they cannot; says what to do.
    """
    if not shards.urls and shards.store is None:
        raise GanpipeError(
            f"{SHARDS}: {', '.join(sorted(lacking))} of the cluster cannot see this folder, and {reason}; push it to "
            "a DVC remote that all hosts reach (`dvc remote add -d store s3://bucket/path`, `dvc push`), or share the "
            "folder with them"
        )
    for address, why in sorted(hosts.not_reading(shards, lacking).items()):
        if shards.store is not None:
            raise GanpipeError(
                f"data.store: {address} of the cluster cannot read {shards.store} ({why}); give its processes access "
                "(address, credentials)"
            )
        raise GanpipeError(
            f"{SHARDS}: {address} of the cluster can neither see this folder nor read the DVC remote ({why}); give its "
            "processes access (address, credentials), or share the folder"
        )


def with_dvc_urls(shards: ShardSet) -> tuple[ShardSet, str]:
    """`shards` with their addresses in the default DVC remote; or without them, and a clause that says why.

    Raises:
        UnavailableError: the remote does not answer.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.index import StorageKeyError

    if shards.store is not None:
        return shards, ""
    names = [shard.name for shard in shards.read_manifest().shards]
    try:
        with Repo() as repo:
            entries = {name: repo.get_data_index_entry(str(SHARDS / name)) for name in (MANIFEST, *names)}
            # The manifest has the digest of every shard, so that its own says whether DVC has this dataset.
            known = entries[MANIFEST][1].hash_info.value
            found = hashlib.md5((SHARDS / MANIFEST).read_bytes(), usedforsecurity=False).hexdigest()
            if known != found:
                return shards, "dvc.lock names other shards than are in the folder (run `dvc repro ingest`)"
            remote = {name: index.storage_map.get_remote(entry) for name, (index, entry) in entries.items()}
            filesystem = remote[MANIFEST][0]
            if missing := _missing(filesystem, [remote[name][1] for name in names]):
                return shards, f"{missing} of {len(names)} shards are not in the DVC remote"
            urls = {name: filesystem.unstrip_protocol(remote[name][1]) for name in names}
            if kind := next(filter(None, map(redaction.secret_in_url, urls.values())), None):
                return shards, f"the DVC remote's URL holds {kind}, which is sent to nobody"
    except StorageKeyError:
        return shards, "there is no default DVC remote"
    except (DvcException, OSError) as error:
        return shards, f"DVC cannot tell where they are ({error})"
    return dataclasses.replace(shards, urls=urls, options=_public(filesystem.fs_args)), ""


def _missing(filesystem: Any, paths: list[str]) -> int:
    """How many of `paths` are not in a file system of DVC.

    Raises:
        UnavailableError: it does not answer.
    """
    try:
        return sum(not there for there in filesystem.exists(paths))
    except Exception as error:  # whatever the file system's library raises
        raise UnavailableError(f"the DVC remote cannot be asked for the shards: {error}") from error


def _public(arguments: dict[str, Any]) -> dict[str, Any]:
    """What workers need of a file system's arguments beside credentials, for fsspec."""
    client = {name: value for name, value in (arguments.get("client_kwargs") or {}).items() if name in PUBLIC_OPTIONS}
    return {"client_kwargs": client} if client else {}
