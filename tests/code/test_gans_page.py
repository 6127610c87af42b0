"""docs/gans.md has a section for every GAN, and its commands set what there is to set."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from page_parts import DOCS, blocks
from ruamel.yaml import YAML

from benchmarks import gans as bench_gans
from ganpipe import gans
from ganpipe.fields import Frames
from ganpipe.gans.base import DataSpec, Progress
from ganpipe.params import load_params

PAGE = "gans.md"
ROOT = Path(__file__).parents[2]


def commands() -> list[tuple[str, list[str]]]:
    """Its experiments, each a GAN and the words of the command; a line that ends in a backslash goes on."""
    found = []
    for language, _, text in blocks(PAGE):
        for line in text.replace("\\\n", " ").splitlines() if language == "sh" else []:
            words = shlex.split(line, comments=True)
            if words[:3] == ["dvc", "exp", "run"]:
                settings = dict(word.split("=", 1) for word in words[3:] if "=" in word)
                found.append((settings["train.gan"], words[3:]))
    return found


def test_every_gan_has_a_section() -> None:
    headings = re.findall(r"^## `(\w+)`", (DOCS / PAGE).read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == gans.names()
    assert sorted({name for name, _ in commands()}) == gans.names()


@pytest.mark.parametrize(("name", "words"), commands())
def test_its_settings_are_valid(name: str, words: list[str], tmp_path: Path) -> None:
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load(ROOT / "params.yaml")
    assert words[0::2] == ["-S"] * (len(words) // 2)
    for word in words[1::2]:
        key, _, value = word.partition("=")
        *sections, last = key.split(".")
        section = params
        for part in sections:
            section = section[part]
        assert last in section, f"{key} is no setting"
        section[last] = yaml.load(value)
    writer = YAML()
    writer.dump(params, tmp_path / "params.yaml")
    loaded = load_params(tmp_path / "params.yaml")
    assert loaded.train.gan == name


def test_its_tables_are_those_of_the_measurements() -> None:
    """`make bench-gans` writes both files; nobody edits the page's tables, or forgets to commit one of the two."""
    results = bench_gans.KEPT.rows()
    assert bench_gans.KEPT.shown() == f"\n{bench_gans.table(results)}\n"
    pairs = [(row["name"], row["data"]) for row in results]
    assert len(set(pairs)) == len(pairs) > 0
    for row in results:
        assert row["name"] in (*gans.names(), *bench_gans.ALONE)
        for suffix in row.get("pictures", ["png"]):
            assert (bench_gans.STRIPS / bench_gans.picture_of(row["name"], row["data"], suffix)).is_file()


@pytest.mark.parametrize("name", bench_gans.ALONE)
def test_a_generator_alone_has_no_discriminator_to_update(name: str) -> None:
    trial = bench_gans.Trial(name, "films" if "video" in name else "degraded")
    frames = {part: Frames(num_frames=2, size=64, channels=1) for part in ("past", "future")}
    data = DataSpec(frames, "future") if "video" in name else DataSpec.images(64, 3)
    gan = gans.load(trial.gan)(trial.config(), data)
    for seen in (0, 50, 99):
        assert [phase.player for phase in gan.phases(Progress(seen, 100))] == ["generator"]


def test_the_readme_counts_them() -> None:
    found = re.search(r"one short file: (\d+) of them", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert found is not None
    assert int(found[1]) == len(gans.names())
