"""The served page follows the registry, keeps serving whatever happens to it, and keeps clients within limits."""

from __future__ import annotations

import logging
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import uvicorn
from browser import Browser
from mlflow_parts import start_server, stop_server
from registry_parts import build, make_gan, own_samples
from serving_parts import NAME, Registry, get, served

from ganpipe.packaging.package import save_model
from ganpipe.service_kinds import free_port
from ganpipe.serving import card
from ganpipe.serving.app import Page, make_app, subject_noun
from ganpipe.serving.batching import Batcher, QueueFull
from ganpipe.serving.follower import Follower, Source
from ganpipe.serving.limits import RateLimit
from ganpipe.serving.query import Row
from ganpipe.serving.uploads import Uploads
from ganpipe.tracking.runs import Tracker

PNG = b"\x89PNG\r\n\x1a\n"
CHAMPION = Source(NAME, "champion", None)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    found = Registry(tmp_path_factory.mktemp("registry"))
    found.promote(found.add("gan"))
    found.add("gan", seed=1)
    return found


@pytest.fixture
def follower(registry: Registry, caplog: pytest.LogCaptureFixture) -> Iterator[Follower]:
    """Version 1 is served; nothing is polled, the tests ask for each look."""
    caplog.set_level(logging.INFO, "ganpipe.serving")
    registry.promote(1)
    found = Follower(registry.tracker, CHAMPION, poll_seconds=3600)
    found.start()
    yield found
    found.stop()


def image(follower: Follower, seed: int = 3) -> np.ndarray:
    assert follower.state.version is not None
    return follower.state.version.images([Row(seed)])[0].astype(int)


def expected(gan_seed: int, seed: int = 3) -> np.ndarray:
    return own_samples(make_gan("gan", seed=gan_seed), [seed], None).numpy()[0]


