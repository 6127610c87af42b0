"""Outputs as DVC keeps them by their MD5: in its cache, and in the default remote.

DVC removes a stage's outputs before it runs the stage. Until the stage has ended, dvc.lock still names them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from ..errors import GanpipeError
from ..tracking import lineage


def dvc_stores(root: Path) -> tuple[Path, ...]:
    """The folders in which the DVC of the checkout `root` keeps files, as `<first two digits of the MD5>/<others>`."""
    if not (root / ".dvc").is_dir():
        return ()
    from dvc.config import Config, ConfigError

    try:
        chosen = Config(dvc_dir=str(root / ".dvc")).get("cache", {}).get("dir")
    except ConfigError as error:
        raise GanpipeError(f"{root / '.dvc' / 'config'}: {error}") from None
    return (Path(chosen or root / ".dvc" / "cache") / "files" / "md5",)


def locked_content(path: Path, name: str | None = None) -> bytes | None:
    """What dvc.lock in the working directory says that an output file holds; None where neither the cache nor the
    remote has it.

    Args:
        path: the output, as dvc.yaml names it.
        name: of a file in it, where the output is a folder.
    """
    md5 = lineage.dvc_tags(Path.cwd(), [path]).get(f"dvc.{path}")
    if not md5:
        return None
    content = _content(path, md5)
    if name is None or content is None:
        return content
    try:
        listed = {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
    except (ValueError, TypeError, KeyError):
        return None
    return _content(path / name, listed[name]) if name in listed else None


def _content(path: Path, md5: str) -> bytes | None:
    """Content with this MD5, which for DVC's list of a folder's files ends with `.dir`."""
    for content in _candidates(path, md5):
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(".dir"):
            return content
    return None


def _candidates(path: Path, md5: str) -> Iterator[bytes]:
    for place in (path, *(store / md5[:2] / md5[2:] for store in dvc_stores(Path.cwd()))):
        if place.is_file():
            yield place.read_bytes()
    if (content := _from_remote(path)) is not None:
        yield content


def _from_remote(path: Path) -> bytes | None:
    """None where there is no remote, or it does not answer: then nobody can go on from what it holds."""
    if not Path(".dvc").is_dir():
        return None
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.index import StorageKeyError

    try:
        with Repo() as repo:
            index, entry = repo.get_data_index_entry(str(path))
            filesystem, place = index.storage_map.get_remote(entry)
            content: bytes = filesystem.cat_file(place)
            return content
    except StorageKeyError:
        return None
    except Exception as error:  # of DVC, or of the library of the remote's kind of storage
        kind = "DVC" if isinstance(error, DvcException) else "the DVC remote"
        print(f"{path}: {kind} does not give what dvc.lock names ({error})", flush=True)
        return None
