"""What a person should know of a dataset before a day of training: as numbers, and as one page.

Legend: N images, C channels, H height, W width, P pairs.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np

from ..images.decoding import BRIGHTEST, DARKEST, FLATTEST
from ..shards.left_out import summary_lines
from ..shards.manifest import SPLITS, Manifest
from . import class_counts
from .alike import blank_kinds, equal_pairs, near_pairs
from .originals import Originals

_MOST_COMPARED, _MOST_BYTES = 100_000, 2**30
"""Images, and their bytes, in which duplicates and blank images are looked for: the first of each split, which are a
random choice."""
_NUM_SHOWN = 16
_MANY = 0.01
"""Share of the images from which on duplicates and blank images are a warning."""


def num_compared(manifest: Manifest, split: str) -> int:
    """How many of a split's images are compared: each split has its share of what there is room for, at least one."""
    total = sum(manifest.num_samples(one) for one in manifest.splits)
    image = manifest.image
    room = max(len(manifest.splits), min(_MOST_COMPARED, _MOST_BYTES // (image.channels * image.size**2)))
    number = manifest.num_samples(split)
    return number if total <= room else max(1, number * room // total)


def numbers(
    manifest: Manifest,
    originals: Originals,
    images: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The report as plain values, and what its page shows of each kind: images (N, C, H, W) by title.

    Args:
        images: of the main field by split, the first `num_compared`, uint8, (N, C, H, W).
        labels: of the main label of all samples by split; empty without labels.
    """
    splits = [split for split in SPLITS if split in images]
    all_NCHW = np.concatenate([images[split] for split in splits]) if len(splits) > 1 else images[splits[0]]
    is_train_N = np.repeat([split == "train" for split in splits], [len(images[split]) for split in splits])
    pairs = {"equal": equal_pairs(all_NCHW), "nearly equal": near_pairs(all_NCHW)}
    across = {kind: int((is_train_N[found[:, 0]] != is_train_N[found[:, 1]]).sum()) for kind, found in pairs.items()}
    blank = blank_kinds(all_NCHW, DARKEST, BRIGHTEST, FLATTEST)
    counts = [dict(enumerate(np.bincount(labels.get(split, np.zeros(0, np.int64))).tolist())) for split in SPLITS]
    classes = manifest.classes
    found: dict[str, Any] = {
        "images": {split: manifest.num_samples(split) for split in manifest.splits},
        "compared": len(all_NCHW),
        "originals": originals.summary(),
        "left_out": {one.kind: one.number for one in manifest.left_out},
        "unreadable": len(manifest.skipped),
        "blank": {kind: len(found_of) for kind, found_of in blank.items()},
        "duplicates": {
            kind: {"pairs": len(found_of), "across_splits": across[kind]} for kind, found_of in pairs.items()
        },
        "classes": {name: [counts[0].get(at, 0), counts[1].get(at, 0)] for at, name in enumerate(classes)},
        "brightness": _brightness(all_NCHW),
    }
    found["warnings"] = [
        *warnings(found),
        *(class_counts.name_warnings(classes) if classes else ()),
        *(class_counts.count_warnings(classes, counts[0], counts[1]) if classes else ()),
    ]
    shown = {f"{kind}, in pairs": all_NCHW[found_of[:_NUM_SHOWN].reshape(-1)] for kind, found_of in pairs.items()}
    shown |= {kind: all_NCHW[found_of[:_NUM_SHOWN]] for kind, found_of in blank.items()}
    return found, {title: chosen for title, chosen in shown.items() if len(chosen)}


def _brightness(images_NCHW: np.ndarray) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel, by how often each of the 256 values occurs."""
    levels, found = np.arange(256), dict[str, list[float]](mean=[], deviation=[])
    for channel in range(images_NCHW.shape[1]):
        counts = np.zeros(256)
        for image in images_NCHW:
            counts += np.bincount(image[channel].reshape(-1), minlength=256)
        shares = counts / counts.sum()
        mean = float(shares @ levels)
        found["mean"].append(float(f"{mean:.4g}"))
        found["deviation"].append(float(f"{np.sqrt(shares @ (levels - mean) ** 2):.4g}"))
    return found


def warnings(found: Mapping[str, Any]) -> list[str]:
    """What is wrong with the images, one sentence each, and what to do; without what their classes are warned of."""
    told = []
    for kind, counted in found["duplicates"].items():
        if counted["across_splits"]:
            told.append(
                f"{counted['across_splits']:,} pairs of {kind} images have one image to train on and one to validate "
                "with: what is measured against the validation images counts copies as progress; remove duplicates"
            )
        if counted["pairs"] > _MANY * found["compared"]:
            told.append(
                f"{counted['pairs']:,} pairs of images are {kind}: a generator learns them by heart first; remove "
                "duplicates"
            )
    for kind, number in found["blank"].items():
        if number > _MANY * found["compared"]:
            told.append(f"{number:,} images are {kind}: look at them, and at data.value_range and data.background")
    if found["unreadable"]:
        told.append(f"{found['unreadable']:,} images cannot be read, and are left out (data.unreadable)")
    enlarged = found["originals"]["done"].get("scaled up (data.enlarge)", 0)
    if enlarged > 0.1 * sum(found["images"].values()):
        told.append(
            f"{enlarged:,} images are scaled up: a generator learns their blur; lower data.image_size, or set "
            "data.enlarge to pad"
        )
    return told


def text(found: Mapping[str, Any], manifest: Manifest) -> list[str]:
    """The report as lines for a terminal."""
    originals = found["originals"]
    lines = [f"{manifest.source}: {manifest.description}", f"licence: {manifest.licence}"]
    lines.append("images: " + ", ".join(f"{number:,} {split}" for split, number in found["images"].items()))
    lines += [f"  {number:>9,}  {kind}" for kind, number in originals["kinds"].items()]
    if originals["unknown"]:
        lines.append(f"  {originals['unknown']:>9,}  made by the source, or without a header")
    for name in ("width", "height", "aspect_ratio"):
        if name in originals:
            least, median, greatest = originals[name]
            lines.append(f"{name.replace('_', ' ')}: {least:g} to {greatest:g}, median {median:g}")
    if originals["done"]:
        lines.append("what ingest did:")
        lines += [f"  {number:>9,}  {what}" for what, number in originals["done"].items()]
    lines += [f"left out: {line}" for line in summary_lines(manifest.left_out)]
    lines.append(f"of {found['compared']:,} images that were compared:")
    for kind, counted in found["duplicates"].items():
        lines.append(f"  {counted['pairs']:>9,}  pairs {kind}, {counted['across_splits']:,} of them across the splits")
    lines += [f"  {number:>9,}  {kind}" for kind, number in found["blank"].items()]
    if found["classes"]:
        counts = [{at: pair[side] for at, pair in enumerate(found["classes"].values())} for side in (0, 1)]
        lines += class_counts.table(list(found["classes"]), *counts)
    return [*lines, *(f"warning: {warning}" for warning in found["warnings"])]


def page(found: Mapping[str, Any], manifest: Manifest, sheets: Sequence[tuple[str, bytes]]) -> str:
    """The report as one HTML page that needs no other file.

    Args:
        sheets: title and PNG of each picture.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    encoded = [(title, base64.b64encode(png).decode()) for title, png in sheets]
    tables = [table for table in _tables(found) if table[2]]
    return environment.from_string(_PAGE).render(found=found, manifest=manifest, tables=tables, sheets=encoded) + "\n"


def _tables(found: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, Sequence[float]]]]]:
    """Title, names of the columns, and rows (name, values) of each table of the page."""
    originals = found["originals"]
    images = [(split, [number]) for split, number in found["images"].items()]
    images += [("unreadable", [found["unreadable"]])]
    images += [(f"left out: {kind}", [number]) for kind, number in found["left_out"].items()]
    kinds = [(kind, [number]) for kind, number in originals["kinds"].items()]
    kinds += [("made by the source, or without a header", [originals["unknown"]])] if originals["unknown"] else []
    sides = ("width", "height", "aspect_ratio")
    measures = [(name.replace("_", " "), originals[name]) for name in sides if name in originals]
    duplicates = [(kind, [one["pairs"], one["across_splits"]]) for kind, one in found["duplicates"].items()]
    compared = f"in {found['compared']:,} images, as they are trained on"
    return [
        ("Images", (), images),
        ("Before ingest", (), kinds),
        ("Sizes before ingest", ("least", "median", "greatest"), measures),
        ("What ingest did", (), [(what, [number]) for what, number in originals["done"].items()]),
        (f"Duplicates {compared}", ("pairs", "across the splits"), duplicates),
        (f"Blank images {compared}", (), [(kind, [number]) for kind, number in found["blank"].items()]),
        ("Classes", ("train", "validation"), list(found["classes"].items())),
    ]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Data: {{ manifest.source }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 }
td, th { border: 1px solid #bbb; padding: .2rem .6rem; text-align: left }
td { text-align: right }
img { max-width: 100%; image-rendering: pixelated; border: 1px solid #bbb }
.warnings { background: #fff1c2; padding: .6rem 2rem }
</style></head><body>
{% macro row(name, values) %}
<tr><th scope="row">{{ name }}</th>
{% for value in values %}<td>{{ "{:,}".format(value) if value is integer else "%g"|format(value) }}</td>
{% endfor %}</tr>
{% endmacro %}
{% macro table(rows, columns=()) %}
<table>{% if columns %}<tr><td></td>{% for name in columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr>{% endif %}
{% for name, values in rows %}{{ row(name, values) }}{% endfor %}</table>
{% endmacro %}
<h1>{{ manifest.source }}</h1>
<p>{{ manifest.description }}<br>Licence: {{ manifest.licence }}<br>
Digest of the shards: <code>{{ manifest.digest[:16] }}</code></p>
{% if found.warnings %}<h2>Warnings</h2>
<ul class="warnings">{% for warning in found.warnings %}<li>{{ warning }}</li>{% endfor %}</ul>{% endif %}
{% for title, columns, rows in tables %}
<h2>{{ title }}</h2>
{{ table(rows, columns) }}
{% endfor %}
<h2>Pictures</h2>
{% for title, png in sheets %}
<figure><figcaption>{{ title }}</figcaption><img alt="{{ title }}" src="data:image/png;base64,{{ png }}"></figure>
{% endfor %}
</body></html>"""
