"""Whatever the bytes, readers of untrusted input answer with data that fits or with one clear error; hypothesis tries.

The default suite tries few and always the same ones; the slow suite tries thousands of new ones.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from manifest_parts import of_images
from PIL import Image

from ganpipe.data.images.decoding import UnreadableImage, decode, decode_png_CHW
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.shards.manifest import MANIFEST, Manifest, Shard, read_manifest, write_manifest
from ganpipe.data.shards.tar import read_members, tar_ending, tar_member
from ganpipe.data.sources.imagefolder_metadata import read_rows
from ganpipe.data.sources.mnist import Mnist, MnistSettings
from ganpipe.data.sources.webdataset import Webdataset, WebdatasetSettings
from ganpipe.errors import GanpipeError
from ganpipe.params import Params, load_params

ROOT = Path(__file__).resolve().parents[2]


# --- what is valid, to start from


def picture(number: int, kind: str = "png", size: int = 8) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@functools.cache
def shard() -> bytes:
    members = [member for key in range(3) for member in ((f"{key}.cls", b"%d" % key), (f"{key}.png", picture(key)))]
    content = b"".join(tar_member(name, data) for name, data in members)
    return content + tar_ending(len(content))


@functools.cache
def foreign(form: int, packed: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for key in range(3):
            about = json.dumps({"label": key, "caption": f"number {key}"}).encode()
            for suffix, content in (("png", picture(key)), ("json", about)):
                info = tarfile.TarInfo(f"{'long/' * 30}{key}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0) if packed else buffer.getvalue()


def manifest_of(content: bytes, num_samples: int = 3) -> Manifest:
    one = Shard(
        name="train-000000.tar",
        sha256=hashlib.sha256(content).hexdigest(),
        num_bytes=max(len(content), 1024 * num_samples),
        num_samples=num_samples,
        split="train",
    )
    return Manifest(
        source="folder", description="Noise.", licence="CC0", shards=(one,), **of_images(8, 3, ("a", "b", "c"))
    )


# --- how it is spoilt


@st.composite
def spoilt(draw: st.DrawFn, *contents: bytes) -> bytes:
    """One of the contents with bits flipped, bytes replaced, parts cut out, doubled or exchanged; or mere noise."""
    content = bytearray(draw(st.sampled_from(contents)))
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=3000))
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        # Headers lie at multiples of 512, and their fields in the first half of those.
        header = 512 * draw(st.integers(0, max(0, len(content) // 512 - 1)))
        place = min(
            len(content) - 1, draw(st.one_of(st.integers(0, len(content) - 1), st.integers(header, header + 270)))
        )
        match draw(st.integers(0, 5)):
            case 0:
                content[place] ^= 1 << draw(st.integers(0, 7))
            case 1:
                telling = st.sampled_from([b"\xff" * 12, b"7" * 12, bytes(512), b"../"])
                noise = draw(st.binary(min_size=1, max_size=12) | telling)
                content[place : place + len(noise)] = noise
            case 2:
                del content[place:]
            case 3:
                del content[place : place + draw(st.integers(1, 1024))]
            case 4:
                content[place:place] = content[header : header + draw(st.sampled_from([1, 512, 1024]))]
            case _:
                content[:512], content[header : header + 512] = content[header : header + 512], content[:512]
    return bytes(content)


def with_sums(content: bytes) -> bytes:
    """The tar with the checksum of each spoilt header made right again, so that its fields are looked at."""
    out = bytearray(content)
    for start in range(0, len(out) - 511, 512):
        if out[start + 257 : start + 262] == b"ustar":
            out[start + 148 : start + 156] = b" " * 8
            out[start + 148 : start + 156] = b"%06o\0 " % sum(out[start : start + 512])
    return bytes(out)


plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(10**40), 10**40), st.floats(), st.text(max_size=20),
    st.sampled_from(["../../x", "/x", "a\0b", "$(touch x)", "\ud800", "1" * 5000, -1, 0, 2**63, float("inf")]),
)  # fmt: skip
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in below for place in places(one, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    if isinstance(value, dict):
        return {key: replaced(one, path[1:], by) if key == path[0] else one for key, one in value.items()}
    return [replaced(one, path[1:], by) if key == path[0] else one for key, one in enumerate(value)]


@st.composite
def altered(draw: st.DrawFn, start: Any) -> Any:
    """JSON or YAML in which one to three values are others, or stand under another key, or which is another at all."""
    for _ in range(draw(st.integers(1, 3))):
        start = replaced(start, draw(st.sampled_from(places(start))), draw(values))
    if isinstance(start, dict) and draw(st.integers(0, 4)) == 0:
        start = {**start, draw(st.text(max_size=12)): draw(values)}
    return start


# --- what is tried


def only_clear(read: Callable[[], Any], also: type[Exception] = GanpipeError) -> Any:
    """What `read` gives; None where it refuses in words, on few lines that a terminal can show."""
    try:
        return read()
    except (GanpipeError, also) as error:
        message = str(error)
        assert message
        assert len(message) < 20_000, message[:500]
        return None


def in_folder(name: str, content: bytes, read: Callable[[Path], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return only_clear(lambda: read(path))


def try_members(content: bytes) -> None:
    found = in_folder("train-000000.tar", content, lambda path: list(read_members(path)))
    for name, member in found or ():
        assert "/" not in name
        assert not name.startswith(".")
        assert member in content


def try_dataset(content: bytes) -> None:
    """The manifest agrees with the bytes: whoever spoilt the one could write the other."""
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "shards"
        shards.mkdir()
        (shards / "train-000000.tar").write_bytes(content)
        write_manifest(shards, manifest_of(content))
        dataset = only_clear(lambda: open_dataset(shards, "train", Path(folder) / "cache"))
        if dataset is not None:
            rows = dataset.rows(np.arange(len(dataset)))
            assert rows["image"].shape == (3, 3, 8, 8)
            assert rows["label"].max() < 3
        assert {path.name for path in Path(folder).iterdir()} <= {"shards", "cache"}


def try_manifest(content: bytes) -> None:
    manifest = in_folder(MANIFEST, content, lambda path: read_manifest(path.parent))
    if manifest is not None:
        assert all("/" not in name and ".." not in name for name in manifest.fields)
        assert all("/" not in one.name and ".." not in one.name for one in manifest.shards)
        assert manifest.num_samples("train") <= 2**60
        assert Manifest.model_validate(manifest.model_dump(mode="json")) == manifest


def try_manifest_values(value: Any) -> None:
    try_manifest(json.dumps(value).encode())


def try_params(content: bytes) -> None:
    params = in_folder("params.yaml", content, load_params)
    assert params is None or isinstance(params, Params)


def try_params_values(value: Any) -> None:
    try_params(yaml.safe_dump(value, allow_unicode=False).encode())


def try_foreign(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.tar").write_bytes(content)
        chosen = {"path": folder, "label": "json:label", "text": "json:caption"}
        source = Webdataset(WebdatasetSettings.model_validate(chosen))
        only_clear(source.check)
        for item in only_clear(lambda: list(source.items())) or ():
            assert item.name.isprintable()
            assert item.values.get("label") is not None
            assert isinstance(item.values.get("text"), str)
            only_clear(item.images["image"].read)
        assert [path.name for path in Path(folder).iterdir()] == ["x.tar"]


def try_table(content: bytes) -> None:
    for name in ("metadata.csv", "metadata.jsonl"):
        for row in in_folder(name, content, read_rows) or ():
            parts = only_clear(lambda row=row: row.parts)
            assert parts is None or ".." not in parts


def try_idx(content: bytes) -> None:
    labels = (0x801).to_bytes(4, "big") + (3).to_bytes(4, "big") + b"\0\1\2"
    for ending in ("", ".gz"):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"train-images-idx3-ubyte{ending}").write_bytes(content)
            (Path(folder) / "train-labels-idx1-ubyte").write_bytes(labels)
            source = Mnist(MnistSettings(path=folder))
            for item in only_clear(source.items) or ():
                only_clear(item.images["image"].read)


def try_image(content: bytes) -> None:
    image = only_clear(lambda: decode(content, 1000), UnreadableImage)
    assert image is None or image.width * image.height <= 1000
    pixels = only_clear(lambda: decode_png_CHW(content, 8, 8, 3), UnreadableImage)
    assert pixels is None or pixels.shape == (3, 8, 8)


@dataclass(frozen=True)
class Target:
    examples: int
    """In the default suite."""
    strategy: st.SearchStrategy[Any]
    check: Callable[[Any], None]


def _targets() -> dict[str, Target]:
    manifest = json.loads(json.dumps(manifest_of(shard()).model_dump(mode="json")))
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    text = (ROOT / "params.yaml").read_bytes()
    snippets = [
        b"a: &a [1]\nb: *a\n",
        b"[" * 60,
        b"!!int ''",
        b"a: 2001-99-99",
        b"<<: *x",
        b'a: "\\ud800"',
        b"? [a]\n: b",
    ]
    images = [
        picture(1, kind) for kind in ("png", "jpeg", "gif", "webp", "tiff", "bmp", "ico", "ppm", "tga", "jpeg2000")
    ]
    tars = [foreign(form, packed) for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT) for packed in (False, True)]
    table = b'file_name,label\na.png,"1"\nb/c.png,2\n'
    rows = b'{"file_name": "a.png", "label": 1}\n{"file_name": "b/c.png", "label": [1]}\n'
    idx = (0x803).to_bytes(4, "big") + b"".join(size.to_bytes(4, "big") for size in (3, 4, 4)) + bytes(48)
    return {
        "members of a shard": Target(60, spoilt(shard()), try_members),
        "members of a shard, sums right": Target(60, spoilt(shard()).map(with_sums), try_members),
        "a shard under its manifest": Target(25, spoilt(shard()), try_dataset),
        "bytes of a manifest": Target(40, spoilt(json.dumps(manifest).encode()), try_manifest),
        "values of a manifest": Target(80, altered(manifest), try_manifest_values),
        "bytes of params.yaml": Target(15, spoilt(text[:3000], *snippets), try_params),
        "values of params.yaml": Target(20, altered(params), try_params_values),
        "shards of others": Target(40, spoilt(*tars), try_foreign),
        "shards of others, sums right": Target(40, spoilt(*tars[::2]).map(with_sums), try_foreign),
        "tables about images": Target(40, spoilt(table, rows), try_table),
        "IDX files": Target(30, spoilt(idx, gzip.compress(idx, mtime=0)), try_idx),
        "images": Target(100, spoilt(*images), try_image),
    }


TARGETS = _targets()


def _try(target: Target, examples: int, derandomize: bool) -> None:
    calm = settings(
        max_examples=examples,
        derandomize=derandomize,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # What was found is shown as it is where finding the smallest would take minutes.
        phases=[Phase.generate, Phase.shrink],
    )
    calm(given(target.strategy)(target.check))()


@pytest.mark.parametrize("name", TARGETS)
def test_only_clear_errors(name: str) -> None:
    _try(TARGETS[name], TARGETS[name].examples, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_only_clear_errors_for_longer(name: str) -> None:
    _try(TARGETS[name], 40 * TARGETS[name].examples, derandomize=False)
