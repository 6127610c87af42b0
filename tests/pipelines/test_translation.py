"""docs/translation.md, followed to the letter: two folders become a served model in ten commands."""

from __future__ import annotations

import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import page_parts
import pytest
from PIL import Image
from projects import Project, make_project

pytestmark = pytest.mark.slow
_SMALLER = {
    "data.image_size": 16,
    "data.channels": 1,
    "train.num_images": 128,
    "evaluate.num_samples": 64,
    "gans.cyclegan.generator_width": 4,
    "gans.cyclegan.num_blocks": 1,
    "gans.cyclegan.discriminator_width": 4,
}


def commands() -> list[str]:
    """The lines of the page's first shell block."""
    text = next(text for language, _, text in page_parts.blocks("translation.md") if language == "sh")
    return text.splitlines()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A checkout without images, and a home with two folders of them in several formats and sizes."""
    root = tmp_path_factory.mktemp("translation")
    made = make_project(root / "project")
    shutil.rmtree(made.root / "images")
    random = np.random.default_rng(0)
    for folder, low in (("photos", 0), ("drawings", 128)):
        (root / "home" / folder).mkdir(parents=True)
        for number in range(30):
            height, width = 20 + number % 7, 20 + number % 5
            pixels = random.integers(low, low + 128, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "home" / folder / f"{number}.{('png', 'jpg', 'webp')[number % 3]}")
    shutil.copy(root / "home" / "photos" / "1.jpg", made.root / "photo.jpg")
    made.environment["HOME"] = str(root / "home")
    try:
        yield made
    finally:
        made.run("ganpipe", "down")  # the Ray that its stages started


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(project: Project, command: str, port: int) -> Iterator[None]:
    """While `command` runs and answers."""
    server = subprocess.Popen([*shlex.split(command), "--port", str(port)], cwd=project.root, env=project.environment)
    try:
        for _ in range(120):
            assert server.poll() is None
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)


def test_ten_commands(project: Project) -> None:
    first, second, *rest = commands()
    assert len(commands()) == 10
    assert [first, second] == ["make venv", ". .venv/bin/activate"]  # what `make test` does, and this test's own PATH
    (training,) = [line for line in rest if line.startswith("dvc exp run")]
    at, smaller = rest.index(training), " ".join(f"-S {key}={value}" for key, value in _SMALLER.items())
    for line in [*rest[:at], f"{training} {smaller}", *rest[at + 1 : -2]]:
        project.run("sh", "-ec", line)
    made = sorted(path.name for path in (project.root / "drawn").iterdir())
    assert made == sorted(f"{number}.png" for number in range(30))
    assert (project.root / "report.html").is_file()
    assert "models:/drawn/1 @challenger @champion" in project.run("ganpipe", "summary")

    serve, curl = rest[-2:]
    assert serve == "ganpipe serve"
    port = free_port()
    with serving(project, serve, port):
        project.run("sh", "-ec", curl.replace(":8090", f":{port}"))
        with Image.open(project.root / "drawn.png") as picture:
            assert picture.size == (16, 16)
        with Image.open(project.root / "drawn" / "1.png") as same:
            np.testing.assert_array_equal(np.asarray(same), np.asarray(Image.open(project.root / "drawn.png")))


def test_the_other_direction_that_the_page_names(project: Project) -> None:
    (option,) = [word for word in page_text().split("`") if word.startswith("ganpipe translate --direction")]
    project.run("sh", "-ec", f"{option} --input ~/drawings --output back")
    assert len(list((project.root / "back").iterdir())) == 30


def page_text() -> str:
    return Path(page_parts.DOCS / "translation.md").read_text(encoding="utf-8")
