"""Values of a generator's conditions (class, words, codes; not images), from the options of a command."""

from __future__ import annotations

import argparse
import math
from typing import Any

from ..errors import GanpipeError
from ..packaging.class_names import class_names, class_number
from ..packaging.served_model import PICTURES, Generator
from ..registry.open_model import OpenedGenerator
from ..section import nearest
from ..words import knows_a_word, words_like, words_of


def add_options(parser: argparse.ArgumentParser, without_label: str) -> None:
    """Add the options --label, --text and --set.

    Args:
        without_label: which classes the images have without --label, for the help text.
    """
    parser.add_argument(
        "--label", help=f"class of all images, by its number or name; default: {without_label}", metavar="CLASS"
    )
    parser.add_argument("--text", help="what all images show, for a GAN that takes words", metavar="WORDS")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a code of all images by its name, again for more; default: drawn from the seed",
    )


def pictures_of(model: OpenedGenerator) -> list[str]:
    """Names of the conditions that are images or frames."""
    return [name for name, spec in model.generator.conditions.items() if spec["kind"] in PICTURES]


def mask_of(model: OpenedGenerator) -> str | None:
    """Name of the condition that is a mask; None if there is none."""
    return next((name for name, spec in model.generator.conditions.items() if spec["kind"] == "mask"), None)


def values_of(model: OpenedGenerator, options: argparse.Namespace) -> dict[str, Any]:
    """The values of conditions that the options give for all rows, by name: numbers of classes, codes, texts.

    Raises:
        GanpipeError: the GAN does not take a condition, a value is out of range, or the words are missing.
    """
    generator = model.generator
    gan = f"the GAN {generator.description['gan']!r} of {model.name}"
    texts = [name for name, spec in generator.conditions.items() if spec["kind"] == "tokens"]
    asked: list[tuple[str, str, str]] = []
    if options.label is not None:
        if generator.label is None:
            raise GanpipeError(f"--label: {gan} takes no labels; leave --label out")
        asked.append(("--label", generator.label, options.label))
    if options.text is not None:
        if not texts:
            raise GanpipeError(f"--text: {gan} takes no words; leave --text out")
        asked.append(("--text", texts[0], options.text))
    settable = [name for name, spec in generator.conditions.items() if spec["kind"] not in PICTURES]
    for setting in options.settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise GanpipeError(f"--set: got {setting[:100]!r}; expected NAME=VALUE")
        if name not in settable:
            hint = nearest(name[:100], settable) if settable else f"{gan} takes none"
            raise GanpipeError(f"--set: there is no code {name[:100]!r}; {hint}")
        asked.append((f"--set {name}", name, text))
    found = {name: _value(generator, option, name, text) for option, name, text in asked}
    if missing := [name for name in texts if name not in found]:
        option = "--text" if missing[0] == texts[0] else f"--set {missing[0]}=…"
        raise GanpipeError(f"{option} is missing: {gan} makes images of words")
    return found


def _value(generator: Generator, option: str, name: str, text: str) -> Any:
    spec = generator.conditions[name]
    if spec["kind"] == "label":
        try:
            return class_number(text, spec["num_classes"], class_names(generator.description, name))
        except GanpipeError as error:
            raise GanpipeError(f"{option}: {error}") from None
    if spec["kind"] == "tokens":
        if not 1 <= len(words_of(text)) <= spec["length"]:
            raise GanpipeError(f"{option}: got {len(words_of(text))} words; expected 1 to {spec['length']}")
        known = generator.description.get("names", {}).get(name, ())
        if not knows_a_word(text, known):
            hint = nearest(words_of(text)[0], words_like(text, known))
            raise GanpipeError(f"{option}: the model knows no word of {text[:100]!r}; {hint}")
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not spec["low"] <= number <= spec["high"]:
        expected = f"a number from {spec['low']:g} to {spec['high']:g}"
        raise GanpipeError(f"{option}: got {text[:100]!r}; expected {expected}")
    return number
