"""The classes of a dataset as a person checks them: how many images each has, and what looks like a mistake."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..shards.manifest import SUBSETS

FEW = 10
"""A class with fewer training images is named: little can be learned from them."""
_MOST_LINES = 20
_MOST_NAMED = 5
_LONGEST_NAME = 40


def table(classes: Sequence[str], train: Mapping[int, int], validation: Mapping[int, int]) -> list[str]:
    """Lines: each class with its images; of many classes only those with the fewest and the most.

    Args:
        train, validation: images by class number.
    """
    if not classes:
        return []
    names = [_short(name) for name in classes]
    width = max(map(len, names))
    numbers: Iterable[int] = range(len(classes))
    first = f"{len(classes):,} class{'' if len(classes) == 1 else 'es'}, images to train on and to validate with:"
    if len(classes) > _MOST_LINES:
        ordered = sorted(range(len(classes)), key=lambda number: (train.get(number, 0), number))
        numbers = ordered[:_MOST_NAMED] + ordered[-_MOST_NAMED:]
        width = max(len(names[number]) for number in numbers)
        first = first.removesuffix(":") + f" (the {_MOST_NAMED} smallest and the {_MOST_NAMED} largest):"
    return [first] + [
        f"  {names[number]:{width}}  {train.get(number, 0):>9,}  {validation.get(number, 0):>9,}" for number in numbers
    ]


def name_warnings(classes: Sequence[str]) -> Iterator[str]:
    """Sentences on what the names alone show."""
    if len(classes) == 1:
        yield (
            f"there is one class only, {_named(classes)}: its label says nothing; set the source's labels to none, or "
            "put its images into one folder a class"
        )
    if len({SUBSETS[name.lower()] for name in classes if name.lower() in SUBSETS}) > 1:
        found = [name for name in classes if name.lower() in SUBSETS]
        yield (
            f"{_named(found)} are classes, but look like splits, with the classes in their subfolders; set data.source "
            "to imagefolder and sources.imagefolder.path to the folder above them"
        )
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(unicodedata.normalize("NFKC", name).strip().casefold(), []).append(name)
    for names in [names for names in alike.values() if len(names) > 1][:_MOST_NAMED]:
        yield f"the classes {_named(names)} differ by case or spaces only; give them one name if they are the same"
    if classes and all(name.isdecimal() for name in classes):
        moved = next((number for number, name in enumerate(classes) if int(name) != number), None)
        if moved is not None:
            yield (
                f"the classes are called by other numbers than they have: class {moved} is '{classes[moved]}'; a label "
                "means the number"
            )


def count_warnings(
    classes: Sequence[str], train: Mapping[int, int], validation: Mapping[int, int], limit: int | None = None
) -> Iterator[str]:
    """Sentences on what the numbers of images show.

    Args:
        limit: data.limit, which may leave a class without images.
    """
    numbers = range(len(classes))
    empty = [number for number in numbers if not train.get(number, 0) and not validation.get(number, 0)]
    if empty and limit is not None:
        yield (
            f"{len(empty):,} of {len(classes):,} classes have no image among the {limit:,} of data.limit: "
            f"{_named([classes[at] for at in empty])}"
        )
    elif empty == [0] and len(classes) > 1:
        yield (
            f"class 0 ({_named(classes[:1])}) has no image: the labels seem to begin at 1; number them from 0, since a "
            "GAN with labels has a place for class 0"
        )
    elif empty:
        yield (
            f"{len(empty):,} of {len(classes):,} classes have no image: {_named([classes[at] for at in empty])}; a "
            "GAN with labels has a place for each; number the labels from 0 without gaps, or leave such classes out"
        )
    untrained = [number for number in numbers if not train.get(number, 0) and validation.get(number, 0)]
    if untrained:
        yield (
            f"{len(untrained):,} of {len(classes):,} classes have no training image, because the source keeps all of "
            f"theirs for validation: {_named([classes[at] for at in untrained])}"
        )
    few = [number for number in numbers if 0 < train.get(number, 0) < FEW]
    if few:
        shown = [f"{_short(classes[at])} ({train[at]})" for at in sorted(few, key=lambda at: train[at])[:_MOST_NAMED]]
        more = ", ..." if len(few) > _MOST_NAMED else ""
        yield (
            f"{len(few):,} of {len(classes):,} classes have fewer than {FEW} training images: {', '.join(shown)}{more}"
        )


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{_short(name)}'" for name in names[:_MOST_NAMED])
    return f"{shown}, ..." if len(names) > _MOST_NAMED else shown


def _short(name: str) -> str:
    """On a line of a terminal: what steers it is escaped."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in short)