def test_it_follows_the_alias_forth_and_back(
    follower: Follower, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    for number, gan_seed in ((1, 0), (2, 1), (1, 0)):
        registry.promote(number)
        follower.check()
        assert follower.state.version.number == number
        assert np.abs(image(follower) - expected(gan_seed)).max() <= 1
    assert (follower.state.replaced, follower.state.notes) == (2, [])
    assert caplog.messages == [
        f"models:/{NAME}@champion moved: version 2 replaces version 1",
        f"models:/{NAME}@champion moved: version 1 replaces version 2",
    ]


def test_a_version_for_good_does_not_follow(registry: Registry) -> None:
    found = Follower(registry.tracker, Source(NAME, None, 2), poll_seconds=3600)
    found.check()
    registry.promote(1)
    found.check()
    assert found.state.version.number == 2


def test_a_version_from_before_has_no_way_between_seeds(follower: Follower, registry: Registry) -> None:
    registry.promote(registry.add_without_interpolation())
    follower.check()
    assert follower.state.version.capabilities.columns == ("seed", "truncation")
    assert np.abs(image(follower) - expected(0)).max() <= 1


class Canary:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


class Pickled(mlflow.pyfunc.PythonModel):
    def __init__(self, mark: Path) -> None:
        self.canary = Canary(mark)

    def predict(self, context: Any, model_input: list[str], params: Any = None) -> list[str]:
        return model_input


def test_a_pickle_is_never_loaded(follower: Follower, registry: Registry, tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"
    description = str(build(tmp_path, "gan") / "model.json")
    mlflow.pyfunc.save_model(
        str(tmp_path / "model"), python_model=Pickled(mark), artifacts={"description": description}, pip_requirements=[]
    )
    assert list((tmp_path / "model").glob("*.pkl"))
    mark.unlink(missing_ok=True)
    number = registry.add_directory(tmp_path / "model")
    registry.promote(number)
    follower.check()
    assert follower.state.failing.what == f"version {number} of {NAME}: it is a pickle, which is not loaded"
    assert follower.state.version.number == 1
    assert not mark.exists()


def test_a_damaged_version_leaves_the_old_one_in_place(
    follower: Follower, registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_model(build(tmp_path, "gan", seed=2), tmp_path / "model")
    weights = tmp_path / "model" / "artifacts" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    number = registry.add_directory(tmp_path / "model")
    registry.promote(number)
    before = image(follower)
    for _ in range(3):  # it is tried, and logged, once
        follower.check()
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert "the model is damaged" in follower.state.notes[0]
    assert follower.state.notes[0].endswith("Version 1 stays.")
    np.testing.assert_array_equal(image(follower), before)
    registry.promote(1)
    follower.check()
    assert follower.state.notes == []


def test_an_alias_that_is_gone_leaves_the_old_version_in_place(follower: Follower, registry: Registry) -> None:
    registry.client.delete_registered_model_alias(NAME, "champion")
    follower.check()
    assert follower.state.notes[0].endswith(f": models:/{NAME}@champion is not in the registry. Version 1 stays.")
    registry.promote(2)
    follower.check()
    assert (follower.state.version.number, follower.state.notes) == (2, [])


def test_a_database_that_is_away_is_waited_for(
    follower: Follower, registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = registry.root / "mlflow.db"
    shutil.move(database, tmp_path / "mlflow.db")
    for _ in range(2):
        follower.check()
    assert follower.state.notes[0].endswith(": MLflow does not answer. Version 1 stays.")
    assert not database.exists()
    image(follower)
    shutil.move(tmp_path / "mlflow.db", database)
    follower.check()
    assert follower.state.notes == []
    assert len([line for line in caplog.messages if "does not answer" in line]) == 1
    assert caplog.messages[-1] == f"MLflow answers again: models:/{NAME}@champion is version 1"


@pytest.mark.slow
def test_an_mlflow_server_comes_goes_and_comes_back(tmp_path: Path) -> None:
    port = free_port()
    environment = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    tracker = Tracker(environment["MLFLOW_TRACKING_URI"], "page", str(tmp_path / "spool"))
    with served(tmp_path, environment, "--model", f"models:/{NAME}@champion") as page, Browser() as browser:
        shown = browser.page()
        shown.goto(page.url)
        assert page.get("/readyz").status == 503
        assert "No digit yet" in page.get("/", Accept="text/html").body.decode()
        assert page.get("/api/images?seed=1").headers["retry-after"] == "5"
        process = start_server(tmp_path, port)
        try:
            registry = Registry(tmp_path / "models", tracker)
            registry.promote(registry.add("gan"))
            page.until(lambda: page.get("/readyz").status == 200, 60)
            shown.wait_for("document.querySelector('#hero')?.naturalWidth", seconds=60)
            assert shown.evaluate("location.search").startswith("?seed=")
            body = page.get("/api/images?seed=1").body
            stop_server(process)
            page.until(lambda: page.get("/api/model").json["notes"], 60)
            assert "MLflow does not answer. Version 1 stays." in page.get("/api/model").json["notes"][0]
            assert page.get("/api/images?seed=1").body == body
            assert page.get("/readyz").status == 200
            process = start_server(tmp_path, port)
            registry.promote(registry.add("gan", seed=1))
            page.until(lambda: page.get("/api/model").json["version"] == 2, 60)
            assert page.get("/api/images?seed=1").body != body
        finally:
            stop_server(process)


# --- limits


@contextmanager
def page_here(follower: Follower, batcher: Batcher, rate: RateLimit, max_under_way: int = 100) -> Iterator[int]:
    """The page's port; it is served by a thread of this process."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = make_app(Page(follower, batcher, rate, max_images=8, uploads=Uploads(2**20, 2**20)), (), max_under_way)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def test_a_client_that_asks_too_often_is_told_when_to_come_again(follower: Follower) -> None:
    batcher = Batcher(100)
    batcher.start()
    with page_here(follower, batcher, RateLimit(rate=0.5, burst=10)) as port:
        assert get(port, "/api/images?seed=0&count=8&format=json").status == 200
        refused = get(port, "/api/images?seed=0&count=8&format=json")
        assert (refused.status, refused.json["error"][:24]) == (429, "too many images at once;")
        assert 10 <= int(refused.headers["retry-after"]) <= 14
        assert get(port, "/healthz").status == 200
    batcher.stop()


def test_a_full_queue_refuses_and_what_is_in_it_is_answered(follower: Follower) -> None:
    batcher = Batcher(10)  # not at work yet
    futures = batcher.submit(follower.state.version, [Row(0)] * 8)
    with page_here(follower, batcher, RateLimit(1000, 1000)) as port:
        refused = get(port, "/api/images?seed=0&count=8")
        assert (refused.status, refused.json["error"][:28]) == (503, "too many images are waiting;")
        assert int(refused.headers["retry-after"]) >= 1
        batcher.start()
        assert len([future.result(60) for future in futures]) == 8
        assert get(port, "/api/images?seed=0&count=8").status == 200
    batcher.stop()


def test_requests_beyond_those_under_way_are_refused(follower: Follower) -> None:
    batcher = Batcher(100)  # not at work yet
    with page_here(follower, batcher, RateLimit(1000, 1000), max_under_way=1) as port:
        client = socket.create_connection(("127.0.0.1", port), timeout=60)
        client.sendall(b"GET /api/images?seed=0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        deadline = time.monotonic() + 20
        while (refused := get(port, "/api/model")).status != 503:
            assert time.monotonic() < deadline
        assert (refused.headers["retry-after"], refused.json["error"][:17]) == ("1", "too many requests")
        assert get(port, "/readyz").status == 200
        batcher.start()
        assert b"".join(iter(lambda: client.recv(65536), b"")).startswith(b"HTTP/1.1 200 OK")
        client.close()
        assert get(port, "/api/model").status == 200
    batcher.stop()


def test_rows_that_fit_together_share_a_forward_pass(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    version, passes = follower.state.version, []
    predict = type(version).images
    monkeypatch.setattr(type(version), "images", lambda self, rows: passes.append(len(rows)) or predict(self, rows))
    batcher = Batcher(100)
    futures = [batcher.submit(version, [Row(seed), Row(seed, truncation=0.5)]) for seed in range(20)]
    batcher.start()
    images = [[future.result(60) for future in pair] for pair in futures]
    batcher.stop()
    assert sorted(passes) == [4, 4, 8, 8, 8, 8]
    for seed, (plain, truncated) in enumerate(images):
        np.testing.assert_array_equal(plain, predict(version, [Row(seed)])[0])
        np.testing.assert_array_equal(truncated, predict(version, [Row(seed, truncation=0.5)])[0])


def test_every_forward_pass_has_the_same_size(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the rounding of a seed's image would depend on how many others are asked for at the same moment."""
    sizes: list[int] = []
    predict = mlflow.pyfunc.PyFuncModel.predict

    def counting(self: Any, frame: Any, *more: Any) -> Any:
        sizes.append(len(frame))
        return predict(self, frame, *more)

    monkeypatch.setattr(mlflow.pyfunc.PyFuncModel, "predict", counting)
    for num_rows in (1, 3, 8):
        rows = [Row(seed, truncation=0.5) for seed in range(num_rows)]
        assert follower.state.version.images(rows).shape == (num_rows, 16, 16, 1)
    follower.state.version.images([Row(1, to_seed=2, mix=0.5)])
    assert sizes == [8, 8, 8, 8]


def test_a_pass_that_fails_fails_its_requests_and_no_other(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    version = follower.state.version
    predict = type(version).images

    def images(self: Any, rows: list[Row]) -> np.ndarray:
        if rows[0].truncation == 0.5:
            raise RuntimeError("out of memory")
        return predict(self, rows)

    monkeypatch.setattr(type(version), "images", images)
    batcher = Batcher(100)
    batcher.start()
    with page_here(follower, batcher, RateLimit(1000, 1000)) as port:
        failed = get(port, "/api/images?seed=0&truncation=0.5")
        assert (failed.status, failed.json) == (500, {"error": "this server failed; its log says why"})
        assert failed.headers["x-content-type-options"] == "nosniff"
        assert get(port, "/api/images?seed=0").status == 200
    batcher.stop()


def test_a_queue_takes_all_or_nothing(follower: Follower) -> None:
    batcher = Batcher(10)
    batcher.submit(follower.state.version, [Row(0)] * 8)
    with pytest.raises(QueueFull):
        batcher.submit(follower.state.version, [Row(0)] * 3)
    batcher.submit(follower.state.version, [Row(0)] * 2)


# --- the card


def test_a_card_is_rendered_without_html_or_addresses_of_its_own() -> None:
    text = """# Title

<script>alert(1)</script> <img src=x onerror=alert(1)> **bold** [a](javascript:alert(1)) [b](https://example.org/)

![ours](samples.png) ![theirs](https://example.org/x.png) ![up](../model.json) ![q](x"onerror=alert(1).png)

| a | b |
| --- | --- |
| 1 | `2` |
"""
    html = card.render(text, {"samples.png": PNG})
    assert "<h2>Title</h2>" in html
    assert "<strong>bold</strong>" in html
    assert "<td>1</td>" in html
    assert html.count("<img") == 1
    assert '<img src="/card/samples.png" alt="ours" loading="lazy">' in html
    assert "<script" not in html
    assert 'href="javascript' not in html
    assert html.count("<a ") == 1
    assert '<a href="https://example.org/" rel="noopener noreferrer">b</a>' in html


def test_a_package_without_a_card_shows_its_tags(tmp_path: Path) -> None:
    html, pictures = card.read(tmp_path, {"metric.fid": "<3", "ganpipe.licence": "CC0", "other": "no"})
    assert pictures == {}
    assert html.count("<tr>") == 2
    assert '<th scope="row">fid</th><td>&lt;3</td>' in html


def test_only_png_files_beside_the_card_are_shown(tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("![a](samples.png) ![b](evil.png)")
    (tmp_path / "samples.png").write_bytes(PNG)
    (tmp_path / "evil.png").write_bytes(b"<svg onload=alert(1)>")
    html, pictures = card.read(tmp_path, {})
    assert list(pictures) == ["samples.png"]
    assert html.count("<img") == 1


@pytest.mark.parametrize(
    ("name", "gan", "word"),
    [
        ("ganpipe-mnist", "dcgan", "digit"),
        ("mnist_wgan_gp", "wgan_gp", "digit"),
        ("ganpipe-openmoji", "gan", "openmoji"),
        ("fashion-mnist", "dcgan", "fashion mnist"),
        ("ganpipe", "gan", "image"),
    ],
)
def test_what_does_not_exist_is_named_after_the_model(name: str, gan: str, word: str) -> None:
    assert subject_noun(name, gan) == word
