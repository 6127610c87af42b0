"""Servers that fail for a moment: real ones on loopback that refuse, cut connections, and change files meanwhile."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import s3fs
from PIL import Image

from ganpipe.data.access import retrying
from ganpipe.data.access.download import KnownFile, fetch
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.data.sources import foreign_files
from ganpipe.data.sources.webdataset import Webdataset, WebdatasetSettings
from ganpipe.errors import EXIT_UNAVAILABLE, GanpipeError, UnavailableError

CUT = 20_000
MakeSettings = Callable[..., DataSettings]


@dataclass
class Site:
    """What a server gives, and how it fails.

    Attributes:
        faults: one a request, in turn, until they are used up: a status, `cut`: the connection ends after CUT bytes, or
            `stall`: it stays open after them, and nothing more comes.
        asked: method and Range of each request.
        afterwards: called after each answer.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[int | str] = field(default_factory=list)
    ranges: bool = True
    tag: str | None = '"1"'
    retry_after: str | None = None
    chunked: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    afterwards: Callable[[], None] = lambda: None
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.close_connection = True
        site, wish = self.site, self.headers.get("Range")
        site.asked.append((self.command, wish))
        fault = site.faults.pop(0) if site.faults else None
        content = site.files.get(self.path)
        if isinstance(fault, int) or content is None:
            self.send_response(fault if isinstance(fault, int) else 404)
            if site.retry_after is not None:
                self.send_header("Retry-After", site.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if wish and site.ranges and self.headers.get("If-Range") in (None, site.tag):
            start = int(wish.removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if site.tag:
            self.send_header("ETag", site.tag)
        if site.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        sent = content[start:] if fault is None else content[start : start + CUT]
        if self.command == "GET":
            self.wfile.write(b"%x\r\n%b\r\n" % (len(sent), sent) if site.chunked else sent)
            if site.chunked and fault is None:
                self.wfile.write(b"0\r\n\r\n")
        if fault == "stall":
            self.wfile.flush()
            site.released.wait(30)
        site.afterwards()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    handler = type("HandlerOfTheTest", (Handler,), {"site": made})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        made.url = f"http://127.0.0.1:{server.server_port}"
        yield made
        made.released.set()
        server.shutdown()


def shard(num: int = 12, first: int = 0) -> bytes:
    """A tar of noise that no compression makes small: some 5,000 bytes an image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(first, first + num):
            png = io.BytesIO()
            pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(png, "png")
            info = tarfile.TarInfo(f"{number:04d}.png")
            info.size = len(png.getvalue())
            archive.addfile(info, io.BytesIO(png.getvalue()))
    return buffer.getvalue()


def source_of(site: Site, name: str = "x.tar") -> Webdataset:
    return Webdataset(WebdatasetSettings.model_validate({"shards": [f"{site.url}/{name}"]}))


def read(site: Site, name: str = "x.tar") -> list[bytes]:
    return [item.images["image"].read() for item in source_of(site, name).items()]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_error_that_passes_is_waited_for(status: int, site: Site) -> None:
    site.files["/x.tar"], site.faults = shard(3), [status, status]
    assert len(read(site)) == 3
    assert site.asked == [("GET", None)] * 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_a_refusal_is_final(status: int, site: Site) -> None:
    site.files["/x.tar"], site.faults = shard(3), [status]
    with pytest.raises(GanpipeError, match=rf"x\.tar: HTTP {status} ") as caught:
        read(site)
    assert not isinstance(caught.value, UnavailableError)
    assert len(site.asked) == 1


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["ranges", "no ranges", "no version", "chunked"])
def test_a_connection_that_is_cut_goes_on_where_it_was(kind: str, packed: bool, site: Site) -> None:
    content = shard()
    site.files = {"/whole": content, "/x.tar": gzip.compress(content) if packed else content}
    whole = read(site, "whole")
    site.asked.clear()
    site.ranges, site.chunked = kind != "no ranges", kind == "chunked"
    site.tag = None if kind == "no version" else '"1"'
    site.faults = ["cut", 503, "cut"]
    assert read(site) == whole
    ranged = "bytes=20000-" if kind != "no version" else None
    assert site.asked[:3] == [("GET", None), ("GET", ranged), ("GET", ranged)]
    # Without ranges the second answer, cut at the same byte, gave nothing new.
    more = ranged if kind == "no ranges" or ranged is None else "bytes=40000-"
    assert site.asked[3:] == [("GET", more)]


def test_a_server_that_falls_silent_is_asked_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_files, "CONNECT_TIMEOUT_SECONDS", 0.3)
    site.files["/x.tar"], site.faults = shard(), ["stall"]
    assert len(read(site)) == 12
    assert site.asked == [("GET", None), ("GET", "bytes=20000-")]


def test_a_server_that_cuts_every_time_is_left(site: Site) -> None:
    site.files["/x.tar"], site.ranges, site.faults = shard(), False, ["cut"] * 100
    with pytest.raises(UnavailableError) as caught:
        read(site)
    assert str(caught.value).startswith(f"{site.url}/x.tar: cannot be read after 0002.png (the connection ended after ")
    assert str(caught.value).endswith(
        "5 attempts in 0 s); try again later: nothing of this ingest is kept, the same command begins it anew"
    )
    assert len(site.asked) == 5


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("same_size", [True, False])
def test_a_file_that_changes_meanwhile_is_never_spliced(ranges: bool, same_size: bool, site: Site) -> None:
    first, second = shard(), shard(12 if same_size else 11, 50)
    site.files["/x.tar"], site.ranges, site.faults = first, ranges, ["cut"]

    def change() -> None:
        site.files["/x.tar"], site.tag = second, '"2"'

    site.afterwards = change
    with pytest.raises(UnavailableError, match=r"x\.tar: .*changed on its server while it was read"):
        read(site)


def test_a_changed_file_without_any_version_is_noticed(site: Site) -> None:
    site.files["/x.tar"], site.tag, site.faults = shard(), None, ["cut"]
    site.afterwards = lambda: site.files.update({"/x.tar": shard(first=50)})
    with pytest.raises(UnavailableError, match="changed on its server while it was read"):
        read(site)


def test_what_a_server_asks_for_is_waited(site: Site) -> None:
    site.files["/x.tar"], site.faults, site.retry_after = shard(1), [503], "1"
    attempts = retrying.Attempts()
    read(site)
    assert 1 <= attempts.seconds < 3
    site.faults, site.retry_after = [503], "3600"
    with pytest.raises(UnavailableError, match=r"HTTP 503 .*, its server asks to be left alone for 3,600 s\)"):
        read(site)
    site.faults, site.retry_after = [429], "Wed, 21 Oct 2099 07:28:00 GMT"
    with pytest.raises(UnavailableError, match=r"HTTP 429 .*, its server asks to be left alone for [\d,]+ s\)"):
        read(site)


def test_shards_after_faults_are_those_without(site: Site, tmp_path: Path, settings_of: MakeSettings) -> None:
    site.files["/x.tar"] = shard()
    settings = settings_of(source="webdataset")
    whole = write_shards(settings, source_of(site), tmp_path / "whole", num_processes=1)
    site.faults = [503, "cut", "cut"]
    assert write_shards(settings, source_of(site), tmp_path / "mended", num_processes=1) == whole


def test_the_fingerprint_waits_too(site: Site) -> None:
    site.files["/x.tar"] = shard(1)
    before = source_of(site).fingerprint()
    site.faults = [503]
    assert source_of(site).fingerprint() == before


CONTENT = np.random.default_rng(0).bytes(60_000)
FILES = [KnownFile(name, len(CONTENT), hashlib.sha256(CONTENT).hexdigest()) for name in ("one", "two")]


def fetch_all(folder: Path, *mirrors: str) -> dict[str, Path]:
    return fetch(FILES, mirrors, folder, "The data", "Do it by hand.")


def test_mirrors_are_tried_again_after_the_others(site: Site, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT)
    site.files = {"/a/one.gz": packed, "/a/two.gz": packed}
    site.faults = [503, 404, "cut"]
    paths = fetch_all(tmp_path, f"{site.url}/a", f"{site.url}/absent")
    assert [path.read_bytes() for path in paths.values()] == [CONTENT, CONTENT]
    assert [wish for _, wish in site.asked] == [None, None, None, "bytes=20000-", None]


def test_mirrors_that_all_fail_say_what_is_kept(site: Site, tmp_path: Path) -> None:
    site.files = {"/a/one.gz": gzip.compress(CONTENT)}
    with pytest.raises(GanpipeError, match=r"from any mirror: .*/a \(two\.gz: HTTP 404 Not Found\)\. Do it") as final:
        fetch_all(tmp_path, f"{site.url}/a")
    assert not isinstance(final.value, UnavailableError)
    assert (tmp_path / "one").read_bytes() == CONTENT
    site.faults = [503] * 100
    with pytest.raises(
        UnavailableError,
        match=r"two\.gz: HTTP 503 .*\) \(5 attempts in 0 s\)\. 1 of 2 files are kept in .*\. Do it by hand\.",
    ):
        fetch_all(tmp_path, f"{site.url}/a")


def test_a_registry_of_npm_that_fails_for_a_moment(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("npm") is None:
        pytest.skip("no npm here")
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w:gz") as archive:
        named = {f"data/{file.name}": CONTENT for file in FILES} | {
            "package.json": b'{"name": "p", "version": "1.0.0"}'
        }
        for name, content in named.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    packed = package.getvalue()
    about = {"tarball": f"{site.url}/p.tgz", "shasum": hashlib.sha1(packed, usedforsecurity=False).hexdigest()}
    versions = {"1.0.0": {"name": "p", "version": "1.0.0", "dist": about}}
    site.files = {"/p.tgz": packed, "/p": json.dumps({"name": "p", "versions": versions}).encode()}
    site.faults = [503]
    monkeypatch.setenv("npm_config_registry", site.url)
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    assert all(path.read_bytes() == CONTENT for path in fetch_all(tmp_path / "kept", "npm:p@1.0.0/data").values())
    assert not site.faults


def test_an_object_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "MAX_ATTEMPTS": "1"}
    for name, value in given.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(retrying, "MAX_ATTEMPTS", 2)
    s3fs.S3FileSystem.clear_instance_cache()  # one made by another test knows another server
    stored = Webdataset(WebdatasetSettings.model_validate({"shards": ["s3://bucket/x.tar"]}))
    with pytest.raises(
        UnavailableError, match=r"s3://bucket/x\.tar: cannot be read at all \(Could not connect .*, 2 attempts"
    ):
        list(stored.items())
    s3fs.S3FileSystem.clear_instance_cache()


def test_shards_of_another_host_go_on_where_they_were_cut(
    site: Site, flat_folder: Path, folder_source: Callable[..., object], tmp_path: Path, settings_of: MakeSettings
) -> None:
    settings = settings_of(image_size=64, validation_fraction=0, enlarge="resize")
    manifest = write_shards(settings, folder_source(flat_folder), tmp_path / "shards")  # type: ignore[arg-type]
    (name,) = (one.name for one in manifest.shards)
    site.files["/s"] = (tmp_path / "shards" / name).read_bytes()
    elsewhere = ShardSet(str(tmp_path / "absent"), manifest, {name: f"{site.url}/s"})
    site.faults = [503, 503]
    assert len(open_dataset(elsewhere, "train")) == 60
    site.faults = [503] * 100
    with pytest.raises(
        UnavailableError, match=rf"{name} cannot be fetched: .*shards that were fetched completely are kept"
    ):
        open_dataset(elsewhere, "train", tmp_path / "other")


def test_an_ingest_that_cannot_go_on_ends_with_75(site: Site, tmp_path: Path) -> None:
    """The whole command: it names the shard, leaves nothing half done, and Prefect may try again."""
    site.files["/x.tar"], site.faults, site.retry_after = shard(), [503], "900"
    params = {"data": {"source": "webdataset"}, "sources": {"webdataset": {"shards": [f"{site.url}/x.tar"]}}}
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    command = [sys.executable, "-m", "ganpipe", "ingest"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_UNAVAILABLE
    assert done.stderr.splitlines()[-1] == (
        f"error: {site.url}/x.tar: cannot be read at all (HTTP 503 Service Unavailable, its server asks to be left "
        "alone for 900 s); try again later: nothing of this ingest is kept, the same command begins it anew"
    )
    assert not list((tmp_path / "artifacts" / "shards").iterdir())
