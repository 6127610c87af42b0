"""Helper modules beside the tests are importable from every folder of tests; the browser and the Ray head that tests
share; how they are spread over processes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import groups
from ray_parts import ray_head, shards  # noqa: F401

from ganpipe.cpus import usable_cpus

if TYPE_CHECKING:
    from browser import Browser
    from registry_parts import Desk
    from xdist.remote import Producer


SLOW_SECONDS = 1800
"""So long a slow test may take, on a slow machine and beside another test, too."""


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means: a process for each CPU that this one may use, within reason."""
    return min(usable_cpus(), groups.MOST_PROCESSES)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> groups.ByGroup:
    return groups.ByGroup(config, log)


@pytest.hookimpl(trylast=True)  # when the test processes are gone
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """After Ctrl-C pytest-xdist gives its processes no time to stop the services that their fixtures started."""
    if exitstatus == pytest.ExitCode.INTERRUPTED and session.config.getoption("numprocesses"):
        from ganpipe import services

        for state in session.config._tmp_path_factory.getbasetemp().glob(f"popen-*/**/{services.STATE}"):  # type: ignore[attr-defined]
            services.stop(state.parents[1])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: groups.turn(item.nodeid))
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


@pytest.fixture(autouse=True)
def torch_as_it_was() -> None:
    """Each test begins with torch as this process found it: a training sets it up for its whole process, and a test
    that ran before may have trained."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(_num_threads())
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


@functools.cache
def _num_threads() -> int:
    import torch

    return torch.get_num_threads()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for the session; each `page()` of it has its own cookies and storage."""
    from browser import Browser

    with Browser() as running:
        yield running


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An empty MLflow database, and a package."""
    from registry_parts import build, tracker_in

    root = tmp_path_factory.mktemp("template")
    tracker_in(root).client()
    return root / "mlflow.db", build(tmp_path_factory.mktemp("package"), "cgan")


@pytest.fixture
def desk(tmp_path: Path, empty_registry: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """An MLflow registry of the test's own."""
    from registry_parts import Desk, tracker_in

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("GANPIPE_USER", raising=False)
    return Desk(tracker_in(tmp_path, empty_registry[0]), empty_registry[1])
