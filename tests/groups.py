"""Which tests run in the same process where `make test` starts several, and in which order they begin.

pytest-xdist's own way, `--dist loadgroup` with marks, does nothing under pytest 9.2 (pytest-xdist issue 1386).
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

MOST_PROCESSES = 4
"""More would wait for each other's services, and for memory, of which each takes about 1 GiB."""

GROUPS = {
    "ray_head": ("tests/cluster/",),
    "project": ("tests/pipelines/test_dvc.py", "tests/pipelines/test_verify.py"),
    "prefect_server": (
        "tests/pipelines/test_flow.py",
        "tests/pipelines/test_promote_flow.py",
        "tests/pipelines/test_workspace.py",
    ),
    "finished": ("tests/pipelines/test_report.py", "tests/pipelines/test_report_page.py"),
    "object_store": ("tests/storage/",),
}
"""Fixtures that start services or run the pipeline once a session, and the files whose tests use them. These begin
first, because they take longest; a short group at the end lets all processes end at about the same time."""


def group(test: str) -> str:
    """The tests of a group run in one process: those that share a fixture, those of a GAN, otherwise those of a file.

    Args:
        test: its node id, `<path>::<name>[<parameters>]`.
    """
    path, _, name = test.partition("::")
    for fixture, paths in GROUPS.items():
        if path.startswith(paths):
            return fixture
    return f"tests/gans/{name.partition('[')[2].rstrip(']')}" if path.startswith("tests/gans/") else path


def turn(test: str) -> int:
    """When a test's group begins: the smaller, the earlier."""
    fixtures = list(GROUPS)
    return fixtures.index(group(test)) if group(test) in fixtures else len(fixtures)


class ByGroup(LoadScopeScheduling):
    """Gives each process the next group as soon as it is almost done with the last."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
