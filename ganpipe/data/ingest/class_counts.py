"""Images per class, as a table for a person, and warnings about classes that look like a mistake."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..shards.manifest import SUBSETS

FEW = 10
"""A class with fewer training images is named in a warning, because little can be learned from so few."""
_MOST_LINES = 20
_MOST_NAMED = 5
_LONGEST_NAME = 40


def table(classes: Sequence[str], train: Mapping[int, int], validation: Mapping[int, int]) -> list[str]:
    """The lines of a table of classes and their numbers of images; of many classes only the smallest and the largest.

    Args:
        classes: names by class number.
        train: class number -> number of training images; a class without images may be missing.
        validation: the same for the validation split.
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
    """Warnings that follow from the classes' names alone, one sentence each."""
    if len(classes) == 1:
        yield (
            f"there is one class only, {_quoted(classes)}: its label says nothing; set the source's labels to none, or "
            "put its images into one folder per class"
        )
    if len({SUBSETS[name.lower()] for name in classes if name.lower() in SUBSETS}) > 1:
        found = [name for name in classes if name.lower() in SUBSETS]
        yield (
            f"{_quoted(found)} are classes, but look like splits, with the classes in their subfolders; set "
            "data.source to imagefolder and sources.imagefolder.path to the folder above them"
        )
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(unicodedata.normalize("NFKC", name).strip().casefold(), []).append(name)
    for names in [names for names in alike.values() if len(names) > 1][:_MOST_NAMED]:
        yield f"the classes {_quoted(names)} differ by case or spaces only; give them one name if they are the same"
    if classes and all(name.isdecimal() for name in classes):
        moved = next((number for number, name in enumerate(classes) if int(name) != number), None)
        if moved is not None:
            yield (
                f"the classes' names are numbers, but not their own: class {moved} is called '{classes[moved]}'; a "
                "label is the class's number, not its name"
            )


def count_warnings(
    classes: Sequence[str], train: Mapping[int, int], validation: Mapping[int, int], limit: int | None = None
) -> Iterator[str]:
    """Warnings that follow from the numbers of images, one sentence each.

    Args:
        classes, train, validation: as in `table`.
        limit: `data.limit`, which may leave a class without images.
    """
    numbers = range(len(classes))
    empty = [number for number in numbers if not train.get(number, 0) and not validation.get(number, 0)]
    if empty and limit is not None:
        yield (
            f"{len(empty):,} of {len(classes):,} classes have no image among the {limit:,} of data.limit: "
            f"{_quoted([classes[at] for at in empty])}"
        )
    elif empty == [0] and len(classes) > 1:
        yield (
            f"class 0 ({_quoted(classes[:1])}) has no image: the labels seem to begin at 1; number them from 0, "
            "because a GAN with labels is built for class 0, too"
        )
    elif empty:
        yield (
            f"{len(empty):,} of {len(classes):,} classes have no image: {_quoted([classes[at] for at in empty])}; a "
            "GAN with labels is built for all of them; number the labels from 0 without gaps, or leave such classes out"
        )
    untrained = [number for number in numbers if not train.get(number, 0) and validation.get(number, 0)]
    if untrained:
        yield (
            f"{len(untrained):,} of {len(classes):,} classes have no training image, because the source keeps all "
            f"images of these classes for validation: {_quoted([classes[at] for at in untrained])}"
        )
    few = [number for number in numbers if 0 < train.get(number, 0) < FEW]
    if few:
        shown = [f"{_short(classes[at])} ({train[at]})" for at in sorted(few, key=lambda at: train[at])[:_MOST_NAMED]]
        more = ", ..." if len(few) > _MOST_NAMED else ""
        yield (
            f"{len(few):,} of {len(classes):,} classes have fewer than {FEW} training images: {', '.join(shown)}{more}"
        )


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{_short(name)}'" for name in names[:_MOST_NAMED])
    return f"{shown}, ..." if len(names) > _MOST_NAMED else shown


def _short(name: str) -> str:
    """The name cut to a length that fits a line; control characters, which may steer a terminal, are escaped."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in short)
