"""What ingest tells whoever started it: what was skipped or left out, blank images, classes, what changed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..shards.left_out import summary_lines
from ..shards.manifest import MANIFEST, SPLITS, LeftOut
from . import class_counts
from .conversion import Converted
from .previous import PreviousIngest
from .sample_index import SampleIndex

_NUM_NAMES_PRINTED = 20
_NUM_ODD_NAMED = 5


@dataclass
class NamedImages:
    """A number of images, and the names of the first ones."""

    number: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.number += 1
        if len(self.names) < _NUM_ODD_NAMED:
            self.names.append(name)


def report_skipped(skipped: Sequence[Converted], out: Path) -> None:
    """Name the first images that could not be read, and say why."""
    if not skipped:
        return
    print(f"skipped {len(skipped)} unreadable image(s), listed in {out / MANIFEST}:", file=sys.stderr)
    for item in skipped[:_NUM_NAMES_PRINTED]:
        print(f"  {item.name}: {item.unreadable}", file=sys.stderr)
    if len(skipped) > _NUM_NAMES_PRINTED:
        print(f"  ... and {len(skipped) - _NUM_NAMES_PRINTED} more", file=sys.stderr)


def report_left_out(left_out: Sequence[LeftOut], out: Path) -> None:
    """Count the files that the source left out, by kind."""
    if left_out:
        print(f"left out {sum(one.number for one in left_out):,}, listed in {out / MANIFEST}:", file=sys.stderr)
    for line in summary_lines(left_out):
        print(f"  {line}", file=sys.stderr)


def report_blank(blank: Mapping[str, NamedImages]) -> None:
    """Warn of images in which a person would see nothing, by what they are."""
    for what, images in sorted(blank.items()):
        more = ", ..." if images.number > len(images.names) else ""
        print(
            f"warning: {images.number:,} image(s) are {what}: {', '.join(images.names)}{more}; look at them, and at "
            "data.value_range and data.background",
            file=sys.stderr,
        )


def report_classes(names: Sequence[str], samples: SampleIndex, limit: int | None) -> None:
    """Print images per class and warnings about them, because a long training would not show such mistakes."""
    if not names:
        return
    train, validation = (samples.num_per_label(split) for split in SPLITS)
    for line in class_counts.table(names, train, validation):
        print(line)
    for line in (*class_counts.name_warnings(names), *class_counts.count_warnings(names, train, validation, limit)):
        print(f"warning: {line}", file=sys.stderr)


def report_changes(
    previous: PreviousIngest, samples: SampleIndex, num_decoded: int, num_new: int, num_shards: int
) -> None:
    """Print one line on what changed since the previous ingest, if there was one.

    Args:
        num_decoded: samples that were decoded.
        num_new: shards that were written.
    """
    if previous.num_lost is None:
        return
    rewritten = f"{num_new} of {num_shards} shards rewritten"
    if previous.num_lost:
        print(
            f"{previous.num_lost} shard(s) of the last ingest are gone or damaged: {num_decoded:,} images decoded, "
            f"{rewritten}"
        )
        return
    num_added, num_kept = 0, 0
    for digest, number in samples.digests():
        kept = min(number, previous.digests[digest])
        num_added, num_kept = num_added + number - kept, num_kept + kept
    num_removed = previous.digests.total() - num_kept
    plural = "" if num_added == 1 else "s"
    print(f"{num_added:,} image{plural} added, {num_removed:,} removed: {rewritten}")
