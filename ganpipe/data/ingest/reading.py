"""All items of a source as samples: read, identified and decoded on all cores or hosts; all at once, or some again."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import heapq
import sys
import tempfile
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from ...cpus import usable_cpus
from ...errors import GanpipeError
from ..images import value_range
from ..parallel import ordered_map, progress
from ..settings import DataSettings
from ..shards.manifest import LeftOut
from ..sources.base import Item, Items, Source
from .conversion import Converted, KnownDigests, check_values, convert

MapTasks = Callable[[Callable[[Any], Any], Iterable[Any]], Generator[Any, None, None]]
"""(function, tasks) -> the results in the order of the tasks, as `ordered_map` gives them."""
_ITEMS_PER_TASK = 128
_HELD_BYTES_PER_TASK = 2**24
_FEW_ITEMS = 2000  # below this, starting processes takes longer than it saves
FEWER_IMAGES = "the source has fewer images now than when ingest began; run the same command again"


class Reading:
    """The items of a source as samples, in the order of the items."""

    def __init__(
        self,
        settings: DataSettings,
        source: Source,
        num_processes: int | None = None,
        map_tasks: MapTasks | None = None,
    ) -> None:
        """
        Args:
            num_processes: all cores when None, but this process only if there are few items.
            map_tasks: does the work elsewhere; the other hosts read the images where the items say they are.
        """
        self._settings, self._source, self.description = settings, source, source.describe()
        self._items = _limited(source.items(), settings.limit)
        self._num_processes, self._map_tasks = num_processes, map_tasks
        self._ranges: Mapping[value_range.Kind, value_range.Range] = {}
        self.left_out: tuple[LeftOut, ...] = ()
        """The files that the source left out; known when `all` has come to its end."""

    @property
    def is_listed(self) -> bool:
        """Whether items are found by themselves; otherwise the source is read from its beginning for each of them."""
        return isinstance(self._items, Sized)

    def check_values(self) -> None:
        """Find errors in labels and texts before any image is read, if the items can be listed more than once.

        Raises:
            GanpipeError: a label is not a class, or a text has too few or too many words; names the item.
        """
        if self.is_listed:
            for item in self._items:
                check_values(item, self.description, self._settings)

    def all(self, known: KnownDigests) -> Generator[tuple[int, Converted], None, None]:
        """Every sample with the position of its item. Samples with known digests are not decoded.

        Images of more than 8 bits whose range is chosen from the dataset are read twice, because the range is known
        only after the last image: their samples come last.
        """
        waiting = array("Q")
        extents: dict[value_range.Kind, value_range.Extent] = {}
        with self._shared(known) as shared:
            with contextlib.closing(self._converted(self._items, "ingest", shared, None)) as results:
                for position, sample in enumerate(results):
                    if sample.extents:
                        waiting.append(position)
                        extents = value_range.merge_extents([*extents.values(), *sample.extents])
                    else:
                        yield position, sample
            self.left_out = self._source.left_out()
            if waiting:
                self._ranges = _choose_ranges(extents)
                what, items = "ingest, more than 8 bits", self._at(waiting)
                with contextlib.closing(self._converted(items, what, shared, self._ranges)) as results:
                    num_read = 0
                    for position, sample in zip(waiting, results, strict=False):
                        yield position, sample
                        num_read += 1
                    if num_read < len(waiting):
                        raise GanpipeError(FEWER_IMAGES)

    def again(self, positions: Sequence[int], what: str) -> Generator[Converted, None, None]:
        """The samples at these positions, decoded; to be called after `all`. A source that is a stream is read from its
        beginning.

        Args:
            positions: sorted.
            what: the title of the progress bar.
        """
        return self._converted(self._at(positions), what, None, self._ranges)

    def _converted(
        self,
        items: Iterable[Item],
        what: str,
        known: Path | KnownDigests | None,
        ranges: Mapping[value_range.Kind, value_range.Range] | None,
    ) -> Generator[Converted, None, None]:
        total = len(items) if isinstance(items, Sized) else None
        convert_task = functools.partial(
            convert, description=self.description, settings=self._settings, known_digests=known, decided=ranges
        )
        tasks = _tasks(items)
        if self._map_tasks is not None:
            results = self._map_tasks(convert_task, tasks)
        else:
            few = total is not None and total <= _FEW_ITEMS
            results = ordered_map(convert_task, tasks, self._num_processes or (1 if few else usable_cpus()))
        with progress(what, total, "image") as bar, contextlib.closing(results):
            for converted in results:
                yield from converted
                bar.update(len(converted))

    def _at(self, positions: Sequence[int]) -> Items:
        """The items at these positions, which are sorted."""
        found = self._items if self.is_listed else self._source.items()
        return Items(len(positions), functools.partial(_items_at, found, positions))

    @contextlib.contextmanager
    def _shared(self, known: KnownDigests) -> Iterator[Path | KnownDigests | None]:
        """What reaches those who convert: for processes of this host a file, which all of them map into memory."""
        if not len(known):
            yield None
        elif self._map_tasks is not None:
            yield known
        else:
            with tempfile.NamedTemporaryFile() as file:
                file.write(known.tobytes())
                file.flush()
                yield Path(file.name)


def _limited(items: Iterable[Item], limit: int | None) -> Iterable[Item]:
    """At most `limit` items: those whose names have the smallest SHA-256, in the source's order."""
    if limit is None:
        return items
    chosen = heapq.nsmallest(
        limit, enumerate(items), key=lambda pair: (hashlib.sha256(pair[1].name.encode()).digest(), pair[0])
    )
    return [item for _, item in sorted(chosen, key=lambda pair: pair[0])]


def _tasks(items: Iterable[Item]) -> Iterator[list[Item]]:
    task: list[Item] = []
    held = 0
    for item in items:
        task.append(item)
        held += sum(reference.num_held_bytes for name in item.images for reference in item.references(name))
        if len(task) == _ITEMS_PER_TASK or held > _HELD_BYTES_PER_TASK:
            yield task
            task, held = [], 0
    if task:
        yield task


def _items_at(items: Iterable[Item], positions: Sequence[int]) -> Iterator[Item]:
    wanted = iter(positions)
    position = next(wanted, None)
    for found, item in enumerate(items):
        if found == position:
            yield item
            if (position := next(wanted, None)) is None:
                return


def _choose_ranges(extents: Mapping[value_range.Kind, value_range.Extent]) -> dict[value_range.Kind, value_range.Range]:
    """The dataset's range of each kind of image; prints a warning for each that is not the full range of its type."""
    decided = {kind: value_range.choose_range(extent) for kind, extent in extents.items()}
    for kind, extent in extents.items():
        if (range_warning := value_range.range_warning(extent, decided[kind])) is not None:
            print(f"warning: {range_warning}", file=sys.stderr)
    return decided
