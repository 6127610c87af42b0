"""How many CPUs a process may use: asked of real processes under `taskset` and in real control groups."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from ganpipe.cpus import granted_cpus, usable_cpus

ROOT = Path(__file__).parents[2]
V2 = "31 23 0:28 / {mount} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {begins} {mount} rw - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "33 31 0:30 / {mount} rw - cgroup cgroup rw,memory"
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"
NUMBER = "from ganpipe.cpus import usable_cpus; print(usable_cpus())"
NUMBER_OF_THREADS = """
from ganpipe.environment import apply_defaults
apply_defaults()
import torch
print(torch.get_num_threads())
"""
needs_taskset = pytest.mark.skipif(shutil.which("taskset") is None or (os.cpu_count() or 1) < 2, reason="one CPU")


def laid_out(folder: Path, groups: str, mount: str, limits: dict[str, str], **values: str) -> float | None:
    """What is granted to a process of `groups` where `mount` is mounted and files have these contents."""
    tree, proc = folder / "a tree", folder / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(groups)
    place = str(tree).replace(" ", r"\040")
    (proc / "mountinfo").write_text(mount.format(mount=place, **values) + "\n")
    for name, content in limits.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    return granted_cpus(proc)


@pytest.mark.parametrize(
    ("groups", "mount", "begins", "limits", "granted"),
    [
        ("0::/\n", V2, "/", {"cpu.max": "150000 100000\n"}, 1.5),  # a container with a namespace of its own
        ("0::/\n", V2, "/", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", V2, "/", {"cgroup.procs": ""}, None),  # the root of the machine
        ("0::/a/b.scope\n", V2, "/", {"a/cpu.max": "50000 100000", "a/b.scope/cpu.max": "max 100000"}, 0.5),
        ("0::/a\n", V2, "/", {"a/cpu.max": "400000 100000\n", "cpu.max": "200000 100000\n"}, 2.0),
        ("4:cpu,cpuacct:/docker/4f\n", V1, "/docker/4f", {QUOTA: "300000", PERIOD: "100000"}, 3.0),
        ("4:cpu,cpuacct:/a\n", V1, "/", {f"a/{QUOTA}": "-1", f"a/{PERIOD}": "100000"}, None),
        ("4:cpu,cpuacct:/a/b\n", V1, "/", {f"a/{QUOTA}": "25000", f"a/{PERIOD}": "50000"}, 0.5),
        ("4:cpu,cpuacct:/other\n", V1, "/docker/4f", {QUOTA: "100000", PERIOD: "100000"}, 1.0),
        ("4:memory:/\n0::/\n", V1_MEMORY, "/", {QUOTA: "1000", PERIOD: "1000"}, None),
    ],
)  # fmt: skip
def test_the_least_limit_of_the_groups_around_a_process_counts(
    groups: str, mount: str, begins: str, limits: dict[str, str], granted: float | None, tmp_path: Path
) -> None:
    assert laid_out(tmp_path, groups, mount, limits, begins=begins) == granted


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert granted_cpus(tmp_path) is None


@contextlib.contextmanager
def group_of(quota_us: int) -> Iterator[list[str]]:
    """What a command is begun with to run in a new control group with this CPU time in each 100 ms."""
    version_1 = Path("/sys/fs/cgroup/cpu")
    version_2 = Path("/sys/fs/cgroup")
    mount, name = (version_1, "cpu.cfs_quota_us") if version_1.is_dir() else (version_2, "cpu.max")
    group = mount / f"ganpipe-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / name).write_text(str(quota_us))
        (group / "cgroup.procs").open("w").close()
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group with a CPU limit can be made here: {error}")
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        group.rmdir()


def output_of(*command: str) -> str:
    unset = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, cwd=ROOT, env=unset, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


@needs_taskset
def test_a_process_under_taskset_uses_what_it_is_given() -> None:
    assert output_of("taskset", "--cpu-list", "0", sys.executable, "-c", NUMBER) == "1"


@pytest.mark.skipif(usable_cpus() < 2, reason="one CPU")
def test_a_process_in_a_control_group_uses_what_it_is_granted() -> None:
    with group_of(quota_us=60_000) as begin:
        assert output_of(*begin, sys.executable, "-c", NUMBER) == "1"
        assert output_of(*begin, sys.executable, "-c", NUMBER_OF_THREADS) == "1"


@needs_taskset
def test_check_counts_the_cpus_that_it_may_use(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(8):
        Image.new("L", (16, 16), 20 * number).save(tmp_path / "images" / f"{number}.png")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"] |= {"source": "folder", "image_size": 16}
    params["train"]["gan"] = "gan"
    params["cluster"] |= {"num_workers": 1, "cpus_per_worker": 2}
    params["register"] |= {"conditions": {}, "require_commit": False}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    foreign = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    done = subprocess.run(
        ["taskset", "--cpu-list", "0", sys.executable, "-m", "ganpipe", "check"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT), "GANPIPE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert (
        f"error: cluster: asks for 1 workers of 2 CPUs; this machine has {os.cpu_count()}, of which this process may "
        "use 1 (CPU affinity, limit of the container); lower cluster.*" in done.stderr
    )


@needs_taskset
@pytest.mark.slow
def test_the_ray_head_is_given_the_cpus_that_its_starter_may_use(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    foreign = ("RAY_", "MLFLOW_", "PREFECT_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment["PYTHONPATH"] = str(ROOT)

    def ganpipe(*command: str) -> None:
        subprocess.run(
            ["taskset", "--cpu-list", "0", sys.executable, *command], cwd=tmp_path, env=environment, check=True
        )

    ask = (
        "from ganpipe import services; from ganpipe.training import cluster; from pathlib import Path\n"
        "cluster.connect(services.ensure('ray', Path.cwd()).address)\n"
        "import ray; assert ray.cluster_resources()['CPU'] == 1, ray.cluster_resources()"
    )
    try:
        ganpipe("-c", ask)
    finally:
        ganpipe("-m", "ganpipe", "down")
