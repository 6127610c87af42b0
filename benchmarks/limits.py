"""How far some goals are from what this machine can do: with convolutions alone, and with workers that never meet."""

from __future__ import annotations

import functools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from ganpipe.data.settings import DataSettings

from .ceiling import Ceiling
from .data import mnist
from .measure import Row, alternate, median, ratio
from .training import BATCH, CASES, SECONDS, InOwnProcess, bare_loop, one_file_an_image, textbook_code


class ConvolutionsAlone:
    """The bare loop, a window at a time, of which only the time in convolutions counts, forwards and backwards."""

    def __init__(self, loop: Ceiling) -> None:
        self.loop = loop

    def window(self, seconds: float) -> float:
        """Train for about so long. Returns images per second of convolutions."""
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            start, num_images = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                num_images += self.loop.step()
        operations = [event for event in profiler.key_averages() if event.key.startswith("aten::")]
        return num_images / (sum(event.self_cpu_time_total for event in operations if "conv" in event.key) / 1e6)


def _convolutions_alone(gan: str, shards: Path, precision: str) -> ConvolutionsAlone:
    return ConvolutionsAlone(bare_loop(gan, shards, precision))


def limits(folder: Path, rounds: int) -> list[Row]:
    """DCGAN's convolutions over textbook code, and two halves of a bare loop over one."""
    os.environ["GANPIPE_CACHE"] = str(folder / "cache")
    size = CASES["dcgan"][0]
    shards = mnist(folder / "shards", DataSettings(source="mnist", image_size=size))
    return [*_convolutions(shards, one_file_an_image(shards, folder / "png"), rounds), _apart(shards, rounds)]


def _convolutions(shards: Path, pngs: Path, rounds: int) -> list[Row]:
    _, goal, strict_goal = CASES["dcgan"]
    rows = []
    for precision, wanted in (("auto", goal), ("fp32", strict_goal)):
        with (
            InOwnProcess(functools.partial(textbook_code, "dcgan", shards, pngs)) as textbook,
            InOwnProcess(functools.partial(_convolutions_alone, "dcgan", shards, precision)) as alone,
        ):
            things = {"textbook": lambda: textbook.window(SECONDS), "convolutions": lambda: alone.window(SECONDS)}
            found = alternate(things, rounds)
        what = "`dcgan`'s convolutions alone" + (" in strict fp32" if precision == "fp32" else "")
        speeds = ", ".join(f"{name} {median(values):,.0f} images/s" for name, values in found.items())
        detail = f"{speeds}; the goal for all of the training is {wanted}"
        rows.append(Row(f"{what}, over textbook code", ratio(found, "convolutions", "textbook"), "x", "", detail))
    return rows


def _apart(shards: Path, rounds: int) -> Row:
    """Two processes of one thread, each with half of the batch, that tell each other nothing."""
    half = functools.partial(bare_loop, "dcgan", shards, "auto", BATCH // 2, 1)
    with (
        InOwnProcess(functools.partial(bare_loop, "dcgan", shards, "auto")) as one,
        InOwnProcess(half) as first,
        InOwnProcess(half) as second,
        ThreadPoolExecutor(2) as threads,
    ):

        def both() -> float:
            return sum(threads.map(lambda process: process.window(SECONDS), (first, second)))

        found = alternate({"one": lambda: one.window(SECONDS), "two": both}, rounds)
    speeds = f"one worker {median(found['one']):,.0f} images/s, two {median(found['two']):,.0f}; the goal is 1.0"
    what = "`dcgan`, two workers of one thread that never meet, over one of two"
    return Row(what, ratio(found, "two", "one"), "x", "", speeds)
