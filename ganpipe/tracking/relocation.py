"""A checkout that was moved or copied: corrects the absolute addresses of files in MLflow's database.

Only a database in the checkout itself is changed, and in it only addresses of files in the checkout's own folders. This
is done with SQL, because MLflow has no call for it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

log = logging.getLogger(__name__)

ARTIFACTS = "mlartifacts"
"""Folder of a checkout that holds the files of its experiments."""
CHECKOUT_TAG = "ganpipe.artifacts"
"""Tag of an experiment whose files are in `ARTIFACTS` of the checkout, wherever the checkout is."""
_DEFAULT = Path("mlruns") / "0"
"""Folder of MLflow's own experiment `Default`, relative to the working directory of the process that made the
database."""
_ADDRESSES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
"""Table -> column in which MLflow keeps addresses of files."""


def local_path(address: str) -> Path | None:
    """The path of an address in MLflow's database, if it is `file:///…` or an absolute path; else None."""
    if address.startswith("file:"):
        return Path(unquote(urlsplit(address).path))
    return Path(address) if address.startswith("/") else None


def relocate(database: Path, root: Path) -> None:
    """Make the addresses in the checkout's database point into `root`, if the checkout has been at another path before.

    Afterwards, new files are never written to the former path. Files that exist only there (for example because the
    database was copied without them) keep their addresses.

    Args:
        database: made by MLflow; nothing is done if it is not in the folder `root`.
        root: the checkout, absolute.
    """
    if database.resolve().parent != root:
        return
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        former = [place for place in _former_roots(connection, root) if not _is_same(place / database.name, database)]
        changed = sum(_relocate_table(connection, table, former, root) for table in _ADDRESSES) if former else 0
        _relocate_default_experiment(connection, database, root)
    if changed:
        places = ", ".join(map(str, former))
        log.warning("%s: this checkout was at %s; %d addresses of files now point here", database, places, changed)


def _former_roots(connection: sqlite3.Connection, root: Path) -> list[Path]:
    """Paths at which the checkout has been, from the addresses of its experiments."""
    rows = connection.execute(
        "SELECT e.experiment_id, e.artifact_location, t.value FROM experiments e LEFT JOIN experiment_tags t "
        "ON t.experiment_id = e.experiment_id AND t.key = ?",
        (CHECKOUT_TAG,),
    )
    found = set()
    for experiment, address, own in rows.fetchall():
        path = local_path(address or "")
        if path is None or path.name != ARTIFACTS or path.parent == root or path.parent in found:
            continue
        # Earlier versions of ganpipe set no tag. Without it, the folder may be one that a person chose.
        if own is not None or _has_files_here(connection, experiment, root):
            found.add(path.parent)
    return sorted(found)


def _has_files_here(connection: sqlite3.Connection, experiment: int, root: Path) -> bool:
    here = {path.name for path in (root / ARTIFACTS).glob("*")}
    runs = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (experiment,))
    return any(run in here for (run,) in runs)


def _is_same(one: Path, other: Path) -> bool:
    """Whether both paths lead to the same file, as when a checkout is reachable by two paths."""
    return one.exists() and os.path.samefile(one, other)


def _relocate_table(connection: sqlite3.Connection, table: str, former: list[Path], root: Path) -> int:
    """Change the addresses of one table. Returns how many were changed."""
    column = _ADDRESSES[table]
    changes = []
    for row, address in connection.execute(f"SELECT rowid, {column} FROM {table}").fetchall():
        there = local_path(address or "")
        place = next((place for place in former if there and there.is_relative_to(place)), None)
        if there is None or place is None:
            continue
        here = root / there.relative_to(place)
        if table == "experiments" or here.exists() or not there.exists():
            changes.append((here.as_uri(), row))
    connection.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", changes)
    return len(changes)


def _relocate_default_experiment(connection: sqlite3.Connection, database: Path, root: Path) -> None:
    """Make MLflow's own experiment `Default` keep its files in the checkout, too. Its address depends on the working
    directory of the process that made the database, which may have been a temporary folder of DVC."""
    here = root / _DEFAULT
    for (address,) in connection.execute(
        "SELECT artifact_location FROM experiments WHERE experiment_id = 0"
    ).fetchall():
        there = local_path(address or "")
        if there is None or there.parts[-2:] != _DEFAULT.parts or there == here:
            continue
        if _is_same(there.parents[1] / database.name, database):
            continue
        if here.exists() or not there.exists():
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (here.as_uri(),))
